"""What is done to a connection of pyOpenSSL's by OpenSSL's own functions, because pyOpenSSL has no way or a slow one.

pyOpenSSL's private names are used here and in :mod:`devicesim.pki.pair` only, and pinned by a test:
``Connection._ssl``, ``_into_ssl`` and ``_from_ssl``, ``X509._x509``, ``PKey._pkey``, and the functions of
``cryptography``'s OpenSSL as ``SSL._lib``.
"""

from OpenSSL import SSL, crypto

from devicesim.pki.identity import Identity

_lib = SSL._lib  # type: ignore[attr-defined]  # private


def use_identity(connection: SSL.Connection, identity: Identity) -> None:
    """Set certificate and key, out of what :meth:`Identity.prepare` keeps.

    pyOpenSSL takes objects of ``cryptography`` only, and encodes and decodes both each time: 0.08 ms where that is all
    that is done, 0.2 ms in between other work. Raises ``SSL.Error`` and ``crypto.Error`` for what OpenSSL refuses.
    """
    pair = identity.prepare()
    ssl = connection._ssl
    if not _lib.SSL_use_certificate(ssl, pair.certificate._x509) or not _lib.SSL_use_PrivateKey(ssl, pair.key._pkey):
        # pyOpenSSL says why
        connection.use_certificate(identity.certificate)
        connection.use_privatekey(identity.key)


def forget_identity(connection: SSL.Connection, stand_in: crypto.X509) -> None:
    """Let go of certificate and key, 4.5 KB, after the handshake: nothing asks for them again.

    There is no renegotiation (the context forbids it) and no authentication after the handshake (TLS 1.3 clients
    must offer it first). OpenSSL can only replace a certificate, and drops a key that is not the new one's.
    """
    if not _lib.SSL_use_certificate(connection._ssl, stand_in._x509):
        _lib.ERR_clear_error()


def shrink_buffers(connection: SSL.Connection) -> None:
    """New buffers for those that the handshake has blown up; only when both are empty. 2 KB."""
    into, out = _lib.BIO_new(_lib.BIO_s_mem()), _lib.BIO_new(_lib.BIO_s_mem())
    _lib.SSL_set_bio(connection._ssl, into, out)
    connection._into_ssl, connection._from_ssl = into, out
