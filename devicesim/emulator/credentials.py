"""Whose call it is: the account and the Region of a request, from its Signature Version 4 scope. Pure.

Signatures are not verified: the emulator holds no secret keys, and listens on loopback. What is checked is their form.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.httpmessage import HTTPRequest

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_CREDENTIAL: Final = re.compile(r"(?:^|[ ,])Credential=([^, ]+)")
_SCOPE: Final = re.compile(
    r"(?P<key>[^/\s,]{1,128})/(?P<date>\d{8})/(?P<region>[a-z0-9-]{1,32})/(?P<service>[a-z0-9-]{1,32})/aws4_request"
)
_ACCOUNT_ID: Final = re.compile(r"\d{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls what, where."""

    access_key_id: str
    account_id: str
    region: str
    service: str
    """The signing name: ``iot`` or ``sts``."""


def identify(request: HTTPRequest, *, access_keys: Mapping[str, str], default_account: str) -> Caller:
    """Read the scope of the Authorization header or, for a presigned request, of the query string.

    The account is the one that ``access_keys`` has for the access key id; else the key id itself, where it is twelve
    digits (as LocalStack has it); else ``default_account``.
    """
    header = request.headers.get("authorization", "")
    if header:
        found = _CREDENTIAL.search(header) if header.startswith(_ALGORITHM + " ") else None
        credential = found.group(1) if found else ""
    else:
        query = parse_qs(request.query)
        credential = query.get("X-Amz-Credential", [""])[-1]
        if not credential:
            raise APIError("MissingAuthenticationTokenException", "Missing Authentication Token")
    scope = _SCOPE.fullmatch(credential)
    if scope is None:
        raise APIError(
            "MissingAuthenticationTokenException",
            f"Missing Authentication Token: expected {_ALGORITHM} with "
            "Credential=<access key id>/<date>/<region>/<service>/aws4_request",
        )
    key = scope["key"]
    account = access_keys.get(key) or (key if _ACCOUNT_ID.fullmatch(key) else default_account)
    return Caller(access_key_id=key, account_id=account, region=scope["region"], service=scope["service"])
