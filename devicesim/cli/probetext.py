"""A probe's steps as a person reads them, and as one JSON document. Pure.

A step is a paragraph behind its time, wrapped to the terminal's width with a hanging indent, so that it reads the same
at any width and leaves no blanks at the ends of lines. Colour repeats what the words say.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from devicesim import __version__
from devicesim.cli.probemeaning import Story, exit_code, headline, meaning, validity
from devicesim.net.engine import Connack
from devicesim.net.steps import (
    AddressFailed,
    AlertSeen,
    CertificateFacts,
    ClientCertificate,
    ClientHelloSent,
    ConnackReceived,
    ConnectSent,
    DisconnectReceived,
    DisconnectSent,
    Failed,
    Held,
    MessageReceived,
    NameResolved,
    PingSent,
    PongReceived,
    ServerCertificates,
    Step,
    TCPConnected,
    TLSDone,
    Told,
    Unreadable,
)
from devicesim.outcome import FailureKind
from devicesim.record.verdict import describe_failure
from devicesim.report.layout import BAD, DIM, GOOD, HEAD, clean, seconds

TIME_COLUMNS = 8
"""``12.3 ms``, and ``0.41 ms``; longer ones push their line to the right."""
MOST_NAMES = 6
"""Names of a server's certificate that are shown; the JSON document has all."""
PAYLOAD_SHOWN = 100
"""Bytes of a message."""
MOST_CHARACTERS = 500
"""Of one item: a peer's reason may be of 64 KiB."""
_NARROWEST = 20
"""Columns of text, however narrow the terminal."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph of a step: items, between which lines are broken before they are broken within one."""

    items: tuple[Text, ...]
    indent: int = 0

    def lines(self, console: Console, width: int) -> Iterator[Text]:
        line = Text()
        for item in self.items:
            if line and line.cell_len + 2 + item.cell_len > width:
                yield from _wrapped(line, console, width)
                line = Text()
            line = Text.assemble(line, "; " if line else "", item)
        yield from _wrapped(line, console, width)


class Block:
    """Paragraphs behind a time."""

    def __init__(self, time: str, paragraphs: Sequence[Paragraph]) -> None:
        self.time = time
        self.paragraphs = paragraphs

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        time = self.time.rjust(TIME_COLUMNS)
        for paragraph in self.paragraphs:
            margin = TIME_COLUMNS + 2 + paragraph.indent
            for line in paragraph.lines(console, max(_NARROWEST, options.max_width - margin)):
                yield Text.assemble((time.ljust(margin), DIM), line)
                time = ""


class Wrapped:
    """A paragraph over the whole width, without blanks at the ends of its lines."""

    def __init__(self, text: Text) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _wrapped(self.text, console, options.max_width)


def title(story: Story) -> Wrapped:
    """What is about to be done."""
    host, port = story.asked.address
    dialled = "" if (host, port) == (story.host, story.port) else f", dialled at {_place(host, port)}"
    return Wrapped(Text.assemble((clean(_place(story.host, story.port)), HEAD), clean(dialled)))


def told(each: Told, now: datetime) -> Block:
    """One step; ``now`` is what certificates' validity is held against."""
    return Block(seconds(each.at), list(_paragraphs(each.step, now)))


def ending(story: Story) -> Wrapped:
    """What it comes to, and what that means."""
    style = GOOD if exit_code(story) == 0 else BAD
    return Wrapped(Text.assemble((headline(story), style), f": {clean(meaning(story))}"))


def document(story: Story) -> Mapping[str, object]:
    """All of it, for machines. Times are seconds since ``started_at``; what was not seen is null or absent."""
    asked = story.asked
    return {
        "devicesim": __version__,
        "endpoint": {"host": story.host, "port": story.port},
        "address": {"host": asked.address[0], "port": asked.address[1]},
        "server_name": asked.server_name,
        "verify_name": asked.verify_name,
        "client_id": asked.client_id,
        "mqtt_version": asked.mqtt.version,
        "started_at": story.now.isoformat(),
        "steps": [{"at": round(each.at, 6), "step": step_name(each.step), **_plain(each.step)} for each in story.told],
        "accepted": any(isinstance(e.step, ConnackReceived) and e.step.connack.code == 0 for e in story.told),
        "interrupted": story.interrupted,
        "failure": None if story.failure is None else _plain(story.failure),
        "result": headline(story),
        "meaning": meaning(story),
        "exit_code": exit_code(story),
    }


def step_name(step: Step) -> str:
    """``TCPConnected`` as ``tcp_connected``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(step).__name__).lower()


def _plain(value: Any) -> Any:
    """A record as JSON takes it."""
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value


# --- a step in words

_TOLD_BEFORE = frozenset(
    {
        FailureKind.SERVER_CERTIFICATE_UNTRUSTED,
        FailureKind.SERVER_CERTIFICATE_EXPIRED,
        FailureKind.SERVER_NAME_MISMATCH,
        FailureKind.TLS_ALERT,
        FailureKind.CONNACK_REFUSED,
        FailureKind.DISCONNECTED_BY_SERVER,
    }
)
"""Failures that a step of their own has told."""


def _paragraphs(step: Step, now: datetime) -> Iterator[Paragraph]:
    match step:
        case NameResolved():
            yield _line("name resolved", f": {step.host} is {', '.join(step.addresses)}")
        case AddressFailed():
            yield _line("no TCP connection", f" to {step.address}: {step.why}", style=BAD)
        case TCPConnected():
            local = f" from {step.local_address}" if step.local_address else ""
            yield _line("TCP connected", f" to {step.address}{local}")
        case ClientHelloSent(hello=hello):
            name = ": no SNI" if hello.server_name is None else f": SNI {hello.server_name}"
            alpn = f"ALPN {', '.join(hello.alpn)}" if hello.alpn else "no ALPN"
            groups = f"groups {', '.join(hello.groups)}" if hello.groups else "no groups"
            suites = f"{hello.cipher_suites} cipher suites"
            yield _line("> ClientHello", name, alpn, ", ".join(hello.versions), groups, suites)
        case ServerCertificates():
            yield from _server(step, now)
        case ClientCertificate():
            yield from _client(step, now)
        case TLSDone():
            alpn = f"ALPN {step.alpn}" if step.alpn else "no ALPN"
            yield _line("TLS done", f": {step.version}", step.cipher or "no cipher", f"group {step.group}", alpn)
        case AlertSeen(alert=alert):
            arrow = "<" if alert.direction == "received" else ">"
            yield _line(f"{arrow} alert {alert.direction}", f": {alert.level} {alert.name} ({alert.code})", style=BAD)
        case ConnectSent():
            clean_start = "clean start" if step.clean_start else "no clean start"
            alive = f"keep alive {step.keep_alive} s" if step.keep_alive else "no keep alive"
            yield _line("> CONNECT", f": MQTT {step.version}", f"client id {step.client_id!r}", alive, clean_start)
        case ConnackReceived(connack=connack):
            first, *others = _connack(connack)
            yield _line("< CONNACK", f": {first}", *others, style=GOOD if connack.code == 0 else BAD)
        case MessageReceived(message=message):
            shown = message.payload[:PAYLOAD_SHOWN].decode("utf-8", "backslashreplace")
            more = " ..." if len(message.payload) > PAYLOAD_SHOWN else ""
            retained = ("retained",) if message.retain else ()
            size = f"{len(message.payload)} bytes: {shown}{more}"
            yield _line("< PUBLISH", f": {message.topic}", f"QoS {message.qos}", *retained, size)
        case PingSent():
            yield _line("> PINGREQ")
        case PongReceived():
            yield _line("< PINGRESP")
        case DisconnectReceived():
            yield _line("< DISCONNECT", f": {step.words}", style=BAD)
        case Held():
            yield _line("held", f" for {step.seconds:g} s")
        case DisconnectSent():
            yield _line("> DISCONNECT")
        case Failed(failure=failure):
            if failure.kind not in _TOLD_BEFORE:
                detail = f": {failure.detail}" if failure.detail else ""
                yield _line(describe_failure(failure.kind, failure.stage), detail, style=BAD)


def _server(step: ServerCertificates, now: datetime) -> Iterator[Paragraph]:
    yield _line("< server's certificates", f": {len(step.presented)} presented")
    for depth, each in enumerate(step.presented):
        subject, *others = _certificate(each, now, names=depth == 0)
        yield _line(f"{depth}", f" {subject}", *others, indent=2)
    if not step.chain_refused and not step.name_refused:
        yield _line(f"trusted, and for {step.verify_name}", style=GOOD)
        return
    if step.chain_refused:
        yield _line("not trusted", f": {step.chain_refused}", style=BAD)
    else:
        yield _line("trusted")
    if step.name_refused:
        why = "" if step.verify_name in step.name_refused else f": {step.name_refused}"
        yield _line(f"not for {step.verify_name}", why, style=BAD)
    else:
        yield _line(f"for {step.verify_name}")


def _client(step: ClientCertificate, now: datetime) -> Iterator[Paragraph]:
    if step.sent is None:
        asked = "asked for one" if step.requested else "did not ask for one"
        unfit = ", but takes none with such a key or signature" if step.given and step.requested else ""
        style = BAD if step.given else HEAD
        yield _line("no client certificate sent", f": the server {asked}{unfit}", style=style)
        return
    follow = {0: "alone", 1: "with its issuer"}.get(step.issuers, f"with {step.issuers} issuers")
    yield _line("> client certificate", f": sent {follow}")
    if isinstance(step.sent, CertificateFacts):
        yield _line("", step.sent.certificate_id, indent=2)
    yield _line("", *_certificate(step.sent, now, names=False), indent=2)


def _certificate(certificate: CertificateFacts | Unreadable, now: datetime, *, names: bool) -> Iterator[str]:
    if isinstance(certificate, Unreadable):
        yield f"unreadable: {certificate.why}"
        return
    yield certificate.subject or "no subject"
    yield f"issued by {certificate.issuer or 'nobody named'}"
    yield f"valid {certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d} ({_left(certificate, now)})"
    if names:
        more = len(certificate.names) - MOST_NAMES
        shown = ", ".join(certificate.names[:MOST_NAMES]) or "no name"
        yield f"names {shown}{f' and {more} more' if more > 0 else ''}"


def _left(certificate: CertificateFacts, now: datetime) -> str:
    if wrong := validity(certificate, now):
        return wrong
    days = (certificate.not_after - now).days
    return f"{days} day{'s' if days != 1 else ''} left"


def _connack(connack: Connack) -> Iterator[str]:
    yield connack.words.rstrip(".")
    if connack.session_present:
        yield "session present"
    for words, value in (
        ("client id assigned", connack.assigned_client_id),
        ("server keep alive", None if connack.keep_alive is None else f"{connack.keep_alive} s"),
        ("session expiry", None if connack.session_expiry is None else f"{connack.session_expiry} s"),
        ("maximum QoS", connack.maximum_qos),
        ("receive maximum", connack.receive_maximum),
        ("maximum packet size", connack.maximum_packet_size),
        ("topic alias maximum", connack.topic_alias_maximum),
        ("server reference", connack.server_reference),
    ):
        if value is not None:
            yield f"{words} {value}"
    if connack.retain_available == 0:
        yield "no retained messages"


def _line(head: str, *items: str, style: str = HEAD, indent: int = 0) -> Paragraph:
    """A paragraph whose first item goes on after its head."""
    first, *others = items or ("",)
    return Paragraph((Text.assemble((_short(head), style), _short(first)), *(Text(_short(e)) for e in others)), indent)


def _short(text: str) -> str:
    shown = clean(text[:MOST_CHARACTERS])
    return shown if len(text) <= MOST_CHARACTERS else f"{shown} ..."


def _wrapped(text: Text, console: Console, width: int) -> Iterator[Text]:
    for line in text.wrap(console, width, overflow="fold"):
        line.rstrip()
        yield line


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
