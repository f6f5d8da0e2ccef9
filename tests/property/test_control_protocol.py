"""botocore and our side of the protocol agree: what one writes, the other reads unchanged, for every operation."""

import re
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import botocore.session
import pytest
from botocore.model import OperationModel, Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devicesim.emulator.httpmessage import HTTPRequest
from devicesim.emulator.javapattern import compile_pattern
from devicesim.emulator.operations import table
from devicesim.emulator.restjson import RestJSON

SESSION = botocore.session.get_session()
IOT = RestJSON(SESSION.get_service_model("iot"))
SERIALIZER = create_serializer("rest-json", include_validation=True)
PARSER = create_parser("rest-json")
ONE_CLASS = re.compile(r"\^?(\(?)(\[(?:\\.|[^\]\\])+\])([+*])(\)?)\$?")
CHARACTERS = st.characters(exclude_categories=["Cs"], max_codepoint=0x2FFF)


def values(shape: Shape) -> st.SearchStrategy[Any]:
    """Values that the model allows."""
    match shape.type_name:
        case "structure":
            members = {name: values(member) for name, member in shape.members.items()}
            required = {name: members[name] for name in shape.required_members}
            return st.fixed_dictionaries(
                required, optional={name: each for name, each in members.items() if name not in required}
            )
        case "list":
            return st.lists(values(shape.member), min_size=shape.metadata.get("min", 0), max_size=3)
        case "map":
            return st.dictionaries(values(shape.key), values(shape.value), max_size=3)
        case "string":
            return strings(shape)
        case "boolean":
            return st.booleans()
        case "integer" | "long":
            return st.integers(shape.metadata.get("min", -(2**31)), shape.metadata.get("max", 2**31 - 1))
        case "timestamp":
            return st.integers(0, 4_000_000_000_000).map(lambda milliseconds: milliseconds / 1000)
    raise NotImplementedError(shape.type_name)


def strings(shape: Shape) -> st.SearchStrategy[str]:
    if shape.enum:
        return st.sampled_from(shape.enum)
    in_path = shape.serialization.get("location") == "uri"  # where nothing is no segment
    least = max(shape.metadata.get("min", 0), int(in_path))
    most = max(min(shape.metadata.get("max", least + 20), least + 20), least)
    pattern = shape.metadata.get("pattern")
    if pattern is None or pattern == r"[\s\S]*":
        return st.text(CHARACTERS, min_size=least, max_size=most)
    if pattern == "(0x)?[a-fA-F0-9]+":
        return st.text("0123456789abcdefABCDEF", min_size=least, max_size=most)
    if pattern == r"[^\p{C}]*":
        return st.text(st.characters(exclude_categories=["C"]), min_size=least, max_size=most)
    compiled = compile_pattern(pattern)
    simple = ONE_CLASS.fullmatch(pattern)
    if simple:
        one = compile_pattern(simple.group(2))
        return st.text(
            st.from_regex(one, fullmatch=True), min_size=max(least, int(simple.group(3) == "+")), max_size=most
        )
    return st.from_regex(compiled, fullmatch=True).filter(lambda text: least <= len(text) <= most)


def request_of(operation: OperationModel, parameters: dict[str, Any]) -> HTTPRequest:
    """What botocore would send."""
    sent = SERIALIZER.serialize_to_request(parameters, operation)
    path, _, query = sent["url_path"].partition("?")
    more = urlencode(sent["query_string"], doseq=True) if sent["query_string"] else ""
    return HTTPRequest(
        method=sent["method"],
        path=quote(path, safe="/%~"),
        query="&".join(part for part in (query, more) if part),
        headers={name.lower(): value for name, value in sent["headers"].items()},
        body=sent["body"] if isinstance(sent["body"], bytes) else sent["body"].encode(),
    )


def as_seconds(value: Any) -> Any:
    if isinstance(value, datetime):
        return round(value.timestamp(), 3)
    if isinstance(value, dict):
        return {key: as_seconds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_seconds(item) for item in value]
    return value


@pytest.mark.parametrize("name", sorted(table.IOT))
@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_request_written_by_botocore_is_read_unchanged(name: str, data: st.DataObject) -> None:
    operation = IOT.service.operation_model(name)
    parameters = data.draw(values(operation.input_shape)) if operation.input_shape else {}
    request = request_of(operation, parameters)

    assert IOT.route(request.method, request.path).name == name
    assert IOT.parse(operation, request) == parameters


@pytest.mark.parametrize("name", sorted(table.IOT))
@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_response_written_by_us_is_read_by_botocore_unchanged(name: str, data: st.DataObject) -> None:
    operation = IOT.service.operation_model(name)
    shape = operation.output_shape
    result = data.draw(values(shape)) if shape else {}

    response = IOT.serialise(operation, result)
    parsed = PARSER.parse(
        {"status_code": response.status, "headers": dict(response.headers), "body": response.body}, shape
    )
    del parsed["ResponseMetadata"]

    assert as_seconds(parsed) == result
