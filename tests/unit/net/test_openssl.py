"""What is done to pyOpenSSL's connections behind its back, and that its private names are still what they were."""

import gc
import inspect
import weakref

import pytest
from OpenSSL import SSL, crypto

from devicesim.net import openssl
from devicesim.pki.identity import Identity
from devicesim.pki.profile import KeyType, Profile, Subject
from tests.net_support import device, device_ca


def fresh(index: int, key_type: KeyType = KeyType.EC_P256) -> Identity:
    profile = Profile(subject=Subject(common_name="fresh-{index}"), key_type=key_type)
    return device_ca().mint_random(index, profile=profile)


def new_connection() -> SSL.Connection:
    connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    connection.set_connect_state()
    return connection


def subject_of(connection: SSL.Connection) -> str | None:
    certificate = connection.get_certificate(as_cryptography=True)
    return None if certificate is None else certificate.subject.rfc4514_string()


def test_the_private_names_of_pyopenssl_that_we_use_are_still_what_they_were() -> None:
    """Each is used by pyOpenSSL itself as it is here."""
    assert "_lib.SSL_use_certificate(self._ssl, cert._x509)" in inspect.getsource(SSL.Connection.use_certificate)
    assert "_lib.SSL_use_PrivateKey(self._ssl, pkey._pkey)" in inspect.getsource(SSL.Connection.use_privatekey)
    made = inspect.getsource(SSL.Connection.__init__)
    assert "self._into_ssl = _lib.BIO_new(_lib.BIO_s_mem())" in made
    assert "self._from_ssl = _lib.BIO_new(_lib.BIO_s_mem())" in made
    assert "_lib.SSL_set_bio(self._ssl, self._into_ssl, self._from_ssl)" in made


@pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.EC_P384, KeyType.RSA_2048])
def test_certificate_and_key_are_set(key_type: KeyType) -> None:
    identity = fresh(1, key_type)
    connection = new_connection()

    openssl.use_identity(connection, identity)

    assert connection.get_certificate(as_cryptography=True) == identity.certificate


def test_what_openssl_refuses_is_said_as_pyopenssl_says_it() -> None:
    wrong = Identity(key=device(1).key, certificate=device(0).certificate)

    with pytest.raises(SSL.Error) as caught:
        openssl.use_identity(new_connection(), wrong)

    assert "key values mismatch" in str(caught.value)
    new_connection().use_certificate(device(0).certificate)  # nothing is left in OpenSSL's error queue


def test_the_pair_is_made_once_and_freed_when_nobody_needs_it() -> None:
    identity, other = fresh(1), fresh(2)
    connection = new_connection()
    openssl.use_identity(connection, identity)
    assert identity.prepare() is identity.prepare()
    pair = weakref.ref(identity.prepare().certificate)

    openssl.forget_identity(connection, other.prepare().certificate)
    identity.unprepare()
    gc.collect()

    assert pair() is None
    assert subject_of(connection) == "CN=fresh-2"


def test_a_stand_in_of_another_kind_does_no_harm() -> None:
    """OpenSSL keeps one certificate for each kind of key: nothing is freed then."""
    connection = new_connection()
    openssl.use_identity(connection, fresh(1))

    openssl.forget_identity(connection, fresh(2, KeyType.RSA_2048).prepare().certificate)

    assert crypto.X509.from_cryptography(fresh(3).certificate) is not None  # the error queue is empty


def test_buffers_are_replaced_and_work() -> None:
    connection = new_connection()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    hello = connection.bio_read(65_536)

    openssl.shrink_buffers(connection)

    with pytest.raises(SSL.WantReadError):
        connection.bio_read(1)
    connection.bio_write(b"\x15\x03\x03\x00\x02\x02\x28")
    with pytest.raises(SSL.Error, match="handshake failure"):
        connection.do_handshake()
    assert hello[0] == 22
