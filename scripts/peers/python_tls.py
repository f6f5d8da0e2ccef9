"""Python's own ``ssl`` for one device.

The peers' choices: the roots given and not the system's, whose loading would be most of the cost; the file read by
OpenSSL. A context a device, because the certificate belongs to the context: swapping it on a shared one between two
handshakes works only where nothing else dials meanwhile. The context is made while it is measured, as what it does
(parse key and certificate, check that they match) is part of connecting in every other contender too.
"""

import ssl
from pathlib import Path

OPENSSL = ssl.OPENSSL_VERSION


def context(roots: Path, bundle: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and name
    made.load_verify_locations(roots)
    made.load_cert_chain(bundle)
    return made
