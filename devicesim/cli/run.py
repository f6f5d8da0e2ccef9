"""``devicesim run``: a fleet against the emulator or AWS, and what came of it."""

import os
from datetime import UTC, datetime
from pathlib import Path

import click
import trio
from click.core import ParameterSource

from devicesim.cli.autorate import TRIAL_SECONDS, Goal, check_search, first_trial, rate_of
from devicesim.cli.limits import check_reach, raise_open_files, read_machine, ready_for, source_addresses
from devicesim.cli.options import RECORD_NAME, Rate, Seconds, material_files, material_options
from devicesim.cli.processes import check_workers, wanted_workers
from devicesim.cli.running import RunOptions, main
from devicesim.cli.target import TargetOptions, target_options
from devicesim.errors import InputError
from devicesim.fleet.capacity import FILES_BESIDE_DEVICES, needs_of
from devicesim.fleet.demand import demand_of
from devicesim.fleet.fields import MAX_DEVICES, parse_seconds
from devicesim.fleet.identities import load_material
from devicesim.fleet.spec import Fleet, at_rate, load_fleet
from devicesim.fleet.target import Kind
from devicesim.record.thresholds import Threshold

MAX_WORKERS = 1000


class _Duration(Seconds):
    """A number of seconds, or a text such as ``30s`` or ``5m``."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, str):
            try:
                value = parse_seconds(value)
            except ValueError as exc:
                self.fail(f"{value!r}: {exc}", param, ctx)
        return super().convert(value, param, ctx)


@click.command(name="run")
@click.argument("fleet_path", metavar="FLEET", type=click.Path(path_type=Path))
@target_options
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="New directory for the run's record.")
@click.option(
    "--devices", type=click.IntRange(1, MAX_DEVICES), metavar="N", help="So many devices, in the file's proportions."
)
@click.option("--rate", type=Rate(), help="Starts a second, such as 50/s, in place of the file's.")
@click.option(
    "--hold", type=_Duration(min=0, max=86_400), help="Stay connected so long, such as 10m, in place of the file's."
)
@click.option(
    "--workers", type=click.IntRange(1, MAX_WORKERS), metavar="N", help="Processes that drive devices, on Dask."
)
@click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler that runs already, such as tcp://10.0.0.5:8786.")
@click.option(
    "--source-address",
    "sources",
    multiple=True,
    metavar="ADDRESS",
    help="Dial from these: an address, a range or a network of this machine's.",
)
@click.option("--autorate", "goal", type=Goal(), help="Find the highest rate that keeps this, such as 'p(95)<5s'.")
@click.option(
    "--trial",
    "trial_seconds",
    type=_Duration(min=1, max=3600),
    default=TRIAL_SECONDS,
    show_default=True,
    help="How long each rate of --autorate is kept up.",
)
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
    hold: float | None,
    workers: int | None,
    scheduler: str | None,
    sources: tuple[str, ...],
    goal: Threshold | None,
    trial_seconds: float,
    quiet: bool,
    as_json: bool,
    ca_path: Path | None,
    ca_key: Path | None,
    seed: Path | None,
) -> int:
    """Run FLEET and hold what happened against what IoT Core should do.

    Exit code 0: everything agrees. 99: something does not, or a threshold is not met. 98: the load asked for could not
    be generated. 3: the target could not be reached or set up. 104: the fleet file is wrong. 105: interrupted.
    """
    fleet = load_fleet(fleet_path)
    if rate is not None:
        fleet = at_rate(fleet, rate)  # first: a schedule that is too short for the devices is not to be theirs
    if devices is not None:
        fleet = fleet.resized(devices)
    where = TargetOptions.of(target, endpoint_url, connect_to, cacert)
    where.check(fleet)
    check_workers(workers, scheduler, sources)
    weighed, first_rate = fleet, 0.0
    if goal is not None:
        first_rate = rate_of(fleet)
        check_search(fleet, goal, first=first_rate, seconds=trial_seconds)
        weighed = first_trial(fleet, first=first_rate, seconds=trial_seconds)
    elif click.get_current_context().get_parameter_source("trial_seconds") is not ParameterSource.DEFAULT:
        raise click.UsageError("--trial is the length of a trial of --autorate, which is not given")
    addresses = source_addresses(sources)
    check_reach(addresses, _dialled(where))
    if scheduler is None:
        processes = workers or wanted_workers(weighed, devices=weighed.size, emulated=where.starts_emulator)
        needs = needs_of(demand_of(weighed, hold=hold), target, processes=processes)
        for line in ready_for(needs, read_machine(), addresses):
            if not quiet:
                click.echo(f"devicesim: warning: {line}", err=True)
    if goal is not None or scheduler is not None:
        # later trials have more under way than the first, and the emulator has what other machines dial
        raise_open_files(fleet.size + FILES_BESIDE_DEVICES)
    now = datetime.now(UTC)
    files = material_files(ca_path, ca_key, seed)
    material = load_material(fleet, files, now=now, make=target == "emulator")
    options = RunOptions(
        target=where,
        directory=_make_directory(out, fleet, now),
        quiet=quiet,
        as_json=as_json,
        hold=hold,
        sources=addresses,
        workers=workers,
        scheduler=scheduler,
        goal=goal,
        trial_seconds=trial_seconds,
        first_rate=first_rate,
    )
    return trio.run(main, fleet, material, options)


def _dialled(where: TargetOptions) -> str | None:
    """The host that devices dial; ``None``: endpoints of AWS."""
    if where.connect_to is not None:
        return where.connect_to[0]
    return "127.0.0.1" if where.starts_emulator else None


def _make_directory(out: Path | None, fleet: Fleet, now: datetime) -> Path:
    directory = out or Path("devicesim-runs") / f"{now:%Y%m%dT%H%M%S}-{fleet.name}-{os.getpid()}"
    if (directory / RECORD_NAME).exists() or any(directory.glob(f"trial-*/{RECORD_NAME}")):
        raise InputError(f"{directory} holds a run already, which is not overwritten", hint="name another --out")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InputError(f"{directory} cannot be made: {exc.strerror}", hint="name another --out") from exc
    return directory
