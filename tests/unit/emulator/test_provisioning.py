"""JITP runs: what they make, what they do with what exists, and that a refusal leaves nothing behind."""

import json
import re
from collections.abc import Mapping
from datetime import timedelta

import botocore.session
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devicesim.emulator import provisioning
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.provisioning import Outcome, certificate_parameters, provision, validate_template
from devicesim.emulator.registry import Partition
from devicesim.emulator.state.records import EffectiveTemplate
from tests.emulator_support import ALLOW_ALL, EPOCH, ROLE, World, device, template

NAME = "robot-000000"
ID = device(0).certificate_id


def ref(name: str) -> dict[str, str]:
    return {"Ref": f"AWS::IoT::Certificate::{name}"}


@pytest.fixture
def world() -> World:
    """The device's certificate is PENDING_ACTIVATION."""
    world = World()
    ca = world.register_ca(world.account(), mode="SNI_ONLY")
    world.registry.auto_register(world.account(), device(0).certificate, ca)
    return world


def run(world: World, body: str, *, enabled: bool = True, existing: str = "FAIL") -> Outcome:
    effective = EffectiveTemplate(body=body, role_arn=ROLE, name=None, enabled=enabled)
    return provision(
        world.registry,
        world.account(),
        ID,
        effective,
        existing_thing=existing,  # type: ignore[arg-type]  # one of the two
    )


def snapshot(account: Partition) -> str:
    """Everything that a run could leave behind."""
    return repr(
        (
            sorted(account.things.items()),
            sorted(account.policies.items()),
            {key: list(value) for key, value in account.policies_of_target.items()},
            {key: list(value) for key, value in account.targets_of_policy.items()},
            {key: list(value) for key, value in account.things_of_principal.items()},
            {key: list(value) for key, value in account.groups_of_thing.items()},
            account.certificates[ID].status,
        )
    )


def test_makes_thing_policy_and_attachments_and_activates(world: World) -> None:
    account = world.account()
    attributes = {"version": "v1", "site": ref("StateName")}
    outcome = run(world, template(thing={"ThingName": ref("CommonName"), "AttributePayload": attributes}))

    assert outcome.succeeded, outcome
    assert outcome.thing_name == NAME
    assert account.things[NAME].attributes == {"version": "v1", "site": "Bavaria"}
    assert list(account.things_of_certificate(ID)) == [NAME]
    assert tuple(account.policies_of_target[account.certificate_arn(ID)]) == outcome.policy_names
    assert account.policies[outcome.policy_names[0]].default.document == ALLOW_ALL
    assert world.status(account, device(0)) == "ACTIVE"


def test_pseudo_parameters_come_from_the_subject() -> None:
    values = certificate_parameters(device(7).certificate, "an-id")

    assert {name.removeprefix("AWS::IoT::Certificate::"): value for name, value in values.items()} == {
        "Id": "an-id",
        "Country": "DE",
        "Organization": "Example",
        "OrganizationalUnit": "Robots",
        "DistinguishedNameQualifier": "q7",
        "StateName": "Bavaria",
        "CommonName": "robot-000007",
        "SerialNumber": "SN0007",  # the subject's attribute, not the certificate's serial number
    }


def test_of_several_values_the_first_counts_and_what_is_absent_has_none() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, value) for value in ("first", "second")]
    subject = x509.Name([*names, x509.NameAttribute(NameOID.LOCALITY_NAME, "Munich")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(EPOCH)
        .not_valid_after(EPOCH + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    values = certificate_parameters(certificate, "i")

    assert values == {
        "AWS::IoT::Certificate::Id": "i",
        "AWS::IoT::Certificate::OrganizationalUnit": "first",
    }


def test_an_existing_policy_by_name(world: World) -> None:
    world.registry.policies.create(world.account(), "fleet", ALLOW_ALL)
    outcome = run(world, template(policy={"PolicyName": "fleet"}))

    assert outcome.policy_names == ("fleet",)
    assert list(world.account().policies) == ["fleet"]


def test_a_second_device_shares_the_policy_of_the_same_document(world: World) -> None:
    account = world.account()
    run(world, template())
    ca = next(iter(account.cas.values()))
    world.registry.auto_register(account, device(1).certificate, ca)
    effective = EffectiveTemplate(body=template(), role_arn=ROLE, name=None, enabled=True)
    outcome = provision(world.registry, account, device(1).certificate_id, effective)

    assert outcome.succeeded, outcome
    assert len(account.policies) == 1
    assert sorted(account.things) == ["robot-000000", "robot-000001"]


def test_a_certificate_may_be_left_inactive(world: World) -> None:
    outcome = run(world, template(certificate={"CertificateId": ref("Id"), "Status": "INACTIVE"}))

    assert outcome.succeeded
    assert world.status(world.account(), device(0)) == "INACTIVE"


def test_groups_and_type_that_exist_beforehand(world: World) -> None:
    account = world.account()
    world.registry.thing_types.create(account, "robot")
    world.registry.thing_groups.create(account, "DE")
    thing = {"ThingName": ref("CommonName"), "ThingTypeName": "robot", "ThingGroups": [ref("Country")]}
    outcome = run(world, template(thing=thing))

    assert outcome.succeeded, outcome
    assert account.things[NAME].thing_type_name == "robot"
    assert list(account.groups_of_thing[NAME]) == ["DE"]


FAILURES = {
    "parameter absent": (template(parameters=("Id",), Parameters={"Nobody": {"Type": "String"}}), "Ref=Nobody"),
    "thing type missing": (template(thing={"ThingName": "t", "ThingTypeName": "no"}), "Thing type not found"),
    "group missing": (template(thing={"ThingName": "t", "ThingGroups": ["no"]}), "thing group no"),
    "billing group": (template(thing={"ThingName": "t", "BillingGroup": "no"}), "billing group no"),
    "too many attributes": (
        template(thing={"ThingName": "t", "AttributePayload": dict.fromkeys("abcd", "x")}),
        "at most 3 attributes",
    ),
    "policy missing": (template(policy={"PolicyName": "no"}), "policy no"),
    "policy malformed": (template(policy={"PolicyDocument": "{}"}), ""),
    "another certificate": (template(certificate={"CertificateId": "other"}), "not that of the device"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_leaves_nothing_behind_and_says_why(world: World, name: str) -> None:
    body, message = FAILURES[name]
    before = snapshot(world.account())
    outcome = run(world, body)

    assert not outcome.succeeded
    assert outcome.error
    assert message in outcome.detail
    assert snapshot(world.account()) == before


@pytest.mark.parametrize(
    ("thing", "where"),
    [
        ({"ThingName": "robot 1"}, "thingName"),
        ({"ThingName": "robot\\\\=US"}, "thingName"),
        ({"ThingName": "r" * 129}, "thingName"),
        ({"ThingName": "robot\n"}, "thingName"),
        ({"ThingName": "r", "AttributePayload": {"a b": "c"}}, "attributePayload.attributes.key"),
        ({"ThingName": "r", "AttributePayload": {"org": "Acme Inc"}}, "attributePayload.attributes.org.value"),
    ],
)
def test_a_thing_that_create_thing_would_refuse(world: World, thing: Mapping[str, object], where: str) -> None:
    before = snapshot(world.account())
    outcome = run(world, template(thing=thing))

    assert (outcome.succeeded, outcome.error) == (False, "InvalidRequestException")
    assert f"at '{where}' failed to satisfy constraint" in outcome.detail
    assert snapshot(world.account()) == before


@pytest.mark.parametrize(
    ("shape", "pattern"),
    [
        ("ThingName", provisioning.THING_NAME),
        ("AttributeName", provisioning.ATTRIBUTE_NAME),
        ("AttributeValue", provisioning.ATTRIBUTE_VALUE),
    ],
)
def test_the_constraints_are_those_of_the_service_model(shape: str, pattern: re.Pattern[str]) -> None:
    model = botocore.session.get_session().get_service_model("iot").shape_for(shape).metadata
    unlimited = pattern.pattern[: pattern.pattern.rindex("{")]

    assert model["pattern"][:-1] == unlimited
    assert pattern.pattern.endswith(f",{model['max']}}}")


def test_a_failure_at_the_last_step_takes_everything_back(world: World) -> None:
    """The limit of policies is met when thing, groups and all policies are already there."""
    account = world.account()
    world.registry.thing_groups.create(account, "g")
    for number in range(9):
        world.allow(account, device(0), ALLOW_ALL.replace("iot:*", f"iot:{number}"))
    body = json.loads(template(thing={"ThingName": "t", "ThingGroups": ["g"]}))
    for number in range(2):
        document = ALLOW_ALL.replace("iot:*", f"iot:x{number}")
        body["Resources"][f"p{number}"] = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": document}}
    before = snapshot(account)
    outcome = run(world, json.dumps(body))

    assert (outcome.succeeded, outcome.error) == (False, "ResourceRegistrationFailureException")
    assert outcome.cause == "LimitExceededException"
    assert snapshot(account) == before


class TestExistingThing:
    """OverrideSettings (developer guide, D)."""

    @pytest.fixture
    def account(self, world: World) -> Partition:
        account = world.account()
        for name in ("old", "new"):
            world.registry.thing_types.create(account, name)
            world.registry.thing_groups.create(account, name)
        world.registry.things.create(account, NAME, thing_type_name="old", attributes={"a": "1", "b": "2"})
        world.registry.thing_groups.add_thing(account, "old", NAME)
        return account

    THING = {  # noqa: RUF012 - read only
        "ThingName": NAME,
        "AttributePayload": {"b": "3", "c": "4"},
        "ThingTypeName": "new",
        "ThingGroups": ["new"],
    }

    def test_without_settings_another_configuration_fails(self, world: World, account: Partition) -> None:
        before = snapshot(account)
        outcome = run(world, template(thing=self.THING))

        assert outcome.error == "ResourceRegistrationFailureException"
        assert snapshot(account) == before

    def test_without_settings_it_can_be_left_alone_when_so_set(self, world: World, account: Partition) -> None:
        outcome = run(world, template(thing=self.THING), existing="DO_NOTHING")

        assert outcome.succeeded, outcome
        assert account.things[NAME].attributes == {"a": "1", "b": "2"}
        assert account.things[NAME].thing_type_name == "old"
        assert list(account.groups_of_thing[NAME]) == ["old"]
        assert list(account.things_of_certificate(ID)) == [NAME]

    def test_replace(self, world: World, account: Partition) -> None:
        overrides = dict.fromkeys(("AttributePayload", "ThingTypeName", "ThingGroups"), "REPLACE")
        outcome = run(world, template(thing=self.THING, overrides=overrides))

        assert outcome.succeeded, outcome
        assert account.things[NAME].attributes == {"b": "3", "c": "4"}
        assert account.things[NAME].thing_type_name == "new"
        assert list(account.groups_of_thing[NAME]) == ["new"]

    def test_merge(self, world: World, account: Partition) -> None:
        overrides = {"AttributePayload": "MERGE", "ThingTypeName": "DO_NOTHING", "ThingGroups": "MERGE"}
        outcome = run(world, template(thing=self.THING, overrides=overrides))

        assert outcome.succeeded, outcome
        assert account.things[NAME].attributes == {"a": "1", "b": "3", "c": "4"}
        assert account.things[NAME].thing_type_name == "old"
        assert list(account.groups_of_thing[NAME]) == ["old", "new"]

    @pytest.mark.parametrize("which", ["AttributePayload", "ThingTypeName", "ThingGroups"])
    def test_fail(self, world: World, account: Partition, which: str) -> None:
        overrides = dict.fromkeys(("AttributePayload", "ThingTypeName", "ThingGroups"), "REPLACE") | {which: "FAIL"}
        before = snapshot(account)
        outcome = run(world, template(thing=self.THING, overrides=overrides))

        assert "ResourceConflictsException" in outcome.detail
        assert snapshot(account) == before

    def test_a_thing_of_the_same_configuration_is_no_conflict(self, world: World, account: Partition) -> None:
        thing = {
            "ThingName": NAME,
            "AttributePayload": {"a": "1", "b": "2"},
            "ThingTypeName": "old",
            "ThingGroups": ["old"],
        }

        assert run(world, template(thing=thing)).succeeded

    def test_a_later_failure_restores_what_was_replaced(self, world: World, account: Partition) -> None:
        overrides = dict.fromkeys(("AttributePayload", "ThingTypeName", "ThingGroups"), "REPLACE")
        before = snapshot(account)
        outcome = run(world, template(thing=self.THING, overrides=overrides, policy={"PolicyName": "no"}))

        assert not outcome.succeeded
        assert snapshot(account) == before


@pytest.mark.parametrize("status", ["ACTIVE", "INACTIVE", "REVOKED"])
def test_a_certificate_that_somebody_has_changed_meanwhile_is_left_alone(world: World, status: str) -> None:
    world.update(world.account(), device(0), status)
    before = snapshot(world.account())
    outcome = run(world, template())

    assert (outcome.succeeded, outcome.error) == (False, "CertificateStateException")
    assert snapshot(world.account()) == before


def test_a_certificate_that_has_been_deleted_meanwhile(world: World) -> None:
    world.registry.certificates.delete(world.account(), ID)

    assert run(world, template()).error == "ResourceNotFoundException"


def test_a_template_that_is_switched_off(world: World) -> None:
    outcome = run(world, template(), enabled=False)

    assert not outcome.succeeded
    assert "not enabled" in outcome.detail
    assert world.status(world.account(), device(0)) == "PENDING_ACTIVATION"


def test_validation_is_what_the_registry_asks_for() -> None:
    validate_template(template())
    with pytest.raises(APIError, match="InvalidRequestException"):
        validate_template("{}")
