"""A certificate authority: the fleet's shared CA, or the emulator's own for its server certificates.

A device identity is a pure function of (CA, fleet secret, index, profile): the private scalar and the serial number
come out of HKDF, the validity out of the CA, and the signature is deterministic (RFC 6979 for EC, PKCS #1 v1.5 for
RSA). So any worker mints device n alone, nothing is stored, and the same robots can be run again elsewhere.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from devicesim.errors import KeyMaterialError
from devicesim.pki.identity import (
    Identity,
    PrivateKey,
    certificate_id,
    load_certificates,
    load_private_key,
    require_match,
)
from devicesim.pki.leaf import Leaf
from devicesim.pki.profile import KeyType, Profile, generate_key

CLOCK_SLACK = timedelta(minutes=5)
"""How far back a new certificate's validity starts, for peers whose clock is behind ours."""

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_P384_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
_SCALAR_BYTES = 56
"""64 bits more than the larger order, so that the bias of the reduction is below 2**-64 (FIPS 186-5, A.2.1)."""
_SERIAL_BYTES = 16
_MAX_COMMON_NAME = 64
_COMMON_BITS = dict.fromkeys(
    (
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A CA certificate, with its private key unless only the certificate is at hand.

    The certificate alone is enough to register it in SNI_ONLY mode and to send it after imported leaves.
    """

    certificate: x509.Certificate
    key: PrivateKey | None
    parents: tuple[x509.Certificate, ...] = ()
    """The CA's own issuers, when it is an intermediate; sent after it."""
    _leaves: dict[tuple[KeyType, datetime, datetime], Leaf] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """By what is the same in all of them: one device certificate, of which the others are made."""

    @classmethod
    def create(
        cls,
        *,
        subject: x509.Name,
        key_type: KeyType,
        not_before: datetime,
        not_after: datetime,
        path_length: int | None = None,
    ) -> "Authority":
        """A new self-signed CA with a random key."""
        key = generate_key(key_type)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = (
            _builder(subject, subject, key, x509.random_serial_number(), not_before, not_after)
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **_COMMON_BITS), critical=True
            )
            .add_extension(identifier, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        )
        return cls(certificate=_sign(builder, key), key=key)

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes | None, source: str) -> "Authority":
        """The CA from its PEM certificate (followed by its issuers, if any) and, unless ``None``, its PEM key.

        Raises :class:`KeyMaterialError` when it is not a CA certificate or the key is another's.
        """
        certificate, *parents = load_certificates(certificate_pem, source)
        try:
            is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (x509.ExtensionNotFound, ValueError):
            is_ca = False
        if not is_ca:
            raise KeyMaterialError(
                f"{source}: the certificate of {certificate.subject.rfc4514_string()!r} is not a CA certificate: "
                "its basicConstraints do not say CA:TRUE"
            )
        key = None
        if key_pem is not None:
            key = load_private_key(key_pem, source)
            require_match(key, certificate, source)
        return cls(certificate=certificate, key=key, parents=tuple(parents))

    @cached_property
    def certificate_id(self) -> str:
        return certificate_id(self.certificate)

    @cached_property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What a leaf of this CA sends after itself."""
        return (self.certificate, *self.parents)

    def mint(self, index: int, *, secret: bytes, profile: Profile) -> Identity:
        """Device ``index``: the same bytes on every run and machine for the same arguments."""
        curve = profile.key_type.curve
        if curve is None:
            raise KeyMaterialError(
                f"a key of type {profile.key_type.value!r} cannot be derived from the fleet secret; "
                f"derived keys are {KeyType.EC_P256.value!r} and {KeyType.EC_P384.value!r}",
                hint='take random keys for it: [devices] keys = "random"',
            )
        if index < 0:
            raise ValueError(f"device index {index} is negative")
        material = HKDF(
            algorithm=hashes.SHA256(),
            length=_SCALAR_BYTES + _SERIAL_BYTES,
            salt=self._fingerprint,
            info=b"devicesim device 1|" + profile.key_type.encode("ascii") + b"|" + str(index).encode("ascii"),
        ).derive(secret)
        order = _P256_ORDER if profile.key_type is KeyType.EC_P256 else _P384_ORDER
        scalar = int.from_bytes(material[:_SCALAR_BYTES], "big") % (order - 1) + 1
        key = ec.derive_private_key(scalar, curve)
        # RFC 5280 4.1.2.2: positive, at most 20 octets; the top bit set keeps every serial the same length
        serial = int.from_bytes(material[_SCALAR_BYTES:], "big") >> 1 | 1 << (8 * _SERIAL_BYTES - 2)
        return self._issue_device(index, profile, key, serial)

    def mint_random(self, index: int, *, profile: Profile) -> Identity:
        """Device ``index`` with a fresh random key and serial number, of any key type."""
        return self._issue_device(index, profile, generate_key(profile.key_type), x509.random_serial_number())

    def verification_certificate(
        self, registration_code: str, *, not_before: datetime, not_after: datetime
    ) -> Identity:
        """The proof of possession that RegisterCACertificate asks for in DEFAULT mode (aws-iot-behaviour.md §1.2).

        A certificate whose common name is the account's registration code, signed by this CA, for a throw-away key.
        """
        key = generate_key(KeyType.EC_P256)
        if not 1 <= len(registration_code) <= _MAX_COMMON_NAME:
            raise KeyMaterialError(
                f"registration code {registration_code!r} has {len(registration_code)} characters; "
                f"1 to {_MAX_COMMON_NAME} fit in a common name"
            )
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, registration_code)])
        serial = x509.random_serial_number()
        builder = _builder(subject, self.certificate.subject, key, serial, not_before, not_after).add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        return Identity(key=key, certificate=_sign(builder, self._signing_key()), chain=self.chain)

    def issue_server(
        self, names: Sequence[str], *, key_type: KeyType, not_before: datetime, not_after: datetime
    ) -> Identity:
        """A server certificate for DNS names (wildcards too) and IP literals, with a random key."""
        key = generate_key(key_type)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:_MAX_COMMON_NAME])])
        serial = x509.random_serial_number()
        builder = (
            _builder(subject, self.certificate.subject, key, serial, not_before, not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_leaf_key_usage(), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(each) for each in names]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(self._authority_key_identifier, critical=False)
        )
        return Identity(key=key, certificate=_sign(builder, self._signing_key()), chain=self.chain)

    @cached_property
    def _validity(self) -> tuple[datetime, datetime]:
        return self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc

    @cached_property
    def _fingerprint(self) -> bytes:
        return self.certificate.fingerprint(hashes.SHA256())

    @cached_property
    def _authority_key_identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            public_key = self.certificate.public_key()
            if not isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
                kind = type(public_key).__name__
                raise KeyMaterialError(f"the CA has a {kind}; AWS IoT Core takes EC and RSA keys") from None
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)

    def _signing_key(self) -> PrivateKey:
        if self.key is None:
            raise KeyMaterialError(
                f"the private key of CA {self.certificate.subject.rfc4514_string()!r} is not at hand: it cannot sign",
                hint="give its key file, or use imported device certificates",
            )
        return self.key

    def _issue_device(self, index: int, profile: Profile, key: PrivateKey, serial: int) -> Identity:
        not_before = profile.not_before or self._validity[0]
        not_after = profile.not_after or self._validity[1]
        if not_after <= not_before:
            raise KeyMaterialError(f"a certificate valid from {not_before} to {not_after} would never be valid")
        subject = profile.subject.name(index, profile.names)
        alike = profile.key_type, not_before, not_after
        leaf = self._leaves.get(alike)
        if leaf is None:
            certificate = self._build_device(subject, key, serial, not_before, not_after)
            self._leaves[alike] = Leaf(certificate)
        else:
            certificate = leaf.issue(serial, subject, key, self._signing_key())
        return Identity(key=key, certificate=certificate, chain=self.chain)

    def _build_device(
        self, subject: x509.Name, key: PrivateKey, serial: int, not_before: datetime, not_after: datetime
    ) -> x509.Certificate:
        builder = (
            _builder(subject, self.certificate.subject, key, serial, not_before, not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_leaf_key_usage(), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(self._authority_key_identifier, critical=False)
        )
        return _sign(builder, self._signing_key())


def new_shared_authority(common_name: str, key_type: KeyType, *, now: datetime, validity: timedelta) -> Authority:
    """A new CA to share among accounts, valid from :data:`CLOCK_SLACK` before ``now``."""
    return Authority.create(
        subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]),
        key_type=key_type,
        not_before=now - CLOCK_SLACK,
        not_after=now + validity,
    )


def self_signed(common_name: str, *, not_before: datetime, not_after: datetime) -> Identity:
    """A client identity without a CA, with a random key: what RegisterCertificateWithoutCA takes."""
    key = generate_key(KeyType.EC_P256)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_MAX_COMMON_NAME])])
    serial = x509.random_serial_number()
    builder = (
        _builder(subject, subject, key, serial, not_before, not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_leaf_key_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    return Identity(key=key, certificate=_sign(builder, key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, serial: int, not_before: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(
            subject_name=subject,
            issuer_name=issuer,
            public_key=key.public_key(),
            serial_number=serial,
            not_valid_before=None,
            not_valid_after=None,
        )
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _leaf_key_usage() -> x509.KeyUsage:
    return x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **_COMMON_BITS)


def _sign(builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = hashes.SHA384() if key.curve.key_size > 256 else hashes.SHA256()
        return builder.sign(key, algorithm, ecdsa_deterministic=True)
    return builder.sign(key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
