"""What the oracle is told of the last try: the record as that try met it, by clocks that agree to a second only."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from devicesim.diagnosis.evidence import DeviceEvidence, RecordEvidence
from devicesim.diagnosis.rank import diagnose
from devicesim.outcome import Failure
from tests.diagnosis_support import (
    DEFAULT,
    DEV,
    DROP,
    LEAF,
    PENDING,
    PROD,
    RECORD,
    START,
    evidence,
)

DENIED = replace(RECORD, connect_allowed=False)
BARE = replace(RECORD, policies=(), connect_allowed=False)
UNKNOWN = replace(RECORD, policies=None, connect_allowed=None)


def row(given: DeviceEvidence) -> str:
    """``as 10c.inactive``, ``not 10c.active.allowed``, or nothing."""
    said = diagnose(given).oracle
    word = {"as IoT Core should": "as ", "not what IoT Core should do": "not "}.get(said.partition(":")[0], "")
    return word + next((each.strip("()") for each in said.split() if each.startswith("(10")), "")


def met(record: RecordEvidence | None, tries: Sequence[Failure] = (DROP,) * 4, *, gap: float = 0.3) -> str:
    """The row for a device with that record in ``dev``, which it dials by its name."""
    return row(evidence(tries, gap=gap, accounts=[replace(DEV, record=record)]))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (None, "not 10b.C2.sA"),  # four tries, and still nothing is registered
        (replace(PENDING, created=START + 0.1), "as 10c.pending"),
        (replace(PENDING, created=None), "as 10c.pending"),
        (replace(DENIED, created=START + 0.1, modified=START + 0.2), "as 10c.active.denied"),
        (replace(BARE, created=START + 0.1, modified=START + 0.2), "as 10c.active.denied"),
        (replace(DENIED, created=START + 0.1, modified=START + 30), "as 10c.pending"),
        (replace(RECORD, created=START + 0.1, modified=START + 0.2), "as 10c.pending"),  # activated since, perhaps
        (RECORD, "not 10c.active.allowed"),
        (replace(RECORD, created=START - 0.5, modified=START - 0.5), "not 10c.active.allowed"),  # by a call of the API
        (replace(RECORD, status="INACTIVE", created=START - 0.5, modified=START - 0.5), "as 10c.inactive"),
        (replace(RECORD, status="INACTIVE", modified=START + 60), ""),  # made so since, from what is not known
        (replace(RECORD, status="SOMETHING_NEW"), ""),
    ],
)
def test_quick_tries_meet_the_record_that_the_first_of_them_made(record: RecordEvidence | None, expected: str) -> None:
    assert met(record) == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (replace(PENDING, created=START + 0.1), "as 10b.C2.sA"),
        (replace(RECORD, created=START + 0.1, modified=START + 2), "as 10b.C2.sA"),
        (replace(RECORD, status="INACTIVE", created=START - 0.5, modified=START - 0.5), "as 10c.inactive"),
        (replace(PENDING, created=START - 5), "as 10c.pending"),
        (replace(PENDING, created=None), ""),
    ],
)
def test_one_try_meets_no_record_but_one_that_was_there(record: RecordEvidence, expected: str) -> None:
    assert met(record, [DROP]) == expected


def test_slow_tries_may_be_registered_by_the_last() -> None:
    """Those before it were throttled, say."""
    assert met(replace(PENDING, created=START + 12.1), gap=4) == "as 10b.C2.sA"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (UNKNOWN, ""),
        (replace(UNKNOWN, policies=()), "as 10c.active.denied"),
        (replace(UNKNOWN, status="REVOKED"), "as 10c.revoked"),
        (replace(RECORD, modified=None, created=None), ""),
    ],
)
def test_what_hangs_on_a_policy_that_is_not_known_is_not_told(record: RecordEvidence, expected: str) -> None:
    assert met(record) == expected


def test_a_policy_of_an_account_that_does_not_decide_does_not_matter() -> None:
    accounts = [replace(DEV, record=replace(RECORD, status="INACTIVE")), replace(PROD, record=UNKNOWN)]

    assert row(evidence(accounts=accounts)) == "as 10c.inactive"


def test_a_certificate_that_is_not_valid_has_no_row() -> None:
    late = replace(evidence(), leaf=replace(LEAF, not_after=START - 5))
    skewed = replace(
        evidence(accounts=[replace(DEV, clock_offset=7200.0)]), leaf=replace(LEAF, not_before=START - 3600)
    )

    assert (row(late), row(skewed)) == ("", "")


def test_a_registration_that_is_due_and_was_made_is_as_it_should_be() -> None:
    without_name = [replace(DEV, cas=(DEFAULT,), record=replace(PENDING, mode="DEFAULT", created=START + 0.1))]

    assert row(evidence([DROP], server_name=None, accounts=without_name)) == "as 10b.C1.none.chain"


def test_a_registration_that_is_due_and_was_not_made_is_told_with_the_account() -> None:
    assert diagnose(evidence()).oracle.endswith("(10b.C2.sA [D]), but dev has no record of it")
