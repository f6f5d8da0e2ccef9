"""The data plane of every account and Region: joins admission, brokers, provisioning and history. Pure.

Bytes and time come in, decisions are made at once and in order, and what is to be written stands in the connections'
queues; :meth:`DataPlane.take_ready` says in which order they were filled. The gateway only moves bytes.

Two clocks: ``now`` is monotonic and decides deadlines; ``wall`` says what time it is, for records and validity.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from devicesim.emulator import admission, history
from devicesim.emulator.admission import Decision, Presented, Verdict
from devicesim.emulator.broker import Broker
from devicesim.emulator.clock import Clock
from devicesim.emulator.connection import Connection, DisconnectReason, End, Phase
from devicesim.emulator.history import History, Kind
from devicesim.emulator.justintime import JustInTime
from devicesim.emulator.packets import (
    NO_PROPERTIES,
    ConnAck,
    Connect,
    Properties,
    Publish,
    ReasonCode,
)
from devicesim.emulator.recorder import Recorder
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.session import Message
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import (
    CertificateChange,
    CertificateChangeKind,
    CertificateStatus,
)
from devicesim.emulator.timers import Timer, Timers

_NO_CHANGE_FELT = frozenset({CertificateChangeKind.REGISTERED, CertificateChangeKind.THINGS})
"""Changes that no live connection feels: what an attached thing means for policies counts from the next packet on."""


class DeviceConnection(Connection):
    """A connection with what is known of its device."""

    __slots__ = ("broker", "decided", "link", "partition", "presented", "timer")

    def __init__(self, presented: Presented, *, settings: Settings, plane: "DataPlane", now: float) -> None:
        super().__init__(settings=settings, watcher=plane, now=now)
        self.presented = presented
        """Without leaf and chain once CONNECT has been decided on."""
        self.partition: Partition | None = None
        self.broker: Broker | None = None
        """Of its account and Region, once admitted."""
        self.decided = False
        """Whether the history has a decision on its CONNECT."""
        self.timer: Timer | None = None
        """Until CONNECT its deadline, then the keep-alive."""
        self.link: object = None
        """The gateway's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much of everything one account and Region has in the data plane."""

    connections: int = 0
    sessions: int = 0
    subscriptions: int = 0
    retained: int = 0


class DataPlane:
    """See the module. One for the whole emulator."""

    def __init__(
        self,
        registry: Registry,
        *,
        settings: Settings,
        record: History,
        clock: Clock,
        uniform: Callable[[float, float], float],
        new_id: Callable[[], str],
    ) -> None:
        """``uniform(low, high)`` draws the JITP delay; ``new_id`` makes client ids and trace ids."""
        self.registry = registry
        self.settings = settings
        self.history = record
        self.timers = Timers()
        self.wake: Callable[[], None] = _nothing
        """Called when something waits that no method of the gateway's has caused."""
        self.clock = clock
        self._new_id = new_id
        self._recorder = Recorder(record, clock)
        self._brokers: dict[tuple[str, str], Broker] = {}
        self._live: dict[tuple[str, str, str], dict[DeviceConnection, None]] = {}
        """Admitted connections by account, Region and certificate id."""
        self._ready: dict[Connection, None] = {}
        self._ended: deque[Connection] = deque()
        self._just_in_time = JustInTime(
            registry,
            settings=settings,
            recorder=self._recorder,
            timers=self.timers,
            uniform=uniform,
            publish=self.publish,
        )
        self.published: list[Callable[[Partition, Message, float], None]] = []
        """Called in order with every message of an account, after its delivery, whoever published it: append."""
        self.reserved: list[Callable[[DeviceConnection, Publish, float], bool]] = []
        """Asked in order, until one answers true, what to do with a PUBLISH to a topic that begins with ``$`` and that
        policies allow; ``False`` says that it is not the callable's own. When none takes it, the client is
        disconnected. Append."""
        self.commit: Callable[[], None] = _nothing
        """Called before anything decided is told to anybody: makes it outlast the process, where that is wanted."""
        registry.on_certificate_changed.append(self._certificate_changed)

    # --- what the gateway calls ---

    def open(self, presented: Presented, now: float) -> DeviceConnection:
        """A TLS handshake is complete. Nothing is registered before CONNECT (§2, M)."""
        connection = DeviceConnection(presented, settings=self.settings, plane=self, now=now)

        deadline = now + self.settings.connect_timeout
        connection.timer = self.timers.schedule(deadline, partial(self._no_connect, connection))
        return connection

    def _no_connect(self, connection: DeviceConnection, _now: float) -> None:
        seconds = self.settings.connect_timeout
        detail = f"no CONNECT within {seconds:g} s of the handshake"
        connection.finish(End(reason=DisconnectReason.CLIENT_ERROR, detail=detail))

    def receive(self, connection: DeviceConnection, data: bytes, now: float) -> None:
        """Bytes of the client."""
        connection.feed(data)
        while (packet := connection.next_packet(now)) is not None:
            if connection.broker is not None:
                connection.broker.handle(connection, packet, now)
            elif isinstance(packet, Connect):
                self._connect(connection, packet, now)
            self._settle(now)
        self._settle(now)

    def lost(self, connection: DeviceConnection, detail: str, now: float) -> None:
        """The network connection is gone, or will not be used any more."""
        connection.finish(End(reason=DisconnectReason.CONNECTION_LOST, detail=detail, flush=False))
        self._settle(now)

    def fault(self, connection: DeviceConnection, detail: str, now: float) -> None:
        """The emulator itself failed on this connection."""
        self._recorder.note(connection.presented, kind=Kind.FAULT, verdict=history.FAILED, detail=detail)
        connection.finish(End(reason=DisconnectReason.SERVER_ERROR, detail=detail, flush=False))
        self._settle(now)

    def handshake_failed(self, presented: Presented, detail: str) -> None:
        """A connection ended before there was one; ``presented`` has what was seen until then."""
        self._recorder.note(presented, kind=Kind.HANDSHAKE, verdict=history.HANDSHAKE_FAILED, detail=detail)

    def tick(self, now: float) -> None:
        """Do what is due."""
        self.timers.run(now)
        self._settle(now)

    def take_ready(self) -> list[Connection]:
        """Connections with bytes to write or an end to act on, in the order in which that was decided."""
        ready = list(self._ready)
        self._ready.clear()
        return ready

    def publish(self, partition: Partition, message: Message, now: float) -> int:
        """Publish in the account's name or the service's own; answers to how many sessions it went."""
        receivers = self._broker(partition).publish(message, now)
        self.wake()
        return receivers

    def advance(self, seconds: float) -> None:
        """Put the clock forward. Live connections do not time out by it: the network's own time goes on as before."""
        self.clock.advance(seconds)
        for connections in self._live.values():
            for connection in connections:
                connection.last_packet += seconds
        self.wake()

    def load(self, partition: Partition) -> Load:
        broker = self._brokers.get((partition.account_id, partition.region))
        if broker is None:
            return Load()
        return Load(
            connections=broker.connected,
            sessions=broker.sessions,
            subscriptions=broker.subscriptions,
            retained=broker.retained,
        )

    @property
    def provisioning_runs(self) -> int:
        """JITP runs under way."""
        return self._just_in_time.runs

    # --- connections tell (connection.Watcher) ---

    def output_waits(self, connection: Connection) -> None:
        self._ready[connection] = None

    def ended(self, connection: Connection) -> None:
        self._ready[connection] = None
        self._ended.append(connection)

    def _settle(self, now: float) -> None:
        """Take ended connections out of their brokers; what that publishes may end others."""
        while self._ended:
            connection = self._ended.popleft()
            assert isinstance(connection, DeviceConnection)  # open() makes them all
            self._take_out(connection, now)

    def _take_out(self, connection: DeviceConnection, now: float) -> None:
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None
        end = connection.end
        assert end is not None
        if connection.broker is not None:
            self._forget_live(connection)
            connection.broker.detach(connection, now)
            self._recorder.note(
                connection.presented,
                kind=Kind.DISCONNECT,
                verdict=history.DISCONNECTED,
                partition=connection.partition,
                connection=connection,
                reason=end.reason.value,
                detail=end.detail,
            )
        elif not connection.decided:
            self._recorder.note(
                connection.presented,
                kind=Kind.CONNECTION,
                verdict=history.NO_CONNECT,
                partition=self._account_of(connection.presented),
                detail=end.detail,
            )

    def _account_of(self, presented: Presented) -> Partition | None:
        """Whose server name it is, for the history of connections that nothing was decided on."""
        name = admission.read_server_name(presented.server_name, self.settings)
        if name.kind is not admission.ServerNameKind.NAME:
            return None
        return admission.resolve(self.registry, name.text, presented.door)

    # --- CONNECT ---

    def _connect(self, connection: DeviceConnection, packet: Connect, now: float) -> None:
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None
        presented = connection.presented
        client_id = packet.client_id
        if not client_id and (connection.is_v5 or self.settings.empty_client_id_v311 == "assign"):
            client_id = f"$GEN/{self._new_id()}"
        connection.client_id = client_id
        decision = admission.decide(
            self.registry, presented, client_id=client_id, settings=self.settings, now=self.clock.wall()
        )
        connection.presented = replace(presented, leaf=None, chain=())  # the record has it; tens of thousands stay open
        connection.partition = decision.partition
        connection.decided = True
        match decision.verdict:
            case Verdict.ADMITTED:
                self._admit(connection, packet, client_id, decision, now)
            case Verdict.DENIED:
                self._recorder.decision(connection, decision)
                self._refuse(connection, ReasonCode.NOT_AUTHORIZED, decision.detail, tell=True)
            case Verdict.REGISTERED:
                self._register(connection, presented, decision, now)
            case Verdict.PENDING:
                self._recorder.decision(connection, decision)
                self._pending(connection, decision, now)
            case Verdict.REFUSED:
                self._recorder.decision(connection, decision)
                tell = self.settings.refusal_v5 == "connack"
                self._refuse(connection, ReasonCode.NOT_AUTHORIZED, decision.detail, tell=tell)

    def _admit(
        self, connection: DeviceConnection, packet: Connect, client_id: str, decision: Decision, now: float
    ) -> None:
        partition, certificate = decision.partition, decision.certificate
        assert partition is not None
        assert certificate is not None
        broker = self._broker(partition)
        problem = broker.connect_problem(connection, packet)
        if problem is None and connection.buffered and self.settings.packets_before_connack == "close":
            problem = (ReasonCode.PROTOCOL_ERROR, "the client sent more before it had seen CONNACK")
            self._refuse_connect(connection, decision, problem, tell=False)
            return
        if problem is not None:
            self._refuse_connect(connection, decision, problem, tell=True)
            return
        self._recorder.decision(connection, decision)
        connection.permissions = admission.CertificatePermissions(
            registry=self.registry,
            partition=partition,
            certificate_id=certificate.certificate_id,
            client_id=client_id,
            source_ip=connection.presented.source_ip,
        )
        connection.broker = broker
        key = (partition.account_id, partition.region, certificate.certificate_id)
        self._live.setdefault(key, {})[connection] = None
        broker.connect(connection, packet, client_id, now)
        self._check_keep_alive(connection, now)

    def _refuse_connect(
        self, connection: DeviceConnection, decision: Decision, problem: tuple[ReasonCode, str], *, tell: bool
    ) -> None:
        """The device may connect, and its CONNECT cannot be accepted."""
        code, detail = problem
        self._recorder.decision(connection, replace(decision, verdict=Verdict.REFUSED, detail=detail, logged=False))
        self._refuse(connection, code, detail, tell=tell)

    def _refuse(self, connection: DeviceConnection, code: ReasonCode, detail: str, *, tell: bool) -> None:
        """MQTT 3.1.1: closed without CONNACK (§4.2). MQTT 5: with CONNACK where AWS sends one."""
        if tell and connection.is_v5:
            text = None
            if code is ReasonCode.NOT_AUTHORIZED:  # text: S (§5, greengrass-nucleus #1754)
                trace = self._new_id()
                text = f"CONNACK:Client is not authenticated/authorized to send the message:{trace}"
            properties = NO_PROPERTIES if text is None else Properties(reason_string=text)
            connection.send(ConnAck(reason_code=code, properties=properties))
        reason = DisconnectReason.AUTH_ERROR if code is ReasonCode.NOT_AUTHORIZED else DisconnectReason.CLIENT_ERROR
        connection.finish(End(reason=reason, detail=detail))

    def _broker(self, partition: Partition) -> Broker:
        key = (partition.account_id, partition.region)
        broker = self._brokers.get(key)
        if broker is None:
            broker = self._brokers[key] = Broker(
                settings=self.settings,
                timers=self.timers,
                published=partial(self._tell_published, partition),
                reserved=self._handle_reserved,
            )
        return broker

    def _tell_published(self, partition: Partition, message: Message, now: float) -> None:
        for listener in self.published:
            listener(partition, message, now)

    def _handle_reserved(self, connection: Connection, packet: Publish, now: float) -> bool:
        assert isinstance(connection, DeviceConnection)  # open() makes them all
        return any(handler(connection, packet, now) for handler in self.reserved)

    def _check_keep_alive(self, connection: DeviceConnection, now: float) -> None:
        """Lazily: the timer is set again for as long as there was a packet since, so a packet costs nothing."""
        connection.timer = None
        due = connection.last_packet + connection.keep_alive_timeout
        if connection.phase is not Phase.LIVE:
            return
        if now < due:
            connection.timer = self.timers.schedule(due, partial(self._check_keep_alive, connection))
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
        tell = self.settings.refusal_v5 == "connack"
        self._refuse(connection, ReasonCode.NOT_AUTHORIZED, decision.detail, tell=tell)

    def _pending(self, connection: DeviceConnection, decision: Decision, now: float) -> None:
        self._just_in_time.presented(connection, decision, now)
        tell = self.settings.refusal_v5 == "connack"
        self._refuse(connection, ReasonCode.NOT_AUTHORIZED, decision.detail, tell=tell)

    # --- the registry tells ---

    def _certificate_changed(self, change: CertificateChange) -> None:
        """A certificate that is no longer ACTIVE, or may no longer connect, takes its connections with it (§1.4: AWS
        needs "a few minutes", we none)."""
        connections = self._live.get((change.account_id, change.region, change.certificate_id))
        if not connections or change.kind in _NO_CHANGE_FELT:
            return
        record = change.certificate
        for connection in tuple(connections):
            if record is None or record.status is not CertificateStatus.ACTIVE:
                detail = "the certificate was deleted" if record is None else f"the certificate became {record.status}"
            elif not connection.permissions.allows("iot:Connect", "client", connection.client_id):
                detail = "no policy allows iot:Connect any more"
            else:
                continue
            connection.fail(ReasonCode.NOT_AUTHORIZED, detail, reason=DisconnectReason.AUTH_ERROR)
        self.wake()

    def _forget_live(self, connection: DeviceConnection) -> None:
        partition, certificate_id = connection.partition, connection.presented.certificate_id
        assert partition is not None
        assert certificate_id is not None
        key = (partition.account_id, partition.region, certificate_id)
        connections = self._live[key]
        del connections[connection]
        if not connections:
            del self._live[key]


def _nothing() -> None:
    pass
