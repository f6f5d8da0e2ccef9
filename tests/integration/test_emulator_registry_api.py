"""Groups, types and what policies decide, through boto3 and over real sockets."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.control_support import NOW, REGION, A, Clock, TestCA, make_registry, pem, running_api_in_a_thread
from tests.integration.test_emulator_api import POLICY, Cloud, pages, refused

PREFIX = f"arn:aws:iot:{REGION}:{A}:"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def a(clock: Clock) -> Iterator[Any]:
    with running_api_in_a_thread(make_registry(clock)) as running:
        clients = Cloud(running.api)
        yield clients.client(A)
        clients.close()


def certificate(a: Any) -> str:
    """The ARN of a registered certificate."""
    leaf = TestCA().leaf()
    return str(a.register_certificate_without_ca(certificatePem=pem(leaf), status="ACTIVE")["certificateArn"])


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def statement(effect: str, action: str, resource: str = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def test_billing_group_from_creation_to_deletion(a: Any) -> None:
    properties = {"billingGroupDescription": "d"}
    created = a.create_billing_group(
        billingGroupName="lab", billingGroupProperties=properties, tags=[{"Key": "k", "Value": "v"}]
    )
    described = a.describe_billing_group(billingGroupName="lab")
    updated = a.update_billing_group(
        billingGroupName="lab", billingGroupProperties={"billingGroupDescription": "e"}, expectedVersion=1
    )

    assert created["billingGroupArn"] == PREFIX + "billinggroup/lab"
    assert {key: value for key, value in described.items() if key != "ResponseMetadata"} == {
        "billingGroupName": "lab",
        "billingGroupId": created["billingGroupId"],
        "billingGroupArn": created["billingGroupArn"],
        "version": 1,
        "billingGroupProperties": properties,
        "billingGroupMetadata": {"creationDate": NOW},
    }
    assert updated["version"] == 2
    assert a.list_tags_for_resource(resourceArn=created["billingGroupArn"])["tags"] == [{"Key": "k", "Value": "v"}]
    conflict = refused(a, "delete_billing_group", billingGroupName="lab", expectedVersion=1)
    assert (conflict["code"], conflict["status"]) == ("VersionConflictException", 409)
    a.delete_billing_group(billingGroupName="lab", expectedVersion=2)
    assert refused(a, "describe_billing_group", billingGroupName="lab")["code"] == "ResourceNotFoundException"


def test_things_of_a_billing_group(a: Any) -> None:
    group = a.create_billing_group(billingGroupName="lab")
    for number in range(7):
        a.create_thing(thingName=f"t{number}")
        a.add_thing_to_billing_group(billingGroupArn=group["billingGroupArn"], thingName=f"t{number}")
    a.create_thing(thingName="t7", billingGroupName="lab")
    a.remove_thing_from_billing_group(billingGroupName="lab", thingArn=PREFIX + "thing/t3")

    assert pages(a, "list_things_in_billing_group", "things", billingGroupName="lab") == [
        "t0",
        "t1",
        "t2",
        "t4",
        "t5",
        "t6",
        "t7",
    ]
    assert a.describe_thing(thingName="t7")["billingGroupName"] == "lab"
    assert "billingGroupName" not in a.describe_thing(thingName="t3")


def test_billing_groups_are_listed_by_prefix(a: Any) -> None:
    for name in ("a1", "a2", "a3", "a4", "b1"):
        a.create_billing_group(billingGroupName=name)

    listed = pages(a, "list_billing_groups", "billingGroups", namePrefixFilter="a")

    assert [group["groupName"] for group in listed] == ["a1", "a2", "a3", "a4"]
    assert listed[0]["groupArn"] == PREFIX + "billinggroup/a1"


def test_thing_group_is_updated(a: Any) -> None:
    a.create_thing_group(thingGroupName="g", thingGroupProperties={"thingGroupDescription": "d"})
    attributes = {"attributePayload": {"attributes": {"x": "1"}}}
    version = a.update_thing_group(thingGroupName="g", thingGroupProperties=attributes, expectedVersion=1)["version"]
    described = a.describe_thing_group(thingGroupName="g")

    assert version == described["version"] == 2
    assert described["thingGroupProperties"] == {"thingGroupDescription": "d", **attributes}
    a.update_thing_group(thingGroupName="g", thingGroupProperties={"attributePayload": {"attributes": {}}})
    assert a.describe_thing_group(thingGroupName="g")["thingGroupProperties"]["attributePayload"] == {}
    conflict = refused(a, "update_thing_group", thingGroupName="g", thingGroupProperties={}, expectedVersion=1)
    assert (conflict["code"], conflict["status"]) == ("VersionConflictException", 409)


def test_thing_group_with_children_is_not_deleted(a: Any) -> None:
    a.create_thing_group(thingGroupName="RedLights")
    a.create_thing_group(thingGroupName="child", parentGroupName="RedLights")

    # the developer guide's own text
    assert refused(a, "delete_thing_group", thingGroupName="RedLights")["message"] == (
        "Cannot delete thing group : RedLights when there are still child groups attached to it."
    )


def test_groups_of_a_thing_are_changed_at_once(a: Any) -> None:
    a.create_thing_group(thingGroupName="top")
    a.create_thing_group(thingGroupName="low", parentGroupName="top")
    a.create_thing_group(thingGroupName="other")
    a.create_thing(thingName="robot")
    a.update_thing_groups_for_thing(thingName="robot", thingGroupsToAdd=["top"])
    a.update_thing_groups_for_thing(
        thingName="robot", thingGroupsToAdd=["low", "other"], thingGroupsToRemove=["top"], overrideDynamicGroups=True
    )

    assert a.list_things_in_thing_group(thingGroupName="top")["things"] == []
    assert a.list_things_in_thing_group(thingGroupName="low")["things"] == ["robot"]
    # "including any parent groups" (developer guide)
    listed = [group["groupName"] for group in pages(a, "list_thing_groups_for_thing", "thingGroups", thingName="robot")]
    assert listed == ["top", "low", "other"]
    assert refused(a, "update_thing_groups_for_thing")["code"] == "InvalidRequestException"


def test_thing_type_can_only_change_what_it_propagates(a: Any, clock: Clock) -> None:
    configuration = {
        "propagatingAttributes": [
            {"userPropertyKey": "site", "thingAttribute": "site"},
            {"userPropertyKey": "client", "connectionAttribute": "iot:ClientId"},
        ]
    }
    a.create_thing_type(thingTypeName="arm", thingTypeProperties={"thingTypeDescription": "d"})
    a.update_thing_type(thingTypeName="arm", thingTypeProperties={"mqtt5Configuration": configuration})

    assert a.describe_thing_type(thingTypeName="arm")["thingTypeProperties"] == {
        "thingTypeDescription": "d",
        "searchableAttributes": [],
        "mqtt5Configuration": configuration,
    }
    message = refused(a, "update_thing_type", thingTypeName="arm", thingTypeProperties={"searchableAttributes": ["x"]})
    assert message["message"] == "Can only update mqtt5Configuration."  # aws-cli #9884
    assert refused(a, "update_thing_type", thingTypeName="leg")["code"] == "ResourceNotFoundException"
    a.deprecate_thing_type(thingTypeName="arm")
    early = refused(a, "delete_thing_type", thingTypeName="arm")["message"]
    assert "Please wait for 5 minutes after deprecation and then retry" in early  # what Terraform waits for
    clock.advance(300)
    a.delete_thing_type(thingTypeName="arm")


def test_effective_policies_of_a_certificate_and_of_its_thing(a: Any) -> None:
    arn = certificate(a)
    for name in ("own", "of-group", "of-parent", "nobodys"):
        a.create_policy(policyName=name, policyDocument=POLICY)
    a.create_thing_group(thingGroupName="top")
    a.create_thing_group(thingGroupName="low", parentGroupName="top")
    a.create_thing(thingName="robot")
    a.add_thing_to_thing_group(thingName="robot", thingGroupName="low")
    a.attach_policy(policyName="own", target=arn)
    a.attach_policy(policyName="of-group", target=PREFIX + "thinggroup/low")
    a.attach_policy(policyName="of-parent", target=PREFIX + "thinggroup/top")

    def names(**parameters: str) -> list[str]:
        answer = a.get_effective_policies(**parameters)["effectivePolicies"]
        assert all(each["policyDocument"] == POLICY for each in answer)
        return [each["policyName"] for each in answer]

    assert names(principal=arn) == ["own"]
    assert names(thingName="robot") == ["of-group", "of-parent"]
    assert names(principal=arn, thingName="robot") == ["own"]  # not attached: it is none of the certificate's
    a.attach_thing_principal(thingName="robot", principal=arn)
    assert names(principal=arn, thingName="robot") == ["own", "of-group", "of-parent"]
    assert refused(a, "get_effective_policies")["code"] == "InvalidRequestException"
    assert refused(a, "get_effective_policies", thingName="x")["code"] == "ResourceNotFoundException"


def test_authorization_is_tested_without_connecting(a: Any) -> None:
    arn = certificate(a)
    client = PREFIX + "client/robot"
    policies = {
        "connect": document(statement("Allow", "iot:Connect", PREFIX + "client/${iot:Connection.Thing.ThingName}")),
        "publish": document(
            statement("Allow", "iot:Publish", PREFIX + "topic/${iot:ClientId}/*"),
            statement("Deny", "iot:Publish", PREFIX + "topic/*/secret"),
        ),
    }
    for name, text in policies.items():
        a.create_policy(policyName=name, policyDocument=text)
        a.attach_policy(policyName=name, target=arn)
    a.create_thing(thingName="robot")
    a.attach_thing_principal(thingName="robot", principal=arn)

    def test(action: str, *resources: str, **parameters: Any) -> dict[str, Any]:
        answer = a.test_authorization(
            **({"principal": arn, "clientId": "robot"} | parameters),
            authInfos=[{"actionType": action, "resources": list(resources)}],
        )
        (result,) = answer["authResults"]
        assert result["authInfo"] == {"actionType": action, "resources": list(resources)}
        return dict(result)

    def named(*names: str) -> dict[str, Any]:
        return {"policies": [{"policyName": name, "policyArn": PREFIX + f"policy/{name}"} for name in names]}

    connect = test("CONNECT", client)
    assert (connect["authDecision"], connect["allowed"]) == ("ALLOWED", named("connect"))
    assert test("CONNECT", PREFIX + "client/other")["authDecision"] == "IMPLICIT_DENY"
    publish = test("PUBLISH", PREFIX + "topic/robot/secret")
    assert publish["authDecision"] == "EXPLICIT_DENY"
    assert publish["denied"]["explicitDeny"] == named("publish")
    assert test("PUBLISH", PREFIX + "topic/robot/a", PREFIX + "topic/robot/b")["authDecision"] == "ALLOWED"
    assert test("PUBLISH", PREFIX + "topic/robot/a", PREFIX + "topic/x/b")["authDecision"] == "IMPLICIT_DENY"
    subscribe = test("SUBSCRIBE", PREFIX + "topicfilter/robot/#")
    assert (subscribe["authDecision"], subscribe["denied"]["implicitDeny"]) == (
        "IMPLICIT_DENY",
        named("connect", "publish"),
    )
    assert test("CONNECT", client, policyNamesToSkip=["connect"])["authDecision"] == "IMPLICIT_DENY"
    a.create_policy(policyName="more", policyDocument=document(statement("Allow", "iot:Subscribe")))
    assert test("SUBSCRIBE", client, policyNamesToAdd=["more"])["authDecision"] == "ALLOWED"
    missing = a.test_authorization(principal=arn, authInfos=[{"actionType": "CONNECT", "resources": [client]}])
    assert missing["authResults"][0]["missingContextValues"] == ["iot:ClientId", "iot:Connection.Thing.ThingName"]
    unknown = refused(
        a,
        "test_authorization",
        principal=arn,
        policyNamesToAdd=["nothing"],
        authInfos=[{"actionType": "CONNECT", "resources": [client]}],
    )
    assert unknown["code"] == "ResourceNotFoundException"


def test_dynamic_groups_are_refused_by_name(a: Any) -> None:
    answer = refused(a, "create_dynamic_thing_group", thingGroupName="g", queryString="thingName:*")

    assert (answer["code"], answer["status"]) == ("NotImplementedException", 501)
    assert "CreateDynamicThingGroup" in answer["message"]


LISTINGS = {
    # operation: what it answers, what it is asked
    "list_things": ("things", {}),
    "list_thing_types": ("thingTypes", {}),
    "list_thing_groups": ("thingGroups", {}),
    "list_billing_groups": ("billingGroups", {}),
    "list_policies": ("policies", {}),
    "list_certificates": ("certificates", {}),
    "list_things_in_thing_group": ("things", {"thingGroupName": "g0"}),
    "list_things_in_billing_group": ("things", {"billingGroupName": "b0"}),
    "list_thing_groups_for_thing": ("thingGroups", {"thingName": "t0"}),
    "list_thing_principals": ("principals", {"thingName": "t0"}),
    "list_thing_principals_v2": ("thingPrincipalObjects", {"thingName": "t0"}),
    "list_principal_things": ("things", {"principal": "c0"}),
    "list_principal_things_v2": ("principalThingObjects", {"principal": "c0"}),
    "list_attached_policies": ("policies", {"target": "c0"}),
    "list_principal_policies": ("policies", {"principal": "c0"}),
    "list_targets_for_policy": ("targets", {"policyName": "p0"}),
    "list_policy_principals": ("principals", {"policyName": "p0"}),
}


@pytest.fixture(scope="module")
def full() -> Iterator[tuple[Any, dict[str, str]]]:
    """An account with seven of everything, and the ARNs of its certificates by short names."""
    with running_api_in_a_thread(make_registry()) as running:
        clients = Cloud(running.api)
        a = clients.client(A)
        arns = {}
        for number in range(7):
            leaf = TestCA().leaf(f"device-{number}")
            arns[f"c{number}"] = a.register_certificate_without_ca(certificatePem=pem(leaf))["certificateArn"]
            a.create_thing_type(thingTypeName=f"y{number}")
            a.create_thing_group(thingGroupName=f"g{number}")
            a.create_billing_group(billingGroupName=f"b{number}")
            a.create_policy(policyName=f"p{number}", policyDocument=POLICY)
            a.create_thing(thingName=f"t{number}", billingGroupName="b0")
        for number in range(7):
            a.attach_thing_principal(thingName="t0", principal=arns[f"c{number}"])
            if number:
                a.attach_thing_principal(thingName=f"t{number}", principal=arns["c0"])
                a.attach_policy(policyName=f"p{number}", target=arns["c0"])
                a.add_thing_to_thing_group(thingName="t0", thingGroupName=f"g{number}")
            a.attach_policy(policyName="p0", target=arns[f"c{number}"])
            a.add_thing_to_thing_group(thingName=f"t{number}", thingGroupName="g0")
        yield a, arns
        clients.close()


@pytest.mark.parametrize("operation", LISTINGS)
def test_every_listing_is_put_together_from_its_pages(full: tuple[Any, dict[str, str]], operation: str) -> None:
    a, arns = full
    result, parameters = LISTINGS[operation]
    asked = {name: arns.get(value, value) for name, value in parameters.items()}
    assert a.can_paginate(operation)

    in_pages = pages(a, operation, result, **asked)
    at_once = getattr(a, operation)(**asked)[result]

    assert len(in_pages) == 7
    # pages by marker begin with the newest, unless asked; by token with the oldest: either way the same order at once
    assert in_pages == at_once
