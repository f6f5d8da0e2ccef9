"""RegisterThing: a provisioning template run for whoever calls (aws-iot-behaviour.md §1.5, §3)."""

from collections.abc import Mapping
from typing import Any

from devicesim.emulator import provisioning
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.operations.call import Call, Handler


def register_thing(call: Call) -> Mapping[str, Any]:
    outcome = provisioning.register_thing(
        call.registry, call.partition, call["templateBody"], call.get("parameters") or {}
    )
    if outcome.error is not None:
        raise APIError(outcome.error, outcome.detail)
    return {"certificatePem": outcome.certificate_pem, "resourceArns": dict(outcome.resource_arns)}


HANDLERS: Mapping[str, Handler] = {"RegisterThing": register_thing}
