"""What may be a topic rule, and the life of a destination."""

from collections.abc import Mapping
from typing import Any

import pytest

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.state.destinations import token_owner, url_problem
from devicesim.emulator.state.environment import ControlSettings
from devicesim.emulator.state.topicrulerecords import DestinationStatus, RuleDestination
from tests.control_support import REGION, A, Clock, make_registry

ROLE = f"arn:aws:iam::{A}:role/rules"
REPUBLISH = {"republish": {"roleArn": ROLE, "topic": "out"}}


def payload(sql: str = "SELECT * FROM 'a/#'", *actions: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return {"sql": sql, "actions": list(actions) or [REPUBLISH], **fields}


def world(settings: ControlSettings | None = None, clock: Clock | None = None) -> tuple[Registry, Partition]:
    registry = make_registry(clock, settings)
    return registry, registry.partition(A, REGION)


def refusal(call: Any, *arguments: Any, **fields: Any) -> APIError:
    with pytest.raises(APIError) as caught:
        call(*arguments, **fields)
    return caught.value


class TestRules:
    def test_a_rule_keeps_what_it_was_made_of(self) -> None:
        clock = Clock()
        registry, account = world(clock=clock)
        created = clock.now

        registry.topic_rules.create(account, "r", payload(description="d", ruleDisabled=True), tags=[("k", "v")])

        rule = registry.topic_rules.get(account, "r")
        assert rule.arn == f"arn:aws:iot:{REGION}:{A}:rule/r"
        assert rule.actions == (REPUBLISH,)
        assert (rule.sql_version, rule.topic_filter) == ("2015-10-08", "a/#")
        assert (rule.description, rule.disabled, rule.created_at) == ("d", True, created)
        assert registry.tags.of(account, rule.arn) == {"k": "v"}

    def test_replacing_keeps_name_tags_and_time(self) -> None:
        clock = Clock()
        registry, account = world(clock=clock)
        created = registry.topic_rules.create(account, "r", payload(description="d"), tags=[("k", "v")])
        clock.advance(60)

        registry.topic_rules.replace(account, "r", payload("SELECT a FROM 'b'", awsIotSqlVersion="2016-03-23"))

        rule = registry.topic_rules.get(account, "r")
        assert (rule.created_at, rule.sequence) == (created.created_at, created.sequence)
        assert (rule.description, rule.topic_filter, rule.sql_version) == (None, "b", "2016-03-23")
        assert registry.tags.of(account, rule.arn) == {"k": "v"}

    def test_deleting_takes_the_tags_along(self) -> None:
        registry, account = world()
        rule = registry.topic_rules.create(account, "r", payload(), tags=[("k", "v")])

        registry.topic_rules.delete(account, "r")

        assert account.topic_rules == {}
        assert rule.arn not in account.tags

    def test_a_second_rule_of_the_name_is_refused(self) -> None:
        registry, account = world()
        rule = registry.topic_rules.create(account, "r", payload())

        error = refusal(registry.topic_rules.create, account, "r", payload())

        assert error.code == "ResourceAlreadyExistsException"
        assert error.fields == {"resourceId": "r", "resourceArn": rule.arn}

    def test_of_a_rule_that_is_not_there_access_is_denied(self) -> None:
        registry, account = world()
        rules = registry.topic_rules

        for call in (
            lambda: rules.get(account, "r"),
            lambda: rules.delete(account, "r"),
            lambda: rules.replace(account, "r", payload()),
            lambda: rules.set_disabled(account, "r", disabled=True),
        ):
            error = refusal(call)
            assert (error.code, error.message) == (
                "UnauthorizedException",
                "Access to topic rule 'r' was denied",
            )

    @pytest.mark.parametrize(
        ("given", "code", "why"),
        [
            (
                payload("SELECT"),
                "SqlParseException",
                "SQL parse error: found the end, expected an expression at line 1",
            ),
            (payload("SELECT * FROM 'a/#/b'"), "SqlParseException", "has '#' elsewhere"),
            (payload("SELECT * FROM ''"), "SqlParseException", "topic filter is empty"),
            (payload("SELECT [a] AS x FROM 'a'"), "SqlParseException", "needs awsIotSqlVersion 2016-03-23"),
            (payload(awsIotSqlVersion="2017-01-01"), "InvalidRequestException", "2017-01-01"),
            (payload("SELECT * FROM 'a'", {}), "InvalidRequestException", "exactly one type, this one has none"),
            (
                payload("SELECT * FROM 'a'", {**REPUBLISH, "lambda": {"functionArn": "arn:x"}}),
                "InvalidRequestException",
                "exactly one type, this one has republish, lambda",
            ),
            (
                payload("SELECT * FROM 'a'", {"republish": {"roleArn": ROLE, "topic": "a/${b"}}),
                "SqlParseException",
                "Substitution template 'a/${b'",
            ),
            (payload(errorAction={"republish": {"roleArn": ROLE, "topic": "${"}}), "SqlParseException", "Substitution"),
            (
                payload(
                    "SELECT * FROM 'a'",
                    {"republish": {"roleArn": ROLE, "topic": "a", "headers": {"contentType": "${1 +}"}}},
                ),
                "SqlParseException",
                "Substitution template '${1 +}'",
            ),
            (
                payload("SELECT * FROM 'a'", {"republish": {"roleArn": ROLE.replace(A, "2" * 12), "topic": "a"}}),
                "InvalidRequestException",
                "AWS IoT (iot.amazonaws.com) is unable to assume role (sts:AssumeRole) on resource: arn:aws:iam::2222",
            ),
            (
                payload("SELECT * FROM 'a'", {"republish": {"roleArn": "nothing", "topic": "a"}}),
                "InvalidRequestException",
                "unable to assume role",
            ),
            (
                payload("SELECT * FROM 'a'", {"http": {"url": "https://x.example/${a}"}}),
                "InvalidRequestException",
                "must have a confirmationUrl",
            ),
            (
                payload("SELECT * FROM 'a'", {"http": {"url": "https://x.example/", "confirmationUrl": "https://y"}}),
                "InvalidRequestException",
                "does not begin with its confirmationUrl",
            ),
            (
                payload("SELECT * FROM 'a'", {"http": {"url": "http://x.example/"}}),
                "InvalidRequestException",
                "must begin with https://",
            ),
        ],
    )
    def test_what_can_be_no_rule_is_refused_and_leaves_nothing(
        self, given: dict[str, Any], code: str, why: str
    ) -> None:
        registry, account = world()

        error = refusal(registry.topic_rules.create, account, "r", given)

        assert error.code == code
        assert why in error.message
        assert account.topic_rules == {}
        assert account.rule_destinations == {}
        registry.topic_rules.create(account, "r", payload())
        assert refusal(registry.topic_rules.replace, account, "r", given).code == code
        assert account.topic_rules["r"].sql == "SELECT * FROM 'a/#'"

    def test_bad_tags_leave_no_rule(self) -> None:
        registry, account = world()

        error = refusal(registry.topic_rules.create, account, "r", payload(), tags=[("aws:x", "v")])

        assert error.code == "InvalidRequestException"
        assert account.topic_rules == {}

    def test_an_account_has_so_many_rules_and_no_more(self) -> None:
        registry, account = world(ControlSettings(max_topic_rules=2))
        for name in ("a", "b"):
            registry.topic_rules.create(account, name, payload())

        assert "already has 2 rules" in refusal(registry.topic_rules.create, account, "c", payload()).message
        registry.topic_rules.create(registry.partition(A, "eu-west-1"), "c", payload())

    def test_a_rule_has_so_many_bytes_and_no_more(self) -> None:
        registry, account = world(ControlSettings(max_rule_bytes=300))
        registry.topic_rules.create(account, "r", payload(description="é" * 10))

        error = refusal(registry.topic_rules.create, account, "s", payload(description="é" * 100))

        assert error.code == "InvalidRequestException"
        assert error.message.endswith("bytes, must be at most 300")

    def test_the_choices_can_be_made_otherwise(self) -> None:
        registry, account = world(
            ControlSettings(rule_role_of_other_account="accept", rule_unnamed_expression="text", rule_plain_http=False)
        )
        foreign = {"republish": {"roleArn": ROLE.replace(A, "2" * 12), "topic": "a"}}

        registry.topic_rules.create(account, "r", payload("SELECT a + 1 FROM 'a'", foreign))

        statement = registry.topic_rules.statement(account.topic_rules["r"])
        assert statement.select.items[0].path == ("a + 1",)
        plain = payload("SELECT * FROM 'a'", {"http": {"url": "http://localhost/"}})
        assert "must begin with https://" in refusal(registry.topic_rules.create, account, "s", plain).message

    def test_listeners_hear_of_every_change(self) -> None:
        registry, account = world()
        heard: list[str] = []
        registry.topic_rules.changed.append(lambda partition: heard.append(partition.account_id))

        registry.topic_rules.create(account, "r", payload())
        registry.topic_rules.replace(account, "r", payload())
        registry.topic_rules.set_disabled(account, "r", disabled=True)
        registry.topic_rules.delete(account, "r")

        assert heard == [A] * 4

    def test_the_urls_of_http_actions_get_destinations_once(self) -> None:
        registry, account = world()
        actions: list[Mapping[str, Any]] = [
            {"http": {"url": "https://x.example/a"}},
            {"http": {"url": "https://x.example/${b}", "confirmationUrl": "https://x.example/"}},
            {"http": {"url": "https://${host}/", "confirmationUrl": "https://${host}/"}},
            {"http": {"url": "https://x.example/a"}},
        ]

        registry.topic_rules.create(account, "r", payload("SELECT * FROM 'a'", *actions))
        registry.topic_rules.replace(account, "r", payload("SELECT * FROM 'b'", *actions))

        urls = [each.confirmation_url for each in account.rule_destinations.values()]
        assert urls == ["https://x.example/a", "https://x.example/"]


class TestDestinations:
    def made(self) -> tuple[Registry, Partition, RuleDestination, Clock]:
        clock = Clock()
        registry, account = world(clock=clock)
        return registry, account, registry.rule_destinations.create(account, "https://x.example/"), clock

    def test_a_new_one_waits_for_its_token_which_says_whose_it_is(self) -> None:
        registry, account, destination, _ = self.made()

        assert destination.arn.startswith(f"arn:aws:iot:{REGION}:{A}:ruledestination/http/")
        assert registry.rule_destinations.get(account, destination.arn).status is DestinationStatus.IN_PROGRESS
        assert token_owner(destination.token) == (A, REGION)

    def test_the_token_confirms_and_by_the_enable_url_it_also_enables(self) -> None:
        registry, account, destination, _ = self.made()
        destinations = registry.rule_destinations

        confirmed = destinations.confirm(account, destination.token, enable=False)
        assert confirmed.status is DestinationStatus.DISABLED
        other = destinations.create(account, "https://y.example/")
        assert destinations.confirm(account, other.token, enable=True).status is DestinationStatus.ENABLED

    def test_confirming_again_changes_nothing(self) -> None:
        registry, account, destination, _ = self.made()
        registry.rule_destinations.confirm(account, destination.token, enable=True)

        again = registry.rule_destinations.confirm(account, destination.token, enable=False)

        assert again.status is DestinationStatus.ENABLED

    def test_a_token_of_nobodys_is_refused(self) -> None:
        registry, account, _, _ = self.made()

        for token in ("", "x", "é", "A" * 100):
            assert token_owner(token) is None
            error = refusal(registry.rule_destinations.confirm, account, token, enable=True)
            assert error.code == "InvalidRequestException"

    def test_after_three_days_the_token_is_worth_nothing_and_another_can_be_asked_for(self) -> None:
        registry, account, destination, clock = self.made()
        destinations = registry.rule_destinations
        clock.advance(3 * 24 * 3600 - 1)
        assert destinations.get(account, destination.arn).status is DestinationStatus.IN_PROGRESS
        clock.advance(1)

        late = destinations.get(account, destination.arn)

        assert (late.status, late.status_reason) == (DestinationStatus.ERROR, "Confirmation timed out")
        assert "expired" in refusal(destinations.confirm, account, destination.token, enable=True).message
        destinations.update(account, destination.arn, "IN_PROGRESS")
        renewed = destinations.get(account, destination.arn)
        assert renewed.status is DestinationStatus.IN_PROGRESS
        assert renewed.token != destination.token
        assert refusal(destinations.confirm, account, destination.token, enable=True).code == "InvalidRequestException"
        destinations.confirm(account, renewed.token, enable=True)
        assert destinations.get(account, destination.arn).status is DestinationStatus.ENABLED

    def test_only_a_confirmed_one_is_enabled_and_disabled(self) -> None:
        registry, account, destination, _ = self.made()
        destinations = registry.rule_destinations

        for status in ("ENABLED", "DISABLED"):
            error = refusal(destinations.update, account, destination.arn, status)
            assert error.code == "ConflictingResourceUpdateException"
        for status in ("ERROR", "DELETING"):
            assert refusal(destinations.update, account, destination.arn, status).code == "InvalidRequestException"
        destinations.confirm(account, destination.token, enable=False)
        for status in ("ENABLED", "ENABLED", "DISABLED"):
            destinations.update(account, destination.arn, status)
            assert destinations.get(account, destination.arn).status == status

    def test_a_second_of_the_url_is_refused_and_a_deleted_one_is_gone(self) -> None:
        registry, account, destination, _ = self.made()
        destinations = registry.rule_destinations

        error = refusal(destinations.create, account, "https://x.example/")
        assert (error.code, error.fields["resourceArn"]) == ("ResourceAlreadyExistsException", destination.arn)
        destinations.delete(account, destination.arn)
        gone = refusal(destinations.get, account, destination.arn)
        assert gone.message == f"Access to TopicRuleDestination '{destination.arn}' was denied"
        destinations.create(account, "https://x.example/")


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://example.com", True),
        ("https://example.com:8443/a?b=c", True),
        ("http://localhost:80/x", True),
        ("http://a.localhost/x", True),
        ("http://127.0.0.1:5/", True),
        ("http://example.com/", False),
        ("http://127.0.0.1.example.com/", False),
        ("ftp://localhost/", False),
        ("https://[::1]/", False),
        ("https://", False),
        ("https://exa mple/", False),
        ("https://a:99999/", False),
        ("https://é.example/", False),
        ("nothing", False),
        ("https://x/" + "a" * 2000, False),
    ],
)
def test_a_url_is_https_or_this_machines(url: str, good: bool) -> None:
    assert (url_problem(url, plain=True) is None) is good
    if url.startswith("http://"):
        assert url_problem(url, plain=False) is not None
