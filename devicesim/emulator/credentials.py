"""Whose call it is: the account and the Region of a request, from its Signature Version 4 scope. Pure.

Without secrets nothing is verified: any access key will do, and the emulator listens on loopback. What is checked is
the form. With ``ControlSettings.secret_access_keys`` every call must be signed (:mod:`devicesim.emulator.sigv4`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from devicesim.emulator import sigv4
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.httpmessage import HTTPRequest
from devicesim.emulator.state.environment import ControlSettings
from devicesim.emulator.state.sessions import Session, Sessions

_CREDENTIAL: Final = re.compile(r"(?:^|[ ,])Credential=([^, ]+)")
_SCOPE: Final = re.compile(
    r"(?P<key>[^/\s,]{1,128})/(?P<date>[0-9]{8})/(?P<region>[a-z0-9-]{1,32})/(?P<service>[a-z0-9-]{1,32})/aws4_request"
)
_ACCOUNT_ID: Final = re.compile("[0-9]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls what, where."""

    access_key_id: str
    account_id: str
    region: str
    service: str
    """The signing name: ``iot``, ``iotdata`` or ``sts``."""
    session: Session | None = None
    """Of a caller with temporary credentials of this emulator's."""


class Credentials:
    """Tells callers apart, and refuses those that are not who they say."""

    def __init__(
        self,
        sessions: Sessions,
        *,
        access_keys: Mapping[str, str],
        default_account: str,
        settings: ControlSettings,
    ) -> None:
        """``access_keys`` maps access key ids to account ids."""
        self._sessions = sessions
        self._access_keys = dict(access_keys)
        self._default_account = default_account
        self._settings = settings

    def identify(self, request: HTTPRequest, *, now: float) -> Caller:
        """Read the scope of the Authorization header or, for a presigned request, of the query string.

        The account is that of the session, where the call carries a token of the emulator's; else the one that the
        table has for the access key id; else the key id itself, where it is twelve digits (as LocalStack has it); else
        the default one. ``now`` is in seconds since the Unix epoch.
        """
        scope = _scope(request)
        key = scope["key"]
        token = _token(request)
        session = self._sessions.read(token) if token else None
        if session is not None and session.access_key_id != key:
            raise _unrecognized()
        if session is not None and session.expiration <= now:
            raise APIError("ExpiredTokenException", "The security token included in the request is expired")
        self._verify(request, key, session, now)
        account = self._access_keys.get(key) or (key if _ACCOUNT_ID.fullmatch(key) else self._default_account)
        return Caller(
            access_key_id=key,
            account_id=account if session is None else session.account_id,
            region=scope["region"],
            service=scope["service"],
            session=session,
        )

    def _verify(self, request: HTTPRequest, key: str, session: Session | None, now: float) -> None:
        secrets = self._settings.secret_access_keys
        if secrets is None:
            return
        secret = secrets.get(key) if session is None else session.secret if session.proven else None
        if secret is None:
            raise _unrecognized()
        sigv4.verify(request, secret=secret, now=now, skew=self._settings.signature_skew_seconds)


def _scope(request: HTTPRequest) -> re.Match[str]:
    header = request.headers.get("authorization", "")
    if header:
        found = _CREDENTIAL.search(header) if header.startswith(sigv4.ALGORITHM + " ") else None
        credential = found.group(1) if found else ""
    else:
        credential = parse_qs(request.query).get("X-Amz-Credential", [""])[-1]
        if not credential:
            raise APIError("MissingAuthenticationTokenException", "Missing Authentication Token")
    scope = _SCOPE.fullmatch(credential)
    if scope is None:
        raise APIError(
            "MissingAuthenticationTokenException",
            f"Missing Authentication Token: expected {sigv4.ALGORITHM} with "
            "Credential=<access key id>/<date>/<region>/<service>/aws4_request",
        )
    return scope


def _token(request: HTTPRequest) -> str:
    header = request.headers.get("x-amz-security-token")
    return header if header is not None else parse_qs(request.query).get("X-Amz-Security-Token", [""])[-1]


def _unrecognized() -> APIError:
    """AWS's answer to an access key that nobody has, and to a token that is not one."""
    return APIError("UnrecognizedClientException", "The security token included in the request is invalid.")
