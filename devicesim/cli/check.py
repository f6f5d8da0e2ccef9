"""``devicesim check``: the truth table of SNI_ONLY, run against the emulator or against accounts that exist."""

import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import click
import trio
from rich.console import Console

from devicesim import __version__
from devicesim.cli.checkjournal import Journal, removed
from devicesim.cli.child import Child
from devicesim.cli.limits import raise_open_files
from devicesim.cli.options import host_and_port
from devicesim.cli.output import EXIT_EXPECTATION, EXIT_INTERRUPTED, EXIT_OK, EXIT_TARGET, show_progress
from devicesim.cli.target import ALPN_PORT, TargetOptions, target_options
from devicesim.cloud.teardown import Made
from devicesim.conformance.cases import ROLES, Case, Role, expectation
from devicesim.conformance.matrix import STAND_INS, matrix, select
from devicesim.conformance.player import AWS, QUICK, Door, Pace
from devicesim.conformance.result import CheckResult, Status, expected_text
from devicesim.conformance.runner import NAME, Check, Progress, Setting
from devicesim.errors import InputError, TargetError
from devicesim.fleet.spec import Fleet, load_fleet, parse_fleet
from devicesim.fleet.target import Kind, Target
from devicesim.report.conformance_document import document
from devicesim.report.conformance_text import render
from devicesim.report.junit import junit

FILES_BESIDE_CASES = 256
_BUILT_IN = """\
version = 1
name = "check"

[accounts.account-a]
id = "111111111111"
region = "us-east-1"
ca_mode = "none"

[accounts.account-b]
id = "222222222222"
region = "us-east-1"
ca_mode = "none"

[accounts.account-x]
id = "333333333333"
region = "us-east-1"
ca_mode = "none"

[accounts.account-o]
id = "111111111111"
region = "eu-west-1"
ca_mode = "none"

[groups.none]
count = 1
account = "account-a"

[emulator]
jitp_delay = [0.02, 0.08]
"""
"""Accounts for a check without FLEET. The check makes its own CAs and devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    target: TargetOptions
    connect_to_alpn: tuple[str, int] | None
    junit: Path | None
    quiet: bool
    as_json: bool


@click.command(name="check")
@click.argument("fleet_path", metavar="[FLEET]", required=False, type=click.Path(path_type=Path))
@target_options
@click.option("--connect-to-alpn", metavar="HOST:PORT", help="The same for port 443, where ALPN says x-amzn-mqtt-ca.")
@click.option("--only", "patterns", multiple=True, metavar="PATTERN", help="Cases, or a row: 'C3-*', '10b.C3.sB'.")
@click.option("--list", "list_only", is_flag=True, help="Name the cases, each with its row and what should happen.")
@click.option(
    "--remove",
    "journal_path",
    type=click.Path(path_type=Path),
    metavar="JOURNAL",
    help="Run nothing: remove what a killed check left in accounts that exist.",
)
@click.option("--junit", "junit_path", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML.")
@click.option("--quiet", "-q", is_flag=True, help="No progress, and no table beside --json.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
def command(
    fleet_path: Path | None,
    target: Kind,
    endpoint_url: str | None,
    connect_to: str | None,
    cacert: Path | None,
    connect_to_alpn: str | None,
    patterns: tuple[str, ...],
    list_only: bool,
    journal_path: Path | None,
    junit_path: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run every row of the truth table that a device can act out, and hold what happens against the oracle.

    Without FLEET on four made-up accounts of the emulator; with FLEET on its accounts. On accounts that exist (--target
    aws, --endpoint-url) the check makes CAs, certificates and a policy of its own, runs the cases that the accounts
    allow, and removes what it made. A PATTERN is a shell pattern over a case's name, or over one part of it, or over
    the id of a row; several may be given.

    Exit code 0: whatever ran agrees. 99: something does not. 3: a case could not be set up, or none could run.
    """
    cases = select(matrix(), patterns)
    if not cases:
        raise click.UsageError(f"no case matches {', '.join(map(repr, patterns))}; devicesim check --list names them")
    if list_only:
        _list(cases)
        return EXIT_OK
    options = _Options(
        target=TargetOptions.of(target, endpoint_url, connect_to, cacert),
        connect_to_alpn=None if connect_to_alpn is None else host_and_port(connect_to_alpn, "--connect-to-alpn"),
        junit=junit_path,
        quiet=quiet,
        as_json=as_json,
    )
    if fleet_path is None and not options.target.starts_emulator:
        raise click.UsageError("accounts that exist are named by a FLEET file: devicesim check FLEET --target aws")
    if journal_path is not None and options.target.starts_emulator:
        raise click.UsageError("--remove is for accounts that exist: --target aws or --endpoint-url")
    if connect_to_alpn is not None and connect_to is None:
        raise click.UsageError("--connect-to-alpn goes with --connect-to")
    short = raise_open_files(2 * AWS.side_by_side + FILES_BESIDE_CASES)
    if short is not None and not quiet:
        click.echo(f"devicesim: warning: {short}", err=True)
    if junit_path is not None:
        _try_to_write(junit_path)
    with tempfile.TemporaryDirectory(prefix="devicesim-check-") as directory:
        if fleet_path is None:
            path = Path(directory) / "check.toml"
            path.write_text(_BUILT_IN, encoding="utf-8")
            fleet = parse_fleet(_BUILT_IN, path)
        else:
            fleet = load_fleet(fleet_path)
        options.target.check(fleet)
        if journal_path is not None:
            return trio.run(_remove, fleet, options, journal_path)
        return trio.run(_main, fleet, cases, options, Path(directory) / "emulator.log")


def _list(cases: Iterable[Case]) -> None:
    for case in cases:
        expected = expectation(case, STAND_INS)
        click.echo(f"{case.name}  {expected.row.id} [{expected.row.mark}]  {expected_text(case, expected)}")


def _try_to_write(path: Path) -> None:
    """A file that cannot be written is told before the check, not after it; a check without result leaves none, and
    no older one either."""
    try:
        path.open("a").close()
        if path.is_file():
            path.unlink()
    except OSError as exc:
        raise _unwritable(path, exc) from exc


def _unwritable(path: Path, exc: OSError) -> InputError:
    return InputError(f"{path} cannot be written: {exc.strerror or exc}", hint="name another --junit")


async def _remove(fleet: Fleet, options: _Options, journal: Path) -> int:
    async with AsyncExitStack() as stack:
        target, _ = await options.target.open(fleet, Path(os.devnull), stack)
        left = await removed(journal, target, _pace(fleet, options))
    for note in left:
        click.echo(f"devicesim: {note}", err=True)
    click.echo(f"devicesim: what the check made is removed{f', but for {len(left)}' if left else ''}", err=True)
    return EXIT_TARGET if left else EXIT_OK


async def _main(fleet: Fleet, cases: Sequence[Case], options: _Options, log_path: Path) -> int:
    started_at, before = time.time(), trio.current_time()
    scope = trio.CancelScope()
    check: Check | None = None
    run_id = secrets.token_hex(4)
    journal = Journal(Path(f"{NAME}-{run_id}.journal"), lambda: check is None or check.left)
    with journal, trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            nursery.start_soon(_watch, signals, scope, journal, options)
            with scope:
                try:
                    target, child = await options.target.open(fleet, log_path, stack, "--quotas", "none")
                except TargetError as exc:
                    raise TargetError(str(exc)) from exc  # without the hint at a log that goes with its directory
                setting = _setting(fleet, target, child, options, journal)
                check = Check(cases, setting, run_id=run_id, epoch=time.time)
                if not options.quiet:
                    nursery.start_soon(show_progress, check.progress, _line)
                await _execute(check, child)
            nursery.cancel_scope.cancel()
    if check is None:
        return EXIT_INTERRUPTED
    result = CheckResult(
        target=options.target.endpoint_url or options.target.kind,
        version=__version__,
        started_at=started_at,
        seconds=trio.current_time() - before,
        cases=tuple(check.results[case.name] for case in cases if case.name in check.results),
        notes=(*check.left_behind, *check.notes),
    )
    _show(result, options)
    if scope.cancelled_caught:
        made = "; what it made was removed" if not options.target.starts_emulator and not check.left else ""
        told = f"interrupted after {len(result.cases)} of {len(cases)} cases{made}"
        click.echo(f"devicesim: {told}", err=True)
    if check.left and not options.target.starts_emulator:
        again = f"devicesim check FLEET ... --remove {journal.path}"
        click.echo(f"devicesim: not everything was removed (see the notes): {again}", err=True)
    return EXIT_INTERRUPTED if scope.cancelled_caught else exit_code(result)


async def _execute(check: Check, child: Child | None) -> None:
    """The check; no case is kept trying against an emulator of ours that is no longer there."""
    async with trio.open_nursery() as nursery:
        if child is not None:
            nursery.start_soon(_fail_with, child)
        await check.execute()
        nursery.cancel_scope.cancel()


async def _fail_with(child: Child) -> None:
    raise await child.ended()


async def _watch(signals: AsyncIterator[int], scope: trio.CancelScope, journal: Journal, options: _Options) -> None:
    """The first signal ends the check and has what it made removed, the second ends that too."""
    told = False
    async for _ in signals:
        if told:
            left = f": what it made is named in {journal.path}" if journal.path.exists() else ""
            click.echo(f"devicesim: stopped{left}", err=True)
            os._exit(EXIT_INTERRUPTED)
        told = True
        what = "stopping" if options.target.starts_emulator else "removing what the check made"
        click.echo(f"devicesim: interrupted: {what}; once more to stop at once", err=True)
        scope.cancel()


def _line(progress: Progress) -> str:
    if progress.phase != "running":
        return f"{progress.phase} ..."
    wrong = f", {progress.wrong} not as they should be" if progress.wrong else ""
    return f"{progress.done}/{progress.total} cases{wrong}"


def exit_code(result: CheckResult) -> int:
    """A disagreement before what is not known, for it is certain."""
    if result.count(Status.DISAGREES) or result.count(Status.ORACLE_WRONG):
        return EXIT_EXPECTATION
    return EXIT_OK if result.agrees else EXIT_TARGET


def _show(result: CheckResult, options: _Options) -> None:
    """The file first: nobody may be reading standard output any more. That it cannot be written is told last."""
    problem: OSError | None = None
    if options.junit is not None:
        try:
            options.junit.write_text(junit(result), encoding="utf-8")
        except OSError as exc:
            problem = exc
    if options.as_json:
        click.echo(document(result).to_json())
    if not (options.as_json and options.quiet):
        console = Console(file=sys.stderr if options.as_json else sys.stdout, highlight=False)
        console.print(render(result))
    if problem is not None:
        assert options.junit is not None
        raise _unwritable(options.junit, problem) from problem


# --- who plays what ---


def _setting(fleet: Fleet, target: Target, child: Child | None, options: _Options, journal: Journal) -> Setting:
    roles, absent = cast_roles(fleet)
    return Setting(
        target=target,
        roles=roles,
        absent=absent,
        role_arns={name: _role_arn(fleet, name, target) for name in roles.values()},
        door=_door(fleet, child, options, fleet.file.accounts[roles["a"]].region),
        existing=child is None,
        real=options.target.kind == "aws",
        pace=_pace(fleet, options),
        journal=journal.add if child is None else _forget,
    )


def _forget(_made: Sequence[Made]) -> None:
    """What is made in an emulator of ours is gone with it."""


def cast_roles(fleet: Fleet) -> tuple[dict[Role, str], dict[Role, str]]:
    """Which account plays which role, in the order of the file, and why the other roles are not played.

    ``a``, ``b`` and ``x`` are accounts in the Region of the first one, ``o`` is the first account in another.
    """
    accounts = fleet.file.accounts
    here = next(iter(accounts.values())).region
    local = [name for name, account in accounts.items() if account.region == here]
    elsewhere = [name for name, account in accounts.items() if account.region != here]
    played: dict[Role, str] = dict(zip(ROLES[:3], local, strict=False))
    if elsewhere:
        played["o"] = elsewhere[0]
    needs: Mapping[Role, str] = {
        "b": f"needs a second account in {here}",
        "x": f"needs a third account in {here}, which does not hold the CA",
        "o": f"needs an account in another Region than {here}",
    }
    return played, {role: words for role, words in needs.items() if role not in played}


def _role_arn(fleet: Fleet, name: str, target: Target) -> str | None:
    account = fleet.file.accounts[name]
    if account.role_arn is None and target.kind == "emulator":
        return f"arn:aws:iam::{account.id}:role/devicesim-jitp"
    return account.role_arn


def _door(fleet: Fleet, child: Child | None, options: _Options, here: str) -> Door:
    """What is dialled: the emulator's own doors, the address given (one Region's), or the endpoints themselves."""
    if child is not None:
        doors = {
            (each["name"], port): (each[key]["host"], each[key]["port"])
            for each in child.ready["accounts"]
            for port, key in ((8883, "mqtt"), (ALPN_PORT, "mqtt_alpn"))
        }
        return lambda name, _endpoint, port: doors[name, port]
    given = {8883: options.target.connect_to, ALPN_PORT: options.connect_to_alpn}
    if options.target.connect_to is not None:
        accounts = fleet.file.accounts
        return lambda name, _endpoint, port: given[port] if accounts[name].region == here else None
    return lambda _name, endpoint, port: (endpoint, port)


def _pace(fleet: Fleet, options: _Options) -> Pace:
    """Patience for the JITP delay that the fleet file gives the emulator, and for the quotas of one that is not ours:
    it takes a CONNECT a second of each client id (aws-iot-behaviour.md §6)."""
    if options.target.kind == "aws":
        return AWS
    pause = max(QUICK.backoff.first_delay[0], fleet.file.emulator.jitp_delay[1] / 2)
    longest = max(QUICK.backoff.max_delay, 2 * pause)
    backoff = replace(QUICK.backoff, first_delay=(pause, 1.5 * pause), max_delay=longest)
    return replace(QUICK, backoff=backoff, settle=0.0 if options.target.starts_emulator else 1.1)
