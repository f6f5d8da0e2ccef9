"""The REST-JSON protocol of AWS, from botocore's own service model: route, parse, check, serialise. Pure.

The model is the one that boto3 and the ``aws`` CLI use, so there is no copied schema to fall behind. Bytes in,
parameters out, and back; what an operation does is no concern of this module.
"""

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from botocore.model import OperationModel, ServiceModel, Shape

from devicesim.emulator import constraints
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.httpmessage import HTTPRequest, HTTPResponse

CONTENT_TYPE: Final = "application/json"
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")
STATUS_OUTSIDE_MODEL: Final = {
    # errors of the protocols themselves, which every JSON service of AWS answers and no model lists
    "AccessDeniedException": 403,
    "ExpiredTokenException": 403,
    "IncompleteSignatureException": 400,
    "InternalFailureException": 500,
    "InvalidSignatureException": 403,
    "MissingAuthenticationTokenException": 403,
    "NotImplementedException": 501,
    "RequestEntityTooLargeException": 413,
    "RequestTimeoutException": 408,
    "SerializationException": 400,
    "ServiceUnavailableException": 503,
    "UnknownOperationException": 404,
    "UnrecognizedClientException": 403,
}


def serialization_error(message: str) -> APIError:
    """The request can not be read as what the model says."""
    return APIError("SerializationException", message)


def read_document(body: bytes) -> Any:
    """The JSON of a request's body."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise serialization_error("The request body is not JSON") from exc


class _Node:
    """One segment of the tree of routes."""

    __slots__ = ("greedy", "label", "literals", "operations")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.label: _Node | None = None
        self.greedy: _Node | None = None
        self.operations: dict[str, OperationModel] = {}
        """By HTTP method, where a path may end."""


class RestJSON:
    """One service's protocol."""

    def __init__(self, service: ServiceModel) -> None:
        self.service = service
        self._root = _Node()
        for name in service.operation_names:
            self._add(service.operation_model(name))

    def _add(self, operation: OperationModel) -> None:
        node = self._root
        for segment in operation.http["requestUri"].split("/")[1:]:
            if segment.startswith("{") and segment.endswith("+}"):
                node.greedy = node.greedy or _Node()
                node = node.greedy
            elif segment.startswith("{"):
                node.label = node.label or _Node()
                node = node.label
            else:
                node = node.literals.setdefault(segment, _Node())
        method = operation.http["method"]
        assert method not in node.operations, f"{operation.name} and {node.operations[method].name} share a route"
        node.operations[method] = operation

    def route(self, method: str, path: str) -> OperationModel:
        """The operation of a request. Literal segments win over labels, labels over greedy ones."""
        operation = _find(self._root, method, path.split("/")[1:], 0)
        if operation is None:
            raise APIError("UnknownOperationException", f"There is no operation at {method} {path}")
        return operation

    def parse(self, operation: OperationModel, request: HTTPRequest) -> dict[str, Any]:
        """The request's parameters by member name, checked against the model's constraints."""
        shape = operation.input_shape
        if shape is None:
            return {}
        parameters = self._parse_body(shape, request.body)
        labels = _labels(operation.http["requestUri"], request.path)
        query = parse_qsl(request.query, keep_blank_values=True)
        for name, member in shape.members.items():
            location = member.serialization.get("location")
            if location is None:
                continue
            wire_name = member.serialization.get("name", name)
            values = _located(location, wire_name, labels, query, request.headers)
            if not values:
                continue
            if member.type_name == "list":
                parameters[name] = [_from_text(value, member.member, name) for value in values]
            else:
                parameters[name] = _from_text(values[-1], member, name)
        broken = constraints.violations(parameters, shape)
        if broken:
            raise APIError(_validation_error(operation), constraints.message(broken))
        return parameters

    def _parse_body(self, shape: Shape, body: bytes) -> dict[str, Any]:
        payload = shape.serialization.get("payload")
        if payload is not None and shape.members[payload].type_name == "blob":
            return {payload: body}
        in_body = [name for name, member in shape.members.items() if "location" not in member.serialization]
        if not in_body or not body:
            return {}
        document = read_document(body)
        if payload is not None:
            return {payload: from_json(document, shape.members[payload], payload)}
        if not isinstance(document, dict):
            raise serialization_error("The request body is not a JSON object")
        return {
            name: from_json(value, shape.members[name], name)
            for name in in_body
            if (value := document.get(shape.members[name].serialization.get("name", name))) is not None
        }

    def serialise(self, operation: OperationModel, result: Mapping[str, Any]) -> HTTPResponse:
        """The response for what an operation answers, by member name; members that are ``None`` are left out."""
        shape = operation.output_shape
        status = operation.http.get("responseCode", 200)
        if shape is None:
            if result:
                raise ValueError(f"{operation.name} answers nothing, but its handler answered {sorted(result)}")
            return HTTPResponse(status=status, headers={"content-type": CONTENT_TYPE})
        headers = {"content-type": CONTENT_TYPE}
        body: dict[str, Any] = {}
        for name, value in result.items():
            member = shape.members[name]
            if value is None:
                continue
            match member.serialization.get("location"):
                case None:
                    body[member.serialization.get("name", name)] = to_json(value, member)
                case "statusCode":
                    status = value
                case "header":
                    headers[member.serialization["name"].lower()] = str(value)
                case location:
                    raise ValueError(f"member {name!r} of {operation.name} has the location {location!r}")
        payload = shape.serialization.get("payload")
        if payload is not None and shape.members[payload].type_name == "blob":
            return HTTPResponse(status=status, body=result.get(payload) or b"", headers=headers)
        document = body.get(payload, {}) if payload is not None else body
        return HTTPResponse(status=status, body=json.dumps(document).encode(), headers=headers)

    def serialise_error(self, error: APIError) -> HTTPResponse:
        """The response for a refusal; the status is the model's, where the model has the error."""
        return HTTPResponse(
            status=self._error_status(error),
            body=json.dumps({"message": error.message, **error.fields}).encode(),
            headers={"content-type": CONTENT_TYPE, "x-amzn-errortype": error.code},
        )

    def _error_status(self, error: APIError) -> int:
        if error.code not in self.service.shape_names:
            return STATUS_OUTSIDE_MODEL[error.code]
        shape = self.service.shape_for(error.code)
        unknown = set(error.fields) - set(shape.members)
        if unknown:
            raise ValueError(f"{error.code} has no members {sorted(unknown)}")
        status = shape.metadata["error"]["httpStatusCode"]
        assert isinstance(status, int)
        return status


def _find(node: _Node, method: str, segments: list[str], position: int) -> OperationModel | None:
    if position == len(segments):
        return node.operations.get(method)
    segment = segments[position]
    literal = node.literals.get(unquote(segment))
    found = _find(literal, method, segments, position + 1) if literal is not None else None
    if found is None and node.label is not None and segment:
        found = _find(node.label, method, segments, position + 1)
    if found is None and node.greedy is not None and segment:
        found = node.greedy.operations.get(method)
    return found


def _labels(template: str, path: str) -> dict[str, str]:
    """The values of a template's labels in a path that it matched."""
    labels: dict[str, str] = {}
    segments = path.split("/")
    for position, part in enumerate(template.split("/")):
        if part.startswith("{") and part.endswith("+}"):
            labels[part[1:-2]] = unquote("/".join(segments[position:]))
        elif part.startswith("{"):
            labels[part[1:-1]] = unquote(segments[position])
    return labels


def _located(
    location: str,
    name: str,
    labels: Mapping[str, str],
    query: list[tuple[str, str]],
    headers: Mapping[str, str],
) -> list[str]:
    match location:
        case "uri":
            return [labels[name]]
        case "querystring":
            return [value for key, value in query if key == name]
        case "header":
            value = headers.get(name.lower())
            return [] if value is None else [value]
        case _:
            # maps in the query string and families of headers: no operation of iot and iot-data has them
            raise NotImplementedError(f"location {location!r} of member {name!r}")


def _validation_error(operation: OperationModel) -> str:
    names = {shape.name for shape in operation.error_shapes}
    if "InvalidRequestException" not in names and "ValidationException" in names:
        return "ValidationException"
    return "InvalidRequestException"


def _from_text(text: str, shape: Shape, name: str) -> Any:
    """A value of a path, query string or header."""
    match shape.type_name:
        case "string":
            return _from_json_header(text, name) if shape.serialization.get("jsonvalue") else text
        case "boolean":
            if text not in ("true", "false"):
                raise serialization_error(f"{name} is {text!r}, expected true or false")
            return text == "true"
        case "integer" | "long":
            if not _INTEGER.fullmatch(text):
                raise serialization_error(f"{name} is {text!r}, expected an integer")
            return _bounded(int(text), shape, name)
        case "float" | "double":
            return _number(text, name)
        case "timestamp":
            return _from_iso(text, name)
        case kind:
            raise NotImplementedError(f"type {kind!r} of member {name!r} outside the body")


def _from_json_header(text: str, name: str) -> Any:
    """Base64 of JSON, which is how a JSON value travels in a header."""
    try:
        return json.loads(base64.b64decode(text, validate=True), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise serialization_error(f"the header of {name} is {text!r}, expected base64 of JSON") from None


def _bounded(number: int, shape: Shape, name: str) -> int:
    """AWS reads an integer into 32 bits and a long into 64; what does not fit is none."""
    bits = 31 if shape.type_name == "integer" else 63
    if not -(1 << bits) <= number < 1 << bits:
        raise serialization_error(f"{name} is {number}, expected an integer of {bits + 1} bits")
    return number


def _number(text: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise serialization_error(f"{name} is {text!r}, expected a number")
    return number


def _from_iso(text: str, name: str) -> float:
    """Seconds since the Unix epoch; timestamps are handed on as numbers, wherever they stood."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise serialization_error(f"{name} is {text!r}, expected a date as in 2026-01-31T12:00:00Z") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def from_json(value: Any, shape: Shape, path: str) -> Any:
    """A value of the body. ``null`` inside lists and maps is refused; as a member it is left out by the callers."""
    reader = _READERS[shape.type_name]
    return reader(value, shape, path)


def _read_structure(value: Any, shape: Shape, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _unexpected(value, path, "an object")
    return {
        name: from_json(held, member, f"{path}.{name}")
        for name, member in shape.members.items()
        if (held := value.get(member.serialization.get("name", name))) is not None
    }


def _read_list(value: Any, shape: Shape, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise _unexpected(value, path, "a list")
    return [from_json(item, shape.member, f"{path}[{number}]") for number, item in enumerate(value)]


def _read_map(value: Any, shape: Shape, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _unexpected(value, path, "an object")
    return {_whole(key, path): from_json(item, shape.value, f"{path}.{key}") for key, item in value.items()}


def _read_string(value: Any, _shape: Shape, path: str) -> str:
    if not isinstance(value, str):
        raise _unexpected(value, path, "a string")
    return _whole(value, path)


def _whole(text: str, path: str) -> str:
    """The text. JSON can say halves of a character (``"\\ud800"``), which nothing can write: those are refused."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise serialization_error(f"{path} has half a surrogate pair") from None
    return text


def _read_boolean(value: Any, _shape: Shape, path: str) -> bool:
    if not isinstance(value, bool):
        raise _unexpected(value, path, "true or false")
    return value


def _read_integer(value: Any, shape: Shape, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _unexpected(value, path, "an integer")
    return _bounded(value, shape, path)


def _read_number(value: Any, _shape: Shape, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unexpected(value, path, "a number")
    return value


def _read_timestamp(value: Any, shape: Shape, path: str) -> float:
    return _from_iso(value, path) if isinstance(value, str) else _read_number(value, shape, path)


def _read_blob(value: Any, shape: Shape, path: str) -> bytes:
    try:
        return base64.b64decode(_read_string(value, shape, path), validate=True)
    except ValueError:
        raise _unexpected(value, path, "base64") from None


_READERS: Final[Mapping[str, Callable[[Any, Shape, str], Any]]] = {
    "structure": _read_structure,
    "list": _read_list,
    "map": _read_map,
    "string": _read_string,
    "boolean": _read_boolean,
    "integer": _read_integer,
    "long": _read_integer,
    "float": _read_number,
    "double": _read_number,
    "timestamp": _read_timestamp,
    "blob": _read_blob,
}


def _unexpected(value: Any, path: str, expected: str) -> APIError:
    shown = "null" if value is None else type(value).__name__
    return serialization_error(f"{path} is of JSON type {shown}, expected {expected}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def to_json(value: Any, shape: Shape) -> Any:
    """A value of an answer's body."""
    match shape.type_name:
        case "structure":
            return {
                shape.members[name].serialization.get("name", name): to_json(held, shape.members[name])
                for name, held in value.items()
                if held is not None
            }
        case "list":
            return [to_json(item, shape.member) for item in value]
        case "map":
            return {key: to_json(item, shape.value) for key, item in value.items()}
        case "timestamp":
            return round(float(value), 3)  # AWS IoT answers seconds with three decimals (the article's output)
        case "blob":
            return base64.b64encode(value).decode()
        case "string":
            return str(value)
        case _:
            return value
