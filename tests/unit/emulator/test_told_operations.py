"""CloudTrail's event history and CloudWatch Logs through boto3: what is told, filtered and paged as AWS does."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from devicesim.emulator.quotas import Quotas
from tests.boto_support import make_client
from tests.emulator_support import ALLOW_ALL, EPOCH, ROLE, A, B, World, device, template

BROKEN = template(parameters=("CommonName", "Id"), policy={"PolicyName": "nobody"})
EVERYTHING = [{"eventType": "Connection.AuthNError", "logLevel": "ERROR"}]


def refusal(call: Any, **arguments: object) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer: Any = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Message"]


# --- CloudTrail ---


@pytest.fixture
def provisioned() -> World:
    """Three devices of account A whose provisioning fails, two seconds apart, and one of B whose succeeds."""
    world = World()
    account = world.account(A)
    world.register_ca(account, mode="SNI_ONLY", template_body=BROKEN)
    world.register_ca(world.account(B), mode="SNI_ONLY", template_body=template())
    for index in range(3):
        world.client(index, account.endpoint).connect()
        world.advance(2)
    world.client(3, world.account(B).endpoint).connect()
    world.advance(2)
    return world


def names(answer: Any) -> list[str]:
    records = [json.loads(event["CloudTrailEvent"]) for event in answer["Events"]]
    return [record["requestParameters"]["parameters"]["AWS::IoT::Certificate::CommonName"] for record in records]


def test_events_of_the_account_come_newest_first_with_their_record(provisioned: World) -> None:
    answer = make_client(provisioned, A, "cloudtrail").lookup_events()

    assert names(answer) == ["robot-000002", "robot-000001", "robot-000000"]
    assert "NextToken" not in answer
    event = answer["Events"][0]
    record = json.loads(event["CloudTrailEvent"])
    assert event["EventName"] == record["eventName"] == "RegisterThing"
    assert event["EventId"] == record["eventID"]
    assert event["EventSource"] == record["eventSource"] == "iot.amazonaws.com"
    assert (event["Username"], event["ReadOnly"], event["Resources"]) == ("iot-provisioning", "false", [])
    assert event["EventTime"].timestamp() == EPOCH.timestamp() + 6
    assert record["errorCode"] == "ResourceRegistrationFailureException"
    assert record["userIdentity"]["sessionContext"]["sessionIssuer"]["arn"] == ROLE


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("EventName", "RegisterThing", 3),
        ("EventName", "CreateThing", 0),
        ("EventSource", "iot.amazonaws.com", 3),
        ("Username", "iot-provisioning", 3),
        ("ReadOnly", "true", 0),
        ("AccessKeyId", "AKIA", 0),
    ],
)
def test_one_attribute_filters(provisioned: World, key: str, value: str, found: int) -> None:
    client = make_client(provisioned, A, "cloudtrail")

    answer = client.lookup_events(LookupAttributes=[{"AttributeKey": key, "AttributeValue": value}])

    assert len(answer["Events"]) == found


def test_a_range_of_time_includes_both_its_ends(provisioned: World) -> None:
    client, start = make_client(provisioned, A, "cloudtrail"), EPOCH.timestamp()

    assert names(client.lookup_events(StartTime=start + 4)) == ["robot-000002", "robot-000001"]
    assert names(client.lookup_events(EndTime=start + 4)) == ["robot-000001", "robot-000000"]
    assert names(client.lookup_events(StartTime=start + 4, EndTime=start + 4)) == ["robot-000001"]
    assert client.lookup_events(EventCategory="insight")["Events"] == []


def test_pages_follow_each_other_while_new_events_come(provisioned: World) -> None:
    client = make_client(provisioned, A, "cloudtrail")

    first = client.lookup_events(MaxResults=2)
    provisioned.client(5, provisioned.account(A).endpoint).connect()
    provisioned.advance(2)
    second = client.lookup_events(MaxResults=2, NextToken=first["NextToken"])

    assert names(first) == ["robot-000002", "robot-000001"]
    assert names(second) == ["robot-000000"]
    assert "NextToken" not in second


def test_what_cloudtrail_refuses(provisioned: World) -> None:
    client = make_client(provisioned, A, "cloudtrail")
    two = [{"AttributeKey": "EventName", "AttributeValue": "x"}, {"AttributeKey": "EventId", "AttributeValue": "y"}]

    assert refusal(client.lookup_events, StartTime=2, EndTime=1)[:2] == ("InvalidTimeRangeException", 400)
    assert refusal(client.lookup_events, LookupAttributes=two)[:2] == ("InvalidLookupAttributesException", 400)
    assert refusal(client.lookup_events, NextToken="x")[:2] == ("InvalidNextTokenException", 400)
    assert refusal(client.lookup_events, MaxResults=51)[:2] == ("ValidationException", 400)
    code, status, message = refusal(client.list_trails)
    assert (code, status) == ("NotImplementedException", 501)
    assert message == "devicesim does not emulate the operation ListTrails"


def test_lookup_is_throttled_at_two_a_second() -> None:
    client = make_client(World(quotas=Quotas()), A, "cloudtrail")

    for _ in range(2):
        client.lookup_events()

    assert refusal(client.lookup_events)[:2] == ("ThrottlingException", 400)


# --- CloudWatch Logs ---


def messages(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(event["message"]) for event in answer["events"]]


@pytest.fixture
def logged() -> World:
    """Device 0 connects and is replaced; 1 is INACTIVE, 2 may nothing, 3 is unknown, 1 without SNI."""
    world = World()
    account = world.ready_account()
    for index, status, policy in ((0, "ACTIVE", ALLOW_ALL), (1, "INACTIVE", ALLOW_ALL), (2, "ACTIVE", None)):
        world.register_leaf(account, device(index), status, policy)
    world.client(0, account.endpoint).connected("robot-000000")
    world.client(0, account.endpoint).connected("robot-000000")
    world.client(1, account.endpoint).connect("robot-000001")
    world.client(2, account.endpoint).connect("robot-000002")
    world.client(1, None).connect("robot-000001")
    make_client(world, A, "iot").set_v2_logging_options(
        roleArn=ROLE, defaultLogLevel="INFO", eventConfigurations=EVERYTHING
    )
    return world


def test_the_log_tells_what_awss_would_and_no_more(logged: World) -> None:
    told = messages(make_client(logged, A, "logs").filter_log_events(logGroupName="AWSIotLogsV2"))

    seen = [(each["eventType"], each["status"], each.get("reason"), each.get("disconnectReason")) for each in told]
    assert seen == [
        ("Connect", "Success", None, None),
        ("Connect", "Success", None, None),
        ("Disconnect", "Success", told[2]["reason"], "DUPLICATE_CLIENT_ID"),
        ("Connection.AuthNError", "Failure", "DEVICE_CERTIFICATE_INACTIVE", None),
        ("Connect", "Failure", "AUTHORIZATION_FAILURE", None),
    ]  # and nothing of the connection without SNI (§8)
    assert told[4] == {
        "timestamp": "2026-06-01 00:00:00.000",
        "logLevel": "ERROR",
        "traceId": told[4]["traceId"],
        "accountId": A,
        "status": "Failure",
        "eventType": "Connect",
        "protocol": "MQTT",
        "clientId": "robot-000002",
        "principalId": device(2).certificate_id,
        "sourceIp": "203.0.113.7",
        "sourcePort": 50_000,
        "reason": "AUTHORIZATION_FAILURE",
        "details": "Authorization Failure",
    }
    assert "principalId" not in told[3]
    assert told[3]["serverNameIndication"] == logged.account(A).endpoint


def test_authentication_errors_are_logged_for_who_asked_for_them_only(logged: World) -> None:
    iot, logs = make_client(logged, A, "iot"), make_client(logged, A, "logs")

    def types(group: str = "AWSIotLogsV2") -> set[str]:
        return {each["eventType"] for each in messages(logs.filter_log_events(logGroupName=group))}

    iot.set_v2_logging_options(eventConfigurations=[])
    assert types() == {"Connect", "Disconnect"}
    iot.set_v2_logging_options(defaultLogLevel="ERROR")
    assert types() == {"Connect"}
    elsewhere = [{"eventType": "Connection.AuthNError", "logLevel": "ERROR", "logDestination": "Elsewhere"}]
    iot.set_v2_logging_options(eventConfigurations=elsewhere)
    assert types("Elsewhere") == {"Connection.AuthNError"}
    iot.set_v2_logging_options(disableAllLogs=True)
    assert refusal(types)[0] == "ResourceNotFoundException"


def test_without_logging_options_there_is_no_log(logged: World) -> None:
    code, _, message = refusal(make_client(logged, B, "logs").filter_log_events, logGroupName="AWSIotLogsV2")

    assert (code, message) == ("ResourceNotFoundException", "The specified log group does not exist.")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", 5),
        ("AUTHORIZATION_FAILURE", 1),
        ('"robot-000000"', 3),
        ('Failure "robot-000002"', 1),
        ('{ $.clientId = "robot-000000" }', 3),
        ('{ $.clientId = "robot-*" }', 4),
        ("{ $.accountId = 111111111111 }", 5),
        ('{ $.clientId = "robot-000000" && $.eventType != "Connect" }', 1),
        ('{ ($.clientId = "robot-000002") || ($.eventType = "Connection.AuthNError") }', 2),
        ('{ $.nothing = "x" }', 0),
    ],
)
def test_patterns_filter(logged: World, pattern: str, found: int) -> None:
    logs = make_client(logged, A, "logs")

    assert len(logs.filter_log_events(logGroupName="AWSIotLogsV2", filterPattern=pattern)["events"]) == found


@pytest.mark.parametrize("pattern", ["{ $.a", "{ $.a > 1 }", '{ $.a = "b" && $.c = "d" || $.e = "f" }', "-x", "[a, b]"])
def test_a_pattern_that_is_not_read_is_refused(logged: World, pattern: str) -> None:
    logs = make_client(logged, A, "logs")

    assert refusal(logs.filter_log_events, logGroupName="AWSIotLogsV2", filterPattern=pattern)[:2] == (
        "InvalidParameterException",
        400,
    )


def test_the_log_pages_and_turns_round(logged: World) -> None:
    logs, group = make_client(logged, A, "logs"), "AWSIotLogsV2"

    first = logs.filter_log_events(logGroupIdentifier=group, limit=4)
    rest = logs.filter_log_events(logGroupIdentifier=group, limit=4, nextToken=first["nextToken"])
    newest = logs.filter_log_events(logGroupName=group, limit=1, startFromHead=False)

    assert (len(first["events"]), len(rest["events"])) == (4, 1)
    assert messages(newest) == messages(rest)
    at = first["events"][0]["timestamp"]
    assert len(logs.filter_log_events(logGroupName=group, startTime=at, endTime=at)["events"]) == 5
    assert logs.filter_log_events(logGroupName=group, startTime=at + 1)["events"] == []
    assert refusal(logs.filter_log_events)[0] == "InvalidParameterException"
    assert refusal(logs.filter_log_events, logGroupName=group, logStreamNames=["x"])[:2] == (
        "NotImplementedException",
        501,
    )
