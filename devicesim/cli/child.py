"""The emulator as a child process of ``run``: started, waited for, and gone when we are, however we go."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from devicesim.errors import InputError, TargetError

START_SECONDS = 30.0
STOP_SECONDS = 10.0
ASK_SECONDS = 5.0
_LOG_TAIL = 5


@dataclass(frozen=True, slots=True)
class Child:
    """An emulator that runs."""

    ready: dict[str, Any]
    """What its ready line says."""
    _process: trio.Process
    _log_path: Path

    async def throttled(self) -> dict[str, int]:
        """How many requests were over a quota, by quota; none when it does not answer."""

        def ask() -> dict[str, int]:
            with urllib.request.urlopen(f"{self.ready['admin']}/health", timeout=ASK_SECONDS) as answer:  # noqa: S310
                return dict(json.load(answer)["throttled"])

        try:
            return await trio.to_thread.run_sync(ask)
        except (OSError, ValueError, KeyError):
            return {}

    async def ended(self) -> TargetError:
        """Wait until it ends by itself, which it should not: the error to raise then."""
        code = await self._process.wait()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return TargetError(f"the emulator ended {how} while the run went on{_tail(self._log_path)}")


@asynccontextmanager
async def emulator(fleet_path: Path, log_path: Path, *options: str) -> AsyncIterator[Child]:
    """A running emulator with the fleet's accounts; ``options`` are further ones of ``devicesim emulate``.

    It leads a session of its own, so that a Ctrl-C in the terminal reaches us alone, and stops when its standard input
    closes, so that it does not outlive us even when we are killed. Its log goes to ``log_path``.
    """
    try:
        log = log_path.open("wb")
    except OSError as exc:
        raise InputError(f"{log_path} cannot be written: {exc.strerror or exc}", hint="name another --out") from exc
    with log:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "devicesim", "emulate", str(fleet_path), "--until-stdin-closes", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield Child(await _ready(process, log_path), process, log_path)
    finally:
        with trio.CancelScope(shield=True):
            await _stop(process)


async def _ready(process: trio.Process, log_path: Path) -> dict[str, Any]:
    assert process.stdout is not None
    line, ended = b"", False
    with trio.move_on_after(START_SECONDS):
        while not line.endswith(b"\n"):
            data = await process.stdout.receive_some(65_536)
            if not data:
                ended = True
                break
            line += data
    try:
        ready = json.loads(line)
    except ValueError:
        why = "it ended before it was ready" if ended else f"it was not ready within {START_SECONDS:g} s"
        raise TargetError(f"the emulator did not start: {why}{_tail(log_path)}", hint=f"see {log_path}") from None
    assert isinstance(ready, dict)
    return ready


def _tail(log_path: Path) -> str:
    lines = log_path.read_text(errors="replace").splitlines()[-_LOG_TAIL:]
    return f": {' | '.join(lines)}" if lines else ""


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
