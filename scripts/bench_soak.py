"""A soak: a fleet provisioned by JITP, held connected, publishing; or a fleet provisioned and released in batches.

The emulator is a process of its own, and counts the messages that it takes; the fleet process is `devicesim run`. Its
memory and CPU are what the kernel says of it, second by second, out of the run's own record.

    .venv/bin/python scripts/bench_soak.py [--fleet fleets/soak.toml] [--devices 10000] [--hold 12m] [--json FILE]
    .venv/bin/python scripts/bench_soak.py --fleet fleets/batches.toml

Exit code 1 when devices are lost, messages do not add up, memory grows, or provisioning takes too long.
"""

import argparse
import json
import os
import platform
import re
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MOST_SECONDS_BEHIND = 60.0
"""From the last scheduled start to the last device provisioned."""
MOST_BYTES = 500_000_000
"""Of the fleet process, at its largest."""
MOST_GROWTH_MIB = 8.0
"""Over the steady time: allocators round up, and a reading is off by some pages."""
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident memory of the fleet process, MiB."""

    begin: float
    """When the steady time began."""
    end: float
    peak: float
    minutes: float
    """Length of the steady time."""


def run(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """The run, with what both sides counted."""
    record = directory / "run"
    emulator = subprocess.Popen(
        [sys.executable, "-m", "devicesim", "emulate", arguments.fleet, "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert emulator.stdout is not None
        ready = json.loads(emulator.stdout.readline())
        command = [
            *(sys.executable, "-m", "devicesim", "run", arguments.fleet, "--json", "--quiet", "--out", record),
            *("--endpoint-url", ready["api"], "--cacert", ready["ca_file"], "--workers", str(arguments.workers)),
            *("--connect-to", f"{ready['mqtt']['host']}:{ready['mqtt']['port']}"),
            *(("--devices", str(arguments.devices)) if arguments.devices else ()),
            *(("--hold", arguments.hold) if arguments.hold else ()),
        ]
        fleet = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert fleet.stdout is not None
        summary = json.loads(fleet.stdout.read())
        _, status, usage = os.wait4(fleet.pid, 0)
        fleet.returncode = os.waitstatus_to_exitcode(status)
        fleet.stdout.close()
        with urllib.request.urlopen(f"{ready['admin']}/metrics", timeout=30) as answer:  # noqa: S310  # of our own child
            metrics = answer.read().decode()
        peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{emulator.pid}/status").read_text())
    finally:
        emulator.communicate(b"", timeout=60)
    taken = sum(float(each) for each in re.findall(r"^devicesim_messages_total\{.*\} (\S+)$", metrics, re.MULTILINE))
    return {
        "summary": summary,
        "exit_code": fleet.returncode,
        "fleet_cpu_seconds": usage.ru_utime + usage.ru_stime,
        "fleet_peak_mib": usage.ru_maxrss / 1024,
        "emulator_peak_mib": int(peak[1]) / 1024 if peak else None,
        "messages_taken": int(taken),
        **read(record / "run.sqlite"),
    }


def read(path: Path) -> dict[str, Any]:
    """What only the record tells: how far provisioning was behind the schedule, and memory over time."""
    with sqlite3.connect(path) as record:
        (last_start,) = record.execute("SELECT max(intended_at) FROM attempts WHERE attempt = 1").fetchone()
        accepted = (
            "SELECT device, min(started_at + connack_seconds) AS at FROM attempts WHERE connack_code = 0 GROUP BY 1"
        )
        first, last = record.execute(f"SELECT min(at), max(at) FROM ({accepted})").fetchone()  # noqa: S608  # a constant
        (released,) = record.execute("SELECT min(ended_at) FROM attempts WHERE connack_code = 0").fetchone()
        samples = record.execute(
            "SELECT at, rss_bytes, cpu_seconds, wall_seconds FROM generator ORDER BY at"
        ).fetchall()
    # held: from the last that was connected to the first that leaves; in batches: after the first batch or two
    steady = (last, released) if released > last else (first + (last_start - first) / 5, last_start)
    within = [each for each in samples if steady[0] <= each[0] <= steady[1]] or samples
    tenth = max(1, len(within) // 10)
    begin, end = (sorted(each[1] for each in part)[tenth // 2] / MIB for part in (within[:tenth], within[-tenth:]))
    memory = Memory(
        begin=begin, end=end, peak=max(each[1] for each in samples) / MIB, minutes=(steady[1] - steady[0]) / 60
    )
    return {
        "seconds_behind": last - last_start,
        "memory": asdict(memory),
        "steady_cpu_share": sum(each[2] for each in within) / sum(each[3] for each in within),
    }


def in_mb(mib: float) -> str:
    """In million bytes."""
    return f"{mib * MIB / 1e6:.0f} MB"


def faults(result: dict[str, Any]) -> list[str]:
    """What is not as it must be."""
    totals, memory = result["summary"]["totals"], result["memory"]
    messages = totals["messages"] or {"published": 0, "acknowledged": 0}
    found = []
    if result["exit_code"] != 0:
        found.append(f"exit code {result['exit_code']}")
    if totals["agree"] != totals["devices"]:
        found.append(f"{totals['devices'] - totals['agree']} devices did not end as expected")
    if not messages["published"] == messages["acknowledged"] == result["messages_taken"]:
        found.append(
            f"{messages['published']} messages published, {messages['acknowledged']} acknowledged,"
            f" {result['messages_taken']} taken"
        )
    if result["seconds_behind"] > MOST_SECONDS_BEHIND:
        found.append(f"the last device was provisioned {result['seconds_behind']:.0f} s after the last start")
    if result["fleet_peak_mib"] * MIB > MOST_BYTES:
        found.append(f"{result['fleet_peak_mib']:.0f} MiB at most, which is {in_mb(result['fleet_peak_mib'])}")
    if memory["end"] - memory["begin"] > MOST_GROWTH_MIB:
        found.append(f"memory grew by {memory['end'] - memory['begin']:.1f} MiB in {memory['minutes']:.0f} minutes")
    return found


def table(result: dict[str, Any]) -> list[tuple[str, str]]:
    totals, memory, messages = result["summary"]["totals"], result["memory"], result["summary"]["totals"]["messages"]
    rows = [
        ("devices", f"{totals['devices']}, {totals['agree']} as expected, {totals['attempts']} connections"),
        ("schedule", result["summary"]["schedule"]),
        ("last provisioned", f"{result['seconds_behind']:.1f} s after the last scheduled start"),
        (
            "fleet process",
            f"{memory['peak']:.0f} MiB ({in_mb(memory['peak'])}) at most, {result['fleet_cpu_seconds']:.0f} s CPU",
        ),
        ("steady", f"{memory['begin']:.1f} MiB, {memory['end']:.1f} MiB after {memory['minutes']:.1f} minutes"),
        ("steady CPU", f"{result['steady_cpu_share'] * 100:.0f} % of a core"),
        ("emulator", f"{result['emulator_peak_mib']:.0f} MiB at most"),
    ]
    if messages:
        counts = f"{messages['published']} published, {messages['acknowledged']} acknowledged"
        rows.append(("messages", f"{counts}, {result['messages_taken']} taken by the emulator"))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleet", type=Path, default=ROOT / "fleets" / "soak.toml")
    parser.add_argument("--devices", type=int)
    parser.add_argument("--hold")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        result = run(arguments, Path(directory))
    result |= {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    }
    for name, text in table(result):
        print(f"{name:18} {text}")
    wrong = faults(result)
    for each in wrong:
        print(f"not as it must be: {each}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
