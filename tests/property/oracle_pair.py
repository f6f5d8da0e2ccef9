"""The model and the emulator side by side: every call and every connection is made on both, and must end alike."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from devicesim import rules
from devicesim.emulator.history import Kind
from devicesim.emulator.packets import ConnAck
from devicesim.emulator.registry import APIError, Partition
from devicesim.emulator.session import Message
from devicesim.emulator.state.records import (
    AutoRegistrationStatus,
    CACertificateStatus,
    CertificateMode,
    CertificateStatus,
    TemplateType,
)
from devicesim.outcome import DeviceOutcome
from devicesim.pki.authority import Authority
from devicesim.pki.identity import certificate_pem
from tests.emulator_support import ROLE, V5, V311, Client, World
from tests.property import oracle_model as model
from tests.property.oracle_model import CA, Activator, Errors, Model, Place, Record, Spot
from tests.property.oracle_support import (
    CONFIG_NAMES,
    CONFIGS,
    LEAVES,
    PLACES,
    POLICIES,
    PROVISIONING_TEMPLATES,
    SIGNERS,
    Disagreement,
    authority,
    endpoint,
    identity,
    presented,
    same,
    thing_name,
    verification,
)

_REGISTERED = "$aws/events/certificates/registered/"
"""Of the event by which JITR goes on (§2)."""


class Pair:
    """See the module. The calls are the registry's own, which the handlers of the API and JITP make, too."""

    def __init__(self) -> None:
        self.world = World()
        self.registry = self.world.registry
        self.model = Model(SIGNERS)
        self.one_subject = False
        self.partitions: dict[Place, Partition] = {at: self.world.account(*at) for at in PLACES}
        self.codes = {at: self.registry.cas.registration_code(each) for at, each in self.partitions.items()}
        for partition in self.partitions.values():
            for name, document in POLICIES.items():
                self.registry.policies.create(partition, name, document)
            for name, (body, enabled) in PROVISIONING_TEMPLATES.items():
                self.registry.templates.create(
                    partition, name, body=body, role_arn=ROLE, type=TemplateType.JITP, enabled=enabled
                )
        self.told: list[tuple[Place, str]] = []
        """Topics of the events of registration since the latest connection began."""
        self.world.plane.published.append(self._published)
        self.live: dict[Spot, Client] = {}
        """Devices that were accepted and have not gone."""
        self._known: dict[int, tuple[tuple[rules.AccountView, ...], dict[tuple[object, ...], rules.Expectation]]] = {}

    def _published(self, partition: Partition, message: Message, _now: float) -> None:
        if message.topic.startswith(_REGISTERED):
            self.told.append((Place(partition.account_id, partition.region), message.topic))

    def ca(self, number: int) -> Authority:
        return authority(number, one_subject=self.one_subject)

    def ca_pem(self, number: int) -> str:
        return certificate_pem(self.ca(number).certificate)

    def leaf_id(self, leaf: int) -> str:
        return identity(leaf, one_subject=self.one_subject).certificate_id

    def leaf_pem(self, leaf: int) -> str:
        return certificate_pem(identity(leaf, one_subject=self.one_subject).certificate)

    def arn(self, spot: Spot) -> str:
        at, leaf = spot
        return self.partitions[at].certificate_arn(self.leaf_id(leaf))

    def call(self, errors: Errors, call: Callable[[], object]) -> None:
        """Make a call of the API, which must be refused with one of ``errors`` or, without any, be done."""
        try:
            call()
        except APIError as refusal:
            if refusal.code not in errors:
                raise Disagreement(f"expected {sorted(errors) or 'that it is done'}, seen {refusal}") from refusal
            return
        same("errors of a call that was done", [], sorted(errors))

    # --- the control plane ---

    def register_ca(
        self, at: Place, ca: int, mode: rules.Mode, proof: str | None, *, active: bool, auto: bool, template: str | None
    ) -> None:
        pem = None
        if proof is not None:
            other = PLACES[(PLACES.index(at) + 1) % len(PLACES)]
            code = self.codes[other if proof == model.FOREIGN_CODE else at]
            pem = verification(self.ca(1 - ca if proof == model.FOREIGN_KEY else ca), code)
        self.call(
            self.model.register_ca(at, ca, CA(mode, active, auto, template), proof),
            lambda: self.registry.cas.register(
                self.partitions[at],
                self.ca_pem(ca),
                verification_pem=pem,
                mode=CertificateMode(mode),
                active=active,
                auto_registration=auto,
                registration_config=None if template is None else CONFIGS[template],
            ),
        )

    def update_ca(
        self, spot: Spot, *, active: bool | None = None, auto: bool | None = None, template: str | None = None
    ) -> None:
        status = None if active is None else CACertificateStatus.ACTIVE if active else CACertificateStatus.INACTIVE
        switch = None if auto is None else AutoRegistrationStatus.ENABLE if auto else AutoRegistrationStatus.DISABLE
        at, ca = spot
        self.call(
            self.model.update_ca(spot, active=active, auto=auto, template=template),
            lambda: self.registry.cas.update(
                self.partitions[at],
                self.ca(ca).certificate_id,
                status=status,
                auto_registration=switch,
                registration_config=None if template is None else CONFIGS[template],
            ),
        )

    def remove_auto_registration(self, spot: Spot) -> None:
        at, ca = spot
        self.call(
            self.model.remove_auto_registration(spot),
            lambda: self.registry.cas.update(
                self.partitions[at], self.ca(ca).certificate_id, remove_auto_registration=True
            ),
        )

    def delete_ca(self, spot: Spot) -> None:
        at, ca = spot
        self.call(
            self.model.delete_ca(spot),
            lambda: self.registry.cas.delete(self.partitions[at], self.ca(ca).certificate_id),
        )

    def register(self, at: Place, leaf: int, status: str, *, alone: bool, given: int | None = None) -> None:
        partition, certificates, pem = self.partitions[at], self.registry.certificates, self.leaf_pem(leaf)
        wanted = CertificateStatus(status)
        if alone:
            self.call(
                self.model.register_alone(at, leaf, status),
                lambda: certificates.register_without_ca(partition, pem, status=wanted),
            )
            return
        ca_pem = None if given is None else self.ca_pem(given)
        self.call(
            self.model.register(at, leaf, status, given),
            lambda: certificates.register(partition, pem, ca_pem=ca_pem, status=wanted),
        )

    def update(self, spot: Spot, status: str) -> None:
        at, leaf = spot
        self.call(
            self.model.update(spot, status),
            lambda: self.registry.certificates.update(
                self.partitions[at], self.leaf_id(leaf), CertificateStatus(status)
            ),
        )

    def delete(self, spot: Spot, *, force: bool) -> None:
        at, leaf = spot
        self.call(
            self.model.delete(spot, force=force),
            lambda: self.registry.certificates.delete(self.partitions[at], self.leaf_id(leaf), force=force),
        )

    def policy(self, spot: Spot, policy: str, *, attach: bool) -> None:
        change = self.registry.policies.attach if attach else self.registry.policies.detach
        self.call(
            self.model.attach(spot, policy, attach=attach),
            lambda: change(self.partitions[spot[0]], policy, self.arn(spot)),
        )

    def thing(self, spot: Spot, *, attach: bool) -> None:
        (at, leaf), things = spot, self.registry.things
        if attach and thing_name(leaf) not in self.partitions[at].things:
            things.create(self.partitions[at], thing_name(leaf))
        change = things.attach_principal if attach else things.detach_principal
        self.call(
            self.model.attach_thing(spot, attach=attach),
            lambda: change(self.partitions[at], thing_name(leaf), self.arn(spot)),
        )

    def transfer(self, spot: Spot, to: str) -> None:
        at, leaf = spot
        self.call(
            self.model.transfer(spot, to),
            lambda: self.registry.transfers.start(self.partitions[at], self.leaf_id(leaf), to),
        )

    def end_transfer(self, spot: Spot, how: str) -> None:
        partition, leaf_id, ends = self.partitions[spot[0]], self.leaf_id(spot[1]), self.registry.transfers
        if how == "reject":
            self.call(self.model.reject(spot), lambda: ends.reject(partition, leaf_id))
        elif how == "cancel":
            self.call(self.model.cancel(spot), lambda: ends.cancel(partition, leaf_id))
        else:
            active = how == "accept active"
            self.call(self.model.accept(spot, active=active), lambda: ends.accept(partition, leaf_id, active=active))

    def make_ready(self, spot: Spot, *, but: str | None, policies: bool) -> None:
        """Deactivate it and detach its thing and (``policies``) its policies, all ``but`` one of these."""
        held = self.model.records[spot]
        for policy in sorted(held.policies) if policies and but != "policies" else ():
            self.policy(spot, policy, attach=False)
        if held.thing and but != "thing":
            self.thing(spot, attach=False)
        if held.status == model.ACTIVE and but != "status":
            self.update(spot, model.INACTIVE)

    def activate(self, spot: Spot, by: Activator) -> None:
        """What a JITR function does: a thing, a policy, the status."""
        if by.thing:
            self.thing(spot, attach=True)
        self.policy(spot, by.policy, attach=True)
        self.update(spot, model.ACTIVE)

    # --- connections ---

    def connect(
        self, leaf: int, name: str | None, chain: str, door: str, *, v5: bool, activator: Activator | None
    ) -> tuple[rules.FirstTry, Place | None]:
        """One connection, as the device sees it, against the oracle's word; answers what was seen and who decided."""
        self.told.clear()
        views = self.views(leaf, activator)
        expected = self.expect(leaf, views, name, chain, door, v5=v5)
        client = self.world.open(presented(leaf, name, chain, door, one_subject=self.one_subject), V5 if v5 else V311)
        answer = client.connect(f"c{leaf}")
        connack = answer[0] if answer else None
        assert connack is None or isinstance(connack, ConnAck), f"the first packet is {connack}"
        refused: rules.FirstTry = "closed_before_connack" if connack is None else "connack_refused"
        seen: rules.FirstTry = "accepted" if connack is not None and connack.reason_code == 0 else refused
        same(f"first try ({expected.row.id})", expected.first_try, seen)
        same("closed", seen != "accepted", client.closed)

        # who decided, by the history; what came of it, by the accounts themselves after the step
        entry = self.world.history.select(kind=Kind.CONNECTION, limit=1)[-1]
        decider = None if entry.account_id is None else Place(entry.account_id, entry.region or "")
        for account in (expected.account, expected.registered_in):
            if account is not None:
                same(f"account ({expected.row.id})", account, str(decider))
        named = self.named(name, door)
        if named is not None:
            same("account named", named, decider)
        if expected.row.id != "10c.pending.ca-off":  # the page does not say; see oracle_machine
            waits = expected.registered_in is not None or expected.row.id == "10c.pending"
            topic = _REGISTERED + self.ca(SIGNERS[leaf]).certificate_id
            same(f"events ({expected.row.id})", [(decider, topic)] if waits else [], self.told)
        if decider is not None:
            if expected.mode is not None:
                certificate = self.registry.certificates.get(self.partitions[decider], self.leaf_id(leaf))
                same(f"mode ({expected.row.id})", expected.mode, str(certificate.mode))
            self.follow(expected, (decider, leaf), activator)
            if seen == "accepted":
                self.live[decider, leaf] = client
        return seen, decider

    def follow(self, expected: rules.Expectation, spot: Spot, activator: Activator | None) -> None:
        """What comes of the connection in the model: by the oracle's word, and so held against the emulator."""
        at, leaf = spot
        if expected.registered_in is not None:
            self.model.registered(spot)
        if expected.registered_in is None and expected.row.id != "10c.pending":
            return
        self.model.presented(spot)
        if activator is not None and self.model.cas[at, SIGNERS[leaf]].template is None:
            self.activate(spot, activator)

    @staticmethod
    def named(name: str | None, door: str) -> Place | None:
        """The account that the name is an endpoint of, at this door (§10, decision procedure 1 and 2)."""
        return next(
            (at for at in PLACES if name is not None and endpoint(at) == name.lower() and at.region == door), None
        )

    def views(self, leaf: int, activator: Activator | None) -> tuple[rules.AccountView, ...]:
        return tuple(self.model.view(at, leaf, endpoint(at), activator) for at in PLACES)

    def expect(
        self, leaf: int, views: tuple[rules.AccountView, ...], name: str | None, chain: str, door: str, *, v5: bool
    ) -> rules.Expectation:
        """The oracle's word; asked once for as long as the accounts stay as they are, since it is a pure function."""
        if leaf not in self._known or self._known[leaf][0] != views:
            self._known[leaf] = (views, {})
        known, asked = self._known[leaf][1], (name, chain, door, v5)
        if asked not in known:
            known[asked] = rules.expect(
                views, region=door, sni=name, chain_sent=chain == "own", mqtt_version="5" if v5 else "3.1.1"
            )
        return known[asked]

    def related(self) -> list[Spot]:
        """Places and devices of which the place holds the CA or has the certificate on record."""
        under = ((at, leaf) for at, ca in self.model.cas for leaf in LEAVES if SIGNERS[leaf] == ca)
        return list(dict.fromkeys((*self.model.records, *under)))

    def has_default_records(self, spot: Spot) -> bool:
        """Whether the place has devices of the CA on record in DEFAULT mode."""
        at, ca = spot
        mine = (self.model.records.get((at, leaf)) for leaf in LEAVES if SIGNERS[leaf] == ca)
        return any(each is not None and each.mode == "DEFAULT" for each in mine)

    def unregistered(self) -> list[Spot]:
        """Places and devices of which a first connection makes a record."""
        on = (
            (at, leaf)
            for (at, ca), held in self.model.cas.items()
            for leaf in LEAVES
            if held.registers and SIGNERS[leaf] == ca
        )
        return [spot for spot in on if spot not in self.model.records]

    def pending(self) -> list[Spot]:
        """Records that wait for activation."""
        return [spot for spot, each in self.model.records.items() if each.status == model.PENDING_ACTIVATION]

    def ended(self, expected: rules.Expectation, leaf: int, *, accepted: bool, decider: Place | None) -> None:
        """Where a device is in the end, as the control plane tells it."""
        held = None if decider is None else self.partitions[decider].certificates.get(self.leaf_id(leaf))
        status = None if held is None else str(held.status)
        outcome = DeviceOutcome.PENDING if status == model.PENDING_ACTIVATION else DeviceOutcome.REFUSED
        same(f"outcome ({expected.row.id})", expected.outcome, DeviceOutcome.PROVISIONED if accepted else outcome)
        if expected.account is None:
            return
        assert held is not None
        same("account in the end", expected.account, str(decider))
        same("status in the end", model.ACTIVE if accepted else model.PENDING_ACTIVATION, status)
        same("mode in the end", expected.mode, str(held.mode))
        if expected.thing is not None or {rules.JITP, rules.JITR} & set(expected.rests_on):  # then it must be said
            same("thing in the end", expected.thing, thing_name(leaf) in self.things(decider, leaf))

    def things(self, at: Place | None, leaf: int) -> Iterable[str]:
        return () if at is None else self.partitions[at].things_of_certificate(self.leaf_id(leaf))

    # --- what the emulator holds, in the model's words ---

    def held_cas(self, numbers: Mapping[str, int]) -> Iterator[tuple[Spot, CA]]:
        for at, partition in self.partitions.items():
            for ca in partition.cas.values():
                active, auto = ca.status is CACertificateStatus.ACTIVE, ca.auto_registration == "ENABLE"
                config = ca.registration_config
                mode: rules.Mode = "DEFAULT" if ca.mode is CertificateMode.DEFAULT else "SNI_ONLY"
                yield (
                    (at, numbers[ca.certificate_id]),
                    CA(mode, active, auto, None if config is None else CONFIG_NAMES[config]),
                )

    def held_records(self, leaves: Mapping[str, int], cas: Mapping[str, int]) -> Iterator[tuple[Spot, Record]]:
        for at, partition in self.partitions.items():
            for each in partition.certificates.values():
                pending = each.status is CertificateStatus.PENDING_TRANSFER and each.transfer is not None
                yield (
                    (at, leaves[each.certificate_id]),
                    Record(
                        status=str(each.status),
                        mode="DEFAULT" if each.mode is CertificateMode.DEFAULT else "SNI_ONLY",
                        under=None if each.ca_certificate_id is None else cas[each.ca_certificate_id],
                        policies=frozenset(partition.policies_of_target.get(each.arn, ())),
                        thing=bool(partition.things_of_certificate(each.certificate_id)),
                        transfer=(each.transfer.source, each.transfer.target) if pending and each.transfer else None,
                    ),
                )
