"""A group's part of the summary: what should have happened to its devices, what did, and how long it took. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from devicesim.outcome import Attempt, DeviceOutcome, Failure, FailureKind, Stage, Verdict
from devicesim.record.facts import DeviceRecord, GroupRecord
from devicesim.record.histogram import Histogram
from devicesim.record.metrics import Metrics, should_provision, tags_of
from devicesim.record.verdict import UserExpectation, describe, describe_failure
from devicesim.report.document import (
    Disagreement,
    Example,
    Expected,
    FileExpects,
    GroupSummary,
    LastFailure,
    Messages,
    Observed,
    OracleRow,
    Quantiles,
    Stages,
    Starts,
)
from devicesim.rules import Expectation, Row

EXAMPLES = 3
"""Devices named for each reason of disagreement: enough to look at, whatever the size of the fleet."""
MOST_REASONS = 20


class GroupFold:
    """``add`` each device and ``drop`` each start that was not made, then ``close``."""

    def __init__(self, group: GroupRecord, metrics: Metrics, *, over: bool) -> None:
        """``metrics`` are the run's, which this adds to. ``over``: the run is."""
        self.group = group
        self.metrics = metrics
        self.over = over
        self.tags = tags_of(group.name, group.account, group.expectation, group.user)
        self.expected: Counter[Expectation] = Counter()
        self.observed: Counter[_End] = Counter()
        self.reasons: dict[str, tuple[int, list[Example]]] = {}
        self.first_try: Counter[str] = Counter()
        self.agree = self.disagree = self.not_started = self.undecided = 0
        self.attempts = self.attempts_max = 0
        self.stages = {stage: Histogram() for stage in _STAGE_BEFORE}

    def add(self, device: DeviceRecord, attempts: Sequence[Attempt], verdict: Verdict | None) -> None:
        expectation = device.expectation or self.group.expectation
        self.expected[expectation] += 1
        end = _end(attempts, verdict, over=self.over)
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
        tags, counts = self.tags, should_provision(expectation, self.group.user)
        if device.expectation is not None:
            tags = tags_of(self.group.name, self.group.account, expectation, self.group.user)
        self.metrics.story(tags, attempts, verdict, counts=counts, over=self.over)
        self._tries(attempts)

    def drop(self) -> None:
        """A start that was due and not made."""
        self.metrics.drop(self.tags)

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
            saw = "accepted" if first.connack_code == 0 else first.failure.kind.value if first.failure else "nothing"
            self.first_try[saw] += 1

    def close(self) -> GroupSummary:
        group = self.group
        missing = group.count - self.expected.total()
        if missing > 0:  # the run ended before it had got so far as to name them
            self.expected[group.expectation] += missing
            self.observed[_NEVER_STARTED] += missing
            self.not_started += missing
            if self.over:
                self.metrics.agree(self.tags, False, missing)
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
            time_to_provision=self._quantiles("time_to_provision"),
            stages=Stages(**{stage.value: Quantiles.of(histogram) for stage, histogram in self.stages.items()}),
            starts=Starts(
                made=len(self.metrics.trend("late_seconds", group=group.name).histogram),
                late=self.metrics.counter("late_starts", group=group.name).total,
                dropped=self.metrics.counter("dropped_starts", group=group.name).total,
            ),
            late_starts=self._quantiles("late_seconds"),
            messages=self._messages(),
        )

    def _quantiles(self, metric: str) -> Quantiles | None:
        return Quantiles.of(self.metrics.trend(metric, group=self.group.name).histogram)

    def _messages(self) -> Messages | None:
        published, acknowledged, lost = (
            self.metrics.counter(metric, group=self.group.name)
            for metric in ("published", "acknowledged", "publish_lost")
        )
        if not published.samples:
            return None
        return Messages(
            published=published.total,
            acknowledged=acknowledged.total if acknowledged.samples else None,
            lost=lost.total if lost.samples else None,
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


def _end(attempts: Sequence[Attempt], verdict: Verdict | None, *, over: bool) -> _End:
    if not attempts and (verdict is None or verdict.outcome is DeviceOutcome.NOT_STARTED):
        return _NEVER_STARTED
    accepted = any(attempt.connack_code == 0 for attempt in attempts)
    failure = None if accepted or not attempts else attempts[-1].failure
    if verdict is None:
        so_far = "accepted" if accepted else seen(failure) if failure else "trying"
        return _End("undecided", f"{'cut short' if over else 'no verdict yet'}: {so_far}", failure=_key(failure))
    text = describe(verdict.outcome, verdict.account, verdict.mode, True if verdict.thing else None, failure)
    if verdict.outcome is DeviceOutcome.PROVISIONED and verdict.account is None:
        text = "provisioned (account not confirmed)"
    elif verdict.outcome is DeviceOutcome.FAILED and accepted:
        text = "failed: accepted, but no account holds it ACTIVE"
    return _End(verdict.outcome, text, verdict.account, verdict.mode, verdict.thing is not None, _key(failure))


def _key(failure: Failure | None) -> tuple[FailureKind, Stage] | None:
    return None if failure is None else (failure.kind, failure.stage)


def seen(failure: Failure) -> str:
    """In words."""
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
