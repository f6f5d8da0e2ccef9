"""scripts/bench_soak.py counts on both sides, and says what is not as it must be."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT


def soak(tmp_path: Path, *arguments: str) -> tuple[int, str, dict[str, object]]:
    out = tmp_path / "soak.json"
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench_soak.py", "--json", out, *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, json.loads(out.read_text())


def test_what_devices_publish_is_what_the_emulator_takes(tmp_path: Path) -> None:
    code, told, result = soak(tmp_path, "--devices", "30", "--hold", "12s")

    assert code == 0, told
    assert isinstance(result["messages_taken"], int)
    assert 30 <= result["messages_taken"] <= 60
    assert f"{result['messages_taken']} taken by the emulator" in told


def test_devices_in_batches_are_released(tmp_path: Path) -> None:
    code, told, result = soak(tmp_path, "--fleet", str(ROOT / "fleets" / "batches.toml"), "--devices", "40")

    assert code == 0, told
    assert result["messages_taken"] == 0
    assert "40, 40 as expected, 80 connections" in told
