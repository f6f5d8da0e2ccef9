"""How the device of a case acts: it connects until it has seen enough, shakes hands only, or stays and is cut off."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import trio

from devicesim.cloud.activator import activate
from devicesim.cloud.turns import Turns
from devicesim.conformance.cases import SNI, Act, Link, Place, RecordStatus, Role, Transport, server_name
from devicesim.conformance.matrix import PLAIN
from devicesim.conformance.stage import Actor, Cast, Stage
from devicesim.fleet.device import Clock, Device, Wire, attempt, dial, drive
from devicesim.fleet.pacing import Backoff
from devicesim.fleet.target import Target
from devicesim.net.failures import ConnectionFailed
from devicesim.net.mqtt import MQTTSettings
from devicesim.net.tls import Deadlines, TLSContext, TLSSettings, open_tls
from devicesim.outcome import Attempt, DeviceOutcome, Failure, FailureKind, Trace
from devicesim.rules import Expectation

ALPN = "x-amzn-mqtt-ca"
"""MQTT with a client certificate on port 443 (aws-iot-behaviour.md §4.3)."""
_NO_REFUSAL = frozenset(
    {
        FailureKind.NAME_NOT_RESOLVED,
        FailureKind.TCP_REFUSED,
        FailureKind.TCP_UNREACHABLE,
        FailureKind.LOCAL_RESOURCES,
        FailureKind.TIMEOUT,
    }
)
"""A try that saw these says nothing of the account's rules, and is made again."""
_MOST_BROKEN = 2
"""Such tries of a device that are not counted."""
DEACTIVATED_TO: Mapping[Act, str] = {Act.LIVE: "INACTIVE", Act.LIVE_REVOKED: "REVOKED"}
"""What the certificate of a live connection becomes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How patient a check is, and how much it does at once."""

    backoff: Backoff
    """Between the tries of a device that is to be accepted."""
    settle: float
    """Seconds until devices feel what was changed in an account."""
    disconnect: float
    """Seconds in which a live connection must end once its certificate is not ACTIVE any more."""
    told: float
    """Seconds in which an event must come after the connection that it tells of."""
    side_by_side: int
    """Connections that are being made at once."""
    devices_per_second: float | None = None
    """Devices that begin to connect, of all accounts together; ``None``: no limit."""
    calls_per_second: float | None = None
    """The most of each operation to an account; ``None``: as many as it takes."""


QUICK = Pace(
    backoff=Backoff(first_delay=(0.2, 0.3), factor=1.1, jitter=0.2, max_delay=2.0, attempts=10),
    settle=0.0,
    disconnect=10.0,
    told=5.0,
    side_by_side=48,
)
"""On an emulator of ours, without quotas, that provisions within 0.1 s."""
AWS = Pace(
    backoff=Backoff(first_delay=(3.0, 5.0), factor=1.5, jitter=0.2, max_delay=60.0, attempts=14),
    settle=5.0,
    disconnect=600.0,
    told=30.0,
    side_by_side=32,
    devices_per_second=5.0,
    calls_per_second=5.0,
)
"""aws-iot-behaviour.md §3: back off from 3 to 5 s; §10c: disconnected within minutes. A policy can take 6 to 8 minutes
to be in force (developer guide, "AWS IoT Core policies"). An account may provision 10 devices and make 10 of most calls
a second (§6): half of that is left to whoever else works in it."""

Door = Callable[[str, str, int], tuple[str, int] | None]
"""From an account's name, its endpoint and a port (8883, 443) to what is dialled; ``None``: there is none."""


@dataclass(slots=True, kw_only=True)
class Played:
    """What a case that runs has seen so far."""

    attempts: list[Attempt] = field(default_factory=list)
    disconnected_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """Acts the cases of one world out."""

    stage: Stage
    target: Target
    places: Mapping[Role, Place]
    door: Door
    pace: Pace
    throttled: bool
    """The accounts have quotas: a registration may be turned away, which looks like any refusal."""
    limiter: trio.CapacityLimiter
    turns: Turns
    clock: Clock
    draw: Callable[[], float]
    """Numbers in [0, 1)."""
    _wires: dict[tuple[Transport, bool], Wire] = field(default_factory=dict)

    async def prime(self, cast: Cast, role: Role) -> None:
        """Connections to an account, with its name, that make the record which the case wants there."""
        link, played = Link(dials=role, sni=SNI.OWN), Played()
        await self.turns.take()
        if cast.case.state.records[role].status is RecordStatus.VISITED:
            await self._drive(cast, link, PLAIN, played, tries=self.pace.backoff.attempts)
        else:
            await self._drive_to_pending(cast, link, PLAIN, played, self.places[role].name, tries=1)

    async def act(self, cast: Cast, expected: Expectation, played: Played) -> None:
        """What the case's device does. Raises :class:`~devicesim.errors.TargetError` for a control plane's refusal."""
        case, link, transport = cast.case, cast.case.link, cast.case.transport
        await self.turns.take()
        if case.act is Act.HANDSHAKE:
            await self._shake_hands(cast, played)
        elif case.act in DEACTIVATED_TO:
            await self._live(cast, played)
        elif expected.outcome is DeviceOutcome.PENDING:
            # twice: it stays pending, and is dropped each time
            await self._drive_to_pending(cast, link, transport, played, expected.account, tries=2)
        elif expected.outcome is DeviceOutcome.PROVISIONED:
            if case.activated:
                # after the first try has been dropped, and before the next: as a JITR Lambda, which is told of it
                await self._drive(cast, link, transport, played, tries=1)
                if await self._is_pending(cast, link, transport, played, expected.account):
                    actor = self._actor(expected.account)
                    await activate(actor.client, cast.certificate_id, actor.policy_name)
            await self._drive(cast, link, transport, played, tries=self.pace.backoff.attempts)
        else:
            await self._drive(cast, link, transport, played, tries=1)

    # --- connections ---

    async def _drive(self, cast: Cast, link: Link, transport: Transport, played: Played, *, tries: int) -> None:
        """Connect until accepted, with what was tried before at most so often; a try that no answer was had to is made
        again."""
        device, wire = self._device(cast, link, transport), self._wire(transport, chain=link.chain)
        delays = replace(self.pace.backoff, attempts=tries + _MOST_BROKEN).delays(self.draw)
        broken = 0
        while True:
            if await self._try(device, wire, played):
                return
            failure = played.attempts[-1].failure
            broken += failure is not None and failure.kind in _NO_REFUSAL
            if len(played.attempts) - min(broken, _MOST_BROKEN) >= tries:
                return
            await trio.sleep(next(delays))

    async def _drive_to_pending(
        self, cast: Cast, link: Link, transport: Transport, played: Played, account: str | None, *, tries: int
    ) -> None:
        """Connect so often, and where registrations are throttled until the account has the certificate pending."""
        await self._drive(cast, link, transport, played, tries=tries)
        if self.throttled:
            await self._is_pending(cast, link, transport, played, account)

    async def _is_pending(
        self, cast: Cast, link: Link, transport: Transport, played: Played, account: str | None
    ) -> bool:
        """Whether the account comes to have the certificate pending; where registrations are throttled it is connected
        again until it does."""
        actor = self._actor(account)
        for delay in self.pace.backoff.delays(self.draw):
            if await self.stage.is_pending(actor, cast):
                return True
            await trio.sleep(delay)
            if self.throttled:
                await self._drive(cast, link, transport, played, tries=len(played.attempts) + 1)
        return False

    async def _try(self, device: Device, wire: Wire, played: Played) -> bool:
        """One connection; whether it is accepted."""

        def record(made: Attempt) -> None:
            played.attempts.append(replace(made, number=len(played.attempts) + 1))

        async with self.limiter:
            return await drive(device, wire, trio.current_time(), iter(()), self.clock, record)

    async def _shake_hands(self, cast: Cast, played: Played) -> None:
        """TLS, held for as long as another device waits between two tries, and no CONNECT."""
        link, transport = cast.case.link, cast.case.transport
        device, wire = self._device(cast, link, transport), self._wire(transport, chain=link.chain)
        failure: Failure | None = None
        async with self.limiter:
            trace = Trace(start=trio.current_time())
            try:
                connection = await open_tls(
                    wire.context,
                    device.address,
                    identity=device.identity,
                    server_name=device.server_name,
                    verify_name=device.verify_name,
                    deadlines=wire.deadlines,
                    trace=trace,
                )
            except ConnectionFailed as exc:
                failure = exc.failure
            else:
                await trio.sleep(self.pace.backoff.first_delay[0])
                await connection.aclose()
        self._record(device, trace, failure, played)

    async def _live(self, cast: Cast, played: Played) -> None:
        """Connect until accepted, stay a while, deactivate the certificate, wait for the end."""
        link, transport = cast.case.link, cast.case.transport
        device, wire = self._device(cast, link, transport), self._wire(transport, chain=link.chain)
        for delay in (*self.pace.backoff.delays(self.draw), None):
            trace = Trace(start=trio.current_time())
            failure: Failure | None = None
            changed: float | None = None
            try:
                async with dial(device, wire, trace) as connection:
                    with trio.move_on_after(self.pace.backoff.first_delay[0]):
                        await connection.wait_closed()
                    changed = trio.current_time()
                    await self.stage.deactivate(cast, link.dials, DEACTIVATED_TO[cast.case.act])
                    with trio.move_on_after(self.pace.disconnect):
                        await connection.wait_closed()
            except ConnectionFailed as exc:
                failure = exc.failure
            if changed is not None and failure is not None:
                played.disconnected_after = trio.current_time() - changed
            self._record(device, trace, failure, played)
            if trace.connack_code == 0 or delay is None:
                return
            await trio.sleep(delay)

    def _record(self, device: Device, trace: Trace, failure: Failure | None, played: Played) -> None:
        number, end = len(played.attempts) + 1, trio.current_time()
        played.attempts.append(attempt(device, number, trace, failure, due=trace.start, end=end, clock=self.clock))

    # --- who and how ---

    def _actor(self, account: str | None) -> Actor:
        return next(each for each in self.stage.actors.values() if each.name == account)

    def _device(self, cast: Cast, link: Link, transport: Transport) -> Device:
        place = self.places[link.dials]
        address = self.door(place.name, place.endpoint, transport.port)
        assert address is not None, f"{cast.case.name} was allowed without an address"
        return Device(
            number=0,
            identity=cast.identity,
            client_id=f"{cast.name}-other" if cast.case.barred else cast.name,
            address=address,
            server_name=server_name(link, self.places),
            verify_name=place.endpoint,
            expected_account=None,
        )

    def _wire(self, transport: Transport, *, chain: bool) -> Wire:
        """One TLS context for each way of speaking."""
        key = transport, chain
        if key not in self._wires:
            tls = TLSSettings(
                roots=self.target.own_roots,
                minimum_version=transport.tls,
                maximum_version=transport.tls,
                alpn=(ALPN,) if transport.port == 443 else (),
                send_chain=chain,
                chain=self.stage.authority.chain,
            )
            self._wires[key] = Wire(
                context=TLSContext(tls), mqtt=MQTTSettings(version=transport.mqtt), deadlines=Deadlines()
            )
        return self._wires[key]
