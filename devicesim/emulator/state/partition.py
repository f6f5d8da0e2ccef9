"""One account in one Region: what it holds, and the indexes over it. No rules here; those are the families' own.

Everything is keyed so that a connection is answered without a scan: certificates by id, CAs by subject, attachments in
both directions. Whoever changes a dict that has an index uses the methods.
"""

from collections import defaultdict
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar

from devicesim.emulator.state.records import (
    CACertificate,
    DeviceCertificate,
    Policy,
    ProvisioningTemplate,
    Thing,
    ThingGroup,
    ThingPrincipalType,
    ThingType,
)

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
    templates: dict[str, ProvisioningTemplate] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    """By resource ARN."""
    event_configurations: dict[str, bool] = field(default_factory=dict)
    """By event type, as UpdateEventConfigurations left it; absent means disabled."""
    event_configurations_created: float | None = None
    event_configurations_modified: float | None = None

    cas_by_subject: dict[bytes, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    """Ids of CAs by the DER of their subject."""
    certificates_by_ca: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    policies_of_target: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    """Names of policies by the target's ARN (certificate, thing group) or Cognito identity."""
    targets_of_policy: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    things_of_principal: dict[str, dict[str, ThingPrincipalType]] = field(default_factory=lambda: defaultdict(dict))
    """Names of things by the principal's ARN."""
    principals_of_thing: dict[str, dict[str, ThingPrincipalType]] = field(default_factory=lambda: defaultdict(dict))
    groups_of_thing: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    things_of_group: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    things_of_type: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    endpoint: str = field(init=False)
    """Name of the data endpoint (iot:Data-ATS), which is the server name that selects this account."""
    plain_endpoint: str = field(init=False)
    """Name of the older data endpoint (iot:Data), answered and resolved only where the settings say so."""
    credentials_endpoint: str = field(init=False)
    """Name answered for iot:CredentialProvider; nothing listens there."""
    _sequence: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        prefix = endpoint_prefix(self.account_id)
        self.endpoint = f"{prefix}-ats.iot.{self.region}.{ENDPOINT_DOMAIN}"
        self.plain_endpoint = f"{prefix}.iot.{self.region}.{ENDPOINT_DOMAIN}"
        self.credentials_endpoint = f"{prefix}.credentials.iot.{self.region}.{ENDPOINT_DOMAIN}"

    def arn(self, kind: str, name: str) -> str:
        return f"arn:{_arn_partition(self.region)}:iot:{self.region}:{self.account_id}:{kind}/{name}"

    def certificate_arn(self, certificate_id: str) -> str:
        return self.arn("cert", certificate_id)

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

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
        """Add or replace, following a change of thing type."""
        previous = self.things.get(thing.name)
        if previous is not None and previous.thing_type_name is not None:
            drop(self.things_of_type, previous.thing_type_name, thing.name)
        self.things[thing.name] = thing
        if thing.thing_type_name is not None:
            self.things_of_type[thing.thing_type_name][thing.name] = None

    def remove_thing(self, thing: Thing) -> None:
        del self.things[thing.name]
        if thing.thing_type_name is not None:
            drop(self.things_of_type, thing.thing_type_name, thing.name)

    def things_of_certificate(self, certificate_id: str) -> Mapping[str, ThingPrincipalType]:
        """Names of the things that the certificate is attached to."""
        return self.things_of_principal.get(self.certificate_arn(certificate_id), {})


def drop(index: MutableMapping[Key, dict[str, Value]], key: Key, member: str) -> None:
    """Remove ``member`` under ``key``, and the key with its last member: indexes do not grow with what was deleted."""
    members = index[key]
    del members[member]
    if not members:
        del index[key]
