"""Whose call it is."""

import pytest

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.credentials import Caller, Credentials
from devicesim.emulator.httpmessage import HTTPRequest
from tests.control_support import NOW, A, B, make_registry

DEFAULT = "000000000000"


def header(credential: str) -> str:
    return f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host;x-amz-date, Signature=abc"


def who(authorization: str = "", query: str = "") -> Caller:
    headers = {"authorization": authorization} if authorization else {}
    request = HTTPRequest(method="GET", path="/", query=query, headers=headers)
    registry = make_registry()
    credentials = Credentials(
        registry.sessions,
        access_keys={"AKIDEV": A, B: A},
        default_account=DEFAULT,
        settings=registry.environment.settings,
    )
    return credentials.identify(request, now=NOW.timestamp())


@pytest.mark.parametrize(
    ("key", "account"),
    [("AKIDEV", A), ("222222222223", "222222222223"), (B, A), ("AKIAIOSFODNN7EXAMPLE", DEFAULT), ("dev-1", DEFAULT)],
)
def test_account_is_of_the_table_or_the_key_itself_or_the_default(key: str, account: str) -> None:
    caller = who(header(f"{key}/20260131/eu-west-1/iot/aws4_request"))

    assert caller == Caller(access_key_id=key, account_id=account, region="eu-west-1", service="iot")


@pytest.mark.parametrize("separator", [", ", ",", " "])
def test_header_may_be_spaced_in_any_way(separator: str) -> None:
    fields = ("SignedHeaders=host", f"Credential={A}/20260131/us-east-1/iot/aws4_request", "Signature=abc")

    assert who("AWS4-HMAC-SHA256 " + separator.join(fields)).account_id == A


def test_presigned_request_has_it_in_the_query_string() -> None:
    caller = who(query=f"Action=GetCallerIdentity&X-Amz-Credential={A}%2F20260131%2Fus-east-1%2Fsts%2Faws4_request")

    assert (caller.account_id, caller.service) == (A, "sts")


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic dXNlcjpwYXNz",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 SignedHeaders=host",
        header(A),
        header(f"{A}/20260131/us-east-1/iot"),
        header(f"{A}/today/us-east-1/iot/aws4_request"),
        header(f"{A}/20260131/US EAST/iot/aws4_request"),
        header(f"{A}/20260131/../iot/aws4_request"),
        header("/20260131/us-east-1/iot/aws4_request"),
        f"AWS4-HMAC-SHA1 Credential={A}/20260131/us-east-1/iot/aws4_request",
    ],
)
def test_missing_or_garbled_scope_is_refused(authorization: str) -> None:
    with pytest.raises(APIError) as caught:
        who(authorization)

    assert caught.value.code == "MissingAuthenticationTokenException"
    assert caught.value.message.startswith("Missing Authentication Token")


def test_digits_of_other_scripts_are_no_account() -> None:
    digits = "%D9%A3" * 12

    assert who(query=f"X-Amz-Credential={digits}%2F20260131%2Fus-east-1%2Fsts%2Faws4_request").account_id == DEFAULT
    with pytest.raises(APIError, match="Missing Authentication Token"):
        who(query=f"X-Amz-Credential={A}%2F{digits[:48]}%2Fus-east-1%2Fsts%2Faws4_request")
