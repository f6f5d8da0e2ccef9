"""What a run costs: wall time, the fleet process's memory, and its CPU a connection against the floor.

The floor is a bare OpenSSL client handshake in this process, in memory, with the key types, group and verification that
the run's devices use; the run is `devicesim run` over loopback against an emulator in a process of its own.

    .venv/bin/python scripts/bench_run.py [--devices 1000] [--rate 100/s] [--json FILE]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto

from devicesim.pki.authority import new_shared_authority
from devicesim.pki.profile import KeyType, Profile

ROOT = Path(__file__).parents[1]
FLEET = ROOT / "fleets" / "walkthrough.toml"
FLOOR_HANDSHAKES = 300


def floor() -> float:
    """Client CPU seconds of one TLS 1.3 handshake with client certificate, P-256 throughout, chain verified."""
    now = datetime.now(UTC)
    ca = new_shared_authority("bench", KeyType.EC_P256, now=now, validity=timedelta(days=1))
    names = ["bench.localhost"]
    server = ca.issue_server(
        names, key_type=KeyType.EC_P256, not_before=now - timedelta(hours=1), not_after=now + timedelta(hours=1)
    )
    device = ca.mint(0, secret=b"0" * 32, profile=Profile(names={"fleet": "bench"}))
    server_context, client_context = SSL.Context(SSL.TLS_METHOD), SSL.Context(SSL.TLS_METHOD)
    server_context.use_certificate(server.certificate)
    server_context.use_privatekey(server.key)
    server_context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    for context in (server_context, client_context):
        context.set_tmp_ecdh(KeyType.EC_P256.curve)  # type: ignore[arg-type]  # P-256 has one
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    store = client_context.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(ca.certificate))
    client_context.set_verify(SSL.VERIFY_PEER)
    spent = 0.0
    for _ in range(FLOOR_HANDSHAKES):
        client, peer = SSL.Connection(client_context), SSL.Connection(server_context)
        started = time.thread_time()
        client.use_certificate(device.certificate)
        client.use_privatekey(device.key)
        client.set_connect_state()
        spent += time.thread_time() - started
        peer.set_accept_state()
        done = {client: False, peer: False}
        while not all(done.values()):
            for side, other in ((client, peer), (peer, client)):
                started = time.thread_time()
                try:
                    side.do_handshake()
                    done[side] = True
                except SSL.WantReadError:
                    pass
                try:
                    data = side.bio_read(65_536)
                except SSL.WantReadError:
                    data = b""
                if side is client:
                    spent += time.thread_time() - started
                if data:
                    other.bio_write(data)
    return spent / FLOOR_HANDSHAKES


def run(devices: int, rate: str) -> dict[str, Any]:
    """One run: its summary's counts, and what the fleet process cost."""
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
        assert emulator.stdout is not None
        ready = json.loads(emulator.stdout.readline())
        command = [
            *(sys.executable, "-m", "devicesim", "run", str(FLEET), "--json", "--quiet", "--out", f"{directory}/run"),
            *("--devices", str(devices), "--rate", rate, "--endpoint-url", ready["api"]),
            *("--connect-to", f"{ready['mqtt']['host']}:{ready['mqtt']['port']}", "--cacert", ready["ca_file"]),
        ]
        started = time.perf_counter()
        fleet = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert fleet.stdout is not None
        summary = json.loads(fleet.stdout.read())
        _, status, usage = os.wait4(fleet.pid, 0)
        wall = time.perf_counter() - started
        fleet.returncode = os.waitstatus_to_exitcode(status)
        fleet.stdout.close()
        emulator.communicate(b"", timeout=30)
    connections = summary["totals"]["attempts"]
    cpu = usage.ru_utime + usage.ru_stime
    return {
        "devices": devices,
        "exit_code": fleet.returncode,
        "connections": connections,
        "wall_seconds": wall,
        "fleet_rss_mib": usage.ru_maxrss / 1024,
        "fleet_cpu_seconds": cpu,
        "fleet_cpu_ms_a_connection": cpu / connections * 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--rate", default="100/s")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    handshake = floor() * 1000
    base, result = run(8, arguments.rate), run(arguments.devices, arguments.rate)
    # what a run costs before its devices: start, set up, ask, judge
    marginal = (result["fleet_cpu_seconds"] - base["fleet_cpu_seconds"]) / (result["connections"] - base["connections"])
    result |= {
        "floor_ms": handshake,
        "marginal_cpu_ms_a_connection": marginal * 1000,
        "ratio_to_floor": marginal * 1000 / handshake,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    }
    for name, value in result.items():
        print(f"{name:30} {value:.3f}" if isinstance(value, float) else f"{name:30} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
