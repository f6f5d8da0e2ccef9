"""Records to rows of the run's SQLite file, and back. Pure: the two directions of each table stand beside each other.

The columns are in the order of :mod:`devicesim.record.schema`.
"""

import json
from collections.abc import Mapping
from typing import Any

from devicesim.outcome import Alert, Attempt, DeviceOutcome, Failure, FailureKind, Holding, Stage, Verdict
from devicesim.record.facts import (
    AccountRecord,
    DeviceRecord,
    Drop,
    GeneratorSample,
    GroupRecord,
    Note,
    RunFacts,
    RunStatus,
    ThresholdRecord,
)
from devicesim.record.histogram import Histogram
from devicesim.record.verdict import UserExpectation
from devicesim.rules import Expectation, Row

SQLRow = tuple[Any, ...]

STAGES = (Stage.TCP, Stage.TLS, Stage.CONNECT, Stage.CONNACK)
"""The stages that have a column, in its order."""


def from_run(run: RunFacts) -> SQLRow:
    place = (run.fleet, run.fleet_file, run.version, run.target)
    load = (run.arrival, run.schedule, run.rate, run.late_after, run.late_tolerance)
    return (1, *place, *load, run.started_at, run.ended_at, run.status)


def to_run(row: SQLRow) -> RunFacts:
    _, fleet, fleet_file, version, target, *load, started_at, ended_at, status = row
    arrival, schedule, rate, late_after, late_tolerance = load
    return RunFacts(
        fleet=fleet,
        fleet_file=fleet_file,
        version=version,
        target=target,
        arrival=arrival,
        schedule=schedule,
        rate=rate,
        late_after=late_after,
        late_tolerance=late_tolerance,
        started_at=started_at,
        ended_at=ended_at,
        status=RunStatus(status),
    )


def from_account(account: AccountRecord, position: int) -> SQLRow:
    place = (account.name, position, account.account_id, account.region, account.endpoint)
    return (*place, account.ca_mode, account.provisioning)


def to_account(row: SQLRow) -> AccountRecord:
    name, _, account_id, region, endpoint, ca_mode, provisioning = row
    return AccountRecord(
        name=name,
        account_id=account_id,
        region=region,
        endpoint=endpoint,
        ca_mode=ca_mode,
        provisioning=provisioning,
    )


def from_expectation(expectation: Expectation, number: int) -> SQLRow:
    hope = (expectation.outcome, expectation.account, expectation.mode, expectation.thing, expectation.first_try)
    rests_on = [[row.id, row.says, row.mark, row.source] for row in expectation.rests_on]
    row = expectation.row
    deciding = (row.id, row.says, row.mark, row.source)
    return (number, *hope, expectation.registered_in, *deciding, json.dumps(rests_on, ensure_ascii=False))


def to_expectation(row: SQLRow) -> Expectation:
    _, outcome, account, mode, thing, first_try, registered_in, row_id, says, mark, source, rests_on = row
    return Expectation(
        outcome=DeviceOutcome(outcome),
        account=account,
        mode=mode,
        thing=_truth(thing),
        first_try=first_try,
        row=Row(id=row_id, says=says, mark=mark, source=source),
        rests_on=tuple(Row(id=i, says=s, mark=m, source=w) for i, s, m, w in json.loads(rests_on)),
        registered_in=registered_in,
    )


def from_group(group: GroupRecord, position: int, expectation: int) -> SQLRow:
    user = group.user or UserExpectation()
    place = (group.name, position, group.count, group.account, group.sni_setting, group.sni, group.chain_sent)
    return (*place, expectation, group.user is not None, user.outcome, user.account, user.mode, user.thing)


def to_group(row: SQLRow, expectations: Mapping[int, Expectation]) -> GroupRecord:
    name, _, count, account, sni_setting, sni, chain_sent, expectation, has_user, *user = row
    outcome, user_account, mode, thing = user
    return GroupRecord(
        name=name,
        count=count,
        account=account,
        sni_setting=sni_setting,
        sni=sni,
        chain_sent=bool(chain_sent),
        expectation=expectations[expectation],
        user=UserExpectation(
            outcome=None if outcome is None else DeviceOutcome(outcome),
            account=user_account,
            mode=mode,
            thing=_truth(thing),
        )
        if has_user
        else None,
    )


def from_device(device: DeviceRecord, expectation: int | None) -> SQLRow:
    return (device.number, device.index, device.group, device.client_id, device.certificate_id, expectation)


def to_device(row: SQLRow, expectations: Mapping[int, Expectation]) -> DeviceRecord:
    number, index, group, client_id, certificate_id, expectation = row
    return DeviceRecord(
        number=number,
        index=index,
        group=group,
        client_id=client_id,
        certificate_id=certificate_id,
        expectation=None if expectation is None else expectations[expectation],
    )


def from_attempt(attempt: Attempt) -> SQLRow:
    failure, alert = attempt.failure, attempt.alert
    return (
        attempt.device,
        attempt.number,
        attempt.account,
        attempt.sni,
        attempt.intended_start,
        attempt.start,
        attempt.end,
        *(attempt.reached.get(stage) for stage in STAGES),
        *((failure.kind, failure.stage, failure.detail) if failure else (None, None, None)),
        attempt.tls_version,
        attempt.cipher,
        *((alert.name, alert.code, alert.level, alert.direction) if alert else (None, None, None, None)),
        attempt.connack_code,
        attempt.published,
        attempt.acknowledged,
    )


def to_attempt(row: SQLRow) -> Attempt:
    device, number, account, sni, intended, start, end, tcp, tls, connect, connack, *seen = row
    kind, stage, detail, tls_version, cipher, alert, code, level, direction, connack_code, published, answered = seen
    return Attempt(
        device=device,
        number=number,
        account=account,
        sni=sni,
        intended_start=intended,
        start=start,
        end=end,
        reached={s: v for s, v in zip(STAGES, (tcp, tls, connect, connack), strict=True) if v is not None},
        failure=None if kind is None else Failure(kind=FailureKind(kind), stage=Stage(stage), detail=detail),
        tls_version=tls_version,
        cipher=cipher,
        alert=None if alert is None else Alert(name=alert, code=code, level=level, direction=direction),
        connack_code=connack_code,
        published=published,
        acknowledged=answered,
    )


def from_holding(holding: Holding, phase: str) -> SQLRow:
    record = (holding.account, holding.status, holding.mode, json.dumps(holding.things, ensure_ascii=False))
    return (phase, holding.certificate_id, *record)


def to_holding(row: SQLRow) -> Holding:
    _, certificate_id, account, status, mode, things = row
    return Holding(
        account=account,
        certificate_id=certificate_id,
        status=status,
        mode=mode,
        things=None if (names := json.loads(things)) is None else tuple(names),
    )


def from_verdict(verdict: Verdict) -> SQLRow:
    place = (verdict.device, verdict.outcome, verdict.account, verdict.mode, verdict.thing)
    hope = (verdict.expected_outcome, verdict.expected_account, verdict.agrees, verdict.reason)
    return (*place, *hope, verdict.attempts, verdict.time_to_provision)


def to_verdict(row: SQLRow) -> Verdict:
    device, outcome, account, mode, thing, expected, expected_account, agrees, reason, attempts, seconds = row
    return Verdict(
        device=device,
        outcome=DeviceOutcome(outcome),
        account=account,
        mode=mode,
        thing=thing,
        expected_outcome=DeviceOutcome(expected),
        expected_account=expected_account,
        agrees=bool(agrees),
        reason=reason,
        attempts=attempts,
        time_to_provision=seconds,
    )


def from_drop(drop: Drop) -> SQLRow:
    return (drop.device, drop.group, drop.due)


def to_drop(row: SQLRow) -> Drop:
    device, group, due = row
    return Drop(device=device, group=group, due=due)


def from_threshold(threshold: ThresholdRecord, position: int) -> SQLRow:
    what = (threshold.metric, threshold.expression, threshold.abort_on_fail, threshold.delay)
    return (position, *what, threshold.aborted_at)


def to_threshold(row: SQLRow) -> ThresholdRecord:
    _, metric, expression, abort_on_fail, delay, aborted_at = row
    return ThresholdRecord(
        metric=metric, expression=expression, abort_on_fail=bool(abort_on_fail), delay=delay, aborted_at=aborted_at
    )


def from_sample(sample: GeneratorSample) -> SQLRow:
    spent = (sample.wall, sample.cpu, sample.starts, json.dumps(sample.lag.to_dict()), sample.rss)
    return (sample.process, sample.at, *spent)


def to_sample(row: SQLRow) -> GeneratorSample:
    process, at, wall, cpu, starts, lag, rss = row
    return GeneratorSample(
        process=process, at=at, wall=wall, cpu=cpu, starts=starts, lag=Histogram.from_dict(json.loads(lag)), rss=rss
    )


def from_note(note: Note) -> SQLRow:
    return (None, note.at, note.kind, note.account, note.device, note.text)


def to_note(row: SQLRow) -> Note:
    _, at, kind, account, device, text = row
    return Note(at=at, kind=kind, account=account, device=device, text=text)


def _truth(value: int | None) -> bool | None:
    return None if value is None else bool(value)
