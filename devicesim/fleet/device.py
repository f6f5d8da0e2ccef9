"""One device, from its certificate to CONNACK 0 and the end of its stay, or to its last try. Thin: what to do is
decided elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import islice
from math import inf

import trio

from devicesim.errors import KeyMaterialError
from devicesim.fleet.telemetry import Telemetry
from devicesim.net.failures import ConnectionFailed
from devicesim.net.mqtt import MQTTClient, MQTTSettings, open_mqtt
from devicesim.net.tls import Deadlines, TLSContext
from devicesim.outcome import Attempt, Failure, FailureKind, Stage, Trace
from devicesim.pki.identity import Identity

RECORD_SECONDS = 10.0
"""How often the record is told of a connection that publishes: what ``kill -9`` may lose of its count of messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """One monotonic clock for durations, placed on the wall clock once: no step of the wall clock bends a latency."""

    epoch: float
    """Seconds since the Unix epoch at ``zero``."""
    zero: float
    """The reading of :func:`trio.current_time` at that moment."""

    def wall(self, now: float) -> float:
        """Seconds since the Unix epoch of a reading of :func:`trio.current_time`."""
        return self.epoch + now - self.zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """How devices connect: shared by all of a fleet."""

    context: TLSContext
    mqtt: MQTTSettings
    deadlines: Deadlines
    hold: float = 0.0
    """Seconds that a device stays connected from its first CONNACK 0; a connection that is lost meanwhile is a failed
    try."""
    stable_after: float = 0.0
    """Seconds that an accepted connection lasts before the device has all its tries again; the first needs none."""


@dataclass(slots=True, kw_only=True)
class Device:
    """One device."""

    number: int
    """In the run, from 0."""
    identity: Identity | None
    """``None`` while it stays, if it can be had again: 3.4 KiB."""
    client_id: str
    address: tuple[str, int]
    """What is dialled."""
    server_name: str | None
    """What is sent as SNI."""
    verify_name: str
    """What the server's certificate must be for."""
    expected_account: str | None
    telemetry: Telemetry | None = None
    """What it publishes while it stays."""
    source: str | None = None
    """The local address that it dials from; ``None``: the system's choice."""
    mint: Callable[[], Identity] | None = None
    """Makes the identity again; ``None``: it is to be kept."""


Record = Callable[[Attempt], None]


@dataclass(slots=True)
class _Try:
    """One try as it goes."""

    number: int
    due: float
    trace: Trace
    published: int | None = None
    acknowledged: int | None = None


async def drive(
    device: Device,
    wire: Wire,
    due: float,
    delays: Iterator[float],
    clock: Clock,
    record: Record,
    live: Record | None = None,
    anew: Callable[[int, int], Iterator[float]] | None = None,
    ended: Callable[[int, bool], None] | None = None,
) -> bool:
    """Connect, and after each refusal wait and connect again; whether it was accepted in the end, which ``ended`` is
    told too.

    ``due`` is the intended start, a reading of :func:`trio.current_time`. Every try is recorded when it is over, and
    none raises: a device's failure is data. Of a device that stays, ``live`` is told at CONNACK, now and then, and when
    it is cancelled. It begins its delays ``anew``, which is given the device's and the try's number, if at all: where
    it loses the first connection that was accepted, and one that was stable; otherwise it goes on in them, so that
    one that is put out whenever it comes gives up. No try is made that would begin when its stay is over.
    """
    # one coroutine where three would read better: a device that stays keeps each of their frames
    number, since, stay = 0, 0, _Stay(device, wire, clock, live)
    while True:
        number += 1
        this, failure = _Try(number, due, Trace(start=trio.current_time())), None
        try:
            async with dial(device, wire, this.trace, attended=True) as client:
                if wire.hold > 0:
                    if anew is not None:
                        delays = iter(())
                    await stay.live(client, this)
        except ConnectionFailed as exc:
            failure = exc.failure
        except KeyMaterialError as exc:
            # OpenSSL says only now that it does not use such a certificate or key: too weak, say, as imported may be
            failure = Failure(kind=FailureKind.TLS_PROTOCOL_ERROR, stage=Stage.TLS, detail=str(exc))
        end = trio.current_time()
        record(_recorded(device, this, failure, end, clock))
        if anew is not None and this.trace.connack_code == 0:
            if since == 0 or end - this.trace.start - this.trace.reached[Stage.CONNACK] >= wire.stable_after:
                since = number
            delays = islice(anew(device.number, since), number - since, None)
        delay = None if failure is None else next(delays, None)
        if delay is None or stay.is_over(end + delay):
            break
        due = end + delay
        await trio.sleep_until(due)
    if ended is not None:
        ended(device.number, failure is None)
    return failure is None


def attempt(
    device: Device, number: int, trace: Trace, failure: Failure | None, *, due: float, end: float, clock: Clock
) -> Attempt:
    """The record of one try; ``due``, its intended start, and ``end`` are readings of :func:`trio.current_time`."""
    return _recorded(device, _Try(number, due, trace), failure, end, clock)


def _recorded(device: Device, this: _Try, failure: Failure | None, end: float, clock: Clock) -> Attempt:
    trace = this.trace
    return Attempt(
        device=device.number,
        number=this.number,
        account=device.expected_account,
        sni=device.server_name,
        intended_start=clock.wall(this.due),
        start=clock.wall(trace.start),
        end=clock.wall(end),
        reached=trace.reached,
        failure=failure,
        tls_version=trace.tls_version,
        cipher=trace.cipher,
        alert=trace.alert,
        connack_code=trace.connack_code,
        published=this.published,
        acknowledged=this.acknowledged,
    )


def dial(
    device: Device, wire: Wire, trace: Trace, *, attended: bool = False
) -> AbstractAsyncContextManager[MQTTClient]:
    """A connection of the device's, as :func:`~devicesim.net.mqtt.open_mqtt` gives one."""
    if device.identity is None:
        assert device.mint is not None
        device.identity = device.mint()
    return open_mqtt(
        wire.context,
        device.address,
        identity=device.identity,
        server_name=device.server_name,
        verify_name=device.verify_name,
        client_id=device.client_id,
        settings=wire.mqtt,
        deadlines=wire.deadlines,
        trace=trace,
        source=device.source,
        attended=attended,
    )


class _Stay:
    """The time that an accepted device is connected, over however many connections."""

    __slots__ = ("_clock", "_device", "_live", "_until", "_wire")

    def __init__(self, device: Device, wire: Wire, clock: Clock, live: Record | None) -> None:
        self._device = device
        self._wire = wire
        self._clock = clock
        self._live = live
        self._until: float | None = None

    def is_over(self, now: float) -> bool:
        """Whether it was accepted once, and nothing is left of its stay."""
        return self._until is not None and now >= self._until

    async def live(self, client: MQTTClient, this: _Try) -> None:
        """Publish, and stay until the stay is over. Raises :class:`ConnectionFailed` when the connection ends before
        that."""
        telemetry, now = self._device.telemetry, trio.current_time()
        if telemetry is not None:
            this.published, this.acknowledged = 0, 0 if telemetry.qos else None
        self._tell(this)
        if self._device.mint is not None:
            self._device.identity = None
        if self._until is None:
            self._until = now + self._wire.hold
        due, told = inf if telemetry is None else now + telemetry.offset, now
        try:
            while True:
                await client.wait_closed(until=min(due, self._until))
                now = trio.current_time()
                if now >= self._until or telemetry is None:
                    return
                this.published = number = (this.published or 0) + 1
                try:
                    # the payload has no name, under which it would be kept until the next
                    await client.publish(
                        telemetry.topic,
                        telemetry.payload(number, self._clock.wall(now)),
                        qos=1 if telemetry.qos else 0,
                    )
                except ConnectionFailed:
                    if client.failure is not None:
                        raise
                    # refused, or not answered in time: published and not acknowledged, and the device goes on
                else:
                    if this.acknowledged is not None:
                        this.acknowledged += 1
                now = trio.current_time()
                if now - told >= RECORD_SECONDS:
                    self._tell(this)
                    told = now
                due = telemetry.next_due(due)
        except trio.Cancelled:
            self._tell(this)
            raise

    def _tell(self, this: _Try) -> None:
        if self._live is not None:
            self._live(_recorded(self._device, this, None, trio.current_time(), self._clock))
