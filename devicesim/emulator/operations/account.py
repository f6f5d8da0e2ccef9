"""What belongs to the account as a whole: endpoints, event configurations, tags."""

from collections.abc import Mapping
from typing import Any

from devicesim.emulator.apierrors import invalid_request
from devicesim.emulator.operations.call import Call, Handler, token_page
from devicesim.emulator.state.partition import EVENT_TYPES


def describe_endpoint(call: Call) -> Mapping[str, Any]:
    """Only ATS endpoints, unless the settings say otherwise (aws-iot-behaviour.md §4.3, M)."""
    partition = call.partition
    addresses = {
        "iot:Data-ATS": partition.endpoint,
        "iot:CredentialProvider": partition.credentials_endpoint,
    }
    if call.registry.environment.settings.plain_data_endpoint:
        addresses["iot:Data"] = partition.plain_endpoint
        addresses["iot:Jobs"] = partition.jobs_endpoint
    wanted = call.get("endpointType") or "iot:Data"
    if wanted not in addresses:
        raise invalid_request(
            f"The endpoint type {wanted} is not supported; use iot:Data-ATS for devices, or iot:CredentialProvider"
        )
    return {"endpointAddress": addresses[wanted]}


def describe_event_configurations(call: Call) -> Mapping[str, Any]:
    """Those of the registry are followed (:mod:`~devicesim.emulator.registryevents`), the others kept and answered;
    auto-registration is told whatever stands here (§2, M)."""
    partition = call.partition
    return {
        "eventConfigurations": {
            event_type: {"Enabled": partition.event_configurations.get(event_type, False)} for event_type in EVENT_TYPES
        },
        "creationDate": partition.event_configurations_created,
        "lastModifiedDate": partition.event_configurations_modified,
    }


def update_event_configurations(call: Call) -> Mapping[str, Any]:
    partition = call.partition
    for event_type, configuration in (call.get("eventConfigurations") or {}).items():
        partition.event_configurations[event_type] = bool(configuration.get("Enabled"))
    now = call.registry.environment.now()
    partition.event_configurations_created = partition.event_configurations_created or now
    partition.event_configurations_modified = now
    return {}


def tag_resource(call: Call) -> Mapping[str, Any]:
    call.registry.tags.tag(call.partition, call["resourceArn"], call.tags)
    return {}


def untag_resource(call: Call) -> Mapping[str, Any]:
    call.registry.tags.untag(call.partition, call["resourceArn"], call["tagKeys"])
    return {}


def list_tags_for_resource(call: Call) -> Mapping[str, Any]:
    tags = sorted(call.registry.tags.of(call.partition, call["resourceArn"]).items())
    page, token = token_page(call, tags, lambda tag: tag[0])
    return {"tags": [{"Key": key, "Value": value} for key, value in page], "nextToken": token}


HANDLERS: Mapping[str, Handler] = {
    "DescribeEndpoint": describe_endpoint,
    "DescribeEventConfigurations": describe_event_configurations,
    "UpdateEventConfigurations": update_event_configurations,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
    "ListTagsForResource": list_tags_for_resource,
}
