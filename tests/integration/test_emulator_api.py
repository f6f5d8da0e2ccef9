"""The control plane through boto3, over real sockets: what a user's own program sees."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.control_support import NOW, REGION, A, B, Clock, TestCA, make_registry, pem, running_api_in_a_thread

POLICY = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]})
OTHER_POLICY = POLICY.replace("iot:*", "iot:Connect")
ROLE = "arn:aws:iam::111111111111:role/JITP"


class Cloud:
    """boto3 clients of a running control plane, one for each account, Region and service."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._clients: dict[tuple[str, str, str], BaseClient] = {}

    def client(self, account: str, region: str = REGION, service: str = "iot") -> Any:
        key = (account, region, service)
        if key not in self._clients:
            self._clients[key] = session().client(
                service,
                endpoint_url=self._url,
                region_name=region,
                aws_access_key_id=account,
                aws_secret_access_key="secret",
                config=Config(retries={"total_max_attempts": 1}, read_timeout=10, connect_timeout=5),
            )
        return self._clients[key]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


@cache
def session() -> boto3.Session:
    return boto3.Session()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cloud(clock: Clock) -> Iterator[Cloud]:
    with running_api_in_a_thread(make_registry(clock)) as running:
        clients = Cloud(running.api)
        yield clients
        clients.close()


@pytest.fixture
def a(cloud: Cloud) -> Any:
    return cloud.client(A)


@pytest.fixture
def b(cloud: Cloud) -> Any:
    return cloud.client(B)


def register_ca(client: Any, mode: str = "SNI_ONLY", ca: TestCA | None = None, **more: Any) -> str:
    ca = ca or TestCA()
    if mode == "DEFAULT":
        more["verificationCertificate"] = ca.verification(client.get_registration_code()["registrationCode"])
    answer = client.register_ca_certificate(caCertificate=ca.pem, certificateMode=mode, **more)
    return str(answer["certificateId"])


def refused(client: Any, operation: str, **parameters: Any) -> dict[str, Any]:
    """The error that boto3 raises, as the class that the model names, and what it carries."""
    with pytest.raises(ClientError) as caught:
        getattr(client, operation)(**parameters)
    response = caught.value.response
    modelled = getattr(client.exceptions, response["Error"]["Code"], ClientError)
    assert isinstance(caught.value, modelled)
    return {
        "code": response["Error"]["Code"],
        "status": response["ResponseMetadata"]["HTTPStatusCode"],
        "message": response["Error"]["Message"],
        **{name: response[name] for name in ("resourceId", "resourceArn") if name in response},
    }


def pages(client: Any, operation: str, result: str, **parameters: Any) -> list[Any]:
    """Everything an operation lists, three at a time, through boto3's own paginator."""
    paginator = client.get_paginator(operation)
    config = {"PageSize": 3}
    found = [page[result] for page in paginator.paginate(PaginationConfig=config, **parameters)]
    assert all(len(page) <= 3 for page in found)
    return [item for page in found for item in page]


def test_ca_from_registration_to_deletion(a: Any, clock: Clock) -> None:
    ca_id = register_ca(a, "DEFAULT", setAsActive=True, allowAutoRegistration=True, tags=[{"Key": "k", "Value": "v"}])
    clock.advance(1.5)
    first = a.describe_ca_certificate(certificateId=ca_id)
    a.update_ca_certificate(certificateId=ca_id, newStatus="INACTIVE", newAutoRegistrationStatus="DISABLE")
    second = a.describe_ca_certificate(certificateId=ca_id)["certificateDescription"]
    listed = a.list_ca_certificates()["certificates"]
    a.delete_ca_certificate(certificateId=ca_id)

    arn = f"arn:aws:iot:{REGION}:{A}:cacert/{ca_id}"
    assert first["certificateDescription"] == {
        "certificateArn": arn,
        "certificateId": ca_id,
        "status": "ACTIVE",
        "certificatePem": TestCA().pem,
        "ownedBy": A,
        "creationDate": NOW,
        "autoRegistrationStatus": "ENABLE",
        "lastModifiedDate": NOW,
        "customerVersion": 1,
        "generationId": first["certificateDescription"]["generationId"],
        "validity": {
            "notBefore": TestCA().certificate.not_valid_before_utc,
            "notAfter": TestCA().certificate.not_valid_after_utc,
        },
        "certificateMode": "DEFAULT",
    }
    assert "registrationConfig" not in first
    assert (second["status"], second["autoRegistrationStatus"]) == ("INACTIVE", "DISABLE")
    assert (second["customerVersion"], second["lastModifiedDate"].timestamp()) == (2, NOW.timestamp() + 1.5)
    assert listed == [{"certificateArn": arn, "certificateId": ca_id, "status": "INACTIVE", "creationDate": NOW}]
    assert a.list_ca_certificates()["certificates"] == []
    assert refused(a, "describe_ca_certificate", certificateId=ca_id)["code"] == "ResourceNotFoundException"


def test_ca_registration_is_refused_as_the_model_names_it(a: Any, b: Any) -> None:
    ca_id = register_ca(a, "DEFAULT", setAsActive=True)
    code = b.get_registration_code()["registrationCode"]
    verification = TestCA().verification(code)

    second_default = refused(
        b, "register_ca_certificate", caCertificate=TestCA().pem, verificationCertificate=verification
    )
    again = refused(a, "register_ca_certificate", caCertificate=TestCA().pem, certificateMode="SNI_ONLY")
    no_verification = refused(b, "register_ca_certificate", caCertificate=TestCA().pem)
    no_pem = refused(b, "register_ca_certificate", caCertificate="x", certificateMode="SNI_ONLY")
    active = refused(a, "delete_ca_certificate", certificateId=ca_id)

    assert (second_default["code"], second_default["status"]) == ("ResourceAlreadyExistsException", 409)
    assert (again["resourceId"], again["resourceArn"]) == (ca_id, f"arn:aws:iot:{REGION}:{A}:cacert/{ca_id}")
    assert (no_verification["code"], no_verification["status"]) == ("InvalidRequestException", 400)
    assert (no_pem["code"], no_pem["status"]) == ("CertificateValidationException", 400)
    assert (active["code"], active["status"]) == ("CertificateStateException", 406)


def test_registration_code_is_of_the_account_and_region(cloud: Cloud, a: Any) -> None:
    code = a.get_registration_code()["registrationCode"]

    assert a.get_registration_code()["registrationCode"] == code
    assert cloud.client(B).get_registration_code()["registrationCode"] != code
    assert cloud.client(A, "eu-west-1").get_registration_code()["registrationCode"] != code
    a.delete_registration_code()
    assert refused(a, "delete_registration_code")["code"] == "ResourceNotFoundException"
    assert a.get_registration_code()["registrationCode"] != code


def test_registration_config_is_answered_and_followed(a: Any) -> None:
    a.create_provisioning_template(
        templateName="fleet", templateBody="{}", provisioningRoleArn=ROLE, type="JITP", enabled=True
    )
    ca_id = register_ca(a, registrationConfig={"templateBody": "{}", "roleArn": ROLE})
    own = a.describe_ca_certificate(certificateId=ca_id)["registrationConfig"]
    a.update_ca_certificate(certificateId=ca_id, registrationConfig={"templateName": "fleet"})
    named = a.describe_ca_certificate(certificateId=ca_id)["registrationConfig"]
    used_by = [each["certificateId"] for each in a.list_ca_certificates(templateName="fleet")["certificates"]]
    in_use = refused(a, "delete_provisioning_template", templateName="fleet")
    a.update_ca_certificate(certificateId=ca_id, removeAutoRegistration=True)
    a.delete_provisioning_template(templateName="fleet")

    assert own == {"templateBody": "{}", "roleArn": ROLE}
    assert named == {"templateName": "fleet"}
    assert used_by == [ca_id]
    assert (in_use["code"], in_use["status"]) == ("DeleteConflictException", 409)
    assert "registrationConfig" not in a.describe_ca_certificate(certificateId=ca_id)


def test_device_certificate_from_registration_to_deletion(a: Any, clock: Clock) -> None:
    ca_id = register_ca(a, "DEFAULT", setAsActive=True)
    leaf = TestCA().leaf()
    leaf_id = a.register_certificate(certificatePem=pem(leaf), caCertificatePem=TestCA().pem, status="ACTIVE")[
        "certificateId"
    ]
    described = a.describe_certificate(certificateId=leaf_id)["certificateDescription"]
    again = refused(a, "register_certificate", certificatePem=pem(leaf))
    active = refused(a, "delete_certificate", certificateId=leaf_id)
    a.update_certificate(certificateId=leaf_id, newStatus="INACTIVE")
    pending = refused(a, "update_certificate", certificateId=leaf_id, newStatus="PENDING_ACTIVATION")
    by_ca = a.list_certificates_by_ca(caCertificateId=ca_id)["certificates"]
    a.delete_certificate(certificateId=leaf_id)

    arn = f"arn:aws:iot:{REGION}:{A}:cert/{leaf_id}"
    assert described == {
        "certificateArn": arn,
        "certificateId": leaf_id,
        "caCertificateId": ca_id,
        "status": "ACTIVE",
        "certificatePem": pem(leaf),
        "ownedBy": A,
        "creationDate": NOW,
        "lastModifiedDate": NOW,
        "customerVersion": 1,
        "transferData": {},
        "generationId": described["generationId"],
        "validity": {"notBefore": leaf.not_valid_before_utc, "notAfter": leaf.not_valid_after_utc},
        "certificateMode": "DEFAULT",
    }
    assert (again["code"], again["resourceArn"]) == ("ResourceAlreadyExistsException", arn)
    assert (active["code"], active["status"]) == ("CertificateStateException", 406)
    assert pending["code"] == "CertificateStateException"
    assert by_ca == [
        {
            "certificateArn": arn,
            "certificateId": leaf_id,
            "status": "INACTIVE",
            "certificateMode": "DEFAULT",
            "creationDate": NOW,
        }
    ]
    assert a.list_certificates()["certificates"] == []
    assert a.list_certificates_by_ca(caCertificateId=ca_id)["certificates"] == []


def test_certificate_without_ca_is_sni_only_in_both_accounts(a: Any, b: Any) -> None:
    leaf = pem(TestCA().leaf())

    ids = {client.register_certificate_without_ca(certificatePem=leaf)["certificateId"] for client in (a, b)}
    leaf_id = ids.pop()
    described = a.describe_certificate(certificateId=leaf_id)["certificateDescription"]

    assert ids == set()
    assert (described["certificateMode"], described["status"]) == ("SNI_ONLY", "INACTIVE")
    assert "caCertificateId" not in described
    pending = refused(b, "register_certificate_without_ca", certificatePem=leaf, status="PENDING_ACTIVATION")
    assert (pending["code"], pending["status"]) == ("CertificateStateException", 406)


def test_set_as_active_is_the_older_form_of_status(a: Any) -> None:
    register_ca(a, setAsActive=True)
    leaf_id = a.register_certificate(certificatePem=pem(TestCA().leaf()), setAsActive=True)["certificateId"]

    assert a.describe_certificate(certificateId=leaf_id)["certificateDescription"]["status"] == "ACTIVE"


def test_provisioning_template_and_its_versions(a: Any) -> None:
    created = a.create_provisioning_template(
        templateName="fleet", templateBody="{}", provisioningRoleArn=ROLE, description="robots", type="JITP"
    )
    a.update_provisioning_template(templateName="fleet", enabled=True, description="more robots")
    version = a.create_provisioning_template_version(templateName="fleet", templateBody="{2}", setAsDefault=True)
    described = a.describe_provisioning_template(templateName="fleet")
    versions = pages(a, "list_provisioning_template_versions", "versions", templateName="fleet")
    first = a.describe_provisioning_template_version(templateName="fleet", versionId=1)
    a.delete_provisioning_template_version(templateName="fleet", versionId=1)
    listed = a.list_provisioning_templates()["templates"]
    a.delete_provisioning_template(templateName="fleet")

    arn = f"arn:aws:iot:{REGION}:{A}:provisioningtemplate/fleet"
    assert {key: created[key] for key in ("templateArn", "templateName", "defaultVersionId")} == {
        "templateArn": arn,
        "templateName": "fleet",
        "defaultVersionId": 1,
    }
    assert (version["versionId"], version["isDefaultVersion"], version["templateArn"]) == (2, True, arn)
    assert {key: value for key, value in described.items() if key != "ResponseMetadata"} == {
        "templateArn": arn,
        "templateName": "fleet",
        "description": "more robots",
        "creationDate": NOW,
        "lastModifiedDate": NOW,
        "defaultVersionId": 2,
        "templateBody": "{2}",
        "enabled": True,
        "provisioningRoleArn": ROLE,
        "type": "JITP",
    }
    assert [(each["versionId"], each["isDefaultVersion"]) for each in versions] == [(1, False), (2, True)]
    assert (first["templateBody"], first["isDefaultVersion"]) == ("{}", False)
    assert [(each["templateName"], each["type"], each["enabled"]) for each in listed] == [("fleet", "JITP", True)]
    assert refused(a, "describe_provisioning_template", templateName="fleet")["status"] == 404


def test_policy_and_its_versions(a: Any) -> None:
    created = a.create_policy(policyName="allow", policyDocument=POLICY)
    second = a.create_policy_version(policyName="allow", policyDocument=OTHER_POLICY)
    before = a.get_policy(policyName="allow")
    a.set_default_policy_version(policyName="allow", policyVersionId="2")
    after = a.get_policy(policyName="allow")
    versions = a.list_policy_versions(policyName="allow")["policyVersions"]
    one = a.get_policy_version(policyName="allow", policyVersionId="1")
    default = refused(a, "delete_policy_version", policyName="allow", policyVersionId="2")
    others = refused(a, "delete_policy", policyName="allow")
    a.delete_policy_version(policyName="allow", policyVersionId="1")
    a.delete_policy(policyName="allow")

    assert (created["policyArn"], created["policyVersionId"]) == (f"arn:aws:iot:{REGION}:{A}:policy/allow", "1")
    assert created["policyDocument"] == POLICY
    assert (second["policyVersionId"], second["isDefaultVersion"]) == ("2", False)
    assert (before["policyDocument"], before["defaultVersionId"]) == (POLICY, "1")
    assert (after["policyDocument"], after["defaultVersionId"]) == (OTHER_POLICY, "2")
    assert [(each["versionId"], each["isDefaultVersion"]) for each in versions] == [("1", False), ("2", True)]
    assert (one["policyDocument"], one["isDefaultVersion"], one["creationDate"]) == (POLICY, False, NOW)
    assert (default["code"], others["code"]) == ("DeleteConflictException",) * 2
    assert a.list_policies()["policies"] == []


def test_malformed_policy_says_what_is_wrong(a: Any) -> None:
    error = refused(a, "create_policy", policyName="allow", policyDocument='{"Statement": [{"Effect": "Yes"}]}')

    assert (error["code"], error["status"]) == ("MalformedPolicyException", 400)
    assert "Statement[0].Effect is 'Yes', expected Allow or Deny" in error["message"]


def test_policies_are_attached_listed_and_detached(a: Any) -> None:
    leaf_arn = a.register_certificate_without_ca(certificatePem=pem(TestCA().leaf()))["certificateArn"]
    a.create_thing_group(thingGroupName="all")
    group_arn = a.create_thing_group(thingGroupName="robots", parentGroupName="all")["thingGroupArn"]
    root_arn = a.describe_thing_group(thingGroupName="all")["thingGroupArn"]
    for name in ("one", "two"):
        a.create_policy(policyName=name, policyDocument=POLICY)
    a.attach_policy(policyName="one", target=leaf_arn)
    a.attach_policy(policyName="one", target=group_arn)
    a.attach_policy(policyName="two", target=root_arn)

    def names(**parameters: Any) -> list[str]:
        return [each["policyName"] for each in a.list_attached_policies(**parameters)["policies"]]

    assert names(target=leaf_arn) == ["one"]
    assert names(target=group_arn) == ["one"]
    assert names(target=group_arn, recursive=True) == ["one", "two"]
    assert a.list_targets_for_policy(policyName="one")["targets"] == [leaf_arn, group_arn]
    assert refused(a, "delete_policy", policyName="one")["code"] == "DeleteConflictException"
    a.detach_policy(policyName="one", target=leaf_arn)
    assert names(target=leaf_arn) == []
    assert refused(a, "attach_policy", policyName="none", target=leaf_arn)["status"] == 404
    assert refused(a, "list_attached_policies", target="nobody")["status"] == 400


def test_older_principal_operations_do_the_same(a: Any) -> None:
    leaf_arn = a.register_certificate_without_ca(certificatePem=pem(TestCA().leaf()))["certificateArn"]
    group_arn = a.create_thing_group(thingGroupName="robots")["thingGroupArn"]
    a.create_policy(policyName="allow", policyDocument=POLICY)
    a.attach_principal_policy(policyName="allow", principal=leaf_arn)
    a.attach_policy(policyName="allow", target=group_arn)

    assert [each["policyName"] for each in a.list_principal_policies(principal=leaf_arn)["policies"]] == ["allow"]
    assert a.list_policy_principals(policyName="allow")["principals"] == [leaf_arn]
    a.detach_principal_policy(policyName="allow", principal=leaf_arn)
    assert a.list_attached_policies(target=leaf_arn)["policies"] == []
    assert refused(a, "attach_principal_policy", policyName="allow", principal=group_arn)["status"] == 400


def test_thing_from_creation_to_deletion(a: Any) -> None:
    a.create_thing_type(thingTypeName="arm")
    created = a.create_thing(thingName="robot", thingTypeName="arm", attributePayload={"attributes": {"size": "xl"}})
    same = a.create_thing(thingName="robot", thingTypeName="arm", attributePayload={"attributes": {"size": "xl"}})
    other = refused(a, "create_thing", thingName="robot")
    a.update_thing(thingName="robot", attributePayload={"attributes": {"colour": "red"}, "merge": True})
    described = a.describe_thing(thingName="robot")
    conflict = refused(a, "delete_thing", thingName="robot", expectedVersion=1)
    a.delete_thing(thingName="robot", expectedVersion=2)

    assert created["thingId"] == same["thingId"]
    assert (other["code"], other["resourceId"]) == ("ResourceAlreadyExistsException", created["thingId"])
    assert {key: value for key, value in described.items() if key != "ResponseMetadata"} == {
        "defaultClientId": "robot",
        "thingName": "robot",
        "thingId": created["thingId"],
        "thingArn": f"arn:aws:iot:{REGION}:{A}:thing/robot",
        "thingTypeName": "arm",
        "attributes": {"size": "xl", "colour": "red"},
        "version": 2,
    }
    assert (conflict["code"], conflict["status"]) == ("VersionConflictException", 409)
    assert a.list_things()["things"] == []


def test_things_are_listed_by_type_and_attribute(a: Any) -> None:
    a.create_thing_type(thingTypeName="arm")
    a.create_thing(thingName="one", thingTypeName="arm")
    a.create_thing(thingName="two", attributePayload={"attributes": {"size": "xl"}})
    a.create_thing(thingName="three", attributePayload={"attributes": {"size": "xs"}})

    def names(**parameters: Any) -> list[str]:
        return [each["thingName"] for each in a.list_things(**parameters)["things"]]

    assert names() == ["one", "two", "three"]
    assert names(thingTypeName="arm") == ["one"]
    assert names(attributeName="size") == ["two", "three"]
    assert names(attributeName="size", attributeValue="xl") == ["two"]
    assert names(attributeName="size", attributeValue="x", usePrefixAttributeValue=True) == ["two", "three"]
    assert names(attributeName="size", attributeValue="x") == []


def test_principals_of_things(a: Any) -> None:
    leaf_arn = a.register_certificate_without_ca(certificatePem=pem(TestCA().leaf()))["certificateArn"]
    for name in ("one", "two"):
        a.create_thing(thingName=name)
        a.attach_thing_principal(thingName=name, principal=leaf_arn)
    exclusive = refused(
        a, "attach_thing_principal", thingName="one", principal=leaf_arn, thingPrincipalType="EXCLUSIVE_THING"
    )
    attached = refused(a, "delete_thing", thingName="one")
    in_use = refused(a, "delete_certificate", certificateId=leaf_arn.rpartition("/")[2], forceDelete=True)

    assert a.list_thing_principals(thingName="one")["principals"] == [leaf_arn]
    assert a.list_thing_principals_v2(thingName="one")["thingPrincipalObjects"] == [
        {"principal": leaf_arn, "thingPrincipalType": "NON_EXCLUSIVE_THING"}
    ]
    assert (
        a.list_thing_principals_v2(thingName="one", thingPrincipalType="EXCLUSIVE_THING")["thingPrincipalObjects"] == []
    )
    assert a.list_principal_things(principal=leaf_arn)["things"] == ["one", "two"]
    assert [each["thingName"] for each in a.list_principal_things_v2(principal=leaf_arn)["principalThingObjects"]] == [
        "one",
        "two",
    ]
    a.detach_thing_principal(thingName="one", principal=leaf_arn)
    assert a.list_principal_things(principal=leaf_arn)["things"] == ["two"]
    assert (exclusive["code"], attached["code"]) == ("InvalidRequestException",) * 2
    assert in_use["code"] == "DeleteConflictException"


def test_thing_types(a: Any, clock: Clock) -> None:
    properties = {"thingTypeDescription": "an arm", "searchableAttributes": ["size"]}
    a.create_thing_type(thingTypeName="arm", thingTypeProperties=properties)
    a.create_thing_type(thingTypeName="leg")
    a.deprecate_thing_type(thingTypeName="arm")
    described = a.describe_thing_type(thingTypeName="arm")
    too_soon = refused(a, "delete_thing_type", thingTypeName="arm")
    clock.advance(300)
    a.delete_thing_type(thingTypeName="arm")

    assert described["thingTypeProperties"] == properties
    assert described["thingTypeMetadata"] == {"deprecated": True, "deprecationDate": NOW, "creationDate": NOW}
    assert too_soon["code"] == "InvalidRequestException"
    assert [each["thingTypeName"] for each in a.list_thing_types()["thingTypes"]] == ["leg"]
    assert a.list_thing_types(thingTypeName="arm")["thingTypes"] == []


def test_thing_groups(a: Any) -> None:
    a.create_thing_group(thingGroupName="all")
    properties = {"thingGroupDescription": "robots", "attributePayload": {"attributes": {"a": "b"}}}
    created = a.create_thing_group(thingGroupName="robots", parentGroupName="all", thingGroupProperties=properties)
    a.create_thing_group(thingGroupName="arms", parentGroupName="robots")
    thing_arn = a.create_thing(thingName="robot")["thingArn"]
    a.add_thing_to_thing_group(thingGroupName="arms", thingArn=thing_arn)
    described = a.describe_thing_group(thingGroupName="robots")

    def names(**parameters: Any) -> list[str]:
        return [each["groupName"] for each in a.list_thing_groups(**parameters)["thingGroups"]]

    assert described["thingGroupProperties"] == properties
    assert described["thingGroupMetadata"] == {
        "parentGroupName": "all",
        "rootToParentThingGroups": [
            {"groupName": "all", "groupArn": f"arn:aws:iot:{REGION}:{A}:thinggroup/all"},
        ],
        "creationDate": NOW,
    }
    assert names() == ["all", "robots", "arms"]
    assert names(parentGroup="all") == ["robots"]
    assert names(parentGroup="all", recursive=True) == ["robots", "arms"]
    assert names(namePrefixFilter="a") == ["all", "arms"]
    of_thing = a.list_thing_groups_for_thing(thingName="robot")["thingGroups"]
    assert [each["groupName"] for each in of_thing] == ["all", "robots", "arms"]
    assert a.list_things_in_thing_group(thingGroupName="all")["things"] == []
    assert a.list_things_in_thing_group(thingGroupName="all", recursive=True)["things"] == ["robot"]
    assert refused(a, "delete_thing_group", thingGroupName="all")["code"] == "InvalidRequestException"
    assert refused(a, "add_thing_to_thing_group", thingName="robot")["code"] == "InvalidRequestException"
    wrong = refused(
        a, "add_thing_to_thing_group", thingName="robot", thingGroupName="x", thingGroupArn=created["thingGroupArn"]
    )
    assert wrong["code"] == "InvalidRequestException"
    foreign = refused(a, "add_thing_to_thing_group", thingName="robot", thingGroupArn="arn:aws:iot:x:1:thinggroup/all")
    assert foreign["code"] == "ResourceNotFoundException"
    a.remove_thing_from_thing_group(thingGroupArn=f"arn:aws:iot:{REGION}:{A}:thinggroup/arms", thingName="robot")
    a.delete_thing_group(thingGroupName="arms")
    assert names() == ["all", "robots"]


def test_tags(a: Any) -> None:
    arn = a.create_policy(policyName="allow", policyDocument=POLICY, tags=[{"Key": "team", "Value": "lab"}])[
        "policyArn"
    ]
    a.tag_resource(resourceArn=arn, tags=[{"Key": "stage", "Value": "dev"}, {"Key": "bare"}])
    a.untag_resource(resourceArn=arn, tagKeys=["team"])

    assert a.list_tags_for_resource(resourceArn=arn)["tags"] == [
        {"Key": "bare", "Value": ""},
        {"Key": "stage", "Value": "dev"},
    ]
    assert refused(a, "list_tags_for_resource", resourceArn=arn + "x")["status"] == 404


def test_endpoints(cloud: Cloud, a: Any) -> None:
    """aws-iot-behaviour.md §4.3: the older types are refused."""
    data = a.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
    credentials = a.describe_endpoint(endpointType="iot:CredentialProvider")["endpointAddress"]
    elsewhere = cloud.client(A, "eu-west-1").describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]

    assert data == "an3wlb2ite113n-ats.iot.us-east-1.localhost"
    assert credentials == "an3wlb2ite113n.credentials.iot.us-east-1.localhost"
    assert elsewhere == "an3wlb2ite113n-ats.iot.eu-west-1.localhost"
    for parameters in ({}, {"endpointType": "iot:Data"}, {"endpointType": "iot:Jobs"}):
        error = refused(a, "describe_endpoint", **parameters)
        assert (error["code"], error["status"]) == ("InvalidRequestException", 400)
        assert "iot:Data-ATS" in error["message"]


def test_event_configurations_are_kept(a: Any) -> None:
    before = a.describe_event_configurations()
    a.update_event_configurations(eventConfigurations={"CERTIFICATE": {"Enabled": True}})
    after = a.describe_event_configurations()

    assert len(before["eventConfigurations"]) == 11
    assert not any(each["Enabled"] for each in before["eventConfigurations"].values())
    assert [name for name, each in after["eventConfigurations"].items() if each["Enabled"]] == ["CERTIFICATE"]
    assert after["lastModifiedDate"] == NOW


def test_caller_identity(cloud: Cloud) -> None:
    answer = cloud.client(B, service="sts").get_caller_identity()

    assert (answer["Account"], answer["UserId"], answer["Arn"]) == (B, B, f"arn:aws:iam::{B}:root")


def test_accounts_and_regions_share_nothing(cloud: Cloud, a: Any, b: Any) -> None:
    elsewhere = cloud.client(A, "eu-west-1")
    for client in (a, b, elsewhere):
        client.create_policy(policyName="allow", policyDocument=POLICY)
        client.create_thing(thingName="robot")
    a.delete_thing(thingName="robot")
    a.delete_policy(policyName="allow")

    assert [len(client.list_things()["things"]) for client in (a, b, elsewhere)] == [0, 1, 1]
    assert [len(client.list_policies()["policies"]) for client in (a, b, elsewhere)] == [0, 1, 1]


def test_listings_are_paged_newest_first_unless_asked(a: Any, clock: Clock) -> None:
    cas = [register_ca(a, ca=TestCA(subject=f"CA {number}"), setAsActive=True) for number in range(7)]
    leaves = []
    for number in range(7):
        clock.advance(1)
        leaf = TestCA(subject="CA 0").leaf(f"device {number}")
        leaves.append(a.register_certificate(certificatePem=pem(leaf))["certificateId"])
        a.create_policy(policyName=f"policy-{number}", policyDocument=POLICY)
        a.create_thing(thingName=f"thing-{number}")

    def ids(operation: str, **parameters: Any) -> list[str]:
        return [each["certificateId"] for each in pages(a, operation, "certificates", **parameters)]

    assert ids("list_ca_certificates") == cas[::-1]
    assert ids("list_ca_certificates", ascendingOrder=True) == cas
    assert ids("list_certificates") == leaves[::-1]
    assert ids("list_certificates", ascendingOrder=True) == leaves
    assert ids("list_certificates_by_ca", caCertificateId=cas[0]) == leaves[::-1]
    assert ids("list_certificates_by_ca", caCertificateId=cas[1]) == []
    policies = pages(a, "list_policies", "policies", ascendingOrder=True)
    assert [each["policyName"] for each in policies] == [f"policy-{number}" for number in range(7)]
    things = pages(a, "list_things", "things")
    assert [each["thingName"] for each in things] == [f"thing-{number}" for number in range(7)]
    error = refused(a, "list_policies", marker="AAAA")
    assert (error["code"], error["status"]) == ("InvalidRequestException", 400)
