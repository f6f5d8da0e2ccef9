"""What a minted device certificate says: subject, key type, validity.

The subject can set every attribute that a JITP template can read (aws-iot-behaviour.md §3): CN, serialNumber, O, OU, C,
ST and dnQualifier. Each is a text in which ``{index}``, ``{fleet}`` and ``{group}`` are filled in, with Python's format
specifications: ``robot-{index:06d}``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from string import Formatter

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from devicesim.errors import KeyMaterialError
from devicesim.pki.identity import PrivateKey

PLACEHOLDERS = ("index", "fleet", "group")


class KeyType(StrEnum):
    """Key types of CAs and devices."""

    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    RSA_2048 = "rsa-2048"
    RSA_4096 = "rsa-4096"

    @property
    def curve(self) -> ec.EllipticCurve | None:
        """The curve of an EC key; ``None`` for RSA."""
        return _CURVES.get(self)


_CURVES = {KeyType.EC_P256: ec.SECP256R1(), KeyType.EC_P384: ec.SECP384R1()}


def generate_key(key_type: KeyType) -> PrivateKey:
    """A fresh random key."""
    curve = key_type.curve
    if curve is not None:
        return ec.generate_private_key(curve)
    return rsa.generate_private_key(65537, 2048 if key_type is KeyType.RSA_2048 else 4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Templates of a device certificate's subject. Attributes left out are not in the certificate."""

    common_name: str | None = "{fleet}-{index:06d}"
    serial_number: str | None = None
    organization: str | None = None
    organizational_unit: str | None = None
    country: str | None = None
    state: str | None = None
    dn_qualifier: str | None = None

    def name(self, index: int, names: Mapping[str, str]) -> x509.Name:
        """The distinguished name of device ``index``; ``names`` gives ``fleet`` and ``group``.

        Raises :class:`KeyMaterialError` with the attribute, when a template or what it yields is not allowed.
        """
        attributes = []
        for attribute, template in self.templates():
            text = render(template, index, names, attribute)
            try:
                text.encode()  # {index:c} may be half a character
                attributes.append(x509.NameAttribute(_OIDS[attribute], text))
            except ValueError as exc:
                raise KeyMaterialError(f"{attribute} {text!r} cannot stand in a certificate: {exc}") from exc
        if not attributes:
            raise KeyMaterialError("the subject is empty; give it at least a common_name")
        return x509.Name(attributes)

    def templates(self) -> Iterator[tuple[str, str]]:
        """Each attribute that the certificate has, in its order there, with its template."""
        for attribute in _OIDS:
            template = getattr(self, attribute)
            if template is not None:
                yield attribute, template


# In the order in which they stand in the certificate, the most general first, as openssl and AWS's examples have it.
_OIDS = {
    "country": NameOID.COUNTRY_NAME,
    "state": NameOID.STATE_OR_PROVINCE_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "organizational_unit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "dn_qualifier": NameOID.DN_QUALIFIER,
    "serial_number": NameOID.SERIAL_NUMBER,
    "common_name": NameOID.COMMON_NAME,
}
assert set(_OIDS) == {each.name for each in fields(Subject)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """All that, beside CA, fleet secret and index, decides a minted certificate's bytes."""

    subject: Subject = field(default_factory=Subject)
    names: Mapping[str, str] = field(default_factory=dict)
    """What ``{fleet}`` and ``{group}`` stand for."""
    key_type: KeyType = KeyType.EC_P256
    not_before: datetime | None = None
    """Aware; ``None`` is the CA's own start. Never the time of minting: the bytes must not depend on it."""
    not_after: datetime | None = None
    """Aware; ``None`` is the CA's own end."""


def render(template: str, index: int, names: Mapping[str, str], where: str) -> str:
    """Fill ``{index}``, ``{fleet}`` and ``{group}`` in; nothing else, no attribute access, no conversion."""
    values: dict[str, object] = {"index": index, **names}
    parts = []
    try:
        for literal, placeholder, specification, conversion in parsed(template):
            parts.append(literal)
            if placeholder is None:
                continue
            if placeholder not in values or conversion or "{" in (specification or ""):
                raise KeyMaterialError(
                    f"{where} {template!r} has {{{placeholder}}}; allowed are "
                    + ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
                )
            parts.append(format(values[placeholder], specification or ""))
    except (ValueError, OverflowError, MemoryError) as exc:  # the last: a width of a million million
        raise KeyMaterialError(f"{where} {template!r} is not a template: {str(exc) or 'too wide'}") from exc
    return "".join(parts)


@lru_cache(maxsize=256)
def parsed(template: str) -> tuple[tuple[str, str | None, str | None, str | None], ...]:
    """Literal text, then the placeholder after it with its format specification and conversion, if any.

    Raises ``ValueError`` for what is no template.
    """
    return tuple(Formatter().parse(template))
