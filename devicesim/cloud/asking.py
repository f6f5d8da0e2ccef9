"""Read-only questions to an account, each of which may be refused without ending anything."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from devicesim.cloud.account import AccountClient, ControlPlaneError
from devicesim.errors import TargetError

_ABSENT = frozenset({"ResourceNotFoundException", "NoSuchEntity"})
"""What AWS IoT, CloudWatch Logs and IAM say when there is no such thing, which is an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a question."""

    found: Mapping[str, Any] | None = None
    """``None``: there is no such thing, or :attr:`refusal`."""
    refusal: str | None = None
    """Why it is not known, in one line."""

    @property
    def absent(self) -> bool:
        """The account says that there is none."""
        return self.found is None and self.refusal is None


class Asker:
    """Asks, remembers the answers, and notes what was refused. One for each device: see :meth:`another`."""

    def __init__(self, client: AccountClient, known: dict[str, Answer] | None = None) -> None:
        self.client = client
        self.refused: dict[str, None] = {}
        """In the order in which they were asked, each once."""
        self._known = {} if known is None else known

    def another(self) -> "Asker":
        """One with the same answers, and its own notes."""
        return Asker(self.client, self._known)

    async def ask(self, operation: str, /, *, service: str = "iot", **parameters: Any) -> Answer:
        """One call by its boto3 name, or what it answered before."""
        key = json.dumps([service, operation, parameters], sort_keys=True)
        if key not in self._known:
            self._known[key] = await self._ask(service, operation, parameters)
        answer = self._known[key]
        if answer.refusal is not None:
            self.refuse(answer.refusal)
        return answer

    async def _ask(self, service: str, operation: str, parameters: Mapping[str, Any]) -> Answer:
        try:
            return Answer(found=await self.client.ask(service, operation, **parameters))
        except ControlPlaneError as exc:
            return Answer() if exc.code in _ABSENT else Answer(refusal=reason(exc))
        except TargetError as exc:
            return Answer(refusal=reason(exc))

    def refuse(self, line: str) -> None:
        """Note what could not be asked."""
        self.refused[line] = None


def reason(exc: TargetError) -> str:
    """An error of :class:`AccountClient` without the account, which whoever reads the note knows."""
    head, cut, rest = str(exc).partition("): ")
    return rest if cut and head.startswith("account ") else str(exc)
