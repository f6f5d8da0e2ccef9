"""Billing groups."""

from collections.abc import Mapping
from typing import Any

from devicesim.emulator.operations.call import Call, Handler, token_page
from devicesim.emulator.operations.naming import name_of


def create_billing_group(call: Call) -> Mapping[str, Any]:
    properties = call.get("billingGroupProperties") or {}
    group = call.registry.billing_groups.create(
        call.partition,
        call["billingGroupName"],
        description=properties.get("billingGroupDescription"),
        tags=call.tags,
    )
    return {"billingGroupName": group.name, "billingGroupArn": group.arn, "billingGroupId": group.billing_group_id}


def describe_billing_group(call: Call) -> Mapping[str, Any]:
    group = call.registry.billing_groups.get(call.partition, call["billingGroupName"])
    return {
        "billingGroupName": group.name,
        "billingGroupId": group.billing_group_id,
        "billingGroupArn": group.arn,
        "version": group.version,
        "billingGroupProperties": {"billingGroupDescription": group.description},
        "billingGroupMetadata": {"creationDate": group.creation_date},
    }


def update_billing_group(call: Call) -> Mapping[str, Any]:
    group = call.registry.billing_groups.update(
        call.partition,
        call["billingGroupName"],
        description=call["billingGroupProperties"].get("billingGroupDescription"),
        expected_version=call.get("expectedVersion"),
    )
    return {"version": group.version}


def delete_billing_group(call: Call) -> Mapping[str, Any]:
    call.registry.billing_groups.delete(
        call.partition, call["billingGroupName"], expected_version=call.get("expectedVersion")
    )
    return {}


def list_billing_groups(call: Call) -> Mapping[str, Any]:
    prefix = call.get("namePrefixFilter") or ""
    groups = [group for group in call.partition.billing_groups.values() if group.name.startswith(prefix)]
    page, token = token_page(call, groups, lambda group: group.sequence)
    return {
        "billingGroups": [{"groupName": group.name, "groupArn": group.arn} for group in page],
        "nextToken": token,
    }


def add_thing_to_billing_group(call: Call) -> Mapping[str, Any]:
    call.registry.billing_groups.add_thing(
        call.partition, name_of(call, "billingGroup", "billinggroup"), name_of(call, "thing", "thing")
    )
    return {}


def remove_thing_from_billing_group(call: Call) -> Mapping[str, Any]:
    call.registry.billing_groups.remove_thing(
        call.partition, name_of(call, "billingGroup", "billinggroup"), name_of(call, "thing", "thing")
    )
    return {}


def list_things_in_billing_group(call: Call) -> Mapping[str, Any]:
    group = call.registry.billing_groups.get(call.partition, call["billingGroupName"])
    things = sorted(call.partition.things_of_billing_group.get(group.name, ()))
    page, token = token_page(call, things, str)
    return {"things": page, "nextToken": token}


HANDLERS: Mapping[str, Handler] = {
    "CreateBillingGroup": create_billing_group,
    "DescribeBillingGroup": describe_billing_group,
    "UpdateBillingGroup": update_billing_group,
    "DeleteBillingGroup": delete_billing_group,
    "ListBillingGroups": list_billing_groups,
    "AddThingToBillingGroup": add_thing_to_billing_group,
    "RemoveThingFromBillingGroup": remove_thing_from_billing_group,
    "ListThingsInBillingGroup": list_things_in_billing_group,
}
