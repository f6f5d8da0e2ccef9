"""The Security Token Service, as far as callers of AWS IoT need it."""

from collections.abc import Mapping
from typing import Any

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.operations.call import Call, Handler
from devicesim.emulator.state.sessions import Session

_TOKEN_SECONDS = 43_200
"""How long GetSessionToken's credentials are valid when the caller does not say (botocore: twelve hours, D)."""


def get_caller_identity(call: Call) -> Mapping[str, Any]:
    """There are no users: whoever calls with an account's key is its root; with a role's, the role."""
    session = call.caller.session
    if session is not None:
        return {"UserId": session.user_id, "Account": session.account_id, "Arn": session.arn}
    account_id = call.caller.account_id
    return {"UserId": account_id, "Account": account_id, "Arn": f"arn:aws:iam::{account_id}:root"}


def assume_role(call: Call) -> Mapping[str, Any]:
    """Any role of any account; nobody's trust is asked, and policies of the session have no effect."""
    session = call.registry.sessions.assume_role(
        call["RoleArn"], call["RoleSessionName"], duration=call.get("DurationSeconds"), by=call.caller.session
    )
    return {
        "Credentials": _credentials(session),
        "AssumedRoleUser": {"AssumedRoleId": session.user_id, "Arn": session.arn},
        "SourceIdentity": call.get("SourceIdentity"),
    }


def get_session_token(call: Call) -> Mapping[str, Any]:
    if call.caller.session is not None:
        raise APIError("AccessDenied", "Cannot call GetSessionToken with session credentials")
    session = call.registry.sessions.session_of_account(
        call.caller.account_id, duration=call.get("DurationSeconds") or _TOKEN_SECONDS
    )
    return {"Credentials": _credentials(session)}


def _credentials(session: Session) -> Mapping[str, Any]:
    return {
        "AccessKeyId": session.access_key_id,
        "SecretAccessKey": session.secret,
        "SessionToken": session.token,
        "Expiration": session.expiration,
    }


HANDLERS: Mapping[str, Handler] = {
    "GetCallerIdentity": get_caller_identity,
    "AssumeRole": assume_role,
    "GetSessionToken": get_session_token,
}
