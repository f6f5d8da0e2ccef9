"""Device certificates out of one that has been built: what differs from device to device is put in its place.

``cryptography``'s builder encodes every field anew, in twice the time that key and signature take together. All of a
CA's device certificates with one kind of key and one validity are alike but for serial number, subject, public key, key
identifier and signature. So the builder makes one, and the others are it with those five exchanged; a test holds them
against the builder's, to the byte. Pure.

DER is as simple as it needs to be here: each element is a tag, a length and its content (X.690, 8.1).
"""

import hashlib
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from devicesim.pki.identity import PrivateKey

_INTEGER, _BIT_STRING, _SEQUENCE = 0x02, 0x03, 0x30
_SERIAL, _SUBJECT, _PUBLIC_KEY, _EXTENSIONS = 1, 5, 6, 7
"""Places in TBSCertificate, whose version stands explicitly (RFC 5280, 4.1)."""
_FIELDS = 8
_DER = serialization.Encoding.DER
_SUBJECT_PUBLIC_KEY_INFO = serialization.PublicFormat.SubjectPublicKeyInfo


class Leaf:
    """A device certificate that others can be made of."""

    __slots__ = ("_after_identifier", "_algorithm", "_before_identifier", "_ecdsa", "_fixed", "_hash")

    def __init__(self, built: x509.Certificate) -> None:
        """``built`` has a SubjectKeyIdentifier, which is the SHA-1 of its public key (RFC 5280, 4.2.1.2)."""
        fields = list(_elements(_content(built.tbs_certificate_bytes)))
        assert len(fields) == _FIELDS
        self._fixed = fields[0], b"".join(fields[_SERIAL + 1 : _SUBJECT])
        self._algorithm = fields[_SERIAL + 1]
        identifier = built.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        assert identifier == _key_identifier(fields[_PUBLIC_KEY])
        self._before_identifier, self._after_identifier = fields[_EXTENSIONS].split(identifier)
        algorithm = built.signature_hash_algorithm
        assert algorithm is not None
        self._hash = algorithm
        self._ecdsa = ec.ECDSA(algorithm, deterministic_signing=True)

    def issue(self, serial: int, subject: x509.Name, key: PrivateKey, issuer_key: PrivateKey) -> x509.Certificate:
        """The certificate of ``subject`` and the public half of ``key``, which is of the kind that this one's is."""
        public = key.public_key().public_bytes(_DER, _SUBJECT_PUBLIC_KEY_INFO)
        version, middle = self._fixed
        tbs = _element(
            _SEQUENCE,
            version,
            _element(_INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big")),
            middle,
            subject.public_bytes(),
            public,
            self._before_identifier,
            _key_identifier(public),
            self._after_identifier,
        )
        if isinstance(issuer_key, rsa.RSAPrivateKey):
            signature = issuer_key.sign(tbs, padding.PKCS1v15(), self._hash)
        else:
            signature = issuer_key.sign(tbs, self._ecdsa)
        der = _element(_SEQUENCE, tbs, self._algorithm, _element(_BIT_STRING, b"\x00", signature))
        return x509.load_der_x509_certificate(der)


def _key_identifier(public: bytes) -> bytes:
    """Of a SubjectPublicKeyInfo: the SHA-1 of its bit string without the count of unused bits."""
    _algorithm, bits = _elements(_content(public))
    return hashlib.sha1(_content(bits)[1:], usedforsecurity=False).digest()


def _element(tag: int, *content: bytes) -> bytes:
    length = sum(map(len, content))
    if length < 0x80:
        head = bytes((tag, length))
    else:
        size = (length.bit_length() + 7) // 8
        head = bytes((tag, 0x80 | size)) + length.to_bytes(size, "big")
    return b"".join((head, *content))


def _end(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at ``at`` begins, and where it ends."""
    length, start = data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(data[start : start + size], "big"), start + size
    return start, start + length


def _content(element: bytes) -> bytes:
    return element[_end(element, 0)[0] :]


def _elements(content: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        end = _end(content, at)[1]
        yield content[at:end]
        at = end
