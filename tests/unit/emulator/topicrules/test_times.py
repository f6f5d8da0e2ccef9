"""Dates of rule SQL, by patterns of Joda-Time and java.time."""

from datetime import UTC

import pytest

from devicesim.emulator.topicrules.times import find_zone, format_time, parse_epoch

MOMENT = 1_700_000_000_123  # Tuesday, 14 November 2023, 22:13:20.123 UTC


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'", "2023-11-14T22:13:20.123Z"),
        ("yy/M/d", "23/11/14"),
        ("EEEE, MMMM d, yyyy h:mm a", "Tuesday, November 14, 2023 10:13 PM"),
        ("EEE MMM D w e", "Tue Nov 318 46 2"),
        ("K k s S SSSSSS G z Z ZZ", "10 22 20 1 123000 AD UTC +0000 +00:00"),
        ("'o''clock' ''", "o'clock '"),
    ],
)
def test_a_moment_is_written_by_the_pattern(pattern: str, expected: str) -> None:
    assert format_time(pattern, MOMENT, UTC) == expected


def test_a_moment_is_written_in_its_zone() -> None:
    assert format_time("yyyy.MM.dd G 'at' HH:mm:ss z", 100_000_000, find_zone("America/Belize")) == (
        "1970.01.01 AD at 21:46:40 CST"
    )
    assert format_time("HH Z ZZ ZZZ", MOMENT, find_zone("Asia/Kolkata")) == "03 +0530 +05:30 Asia/Kolkata"


@pytest.mark.parametrize("pattern", ["q", "yyyy'", "zzzz 'x'"])
def test_a_pattern_that_cannot_be_written_is_an_error(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"known|closed"):
        format_time(pattern, MOMENT, find_zone("Europe/Berlin"))


def test_a_moment_out_of_range_is_an_error() -> None:
    with pytest.raises(ValueError, match="out of range"):
        format_time("yyyy", 10**18, UTC)


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("2020-04-03 09:45:18 UTC+01:00", "yyyy-MM-dd HH:mm:ss VV", 1585903518000),
        ("18 December 2015", "dd MMMM yyyy", 1450396800000),
        ("2007-12-03 10:15:30.592 America/Los_Angeles", "yyyy-MM-dd HH:mm:ss.SSS z", 1196705730592),
        ("20231114221320", "yyyyMMddHHmmss", 1_700_000_000_000),
        ("2023-11-14T22:13:20Z", "yyyy-MM-dd'T'HH:mm:ssX", 1_700_000_000_000),
        ("14 Nov 23 10:13 PM", "d MMM yy h:mm a", 1_699_999_980_000),
        ("1969-12-31 23:59:59.999", "yyyy-MM-dd HH:mm:ss.SSS", -1),
    ],
)
def test_a_text_is_read_by_the_pattern(text: str, pattern: str, expected: int) -> None:
    assert parse_epoch(text, pattern) == expected


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("nope", "yyyy-MM-dd"), ("2021-02-31", "yyyy-MM-dd"), ("1", "q"), ("11", "d"), ("11", "ddd"), ("1 1", "y y")],
)
def test_a_text_or_pattern_that_does_not_fit_is_an_error(text: str, pattern: str) -> None:
    with pytest.raises(ValueError):
        parse_epoch(text, pattern)


def test_there_is_no_zone_of_a_name_from_nowhere() -> None:
    for name in ("Nope/Zone", "../../etc/passwd", "", "+99"):
        with pytest.raises(ValueError, match=r"zone|strictly between"):
            find_zone(name)
