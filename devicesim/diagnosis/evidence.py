"""What a diagnosis looks at: what the device is and does, what it saw, what the accounts say. Pure data.

Whoever gathers it (:mod:`devicesim.fleet.diagnose`, from a record or from a live connection, and
:mod:`devicesim.cloud.inspect`, from control planes) fills in what could be had. **Absent is not the same as no**:
``None`` is what was not asked or could not be, and no cause may be argued from it; what would be needed to tell more
is said instead. Times are seconds since the Unix epoch, by the clock of this machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from devicesim.outcome import Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafEvidence:
    """The device's certificate."""

    certificate_id: str
    subject: Mapping[str, str]
    """Attributes by the names of JITP's parameters, without ``AWS::IoT::Certificate::``: CommonName, SerialNumber,
    Organization, OrganizationalUnit, Country, StateName, DistinguishedNameQualifier (aws-iot-behaviour.md §3)."""
    subject_text: str
    """RFC 4514."""
    issuer: str
    """RFC 4514."""
    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WireEvidence:
    """What the device does on the wire, by its configuration."""

    dials: str
    """The account dialled, by its name in the fleet file: where its owner wants it to be."""
    address: tuple[str, int] | None
    """What is connected to; ``None`` where a record does not say."""
    port: int
    """As on AWS: 8883 or 443, whatever :attr:`address` says on an emulator."""
    server_name: str | None
    """Sent as SNI; ``None``: no extension."""
    verify_name: str
    """What the server's certificate must be for."""
    chain_sent: bool
    alpn: tuple[str, ...]
    client_id: str
    mqtt_version: str
    tries_allowed: int
    """How often the device connects before it gives up."""
    foreign_roots: bool
    """The devices trust roots that the fleet file names, not the target's own."""
    assumed: bool = False
    """Port, ALPN, roots, MQTT version and the name verified are not known but assumed: a run's record alone does not
    say them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateEvidence:
    """The JITP template of a CA, and what its run for this device would meet."""

    name: str | None
    """Of the provisioning template; ``None``: the body stands in the CA's registrationConfig."""
    role_arn: str | None
    missing_parameters: tuple[str, ...] = ()
    """Declared without Default, and absent from the certificate's subject."""
    missing_things: tuple[str, ...] = ()
    """What it refers to and the account does not have, in words: ``thing group 'robots'``, ``policy 'p'``."""
    problems: tuple[str, ...] = ()
    """Anything else that would make it fail: not JSON, a colliding thing name, the provisioning template disabled."""
    role_problem: str | None = None
    """What is wrong with the role, by IAM's word (no such role, trust, permissions)."""
    role_asked: bool = False
    """Whether IAM could be asked about the role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CAEvidence:
    """A CA certificate that an account holds, where it may be the issuer of the device's certificate."""

    certificate_id: str
    subject: str
    """RFC 4514."""
    active: bool
    auto_registration: bool
    mode: str
    """DEFAULT or SNI_ONLY."""
    same_subject: bool
    """Its subject is the issuer of the device's certificate."""
    signed_leaf: bool
    """Its key verifies the signature of the device's certificate."""
    template: TemplateEvidence | None
    """JITP; ``None``: JITR."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordEvidence:
    """An account's record of the device's certificate."""

    status: str
    mode: str
    ca_certificate_id: str | None
    created: float | None = None
    modified: float | None = None
    policies: tuple[str, ...] | None = None
    """Names of those attached to it (and to its thing's groups); ``None``: could not be asked."""
    connect_allowed: bool | None = None
    """Whether they allow ``iot:Connect`` with the device's client id, by TestAuthorization."""
    connect_reason: str = ""
    """What speaks against it, in words: the policy's resource, a thing name that the client id is not."""
    things: tuple[str, ...] | None = None

    @property
    def never_pending(self) -> bool:
        """It was ACTIVE from the beginning: registered by a call of the API, and by no try to connect."""
        return self.status == "ACTIVE" and self.created is not None and self.modified == self.created

    @property
    def changed(self) -> float | None:
        """When it came to be as it is, at the latest; ``None``: not known."""
        return self.created if self.modified is None else self.modified


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisioningEvent:
    """A RegisterThing by AWS IoT itself, as CloudTrail has it (aws-iot-behaviour.md §3)."""

    time: float
    error: str | None
    """Name of the exception; ``None``: it succeeded."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """An entry of AWSIotLogsV2 about this device (aws-iot-behaviour.md §8)."""

    time: float
    event_type: str
    """``Connect``, ``Connection.AuthNError``, ``Disconnect``, ..."""
    reason: str
    """``AUTHORIZATION_FAILURE``, ``DEVICE_CERTIFICATE_INACTIVE``, ``SNI_MISUSED``, ``DUPLICATE_CLIENT_ID``, ..."""
    details: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountEvidence:
    """What one account's control plane says, as far as credentials allow."""

    name: str
    account_id: str
    region: str
    endpoint: str | None
    """Its data endpoint (iot:Data-ATS)."""
    cas: tuple[CAEvidence, ...] | None
    """Those with the issuer's subject, or that verify the certificate; ``None``: could not be asked."""
    record_asked: bool
    record: RecordEvidence | None
    """``None`` with :attr:`record_asked`: the account has none."""
    planned_mode: str | None = None
    """The mode in which the fleet file wants the CA here; ``None``: not to be registered."""
    planned_template: bool = False
    """The fleet file wants JITP here."""
    provisioning: tuple[ProvisioningEvent, ...] | None = None
    """Oldest first; ``None``: CloudTrail could not be asked."""
    logs: tuple[LogEvent, ...] | None = None
    """Oldest first; ``None``: the log could not be asked, or is not there."""
    clock_offset: float | None = None
    """Seconds by which this machine's clock is ahead of the control plane's."""
    not_asked: tuple[str, ...] = ()
    """Calls that failed, each with the reason, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetEvidence:
    """What the rest of the run says that matters to one device."""

    same_client_id: int = 0
    """Other devices of the run with this client id."""
    first_tries_per_second: float | None = None
    """The most first connections that one second of the run sent to the account dialled."""
    tries_per_second: float | None = None
    """The most connections of any kind in one second, likewise."""
    peers: int = 0
    """Other devices of the run that do the same (its group)."""
    peers_accepted: int = 0
    errors: tuple[str, ...] = ()
    """Notes of kind ``error`` in the record: what setup or a control plane said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvidence:
    """All that is known of one device."""

    name: str
    """For people: ``device 7 (robot-000007)``."""
    group: str
    """Of the fleet file."""
    leaf: LeafEvidence | None
    """``None``: the certificate is not at hand (a record holds its id only)."""
    certificate_id: str | None
    wire: WireEvidence
    attempts: Sequence[Attempt]
    """In the order made; empty: it was never started."""
    held_open: float | None
    """Seconds that an accepted connection was kept open and watched; ``None``: it was closed at once, or none was
    accepted."""
    accounts: Sequence[AccountEvidence]
    """Those of the fleet file. One without any answer has ``cas`` ``None`` and ``record_asked`` false."""
    now: float
    fleet: FleetEvidence = field(default_factory=FleetEvidence)
    never_started: str = ""
    """Why it has no try, where that is known."""
