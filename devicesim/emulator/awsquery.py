"""The query protocol of AWS (form in, XML out), as far as STS needs it, from botocore's service model. Pure."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl
from xml.etree import ElementTree as ET

from botocore.model import OperationModel, ServiceModel

from devicesim.emulator import constraints
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.httpmessage import HTTPRequest, HTTPResponse

CONTENT_TYPE: Final = "text/xml"
_FORM: Final = "application/x-www-form-urlencoded"
_STATUS: Final = {
    "IncompleteSignature": 400,
    "InternalFailure": 500,
    "InvalidAction": 400,
    "MissingAuthenticationToken": 403,
    "NotImplemented": 501,
    "RequestEntityTooLarge": 413,
    "RequestTimeout": 408,
    "ServiceUnavailable": 503,
    "ValidationError": 400,
}
"""Errors that every query service of AWS answers; names are those of the protocol, without ``Exception``."""


class AWSQuery:
    """One service's protocol."""

    def __init__(self, service: ServiceModel) -> None:
        self.service = service

    def route(self, request: HTTPRequest) -> OperationModel:
        """The operation that ``Action`` names, in the form or the query string."""
        form = _form(request)
        action = form.get("Action", "")
        version = form.get("Version", self.service.api_version)
        if action not in self.service.operation_names or version != self.service.api_version:
            raise APIError("InvalidAction", f"Could not find operation {action!r} for version {version!r}")
        return self.service.operation_model(action)

    def parse(self, operation: OperationModel, request: HTTPRequest) -> dict[str, Any]:
        """The request's parameters; only strings at the top, which is all that the emulated operations take."""
        shape = operation.input_shape
        if shape is None:
            return {}
        form = _form(request)
        parameters: dict[str, Any] = {}
        for name, member in shape.members.items():
            wire_name = member.serialization.get("name", name)
            if wire_name not in form:
                continue
            if member.type_name != "string":
                raise NotImplementedError(f"type {member.type_name!r} of member {name!r} in a query")
            parameters[name] = form[wire_name]
        broken = constraints.violations(parameters, shape)
        if broken:
            raise APIError("ValidationError", constraints.message(broken))
        return parameters

    def serialise(self, operation: OperationModel, result: Mapping[str, Any], request_id: str) -> HTTPResponse:
        root = ET.Element(f"{operation.name}Response", xmlns=self.service.metadata["xmlNamespace"])
        shape = operation.output_shape
        if shape is not None:
            wrapper = ET.SubElement(root, shape.serialization["resultWrapper"])
            for name, value in result.items():
                member = shape.members[name]
                if member.type_name != "string":
                    raise NotImplementedError(f"type {member.type_name!r} of member {name!r} in a query's answer")
                ET.SubElement(wrapper, member.serialization.get("name", name)).text = value
        metadata = ET.SubElement(root, "ResponseMetadata")
        ET.SubElement(metadata, "RequestId").text = request_id
        return HTTPResponse(status=200, body=ET.tostring(root), headers={"content-type": CONTENT_TYPE})

    def serialise_error(self, error: APIError, request_id: str) -> HTTPResponse:
        code = error.code.removesuffix("Exception")
        status = _STATUS[code]
        root = ET.Element("ErrorResponse", xmlns=self.service.metadata["xmlNamespace"])
        detail = ET.SubElement(root, "Error")
        ET.SubElement(detail, "Type").text = "Sender" if status < 500 else "Receiver"
        ET.SubElement(detail, "Code").text = code
        ET.SubElement(detail, "Message").text = error.message
        ET.SubElement(root, "RequestId").text = request_id
        return HTTPResponse(status=status, body=ET.tostring(root), headers={"content-type": CONTENT_TYPE})


def _form(request: HTTPRequest) -> dict[str, str]:
    text = request.query
    if request.headers.get("content-type", "").startswith(_FORM):
        text += "&" + request.body.decode("utf-8", "replace")
    return dict(parse_qsl(text, keep_blank_values=True))
