"""How the device of a case acts: it connects until it has seen enough, shakes hands only, or stays and is cut off."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import trio

from devicesim.cloud.activator import activate
from devicesim.conformance.cases import SNI, Act, Link, Place, Role, Transport, server_name
from devicesim.conformance.matrix import PLAIN
from devicesim.conformance.stage import Cast, Stage
from devicesim.fleet.device import Clock, Device, Wire, attempt, drive
from devicesim.fleet.target import Target
from devicesim.net.failures import ConnectionFailed
from devicesim.net.mqtt import MQTTSettings, open_mqtt
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How patient a check is, and how much it does at once."""

    pause: tuple[float, float]
    """Seconds between two tries of a device: shortest and longest."""
    tries: int
    """Of a device that is to be accepted."""
    side_by_side: int
    """Cases that are connecting at once."""
    disconnect: float
    """Seconds in which a live connection must end once its certificate is not ACTIVE any more."""


QUICK = Pace(pause=(0.2, 0.3), tries=10, side_by_side=48, disconnect=10.0)
"""On an emulator that provisions within 0.1 s."""
AWS = Pace(pause=(3.0, 5.0), tries=6, side_by_side=32, disconnect=300.0)
"""aws-iot-behaviour.md §3: back off from 3 to 5 s; §10c: disconnected within minutes."""

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
    limiter: trio.CapacityLimiter
    clock: Clock
    draw: Callable[[], float]
    """Numbers in [0, 1)."""
    _wires: dict[tuple[Transport, bool], Wire] = field(default_factory=dict)

    async def prime(self, cast: Cast, role: Role) -> None:
        """One connection to an account, with its name: it makes the certificate pending there."""
        await self._drive(cast, Link(dials=role, sni=SNI.OWN), PLAIN, Played(), tries=1)

    async def act(self, cast: Cast, expected: Expectation, played: Played) -> None:
        """What the case's device does. Raises :class:`~devicesim.errors.TargetError` for a control plane's refusal."""
        case = cast.case
        if case.act is Act.HANDSHAKE:
            await self._shake_hands(cast, played)
        elif case.act is Act.LIVE:
            await self._live(cast, played)
        elif case.activated and expected.outcome is DeviceOutcome.PROVISIONED:
            # after the first try has been dropped, as an activator is told of it, and before the next
            await self._drive(cast, case.link, case.transport, played, tries=1)
            await self._activate(cast, expected.account)
            await self._drive(cast, case.link, case.transport, played, tries=self.pace.tries)
        else:
            await self._drive(cast, case.link, case.transport, played, tries=self._tries(expected))

    def _tries(self, expected: Expectation) -> int:
        if expected.outcome is DeviceOutcome.PROVISIONED:
            return self.pace.tries
        return 2 if expected.outcome is DeviceOutcome.PENDING else 1

    def _device(self, cast: Cast, link: Link, transport: Transport) -> Device:
        place = self.places[link.dials]
        address = self.door(place.name, place.endpoint, transport.port)
        assert address is not None, f"{cast.case.name} was allowed without an address"
        return Device(
            number=0,
            identity=cast.identity,
            client_id=cast.name,
            address=address,
            server_name=server_name(link, self.places),
            verify_name=place.endpoint,
            expected_account=None,
        )

    async def _drive(self, cast: Cast, link: Link, transport: Transport, played: Played, *, tries: int) -> None:
        """Connect until accepted, at most so often; a try that no answer was had to is made again."""
        shortest, longest = self.pace.pause

        def delays() -> Iterator[float]:
            broken = 0
            while True:
                failure = played.attempts[-1].failure
                broken += failure is not None and failure.kind in _NO_REFUSAL
                if len(played.attempts) - min(broken, 2) >= tries:
                    return
                yield shortest + self.draw() * (longest - shortest)

        def record(made: Attempt) -> None:
            played.attempts.append(replace(made, number=len(played.attempts) + 1))

        device = self._device(cast, link, transport)
        wire = self._wire(transport, chain=link.chain)
        async with self.limiter:
            await drive(device, wire, trio.current_time(), delays(), self.clock, record)

    async def _activate(self, cast: Cast, account: str | None) -> None:
        """What a JITR Lambda does, once the account has the certificate; nothing if it does not come to have it."""
        actor = next(each for each in self.stage.actors.values() if each.name == account)
        for _ in range(self.pace.tries):
            if await self.stage.is_pending(actor, cast):
                await activate(actor.client, cast.certificate_id, actor.policy_name)
                return
            await trio.sleep(self.pace.pause[0])

    async def _shake_hands(self, cast: Cast, played: Played) -> None:
        """TLS, held for as long as another device waits between two tries, and no CONNECT."""
        link, transport = cast.case.link, cast.case.transport
        device, wire = self._device(cast, link, transport), self._wire(transport, chain=link.chain)
        trace = Trace(start=trio.current_time())
        failure: Failure | None = None
        async with self.limiter:
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
                await trio.sleep(self.pace.pause[0])
                await connection.aclose()
        self._record(device, trace, failure, played)

    async def _live(self, cast: Cast, played: Played) -> None:
        """Connect, set the certificate INACTIVE, wait for the end."""
        link, transport = cast.case.link, cast.case.transport
        device, wire = self._device(cast, link, transport), self._wire(transport, chain=link.chain)
        client = self.stage.actors[link.dials].client
        trace = Trace(start=trio.current_time())
        failure: Failure | None = None
        async with self.limiter:
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
                ) as connection:
                    changed = trio.current_time()
                    await client.call("update_certificate", certificateId=cast.certificate_id, newStatus="INACTIVE")
                    with trio.move_on_after(self.pace.disconnect):
                        await connection.wait_closed()
            except ConnectionFailed as exc:
                failure = exc.failure
                if trace.connack_code == 0:
                    played.disconnected_after = trio.current_time() - changed
        self._record(device, trace, failure, played)

    def _record(self, device: Device, trace: Trace, failure: Failure | None, played: Played) -> None:
        end = trio.current_time()
        played.attempts.append(attempt(device, 1, trace, failure, due=trace.start, end=end, clock=self.clock))

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
