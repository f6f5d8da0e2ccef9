"""What the rules need from outside (clock, random bytes, the template language), and the choices left open by AWS."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import rsa

from devicesim.emulator.registryevents import RegistryEvent, event_type_of
from devicesim.emulator.state.issuer import Issuer
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import CertificateChange, CertificateChangeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """The control plane's limits, and every choice where AWS's behaviour is not known.

    Marks as in ``aws-iot-behaviour.md``: D documented, M measured by someone, S sample code or issue, I inferred.
    """

    max_cas_with_same_subject: int = 10
    """Per account and Region (§1.1, D)."""
    max_policies_per_principal: int = 10
    """§6, D."""
    max_policy_versions: int = 5
    """§6, D."""
    max_policy_characters: int = 2048
    """Without white space (§1.5, D)."""
    max_template_versions: int = 5
    """AWS's service quota "fleet provisioning template versions" (D); for JITP templates assumed the same (I)."""
    max_thing_attributes: int = 50
    """Of a thing with a thing type (service quota, D)."""
    max_thing_attributes_without_type: int = 3
    """CreateThing: "up to three name/value pairs" (D)."""
    max_groups_per_thing: int = 10
    """AddThingToThingGroup speaks of "the 10-group limit" (D)."""
    max_policies_per_thing_group: int = 2
    """Developer guide, "static thing groups" (D)."""
    max_thing_group_depth: int = 7
    """Levels of a hierarchy of groups (service quota, D)."""
    max_child_groups: int = 100
    """Direct children of a thing group (service quota, D)."""
    max_thing_group_attributes: int = 50
    """Service quota (D)."""
    things_groups_with_parents: bool = True
    """Whether ListThingGroupsForThing answers the groups above a thing's own, too (developer guide, D; botocore does
    not say so, I)."""
    default_page_size: int = 25
    """Of listings whose caller names none (of CAs and certificates §1.3, D; of everything else assumed the same, I)."""
    detach_policy_not_attached: Literal["ignore", "refuse"] = "ignore"
    """DetachPolicy of a policy that is not attached: nothing, or ResourceNotFoundException (clean-up of SDKs and of
    Terraform takes either; I)."""
    billing_group_with_things: Literal["refuse", "empty"] = "refuse"
    """DeleteBillingGroup of one that has things: refused, or the things are in none then (I)."""
    billing_group_moves: bool = False
    """Whether AddThingToBillingGroup takes a thing that is in another billing group (that it is in one at most, D; that
    the call refuses, I)."""
    max_searchable_attributes: int = 3
    """Of a thing type (service quota, D)."""
    max_tags: int = 50
    """Per resource (service quota, D)."""
    second_default_error: Literal[
        "ResourceAlreadyExistsException", "InvalidRequestException", "CertificateValidationException"
    ] = "ResourceAlreadyExistsException"
    """What the second account of a Region is told that registers a CA in DEFAULT mode (§1.1; rule D, name I)."""
    revoked_is_final: bool = True
    """Whether UpdateCertificate refuses to leave REVOKED (§1.4: "treated as terminal", confidence M)."""
    same_leaf_default_in_two_accounts: bool = True
    """Whether a leaf may have DEFAULT records in two accounts of a Region, which can only come about when its CA was
    deleted in the first and registered in DEFAULT mode in the second (§7: records are independent, I)."""
    thing_type_deletion_delay: float = 300.0
    """Seconds between DeprecateThingType and DeleteThingType (developer guide: five minutes, D)."""
    register_thing_existing: Literal["FAIL", "DO_NOTHING"] = "FAIL"
    """What RegisterThing, called or by way of a claim, does with a thing of another configuration and with a
    certificate of another status, where its template has no OverrideSettings for it (§3; I). A certificate that is
    PENDING_ACTIVATION is always given the template's status."""
    accepted_curves: tuple[str, ...] = ("secp256r1", "secp384r1", "secp521r1")
    """Elliptic curves of certificates and requests (botocore, CreateCertificateFromCsr, D; for CAs and other
    certificates the same, I)."""
    verification_contradiction_error: Literal["InvalidRequestException", "CertificateValidationException"] = (
        "InvalidRequestException"
    )
    """RegisterCACertificate in DEFAULT mode without verification certificate, or in SNI_ONLY with one (§1.2; rule D,
    name I)."""
    remove_and_set_auto_registration: Literal["refuse", "remove"] = "refuse"
    """UpdateCACertificate that removes and sets auto registration at once (§1.3 uses two calls; I)."""
    unknown_template_error: Literal["ResourceNotFoundException", "InvalidRequestException"] = (
        "ResourceNotFoundException"
    )
    """A registrationConfig that names a provisioning template which does not exist (§1.2, I)."""
    template_named_by_ca_stays: bool = True
    """Whether DeleteProvisioningTemplate refuses while a CA names the template (DeleteConflictException is in the
    model, D; that a CA counts, I). Otherwise first connections under that CA fail."""
    ambiguous_issuer: Literal["registering", "oldest"] = "registering"
    """Which of several CAs with the same subject and key signed an unknown leaf, when the device sent none of them:
    one that registers devices, else the oldest; or always the oldest (§3, I)."""
    moved_default_leaf_answers: bool = True
    """Whether a connection without SNI is answered at all when two accounts hold its leaf in DEFAULT mode: by the one
    that holds the CA in DEFAULT mode now (I)."""
    unregistered_ca_error: Literal["CertificateValidationException", "InvalidRequestException"] = (
        "CertificateValidationException"
    )
    """RegisterCertificate of a leaf whose CA the account does not have, or that the given CA did not sign (I)."""
    inactive_ca_error: Literal[
        "CertificateStateException", "InvalidRequestException", "CertificateValidationException"
    ] = "CertificateStateException"
    """RegisterCertificate under a CA that is INACTIVE (§1.3; rule D, name I)."""
    transfer_with_things: bool = False
    """Whether TransferCertificate takes a certificate that things are attached to (botocore names policies alone, D;
    things I). Then accepting it detaches them."""
    transfer_not_pending_error: Literal[
        "TransferAlreadyCompletedException", "InvalidRequestException", "ResourceNotFoundException"
    ] = "InvalidRequestException"
    """Accept, Reject or CancelCertificateTransfer of a certificate that was never in transfer (I)."""
    claim_seconds: float = 300.0
    """How long the certificate of CreateProvisioningClaim lives (developer guide "trusted user": five minutes, D)."""
    claim_needs_enabled_template: bool = True
    """Whether CreateProvisioningClaim refuses a template that is not enabled (I)."""
    max_domain_configurations: int = 10
    """Per account and Region, without the default endpoints (service quota, D)."""
    aws_managed_domain_deletion_delay: float = 7 * 24 * 3600.0
    """Seconds that a domain configuration on a domain of AWS must be DISABLED before it can be deleted (developer
    guide: seven days, D)."""
    taken_domain_error: Literal["InvalidRequestException", "ResourceAlreadyExistsException"] = "InvalidRequestException"
    """CreateDomainConfiguration with a domain name that is configured in the Region already (I)."""
    session_seconds: int = 3600
    """How long AssumeRole's credentials are valid when the caller does not say (D)."""
    max_session_seconds: int = 3600
    """Longest session of a role: what every role has until it is given more (IAM user guide, D)."""
    secret_access_keys: Mapping[str, str] | None = field(default=None, repr=False)
    """By access key id, the secrets that calls must be signed with; a call with another key, signature or date is
    refused. ``None``: signatures are not verified, any key will do."""
    signature_skew_seconds: float = 300.0
    """How far a signature's date may be from the emulator's clock (messages of AWS services speak of 5 or 15 minutes,
    S; for IoT I)."""
    max_topic_rules: int = 1000
    """Per account and Region (service quota, D; that the call is refused with InvalidRequestException I)."""
    max_rule_bytes: int = 256 * 1024
    """Of a topic rule's document in UTF-8, white space included (service quota, D; the error I)."""
    rule_role_of_other_account: Literal["refuse", "accept"] = "refuse"
    """A topic rule's action with a role of another account: AWS tries to assume the role when the rule is made
    (ministack #1417, M), and PassRole does not reach over accounts; that this is the same error I."""
    rule_plain_http: bool = True
    """Whether an HTTP action may have an ``http://`` URL of this machine. AWS takes ``https://`` alone (developer
    guide, D); ours, because a test's server seldom has a certificate."""
    rule_unnamed_expression: Literal["refuse", "text"] = "refuse"
    """A selected expression that is neither an attribute nor a function and has no AS: SqlParseException, or its own
    text is its name in the output (how AWS names it is not documented; I)."""
    rule_list_topic: Literal["equal", "match"] = "equal"
    """ListTopicRules with ``topic``: the rules whose FROM has this text, or also those that match it (I)."""
    confirmation_token_seconds: float = 3 * 24 * 3600.0
    """How long the token of a destination's confirmation message is valid (developer guide, D)."""
    shadow_max_bytes: int = 8 * 1024
    """Of a shadow's desired and reported state together, without metadata (service quota, D), and of a request (I)."""
    shadow_max_depth: int = 6
    """Objects and arrays that stand in each other in a section, itself counted (developer guide "device shadow error
    messages": 6, D; the service quota says 8)."""
    shadow_needs_thing: bool = False
    """Whether a shadow can only be had of a thing that exists. AWS's own SDK tests use names that no thing has
    (aws-iot-device-sdk-python-v2, S)."""
    shadow_keeps_empty_objects: bool = False
    """Whether ``{}`` as a value in a shadow is kept; else it goes as an empty section does (sections D, values I)."""
    shadow_delete_is_a_version: bool = True
    """Whether deleting a shadow counts as a version, so that a new one of its name begins two above the deleted one
    (aws-greengrass-shadow-manager PR 97, S), or follows it directly."""
    shadow_version_retention: float = 48 * 3600.0
    """Seconds for which a deleted shadow's version is remembered (developer guide: 48 hours, D)."""
    plain_data_endpoint: bool = False
    """Whether DescribeEndpoint answers ``iot:Data``, ``iot:Jobs`` and no type at all, as for old accounts; new ones are
    pointed at iot:Data-ATS (§4.3, M)."""


def _generate_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Shared by every family of rules of one registry."""

    clock: Callable[[], float]
    """Seconds since the Unix epoch."""
    randbytes: Callable[[int], bytes]
    """Source of ids, codes and generation ids."""
    validate_template: Callable[[str], None]
    """Raises ``InvalidRequestException`` when a provisioning template can not be one."""
    settings: ControlSettings = field(default_factory=ControlSettings)
    issuer: Issuer = field(default_factory=lambda: Issuer(_generate_rsa_key))
    """Signs the certificates that the service makes itself."""
    certificate_listeners: list[Callable[[CertificateChange], None]] = field(default_factory=list)
    event_listeners: list[Callable[[Partition, RegistryEvent], None]] = field(default_factory=list)
    """Told in order of every event of the registry that its account has switched on."""

    def now(self) -> float:
        """The time, to the millisecond, as AWS keeps it."""
        return round(self.clock(), 3)

    def hex(self, size: int) -> str:
        """``size`` random bytes in lower-case hexadecimal."""
        return self.randbytes(size).hex()

    def uuid(self) -> str:
        """A random id in the form of things, thing types and thing groups."""
        digits = self.hex(16)
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def tell(self, change: CertificateChange) -> None:
        for listener in self.certificate_listeners:
            listener(change)

    def happened(self, partition: Partition, *events: RegistryEvent) -> None:
        """Tell of events of the registry, once the change is made; those that are switched off are told to nobody."""
        for event in events:
            if partition.event_configurations.get(event_type_of(event)):
                for listener in self.event_listeners:
                    listener(partition, event)

    def tell_of_thing(self, partition: Partition, thing_name: str) -> None:
        """Tell of a change of the policies that the certificates of a thing get from its groups."""
        for principal in tuple(partition.principals_of_thing.get(thing_name, ())):
            self.tell_of_principal(partition, principal, CertificateChangeKind.POLICIES)

    def tell_of_target(self, partition: Partition, target: str) -> None:
        """Tell of a change of the policies of a certificate, or of a thing group and so of all things below it."""
        what, _, name = target.rpartition(":")[2].partition("/")
        if what != "thinggroup":
            self.tell_of_principal(partition, target, CertificateChangeKind.POLICIES)
            return
        children: dict[str | None, list[str]] = {}
        for group in partition.thing_groups.values():
            children.setdefault(group.parent, []).append(group.name)
        below = [name]
        for group_name in below:  # grows while it is walked
            below += children.get(group_name, ())
            for thing_name in tuple(partition.things_of_group.get(group_name, ())):
                self.tell_of_thing(partition, thing_name)

    def tell_of_principal(self, partition: Partition, principal: str, kind: CertificateChangeKind) -> None:
        """Tell of a change at a principal or policy target, by ARN, when that is a certificate of the account."""
        what, _, certificate_id = principal.rpartition(":")[2].partition("/")
        certificate = partition.certificates.get(certificate_id) if what == "cert" else None
        if certificate is not None:
            self.tell(
                CertificateChange(
                    account_id=partition.account_id,
                    region=partition.region,
                    certificate_id=certificate_id,
                    certificate=certificate,
                    previous_status=certificate.status,
                    kind=kind,
                )
            )
