"""What a record holds besides attempts, holdings and verdicts: run, accounts, groups, devices, notes. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from devicesim.record.histogram import Histogram
from devicesim.record.verdict import UserExpectation
from devicesim.rules import Expectation


class RunStatus(StrEnum):
    """How far a run came, as its record tells it."""

    RUNNING = "running"
    """Not ended. A killed run says so for ever: nobody was left to write the end."""
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    """Ended before every device had come to its end."""
    ABORTED = "aborted"
    """The same, by a threshold with ``abort_on_fail``."""


class Phase(StrEnum):
    """When the control planes were asked what they hold."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """The run as a whole."""

    fleet: str
    """Name in the fleet file."""
    fleet_file: str
    """Its text as read; it holds no secret."""
    version: str
    """devicesim's."""
    target: str
    """``emulator``, ``aws``, or the URL of a control plane."""
    started_at: float
    """Seconds since the Unix epoch, like every time here."""
    rate: float | None = None
    """Starts a second that the schedule asks for, where that is one number."""
    arrival: str = "open"
    """Workload model: ``open``, starts are due at their times whatever the target does; ``closed``, they wait."""
    schedule: str = ""
    """When devices start, in words."""
    late_after: float = 1.0
    """Seconds; a start further behind its schedule is late."""
    late_tolerance: float = 0.01
    """Share of starts that may be late or dropped before the load counts as not generated."""
    status: RunStatus = RunStatus.RUNNING
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRecord:
    """One account in one Region, as the run set it up."""

    name: str
    """In the fleet file."""
    account_id: str
    region: str
    endpoint: str | None
    """Host name of its data endpoint; ``None`` until it is known."""
    ca_mode: str | None
    """DEFAULT or SNI_ONLY; ``None``: the shared CA is not registered here."""
    provisioning: str
    """JITP, JITR or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRecord:
    """Devices that do the same."""

    name: str
    count: int
    account: str
    """The account that is dialled."""
    sni_setting: str
    """As in the file: ``endpoint``, ``none``, ``other:<account>``, ``literal:<name>``."""
    sni: str | None
    """The server name sent; ``None``: no SNI extension."""
    chain_sent: bool
    expectation: Expectation
    """What IoT Core should do with devices whose certificate no account knows yet."""
    user: UserExpectation | None = None
    """What the file expects in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """One device."""

    number: int
    """Its place in the schedule, from 0; attempts and verdicts carry it as ``device``."""
    index: int
    """Of its identity."""
    group: str
    client_id: str
    certificate_id: str
    expectation: Expectation | None = None
    """Where it differs from its group's: its certificate was known before the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """A start that was due and not made: too many devices were under way."""

    device: int
    """Place in the schedule."""
    group: str
    due: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdRecord:
    """A threshold of the fleet file."""

    metric: str
    """With its tags, as in the file."""
    expression: str
    abort_on_fail: bool = False
    delay: float = 0.0
    """Seconds before which it does not end the run."""
    aborted_at: float | None = None
    """When it ended the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSample:
    """What making the load cost one process, in one stretch of time."""

    process: str
    at: float
    """Its end."""
    wall: float
    """Its length in seconds."""
    cpu: float
    """Seconds of the whole process, all threads."""
    starts: int
    """Devices started meanwhile."""
    lag: Histogram
    """How late the event loop woke up, in seconds."""
    rss: int
    """Resident memory at its end, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A line of what happened beside the connections: setup, the activator, an error."""

    at: float
    kind: str
    """``setup``, ``activator``, ``error``, ..."""
    text: str
    account: str | None = None
    device: int | None = None
