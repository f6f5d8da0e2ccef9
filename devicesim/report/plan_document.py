"""A plan as a document: what ``plan --json`` prints, and its published JSON Schema. Pure.

``null`` is what is not known of a machine, or what does not apply.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PlannedSchedule(_Model):
    """When devices start."""

    description: str
    seconds: float
    """Until the last device is due to start."""
    estimated: bool
    """The model is closed, so the target sets the pace; it is taken to answer a try within a second."""
    starts_per_second: float
    """At most; of a burst, in the second in which it comes."""
    connects_per_second: float
    """At most, with the tries after the first."""
    hold_seconds: float
    """For which accepted devices stay connected."""


class PlannedGroup(_Model):
    """A group of the fleet file, and what the oracle says of it."""

    name: str
    devices: int
    dials: str
    counts_in: str
    """The account that its connections count in."""
    outcome: str
    tries: int
    """Connections of each device, at the least."""
    connected: int
    """Connections at once, at most."""
    messages_per_second: float


class PlannedLimit(_Model):
    """One of AWS's default limits, and what the fleet asks of it."""

    name: str
    default: float
    """A second, or at once."""
    at_once: bool
    per_connection: bool
    bytes: bool
    afterwards: bool
    """Used when a run asks the account what it holds; not while devices connect."""
    total: int | None
    """Requests in all."""
    needed: float | None
    """A second, or at once, at the schedule's peak."""
    exceeded: bool
    ask_for: int | None
    """The limit that keeps the schedule, where the default does not."""
    least_seconds: float | None
    """What all requests take at the default."""
    mark: str
    """D documented; D/I documented, and inferred that it counts here."""
    source: str


class PlannedAccount(_Model):
    """One account, under AWS's default limits."""

    name: str
    account_id: str
    region: str
    devices: int
    limits: tuple[PlannedLimit, ...]
    binding: str | None
    """The limit that takes longest while devices connect."""
    least_seconds: float
    """What that takes at the default."""
    least_seconds_asking: float
    """What asking the account afterwards takes at the defaults."""


class PlannedLoad(_Model):
    """What the machine, or machines, with the devices need against AWS."""

    processes: int
    cores: float
    connected: int
    """Connections at once, at most, when the target answers as it should."""
    connected_if_slow: int
    """The same when every try takes as long as its deadlines allow."""
    under_way: int
    """Devices between start and end at once, at most."""
    open_files: int
    """Of each process."""
    open_files_if_slow: int
    ports: int
    """Local ports at once towards the busiest account."""
    sources: int
    """Local addresses, each with the ports that this machine has of one; or Linux's usual 28,232."""
    memory: int
    """Bytes at the most."""
    memory_devices: int
    """Bytes of the devices under way."""
    memory_processes: int
    """Bytes of the processes before their first device."""
    memory_asking: int
    """Bytes at the end, in the first process, when the devices' are free again."""


class PlannedMachine(_Model):
    """What this machine has of it."""

    cores: int
    open_files: int | None
    ports: int | None
    memory: int | None
    """Bytes available now."""


class PlannedLack(_Model):
    """What this machine has too little of."""

    kind: str
    certain: bool
    """A run on this machine alone would be refused; otherwise it may fall behind."""
    text: str
    hint: str


class PlannedCosts(_Model):
    """The constants of the model, as measured on devicesim's own machine."""

    connack_cpu_seconds: float
    """Of a connection, from TCP to CONNACK."""
    connection_cpu_seconds: float
    """Of a connection, with minting, record and verification."""
    message_cpu_seconds: float
    device_bytes: int
    process_bytes: int
    asked_bytes: int
    busy: float
    """Share of a core that a process may use."""
    connect_seconds: float
    """That a try is taken to last."""
    time_wait_seconds: float
    """For which the port of a closed connection is kept."""


class Plan(_Model):
    """What a fleet needs, of whoever makes its load and of AWS."""

    format: Literal[1] = 1
    fleet: str
    devicesim_version: str
    devices: int
    connections: int
    """In all, at the least."""
    schedule: PlannedSchedule
    groups: tuple[PlannedGroup, ...]
    accounts: tuple[PlannedAccount, ...]
    rate_within_limits: float | None
    """Starts a second that keep within AWS's default rates; null: the schedule does, or it is closed."""
    load: PlannedLoad
    machine: PlannedMachine
    lacks: tuple[PlannedLack, ...]
    costs: PlannedCosts

    def to_json(self) -> str:
        """One indented document."""
        return self.model_dump_json(indent=2)
