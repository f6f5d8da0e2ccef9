"""What a person sees of a run, and the exit code that a machine sees."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

import click
import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from devicesim.fleet.recording import Progress
from devicesim.record.facts import RunStatus
from devicesim.report import ratesearch
from devicesim.report.document import Summary
from devicesim.report.ratesearch import RateSearch
from devicesim.report.text import render

EXIT_OK = 0
EXIT_TARGET = 3
EXIT_LOAD = 98
EXIT_EXPECTATION = 99
EXIT_INTERRUPTED = 105
REFRESH_SECONDS = 0.25


def exit_code(summary: Summary) -> int:
    """Interrupted before all else; then a load that fell short, for then this machine, not the target, may be why
    devices ended otherwise or a threshold was not met, also one that ended the run."""
    if summary.status not in (RunStatus.FINISHED, RunStatus.ABORTED):
        return EXIT_INTERRUPTED
    if not summary.load_generated:
        return EXIT_LOAD
    kept = summary.agrees and summary.thresholds_met and summary.status is RunStatus.FINISHED
    return EXIT_OK if kept else EXIT_EXPECTATION


def show_summary(summary: Summary, record: Path, *, as_json: bool, quiet: bool) -> None:
    """The report on standard output; with ``--json`` the document there, and the report on standard error."""
    if as_json:
        click.echo(summary.to_json())
        if quiet:
            return
    console = Console(file=sys.stderr if as_json else sys.stdout, highlight=False)
    console.print(render(summary, record=str(record)))


def search_exit_code(search: RateSearch) -> int:
    """0 when a rate was found; whatever kept it from being found else."""
    if search.ended == "interrupted":
        return EXIT_INTERRUPTED
    if search.highest_rate is not None:
        return EXIT_OK
    return EXIT_LOAD if search.ended in ("generator", "devices") else EXIT_EXPECTATION


def show_search(search: RateSearch, *, as_json: bool, quiet: bool) -> None:
    """As :func:`show_summary`, of a search for the highest rate."""
    if as_json:
        click.echo(search.to_json())
        if quiet:
            return
    Console(file=sys.stderr if as_json else sys.stdout, highlight=False).print(ratesearch.render(search))


class Shown(Protocol):
    """Work whose progress can be shown."""

    phase: str
    """In words: ``setting up``, ``running``, ..."""


P = TypeVar("P", bound=Shown)


async def show_progress(progress: P, line: Callable[[P], str]) -> None:
    """One line that changes, on a terminal; elsewhere a line a phase. On standard error. Until cancelled, or until
    nobody reads it any more, which is no reason to end a run."""
    with suppress(OSError):
        await _show_progress(progress, line)


async def _show_progress(progress: P, line: Callable[[P], str]) -> None:
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
            live.update(Text(line(progress), no_wrap=True, overflow="ellipsis"), refresh=True)
            await trio.sleep(REFRESH_SECONDS)


def run_line(progress: Progress) -> str:
    """A run's progress."""
    if progress.phase != "running":
        return f"{progress.phase} ..."
    started = f"{progress.started}/{progress.total} started, {progress.accepted} accepted, {progress.waiting} under way"
    parts = [started, f"{progress.given_up} given up, {progress.attempts} connections"]
    for count, what in (
        (progress.dropped, "dropped"),
        (progress.connected, "connected"),
        (progress.published, "messages"),
    ):
        if count:
            parts.append(f"{count} {what}")
    return ", ".join(parts)
