"""A run in several workers is told as if one process had driven it, whatever becomes of answers and workers.

The workers here are threads, called as Dask would call processes; tests/integration/test_workers.py has the processes.
"""

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim import __version__
from devicesim.errors import ClusterError, InputError, leaves
from devicesim.fleet import station, workers
from devicesim.fleet.cluster import WorkerError
from devicesim.fleet.device import Clock
from devicesim.fleet.exchange import Order, State
from devicesim.fleet.identities import Material
from devicesim.fleet.pacing import Shard
from devicesim.fleet.runner import InProcess
from devicesim.fleet.shard import Door, ShardPlan, Started
from devicesim.fleet.spec import at_rate, parse_fleet
from devicesim.fleet.wireform import write_plan
from devicesim.fleet.workers import Workers, deal, default_workers, muster
from devicesim.outcome import Attempt, FailureKind
from devicesim.pki.authority import new_shared_authority
from devicesim.pki.profile import KeyType
from devicesim.record.facts import Drop, GeneratorSample

T = TypeVar("T")

DEADLINE = 30.0
DEVICES = 24
FLEET = f"""
version = 1
name = "shared"
[accounts.a]
id = "111111111111"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
[groups.many]
count = {DEVICES - 6}
account = "a"
[groups.few]
count = 6
account = "a"
sni = "none"
[arrival]
rate = "40/s"
[retry]
first_delay = [0.05, 0.1]
attempts = 2
"""
AUTHORITY = new_shared_authority("test CA", KeyType.EC_P256, now=datetime.now(UTC), validity=timedelta(days=1))


@pytest.fixture
def door() -> Iterator[tuple[str, int]]:
    """An address where nobody listens, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()


@pytest.fixture(autouse=True)
def _sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting is not what is tested."""
    monkeypatch.setattr(workers, "ASK_SECONDS", 0.05)
    monkeypatch.setattr(workers, "LEAD_SECONDS", 0.3)
    monkeypatch.setattr(workers, "ROLL_SECONDS", 0.1)
    monkeypatch.setattr(station, "LEASE_SECONDS", 1.0)


@pytest.fixture(autouse=True)
def _all_is_forgotten() -> Iterator[None]:
    """A run leaves nothing in its workers, least of all a key."""
    yield
    left = dict(station._STATIONS)
    station._STATIONS.clear()
    assert left == {}


def plan_of(door: tuple[str, int], text: str = FLEET) -> ShardPlan:
    fleet = parse_fleet(text, Path("fleet.toml"))
    return ShardPlan(
        fleet=fleet,
        material=Material(authority=AUTHORITY, secret=bytes(32)),
        doors={"a": Door(endpoint="a.localhost", address=door)},
        roots=(AUTHORITY.certificate,),
        run_id="0123abcd",
        shard=Shard(first=0, step=1, count=fleet.size),
        only=None,
        hold=0.0,
        under_way=None,
    )


class Heard:
    """A sink that keeps what it is told, and holds it to its contract."""

    def __init__(self) -> None:
        self.devices: dict[int, Started] = {}
        self.attempts: list[Attempt] = []
        self.ended: dict[int, bool] = {}
        self.drops: dict[int, Drop] = {}
        self.processes: Counter[str] = Counter()

    def started(self, device: Started) -> None:
        assert device.number not in self.devices
        self.devices[device.number] = device

    def attempt(self, attempt: Attempt, *, live: bool) -> None:
        assert attempt.device in self.devices
        assert attempt.device not in self.ended
        self.attempts.append(attempt)

    def finished(self, device: int, *, accepted: bool) -> None:
        assert device in self.devices
        assert device not in self.ended
        self.ended[device] = accepted

    def dropped(self, drop: Drop) -> None:
        assert drop.device not in self.drops
        assert drop.device not in self.devices
        self.drops[drop.device] = drop

    def failed(self, device: int, group: str, why: str) -> None:
        raise AssertionError(f"{device} of {group}: {why}")

    def sampled(self, sample: GeneratorSample) -> None:
        self.processes[sample.process] += sample.starts

    @property
    def due(self) -> dict[int, float]:
        """Seconds after the first start at which each device was due."""
        first = {each.device: each.intended_start for each in self.attempts if each.number == 1}
        return {device: round(at - min(first.values()), 5) for device, at in first.items()}


class Threads:
    """A cluster whose workers are threads of this process."""

    def __init__(self, *names: str) -> None:
        self.there = set(names)
        self.dead = {name: trio.Event() for name in names}
        self.loses: Callable[[int], bool] = lambda _: False
        """Whether the answer to so manieth question is lost."""
        self.asked = 0

    def kill(self, name: str) -> bool:
        """It answers no more; its thread goes on for as long as its lease. Whether its answers are lost: they are not,
        there are none."""
        self.there.discard(name)
        self.dead[name].set()
        return False

    async def alive(self) -> frozenset[str]:
        await trio.lowlevel.checkpoint()
        return frozenset(self.there)

    async def call(self, worker: str, function: Callable[..., T], *arguments: object) -> T:
        await trio.lowlevel.checkpoint()
        if worker not in self.there:
            await trio.sleep_forever()
        answer = function(*arguments)
        if function is station.ask:
            self.asked += 1
            if self.loses(self.asked):
                raise WorkerError("the answer was lost")
        return answer

    async def work(self, worker: str, function: Callable[..., None], *arguments: object) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_with, worker, nursery.cancel_scope)
            await trio.to_thread.run_sync(function, *arguments, abandon_on_cancel=True)
            nursery.cancel_scope.cancel()
        if self.dead[worker].is_set():
            raise WorkerError("its process has ended")

    async def _end_with(self, worker: str, scope: trio.CancelScope) -> None:
        await self.dead[worker].wait()
        scope.cancel()


def clock() -> Clock:
    return Clock(epoch=time.time(), zero=trio.current_time())


async def drive(cluster: Threads, plan: ShardPlan, heard: Heard) -> list[str]:
    """A whole run; the notes."""
    notes: list[str] = []
    names = await muster(cluster, None)
    with trio.fail_after(DEADLINE):
        await Workers(cluster, names, notes.append).drive(plan, heard, clock())
    return notes


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is awaited happens in a thread
            await trio.sleep(0.01)


# --- how a run is dealt out ---


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 60), st.none() | st.integers(1, 100))
def test_shares_are_the_whole_run_and_their_places_all_its_places(
    devices: int, parts: int, under_way: int | None
) -> None:
    fleet = parse_fleet(FLEET, Path("fleet.toml")).resized(max(2, devices))
    whole = replace(plan_of(("127.0.0.1", 1)), fleet=fleet, under_way=under_way)

    shares = deal(whole, parts)

    positions = sorted(position for each in shares for position in each.shard.positions())
    assert positions == list(range(fleet.size))
    assert len({each.process for each in shares}) == len(shares)
    if under_way is not None:
        limits = [each.under_way for each in shares]
        assert sum(limit or 0 for limit in limits) == under_way
        assert min(limit or 0 for limit in limits) >= 1


@pytest.mark.parametrize(
    ("cores", "emulated", "devices", "rate", "expected"),
    [
        (2, True, 1_000_000, 10_000.0, 1),  # the emulator has the other core
        (2, False, 1_000_000, 10_000.0, 2),
        (16, True, 1_000_000, 10_000.0, 15),
        (16, True, 35, 10.0, 1),  # not worth a process
        (16, True, 1000, 500.0, 5),
        (16, True, 1000, 501.0, 6),
        (16, False, 60_000, 10.0, 3),
        (16, False, 20_000, None, 1),
        (1, True, 5, 1.0, 1),
    ],
)
def test_a_run_takes_no_more_processes_than_it_needs_and_cores_are_left(
    cores: int, emulated: bool, devices: int, rate: float | None, expected: int
) -> None:
    assert default_workers(cores=cores, emulated=emulated, devices=devices, rate=rate) == expected


# --- who takes part ---


async def test_all_workers_take_part_unless_a_number_is_said() -> None:
    cluster = Threads("b", "a", "c")

    assert await muster(cluster, None) == ("a", "b", "c")
    assert await muster(cluster, 2) == ("a", "b")


@pytest.mark.parametrize(
    ("count", "message"), [(3, "has 2 workers; --workers 3 needs as many"), (None, "has 0 workers; at least 1")]
)
async def test_too_few_workers_are_told_before_anything_is_set_up(count: int | None, message: str) -> None:
    cluster = Threads("a", "b") if count else Threads()

    with pytest.raises(ClusterError, match=message):
        await muster(cluster, count)


async def test_a_worker_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def call(*_: object) -> str:
        await trio.lowlevel.checkpoint()
        return "9.9.9"

    cluster = Threads("a")
    monkeypatch.setattr(cluster, "call", call)

    with pytest.raises(InputError, match=f"worker a has devicesim 9.9.9, this is {__version__}") as caught:
        await muster(cluster, None)
    assert caught.value.hint == f"pip install 'devicesim[distributed]=={__version__}' there"


async def test_a_worker_without_devicesim_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def call(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise WorkerError("PackageNotFoundError: No package metadata was found for devicesim")

    cluster = Threads("a")
    monkeypatch.setattr(cluster, "call", call)

    with pytest.raises(InputError, match="worker a cannot run devicesim: PackageNotFoundError") as caught:
        await muster(cluster, None)
    assert caught.value.hint == f"pip install 'devicesim[distributed]=={__version__}' there"


# --- the run ---


async def test_two_workers_tell_what_one_process_tells(door: tuple[str, int]) -> None:
    plan, alone, shared = plan_of(door), Heard(), Heard()

    await InProcess().drive(plan, alone, clock())
    notes = await drive(Threads("one", "two"), plan, shared)

    assert notes == []
    assert shared.devices == alone.devices
    assert len(shared.devices) == DEVICES
    assert shared.ended == alone.ended
    assert shared.due == alone.due
    assert Counter(each.device for each in shared.attempts) == Counter(dict.fromkeys(range(DEVICES), 2))
    assert {each.failure.kind for each in shared.attempts if each.failure} == {FailureKind.TCP_REFUSED}
    assert shared.processes == {"worker 1": DEVICES // 2, "worker 2": DEVICES // 2, "coordinator": 0}


async def test_nothing_is_lost_and_nothing_doubled_when_answers_are_lost(door: tuple[str, int]) -> None:
    plan, shared = plan_of(door), Heard()
    cluster = Threads("one", "two")
    cluster.loses = lambda question: question % 3 != 0

    assert await drive(cluster, plan, shared) == []

    assert set(shared.ended) == set(range(DEVICES))
    assert Counter(each.device for each in shared.attempts) == Counter(dict.fromkeys(range(DEVICES), 2))


async def test_what_a_lost_worker_did_not_start_is_dropped_and_the_others_go_on(door: tuple[str, int]) -> None:
    plan = plan_of(door)
    cluster, heard, notes = Threads("one", "two"), Heard(), []

    async def kill() -> None:
        await until(lambda: len(heard.devices) >= 6)
        cluster.kill("one")

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            notes += await drive(cluster, plan, heard)
    await _lease_is_over()

    own = set(Shard(first=0, step=2, count=DEVICES // 2).positions())
    dropped, started = set(heard.drops), set(heard.devices)
    assert dropped
    assert dropped < own
    assert started | dropped == set(range(DEVICES))
    assert min(dropped) > max(started & own)
    assert set(heard.ended) >= set(range(DEVICES)) - own
    due = heard.due
    beginning = min(each.intended_start for each in heard.attempts)
    assert {n: round(heard.drops[n].due - beginning, 5) for n in dropped} == {n: round(n / 40, 5) for n in dropped}
    assert all(abs(at - n / 40) < 1e-4 for n, at in due.items())
    under_way = len(started & own - set(heard.ended))
    told = (
        f"worker one is gone (its process has ended): {len(started & own)} of its {DEVICES // 2} devices had had their "
        f"turn, {under_way} of them were under way and stay undecided, {len(dropped)} were never started"
    )
    assert notes == [told]


async def _lease_is_over() -> None:
    """A thread cannot be killed: what played a dead worker stops for want of questions."""
    await until(lambda: all(each._state is State.ENDED for each in station._STATIONS.values()))
    station._STATIONS.clear()


async def test_a_worker_that_only_the_engine_misses_is_lost_too(door: tuple[str, int]) -> None:
    cluster, heard = Threads("one", "two"), Heard()
    notes: list[str] = []

    async def leave() -> None:
        await until(lambda: len(heard.devices) >= 4)
        cluster.there.discard("two")

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            notes += await drive(cluster, plan_of(door), heard)
    await _lease_is_over()

    assert len(notes) == 1
    assert notes[0].startswith("worker two is gone (it has left the cluster): ")
    assert len(heard.devices) + len(heard.drops) == DEVICES


async def test_a_silent_worker_is_given_up(door: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SILENCE_SECONDS", 2.5)
    monkeypatch.setattr(workers, "ANSWER_SECONDS", 0.2)
    cluster, heard = Threads("one"), Heard()
    cluster.loses = lambda question: len(heard.devices) >= 4

    notes = await drive(cluster, plan_of(door, FLEET.replace('"40/s"', '"4/s"')), heard)
    await _lease_is_over()

    assert notes[0].startswith("worker one is gone (no answer for 3 s): ")
    assert len(heard.devices) + len(heard.drops) == DEVICES


async def test_a_worker_that_is_gone_before_the_beginning_ends_the_run(door: tuple[str, int]) -> None:
    cluster, heard = Threads("one", "two"), Heard()
    cluster.loses = lambda question: cluster.kill("two")

    with pytest.RaisesGroup(ClusterError, flatten_subgroups=True) as caught:
        await drive(cluster, plan_of(door), heard)
    await _lease_is_over()

    assert str(next(leaves(caught.value))).startswith("worker two is gone before anything was started: ")
    assert heard.devices == {}


async def test_a_share_that_cannot_be_driven_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    text = FLEET.replace(
        "[accounts.a]", '[ca]\ncertificate = "ca.pem"\n[devices]\nkeys = "imported"\nbundles = "*.pem"\n[accounts.a]'
    )
    plan = plan_of(("127.0.0.1", 1), text)
    plan = replace(plan, fleet=replace(plan.fleet, path=tmp_path / "fleet.toml"))

    with pytest.RaisesGroup(InputError, flatten_subgroups=True) as caught:
        await drive(Threads("one", "two"), plan, Heard())

    message = str(next(leaves(caught.value)))
    assert "cannot drive its devices: devices.bundles '*.pem' matches 0 files; 24 devices need one each" in message


async def test_cancelled_it_stops_its_workers_and_tells_what_they_saw(door: tuple[str, int]) -> None:
    cluster, heard = Threads("one", "two"), Heard()
    plan = replace(plan_of(door), fleet=at_rate(plan_of(door).fleet, 10.0))

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive, cluster, plan, heard)
            await until(lambda: len(heard.devices) >= 5)
            before = trio.current_time()
            nursery.cancel_scope.cancel()

    assert trio.current_time() - before < 2
    seen = len(heard.devices)
    assert 5 <= seen < DEVICES
    assert heard.drops == {}  # they were not due
    assert sum(heard.processes.values()) == seen  # the workers' last words are there


async def test_a_share_that_nobody_asks_for_stops(door: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(station, "LEASE_SECONDS", 0.5)
    station.give("key", write_plan(plan_of(door, FLEET.replace('"40/s"', '"1/min"'))), 0.0)
    station.ask("key", 0, Order(first=time.time()))

    with trio.fail_after(DEADLINE):
        await trio.to_thread.run_sync(station.work, "key")

    answer = station.ask("key", 0, Order(first=None))
    assert (answer.number, answer.state) == (1, State.ENDED)
    station.forget("key")


async def test_times_are_told_by_the_run_s_clock_whatever_the_worker_s_says(
    door: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = time.time
    ours, heard = Clock(epoch=true(), zero=trio.current_time()), Heard()
    monkeypatch.setattr(time, "time", lambda: true() + 3600)  # all but our clock is an hour ahead

    with trio.fail_after(DEADLINE):
        await Workers(Threads("one"), ("one",), pytest.fail).drive(plan_of(door), heard, ours)

    starts = [each.start for each in heard.attempts]
    assert ours.epoch < min(starts)
    assert max(starts) < ours.wall(trio.current_time())


async def test_a_process_that_was_not_given_a_share_does_not_drive_it() -> None:
    with pytest.raises(LookupError, match="no share 'key' in this process"):
        station.work("key")


async def test_a_share_is_not_driven_twice(door: tuple[str, int]) -> None:
    plan = plan_of(door, FLEET.replace(f"count = {DEVICES - 6}", "count = 1").replace("count = 6", "count = 1"))
    station.give("key", write_plan(plan), 0.0)
    station._STATIONS["key"].begin()

    with pytest.raises(LookupError, match="is being driven, or was, by another task"):
        station.work("key")
    station.forget("key")
