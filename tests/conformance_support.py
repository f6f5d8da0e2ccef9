"""Conformance cases that run twice: in a :class:`World`, where the test is the clock, and over loopback sockets.

A case is a generator that says what clients do and is answered what they saw, so that the same lines drive both:

    @case("MQTT-3.12.4-1")
    def pingreq_is_answered(version):
        client = yield from connected(version)
        yield Send(client, PingReq())
        assert (yield Receive(client)) == PingResp()
"""

from collections.abc import Callable, Generator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import trio

from devicesim.emulator.packets import (
    ConnAck,
    Connect,
    Packet,
    PingReq,
    PingResp,
    ProtocolVersion,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
)
from devicesim.emulator.settings import Settings
from tests.emulator_support import Client, World, device
from tests.gateway_support import TLSClient, open_client, open_gateway, until

DEVICES = 4
"""Devices of a case; the fifth client is the first device again."""


@dataclass(frozen=True)
class Open:
    """A client whose handshake is complete; answered with its number."""

    version: ProtocolVersion


@dataclass(frozen=True)
class Send:
    client: int
    what: Packet | bytes


@dataclass(frozen=True)
class Receive:
    """The next packet; ``None`` when the server has closed."""

    client: int


@dataclass(frozen=True)
class Lose:
    """The client's network goes, without a word."""

    client: int


@dataclass(frozen=True)
class Wait:
    """Time passes: for cases that are marked with ``waits``."""

    seconds: float


Action = Open | Send | Receive | Lose | Wait
Steps = Generator[Action, object, None]
Body = Callable[[ProtocolVersion], Steps]


@dataclass(frozen=True)
class Case:
    clauses: str
    body: Body
    waits: bool = False
    settings: Settings = field(default_factory=Settings)

    @property
    def name(self) -> str:
        return f"{self.clauses} {self.body.__name__}"


class Cases(list[Case]):
    """Collects the cases of one version by decoration."""

    def __call__(self, *clauses: str, waits: bool = False, settings: Settings | None = None) -> Callable[[Body], Body]:
        def add(body: Body) -> Body:
            self.append(Case(" ".join(clauses), body, waits, settings or Settings()))
            return body

        return add

    def everywhere(self) -> pytest.MarkDecorator:
        return pytest.mark.parametrize("case", [pytest.param(each, id=each.name) for each in self])

    def over_sockets(self) -> pytest.MarkDecorator:
        return pytest.mark.parametrize("case", [pytest.param(each, id=each.name) for each in self if not each.waits])


def run_in_world(case: Case, version: ProtocolVersion) -> None:
    world = World(case.settings)
    world.ready_account(*range(DEVICES))
    clients: list[Client] = []
    seen: dict[int, list[Packet]] = {}

    def do(action: Action) -> object:
        match action:
            case Open(version=spoken):
                clients.append(world.client(len(clients) % DEVICES, world.account().endpoint, version=spoken))
                return len(clients) - 1
            case Send(client=number, what=bytes() as data):
                clients[number].send_bytes(data)
            case Send(client=number, what=packet):
                assert not isinstance(packet, bytes)
                clients[number].send(packet)
            case Receive(client=number):
                queue = seen.setdefault(number, [])
                queue += clients[number].received()
                if queue:
                    return queue.pop(0)
                assert clients[number].closed, "nothing came, and the connection is open"
                return None
            case Lose(client=number):
                clients[number].lose()
            case Wait(seconds=seconds):
                world.advance(seconds)
        return None

    steps = case.body(version)
    answer: object = None
    try:
        while True:
            answer = do(steps.send(answer))
    except StopIteration:
        pass


async def run_over_sockets(case: Case, version: ProtocolVersion) -> None:
    world = World(case.settings)
    account = world.ready_account(*range(DEVICES))
    clients: list[TLSClient] = []
    async with open_gateway(world) as running, AsyncExitStack() as stack:

        async def do(action: Action) -> object:
            match action:
                case Open(version=spoken):
                    opened = open_client(running.port, device(len(clients) % DEVICES), account.endpoint, version=spoken)
                    clients.append(await stack.enter_async_context(opened))
                    return len(clients) - 1
                case Send(client=number, what=bytes() as data):
                    await clients[number].send_bytes(data)
                case Send(client=number, what=packet):
                    assert not isinstance(packet, bytes)
                    await clients[number].send(packet)
                case Receive(client=number):
                    with trio.fail_after(5):
                        return await clients[number].receive()
                case Lose(client=number):
                    before = world.plane.load(account).connections
                    clients[number].sock.close()
                    await until(lambda: world.plane.load(account).connections < before)
                case Wait():
                    raise AssertionError("a case that waits must be marked so")
            return None

        steps = case.body(version)
        answer: object = None
        try:
            while True:
                answer = await do(steps.send(answer))
        except StopIteration:
            pass


# --- what cases say often ---


def connected(version: ProtocolVersion, client_id: str = "c", **fields: object) -> Generator[Action, object, int]:
    """A client that has been let in."""
    client, _ = yield from connect(version, client_id, **fields)
    return client


def connect(
    version: ProtocolVersion, client_id: str = "c", **fields: object
) -> Generator[Action, object, tuple[int, ConnAck]]:
    """A client that has been let in, and its CONNACK."""
    client = yield Open(version)
    assert isinstance(client, int)
    yield Send(client, Connect(client_id=client_id, version=version, **fields))  # type: ignore[arg-type]
    answer = yield Receive(client)
    assert isinstance(answer, ConnAck), answer
    assert answer.reason_code == 0
    return client, answer


def subscribed(client: int, *filters: str, qos: int = 0, **options: object) -> Generator[Action, object, None]:
    """The client's subscriptions have been granted as asked."""
    subscriptions = tuple(Subscription(topic_filter=each, qos=qos, **options) for each in filters)  # type: ignore[arg-type]
    yield Send(client, Subscribe(packet_id=9, subscriptions=subscriptions))
    answer = yield Receive(client)
    assert answer == SubAck(packet_id=9, reason_codes=(qos,) * len(filters))


def received(client: int) -> Generator[Action, object, Publish]:
    """The next packet, which is a PUBLISH."""
    packet = yield Receive(client)
    assert isinstance(packet, Publish), packet
    return packet


def several(client: int, count: int) -> Generator[Action, object, list[Publish]]:
    """The next packets, all of them PUBLISH."""
    seen: list[Publish] = []
    while len(seen) < count:
        packet = yield from received(client)
        seen.append(packet)
    return seen


def silent(*clients: int) -> Generator[Action, object, None]:
    """Nothing has come that was not received, and the connection lives."""
    for client in clients:
        yield Send(client, PingReq())
        assert (yield Receive(client)) == PingResp()


def closed(client: int) -> Generator[Action, object, None]:
    packet = yield Receive(client)
    assert packet is None, packet


def refused(version: ProtocolVersion, first: Packet | bytes) -> Generator[Action, object, None]:
    """Closed without a packet, whatever the first bytes were."""
    client = yield Open(version)
    assert isinstance(client, int)
    yield Send(client, first)
    yield from closed(client)
