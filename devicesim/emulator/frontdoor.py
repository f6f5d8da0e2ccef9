"""CONNECT: what becomes of it, and what the client sees of that (aws-iot-behaviour.md §2, §4.2, §10). Pure.

:mod:`~devicesim.emulator.admission` decides, :mod:`~devicesim.emulator.guard` says whether a quota or a fault is
against it, and here it is done: admitted into the broker, registered just in time, refused.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from devicesim.emulator import admission, limits
from devicesim.emulator.admission import Decision, Presented, Verdict
from devicesim.emulator.broker import Broker, will_allowed
from devicesim.emulator.clock import Clock
from devicesim.emulator.connection import DisconnectReason, End, Phase
from devicesim.emulator.deviceconnection import DeviceConnection
from devicesim.emulator.faults import FaultKind
from devicesim.emulator.guard import Guard
from devicesim.emulator.justintime import JustInTime
from devicesim.emulator.liveconnections import LiveConnections, caught_up
from devicesim.emulator.packets import NO_PROPERTIES, ConnAck, Connect, Packet, Properties, ProtocolVersion, ReasonCode
from devicesim.emulator.recorder import Recorder
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.settings import Settings
from devicesim.emulator.timers import Timers
from devicesim.emulator.traffic import Traffic
from devicesim.emulator.variables import LAST_WILL, NOTHING_ASKED, PERSISTENT_CONNECT, Asked


def account_named(registry: Registry, presented: Presented, settings: Settings) -> Partition | None:
    """Whose server name was sent, whatever becomes of the connection."""
    name = admission.read_server_name(presented.server_name, settings)
    if name.kind is not admission.ServerNameKind.NAME:
        return None
    return admission.resolve(registry, name.text, presented.door)


def policy_asked(packet: Connect, settings: Settings) -> Asked:
    """What of a CONNECT policies may depend on (developer guide, "MQTT persistent sessions": iot:ConnectAttributes).

    A session is persistent when it is not ended with its connection: clean session 0 in 3.1.1 (D), a Session Expiry
    Interval other than 0 in MQTT 5; and one that is to be resumed, where the settings say so.
    """
    resumed = packet.version is ProtocolVersion.V311 or settings.resumed_session_is_persistent_v5
    persistent = bool(packet.properties.session_expiry_interval) or (resumed and not packet.clean_start)
    if not persistent and packet.will is None:
        return NOTHING_ASKED
    attributes = (PERSISTENT_CONNECT,) if persistent else ()
    if packet.will is None:
        return Asked(attributes=attributes)
    return Asked(attributes=(*attributes, LAST_WILL), last_will_topic=packet.will.topic)


class FrontDoor:
    """See the module. One for the emulator."""

    def __init__(
        self,
        registry: Registry,
        *,
        settings: Settings,
        clock: Clock,
        timers: Timers,
        recorder: Recorder,
        guard: Guard,
        just_in_time: JustInTime,
        live: LiveConnections,
        broker_of: Callable[[Partition], Broker],
        resume: Callable[[DeviceConnection, float], None],
        new_id: Callable[[], str],
    ) -> None:
        """``resume`` goes on with a connection whose CONNECT had to wait; ``new_id`` makes client ids and trace ids."""
        self._registry = registry
        self._settings = settings
        self._clock = clock
        self._timers = timers
        self._recorder = recorder
        self._guard = guard
        self._just_in_time = just_in_time
        self._live = live
        self._broker_of = broker_of
        self._resume = resume
        self._new_id = new_id
        self._traffic = Traffic(guard, settings=settings)
        self.decided: list[Callable[[Presented, str, Connect, Decision], None]] = []
        """Called with what was shown, the client id, the packet and the decision of every CONNECT: append."""

    def handle(self, connection: DeviceConnection, packet: Packet, now: float) -> None:
        """A packet of the client, the first of which is CONNECT."""
        if connection.broker is not None:
            if self._traffic.may_handle(connection, packet, now):
                connection.broker.handle(connection, packet, now)
        elif isinstance(packet, Connect):
            self.connect(connection, packet, now)

    def connect(self, connection: DeviceConnection, packet: Connect, now: float) -> None:
        """Decide on a CONNECT, now or later."""
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None
        presented = connection.presented
        client_id = packet.client_id
        if not client_id and (connection.is_v5 or self._settings.empty_client_id_v311 == "assign"):
            client_id = f"$GEN/{self._new_id()}"
        connection.client_id = client_id
        delay = None
        if self._guard.faults.has(FaultKind.DELAY_CONNACK):
            partition = account_named(self._registry, presented, self._settings)
            delay = self._guard.connection_fault(FaultKind.DELAY_CONNACK, now, connection, partition)
        if delay is not None and delay.time:
            connection.held = True
            connection.timer = self._timers.schedule(
                now + delay.time, partial(self._connect_later, connection, packet, client_id)
            )
            return
        self._decide(connection, packet, client_id, now)

    def _connect_later(self, connection: DeviceConnection, packet: Connect, client_id: str, now: float) -> None:
        connection.timer = None
        connection.held = False
        self._decide(connection, packet, client_id, now)
        self._resume(connection, now)

    def _decide(self, connection: DeviceConnection, packet: Connect, client_id: str, now: float) -> None:
        presented = connection.presented
        skew = None
        if self._guard.faults.has(FaultKind.CLOCK_SKEW):
            partition = account_named(self._registry, presented, self._settings)
            skew = self._guard.connection_fault(FaultKind.CLOCK_SKEW, now, connection, partition)
        wall = self._clock.wall() + (0.0 if skew is None else skew.time)
        asked = policy_asked(packet, self._settings)
        decision = admission.decide(
            self._registry, presented, client_id=client_id, settings=self._settings, now=wall, asked=asked
        )
        stale = None
        if decision.partition is not None:
            stale = self._guard.seen_as(now, presented, decision.partition, connection=connection, client_id=client_id)
        if stale is not None:
            decision = admission.decide(
                self._registry,
                presented,
                client_id=client_id,
                settings=self._settings,
                now=wall,
                asked=asked,
                seen_as=stale[0],
            )
        for listener in self.decided:
            listener(presented, client_id, packet, decision)
        connection.presented = replace(presented, leaf=None, chain=())  # the record has it; tens of thousands stay open
        connection.partition = decision.partition
        connection.decided = True
        if self._turned_away(connection, decision, client_id, now):
            return
        match decision.verdict:
            case Verdict.ADMITTED:
                self._admit(connection, packet, client_id, decision, now)
                if stale is not None:
                    self._timers.schedule(now + stale[1], partial(caught_up, connection))
            case Verdict.DENIED:
                self._recorder.decision(connection, decision)
                self._deny(connection, decision, now)
            case Verdict.REGISTERED:
                self._register(connection, presented, decision, now)
            case Verdict.PENDING if stale is None:
                self._recorder.decision(connection, decision)
                self._pending(connection, decision, now)
            case _:
                self._recorder.decision(connection, decision)
                tell = self._settings.refusal_v5 == "connack"
                self._refuse(connection, ReasonCode.NOT_AUTHORIZED, decision.detail, tell=tell)

    def _turned_away(self, connection: DeviceConnection, decision: Decision, client_id: str, now: float) -> bool:
        """Whether a fault or a quota is against a CONNECT whatever the decision on it: then it is refused."""

        def connected() -> int:
            assert decision.partition is not None
            broker = self._broker_of(decision.partition)
            session = broker.session_of(client_id)
            replaces = session is not None and session.connection is not None
            return broker.connected - 1 if replaces else broker.connected

        refusal = self._guard.turns_away(connection, decision, now, connected=connected)
        if refusal is not None:
            self._refuse(connection, refusal.code, refusal.detail, tell=refusal.tell, reason=refusal.reason)
        return refusal is not None

    def _admit(
        self, connection: DeviceConnection, packet: Connect, client_id: str, decision: Decision, now: float
    ) -> None:
        partition, certificate = decision.partition, decision.certificate
        assert partition is not None
        assert certificate is not None
        broker = self._broker_of(partition)
        problem = limits.connect_problem(packet, self._settings)
        if problem is None and connection.buffered and self._settings.packets_before_connack == "close":
            problem = (ReasonCode.PROTOCOL_ERROR, "the client sent more before it had seen CONNACK")
            self._refuse_connect(connection, decision, problem, tell=False)
            return
        if problem is not None:
            self._refuse_connect(connection, decision, problem, tell=True)
            return
        connection.permissions = admission.CertificatePermissions(
            registry=self._registry,
            partition=partition,
            certificate_id=certificate.certificate_id,
            client_id=client_id,
            source_ip=connection.presented.source_ip,
            asked=policy_asked(packet, self._settings),
        )
        if packet.will is not None and not will_allowed(connection.permissions, packet.will):
            detail = f"the will cannot be published: iot:Publish on {packet.will.topic!r} denied"
            decision = replace(decision, verdict=Verdict.DENIED, detail=detail, logged=False)
            self._recorder.decision(connection, decision)
            self._deny(connection, decision, now)
            return
        self._recorder.decision(connection, decision)
        connection.broker = broker
        self._traffic.admit(connection)
        self._live.add(connection)
        broker.connect(connection, packet, client_id, now)
        self._check_keep_alive(connection, now)

    def _refuse_connect(
        self, connection: DeviceConnection, decision: Decision, problem: tuple[ReasonCode, str], *, tell: bool
    ) -> None:
        """The device may connect, and its CONNECT cannot be accepted."""
        code, detail = problem
        self._recorder.decision(connection, replace(decision, verdict=Verdict.REFUSED, detail=detail, logged=False))
        self._refuse(connection, code, detail, tell=tell)

    def _deny(self, connection: DeviceConnection, decision: Decision, now: float) -> None:
        """The certificate is good, and its policies do not allow the connection."""
        assert decision.partition is not None
        self._broker_of(decision.partition).connect_failed(connection, now)
        self._refuse(connection, ReasonCode.NOT_AUTHORIZED, decision.detail, tell=True)

    def _refuse(
        self,
        connection: DeviceConnection,
        code: ReasonCode,
        detail: str,
        *,
        tell: bool,
        reason: DisconnectReason | None = None,
    ) -> None:
        """MQTT 3.1.1: closed without CONNACK (§4.2). MQTT 5: with CONNACK where AWS sends one."""
        if tell and connection.is_v5:
            text = None
            if code is ReasonCode.NOT_AUTHORIZED:  # text: S (§5, greengrass-nucleus #1754)
                trace = self._new_id()
                text = f"CONNACK:Client is not authenticated/authorized to send the message:{trace}"
            properties = NO_PROPERTIES if text is None else Properties(reason_string=text)
            connection.send(ConnAck(reason_code=code, properties=properties))
        if reason is None:
            unauthorized = code is ReasonCode.NOT_AUTHORIZED
            reason = DisconnectReason.AUTH_ERROR if unauthorized else DisconnectReason.CLIENT_ERROR
        connection.finish(End(reason=reason, detail=detail))

    def _check_keep_alive(self, connection: DeviceConnection, now: float) -> None:
        """Lazily: the timer is set again for as long as there was a packet since, so a packet costs nothing."""
        connection.timer = None
        due = connection.last_packet + connection.keep_alive_timeout
        if connection.phase is not Phase.LIVE:
            return
        if now < due:
            connection.timer = self._timers.schedule(due, partial(self._check_keep_alive, connection))
            return
        connection.fail(
            ReasonCode.KEEP_ALIVE_TIMEOUT,
            f"no packet for {connection.keep_alive_timeout:g} s",
            reason=DisconnectReason.MQTT_KEEP_ALIVE_TIMEOUT,
        )

    # --- just in time ---

    def _register(self, connection: DeviceConnection, presented: Presented, decision: Decision, now: float) -> None:
        """Steps 3 to 5 of §2: the record, the event, the close."""
        decision = self._just_in_time.register(presented, decision)
        self._recorder.decision(connection, decision)
        if decision.verdict is Verdict.REGISTERED:
            self._pending(connection, decision, now)
            return
        tell = self._settings.refusal_v5 == "connack"
        self._refuse(connection, ReasonCode.NOT_AUTHORIZED, decision.detail, tell=tell)

    def _pending(self, connection: DeviceConnection, decision: Decision, now: float) -> None:
        self._just_in_time.presented(connection, decision, now)
        tell = self._settings.refusal_v5 == "connack"
        self._refuse(connection, ReasonCode.NOT_AUTHORIZED, decision.detail, tell=tell)
