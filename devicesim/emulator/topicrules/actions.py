"""What the actions of a topic rule do: an action and a message in, a message to publish or a request to send out. Pure.

    compiled = compile_action(action, template)       # once
    compiled.republish(substitute, payload)           # on each message

``substitute(template)`` is the text of a substitution template on the message, or ``None`` where it is Undefined.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from devicesim.emulator.packets import NO_PROPERTIES, Properties
from devicesim.emulator.state.topicrules import templates_of
from devicesim.emulator.topicrules.tree import Template
from devicesim.emulator.topicrules.values import RuleEvaluationError, read_json

REPUBLISH: Final = "republish"
HTTP: Final = "http"
Substitute: TypeAlias = Callable[[Template], str | None]

_INDICATORS: Final[Mapping[str, int]] = {"UNSPECIFIED_BYTES": 0, "UTF8_DATA": 1}
_LONGEST_EXPIRY: Final = 0xFFFFFFFF
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OWN_HEADERS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_FAILED_NAMES: Final[Mapping[str, str]] = {REPUBLISH: "RepublishAction", HTTP: "HttpAction"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Republish:
    topic: str
    qos: int
    properties: Properties = NO_PROPERTIES
    expiry: int | None = None
    """Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPPost:
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    confirmation_url: str | None = None
    """Of the destination that must be ENABLED; ``None`` for a confirmation message itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledAction:
    """An action with its templates parsed."""

    kind: str
    """As in the API: ``republish``, ``http``, ``lambda``, ..."""
    settings: Mapping[str, Any]
    templates: Mapping[str, Template] = field(default_factory=dict)

    @property
    def failed_name(self) -> str:
        """``failedAction`` in an error action's message ("S3Action" in the developer guide, D; of these two I)."""
        return _FAILED_NAMES.get(self.kind, f"{self.kind[0].upper()}{self.kind[1:]}Action")

    @property
    def resource(self) -> str:
        """What the action is about, as it stands in the rule."""
        return str(self.settings.get("topic") or self.settings.get("url") or "")

    def unsupported(self) -> str | None:
        """Why the emulator does not execute this action; ``None`` when it does."""
        if self.kind not in (REPUBLISH, HTTP):
            return "there is no such service here"
        if self.settings.get("auth"):
            return "authorization by Signature Version 4 is not emulated"
        if self.settings.get("enableBatching"):
            return "batching is not emulated"
        return None

    def _text(self, name: str, substitute: Substitute) -> str:
        text = substitute(self.templates[name])
        if text is None:
            raise RuleEvaluationError(f"the substitution template in {name} is Undefined")
        return text

    def republish(self, substitute: Substitute) -> Republish:
        """Raises :class:`RuleEvaluationError` when the message's headers cannot be made."""
        headers = self.settings.get("headers") or {}
        fields: dict[str, Any] = {}
        texts = {
            name: self._text(f"headers.{name}", substitute)
            for name, held in headers.items()
            if held and name in _READERS
        }
        expiry: int | None = None
        for name, text in texts.items():
            target, read = _READERS[name]
            try:
                value = read(text)
            except (ValueError, KeyError, binascii.Error):
                raise RuleEvaluationError(f"the header {name} cannot be {text!r}") from None
            if target is None:
                expiry = value
            else:
                fields[target] = value
        pairs = headers.get("userProperties") or ()
        if pairs:
            fields["user_properties"] = tuple(
                (
                    self._text(f"headers.userProperties.{number}.key", substitute),
                    self._text(f"headers.userProperties.{number}.value", substitute),
                )
                for number in range(len(pairs))
            )
        return Republish(
            topic=self._text("topic", substitute),
            qos=self.settings.get("qos") or 0,
            properties=Properties(**fields) if fields else NO_PROPERTIES,
            expiry=expiry,
        )

    def post(self, substitute: Substitute, payload: bytes) -> HTTPPost:
        """Raises :class:`RuleEvaluationError` when the request cannot be made."""
        url = self._text("url", substitute)
        confirmation_url = self._text("confirmationUrl", substitute) if self.settings.get("confirmationUrl") else url
        if not url.startswith(confirmation_url):
            raise RuleEvaluationError(f"the url {url} does not begin with its confirmationUrl {confirmation_url}")
        headers: list[tuple[str, str]] = []
        held: Sequence[Mapping[str, str]] = self.settings.get("headers") or ()
        for number, header in enumerate(held):
            name, value = header["key"], self._text(f"headers.{number}.value", substitute)
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
                raise RuleEvaluationError(f"{name!r} cannot be the name of a header")
            if not _HEADER_VALUE.fullmatch(value):
                raise RuleEvaluationError(f"the value of the header {name} has characters that cannot be sent")
            headers.append((name, value.strip()))
        if not any(name.lower() == "content-type" for name, _ in headers):
            headers.append(("Content-Type", "application/json" if _is_json(payload) else "application/octet-stream"))
        return HTTPPost(url=url, headers=tuple(headers), body=payload, confirmation_url=confirmation_url)


def compile_action(action: Mapping[str, object], template: Callable[[str], Template]) -> CompiledAction:
    """``template`` parses a text, which was checked when the rule was made."""
    kind, settings = next(iter(action.items()))
    assert isinstance(settings, Mapping)
    templates = {where: template(text) for where, text in templates_of(action)}
    return CompiledAction(kind=kind, settings=settings, templates=templates)


def _is_json(payload: bytes) -> bool:
    try:
        read_json(payload.decode())
    except ValueError:
        return False
    return True


def _seconds(text: str) -> int:
    seconds = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else -1
    if not 0 < seconds <= _LONGEST_EXPIRY:
        raise ValueError(text)
    return seconds


def _response_topic(text: str) -> str:
    if not text or "+" in text or "#" in text:
        raise ValueError(text)
    return text


_READERS: Final[Mapping[str, tuple[str | None, Callable[[str], Any]]]] = {
    "payloadFormatIndicator": ("payload_format_indicator", _INDICATORS.__getitem__),
    "contentType": ("content_type", str),
    "responseTopic": ("response_topic", _response_topic),
    "correlationData": ("correlation_data", lambda text: base64.b64decode(text, validate=True)),
    "messageExpiry": (None, _seconds),
}
