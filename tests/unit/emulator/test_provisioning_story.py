"""Issue 3, part 3, sentence by sentence: what provisioning does between a device, its CA and several accounts."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.packets import ConnAck
from devicesim.emulator.registry import Partition
from devicesim.emulator.state.records import (
    AutoRegistrationStatus,
    CACertificateStatus,
    CertificateMode,
    RegistrationConfig,
    TemplateType,
)
from devicesim.pki.identity import certificate_pem
from tests.emulator_support import ALLOW_ALL, ROLE, A, B, C, Client, World, device, shared_ca, template

PSEUDO = "AWS::IoT::Certificate::"
ID = device(0).certificate_id
EVENTS = "$aws/events/certificates/registered/#"


def watcher(world: World, account: Partition) -> Client:
    """A device of the account that is told of every registered event."""
    world.registry.certificates.register_without_ca(account, certificate_pem(device(90, "Watcher CA").certificate))
    watching = device(90, "Watcher CA")
    world.update(account, watching, "ACTIVE")
    world.allow(account, watching)
    return world.open(world.present(watching, account.endpoint)).connected("watcher").subscribe(EVENTS)


def events(watching: Client) -> list[dict[str, Any]]:
    return [json.loads(payload) for _, payload in watching.messages()]


class TestTheWholeLanguage:
    """Parameters with defaults, all functions, mappings, overrides, groups, type, billing group, both kinds of
    policy."""

    BODY = json.dumps(
        {
            "Parameters": {
                PSEUDO + "CommonName": {"Type": "String"},
                PSEUDO + "Country": {"Type": "String"},
                PSEUDO + "SerialNumber": {"Type": "String"},
                PSEUDO + "Id": {"Type": "String"},
                "Site": {"Type": "String", "Default": "north-2"},
            },
            "Mappings": {"Countries": {"DE": {"group": "germany", "codes": ["x", "eu"]}}},
            "Resources": {
                "robot": {
                    "Type": "AWS::IoT::Thing",
                    "Properties": {
                        "ThingName": {"Fn::Join": ["_", ["bot", {"Ref": PSEUDO + "CommonName"}]]},
                        "ThingTypeName": "arm",
                        "ThingGroups": [{"Fn::FindInMap": ["Countries", {"Ref": PSEUDO + "Country"}, "group"]}],
                        "BillingGroup": {"Fn::Select": [0, {"Fn::Split": ["-", {"Ref": "Site"}]}]},
                        "AttributePayload": {
                            "serial": {"Fn::Sub": "sn:${AWS::IoT::Certificate::SerialNumber}"},
                            "where": {"Fn::Sub": ["${a}/${Site}", {"a": {"Ref": PSEUDO + "Country"}}]},
                            "zone": {"Fn::Select": ["1", {"Fn::FindInMap": ["Countries", "DE", "codes"]}]},
                        },
                    },
                    "OverrideSettings": {
                        "AttributePayload": "MERGE",
                        "ThingTypeName": "REPLACE",
                        "ThingGroups": "DO_NOTHING",
                    },
                },
                "certificate": {
                    "Type": "AWS::IoT::Certificate",
                    "Properties": {"CertificateId": {"Ref": PSEUDO + "Id"}, "Status": "Active"},
                    "OverrideSettings": {"Status": "DO_NOTHING"},
                },
                "shared": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "shared"}},
                "own": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": json.loads(ALLOW_ALL)}},
            },
        }
    )

    def account(self, world: World) -> Partition:
        account = world.account()
        world.registry.thing_types.create(account, "arm")
        world.registry.thing_types.create(account, "leg")
        for name in ("germany", "elsewhere"):
            world.registry.thing_groups.create(account, name)
        world.registry.billing_groups.create(account, "north")
        world.registry.policies.create(account, "shared", ALLOW_ALL.replace("iot:*", "iot:Connect"))
        world.register_ca(account, mode="SNI_ONLY", template_body=self.BODY)
        return account

    def test_a_new_device(self) -> None:
        world = World()
        account = self.account(world)
        world.client(0, account.endpoint).connect()
        world.advance(2)

        assert world.last().verdict == "provisioned", world.last()
        thing = account.things["bot_robot-000000"]
        assert thing.thing_type_name == "arm"
        assert thing.billing_group_name == "north"
        assert thing.attributes == {"serial": "sn:SN0000", "where": "DE/north-2", "zone": "eu"}
        assert list(account.groups_of_thing[thing.name]) == ["germany"]
        assert len(account.policies_of_target[account.certificate_arn(ID)]) == 2
        assert list(account.things_of_certificate(ID)) == [thing.name]
        assert world.status(account, device(0)) == "ACTIVE"
        world.client(0, account.endpoint).connected()

    def test_a_thing_that_exists_is_overridden_as_the_template_says(self) -> None:
        world = World()
        account = self.account(world)
        name = "bot_robot-000000"
        world.registry.things.create(
            account, name, thing_type_name="leg", attributes={"zone": "old", "kept": "1"}, billing_group_name="north"
        )
        world.registry.thing_groups.add_thing(account, "elsewhere", name)
        world.client(0, account.endpoint).connect()
        world.advance(2)

        assert world.last().verdict == "provisioned", world.last()
        thing = account.things[name]
        assert thing.thing_type_name == "arm"
        assert thing.attributes == {"serial": "sn:SN0000", "where": "DE/north-2", "zone": "eu", "kept": "1"}
        assert list(account.groups_of_thing[name]) == ["elsewhere"]

    @pytest.mark.parametrize("missing", ["arm", "germany", "north", "shared"])
    def test_whatever_must_exist_beforehand_and_does_not_leaves_it_pending(self, missing: str) -> None:
        world = World()
        account = self.account(world)
        if missing == "arm":
            del account.thing_types["arm"]
        elif missing == "germany":
            world.registry.thing_groups.delete(account, "germany")
        elif missing == "north":
            world.registry.billing_groups.delete(account, "north")
        else:
            world.registry.policies.delete(account, "shared")
        policies = set(account.policies)
        world.client(0, account.endpoint).connect()
        world.advance(2)

        entry = world.last()
        assert (entry.verdict, entry.reason) == ("provisioning_failed", "ResourceRegistrationFailureException")
        assert missing in entry.detail
        assert entry.event is not None
        assert entry.event.to_json()["errorMessage"] == entry.detail
        assert world.status(account, device(0)) == "PENDING_ACTIVATION"
        assert (account.things, set(account.policies)) == ({}, policies)


class TestTemplatesAreCheckedWhenRegistered:
    """§1.2, S: RegisterCACertificate, UpdateCACertificate; the named ones at each way in."""

    BAD = template(policy={"PolicyName": ""})
    TEXT = "Invalid registration template. Neither policyName nor policyDocument is present in the Template."

    def ways(self, world: World) -> dict[str, Callable[[str], object]]:
        account = world.account()
        ca = world.register_ca(account, mode="SNI_ONLY")
        templates = world.registry.templates
        templates.create(account, "good", body=template(), role_arn=ROLE, type=TemplateType.JITP)

        def update(body: str) -> object:
            config = RegistrationConfig(template_body=body, role_arn=ROLE)
            return world.registry.cas.update(account, ca.certificate_id, registration_config=config)

        return {
            "RegisterCACertificate": lambda body: world.register_ca(
                account, mode="SNI_ONLY", template_body=body, name="Another CA"
            ),
            "UpdateCACertificate": update,
            "CreateProvisioningTemplate": lambda body: templates.create(account, "t", body=body, role_arn=ROLE),
            "CreateProvisioningTemplateVersion": lambda body: templates.create_version(account, "good", body),
        }

    @pytest.mark.parametrize(
        "way",
        [
            "RegisterCACertificate",
            "UpdateCACertificate",
            "CreateProvisioningTemplate",
            "CreateProvisioningTemplateVersion",
        ],
    )
    def test_a_template_that_could_never_provision_is_refused_in_aws_s_words(self, way: str) -> None:
        world = World()
        act = self.ways(world)[way]
        with pytest.raises(APIError) as caught:
            act(self.BAD)

        assert (caught.value.code, caught.value.message) == ("InvalidRequestException", self.TEXT)
        act(template())


class TestFailures:
    def test_a_template_that_is_mended_takes_effect_with_the_next_connect(self) -> None:
        world = World()
        account = world.account()
        ca = world.register_ca(account, mode="SNI_ONLY", template_body=template(policy={"PolicyName": "nobody"}))
        for _ in range(2):
            world.client(0, account.endpoint).connect()
            world.advance(2)
            assert world.last().verdict == "provisioning_failed"
        config = RegistrationConfig(template_body=template(), role_arn=ROLE)
        world.registry.cas.update(account, ca.certificate_id, registration_config=config)
        world.advance(60)
        assert world.status(account, device(0)) == "PENDING_ACTIVATION"

        world.client(0, account.endpoint).connect()
        world.advance(2)

        assert world.status(account, device(0)) == "ACTIVE"

    def test_a_subject_without_the_parameter_is_told_in_aws_s_words(self) -> None:
        """SE272476, M. The device's certificate has no common name that the template could take."""
        world = World()
        account = world.account()
        world.registry.cas.register(
            account,
            certificate_pem(shared_ca("Watcher CA").certificate),
            mode=CertificateMode.SNI_ONLY,
            active=True,
            auto_registration=True,
            registration_config=RegistrationConfig(
                template_body=template(parameters=("CommonName", "Country", "Id"), Parameters=_with_locality()),
                role_arn=ROLE,
            ),
        )
        world.open(world.present(device(0, "Watcher CA"), account.endpoint)).connect()
        world.advance(2)

        assert world.last().detail == "Invalid registration template. Cannot resolve reference value: {Ref=Locality}"
        assert world.last().reason == "InvalidRequestException"


def _with_locality() -> dict[str, object]:
    return {"Locality": {"Type": "String"}, PSEUDO + "CommonName": {"Type": "String"}}


class TestJITR:
    def test_the_event_repeats_on_every_connect_while_pending_and_never_after(self) -> None:
        world = World()
        account = world.account()
        world.register_ca(account, mode="SNI_ONLY")
        watching = watcher(world, account)
        for _ in range(3):
            assert world.client(0, account.endpoint).connect() == []
            world.advance(1)
        told = events(watching)
        registered = str(round((world.epoch() - 3) * 1000))

        assert [each["certificateRegistrationTimestamp"] for each in told] == [None, registered, registered]
        assert {each["certificateStatus"] for each in told} == {"PENDING_ACTIVATION"}
        for status in ("ACTIVE", "INACTIVE", "REVOKED"):
            world.update(account, device(0), status)
            world.client(0, account.endpoint).connect()
        assert events(watching) == []

    def test_the_same_leaf_in_three_accounts_is_three_records(self) -> None:
        """§7: statuses, policies and things are fully independent; the id is the same."""
        world = World()
        accounts = [world.account(each) for each in (A, B, C)]
        world.register_ca(accounts[0], mode="DEFAULT")
        for account in accounts[1:]:
            world.register_ca(account, mode="SNI_ONLY")
        for account in accounts:
            world.client(0, account.endpoint).connect()

        assert [world.status(account, device(0)) for account in accounts] == ["PENDING_ACTIVATION"] * 3
        assert [account.certificates[ID].mode for account in accounts] == ["DEFAULT", "SNI_ONLY", "SNI_ONLY"]
        world.update(accounts[0], device(0), "ACTIVE")
        world.allow(accounts[0], device(0))
        world.update(accounts[1], device(0), "REVOKED")
        live = world.client(0, accounts[0].endpoint).connected()

        assert world.client(0, accounts[1].endpoint).connect() == []
        assert world.last().reason == "DEVICE_CERTIFICATE_REVOKED"
        assert world.client(0, accounts[2].endpoint).connect() == []
        assert world.history.select(kind="connection")[-1].verdict == "pending"
        assert not live.closed
        assert accounts[1].policies_of_target == {}


class TestRegisteredWithoutACA:
    """MAR (§7, §10a): each leaf, each account, no CA anywhere, SNI mandatory."""

    def test_the_same_leaf_in_two_accounts_by_server_name_only(self) -> None:
        world = World()
        accounts = [world.account(A), world.account(B)]
        watching = watcher(world, accounts[0])
        for account in accounts:
            record = world.registry.certificates.register_without_ca(account, certificate_pem(device(0).certificate))
            assert (record.status, record.mode, record.ca_certificate_id) == ("INACTIVE", "SNI_ONLY", None)
            world.update(account, device(0), "ACTIVE")
            world.allow(account, device(0))
        clients = [world.client(0, account.endpoint).connected() for account in accounts]

        assert [client.closed for client in clients] == [False, False]
        assert world.client(0, None, chain=True).connect() == []
        assert (world.last().verdict, world.last().account_id) == ("refused", None)
        assert world.client(0, world.account(C).endpoint).connect() == []
        assert world.last().reason == "DEVICE_CERTIFICATE_NOT_REGISTERED"
        assert events(watching) == []

    def test_a_leaf_under_a_default_ca_of_one_account_may_be_registered_alone_in_another(self) -> None:
        world = World()
        one, two = world.account(A), world.account(B)
        world.register_ca(one, mode="DEFAULT")
        world.register_leaf(one, device(0))
        world.registry.certificates.register_without_ca(two, certificate_pem(device(0).certificate))

        assert [account.certificates[ID].mode for account in (one, two)] == ["DEFAULT", "SNI_ONLY"]
        assert world.client(0, None).connect() == [ConnAck()]
        assert world.last().account_id == A

    def test_twice_in_one_account_is_refused(self) -> None:
        world = World()
        world.registry.certificates.register_without_ca(world.account(), certificate_pem(device(0).certificate))
        with pytest.raises(APIError, match="already provisioned or registered"):
            world.registry.certificates.register_without_ca(world.account(), certificate_pem(device(0).certificate))


class TestCADeactivation:
    """§1.3: no further registration under it; registered devices keep working."""

    @pytest.mark.parametrize(
        "change",
        [{"status": CACertificateStatus.INACTIVE}, {"auto_registration": AutoRegistrationStatus.DISABLE}],
        ids=["INACTIVE", "DISABLE"],
    )
    def test_registered_devices_keep_working_and_no_others_come(self, change: dict[str, Any]) -> None:
        world = World()
        account = world.account()
        ca = world.register_ca(account, mode="SNI_ONLY", template_body=template())
        for index in (0, 1):
            world.client(index, account.endpoint).connect()
        world.advance(2)
        world.update(account, device(1), "INACTIVE")
        live = world.client(0, account.endpoint).connected("live")
        world.registry.cas.update(account, ca.certificate_id, **change)

        assert not live.closed
        world.client(0, account.endpoint).connected("again")
        assert world.client(2, account.endpoint).connect() == []
        assert world.last().reason == "DEVICE_CERTIFICATE_NOT_REGISTERED"
        assert world.status(account, device(2)) is None
        assert world.client(1, account.endpoint).connect() == []
        assert world.last().reason == "DEVICE_CERTIFICATE_INACTIVE"

    def test_a_pending_device_is_not_provisioned_under_it_until_the_ca_is_active_again(self) -> None:
        world = World()
        account = world.account()
        ca = world.register_ca(account, mode="SNI_ONLY", template_body=template(policy={"PolicyName": "later"}))
        world.client(0, account.endpoint).connect()
        world.advance(2)
        world.registry.policies.create(account, "later", ALLOW_ALL)
        world.registry.cas.update(account, ca.certificate_id, status=CACertificateStatus.INACTIVE)
        world.client(0, account.endpoint).connect()
        world.advance(2)
        assert world.status(account, device(0)) == "PENDING_ACTIVATION"

        world.registry.cas.update(account, ca.certificate_id, status=CACertificateStatus.ACTIVE)
        world.client(0, account.endpoint).connect()
        world.advance(2)

        assert world.status(account, device(0)) == "ACTIVE"

    def test_in_one_account_only(self) -> None:
        world = World()
        one, two = world.account(A), world.account(B)
        ca = world.register_ca(one, mode="SNI_ONLY")
        world.register_ca(two, mode="SNI_ONLY")
        world.registry.cas.update(one, ca.certificate_id, status=CACertificateStatus.INACTIVE)
        for account in (one, two):
            world.client(0, account.endpoint).connect()

        assert [world.status(account, device(0)) for account in (one, two)] == [None, "PENDING_ACTIVATION"]


class TestRevocation:
    """§1.4: moving away from ACTIVE disconnects live devices."""

    def test_every_connection_of_the_certificate_goes_and_no_other(self) -> None:
        world = World()
        account = world.ready_account(0, 1)
        mine = [world.client(0, account.endpoint).connected(f"c{number}") for number in range(3)]
        other = world.client(1, account.endpoint).connected("other")
        world.update(account, device(0), "REVOKED")
        world.advance(0)

        assert [each.closed for each in mine] == [True] * 3
        assert not other.closed
        assert [entry.reason for entry in world.history.select(verdict="disconnected")] == ["AUTH_ERROR"] * 3
        assert world.plane.load(account).connections == 1

    def test_a_deleted_record_registers_again_and_a_revoked_one_never(self) -> None:
        """§2: why AWS recommends to keep the record REVOKED (I, M)."""
        world = World()
        account = world.account()
        world.register_ca(account, mode="SNI_ONLY")
        world.client(0, account.endpoint).connect()
        world.update(account, device(0), "REVOKED")
        world.client(0, account.endpoint).connect()
        assert world.status(account, device(0)) == "REVOKED"

        world.registry.certificates.delete(account, ID)
        world.client(0, account.endpoint).connect()

        assert world.status(account, device(0)) == "PENDING_ACTIVATION"
