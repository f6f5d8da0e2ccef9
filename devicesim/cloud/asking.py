"""Read-only questions to an account, each of which may be refused without ending anything."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import trio

from devicesim.cloud.account import AccountClient, ControlPlaneError
from devicesim.errors import TargetError

ACTIONS = (
    "cloudtrail:LookupEvents",
    "iam:GetRole",
    "iot:DescribeBillingGroup",
    "iot:DescribeCACertificate",
    "iot:DescribeCertificate",
    "iot:DescribeEndpoint",
    "iot:DescribeProvisioningTemplate",
    "iot:DescribeThing",
    "iot:DescribeThingGroup",
    "iot:DescribeThingType",
    "iot:GetEffectivePolicies",
    "iot:GetPolicy",
    "iot:ListAttachedPolicies",
    "iot:ListCACertificates",
    "iot:ListPrincipalThings",
    "iot:TestAuthorization",
    "logs:FilterLogEvents",
)
"""All that a diagnosis asks of an account, as IAM names it; ``sts:GetCallerIdentity`` takes no permission."""
ANSWER_SECONDS = 15.0
"""For an answer, with all that boto3 tries again: by itself it takes minutes to give up who does not answer."""
_ABSENT = frozenset({"ResourceNotFoundException", "NoSuchEntity"})
"""What AWS IoT, CloudWatch Logs and IAM say when there is no such thing, which is an answer."""
_ASKED_AS = {"nextMarker": "marker"}
"""Members by which an answer goes on, and the next request."""
_ACCOUNT = re.compile(r"^account '[^']*'(?: \([^)]*\))?: ")


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

    def __init__(self, client: AccountClient, like: "Asker | None" = None) -> None:
        self.client = client
        self.refused: dict[str, None] = {}
        """In the order in which they were asked, each once."""
        self._known: dict[str, Answer] = {} if like is None else like._known
        self._answers: dict[str, bool] = {} if like is None else like._answers
        """Whether a service has ever answered, by its name: one that has not is not waited for again."""

    def another(self) -> "Asker":
        """One with the same answers, and its own notes."""
        return Asker(self.client, self)

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
        if self._answers.get(service) is False:
            return Answer(refusal=f"{operation} was not asked: {service} did not answer before")
        try:
            with answered_in_time(operation, self.client):
                answer = Answer(found=await self.client.ask(service, operation, **parameters))
        except ControlPlaneError as exc:
            answer = Answer() if exc.code in _ABSENT else Answer(refusal=reason(exc))
        except TargetError as exc:
            self._answers.setdefault(service, False)
            return Answer(refusal=reason(exc))
        self._answers[service] = True
        return answer

    async def ask_pages(
        self, operation: str, key: str, goes_on_by: str, /, *, service: str = "iot", most: int, **parameters: Any
    ) -> list[Any] | None:
        """What stands under ``key`` on the pages of an operation, ``most`` of them, which go on by that member of the
        answer; ``None``: there is no such thing, or it was refused."""
        items: list[Any] = []
        for _ in range(most):
            found = (await self.ask(operation, service=service, **parameters)).found
            if found is None:
                return None
            items += found.get(key, ())
            if not found.get(goes_on_by):
                return items
            parameters[_ASKED_AS.get(goes_on_by, goes_on_by)] = found[goes_on_by]
        self.refuse(f"{operation}: there were more than {len(items)} {key}; the others were not looked at")
        return items

    def refuse(self, line: str) -> None:
        """Note what could not be asked."""
        self.refused[line] = None


@contextmanager
def answered_in_time(operation: str, client: AccountClient) -> Iterator[None]:
    """Raises :class:`TargetError` where the control plane takes longer than :data:`ANSWER_SECONDS`."""
    try:
        with trio.fail_after(ANSWER_SECONDS):
            yield
    except trio.TooSlowError as exc:
        access = client.access
        where = f"account {access.name!r} ({access.account_id}, {access.region})"
        raise TargetError(f"{where}: {operation} failed: no answer within {ANSWER_SECONDS:g} s") from exc


def reason(exc: TargetError) -> str:
    """An error of :class:`AccountClient` without the account, which whoever reads the note knows."""
    return _ACCOUNT.sub("", str(exc))
