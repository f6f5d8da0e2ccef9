"""How many processes drive the devices of a run, and of the runs of a search. The engine is made up."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import click
import pytest
import trio

from devicesim.cli import processes
from devicesim.cli.processes import Processes, ProcessOptions, check_workers, wanted_workers
from devicesim.errors import ClusterError, InputError
from devicesim.fleet.capacity import Machine
from devicesim.fleet.cluster import Cluster
from devicesim.fleet.spec import Fleet, at_rate, parse_fleet
from devicesim.fleet.workers import DEVICES_PER_WORKER, STARTS_PER_WORKER
from tests.fleet_support import plain_robots

FLEET = plain_robots(1000)
CPUS = 8
OPTIONS = ProcessOptions(workers=None, scheduler=None, emulated=False)


@pytest.fixture
def fleet() -> Fleet:
    return parse_fleet(FLEET, Path("fleet.toml"))


@dataclass
class Engine:
    """Dask, as far as it is asked."""

    events: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fails: bool = False

    @asynccontextmanager
    async def local(self, count: int) -> AsyncIterator[Cluster]:
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise ClusterError("no processes to be had")
        self.events.append(f"open {count}")
        yield cast("Cluster", f"{count} here")
        self.events.append(f"close {count}")

    @asynccontextmanager
    async def remote(self, address: str) -> AsyncIterator[Cluster]:
        await trio.lowlevel.checkpoint()
        self.events.append(f"open {address}")
        yield cast("Cluster", address)
        self.events.append(f"close {address}")

    async def muster(self, cluster: Cluster, count: int | None) -> tuple[str, ...]:
        del cluster
        await trio.lowlevel.checkpoint()
        return tuple(f"tcp://10.0.0.{n}:1" for n in range(count or 3))

    def driver(self, *given: Any) -> tuple[Any, ...]:
        """What a driver was made of."""
        return given


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    machine = Machine(open_files=None, ports=None, time_wait=1.0, time_wait_abroad=60.0, memory=None, cpus=CPUS)
    monkeypatch.setattr(processes, "read_machine", lambda: machine)
    monkeypatch.setattr(processes, "distributed_is_there", lambda: True)
    monkeypatch.setattr(processes, "local_cluster", made.local)
    monkeypatch.setattr(processes, "remote_cluster", made.remote)
    monkeypatch.setattr(processes, "muster", made.muster)
    monkeypatch.setattr(processes, "Workers", made.driver)
    return made


@asynccontextmanager
async def opened(engine: Engine, **options: Any) -> AsyncIterator[Callable[..., Any]]:
    """Hands out the number of processes that drive so many devices at a rate; 1: this one."""
    async with AsyncExitStack() as stack:
        own = Processes(replace(OPTIONS, **options), stack, engine.warnings.append)

        async def count(fleet: Fleet, rate: float, devices: int = 20) -> int:
            driver = await own.driver(at_rate(fleet, rate), devices, engine.notes.append)
            if driver is None:
                return 1
            cluster, chosen, note = cast("tuple[Any, tuple[str, ...], Any]", driver)
            assert cluster == f"{len(chosen)} here"
            note("told")
            return len(chosen)

        yield count


@pytest.mark.parametrize(
    ("rate", "devices", "count"),
    [
        (STARTS_PER_WORKER, 10, 1),
        (STARTS_PER_WORKER + 1, 10, 2),
        (1.0, DEVICES_PER_WORKER + 1, 2),
        (1e6, 10, CPUS),
    ],
)
def test_processes_are_those_that_rate_and_devices_need(
    engine: Engine, fleet: Fleet, rate: float, devices: int, count: int
) -> None:
    assert wanted_workers(at_rate(fleet, rate), devices=devices, emulated=False) == count


def test_an_emulator_has_a_core_of_its_own(engine: Engine, fleet: Fleet) -> None:
    assert wanted_workers(at_rate(fleet, 1e6), devices=10, emulated=True) == CPUS - 1


def test_without_dask_there_is_one_process(engine: Engine, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "distributed_is_there", lambda: False)

    assert wanted_workers(at_rate(fleet, 1e6), devices=10, emulated=False) == 1


async def test_run_that_one_process_can_drive_opens_none(engine: Engine, fleet: Fleet) -> None:
    async with opened(engine) as count:
        assert await count(fleet, 50.0) == 1

    assert engine.events == []


async def test_processes_follow_the_rate_of_a_search_up_and_stay_when_it_goes_down(
    engine: Engine, fleet: Fleet
) -> None:
    async with opened(engine) as count:
        rates = (50.0, 100.0, 200.0, 400.0, 280.0, 200.0, 330.0)
        assert [await count(fleet, rate) for rate in rates] == [1, 1, 2, 4, 4, 4, 4]
        assert engine.events == ["open 2", "close 2", "open 4"]

    assert engine.events == ["open 2", "close 2", "open 4", "close 4"]
    assert engine.notes == ["told"] * 5


async def test_processes_follow_the_devices_of_a_trial_not_those_of_the_fleet(engine: Engine, fleet: Fleet) -> None:
    large = fleet.resized(DEVICES_PER_WORKER * 5)

    async with opened(engine) as count:
        assert await count(large, 10.0, 200) == 1
        assert await count(large, 10.0, DEVICES_PER_WORKER * 2) == 2


@pytest.mark.parametrize("workers", [1, 3])
async def test_so_many_processes_as_are_named_drive_at_every_rate(engine: Engine, fleet: Fleet, workers: int) -> None:
    async with opened(engine, workers=workers) as count:
        assert [await count(fleet, rate) for rate in (10.0, 1000.0, 10.0)] == [workers] * 3

    assert engine.events == ([] if workers == 1 else ["open 3", "close 3"])


async def test_processes_that_cannot_be_had_leave_none(engine: Engine, fleet: Fleet) -> None:
    async with opened(engine) as count:
        assert await count(fleet, 200.0) == 2
        engine.fails = True
        with pytest.raises(ClusterError, match="no processes"):
            await count(fleet, 400.0)
        assert engine.events == ["open 2", "close 2"]

    assert engine.events == ["open 2", "close 2"]


async def test_cluster_that_runs_already_is_opened_once_and_warned_of(engine: Engine, fleet: Fleet) -> None:
    async with AsyncExitStack() as stack:
        options = replace(OPTIONS, scheduler="tcp://10.0.0.9:8786", emulated=True)
        own = Processes(options, stack, engine.warnings.append)
        for rate in (10.0, 1000.0):
            driver = await own.driver(at_rate(fleet, rate), 20, engine.notes.append)
            assert cast("tuple[Any, ...]", driver)[:2] == (
                "tcp://10.0.0.9:8786",
                ("tcp://10.0.0.0:1", "tcp://10.0.0.1:1", "tcp://10.0.0.2:1"),
            )

    assert engine.events == ["open tcp://10.0.0.9:8786", "close tcp://10.0.0.9:8786"]
    unencrypted, elsewhere = engine.warnings
    assert "go to tcp://10.0.0.9:8786 unencrypted" in unencrypted
    assert "where worker tcp://10.0.0.0:1 does not find it" in elsewhere


def test_what_cannot_be_had_is_told_before_anything_is_opened() -> None:
    with pytest.raises(InputError, match="'nonsense' is no address"):
        check_workers(None, "nonsense", ())
    check_workers(None, "tcp://10.0.0.9:8786", ())
    with pytest.raises(click.UsageError, match="with --scheduler others dial"):
        check_workers(None, "tcp://10.0.0.9:8786", ("127.0.0.2",))
    check_workers(1, None, ("127.0.0.2",))
