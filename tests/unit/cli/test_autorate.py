"""What is refused before a search for the highest rate begins, and when it ends without being asked for more."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from devicesim.cli.autorate import Search, check_search, first_trial, rate_of
from devicesim.errors import InputError
from devicesim.fleet.arrival import schedule_of
from devicesim.fleet.spec import Fleet, at_rate, parse_fleet
from devicesim.record.facts import RunStatus
from devicesim.record.thresholds import Threshold
from devicesim.report.document import Summary
from tests.fleet_support import plain_robots

FLEET = plain_robots(200)
GOAL = Threshold.parse("time_to_provision", "p(95)<5s")


@pytest.fixture
def fleet() -> Fleet:
    return parse_fleet(FLEET, Path("fleet.toml"))


@pytest.mark.parametrize(
    ("arrival", "rate"),
    [
        ("", 50.0),
        ('rate = "7/s"', 7.0),
        ('stages = [{ target = 20, duration = "10s" }, { target = 5, duration = "10s" }]', 20.0),
    ],
)
def test_search_begins_at_the_rate_of_the_fleet_file(arrival: str, rate: float) -> None:
    assert rate_of(parse_fleet(f"{FLEET}[arrival]\n{arrival}\n", Path("fleet.toml"))) == rate


@pytest.mark.parametrize(
    ("arrival", "told"),
    [
        ("burst = {}", "'all 200 at once', has no rate"),
        ('burst = { size = 10, every = "5s" }', "'bursts of 10 every 5 s', has no rate"),
        ('model = "closed"\nconcurrency = 20', "'closed, 20 at a time', has no rate"),
    ],
)
def test_arrival_that_has_no_rate_is_no_beginning_unless_one_is_named(arrival: str, told: str) -> None:
    fleet = parse_fleet(f"{FLEET}[arrival]\n{arrival}\n", Path("fleet.toml"))

    with pytest.raises(InputError) as caught:
        rate_of(fleet)
    assert told in str(caught.value)
    assert "--rate 10/s" in caught.value.hint
    assert rate_of(at_rate(fleet, 3.0)) == 3.0


@pytest.mark.parametrize("metric", ["time_to_provision{group:robots}", "tls_seconds{account:a,group:robots}"])
def test_goal_may_be_of_a_group_and_an_account_of_the_fleet(fleet: Fleet, metric: str) -> None:
    check_search(fleet, Threshold.parse(metric, "p(95)<5s"), first=20.0, seconds=10.0)


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("time_to_provision{group:nobody}", "'nobody' is not a group of this file; known: 'robots'"),
        ("time_to_provision{account:nowhere}", "'nowhere' is not an account of this file; known: 'a'"),
    ],
)
def test_goal_of_what_the_fleet_does_not_have_is_refused(fleet: Fleet, metric: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_search(fleet, Threshold.parse(metric, "p(95)<5s"), first=1.0, seconds=1.0)


def test_fleet_that_is_too_small_for_the_first_trial_is_refused(fleet: Fleet) -> None:
    with pytest.raises(InputError, match=r"20\.1 starts/s for 10 s, takes 201 devices, the fleet has 200"):
        check_search(fleet, GOAL, first=20.1, seconds=10.0)


def test_what_the_first_trial_needs_is_that_of_its_devices_at_its_rate(fleet: Fleet) -> None:
    trial = first_trial(fleet, first=4.0, seconds=10.0)

    assert trial.size == 40
    assert schedule_of(trial.file.arrival, trial.size).peak_rate == 4.0


def test_first_trial_of_more_groups_than_devices_has_one_of_each() -> None:
    groups = "".join(f'[groups.g{n}]\ncount = 5\naccount = "a"\n' for n in range(30))
    fleet = parse_fleet(FLEET + groups, Path("fleet.toml"))

    assert first_trial(fleet, first=1.0, seconds=1.0).size == 31


@pytest.mark.parametrize("trials", [0, 1, 3])
async def test_search_that_is_interrupted_between_two_trials_tries_no_other(fleet: Fleet, trials: int) -> None:
    made: list[frozenset[int]] = []

    async def run_trial(fleet: Fleet, directory: Path, only: frozenset[int]) -> Summary:
        made.append(only)
        return _taken(len(only))

    search = Search(
        fleet=fleet,
        goal=GOAL,
        target="emulator",
        directory=Path("out"),
        seconds=1.0,
        say=lambda _: None,
        interrupted=lambda: len(made) >= trials,
    )
    await search.run(run_trial, first=1.0)

    found = search.document()
    assert len(made) == len(found.trials) == trials
    assert found.ended == "interrupted"
    assert found.highest_rate == (2 ** (trials - 1) if trials else None)
    assert len(frozenset().union(*made)) == sum(map(len, made))


def _taken(devices: int) -> Summary:
    """As much of the summary of a trial that was taken as the search looks at."""
    return cast(
        "Summary",
        SimpleNamespace(
            status=RunStatus.FINISHED,
            load_generated=True,
            generator=None,
            totals=SimpleNamespace(devices=devices, not_started=0, agree=devices),
            thresholds=(SimpleNamespace(ok=True, value=1.0),),
        ),
    )
