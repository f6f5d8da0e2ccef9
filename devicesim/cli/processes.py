"""The processes that drive the devices of a run, or of a search of runs: how many, opened when they are needed."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import click

from devicesim.cli.limits import read_machine
from devicesim.fleet.arrival import schedule_of
from devicesim.fleet.cluster import (
    Cluster,
    check_address,
    distributed_is_there,
    is_elsewhere,
    is_exposed,
    local_cluster,
    remote_cluster,
    require_distributed,
)
from devicesim.fleet.spec import Fleet
from devicesim.fleet.workers import Note, Workers, default_workers, muster


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOptions:
    """What the command line says of them."""

    workers: int | None
    """``None``: as many as it takes."""
    scheduler: str | None
    """Of a Dask cluster that runs already."""
    emulated: bool
    """Beside an emulator of ours."""


def check_workers(workers: int | None, scheduler: str | None, sources: tuple[str, ...]) -> None:
    """Raise for what cannot be had, before anything is made or started."""
    if scheduler is not None:
        check_address(scheduler)
        if sources:
            raise click.UsageError("--source-address names addresses of this machine; with --scheduler others dial")
    if scheduler is not None or (workers or 1) > 1:
        require_distributed()


def wanted_workers(fleet: Fleet, *, devices: int, emulated: bool) -> int:
    """Processes for a run of so many of a fleet's devices that does not say how many; ``emulated``: beside an emulator
    of ours."""
    if not distributed_is_there():
        return 1
    return default_workers(
        cores=read_machine().cpus,
        emulated=emulated,
        devices=devices,
        rate=schedule_of(fleet.file.arrival, devices).peak_rate,
    )


class Processes:
    """Those of a command: opened for its first run, and more of them when a later one needs more. Never fewer: what a
    process costs when it has little to do is less than what starting it does."""

    def __init__(self, options: ProcessOptions, stack: AsyncExitStack, warn: Callable[[str], None]) -> None:
        """They end with ``stack``; ``warn`` is told, in one line, what should be known of them."""
        self._options = options
        self._stack = stack
        self._warn = warn
        self._count = 1
        self._opened: tuple[Cluster, tuple[str, ...]] | None = None
        self._local = AsyncExitStack()

    async def driver(self, fleet: Fleet, devices: int, note: Note) -> Workers | None:
        """What drives so many devices of ``fleet``, or ``None``: this process does. ``note`` takes lines for the run's
        record.

        Raises :class:`~devicesim.errors.DevicesimError` for processes that cannot be had.
        """
        if self._options.scheduler is not None:
            if self._opened is None:
                self._opened = await self._remote(self._options.scheduler)
        else:
            count = self._options.workers or wanted_workers(fleet, devices=devices, emulated=self._options.emulated)
            if count > self._count:
                await self._grow(count)
        return None if self._opened is None else Workers(*self._opened, note)

    async def _grow(self, count: int) -> None:
        """So many processes on this machine, in place of those that there are, which have nothing to do now."""
        if self._opened is None:
            self._local = await self._stack.enter_async_context(AsyncExitStack())
        self._opened = None
        await self._local.aclose()
        cluster = await self._local.enter_async_context(local_cluster(count))
        self._opened = cluster, await muster(cluster, count)
        self._count = count

    async def _remote(self, scheduler: str) -> tuple[Cluster, tuple[str, ...]]:
        if is_exposed(scheduler):
            self._warn(f"the CA's key and the fleet secret go to {scheduler} unencrypted; tls:// encrypts")
        cluster = await self._stack.enter_async_context(remote_cluster(scheduler))
        chosen = await muster(cluster, self._options.workers)
        far = [each for each in chosen if is_elsewhere(each)]
        if far and self._options.emulated:
            self._warn(
                f"the emulator is on 127.0.0.1, where worker {far[0]} does not find it unless it is on this machine"
            )
        return cluster, chosen
