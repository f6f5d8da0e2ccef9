"""The stateful test finds what it is there to find: a fault planted in the emulator or in the oracle makes it fail.

Each fault is one that a programmer might make. One that is not found is a hole in ``oracle_machine``, to be closed
there. That nothing is found where nothing is planted, ``test_oracle_stateful`` shows with the same rounds.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from cryptography.x509 import load_der_x509_certificate

from devicesim import rules
from devicesim.emulator import admission, provisioning
from devicesim.emulator.admission import Decision, ServerNameKind, Verdict
from devicesim.emulator.frontdoor import FrontDoor
from devicesim.emulator.justintime import JustInTime
from devicesim.emulator.liveconnections import LiveConnections
from devicesim.emulator.registry import Registry
from devicesim.emulator.settings import Settings
from devicesim.emulator.state import x509rules
from devicesim.emulator.state.cacertificates import CACertificates
from devicesim.emulator.state.certificates import Certificates
from devicesim.emulator.state.records import (
    AutoRegistrationStatus,
    CACertificate,
    CACertificateStatus,
    CertificateMode,
    CertificateStatus,
)
from devicesim.emulator.state.transfers import Transfers
from devicesim.outcome import DeviceOutcome
from devicesim.pki.identity import certificate_id
from devicesim.rules import Leaf, Named, Then
from tests.property.oracle_machine import hold_all
from tests.property.oracle_support import Disagreement

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]
"""Makes something wrong in one of the two."""


def swap(owner: object, name: str, make: Callable[[Any], Any]) -> Plant:
    """Put ``make(what stood there)`` in its place."""
    return lambda patch: patch.setattr(owner, name, make(getattr(owner, name)))


def then(row: str, what: Then) -> Plant:
    """One rule of the oracle leads elsewhere."""
    changed = tuple(replace(each, then=what) if each.row.id == row else each for each in rules.RULES)
    assert changed != rules.RULES
    return lambda patch: patch.setattr(rules, "RULES", changed)


# --- in the emulator: who decides ---


def _names_with_case(read: Any) -> Any:
    return lambda raw, at: read(raw, replace(at, sni_ignores_case=False))


def _trailing_dot_stripped(read: Any) -> Any:
    return lambda raw, at: read(raw, replace(at, sni_trailing_dot="stripped"))


def _port_makes_it_nobodys(read: Any) -> Any:
    return lambda raw, at: read(raw, replace(at, sni_ip_literal="unresolvable"))


def _junk_counts_as_none(decide: Any) -> Any:
    def wrong(registry: Registry, presented: admission.Presented, **rest: Any) -> Any:
        decision: Decision = decide(registry, presented, **rest)
        if decision.partition is None and presented.server_name is not None:
            return decide(registry, replace(presented, server_name=None), **rest)
        return decision

    return wrong


def _any_ca_in_the_chain(holder: Any) -> Any:
    """As it was until the stateful test found it."""

    def wrong(registry: Registry, presented: admission.Presented, leaf: Any, _settings: Settings) -> Any:
        for der in presented.chain:
            sent = certificate_id(load_der_x509_certificate(der))
            partition = registry.default_ca_holders(presented.door.region, sent)
            if partition is not None and registry.issuer_of(partition, leaf) is not None:
                return partition
        return None

    return wrong


def _chain_not_asked_for(holder: Any) -> Any:
    return lambda registry, presented, leaf, at: holder(
        registry, presented, leaf, replace(at, jit_without_sni_needs_chain=False)
    )


def _first_of_several_default_records(holder: Any) -> Any:
    def wrong(self: Certificates, region: str, certificate_id: str) -> Any:
        return next(iter(self._default_holders.get((region, certificate_id), {}).values()), None)

    return wrong


def _mode_not_looked_at(index: Any) -> Any:
    def wrong(self: Certificates, partition: Any, certificate: Any) -> None:
        index(self, partition, replace(certificate, mode=CertificateMode.DEFAULT))

    return wrong


def _holder_in_any_region(holder: Any) -> Any:
    def wrong(self: CACertificates, _region: str, ca_id: str) -> Any:
        return next((at for (_, held), at in self._default_holders.items() if held == ca_id), None)

    return wrong


def _named_account_over_any_door(resolve: Any) -> Any:
    return lambda registry, name, door: registry.resolve_server_name(name)


# --- in the emulator: what it does ---


def _issuer_by_name(issuers: Any) -> Any:
    def wrong(self: CACertificates, partition: Any, leaf: Any) -> list[CACertificate]:
        return [ca for ca in partition.cas.values() if ca.certificate.subject == leaf.issuer]

    return wrong


def _auto_registers(wrong: Callable[[CACertificate], bool]) -> Callable[[Any], Any]:
    return lambda _right: property(wrong)


def _active_at_once(auto_register: Any) -> Any:
    def wrong(self: Certificates, partition: Any, leaf: Any, ca: CACertificate) -> Any:
        record = auto_register(self, partition, leaf, ca)
        return self.change(partition, record, CertificateStatus.ACTIVE)

    return wrong


def _always_default(auto_register: Any) -> Any:
    return lambda self, partition, leaf, ca: auto_register(
        self, partition, leaf, replace(ca, mode=CertificateMode.DEFAULT)
    )


def _second_default_taken(check: Any) -> Any:
    def wrong(self: CACertificates, partition: Any, ca_id: str, mode: CertificateMode) -> None:
        check(self, partition, ca_id, CertificateMode.SNI_ONLY)

    return wrong


def _whose_code_does_not_matter(check: Any) -> Any:
    def wrong(self: CACertificates, partition: Any, ca: Any, pem: str, now: float) -> None:
        if not x509rules.issued_by(x509rules.parse(pem, "Verification certificate"), ca):
            check(self, partition, ca, pem, now)

    return wrong


def _default_ca_never_let_go(delete: Any) -> Any:
    def wrong(self: CACertificates, partition: Any, ca_id: str) -> None:
        held = dict(self._default_holders)
        delete(self, partition, ca_id)
        self._default_holders.update(held)

    return wrong


def _takes_its_certificates_along(delete: Any) -> Any:
    def wrong(self: CACertificates, partition: Any, ca_id: str) -> None:
        delete(self, partition, ca_id)
        for leaf_id in tuple(partition.certificates_by_ca.get(ca_id, ())):
            partition.remove_certificate(partition.certificates[leaf_id])

    return wrong


def _under_an_inactive_ca(register: Any) -> Any:
    def wrong(self: Certificates, partition: Any, pem: str, *, status: Any, ca_pem: str | None = None) -> Any:
        leaf = x509rules.parse(pem, "Certificate")
        ca = self._signer(partition, leaf, ca_pem)
        if ca.status is CACertificateStatus.ACTIVE:
            return register(self, partition, pem, status=status, ca_pem=ca_pem)
        return self._store(partition, leaf, status=status, mode=ca.mode, ca_id=ca.certificate_id)

    return wrong


def _alone_is_default(store: Any) -> Any:
    def wrong(self: Certificates, partition: Any, leaf: Any, *, ca_id: str | None, mode: Any, **rest: Any) -> Any:
        return store(
            self, partition, leaf, ca_id=ca_id, mode=CertificateMode.DEFAULT if ca_id is None else mode, **rest
        )

    return wrong


def _leaves_revoked(update: Any) -> Any:
    def wrong(self: Certificates, partition: Any, leaf_id: str, status: CertificateStatus) -> Any:
        record = partition.certificates.get(leaf_id)
        if record is not None and record.status is CertificateStatus.REVOKED and status is CertificateStatus.ACTIVE:
            return self.change(partition, record, status)
        return update(self, partition, leaf_id, status)

    return wrong


def _sources_record_stays(accept: Any) -> Any:
    def wrong(self: Transfers, target: Any, leaf_id: str, *, active: bool = False) -> Any:
        offered = target.certificates.get(leaf_id)
        accepted = accept(self, target, leaf_id, active=active)
        source = self._partition_of(offered.transfer.source, target.region)
        source.certificates[leaf_id] = replace(offered, status=CertificateStatus.INACTIVE)
        return accepted

    return wrong


def _back_as_it_was(give_back: Any) -> Any:
    def wrong(self: Transfers, target: Any, leaf_id: str, transfer: Any) -> None:
        give_back(self, target, leaf_id, transfer)
        source = self._partition_of(transfer.source, target.region)
        self._certificates.change(source, source.certificates[leaf_id], CertificateStatus.ACTIVE)

    return wrong


def _policies_not_asked(authorize: Any) -> Any:
    def wrong(*arguments: Any, **named: Any) -> Decision:
        decision: Decision = authorize(*arguments, **named)
        return replace(decision, verdict=Verdict.ADMITTED)

    return wrong


def _revoked_as_inactive(in_account: Any) -> Any:
    def wrong(*arguments: Any, **named: Any) -> Decision:
        decision: Decision = in_account(*arguments, **named)
        revoked = decision.reason is admission.Reason.DEVICE_CERTIFICATE_REVOKED
        return replace(decision, reason=admission.Reason.DEVICE_CERTIFICATE_INACTIVE) if revoked else decision

    return wrong


def _connack_for_everybody(refuse: Any) -> Any:
    return lambda self, connection, code, detail, *, tell, reason=None: refuse(
        self, connection, code, detail, tell=True, reason=reason
    )


def _no_connack_for_anybody(refuse: Any) -> Any:
    return lambda self, connection, code, detail, *, tell, reason=None: refuse(
        self, connection, code, detail, tell=False, reason=reason
    )


def _template_not_run_again(start: Any) -> Any:
    """Whoever has had one run has had all."""

    def wrong(self: JustInTime, partition: Any, certificate: Any, template: Any, now: float) -> None:
        if certificate.customer_version == 1 and certificate.last_modified_date == self._registry.environment.now():
            start(self, partition, certificate, template, now)

    return wrong


def _provisions_what_is_not_pending(provision: Any) -> Any:
    def wrong(registry: Registry, partition: Any, leaf_id: str, *arguments: Any, **named: Any) -> Any:
        record = partition.certificates.get(leaf_id)
        if record is not None and record.status is CertificateStatus.INACTIVE:
            registry.certificates.change(partition, record, CertificateStatus.PENDING_ACTIVATION)
        return provision(registry, partition, leaf_id, *arguments, **named)

    return wrong


def _lives_on(_changed: Any) -> Any:
    return lambda self, change: False


def _form_not_looked_at(read: Any) -> Any:
    """What cannot be a name counts as none."""

    def wrong(raw: bytes | None, at: Settings) -> Any:
        name = read(raw, at)
        return replace(name, kind=ServerNameKind.ABSENT) if name.kind is ServerNameKind.UNRESOLVABLE else name

    return wrong


def _records_are_gone(has: Any) -> Any:
    return lambda self, region, certificate_id: False


def _thing_not_asked_for(delete: Any) -> Any:
    def wrong(self: Certificates, partition: Any, leaf_id: str, *, force: bool = False) -> None:
        record = partition.certificates.get(leaf_id)
        for name in tuple(partition.things_of_certificate(leaf_id)):
            if record.status is not CertificateStatus.ACTIVE:
                partition.detach_principal(name, record.arn)
        delete(self, partition, leaf_id, force=force)

    return wrong


def _switch_not_looked_at(template_of: Any) -> Any:
    def wrong(self: CACertificates, partition: Any, ca: CACertificate) -> Any:
        found = template_of(self, partition, ca)
        return None if found is None else replace(found, enabled=True)

    return wrong


def _own_body_only(template_of: Any) -> Any:
    def wrong(self: CACertificates, partition: Any, ca: CACertificate) -> Any:
        named = ca.registration_config is not None and ca.registration_config.template_name is not None
        return None if named else template_of(self, partition, ca)

    return wrong


def _not_told(publish: Any) -> Any:
    return lambda self, *arguments, **named: None


def _side_by_side(start: Any) -> Any:
    def wrong(self: JustInTime, *arguments: Any) -> None:
        self._running.clear()
        start(self, *arguments)

    return wrong


IN_THE_EMULATOR: Mapping[str, Plant] = {
    "the server name is compared with case": swap(admission, "read_server_name", _names_with_case),
    "a trailing dot is stripped": swap(admission, "read_server_name", _trailing_dot_stripped),
    "a port makes it nobody's name": swap(admission, "read_server_name", _port_makes_it_nobodys),
    "nobody's name counts as none": swap(admission, "decide", _junk_counts_as_none),
    "what cannot be a name counts as none": swap(admission, "read_server_name", _form_not_looked_at),
    "two old DEFAULT records do not keep a third holder of the CA from answering": swap(
        Certificates, "has_default_holder", _records_are_gone
    ),
    "a certificate goes with its thing attached": swap(Certificates, "delete", _thing_not_asked_for),
    "a template that is not enabled runs": swap(CACertificates, "template_of", _switch_not_looked_at),
    "provisioning templates do not run": swap(CACertificates, "template_of", _own_body_only),
    "a second run begins beside the first": swap(JustInTime, "_start", _side_by_side),
    "nobody is told of a registration": swap(JustInTime, "_publish_registered", _not_told),
    "an account is found at any Region's door": swap(admission, "resolve", _named_account_over_any_door),
    "any CA in the chain will do": swap(admission, "_default_ca_holder", _any_ca_in_the_chain),
    "no chain is asked for": swap(admission, "_default_ca_holder", _chain_not_asked_for),
    "of several DEFAULT records the first answers": swap(
        Certificates, "default_holder", _first_of_several_default_records
    ),
    "SNI_ONLY records answer without SNI": swap(Certificates, "index", _mode_not_looked_at),
    "the DEFAULT holder of another Region counts": swap(CACertificates, "default_holder", _holder_in_any_region),
    "a CA of the same name signed it": swap(CACertificates, "issuers_of", _issuer_by_name),
    "an INACTIVE CA registers": swap(
        CACertificate,
        "registers_devices",
        _auto_registers(lambda ca: ca.auto_registration is AutoRegistrationStatus.ENABLE),
    ),
    "a CA with auto-registration DISABLE registers": swap(
        CACertificate, "registers_devices", _auto_registers(lambda ca: ca.status is CACertificateStatus.ACTIVE)
    ),
    "a first connection makes it ACTIVE": swap(Certificates, "auto_register", _active_at_once),
    "a first connection makes it DEFAULT": swap(Certificates, "auto_register", _always_default),
    "a second DEFAULT holder is taken": swap(CACertificates, "_check_unclaimed", _second_default_taken),
    "another account's registration code will do": swap(
        CACertificates, "_check_verification", _whose_code_does_not_matter
    ),
    "a deleted DEFAULT CA stays taken": swap(CACertificates, "delete", _default_ca_never_let_go),
    "a deleted CA takes its certificates along": swap(CACertificates, "delete", _takes_its_certificates_along),
    "an INACTIVE CA's leaf is registered": swap(Certificates, "register", _under_an_inactive_ca),
    "a leaf registered alone is DEFAULT": swap(Certificates, "_store", _alone_is_default),
    "REVOKED can become ACTIVE": swap(Certificates, "update", _leaves_revoked),
    "an accepted transfer leaves the source its record": swap(Transfers, "accept", _sources_record_stays),
    "a certificate that comes back is ACTIVE": swap(Transfers, "_give_back", _back_as_it_was),
    "policies are not asked": swap(admission, "_authorize", _policies_not_asked),
    "REVOKED is told as INACTIVE": swap(admission, "_in_account", _revoked_as_inactive),
    "every refusal has a CONNACK in MQTT 5": swap(FrontDoor, "_refuse", _connack_for_everybody),
    "no refusal has a CONNACK in MQTT 5": swap(FrontDoor, "_refuse", _no_connack_for_anybody),
    "JITP is not repeated while pending": swap(JustInTime, "_start", _template_not_run_again),
    "JITP activates what is INACTIVE": swap(provisioning, "provision", _provisions_what_is_not_pending),
    "a deactivated certificate stays connected": swap(LiveConnections, "certificate_changed", _lives_on),
}


# --- in the oracle ---


def _read_with_case(read: Any) -> Any:
    def wrong(sni: str | None) -> Any:
        name, reading = read(sni)
        return (sni if name is not None else None), reading

    return wrong


def _read_without_dot(read: Any) -> Any:
    return lambda sni: read(sni[:-1] if sni is not None and sni.endswith(".") else sni)


def _read_address_as_name(read: Any) -> Any:
    return lambda sni: read(None) if sni is None else (sni.lower(), ())


def _ca_holder_does_not_answer(decide: Any) -> Any:
    def wrong(local: Any, chain_sent: bool) -> Any:
        return decide(local, False)

    return wrong


def _chain_not_looked_at(decide: Any) -> Any:
    return lambda local, chain_sent: decide(local, True)


def _sni_only_record_hidden(decide: Any) -> Any:
    """The CA's DEFAULT holder answers, although it has the certificate in SNI_ONLY mode."""

    def wrong(local: Any, chain_sent: bool) -> Any:
        found = decide(local, chain_sent)
        holder = next((each for each in local if each.ca is not None and each.ca.mode == "DEFAULT"), None)
        if found is None and chain_sent and holder is not None and holder.certificate is not None:
            return holder if holder.certificate.mode == "SNI_ONLY" else None
        return found

    return wrong


def _second_accounts_record(decide: Any) -> Any:
    def wrong(local: Any, chain_sent: bool) -> Any:
        records = [each for each in local if each.certificate is not None and each.certificate.mode == "DEFAULT"]
        return records[1] if len(records) > 1 else decide(local, chain_sent)

    return wrong


def _any_record_without_sni(decide: Any) -> Any:
    def wrong(local: Any, chain_sent: bool) -> Any:
        return decide(local, chain_sent) or next((each for each in local if each.certificate is not None), None)

    return wrong


def _door_not_looked_at(expect: Any) -> Any:
    """The Region is that of the endpoint named, whichever was dialled."""

    def wrong(accounts: Any, *, region: str, sni: str | None, **rest: Any) -> Any:
        found = next((each.region for each in accounts if each.endpoint == sni), region)
        return expect(accounts, region=found, sni=sni, **rest)

    return wrong


def _other_region_is_none(decide: Any) -> Any:
    def wrong(accounts: Any, local: Any, name: str | None, chain_sent: bool) -> Any:
        found = decide(accounts, local, name, chain_sent)
        return decide(accounts, local, None, chain_sent) if found[0] is Named.OTHER_REGION else found

    return wrong


def _off_by(blind_to: str) -> Callable[[Any], Any]:
    def make(here: Any) -> Any:
        def wrong(decider: Any) -> Any:
            if decider is None or decider.ca is None:
                return here(decider)
            return here(replace(decider, ca=replace(decider.ca, **{blind_to: True})))

        return wrong

    return make


def _status_read_as(status: str, leaf: Leaf) -> Plant:
    return lambda patch: patch.setitem(rules._LEAF, status, leaf)


def _revoked_is_unknown(leaf: Any) -> Any:
    def wrong(decider: Any, local: Any) -> Any:
        found = leaf(decider, local)
        return Leaf.UNKNOWN if found is Leaf.REVOKED else found

    return wrong


def _policy_not_looked_at(leaf: Any) -> Any:
    def wrong(decider: Any, local: Any) -> Any:
        found = leaf(decider, local)
        return Leaf.ACTIVE if found is Leaf.DENIED else found

    return wrong


def _expected(change: Callable[[rules.Expectation], rules.Expectation]) -> Plant:
    return swap(rules, "_expectation", lambda right: lambda *arguments: change(right(*arguments)))


def _other_mode(expected: rules.Expectation) -> rules.Expectation:
    other = {"DEFAULT": "SNI_ONLY", "SNI_ONLY": "DEFAULT"}
    return (
        expected
        if expected.registered_in is None or expected.mode is None
        else replace(expected, mode=other[expected.mode])
    )


def _jitp_makes_no_thing(expected: rules.Expectation) -> rules.Expectation:
    return replace(expected, thing=False) if rules.JITP in expected.rests_on else expected


def _jitp_comes_to_nothing(expected: rules.Expectation) -> rules.Expectation:
    waits = rules.JITP in expected.rests_on and expected.outcome is DeviceOutcome.PROVISIONED
    return replace(expected, outcome=DeviceOutcome.PENDING) if waits else expected


def _thing_left_open(expected: rules.Expectation) -> rules.Expectation:
    return replace(expected, thing=None)


def _thing_always_there(expected: rules.Expectation) -> rules.Expectation:
    return expected if expected.account is None else replace(expected, thing=True)


def _pending_is_refused(expected: rules.Expectation) -> rules.Expectation:
    pending = expected.outcome is DeviceOutcome.PENDING and expected.registered_in is not None
    return replace(expected, outcome=DeviceOutcome.REFUSED, account=None, mode=None) if pending else expected


def _no_connack_refuses(expected: rules.Expectation) -> rules.Expectation:
    refused = expected.first_try == "connack_refused"
    return replace(expected, first_try="closed_before_connack") if refused else expected


def _barred_is_let_in(right: Any) -> Any:
    """What the template or activator attaches is not looked at."""
    return lambda rule, decider, *rest: right(
        rule, None if decider is None else replace(decider, policy_allows=True), *rest
    )


IN_THE_ORACLE: Mapping[str, Plant] = {
    "the server name is compared with case": swap(rules, "read_server_name", _read_with_case),
    "a trailing dot is stripped": swap(rules, "read_server_name", _read_without_dot),
    "an address or a port is a name of nobody's": swap(rules, "read_server_name", _read_address_as_name),
    "the CA's DEFAULT holder never answers without SNI": swap(rules, "_decide_without_sni", _ca_holder_does_not_answer),
    "the chain is not looked at": swap(rules, "_decide_without_sni", _chain_not_looked_at),
    "an SNI_ONLY record is passed over for the CA's DEFAULT holder": swap(
        rules, "_decide_without_sni", _sni_only_record_hidden
    ),
    "of several DEFAULT records the second answers": swap(rules, "_decide_without_sni", _second_accounts_record),
    "SNI_ONLY records answer without SNI": swap(rules, "_decide_without_sni", _any_record_without_sni),
    "an account is found at any Region's door": swap(rules, "expect", _door_not_looked_at),
    "a name of another Region counts as none": swap(rules, "_decide", _other_region_is_none),
    "an INACTIVE CA registers": swap(rules, "_here", _off_by("active")),
    "a CA with auto-registration DISABLE registers": swap(rules, "_here", _off_by("auto_registration")),
    "REVOKED counts as unknown": swap(rules, "_leaf", _revoked_is_unknown),
    "REVOKED is told as INACTIVE": _status_read_as("REVOKED", Leaf.INACTIVE),
    "INACTIVE is let in": _status_read_as("INACTIVE", Leaf.ACTIVE),
    "PENDING_TRANSFER is let in": _status_read_as("PENDING_TRANSFER", Leaf.ACTIVE),
    "PENDING_ACTIVATION is let in": _status_read_as("PENDING_ACTIVATION", Leaf.ACTIVE),
    "policies are not looked at": swap(rules, "_leaf", _policy_not_looked_at),
    "what JITP attaches is not looked at": swap(rules, "_expectation", _barred_is_let_in),
    "a registration has the wrong mode": _expected(_other_mode),
    "JITP makes no thing": _expected(_jitp_makes_no_thing),
    "JITP comes to nothing": _expected(_jitp_comes_to_nothing),
    "whether there is a thing is never said": _expected(_thing_left_open),
    "whoever is let in has a thing": _expected(_thing_always_there),
    "what nobody activates is refused": _expected(_pending_is_refused),
    "MQTT 5 is denied without CONNACK": _expected(_no_connack_refuses),
    "no second record beside a DEFAULT one": then("10d.default.sB.ca", Then.REFUSE),
    "no second record beside an SNI_ONLY one": then("10b.C4.sB", Then.REFUSE),
    "without SNI nobody registers where others hold the CA SNI_ONLY": then("10b.C3.none.chain", Then.REFUSE),
    "an ACTIVE certificate falls with its CA": then("10c.active.ca-off", Then.REFUSE),
    "JITP is not repeated while pending": then("10c.pending", Then.STAY_PENDING),
    "JITP is repeated though its CA is off": then("10c.pending.ca-off", Then.REPEAT),
}

FAULTS = {f"emulator: {says}": plant for says, plant in IN_THE_EMULATOR.items()} | {
    f"oracle: {says}": plant for says, plant in IN_THE_ORACLE.items()
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_found(fault: str, monkeypatch: Patch) -> None:
    FAULTS[fault](monkeypatch)

    with pytest.raises(Disagreement):
        hold_all()
