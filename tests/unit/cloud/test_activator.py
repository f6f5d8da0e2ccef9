"""What an activator reads out of an event."""

import json
from typing import Any

import pytest

from devicesim.cloud.activator import registered_certificate

EVENT: dict[str, Any] = {
    "certificateId": "ab" * 32,
    "caCertificateId": "ca",
    "timestamp": 1730000000000,
    "certificateStatus": "PENDING_ACTIVATION",
    "awsAccountId": "111122223333",
    "certificateRegistrationTimestamp": None,
    "sourceIp": "127.0.0.1",
}


def test_a_pending_certificate_of_the_ca_is_to_be_activated() -> None:
    assert registered_certificate(json.dumps(EVENT).encode(), "ca") == "ab" * 32


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        json.dumps({**EVENT, "caCertificateId": "other"}).encode(),
        json.dumps({**EVENT, "certificateStatus": "ACTIVE"}).encode(),
        json.dumps({**EVENT, "certificateId": 5}).encode(),
    ],
)
def test_anything_else_is_passed_over(payload: bytes) -> None:
    assert registered_certificate(payload, "ca") is None
