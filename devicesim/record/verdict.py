"""Where a device ended, and whether that is what was expected. Pure: a fold over its attempts and what accounts hold.

:func:`judge` takes evidence of two kinds, the device's own attempts and what the control planes say afterwards, and
never lets the one stand in for the other: CONNACK 0 without an ACTIVE record is a contradiction, and an account that
holds a record which it should not is a disagreement even when the device saw what it should. Where the control plane
could not be asked, the verdict names no account, which is to say that it is not confirmed.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from devicesim.outcome import Attempt, DeviceOutcome, Failure, FailureKind, Holding, Stage, Verdict
from devicesim.rules import Expectation, read_server_name


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What is known of a device besides its attempts."""

    device: int
    certificate_id: str
    addressed: str | None
    """Name of the account whose endpoint it sent as SNI; ``None`` when it sent none, or nobody's."""
    expected_elsewhere: Collection[str] = ()
    """Accounts in which other devices of the run with the same certificate are expected: records there may be their
    doing."""
    abroad: Collection[str] = ()
    """Accounts in other Regions than the one dialled: they answer nobody there (§1.1 [D])."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserExpectation:
    """The fleet file's own ``expect`` of a group, in place of what the oracle says. ``None``: as the oracle says."""

    outcome: DeviceOutcome | None = None
    account: str | None = None
    mode: str | None = None
    thing: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a device is held against: the oracle's expectation, with the user's in its place where there is one."""

    outcome: DeviceOutcome
    account: str | None
    mode: str | None
    """``None``: any."""
    thing: bool | None
    """``None``: with or without."""
    by_user: bool
    """Whether the user's words changed it, so that the oracle's further consequences do not hold."""


def expected(oracle: Expectation, user: UserExpectation | None) -> Expected:
    """The user's words before the oracle's. A word of the oracle's falls when the one that it depends on was changed:
    an account belongs to an outcome, mode and thing belong to an account."""
    outcome, account, mode, thing = oracle.outcome, oracle.account, oracle.mode, oracle.thing
    if user is not None:
        if user.outcome not in (None, outcome):
            outcome, account, mode, thing = user.outcome, None, None, None
        if user.account not in (None, account):
            account, mode, thing = user.account, None, None
        mode = mode if user.mode is None else user.mode
        thing = thing if user.thing is None else user.thing
    changed = (outcome, account, mode, thing) != (oracle.outcome, oracle.account, oracle.mode, oracle.thing)
    return Expected(outcome=outcome, account=account, mode=mode, thing=thing, by_user=changed)


def judge(
    facts: DeviceFacts,
    attempts: Sequence[Attempt],
    holdings: Sequence[Holding] | None,
    oracle: Expectation,
    user: UserExpectation | None = None,
    *,
    before: Sequence[Holding] | None = None,
    things_known: bool = True,
) -> Verdict:
    """Where the device ended and whether that agrees.

    For a device that came to its end, accepted or with its tries used up, or that was never started; one that a run's
    end cut short has no verdict. ``attempts`` are in the order made. ``holdings`` is what the accounts hold after the
    run and ``before`` what they held before it (other certificates' are ignored); ``None``: they could not be asked.
    Things are compared only when ``things_known``, and where they were asked for.
    """
    now = None if holdings is None else [each for each in holdings if each.certificate_id == facts.certificate_id]
    then = None if before is None else {e.account: e for e in before if e.certificate_id == facts.certificate_id}
    accepted = next((attempt for attempt in attempts if attempt.connack_code == 0), None)
    outcome, holding = _ended(facts, attempts, accepted, now, then)
    provisioned_at = accepted.reached.get(Stage.CONNACK) if accepted is not None else None
    wanted = expected(oracle, user)
    seen = _Seen(
        outcome=outcome,
        holding=holding,
        accepted=accepted is not None,
        confirmed=now is not None,
        last=attempts[-1].failure if attempts and accepted is None else None,
    )
    reason = (
        _difference(seen, wanted, things_known=things_known)
        or _stray_record(facts, oracle, wanted, holding, now, then)
        or _too_early(facts, attempts, oracle, wanted, then)
    )
    return Verdict(
        device=facts.device,
        outcome=outcome,
        account=holding.account if holding else None,
        mode=holding.mode if holding else None,
        thing=holding.things[0] if holding and holding.things else None,
        expected_outcome=wanted.outcome,
        expected_account=wanted.account,
        agrees=not reason,
        reason=reason,
        attempts=len(attempts),
        time_to_provision=(
            accepted.start + provisioned_at - attempts[0].intended_start
            if accepted is not None and provisioned_at is not None and outcome is DeviceOutcome.PROVISIONED
            else None
        ),
    )


# --- where it ended ---


def _ended(
    facts: DeviceFacts,
    attempts: Sequence[Attempt],
    accepted: Attempt | None,
    now: Sequence[Holding] | None,
    then: dict[str, Holding] | None,
) -> tuple[DeviceOutcome, Holding | None]:
    if not attempts:
        return DeviceOutcome.NOT_STARTED, None
    if accepted is not None:
        if now is None:
            return DeviceOutcome.PROVISIONED, None
        active = [each for each in now if each.status == "ACTIVE"]
        # With several, the one that the device addressed; without SNI, the one that needs none (§10d [D]).
        best = min(
            active,
            key=lambda e: (e.account != facts.addressed, e.account in facts.abroad, e.mode != "DEFAULT", e.account),
            default=None,
        )
        return (DeviceOutcome.PROVISIONED, best) if best else (DeviceOutcome.FAILED, None)
    outcome = outcome_of(attempts[-1].failure)
    if outcome is not DeviceOutcome.REFUSED or now is None:
        return outcome, None
    # A record that was pending before in an account that the device does not address is not where it ended.
    # Without SNI the device addresses the account that has it in DEFAULT mode, of which a Region has one (§10d).
    default = [each.account for each in now if each.mode == "DEFAULT" and each.account not in facts.abroad]
    without_sni = len(default) == 1 and read_server_name(attempts[-1].sni)[0] is None
    addressed = default[0] if without_sni else facts.addressed
    pending = [
        each
        for each in now
        if each.status == "PENDING_ACTIVATION" and (each.account == addressed or _is_new(each, facts, then))
    ]
    best = min(pending, key=lambda e: (e.account != addressed, e.account), default=None)
    return (DeviceOutcome.PENDING, best) if best else (outcome, None)


def _is_new(holding: Holding, facts: DeviceFacts, then: dict[str, Holding] | None) -> bool:
    """Whether the record came into being during the run, and not through another device with the same certificate."""
    if holding.account in facts.expected_elsewhere:
        return False
    return then is None or holding.account not in then


_UNREACHABLE = frozenset(
    {
        FailureKind.NAME_NOT_RESOLVED,
        FailureKind.TCP_REFUSED,
        FailureKind.TCP_UNREACHABLE,
        FailureKind.SERVER_CERTIFICATE_UNTRUSTED,
        FailureKind.SERVER_CERTIFICATE_EXPIRED,
        FailureKind.SERVER_NAME_MISMATCH,
    }
)
_REFUSED = frozenset(
    {
        FailureKind.TLS_ALERT,
        FailureKind.CLOSED_IN_HANDSHAKE,
        FailureKind.CLOSED_BEFORE_CONNACK,
        FailureKind.CONNACK_REFUSED,
        FailureKind.CONNECTION_RESET,
    }
)
"""A reset after TCP is the target's doing as much as a close: a server that closes with our bytes unread resets."""


def outcome_of(failure: Failure | None) -> DeviceOutcome:
    """Where a device ended that was never accepted, by the last thing that it saw."""
    if failure is None:
        return DeviceOutcome.FAILED
    if failure.kind in _UNREACHABLE:
        return DeviceOutcome.UNREACHABLE
    if failure.stage is Stage.TCP and failure.kind in (FailureKind.TIMEOUT, FailureKind.CONNECTION_RESET):
        return DeviceOutcome.UNREACHABLE
    return DeviceOutcome.REFUSED if failure.kind in _REFUSED else DeviceOutcome.FAILED


# --- whether that agrees ---


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    outcome: DeviceOutcome
    holding: Holding | None
    accepted: bool
    """CONNACK 0 was received."""
    confirmed: bool
    """The control plane was asked."""
    last: Failure | None
    """What the last try saw, when none was accepted."""


def _difference(seen: _Seen, wanted: Expected, *, things_known: bool) -> str:
    """The first difference between what was seen and what was wanted, in one line; empty when there is none."""
    hope = describe(wanted.outcome, wanted.account, wanted.mode, wanted.thing)
    if seen.outcome is not wanted.outcome:
        indistinct = {seen.outcome, wanted.outcome} == {DeviceOutcome.REFUSED, DeviceOutcome.PENDING}
        if indistinct and not seen.confirmed:
            return ""  # a pending device is refused too, and only the control plane can tell
        end = describe(seen.outcome, seen.holding.account if seen.holding else None, failure=seen.last)
        if seen.accepted and seen.outcome is DeviceOutcome.FAILED:
            end = "accepted with CONNACK 0, but no account holds its certificate ACTIVE"
        return f"expected {hope}; {end}"
    if not seen.confirmed or seen.holding is None:
        return ""
    place = f"{seen.outcome} in {seen.holding.account}"
    if wanted.account is not None and seen.holding.account != wanted.account:
        return f"expected {hope}; {place}"
    if wanted.mode is not None and seen.holding.mode not in (None, wanted.mode):
        return f"{place}, but in {seen.holding.mode} mode; expected {wanted.mode}"
    known = things_known and seen.holding.things is not None
    if wanted.thing is not None and known and bool(seen.holding.things) is not wanted.thing:
        return f"{place}, but {'without a thing' if wanted.thing else 'with a thing; expected none'}"
    return ""


def _stray_record(
    facts: DeviceFacts,
    oracle: Expectation,
    wanted: Expected,
    holding: Holding | None,
    now: Sequence[Holding] | None,
    then: dict[str, Holding] | None,
) -> str:
    """A record that came into being where none should have; empty when there is none, or nobody can tell."""
    if now is None or then is None:
        return ""
    due = {wanted.account, oracle.registered_in, holding.account if holding else None}
    strays = [each for each in now if _is_new(each, facts, then) and each.account not in due]
    if not strays:
        return ""
    where = ", ".join(f"{each.account} ({each.status})" for each in strays)
    return f"its certificate was also registered in {where}, where nothing should have been"


def _too_early(
    facts: DeviceFacts,
    attempts: Sequence[Attempt],
    oracle: Expectation,
    wanted: Expected,
    then: dict[str, Holding] | None,
) -> str:
    """Accepted at once where IoT Core always drops the first connection: the target is kinder than AWS."""
    dropped_first = oracle.first_try != "accepted" and wanted.outcome is DeviceOutcome.PROVISIONED
    unsure = then is None or wanted.by_user or oracle.account in facts.expected_elsewhere
    if unsure or not dropped_first or not attempts or attempts[0].connack_code != 0:
        return ""
    return f"accepted on the first try, which IoT Core drops ({oracle.row.id})"


# --- in words ---

_KIND = {
    FailureKind.NAME_NOT_RESOLVED: "name not resolved",
    FailureKind.TCP_REFUSED: "TCP connection refused",
    FailureKind.TCP_UNREACHABLE: "TCP unreachable",
    FailureKind.CONNECTION_RESET: "connection reset",
    FailureKind.LOCAL_RESOURCES: "this machine's resources ran out",
    FailureKind.TIMEOUT: "timeout",
    FailureKind.TLS_ALERT: "TLS alert",
    FailureKind.TLS_PROTOCOL_ERROR: "TLS protocol error",
    FailureKind.SERVER_CERTIFICATE_UNTRUSTED: "server certificate untrusted",
    FailureKind.SERVER_CERTIFICATE_EXPIRED: "server certificate expired",
    FailureKind.SERVER_NAME_MISMATCH: "server name mismatch",
    FailureKind.CLOSED_IN_HANDSHAKE: "closed in the handshake",
    FailureKind.CLOSED_BEFORE_CONNACK: "closed before CONNACK",
    FailureKind.CONNACK_REFUSED: "CONNACK refused",
    FailureKind.MQTT_PROTOCOL_ERROR: "MQTT protocol error",
    FailureKind.DISCONNECTED_BY_SERVER: "DISCONNECT by the server",
    FailureKind.CLOSED_AFTER_CONNACK: "closed after CONNACK",
    FailureKind.REQUEST_REFUSED: "request refused",
}
_SAYS_ITS_STAGE = frozenset(FailureKind) - {
    FailureKind.TIMEOUT,
    FailureKind.CONNECTION_RESET,
    FailureKind.LOCAL_RESOURCES,
}
_STAGE = {
    Stage.TCP: "in TCP connect",
    Stage.TLS: "in the TLS handshake",
    Stage.CONNECT: "sending CONNECT",
    Stage.CONNACK: "waiting for CONNACK",
    Stage.SESSION: "in the session",
}


def describe_failure(kind: FailureKind, stage: Stage) -> str:
    """What was seen, for people: ``timeout in the TLS handshake``."""
    return _KIND[kind] if kind in _SAYS_ITS_STAGE else f"{_KIND[kind]} {_STAGE[stage]}"


def describe(
    outcome: DeviceOutcome,
    account: str | None = None,
    mode: str | None = None,
    thing: bool | None = None,
    failure: Failure | None = None,
) -> str:
    """Where a device ended or should end, for people: ``provisioned in prod (SNI_ONLY, thing)``."""
    words = outcome.value.replace("_", " ")
    if account is not None:
        details = [each for each in (mode, {True: "thing", False: "no thing", None: None}[thing]) if each]
        return f"{words} in {account}" + (f" ({', '.join(details)})" if details else "")
    return f"{words}: {describe_failure(failure.kind, failure.stage)}" if failure is not None else words
