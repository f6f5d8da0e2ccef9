"""What devices meet of domain configurations, temporary claims, transfers and certificates that the service made."""

import pytest
from cryptography import x509

from devicesim.emulator.admission import CertificatePermissions
from devicesim.emulator.packets import ProtocolVersion
from devicesim.emulator.registry import Partition
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.environment import ControlSettings
from devicesim.emulator.state.records import DeviceCertificate, DomainStatus
from devicesim.pki.identity import Identity
from tests.control_support import make_key
from tests.emulator_support import ALLOW_ALL, REGION, A, B, Client, World, device

DOMAIN = "iot.example.com"


def holder(record: DeviceCertificate) -> Identity:
    """A device with the certificate of a record; the World proves no keys."""
    key = make_key("any")
    return Identity(key=key, certificate=x509.load_pem_x509_certificate(record.pem.encode()))  # type: ignore[arg-type]


def custom_domain(world: World, account: Partition, **options: object) -> None:
    world.registry.domains.create(
        account,
        "own",
        domain_name=DOMAIN,
        server_certificate_arns=[f"arn:aws:acm:{account.region}:{account.account_id}:certificate/1"],
        options=options,
    )


def opened(world: World, record: DeviceCertificate, server_name: str | None, **fields: object) -> Client:
    return world.open(world.present(holder(record), server_name), **fields)  # type: ignore[arg-type]


class TestDomains:
    def test_custom_domain_lets_the_accounts_devices_in(self) -> None:
        world = World()
        account = world.ready_account(0)
        custom_domain(world, account)

        world.client(0, DOMAIN).connected()
        world.client(0, "IoT.example.COM").connected("d")

        assert world.client(0, "other.example.com").connect() == []

    def test_disabled_domain_refuses_with_its_reason_and_keeps_who_is_connected(self) -> None:
        world = World()
        account = world.ready_account(0)
        custom_domain(world, account)
        before = world.client(0, DOMAIN).connected()
        world.registry.domains.update(account, "own", status=DomainStatus.DISABLED, options={})

        refused = world.client(0, DOMAIN)
        answer = refused.connect("d")

        assert (answer, refused.closed, before.closed) == ([], True, False)
        assert world.last().reason == "DOMAIN_CONFIGURATION_DISABLED"
        assert world.last().account_id == A
        world.client(0, account.endpoint).connected("e")
        world.registry.domains.update(account, "own", status=DomainStatus.ENABLED, options={})
        world.client(0, DOMAIN).connected("f")

    def test_unknown_leaf_is_registered_through_a_custom_domain_and_not_through_a_disabled_one(self) -> None:
        world = World()
        account = world.ready_account()
        custom_domain(world, account)
        world.registry.domains.update(account, "own", status=DomainStatus.DISABLED, options={})
        world.client(1, DOMAIN).connect()
        assert world.status(account, device(1)) is None

        world.registry.domains.update(account, "own", status=DomainStatus.ENABLED, options={})
        world.client(1, DOMAIN).connect()

        assert world.status(account, device(1)) == "PENDING_ACTIVATION"

    @pytest.mark.parametrize(
        "options",
        [
            {"application_protocol": "HTTPS"},
            {"application_protocol": "MQTT_WSS"},
            {"authentication_type": "CUSTOM_AUTH"},
        ],
    )
    def test_domain_for_another_protocol_lets_no_certificate_in(self, options: dict[str, str]) -> None:
        world = World()
        account = world.ready_account(0)
        custom_domain(world, account, **options)

        assert world.client(0, DOMAIN).connect() == []
        assert world.last().reason == "DOMAIN_CONFIGURATION_INVALID"

    def test_domain_for_another_protocol_lets_everybody_in_where_the_setting_says_so(self) -> None:
        world = World(Settings(domain_protocol_enforced=False))
        account = world.ready_account(0)
        custom_domain(world, account, application_protocol="HTTPS")

        world.client(0, DOMAIN).connected()
        world.registry.domains.update(account, "own", status=DomainStatus.DISABLED, options={})
        assert world.client(0, DOMAIN).connect("d") == []

    @pytest.mark.parametrize(
        "options", [{"application_protocol": "SECURE_MQTT", "authentication_type": "AWS_X509"}, {}]
    )
    def test_domain_for_mqtt_with_certificates_does(self, options: dict[str, str]) -> None:
        world = World()
        account = world.ready_account(0)
        custom_domain(world, account, **options)

        world.client(0, DOMAIN).connected()

    def test_domain_is_of_its_region(self) -> None:
        world = World()
        account = world.ready_account(0)
        custom_domain(world, account)

        assert world.client(0, DOMAIN, region="eu-west-1").connect() == []


class TestIssued:
    @pytest.mark.parametrize("named", [True, False])
    def test_made_certificate_connects_with_and_without_server_name(self, named: bool) -> None:
        world = World()
        account = world.account()
        record, _ = world.registry.certificates.create_keys(account, active=True)
        world.registry.policies.create(account, "p", ALLOW_ALL)
        world.registry.policies.attach(account, "p", record.arn)

        opened(world, record, account.endpoint if named else None).connected()

    def test_made_certificate_is_inactive_unless_asked_otherwise(self) -> None:
        world = World()
        record, _ = world.registry.certificates.create_keys(world.account())

        assert opened(world, record, world.account().endpoint).connect() == []
        assert world.last().reason == "DEVICE_CERTIFICATE_INACTIVE"


class TestTransfers:
    def test_transferred_certificate_connects_to_the_new_account_alone(self) -> None:
        world = World()
        a, b = world.ready_account(), world.account(B)
        world.register_leaf(a, device(0), status="INACTIVE", policy=None)
        leaf = device(0).certificate_id
        world.registry.transfers.start(a, leaf, B)
        for account in (a, b):
            assert world.client(0, account.endpoint).connect() == []
            assert world.last().reason == "DEVICE_CERTIFICATE_INACTIVE"

        world.registry.transfers.accept(b, leaf, active=True)
        world.allow(b, device(0))

        world.client(0, b.endpoint).connected()

    def test_certificate_in_default_mode_answers_without_server_name_for_its_owner(self) -> None:
        world = World()
        a, b = world.account(), world.account(B)
        record, _ = world.registry.certificates.create_keys(a)
        world.registry.transfers.start(a, record.certificate_id, B)
        opened(world, record, None).connect()
        assert world.last().account_id == A
        world.registry.transfers.accept(b, record.certificate_id, active=True)
        world.registry.policies.create(b, "p", ALLOW_ALL)
        world.registry.policies.attach(b, "p", b.certificate_arn(record.certificate_id))

        opened(world, record, None).connected()
        assert world.registry.default_certificate_holder(REGION, record.certificate_id) is b


class TestClaims:
    def claim(self, world: World) -> DeviceCertificate:
        account = world.account()
        role = "arn:aws:iam::111111111111:role/provisioning"
        body = '{"Resources": {"c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": "x"}}, "p": '
        body += '{"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "p"}}}}'
        world.registry.templates.create(account, "fleet", body=body, role_arn=role, enabled=True)
        return world.registry.claims.create(account, "fleet").certificate

    def test_claim_connects_as_anybody_and_is_cut_off_when_its_time_is_over(self) -> None:
        world = World()
        client = opened(world, self.claim(world), world.account().endpoint).connected("anybody")
        world.advance(299)
        client.send_bytes(b"\xc0\x00")  # PINGREQ: alive
        assert not client.closed
        world.advance(1.1)

        assert client.closed
        assert world.account().certificates == {}

    def test_claim_may_publish_to_its_template_and_nowhere_else(self) -> None:
        world = World()
        record = self.claim(world)
        allowed = [
            "$aws/certificates/create/json",
            "$aws/certificates/create-from-csr/cbor",
            "$aws/provisioning-templates/fleet/provision/json",
        ]
        denied = ["$aws/provisioning-templates/other/provision/json", "data/x"]
        permissions = CertificatePermissions(
            registry=world.registry,
            partition=world.account(),
            certificate_id=record.certificate_id,
            client_id="c",
            source_ip="203.0.113.7",
        )

        assert [permissions.allows("iot:Publish", "topic", each) for each in allowed] == [True] * 3
        assert [permissions.allows("iot:Publish", "topic", each) for each in denied] == [False] * 2
        accepted = [f"{each}/accepted" for each in allowed]
        assert [permissions.allows("iot:Subscribe", "topicfilter", each) for each in accepted] == [True] * 3
        assert [permissions.allows("iot:Receive", "topic", each) for each in accepted] == [True] * 3
        assert not permissions.allows("iot:Subscribe", "topicfilter", "#")

    def test_claim_without_clock_to_end_it_is_refused_by_its_validity(self) -> None:
        world = World()
        record = self.claim(world)
        world.now += 301  # the data plane has not noticed yet

        assert opened(world, record, world.account().endpoint, version=ProtocolVersion.V5).connect() == []
        assert world.last().reason == "NOT_AUTHENTICATED"


def test_two_accounts_with_one_moved_default_leaf_answer_nobody_when_the_setting_says_so() -> None:
    def answered(moved_default_leaf_answers: bool) -> str | None:
        world = World(Settings(control=ControlSettings(moved_default_leaf_answers=moved_default_leaf_answers)))
        a, b = world.account(), world.account(B)
        ca = world.register_ca(a)
        world.register_leaf(a, device(0))
        world.registry.cas.update(a, ca.certificate_id, status=type(ca.status).INACTIVE)
        world.registry.cas.delete(a, ca.certificate_id)
        world.register_ca(b)
        world.register_leaf(b, device(0))
        found = world.registry.default_certificate_holder(REGION, device(0).certificate_id)
        return None if found is None else found.account_id

    assert (answered(True), answered(False)) == (B, None)


def test_made_certificate_that_is_pending_is_refused_and_no_ca_is_told_of_it() -> None:
    world = World()
    account = world.account()
    record, _ = world.registry.certificates.create_keys(account, pending=True)
    told: list[str] = []
    world.plane.published.append(lambda _partition, message, _now: told.append(message.topic))

    client = opened(world, record, account.endpoint)

    assert client.connect() == []
    assert client.closed
    assert told == []
    assert account.certificates[record.certificate_id].status == "PENDING_ACTIVATION"
