"""The JSON protocol of AWS (the operation in the header ``X-Amz-Target``, JSON in and out), which CloudTrail and
CloudWatch Logs speak, from botocore's service model. Pure.

Values are read and written as in REST-JSON; only where an operation and an error stand is different.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from botocore.model import OperationModel, ServiceModel

from devicesim.emulator import constraints
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.httpmessage import HTTPRequest, HTTPResponse
from devicesim.emulator.restjson import STATUS_OUTSIDE_MODEL, from_json, read_document, serialization_error, to_json

CONTENT_TYPE: Final = "application/x-amz-json-1.1"
TARGET: Final = "x-amz-target"
_CLIENT_ERROR: Final = 400
"""Of every refusal that the model gives no other status: the protocol has it in the body."""


class AWSJSON:
    """One service's protocol."""

    def __init__(self, service: ServiceModel) -> None:
        self.service = service
        self._prefix = f"{service.metadata['targetPrefix']}."

    def speaks(self, request: HTTPRequest) -> bool:
        """Whether the request is for this service."""
        return request.headers.get(TARGET, "").startswith(self._prefix)

    def route(self, request: HTTPRequest) -> OperationModel:
        """The operation that the target names."""
        target = request.headers.get(TARGET, "")
        name = target.removeprefix(self._prefix)
        if not self.speaks(request) or name not in self.service.operation_names:
            raise APIError("UnknownOperationException", f"There is no operation {target!r}")
        return self.service.operation_model(name)

    def parse(self, operation: OperationModel, request: HTTPRequest) -> dict[str, Any]:
        """The request's parameters by member name, checked against the model's constraints."""
        shape = operation.input_shape
        if shape is None:
            return {}
        document = read_document(request.body or b"{}")
        if not isinstance(document, dict):
            raise serialization_error("The request body is not a JSON object")
        parameters: dict[str, Any] = from_json(document, shape, operation.name)
        broken = constraints.violations(parameters, shape)
        if broken:
            raise APIError("ValidationException", constraints.message(broken))
        return parameters

    def serialise(self, operation: OperationModel, result: Mapping[str, Any]) -> HTTPResponse:
        """The answer for what an operation answers, by member name; members that are ``None`` are left out."""
        document = to_json(result, operation.output_shape)
        return HTTPResponse(status=200, body=json.dumps(document).encode(), headers={"content-type": CONTENT_TYPE})

    def serialise_error(self, error: APIError) -> HTTPResponse:
        """The answer for a refusal: its name stands in the body."""
        known = STATUS_OUTSIDE_MODEL.get(error.code, _CLIENT_ERROR)
        return HTTPResponse(
            status=_CLIENT_ERROR if error.code in self.service.shape_names else known,
            body=json.dumps({"__type": error.code, "message": error.message}).encode(),
            headers={"content-type": CONTENT_TYPE},
        )
