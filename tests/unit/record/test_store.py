"""The record: what is written is read back, also while it is written and after a kill; it says what is wrong."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from devicesim.errors import RecordError
from devicesim.outcome import Alert, Attempt, DeviceOutcome, Failure, FailureKind, Holding, Stage, Verdict
from devicesim.record import schema
from devicesim.record.facts import (
    AccountRecord,
    DeviceRecord,
    Drop,
    GeneratorSample,
    GroupRecord,
    Note,
    Phase,
    RunFacts,
    RunStatus,
    ThresholdRecord,
)
from devicesim.record.histogram import Histogram
from devicesim.record.store import RunReader, RunWriter
from devicesim.record.verdict import UserExpectation
from devicesim.rules import JITP, Expectation, Row

RUN = RunFacts(
    fleet="walk-through",
    fleet_file="version = 1\nname = 'walk-through'  # ü\n",
    version="0.1.0",
    target="emulator",
    started_at=1_760_000_000.25,
    rate=50.0,
)
PROD = AccountRecord(
    name="prod",
    account_id="111122223333",
    region="eu-central-1",
    endpoint="a1-ats.iot.eu-central-1.localhost",
    ca_mode="DEFAULT",
    provisioning="JITP",
)
DEV = replace(PROD, name="dev", account_id="444455556666", endpoint=None, ca_mode=None, provisioning="none")
EXPECTED = Expectation(
    outcome=DeviceOutcome.PROVISIONED,
    account="prod",
    mode="DEFAULT",
    thing=True,
    first_try="closed_before_connack",
    row=Row(id="10b.C3.sA", says="registered there", mark="D/I", source="aws-iot-behaviour.md §10b"),
    rests_on=(JITP,),
    registered_in="prod",
)
REFUSED = replace(
    EXPECTED, outcome=DeviceOutcome.REFUSED, account=None, mode=None, thing=None, rests_on=(), registered_in=None
)
ROBOTS = GroupRecord(
    name="robots",
    count=2,
    account="prod",
    sni_setting="endpoint",
    sni="a1-ats.iot.eu-central-1.localhost",
    chain_sent=True,
    expectation=EXPECTED,
)
NO_SNI = GroupRecord(
    name="no-sni",
    count=1,
    account="prod",
    sni_setting="none",
    sni=None,
    chain_sent=False,
    expectation=REFUSED,
    user=UserExpectation(outcome=DeviceOutcome.PROVISIONED, account="prod", mode="DEFAULT", thing=False),
)
DEVICES = [
    DeviceRecord(number=0, index=0, group="robots", client_id="walk-through-000000", certificate_id="aa" * 32),
    DeviceRecord(
        number=1,
        index=1,
        group="robots",
        client_id="walk-through-000001",
        certificate_id="bb" * 32,
        expectation=replace(EXPECTED, thing=None, first_try="accepted"),
    ),
    DeviceRecord(number=2, index=0, group="no-sni", client_id="walk-through-000002", certificate_id="aa" * 32),
]
FAILED_TRY = Attempt(
    device=0,
    number=1,
    account="prod",
    sni="a1-ats.iot.eu-central-1.localhost",
    intended_start=1_760_000_001.0,
    start=1_760_000_001.0625,
    end=1_760_000_001.5,
    reached={Stage.TCP: 0.001, Stage.TLS: 0.25, Stage.CONNECT: 0.2501},
    failure=Failure(kind=FailureKind.CLOSED_BEFORE_CONNACK, stage=Stage.CONNACK, detail="eof"),
    tls_version="TLSv1.3",
    cipher="TLS_AES_256_GCM_SHA384",
    alert=None,
    connack_code=None,
)
ALERTED = replace(
    FAILED_TRY,
    device=1,
    account=None,
    sni=None,
    reached={Stage.TCP: 0.002},
    failure=Failure(kind=FailureKind.TLS_ALERT, stage=Stage.TLS, detail="tlsv1 alert unknown ca"),
    tls_version=None,
    cipher=None,
    alert=Alert(name="unknown_ca", code=48, level="fatal", direction="received"),
)
ACCEPTED = replace(
    FAILED_TRY, number=2, reached=dict(FAILED_TRY.reached) | {Stage.CONNACK: 0.3}, failure=None, connack_code=0
)
ATTEMPTS = [FAILED_TRY, ACCEPTED, ALERTED]
HELD = Holding(account="prod", certificate_id="aa" * 32, status="ACTIVE", mode="DEFAULT", things=("robot-0", "twin"))
VERDICT = Verdict(
    device=0,
    outcome=DeviceOutcome.PROVISIONED,
    account="prod",
    mode="DEFAULT",
    thing="robot-0",
    expected_outcome=DeviceOutcome.PROVISIONED,
    expected_account="prod",
    agrees=True,
    reason="",
    attempts=2,
    time_to_provision=1.5,
)
DISAGREES = replace(
    VERDICT,
    device=1,
    outcome=DeviceOutcome.REFUSED,
    account=None,
    mode=None,
    thing=None,
    agrees=False,
    reason="expected provisioned in prod; refused: TLS alert",
    attempts=1,
    time_to_provision=None,
)


def write(path: Path, *, upto: int | None = None) -> RunWriter:
    """A small run; with ``upto``, the writer commits after that many rows."""
    writer = RunWriter.create(path, RUN, batch_rows=upto or 1000)
    for account in (PROD, DEV):
        writer.add_account(account, now=1.0)
    for group in (ROBOTS, NO_SNI):
        writer.add_group(group, now=1.0)
    for device in DEVICES:
        writer.add_device(device, now=1.0)
    for attempt in ATTEMPTS:
        writer.add_attempt(attempt, now=1.0)
    writer.add_holdings(Phase.AFTER, "prod", [HELD], now=1.0)
    writer.add_holdings(Phase.AFTER, "dev", [], now=1.0)
    for verdict in (VERDICT, DISAGREES):
        writer.add_verdict(verdict, now=1.0)
    writer.add_note(Note(at=1.0, kind="setup", text="CA registered", account="prod"))
    return writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run ü.sqlite"


# --- what is written is read back ---


def test_everything_written_is_read_back_equal(path: Path) -> None:
    write(path).finish(RunStatus.FINISHED, now=1_760_000_060.0)

    with RunReader(path) as reader:
        assert reader.run() == replace(RUN, status=RunStatus.FINISHED, ended_at=1_760_000_060.0)
        assert reader.accounts() == [PROD, DEV]
        assert reader.groups() == [ROBOTS, NO_SNI]
        assert list(reader.devices()) == DEVICES
        assert list(reader.attempts()) == ATTEMPTS
        assert list(reader.attempts(1)) == [ALERTED]
        assert list(reader.holdings(Phase.AFTER)) == [HELD]
        assert list(reader.holdings(Phase.BEFORE)) == []
        assert reader.asked(Phase.AFTER) == {"prod", "dev"}
        assert reader.asked(Phase.BEFORE) == set()
        assert list(reader.verdicts()) == [VERDICT, DISAGREES]
        assert list(reader.notes()) == [Note(at=1.0, kind="setup", text="CA registered", account="prod")]


def test_what_the_load_came_to_is_read_back_equal(path: Path) -> None:
    samples = [
        GeneratorSample(process=process, at=at, wall=1.0, cpu=0.75, starts=starts, lag=Histogram(lag), rss=123_456_789)
        for process, at, starts, lag in (
            ("worker 2", 1_760_000_000.5, 250, [0.0, 0.001, 0.25]),
            ("worker 1", 1_760_000_002.5, 251, []),
            ("worker 1", 1_760_000_001.5, 0, [0.0]),
        )
    ]
    drops = [Drop(device=7, group="no-sni", due=1_760_000_003.25), Drop(device=5, group="robots", due=1_760_000_002.0)]
    thresholds = [
        ThresholdRecord(
            metric="time_to_provision{group:robots}", expression="p(95)<5s", abort_on_fail=True, delay=10.5
        ),
        ThresholdRecord(metric="dropped_starts", expression="count==0"),
    ]
    with write(path) as writer:
        for sample in samples:
            writer.add_sample(sample)
        for drop in drops:
            writer.add_drop(drop, now=1.0)
        for position, threshold in reversed(list(enumerate(thresholds))):
            writer.add_threshold(threshold, position, now=1.0)

    with RunReader(path) as reader:
        assert list(reader.samples()) == [samples[2], samples[1], samples[0]]
        assert list(reader.drops()) == drops[::-1]
        assert reader.thresholds() == thresholds
        quantiles = [sample.lag.quantile(0.99) for sample in reader.samples()]
    assert quantiles == [0.0, None, 0.25]


def test_record_without_any_of_these_has_none(path: Path) -> None:
    write(path).finish(RunStatus.FINISHED, now=2.0)

    with RunReader(path) as reader:
        assert (list(reader.samples()), list(reader.drops()), reader.thresholds()) == ([], [], [])


@pytest.mark.parametrize(
    "load",
    [
        {},
        {"rate": None, "arrival": "closed", "schedule": "closed, 20 at a time"},
        {"rate": None, "schedule": "3 stages to 0 starts/s", "late_after": 0.25, "late_tolerance": 0.0},
    ],
)
def test_load_that_was_asked_for_is_read_back_equal(path: Path, load: dict[str, object]) -> None:
    run = replace(RUN, **load)  # type: ignore[arg-type]  # fields of it
    with RunWriter.create(path, run):
        pass

    with RunReader(path) as reader:
        assert reader.run() == replace(run, status=RunStatus.INTERRUPTED)


@pytest.mark.parametrize(("published", "acknowledged"), [(None, None), (0, 0), (12, 11), (12, None)])
def test_messages_that_were_not_counted_are_absent_and_not_0(
    path: Path, published: int | None, acknowledged: int | None
) -> None:
    attempt = replace(ACCEPTED, number=3, published=published, acknowledged=acknowledged)
    with write(path) as writer:
        writer.add_attempt(attempt, now=1.0)

    with RunReader(path) as reader:
        assert list(reader.attempts(0))[-1] == attempt


@pytest.mark.parametrize("batch_rows", [1, 3, 1000])
def test_connection_that_lives_is_one_row_that_tells_its_last_state(path: Path, batch_rows: int) -> None:
    """Told at CONNACK, now and then, and when it is over: in one batch or in several."""
    live = replace(ACCEPTED, published=0, acknowledged=0)
    later = replace(live, end=live.end + 10, published=5, acknowledged=4)
    over = replace(
        later,
        end=live.end + 17,
        published=9,
        failure=Failure(kind=FailureKind.CLOSED_AFTER_CONNACK, stage=Stage.SESSION, detail="eof"),
    )
    writer = write(path, upto=batch_rows)
    for attempt in (live, later, over):
        writer.add_attempt(attempt, now=1.0)
    writer.finish(RunStatus.FINISHED, now=2.0)

    with RunReader(path) as reader:
        assert list(reader.attempts(0)) == [FAILED_TRY, over]


def test_connection_that_lives_when_the_run_is_killed_is_on_record_as_it_was_told_last(path: Path) -> None:
    writer = write(path)
    writer.add_attempt(replace(ACCEPTED, published=5, acknowledged=4), now=1.0)
    writer.flush()
    with RunReader(path) as reader:
        (_, attempt) = reader.attempts(0)
    writer.close()

    assert (attempt.connack_code, attempt.failure, attempt.published) == (0, None, 5)


def test_threshold_that_ended_the_run_says_when(path: Path) -> None:
    threshold = ThresholdRecord(metric="provision_success", expression="rate>0.9", abort_on_fail=True)
    with write(path) as writer:
        writer.add_threshold(threshold, 0, now=1.0)
        writer.flush()
        writer.add_threshold(replace(threshold, aborted_at=1_760_000_009.5), 0, now=1.0)
        writer.finish(RunStatus.ABORTED, now=3.0)

    with RunReader(path) as reader:
        assert reader.thresholds() == [replace(threshold, aborted_at=1_760_000_009.5)]
        assert reader.run().status is RunStatus.ABORTED


def test_two_samples_of_one_moment_are_a_programming_error(path: Path) -> None:
    sample = GeneratorSample(process="fleet", at=5.0, wall=1.0, cpu=0.5, starts=1, lag=Histogram(), rss=1)
    writer = RunWriter.create(path, RUN)
    writer.add_sample(sample)
    writer.add_sample(sample)

    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        writer.flush()
    with pytest.raises(sqlite3.IntegrityError):
        writer.close()


def test_finished_record_is_one_plain_file_of_its_owner(path: Path) -> None:
    write(path).finish(RunStatus.FINISHED, now=2.0)

    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA application_id").fetchone() == (int.from_bytes(b"dvcs", "big"),)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


def test_what_is_told_again_replaces_what_was_told_and_keeps_its_place(path: Path) -> None:
    writer = write(path)
    endpoint = replace(DEV, endpoint="b2-ats.iot.eu-central-1.localhost")
    writer.add_account(replace(PROD, provisioning="JITR"), now=2.0)
    writer.add_account(endpoint, now=2.0)
    writer.flush()
    writer.add_group(replace(ROBOTS, count=9), now=2.0)
    writer.add_attempt(replace(ACCEPTED, end=1_760_000_999.0), now=2.0)
    writer.add_holdings(Phase.AFTER, "prod", [replace(HELD, status="INACTIVE")], now=2.0)
    writer.finish(RunStatus.FINISHED, now=2.0)

    with RunReader(path) as reader:
        assert reader.accounts() == [replace(PROD, provisioning="JITR"), endpoint]
        assert [group.count for group in reader.groups()] == [9, 1]
        assert [attempt.end for attempt in reader.attempts(0)] == [1_760_000_001.5, 1_760_000_999.0]
        assert [holding.status for holding in reader.holdings(Phase.AFTER)] == ["INACTIVE"]


@pytest.mark.parametrize("things", [None, (), ("robot-0", "twin")])
def test_things_that_were_not_asked_for_are_not_the_same_as_none(path: Path, things: tuple[str, ...] | None) -> None:
    writer = write(path)
    holding = replace(HELD, things=things)
    writer.add_holdings(Phase.AFTER, "prod", [holding], now=2.0)
    writer.finish(RunStatus.FINISHED, now=2.0)

    with RunReader(path) as reader:
        assert list(reader.holdings(Phase.AFTER)) == [holding]


def test_columns_and_views_are_for_people(path: Path) -> None:
    write(path).finish(RunStatus.FINISHED, now=2.0)
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        first, alerted, never = connection.execute("SELECT * FROM device_summary ORDER BY device")
        stages = connection.execute("SELECT * FROM stage_durations WHERE device = 0 AND attempt = 2").fetchone()
        failures = connection.execute("SELECT * FROM failures ORDER BY failure_kind").fetchall()
        wrong = connection.execute("SELECT device, reason FROM disagreements").fetchall()
    connection.close()

    assert (first["group_name"], first["dials"], first["outcome"], first["attempts"]) == (
        "robots",
        "prod",
        "provisioned",
        2,
    )
    assert (first["first_failure"], first["last_failure"]) == ("closed_before_connack", None)
    assert (alerted["outcome"], alerted["last_detail"]) == ("refused", "tlsv1 alert unknown ca")
    assert (never["outcome"], never["attempts"], never["agrees"]) == ("not_started", 0, None)
    assert stages["tls_took"] == pytest.approx(0.249)
    assert stages["connack_took"] == pytest.approx(0.0499)
    assert [tuple(each) for each in failures] == [
        ("closed_before_connack", "connack", "eof", 1, 1),
        ("tls_alert", "tls", "tlsv1 alert unknown ca", 1, 1),
    ]
    assert [tuple(each) for each in wrong] == [(1, "expected provisioned in prod; refused: TLS alert")]


def test_schema_keeps_its_comments(path: Path) -> None:
    write(path).finish(RunStatus.FINISHED, now=2.0)
    with sqlite3.connect(path) as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'attempts'").fetchone()
    connection.close()

    assert "from started_at until CONNACK was there" in sql


def test_equal_expectations_are_one_row(path: Path) -> None:
    write(path).finish(RunStatus.FINISHED, now=2.0)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM expectations").fetchone() == (3,)
    connection.close()


# --- batches ---


def committed(path: Path) -> int:
    with RunReader(path) as reader:
        return sum(1 for _ in reader.notes())


def note(at: float) -> Note:
    return Note(at=at, kind="setup", text="x")


def test_rows_are_committed_when_enough_have_gathered(path: Path) -> None:
    with RunWriter.create(path, RUN, batch_rows=3, batch_seconds=60) as writer:
        writer.add_note(note(1.0))
        writer.add_note(note(1.0))
        before = committed(path)
        writer.add_note(note(1.0))

        assert (before, committed(path)) == (0, 3)


def test_rows_are_committed_when_the_oldest_has_waited_long_enough(path: Path) -> None:
    with RunWriter.create(path, RUN, batch_rows=1000, batch_seconds=2.0) as writer:
        writer.add_note(note(10.0))
        writer.tick(11.5)
        early = committed(path)
        writer.tick(12.0)
        waited = committed(path)
        writer.add_note(note(13.0))
        writer.add_note(note(15.0))

        assert (early, waited, committed(path)) == (0, 1, 3)


def test_clock_that_is_set_back_does_not_hold_rows_up(path: Path) -> None:
    with RunWriter.create(path, RUN, batch_seconds=2.0) as writer:
        writer.add_note(note(1000.0))
        writer.tick(10.0)

        assert committed(path) == 1


def test_order_of_adding_does_not_matter_within_a_batch(path: Path) -> None:
    with RunWriter.create(path, RUN) as writer:
        writer.add_attempt(FAILED_TRY, now=1.0)
        writer.add_device(DEVICES[0], now=1.0)
        writer.add_group(ROBOTS, now=1.0)
        writer.add_account(PROD, now=1.0)

    with RunReader(path) as reader:
        assert list(reader.attempts()) == [FAILED_TRY]


def test_attempt_of_an_unknown_device_is_a_programming_error(path: Path) -> None:
    writer = RunWriter.create(path, RUN)
    writer.add_attempt(FAILED_TRY, now=1.0)

    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        writer.finish(RunStatus.FINISHED, now=2.0)
    with pytest.raises(sqlite3.IntegrityError):
        writer.close()
    with RunReader(path) as reader:
        assert reader.run().status is RunStatus.INTERRUPTED


def test_holding_among_those_of_another_account_is_a_programming_error(path: Path) -> None:
    with write(path) as writer, pytest.raises(ValueError, match="a holding of 'prod' among those of 'dev'"):
        writer.add_holdings(Phase.AFTER, "dev", [HELD], now=1.0)


# --- the end ---


def test_record_left_without_finish_says_interrupted(path: Path) -> None:
    with write(path):
        pass

    with RunReader(path) as reader:
        assert (reader.run().status, reader.run().ended_at) == (RunStatus.INTERRUPTED, None)
        assert len(list(reader.attempts())) == 3


def test_error_in_the_run_leaves_what_was_recorded(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), write(path):
        _ = 1 / 0

    with RunReader(path) as reader:
        assert (reader.run().status, len(list(reader.attempts()))) == (RunStatus.INTERRUPTED, 3)


def test_finished_record_takes_no_more(path: Path) -> None:
    with write(path) as writer:
        writer.finish(RunStatus.INTERRUPTED, now=5.0)
        with pytest.raises(ValueError, match="is finished; nothing can be added to notes"):
            writer.add_note(note(6.0))

    with RunReader(path) as reader:
        assert (reader.run().status, reader.run().ended_at) == (RunStatus.INTERRUPTED, 5.0)


def test_record_is_never_overwritten(path: Path) -> None:
    path.write_text("precious")

    with pytest.raises(RecordError, match="exists already; a record is never overwritten"):
        RunWriter.create(path, RUN)

    assert path.read_text() == "precious"


def test_record_in_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be created: No such file or directory"):
        RunWriter.create(tmp_path / "missing" / "run.sqlite", RUN)


# --- reading while it is written, and after a kill ---


def test_reader_sees_committed_batches_while_the_run_goes_on(path: Path) -> None:
    with write(path) as writer:
        writer.flush()
        with RunReader(path) as reader:
            before = len(list(reader.attempts()))
            with reader.snapshot():
                inside = len(list(reader.attempts()))
                writer.add_attempt(replace(ALERTED, number=2), now=2.0)
                writer.flush()
                still = len(list(reader.attempts()))
            after = len(list(reader.attempts()))
            assert reader.run().status is RunStatus.RUNNING

    assert (before, inside, still, after) == (3, 3, 3, 4)


def test_run_finishes_while_somebody_reads(path: Path) -> None:
    writer = write(path)
    writer.flush()
    with RunReader(path) as reader, reader.snapshot():
        assert reader.run().status is RunStatus.RUNNING
        writer.finish(RunStatus.FINISHED, now=9.0)

    with RunReader(path) as reader:
        assert (reader.run().status, len(list(reader.attempts()))) == (RunStatus.FINISHED, 3)


WRITE_FOR_EVER = """
import sys
from dataclasses import replace
from pathlib import Path
from devicesim.record.facts import AccountRecord, DeviceRecord, GroupRecord, Note, RunFacts
from devicesim.record.store import RunWriter

writer = RunWriter.create(Path(sys.argv[1]), RunFacts(
    fleet="killed", fleet_file="", version="0", target="emulator", started_at=0.0), batch_rows=10, batch_seconds=1e9)
number = 0
while True:
    writer.add_note(Note(at=0.0, kind="setup", text=str(number)))
    number += 1
    if number % 10 == 0:
        print(number, flush=True)
        if number >= 500:
            writer.add_note(Note(at=0.0, kind="setup", text="never committed"))
            sys.stdin.read()
"""


def test_killed_run_is_whole_up_to_its_last_batch(path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    with child.stdin, child.stdout:
        for line in child.stdout:
            if int(line) >= 500:
                break
        os.kill(child.pid, signal.SIGKILL)
        child.wait(timeout=10)

    assert path.with_name(path.name + "-wal").exists(), "the last batches are in the write-ahead log"
    with RunReader(path) as reader:
        assert [each.text for each in reader.notes()] == [str(number) for number in range(500)]
        assert reader.run().status is RunStatus.RUNNING
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_record_of_a_killed_run_may_be_copied_with_its_log(path: Path, tmp_path: Path) -> None:
    writer = write(path)
    writer.flush()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", elsewhere / f"copy.sqlite{suffix}")
    writer.close()

    with RunReader(elsewhere / "copy.sqlite") as reader:
        assert len(list(reader.attempts())) == 3


def test_reader_cannot_change_the_record(path: Path) -> None:
    write(path).finish(RunStatus.FINISHED, now=2.0)
    before = path.read_bytes()
    with RunReader(path) as reader:
        list(reader.attempts())
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._connection.execute("DELETE FROM attempts")

    assert path.read_bytes() == before


# --- what is not a record ---


def read_all(path: Path) -> None:
    with RunReader(path) as reader, reader.snapshot():
        reader.run()
        reader.groups()
        list(reader.attempts())
        list(reader.verdicts())
        list(reader.samples())


def test_missing_file_is_not_a_record(tmp_path: Path) -> None:
    for wrong in (tmp_path / "missing.sqlite", tmp_path):
        with pytest.raises(RecordError, match="is not a record: no such file"):
            RunReader(wrong)


def test_other_files_are_not_records(path: Path) -> None:
    path.write_text("a text that is long enough to be looked at as a header of a database file" * 10)

    with pytest.raises(RecordError, match="is not a record: not a SQLite file"):
        RunReader(path)


def test_databases_of_other_programs_are_not_records(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE run (x)")
    connection.close()

    with pytest.raises(RecordError, match="is not a record: a SQLite file of something else"):
        RunReader(path)


def test_empty_file_is_not_a_record(path: Path) -> None:
    path.touch()

    with pytest.raises(RecordError, match="is not a record"):
        RunReader(path)


def test_record_of_another_version_is_not_read(path: Path) -> None:
    write(path).finish(RunStatus.FINISHED, now=2.0)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(RecordError, match=f"of version 99; this devicesim reads version {schema.SCHEMA_VERSION}"):
        RunReader(path)


def test_truncated_record_is_damaged(path: Path) -> None:
    write(path).finish(RunStatus.FINISHED, now=2.0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])

    with pytest.raises(RecordError, match="is damaged"):
        read_all(path)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE attempts SET failure_kind = 'gremlins'",
        "UPDATE expectations SET rests_on = 'not JSON'",
        "UPDATE run SET status = 'gone'",
        "INSERT INTO generator VALUES ('fleet', 1.0, 1.0, 0.5, 3, '{}', 1)",
        "INSERT INTO generator VALUES ('fleet', 1.0, 1.0, 0.5, 3, 'not JSON', 1)",
        "INSERT INTO generator VALUES ('fleet', 1.0, 1.0, 0.5, 3, '{\"buckets_per_octave\": 7}', 1)",
        "DELETE FROM run",
        "PRAGMA foreign_keys = OFF; DELETE FROM expectations",
    ],
)
def test_values_that_no_writer_writes_are_damage(path: Path, damage: str) -> None:
    write(path).finish(RunStatus.FINISHED, now=2.0)
    with sqlite3.connect(path) as connection:
        connection.executescript(damage)
    connection.close()

    with pytest.raises(RecordError, match="is damaged"):
        read_all(path)
