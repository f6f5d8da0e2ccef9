"""CloudWatch Logs, as far as AWS IoT's own log goes (:mod:`~devicesim.emulator.brokerlog`)."""

from collections.abc import Mapping
from typing import Any, Final

from devicesim.emulator import brokerlog
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.filterpattern import compile_pattern
from devicesim.emulator.history import History
from devicesim.emulator.operations.call import Call, Handler, page
from devicesim.emulator.operations.logging_options import NEW
from devicesim.emulator.state.records import LoggingOptions

_PAGE: Final = 10_000
"""Unless the caller says (botocore, D)."""
_NOT_READ: Final = frozenset({"logStreamNames", "logStreamNamePrefix", "unmask"})


class LogEvents:
    """Handlers that read the history."""

    def __init__(self, history: History) -> None:
        self._history = history

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By name of the operation."""
        return {"FilterLogEvents": self.filter_log_events}

    def filter_log_events(self, call: Call) -> Mapping[str, Any]:
        """Oldest first, unless the caller says otherwise."""
        unread = _NOT_READ & call.parameters.keys()
        if unread:
            raise APIError("NotImplementedException", f"devicesim does not emulate {', '.join(sorted(unread))}")
        group = _group(call)
        partition = call.partition
        options = partition.logging_options.get(NEW) or LoggingOptions(disabled=True)
        if group not in brokerlog.groups(options):
            raise APIError("ResourceNotFoundException", "The specified log group does not exist.")
        matches = compile_pattern(call.get("filterPattern") or "")
        start, end = call.get("startTime"), call.get("endTime")
        history = [each for each in self._history.select(account_id=partition.account_id) if _here(each.region, call)]
        found = [
            entry
            for entry in brokerlog.entries(history, options, group)
            if (start is None or entry.milliseconds >= start)
            and (end is None or entry.milliseconds <= end)
            and matches(entry.message, entry.members)
        ]
        ascending = call.get("startFromHead") is not False
        token, size = call.get("nextToken"), call.get("limit") or _PAGE
        try:
            shown, following = page(call, found, lambda each: each.number, token=token, size=size, ascending=ascending)
        except APIError as exc:
            raise APIError("InvalidParameterException", "The specified nextToken is invalid.") from exc
        return {"events": [_event(each, partition.account_id) for each in shown], "nextToken": following}


def _group(call: Call) -> str:
    name, identifier = call.get("logGroupName"), call.get("logGroupIdentifier")
    if (name is None) == (identifier is None):
        raise APIError("InvalidParameterException", "Specify either logGroupName or logGroupIdentifier.")
    return str(name or identifier.removesuffix(":*").rpartition(":log-group:")[2])


def _here(region: str | None, call: Call) -> bool:
    return region == call.partition.region


def _event(entry: brokerlog.LogEntry, account_id: str) -> Mapping[str, Any]:
    return {
        "logStreamName": f"{account_id}_0",
        "timestamp": entry.milliseconds,
        "message": entry.message,
        "ingestionTime": entry.milliseconds,
        "eventId": f"{entry.number:056d}",
    }
