"""The floor under a mutual-TLS connection: what OpenSSL alone costs the client. bench_run.py and bench_connect.py
measure against it.

P-256 throughout, the server's chain verified, no session resumed; by pyOpenSSL, which is also what the fleet uses, so
that what is above the floor is devicesim's own.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from cryptography import x509
from OpenSSL import SSL, crypto

from devicesim.pki.authority import new_shared_authority
from devicesim.pki.profile import KeyType, Profile

TLSVersion = Literal["1.2", "1.3"]
VERSIONS: dict[TLSVersion, int] = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
OPENSSL = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode()
_WARM_UP = 20


def client_context(root: x509.Certificate, chain: Sequence[x509.Certificate]) -> SSL.Context:
    """As bare as it can be and still do what the fleet's does; ``chain`` is sent after the leaf."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_tmp_ecdh(KeyType.EC_P256.curve)  # type: ignore[arg-type]  # P-256 has one
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    store = context.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(root))
    context.set_verify(SSL.VERIFY_PEER)
    for issuer in chain:
        context.add_extra_chain_cert(issuer)
    return context


def handshake_seconds(version: TLSVersion, count: int) -> float:
    """Client CPU seconds of one handshake, the mean of ``count``, both ends in this thread and nothing on a socket."""
    now = datetime.now(UTC)
    ca = new_shared_authority("bench", KeyType.EC_P256, now=now, validity=timedelta(days=1))
    server = ca.issue_server(
        ["bench.localhost"],
        key_type=KeyType.EC_P256,
        not_before=now - timedelta(hours=1),
        not_after=now + timedelta(hours=1),
    )
    device = ca.mint(0, secret=b"0" * 32, profile=Profile(names={"fleet": "bench"}))
    ours, theirs = client_context(ca.certificate, ca.chain), SSL.Context(SSL.TLS_METHOD)
    ours.set_min_proto_version(VERSIONS[version])
    ours.set_max_proto_version(VERSIONS[version])
    theirs.use_certificate(server.certificate)
    theirs.use_privatekey(server.key)
    theirs.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    theirs.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    spent = 0.0
    for number in range(_WARM_UP + count):
        if number == _WARM_UP:
            spent = 0.0
        client, peer = SSL.Connection(ours), SSL.Connection(theirs)
        started = time.thread_time()
        client.use_certificate(device.certificate)
        client.use_privatekey(device.key)
        client.set_connect_state()
        spent += time.thread_time() - started
        peer.set_accept_state()
        done = {client: False, peer: False}
        while not all(done.values()):
            for side, other in ((client, peer), (peer, client)):
                started = time.thread_time()
                try:
                    side.do_handshake()
                    done[side] = True
                except SSL.WantReadError:
                    pass
                try:
                    data = side.bio_read(65_536)
                except SSL.WantReadError:
                    data = b""
                if side is client:
                    spent += time.thread_time() - started
                if data:
                    other.bio_write(data)
    return spent / count
