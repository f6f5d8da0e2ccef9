"""scripts/bench_connect.py connects what it says and measures it; how much is not a test's to judge."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = "scripts/bench_connect.py"
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed (Debian: apt install mosquitto)")
NUMBERS = {
    # contender: what must have been measured of it
    "floor": {"cpu_ms", "ratio_to_floor", "connections_a_second", "kib", "broker_cpu_ms", "held"},
    "floor in memory": {"cpu_ms", "ratio_to_floor"},
    "devicesim": {
        *("cpu_ms", "ratio_to_floor", "connections_a_second", "kib", "broker_cpu_ms", "held"),
        "distinct_certificates",
    },
    "paho": {
        *("cpu_ms", "ratio_to_floor", "connections_a_second", "kib", "broker_cpu_ms", "held"),
        "distinct_certificates",
    },
    "mosquitto_pub": {
        *("cpu_ms", "ratio_to_floor", "connections_a_second", "kib", "broker_cpu_ms"),
        "distinct_certificates",
    },
}


def bench(out: Path, *arguments: str) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    command = [sys.executable, SCRIPT, *arguments, "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    return json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}, done


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="the program mosquitto_pub is not installed")
def test_every_connection_has_a_certificate_of_its_own_and_is_measured(tmp_path: Path) -> None:
    only = [word for name in NUMBERS for word in ("--only", name)]
    result, done = bench(tmp_path / "bench.json", "--connections", "10", "--idle", "35", "--rounds", "1", *only)

    assert done.returncode == 0, done.stderr
    assert set(result) == {"at", "machine", "load_average_before", "rounds", "warm_up", "concurrency", "rows"}
    rows = {(row["contender"], row["tls"]): row for row in result["rows"]}
    assert set(rows) == {(name, tls) for name in NUMBERS for tls in ("1.2", "1.3")}
    for (name, _), row in rows.items():
        (sample,) = row["samples"]
        assert row["state"] == "ok"
        assert row["version"]
        assert set(sample) == {"connections"} | NUMBERS[name]
        assert all(sample[each] == row[each] > 0 for each in NUMBERS[name] - {"kib"})
        assert sample["connections"] == (1 if name == "mosquitto_pub" else 10)
        if "held" in sample:
            assert sample["held"] == (35 if name != "floor" else 30)
        if "distinct_certificates" in sample:
            # the log of mosquitto named them, the warm-up's twenty too
            assert sample["distinct_certificates"] == (21 if name == "mosquitto_pub" else 35)
        assert f"\n{name} " in done.stdout


@pytest.mark.slow
def test_a_peer_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    """Without an interpreter's packages; MQTT.js without its directory."""
    arguments = ["--connections", "1", "--rounds", "1", "--only", "locust", "--only", "mqttjs"]
    result, done = bench(tmp_path / "bench.json", *arguments)

    assert done.returncode == 0, done.stderr
    assert {row["state"] for row in result["rows"]} == {"not installed"}
    assert all("samples" not in row or row["samples"] == [] for row in result["rows"])
    assert "locust                1.2 not installed: No module named" in done.stdout


@pytest.mark.slow
def test_a_contender_that_fails_is_told_and_fails_the_bench(tmp_path: Path) -> None:
    """The interpreter for the peers is a program that says nothing."""
    false = shutil.which("false")
    assert false is not None
    arguments = ["--connections", "1", "--rounds", "1", "--only", "aiomqtt", "--peers-python", false]
    result, done = bench(tmp_path / "bench.json", *arguments)

    assert done.returncode == 1
    assert {row["state"] for row in result["rows"]} == {"failed"}
    assert {row["failure"] for row in result["rows"]} == {"exit code 1: it said nothing"}


@pytest.mark.parametrize("option", ["--connections", "--rounds"])
def test_a_count_of_none_is_refused(option: str, tmp_path: Path) -> None:
    result, done = bench(tmp_path / "bench.json", option, "0")

    assert result == {}
    assert done.returncode == 2
    assert f"{option} is 0; at least 1 is needed" in done.stderr
