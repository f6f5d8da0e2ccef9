"""A probe's steps: what is told, in which order and when, without a server."""

import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import trio
import trio.testing
from OpenSSL import crypto
from service_identity.exceptions import CertificateError

from devicesim.net import tcp
from devicesim.net.engine import Connack, Engine
from devicesim.net.failures import ChainError
from devicesim.net.mqtt import MQTTSettings
from devicesim.net.probe import Probe, _Watch, _WatchedTrace, probe
from devicesim.net.steps import (
    AddressFailed,
    CertificateFacts,
    ClientCertificate,
    ClientHelloSent,
    ConnectSent,
    DisconnectSent,
    Failed,
    NameResolved,
    PingSent,
    ServerCertificates,
    Step,
    TCPConnected,
    Told,
    Unreadable,
    certificate_facts,
)
from devicesim.net.stream import TLSConnection
from devicesim.net.tls import Deadlines, TLSSettings
from devicesim.outcome import FailureKind, Stage
from tests.net_support import ENDPOINT, device, device_ca, server_identity

PORT = 8883


def asked(**changes: Any) -> Probe:
    values: dict[str, Any] = {
        "address": (ENDPOINT, PORT),
        "server_name": ENDPOINT,
        "verify_name": ENDPOINT,
        "client_id": "robot",
        "identity": device(),
        "tls": TLSSettings(roots=(), chain=device_ca().chain),
        "mqtt": MQTTSettings(keep_alive=30),
        "deadlines": Deadlines(tcp=9, tls=2, connect=2, connack=2, request=2, close=1),
    }
    return Probe(**{**values, **changes})


def watched(probe: Probe | None = None, clock: Callable[[], float] = lambda: 0.0) -> tuple[_Watch, list[Step]]:
    """A watcher, and the steps that it tells."""
    steps: list[Step] = []
    return _Watch(probe or asked(), lambda told: steps.append(told.step), clock), steps


class Resolver(trio.abc.HostnameResolver):
    """Knows one name, for one or more addresses, or none."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002 - trio's name
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = [(socket.AF_INET, type, 6, "", (address, port)) for address in self.addresses]
        return found * 2  # as resolvers do for several protocols

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise AssertionError("nobody asks for names of addresses")


def connected_to_nobody() -> socket.socket:
    """A TCP socket whose other end is closed already."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        one = socket.create_connection(listener.getsockname())
        listener.accept()[0].close()
    return one


Network = Mapping[str, Exception | float | None]
"""By address: how dialling it fails, the seconds that it takes to fail silently, or ``None`` for a connection."""


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Callable[[Network], None]:
    """In place of TCP."""

    def install(addresses: Network) -> None:
        async def dial(host: str, port: int, source: str | None) -> socket.socket:
            await trio.lowlevel.checkpoint()
            answer = addresses[host]
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                await trio.sleep(answer)
            return connected_to_nobody()

        monkeypatch.setattr(tcp, "dial", dial)
        trio.socket.set_custom_hostname_resolver(Resolver(*addresses))

    return install


async def run(what: Probe) -> tuple[list[Told], Any]:
    told: list[Told] = []
    failure = await probe(what, told.append)
    return told, failure


# --- from a name to a connection


async def test_addresses_are_tried_in_turn_and_each_failure_is_told(network: Callable[[Network], None]) -> None:
    refused, unreachable = ConnectionRefusedError(111, "Connection refused"), OSError(113, "No route to host")
    network({"192.0.2.1": refused, "192.0.2.2": unreachable, "192.0.2.3": None})

    told, _ = await run(asked())

    assert [each.step for each in told[:3]] == [
        NameResolved(host=ENDPOINT, addresses=("192.0.2.1", "192.0.2.2", "192.0.2.3")),
        AddressFailed(address="192.0.2.1:8883", why="Connection refused (ECONNREFUSED)"),
        AddressFailed(address="192.0.2.2:8883", why="No route to host (EHOSTUNREACH)"),
    ]
    connected = told[3].step
    assert isinstance(connected, TCPConnected)
    assert connected.address == "192.0.2.3:8883"
    assert connected.local_address.startswith("127.0.0.1:")


async def test_where_every_address_fails_the_first_one_says_how(network: Callable[[Network], None]) -> None:
    network({"192.0.2.1": ConnectionRefusedError(111, "Connection refused"), "192.0.2.2": OSError(113, "No route")})

    told, failure = await run(asked())

    assert failure.kind is FailureKind.TCP_REFUSED
    assert told[-1].step == Failed(failure=failure)
    assert [type(each.step) for each in told] == [NameResolved, AddressFailed, AddressFailed, Failed]


async def test_a_silent_address_takes_its_share_of_the_deadline_and_no_more(
    network: Callable[[Network], None], autojump_clock: trio.testing.MockClock
) -> None:
    network({"192.0.2.1": 100.0, "192.0.2.2": 100.0, "192.0.2.3": 100.0})

    told, failure = await run(asked())

    failed = [(each.at, each.step.why) for each in told if isinstance(each.step, AddressFailed)]
    assert failed == [(3.0, "no TCP connection within 3 s"), (6.0, "no TCP connection within 3 s")]
    assert failure.kind is FailureKind.TIMEOUT
    assert failure.detail == "no TCP connection within 9 s"
    assert told[-1].at == 9.0


async def test_a_name_without_an_address_is_the_first_and_last_that_is_told(
    network: Callable[[Network], None],
) -> None:
    network({})

    told, failure = await run(asked())

    assert failure.kind is FailureKind.NAME_NOT_RESOLVED
    assert [each.step for each in told] == [Failed(failure=failure)]


async def test_an_address_is_dialled_without_resolving(network: Callable[[Network], None]) -> None:
    network({"192.0.2.1": ConnectionRefusedError(111, "Connection refused")})
    trio.socket.set_custom_hostname_resolver(None)

    told, failure = await run(asked(address=("192.0.2.1", PORT)))

    assert [each.step for each in told] == [Failed(failure=failure)]


async def test_ipv6_addresses_stand_in_brackets(network: Callable[[Network], None]) -> None:
    network({"2001:db8::1": None})

    told, _ = await run(asked())

    connected = told[1].step
    assert isinstance(connected, TCPConnected)
    assert connected.address == "[2001:db8::1]:8883"


async def test_a_client_hello_goes_out_before_the_server_hangs_up(network: Callable[[Network], None]) -> None:
    network({"192.0.2.1": None})

    told, failure = await run(asked(server_name=None))

    assert [type(each.step) for each in told] == [NameResolved, TCPConnected, ClientHelloSent, Failed]
    assert cast(Any, told[2].step).hello.server_name is None
    assert failure.stage is Stage.TLS


async def test_settings_that_cannot_be_are_raised_and_not_told() -> None:
    told: list[Told] = []

    with pytest.raises(ValueError, match="name to verify 'a b'"):
        await probe(asked(verify_name="a b"), told.append)

    assert told == []


def test_steps_are_told_with_the_time_since_the_start() -> None:
    times = iter([100.0, 100.5, 101.25])
    told: list[Told] = []
    watch = _Watch(asked(), told.append, lambda: next(times))

    watch.tell(PingSent())
    watch.tell(DisconnectSent())

    assert [each.at for each in told] == [0.5, 1.25]


# --- the client's certificate, by OpenSSL's states

REQUESTED = ["SSLv3/TLS read server certificate request", "SSLv3/TLS write client certificate"]
VERIFY, FINISHED = "SSLv3/TLS write certificate verify", "SSLv3/TLS write finished"


def certificate_step(states: list[str], probe: Probe | None = None) -> ClientCertificate:
    watch, steps = watched(probe)
    for state in states:
        watch.handshake(state)
    (step,) = steps
    assert isinstance(step, ClientCertificate)
    return step


def test_a_certificate_that_is_proved_was_sent_with_its_issuers() -> None:
    step = certificate_step([*REQUESTED, VERIFY, FINISHED])

    assert (step.requested, step.given, step.issuers) == (True, True, 1)
    assert step.sent == certificate_facts(device().certificate)


def test_a_leaf_alone_has_no_issuers() -> None:
    tls = TLSSettings(roots=(), chain=device_ca().chain, send_chain=False)

    assert certificate_step([*REQUESTED, VERIFY], asked(tls=tls)).issuers == 0


def test_a_certificate_that_fits_no_request_was_not_sent() -> None:
    """OpenSSL then answers with an empty list, without an error."""
    step = certificate_step([*REQUESTED, FINISHED])

    assert (step.requested, step.given, step.sent, step.issuers) == (True, True, None, 0)


def test_a_certificate_that_nobody_asked_for_was_not_sent() -> None:
    step = certificate_step([FINISHED])

    assert (step.requested, step.given, step.sent) == (False, True, None)


def test_without_a_certificate_none_was_sent() -> None:
    step = certificate_step([*REQUESTED, FINISHED], asked(identity=None))

    assert (step.requested, step.given, step.sent) == (True, False, None)


# --- the server's certificates


def test_a_server_is_told_with_its_certificates_and_with_why_it_is_refused() -> None:
    watch, steps = watched()
    leaf = server_identity(ENDPOINT).certificate

    watch.server((crypto.X509.from_cryptography(leaf),), ChainError(20, 0, "CN=x"), CertificateError("no names"))

    assert steps == [
        ServerCertificates(
            presented=(certificate_facts(leaf),),
            verify_name=ENDPOINT,
            chain_refused="unable to get issuer cert locally (OpenSSL code 20, depth 0, subject 'CN=x')",
            name_refused="no names",
        )
    ]


def test_facts_are_those_of_the_certificate() -> None:
    facts = certificate_facts(server_identity("a.localhost", "127.0.0.1").certificate)

    assert isinstance(facts, CertificateFacts)
    assert facts.names == ("a.localhost", "127.0.0.1")
    assert facts.not_before == datetime(2000, 1, 1, tzinfo=UTC)
    assert len(facts.certificate_id) == 64


def test_a_certificate_that_cryptography_does_not_read_is_told_as_such() -> None:
    class Strict:
        def to_cryptography(self) -> None:
            raise ValueError("error parsing\nasn1 value")

    watch, steps = watched()

    watch.server((cast(crypto.X509, Strict()),), None, None)

    (step,) = steps
    assert isinstance(step, ServerCertificates)
    assert step.presented == (Unreadable(why="error parsing asn1 value"),)


# --- MQTT


def test_connect_is_told_when_it_is_written() -> None:
    watch, steps = watched(asked(client_id="r", mqtt=MQTTSettings(version="5", keep_alive=9)))
    trace = _WatchedTrace(start=1.0, on_reach=watch.reached)

    for stage in (Stage.TCP, Stage.TLS, Stage.CONNECT, Stage.CONNACK):
        trace.reach(stage, 2.0)

    assert steps == [ConnectSent(client_id="r", version="5", keep_alive=9, clean_start=True)]
    assert trace.reached[Stage.CONNECT] == 1.0


def test_the_engine_tells_what_comes_in_and_what_it_sends() -> None:
    watch, steps = watched()
    engine = watch.engine("robot", version="5", clean_start=True)
    engine.connect()
    engine.feed(b"\x20\x0e\x00\x00\x0b\x24\x01\x13\x00\x1e\x12\x00\x03abc" + b"\x30\x06\x00\x01t\x00hi" + b"\xd0\x00")

    while engine.next_event() is not None:
        pass
    engine.ping()
    engine.feed(b"\xe0\x02\x8e\x00")
    engine.next_event()
    engine.disconnect()

    names = [type(each).__name__ for each in steps]
    assert names == [
        "ConnackReceived",
        "MessageReceived",
        "PongReceived",
        "PingSent",
        "DisconnectReceived",
        "DisconnectSent",
    ]
    connack = cast(Any, steps[0]).connack
    assert (connack.maximum_qos, connack.keep_alive, connack.assigned_client_id) == (1, 30, "abc")
    assert cast(Any, steps[4]).words.startswith("0x8e")


@pytest.mark.parametrize(
    ("properties", "field", "value"),
    [
        (b"\x11\x00\x00\x0e\x10", "session_expiry", 3600),
        (b"\x13\x00\x1e", "keep_alive", 30),
        (b"\x12\x00\x03abc", "assigned_client_id", "abc"),
        (b"\x1c\x00\x03abc", "server_reference", "abc"),
        (b"\x21\x00\x14", "receive_maximum", 20),
        (b"\x22\x00\x08", "topic_alias_maximum", 8),
        (b"\x24\x01", "maximum_qos", 1),
        (b"\x25\x00", "retain_available", 0),
        (b"\x27\x00\x02\x00\x00", "maximum_packet_size", 131072),
    ],
)
@pytest.mark.parametrize("code", [0, 0x9C])
def test_a_connack_of_mqtt_5_has_the_servers_properties(
    code: int, properties: bytes, field: str, value: object
) -> None:
    engine = Engine("robot", version="5")
    engine.connect()
    engine.feed(bytes((0x20, 3 + len(properties), 0, code, len(properties))) + properties)

    connack = engine.next_event()

    assert isinstance(connack, Connack)
    assert connack.code == code
    assert getattr(connack, field) == value


def test_the_handshakes_end_is_told_with_what_was_agreed_on() -> None:
    class Done:
        version, cipher, group, alpn_protocol = "TLSv1.3", "TLS_AES_128_GCM_SHA256", "secp256r1", None

    watch, steps = watched()

    watch.secured(cast(TLSConnection, Done()))

    assert cast(Any, steps[0]).version == "TLSv1.3"
    assert cast(Any, steps[0]).alpn is None
