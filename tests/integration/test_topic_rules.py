"""Topic rules as a user has them: made with boto3, and JITR whose activation is one HTTP action away."""

import json
import queue
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
import trio
from botocore.exceptions import ClientError

from devicesim.emulator.packets import ConnAck
from devicesim.emulator.quotas import Quotas
from devicesim.emulator.service import AccountConfig, EmulatorConfig, Ready, serve
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.environment import ControlSettings
from devicesim.pki.identity import certificate_pem
from tests.control_support import REGION, A, make_registry, running_api_in_a_thread
from tests.emulator_support import ALLOW_ALL
from tests.gateway_support import open_client
from tests.integration.test_emulator_service import admin, mint, shared_ca

ROLE = f"arn:aws:iam::{A}:role/rules"
CONFIG = EmulatorConfig(
    accounts=(AccountConfig(name="dev", account_id=A, region=REGION),),
    settings=Settings(quotas=Quotas.lifted()),
    seed=3,
)


def iot(api: str, region: str = REGION) -> Any:
    return boto3.client("iot", endpoint_url=api, region_name=region, aws_access_key_id=A, aws_secret_access_key="x")


@dataclass
class Hook:
    """What a user's web service does: confirms itself, and activates each certificate that it is told of."""

    url: str
    api: str
    confirmations: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    failures: "queue.Queue[BaseException]" = field(default_factory=queue.Queue)

    def take(self, kind: str | None, body: dict[str, Any]) -> None:
        if kind == "DestinationConfirmation":
            self.confirmations.append(body)
            with urllib.request.urlopen(body["enableUrl"], timeout=5) as response:
                assert response.status == 200
            return
        self.events.append(body)
        client = iot(self.api)
        certificate = client.describe_certificate(certificateId=body["certificateId"])["certificateDescription"]
        with suppress(client.exceptions.ResourceAlreadyExistsException):
            client.create_policy(policyName="devices", policyDocument=ALLOW_ALL)
        client.attach_policy(policyName="devices", target=certificate["certificateArn"])
        client.update_certificate(certificateId=body["certificateId"], newStatus="ACTIVE")


@contextmanager
def hook(api: str) -> Iterator[Hook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            try:
                made.take(self.headers.get("x-amz-rules-engine-message-type"), body)
            except BaseException as exc:
                made.failures.put(exc)
                raise
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Hook(f"http://127.0.0.1:{server.server_port}/jitr", api)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        assert made.failures.empty(), made.failures.get()


async def off(call: Any, **parameters: object) -> Any:
    return await trio.to_thread.run_sync(lambda: call(**parameters))


async def connack(ready: Ready, identity: Any) -> object:
    account = ready.accounts[0]
    async with open_client(account.mqtt_port, identity, account.endpoint) as client:
        return await client.connect(identity.certificate_id[:20])


async def test_jitr_by_way_of_a_rule_with_an_http_action_that_activates() -> None:
    ca, device = shared_ca(), None
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            ready = await nursery.start(partial(serve, CONFIG))
            client = iot(ready.api)
            with hook(ready.api) as service:
                await off(
                    client.register_ca_certificate,
                    caCertificate=certificate_pem(ca.certificate),
                    certificateMode="SNI_ONLY",
                    setAsActive=True,
                    allowAutoRegistration=True,
                )
                await off(
                    client.create_topic_rule,
                    ruleName="activate",
                    topicRulePayload={
                        "sql": "SELECT * FROM '$aws/events/certificates/registered/#' "
                        'WHERE certificateStatus = "PENDING_ACTIVATION"',
                        "actions": [{"http": {"url": service.url}}],
                    },
                )
                while True:
                    listed = await off(client.list_topic_rule_destinations)
                    (summary,) = listed["destinationSummaries"]
                    if summary["status"] == "ENABLED":
                        break
                    assert summary["status"] == "IN_PROGRESS"
                    await trio.sleep(0.01)
                assert summary["httpUrlSummary"] == {"confirmationUrl": service.url}
                assert service.confirmations[0]["arn"] == summary["arn"]

                device = mint(ca, 1)
                assert await connack(ready, device) is None
                while (answer := await connack(ready, device)) is None:  # noqa: ASYNC110 - asked over MQTT
                    await trio.sleep(0.05)

                assert answer == ConnAck()
                assert {event["certificateId"] for event in service.events} == {device.certificate_id}
                history = await trio.to_thread.run_sync(admin, ready, "/history?verdict=rule_executed")
                entries = history["entries"]
                assert entries[0]["detail"].startswith("rule activate on $aws/events/certificates/registered/")
                assert f"POST {service.url}: 200" in entries[0]["detail"]
            nursery.cancel_scope.cancel()


# --- the API alone, through boto3 ---


@pytest.fixture
def client() -> Iterator[Any]:
    with running_api_in_a_thread(make_registry()) as running:
        yield iot(running.api)


def rule(sql: str = "SELECT * FROM 'a/b'", **fields: Any) -> dict[str, Any]:
    return {"sql": sql, "actions": [{"republish": {"roleArn": ROLE, "topic": "out", "qos": 1}}], **fields}


def refused(call: Any, **parameters: Any) -> tuple[str, str, int]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response = caught.value.response
    return response["Error"]["Code"], response["Error"]["Message"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_boto3_gets_back_the_rule_that_it_made(client: Any) -> None:
    headers = [{"key": "x", "value": "${topic()}"}]
    given = rule(
        "SELECT a FROM 'x/+'",
        description="d",
        awsIotSqlVersion="2016-03-23",
        ruleDisabled=True,
        errorAction={"http": {"url": "https://x.example/", "headers": headers, "enableBatching": False}},
    )
    given["actions"].append(
        {"dynamoDBv2": {"roleArn": ROLE, "putItem": {"tableName": "t"}}},
    )
    client.create_topic_rule(ruleName="r_1", topicRulePayload=given, tags="k1=v+1&k2=%C3%A9")

    got = client.get_topic_rule(ruleName="r_1")

    arn = f"arn:aws:iot:{REGION}:{A}:rule/r_1"
    made = got["rule"].pop("createdAt")
    assert made.tzinfo is not None
    assert got["ruleArn"] == arn
    assert got["rule"] == {"ruleName": "r_1", **given}
    tags = client.list_tags_for_resource(resourceArn=arn)["tags"]
    assert tags == [{"Key": "k1", "Value": "v 1"}, {"Key": "k2", "Value": "é"}]
    assert client.list_topic_rules()["rules"] == [
        {"ruleArn": arn, "ruleName": "r_1", "topicPattern": "x/+", "createdAt": made, "ruleDisabled": True}
    ]


def test_boto3_replaces_enables_disables_and_deletes(client: Any) -> None:
    client.create_topic_rule(ruleName="r", topicRulePayload=rule())

    client.disable_topic_rule(ruleName="r")
    assert client.get_topic_rule(ruleName="r")["rule"]["ruleDisabled"] is True
    client.enable_topic_rule(ruleName="r")
    assert client.get_topic_rule(ruleName="r")["rule"]["ruleDisabled"] is False
    client.replace_topic_rule(ruleName="r", topicRulePayload=rule("SELECT * FROM 'c'"))
    assert client.get_topic_rule(ruleName="r")["rule"]["sql"] == "SELECT * FROM 'c'"
    client.delete_topic_rule(ruleName="r")

    assert client.list_topic_rules()["rules"] == []
    assert refused(client.get_topic_rule, ruleName="r") == (
        "UnauthorizedException",
        "Access to topic rule 'r' was denied",
        401,
    )


def test_boto3_pages_and_filters_rules(client: Any) -> None:
    for number in range(7):
        sql = f"SELECT * FROM 'a/{number}'"
        client.create_topic_rule(ruleName=f"r{number}", topicRulePayload=rule(sql, ruleDisabled=number % 2 == 0))

    pages = list(client.get_paginator("list_topic_rules").paginate(PaginationConfig={"PageSize": 3}))
    assert [[each["ruleName"] for each in page["rules"]] for page in pages] == [
        ["r0", "r1", "r2"],
        ["r3", "r4", "r5"],
        ["r6"],
    ]
    assert [each["ruleName"] for each in client.list_topic_rules(ruleDisabled=False)["rules"]] == ["r1", "r3", "r5"]
    assert [each["ruleName"] for each in client.list_topic_rules(topic="a/4")["rules"]] == ["r4"]


def test_the_filter_by_topic_can_be_told_to_match() -> None:
    for choice, expected in (("equal", []), ("match", ["wild"])):
        registry = make_registry(settings=ControlSettings(rule_list_topic=choice))  # type: ignore[arg-type]
        with running_api_in_a_thread(registry) as running:
            client = iot(running.api)
            client.create_topic_rule(ruleName="wild", topicRulePayload=rule("SELECT * FROM 'a/+'"))
            client.create_topic_rule(ruleName="none", topicRulePayload=rule("SELECT *"))
            assert [each["ruleName"] for each in client.list_topic_rules(topic="a/4")["rules"]] == expected


@pytest.mark.parametrize(
    ("name", "payload", "code", "message"),
    [
        ("r", rule("SELECT FROM 'a'"), "SqlParseException", "SQL parse error: found FROM, expected an expression"),
        ("r-1", rule(), "InvalidRequestException", "failed to satisfy constraint"),
        ("r", {"sql": "SELECT * FROM 'a'", "actions": [{}]}, "InvalidRequestException", "exactly one type"),
        ("r", {**rule(), "actions": rule()["actions"] * 11}, "InvalidRequestException", "less than or equal to 10"),
    ],
)
def test_boto3_is_told_what_can_be_no_rule(
    client: Any, name: str, payload: dict[str, Any], code: str, message: str
) -> None:
    got = refused(client.create_topic_rule, ruleName=name, topicRulePayload=payload)

    assert (got[0], got[2]) == (code, 400)
    assert message in got[1]


def test_boto3_confirms_a_destination_and_enables_it(client: Any) -> None:
    url = "https://x.example/hook"
    configuration = {"httpUrlConfiguration": {"confirmationUrl": url}}

    made = client.create_topic_rule_destination(destinationConfiguration=configuration)["topicRuleDestination"]

    assert made["status"] == "IN_PROGRESS"
    assert made["httpUrlProperties"] == {"confirmationUrl": url}
    arn = made["arn"]
    assert client.get_topic_rule_destination(arn=arn)["topicRuleDestination"] == made
    assert refused(client.confirm_topic_rule_destination, confirmationToken="bm9ib2R5cw==")[0] == (
        "InvalidRequestException"
    )
    assert refused(client.update_topic_rule_destination, arn=arn, status="ENABLED")[::2] == (
        "ConflictingResourceUpdateException",
        409,
    )
    client.delete_topic_rule_destination(arn=arn)
    assert refused(client.get_topic_rule_destination, arn=arn)[::2] == ("UnauthorizedException", 401)
    vpc = {"vpcConfiguration": {"subnetIds": ["s"], "vpcId": "v", "roleArn": ROLE}}
    assert refused(client.create_topic_rule_destination, destinationConfiguration=vpc)[2] == 501


def test_a_token_confirms_by_call_and_by_browsing() -> None:
    registry = make_registry()
    account = registry.partition(A, REGION)
    called = registry.rule_destinations.create(account, "https://x.example/1")
    browsed = registry.rule_destinations.create(account, "https://x.example/2")
    elsewhere = registry.rule_destinations.create(registry.partition(A, "eu-west-1"), "https://x.example/3")

    with running_api_in_a_thread(registry) as running:
        client = iot(running.api)
        client.confirm_topic_rule_destination(confirmationToken=called.token)
        assert refused(client.confirm_topic_rule_destination, confirmationToken=elsewhere.token)[2] == 400
        for token in (browsed.token, elsewhere.token):
            with urllib.request.urlopen(f"{running.api}/confirmdestination/{token}", timeout=5) as response:
                assert response.status == 200
        for path in ("/confirmdestination/bm9ib2R5cw==", f"/rules/{called.token}"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(running.api + path, timeout=5)

        client.update_topic_rule_destination(arn=called.arn, status="ENABLED")

    get = registry.rule_destinations.get
    assert [get(account, each.arn).status for each in (called, browsed)] == ["ENABLED", "ENABLED"]
    assert get(registry.partition(A, "eu-west-1"), elsewhere.arn).status == "ENABLED"
