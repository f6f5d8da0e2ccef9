"""The TLS that devices meet: contexts by Region, and what a handshake showed.

As AWS's front door (aws-iot-behaviour.md §4): a wildcard certificate of the Region whatever name was asked for, TLS 1.2
and 1.3, a client certificate asked for and **not verified**. The handshake proves that the device has the leaf's key
and nothing else; what the leaf is worth is decided at CONNECT. No session is resumed. (In TLS 1.3 OpenSSL still sends
tickets, which pyOpenSSL cannot switch off; they resume nothing, since no session is kept.)
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from OpenSSL import SSL, crypto

from devicesim.emulator import admission
from devicesim.emulator.admission import Door, Presented
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.partition import ENDPOINT_DOMAIN
from devicesim.pki.authority import Authority

ALPN_MQTT = b"x-amzn-mqtt-ca"
"""MQTT with a client certificate (§4.3). Taken when offered; a client that offers other names goes on without ALPN."""
_SLACK = timedelta(hours=1)
_VALIDITY = timedelta(days=365)


class ServerContexts:
    """One ``SSL.Context`` for each Region, made when first needed."""

    def __init__(self, authority: Authority, *, settings: Settings, now: float) -> None:
        """``authority`` is the emulator's own root; ``now`` is in seconds since the Unix epoch."""
        self._authority = authority
        self._settings = settings
        moment = datetime.fromtimestamp(now, UTC)
        self._not_before = moment - _SLACK
        self._not_after = moment + _VALIDITY
        self._contexts: dict[str, SSL.Context] = {}
        self.choose: Callable[[SSL.Connection], str | None] = _stay
        """The Region whose certificate a connection is to be shown, when not the door's own."""

    def context(self, region: str) -> SSL.Context:
        context = self._contexts.get(region)
        if context is None:
            context = self._contexts[region] = self._make(region)
        return context

    def _make(self, region: str) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(
            SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE
        )
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        for key_type in self._settings.server_key_types:
            identity = self._authority.issue_server(
                [f"*.iot.{region}.{ENDPOINT_DOMAIN}", ENDPOINT_DOMAIN, "127.0.0.1", "::1"],
                key_type=key_type,
                not_before=self._not_before,
                not_after=self._not_after,
            )
            context.use_certificate(identity.certificate)
            context.use_privatekey(identity.key)
        verify = SSL.VERIFY_PEER
        if self._settings.client_certificate_required:
            verify |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        context.set_verify(verify, _accept_any)
        context.set_alpn_select_callback(_select_alpn)
        context.set_tlsext_servername_callback(self._server_name_seen)
        return context

    def _server_name_seen(self, connection: SSL.Connection) -> None:
        region = self.choose(connection)
        if region is not None:
            connection.set_context(self.context(region))


def _stay(_connection: SSL.Connection) -> None:
    return None


def _accept_any(_connection: SSL.Connection, _certificate: crypto.X509, _error: int, _depth: int, _ok: int) -> bool:
    return True


def _select_alpn(_connection: SSL.Connection, offered: list[bytes]) -> Any:  # the sentinel's type is private
    return ALPN_MQTT if ALPN_MQTT in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def read_presented(tls: SSL.Connection, *, door: Door, source_ip: str, source_port: int) -> Presented:
    """What the handshake showed so far; a certificate that cannot be read is a finding, not an error."""
    leaf, problem, leaf_id = None, "", None
    certificate = tls.get_peer_certificate()
    if certificate is not None:
        der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
        leaf_id = sha256(der).hexdigest()
        leaf, problem = admission.read_leaf(der)
    chain = tls.get_peer_cert_chain() or []  # on a server, without the leaf
    return Presented(
        door=door,
        server_name=tls.get_servername(),
        leaf=leaf,
        chain=tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, each) for each in chain),
        certificate_problem=problem,
        certificate_id=leaf_id,
        tls_version=tls.get_protocol_version_name(),
        cipher=tls.get_cipher_name() or "",
        alpn=tls.get_alpn_proto_negotiated().decode("ascii", "backslashreplace"),
        source_ip=source_ip,
        source_port=source_port,
    )


def describe(error: SSL.Error) -> str:
    """One line for an OpenSSL error: the reasons of its queue."""
    if isinstance(error, SSL.ZeroReturnError):
        return "the client closed the connection with close_notify"
    if isinstance(error, SSL.SysCallError) and error.args:
        number, text = (*error.args, "")[:2]
        return "the client closed the connection" if number == -1 else f"{text or number}"
    queue = error.args[0] if error.args else []
    reasons = [entry[2] for entry in queue if isinstance(entry, tuple) and len(entry) == 3]
    return "; ".join(reasons) or "TLS failed without a reason"
