"""Worker processes by Dask ``distributed``: on this machine, or on a cluster that is already there. Thin.

What is asked of the engine is little: start processes, run a function in one of them, run a task there to its end, say
who is alive. Nothing is left to it that it would decide otherwise than a run needs:

* **A task is never run again.** Dask restarts the task of a worker that died, and waits for ever where it was pinned to
  that worker's address (dask/distributed#7346). A share is kept in the memory of the process that it was given to, so
  that no other can run it; local processes are not replaced, and the scheduler is told to allow no failure.
* **What devices tell is fetched**, by functions run outside the task system. ``log_event`` keeps every message in the
  scheduler and knows no back pressure; ``Pub`` and ``Sub`` are gone (dask/distributed#8685); actors are lost silently.
* Dask's loop is asyncio's, in a thread of its own; trio waits for it. The thread blocks SIGINT and SIGTERM before it
  starts a process, and processes inherit that: a Ctrl-C in the terminal, and a supervisor's stop, reach us alone.
* On this machine all talk is mutual TLS with certificates made for the run: a scheduler runs whatever it is sent, and
  anyone on this machine could send it.
"""

import asyncio
import ipaddress
import logging
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from importlib.util import find_spec
from multiprocessing import active_children, resource_tracker
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import trio

from devicesim.errors import ClusterError, InputError

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")

_ADDRESS = re.compile(r"(?P<scheme>tcp|tls)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/@]+):(?P<port>[0-9]{1,5})")
_OURS = {signal.SIGINT, signal.SIGTERM}
"""What ends a run. Workers are ended by us, and end when we are gone."""
MAX_PORT = 65_535
_TLS_HINT = (
    "set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and "
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY, or the same in ~/.config/dask/distributed.yaml"
)
CONNECT_SECONDS = 10.0
"""To reach a scheduler."""
START_SECONDS = 60.0
"""For the processes on this machine to be there."""


class WorkerError(Exception):
    """A call did not come back from a worker with its result: the worker is gone, or what it was to run failed."""


class Cluster(Protocol):
    """Worker processes. A worker is named by its address."""

    async def alive(self) -> frozenset[str]:
        """Those that are there now. Raises :class:`WorkerError`."""

    async def call(self, worker: str, function: Callable[..., T], *arguments: object) -> T:
        """Run a function, which the worker imports by its name, beside whatever the worker does. It must not block.

        Raises :class:`WorkerError`, also for what it raised; or takes for ever when the worker is gone.
        """

    async def work(self, worker: str, function: Callable[..., None], *arguments: object) -> None:
        """Run a function in a thread of the worker's own, to its end. Raises as :meth:`call` does.

        Cancelled, it does not wait for the end, and does not bring it about.
        """


def distributed_is_there() -> bool:
    """Whether Dask is installed."""
    return find_spec("distributed") is not None


def require_distributed() -> None:
    """Raise :class:`~devicesim.errors.InputError` where Dask is not installed."""
    if not distributed_is_there():
        raise InputError(
            "more than one process needs Dask distributed, which is not installed",
            hint="pip install 'devicesim[distributed]', or --workers 1",
        )


def check_address(address: str) -> None:
    """Raise :class:`~devicesim.errors.InputError` for what is no address of a Dask scheduler."""
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found["port"]) <= MAX_PORT:
        raise InputError(
            f"scheduler {address!r} is no address; tcp://HOST:PORT or tls://HOST:PORT is expected",
            hint="dask scheduler prints its own: Scheduler at: tcp://...",
        )


def is_exposed(address: str) -> bool:
    """Whether what is sent to this scheduler, keys among it, can be read on the way."""
    found = _ADDRESS.fullmatch(address)
    return found is not None and found["scheme"] == "tcp" and not _is_loopback(found["host"])


def is_elsewhere(worker: str) -> bool:
    """Whether a worker may run on another machine than this, by its address."""
    found = _ADDRESS.fullmatch(worker)
    return found is not None and not _is_loopback(found["host"])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@asynccontextmanager
async def local_cluster(count: int) -> AsyncIterator[Cluster]:
    """So many processes on this machine, gone when left. Raises :class:`ClusterError`."""
    require_distributed()
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="devicesim-workers-"))
        stack.enter_context(_none_left())
        loop = stack.enter_context(_loop_in_a_thread())
        opened = await _opened(loop, _open_local(count, directory), stack, f"{count} processes could not be started")
        # Dask wants a place for what workers write to disk, and ours write nothing: nothing is left when we are killed
        shutil.rmtree(directory, ignore_errors=True)
        yield opened


@asynccontextmanager
async def remote_cluster(address: str) -> AsyncIterator[Cluster]:
    """The workers of a scheduler that runs already, left as they were. Raises :class:`ClusterError`."""
    check_address(address)
    require_distributed()
    _require_certificates(address)
    async with AsyncExitStack() as stack:
        loop = stack.enter_context(_loop_in_a_thread())
        yield await _opened(loop, _open_remote(address), stack, f"no Dask scheduler answers at {address!r}")


def _require_certificates(address: str) -> None:
    """Dask finds them in its own settings, and says of one that is missing what nobody understands."""
    from distributed import Security

    if not address.startswith("tls://"):
        return
    try:
        found = Security().get_connection_args("client")["ssl_context"]
    except OSError as exc:  # ssl.SSLError is one
        raise ClusterError(f"scheduler {address!r}: Dask's TLS files cannot be read: {exc}", hint=_TLS_HINT) from exc
    except (ValueError, TypeError) as exc:  # no check of Dask's own stands before them
        raise ClusterError(f"scheduler {address!r}: Dask's TLS settings cannot be used: {exc}", hint=_TLS_HINT) from exc
    if found is None:
        raise ClusterError(f"scheduler {address!r} needs a certificate, and Dask's settings name none", hint=_TLS_HINT)


# --- Dask's side: coroutines of asyncio ---


class _Opened:
    """A client, and what closes it."""

    def __init__(self, client: "Client", stack: AsyncExitStack) -> None:
        self.client = client
        self.stack = stack


async def _open_local(count: int, directory: str) -> _Opened:
    import dask.config
    from distributed import Client, LocalCluster, Nanny, Security

    settings = {
        "temporary-directory": directory,
        # what Dask measures of itself is not looked at, and wakes each process 50 to 100 times a second
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "1s",
        "distributed.admin.system-monitor.interval": "5s",
        # its HTTP servers cannot be switched off: they have nothing to say
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        # nothing is to be moved or freed
        "distributed.scheduler.work-stealing": False,
        "distributed.scheduler.active-memory-manager.start": False,
    }
    async with AsyncExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        _silence()
        security = Security.temporary()
        cluster = await stack.enter_async_context(
            LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                silence_logs=logging.CRITICAL,
                memory_limit=0,  # a share is not stopped because it has many devices
                scheduler_kwargs={"allowed_failures": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"},
                security=security,
                asynchronous=True,
            )
        )
        client = await stack.enter_async_context(Client(cluster, asynchronous=True, set_as_default=False))
        for nanny in cluster.workers.values():
            assert isinstance(nanny, Nanny)
            nanny.close_gracefully(reason="a process that died is not to be replaced")
        return _Opened(client, stack.pop_all())


async def _open_remote(address: str) -> _Opened:
    from distributed import Client

    _silence()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            Client(address, asynchronous=True, set_as_default=False, timeout=CONNECT_SECONDS)
        )
        return _Opened(client, stack.pop_all())


def _silence() -> None:
    """Dask logs to standard error; what goes wrong with a worker is told by us, once."""
    for name in ("distributed", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


async def _alive(client: "Client") -> frozenset[str]:
    threads = await client.nthreads()
    return frozenset(threads)


async def _call(client: "Client", worker: str, function: Callable[..., Any], arguments: tuple[object, ...]) -> Any:
    results = await client.run(function, *arguments, workers=[worker])
    return results[worker]


async def _work(client: "Client", worker: str, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    future = client.submit(
        function, *arguments, workers=[worker], allow_other_workers=False, pure=False, retries=0, priority=1
    )
    await future


# --- trio's side ---


class _DaskCluster:
    def __init__(self, loop: asyncio.AbstractEventLoop, client: "Client") -> None:
        self._loop = loop
        self._client = client

    async def alive(self) -> frozenset[str]:
        return await self._awaited(_alive(self._client))

    async def call(self, worker: str, function: Callable[..., T], *arguments: object) -> T:
        result: T = await self._awaited(_call(self._client, worker, function, arguments))
        return result

    async def work(self, worker: str, function: Callable[..., None], *arguments: object) -> None:
        await self._awaited(_work(self._client, worker, function, arguments))

    async def _awaited(self, coroutine: Coroutine[Any, Any, T]) -> T:
        from distributed import KilledWorker

        try:
            return await _on(self._loop, coroutine)
        except KilledWorker as exc:
            raise WorkerError("its process has ended") from exc
        except Exception as exc:  # whatever Dask, its transport or the function called raises
            raise WorkerError(f"{type(exc).__name__}: {exc}".splitlines()[0]) from exc


async def _opened(
    loop: asyncio.AbstractEventLoop, opening: Coroutine[Any, Any, _Opened], stack: AsyncExitStack, otherwise: str
) -> Cluster:
    try:
        with trio.fail_after(START_SECONDS):
            opened = await _on(loop, opening)
    except (OSError, RuntimeError, ValueError, trio.TooSlowError) as exc:
        raise ClusterError(f"{otherwise}: {str(exc) or type(exc).__name__}") from exc

    async def close() -> None:
        with trio.CancelScope(shield=True), suppress(OSError, TimeoutError):
            await _on(loop, opened.stack.aclose())

    stack.push_async_callback(close)
    return _DaskCluster(loop, opened.client)


async def _on(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine of asyncio's from trio; cancelled here, it is cancelled there."""
    token, over = trio.lowlevel.current_trio_token(), trio.Event()

    def tell(_: object) -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(over.set)

    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    future.add_done_callback(tell)
    try:
        await over.wait()
    except trio.Cancelled:
        future.cancel()
        raise
    return future.result()


@contextmanager
def _none_left() -> Iterator[None]:
    """Ends processes that Dask has left: it forgets those that were on their way when its start was cancelled.

    Python would wait for them at exit, after a SIGTERM that they block, for ever.
    """
    before = active_children()
    try:
        yield
    finally:
        for each in active_children():
            if each not in before:
                each.kill()


@contextmanager
def _loop_in_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_run_loop, args=(loop,), name="dask", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    # the tracker, which starts with the first process, lets them through again in the thread that starts it
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
