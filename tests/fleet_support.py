"""What the tests of the fleet's devices share: a fleet, a share of a run, a sink that remembers, an MQTT client that
does as it is told."""

import json
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import trio

from devicesim.fleet.device import Clock
from devicesim.fleet.identities import Material
from devicesim.fleet.meter import Machine
from devicesim.fleet.pacing import Shard
from devicesim.fleet.shard import Door, ShardPlan, Started
from devicesim.fleet.spec import Fleet, parse_fleet
from devicesim.fleet.world import World
from devicesim.net.failures import ConnectionFailed
from devicesim.outcome import Attempt, Failure, FailureKind, Stage, Trace
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.profile import KeyType
from devicesim.record.facts import Drop, GeneratorSample

EPOCH = 1_760_000_000.0
"""Of the wall clock, when trio's clock is at 0."""

FLEET = """
version = 1
name = "walk"

[accounts.a]
id = "111111111111"
region = "eu-west-1"
ca_mode = "DEFAULT"
provisioning = "JITP"

[accounts.b]
id = "222222222222"
region = "eu-west-1"
ca_mode = "SNI_ONLY"
provisioning = "JITP"

[groups.first]
count = 6
account = "a"

[groups.second]
count = 3
account = "b"
sni = "none"

[retry]
first_delay = [2, 2]
jitter = 0
attempts = 3
"""


def plain_robots(count: int) -> str:
    """A fleet file of one group and one account, provisioned by JITP."""
    return f"""
version = 1
name = "robots"
[accounts.a]
id = "111111111111"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
[groups.robots]
count = {count}
account = "a"
"""


def fleet_of(*more: str, text: str = FLEET) -> Fleet:
    """:data:`FLEET` with further lines."""
    return parse_fleet("\n".join((text, *more)), Path("fleet.toml"))


@cache
def authority() -> Authority:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return new_shared_authority("Test Device CA", KeyType.EC_P256, now=now, validity=timedelta(days=365))


def material() -> Material:
    return Material(authority=authority(), secret=b"s" * 32)


def endpoints(fleet: Fleet) -> dict[str, str]:
    return {name: f"{name}-ats.iot.{account.region}.localhost" for name, account in fleet.file.accounts.items()}


def world_of(fleet: Fleet) -> World:
    return World(fleet, endpoints(fleet))


def plan_of(fleet: Fleet, **changes: Any) -> ShardPlan:
    """The whole run as one share."""
    arrival, only = fleet.file.arrival, changes.get("only")
    total = fleet.size if only is None else len(only)
    values: dict[str, Any] = {
        "fleet": fleet,
        "material": material(),
        "doors": {name: Door(endpoint=each, address=("127.0.0.1", 1)) for name, each in endpoints(fleet).items()},
        "roots": (),
        "run_id": "run",
        "shard": Shard(first=0, step=1, count=total),
        "only": None,
        "hold": fleet.file.session.hold,
        "under_way": arrival.concurrency if arrival.model == "closed" else arrival.max_under_way,
        **changes,
    }
    return ShardPlan(**values)


def clock_now() -> Clock:
    return Clock(epoch=EPOCH, zero=0.0)


def machine() -> Machine:
    """One that uses half a second of CPU in each second, and a million bytes."""
    return Machine(cpu=lambda: trio.current_time() / 2, rss=lambda: 1_000_000)


@dataclass
class Told:
    """A :class:`~devicesim.fleet.shard.Sink` that remembers."""

    events: list[tuple[Any, ...]] = field(default_factory=list)
    """What was told, in its order: the word, then the device's number and what else there is."""
    devices: list[Started] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    """Those that are over."""
    lives: list[Attempt] = field(default_factory=list)
    """As told while they went on."""
    drops: list[Drop] = field(default_factory=list)
    samples: list[GeneratorSample] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)

    def started(self, device: Started) -> None:
        self.events.append(("started", device.number))
        self.devices.append(device)

    def attempt(self, attempt: Attempt, *, live: bool) -> None:
        self.events.append(("live" if live else "attempt", attempt.device, attempt.number))
        (self.lives if live else self.attempts).append(attempt)

    def finished(self, device: int, *, accepted: bool) -> None:
        self.events.append(("finished", device, accepted))

    def dropped(self, drop: Drop) -> None:
        self.events.append(("dropped", drop.device))
        self.drops.append(drop)

    def failed(self, device: int, group: str, why: str) -> None:
        self.events.append(("failed", device, group))
        self.failures[device] = why

    def sampled(self, sample: GeneratorSample) -> None:
        self.samples.append(sample)

    def of(self, word: str) -> list[int]:
        """The devices of which this was told."""
        return [event[1] for event in self.events if event[0] == word]

    def story(self, device: int) -> list[str]:
        return [event[0] for event in self.events if event[1] == device]


def refused(kind: FailureKind = FailureKind.CLOSED_BEFORE_CONNACK, stage: Stage = Stage.CONNACK) -> Failure:
    return Failure(kind=kind, stage=stage)


LOST = Failure(kind=FailureKind.CLOSED_AFTER_CONNACK, stage=Stage.SESSION)
UNANSWERED = Failure(kind=FailureKind.TIMEOUT, stage=Stage.SESSION)


@dataclass
class Session:
    """A connection that is accepted."""

    lost_after: float | None = None
    """Seconds from CONNACK until the server ends it."""
    answers: Sequence[float | Failure] = ()
    """To the messages in turn: seconds until the acknowledgement, or why there is none; then at once."""


class FakeClient:
    """As much of :class:`~devicesim.net.mqtt.MQTTClient` as a device asks for."""

    def __init__(self, session: Session) -> None:
        self.failure: Failure | None = None
        self.messages: list[tuple[float, str, dict[str, Any]]] = []
        """When each was published, its topic, its payload as read, and QoS."""
        self._answers: Iterator[float | Failure] = iter(session.answers)
        self._lost = trio.Event()
        self._lost_at = None if session.lost_after is None else trio.current_time() + session.lost_after

    async def watch(self) -> None:
        if self._lost_at is not None:
            await trio.sleep_until(self._lost_at)
            self.failure = LOST
            self._lost.set()

    async def wait_closed(self, *, until: float = math.inf) -> None:
        with trio.move_on_at(until):
            await self._lost.wait()
            raise ConnectionFailed(LOST)

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0) -> None:
        if self.failure is not None:
            raise ConnectionFailed(self.failure)
        read = {**json.loads(payload), "size": len(payload), "qos": qos}
        self.messages.append((trio.current_time(), topic, read))
        answer = next(self._answers, 0.0)
        with trio.move_on_after(answer if isinstance(answer, float) else 0.0):
            await self.wait_closed()
        if isinstance(answer, Failure):
            raise ConnectionFailed(answer)


@dataclass
class FakeNet:
    """Takes the place of :func:`~devicesim.net.mqtt.open_mqtt`: each device's tries go as its script says."""

    script: Callable[[str], Sequence[Failure | Session]]
    """By client id. After its end: accepted, and kept."""
    seconds: float = 0.5
    """From the beginning of a try to its CONNACK, or its failure."""
    clients: list[FakeClient] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    left: dict[str, Iterator[Failure | Session]] = field(default_factory=dict)

    @asynccontextmanager
    async def __call__(self, context: object, address: object, **call: Any) -> AsyncIterator[FakeClient]:
        del context
        self.calls.append({"address": address, **call})
        name: str = call["client_id"]
        trace: Trace = call["trace"]
        script = self.left.setdefault(name, iter(self.script(name)))
        await trio.sleep(self.seconds)
        now = next(script, Session())
        if isinstance(now, Failure):
            if now.kind is FailureKind.CONNACK_REFUSED:
                trace.connack_code = 5
            raise ConnectionFailed(now)
        trace.reach(Stage.CONNACK, trio.current_time())
        trace.connack_code = 0
        client = FakeClient(now)
        self.clients.append(client)
        failed: ConnectionFailed | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.watch)
            try:
                yield client
            except ConnectionFailed as exc:  # not through the nursery, which would wrap it
                failed = exc
            nursery.cancel_scope.cancel()
        if failed is not None:
            raise failed
