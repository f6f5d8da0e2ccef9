"""What a person sees of a run, and the exit code that a machine sees."""

import sys
from pathlib import Path

import click
import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from devicesim.fleet.runner import Progress
from devicesim.record.facts import RunStatus
from devicesim.report.document import Summary
from devicesim.report.text import render

EXIT_OK = 0
EXIT_LOAD = 98
EXIT_EXPECTATION = 99
EXIT_INTERRUPTED = 105
LATE_SECONDS = 1.0
"""More than one start in a hundred so far behind its schedule: the load asked for was not generated."""
REFRESH_SECONDS = 0.25


def exit_code(summary: Summary) -> int:
    """Interrupted before all else; a disagreement before a load that fell short, for agreement is what a run is for."""
    if summary.status is not RunStatus.FINISHED:
        return EXIT_INTERRUPTED
    if not summary.agrees:
        return EXIT_EXPECTATION
    if any(group.late_starts and group.late_starts.p99 > LATE_SECONDS for group in summary.groups):
        return EXIT_LOAD
    return EXIT_OK


def show_summary(summary: Summary, record: Path, *, as_json: bool, quiet: bool) -> None:
    """The report on standard output; with ``--json`` the document there, and the report on standard error."""
    if as_json:
        click.echo(summary.to_json())
        if quiet:
            return
    console = Console(file=sys.stderr if as_json else sys.stdout, highlight=False)
    console.print(render(summary, record=str(record)))


async def show_progress(progress: Progress) -> None:
    """One line that changes, on a terminal; elsewhere a line a phase. On standard error. Until cancelled."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        said = ""
        while True:
            if progress.phase != said:
                said = progress.phase
                click.echo(f"devicesim: {said}", err=True)
            await trio.sleep(REFRESH_SECONDS)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(Text(_line(progress), no_wrap=True, overflow="ellipsis"), refresh=True)
            await trio.sleep(REFRESH_SECONDS)


def _line(progress: Progress) -> str:
    if progress.phase != "running":
        return f"{progress.phase} ..."
    return (
        f"{progress.started}/{progress.total} started, {progress.accepted} accepted, {progress.waiting} under way, "
        f"{progress.given_up} given up, {progress.attempts} connections"
    )
