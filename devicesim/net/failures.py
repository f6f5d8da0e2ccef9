"""What was seen, from whatever was raised: the one table from foreign exceptions at a :class:`Stage` to a
:class:`Failure`.

Everything that ``net`` stands on (sockets, OpenSSL, paho-mqtt, service-identity, trio) speaks of errors in its own way.
They meet here and nowhere else. A row names what was seen on the wire, never a guess at the cause. Pure: no socket, no
clock.

Three rules that are not obvious from the table:

* **An end of stream is told by the stage under way.** TCP FIN, close_notify and EPIPE (a write after the peer's FIN)
  are one thing, *closed*: in the handshake, before CONNACK, or after it. AWS IoT's canonical refusal is a close after
  CONNECT without CONNACK (aws-iot-behaviour.md 4.2).
* **A reset is not a close.** ECONNRESET is CONNECTION_RESET at whatever stage, though a server that closes while our
  bytes lie unread in its buffer also causes one; the detail says so.
* **An alert goes before everything else.** In TLS 1.3 the refusal of a client certificate arrives on the first read
  after the handshake; it is TLS_ALERT at the stage under way then, not a close.
"""

import errno
import os
import re
import socket
from collections.abc import Callable

import trio
from OpenSSL import SSL
from paho.mqtt import MQTTException
from paho.mqtt.client import error_string
from paho.mqtt.enums import MQTTErrorCode
from service_identity.exceptions import CertificateError, VerificationError

from devicesim.errors import DevicesimError
from devicesim.outcome import Alert, Failure, FailureKind, Stage


class ConnectionFailed(DevicesimError):  # noqa: N818 - says what happened, as the records do
    """A connection did not come about, or did not last, or a request on it was refused; :attr:`failure` says how.

    The only exception that leaves ``net`` for what a network or a server did. The library's own exception is its
    ``__cause__`` where there was one.
    """

    def __init__(self, failure: Failure) -> None:
        detail = f": {failure.detail}" if failure.detail else ""
        super().__init__(f"{failure.kind} at {failure.stage}{detail}")
        self.failure = failure


class EndOfStreamError(Exception):
    """TCP's end of stream, where TLS had not said close_notify."""

    def __init__(self) -> None:
        super().__init__("end of stream without close_notify")


class PacketError(Exception):
    """The peer's bytes are not MQTT, or not the packet that must stand there."""


class PahoError(Exception):
    """paho-mqtt did not take a request: its own result code."""

    def __init__(self, rc: MQTTErrorCode) -> None:
        super().__init__(error_string(rc))
        self.rc = rc


class ChainError(Exception):
    """OpenSSL refused the server's certificate chain: its own verification code, at a depth (0 is the leaf)."""

    def __init__(self, code: int, depth: int, subject: str) -> None:
        super().__init__(f"{_verification_words(code)} (OpenSSL code {code}, depth {depth}, subject {subject!r})")
        self.code = code


ALERT_NAMES = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    21: "decryption_failed",
    22: "record_overflow",
    30: "decompression_failure",
    40: "handshake_failure",
    41: "no_certificate",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    60: "export_restriction",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    100: "no_renegotiation",
    109: "missing_extension",
    110: "unsupported_extension",
    111: "certificate_unobtainable",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    114: "bad_certificate_hash_value",
    115: "unknown_psk_identity",
    116: "certificate_required",
    117: "general_error",
    120: "no_application_protocol",
    121: "ech_required",
}
"""IANA's TLS Alerts registry: RFC 8446 section 6 and what older and newer RFCs put beside it."""

_CODES = SSL.X509VerificationCodes

CHAIN_KINDS = {
    _CODES.ERR_CERT_HAS_EXPIRED: FailureKind.SERVER_CERTIFICATE_EXPIRED,
    _CODES.ERR_CERT_NOT_YET_VALID: FailureKind.SERVER_CERTIFICATE_EXPIRED,
    _CODES.ERR_HOSTNAME_MISMATCH: FailureKind.SERVER_NAME_MISMATCH,
    _CODES.ERR_IP_ADDRESS_MISMATCH: FailureKind.SERVER_NAME_MISMATCH,
}
"""By X509_V_ERR code; every other code is SERVER_CERTIFICATE_UNTRUSTED."""

ERRNO_KINDS = {
    errno.ECONNREFUSED: FailureKind.TCP_REFUSED,
    errno.EHOSTUNREACH: FailureKind.TCP_UNREACHABLE,
    errno.ENETUNREACH: FailureKind.TCP_UNREACHABLE,
    errno.EHOSTDOWN: FailureKind.TCP_UNREACHABLE,
    errno.ENETDOWN: FailureKind.TCP_UNREACHABLE,
    errno.EACCES: FailureKind.TCP_UNREACHABLE,  # a local firewall rule
    errno.EPERM: FailureKind.TCP_UNREACHABLE,
    errno.EAFNOSUPPORT: FailureKind.TCP_UNREACHABLE,  # an IPv6 address on a machine without IPv6
    errno.ETIMEDOUT: FailureKind.TIMEOUT,  # the kernel's own, before our deadline
    errno.ECONNRESET: FailureKind.CONNECTION_RESET,
    errno.ECONNABORTED: FailureKind.CONNECTION_RESET,
    errno.EMFILE: FailureKind.LOCAL_RESOURCES,
    errno.ENFILE: FailureKind.LOCAL_RESOURCES,
    errno.EADDRNOTAVAIL: FailureKind.LOCAL_RESOURCES,  # on connect: no local port is left
    errno.EADDRINUSE: FailureKind.LOCAL_RESOURCES,
    errno.ENOBUFS: FailureKind.LOCAL_RESOURCES,
    errno.ENOMEM: FailureKind.LOCAL_RESOURCES,
}
"""An errno that is not here means: no connection (TCP_UNREACHABLE) at the TCP stage, closed at a later one."""

CLOSED_KINDS = {
    Stage.TCP: FailureKind.CONNECTION_RESET,
    Stage.TLS: FailureKind.CLOSED_IN_HANDSHAKE,
    Stage.CONNECT: FailureKind.CLOSED_BEFORE_CONNACK,
    Stage.CONNACK: FailureKind.CLOSED_BEFORE_CONNACK,
    Stage.SESSION: FailureKind.CLOSED_AFTER_CONNACK,
}
"""What an end of stream is called at the stage under way."""

RC_KINDS = {
    MQTTErrorCode.MQTT_ERR_PROTOCOL: FailureKind.MQTT_PROTOCOL_ERROR,
    MQTTErrorCode.MQTT_ERR_CONN_REFUSED: FailureKind.CONNACK_REFUSED,
    MQTTErrorCode.MQTT_ERR_KEEPALIVE: FailureKind.TIMEOUT,
    MQTTErrorCode.MQTT_ERR_NOMEM: FailureKind.LOCAL_RESOURCES,
    MQTTErrorCode.MQTT_ERR_QUEUE_SIZE: FailureKind.LOCAL_RESOURCES,
    MQTTErrorCode.MQTT_ERR_AUTH: FailureKind.CONNACK_REFUSED,
    MQTTErrorCode.MQTT_ERR_ACL_DENIED: FailureKind.REQUEST_REFUSED,
    MQTTErrorCode.MQTT_ERR_TLS: FailureKind.TLS_PROTOCOL_ERROR,
}
"""paho's result codes; one that is not here (NO_CONN, CONN_LOST, ...) means closed."""

_RESET_NOTE = "a server that closes while our bytes lie unread in its buffer looks the same"
_ADDRESS_NOTE = "no local port is left, or the source is no address of this machine"
_ALERT_REASON = re.compile(r"(?:sslv3|tlsv1|tlsv13|ssl/tls|tls) alert (?P<words>.+)")
"""How OpenSSL words a fatal alert that it received: the prefix changed from 3.0 to 4.0."""
_ALERT_SPELLING = {"user_cancelled": "user_canceled"}
"""Where OpenSSL's words are not the RFC's."""
_OUT_OF_MEMORY = "malloc failure"

Row = Callable[[BaseException, Stage], tuple[FailureKind, str]]


def _name_resolution(exc: BaseException, _stage: Stage) -> tuple[FailureKind, str]:
    assert isinstance(exc, socket.gaierror)
    # EAI_MEMORY is this machine's lack, not the name's
    kind = FailureKind.LOCAL_RESOURCES if exc.errno == socket.EAI_MEMORY else FailureKind.NAME_NOT_RESOLVED
    return kind, exc.strerror or str(exc)


def _name_encoding(exc: BaseException, stage: Stage) -> tuple[FailureKind, str]:
    """A host name that is no DNS name never gets as far as the resolver; later, a topic that is no UTF-8."""
    if stage is Stage.TCP:
        return FailureKind.NAME_NOT_RESOLVED, str(exc)
    return FailureKind.MQTT_PROTOCOL_ERROR, str(exc)


def _errno(exc: BaseException, stage: Stage) -> tuple[FailureKind, str]:
    assert isinstance(exc, OSError)
    if exc.errno is None:
        # trio.open_tcp_stream tells of all its tries in one error without errno
        first = _first_oserror(exc.__cause__)
        if first is not None:
            return _kind_of_errno(first.errno, first.strerror or str(first), stage)
    return _kind_of_errno(exc.errno, exc.strerror or str(exc), stage)


def _tls_syscall(exc: BaseException, stage: Stage) -> tuple[FailureKind, str]:
    number = exc.args[0] if exc.args else -1
    if number == -1:
        return CLOSED_KINDS[stage], "end of stream without close_notify"
    return _kind_of_errno(number, os.strerror(number), stage)


def _tls_closed(_exc: BaseException, stage: Stage) -> tuple[FailureKind, str]:
    return CLOSED_KINDS[stage], "close_notify"


def _tls_error(exc: BaseException, stage: Stage) -> tuple[FailureKind, str]:
    reasons = _reasons(exc)
    for reason in reasons:
        if match := _ALERT_REASON.fullmatch(reason):
            name = match["words"].replace(" ", "_")
            return FailureKind.TLS_ALERT, _ALERT_SPELLING.get(name, name)
    if _OUT_OF_MEMORY in reasons:
        return FailureKind.LOCAL_RESOURCES, _OUT_OF_MEMORY
    if "certificate verify failed" in reasons:
        return FailureKind.SERVER_CERTIFICATE_UNTRUSTED, "certificate verify failed"
    if "unexpected eof while reading" in reasons:
        return CLOSED_KINDS[stage], "end of stream without close_notify"
    return FailureKind.TLS_PROTOCOL_ERROR, "; ".join(reasons) or "OpenSSL gave no reason"


def _chain(exc: BaseException, _stage: Stage) -> tuple[FailureKind, str]:
    assert isinstance(exc, ChainError)
    return CHAIN_KINDS.get(exc.code, FailureKind.SERVER_CERTIFICATE_UNTRUSTED), str(exc)


def _name_mismatch(exc: BaseException, _stage: Stage) -> tuple[FailureKind, str]:
    if isinstance(exc, VerificationError):
        ids = (mismatch.mismatched_id for mismatch in exc.errors)
        names = ", ".join(
            repr(each.hostname.decode() if hasattr(each, "hostname") else str(getattr(each, "ip", each)))
            for each in ids
        )
        return FailureKind.SERVER_NAME_MISMATCH, f"the server's certificate is not for {names}"
    return FailureKind.SERVER_NAME_MISMATCH, str(exc)


def _timeout(exc: BaseException, _stage: Stage) -> tuple[FailureKind, str]:
    return FailureKind.TIMEOUT, str(exc) or "the deadline passed"


def _closed(exc: BaseException, stage: Stage) -> tuple[FailureKind, str]:
    return CLOSED_KINDS[stage], str(exc) or "this side has closed the connection"


def _mqtt(exc: BaseException, _stage: Stage) -> tuple[FailureKind, str]:
    return FailureKind.MQTT_PROTOCOL_ERROR, str(exc) or type(exc).__name__


def _paho_code(exc: BaseException, stage: Stage) -> tuple[FailureKind, str]:
    assert isinstance(exc, PahoError)
    return RC_KINDS.get(exc.rc, CLOSED_KINDS[stage]), str(exc)


TABLE: tuple[tuple[type[BaseException], Row], ...] = (
    # the first row whose type fits decides, so a subclass stands before its base
    (socket.gaierror, _name_resolution),
    (UnicodeError, _name_encoding),
    (OSError, _errno),
    (SSL.SysCallError, _tls_syscall),
    (SSL.ZeroReturnError, _tls_closed),
    (SSL.Error, _tls_error),
    (ChainError, _chain),
    (VerificationError, _name_mismatch),
    (CertificateError, _name_mismatch),
    (trio.TooSlowError, _timeout),
    (EndOfStreamError, _closed),
    (trio.ClosedResourceError, _closed),
    (trio.BrokenResourceError, _closed),
    (trio.EndOfChannel, _closed),
    (PacketError, _mqtt),
    (PahoError, _paho_code),
    (MQTTException, _mqtt),
)

FOREIGN: tuple[type[BaseException], ...] = tuple(kind for kind, _row in TABLE)
"""What :func:`failure_from` translates. Anything else that is raised is a programming error, and is let through."""


def failure_from(exc: BaseException, stage: Stage, *, alert: Alert | None = None) -> Failure:
    """What was seen when ``exc`` was raised while ``stage`` was under way.

    ``alert`` is the first fatal alert that this connection has seen, if any: OpenSSL's wording of a received alert is
    lost where the read that met it failed for another reason too.
    """
    if alert is not None and alert.direction == "received" and alert.level == "fatal":
        return Failure(kind=FailureKind.TLS_ALERT, stage=stage, detail=alert.name)
    for kind, row in TABLE:
        if isinstance(exc, kind):
            found, detail = row(exc, stage)
            return Failure(kind=found, stage=stage, detail=one_line(detail))
    raise TypeError(f"{type(exc).__name__} has no row in the table of failures: {exc}") from exc


def alert_name(code: int) -> str:
    """The RFC's name of an alert, or ``alert_<code>`` for one that IANA does not know."""
    return ALERT_NAMES.get(code, f"alert_{code}")


def one_line(text: str) -> str:
    return " ".join(text.split())


def _kind_of_errno(number: int | None, words: str, stage: Stage) -> tuple[FailureKind, str]:
    name = errno.errorcode.get(number, "") if number is not None else ""
    detail = f"{words} ({name})" if name else words
    if number == errno.EPIPE:
        return CLOSED_KINDS[stage], detail
    default = FailureKind.TCP_UNREACHABLE if stage is Stage.TCP else CLOSED_KINDS[stage]
    kind = ERRNO_KINDS.get(number, default) if number is not None else default
    if kind is FailureKind.CONNECTION_RESET and stage is not Stage.TCP:
        detail = f"{detail}; {_RESET_NOTE}"
    elif number == errno.EADDRNOTAVAIL and words == os.strerror(number):
        detail = f"{detail}; {_ADDRESS_NOTE}"
    return kind, detail


def _first_oserror(exc: BaseException | None) -> OSError | None:
    if isinstance(exc, OSError):
        return exc
    if isinstance(exc, BaseExceptionGroup):
        return next((found for each in exc.exceptions if (found := _first_oserror(each))), None)
    return None


def _reasons(exc: BaseException) -> list[str]:
    """The reason texts of a pyOpenSSL error, whose argument is a list of (library, function, reason)."""
    queue = exc.args[0] if exc.args else []
    if not isinstance(queue, list):
        return [str(queue)]
    return [entry[2] for entry in queue if len(entry) == 3 and entry[2]]


def _verification_words(code: int) -> str:
    """``ERR_CERT_HAS_EXPIRED`` as ``cert has expired``: pyOpenSSL publishes the codes, not OpenSSL's sentences."""
    return _VERIFICATION_NAMES.get(code, "certificate verification failed")


_VERIFICATION_NAMES = {
    value: name.removeprefix("ERR_").replace("_", " ").lower()
    for name, value in vars(_CODES).items()
    if name.startswith("ERR_") and isinstance(value, int)
}
