"""One account in one Region: what it holds, and the indexes over it. No rules here; those are the families' own.

Everything is keyed so that a connection is answered without a scan: certificates by id, CAs by subject, attachments in
both directions. Whoever changes a dict that has an index uses the methods.
"""

from collections import defaultdict
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar

from devicesim.emulator.state.keeping import DERIVED, inverse_of
from devicesim.emulator.state.records import (
    BillingGroup,
    CACertificate,
    DeletedShadow,
    DeviceCertificate,
    DomainConfiguration,
    LoggingLevel,
    LoggingOptions,
    OwnershipToken,
    Policy,
    ProvisioningClaim,
    ProvisioningTemplate,
    RetainedMessage,
    RoleAlias,
    Shadow,
    Thing,
    ThingGroup,
    ThingPrincipalType,
    ThingType,
)
from devicesim.emulator.state.topicrulerecords import RuleDestination, TopicRule

Key = TypeVar("Key", bytes, str)
Value = TypeVar("Value")

ENDPOINT_DOMAIN = "localhost"
"""Stands where AWS has ``amazonaws.com``; every ``*.localhost`` is this machine (RFC 6761)."""


EVENT_TYPES = (
    "THING",
    "THING_GROUP",
    "THING_TYPE",
    "THING_GROUP_MEMBERSHIP",
    "THING_GROUP_HIERARCHY",
    "THING_TYPE_ASSOCIATION",
    "JOB",
    "JOB_EXECUTION",
    "POLICY",
    "CERTIFICATE",
    "CA_CERTIFICATE",
)
"""Of event configurations (§8)."""


def endpoint_prefix(account_id: str) -> str:
    """The account's own label in its endpoints: fourteen characters as AWS's, a function of the account id alone."""
    digits = int.from_bytes(sha256(b"devicesim endpoint " + account_id.encode()).digest()[:16], "big")
    alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
    label = ""
    for _ in range(13):
        digits, digit = divmod(digits, len(alphabet))
        label += alphabet[digit]
    return "a" + label


def _arn_partition(region: str) -> str:
    """The first word of ARNs in a Region: China and GovCloud have their own."""
    return "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"


@dataclass(slots=True, kw_only=True, eq=False)
class Partition:
    """One account in one Region. Different Regions share nothing (§1.1)."""

    account_id: str
    region: str
    registration_code: str | None = None
    """Made by the first GetRegistrationCode, gone with DeleteRegistrationCode (§1.2)."""
    cas: dict[str, CACertificate] = field(default_factory=dict)
    """By certificate id, in the order of registration; change through :meth:`put_ca` and :meth:`remove_ca`."""
    certificates: dict[str, DeviceCertificate] = field(default_factory=dict)
    """As ``cas``; change through :meth:`put_certificate` and :meth:`remove_certificate`."""
    policies: dict[str, Policy] = field(default_factory=dict)
    things: dict[str, Thing] = field(default_factory=dict)
    thing_types: dict[str, ThingType] = field(default_factory=dict)
    thing_groups: dict[str, ThingGroup] = field(default_factory=dict)
    billing_groups: dict[str, BillingGroup] = field(default_factory=dict)
    templates: dict[str, ProvisioningTemplate] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    """By resource ARN."""
    transferred_certificates: dict[str, str] = field(default_factory=dict)
    """Certificates that another account has accepted: by id, that account's id."""
    domain_configurations: dict[str, DomainConfiguration] = field(default_factory=dict)
    """By name; of the default endpoints (``iot:Data-ATS``) only those that were changed."""
    role_aliases: dict[str, RoleAlias] = field(default_factory=dict)
    topic_rules: dict[str, TopicRule] = field(default_factory=dict)
    rule_destinations: dict[str, RuleDestination] = field(default_factory=dict)
    """By ARN."""
    claims: dict[str, ProvisioningClaim] = field(default_factory=dict)
    """Temporary claims, by the id of their certificate; the certificate is among ``certificates`` and not listed."""
    logging_options: dict[str, LoggingOptions] = field(default_factory=dict)
    """By ``v1`` and ``v2``."""
    logging_levels: dict[str, LoggingLevel] = field(default_factory=dict)
    """By target, as ``THING_GROUP/name``."""
    event_configurations: dict[str, bool] = field(default_factory=dict)
    """By event type, as UpdateEventConfigurations left it; absent means disabled."""
    event_configurations_created: float | None = None
    event_configurations_modified: float | None = None

    shadows: dict[str, Shadow] = field(default_factory=dict)
    """By thing name, named ones by ``thing/name``; change through :meth:`put_shadow` and :meth:`remove_shadow`."""
    deleted_shadows: dict[str, DeletedShadow] = field(default_factory=dict)
    """As ``shadows``, in the order in which they were deleted."""
    ownership_tokens: dict[str, OwnershipToken] = field(default_factory=dict)
    """By token, in the order in which they expire."""

    retained: dict[str, RetainedMessage] = field(default_factory=dict)
    """MQTT messages by topic; change through :mod:`devicesim.emulator.retained`, which brokers do."""

    named_shadows: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict), metadata=DERIVED)
    """Names of shadows by thing name; classic ones are not among them."""
    cas_by_subject: dict[bytes, dict[str, None]] = field(default_factory=lambda: defaultdict(dict), metadata=DERIVED)
    """Ids of CAs by the DER of their subject."""
    certificates_by_ca: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict), metadata=DERIVED)
    policies_of_target: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    """Names of policies by the target's ARN (certificate, thing group) or Cognito identity."""
    targets_of_policy: dict[str, dict[str, None]] = field(
        default_factory=lambda: defaultdict(dict), metadata=inverse_of("policies_of_target")
    )
    things_of_principal: dict[str, dict[str, ThingPrincipalType]] = field(default_factory=lambda: defaultdict(dict))
    """Names of things by the principal's ARN."""
    principals_of_thing: dict[str, dict[str, ThingPrincipalType]] = field(
        default_factory=lambda: defaultdict(dict), metadata=inverse_of("things_of_principal")
    )
    groups_of_thing: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    things_of_group: dict[str, dict[str, None]] = field(
        default_factory=lambda: defaultdict(dict), metadata=inverse_of("groups_of_thing")
    )
    things_of_type: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict), metadata=DERIVED)
    things_of_billing_group: dict[str, dict[str, None]] = field(
        default_factory=lambda: defaultdict(dict), metadata=DERIVED
    )
    endpoint: str = field(init=False, metadata=DERIVED)
    """Name of the data endpoint (iot:Data-ATS), which is the server name that selects this account."""
    plain_endpoint: str = field(init=False, metadata=DERIVED)
    """Name of the older data endpoint (iot:Data), answered and resolved only where the settings say so."""
    jobs_endpoint: str = field(init=False, metadata=DERIVED)
    """Name answered for iot:Jobs where the settings say so; nothing listens there."""
    credentials_endpoint: str = field(init=False, metadata=DERIVED)
    """Name answered for iot:CredentialProvider; nothing listens there."""
    _sequence: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        prefix = endpoint_prefix(self.account_id)
        self.endpoint = f"{prefix}-ats.iot.{self.region}.{ENDPOINT_DOMAIN}"
        self.plain_endpoint = f"{prefix}.iot.{self.region}.{ENDPOINT_DOMAIN}"
        self.jobs_endpoint = f"{prefix}.jobs.iot.{self.region}.{ENDPOINT_DOMAIN}"
        self.credentials_endpoint = f"{prefix}.credentials.iot.{self.region}.{ENDPOINT_DOMAIN}"

    def arn(self, kind: str, name: str) -> str:
        return f"arn:{_arn_partition(self.region)}:iot:{self.region}:{self.account_id}:{kind}/{name}"

    def certificate_arn(self, certificate_id: str) -> str:
        return self.arn("cert", certificate_id)

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def rebuild_indexes(self) -> None:
        """Make again what is not kept (metadata ``DERIVED``) from what is, after the rest was read from disk."""
        for ca in self.cas.values():
            self.cas_by_subject[ca.certificate.subject.public_bytes()][ca.certificate_id] = None
        for certificate in self.certificates.values():
            if certificate.ca_certificate_id is not None:
                self.certificates_by_ca[certificate.ca_certificate_id][certificate.certificate_id] = None
        for thing in self.things.values():
            self._index_thing(thing)
        for shadow in self.shadows.values():
            if shadow.name is not None:
                self.named_shadows[shadow.thing_name][shadow.name] = None

    def put_ca(self, ca: CACertificate) -> None:
        self.cas[ca.certificate_id] = ca
        self.cas_by_subject[ca.certificate.subject.public_bytes()][ca.certificate_id] = None

    def remove_ca(self, ca: CACertificate) -> None:
        del self.cas[ca.certificate_id]
        drop(self.cas_by_subject, ca.certificate.subject.public_bytes(), ca.certificate_id)

    def put_certificate(self, certificate: DeviceCertificate) -> None:
        """Add or replace; the CA of a record never changes."""
        self.certificates[certificate.certificate_id] = certificate
        if certificate.ca_certificate_id is not None:
            self.certificates_by_ca[certificate.ca_certificate_id][certificate.certificate_id] = None

    def remove_certificate(self, certificate: DeviceCertificate) -> None:
        del self.certificates[certificate.certificate_id]
        if certificate.ca_certificate_id is not None:
            drop(self.certificates_by_ca, certificate.ca_certificate_id, certificate.certificate_id)

    def attach_policy(self, policy_name: str, target: str) -> None:
        self.policies_of_target[target][policy_name] = None
        self.targets_of_policy[policy_name][target] = None

    def detach_policy(self, policy_name: str, target: str) -> None:
        drop(self.policies_of_target, target, policy_name)
        drop(self.targets_of_policy, policy_name, target)

    def attach_principal(self, thing_name: str, principal: str, kind: ThingPrincipalType) -> None:
        self.things_of_principal[principal][thing_name] = kind
        self.principals_of_thing[thing_name][principal] = kind

    def detach_principal(self, thing_name: str, principal: str) -> None:
        drop(self.things_of_principal, principal, thing_name)
        drop(self.principals_of_thing, thing_name, principal)

    def join_group(self, thing_name: str, group_name: str) -> None:
        self.groups_of_thing[thing_name][group_name] = None
        self.things_of_group[group_name][thing_name] = None

    def leave_group(self, thing_name: str, group_name: str) -> None:
        drop(self.groups_of_thing, thing_name, group_name)
        drop(self.things_of_group, group_name, thing_name)

    def put_thing(self, thing: Thing) -> None:
        """Add or replace, following a change of thing type or billing group."""
        previous = self.things.get(thing.name)
        if previous is not None:
            self._unindex_thing(previous)
        self.things[thing.name] = thing
        self._index_thing(thing)

    def remove_thing(self, thing: Thing) -> None:
        del self.things[thing.name]
        self._unindex_thing(thing)

    def _index_thing(self, thing: Thing) -> None:
        if thing.thing_type_name is not None:
            self.things_of_type[thing.thing_type_name][thing.name] = None
        if thing.billing_group_name is not None:
            self.things_of_billing_group[thing.billing_group_name][thing.name] = None

    def _unindex_thing(self, thing: Thing) -> None:
        if thing.thing_type_name is not None:
            drop(self.things_of_type, thing.thing_type_name, thing.name)
        if thing.billing_group_name is not None:
            drop(self.things_of_billing_group, thing.billing_group_name, thing.name)

    def put_shadow(self, shadow: Shadow) -> None:
        """Add or replace."""
        if shadow.name is None:
            self.shadows[shadow.thing_name] = shadow
            return
        self.shadows[f"{shadow.thing_name}/{shadow.name}"] = shadow
        self.named_shadows[shadow.thing_name][shadow.name] = None

    def remove_shadow(self, shadow: Shadow) -> None:
        if shadow.name is None:
            del self.shadows[shadow.thing_name]
            return
        del self.shadows[f"{shadow.thing_name}/{shadow.name}"]
        drop(self.named_shadows, shadow.thing_name, shadow.name)

    def things_of_certificate(self, certificate_id: str) -> Mapping[str, ThingPrincipalType]:
        """Names of the things that the certificate is attached to."""
        return self.things_of_principal.get(self.certificate_arn(certificate_id), {})


def drop(index: MutableMapping[Key, dict[str, Value]], key: Key, member: str) -> None:
    """Remove ``member`` under ``key``, and the key with its last member: indexes do not grow with what was deleted."""
    members = index[key]
    del members[member]
    if not members:
        del index[key]
