"""What AWS wrote down about a device: RegisterThing in CloudTrail, and the message broker's log in CloudWatch."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import trio

from devicesim.cloud.asking import Asker
from devicesim.diagnosis.evidence import LogEvent, ProvisioningEvent

LOG_GROUP = "AWSIotLogsV2"
MOST_PAGES = 20
"""Of either: CloudTrail answers 50 events at a time, twice a second."""
TRAIL_LAG_SECONDS = 900.0
"""CloudTrail tells of an event some five minutes later, fifteen at the most (its user guide, D): before that, nothing
found says nothing."""
JITP_SECONDS = 60.0
"""After the last try, in which provisioning is still looked for: it comes after the connection that it is for."""
SLACK_SECONDS = 2.0
"""By which two clocks and the whole seconds of a trail may disagree."""
_ID = "AWS::IoT::Certificate::Id"
_COMMON_NAME = "AWS::IoT::Certificate::CommonName"
_AUTHENTICATION = "Connection.AuthNError"
_PLAIN = re.compile(r"[\w.:/@+= -]{1,256}", re.ASCII)
"""What means itself in a filter pattern; a certificate is found without its client id as well."""

Window = tuple[float, float]
"""Begin and end of a try, in seconds since the Unix epoch."""


class Trail:
    """The account's RegisterThing events, looked up once for all devices."""

    def __init__(self, *, since: float, until: float, clock: Callable[[], float]) -> None:
        """``since`` and ``until``: when the first of the devices began, and the last ended. All in seconds since the
        Unix epoch by the clock of the control plane, which ``clock`` tells."""
        self._since = since
        self._until = until
        self._clock = clock
        self._lock = trio.Lock()
        self._events: list[Mapping[str, Any]] | None = None
        self._refused: tuple[str, ...] = ()
        """Why nothing is known, or not all."""

    async def about(
        self, asker: Asker, certificate_id: str, common_name: str | None, tries: Sequence[Window]
    ) -> tuple[ProvisioningEvent, ...] | None:
        """Of one certificate, oldest first; ``None`` where CloudTrail could not be asked, or cannot know yet."""
        async with self._lock:
            if self._events is None and not self._refused:
                await self._look_up(asker.another())
        found = tuple(_provisioning(self._events or (), certificate_id, common_name))
        if self._refused and not found:
            for line in self._refused:
                asker.refuse(line)
            return None
        fresh = bool(tries) and self._clock() - tries[-1][1] < TRAIL_LAG_SECONDS
        if not found and fresh and not asker.client.access.emulated:
            asker.refuse("lookup_events: CloudTrail has nothing yet; it tells within 15 minutes: ask again then")
            return None
        return found

    async def _look_up(self, asker: Asker) -> None:
        events = await asker.ask_pages(
            "lookup_events",
            "Events",
            "NextToken",
            service="cloudtrail",
            most=MOST_PAGES,
            LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "RegisterThing"}],
            StartTime=int(self._since - SLACK_SECONDS),
            EndTime=int(self._until + JITP_SECONDS),
        )
        self._refused = tuple(asker.refused)
        if events is not None:
            self._events = [json.loads(each["CloudTrailEvent"]) for each in reversed(events)]
        elif not self._refused:
            self._refused = ("lookup_events: not there",)


def _provisioning(
    events: Iterable[Mapping[str, Any]], certificate_id: str, common_name: str | None
) -> Iterator[ProvisioningEvent]:
    for event in events:
        parameters = (event.get("requestParameters") or {}).get("parameters") or {}
        told = parameters.get(_ID)
        about = told == certificate_id if told else common_name and parameters.get(_COMMON_NAME) == common_name
        if about:
            yield ProvisioningEvent(
                time=_moment(event["eventTime"]),
                error=event.get("errorCode"),
                message=event.get("errorMessage", ""),
            )


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def log_events(
    asker: Asker, certificate_id: str, client_id: str, server_name: str | None, tries: Sequence[Window]
) -> tuple[LogEvent, ...] | None:
    """The broker's entries about one device while it tried, oldest first; ``None`` where there is no log to read: AWS
    IoT makes none until it is told to.

    ``Connect`` and ``Disconnect`` name the certificate and the client. An AuthNError names neither (§8): it is taken
    for the device's when it has its server name and came during one of its tries, and when there are not more of them
    than tries; else whose they are is not told. Times are by the clock of the control plane.
    """
    if not tries:
        return ()
    named = [("principalId", certificate_id), ("eventType", _AUTHENTICATION)]
    if _PLAIN.fullmatch(client_id):
        named.append(("clientId", client_id))
    pattern = " || ".join(f'($.{name} = "{value}")' for name, value in named)
    entries = await asker.ask_pages(
        "filter_log_events",
        "events",
        "nextToken",
        service="logs",
        most=MOST_PAGES,
        logGroupName=LOG_GROUP,
        startTime=int((tries[0][0] - SLACK_SECONDS) * 1000),
        endTime=int((tries[-1][1] + SLACK_SECONDS) * 1000),
        filterPattern=f"{{ {pattern} }}",
    )
    if entries is None:
        return None
    own, errors = [], []
    for entry in entries:
        members = _members(entry["message"])
        at = entry["timestamp"] / 1000
        if members.get("eventType") != _AUTHENTICATION:
            if members.get("principalId") == certificate_id or members.get("clientId") == client_id:
                own.append(_log_event(at, members))
        elif _may_be_of(members, at, server_name, tries):
            errors.append(_log_event(at, members))
    if len(errors) > len(tries):
        told = f"{len(errors)} {_AUTHENTICATION} during {len(tries)} tries"
        asker.refuse(f"filter_log_events: {told}: whose they are is not told")
        errors = []
    return tuple(sorted((*own, *errors), key=lambda each: each.time))


def _members(message: str) -> Mapping[str, Any]:
    """Those of an entry that is AWS IoT's; none of whatever else is written to that group."""
    try:
        members = json.loads(message)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def _may_be_of(members: Mapping[str, Any], at: float, server_name: str | None, tries: Sequence[Window]) -> bool:
    named = str(members.get("serverNameIndication", "")).lower() == (server_name or "").lower()
    return named and any(begin - SLACK_SECONDS <= at <= end + SLACK_SECONDS for begin, end in tries)


def _log_event(at: float, members: Mapping[str, Any]) -> LogEvent:
    reason = members.get("disconnectReason") or members.get("reason") or ""
    return LogEvent(
        time=at,
        event_type=str(members.get("eventType", "")),
        reason=str(reason),
        details=str(members.get("details") or ""),
    )
