"""First connections, provisioning, keep-alive and the registry's changes, through whole connections without sockets."""

import json
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519

from devicesim.emulator import provisioning
from devicesim.emulator.admission import Reason
from devicesim.emulator.connection import DisconnectReason
from devicesim.emulator.packets import (
    ConnAck,
    Connect,
    Disconnect,
    PingReq,
    PingResp,
    Properties,
    ProtocolVersion,
    Publish,
)
from devicesim.emulator.registry import Partition
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import CertificateMode, RegistrationConfig, TemplateType
from devicesim.pki.identity import Identity, certificate_pem
from tests.emulator_support import ALLOW_ALL, EPOCH, ROLE, V5, V311, B, Client, World, device, shared_ca, template

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])


def account_with_ca(world: World, body: str | None = None, **fields: str) -> Partition:
    account = world.account(**fields)
    world.register_ca(account, mode="SNI_ONLY", template_body=body)
    return account


def listener(world: World, account: Partition, topic_filter: str = "$aws/events/certificates/registered/#") -> Client:
    """A client that is subscribed to the account's events."""
    world.register_leaf(account, device(99))
    return world.client(99, account.endpoint).connected("listener").subscribe(topic_filter, qos=1)


class TestJITR:
    """§2, step by step."""

    def test_a_handshake_without_connect_creates_nothing(self) -> None:
        world = World()
        account = account_with_ca(world)
        client = world.client(0, account.endpoint)

        assert account.certificates == {}

        world.advance(4)
        client.lose()

        assert account.certificates == {}
        assert world.verdicts() == ["no_connect"]
        assert world.last().account_id == account.account_id

    @VERSIONS
    def test_the_first_connect_registers_publishes_and_closes_without_connack(self, version: ProtocolVersion) -> None:
        world = World()
        account = account_with_ca(world)
        events = listener(world, account)
        client = world.client(0, account.endpoint, version=version)

        assert client.connect() == []
        assert client.closed
        assert world.status(account, device(0)) == "PENDING_ACTIVATION"

        ((topic, payload),) = events.messages()
        ca_id = next(iter(account.cas))
        assert topic == f"$aws/events/certificates/registered/{ca_id}"
        assert json.loads(payload) == {
            "certificateId": device(0).certificate_id,
            "caCertificateId": ca_id,
            "timestamp": round(world.epoch() * 1000),
            "certificateStatus": "PENDING_ACTIVATION",
            "awsAccountId": account.account_id,
            "certificateRegistrationTimestamp": None,
            "sourceIp": "203.0.113.7",
        }

    def test_every_further_connect_repeats_the_event_with_the_time_of_registration(self) -> None:
        world = World()
        account = account_with_ca(world)
        events = listener(world, account)
        registered = round(world.epoch() * 1000)
        for _ in range(3):
            world.client(0, account.endpoint).connect()
            world.advance(5)

        stamps = [json.loads(payload)["certificateRegistrationTimestamp"] for _, payload in events.messages()]
        assert stamps == [None, str(registered), str(registered)]
        assert [each for each in world.verdicts() if each in ("registered", "pending")] == [
            "registered",
            "pending",
            "pending",
        ]

    def test_after_activation_and_a_policy_it_connects(self) -> None:
        world = World()
        account = account_with_ca(world)
        world.client(0, account.endpoint).connect()
        world.update(account, device(0), "ACTIVE")

        assert world.client(0, account.endpoint).connect() == []  # ACTIVE, but no policy: also closed (§2 step 7)
        assert world.last().reason == "AUTHORIZATION_FAILURE"

        world.allow(account, device(0))

        assert world.client(0, account.endpoint).connect() == [ConnAck()]

    def test_events_stay_in_their_account(self) -> None:
        world = World()
        here, there = account_with_ca(world), account_with_ca(world, account_id=B)
        events = listener(world, there)
        world.client(0, here.endpoint).connect()

        assert events.messages() == []
        assert list(here.certificates) == [device(0).certificate_id]
        assert list(there.certificates) == [device(99).certificate_id]

    def test_a_key_that_aws_takes_from_nobody_is_not_registered(self) -> None:
        """§1.2: Ed25519 is not listed."""
        world = World()
        account = account_with_ca(world)
        ca = shared_ca()
        assert ca.key is not None
        key = ed25519.Ed25519PrivateKey.generate()
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(ca.certificate.subject)
            .public_key(key.public_key())
            .serial_number(5)
            .not_valid_before(EPOCH - timedelta(days=1))
            .not_valid_after(EPOCH + timedelta(days=1))
            .sign(ca.key, hashes.SHA256())
        )
        odd = Identity(key=key, certificate=leaf)  # type: ignore[arg-type]  # on purpose
        client = world.open(world.present(odd, account.endpoint))

        assert client.connect() == []
        assert client.closed
        assert account.certificates == {}
        assert world.last().verdict == "refused"
        assert world.last().detail.startswith("cannot be registered: ")


class TestJITP:
    """§3."""

    def test_the_first_connection_drops_and_the_device_is_provisioned_later(self) -> None:
        world = World(Settings(jitp_delay=(1.0, 3.0)))
        account = account_with_ca(world, template())

        assert world.client(0, account.endpoint).connect() == []
        assert world.status(account, device(0)) == "PENDING_ACTIVATION"

        world.advance(1.9)

        assert world.status(account, device(0)) == "PENDING_ACTIVATION"

        world.advance(0.1)

        assert world.status(account, device(0)) == "ACTIVE"
        assert list(account.things) == ["robot-000000"]
        assert world.last().verdict == "provisioned"
        assert world.last().thing == "robot-000000"
        assert world.client(0, account.endpoint).connect() == [ConnAck()]

    def test_a_connect_while_a_run_is_under_way_does_not_start_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        runs = []
        real = provisioning.provision

        def counted(*args: object, **kwargs: object) -> provisioning.Outcome:
            runs.append(args)
            return real(*args, **kwargs)  # type: ignore[arg-type]  # passed through

        monkeypatch.setattr(provisioning, "provision", counted)
        world = World()
        account = account_with_ca(world, template())
        for _ in range(3):
            world.client(0, account.endpoint).connect()
            world.advance(0.5)
        world.advance(10)

        assert len(runs) == 1
        assert world.plane.provisioning_runs == 0

    def test_a_failing_run_leaves_it_pending_and_each_reconnect_tries_again(self) -> None:
        world = World()
        account = account_with_ca(world, template(thing={"ThingName": "t", "ThingTypeName": "robot"}))
        for _ in range(2):
            world.client(0, account.endpoint).connect()
            world.advance(2)

            assert world.last().verdict == "provisioning_failed"
            assert world.last().detail == "Thing type not found: robot"
            assert world.status(account, device(0)) == "PENDING_ACTIVATION"

        world.registry.thing_types.create(account, "robot")
        world.client(0, account.endpoint).connect()
        world.advance(2)

        assert world.status(account, device(0)) == "ACTIVE"

    def test_a_delay_of_zero_still_drops_the_first_connection(self) -> None:
        world = World(Settings(jitp_delay=(0.0, 0.0)))
        account = account_with_ca(world, template())
        client = world.client(0, account.endpoint)

        assert client.connect() == []
        assert client.closed

        world.advance(0)

        assert world.status(account, device(0)) == "ACTIVE"

    def test_a_named_template_runs_only_while_it_is_enabled(self) -> None:
        world = World()
        account = world.account()
        world.registry.templates.create(
            account, "fleet", body=template(), role_arn=ROLE, type=TemplateType.JITP, enabled=False
        )
        world.registry.cas.register(
            account,
            certificate_pem(shared_ca().certificate),
            mode=CertificateMode.SNI_ONLY,
            active=True,
            auto_registration=True,
            registration_config=RegistrationConfig(template_name="fleet"),
        )
        world.client(0, account.endpoint).connect()
        world.advance(2)

        assert world.last().detail == "the provisioning template fleet is not enabled"

        world.registry.templates.update(account, "fleet", enabled=True)
        world.client(0, account.endpoint).connect()
        world.advance(2)

        assert world.status(account, device(0)) == "ACTIVE"

    @pytest.mark.parametrize("published", [True, False])
    def test_whether_the_event_is_published_where_a_template_runs_is_a_setting(self, published: bool) -> None:
        world = World(Settings(registered_event_for_jitp=published))
        account = account_with_ca(world, template())
        events = listener(world, account)
        world.client(0, account.endpoint).connect()

        assert len(events.messages()) == published

    def test_the_same_leaf_is_provisioned_in_each_account_on_its_own(self) -> None:
        world = World()
        accounts = [account_with_ca(world, template()), account_with_ca(world, template(), account_id=B)]
        for account in accounts:
            world.client(0, account.endpoint).connect()
        world.advance(2)
        world.update(accounts[0], device(0), "INACTIVE")

        assert world.status(accounts[0], device(0)) == "INACTIVE"
        assert world.status(accounts[1], device(0)) == "ACTIVE"
        assert [list(account.things) for account in accounts] == [["robot-000000"]] * 2


class TestRefusals:
    def test_policy_denied_in_mqtt_5_is_connack_0x87_with_the_words_of_aws(self) -> None:
        world = World()
        account = account_with_ca(world)
        world.register_leaf(account, device(0), policy=None)
        client = world.client(0, account.endpoint, version=V5)
        (answer,) = client.connect()

        assert isinstance(answer, ConnAck)
        assert answer.reason_code == 0x87
        assert (answer.properties.reason_string or "").startswith(
            "CONNACK:Client is not authenticated/authorized to send the message:"
        )
        assert client.closed

    @pytest.mark.parametrize("status", ["INACTIVE", "REVOKED", "PENDING", None])
    @VERSIONS
    def test_others_are_closed_without_connack_in_both_versions(
        self, status: str | None, version: ProtocolVersion
    ) -> None:
        world = World()
        account = world.account() if status is None else account_with_ca(world)
        if status == "PENDING":
            world.client(0, account.endpoint).connect()
        elif status is not None:
            world.register_leaf(account, device(0), status)
        client = world.client(0, account.endpoint, version=version)

        assert client.connect() == []
        assert client.closed

    def test_or_told_in_mqtt_5_when_so_set(self) -> None:
        world = World(Settings(refusal_v5="connack"))
        account = account_with_ca(world)
        codes = []
        for status in ("registered", "pending"):
            (answer,) = world.client(0, account.endpoint, version=V5).connect()
            assert isinstance(answer, ConnAck)
            codes.append((status, answer.reason_code))

        assert codes == [("registered", 0x87), ("pending", 0x87)]
        assert world.client(0, account.endpoint).connect() == []

    def test_the_history_has_aws_s_reason_and_whether_aws_would_log_it(self) -> None:
        world = World()
        account = account_with_ca(world)
        world.register_leaf(account, device(0), "REVOKED")
        world.client(0, account.endpoint).connect("me")
        entry = world.last()

        assert (entry.reason, entry.logged_by_aws) == (Reason.DEVICE_CERTIFICATE_REVOKED, True)
        assert (entry.account_id, entry.client_id, entry.certificate_id) == (
            account.account_id,
            "me",
            device(0).certificate_id,
        )
        assert (entry.server_name, entry.tls_version, entry.mqtt_version) == (account.endpoint, "TLSv1.3", "3.1.1")
        assert (entry.source_ip, entry.source_port) == ("203.0.113.7", 50_000)

        world.client(0, b"\xff.example").connect()

        assert world.last().server_name == "\\xff.example"
        assert (world.last().account_id, world.last().logged_by_aws) == (None, False)

        world.client(0, None).connect()

        assert world.last().server_name is None


class TestDeadlines:
    def test_the_wait_for_connect_does_not_leap_with_the_clock(self) -> None:
        world = World(Settings(connect_timeout=10))
        account = world.ready_account(0)
        client = world.client(0, account.endpoint)

        world.plane.advance(3600)
        world.plane.tick(world.core.clock.now())

        assert not client.closed
        world.now += 10
        world.plane.tick(world.core.clock.now())
        assert client.closed

    def test_a_handshake_must_be_followed_by_connect(self) -> None:
        world = World(Settings(connect_timeout=10))
        client = world.client(0, None)
        world.advance(9.9)

        assert not client.closed

        world.advance(0.1)

        assert client.closed
        assert world.last().detail == "no CONNECT within 10 s of the handshake"

    @VERSIONS
    def test_silence_of_one_and_a_half_keep_alives_disconnects(self, version: ProtocolVersion) -> None:
        world = World()
        account = world.ready_account(0)
        client = world.client(0, account.endpoint, version=version).connected(keep_alive=40)
        world.advance(59)
        client.send(PingReq())

        assert client.received() == [PingResp()]

        world.advance(59.9)

        assert not client.closed

        world.advance(0.1)

        assert client.received() == ([Disconnect(reason_code=0x8D)] if version is V5 else [])
        assert client.closed
        assert world.last().reason == DisconnectReason.MQTT_KEEP_ALIVE_TIMEOUT

    def test_a_client_without_keep_alive_has_twenty_minutes(self) -> None:
        world = World()
        client = world.client(0, world.ready_account(0).endpoint).connected(keep_alive=0)
        world.advance(1799)

        assert not client.closed

        world.advance(1)

        assert client.closed

    def test_no_timer_is_left_of_a_connection_that_has_gone(self) -> None:
        world = World()
        account = world.ready_account(0)
        world.client(0, account.endpoint).connected().lose()
        world.client(0, account.endpoint).lose()
        world.client(0, None).connect()

        assert len(world.plane.timers) == 0


class TestRegistryChanges:
    """§1.4: a certificate that leaves ACTIVE takes its live connections with it."""

    @pytest.mark.parametrize("status", ["INACTIVE", "REVOKED"])
    @VERSIONS
    def test_a_certificate_that_leaves_active(self, status: str, version: ProtocolVersion) -> None:
        world = World()
        account = world.ready_account(0, 1)
        clients = [
            world.client(0, account.endpoint, version=version).connected("one"),
            world.client(0, account.endpoint, version=version).connected("two"),
        ]
        other = world.client(1, account.endpoint).connected("other")
        world.update(account, device(0), status)

        for client in clients:
            assert client.closed
            assert client.received() == ([Disconnect(reason_code=0x87)] if version is V5 else [])
        assert not other.closed

    def test_the_same_leaf_in_another_account_stays(self) -> None:
        world = World()
        here, there = world.ready_account(0), world.ready_account(0, account_id=B)
        client = world.client(0, there.endpoint).connected()
        world.update(here, device(0), "REVOKED")

        assert not client.closed

    def test_a_policy_that_is_detached(self) -> None:
        world = World()
        account = world.ready_account(0)
        client = world.client(0, account.endpoint).connected()
        extra = ALLOW_ALL.replace("iot:*", "iot:Publish")
        world.allow(account, device(0), extra)
        world.registry.policies.detach(account, "p1", account.certificate_arn(device(0).certificate_id))

        assert not client.closed

        world.registry.policies.detach(account, "p0", account.certificate_arn(device(0).certificate_id))

        assert client.closed

    def test_the_gateway_is_woken_and_the_broker_settles_at_its_next_turn(self) -> None:
        world = World()
        account = world.ready_account(0)
        world.client(0, account.endpoint).connected()
        woken = []
        world.plane.wake = lambda: woken.append(True)
        world.plane.take_ready()
        world.update(account, device(0), "INACTIVE")

        assert woken == [True]
        assert len(world.plane.take_ready()) == 1

        world.plane.tick(world.now)

        assert world.plane.load(account).connections == 0
        assert world.last().verdict == "disconnected"

    def test_attaching_a_thing_disconnects_nobody(self) -> None:
        world = World()
        account = world.ready_account(0)
        client = world.client(0, account.endpoint).connected()
        world.registry.things.create(account, "t")
        world.registry.things.attach_principal(account, "t", account.certificate_arn(device(0).certificate_id))

        assert not client.closed


def test_thing_name_policies_hold_when_the_client_id_is_the_things_name() -> None:
    world = World()
    account = account_with_ca(world)
    document = ALLOW_ALL.replace(
        '"Resource":"*"', '"Resource":"arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}"'
    )
    world.register_leaf(account, device(0), policy=document)
    world.registry.things.create(account, "robot")

    assert world.client(0, account.endpoint).connect("robot") == []

    world.registry.things.attach_principal(account, "robot", account.certificate_arn(device(0).certificate_id))

    assert world.client(0, account.endpoint).connect("robot") == [ConnAck()]
    assert world.client(0, account.endpoint).connect("other") == []


def test_a_group_s_policy_holds_for_its_thing() -> None:
    world = World()
    account = account_with_ca(world)
    world.register_leaf(account, device(0), policy=None)
    world.registry.things.create(account, "robot")
    world.registry.things.attach_principal(account, "robot", account.certificate_arn(device(0).certificate_id))
    group = world.registry.thing_groups.create(account, "robots")
    world.registry.thing_groups.add_thing(account, "robots", "robot")
    world.registry.policies.create(account, "p", ALLOW_ALL)
    world.registry.policies.attach(account, "p", group.arn)

    assert world.client(0, account.endpoint).connect("robot") == [ConnAck()]


def test_output_is_handed_over_in_the_order_of_the_decisions() -> None:
    """mqtt-measured.md, "Order matters": twelve of twelve times."""
    world = World()
    account = world.ready_account(*range(6))
    clients = [world.client(index, account.endpoint).connected(f"c{index}").subscribe("t") for index in range(6)]
    for _ in range(12):
        world.plane.take_ready()
        order = [clients[index] for index in (4, 0, 5, 2, 1, 3)]
        for client in order:
            client.received()
            client.send(PingReq())

        assert world.plane.take_ready() == [client.connection for client in order]


def test_a_failure_of_the_emulator_costs_one_connection_and_is_told() -> None:
    world = World()
    account = world.ready_account(0, 1)
    one = world.client(0, account.endpoint).connected("one")
    two = world.client(1, account.endpoint).connected("two")
    world.plane.fault(one.connection, "the emulator failed: KeyError", world.now)

    assert one.closed
    assert not two.closed
    assert [entry.kind for entry in world.history.select(verdict="failed")] == ["fault"]
    assert world.last().reason == DisconnectReason.SERVER_ERROR


def test_mqtt_5_properties_of_connect_do_not_disturb_registration() -> None:
    world = World()
    account = account_with_ca(world)
    client = world.client(0, account.endpoint, version=V5)
    client.send(Connect(client_id="c", version=V5, properties=Properties(session_expiry_interval=5, receive_maximum=1)))

    assert client.received() == []
    assert world.status(account, device(0)) == "PENDING_ACTIVATION"


def test_publish_from_one_account_never_reaches_the_same_topic_in_another() -> None:
    world = World()
    here, there = world.ready_account(0), world.ready_account(0, account_id=B)
    listener_there = world.client(0, there.endpoint).connected("l").subscribe("#", qos=1)
    world.client(0, here.endpoint).connected("p").send(Publish(topic="t", payload=b"x", qos=1, packet_id=1))

    assert listener_there.received() == []
