"""A check finds what it is there to find: each fault that is planted in the emulator, a few cases tell.

Each is one that somebody's IoT Core may have, as MiniStack, Floci and early versions of ours had. That the same cases
agree where nothing is planted, the first test shows.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio

from devicesim.conformance.matrix import PLAIN, matrix, select
from devicesim.conformance.result import CaseResult, Status
from devicesim.conformance.runner import Check
from devicesim.emulator import admission, provisioning
from devicesim.emulator.admission import Decision, Verdict
from devicesim.emulator.dataplane import DataPlane
from devicesim.emulator.embedded import open_emulator, quick
from devicesim.emulator.frontdoor import FrontDoor
from devicesim.emulator.justintime import JustInTime
from devicesim.emulator.liveconnections import LiveConnections
from devicesim.emulator.packets import ConnAck, ReasonCode
from devicesim.emulator.registry import Registry
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.certificates import Certificates
from devicesim.emulator.state.records import CertificateMode, CertificateStatus
from devicesim.emulator.state.things import Things
from tests.integration.test_check import ACCOUNTS, HASTY, held, run, setting

TIMEOUT = 60.0
CASES = matrix()
Patch = pytest.MonkeyPatch


def replaced(owner: object, name: str, make: Callable[[Any], Any]) -> Callable[[Patch], None]:
    """``make(what stood there)`` stands in its place."""
    return lambda patch: patch.setattr(owner, name, make(getattr(owner, name)))


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong in an IoT Core, and the cases that must find it."""

    says: str
    cases: tuple[str, ...]
    """Names without the transport, which is the plain one; or whole."""
    reason: str
    """Found in what is told of the first one."""
    plant: Callable[[Patch], None] = lambda _patch: None
    settings: Mapping[str, Any] = field(default_factory=dict)


def decided(change: Callable[[Decision, Any], Decision], where: str = "_in_account") -> Callable[[Patch], None]:
    """The decision on a certificate in an account is changed; told besides: who was asked about."""

    def make(right: Any) -> Any:
        def wrong(subject: Any, *arguments: Any, **named: Any) -> Decision:
            return change(right(subject, *arguments, **named), subject)

        return wrong

    return replaced(admission, where, make)


def seen_as(was: CertificateStatus, becomes: CertificateStatus) -> Callable[[Patch], None]:
    """A status is mistaken for another."""

    def make(right: Any) -> Any:
        def wrong(subject: Any, partition: Any, **named: Any) -> Decision:
            record = partition.certificates.get(subject.presented.certificate_id)
            mistaken = record is not None and record.status is was
            decision: Decision = right(replace(subject, seen_as=becomes) if mistaken else subject, partition, **named)
            return decision

        return wrong

    return replaced(admission, "_in_account", make)


def others(registry: Registry, partition: Any) -> Iterable[Any]:
    """The other accounts of a Region."""
    return (each for each in registry.partitions() if each is not partition and each.region == partition.region)


def _answers_for_the_ca(right: Any) -> Any:
    """MiniStack: the account is chosen by the certificate, not by the server name."""

    def wrong(subject: Any, partition: Any, **named: Any) -> Any:
        for each in (partition, *others(subject.registry, partition)):
            if subject.registry.issuer_of(each, subject.presented.leaf) is not None:
                return right(subject, each, **named)
        return right(subject, partition, **named)

    return wrong


def _under_another_accounts_ca(right: Any) -> Any:
    def wrong(self: Registry, partition: Any, leaf: Any, presented: Any = ()) -> Any:
        found = (right(self, each, leaf, presented) for each in (partition, *others(self, partition)))
        return next((ca for ca in found if ca is not None), None)

    return wrong


def _always_default(right: Any) -> Any:
    return lambda self, partition, leaf, ca: right(self, partition, leaf, replace(ca, mode=CertificateMode.DEFAULT))


def _mode_not_looked_at(right: Any) -> Any:
    def wrong(self: Certificates, partition: Any, certificate: Any) -> None:
        right(self, partition, replace(certificate, mode=CertificateMode.DEFAULT))

    return wrong


def _any_policy_will_do(decision: Decision, _subject: Any) -> Decision:
    partition, record = decision.partition, decision.certificate
    assert partition is not None
    assert record is not None
    attached = partition.policies_of_target.get(record.arn)
    return replace(decision, verdict=Verdict.ADMITTED) if attached else decision


def _one_record_for_all(decision: Decision, subject: Any) -> Decision:
    elsewhere = any(subject.presented.certificate_id in each.certificates for each in subject.registry.partitions())
    return replace(decision, verdict=Verdict.REFUSED) if elsewhere else decision


def _falls_everywhere(decision: Decision, subject: Any) -> Decision:
    """A refusal in one account deactivates the certificate in the others."""
    partition, record = decision.partition, decision.certificate
    if decision.verdict is Verdict.REFUSED and partition is not None and record is not None:
        for each in others(subject.registry, partition):
            if record.certificate_id in each.certificates:
                held = each.certificates[record.certificate_id]
                subject.registry.certificates.change(each, held, CertificateStatus.INACTIVE)
    return decision


def _ca_gone_leaf_gone(decision: Decision, _subject: Any) -> Decision:
    partition, record = decision.partition, decision.certificate
    assert partition is not None
    assert record is not None
    ca = partition.cas.get(record.ca_certificate_id or "")
    return replace(decision, verdict=Verdict.REFUSED) if ca is not None and not ca.registers_devices else decision


def _registers_on_a_handshake(right: Any) -> Any:
    def wrong(self: DataPlane, presented: Any, now: float) -> Any:
        settings, wall = self.settings, self.clock.wall()
        decision = admission.decide(self.registry, presented, client_id="", settings=settings, now=wall)
        if decision.verdict is Verdict.REGISTERED:
            assert decision.partition is not None
            assert decision.ca is not None
            self.registry.auto_register(decision.partition, presented.leaf, decision.ca)
        return right(self, presented, now)

    return wrong


def _provisioned_before_connack(right: Any) -> Any:
    def wrong(self: FrontDoor, connection: Any, packet: Any, client_id: str, now: float) -> None:
        presented, wall = connection.presented, self._clock.wall()
        decision = admission.decide(self._registry, presented, client_id=client_id, settings=self._settings, now=wall)
        if decision.verdict is Verdict.REGISTERED and decision.template is not None:
            made = self._just_in_time.register(presented, decision)
            assert made.partition is not None
            assert made.certificate is not None
            provisioning.provision(self._registry, made.partition, made.certificate.certificate_id, decision.template)
        right(self, connection, packet, client_id, now)

    return wrong


def _lives_on(revoked_only: bool) -> Callable[[Any], Any]:
    def make(right: Any) -> Any:
        def wrong(self: LiveConnections, change: Any) -> bool:
            revoked = change.certificate is not None and change.certificate.status is CertificateStatus.REVOKED
            return False if revoked or not revoked_only else right(self, change)

        return wrong

    return make


def _kicked_at_once(right: Any) -> Any:
    def wrong(self: FrontDoor, connection: Any, *arguments: Any) -> None:
        right(self, connection, *arguments)
        now = arguments[-1]
        self._timers.schedule(now + 0.01, lambda _now: connection.fail(ReasonCode.NOT_AUTHORIZED, "kicked"))

    return wrong


def _pending_only_once(right: Any) -> Any:
    def wrong(self: FrontDoor, connection: Any, decision: Decision, now: float) -> None:
        right(self, connection, decision, now)
        if decision.verdict is Verdict.PENDING:
            assert decision.partition is not None
            assert decision.certificate is not None
            self._registry.certificates.change(decision.partition, decision.certificate, CertificateStatus.INACTIVE)

    return wrong


def _told_only_once(right: Any) -> Any:
    def wrong(self: JustInTime, *arguments: Any, first: bool) -> None:
        if first:
            right(self, *arguments, first=first)

    return wrong


def _connack_for_all(right: Any) -> Any:
    """Floci: CONNACK with a code where AWS closes."""

    def wrong(self: FrontDoor, connection: Any, *arguments: Any, **named: Any) -> None:
        if not connection.is_v5:
            connection.send(ConnAck(reason_code=ReasonCode.NOT_AUTHORIZED))
        right(self, connection, *arguments, **named)

    return wrong


def _silent(right: Any) -> Any:
    return lambda self, connection, code, detail, tell=False, **named: right(
        self, connection, code, detail, tell=False, **named
    )


def _another_thing(right: Any) -> Any:
    def wrong(self: Things, partition: Any, name: str, *arguments: Any, **named: Any) -> Any:
        self.create(partition, f"{name}-2")
        return right(self, partition, f"{name}-2", *arguments, **named)

    return wrong


def _none(_right: Any) -> Any:
    return lambda *_arguments, **_named: None


ACTIVE, INACTIVE = CertificateStatus.ACTIVE, CertificateStatus.INACTIVE
REFUSED_NOT = "expected refused; provisioned in dev"
LET_IN = "accepted with CONNACK 0, but no account holds its certificate ACTIVE"
FAULTS: Mapping[str, Fault] = {
    # --- who decides ---
    "sni-case": Fault(
        "the server name is compared with case",
        ("C2-jitp/active/a-mixed-case", "C2-jitp/new/a-mixed-case"),
        "expected provisioned in dev (SNI_ONLY); refused",
        settings={"sni_ignores_case": False},
    ),
    "by-certificate": Fault(
        "the account is chosen by the certificate, not by the server name",
        ("C1-jitp/active/b-own", "C2-jitp/new/b-own"),
        REFUSED_NOT,
        replaced(admission, "_in_account", _answers_for_the_ca),
    ),
    "any-account": Fault(
        "an account without the CA registers under another's",
        ("C1-jitr/new/b-own", "C2-jitr/new/a-other-x"),
        "expected refused; pending in prod",
        replaced(Registry, "issuer_of", _under_another_accounts_ca),
    ),
    "sni-only-without-sni": Fault(
        "SNI_ONLY records answer without SNI",
        ("C2-jitp/active/a-none", "C0/active-alone/a-none"),
        REFUSED_NOT,
        replaced(Certificates, "index", _mode_not_looked_at),
    ),
    "chain-not-needed": Fault(
        "the CA's DEFAULT holder registers a leaf that comes without chain and SNI",
        ("C1-jitp/new/a-none-leaf-only",),
        "its certificate was also registered in dev (",
        settings={"jit_without_sni_needs_chain": False},
    ),
    # --- what it does ---
    "policies": Fault(
        "no policy is asked",
        ("C1-jitp/denied/a-own", "C1-jitp/barred/a-none"),
        REFUSED_NOT,
        decided(lambda decision, _: replace(decision, verdict=Verdict.ADMITTED), "_authorize"),
    ),
    "any-policy": Fault(
        "a policy is attached, and nobody reads it",
        ("C1-jitp/barred/a-own",),
        REFUSED_NOT,
        decided(_any_policy_will_do, "_authorize"),
    ),
    "revoked": Fault(
        "REVOKED is let in", ("C4-jitp/revoked/a-own",), LET_IN, seen_as(CertificateStatus.REVOKED, ACTIVE)
    ),
    "inactive": Fault("INACTIVE is let in", ("C1-jitp/inactive/a-none",), LET_IN, seen_as(INACTIVE, ACTIVE)),
    "pending": Fault(
        "PENDING_ACTIVATION is let in",
        ("C2-jitr/pending/a-own",),
        LET_IN,
        seen_as(CertificateStatus.PENDING_ACTIVATION, ACTIVE),
    ),
    "transfer": Fault(
        "PENDING_TRANSFER is let in",
        ("C1-jitp/transfer/a-own/tls1.3-mqtt5-8883",),  # it has no policy: only how it is refused tells
        "expected a close before CONNACK on try 1; CONNACK refused with code 0x87",
        seen_as(CertificateStatus.PENDING_TRANSFER, ACTIVE),
    ),
    "mode": Fault(
        "what connects is registered in DEFAULT mode",
        ("C2-jitp/new/a-own", "C4-jitr/new/b-own"),
        "provisioned in dev, but in DEFAULT mode; expected SNI_ONLY",
        replaced(Certificates, "auto_register", _always_default),
    ),
    "thing": Fault(
        "JITP makes no thing",
        ("C1-jitp/new/a-own",),
        "provisioned in dev, but without a thing",
        replaced(Things, "attach_principal", _none),
    ),
    "other-thing": Fault(
        "JITP attaches another thing",
        ("C1-jitp/new/a-own",),
        "JITP attached the thing",
        replaced(Things, "attach_principal", _another_thing),
    ),
    "handshake": Fault(
        "a handshake without CONNECT registers",
        ("C1-jitp/new-handshake/a-none", "C2-jitp/new-handshake/a-own"),
        "a handshake without CONNECT was registered in dev (PENDING_ACTIVATION)",
        replaced(DataPlane, "open", _registers_on_a_handshake),
    ),
    "first-drop": Fault(
        "the first connection is not dropped",
        ("C3-jitp/new/a-other-b",),
        "accepted on the first try, which IoT Core drops (10b.C3.sB)",
        replaced(FrontDoor, "_decide", _provisioned_before_connack),
    ),
    "one-record": Fault(
        "a certificate is registered in one account alone",
        ("C4-jitp/visited/b-own", "C3-jitp/active/b-own", "C2-two-regions/active-in-o/a-own"),
        "expected provisioned in prod (SNI_ONLY, thing); refused",
        decided(_one_record_for_all, "_unknown"),
    ),
    "falls-everywhere": Fault(
        "a refusal in one account deactivates the certificate in the other",
        ("C4-jitp/active-revoked-in-b/b-own",),
        "its record in dev was ACTIVE (SNI_ONLY), and is INACTIVE (SNI_ONLY) now",
        decided(_falls_everywhere),
    ),
    "ca-off": Fault(
        "an ACTIVE certificate falls with its CA",
        ("C1-inactive/active/a-own", "C1-disabled/active/a-none"),
        "expected provisioned in dev (DEFAULT); refused",
        decided(_ca_gone_leaf_gone, "_authorize"),
    ),
    "rerun": Fault(
        "JITP is not run again while pending",
        ("C2-late-jitp/pending/a-own",),
        "expected provisioned in dev (SNI_ONLY, thing); pending in dev",
        settings={"jitp_reruns_while_pending": False},
    ),
    "event": Fault(
        "the registered event is published once",
        ("C1-jitr/new/a-own", "C1-jitr/pending/a-none"),
        "the registered event was published 1 time, for 2 dropped connections",
        replaced(JustInTime, "_publish_registered", _told_only_once),
    ),
    "pending-ends": Fault(
        "a certificate that is pending does not stay so",
        ("C2-jitr/pending/a-own",),
        "expected pending in dev (SNI_ONLY); refused",
        replaced(FrontDoor, "_pending", _pending_only_once),
    ),
    "lives-on": Fault(
        "a deactivated certificate stays connected",
        ("C1-jitp/active-live/a-own",),
        "its certificate is no longer ACTIVE, and it stays connected",
        replaced(LiveConnections, "certificate_changed", _lives_on(revoked_only=False)),
    ),
    "revoked-lives-on": Fault(
        "a revoked certificate stays connected",
        ("C1-jitp/active-live-revoked/a-own",),
        "its certificate is no longer ACTIVE, and it stays connected",
        replaced(LiveConnections, "certificate_changed", _lives_on(revoked_only=True)),
    ),
    "kicked": Fault(
        "whoever is let in is disconnected at once",
        ("C1-jitp/active-live/a-own",),
        "the connection ended before its certificate was deactivated",
        replaced(FrontDoor, "_admit", _kicked_at_once),
    ),
    # --- how it looks ---
    "connack": Fault(
        "CONNACK with a code in place of a close",
        ("C0/new/a-own", "C1-jitp/new/a-own", "C1-jitr/pending/a-own"),
        "expected a close before CONNACK on try 1; CONNACK refused with code 0x87",
        replaced(FrontDoor, "_refuse", _connack_for_all),
    ),
    "no-0x87": Fault(
        "MQTT 5 is closed where it should be told",
        ("C0/denied-alone/a-own/tls1.3-mqtt5-8883",),
        "expected CONNACK 0x87 on try 1; closed before CONNACK",
        replaced(FrontDoor, "_refuse", _silent),
    ),
    "v5-told": Fault(
        "MQTT 5 is told where it should be closed",
        ("C1-jitp/new/a-own/tls1.2-mqtt5-443", "C0/inactive-alone/a-own/tls1.3-mqtt5-8883"),
        "expected a close before CONNACK on try 1; CONNACK refused with code 0x87",
        settings={"refusal_v5": "connack"},
    ),
    "no-jit-443": Fault(
        "nothing is registered on port 443",
        ("C1-jitp/new/a-own/tls1.3-mqtt3.1.1-443",),
        "expected provisioned in dev (DEFAULT, thing); refused",
        settings={"jit_on_alpn": False},
    ),
}


def whole(name: str) -> str:
    return name if name.count("/") == 3 else f"{name}/{PLAIN.name}"


async def results(names: Iterable[str], settings: Settings) -> Mapping[str, CaseResult]:
    """What a check of an emulator of its own says of these cases."""
    wanted = {whole(name) for name in names}
    chosen = select(CASES, list(wanted))
    assert {each.name for each in chosen} == wanted
    with trio.fail_after(TIMEOUT):
        async with open_emulator(ACCOUNTS, settings=settings) as running:
            own = setting(running, existing=False, real=False, pace=HASTY)
            check = Check(chosen, own, run_id="0123abcd", epoch=time.time)
            return {each.name: each for each in await check.execute()}


async def test_nothing_is_found_where_nothing_is_planted() -> None:
    names = {whole(name) for fault in FAULTS.values() for name in fault.cases}

    told = await results(names, quick())

    assert {name: (each.status, each.reason) for name, each in told.items()} == dict.fromkeys(
        names, (Status.AGREES, "")
    )


@pytest.mark.parametrize("name", FAULTS)
async def test_planted_fault_is_found_by_each_of_its_cases(name: str, monkeypatch: Patch) -> None:
    fault = FAULTS[name]
    fault.plant(monkeypatch)

    told = await results(fault.cases, replace(quick(), **fault.settings))

    assert {each.status for each in told.values()} == {Status.DISAGREES}, [each.reason for each in told.values()]
    assert fault.reason in told[whole(fault.cases[0])].reason


async def test_what_is_registered_where_it_should_not_be_is_removed_too(monkeypatch: Patch) -> None:
    FAULTS["any-account"].plant(monkeypatch)
    with trio.fail_after(TIMEOUT):
        async with open_emulator(ACCOUNTS, settings=quick()) as running:
            told, check = await run(running, *map(whole, FAULTS["any-account"].cases), real=False, pace=HASTY)
            left = held(running)

    assert {each.status for each in told.values()} == {Status.DISAGREES}
    assert (check.left_behind, any(left.values())) == ([], False)
