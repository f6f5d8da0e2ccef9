"""Signatures, checked against the signer that boto3 and the aws CLI use."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.emulator import sigv4
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.httpmessage import HTTPRequest

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEY = "AKIDEXAMPLE"
SKEW = 300.0


def signed(
    method: str = "GET",
    url: str = "http://localhost:4566/things",
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    secret: str = SECRET,
    presigned: int | None = None,
    service: str = "iot",
) -> HTTPRequest:
    """The request as botocore signs and sends it, now."""
    request = AWSRequest(method=method, url=url, data=body, headers=dict(headers or {}))
    credentials = Credentials(KEY, secret)
    signer: Any = SigV4Auth(credentials, service, "us-east-1")
    if presigned is not None:
        signer = SigV4QueryAuth(credentials, service, "us-east-1", expires=presigned)
    signer.add_auth(request)
    parts = urlsplit(request.prepare().url)
    return HTTPRequest(
        method=method,
        path=parts.path,
        query=parts.query,
        headers={"host": parts.netloc, **{name.lower(): value for name, value in request.headers.items()}},
        body=body,
    )


def at(seconds: float = 0.0) -> float:
    return datetime.now(UTC).timestamp() + seconds


def problem(request: HTTPRequest, *, secret: str = SECRET, now: float | None = None) -> APIError:
    with pytest.raises(APIError) as caught:
        sigv4.verify(request, secret=secret, now=at() if now is None else now, skew=SKEW)
    return caught.value


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("GET", "http://localhost:4566/things", b""),
        ("GET", "http://localhost:4566/", b""),
        ("POST", "http://localhost:4566/things/a%3Ab", b'{"a": 1}'),
        ("GET", "http://localhost:4566/certificates?pageSize=3&marker=YWJj%3D%3D&ascendingOrder=true", b""),
        ("GET", "http://localhost:4566/things?attributeName=a%20b&attributeValue=%C3%A4%2B", b""),
        ("PUT", "http://localhost:4566/target-policies/p%2Fq", b'{"target":"x"}'),
        ("POST", "http://localhost:4566/a//b/../c/", b"x"),
    ],
)
def test_what_botocore_signs_is_accepted(method: str, url: str, body: bytes) -> None:
    headers = {"content-type": "application/json", "x-amzn-principal": "arn:aws:iot:eu-west-1:1:cert/a   b"}

    sigv4.verify(signed(method, url, body=body, headers=headers), secret=SECRET, now=at(), skew=SKEW)


SAFE = st.text(st.characters(min_codepoint=33, max_codepoint=0x17F, exclude_characters="\x7f"), min_size=1, max_size=12)


@given(st.lists(st.tuples(SAFE, SAFE), max_size=4), st.binary(max_size=40))
@settings(max_examples=60)
def test_any_query_and_body_that_botocore_signs_is_accepted(query: list[tuple[str, str]], body: bytes) -> None:
    text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query)

    sigv4.verify(signed("POST", f"http://h/x?{text}", body=body), secret=SECRET, now=at(), skew=SKEW)


def test_presigned_request_is_accepted_until_it_expires() -> None:
    request = signed(url="http://localhost/?Action=GetCallerIdentity", presigned=900, service="sts")

    sigv4.verify(request, secret=SECRET, now=at(), skew=SKEW)
    sigv4.verify(request, secret=SECRET, now=at(890), skew=SKEW)
    error = problem(request, now=at(960))

    assert error.code == "InvalidSignatureException"
    assert error.message.startswith("Signature expired: ")


@pytest.mark.parametrize("change", ["method", "path", "query", "body", "header", "signature", "date"])
def test_whatever_is_changed_after_signing_shows(change: str) -> None:
    request = signed("POST", "http://localhost/things/a?x=1", body=b"1", headers={"x-amz-target": "t"})
    headers = dict(request.headers)
    fields: dict[str, Any] = {"method": request.method, "path": request.path, "query": request.query, "body": b"1"}
    match change:
        case "method":
            fields["method"] = "PUT"
        case "path":
            fields["path"] = "/things/b"
        case "query":
            fields["query"] = "x=2"
        case "body":
            fields["body"] = b"2"
        case "header":
            headers["x-amz-target"] = "u"
        case "signature":
            headers["authorization"] = headers["authorization"][:-1] + "g"
        case "date":
            signed_at = datetime.fromisoformat(headers["x-amz-date"])
            headers["x-amz-date"] = f"{signed_at - timedelta(seconds=1):%Y%m%dT%H%M%SZ}"

    error = problem(HTTPRequest(**fields, headers=headers))

    assert error.code == "InvalidSignatureException"
    if change != "date":  # which, a second before midnight, belongs to another day than the scope
        assert error.message.startswith("The request signature we calculated does not match the signature you")


def test_other_secret_is_refused() -> None:
    assert problem(signed(), secret="other").code == "InvalidSignatureException"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(301, "Signature expired: "), (-301, "Signature not yet current: ")],
)
def test_date_too_far_from_the_clock_is_refused(seconds: float, words: str) -> None:
    error = problem(signed(), now=at(seconds))

    assert error.code == "InvalidSignatureException"
    assert error.message.startswith(words)
    assert error.message.endswith("5 min.)")


def test_date_of_another_day_than_the_scope_is_refused() -> None:
    request = signed()
    authorization = request.headers["authorization"]
    day = authorization.split("/")[1]
    headers = {**request.headers, "authorization": authorization.replace(day, "20200101")}
    moved = HTTPRequest(method="GET", path="/things", headers=headers)

    assert problem(moved).message.startswith("Date in Credential scope does not match YYYYMMDD")


def test_host_must_be_signed() -> None:
    request = signed()
    headers = {**request.headers, "authorization": request.headers["authorization"].replace("host;", "")}

    assert "'Host'" in problem(HTTPRequest(method="GET", path="/things", headers=headers)).message


def test_signed_header_that_is_not_sent_is_refused() -> None:
    request = signed(headers={"x-amz-target": "t"})
    headers = {name: value for name, value in request.headers.items() if name != "x-amz-target"}

    assert "x-amz-target" in problem(HTTPRequest(method="GET", path="/things", headers=headers)).message


@pytest.mark.parametrize("part", ["Credential", "SignedHeaders", "Signature", "x-amz-date"])
def test_missing_part_of_the_header_is_named(part: str) -> None:
    headers = dict(signed().headers)
    if part == "x-amz-date":
        del headers[part]
    else:
        headers["authorization"] = headers["authorization"].replace(part + "=", "X=")

    error = problem(HTTPRequest(method="GET", path="/things", headers=headers))

    assert error.code == "IncompleteSignatureException"
    assert part.lower() in error.message.lower()


@pytest.mark.parametrize(
    "part", [f"X-Amz-{each}" for each in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")]
)
def test_missing_part_of_a_presigned_query_is_named(part: str) -> None:
    request = signed(url="http://localhost/?Action=GetCallerIdentity", presigned=900)
    query = "&".join(each for each in request.query.split("&") if not each.startswith(part + "="))

    error = problem(HTTPRequest(method="GET", path="/", query=query, headers=request.headers))

    assert error.code == "IncompleteSignatureException"
    assert part in error.message


@pytest.mark.parametrize("expires", ["0", "604801", "x", "", "9" * 5000])
def test_impossible_expiry_of_a_presigned_query_is_refused(expires: str) -> None:
    request = signed(url="http://localhost/?Action=GetCallerIdentity", presigned=900)
    query = request.query.replace("X-Amz-Expires=900", f"X-Amz-Expires={expires}")

    error = problem(HTTPRequest(method="GET", path="/", query=query, headers=request.headers))

    assert error.code == "IncompleteSignatureException"


@given(st.text(max_size=80), st.text(max_size=20), st.text(max_size=60))
@settings(max_examples=100)
def test_garbage_is_refused_and_never_a_crash(authorization: str, date: str, query: str) -> None:
    headers = {"authorization": f"AWS4-HMAC-SHA256 {authorization}", "x-amz-date": date, "host": "h"}

    problem(HTTPRequest(method="GET", path="/", query=query, headers=headers))
    problem(HTTPRequest(method="GET", path="/", query=query))


def test_signature_of_no_letters_of_ours_is_wrong_and_no_crash() -> None:
    request = signed()
    headers = {**request.headers, "authorization": request.headers["authorization"][:-1] + "é"}

    assert problem(HTTPRequest(method="GET", path="/things", headers=headers)).code == "InvalidSignatureException"


@given(st.integers(0, 220), st.text(max_size=3))
@settings(max_examples=100)
def test_any_damage_to_the_header_is_refused_and_no_crash(place: int, text: str) -> None:
    request = signed()
    authorization = request.headers["authorization"]
    damaged = authorization[:place] + text + authorization[place + 1 :]
    if damaged == authorization:
        return
    headers = {**request.headers, "authorization": damaged}
    request = HTTPRequest(method="GET", path="/things", headers=headers)
    unsigned = len("AWS4-HMAC-SHA256 Credential=" + KEY)  # the algorithm's name and the key's id
    if place < unsigned or not text.strip(" ,"):  # nor is white space between the fields
        with suppress(APIError):
            sigv4.verify(request, secret=SECRET, now=at(), skew=SKEW)
    else:
        assert problem(request).code in ("InvalidSignatureException", "IncompleteSignatureException")
