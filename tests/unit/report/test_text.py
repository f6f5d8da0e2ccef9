"""The report in the terminal: whole at every width, plain without a terminal, free of other people's control codes."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from devicesim.outcome import Failure, FailureKind, Stage
from devicesim.record.facts import RunStatus
from devicesim.record.store import RunReader
from devicesim.report import text
from devicesim.report.document import Summary
from devicesim.report.summary import summarise

WIDE_TABLE = """\
group                dials   SNI               IoT Core should                            what happened                              agree
────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
robots-in-prod       prod    endpoint          provisioned in prod (DEFAULT, no thing)    30 provisioned in prod (DEFAULT)           yes
30 devices                                     10b.C3.sA [D/I]

robots-in-dev        dev     endpoint          provisioned in dev (SNI_ONLY, thing)       30 provisioned in prod (DEFAULT)           NO
30 devices                                     10b.C3.sB [D/I]                                                                       0 of 30

robots-without-sni   prod    none              provisioned in prod (DEFAULT, no thing)    30 refused: closed before CONNACK          NO
30 devices                                     10b.C3.none.chain [I]                                                                 0 of 30

over-there           prod    endpoint of dev   provisioned in dev (SNI_ONLY, thing)       3 provisioned in dev (SNI_ONLY, thing)     NO
3 devices                                      10b.C3.sB [D/I]                                                                       0 of 3
                                               the file expects: refused
"""  # noqa: E501  # a table is as wide as it is

NARROW_TABLE = """\
group                  IoT Core should          what happened            agree
────────────────────────────────────────────────────────────────────────────────
robots-in-prod         provisioned in prod      30 provisioned in prod   yes
30 devices, dial       (DEFAULT, no thing)      (DEFAULT)
prod                   10b.C3.sA [D/I]
SNI endpoint

robots-in-dev          provisioned in dev       30 provisioned in prod   NO
30 devices, dial dev   (SNI_ONLY, thing)        (DEFAULT)                0 of 30
SNI endpoint           10b.C3.sB [D/I]
"""


def summary_of(path: Path) -> Summary:
    with RunReader(path) as reader:
        return summarise(reader)


def report(path: Path, width: int = 100, **options: str) -> str:
    return text.as_text(summary_of(path), width=width, **options)


def test_wide_table_has_a_column_for_each_thing(wrong: Path) -> None:
    assert WIDE_TABLE in report(wrong, 140)


def test_narrow_table_puts_the_settings_under_the_name(wrong: Path) -> None:
    assert NARROW_TABLE in report(wrong, 80)


@pytest.mark.parametrize("width", [60, 80, 100, 119, 120, 140, 200])
def test_no_word_is_lost_and_no_line_too_long_at_any_width(wrong: Path, width: int) -> None:
    lines = report(wrong, width).splitlines()
    words = set(" ".join(lines).split())

    assert max(len(line) for line in lines) <= width
    assert {"robots-in-prod", "robots-in-dev", "over-there", "provisioned", "refused:", "10b.C3.none.chain"} <= words
    assert {"(SNI_ONLY,", "DEFAULT", "CONNACK", "NO", "yes", "30", "111122223333"[: width - 50]} <= words
    assert not [line for line in lines if "…" in line or line != line.rstrip()]


LONG = Failure(
    kind=FailureKind.SERVER_CERTIFICATE_UNTRUSTED,
    stage=Stage.TLS,
    detail="self-signed certificate in certificate chain: CN=" + "an-intermediate-authority-of-the-middlebox." * 3,
)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_numbers_of_failed_tries_are_never_folded(record: Callable[..., Path], robots: Any, width: int) -> None:
    summary = summary_of(record([replace(robots, tries=[LONG] * 3, lands=None), replace(robots, name="other")]))
    first, *others = summary.failures
    many = first.model_copy(update={"tries": 1_234_567, "first_tries": 765_432, "devices": 1_000_000})

    lines = text.as_text(summary.model_copy(update={"failures": (many, *others)}), width=width).splitlines()

    begin = lines.index("Failed tries, by what was seen") + 1
    head, row = lines[begin], lines[begin + 2]
    assert head.split() == ["what", "was", "seen", "tries", "first", "tries", "devices"]
    assert row.split()[-3:] == ["1234567", "765432", "1000000"]
    assert [row.index(number) + len(number) for number in row.split()[-3:]] == [
        head.index(name) + len(name) for name in ("   tries", "first tries", "devices")
    ]
    assert max(map(len, lines)) <= width
    assert LONG.detail.replace(" ", "") in "".join(lines).replace(" ", "")
    assert summary.failures[0].detail == LONG.detail


@pytest.mark.parametrize(
    ("asked", "with_thing", "says"),
    [
        (30, 30, "30 ACTIVE (SNI_ONLY), all with a thing"),
        (30, 29, "30 ACTIVE (SNI_ONLY), 29 with a thing"),
        (30, 0, "30 ACTIVE (SNI_ONLY)"),
        (10, 9, "30 ACTIVE (SNI_ONLY), 9 of 10 asked with a thing"),
        (0, 0, "30 ACTIVE (SNI_ONLY), not asked for things"),
    ],
)
def test_of_how_many_certificates_the_things_are_known_is_told(
    good: Path, asked: int, with_thing: int, says: str
) -> None:
    summary = summary_of(good)
    prod, dev = summary.accounts
    assert (dev.provisioning, prod.provisioning) == ("JITP", "JITR")
    assert dev.after is not None
    (held,) = dev.after
    shown = dev.model_copy(
        update={"after": (held.model_copy(update={"asked_for_things": asked, "with_thing": with_thing}),)}
    )

    lines = text.as_text(summary.model_copy(update={"accounts": (prod, shown)}), width=140).splitlines()

    assert [line.rstrip() for line in lines if line.rstrip().endswith(says)]


def test_failed_tries_take_no_more_width_than_they_need(record: Callable[..., Path], robots: Any) -> None:
    lines = report(record([robots]), 140).splitlines()

    assert "what was seen           tries   first tries   devices" in lines


def test_header_says_what_ran_against_what_how_it_ended_and_how_load_was_made(good: Path) -> None:
    first, second, *_ = report(good).splitlines()

    assert first == "walk-through: 100 devices in 4 groups, against the emulator"
    assert second == "finished in 12.3 s; open arrivals at 50 starts/s; devicesim 0.1.0"


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("good", "All 100 devices ended as expected."),
        ("wrong", "30 of 95 devices ended as expected: 65 ended otherwise."),
        ("cut_short", "0 of 560 devices ended as expected: 42 without a verdict, 518 not started."),
    ],
)
def test_last_line_says_whether_all_is_as_expected(name: str, last: str, request: pytest.FixtureRequest) -> None:
    assert report(request.getfixturevalue(name)).splitlines()[-1] == last


def test_path_of_the_record_is_told_whole(good: Path) -> None:
    path = "/a/long/path" * 12 + "/run.sqlite"

    assert report(good, 80, record=path).replace("\n", "").endswith(path)


def test_interrupted_run_says_so_and_blames_nobody_yet(cut_short: Path) -> None:
    lines = report(cut_short)

    assert "interrupted after 4.09 s" in lines
    assert "not yet" in lines
    assert "Did not end as expected" not in lines


def test_run_that_goes_on_or_was_killed_says_so(good: Path) -> None:
    summary = summary_of(good)
    running = summary.model_copy(update={"status": RunStatus.RUNNING, "ended_at": None, "duration_seconds": 3.0})
    untried = running.model_copy(update={"duration_seconds": None})

    assert "running, or killed; last try 3 s after the start" in text.as_text(running, width=100)
    assert "running, or killed; nothing tried yet" in text.as_text(untried, width=100)


def test_a_load_that_was_not_generated_is_told_after_the_headline(record: Callable[..., Path], robots: Any) -> None:
    text = report(record([replace(robots, late=2.0)]))

    assert text.rstrip().endswith(
        "The load asked for was not made: 1 of 3 starts more than 1 s late; 1 % of a group's are forgiven.\n"
        "Ask for a lower rate on this machine."
    )


def test_disagreements_name_reason_and_first_devices(wrong: Path) -> None:
    assert (
        "robots-in-dev, 30 devices: expected provisioned in dev (SNI_ONLY, thing); provisioned in prod\n"
        "  device 30 (walk-through-000030), 31 (walk-through-000031), 32 (walk-through-000032), ...\n"
    ) in report(wrong)


def test_rows_of_the_oracle_are_told_with_their_evidence(good: Path) -> None:
    lines = report(good, 140)

    assert (
        "10b.C3.none.chain [I]  no SNI, chain sent: registered in the CA's DEFAULT holder, in no SNI_ONLY one" in lines
    )
    assert "3.jitp [D+S]" in lines


def test_control_codes_in_other_peoples_words_are_shown_not_sent(wrong: Path) -> None:
    lines = report(wrong)

    assert "dev: AttachPolicy: \\x1b[31mThrottlingException" in lines
    assert "\x1b" not in lines


def test_brackets_in_names_are_not_markup(record: Callable[..., Path], robots: Any) -> None:
    path = record([replace(robots, sni_setting="literal:[bold]x[/bold].example", tries=[None], lands=None)])

    assert "[bold]x[/bold].example" in report(path, 140)


def test_colour_only_repeats_what_the_words_say(wrong: Path) -> None:
    """So a terminal shows the same text as a log."""
    screen = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor", record=True)
    screen.print(text.render(summary_of(wrong)))
    coloured = screen.export_text(styles=True, clear=False)
    plain = "".join(line.rstrip() + "\n" for line in screen.export_text().splitlines())

    assert "\x1b[" in coloured
    assert plain == report(wrong)


def test_report_fits_a_terminal_that_knows_ascii_only(wrong: Path) -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True), width=100)

    console.print(text.render(summary_of(wrong)))

    assert b"robots-in-prod" in raw.getvalue()


def test_empty_record_is_told_as_such(good: Path) -> None:
    summary = summary_of(good)
    empty = summary.model_copy(
        update={
            "groups": (),
            "accounts": (),
            "failures": (),
            "agrees": False,
            "totals": summary.totals.model_copy(update={"devices": 0}),
        }
    )

    assert text.as_text(empty, width=100).endswith("No device is on record.\n")
