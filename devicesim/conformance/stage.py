"""Setting a world up in the accounts that play it, asking what they hold, and removing it all again.

Only what an account's owner may do is done, by the same calls on AWS and on the emulator. A certificate is made pending
the only way there is: its device connects.
"""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

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
    certificate_id: str
    """The identity's, which takes hashing to have."""


_WITH_POLICY = frozenset(
    {RecordStatus.ACTIVE, RecordStatus.BARRED, RecordStatus.INACTIVE, RecordStatus.REVOKED, RecordStatus.PENDING}
)
"""Records with the policy that lets devices connect: nothing else is to be what keeps them out. A certificate with a
policy cannot be offered to another account (§1.4 [D])."""

Prime = Callable[[Cast, Role], Awaitable[None]]
"""Lets a case's device connect to an account, with that account's name, until the account has the record wanted."""


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
    settle: float
    """Seconds until devices feel a change to an account."""
    refused: dict[str, TargetError] = field(default_factory=dict)
    """Why a case cannot run although its world could be set up, by the case's name."""
    strays: set[tuple[Role, str]] = field(default_factory=set)
    """Certificates on record where nobody should have put them, by the account's role."""

    async def set_up(self, prime: Prime) -> None:
        """Bring the accounts to where the world's devices can connect.

        Raises :class:`~devicesim.errors.TargetError` where an account refuses the CA; a record that it refuses is told
        in :attr:`refused`.
        """
        for role in self.actors:
            if role not in self.world.holders:
                await self._make_records(role)
        for role, holder in self.world.holders.items():
            await set_up(self.actors[role].client, self._plan(role, holder), self.authority, self.now)
            if any(self._wanted(role)):
                await trio.sleep(self.settle)
            await self._make_records(role)
            async with trio.open_nursery() as nursery:
                for cast, record in self._wanted(role):
                    if record.status.by_connecting:
                        make = partial(self._connect_for_record, cast, role, record, prime)
                        nursery.start_soon(self._try_record, cast, make)
            await self._finish(role, holder)
        await trio.sleep(self.settle)

    async def holdings(self, *, after: bool, things_of: Collection[str] = ()) -> dict[str, tuple[Holding, ...]]:
        """What the accounts hold of the cases' certificates, by certificate id; with their things for those named.

        ``after`` the devices have connected, the accounts that a case dials or names are asked also when nothing is to
        be there. Raises :class:`~devicesim.errors.TargetError`.
        """
        found: dict[str, list[Holding]] = {each.certificate_id: [] for each in self.casts}
        for role, actor in self.actors.items():
            for held in await self._held_by(role, actor, things_of, after=after):
                found[held.certificate_id].append(held)
        return {certificate: tuple(each) for certificate, each in found.items()}

    async def is_pending(self, actor: Actor, cast: Cast) -> bool:
        """Whether the account has the case's certificate as PENDING_ACTIVATION. Raises ``TargetError``."""
        held = await _described(actor, cast.certificate_id)
        return held is not None and held.status == "PENDING_ACTIVATION"

    async def deactivate(self, cast: Cast, role: Role, status: str) -> None:
        """Set an account's record of the case's certificate to INACTIVE or REVOKED. Raises ``TargetError``."""
        client = self.actors[role].client
        await client.call("update_certificate", certificateId=cast.certificate_id, newStatus=status)

    def made(self) -> list[Made]:
        """What :meth:`set_up` and the devices may make in each account."""
        return [self._made_in(role, actor) for role, actor in self.actors.items()]

    async def tear_down(self, note: Note) -> None:
        """Remove every record of the cases' certificates, the things that JITP made, and the CA."""
        made = self.made()
        async with trio.open_nursery() as nursery:
            for actor in self.actors.values():
                nursery.start_soon(partial(remove, actor.client, made, note, settle=self.settle))

    def _made_in(self, role: Role, actor: Actor) -> Made:
        beside = {cast.certificate_id for cast, record in self._wanted(role) if self._beside(role, record)}
        beside |= {certificate for whose, certificate in self.strays if whose == role}
        holder = self.world.holders.get(role)
        provisions = holder is not None and holder.provisioning is not Provisioning.JITR
        return Made(
            account=actor.name,
            ca_id=None if holder is None else self.authority.certificate_id,
            beside=tuple(sorted(beside)),
            things=tuple((cast.certificate_id, cast.name) for cast in self.casts) if provisions else (),
        )

    def _beside(self, role: Role, record: Record) -> bool:
        """Whether an account's record is not, or not always, among those under the CA there."""
        return record.alone or not self._lists(role) or record.status is RecordStatus.TRANSFER

    def _lists(self, role: Role) -> bool:
        """Whether an account still has the CA when the devices connect, and so tells what is under it."""
        holder = self.world.holders.get(role)
        return holder is not None and holder.then is not Then.DELETED

    # --- records ---

    def _wanted(self, role: Role) -> Iterator[tuple[Cast, Record]]:
        """What an account is to have on record before the devices connect."""
        for cast in self.casts:
            record = cast.case.state.records.get(role)
            if record is not None:
                yield cast, record

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

    async def _make_records(self, role: Role) -> None:
        """Those that the account's owner makes."""
        async with trio.open_nursery() as nursery:
            for cast, record in self._wanted(role):
                if not record.status.by_connecting:
                    nursery.start_soon(self._try_record, cast, partial(self._make_record, cast, role, record))

    async def _try_record(self, cast: Cast, make: Callable[[], Awaitable[None]]) -> None:
        try:
            await make()
        except ControlPlaneError as exc:
            self.refused[cast.case.name] = exc

    async def _connect_for_record(self, cast: Cast, role: Role, record: Record, prime: Prime) -> None:
        await prime(cast, role)
        if record.status in _WITH_POLICY:
            with suppress(
                ControlPlaneError
            ):  # of a record that did not come about, which is told when it is looked for
                await self._attach_policy(cast, role)

    async def _make_record(self, cast: Cast, role: Role, record: Record) -> None:
        client, certificate_id = self.actors[role].client, cast.certificate_id
        held = record.status.as_held
        request = {
            "certificatePem": certificate_pem(cast.identity.certificate),
            "status": held if held in ("ACTIVE", "REVOKED") else "INACTIVE",
        }
        if record.alone:
            await client.call("register_certificate_without_ca", **request)
        else:
            issuer = certificate_pem(self.authority.certificate)
            await client.call("register_certificate", **request, caCertificatePem=issuer)
        if record.status in _WITH_POLICY:
            await self._attach_policy(cast, role)
        elif record.status is RecordStatus.TRANSFER:
            other = self.actors["b"].client.access.account_id
            await client.call("transfer_certificate", certificateId=certificate_id, targetAwsAccount=other)
        elif record.status is RecordStatus.DELETED:
            await client.call("delete_certificate", certificateId=certificate_id)

    async def _attach_policy(self, cast: Cast, role: Role) -> None:
        client, policy = self.actors[role].client, self.actors[role].policy_name
        target = client.access.arn(f"cert/{cast.certificate_id}")
        await client.call("attach_policy", policyName=policy, target=target)

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
            await trio.sleep(self.settle)
            await actor.client.call("delete_ca_certificate", certificateId=ca_id)

    # --- what is held ---

    async def _held_by(self, role: Role, actor: Actor, things_of: Collection[str], *, after: bool) -> list[Holding]:
        """Those under the CA are listed; what is or may be there without it is asked about one by one."""
        held = await self._listed(actor, things_of) if self._lists(role) else {}
        wanted = {cast.certificate_id for cast, record in self._wanted(role) if record.status.as_held}
        watched = {
            cast.certificate_id
            for cast in self.casts
            if after and role in cast.case.link.roles and not self._lists(role)
        }
        unlisted = (wanted | watched) - held.keys()

        async def ask(certificate_id: str) -> None:
            found = await _described(actor, certificate_id)
            if found is not None:
                held[certificate_id] = found

        async with trio.open_nursery() as nursery:
            for certificate_id in unlisted:
                nursery.start_soon(ask, certificate_id)
        self.strays.update((role, each) for each in watched - wanted if each in held)
        return [held[cast.certificate_id] for cast in self.casts if cast.certificate_id in held]

    async def _listed(self, actor: Actor, things_of: Collection[str]) -> dict[str, Holding]:
        client, ca_id = actor.client, self.authority.certificate_id
        held = {each.certificate_id: each for each in await holdings(client, ca_id, None, things=0)}
        wanted = [each for each in held if each in things_of]
        if wanted:
            held |= {each.certificate_id: each for each in await holdings(client, ca_id, wanted, things=None)}
        return held


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
