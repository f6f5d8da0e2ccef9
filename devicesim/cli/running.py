"""A run, or a search of runs, under the signals of a terminal: target and workers opened, progress shown, end told."""

import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import click
import trio

from devicesim import __version__
from devicesim.cli.autorate import Search
from devicesim.cli.child import Child
from devicesim.cli.limits import read_machine
from devicesim.cli.options import RECORD_NAME
from devicesim.cli.output import (
    EXIT_INTERRUPTED,
    exit_code,
    run_line,
    search_exit_code,
    show_progress,
    show_search,
    show_summary,
)
from devicesim.cli.target import TargetOptions
from devicesim.errors import DevicesimError, leaves
from devicesim.fleet.arrival import schedule_of
from devicesim.fleet.cluster import (
    check_address,
    distributed_is_there,
    is_elsewhere,
    is_exposed,
    local_cluster,
    remote_cluster,
    require_distributed,
)
from devicesim.fleet.identities import Material
from devicesim.fleet.runner import Driver, Run, run_facts
from devicesim.fleet.spec import Fleet
from devicesim.fleet.target import Target
from devicesim.fleet.workers import Workers, default_workers, muster
from devicesim.record.facts import Note
from devicesim.record.store import RunReader, RunWriter
from devicesim.record.thresholds import Threshold
from devicesim.report.document import Summary
from devicesim.report.ratesearch import RateSearch
from devicesim.report.summary import summarise

NewDriver = Callable[[Callable[[str], None]], Driver]
"""Makes what drives a run's devices; it is given what takes a note for the run's record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the command line says of a run, beside the fleet."""

    target: TargetOptions
    directory: Path
    quiet: bool
    as_json: bool
    hold: float | None = None
    sources: tuple[str, ...] = ()
    workers: int | None = None
    """Processes; ``None``: as many as it takes."""
    scheduler: str | None = None
    """Of a Dask cluster that runs already."""
    goal: Threshold | None = None
    """The latency of a search for the highest rate."""
    trial_seconds: float = 10.0
    first_rate: float = 0.0
    """Starts a second with which a search begins."""


@dataclass(slots=True)
class _Session:
    """What a signal may end."""

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    run: Run | None = None
    interrupted: bool = False
    """There was a signal."""


async def main(fleet: Fleet, material: Material, options: RunOptions) -> int:
    """Run under the signals, and tell what came of it: the exit code. The first signal ends the run with a whole
    record, the second at once."""
    session = _Session()
    came_of_it: Summary | RateSearch | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, signals, session)
            with session.scope:
                came_of_it = await _main(fleet, material, options, session)
            nursery.cancel_scope.cancel()
    if came_of_it is None:
        click.echo(f"devicesim: interrupted; what was recorded is in {options.directory}", err=True)
        return EXIT_INTERRUPTED
    # told here, where a reader that has gone is no failure of a task
    if isinstance(came_of_it, Summary):
        show_summary(came_of_it, options.directory / RECORD_NAME, as_json=options.as_json, quiet=options.quiet)
        return exit_code(came_of_it)
    show_search(came_of_it, as_json=options.as_json, quiet=options.quiet)
    return search_exit_code(came_of_it)


async def _watch(signals: AsyncIterator[int], session: _Session) -> None:
    async for _ in signals:
        session.interrupted = True
        if session.run is None:
            session.scope.cancel()
            return
        click.echo("devicesim: interrupted: writing the record; once more to stop at once", err=True)
        session.run.interrupt()
        session.run = None


async def _main(fleet: Fleet, material: Material, options: RunOptions, session: _Session) -> Summary | RateSearch:
    async with AsyncExitStack() as stack:
        one = _One(material, options, session, stack)
        if options.goal is None:
            return await one.run(fleet, options.directory, None)
        search = Search(
            fleet=fleet,
            goal=options.goal,
            target=options.target.endpoint_url or options.target.kind,
            directory=options.directory,
            seconds=options.trial_seconds,
            say=(lambda _: None) if options.quiet else _say,
            interrupted=lambda: session.interrupted,
        )
        await search.run(one.run, first=options.first_rate)
        return search.document()


def _say(line: str) -> None:
    with suppress(OSError):  # nobody reads it any more, which is no reason to end a search
        click.echo(f"devicesim: {line}", err=True)


class _One:
    """Runs one fleet after another against one target, which is opened for the first and kept."""

    def __init__(self, material: Material, options: RunOptions, session: _Session, stack: AsyncExitStack) -> None:
        self._material = material
        self._options = options
        self._session = session
        self._stack = stack
        self._opened: tuple[Target, Child | None, NewDriver | None] | None = None

    async def run(self, fleet: Fleet, directory: Path, only: frozenset[int] | None) -> Summary:
        """Run a fleet, or these devices of it, with its record in ``directory``."""
        options = self._options
        directory.mkdir(exist_ok=True)
        record = directory / RECORD_NAME
        target_name = options.target.endpoint_url or options.target.kind
        facts = run_facts(fleet, target=target_name, version=__version__, started_at=time.time())
        with RunWriter.create(record, facts) as writer:

            def note(text: str) -> None:
                writer.add_note(Note(at=time.time(), kind="error", text=text))

            try:
                target, child, new_driver = await self._open(fleet)
                run = Run(
                    fleet,
                    self._material,
                    target,
                    writer,
                    run_id=secrets.token_hex(4),
                    epoch=time.time,
                    only=only,
                    hold=options.hold,
                    sources=options.sources,
                    driver=None if new_driver is None else new_driver(note),
                )
                self._session.run = run
                await execute(run, child, progress=not options.quiet)
                if child is not None and not options.quiet:
                    _tell_throttled(await child.throttled())
            except* DevicesimError as group:
                for error in leaves(group):
                    note(str(error))
                raise
        with RunReader(record) as reader:
            return summarise(reader)

    async def _open(self, fleet: Fleet) -> tuple[Target, Child | None, NewDriver | None]:
        if self._opened is None:
            target, child = await self._options.target.open(
                fleet, self._options.directory / "emulator.log", self._stack
            )
            self._opened = target, child, await _open_workers(fleet, self._options, self._stack)
        return self._opened


async def _open_workers(fleet: Fleet, options: RunOptions, stack: AsyncExitStack) -> NewDriver | None:
    """What drives the devices in several processes; ``None``: this one does."""
    if options.scheduler is not None:
        if is_exposed(options.scheduler) and not options.quiet:
            told = f"the CA's key and the fleet secret go to {options.scheduler} unencrypted; tls:// encrypts"
            click.echo(f"devicesim: warning: {told}", err=True)
        cluster = await stack.enter_async_context(remote_cluster(options.scheduler))
        chosen = await muster(cluster, options.workers)
        far = [each for each in chosen if is_elsewhere(each)]
        if far and options.target.starts_emulator and not options.quiet:
            told = f"the emulator is on 127.0.0.1, where worker {far[0]} does not find it unless it is on this machine"
            click.echo(f"devicesim: warning: {told}", err=True)
    else:
        count = options.workers or wanted_workers(fleet, emulated=options.target.starts_emulator)
        if count == 1:
            return None
        cluster = await stack.enter_async_context(local_cluster(count))
        chosen = await muster(cluster, count)
    return lambda note: Workers(cluster, chosen, note)


def check_workers(workers: int | None, scheduler: str | None, sources: tuple[str, ...]) -> None:
    """Raise for what cannot be had, before anything is made or started."""
    if scheduler is not None:
        check_address(scheduler)
        if sources:
            raise click.UsageError("--source-address names addresses of this machine; with --scheduler others dial")
    if scheduler is not None or (workers or 1) > 1:
        require_distributed()


def wanted_workers(fleet: Fleet, *, emulated: bool) -> int:
    """Processes for a run that does not say how many; ``emulated``: beside an emulator of ours."""
    if not distributed_is_there():
        return 1
    return default_workers(
        cores=read_machine().cpus,
        emulated=emulated,
        devices=fleet.size,
        rate=schedule_of(fleet.file.arrival, fleet.size).peak_rate,
    )


def _tell_throttled(throttled: Mapping[str, int]) -> None:
    """Devices see a throttled request as any refusal: without a word here a fleet that is too fast looks broken."""
    if not throttled:
        return
    counts = ", ".join(f"{quota} {count}" for quota, count in sorted(throttled.items()))
    told = f"the emulator throttled {sum(throttled.values())} requests, as its quotas say: {counts}"
    hint = "lower --rate, or lift them: [emulator.quotas] lifted = true"
    click.echo(f"devicesim: note: {told}; {hint}", err=True)


async def execute(run: Run, child: Child | None, *, progress: bool) -> None:
    """A run to its end, with its progress shown; ``child`` is the emulator that was started for it."""
    async with trio.open_nursery() as nursery:
        if progress:
            nursery.start_soon(show_progress, run.progress, run_line)
        if child is not None:
            nursery.start_soon(_fail_with, child, run)
        await run.execute()
        nursery.cancel_scope.cancel()


async def _fail_with(child: Child, run: Run) -> None:
    """No device is kept trying against an emulator that is no longer there."""
    run.fail(await child.ended())
