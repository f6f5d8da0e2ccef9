"""Thing types and thing groups."""

from collections.abc import Mapping
from typing import Any

from devicesim.emulator.apierrors import invalid_request
from devicesim.emulator.operations.call import Call, Handler, token_page
from devicesim.emulator.operations.naming import name_of
from devicesim.emulator.state.records import PropagatingAttribute, ThingGroup, ThingType


def create_thing_type(call: Call) -> Mapping[str, Any]:
    properties = call.get("thingTypeProperties") or {}
    thing_type = call.registry.thing_types.create(
        call.partition,
        call["thingTypeName"],
        description=properties.get("thingTypeDescription"),
        searchable_attributes=properties.get("searchableAttributes", ()),
        propagating_attributes=_propagating(properties),
        tags=call.tags,
    )
    return {
        "thingTypeName": thing_type.name,
        "thingTypeArn": thing_type.arn,
        "thingTypeId": thing_type.thing_type_id,
    }


def update_thing_type(call: Call) -> Mapping[str, Any]:
    properties = call.get("thingTypeProperties") or {}
    if "thingTypeDescription" in properties or "searchableAttributes" in properties:
        raise invalid_request("Can only update mqtt5Configuration.")  # AWS's text (aws-cli #9884, S)
    thing_type = call.registry.thing_types.get(call.partition, call["thingTypeName"])
    if "mqtt5Configuration" in properties:
        call.registry.thing_types.update(call.partition, thing_type.name, _propagating(properties))
    return {}


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
            # none, not an empty one, or Terraform sees a change in every plan (its acceptance tests, S)
            "attributePayload": {"attributes": group.attributes or None},
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


def update_thing_group(call: Call) -> Mapping[str, Any]:
    properties = call["thingGroupProperties"]
    payload = properties.get("attributePayload") or {}
    group = call.registry.thing_groups.update(
        call.partition,
        call["thingGroupName"],
        description=properties.get("thingGroupDescription"),
        attributes=payload.get("attributes"),
        merge=bool(payload.get("merge")),
        expected_version=call.get("expectedVersion"),
    )
    return {"version": group.version}


def delete_thing_group(call: Call) -> Mapping[str, Any]:
    call.registry.thing_groups.delete(
        call.partition, call["thingGroupName"], expected_version=call.get("expectedVersion")
    )
    return {}


def add_thing_to_thing_group(call: Call) -> Mapping[str, Any]:
    call.registry.thing_groups.add_thing(
        call.partition, name_of(call, "thingGroup", "thinggroup"), name_of(call, "thing", "thing")
    )
    return {}


def remove_thing_from_thing_group(call: Call) -> Mapping[str, Any]:
    call.registry.thing_groups.remove_thing(
        call.partition, name_of(call, "thingGroup", "thinggroup"), name_of(call, "thing", "thing")
    )
    return {}


def update_thing_groups_for_thing(call: Call) -> Mapping[str, Any]:
    """``overrideDynamicGroups`` has nothing to do: there are no dynamic groups."""
    name = call.get("thingName")
    if name is None:
        raise invalid_request("Specify thingName")
    call.registry.thing_groups.change_things_groups(
        call.partition, name, add=call.get("thingGroupsToAdd") or (), remove=call.get("thingGroupsToRemove") or ()
    )
    return {}


def list_thing_groups_for_thing(call: Call) -> Mapping[str, Any]:
    """The groups of a thing, and those above them where the settings say so."""
    partition, groups = call.partition, call.registry.thing_groups
    call.registry.things.get(partition, call["thingName"])
    held = [partition.thing_groups[name] for name in partition.groups_of_thing.get(call["thingName"], ())]
    if call.registry.environment.settings.things_groups_with_parents:
        held += [above for group in held for above in groups.ancestors(partition, group)]
    return _listed(call, list({group.name: group for group in held}.values()))


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
            "mqtt5Configuration": _mqtt5_configuration(thing_type),
        },
        "thingTypeMetadata": {
            "deprecated": thing_type.deprecation_date is not None,
            "deprecationDate": thing_type.deprecation_date,
            "creationDate": thing_type.creation_date,
        },
    }


def _propagating(properties: Mapping[str, Any]) -> list[PropagatingAttribute]:
    configuration = properties.get("mqtt5Configuration") or {}
    attributes = configuration.get("propagatingAttributes") or ()
    without_key = next((each for each in attributes if not each.get("userPropertyKey")), None)
    if without_key is not None:
        raise invalid_request("A propagating attribute has no userPropertyKey")
    return [
        PropagatingAttribute(
            user_property_key=each["userPropertyKey"],
            thing_attribute=each.get("thingAttribute"),
            connection_attribute=each.get("connectionAttribute"),
        )
        for each in attributes
    ]


def _mqtt5_configuration(thing_type: ThingType) -> dict[str, Any] | None:
    if not thing_type.propagating_attributes:
        return None
    return {
        "propagatingAttributes": [
            {
                "userPropertyKey": each.user_property_key,
                "thingAttribute": each.thing_attribute,
                "connectionAttribute": each.connection_attribute,
            }
            for each in thing_type.propagating_attributes
        ]
    }


HANDLERS: Mapping[str, Handler] = {
    "CreateThingType": create_thing_type,
    "UpdateThingType": update_thing_type,
    "DescribeThingType": describe_thing_type,
    "ListThingTypes": list_thing_types,
    "DeprecateThingType": deprecate_thing_type,
    "DeleteThingType": delete_thing_type,
    "CreateThingGroup": create_thing_group,
    "DescribeThingGroup": describe_thing_group,
    "ListThingGroups": list_thing_groups,
    "UpdateThingGroup": update_thing_group,
    "UpdateThingGroupsForThing": update_thing_groups_for_thing,
    "DeleteThingGroup": delete_thing_group,
    "AddThingToThingGroup": add_thing_to_thing_group,
    "RemoveThingFromThingGroup": remove_thing_from_thing_group,
    "ListThingGroupsForThing": list_thing_groups_for_thing,
    "ListThingsInThingGroup": list_things_in_thing_group,
}
