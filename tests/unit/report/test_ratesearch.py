"""The answer of a search for the highest rate, in a line."""

from typing import Literal

import pytest

from devicesim.report.ratesearch import RateSearch, RateTrial, headline

Ended = Literal["found", "generator", "devices", "nothing", "trials", "interrupted"]
Outcome = Literal["taken", "too slow", "not generated"]


def search(ended: Ended, *outcomes: Outcome) -> RateSearch:
    return RateSearch(
        fleet="robots",
        target="emulator",
        metric="time_to_provision",
        expression="p(95)<5s",
        seconds=10.0,
        highest_rate=50.0 if "taken" in outcomes else None,
        ended=ended,
        trials=tuple(RateTrial(rate=50.0, devices=500, value=1.0, outcome=each, record="r") for each in outcomes),
    )


@pytest.mark.parametrize(
    ("ended", "outcomes", "told"),
    [
        ("found", ["taken", "too slow"], "50 starts/s were taken; a little more was not."),
        ("interrupted", [], "No rate was tried to its end."),
        ("interrupted", ["too slow"], "No rate that was tried was taken; the search was interrupted there."),
        ("devices", ["not generated"], "No rate that was tried was taken; the fleet has no devices left to try more"),
        ("nothing", ["too slow"], "No rate that was tried was taken."),
        (
            "trials",
            ["too slow"],
            "No rate that was tried was taken; the search was ended there, after too many trials.",
        ),
        ("generator", ["not generated"], "This machine could not make even the lowest rate in time."),
    ],
)
def test_a_search_that_took_no_rate_says_so_and_why_it_ended(ended: Ended, outcomes: list[Outcome], told: str) -> None:
    assert headline(search(ended, *outcomes)).plain.startswith(told)
