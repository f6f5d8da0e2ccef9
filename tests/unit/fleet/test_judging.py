"""The verdicts of a run, out of its record."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devicesim.fleet import world as world_module
from devicesim.fleet.judging import verdicts
from devicesim.fleet.spec import Fleet
from devicesim.fleet.world import user_expectation
from devicesim.outcome import Attempt, DeviceOutcome, Failure, Holding, Stage, Verdict
from devicesim.record.facts import DeviceRecord, Drop, Phase, RunFacts
from devicesim.record.store import RunReader, RunWriter
from devicesim.record.verdict import DeviceFacts, judge
from devicesim.rules import Expectation, expect
from tests.fleet_support import EPOCH, fleet_of, refused, world_of

RUN = RunFacts(fleet="walk", fleet_file="", version="0", target="emulator", started_at=EPOCH)
SHARED = """
version = 1
name = "moved"

[accounts.a]
id = "111111111111"
region = "eu-west-1"
ca_mode = "SNI_ONLY"
provisioning = "JITP"

[accounts.b]
id = "222222222222"
region = "eu-west-1"
ca_mode = "SNI_ONLY"
provisioning = "JITP"

[groups.first]
count = 2
account = "a"

[groups.second]
count = 2
account = "b"
first_index = 0
"""
"""Two groups that are the same devices, moved from one account to another."""


class Record:
    """A run's record that is made up here."""

    def __init__(self, path: Path, fleet: Fleet) -> None:
        self.path, self.fleet, self.world = path, fleet, world_of(fleet)
        self.writer = RunWriter.create(path, RUN)
        self.devices: dict[int, DeviceRecord] = {}
        self.attempts: dict[int, list[Attempt]] = {}
        self.holdings: dict[Phase, list[Holding]] = {Phase.BEFORE: [], Phase.AFTER: []}
        for name in fleet.file.accounts:
            self.writer.add_account(self.world.account_record(name), now=EPOCH)
        for name in fleet.file.groups:
            self.writer.add_group(self.world.group_record(name), now=EPOCH)

    def device(self, number: int, group: str, certificate: str, *failures: Failure | None, held: bool = False) -> None:
        """A device, and what its tries saw; ``None``: CONNACK 0."""
        known = tuple(each for each in self.holdings[Phase.BEFORE] if each.certificate_id == certificate)
        device = self.devices[number] = DeviceRecord(
            number=number,
            index=number,
            group=group,
            client_id=f"d-{number}",
            certificate_id=certificate,
            expectation=self.world.expectation(group, known) if held else None,
        )
        self.writer.add_device(device, now=EPOCH)
        self.attempts[number] = []
        for count, failure in enumerate(failures):
            start = EPOCH + number + 10 * count
            attempt = Attempt(
                device=number,
                number=count + 1,
                account=None,
                sni=None
                if group == "no-sni"
                else f"{self.fleet.file.groups[group].account}-ats.iot.eu-west-1.localhost",
                intended_start=start,
                start=start + 0.125,
                end=start + 1,
                reached={Stage.TCP: 0.1, **({Stage.CONNACK: 0.5} if failure is None else {})},
                failure=failure,
                tls_version=None,
                cipher=None,
                alert=None,
                connack_code=0 if failure is None else None,
            )
            self.attempts[number].append(attempt)
            self.writer.add_attempt(attempt, now=EPOCH)

    def held(self, phase: Phase, account: str, *certificates: str, status: str = "ACTIVE", thing: str = "t") -> None:
        made = [
            Holding(account=account, certificate_id=each, status=status, mode="SNI_ONLY", things=(thing,))
            for each in certificates
        ]
        self.holdings[phase] += made
        self.writer.add_holdings(phase, account, made, now=EPOCH)

    def verdicts(self, *, unfinished: Collection[int] = (), asked: bool = True) -> dict[int, Verdict]:
        self.writer.flush()
        with RunReader(self.path) as reader, reader.snapshot():
            found = list(verdicts(reader, self.world, unfinished=unfinished, asked=asked))
        assert [each.device for each in found] == sorted(each.device for each in found)
        return {each.device: each for each in found}

    def judged(self, number: int, *, elsewhere: Collection[str] = (), asked: bool = True) -> Verdict:
        """What :func:`judge` says of one device, told by hand."""
        device = self.devices[number]
        group = self.fleet.file.groups[device.group]
        before = [each for each in self.holdings[Phase.BEFORE] if each.certificate_id == device.certificate_id]
        return judge(
            DeviceFacts(
                device=number,
                certificate_id=device.certificate_id,
                addressed=self.world.addressed(device.group),
                expected_elsewhere=frozenset(elsewhere),
                abroad=self.world.abroad(device.group),
            ),
            self.attempts[number],
            self.holdings[Phase.AFTER] if asked else None,
            device.expectation or self.world.expectation(device.group),
            user_expectation(group),
            before=before,
        )


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    made = Record(tmp_path / "run.sqlite", fleet_of(text=SHARED))
    with made.writer:
        yield made


def test_each_device_is_judged_by_its_own_tries_and_its_own_certificate(record: Record) -> None:
    record.device(0, "first", "c0", refused(), None)
    record.device(1, "second", "c1", refused(), None)
    record.device(2, "first", "c2", refused(), refused(), refused())
    record.device(3, "second", "c3", None)
    record.held(Phase.AFTER, "a", "c0", "c3")
    record.held(Phase.AFTER, "a", "c2", status="PENDING_ACTIVATION")
    record.held(Phase.AFTER, "b", "c1")

    found = record.verdicts()

    assert found == {number: record.judged(number) for number in range(4)}
    assert [each.outcome for each in found.values()] == [
        DeviceOutcome.PROVISIONED,
        DeviceOutcome.PROVISIONED,
        DeviceOutcome.PENDING,
        DeviceOutcome.PROVISIONED,
    ]
    assert [each.agrees for each in found.values()] == [True, True, False, False]
    assert [each.account for each in found.values()] == ["a", "b", "a", "a"]
    assert found[0].time_to_provision == 10.625


def test_order_in_which_devices_were_recorded_does_not_matter(record: Record) -> None:
    for number in (3, 0, 2, 1):
        record.device(number, "first", f"c{number}", *[refused()] * number, None)
    record.held(Phase.AFTER, "a", "c0", "c1", "c2", "c3")

    assert record.verdicts() == {number: record.judged(number) for number in range(4)}


def test_devices_that_were_cut_short_get_no_verdict(record: Record) -> None:
    record.device(0, "first", "c0", refused(), None)
    record.device(1, "first", "c1", refused())
    record.device(2, "first", "c2")
    record.device(3, "first", "c3", refused(), None)
    record.held(Phase.AFTER, "a", "c0", "c1", "c3")

    found = record.verdicts(unfinished={1, 2})

    assert found == {0: record.judged(0), 3: record.judged(3)}


def test_dropped_starts_get_no_verdict(record: Record) -> None:
    record.device(0, "first", "c0", refused(), None)
    record.writer.add_drop(Drop(device=1, group="first", due=EPOCH), now=EPOCH)
    record.held(Phase.AFTER, "a", "c0")

    assert list(record.verdicts()) == [0]


def test_run_without_devices_has_no_verdicts(record: Record) -> None:
    assert record.verdicts() == {}


def test_accounts_that_were_not_asked_are_not_taken_for_accounts_that_hold_nothing(record: Record) -> None:
    record.device(0, "first", "c0", refused(), None)
    record.held(Phase.AFTER, "a")

    unasked, asked = record.verdicts(asked=False)[0], record.verdicts()[0]

    assert unasked == record.judged(0, asked=False)
    assert (unasked.outcome, unasked.account) == (DeviceOutcome.PROVISIONED, None)
    assert asked.outcome is DeviceOutcome.FAILED


def test_devices_with_the_same_certificate_are_told_of_each_other(record: Record) -> None:
    """The same robots in two accounts: a record in the other's account is the other's doing."""
    record.device(0, "first", "c0", refused(), None)
    record.device(1, "second", "c0", refused(), None)
    record.held(Phase.AFTER, "a", "c0")
    record.held(Phase.AFTER, "b", "c0")

    found = record.verdicts()

    assert found == {0: record.judged(0, elsewhere={"b"}), 1: record.judged(1, elsewhere={"a"})}
    assert [each.agrees for each in found.values()] == [True, True]
    assert not record.judged(0).agrees, "unless it is told of the other, the record is a stray one"


def test_record_where_nobody_is_expected_is_a_stray_one_also_of_a_shared_certificate(record: Record) -> None:
    record.device(0, "first", "c0", refused(), None)
    record.device(1, "first", "c0", refused(), None)
    record.held(Phase.AFTER, "a", "c0")
    record.held(Phase.AFTER, "b", "c0")

    found = record.verdicts()

    assert found == {number: record.judged(number, elsewhere={"a"}) for number in (0, 1)}
    assert ["also registered in b" in each.reason for each in found.values()] == [True, True]


def test_device_is_not_excused_by_its_own_expectation(record: Record) -> None:
    """Accepted at once: of the two only the first is expected in ``a``, so that it was not the other who was first."""
    record.device(0, "first", "c0", None)
    record.device(1, "second", "c0", refused(), None)
    record.held(Phase.AFTER, "a", "c0")
    record.held(Phase.AFTER, "b", "c0")

    found = record.verdicts()

    assert found == {0: record.judged(0, elsewhere={"b"}), 1: record.judged(1, elsewhere={"a"})}
    assert "accepted on the first try, which IoT Core drops" in found[0].reason


def test_record_that_was_there_before_is_not_a_stray_one(record: Record) -> None:
    record.held(Phase.BEFORE, "b", "c0")
    record.device(0, "first", "c0", refused(), None, held=True)
    record.held(Phase.AFTER, "a", "c0")
    record.held(Phase.AFTER, "b", "c0")

    found = record.verdicts()

    assert found == {0: record.judged(0)}
    assert (found[0].agrees, found[0].account) == (True, "a")


def test_unfinished_device_counts_for_those_with_its_certificate(record: Record) -> None:
    record.device(0, "first", "c0", refused(), None)
    record.device(1, "second", "c0", refused())
    record.held(Phase.AFTER, "a", "c0")
    record.held(Phase.AFTER, "b", "c0", status="PENDING_ACTIVATION")

    found = record.verdicts(unfinished={1})

    assert found == {0: record.judged(0, elsewhere={"b"})}
    assert found[0].agrees


def test_certificate_that_was_known_before_is_judged_by_what_is_then_expected(record: Record) -> None:
    record.held(Phase.BEFORE, "a", "c0")
    record.device(0, "first", "c0", None, held=True)
    record.device(1, "first", "c1", None)
    record.held(Phase.AFTER, "a", "c0", "c1")

    found = record.verdicts()

    assert found == {0: record.judged(0), 1: record.judged(1)}
    assert found[0].agrees
    assert "accepted on the first try, which IoT Core drops" in found[1].reason


def test_oracle_is_asked_once_for_all_whose_certificates_were_known_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a thing and an id of its own, on which nothing hangs; where it stands, and how, is the oracle's."""
    asked = []

    def counted(views: object, **options: object) -> Expectation:
        asked.append(views)
        return expect(views, **options)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(world_module, "expect", counted)
    world = world_of(fleet_of(text=SHARED))

    def held(number: int, **changes: str) -> Holding:
        made = Holding(
            account="a", certificate_id=f"c{number}", status="ACTIVE", mode="SNI_ONLY", things=(f"t{number}",)
        )
        return replace(made, **changes)  # type: ignore[arg-type]  # texts all

    alike = [world.expectation("first", (held(number),)) for number in range(50)]
    assert (len(asked), {each.account for each in alike}) == (1, {"a"})
    assert alike == [alike[0]] * 50
    others = [
        world.expectation("first"),
        world.expectation("first", (held(0, status="INACTIVE"),)),
        world.expectation("first", (held(0, mode="DEFAULT"),)),
        world.expectation("first", (held(0, account="b"),)),
        world.expectation("first", (held(0), held(0, account="b"))),
        world.expectation("second", (held(0),)),
    ]
    assert len(asked) == 1 + len(others)
    fresh = world_of(fleet_of(text=SHARED))
    assert alike[7] == fresh.expectation("first", (held(7),))
    assert [others[1], others[5]] == [
        fresh.expectation("first", (held(9, status="INACTIVE"),)),
        fresh.expectation("second", (held(9),)),
    ]


def test_users_own_expectation_counts(tmp_path: Path) -> None:
    fleet = fleet_of('[groups.first.expect]\noutcome = "refused"', text=SHARED)
    record = Record(tmp_path / "run.sqlite", fleet)
    with record.writer:
        record.device(0, "first", "c0", refused(), refused())
        record.device(1, "second", "c1", refused(), refused())
        record.held(Phase.AFTER, "a")
        record.held(Phase.AFTER, "b")

        found = record.verdicts()

    assert found == {0: record.judged(0), 1: record.judged(1)}
    assert [each.agrees for each in found.values()] == [True, False]


def test_one_device_at_a_time_is_in_memory(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        record.device(number, "first", f"c{number}", refused(), None)
    record.held(Phase.AFTER, "a", *(f"c{number}" for number in range(50)))
    record.writer.flush()
    read = {"devices": 0, "attempts": 0}

    def counted(name: str) -> None:
        original = getattr(RunReader, name)

        def reading(self: RunReader) -> Iterator[object]:
            for each in original(self):
                read[name] += 1
                yield each

        monkeypatch.setattr(RunReader, name, reading)

    counted("devices")
    counted("attempts")
    with RunReader(record.path) as reader:
        for n, _ in enumerate(verdicts(reader, record.world, unfinished=(), asked=True), 1):
            assert read["devices"] == n
            assert read["attempts"] <= 2 * n + 1

    assert read == {"devices": 50, "attempts": 100}
