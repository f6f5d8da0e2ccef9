"""Why policies do not let a device connect, in words. Pure; whether they do is AWS's to say (TestAuthorization)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

THING_NAME = "${iot:connection.thing.thingname}"
_SHOWN = 3


def why_denied(documents: Mapping[str, str], client_id: str, things: Sequence[str]) -> str:
    """``documents`` are the effective policies by name (empty: it could not be read), ``things`` those that the
    certificate is attached to."""
    if not documents:
        return "no policy is attached to the certificate"
    reasons = []
    for name, document in documents.items():
        denied = list(_resources(document, "Deny"))
        allowed = list(_resources(document, "Allow"))
        if not document:
            reasons.append(f"policy {name!r} could not be read")
        elif not allowed and not denied:
            reasons.append(f"policy {name!r} says nothing of iot:Connect")
        if denied:
            reasons.append(f"policy {name!r} denies iot:Connect on {_listed(denied)}")
        if any(THING_NAME in each.lower() for each in allowed) and client_id not in things:
            held = ", ".join(repr(each) for each in things[:_SHOWN]) or "none"
            reasons.append(
                f"policy {name!r} takes the client id to be the name of a thing of the certificate; {client_id!r} is"
                f" not (things: {held})"
            )
        elif allowed:
            reasons.append(f"policy {name!r} allows iot:Connect on {_listed(allowed)}, not as client {client_id!r}")
    return "; ".join(reasons)


def _resources(document: str, effect: str) -> Iterator[str]:
    """The resources of every statement of that effect that is about iot:Connect."""
    try:
        statements = json.loads(document).get("Statement", [])
    except (ValueError, AttributeError):
        return
    for statement in statements if isinstance(statements, list) else [statements]:
        if not isinstance(statement, Mapping) or statement.get("Effect") != effect:
            continue
        if any(_covers_connect(each) for each in _strings(statement.get("Action"))):
            yield from _strings(statement.get("Resource"))


def _covers_connect(action: str) -> bool:
    return action.lower() in ("*", "iot:*", "iot:connect", "iot:connect*", "iot:con*")


def _strings(value: Any) -> list[str]:
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]


def _listed(resources: Sequence[str]) -> str:
    more = len(resources) - _SHOWN
    return ", ".join(resources[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
