"""The summary of a run as a document: what ``run --json`` and ``report --json`` print, and its published JSON Schema.

``devicesim schema summary`` prints the schema of :class:`Summary`. ``null`` is what was not measured. Pure.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from devicesim.outcome import DeviceOutcome, FailureKind, Stage
from devicesim.record.facts import RunStatus
from devicesim.record.histogram import Histogram
from devicesim.record.metrics import MetricType
from devicesim.rules import FirstTry


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Quantiles(_Model):
    """Of durations in seconds; the quantiles are within 0.8 %, the maximum is exact."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, histogram: Histogram) -> "Quantiles | None":
        """``None``: nothing was measured."""
        values = [histogram.quantile(q) for q in (0.5, 0.95, 0.99, 1.0)]
        p50, p95, p99, largest = (None if value is None else rounded(value) for value in values)
        if p50 is None or p95 is None or p99 is None or largest is None:
            return None
        return cls(count=len(histogram), p50=p50, p95=p95, p99=p99, max=largest)


def rounded(seconds: float) -> float:
    """To the microsecond: further digits are noise of the clock."""
    return round(seconds, 6)


class Stages(_Model):
    """Seconds that each stage took by itself, over every try that reached it."""

    tcp: Quantiles | None
    tls: Quantiles | None
    connect: Quantiles | None
    connack: Quantiles | None
    """From CONNECT written to CONNACK."""


class OracleRow(_Model):
    """A row of the oracle: what IoT Core should do, and how that is known."""

    id: str
    says: str
    mark: str
    """D documented, M measured by somebody, S works in practice, I inferred; D+M both, D/I partly."""
    source: str


class Expected(_Model):
    """What IoT Core should do with some devices of a group."""

    devices: int
    text: str
    outcome: DeviceOutcome
    account: str | None
    mode: str | None
    thing: bool | None
    """Whether a thing should be attached; null: either."""
    first_try: FirstTry
    row: OracleRow
    """The row that decides."""
    rests_on: tuple[OracleRow, ...]


class FileExpects(_Model):
    """What the fleet file expects of a group in place of the oracle; null: as the oracle says."""

    text: str
    outcome: DeviceOutcome | None
    account: str | None
    mode: str | None
    thing: bool | None


class LastFailure(_Model):
    kind: FailureKind
    stage: Stage


class Observed(_Model):
    """Where some devices of a group ended."""

    devices: int
    text: str
    outcome: DeviceOutcome | Literal["undecided"]
    """`undecided`: it has attempts, but the record ends before its verdict."""
    account: str | None
    """Confirmed by the control plane."""
    mode: str | None
    thing: bool
    """A thing was seen."""
    failure: LastFailure | None
    """What the last try saw, where none was accepted."""


class Example(_Model):
    device: int
    client_id: str
    certificate_id: str
    attempts: int


class Disagreement(_Model):
    """A reason why devices did not end as expected."""

    reason: str
    devices: int
    examples: tuple[Example, ...]
    """The first of them."""


class Starts(_Model):
    """First tries, against the schedule."""

    made: int
    late: int
    """Made more than `late_after_seconds` behind the schedule."""
    dropped: int
    """Due and not made, for too many devices were under way."""


class Messages(_Model):
    """What devices published while they were connected."""

    published: int
    acknowledged: int | None
    """Of those with QoS 1; null: there were none."""
    lost: int | None
    """Published with QoS 1 and not acknowledged, be it that the run ended before that."""


class GroupSummary(_Model):
    """A group of the fleet file: what should have happened, what did, and whether they agree."""

    name: str
    devices: int
    dials: str
    sni_setting: str
    """As in the file."""
    sni: str | None
    """The server name sent; null: no SNI extension."""
    chain_sent: bool
    expected: tuple[Expected, ...]
    file_expects: FileExpects | None
    observed: tuple[Observed, ...]
    agrees: bool
    """Every device ended as expected."""
    agree: int
    disagree: int
    not_started: int
    undecided: int
    disagreements: tuple[Disagreement, ...]
    """The most frequent first."""
    first_try: dict[str, int]
    """Devices by what their first try saw: `accepted`, a kind of failure, or `nothing` when it was cut short."""
    attempts: int
    attempts_max: int
    """Of one device."""
    time_to_provision: Quantiles | None
    """From the intended start of the first try to CONNACK 0."""
    stages: Stages
    starts: Starts
    late_starts: Quantiles | None
    """Seconds that first tries started behind their schedule."""
    messages: Messages | None
    """null: its devices publish nothing."""


class Held(_Model):
    """Certificates of the run's devices that an account holds in one status and mode."""

    status: str
    mode: str | None
    certificates: int
    asked_for_things: int
    """Of so many it is known whether they have a thing."""
    with_thing: int


class AccountSummary(_Model):
    name: str
    account_id: str
    region: str
    endpoint: str | None
    ca_mode: str | None
    """Of the shared CA; null: not registered here."""
    provisioning: str
    before: tuple[Held, ...] | None
    """What it held before the run; null: not asked."""
    after: tuple[Held, ...] | None
    """What it holds after it."""


class LikeliestCause(_Model):
    """What some devices' failures most likely come from, by the record alone."""

    number: int | None
    """Of the cause, among the fifteen that `devicesim diagnose` knows; null: no fault (`jit`, `slowed`, `passed`)."""
    id: str
    """Of the cause, such as `sni`; `jit`: part of just-in-time provisioning as it should be; `slowed`: the same, held
    up by quotas; `passed`: a later try was accepted."""
    text: str
    """In one line."""
    evidence: str
    """What speaks for it the most; empty where the text says it."""
    groups: tuple[str, ...]
    """Those of the devices, at most twenty; first that of which the evidence is."""
    devices: int
    """Of the failure's devices those for which it is the likeliest."""


class FailureSummary(_Model):
    """Failed tries that saw the same."""

    kind: FailureKind
    stage: Stage
    detail: str
    text: str
    tries: int
    first_tries: int
    """How many of them were a device's first: IoT Core drops the first connection of a new certificate."""
    devices: int
    cut_short: int = 0
    """How many of them saw it before the run ended early, or the process that drove them: what they would have come to
    is not known, and no cause is named for them."""
    causes: tuple[LikeliestCause, ...] = ()
    """The likeliest, at most six, that of the most devices first; empty: none stands out."""


class ThresholdSummary(_Model):
    """What the fleet file asks of a metric, and whether it was so."""

    metric: str
    """With its tags, as in the file."""
    expression: str
    type: MetricType
    aggregation: str
    """Of the expression: `p(95)`."""
    value: float | None
    """Measured, in seconds where it is a duration; null: there were no samples, and an untested promise is not kept."""
    ok: bool
    aborted: bool
    """It ended the run, and is not met whatever came after."""


class ProcessSummary(_Model):
    """What making the load cost one process."""

    name: str
    starts: int
    """Devices that it started."""
    cpu_mean: float
    """Share of one core: 1 is a whole core."""
    cpu_peak: float
    """Of its samples, which are of about a second."""
    cpu_starting: float | None
    """While the run started devices; null: not measured then."""
    lag: Quantiles | None
    """How late its event loop woke up, in seconds."""
    lag_starting: Quantiles | None
    """The same while the run started devices."""
    rss_peak_bytes: int


class Generator(_Model):
    """What making the load cost, and whether this machine rather than the target set the pace."""

    bottleneck: bool
    """It did: durations are upper bounds of what the target took. A process used more than 90 % of a core while the run
    started devices, or one event loop wake-up in a hundred was more than 100 ms late."""
    reason: str
    """Empty when it was not."""
    processes: tuple[ProcessSummary, ...]


class Totals(_Model):
    devices: int
    agree: int
    disagree: int
    not_started: int
    undecided: int
    attempts: int
    starts: Starts
    messages: Messages | None
    outcomes: dict[str, int]


class Summary(_Model):
    """A run of devicesim, summarised."""

    format: Literal[1] = 1
    fleet: str
    target: str
    devicesim_version: str
    status: RunStatus
    """`running` also when the run was killed: nobody was left to write its end; `aborted`: a threshold ended it."""
    arrival: str
    """Workload model: `open`, starts are due at their times whatever the target does; `closed`, so many devices at a
    time, so that a slow target slows its own load down."""
    schedule: str
    """When devices start, in words."""
    rate: float | None
    """Starts a second asked for, where that is one number."""
    late_after_seconds: float
    """A start further behind its schedule is late."""
    late_tolerance: float
    """Share of a group's starts that may be late or dropped."""
    started_at: float
    """Seconds since the Unix epoch."""
    ended_at: float | None
    duration_seconds: float | None
    """Until the end, or until the last try recorded when the record has no end."""
    agrees: bool
    """Every device ended as expected."""
    load_generated: bool
    """The starts kept their schedule: in each group no more than `late_tolerance` of them were late or dropped. Where
    they did not, the load was not the one asked for, and what the target did says little."""
    thresholds_met: bool
    """Every threshold is met, or there is none."""
    totals: Totals
    thresholds: tuple[ThresholdSummary, ...]
    """In the order of the fleet file."""
    generator: Generator | None
    """null: not measured."""
    groups: tuple[GroupSummary, ...]
    accounts: tuple[AccountSummary, ...]
    failures: tuple[FailureSummary, ...]
    """The most frequent first."""
    failures_omitted: int
    """Kinds of failure beyond those listed."""
    notes: dict[str, int]
    """Notes by kind."""
    errors: tuple[str, ...]
    """The first notes of kind `error`."""

    def to_json(self) -> str:
        """One indented document; the same summary is the same text."""
        return self.model_dump_json(indent=2)
