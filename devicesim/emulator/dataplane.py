"""The data plane of every account and Region: joins admission, brokers, provisioning and history. Pure.

Bytes and time come in, decisions are made at once and in order, and what is to be written stands in the connections'
queues; :meth:`DataPlane.take_ready` says in which order they were filled. The gateway only moves bytes.

Two clocks: ``now`` is monotonic and decides deadlines; ``wall`` says what time it is, for records and validity.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from devicesim.emulator import admission, events, history, provisioning
from devicesim.emulator.admission import Decision, Presented, Reason, Verdict
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.broker import Broker
from devicesim.emulator.connection import Connection, DisconnectReason, End, Phase
from devicesim.emulator.history import Entry, History, Kind
from devicesim.emulator.packets import (
    NO_PROPERTIES,
    ConnAck,
    Connect,
    Properties,
    ProtocolVersion,
    ReasonCode,
)
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import (
    CertificateChange,
    CertificateChangeKind,
    CertificateStatus,
    DeviceCertificate,
    EffectiveTemplate,
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
        wall: Callable[[], float],
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
        self._wall = wall
        self._uniform = uniform
        self._new_id = new_id
        self._brokers: dict[tuple[str, str], Broker] = {}
        self._live: dict[tuple[str, str, str], dict[DeviceConnection, None]] = {}
        """Admitted connections by account, Region and certificate id."""
        self._ready: dict[Connection, None] = {}
        self._ended: deque[Connection] = deque()
        self._provisioning: set[tuple[str, str, str]] = set()
        """JITP runs under way."""
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
        self._note(connection.presented, kind=Kind.FAULT, verdict=history.FAILED, detail=detail)
        connection.finish(End(reason=DisconnectReason.SERVER_ERROR, detail=detail, flush=False))
        self._settle(now)

    def handshake_failed(self, presented: Presented, detail: str) -> None:
        """A connection ended before there was one; ``presented`` has what was seen until then."""
        self._note(presented, kind=Kind.HANDSHAKE, verdict=history.HANDSHAKE_FAILED, detail=detail)

    def tick(self, now: float) -> None:
        """Do what is due."""
        self.timers.run(now)
        self._settle(now)

    def take_ready(self) -> list[Connection]:
        """Connections with bytes to write or an end to act on, in the order in which that was decided."""
        ready = list(self._ready)
        self._ready.clear()
        return ready

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
        return len(self._provisioning)

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
            self._note(
                connection.presented,
                kind=Kind.DISCONNECT,
                verdict=history.DISCONNECTED,
                partition=connection.partition,
                connection=connection,
                reason=end.reason.value,
                detail=end.detail,
            )
        elif not connection.decided:
            self._note(
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
            self.registry, presented, client_id=client_id, settings=self.settings, now=self._wall()
        )
        connection.presented = replace(presented, leaf=None, chain=())  # the record has it; tens of thousands stay open
        connection.partition = decision.partition
        connection.decided = True
        match decision.verdict:
            case Verdict.ADMITTED:
                self._admit(connection, packet, client_id, decision, now)
            case Verdict.DENIED:
                self._note_decision(connection, decision)
                self._refuse(connection, ReasonCode.NOT_AUTHORIZED, decision.detail, tell=True)
            case Verdict.REGISTERED:
                self._register(connection, presented, decision, now)
            case Verdict.PENDING:
                self._note_decision(connection, decision)
                self._pending(connection, decision, now)
            case Verdict.REFUSED:
                self._note_decision(connection, decision)
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
        self._note_decision(connection, decision)
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
        self._note_decision(connection, replace(decision, verdict=Verdict.REFUSED, detail=detail, logged=False))
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
            broker = self._brokers[key] = Broker(settings=self.settings, timers=self.timers)
        return broker

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
        partition, leaf, ca = decision.partition, presented.leaf, decision.ca
        assert partition is not None
        assert leaf is not None
        assert ca is not None
        try:
            certificate = self.registry.auto_register(partition, leaf, ca)
        except APIError as error:  # a key or signature that AWS takes from nobody
            refused = replace(
                decision,
                verdict=Verdict.REFUSED,
                reason=Reason.DEVICE_CERTIFICATE_NOT_REGISTERED,
                detail=f"cannot be registered: {error.message}",
            )
            self._note_decision(connection, refused)
            self._refuse(
                connection, ReasonCode.NOT_AUTHORIZED, refused.detail, tell=self.settings.refusal_v5 == "connack"
            )
            return
        self._note_decision(connection, decision)
        self._pending(connection, replace(decision, certificate=certificate), now)

    def _pending(self, connection: DeviceConnection, decision: Decision, now: float) -> None:
        partition, certificate = decision.partition, decision.certificate
        assert partition is not None
        assert certificate is not None
        if decision.template is None or self.settings.registered_event_for_jitp:
            first = decision.verdict is Verdict.REGISTERED
            self._publish_registered(connection, partition, certificate, now, first=first)
        if decision.template is not None:
            self._start_jitp(partition, certificate, decision.template, now)
        tell = self.settings.refusal_v5 == "connack"
        self._refuse(connection, ReasonCode.NOT_AUTHORIZED, decision.detail, tell=tell)

    def _publish_registered(
        self,
        connection: DeviceConnection,
        partition: Partition,
        certificate: DeviceCertificate,
        now: float,
        *,
        first: bool,
    ) -> None:
        message = events.certificate_registered(
            certificate,
            account_id=partition.account_id,
            source_ip=connection.presented.source_ip,
            now=self._wall(),
            first=first,
        )
        broker = self._brokers.get((partition.account_id, partition.region))
        receivers = 0 if broker is None else broker.publish(message, now)
        self._note(
            connection.presented,
            kind=Kind.EVENT,
            verdict=history.PUBLISHED,
            partition=partition,
            connection=connection,
            detail=f"{message.topic} to {receivers} subscribers",
        )

    def _start_jitp(
        self, partition: Partition, certificate: DeviceCertificate, template: EffectiveTemplate, now: float
    ) -> None:
        """One run at a time for each certificate."""
        key = (partition.account_id, partition.region, certificate.certificate_id)
        if key in self._provisioning:
            return
        self._provisioning.add(key)

        def run(_at: float) -> None:
            self._provisioning.discard(key)
            outcome = provisioning.provision(
                self.registry,
                partition,
                certificate.certificate_id,
                template,
                existing_thing=self.settings.jitp_existing_thing,
            )
            self.history.add(
                lambda number: Entry(
                    number=number,
                    time=self._wall(),
                    kind=Kind.PROVISIONING,
                    verdict=history.PROVISIONED if outcome.succeeded else history.PROVISIONING_FAILED,
                    account_id=partition.account_id,
                    region=partition.region,
                    certificate_id=certificate.certificate_id,
                    reason=outcome.error,
                    logged_by_aws=not outcome.succeeded,
                    detail=outcome.detail,
                    thing=outcome.thing_name,
                )
            )

        self.timers.schedule(now + self._uniform(*self.settings.jitp_delay), run)

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

    # --- history ---

    def _note_decision(self, connection: DeviceConnection, decision: Decision) -> None:
        self._note(
            connection.presented,
            kind=Kind.CONNECTION,
            verdict=decision.verdict.value,
            partition=decision.partition,
            connection=connection,
            reason=None if decision.reason is None else str(decision.reason),
            logged=decision.logged and decision.reason is not None,
            detail=decision.detail,
        )

    def _note(
        self,
        presented: Presented,
        *,
        kind: Kind,
        verdict: str,
        detail: str,
        partition: Partition | None = None,
        connection: DeviceConnection | None = None,
        reason: str | None = None,
        logged: bool = False,
    ) -> None:
        raw = presented.server_name
        self.history.add(
            lambda number: Entry(
                number=number,
                time=self._wall(),
                kind=kind,
                verdict=verdict,
                account_id=None if partition is None else partition.account_id,
                region=presented.door.region if partition is None else partition.region,
                server_name=None if raw is None else admission.printable(raw),
                client_id=None if connection is None else connection.client_id,
                certificate_id=presented.certificate_id,
                tls_version=presented.tls_version or None,
                mqtt_version=None if connection is None else _MQTT_VERSIONS[connection.version],
                source_ip=presented.source_ip,
                source_port=presented.source_port,
                reason=reason,
                logged_by_aws=logged,
                detail=detail,
            )
        )


_MQTT_VERSIONS: Mapping[ProtocolVersion, str] = {ProtocolVersion.V311: "3.1.1", ProtocolVersion.V5: "5"}


def _nothing() -> None:
    pass
