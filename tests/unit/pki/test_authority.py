"""The shared CA and what it mints."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.errors import KeyMaterialError
from devicesim.pki.authority import Authority, self_signed
from devicesim.pki.identity import certificate_pem, private_key_pem
from devicesim.pki.profile import KeyType, Profile, Subject

NOT_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2036, 1, 1, tzinfo=UTC)
SECRET = bytes(range(32))

GOLDEN_CA = b"""-----BEGIN CERTIFICATE-----
MIIBjTCCATOgAwIBAgIUaKxZOGsNTwmfQfn0W6jeUWABh0YwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJZ29sZGVuIENBMB4XDTI2MDEwMTAwMDAwMFoXDTQ2MDEwMTAw
MDAwMFowFDESMBAGA1UEAwwJZ29sZGVuIENBMFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEPRJYLohDeBk+4YpYQzLr6NEYhSSUvRprNiyoBa1V82ZGGu3e/AHcuc2P
JkUQLupbuhYxKwW41FFZqqoBxMYr4KNjMGEwDwYDVR0TAQH/BAUwAwEB/zAOBgNV
HQ8BAf8EBAMCAYYwHQYDVR0OBBYEFPO8iEPhLgBS23tUO4HMZQfZDnedMB8GA1Ud
IwQYMBaAFPO8iEPhLgBS23tUO4HMZQfZDnedMAoGCCqGSM49BAMCA0gAMEUCIDiO
bX+95OZIXEmR/a2+gHkrJNeZ19Va5uJubOMuxZnXAiEAnRi7hwjCKEdMdX1/R9zH
h1mOEA31P4jm+3GGrZ/wMAU=
-----END CERTIFICATE-----
"""
GOLDEN_KEY = b"""-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgcBJswWoCSKN9WJjw
Pt7qK5xZXtFb0m/0OEpSvd/GMlmhRANCAAQ9ElguiEN4GT7hilhDMuvo0RiFJJS9
Gms2LKgFrVXzZkYa7d78Ady5zY8mRRAu6lu6FjErBbjUUVmqqgHExivg
-----END PRIVATE KEY-----
"""


def make_ca(key_type: KeyType) -> Authority:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
    return Authority.create(subject=subject, key_type=key_type, not_before=NOT_BEFORE, not_after=NOT_AFTER)


@pytest.fixture(scope="module")
def ca() -> Authority:
    return make_ca(KeyType.EC_P256)


def extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> x509.Extension[x509.ExtensionType]:
    return certificate.extensions.get_extension_for_class(kind)


@pytest.mark.parametrize("key_type", list(KeyType))
def test_created_ca_says_ca_true_and_may_only_sign(key_type: KeyType) -> None:
    certificate = make_ca(key_type).certificate

    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=None)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.key_encipherment) == (True, True, False)
    identifier = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    assert identifier == extension(certificate, x509.SubjectKeyIdentifier).value
    certificate.verify_directly_issued_by(certificate)
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        assert f"rsa-{key.key_size}" == key_type
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert f"ec-p{key.curve.key_size}" == key_type


@pytest.mark.parametrize("ca_type", [KeyType.EC_P256, KeyType.EC_P384, KeyType.RSA_2048])
@pytest.mark.parametrize("device_type", [KeyType.EC_P256, KeyType.EC_P384])
def test_a_minted_device_is_byte_identical_however_often_it_is_minted(ca_type: KeyType, device_type: KeyType) -> None:
    made = make_ca(ca_type)
    assert made.key is not None
    # loaded from its files, as another worker would
    other = Authority.load(certificate_pem(made.certificate).encode(), private_key_pem(made.key).encode(), "files")
    profile = Profile(names={"fleet": "f"}, key_type=device_type)

    assert made.mint(7, secret=SECRET, profile=profile).pem() == other.mint(7, secret=SECRET, profile=profile).pem()


def test_a_minted_device_is_the_golden_one() -> None:
    """The pure function must not change with a release: every fleet would get new certificates."""
    ca = Authority.load(GOLDEN_CA, GOLDEN_KEY, "golden")
    profile = Profile(names={"fleet": "golden", "group": "g"}, subject=Subject(serial_number="{index}", country="DE"))

    assert (
        ca.mint(3, secret=SECRET, profile=profile).certificate_id
        == "24890e102dec6af51f0b0ceb2ce2ec66efccfc61b6ce5d2d73aa6074e7c67658"
    )


def test_device_certificate_has_every_extension_of_a_client_leaf(ca: Authority) -> None:
    identity = ca.mint(0, secret=SECRET, profile=Profile(names={"fleet": "f"}))

    leaf = identity.certificate
    leaf.verify_directly_issued_by(ca.certificate)
    assert identity.key.public_key() == leaf.public_key()
    assert identity.chain == (ca.certificate,)
    assert {each.oid._name: each.critical for each in leaf.extensions} == {
        "basicConstraints": True,
        "keyUsage": True,
        "extendedKeyUsage": False,
        "subjectKeyIdentifier": False,
        "authorityKeyIdentifier": False,
    }
    assert extension(leaf, x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)
    assert extension(leaf, x509.ExtendedKeyUsage).value == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    own = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert own.digest == issuer.key_identifier
    assert isinstance(leaf.signature_hash_algorithm, hashes.SHA256)
    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (NOT_BEFORE, NOT_AFTER)
    assert 0 < leaf.serial_number < 1 << 159


def test_subject_can_set_every_attribute_that_jitp_reads(ca: Authority) -> None:
    subject = Subject(
        common_name="robot-{index:04d}",
        serial_number="SN-{group}-{index}",
        organization="{fleet} inc",
        organizational_unit="robots",
        country="SE",
        state="Skåne",
        dn_qualifier="q{index}",
    )
    profile = Profile(subject=subject, names={"fleet": "acme", "group": "north"})

    name = ca.mint(12, secret=SECRET, profile=profile).certificate.subject

    assert {each.oid: each.value for each in name} == {
        NameOID.COMMON_NAME: "robot-0012",
        NameOID.SERIAL_NUMBER: "SN-north-12",
        NameOID.ORGANIZATION_NAME: "acme inc",
        NameOID.ORGANIZATIONAL_UNIT_NAME: "robots",
        NameOID.COUNTRY_NAME: "SE",
        NameOID.STATE_OR_PROVINCE_NAME: "Skåne",
        NameOID.DN_QUALIFIER: "q12",
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=2, max_size=4, unique=True), st.binary(min_size=32, max_size=32))
def test_other_index_or_secret_is_another_device(indexes: list[int], secret: bytes) -> None:
    ca = make_ca(KeyType.EC_P256)
    profile = Profile(subject=Subject(common_name="same"))
    secrets = {secret, SECRET}
    ids = {ca.mint(i, secret=s, profile=profile).certificate_id for i, s in itertools.product(indexes, secrets)}

    assert len(indexes) * len(secrets) == len(ids)


def test_another_ca_gives_the_same_index_another_key(ca: Authority) -> None:
    profile = Profile(subject=Subject(common_name="same"))
    other = make_ca(KeyType.EC_P256)

    keys = {private_key_pem(each.mint(0, secret=SECRET, profile=profile).key) for each in (ca, other)}

    assert len(keys) == 2


def test_rsa_keys_are_random_or_refused(ca: Authority) -> None:
    profile = Profile(names={"fleet": "f"}, key_type=KeyType.RSA_2048)

    with pytest.raises(KeyMaterialError, match=r"'rsa-2048' cannot be derived .* 'ec-p256' and 'ec-p384'"):
        ca.mint(0, secret=SECRET, profile=profile)
    identity = ca.mint_random(0, profile=profile)

    identity.certificate.verify_directly_issued_by(ca.certificate)
    assert isinstance(identity.key, rsa.RSAPrivateKey)


def test_random_identities_differ(ca: Authority) -> None:
    profile = Profile(names={"fleet": "f"})

    assert ca.mint_random(0, profile=profile).certificate_id != ca.mint_random(0, profile=profile).certificate_id


def test_verification_certificate_names_the_code_and_is_signed_by_the_ca(ca: Authority) -> None:
    code = "0123456789abcdef" * 4
    identity = ca.verification_certificate(code, not_before=NOT_BEFORE, not_after=NOT_AFTER)

    identity.certificate.verify_directly_issued_by(ca.certificate)
    assert f"CN={code}" == identity.certificate.subject.rfc4514_string()


@pytest.mark.parametrize("code", ["", "x" * 65])
def test_a_code_that_fits_no_common_name_is_refused(ca: Authority, code: str) -> None:
    with pytest.raises(KeyMaterialError, match="registration code"):
        ca.verification_certificate(code, not_before=NOT_BEFORE, not_after=NOT_AFTER)


def test_without_its_key_a_ca_signs_nothing_and_says_what_to_do(ca: Authority) -> None:
    public = Authority.load(certificate_pem(ca.certificate).encode(), None, "ca.pem")

    with pytest.raises(KeyMaterialError, match="not at hand") as caught:
        public.mint(0, secret=SECRET, profile=Profile(names={"fleet": "f"}))
    assert "key file" in caught.value.hint


def test_load_refuses_a_leaf_and_a_foreign_key(ca: Authority) -> None:
    leaf = self_signed("leaf", not_before=NOT_BEFORE, not_after=NOT_AFTER)
    other = make_ca(KeyType.EC_P256)
    assert other.key is not None

    with pytest.raises(KeyMaterialError, match="not a CA certificate"):
        Authority.load(certificate_pem(leaf.certificate).encode(), None, "leaf.pem")
    with pytest.raises(KeyMaterialError, match="does not belong"):
        Authority.load(certificate_pem(ca.certificate).encode(), private_key_pem(other.key).encode(), "mixed")


def test_validity_can_be_narrowed_but_not_turned_round(ca: Authority) -> None:
    start = NOT_BEFORE + timedelta(days=1)
    narrow = Profile(names={"fleet": "f"}, not_before=start, not_after=start + timedelta(days=1))
    certificate = ca.mint(0, secret=SECRET, profile=narrow).certificate

    assert (start, start + timedelta(days=1)) == (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    with pytest.raises(KeyMaterialError, match="never be valid"):
        ca.mint(0, secret=SECRET, profile=Profile(names={"fleet": "f"}, not_before=start, not_after=start))


def test_server_certificate_carries_names_and_addresses(ca: Authority) -> None:
    names = ["*.iot.us-east-1.localhost", "localhost", "127.0.0.1"]
    server = ca.issue_server(names, key_type=KeyType.EC_P256, not_before=NOT_BEFORE, not_after=NOT_AFTER)

    server.certificate.verify_directly_issued_by(ca.certificate)
    found = server.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names[:2] == found.get_values_for_type(x509.DNSName)
    assert [str(each) for each in found.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
