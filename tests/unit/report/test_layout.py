"""What reports are laid out with."""

import pytest

from devicesim.report.layout import clean, seconds


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0 ms"),
        (0.0000004, "under 0.01 ms"),
        (0.00041, "0.41 ms"),
        (0.0123456, "12.3 ms"),
        (0.9994, "999 ms"),
        (1.0, "1 s"),
        (12.345, "12.3 s"),
        (99.96, "100 s"),
        (119.6, "2 min 0 s"),
        (185.2, "3 min 5 s"),
    ],
)
def test_durations_are_for_people(value: float, words: str) -> None:
    assert seconds(value) == words


def test_words_of_others_cannot_steer_the_terminal() -> None:
    assert clean("a\x1b[31mb\nc") == "a\\x1b[31mb\\nc"
