"""The records of topic rules and of the destinations of their HTTP actions."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRule:
    name: str
    arn: str
    sequence: int
    sql: str
    sql_version: str
    topic_filter: str | None
    """Of FROM; ``None`` for a rule that only Basic Ingest could trigger."""
    actions: tuple[Mapping[str, object], ...]
    """As the API sent them: one member each, named like the action."""
    error_action: Mapping[str, object] | None
    description: str | None
    disabled: bool
    created_at: float


class DestinationStatus(StrEnum):
    ENABLED = "ENABLED"
    IN_PROGRESS = "IN_PROGRESS"
    """A confirmation message was sent, and its token has not come back."""
    DISABLED = "DISABLED"
    ERROR = "ERROR"
    """The token did not come back in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleDestination:
    """Where HTTP actions may send to, once it is confirmed."""

    arn: str
    sequence: int
    confirmation_url: str
    status: DestinationStatus
    token: str
    """Of the latest confirmation message."""
    token_expires: float
    """Seconds since the Unix epoch."""
    created_at: float
    last_updated_at: float
    status_reason: str | None = None
