"""``devicesim plan``: what a fleet needs, without connecting anywhere."""

import json
import socket
from pathlib import Path

import pytest

from devicesim.cli import plan as verb
from devicesim.fleet.capacity import MIB, Machine
from devicesim.report.plan_document import Plan
from tests.schema_support import faults
from tests.support import Devicesim

FLEET = """
version = 1
name = "robots"
[accounts.staging]
id = "222222222222"
region = "eu-central-1"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
[accounts.prod]
id = "333333333333"
region = "eu-central-1"
ca_mode = "DEFAULT"
provisioning = "JITR"
[groups.staging-robots]
count = 8000
account = "staging"
[groups.old-firmware]
count = 2000
account = "prod"
sni = "none"
"""
HERE = Machine(open_files=20_000, ports=28_232, time_wait=1.0, time_wait_abroad=60.0, memory=8192 * MIB, cpus=2)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "read_machine", lambda: HERE)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "robots.toml"
    path.write_text(FLEET)
    return path


def plan(devicesim: Devicesim, *arguments: str | Path) -> Plan:
    told = devicesim("plan", *arguments, "--json")
    assert (told.code, told.err) == (0, "")
    assert faults("plan", json.loads(told.out)) == []
    return Plan.model_validate_json(told.out)


def test_the_document_says_what_the_fleet_asks_of_each_account(devicesim: Devicesim, path: Path) -> None:
    found = plan(devicesim, path)

    assert (found.fleet, found.devices, found.connections) == ("robots", 10_000, 20_000)
    assert found.schedule.description == "50 starts/s"
    assert [(each.name, each.tries, each.counts_in) for each in found.groups] == [
        ("staging-robots", 2, "staging"),
        ("old-firmware", 2, "prod"),
    ]
    staging, prod = found.accounts
    assert (staging.devices, staging.binding, staging.least_seconds) == (8000, "RegisterThing", 800)
    assert (prod.devices, prod.binding, prod.least_seconds) == (2000, "UpdateCertificate", 200)
    (register,) = [each for each in staging.limits if each.name == "RegisterThing"]
    assert (register.default, register.needed, register.ask_for, register.exceeded) == (10, 40, 40, True)
    assert found.rate_within_limits == pytest.approx(12.5)
    assert found.lacks == ()


def test_the_rate_that_it_advises_keeps_within_the_limits(devicesim: Devicesim, path: Path) -> None:
    told = devicesim("plan", path)
    assert "or take --rate 12.5/s" in " ".join(told.out.split())

    advised = plan(devicesim, path, "--rate", "12.5/s")

    assert advised.rate_within_limits is None
    assert not any(each.exceeded for account in advised.accounts for each in account.limits)
    assert advised.schedule.seconds == pytest.approx(800, abs=1)


def test_five_million_devices_are_planned(devicesim: Devicesim, path: Path) -> None:
    found = plan(devicesim, path, "--devices", "5000000", "--rate", "1000/s")

    assert (found.devices, found.connections) == (5_000_000, 10_000_000)
    assert found.accounts[0].least_seconds == pytest.approx(400_000)
    assert found.load.processes == 10
    assert [each.kind for each in found.lacks] == ["open files", "local ports", "cores"]


def test_nothing_is_connected(devicesim: Devicesim, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a plan opens no socket")

    monkeypatch.setattr(socket, "socket", refuse)

    assert devicesim("plan", path).code == 0


def test_a_held_fleet_that_is_too_large_for_this_machine_is_told_so(devicesim: Devicesim, path: Path) -> None:
    path.write_text(FLEET + '[session]\nhold = "24h"\n')

    found = plan(devicesim, path, "--devices", "1000000")
    told = devicesim("plan", path, "--devices", "1000000")

    assert found.load.connected == 1_000_000
    assert found.load.sources == 29
    assert {each.kind for each in found.lacks if each.certain} == {"memory", "local ports", "open files"}
    text = " ".join(told.out.split())
    assert "This machine alone cannot make the load." in text
    assert "dial from 29 addresses" in text
    assert told.code == 0


def test_the_rate_takes_the_place_of_an_arrival_before_the_fleet_is_resized(devicesim: Devicesim, path: Path) -> None:
    ends = "[arrival]\nstages = [{ target = 2000, duration = 10 }, { target = 0, duration = 0 }]\n"
    path.write_text(FLEET + ends)

    assert devicesim("plan", path, "--devices", "20000").code == 104
    assert plan(devicesim, path, "--devices", "20000", "--rate", "5").devices == 20_000


def test_a_wrong_file_and_wrong_usage_have_their_exit_codes(devicesim: Devicesim, path: Path) -> None:
    assert devicesim("plan", path.parent / "missing.toml").code == 104
    assert devicesim("plan", path, "--rate", "fast").code == 2
    assert devicesim("plan", path, "--devices", "1").code == 104  # two groups
    assert devicesim("plan").code == 2


@pytest.mark.parametrize("width", ["80", "120"])
def test_no_line_is_wider_than_the_terminal(
    devicesim: Devicesim, path: Path, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    path.write_text(FLEET + '[session]\nhold = "24h"\n[arrival]\nmodel = "closed"\nconcurrency = 5000\n')

    told = devicesim("plan", path, "--devices", "10000000")

    assert max(map(len, told.out.splitlines())) <= int(width)
    assert "the last device starts after about" in told.out


def test_the_schema_is_that_of_the_document(devicesim: Devicesim, path: Path) -> None:
    schema = json.loads(devicesim("schema", "plan").out)

    document = json.loads(devicesim("plan", path, "--json").out)
    assert set(schema["required"]) | {"format"} == set(document)
