"""Diagnoses in the terminal: whole at every width, commands that can be copied, alike devices told of once."""

import io
import shlex
from dataclasses import replace

import pytest
from rich.console import Console

from devicesim.diagnosis.rank import diagnose
from devicesim.report.diagnosis_text import as_text, continued, render
from tests.diagnosis_support import CERTIFICATE, DEV, DROP, RECORD, evidence, unasked

INACTIVE = diagnose(evidence(accounts=[replace(DEV, record=replace(RECORD, status="INACTIVE"))]))
NOT_KNOWN = diagnose(evidence(accounts=[unasked(DEV)]))
CONNECTED = diagnose(evidence([DROP, None]))

NARROW = f"""\
device 7 (robot-000007) of group robots: not connected
closed before CONNACK: close_notify (try 5)
as IoT Core should: INACTIVE: refused, nothing changes (10c.inactive [D/I])

1. the certificate is not ACTIVE or not valid now, or a clock is wrong (13
   certificate, score 10)
   for     9 the certificate is INACTIVE in dev
           1 it is what IoT Core should do, by row 10c.inactive [D/I]
   fix: make the certificate ACTIVE in dev
        aws iot update-certificate --certificate-id \\
          {CERTIFICATE} \\
          --new-status ACTIVE --region eu-central-1

device 7 (robot-000007) is not connected.
"""

WIDE = f"""\
device 7 (robot-000007) of group robots: not connected
closed before CONNACK: close_notify (try 5)
as IoT Core should: INACTIVE: refused, nothing changes (10c.inactive [D/I])

1. the certificate is not ACTIVE or not valid now, or a clock is wrong (13 certificate, score 10)
   for     9 the certificate is INACTIVE in dev
           1 it is what IoT Core should do, by row 10c.inactive [D/I]
   fix: make the certificate ACTIVE in dev
        aws iot update-certificate --certificate-id {CERTIFICATE} --new-status ACTIVE \\
          --region eu-central-1

device 7 (robot-000007) is not connected.
"""


def test_narrow_and_wide_terminals() -> None:
    assert as_text([INACTIVE], width=80) == NARROW
    assert as_text([INACTIVE], width=140) == WIDE


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_no_line_is_too_long_and_no_word_is_lost(width: int) -> None:
    shown = as_text([INACTIVE, NOT_KNOWN, CONNECTED], width=width)
    lines = shown.splitlines()
    joined = "".join(shown.split())

    assert max(len(line) for line in lines) <= width
    assert not [line for line in lines if "…" in line or line != line.rstrip()]
    for word in ("nocredentials", "set-v2-logging-options", "AWSIoTConfigReadOnlyAccess", "Whatwouldtellmore"):
        assert word in joined


def test_connected_device_is_one_line() -> None:
    assert as_text([CONNECTED], width=80) == "device 7 (robot-000007) is connected: accepted (try 2).\n"


def test_last_line_says_how_many_are_connected() -> None:
    assert as_text([CONNECTED, INACTIVE], width=80).splitlines()[-1] == "1 of 2 devices are connected."
    assert as_text([], width=80) == "No device was looked at.\n"


def test_devices_alike_are_told_of_once_the_most_frequent_first() -> None:
    many = [replace(INACTIVE, device=f"device {number} (robot-{number})") for number in range(7)]

    shown = as_text([NOT_KNOWN, *many], width=160)

    assert shown.startswith(
        "7 devices of group robots: device 0 (robot-0), device 1 (robot-1), device 2 (robot-2), device 3 (robot-3),"
        " device 4 (robot-4) and 2 more: not connected\n"
    )
    assert "Names and ids are those of device 0 (robot-0).\n" in shown
    assert shown.count("the certificate is INACTIVE in dev") == 1
    assert shown.index("INACTIVE") < shown.index("no credentials")


def test_devices_alike_of_several_groups_and_tries_are_told_together() -> None:
    other = replace(INACTIVE, device="device 8 (robot-8)", group="others", tries=7)

    shown = as_text([INACTIVE, other], width=160)

    assert shown.startswith(
        "2 devices of groups robots, others: device 7 (robot-000007), device 8 (robot-8): not connec"
    )
    assert "closed before CONNACK: close_notify (try 5 to 7)\n" in shown


def test_group_that_was_never_started_counts_with_all_its_devices() -> None:
    whole = replace(NOT_KNOWN, device="40 devices", devices=40, tries=0, findings=(), seen="never started: no")

    shown = as_text([whole], width=80)

    assert shown.startswith("40 devices of group robots: not connected\nnever started: no\n")
    assert shown.endswith("\n0 of 40 devices are connected.\n")


def test_devices_that_were_not_looked_at_are_counted() -> None:
    guessed = replace(INACTIVE, device="device 8 (robot-8)", like=INACTIVE.device)

    shown = as_text([INACTIVE, guessed], width=140)

    assert "Names and ids are those of device 7 (robot-000007); 1 of them were not looked at themselves." in shown


def test_no_cause_is_told_as_such() -> None:
    nothing = diagnose(evidence())

    assert nothing.findings == ()
    assert "No cause stands out." in as_text([nothing], width=80)


def test_unlikely_causes_are_named_only() -> None:
    many = replace(NOT_KNOWN, findings=NOT_KNOWN.findings * 2)

    assert "and 2 less likely: policy, certificate" in as_text([many], width=80)


def test_control_codes_and_brackets_in_other_peoples_words_are_shown_not_meant() -> None:
    shown = as_text([replace(INACTIVE, device="\x1b[31m[bold]x[/bold]")], width=80)

    assert "\\x1b[31m[bold]x[/bold] of group robots: not connected" in shown
    assert "\x1b" not in shown


def test_colour_only_repeats_what_the_words_say() -> None:
    screen = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor", record=True)
    screen.print(render([INACTIVE, NOT_KNOWN]))
    coloured = screen.export_text(styles=True, clear=False)
    plain = "".join(line.rstrip() + "\n" for line in screen.export_text().splitlines())

    assert "\x1b[" in coloured
    assert plain == as_text([INACTIVE, NOT_KNOWN], width=100)


def test_backslash_is_the_last_on_its_line_in_the_terminal_too() -> None:
    screen = Console(file=io.StringIO(), width=80, highlight=False)
    with screen.capture() as capture:
        screen.print(render([INACTIVE]))

    lines = [line for line in capture.get().splitlines() if "\\" in line]
    assert len(lines) == 2
    assert all(line.endswith("\\") for line in lines)


@pytest.mark.parametrize("width", [10, 30, 60, 200])
@pytest.mark.parametrize(
    "command",
    [
        "aws iot create-thing-group --thing-group-name 'my robots, all of them' --region eu-central-1",
        "openssl s_client -connect a:8883 -servername b </dev/null",
        "aws iot get-policy --policy-name 'it'\"'\"'s' --region eu-central-1",
        "true",
    ],
)
def test_command_over_several_lines_is_the_same_command(command: str, width: int) -> None:
    lines = continued(command, width)

    assert all(line.endswith(" \\") for line in lines[:-1])
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == shlex.split(command)
