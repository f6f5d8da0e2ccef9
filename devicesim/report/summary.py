"""The summary: a fold over the record of a run.

:func:`summarise` needs the record alone, also of a run that goes on, was interrupted or was killed: devices without an
attempt are counted as not started, devices without a verdict as undecided. The same record gives the same document, to
the byte.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from devicesim.errors import RecordError
from devicesim.outcome import Attempt, Failure, Holding
from devicesim.record.facts import AccountRecord, Phase, RunFacts, RunStatus, ThresholdRecord
from devicesim.record.metrics import Metrics, MetricType
from devicesim.record.store import RunReader
from devicesim.record.stories import stories
from devicesim.record.thresholds import Threshold, evaluate
from devicesim.report.causes import CauseFold
from devicesim.report.document import (
    AccountSummary,
    FailureSummary,
    Generator,
    GroupSummary,
    Held,
    LikeliestCause,
    Messages,
    Starts,
    Summary,
    ThresholdSummary,
    Totals,
    rounded,
)
from devicesim.report.generator import generator
from devicesim.report.groups import GroupFold, seen

MOST_FAILURES = 50
"""Kinds of failure listed; peers' words may differ from try to try, and the rest is counted."""
MOST_ERRORS = 20


def summarise(reader: RunReader) -> Summary:
    """Fold the record. Raises :class:`~devicesim.errors.RecordError` when it is damaged."""
    with reader.snapshot():
        run = reader.run()
        metrics, over = Metrics(late_after=run.late_after), run.status is not RunStatus.RUNNING
        groups = {group.name: GroupFold(group, metrics, over=over) for group in reader.groups()}
        causes = CauseFold((fold.group for fold in groups.values()), reader.accounts(), run.status)
        failures, span = _FailureFold(), _Span(run.started_at)
        for device, attempts, verdict in stories(reader):
            groups[device.group].add(device, attempts, verdict)
            failures.add(attempts)
            causes.add(device, attempts, verdict)
            span.add(attempts)
        for drop in reader.drops():
            groups[drop.group].drop()
            span.add_due(drop.due)
        notes, errors = _notes(reader)
        accounts = _accounts(reader, causes)
        listed, omitted = failures.close()
        found = causes.close(
            listed,
            asked=reader.asked(Phase.AFTER),
            now=span.last if run.ended_at is None else run.ended_at,
            errors=errors,
            devices=reader.devices,
        )
        told = tuple(failures.summary(failure, found.get(failure, ()), causes.cut_short[failure]) for failure in listed)
        closed = [fold.close() for fold in groups.values()]  # which adds the devices that are not on record
        return _summary(
            run,
            span,
            closed,
            thresholds=[_threshold(record, metrics, span, reader) for record in reader.thresholds()],
            cost=generator(reader.samples()),
            accounts=accounts,
            failures=told,
            failures_omitted=omitted,
            notes=notes,
            errors=errors,
        )


@dataclass(slots=True)
class _Span:
    """From the first start to the last that happened; seconds since the Unix epoch."""

    last: float
    """At first the start of the run."""
    first: float = field(default=float("inf"))
    """When the first start was due."""

    def add(self, attempts: Sequence[Attempt]) -> None:
        if attempts:
            self.first = min(self.first, attempts[0].intended_start)
            self.last = max(self.last, *(attempt.end for attempt in attempts))

    def add_due(self, due: float) -> None:
        self.first, self.last = min(self.first, due), max(self.last, due)

    @property
    def seconds(self) -> float:
        return max(0.0, self.last - self.first)


def _notes(reader: RunReader) -> tuple[Counter[str], list[str]]:
    """How many of each kind, and the first errors."""
    notes: Counter[str] = Counter()
    errors: list[str] = []
    for note in reader.notes():
        notes[note.kind] += 1
        if note.kind == "error" and len(errors) < MOST_ERRORS:
            errors.append(note.text if note.account is None else f"{note.account}: {note.text}")
    return notes, errors


def _summary(
    run: RunFacts,
    span: _Span,
    groups: Sequence[GroupSummary],
    *,
    thresholds: Sequence[ThresholdSummary],
    cost: Generator | None,
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
    end = run.ended_at if run.ended_at is not None else span.last if span.last > run.started_at else None
    return Summary(
        fleet=run.fleet,
        target=run.target,
        devicesim_version=run.version,
        status=run.status,
        arrival=run.arrival,
        schedule=run.schedule,
        rate=run.rate,
        late_after_seconds=run.late_after,
        late_tolerance=run.late_tolerance,
        started_at=run.started_at,
        ended_at=run.ended_at,
        duration_seconds=None if end is None else rounded(end - run.started_at),
        agrees=bool(groups) and all(group.agrees for group in groups),
        load_generated=all(_kept(group.starts, run.late_tolerance) for group in groups),
        thresholds_met=all(threshold.ok for threshold in thresholds),
        totals=Totals(
            devices=sum(group.devices for group in groups),
            agree=sum(group.agree for group in groups),
            disagree=sum(group.disagree for group in groups),
            not_started=sum(group.not_started for group in groups),
            undecided=sum(group.undecided for group in groups),
            attempts=sum(group.attempts for group in groups),
            starts=Starts(
                made=sum(group.starts.made for group in groups),
                late=sum(group.starts.late for group in groups),
                dropped=sum(group.starts.dropped for group in groups),
            ),
            messages=_messages([group.messages for group in groups if group.messages is not None]),
            outcomes=dict(sorted(outcomes.items())),
        ),
        thresholds=tuple(thresholds),
        generator=cost,
        groups=tuple(groups),
        accounts=tuple(accounts),
        failures=failures,
        failures_omitted=failures_omitted,
        notes=dict(sorted(notes.items())),
        errors=tuple(errors),
    )


def _kept(starts: Starts, tolerance: float) -> bool:
    """Whether the starts of a group kept their schedule."""
    due = starts.made + starts.dropped
    return not due or (starts.late + starts.dropped) / due <= tolerance


def _messages(messages: Sequence[Messages]) -> Messages | None:
    if not messages:
        return None
    asked = [each for each in messages if each.acknowledged is not None]
    return Messages(
        published=sum(each.published for each in messages),
        acknowledged=sum(each.acknowledged or 0 for each in asked) if asked else None,
        lost=sum(each.lost or 0 for each in asked) if asked else None,
    )


def _threshold(record: ThresholdRecord, metrics: Metrics, span: _Span, reader: RunReader) -> ThresholdSummary:
    try:
        threshold = Threshold.parse(record.metric, record.expression)
    except ValueError as exc:
        raise RecordError(f"{str(reader.path)!r} is damaged: it holds the threshold {record.expression!r}") from exc
    result, aborted = evaluate(threshold, metrics, span.seconds), record.aborted_at is not None
    kind, value = threshold.selector.metric.type, result.value
    return ThresholdSummary(
        metric=record.metric,
        expression=record.expression,
        type=kind,
        aggregation=str(threshold.expression.aggregation),
        value=rounded(value) if value is not None and kind is MetricType.TREND else value,
        ok=result.ok and not aborted,
        aborted=aborted,
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
    asked: Counter[tuple[str, str, str]] = Counter()
    with_thing: Counter[tuple[str, str, str]] = Counter()
    for holding in holdings:
        kind = (holding.account, holding.status, holding.mode or "")
        certificates[kind] += 1
        asked[kind] += holding.things is not None
        with_thing[kind] += bool(holding.things)
    held: dict[str, list[Held]] = {}
    for kind, count in sorted(certificates.items()):
        account, status, mode = kind
        each = Held(
            status=status,
            mode=mode or None,
            certificates=count,
            asked_for_things=asked[kind],
            with_thing=with_thing[kind],
        )
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

    def summary(self, failure: Failure, causes: tuple[LikeliestCause, ...], cut_short: int) -> FailureSummary:
        return FailureSummary(
            kind=failure.kind,
            stage=failure.stage,
            detail=failure.detail,
            text=seen(failure),
            tries=self.tries[failure],
            first_tries=self.first[failure],
            devices=self.devices[failure],
            cut_short=cut_short,
            causes=causes,
        )
