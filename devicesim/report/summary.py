"""The summary: a fold over the record of a run.

:func:`summarise` needs the record alone, also of a run that goes on, was interrupted or was killed: devices without an
attempt are counted as not started, devices without a verdict as undecided. The same record gives the same document, to
the byte.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Literal

from devicesim.outcome import Attempt, DeviceOutcome, Failure, FailureKind, Holding, Stage, Verdict
from devicesim.record.facts import AccountRecord, DeviceRecord, GroupRecord, Phase, RunFacts
from devicesim.record.histogram import Histogram
from devicesim.record.store import RunReader
from devicesim.record.verdict import UserExpectation, describe, describe_failure
from devicesim.report.causes import CauseFold
from devicesim.report.document import (
    AccountSummary,
    Disagreement,
    Example,
    Expected,
    FailureSummary,
    FileExpects,
    GroupSummary,
    Held,
    LastFailure,
    LikeliestCause,
    Observed,
    OracleRow,
    Quantiles,
    Stages,
    Summary,
    Totals,
)
from devicesim.rules import Expectation, Row

LATE_SECONDS = 1.0
"""A start so far behind its schedule was not made when it was asked for; one in a hundred is forgiven a group."""
EXAMPLES = 3
"""Devices named for each reason of disagreement: enough to look at, whatever the size of the fleet."""
MOST_REASONS = 20
MOST_FAILURES = 50
"""Kinds of failure listed; peers' words may differ from try to try, and the rest is counted."""
MOST_ERRORS = 20


def summarise(reader: RunReader) -> Summary:
    """Fold the record. Raises :class:`~devicesim.errors.RecordError` when it is damaged."""
    with reader.snapshot():
        run = reader.run()
        groups = {group.name: _GroupFold(group) for group in reader.groups()}
        causes = CauseFold((fold.group for fold in groups.values()), reader.accounts())
        failures, last = _FailureFold(), run.started_at
        for device, attempts, verdict in _stories(reader):
            groups[device.group].add(device, attempts, verdict)
            failures.add(attempts)
            causes.add(device, attempts, verdict)
            last = max([last, *(attempt.end for attempt in attempts)])
        notes: Counter[str] = Counter()
        errors: list[str] = []
        for note in reader.notes():
            notes[note.kind] += 1
            if note.kind == "error" and len(errors) < MOST_ERRORS:
                errors.append(note.text if note.account is None else f"{note.account}: {note.text}")
        accounts = _accounts(reader, causes)
        listed, omitted = failures.close()
        found = causes.close(
            listed,
            asked=reader.asked(Phase.AFTER),
            now=last if run.ended_at is None else run.ended_at,
            errors=errors,
            devices=reader.devices,
        )
    told = tuple(failures.summary(failure, found.get(failure, ())) for failure in listed)
    return _summary(run, last, [fold.close() for fold in groups.values()], accounts, told, omitted, notes, errors)


def _stories(reader: RunReader) -> Iterator[tuple[DeviceRecord, list[Attempt], Verdict | None]]:
    """Each device with its attempts and verdict, in one pass over the three tables, which are in the same order."""
    tries = groupby(reader.attempts(), key=attrgetter("device"))
    verdicts = reader.verdicts()
    next_tries, verdict = next(tries, None), next(verdicts, None)
    for device in reader.devices():
        attempts: list[Attempt] = []
        if next_tries is not None and next_tries[0] == device.number:
            attempts = list(next_tries[1])
            next_tries = next(tries, None)
        own = verdict if verdict is not None and verdict.device == device.number else None
        if own is not None:
            verdict = next(verdicts, None)
        yield device, attempts, own


def _summary(
    run: RunFacts,
    last: float,
    groups: Sequence[GroupSummary],
    accounts: Iterable[AccountSummary],
    failures: tuple[FailureSummary, ...],
    failures_omitted: int,
    notes: Counter[str],
    errors: Iterable[str],
) -> Summary:
    outcomes: Counter[str] = Counter()
    for group in groups:
        for observed in group.observed:
            outcomes[observed.outcome] += observed.devices
    end = run.ended_at if run.ended_at is not None else last if last > run.started_at else None
    return Summary(
        fleet=run.fleet,
        target=run.target,
        devicesim_version=run.version,
        status=run.status,
        arrival=run.arrival,
        rate=run.rate,
        started_at=run.started_at,
        ended_at=run.ended_at,
        duration_seconds=None if end is None else _rounded(end - run.started_at),
        agrees=bool(groups) and all(group.agrees for group in groups),
        load_generated=all(group.late_starts is None or group.late_starts.p99 <= LATE_SECONDS for group in groups),
        totals=Totals(
            devices=sum(group.devices for group in groups),
            agree=sum(group.agree for group in groups),
            disagree=sum(group.disagree for group in groups),
            not_started=sum(group.not_started for group in groups),
            undecided=sum(group.undecided for group in groups),
            attempts=sum(group.attempts for group in groups),
            outcomes=dict(sorted(outcomes.items())),
        ),
        groups=tuple(groups),
        accounts=tuple(accounts),
        failures=failures,
        failures_omitted=failures_omitted,
        notes=dict(sorted(notes.items())),
        errors=tuple(errors),
    )


# --- a group ---


class _GroupFold:
    """``add`` each device, then ``close``."""

    def __init__(self, group: GroupRecord) -> None:
        self.group = group
        self.expected: Counter[Expectation] = Counter()
        self.observed: Counter[_End] = Counter()
        self.reasons: dict[str, tuple[int, list[Example]]] = {}
        self.first_try: Counter[str] = Counter()
        self.agree = self.disagree = self.not_started = self.undecided = 0
        self.attempts = self.attempts_max = 0
        self.time_to_provision, self.late = Histogram(), Histogram()
        self.stages = {stage: Histogram() for stage in _STAGE_BEFORE}

    def add(self, device: DeviceRecord, attempts: Sequence[Attempt], verdict: Verdict | None) -> None:
        self.expected[device.expectation or self.group.expectation] += 1
        end = _end(attempts, verdict)
        self.observed[end] += 1
        if end.outcome is DeviceOutcome.NOT_STARTED:
            self.not_started += 1
        elif verdict is None:
            self.undecided += 1
        elif verdict.agrees:
            self.agree += 1
        else:
            self.disagree += 1
            self._disagreement(device, verdict)
        if verdict is not None and verdict.time_to_provision is not None:
            self.time_to_provision.add(max(0.0, verdict.time_to_provision))
        self._tries(attempts)

    def _disagreement(self, device: DeviceRecord, verdict: Verdict) -> None:
        count, examples = self.reasons.get(verdict.reason, (0, []))
        if len(examples) < EXAMPLES:
            example = Example(
                device=device.number,
                client_id=device.client_id,
                certificate_id=device.certificate_id,
                attempts=verdict.attempts,
            )
            examples = [*examples, example]
        self.reasons[verdict.reason] = (count + 1, examples)

    def _tries(self, attempts: Sequence[Attempt]) -> None:
        self.attempts += len(attempts)
        self.attempts_max = max(self.attempts_max, len(attempts))
        for attempt in attempts:
            for stage, before in _STAGE_BEFORE.items():
                reached, since = attempt.reached.get(stage), 0.0 if before is None else attempt.reached.get(before)
                if reached is not None and since is not None:
                    self.stages[stage].add(max(0.0, reached - since))
        if attempts:
            first = attempts[0]
            self.late.add(max(0.0, first.start - first.intended_start))
            saw = "accepted" if first.connack_code == 0 else first.failure.kind.value if first.failure else "nothing"
            self.first_try[saw] += 1

    def close(self) -> GroupSummary:
        group = self.group
        missing = group.count - self.expected.total()
        if missing > 0:  # the run ended before it had got so far as to name them
            self.expected[group.expectation] += missing
            self.observed[_NEVER_STARTED] += missing
            self.not_started += missing
        devices = self.expected.total()
        reasons = sorted(self.reasons.items(), key=lambda item: (-item[1][0], item[0]))
        return GroupSummary(
            name=group.name,
            devices=devices,
            dials=group.account,
            sni_setting=group.sni_setting,
            sni=group.sni,
            chain_sent=group.chain_sent,
            expected=tuple(
                _expected(expectation, count)
                for expectation, count in sorted(self.expected.items(), key=lambda item: (-item[1], item[0].row.id))
            ),
            file_expects=None if group.user is None else _file_expects(group.user),
            observed=tuple(
                end.observed(count) for end, count in sorted(self.observed.items(), key=lambda e: (-e[1], e[0].text))
            ),
            agrees=devices > 0 and self.agree == devices,
            agree=self.agree,
            disagree=self.disagree,
            not_started=self.not_started,
            undecided=self.undecided,
            disagreements=tuple(
                Disagreement(reason=reason, devices=count, examples=tuple(examples))
                for reason, (count, examples) in reasons[:MOST_REASONS]
            ),
            first_try=dict(sorted(self.first_try.items())),
            attempts=self.attempts,
            attempts_max=self.attempts_max,
            time_to_provision=_quantiles(self.time_to_provision),
            stages=Stages(**{stage.value: _quantiles(histogram) for stage, histogram in self.stages.items()}),
            late_starts=_quantiles(self.late),
        )


_STAGE_BEFORE = {Stage.TCP: None, Stage.TLS: Stage.TCP, Stage.CONNECT: Stage.TLS, Stage.CONNACK: Stage.CONNECT}


@dataclass(frozen=True, slots=True)
class _End:
    """Where a device ended; equal ones are counted together."""

    outcome: DeviceOutcome | Literal["undecided"]
    text: str
    account: str | None = None
    mode: str | None = None
    thing: bool = False
    failure: tuple[FailureKind, Stage] | None = None

    def observed(self, devices: int) -> Observed:
        return Observed(
            devices=devices,
            text=self.text,
            outcome=self.outcome,
            account=self.account,
            mode=self.mode,
            thing=self.thing,
            failure=None if self.failure is None else LastFailure(kind=self.failure[0], stage=self.failure[1]),
        )


_NEVER_STARTED = _End(DeviceOutcome.NOT_STARTED, describe(DeviceOutcome.NOT_STARTED))


def _end(attempts: Sequence[Attempt], verdict: Verdict | None) -> _End:
    if not attempts and (verdict is None or verdict.outcome is DeviceOutcome.NOT_STARTED):
        return _NEVER_STARTED
    accepted = any(attempt.connack_code == 0 for attempt in attempts)
    failure = None if accepted or not attempts else attempts[-1].failure
    if verdict is None:
        so_far = "accepted" if accepted else _seen(failure) if failure else "trying"
        return _End("undecided", f"no verdict yet: {so_far}", failure=_key(failure))
    text = describe(verdict.outcome, verdict.account, verdict.mode, True if verdict.thing else None, failure)
    if verdict.outcome is DeviceOutcome.PROVISIONED and verdict.account is None:
        text = "provisioned (account not confirmed)"
    elif verdict.outcome is DeviceOutcome.FAILED and accepted:
        text = "failed: accepted, but no account holds it ACTIVE"
    return _End(verdict.outcome, text, verdict.account, verdict.mode, verdict.thing is not None, _key(failure))


def _key(failure: Failure | None) -> tuple[FailureKind, Stage] | None:
    return None if failure is None else (failure.kind, failure.stage)


def _seen(failure: Failure) -> str:
    return describe_failure(failure.kind, failure.stage)


def _expected(expectation: Expectation, devices: int) -> Expected:
    text = describe(expectation.outcome, expectation.account, expectation.mode, expectation.thing)
    if expectation.outcome is DeviceOutcome.REFUSED:
        text += ": " + _KIND_OF_REFUSAL[expectation.first_try]
    return Expected(
        devices=devices,
        text=text,
        outcome=expectation.outcome,
        account=expectation.account,
        mode=expectation.mode,
        thing=expectation.thing,
        first_try=expectation.first_try,
        row=_row(expectation.row),
        rests_on=tuple(_row(row) for row in expectation.rests_on),
    )


_KIND_OF_REFUSAL = {
    "closed_before_connack": describe_failure(FailureKind.CLOSED_BEFORE_CONNACK, Stage.CONNACK),
    "connack_refused": describe_failure(FailureKind.CONNACK_REFUSED, Stage.CONNACK),
}


def _row(row: Row) -> OracleRow:
    return OracleRow(id=row.id, says=row.says, mark=row.mark, source=row.source)


def _file_expects(user: UserExpectation) -> FileExpects:
    where = f"in {user.account}" if user.account else ""
    text = " ".join(each for each in (user.outcome.replace("_", " ") if user.outcome else "", where) if each)
    thing = {True: "thing", False: "no thing", None: None}[user.thing]
    details = ", ".join(each for each in (user.mode, thing) if each)
    return FileExpects(
        text=" ".join(each for each in (text, f"({details})" if details else "") if each) or "as IoT Core should do",
        outcome=user.outcome,
        account=user.account,
        mode=user.mode,
        thing=user.thing,
    )


# --- accounts and failures ---


def _accounts(reader: RunReader, causes: CauseFold) -> list[AccountSummary]:
    held = {
        Phase.BEFORE: _held(reader.holdings(Phase.BEFORE)),
        Phase.AFTER: _held(causes.watch(reader.holdings(Phase.AFTER))),
    }
    asked = {phase: reader.asked(phase) for phase in Phase}

    def holds(phase: Phase, account: AccountRecord) -> tuple[Held, ...] | None:
        return tuple(held[phase].get(account.name, ())) if account.name in asked[phase] else None

    return [
        AccountSummary(
            name=account.name,
            account_id=account.account_id,
            region=account.region,
            endpoint=account.endpoint,
            ca_mode=account.ca_mode,
            provisioning=account.provisioning,
            before=holds(Phase.BEFORE, account),
            after=holds(Phase.AFTER, account),
        )
        for account in reader.accounts()
    ]


def _held(holdings: Iterable[Holding]) -> dict[str, list[Held]]:
    """What each account holds, by status and mode."""
    certificates: Counter[tuple[str, str, str]] = Counter()
    with_thing: Counter[tuple[str, str, str]] = Counter()
    for holding in holdings:
        kind = (holding.account, holding.status, holding.mode or "")
        certificates[kind] += 1
        with_thing[kind] += bool(holding.things)
    held: dict[str, list[Held]] = {}
    for kind, count in sorted(certificates.items()):
        account, status, mode = kind
        each = Held(status=status, mode=mode or None, certificates=count, with_thing=with_thing[kind])
        held.setdefault(account, []).append(each)
    return held


class _FailureFold:
    """Failed tries by what was seen."""

    def __init__(self) -> None:
        self.tries: Counter[Failure] = Counter()
        self.first: Counter[Failure] = Counter()
        self.devices: Counter[Failure] = Counter()

    def add(self, attempts: Sequence[Attempt]) -> None:
        seen = [attempt.failure for attempt in attempts if attempt.failure is not None]
        self.tries.update(seen)
        self.devices.update(set(seen))
        self.first.update(each.failure for each in attempts[:1] if each.failure is not None)

    def close(self) -> tuple[list[Failure], int]:
        """The most frequent, and how many kinds are left out."""
        order = sorted(self.tries, key=lambda f: (-self.tries[f], f.kind, f.stage, f.detail))
        return order[:MOST_FAILURES], max(0, len(order) - MOST_FAILURES)

    def summary(self, failure: Failure, causes: tuple[LikeliestCause, ...]) -> FailureSummary:
        return FailureSummary(
            kind=failure.kind,
            stage=failure.stage,
            detail=failure.detail,
            text=_seen(failure),
            tries=self.tries[failure],
            first_tries=self.first[failure],
            devices=self.devices[failure],
            causes=causes,
        )


def _quantiles(histogram: Histogram) -> Quantiles | None:
    values = [histogram.quantile(q) for q in (0.5, 0.95, 0.99, 1.0)]
    p50, p95, p99, largest = (None if value is None else _rounded(value) for value in values)
    if p50 is None or p95 is None or p99 is None or largest is None:
        return None
    return Quantiles(count=len(histogram), p50=p50, p95=p95, p99=p99, max=largest)


def _rounded(seconds: float) -> float:
    """To the microsecond: further digits are noise of the clock."""
    return round(seconds, 6)
