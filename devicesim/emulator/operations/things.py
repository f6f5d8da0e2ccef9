"""Things and their principals."""

from collections.abc import Mapping
from typing import Any

from devicesim.emulator.operations.call import Call, Handler, token_page
from devicesim.emulator.state.records import Thing, ThingPrincipalType

_FILTERS = frozenset({"thingTypeName", "attributeName"})
"""Parameters of ListThings that leave things out."""


def create_thing(call: Call) -> Mapping[str, Any]:
    payload = call.get("attributePayload") or {}
    thing = call.registry.things.create(
        call.partition,
        call["thingName"],
        thing_type_name=call.get("thingTypeName"),
        attributes=payload.get("attributes"),
        billing_group_name=call.get("billingGroupName"),
    )
    return {"thingName": thing.name, "thingArn": thing.arn, "thingId": thing.thing_id}


def describe_thing(call: Call) -> Mapping[str, Any]:
    thing = call.registry.things.get(call.partition, call["thingName"])
    return {
        "defaultClientId": thing.default_client_id,
        "thingName": thing.name,
        "thingId": thing.thing_id,
        "thingArn": thing.arn,
        "thingTypeName": thing.thing_type_name,
        "attributes": thing.attributes,
        "version": thing.version,
        "billingGroupName": thing.billing_group_name,
    }


def update_thing(call: Call) -> Mapping[str, Any]:
    payload = call.get("attributePayload") or {}
    call.registry.things.update(
        call.partition,
        call["thingName"],
        thing_type_name=call.get("thingTypeName"),
        remove_thing_type=bool(call.get("removeThingType")),
        attributes=payload.get("attributes"),
        merge=bool(payload.get("merge")),
        expected_version=call.get("expectedVersion"),
    )
    return {}


def delete_thing(call: Call) -> Mapping[str, Any]:
    call.registry.things.delete(call.partition, call["thingName"], expected_version=call.get("expectedVersion"))
    return {}


def list_things(call: Call) -> Mapping[str, Any]:
    things = list(call.partition.things.values())
    if not _FILTERS.isdisjoint(call.parameters):
        things = [thing for thing in things if _matches(call, thing)]
    page, token = token_page(call, things, lambda thing: thing.sequence)
    return {
        "things": [
            {
                "thingName": thing.name,
                "thingTypeName": thing.thing_type_name,
                "thingArn": thing.arn,
                "attributes": thing.attributes,
                "version": thing.version,
            }
            for thing in page
        ],
        "nextToken": token,
    }


def attach_thing_principal(call: Call) -> Mapping[str, Any]:
    kind = call.get("thingPrincipalType") or ThingPrincipalType.NON_EXCLUSIVE_THING
    call.registry.things.attach_principal(
        call.partition, call["thingName"], call["principal"], ThingPrincipalType(kind)
    )
    return {}


def detach_thing_principal(call: Call) -> Mapping[str, Any]:
    call.registry.things.detach_principal(call.partition, call["thingName"], call["principal"])
    return {}


def list_thing_principals(call: Call) -> Mapping[str, Any]:
    page, token = _principals(call)
    return {"principals": [principal for principal, _ in page], "nextToken": token}


def list_thing_principals_v2(call: Call) -> Mapping[str, Any]:
    page, token = _principals(call)
    objects = [{"principal": principal, "thingPrincipalType": kind} for principal, kind in page]
    return {"thingPrincipalObjects": objects, "nextToken": token}


def list_principal_things(call: Call) -> Mapping[str, Any]:
    page, token = _things(call)
    return {"things": [name for name, _ in page], "nextToken": token}


def list_principal_things_v2(call: Call) -> Mapping[str, Any]:
    page, token = _things(call)
    objects = [{"thingName": name, "thingPrincipalType": kind} for name, kind in page]
    return {"principalThingObjects": objects, "nextToken": token}


_Attachments = list[tuple[str, ThingPrincipalType]]


def _principals(call: Call) -> tuple[_Attachments, str | None]:
    call.registry.things.get(call.partition, call["thingName"])
    return _attachments(call, call.partition.principals_of_thing.get(call["thingName"], {}))


def _things(call: Call) -> tuple[_Attachments, str | None]:
    call.registry.things.check_principal(call.partition, call["principal"])
    return _attachments(call, call.partition.things_of_principal.get(call["principal"], {}))


def _attachments(call: Call, held: Mapping[str, ThingPrincipalType]) -> tuple[_Attachments, str | None]:
    wanted = call.get("thingPrincipalType")
    kept = sorted((name, kind) for name, kind in held.items() if wanted in (None, kind))
    page, token = token_page(call, kept, lambda item: item[0])
    return list(page), token


def _matches(call: Call, thing: Thing) -> bool:
    if call.get("thingTypeName") not in (None, thing.thing_type_name):
        return False
    name, value = call.get("attributeName"), call.get("attributeValue")
    if name is None:
        return True
    held = thing.attributes.get(name)
    if held is None or value is None:
        return held is not None
    return held.startswith(value) if call.get("usePrefixAttributeValue") else bool(held == value)


HANDLERS: Mapping[str, Handler] = {
    "CreateThing": create_thing,
    "DescribeThing": describe_thing,
    "UpdateThing": update_thing,
    "DeleteThing": delete_thing,
    "ListThings": list_things,
    "AttachThingPrincipal": attach_thing_principal,
    "DetachThingPrincipal": detach_thing_principal,
    "ListThingPrincipals": list_thing_principals,
    "ListThingPrincipalsV2": list_thing_principals_v2,
    "ListPrincipalThings": list_principal_things,
    "ListPrincipalThingsV2": list_principal_things_v2,
}
