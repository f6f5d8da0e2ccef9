"""The data plane under random use and random bytes.

Invariants: a message never reaches another account or Region; nothing the wire says raises; a client that has gone
leaves nothing behind; and what is kept for a client stays within its bounds.
"""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.emulator.encode import encode
from devicesim.emulator.packets import (
    Connect,
    Disconnect,
    Packet,
    PingReq,
    Properties,
    ProtocolVersion,
    PubAck,
    Publish,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from devicesim.emulator.settings import Settings
from tests.emulator_support import V5, V311, A, B, Client, World, will

PLACES = [(A, "us-east-1"), (B, "us-east-1"), (A, "eu-west-1")]
TOPICS = ["t", "t/u", "v"]
FILTERS = [*TOPICS, "#", "+", "t/#", "+/u", "$share/g/t", "$share/g/#", "$share/h/+"]
QOS = st.integers(0, 1)


def new_world() -> World:
    world = World(Settings(max_inflight=2, max_stored_messages=3, max_shared_queue=3, max_outbound_bytes=2000))
    for account_id, region in PLACES:
        world.ready_account(0, 1, account_id=account_id, region=region)
    return world


@dataclass
class Actor:
    """One device that says where it is in everything it publishes."""

    place: int
    client: Client
    got: list[bytes] = field(default_factory=list)

    @property
    def mark(self) -> bytes:
        return b"from-%d" % self.place

    def drain(self) -> None:
        for packet in self.client.received():
            if isinstance(packet, Publish):
                self.got.append(packet.payload)


def connect(world: World, place: int, index: int, client_id: str, version: ProtocolVersion, clean: bool) -> Actor:
    account_id, region = PLACES[place]
    client = world.client(index, world.account(account_id, region).endpoint, version=version, region=region)
    actor = Actor(place, client)
    properties = Properties()
    if version is V5:
        properties = Properties(session_expiry_interval=None if clean else 60, topic_alias_maximum=2 if index else None)
    client.send(
        Connect(
            client_id=client_id,
            version=version,
            clean_start=clean,
            will=will("t", actor.mark),
            properties=properties,
        )
    )
    return actor


connects = st.tuples(
    st.just("connect"),
    st.integers(0, len(PLACES) - 1),
    st.integers(0, 1),
    st.sampled_from(["c1", "c2"]),
    st.sampled_from([V311, V5]),
    st.booleans(),
)
acts = st.tuples(
    st.sampled_from(["subscribe", "unsubscribe", "publish", "retain", "ack", "drain", "disconnect", "lose", "wait"]),
    st.integers(0, 20),
    st.sampled_from(TOPICS),
    st.sampled_from(FILTERS),
    QOS,
)


@settings(max_examples=120, deadline=None)
@given(st.lists(connects | acts, max_size=40))
def test_messages_stay_in_their_account_and_region(steps: list[tuple[object, ...]]) -> None:
    world = new_world()
    actors: list[Actor] = []
    for step in steps:
        if step[0] == "connect":
            _, place, index, client_id, version, clean = step
            actors.append(connect(world, place, index, client_id, version, clean))  # type: ignore[arg-type]
            continue
        if not actors:
            continue
        verb, number, topic, topic_filter, qos = step
        assert isinstance(number, int)
        actor = actors[number % len(actors)]
        act(world, actor, str(verb), str(topic), str(topic_filter), qos)  # type: ignore[arg-type]

    for actor in actors:
        actor.drain()
        assert set(actor.got) <= {actor.mark}
    for actor in actors:
        actor.client.lose()
    world.advance(8 * 24 * 3600)
    for account_id, region in PLACES:
        load = world.plane.load(world.account(account_id, region))
        assert (load.connections, load.sessions, load.subscriptions) == (0, 0, 0)
    assert len(world.plane.timers) == 0


def act(world: World, actor: Actor, verb: str, topic: str, topic_filter: str, qos: int) -> None:
    packet: Packet
    match verb:
        case "subscribe":
            packet = Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter=topic_filter, qos=qos),))
        case "unsubscribe":
            packet = Unsubscribe(packet_id=1, topic_filters=(topic_filter,))
        case "publish" | "retain":
            packet = Publish(
                topic=topic, payload=actor.mark, qos=qos, packet_id=1 if qos else None, retain=verb == "retain"
            )
        case "ack":
            packet = PubAck(packet_id=1)
        case "disconnect":
            packet = Disconnect()
        case "drain":
            actor.drain()
            return
        case "lose":
            actor.client.lose()
            return
        case _:
            world.advance(20)
            return
    if not actor.client.closed:
        actor.client.send(packet)


@settings(max_examples=250, deadline=None)
@given(version=st.sampled_from([V311, V5]), admitted=st.booleans(), noise=st.lists(st.binary(max_size=60), max_size=6))
def test_noise_ends_the_connection_or_is_waited_for_and_never_raises(
    version: ProtocolVersion, admitted: bool, noise: list[bytes]
) -> None:
    world = new_world()
    client = world.client(0, world.account().endpoint, version=version)
    if admitted:
        client.connected()
    for chunk in noise:
        client.send_bytes(chunk)
    client.lose()

    assert world.plane.load(world.account()).connections == 0
    assert len(world.plane.timers) == 0
    assert client.connection.buffered <= world.settings.max_packet_bytes


@settings(max_examples=250, deadline=None)
@given(version=st.sampled_from([V311, V5]), data=st.data())
def test_mutated_sessions_never_raise_and_never_disturb_the_neighbour(
    version: ProtocolVersion, data: st.DataObject
) -> None:
    world = new_world()
    neighbour = world.client(1, world.account().endpoint).connected("n").subscribe("#")
    stream = bytearray(
        b"".join(
            encode(packet, version)
            for packet in (
                Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="t/#", qos=1),)),
                Publish(topic="t/u", payload=b"x" * 20, qos=1, packet_id=2),
                Unsubscribe(packet_id=3, topic_filters=("t/#",)),
                PingReq(),
                Disconnect(),
            )
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    client = world.client(0, world.account().endpoint, version=version).connected("c")
    client.send_bytes(bytes(stream))
    neighbour.received()
    neighbour.send(PingReq())

    assert not neighbour.closed
    assert neighbour.received() != []
