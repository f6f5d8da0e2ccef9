"""``devicesim run``: a fleet against the emulator or AWS, and what came of it."""

import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click
import trio

from devicesim import __version__
from devicesim.cli.child import Child
from devicesim.cli.limits import raise_open_files
from devicesim.cli.options import material_files, material_options
from devicesim.cli.output import EXIT_INTERRUPTED, exit_code, run_line, show_progress, show_summary
from devicesim.cli.target import TargetOptions, target_options
from devicesim.errors import DevicesimError, InputError, leaves
from devicesim.fleet.fields import MAX_DEVICES, MAX_RATE, parse_rate
from devicesim.fleet.identities import Material, load_material
from devicesim.fleet.runner import Run, run_facts
from devicesim.fleet.spec import Fleet, at_rate, load_fleet
from devicesim.fleet.target import Kind
from devicesim.record.facts import Note
from devicesim.record.store import RunReader, RunWriter
from devicesim.report.summary import summarise

RECORD_NAME = "run.sqlite"
FILES_BESIDE_DEVICES = 128
"""Descriptors that are not devices': control plane, record, event loop, Python."""


class _Rate(click.ParamType[float]):
    name = "R/s"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            rate = parse_rate(str(value))
        except ValueError as exc:
            self.fail(f"{value!r}: {exc}", param, ctx)
        if not 0 < rate <= MAX_RATE:
            self.fail(f"{value!r} is not more than 0 and at most {MAX_RATE}/s", param, ctx)
        return rate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    target: TargetOptions
    directory: Path
    quiet: bool
    as_json: bool


@click.command(name="run")
@click.argument("fleet_path", metavar="FLEET", type=click.Path(path_type=Path))
@target_options
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="New directory for the run's record.")
@click.option(
    "--devices", type=click.IntRange(1, MAX_DEVICES), metavar="N", help="So many devices, in the file's proportions."
)
@click.option("--rate", type=_Rate(), help="Starts a second, such as 50/s, in place of the file's.")
@click.option("--quiet", "-q", is_flag=True, help="No progress, and no table beside --json.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON document.")
@material_options
def command(
    fleet_path: Path,
    target: Kind,
    endpoint_url: str | None,
    connect_to: str | None,
    cacert: Path | None,
    out: Path | None,
    devices: int | None,
    rate: float | None,
    quiet: bool,
    as_json: bool,
    ca_path: Path | None,
    ca_key: Path | None,
    seed: Path | None,
) -> int:
    """Run FLEET and hold what happened against what IoT Core should do.

    Exit code 0: everything agrees. 99: something does not. 98: the load asked for could not be generated. 3: the target
    could not be reached or set up. 104: the fleet file is wrong. 105: interrupted.
    """
    fleet = load_fleet(fleet_path)
    if devices is not None:
        fleet = fleet.resized(devices)
    if rate is not None:
        fleet = at_rate(fleet, rate)
    where = TargetOptions.of(target, endpoint_url, connect_to, cacert)
    where.check(fleet)
    now = datetime.now(UTC)
    files = material_files(ca_path, ca_key, seed)
    material = load_material(fleet, files, now=now, make=target == "emulator")
    options = _Options(
        target=where,
        directory=_make_directory(out, fleet, now),
        quiet=quiet,
        as_json=as_json,
    )
    short = raise_open_files(fleet.size + FILES_BESIDE_DEVICES)
    if short is not None and not quiet:
        click.echo(f"devicesim: warning: {short}", err=True)
    return trio.run(_main, fleet, material, options)


@dataclass(slots=True)
class _Session:
    """What a signal may end."""

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    run: Run | None = None


async def _main(fleet: Fleet, material: Material, options: _Options) -> int:
    """Run under the signals: the first ends the run with a whole record, the second at once."""
    session = _Session()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, signals, session)
            with session.scope:
                await _run(fleet, material, options, session)
            nursery.cancel_scope.cancel()
    if session.scope.cancelled_caught:
        click.echo(f"devicesim: interrupted; what was recorded is in {options.directory}", err=True)
        return EXIT_INTERRUPTED
    with RunReader(options.directory / RECORD_NAME) as reader:
        summary = summarise(reader)
    show_summary(summary, options.directory / RECORD_NAME, as_json=options.as_json, quiet=options.quiet)
    return exit_code(summary)


async def _watch(signals: AsyncIterator[int], session: _Session) -> None:
    async for _ in signals:
        if session.run is None:
            session.scope.cancel()
            return
        click.echo("devicesim: interrupted: writing the record; once more to stop at once", err=True)
        session.run.interrupt()
        session.run = None


async def _run(fleet: Fleet, material: Material, options: _Options, session: _Session) -> None:
    facts = run_facts(
        fleet,
        target=options.target.endpoint_url or options.target.kind,
        version=__version__,
        started_at=time.time(),
    )
    async with AsyncExitStack() as stack:
        writer = stack.enter_context(RunWriter.create(options.directory / RECORD_NAME, facts))
        try:
            target, child = await options.target.open(fleet, options.directory / "emulator.log", stack)
            run = Run(fleet, material, target, writer, run_id=secrets.token_hex(4), epoch=time.time)
            session.run = run
            await execute(run, child, progress=not options.quiet)
            if child is not None and not options.quiet:
                _tell_throttled(await child.throttled())
        except* DevicesimError as group:
            for error in leaves(group):
                writer.add_note(Note(at=time.time(), kind="error", text=str(error)))
            raise


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


def _make_directory(out: Path | None, fleet: Fleet, now: datetime) -> Path:
    directory = out or Path("devicesim-runs") / f"{now:%Y%m%dT%H%M%S}-{fleet.name}-{os.getpid()}"
    if (directory / RECORD_NAME).exists():
        raise InputError(f"{directory} holds a run already, which is not overwritten", hint="name another --out")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InputError(f"{directory} cannot be made: {exc.strerror}", hint="name another --out") from exc
    return directory
