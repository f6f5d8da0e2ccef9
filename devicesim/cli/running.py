"""A run, or a search of runs, under the signals of a terminal: target and workers opened, progress shown, end told."""

import secrets
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import click
import trio

from devicesim import __version__
from devicesim.cli.autorate import Search
from devicesim.cli.child import Child
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
from devicesim.cli.processes import Processes, ProcessOptions
from devicesim.cli.target import TargetOptions
from devicesim.errors import DevicesimError, leaves
from devicesim.fleet.identities import Material
from devicesim.fleet.runner import Run, run_facts
from devicesim.fleet.spec import Fleet
from devicesim.fleet.target import Target
from devicesim.record.facts import Note
from devicesim.record.store import RunReader, RunWriter
from devicesim.record.thresholds import Threshold
from devicesim.report.document import Summary
from devicesim.report.ratesearch import RateSearch


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
        self._opened: tuple[Target, Child | None] | None = None
        processes = ProcessOptions(
            workers=options.workers, scheduler=options.scheduler, emulated=options.target.starts_emulator
        )
        self._processes = Processes(processes, stack, self._warn)

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
                target, child = await self._open(fleet)
                driver = await self._processes.driver(fleet, fleet.size if only is None else len(only), note)
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
                    driver=driver,
                )
                self._session.run = run
                if self._session.interrupted:  # while processes were started for it, after a former run
                    run.interrupt()
                await execute(run, child, progress=not options.quiet)
                if child is not None and not options.quiet:
                    _tell_throttled(await child.throttled())
            except* DevicesimError as group:
                for error in leaves(group):
                    note(str(error))
                raise
        from devicesim.report.summary import summarise  # needed only now, and 1 MiB that the devices can use

        with RunReader(record) as reader:
            return summarise(reader)

    async def _open(self, fleet: Fleet) -> tuple[Target, Child | None]:
        if self._opened is None:
            log = self._options.directory / "emulator.log"
            self._opened = await self._options.target.open(fleet, log, self._stack)
        return self._opened

    def _warn(self, told: str) -> None:
        if not self._options.quiet:
            click.echo(f"devicesim: warning: {told}", err=True)


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
