"""paho-mqtt with its own network loop, beside the fleet's use of it: what Eclipse's conformance clients do.

The scenarios are those of Eclipse's ``client_test.py`` and ``client_test5.py``, written anew: basic, retained messages,
wills, offline queueing, QoS 2 refused, topic aliases, subscribe options, shared subscriptions, flow control.
"""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import paho.mqtt.client as paho
import pytest
import trio
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.foreign_support import Emulator, open_emulator

SECONDS = 10
VERSIONS = pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5], ids=["3.1.1", "5"])


class NamedClient(paho.Client):
    """Sends the endpoint's name and checks the certificate against it, whatever is dialled."""

    server_name = ""

    def _ssl_wrap_socket(self, tcp_sock: Any) -> ssl.SSLSocket:
        context = self._ssl_context
        assert context is not None
        wrapped = context.wrap_socket(tcp_sock, server_hostname=self.server_name, do_handshake_on_connect=False)
        wrapped.settimeout(self._keepalive)
        wrapped.do_handshake()
        return wrapped


@dataclass
class Peer:
    """One client with its thread, and what it was told."""

    client: NamedClient
    connected: "Queue[tuple[Any, Any, Any]]" = field(default_factory=Queue)
    disconnected: "Queue[Any]" = field(default_factory=Queue)
    messages: "Queue[paho.MQTTMessage]" = field(default_factory=Queue)
    granted: "Queue[list[Any]]" = field(default_factory=Queue)
    published: "Queue[int]" = field(default_factory=Queue)

    def next(self) -> paho.MQTTMessage:
        return self.messages.get(timeout=SECONDS)

    def nothing_more(self) -> None:
        """A message to itself comes next: whatever was before it has come."""
        self.subscribe("fence", 1)
        self.client.publish("fence", "fence", 1)
        assert self.next().topic == "fence"
        with pytest.raises(Empty):
            self.messages.get_nowait()

    def subscribe(self, *filters: Any, **options: Any) -> list[Any]:
        self.client.subscribe(*filters, **options)
        return self.granted.get(timeout=SECONDS)

    def publish(self, topic: str, payload: str, qos: int = 1, **more: Any) -> None:
        info = self.client.publish(topic, payload, qos, **more)
        info.wait_for_publish(SECONDS)
        assert info.is_published()


class Broker:
    """What a scenario, which runs in a thread of its own, connects to."""

    def __init__(self, emulator: Emulator, version: int) -> None:
        self.emulator = emulator
        self.version = version
        self.endpoint = emulator.account().endpoint
        self.files = [emulator.device(index)[1] for index in range(3)]

    @contextmanager
    def peer(self, device: int, client_id: str, clean: bool = True, expiry: int = 0, **more: Any) -> Iterator[Peer]:
        """A client that has been let in; its network goes without DISCONNECT unless the scenario says it."""
        v5 = self.version == paho.MQTTv5
        client = NamedClient(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion(self.version),
            reconnect_on_failure=False,
            **({} if v5 else {"clean_session": clean}),  # type: ignore[arg-type]
        )
        client.server_name = self.endpoint
        certificate, key = self.files[device]
        client.tls_set(str(self.emulator.ca_file), str(certificate), str(key))
        peer = Peer(client)
        client.on_connect = lambda _c, _u, flags, code, properties: peer.connected.put((flags, code, properties))
        client.on_disconnect = lambda _c, _u, _flags, code, _properties: peer.disconnected.put(code)
        client.on_message = lambda _c, _u, message: peer.messages.put(message)
        client.on_subscribe = lambda _c, _u, _mid, codes, _properties: peer.granted.put(codes)
        if (will := more.pop("will", None)) is not None:
            client.will_set(*will)
        if v5:
            properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own
            properties.SessionExpiryInterval = expiry
            for name, value in more.items():
                setattr(properties, name, value)
            client.connect("127.0.0.1", self.emulator.port, 30, clean_start=clean, properties=properties)
        else:
            client.connect("127.0.0.1", self.emulator.port, 30)
        client.loop_start()
        try:
            yield peer
        finally:
            sock: Any = client.socket()
            if sock is not None:
                with suppress(OSError):  # the server may have been quicker
                    sock.shutdown(socket.SHUT_RDWR)
            client.loop_stop()
            # without these, the client is in no circle, and closes its socket pair when it goes
            client.on_connect = client.on_disconnect = client.on_message = client.on_subscribe = None


def let_in(peer: Peer) -> Any:
    flags, code, properties = peer.connected.get(timeout=SECONDS)
    assert not code.is_failure
    return flags, properties


async def play(directory: Path, version: int, scenario: Callable[[Broker], None]) -> None:
    async with open_emulator(directory, seconds=40) as emulator:
        account = emulator.account()
        emulator.register_ca(account)
        for index in range(3):
            emulator.activate(account, emulator.device(index)[0])
        broker = Broker(emulator, version)
        await trio.to_thread.run_sync(scenario, broker, abandon_on_cancel=True)


@VERSIONS
async def test_basic(tmp_path: Path, version: int) -> None:
    """Subscribe, publish with QoS 0 and 1, receive both; a second CONNECT with the same client id takes over."""

    def scenario(broker: Broker) -> None:
        with broker.peer(0, "basic") as peer:
            let_in(peer)
            assert [code.value for code in peer.subscribe("topic/#", 1)] == [1]
            for qos in (0, 1):
                peer.publish(f"topic/{qos}", f"payload {qos}", qos)
            seen = [peer.next() for _ in range(2)]
            assert sorted((each.topic, each.qos) for each in seen) == [("topic/0", 0), ("topic/1", 1)]
            with broker.peer(1, "basic") as other:
                let_in(other)
                code = peer.disconnected.get(timeout=SECONDS)
                if broker.version == paho.MQTTv5:
                    assert code.value == 0x8E

    await play(tmp_path, version, scenario)


@VERSIONS
async def test_retained_messages(tmp_path: Path, version: int) -> None:
    def scenario(broker: Broker) -> None:
        with broker.peer(0, "retained") as peer:
            let_in(peer)
            for topic in ("kept/1", "kept/2"):
                peer.publish(topic, "x", retain=True)
            peer.publish("kept/2", "", retain=True)
            peer.subscribe("kept/+", 1)  # AWS: a filter with a wildcard gets none
            peer.subscribe("kept/2", 1)
            peer.subscribe("kept/1", 1)
            message = peer.next()
            assert (message.topic, message.payload, message.retain) == ("kept/1", b"x", True)
            peer.nothing_more()

    await play(tmp_path, version, scenario)


@VERSIONS
async def test_the_will_of_a_client_whose_network_goes(tmp_path: Path, version: int) -> None:
    def scenario(broker: Broker) -> None:
        with broker.peer(0, "watcher") as watcher:
            let_in(watcher)
            watcher.subscribe("wills/#", 1)
            with broker.peer(1, "mortal", will=("wills/mortal", "gone", 1)) as mortal:
                let_in(mortal)
            message = watcher.next()
            assert (message.topic, message.payload, message.qos) == ("wills/mortal", b"gone", 1)
            with broker.peer(1, "mortal", will=("wills/mortal", "gone", 1)) as mortal:
                let_in(mortal)
                mortal.client.disconnect()
                mortal.disconnected.get(timeout=SECONDS)
            watcher.nothing_more()

    await play(tmp_path, version, scenario)


@VERSIONS
async def test_offline_queueing(tmp_path: Path, version: int) -> None:
    """QoS 1 waits for a session whose client is away, ten a second; QoS 0 does not."""

    def scenario(broker: Broker) -> None:
        with broker.peer(0, "away", clean=False, expiry=600) as peer:
            flags, _ = let_in(peer)
            assert not flags.session_present
            peer.subscribe("queue/#", 1)
            peer.client.disconnect()
            peer.disconnected.get(timeout=SECONDS)
        with broker.peer(1, "publisher") as publisher:
            let_in(publisher)
            publisher.publish("queue/0", "lost", 0)
            for number in range(12):
                publisher.publish("queue/1", str(number))
        with broker.peer(0, "away", clean=False, expiry=600) as peer:
            flags, _ = let_in(peer)
            assert flags.session_present
            assert [peer.next().payload for _ in range(12)] == [b"%d" % number for number in range(12)]

    await play(tmp_path, version, scenario)


@VERSIONS
async def test_a_denied_filter_and_qos_2(tmp_path: Path, version: int) -> None:
    """QoS 2 ends the connection; MQTT 5 is told why."""

    def scenario(broker: Broker) -> None:
        with broker.peer(0, "two") as peer:
            let_in(peer)
            peer.client.subscribe("topic", 2)
            code = peer.disconnected.get(timeout=SECONDS)
            assert code.is_failure
            if broker.version == paho.MQTTv5:
                assert code.value == 0x9B

    await play(tmp_path, version, scenario)


@VERSIONS
async def test_shared_subscriptions(tmp_path: Path, version: int) -> None:
    def scenario(broker: Broker) -> None:
        with broker.peer(0, "one") as one, broker.peer(1, "two") as two, broker.peer(2, "pub") as publisher:
            for each in (one, two, publisher):
                let_in(each)
            for each in (one, two):
                each.subscribe("$share/group/work/#", 1)
            wanted = {str(number).encode() for number in range(30)}
            for number in range(30):
                publisher.publish(f"work/{number}", str(number))
            seen: list[list[bytes]] = [[], []]
            for queue, peer in zip(seen, (one, two), strict=True):
                peer.subscribe("end", 1)
                peer.publish("end", "end")
                while (message := peer.next()).topic != "end":
                    queue.append(bytes(message.payload))
            assert set(seen[0]) | set(seen[1]) == wanted
            assert len(seen[0]) + len(seen[1]) == 30

    await play(tmp_path, version, scenario)


async def test_properties_travel(tmp_path: Path) -> None:
    def scenario(broker: Broker) -> None:
        with broker.peer(0, "properties") as peer:
            _, told = let_in(peer)
            assert told.TopicAliasMaximum == 8
            assert told.MaximumQoS == 1
            peer.subscribe("p/+", 1)
            properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's own
            properties.ContentType = "text/plain"
            properties.ResponseTopic = "answer"
            properties.CorrelationData = b"\0\1"
            properties.MessageExpiryInterval = 100
            properties.UserProperty = [("b", "2"), ("a", "1")]
            properties.TopicAlias = 3
            peer.publish("p/1", "by name", properties=properties)
            peer.publish("", "by alias", properties=properties)
            for payload in (b"by name", b"by alias"):
                message = peer.next()
                assert (message.topic, message.payload) == ("p/1", payload)
                seen: Any = message.properties
                assert seen.ContentType == "text/plain"
                assert seen.ResponseTopic == "answer"
                assert seen.CorrelationData == b"\0\1"
                assert seen.UserProperty == [("b", "2"), ("a", "1")]
                assert seen.MessageExpiryInterval in (98, 99, 100)

    await play(tmp_path, paho.MQTTv5, scenario)


async def test_subscribe_options(tmp_path: Path) -> None:
    """No Local, Retain As Published, Retain Handling."""

    def scenario(broker: Broker) -> None:
        with broker.peer(0, "options") as peer, broker.peer(1, "other") as other:
            let_in(peer)
            let_in(other)
            peer.publish("kept", "kept", retain=True)
            peer.subscribe("kept", options=SubscribeOptions(1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND))
            peer.subscribe("local", options=SubscribeOptions(1, noLocal=True))
            peer.subscribe("flag", options=SubscribeOptions(1, retainAsPublished=True))
            peer.publish("local", "mine")
            other.publish("local", "theirs")
            assert peer.next().payload == b"theirs"
            other.publish("flag", "x", retain=True)
            assert peer.next().retain
            peer.nothing_more()

    await play(tmp_path, paho.MQTTv5, scenario)


async def test_flow_control(tmp_path: Path) -> None:
    """A Receive Maximum of 1 with manual acknowledgement: one message at a time."""

    def scenario(broker: Broker) -> None:
        with broker.peer(0, "slow", ReceiveMaximum=1) as peer, broker.peer(1, "pub") as publisher:
            let_in(peer)
            let_in(publisher)
            peer.client.manual_ack_set(True)
            peer.subscribe("flow", 1)
            for number in range(3):
                publisher.publish("flow", str(number))
            for number in range(3):
                message = peer.next()
                assert message.payload == str(number).encode()
                with pytest.raises(Empty):
                    peer.messages.get(timeout=0.05)
                peer.client.ack(message.mid, message.qos)

    await play(tmp_path, paho.MQTTv5, scenario)
