"""Thing types and thing groups."""

from collections.abc import Mapping
from typing import Any

from devicesim.emulator.apierrors import APIError, invalid_request, resource_not_found
from devicesim.emulator.operations.call import Call, Handler, token_page
from devicesim.emulator.state.records import ThingGroup, ThingType


def create_thing_type(call: Call) -> Mapping[str, Any]:
    properties = call.get("thingTypeProperties") or {}
    if properties.get("mqtt5Configuration"):
        # would be kept and have no effect
        raise APIError("NotImplementedException", "devicesim does not emulate a thing type's mqtt5Configuration")
    thing_type = call.registry.thing_types.create(
        call.partition,
        call["thingTypeName"],
        description=properties.get("thingTypeDescription"),
        searchable_attributes=properties.get("searchableAttributes", ()),
        tags=call.tags,
    )
    return {
        "thingTypeName": thing_type.name,
        "thingTypeArn": thing_type.arn,
        "thingTypeId": thing_type.thing_type_id,
    }


def describe_thing_type(call: Call) -> Mapping[str, Any]:
    thing_type = call.registry.thing_types.get(call.partition, call["thingTypeName"])
    return {"thingTypeId": thing_type.thing_type_id, **_described_type(thing_type)}


def list_thing_types(call: Call) -> Mapping[str, Any]:
    wanted = call.get("thingTypeName")
    held = [each for each in call.partition.thing_types.values() if wanted in (None, each.name)]
    page, token = token_page(call, held, lambda thing_type: thing_type.sequence)
    return {"thingTypes": [_described_type(thing_type) for thing_type in page], "nextToken": token}


def deprecate_thing_type(call: Call) -> Mapping[str, Any]:
    call.registry.thing_types.deprecate(call.partition, call["thingTypeName"], undo=bool(call.get("undoDeprecate")))
    return {}


def delete_thing_type(call: Call) -> Mapping[str, Any]:
    call.registry.thing_types.delete(call.partition, call["thingTypeName"])
    return {}


def create_thing_group(call: Call) -> Mapping[str, Any]:
    properties = call.get("thingGroupProperties") or {}
    payload = properties.get("attributePayload") or {}
    group = call.registry.thing_groups.create(
        call.partition,
        call["thingGroupName"],
        parent=call.get("parentGroupName"),
        description=properties.get("thingGroupDescription"),
        attributes=payload.get("attributes"),
        tags=call.tags,
    )
    return {
        "thingGroupName": group.name,
        "thingGroupArn": group.arn,
        "thingGroupId": group.thing_group_id,
    }


def describe_thing_group(call: Call) -> Mapping[str, Any]:
    groups = call.registry.thing_groups
    group = groups.get(call.partition, call["thingGroupName"])
    return {
        "thingGroupName": group.name,
        "thingGroupId": group.thing_group_id,
        "thingGroupArn": group.arn,
        "version": group.version,
        "thingGroupProperties": {
            "thingGroupDescription": group.description,
            "attributePayload": {"attributes": group.attributes},
        },
        "thingGroupMetadata": {
            "parentGroupName": group.parent,
            "rootToParentThingGroups": [_named(each) for each in groups.ancestors(call.partition, group)],
            "creationDate": group.creation_date,
        },
    }


def list_thing_groups(call: Call) -> Mapping[str, Any]:
    """All groups; with ``parentGroup`` its children, and with ``recursive`` all below it (developer guide, D)."""
    groups = call.registry.thing_groups
    parent, prefix = call.get("parentGroup"), call.get("namePrefixFilter") or ""
    if parent is None:
        held = list(call.partition.thing_groups.values())
    else:
        groups.get(call.partition, parent)
        below = groups.descendants if call.get("recursive") else groups.children
        held = below(call.partition, parent)
    return _listed(call, [group for group in held if group.name.startswith(prefix)])


def delete_thing_group(call: Call) -> Mapping[str, Any]:
    call.registry.thing_groups.delete(
        call.partition, call["thingGroupName"], expected_version=call.get("expectedVersion")
    )
    return {}


def add_thing_to_thing_group(call: Call) -> Mapping[str, Any]:
    call.registry.thing_groups.add_thing(
        call.partition, _name(call, "thingGroup", "thinggroup"), _name(call, "thing", "thing")
    )
    return {}


def remove_thing_from_thing_group(call: Call) -> Mapping[str, Any]:
    call.registry.thing_groups.remove_thing(
        call.partition, _name(call, "thingGroup", "thinggroup"), _name(call, "thing", "thing")
    )
    return {}


def list_thing_groups_for_thing(call: Call) -> Mapping[str, Any]:
    call.registry.things.get(call.partition, call["thingName"])
    names = call.partition.groups_of_thing.get(call["thingName"], ())
    return _listed(call, [call.partition.thing_groups[name] for name in names])


def list_things_in_thing_group(call: Call) -> Mapping[str, Any]:
    """The things of a group; ``recursive`` adds those of the groups below it."""
    groups = call.registry.thing_groups
    group = groups.get(call.partition, call["thingGroupName"])
    below = groups.descendants(call.partition, group.name) if call.get("recursive") else []
    things = {name for each in (group, *below) for name in call.partition.things_of_group.get(each.name, ())}
    page, token = token_page(call, sorted(things), str)
    return {"things": page, "nextToken": token}


def _listed(call: Call, groups: list[ThingGroup]) -> Mapping[str, Any]:
    groups.sort(key=lambda group: group.sequence)
    page, token = token_page(call, groups, lambda group: group.sequence)
    return {"thingGroups": [_named(group) for group in page], "nextToken": token}


def _named(group: ThingGroup) -> dict[str, str]:
    return {"groupName": group.name, "groupArn": group.arn}


def _described_type(thing_type: ThingType) -> dict[str, Any]:
    return {
        "thingTypeName": thing_type.name,
        "thingTypeArn": thing_type.arn,
        "thingTypeProperties": {
            "thingTypeDescription": thing_type.description,
            "searchableAttributes": thing_type.searchable_attributes,
        },
        "thingTypeMetadata": {
            "deprecated": thing_type.deprecation_date is not None,
            "deprecationDate": thing_type.deprecation_date,
            "creationDate": thing_type.creation_date,
        },
    }


def _name(call: Call, member: str, kind: str) -> str:
    """A resource given by name or by ARN."""
    name, arn = call.get(f"{member}Name"), call.get(f"{member}Arn")
    if arn is not None:
        prefix = call.partition.arn(kind, "")
        if not arn.startswith(prefix):
            raise resource_not_found(f"The resource {arn} does not exist")
        if name not in (None, arn.removeprefix(prefix)):
            raise invalid_request(f"The {member}Name {name} and the {member}Arn {arn} are not of the same resource")
        return str(arn.removeprefix(prefix))
    if name is None:
        raise invalid_request(f"Specify either {member}Name or {member}Arn")
    return str(name)


HANDLERS: Mapping[str, Handler] = {
    "CreateThingType": create_thing_type,
    "DescribeThingType": describe_thing_type,
    "ListThingTypes": list_thing_types,
    "DeprecateThingType": deprecate_thing_type,
    "DeleteThingType": delete_thing_type,
    "CreateThingGroup": create_thing_group,
    "DescribeThingGroup": describe_thing_group,
    "ListThingGroups": list_thing_groups,
    "DeleteThingGroup": delete_thing_group,
    "AddThingToThingGroup": add_thing_to_thing_group,
    "RemoveThingFromThingGroup": remove_thing_from_thing_group,
    "ListThingGroupsForThing": list_thing_groups_for_thing,
    "ListThingsInThingGroup": list_things_in_thing_group,
}
