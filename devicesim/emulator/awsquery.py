"""The query protocol of AWS (form in, XML out), which STS speaks, from botocore's service model. Pure.

In the form, a member of a structure is ``Outer.Inner``, an item of a list ``Outer.member.1``, an entry of a map
``Outer.entry.1.key`` and ``Outer.entry.1.value``. In the answer the same names nest as elements.
"""

import base64
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl
from xml.etree import ElementTree as ET

from botocore.model import OperationModel, ServiceModel, Shape

from devicesim.emulator import constraints
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.httpmessage import HTTPRequest, HTTPResponse

CONTENT_TYPE: Final = "text/xml"
_FORM: Final = "application/x-www-form-urlencoded"
_STATUS: Final = {
    "AccessDenied": 403,
    "ExpiredToken": 403,
    "IncompleteSignature": 400,
    "InternalFailure": 500,
    "InvalidAction": 400,
    "InvalidClientTokenId": 403,
    "MissingAuthenticationToken": 403,
    "NotImplemented": 501,
    "RequestEntityTooLarge": 413,
    "RequestTimeout": 408,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "ValidationError": 400,
}
"""Errors that every query service of AWS answers; names are those of the protocol, without ``Exception``."""
_RENAMED: Final = {
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "UnrecognizedClientException": "InvalidClientTokenId",
}
"""Errors that query services answer under another name than JSON ones."""
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")
_MOST_ITEMS: Final = 1000
"""Of one list or map in a form; what says more is not read to its end."""


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
        """The request's parameters by member name, checked against the model's constraints."""
        shape = operation.input_shape
        if shape is None:
            return {}
        parameters = _structure_in(_tree(_form(request)), shape, "")
        broken = constraints.violations(parameters, shape)
        if broken:
            raise APIError("ValidationError", constraints.message(broken))
        return parameters

    def serialise(self, operation: OperationModel, result: Mapping[str, Any], request_id: str) -> HTTPResponse:
        """The answer for what an operation answers, by member name; members that are ``None`` are left out."""
        root = ET.Element(f"{operation.name}Response", xmlns=self.service.metadata["xmlNamespace"])
        shape = operation.output_shape
        if shape is not None:
            _structure_out(ET.SubElement(root, shape.serialization["resultWrapper"]), result, shape)
        metadata = ET.SubElement(root, "ResponseMetadata")
        ET.SubElement(metadata, "RequestId").text = request_id
        return HTTPResponse(status=200, body=ET.tostring(root), headers={"content-type": CONTENT_TYPE})

    def serialise_error(self, error: APIError, request_id: str) -> HTTPResponse:
        code, status = self._error(error)
        root = ET.Element("ErrorResponse", xmlns=self.service.metadata["xmlNamespace"])
        detail = ET.SubElement(root, "Error")
        ET.SubElement(detail, "Type").text = "Sender" if status < 500 else "Receiver"
        ET.SubElement(detail, "Code").text = code
        ET.SubElement(detail, "Message").text = _sayable(error.message)
        ET.SubElement(root, "RequestId").text = request_id
        return HTTPResponse(status=status, body=ET.tostring(root), headers={"content-type": CONTENT_TYPE})

    def _error(self, error: APIError) -> tuple[str, int]:
        """What the caller reads as code, and the status: the protocol's own, or the model's."""
        code = _RENAMED.get(error.code) or error.code.removesuffix("Exception")
        if code in _STATUS:
            return code, _STATUS[code]
        if error.code not in self.service.shape_names:
            raise ValueError(f"{error.code} is no error of {self.service.service_name}")
        metadata = self.service.shape_for(error.code).metadata.get("error", {})
        return metadata.get("code", error.code), metadata.get("httpStatusCode", 400)


def _form(request: HTTPRequest) -> dict[str, str]:
    text = request.query
    if request.headers.get("content-type", "").startswith(_FORM):
        text += "&" + request.body.decode("utf-8", "replace")
    return dict(parse_qsl(text, keep_blank_values=True))


class _Node:
    """What a form has under one dotted name: a value of its own, names below it, or both."""

    __slots__ = ("below", "text")

    def __init__(self) -> None:
        self.text: str | None = None
        self.below: dict[str, _Node] = {}


def _tree(form: Mapping[str, str]) -> _Node:
    root = _Node()
    for name, text in form.items():
        node = root
        for part in name.split("."):
            node = node.below.setdefault(part, _Node())
        node.text = text
    return root


def _value_in(node: _Node, shape: Shape, path: str) -> Any:
    match shape.type_name:
        case "structure":
            return _structure_in(node, shape, path)
        case "list":
            items = node.below.get(shape.member.serialization.get("name", "member"), _Node())
            flat = node if shape.serialization.get("flattened") else items
            return [_value_in(item, shape.member, f"{path}.{number}") for number, item in _numbered(flat, path)]
        case "map":
            return {
                _value_in(_part(entry, "key", path), shape.key, path): _value_in(
                    _part(entry, "value", path), shape.value, path
                )
                for _, entry in _numbered(node.below.get("entry", _Node()), path)
            }
        case kind:
            return _READERS[kind](node.text or "", path)


def _structure_in(node: _Node, shape: Shape, path: str) -> dict[str, Any]:
    prefix = f"{path}." if path else ""
    found = {}
    for name, member in shape.members.items():
        held = node.below.get(member.serialization.get("name", name))
        if held is not None:
            found[name] = _value_in(held, member, prefix + name)
    return found


def _numbered(node: _Node, path: str) -> list[tuple[int, _Node]]:
    """The items of a list or map in the order of their numbers, which begin with 1 and may have gaps."""
    items = []
    for number, item in node.below.items():
        if not (number.isascii() and number.isdigit() and len(number) <= 6):
            raise _malformed(f"{path} has the item {number!r}, expected a number")
        items.append((int(number), item))
    if len(items) > _MOST_ITEMS:
        raise _malformed(f"{path} has {len(items)} items, at most {_MOST_ITEMS} are read")
    return sorted(items, key=lambda pair: pair[0])


def _part(node: _Node, name: str, path: str) -> _Node:
    try:
        return node.below[name]
    except KeyError:
        raise _malformed(f"{path} has an entry without {name}") from None


def _integer(text: str, path: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise _malformed(f"{path} is {text!r}, expected an integer")
    return int(text)


def _number(text: str, path: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _malformed(f"{path} is {text!r}, expected a number")
    return number


def _boolean(text: str, path: str) -> bool:
    if text not in ("true", "false"):
        raise _malformed(f"{path} is {text!r}, expected true or false")
    return text == "true"


def _timestamp(text: str, path: str) -> float:
    """Seconds since the Unix epoch; without an offset, UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _malformed(f"{path} is {text!r}, expected a date as in 2026-01-31T12:00:00Z") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _blob(text: str, path: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise _malformed(f"{path} is {text!r}, expected base64") from None


_READERS: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "string": lambda text, _path: text,
    "integer": _integer,
    "long": _integer,
    "float": _number,
    "double": _number,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "blob": _blob,
}


def _malformed(problem: str) -> APIError:
    # AWS answers MalformedInput without a text; its name is not in the tables of SDKs, ValidationError is
    return APIError("ValidationError", problem)


def _value_out(element: ET.Element, value: Any, shape: Shape) -> None:
    match shape.type_name:
        case "structure":
            _structure_out(element, value, shape)
        case "list":
            for item in value:
                name = shape.member.serialization.get("name", "member")
                _value_out(ET.SubElement(element, name), item, shape.member)
        case "map":
            for key, item in value.items():
                entry = ET.SubElement(element, "entry")
                _value_out(ET.SubElement(entry, "key"), key, shape.key)
                _value_out(ET.SubElement(entry, "value"), item, shape.value)
        case "boolean":
            element.text = "true" if value else "false"
        case "timestamp":
            moment = datetime.fromtimestamp(value, UTC)
            element.text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case "blob":
            element.text = base64.b64encode(value).decode()
        case _:
            element.text = _sayable(str(value))


def _sayable(text: str) -> str:
    """Without the control characters that XML 1.0 has no place for (what a caller sent may be told back)."""
    return _NO_XML.sub("\ufffd", text)


def _structure_out(element: ET.Element, values: Mapping[str, Any], shape: Shape) -> None:
    for name, value in values.items():
        member = shape.members[name]
        if value is not None:
            _value_out(ET.SubElement(element, member.serialization.get("name", name)), value, member)
