"""The RegisterThing record of CloudTrail: its members, and that the history has one for every run of JITP."""

import json

from devicesim.emulator.trail import RegisterThing
from tests.emulator_support import ROLE, World, device, template

BROKEN = template(parameters=("CommonName", "Country", "Id"), policy={"PolicyName": "nobody"})


def test_a_failing_run_is_told_with_its_parameters_error_and_identity() -> None:
    world = World()
    account = world.account()
    world.register_ca(account, template_body=BROKEN)
    world.client(0, account.endpoint).connect()
    world.advance(2)

    entry = world.last()
    record = json.loads(json.dumps(entry.to_json()))["event"]
    assert (record["eventName"], record["eventSource"]) == ("RegisterThing", "iot.amazonaws.com")
    assert record["errorCode"] == entry.reason == "ResourceRegistrationFailureException"
    assert record["errorMessage"] == entry.detail
    assert record["requestParameters"] == {
        "templateBody": BROKEN,
        "parameters": {
            "AWS::IoT::Certificate::Id": device(0).certificate_id,
            "AWS::IoT::Certificate::CommonName": "robot-000000",
            "AWS::IoT::Certificate::SerialNumber": "SN0000",
            "AWS::IoT::Certificate::Organization": "Example",
            "AWS::IoT::Certificate::OrganizationalUnit": "Robots",
            "AWS::IoT::Certificate::Country": "DE",
            "AWS::IoT::Certificate::StateName": "Bavaria",
            "AWS::IoT::Certificate::DistinguishedNameQualifier": "q0",
        },
    }
    assert record["responseElements"] is None
    assert record["recipientAccountId"] == account.account_id
    assert record["userIdentity"]["sessionContext"]["sessionIssuer"]["arn"] == ROLE
    assert record["userIdentity"]["arn"] == (
        f"arn:aws:sts::{account.account_id}:assumed-role/provisioning/iot-provisioning"
    )
    assert record["eventTime"] == "2026-06-01T00:00:02Z"


def test_a_run_that_succeeds_has_the_arns_and_no_error() -> None:
    world = World()
    account = world.account()
    world.register_ca(account, template_body=template())
    world.client(0, account.endpoint).connect()
    world.advance(2)

    event = world.last().event
    assert event is not None
    record = event.to_json()
    assert "errorCode" not in record
    assert record["responseElements"] == {
        "resourceArns": {
            "certificate": account.certificate_arn(device(0).certificate_id),
            "thing": account.things["robot-000000"].arn,
            "policy": next(iter(account.policies.values())).arn,
        }
    }


def test_no_call_no_record() -> None:
    """The certificate is gone before its run: RegisterThing is never called, and CloudTrail has nothing."""
    world = World()
    account = world.account()
    world.register_ca(account, template_body=template())
    world.client(0, account.endpoint).connect()
    world.registry.certificates.delete(account, device(0).certificate_id)
    world.advance(2)

    assert world.last().verdict == "provisioning_failed"
    assert world.last().event is None
    assert world.last().to_json()["event"] is None


def test_roles_of_other_partitions_and_with_paths() -> None:
    record = RegisterThing(
        account_id="1" * 12,
        region="cn-north-1",
        time=0.0,
        event_id="e",
        request_id="r",
        role_arn="arn:aws-cn:iam::111111111111:role/service-role/iot/Provision",
        template_body="{}",
        parameters={},
    ).to_json()
    identity = record["userIdentity"]

    assert isinstance(identity, dict)
    assert identity["arn"] == "arn:aws-cn:sts::111111111111:assumed-role/Provision/iot-provisioning"
    assert identity["principalId"].endswith(":iot-provisioning")
    assert record["eventTime"] == "1970-01-01T00:00:00Z"
