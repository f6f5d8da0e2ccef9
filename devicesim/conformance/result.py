"""How the cases came out. Pure data, and the judgement of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from devicesim.conformance.cases import SNI, SNI_WORDS, Act, Case, Link, Place, Role
from devicesim.outcome import Attempt, DeviceOutcome, FailureKind, Holding, Stage
from devicesim.record.verdict import DeviceFacts, describe, describe_failure, judge, outcome_of
from devicesim.rules import MQTT5_CLOSE, Expectation, FirstTry, Row

NOT_AUTHORIZED = 0x87
"""What CONNACK says to an MQTT 5 device that no policy lets in (aws-iot-behaviour.md §5, S)."""
_LOOKS: Mapping[FirstTry, str] = {
    "accepted": "to be accepted",
    "closed_before_connack": "a close before CONNACK",
    "connack_refused": f"CONNACK {NOT_AUTHORIZED:#04x}",
}


class Status(StrEnum):
    AGREES = "agrees"
    DISAGREES = "disagrees"
    """The target does something else, where what it should do is documented or was measured; or something that no row
    explains (no connection at all, a first connection that was not dropped)."""
    ORACLE_WRONG = "oracle_wrong"
    """A real account does something else than an inferred row says: the oracle is wrong here, not the device."""
    SKIPPED = "skipped"
    """The accounts do not allow it."""
    FAILED = "failed"
    """It could not be set up, or the accounts could not be asked: nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one case saw, and what the accounts hold of its certificate."""

    certificate_id: str
    thing: str
    """Name of the thing that JITP is to attach."""
    abroad: frozenset[str]
    """Accounts in other Regions than the one dialled."""
    attempts: tuple[Attempt, ...]
    before: tuple[Holding, ...]
    after: tuple[Holding, ...]
    events: int | None = None
    """How often accounts told of the certificate's registration; ``None``: nobody listened, or how often they should is
    not known."""
    events_due: int = 0
    """How often they should have: at least so often, but 0 is never."""
    disconnected_after: float | None = None
    """Of a live connection: seconds from the certificate's deactivation to its end; ``None``: it went on, or had ended
    before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Where the certificate ended up: one account's record."""

    account: str
    status: str
    mode: str | None
    things: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """One case. Texts are for people; ``row`` is the oracle's."""

    name: str
    account: str
    """Dialled, by its name."""
    sni: str
    """What was sent as server name, in words."""
    server_name: str | None
    row: Row
    rests_on: tuple[Row, ...]
    expected: str
    observed: str | None
    """``None``: it did not run."""
    ended: tuple[Ended, ...]
    status: Status
    reason: str = ""
    """Why it does not agree, was skipped or failed."""
    tries: tuple[str, ...] = ()
    """What each try saw: ``closed before CONNACK``, ``accepted``."""
    seconds: float | None = None
    """From the first try's start to the last one's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """A whole check."""

    target: str
    """``emulator``, ``aws``, or the URL of a control plane."""
    version: str
    """devicesim's."""
    started_at: float
    """Seconds since the Unix epoch."""
    seconds: float
    cases: tuple[CaseResult, ...]
    notes: tuple[str, ...] = ()
    """What could not be removed, and other lines of what happened beside the cases."""

    def count(self, status: Status) -> int:
        return sum(case.status is status for case in self.cases)

    @property
    def agrees(self) -> bool:
        """Nothing disagrees, nothing failed, and something ran."""
        ran = self.count(Status.AGREES)
        return ran > 0 and ran + self.count(Status.SKIPPED) == len(self.cases)


def sni_words(link: Link, names: Sequence[tuple[Role, str]]) -> str:
    """What a link sends, in words; ``names`` are the accounts' by role."""
    other = dict(names).get(link.other, link.other) if link.other is not None else ""
    return SNI_WORDS[link.sni].format(other=other) + ("" if link.chain else ", leaf only")


def unjudged(case: Case, expected: Expectation, place: Place, sni: str, server_name: str | None) -> CaseResult:
    """A case before it runs, as it stands when it never does."""
    return CaseResult(
        name=case.name,
        account=place.name,
        sni=sni,
        server_name=server_name,
        row=expected.row,
        rests_on=expected.rests_on,
        expected=expected_text(case, expected),
        observed=None,
        ended=(),
        status=Status.SKIPPED,
    )


def expected_text(case: Case, expected: Expectation) -> str:
    if case.act is Act.HANDSHAKE:
        return "nothing is registered"
    if case.act is not Act.CONNECT:
        return "accepted, then disconnected"
    return describe(expected.outcome, expected.account, expected.mode, expected.thing)


def judged(
    result: CaseResult, case: Case, expected: Expectation, seen: Seen, *, addressed: str | None, real: bool
) -> CaseResult:
    """The result of a case that ran. ``addressed`` is the account whose endpoint was sent, ``real`` whether it is
    AWS's: only AWS can prove an inferred row wrong, an emulator cannot."""
    observed, reason, of_the_wire = _compare(case, expected, seen, addressed, real=real)
    status = Status.AGREES
    if reason:
        rows = [row for row in (expected.row, *expected.rests_on) if of_the_wire or row is not MQTT5_CLOSE]
        # when nobody answered, no rule of IoT Core was seen at work, whatever the row says
        wrong_oracle = real and any(row.inferred for row in rows) and any(_answered(case, a) for a in seen.attempts)
        status = Status.ORACLE_WRONG if wrong_oracle else Status.DISAGREES
    return replace(
        result,
        observed=observed,
        ended=tuple(
            Ended(account=each.account, status=each.status, mode=each.mode, things=each.things or ())
            for each in seen.after
        ),
        status=status,
        reason=reason,
        tries=tuple(_try(each) for each in seen.attempts),
        seconds=seen.attempts[-1].end - seen.attempts[0].start if seen.attempts else None,
    )


def _compare(
    case: Case, expected: Expectation, seen: Seen, addressed: str | None, *, real: bool
) -> tuple[str, str, bool]:
    """What was observed, what is wrong with it (empty when nothing is), and whether that is only how it looked."""
    if case.act is not Act.CONNECT:
        observed, wrong = _compare_handshake(seen) if case.act is Act.HANDSHAKE else _compare_live(seen, real=real)
        return observed, wrong or _told_otherwise(seen), False
    facts = DeviceFacts(device=0, certificate_id=seen.certificate_id, addressed=addressed, abroad=seen.abroad)
    verdict = judge(facts, seen.attempts, seen.after, expected, before=seen.before)
    last = seen.attempts[-1].failure if seen.attempts else None
    thing = verdict.thing is not None if verdict.outcome is DeviceOutcome.PROVISIONED else None
    observed = describe(
        verdict.outcome,
        verdict.account,
        verdict.mode,
        thing if expected.thing is not None else None,
        failure=last if verdict.outcome is not expected.outcome else None,
    )
    wrong = (
        verdict.reason
        or _other_thing(expected, seen, verdict.thing)
        or _changed(seen, but=expected.account)
        or _told_otherwise(seen)
    )
    if wrong:
        return observed, wrong, False
    wire = _wire_difference(case, expected, seen, real=real)
    return observed, wire, bool(wire)


def _other_thing(expected: Expectation, seen: Seen, thing: str | None) -> str:
    if not expected.thing or thing == seen.thing:
        return ""
    return f"JITP attached the thing {thing!r}; the template makes {seen.thing!r}"


def _changed(seen: Seen, *, but: str | None) -> str:
    """A record that had nothing to do with the connection, and is not what it was."""
    now = {each.account: each for each in seen.after}
    for each in seen.before:
        then, found = (each.status, each.mode), now.get(each.account)
        if each.account != but and (found is None or (found.status, found.mode) != then):
            became = "is gone" if found is None else f"is {found.status} ({found.mode}) now"
            return f"its record in {each.account} was {each.status} ({each.mode}), and {became}"
    return ""


def _told_otherwise(seen: Seen) -> str:
    if seen.events is None or (seen.events >= seen.events_due and bool(seen.events) is bool(seen.events_due)):
        return ""
    times = f"the registered event was published {seen.events} time{'s' if seen.events != 1 else ''}"
    if not seen.events_due:
        return f"{times}, for a certificate that was not registered by connecting"
    return f"{times}, for {seen.events_due} dropped connections"


def _wire_difference(case: Case, expected: Expectation, seen: Seen, *, real: bool) -> str:
    """A try that looks otherwise than it should: CONNACK with a code in place of a close, or the reverse; or one that
    is refused where it should have been let in at once, unless AWS may still be catching up with the setup."""
    answered = [each for each in seen.attempts if _answered(case, each)]
    for number, each in enumerate(answered, 1):
        if each.failure is None or _looks_as(each, expected.first_try) or (expected.first_try == "accepted" and real):
            continue
        words = describe_failure(each.failure.kind, each.failure.stage)
        if each.connack_code is not None:
            words += f" with code {each.connack_code:#04x}"
        return f"expected {_LOOKS[expected.first_try]} on try {number}; {words}"
    return ""


def _looks_as(attempt: Attempt, first_try: FirstTry) -> bool:
    """Whether a refused try looks as the oracle says of the first."""
    assert attempt.failure is not None
    kind, stage = attempt.failure.kind, attempt.failure.stage
    if first_try == "connack_refused":
        return kind is FailureKind.CONNACK_REFUSED and attempt.connack_code == NOT_AUTHORIZED
    # a server that closes with our bytes unread resets
    reset = kind is FailureKind.CONNECTION_RESET and stage in (Stage.CONNECT, Stage.CONNACK)
    return first_try == "closed_before_connack" and (kind is FailureKind.CLOSED_BEFORE_CONNACK or reset)


def _compare_handshake(seen: Seen) -> tuple[str, str]:
    failure = seen.attempts[-1].failure if seen.attempts else None
    if failure is not None:
        words = describe_failure(failure.kind, failure.stage)
        return words, f"the handshake was to succeed; {words}"
    made = [each for each in seen.after if each.account not in {before.account for before in seen.before}]
    if not made:
        return "nothing is registered", _changed(seen, but=None)
    where = ", ".join(f"{each.account} ({each.status})" for each in made)
    return f"registered in {where}", f"a handshake without CONNECT was registered in {where}"


def _compare_live(seen: Seen, *, real: bool) -> tuple[str, str]:
    last = seen.attempts[-1] if seen.attempts else None
    failure = last.failure if last is not None else None
    words = "not started" if failure is None else describe_failure(failure.kind, failure.stage)
    if last is None or last.connack_code != 0:
        return words, f"expected to be accepted first; {words}"
    if seen.disconnected_after is not None:
        late = "" if real or len(seen.attempts) == 1 else "accepted only after it had been refused"
        return "accepted, then disconnected", late
    if failure is not None:
        return f"accepted; {words}", f"the connection ended before its certificate was deactivated; {words}"
    return "accepted, and stays connected", "its certificate is no longer ACTIVE, and it stays connected"


def _answered(case: Case, attempt: Attempt) -> bool:
    """Whether a try came as far as the target's deciding."""
    if attempt.failure is None or attempt.connack_code is not None:
        return True
    if attempt.failure.kind in (FailureKind.SERVER_NAME_MISMATCH, FailureKind.SERVER_CERTIFICATE_UNTRUSTED):
        # what a front door shows to whom it does not know by name is up to it
        return case.link.sni not in (SNI.OWN, SNI.MIXED_CASE)
    return outcome_of(attempt.failure) is DeviceOutcome.REFUSED


def _try(attempt: Attempt) -> str:
    return "accepted" if attempt.failure is None else describe_failure(attempt.failure.kind, attempt.failure.stage)
