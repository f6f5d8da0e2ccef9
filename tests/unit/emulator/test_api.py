"""The control plane as bytes: which service, which account, which error, and what a bug looks like."""

import json
from xml.etree import ElementTree as ET

import pytest

from devicesim.emulator.api import ControlPlane
from devicesim.emulator.httpmessage import HTTPRequest, HTTPResponse
from devicesim.emulator.operations import table
from devicesim.emulator.registry import Registry
from tests.control_support import REGION, A, B, make_registry

STS = "{https://sts.amazonaws.com/doc/2011-06-15/}"
FORM = "application/x-www-form-urlencoded; charset=utf-8"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return make_registry()


@pytest.fixture(scope="module")
def control_plane(registry: Registry) -> ControlPlane:
    return ControlPlane(registry, access_keys={"AKIB": B})


def ask(
    control_plane: ControlPlane,
    method: str,
    target: str,
    *,
    key: str = A,
    service: str = "iot",
    body: bytes = b"",
    content_type: str = "application/json",
) -> HTTPResponse:
    path, _, query = target.partition("?")
    headers = {"content-type": content_type}
    if key:
        headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={key}/20260131/{REGION}/{service}/aws4_request, x=y"
    request = HTTPRequest(method=method, path=path, query=query, headers=headers, body=body)
    return control_plane.handle(request, "request-1")


def ask_sts(control_plane: ControlPlane, body: str, key: str = A) -> tuple[int, ET.Element]:
    response = ask(control_plane, "POST", "/", key=key, service="sts", body=body.encode(), content_type=FORM)
    assert response.headers["content-type"] == "text/xml"
    return response.status, ET.fromstring(response.body)


def test_call_lands_in_the_account_of_its_key(control_plane: ControlPlane, registry: Registry) -> None:
    response = ask(control_plane, "POST", "/things/robot", key="AKIB")

    assert response.status == 200
    assert json.loads(response.body)["thingArn"] == f"arn:aws:iot:{REGION}:{B}:thing/robot"
    assert list(registry.partition(B, REGION).things) == ["robot"]
    assert registry.partition(A, REGION).things == {}


def test_real_operation_that_is_not_emulated_is_501_with_its_name(control_plane: ControlPlane) -> None:
    response = ask(control_plane, "POST", "/streams/name", body=b'{"files": 1}')

    assert response.status == 501
    assert response.headers["x-amzn-errortype"] == "NotImplementedException"
    assert json.loads(response.body) == {"message": "devicesim does not emulate the operation CreateStream"}


def test_older_clients_sign_for_execute_api(control_plane: ControlPlane) -> None:
    response = ask(control_plane, "GET", "/event-configurations", service="execute-api")

    assert response.status == 200


def test_refusal_speaks_the_protocol_of_the_path_whatever_the_body_is_called(control_plane: ControlPlane) -> None:
    response = ask(control_plane, "POST", "/things/t", body=b"{", content_type=FORM)  # which is what curl calls it

    assert (response.status, response.headers["x-amzn-errortype"]) == (400, "SerializationException")
    assert json.loads(response.body) == {"message": "The request body is not JSON"}


def test_other_service_is_501(control_plane: ControlPlane) -> None:
    response = ask(control_plane, "POST", "/", service="lambda")

    assert response.status == 501
    assert json.loads(response.body) == {"message": "devicesim does not emulate the service lambda"}


def test_missing_authentication_is_403(control_plane: ControlPlane) -> None:
    response = ask(control_plane, "GET", "/registrationcode", key="")

    assert response.status == 403
    assert response.headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"
    assert json.loads(response.body) == {"message": "Missing Authentication Token"}


def test_unknown_route_is_404(control_plane: ControlPlane) -> None:
    assert ask(control_plane, "GET", "/nothing").status == 404


def test_caller_identity_golden(control_plane: ControlPlane) -> None:
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    response = ask(control_plane, "POST", "/", service="sts", body=body, content_type=FORM)

    assert response.status == 200
    assert response.body == (
        b'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
        b"<UserId>111111111111</UserId><Account>111111111111</Account><Arn>arn:aws:iam::111111111111:root</Arn>"
        b"</GetCallerIdentityResult><ResponseMetadata><RequestId>request-1</RequestId></ResponseMetadata>"
        b"</GetCallerIdentityResponse>"
    )


def test_caller_identity_by_query_string(control_plane: ControlPlane) -> None:
    response = ask(control_plane, "GET", "/?Action=GetCallerIdentity&Version=2011-06-15", service="sts")

    assert b"<Account>111111111111</Account>" in response.body


@pytest.mark.parametrize(
    ("body", "key", "status", "code", "kind"),
    [
        ("Action=GetFederationToken&Version=2011-06-15&Name=abc", A, 501, "NotImplemented", "Receiver"),
        ("Action=Nothing&Version=2011-06-15", A, 400, "InvalidAction", "Sender"),
        ("Action=GetCallerIdentity&Version=2010-01-01", A, 400, "InvalidAction", "Sender"),
        ("Action=%00%3C&Version=2011-06-15", A, 400, "InvalidAction", "Sender"),
        ("", A, 400, "InvalidAction", "Sender"),
        ("Action=GetCallerIdentity", "", 403, "MissingAuthenticationToken", "Sender"),
    ],
)
def test_sts_errors_are_xml(
    control_plane: ControlPlane, body: str, key: str, status: int, code: str, kind: str
) -> None:
    answered, root = ask_sts(control_plane, body, key)

    assert answered == status
    assert root.findtext(f"{STS}Error/{STS}Code") == code
    assert root.findtext(f"{STS}Error/{STS}Type") == kind
    assert root.findtext(f"{STS}RequestId") == "request-1"


def test_bug_in_a_handler_leaves_handle_and_becomes_a_500(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_call: object) -> dict[str, object]:
        raise ZeroDivisionError

    monkeypatch.setitem(table.IOT, "GetRegistrationCode", broken)
    with pytest.raises(ZeroDivisionError):
        ask(control_plane, "GET", "/registrationcode")

    response = control_plane.failure(HTTPRequest(method="GET", path="/registrationcode"), "request-1")

    assert response.status == 500
    assert response.headers["x-amzn-errortype"] == "InternalFailureException"
    assert "request id request-1" in json.loads(response.body)["message"]


def test_every_handler_is_of_an_operation_in_the_model(control_plane: ControlPlane) -> None:
    assert set(table.IOT) <= set(control_plane.iot.service.operation_names)
    assert set(table.STS) <= set(control_plane.sts.service.operation_names)


def test_version_of_a_policy_with_more_digits_than_python_reads_is_not_found(control_plane: ControlPlane) -> None:
    document = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
    ask(control_plane, "POST", "/policies/counted", body=json.dumps({"policyDocument": document}).encode())

    response = ask(control_plane, "GET", "/policies/counted/version/" + "1" * 5000)

    assert (response.status, response.headers["x-amzn-errortype"]) == (404, "ResourceNotFoundException")


@pytest.mark.parametrize(("origin", "status"), [("https://evil.example", 403), ("null", 403), ("http://me:1", 200)])
def test_page_of_another_site_changes_nothing(registry: Registry, origin: str, status: int) -> None:
    query = f"X-Amz-Credential={A}/20260131/{REGION}/iot/aws4_request"
    headers = {"origin": origin, "host": "me:1", "content-type": "text/plain"}
    request = HTTPRequest(method="POST", path=f"/things/page-{status}", query=query, headers=headers, body=b"{}")

    response = ControlPlane(registry).handle(request, "request-1")

    assert response.status == status
    assert (f"page-{status}" in registry.partition(A, REGION).things) == (status == 200)
