"""Removing what was made, against a control plane that answers from a script."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import trio

from devicesim.cloud import teardown
from devicesim.cloud.account import AccountAccess, AccountClient, ControlPlaneError
from devicesim.cloud.teardown import Made, remove, remove_certificate, remove_policy
from devicesim.errors import TargetError

ACCESS = AccountAccess(name="a", account_id="111111111111", region="us-east-1", emulated=True)
GONE = "ResourceNotFoundException"


class ScriptedAccount:
    """Answers from a table; a text is the name of an error, a list is answered in turn, its last for ever."""

    access = ACCESS

    def __init__(self, answers: dict[str, Any] | None = None, things: tuple[str, ...] = ()) -> None:
        self.answers = answers or {}
        self.lists: dict[str, list[Any]] = {"list_principal_things": list(things)}
        self.calls: list[str] = []

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        self.calls.append(" ".join((operation, *(str(each) for each in parameters.values()))))
        answer = self.answers.get(operation, {})
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, str):
            raise ControlPlaneError(f"{operation} refused: {answer}", code=answer, fields={})
        if isinstance(answer, Exception):
            raise answer
        return cast("dict[str, Any]", answer)

    async def pages(self, operation: str, key: str, **parameters: Any) -> AsyncIterator[Any]:
        for each in list(self.lists.get(operation, ())):
            yield each

    async def idle(self) -> None:
        self.calls.append("idle")


class AccountWithCA(ScriptedAccount):
    """Certificates under its CA: those deleted are not listed any more, and one more turns up late."""

    def __init__(self, statuses: dict[str, str], late: str | None = None) -> None:
        super().__init__()
        self.statuses = statuses
        self.late = late

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        answer = await super().call(operation, **parameters)
        if operation == "delete_certificate":
            self.statuses.pop(parameters["certificateId"], None)
        return answer

    async def pages(self, operation: str, key: str, **parameters: Any) -> AsyncIterator[Any]:
        for certificate, status in list(self.statuses.items()):
            yield {"certificateId": certificate, "status": status}
        if self.late is not None:
            self.statuses[self.late], self.late = "PENDING_ACTIVATION", None


def client(account: ScriptedAccount) -> AccountClient:
    return cast("AccountClient", account)


def described(status: str) -> dict[str, Any]:
    return {"certificateDescription": {"status": status}}


def ignore(_line: str) -> None:
    """What is left does not matter here."""


@pytest.mark.parametrize(
    ("status", "calls"),
    [
        ("ACTIVE", ["update_certificate c1 INACTIVE", "delete_certificate c1 True"]),
        ("PENDING_ACTIVATION", ["update_certificate c1 INACTIVE", "delete_certificate c1 True"]),
        ("PENDING_TRANSFER", ["cancel_certificate_transfer c1", "delete_certificate c1 True"]),
        ("INACTIVE", ["delete_certificate c1 True"]),
        ("REVOKED", ["delete_certificate c1 True"]),
    ],
)
async def test_status_decides_what_comes_before_the_deletion(status: str, calls: list[str]) -> None:
    account, unknown = ScriptedAccount(), ScriptedAccount({"describe_certificate": described(status)})

    assert await remove_certificate(client(account), "c1", status, None, ignore)
    assert await remove_certificate(client(unknown), "c1", None, None, ignore)

    assert account.calls == calls
    assert unknown.calls == ["describe_certificate c1", *calls]


async def test_certificate_is_detached_from_its_things_and_only_its_own_is_deleted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    account = ScriptedAccount(
        {"delete_certificate": ["DeleteConflictException", "DeleteConflictException", {}]}, things=("mine", "yours")
    )
    notes: list[str] = []

    assert await remove_certificate(client(account), "c1", "ACTIVE", "mine", notes.append)

    arn = ACCESS.arn("cert/c1")
    assert [each for each in account.calls if "thing" in each] == [
        f"detach_thing_principal mine {arn}",
        "delete_thing mine",
        f"detach_thing_principal yours {arn}",
    ]
    assert account.calls.count("delete_certificate c1 True") == 3
    assert notes == []


async def test_certificate_that_jitp_activates_meanwhile_is_deactivated_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    account = ScriptedAccount({"delete_certificate": ["CertificateStateException", {}]})

    assert await remove_certificate(client(account), "c1", "PENDING_ACTIVATION", "mine", ignore)

    assert account.calls == ["update_certificate c1 INACTIVE", "delete_certificate c1 True"] * 2 + ["delete_thing mine"]


async def test_what_is_not_there_any_more_is_removed() -> None:
    account = ScriptedAccount(
        dict.fromkeys(("describe_certificate", "update_certificate", "update_ca_certificate", "delete_policy"), GONE)
    )
    notes: list[str] = []

    assert await remove_certificate(client(account), "c1", None, None, notes.append)
    assert await remove_certificate(client(account), "c1", "ACTIVE", None, notes.append)
    assert await remove_policy(client(account), "p", notes.append)
    assert await remove(client(account), [Made(account="a", ca_id="ca", beside=("c2",), policy="p")], notes.append)

    assert notes == []


async def test_ca_is_retired_before_what_is_under_it_is_listed_and_deleted_after(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What connects just before is registered while one looks; another account's offer is that account's to remove."""
    account = AccountWithCA({"c1": "INACTIVE", "offered": "PENDING_TRANSFER"}, late="c2")
    made = Made(account="a", ca_id="ca1", beside=("c3",), things=(("c2", "thing-2"),), policy="p")
    account.answers["describe_certificate"] = described("REVOKED")
    notes: list[str] = []

    assert await remove(client(account), [made, Made(account="b", ca_id="theirs")], notes.append, settle=5.0)

    assert account.calls == [
        "idle",
        "describe_certificate c3",
        "delete_certificate c3 True",
        "update_ca_certificate ca1 INACTIVE",
        "delete_certificate c1 True",
        "update_certificate c2 INACTIVE",
        "delete_certificate c2 True",
        "delete_thing thing-2",
        "delete_ca_certificate ca1",
        "delete_policy p",
    ]
    assert (notes, trio.current_time()) == ([], 5.0)


async def test_what_cannot_be_removed_is_told_and_does_not_stop_the_rest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    account = AccountWithCA({"c1": "ACTIVE", "c2": "REVOKED"})
    account.answers |= {
        "update_certificate": "UnauthorizedException",
        "describe_certificate": TargetError("nobody answers"),
        "delete_policy": "DeleteConflictException",
    }
    notes: list[str] = []

    gone = await remove(client(account), [Made(account="a", ca_id="ca1", beside=("c3",), policy="p")], notes.append)

    assert not gone
    assert "delete_certificate c2 True" in account.calls
    assert not any(each.startswith("delete_ca_certificate") for each in account.calls), "it still finds what is left"
    assert [note.partition(" is left: ")[0] for note in notes] == ["certificate c3", "certificate c1", "policy 'p'"]
    assert trio.current_time() == 0, "a policy that is attached to what is left is not waited for"


async def test_policy_is_waited_for_as_long_as_aws_may_take(autojump_clock: trio.testing.MockClock) -> None:
    account = ScriptedAccount({"delete_policy": ["DeleteConflictException"] * 300 + [{}]})
    never = ScriptedAccount({"delete_policy": "DeleteConflictException"})
    notes: list[str] = []

    assert await remove_policy(client(account), "p", notes.append)
    assert notes == []
    assert not await remove_policy(client(never), "q", notes.append)

    assert trio.current_time() <= 2 * teardown.POLICY_SECONDS
    assert [note.partition(" is left: ")[0] for note in notes] == ["policy 'q'"]


def test_line_of_what_was_made_is_read_back() -> None:
    made = Made(account="a", ca_id="ca1", beside=("c1",), things=(("c2", "thing-2"),), policy="p")

    assert Made.from_json(made.to_json()) == made
    assert Made.from_json(Made(account="a").to_json()) == Made(account="a")


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", '{"account": "a"}', '{"beside": [], "things": [1]}'])
def test_line_of_something_else_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not a line of what was made"):
        Made.from_json(line)
