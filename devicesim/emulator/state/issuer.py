"""The service's own certificate authority: what signs certificates that AWS IoT makes itself.

CreateKeysAndCertificate, CreateCertificateFromCsr and CreateProvisioningClaim. As AWS's, it is the same for every
account, it is not among any account's CAs, and a device needs it for nothing: the record of the certificate is what
counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from devicesim.emulator.apierrors import invalid_request
from devicesim.emulator.state import x509rules

DEFAULT_SUBJECT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AWS IoT Certificate")])
"""Of a certificate whose key the service made (botocore, CreateKeysAndCertificate, D; the text S)."""
ISSUER = x509.Name(
    [
        x509.NameAttribute(
            NameOID.ORGANIZATIONAL_UNIT_NAME, "Amazon Web Services O=Amazon.com Inc. L=Seattle ST=Washington C=US"
        )
    ]
)
"""AWS's own, which is one long organizational unit (S)."""
NOT_AFTER = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The end of every certificate that AWS issues (CLI reference, describe-certificate: 2524607999, D)."""
BACKDATED = timedelta(seconds=120)
"""How long before its creation a certificate is valid (the same example: 120 s, D)."""

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A key that the service made, in the two forms it answers (PEM)."""

    public: str
    private: str
    """PKCS #1, as AWS's ``BEGIN RSA PRIVATE KEY``. Never kept."""


class Issuer:
    """Makes certificates. Its own key is made when it is first needed, and lost with the process."""

    def __init__(self, generate_key: Callable[[], rsa.RSAPrivateKey]) -> None:
        """``generate_key`` makes an RSA key of 2048 bits."""
        self.generate_key = generate_key
        self._key: rsa.RSAPrivateKey | None = None

    def key_pair(self) -> tuple[rsa.RSAPublicKey, KeyPair]:
        """A new key for a device."""
        key = self.generate_key()
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        return key.public_key(), KeyPair(public=public.decode("ascii"), private=private.decode("ascii"))

    def issue(
        self,
        public_key: PublicKey,
        *,
        now: float,
        subject: x509.Name = DEFAULT_SUBJECT,
        not_after: datetime = NOT_AFTER,
    ) -> x509.Certificate:
        """A certificate for a device's key; ``now`` in seconds since the Unix epoch. Never the same one twice."""
        if self._key is None:
            self._key = self.generate_key()
        own = self._key.public_key()
        not_before = datetime.fromtimestamp(int(now), UTC) - BACKDATED
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ISSUER)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )


def read_request(pem: str, *, curves: tuple[str, ...]) -> tuple[PublicKey, x509.Name]:
    """Key and subject of a certificate signing request; ``curves`` names those that are accepted.

    Raises ``InvalidRequestException``, the one error that the model has for it, where the text is no request, its
    signature is not by its own key, or the key is none that AWS takes.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        signed, subject = request.is_signature_valid, request.subject
        key = request.public_key()
    except (*x509rules.UNREADABLE, TypeError) as exc:
        raise invalid_request("The certificate signing request is not valid. It can not be read as PEM") from exc
    if not signed:
        raise invalid_request("The certificate signing request is not valid. It is not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey) or not x509rules.key_accepted(key, curves):
        raise invalid_request(
            "The certificate signing request is not valid. Its key must be RSA of at least 2048 bits or ECC from "
            + ", ".join(curves)
        )
    return key, subject
