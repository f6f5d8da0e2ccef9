"""Thresholds in k6's grammar, and whether a run keeps them. Pure.

    metric      = name [ "{" tag ":" value { "," tag ":" value } "}" ]          tags: group, account; all must match
    expression  = aggregation operator value
    aggregation = "avg" | "min" | "max" | "med" | "p(" number ")"                   of a trend
                | "rate"                                                            of a rate
                | "count" | "rate"                                                  of a counter
    operator    = "<" | "<=" | ">" | ">=" | "==" | "===" | "!="
    value       = number [ "ms" | "s" | "m" ]                                       the unit is ours, for durations

Two things are not as in k6: a duration without a unit is in seconds (k6: milliseconds), and a threshold of which there
are no samples at the end is not kept (k6 passes it, grafana/k6 issue 4283): an untested promise.
"""

import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from devicesim.outcome import Attempt
from devicesim.record.metrics import AGGREGATIONS, METRICS, Aggregation, Metric, Metrics, MetricType, Tags

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_EXPRESSION = re.compile(
    rf"\s*(?P<method>[a-z]+)(?:\(\s*(?P<percentile>{_NUMBER})\s*\))?"
    rf"\s*(?P<operator><=|>=|===|==|!=|<|>)\s*(?P<value>{_NUMBER})(?P<unit>ms|s|m|)\s*"
)
_METRIC = re.compile(r"\s*(?P<name>[^{}\s]+)\s*(?:\{(?P<tags>[^{}]*)\})?\s*")
_METHODS = tuple(dict.fromkeys(method for methods in AGGREGATIONS.values() for method in methods))
_COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "===": operator.eq,
    "!=": operator.ne,
}
TAGS = ("group", "account")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """A metric, of the samples with some tags."""

    metric: Metric
    group: str | None = None
    account: str | None = None
    text: str = field(compare=False)
    """As written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """What a metric must be."""

    aggregation: Aggregation
    operator: str
    value: float
    """Durations: in seconds."""
    unit: str = field(compare=False)
    """As written: ``ms``, ``s``, ``m`` or none."""
    text: str = field(compare=False)
    """As written."""

    def holds(self, value: float) -> bool:
        return bool(_COMPARE[self.operator](value, self.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """One threshold of a fleet file."""

    selector: Selector
    expression: Expression
    abort_on_fail: bool = False
    """The run ends as soon as it does not hold."""
    delay: float = 0.0
    """Seconds from the first start before it may end the run."""

    @classmethod
    def parse(cls, metric: str, expression: str, *, abort_on_fail: bool = False, delay: float = 0.0) -> "Threshold":
        """From both as written. Raises ``ValueError``."""
        selector, parsed = parse_metric(metric), parse_expression(expression)
        if wrong := mismatch(selector.metric, parsed):
            raise ValueError(wrong)
        return cls(selector=selector, expression=parsed, abort_on_fail=abort_on_fail, delay=delay)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a threshold."""

    threshold: Threshold
    value: float | None
    """Measured; ``None``: there were no samples."""
    ok: bool


# --- reading them ---


def parse_metric(text: str) -> Selector:
    """``time_to_provision`` or ``time_to_provision{group:robots,account:prod}``. Raises ``ValueError``."""
    match = _METRIC.fullmatch(text)
    if match is None:
        raise ValueError("a metric is a name, or a name with tags such as 'connect_seconds{group:robots}'")
    metric = METRICS.get(match["name"])
    if metric is None:
        raise ValueError(f"no metric is called {match['name']!r}; known: {', '.join(METRICS)}")
    tags: dict[str, str] = {}
    for pair in match["tags"].split(",") if match["tags"] is not None else ():
        tag, colon, value = (each.strip() for each in pair.partition(":"))
        if tag not in TAGS or not colon or not value:
            raise ValueError(f"{pair.strip()!r} is not a tag; expected 'group:NAME' or 'account:NAME'")
        if tag in tags:
            raise ValueError(f"two tags {tag!r}: a device has one, and all tags must match")
        tags[tag] = value
    return Selector(metric=metric, group=tags.get("group"), account=tags.get("account"), text=text)


def parse_expression(text: str) -> Expression:
    """``p(95)<5s``, ``rate>0.99``, ``count==0``. Raises ``ValueError``."""
    match = _EXPRESSION.fullmatch(text)
    if match is None:
        raise ValueError(
            "expected an aggregation, an operator and a value, such as 'p(95)<5s', 'rate>0.99' or 'count==0'"
        )
    method, percentile, value = match["method"], match["percentile"], float(match["value"])
    if method not in _METHODS or (method == "p") is not (percentile is not None):
        known = ", ".join("p(N)" if each == "p" else each for each in _METHODS)
        raise ValueError(f"{method!r} is not an aggregation; known: {known}")
    if percentile is not None and float(percentile) > 100:
        raise ValueError(f"percentile {percentile} is not between 0 and 100")
    match match["unit"]:
        case "ms":
            value /= 1000
        case "m":
            value *= 60
    return Expression(
        aggregation=Aggregation(method=method, percentile=None if percentile is None else float(percentile)),
        operator=match["operator"],
        value=value,
        unit=match["unit"],
        text=text,
    )


def mismatch(metric: Metric, expression: Expression) -> str:
    """Why a metric of this type cannot be held against the expression; empty when it can."""
    methods = AGGREGATIONS[metric.type]
    if expression.aggregation.method not in methods:
        known = ", ".join("p(N)" if each == "p" else each for each in methods)
        return f"{metric.name} is a {metric.type}, which has no {expression.aggregation}; it has {known}"
    if expression.unit and metric.type is not MetricType.TREND:
        return f"{metric.name} is a {metric.type}, not a duration: its value has no unit"
    if metric.type is MetricType.RATE and expression.value > 1:
        return f"{metric.name} is a share between 0 and 1: write {expression.value:g} % as {expression.value / 100:g}"
    return ""


# --- holding a run against them ---


def evaluate(threshold: Threshold, metrics: Metrics, elapsed: float) -> Result:
    """Hold the samples so far against a threshold; ``elapsed``: seconds since the first start was due."""
    selector, expression = threshold.selector, threshold.expression
    value = metrics.value(
        selector.metric,
        expression.aggregation,
        group=selector.group,
        account=selector.account,
        elapsed=elapsed,
    )
    return Result(threshold=threshold, value=value, ok=value is not None and expression.holds(value))


class LiveThresholds:
    """The thresholds that may end a run, while it goes on. Told what happens, asked now and then.

    ``late_after``: seconds behind its schedule from which on a start is late. A run none of whose thresholds has
    ``abort_on_fail`` is not added up: then nothing here costs anything. Where a device is provisioned only the control
    planes know, at the end: meanwhile one that was accepted (CONNACK 0) counts as provisioned where it should be.
    """

    def __init__(self, thresholds: Iterable[Threshold], *, late_after: float) -> None:
        self._watched = tuple(each for each in thresholds if each.abort_on_fail)
        self._metrics = Metrics(late_after=late_after)

    @property
    def watches(self) -> bool:
        """Whether there is a threshold that may end the run."""
        return bool(self._watched)

    def started(self, tags: Tags, late: float) -> None:
        """A device was started, ``late`` seconds behind its schedule."""
        if self._watched:
            self._metrics.start(tags, late)

    def dropped(self, tags: Tags) -> None:
        """A start was due and not made."""
        if self._watched:
            self._metrics.drop(tags)

    def attempt(self, tags: Tags, attempt: Attempt, former: Attempt | None = None) -> None:
        """A connection try, when it is recorded. ``former`` is the same try as it was recorded before, if it was."""
        if self._watched:
            self._metrics.attempt(tags, attempt, former)

    def finished(self, tags: Tags, *, should_provision: bool, time_to_provision: float | None) -> None:
        """A device was accepted, so many seconds after its first try was due, or (``None``) given up. Once a device."""
        if self._watched:
            provisioned = time_to_provision is not None
            self._metrics.device(
                tags, counts=should_provision, provisioned=provisioned, time_to_provision=time_to_provision
            )

    def crossed(self, elapsed: float) -> Threshold | None:
        """The first threshold that ends the run now, ``elapsed`` seconds after the first start was due.

        As in k6 one without samples does not, nor one whose ``delay`` is not over.
        """
        for threshold in self._watched:
            if elapsed >= threshold.delay:
                result = evaluate(threshold, self._metrics, elapsed)
                if result.value is not None and not result.ok:
                    return threshold
        return None
