"""What a run is measured by: metrics as k6 has them, added up by group and account, live and from the record. Pure.

A metric is of one of three types. A *trend* holds durations, a *rate* the share of samples that were so, a *counter* a
sum. A sample is an opportunity: every start is one of ``dropped_starts``, of value 0 or 1, so that a sum of 0 is told
from nothing having been tried. What adds up merges (:meth:`Metrics.merge`): neither the order of the samples nor how
they were split can be told from the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from devicesim.outcome import Attempt, DeviceOutcome, Stage, Verdict
from devicesim.record.histogram import Histogram
from devicesim.record.verdict import UserExpectation, expected
from devicesim.rules import Expectation


class MetricType(StrEnum):
    """What a metric's samples are, and so how they can be summed up."""

    TREND = "trend"
    RATE = "rate"
    COUNTER = "counter"


AGGREGATIONS: Mapping[MetricType, tuple[str, ...]] = {
    MetricType.TREND: ("avg", "min", "max", "med", "p"),
    MetricType.RATE: ("rate",),
    MetricType.COUNTER: ("count", "rate"),
}
"""As in k6, whose ``p`` takes a percentile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric."""

    name: str
    type: MetricType
    says: str
    at_end: bool = False
    """It has no samples before the run's end."""


_TABLE = (
    ("provision_success", MetricType.RATE, "devices that should be provisioned: those that were, where they should be"),
    ("time_to_provision", MetricType.TREND, "from the intended start of a device's first try to CONNACK 0"),
    ("connect_seconds", MetricType.TREND, "from the start of an accepted try to CONNACK 0"),
    ("tls_seconds", MetricType.TREND, "the TLS handshake by itself, over every try that completed it"),
    ("late_seconds", MetricType.TREND, "how far starts were behind their schedule"),
    ("late_starts", MetricType.COUNTER, "starts behind their schedule by more than the fleet file forgives"),
    ("dropped_starts", MetricType.COUNTER, "starts that were due and never made"),
    ("attempts", MetricType.COUNTER, "connection tries"),
    ("failed_attempts", MetricType.COUNTER, "connection tries that failed, first drops of JITR and JITP among them"),
    ("agreement", MetricType.RATE, "devices that ended as expected, of all; known at the run's end"),
    ("published", MetricType.COUNTER, "messages published"),
    ("acknowledged", MetricType.COUNTER, "messages published with QoS 1 and acknowledged"),
    ("publish_lost", MetricType.COUNTER, "messages published with QoS 1 and not acknowledged"),
)
METRICS: Mapping[str, Metric] = {
    name: Metric(name=name, type=kind, says=says, at_end=name == "agreement") for name, kind, says in _TABLE
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """What a sample can be told apart by."""

    group: str
    account: str
    """Where the device is expected, or where there is no such account the one that it dials."""


def tags_of(group: str, dials: str, oracle: Expectation, user: UserExpectation | None) -> Tags:
    """The tags of a device's samples; ``oracle`` and ``user`` are what is expected of it."""
    return Tags(group=group, account=expected(oracle, user).account or dials)


def should_provision(oracle: Expectation, user: UserExpectation | None) -> bool:
    """Whether a device counts for ``provision_success``."""
    return expected(oracle, user).outcome is DeviceOutcome.PROVISIONED


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """How samples are summed up: ``avg``, ``count``, ..., or ``p`` with a percentile."""

    method: str
    percentile: float | None = None

    def __str__(self) -> str:
        return self.method if self.percentile is None else f"p({self.percentile:g})"


# --- the three types ---


@dataclass(slots=True)
class Trend:
    """Durations in seconds. Quantiles are within 0.8 % (:mod:`devicesim.record.histogram`)."""

    histogram: Histogram = field(default_factory=Histogram)

    def add(self, seconds: float) -> None:
        """Negative durations, which two clocks can make, count as 0."""
        self.histogram.add(max(0.0, seconds))

    def merge(self, other: "Trend") -> "Trend":
        return Trend(self.histogram.merge(other.histogram))

    def value(self, aggregation: Aggregation, elapsed: float) -> float | None:
        """``None``: no samples."""
        del elapsed
        match aggregation.method:
            case "avg":
                return self.histogram.mean
            case "min":
                return self.histogram.minimum
            case "max":
                return self.histogram.maximum
            case "med":
                return self.histogram.quantile(0.5)
        assert aggregation.percentile is not None, f"{aggregation} is no aggregation of a trend"
        return self.histogram.quantile(aggregation.percentile / 100)


@dataclass(slots=True)
class Rate:
    """A share."""

    trues: int = 0
    total: int = 0

    def add(self, so: bool, samples: int = 1) -> None:
        self.trues += so * samples
        self.total += samples

    def merge(self, other: "Rate") -> "Rate":
        return Rate(self.trues + other.trues, self.total + other.total)

    def value(self, aggregation: Aggregation, elapsed: float) -> float | None:
        """``None``: no samples."""
        del elapsed
        assert aggregation.method == "rate", f"{aggregation} is no aggregation of a rate"
        return self.trues / self.total if self.total else None


@dataclass(slots=True)
class Counter:
    """A sum."""

    total: int = 0
    samples: int = 0

    def add(self, count: int, samples: int = 1) -> None:
        self.total += count
        self.samples += samples

    def merge(self, other: "Counter") -> "Counter":
        return Counter(self.total + other.total, self.samples + other.samples)

    def value(self, aggregation: Aggregation, elapsed: float) -> float | None:
        """``rate`` is a second of ``elapsed``. ``None``: no samples, or no time in which there could be."""
        if not self.samples:
            return None
        if aggregation.method == "count":
            return float(self.total)
        assert aggregation.method == "rate", f"{aggregation} is no aggregation of a counter"
        return self.total / elapsed if elapsed > 0 else None


@dataclass(slots=True)
class _Sums:
    """Every metric of one tag set; the names of the fields are the metrics'."""

    provision_success: Rate = field(default_factory=Rate)
    time_to_provision: Trend = field(default_factory=Trend)
    connect_seconds: Trend = field(default_factory=Trend)
    tls_seconds: Trend = field(default_factory=Trend)
    late_seconds: Trend = field(default_factory=Trend)
    late_starts: Counter = field(default_factory=Counter)
    dropped_starts: Counter = field(default_factory=Counter)
    attempts: Counter = field(default_factory=Counter)
    failed_attempts: Counter = field(default_factory=Counter)
    agreement: Rate = field(default_factory=Rate)
    published: Counter = field(default_factory=Counter)
    acknowledged: Counter = field(default_factory=Counter)
    publish_lost: Counter = field(default_factory=Counter)

    def merge(self, other: "_Sums") -> "_Sums":
        return _Sums(**{name: getattr(self, name).merge(getattr(other, name)) for name in METRICS})


# --- the sums of a run ---


class Metrics:
    """Every metric of a run, or of a part of one. ``late_after``: seconds behind its schedule from which on a start is
    late."""

    def __init__(self, *, late_after: float) -> None:
        self.late_after = late_after
        self._sums: dict[Tags, _Sums] = {}

    def start(self, tags: Tags, late: float) -> None:
        """A device was started, ``late`` seconds behind its schedule."""
        sums = self._of(tags)
        sums.late_seconds.add(late)
        sums.late_starts.add(late > self.late_after)
        sums.dropped_starts.add(0)

    def drop(self, tags: Tags) -> None:
        """A start was due and not made."""
        self._of(tags).dropped_starts.add(1)

    def attempt(self, tags: Tags, attempt: Attempt, former: Attempt | None = None) -> None:
        """A connection try. ``former`` is the same try as it was told before, at CONNACK, which this replaces."""
        sums = self._of(tags)
        if former is None:
            sums.attempts.add(1)
            tcp, tls = attempt.reached.get(Stage.TCP), attempt.reached.get(Stage.TLS)
            if tcp is not None and tls is not None:
                sums.tls_seconds.add(tls - tcp)
        connack = attempt.reached.get(Stage.CONNACK)
        if attempt.connack_code == 0 and connack is not None and (former is None or former.connack_code != 0):
            sums.connect_seconds.add(connack)
        failed = attempt.failure is not None
        sums.failed_attempts.add(failed - (former is not None and former.failure is not None), former is None)
        self._messages(sums, attempt, former)

    def _messages(self, sums: _Sums, attempt: Attempt, former: Attempt | None) -> None:
        """With QoS 0 nothing is acknowledged, so that nothing is known to be lost."""
        published, acknowledged = attempt.published, attempt.acknowledged
        if published is None:
            return
        new = former is None or former.published is None
        published -= (former.published or 0) if former is not None else 0
        sums.published.add(published, new)
        if acknowledged is not None:
            acknowledged -= (former.acknowledged or 0) if former is not None else 0
            sums.acknowledged.add(acknowledged, new)
            sums.publish_lost.add(published - acknowledged, new)

    def device(self, tags: Tags, *, counts: bool, provisioned: bool, time_to_provision: float | None) -> None:
        """A device was provisioned or given up. ``counts``: it should be provisioned."""
        sums = self._of(tags)
        if counts:
            sums.provision_success.add(provisioned)
        if time_to_provision is not None:
            sums.time_to_provision.add(time_to_provision)

    def agree(self, tags: Tags, agrees: bool, devices: int = 1) -> None:
        """Whether devices ended as expected."""
        self._of(tags).agreement.add(agrees, devices)

    def story(
        self, tags: Tags, attempts: Sequence[Attempt], verdict: Verdict | None, *, counts: bool, over: bool
    ) -> None:
        """A device that was started, with all that is on record of it. ``over``: the run is, so that one without a
        verdict was cut short, and was provisioned only if it was accepted; before that it is not counted yet.
        """
        if attempts:
            self.start(tags, attempts[0].start - attempts[0].intended_start)
        for attempt in attempts:
            self.attempt(tags, attempt)
        if verdict is None:
            seconds = _accepted_after(attempts)
            if over or seconds is not None:
                self.device(tags, counts=counts, provisioned=seconds is not None, time_to_provision=seconds)
            if over:
                self.agree(tags, False)
            return
        self.agree(tags, verdict.agrees)
        if verdict.outcome is not DeviceOutcome.NOT_STARTED:
            there = verdict.account is None or verdict.account == verdict.expected_account  # None: not confirmed
            self.device(
                tags,
                counts=counts,
                provisioned=verdict.outcome is DeviceOutcome.PROVISIONED and there,
                time_to_provision=verdict.time_to_provision,
            )

    def merge(self, other: "Metrics") -> "Metrics":
        """Of both parts; neither is changed. Raises ``ValueError`` when they call different starts late."""
        if other.late_after != self.late_after:
            raise ValueError(
                f"starts late after {other.late_after} s do not merge with those after {self.late_after} s"
            )
        merged = Metrics(late_after=self.late_after)
        for tags in {**self._sums, **other._sums}:
            merged._sums[tags] = self._sums.get(tags, _Sums()).merge(other._sums.get(tags, _Sums()))
        return merged

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Metrics):
            return NotImplemented
        return (self.late_after, self._sums) == (other.late_after, other._sums)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def trend(self, metric: str, *, group: str | None = None, account: str | None = None) -> Trend:
        """The samples of a trend that have these tags."""
        trend: Trend = self._select(METRICS[metric], group, account)
        return trend

    def counter(self, metric: str, *, group: str | None = None, account: str | None = None) -> Counter:
        """Those of a counter."""
        counter: Counter = self._select(METRICS[metric], group, account)
        return counter

    def value(
        self,
        metric: Metric,
        aggregation: Aggregation,
        *,
        group: str | None = None,
        account: str | None = None,
        elapsed: float,
    ) -> float | None:
        """Of the samples that have these tags, after ``elapsed`` seconds of run; ``None``: there are none."""
        value: float | None = self._select(metric, group, account).value(aggregation, elapsed)
        return value

    def _select(self, metric: Metric, group: str | None, account: str | None) -> Any:
        found = getattr(_Sums(), metric.name)
        for tags, sums in self._sums.items():
            if group in (None, tags.group) and account in (None, tags.account):
                found = found.merge(getattr(sums, metric.name))
        return found

    def _of(self, tags: Tags) -> _Sums:
        sums = self._sums.get(tags)
        if sums is None:
            sums = self._sums[tags] = _Sums()
        return sums


def _accepted_after(attempts: Sequence[Attempt]) -> float | None:
    """Seconds from the first try's intended start to the first CONNACK 0."""
    for attempt in attempts:
        if attempt.connack_code == 0 and Stage.CONNACK in attempt.reached:
            return attempt.start + attempt.reached[Stage.CONNACK] - attempts[0].intended_start
    return None
