"""scripts/bench_run.py runs fleets of every size asked for; what they cost is not a test's to judge."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_each_size_has_its_row_and_the_smallest_is_what_others_are_measured_against(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    command = [sys.executable, "scripts/bench_run.py", "--devices", "16,8", "--rate", "50/s", "--json", str(out)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert run.returncode == 0, run.stderr
    smallest, larger = json.loads(out.read_text(encoding="utf-8"))["rows"]
    measured = {"wall_seconds", "fleet_rss_mib", "fleet_cpu_seconds", "floor_ms"}
    assert set(smallest) == {"devices", "exit_code", "connections"} | measured
    marginal = {"marginal_cpu_ms_a_device", "marginal_cpu_ms_a_connection", "ratio_to_floor"}
    assert set(larger) - set(smallest) == marginal
    for row, devices in ((smallest, 8), (larger, 16)):
        assert (row["devices"], row["exit_code"]) == (devices, 0)
        assert row["connections"] == 2 * devices  # the first is always dropped
        assert all(row[each] > 0 for each in measured)
        assert f"\n{devices:>8} " in run.stdout
