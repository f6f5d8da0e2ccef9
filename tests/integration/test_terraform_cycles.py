"""What Terraform's ``aws_iot_*`` resources do, call by call: create, read back, plan again without a change, update,
read back, delete, and see that it is gone.

The calls and what is done with their answers are those of terraform-provider-aws (``internal/service/iot``), through
boto3: Terraform itself needs its registry. A plan that would show a change because an answer differs from what was
asked for fails here.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.control_support import A, Clock, TestCA, make_registry, pem, running_api_in_a_thread
from tests.integration.test_emulator_api import POLICY, Cloud, pages


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def a(clock: Clock) -> Iterator[Any]:
    with running_api_in_a_thread(make_registry(clock)) as running:
        clients = Cloud(running.api)
        yield clients.client(A)
        clients.close()


def code_of(call: Any, **parameters: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    return str(error["Code"]), str(error["Message"])


def tags_of(a: Any, arn: str) -> dict[str, str]:
    listed = a.list_tags_for_resource(resourceArn=arn)["tags"]
    return {tag["Key"]: tag["Value"] for tag in listed}


def change_tags(a: Any, arn: str, old: dict[str, str], new: dict[str, str]) -> None:
    """As the provider does: what is gone first, then what is new or different."""
    removed = [key for key in old if key not in new]
    if removed:
        a.untag_resource(resourceArn=arn, tagKeys=removed)
    updated = [{"Key": key, "Value": value} for key, value in new.items() if old.get(key) != value]
    if updated:
        a.tag_resource(resourceArn=arn, tags=updated)


def test_thing(a: Any) -> None:
    a.create_thing(thingName="t", attributePayload={"attributes": {"One": "1", "Two": "2"}})
    read = a.describe_thing(thingName="t")
    assert (read["attributes"], read["version"], read["defaultClientId"]) == ({"One": "1", "Two": "2"}, 1, "t")

    a.create_thing_type(thingTypeName="type")
    a.update_thing(thingName="t", attributePayload={"attributes": {"Two": "2"}}, thingTypeName="type")
    read = a.describe_thing(thingName="t")
    assert (read["attributes"], read["thingTypeName"], read["version"]) == ({"Two": "2"}, "type", 2)

    a.update_thing(thingName="t", attributePayload={"attributes": {}}, removeThingType=True)
    read = a.describe_thing(thingName="t")
    assert (read["attributes"], "thingTypeName" in read) == ({}, False)

    a.delete_thing(thingName="t")
    assert code_of(a.describe_thing, thingName="t")[0] == "ResourceNotFoundException"


def test_thing_type(a: Any, clock: Clock) -> None:
    properties = {"thingTypeDescription": "MyDescription", "searchableAttributes": ["bar", "baz", "foo"]}
    arn = a.create_thing_type(thingTypeName="type", thingTypeProperties=properties, tags=[{"Key": "k", "Value": "v"}])[
        "thingTypeArn"
    ]
    read = a.describe_thing_type(thingTypeName="type")
    assert (read["thingTypeProperties"], read["thingTypeMetadata"]["deprecated"]) == (properties, False)

    a.deprecate_thing_type(thingTypeName="type", undoDeprecate=False)
    assert a.describe_thing_type(thingTypeName="type")["thingTypeMetadata"]["deprecated"] is True
    a.deprecate_thing_type(thingTypeName="type", undoDeprecate=True)
    assert a.describe_thing_type(thingTypeName="type")["thingTypeMetadata"]["deprecated"] is False
    change_tags(a, arn, {"k": "v"}, {"k": "w", "l": "x"})
    assert tags_of(a, arn) == {"k": "w", "l": "x"}

    a.deprecate_thing_type(thingTypeName="type")
    code, message = code_of(a.delete_thing_type, thingTypeName="type")
    assert code == "InvalidRequestException"
    assert "Please wait for 5 minutes after deprecation and then retry" in message  # on which the provider waits
    clock.advance(301)
    a.delete_thing_type(thingTypeName="type")
    assert code_of(a.describe_thing_type, thingTypeName="type")[0] == "ResourceNotFoundException"


def flattened_group(read: dict[str, Any]) -> dict[str, Any]:
    """The provider's state of a group: blocks that have nothing in them are none."""
    properties = read["thingGroupProperties"]
    attributes = properties.get("attributePayload", {})
    payload = [{"attributes": attributes["attributes"]}] if "attributes" in attributes else []
    block = {"attribute_payload": payload} if payload else {}
    if "thingGroupDescription" in properties:
        block["description"] = properties["thingGroupDescription"]
    return {
        "properties": [block] if block else [],
        "parent_group_name": read["thingGroupMetadata"].get("parentGroupName"),
        "root_to_parent_groups": read["thingGroupMetadata"].get("rootToParentThingGroups") or [],
    }


def test_thing_group(a: Any) -> None:
    arn = a.create_thing_group(thingGroupName="root")["thingGroupArn"]
    read = a.describe_thing_group(thingGroupName="root")
    assert flattened_group(read) == {"properties": [], "parent_group_name": None, "root_to_parent_groups": []}
    assert read["version"] == 1

    properties = {"thingGroupDescription": "d", "attributePayload": {"attributes": {"Key1": "Value1"}}}
    a.create_thing_group(thingGroupName="child", parentGroupName="root", thingGroupProperties=properties)
    read = a.describe_thing_group(thingGroupName="child")
    assert flattened_group(read) == {
        "properties": [{"attribute_payload": [{"attributes": {"Key1": "Value1"}}], "description": "d"}],
        "parent_group_name": "root",
        "root_to_parent_groups": [{"groupName": "root", "groupArn": arn}],
    }

    changed = {"thingGroupDescription": "e", "attributePayload": {"attributes": {"Key2": "v", "Key3": "w"}}}
    a.update_thing_group(thingGroupName="child", expectedVersion=1, thingGroupProperties=changed)
    (block,) = flattened_group(a.describe_thing_group(thingGroupName="child"))["properties"]
    assert block == {"attribute_payload": [{"attributes": {"Key2": "v", "Key3": "w"}}], "description": "e"}
    without = {"thingGroupDescription": "e", "attributePayload": {"attributes": {}}}
    a.update_thing_group(thingGroupName="child", expectedVersion=2, thingGroupProperties=without)
    assert flattened_group(a.describe_thing_group(thingGroupName="child"))["properties"] == [{"description": "e"}]

    code, message = code_of(a.delete_thing_group, thingGroupName="root")
    assert code == "InvalidRequestException"
    assert "there are still child groups attached" in message  # on which the provider waits
    for name in ("child", "root"):
        a.delete_thing_group(thingGroupName=name)
        assert code_of(a.describe_thing_group, thingGroupName=name)[0] == "ResourceNotFoundException"


def test_thing_group_membership(a: Any) -> None:
    a.create_thing_group(thingGroupName="parent")
    a.create_thing_group(thingGroupName="g", parentGroupName="parent")
    a.create_thing(thingName="t")
    a.add_thing_to_thing_group(thingName="t", thingGroupName="g", overrideDynamicGroups=True)

    def found() -> list[str]:
        groups = pages(a, "list_thing_groups_for_thing", "thingGroups", thingName="t")
        return [group["groupName"] for group in groups if group["groupName"] == "g"]

    assert found() == ["g"]  # exactly one, or the provider gives up
    a.remove_thing_from_thing_group(thingName="t", thingGroupName="g")
    assert found() == []


def test_billing_group(a: Any) -> None:
    created = a.create_billing_group(billingGroupName="b", tags=[{"Key": "key1", "Value": "value1"}])
    read = a.describe_billing_group(billingGroupName="b")
    assert "billingGroupDescription" not in read["billingGroupProperties"]
    assert read["version"] == 1
    assert tags_of(a, created["billingGroupArn"]) == {"key1": "value1"}

    changed = {"billingGroupDescription": "test description 2"}
    updated = a.update_billing_group(billingGroupName="b", billingGroupProperties=changed, expectedVersion=1)
    assert updated["version"] == 2
    assert a.describe_billing_group(billingGroupName="b")["billingGroupProperties"] == changed

    change_tags(a, created["billingGroupArn"], {"key1": "value1"}, {"key2": "value2"})
    assert tags_of(a, created["billingGroupArn"]) == {"key2": "value2"}
    a.delete_billing_group(billingGroupName="b", expectedVersion=2)
    assert code_of(a.describe_billing_group, billingGroupName="b")[0] == "ResourceNotFoundException"


def test_policy_whose_versions_are_pruned(a: Any) -> None:
    """The provider makes a version of every update, and drops the oldest when there are too many."""
    a.create_policy(policyName="p", policyDocument=POLICY, tags=[{"Key": "k", "Value": "v"}])
    for number in range(2, 8):
        document = json.dumps(json.loads(POLICY) | {"Id": str(number)})
        try:
            a.create_policy_version(policyName="p", policyDocument=document, setAsDefault=True)
        except a.exceptions.VersionsLimitExceededException:
            versions = a.list_policy_versions(policyName="p")["policyVersions"]
            oldest = min(int(each["versionId"]) for each in versions if not each["isDefaultVersion"])
            a.delete_policy_version(policyName="p", policyVersionId=str(oldest))
            a.create_policy_version(policyName="p", policyDocument=document, setAsDefault=True)
        read = a.get_policy(policyName="p")
        assert (read["policyDocument"], read["defaultVersionId"]) == (document, str(number))

    versions = a.list_policy_versions(policyName="p")["policyVersions"]
    assert [each["versionId"] for each in versions] == ["3", "4", "5", "6", "7"]
    for each in versions:
        if not each["isDefaultVersion"]:
            a.delete_policy_version(policyName="p", policyVersionId=each["versionId"])
    a.delete_policy(policyName="p")
    assert code_of(a.get_policy, policyName="p")[0] == "ResourceNotFoundException"


def test_attachments_of_a_certificate(a: Any) -> None:
    arn = a.register_certificate_without_ca(certificatePem=pem(TestCA().leaf()), status="ACTIVE")["certificateArn"]
    a.create_policy(policyName="p", policyDocument=POLICY)
    a.create_thing(thingName="t")

    a.attach_policy(policyName="p", target=arn)
    a.attach_thing_principal(principal=arn, thingName="t", thingPrincipalType="EXCLUSIVE_THING")
    attached = pages(a, "list_attached_policies", "policies", target=arn, recursive=False)
    assert [each["policyName"] for each in attached] == ["p"]
    (principal,) = a.list_thing_principals_v2(thingName="t")["thingPrincipalObjects"]
    assert principal == {"principal": arn, "thingPrincipalType": "EXCLUSIVE_THING"}

    a.detach_policy(policyName="p", target=arn)
    a.detach_thing_principal(principal=arn, thingName="t")
    assert pages(a, "list_attached_policies", "policies", target=arn) == []
    assert a.list_thing_principals(thingName="t")["principals"] == []
    certificate_id = arn.rpartition("/")[2]
    a.update_certificate(certificateId=certificate_id, newStatus="INACTIVE")
    a.delete_certificate(certificateId=certificate_id)
    assert code_of(a.describe_certificate, certificateId=certificate_id)[0] == "ResourceNotFoundException"


def test_event_configurations(a: Any) -> None:
    wanted = {
        name: number % 2 == 0 for number, name in enumerate(a.describe_event_configurations()["eventConfigurations"])
    }
    a.update_event_configurations(eventConfigurations={name: {"Enabled": on} for name, on in wanted.items()})

    read = a.describe_event_configurations()["eventConfigurations"]
    assert {name: configuration["Enabled"] for name, configuration in read.items()} == wanted
