"""A certificate and its key as OpenSSL's own objects."""

import inspect
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from OpenSSL import crypto

from devicesim.pki.authority import self_signed
from devicesim.pki.identity import Identity, private_key_pem
from devicesim.pki.pair import read_pair

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def identity() -> Identity:
    return self_signed("x", not_before=NOW, not_after=NOW + timedelta(days=1))


def pkcs8(identity: Identity) -> bytes:
    return identity.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_the_private_names_of_pyopenssl_that_we_use_are_still_what_they_were() -> None:
    """Each is used by pyOpenSSL itself as it is here."""
    certificate = inspect.getsource(crypto.load_certificate)
    assert "x509 = _lib.d2i_X509_bio(bio, _ffi.NULL)" in certificate
    assert "return X509._from_raw_x509_ptr(x509)" in certificate
    key = inspect.getsource(crypto.load_privatekey)
    assert "evp_pkey = _lib.d2i_PrivateKey_bio(bio, _ffi.NULL)" in key
    assert "pkey = PKey.__new__(PKey)" in key
    assert "pkey._pkey = _ffi.gc(evp_pkey, _lib.EVP_PKEY_free)" in key
    assert "_lib.BIO_new_mem_buf(data, len(buffer))" in inspect.getsource(crypto._new_mem_buf)


def test_what_is_read_is_what_was_given(identity: Identity) -> None:
    pair = read_pair(identity.der, pkcs8(identity))

    assert pair.certificate.to_cryptography() == identity.certificate
    assert private_key_pem(pair.key.to_cryptography_key()) == private_key_pem(identity.key)  # type: ignore[arg-type]  # EC


@pytest.mark.parametrize("which", ["certificate", "key"])
@pytest.mark.parametrize("cut", [1, 60])
def test_what_openssl_does_not_read_is_refused_in_its_words_and_leaves_nothing_behind(
    identity: Identity, which: str, cut: int
) -> None:
    given = {"certificate": identity.der, "key": pkcs8(identity)}
    given[which] = given[which][:cut]

    with pytest.raises(crypto.Error) as caught:
        read_pair(**given)

    (errors,) = caught.value.args
    assert errors, "OpenSSL says why"
    assert len(errors) == len(set(errors)), "once"
    assert crypto._lib.ERR_peek_error() == 0  # type: ignore[attr-defined]
