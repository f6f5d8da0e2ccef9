"""The likeliest cause of each group of failures, by a fold over the record. Pure.

A report of 10,000 devices is not 10,000 diagnoses: devices that a diagnosis could not tell apart are one *situation*,
and one of them stands for all. What an account holds of a certificate is part of that, and is looked at only for
devices that were turned away and never let in. A device that the end of a run cut short is not weighed: what it would
have seen next nobody knows.
"""

from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from devicesim.diagnosis.case import JITP_SECONDS, PROVISIONING_SECONDS, Sight, Telling, sight, telling
from devicesim.diagnosis.catalogue import CATALOGUE, FIRST_DROP
from devicesim.diagnosis.causes_device import REGISTER_THING_PER_SECOND
from devicesim.diagnosis.evidence import FleetEvidence
from devicesim.diagnosis.from_record import Rates, device_evidence
from devicesim.diagnosis.rank import diagnose
from devicesim.diagnosis.scales import HINT
from devicesim.outcome import Attempt, DeviceOutcome, Failure, FailureKind, Holding, Stage, Verdict
from devicesim.record.facts import AccountRecord, DeviceRecord, GroupRecord, RunStatus
from devicesim.report.document import LikeliestCause
from devicesim.rules import JITP, JITR, Expectation

_DROPS = frozenset({FailureKind.CLOSED_BEFORE_CONNACK, FailureKind.CONNECTION_RESET})
"""How a connection ends that registers a certificate (aws-iot-behaviour.md §2)."""
LEAST_JITP_SECONDS = 1.0
"""What JITP takes at least on AWS (§3); what takes longer in a fleet that comes too fast was throttled."""
MOST_CAUSES = 6
"""Named for one failure: on AWS one and the same drop has many."""
MOST_GROUPS = 20
"""Named for one cause."""

_PATIENCE = (JITP_SECONDS, PROVISIONING_SECONDS)
_HANGS_ON_ACCOUNTS = frozenset({Sight.REFUSED, Sight.LOST, Sight.SILENT})
"""What a device saw that accounts had a hand in, so that it counts what they hold of its certificate."""

Held = tuple[tuple[str, str, str | None], ...]
"""Account, status and mode of each record of one certificate."""


@dataclass(frozen=True, slots=True)
class _Situation:
    """What the likeliest cause of a failure can depend on, but for what accounts hold."""

    group: str
    kind: FailureKind
    stage: Stage
    tells: Telling
    alert: str
    once: bool
    """Tried once."""
    patience: int
    """How many of the times that causes go by it tried for."""
    gave_up: bool


@dataclass(slots=True)
class _Example:
    """The device that stands for a situation."""

    device: DeviceRecord
    attempts: Sequence[Attempt]


@dataclass(frozen=True, slots=True)
class _Passed:
    """A failure that a later try of the same device left behind."""

    just_in_time: str
    """JITP or JITR, of which it was part; empty: neither."""
    group: str
    slow: bool
    """A try was dropped when provisioning could have been done."""


@dataclass(frozen=True, slots=True)
class _Found:
    number: int | None
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class _Why:
    """For whom a cause was found, and what speaks for it the most."""

    group: str
    evidence: str


class CauseFold:
    """``add`` each device, let :meth:`watch` see what accounts held after the run, then :meth:`close`."""

    def __init__(self, groups: Iterable[GroupRecord], accounts: Sequence[AccountRecord], status: RunStatus) -> None:
        """``status`` is the run's."""
        self._groups = {group.name: group for group in groups}
        self._over, self._cut_short = status is not RunStatus.RUNNING, status is not RunStatus.FINISHED
        self.cut_short: Counter[Failure] = Counter()
        """Devices that would have come to something else, or to the same once more."""
        self._accounts = accounts
        self._rates = Rates()
        self._accepted: Counter[str] = Counter()
        self._client_ids: Counter[tuple[str, str]] = Counter()
        """By the account dialled and client id."""
        self._passed: dict[Failure, dict[_Passed, list[int]]] = defaultdict(dict)
        """Devices, and the least and the greatest number of the try that was accepted."""
        self._examples: dict[_Situation, _Example] = {}
        self._decided: Counter[tuple[Failure, _Situation, Held | None]] = Counter()
        """Devices; ``None``: what accounts hold does not matter, and was not looked at."""
        self._waiting: dict[str, tuple[tuple[Failure, _Situation], ...]] = {}
        """By certificate id: failures whose cause hangs on what accounts hold."""
        self._same: dict[tuple[tuple[Failure, _Situation], ...], tuple[tuple[Failure, _Situation], ...]] = {}

    def add(self, device: DeviceRecord, attempts: Sequence[Attempt], verdict: Verdict | None) -> None:
        """A device with its tries, in their order."""
        group = self._groups[device.group]
        self._rates.add(group.account, attempts)
        accepted = next((place for place, attempt in enumerate(attempts) if attempt.connack_code == 0), None)
        if accepted is not None:
            self._accepted[group.name] += 1
        undecided = self._over and verdict is None
        # one that was accepted has a verdict, also when it was on its way back
        final = verdict is not None and not (self._cut_short and accepted is not None)
        seen: set[Failure] = set()
        waiting: list[tuple[Failure, _Situation]] = []
        for place in reversed(range(len(attempts))):
            failure = attempts[place].failure
            if failure is None or failure in seen:
                continue
            seen.add(failure)
            if accepted is not None and place < accepted:
                self._add_passed(failure, device, group, attempts[: accepted + 1])
                continue
            if undecided:
                self.cut_short[failure] += 1
                continue
            gave_up = final and place == len(attempts) - 1
            situation = self._situation(device, attempts[: place + 1], failure, gave_up)
            if sight(attempts[place]) in _HANGS_ON_ACCOUNTS:
                waiting.append((failure, situation))
            else:
                self._decided[failure, situation, None] += 1
        if waiting:
            pairs = (*self._waiting.get(device.certificate_id, ()), *waiting)
            self._waiting[device.certificate_id] = self._same.setdefault(pairs, pairs)

    def watch(self, holdings: Iterable[Holding]) -> Iterator[Holding]:
        """Passes on what accounts held after the run, which comes in the order of certificates."""
        held: list[tuple[str, str, str | None]] = []
        certificate = ""
        for holding in holdings:
            if holding.certificate_id != certificate:
                self._decide(certificate, tuple(held))
                certificate, held = holding.certificate_id, []
            held.append((holding.account, holding.status, holding.mode))
            yield holding
        self._decide(certificate, tuple(held))

    def close(
        self,
        failures: Collection[Failure],
        *,
        asked: Collection[str],
        now: float,
        errors: Sequence[str],
        devices: Callable[[], Iterable[DeviceRecord]],
    ) -> dict[Failure, tuple[LikeliestCause, ...]]:
        """The likeliest causes of each of these failures, where any is found. ``asked`` are the accounts that could be
        asked what they hold, ``errors`` the run's; ``devices`` reads them once more, where client ids matter."""
        for certificate in list(self._waiting):
            self._decide(certificate, ())
        self._count_client_ids(devices)
        wanted = frozenset(failures)
        found: dict[Failure, dict[_Found, Counter[_Why]]] = defaultdict(lambda: defaultdict(Counter))
        diagnosed: dict[tuple[_Situation, Held | None], tuple[_Found, str] | None] = {}
        for (failure, situation, held), count in self._decided.items():
            if failure not in wanted:
                continue
            key = situation, held
            if key not in diagnosed:
                diagnosed[key] = self._diagnose(situation, held, asked, now, errors)
            if (answer := diagnosed[key]) is not None:
                cause, evidence = answer
                found[failure][cause][_Why(situation.group, evidence)] += count
        for failure in wanted & self._passed.keys():
            for cause, group, count in self._left_behind(failure):
                found[failure][cause][_Why(group, "")] += count
        return {failure: tuple(_likeliest(causes)) for failure, causes in found.items()}

    # --- one device ---

    def _add_passed(
        self,
        failure: Failure,
        device: DeviceRecord,
        group: GroupRecord,
        attempts: Sequence[Attempt],
    ) -> None:
        """``attempts`` up to the one that was accepted."""
        accepted = attempts[-1]
        part = _just_in_time(device.expectation or group.expectation) if failure.kind in _DROPS else ""
        slow = attempts[-2].start - attempts[0].start >= LEAST_JITP_SECONDS
        counts = self._passed[failure].setdefault(
            _Passed(part, group.name, slow), [0, accepted.number, accepted.number]
        )
        counts[0] += 1
        counts[1], counts[2] = min(counts[1], accepted.number), max(counts[2], accepted.number)

    def _situation(
        self, device: DeviceRecord, attempts: Sequence[Attempt], failure: Failure, gave_up: bool
    ) -> _Situation:
        alert = attempts[-1].alert
        situation = _Situation(
            group=device.group,
            kind=failure.kind,
            stage=failure.stage,
            tells=telling(failure),
            alert=failure.detail if failure.kind is FailureKind.TLS_ALERT else "" if alert is None else alert.name,
            once=len(attempts) == 1,
            patience=bisect(_PATIENCE, attempts[-1].start - attempts[0].start),
            gave_up=gave_up,
        )
        if situation not in self._examples:
            self._examples[situation] = _Example(device, tuple(attempts))
        return situation

    def _decide(self, certificate: str, held: Held) -> None:
        for failure, situation in self._waiting.pop(certificate, ()):
            self._decided[failure, situation, held] += 1

    # --- all of them ---

    def _count_client_ids(self, devices: Callable[[], Iterable[DeviceRecord]]) -> None:
        """How many devices have the client id of an example whose connection was lost: the only ones that it matters
        to, and seldom any, so that all client ids need not be remembered."""
        lost = [example.device for example in self._examples.values() if sight(example.attempts[-1]) is Sight.LOST]
        wanted = {self._called(each) for each in lost}
        if wanted:
            self._client_ids = Counter(each for each in map(self._called, devices()) if each in wanted)

    def _called(self, device: DeviceRecord) -> tuple[str, str]:
        """A device's client id, which is taken in the account dialled only (aws-iot-behaviour.md §5)."""
        return self._groups[device.group].account, device.client_id

    def _diagnose(
        self, situation: _Situation, held: Held | None, asked: Collection[str], now: float, errors: Sequence[str]
    ) -> tuple[_Found, str] | None:
        example, group = self._examples[situation], self._groups[situation.group]
        holdings = [
            Holding(account=account, certificate_id=example.device.certificate_id, status=status, mode=mode)
            for account, status, mode in held or ()
        ]
        accepted = self._accepted[group.name]
        diagnosis = diagnose(
            device_evidence(
                example.device,
                group,
                self._accounts,
                example.attempts,
                holdings,
                () if held is None else asked,
                now=now,
                gave_up=situation.gave_up,
                fleet=FleetEvidence(
                    same_client_id=max(0, self._client_ids[self._called(example.device)] - 1),
                    first_tries_per_second=self._rates.first(group.account),
                    tries_per_second=self._rates.all(group.account),
                    peers=group.count - 1,
                    peers_accepted=accepted,
                    errors=tuple(errors),
                ),
            )
        )
        # one that tries again has taken no drop for final
        findings = [each for each in diagnosis.findings if situation.gave_up or each.cause is not FIRST_DROP]
        scores = [finding.score for finding in findings[:2]]
        if not scores or scores == [HINT, HINT]:  # of hints alike none stands out
            return None
        first = findings[0]
        strongest = max(first.supporting, key=lambda argument: argument.weight)
        return _Found(first.cause.number, first.cause.id, first.cause.title), strongest.text

    def _left_behind(self, failure: Failure) -> Iterator[tuple[_Found, str, int]]:
        """Failures that a later try left behind, with group and number of devices: just-in-time provisioning as it
        should be, or slowed down by quotas, or whatever passed by itself. None of that is a fault."""
        passed = self._passed[failure]
        tries: dict[str, list[int]] = defaultdict(list)
        parts = sorted({each.just_in_time for each in passed if each.just_in_time and not self._slowed(each)})
        for each, (_, least, most) in passed.items():
            tries[self._way(each)] += [least, most]
        texts = {
            "jit": f"part of {' and '.join(parts)}: the first connection is dropped, accepted {{}}",
            "passed": "passed by itself: accepted {}",
        }
        for each, (devices, _, _) in passed.items():
            way = self._way(each)
            account = self._groups[each.group].account
            slowed = (
                f"slowed by quotas, {self._rates.first(account) or 0:.0f} first connections came to {account} within"
            )
            text = texts.get(way, f"{slowed} a second: accepted {{}}")
            yield _Found(None, way.partition(" ")[0], text.format(_on(tries[way]))), each.group, devices

    def _way(self, passed: _Passed) -> str:
        """How a failure came to be left behind: those of one way are one, for each account that slowed its devices."""
        if self._slowed(passed):
            return f"slowed {self._groups[passed.group].account}"
        return "jit" if passed.just_in_time else "passed"

    def _slowed(self, passed: _Passed) -> bool:
        rate = self._rates.first(self._groups[passed.group].account) or 0.0
        return bool(passed.just_in_time) and passed.slow and rate > REGISTER_THING_PER_SECOND


def _just_in_time(expectation: Expectation) -> str:
    """JITP or JITR where IoT Core should drop a device's first connections and let it in later."""
    if expectation.outcome is not DeviceOutcome.PROVISIONED:
        return ""
    rows = {row.id for row in expectation.rests_on}
    return "JITP" if JITP.id in rows else "JITR" if JITR.id in rows else ""


def _on(tries: Sequence[int]) -> str:
    least, most = min(tries), max(tries)
    return f"on try {least}" if least == most else f"on try {least} to {most}"


_ORDER = {cause.id: cause.number for cause in CATALOGUE}


def _likeliest(causes: Mapping[_Found, Counter[_Why]]) -> Iterator[LikeliestCause]:
    order = sorted(causes, key=lambda each: (-causes[each].total(), _ORDER.get(each.id, 0), each.text))
    for found in order[:MOST_CAUSES]:
        counts = causes[found]
        reasons = sorted(counts, key=lambda each: (-counts[each], each.group, each.evidence))
        yield LikeliestCause(
            number=found.number,
            id=found.id,
            text=found.text,
            evidence=reasons[0].evidence,
            groups=tuple(dict.fromkeys(each.group for each in reasons))[:MOST_GROUPS],
            devices=counts.total(),
        )
