"""Certificates made of another one are those that the builder would have made, to the byte."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.leaf import Leaf, public_bits
from devicesim.pki.profile import KeyType, Profile, Subject, generate_key

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SUBJECTS = (
    Subject(),
    Subject(common_name="x" * 64, organization="\N{LATIN SMALL LETTER U WITH DIAERESIS}ml" * 10, country="DE"),
    Subject(serial_number="{index}", organizational_unit="{group}", state="Bavaria", dn_qualifier="q"),
)
SUBJECT_PUBLIC_KEY_INFO = serialization.PublicFormat.SubjectPublicKeyInfo
SERIALS = (1, 0x7F, 0x80, 0xFF, 0x100, 1 << 126, (1 << 159) - 1)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def built(ca: Authority, profile: Profile, index: int, serial: int) -> tuple[x509.Certificate, object]:
    key = generate_key(profile.key_type)
    subject = profile.subject.name(index, profile.names)
    until = NOW + timedelta(days=20)
    return ca._build_device(subject, key, serial, NOW, until), key


@pytest.mark.parametrize("ca_type", [KeyType.EC_P256, KeyType.EC_P384, KeyType.RSA_2048])
@pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.EC_P384, KeyType.RSA_2048])
def test_what_is_made_of_a_built_one_is_what_the_builder_builds(ca_type: KeyType, key_type: KeyType) -> None:
    ca = new_shared_authority("CA \N{GREEK SMALL LETTER OMEGA}", ca_type, now=NOW, validity=timedelta(days=30))
    assert ca.key is not None
    names = {"fleet": "f", "group": "g" * 40}
    first, _ = built(ca, Profile(key_type=key_type, names=names), 0, 12345)
    leaf = Leaf(first)
    key = generate_key(key_type)
    bits = public_bits(key.public_key().public_bytes(serialization.Encoding.DER, SUBJECT_PUBLIC_KEY_INFO))

    for subject in SUBJECTS:
        for serial in SERIALS:
            name = Profile(subject=subject, names=names).subject.name(7, names)
            expected = ca._build_device(name, key, serial, NOW, NOW + timedelta(days=20))

            assert leaf.issue(serial, name.public_bytes(), bits, ca.key) == der(expected)


def test_the_key_identifier_is_the_keys_not_the_built_ones() -> None:
    ca = new_shared_authority("CA", KeyType.EC_P256, now=NOW, validity=timedelta(days=30))
    profile = Profile(names={"fleet": "f"})

    first, second = (ca.mint(index, secret=b"s" * 32, profile=profile).certificate for index in range(2))

    identifiers = [
        each.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest for each in (first, second)
    ]
    assert identifiers[0] != identifiers[1]
    assert identifiers[1] == x509.SubjectKeyIdentifier.from_public_key(second.public_key()).digest
    second.verify_directly_issued_by(ca.certificate)


def test_the_order_in_which_devices_are_minted_does_not_matter() -> None:
    """The first one is built, the others are made of it."""
    ca = new_shared_authority("CA", KeyType.EC_P256, now=NOW, validity=timedelta(days=30))
    other = Authority(certificate=ca.certificate, key=ca.key)
    profiles = [Profile(names={"fleet": "f"}), Profile(names={"fleet": "f"}, not_after=NOW + timedelta(days=3))]
    profiles.append(Profile(names={"fleet": "f"}, key_type=KeyType.EC_P384))

    forth = [ca.mint(i, secret=b"s" * 32, profile=each) for each in profiles for i in range(3)]
    back = [other.mint(i, secret=b"s" * 32, profile=each) for each in reversed(profiles) for i in (2, 1, 0)]

    assert [each.pem() for each in forth] == [each.pem() for each in reversed(back)]
