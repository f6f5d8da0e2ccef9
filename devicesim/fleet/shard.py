"""The devices that one process drives: minted ahead of their time, started on schedule, each to its end.

It knows neither accounts nor oracle nor record. What happens is told to a :class:`Sink`, which in a run of one process
writes the record and in a run of several sends it to the process that does.
"""

import contextlib
import functools
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Protocol

import trio
from cryptography import x509
from OpenSSL import crypto

from devicesim.errors import KeyMaterialError
from devicesim.fleet.arrival import schedule_of
from devicesim.fleet.device import Clock, Device, Wire, drive
from devicesim.fleet.draws import Draws
from devicesim.fleet.identities import Material, client_id, minter, topic
from devicesim.fleet.meter import Machine, Meter, processors
from devicesim.fleet.pacing import Backoff, Shard, Slot, slots
from devicesim.fleet.sources import source_of
from devicesim.fleet.spec import Fleet
from devicesim.fleet.telemetry import Telemetry
from devicesim.fleet.world import server_name
from devicesim.net.mqtt import MQTTSettings
from devicesim.net.tls import Deadlines, TLSContext, TLSSettings
from devicesim.outcome import Attempt
from devicesim.pki.identity import Identity
from devicesim.record.facts import Drop, GeneratorSample

STARTS_IN_A_ROW = 1000
"""Some 50 ms of them, for which nothing else has its turn."""
MINT_AHEAD_SECONDS = 1.0
"""How far before its start a device is minted."""
MINT_AHEAD_MOST = 20_000
"""Devices that wait for their start, at most; some 11 KB each."""
_in_thread = trio.to_thread.run_sync
_MAX_TEXT = 65_535
"""Bytes of a text in MQTT (5, 1.5.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where an account is dialled."""

    endpoint: str
    """Its data endpoint: the name to send, and to verify."""
    address: tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """All that a process needs to drive its share of a run."""

    fleet: Fleet
    material: Material
    doors: Mapping[str, Door]
    """By account name."""
    roots: tuple[x509.Certificate, ...]
    """What the devices trust."""
    run_id: str
    shard: Shard
    """Positions of the run's schedule, which counts the devices that are started."""
    only: frozenset[int] | None
    """Numbers of the devices that are started; ``None``: all."""
    hold: float
    """Seconds that a device stays connected."""
    under_way: int | None
    """Devices of this share at a time, at most; what happens at the limit is the arrival model's to say."""
    sources: tuple[str, ...] = ()
    """Local addresses to dial from, in turn; none: the system's choice."""
    process: str = "fleet"
    """The process's name in the record."""

    @property
    def total(self) -> int:
        """Devices of the whole run."""
        return self.fleet.size if self.only is None else len(self.only)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A device that was started."""

    number: int
    group: str
    member: int
    client_id: str
    certificate_id: str


class Sink(Protocol):
    """What a share tells, in the order in which it happens. No call waits."""

    def started(self, device: Started) -> None:
        """Called before anything else of this device."""

    def attempt(self, attempt: Attempt, *, live: bool) -> None:
        """A try is over; or, with ``live``, it is connected and goes on: the same try is told again. ``account`` is
        left out."""

    def finished(self, device: int, *, accepted: bool) -> None:
        """Nothing more comes of this device."""

    def dropped(self, drop: Drop) -> None:
        """A device was not started."""

    def failed(self, device: int, group: str, why: str) -> None:
        """A device cannot be minted, or its certificate names what MQTT cannot send: it is not started."""

    def sampled(self, sample: GeneratorSample) -> None:
        """What this process has used."""


@dataclass(slots=True)
class _Ready:
    """A device whose start is awaited."""

    due: float
    """Seconds after the run's beginning."""
    slot: Slot
    made: trio.Event | None = None
    """Set when a thread has made the identity; ``None``: none is asked to."""
    identity: Identity | None = None
    why: str = ""
    """Why there is none."""

    async def wait(self) -> None:
        """Until its identity is there, or is known not to be; no checkpoint where it is."""
        if self.made is not None and not self.made.is_set():
            await self.made.wait()


class ShardRun:
    """One share of a run: :meth:`arm`, then :meth:`run`."""

    def __init__(self, plan: ShardPlan, sink: Sink, clock: Clock, machine: Machine) -> None:
        """Raises :class:`~devicesim.errors.KeyMaterialError` where the identities cannot be had."""
        self._plan = plan
        self._sink = sink
        self._clock = clock
        self._meter = Meter(process=plan.process, machine=machine, wall=clock.wall, record=sink.sampled)
        self._wire = wire(plan)
        self._backoff = backoff(plan.fleet)
        endpoints = {account: door.endpoint for account, door in plan.doors.items()}
        self._server_names = {name: server_name(group, endpoints) for name, group in plan.fleet.file.groups.items()}
        self._mint = minter(plan.fleet, plan.material)
        self._derived = plan.fleet.file.devices.keys == "derived"
        self._threads = key_threads(plan)
        self._limiter = trio.CapacityLimiter(max(1, self._threads))
        self._to_thread, self._in_turn = trio.open_memory_channel[_Ready](inf)
        self._ahead: deque[_Ready] = deque()
        self._coming = schedule(plan)
        self._next = next(self._coming, None)
        self._open = plan.fleet.file.arrival.model == "open"
        self._places = None if self._open or plan.under_way is None else trio.Semaphore(plan.under_way)
        # of a closed model everything is due at once, but no more can start than there are places
        self._most = MINT_AHEAD_MOST if self._places is None else min(MINT_AHEAD_MOST, self._places.value)
        self._under_way = 0
        self._in_a_row = 0
        """Starts that were due already when their turn came."""
        # bound once, not for each device that waits with them
        self._told_over, self._told_live = self._over, self._live
        self._told_delays, self._told_ended = self._delays, self._ended

    async def arm(self) -> None:
        """Mint what is due in the first moment, so that a burst at the beginning is not late."""
        while self._next is not None and self._next[0] <= MINT_AHEAD_SECONDS and len(self._ahead) < self._most:
            self._mint_next()
            await trio.lowlevel.checkpoint()
        if self._threads:
            async with trio.open_nursery() as nursery:
                self._mint_in_threads(nursery)
                for ready in self._ahead:
                    await ready.wait()
                nursery.cancel_scope.cancel()

    async def run(self, first: float) -> None:
        """Start every device when it is due, whatever became of those before it, and see them all to their end.

        ``first`` is the beginning of the schedule, a reading of :func:`trio.current_time`.
        """
        async with trio.open_nursery() as helpers:
            helpers.start_soon(self._meter.run)
            self._mint_in_threads(helpers)
            async with trio.open_nursery() as devices:
                while (ready := await self._awaited(first)) is not None:
                    await self._start(ready, first, devices)
            helpers.cancel_scope.cancel()

    # --- the schedule, and minting in step with it ---

    def _mint_next(self) -> None:
        assert self._next is not None
        ready = _Ready(*self._next)
        if self._threads:
            ready.made = trio.Event()
            self._to_thread.send_nowait(ready)
        else:
            self._fill(ready)
        self._ahead.append(ready)
        self._next = next(self._coming, None)

    def _fill(self, ready: _Ready) -> None:
        """Runs in any thread."""
        try:
            identity = self._mint(ready.slot.group, ready.slot.member)
        except KeyMaterialError as exc:
            ready.why = str(exc)
            return
        with contextlib.suppress(crypto.Error):  # what OpenSSL does not read the device's own try will tell
            identity.prepare()
        ready.identity = identity

    def _mint_in_threads(self, nursery: trio.Nursery) -> None:
        for _ in range(self._threads):
            nursery.start_soon(self._mint_in_thread)

    async def _mint_in_thread(self) -> None:
        """Mint what stands in turn, until cancelled."""
        async for ready in self._in_turn:
            # a key takes up to seconds: a run that is cancelled does not wait for it, and the thread ends by itself
            await _in_thread(self._fill, ready, abandon_on_cancel=True, limiter=self._limiter)
            assert ready.made is not None
            ready.made.set()

    async def _awaited(self, first: float) -> _Ready | None:
        """The next device, when it is due. What is left of the time until then goes into minting those behind it."""
        if self._next is None and not self._ahead:
            return None
        if not self._ahead:
            self._mint_next()
        due = first + self._ahead[0].due
        while self._next is not None and self._next[0] <= self._ahead[0].due + MINT_AHEAD_SECONDS:
            # threads are to have their work also while starts are late; asking them takes no time
            if len(self._ahead) >= self._most or (not self._threads and trio.current_time() >= due):
                break
            self._mint_next()
            await trio.lowlevel.checkpoint()
        # what is due together starts together, and not each behind the handshakes of those before it
        self._in_a_row = self._in_a_row + 1 if trio.current_time() >= due else 0
        if self._in_a_row % STARTS_IN_A_ROW == 0:
            await trio.sleep_until(due)
        ready = self._ahead.popleft()
        await ready.wait()
        return ready

    # --- devices ---

    async def _start(self, ready: _Ready, first: float, devices: trio.Nursery) -> None:
        plan, slot, due = self._plan, ready.slot, first + ready.due
        if self._places is not None:
            await self._places.acquire()
        if not self._open:
            due = trio.current_time()  # the model is closed: a device is due when there is a place for it
        elif plan.under_way is not None and self._under_way >= plan.under_way:
            self._sink.dropped(Drop(device=slot.device, group=slot.group, due=self._clock.wall(due)))
            return
        try:
            device, started = self._device(ready)
        except KeyMaterialError as exc:
            self._sink.failed(slot.device, slot.group, str(exc))
            self._give_back()
            return
        self._meter.starts += 1
        self._sink.started(started)
        self._under_way += 1
        delays = self._delays(device.number, 0)
        told = (self._told_over, self._told_live, self._told_delays, self._told_ended)
        devices.start_soon(drive, device, self._wire, due, delays, self._clock, *told, name="device")

    def _give_back(self) -> None:
        if self._places is not None:
            self._places.release()

    def _delays(self, device: int, tries: int) -> Iterator[float]:
        """After so many tries. Seeded by run and device, so as not to hang on the order in which devices fail."""
        return self._backoff.delays(Draws(f"{self._plan.run_id}/{device}/{tries}"))

    def _ended(self, device: int, accepted: bool) -> None:
        self._under_way -= 1
        self._give_back()
        self._sink.finished(device, accepted=accepted)

    def _over(self, attempt: Attempt) -> None:
        self._sink.attempt(attempt, live=False)

    def _live(self, attempt: Attempt) -> None:
        self._sink.attempt(attempt, live=True)

    def _device(self, ready: _Ready) -> tuple[Device, Started]:
        """Raises :class:`~devicesim.errors.KeyMaterialError` for one that cannot be."""
        plan, slot, identity = self._plan, ready.slot, ready.identity
        if identity is None:
            raise KeyMaterialError(ready.why)
        group = plan.fleet.file.groups[slot.group]
        door = plan.doors[group.account]
        name = client_id(plan.fleet, slot.group, slot.member, identity)
        if len(name.encode()) > _MAX_TEXT:
            raise KeyMaterialError(f"client id {name[:40]!r}... has more than {_MAX_TEXT} bytes")
        device = Device(
            number=slot.device,
            identity=identity,
            client_id=name,
            address=door.address,
            server_name=self._server_names[slot.group],
            verify_name=group.verify_name or door.endpoint,
            expected_account=None,
            telemetry=self._telemetry(slot, name),
            source=source_of(plan.sources, slot),
            mint=functools.partial(self._mint, slot.group, slot.member) if self._derived else None,
        )
        started = Started(
            number=slot.device,
            group=slot.group,
            member=slot.member,
            client_id=name,
            certificate_id=identity.certificate_id,
        )
        return device, started

    def _telemetry(self, slot: Slot, name: str) -> Telemetry | None:
        telemetry = self._plan.fleet.file.groups[slot.group].telemetry
        where = topic(self._plan.fleet, slot.group, slot.member, name)
        if telemetry is None or where is None or not self._plan.hold:
            return None
        # the fleet file's part of it is checked; a client id out of a certificate is not known before it is there
        if not where or len(where.encode()) > _MAX_TEXT or any(sign in where for sign in "+#\0"):
            raise KeyMaterialError(f"topic {where[:80]!r} cannot be published to")
        share = Draws(f"{self._plan.run_id}/{slot.device}/telemetry")()
        return Telemetry(
            topic=where,
            every=telemetry.every,
            offset=share * telemetry.every,
            qos=telemetry.qos,
            size=telemetry.bytes,
        )


def schedule(plan: ShardPlan) -> Iterator[tuple[float, Slot]]:
    """The devices of a share in their order, each with the seconds from the run's beginning until it is due."""
    due = schedule_of(plan.fleet.file.arrival, plan.total)
    counts = {name: group.count for name, group in plan.fleet.file.groups.items()}
    own: Iterator[tuple[int, Slot]] = iter(())
    if plan.only is None:
        own = zip(plan.shard.positions(), slots(counts, plan.shard), strict=True)
    elif plan.only:
        only, positions = plan.only, plan.shard.positions()
        # no further than they reach: to count all of a large fleet takes seconds, for which the event loop would stand
        span = Shard(first=min(only), step=1, count=max(only) - min(only) + 1)
        chosen = enumerate(slot for slot in slots(counts, span) if slot.device in only)
        own = ((position, slot) for position, slot in chosen if position in positions)
    return ((due.start(position), slot) for position, slot in own)


def key_threads(plan: ShardPlan) -> int:
    """Threads that make a share's identities; 0: they are made in the event loop.

    An RSA key is searched for, a twentieth of a second or a whole one, for which the loop would stand; and OpenSSL lets
    other threads run meanwhile. An EC key is made before a thread has begun. One core is left to the loop.
    """
    devices = plan.fleet.file.devices
    if devices.keys != "random" or devices.key_type.curve is not None:
        return 0
    return max(1, processors() // plan.shard.step - 1)


def wire(plan: ShardPlan) -> Wire:
    """How the fleet file says that devices connect."""
    file = plan.fleet.file
    tls = TLSSettings(
        roots=plan.roots,
        minimum_version=file.tls.minimum_version,
        maximum_version=file.tls.maximum_version,
        group=file.tls.group,
        ciphers=file.tls.ciphers,
        alpn=file.tls.alpn,
        send_chain=file.tls.send_chain,
        chain=plan.material.authority.chain,
    )
    limits = file.deadlines
    return Wire(
        context=TLSContext(tls),
        mqtt=MQTTSettings(version=file.mqtt.version, keep_alive=file.mqtt.keep_alive),
        deadlines=Deadlines(tcp=limits.tcp, tls=limits.tls, connack=limits.connack),
        hold=plan.hold,
        stable_after=file.retry.stable_after,
    )


def backoff(fleet: Fleet) -> Backoff:
    """How the fleet file says that devices try again."""
    retry = fleet.file.retry
    return Backoff(
        first_delay=retry.first_delay,
        factor=retry.backoff,
        jitter=retry.jitter,
        max_delay=retry.max_delay,
        attempts=retry.attempts,
    )
