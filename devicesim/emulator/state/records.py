"""The records an account holds. Immutable: a change replaces the record.

Times are seconds since the Unix epoch, to the millisecond, as AWS answers them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography import x509

from devicesim.emulator.policy import Document


class CertificateMode(StrEnum):
    """How a certificate may be presented (aws-iot-behaviour.md §1.1)."""

    DEFAULT = "DEFAULT"
    """Devices need not send SNI; at most one account per Region holds the CA so."""
    SNI_ONLY = "SNI_ONLY"
    """Devices must send SNI; any number of accounts."""


class CACertificateStatus(StrEnum):
    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"


class AutoRegistrationStatus(StrEnum):
    ENABLE = "ENABLE"
    DISABLE = "DISABLE"


class CertificateStatus(StrEnum):
    """Status of a device certificate. ``PENDING_*`` are AWS's own and can not be asked for."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    REVOKED = "REVOKED"
    PENDING_TRANSFER = "PENDING_TRANSFER"
    REGISTER_INACTIVE = "REGISTER_INACTIVE"
    """Deprecated by AWS; refused as a target."""
    PENDING_ACTIVATION = "PENDING_ACTIVATION"
    """Registered by a first connection (JITR, JITP) and not yet activated."""


class ThingPrincipalType(StrEnum):
    EXCLUSIVE_THING = "EXCLUSIVE_THING"
    NON_EXCLUSIVE_THING = "NON_EXCLUSIVE_THING"


class TemplateType(StrEnum):
    FLEET_PROVISIONING = "FLEET_PROVISIONING"
    JITP = "JITP"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationConfig:
    """What a CA does beyond registering (JITP): a template of its own with a role, or a named template."""

    template_body: str | None = None
    role_arn: str | None = None
    template_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CACertificate:
    """A CA registered in one account and Region."""

    certificate_id: str
    arn: str
    sequence: int
    """Order of creation within the account and Region."""
    certificate: x509.Certificate
    pem: str
    mode: CertificateMode
    status: CACertificateStatus
    auto_registration: AutoRegistrationStatus
    registration_config: RegistrationConfig | None
    creation_date: float
    last_modified_date: float
    customer_version: int
    generation_id: str
    not_before: float
    not_after: float

    @property
    def registers_devices(self) -> bool:
        """Whether a first connection of a device under this CA registers it (§2: ACTIVE and ENABLE)."""
        return self.status is CACertificateStatus.ACTIVE and self.auto_registration is AutoRegistrationStatus.ENABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCertificate:
    """A device certificate's record in one account and Region. The same leaf has the same id in every account."""

    certificate_id: str
    arn: str
    sequence: int
    """Order of registration within the account and Region."""
    pem: str
    status: CertificateStatus
    mode: CertificateMode
    ca_certificate_id: str | None
    """``None`` for a certificate registered without a CA. The CA may have been deleted since."""
    creation_date: float
    """For an auto-registered certificate, when it was first seen (the event's certificateRegistrationTimestamp)."""
    last_modified_date: float
    customer_version: int
    generation_id: str
    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    version_id: int
    document: str
    """As given, so that GetPolicy answers it unchanged."""
    parsed: Document
    """The same, parsed once; what :func:`devicesim.emulator.policy.evaluate` takes."""
    creation_date: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    name: str
    arn: str
    sequence: int
    versions: Mapping[int, PolicyVersion]
    default_version_id: int
    next_version_id: int
    """Version numbers are never used twice."""
    creation_date: float
    last_modified_date: float
    generation_id: str

    @property
    def default(self) -> PolicyVersion:
        return self.versions[self.default_version_id]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    name: str
    arn: str
    thing_id: str
    sequence: int
    thing_type_name: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    billing_group_name: str | None = None
    version: int = 1

    @property
    def default_client_id(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingType:
    name: str
    arn: str
    thing_type_id: str
    sequence: int
    description: str | None
    searchable_attributes: tuple[str, ...]
    creation_date: float
    deprecation_date: float | None = None
    """When it was deprecated; ``None`` while in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingGroup:
    name: str
    arn: str
    thing_group_id: str
    sequence: int
    parent: str | None
    description: str | None
    attributes: Mapping[str, str]
    creation_date: float
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateVersion:
    version_id: int
    body: str
    creation_date: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisioningTemplate:
    name: str
    arn: str
    sequence: int
    type: TemplateType
    description: str | None
    enabled: bool
    role_arn: str
    pre_provisioning_hook: Mapping[str, str] | None
    """Kept and answered; never called."""
    versions: Mapping[int, TemplateVersion]
    default_version_id: int
    next_version_id: int
    creation_date: float
    last_modified_date: float

    @property
    def body(self) -> str:
        return self.versions[self.default_version_id].body


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveTemplate:
    """The template that JITP runs for a CA, wherever it stands."""

    body: str
    role_arn: str
    name: str | None
    """``None`` when it stands in the CA's own registrationConfig."""
    enabled: bool
    """A named template can be switched off; one in a registrationConfig can not."""


class CertificateChangeKind(StrEnum):
    REGISTERED = "registered"
    STATUS = "status"
    DELETED = "deleted"
    POLICIES = "policies"
    """A policy was attached or detached."""
    THINGS = "things"
    """A thing was attached or detached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateChange:
    """Something happened to a device certificate that a live connection may have to feel."""

    account_id: str
    region: str
    certificate_id: str
    certificate: DeviceCertificate | None
    """The record after the change; ``None`` when it was deleted."""
    previous_status: CertificateStatus | None
    """``None`` when it was registered just now."""
    kind: CertificateChangeKind
