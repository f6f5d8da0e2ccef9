"""One HTTP request and one response, whole, as the protocols of the control plane see them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPRequest:
    method: str
    path: str
    """Still percent-encoded, so that a slash inside a label is not one between labels."""
    query: str = ""
    """Without the question mark, still encoded."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPResponse:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case; without content-length."""
