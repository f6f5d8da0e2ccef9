"""Made-up attempts, holdings and results of conformance cases."""

from dataclasses import replace

from devicesim.conformance.cases import Case, expectation, server_name
from devicesim.conformance.matrix import PLAIN, STAND_INS, TRANSPORTS, matrix, select
from devicesim.conformance.result import CaseResult, CheckResult, Seen, Status, judged, sni_words, unjudged
from devicesim.outcome import Attempt, Failure, FailureKind, Holding, Stage

LEAF = "ab" * 32


def case(name: str, *, transport: str = PLAIN.name) -> Case:
    """The case whose name begins so, over a transport, be there one or not."""
    (found,) = select(matrix(), [f"{name}/{PLAIN.name}"])
    return replace(found, transport=next(each for each in TRANSPORTS if each.name == transport))


def tried(
    kind: FailureKind | None = FailureKind.CLOSED_BEFORE_CONNACK, *, code: int | None = None, stage: Stage | None = None
) -> Attempt:
    """One try: accepted (``None``), or failed so; at the stage given, or where such a failure is seen."""
    stage = stage or {
        FailureKind.TCP_REFUSED: Stage.TCP,
        FailureKind.TIMEOUT: Stage.TCP,
        FailureKind.TLS_ALERT: Stage.TLS,
        FailureKind.SERVER_NAME_MISMATCH: Stage.TLS,
        FailureKind.DISCONNECTED_BY_SERVER: Stage.SESSION,
        FailureKind.CLOSED_AFTER_CONNACK: Stage.SESSION,
    }.get(kind or FailureKind.TIMEOUT, Stage.CONNACK)
    if kind is None:
        code = 0
    return Attempt(
        device=0,
        number=1,
        account=None,
        sni=None,
        intended_start=100.0,
        start=100.0,
        end=100.5,
        reached={each: 0.1 for each in (Stage.TCP, Stage.TLS) if list(Stage).index(each) < list(Stage).index(stage)},
        failure=None if kind is None else Failure(kind=kind, stage=stage),
        tls_version=None if stage in (Stage.TCP, Stage.TLS) else "TLSv1.3",
        cipher=None,
        alert=None,
        connack_code=code,
    )


def held(account: str, status: str = "ACTIVE", mode: str = "DEFAULT", *things: str) -> Holding:
    return Holding(account=account, certificate_id=LEAF, status=status, mode=mode, things=things)


def seen(
    *attempts: Attempt,
    before: tuple[Holding, ...] = (),
    after: tuple[Holding, ...] = (),
    events: int | None = None,
    events_due: int = 0,
    disconnected_after: float | None = None,
) -> Seen:
    return Seen(
        certificate_id=LEAF,
        thing="thing",
        abroad=frozenset({"o"}),
        attempts=attempts,
        before=before,
        after=after,
        events=events,
        events_due=events_due,
        disconnected_after=disconnected_after,
    )


def result(of: Case, saw: Seen, *, real: bool = False) -> CaseResult:
    """What became of a case, played by accounts that are named as their roles."""
    expected = expectation(of, STAND_INS)
    sent = server_name(of.link, STAND_INS)
    addressed = next((p.name for p in STAND_INS.values() if sent is not None and p.endpoint == sent.lower()), None)
    blank = unjudged(of, expected, STAND_INS[of.link.dials], sni_words(of.link, [("b", "b")]), sent)
    return judged(blank, of, expected, saw, addressed=addressed, real=real)


AGREEING = result(
    case("C3-jitp/new/a-other-b"), seen(tried(), tried(None), after=(held("b", "ACTIVE", "SNI_ONLY", "thing"),))
)
DISAGREEING = result(case("C1-jitp/new/a-own"), seen(tried(), after=()))
ORACLE_WRONG = result(case("C1-jitp/new/a-none"), seen(tried()), real=True)
SKIPPED = replace(
    result(case("C0/new/x-own"), seen(tried())),
    status=Status.SKIPPED,
    observed=None,
    tries=(),
    seconds=None,
    reason="needs a third account in us-east-1",
)
FAILED = replace(SKIPPED, name="C0/new/x-own/other", status=Status.FAILED, reason="setup failed: \x1b[31mno\x00")


def check(*cases: CaseResult, notes: tuple[str, ...] = ()) -> CheckResult:
    return CheckResult(
        target="emulator", version="0.1.0", started_at=1_780_000_000.0, seconds=12.5, cases=cases, notes=notes
    )
