"""The devices of one profile, each minted by its number: what is the same in all of them is done once.

Minting is to keep up with the schedule beside all else that a process does, so what it costs beyond making the key and
the CA's signature is kept small: scripts/bench_mint.py measures it. Nothing here changes a byte of what
:class:`~devicesim.pki.authority.Authority` would build field by field.
"""

from collections.abc import Callable, Iterator, Mapping

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from devicesim.errors import KeyMaterialError
from devicesim.pki.der import span
from devicesim.pki.identity import Identity, PrivateKey
from devicesim.pki.leaf import Leaf
from devicesim.pki.profile import KeyType, Profile, Subject, generate_key, parsed

_ORDERS = {
    KeyType.EC_P256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    KeyType.EC_P384: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}
_SCALAR_BYTES = 56
"""64 bits more than the larger order, so that the bias of the reduction is below 2**-64 (FIPS 186-5, A.2.1)."""
_SERIAL_BYTES = 16
_TOP_BIT = 1 << (8 * _SERIAL_BYTES - 2)
_SHA256 = hashes.SHA256()
_DER = serialization.Encoding.DER
_PKCS8 = serialization.PrivateFormat.PKCS8
_PKCS1 = serialization.PublicFormat.PKCS1
_NOT_ENCRYPTED = serialization.NoEncryption()


class Series:
    """What mints the devices of one profile. Made by :meth:`~devicesim.pki.authority.Authority.series` only.

    Any number of threads may mint at once.
    """

    def __init__(
        self,
        profile: Profile,
        secret: bytes | None,
        *,
        salt: bytes,
        chain: tuple[x509.Certificate, ...],
        begin: Callable[[x509.Name, PrivateKey, int], tuple[Leaf, PrivateKey]],
    ) -> None:
        """``salt`` is the CA's fingerprint. ``begin`` is asked when the first device is minted: given its subject, key
        and serial number it returns what certificates are made of and the key that signs them, or raises
        :class:`KeyMaterialError`.
        """
        self._profile = profile
        self._chain = chain
        self._begin = begin
        self._begun: tuple[Leaf, PrivateKey] | None = None
        self._subjects = _Subjects(profile.subject, profile.names)
        self._curve = profile.key_type.curve
        self._secret = None if secret is None else HKDF.extract(_SHA256, salt, secret)
        self._info = b"devicesim device 1|" + profile.key_type.encode("ascii") + b"|"
        self._order = _ORDERS.get(profile.key_type, 0)
        self._point = 0 if self._curve is None else 2 * ((self._curve.key_size + 7) // 8) + 1
        """Bytes of an uncompressed one: the end of a private key's PKCS #8, and of its SubjectPublicKeyInfo."""

    def mint(self, index: int) -> Identity:
        """Device ``index``: with a derived key the same bytes each time, with a random one others.

        Raises :class:`KeyMaterialError` for a profile, or a CA, of which there can be no device.
        """
        secret = self._secret
        if secret is None:
            return self._issued(index, generate_key(self._profile.key_type), x509.random_serial_number())
        if self._curve is None:
            raise KeyMaterialError(
                f"a key of type {self._profile.key_type.value!r} cannot be derived from the fleet secret; "
                f"derived keys are {KeyType.EC_P256.value!r} and {KeyType.EC_P384.value!r}",
                hint='take random keys for it: [devices] keys = "random"',
            )
        if index < 0:
            raise ValueError(f"device index {index} is negative")
        material = HKDFExpand(_SHA256, _SCALAR_BYTES + _SERIAL_BYTES, self._info + b"%d" % index).derive(secret)
        scalar = int.from_bytes(material[:_SCALAR_BYTES], "big") % (self._order - 1) + 1
        # RFC 5280 4.1.2.2: positive, at most 20 octets; the top bit set keeps every serial the same length
        serial = int.from_bytes(material[_SCALAR_BYTES:], "big") >> 1 | _TOP_BIT
        return self._issued(index, ec.derive_private_key(scalar, self._curve), serial)

    def _issued(self, index: int, key: PrivateKey, serial: int) -> Identity:
        begun = self._begun
        if begun is None:
            subject = self._profile.subject.name(index, self._profile.names)
            begun = self._begun = self._begin(subject, key, serial)
        leaf, issuer_key = begun
        if self._point:
            # one call gives what the certificate needs and, later, what OpenSSL needs
            private = key.private_bytes(_DER, _PKCS8, _NOT_ENCRYPTED)
            public = private[-self._point :]
        else:
            private, public = None, key.public_key().public_bytes(_DER, _PKCS1)
        der = leaf.issue(serial, self._subjects.der(index), public, issuer_key)
        return Identity(key=key, certificate=der, chain=self._chain, private=private)


class _Subjects:
    """The subjects of one profile in DER.

    ``cryptography`` makes one; those whose numbers are as long are it with the numbers exchanged.
    """

    __slots__ = ("_cut", "_formats", "_names", "_subject")

    def __init__(self, subject: Subject, names: Mapping[str, str]) -> None:
        self._subject = subject
        self._names = names
        self._formats: tuple[str, ...] | None = None
        """Format specifications of the index, in the order in which they stand in the certificate."""
        self._cut: dict[tuple[int, ...], tuple[bytes, ...]] = {}
        """By how long the numbers are: what stands before, between and behind them."""

    def der(self, index: int) -> bytes:
        """Raises :class:`KeyMaterialError` where :meth:`~devicesim.pki.profile.Subject.name` does."""
        try:
            if self._formats is None:
                self._formats = tuple(each for _, template in self._subject.templates() for each in _formats(template))
            numbers = [format(index, each) for each in self._formats]
        except (ValueError, OverflowError, MemoryError):
            return self._subject.name(index, self._names).public_bytes()  # which says what is wrong
        text = "".join(numbers)
        if text and not (text.isascii() and text.isalnum()):
            # whether they may stand in a certificate, and how long they are there, the next one's do not say
            return self._subject.name(index, self._names).public_bytes()
        lengths = tuple(map(len, numbers))
        pieces = self._cut.get(lengths)
        if pieces is None:
            pieces = self._cut[lengths] = self._pieces(index)
        if len(pieces) == 2:
            return pieces[0] + text.encode("ascii") + pieces[1]
        ends = (*(each.encode("ascii") for each in numbers), b"")
        return b"".join(each for both in zip(pieces, ends, strict=True) for each in both)

    def _pieces(self, index: int) -> tuple[bytes, ...]:
        """The Name of one device (a sequence of sets of one sequence, each of OID and text) without its numbers."""
        der = self._subject.name(index, self._names).public_bytes()
        pieces, done = [], 0
        at = span(der, 0)[0]
        for _, template in self._subject.templates():
            attribute = span(der, span(der, at)[0])[0]
            place = span(der, span(der, attribute)[1])[0]
            for literal, placeholder, specification, _ in parsed(template):
                place += len(literal.encode())
                if placeholder is None:
                    continue
                value = format(index if placeholder == "index" else self._names[placeholder], specification or "")
                if placeholder == "index":
                    pieces.append(der[done:place])
                    done = place + len(value)
                place += len(value.encode())
            at = span(der, at)[1]
            assert place == at, f"{template!r} does not stand in the certificate as it is"
        return (*pieces, der[done:])


def _formats(template: str) -> Iterator[str]:
    return (specification or "" for _, placeholder, specification, _ in parsed(template) if placeholder == "index")
