"""Logging options, old and new: kept and answered. The new default level and event configurations decide what
:mod:`~devicesim.emulator.brokerlog` tells; the rest is without effect."""

from collections.abc import Mapping
from typing import Any

from devicesim.emulator.apierrors import invalid_request, not_configured
from devicesim.emulator.operations.call import Call, Handler, token_page
from devicesim.emulator.state.records import LogEvent, LoggingLevel, LoggingOptions

NEW = "v2"
"""Under which the account's state has the options of today."""
_OLD = "v1"


def get_logging_options(call: Call) -> Mapping[str, Any]:
    held = call.partition.logging_options.get(_OLD)
    return {} if held is None else {"roleArn": held.role_arn, "logLevel": held.level}


def set_logging_options(call: Call) -> Mapping[str, Any]:
    given = call["loggingOptionsPayload"]
    call.partition.logging_options[_OLD] = LoggingOptions(role_arn=given["roleArn"], level=given.get("logLevel"))
    return {}


def get_v2_logging_options(call: Call) -> Mapping[str, Any]:
    held = call.partition.logging_options.get(NEW)
    if held is None:
        raise not_configured("There are no logging options; set them with SetV2LoggingOptions")
    return {
        "roleArn": held.role_arn,
        "defaultLogLevel": held.level,
        "disableAllLogs": held.disabled,
        "eventConfigurations": [
            {"eventType": event.event_type, "logLevel": event.level, "logDestination": event.destination}
            for event in held.events
        ]
        or None,
    }


def set_v2_logging_options(call: Call) -> Mapping[str, Any]:
    """What is left out keeps its value."""
    held = call.partition.logging_options.get(NEW)
    if held is None and call.get("roleArn") is None:
        raise invalid_request("roleArn must be given the first time that logging options are set")
    held = held or LoggingOptions()
    events = call.get("eventConfigurations")
    disabled = call.get("disableAllLogs")
    call.partition.logging_options[NEW] = LoggingOptions(
        role_arn=call.get("roleArn") or held.role_arn,
        level=call.get("defaultLogLevel") or held.level,
        disabled=held.disabled if disabled is None else disabled,
        events=held.events
        if events is None
        else tuple(
            LogEvent(event_type=each["eventType"], level=each.get("logLevel"), destination=each.get("logDestination"))
            for each in events
        ),
    )
    return {}


def set_v2_logging_level(call: Call) -> Mapping[str, Any]:
    _require_options(call)
    target = call["logTarget"]
    kind, name = target["targetType"], target.get("targetName")
    if (kind == "DEFAULT") != (name is None):
        raise invalid_request(f"The target type {kind} {'takes no' if name is not None else 'needs a'} targetName")
    call.partition.logging_levels[_key(kind, name)] = LoggingLevel(
        target_type=kind, target_name=name, level=call["logLevel"]
    )
    return {}


def list_v2_logging_levels(call: Call) -> Mapping[str, Any]:
    _require_options(call)
    kind = call.get("targetType")
    levels = sorted(
        (key, level) for key, level in call.partition.logging_levels.items() if kind in (None, level.target_type)
    )
    page, token = token_page(call, levels, lambda pair: pair[0])
    return {
        "logTargetConfigurations": [
            {
                "logTarget": {"targetType": level.target_type, "targetName": level.target_name},
                "logLevel": level.level,
            }
            for _, level in page
        ],
        "nextToken": token,
    }


def delete_v2_logging_level(call: Call) -> Mapping[str, Any]:
    """The model gives this operation no ResourceNotFoundException: deleting what is not there changes nothing."""
    call.partition.logging_levels.pop(_key(call["targetType"], call["targetName"]), None)
    return {}


def _key(target_type: str, target_name: str | None) -> str:
    return f"{target_type}/{target_name or ''}"


def _require_options(call: Call) -> None:
    if NEW not in call.partition.logging_options:
        raise not_configured("There are no logging options; set them with SetV2LoggingOptions")


HANDLERS: Mapping[str, Handler] = {
    "GetLoggingOptions": get_logging_options,
    "SetLoggingOptions": set_logging_options,
    "GetV2LoggingOptions": get_v2_logging_options,
    "SetV2LoggingOptions": set_v2_logging_options,
    "SetV2LoggingLevel": set_v2_logging_level,
    "ListV2LoggingLevels": list_v2_logging_levels,
    "DeleteV2LoggingLevel": delete_v2_logging_level,
}
