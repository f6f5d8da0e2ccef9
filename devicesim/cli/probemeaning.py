"""What a probe comes to, and what that commonly means. Pure.

A failure's kind says what was seen. The words here go one step on and say what such an end commonly is on AWS IoT Core
(aws-iot-behaviour.md §4.2, §5, §9), by what this very connection showed: which name, protocol and certificate were
sent, and which were not. What would take a look into the account is left to ``devicesim diagnose``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from devicesim.net.probe import Probe
from devicesim.net.steps import (
    CertificateFacts,
    ClientCertificate,
    ClientHelloSent,
    ConnackReceived,
    Held,
    ServerCertificates,
    TLSDone,
    Told,
)
from devicesim.outcome import DeviceOutcome, Failure, FailureKind, Stage
from devicesim.record.verdict import outcome_of

MQTT_ALPN = "x-amzn-mqtt-ca"
ALPN_PORT = 443
"""Where AWS IoT speaks MQTT only to who asks for it by ALPN (aws-iot-behaviour.md §4.3)."""
EXIT_ACCEPTED = 0
EXIT_UNREACHABLE = 3
EXIT_REFUSED = 99
EXIT_INTERRUPTED = 105
_TAKEN_OVER = "0x8e"
_NOT_AUTHORISED = 0x87
_UNSUPPORTED_VERSION = (0x84, 1)
"""Of CONNACK, in MQTT 5 and in 3.1.1."""

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A probe, from what was asked to its end."""

    host: str
    port: int
    """The endpoint's; what is dialled is in :attr:`asked`."""
    roots: str
    """What is trusted, in words: ``Amazon Root CA 1 to 4``."""
    asked: Probe
    now: datetime
    """When it began."""
    told: Sequence[Told]
    failure: Failure | None
    interrupted: bool = False

    def step(self, kind: type[Kind]) -> Kind | None:
        """The last step of this kind, if there was one."""
        return next((each.step for each in reversed(self.told) if isinstance(each.step, kind)), None)


def exit_code(story: Story) -> int:
    """0 CONNACK 0 (and held as long as asked), 3 not reached, as ``DeviceOutcome.UNREACHABLE`` has it, 99 refused or
    failed otherwise, 105 interrupted."""
    if story.interrupted:
        return EXIT_INTERRUPTED
    if story.failure is None:
        return EXIT_ACCEPTED
    return EXIT_UNREACHABLE if outcome_of(story.failure) is DeviceOutcome.UNREACHABLE else EXIT_REFUSED


def headline(story: Story) -> str:
    """The failure's kind in the vocabulary of records, ``accepted``, or ``interrupted``."""
    if story.interrupted:
        return "interrupted"
    return "accepted" if story.failure is None else str(story.failure.kind)


def meaning(story: Story) -> str:
    """One or a few sentences; the first goes on after :func:`headline` and a colon."""
    if story.interrupted:
        return "before CONNACK." if story.step(ConnackReceived) is None else "after CONNACK."
    if story.failure is None:
        held = story.step(Held)
        return "CONNACK 0." if held is None else f"CONNACK 0, and the connection held for {held.seconds:g} s."
    return " ".join(f"{each}." for each in _sentences(story, story.failure))


def validity(certificate: CertificateFacts, now: datetime) -> str:
    """What is wrong with a certificate by the clock; empty when nothing is."""
    if now < certificate.not_before:
        return f"not valid before {_day(certificate.not_before)}"
    if now > certificate.not_after:
        return f"expired since {_day(certificate.not_after)}"
    return ""


def _day(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"


def _sentences(story: Story, failure: Failure) -> Iterator[str]:
    kind, stage = failure.kind, failure.stage
    match kind:
        case FailureKind.TIMEOUT:
            yield _timeout(failure)
        case FailureKind.CONNECTION_RESET if stage in (Stage.CONNECT, Stage.CONNACK):
            yield "the server reset the connection after a good handshake, which is a refusal as much as a close"
            yield from _refused(story)
        case FailureKind.CONNECTION_RESET:
            yield "cut off: commonly by a firewall or a proxy on the way, or by a server that is not the one meant"
        case FailureKind.CLOSED_BEFORE_CONNACK:
            yield "so AWS IoT refuses, after a good handshake and without a word; the wire does not say why"
            yield from _refused(story)
        case FailureKind.CONNACK_REFUSED:
            yield _connack(story)
        case FailureKind.TLS_ALERT:
            yield from _alert(story, failure)
        case FailureKind.SERVER_NAME_MISMATCH:
            yield from _name_mismatch(story)
        case FailureKind.SERVER_CERTIFICATE_UNTRUSTED:
            yield from _untrusted(story)
        case FailureKind.SERVER_CERTIFICATE_EXPIRED:
            yield f"by this machine's clock, which says {_day(story.now)}: look at that first"
        case FailureKind.MQTT_PROTOCOL_ERROR if "HTTP/" in failure.detail:
            yield f"the server answered in HTTP: {_speaks_mqtt_only_by_alpn()}"
        case FailureKind.DISCONNECTED_BY_SERVER if _TAKEN_OVER in failure.detail:
            yield f"another client connected with the same client id, {story.asked.client_id!r}"
        case FailureKind.CLOSED_AFTER_CONNACK:
            yield "accepted, and closed later; the wire does not say why"
            if story.asked.mqtt.version != "5":
                yield "Commonly another client connected with the same client id; with -V 5 the server says so"
        case _:
            yield _PLAIN[kind]
            if kind in _NOT_REACHED and story.host.endswith(".localhost") and story.asked.address[0] == story.host:
                yield "The emulator's endpoints are dialled with --connect-to: mqtt of its ready line"


_NOT_REACHED = (FailureKind.NAME_NOT_RESOLVED, FailureKind.TCP_REFUSED, FailureKind.TCP_UNREACHABLE)
_PLAIN = {
    FailureKind.NAME_NOT_RESOLVED: "no address is known here: a mistyped endpoint, or a network without DNS",
    FailureKind.TCP_REFUSED: "nothing listens there, or a firewall answers in its place",
    FailureKind.TCP_UNREACHABLE: "there is no way to it from here: this machine's network, or a firewall's rule",
    FailureKind.LOCAL_RESOURCES: "this machine ran short, not the target",
    FailureKind.TLS_PROTOCOL_ERROR: "what answers there does not speak TLS, or something on the way meddles with it",
    FailureKind.CLOSED_IN_HANDSHAKE: (
        "closed without an alert: commonly a proxy or a load balancer, or a port that does not speak TLS; "
        "AWS IoT completes the handshake with any certificate, and refuses later"
    ),
    FailureKind.MQTT_PROTOCOL_ERROR: "what answers there is no MQTT server, or none of this version",
    FailureKind.DISCONNECTED_BY_SERVER: "accepted, and ended by the server for the reason that it gave",
    FailureKind.REQUEST_REFUSED: "the server refused a request on an accepted connection",
}


def _timeout(failure: Failure) -> str:
    match failure.stage:
        case Stage.TCP:
            return (
                "nothing answered: commonly a firewall that drops what it does not like. AWS IoT takes MQTT on port "
                f"8883, and on {ALPN_PORT} with --alpn {MQTT_ALPN}"
            )
        case Stage.TLS:
            return "TCP is there, but no handshake: a port that does not speak TLS, or something on the way"
        case Stage.SESSION:
            return "accepted, and then silent: the way to the server is gone, or the server"
        case _:
            return "neither CONNACK nor a close: not how AWS IoT refuses. A slow target, or something on the way"


def _refused(story: Story) -> Iterator[str]:
    """What this connection showed that AWS IoT refuses without a word, the surest first."""
    certificate, hello, done = story.step(ClientCertificate), story.step(ClientHelloSent), story.step(TLSDone)
    sent = None if certificate is None else certificate.sent
    on_443 = ALPN_PORT in (story.port, story.asked.address[1]) and (done is None or done.alpn is None)
    if on_443:
        yield _speaks_mqtt_only_by_alpn().capitalize()
    if certificate is not None and not certificate.requested:
        yield "The server did not ask for a client certificate, as AWS IoT's doors for MQTT do"
    elif certificate is not None and not certificate.given:
        yield "No client certificate was sent (--cert): on this port AWS IoT knows a device by nothing else"
    elif certificate is not None and sent is None:
        yield "No client certificate was sent: the server takes none with such a key"
    if isinstance(sent, CertificateFacts) and (wrong := validity(sent, story.now)):
        yield f"The client certificate is {wrong}"
    name = None if hello is None else hello.hello.server_name
    if name is None:
        yield "No server name (SNI) was sent: then only certificates of DEFAULT mode are found"
    elif name.lower() != story.host.lower():
        yield f"The server name (SNI) sent is not the endpoint's, {story.host}"
    if sent is not None and not on_443:
        yield (
            "A first connection with a certificate that is registered just in time (JITR, JITP) always ends so: "
            "connect again after 1 to 3 s. If it goes on: devicesim diagnose says why"
        )


def _speaks_mqtt_only_by_alpn() -> str:
    return f"on port {ALPN_PORT} AWS IoT speaks MQTT only with --alpn {MQTT_ALPN}"


def _connack(story: Story) -> str:
    received = story.step(ConnackReceived)
    assert received is not None, "a refusal by CONNACK has one"
    connack = received.connack
    if connack.code == _NOT_AUTHORISED and story.asked.mqtt.version == "5":
        return (
            "AWS IoT answers so in MQTT 5 when no policy of the certificate allows iot:Connect with client id "
            f"{story.asked.client_id!r}; in 3.1.1 it closes without a word"
        )
    if connack.code in _UNSUPPORTED_VERSION:
        return f"the server does not speak MQTT {story.asked.mqtt.version}: try the other -V"
    if connack.server_reference is not None:
        return f"the server names another one to use: {connack.server_reference}"
    if story.asked.mqtt.version == "3.1.1":
        return "the server's own word; AWS IoT gives none in MQTT 3.1.1, it closes"
    return "the server's own word"


_CERTIFICATE_ALERTS = frozenset(
    {
        "bad_certificate",
        "unsupported_certificate",
        "certificate_revoked",
        "certificate_expired",
        "certificate_unknown",
        "unknown_ca",
        "access_denied",
        "decrypt_error",
    }
)


def _alert(story: Story, failure: Failure) -> Iterator[str]:
    certificate, hello = story.step(ClientCertificate), story.step(ClientHelloSent)
    sent = None if certificate is None else certificate.sent
    name = None if hello is None else hello.hello.server_name
    match failure.detail:
        case "certificate_required":
            yield "the server wants a client certificate, and none was sent"
        case alert if alert in _CERTIFICATE_ALERTS and sent is not None:
            yield "the server refuses the client certificate inside TLS; AWS IoT mostly closes after CONNECT instead"
            if isinstance(sent, CertificateFacts) and (wrong := validity(sent, story.now)):
                yield f"It is {wrong}"
        case "unrecognized_name":
            yield f"the server knows no {name}" if name else "the server wants a server name (SNI), and none was sent"
        case "no_application_protocol":
            offered = () if hello is None else hello.hello.alpn
            yield f"the server speaks none of the protocols offered by ALPN: {', '.join(offered)}"
        case "protocol_version":
            offered = () if hello is None else hello.hello.versions
            yield f"the server speaks none of the versions offered: {', '.join(offered)}"
        case "handshake_failure" | "insufficient_security" | "illegal_parameter" | "missing_extension":
            groups = () if hello is None else hello.hello.groups
            yield (
                "nothing in common: ciphers, signature algorithms, or key-exchange groups, of which "
                f"{', '.join(groups) or 'none'} was offered (--group any offers all). In TLS 1.2 the key of a client "
                "certificate must be on one of them too"
            )
        case _:
            yield "the server's own word for it"


def _name_mismatch(story: Story) -> Iterator[str]:
    server, hello = story.step(ServerCertificates), story.step(ClientHelloSent)
    leaf = server.presented[0] if server is not None and server.presented else None
    name = None if hello is None else hello.hello.server_name
    names = ", ".join(leaf.names[:3]) if isinstance(leaf, CertificateFacts) and leaf.names else "nothing that it names"
    yield f"the server's certificate is for {names}, not for {story.asked.verify_name}; nothing of the device was sent"
    if name is None:
        yield "It was picked without a server name (SNI)"
    elif name.lower() != story.asked.verify_name.lower():
        yield f"It was picked by the server name (SNI) sent, {name}"
    else:
        yield "Commonly another server than the one meant answers at this address"


def _untrusted(story: Story) -> Iterator[str]:
    server = story.step(ServerCertificates)
    last = server.presented[-1] if server is not None and server.presented else None
    issuer = f" by {last.issuer}" if isinstance(last, CertificateFacts) else ""
    yield f"its chain, issued{issuer}, ends at none of the roots trusted, {story.roots}; nothing of the device was sent"
    yield "Commonly another server or an intercepting proxy, or the wrong --cacert"
