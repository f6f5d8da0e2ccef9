"""``devicesim probe``: what its options say, how its steps read, and what it comes to. No connection is made."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from cryptography.hazmat.primitives import serialization
from rich.console import Console

from devicesim.cli.options import host_and_port
from devicesim.cli.probemeaning import Story, exit_code, headline, meaning
from devicesim.cli.probetext import document, ending, step_name, title, told
from devicesim.net.clienthello import ClientHello
from devicesim.net.engine import Connack, Message
from devicesim.net.mqtt import MQTTSettings
from devicesim.net.probe import Probe
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
from devicesim.net.tls import Deadlines, TLSSettings
from devicesim.outcome import Alert, DeviceOutcome, Failure, FailureKind, Stage
from devicesim.pki.identity import certificate_pem, private_key_pem
from devicesim.record.verdict import outcome_of
from tests.net_support import device, device_ca
from tests.support import Devicesim

HOST = "a1b2c3d4e5f6g7-ats.iot.eu-central-1.amazonaws.com"
NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)

LEAF = CertificateFacts(
    certificate_id="ab" * 32,
    subject="CN=*.iot.eu-central-1.amazonaws.com",
    issuer="CN=Amazon RSA 2048 M01,O=Amazon,C=US",
    not_before=NOW - timedelta(days=100),
    not_after=NOW + timedelta(days=64, hours=1),
    names=("*.iot.eu-central-1.amazonaws.com", "iot.eu-central-1.amazonaws.com"),
)
ROBOT = replace(LEAF, certificate_id="cd" * 32, subject="CN=robot-000001", issuer="CN=Shared CA", names=())
HELLO = ClientHello(server_name=HOST, alpn=(), versions=("TLSv1.3", "TLSv1.2"), groups=("secp256r1",), cipher_suites=30)
SERVER = ServerCertificates(presented=(LEAF,), verify_name=HOST, chain_refused="", name_refused="")
SENT = ClientCertificate(requested=True, given=True, sent=ROBOT, issuers=1)
DONE = TLSDone(version="TLSv1.3", cipher="TLS_AES_128_GCM_SHA256", group="secp256r1", alpn=None)
ACCEPTED = ConnackReceived(connack=Connack(code=0, words="0 Connection Accepted."))

EVERY_STEP: tuple[Step, ...] = (
    NameResolved(host=HOST, addresses=("192.0.2.1", "192.0.2.2", "2001:db8::1")),
    AddressFailed(address="192.0.2.1:8883", why="Connection refused (ECONNREFUSED)"),
    TCPConnected(address="192.0.2.2:8883", local_address="10.0.0.1:50000"),
    ClientHelloSent(hello=HELLO),
    SERVER,
    ServerCertificates(
        presented=(Unreadable(why="asn1"), LEAF), verify_name=HOST, chain_refused="expired", name_refused="not for"
    ),
    SENT,
    ClientCertificate(requested=True, given=False, sent=None, issuers=0),
    DONE,
    AlertSeen(alert=Alert(name="unknown_ca", code=48, level="fatal", direction="received")),
    ConnectSent(client_id="robot-000001", version="3.1.1", keep_alive=60, clean_start=True),
    ACCEPTED,
    MessageReceived(message=Message(topic="robots/1", payload=b"x" * 300, qos=1, retain=True)),
    PingSent(),
    PongReceived(),
    DisconnectReceived(words="0x8e Session taken over"),
    Held(seconds=5.0),
    DisconnectSent(),
    Failed(failure=Failure(kind=FailureKind.CLOSED_AFTER_CONNACK, stage=Stage.SESSION, detail="close_notify")),
)


def probe(**changes: Any) -> Probe:
    values: dict[str, Any] = {
        "address": (HOST, 8883),
        "server_name": HOST,
        "verify_name": HOST,
        "client_id": "robot-000001",
        "identity": device(),
        "tls": TLSSettings(roots=()),
        "mqtt": MQTTSettings(),
        "deadlines": Deadlines(),
    }
    return Probe(**{**values, **changes})


def story(failure: Failure | None = None, *steps: Step, **changes: Any) -> Story:
    values: dict[str, Any] = {
        "host": HOST,
        "port": 8883,
        "roots": "Amazon Root CA 1 to 4",
        "asked": probe(),
        "now": NOW,
        "told": tuple(Told(at=number / 8, step=step) for number, step in enumerate(steps)),
        "failure": failure,
    }
    return Story(**{**values, **changes})


def failed(kind: FailureKind, stage: Stage = Stage.CONNACK, detail: str = "") -> Failure:
    return Failure(kind=kind, stage=stage, detail=detail)


def text(renderable: Any, width: int = 80, *, colours: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=colours, highlight=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def step_text(step: Step, width: int = 80) -> str:
    return text(told(Told(at=0.0123, step=step), NOW), width)


# --- how steps read


def test_a_server_reads_as_its_chain_and_the_verdict_on_it() -> None:
    assert step_text(SERVER).splitlines() == [
        " 12.3 ms  < server's certificates: 1 presented",
        "            0 CN=*.iot.eu-central-1.amazonaws.com",
        "            issued by CN=Amazon RSA 2048 M01,O=Amazon,C=US",
        "            valid 2026-08-19 to 2027-01-30 (64 days left)",
        "            names *.iot.eu-central-1.amazonaws.com,",
        "            iot.eu-central-1.amazonaws.com",
        f"          trusted, and for {HOST}",
    ]


def test_a_server_that_is_refused_reads_as_all_of_that_and_why() -> None:
    expired = replace(LEAF, not_after=NOW - timedelta(minutes=1))
    step = replace(
        SERVER,
        presented=(expired, replace(LEAF, not_before=NOW + timedelta(days=1))),
        chain_refused="cert has expired (OpenSSL code 10, depth 0, subject 'CN=x')",
        name_refused=f"the server's certificate is not for {HOST!r}",
    )

    said = step_text(step, 140)

    assert "(expired since 2026-11-27 11:59 UTC)" in said
    assert "(not valid before 2026-11-28 12:00 UTC)" in said
    assert "not trusted: cert has expired (OpenSSL code 10" in said
    assert said.splitlines()[-1] == f"          not for {HOST}"


def test_a_client_certificate_reads_with_its_id_in_one_piece_at_80_columns() -> None:
    said = step_text(SENT).splitlines()

    assert said[0] == " 12.3 ms  > client certificate: sent with its issuer"
    assert said[1].strip() == "cd" * 32


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (ClientCertificate(requested=True, given=False, sent=None, issuers=0), "the server asked for one"),
        (ClientCertificate(requested=False, given=True, sent=None, issuers=0), "the server did not ask for one"),
        (ClientCertificate(requested=True, given=True, sent=None, issuers=0), "but takes none with such a key"),
    ],
)
def test_a_client_certificate_that_was_not_sent_reads_with_the_reason(step: Step, words: str) -> None:
    assert "no client certificate sent: " in step_text(step)
    assert words in step_text(step, 140)


def test_a_client_hello_reads_with_what_was_left_out() -> None:
    without = step_text(ClientHelloSent(hello=replace(HELLO, server_name=None)), 140)
    with_both = step_text(ClientHelloSent(hello=replace(HELLO, alpn=("mqtt", "http/1.1"))), 140)

    assert "> ClientHello: no SNI; no ALPN; TLSv1.3, TLSv1.2; groups secp256r1; 30 cipher suites" in without
    assert f"SNI {HOST}; ALPN mqtt, http/1.1" in with_both


def test_a_connack_reads_with_the_properties_that_it_has() -> None:
    connack = Connack(
        code=0,
        words="0x00 Success",
        keep_alive=30,
        receive_maximum=100,
        assigned_client_id="$GEN/1",
        maximum_qos=1,
        retain_available=0,
    )

    said = " ".join(step_text(ConnackReceived(connack=connack), 200).split())

    assert said == (
        "12.3 ms < CONNACK: 0x00 Success; client id assigned $GEN/1; server keep alive 30 s; maximum QoS 1; "
        "receive maximum 100; no retained messages"
    )


@pytest.mark.parametrize("width", [40, 80, 140])
@pytest.mark.parametrize("step", EVERY_STEP, ids=step_name)
def test_no_line_is_wider_than_the_terminal_or_ends_in_blanks(step: Step, width: int) -> None:
    lines = step_text(step, width).splitlines()

    assert lines
    assert [line for line in lines if len(line) > width or line != line.rstrip()] == []
    assert all(line.startswith(" " * 10) for line in lines[1:])


@pytest.mark.parametrize("kind", [FailureKind.TLS_ALERT, FailureKind.CONNACK_REFUSED, FailureKind.SERVER_NAME_MISMATCH])
def test_a_failure_that_a_step_has_told_is_not_told_twice(kind: FailureKind) -> None:
    assert step_text(Failed(failure=failed(kind, detail="x"))) == ""


def test_other_peoples_words_cannot_drive_the_terminal() -> None:
    evil = "\x1b[31mred\r\n\x07"
    steps: tuple[Step, ...] = (
        DisconnectReceived(words=evil),
        ConnackReceived(connack=Connack(code=0x87, words=evil, assigned_client_id=evil)),
        MessageReceived(message=Message(topic=evil, payload=evil.encode(), qos=0, retain=False)),
        replace(SERVER, presented=(replace(LEAF, subject=evil, names=(evil,)),), name_refused=evil),
        TLSDone(version="TLSv1.3", cipher="x", group=None, alpn=evil),
        NameResolved(host=evil, addresses=("192.0.2.1",)),
    )

    said = "".join(step_text(step) for step in steps)
    said += text(ending(story(failed(FailureKind.DISCONNECTED_BY_SERVER), asked=probe(client_id=evil))))
    said += text(title(story(host=evil)))

    assert "\x1b" not in said
    assert "\x07" not in said
    assert "\r" not in said
    assert "\\x1b[31mred\\r\\n\\x07" in said.replace("\n", "")


def test_a_peers_novel_is_cut_short_for_people_and_whole_for_machines() -> None:
    step = DisconnectReceived(words="x" * 5000)

    assert len(step_text(step)) < 1000
    assert "..." in step_text(step)
    assert len(json.dumps(document(story(None, step)))) > 5000


def test_colour_only_repeats_what_the_words_say() -> None:
    plain, coloured = (
        text(told(Told(at=0.0, step=ACCEPTED), NOW)),
        text(told(Told(at=0.0, step=ACCEPTED), NOW), colours=True),
    )

    assert "\x1b" not in plain
    assert "\x1b" in coloured


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, f"{HOST}:8883\n"),
        ({"asked": probe(address=("127.0.0.1", 41883))}, f"{HOST}:8883, dialled at 127.0.0.1:41883\n"),
        ({"host": "::1", "asked": probe(address=("::1", 8883))}, "[::1]:8883\n"),
    ],
)
def test_the_title_says_what_is_dialled_where_it_is_not_the_endpoint(changes: dict[str, Any], line: str) -> None:
    assert text(title(story(**changes)), 140) == line


# --- for machines


def test_the_document_has_every_step_with_its_values() -> None:
    whole = story(failed(FailureKind.CLOSED_AFTER_CONNACK, Stage.SESSION, "close_notify"), *EVERY_STEP)

    read = json.loads(json.dumps(document(whole)))

    assert [each["step"] for each in read["steps"]] == [step_name(step) for step in EVERY_STEP]
    assert read["steps"][2] == {
        "at": 0.25,
        "step": "tcp_connected",
        "address": "192.0.2.2:8883",
        "local_address": "10.0.0.1:50000",
    }
    assert read["steps"][4]["presented"][0]["not_after"] == "2027-01-30T13:00:00+00:00"
    assert read["failure"] == {"kind": "closed_after_connack", "stage": "session", "detail": "close_notify"}
    assert (read["accepted"], read["result"], read["exit_code"]) == (True, "closed_after_connack", 99)


def test_steps_are_named_as_people_would_spell_them() -> None:
    assert [step_name(each) for each in (EVERY_STEP[2], DONE, EVERY_STEP[3], PingSent())] == [
        "tcp_connected",
        "tls_done",
        "client_hello_sent",
        "ping_sent",
    ]


# --- what it comes to


@pytest.mark.parametrize("kind", FailureKind)
@pytest.mark.parametrize("stage", Stage)
def test_every_failure_has_a_meaning_and_an_exit_code(kind: FailureKind, stage: Stage) -> None:
    connack = ConnackReceived(connack=Connack(code=5, words="5 Not authorised"))
    seen = story(failed(kind, stage, "detail"), ClientHelloSent(hello=HELLO), SERVER, SENT, DONE, connack)

    assert headline(seen) == kind
    assert meaning(seen)
    assert meaning(seen).endswith(".")
    reached = outcome_of(seen.failure) is not DeviceOutcome.UNREACHABLE
    assert exit_code(seen) == (99 if reached else 3)


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind is not FailureKind.CONNACK_REFUSED])
@pytest.mark.parametrize("stage", Stage)
def test_a_failure_before_any_step_has_a_meaning_too(kind: FailureKind, stage: Stage) -> None:
    assert meaning(story(failed(kind, stage)))


@pytest.mark.parametrize(
    ("kind", "stage"),
    [
        (FailureKind.NAME_NOT_RESOLVED, Stage.TCP),
        (FailureKind.TCP_REFUSED, Stage.TCP),
        (FailureKind.TCP_UNREACHABLE, Stage.TCP),
        (FailureKind.TIMEOUT, Stage.TCP),
        (FailureKind.CONNECTION_RESET, Stage.TCP),
        (FailureKind.SERVER_CERTIFICATE_UNTRUSTED, Stage.TLS),
        (FailureKind.SERVER_CERTIFICATE_EXPIRED, Stage.TLS),
        (FailureKind.SERVER_NAME_MISMATCH, Stage.TLS),
    ],
)
def test_a_target_that_is_not_reached_exits_3(kind: FailureKind, stage: Stage) -> None:
    assert exit_code(story(failed(kind, stage))) == 3


def test_an_accepted_connection_exits_0_and_an_interrupted_one_105() -> None:
    accepted = story(None, ACCEPTED)

    assert (headline(accepted), meaning(accepted), exit_code(accepted)) == ("accepted", "CONNACK 0.", 0)
    held = story(None, ACCEPTED, Held(seconds=2.5))
    assert meaning(held) == "CONNACK 0, and the connection held for 2.5 s."
    interrupted = replace(accepted, interrupted=True)
    assert (headline(interrupted), meaning(interrupted), exit_code(interrupted)) == (
        "interrupted",
        "after CONNACK.",
        105,
    )
    assert meaning(story(None, interrupted=True)) == "before CONNACK."


CLOSED = failed(FailureKind.CLOSED_BEFORE_CONNACK)
FIRST_CONNECTION = "connect again after 1 to 3 s"


def refused(*steps: Step, **changes: Any) -> str:
    return meaning(story(CLOSED, *steps, **changes))


def test_a_refusal_with_all_that_there_should_be_may_be_a_first_connection() -> None:
    said = refused(ClientHelloSent(hello=HELLO), SENT, DONE)

    assert said.startswith("so AWS IoT refuses")
    assert FIRST_CONNECTION in said
    assert "devicesim diagnose" in said
    assert "SNI" not in said


@pytest.mark.parametrize(
    ("steps", "changes", "words"),
    [
        ([ClientHelloSent(hello=replace(HELLO, server_name=None)), SENT], {}, "No server name (SNI) was sent"),
        (
            [ClientHelloSent(hello=replace(HELLO, server_name="other.example")), SENT],
            {},
            f"The server name (SNI) sent is not the endpoint's, {HOST}",
        ),
        (
            [ClientHelloSent(hello=HELLO), replace(SENT, sent=replace(ROBOT, not_after=NOW - timedelta(days=1)))],
            {},
            "The client certificate is expired since 2026-11-26 12:00 UTC",
        ),
        ([ClientHelloSent(hello=HELLO), SENT, DONE], {"port": 443}, "only with --alpn x-amzn-mqtt-ca"),
    ],
)
def test_a_refusal_names_what_the_connection_showed(steps: Sequence[Step], changes: dict[str, Any], words: str) -> None:
    assert words in refused(*steps, **changes)


def test_a_server_name_is_the_endpoints_in_any_case() -> None:
    assert "SNI" not in refused(ClientHelloSent(hello=replace(HELLO, server_name=HOST.upper())), SENT)


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        (
            ClientCertificate(requested=True, given=False, sent=None, issuers=0),
            "No client certificate was sent (--cert)",
        ),
        (ClientCertificate(requested=False, given=True, sent=None, issuers=0), "did not ask for a client certificate"),
        (ClientCertificate(requested=True, given=True, sent=None, issuers=0), "the server takes none with such a key"),
    ],
)
def test_who_sent_no_certificate_is_not_told_to_wait_for_a_registration(certificate: Step, words: str) -> None:
    said = refused(ClientHelloSent(hello=HELLO), certificate)

    assert words in said
    assert FIRST_CONNECTION not in said


def test_with_alpn_port_443_is_no_reason() -> None:
    said = refused(ClientHelloSent(hello=HELLO), SENT, replace(DONE, alpn="x-amzn-mqtt-ca"), port=443)

    assert "443" not in said
    assert FIRST_CONNECTION in said


@pytest.mark.parametrize(
    ("code", "version", "words"),
    [
        (0x87, "5", "no policy of the certificate allows iot:Connect with client id 'robot-000001'"),
        (0x84, "5", "does not speak MQTT 5: try the other -V"),
        (1, "3.1.1", "does not speak MQTT 3.1.1: try the other -V"),
        (5, "3.1.1", "AWS IoT gives none in MQTT 3.1.1, it closes"),
        (0x97, "5", "the server's own word"),
    ],
)
def test_a_connack_that_says_no_is_explained(code: int, version: Any, words: str) -> None:
    step = ConnackReceived(connack=Connack(code=code, words="no"))

    assert words in meaning(
        story(failed(FailureKind.CONNACK_REFUSED), step, asked=probe(mqtt=MQTTSettings(version=version)))
    )


@pytest.mark.parametrize(
    ("alert", "steps", "words"),
    [
        ("certificate_required", (), "wants a client certificate, and none was sent"),
        ("bad_certificate", (SENT,), "refuses the client certificate inside TLS"),
        (
            "certificate_expired",
            (replace(SENT, sent=replace(ROBOT, not_after=NOW - timedelta(days=1))),),
            "It is expired since 2026-11-26 12:00 UTC.",
        ),
        ("unrecognized_name", (ClientHelloSent(hello=HELLO),), f"knows no {HOST}"),
        ("unrecognized_name", (ClientHelloSent(hello=replace(HELLO, server_name=None)),), "wants a server name (SNI)"),
        ("no_application_protocol", (ClientHelloSent(hello=replace(HELLO, alpn=("h2",))),), "offered by ALPN: h2"),
        ("protocol_version", (ClientHelloSent(hello=HELLO),), "none of the versions offered: TLSv1.3, TLSv1.2"),
        ("handshake_failure", (ClientHelloSent(hello=HELLO),), "of which secp256r1 was offered"),
        ("internal_error", (), "the server's own word for it"),
    ],
)
def test_an_alert_is_explained(alert: str, steps: Sequence[Step], words: str) -> None:
    assert words in meaning(story(failed(FailureKind.TLS_ALERT, Stage.TLS, alert), *steps))


def test_an_answer_in_http_is_port_443_without_alpn() -> None:
    detail = "PUBACK packet b'HTTP/1.1 400 Bad Request' where CONNACK must stand"

    assert "--alpn x-amzn-mqtt-ca" in meaning(story(failed(FailureKind.MQTT_PROTOCOL_ERROR, detail=detail)))
    other = meaning(story(failed(FailureKind.MQTT_PROTOCOL_ERROR, detail="CONNACK packet b' ' is malformed")))
    assert "alpn" not in other


def test_the_emulators_endpoints_are_dialled_elsewhere() -> None:
    emulated = "abc-ats.iot.us-east-1.localhost"
    name_not_resolved = failed(FailureKind.NAME_NOT_RESOLVED, Stage.TCP)

    at_its_name = story(name_not_resolved, host=emulated, asked=probe(address=(emulated, 8883)))
    elsewhere = story(name_not_resolved, host=emulated, asked=probe(address=("proxy.localhost", 8883)))

    assert "--connect-to" in meaning(at_its_name)
    assert "--connect-to" not in meaning(elsewhere)


def test_a_takeover_is_named_where_the_server_names_it() -> None:
    named = story(failed(FailureKind.DISCONNECTED_BY_SERVER, Stage.SESSION, "0x8e Session taken over"))
    unnamed = story(failed(FailureKind.CLOSED_AFTER_CONNACK, Stage.SESSION, "close_notify"))

    assert meaning(named) == "another client connected with the same client id, 'robot-000001'."
    assert "with -V 5 the server says so" in meaning(unnamed)


# --- what the options say


@pytest.mark.parametrize(
    ("given", "default", "expected"),
    [
        ("host", 8883, ("host", 8883)),
        ("host:1", 8883, ("host", 1)),
        ("host:1", None, ("host", 1)),
        ("127.0.0.1", 8883, ("127.0.0.1", 8883)),
        ("::1", 8883, ("::1", 8883)),
        ("[::1]", 8883, ("::1", 8883)),
        ("[::1]:443", 8883, ("::1", 443)),
        ("[::1]:443", None, ("::1", 443)),
    ],
)
def test_a_place_is_a_host_and_a_port(given: str, default: int | None, expected: tuple[str, int]) -> None:
    assert host_and_port(given, "ENDPOINT", default) == expected


@pytest.mark.parametrize("given", ["", ":1", "host:", "host:0", "host:65536", "host:x", "host:-1"])
def test_what_is_no_place_is_refused(given: str) -> None:
    for default in (None, 8883):
        with pytest.raises(click.BadParameter, match=r"is not (HOST or )?HOST:PORT"):
            host_and_port(given, "ENDPOINT", default)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'ENDPOINT'"),
        (["https://host"], "'https://host' is not HOST or HOST:PORT"),
        (["a b"], "'a b' is not HOST or HOST:PORT"),
        (["host", "--servername", "x", "--noservername"], "exclude each other"),
        (["host", "--servername", ""], "server name '' has 0 characters"),
        (["host", "--verify-name", "a b"], "name to verify 'a b'"),
        (["host", "--key", "x.pem"], "--key goes with --cert"),
        (["host", "--alpn", "ü"], "ALPN protocol 'ü'"),
        (["host", "--connect-to", "host"], "'host' is not HOST:PORT"),
        (["host", "--tls-version", "1.1"], "--tls-version"),
        (["host", "--mqtt-version", "3"], "--mqtt-version"),
        (["host", "--hold", "nan"], "nan"),
        (["host", "--hold", "-1"], "--hold"),
        (["host", "--deadline", "0"], "--deadline"),
        (["host", "--deadline", "inf"], "inf"),
        (["host", "--keepalive", "65536"], "--keepalive"),
        (["host", "--client-id", "x" * 65_536], "65536 bytes; MQTT has room for 65535"),
    ],
)
def test_wrong_usage_exits_2_before_anything_is_sent(
    devicesim: Devicesim, arguments: Sequence[str], message: str
) -> None:
    refused = devicesim("probe", *arguments)

    assert refused.code == 2
    assert message in refused.err
    assert refused.out == ""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Key material, right and wrong."""
    robot, other = device(1), device(2)
    key = robot.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "leaf.pem").write_text(certificate_pem(robot.certificate))
    (tmp_path / "encrypted.key").write_bytes(key)
    (tmp_path / "encrypted.pem").write_bytes(certificate_pem(robot.certificate).encode() + key)
    (tmp_path / "other.key").write_text(private_key_pem(other.key))
    (tmp_path / "ca-first.pem").write_text(
        certificate_pem(device_ca().certificate) + certificate_pem(robot.certificate) + private_key_pem(robot.key)
    )
    (tmp_path / "text").write_text("no PEM")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cert", "leaf.pem"], "leaf.pem holds no private key\n  hint: name its file: --key FILE"),
        (["--cert", "encrypted.pem"], "encrypted.pem holds an encrypted private key\n  hint: decrypt it first"),
        (["--cert", "leaf.pem", "--key", "encrypted.key"], "encrypted.key holds an encrypted private key"),
        (["--cert", "leaf.pem", "--key", "other.key"], "other.key: the private key does not belong to"),
        (["--cert", "ca-first.pem"], "ca-first.pem: the private key does not belong to the certificate of 'CN=Test"),
        (["--cert", "missing.pem"], "missing.pem cannot be read: No such file"),
        (["--cert", "leaf.pem", "--key", "missing.key"], "missing.key cannot be read: No such file"),
        (["--cert", "leaf.pem", "--key", "text"], "text holds no private key"),
        (["--cacert", "text"], "text holds no readable certificate"),
        (["--cacert", "."], "cannot be read"),
    ],
)
def test_key_material_that_cannot_be_used_exits_2_before_anything_is_sent(
    devicesim: Devicesim, files: Path, arguments: Sequence[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)

    refused = devicesim("probe", "host", *arguments)

    assert refused.code == 2
    assert message in refused.err
    assert refused.err.startswith("devicesim: error: ")
    assert refused.out == ""
