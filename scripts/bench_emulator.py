"""What the emulator bears: first connections (JITR) a second while its certificates grow, idle connections, API calls.

The server is a process of its own on one core; this one is the client, on another. Every number comes from outside:
the wall clock here, and the server's CPU time and resident memory as the kernel counts them. Quotas are lifted, which
are there to be lower than this. With --ministack the same calls and the same devices go to MiniStack
(https://pypi.org/project/ministack/), in the same run.

    .venv/bin/python scripts/bench_emulator.py [--steps 0,10000,50000,100000] [--connections 6000] [--idle 10000]
                                               [--state] [--ministack PYTHON] [--json FILE]
"""

import argparse
import gc
import http.client
import json
import os
import platform
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

ACCOUNT, REGION = "111111111111", "us-east-1"
POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
CONCURRENCY = 64
FRESH = 3.0
"""Seconds after which an idle HTTP connection is not relied upon: servers close them."""
PATIENCE = 60.0
"""Seconds without any progress after which a measurement is given up."""


# --- certificates -----------------------------------------------------------------------------------------------------


class Authority:
    """Signs leaves for one shared device key: making keys is the client's cost and not what is measured."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.device_key = ec.generate_private_key(ec.SECP256R1())
        self._public_key = self.device_key.public_key()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench CA")])
        self._start = datetime.now(UTC) - timedelta(hours=1)
        self.certificate = (
            self._builder(self._name, self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._start)
            .not_valid_after(self._start + timedelta(days=365))
        )

    def leaf(self, common_name: str) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        return self._builder(subject, self._public_key).sign(self.key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


# --- servers ----------------------------------------------------------------------------------------------------------


@dataclass
class Target:
    """A server under measurement."""

    name: str
    pid: int
    api: tuple[str, int]
    mqtt: tuple[str, int]
    server_name: str = ""
    _http: http.client.HTTPConnection | None = None
    _used: float = 0.0

    def call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """One API call; the connection is kept while it is in use."""
        if self._http is not None and time.monotonic() - self._used > FRESH:
            self._http.close()
            self._http = None
        if self._http is None:
            self._http = http.client.HTTPConnection(*self.api, timeout=PATIENCE)
        scope = f"Credential={ACCOUNT}/{datetime.now(UTC):%Y%m%d}/{REGION}/iot/aws4_request"
        headers = {
            "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature={'0' * 64}",
            "Content-Type": "application/json",
        }
        self._http.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._http.getresponse()
        data = answer.read()
        self._used = time.monotonic()
        if answer.status != 200:
            raise SystemExit(f"{self.name}: {method} {path.partition('?')[0]} was answered {answer.status}: {data!r}")
        return json.loads(data) if data else {}

    def cpu(self) -> float:
        """Seconds of CPU used so far, by all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self) -> float:
        """Resident memory, MiB."""
        line = next(each for each in Path(f"/proc/{self.pid}/status").read_text().splitlines() if "VmRSS" in each)
        return int(line.split()[1]) / 1024


def pin(core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})


def prepare(core: int | None) -> None:
    """In the server's process, before it is one."""
    pin(core)
    raise_limits()


def raise_limits() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def kept(core: int | None) -> Iterator[Target]:
    """The emulator with a state directory: everything is on disk before it is acknowledged."""
    with tempfile.TemporaryDirectory() as directory, devicesim(core, directory) as target:
        yield target


@contextmanager
def devicesim(core: int | None, state: str | None = None) -> Iterator[Target]:
    command = [sys.executable, __file__, "--serve", *(["--state", state] if state else [])]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=partial(prepare, core)
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        yield Target(
            name="with state" if state else "devicesim",
            pid=process.pid,
            api=_address(ready["api"]),
            mqtt=(ready["mqtt"]["host"], ready["mqtt"]["port"]),
            server_name=ready["accounts"][0]["endpoint"],
        )
    finally:
        process.kill()
        process.communicate()


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def serve(state: Path | None) -> None:
    """The server process: the emulator as `devicesim emulate` has it, with its quotas lifted."""
    import trio

    from devicesim.emulator import service
    from devicesim.emulator.quotas import Quotas
    from devicesim.emulator.settings import Settings

    config = service.EmulatorConfig(
        accounts=(service.AccountConfig(name="bench", account_id=ACCOUNT, region=REGION),),
        settings=Settings(quotas=Quotas.lifted()),
        state=state,
    )

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            ready = await nursery.start(lambda *, task_status: service.serve(config, task_status=task_status))
            print(json.dumps(ready.to_json()), flush=True)

    trio.run(run)


@contextmanager
def ministack(python: str, core: int | None) -> Iterator[Target]:
    api, mqtt = _free_port(), _free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")},
        "GATEWAY_PORT": str(api),
        "IOT_MTLS_PORT": str(mqtt),
        "LOG_LEVEL": "ERROR",
    }
    process = subprocess.Popen(
        [python, "-m", "ministack"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=partial(prepare, core),
    )
    try:
        target = Target(name="ministack", pid=process.pid, api=("127.0.0.1", api), mqtt=("127.0.0.1", mqtt))
        _wait_for(target.api, process)
        _wait_for(target.mqtt, process)
        target.server_name = target.call("GET", "/endpoint?endpointType=iot%3AData-ATS")["endpointAddress"]
        target.server_name = target.server_name.partition(":")[0]
        yield target
    finally:
        process.kill()
        process.communicate()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait_for(address: tuple[str, int], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(address, timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"ministack does not listen on {address}, exit code {process.poll()}")


# --- devices ----------------------------------------------------------------------------------------------------------


def connect_packet(client_id: str, keep_alive: int) -> bytes:
    """MQTT 3.1.1 CONNECT, clean session."""
    body = b"\x00\x04MQTT\x04\x02" + keep_alive.to_bytes(2, "big")
    body += len(client_id).to_bytes(2, "big") + client_id.encode()
    assert len(body) < 128
    return bytes((0x10, len(body))) + body


@dataclass
class Dial:
    """One device's connection."""

    sock: socket.socket
    tls: SSL.Connection
    packet: bytes
    state: str = "handshake"
    outcome: str = ""


@dataclass
class Fleet:
    """Devices that connect, so many at a time."""

    target: Target
    key: ec.EllipticCurvePrivateKey
    keep: bool = False
    """Whether who was accepted stays connected."""
    outcomes: Counter[str] = field(default_factory=Counter)
    kept: list[Dial] = field(default_factory=list)

    @property
    def done(self) -> int:
        return self.outcomes.total()

    def run(self, leaves: Sequence[x509.Certificate], limit: float = 120.0) -> float:
        """Connect once with each, or with as many as can be begun within ``limit`` seconds; seconds that it took."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.use_privatekey(self.key)
        selector = selectors.DefaultSelector()
        waiting = iter(leaves)
        under_way = 0
        started = time.perf_counter()
        while True:
            late = time.perf_counter() - started > limit
            while not late and under_way < CONCURRENCY and (item := next(waiting, None)) is not None:
                self._dial(context, selector, item)
                under_way += 1
            if under_way == 0:
                break
            events = selector.select(PATIENCE)
            if not events:
                self.outcomes["stuck"] += under_way
                for key in tuple(selector.get_map().values()):
                    key.data.sock.close()
                break
            for key, _ in events:
                if self._advance(key.data, selector):
                    under_way -= 1
        seconds = time.perf_counter() - started
        selector.close()
        return seconds

    def _dial(self, context: SSL.Context, selector: selectors.BaseSelector, leaf: x509.Certificate) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect_ex(self.target.mqtt)
        tls = SSL.Connection(context, sock)
        tls.use_certificate(leaf)
        tls.set_tlsext_host_name(self.target.server_name.encode())
        tls.set_connect_state()
        name = leaf.subject.rfc4514_string().removeprefix("CN=")
        dial = Dial(sock, tls, connect_packet(name, 1200))
        selector.register(sock, selectors.EVENT_WRITE, dial)

    def _advance(self, dial: Dial, selector: selectors.BaseSelector) -> bool:
        """Whether it has come to its end."""
        try:
            if dial.state == "handshake":
                dial.tls.do_handshake()
                dial.tls.send(dial.packet)
                dial.state = "answer"
            answer = dial.tls.recv(4096)
            dial.outcome = "accepted" if answer[:1] == b"\x20" and answer[3] == 0 else "refused with CONNACK"
        except SSL.WantReadError:
            selector.modify(dial.sock, selectors.EVENT_READ, dial)
            return False
        except SSL.WantWriteError:
            selector.modify(dial.sock, selectors.EVENT_WRITE, dial)
            return False
        except SSL.ZeroReturnError:
            dial.outcome = "closed without CONNACK"
        except SSL.SysCallError:
            dial.outcome = "closed without CONNACK" if dial.state == "answer" else "lost in the handshake"
        except SSL.Error as exc:
            dial.outcome = f"TLS error in {dial.state}: {exc.args[0][:1] if exc.args else ''}"
        selector.unregister(dial.sock)
        self.outcomes[dial.outcome] += 1
        if self.keep and dial.outcome == "accepted":
            self.kept.append(dial)
        else:
            dial.sock.close()
        return True

    def close(self) -> None:
        for dial in self.kept:
            dial.sock.close()
        self.kept.clear()


# --- measurements -----------------------------------------------------------------------------------------------------


def register_ca(target: Target, authority: Authority) -> None:
    """In DEFAULT mode, which every implementation knows."""
    code = target.call("GET", "/registrationcode")["registrationCode"]
    body = {"caCertificate": pem(authority.certificate), "verificationCertificate": pem(authority.leaf(code))}
    target.call("POST", "/cacertificate?setAsActive=true&allowAutoRegistration=true", body)


def fill(target: Target, leaves: Sequence[str], budget: float) -> tuple[int, float, float]:
    """Register PEM texts alone: how many within ``budget`` seconds, the seconds, and the server's CPU seconds."""
    cpu, started, done = target.cpu(), time.perf_counter(), 0
    for text in leaves:
        target.call("POST", "/certificate/register-no-ca", {"certificatePem": text, "status": "INACTIVE"})
        done += 1
        if time.perf_counter() - started > budget:
            break
    return done, time.perf_counter() - started, target.cpu() - cpu


def measure_growth(
    target: Target, authority: Authority, steps: Sequence[int], connections: int, budget: float
) -> Iterator[dict[str, Any]]:
    """A row for each step; ends early, and says so, when the server answers no more or not fast enough."""
    held = 0
    for step in steps:
        row: dict[str, Any] = {"server": target.name, "asked": step}
        if step > held:
            texts = [pem(authority.leaf(f"fill-{number}")) for number in range(held, step)]
            try:
                done, seconds, cpu = fill(target, texts, budget)
            except (OSError, http.client.HTTPException) as exc:
                print(f"{target.name}: gave up on the way to {step} certificates: {exc!r}", flush=True)
                yield row | {"failed": repr(exc)}
                return
            held += done
            row |= {"api_calls_a_second": done / seconds, "api_cpu_ms": cpu / done * 1000}
        row["certificates"] = held
        leaves = [authority.leaf(f"first-{step}-{number}") for number in range(connections)]
        fleet = Fleet(target, authority.device_key)
        cpu = target.cpu()
        gc.collect()
        seconds = fleet.run(leaves, limit=30.0)
        used = target.cpu() - cpu
        held += fleet.done
        row |= {
            "first_connections_a_second": fleet.done / seconds,
            "cpu_ms_a_connection": used / max(fleet.done, 1) * 1000,
            "on_one_core_a_second": fleet.done / max(used, 1 / os.sysconf("SC_CLK_TCK")),
            "outcomes": dict(fleet.outcomes),
            "rss_mib": target.rss(),
        }
        print(_growth_line(row), flush=True)
        yield row
        if held < step:
            print(f"{target.name}: stopped at {held} certificates, {budget:g} s were not enough for {step}")
            return


def measure_idle(target: Target, authority: Authority, connections: int) -> dict[str, Any]:
    """Devices with a certificate each, ACTIVE and with a policy, all connected at once."""
    target.call("POST", "/policies/bench", {"policyDocument": POLICY})
    leaves = [authority.leaf(f"idle-{number}") for number in range(connections)]
    for leaf in leaves:
        body = {"certificatePem": pem(leaf), "status": "ACTIVE"}
        arn = target.call("POST", "/certificate/register-no-ca", body)["certificateArn"]
        target.call("PUT", "/target-policies/bench", {"target": arn})
    before = target.rss()
    fleet = Fleet(target, authority.device_key, keep=True)
    cpu = target.cpu()
    seconds = fleet.run(leaves)
    used = target.cpu() - cpu
    time.sleep(2)
    cpu = target.cpu()
    time.sleep(5)
    row = {
        "server": target.name,
        "connections": len(fleet.kept),
        "connects_a_second": fleet.done / seconds,
        "cpu_ms_a_connection": used / max(fleet.done, 1) * 1000,
        "rss_mib_before": before,
        "rss_mib": target.rss(),
        "kib_a_connection": (target.rss() - before) * 1024 / max(len(fleet.kept), 1),
        "idle_cpu_percent": (target.cpu() - cpu) / 5 * 100,
        "outcomes": dict(fleet.outcomes),
    }
    fleet.close()
    print(
        f"{target.name:10} {row['connections']:>8} idle connections: {row['rss_mib']:.0f} MiB resident"
        f" ({row['kib_a_connection']:.1f} KiB each), {row['idle_cpu_percent']:.1f} % CPU,"
        f" {row['connects_a_second']:.0f} connects/s; {row['outcomes']}",
        flush=True,
    )
    return row


HEADER = (
    f"{'server':10} {'certificates':>12} {'first conn/s':>12} {'server CPU':>12} {'on one core':>12}"
    f" {'API calls/s':>12} {'RSS':>10}  outcomes"
)


def _growth_line(row: Mapping[str, Any]) -> str:
    api = f"{row['api_calls_a_second']:.0f}/s" if "api_calls_a_second" in row else "-"
    return (
        f"{row['server']:10} {row['certificates']:>12} {row['first_connections_a_second']:>10.0f}/s"
        f" {row['cpu_ms_a_connection']:>9.2f} ms {row['on_one_core_a_second']:>10.0f}/s {api:>12}"
        f" {row['rss_mib']:>6.0f} MiB  {row['outcomes']}"
    )


def numbers(text: str) -> list[int]:
    """``0,10000``: argparse tells of a ``ValueError``."""
    return sorted(int(each) for each in text.split(","))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--steps", type=numbers, default="0,10000,50000,100000", help="certificates at which it is measured"
    )
    parser.add_argument("--connections", type=int, default=6000, help="first connections at each step")
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections; 0: none")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds for the API calls of one step")
    parser.add_argument("--ministack", metavar="PYTHON", help="interpreter that has ministack installed")
    parser.add_argument("--state", nargs="?", const="", help="measure it also with a state directory")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(None if arguments.state in (None, "") else Path(arguments.state))
        return
    raise_limits()
    cores = sorted(os.sched_getaffinity(0))
    server_core = cores[0] if len(cores) > 1 else None
    pin(cores[1] if len(cores) > 1 else None)
    steps = arguments.steps
    result: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_average_before": os.getloadavg()[0],
        "growth": [],
        "idle": [],
    }
    makers: list[Callable[[], AbstractContextManager[Target]]] = [partial(devicesim, server_core)]
    if arguments.state is not None:
        makers.append(partial(kept, server_core))
    if arguments.ministack:
        makers.append(partial(ministack, arguments.ministack, server_core))
    print(HEADER)
    for make in makers:
        with make() as target:
            authority = Authority()
            register_ca(target, authority)
            for step in measure_growth(target, authority, steps, arguments.connections, arguments.budget):
                result["growth"].append(step)
    if arguments.idle:
        for make in makers:
            with make() as target:
                try:
                    result["idle"].append(measure_idle(target, Authority(), arguments.idle))
                except (OSError, http.client.HTTPException) as exc:
                    print(f"{target.name}: gave up with idle connections: {exc!r}", flush=True)
                    result["idle"].append({"server": target.name, "failed": repr(exc)})
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
