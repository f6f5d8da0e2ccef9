"""The two names of a TLS connection: the one sent as SNI, and the one that the server is verified against. Pure."""

import ipaddress
import re
from functools import lru_cache

MAX_SERVER_NAME = 255
"""OpenSSL's limit of a server name; pyOpenSSL would drop a longer one without a word."""

_DNS_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@lru_cache(maxsize=4096)
def check_server_name(name: str) -> bytes:
    """``name`` as it goes into the ClientHello: verbatim, whatever its case and with its trailing dot if it has one.

    What a device sends may be wrong on purpose (a probe), so only what cannot be sent is refused, with
    ``ValueError``: what OpenSSL would silently leave out. An IP literal, which RFC 6066 section 3 forbids, is sent as
    it is: mosquitto's clients do that. Other libraries send no extension at all for it; say ``None`` for that.
    """
    if not 1 <= len(name) <= MAX_SERVER_NAME:
        raise ValueError(f"server name {name!r} has {len(name)} characters; 1 to {MAX_SERVER_NAME} can be sent")
    if not name.isascii() or not name.isprintable():
        raise ValueError(
            f"server name {name!r} is not printable ASCII; write a name in another script in its xn-- form"
        )
    return name.encode("ascii")


@lru_cache(maxsize=4096)
def check_verify_name(name: str) -> None:
    """``ValueError`` unless a certificate can be verified against ``name``: a DNS name or an IP address."""
    if not is_ip_literal(name) and not _DNS_NAME.fullmatch(name):
        raise ValueError(f"name to verify {name!r} is neither a DNS name in ASCII nor an IP address")


@lru_cache(maxsize=4096)
def is_ip_literal(name: str) -> bool:
    """An IPv4 or IPv6 address, without brackets."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
