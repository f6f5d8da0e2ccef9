"""The emulator as a child process of ``run``: started, waited for, and gone when we are, however we go."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from devicesim.errors import TargetError

START_SECONDS = 30.0
STOP_SECONDS = 10.0
_LOG_TAIL = 5


@asynccontextmanager
async def emulator(fleet_path: Path, log_path: Path) -> AsyncIterator[dict[str, Any]]:
    """A running emulator with the fleet's accounts; yields what its ready line says.

    It leads a session of its own, so that a Ctrl-C in the terminal reaches us alone, and stops when its standard input
    closes, so that it does not outlive us even when we are killed. Its log goes to ``log_path``.
    """
    with log_path.open("wb") as log:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "devicesim", "emulate", str(fleet_path), "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield await _ready(process, log_path)
    finally:
        with trio.CancelScope(shield=True):
            await _stop(process)


async def _ready(process: trio.Process, log_path: Path) -> dict[str, Any]:
    assert process.stdout is not None
    line = b""
    with trio.move_on_after(START_SECONDS):
        while not line.endswith(b"\n"):
            data = await process.stdout.receive_some(65_536)
            if not data:
                break
            line += data
    try:
        ready = json.loads(line)
    except ValueError:
        tail = " | ".join(log_path.read_text(errors="replace").splitlines()[-_LOG_TAIL:])
        raise TargetError(
            f"the emulator did not start within {START_SECONDS:g} s: {tail or 'it said nothing'}",
            hint=f"see {log_path}",
        ) from None
    assert isinstance(ready, dict)
    return ready


async def _stop(process: trio.Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.aclose()
    with trio.move_on_after(STOP_SECONDS):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    await process.stdout.aclose()
