"""What an activator reads out of an event, and what it leaves in the account."""

import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from devicesim.cloud.account import AccountAccess, AccountClient, ControlPlaneError
from devicesim.cloud.activator import activator_identity, registered_certificate
from devicesim.errors import TargetError

EVENT: dict[str, Any] = {
    "certificateId": "ab" * 32,
    "caCertificateId": "ca",
    "timestamp": 1730000000000,
    "certificateStatus": "PENDING_ACTIVATION",
    "awsAccountId": "111122223333",
    "certificateRegistrationTimestamp": None,
    "sourceIp": "127.0.0.1",
}


def test_a_pending_certificate_of_the_ca_is_to_be_activated() -> None:
    assert registered_certificate(json.dumps(EVENT).encode(), "ca") == "ab" * 32


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        json.dumps({**EVENT, "caCertificateId": "other"}).encode(),
        json.dumps({**EVENT, "certificateStatus": "ACTIVE"}).encode(),
        json.dumps({**EVENT, "certificateId": 5}).encode(),
    ],
)
def test_anything_else_is_passed_over(payload: bytes) -> None:
    assert registered_certificate(payload, "ca") is None


class Account:
    """Answers with nothing, or raises what stands under the operation."""

    access = AccountAccess(name="a", account_id="111111111111", region="us-east-1", emulated=True)

    def __init__(self, **errors: TargetError) -> None:
        self.errors = errors
        self.calls: list[str] = []

    async def call(self, operation: str, **_: Any) -> dict[str, Any]:
        self.calls.append(operation)
        if operation in self.errors:
            raise self.errors[operation]
        return {}


REMOVAL = ["detach_policy", "update_certificate", "delete_certificate", "delete_policy"]


def refusal(code: str) -> ControlPlaneError:
    return ControlPlaneError(f"refused: {code}", code=code, fields={})


@pytest.mark.parametrize(
    ("error", "called", "told"),
    [
        (refusal("ResourceNotFoundException"), REMOVAL, []),
        (refusal("ThrottlingException"), REMOVAL, ["not removed: refused: ThrottlingException"]),
        (TargetError("nobody answers"), REMOVAL[:1], ["nobody answers"]),
    ],
    ids=["gone already", "refused", "unreachable"],
)
async def test_what_cannot_be_removed_is_told_and_ends_no_run(
    error: TargetError, called: list[str], told: list[str]
) -> None:
    account = Account(detach_policy=error)
    notes: list[str] = []
    now = datetime(2026, 6, 1, tzinfo=UTC)

    async with activator_identity(cast("AccountClient", account), "me", "ca", now, notes.append):
        account.calls.clear()

    assert account.calls == called
    assert [any(each in note for note in notes) for each in told] == [True] * len(notes)


async def test_a_setup_that_is_refused_is_what_is_raised_not_its_clean_up() -> None:
    account = Account(create_policy=TargetError("no room"), detach_policy=TargetError("nobody answers"))
    now = datetime(2026, 6, 1, tzinfo=UTC)

    with pytest.raises(TargetError, match="no room"):
        async with activator_identity(cast("AccountClient", account), "me", "ca", now, lambda _: None):
            raise AssertionError("there is no identity")
