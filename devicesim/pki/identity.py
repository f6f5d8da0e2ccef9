"""A device's identity: private key, certificate and the chain it sends; PEM in and out; the certificate id.

AWS IoT names a certificate by the SHA-256 of its DER (aws-iot-behaviour.md §1.4), so one leaf has the same id in every
account and Region.
"""

import hashlib
import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from devicesim.errors import KeyMaterialError
from devicesim.pki.pair import OpenSSLPair, read_pair

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""The kinds of key that AWS IoT Core takes (aws-iot-behaviour.md §1.2)."""

_DER = serialization.Encoding.DER
_NOT_ENCRYPTED = serialization.NoEncryption()
_KEY_BLOCK = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)


def certificate_id(certificate: x509.Certificate) -> str:
    """The AWS certificate id: lower-case hex SHA-256 of the DER, 64 characters."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def certificate_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def private_key_pem(key: PrivateKey) -> str:
    """The key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Identity:
    """A private key with its certificate and the issuers that are sent after it."""

    key: PrivateKey
    der: bytes
    """The certificate's."""
    chain: tuple[x509.Certificate, ...]
    """Issuers, the leaf's own first; without the leaf."""
    _private: bytes | None = field(repr=False, compare=False)
    _certificate: x509.Certificate | None = field(repr=False, compare=False)
    _pair: OpenSSLPair | None = field(repr=False, compare=False)

    def __init__(
        self,
        *,
        key: PrivateKey,
        certificate: x509.Certificate | bytes,
        chain: tuple[x509.Certificate, ...] = (),
        private: bytes | None = None,
    ) -> None:
        """A certificate in DER is read only when somebody asks for it. ``private``: the key as PKCS #8 in DER, where
        it is at hand."""
        fill = object.__setattr__
        fill(self, "key", key)
        fill(self, "chain", chain)
        fill(self, "_private", private)
        fill(self, "_pair", None)
        if isinstance(certificate, bytes):
            fill(self, "der", certificate)
            fill(self, "_certificate", None)
        else:
            fill(self, "der", certificate.public_bytes(_DER))
            fill(self, "_certificate", certificate)

    @property
    def certificate(self) -> x509.Certificate:
        certificate = self._certificate
        if certificate is None:
            certificate = x509.load_der_x509_certificate(self.der)
            object.__setattr__(self, "_certificate", certificate)
        return certificate

    def prepare(self) -> OpenSSLPair:
        """The pair that a connection uses; made when first asked for, and kept: 0.1 ms and 4.5 KB.

        Whoever has time before a connection is due asks for it then. Raises ``crypto.Error`` for what OpenSSL does not
        read.
        """
        pair = self._pair
        if pair is None:
            private = self._private
            if private is None:
                private = self.key.private_bytes(_DER, serialization.PrivateFormat.PKCS8, _NOT_ENCRYPTED)
            pair = read_pair(self.der, private)
            object.__setattr__(self, "_pair", pair)
        return pair

    def unprepare(self) -> None:
        """Keep the pair no longer."""
        object.__setattr__(self, "_pair", None)

    @property
    def certificate_id(self) -> str:
        return hashlib.sha256(self.der).hexdigest()

    def pem(self) -> str:
        """One bundle: leaf, issuers, key. :func:`load_identity` reads it back."""
        certificates = "".join(certificate_pem(each) for each in (self.certificate, *self.chain))
        return certificates + private_key_pem(self.key)


def load_certificates(pem: bytes, source: str) -> tuple[x509.Certificate, ...]:
    """Every certificate of a PEM text, in its order; at least one.

    ``load_pem_x509_certificates`` is asked for all on purpose: the singular form silently takes the first.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as exc:
        raise KeyMaterialError(f"{source} holds no readable certificate: {_one_line(exc)}; PEM is expected") from exc


def load_private_key(pem: bytes, source: str, *, prove: bool = True) -> PrivateKey:
    """The EC or RSA private key of a PEM text; certificates beside it are passed over.

    ``prove`` an RSA key: that its factors are prime and belong together.
    """
    block = _KEY_BLOCK.search(pem)
    if block is None:
        raise KeyMaterialError(f"{source} holds no private key; a PEM block 'PRIVATE KEY' is expected")
    try:
        key = serialization.load_pem_private_key(block[0], password=None, unsafe_skip_rsa_key_validation=not prove)
    except TypeError as exc:
        raise KeyMaterialError(
            f"{source} holds an encrypted private key", hint="decrypt it first: openssl pkey -in KEY -out KEY.plain"
        ) from exc
    except ValueError as exc:
        raise KeyMaterialError(f"{source} holds no readable private key: {_one_line(exc)}") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise KeyMaterialError(f"{source} holds a {type(key).__name__}; AWS IoT Core takes EC and RSA keys")
    return key


def load_identity(pem: bytes, source: str, *, prove: bool = True) -> Identity:
    """A device's identity from one PEM bundle: its key, its certificate first, then any issuers.

    To prove an RSA key of 2048 bits takes 30 ms, for which every thread stands; where that is too long, without
    ``prove`` one signature shows that it does what it is there for: 0.4 ms.
    """
    key = load_private_key(pem, source, prove=prove)
    leaf, *chain = load_certificates(pem, source)
    require_match(key, leaf, source)
    if not prove and isinstance(key, rsa.RSAPrivateKey):
        _require_use(key, source)
    return Identity(key=key, certificate=leaf, chain=tuple(chain))


def require_match(key: PrivateKey, certificate: x509.Certificate, source: str) -> None:
    """Raise :class:`KeyMaterialError` unless the certificate is for this key."""
    if key.public_key() != certificate.public_key():
        subject = certificate.subject.rfc4514_string()
        raise KeyMaterialError(f"{source}: the private key does not belong to the certificate of {subject!r}")


def _require_use(key: rsa.RSAPrivateKey, source: str) -> None:
    padded, algorithm = padding.PKCS1v15(), hashes.SHA256()
    try:
        key.public_key().verify(key.sign(b"", padded, algorithm), b"", padded, algorithm)
    except (ValueError, InvalidSignature) as exc:
        raise KeyMaterialError(f"{source} holds an RSA private key that cannot sign: its numbers are wrong") from exc


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200]
