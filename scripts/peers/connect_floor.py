"""The floor on a socket: blocking, one connection after the other, TCP and the handshake, no MQTT."""

import socket

from floor import OPENSSL, client_context
from OpenSSL import SSL
from peers.phases import connected, hello, job, prepared

from devicesim.pki.identity import load_certificates, load_identity


def main() -> None:
    task = job()
    hello("pyOpenSSL", tls=OPENSSL)
    (root,) = load_certificates(task.roots.read_bytes(), str(task.roots))
    context: SSL.Context | None = None
    held = []
    for batch in task.batches:
        identities = [load_identity(task.bundle(each).read_bytes(), str(each)) for each in batch]
        if context is None:
            context = client_context(root, identities[0].chain)
        prepared()
        for identity in identities:
            sock = socket.create_connection((task.host, task.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = SSL.Connection(context, sock)
            connection.use_certificate(identity.certificate)
            connection.use_privatekey(identity.key)
            connection.set_tlsext_host_name(task.server_name.encode())
            connection.set_connect_state()
            connection.do_handshake()
            held.append((identity, connection))
        connected(len(identities))


if __name__ == "__main__":
    main()
