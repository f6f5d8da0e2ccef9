"""PEM in and out, and the certificate id."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from time import thread_time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from devicesim.errors import KeyMaterialError
from devicesim.pki.authority import new_shared_authority, self_signed
from devicesim.pki.identity import Identity, certificate_pem, load_certificates, load_identity, private_key_pem
from devicesim.pki.profile import KeyType, Profile, Subject, generate_key

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def identity() -> Identity:
    ca = new_shared_authority("CA", KeyType.EC_P256, now=NOW, validity=timedelta(days=30))
    return ca.mint(0, secret=b"s" * 32, profile=Profile(names={"fleet": "f"}))


def test_certificate_id_is_the_sha256_of_the_der(identity: Identity) -> None:
    der = identity.certificate.public_bytes(serialization.Encoding.DER)

    assert hashlib.sha256(der).hexdigest() == identity.certificate_id


def test_a_bundle_reads_back(identity: Identity) -> None:
    again = load_identity(identity.pem().encode(), "bundle")

    assert identity.certificate == again.certificate
    assert identity.chain == again.chain
    assert private_key_pem(identity.key) == private_key_pem(again.key)


def test_all_certificates_of_a_file_are_read_in_order(identity: Identity) -> None:
    pem = certificate_pem(identity.certificate) + certificate_pem(identity.chain[0])

    assert (identity.certificate, *identity.chain) == load_certificates(pem.encode(), "file")


def test_a_bundle_with_somebody_elses_key_is_refused(identity: Identity) -> None:
    stranger = self_signed("x", not_before=NOW, not_after=NOW + timedelta(days=1))
    mixed = certificate_pem(identity.certificate) + private_key_pem(stranger.key)

    with pytest.raises(KeyMaterialError, match="bundle: the private key does not belong"):
        load_identity(mixed.encode(), "bundle")


@pytest.mark.parametrize(
    ("pem", "message"),
    [
        (b"", "holds no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no readable private key"),
        (private_key_pem(generate_key(KeyType.EC_P256)).encode(), "no readable certificate"),
    ],
)
def test_what_is_no_bundle_is_refused_by_what_it_lacks(pem: bytes, message: str) -> None:
    with pytest.raises(KeyMaterialError, match=message):
        load_identity(pem, "bundle")


def test_an_encrypted_key_is_refused_with_the_command_that_helps() -> None:
    key = generate_key(KeyType.EC_P256)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"pw"),
    )

    with pytest.raises(KeyMaterialError, match="encrypted") as caught:
        load_identity(pem, "bundle")
    assert "openssl pkey" in caught.value.hint


def test_a_key_kind_that_aws_does_not_take_is_refused() -> None:
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

    with pytest.raises(KeyMaterialError, match="EC and RSA"):
        load_identity(pem, "bundle")


def test_what_openssl_needs_is_made_once_and_let_go_when_asked(identity: Identity) -> None:
    pair = identity.prepare()

    assert identity.prepare() is pair
    assert pair.certificate.to_cryptography() == identity.certificate
    assert pair.key.to_cryptography_key().private_numbers() == identity.key.private_numbers()  # type: ignore[union-attr]  # EC

    identity.unprepare()

    assert identity.prepare() is not pair
    assert Identity(key=identity.key, certificate=identity.certificate, chain=identity.chain) == identity


def test_a_certificate_in_der_is_read_when_it_is_asked_for(identity: Identity) -> None:
    lazy = Identity(key=identity.key, certificate=identity.der, chain=identity.chain)
    nonsense = Identity(key=identity.key, certificate=b"nonsense")

    assert lazy == identity
    assert lazy.certificate_id == identity.certificate_id
    assert lazy._certificate is None
    assert lazy.certificate == identity.certificate
    assert lazy.certificate is lazy.certificate
    with pytest.raises(ValueError, match="parsing"):
        _ = nonsense.certificate


def rsa_bundle(wrong: Mapping[str, int]) -> bytes:
    """A device with an RSA key, some of whose numbers are others."""
    key = generate_key(KeyType.RSA_2048)
    assert isinstance(key, rsa.RSAPrivateKey)
    ca = new_shared_authority("CA", KeyType.EC_P256, now=NOW, validity=timedelta(days=30))
    until = NOW + timedelta(days=1)
    leaf = ca._build_device(Subject(common_name="x").name(0, {}), key, 1, NOW, until)
    right = key.private_numbers()
    values = {name: getattr(right, name) for name in ("p", "q", "d", "dmp1", "dmq1", "iqmp")} | dict(wrong)
    numbers = rsa.RSAPrivateNumbers(**values, public_numbers=right.public_numbers)
    broken = numbers.private_key(unsafe_skip_rsa_key_validation=True)
    return (certificate_pem(leaf) + private_key_pem(broken)).encode()


def test_an_rsa_key_that_is_not_proved_is_tried() -> None:
    good, bad = rsa_bundle({}), rsa_bundle({"d": 3, "dmp1": 5, "dmq1": 7})

    assert load_identity(good, "bundle", prove=False).der == load_identity(good, "bundle").der
    with pytest.raises(KeyMaterialError, match="bundle holds no readable private key"):
        load_identity(bad, "bundle")
    with pytest.raises(KeyMaterialError, match="bundle holds an RSA private key that cannot sign"):
        load_identity(bad, "bundle", prove=False)


def test_to_try_an_rsa_key_takes_a_fraction_of_proving_it() -> None:
    bundle = rsa_bundle({})

    def cpu(prove: bool) -> float:
        began = thread_time()
        load_identity(bundle, "bundle", prove=prove)
        return thread_time() - began

    assert min(cpu(False) for _ in range(3)) < min(cpu(True) for _ in range(3)) / 5
