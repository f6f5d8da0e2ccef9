"""Why a device is or is not connected: the checks of its CONNECT in their order, and where they stopped. Pure.

The verdict is :func:`admission.decide`'s own, on the registry as it stands, with a trace of what it passed: nothing is
decided here a second time. Quotas and faults, which the data plane asks after that, are looked at without using them
up, and the template of a provisioning run is filled in without running it.

What a device sent is taken from the question, else from its last CONNECT, else assumed and said so. What fails before a
CONNECT can be read (handshake, framing) or after it was answered is no check of it: that stands in the history, the end
of which is part of the answer.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509

from devicesim.emulator import admission, history, limits, provisioning
from devicesim.emulator.admission import Decision, Door, Presented, Verdict
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.broker import will_allowed
from devicesim.emulator.checks import Stop, Trace
from devicesim.emulator.dataplane import DataPlane
from devicesim.emulator.faults import FaultKind
from devicesim.emulator.frontdoor import policy_asked
from devicesim.emulator.packets import Connect, Will
from devicesim.emulator.registry import Partition
from devicesim.emulator.state.records import load_certificate
from devicesim.emulator.variables import NOTHING_ASKED, Asked
from devicesim.pki.identity import certificate_id as id_of

REMEMBERED: Final = 4096
"""Devices whose last CONNECT is remembered."""
_MAX_CHAIN_BYTES: Final = 16 * 1024
_ENTRIES: Final = 10
"""Of the history that an explanation shows."""
_ENDS_CONNECT: Final = (FaultKind.DROP_AFTER_HANDSHAKE, FaultKind.REFUSE_CONNECT, FaultKind.THROTTLE)
_CONNECT_FAULTS: Final = (
    FaultKind.SERVER_CERTIFICATE_EXPIRING,
    FaultKind.SERVER_CERTIFICATE_EXPIRED,
    FaultKind.SERVER_CERTIFICATE_WRONG_NAME,
    *_ENDS_CONNECT,
    FaultKind.DELAY_CONNACK,
    FaultKind.STALE_CERTIFICATE_STATE,
    FaultKind.CLOCK_SKEW,
)
_PROVISIONING_FAULTS: Final = (FaultKind.DELAY_PROVISIONING, FaultKind.FAIL_PROVISIONING)
_QUOTAS: Final[Mapping[Verdict, frozenset[str]]] = {
    Verdict.ADMITTED: frozenset({"connects_per_second", "connects_per_client_id_per_second", "connections"}),
    Verdict.DENIED: frozenset({"connects_per_second", "connects_per_client_id_per_second"}),
    Verdict.REGISTERED: frozenset({"connects_per_second", "certificate_registrations_per_second"}),
}
"""Which quotas are asked after which decision; after any other only the account's CONNECT/s."""


class UnknownCertificateError(LookupError):
    """Nobody has the certificate, and no device has shown it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Whose CONNECT is to be explained. What is left out is looked up."""

    certificate_id: str | None = None
    certificate: x509.Certificate | None = None
    """The certificate itself, where nobody has it."""
    account_id: str | None = None
    """The account that the device means to reach: its endpoint is the server name, unless one is given."""
    region: str | None = None
    server_name: str | None = None
    """``""`` is none sent."""
    client_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    check: Stop
    result: str
    """``passed``, ``stopped``, ``may_stop`` (a fault that fires on a share), ``not_needed``, ``not_reached``."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A device's last CONNECT."""

    presented: Presented
    client_id: str
    asked: Asked
    will: Will | None
    """Without its payload."""
    problem: str
    """Why AWS's limits are against the packet; empty when they are not."""
    time: float


class Explainer:
    """Answers questions about a data plane; made with it, so that it sees what devices show."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._registry = plane.registry
        self._settings = plane.settings
        self._clock = plane.clock
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        plane.decided.append(self._saw)

    def clear(self) -> None:
        """Forget what devices have shown."""
        self._seen.clear()

    def _saw(self, presented: Presented, client_id: str, packet: Connect, decision: Decision) -> None:
        leaf_id = presented.certificate_id
        if leaf_id is None:
            return
        if decision.certificate is not None:
            presented = replace(presented, leaf=None)  # the record has it
        if sum(map(len, presented.chain)) > _MAX_CHAIN_BYTES:
            presented = replace(presented, chain=())
        problem = limits.connect_problem(packet, self._settings)
        self._seen[leaf_id] = _Seen(
            presented=presented,
            client_id=client_id,
            asked=policy_asked(packet, self._settings),
            will=None if packet.will is None else replace(packet.will, payload=b""),
            problem="" if problem is None else problem[1],
            time=self._clock.wall(),
        )
        self._seen.move_to_end(leaf_id)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def explain(self, question: Question) -> Mapping[str, object]:
        """The explanation, ready for JSON. Raises :class:`UnknownCertificateError`."""
        leaf = self._leaf(question)
        leaf_id = id_of(leaf)
        seen = self._seen.get(leaf_id)
        presented, assumed = self._presented(question, leaf, leaf_id, seen)
        client_id, origin = self._client_id(question, leaf_id, presented, seen)
        assumed["client_id"] = origin
        trace = Trace()
        decision = admission.decide(
            self._registry,
            presented,
            client_id=client_id,
            settings=self._settings,
            now=self._clock.wall(),
            asked=NOTHING_ASKED if seen is None else seen.asked,
            trace=trace,
        )
        steps, stopped = self._steps(decision, trace, presented, leaf, client_id)
        if decision.verdict is Verdict.ADMITTED:
            asks = self._asked(decision, presented, client_id, seen)
            steps = [asks.get(each.check, each) for each in steps]
            stopped = stopped or next((check for check, each in asks.items() if each.result == "stopped"), None)
        partition = decision.partition
        return {
            "certificate_id": leaf_id,
            "verdict": decision.verdict.value,
            "reason": None if decision.reason is None else str(decision.reason),
            "logged_by_aws": decision.logged and decision.reason is not None,
            "stopped_at": None if stopped is None else stopped.value,
            "detail": decision.detail,
            "account": None if partition is None else partition.account_id,
            "region": presented.door.region if partition is None else partition.region,
            "presented": {
                "server_name": None if presented.server_name is None else admission.printable(presented.server_name),
                "client_id": client_id,
                "chain_certificates": len(presented.chain),
                "from": assumed,
                "last_connect": None if seen is None else seen.time,
            },
            "steps": [{"check": each.check.value, "result": each.result, "detail": each.detail} for each in steps],
            "history": [each.to_json() for each in self._plane.history.select(certificate_id=leaf_id, limit=_ENTRIES)],
        }

    # --- what the device shows ---

    def _leaf(self, question: Question) -> x509.Certificate:
        if question.certificate is not None:
            return question.certificate
        certificate_id = question.certificate_id or ""
        for partition in self._registry.partitions():
            record = partition.certificates.get(certificate_id)
            if record is not None:
                return load_certificate(record.pem)
        seen = self._seen.get(certificate_id)
        if seen is None or seen.presented.leaf is None:
            raise UnknownCertificateError(
                f"no account has a certificate {certificate_id!r}, and none was shown by a device of late;"
                " POST its PEM as certificate_pem"
            )
        return seen.presented.leaf

    def _presented(
        self, question: Question, leaf: x509.Certificate, leaf_id: str, seen: _Seen | None
    ) -> tuple[Presented, dict[str, str]]:
        registry = self._registry
        server_name: bytes | None
        if question.server_name is not None:
            server_name, origin = question.server_name.encode("utf-8", "surrogateescape") or None, "question"
        elif question.account_id is not None:
            regions = {each.region for each in registry.partitions() if each.account_id == question.account_id}
            region = question.region or (seen.presented.door.region if seen is not None else min(regions, default=""))
            mine = [each for each in self._partitions_of(question.account_id) if each.region == region]
            if not mine:
                raise UnknownCertificateError(f"there is no account {question.account_id!r} in region {region!r}")
            server_name, origin = mine[0].endpoint.encode("ascii"), "endpoint of the account"
        elif seen is not None:
            server_name, origin = seen.presented.server_name, "last CONNECT"
        else:
            holder = next((each for each in registry.partitions() if leaf_id in each.certificates), None)
            if holder is None:
                raise UnknownCertificateError("account or server_name is needed: no account has this certificate yet")
            server_name, origin = holder.endpoint.encode("ascii"), "endpoint of the account that has the record"
        door = self._door(question, server_name, seen)
        if seen is not None:
            return replace(seen.presented, door=door, server_name=server_name, leaf=leaf), {"server_name": origin}
        presented = Presented(door=door, server_name=server_name, leaf=leaf, certificate_id=leaf_id)
        return presented, {"server_name": origin}

    def _partitions_of(self, account_id: str) -> Sequence[Partition]:
        return [each for each in self._registry.partitions() if each.account_id == account_id]

    def _door(self, question: Question, server_name: bytes | None, seen: _Seen | None) -> Door:
        """The front door that the device comes to: one of the Region that is meant."""
        alpn = seen is not None and seen.presented.door.alpn
        if question.region is not None:
            return Door(region=question.region, alpn=alpn)
        if server_name is not None:
            name = admission.read_server_name(server_name, self._settings)
            partition = self._registry.resolve_server_name(name.text)
            if partition is not None:
                return Door(region=partition.region, alpn=alpn)
        if seen is not None:
            return seen.presented.door
        partitions = self._registry.partitions()
        return Door(region=partitions[0].region if partitions else "us-east-1")

    def _client_id(self, question: Question, leaf_id: str, presented: Presented, seen: _Seen | None) -> tuple[str, str]:
        if question.client_id is not None:
            return question.client_id, "question"
        if seen is not None:
            return seen.client_id, "last CONNECT"
        for partition in self._registry.partitions():
            if partition.region == presented.door.region:
                for thing in partition.things_of_certificate(leaf_id):
                    return thing, "assumed: the attached thing's name"
        return leaf_id, "assumed: the certificate id"

    # --- the checks ---

    def _steps(
        self, decision: Decision, trace: Trace, presented: Presented, leaf: x509.Certificate, client_id: str
    ) -> tuple[list[Step], Stop | None]:
        """Every check in order, and the first that stops the CONNECT."""
        steps = {check: Step(check=check, result="passed", detail=detail) for check, detail in trace.passed}
        stopped: Stop | None = None
        if decision.verdict is Verdict.ADMITTED:
            steps[Stop.POLICY] = Step(check=Stop.POLICY, result="passed", detail="iot:Connect is allowed")
        else:
            stopped = trace.at
            steps[stopped] = Step(check=stopped, result="stopped", detail=_told(decision))
        if decision.template is not None:
            steps[Stop.TEMPLATE] = self._template(decision, leaf, presented)
        elif decision.verdict in (Verdict.REGISTERED, Verdict.PENDING):
            self._unneeded(steps, Stop.TEMPLATE, why="no template runs (JITR): somebody else must activate it")
        if Stop.RECORD in steps and decision.certificate is not None:
            checks = (Stop.CA, Stop.AUTO_REGISTRATION, Stop.TEMPLATE)
            self._unneeded(steps, *checks, why="the account has a record of the certificate")
        elif Stop.RECORD in steps:
            self._unneeded(steps, Stop.STATUS, why="the account has no record of the certificate")
        if decision.partition is not None:
            steps[Stop.QUOTAS] = self._quotas(decision, decision.partition, client_id)
            stopped = stopped or (Stop.QUOTAS if steps[Stop.QUOTAS].result == "stopped" else None)
        steps[Stop.FAULTS] = self._faults(decision, presented, client_id)
        stopped = stopped or (Stop.FAULTS if steps[Stop.FAULTS].result == "stopped" else None)
        missing = Step(check=Stop.POLICY, result="not_reached")
        return [steps.get(check, replace(missing, check=check)) for check in Stop], stopped

    @staticmethod
    def _unneeded(steps: dict[Stop, Step], *checks: Stop, why: str) -> None:
        for check in checks:
            steps.setdefault(check, Step(check=check, result="not_needed", detail=why))

    def _template(self, decision: Decision, leaf: x509.Certificate, presented: Presented) -> Step:
        assert decision.template is not None
        name = decision.template.name or "of the CA"
        if not decision.template.enabled:
            return Step(check=Stop.TEMPLATE, result="stopped", detail=f"template {name} is not enabled")
        try:
            provisioning.resolve(decision.template.body, leaf, presented.certificate_id or "")
        except APIError as error:
            return Step(check=Stop.TEMPLATE, result="stopped", detail=f"JITP fails: {error.code}: {error.message}")
        failed = self._last_run_failed(decision, presented)
        if failed is not None:
            return Step(check=Stop.TEMPLATE, result="stopped", detail=f"JITP failed the last time: {failed}")
        detail = f"template {name} can be filled in; what it names (groups, policies) is looked up when JITP runs it"
        return Step(check=Stop.TEMPLATE, result="passed", detail=detail)

    def _last_run_failed(self, decision: Decision, presented: Presented) -> str | None:
        assert decision.partition is not None
        runs = self._plane.history.select(
            account_id=decision.partition.account_id,
            certificate_id=presented.certificate_id,
            kind=history.Kind.PROVISIONING,
            limit=1,
        )
        if not runs or runs[0].verdict != history.PROVISIONING_FAILED:
            return None
        return f"{runs[0].reason}: {runs[0].detail}"

    def _quotas(self, decision: Decision, partition: Partition, client_id: str) -> Step:
        plane = self._plane
        account = (partition.account_id, partition.region)
        connected = plane.load(partition).connections
        found = plane.quotas.explain_connect(account, client_id, connected, self._clock.now())
        asked = _QUOTAS.get(decision.verdict, frozenset({"connects_per_second"}))
        used_up = [each.detail for name, each in found.items() if each is not None and name in asked]
        if used_up:
            return Step(check=Stop.QUOTAS, result="stopped", detail="; ".join(used_up))
        return Step(check=Stop.QUOTAS, result="passed", detail=f"room in {', '.join(sorted(asked))}")

    def _asked(
        self, decision: Decision, presented: Presented, client_id: str, seen: _Seen | None
    ) -> Mapping[Stop, Step]:
        """What else stands in the packet of a device that may connect."""
        if seen is None:
            unseen = "no CONNECT of the device was seen: one that asks for nothing unusual is assumed"
            return {check: Step(check=check, result="passed", detail=unseen) for check in (Stop.LIMITS, Stop.WILL)}
        if seen.problem and client_id == seen.client_id:
            return {Stop.LIMITS: Step(check=Stop.LIMITS, result="stopped", detail=f"its last CONNECT: {seen.problem}")}
        within = Step(check=Stop.LIMITS, result="passed", detail="its last CONNECT is within AWS's limits")
        if seen.will is None:
            return {Stop.LIMITS: within, Stop.WILL: Step(check=Stop.WILL, result="passed", detail="it has none")}
        assert decision.partition is not None
        permissions = admission.CertificatePermissions(
            registry=self._registry,
            partition=decision.partition,
            certificate_id=presented.certificate_id or "",
            client_id=client_id,
            source_ip=presented.source_ip,
            asked=seen.asked,
        )
        allowed = will_allowed(permissions, seen.will)
        detail = (
            f"iot:Publish on {seen.will.topic!r} {'is allowed' if allowed else 'denied: the will cannot be published'}"
        )
        will = Step(check=Stop.WILL, result="passed" if allowed else "stopped", detail=detail)
        return {Stop.LIMITS: within, Stop.WILL: will}

    def _faults(self, decision: Decision, presented: Presented, client_id: str) -> Step:
        partition = decision.partition
        facts = {
            "account_id": None if partition is None else partition.account_id,
            "region": presented.door.region if partition is None else partition.region,
            "certificate_id": presented.certificate_id,
            "client_id": client_id,
        }
        faults, now = self._plane.faults, self._clock.now()
        kinds = _CONNECT_FAULTS if decision.template is None else (*_CONNECT_FAULTS, *_PROVISIONING_FAULTS)
        fitting = [fault for kind in kinds for fault in faults.would_fire(kind, now, **facts)]
        if not fitting:
            return Step(check=Stop.FAULTS, result="passed", detail="none on the board fits")
        detail = "; ".join(f"{each.name}: {each.kind.value} on {each.share:.0%}" for each in fitting)
        certain = any(each.kind in _ENDS_CONNECT and each.share == 1 for each in fitting)
        return Step(check=Stop.FAULTS, result="stopped" if certain else "may_stop", detail=detail)


def _told(decision: Decision) -> str:
    match decision.verdict:
        case Verdict.REGISTERED:
            return f"{decision.detail}: the certificate is registered, and the connection closed; connect again"
        case Verdict.PENDING:
            return f"{decision.detail}: it must become ACTIVE"
        case _:
            return decision.detail
