"""The emulator inside other programs: trio's, tests that block, and pytest's fixtures as a foreign suite uses them."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path

import pytest
import trio
from botocore.config import Config
from botocore.exceptions import ClientError

from devicesim import pytest as plugin
from devicesim.emulator.embedded import Emulator, emulator_in_a_thread, open_emulator, quick
from devicesim.emulator.packets import ConnAck
from devicesim.emulator.service import AccountConfig
from devicesim.errors import StateError
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity, certificate_pem
from devicesim.pki.profile import KeyType, Profile
from tests.emulator_support import ROLE, template
from tests.gateway_support import open_client

PLUGIN = ["-p", "devicesim.pytest"] if "devicesim" not in entry_points(group="pytest11").names else []
"""Not named again where it is installed with its entry point."""


def shared_ca() -> Authority:
    return new_shared_authority("Shared CA", KeyType.EC_P256, now=datetime.now(UTC), validity=timedelta(days=9))


def mint(ca: Authority) -> Identity:
    return ca.mint(2, secret=b"s" * 32, profile=Profile(names={"fleet": "robot"}))


async def test_a_walk_with_jitp_in_the_same_loop() -> None:
    ca = shared_ca()
    robot = mint(ca)
    with trio.fail_after(30):
        async with open_emulator(accounts=3, settings=quick(), seed=7) as emulator:
            account = emulator.account("account-2")
            assert [each.account_id for each in emulator.accounts] == ["111111111111", "222222222222", "333333333333"]
            iot = await trio.to_thread.run_sync(account.client)
            await trio.to_thread.run_sync(
                lambda: iot.register_ca_certificate(
                    caCertificate=certificate_pem(ca.certificate),
                    certificateMode="SNI_ONLY",
                    setAsActive=True,
                    allowAutoRegistration=True,
                    registrationConfig={"templateBody": template(), "roleArn": ROLE},
                )
            )
            async with open_client(account.mqtt_port, robot, account.endpoint) as client:
                assert await client.connect() is None
            while not emulator.history(verdict="provisioned"):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            async with open_client(account.mqtt_port, robot, account.endpoint) as client:
                assert await client.connect() == ConnAck()
            assert emulator.explain(robot.certificate_id)["stopped_at"] is None
            emulator.reset()
            assert emulator.history() == []
            with pytest.raises(LookupError):
                emulator.explain(robot.certificate_id)
            with pytest.raises(KeyError, match="no account 'nobody', there are account-1, account-2, account-3"):
                emulator.account("nobody")


async def test_what_the_block_raises_comes_out_as_itself() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_emulator():
            raise ZeroDivisionError
    with trio.move_on_after(0.2) as scope:
        async with open_emulator():
            await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with emulator_in_a_thread(accounts=2, settings=quick()) as emulator:
        yield emulator


def test_clients_of_two_accounts_see_their_own(running: Emulator) -> None:
    first, second = running.accounts
    first.client("iot").create_thing(thingName="robot")

    assert [each["thingName"] for each in first.client("iot").list_things()["things"]] == ["robot"]
    assert second.client("iot").list_things()["things"] == []
    assert second.client("sts").get_caller_identity()["Account"] == second.account_id


def test_what_is_called_from_another_thread_runs_in_the_emulators(running: Emulator) -> None:
    running.account("account-1").client("iot").create_thing(thingName="called")
    seen = running.call(threading.get_ident)

    assert seen != threading.get_ident()
    name = running.inject(kind="refuse_connect", share=0.5)
    assert [each.fault.name for each in running.call(lambda: running.core.faults.list(0.0))] == [name]
    running.clear_faults()
    assert running.call(lambda: list(running.core.faults.list(0.0))) == []
    before = running.call(running.core.clock.wall)
    running.advance(3600)
    assert running.call(running.core.clock.wall) - before >= 3600
    running.reset()
    assert running.call(lambda: [len(each.things) for each in running.core.registry.partitions()]) == [0, 0]


def test_a_child_process_finds_the_account_in_its_environment(running: Emulator) -> None:
    account = running.accounts[1]
    script = (
        "import boto3; print(boto3.client('iot').describe_endpoint(endpointType='iot:Data-ATS')['endpointAddress'])"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **account.environment}, capture_output=True, text=True
    )

    assert (done.returncode, done.stdout.strip()) == (0, account.endpoint), done.stderr


def test_starting_and_stopping_takes_no_time_once_it_is_imported(running: Emulator) -> None:
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        with emulator_in_a_thread(accounts=3):
            pass
        seconds.append(time.perf_counter() - started)

    assert min(seconds) < 0.3


def test_nothing_is_left_of_one_that_has_ended() -> None:
    threads = threading.active_count()
    with emulator_in_a_thread() as emulator:
        ca_file = emulator.accounts[0].ca_file
        assert ca_file.exists()

    assert not ca_file.exists()
    assert threading.active_count() <= threads + 1  # trio keeps one for the next call in a thread


def test_why_it_did_not_start_is_raised_as_itself(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text("a file")

    with pytest.raises(StateError, match="File exists"), emulator_in_a_thread(state=state):
        pass


def test_why_it_ended_by_itself_is_raised_at_the_end_of_the_block(tmp_path: Path) -> None:
    def fill_the_disk(emulator: Emulator) -> None:
        commit = emulator.core.plane.commit
        commit.__self__._database.execute("PRAGMA query_only = 1")  # type: ignore[attr-defined]
        emulator.core.registry.partition("999999999999", "us-east-1").next_sequence()
        emulator.core.plane.wake()

    with pytest.raises(StateError, match="readonly"):  # noqa: SIM117 - the block is what raises
        with emulator_in_a_thread(state=tmp_path / "state") as emulator:
            emulator.call(lambda: fill_the_disk(emulator))


def test_an_api_call_that_cannot_be_kept_is_no_success_and_ends_the_emulator(tmp_path: Path) -> None:
    def fill_the_disk(emulator: Emulator) -> None:
        emulator.core.plane.commit.__self__._database.execute("PRAGMA query_only = 1")  # type: ignore[attr-defined]

    def create_a_thing(emulator: Emulator) -> None:
        emulator.call(lambda: fill_the_disk(emulator))
        client = emulator.accounts[0].client("iot", config=Config(retries={"total_max_attempts": 1}))
        with pytest.raises(ClientError, match="InternalFailureException"):
            client.create_thing(thingName="robot")
        (thread,) = (each for each in threading.enumerate() if each.ident == emulator._thread)
        thread.join(10)
        assert not thread.is_alive(), "it goes on with what it cannot keep"

    with pytest.raises(StateError, match="readonly"):  # noqa: SIM117 - the block is what raises
        with emulator_in_a_thread(state=tmp_path / "state") as emulator:
            create_a_thing(emulator)


def test_a_wrong_account_is_told(tmp_path: Path) -> None:
    wrong = (AccountConfig(name="wrong", account_id="1", region="us-east-1"),)

    with pytest.raises(ValueError, match="account id '1' is not twelve digits"), emulator_in_a_thread(accounts=wrong):
        pass


SUITE = """
import threading

import pytest

seen = []


def test_two_accounts_unless_told(iot_emulator):
    assert [each.name for each in iot_emulator.accounts] == ["account-1", "account-2"]
    iot_emulator.accounts[0].client("iot").create_thing(thingName="robot")
    seen.append(iot_emulator.api)


def test_each_test_has_its_own(iot_emulator):
    assert iot_emulator.accounts[0].client("iot").list_things()["things"] == []
    assert iot_emulator.api not in seen


@pytest.mark.iot_emulator(accounts=3, region="eu-west-1")
def test_the_marker_says_how_it_is_made(iot_emulator):
    assert [each.region for each in iot_emulator.accounts] == ["eu-west-1"] * 3


def test_the_shared_one(shared_iot_emulator):
    seen.append(shared_iot_emulator)


def test_is_the_same_for_all(shared_iot_emulator):
    assert shared_iot_emulator is seen[-1]


@pytest.mark.iot_emulator(3)
def test_a_marker_that_is_wrong(iot_emulator):
    pass

@pytest.mark.iot_emulator(account=3)
def test_wrong_keyword(iot_emulator):
    pass
"""


def run_pytest(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", "-W", "error"]
    return subprocess.run([*command, *PLUGIN, *arguments], cwd=directory, capture_output=True, text=True, timeout=120)


def test_the_fixtures_in_a_foreign_suite(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)

    done = run_pytest(tmp_path)

    assert "5 passed, 2 errors" in done.stdout, done.stdout + done.stderr
    assert "takes keywords only" in done.stdout
    assert "the marker iot_emulator has no 'account', only accounts, region, settings, seed, state" in done.stdout


def test_the_marker_takes_what_open_emulator_takes() -> None:
    assert tuple(signature(open_emulator).parameters) == plugin._OPTIONS


def test_the_option_says_how_many_accounts(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_one(iot_emulator): assert len(iot_emulator.accounts) == 4")

    assert "1 passed" in run_pytest(tmp_path, "--iot-emulator-accounts=4").stdout


def test_the_plugin_imports_nothing_before_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(
        "import sys\ndef test_one(): assert not {'trio', 'botocore', 'devicesim.emulator.service'} & set(sys.modules)"
    )

    done = run_pytest(tmp_path, "-p", "no:trio", "-p", "no:pytest_trio", "-p", "no:hypothesispytest")

    assert "1 passed" in done.stdout, done.stdout


def over_http(emulator: Emulator, method: str, path: str, body: object = None, **headers: str) -> tuple[int, str]:
    """Status and text of an answer of the admin port."""
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = urllib.request.Request(emulator.ready.admin + path, data=data, method=method, headers=named)
    try:
        with urllib.request.urlopen(asked, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_admin_port_over_http(running: Emulator) -> None:
    running.reset()
    iot = running.accounts[0].client("iot")
    iot.create_thing(thingName="robot")
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.describe_thing(thingName="nobody")
    over_http(running, "POST", "/faults", {"kind": "throttle", "name": "mine"})

    status, text = over_http(running, "GET", "/metrics")
    assert status == 200
    lines = text.splitlines()
    assert 'devicesim_api_calls_total{code="OK",operation="CreateThing",service="iot"} 1.0' in lines
    described = 'operation="DescribeThing",service="iot"'
    assert f'devicesim_api_calls_total{{code="ResourceNotFoundException",{described}}} 1.0' in lines
    assert 'devicesim_faults_total{fault="mine",kind="throttle"} 0.0' in lines
    assert any(line.startswith("process_resident_memory_bytes") for line in lines)

    status, text = over_http(running, "POST", "/reset", Origin="http://evil.example")
    assert (status, "another site" in text) == (403, True)
    assert over_http(running, "GET", f"/state/things?account={running.accounts[0].account_id}")[1].count("robot") > 0
    assert over_http(running, "POST", "/reset") == (200, '{"status": "ok"}\n')
    assert '"items": []' in over_http(running, "GET", f"/state/things?account={running.accounts[0].account_id}")[1]
    assert over_http(running, "DELETE", "/faults") == (200, '{"removed": []}\n')
    assert over_http(running, "POST", "/clock", {"advance": 60})[0] == 200
    assert over_http(running, "GET", "/explain?certificate_id=x")[0] == 404


def test_a_seeded_emulator_does_not_make_the_same_ids_again_on_its_state(tmp_path: Path) -> None:
    ids = []
    for number in range(3):
        with emulator_in_a_thread(seed=7, state=tmp_path / "state") as emulator:
            iot = emulator.accounts[0].client("iot")
            ids.append(iot.create_thing(thingName=f"robot-{number}")["thingId"])
            assert len(iot.list_things()["things"]) == number + 1

    assert len(set(ids)) == 3
    with emulator_in_a_thread(seed=7) as emulator:
        assert emulator.accounts[0].client("iot").create_thing(thingName="robot-0")["thingId"] == ids[0]
