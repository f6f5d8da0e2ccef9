"""The policy language: what is a document, and what it allows."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.emulator import policy
from devicesim.emulator.apierrors import APIError

CLIENT = "arn:aws:iot:us-east-1:111111111111:client/robot-1"
TOPIC = "arn:aws:iot:us-east-1:111111111111:topic/robots/robot-1/state"
PREFIX = "arn:aws:iot:us-east-1:111111111111:"


def statement(effect: str = "Allow", **elements: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": "iot:Connect", "Resource": "*", **elements}


def without(item: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in names}


def text(*statements: Any, version: str | None = "2012-10-17") -> str:
    return json.dumps({**({"Version": version} if version else {}), "Statement": list(statements)})


def allows(
    *statements: Any,
    action: str = "iot:Connect",
    resource: str = CLIENT,
    variables: dict[str, str] | None = None,
    version: str | None = "2012-10-17",
) -> bool:
    document = policy.parse(text(*statements, version=version))
    return policy.evaluate([document], action=action, resource=resource, variables=variables or {})


class TestActionsAndResources:
    @pytest.mark.parametrize(
        ("actions", "action", "expected"),
        [
            ("iot:Connect", "iot:Connect", True),
            ("iot:connect", "iot:Connect", True),
            ("iot:*", "iot:Publish", True),
            ("*", "iot:Publish", True),
            ("iot:P*sh", "iot:Publish", True),
            ("iot:?onnect", "iot:Connect", True),
            ("iot:Conn", "iot:Connect", False),
            ("iot:Connects", "iot:Connect", False),
            ("iotdata:Connect", "iot:Connect", False),
            (["iot:Publish", "iot:Connect"], "iot:Connect", True),
            (["iot:Publish", "iot:Receive"], "iot:Connect", False),
        ],
    )
    def test_action(self, actions: object, action: str, expected: bool) -> None:
        assert allows(statement(Action=actions), action=action) is expected

    @pytest.mark.parametrize(
        ("resources", "expected"),
        [
            ("*", True),
            (CLIENT, True),
            (PREFIX + "client/*", True),
            (PREFIX + "client/robot-?", True),
            (PREFIX + "client/*-1", True),
            (PREFIX + "*/robot*", True),
            ("arn:aws:iot:*:*:client/r*b*t-*", True),
            (PREFIX + "client/robot", False),
            (PREFIX + "client/robot-1?", False),
            (PREFIX + "client/robot-1?*", False),
            (PREFIX + "client/ROBOT-1", False),
            (PREFIX + "topic/*", False),
            ([PREFIX + "client/other", CLIENT], True),
            ([PREFIX + "client/other"], False),
        ],
    )
    def test_resource(self, resources: object, expected: bool) -> None:
        assert allows(statement(Resource=resources)) is expected

    def test_plus_and_hash_are_plain_characters(self) -> None:
        """Developer guide, iot-policy-variables: "treated as literal strings"."""
        filters = statement(Action="iot:Subscribe", Resource=PREFIX + "topicfilter/robots/+/#")

        assert allows(filters, action="iot:Subscribe", resource=PREFIX + "topicfilter/robots/+/#")
        assert not allows(filters, action="iot:Subscribe", resource=PREFIX + "topicfilter/robots/r1/state")

    def test_not_action_is_about_all_others(self) -> None:
        others = without(statement(NotAction=["iot:Publish", "iot:Sub*"]), "Action")

        assert allows(others, action="iot:Connect")
        assert not allows(others, action="iot:Publish")
        assert not allows(others, action="iot:Subscribe")

    def test_not_resource_is_about_all_others(self) -> None:
        others = without(statement(NotResource=PREFIX + "client/admin*"), "Resource")

        assert allows(others)
        assert not allows(others, resource=PREFIX + "client/admin-1")


class TestPrecedence:
    def test_nothing_is_denied(self) -> None:
        assert not policy.evaluate([], action="iot:Connect", resource=CLIENT, variables={})

    @pytest.mark.parametrize("order", [1, -1])
    def test_deny_outweighs_allow_in_any_order(self, order: int) -> None:
        statements = [statement(), statement("Deny", Resource=CLIENT)][::order]

        assert not allows(*statements)
        assert allows(*statements, resource=PREFIX + "client/other")

    def test_deny_in_another_document_outweighs(self) -> None:
        documents = [policy.parse(text(statement())), policy.parse(text(statement("Deny")))]

        for each in (documents, documents[::-1]):
            assert not policy.evaluate(each, action="iot:Connect", resource=CLIENT, variables={})

    def test_allows_add_up(self) -> None:
        documents = [policy.parse(text(statement(Action="iot:Publish"))), policy.parse(text(statement()))]

        assert policy.evaluate(documents, action="iot:Connect", resource=CLIENT, variables={})


class TestVariables:
    OWN = statement(Resource=PREFIX + "client/${iot:ClientId}")
    THING = statement(Resource=PREFIX + "client/${iot:Connection.Thing.ThingName}")

    def test_value_is_put_in(self) -> None:
        assert allows(self.OWN, variables={"iot:ClientId": "robot-1"})
        assert not allows(self.OWN, variables={"iot:ClientId": "robot-2"})

    def test_several_and_wildcards_beside_them(self) -> None:
        own = statement(
            Action="iot:Publish", Resource=PREFIX + "topic/*/${iot:ClientId}/${iot:Certificate.Subject.CommonName}"
        )
        variables = {"iot:ClientId": "robot-1", "iot:Certificate.Subject.CommonName": "state"}

        assert allows(own, action="iot:Publish", resource=TOPIC, variables=variables)

    def test_names_ignore_case_and_spaces(self) -> None:
        own = statement(Resource=PREFIX + "client/${ iot:clientid }")

        assert allows(own, variables={"iot:ClientId": "robot-1"})

    def test_without_a_value_matches_nothing(self) -> None:
        assert not allows(self.THING, variables={"iot:ClientId": "robot-1"})
        assert not allows(self.THING, resource=PREFIX + "client/${iot:Connection.Thing.ThingName}")

    def test_without_a_value_does_not_spoil_the_other_resources(self) -> None:
        either = statement(Resource=[self.THING["Resource"], self.OWN["Resource"]])

        assert allows(either, variables={"iot:ClientId": "robot-1"})

    @pytest.mark.parametrize("value", ["*", "?obot-1", "robot-*"])
    def test_wildcards_in_a_value_are_plain_characters(self, value: str) -> None:
        """A device chooses its client id, and must not choose a wildcard with it."""
        assert not allows(self.OWN, variables={"iot:ClientId": value})
        assert allows(self.OWN, resource=PREFIX + f"client/{value}", variables={"iot:ClientId": value})

    @pytest.mark.parametrize("value", ["a*", "a$", "a+", "a?", "a#", "x" * 1025])
    def test_certificate_values_that_aws_does_not_put_in(self, value: str) -> None:
        """Developer guide of 2022, cert-policy-variables, "limitations"."""
        name = "iot:Certificate.Subject.CommonName"
        own = statement(Resource=PREFIX + f"client/${{{name}}}")

        assert not allows(own, resource=PREFIX + f"client/{value}", variables={name: value})
        assert allows(own, resource=PREFIX + "client/a-b", variables={name: "a-b"})

    @pytest.mark.parametrize("character", ["*", "?", "$"])
    def test_escapes_stand_for_the_characters(self, character: str) -> None:
        escaped = statement(Resource=PREFIX + f"client/${{{character}}}")

        assert allows(escaped, resource=PREFIX + f"client/{character}")
        assert not allows(escaped, resource=PREFIX + "client/x")

    @pytest.mark.parametrize("version", ["2008-10-17", None])
    def test_older_documents_have_none(self, version: str | None) -> None:
        assert not allows(self.OWN, variables={"iot:ClientId": "robot-1"}, version=version)
        assert allows(
            self.OWN,
            resource=PREFIX + "client/${iot:ClientId}",
            variables={"iot:ClientId": "robot-1"},
            version=version,
        )


class TestConditions:
    @pytest.mark.parametrize(
        ("operator", "values", "actual", "expected"),
        [
            ("StringEquals", "robot-1", "robot-1", True),
            ("StringEquals", ["x", "robot-1"], "robot-1", True),
            ("StringEquals", "robot-*", "robot-1", False),
            ("StringEquals", "robot-1", None, False),
            ("StringEqualsIgnoreCase", "ROBOT-1", "robot-1", True),
            ("StringNotEquals", "robot-1", "robot-1", False),
            ("StringNotEquals", ["x", "robot-1"], "robot-1", False),
            ("StringNotEquals", "x", "robot-1", True),
            ("StringNotEquals", "x", None, True),
            ("StringLike", "robot-*", "robot-1", True),
            ("StringNotLike", "robot-*", "robot-1", False),
            ("StringEqualsIfExists", "x", None, True),
            ("StringEqualsIfExists", "x", "robot-1", False),
            ("ForAnyValue:StringEquals", "robot-1", "robot-1", True),
            ("ForAnyValue:StringEquals", "robot-1", None, False),
            ("ForAllValues:StringLike", "robot-*", "robot-1", True),
            ("ForAllValues:StringLike", "robot-*", None, True),
            ("Bool", "true", "true", True),
            ("Bool", True, "true", True),
            ("Bool", ["false"], "true", False),
            ("NumericLessThan", "10", "9", True),
            ("NumericLessThan", 10, "9.5", True),
            ("NumericLessThan", "10", "10", False),
            ("NumericGreaterThanEquals", "10", "10", True),
            ("NumericNotEquals", "10", "11", True),
            ("NumericEquals", "10", "ten", False),
            ("DateGreaterThan", "2026-01-01T00:00:00Z", "2026-01-31T12:00:00Z", True),
            ("DateLessThan", "2026-01-01T00:00:00Z", "1769860800", False),
            ("DateEquals", "2026-01-01", "2026-01-01T00:00:00Z", True),
            ("DateLessThan", "yesterday", "2026-01-31T12:00:00Z", False),
            ("IpAddress", "127.0.0.0/8", "127.0.0.1", True),
            ("IpAddress", "10.0.0.0/8", "127.0.0.1", False),
            ("NotIpAddress", "10.0.0.0/8", "127.0.0.1", True),
            ("IpAddress", "10.0.0.0/8", "here", False),
            ("ArnLike", "robot-?", "robot-1", True),
            ("ArnNotEquals", "robot-?", "robot-1", False),
            ("Null", "true", None, True),
            ("Null", "true", "robot-1", False),
            ("Null", "false", "robot-1", True),
        ],
    )
    def test_operator(self, operator: str, values: object, actual: str | None, expected: bool) -> None:
        variables = {} if actual is None else {"iot:Key": actual}

        assert allows(statement(Condition={operator: {"iot:Key": values}}), variables=variables) is expected

    def test_all_must_hold(self) -> None:
        both = statement(
            Condition={
                "Bool": {"iot:Connection.Thing.IsAttached": "true"},
                "StringLike": {"iot:ClientId": "robot-*", "iot:Other": "*"},
            }
        )
        variables = {"iot:Connection.Thing.IsAttached": "true", "iot:ClientId": "robot-1", "iot:Other": "x"}

        assert allows(both, variables=variables)
        for name in variables:
            assert not allows(both, variables={key: value for key, value in variables.items() if key != name})

    def test_values_have_variables(self) -> None:
        same = statement(Condition={"StringEquals": {"iot:ClientId": "${iot:Connection.Thing.ThingName}"}})

        assert allows(same, variables={"iot:ClientId": "r", "iot:Connection.Thing.ThingName": "r"})
        assert not allows(same, variables={"iot:ClientId": "r", "iot:Connection.Thing.ThingName": "s"})
        assert not allows(same, variables={"iot:ClientId": "r"})

    def test_deny_with_a_condition_denies_only_where_it_holds(self) -> None:
        unless = statement("Deny", Condition={"Bool": {"iot:Connection.Thing.IsAttached": "false"}})

        assert not allows(statement(), unless, variables={"iot:Connection.Thing.IsAttached": "false"})
        assert allows(statement(), unless, variables={"iot:Connection.Thing.IsAttached": "true"})


class TestMalformed:
    @pytest.mark.parametrize(
        ("document", "words"),
        [
            ("", "it is not JSON"),
            ("./policy.json", "it is not JSON"),
            ("[]", "it is not a JSON object"),
            ("{}", "Statement is missing or empty"),
            (text(), "Statement is missing or empty"),
            (text(statement(), version="2020-01-01"), "Version is '2020-01-01', expected one of 2012-10-17"),
            (text("x"), "Statement[0] is not a JSON object"),
            (text(without(statement(), "Effect")), "Statement[0].Effect is None, expected Allow or Deny"),
            (text(statement("allow")), "Statement[0].Effect is 'allow'"),
            (text(statement(), without(statement(), "Action")), "Statement[1] must have either Action or NotAction"),
            (text(statement(NotAction="*")), "Statement[0] must have either Action or NotAction"),
            (text(without(statement(), "Resource")), "Statement[0] must have either Resource or NotResource"),
            (text(statement(Action=[])), "Statement[0].Action is neither a string nor a list of strings"),
            (text(statement(Action=["iot:Connect", 1])), "Statement[0].Action is neither"),
            (text(statement(Action="Connect")), "the action 'Connect', expected *, or service:name"),
            (text(statement(Resource="client/x")), "the resource 'client/x', expected * or an ARN"),
            (text(statement(Principal="*")), "Statement[0] has the element 'Principal', expected one of Action"),
            (text(statement(Resource="arn:${iot:ClientId")), "a policy variable is not closed"),
            (text(statement(Condition=[])), "Statement[0].Condition is not a JSON object"),
            (text(statement(Condition={"Equals": {"a": "b"}})), "the operator 'Equals', which does not exist"),
            (text(statement(Condition={"NullIfExists": {"a": "b"}})), "the operator 'NullIfExists'"),
            (text(statement(Condition={"Some:Bool": {"a": "b"}})), "the operator 'Some:Bool'"),
            (text(statement(Condition={"Bool": {}})), "Statement[0].Condition.Bool is not a JSON object with keys"),
            (text(statement(Condition={"Bool": {"a": []}})), "Statement[0].Condition.Bool.a has no values"),
            (text(statement(Condition={"Bool": {"a": {}}})), "Statement[0].Condition.Bool.a has the value {}"),
            (text(statement(Sid="a"), statement(Sid="a")), "the Sid 'a' stands more than once"),
            (text(statement(Sid=1)), "Statement[0].Sid is not a string"),
            ('{"Version":"2012-10-17","Version":"2012-10-17"}', "the key 'Version' stands more than once"),
            ('{"Statement": NaN}', "NaN is not JSON"),
            ('{"Statements": []}', "the document has the element 'Statements'"),
            ("[" * 100_000, "it is not JSON"),
        ],
    )
    def test_is_refused_with_the_place(self, document: str, words: str) -> None:
        with pytest.raises(APIError) as caught:
            policy.parse(document)

        assert caught.value.code == "MalformedPolicyException"
        assert caught.value.message.startswith("Policy document is Malformed: ")
        assert words in caught.value.message

    def test_one_statement_may_stand_alone(self) -> None:
        document = policy.parse(json.dumps({"Version": "2012-10-17", "Id": "x", "Statement": statement()}))

        assert policy.evaluate([document], action="iot:Connect", resource=CLIENT, variables={})


def naive_match(pattern: str, subject: str) -> bool:
    """What a pattern means, said as simply as can be."""
    if not pattern:
        return not subject
    if pattern[0] == "*":
        return naive_match(pattern[1:], subject) or (bool(subject) and naive_match(pattern, subject[1:]))
    return bool(subject) and pattern[0] in ("?", subject[0]) and naive_match(pattern[1:], subject[1:])


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
@settings(max_examples=300)
def test_patterns_match_what_they_mean(pattern: str, subject: str) -> None:
    expected = naive_match("arn:" + pattern, "arn:" + subject)

    assert allows(statement(Resource="arn:" + pattern), resource="arn:" + subject) is expected


def test_no_pattern_is_slow() -> None:
    """Would take longer than the universe lasts with backtracking."""
    assert not allows(statement(Resource="arn:" + "*a" * 200 + "b"), resource="arn:" + "a" * 1000)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=5),
        lambda item: (
            st.lists(item)
            | st.dictionaries(
                st.sampled_from(["Version", "Statement", "Effect", "Action", "Resource", "Condition", "Bool", "x"]),
                item,
            )
        ),
    )
)
@settings(max_examples=200)
def test_any_json_is_a_document_or_malformed(document: object) -> None:
    try:
        code = None if policy.parse(json.dumps(document)).statements else "no statements"
    except APIError as error:
        code = error.code

    assert code in (None, "MalformedPolicyException")
