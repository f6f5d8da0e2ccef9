"""Certificates that the service makes itself: CreateKeysAndCertificate, CreateCertificateFromCsr, temporary claims."""

import base64
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from devicesim.emulator.registry import APIError
from devicesim.emulator.state.environment import ControlSettings
from devicesim.emulator.state.records import CertificateMode, CertificateStatus, TemplateType
from devicesim.pki.identity import certificate_id
from tests.control_support import NOW, REGION, A, Clock, make_key, make_registry, name

ROLE = "arn:aws:iam::111111111111:role/provisioning"


def csr(common_name: str = "robot-1", kind: str = "P-256") -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(name(common_name))
    algorithm = None if kind == "Ed25519" else hashes.SHA256()
    request = builder.sign(make_key("csr", kind), algorithm)
    return request.public_bytes(serialization.Encoding.PEM).decode()


def test_made_key_belongs_to_the_made_certificate() -> None:
    registry = make_registry()
    a = registry.partition(A, REGION)

    record, keys = registry.certificates.create_keys(a, active=True)

    certificate = x509.load_pem_x509_certificate(record.pem.encode())
    private = serialization.load_pem_private_key(keys.private.encode(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    assert private.key_size == 2048
    assert private.public_key() == certificate.public_key()
    assert serialization.load_pem_public_key(keys.public.encode()) == certificate.public_key()
    assert keys.private.startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert certificate_id(certificate) == record.certificate_id
    assert certificate.subject.rfc4514_string() == "CN=AWS IoT Certificate"
    assert "OU=Amazon Web Services O=Amazon.com Inc. " in certificate.issuer.rfc4514_string()
    assert (record.status, record.mode, record.ca_certificate_id) == (
        CertificateStatus.ACTIVE,
        CertificateMode.DEFAULT,
        None,
    )
    assert record.not_after == 2524607999  # CLI reference, describe-certificate (D)
    assert record.not_before == NOW.timestamp() - 120
    assert registry.default_certificate_holder(REGION, record.certificate_id) is a


@pytest.mark.parametrize(
    ("options", "status"),
    [({}, CertificateStatus.INACTIVE), ({"pending": True}, CertificateStatus.PENDING_ACTIVATION)],
)
def test_status_of_a_made_certificate(options: dict[str, bool], status: CertificateStatus) -> None:
    registry = make_registry()
    a = registry.partition(A, REGION)

    assert registry.certificates.create_keys(a, **options)[0].status is status
    assert registry.certificates.create_from_csr(a, csr(), **options).status is status


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "RSA-2048"])
def test_request_gives_key_and_subject_and_each_time_another_certificate(kind: str) -> None:
    registry = make_registry()
    a = registry.partition(A, REGION)

    first = registry.certificates.create_from_csr(a, csr(kind=kind))
    second = registry.certificates.create_from_csr(a, csr(kind=kind))

    certificate = x509.load_pem_x509_certificate(first.pem.encode())
    assert certificate.subject == name("robot-1")
    assert certificate.public_key() == make_key("csr", kind).public_key()
    assert first.certificate_id != second.certificate_id


@pytest.mark.parametrize("kind", ["RSA-1024", "secp256k1", "Ed25519"])
def test_request_for_a_key_that_aws_does_not_take_is_refused(kind: str) -> None:
    registry = make_registry()
    a = registry.partition(A, REGION)

    with pytest.raises(APIError, match="key must be RSA of at least 2048 bits") as caught:
        registry.certificates.create_from_csr(a, csr(kind=kind))

    assert caught.value.code == "InvalidRequestException"
    assert a.certificates == {}


def test_curves_are_a_setting() -> None:
    registry = make_registry(settings=ControlSettings(accepted_curves=("secp256r1",)))
    a = registry.partition(A, REGION)

    registry.certificates.create_from_csr(a, csr())
    with pytest.raises(APIError, match=r"ECC from secp256r1$"):
        registry.certificates.create_from_csr(a, csr(kind="P-384"))


def csr_of_version(number: int) -> str:
    der = base64.b64decode("".join(csr().splitlines()[1:-1]))
    odd = der.replace(b"\x02\x01\x00", bytes((2, 1, number)), 1)
    label = "CERTIFICATE REQUEST"
    return f"-----BEGIN {label}-----\n{base64.encodebytes(odd).decode()}-----END {label}-----\n"


@pytest.mark.parametrize("text", ["", "x", csr()[:-40], csr().replace("REQUEST", "CERTIFICATE"), csr_of_version(7)])
def test_what_is_no_request_is_refused(text: str) -> None:
    registry = make_registry()

    with pytest.raises(APIError) as caught:
        registry.certificates.create_from_csr(registry.partition(A, REGION), text)

    assert caught.value.code == "InvalidRequestException"


def test_request_that_another_key_signed_is_refused() -> None:
    genuine = x509.load_pem_x509_csr(csr().encode())
    other = x509.load_pem_x509_csr(csr("robot-2").encode())
    der = genuine.public_bytes(serialization.Encoding.DER)
    forged = der.replace(genuine.signature, other.signature) if len(genuine.signature) == len(other.signature) else None
    if forged is None:  # DER signatures differ in length now and then; a flipped bit does as well
        forged = der[:-1] + bytes([der[-1] ^ 1])
    text = base64.encodebytes(forged).decode()
    text = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"
    registry = make_registry()

    with pytest.raises(APIError, match=r"not signed by its own key|can not be read"):
        registry.certificates.create_from_csr(registry.partition(A, REGION), text)


class TestClaims:
    """CreateProvisioningClaim."""

    def test_claim_lives_five_minutes_and_is_a_certificate_of_its_own(self) -> None:
        clock = Clock()
        registry = make_registry(clock)
        a = registry.partition(A, REGION)
        registry.templates.create(a, "fleet", body="{}", role_arn=ROLE, enabled=True)

        claim = registry.claims.create(a, "fleet")

        assert claim.expiration == clock.now + 300
        assert claim.certificate.not_after == claim.expiration
        assert claim.certificate.status is CertificateStatus.ACTIVE
        assert a.claims[claim.certificate.certificate_id].template_name == "fleet"
        clock.advance(299)
        registry.claims.expire(a)
        assert claim.certificate.certificate_id in a.certificates
        clock.advance(1)
        registry.claims.expire(a)
        assert a.certificates == {}
        assert a.claims == {}

    def test_claim_is_not_transferred(self) -> None:
        registry = make_registry()
        a = registry.partition(A, REGION)
        registry.templates.create(a, "fleet", body="{}", role_arn=ROLE, enabled=True)
        claim = registry.claims.create(a, "fleet").certificate
        registry.certificates.update(a, claim.certificate_id, CertificateStatus.INACTIVE)

        with pytest.raises(APIError, match="provisioning claim"):
            registry.transfers.start(a, claim.certificate_id, "222222222222")

    def test_claim_may_provision_with_its_template_and_nothing_else(self) -> None:
        registry = make_registry()
        a = registry.partition(A, REGION)
        registry.templates.create(a, "fleet", body="{}", role_arn=ROLE, enabled=True)
        claim = registry.claims.create(a, "fleet")
        other, _ = registry.certificates.create_keys(a, active=True)

        documents = list(registry.policies.documents(a, claim.certificate.certificate_id))

        assert len(documents) == 1
        assert list(registry.policies.documents(a, other.certificate_id)) == []

    @pytest.mark.parametrize(
        ("template", "code"),
        [
            ("none", "ResourceNotFoundException"),
            ("jitp", "InvalidRequestException"),
            ("off", "InvalidRequestException"),
        ],
    )
    def test_claim_needs_an_enabled_template_of_fleet_provisioning(self, template: str, code: str) -> None:
        registry = make_registry()
        a = registry.partition(A, REGION)
        registry.templates.create(a, "jitp", body="{}", role_arn=ROLE, type=TemplateType.JITP, enabled=True)
        registry.templates.create(a, "off", body="{}", role_arn=ROLE)

        with pytest.raises(APIError) as caught:
            registry.claims.create(a, template)

        assert caught.value.code == code
        assert a.certificates == {}


def test_notes_of_the_clock_are_whole_seconds_in_a_certificate() -> None:
    clock = Clock(NOW.timestamp() + 0.987)
    registry = make_registry(clock)

    record, _ = registry.certificates.create_keys(registry.partition(A, REGION))

    assert record.creation_date == NOW.timestamp() + 0.987
    assert datetime.fromtimestamp(record.not_before, UTC).microsecond == 0
