"""What a run costs as its fleet grows: wall time, the fleet process's memory, its CPU a connection against the floor.

A run is `devicesim run` over loopback, against an emulator with lifted quotas in a process of its own, and its cost is
what the kernel counts for its process. What a run costs before its devices (start, set up, ask, judge) is in the
smallest run too, so CPU is marginal: what each run used more than the smallest, by the devices that it had more and by
the connections that these made more. A device costs more than its connections (it is minted, recorded and judged), so
where a busy machine makes devices try more often, a connection seems cheaper: compare devices then.

The floor is a bare OpenSSL client handshake in memory, with the key types, group and verification that the devices use,
taken before each run; a ratio is to the one before.

    .venv/bin/python scripts/bench_run.py [--devices 100,1000,10000] [--rate 100/s] [--json FILE]
"""

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from floor import handshake_seconds

ROOT = Path(__file__).parents[1]
FLEET = ROOT / "fleets" / "walkthrough.toml"
FLOOR_HANDSHAKES = 300
LIMIT = 900.0
"""Seconds that a run may take."""


def run(devices: int, rate: str) -> dict[str, Any]:
    """One run: its summary's counts, and what the fleet process cost."""
    floor = handshake_seconds("1.3", FLOOR_HANDSHAKES)
    with tempfile.TemporaryDirectory() as directory:
        # AWS's default quotas would be measured, and not this program
        emulated = Path(directory, "walkthrough.toml")
        emulated.write_text(FLEET.read_text() + "\n[emulator.quotas]\nlifted = true\n")
        emulator = subprocess.Popen(
            [sys.executable, "-m", "devicesim", "emulate", emulated, "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert emulator.stdout is not None
            ready = json.loads(emulator.stdout.readline())
            command = [
                *(sys.executable, "-m", "devicesim", "run", str(FLEET), "--json", "--quiet"),
                *("--out", f"{directory}/run", "--devices", str(devices), "--rate", rate),
                *("--endpoint-url", ready["api"], "--cacert", ready["ca_file"]),
                *("--connect-to", f"{ready['mqtt']['host']}:{ready['mqtt']['port']}"),
            ]
            text, wall, code, usage = watch(command)
        finally:
            emulator.communicate(b"", timeout=30)
    if not text:
        raise SystemExit(f"the run of {devices} devices told nothing within {LIMIT:g} s, exit code {code}")
    return {
        "devices": devices,
        "exit_code": code,
        "connections": json.loads(text)["totals"]["attempts"],
        "wall_seconds": wall,
        "fleet_rss_mib": usage.ru_maxrss / 1024,
        "fleet_cpu_seconds": usage.ru_utime + usage.ru_stime,
        "floor_ms": floor * 1000,
    }


def watch(command: Sequence[str]) -> tuple[bytes, float, int, resource.struct_rusage]:
    """What a process wrote, the seconds that it took, its exit code, and what it used; killed after :data:`LIMIT`."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    watchdog = threading.Timer(LIMIT, process.kill)
    watchdog.start()
    assert process.stdout is not None
    try:
        text = process.stdout.read()
    except BaseException:
        process.kill()
        raise
    finally:
        _, status, usage = os.wait4(process.pid, 0)
        watchdog.cancel()
        process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    return text, time.perf_counter() - started, process.returncode, usage


def compare(row: dict[str, Any], smallest: dict[str, Any]) -> None:
    """Add what the run cost more than the smallest, a connection; to a run no larger nothing."""
    devices, connections = (row[each] - smallest[each] for each in ("devices", "connections"))
    if devices > 0 and connections > 0:
        more = (row["fleet_cpu_seconds"] - smallest["fleet_cpu_seconds"]) * 1000
        row |= {
            "marginal_cpu_ms_a_device": more / devices,
            "marginal_cpu_ms_a_connection": more / connections,
            "ratio_to_floor": more / connections / row["floor_ms"],
        }


HEADER = (
    f"{'devices':>8} {'connections':>12} {'wall':>9} {'fleet RSS':>11} {'fleet CPU':>10} {'ms/device':>10}"
    f" {'ms/conn':>8} {'x floor':>8} {'exit code':>10}"
)


def line(row: dict[str, Any]) -> str:
    def marginal(name: str) -> str:
        return f"{row[name]:.2f}" if name in row else "-"

    return (
        f"{row['devices']:>8} {row['connections']:>12} {row['wall_seconds']:>7.1f} s {row['fleet_rss_mib']:>7.0f} MiB"
        f" {row['fleet_cpu_seconds']:>8.1f} s {marginal('marginal_cpu_ms_a_device'):>10}"
        f" {marginal('marginal_cpu_ms_a_connection'):>8} {marginal('ratio_to_floor'):>8} {row['exit_code']:>10}"
    )


def numbers(text: str) -> list[int]:
    """``100,1000``, ascending: argparse tells of a ``ValueError``."""
    return sorted(int(each) for each in text.split(","))


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no process is left behind
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=numbers, default="100,1000,10000", help="one run for each number")
    parser.add_argument("--rate", default="100/s", help="starts of devices")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    rows: list[dict[str, Any]] = []
    print(HEADER)
    for devices in arguments.devices:
        row = run(devices, arguments.rate)
        rows.append(row)
        compare(row, rows[0])
        print(line(row), flush=True)
    if arguments.json:
        result = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "load_average_before": load,
            "rate": arguments.rate,
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
