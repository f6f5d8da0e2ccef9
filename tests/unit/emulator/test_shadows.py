"""Shadow documents: what may be asked, what an update does, what is told."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from devicesim.emulator import shadows
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.shadows import Content, Limits, Update

LIMITS = Limits(max_bytes=8192, max_depth=6, keeps_empty_objects=False)
THEN, NOW = 1591140517, 1591142747.9


def read(document: object) -> Update:
    return shadows.read_update(json.dumps(document).encode(), LIMITS)


def applied(content: Content | None, state: Mapping[str, Any] | None, limits: Limits = LIMITS) -> Content:
    update = Update(state=state, version=None, client_token=None)
    version = 1 if content is None else content.version + 1
    return shadows.apply(content, update, version=version, now=NOW, limits=limits)


def held(**state: Any) -> Content:
    """A shadow that somebody made at THEN."""
    update = Update(state=state, version=None, client_token=None)
    return shadows.apply(None, update, version=1, now=THEN, limits=LIMITS)


def stamp(at: float) -> dict[str, int]:
    return {"timestamp": int(at)}


@pytest.mark.parametrize(
    ("payload", "code", "message"),
    [
        (b"", "InvalidRequestException", "Payload contains invalid json"),
        (b"{", "InvalidRequestException", "Payload contains invalid json"),
        (b'{"state":{"desired":{"a":NaN}}}', "InvalidRequestException", "Payload contains invalid json"),
        (b'{"state":{"desired":{"a":1e999}}}', "InvalidRequestException", "Payload contains invalid json"),
        (b'{"state":{"desired":{"a":"\\ud800"}}}', "InvalidRequestException", "Payload contains invalid json"),
        (
            b'{"state":{"desired":{"a":"\xff"}}}',
            "UnsupportedDocumentEncodingException",
            "Unsupported documented encoding; supported encoding is UTF-8",
        ),
        (b"66", "InvalidRequestException", "Missing required node: state"),
        (b"{}", "InvalidRequestException", "Missing required node: state"),
        (b'{"state":[]}', "InvalidRequestException", "State node must be an object"),
        (b'{"state":{"desired":1}}', "InvalidRequestException", "Desired node must be an object"),
        (b'{"state":{"reported":"x"}}', "InvalidRequestException", "Reported node must be an object"),
        (b'{"state":{"delta":{}}}', "InvalidRequestException", "State contains an invalid node: 'delta'"),
        (b'{"state":{},"version":"1"}', "InvalidRequestException", "Invalid version"),
        (b'{"state":{},"version":true}', "InvalidRequestException", "Invalid version"),
        (b'{"state":{},"version":-1}', "InvalidRequestException", "Invalid version"),
        (b'{"state":{},"clientToken":1}', "InvalidRequestException", "Invalid clientToken"),
        (
            b'{"state":{},"clientToken":"' + "é".encode() * 33 + b'"}',
            "InvalidRequestException",
            "Invalid clientToken",
        ),
        (b'{"state":{"desired":{"a":[1,null]}}}', "InvalidRequestException", "State contains an invalid node: 'a'"),
        (
            b'{"state":{"desired":{"a":{"b":[[{"c":null}]]}}}}',
            "InvalidRequestException",
            "State contains an invalid node: 'b'",
        ),
        (
            b'{"state":{}}' + b" " * 8192,
            "RequestEntityTooLargeException",
            "Json document too large.  Size is 8204, max allowed: 8192",
        ),
        (
            b'{"state":{"desired":' + b'{"a":' * 7 + b"1" + b"}" * 7 + b"}}",
            "InvalidRequestException",
            "JSON contains too many levels of nesting; maximum is 6",
        ),
        (
            b'{"state":{"desired":{"a":' + b"[" * 6 + b"]" * 6 + b"}}}",
            "InvalidRequestException",
            "JSON contains too many levels of nesting; maximum is 6",
        ),
        (b"[" * 8000, "InvalidRequestException", None),
    ],
)
def test_a_request_that_is_not_one_is_refused_in_aws_words(payload: bytes, code: str, message: str | None) -> None:
    with pytest.raises(APIError) as refusal:
        shadows.read_update(payload, LIMITS)

    assert refusal.value.code == code
    if message is not None:
        assert refusal.value.message == message


def test_six_levels_are_allowed() -> None:
    payload = b'{"state":{"desired":' + b'{"a":' * 6 + b"1" + b"}" * 6 + b"}}"

    assert shadows.read_update(payload, LIMITS).state is not None


def test_whatever_stands_beside_the_state_is_ignored() -> None:
    update = read({"state": {"desired": {"a": 1}}, "clientToken": "t", "version": 3, "color": "red", "metadata": 7})

    assert update == Update(state={"desired": {"a": 1}}, version=3, client_token="t")


def test_an_update_changes_only_what_it_names() -> None:
    before = held(reported={"color": {"r": 1, "g": 2}, "on": True}, desired={"on": False})

    after = applied(before, {"reported": {"color": {"g": 3}, "size": [1, {"a": 2}]}})

    assert after.state == {
        "desired": {"on": False},
        "reported": {"color": {"r": 1, "g": 3}, "on": True, "size": [1, {"a": 2}]},
    }
    assert after.metadata == {
        "desired": {"on": stamp(THEN)},
        "reported": {
            "color": {"r": stamp(THEN), "g": stamp(NOW)},
            "on": stamp(THEN),
            "size": [stamp(NOW), {"a": stamp(NOW)}],
        },
    }
    assert after.version == 2
    assert before.state["reported"]["color"] == {"r": 1, "g": 2}


def test_an_array_is_replaced_whole() -> None:
    after = applied(held(desired={"colors": ["RED", "GREEN", "BLUE"]}), {"desired": {"colors": ["RED"]}})

    assert after.state == {"desired": {"colors": ["RED"]}}
    assert after.metadata == {"desired": {"colors": [stamp(NOW)]}}


def test_null_removes_a_value_and_the_objects_that_it_leaves_empty() -> None:
    before = held(desired={"a": {"b": {"c": 1}}, "d": 2})

    assert applied(before, {"desired": {"a": {"b": {"c": None}}}}).state == {"desired": {"d": 2}}
    assert applied(before, {"desired": {"nothing": None}}).state == before.state


def test_the_last_value_takes_its_section_with_it() -> None:
    before = held(desired={"on": True}, reported={"on": False})

    after = applied(before, {"desired": {"on": None}})

    assert after.state == {"reported": {"on": False}}
    assert after.metadata == {"reported": {"on": stamp(THEN)}}


def test_a_section_that_is_null_goes_and_a_state_that_is_null_takes_both() -> None:
    before = held(desired={"on": True}, reported={"on": False})

    assert applied(before, {"desired": None, "reported": {"x": 1}}).state == {"reported": {"on": False, "x": 1}}
    assert applied(before, None).state == {}
    assert applied(before, {}).state == before.state


def test_an_object_takes_the_place_of_a_value_and_the_other_way_round() -> None:
    assert applied(held(desired={"a": 1}), {"desired": {"a": {"b": 2}}}).state == {"desired": {"a": {"b": 2}}}
    after = applied(held(desired={"a": {"b": 2}}), {"desired": {"a": 1}})
    assert (after.state, after.metadata) == ({"desired": {"a": 1}}, {"desired": {"a": stamp(NOW)}})


def test_empty_objects_are_kept_where_the_settings_say_so() -> None:
    keeping = Limits(max_bytes=8192, max_depth=6, keeps_empty_objects=True)

    assert applied(None, {"desired": {"a": {}, "b": 1}}).state == {"desired": {"b": 1}}
    assert applied(None, {"desired": {"a": {}}}, keeping).state == {"desired": {"a": {}}}


def test_size_is_counted_of_the_whole_state_without_metadata() -> None:
    fill = {"desired": {"a": "x" * 5000}}
    before = applied(None, fill)

    with pytest.raises(APIError, match="RequestEntityTooLargeException: Json document too large"):
        applied(before, {"reported": {"a": "x" * 5000}})
    exact = 8192 - len(b'{"desired":{"a":""}}')
    assert applied(None, {"desired": {"a": "x" * exact}}).version == 1
    with pytest.raises(APIError):
        applied(None, {"desired": {"a": "x" * (exact + 1)}})


@pytest.mark.parametrize(
    ("desired", "reported", "difference"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2}, {"a": 1}),
        ({"a": 1}, {}, {"a": 1}),
        ({}, {"a": 1}, {}),
        ({"a": 1}, {"a": True}, {"a": 1}),
        ({"a": [1, 2]}, {"a": [1]}, {"a": [1, 2]}),
        ({"a": {"b": 1}}, {"a": 1}, {"a": {"b": 1}}),
        (
            {"lights": {"color": {"r": 255, "g": 255}}},
            {"lights": {"color": {"r": 255, "g": 0}}},
            {"lights": {"color": {"g": 255}}},
        ),
    ],
)
def test_the_delta_is_what_is_desired_and_not_reported_so(
    desired: Mapping[str, Any], reported: Mapping[str, Any], difference: Mapping[str, Any]
) -> None:
    content = applied(applied(None, {"reported": reported}), {"desired": desired})

    state, metadata = shadows.delta(content)

    assert state == difference
    assert metadata.keys() == difference.keys()


def test_the_guides_example_of_a_get_comes_out() -> None:
    content = held(desired={"color": "RED", "state": "STOP"}, reported={"color": "GREEN", "engine": "ON"})

    document = json.loads(shadows.current_document(content, NOW, "token"))

    assert document == {
        "state": {
            "desired": {"color": "RED", "state": "STOP"},
            "reported": {"color": "GREEN", "engine": "ON"},
            "delta": {"color": "RED", "state": "STOP"},
        },
        "metadata": {
            "desired": {"color": stamp(THEN), "state": stamp(THEN)},
            "reported": {"color": stamp(THEN), "engine": stamp(THEN)},
            "delta": {"color": stamp(THEN), "state": stamp(THEN)},
        },
        "version": 1,
        "timestamp": int(NOW),
        "clientToken": "token",
    }


def test_accepted_echoes_the_request_as_it_was_measured_on_aws() -> None:
    update = read({"state": None})

    # getmoto/moto #9237
    assert shadows.accepted_document(update, 18, 1756452769.4) == (
        b'{"state":null,"metadata":{"timestamp":1756452769},"version":18,"timestamp":1756452769}'
    )


def test_accepted_has_only_what_was_asked_for() -> None:
    update = read({"state": {"desired": {"a": None, "b": [1, 2]}}, "clientToken": "t"})

    assert json.loads(shadows.accepted_document(update, 4, NOW)) == {
        "state": {"desired": {"a": None, "b": [1, 2]}},
        "metadata": {"desired": {"a": stamp(NOW), "b": [stamp(NOW), stamp(NOW)]}},
        "version": 4,
        "timestamp": int(NOW),
        "clientToken": "t",
    }


def test_documents_has_no_previous_for_the_first_version() -> None:
    first = applied(None, {"reported": {"a": 1}})
    second = applied(first, {"desired": {"a": 2}})

    made = json.loads(shadows.documents_document(None, first, NOW, None))
    changed = json.loads(shadows.documents_document(first, second, NOW, "t"))

    assert made.keys() == {"current", "timestamp"}
    assert changed["previous"] == {
        "state": {"reported": {"a": 1}},
        "metadata": {"reported": {"a": stamp(NOW)}},
        "version": 1,
    }
    assert changed["current"]["state"] == {"desired": {"a": 2}, "reported": {"a": 1}}
    assert "delta" not in changed["current"]["state"]
    assert changed["clientToken"] == "t"


def test_text_that_is_not_ascii_goes_through_unchanged() -> None:
    content = applied(None, read({"state": {"desired": {"städt": "München 🚀"}}}).state)

    assert "München 🚀".encode() in shadows.current_document(content, NOW)


def test_the_token_is_found_in_a_request_that_is_wrong_otherwise() -> None:
    assert shadows.client_token_of(b'{"state":1,"clientToken":"t"}') == "t"
    assert shadows.client_token_of(b'{"clientToken":7}') is None
    assert shadows.client_token_of(b"{") is None
    assert shadows.read_request(b"") is None
    assert shadows.read_request(b'{"clientToken":"t"}') == "t"
