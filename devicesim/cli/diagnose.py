"""``devicesim diagnose``: why devices are not connected, from a run's record or by connecting them now."""

import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import trio
from rich.console import Console

from devicesim import __version__
from devicesim.cli.limits import raise_open_files
from devicesim.cli.options import RECORD_NAME, Seconds, material_files, material_options
from devicesim.cli.output import EXIT_EXPECTATION, EXIT_INTERRUPTED, EXIT_OK
from devicesim.cli.running import execute
from devicesim.cli.target import TargetOptions, target_options
from devicesim.cloud.account import AccountAccess, ControlPlaneError
from devicesim.diagnosis.findings import Diagnosis
from devicesim.errors import InputError, KeyMaterialError, leaves
from devicesim.fleet.capacity import FILES_BESIDE_DEVICES
from devicesim.fleet.diagnose import EXAMPLES, control_planes, diagnose_devices, diagnose_planned
from devicesim.fleet.identities import Material, MaterialFiles, load_material, minter
from devicesim.fleet.pacing import interleave
from devicesim.fleet.recorded import RecordedRun, recorded_fleet
from devicesim.fleet.runner import Run, run_facts
from devicesim.fleet.selection import check_group, of_fleet, of_record, select
from devicesim.fleet.spec import Fleet, load_fleet
from devicesim.fleet.target import Kind, accesses
from devicesim.pki.identity import certificate_id
from devicesim.record.facts import Note, RunStatus
from devicesim.record.store import RunReader, RunWriter
from devicesim.report.diagnosis_document import document
from devicesim.report.diagnosis_text import render

_SQLITE = b"SQLite format 3\0"
MOST_HELD_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    target: TargetOptions
    wanted: tuple[str, ...]
    group: str | None
    control_plane: bool
    hold: float
    files: MaterialFiles
    as_json: bool


@click.command(name="diagnose")
@click.argument("path", metavar="FLEET|RUN", type=click.Path(path_type=Path))
@click.argument("wanted", metavar="[DEVICE]...", nargs=-1)
@click.option("--group", metavar="NAME", help="All devices of this group.")
@target_options
@click.option(
    "--no-control-plane",
    is_flag=True,
    help="Ask the accounts nothing; for a FLEET, whose devices must know what to dial, only who they are and for their"
    " endpoints.",
)
@click.option(
    "--hold",
    type=Seconds(0, MOST_HELD_SECONDS),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How long an accepted connection is kept and watched.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the diagnoses as one JSON document.")
@material_options
def command(
    path: Path,
    wanted: tuple[str, ...],
    group: str | None,
    target: Kind,
    endpoint_url: str | None,
    connect_to: str | None,
    cacert: Path | None,
    no_control_plane: bool,
    hold: float,
    as_json: bool,
    ca_path: Path | None,
    ca_key: Path | None,
    seed: Path | None,
) -> int:
    """Say why a device is not connected: causes, ranked by what speaks for and against each, with the fix.

    With RUN (a run's directory or its record) from what was recorded, and, with --target aws or --endpoint-url, from
    what the accounts say now. With a FLEET file the devices connect now; on AWS nothing is set up or changed. A DEVICE
    is a number, a client id or 8 digits or more of a certificate id; without one, and without --group, it is every
    device of a RUN, or the first of each group of a FLEET.

    Exit code 0: every device is connected. 99: one is not. 3: the target could not be reached. 104: the fleet file is
    wrong. 105: interrupted.
    """
    if wanted and group is not None:
        raise click.UsageError("DEVICE and --group exclude each other: name devices, or a group of them")
    options = _Options(
        target=TargetOptions.of(target, endpoint_url, connect_to, cacert),
        wanted=wanted,
        group=group,
        control_plane=not no_control_plane,
        hold=hold,
        files=material_files(ca_path, ca_key, seed),
        as_json=as_json,
    )
    return _diagnose_record(path, options) if _is_record(path) else _diagnose_live(path, options)


def _is_record(path: Path) -> bool:
    """A directory is a run's; a file is by what it begins with, and what is not there by its name."""
    if path.is_dir() or path.suffix == ".sqlite":
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False  # told when it is read as a fleet file


Work = Callable[[], Awaitable[list[Diagnosis]]]


async def _main(work: Work, options: _Options) -> int:
    """Do the work until a signal, and show what came of it."""
    scope = trio.CancelScope()
    diagnoses: list[Diagnosis] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, signals, scope)
            with scope:
                diagnoses = await work()
            nursery.cancel_scope.cancel()
    if scope.cancelled_caught:
        click.echo("devicesim: interrupted", err=True)
        return EXIT_INTERRUPTED
    if options.as_json:
        click.echo(document(diagnoses).to_json())
    else:
        Console(highlight=False).print(render(diagnoses))
    return EXIT_OK if all(each.connected for each in diagnoses) else EXIT_EXPECTATION


async def _watch(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


# --- a run that was recorded ---


def _diagnose_record(path: Path, options: _Options) -> int:
    record = path / RECORD_NAME if path.is_dir() else path
    target = options.target
    if target.connect_to is not None or target.cacert is not None:
        raise click.UsageError("--connect-to and --cacert are for a FLEET, whose devices connect now; this is a RUN")
    with RunReader(record) as reader:
        fleet = recorded_fleet(reader)
        material = _material_of_record(fleet, options.files)
        run = RecordedRun(reader, fleet, material)
        unfinished = reader.run().status is RunStatus.RUNNING
    where = f"the run {str(path)!r}"
    groups = _groups(run, options, where)
    numbers = _recorded_devices(run, options, groups, where)
    if unfinished and run.was_set_up:
        click.echo(f"devicesim: note: {where} goes on, or was killed: this is what it has seen so far", err=True)
    planes = None
    if not options.control_plane or target.starts_emulator:
        if options.control_plane:
            told = "no account is asked, for the run's emulator is gone: --target aws or --endpoint-url name others"
            click.echo(f"devicesim: note: {told}", err=True)
    else:
        planes = accesses(fleet, target.kind, target.endpoint_url)

    async def work() -> list[Diagnosis]:
        if not run.was_set_up:
            return diagnose_planned(run, groups, clock=time.time)
        return await _diagnosed(run, numbers, planes, options)

    return trio.run(_main, work, options)


def _material_of_record(fleet: Fleet, files: MaterialFiles) -> Material | None:
    """The fleet's CA and secret, where the record's fleet file or the command line leads to them."""
    try:
        return load_material(fleet, files, now=datetime.now(UTC), make=False)
    except KeyMaterialError:
        if files != MaterialFiles():
            raise
        return None


def _groups(run: RecordedRun, options: _Options, where: str) -> list[str]:
    """The groups that are meant: one of them, or all."""
    known = run.fleet.file.groups
    if options.group is None:
        return list(known)
    return [check_group(known, options.group, where)]


def _recorded_devices(run: RecordedRun, options: _Options, groups: Sequence[str], where: str) -> list[int]:
    if not run.was_set_up:
        if options.wanted:
            raise InputError(f"{where} has no devices: its accounts could not be set up", hint="leave DEVICE out")
        return []
    if not run.devices:
        raise InputError(f"{where} has no devices: it ended before the first was started")
    if not options.wanted:
        return [number for number, device in run.devices.items() if device.group in groups]
    numbers = select(options.wanted, of_record(run.devices.values()), count=max(run.devices) + 1, where=where)
    for number in numbers:
        if number not in run.devices:
            raise InputError(f"{where} has no device {number}: it was not started")
    return numbers


async def _diagnosed(
    run: RecordedRun, numbers: Sequence[int], accounts: Mapping[str, AccountAccess] | None, options: _Options
) -> list[Diagnosis]:
    """The devices of a record, with what the accounts say where they are asked."""
    examples = None if options.wanted else EXAMPLES
    if accounts is None:
        return await diagnose_devices(run, numbers, None, clock=time.time, examples=examples)
    issuer = run.issuer
    since, until = run.span or (time.time(), time.time())
    async with control_planes(
        accounts,
        ca_id=None if issuer is None else certificate_id(issuer),
        since=since,
        until=until,
        clock=time.time,
    ) as planes:
        diagnoses = await diagnose_devices(run, numbers, planes, clock=time.time, examples=examples)
        for name, reason in planes.unanswered.items():
            click.echo(
                f"devicesim: note: account {name!r} is judged by what was known of it before: {reason}", err=True
            )
        return diagnoses


# --- devices that connect now ---


def _diagnose_live(path: Path, options: _Options) -> int:
    fleet = load_fleet(path)
    options.target.check(fleet)
    # nothing is made up for a target that runs already: it would know none of it
    material = load_material(fleet, options.files, now=datetime.now(UTC), make=options.target.starts_emulator)
    numbers = _planned_devices(fleet, material, options)
    short = raise_open_files(len(numbers) + FILES_BESIDE_DEVICES)
    if short is not None:
        click.echo(f"devicesim: warning: {short}", err=True)

    async def work() -> list[Diagnosis]:
        with tempfile.TemporaryDirectory(prefix="devicesim-diagnose-") as directory:
            async with AsyncExitStack() as stack:
                return await _connect_and_diagnose(fleet, material, numbers, options, Path(directory), stack)

    return trio.run(_main, work, options)


def _planned_devices(fleet: Fleet, material: Material, options: _Options) -> list[int]:
    slots = interleave({name: group.count for name, group in fleet.file.groups.items()})
    where = str(fleet.path)
    if options.group is not None:
        name = check_group(fleet.file.groups, options.group, where)
        return [slot.device for slot in slots if slot.group == name]
    if options.wanted:
        devices = of_fleet(fleet, minter(fleet, material))
        return select(options.wanted, devices, count=len(slots), where=where)
    return [slot.device for slot in slots if slot.member == 0]


async def _connect_and_diagnose(
    fleet: Fleet, material: Material, numbers: list[int], options: _Options, directory: Path, stack: AsyncExitStack
) -> list[Diagnosis]:
    """Connect the devices as a run does, into a record that is thrown away, and diagnose what it says."""
    target, child = await options.target.open(fleet, directory / "emulator.log", stack)
    prepared = options.target.starts_emulator
    facts = run_facts(
        fleet,
        target=options.target.endpoint_url or options.target.kind,
        version=__version__,
        started_at=time.time(),
    )
    with RunWriter.create(directory / RECORD_NAME, facts) as writer:
        run = Run(
            fleet,
            material,
            target,
            writer,
            run_id=secrets.token_hex(4),
            epoch=time.time,
            prepare=prepared,
            only=numbers,
            hold=options.hold,
        )
        try:
            await execute(run, child, progress=sys.stderr.isatty())
        except* ControlPlaneError as group:
            if not prepared:  # without its endpoint no account can be dialled
                raise
            for error in leaves(group):
                writer.add_note(Note(at=time.time(), kind="error", text=str(error)))
    with RunReader(directory / RECORD_NAME) as reader:
        recorded = RecordedRun(
            reader, fleet, material, prepared=prepared, held=options.hold > 0, address=target.address
        )
    if not recorded.was_set_up:
        return diagnose_planned(recorded, _groups(recorded, options, str(fleet.path)), clock=time.time)
    started = [number for number in numbers if number in recorded.devices]
    if not started:
        raise InputError(f"no device could be started: {'; '.join(recorded.errors)}")
    return await _diagnosed(recorded, started, target.accounts if options.control_plane else None, options)
