"""What a record holds besides attempts, holdings and verdicts: run, accounts, groups, devices, notes. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from devicesim.record.verdict import UserExpectation
from devicesim.rules import Expectation


class RunStatus(StrEnum):
    """How far a run came, as its record tells it."""

    RUNNING = "running"
    """Not ended. A killed run says so for ever: nobody was left to write the end."""
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    """Ended before every device had come to its end."""


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
    """Starts a second that the schedule asks for."""
    arrival: str = "open"
    """Workload model: starts are due at their times whatever the target does."""
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
class Note:
    """A line of what happened beside the connections: setup, the activator, an error."""

    at: float
    kind: str
    """``setup``, ``activator``, ``error``, ..."""
    text: str
    account: str | None = None
    device: int | None = None
