"""Temporary claims for fleet provisioning."""

from collections.abc import Mapping
from typing import Any

from devicesim.emulator.operations.call import Call, Handler


def create_provisioning_claim(call: Call) -> Mapping[str, Any]:
    claim = call.registry.claims.create(call.partition, call["templateName"])
    return {
        "certificateId": claim.certificate.certificate_id,
        "certificatePem": claim.certificate.pem,
        "keyPair": {"PublicKey": claim.keys.public, "PrivateKey": claim.keys.private},
        "expiration": claim.expiration,
    }


HANDLERS: Mapping[str, Handler] = {"CreateProvisioningClaim": create_provisioning_claim}
