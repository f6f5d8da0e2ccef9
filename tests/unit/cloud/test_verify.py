"""What an account is asked after a run."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from devicesim.cloud.account import AccountAccess, ControlPlaneError
from devicesim.cloud.verify import holdings
from devicesim.outcome import Holding


@dataclass
class FakeAccount:
    """Has certificates ``0`` to ``9`` of the CA, each but the last with a thing."""

    access: AccountAccess = field(
        default_factory=lambda: AccountAccess(name="a", account_id="111111111111", region="us-east-1")
    )
    refuses: str = ""
    asked: list[str] = field(default_factory=list)

    async def pages(self, operation: str, key: str, **parameters: Any) -> AsyncIterator[Any]:
        await trio.lowlevel.checkpoint()
        if self.refuses:
            raise ControlPlaneError(f"{operation} refused", code=self.refuses, fields={})
        if operation == "list_certificates_by_ca":
            assert (key, parameters["caCertificateId"]) == ("certificates", "ca")
            for each in "4096172538":
                yield {"certificateId": each, "status": "ACTIVE", "certificateMode": "SNI_ONLY"}
        else:
            assert (operation, key) == ("list_principal_things", "things")
            certificate = parameters["principal"].rpartition("/")[2]
            self.asked.append(certificate)
            if certificate != "9":
                yield f"thing-{certificate}"


def held(account: FakeAccount, things: int | None, wanted: frozenset[str] | None = None) -> list[Holding]:
    async def ask() -> list[Holding]:
        return await holdings(account, "ca", wanted, things=things)  # type: ignore[arg-type]

    return trio.run(ask)


@pytest.mark.parametrize(("things", "asked"), [(None, "0123456789"), (3, "012"), (0, ""), (50, "0123456789")])
def test_so_many_certificates_are_asked_for_their_things_and_of_the_others_they_are_not_known(
    things: int | None, asked: str
) -> None:
    account = FakeAccount()
    found = held(account, things)

    assert "".join(sorted(account.asked)) == asked
    assert [each.certificate_id for each in found] == list("0123456789")
    known = {each: () if each == "9" else (f"thing-{each}",) for each in asked}
    assert {each.certificate_id: each.things for each in found} == {**dict.fromkeys("0123456789"), **known}


def test_of_certificates_that_are_not_the_run_s_nothing_is_asked() -> None:
    account = FakeAccount()
    found = held(account, 2, frozenset("57x"))

    assert [each.certificate_id for each in found] == ["5", "7"]
    assert sorted(account.asked) == ["5", "7"]


def test_a_ca_that_is_not_registered_holds_nothing_and_another_refusal_is_raised() -> None:
    assert held(FakeAccount(refuses="ResourceNotFoundException"), None) == []
    with pytest.raises(ControlPlaneError, match="refused"):
        held(FakeAccount(refuses="AccessDeniedException"), None)
