"""A certificate as evidence, and whose key signed it."""

import pytest

from devicesim.cloud.leaf import leaf_evidence, signed_by
from devicesim.pki.identity import certificate_id
from tests.control_support import make_certificate, make_key
from tests.emulator_support import device, shared_ca


def test_a_certificate_is_told_with_its_subject_issuer_and_times() -> None:
    leaf = device(1).certificate

    told = leaf_evidence(leaf)

    assert told.certificate_id == certificate_id(leaf)
    assert told.subject["CommonName"] == "robot-000001"
    assert told.issuer == shared_ca().certificate.subject.rfc4514_string() == "CN=Shared CA"
    assert "CN=robot-000001" in told.subject_text
    assert (told.not_before, told.not_after) == (
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
    )


@pytest.mark.parametrize("kind", ["P-256", "RSA-2048", "P-384"])
def test_the_key_that_signed_is_known_whatever_the_ca_is_called(kind: str) -> None:
    key = make_key("ca", kind)
    ca = make_certificate("CA", key=key, ca=True)
    renamed = make_certificate("Another name", key=key, ca=True)
    namesake = make_certificate("CA", key=make_key("namesake", kind), ca=True)
    leaf = make_certificate("device", key=make_key("leaf"), issuer="CA", issuer_key=key)

    assert signed_by(leaf, ca)
    assert signed_by(leaf, renamed)
    assert not signed_by(leaf, namesake)


def test_a_key_of_another_kind_signed_nothing() -> None:
    leaf = make_certificate("device", key=make_key("leaf"), issuer="CA", issuer_key=make_key("ca"))

    assert not signed_by(leaf, make_certificate("CA", key=make_key("ca", "RSA-2048"), ca=True))
    assert not signed_by(leaf, make_certificate("CA", key=make_key("ca", "Ed25519"), ca=True))
