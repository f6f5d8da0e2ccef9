"""The data plane of every account and Region: joins admission, brokers, provisioning and history. Pure.

Bytes and time come in, decisions are made at once and in order, and what is to be written stands in the connections'
queues; :meth:`DataPlane.take_ready` says in which order they were filled. The gateway only moves bytes.

Two clocks: ``now`` is monotonic and decides deadlines; ``wall`` says what time it is, for records and validity.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from devicesim.emulator import history
from devicesim.emulator.admission import ALPN_MQTT, Presented
from devicesim.emulator.broker import Broker
from devicesim.emulator.clock import Clock
from devicesim.emulator.connection import Connection, DisconnectReason, End, Phase
from devicesim.emulator.deviceconnection import DeviceConnection
from devicesim.emulator.faults import SERVER_CERTIFICATE_FAULTS, Fault, FaultBoard, FaultKind
from devicesim.emulator.frontdoor import FrontDoor, account_named
from devicesim.emulator.guard import Guard
from devicesim.emulator.history import History, Kind
from devicesim.emulator.httprefusal import HTTPRefusal
from devicesim.emulator.justintime import JustInTime
from devicesim.emulator.lifecycle import Lifecycle, Peer
from devicesim.emulator.liveconnections import LiveConnections
from devicesim.emulator.packets import (
    Publish,
    ReasonCode,
)
from devicesim.emulator.quotas import QuotaMeter
from devicesim.emulator.recorder import Recorder
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.retained import RetainedMessages
from devicesim.emulator.session import Message, Session
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import (
    CertificateChange,
    ThingPrincipalType,
)
from devicesim.emulator.timers import Timers


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much of everything one account and Region has in the data plane."""

    connections: int = 0
    sessions: int = 0
    subscriptions: int = 0
    retained: int = 0
    taken: Mapping[int, int] = field(default_factory=dict)
    """Messages of clients, by QoS."""


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
        quotas: QuotaMeter,
        faults: FaultBoard,
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
        self._uniform = uniform
        self._recorder = Recorder(record, clock)
        self.quotas = quotas
        self.faults = faults
        self.guard = Guard(settings=settings, quotas=quotas, faults=faults, recorder=self._recorder, clock=clock)
        self._opened = 0
        self._brokers: dict[tuple[str, str], Broker] = {}
        self._live = LiveConnections()
        self._ready: dict[Connection, None] = {}
        self._ended: deque[Connection] = deque()
        self._just_in_time = JustInTime(
            registry,
            settings=settings,
            recorder=self._recorder,
            timers=self.timers,
            uniform=uniform,
            publish=self.publish,
            guard=self.guard,
        )
        self._front_door = FrontDoor(
            registry,
            settings=settings,
            clock=clock,
            timers=self.timers,
            recorder=self._recorder,
            guard=self.guard,
            just_in_time=self._just_in_time,
            live=self._live,
            broker_of=self._broker,
            resume=self._resume,
            new_id=new_id,
        )
        self.published: list[Callable[[Partition, Message, float], None]] = []
        """Called in order with every message of an account, after its delivery, whoever published it: append."""
        self.reserved: list[Callable[[DeviceConnection, Publish, float], bool]] = []
        """Asked in order, until one answers true, what to do with a PUBLISH to a topic that begins with ``$`` and that
        policies allow; ``False`` says that it is not the callable's own. When none takes it, the client is
        disconnected. Append."""
        self.decided = self._front_door.decided
        """Called with what was shown, the client id, what else was asked and the decision of every CONNECT: append."""
        self.commit: Callable[[], None] = _nothing
        """Called before anything decided is told to anybody: makes it outlast the process, where that is wanted."""
        registry.on_certificate_changed.append(self._certificate_changed)
        registry.on_certificate_changed.append(self.guard.certificate_changed)

    # --- what the gateway calls ---

    def open(self, presented: Presented, now: float) -> DeviceConnection:
        """A TLS handshake is complete. Nothing is registered before CONNECT (§2, M)."""
        self._opened += 1
        connection = DeviceConnection(presented, number=self._opened, settings=self.settings, watcher=self, now=now)
        if presented.door.alpn and not presented.alpn:
            connection.http = HTTPRefusal()
        deadline = now + self.settings.connect_timeout
        connection.timer = self.timers.schedule(deadline, partial(self._no_connect, connection), leaps=False)
        if self.faults.has(FaultKind.DROP_AFTER_HANDSHAKE):
            partition = account_named(self.registry, presented, self.settings)
            fault = self.guard.fault(FaultKind.DROP_AFTER_HANDSHAKE, now, presented, partition=partition)
            if fault is not None:
                connection.finish(End(reason=DisconnectReason.SERVER_ERROR, detail=f"fault {fault.name}"))
                self._settle(now)
        return connection

    def _no_connect(self, connection: DeviceConnection, _now: float) -> None:
        seconds = self.settings.connect_timeout
        detail = f"no CONNECT within {seconds:g} s of the handshake"
        connection.finish(End(reason=DisconnectReason.CLIENT_ERROR, detail=detail))

    @property
    def server_certificates_fail(self) -> bool:
        """Whether :meth:`server_certificate_fault` is worth asking."""
        return any(self.faults.has(kind) for kind in SERVER_CERTIFICATE_FAULTS)

    def server_certificate_fault(self, presented: Presented, now: float) -> Fault | None:
        """The fault that happens to the server certificate which a handshake is about to show."""
        partition = account_named(self.registry, presented, self.settings)
        fired = (self.guard.fault(kind, now, presented, partition=partition) for kind in SERVER_CERTIFICATE_FAULTS)
        return next((each for each in fired if each is not None), None)

    def receive(self, connection: DeviceConnection, data: bytes, now: float) -> None:
        """Bytes of the client."""
        if connection.http is not None:
            self._answer_http(connection, connection.http, data)
        else:
            connection.feed(data)
            self._handle_packets(connection, now)
        self._settle(now)

    def _handle_packets(self, connection: DeviceConnection, now: float) -> None:
        while (packet := connection.next_packet(now)) is not None:
            self._front_door.handle(connection, packet, now)
            self._settle(now)
        if connection.held and connection.buffered > self.settings.max_packet_bytes:
            connection.fail(ReasonCode.PROTOCOL_ERROR, "the client sends a lot before it has seen CONNACK")

    def _resume(self, connection: DeviceConnection, now: float) -> None:
        self._settle(now)
        self._handle_packets(connection, now)

    def _answer_http(self, connection: DeviceConnection, http: HTTPRefusal, data: bytes) -> None:
        if connection.phase is Phase.ENDED:
            return
        answer = http.receive(data)
        if answer is not None:
            connection.outbound += answer
            asked = http.request_line or "something that is no HTTP"
            detail = f"no ALPN on the port for {ALPN_MQTT!r}, where HTTP is spoken: the client sent {asked!r}"
            connection.finish(End(reason=DisconnectReason.CLIENT_ERROR, detail=detail))

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

    def delete_connection(
        self, partition: Partition, client_id: str, *, clean_session: bool, prevent_will: bool, now: float
    ) -> bool:
        """:meth:`Broker.delete_connection` of the account's broker."""
        broker = self._brokers.get((partition.account_id, partition.region))
        if broker is None:
            return False
        found = broker.delete_connection(client_id, clean_session=clean_session, prevent_will=prevent_will, now=now)
        self._settle(now)
        self.wake()
        return found

    def session(self, partition: Partition, client_id: str) -> Session | None:
        """Of a client that is connected, or that has a session which outlives its connection."""
        broker = self._brokers.get((partition.account_id, partition.region))
        return None if broker is None else broker.session_of(client_id)

    def has_room(self, partition: Partition, message: Message, now: float) -> bool:
        """Whether the account can retain the message, or need not."""
        return self._broker(partition).has_room(message, now)

    def publish_to(self, partition: Partition, client_id: str, message: Message, now: float) -> bool:
        """Answer one client, which alone is to know; ``False`` when it has not subscribed to that topic."""
        received = self._broker(partition).publish_to(client_id, message, now)
        self.wake()
        return received

    def retained(self, partition: Partition) -> dict[str, tuple[Message, float]]:
        """The account's retained messages by topic, as they stand, with the time of day at which each was kept."""
        if not partition.retained:
            return {}
        broker = self._broker(partition)
        now, wall = self.clock.now(), self.clock.wall()
        return {
            message.topic: (message, wall - (now - broker.retained_since(message.topic)))
            for message in broker.retained_messages(now)
        }

    def advance(self, seconds: float) -> None:
        """Put the clock forward. No connection times out by it: the network's own time goes on as before."""
        self.clock.advance(seconds)
        self.timers.advanced(seconds)
        for connection in self._live:
            connection.last_packet += seconds
        self.wake()

    def reset(self, now: float) -> None:
        """End every admitted connection, and forget sessions, retained messages and JITP runs."""
        for broker in self._brokers.values():
            broker.close(now)
        self._settle(now)
        self._brokers.clear()
        self._just_in_time.reset()
        self.guard.reset()
        self.wake()

    def load(self, partition: Partition) -> Load:
        broker = self._brokers.get((partition.account_id, partition.region))
        if broker is None:
            return Load(retained=len(partition.retained))
        return Load(
            connections=broker.connected,
            sessions=broker.sessions,
            subscriptions=broker.subscriptions,
            retained=broker.retained,
            taken=broker.taken,
        )

    @property
    def provisioning_runs(self) -> int:
        """JITP runs under way."""
        return self._just_in_time.runs

    # --- connections tell (connection.Watcher) ---

    def output_waits(self, connection: Connection) -> None:
        self._ready[connection] = None

    def refused(self, connection: Connection, detail: str, *, denied: bool) -> None:
        assert isinstance(connection, DeviceConnection)  # open() makes them all
        self._recorder.note(
            connection.presented,
            kind=Kind.REQUEST,
            verdict=history.REQUEST_REFUSED,
            partition=connection.partition,
            connection=connection,
            reason="AUTHORIZATION_FAILURE" if denied else None,  # the word of AWS's logs (§8, D)
            detail=detail,
        )

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
            self._live.remove(connection)
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
                partition=account_named(self.registry, connection.presented, self.settings),
                detail=end.detail,
            )

    def _broker(self, partition: Partition) -> Broker:
        key = (partition.account_id, partition.region)
        broker = self._brokers.get(key)
        if broker is None:
            broker = self._brokers[key] = Broker(
                settings=self.settings,
                timers=self.timers,
                choose=lambda count: min(int(self._uniform(0, count)), count - 1),
                lifecycle=partial(self._lifecycle, partition),
                published=partial(self._tell_published, partition),
                reserved=self._handle_reserved,
                retained=RetainedMessages(partition, self.clock),
            )
        return broker

    def _lifecycle(self, partition: Partition, broker: Broker) -> Lifecycle:
        def peer_of(connection: Connection) -> Peer:
            assert isinstance(connection, DeviceConnection)  # open() makes them all
            certificate_id = connection.presented.certificate_id or ""
            attached = partition.things_of_certificate(certificate_id)
            exclusive = [name for name, kind in attached.items() if kind is ThingPrincipalType.EXCLUSIVE_THING]
            return Peer(
                principal=certificate_id,
                ip_address=connection.presented.source_ip,
                thing_name=exclusive[0] if exclusive else None,
            )

        return Lifecycle(wall=self.clock.wall, new_id=self._new_id, peer_of=peer_of, publish=broker.publish)

    def _tell_published(self, partition: Partition, message: Message, now: float) -> None:
        for listener in self.published:
            listener(partition, message, now)

    def _handle_reserved(self, connection: Connection, packet: Publish, now: float) -> bool:
        assert isinstance(connection, DeviceConnection)  # open() makes them all
        return any(handler(connection, packet, now) for handler in self.reserved)

    # --- the registry tells ---

    def _certificate_changed(self, change: CertificateChange) -> None:
        if self._live.certificate_changed(change):
            self.wake()


def _nothing() -> None:
    pass
