"""Processes of Dask's that follow the rate of a search: those of a slower trial are gone before more are started."""

import os
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from devicesim.cli import processes
from devicesim.cli.limits import read_machine
from devicesim.cli.processes import Processes, ProcessOptions
from devicesim.fleet.spec import at_rate, parse_fleet
from tests.fleet_support import plain_robots

pytestmark = pytest.mark.slow

DEADLINE = 100.0
FLEET = plain_robots(1000)


def children() -> set[int]:
    """Processes of this one's that live, but for the one that tidies up after all others."""
    found = set()
    for each in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for child in map(int, each.read_text().split()):
            line = Path(f"/proc/{child}/cmdline").read_bytes()
            if line and b"resource_tracker" not in line:
                found.add(child)
    return found


async def test_more_processes_take_the_place_of_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = replace(read_machine(), cpus=3)
    monkeypatch.setattr(processes, "read_machine", lambda: machine)
    fleet, before = parse_fleet(FLEET, Path("fleet.toml")), children()
    counts, seen = [], []
    with trio.fail_after(DEADLINE):
        async with AsyncExitStack() as stack:
            own = Processes(ProcessOptions(workers=None, scheduler=None, emulated=False), stack, lambda _: None)
            for rate in (50.0, 150.0, 300.0, 200.0):
                driver = await own.driver(at_rate(fleet, rate), 20, lambda _: None)
                counts.append(0 if driver is None else len(await driver._cluster.alive()))
                seen.append(children() - before)

    assert counts == [0, 2, 3, 3]
    assert [len(each) for each in seen] == [0, 2, 3, 3]
    assert not seen[1] & seen[2]
    assert seen[2] == seen[3]
    assert children() == before
