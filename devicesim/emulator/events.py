"""Messages that the service itself publishes (aws-iot-behaviour.md §2). Pure."""

import json

from devicesim.emulator.session import Message
from devicesim.emulator.state.records import DeviceCertificate

REGISTERED_PREFIX = "$aws/events/certificates/registered/"


def certificate_registered(
    certificate: DeviceCertificate, *, account_id: str, source_ip: str, now: float, first: bool
) -> Message:
    """A device presented a certificate that waits for activation (JITR). QoS 0, or 1 for who subscribes so."""
    body = {
        "certificateId": certificate.certificate_id,
        "caCertificateId": certificate.ca_certificate_id,
        "timestamp": round(now * 1000),
        "certificateStatus": certificate.status.value,
        "awsAccountId": account_id,
        # null the first time (M), a string of milliseconds on later presentations (S)
        "certificateRegistrationTimestamp": None if first else str(round(certificate.creation_date * 1000)),
        "sourceIp": source_ip,  # present today (M), not in the documented sample
    }
    return Message(
        topic=f"{REGISTERED_PREFIX}{certificate.ca_certificate_id}",
        payload=json.dumps(body, separators=(",", ":")).encode(),
        qos=1,
    )
