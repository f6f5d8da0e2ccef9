"""``devicesim run --workers`` and ``--scheduler``: real processes of Dask's, killed, interrupted, restarted."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from distributed import Security

from tests.support import Devicesim, start

pytestmark = pytest.mark.slow

TIMEOUT = 120.0
DEVICES = 60
RATE = 20.0
FLEET = f"""
version = 1
name = "shared"
[ca]
certificate = "ca/ca.pem"
key = "ca/ca.key"
secret = "ca/fleet.secret"
[accounts.a]
id = "777777777777"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
[accounts.b]
id = "888888888888"
ca_mode = "DEFAULT"
provisioning = "JITR"
[groups.own]
count = {DEVICES - 20}
account = "a"
[groups.other]
count = 14
account = "b"
[groups.none]
count = 6
account = "b"
sni = "none"
[arrival]
rate = "{RATE:g}/s"
[emulator]
jitp_delay = [0.1, 0.2]
[emulator.quotas]
lifted = true
[retry]
first_delay = [0.6, 0.8]
"""


@pytest.fixture
def fleet(tmp_path: Path, devicesim: Devicesim) -> Path:
    assert devicesim("ca", "create", "--out", tmp_path / "ca").code == 0
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET)
    return path


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; nothing is left there, nor a process of the test's, nor a key in a record."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    yield directory
    assert wait_for(lambda: processes_with(str(tmp_path)) == [], 20.0), processes_with(str(tmp_path))
    assert list(directory.iterdir()) == []
    for path in tmp_path.rglob("*.sqlite*"):
        assert b"PRIVATE KEY" not in path.read_bytes()


def rows(record: Path, query: str) -> list[Sequence[Any]]:
    connection = sqlite3.connect(f"file:{record}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def processes_with(text: str) -> list[int]:
    """Processes whose command line, or working directory, mentions ``text``."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal() and int(each.name) != os.getpid():
            try:
                line = (each / "cmdline").read_bytes() + os.readlink(each / "cwd").encode()
            except OSError:
                continue
            if text.encode() in line:
                found.append(int(each.name))
    return found


def children_of(parent: int, text: str) -> list[int]:
    """Processes below ``parent`` whose command line mentions ``text``."""
    found = []
    for each in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in map(int, each.read_text().split()):
            if text in Path(f"/proc/{child}/cmdline").read_text():
                found.append(child)
            found += children_of(child, text)
    return found


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that drive devices."""
    return children_of(process.pid, "spawn_main")


def listening(pid: int) -> list[str]:
    """Addresses at which a process takes connections."""
    sockets = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            sockets.add(os.readlink(each))
    found = []
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                words = [bytes.fromhex(fields[1].split(":")[0])[n : n + 4] for n in range(0, 16, 4)]
                found.append(socket.inet_ntop(family, b"".join(word[::-1] for word in words)))
    return found


def run(fleet: Path, name: str, *arguments: str) -> tuple[subprocess.Popen[str], Path]:
    out = fleet.parent / name
    process = start("run", fleet, "--out", out, "--json", "--quiet", *arguments, cwd=fleet.parent)
    return process, out / "run.sqlite"


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The summary. Whatever Dask had to say would stand on standard error."""
    out, err = process.communicate(timeout=TIMEOUT)
    assert err == "" or process.returncode == 105, err
    return dict(json.loads(out))


def under_way(record: Path, process: subprocess.Popen[str], devices: int) -> None:
    """Wait until so many devices have been started."""

    def there() -> bool:
        assert process.poll() is None, process.communicate()
        try:
            return bool(rows(record, "SELECT count(*) FROM devices")[0][0] >= devices)
        except sqlite3.OperationalError:
            return False

    assert wait_for(there, TIMEOUT)


def due(record: Path) -> dict[int, float]:
    """Seconds from the first start until each device was due."""
    starts = rows(record, "SELECT device, intended_at FROM attempts WHERE attempt = 1")
    first = min(at for _, at in starts)
    return {device: round(at - first, 4) for device, at in starts}


def test_two_processes_come_to_what_one_comes_to(fleet: Path) -> None:
    alone, record_alone = run(fleet, "alone", "--workers", "1")
    ended(alone)
    shared, record = run(fleet, "shared", "--workers", "2")
    summary = ended(shared)

    assert (alone.returncode, shared.returncode) == (0, 0)
    assert summary["agrees"] is True
    devices = "SELECT number, identity_index, group_name, client_id, certificate_id FROM devices ORDER BY number"
    assert rows(record, devices) == rows(record_alone, devices)
    assert len(rows(record, devices)) == DEVICES
    verdicts = "SELECT device, outcome, account, mode, thing, expected_account, agrees FROM verdicts ORDER BY device"
    assert rows(record, verdicts) == rows(record_alone, verdicts)
    assert due(record) == due(record_alone)
    ends = "SELECT device, max(attempt) = count(*), max(connack_code) FROM attempts GROUP BY 1 ORDER BY 1"
    assert rows(record, ends) == rows(record_alone, ends)
    shares = rows(record, "SELECT process, sum(starts) FROM generator GROUP BY 1 ORDER BY 1")
    assert shares == [("coordinator", 0), ("worker 1", DEVICES // 2), ("worker 2", DEVICES // 2)]


def test_a_process_that_is_killed_loses_its_own_devices_and_no_more(fleet: Path) -> None:
    process, record = run(fleet, "run", "--workers", "2")
    under_way(record, process, DEVICES // 3)
    victim = workers_of(process)[0]
    os.kill(victim, signal.SIGKILL)
    killed_at = time.time()
    summary = ended(process)

    assert process.returncode == 98, summary
    assert summary["status"] == "finished"
    started = {number for (number,) in rows(record, "SELECT number FROM devices")}
    dropped = {number for (number,) in rows(record, "SELECT device FROM drops")}
    judged = {number for (number,) in rows(record, "SELECT device FROM verdicts")}
    lost = next(share for share in (set(range(0, DEVICES, 2)), set(range(1, DEVICES, 2))) if dropped <= share)
    assert dropped
    assert started.isdisjoint(dropped)
    assert started | dropped == set(range(DEVICES))
    assert max(started & lost) < min(dropped)
    assert judged >= set(range(DEVICES)) - lost  # those of the other process came to their end
    assert judged <= started
    ((noted_at, note),) = rows(record, "SELECT at, text FROM notes WHERE kind = 'error'")
    assert 0 <= noted_at - killed_at < 5
    undecided = len(started - judged)
    assert note.startswith("worker tls://127.0.0.1:")
    assert note.endswith(
        f" is gone (its process has ended): {len(started & lost)} of its {DEVICES // 2} devices had had their turn, "
        f"{undecided} of them were under way and stay undecided, {len(dropped)} were never started"
    )
    assert rows(record, "SELECT device, attempt FROM attempts GROUP BY 1, 2 HAVING count(*) > 1") == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_the_terminal_ends_the_run_with_all_that_its_processes_saw(fleet: Path, how: signal.Signals) -> None:
    process, record = run(fleet, "run", "--workers", "2")
    under_way(record, process, DEVICES // 3)
    os.killpg(process.pid, how)  # a terminal's Ctrl-C goes to all
    out, err = process.communicate(timeout=30)

    assert process.returncode == 105, out + err
    assert err == "devicesim: interrupted: writing the record; once more to stop at once\n"
    assert rows(record, "SELECT status FROM run") == [("interrupted",)]
    assert rows(record, "SELECT * FROM notes WHERE kind = 'error'") == []
    assert rows(record, "SELECT * FROM drops") == []  # nobody was lost
    # their last words, the sample at the end, have arrived: nothing that they told before is missing
    told = rows(record, "SELECT (SELECT count(*) FROM devices), (SELECT sum(starts) FROM generator)")
    assert told[0][0] == told[0][1] < DEVICES


def test_ctrl_c_while_processes_are_being_started_leaves_none_of_them(fleet: Path) -> None:
    process, record = run(fleet, "run", "--workers", "2")
    assert wait_for(lambda: len(workers_of(process)) == 2, TIMEOUT)
    time.sleep(0.3)  # they run by now, and have most of Dask to import yet
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)

    assert process.returncode == 105, out + err
    assert err == f"devicesim: interrupted; what was recorded is in {record.parent}\n"


def test_when_the_coordinator_is_killed_so_are_its_processes(fleet: Path, scratch: Path) -> None:
    process, record = run(fleet, "run", "--workers", "2")
    under_way(record, process, DEVICES // 6)
    workers = workers_of(process)
    assert len(workers) == 2
    # and until then nobody on another machine can speak to them
    assert {host for pid in (process.pid, *workers) for host in listening(pid)} == {"127.0.0.1"}
    process.kill()
    process.communicate(timeout=30)

    assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 10.0)
    assert list(scratch.iterdir()) == []


# --- a cluster that is there already ---


@contextmanager
def dask(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (cwd / f"{arguments[0]}-{time.monotonic_ns()}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            cwd=cwd,
            env=os.environ | {"DASK_TEMPORARY_DIRECTORY": str(cwd / "dask")},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """A scheduler with two workers, each with a nanny that starts it anew at the same address."""
    at = tmp_path / "scheduler.json"
    common = ("--no-dashboard", "--scheduler-file", str(at))
    worker = ("worker", "--nthreads", "1", "--host", "127.0.0.1", "--local-directory", str(tmp_path), *common)
    with dask("scheduler", "--host", "127.0.0.1", "--port", "0", *common, cwd=tmp_path):
        assert wait_for(at.exists, 60.0)
        with (
            dask(*worker, "--worker-port", free_port(), cwd=tmp_path),
            dask(*worker, "--worker-port", free_port(), cwd=tmp_path),
        ):
            yield json.loads(at.read_text())["address"]


def free_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def test_a_cluster_that_is_there_is_used_and_left_as_it_was(fleet: Path, scheduler: str) -> None:
    for name in ("first", "second"):
        process, record = run(fleet, name, "--workers", "2", "--scheduler", scheduler)
        summary = ended(process)

        assert process.returncode == 0, summary
        assert rows(record, "SELECT count(DISTINCT process), sum(starts) FROM generator") == [(3, DEVICES)]


@pytest.fixture
def tls_files(tmp_path: Path) -> dict[str, str]:
    """Dask's own settings for a scheduler that talks TLS only, in the environment."""
    made = Security.temporary()
    certificate, key = tmp_path / "dask.pem", tmp_path / "dask.key"
    certificate.write_text(made.tls_ca_file)
    key.write_text(made.tls_client_key)
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    roles = ("SCHEDULER", "WORKER", "CLIENT")
    return {
        f"{prefix}CA_FILE": str(certificate),
        **{f"{prefix}{role}__CERT": str(certificate) for role in roles},
        **{f"{prefix}{role}__KEY": str(key) for role in roles},
    }


def test_a_scheduler_that_talks_tls_is_used_with_dask_s_own_settings_and_told_without(
    fleet: Path, tmp_path: Path, tls_files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = tmp_path / "scheduler.json"
    common = ("--no-dashboard", "--scheduler-file", str(at))
    worker = ("worker", "--nthreads", "1", "--host", "127.0.0.1", "--local-directory", str(tmp_path), *common)
    with monkeypatch.context() as settings:
        for name, value in tls_files.items():
            settings.setenv(name, value)
        with dask("scheduler", "--host", "tls://127.0.0.1", "--port", "0", *common, cwd=tmp_path):
            assert wait_for(at.exists, 60.0)
            address = json.loads(at.read_text())["address"]
            assert address.startswith("tls://")
            with dask(*worker, cwd=tmp_path):
                process, record = run(fleet, "run", "--scheduler", address)
                summary = ended(process)

                assert process.returncode == 0, summary
                assert rows(record, "SELECT sum(starts) FROM generator") == [(DEVICES,)]
        settings.setenv("DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY", str(tmp_path / "none.key"))
        unreadable = start("run", fleet, "--out", tmp_path / "other", "-q", "--scheduler", address, cwd=tmp_path)
        _, why_not = unreadable.communicate(timeout=TIMEOUT)
    unknown = start("run", fleet, "--out", tmp_path / "third", "-q", "--scheduler", address, cwd=tmp_path)
    _, why = unknown.communicate(timeout=TIMEOUT)

    assert (unreadable.returncode, unknown.returncode) == (3, 3)
    assert f"devicesim: error: scheduler '{address}': Dask's TLS files cannot be read: " in why_not
    assert f"devicesim: error: scheduler '{address}' needs a certificate, and Dask's settings name none" in why
    assert "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY" in why
    assert "Traceback" not in why + why_not


def test_a_worker_that_its_nanny_starts_anew_at_its_address_runs_no_device_again(fleet: Path, scheduler: str) -> None:
    process, record = run(fleet, "run", "--workers", "2", "--scheduler", scheduler)
    under_way(record, process, DEVICES // 3)
    workers = [pid for pid in processes_with(str(fleet.parent)) if "spawn_main" in command_line(pid)]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    ended(process)

    assert process.returncode == 98
    started, dropped = rows(record, "SELECT (SELECT count(*) FROM devices), (SELECT count(*) FROM drops)")[0]
    assert started + dropped == DEVICES
    assert dropped > 0
    assert rows(record, "SELECT number FROM devices JOIN drops ON device = number") == []
    assert len(rows(record, "SELECT * FROM notes WHERE kind = 'error'")) == 1


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_more_workers_than_there_are_is_told_before_anything_is_set_up(fleet: Path, scheduler: str) -> None:
    process = start(
        "run", fleet, "--out", fleet.parent / "run", "-q", "--scheduler", scheduler, "--workers", "3", cwd=fleet.parent
    )
    _, err = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 3
    assert "devicesim: error: the cluster has 2 workers; --workers 3 needs as many" in err


def test_a_scheduler_that_is_not_there_is_told(fleet: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    process = start("run", fleet, "--out", fleet.parent / "run", "-q", "--scheduler", address, cwd=fleet.parent)
    _, err = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 3
    assert err.startswith(f"devicesim: error: no Dask scheduler answers at '{address}': ")
    assert "Traceback" not in err
