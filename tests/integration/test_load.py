"""``devicesim run`` as a load test: thresholds, schedules, devices that stay, the search for the highest rate."""

import json
from pathlib import Path
from typing import Any

import pytest

from devicesim.record.store import RunReader
from devicesim.report.summary import summarise
from tests.schema_support import faults
from tests.support import start

TIMEOUT = 120.0
FLEET = """
version = 1
name = "load"
[accounts.a]
id = "111111111111"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
[groups.robots]
count = {count}
account = "a"
{group}
[retry]
first_delay = [1.0, 1.5]
[emulator]
jitp_delay = [0.0, 0.2]
[emulator.quotas]
lifted = true
{more}
"""


def run(
    tmp_path: Path, *arguments: str, count: int = 20, group: str = "", more: str = ""
) -> tuple[int, dict[str, Any]]:
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET.format(count=count, group=group, more=more))
    process = start("run", path, "--json", "--quiet", "--out", tmp_path / "run", *arguments, cwd=tmp_path)
    out, err = process.communicate(timeout=TIMEOUT)
    assert out, err
    document = json.loads(out)
    assert faults("rates" if "--autorate" in arguments else "summary", document) == []
    return process.returncode, document


def test_thresholds_that_are_met_and_not_met(tmp_path: Path) -> None:
    more = """
[thresholds]
provision_success = ["rate==1"]
"connect_seconds{group:robots}" = ["p(95)<1ms"]
dropped_starts = ["count==0"]
"""
    code, summary = run(tmp_path, more=more)

    assert code == 99
    assert summary["agrees"] is True
    assert [(each["metric"], each["ok"]) for each in summary["thresholds"]] == [
        ("provision_success", True),
        ("connect_seconds{group:robots}", False),
        ("dropped_starts", True),
    ]


def test_a_threshold_ends_the_run_and_what_was_seen_is_judged(tmp_path: Path) -> None:
    more = """
[arrival]
rate = "10/s"
[thresholds]
failed_attempts = [{ threshold = "count<10", abort_on_fail = true }]
"""
    code, summary = run(tmp_path, count=500, more=more)

    assert code == 99
    assert summary["status"] == "aborted"
    assert summary["totals"]["not_started"] > 300
    assert summary["totals"]["agree"] > 0
    assert [each["aborted"] for each in summary["thresholds"]] == [True]


def test_a_burst_beyond_the_limit_drops_starts_and_is_not_the_load_asked_for(tmp_path: Path) -> None:
    code, summary = run(tmp_path, count=30, more="[arrival]\nburst = {}\nmax_under_way = 10")

    assert code == 98
    assert summary["schedule"] == "all 30 at once"
    assert summary["totals"]["starts"]["dropped"] == 20
    assert summary["totals"]["agree"] == 10
    with RunReader(tmp_path / "run" / "run.sqlite") as record:
        assert len(list(record.drops())) == 20
        assert len(list(record.devices())) == 10


def test_a_closed_model_keeps_to_its_concurrency(tmp_path: Path) -> None:
    code, summary = run(tmp_path, count=12, more='[arrival]\nmodel = "closed"\nconcurrency = 4')

    assert code == 0
    assert (summary["arrival"], summary["totals"]["agree"]) == ("closed", 12)
    with RunReader(tmp_path / "run" / "run.sqlite") as record:
        first: dict[int, float] = {}
        last: dict[int, float] = {}
        for attempt in record.attempts():
            first.setdefault(attempt.device, attempt.start)
            last[attempt.device] = attempt.end
    for start_of in first.values():
        assert sum(begin <= start_of < last[device] for device, begin in first.items()) <= 4


@pytest.mark.parametrize("qos", [0, 1])
def test_devices_that_stay_publish_and_every_message_is_counted(qos: int, tmp_path: Path) -> None:
    telemetry = f'telemetry = {{ every = "500ms", qos = {qos}, bytes = 300 }}'
    code, summary = run(tmp_path, "--hold", "3s", count=10, group=telemetry, more='[session]\nhold = "1m"')

    assert code == 0, summary
    messages = summary["totals"]["messages"]
    assert 10 * 5 <= messages["published"] <= 10 * 6
    assert (messages["acknowledged"], messages["lost"]) == ((messages["published"], 0) if qos else (None, None))


def test_devices_dial_from_the_addresses_given(tmp_path: Path) -> None:
    code, summary = run(tmp_path, "--source-address", "127.0.0.2-127.0.0.4,127.0.1.0/30", count=8)

    assert code == 0
    assert summary["totals"]["agree"] == 8


def test_the_highest_rate_is_searched_with_devices_of_their_own(tmp_path: Path) -> None:
    arguments = ("--autorate", "connect_seconds:p(95)<10s", "--trial", "1s", "--rate", "20/s")
    code, found = run(tmp_path, *arguments, count=70)

    assert [each["devices"] for each in found["trials"]] in ([20, 40], [20], [20, 20, 20])
    assert found["ended"] in ("devices", "generator", "trials")
    assert code == (0 if found["highest_rate"] else 98)
    seen: set[str] = set()
    for trial in found["trials"]:
        with RunReader(Path(tmp_path / trial["record"])) as record:
            own = {each.certificate_id for each in record.devices()}
            totals = summarise(record).totals
        assert (totals.devices, totals.not_started) == (trial["devices"], 0)
        assert len(own) == trial["devices"]
        assert not own & seen
        seen |= own


def test_a_rate_that_is_not_taken_is_told(tmp_path: Path) -> None:
    arguments = ("--autorate", "connect_seconds:med<0.1ms", "--trial", "1s", "--rate", "9/s")
    code, found = run(tmp_path, *arguments, count=40)

    assert (code, found["ended"], found["highest_rate"]) == (99, "nothing", None)
    assert [each["outcome"] for each in found["trials"]] == ["too slow"]
