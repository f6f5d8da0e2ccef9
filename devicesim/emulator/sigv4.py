"""Signature Version 4, checked: whether a request was signed with the secret that belongs to its access key. Pure.

IAM user guide, "signing AWS API requests" (D). Both forms: the Authorization header, and the query string of a
presigned request. The messages are AWS's; a query service answers the errors under its own names (``awsquery``).
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from urllib.parse import quote, unquote

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.httpmessage import HTTPRequest

ALGORITHM: Final = "AWS4-HMAC-SHA256"
_DATE_FORMAT: Final = "%Y%m%dT%H%M%SZ"
_FIELD: Final = re.compile(r"(?:^|[ ,])(?P<name>Credential|SignedHeaders|Signature)=(?P<value>[^, ]*)")
_MAX_EXPIRES: Final = 604_800
"""Seconds that a presigned request may be good for (D)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a request says of its own signature."""

    scope: tuple[str, str, str]
    """Date (YYYYMMDD), Region and service."""
    signed_headers: tuple[str, ...]
    """As listed, which must be in lower case."""
    signature: str
    date: str
    """As it stands in the request, YYYYMMDDTHHMMSSZ."""
    expires: int | None
    """Seconds from the date, of a presigned request."""


def verify(request: HTTPRequest, *, secret: str, now: float, skew: float) -> None:
    """Raise ``InvalidSignatureException`` or ``IncompleteSignatureException`` unless ``secret`` signed the request.

    ``now`` is in seconds since the Unix epoch; ``skew`` is how many seconds the request's date may be from it.
    """
    given = read(request)
    signed_at = _moment(given.date)
    if given.date[:8] != given.scope[0]:
        raise _invalid(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{given.scope[0]}' != '{given.date[:8]}', from '{given.date}'."
        )
    _check_date(given, signed_at, now, skew)
    if "host" not in given.signed_headers:
        raise _invalid("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
    if not hmac.compare_digest(sign(request, given, secret).encode(), given.signature.encode()):
        raise _invalid(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details."
        )


def read(request: HTTPRequest) -> Signature:
    """The signature's own words; ``IncompleteSignatureException`` when some are missing."""
    authorization = request.headers.get("authorization")
    if authorization is not None:
        fields = {found["name"]: found["value"] for found in _FIELD.finditer(authorization[len(ALGORITHM) :])}
        for name in ("Credential", "Signature", "SignedHeaders"):
            if not fields.get(name):
                raise _incomplete(f"Authorization header requires '{name}' parameter. Authorization={authorization}")
        date = request.headers.get("x-amz-date") or request.headers.get("date") or ""
        if not date:
            raise _incomplete(
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
                f"Authorization={authorization}"
            )
        expires = None
    else:
        query = dict(_pairs(request.query))
        names = {name: f"X-Amz-{name}" for name in ("Credential", "Signature", "SignedHeaders")}
        if query.get("X-Amz-Algorithm") != ALGORITHM:
            raise _incomplete(f"AWS query-string parameters must include 'X-Amz-Algorithm' as {ALGORITHM}")
        for wanted in (*names.values(), "X-Amz-Date"):
            if not query.get(wanted):
                raise _incomplete(f"AWS query-string parameters must include '{wanted}'")
        fields = {name: query[wire] for name, wire in names.items()}
        date = query["X-Amz-Date"]
        expires = _expires(query.get("X-Amz-Expires"))
    parts = fields["Credential"].split("/")
    if len(parts) < 5:
        raise _incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, "
            f"got '{fields['Credential']}'"
        )
    if parts[-1] != "aws4_request":
        raise _invalid(f"Credential should be scoped with a valid terminator: 'aws4_request', not '{parts[-1]}'.")
    return Signature(
        scope=(parts[-4], parts[-3], parts[-2]),
        signed_headers=tuple(fields["SignedHeaders"].split(";")),
        signature=fields["Signature"],
        date=date,
        expires=expires,
    )


def sign(request: HTTPRequest, given: Signature, secret: str) -> str:
    """The signature that the request should carry."""
    canonical = "\n".join(
        [
            request.method,
            _canonical_path(request.path),
            _canonical_query(request.query),
            *(f"{name}:{_header(request.headers, name)}" for name in given.signed_headers),
            "",
            ";".join(given.signed_headers),
            sha256(request.body).hexdigest(),
        ]
    )
    day, region, service = given.scope
    text = "\n".join(
        [
            ALGORITHM,
            given.date,
            f"{day}/{region}/{service}/aws4_request",
            sha256(canonical.encode()).hexdigest(),
        ]
    )
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), sha256)
    return hmac.new(key, text.encode(), sha256).hexdigest()


def _check_date(given: Signature, signed_at: datetime, now: float, skew: float) -> None:
    here = datetime.fromtimestamp(now, UTC)
    age = now - signed_at.timestamp()
    minutes = f"{skew / 60:g} min."
    if age < -skew:
        latest = datetime.fromtimestamp(now + skew, UTC)
        raise _invalid(
            f"Signature not yet current: {given.date} is still later than {latest:{_DATE_FORMAT}} "
            f"({here:{_DATE_FORMAT}} + {minutes})"
        )
    if given.expires is not None:
        if age > given.expires:
            end = datetime.fromtimestamp(signed_at.timestamp() + given.expires, UTC)
            raise _invalid(f"Signature expired: {end:{_DATE_FORMAT}} is now earlier than {here:{_DATE_FORMAT}}")
    elif age > skew:
        earliest = datetime.fromtimestamp(now - skew, UTC)
        raise _invalid(
            f"Signature expired: {given.date} is now earlier than {earliest:{_DATE_FORMAT}} "
            f"({here:{_DATE_FORMAT}} - {minutes})"
        )


def _moment(date: str) -> datetime:
    try:
        return datetime.strptime(date, _DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise _incomplete(
            f"Date must be in ISO-8601 'basic format'. Got '{date}'. See http://en.wikipedia.org/wiki/ISO_8601"
        ) from None


def _expires(text: str | None) -> int:
    if text is not None and re.fullmatch("[0-9]{1,6}", text) and 1 <= int(text) <= _MAX_EXPIRES:
        return int(text)
    raise _incomplete(f"X-Amz-Expires must be a number of seconds between 1 and {_MAX_EXPIRES}")


def _canonical_path(path: str) -> str:
    """The path as sent, without dot segments and doubled slashes, encoded once more (every service but S3)."""
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    joined = "/" + "/".join(segments)
    if segments and path.endswith("/"):
        joined += "/"
    return quote(joined, safe="/~")


def _canonical_query(query: str) -> str:
    encoded = [
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in _pairs(query)
        if name != "X-Amz-Signature"
    ]
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))


def _pairs(query: str) -> list[tuple[str, str]]:
    """A plus sign is one: what SDKs mean as a space they send as ``%20``."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return [(unquote(name), unquote(value)) for name, _, value in pairs]


def _header(headers: Mapping[str, str], name: str) -> str:
    if name not in headers:
        raise _invalid(f"'{name}' is a 'SignedHeader' and is not in the request.")
    return " ".join(headers[name].split())


def _invalid(message: str) -> APIError:
    return APIError("InvalidSignatureException", message)


def _incomplete(message: str) -> APIError:
    return APIError("IncompleteSignatureException", message)
