"""The records an account holds. Immutable: a change replaces the record.

Times are seconds since the Unix epoch, to the millisecond, as AWS answers them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography import x509

from devicesim.emulator.policy import Document
from devicesim.emulator.policy import parse as parse_policy
from devicesim.emulator.state.keeping import rebuilt


def load_certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode("ascii"))


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
    certificate: x509.Certificate = field(metadata=rebuilt("pem", load_certificate))
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
class Transfer:
    """How a certificate goes from one account to another, or went (DescribeCertificate's ``transferData``)."""

    source: str
    """Account ids."""
    target: str
    message: str | None
    transfer_date: float
    accept_date: float | None = None
    reject_date: float | None = None
    reject_reason: str | None = None


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
    previous_owner: str | None = None
    """The account that it was transferred from."""
    transfer: Transfer | None = None
    """The latest transfer, as far as this account takes part in it. While the record is PENDING_TRANSFER, the source
    still owns the certificate and the target has a record of the same status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    version_id: int
    document: str
    """As given, so that GetPolicy answers it unchanged."""
    parsed: Document = field(metadata=rebuilt("document", parse_policy))
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
class PropagatingAttribute:
    """A value that is added to messages of a thing of the type, as a user property of MQTT 5."""

    user_property_key: str
    thing_attribute: str | None = None
    connection_attribute: str | None = None
    """``iot:ClientId`` or ``iot:Thing.ThingName``; exactly one of the two attributes is set."""


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
    propagating_attributes: tuple[PropagatingAttribute, ...] = ()


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
class BillingGroup:
    name: str
    arn: str
    billing_group_id: str
    sequence: int
    description: str | None
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


class DomainType(StrEnum):
    ENDPOINT = "ENDPOINT"
    """A default endpoint of the account."""
    AWS_MANAGED = "AWS_MANAGED"
    CUSTOMER_MANAGED = "CUSTOMER_MANAGED"


class DomainStatus(StrEnum):
    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainConfiguration:
    """A further data endpoint of the account, or a change of a default one."""

    name: str
    arn: str
    domain_name: str
    """In lower case: the server name that selects the account."""
    type: DomainType
    status: DomainStatus
    service_type: str
    server_certificate_arns: tuple[str, ...] = ()
    validation_certificate_arn: str | None = None
    authorizer_name: str | None = None
    allow_authorizer_override: bool | None = None
    security_policy: str | None = None
    """Kept and answered, without effect."""
    ocsp_check: bool | None = None
    ocsp_lambda_arn: str | None = None
    ocsp_responder_arn: str | None = None
    authentication_type: str = "DEFAULT"
    application_protocol: str = "DEFAULT"
    client_certificate_callback_arn: str | None = None
    """Kept and answered; never called."""
    last_status_change_date: float | None = None

    @property
    def takes_mqtt_with_certificate(self) -> bool:
        """Whether devices that speak MQTT and have a certificate are meant to use it."""
        return self.application_protocol in ("DEFAULT", "SECURE_MQTT") and self.authentication_type in (
            "DEFAULT",
            "AWS_X509",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleAlias:
    name: str
    arn: str
    role_arn: str
    credential_duration_seconds: int
    creation_date: float
    last_modified_date: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisioningClaim:
    """What CreateProvisioningClaim gave out: a certificate with which devices may be provisioned for a few minutes."""

    certificate_id: str
    template_name: str
    expiration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """How one type of event is logged."""

    event_type: str
    level: str | None = None
    destination: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingOptions:
    """What of the history :mod:`~devicesim.emulator.brokerlog` tells."""

    role_arn: str | None = None
    level: str | None = None
    disabled: bool = False
    events: tuple[LogEvent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingLevel:
    target_type: str
    target_name: str | None
    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveTemplate:
    """The template that JITP runs for a CA, wherever it stands."""

    body: str
    role_arn: str
    name: str | None
    """``None`` when it stands in the CA's own registrationConfig."""
    enabled: bool
    """A named template can be switched off; one in a registrationConfig can not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedMessage:
    """The latest message of a topic that its publisher asked to retain. Times are of the day."""

    topic: str
    payload: bytes
    qos: int
    content_type: str | None
    response_topic: str | None
    correlation_data: bytes | None
    payload_format_indicator: int | None
    user_properties: tuple[tuple[str, str], ...]
    expires_at: float | None
    kept_at: float
    publisher: str | None
    """Client id; ``None`` for the service itself."""
    principal: str | None
    """Certificate id of the publisher."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """A device shadow; see :mod:`devicesim.emulator.state.shadows`."""

    thing_name: str
    name: str | None
    """``None`` for the classic shadow."""
    version: int
    state: str
    """JSON: an object with ``desired`` and ``reported``, where there are any."""
    metadata: str
    """JSON of the same form: when each value was last given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedShadow:
    """What is remembered of a shadow that was deleted: a new one of the same name counts on from it."""

    version: int
    deleted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipToken:
    """Proof of a certificate that was made over MQTT and is not provisioned yet (fleet provisioning)."""

    certificate_id: str
    principal: str
    """Certificate id of whoever asked for it: the claim."""
    expires: float
