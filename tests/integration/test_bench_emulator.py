"""scripts/bench_emulator.py runs and measures what it says; how much is not a test's to judge."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_small_bench_counts_every_connection(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    command = [sys.executable, "scripts/bench_emulator.py", "--steps", "0,60", "--connections", "40", "--idle", "30"]
    run = subprocess.run([*command, "--json", out], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert run.returncode == 0, run.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    first, second = result["growth"]
    assert (first["certificates"], second["certificates"]) == (0, 60)
    for row in (first, second):
        assert row["outcomes"] == {"closed without CONNACK": 40}
        assert row["first_connections_a_second"] > 0
    assert second["api_calls_a_second"] > 0
    (idle,) = result["idle"]
    assert (idle["connections"], idle["outcomes"]) == (30, {"accepted": 30})
    assert 20 < idle["rss_mib"] < 600
    assert "devicesim" in run.stdout
