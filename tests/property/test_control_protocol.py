"""botocore and our side of the protocol agree: what one writes, the other reads unchanged, for every operation.

Every operation of the models of ``iot`` (272), ``iot-data`` and ``sts``, whether it is emulated or not: a request that
the emulator does not serve must still be read, so that it is refused by name.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import botocore.session
import pytest
from botocore.model import OperationModel, Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from devicesim.emulator.awsquery import AWSQuery
from devicesim.emulator.httpmessage import HTTPRequest
from devicesim.emulator.javapattern import compile_pattern
from devicesim.emulator.operations import table
from devicesim.emulator.restjson import RestJSON

SESSION = botocore.session.get_session()
REST = {name: RestJSON(SESSION.get_service_model(name)) for name in ("iot", "iot-data")}
STS = AWSQuery(SESSION.get_service_model("sts"))
REST_OPERATIONS = [(service, name) for service, model in REST.items() for name in model.service.operation_names]
EXAMPLES = 12
"""Of an operation that is emulated."""
OTHER_EXAMPLES = 3
ONE_CLASS = re.compile(r"\^?(\(?)(\[(?:\\.|[^\]\\])+\])([+*])(\)?)\$?")
CHARACTERS = st.characters(exclude_categories=["Cs"], max_codepoint=0x2FFF)
XML_CHARACTERS = st.characters(exclude_categories=["Cs", "C"], max_codepoint=0x2FFF)
"""XML 1.0 has no place for control characters, and says so of no other; a parser makes a line's end of ``\\r``."""
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(CHARACTERS, max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(CHARACTERS, max_size=5), inner, max_size=3),
    max_leaves=6,
)


@cache
def values(shape: Shape, xml: bool = False) -> st.SearchStrategy[Any]:
    """Values that the model allows; ``xml`` leaves out what XML cannot carry."""
    match shape.type_name:
        case "structure":
            members = {name: values(member, xml) for name, member in shape.members.items()}
            required = {name: members[name] for name in shape.required_members}
            return st.fixed_dictionaries(
                required, optional={name: each for name, each in members.items() if name not in required}
            )
        case "list":
            least, most = sizes(shape, 3)
            return st.lists(values(shape.member, xml), min_size=least, max_size=most)
        case "map":
            least, most = sizes(shape, 3)
            return st.dictionaries(values(shape.key, xml), values(shape.value, xml), min_size=least, max_size=most)
        case "string" if shape.serialization.get("jsonvalue"):
            return ANY_JSON
        case "string":
            return strings(shape, XML_CHARACTERS if xml else CHARACTERS)
        case "boolean":
            return st.booleans()
        case "integer":
            if is_status(shape):
                return st.integers(200, 299)  # what follows is an error, or says where else to look
            return st.integers(shape.metadata.get("min", -(2**31)), shape.metadata.get("max", 2**31 - 1))
        case "long":
            return st.integers(shape.metadata.get("min", -(2**63)), shape.metadata.get("max", 2**63 - 1))
        case "float" | "double":
            return st.floats(
                shape.metadata.get("min"), shape.metadata.get("max"), allow_nan=False, allow_infinity=False
            )
        case "timestamp":
            return st.integers(0, 4_000_000_000_000).map(lambda milliseconds: milliseconds / 1000)
        case "blob":
            least, most = sizes(shape, 30)
            return st.binary(min_size=least, max_size=most)
    raise NotImplementedError(shape.type_name)


def sizes(shape: Shape, room: int) -> tuple[int, int]:
    """Least and greatest length, with ``room`` above the least where the model allows it."""
    least = shape.metadata.get("min", 0)
    return least, min(least + room, shape.metadata.get("max", least + room))


def strings(shape: Shape, characters: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    if shape.enum:
        return st.sampled_from(shape.enum)
    in_path = shape.serialization.get("location") == "uri"  # where nothing is no segment
    least = max(shape.metadata.get("min", 0), int(in_path))
    most = max(min(shape.metadata.get("max", least + 20), least + 20), least)
    pattern = shape.metadata.get("pattern")
    if pattern is None or pattern in (r"[\s\S]*", r"[\u0009\u000A\u000D\u0020-\u00FF]+") or "u10FFFF" in pattern:
        if pattern is not None and "FF]" in pattern:  # a policy or session document of STS
            characters, least = st.characters(min_codepoint=0x20, max_codepoint=0x7E), max(least, 1)
        return st.text(characters, min_size=least, max_size=most)
    if pattern == "(0x)?[a-fA-F0-9]+":
        return st.text("0123456789abcdefABCDEF", min_size=max(least, 1), max_size=most)
    if pattern == r"[^\p{C}]*":
        return st.text(st.characters(exclude_categories=["C"]), min_size=least, max_size=most)
    compiled = compile_pattern(pattern)
    simple = ONE_CLASS.fullmatch(pattern)
    if simple:
        one = compile_pattern(simple.group(2))
        return st.text(
            st.from_regex(one, fullmatch=True), min_size=max(least, int(simple.group(3) == "+")), max_size=most
        )
    return st.from_regex(compiled, fullmatch=True).filter(
        lambda text: least <= len(text) <= shape.metadata.get("max", most)
    )


def prepared(protocol: str, operation: OperationModel, parameters: dict[str, Any]) -> HTTPRequest:
    """What botocore would send."""
    sent = create_serializer(protocol, include_validation=False).serialize_to_request(parameters, operation)
    path, _, query = sent["url_path"].partition("?")
    more = urlencode(sent["query_string"], doseq=True) if sent["query_string"] else ""
    headers = {name.lower(): value for name, value in sent["headers"].items()}
    body = sent["body"]
    if isinstance(body, Mapping):  # a form, which botocore's request object encodes
        body = urlencode(body, doseq=True)
        headers["content-type"] = "application/x-www-form-urlencoded; charset=utf-8"
    return HTTPRequest(
        method=sent["method"],
        path=quote(path, safe="/%~"),
        query="&".join(part for part in (query, more) if part),
        headers=headers,
        body=body if isinstance(body, bytes) else body.encode(),
    )


def blob_payload(shape: Shape | None) -> str | None:
    """The member that is the whole body as it stands."""
    name = None if shape is None else shape.serialization.get("payload")
    assert shape is None or name is None or isinstance(name, str)
    return name if name is not None and shape is not None and shape.members[name].type_name == "blob" else None


def comparable(value: Any) -> Any:
    if isinstance(value, datetime):
        return round(value.timestamp(), 3)
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    return value


_NOTHING = object()


def sayable(value: Any) -> Any:
    """Without structures that have no members: a form says a structure by its members, so it can not say those."""
    if isinstance(value, dict):
        kept = {key: said for key, held in value.items() if (said := sayable(held)) is not _NOTHING}
        return kept or _NOTHING
    if isinstance(value, list):
        items = [said for each in value if (said := sayable(each)) is not _NOTHING]
        return items if items or not value else _NOTHING
    return value


def check_request(service: str, name: str, data: st.DataObject) -> None:
    protocol = REST[service]
    operation = protocol.service.operation_model(name)
    shape = operation.input_shape
    parameters = data.draw(values(shape)) if shape else {}
    request = prepared("rest-json", operation, parameters)
    payload = blob_payload(shape)

    assert protocol.route(request.method, request.path).name == name
    expected = parameters if payload is None else {payload: b"", **parameters}
    assert protocol.parse(operation, request) == expected


def check_response(service: str, name: str, data: st.DataObject) -> None:
    protocol = REST[service]
    operation = protocol.service.operation_model(name)
    shape = operation.output_shape
    result = data.draw(values(shape)) if shape else {}

    response = protocol.serialise(operation, result)
    payload = blob_payload(shape)
    if payload is not None:  # botocore hands on the stream as it is
        assert response.body == result.get(payload, b"")
        return
    parsed = create_parser("rest-json").parse(
        {"status_code": response.status, "headers": dict(response.headers), "body": response.body}, shape
    )
    del parsed["ResponseMetadata"]
    if shape is not None:  # the status is a member of a few answers, and always has a value
        status = {name: response.status for name, member in shape.members.items() if is_status(member)}
        result = {**status, **result}

    assert comparable(parsed) == result


def is_status(member: Shape) -> bool:
    return bool(member.serialization.get("location") == "statusCode")


SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
EMULATED = sorted(table.IOT)
OTHERS = sorted((service, name) for service, name in REST_OPERATIONS if name not in table.IOT)


def test_the_models_have_the_operations_that_this_is_about() -> None:
    assert len(REST["iot"].service.operation_names) >= 272
    assert len(EMULATED) + len(OTHERS) == len(REST_OPERATIONS)


@pytest.mark.parametrize("name", EMULATED)
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SLOW_IS_FINE)
def test_request_written_by_botocore_is_read_unchanged(name: str, data: st.DataObject) -> None:
    check_request("iot", name, data)


@pytest.mark.parametrize("name", EMULATED)
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SLOW_IS_FINE)
def test_response_written_by_us_is_read_by_botocore_unchanged(name: str, data: st.DataObject) -> None:
    check_response("iot", name, data)


@pytest.mark.parametrize(("service", "name"), OTHERS)
@given(data=st.data())
@settings(max_examples=OTHER_EXAMPLES, deadline=None, suppress_health_check=SLOW_IS_FINE)
def test_request_of_every_other_operation_is_read_unchanged(service: str, name: str, data: st.DataObject) -> None:
    check_request(service, name, data)


@pytest.mark.parametrize(("service", "name"), OTHERS)
@given(data=st.data())
@settings(max_examples=OTHER_EXAMPLES, deadline=None, suppress_health_check=SLOW_IS_FINE)
def test_response_of_every_other_operation_is_read_unchanged(service: str, name: str, data: st.DataObject) -> None:
    check_response(service, name, data)


@pytest.mark.parametrize("name", STS.service.operation_names)
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SLOW_IS_FINE)
def test_query_written_by_botocore_is_read_unchanged(name: str, data: st.DataObject) -> None:
    operation = STS.service.operation_model(name)
    parameters = data.draw(values(operation.input_shape)) if operation.input_shape else {}
    said = sayable(parameters)
    assume(operation.input_shape is None or said is not _NOTHING or not operation.input_shape.required_members)
    assume(said is _NOTHING or set(operation.input_shape.required_members) <= set(said))
    request = prepared("query", operation, parameters)

    assert STS.route(request).name == name
    assert STS.parse(operation, request) == ({} if said is _NOTHING else said)


@pytest.mark.parametrize("name", STS.service.operation_names)
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SLOW_IS_FINE)
def test_answer_to_a_query_is_read_by_botocore_unchanged(name: str, data: st.DataObject) -> None:
    operation = STS.service.operation_model(name)
    result = data.draw(values(operation.output_shape, True))

    response = STS.serialise(operation, result, "00000000-0000-0000-0000-000000000000")
    parsed = create_parser("query").parse(
        {"status_code": response.status, "headers": dict(response.headers), "body": response.body},
        operation.output_shape,
    )

    assert parsed.pop("ResponseMetadata")["RequestId"] == "00000000-0000-0000-0000-000000000000"
    assert comparable(parsed) == result


def test_a_value_of_json_in_a_header_is_read() -> None:
    protocol = REST["iot-data"]
    operation = protocol.service.operation_model("Publish")
    properties = [{"deviceName": "alpha"}, {"deviceCnt": "45"}]
    expiry = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    request = prepared(
        "rest-json",
        operation,
        {"topic": "a/b", "payload": b"\x00x", "userProperties": properties, "messageExpiry": int(expiry), "qos": 1},
    )

    assert request.body == b"\x00x"
    assert json.dumps(properties) not in request.headers["x-amz-mqtt5-user-properties"]
    assert protocol.parse(operation, request)["userProperties"] == properties
