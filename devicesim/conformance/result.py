"""How the cases came out. Pure data, and the judgement of each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from devicesim.conformance.cases import SNI_WORDS, Act, Case, Link, Place, Role
from devicesim.outcome import Attempt, DeviceOutcome, FailureKind, Holding
from devicesim.record.verdict import DeviceFacts, describe, describe_failure, judge
from devicesim.rules import Expectation, Row


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
    attempts: tuple[Attempt, ...]
    before: tuple[Holding, ...]
    after: tuple[Holding, ...]
    disconnected_after: float | None = None
    """Of a live connection: seconds from the certificate's deactivation to its end; ``None``: it went on."""


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
    if case.act is Act.LIVE:
        return "accepted, then disconnected"
    return describe(expected.outcome, expected.account, expected.mode, expected.thing)


def judged(
    result: CaseResult, case: Case, expected: Expectation, seen: Seen, *, addressed: str | None, real: bool
) -> CaseResult:
    """The result of a case that ran. ``addressed`` is the account whose endpoint was sent, ``real`` whether it is
    AWS's: only AWS can prove an inferred row wrong, an emulator cannot."""
    observed, reason = _compare(case, expected, seen, addressed)
    status = Status.AGREES
    if reason:
        status = Status.ORACLE_WRONG if real and _rests_on_inference(expected) else Status.DISAGREES
        if _no_answer(seen):
            status = Status.DISAGREES  # whatever the row says, no rule of IoT Core was seen at work
    return replace(
        result,
        observed=observed,
        ended=tuple(
            Ended(account=each.account, status=each.status, mode=each.mode, things=each.things) for each in seen.after
        ),
        status=status,
        reason=reason,
        tries=tuple(_try(each) for each in seen.attempts),
        seconds=seen.attempts[-1].end - seen.attempts[0].start if seen.attempts else None,
    )


def _compare(case: Case, expected: Expectation, seen: Seen, addressed: str | None) -> tuple[str, str]:
    """What was observed, and what is wrong with it; the latter empty when nothing is."""
    if case.act is Act.HANDSHAKE:
        return _compare_handshake(seen)
    if case.act is Act.LIVE:
        return _compare_live(seen)
    facts = DeviceFacts(device=0, certificate_id=seen.certificate_id, addressed=addressed)
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
    wire = _wire_difference(expected, seen) if verdict.agrees else ""
    return observed, verdict.reason or wire


def _wire_difference(expected: Expectation, seen: Seen) -> str:
    """A refusal that looks otherwise than it should: CONNACK with a code in place of a close, or the reverse."""
    first = seen.attempts[0].failure if seen.attempts else None
    if first is None or expected.first_try == "accepted" or first.kind.value == expected.first_try:
        return ""
    if first.kind is FailureKind.CONNECTION_RESET and expected.first_try == "closed_before_connack":
        return ""  # a close with our bytes unread
    wanted = expected.first_try.replace("_", " ")
    return f"expected {wanted} on the first try; {describe_failure(first.kind, first.stage)}"


def _compare_handshake(seen: Seen) -> tuple[str, str]:
    failure = seen.attempts[-1].failure if seen.attempts else None
    if failure is not None:
        words = describe_failure(failure.kind, failure.stage)
        return words, f"the handshake was to succeed; {words}"
    made = [each for each in seen.after if each.account not in {before.account for before in seen.before}]
    if not made:
        return "nothing is registered", ""
    where = ", ".join(f"{each.account} ({each.status})" for each in made)
    return f"registered in {where}", f"a handshake without CONNECT was registered in {where}"


def _compare_live(seen: Seen) -> tuple[str, str]:
    failure = seen.attempts[-1].failure if seen.attempts else None
    if not seen.attempts or seen.attempts[-1].connack_code != 0:
        words = "not started" if failure is None else describe_failure(failure.kind, failure.stage)
        return words, f"expected to be accepted first; {words}"
    if seen.disconnected_after is None:
        return "accepted, and stays connected", "its certificate is no longer ACTIVE, and it stays connected"
    return "accepted, then disconnected", ""


def _rests_on_inference(expected: Expectation) -> bool:
    return any(row.inferred for row in (expected.row, *expected.rests_on))


def _no_answer(seen: Seen) -> bool:
    """No try came as far as TLS: the target, or the way to it, is what failed."""
    return bool(seen.attempts) and not any(attempt.tls_version for attempt in seen.attempts)


def _try(attempt: Attempt) -> str:
    return "accepted" if attempt.failure is None else describe_failure(attempt.failure.kind, attempt.failure.stage)
