"""What a JITP template asks of a certificate and of its account."""

import json
from typing import Any

import pytest
from cryptography import x509

from devicesim.cloud.jitptemplate import PREFIX, ThingWanted, Wanted, collisions, read, subject_parameters
from tests.emulator_support import device, template

SUBJECT = {"CommonName": "robot-7", "Country": "DE"}
ID = "a" * 64
CN = {"Ref": PREFIX + "CommonName"}


def wanted(body: str) -> Wanted:
    return read(body, SUBJECT, ID)


def named(thing_name: Any, **sections: Any) -> str | None:
    """The thing's name that a template makes of the subject."""
    found = wanted(template(parameters=("CommonName", "Country", "Id"), thing={"ThingName": thing_name}, **sections))
    return None if found.thing is None else found.thing.name


def test_every_attribute_of_a_subject_that_a_template_can_read_is_found() -> None:
    assert subject_parameters(device(3).certificate.subject) == {
        "CommonName": "robot-000003",
        "SerialNumber": "SN0003",
        "Organization": "Example",
        "OrganizationalUnit": "Robots",
        "Country": "DE",
        "StateName": "Bavaria",
        "DistinguishedNameQualifier": "q3",
    }
    assert subject_parameters(x509.Name([])) == {}


def test_a_declared_parameter_without_default_must_be_in_the_subject() -> None:
    body = template(parameters=("CommonName", "SerialNumber", "StateName", "Id"))

    assert wanted(body).missing_parameters == (PREFIX + "SerialNumber", PREFIX + "StateName")
    document = json.loads(body)
    document["Parameters"][PREFIX + "SerialNumber"]["Default"] = "none"
    assert wanted(json.dumps(document)).missing_parameters == (PREFIX + "StateName",)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("literal", "literal"),
        (CN, "robot-7"),
        ({"Fn::Join": ["-", ["x", CN, {"Ref": PREFIX + "Country"}]]}, "x-robot-7-DE"),
        ({"Fn::Sub": "x-${AWS::IoT::Certificate::CommonName}"}, "x-robot-7"),
        ({"Fn::Sub": ["${a}-${AWS::IoT::Certificate::Country}", {"a": CN}]}, "robot-7-DE"),
        ({"Fn::Select": ["1", {"Fn::Split": ["-", CN]}]}, "7"),
        ({"Fn::Select": [5, {"Fn::Split": ["-", CN]}]}, None),
        ({"Fn::FindInMap": ["names", {"Ref": PREFIX + "Country"}, "name"]}, "german"),
        ({"Fn::Unknown": "x"}, None),
    ],
)
def test_a_name_is_made_of_the_subject_as_the_template_says(function: Any, name: str | None) -> None:
    assert named(function, Mappings={"names": {"DE": {"name": "german"}}}) == name


def test_what_the_account_must_have_is_told_by_its_name() -> None:
    body = template(
        thing={"ThingName": CN, "ThingTypeName": "robot", "ThingGroups": ["g", CN], "BillingGroup": "b"},
        policy={"PolicyName": {"Fn::Join": ["-", ["p", CN]]}},
    )

    found = wanted(body)

    assert found.thing is not None
    assert (found.thing.name, found.thing.type_name) == ("robot-7", "robot")
    assert (found.groups, found.billing_group, found.policies) == (("g", "robot-7"), "b", ("p-robot-7",))
    assert wanted(template(policy={"PolicyDocument": "{}"})).policies == ()
    assert found.problems == ()


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("{", "the template is not JSON: "),
        (template(parameters=("Id",)), ""),
        (template(thing={"ThingName": {"Ref": "Nothing"}}), "it refers to Nothing, which is no parameter of it"),
        (template(thing={"ThingName": "a b"}), "'a b' cannot be a thing's name"),
        ("[]", ""),
        ('{"Parameters": 1, "Resources": [2]}', ""),
    ],
)
def test_what_would_fail_anywhere_is_a_problem(body: str, problem: str) -> None:
    problems = wanted(body).problems

    assert len(problems) == bool(problem)
    assert all(each.startswith(problem) for each in problems)


def test_nesting_without_end_is_not_followed() -> None:
    nested: Any = CN
    for _ in range(100):
        nested = {"Fn::Join": ["", [nested]]}

    assert named(nested) is None


@pytest.mark.parametrize(
    ("overridden", "type_name", "attributes", "collides"),
    [
        ((), "robot", {"a": "1"}, []),
        ((), "other", {"a": "1"}, ["the thing 'r' exists with the type 'other', not 'robot'"]),
        ((), None, {"a": "1"}, ["the thing 'r' exists with no type, not 'robot'"]),
        ((), "robot", {"a": "2"}, ["the thing 'r' exists with other attributes than the template's"]),
        (("ThingTypeName", "AttributePayload"), "other", {}, []),
    ],
)
def test_a_thing_of_that_name_is_in_the_way_unless_it_is_the_same_or_overridden(
    overridden: tuple[str, ...], type_name: str | None, attributes: dict[str, str], collides: list[str]
) -> None:
    thing = ThingWanted(name="r", type_name="robot", attributes={"a": "1"}, overridden=frozenset(overridden))

    assert list(collisions(thing, type_name, attributes)) == collides
