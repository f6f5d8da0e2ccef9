"""Temporary claims for provisioning by a trusted user (developer guide, "provisioning by trusted user", D).

CreateProvisioningClaim makes a certificate that lives for some minutes, is in no list, and can do nothing but ask for
a certificate and run the one template.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from devicesim.emulator import policy
from devicesim.emulator.apierrors import invalid_request
from devicesim.emulator.state.certificates import Certificates
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.issuer import KeyPair
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import DeviceCertificate, ProvisioningClaim, TemplateType
from devicesim.emulator.state.templates import Templates


@dataclass(frozen=True, slots=True, kw_only=True)
class NewClaim:
    """A claim as it is given out."""

    certificate: DeviceCertificate
    keys: KeyPair
    expiration: float


class Claims:
    """The temporary claims of every account and Region."""

    def __init__(self, environment: Environment, certificates: Certificates, templates: Templates) -> None:
        self._environment = environment
        self._certificates = certificates
        self._templates = templates
        self.on_created: list[Callable[[Partition, ProvisioningClaim], None]] = []
        """Called after a claim was made: whoever has timers sees to it that :meth:`expire` is called in time."""

    def create(self, partition: Partition, template_name: str) -> NewClaim:
        """Make a claim for a template of fleet provisioning (CreateProvisioningClaim)."""
        settings = self._environment.settings
        template = self._templates.get(partition, template_name)
        if template.type is not TemplateType.FLEET_PROVISIONING:
            raise invalid_request(
                f"The provisioning template {template_name} is of type {template.type}, FLEET_PROVISIONING is required"
            )
        if not template.enabled and settings.claim_needs_enabled_template:
            raise invalid_request(f"The provisioning template {template_name} is not enabled")
        self.expire(partition)
        now = self._environment.now()
        expiration = float(int(now + settings.claim_seconds))
        certificate, keys = self._certificates.create_claim(partition, datetime.fromtimestamp(expiration, UTC))
        claim = ProvisioningClaim(
            certificate_id=certificate.certificate_id, template_name=template_name, expiration=expiration
        )
        partition.claims[claim.certificate_id] = claim
        for listener in self.on_created:
            listener(partition, claim)
        return NewClaim(certificate=certificate, keys=keys, expiration=expiration)

    def expire(self, partition: Partition) -> None:
        """Take out the claims whose time is over, with their certificates: live connections end."""
        now = self._environment.now()
        for claim in [each for each in partition.claims.values() if each.expiration <= now]:
            del partition.claims[claim.certificate_id]
            certificate = partition.certificates.get(claim.certificate_id)
            if certificate is not None:
                self._certificates.remove(partition, certificate)


def implicit_policy(partition: Partition, certificate_id: str) -> policy.Document | None:
    """What a claim's certificate may do without any policy; ``None`` for a certificate that is no claim."""
    claim = partition.claims.get(certificate_id)
    return None if claim is None else _document(partition.arn("", "")[:-2], claim.template_name)


@lru_cache(maxsize=256)
def _document(prefix: str, template_name: str) -> policy.Document:
    """Connect as anybody, create a certificate, run the template: the developer guide's policy for claims (D)."""
    names = [
        *(f"$aws/certificates/create{form}/*" for form in ("", "-from-csr")),
        f"$aws/provisioning-templates/{template_name}/provision/*",
    ]
    statements = [
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": ["iot:Publish", "iot:Receive"],
            "Resource": [f"{prefix}:topic/{name}" for name in names],
        },
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": [f"{prefix}:topicfilter/{name}" for name in names]},
    ]
    return policy.parse(json.dumps({"Version": "2012-10-17", "Statement": statements}))
