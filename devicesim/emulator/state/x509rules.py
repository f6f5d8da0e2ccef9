"""Which certificates AWS IoT accepts at all: form, key, signature (aws-iot-behaviour.md §1.2, last paragraph, D)."""

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from devicesim.emulator.apierrors import certificate_validation

MIN_RSA_BITS = 2048
SIGNATURE_ALGORITHMS = frozenset(
    {
        SignatureAlgorithmOID.RSA_WITH_SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA512,
        SignatureAlgorithmOID.DSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512,
    }
)
"""RSASSA-PSS stood on an older page and is taken when its hash is one of these."""
_PSS_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What ``cryptography`` raises where it can not read a certificate or request, at once or when a field is looked at."""
_BEGIN = "-----BEGIN CERTIFICATE-----"


def parse(pem: str, what: str) -> x509.Certificate:
    """Read the one certificate of ``pem``; ``what`` names it in the error (``CA certificate``)."""
    count = pem.count(_BEGIN)
    if count > 1:
        raise certificate_validation(f"{what} is not valid. {count} certificates were given, one is expected")
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        _ = certificate.extensions  # parsed late by cryptography; a certificate with unreadable ones is refused here
        _ = certificate.subject, certificate.issuer
    except UNREADABLE as exc:
        raise certificate_validation(f"{what} is not valid. It can not be read as an X.509 certificate in PEM") from exc
    return certificate


def key_accepted(key: object, curves: Sequence[str]) -> bool:
    """Whether a public key is RSA and long enough, or on one of ``curves`` (``secp256r1``)."""
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= MIN_RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in curves


def check_algorithms(certificate: x509.Certificate, what: str, *, curves: Sequence[str]) -> None:
    """Refuse keys and signatures that AWS does not take; ``curves`` names the elliptic ones that it does."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise certificate_validation(f"{what} is not valid. The key in the certificate is not valid") from exc
    if not key_accepted(key, curves):
        # text: S (re:Post, for RSA-1024)
        raise certificate_validation(f"{what} is not valid. The key in the certificate is not valid")
    if not _signature_accepted(certificate):
        raise certificate_validation(
            f"{what} is not valid. The signature algorithm of the certificate is not supported"
        )


def _signature_accepted(certificate: x509.Certificate) -> bool:
    if certificate.signature_algorithm_oid in SIGNATURE_ALGORITHMS:
        return True
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.RSASSA_PSS:
        return False
    try:
        return isinstance(certificate.signature_hash_algorithm, _PSS_HASHES)
    except UnsupportedAlgorithm:
        return False


def check_validity(certificate: x509.Certificate, now: float, what: str) -> None:
    """Refuse a certificate outside its validity at ``now``."""
    if now < certificate.not_valid_before_utc.timestamp():
        raise certificate_validation(f"{what} is not valid. The certificate is not valid yet")
    if now > certificate.not_valid_after_utc.timestamp():
        raise certificate_validation(f"{what} is not valid. The certificate has expired")


def check_is_ca(certificate: x509.Certificate) -> None:
    """Refuse a CA certificate that does not say it is one."""
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        # text: S (re:Post)
        raise certificate_validation(
            "CA certificate is not valid. The CA certificate does not have the basicConstraints extension as true"
        )


def issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether ``ca`` itself signed ``certificate``: issuer name and signature, not validity."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def common_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Every common name of the subject."""
    return tuple(str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
