"""What one mutual-TLS MQTT connection costs the client: devicesim beside its peers and the floor, from one run.

Each contender is a process of its own on one core; mosquitto is another, on another core, new for each measurement.
Every connection has a certificate of its own (P-256), verifies the server's chain and name, and counts when CONNACK 0
is there; the broker's log must show just these clients with just these certificates. Everything comes from outside:
CPU time (user and system, all threads) and resident memory as the kernel counts them, and the wall clock here. What a
process costs before its first connections is not in it: a few connections warm it up, and are held too. Memory counts
all that a held connection keeps, the loaded certificate and key too, and is read when all are connected at once.

Versions of TLS take turns, and in each round every contender has its turn, the floor first: a ratio is of one round,
and each figure the median of the rounds. The floor is a bare OpenSSL handshake on a socket, without MQTT;
"floor in memory" is the same without the socket.

A contender that is not installed is passed over. To have them all:

    python3 -m venv peers && peers/bin/pip install locust aiomqtt paho-mqtt awscrt
    npm install --prefix peers mqtt
    .venv/bin/python scripts/bench_connect.py --peers-python peers/bin/python --node-modules peers/node_modules
                                              [--connections 400] [--idle N] [--rounds 3] [--only NAME]... [--json FILE]
"""

import argparse
import dataclasses
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from floor import VERSIONS, TLSVersion
from stage import HOST, SERVER_NAME, Broker, mint, mosquitto

SCRIPTS = Path(__file__).resolve().parent
WARM_UP = 20
CONCURRENCY = 32
KEEP_ALIVE = 600
"""Seconds: no ping falls into a measurement."""
NO_SYSTEM_ROOTS = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
LIMIT = 300.0
"""Seconds that a contender's process may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    name: str
    command: tuple[str, ...]
    """What is started, before the job."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    share: float = 1.0
    """Of the connections asked for: the slow ones make fewer, so that the whole comes to an end."""
    most: int | None = None
    """Connections that it can hold at once."""
    at_once: bool = True
    """Whether it holds them."""
    mqtt: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One contender's turn. What could not be measured is ``None``."""

    connections: int
    """Measured; those of the warm-up are not among them."""
    held: int | None = None
    """Connected at once, the warm-up's too, when the memory was read."""
    cpu_ms: float
    """Of the client, a connection."""
    ratio_to_floor: float | None = None
    connections_a_second: float | None = None
    kib: float | None = None
    """Resident, a connection."""
    broker_cpu_ms: float | None = None
    distinct_certificates: int | None = None
    """As the broker saw them."""


class Unavailable(Exception):  # noqa: N818 - nothing has failed
    """A contender is not installed."""


class Failed(Exception):  # noqa: N818 - a contender's failure is not the bench's
    """A contender did not do what it should."""


# --- measuring from outside -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    at: float
    cpu: float
    """Seconds, of all threads, also those that have ended."""
    rss_kib: int
    broker_cpu: float


def read(pid: int, broker: Broker) -> Reading:
    status = Path(f"/proc/{pid}/status").read_text()
    rss = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return Reading(
        at=time.perf_counter(), cpu=cpu_clock(pid), rss_kib=int(rss.split()[1]), broker_cpu=cpu_clock(broker.pid)
    )


def cpu_clock(pid: int) -> float:
    """CPU seconds of another process: clock_getcpuclockid(3), in Linux's numbering of clocks. /proc/PID/stat would
    tell hundredths of a second."""
    return time.clock_gettime(~pid << 3 | 2)


def prepare(core: int | None) -> None:
    """In a process, before its program starts."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str], core: int | None, errors: TextIO
) -> Iterator[subprocess.Popen[str]]:
    """A contender's process, killed at the end of the block, and after :data:`LIMIT` seconds."""
    program = shutil.which(command[0])
    if program is None:
        raise Unavailable(f"no program {command[0]} on PATH")
    process = subprocess.Popen(
        [program, *command[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,  # a file, for nobody reads it meanwhile
        text=True,
        cwd=SCRIPTS,
        env={**os.environ, **environment},
        preexec_fn=partial(prepare, core),
    )
    watchdog = threading.Timer(LIMIT, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def next_line(process: subprocess.Popen[str], errors: TextIO) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if line:
        return dict(json.loads(line))
    code = process.wait()
    errors.seek(0)
    said = errors.read().strip().splitlines() or ["it said nothing"]
    raise Failed(f"gave up after {LIMIT:g} s" if code == -signal.SIGKILL else f"exit code {code}: {said[-1]}")


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


# --- one turn ---------------------------------------------------------------------------------------------------------


def batches(contender: Contender, connections: int, idle: int) -> list[tuple[int, int]]:
    """First and end of the devices' numbers: the warm-up, those measured, and those that are only held."""
    measured = max(int(connections * contender.share), 1)
    most = contender.most or sys.maxsize
    ends = [WARM_UP, min(WARM_UP + measured, most)]
    # the floor says nothing of MQTT, and need not be held for long to know its memory
    if contender.at_once and contender.mqtt and min(idle, most) > ends[-1]:
        ends.append(min(idle, most))
    return list(zip([0, *ends[:-1]], ends, strict=True))


def take_turn(
    contender: Contender,
    version: TLSVersion,
    plan: Sequence[tuple[int, int]],
    directory: Path,
    environment: Mapping[str, str],
    cores: tuple[int | None, int | None],
) -> tuple[Sample, str]:
    """What was measured, and the versions of what was. Raises :class:`Unavailable` and :class:`Failed`."""
    with mosquitto(directory, version, partial(prepare, cores[0])) as broker:
        job = {
            "host": HOST,
            "port": broker.port,
            "server_name": SERVER_NAME,
            "roots": str(directory / "servers-ca.pem"),
            "devices": str(directory),
            "batches": plan,
            "concurrency": CONCURRENCY,
            "keep_alive": KEEP_ALIVE,
            "tls": version,
        }
        command = [*contender.command, json.dumps(job)]
        with (
            (directory / "errors.txt").open("w+") as errors,
            started(command, {**environment, **contender.environment}, cores[1], errors) as process,
        ):
            hello = next_line(process, errors)
            if "missing" in hello:
                raise Unavailable(hello["missing"])
            turns: list[tuple[Reading, Reading, dict[str, Any]]] = []
            for first, end in plan:
                next_line(process, errors)
                before = read(process.pid, broker)
                go_on(process)
                told = next_line(process, errors)
                turns.append((before, read(process.pid, broker), told))
                if told["connections"] != end - first:
                    raise Failed(f"{told['connections']} connected in place of {end - first}")
                go_on(process)
            seen = check_clients(contender, broker, plan)
    return sample(contender, plan, turns, seen), hello["version"]


def check_clients(contender: Contender, broker: Broker, plan: Sequence[tuple[int, int]]) -> set[str]:
    """The certificates with which devices were connected, by their names; :class:`Failed` unless each had its own."""
    clients = broker.clients()
    if contender.mqtt:
        wanted = {f"device-{number:06d}" for number in range(plan[-1][1])}
        wrong = [f"{client} with the certificate of {name}" for client, name in clients if client != name]
        if wrong or len(clients) != len(wanted) or {name for _, name in clients} != wanted:
            raise Failed(f"the broker saw {len(clients)} connections in place of {len(wanted)} {wrong[:3]}")
    return {name for _, name in clients}


def sample(
    contender: Contender,
    plan: Sequence[tuple[int, int]],
    turns: Sequence[tuple[Reading, Reading, dict[str, Any]]],
    seen: set[str],
) -> Sample:
    before, after, told = turns[1]
    first, end = plan[1]
    count = end - first
    in_memory = "cpu_seconds" in told and not contender.mqtt
    holds = contender.at_once and not in_memory
    kib = told.get("kib")
    if holds:
        kib = (turns[-1][1].rss_kib - turns[0][1].rss_kib) / (plan[-1][1] - plan[0][1])
    return Sample(
        connections=count,
        held=plan[-1][1] if holds else None,
        cpu_ms=told.get("cpu_seconds", after.cpu - before.cpu) / count * 1000,
        connections_a_second=None if in_memory else count / (after.at - before.at),
        kib=kib,
        broker_cpu_ms=None if in_memory else (after.broker_cpu - before.broker_cpu) / count * 1000,
        distinct_certificates=len(seen) if contender.mqtt else None,
    )


# --- contenders, rounds, table ----------------------------------------------------------------------------------------


def contenders(peers_python: str) -> list[Contender]:
    def ours(name: str) -> tuple[str, ...]:
        return sys.executable, "-m", f"peers.connect_{name}"

    def theirs(name: str) -> tuple[str, ...]:
        return peers_python, "-W", "ignore", "-m", f"peers.connect_{name}"

    return [
        Contender(name="floor", command=ours("floor"), mqtt=False),
        Contender(name="floor in memory", command=ours("floor_memory"), mqtt=False),
        Contender(name="devicesim", command=ours("devicesim")),
        Contender(name="devicesim, unprepared", command=ours("devicesim"), environment={"UNPREPARED": "1"}),
        Contender(name="aiomqtt", command=theirs("aiomqtt")),
        Contender(name="paho", command=theirs("paho"), most=330),
        Contender(name="locust", command=theirs("locust")),
        Contender(name="mqttjs", command=("node", str(SCRIPTS / "peers" / "connect_mqttjs.js"))),
        Contender(name="awscrt", command=theirs("awscrt")),
        # as its users may have it who know: see peers/connect_awscrt.py
        Contender(name="awscrt, no system CAs", command=theirs("awscrt"), environment=NO_SYSTEM_ROOTS),
        Contender(name="mosquitto_pub", command=ours("mosquitto_pub"), share=0.1, at_once=False),
    ]


@dataclass
class Row:
    """A contender under one version of TLS."""

    contender: str
    tls: str
    samples: list[Sample] = dataclasses.field(default_factory=list)
    version: str | None = None
    missing: str | None = None
    failure: str | None = None

    def median(self, name: str) -> float | None:
        values = [value for each in self.samples if (value := getattr(each, name)) is not None]
        return statistics.median(values) if values else None

    def to_json(self) -> dict[str, Any]:
        """What was not measured is absent."""
        state = "ok" if self.samples and self.failure is None else "failed" if self.failure else "not installed"
        medians = {name: self.median(name) for name in COLUMNS}
        told = {"version": self.version, "missing": self.missing, "failure": self.failure, **medians}
        return {
            "contender": self.contender,
            "tls": self.tls,
            "state": state,
            **{name: value for name, value in told.items() if value is not None},
            "samples": [
                {name: value for name, value in dataclasses.asdict(each).items() if value is not None}
                for each in self.samples
            ],
        }


COLUMNS = {each.name for each in dataclasses.fields(Sample)}


def run_all(
    chosen: Sequence[Contender],
    rounds: int,
    turn: Callable[[Contender, TLSVersion], tuple[Sample, str]],
) -> list[Row]:
    rows = {(each.name, version): Row(each.name, version) for version in VERSIONS for each in chosen}
    for number in range(rounds):
        for version in VERSIONS:
            floor: Sample | None = None
            for contender in chosen:
                row = rows[contender.name, version]
                if row.missing is not None or row.failure is not None:
                    continue
                print(f"round {number + 1} of {rounds}: {contender.name}, TLS {version}", file=sys.stderr)
                try:
                    measured, row.version = turn(contender, version)
                except Unavailable as exc:
                    row.missing = str(exc)
                    continue
                except Failed as exc:
                    row.failure = str(exc)
                    continue
                if contender.name == "floor":
                    floor = measured
                if floor is not None:
                    measured = dataclasses.replace(measured, ratio_to_floor=measured.cpu_ms / floor.cpu_ms)
                row.samples.append(measured)
    return list(rows.values())


HEADER = (
    f"{'contender':21} {'TLS':>3} {'CPU ms/conn':>12} {'x floor':>8} {'conn/s':>8} {'KiB/conn':>9} {'broker ms':>10}"
    f" {'connections':>12}"
)


def line(row: Row) -> str:
    if row.missing is not None:
        return f"{row.contender:21} {row.tls:>3} not installed: {row.missing}"
    if row.failure is not None:
        return f"{row.contender:21} {row.tls:>3} failed: {row.failure}"

    def cell(name: str, digits: int) -> str:
        value = row.median(name)
        return "-" if value is None else f"{value:.{digits}f}"

    count = f"{row.samples[0].connections} x {len(row.samples)}"
    return (
        f"{row.contender:21} {row.tls:>3} {cell('cpu_ms', 2):>12} {cell('ratio_to_floor', 2):>8}"
        f" {cell('connections_a_second', 0):>8} {cell('kib', 1):>9} {cell('broker_cpu_ms', 2):>10} {count:>12}"
    )


def node_environment(directory: Path | None) -> dict[str, str]:
    return {} if directory is None else {"MQTT_JS": str(directory.resolve() / "mqtt")}


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no process is left behind
    names = [each.name for each in contenders("")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=400, help="measured in each turn; slow peers make fewer")
    parser.add_argument("--idle", type=int, default=0, help="connections held when the memory is read, if more")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=names, help="this contender; may be given several times")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers' packages")
    parser.add_argument("--node-modules", type=Path, help="directory that has the package mqtt")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    for name in ("connections", "rounds"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} is {getattr(arguments, name)}; at least 1 is needed")
    peers_python = shutil.which(arguments.peers_python)
    if peers_python is None:
        parser.error(f"--peers-python {arguments.peers_python!r} is no program")
    chosen = [
        each
        for each in contenders(str(Path(peers_python).absolute()))
        if not arguments.only or each.name in arguments.only
    ]
    cores = sorted(os.sched_getaffinity(0))
    pinned: tuple[int | None, int | None] = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        mint(directory, max(WARM_UP + arguments.connections, arguments.idle))

        def turn(contender: Contender, version: TLSVersion) -> tuple[Sample, str]:
            plan = batches(contender, arguments.connections, arguments.idle)
            environment = node_environment(arguments.node_modules)
            return take_turn(contender, version, plan, directory, environment, pinned)

        rows = run_all(chosen, arguments.rounds, turn)
    print(HEADER)
    for row in rows:
        print(line(row))
    if arguments.json:
        result = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "load_average_before": load,
            "rounds": arguments.rounds,
            "warm_up": WARM_UP,
            "concurrency": CONCURRENCY,
            "rows": [each.to_json() for each in rows],
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if any(each.failure for each in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
