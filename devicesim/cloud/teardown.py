"""Removing what was made in an account: certificates with what hangs on them, CAs, policies.

Everything is tried, whatever came before it: what could not be removed is told by ``note``, one line each, and never
raised. What is not there any more counts as removed.
"""

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import trio

from devicesim.cloud.account import AccountClient, ControlPlaneError
from devicesim.errors import TargetError

Note = Callable[[str], None]
"""Takes one line for the record."""

DETACH_SECONDS = 15.0
"""Detaching is asynchronous on AWS (botocore, DetachThingPrincipal): a deletion that comes too early is tried again."""
_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was made in one account, or may have been: the same whether it is removed at once or by a later process."""

    account: str
    """Its name in the fleet file."""
    ca_id: str | None = None
    certificates: tuple[tuple[str, str], ...] = ()
    """Certificate ids, each with the name of the thing that may have been made for it."""
    policy: str | None = None

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Made":
        """The reverse. Raises ``ValueError`` for a line of something else."""
        try:
            found: dict[str, Any] = json.loads(line)
            pairs = tuple((str(certificate), str(thing)) for certificate, thing in found.pop("certificates"))
            return cls(certificates=pairs, **found)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise ValueError(f"not a line of what was made: {line[:80]!r}") from exc


async def remove(client: AccountClient, made: Iterable[Made], note: Note) -> None:
    """Remove what was made in the client's account: certificates, then CAs, then policies."""
    mine = [each for each in made if each.account == client.access.name]
    async with trio.open_nursery() as nursery:
        for each in mine:
            for certificate_id, thing in each.certificates:
                nursery.start_soon(remove_certificate, client, certificate_id, (thing,), note)
    for each in mine:
        if each.ca_id is not None:
            await remove_ca(client, each.ca_id, note)
    for policy in dict.fromkeys(each.policy for each in mine if each.policy is not None):
        await remove_policy(client, policy, note)


async def remove_certificate(client: AccountClient, certificate_id: str, things: Collection[str], note: Note) -> None:
    """Delete a certificate's record, and of the things attached to it those named; other things are only detached."""
    target = client.access.arn(f"cert/{certificate_id}")
    try:
        description = (await client.call("describe_certificate", certificateId=certificate_id))[
            "certificateDescription"
        ]
    except ControlPlaneError as exc:
        if exc.code != "ResourceNotFoundException":
            note(f"certificate {certificate_id} is left: {exc}")
        return
    except TargetError as exc:
        note(f"certificate {certificate_id} is left: {exc}")
        return
    try:
        async for thing in client.pages("list_principal_things", "things", principal=target):
            await client.call("detach_thing_principal", thingName=thing, principal=target)
            if thing in things:
                await _again(client, "delete_thing", thingName=thing)
        if description["status"] == "PENDING_TRANSFER":
            await client.call("cancel_certificate_transfer", certificateId=certificate_id)
        elif description["status"] not in ("INACTIVE", "REVOKED"):
            await client.call("update_certificate", certificateId=certificate_id, newStatus="INACTIVE")
        await _again(client, "delete_certificate", certificateId=certificate_id, forceDelete=True)
    except TargetError as exc:
        note(f"certificate {certificate_id} is left: {exc}")


async def remove_ca(client: AccountClient, ca_id: str, note: Note) -> None:
    """Deactivate and delete a CA certificate's registration; records under it stay."""
    try:
        await client.call("update_ca_certificate", certificateId=ca_id, newStatus="INACTIVE")
        await client.call("delete_ca_certificate", certificateId=ca_id)
    except ControlPlaneError as exc:
        if exc.code != "ResourceNotFoundException":
            note(f"CA certificate {ca_id} is left: {exc}")
    except TargetError as exc:
        note(f"CA certificate {ca_id} is left: {exc}")


async def remove_policy(client: AccountClient, name: str, note: Note) -> None:
    """Delete a policy that is attached to nothing any more."""
    try:
        await _again(client, "delete_policy", policyName=name)
    except ControlPlaneError as exc:
        if exc.code != "ResourceNotFoundException":
            note(f"policy {name!r} is left: {exc}")
    except TargetError as exc:
        note(f"policy {name!r} is left: {exc}")


async def _again(client: AccountClient, operation: str, **parameters: object) -> None:
    """Call until nothing is attached any more, for :data:`DETACH_SECONDS` at most."""
    deadline = trio.current_time() + DETACH_SECONDS
    while True:
        try:
            await client.call(operation, **parameters)
        except ControlPlaneError as exc:
            attached = exc.code in ("DeleteConflictException", "InvalidRequestException")
            if not attached or trio.current_time() >= deadline:
                raise
        else:
            return
        await trio.sleep(_AGAIN_SECONDS)
