"""The emulator inside another program: for trio code here, for tests that block in :mod:`devicesim.pytest`.

    async with open_emulator(accounts=2) as emulator:
        first, second = emulator.accounts
        iot = first.client("iot")                # boto3; wait for it in a thread, the emulator runs in this loop
        ...
        emulator.core.history.select(certificate_id=...)

An :class:`Emulator` is the same in both: where everything is, its accounts, and its second door without HTTP. Code of
the emulator runs in its own trio loop; whoever stands in another thread calls through :meth:`Emulator.call`, as all of
its methods do.
"""

import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from devicesim.emulator.core import Core
from devicesim.emulator.explain import Question
from devicesim.emulator.faults import Fault
from devicesim.emulator.quotas import Quotas
from devicesim.emulator.service import AccountConfig, AccountReady, EmulatorConfig, Ready, serve
from devicesim.emulator.settings import Settings
from devicesim.errors import leaves

DEFAULT_REGION = "us-east-1"
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0

Result = TypeVar("Result")


def made_up_account_id(number: int) -> str:
    """111111111111 to 999999999999, then made-up ones: easy to tell apart in a log."""
    return str(number) * 12 if number < 10 else f"{number:012d}"


def made_up_accounts(count: int, region: str = DEFAULT_REGION) -> tuple[AccountConfig, ...]:
    """``account-1`` to ``account-<count>``."""
    return tuple(
        AccountConfig(name=f"account-{number}", account_id=made_up_account_id(number), region=region)
        for number in range(1, count + 1)
    )


def quick() -> Settings:
    """Settings of a test that does not wait: JITP at once, and no quota."""
    return Settings(jitp_delay=(0.0, 0.0), quotas=Quotas.lifted())


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account of a running emulator, for programs that are its clients."""

    name: str
    account_id: str
    region: str
    endpoint: str
    """The server name (SNI) that selects the account."""
    mqtt_host: str
    mqtt_port: int
    """Where devices of the account dial to, whatever the endpoint's name resolves to."""
    mqtt_alpn_port: int
    """The same as on AWS's port 443: with ALPN ``x-amzn-mqtt-ca``."""
    ca_file: Path
    """PEM of the root that devices must trust."""
    api: str
    """URL of the control plane."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that point ``aws``, boto3 and every other SDK of a child process at the account."""
        return {
            "AWS_ENDPOINT_URL": self.api,
            "AWS_ACCESS_KEY_ID": self.account_id,
            "AWS_SECRET_ACCESS_KEY": "devicesim",
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def session(self) -> Any:
        """A ``boto3.Session`` of the account. Its clients still need ``endpoint_url=account.api``: :meth:`client`."""
        import boto3  # the device side of a test has no use for it

        return boto3.Session(
            aws_access_key_id=self.account_id,
            aws_secret_access_key="devicesim",  # noqa: S106 - the emulator asks for none
            region_name=self.region,
        )

    def client(self, service: str = "iot", **options: Any) -> Any:
        """A boto3 client of the account: ``iot``, ``iot-data`` or ``sts``; ``options`` as of ``Session.client``."""
        return self.session().client(service, **{"endpoint_url": self.api, **options})


class Emulator:
    """One that runs. Methods may be called from its own loop and from other threads."""

    def __init__(self, ready: Ready) -> None:
        self.ready = ready
        self.accounts: Sequence[Account] = tuple(_account(ready, each) for each in ready.accounts)
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()

    def __repr__(self) -> str:
        return f"<Emulator {self.ready.api} with {len(self.accounts)} accounts>"

    @property
    def api(self) -> str:
        """URL of the control plane."""
        return self.ready.api

    @property
    def core(self) -> Core:
        """What runs, for code in its loop; from another thread see :meth:`call`."""
        return self.ready.core

    def account(self, name: str) -> Account:
        """By name or account id."""
        for each in self.accounts:
            if name in (each.name, each.account_id):
                return each
        raise KeyError(f"no account {name!r}, there are {', '.join(each.name for each in self.accounts)}")

    def call(self, work: Callable[[], Result]) -> Result:
        """``work()`` where the emulator runs: between two of its steps."""
        if threading.get_ident() == self._thread:
            return work()
        return trio.from_thread.run_sync(work, trio_token=self._token)

    def history(self, **filters: Any) -> list[Mapping[str, object]]:
        """What the emulator saw and decided, oldest first; filters are those of :meth:`History.select`."""
        entries = self.call(partial(self.core.history.select, **filters))
        return [entry.to_json() for entry in entries]

    def explain(self, certificate_id: str, **asked: str) -> Mapping[str, Any]:
        """Why a device is or is not connected; what is asked beside the id are fields of
        :class:`~devicesim.emulator.explain.Question`. ``LookupError`` when nobody knows the certificate."""
        question = Question(certificate_id=certificate_id, **asked)  # type: ignore[arg-type]  # all but one are strings
        return self.call(partial(self.core.explainer.explain, question))

    def inject(self, **fault: Any) -> str:
        """Put a fault on the board, by the fields of :class:`~devicesim.emulator.faults.Fault`; answers its name."""
        made = Fault(**fault)
        return self.call(lambda: self.core.faults.inject(made, self.core.clock.now()).name)

    def clear_faults(self) -> None:
        self.call(self.core.faults.clear)

    def advance(self, seconds: float) -> None:
        """Put the emulator's clock forward."""
        self.call(partial(self.core.plane.advance, seconds))

    def reset(self) -> None:
        """Back to the beginning: empty accounts, nobody connected, no history, no fault."""
        self.call(self.core.reset)


def _account(ready: Ready, account: AccountReady) -> Account:
    return Account(
        name=account.name,
        account_id=account.account_id,
        region=account.region,
        endpoint=account.endpoint,
        mqtt_host=account.mqtt_host,
        mqtt_port=account.mqtt_port,
        mqtt_alpn_port=account.mqtt_alpn_port,
        ca_file=ready.ca_file,
        api=ready.api,
    )


@asynccontextmanager
async def open_emulator(
    accounts: int | Sequence[AccountConfig] = 2,
    *,
    region: str = DEFAULT_REGION,
    settings: Settings | None = None,
    seed: int | None = None,
    state: Path | None = None,
) -> AsyncIterator[Emulator]:
    """An emulator in this loop, on free ports of loopback, gone with the block.

    ``accounts`` is how many, in ``region``, or which. Quotas and JITP delays are AWS's unless ``settings`` say
    otherwise (:func:`quick`). Raises as :func:`~devicesim.emulator.service.serve`.
    """
    configured = made_up_accounts(accounts, region) if isinstance(accounts, int) else tuple(accounts)
    config = EmulatorConfig(accounts=configured, settings=settings or Settings(), seed=seed, state=state)
    raised: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            ready = await nursery.start(lambda *, task_status: serve(config, task_status=task_status))
            try:
                yield Emulator(ready)
            except Exception as exc:
                raised = exc
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise _the_one(group) from raised
    if raised is not None:
        raise raised


@contextmanager
def emulator_in_a_thread(
    accounts: int | Sequence[AccountConfig] = 2,
    *,
    region: str = DEFAULT_REGION,
    settings: Settings | None = None,
    seed: int | None = None,
    state: Path | None = None,
) -> Iterator[Emulator]:
    """The same for code that blocks: the emulator has a thread of its own."""
    started: queue.SimpleQueue[Emulator | BaseException] = queue.SimpleQueue()
    stop = trio.Event()

    async def run() -> None:
        async with open_emulator(accounts, region=region, settings=settings, seed=seed, state=state) as emulator:
            started.put(emulator)
            await stop.wait()

    def main() -> None:
        try:
            trio.run(run)
        except BaseException as exc:
            started.put(exc)

    thread = threading.Thread(target=main, name="devicesim emulator", daemon=True)
    thread.start()
    emulator = started.get(timeout=_START_SECONDS)
    if isinstance(emulator, BaseException):
        thread.join(_STOP_SECONDS)
        raise emulator
    try:
        yield emulator
    finally:
        _stop(emulator, stop, thread)
    if not started.empty():
        failed = started.get()
        assert isinstance(failed, BaseException)
        raise failed


def _stop(emulator: Emulator, stop: trio.Event, thread: threading.Thread) -> None:
    with suppress(trio.RunFinishedError):  # it ended by itself; why is told after this
        emulator._token.run_sync_soon(stop.set)
    thread.join(_STOP_SECONDS)
    if thread.is_alive():
        raise RuntimeError(f"the emulator did not stop within {_STOP_SECONDS:g} s")


def _the_one(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The only error there is, without the nurseries around it."""
    errors = list(leaves(group))
    return errors[0] if len(errors) == 1 else group
