"""RegisterThing as boto3 sees it: what it answers, and AWS's exceptions on the wire."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.control_support import REGION, A, TestCA, make_key, make_registry, pem, running_api_in_a_thread

POLICY = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]})


def csr(common_name: str = "device") -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(make_key(common_name), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.fixture(scope="module")
def iot() -> Iterator[Any]:
    with running_api_in_a_thread(make_registry()) as running:
        client = boto3.Session().client(
            "iot",
            endpoint_url=running.api,
            region_name=REGION,
            aws_access_key_id=A,
            aws_secret_access_key="secret",
            config=Config(retries={"total_max_attempts": 1}, read_timeout=10, connect_timeout=5),
        )
        yield client
        client.close()


def body(certificate: dict[str, object], **overrides: str) -> str:
    """The guide's "template example for bulk registration", with a policy of its own."""
    return json.dumps(
        {
            "Parameters": {
                "ThingName": {"Type": "String"},
                "SerialNumber": {"Type": "String"},
                "Location": {"Type": "String", "Default": "WA"},
                "CSR": {"Type": "String"},
            },
            "Resources": {
                "thing": {
                    "Type": "AWS::IoT::Thing",
                    "Properties": {
                        "ThingName": {"Ref": "ThingName"},
                        "AttributePayload": {"version": "v1", "serialNumber": {"Ref": "SerialNumber"}},
                        "ThingTypeName": "lightBulb-versionA",
                        "ThingGroups": ["v1-lightbulbs", {"Ref": "Location"}],
                    },
                    "OverrideSettings": overrides,
                },
                "certificate": {"Type": "AWS::IoT::Certificate", "Properties": certificate},
                "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": POLICY}},
            },
        }
    )


@pytest.fixture(scope="module")
def prepared(iot: Any) -> Any:
    iot.create_thing_type(thingTypeName="lightBulb-versionA")
    for group in ("v1-lightbulbs", "WA"):
        iot.create_thing_group(thingGroupName=group)
    return iot


def test_the_guide_s_template_with_a_csr(prepared: Any) -> None:
    parameters = {"ThingName": "bulb", "SerialNumber": "123", "CSR": csr("bulb")}
    answer = prepared.register_thing(
        templateBody=body({"CertificateSigningRequest": {"Ref": "CSR"}, "Status": "ACTIVE"}), parameters=parameters
    )

    assert set(answer["resourceArns"]) == {"thing", "certificate", "policy"}
    certificate_id = answer["resourceArns"]["certificate"].rpartition("/")[2]
    described = prepared.describe_certificate(certificateId=certificate_id)["certificateDescription"]
    assert described["certificatePem"] == answer["certificatePem"]
    assert described["status"] == "ACTIVE"
    thing = prepared.describe_thing(thingName="bulb")
    assert thing["thingArn"] == answer["resourceArns"]["thing"]
    assert thing["attributes"] == {"version": "v1", "serialNumber": "123"}
    groups = prepared.list_thing_groups_for_thing(thingName="bulb")["thingGroups"]
    assert {each["groupName"] for each in groups} == {"v1-lightbulbs", "WA"}
    policies = prepared.list_attached_policies(target=answer["resourceArns"]["certificate"])["policies"]
    assert [each["policyArn"] for each in policies] == [answer["resourceArns"]["policy"]]
    principals = prepared.list_thing_principals(thingName="bulb")["principals"]
    assert principals == [answer["resourceArns"]["certificate"]]


def test_by_pem_under_a_registered_ca(prepared: Any) -> None:
    ca = TestCA()
    prepared.register_ca_certificate(caCertificate=ca.pem, certificateMode="SNI_ONLY", setAsActive=True)
    leaf = pem(ca.leaf("by pem", key=make_key("by pem")))
    answer = prepared.register_thing(
        templateBody=body({"CertificatePem": leaf, "CACertificatePem": ca.pem}),
        parameters={"ThingName": "pem", "SerialNumber": "4"},
    )

    certificate_id = answer["resourceArns"]["certificate"].rpartition("/")[2]
    described = prepared.describe_certificate(certificateId=certificate_id)["certificateDescription"]
    assert (described["status"], described["certificateMode"]) == ("ACTIVE", "SNI_ONLY")
    assert "caCertificateId" in described


@pytest.mark.parametrize(
    ("template_body", "parameters", "code", "status", "message"),
    [
        ("{", {}, "InvalidRequestException", 400, "Invalid registration template. Template format error"),
        (
            body({"CertificateId": {"Ref": "CSR"}}),
            {"ThingName": "x", "SerialNumber": "1"},
            "InvalidRequestException",
            400,
            "Invalid registration template. Cannot resolve reference value: {Ref=CSR}",
        ),
        (
            body({"CertificateId": "0" * 64}),
            {"ThingName": "x", "SerialNumber": "1"},
            "ResourceRegistrationFailureException",
            400,
            "does not exist",
        ),
        (
            body({"CertificateSigningRequest": {"Ref": "CSR"}}),
            {"ThingName": "bulb", "SerialNumber": "another", "CSR": csr()},
            "ResourceRegistrationFailureException",
            400,
            "ResourceConflictsException",
        ),
    ],
)
def test_refusals(
    prepared: Any, template_body: str, parameters: dict[str, str], code: str, status: int, message: str
) -> None:
    if not any(each["thingName"] == "bulb" for each in prepared.list_things()["things"]):
        prepared.create_thing(thingName="bulb", thingTypeName="lightBulb-versionA")
    before = len(prepared.list_certificates(pageSize=250)["certificates"])
    with pytest.raises(ClientError) as caught:
        prepared.register_thing(templateBody=template_body, parameters=parameters)

    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert message in caught.value.response["Error"]["Message"]
    assert len(prepared.list_certificates(pageSize=250)["certificates"]) == before
