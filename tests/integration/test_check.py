"""``devicesim check`` on real sockets: the whole matrix on the emulator, accounts that exist, and what goes wrong."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import trio

from devicesim import rules
from devicesim.cloud.account import AccountAccess, AccountClient, ControlPlaneError
from devicesim.cloud.teardown import Made
from devicesim.conformance.matrix import matrix, select
from devicesim.conformance.player import QUICK
from devicesim.conformance.result import CaseResult, Status
from devicesim.conformance.runner import Check, Setting
from devicesim.emulator.embedded import Emulator, open_emulator, quick
from devicesim.emulator.quotas import Quotas
from devicesim.emulator.service import AccountConfig
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.environment import ControlSettings
from devicesim.fleet.target import Target
from devicesim.pki.authority import new_shared_authority
from devicesim.pki.identity import certificate_pem, load_certificates
from devicesim.pki.profile import KeyType
from tests.integration.test_run import child_of
from tests.support import emulator, start

TIMEOUT = 240.0
ACCOUNTS = (
    AccountConfig(name="dev", account_id="111111111111", region="us-east-1"),
    AccountConfig(name="prod", account_id="222222222222", region="us-east-1"),
    AccountConfig(name="other", account_id="333333333333", region="us-east-1"),
    AccountConfig(name="abroad", account_id="222222222222", region="eu-west-1"),
)
FLEET = """
version = 1
name = "mine"
[accounts.dev]
id = "111111111111"
ca_mode = "none"
[accounts.prod]
id = "222222222222"
ca_mode = "none"
[groups.g]
count = 1
account = "dev"
[emulator]
jitp_delay = [0.0, 0.05]
"""
PLAIN = "tls1.3-mqtt3.1.1-8883"
HASTY = replace(
    QUICK,
    backoff=replace(QUICK.backoff, first_delay=(0.05, 0.06), max_delay=0.1, attempts=4),
    disconnect=0.3,
    told=0.3,
)
"""For what is to go wrong, and on emulators that provision at once."""


def checked(tmp_path: Path, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """A check with ``--json``: the exit code, and the document."""
    process = start("check", "--json", "--quiet", *arguments, cwd=tmp_path)
    out, err = process.communicate(timeout=TIMEOUT)
    assert out, err
    return process.returncode, json.loads(out)


def setting(running: Emulator, *, existing: bool = True, real: bool = True, **changes: Any) -> Setting:
    """The emulator's accounts as those of somebody, or as our own; its word as AWS's, or as an emulator's."""
    accounts = {each.name: each for each in running.accounts}
    roots = load_certificates(running.accounts[0].ca_file.read_bytes(), "roots")

    def door(name: str, _endpoint: str, port: int) -> tuple[str, int]:
        account = accounts[name]
        return account.mqtt_host, account.mqtt_port if port == 8883 else account.mqtt_alpn_port

    values: dict[str, Any] = {
        "target": Target(
            kind="emulator",
            accounts={
                name: AccountAccess(
                    name=name,
                    account_id=each.account_id,
                    region=each.region,
                    endpoint_url=running.api,
                    emulated=True,
                )
                for name, each in accounts.items()
            },
            addresses={},
            port=8883,
            roots=roots,
            own_roots=roots,
        ),
        "roles": {"a": "dev", "b": "prod", "x": "other", "o": "abroad"},
        "absent": {},
        "role_arns": {name: f"arn:aws:iam::{each.account_id}:role/r" for name, each in accounts.items()},
        "door": door,
        "existing": existing,
        "real": real,
        "pace": QUICK,
        "journal": lambda made: None,
    }
    return Setting(**{**values, **changes})


async def run(running: Emulator, *patterns: str, **changes: Any) -> tuple[Mapping[str, CaseResult], Check]:
    check = Check(select(matrix(), patterns), setting(running, **changes), run_id="0123abcd", epoch=time.time)
    results = await check.execute()
    return {each.name: each for each in results}, check


def held(running: Emulator) -> dict[str, int]:
    """How many things of each kind the accounts hold together."""
    partitions = running.core.registry.partitions()
    kinds = ("cas", "certificates", "policies", "things")
    return {kind: sum(len(getattr(each, kind)) for each in partitions) for kind in kinds}


@pytest.mark.slow
def test_the_whole_matrix_agrees_on_the_emulator(tmp_path: Path) -> None:
    code, document = checked(tmp_path, "--junit", "report.xml")

    assert code == 0, [case for case in document["cases"] if case["status"] != "agrees"][:5]
    assert document["totals"] == {
        "cases": len(matrix()),
        "agree": len(matrix()),
        "disagree": 0,
        "oracle_wrong": 0,
        "skipped": 0,
        "failed": 0,
    }
    rows = {case["row"]["id"] for case in document["cases"]}
    assert rows >= {rule.row.id for rule in rules.RULES}
    for case in document["cases"]:
        assert case["expected"] == case["observed"] or case["expected"].startswith("refused"), case
    suites = ET.parse(tmp_path / "report.xml").getroot()
    assert [suite.get("name") for suite in suites] == ["account-a", "account-b", "account-x", "account-o"]
    assert suites.get("tests") == str(len(matrix()))
    assert {suite.get(each) for suite in suites for each in ("failures", "errors", "skipped")} == {"0"}


def test_accounts_of_a_fleet_file_run_what_they_allow(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(FLEET)

    code, document = checked(tmp_path, "mine.toml", "--only", f"C3-jitp/new/*/{PLAIN}")

    assert code == 0
    statuses = {case["name"].split("/")[2]: case["status"] for case in document["cases"]}
    assert statuses["a-own"] == statuses["a-other-b"] == statuses["b-own"] == "agrees"
    assert statuses["a-other-x"] == statuses["a-other-region-o"] == statuses["x-own"] == "skipped"
    reasons = {case["reason"] for case in document["cases"] if case["status"] == "skipped"}
    assert reasons == {
        "needs a third account in us-east-1, which does not hold the CA",
        "needs an account in another Region than us-east-1",
    }
    assert {case["account"] for case in document["cases"]} == {"dev", "prod", "account x"}


def test_target_that_does_otherwise_is_a_disagreement_with_exit_code_99(tmp_path: Path) -> None:
    """A front door that lets nobody in, which no row foresees."""
    (tmp_path / "mine.toml").write_text(FLEET + '[[emulator.faults]]\nkind = "refuse_connect"\n')

    code, document = checked(tmp_path, "mine.toml", "--only", f"C1-jitp/active/a-own/{PLAIN}", "--junit", "out.xml")

    assert code == 99
    (case,) = document["cases"]
    assert (case["status"], case["row"]["id"], case["row"]["mark"]) == ("disagrees", "10c.active.allowed", "D")
    assert case["reason"] == "expected provisioned in dev (DEFAULT); refused: closed before CONNACK"
    assert case["ended"] == [{"account": "dev", "status": "ACTIVE", "mode": "DEFAULT", "things": []}]
    (failure,) = ET.parse(tmp_path / "out.xml").getroot().iter("failure")
    assert failure.get("type") == "device"


async def test_what_was_made_in_accounts_that_exist_is_removed() -> None:
    with trio.fail_after(TIMEOUT):
        async with open_emulator(ACCOUNTS, settings=quick()) as running:
            mine = running.account("prod").client("iot")
            await trio.to_thread.run_sync(partial(mine.create_thing, thingName="mine"))
            results, check = await run(
                running, "C3-jitp/*/*/" + PLAIN, "C0-moved/*/*/" + PLAIN, "C4-late-jitp/*/*/" + PLAIN, "C1-jitr/*-443"
            )

            assert {each.status for each in results.values()} == {Status.AGREES}
            assert len(results) > 200
            assert (check.left, check.left_behind, check.notes) == (False, [], [])
            assert held(running) == {"cas": 0, "certificates": 0, "policies": 0, "things": 1}


async def test_accounts_with_quotas_agree_all_the_same() -> None:
    """A registration that is throttled looks like any refusal, and is tried again; production has its share as well."""
    with trio.fail_after(TIMEOUT):
        settings = Settings(jitp_delay=(0.0, 0.1), quotas=Quotas(certificate_registrations_per_second=3))
        async with open_emulator(ACCOUNTS, settings=settings) as running:
            patterns = (f"C2-jitr/*/a-own*/{PLAIN}", f"C4-jitp/visited-both/*-own/{PLAIN}")
            results, check = await run(running, *patterns, pace=replace(QUICK, settle=1.1))
            throttled = running.core.quotas.throttled
            left = held(running)

    assert {name: each.reason for name, each in results.items() if each.status is not Status.AGREES} == {}
    assert throttled["certificate_registrations_per_second"]
    assert check.left_behind == []
    assert not any(left.values())


async def test_check_that_nobody_tells_of_registrations_says_so_and_goes_on() -> None:
    with trio.fail_after(TIMEOUT):
        async with open_emulator(ACCOUNTS, settings=quick()) as running:
            running.inject(kind="api_unavailable", operation="RegisterCertificateWithoutCA")
            results, check = await run(running, f"C1-jitr/new/a-own/{PLAIN}")
            left = held(running)

    assert {each.status for each in results.values()} == {Status.AGREES}
    (note,) = check.notes
    assert note.startswith("dev: nobody could listen for registrations, so events are not compared: account 'dev'")
    assert (check.left, any(left.values())) == (False, False)


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("AccessDeniedException", Status.SKIPPED, "the account refuses it: "),
        ("LimitExceededException", Status.SKIPPED, "the account refuses it: "),
        ("ExpiredTokenException", Status.FAILED, "setup failed: "),
    ],
)
async def test_account_that_may_not_register_a_ca_is_skipped_and_expired_credentials_are_not(
    monkeypatch: pytest.MonkeyPatch, code: str, status: Status, words: str
) -> None:
    ask = AccountClient.ask

    async def refused(self: AccountClient, service: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
        if operation == "register_ca_certificate" and self.access.name == "dev":
            raise ControlPlaneError(f"refused: {code}", code=code, fields={})
        return await ask(self, service, operation, **parameters)

    monkeypatch.setattr(AccountClient, "ask", refused)
    with trio.fail_after(TIMEOUT):
        async with open_emulator(ACCOUNTS, settings=quick()) as running:
            results, check = await run(running, f"C3-jitp/active/a-own/{PLAIN}", f"C0/new/a-own/{PLAIN}")
            left = held(running)

    of_c3 = results[f"C3-jitp/active/a-own/{PLAIN}"]
    assert (of_c3.status, of_c3.reason) == (status, f"{words}refused: {code}")
    assert results[f"C0/new/a-own/{PLAIN}"].status is Status.AGREES
    assert (check.left_behind, any(left.values())) == ([], False)


async def test_world_without_the_ca_stands_by_itself() -> None:
    """Its records need the policy, which no CA's setup has made."""
    with trio.fail_after(TIMEOUT):
        async with open_emulator(ACCOUNTS, settings=quick()) as running:
            results, _ = await run(running, f"C0/active-alone/*/{PLAIN}")

    assert {each.status for each in results.values()} == {Status.AGREES}


async def test_inferred_row_that_an_account_contradicts_is_told_as_the_oracle_s_fault() -> None:
    unlike = replace(quick(), jit_without_sni=False)
    with trio.fail_after(TIMEOUT):
        async with open_emulator(ACCOUNTS, settings=unlike) as running:
            patterns = (f"C1-jitp/new/a-none/{PLAIN}", f"C1-jitp/new/a-own/{PLAIN}")
            results, _ = await run(running, *patterns, pace=HASTY)
            ours, _ = await run(running, *patterns, real=False, pace=HASTY)

    assert [results[each].status for each in patterns] == [Status.ORACLE_WRONG, Status.AGREES]
    assert [ours[each].status for each in patterns] == [Status.DISAGREES, Status.AGREES]
    assert results[patterns[0]].row.id == "10b.C1.none.chain"


async def test_record_that_cannot_be_made_is_not_known_and_stops_nothing_else() -> None:
    with trio.fail_after(TIMEOUT):
        async with open_emulator(ACCOUNTS, settings=quick()) as running:
            running.inject(kind="api_unavailable", operation="TransferCertificate")
            results, check = await run(running, f"C2-jitp/transfer/*/{PLAIN}", f"C2-jitp/new/a-own/{PLAIN}")
            left = held(running)

    transfer, new = results[f"C2-jitp/transfer/a-own/{PLAIN}"], results[f"C2-jitp/new/a-own/{PLAIN}"]
    assert transfer.status is Status.FAILED
    assert "ServiceUnavailableException" in transfer.reason
    assert new.status is Status.AGREES
    assert (check.left_behind, left["certificates"]) == ([], 0)


async def test_what_accounts_that_exist_refuse_is_skipped_and_on_our_own_a_failure() -> None:
    control = ControlSettings(accepted_curves=("secp384r1",))
    settings = replace(quick(), control=control)
    pattern = f"C2-jitp/new/a-own/{PLAIN}"
    with trio.fail_after(TIMEOUT):
        async with open_emulator(ACCOUNTS, settings=settings) as running:
            theirs, _ = await run(running, pattern)
            ours, _ = await run(running, pattern, existing=False)

    assert theirs[pattern].status is Status.SKIPPED
    assert theirs[pattern].reason.startswith("the account refuses it: account 'dev'")
    assert "CertificateValidationException" in theirs[pattern].reason
    assert ours[pattern].status is Status.FAILED


async def test_account_that_cannot_be_reached_skips_what_needs_it() -> None:
    with trio.fail_after(TIMEOUT):
        async with open_emulator(ACCOUNTS, settings=quick()) as running:
            running.inject(kind="api_unavailable", operation="DescribeEndpoint", account_id="333333333333")
            results, _ = await run(running, f"C1-jitp/new/*/{PLAIN}")

    assert results[f"C1-jitp/new/a-own/{PLAIN}"].status is Status.AGREES
    unreachable = results[f"C1-jitp/new/x-own/{PLAIN}"]
    assert unreachable.status is Status.SKIPPED
    assert "account 'other'" in unreachable.reason


async def test_jitp_without_a_role_and_a_port_without_address_are_skipped() -> None:
    with trio.fail_after(TIMEOUT):
        async with open_emulator(ACCOUNTS, settings=quick()) as running:
            door = setting(running).door
            results, _ = await run(
                running,
                f"C1-*/new/a-own/{PLAIN}",
                "C0/new/a-own/tls1.3-mqtt3.1.1-443",
                role_arns={},
                door=lambda name, endpoint, port: door(name, endpoint, port) if port == 8883 else None,
            )

    by_name = {name: (each.status, each.reason) for name, each in results.items()}
    assert by_name[f"C1-jitr/new/a-own/{PLAIN}"][0] is Status.AGREES
    assert by_name[f"C1-jitp/new/a-own/{PLAIN}"] == (Status.SKIPPED, "JITP needs a role: accounts.dev.role_arn")
    assert by_name["C0/new/a-own/tls1.3-mqtt3.1.1-443"] == (
        Status.SKIPPED,
        "no address is known of port 443 in us-east-1",
    )


def state(ready: Mapping[str, Any]) -> dict[str, int]:
    with urllib.request.urlopen(f"{ready['admin']}/state", timeout=10) as answer:
        counts = json.load(answer)["accounts"]
    return {kind: sum(each["collections"][kind] for each in counts) for kind in ("cas", "certificates", "policies")}


def existing(ready: Mapping[str, Any], fleet: Path) -> Sequence[str | Path]:
    address = f"{ready['mqtt']['host']}:{ready['mqtt']['port']}"
    return (fleet, "--endpoint-url", ready["api"], "--connect-to", address, "--cacert", ready["ca_file"])


def wait_for_certificates(ready: Mapping[str, Any]) -> None:
    deadline = time.monotonic() + 60
    while not state(ready)["certificates"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_interrupted_check_removes_what_it_made(tmp_path: Path) -> None:
    fleet = tmp_path / "mine.toml"
    fleet.write_text(FLEET)
    with emulator(fleet, "--quotas", "none") as ready:
        process = start("check", *existing(ready, fleet), "--only", "C3-jitp", cwd=tmp_path)
        wait_for_certificates(ready)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
        left = state(ready)

    assert process.returncode == 105, err
    assert "what it made was removed" in err
    assert "Traceback" not in err
    assert "check: " in out
    assert left == {"cas": 0, "certificates": 0, "policies": 0}
    assert not list(tmp_path.glob("*.journal"))


def test_what_a_killed_check_left_can_be_removed(tmp_path: Path) -> None:
    fleet = tmp_path / "mine.toml"
    fleet.write_text(FLEET)
    with emulator(fleet, "--quotas", "none") as ready:
        process = start("check", *existing(ready, fleet), "--only", "C3-jitp", cwd=tmp_path)
        wait_for_certificates(ready)
        process.kill()
        process.communicate(timeout=TIMEOUT)
        left = state(ready)
        (journal,) = tmp_path.glob("devicesim-check-*.journal")

        tidy = start("check", *existing(ready, fleet), "--remove", journal, cwd=tmp_path)
        _, err = tidy.communicate(timeout=TIMEOUT)
        after = state(ready)

    assert left["certificates"] > 0
    assert (tidy.returncode, err.strip()) == (0, "devicesim: what the check made is removed")
    assert after == {"cas": 0, "certificates": 0, "policies": 0}
    assert not journal.exists()


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("nonsense\nmore\n", 2, "line 1: not a line of what was made: 'nonsense'"),
        (Made(account="elsewhere", ca_id="1").to_json(), 2, "account 'elsewhere' of the journal is not one of 'dev'"),
        (Made(account="dev", policy="production").to_json(), 2, "'production' was made by no check"),
        (Made(account="dev", things=(("1", "robot-1"),)).to_json(), 2, "'robot-1' was made by no check"),
        (Made(account="dev", policy="devicesim-check-1").to_json() + '\n{"acc', 0, "what the check made is removed"),
    ],
)
def test_journal_of_something_else_is_refused(tmp_path: Path, text: str, code: int, message: str) -> None:
    fleet = tmp_path / "mine.toml"
    fleet.write_text(FLEET)
    (tmp_path / "left.journal").write_text(text)
    with emulator(fleet, "--quotas", "none") as ready:
        process = start("check", *existing(ready, fleet), "--remove", "left.journal", cwd=tmp_path)
        _, err = process.communicate(timeout=TIMEOUT)

    assert process.returncode == code, err
    assert message in err
    assert "Traceback" not in err


def test_emulator_that_ends_under_the_check_ends_it(tmp_path: Path) -> None:
    (tmp_path / "old.xml").write_text("<of an earlier check/>")
    process = start("check", "--junit", "old.xml", cwd=tmp_path)
    assert process.stderr is not None
    assert "devicesim: running\n" in iter(process.stderr.readline, "")
    os.kill(child_of(process.pid), signal.SIGKILL)
    out, err = process.communicate(timeout=TIMEOUT)

    assert (process.returncode, out) == (3, "")
    assert err == "devicesim: error: the emulator ended by signal 9 while the run went on\n"
    assert not list(tmp_path.iterdir()), "neither a report, of this check or of an earlier one, nor a journal"


def test_report_that_cannot_be_written_hides_no_result(tmp_path: Path) -> None:
    process = start("check", "--quiet", "--only", f"C1-jitp/new/a-own/{PLAIN}", "--junit", "/dev/full", cwd=tmp_path)
    out, err = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 2
    assert out.endswith("1 of 1 cases agree with the oracle.\n")
    assert err.splitlines()[0] == "devicesim: error: /dev/full cannot be written: No space left on device"
    assert Path("/dev/full").exists()


def test_accounts_behind_a_url_are_checked_through_the_address_given(tmp_path: Path) -> None:
    fleet = tmp_path / "mine.toml"
    fleet.write_text(FLEET)
    with emulator(fleet, "--quotas", "none") as ready:
        code, document = checked(tmp_path, *existing(ready, fleet), "--only", "C3-jitp/new/a-own/*")

    assert code == 0
    assert document["target"] == ready["api"]
    statuses = {case["name"].rsplit("-", 1)[1]: case["status"] for case in document["cases"]}
    assert statuses == {"8883": "agrees", "443": "skipped"}


def test_target_that_is_not_there_exits_3(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(FLEET)
    authority = new_shared_authority("root", KeyType.EC_P256, now=datetime.now(UTC), validity=timedelta(days=1))
    (tmp_path / "ca.pem").write_text(certificate_pem(authority.certificate))
    nobody = "127.0.0.1:9"
    process = start(
        *("check", "mine.toml", "--endpoint-url", f"http://{nobody}", "--connect-to", nobody, "--cacert", "ca.pem"),
        cwd=tmp_path,
    )
    _, err = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 3
    assert err.splitlines()[-1].startswith("devicesim: error: account 'dev'")
    assert "Traceback" not in err
