"""Whatever is asked of the control plane in a valid way is answered or refused: nothing that the model allows makes a
handler fail, and every answer is one that botocore reads.

Calls in random order, with names that exist as often as not, on an account that has some of everything.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from botocore.model import OperationModel, Shape
from botocore.parsers import create_parser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devicesim.emulator.httpmessage import HTTPResponse
from devicesim.emulator.operations import table
from devicesim.emulator.state.partition import Partition
from devicesim.pki.identity import certificate_pem
from tests.emulator_support import ALLOW_ALL, ROLE, A, World, device, shared_ca, template
from tests.property.test_control_protocol import REST, STS, blob_payload, prepared, values

ARN = "arn:aws:iot:us-east-1:111111111111:"
CERTIFICATES = [device(index).certificate_id for index in range(3)]
"""The last is not registered."""
NAMES = ["n0", "n1", "absent"]
DOCUMENTS = [ALLOW_ALL, ALLOW_ALL.replace("Allow", "Deny"), "{}", '{"Version":"2012-10-17","Statement":[]}']
ARNS = [
    *(f"{ARN}cert/{each}" for each in CERTIFICATES),
    *(f"{ARN}{kind}/{name}" for kind in ("thinggroup", "billinggroup", "policy", "thingtype") for name in NAMES),
    "us-east-1:01234567-89ab-cdef-0123-456789abcdef",
    "arn:aws:iot:eu-west-1:222222222222:thing/n0",
]
PEMS = [
    *(certificate_pem(device(index).certificate) for index in range(3)),
    certificate_pem(shared_ca().certificate),
    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
]
LIKELY: Mapping[str, list[Any]] = {
    **dict.fromkeys(
        (
            "thingName",
            "thingTypeName",
            "thingGroupName",
            "parentGroupName",
            "parentGroup",
            "billingGroupName",
            "policyName",
            "templateName",
            "ruleName",
            "roleAlias",
            "domainConfigurationName",
        ),
        NAMES,
    ),
    **{key: [*CERTIFICATES, "0" * 64] for key in ("certificateId", "caCertificateId")},
    **dict.fromkeys(("principal", "target", "resourceArn", "thingArn", "thingGroupArn", "billingGroupArn"), ARNS),
    **dict.fromkeys(("certificatePem", "caCertificate", "caCertificatePem", "verificationCertificate"), PEMS),
    "policyDocument": DOCUMENTS,
    "templateBody": [template(), "{}"],
    **{key: [ROLE] for key in ("roleArn", "provisioningRoleArn")},
    "policyVersionId": ["1", "2", "9"],
    "versionId": [1, 2, 9],
    "thingGroupsToAdd": [["n0"], ["n0", "n1"]],
    "thingGroupsToRemove": [["n1"], []],
    "sql": ["SELECT * FROM 'a/#'", "SELECT topic(1) AS t FROM '#' WHERE a > 1", "SELECT"],
    "topic": ["a/b", "$aws/things/n0/shadow/update"],
    "payload": [b"", b"{}", b'{"state":{"desired":{"a":1}}}', b'{"state":null,"version":1}', b"["],
    "shadowName": ["s", "S2"],
    "expectedVersion": [1, 2],
    "authInfos": [[{"actionType": "CONNECT", "resources": [f"{ARN}client/n0"]}]],
    "endpointType": ["iot:Data-ATS", "iot:CredentialProvider"],
    "newStatus": ["ACTIVE", "INACTIVE", "REVOKED"],
    "clientId": ["n0", "absent"],
    **{key: ["", "x", "W10="] for key in ("nextToken", "marker")},
}


@cache
def likely(shape: Shape) -> st.SearchStrategy[Any]:
    """What the model allows, with names that may exist where one is asked for."""
    if shape.type_name == "structure":
        members = {name: member_values(name, member) for name, member in shape.members.items()}
        required = {name: members[name] for name in shape.required_members}
        return st.fixed_dictionaries(required, optional={k: v for k, v in members.items() if k not in required})
    if shape.type_name == "list":
        least = shape.metadata.get("min", 0)
        return st.lists(likely(shape.member), min_size=least, max_size=min(least + 2, shape.metadata.get("max", 9)))
    return values(shape)


def member_values(name: str, member: Shape) -> st.SearchStrategy[Any]:
    if name in LIKELY:
        return st.sampled_from(LIKELY[name]) | likely(member)
    return likely(member)


OPERATIONS = [
    *(("iot", name) for name in sorted(table.IOT)),
    *(("iot-data", name) for name in REST["iot-data"].service.operation_names),
    *(("sts", name) for name in sorted(table.STS)),
]


def operation_of(service: str, name: str) -> OperationModel:
    return (STS if service == "sts" else REST[service]).service.operation_model(name)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    service, name = draw(st.sampled_from(OPERATIONS))
    shape = operation_of(service, name).input_shape
    return service, name, draw(likely(shape)) if shape is not None else {}


def furnished() -> tuple[World, Partition]:
    world = World()
    account = world.ready_account(0, 1)
    registry = world.registry
    for name in NAMES[:2]:
        registry.thing_types.create(account, name)
        registry.thing_groups.create(account, name)
        registry.billing_groups.create(account, name)
        registry.policies.create(account, name, ALLOW_ALL)
        registry.things.create(account, name, thing_type_name=name, billing_group_name=name)
        registry.thing_groups.add_thing(account, name, name)
        registry.policies.attach(account, name, account.arn("thinggroup", name))
        registry.things.attach_principal(account, name, account.certificate_arn(CERTIFICATES[0]))
    for event_type in ("THING", "THING_GROUP", "THING_TYPE", "THING_GROUP_MEMBERSHIP", "THING_TYPE_ASSOCIATION"):
        account.event_configurations[event_type] = True
    world.client(0, account.endpoint).connected("n0").subscribe("$aws/things/n0/shadow/#", "a/#")
    for service, name, parameters in FURNITURE:
        answer = ask(world, service, name, parameters)
        assert answer.status == 200, (name, answer.body)
    return world, account


FURNITURE: list[tuple[str, str, dict[str, Any]]] = [
    ("iot", "CreateTopicRule", {"ruleName": "n0", "topicRulePayload": {"sql": "SELECT * FROM 'a/#'", "actions": []}}),
    ("iot", "CreateRoleAlias", {"roleAlias": "n0", "roleArn": ROLE}),
    (
        "iot",
        "CreateProvisioningTemplate",
        {"templateName": "n0", "templateBody": template(), "provisioningRoleArn": ROLE, "enabled": True},
    ),
    ("iot", "CreatePolicyVersion", {"policyName": "n0", "policyDocument": ALLOW_ALL}),
    ("iot", "GetRegistrationCode", {}),
    ("iot", "UpdateCertificate", {"certificateId": CERTIFICATES[1], "newStatus": "INACTIVE"}),
    ("iot-data", "UpdateThingShadow", {"thingName": "n0", "payload": b'{"state":{"desired":{"a":1}}}'}),
    ("iot-data", "Publish", {"topic": "a/b", "payload": b"x", "retain": True}),
]


def ask(world: World, service: str, name: str, parameters: dict[str, Any]) -> HTTPResponse:
    request = prepared("query" if service == "sts" else "rest-json", operation_of(service, name), parameters)
    scope = f"{A}/20260601/us-east-1/{SIGNED.get(service, service)}/aws4_request"
    signed = {**request.headers, "authorization": f"AWS4-HMAC-SHA256 Credential={scope}, x=y"}
    return world.core.control_plane().handle(replace(request, headers=signed), "request-1")


SIGNED = {"iot-data": "iotdata"}
"""Services that are signed for under another name."""


def check_answer(service: str, name: str, response: HTTPResponse) -> None:
    assert response.status < 500 or response.status == 501, response.body
    shape = operation_of(service, name).output_shape
    if response.status == 200 and blob_payload(shape) is not None:
        return  # a stream, which botocore hands on as it is
    parser = create_parser("query" if service == "sts" else "rest-json")
    parsed = parser.parse(
        {"status_code": response.status, "headers": dict(response.headers), "body": response.body}, shape
    )
    if response.status != 200:
        assert parsed["Error"]["Code"]
        assert parsed["Error"]["Message"] is not None


def check_indexes(account: Partition) -> None:
    """Both directions of every attachment say the same, and nothing is attached that is not there."""
    for forth, back in (
        (account.policies_of_target, account.targets_of_policy),
        (account.things_of_principal, account.principals_of_thing),
        (account.groups_of_thing, account.things_of_group),
    ):
        pairs = {(key, each) for key, members in forth.items() for each in members}
        assert pairs == {(each, key) for key, members in back.items() for each in members}
    assert set(account.targets_of_policy) <= set(account.policies)
    assert set(account.principals_of_thing) | set(account.groups_of_thing) <= set(account.things)
    assert set(account.things_of_group) <= set(account.thing_groups)
    things = account.things.values()
    types = {(thing.thing_type_name, thing.name) for thing in things if thing.thing_type_name is not None}
    billing = {(thing.billing_group_name, thing.name) for thing in things if thing.billing_group_name is not None}
    assert types == {(name, thing) for name, held in account.things_of_type.items() for thing in held}
    assert billing == {(name, thing) for name, held in account.things_of_billing_group.items() for thing in held}


@given(sequence=st.lists(calls(), min_size=1, max_size=6))
@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
def test_valid_calls_are_answered_or_refused(sequence: list[tuple[str, str, dict[str, Any]]]) -> None:
    world, account = furnished()
    for service, name, parameters in sequence:
        check_answer(service, name, ask(world, service, name, parameters))
        world.advance(0.1)
    check_indexes(account)
