"""The iot-data service through boto3, without sockets: the control plane is handed what would be sent."""

import base64
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from devicesim.emulator.httpmessage import HTTPRequest
from devicesim.emulator.packets import Disconnect, Properties, Publish, Subscribe, Subscription
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import ThingPrincipalType
from tests.boto_support import make_client
from tests.emulator_support import V5, A, B, World, will
from tests.emulator_support import device as identity

SHADOW = "$aws/things/robot-1/shadow/"


@pytest.fixture
def world() -> World:
    world = World()
    world.ready_account(0, 1)
    return world


@pytest.fixture
def data(world: World) -> Any:
    return make_client(world)


def payload_of(answer: Any) -> Any:
    return json.loads(answer["payload"].read())


def refusal(call: Any, **arguments: object) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer: Any = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Message"]


def test_publish_goes_to_the_accounts_devices_with_all_its_properties(world: World, data: Any) -> None:
    device = world.client(0, world.account().endpoint, version=V5).connected("d").subscribe("a/#", qos=1)

    data.publish(
        topic="a/b c/ü",
        qos=1,
        payload=b"\x00hello",
        contentType="text/plain",
        responseTopic="a/answers",
        correlationData=base64.b64encode(b"7").decode(),
        payloadFormatIndicator="UTF8_DATA",
        messageExpiry=30,
        userProperties=json.dumps([{"deviceName": "alpha"}, {"deviceCnt": "45"}]),
    )

    (packet,) = [each for each in device.received() if isinstance(each, Publish)]
    assert (packet.topic, packet.payload, packet.qos) == ("a/b c/ü", b"\x00hello", 1)
    assert packet.properties == Properties(
        content_type="text/plain",
        response_topic="a/answers",
        correlation_data=b"7",
        payload_format_indicator=1,
        message_expiry_interval=30,
        user_properties=(("deviceName", "alpha"), ("deviceCnt", "45")),
    )


def test_publish_is_qos_0_and_goes_nowhere_else(world: World, data: Any) -> None:
    world.ready_account(0, account_id=B)
    other = world.client(0, world.account(B).endpoint).connected("o").subscribe("#")
    mine = world.client(0, world.account().endpoint).connected("m").subscribe("a", qos=1)

    data.publish(topic="a", payload="x")

    assert mine.messages() == [("a", b"x")]
    assert other.messages() == []


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        ({"topic": "$aws/things/robot-1/shadow/update"}, "InvalidRequestException", 400),
        ({"topic": "a/+"}, "InvalidRequestException", 400),
        ({"topic": "a" * 257}, "InvalidRequestException", 400),
        ({"topic": "/".join("a" * 9)}, "InvalidRequestException", 400),
        ({"topic": "a", "payload": b"x" * (128 * 1024 + 1)}, "RequestEntityTooLargeException", 413),
        ({"topic": "a", "messageExpiry": -1}, "InvalidRequestException", 400),
        ({"topic": "a", "responseTopic": "#"}, "InvalidRequestException", 400),
        ({"topic": "a", "correlationData": "???"}, "InvalidRequestException", 400),
        ({"topic": "a", "userProperties": '[{"a": 1}]'}, "InvalidRequestException", 400),
        ({"topic": "a", "userProperties": "{"}, "InvalidRequestException", 400),
        ({"topic": "a\0b"}, "InvalidRequestException", 400),
        ({"topic": "a", "contentType": "x\0"}, "InvalidRequestException", 400),
        ({"topic": "a", "contentType": "x" * 70_000}, "InvalidRequestException", 400),
        ({"topic": "a", "userProperties": [{"a": "\ud800"}]}, "InvalidRequestException", 400),
        ({"topic": "a", "correlationData": base64.b64encode(bytes(70_000)).decode()}, "InvalidRequestException", 400),
    ],
)
def test_what_cannot_be_published_is_refused_and_not_retained(
    data: Any, arguments: Any, code: str, status: int
) -> None:
    assert refusal(data.publish, **{"payload": b"x", **arguments}, retain=True)[:2] == (code, status)

    assert data.list_retained_messages()["retainedTopics"] == []


def test_a_message_lives_for_a_week_at_most(world: World, data: Any) -> None:
    device = world.client(0, world.account().endpoint, version=V5).connected("d").subscribe("a")

    data.publish(topic="a", payload=b"x", messageExpiry=1 << 40)
    data.publish(topic="a", payload=b"x", messageExpiry=0)

    sent = [each.properties.message_expiry_interval for each in device.received() if isinstance(each, Publish)]
    assert sent == [7 * 24 * 3600, 1]


def test_forging_an_event_is_refused_as_it_was_measured_on_aws(data: Any) -> None:
    answer = refusal(data.publish, topic="$aws/events/certificates/registered/x", payload=b"{}")

    assert answer == ("InvalidRequestException", 400, "Topic can't start with $")


def test_a_shadow_lives_over_http(world: World, data: Any) -> None:
    device = world.client(0, world.account().endpoint).connected("d").subscribe(SHADOW + "#")

    updated = payload_of(
        data.update_thing_shadow(
            thingName="robot-1", payload=json.dumps({"state": {"desired": {"on": True}}, "clientToken": "t"})
        )
    )

    assert updated["state"] == {"desired": {"on": True}}
    assert updated["clientToken"] == "t"
    assert [topic.removeprefix(SHADOW) for topic, _ in device.messages()] == [
        "update/accepted",
        "update/delta",
        "update/documents",
    ]
    got = payload_of(data.get_thing_shadow(thingName="robot-1"))
    assert got["state"] == {"desired": {"on": True}, "delta": {"on": True}}
    assert device.messages() == []
    assert payload_of(data.delete_thing_shadow(thingName="robot-1"))["version"] == 1
    assert [topic for topic, _ in device.messages()] == [SHADOW + "delete/accepted"]


def test_a_refusal_over_http_is_told_to_the_caller_alone(world: World, data: Any) -> None:
    device = world.client(0, world.account().endpoint).connected("d").subscribe(SHADOW + "#")
    update = data.update_thing_shadow

    assert refusal(data.get_thing_shadow, thingName="robot-1") == (
        "ResourceNotFoundException",
        404,
        "No shadow exists with name: 'robot-1'",
    )
    assert refusal(data.get_thing_shadow, thingName="robot-1", shadowName="arm")[2].endswith("'arm'")
    assert refusal(data.delete_thing_shadow, thingName="robot-1")[:2] == ("ResourceNotFoundException", 404)
    assert refusal(update, thingName="robot-1", payload="{")[:2] == ("InvalidRequestException", 400)
    assert refusal(update, thingName="robot-1", payload='{"state":{},"version":5}')[:2] == ("ConflictException", 409)
    assert refusal(update, thingName="robot-1", payload=" " * 9000)[:2] == ("RequestEntityTooLargeException", 413)
    assert refusal(update, thingName="robot-1", payload=b"\xff")[:2] == ("UnsupportedDocumentEncodingException", 415)
    assert device.messages() == []


def test_a_name_that_no_shadow_can_have_is_refused(data: Any) -> None:
    code, status, _ = refusal(data.get_thing_shadow, thingName="a b")

    assert (code, status) == ("InvalidRequestException", 400)


def test_named_shadows_are_listed_in_pages(data: Any) -> None:
    update = b'{"state":{"reported":{"a":1}}}'
    for name in ("d", "b", "a", "c"):
        data.update_thing_shadow(thingName="robot-1", shadowName=name, payload=update)
    data.update_thing_shadow(thingName="robot-1", payload=update)

    first = data.list_named_shadows_for_thing(thingName="robot-1", pageSize=3)
    second = data.list_named_shadows_for_thing(thingName="robot-1", pageSize=3, nextToken=first["nextToken"])

    assert first["results"] == ["a", "b", "c"]
    assert second["results"] == ["d"]
    assert "nextToken" not in second
    assert isinstance(first["timestamp"], int)
    assert data.list_named_shadows_for_thing(thingName="unknown")["results"] == []
    assert refusal(data.list_named_shadows_for_thing, thingName="other", nextToken=first["nextToken"])[1] == 400


def test_retained_messages_are_read_and_removed(world: World, data: Any) -> None:
    world.advance(100)
    data.publish(topic="b/2", qos=1, retain=True, payload=b"two", userProperties=[{"k": "v"}])
    device = world.client(0, world.account().endpoint).connected("d")
    device.send(Publish(topic="a/1", payload=b"one", retain=True))
    world.advance(7.5)

    assert data.list_retained_messages()["retainedTopics"] == [
        {"topic": "a/1", "payloadSize": 3, "qos": 0, "lastModifiedTime": round((world.epoch() - 7.5) * 1000)},
        {"topic": "b/2", "payloadSize": 3, "qos": 1, "lastModifiedTime": round((world.epoch() - 7.5) * 1000)},
    ]
    message = data.get_retained_message(topic="b/2")
    assert (message["topic"], message["payload"], message["qos"]) == ("b/2", b"two", 1)
    assert json.loads(message["userProperties"]) == [{"k": "v"}]
    newcomer = world.client(1, world.account().endpoint).connected("n")
    newcomer.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="b/2"),)))
    assert newcomer.messages() == [("b/2", b"two")]

    data.publish(topic="b/2", retain=True)

    assert refusal(data.get_retained_message, topic="b/2")[:2] == ("ResourceNotFoundException", 404)
    assert len(data.list_retained_messages()["retainedTopics"]) == 1


def test_retained_topics_come_in_pages(data: Any) -> None:
    for number in range(5):
        data.publish(topic=f"t/{number}", retain=True, payload=b"x")

    pages = data.get_paginator("list_retained_messages").paginate(PaginationConfig={"PageSize": 2})

    assert [[each["topic"] for each in page["retainedTopics"]] for page in pages] == [
        ["t/0", "t/1"],
        ["t/2", "t/3"],
        ["t/4"],
    ]


def test_what_would_be_retained_beyond_the_limit_is_throttled_and_delivered_to_nobody() -> None:
    world = World(Settings(max_retained_messages=1))
    world.ready_account(0)
    data = make_client(world)
    watcher = world.client(0, world.account().endpoint).connected("w").subscribe("#")
    data.publish(topic="a", payload=b"1", retain=True)

    assert refusal(data.publish, topic="b", payload=b"2", retain=True)[:2] == ("ThrottlingException", 429)
    data.publish(topic="a", payload=b"3", retain=True)
    data.publish(topic="b", payload=b"", retain=True)

    assert watcher.messages() == [("a", b"1"), ("a", b"3"), ("b", b"")]


def test_deleting_a_connection_of_the_services_own_is_refused(data: Any) -> None:
    assert refusal(data.delete_connection, clientId="$GEN/a")[:2] == ("InvalidRequestException", 400)


def test_deleting_a_connection_disconnects_the_client(world: World, data: Any) -> None:
    watcher = world.client(1, world.account().endpoint).connected("w").subscribe("wills/#")
    device = world.client(0, world.account().endpoint, version=V5).connected("a/b c", will=will())

    data.delete_connection(clientId="a/b c")

    assert device.closed
    (goodbye,) = [each for each in device.received() if isinstance(each, Disconnect)]
    assert goodbye.reason_code == 0x98
    assert watcher.messages() == [("wills/c", b"gone")]
    entry = next(each for each in world.history.select() if each.verdict == "disconnected")
    assert entry.reason == "API_INITIATED_DISCONNECT"
    assert refusal(data.delete_connection, clientId="a/b c")[:2] == ("ResourceNotFoundException", 404)


def test_deleting_a_connection_can_keep_the_will_back_and_end_the_session(world: World, data: Any) -> None:
    watcher = world.client(1, world.account().endpoint).connected("w").subscribe("wills/#")
    endpoint = world.account().endpoint
    world.client(0, endpoint).connected("d", clean_start=False, will=will()).subscribe("a", qos=1)

    data.delete_connection(clientId="d", preventWillMessage=True, cleanSession=True)

    assert watcher.messages() == []
    assert world.plane.load(world.account()).sessions == 1  # the watcher's


def test_a_connection_is_described_while_it_lasts_and_half_an_hour_longer(world: World, data: Any) -> None:
    account = world.account()
    world.registry.things.create(account, "robot-1")
    world.registry.things.attach_principal(
        account,
        "robot-1",
        account.certificate_arn(identity(0).certificate_id),
        ThingPrincipalType.EXCLUSIVE_THING,
    )
    begun = round(world.epoch() * 1000)
    device = world.client(0, account.endpoint).connected("d", keep_alive=60)
    world.advance(10)

    assert described(data, includeSocketInformation=True) == {
        "connected": True,
        "clientId": "d",
        "thingName": "robot-1",
        "cleanSession": True,
        "keepAliveDuration": 60,
        "sessionExpiry": 0,
        "connectedSince": begun,
        "sourceIp": "203.0.113.7",
        "sourcePort": 50_000,
    }
    assert "sourceIp" not in described(data)
    device.disconnect()
    ended = round(world.epoch() * 1000)
    world.advance(30 * 60)
    assert described(data) == {
        "connected": False,
        "clientId": "d",
        "cleanSession": True,
        "disconnectedSince": ended,
        "disconnectReason": "CLIENT_INITIATED_DISCONNECT",
    }
    world.advance(1)
    assert refusal(data.get_connection, clientId="d")[:2] == ("ResourceNotFoundException", 404)


def described(data: Any, **arguments: object) -> dict[str, Any]:
    answer = dict(data.get_connection(clientId="d", **arguments))
    del answer["ResponseMetadata"]
    return answer


def test_subscriptions_are_listed_of_clients_that_are_away_too(world: World, data: Any) -> None:
    device = world.client(0, world.account().endpoint).connected("d", clean_start=False)
    device.subscribe("b/#", "a", qos=1).subscribe("c/+", packet_id=2)
    device.disconnect()

    first = data.list_subscriptions(clientId="d", maxResults=2)
    second = data.list_subscriptions(clientId="d", maxResults=2, nextToken=first["nextToken"])

    assert first["subscriptions"] == [{"topicFilter": "a", "qos": 1}, {"topicFilter": "b/#", "qos": 1}]
    assert second["subscriptions"] == [{"topicFilter": "c/+", "qos": 0}]
    assert data.get_connection(clientId="d")["connected"] is False
    assert refusal(data.list_subscriptions, clientId="e")[:2] == ("ResourceNotFoundException", 404)


def test_what_is_not_emulated_is_501_with_its_name(data: Any) -> None:
    code, status, message = refusal(data.send_direct_message, clientId="d", topic="a")

    assert (code, status) == ("NotImplementedException", 501)
    assert "SendDirectMessage" in message


def test_older_sdks_sign_for_another_service_name(world: World) -> None:
    control_plane = world.core.control_plane()
    headers = {
        "authorization": f"AWS4-HMAC-SHA256 Credential={A}/20260601/us-east-1/iotdevicegateway/aws4_request, "
        "SignedHeaders=host, Signature=00"
    }

    answer = control_plane.handle(
        HTTPRequest(method="GET", path="/things/robot-1/shadow", query="", headers=headers, body=b""), "1"
    )

    assert answer.status == 404
    assert json.loads(answer.body)["message"] == "No shadow exists with name: 'robot-1'"


def test_both_services_answer_at_one_address(world: World, data: Any) -> None:
    iot = make_client(world, service="iot")
    iot.create_thing(thingName="robot-1")

    data.update_thing_shadow(thingName="robot-1", payload=b'{"state":{}}')

    assert iot.list_things()["things"][0]["thingName"] == "robot-1"


def make_rule(world: World, sql: str, topic: str) -> None:
    action = {"republish": {"topic": topic, "roleArn": "arn:aws:iam::111111111111:role/rules"}}
    make_client(world, service="iot").create_topic_rule(
        ruleName="rule", topicRulePayload={"sql": sql, "actions": [action], "awsIotSqlVersion": "2016-03-23"}
    )


def test_a_rule_turns_a_message_into_a_shadow(world: World, data: Any) -> None:
    sql = "SELECT temperature AS state.reported.temperature FROM 'robots/+/telemetry'"
    make_rule(world, sql, "$$aws/things/${topic(2)}/shadow/update")
    device = world.client(0, world.account().endpoint).connected("d").subscribe(SHADOW + "update/accepted")

    device.send(Publish(topic="robots/robot-1/telemetry", payload=b'{"temperature":21}'))
    world.advance(1)

    assert [topic for topic, _ in device.messages()] == [SHADOW + "update/accepted"]
    assert payload_of(data.get_thing_shadow(thingName="robot-1"))["state"] == {"reported": {"temperature": 21}}


def test_a_rule_that_answers_its_own_shadow_update_ends(world: World, data: Any) -> None:
    sql = "SELECT state FROM '$aws/things/robot-1/shadow/update/accepted'"
    make_rule(world, sql, "$$aws/things/robot-1/shadow/update")

    data.update_thing_shadow(thingName="robot-1", payload=b'{"state":{"reported":{"a":1}}}')
    world.advance(1)
    first = payload_of(data.get_thing_shadow(thingName="robot-1"))["version"]
    world.advance(60)

    assert 1 < first < 100
    assert payload_of(data.get_thing_shadow(thingName="robot-1"))["version"] == first


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 70_000, "+"])
def test_a_rule_cannot_publish_what_no_packet_can_carry(world: World, name: str) -> None:
    make_rule(world, "SELECT * FROM 'in'", "out/${name}")
    device = world.client(0, world.account().endpoint, version=V5).connected("d").subscribe("out/#")

    device.send(Publish(topic="in", payload=json.dumps({"name": name}).encode()))
    world.advance(1)

    assert not device.closed
    assert device.messages() == []
    assert "cannot be sent" in world.last().detail
