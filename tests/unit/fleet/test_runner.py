"""One run: how it ends, and what is then on record. The accounts and the devices are made up."""

from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from devicesim.cloud.account import AccountAccess
from devicesim.errors import ClusterError, DevicesimError, TargetError
from devicesim.fleet import device as device_module
from devicesim.fleet import runner as module
from devicesim.fleet.device import Clock
from devicesim.fleet.runner import Run, run_facts
from devicesim.fleet.shard import ShardPlan, Sink, Started
from devicesim.fleet.spec import Fleet
from devicesim.fleet.target import Target, accesses
from devicesim.outcome import Attempt, Holding, Stage
from devicesim.record.facts import Drop, Phase, RunStatus
from devicesim.record.store import RunReader, RunWriter
from tests.fleet_support import EPOCH, FakeNet, Session, endpoints, fleet_of, material, refused

ALL = [f"certificate-{n}" for n in range(9)]


@dataclass
class Accounts:
    """The control planes: account ``a`` holds these certificates afterwards."""

    fleet: Fleet
    held: Collection[str] = ()
    asked: list[tuple[str, Collection[str] | None]] = field(default_factory=list)
    set_up: list[str] = field(default_factory=list)
    closed: int = 0
    broken: Phase | None = None

    def client(self, access: AccountAccess) -> Any:
        accounts = self

        class Client:
            def __init__(self) -> None:
                self.access = access

            async def check_identity(self) -> None:
                await trio.lowlevel.checkpoint()

            def close(self) -> None:
                accounts.closed += 1

        return Client()

    async def endpoint(self, client: Any) -> str:
        await trio.lowlevel.checkpoint()
        return endpoints(self.fleet)[client.access.name]

    async def prepare(self, client: Any, *_: object) -> list[str]:
        await trio.lowlevel.checkpoint()
        self.set_up.append(client.access.name)
        return ["registered the CA"]

    async def holdings(
        self, client: Any, ca_id: str, wanted: Collection[str] | None, *, with_things: bool
    ) -> list[Holding]:
        del ca_id, with_things
        await trio.lowlevel.checkpoint()
        phase = Phase.BEFORE if wanted is None else Phase.AFTER
        self.asked.append((client.access.name, wanted))
        if phase is self.broken:
            raise TargetError(f"account {client.access.name!r} does not answer")
        if phase is Phase.BEFORE or client.access.name != "a":
            return []
        return [
            Holding(account="a", certificate_id=each, status="ACTIVE", mode="DEFAULT", things=("t",))
            for each in sorted(wanted or ())
            if each in self.held
        ]


Script = Callable[["Devices"], Awaitable[None]]


@dataclass
class Devices:
    """Drives devices that are made up (:class:`~devicesim.fleet.runner.Driver`)."""

    script: Script
    plan: ShardPlan | None = None
    sink: Sink | None = None
    cancelled: bool = False

    async def drive(self, plan: ShardPlan, sink: Sink, clock: Clock) -> None:
        del clock
        self.plan, self.sink = plan, sink
        try:
            await self.script(self)
        except trio.Cancelled:
            self.cancelled = True
            raise

    def start(self, number: int) -> None:
        assert self.sink is not None
        self.sink.started(
            Started(number=number, group="first", member=number, client_id=f"d{number}", certificate_id=ALL[number])
        )

    def tried(self, number: int, attempt: int = 1, *, accepted: bool = False, live: bool = False) -> None:
        assert self.sink is not None
        start = EPOCH + 10.0 * attempt
        told = Attempt(
            device=number,
            number=attempt,
            account=None,
            sni="a-ats.iot.eu-west-1.localhost",
            intended_start=start,
            start=start,
            end=start + 1,
            reached={Stage.TCP: 0.1, **({Stage.CONNACK: 0.5} if accepted else {})},
            failure=None if accepted else refused(),
            tls_version=None,
            cipher=None,
            alert=None,
            connack_code=0 if accepted else None,
        )
        self.sink.attempt(told, live=live)

    def whole(self, number: int, *, accepted: bool = True) -> None:
        """A device from its start to its end."""
        assert self.sink is not None
        self.start(number)
        self.tried(number)
        self.tried(number, 2, accepted=accepted)
        self.sink.finished(number, accepted=accepted)


@dataclass
class Made:
    """A run that is ready to be executed."""

    run: Run
    accounts: Accounts
    devices: Devices
    path: Path
    writer: RunWriter

    def read(self) -> RunReader:
        self.writer.close()
        return RunReader(self.path)


Make = Callable[..., Made]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    writers: list[RunWriter] = []

    def made(script: Script, *more: str, held: Collection[str] = ALL, **options: Any) -> Made:
        fleet = fleet_of(*more)
        accounts = Accounts(fleet, held)
        monkeypatch.setattr(module, "AccountClient", accounts.client)
        monkeypatch.setattr(module, "data_endpoint", accounts.endpoint)
        monkeypatch.setattr(module, "set_up", accounts.prepare)
        monkeypatch.setattr(module, "holdings", accounts.holdings)
        target = Target(
            kind="emulator",
            accounts=accesses(fleet, "emulator", "http://127.0.0.1:1"),
            addresses={"a": ("127.0.0.1", 1), "b": ("127.0.0.1", 1)},
            port=8883,
            roots=(),
            own_roots=(),
        )
        path = tmp_path / "run.sqlite"
        facts = run_facts(fleet, target="emulator", version="0", started_at=EPOCH)
        writer = RunWriter.create(path, facts)
        writers.append(writer)
        devices = Devices(script)
        options = {"driver": devices, **options}
        run = Run(fleet, material(), target, writer, run_id="run", epoch=lambda: EPOCH, **options)
        return Made(run, accounts, devices, path, writer)

    yield made
    for writer in writers:
        writer.close()


async def all_well(devices: Devices) -> None:
    for number in range(3):
        await trio.sleep(1)
        devices.whole(number)


async def test_run_sets_up_drives_asks_and_judges(make: Make, autojump_clock: MockClock) -> None:
    made = make(all_well)

    assert await made.run.execute() is RunStatus.FINISHED
    assert (made.accounts.set_up, made.accounts.closed, made.run.progress.phase) == (["a", "b"], 2, "done")
    assert made.accounts.asked == [("a", None), ("b", None), ("a", set(ALL[:3])), ("b", set(ALL[:3]))]
    with made.read() as reader:
        assert (reader.run().status, reader.run().ended_at) == (RunStatus.FINISHED, EPOCH + 3)
        assert [(each.device, each.agrees) for each in reader.verdicts()] == [(0, True), (1, True), (2, True)]
        assert reader.asked(Phase.BEFORE) == reader.asked(Phase.AFTER) == {"a", "b"}
        assert [(each.kind, each.text, each.account) for each in reader.notes()] == [
            ("setup", "registered the CA", "a"),
            ("setup", "registered the CA", "b"),
        ]


async def test_driver_is_given_the_whole_run_as_one_share(make: Make, autojump_clock: MockClock) -> None:
    made = make(all_well, "[session]\nhold = 30", '[arrival]\nmodel = "closed"\nconcurrency = 4')
    await made.run.execute()

    plan = made.devices.plan
    assert plan is not None
    assert (plan.shard.first, plan.shard.step, plan.shard.count, plan.total) == (0, 1, 9, 9)
    assert (plan.hold, plan.under_way, plan.only, plan.sources) == (30.0, 4, None, ())
    assert {name: door.endpoint for name, door in plan.doors.items()} == endpoints(fleet_of())


async def test_driver_is_given_what_the_command_line_says_in_place_of_the_file(
    make: Make, autojump_clock: MockClock
) -> None:
    made = make(
        all_well, "[session]\nhold = 30", "[arrival]\nmax_under_way = 5", only=[2, 1], hold=0.0, sources=("127.0.0.9",)
    )
    await made.run.execute()

    plan = made.devices.plan
    assert plan is not None
    assert (plan.hold, plan.under_way, plan.only, plan.sources) == (0.0, 5, frozenset({1, 2}), ("127.0.0.9",))
    assert plan.total == plan.shard.count == made.run.progress.total == 2


async def test_run_that_prepares_nothing_asks_for_endpoints_only(make: Make, autojump_clock: MockClock) -> None:
    made = make(all_well, prepare=False)

    assert await made.run.execute() is RunStatus.FINISHED
    assert (made.accounts.set_up, made.accounts.asked) == ([], [])
    with made.read() as reader:
        assert {each.account for each in reader.verdicts()} == {None}
        assert reader.asked(Phase.AFTER) == set()


async def lives_on(devices: Devices) -> None:
    devices.whole(0)
    devices.start(1)
    devices.tried(1, accepted=True, live=True)
    devices.start(2)
    await trio.sleep_forever()


async def test_interrupted_run_judges_what_came_to_its_end(make: Make, autojump_clock: MockClock) -> None:
    made = make(lives_on)
    status: list[RunStatus] = []

    async def execute() -> None:
        status.append(await made.run.execute())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(execute)
        await trio.sleep(5)
        made.run.interrupt()

    assert (status, made.devices.cancelled) == ([RunStatus.INTERRUPTED], True)
    assert [each for each in made.accounts.asked if each[1] is not None] == [], "nothing more is asked"
    with made.read() as reader:
        assert reader.run().status is RunStatus.INTERRUPTED
        assert [(each.device, each.account) for each in reader.verdicts()] == [(0, None)]
        assert [each.device for each in reader.attempts()] == [0, 0, 1]
        assert [each.number for each in reader.devices()] == [0, 1, 2]


async def test_run_that_is_interrupted_in_setup_has_a_whole_record(make: Make, autojump_clock: MockClock) -> None:
    made = make(all_well)
    made.run.interrupt()

    assert await made.run.execute() is RunStatus.INTERRUPTED
    with made.read() as reader:
        assert (reader.run().status, list(reader.verdicts())) == (RunStatus.INTERRUPTED, [])
    assert made.devices.plan is None


async def one_gives_up(devices: Devices) -> None:
    devices.whole(0)
    await trio.sleep(1)
    devices.whole(1, accepted=False)
    devices.start(2)
    devices.tried(2, accepted=True, live=True)
    await trio.sleep_forever()


THRESHOLD = (
    '[thresholds]\nattempts = ["count<100"]\nprovision_success = [{ threshold = "rate>0.9", abort_on_fail = true%s }]'
)


async def test_threshold_ends_the_devices_and_the_accounts_are_still_asked(
    make: Make, autojump_clock: MockClock
) -> None:
    made = make(one_gives_up, THRESHOLD % "", held=[ALL[0], ALL[2]])

    assert await made.run.execute() is RunStatus.ABORTED
    assert made.devices.cancelled
    assert ("a", set(ALL[:3])) in made.accounts.asked
    with made.read() as reader:
        assert reader.run().status is RunStatus.ABORTED
        assert {each.device: each.agrees for each in reader.verdicts()} == {0: True, 1: False}
        kept, ended = reader.thresholds()
        assert (kept.metric, kept.aborted_at) == ("attempts", None)
        assert (ended.metric, ended.expression, ended.abort_on_fail) == ("provision_success", "rate>0.9", True)
        assert ended.aborted_at == pytest.approx(EPOCH + 1.5, abs=0.51)


async def test_threshold_does_not_end_the_run_before_its_delay(make: Make, autojump_clock: MockClock) -> None:
    made = make(one_gives_up, THRESHOLD % ', delay_abort_eval = "20s"')

    assert await made.run.execute() is RunStatus.ABORTED
    with made.read() as reader:
        aborted_at = reader.thresholds()[1].aborted_at
    assert aborted_at == pytest.approx(EPOCH + 20, abs=0.51)


async def test_interruption_after_a_threshold_ended_the_devices_is_the_runs_end(
    make: Make, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    made = make(one_gives_up, THRESHOLD % "")
    original = made.accounts.holdings

    async def interrupted(
        client: Any, ca_id: str, wanted: Collection[str] | None, *, with_things: bool
    ) -> list[Holding]:
        if wanted is not None:
            made.run.interrupt()
        return await original(client, ca_id, wanted, with_things=with_things)

    monkeypatch.setattr(module, "holdings", interrupted)

    assert await made.run.execute() is RunStatus.INTERRUPTED
    with made.read() as reader:
        assert {each.device: each.account for each in reader.verdicts()} == {0: None, 1: None}
        assert reader.thresholds()[1].aborted_at is not None


async def test_account_that_does_not_answer_afterwards_is_told_after_the_devices_are_judged(
    make: Make, autojump_clock: MockClock
) -> None:
    made = make(all_well)
    made.accounts.broken = Phase.AFTER

    with pytest.raises(TargetError, match="account 'a' does not answer"):
        await made.run.execute()
    with made.read() as reader:
        assert [(each.device, each.account) for each in reader.verdicts()] == [(0, None), (1, None), (2, None)]
        assert reader.run().status is RunStatus.INTERRUPTED
    assert made.accounts.closed == 2


async def test_setup_that_fails_is_told_and_nothing_is_started(make: Make, autojump_clock: MockClock) -> None:
    made = make(all_well)
    made.accounts.broken = Phase.BEFORE

    with pytest.raises(TargetError, match="does not answer"):
        await made.run.execute()
    assert made.devices.plan is None
    with made.read() as reader:
        assert list(reader.verdicts()) == []


async def test_run_that_is_failed_from_outside_is_judged_and_raises_the_reason(
    make: Make, autojump_clock: MockClock
) -> None:
    made = make(lives_on)
    caught: list[DevicesimError] = []

    async def execute() -> None:
        try:
            await made.run.execute()
        except DevicesimError as exc:
            caught.append(exc)

    reason = TargetError("the emulator has ended")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(execute)
        await trio.sleep(5)
        made.run.fail(reason)

    assert caught == [reason]
    with made.read() as reader:
        assert [each.device for each in reader.verdicts()] == [0]


async def test_devices_that_cannot_be_driven_are_the_users_to_know_of(make: Make, autojump_clock: MockClock) -> None:
    async def gone(devices: Devices) -> None:
        raise ClusterError("worker one takes no devices")

    made = make(gone)
    with pytest.RaisesGroup(ClusterError, flatten_subgroups=True):
        await made.run.execute()
    assert made.accounts.closed == 2


async def test_dropped_starts_and_devices_without_identity_are_on_record(make: Make, autojump_clock: MockClock) -> None:
    async def some(devices: Devices) -> None:
        assert devices.sink is not None
        devices.whole(0)
        devices.sink.failed(1, "first", "no bundle")
        devices.sink.dropped(Drop(device=2, group="first", due=EPOCH + 1))
        await trio.lowlevel.checkpoint()

    made = make(some)
    await made.run.execute()

    progress = made.run.progress
    assert (progress.started, progress.accepted, progress.given_up, progress.dropped) == (2, 1, 1, 1)
    with made.read() as reader:
        assert [each.device for each in reader.verdicts()] == [0]
        assert [each.device for each in reader.drops()] == [2]
        assert [each.text for each in reader.notes() if each.kind == "error"] == ["not started: no bundle"]


async def test_whole_run_of_real_devices_in_this_process(
    make: Make, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """All but accounts and network is as it is: minting, schedule, retries, stay, messages, record, verdicts."""
    net = FakeNet(lambda name: [refused(), Session(lost_after=3.0)] if name == "walk-000001" else [refused()])
    monkeypatch.setattr(device_module, "open_mqtt", net)
    made = make(
        all_well, '[arrival]\nrate = "2/s"', "[groups.first.telemetry]\nevery = 1", "[session]\nhold = 5", driver=None
    )
    made.accounts.held = ()
    original = made.accounts.holdings

    async def everything(
        client: Any, ca_id: str, wanted: Collection[str] | None, *, with_things: bool
    ) -> list[Holding]:
        made.accounts.held = wanted or ()
        return await original(client, ca_id, wanted, with_things=with_things)

    monkeypatch.setattr(module, "holdings", everything)

    assert await made.run.execute() is RunStatus.FINISHED
    progress = made.run.progress
    assert (progress.started, progress.accepted, progress.given_up, progress.waiting) == (9, 9, 0, 0)
    assert (progress.attempts, progress.connected) == (19, 0)
    with made.read() as reader:
        assert [each.agrees for each in reader.verdicts()] == [True] * 9
        attempts = list(reader.attempts())
        assert len(attempts) == 19
        assert progress.published == sum(each.published or 0 for each in attempts) == 6 * 5 - 2
        assert sum(each.starts for each in reader.samples()) == 9
        due = [each.intended_start for each in attempts if each.number == 1]
        assert due == pytest.approx([EPOCH + module.LEAD_SECONDS + n / 2 for n in range(9)])


@pytest.mark.parametrize(
    ("arrival", "rate", "model", "schedule"),
    [
        ("", 50.0, "open", "50 starts/s"),
        ('[arrival]\nmodel = "closed"\nconcurrency = 2', None, "closed", "closed, 2 at a time"),
        ("[arrival]\nburst = {}\nlate_after = 0.5\ntolerance = 0.1", None, "open", "all 9 at once"),
    ],
)
def test_record_says_what_load_was_asked_for(arrival: str, rate: float | None, model: str, schedule: str) -> None:
    fleet = fleet_of(arrival)

    facts = run_facts(fleet, target="aws", version="1", started_at=5.0)

    assert (facts.rate, facts.arrival, facts.schedule) == (rate, model, schedule)
    assert (facts.late_after, facts.late_tolerance) == ((0.5, 0.1) if "late_after" in arrival else (1.0, 0.01))
    assert (facts.fleet, facts.fleet_file, facts.status) == ("walk", fleet.text, RunStatus.RUNNING)
