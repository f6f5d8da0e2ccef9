"""A certificate and its key as OpenSSL's own objects, which is what a connection sends and signs with.

Each device needs them once at least, so they are read as directly as can be, by pyOpenSSL's private names: ``_lib`` and
``_ffi`` of ``OpenSSL.crypto``, ``X509._from_raw_x509_ptr`` and ``PKey._pkey``. A test pins them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from OpenSSL import crypto

_lib, _ffi = crypto._lib, crypto._ffi  # type: ignore[attr-defined]  # private
_NULL = _ffi.NULL


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSSLPair:
    """A certificate and its key."""

    certificate: crypto.X509
    key: crypto.PKey


def read_pair(certificate: bytes, key: bytes) -> OpenSSLPair:
    """Of a certificate and a key as PKCS #8, both in DER. Raises ``crypto.Error`` for what OpenSSL does not read."""
    return OpenSSLPair(certificate=_certificate(certificate), key=_key(key))


def _certificate(der: bytes) -> crypto.X509:
    found = _decoded(_lib.d2i_X509_bio, der)
    if found == _NULL:
        return crypto.load_certificate(crypto.FILETYPE_ASN1, der)  # which says why not
    return crypto.X509._from_raw_x509_ptr(found)


def _key(der: bytes) -> crypto.PKey:
    found = _decoded(_lib.d2i_PrivateKey_bio, der)
    if found == _NULL:
        return crypto.load_privatekey(crypto.FILETYPE_ASN1, der)
    key = crypto.PKey.__new__(crypto.PKey)
    key._pkey = _ffi.gc(found, _lib.EVP_PKEY_free)
    return key


def _decoded(decode: Callable[[Any, Any], Any], der: bytes) -> Any:
    """A pointer of OpenSSL's, ``NULL`` for what it does not read."""
    data = _ffi.from_buffer(der)
    buffer = _lib.BIO_new_mem_buf(data, len(der))
    found = decode(buffer, _NULL)
    _lib.BIO_free(buffer)
    if found == _NULL:
        _lib.ERR_clear_error()
    return found
