"""Conditions on keys with several values, and on ARNs (developer guide, "connect policy examples"; IAM user guide)."""

import json
from typing import Any

import pytest

from devicesim.emulator import policy
from devicesim.emulator.apierrors import APIError

CLIENT = "arn:aws:iot:us-east-1:111111111111:client/c"
KEY = "iot:ConnectAttributes"
PERSISTENT, WILL, BOTH, NEITHER = ("PersistentConnect",), ("LastWill",), ("PersistentConnect", "LastWill"), ()


def statement(effect: str, operator: str | None = None, values: Any = None, key: str = KEY) -> dict[str, Any]:
    condition = {} if operator is None else {"Condition": {operator: {key: values}}}
    return {"Effect": effect, "Action": "iot:Connect", "Resource": "*", **condition}


def allowed(statements: list[dict[str, Any]], variables: dict[str, str | tuple[str, ...]]) -> bool:
    document = policy.parse(json.dumps({"Version": "2012-10-17", "Statement": statements}))
    return policy.evaluate([document], action="iot:Connect", resource=CLIENT, variables=variables)


GUIDE: dict[str, tuple[list[dict[str, Any]], set[tuple[str, ...]]]] = {
    # what the guide says of it: the statements, and the CONNECTs (of neither, persistent, will, both) that are allowed
    "allows PersistentConnect": (
        [statement("Allow", "ForAllValues:StringEquals", ["PersistentConnect"])],
        {NEITHER, PERSISTENT},
    ),
    "disallows PersistentConnect, others are allowed": (
        [statement("Allow", "ForAllValues:StringNotEquals", ["PersistentConnect"])],
        {NEITHER, WILL},
    ),
    "the same with StringEquals": (
        [statement("Allow"), statement("Deny", "ForAnyValue:StringEquals", ["PersistentConnect"])],
        {NEITHER, WILL},
    ),
    "allows both PersistentConnect and LastWill": (
        [statement("Allow", "ForAllValues:StringEquals", ["PersistentConnect", "LastWill"])],
        {NEITHER, PERSISTENT, WILL, BOTH},
    ),
    "allows clean connect with or without LastWill": (
        [statement("Allow", "ForAllValues:StringEquals", ["LastWill"])],
        {NEITHER, WILL},
    ),
    "only allows default features": (
        [statement("Allow", "ForAllValues:StringEquals", [])],
        {NEITHER},
    ),
    "only with PersistentConnect, any feature beside it": (
        [statement("Allow", "ForAnyValue:StringEquals", ["PersistentConnect"])],
        {PERSISTENT, BOTH},
    ),
    "must have both": (
        [
            statement("Allow", "ForAllValues:StringEquals", ["PersistentConnect", "LastWill"]),
            statement("Deny", "ForAllValues:StringEquals", ["PersistentConnect"]),
            statement("Deny", "ForAllValues:StringEquals", ["LastWill"]),
            statement("Deny", "ForAllValues:StringEquals", []),
        ],
        {BOTH},
    ),
    "not PersistentConnect, LastWill allowed": (
        [
            statement("Deny", "ForAnyValue:StringEquals", ["PersistentConnect"]),
            statement("Allow", "ForAllValues:StringEquals", ["LastWill"]),
        ],
        {NEITHER, WILL},
    ),
}


@pytest.mark.parametrize("says", GUIDE)
@pytest.mark.parametrize("attributes", [NEITHER, PERSISTENT, WILL, BOTH])
def test_the_guides_own_policies(says: str, attributes: tuple[str, ...]) -> None:
    statements, expected = GUIDE[says]

    assert allowed(statements, {KEY: attributes}) is (attributes in expected)


@pytest.mark.parametrize(
    ("operator", "values", "actual", "expected"),
    [
        ("ForAllValues:StringEquals", ["a", "b"], ("a", "b"), True),
        ("ForAllValues:StringEquals", ["a"], ("a", "b"), False),
        ("ForAllValues:StringLike", ["a*"], ("a1", "a2"), True),
        ("ForAllValues:StringEquals", ["a"], None, True),
        ("ForAnyValue:StringEquals", ["a"], ("a", "b"), True),
        ("ForAnyValue:StringEquals", ["c"], ("a", "b"), False),
        ("ForAnyValue:StringEquals", ["c"], None, False),
        ("ForAnyValue:StringEqualsIfExists", ["c"], None, True),
        ("ForAnyValue:StringNotEquals", ["a"], ("a", "b"), True),
        ("ForAnyValue:StringNotEquals", ["a", "b"], ("a", "b"), False),
        ("ForAnyValue:StringNotEquals", ["a"], None, False),
        ("StringEquals", ["a"], ("a", "b"), True),
        ("StringNotEquals", ["a"], ("a", "b"), False),
        ("Null", "true", (), True),
        ("Null", "true", ("a",), False),
        ("Null", "false", ("a",), True),
        ("ForAllValues:StringEquals", ["a"], "a", True),
        ("ForAnyValue:NumericLessThan", ["5"], ("7", "3"), True),
    ],
)
def test_operator(operator: str, values: Any, actual: tuple[str, ...] | str | None, expected: bool) -> None:
    variables = {} if actual is None else {"iot:Certificate.Subject.Country.List": actual}
    asked = [statement("Allow", operator, values, key="iot:certificate.subject.country.list")]

    assert allowed(asked, variables) is expected


def test_values_that_aws_does_not_put_in_do_not_count() -> None:
    asked = [statement("Allow", "ForAllValues:StringEquals", ["a"], key="iot:Certificate.Subject.Country.List")]

    assert allowed(asked, {"iot:Certificate.Subject.Country.List": ("a", "*")})
    assert not allowed(asked, {"iot:Certificate.Subject.Country.List": ("a", "b")})


def test_several_values_stand_in_no_text() -> None:
    def resource(name: str) -> list[dict[str, Any]]:
        return [statement("Allow") | {"Resource": f"arn:aws:iot:us-east-1:111111111111:client/${{{name}}}"}]

    assert allowed(resource("x"), {"x": "c"})
    assert not allowed(resource("x"), {"x": ("c",)})
    assert not allowed(resource("X"), {"x": ("c",)})


@pytest.mark.parametrize("operator", ["StringEquals", "StringEqualsIfExists"])
def test_only_a_set_may_be_empty(operator: str) -> None:
    with pytest.raises(APIError, match="has no values"):
        policy.parse(json.dumps({"Statement": statement("Allow", operator, [])}))


WILL_TOPIC = "arn:aws:iot:us-east-1:111111111111:topic/wills/c"


@pytest.mark.parametrize("operator", ["ArnEquals", "ArnLike"])
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (WILL_TOPIC, True),
        ("arn:aws:iot:*:*:topic/wills/*", True),
        ("arn:aws:iot:us-east-1:111111111111:topic/wills/${iot:ClientId}", True),
        ("arn:aws:iot:us-east-1:111111111111:topic/wills/d", False),
        ("arn:*:topic/wills/c", False),  # a wildcard reaches over no colon
        ("arn:aws:iot:us-east-1:*", False),
        ("*", True),
        ("wills/c", False),
    ],
)
def test_arns_are_compared_field_by_field(operator: str, pattern: str, expected: bool) -> None:
    asked = [statement("Allow", operator, pattern, key="iot:LastWillTopic")]

    assert allowed(asked, {"iot:LastWillTopic": WILL_TOPIC, "iot:ClientId": "c"}) is expected


def test_arn_of_a_topic_with_colons() -> None:
    asked = [statement("Allow", "ArnLike", "arn:aws:iot:*:*:topic/a:b/*", key="iot:LastWillTopic")]

    assert allowed(asked, {"iot:LastWillTopic": "arn:aws:iot:us-east-1:111111111111:topic/a:b/c:d"})


def test_without_the_key_there_is_nothing_to_compare() -> None:
    assert not allowed([statement("Allow", "ArnEquals", WILL_TOPIC, key="iot:LastWillTopic")], {})
    assert allowed([statement("Allow", "ArnNotEquals", WILL_TOPIC, key="iot:LastWillTopic")], {})


def test_effects_say_both_ways_and_which_keys_are_asked_for() -> None:
    document = policy.parse(
        json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    statement("Allow") | {"Resource": "arn:aws:iot:us-east-1:111111111111:client/${iot:ClientId}"},
                    statement("Deny", "ArnLike", "arn:aws:iot:*:*:topic/${a}", key="iot:LastWillTopic"),
                ],
            }
        )
    )
    variables = {"iot:ClientId": "c", "iot:LastWillTopic": "arn:aws:iot:r:1:topic/x", "a": "x"}

    effects = policy.effects(document, action="iot:Connect", resource=CLIENT, variables=variables)

    assert (effects.allows, effects.denies) == (True, True)
    assert policy.variables_of(document) == {"iot:ClientId", "iot:LastWillTopic", "a"}
