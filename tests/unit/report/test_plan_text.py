"""A plan in words."""

import pytest

from devicesim.report.plan_text import span


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (1.5, "1.5 s"),
        (59.4, "59.4 s"),
        (59.99, "60 s"),
        (60.0, "1 min"),
        (1000.0, "16 min 40 s"),
        (3599.6, "1 h"),
        (100_000.0, "27 h 46 min"),
        (172_800.0, "2 d"),
        (500_000.0, "5 d 18 h"),
        (1e8, "1,157 d 9 h"),
    ],
)
def test_times_are_for_people_who_plan(seconds: float, words: str) -> None:
    assert span(seconds) == words
