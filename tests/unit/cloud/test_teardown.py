"""Removing what was made, against a control plane that answers from a script."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import trio

from devicesim.cloud import teardown
from devicesim.cloud.account import AccountAccess, AccountClient, ControlPlaneError
from devicesim.cloud.teardown import remove_ca, remove_certificate, remove_policy
from devicesim.errors import TargetError

ACCESS = AccountAccess(name="a", account_id="111111111111", region="us-east-1", emulated=True)


class ScriptedAccount:
    """Answers from a table; a text is the name of an error, a list is answered in turn."""

    access = ACCESS

    def __init__(self, answers: dict[str, Any] | None = None, things: tuple[str, ...] = ()) -> None:
        self.answers = answers or {}
        self.things = things
        self.calls: list[str] = []

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        self.calls.append(f"{operation} {' '.join(str(each) for each in parameters.values())}")
        answer = self.answers.get(operation, {})
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, str):
            raise ControlPlaneError(f"{operation} refused: {answer}", code=answer, fields={})
        if isinstance(answer, Exception):
            raise answer
        return cast("dict[str, Any]", answer)

    async def pages(self, operation: str, key: str, **parameters: Any) -> AsyncIterator[str]:
        for thing in self.things:
            yield thing


def client(account: ScriptedAccount) -> AccountClient:
    return cast("AccountClient", account)


def described(status: str) -> dict[str, Any]:
    return {"certificateDescription": {"status": status}}


async def test_certificate_is_detached_deactivated_and_deleted_with_its_own_thing_only() -> None:
    account = ScriptedAccount({"describe_certificate": described("ACTIVE")}, things=("mine", "yours"))
    notes: list[str] = []

    await remove_certificate(client(account), "c1", ("mine",), notes.append)

    arn = ACCESS.arn("cert/c1")
    assert account.calls == [
        "describe_certificate c1",
        f"detach_thing_principal mine {arn}",
        "delete_thing mine",
        f"detach_thing_principal yours {arn}",
        "update_certificate c1 INACTIVE",
        "delete_certificate c1 True",
    ]
    assert notes == []


@pytest.mark.parametrize(
    ("status", "call"),
    [
        ("PENDING_ACTIVATION", "update_certificate c1 INACTIVE"),
        ("PENDING_TRANSFER", "cancel_certificate_transfer c1"),
        ("INACTIVE", None),
        ("REVOKED", None),
    ],
)
async def test_status_decides_what_comes_before_the_deletion(status: str, call: str | None) -> None:
    account = ScriptedAccount({"describe_certificate": described(status)})

    await remove_certificate(client(account), "c1", (), lambda text: None)

    assert account.calls == ["describe_certificate c1", *([call] if call else []), "delete_certificate c1 True"]


async def test_what_is_not_there_any_more_is_removed() -> None:
    account = ScriptedAccount(
        dict.fromkeys(("describe_certificate", "update_ca_certificate", "delete_policy"), "ResourceNotFoundException")
    )
    notes: list[str] = []

    await remove_certificate(client(account), "c1", (), notes.append)
    await remove_ca(client(account), "ca1", notes.append)
    await remove_policy(client(account), "p", notes.append)

    assert notes == []


async def test_deletion_that_comes_before_the_detachment_is_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    account = ScriptedAccount(
        {
            "describe_certificate": described("INACTIVE"),
            "delete_certificate": ["DeleteConflictException", "DeleteConflictException", {}],
        }
    )
    notes: list[str] = []

    await remove_certificate(client(account), "c1", (), notes.append)

    assert account.calls.count("delete_certificate c1 True") == 3
    assert notes == []


async def test_what_cannot_be_removed_is_told_and_does_not_stop_the_rest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    account = ScriptedAccount(
        {
            "describe_certificate": [described("ACTIVE"), TargetError("nobody answers")],
            "update_certificate": "UnauthorizedException",
            "delete_ca_certificate": "CertificateStateException",
            "delete_policy": ["DeleteConflictException"] * 100,
        }
    )
    notes: list[str] = []

    await remove_certificate(client(account), "c1", (), notes.append)
    await remove_certificate(client(account), "c2", (), notes.append)
    await remove_ca(client(account), "ca1", notes.append)
    await remove_policy(client(account), "p", notes.append)

    assert [note.partition(" is left: ")[0] for note in notes] == [
        "certificate c1",
        "certificate c2",
        "CA certificate ca1",
        "policy 'p'",
    ]
    assert trio.current_time() <= 2 * teardown.DETACH_SECONDS
