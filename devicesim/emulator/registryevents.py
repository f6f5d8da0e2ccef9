"""What the registry tells of things, thing types and thing groups, when an account asked for it. Pure.

Topics and payloads are those of the developer guide, "registry events" (D). UpdateEventConfigurations switches each
event type on; all are off at first (D). POLICY, CERTIFICATE and CA_CERTIFICATE can be switched as well, but no event of
theirs is documented, and none is published.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import Thing, ThingGroup, ThingType

_EVENTS: Final = "$aws/events"


class Operation(StrEnum):
    CREATED = "CREATED"
    UPDATED = "UPDATED"
    DELETED = "DELETED"
    ADDED = "ADDED"
    REMOVED = "REMOVED"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryEvent:
    """One event, to be published once it has an id and a time."""

    topic: str
    fields: Mapping[str, Any]
    """Of the payload, beside ``eventId``, ``timestamp`` and ``accountId``."""
    names_account: bool = True
    """Whether the payload has ``accountId``."""

    def payload(self, *, event_id: str, now: float, account_id: str) -> bytes:
        """``now`` is in seconds since the Unix epoch; the payload has milliseconds."""
        body: dict[str, Any] = {
            "eventType": self.fields["eventType"],
            "eventId": event_id,
            "timestamp": round(now * 1000),
            "operation": self.fields["operation"],
        }
        if self.names_account:
            body["accountId"] = account_id
        return json.dumps(body | dict(self.fields), separators=(",", ":")).encode()


def thing(operation: Operation, record: Thing) -> RegistryEvent:
    return RegistryEvent(
        topic=f"{_EVENTS}/thing/{record.name}/{operation.lower()}",
        fields={
            "eventType": "THING_EVENT",
            "operation": operation,
            "thingId": record.thing_id,
            "thingName": record.name,
            "versionNumber": record.version,
            "thingTypeName": record.thing_type_name,
            "attributes": dict(record.attributes),
        },
    )


def thing_type(operation: Operation, record: ThingType) -> RegistryEvent:
    deprecated = record.deprecation_date
    return RegistryEvent(
        topic=f"{_EVENTS}/thingType/{record.name}/{operation.lower()}",
        fields={
            "eventType": "THING_TYPE_EVENT",
            "operation": operation,
            "thingTypeId": record.thing_type_id,
            "thingTypeName": record.name,
            "isDeprecated": deprecated is not None,
            "deprecationDate": None if deprecated is None else round(deprecated * 1000),
            "searchableAttributes": list(record.searchable_attributes),
            "description": record.description,
        },
    )


def thing_type_association(operation: Operation, record: Thing, type_name: str) -> RegistryEvent:
    return RegistryEvent(
        topic=f"{_EVENTS}/thingTypeAssociation/thing/{record.name}/{type_name}",
        fields={
            "eventType": "THING_TYPE_ASSOCIATION_EVENT",
            "operation": operation,
            "thingId": record.thing_id,
            "thingName": record.name,
            "thingTypeName": type_name,
        },
        names_account=False,
    )


def thing_group(operation: Operation, record: ThingGroup, above: Sequence[ThingGroup]) -> RegistryEvent:
    """``above`` are the groups from the root to the parent."""
    parent = above[-1] if above else None
    path = [{"groupArn": each.arn, "groupId": each.thing_group_id} for each in above]
    return RegistryEvent(
        topic=f"{_EVENTS}/thingGroup/{record.name}/{operation.lower()}",
        fields={
            "eventType": "THING_GROUP_EVENT",
            "operation": operation,
            "thingGroupId": record.thing_group_id,
            "thingGroupName": record.name,
            "versionNumber": record.version,
            "parentGroupName": None if parent is None else parent.name,
            "parentGroupId": None if parent is None else parent.thing_group_id,
            "description": record.description,
            "rootToParentThingGroups": path or None,
            "attributes": dict(record.attributes),
            "dynamicGroupMappingId": None,
        },
    )


def membership(operation: Operation, group: ThingGroup, record: Thing) -> RegistryEvent:
    return RegistryEvent(
        topic=f"{_EVENTS}/thingGroupMembership/thingGroup/{group.name}/thing/{record.name}/{operation.lower()}",
        fields={
            "eventType": "THING_GROUP_MEMBERSHIP_EVENT",
            "operation": operation,
            "groupArn": group.arn,
            "groupId": group.thing_group_id,
            "thingArn": record.arn,
            "thingId": record.thing_id,
            "membershipId": _membership_id(group, record),
        },
    )


def hierarchy(operation: Operation, parent: ThingGroup, child: ThingGroup) -> RegistryEvent:
    return RegistryEvent(
        topic=f"{_EVENTS}/thingGroupHierarchy/thingGroup/{parent.name}/childThingGroup/{child.name}/{operation.lower()}",
        fields={
            "eventType": "THING_GROUP_HIERARCHY_EVENT",
            "operation": operation,
            "thingGroupId": parent.thing_group_id,
            "thingGroupName": parent.name,
            "childGroupId": child.thing_group_id,
            "childGroupName": child.name,
        },
    )


def event_type_of(event: RegistryEvent) -> str:
    """The event type of UpdateEventConfigurations that it belongs to."""
    return str(event.fields["eventType"]).removesuffix("_EVENT")


def _membership_id(group: ThingGroup, record: Thing) -> str:
    """The same when the thing is added and when it is removed, as AWS's is; there is no other use of it."""
    digits = sha256(f"{group.thing_group_id} {record.thing_id}".encode()).hexdigest()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))


def of_thing(partition: Partition, name: str) -> list[ThingGroup]:
    """The groups that a thing is in."""
    return [partition.thing_groups[each] for each in partition.groups_of_thing.get(name, ())]
