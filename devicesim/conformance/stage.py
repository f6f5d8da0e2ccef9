"""Setting a world up in the accounts that play it, asking what they hold, and removing it all again.

Only what an account's owner may do is done, by the same calls on AWS and on the emulator. A certificate is made pending
the only way there is: its device connects.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import trio

from devicesim.cloud.account import AccountClient, ControlPlaneError
from devicesim.cloud.setup import AccountPlan, default_policy, default_template, set_up
from devicesim.cloud.teardown import Made, Note, remove
from devicesim.cloud.verify import holdings
from devicesim.conformance.cases import Case, Holder, Provisioning, Record, RecordStatus, Role, Then, World
from devicesim.errors import TargetError
from devicesim.outcome import Holding
from devicesim.pki.authority import Authority
from devicesim.pki.identity import Identity, certificate_pem

_REGISTERED_AS = {
    RecordStatus.ACTIVE: "ACTIVE",
    RecordStatus.DENIED: "ACTIVE",
    RecordStatus.REVOKED: "REVOKED",
}
"""Status in which a certificate is registered; the others begin INACTIVE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """An account that plays a role."""

    client: AccountClient
    role_arn: str | None
    """What JITP assumes; ``None``: there is none, and JITP cannot be had."""
    policy_name: str
    """Of the policy that devices get."""

    @property
    def name(self) -> str:
        return self.client.access.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """A case with the device that acts it out."""

    case: Case
    identity: Identity
    name: str
    """Its common name, its client id, and the name of the thing that JITP makes for it."""

    @property
    def certificate_id(self) -> str:
        return self.identity.certificate_id


Prime = Callable[[Cast, Role], Awaitable[None]]
"""Lets a case's device connect once to an account, with that account's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One world in the accounts that there are."""

    world: World
    authority: Authority
    """Its CA, and that of no other world."""
    actors: Mapping[Role, Actor]
    """At least those that its cases need."""
    casts: Sequence[Cast]
    now: datetime
    refused: dict[str, TargetError] = field(default_factory=dict)
    """Why a case cannot run although its world could be set up, by the case's name."""

    async def set_up(self, prime: Prime) -> None:
        """Bring the accounts to where the world's devices can connect.

        Raises :class:`~devicesim.errors.TargetError` where an account refuses the CA; a record that it refuses is told
        in :attr:`refused`.
        """
        await self._make_records(each for each in self._wanted() if each[1] not in self.world.holders)
        for role, holder in self.world.holders.items():
            await set_up(self.actors[role].client, self._plan(role, holder), self.authority, self.now)
            own = [each for each in self._wanted() if each[1] == role]
            await self._make_records(each for each in own if each[2].status is not RecordStatus.PENDING)
            async with trio.open_nursery() as nursery:
                for cast, _, record in own:
                    if record.status is RecordStatus.PENDING:
                        nursery.start_soon(prime, cast, role)
            await self._finish(role, holder)

    async def holdings(self, *, things_of: Collection[str] = ()) -> dict[str, tuple[Holding, ...]]:
        """What the accounts hold of the cases' certificates, by certificate id; with their things for those named.

        Raises :class:`~devicesim.errors.TargetError`.
        """
        found: dict[str, list[Holding]] = {each.certificate_id: [] for each in self.casts}
        for role, actor in self.actors.items():
            for held in await self._held_by(role, actor, things_of):
                found[held.certificate_id].append(held)
        return {certificate: tuple(each) for certificate, each in found.items()}

    async def is_pending(self, actor: Actor, cast: Cast) -> bool:
        """Whether the account has the case's certificate as PENDING_ACTIVATION. Raises ``TargetError``."""
        held = await _described(actor, cast.certificate_id)
        return held is not None and held.status == "PENDING_ACTIVATION"

    def made(self) -> list[Made]:
        """What :meth:`set_up` and the devices may make in each account."""
        return [
            Made(
                account=actor.name,
                ca_id=self.authority.certificate_id if role in self.world.holders else None,
                certificates=tuple(
                    (cast.certificate_id, cast.name)
                    for cast in self.casts
                    if role in cast.case.roles and not _offered_to(role, cast.case)
                ),
            )
            for role, actor in self.actors.items()
        ]

    async def tear_down(self, note: Note) -> None:
        """Remove every record of the cases' certificates, the things that JITP made, and the CA."""
        made = self.made()
        async with trio.open_nursery() as nursery:
            for actor in self.actors.values():
                nursery.start_soon(remove, actor.client, made, note)

    # --- records ---

    def _wanted(self) -> Iterable[tuple[Cast, Role, Record]]:
        for cast in self.casts:
            for role, record in cast.case.state.records.items():
                yield cast, role, record

    def _plan(self, role: Role, holder: Holder) -> AccountPlan:
        actor = self.actors[role]
        return AccountPlan(
            ca_mode=holder.mode,
            auto_registration=True,
            template=default_template(actor.policy_name) if holder.provisioning is Provisioning.JITP else None,
            role_arn=actor.role_arn,
            policy_name=actor.policy_name,
            policy=default_policy(actor.client.access),
        )

    async def _make_records(self, wanted: Iterable[tuple[Cast, Role, Record]]) -> None:
        async with trio.open_nursery() as nursery:
            for cast, role, record in wanted:
                nursery.start_soon(self._try_record, cast, role, record)

    async def _try_record(self, cast: Cast, role: Role, record: Record) -> None:
        try:
            await self._make_record(cast, role, record)
        except ControlPlaneError as exc:
            self.refused[cast.case.name] = exc

    async def _make_record(self, cast: Cast, role: Role, record: Record) -> None:
        client, certificate_id = self.actors[role].client, cast.certificate_id
        request = {
            "certificatePem": certificate_pem(cast.identity.certificate),
            "status": _REGISTERED_AS.get(record.status, "INACTIVE"),
        }
        if record.alone:
            await client.call("register_certificate_without_ca", **request)
        else:
            issuer = certificate_pem(self.authority.certificate)
            await client.call("register_certificate", **request, caCertificatePem=issuer)
        if record.status is RecordStatus.ACTIVE:
            target = client.access.arn(f"cert/{certificate_id}")
            await client.call("attach_policy", policyName=self.actors[role].policy_name, target=target)
        elif record.status is RecordStatus.TRANSFER:
            other = self.actors["b"].client.access.account_id
            await client.call("transfer_certificate", certificateId=certificate_id, targetAwsAccount=other)
        elif record.status is RecordStatus.DELETED:
            await client.call("delete_certificate", certificateId=certificate_id)

    async def _finish(self, role: Role, holder: Holder) -> None:
        """Bring the CA's registration to where it is when the devices connect."""
        actor, ca_id = self.actors[role], self.authority.certificate_id
        change: dict[str, object] = {}
        if holder.provisioning is Provisioning.LATE_JITP:
            template = default_template(actor.policy_name)
            change["registrationConfig"] = {"templateBody": template, "roleArn": actor.role_arn}
        if holder.then in (Then.INACTIVE, Then.DELETED):
            change["newStatus"] = "INACTIVE"
        if holder.then is Then.DISABLED:
            change["newAutoRegistrationStatus"] = "DISABLE"
        if change:
            await actor.client.call("update_ca_certificate", certificateId=ca_id, **change)
        if holder.then is Then.DELETED:
            await actor.client.call("delete_ca_certificate", certificateId=ca_id)

    # --- what is held ---

    async def _held_by(self, role: Role, actor: Actor, things_of: Collection[str]) -> list[Holding]:
        """Those under the CA are listed; what may be there without it is asked about one by one."""
        held: dict[str, Holding] = {}
        holder = self.world.holders.get(role)
        if holder is not None and holder.then is not Then.DELETED:
            held = await self._listed(actor, things_of)
        unlisted = [
            cast.certificate_id
            for cast, whose, record in self._wanted()
            if whose == role and cast.certificate_id not in held and record.status is not RecordStatus.DELETED
        ]

        async def ask(certificate_id: str) -> None:
            found = await _described(actor, certificate_id)
            if found is not None:
                held[certificate_id] = found

        async with trio.open_nursery() as nursery:
            for certificate_id in unlisted:
                nursery.start_soon(ask, certificate_id)
        return [held[cast.certificate_id] for cast in self.casts if cast.certificate_id in held]

    async def _listed(self, actor: Actor, things_of: Collection[str]) -> dict[str, Holding]:
        client, ca_id = actor.client, self.authority.certificate_id
        held = {each.certificate_id: each for each in await holdings(client, ca_id, None, with_things=False)}
        wanted = [each for each in held if each in things_of]
        if wanted:
            held |= {each.certificate_id: each for each in await holdings(client, ca_id, wanted, with_things=True)}
        return held


def _offered_to(role: Role, case: Case) -> bool:
    """Whether the account has the certificate only because another offers it: the one that does takes it back."""
    return role not in case.state.records and any(
        each.status is RecordStatus.TRANSFER for each in case.state.records.values()
    )


async def _described(actor: Actor, certificate_id: str) -> Holding | None:
    try:
        answer = await actor.client.call("describe_certificate", certificateId=certificate_id)
    except ControlPlaneError as exc:
        if exc.code == "ResourceNotFoundException":
            return None
        raise
    description = answer["certificateDescription"]
    return Holding(
        account=actor.name,
        certificate_id=certificate_id,
        status=description["status"],
        mode=description.get("certificateMode"),
    )
