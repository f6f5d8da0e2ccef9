"""A record's devices, each with all that is recorded of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from devicesim.outcome import Attempt, DeviceOutcome, Verdict
from devicesim.record.facts import AccountRecord, DeviceRecord, GroupRecord, RunFacts
from devicesim.record.store import RunReader, RunWriter
from devicesim.record.stories import stories
from devicesim.rules import Expectation, Row
from tests.record_support import REFUSED

RUN = RunFacts(fleet="f", fleet_file="", version="0", target="emulator", started_at=0.0)
EXPECTED = Expectation(
    outcome=DeviceOutcome.PROVISIONED,
    account="prod",
    mode=None,
    thing=None,
    first_try="accepted",
    row=Row(id="x", says="x", mark="D", source="x"),
)
VERDICT = Verdict(
    device=0,
    outcome=DeviceOutcome.REFUSED,
    account=None,
    mode=None,
    thing=None,
    expected_outcome=DeviceOutcome.PROVISIONED,
    expected_account="prod",
    agrees=False,
    reason="x",
    attempts=1,
    time_to_provision=None,
)


def device(number: int) -> DeviceRecord:
    return DeviceRecord(number=number, index=number, group="g", client_id=f"d{number}", certificate_id=f"c{number}")


def tried(number: int, attempt: int) -> Attempt:
    return replace(REFUSED, device=number, number=attempt)


@pytest.fixture
def writer(tmp_path: Path) -> RunWriter:
    writer = RunWriter.create(tmp_path / "run.sqlite", RUN)
    account = AccountRecord(
        name="prod", account_id="1" * 12, region="eu-west-1", endpoint=None, ca_mode=None, provisioning="none"
    )
    group = GroupRecord(
        name="g", count=9, account="prod", sni_setting="none", sni=None, chain_sent=True, expectation=EXPECTED
    )
    writer.add_account(account, now=0.0)
    writer.add_group(group, now=0.0)
    return writer


def read(writer: RunWriter) -> list[tuple[int, list[tuple[int, int]], int | None]]:
    writer.close()
    with RunReader(writer.path) as reader:
        return [
            (
                device.number,
                [(each.device, each.number) for each in attempts],
                None if verdict is None else verdict.device,
            )
            for device, attempts, verdict in stories(reader)
        ]


def test_each_device_has_its_own_tries_and_verdict_whatever_is_missing_of_others(writer: RunWriter) -> None:
    """The last, the first and some in between without tries, without a verdict, without both."""
    tries = {0: 0, 1: 2, 3: 0, 4: 1, 7: 3, 8: 0}
    judged = {1, 3, 7}
    for number in sorted(tries, reverse=True):
        writer.add_device(device(number), now=0.0)
        for attempt in range(tries[number], 0, -1):
            writer.add_attempt(tried(number, attempt), now=0.0)
        if number in judged:
            writer.add_verdict(replace(VERDICT, device=number), now=0.0)

    assert read(writer) == [
        (0, [], None),
        (1, [(1, 1), (1, 2)], 1),
        (3, [], 3),
        (4, [(4, 1)], None),
        (7, [(7, 1), (7, 2), (7, 3)], 7),
        (8, [], None),
    ]


def test_record_without_devices_has_no_stories(writer: RunWriter) -> None:
    assert read(writer) == []


def test_stories_of_a_run_that_goes_on_are_of_one_moment(writer: RunWriter) -> None:
    for number in range(3):
        writer.add_device(device(number), now=0.0)
        writer.add_attempt(tried(number, 1), now=0.0)
    writer.flush()
    with RunReader(writer.path) as reader, reader.snapshot():
        told = stories(reader)
        first = next(told)
        writer.add_attempt(tried(1, 2), now=0.0)
        writer.add_device(device(3), now=0.0)
        writer.flush()
        rest = list(told)
    writer.close()

    assert [(each[0].number, len(each[1])) for each in (first, *rest)] == [(0, 1), (1, 1), (2, 1)]
