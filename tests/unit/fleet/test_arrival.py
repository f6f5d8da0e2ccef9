"""The section of a fleet file that says how devices arrive."""

from pathlib import Path

import pytest

from devicesim.errors import FleetFileError
from devicesim.fleet.arrival import schedule_of
from devicesim.fleet.spec import Fleet, at_rate, parse_fleet

PATH = Path("fleet.toml")
FLEET = """
version = 1
name = "walk"
[accounts.a]
id = "111111111111"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
[groups.first]
count = 1000
account = "a"
[arrival]
"""


def fleet_of(arrival: str) -> Fleet:
    return parse_fleet(FLEET + arrival, PATH)


def problems(arrival: str) -> dict[str, str]:
    with pytest.raises(FleetFileError) as caught:
        fleet_of(arrival)
    assert caught.value.exit_code == 104
    return {each.path: each.message for each in caught.value.problems}


@pytest.mark.parametrize(
    ("arrival", "described", "due"),
    [
        ("", "50 starts/s", 10.0),
        ('rate = "600/min"', "10 starts/s", 50.0),
        ('stages = [{ target = "100/s", duration = "10s" }]', "1 stage to 100 starts/s", 10.0),
        ('start_rate = 50\nstages = [{ target = 50, duration = "1m" }]', "1 stage to 50 starts/s", 10.0),
        ("stages = [{ target = 25, duration = 0 }]", "1 stage to 25 starts/s", 20.0),
        ('burst = { size = 200, every = "60s" }', "bursts of 200 every 60 s", 120.0),
        ("burst = {}", "all 1000 at once", 0.0),
        ("burst = { size = 1500, every = 10 }", "all 1000 at once", 0.0),
        ('model = "closed"\nconcurrency = 100', "closed, 100 at a time", 0.0),
    ],
)
def test_a_schedule_is_made_of_the_section(arrival: str, described: str, due: float) -> None:
    schedule = schedule_of(fleet_of(arrival).file.arrival, 1000)

    assert schedule.describe() == described
    assert schedule.start(500) == pytest.approx(due)


def test_what_counts_as_a_load_that_was_not_generated_has_defaults() -> None:
    arrival = fleet_of("").file.arrival

    assert (arrival.model, arrival.late_after, arrival.tolerance) == ("open", 1.0, 0.01)
    assert (arrival.max_under_way, arrival.concurrency) == (None, None)


@pytest.mark.parametrize(
    ("arrival", "path", "says"),
    [
        ("rate = 5\nstages = [{ target = 5, duration = 1 }]", "arrival.stages", "does not go with arrival.rate"),
        ("rate = 5\nburst = {}", "arrival.burst", "does not go with arrival.rate"),
        ("burst = {}\nstages = [{ target = 5, duration = 1 }]", "arrival.burst", "does not go with arrival.stages"),
        ("start_rate = 5", "arrival.start_rate", "there are none"),
        ('model = "closed"', "arrival.concurrency", "is missing"),
        ("concurrency = 5", "arrival.concurrency", "is for model 'closed'"),
        ('model = "closed"\nconcurrency = 5\nrate = 5', "arrival.model", "does not go with arrival.rate"),
        ('model = "closed"\nconcurrency = 5\nmax_under_way = 5', "arrival.max_under_way", "is for model 'open'"),
        ('model = "closed"\nconcurrency = 5\ntolerance = 0.5', "arrival.tolerance", "is for model 'open'"),
        ("burst = { size = 5 }", "arrival.burst.every", "is missing"),
        ("burst = { every = 5 }", "arrival.burst.size", "is missing"),
        ("burst = { size = 5, every = 0 }", "arrival.burst.every", "greater than 0"),
        ("stages = []", "arrival.stages", "at least 1"),
        ("stages = [{ target = -1, duration = 5 }]", "arrival.stages.0.target", "greater than or equal to 0"),
        ('stages = [{ target = 1, duration = "soon" }]', "arrival.stages.0.duration", "a duration is"),
        ("stages = [{ target = 1 }]", "arrival.stages.0.duration", "is missing"),
        ("stages = [{ target = nan, duration = 5 }]", "arrival.stages.0.target", "nan"),
        ('rate = "0/s"', "arrival.rate", "greater than 0"),
        ('model = "half"', "arrival.model", "'open' or 'closed'"),
        ("max_under_way = 0", "arrival.max_under_way", "greater than or equal to 1"),
        ("tolerance = 1.5", "arrival.tolerance", "less than or equal to 1"),
        ("late_after = -1", "arrival.late_after", "greater than or equal to 0"),
    ],
)
def test_a_wrong_section_is_told_with_its_path(arrival: str, path: str, says: str) -> None:
    found = problems(arrival)

    assert list(found) == [path]
    assert says in found[path]


ENDS = 'stages = [{ target = "100/s", duration = "10s" }, { target = 0, duration = "10s" }]'
"""1000 starts, and no more."""


def test_a_schedule_that_can_never_start_all_devices_is_a_problem_of_the_file() -> None:
    fleet = fleet_of(ENDS)

    assert schedule_of(fleet.file.arrival, 1000).duration(1000) == pytest.approx(20, abs=0.5)
    found = problems(ENDS.replace('target = 0, duration = "10s"', 'target = 0, duration = "9s"'))
    assert found["arrival.stages"].startswith("the rate ends at 0 after 950 starts, but there are 1000 devices")


def test_a_fleet_is_not_resized_beyond_what_its_schedule_starts() -> None:
    fleet = fleet_of(ENDS)

    assert fleet.resized(1000).size == 1000
    with pytest.raises(FleetFileError) as caught:
        fleet.resized(1001)
    assert [each.path for each in caught.value.problems] == ["arrival.stages"]
    assert at_rate(fleet, 10).resized(1001).size == 1001


@pytest.mark.parametrize(
    "arrival", [ENDS, "burst = {}", 'model = "closed"\nconcurrency = 5', "start_rate = 1\n" + ENDS]
)
def test_a_rate_takes_the_place_of_any_other_arrival(arrival: str) -> None:
    fleet = at_rate(fleet_of(arrival), 20.0)

    assert schedule_of(fleet.file.arrival, 1000).describe() == "20 starts/s"
    assert fleet.file.name == "walk"


def test_a_rate_leaves_what_counts_as_late_or_too_many() -> None:
    fleet = at_rate(fleet_of('late_after = "5s"\ntolerance = 0.2\nmax_under_way = 7\nrate = 3'), 20.0)

    arrival = fleet.file.arrival
    assert (arrival.late_after, arrival.tolerance, arrival.max_under_way) == (5.0, 0.2, 7)
