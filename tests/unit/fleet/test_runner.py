"""One run: how it ends, and what is then on record. The accounts and the devices are made up."""

import json
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from devicesim.cli import running
from devicesim.cli.options import RECORD_NAME
from devicesim.cli.output import EXIT_INTERRUPTED
from devicesim.cli.processes import Processes
from devicesim.cli.running import RunOptions
from devicesim.cli.target import TargetOptions
from devicesim.cloud.account import AccountAccess
from devicesim.errors import ClusterError, DevicesimError, KeyMaterialError, TargetError
from devicesim.fleet import autorate
from devicesim.fleet import device as device_module
from devicesim.fleet import runner as module
from devicesim.fleet.device import Clock
from devicesim.fleet.judging import verdicts
from devicesim.fleet.pacing import slots
from devicesim.fleet.runner import Run, run_facts
from devicesim.fleet.shard import ShardPlan, Sink, Started
from devicesim.fleet.spec import Fleet
from devicesim.fleet.target import Target, accesses
from devicesim.outcome import Attempt, DeviceOutcome, Failure, Holding, Stage, Verdict
from devicesim.record.facts import Drop, Phase, RunStatus
from devicesim.record.store import RunReader, RunWriter
from devicesim.record.thresholds import Threshold
from devicesim.report.summary import summarise
from tests.fleet_support import EPOCH, FLEET, FakeNet, Session, endpoints, fleet_of, material, refused

ALL = [f"certificate-{n}" for n in range(9)]


@dataclass
class Accounts:
    """The control planes: account ``a`` holds these certificates afterwards."""

    fleet: Fleet
    held: Collection[str] = ()
    asked: list[tuple[str, Collection[str] | None]] = field(default_factory=list)
    set_up: list[str] = field(default_factory=list)
    closed: int = 0
    rested: list[str] = field(default_factory=list)
    broken: Phase | None = None
    silent: Collection[str] = ("a",)
    """Those that do not answer in that phase."""

    def client(self, access: AccountAccess) -> Any:
        accounts = self

        class Client:
            def __init__(self) -> None:
                self.access = access

            async def check_identity(self) -> None:
                await trio.lowlevel.checkpoint()

            def rest(self) -> None:
                accounts.rested.append(access.name)

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
        self, client: Any, ca_id: str, wanted: Collection[str] | None, *, things: int | None
    ) -> list[Holding]:
        del ca_id, things
        await trio.lowlevel.checkpoint()
        phase = Phase.BEFORE if wanted is None else Phase.AFTER
        self.asked.append((client.access.name, wanted))
        if phase is self.broken and client.access.name in self.silent:
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
        start = EPOCH + trio.current_time() + 10.0 * (attempt - 1)
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

    def made(script: Script, *more: str, held: Collection[str] = ALL, text: str = FLEET, **options: Any) -> Made:
        fleet = fleet_of(*more, text=text)
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
    assert made.accounts.rested == ["a", "b"]
    assert sorted(name for name, wanted in made.accounts.asked if wanted is None) == ["a", "b"]
    assert sorted(name for name, wanted in made.accounts.asked if wanted == set(ALL[:3])) == ["a", "b"]
    assert len(made.accounts.asked) == 4
    with made.read() as reader:
        assert (reader.run().status, reader.run().ended_at) == (RunStatus.FINISHED, EPOCH + 3)
        assert [(each.device, each.agrees, each.account) for each in reader.verdicts()] == [
            (0, True, "a"),
            (1, True, "a"),
            (2, True, "a"),
        ]
        assert reader.asked(Phase.BEFORE) == reader.asked(Phase.AFTER) == {"a", "b"}
        assert [(each.kind, each.text, each.account) for each in reader.notes()] == [
            ("setup", "registered the CA", "a"),
            ("setup", "registered the CA", "b"),
        ]


@pytest.mark.parametrize(("prepare", "rested"), [(True, ["b"]), (False, ["a", "b"])])
async def test_account_whose_certificates_are_activated_meanwhile_does_not_rest(
    make: Make, *, prepare: bool, rested: list[str]
) -> None:
    """Its activator asks it for them while devices run, which is no time to read boto3's models."""
    made = make(all_well, text=FLEET.replace('"JITP"', '"JITR"', 1), prepare=prepare)

    made.run._rest_clients()

    assert made.accounts.rested == rested


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


@pytest.mark.parametrize(
    ("only", "counts"),
    [
        (None, {"first": 6, "second": 3}),
        ([2, 3, 4, 5, 6], {"first": 4, "second": 1}),
        ([1], {"second": 1}),
        ([0, 8], {"first": 2}),
    ],
)
async def test_groups_on_record_have_the_devices_that_are_to_start(
    make: Make, autojump_clock: MockClock, only: list[int] | None, counts: dict[str, int]
) -> None:
    """So that a part of a fleet, such as a trial of a search, is reported as what it is."""

    async def none(_: Devices) -> None:
        await trio.lowlevel.checkpoint()

    made = make(none, only=only)
    await made.run.execute()

    by_group = {slot.device: slot.group for slot in slots({"first": 6, "second": 3})}
    assert Counter(by_group[number] for number in (range(9) if only is None else only)) == counts
    with made.read() as reader:
        assert {each.name: each.count for each in reader.groups()} == counts
        summary = summarise(reader)
    assert (summary.totals.devices, summary.totals.not_started) == (sum(counts.values()),) * 2


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


async def test_interrupted_run_judges_who_came_to_an_end_and_who_was_accepted(
    make: Make, autojump_clock: MockClock
) -> None:
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
        assert [(each.device, each.outcome, each.account) for each in reader.verdicts()] == [
            (0, DeviceOutcome.PROVISIONED, None),
            (1, DeviceOutcome.PROVISIONED, None),
        ]
        assert [each.device for each in reader.attempts()] == [0, 0, 1]
        assert [each.number for each in reader.devices()] == [0, 1, 2]


async def test_run_that_is_interrupted_while_devices_stay_judges_those_that_were_accepted(
    make: Make, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Real devices: four are connected for long, one lost its connection, one waits for its third try."""
    scripts: dict[str, list[Failure | Session]] = {
        "walk-000001": [refused(), Session(lost_after=4.0)],
        "walk-000002": [refused()] * 2,
    }
    monkeypatch.setattr(device_module, "open_mqtt", FakeNet(lambda name: scripts.get(name, [refused()])))
    text = FLEET.replace("first_delay = [2, 2]", "first_delay = [3, 3]")
    made = make(
        all_well, "[arrival]\nburst = { size = 6, every = 12 }", "[session]\nhold = 3600", text=text, driver=None
    )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run.execute)
        await trio.sleep(10.0)
        made.run.interrupt()

    progress = made.run.progress
    assert (progress.started, progress.accepted, progress.connected, progress.given_up) == (6, 5, 4, 0)
    with made.read() as reader:
        assert reader.run().status is RunStatus.INTERRUPTED
        number = {each.client_id: each.number for each in reader.devices()}
        told = {each.device: each for each in reader.verdicts()}
    assert sorted(told) == sorted(set(range(6)) - {number["walk-000002"]})
    assert {each.outcome for each in told.values()} == {DeviceOutcome.PROVISIONED}
    assert [each.time_to_provision for each in told.values()] == pytest.approx([4.0] * 5)


@dataclass
class Judging:
    """Judges as ever, and has something happen in the midst of it."""

    after: int
    then: Callable[[], None]
    made: int = 0

    def __call__(self, *given: Any, **options: Any) -> Iterator[Verdict]:
        for verdict in verdicts(*given, **options):
            self.made += 1
            if self.made == self.after:
                self.then()
            yield verdict


async def all_nine(devices: Devices) -> None:
    for number in range(9):
        devices.whole(number)
    await trio.lowlevel.checkpoint()


async def test_run_that_is_ended_while_it_judges_ends_within_a_few_verdicts(
    make: Make, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    made, scope = make(all_nine), trio.CancelScope()
    judging = Judging(after=5, then=scope.cancel)
    monkeypatch.setattr(module, "verdicts", judging)
    monkeypatch.setattr(module, "VERDICTS_AT_ONCE", 3)

    with scope:
        await made.run.execute()

    assert (scope.cancelled_caught, judging.made, made.accounts.closed) == (True, 7, 2)
    assert made.run.progress.phase == "judging"
    with made.read() as reader:
        assert reader.run().status is RunStatus.INTERRUPTED
        assert [each.device for each in reader.verdicts()] == list(range(7))
        assert len(list(reader.attempts())) == 18


async def test_run_that_is_interrupted_while_it_judges_judges_all(
    make: Make, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    made = make(all_nine)
    monkeypatch.setattr(module, "verdicts", Judging(after=5, then=made.run.interrupt))
    monkeypatch.setattr(module, "VERDICTS_AT_ONCE", 3)

    assert await made.run.execute() is RunStatus.INTERRUPTED
    with made.read() as reader:
        assert [(each.device, each.agrees) for each in reader.verdicts()] == [(n, True) for n in range(9)]


@pytest.mark.parametrize(("presses", "judged"), [(1, 9), (2, 6)])
async def test_first_ctrl_c_judges_and_the_second_ends_that_too(
    presses: int,
    judged: int,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command, with its signals, but for the target."""

    def press() -> None:
        signal.raise_signal(signal.SIGINT)

    async def interrupted(devices: Devices) -> None:
        await all_nine(devices)
        press()
        await trio.sleep_forever()

    made = make(interrupted)
    judging = Judging(after=2 if presses == 2 else 0, then=press)
    monkeypatch.setattr(module, "verdicts", judging)
    monkeypatch.setattr(module, "VERDICTS_AT_ONCE", 1)

    async def opened(*_: object) -> object:
        await trio.lowlevel.checkpoint()
        return made.run._target, None

    async def driver(*_: object) -> Devices:
        await trio.lowlevel.checkpoint()
        return made.devices

    monkeypatch.setattr(running._One, "_open", opened)
    monkeypatch.setattr(Processes, "driver", driver)
    target = TargetOptions.of("emulator", None, None, None)
    options = RunOptions(target=target, directory=tmp_path / "command", quiet=True, as_json=True)

    assert await running.main(fleet_of(), material(), options) == EXIT_INTERRUPTED
    told = capsys.readouterr()
    assert ("once more to stop at once" in told.err, "what was recorded is in" in told.err) == (True, presses == 2)
    assert judging.made == judged if presses == 1 else judging.made < judged
    with RunReader(tmp_path / "command" / RECORD_NAME) as reader:
        assert reader.run().status is RunStatus.INTERRUPTED
        assert len(list(reader.verdicts())) == judging.made


async def test_ctrl_c_between_two_trials_of_a_search_starts_no_device_of_the_next(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """While more processes are started for it, which takes seconds."""
    driven: list[frozenset[int] | None] = []

    async def all_of_it(devices: Devices) -> None:
        assert devices.plan is not None
        driven.append(devices.plan.only)
        await trio.sleep(1)
        for number in sorted(devices.plan.only or ()):
            devices.whole(number)

    made = make(all_of_it)

    async def opened(*_: object) -> object:
        await trio.lowlevel.checkpoint()
        return made.run._target, None

    async def driver(*_: object) -> Devices:
        if driven:
            signal.raise_signal(signal.SIGINT)
        await trio.sleep(1)
        return Devices(all_of_it)

    monkeypatch.setattr(running._One, "_open", opened)
    monkeypatch.setattr(Processes, "driver", driver)
    monkeypatch.setattr(autorate, "LEAST_DEVICES", 2)
    options = RunOptions(
        target=TargetOptions.of("emulator", None, None, None),
        directory=tmp_path / "search",
        quiet=True,
        as_json=True,
        goal=Threshold.parse("time_to_provision", "p(95)<60s"),
        trial_seconds=1.0,
        first_rate=2.0,
    )
    options.directory.mkdir()

    assert await running.main(fleet_of(), material(), options) == EXIT_INTERRUPTED
    assert driven == [frozenset({0, 1})]
    found = json.loads(capsys.readouterr().out)
    assert (found["ended"], [each["outcome"] for each in found["trials"]]) == ("interrupted", ["taken"])
    with RunReader(tmp_path / "search" / "trial-02" / RECORD_NAME) as reader:
        assert (reader.run().status, list(reader.devices())) == (RunStatus.INTERRUPTED, [])


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
        # the third is connected: accepted at once, of a certificate that nobody knew
        assert {each.device: each.agrees for each in reader.verdicts()} == {0: True, 1: False, 2: False}
        assert {each.device: each.account for each in reader.verdicts()} == {0: "a", 1: None, 2: "a"}
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


async def test_time_before_the_first_start_is_no_part_of_a_thresholds_delay(
    make: Make, autojump_clock: MockClock
) -> None:
    """Workers are mustered and devices minted first."""

    async def after_a_while(devices: Devices) -> None:
        await trio.sleep(40)
        await one_gives_up(devices)

    made = make(after_a_while, THRESHOLD % ', delay_abort_eval = "20s"')

    assert await made.run.execute() is RunStatus.ABORTED
    with made.read() as reader:
        aborted_at = reader.thresholds()[1].aborted_at
    assert aborted_at == pytest.approx(EPOCH + 60, abs=0.51)


async def test_counters_rate_is_that_of_the_time_since_the_first_start(make: Make, autojump_clock: MockClock) -> None:
    """Two tries a second from the 40th second on, which over the whole run are far fewer."""

    async def after_a_while(devices: Devices) -> None:
        await trio.sleep(40)
        for number in range(9):
            devices.whole(number)
            await trio.sleep(1)

    made = make(after_a_while, '[thresholds]\nattempts = [{ threshold = "rate>1.5", abort_on_fail = true }]')

    assert await made.run.execute() is RunStatus.FINISHED


async def test_starts_that_are_dropped_end_the_run_also_before_any_device_has_told_of_a_try(
    make: Make, autojump_clock: MockClock
) -> None:
    """A server that swallows what it is sent: each try takes as long as its deadlines."""

    async def swallowed(devices: Devices) -> None:
        assert devices.sink is not None
        await trio.sleep(40)
        devices.start(0)
        await trio.sleep(2)
        devices.sink.dropped(Drop(device=1, group="first", due=EPOCH + 42))
        await trio.sleep_forever()

    made = make(swallowed, '[thresholds]\ndropped_starts = [{ threshold = "count<1", abort_on_fail = true }]')

    assert await made.run.execute() is RunStatus.ABORTED
    with made.read() as reader:
        assert reader.thresholds()[0].aborted_at == pytest.approx(EPOCH + 42, abs=0.51)


async def test_rate_that_is_too_low_from_the_first_start_on_ends_the_run(make: Make, autojump_clock: MockClock) -> None:
    async def one_only(devices: Devices) -> None:
        await trio.sleep(40)
        devices.whole(0)
        await trio.sleep_forever()

    made = make(one_only, '[thresholds]\nattempts = [{ threshold = "rate>0.1", abort_on_fail = true }]')

    assert await made.run.execute() is RunStatus.ABORTED
    with made.read() as reader:
        assert reader.thresholds()[0].aborted_at == pytest.approx(EPOCH + 40 + 20, abs=0.51)


async def test_interruption_after_a_threshold_ended_the_devices_is_the_runs_end(
    make: Make, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    made = make(one_gives_up, THRESHOLD % "")
    original = made.accounts.holdings

    async def interrupted(
        client: Any, ca_id: str, wanted: Collection[str] | None, *, things: int | None
    ) -> list[Holding]:
        if wanted is not None:
            made.run.interrupt()
        return await original(client, ca_id, wanted, things=things)

    monkeypatch.setattr(module, "holdings", interrupted)

    assert await made.run.execute() is RunStatus.INTERRUPTED
    with made.read() as reader:
        assert {each.device: each.account for each in reader.verdicts()} == {0: None, 1: None, 2: None}
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
        assert reader.asked(Phase.AFTER) == {"b"}, "it is asked all the same"
    assert made.accounts.closed == 2


async def test_each_account_that_does_not_answer_afterwards_is_told(make: Make, autojump_clock: MockClock) -> None:
    made = make(all_well)
    made.accounts.broken, made.accounts.silent = Phase.AFTER, {"a", "b"}

    with pytest.raises(TargetError, match="account 'a' does not answer"):
        await made.run.execute()
    with made.read() as reader:
        # the first is raised, and noted by whoever catches it
        told = [(each.account, each.text) for each in reader.notes() if each.kind == "error"]
        assert told == [("b", "account 'b' does not answer")]
        assert reader.asked(Phase.AFTER) == set()


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
        assert [each.device for each in reader.verdicts()] == [0, 1]


@pytest.mark.parametrize(
    "error",
    [
        ClusterError("worker one takes no devices"),
        KeyMaterialError("bundle 7.pem holds no private key"),
        TargetError("account 'a' does not answer"),
    ],
)
async def test_devices_that_cannot_be_driven_on_are_judged_and_the_reason_is_raised(
    error: DevicesimError, make: Make, autojump_clock: MockClock
) -> None:
    async def gone(devices: Devices) -> None:
        devices.whole(0)
        devices.start(1)
        devices.tried(1, accepted=True, live=True)
        devices.start(2)
        devices.tried(2)
        await trio.sleep(5)
        raise error

    made = make(gone)
    with pytest.raises(type(error)) as caught:
        await made.run.execute()

    assert caught.value is error
    assert made.accounts.closed == 2
    assert [each for each in made.accounts.asked if each[1] is not None] == []
    with made.read() as reader:
        assert [(each.device, each.account) for each in reader.verdicts()] == [(0, None), (1, None)]
        assert reader.run().status is RunStatus.INTERRUPTED


async def test_mistake_of_ours_in_a_driver_is_not_taken_for_the_runs_end(make: Make, autojump_clock: MockClock) -> None:
    async def broken(devices: Devices) -> None:
        devices.whole(0)
        raise ZeroDivisionError

    made = make(broken)
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        await made.run.execute()

    assert made.accounts.closed == 2
    with made.read() as reader:
        assert list(reader.verdicts()) == []


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
    net = FakeNet(
        lambda name: [refused(), Session(lost_after=2.0)] if name == "walk-000001" else [refused()], seconds=1.0
    )
    monkeypatch.setattr(device_module, "open_mqtt", net)
    made = make(
        all_well, '[arrival]\nrate = "2/s"', "[groups.first.telemetry]\nevery = 1", "[session]\nhold = 6", driver=None
    )
    made.accounts.held = ()
    original = made.accounts.holdings

    async def everything(
        client: Any, ca_id: str, wanted: Collection[str] | None, *, things: int | None
    ) -> list[Holding]:
        made.accounts.held = wanted or ()
        return await original(client, ca_id, wanted, things=things)

    monkeypatch.setattr(module, "holdings", everything)

    assert await made.run.execute() is RunStatus.FINISHED
    progress = made.run.progress
    assert (progress.started, progress.accepted, progress.given_up, progress.waiting) == (9, 9, 0, 0)
    assert (progress.attempts, progress.connected) == (19, 0)
    with made.read() as reader:
        assert [each.agrees for each in reader.verdicts()] == [True] * 9
        attempts = list(reader.attempts())
        assert len(attempts) == 19
        assert progress.published == sum(each.published or 0 for each in attempts) == 6 * 6 - 3
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
