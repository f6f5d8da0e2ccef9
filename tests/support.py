"""What several tests share that is no fixture."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command line came to."""

    code: int
    out: str
    err: str


Devicesim = Callable[..., Outcome]
"""Runs a command line of ours."""


def start(*arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
    """A command line of ours as a process of its own, out of the terminal's reach."""
    return subprocess.Popen(
        [sys.executable, "-m", "devicesim", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@contextmanager
def emulator(*arguments: str | Path) -> Iterator[dict[str, Any]]:
    """``devicesim emulate``: what its ready line says. Stopped as a person would, and held to a clean end."""
    process = start("emulate", *arguments)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, process.communicate(timeout=30)[1]
        yield json.loads(line)
    finally:
        process.terminate()
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, ""), err
