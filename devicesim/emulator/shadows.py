"""Shadow documents: what an update says, what it does to a document, and what is told of it. Pure.

A document is the ``state`` that devices report and applications desire, with a ``metadata`` tree of the same form that
has the time of each value's last change. Rules and messages are the developer guide's (pages "device shadow service
documents" and "device shadow error messages", D) where nothing else is said. Times are whole seconds since the Unix
epoch, as on AWS.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from devicesim.emulator.apierrors import (
    APIError,
    invalid_request,
    request_entity_too_large,
    unsupported_document_encoding,
)

Tree = Mapping[str, Any]
"""JSON: objects are mappings, arrays lists."""

DESIRED: Final = "desired"
REPORTED: Final = "reported"
MAX_CLIENT_TOKEN: Final = 64
"""Bytes (D)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a document may be; see the fields ``shadow_*`` of
    :class:`~devicesim.emulator.state.environment.ControlSettings`."""

    max_bytes: int
    max_depth: int
    keeps_empty_objects: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A request state document."""

    state: Mapping[str, Tree | None] | None
    """Sections to change; a section that is ``None`` is to be removed. ``None`` altogether removes both."""
    version: int | None
    """The version that the sender believes the shadow to have."""
    client_token: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A shadow at one version."""

    state: Tree
    """``desired`` and ``reported``; a section without values is absent."""
    metadata: Tree
    version: int


def read_json(payload: bytes) -> Any:
    """A message's JSON; ``UnsupportedDocumentEncodingException`` or ``InvalidRequestException`` when it is none."""
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        raise unsupported_document_encoding("Unsupported documented encoding; supported encoding is UTF-8") from None
    try:
        document = json.loads(text, parse_constant=_refuse_number, parse_float=_finite)
        json.dumps(document, ensure_ascii=False).encode("utf-8")  # escapes can spell half a character
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        # in these words in answers of AWS's (awslabs/aws-sdk-android-samples #128, S); the guide has "Invalid JSON"
        raise invalid_request("Payload contains invalid json") from None
    return document


def client_token_of(payload: bytes) -> str | None:
    """The token to echo, of a request that may be wrong in any other way."""
    try:
        document = read_json(payload)
        return _client_token(document) if isinstance(document, dict) else None
    except APIError:
        return None


def read_update(payload: bytes, limits: Limits) -> Update:
    """A request state document, checked."""
    if len(payload) > limits.max_bytes:
        raise _too_large(len(payload), limits)
    document = read_json(payload)
    if not isinstance(document, dict) or "state" not in document:  # or a number (aws-iot-device-sdk-js #22, S)
        raise invalid_request("Missing required node: state")
    state = document["state"]
    if state is not None:  # null is accepted and clears the document (getmoto/moto #9237, M)
        _check_state(state, limits)
    version = document.get("version")
    if "version" in document and (isinstance(version, bool) or not isinstance(version, int) or version < 0):
        raise invalid_request("Invalid version")
    return Update(state=state, version=version, client_token=_client_token(document))


def read_request(payload: bytes) -> str | None:
    """The client token of a get: an empty message, or a JSON object."""
    if not payload.strip():
        return None
    document = read_json(payload)
    return _client_token(document) if isinstance(document, dict) else None


def _client_token(document: Tree) -> str | None:
    token = document.get("clientToken")
    if "clientToken" not in document:
        return None
    if not isinstance(token, str) or len(token.encode("utf-8")) > MAX_CLIENT_TOKEN:
        raise invalid_request("Invalid clientToken")
    return token


def _check_state(state: Any, limits: Limits) -> None:
    if not isinstance(state, dict):
        raise invalid_request("State node must be an object")
    for name, section in state.items():
        if name not in (DESIRED, REPORTED):
            # with the name: aws-greengrass-shadow-manager PR 178 quotes the service (S)
            raise invalid_request(f"State contains an invalid node: '{name}'")
        if section is None:
            continue
        if not isinstance(section, dict):
            raise invalid_request(f"{name.capitalize()} node must be an object")
        if _depth(section, limits.max_depth) > limits.max_depth:
            raise _too_deep(limits.max_depth)
        for key, value in section.items():
            _check_arrays(key, value)


def _depth(value: Any, limit: int) -> int:
    """How many objects and arrays stand in each other, counted no further than one above ``limit``."""
    if not isinstance(value, dict | list):
        return 0
    if limit == 0:
        return 1
    below = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(each, limit - 1) for each in below), default=0)


def _check_arrays(key: str, value: Any) -> None:
    """Arrays cannot have null (D; the message is ours)."""
    if isinstance(value, dict):
        for name, each in value.items():
            _check_arrays(name, each)
    elif isinstance(value, list) and _has_null(value):
        raise invalid_request(f"State contains an invalid node: '{key}'")


def _has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_null(each) for each in value.values())
    return value is None or (isinstance(value, list) and any(_has_null(each) for each in value))


def apply(content: Content | None, update: Update, *, version: int, now: float, limits: Limits) -> Content:
    """The content after ``update``, at ``version``; ``RequestEntityTooLargeException`` when it has become too long.

    Only what the update names changes; what it sets to null goes, arrays are replaced whole.
    """
    stamp = int(now)
    sections: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for name in (DESIRED, REPORTED):
        held = content.state.get(name, {}) if content is not None else {}
        marks = content.metadata.get(name, {}) if content is not None else {}
        if update.state is None:
            continue
        if name in update.state:
            change = update.state[name]
            held, marks = ({}, {}) if change is None else _merge(held, marks, change, stamp, limits)
        if held:
            sections[name], metadata[name] = held, marks
    size = len(dump(sections))
    if size > limits.max_bytes:
        raise _too_large(size, limits)
    return Content(state=sections, metadata=metadata, version=version)


def _merge(held: Tree, marks: Tree, change: Tree, stamp: int, limits: Limits) -> tuple[dict[str, Any], dict[str, Any]]:
    merged, merged_marks = dict(held), dict(marks)
    for key, value in change.items():
        if isinstance(value, dict):
            below = merged.get(key)
            below, below_marks = (below, merged_marks[key]) if isinstance(below, dict) else ({}, {})
            below, below_marks = _merge(below, below_marks, value, stamp, limits)
            if below or limits.keeps_empty_objects:
                merged[key], merged_marks[key] = below, below_marks
                continue
        elif value is not None:
            merged[key], merged_marks[key] = value, _stamped(value, stamp)
            continue
        merged.pop(key, None)
        merged_marks.pop(key, None)
    return merged, merged_marks


def _stamped(value: Any, stamp: int) -> Any:
    """Metadata of a value that has just been given: the time stands at each leaf, in arrays at each element."""
    if isinstance(value, dict):
        return {key: _stamped(each, stamp) for key, each in value.items()}
    if isinstance(value, list):
        return [_stamped(each, stamp) for each in value]
    return {"timestamp": stamp}


def delta(content: Content) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is desired and not reported so, with its metadata; empty when nothing is."""
    return _delta(content.state.get(DESIRED, {}), content.state.get(REPORTED, {}), content.metadata.get(DESIRED, {}))


def _delta(desired: Tree, reported: Tree, marks: Tree) -> tuple[dict[str, Any], dict[str, Any]]:
    state: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for key, value in desired.items():
        if key in reported:
            other = reported[key]
            if isinstance(value, dict) and isinstance(other, dict):
                below, below_marks = _delta(value, other, marks[key])
                if below:
                    state[key], metadata[key] = below, below_marks
                continue
            if _same(value, other):
                continue
        state[key], metadata[key] = value, marks[key]
    return state, metadata


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: ``1`` is neither ``true`` nor ``1.0``."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


# --- what is told ---


def current_document(content: Content, now: float, client_token: str | None = None) -> bytes:
    """Of a get: everything, with the difference between desired and reported where there is one."""
    state, metadata = dict(content.state), dict(content.metadata)
    difference, marks = delta(content)
    if difference:
        state["delta"], metadata["delta"] = difference, marks
    return _answer({"state": state, "metadata": metadata, "version": content.version}, now, client_token)


def accepted_document(update: Update, version: int, now: float) -> bytes:
    """Of an update: what it asked for, nulls included (getmoto/moto #9237, M)."""
    metadata = _stamped(update.state, int(now))
    return _answer({"state": update.state, "metadata": metadata, "version": version}, now, update.client_token)


def delta_document(content: Content, now: float, client_token: str | None) -> bytes | None:
    """Of an update after which desired and reported differ; ``None`` when they do not."""
    state, metadata = delta(content)
    if not state:
        return None
    document = {"version": content.version, "timestamp": int(now), "state": state, "metadata": metadata}
    return dump(document if client_token is None else {**document, "clientToken": client_token})


def documents_document(previous: Content | None, current: Content, now: float, client_token: str | None) -> bytes:
    """Of every update: before and after. The first has nothing before it (aws-iot-device-sdk-cpp-v2, sample
    "shadow-sandbox", S)."""
    document = {} if previous is None else {"previous": _whole(previous)}
    return _answer({**document, "current": _whole(current)}, now, client_token)


def deleted_document(version: int, now: float, client_token: str | None = None) -> bytes:
    """Of a delete: the version that was deleted (the same sample, S)."""
    return _answer({"version": version}, now, client_token)


def rejected_document(code: int, message: str, client_token: str | None) -> bytes:
    """Of whatever was refused. Without time, which "is not present in all error response documents" (D) and was in none
    that anybody has shown (Julia's AWSCRT tests, the guide's examples; M)."""
    document: dict[str, Any] = {"code": code, "message": message}
    return dump(document if client_token is None else {**document, "clientToken": client_token})


def _whole(content: Content) -> Tree:
    return {"state": content.state, "metadata": content.metadata, "version": content.version}


def _answer(document: Tree, now: float, client_token: str | None) -> bytes:
    token = {} if client_token is None else {"clientToken": client_token}
    return dump({**document, "timestamp": int(now), **token})


def dump(document: Tree) -> bytes:
    """JSON as it is sent, and as its length is counted."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _too_deep(limit: int = 6) -> APIError:
    return invalid_request(f"JSON contains too many levels of nesting; maximum is {limit}")


def _too_large(size: int, limits: Limits) -> APIError:
    # in these words in an answer of AWS's (espressif/esp-aws-iot #70, M)
    return request_entity_too_large(f"Json document too large.  Size is {size}, max allowed: {limits.max_bytes}")


def _refuse_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is out of range")
    return number
