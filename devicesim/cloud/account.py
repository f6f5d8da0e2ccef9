"""One account's control plane through boto3: the same code for AWS and for the emulator.

boto3 blocks, so every call runs in a worker thread, at most :data:`PARALLEL_CALLS` at once an account: AWS throttles
most of these operations at 10 to 15 a second (aws-iot-behaviour.md §6), more would only be turned away.
"""

import functools
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import boto3
import botocore.session
import trio
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from devicesim.cloud.turns import Turns
from devicesim.errors import TargetError

PARALLEL_CALLS = 8
MAX_THROTTLED_TRIES = 100
"""Some three minutes of one call: AWS allows 10 of most a second to an account, however many a fleet needs."""
_LOOK_AGAIN_SECONDS = 0.05
_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}


class ControlPlaneError(TargetError):
    """A control-plane call was refused. ``code`` is AWS's name of the error, ``fields`` what else it carried."""

    def __init__(self, message: str, *, code: str, fields: Mapping[str, Any], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.fields = dict(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountAccess:
    """Where one account's control plane is and how to prove who we are."""

    name: str
    """Name in the fleet file."""
    account_id: str
    region: str
    endpoint_url: str | None = None
    """``None`` is AWS itself."""
    profile: str | None = None
    """AWS profile; ``None`` is boto3's default chain, or, with ``emulated``, the account id as access key id."""
    emulated: bool = False
    """An emulator: credentials are made up, and its absence is noticed soon."""

    def arn(self, resource: str) -> str:
        """The ARN of an IoT resource of this account, such as ``cert/<id>``."""
        partition = next((name for prefix, name in _PARTITIONS.items() if self.region.startswith(prefix)), "aws")
        return f"arn:{partition}:iot:{self.region}:{self.account_id}:{resource}"


class AccountClient:
    """The calls to one account. Safe to share between tasks.

    Most are of AWS IoT (:meth:`call`, :meth:`pages`); of other services there is :meth:`ask`.
    """

    def __init__(self, access: AccountAccess, *, calls_per_second: float | None = None) -> None:
        """``calls_per_second`` is the most of each operation: quotas are shared with the account's other users."""
        self.access = access
        self._limiter = trio.CapacityLimiter(PARALLEL_CALLS)
        self._turns = Turns(calls_per_second)
        self._abandoned: list[threading.Event] = []
        """Set when a call ends that nobody waits for any more."""
        self._session: boto3.Session | None = None
        self._clients: dict[str, Any] = {}
        self._make_clients()

    async def call(self, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """One IoT operation by its boto3 name (``register_ca_certificate``).

        Raises :class:`ControlPlaneError` when it is refused, :class:`TargetError` when it could not be asked.
        """
        return await self.ask("iot", operation, **parameters)

    async def ask(self, service: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """The same of another service by its boto3 name (``cloudtrail``, ``logs``, ``iam``)."""
        answer: dict[str, Any] = await self._run(getattr(self._client(service), operation), operation, parameters)
        return answer

    async def pages(self, operation: str, key: str, **parameters: Any) -> AsyncIterator[Any]:
        """Every item under ``key`` of a paged IoT operation."""
        paginator = self._client("iot").get_paginator(operation)
        pages = iter(paginator.paginate(**parameters))
        while True:
            page = await self._run(functools.partial(next, pages, {}), operation, {})
            for item in page.get(key, ()):
                yield item
            if not (page.get("nextMarker") or page.get("nextToken")):
                return  # the paginator would say so without a call, but only when it has its turn

    async def check_identity(self) -> None:
        """Raise :class:`TargetError` unless the credentials are for the account that the fleet file names."""
        identity = await self.ask("sts", "get_caller_identity")
        if identity["Account"] != self.access.account_id:
            raise TargetError(
                f"account {self.access.name!r}: the credentials are for account {identity['Account']}, "
                f"the fleet file says {self.access.account_id}",
                hint="correct accounts.*.id or accounts.*.profile",
            )

    async def idle(self) -> None:
        """Wait until calls that were cancelled have come to their end: what they make is made then."""
        while self._abandoned:
            if self._abandoned[-1].is_set():
                self._abandoned.pop()
            else:
                await trio.sleep(_LOOK_AGAIN_SECONDS)

    def rest(self) -> None:
        """Let go of what boto3 needs, 13 MiB, for as long as nothing is asked: the next call makes it again, in 0.1 s.

        Not while a call is under way.
        """
        self.close()
        self._clients.clear()
        self._session = None
        _service_models.cache_clear()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            if self._session is None:
                self._make_clients()
            if service not in self._clients:
                self._clients[service] = self._make_client(service)
        return self._clients[service]

    def _make_clients(self) -> None:
        """Those that every account needs."""
        access = self.access
        try:
            core = botocore.session.Session()
            core.register_component("data_loader", _service_models())
            self._session = (
                boto3.Session(
                    botocore_session=core,
                    aws_access_key_id=access.account_id,
                    aws_secret_access_key="emulated",  # noqa: S106  # the emulator takes any
                    region_name=access.region,
                )
                if access.emulated
                else boto3.Session(botocore_session=core, profile_name=access.profile, region_name=access.region)
            )
            self._config = Config(
                retries={
                    "mode": "standard" if access.emulated else "adaptive",
                    "max_attempts": 3 if access.emulated else 8,
                },
                max_pool_connections=PARALLEL_CALLS,
                connect_timeout=10,
                read_timeout=60,
            )
            for service in ("iot", "sts"):
                self._clients[service] = self._make_client(service)
        except BotoCoreError as exc:
            raise TargetError(
                f"account {access.name!r}: {_one_line(exc)}", hint="name a profile that exists: accounts.*.profile"
            ) from exc
        except ValueError as exc:  # what botocore raises for a URL that it cannot use
            raise TargetError(
                f"account {access.name!r}: endpoint URL {access.endpoint_url!r} cannot be used: {_one_line(exc)}",
                hint="a control plane's URL is such as http://127.0.0.1:8080",
            ) from exc

    def _make_client(self, service: str) -> Any:
        assert self._session is not None
        client = self._session.client(service, endpoint_url=self.access.endpoint_url, config=self._config)
        client.meta.events.register_last(f"needs-retry.{service}", _again_when_throttled)
        return client

    async def _run(self, function: Any, operation: str, parameters: Mapping[str, Any]) -> Any:
        where = f"account {self.access.name!r} ({self.access.account_id}, {self.access.region}): {operation}"
        await self._turns.take(operation)
        begun, ended = threading.Lock(), threading.Event()

        def work() -> Any:
            if not begun.acquire(blocking=False):
                return None  # cancelled before it began
            try:
                return function(**parameters)
            finally:
                ended.set()

        try:
            return await trio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)
        except trio.Cancelled:
            if not begun.acquire(blocking=False):
                self._abandoned.append(ended)
            raise
        except ClientError as exc:
            error = exc.response.get("Error", {})
            code, text = str(error.get("Code", "")), str(error.get("Message", ""))
            fields = {name: value for name, value in exc.response.items() if name not in ("Error", "ResponseMetadata")}
            raise ControlPlaneError(f"{where} refused: {code}: {text}", code=code, fields=fields) from exc
        except ResponseParserError as exc:  # not of botocore's own tree of errors
            raise TargetError(
                f"{where} failed: the answer is not AWS's: {_one_line(exc)}", hint="is the URL that of a control plane?"
            ) from exc
        except BotoCoreError as exc:
            raise TargetError(f"{where} failed: {_one_line(exc)}") from exc


@functools.cache
def _service_models() -> Any:
    """What reads botocore's models: each once for all accounts, and not once for each, which takes 0.1 s."""
    return botocore.session.Session().get_component("data_loader")


def _again_when_throttled(response: tuple[Any, dict[str, Any]] | None, attempts: int, **_: Any) -> float | None:
    """botocore's question whether to try again, after its own handlers: for a quota's next second is waited."""
    if response is None or attempts > MAX_THROTTLED_TRIES:
        return None
    code = response[1].get("Error", {}).get("Code")
    return min(0.25 * attempts, 2.0) if code == "ThrottlingException" else None


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:300]
