"""Events of the registry: told to who asked, as the developer guide writes them ("registry events")."""

import json
from typing import Any

import pytest

from devicesim.emulator.httpmessage import HTTPRequest
from devicesim.emulator.registry import Partition
from devicesim.emulator.state.records import PropagatingAttribute
from tests.emulator_support import EPOCH, A, Client, World

KINDS = ("thing", "thingType", "thingTypeAssociation", "thingGroup", "thingGroupMembership", "thingGroupHierarchy")


def enable(account: Partition, *event_types: str) -> None:
    for event_type in event_types:
        account.event_configurations[event_type] = True


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def account(world: World) -> Partition:
    return world.ready_account(0)


@pytest.fixture
def watcher(world: World, account: Partition) -> Client:
    return world.client(0, account.endpoint).connected().subscribe(*(f"$aws/events/{kind}/#" for kind in KINDS))


def told(watcher: Client) -> list[tuple[str, dict[str, Any]]]:
    """Topics, without their common beginning, and payloads, without what every event has."""
    found = []
    for topic, payload in watcher.messages():
        body = json.loads(payload)
        assert len(body.pop("eventId")) == 36
        assert body.pop("timestamp") == round(EPOCH.timestamp() * 1000)
        found.append((topic.removeprefix("$aws/events/"), body))
    return found


def test_nothing_is_told_unless_it_was_switched_on(world: World, account: Partition, watcher: Client) -> None:
    enable(account, "THING_GROUP")
    registry = world.registry
    registry.thing_types.create(account, "arm")
    registry.things.create(account, "robot", thing_type_name="arm")
    registry.things.delete(account, "robot")

    assert told(watcher) == []


def test_of_a_thing(world: World, account: Partition, watcher: Client) -> None:
    enable(account, "THING")
    things = world.registry.things
    thing = things.create(account, "robot", attributes={"site": "b1"})
    things.update(account, "robot", attributes={"site": "b2"})
    things.delete(account, "robot")

    def event(operation: str, version: int, site: str) -> tuple[str, dict[str, Any]]:
        body = {
            "eventType": "THING_EVENT",
            "operation": operation,
            "accountId": A,
            "thingId": thing.thing_id,
            "thingName": "robot",
            "versionNumber": version,
            "thingTypeName": None,
            "attributes": {"site": site},
        }
        return f"thing/robot/{operation.lower()}", body

    assert told(watcher) == [event("CREATED", 1, "b1"), event("UPDATED", 2, "b2"), event("DELETED", 2, "b2")]


def test_of_a_thing_type(world: World, account: Partition, watcher: Client) -> None:
    enable(account, "THING_TYPE")
    types = world.registry.thing_types
    arm = types.create(account, "arm", description="an arm", searchable_attributes=["size"])
    types.deprecate(account, "arm")
    types.deprecate(account, "arm", undo=True)
    types.update(account, "arm", [PropagatingAttribute(user_property_key="k", thing_attribute="site")])

    created, deprecated, undeprecated, updated = told(watcher)
    assert created == (
        "thingType/arm/created",
        {
            "eventType": "THING_TYPE_EVENT",
            "operation": "CREATED",
            "accountId": A,
            "thingTypeId": arm.thing_type_id,
            "thingTypeName": "arm",
            "isDeprecated": False,
            "deprecationDate": None,
            "searchableAttributes": ["size"],
            "description": "an arm",
        },
    )
    assert deprecated[0] == undeprecated[0] == updated[0] == "thingType/arm/updated"
    assert (deprecated[1]["isDeprecated"], undeprecated[1]["isDeprecated"]) == (True, False)
    assert deprecated[1]["deprecationDate"] == round(EPOCH.timestamp() * 1000)


def test_of_the_type_of_a_thing(world: World, account: Partition, watcher: Client) -> None:
    enable(account, "THING_TYPE_ASSOCIATION")
    registry = world.registry
    for name in ("arm", "leg"):
        registry.thing_types.create(account, name)
    thing = registry.things.create(account, "robot", thing_type_name="arm")
    registry.things.update(account, "robot", attributes={"x": "1"})
    registry.things.update(account, "robot", thing_type_name="leg")
    registry.things.delete(account, "robot")

    def event(operation: str, name: str) -> tuple[str, dict[str, Any]]:
        body = {
            "eventType": "THING_TYPE_ASSOCIATION_EVENT",
            "operation": operation,
            "thingId": thing.thing_id,
            "thingName": "robot",
            "thingTypeName": name,
        }
        return f"thingTypeAssociation/thing/robot/{name}", body

    assert told(watcher) == [
        event("CREATED", "arm"),
        event("DELETED", "arm"),
        event("CREATED", "leg"),
        event("DELETED", "leg"),
    ]


def test_of_a_thing_group_and_its_hierarchy(world: World, account: Partition, watcher: Client) -> None:
    enable(account, "THING_GROUP", "THING_GROUP_HIERARCHY")
    groups = world.registry.thing_groups
    top = groups.create(account, "top", description="d", attributes={"x": "1"})
    low = groups.create(account, "low", parent="top")
    groups.update(account, "low", description="e")
    groups.delete(account, "low")

    created, child, added, updated, removed, deleted = told(watcher)
    assert created == (
        "thingGroup/top/created",
        {
            "eventType": "THING_GROUP_EVENT",
            "operation": "CREATED",
            "accountId": A,
            "thingGroupId": top.thing_group_id,
            "thingGroupName": "top",
            "versionNumber": 1,
            "parentGroupName": None,
            "parentGroupId": None,
            "description": "d",
            "rootToParentThingGroups": None,
            "attributes": {"x": "1"},
            "dynamicGroupMappingId": None,
        },
    )
    assert child[1]["rootToParentThingGroups"] == [{"groupArn": top.arn, "groupId": top.thing_group_id}]
    assert (child[1]["parentGroupName"], child[1]["parentGroupId"]) == ("top", top.thing_group_id)
    assert added == (
        "thingGroupHierarchy/thingGroup/top/childThingGroup/low/added",
        {
            "eventType": "THING_GROUP_HIERARCHY_EVENT",
            "operation": "ADDED",
            "accountId": A,
            "thingGroupId": top.thing_group_id,
            "thingGroupName": "top",
            "childGroupId": low.thing_group_id,
            "childGroupName": "low",
        },
    )
    assert (updated[0], updated[1]["versionNumber"]) == ("thingGroup/low/updated", 2)
    assert removed[0] == "thingGroupHierarchy/thingGroup/top/childThingGroup/low/removed"
    assert deleted[0] == "thingGroup/low/deleted"


def test_of_membership(world: World, account: Partition, watcher: Client) -> None:
    enable(account, "THING_GROUP_MEMBERSHIP")
    registry = world.registry
    group = registry.thing_groups.create(account, "g")
    thing = registry.things.create(account, "robot")
    registry.thing_groups.add_thing(account, "g", "robot")
    registry.thing_groups.add_thing(account, "g", "robot")
    registry.thing_groups.remove_thing(account, "g", "robot")
    registry.thing_groups.add_thing(account, "g", "robot")
    registry.things.delete(account, "robot")

    added, removed, again, gone = told(watcher)
    assert added == (
        "thingGroupMembership/thingGroup/g/thing/robot/added",
        {
            "eventType": "THING_GROUP_MEMBERSHIP_EVENT",
            "operation": "ADDED",
            "accountId": A,
            "groupArn": group.arn,
            "groupId": group.thing_group_id,
            "thingArn": thing.arn,
            "thingId": thing.thing_id,
            "membershipId": added[1]["membershipId"],
        },
    )
    assert removed[0] == gone[0] == "thingGroupMembership/thingGroup/g/thing/robot/removed"
    assert removed[1]["membershipId"] == again[1]["membershipId"] == added[1]["membershipId"]


def test_are_of_one_account(world: World, account: Partition, watcher: Client) -> None:
    other = world.account("222222222222")
    enable(other, "THING")
    world.registry.things.create(other, "robot")

    assert told(watcher) == []
    assert account.event_configurations == {}


def test_are_switched_on_and_caused_through_the_api(world: World, account: Partition, watcher: Client) -> None:
    control_plane = world.core.control_plane()

    def call(method: str, path: str, body: dict[str, Any]) -> None:
        scope = f"{A}/20260601/{account.region}/iot/aws4_request"
        request = HTTPRequest(
            method=method,
            path=path,
            query="",
            headers={"authorization": f"AWS4-HMAC-SHA256 Credential={scope}, x=y"},
            body=json.dumps(body).encode(),
        )
        assert control_plane.handle(request, "request-1").status == 200

    call("POST", "/things/before", {})
    call("PATCH", "/event-configurations", {"eventConfigurations": {"THING": {"Enabled": True}}})
    call("POST", "/things/robot", {})
    call("POST", "/things/robot", {})  # the same again changes nothing
    call("PATCH", "/event-configurations", {"eventConfigurations": {"THING": {"Enabled": False}}})
    call("POST", "/things/after", {})

    assert [topic for topic, _ in told(watcher)] == ["thing/robot/created"]
