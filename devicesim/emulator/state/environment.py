"""What the rules need from outside (clock, random bytes, the template language), and the choices left open by AWS."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

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
    plain_data_endpoint: bool = False
    """Whether DescribeEndpoint answers ``iot:Data``, ``iot:Jobs`` and no type at all, as for old accounts; new ones are
    pointed at iot:Data-ATS (§4.3, M)."""


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
    certificate_listeners: list[Callable[[CertificateChange], None]] = field(default_factory=list)

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
