"""Made-up records: a walk-through that agrees, one that does not, one that was cut short."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from devicesim.outcome import Attempt, DeviceOutcome, Failure, FailureKind, Holding, Stage
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
from devicesim.record.store import RunWriter
from devicesim.record.verdict import DeviceFacts, UserExpectation, judge
from devicesim.rules import AccountView, CARegistration, expect

REGION = "eu-central-1"
START = 1_760_000_000.0
DROP = Failure(kind=FailureKind.CLOSED_BEFORE_CONNACK, stage=Stage.CONNACK, detail="closed by the peer")

PROD = AccountView(
    name="prod",
    account_id="111122223333",
    region=REGION,
    endpoint=f"a1b2c3d4e5f6g7-ats.iot.{REGION}.localhost",
    ca=CARegistration(mode="DEFAULT"),
    provisioning="JITR",
    thing=False,
)
DEV = replace(
    PROD,
    name="dev",
    account_id="444455556666",
    endpoint=f"z9y8x7w6v5u4t3-ats.iot.{REGION}.localhost",
    ca=CARegistration(mode="SNI_ONLY"),
    provisioning="JITP",
    thing=True,
)


@dataclass(kw_only=True)
class Robots:
    """A group of made-up devices that all do the same."""

    name: str
    count: int
    dials: AccountView = PROD
    sni_setting: str = "endpoint"
    tries: Sequence[Failure | None] = (DROP, None)
    """What each try sees; ``None``: CONNACK 0."""
    lands: str | None = "prod"
    """The account that holds the certificate after the run."""
    status: str = "ACTIVE"
    mode: str = "DEFAULT"
    thing: str | None = None
    user: UserExpectation | None = None
    chain_sent: bool = True
    verdicts: bool = True
    late: float = 0.0
    """Seconds that every third device starts behind its schedule."""
    recorded: int | None = None
    """Devices on record; ``None``: all."""
    dropped: int = 0
    """Starts that were not made, of devices that are not on record."""
    messages: tuple[int, int | None] | None = None
    """Published and acknowledged by each device in its last try."""


@dataclass(kw_only=True)
class MadeUp:
    """A whole run."""

    groups: Sequence[Robots]
    accounts: Sequence[AccountView] = (PROD, DEV)
    status: RunStatus | None = RunStatus.FINISHED
    """``None``: not finished."""
    asked: bool = True
    """The control planes could be asked."""
    notes: Sequence[Note] = field(default_factory=list)
    thresholds: Sequence[ThresholdRecord] = ()
    samples: Sequence[GeneratorSample] = ()
    load: Mapping[str, Any] = field(default_factory=dict)
    """What the run says of its load in place of 50 starts a second."""


def _sni(robots: Robots, accounts: Sequence[AccountView]) -> str | None:
    kind, _, value = robots.sni_setting.partition(":")
    if kind == "none":
        return None
    if kind == "other":
        return next(account.endpoint for account in accounts if account.name == value)
    return value if kind == "literal" else robots.dials.endpoint


def _attempts(number: int, robots: Robots, sni: str | None, account: str | None) -> list[Attempt]:
    attempts = []
    for n, failure in enumerate(robots.tries, 1):
        intended = START + number * 0.02 + (n - 1) * 3.5
        start = intended + 0.0001 * (number % 7) + (0.0 if number % 3 else robots.late)
        slow = 1 + (number * 37 % 100) / 100
        reached = {Stage.TCP: 0.0004 * slow, Stage.TLS: 0.0051 * slow, Stage.CONNECT: 0.0053 * slow}
        if failure is None:
            reached[Stage.CONNACK] = 0.0072 * slow
        elif failure.stage is Stage.TCP:
            reached = {}
        elif failure.stage is Stage.TLS:
            reached.pop(Stage.TLS)
            reached.pop(Stage.CONNECT)
        attempts.append(
            Attempt(
                device=number,
                number=n,
                account=account,
                sni=sni,
                intended_start=intended,
                start=start,
                end=start + 0.01,
                reached=reached,
                failure=failure,
                tls_version="TLSv1.3",
                cipher="TLS_AES_256_GCM_SHA384",
                alert=None,
                connack_code=0 if failure is None else None,
            )
        )
    if robots.messages is not None:
        published, acknowledged = robots.messages
        attempts[-1] = replace(attempts[-1], published=published, acknowledged=acknowledged)
    return attempts


def write(path: Path, made_up: MadeUp) -> Path:
    run = RunFacts(
        fleet="walk-through",
        fleet_file="version = 1\n",
        version="0.1.0",
        target="emulator",
        started_at=START,
        **{"rate": 50.0, "schedule": "50 starts/s", **made_up.load},
    )
    with RunWriter.create(path, run) as writer:
        for account in made_up.accounts:
            record = AccountRecord(
                name=account.name,
                account_id=account.account_id,
                region=account.region,
                endpoint=account.endpoint,
                ca_mode=account.ca.mode if account.ca else None,
                provisioning=account.provisioning,
            )
            writer.add_account(record, now=START)
            if made_up.asked:
                writer.add_holdings(Phase.AFTER, account.name, [], now=START)
        number = 0
        for robots in made_up.groups:
            sni = _sni(robots, made_up.accounts)
            oracle = expect(made_up.accounts, region=REGION, sni=sni, chain_sent=robots.chain_sent)
            writer.add_group(
                GroupRecord(
                    name=robots.name,
                    count=robots.count,
                    account=robots.dials.name,
                    sni_setting=robots.sni_setting,
                    sni=sni,
                    chain_sent=robots.chain_sent,
                    expectation=oracle,
                    user=robots.user,
                ),
                now=START,
            )
            addressed = next((account.name for account in made_up.accounts if account.endpoint == sni), None)
            for index in range(robots.count if robots.recorded is None else robots.recorded):
                device = DeviceRecord(
                    number=number,
                    index=index,
                    group=robots.name,
                    client_id=f"walk-through-{number:06}",
                    certificate_id=f"{number:064x}",
                )
                writer.add_device(device, now=START)
                attempts = _attempts(number, robots, sni, oracle.account)
                for attempt in attempts:
                    writer.add_attempt(attempt, now=START)
                holdings = (
                    [
                        Holding(
                            account=robots.lands,
                            certificate_id=device.certificate_id,
                            status=robots.status,
                            mode=robots.mode,
                            things=(f"{robots.thing}-{number:06}",) if robots.thing else (),
                        )
                    ]
                    if robots.lands
                    else []
                )
                if made_up.asked and robots.lands:
                    writer.add_holdings(Phase.AFTER, robots.lands, holdings, now=START)
                if robots.verdicts:
                    facts = DeviceFacts(device=number, certificate_id=device.certificate_id, addressed=addressed)
                    held = holdings if made_up.asked else None
                    before: list[Holding] | None = [] if made_up.asked else None
                    verdict = judge(facts, attempts, held, oracle, robots.user, before=before)
                    writer.add_verdict(verdict, now=START)
                number += 1
            for _ in range(robots.dropped):
                writer.add_drop(Drop(device=number, group=robots.name, due=START + number * 0.02), now=START)
                number += 1
        for position, threshold in enumerate(made_up.thresholds):
            writer.add_threshold(threshold, position, now=START)
        for sample in made_up.samples:
            writer.add_sample(sample)
        for note in made_up.notes:
            writer.add_note(note)
        if made_up.status is not None:
            writer.finish(made_up.status, now=START + 12.34)
    return path


GOOD = (
    Robots(name="robots-in-prod", count=30),
    Robots(name="robots-in-dev", count=30, dials=DEV, lands="dev", mode="SNI_ONLY", thing="robot"),
    Robots(name="robots-without-sni", count=30, sni_setting="none"),
    Robots(name="robots-with-a-wrong-name", count=10, sni_setting="literal:nobody-ats.iot.eu-central-1.localhost",
           tries=[DROP] * 4, lands=None),
)  # fmt: skip
WRONG = (
    *GOOD[:1],
    replace(GOOD[1], lands="prod", mode="DEFAULT", thing=None),
    replace(GOOD[2], tries=[DROP] * 3, lands=None),
    Robots(name="over-there", count=3, sni_setting="other:dev", lands="dev", mode="SNI_ONLY", thing="robot",
           user=UserExpectation(outcome=DeviceOutcome.REFUSED)),
    Robots(name="nobody-at-home", count=2, lands=None,
           tries=[Failure(kind=FailureKind.TCP_REFUSED, stage=Stage.TCP, detail="[Errno 111] Connection refused")]),
)  # fmt: skip
CUT_SHORT = (
    replace(GOOD[0], verdicts=False),
    Robots(name="robots-in-dev", count=500, dials=DEV, tries=[DROP], lands=None, verdicts=False, recorded=12),
    Robots(name="robots-without-sni", count=30, sni_setting="none", tries=[], lands=None, verdicts=False),
)
ERRORS = (
    Note(at=START, kind="setup", text="CA registered", account="prod"),
    Note(at=START, kind="error", text="AttachPolicy: \x1b[31mThrottlingException", account="dev"),
)


def sample(
    at: float, *, cpu: float = 0.3, lag: float = 0.002, starts: int = 50, process: str = "devices", **more: Any
) -> GeneratorSample:
    """A second of a process, which ends ``at`` seconds after the run's start; ``lag`` of each of 20 wake-ups."""
    measured = {"wall": 1.0, "rss": 80 * 1024 * 1024, **more}
    return GeneratorSample(
        process=process, at=START + at, cpu=cpu, starts=starts, lag=Histogram([lag] * 20), **measured
    )


BUSY = (sample(1, cpu=0.97), sample(2, cpu=0.95, lag=0.03, rss=90 * 1024 * 1024), sample(3, cpu=0.02, starts=0))
THRESHOLDS = (
    ThresholdRecord(metric="provision_success", expression="rate>0.999"),
    ThresholdRecord(metric="provision_success{account:prod}", expression="rate > 0.99"),
    ThresholdRecord(metric="time_to_provision", expression="p(95)<5s"),
    ThresholdRecord(metric="time_to_provision", expression="p(99)<200ms"),
    ThresholdRecord(metric="connect_seconds{group:robots-in-dev}", expression="med<0.2"),
    ThresholdRecord(metric="tls_seconds{group:nobody}", expression="max<1"),
    ThresholdRecord(metric="dropped_starts", expression="count==0"),
    ThresholdRecord(metric="attempts", expression="rate<1000"),
)
