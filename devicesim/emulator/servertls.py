"""The TLS that devices meet: contexts by Region, and what a handshake showed.

As AWS's front door (aws-iot-behaviour.md §4): a wildcard certificate of the Region whatever name was asked for (but
that of a custom domain, or what a fault asks for: :class:`Shown`), TLS 1.2 and 1.3, a client certificate asked for
and **not verified**. The handshake proves that the device has the leaf's key and nothing else; what the leaf is worth
is decided at CONNECT. No session is resumed. (In TLS 1.3 OpenSSL still sends tickets, which pyOpenSSL cannot switch
off; they resume nothing, since no session is kept.)
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from hashlib import sha256
from typing import Any, Final

from OpenSSL import SSL, crypto

from devicesim.emulator import admission
from devicesim.emulator.admission import Door, Presented
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.partition import ENDPOINT_DOMAIN
from devicesim.pki.authority import Authority

_MQTT: Final = admission.ALPN_MQTT.encode()
_MAX_CONTEXTS: Final = 1000
"""Contexts kept: one for each Region and port, and for each custom domain that was asked for lately."""
_EXPIRING_KEPT: Final = 1.0
"""Seconds that a certificate which is about to expire is shown: its time is told to the second."""
_FLAWED_VALIDITY: Final = timedelta(days=90)
_NOBODY: Final = "wrong-name.invalid"
_SLACK = timedelta(hours=1)
_VALIDITY = timedelta(days=365)


class Flaw(Enum):
    """What is wrong with a server certificate that is shown on purpose."""

    EXPIRING = "expiring"
    """Ends ``seconds`` from now."""
    EXPIRED = "expired"
    """Ended ``seconds`` ago."""
    WRONG_NAME = "wrong_name"


@dataclass(frozen=True, slots=True)
class Shown:
    """Which server certificate a connection is shown, by what rules."""

    region: str
    alpn: bool = False
    """On the ALPN port."""
    domain: str | None = None
    """A custom domain, when the wildcard of the Region does not cover the name."""
    flaw: Flaw | None = None
    seconds: float = 0.0
    """See :class:`Flaw`."""


class ALPNRefusedError(Exception):
    """The client offered no protocol that the ALPN port speaks; it is sent the alert ``no_application_protocol``."""


class ServerContexts:
    """One ``SSL.Context`` for each :class:`Shown`, made when first needed."""

    def __init__(self, authority: Authority, *, settings: Settings, now: float) -> None:
        """``authority`` is the emulator's own root; ``now`` is in seconds since the Unix epoch."""
        self._authority = authority
        self._settings = settings
        self._now = datetime.fromtimestamp(now, UTC)
        self._contexts: OrderedDict[Shown, tuple[SSL.Context, float]] = OrderedDict()
        """With the time at which each was made."""
        self.choose: Callable[[SSL.Connection], Shown | None] = _stay
        """What a connection is to be shown, when not the door's own; asked when its server name is known."""
        self.clock: Callable[[], float] = lambda: now
        """Seconds since the Unix epoch, for certificates that are about to expire."""

    def context(self, shown: Shown) -> SSL.Context:
        context, made = self._contexts.get(shown, (None, 0.0))
        if context is None or (shown.flaw is Flaw.EXPIRING and self.clock() >= made + _EXPIRING_KEPT):
            context = self._make(shown)
            self._contexts[shown] = context, self.clock()
        self._contexts.move_to_end(shown)
        if len(self._contexts) > _MAX_CONTEXTS:
            self._contexts.popitem(last=False)
        return context

    def _validity(self, shown: Shown) -> tuple[datetime, datetime]:
        moment = datetime.fromtimestamp(self.clock(), UTC)
        match shown.flaw:
            case Flaw.EXPIRING:
                end = moment + timedelta(seconds=shown.seconds)
                return min(moment, end) - _FLAWED_VALIDITY, end
            case Flaw.EXPIRED:
                end = moment - timedelta(seconds=shown.seconds)
                return end - _FLAWED_VALIDITY, end
            case _:
                return self._now - _SLACK, self._now + _VALIDITY

    def _names(self, shown: Shown) -> Sequence[str]:
        if shown.flaw is Flaw.WRONG_NAME:
            return [_NOBODY]
        if shown.domain is not None:
            return [shown.domain]
        return [f"*.iot.{shown.region}.{ENDPOINT_DOMAIN}", ENDPOINT_DOMAIN, "127.0.0.1", "::1"]

    def _make(self, shown: Shown) -> SSL.Context:
        not_before, not_after = self._validity(shown)
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(
            SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE
        )
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        for key_type in self._settings.server_key_types:
            identity = self._authority.issue_server(
                self._names(shown), key_type=key_type, not_before=not_before, not_after=not_after
            )
            context.use_certificate(identity.certificate)
            context.use_privatekey(identity.key)
        verify = SSL.VERIFY_PEER
        if self._settings.client_certificate_required:
            verify |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        context.set_verify(verify, _accept_any)
        context.set_alpn_select_callback(_demand_alpn if shown.alpn else _select_alpn)
        context.set_tlsext_servername_callback(self._server_name_seen)
        return context

    def _server_name_seen(self, connection: SSL.Connection) -> None:
        shown = self.choose(connection)
        if shown is not None:
            connection.set_context(self.context(shown))


def custom_domain(server_name: str, region: str) -> str | None:
    """The name, unless the Region's own certificate is good for it."""
    label, _, rest = server_name.partition(".")
    return None if label and rest == f"iot.{region}.{ENDPOINT_DOMAIN}" else server_name


def _stay(_connection: SSL.Connection) -> None:
    return None


def _accept_any(_connection: SSL.Connection, _certificate: crypto.X509, _error: int, _depth: int, _ok: int) -> bool:
    return True


def _select_alpn(_connection: SSL.Connection, offered: list[bytes]) -> Any:  # the sentinel's type is private
    """On port 8883: taken when offered; a client that offers other names goes on without ALPN."""
    return _MQTT if _MQTT in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _demand_alpn(_connection: SSL.Connection, offered: list[bytes]) -> bytes:
    """On port 443 (§4.3). Only called when the client offers any; raising makes pyOpenSSL send the alert."""
    if _MQTT not in offered:
        names = ", ".join(repr(each.decode("ascii", "backslashreplace")) for each in offered)
        raise ALPNRefusedError(f"the client offered ALPN {names}, of which none is {admission.ALPN_MQTT!r}")
    return _MQTT


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
