"""The query protocol: forms of every shape in, and every way a form can be wrong."""

from collections.abc import Callable
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import botocore.session
import pytest

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.awsquery import AWSQuery
from devicesim.emulator.httpmessage import HTTPRequest

FORM = {"content-type": "application/x-www-form-urlencoded"}
ROLE = "arn:aws:iam::111111111111:role/x"


@pytest.fixture(scope="module")
def sts() -> AWSQuery:
    return AWSQuery(botocore.session.get_session().get_service_model("sts"))


def request(**form: str) -> HTTPRequest:
    body = urlencode({name.replace("__", "."): value for name, value in form.items()})
    return HTTPRequest(method="POST", path="/", query="", headers=FORM, body=body.encode())


def parse(sts: AWSQuery, operation: str, **form: str) -> dict[str, object]:
    return sts.parse(sts.service.operation_model(operation), request(**form))


def refused(call: Callable[[], object]) -> APIError:
    with pytest.raises(APIError) as caught:
        call()
    return caught.value


def test_structures_lists_and_numbers(sts: AWSQuery) -> None:
    found = parse(
        sts,
        "AssumeRole",
        RoleArn=ROLE,
        RoleSessionName="me",
        DurationSeconds="900",
        Tags__member__2__Key="b",
        Tags__member__2__Value="2",
        Tags__member__1__Key="a",
        Tags__member__1__Value="1",
        TransitiveTagKeys__member__1="a",
        PolicyArns="",
        Unknown="x",
    )

    assert found == {
        "RoleArn": ROLE,
        "RoleSessionName": "me",
        "DurationSeconds": 900,
        "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}],
        "TransitiveTagKeys": ["a"],
        "PolicyArns": [],
    }


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"DurationSeconds": "soon"}, "DurationSeconds is 'soon', expected an integer"),
        ({"DurationSeconds": "1"}, "'durationSeconds' failed to satisfy constraint: Member must have value greater"),
        ({"Tags__member__x__Key": "a"}, "Tags has the item 'x', expected a number"),
        ({"Tags__member__1__Key": "a"}, "Value null at 'tags.1.member.value'"),
        ({"RoleSessionName": "a b"}, "'roleSessionName' failed to satisfy constraint"),
        ({"RoleSessionName": "ü" * 3}, "regular expression pattern"),
    ],
)
def test_what_can_not_be_read_is_refused(sts: AWSQuery, form: dict[str, str], words: str) -> None:
    error = refused(lambda: parse(sts, "AssumeRole", **({"RoleArn": ROLE, "RoleSessionName": "me"} | form)))

    assert error.code == "ValidationError"
    assert words in error.message


def test_a_list_without_end_is_not_read_to_its_end(sts: AWSQuery) -> None:
    form = {f"TransitiveTagKeys.member.{number}": "k" for number in range(1001)}
    error = refused(lambda: parse(sts, "AssumeRole", **form))

    assert "has 1001 items" in error.message


def test_the_answer_nests(sts: AWSQuery) -> None:
    operation = sts.service.operation_model("AssumeRole")
    expiration = 1_767_225_600.5

    response = sts.serialise(
        operation,
        {
            "Credentials": {
                "AccessKeyId": "A" * 16,
                "SecretAccessKey": "<secret>",
                "SessionToken": "t",
                "Expiration": expiration,
            },
            "PackedPolicySize": 0,
            "SourceIdentity": None,
        },
        "id",
    )

    namespace = {"s": "https://sts.amazonaws.com/doc/2011-06-15/"}
    root = ET.fromstring(response.body)
    result = root.find("s:AssumeRoleResult", namespace)
    assert result is not None
    assert result.findtext("s:Credentials/s:SecretAccessKey", namespaces=namespace) == "<secret>"
    assert result.findtext("s:Credentials/s:Expiration", namespaces=namespace) == "2026-01-01T00:00:00.500Z"
    assert result.findtext("s:PackedPolicySize", namespaces=namespace) == "0"
    assert result.find("s:SourceIdentity", namespace) is None
    assert root.findtext("s:ResponseMetadata/s:RequestId", namespaces=namespace) == "id"


@pytest.mark.parametrize(
    ("code", "told", "status"),
    [
        ("NotImplementedException", "NotImplemented", 501),
        ("RegionDisabledException", "RegionDisabledException", 403),
        ("PackedPolicyTooLargeException", "PackedPolicyTooLarge", 400),
    ],
)
def test_errors_have_the_names_and_statuses_of_the_model(sts: AWSQuery, code: str, told: str, status: int) -> None:
    response = sts.serialise_error(APIError(code, "why"), "id")

    root = ET.fromstring(response.body)
    namespace = {"s": "https://sts.amazonaws.com/doc/2011-06-15/"}
    assert (response.status, root.findtext("s:Error/s:Code", namespaces=namespace)) == (status, told)


@pytest.mark.parametrize("form", [{"Action": "Nothing"}, {}, {"Action": "AssumeRole", "Version": "1999-01-01"}])
def test_there_is_no_such_operation(sts: AWSQuery, form: dict[str, str]) -> None:
    assert refused(lambda: sts.route(request(**form))).code == "InvalidAction"


def test_what_xml_can_not_say_is_told_all_the_same(sts: AWSQuery) -> None:
    error = refused(lambda: parse(sts, "AssumeRole", RoleArn=ROLE, RoleSessionName="a\x00b\x1b"))

    response = sts.serialise_error(error, "id")

    message = ET.fromstring(response.body).findtext(".//{*}Message")
    assert message is not None
    assert "a\ufffdb\ufffd" in message
