"""The message broker's entries in CloudWatch Logs, made of the emulator's history. Pure.

What is logged, and where, is the account's choice (SetV2LoggingOptions), as on AWS: without it there is no log, and
``Connection.AuthNError`` takes an event configuration of its own (aws-iot-behaviour.md §8, D). The options that stand
when the log is read decide, also on what was before them: here the emulator is kinder than AWS.

Members are those of the developer guide ("CloudWatch Logs AWS IoT log entries", D). An AuthNError names neither client
nor certificate: it has the server name, addresses, a reason and details (D; what details say is I).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

from devicesim.emulator.admission import Verdict
from devicesim.emulator.connection import DisconnectReason
from devicesim.emulator.history import Entry, Kind
from devicesim.emulator.state.records import LoggingOptions

LOG_GROUP: Final = "AWSIotLogsV2"
"""Unless an event configuration names another."""
_LEVELS: Final = ("DEBUG", "INFO", "WARN", "ERROR", "DISABLED")
_OPT_IN: Final = frozenset({"Connection.AuthNError"})
_SPELT: Final = {DisconnectReason.DUPLICATE_CLIENTID.value: "DUPLICATE_CLIENT_ID"}
"""disconnectReason is spelt otherwise in the log than in lifecycle events (§5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of the log."""

    number: int
    """That of the history's entry."""
    milliseconds: int
    """Since the Unix epoch."""
    members: Mapping[str, object]

    @property
    def message(self) -> str:
        return json.dumps(self.members)


def groups(options: LoggingOptions) -> frozenset[str]:
    """The log groups that AWS IoT writes to: none while nothing is logged."""
    destinations = {event.destination for event in options.events if event.destination is not None}
    return frozenset() if options.disabled else frozenset({LOG_GROUP, *destinations})


def entries(history: list[Entry], options: LoggingOptions, group: str) -> Iterator[LogEntry]:
    """The lines of a log group, in the order of ``history``."""
    if options.disabled:
        return
    for entry in history:
        members = _members(entry)
        if members is None:
            continue
        level, where = _configured(options, str(members["eventType"]))
        if where == group and _LEVELS.index(level) <= _LEVELS.index(str(members["logLevel"])):
            yield LogEntry(number=entry.number, milliseconds=int(entry.time * 1000), members=members)


def _configured(options: LoggingOptions, event_type: str) -> tuple[str, str]:
    """The least level that is logged of a type of event, and the log group."""
    for event in options.events:
        if event.event_type == event_type:
            return event.level or options.level or "DISABLED", event.destination or LOG_GROUP
    return "DISABLED" if event_type in _OPT_IN else options.level or "DISABLED", LOG_GROUP


def _members(entry: Entry) -> Mapping[str, object] | None:
    """``None``: the message broker logs nothing of it."""
    match entry.kind, entry.verdict:
        case Kind.CONNECTION, Verdict.ADMITTED:
            return _common(entry, "INFO", "Success", "Connect") | _client(entry)
        case Kind.CONNECTION, Verdict.DENIED if entry.logged_by_aws:
            why = {"reason": entry.reason, "details": "Authorization Failure"}
            return _common(entry, "ERROR", "Failure", "Connect") | _client(entry) | why
        case Kind.CONNECTION, Verdict.REFUSED if entry.logged_by_aws:
            why = {"reason": entry.reason, "details": entry.detail}
            name = {"authenticationType": "AWS_X509", "serverNameIndication": entry.server_name}
            return _common(entry, "ERROR", "Failure", "Connection.AuthNError") | name | _source(entry) | why
        case Kind.DISCONNECT, _:
            reason = entry.reason or ""
            why = {"reason": entry.detail, "disconnectReason": _SPELT.get(reason, reason)}
            return _common(entry, "INFO", "Success", "Disconnect") | _client(entry) | why
        case _:
            return None


def _common(entry: Entry, level: str, status: str, event_type: str) -> dict[str, object]:
    when = datetime.fromtimestamp(entry.time, UTC).isoformat(" ", "milliseconds")
    return {
        "timestamp": when.removesuffix("+00:00"),
        "logLevel": level,
        "traceId": str(UUID(bytes=sha256(f"{entry.number}/{entry.time}".encode()).digest()[:16])),
        "accountId": entry.account_id,
        "status": status,
        "eventType": event_type,
    }


def _client(entry: Entry) -> dict[str, object]:
    who = {"protocol": "MQTT", "clientId": entry.client_id, "principalId": entry.certificate_id}
    return who | _source(entry)


def _source(entry: Entry) -> dict[str, object]:
    return {"sourceIp": entry.source_ip, "sourcePort": entry.source_port}
