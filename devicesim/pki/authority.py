"""A certificate authority: the fleet's shared CA, or the emulator's own for its server certificates.

A device identity is a pure function of (CA, fleet secret, index, profile): the private scalar and the serial number
come out of HKDF, the validity out of the CA, and the signature is deterministic (RFC 6979 for EC, PKCS #1 v1.5 for
RSA). So any worker mints device n alone, nothing is stored, and the same robots can be run again elsewhere.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, partial

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
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
from devicesim.pki.series import Series

CLOCK_SLACK = timedelta(minutes=5)
"""How far back a new certificate's validity starts, for peers whose clock is behind ours."""

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
        return self.series(profile, secret=secret).mint(index)

    def mint_random(self, index: int, *, profile: Profile) -> Identity:
        """Device ``index`` with a fresh random key and serial number, of any key type."""
        return self.series(profile, secret=None).mint(index)

    def series(self, profile: Profile, *, secret: bytes | None) -> Series:
        """What mints many devices of one profile: derived from the secret, or random without one."""
        return Series(profile, secret, salt=self._fingerprint, chain=self.chain, begin=partial(self._begin, profile))

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

    def _begin(self, profile: Profile, subject: x509.Name, key: PrivateKey, serial: int) -> tuple[Leaf, PrivateKey]:
        """What a profile's certificates are made of, in need a new one for this device, and the key that signs."""
        not_before = profile.not_before or self._validity[0]
        not_after = profile.not_after or self._validity[1]
        if not_after <= not_before:
            raise KeyMaterialError(f"a certificate valid from {not_before} to {not_after} would never be valid")
        alike = profile.key_type, not_before, not_after
        leaf = self._leaves.get(alike)
        if leaf is None:
            leaf = self._leaves[alike] = Leaf(self._build_device(subject, key, serial, not_before, not_after))
        return leaf, self._signing_key()

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
