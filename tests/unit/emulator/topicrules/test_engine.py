"""Topic rules at work: in a world without sockets, with a sender that only takes note."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from devicesim.emulator.packets import Properties, Publish
from devicesim.emulator.registry import Partition
from devicesim.emulator.session import Message
from devicesim.emulator.settings import Settings
from devicesim.emulator.topicrules.actions import HTTPPost
from tests.emulator_support import ROLE, V5, A, Client, World, device, will

RULE_VERDICTS = ("rule_executed", "rule_failed", "rule_not_executed", "rule_stopped")


@dataclass
class Sender:
    """Takes requests as the real one does, and answers when the test says."""

    room: int = 100
    sent: list[HTTPPost] = field(default_factory=list)
    _done: list[Callable[[int | None, str], None]] = field(default_factory=list)

    def offer(self, post: HTTPPost, done: Callable[[int | None, str], None]) -> bool:
        if len(self.sent) >= self.room:
            return False
        self.sent.append(post)
        self._done.append(done)
        return True

    def answer(self, status: int | None = 200, problem: str = "", which: int = -1) -> None:
        self._done[which](status, problem)


def republish(topic: str, **fields: Any) -> dict[str, Any]:
    return {"republish": {"roleArn": ROLE, "topic": topic, **fields}}


def http(url: str, **fields: Any) -> dict[str, Any]:
    return {"http": {"url": url, **fields}}


def rule(account: Partition, world: World, sql: str, *actions: dict[str, Any], name: str = "r", **fields: Any) -> None:
    payload = {"sql": sql, "actions": list(actions), "awsIotSqlVersion": "2016-03-23", **fields}
    world.registry.topic_rules.create(account, name, payload)


def ready(settings: Settings | None = None) -> tuple[World, Partition, Client]:
    """A world with one account, and a client of it that hears everything."""
    world = World(settings)
    account = world.ready_account(0, 1)
    listener = world.client(1, account.endpoint).connected("listener").subscribe("#", qos=1)
    return world, account, listener


def say(world: World, account: Partition, topic: str, payload: object, **fields: Any) -> None:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    world.plane.publish(account, Message(topic=topic, payload=data, **fields), world.now)


def told(world: World) -> list[tuple[str, str]]:
    return [(each.verdict, each.detail) for each in world.history.select() if each.verdict in RULE_VERDICTS]


class TestRepublish:
    def test_a_message_that_matches_is_selected_from_and_published_again(self) -> None:
        world, account, listener = ready()
        rule(
            account,
            world,
            "SELECT temp AS t, clientid() AS c FROM 'sensors/+/data' WHERE temp > 30",
            republish("alarms/${topic(2)}", qos=1),
        )

        world.client(0, account.endpoint).connected("robot-0").send(
            Publish(topic="sensors/s1/data", payload=b'{"temp": 20}'),
            Publish(topic="sensors/s1/data", payload=b'{"temp": 31.5}'),
        )

        assert listener.messages() == [
            ("sensors/s1/data", b'{"temp": 20}'),
            ("sensors/s1/data", b'{"temp": 31.5}'),
            ("alarms/s1", b'{"t":31.5,"c":"robot-0"}'),
        ]
        assert told(world) == [("rule_executed", "rule r on sensors/s1/data: republished to alarms/s1, 1 subscribers")]
        assert world.history.select(verdict="rule_executed")[0].certificate_id == device(0).certificate_id

    def test_a_regular_expression_without_end_fails_its_rule_and_no_other(self) -> None:
        world, account, listener = ready()
        slow = "SELECT * FROM 'a' WHERE regexp_matches(text, '^(a|a)*$')"
        rule(account, world, slow, republish("b"), name="endless")
        rule(account, world, "SELECT * FROM 'a'", republish("${regexp_substr(text, '^(a|a)*$')}"), name="in_template")
        rule(account, world, "SELECT 1 AS one FROM 'a'", republish("c"), name="next")

        say(world, account, "a", {"text": "a" * 60 + "!"})

        assert [topic for topic, _ in listener.messages()] == ["a", "c"]
        why = "a regular expression takes too much time, more than 0.1 s"
        assert [detail for verdict, detail in told(world) if verdict == "rule_failed"] == [
            f"rule endless on a: SQL: {why}",
            f"rule in_template on a: RepublishAction failed: substitution template: {why}",
        ]

    def test_the_qos_is_the_actions(self) -> None:
        world, account, listener = ready()
        rule(account, world, "SELECT * FROM 'a'", republish("b", qos=1), republish("c"))

        say(world, account, "a", {}, qos=0)

        sent = {each.topic: each.qos for each in listener.received() if isinstance(each, Publish)}
        assert sent == {"a": 0, "b": 1, "c": 0}

    def test_the_headers_become_mqtt_5_properties(self) -> None:
        world = World()
        account = world.ready_account(1)
        listener = world.client(1, account.endpoint, version=V5).connected("listener").subscribe("b")
        headers = {
            "payloadFormatIndicator": "UTF8_DATA",
            "contentType": "${type}",
            "responseTopic": "answers/${topic()}",
            "correlationData": base64.b64encode(b"id").decode(),
            "messageExpiry": "60",
            "userProperties": [{"key": "k", "value": "${type}"}, {"key": "k", "value": "2"}],
        }
        rule(account, world, "SELECT * FROM 'a'", republish("b", headers=headers))

        say(world, account, "a", {"type": "text/x"})

        (packet,) = [each for each in listener.received() if isinstance(each, Publish)]
        assert packet.properties == Properties(
            payload_format_indicator=1,
            content_type="text/x",
            response_topic="answers/a",
            correlation_data=b"id",
            message_expiry_interval=60,
            user_properties=(("k", "text/x"), ("k", "2")),
        )

    @pytest.mark.parametrize(
        ("topic", "why"),
        [
            ("a/${missing}", "the substitution template in topic is Undefined"),
            ("${plus}/b", "has a wildcard"),
            ("$aws/things/t/shadow/update", "is reserved"),
            ("$$aws/things/t/jobs/x", "rules cannot republish to the reserved topic $aws/things/t/jobs/x"),
            ("1/2/3/4/5/6/7/8/9", "slashes"),
            ("${nul}", "cannot be sent"),
            ("${get_dynamodb('t')}", "substitution template: get_dynamodb() is not emulated"),
        ],
    )
    def test_a_topic_that_cannot_be_fails_the_action(self, topic: str, why: str) -> None:
        world, account, listener = ready()
        rule(account, world, "SELECT * FROM 'in'", republish(topic))

        say(world, account, "in", {"plus": "+", "nul": "a\0b"})

        assert [topic for topic, _ in listener.messages()] == ["in"]
        ((verdict, detail),) = told(world)
        assert verdict == "rule_failed"
        assert why in detail

    @pytest.mark.parametrize(
        ("headers", "why"),
        [
            ({"payloadFormatIndicator": "TEXT"}, "the header payloadFormatIndicator cannot be 'TEXT'"),
            ({"correlationData": "%"}, "the header correlationData cannot be '%'"),
            ({"messageExpiry": "${topic()}"}, "the header messageExpiry cannot be 'in'"),
            ({"messageExpiry": "0"}, "the header messageExpiry cannot be '0'"),
            ({"responseTopic": "a/#"}, "the header responseTopic cannot be 'a/#'"),
            ({"userProperties": [{"key": "k", "value": "${missing}"}]}, "headers.userProperties.0.value is Undefined"),
        ],
    )
    def test_a_header_that_cannot_be_fails_the_action(self, headers: dict[str, Any], why: str) -> None:
        world, account, _ = ready()
        rule(account, world, "SELECT * FROM 'in'", republish("out", headers=headers))

        say(world, account, "in", {})

        ((verdict, detail),) = told(world)
        assert verdict == "rule_failed"
        assert why in detail

    def test_an_undefined_substitution_may_be_empty(self) -> None:
        world, account, listener = ready(Settings(rule_undefined_substitution="empty"))
        rule(account, world, "SELECT * FROM 'in'", republish("out/${missing}/x"))

        say(world, account, "in", {})

        assert [topic for topic, _ in listener.messages()] == ["in", "out//x"]

    def test_a_payload_that_has_grown_too_large_fails_the_action(self) -> None:
        world, account, listener = ready()
        rule(account, world, "SELECT a + a AS x FROM 'in'", republish("out"))

        say(world, account, "in", {"a": "y" * 70_000})

        assert [topic for topic, _ in listener.messages()] == ["in"]
        assert "the payload has 140008 bytes, must be at most 131072" in told(world)[0][1]

    def test_a_rule_can_update_a_shadow_and_read_one(self) -> None:
        world, account, listener = ready()
        rule(
            account,
            world,
            "SELECT {'reported': {'v': v}} AS state FROM 'in/+'",
            republish("$$aws/things/${topic(2)}/shadow/update"),
        )
        rule(
            account,
            world,
            f"SELECT get_thing_shadow('t', '{ROLE}').state.reported.v AS v FROM 'ask'",
            republish("answer"),
            name="reader",
        )
        listener.subscribe("$aws/things/t/shadow/update/accepted", packet_id=2)

        say(world, account, "in/t", {"v": 5})
        say(world, account, "ask", {})
        messages = dict(listener.messages())

        assert json.loads(messages["$aws/things/t/shadow/update/accepted"])["state"] == {"reported": {"v": 5}}
        assert messages["answer"] == b'{"v":5}'


class TestSources:
    def test_the_event_of_a_first_connection_is_one(self) -> None:
        world = World()
        account = world.account()
        world.register_ca(account, mode="SNI_ONLY")
        world.register_leaf(account, device(1))
        listener = world.client(1, account.endpoint).connected("listener").subscribe("jitr/#")
        rule(
            account,
            world,
            "SELECT certificateId FROM '$aws/events/certificates/registered/#' "
            'WHERE certificateStatus = "PENDING_ACTIVATION"',
            republish("jitr/${awsAccountId}"),
        )

        world.client(0, account.endpoint).connect()

        assert listener.messages() == [
            (f"jitr/{A}", json.dumps({"certificateId": device(0).certificate_id}, separators=(",", ":")).encode())
        ]

    def test_a_will_is_one_and_has_the_principal_of_its_client(self) -> None:
        world, account, listener = ready()
        rule(account, world, "SELECT principal() AS p, clientid() AS c FROM 'wills/+'", republish("out"))

        world.client(0, account.endpoint).connected("dying", will=will("wills/c")).lose()

        assert dict(listener.messages())["out"] == (
            json.dumps({"p": device(0).certificate_id, "c": "dying"}, separators=(",", ":")).encode()
        )

    def test_a_lifecycle_event_is_one(self) -> None:
        world, account, listener = ready()
        rule(account, world, "SELECT clientId FROM '$aws/events/presence/connected/#'", republish("seen"))

        world.client(0, account.endpoint).connected("robot-0")

        assert ("seen", b'{"clientId":"robot-0"}') in listener.messages()

    def test_an_answer_of_the_shadow_service_is_one(self) -> None:
        world, account, listener = ready()
        rule(
            account,
            world,
            "SELECT topic(3) AS thing, state.reported.v AS v FROM '$aws/things/+/shadow/update/accepted'",
            republish("changed"),
        )

        world.client(0, account.endpoint).connected("robot-0").send(
            Publish(topic="$aws/things/t/shadow/update", payload=b'{"state": {"reported": {"v": 1}}}')
        )

        assert listener.messages() == [("changed", b'{"thing":"t","v":1}')]

    def test_a_message_of_the_service_has_no_client(self) -> None:
        world, account, listener = ready()
        rule(account, world, "SELECT clientid() AS c, principal() AS p, traceid() AS t FROM 'in'", republish("out"))

        say(world, account, "in", {})

        assert ("out", b'{"c":"n/a"}') in listener.messages()

    def test_messages_of_another_account_or_region_are_none(self) -> None:
        world, account, listener = ready()
        rule(account, world, "SELECT * FROM '#'", republish("x"))
        other = world.account("222222222222")
        elsewhere = world.account(A, "eu-west-1")

        say(world, other, "a", {})
        say(world, elsewhere, "a", {})

        assert told(world) == []
        assert listener.messages() == []

    def test_a_hash_does_not_match_reserved_topics(self) -> None:
        world, account, _ = ready()
        rule(account, world, "SELECT * FROM '#'", republish("out", qos=0), ruleDisabled=False)

        say(world, account, "$aws/events/x", {})

        assert told(world) == []


class TestChanges:
    def test_a_disabled_a_replaced_and_a_deleted_rule_are_felt_at_once(self) -> None:
        world, account, _ = ready()
        rules = world.registry.topic_rules
        rule(account, world, "SELECT * FROM 'a'", republish("b"))

        def fired() -> int:
            before = len(told(world))
            say(world, account, "a", {})
            say(world, account, "z", {})
            return len(told(world)) - before

        assert fired() == 1
        rules.set_disabled(account, "r", disabled=True)
        assert fired() == 0
        rules.set_disabled(account, "r", disabled=False)
        assert fired() == 1
        rules.replace(account, "r", {"sql": "SELECT * FROM 'z'", "actions": [republish("out")]})
        assert fired() == 1
        assert told(world)[-1][1].startswith("rule r on z")
        rules.delete(account, "r")
        assert fired() == 0

    def test_rules_run_in_the_order_of_their_names(self) -> None:
        world, account, listener = ready()
        for name in ("b", "a", "c"):
            rule(account, world, "SELECT * FROM 'in'", republish(f"out/{name}"), name=name)

        say(world, account, "in", {})

        assert [topic for topic, _ in listener.messages()] == ["in", "out/a", "out/b", "out/c"]

    def test_a_rule_kept_from_a_time_of_other_settings_does_nothing_and_is_told_of(self) -> None:
        world, account, listener = ready()
        rule(account, world, "SELECT * FROM 'in'", republish("out"))
        rule(account, world, "SELECT * FROM 'in'", republish("other"), name="s")
        account.topic_rules["r"] = replace(account.topic_rules["r"], sql="SELECT a + 1 FROM 'in'")
        world.core.rules.changed()

        say(world, account, "in", {})

        assert [topic for topic, _ in listener.messages()] == ["in", "other"]
        assert told(world)[0] == (
            "rule_failed",
            "rule r does nothing: SQL parse error: a + 1 has no name; give it one with AS at line 1, column 8",
        )

    def test_a_reset_forgets_the_rules(self) -> None:
        world, account, _ = ready()
        rule(account, world, "SELECT * FROM 'a'", republish("b"))
        say(world, account, "a", {})
        world.core.reset()

        say(world, world.account(), "a", {})

        assert told(world) == []


class TestLoops:
    def test_a_rule_that_triggers_itself_is_stopped(self) -> None:
        world, account, listener = ready()
        rule(account, world, "SELECT * FROM 'a'", republish("a"))

        say(world, account, "a", {})

        assert len(listener.messages()) == 11
        assert told(world)[-1] == ("rule_stopped", "rule r on a: it would be rule 11 of a chain")
        assert [verdict for verdict, _ in told(world)].count("rule_executed") == 10

    def test_a_rule_that_multiplies_messages_is_stopped_and_the_next_message_begins_anew(self) -> None:
        world, account, _ = ready(Settings(max_rule_firings=50, jitp_delay=(2.0, 2.0)))
        rule(account, world, "SELECT * FROM 'a'", *[republish("a") for _ in range(10)])

        for _ in range(2):
            say(world, account, "a", {})

        verdicts = [verdict for verdict, _ in told(world)]
        assert verdicts.count("rule_executed") == 100
        assert verdicts.count("rule_stopped") == 2

    def test_a_chain_of_rules_may_be_as_long_as_the_setting_says(self) -> None:
        world, account, listener = ready(Settings(max_rule_chain=2, jitp_delay=(2.0, 2.0)))
        for number in range(3):
            rule(account, world, f"SELECT * FROM 's{number}'", republish(f"s{number + 1}"), name=f"r{number}")

        say(world, account, "s0", {})

        assert [topic for topic, _ in listener.messages()] == ["s0", "s1", "s2"]
        assert told(world)[-1][0] == "rule_stopped"


class TestHTTP:
    def confirmed(self, world: World, account: Partition, url: str) -> None:
        destinations = world.registry.rule_destinations
        held = destinations.find(account, url) or destinations.create(account, url)
        destinations.confirm(account, held.token, enable=True)

    def test_the_selected_payload_goes_to_a_confirmed_destination(self) -> None:
        world, account, _ = ready()
        sender = Sender()
        world.core.rules.send = sender.offer
        headers = [{"key": "x-id", "value": "${id}"}]
        rule(
            account,
            world,
            "SELECT id FROM 'a'",
            http("https://example.com/in/${id}", confirmationUrl="https://example.com/", headers=headers),
        )
        self.confirmed(world, account, "https://example.com/")
        sender.sent.clear()

        say(world, account, "a", {"id": "7", "more": 1})

        assert sender.sent == [
            HTTPPost(
                url="https://example.com/in/7",
                headers=(("x-id", "7"), ("Content-Type", "application/json")),
                body=b'{"id":"7"}',
                confirmation_url="https://example.com/",
            )
        ]
        assert told(world) == []
        sender.answer(204)
        assert told(world) == [("rule_executed", "rule r on a: POST https://example.com/in/7: 204")]

    @pytest.mark.parametrize(
        ("payload", "headers", "content_type"),
        [
            (b"{}", [{"key": "Content-Type", "value": " ${'text/y'} "}], "text/y"),
            (b"\xff", [], "application/octet-stream"),
            (b"{}", [], "application/json"),
            (b"{}", [{"key": "content-TYPE", "value": "text/x"}], "text/x"),
        ],
    )
    def test_the_content_type_is_of_the_payload_or_as_told(
        self, payload: bytes, headers: list[dict[str, str]], content_type: str
    ) -> None:
        world, account, _ = ready(Settings(rule_http_unconfirmed=True, jitp_delay=(2.0, 2.0)))
        sender = Sender()
        rule(account, world, "SELECT * FROM 'a'", http("https://example.com/", headers=headers))
        world.core.rules.send = sender.offer

        say(world, account, "a", payload)

        types = [value for name, value in sender.sent[0].headers if name.lower() == "content-type"]
        assert types == [content_type]

    def test_nothing_goes_to_a_destination_that_is_not_enabled(self) -> None:
        world, account, _ = ready()
        sender = Sender()
        world.core.rules.send = sender.offer
        rule(account, world, "SELECT * FROM 'a'", http("https://example.com/in"))
        (arn,) = account.rule_destinations
        sender.sent.clear()

        say(world, account, "a", {})
        verdict, detail = told(world)[-1]
        assert verdict == "rule_failed"
        assert detail.endswith("the destination for https://example.com/in is IN_PROGRESS, must be ENABLED")
        world.registry.rule_destinations.delete(account, arn)
        say(world, account, "a", {})

        assert "there is no destination for https://example.com/in" in told(world)[-1][1]
        assert sender.sent == []

    def test_a_status_that_is_no_success_is_a_failure(self) -> None:
        world, account, _ = ready(Settings(rule_http_unconfirmed=True, jitp_delay=(2.0, 2.0)))
        sender = Sender()
        rule(account, world, "SELECT * FROM 'a'", http("https://example.com/"))
        world.core.rules.send = sender.offer

        for status in (302, 400, 503):
            say(world, account, "a", {})
            sender.answer(status)

        assert [detail.rpartition(": ")[2] for _, detail in told(world)] == [
            "HTTP status 302",
            "HTTP status 400",
            "HTTP status 503",
        ]

    def test_an_answer_after_a_reset_is_nobodys(self) -> None:
        world, account, _ = ready(Settings(rule_http_unconfirmed=True, jitp_delay=(2.0, 2.0)))
        sender = Sender()
        world.core.rules.send = sender.offer
        rule(account, world, "SELECT * FROM 'a'", http("https://example.com/"), errorAction=republish("errors"))
        say(world, account, "a", {})
        world.core.reset()

        sender.answer(500, which=0)
        sender.answer(500, which=1)

        assert [post.confirmation_url for post in sender.sent] == [None, "https://example.com/"]
        assert world.history.select() == []

    @pytest.mark.parametrize(
        ("fields", "why"),
        [
            (
                {"auth": {"sigv4": {"signingRegion": "r", "serviceName": "s", "roleArn": ROLE}}},
                "http not executed: authorization by Signature Version 4 is not emulated",
            ),
            ({"enableBatching": True}, "http not executed: batching is not emulated"),
        ],
    )
    def test_what_of_an_http_action_is_not_emulated_is_told(self, fields: dict[str, Any], why: str) -> None:
        world, account, _ = ready(Settings(rule_http_unconfirmed=True, jitp_delay=(2.0, 2.0)))
        sender = Sender()
        rule(account, world, "SELECT * FROM 'a'", http("https://example.com/", **fields))
        world.core.rules.send = sender.offer

        say(world, account, "a", {})

        assert sender.sent == []
        assert told(world) == [("rule_not_executed", f"rule r on a: {why}")]

    @pytest.mark.parametrize(
        ("url", "headers", "why"),
        [
            ("https://${host}/", [], "does not begin with its confirmationUrl"),
            ("https://example.com/${space}", [], "is not valid"),
            ("https://example.com/", [{"key": "x", "value": "${line}"}], "characters that cannot be sent"),
            ("https://example.com/", [{"key": "Host", "value": "x"}], "'Host' cannot be the name of a header"),
            ("https://example.com/", [{"key": "a b", "value": "x"}], "'a b' cannot be the name of a header"),
        ],
    )
    def test_a_request_that_cannot_be_made_fails_the_action(
        self, url: str, headers: list[dict[str, str]], why: str
    ) -> None:
        world, account, _ = ready(Settings(rule_http_unconfirmed=True, jitp_delay=(2.0, 2.0)))
        sender = Sender()
        action = http(url, headers=headers, confirmationUrl="https://${want}/")
        rule(account, world, "SELECT * FROM 'a'", action)
        world.core.rules.send = sender.offer

        say(world, account, "a", {"host": "evil", "want": "example.com", "space": "a b", "line": "a\r\nx: y"})

        ((verdict, detail),) = told(world)
        assert verdict == "rule_failed"
        assert why in detail
        assert sender.sent == []

    def test_a_full_queue_and_a_missing_sender_fail_the_action(self) -> None:
        world, account, _ = ready(Settings(rule_http_unconfirmed=True, jitp_delay=(2.0, 2.0)))
        rule(account, world, "SELECT * FROM 'a'", http("https://example.com/"))

        say(world, account, "a", {})
        world.core.rules.send = Sender(room=0).offer
        say(world, account, "a", {})

        assert [detail.rpartition(": ")[2] for _, detail in told(world)] == [
            "nothing here sends HTTP",
            "too many requests wait",
        ]

    def test_a_new_destination_is_sent_its_token(self) -> None:
        world, account, _ = ready()
        sender = Sender()
        world.core.rules.send = sender.offer
        world.core.rules.api_url = "http://127.0.0.1:4566"

        destination = world.registry.rule_destinations.create(account, "https://example.com/x")

        (post,) = sender.sent
        assert post.url == f"https://example.com/x/?confirmationToken={destination.token}"
        assert dict(post.headers) == {
            "x-amz-rules-engine-message-type": "DestinationConfirmation",
            "x-amz-rules-engine-destination-arn": destination.arn,
            "Content-Type": "application/json",
        }
        assert json.loads(post.body) == {
            "arn": destination.arn,
            "confirmationToken": destination.token,
            "enableUrl": f"http://127.0.0.1:4566/confirmdestination/{destination.token}",
            "messageType": "DestinationConfirmation",
        }
        slashed = world.registry.rule_destinations.create(account, "https://example.com/")
        assert sender.sent[1].url == f"https://example.com/?confirmationToken={slashed.token}"
        sender.answer(None, "cannot connect")
        assert world.last().verdict == "confirmation_failed"
        assert "cannot connect" in world.last().detail


class TestErrorAction:
    def test_one_message_tells_of_all_that_failed(self) -> None:
        world, account, listener = ready()
        rule(
            account,
            world,
            "SELECT * FROM 'in'",
            republish("${missing}"),
            republish("$x"),
            republish("fine"),
            name="broken",
            errorAction=republish("errors/${ruleName}", qos=1),
        )

        world.client(0, account.endpoint).connected("robot-0").send(Publish(topic="in", payload=b"raw"))

        messages = dict(listener.messages())
        report = json.loads(messages["errors/broken"])
        assert messages["fine"] == b"raw"
        assert report["ruleName"] == "broken"
        assert report["topic"] == "in"
        assert report["clientId"] == "robot-0"
        assert base64.b64decode(report["base64OriginalPayload"]) == b"raw"
        assert [(each["failedAction"], each["failedResource"]) for each in report["failures"]] == [
            ("RepublishAction", "${missing}"),
            ("RepublishAction", "$x"),
        ]
        assert [verdict for verdict, _ in told(world)] == ["rule_failed", "rule_executed"]

    def test_it_waits_for_the_answer_to_an_http_request(self) -> None:
        world, account, listener = ready(Settings(rule_http_unconfirmed=True, jitp_delay=(2.0, 2.0)))
        sender = Sender()
        rule(
            account,
            world,
            "SELECT * FROM 'in'",
            http("https://example.com/"),
            http("https://example.com/"),
            errorAction=republish("errors"),
        )
        world.core.rules.send = sender.offer

        say(world, account, "in", {})
        sender.answer(500, which=0)
        assert [topic for topic, _ in listener.messages()] == ["in"]
        sender.answer(200, which=1)

        ((topic, payload),) = listener.messages()
        assert topic == "errors"
        (failure,) = json.loads(payload)["failures"]
        assert failure == {
            "failedAction": "HttpAction",
            "failedResource": "https://example.com/",
            "errorMessage": "POST https://example.com/: HTTP status 500",
        }

    def test_a_loop_over_http_and_error_action_ends(self) -> None:
        world, account, _ = ready(Settings(rule_http_unconfirmed=True, jitp_delay=(2.0, 2.0)))
        sender = Sender()
        rule(account, world, "SELECT * FROM 'in'", http("https://example.com/"), errorAction=republish("in"))
        world.core.rules.send = sender.offer

        say(world, account, "in", {})
        for turn in range(20):
            if len(sender.sent) == turn:
                break
            sender.answer(None, "refused")

        assert len(sender.sent) == 10
        assert told(world)[-1][0] == "rule_executed"
        assert "rule_stopped" in [verdict for verdict, _ in told(world)]

    def test_an_error_action_that_fails_is_told_and_is_the_end(self) -> None:
        world, account, _ = ready()
        rule(account, world, "SELECT * FROM 'in'", republish("$x"), errorAction=republish("$y"))

        say(world, account, "in", {})

        assert [verdict for verdict, _ in told(world)] == ["rule_failed", "rule_failed"]
        assert "error action: RepublishAction failed" in told(world)[1][1]


class TestFaults:
    def test_a_bug_leaves_nothing_for_the_next_message_to_trip_over(self) -> None:
        world, account, listener = ready()
        rule(account, world, "SELECT * FROM 'in'", republish("chained"), name="a")
        rule(account, world, f"SELECT get_thing_shadow('t', '{ROLE}') AS s FROM 'in'", republish("b"), name="b")
        rule(account, world, "SELECT * FROM 'chained'", republish("late"), name="c")
        get_shadow, world.core.rules.get_shadow = world.core.rules.get_shadow, _bug

        with pytest.raises(ZeroDivisionError):
            say(world, account, "in", {})
        world.core.rules.get_shadow = get_shadow
        say(world, account, "other", {})

        assert [topic for topic, _ in listener.messages()] == ["in", "chained", "other"]


def _bug(*_: object) -> None:
    raise ZeroDivisionError


class TestHistory:
    def test_other_actions_are_told_as_not_executed(self) -> None:
        world, account, listener = ready()
        arn = f"arn:aws:lambda:us-east-1:{A}:function:f"
        rule(account, world, "SELECT * FROM 'in'", {"lambda": {"functionArn": arn}}, republish("out"))

        say(world, account, "in", {})

        assert ("out", b"{}") in listener.messages()
        ((verdict, detail),) = told(world)
        assert verdict == "rule_not_executed"
        assert "lambda not executed: there is no such service here; republished to out" in detail

    def test_a_statement_that_fails_is_told_and_no_action_is_taken(self) -> None:
        world, account, listener = ready()
        rule(account, world, "SELECT a FROM 'in'", republish("out"), errorAction=republish("errors"))

        say(world, account, "in", b"\xff")

        assert [topic for topic, _ in listener.messages()] == ["in"]
        assert told(world) == [("rule_failed", "rule r on in: SQL: the payload is not JSON, so it has no a")]

    def test_what_went_well_may_be_left_out(self) -> None:
        world, account, _ = ready(Settings(rule_history="problems", jitp_delay=(2.0, 2.0)))
        rule(account, world, "SELECT * FROM 'in'", republish("out"))
        rule(account, world, "SELECT * FROM 'in'", republish("$x"), name="s")

        say(world, account, "in", {})

        assert [verdict for verdict, _ in told(world)] == ["rule_failed"]
