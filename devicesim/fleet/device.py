"""One device, from its certificate to CONNACK 0 or to its last try. Thin: what to do is decided elsewhere."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import trio

from devicesim.net.failures import ConnectionFailed
from devicesim.net.mqtt import MQTTSettings, open_mqtt
from devicesim.net.tls import Deadlines, TLSContext
from devicesim.outcome import Attempt, Failure, Trace
from devicesim.pki.identity import Identity


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
    """Seconds for which an accepted connection is kept and watched; one that is lost meanwhile is a failed try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device that is about to start."""

    number: int
    """In the run, from 0."""
    identity: Identity
    client_id: str
    address: tuple[str, int]
    """What is dialled."""
    server_name: str | None
    """What is sent as SNI."""
    verify_name: str
    """What the server's certificate must be for."""
    expected_account: str | None


async def drive(
    device: Device,
    wire: Wire,
    due: float,
    delays: Iterator[float],
    clock: Clock,
    record: Callable[[Attempt], None],
) -> bool:
    """Connect, and after each refusal wait and connect again; whether it was accepted in the end.

    ``due`` is the intended start, a reading of :func:`trio.current_time`. Every try is recorded, and none raises: a
    device's failure is data.
    """
    number = 0
    while True:
        number += 1
        failure, trace, end = await _connect(device, wire)
        record(attempt(device, number, trace, failure, due=due, end=end, clock=clock))
        if failure is None:
            return True
        delay = next(delays, None)
        if delay is None:
            return False
        due = end + delay
        await trio.sleep_until(due)


def attempt(
    device: Device, number: int, trace: Trace, failure: Failure | None, *, due: float, end: float, clock: Clock
) -> Attempt:
    """The record of one try; ``due``, its intended start, and ``end`` are readings of :func:`trio.current_time`."""
    return Attempt(
        device=device.number,
        number=number,
        account=device.expected_account,
        sni=device.server_name,
        intended_start=clock.wall(due),
        start=clock.wall(trace.start),
        end=clock.wall(end),
        reached=trace.reached,
        failure=failure,
        tls_version=trace.tls_version,
        cipher=trace.cipher,
        alert=trace.alert,
        connack_code=trace.connack_code,
    )


async def _connect(device: Device, wire: Wire) -> tuple[Failure | None, Trace, float]:
    """One try: what was seen, and when it was over."""
    trace = Trace(start=trio.current_time())
    failure: Failure | None = None
    try:
        async with open_mqtt(
            wire.context,
            device.address,
            identity=device.identity,
            server_name=device.server_name,
            verify_name=device.verify_name,
            client_id=device.client_id,
            settings=wire.mqtt,
            deadlines=wire.deadlines,
            trace=trace,
        ) as client:
            if wire.hold > 0:
                with trio.move_on_after(wire.hold):
                    await client.wait_closed()
    except ConnectionFailed as exc:
        failure = exc.failure
    return failure, trace, trio.current_time()
