"""The table of failures, row by row: what every foreign exception is called at every stage."""

import errno
import os
import socket

import pytest
import trio
from OpenSSL import SSL
from paho.mqtt import MQTTException
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from service_identity.exceptions import CertificateError, DNSMismatch, IPAddressMismatch, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID

from devicesim.errors import DevicesimError
from devicesim.net.failures import (
    ALERT_NAMES,
    FOREIGN,
    TABLE,
    ChainError,
    ConnectionFailed,
    EndOfStreamError,
    PacketError,
    PahoError,
    alert_name,
    failure_from,
)
from devicesim.outcome import Alert, Failure, FailureKind, Stage

CODES = SSL.X509VerificationCodes
K = FailureKind
CLOSED = {
    Stage.TCP: K.CONNECTION_RESET,
    Stage.TLS: K.CLOSED_IN_HANDSHAKE,
    Stage.CONNECT: K.CLOSED_BEFORE_CONNACK,
    Stage.CONNACK: K.CLOSED_BEFORE_CONNACK,
    Stage.SESSION: K.CLOSED_AFTER_CONNACK,
}


def ssl_error(*reasons: str) -> SSL.Error:
    return SSL.Error([("SSL routines", "", reason) for reason in reasons])


def oserror(number: int) -> OSError:
    return OSError(number, "words of the kernel")


def grouped(*errors: OSError) -> OSError:
    """As trio.open_tcp_stream tells of several tries."""
    error = OSError("all attempts to connect to x failed")
    error.__cause__ = ExceptionGroup("tries", list(errors))
    return error


ROWS: list[tuple[BaseException, Stage, FailureKind, str]] = [
    # sockets, while connecting
    (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), Stage.TCP, K.TCP_REFUSED, "ECONNREFUSED"),
    (oserror(errno.EHOSTUNREACH), Stage.TCP, K.TCP_UNREACHABLE, "EHOSTUNREACH"),
    (oserror(errno.ENETUNREACH), Stage.TCP, K.TCP_UNREACHABLE, "words of the kernel (ENETUNREACH)"),
    (oserror(errno.EACCES), Stage.TCP, K.TCP_UNREACHABLE, "EACCES"),
    (TimeoutError(errno.ETIMEDOUT, "timed out"), Stage.TCP, K.TIMEOUT, "ETIMEDOUT"),
    (ConnectionResetError(errno.ECONNRESET, "reset"), Stage.TCP, K.CONNECTION_RESET, "reset (ECONNRESET)"),
    (oserror(errno.EXDEV), Stage.TCP, K.TCP_UNREACHABLE, "EXDEV"),
    (OSError("no number"), Stage.TCP, K.TCP_UNREACHABLE, "no number"),
    # this machine's lack is never the target's fault
    (oserror(errno.EMFILE), Stage.TCP, K.LOCAL_RESOURCES, "EMFILE"),
    (oserror(errno.ENFILE), Stage.TCP, K.LOCAL_RESOURCES, "ENFILE"),
    (oserror(errno.EADDRNOTAVAIL), Stage.TCP, K.LOCAL_RESOURCES, "EADDRNOTAVAIL"),
    (
        OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)),
        Stage.TCP,
        K.LOCAL_RESOURCES,
        "no local port is left",
    ),
    (oserror(errno.ENOBUFS), Stage.TLS, K.LOCAL_RESOURCES, "ENOBUFS"),
    (oserror(errno.ENOMEM), Stage.SESSION, K.LOCAL_RESOURCES, "ENOMEM"),
    (ssl_error("malloc failure"), Stage.TLS, K.LOCAL_RESOURCES, "malloc failure"),
    # several addresses of one name
    (grouped(oserror(errno.ECONNREFUSED), oserror(errno.ENETUNREACH)), Stage.TCP, K.TCP_REFUSED, "ECONNREFUSED"),
    (grouped(oserror(errno.EMFILE)), Stage.TCP, K.LOCAL_RESOURCES, "EMFILE"),
    # names
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), Stage.TCP, K.NAME_NOT_RESOLVED, "not known"),
    (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), Stage.TCP, K.NAME_NOT_RESOLVED, "Temporary failure"),
    (socket.gaierror(socket.EAI_MEMORY, "Out of memory"), Stage.TCP, K.LOCAL_RESOURCES, "Out of memory"),
    (UnicodeError("label too long"), Stage.TCP, K.NAME_NOT_RESOLVED, "label too long"),
    (UnicodeError("no UTF-8"), Stage.SESSION, K.MQTT_PROTOCOL_ERROR, "no UTF-8"),
    # resets, with the note that a close with unread bytes looks the same
    (oserror(errno.ECONNRESET), Stage.TLS, K.CONNECTION_RESET, "bytes lie unread"),
    (SSL.SysCallError(errno.ECONNRESET, "ECONNRESET"), Stage.CONNACK, K.CONNECTION_RESET, "bytes lie unread"),
    (SSL.SysCallError(errno.ECONNABORTED, "ECONNABORTED"), Stage.SESSION, K.CONNECTION_RESET, "ECONNABORTED"),
    (SSL.SysCallError(errno.ETIMEDOUT, "ETIMEDOUT"), Stage.SESSION, K.TIMEOUT, "ETIMEDOUT"),
    (SSL.SysCallError(errno.EMFILE, "EMFILE"), Stage.TLS, K.LOCAL_RESOURCES, "EMFILE"),
    # OpenSSL
    (ssl_error("sslv3 alert handshake failure"), Stage.TLS, K.TLS_ALERT, "handshake_failure"),
    (ssl_error("tlsv1 alert unknown ca"), Stage.CONNACK, K.TLS_ALERT, "unknown_ca"),
    (ssl_error("tlsv13 alert certificate required"), Stage.CONNACK, K.TLS_ALERT, "certificate_required"),
    (ssl_error("ssl/tls alert bad certificate"), Stage.TLS, K.TLS_ALERT, "bad_certificate"),
    (ssl_error("tls alert handshake failure"), Stage.TLS, K.TLS_ALERT, "handshake_failure"),
    (ssl_error("tlsv1 alert user cancelled"), Stage.TLS, K.TLS_ALERT, "user_canceled"),
    (ssl_error("wrong version number"), Stage.TLS, K.TLS_PROTOCOL_ERROR, "wrong version number"),
    (ssl_error("unknown alert type"), Stage.TLS, K.TLS_PROTOCOL_ERROR, "unknown alert type"),
    (ssl_error("decryption failed or bad record mac"), Stage.SESSION, K.TLS_PROTOCOL_ERROR, "bad record mac"),
    (ssl_error("first", "second"), Stage.TLS, K.TLS_PROTOCOL_ERROR, "first; second"),
    (SSL.Error([]), Stage.TLS, K.TLS_PROTOCOL_ERROR, "OpenSSL gave no reason"),
    (SSL.Error(), Stage.TLS, K.TLS_PROTOCOL_ERROR, "OpenSSL gave no reason"),
    (SSL.Error("text"), Stage.TLS, K.TLS_PROTOCOL_ERROR, "text"),
    (ssl_error("certificate verify failed"), Stage.TLS, K.SERVER_CERTIFICATE_UNTRUSTED, "verify failed"),
    (ssl_error("unexpected eof while reading"), Stage.CONNACK, K.CLOSED_BEFORE_CONNACK, "without close_notify"),
    # the server's certificate
    (
        ChainError(CODES.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, 0, "CN=x"),
        Stage.TLS,
        K.SERVER_CERTIFICATE_UNTRUSTED,
        "unable to get issuer cert locally (OpenSSL code 20, depth 0, subject 'CN=x')",
    ),
    (ChainError(CODES.ERR_CERT_HAS_EXPIRED, 0, "CN=x"), Stage.TLS, K.SERVER_CERTIFICATE_EXPIRED, "cert has expired"),
    (ChainError(CODES.ERR_CERT_NOT_YET_VALID, 1, "CN=x"), Stage.TLS, K.SERVER_CERTIFICATE_EXPIRED, "not yet valid"),
    (ChainError(CODES.ERR_HOSTNAME_MISMATCH, 0, "CN=x"), Stage.TLS, K.SERVER_NAME_MISMATCH, "hostname mismatch"),
    (ChainError(CODES.ERR_CERT_REVOKED, 0, "CN=x"), Stage.TLS, K.SERVER_CERTIFICATE_UNTRUSTED, "cert revoked"),
    (ChainError(9999, 0, "CN=x"), Stage.TLS, K.SERVER_CERTIFICATE_UNTRUSTED, "certificate verification failed"),
    (
        VerificationError(errors=[DNSMismatch(mismatched_id=DNS_ID("a.example"))]),
        Stage.TLS,
        K.SERVER_NAME_MISMATCH,
        "the server's certificate is not for 'a.example'",
    ),
    (
        VerificationError(errors=[IPAddressMismatch(mismatched_id=IPAddress_ID("127.0.0.1"))]),
        Stage.TLS,
        K.SERVER_NAME_MISMATCH,
        "the server's certificate is not for '127.0.0.1'",
    ),
    (CertificateError("no subjectAltName"), Stage.TLS, K.SERVER_NAME_MISMATCH, "no subjectAltName"),
    # trio
    (trio.TooSlowError("no CONNACK within 5 s"), Stage.CONNACK, K.TIMEOUT, "no CONNACK within 5 s"),
    (trio.TooSlowError(), Stage.TLS, K.TIMEOUT, "the deadline passed"),
    # MQTT
    (PacketError("not MQTT"), Stage.CONNACK, K.MQTT_PROTOCOL_ERROR, "not MQTT"),
    (MQTTException("too short"), Stage.SESSION, K.MQTT_PROTOCOL_ERROR, "too short"),
    (MQTTException(), Stage.SESSION, K.MQTT_PROTOCOL_ERROR, "MQTTException"),
    (PahoError(MQTTErrorCode.MQTT_ERR_PROTOCOL), Stage.SESSION, K.MQTT_PROTOCOL_ERROR, "protocol error"),
    (PahoError(MQTTErrorCode.MQTT_ERR_CONN_REFUSED), Stage.CONNACK, K.CONNACK_REFUSED, "refused"),
    (PahoError(MQTTErrorCode.MQTT_ERR_KEEPALIVE), Stage.SESSION, K.TIMEOUT, "keepalive"),
    (PahoError(MQTTErrorCode.MQTT_ERR_QUEUE_SIZE), Stage.SESSION, K.LOCAL_RESOURCES, "queue full"),
    (PahoError(MQTTErrorCode.MQTT_ERR_NOMEM), Stage.SESSION, K.LOCAL_RESOURCES, "memory"),
    (PahoError(MQTTErrorCode.MQTT_ERR_NO_CONN), Stage.SESSION, K.CLOSED_AFTER_CONNACK, "not currently connected"),
    (PahoError(MQTTErrorCode.MQTT_ERR_CONN_LOST), Stage.CONNACK, K.CLOSED_BEFORE_CONNACK, "lost"),
]


@pytest.mark.parametrize(("exc", "stage", "kind", "words"), ROWS, ids=lambda value: repr(value)[:60])
def test_row(exc: BaseException, stage: Stage, kind: FailureKind, words: str) -> None:
    failure = failure_from(exc, stage)

    assert failure.kind is kind
    assert failure.stage is stage
    assert words in failure.detail


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize(
    "exc",
    [
        SSL.ZeroReturnError(),
        SSL.SysCallError(-1, "Unexpected EOF"),
        EndOfStreamError(),
        SSL.SysCallError(errno.EPIPE, "EPIPE"),
        oserror(errno.EPIPE),
        trio.ClosedResourceError(),
        trio.BrokenResourceError("the other side went away"),
        trio.EndOfChannel(),
    ],
    ids=repr,
)
def test_an_end_of_stream_is_told_by_the_stage_under_way(exc: BaseException, stage: Stage) -> None:
    assert failure_from(exc, stage).kind is CLOSED[stage]


def test_how_it_was_closed_is_told_apart() -> None:
    assert failure_from(SSL.ZeroReturnError(), Stage.CONNACK).detail == "close_notify"
    assert failure_from(EndOfStreamError(), Stage.CONNACK).detail == "end of stream without close_notify"


@pytest.mark.parametrize("stage", Stage)
def test_every_errno_has_a_kind_and_is_named(stage: Stage) -> None:
    for number, name in errno.errorcode.items():
        by_socket = failure_from(OSError(number, "words"), stage)
        by_openssl = failure_from(SSL.SysCallError(number, name), stage)

        assert by_socket.kind is by_openssl.kind
        assert name in by_socket.detail
        assert name in by_openssl.detail


def test_every_row_of_the_table_is_tried_here() -> None:
    tried = {type(exc) for exc, *_ in ROWS} | {
        SSL.ZeroReturnError,
        EndOfStreamError,
        trio.ClosedResourceError,
        trio.BrokenResourceError,
        trio.EndOfChannel,
    }

    untried = [row for row, _ in TABLE if not any(issubclass(each, row) for each in tried)]

    assert untried == []


def test_no_row_hides_a_later_one() -> None:
    types = [kind for kind, _ in TABLE]

    hidden = [(a, b) for at, a in enumerate(types) for b in types[at + 1 :] if issubclass(b, a)]

    assert hidden == []


@pytest.mark.parametrize("exc", [KeyError("x"), ValueError("x"), AssertionError(), trio.WouldBlock()], ids=repr)
def test_a_programming_error_is_not_translated(exc: BaseException) -> None:
    assert not isinstance(exc, FOREIGN)
    with pytest.raises(TypeError, match="no row in the table of failures"):
        failure_from(exc, Stage.TLS)


def test_a_received_alert_goes_before_whatever_was_raised() -> None:
    alert = Alert(name="certificate_unknown", code=46, level="fatal", direction="received")

    for exc in (SSL.SysCallError(errno.ECONNRESET, "ECONNRESET"), SSL.Error([]), trio.TooSlowError()):
        assert failure_from(exc, Stage.CONNACK, alert=alert) == Failure(
            kind=K.TLS_ALERT, stage=Stage.CONNACK, detail="certificate_unknown"
        )


def test_an_alert_that_we_sent_does_not_name_the_failure() -> None:
    alert = Alert(name="unknown_ca", code=48, level="fatal", direction="sent")

    failure = failure_from(ChainError(CODES.ERR_CERT_HAS_EXPIRED, 0, "CN=x"), Stage.TLS, alert=alert)

    assert failure.kind is K.SERVER_CERTIFICATE_EXPIRED


def test_details_are_one_line() -> None:
    assert failure_from(PacketError("two\nlines  and\tmore"), Stage.SESSION).detail == "two lines and more"


def test_connection_failed_says_kind_stage_and_detail() -> None:
    failure = Failure(kind=K.TLS_ALERT, stage=Stage.CONNACK, detail="unknown_ca")

    error = ConnectionFailed(failure)

    assert isinstance(error, DevicesimError)
    assert error.failure is failure
    assert str(error) == "tls_alert at connack: unknown_ca"
    assert str(ConnectionFailed(Failure(kind=K.TIMEOUT, stage=Stage.TLS))) == "timeout at tls"


def test_alert_names_are_the_rfcs() -> None:
    assert {code: alert_name(code) for code in (40, 42, 46, 48, 80, 112, 116, 120)} == {
        40: "handshake_failure",
        42: "bad_certificate",
        46: "certificate_unknown",
        48: "unknown_ca",
        80: "internal_error",
        112: "unrecognized_name",
        116: "certificate_required",
        120: "no_application_protocol",
    }
    assert alert_name(255) == "alert_255"
    assert len(set(ALERT_NAMES.values())) == len(ALERT_NAMES)


def test_packet_types_are_named_as_the_engine_expects() -> None:
    """paho's table of names is what messages about packets are made of."""
    assert [PacketTypes.Names[kind] for kind in (2, 3, 14)] == ["Connack", "Publish", "Disconnect"]
