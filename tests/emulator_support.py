"""What the tests of the emulator's data plane share: a world without sockets, in which the test is the clock.

world = World()
account = world.account("111111111111")
world.register_ca(account, mode="SNI_ONLY")
client = world.client(0, account.endpoint)
client.connect()
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography.hazmat.primitives import serialization

from devicesim.emulator.admission import Door, Presented
from devicesim.emulator.clock import Clock
from devicesim.emulator.core import Core
from devicesim.emulator.decode import Decoder
from devicesim.emulator.deviceconnection import DeviceConnection
from devicesim.emulator.encode import encode
from devicesim.emulator.history import Entry
from devicesim.emulator.packets import (
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    ProtocolVersion,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Will,
)
from devicesim.emulator.quotas import Quotas
from devicesim.emulator.registry import Partition
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import (
    CACertificate,
    CertificateMode,
    CertificateStatus,
    DeviceCertificate,
    RegistrationConfig,
)
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity, certificate_pem
from devicesim.pki.profile import KeyType, Profile, Subject

EPOCH = datetime(2026, 6, 1, tzinfo=UTC)
"""What time it is when a :class:`World` begins."""
REGION = "us-east-1"
A, B, C = "111111111111", "222222222222", "333333333333"
V311, V5 = ProtocolVersion.V311, ProtocolVersion.V5
ROLE = "arn:aws:iam::111111111111:role/provisioning"
ALLOW_ALL = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'


def shared_ca(name: str = "Shared CA") -> Authority:
    """The same for each name: a cache on this function would tell ``shared_ca()`` from ``shared_ca("Shared CA")``."""
    return _authority(name)


@cache
def _authority(name: str) -> Authority:
    return new_shared_authority(name, KeyType.EC_P256, now=EPOCH, validity=timedelta(days=3650))


def device(index: int = 0, ca_name: str = "Shared CA") -> Identity:
    return _device(index, ca_name)


@cache
def _device(index: int, ca_name: str) -> Identity:
    subject = Subject(
        common_name="robot-{index:06d}",
        serial_number="SN{index:04d}",
        organization="Example",
        organizational_unit="Robots",
        country="DE",
        state="Bavaria",
        dn_qualifier="q{index}",
    )
    return shared_ca(ca_name).mint(index, secret=b"s" * 32, profile=Profile(subject=subject))


def template(
    *,
    parameters: Sequence[str] = ("CommonName", "Id"),
    thing: Mapping[str, object] | None = None,
    policy: Mapping[str, object] | None = None,
    certificate: Mapping[str, object] | None = None,
    overrides: Mapping[str, str] | None = None,
    **sections: object,
) -> str:
    """A JITP template: thing named after the common name, a policy that allows everything, certificate ACTIVE."""
    body: dict[str, object] = {
        "Parameters": {f"AWS::IoT::Certificate::{name}": {"Type": "String"} for name in parameters},
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": thing or {"ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"}},
                "OverrideSettings": dict(overrides or {}),
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": certificate
                or {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": policy or {"PolicyDocument": ALLOW_ALL}},
        },
    }
    return json.dumps(body | sections)


@dataclass(slots=True)
class Client:
    """A device without a network: what it sends is received at once, what it was sent is asked for."""

    world: "World"
    connection: DeviceConnection
    version: ProtocolVersion
    _decoder: Decoder = field(init=False)

    def __post_init__(self) -> None:
        self._decoder = Decoder(max_packet_size=1 << 20, version=self.version)

    def send(self, *packets: Packet) -> None:
        self.send_bytes(b"".join(encode(packet, self.version) for packet in packets))

    def send_bytes(self, data: bytes) -> None:
        self.world.plane.receive(self.connection, data, self.world.now)

    def connect(self, client_id: str = "c", **fields: object) -> list[Packet]:
        """CONNECT, and what came back."""
        self.send(Connect(client_id=client_id, version=self.version, **fields))  # type: ignore[arg-type]
        return self.received()

    def connected(self, client_id: str = "c", **fields: object) -> "Client":
        """CONNECT, which must succeed."""
        answer = self.connect(client_id, **fields)
        assert answer, f"closed without CONNACK: {self.world.last().detail}"
        assert isinstance(answer[0], ConnAck)
        assert answer[0].reason_code == 0
        return self

    def subscribe(self, *filters: str, qos: int = 0, packet_id: int = 1) -> "Client":
        """SUBSCRIBE, which must succeed; retained messages stay to be received."""
        subscriptions = tuple(Subscription(topic_filter=each, qos=qos) for each in filters)
        self.send(Subscribe(packet_id=packet_id, subscriptions=subscriptions))
        answer = self.received()
        assert answer == [SubAck(packet_id=packet_id, reason_codes=(qos,) * len(filters))]
        return self

    def received(self) -> list[Packet]:
        """Packets since the last call."""
        self._decoder.feed(bytes(self.connection.outbound))
        self.connection.outbound.clear()
        packets = []
        while (packet := self._decoder.next_packet()) is not None:
            packets.append(packet)
        return packets

    def messages(self) -> list[tuple[str, bytes]]:
        """Topics and payloads of the PUBLISH packets since the last call."""
        return [(each.topic, each.payload) for each in self.received() if isinstance(each, Publish)]

    @property
    def closed(self) -> bool:
        """Whether the server ends the connection once what it has queued is written."""
        return self.connection.end is not None

    def lose(self) -> None:
        """The network goes."""
        self.world.plane.lost(self.connection, "test", self.world.now)

    def disconnect(self, **fields: object) -> None:
        self.send(Disconnect(**fields))  # type: ignore[arg-type]


class World:
    """Registry and data plane with a clock that the test moves."""

    def __init__(self, settings: Settings | None = None, *, quotas: Quotas | None = None) -> None:
        """Without quotas, unless ``quotas`` says some: what a test does in no time would take AWS seconds."""
        self.settings = replace(settings or Settings(jitp_delay=(2.0, 2.0)), quotas=quotas or Quotas.lifted())
        self.now = 1000.0
        """Monotonic."""
        self.monotonic: Callable[[], float] = lambda: self.now
        """What deadlines are counted on; a gateway's test has trio's clock here."""
        numbers = iter(range(1 << 30))
        self.core = Core(
            settings=self.settings,
            clock=Clock(wall=self.epoch, monotonic=lambda: self.monotonic()),
            randbytes=lambda size: next(numbers).to_bytes(size, "big"),
            uniform=lambda low, high: (low + high) / 2,
            new_id=lambda: f"id-{next(numbers)}",
        )
        self.registry, self.history, self.plane = self.core.registry, self.core.history, self.core.plane

    def epoch(self) -> float:
        return EPOCH.timestamp() + self.now - 1000.0

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.plane.tick(self.now)

    def account(self, account_id: str = A, region: str = REGION) -> Partition:
        return self.registry.partition(account_id, region)

    def register_ca(
        self,
        account: Partition,
        *,
        mode: str = "DEFAULT",
        template_body: str | None = None,
        active: bool = True,
        auto_registration: bool = True,
        name: str = "Shared CA",
    ) -> CACertificate:
        """Register the shared CA, with verification certificate where the mode asks for one."""
        ca = shared_ca(name)
        verification = None
        if mode == "DEFAULT":
            code = self.registry.cas.registration_code(account)
            moment = EPOCH - timedelta(minutes=1)
            made = ca.verification_certificate(code, not_before=moment, not_after=EPOCH + timedelta(days=1))
            verification = certificate_pem(made.certificate)
        config = None if template_body is None else RegistrationConfig(template_body=template_body, role_arn=ROLE)
        return self.registry.cas.register(
            account,
            certificate_pem(ca.certificate),
            verification_pem=verification,
            mode=CertificateMode(mode),
            active=active,
            auto_registration=auto_registration,
            registration_config=config,
        )

    def register_leaf(
        self, account: Partition, identity: Identity, status: str = "ACTIVE", policy: str | None = ALLOW_ALL
    ) -> DeviceCertificate:
        """Register a leaf under the account's CA, with a policy."""
        record = self.registry.certificates.register(
            account, certificate_pem(identity.certificate), status=CertificateStatus(status)
        )
        if policy is not None:
            self.allow(account, identity, policy)
        return record

    def allow(self, account: Partition, identity: Identity, document: str = ALLOW_ALL) -> None:
        name = f"p{len(account.policies)}"
        self.registry.policies.create(account, name, document)
        self.registry.policies.attach(account, name, account.certificate_arn(identity.certificate_id))

    def update(self, account: Partition, identity: Identity, status: str) -> None:
        self.registry.certificates.update(account, identity.certificate_id, CertificateStatus(status))

    def status(self, account: Partition, identity: Identity) -> str | None:
        record = account.certificates.get(identity.certificate_id)
        return None if record is None else record.status.value

    def present(
        self,
        identity: Identity | None,
        server_name: str | bytes | None,
        *,
        chain: bool = False,
        region: str = REGION,
        elsewhere: frozenset[str] | None = None,
    ) -> Presented:
        sent = identity.chain if identity is not None and chain else ()
        return Presented(
            door=Door(region=region, elsewhere=elsewhere),
            server_name=server_name.encode() if isinstance(server_name, str) else server_name,
            leaf=None if identity is None else identity.certificate,
            certificate_id=None if identity is None else identity.certificate_id,
            chain=tuple(each.public_bytes(serialization.Encoding.DER) for each in sent),
            tls_version="TLSv1.3",
            source_ip="203.0.113.7",
            source_port=50_000,
        )

    def client(
        self,
        index: int,
        server_name: str | bytes | None,
        *,
        version: ProtocolVersion = V311,
        chain: bool = False,
        region: str = REGION,
    ) -> Client:
        """A connection of device ``index`` whose handshake is complete."""
        return self.open(self.present(device(index), server_name, chain=chain, region=region), version)

    def open(self, presented: Presented, version: ProtocolVersion = V311) -> Client:
        return Client(self, self.plane.open(presented, self.now), version)

    def ready_account(self, *devices: int, account_id: str = A, region: str = REGION) -> Partition:
        """An account with the CA in SNI_ONLY mode in which these devices are ACTIVE and may do everything."""
        account = self.account(account_id, region)
        self.register_ca(account, mode="SNI_ONLY")
        for index in devices:
            self.register_leaf(account, device(index))
        return account

    def last(self) -> Entry:
        return self.history.select()[-1]

    def verdicts(self) -> list[str]:
        return [entry.verdict for entry in self.history.select()]


def will(topic: str = "wills/c", payload: bytes = b"gone", **fields: object) -> Will:
    return Will(topic=topic, payload=payload, **fields)  # type: ignore[arg-type]
