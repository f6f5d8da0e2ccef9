"""``devicesim probe`` on real sockets: against the emulator, and against servers that do what it would not."""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from OpenSSL import SSL

from devicesim.emulator.embedded import Account, Emulator, emulator_in_a_thread, quick
from devicesim.net.mqtt import MQTTSettings
from devicesim.net.probe import Probe, probe
from devicesim.net.steps import (
    AlertSeen,
    ClientCertificate,
    ConnackReceived,
    ConnectSent,
    DisconnectSent,
    Held,
    MessageReceived,
    PingSent,
    PongReceived,
    ServerCertificates,
    Told,
)
from devicesim.net.tls import Deadlines, TLSSettings
from devicesim.outcome import Failure, FailureKind, Stage
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity, certificate_pem
from devicesim.pki.profile import KeyType, Profile, Subject
from tests.emulator_support import ALLOW_ALL, ROLE, template
from tests.net_support import (
    ENDPOINT,
    QUICK,
    TEST_SECONDS,
    Handler,
    ServerEnd,
    device,
    device_ca,
    idle,
    roots,
    self_signed_server,
    server_context,
    server_identity,
    tcp_server,
    tls_server,
)
from tests.support import Devicesim, Outcome, start

FIRST_DROP_SECONDS = 10.0
"""By when JITP, which takes no time here, has done its work."""


# --- against the emulator: account-1 has the CA SNI_ONLY with JITP, account-2 does not have it


@dataclass(frozen=True, slots=True)
class Bench:
    """An emulator, and devices of the CA that its first account knows."""

    emulator: Emulator
    ca: Authority
    directory: Path

    @property
    def account(self) -> Account:
        return self.emulator.accounts[0]

    @property
    def stranger(self) -> Account:
        return self.emulator.accounts[1]

    def identity(self, index: int, ca: Authority | None = None) -> Identity:
        return (ca or self.ca).mint(index, secret=b"s" * 32, profile=Profile(subject=Subject(common_name="r-{index}")))

    def bundle(self, index: int) -> Path:
        """As ``devicesim mint`` writes it."""
        path = self.directory / f"{index}.pem"
        path.write_text(self.identity(index).pem())
        return path

    def active(self, index: int, *, policy: bool = True) -> Path:
        """The bundle of a device that is registered and ACTIVE, with a policy or without one."""
        iot = self.account.client("iot")
        pem = certificate_pem(self.identity(index).certificate)
        registered = iot.register_certificate(
            certificatePem=pem, caCertificatePem=certificate_pem(self.ca.certificate), status="ACTIVE"
        )
        if policy:
            if "all" not in [each["policyName"] for each in iot.list_policies()["policies"]]:
                iot.create_policy(policyName="all", policyDocument=ALLOW_ALL)
            iot.attach_policy(policyName="all", target=registered["certificateArn"])
        return self.bundle(index)

    def arguments(self, *more: str | Path, account: Account | None = None, port: int | None = None) -> list[str | Path]:
        to = account or self.account
        address = f"{to.mqtt_host}:{port or to.mqtt_port}"
        return ["probe", to.endpoint, "--cacert", to.ca_file, "--connect-to", address, *more]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    ca = new_shared_authority("Shared CA", KeyType.EC_P256, now=datetime.now(UTC), validity=timedelta(days=9))
    with emulator_in_a_thread(accounts=2, settings=quick()) as emulator:
        emulator.accounts[0].client("iot").register_ca_certificate(
            caCertificate=certificate_pem(ca.certificate),
            certificateMode="SNI_ONLY",
            setAsActive=True,
            allowAutoRegistration=True,
            registrationConfig={"templateBody": template(), "roleArn": ROLE},
        )
        yield Bench(emulator, ca, tmp_path_factory.mktemp("bundles"))


def plain(outcome: Outcome) -> str:
    """What was printed, as one line."""
    return " ".join(outcome.out.split())


def test_a_first_connection_drops_and_the_next_is_accepted(bench: Bench, devicesim: Devicesim) -> None:
    bundle = bench.bundle(1)
    certificate_id = bench.identity(1).certificate_id

    first = devicesim(*bench.arguments("--cert", bundle))
    give_up = time.monotonic() + FIRST_DROP_SECONDS
    while (second := devicesim(*bench.arguments("--cert", bundle))).code != 0 and time.monotonic() < give_up:
        pass

    assert first.code == 99
    assert first.err == ""
    assert "closed before CONNACK: close_notify" in first.out
    assert "closed_before_connack: so AWS IoT refuses" in plain(first)
    assert "connect again after 1 to 3 s" in plain(first)
    assert f"\n            {certificate_id}\n" in first.out
    assert f"trusted, and for {bench.account.endpoint}" in first.out
    assert second.code == 0
    assert "< CONNACK: 0 Connection Accepted" in second.out
    assert second.out.endswith("\naccepted: CONNACK 0.\n")


def test_without_sni_a_certificate_of_sni_only_mode_is_refused(bench: Bench, devicesim: Devicesim) -> None:
    said = devicesim(*bench.arguments("--cert", bench.active(2), "--noservername"))

    assert said.code == 99
    assert "> ClientHello: no SNI" in said.out
    assert "No server name (SNI) was sent: then only certificates of DEFAULT mode are found" in plain(said)
    assert bench.emulator.history(certificate_id=bench.identity(2).certificate_id)[-1]["server_name"] is None


def test_an_address_as_the_endpoint_is_verified_and_not_sent(bench: Bench, devicesim: Devicesim) -> None:
    to = bench.account

    said = devicesim("probe", f"{to.mqtt_host}:{to.mqtt_port}", "--cacert", to.ca_file)

    assert said.code == 99
    assert "> ClientHello: no SNI" in said.out
    assert f"trusted, and for {to.mqtt_host}" in said.out


def test_another_accounts_server_name_is_sent_and_said_to_be_another(bench: Bench, devicesim: Devicesim) -> None:
    said = devicesim(*bench.arguments("--cert", bench.active(3), "--servername", bench.stranger.endpoint))

    assert said.code == 99
    assert f"> ClientHello: SNI {bench.stranger.endpoint}" in said.out
    assert f"The server name (SNI) sent is not the endpoint's, {bench.account.endpoint}" in plain(said)
    seen = bench.emulator.history(certificate_id=bench.identity(3).certificate_id)[-1]
    assert seen["server_name"] == bench.stranger.endpoint


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_server_that_is_another_than_meant_is_shown_and_not_reached(
    bench: Bench, devicesim: Devicesim, version: str
) -> None:
    arguments = bench.arguments("--cert", bench.bundle(4), "--verify-name", "wrong.example", "--tls-version", version)

    said = devicesim(*arguments)

    assert said.code == 3
    assert "0 CN=*.iot.us-east-1.localhost" in said.out
    assert "not for wrong.example" in said.out
    assert "> alert sent: fatal internal_error (80)" in said.out
    assert "server_name_mismatch: the server's certificate is for *.iot.us-east-1.localhost" in plain(said)
    assert "client certificate" not in said.out
    assert bench.emulator.history(certificate_id=bench.identity(4).certificate_id) == []


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_server_of_another_root_is_shown_and_not_reached(
    bench: Bench, devicesim: Devicesim, tmp_path: Path, version: str
) -> None:
    (tmp_path / "ca.pem").write_text(certificate_pem(bench.ca.certificate))

    said = devicesim(*bench.arguments("--cacert", tmp_path / "ca.pem", "--tls-version", version))

    assert said.code == 3
    assert "0 CN=*.iot.us-east-1.localhost" in said.out
    assert "not trusted: unable to get issuer cert locally (OpenSSL code 20, depth 0" in plain(said)
    assert f"for {bench.account.endpoint}" in said.out
    assert "> alert sent: fatal unknown_ca (48)" in said.out
    assert f"ends at none of the roots trusted, those of {tmp_path / 'ca.pem'}" in plain(said)


def test_without_cacert_amazons_roots_are_trusted_and_no_others(bench: Bench, devicesim: Devicesim) -> None:
    to = bench.account
    said = devicesim("probe", to.endpoint, "--connect-to", f"{to.mqtt_host}:{to.mqtt_port}")

    assert said.code == 3
    assert "ends at none of the roots trusted, Amazon Root CA 1 to 4;" in plain(said)


def test_the_port_that_plays_443_answers_in_http_without_alpn(bench: Bench, devicesim: Devicesim) -> None:
    bundle = bench.active(5)
    port = bench.account.mqtt_alpn_port

    without = devicesim(*bench.arguments("--cert", bundle, port=port))
    with_it = devicesim(*bench.arguments("--cert", bundle, "--alpn", "x-amzn-mqtt-ca", port=port))

    assert without.code == 99
    assert "mqtt_protocol_error: the server answered in HTTP: on port 443 AWS IoT speaks MQTT only" in plain(without)
    assert with_it.code == 0
    assert with_it.out.startswith(f"{bench.account.endpoint}:443, dialled at")
    assert "ALPN x-amzn-mqtt-ca" in with_it.out.split("TLS done")[1]


def test_mqtt_5_says_that_no_policy_allows_it_and_3_does_not(bench: Bench, devicesim: Devicesim) -> None:
    bundle = bench.active(6, policy=False)

    five = devicesim(*bench.arguments("--cert", bundle, "-V", "5"))
    three = devicesim(*bench.arguments("--cert", bundle, "-V", "4"))

    assert five.code == 99
    assert "< CONNACK: 0x87 Not authorized: CONNACK:Client is not authenticated/authorized" in plain(five)
    assert "no policy of the certificate allows iot:Connect with client id 'r-6'" in plain(five)
    assert three.code == 99
    assert "> CONNECT: MQTT 3.1.1; client id 'r-6'" in three.out
    assert "closed_before_connack: " in three.out


@pytest.mark.parametrize(("version", "name"), [("1.2", "TLSv1.2"), ("1.3", "TLSv1.3")])
def test_one_version_of_tls_is_offered_and_agreed_on(
    bench: Bench, devicesim: Devicesim, version: str, name: str
) -> None:
    bundle = bench.active(7 if version == "1.2" else 8)

    said = devicesim(*bench.arguments("--cert", bundle, "--tls-version", version, "--json"))

    assert said.code == 0
    steps = {each["step"]: each for each in json.loads(said.out)["steps"]}
    assert steps["client_hello_sent"]["hello"]["versions"] == [name]
    assert steps["tls_done"]["version"] == name
    assert steps["client_certificate"]["requested"] is True
    assert steps["client_certificate"]["sent"]["subject"] == f"CN=r-{7 if version == '1.2' else 8}"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_nobody_is_refused_too(bench: Bench, devicesim: Devicesim, version: str) -> None:
    said = devicesim(*bench.arguments("--tls-version", version))

    assert said.code == 99
    assert "no client certificate sent: the server asked for one" in said.out
    assert "client id 'devicesim-probe'" in said.out
    assert "No client certificate was sent (--cert)" in plain(said)


def test_the_leaf_is_sent_alone_when_asked_for(bench: Bench, devicesim: Devicesim) -> None:
    said = devicesim(*bench.arguments("--cert", bench.active(9), "--no-chain", "--client-id", "other"))

    assert said.code == 0
    assert "> client certificate: sent alone" in said.out
    assert "client id 'other'" in said.out


def test_the_document_is_all_that_is_printed_with_json(bench: Bench, devicesim: Devicesim) -> None:
    said = devicesim(*bench.arguments("--cert", bench.active(10), "--json", "--hold", "0.05"))

    assert (said.code, said.err) == (0, "")
    read = json.loads(said.out)
    assert [each["step"] for each in read["steps"]] == [
        "tcp_connected",
        "client_hello_sent",
        "server_certificates",
        "client_certificate",
        "tls_done",
        "connect_sent",
        "connack_received",
        "held",
        "disconnect_sent",
    ]
    assert sorted(each["at"] for each in read["steps"]) == [each["at"] for each in read["steps"]]
    assert (read["accepted"], read["result"], read["failure"], read["exit_code"]) == (True, "accepted", None, 0)
    assert read["endpoint"] == {"host": bench.account.endpoint, "port": 8883}
    assert read["address"] == {"host": bench.account.mqtt_host, "port": bench.account.mqtt_port}


def follow(bench: Bench, *arguments: str | Path, until: str) -> tuple[Any, str]:
    """A probe in a process of its own, and what it printed up to the line with ``until``: told as it happens."""
    process = start(*bench.arguments(*arguments))
    assert process.stdout is not None
    said = ""
    while until not in said:
        line = process.stdout.readline()
        assert line, said + process.communicate(timeout=TEST_SECONDS)[1]
        said += line
    return process, said


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("5", "disconnected_by_server: another client connected with the same client id, 'r-11'."),
        ("3.1.1", "closed_after_connack: accepted, and closed later; the wire does not say why."),
    ],
)
def test_a_takeover_ends_a_connection_that_is_held(
    bench: Bench, devicesim: Devicesim, version: str, words: str
) -> None:
    index = {"5": 11, "3.1.1": 12}[version]
    bundle = bench.active(index)
    process, _ = follow(bench, "--cert", bundle, "-V", version, "--hold", "60", until="CONNACK")

    other = devicesim(*bench.arguments("--cert", bundle))
    out, err = process.communicate(timeout=TEST_SECONDS)

    assert other.code == 0
    assert (process.returncode, err) == (99, "")
    assert words.replace("r-11", f"r-{index}") in " ".join(out.split())
    assert ("< DISCONNECT: 0x8e Session taken over" in out) is (version == "5")


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_ends_a_connection_that_is_held_in_order(bench: Bench, as_json: bool) -> None:
    bundle = bench.active(13 + as_json)
    if as_json:
        process = start(*bench.arguments("--cert", bundle, "--hold", "60", "--json"))
        give_up = time.monotonic() + TEST_SECONDS
        identifier = bench.identity(14).certificate_id
        while not bench.emulator.history(certificate_id=identifier) and time.monotonic() < give_up:
            time.sleep(0.02)
    else:
        process, _ = follow(bench, "--cert", bundle, "--hold", "60", until="CONNACK")

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TEST_SECONDS)

    assert (process.returncode, err) == (105, "")
    if as_json:
        read = json.loads(out)
        assert (read["interrupted"], read["result"], read["exit_code"]) == (True, "interrupted", 105)
        assert "connect_sent" in [each["step"] for each in read["steps"]]
    else:
        assert "> DISCONNECT\n" in out
        assert out.endswith("\ninterrupted: after CONNACK.\n")


def test_a_reader_that_goes_away_ends_it_without_a_word(bench: Bench) -> None:
    bundle = bench.active(15)
    process, _ = follow(bench, "--cert", bundle, "--hold", "60", "--keepalive", "1", until="CONNACK")
    assert process.stdout is not None
    process.stdout.close()

    process.wait(timeout=TEST_SECONDS)

    assert process.stderr is not None
    assert (process.returncode, process.stderr.read()) == (1, "")
    process.stderr.close()


def test_every_line_stands_behind_its_time(bench: Bench, devicesim: Devicesim) -> None:
    said = devicesim(*bench.arguments("--cert", bench.active(20)))

    lines = said.out.splitlines()[1:-2]
    assert lines
    assert [line for line in lines if not re.match(r"[ 0-9.]{1,6} (ms|s)  \S|\s{10,14}\S", line)] == []


# --- targets that are not there


def test_a_port_on_which_nobody_listens_exits_3(devicesim: Devicesim) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        said = devicesim("probe", f"127.0.0.1:{port}")

    assert said.code == 3
    assert "TCP connection refused: Connection refused (ECONNREFUSED)" in said.out
    assert "\ntcp_refused: nothing listens there" in said.out


def test_a_name_that_does_not_resolve_exits_3(devicesim: Devicesim) -> None:
    said = devicesim("probe", f"{'a' * 64}.invalid", "--json")  # too long a label: no resolver is asked

    assert said.code == 3
    read = json.loads(said.out)
    assert read["failure"]["kind"] == "name_not_resolved"
    assert [each["step"] for each in read["steps"]] == ["failed"]


def test_a_name_with_several_addresses_is_told_with_all_that_were_tried(devicesim: Devicesim) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        said = devicesim("probe", "somewhere.example", "--connect-to", f"localhost:{port}", "--json")

    assert said.code == 3
    steps = json.loads(said.out)["steps"]
    assert steps[0]["step"] == "name_resolved"
    assert "127.0.0.1" in steps[0]["addresses"]
    assert [each["step"] for each in steps[1:-1]] == ["address_failed"] * len(steps[0]["addresses"])


# --- servers that do what the emulator would not

ACCEPT = b"\x20\x02\x00\x00"


async def no_handshake(end: ServerEnd) -> None:
    """One of the two refuses the other within it."""
    with pytest.raises(SSL.Error):
        await end.handshake()


async def run(
    handler: Handler, context: Any = None, *, version: str | None = None, handshake: bool = True, **changes: Any
) -> tuple[list[Told], Failure | None]:
    """A probe of such a server: what was told, and how it ended."""
    served = context or server_context(server_identity(ENDPOINT), version=version)
    told: list[Told] = []
    async with tls_server(handler, served, handshake=handshake) as address:
        with trio.fail_after(TEST_SECONDS):
            failure = await probe(_probe(address, **changes), told.append)
    return told, failure


def _probe(address: tuple[str, int], **changes: Any) -> Probe:
    values: dict[str, Any] = {
        "address": address,
        "server_name": ENDPOINT,
        "verify_name": ENDPOINT,
        "client_id": "robot",
        "identity": device(),
        "tls": TLSSettings(roots=roots(), chain=device_ca().chain),
        "mqtt": MQTTSettings(),
        "deadlines": QUICK,
    }
    return Probe(**{**values, **changes})


def steps(told: list[Told], kind: type) -> list[Any]:
    return [each.step for each in told if isinstance(each.step, kind)]


BOTH_VERSIONS = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])


@BOTH_VERSIONS
async def test_an_alert_for_our_certificate_is_told_as_received(version: str) -> None:
    """In TLS 1.3 it comes when the handshake is done on our side."""
    strict = server_context(server_identity(ENDPOINT), version=version, accept_client=False)

    told, failure = await run(no_handshake, strict, handshake=False)

    assert failure is not None
    assert failure.kind is FailureKind.TLS_ALERT
    (seen,) = steps(told, AlertSeen)
    assert (seen.alert.name, seen.alert.direction, seen.alert.level) == ("unknown_ca", "received", "fatal")
    assert len(steps(told, ClientCertificate)) == 1


@BOTH_VERSIONS
async def test_a_server_that_asks_for_no_certificate_is_not_sent_one(version: str) -> None:
    async def handler(end: ServerEnd) -> None:
        await end.packet()
        await end.send(ACCEPT)
        await idle(end)

    open_to_all = server_context(server_identity(ENDPOINT), version=version, accept_client=None)
    told, failure = await run(handler, open_to_all)

    assert failure is None
    (seen,) = steps(told, ClientCertificate)
    assert (seen.requested, seen.given, seen.sent) == (False, True, None)


@BOTH_VERSIONS
@pytest.mark.parametrize("given", [True, False])
async def test_what_the_server_saw_of_our_certificate_is_what_is_told(version: str, given: bool) -> None:
    seen: list[Any] = []

    async def handler(end: ServerEnd) -> None:
        seen.append(end.tls.get_peer_certificate(as_cryptography=True))
        await end.packet()
        await end.send(ACCEPT)
        await idle(end)

    told, _ = await run(handler, version=version, identity=device() if given else None)

    (step,) = steps(told, ClientCertificate)
    assert step.requested is True
    assert (step.sent is not None) is (seen[0] is not None) is given


@BOTH_VERSIONS
async def test_an_expired_server_is_shown_with_its_dates(version: str) -> None:
    now = datetime.now(UTC)
    identity, root = self_signed_server(ENDPOINT, not_before=now - timedelta(days=9), not_after=now - timedelta(days=2))

    context = server_context(identity, version=version)

    told, failure = await run(no_handshake, context, handshake=False, tls=TLSSettings(roots=(root,)))

    assert failure is not None
    assert failure.kind is FailureKind.SERVER_CERTIFICATE_EXPIRED
    (seen,) = steps(told, ServerCertificates)
    assert seen.presented[0].not_after == (now - timedelta(days=2)).replace(microsecond=0)
    assert "cert has expired" in seen.chain_refused
    assert seen.name_refused == ""


async def test_what_comes_while_it_is_held_is_told() -> None:
    async def handler(end: ServerEnd) -> None:
        await end.packet()
        await end.send(ACCEPT + b"\x30\x0a\x00\x04r/1/hell")
        assert await end.packet() == b"\xc0\x00"
        await end.send(b"\xd0\x00")
        await idle(end)

    told, failure = await run(handler, hold=1.6, mqtt=MQTTSettings(keep_alive=1))

    assert failure is None
    kinds = [type(each.step) for each in told]
    assert kinds[kinds.index(ConnackReceived) :] == [
        ConnackReceived,
        MessageReceived,
        PingSent,
        PongReceived,
        Held,
        DisconnectSent,
    ]
    at = {type(each.step): each.at for each in told}
    assert 0.99 <= at[PingSent] - at[ConnectSent] < 1.5  # from the last packet that we sent (MQTT 5, 3.1.2.10)
    assert at[Held] - at[ConnackReceived] >= 1.6


async def test_a_server_that_says_nothing_is_given_up_at_the_deadline_of_the_stage() -> None:
    async def handler(end: ServerEnd) -> None:
        await idle(end)

    told, failure = await run(handler, deadlines=Deadlines(tcp=5, tls=5, connect=5, connack=0.2, request=5, close=1))

    assert failure == Failure(kind=FailureKind.TIMEOUT, stage=Stage.CONNACK, detail="no CONNACK within 0.2 s")
    assert 0.2 <= told[-1].at < 2


async def test_a_port_that_does_not_speak_tls_is_told_as_that() -> None:
    told: list[Told] = []

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n")
        await stream.aclose()

    async with tcp_server(serve) as address:
        with trio.fail_after(TEST_SECONDS):
            failure = await probe(_probe(address), told.append)

    assert failure is not None
    assert (failure.kind, failure.stage) == (FailureKind.TLS_PROTOCOL_ERROR, Stage.TLS)


async def test_a_group_that_the_server_does_not_share_is_offered_again() -> None:
    """A HelloRetryRequest: the second ClientHello is not told as another one."""

    async def handler(end: ServerEnd) -> None:
        await end.packet()
        await end.send(ACCEPT)
        await idle(end)

    told, failure = await run(handler, tls=TLSSettings(roots=roots(), group="any"))

    assert failure is None
    assert [type(each.step).__name__ for each in told].count("ClientHelloSent") == 1
