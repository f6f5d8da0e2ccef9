"""Device certificates out of one that has been built: what differs from device to device is put in its place.

``cryptography``'s builder encodes every field anew, in twice the time that key and signature take together. All of a
CA's device certificates with one kind of key and one validity are alike but for serial number, subject, public key, key
identifier and signature. So the builder makes one, and the others are it with those five exchanged; a test holds them
against the builder's, to the byte. Pure.
"""

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from devicesim.pki.der import BIT_STRING, INTEGER, SEQUENCE, content, elements, head
from devicesim.pki.identity import PrivateKey

_SERIAL, _SUBJECT, _PUBLIC_KEY, _EXTENSIONS = 1, 5, 6, 7
"""Places in TBSCertificate, whose version stands explicitly (RFC 5280, 4.1)."""
_FIELDS = 8


class Leaf:
    """A device certificate that others can be made of."""

    __slots__ = ("_after", "_algorithm", "_before", "_ecdsa", "_hash", "_length", "_middle", "_public_head", "_version")

    def __init__(self, built: x509.Certificate) -> None:
        """``built`` has a SubjectKeyIdentifier, which is the SHA-1 of its public key (RFC 5280, 4.2.1.2)."""
        fields = list(elements(content(built.tbs_certificate_bytes)))
        assert len(fields) == _FIELDS
        self._version, self._middle = fields[0], b"".join(fields[_SERIAL + 1 : _SUBJECT])
        self._algorithm = fields[_SERIAL + 1]
        public = fields[_PUBLIC_KEY]
        bits = public_bits(public)
        self._public_head = public.removesuffix(bits)
        identifier = built.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        assert identifier == _sha1(bits)
        self._before, self._after = fields[_EXTENSIONS].split(identifier)
        algorithm = built.signature_hash_algorithm
        assert algorithm is not None
        self._hash = algorithm
        self._ecdsa = ec.ECDSA(algorithm, deterministic_signing=True)
        self._length = sum(map(len, fields)) - len(fields[_SERIAL]) - len(fields[_SUBJECT])

    def issue(self, serial: int, subject: bytes, public: bytes, issuer_key: PrivateKey) -> bytes:
        """The DER of the certificate of ``subject``, a Name in DER, for a public key: its bits, as
        :func:`public_bits` gives them, of which there are as many as in this one's."""
        size = serial.bit_length() // 8 + 1
        number = head(INTEGER, size) + serial.to_bytes(size, "big")
        tbs = b"".join(
            (
                head(SEQUENCE, self._length + len(number) + len(subject)),
                self._version,
                number,
                self._middle,
                subject,
                self._public_head,
                public,
                self._before,
                _sha1(public),
                self._after,
            )
        )
        if isinstance(issuer_key, rsa.RSAPrivateKey):
            signature = issuer_key.sign(tbs, padding.PKCS1v15(), self._hash)
        else:
            signature = issuer_key.sign(tbs, self._ecdsa)
        signed = head(BIT_STRING, len(signature) + 1)
        length = len(tbs) + len(self._algorithm) + len(signed) + 1 + len(signature)
        return b"".join((head(SEQUENCE, length), tbs, self._algorithm, signed, b"\0", signature))


def public_bits(public: bytes) -> bytes:
    """The key in a SubjectPublicKeyInfo: its bit string without the count of unused bits. A point, or an
    RSAPublicKey."""
    _algorithm, bits = elements(content(public))
    return content(bits)[1:]


def _sha1(bits: bytes) -> bytes:
    return hashlib.sha1(bits, usedforsecurity=False).digest()
