"""``devicesim run`` end to end: real processes, real sockets, the fleets that ship with us."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.schema_support import faults
from tests.support import ROOT, Devicesim, emulator, start

TIMEOUT = 120.0


def run_fleet(fleet: str | Path, tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a fleet with ``--json``: the exit code, and the summary."""
    path = ROOT / "fleets" / fleet if isinstance(fleet, str) else fleet
    process = start("run", path, "--json", "--quiet", "--out", tmp_path / "run", *arguments, cwd=tmp_path)
    out, err = process.communicate(timeout=TIMEOUT)
    assert out, err
    summary = json.loads(out)
    assert faults("summary", summary) == []
    return process.returncode, summary


def processes_with(text: str) -> list[str]:
    """Command lines of the processes that mention ``text``."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                line = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if text in line:
                found.append(line)
    return found


def rows(record: Path, query: str) -> list[Sequence[Any]]:
    connection = sqlite3.connect(f"file:{record}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


SMALLER = {"soak.toml": ("--devices", "60", "--hold", "4s"), "batches.toml": ("--devices", "60")}
"""Fleets that are made to take long."""


@pytest.mark.parametrize(
    ("fleet", "code"),
    [
        ("walkthrough.toml", 0),
        ("ca-not-registered.toml", 0),
        ("no-sni.toml", 0),
        ("wrong-expectation.toml", 99),
        ("dev-staging-prod.toml", 0),
        ("quotas.toml", 0),
        ("faults.toml", 0),
        ("mistakes.toml", 0),
        ("soak.toml", 0),
        ("batches.toml", 0),
    ],
)
def test_a_shipped_fleet_ends_as_it_says(fleet: str, code: int, tmp_path: Path) -> None:
    ended, summary = run_fleet(fleet, tmp_path, *SMALLER.get(fleet, ()))

    assert ended == code
    assert summary["agrees"] is (code == 0)
    assert f"exit code {code}" in (ROOT / "fleets" / fleet).read_text()


def test_a_fleet_that_is_throttled_is_told_so(tmp_path: Path) -> None:
    text = (ROOT / "fleets" / "quotas.toml").read_text().replace("count = 40", "count = 4")
    text = text.replace("[retry]", "[emulator.quotas]\ncertificate_registrations_per_second = 1\n\n[retry]")
    (tmp_path / "fleet.toml").write_text(text)

    process = start("run", tmp_path / "fleet.toml", "--out", tmp_path / "run", cwd=tmp_path)
    out, err = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 0, out + err
    told = r"throttled \d+ requests, as its quotas say: certificate_registrations_per_second \d+; lower --rate"
    assert re.search(told, err)


def test_every_shipped_fleet_is_run_above() -> None:
    parametrize = next(iter(test_a_shipped_fleet_ends_as_it_says.pytestmark))  # type: ignore[attr-defined]  # set by the decorator

    assert {each[0] for each in parametrize.args[1]} == {each.name for each in (ROOT / "fleets").glob("*.toml")}


def test_the_walk_through_is_recorded_to_the_last_connection(tmp_path: Path) -> None:
    _, summary = run_fleet("walkthrough.toml", tmp_path)

    record = tmp_path / "run" / "run.sqlite"
    assert summary["status"] == "finished"
    # nobody is provisioned on a first connection, and the second server name is the one asked for
    assert rows(record, "SELECT count(*) FROM devices") == [(35,)]
    assert rows(record, "SELECT count(*) FROM attempts WHERE attempt = 1 AND connack_code IS NOT NULL") == [(0,)]
    sent = rows(
        record, "SELECT DISTINCT d.group_name, a.sni_sent IS NULL FROM attempts a JOIN devices d ON d.number = a.device"
    )
    assert sorted(map(tuple, sent)) == [
        ("moved-to-account-2", 0),
        ("name-of-account-1", 0),
        ("name-of-account-2", 0),
        ("without-sni", 1),
    ]


def test_nothing_of_a_run_is_left_behind(tmp_path: Path) -> None:
    ended, _ = run_fleet("ca-not-registered.toml", tmp_path)

    assert ended == 0
    assert sorted(each.name for each in (tmp_path / "run").iterdir()) == ["emulator.log", "run.sqlite"]
    assert processes_with(str(tmp_path)) == []
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"PRIVATE KEY" not in path.read_bytes()


SLOW = """
version = 1
name = "slow"
[accounts.a]
id = "777777777777"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
[groups.g]
count = 400
account = "a"
[arrival]
rate = "40/s"
[emulator]
jitp_delay = [0.1, 0.2]
[retry]
first_delay = [0.4, 0.6]
"""


def start_slow_run(tmp_path: Path, *arguments: str) -> tuple[subprocess.Popen[str], Path]:
    """A run that is under way: some devices accepted, most not yet started."""
    fleet = tmp_path / "slow.toml"
    fleet.write_text(SLOW)
    process = start("run", fleet, "--out", tmp_path / "run", *arguments, cwd=tmp_path)
    record = tmp_path / "run" / "run.sqlite"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if record.exists():
            try:
                if rows(record, "SELECT count(*) FROM attempts WHERE connack_code = 0")[0][0] > 10:
                    return process, record
            except sqlite3.OperationalError:
                pass
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("the run did not get under way")


def test_ctrl_c_leaves_a_whole_record_and_nothing_else(tmp_path: Path, devicesim: Devicesim) -> None:
    process, record = start_slow_run(tmp_path)
    assert processes_with(f"emulate {tmp_path}")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    assert process.returncode == 105, err
    assert "interrupted" in out
    assert "Traceback" not in err
    assert processes_with(str(tmp_path)) == []
    assert rows(record, "SELECT status FROM run") == [("interrupted",)]
    attempts = rows(record, "SELECT count(*) FROM attempts")[0][0]
    assert attempts > 10
    again = devicesim("report", tmp_path / "run", "--json")
    assert again.code == 105
    summary = json.loads(again.out)
    assert summary["status"] == "interrupted"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"PRIVATE KEY" not in path.read_bytes()


def test_kill_9_leaves_a_readable_record_and_no_emulator(tmp_path: Path, devicesim: Devicesim) -> None:
    process, record = start_slow_run(tmp_path)
    process.kill()
    process.communicate(timeout=30)

    deadline = time.monotonic() + 20
    while processes_with(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_with(str(tmp_path)) == []
    assert rows(record, "SELECT count(*) FROM attempts WHERE connack_code = 0")[0][0] > 10
    assert devicesim("report", record, "--json").code == 105


@pytest.mark.parametrize(("how", "said"), [(signal.SIGKILL, "by signal 9"), (signal.SIGTERM, "with exit code 0")])
def test_an_emulator_that_ends_under_the_run_ends_it(
    tmp_path: Path, devicesim: Devicesim, how: signal.Signals, said: str
) -> None:
    """No device goes on trying; what was seen is judged, and the reason stands in the record."""
    process, record = start_slow_run(tmp_path, "--quiet")
    os.kill(child_of(process.pid), how)
    began = time.monotonic()
    _, err = process.communicate(timeout=30)

    assert process.returncode == 3
    assert err.splitlines() == [f"devicesim: error: the emulator ended {said} while the run went on"]
    assert time.monotonic() - began < 15
    assert rows(record, "SELECT status FROM run") == [("interrupted",)]
    assert rows(record, "SELECT text FROM notes WHERE kind = 'error'") == [
        (f"the emulator ended {said} while the run went on",)
    ]
    assert rows(record, "SELECT count(*) FROM verdicts WHERE outcome = 'provisioned'")[0][0] > 10
    assert devicesim("report", record, "--json").code == 105


def child_of(parent: int) -> int:
    threads = Path(f"/proc/{parent}/task").iterdir()  # a child belongs to the thread that started it
    (child,) = [each for thread in threads for each in (thread / "children").read_text().split()]
    return int(child)


def test_progress_that_nobody_reads_ends_no_run(tmp_path: Path) -> None:
    """``devicesim run ... 2>&1 | head -1``."""
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "devicesim", "run", ROOT / "fleets" / "ca-not-registered.toml", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=write,
        check=False,
        timeout=TIMEOUT,
    )
    os.close(write)

    (record,) = tmp_path.rglob("run.sqlite")
    assert rows(record, "SELECT status FROM run") == [("finished",)]
    assert json.loads(process.stdout)["agrees"] is True


def test_output_onto_a_full_disk_is_told_in_a_line(tmp_path: Path, devicesim: Devicesim) -> None:
    _, _ = run_fleet("ca-not-registered.toml", tmp_path)
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "devicesim", "report", tmp_path / "run"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=30,
        )

    assert (process.returncode, process.stderr) == (1, "devicesim: error: No space left on device\n")


def test_an_emulator_log_that_cannot_be_written_is_told_in_a_line(tmp_path: Path, devicesim: Devicesim) -> None:
    (tmp_path / "run" / "emulator.log").mkdir(parents=True)

    refused = devicesim("run", ROOT / "fleets" / "no-sni.toml", "--quiet", "--out", tmp_path / "run")

    assert refused.code == 2
    assert "emulator.log cannot be written: Is a directory" in refused.err


def test_what_limits_the_devices_tls_does_not_limit_the_activator(tmp_path: Path) -> None:
    """In TLS 1.2 the one curve offered rules the emulator's certificate out, for the devices alone."""
    fleet = edited(
        tmp_path,
        "walkthrough.toml",
        ("[emulator]", '[devices]\nkey_type = "ec-p384"\n[emulator]'),
        ("[emulator]", '[tls]\nmaximum_version = "TLSv1.2"\ngroup = "P-384"\n[emulator]'),
    )

    ended, summary = run_fleet(fleet, tmp_path, "--devices", "4")

    assert ended == 99, summary
    assert {(each["kind"], each["stage"]) for each in summary["failures"]} == {("tls_alert", "tls")}


def test_a_target_that_is_not_there_exits_3(tmp_path: Path) -> None:
    process = start("ca", "create", "--out", tmp_path / "ca", cwd=tmp_path)
    process.communicate(timeout=30)
    process = start(
        "run",
        ROOT / "fleets" / "walkthrough.toml",
        "--endpoint-url",
        "http://127.0.0.1:9",
        "--connect-to",
        "127.0.0.1:9",
        "--cacert",
        tmp_path / "ca" / "ca.pem",
        "--out",
        tmp_path / "run",
        cwd=tmp_path,
    )
    _, err = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 3
    assert "account 'account-1'" in err
    assert "Traceback" not in err
    assert rows(tmp_path / "run" / "run.sqlite", "SELECT status FROM run") == [("interrupted",)]


def edited(tmp_path: Path, fleet: str, *changes: tuple[str, str]) -> Path:
    text = (ROOT / "fleets" / fleet).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / fleet
    path.write_text(text)
    return path


@pytest.mark.parametrize("sni", ["endpoint", "none"])
def test_a_server_of_another_name_is_refused_by_the_device(tmp_path: Path, sni: str) -> None:
    fleet = edited(
        tmp_path,
        "wrong-expectation.toml",
        ('sni = "none"', f'sni = "{sni}"\nverify_name = "elsewhere.example.com"'),
        ('{ outcome = "provisioned", account = "prod" }', '{ outcome = "unreachable" }'),
    )

    ended, _ = run_fleet(fleet, tmp_path)

    assert ended == 0
    seen = rows(
        tmp_path / "run" / "run.sqlite",
        "SELECT DISTINCT failure_kind, failure_stage FROM attempts a JOIN devices d ON d.number = a.device"
        " WHERE group_name = 'without-sni'",
    )
    assert seen == [("server_name_mismatch", "tls")]


@pytest.mark.parametrize("sni", ["endpoint", "none"])
def test_a_server_of_an_untrusted_chain_is_refused_by_the_device(
    tmp_path: Path, devicesim: Devicesim, sni: str
) -> None:
    assert devicesim("ca", "create", "--out", tmp_path / "other").code == 0
    fleet = edited(
        tmp_path,
        "ca-not-registered.toml",
        ('account = "prod"', f'account = "prod"\nsni = "{sni}"'),
        ("[retry]", f'[tls]\nroots = "{tmp_path}/other/ca.pem"\n\n[retry]'),
    )

    ended, summary = run_fleet(fleet, tmp_path)

    assert ended == 99
    assert not summary["agrees"]
    seen = rows(tmp_path / "run" / "run.sqlite", "SELECT DISTINCT failure_kind, alert_direction FROM attempts")
    assert seen == [("server_certificate_untrusted", "sent")]


def test_what_devices_trust_does_not_bind_the_activator(tmp_path: Path, devicesim: Devicesim) -> None:
    """Devices that trust the wrong root are a finding; that the activator would too, an accident of this program."""
    assert devicesim("ca", "create", "--out", tmp_path / "other").code == 0
    fleet = edited(
        tmp_path, "walkthrough.toml", ("[emulator]", f'[tls]\nroots = "{tmp_path}/other/ca.pem"\n[emulator]')
    )

    ended, summary = run_fleet(fleet, tmp_path, "--devices", "8")

    assert ended == 99
    assert summary["totals"]["outcomes"] == {"unreachable": 8}


def test_a_fleet_that_moves_keeps_its_certificates(tmp_path: Path, devicesim: Devicesim) -> None:
    """The same CA and secret on another day: the same certificates, now in the other account."""
    assert devicesim("ca", "create", "--out", tmp_path / "ca").code == 0
    material = '[ca]\ncertificate = "ca/ca.pem"\nkey = "ca/ca.key"\nsecret = "ca/fleet.secret"\n'
    ids = []
    for account in ("staging", "prod"):
        fleet = edited(
            tmp_path,
            "no-sni.toml",
            ("[accounts.staging]", f"{material}\n[accounts.staging]"),
            ('[groups.with-sni]\ncount = 5\naccount = "prod"', f'[groups.with-sni]\ncount = 5\naccount = "{account}"'),
        )
        directory = tmp_path / account
        directory.mkdir()
        ended, _ = run_fleet(fleet, directory)
        assert ended == 0
        query = "SELECT certificate_id, account FROM holdings WHERE phase = 'after' ORDER BY 1"
        ids.append(rows(directory / "run" / "run.sqlite", query))

    assert [each[0] for each in ids[0]] == [each[0] for each in ids[1]]
    assert {each[1] for each in ids[0]} == {"staging"}
    assert {each[1] for each in ids[1]} == {"prod"}


def test_the_table_is_on_standard_output_and_progress_on_standard_error(tmp_path: Path) -> None:
    process = start("run", ROOT / "fleets" / "ca-not-registered.toml", "--out", tmp_path / "run", cwd=tmp_path)
    out, err = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 0
    assert "robots-without-sni" in out
    assert "setting up prod" in err
    assert "robots" not in err
    assert os.listdir(tmp_path) == ["run"]


@pytest.fixture
def running_emulator() -> Iterator[tuple[str, ...]]:
    """An emulator that runs already: the flags with which `run` reaches it."""
    with emulator(ROOT / "fleets" / "no-sni.toml") as ready:
        yield (
            *("--endpoint-url", ready["api"]),
            *("--connect-to", f"{ready['mqtt']['host']}:{ready['mqtt']['port']}", "--cacert", ready["ca_file"]),
        )
    assert not Path(ready["ca_file"]).exists()


MATERIAL = '[ca]\ncertificate = "ca/ca.pem"\nkey = "ca/ca.key"\nsecret = "ca/fleet.secret"\n'


def test_a_second_run_finds_everything_as_the_first_left_it(
    tmp_path: Path, devicesim: Devicesim, running_emulator: tuple[str, ...]
) -> None:
    """The same robots on another day: on record already, so IoT Core should take them at once, and does."""
    assert devicesim("ca", "create", "--out", tmp_path / "ca").code == 0
    fleet = edited(tmp_path, "no-sni.toml", ("[accounts.staging]", f"{MATERIAL}\n[accounts.staging]"))
    summaries = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        ended, summary = run_fleet(fleet, tmp_path / name, *running_emulator)
        assert ended == 0
        summaries.append({group["name"]: group for group in summary["groups"]})

    first, second = (each["with-sni"] for each in summaries)
    assert first["expected"][0]["first_try"] == "closed_before_connack"
    assert first["first_try"] == {"closed_before_connack": 5}
    assert second["expected"][0]["first_try"] == "accepted"
    assert second["first_try"] == {"accepted": 5}
    assert second["expected"][0]["row"]["id"] == "10c.active.allowed"


def test_imported_devices_need_no_key_of_the_ca(
    tmp_path: Path, devicesim: Devicesim, running_emulator: tuple[str, ...]
) -> None:
    """A team that has only the CA's certificate and its devices' bundles: SNI_ONLY asks for no more."""
    assert devicesim("ca", "create", "--out", tmp_path / "ca").code == 0
    minted = edited(tmp_path, "no-sni.toml", ("[accounts.staging]", f"{MATERIAL}\n[accounts.staging]"))
    assert devicesim("mint", minted, "--out", tmp_path / "bundles").code == 0
    # a CA of the same name is not the same CA, and is no issuer of this fleet's devices
    assert devicesim("ca", "create", "--out", tmp_path / "twin").code == 0
    twin = ("--ca", tmp_path / "twin" / "ca.pem", "--ca-key", tmp_path / "twin" / "ca.key")
    assert devicesim("mint", minted, *twin, "--out", tmp_path / "others").code == 0
    (tmp_path / "ca" / "ca.key").unlink()
    imported = '[ca]\ncertificate = "ca/ca.pem"\n[devices]\nkeys = "imported"\nbundles = "bundles/*.pem"\n'
    fleet = edited(tmp_path, "no-sni.toml", ("[accounts.staging]", f"{imported}\n[accounts.staging]"))
    broken, foreign = sorted((tmp_path / "bundles").iterdir())[5:7]
    broken.write_text("no bundle")
    foreign.write_text(min((tmp_path / "others").iterdir()).read_text())

    ended, summary = run_fleet(fleet, tmp_path, *running_emulator)

    groups = {group["name"]: group for group in summary["groups"]}
    assert ended == 99  # two bundles are of no use; no other device minds
    assert sum(group["agree"] for group in groups.values()) == 13
    assert sum(group["not_started"] for group in groups.values()) == 2
    assert sorted(Path(each.split()[2]).name for each in summary["errors"]) == [broken.name, foreign.name]


def test_random_keys_of_any_type_are_provisioned(tmp_path: Path) -> None:
    fleet = edited(
        tmp_path,
        "no-sni.toml",
        ("[accounts.staging]", '[devices]\nkeys = "random"\nkey_type = "rsa-2048"\n[accounts.staging]'),
        ("[accounts.staging]", '[ca]\nkey_type = "rsa-2048"\n[accounts.staging]'),
        ("[accounts.staging]", '[tls]\nmaximum_version = "TLSv1.2"\n[mqtt]\nversion = "5"\n[accounts.staging]'),
    )

    ended, summary = run_fleet(fleet, tmp_path, "--rate", "3/s")  # an RSA key takes its time

    assert ended == 0, summary
    assert rows(tmp_path / "run" / "run.sqlite", "SELECT DISTINCT tls_version FROM attempts") == [("TLSv1.2",)]


def test_doctor_asks_a_target_that_runs(
    tmp_path: Path, devicesim: Devicesim, running_emulator: tuple[str, ...]
) -> None:
    told = devicesim("doctor", ROOT / "fleets" / "no-sni.toml", *running_emulator[:2])

    assert told.code == 0
    assert "prod: credentials" in told.out
    assert "against the control plane's" in told.out
    assert ".iot.us-east-1.localhost" in told.out


def test_an_emulator_that_behaves_otherwise_is_found_out(tmp_path: Path) -> None:
    """The emulator does not share the oracle: told to turn devices without SNI away, it is contradicted."""
    fleet = edited(tmp_path, "walkthrough.toml", ("[emulator]", "[emulator]\nsettings = { jit_without_sni = false }"))

    ended, summary = run_fleet(fleet, tmp_path)

    assert ended == 99
    assert [group["name"] for group in summary["groups"] if not group["agrees"]] == ["without-sni"]
