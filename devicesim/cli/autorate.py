"""``devicesim run --autorate``: runs with more and more starts a second, until the target no longer keeps a latency."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click

from devicesim.cli.options import RECORD_NAME
from devicesim.errors import InputError
from devicesim.fleet.arrival import schedule_of
from devicesim.fleet.autorate import LEAST_DEVICES, End, Next, Outcome, Trial, devices_for, highest_taken, next_trial
from devicesim.fleet.pacing import Bursts
from devicesim.fleet.spec import Fleet, at_rate
from devicesim.fleet.thresholds import ThresholdTable, threshold_problems
from devicesim.record.facts import RunStatus
from devicesim.record.metrics import MetricType
from devicesim.record.thresholds import Threshold
from devicesim.report.document import Summary
from devicesim.report.ratesearch import RateSearch, RateTrial

DEFAULT_METRIC = "time_to_provision"
LONGEST = 4
"""Trials' lengths that the least number of devices may take: the search goes no lower than the rate of that."""
TRIAL_SECONDS = 10.0

RunTrial = Callable[[Fleet, Path, frozenset[int]], Awaitable[Summary]]
"""Runs these devices of a fleet, with the record in a directory that is not there yet."""


class Goal(click.ParamType[Threshold]):
    """``[METRIC:]EXPRESSION`` in the grammar of thresholds; the metric is a duration."""

    name = "[METRIC:]EXPRESSION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Threshold:
        if isinstance(value, Threshold):
            return value
        metric, colon, expression = str(value).rpartition(":")
        try:
            goal = Threshold.parse(metric if colon else DEFAULT_METRIC, expression)
        except ValueError as exc:
            self.fail(f"{value!r}: {exc}", param, ctx)
        if goal.selector.metric.type is not MetricType.TREND or goal.expression.operator not in ("<", "<="):
            self.fail(
                f"{value!r} is no upper limit of a duration, such as 'p(95)<5s' or 'tls_seconds:med<50ms'", param, ctx
            )
        return goal


def rate_of(fleet: Fleet) -> float:
    """The rate that a search begins with, starts a second: the fleet file's, of stages their most.

    Raises :class:`~devicesim.errors.InputError` for arrivals that have none: how many devices start at once, or are
    under way at a time, says nothing of how many a second a target takes.
    """
    schedule = schedule_of(fleet.file.arrival, fleet.size)
    if schedule.peak_rate is None or isinstance(schedule, Bursts):
        raise InputError(
            f"--autorate: the fleet file's arrival, {schedule.describe()!r}, has no rate to begin with",
            hint="name one, such as --rate 10/s: devices then start evenly, in place of the file's arrival",
        )
    return schedule.peak_rate


def check_search(fleet: Fleet, goal: Threshold, *, first: float, seconds: float) -> None:
    """Raise :class:`~devicesim.errors.InputError` for a goal that names what the fleet does not have, and for a fleet
    that has too few devices for the first trial."""
    stated = {goal.selector.text: [goal.expression.text]}
    for problem in threshold_problems(stated, fleet.file.accounts, fleet.file.groups):
        raise InputError(f"--autorate {goal.selector.text!r}: {problem.message}")
    needed = devices_for(first, seconds)
    if needed > fleet.size:
        raise InputError(
            f"--autorate: the first trial, {first:.4g} starts/s for {seconds:g} s, takes {needed} devices, the fleet "
            f"has {fleet.size}",
            hint="give --devices a larger number: each trial takes devices of its own; or begin at a lower --rate",
        )


def first_trial(fleet: Fleet, *, first: float, seconds: float) -> Fleet:
    """A fleet as large and as fast as the first trial, for what it needs."""
    devices = max(devices_for(first, seconds), len(fleet.file.groups))
    return at_rate(fleet, first).resized(devices)


@dataclass(slots=True)
class Search:
    """A search as far as it has come."""

    fleet: Fleet
    goal: Threshold
    target: str
    """For the report."""
    directory: Path
    seconds: float
    """Length of a trial's schedule."""
    say: Callable[[str], None]
    """Is told what is tried next, in one line."""
    interrupted: Callable[[], bool]
    """Whether nothing more is to be tried."""
    ended: End | None = None
    _trials: list[Trial] | None = None
    _records: list[str] | None = None

    async def run(self, run_trial: RunTrial, *, first: float) -> None:
        """Try rates from ``first`` starts a second on, until the answer is found."""
        self._trials, self._records, used = [], [], 0
        # one device after the other in the schedule's order, in which the groups are mixed evenly
        while isinstance(step := self._next(first, used), Next):
            if self.interrupted():
                return
            self.say(f"trying {step.rate:.4g} starts/s with {step.devices} devices")
            directory = self.directory / f"trial-{len(self._trials) + 1:02d}"
            summary = await run_trial(self._at(step.rate), directory, frozenset(range(used, used + step.devices)))
            if summary.status is not RunStatus.FINISHED:
                return
            used += step.devices
            self._trials.append(self._trial(step, summary))
            self._records.append(str(directory / RECORD_NAME))
        self.ended = step

    def document(self) -> RateSearch:
        """What has been found so far."""
        trials, records = self._trials or [], self._records or []
        return RateSearch(
            fleet=self.fleet.name,
            target=self.target,
            metric=self.goal.selector.text,
            expression=self.goal.expression.text,
            seconds=self.seconds,
            highest_rate=highest_taken(trials),
            ended="interrupted" if self.ended is None else self.ended.value,
            trials=tuple(
                RateTrial(
                    rate=each.rate,
                    devices=each.devices,
                    value=each.value,
                    outcome=each.outcome.value,
                    record=record,
                )
                for each, record in zip(trials, records, strict=True)
            ),
        )

    def _next(self, first: float, used: int) -> Next | End:
        assert self._trials is not None
        return next_trial(
            self._trials,
            first=first,
            lowest=LEAST_DEVICES / (LONGEST * self.seconds),
            seconds=self.seconds,
            left=self.fleet.size - used,
        )

    def _at(self, rate: float) -> Fleet:
        """The fleet at a constant rate, with the goal as its one threshold."""
        goal = {self.goal.selector.text: (ThresholdTable(threshold=self.goal.expression.text),)}
        fleet = at_rate(self.fleet, rate)
        return replace(fleet, file=fleet.file.model_copy(update={"thresholds": goal}))

    def _trial(self, step: Next, summary: Summary) -> Trial:
        (goal,) = summary.thresholds
        started = summary.totals.devices - summary.totals.not_started
        if not summary.load_generated or (summary.generator is not None and summary.generator.bottleneck):
            outcome = Outcome.NOT_GENERATED
        elif summary.totals.agree < started or not started:
            outcome = Outcome.REFUSED
        else:
            outcome = Outcome.TAKEN if goal.ok else Outcome.TOO_SLOW
        return Trial(rate=step.rate, devices=step.devices, value=goal.value, outcome=outcome)
