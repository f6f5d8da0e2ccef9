"""Removing what was made in an account: a CA with all certificates under it, other certificates, things, a policy.

Everything is tried, whatever came before it: what could not be removed is told by ``note``, one line each, and never
raised. What is not there any more counts as removed.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import trio

from devicesim.cloud.account import AccountClient, ControlPlaneError
from devicesim.cloud.verify import PAGE_SIZE
from devicesim.errors import TargetError

Note = Callable[[str], None]
"""Takes one line for the record."""

CHANGE_SECONDS = 15.0
"""Detaching is asynchronous on AWS (botocore, DetachThingPrincipal), and a status may be seen late: a deletion that
comes too early is tried again."""
POLICY_SECONDS = 360.0
"""The same of a policy: "up to five minutes after a policy is detached" (botocore, DeletePolicy)."""
_AGAIN_SECONDS = 1.0
_DELETABLE = ("INACTIVE", "REVOKED", "PENDING_TRANSFER")
"""Statuses in which a certificate can be deleted; of the last once the transfer is cancelled."""
_TOO_EARLY = frozenset({"DeleteConflictException", "InvalidRequestException", "CertificateStateException"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was made in one account, or may have been: the same whether it is removed at once or by a later process."""

    account: str
    """Its name in the fleet file."""
    ca_id: str | None = None
    """A CA that was made for the occasion: whatever is registered under it goes with it."""
    beside: tuple[str, ...] = ()
    """Ids of certificates that are not under that CA in this account, or that this account offers to another."""
    things: tuple[tuple[str, str], ...] = ()
    """Certificate ids, each with the name of the thing that JITP may have made for it."""
    policy: str | None = None

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Made":
        """The reverse. Raises ``ValueError`` for a line of something else."""
        try:
            found: dict[str, Any] = json.loads(line)
            things = tuple((str(certificate), str(thing)) for certificate, thing in found.pop("things"))
            return cls(beside=tuple(map(str, found.pop("beside"))), things=things, **found)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise ValueError(f"not a line of what was made: {line[:80]!r}") from exc


async def remove(
    client: AccountClient,
    made: Iterable[Made],
    note: Note,
    *,
    settle: float = 0.0,
    patience: float = POLICY_SECONDS,
) -> bool:
    """Remove what was made in the client's account, policies last; whether nothing is left.

    Seconds: ``settle`` for which the account may still register and provision what connected just before, ``patience``
    for which a policy may still count as attached.
    """
    await client.idle()
    mine = [each for each in made if each.account == client.access.name]
    removed: list[bool] = []

    async def certificates_of(each: Made) -> None:
        removed.append(await _remove_certificates(client, each, note, settle))

    async with trio.open_nursery() as nursery:
        for each in mine:
            nursery.start_soon(certificates_of, each)
    for policy in dict.fromkeys(each.policy for each in mine if each.policy is not None):
        # one that is attached to something that is left stays so
        removed.append(await remove_policy(client, policy, note, patience=patience if all(removed) else 0.0))
    return all(removed)


async def _remove_certificates(client: AccountClient, made: Made, note: Note, settle: float) -> bool:
    """Retire the CA, so that nothing more comes under it; remove all that is there; then the CA."""
    things = dict(made.things)
    left: list[str] = []

    async def remove_one(certificate_id: str, status: str | None) -> None:
        if not await remove_certificate(client, certificate_id, status, things.get(certificate_id), note):
            left.append(certificate_id)

    async def remove_all(found: Mapping[str, str | None]) -> None:
        async with trio.open_nursery() as nursery:
            for certificate_id, status in found.items():
                nursery.start_soon(remove_one, certificate_id, status)

    async def remove_ca(ca_id: str) -> None:
        await client.call("update_ca_certificate", certificateId=ca_id, newStatus="INACTIVE")
        await trio.sleep(settle)
        seen: set[str] = set()
        while found := {each: status for each, status in await _under(client, ca_id) if each not in seen}:
            seen |= found.keys()
            await remove_all(found)
        if not left:
            await _again(lambda: client.call("delete_ca_certificate", certificateId=ca_id), CHANGE_SECONDS)

    await remove_all(dict.fromkeys(made.beside))
    if made.ca_id is not None:
        gone = await _attempt(partial(remove_ca, made.ca_id), f"CA certificate {made.ca_id}", note)
        return gone and not left
    return not left


async def _under(client: AccountClient, ca_id: str) -> list[tuple[str, str]]:
    """The certificates under a CA, with their status. Not those that another account offers, which it takes back."""
    pages = client.pages(
        "list_certificates_by_ca", "certificates", caCertificateId=ca_id, PaginationConfig={"PageSize": PAGE_SIZE}
    )
    return [(each["certificateId"], each["status"]) async for each in pages if each["status"] != "PENDING_TRANSFER"]


async def remove_certificate(
    client: AccountClient, certificate_id: str, status: str | None, thing: str | None, note: Note
) -> bool:
    """Delete a certificate's record, whose status is asked for when it is not known; whether it is gone.

    Of the things attached to it the one named goes with it; others are only detached.
    """

    async def work() -> None:
        known = status
        if known is None:
            answer = await client.call("describe_certificate", certificateId=certificate_id)
            known = answer["certificateDescription"]["status"]
        if known == "PENDING_TRANSFER":
            await client.call("cancel_certificate_transfer", certificateId=certificate_id)

        async def delete() -> None:
            if known not in _DELETABLE:
                await client.call("update_certificate", certificateId=certificate_id, newStatus="INACTIVE")
            await client.call("delete_certificate", certificateId=certificate_id, forceDelete=True)

        try:
            await delete()
        except ControlPlaneError as exc:
            if exc.code not in _TOO_EARLY:
                raise
            await _detach(client, certificate_id, thing)
            await _again(delete, CHANGE_SECONDS)
        if thing is not None and known == "PENDING_ACTIVATION":
            # a JITP run that failed half-way may have made it and attached it to nothing
            await client.call("delete_thing", thingName=thing)

    return await _attempt(work, f"certificate {certificate_id}", note)


async def _detach(client: AccountClient, certificate_id: str, mine: str | None) -> None:
    principal = client.access.arn(f"cert/{certificate_id}")
    async for thing in client.pages("list_principal_things", "things", principal=principal):
        await client.call("detach_thing_principal", thingName=thing, principal=principal)
        if thing == mine:
            await _again(partial(client.call, "delete_thing", thingName=thing), CHANGE_SECONDS)


async def remove_policy(client: AccountClient, name: str, note: Note, *, patience: float = POLICY_SECONDS) -> bool:
    """Delete a policy that is attached to nothing any more; whether it is gone. ``patience`` is in seconds."""
    delete = partial(client.call, "delete_policy", policyName=name)
    return await _attempt(partial(_again, delete, patience), f"policy {name!r}", note)


async def _attempt(work: Callable[[], Awaitable[object]], what: str, note: Note) -> bool:
    """Whether it is gone; that it is not is told."""
    try:
        await work()
    except TargetError as exc:
        if isinstance(exc, ControlPlaneError) and exc.code == "ResourceNotFoundException":
            return True
        note(f"{what} is left: {exc}")
        return False
    return True


async def _again(delete: Callable[[], Awaitable[object]], patience: float) -> None:
    """Try until what was changed before is felt, for so many seconds at most."""
    deadline = trio.current_time() + patience
    while True:
        try:
            await delete()
        except ControlPlaneError as exc:
            if exc.code not in _TOO_EARLY or trio.current_time() >= deadline:
                raise
        else:
            return
        await trio.sleep(_AGAIN_SECONDS)
