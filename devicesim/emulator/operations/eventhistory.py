"""CloudTrail's event history: what of its records the emulator's own history has.

That is RegisterThing, called by AWS IoT itself for a device (:mod:`~devicesim.emulator.trail`); calls of the API, which
AWS has there too, are not kept. It is told at once; AWS takes some five minutes (CloudTrail user guide, D).
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.history import History, Kind
from devicesim.emulator.operations.call import Call, Handler, page
from devicesim.emulator.trail import SERVICE, SESSION_NAME, RegisterThing

_EVENT_NAME: Final = "RegisterThing"
_PAGE: Final = 50
"""Also the most that a caller may ask for (botocore, D)."""


class EventHistory:
    """Handlers that read the history."""

    def __init__(self, history: History) -> None:
        self._history = history

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By name of the operation."""
        return {"LookupEvents": self.lookup_events}

    def lookup_events(self, call: Call) -> Mapping[str, Any]:
        """Newest first; one attribute and a range of time may be asked for."""
        wanted = _attribute(call)
        start, end = call.get("StartTime"), call.get("EndTime")
        if start is not None and end is not None and start > end:
            raise APIError("InvalidTimeRangeException", "The start time is after the end time.")
        account, region = call.partition.account_id, call.partition.region
        entries = self._history.select(account_id=account, kind=Kind.PROVISIONING)
        # by the negative number, which grows from the newest to the oldest
        found = [
            (-entry.number, entry.event)
            for entry in reversed(entries)
            if entry.event is not None
            and entry.region == region
            and (start is None or int(entry.event.time) >= start)
            and (end is None or int(entry.event.time) <= end)
            and (wanted is None or _attributes(entry.event).get(wanted[0]) == wanted[1])
        ]
        if call.get("EventCategory") is not None:  # insights, of which there are none
            found = []
        token, size = call.get("NextToken"), call.get("MaxResults") or _PAGE
        try:
            shown, following = page(call, found, lambda pair: pair[0], token=token, size=size, ascending=True)
        except APIError as exc:
            raise APIError("InvalidNextTokenException", exc.message) from exc
        return {"Events": [_event(event) for _, event in shown], "NextToken": following}


def _attribute(call: Call) -> tuple[str, str] | None:
    attributes = call.get("LookupAttributes") or []
    if len(attributes) > 1:  # "Currently the list can contain only one item" (botocore, D)
        raise APIError("InvalidLookupAttributesException", "You can only specify one lookup attribute.")
    return (attributes[0]["AttributeKey"], attributes[0]["AttributeValue"]) if attributes else None


def _attributes(event: RegisterThing) -> Mapping[str, str]:
    """What an event can be looked up by; those of the service have no access key, and no resources (I)."""
    return {
        "EventId": event.event_id,
        "EventName": _EVENT_NAME,
        "EventSource": SERVICE,
        "ReadOnly": "false",
        "Username": SESSION_NAME,
    }


def _event(event: RegisterThing) -> Mapping[str, Any]:
    return {
        **_attributes(event),
        "EventTime": int(event.time),
        "Resources": [],
        "CloudTrailEvent": json.dumps(event.to_json(), separators=(",", ":")),
    }
