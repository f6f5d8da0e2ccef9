"""QoS 1 through lost connections, shut windows and groups of shared subscribers: at least once, and seldom twice."""

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.emulator.packets import Properties, ProtocolVersion, PubAck, Publish, Subscribe, Subscription
from devicesim.emulator.settings import Settings
from tests.emulator_support import V5, V311, Client, World

MEMBERS = 3


@dataclass
class Member:
    """A subscriber with a persistent session, that acknowledges when it is told to."""

    world: World
    index: int
    version: ProtocolVersion
    client: Client | None = None
    got: list[bytes] = field(default_factory=list)
    """Acknowledged."""
    unacknowledged: list[Publish] = field(default_factory=list)

    def connect(self, topic_filter: str) -> None:
        if self.client is not None:
            return
        properties = Properties()
        if self.version is V5:
            properties = Properties(session_expiry_interval=3600, receive_maximum=3)
        client = self.world.client(self.index, self.world.account().endpoint, version=self.version)
        packets = client.connect(f"m{self.index}", clean_start=False, keep_alive=1200, properties=properties)
        self.client = client
        client.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter=topic_filter, qos=1),)))
        self.unacknowledged += [each for each in packets if isinstance(each, Publish)]
        self.take()

    def take(self) -> None:
        if self.client is not None:
            self.unacknowledged += [each for each in self.client.received() if isinstance(each, Publish)]

    def acknowledge(self) -> None:
        """Everything that has come, and what comes because of that."""
        self.take()
        while self.client is not None and self.unacknowledged:
            packet = self.unacknowledged.pop(0)
            assert packet.packet_id is not None
            self.got.append(packet.payload)
            self.client.send(PubAck(packet_id=packet.packet_id))
            self.take()

    def lose(self) -> int:
        """How many messages may come again to somebody."""
        if self.client is None:
            return 0
        self.take()
        self.client.lose()
        self.client = None
        again = len(self.unacknowledged)
        self.got += [each.payload for each in self.unacknowledged]  # it has seen them all the same
        self.unacknowledged.clear()
        return again


acts = st.lists(
    st.tuples(st.sampled_from(["publish", "publish", "lose", "connect", "acknowledge", "wait"]), st.integers(0, 2)),
    max_size=40,
)


def play(
    steps: list[tuple[str, int]],
    versions: list[ProtocolVersion],
    topic_filter: str,
    *,
    retry: float | None = None,
) -> tuple[list[Member], int, int]:
    """The members at the end, how many messages were published, and how many may have come twice."""
    world = World(Settings(qos1_retry_seconds=retry))
    world.ready_account(*range(MEMBERS + 1))
    members = [Member(world, index, version) for index, version in enumerate(versions)]
    for member in members:
        member.connect(topic_filter)
    publisher = world.client(MEMBERS, world.account().endpoint).connected("p", keep_alive=1200)
    published = again = 0
    for verb, number in steps:
        member = members[number]
        if verb == "publish":
            publisher.send(Publish(topic="t", payload=b"%d" % published, qos=1, packet_id=1))
            published += 1
        elif verb == "lose":
            again += member.lose()
        elif verb == "connect":
            member.connect(topic_filter)
        elif verb == "acknowledge":
            member.acknowledge()
        else:
            world.advance((0.4, 5.0, 40.0)[number])
    for member in members:
        member.connect(topic_filter)
    for _ in range(12):
        for member in members:
            member.acknowledge()
        world.advance(1.0)
    return members, published, again


@settings(max_examples=150, deadline=None)
@given(acts, st.lists(st.sampled_from([V311, V5]), min_size=MEMBERS, max_size=MEMBERS))
def test_each_subscriber_gets_every_message(steps: list[tuple[str, int]], versions: list[ProtocolVersion]) -> None:
    members, published, _ = play(steps, versions, "t", retry=30.0)

    for member in members:
        assert set(member.got) == {b"%d" % number for number in range(published)}


@settings(max_examples=150, deadline=None)
@given(acts, st.lists(st.sampled_from([V311, V5]), min_size=MEMBERS, max_size=MEMBERS))
def test_a_group_gets_every_message_and_twice_only_what_was_not_acknowledged(
    steps: list[tuple[str, int]], versions: list[ProtocolVersion]
) -> None:
    members, published, again = play(steps, versions, "$share/g/t")
    seen = Counter(payload for member in members for payload in member.got)

    assert set(seen) == {b"%d" % number for number in range(published)}
    assert seen.total() <= published + again
