"""From what devices tell to the record, the progress and the thresholds."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.fleet.recording import Progress, Recording
from devicesim.fleet.shard import Started
from devicesim.fleet.spec import Fleet
from devicesim.outcome import Attempt, DeviceOutcome, Holding, Stage
from devicesim.record.facts import Drop, RunFacts
from devicesim.record.store import RunReader, RunWriter
from devicesim.record.thresholds import LiveThresholds, Threshold
from tests.fleet_support import EPOCH, LOST, fleet_of, refused, world_of

RUN = RunFacts(fleet="walk", fleet_file="", version="0", target="emulator", started_at=EPOCH)
NOW = EPOCH + 5.0


@dataclass
class Watching(LiveThresholds):
    """What the thresholds are told."""

    told: list[tuple[Any, ...]] = field(default_factory=list)
    watches = True

    def started(self, tags: Any, late: float) -> None:
        self.told.append(("started", tags.group, tags.account, pytest.approx(late)))

    def dropped(self, tags: Any) -> None:
        self.told.append(("dropped", tags.group, tags.account))

    def attempt(self, tags: Any, attempt: Attempt, former: Attempt | None = None) -> None:
        self.told.append(("attempt", tags.group, attempt.number, former and former.published))

    def finished(self, tags: Any, *, should_provision: bool, time_to_provision: float | None) -> None:
        seconds = time_to_provision if time_to_provision is None else pytest.approx(time_to_provision)
        self.told.append(("finished", tags.group, should_provision, seconds))


@dataclass
class Run:
    """A run whose devices are made up here."""

    path: Path
    writer: RunWriter
    recording: Recording
    progress: Progress
    watching: Watching

    def start(self, number: int, *, group: str = "first", member: int | None = None, held: bool = False) -> None:
        self.recording.started(
            Started(
                number=number,
                group=group,
                member=number if member is None else member,
                client_id=f"walk-{number}",
                certificate_id="held" if held else f"certificate-{number}",
            )
        )

    def counts(self) -> dict[str, int]:
        names = ("started", "attempts", "accepted", "connected", "given_up", "dropped", "published", "waiting")
        return {name: getattr(self.progress, name) for name in names if getattr(self.progress, name)}

    @contextmanager
    def read(self) -> Iterator[RunReader]:
        self.writer.flush()
        with RunReader(self.path) as reader:
            yield reader


@contextmanager
def running(
    path: Path, fleet: Fleet | None = None, before: Mapping[str, tuple[Holding, ...]] | None = None
) -> Iterator[Run]:
    fleet = fleet or fleet_of()
    world, progress, watching = world_of(fleet), Progress(total=fleet.size), Watching()
    with RunWriter.create(path, RUN) as writer:
        for name in fleet.file.accounts:
            writer.add_account(world.account_record(name), now=NOW)
        for name in fleet.file.groups:
            writer.add_group(world.group_record(name), now=NOW)
        recording = Recording(
            fleet, world, before or {}, writer=writer, progress=progress, live=watching, now=lambda: NOW
        )
        yield Run(path, writer, recording, progress, watching)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with running(tmp_path / "run.sqlite") as made:
        yield made


def tried(device: int, number: int = 1, *, accepted: bool = False, **changes: Any) -> Attempt:
    start = EPOCH + 10 * number
    attempt = Attempt(
        device=device,
        number=number,
        account=None,
        sni=None,
        intended_start=start - 0.25,
        start=start,
        end=start + 1,
        reached={Stage.TCP: 0.1, Stage.TLS: 0.2, Stage.CONNECT: 0.3, **({Stage.CONNACK: 0.5} if accepted else {})},
        failure=None if accepted else refused(),
        tls_version="TLSv1.3",
        cipher=None,
        alert=None,
        connack_code=0 if accepted else None,
    )
    return replace(attempt, **changes)


def test_device_is_on_record_with_its_index_and_what_differs_from_its_group(tmp_path: Path) -> None:
    holding = Holding(account="b", certificate_id="held", status="ACTIVE", mode="SNI_ONLY")
    with running(tmp_path / "run.sqlite", before={"held": (holding,)}) as run:
        run.start(0)
        run.start(1, group="second", member=2)
        run.start(2, held=True)
        with run.read() as reader:
            one, two, known = reader.devices()

    assert (one.index, one.group, one.client_id, one.certificate_id) == (0, "first", "walk-0", "certificate-0")
    assert (two.index, two.group) == (8, "second")
    assert (one.expectation, two.expectation) == (None, None)
    assert known.expectation == world_of(fleet_of()).expectation("first", (holding,))


def test_attempt_says_in_which_account_the_oracle_expects_the_device(run: Run) -> None:
    run.start(0)
    run.start(1, group="second", member=0)
    run.recording.attempt(tried(0), live=False)
    run.recording.attempt(tried(1), live=False)

    with run.read() as reader:
        assert [each.account for each in reader.attempts()] == ["a", "a"]  # without SNI the DEFAULT account answers


def test_refused_device_that_is_accepted_in_the_end(run: Run) -> None:
    run.start(0)
    assert run.counts() == {"started": 1, "waiting": 1}
    assert run.recording.unfinished == {0}
    run.recording.attempt(tried(0), live=False)
    assert run.counts() == {"started": 1, "waiting": 1, "attempts": 1}
    assert run.recording.unfinished == {0}
    run.recording.attempt(tried(0, 2, accepted=True), live=False)
    assert run.counts() == {"started": 1, "attempts": 2, "accepted": 1}
    assert run.recording.unfinished == frozenset()
    run.recording.finished(0, accepted=True)

    assert run.counts() == {"started": 1, "attempts": 2, "accepted": 1}
    assert run.recording.unfinished == frozenset()
    assert run.watching.told == [
        ("started", "first", "a", 0.25),
        ("attempt", "first", 1, None),
        ("attempt", "first", 2, None),
        ("finished", "first", True, 20 + 0.5 - 9.75),
    ]


def test_device_that_gives_up(run: Run) -> None:
    run.start(0)
    run.recording.attempt(tried(0), live=False)
    run.recording.finished(0, accepted=False)

    assert run.counts() == {"started": 1, "attempts": 1, "given_up": 1}
    assert run.watching.told[-1] == ("finished", "first", True, None)


def test_connection_that_lives_is_one_attempt_told_several_times(run: Run) -> None:
    run.start(0)
    for published, end in ((0, 1), (4, 11), (9, 21)):
        told = tried(0, accepted=True, published=published, acknowledged=published, end=EPOCH + 10 + end)
        run.recording.attempt(told, live=True)
        assert run.counts() == {
            "started": 1,
            "attempts": 1,
            "accepted": 1,
            "connected": 1,
            **({"published": published} if published else {}),
        }
    last = tried(0, accepted=True, published=12, acknowledged=11, end=EPOCH + 40)
    run.recording.attempt(last, live=False)

    assert run.counts() == {"started": 1, "attempts": 1, "accepted": 1, "published": 12}
    with run.read() as reader:
        assert list(reader.attempts()) == [replace(last, account="a")]
    assert [each for each in run.watching.told if each[0] == "attempt"] == [
        ("attempt", "first", 1, None),
        ("attempt", "first", 1, 0),
        ("attempt", "first", 1, 4),
        ("attempt", "first", 1, 9),
    ]
    assert [each[0] for each in run.watching.told].count("finished") == 1


def test_device_that_was_accepted_is_not_unfinished_while_it_stays_nor_while_it_tries_to_come_back(run: Run) -> None:
    for number in range(4):
        run.start(number)
    run.recording.attempt(tried(1, connack_code=5), live=False)
    run.recording.attempt(tried(2, accepted=True), live=True)
    run.recording.attempt(tried(3, accepted=True), live=True)
    run.recording.attempt(tried(3, accepted=True, failure=LOST), live=False)
    run.recording.attempt(tried(3, 2), live=False)

    assert run.recording.unfinished == {0, 1}
    for number in range(4):
        run.recording.finished(number, accepted=number == 2)
    assert run.recording.unfinished == frozenset()


def test_first_start_is_the_earliest_that_any_device_was_to_make(run: Run) -> None:
    """Not the first that is told of: a try is told when it is over, and several processes tell of theirs. Until one is,
    the run has begun all the same when a start is told."""
    seen = [run.recording.first_due]
    for number, due, live in ((0, 3.0, False), (1, 4.0, True), (2, 1.0, True), (3, 2.0, False)):
        run.start(number)
        seen.append(run.recording.first_due)
        run.recording.attempt(tried(number, accepted=live, intended_start=EPOCH + due), live=live)
    seen.append(run.recording.first_due)

    assert seen == [None, NOW, EPOCH + 3, EPOCH + 3, EPOCH + 1, EPOCH + 1]


def test_further_tries_are_no_first_start(run: Run) -> None:
    run.start(0)
    run.recording.attempt(tried(0, intended_start=EPOCH + 3), live=False)
    for live in (True, True, False):
        run.recording.attempt(tried(0, 2, accepted=True, intended_start=EPOCH + 2), live=live)

    assert run.recording.first_due == EPOCH + 3


def test_device_that_comes_back_after_its_connection_was_lost_is_accepted_once(run: Run) -> None:
    run.start(0)
    run.recording.attempt(tried(0, accepted=True, published=0), live=True)
    run.recording.attempt(tried(0, accepted=True, published=3, failure=LOST), live=False)
    assert run.counts() == {"started": 1, "attempts": 1, "accepted": 1, "published": 3}
    run.recording.attempt(tried(0, 2, accepted=True, published=0), live=True)
    run.recording.attempt(tried(0, 2, accepted=True, published=2), live=False)
    run.recording.finished(0, accepted=True)

    assert run.counts() == {"started": 1, "attempts": 2, "accepted": 1, "published": 5}
    assert [each[0] for each in run.watching.told].count("finished") == 1


def test_device_that_was_accepted_once_is_not_given_up_when_it_cannot_come_back(run: Run) -> None:
    run.start(0)
    run.recording.attempt(tried(0, accepted=True, failure=LOST), live=False)
    run.recording.attempt(tried(0, 2), live=False)
    run.recording.finished(0, accepted=False)

    assert run.counts() == {"started": 1, "attempts": 2, "accepted": 1}
    assert [each[0] for each in run.watching.told].count("finished") == 1


def test_connack_that_refuses_is_no_acceptance(run: Run) -> None:
    run.start(0)
    run.recording.attempt(tried(0, connack_code=5), live=False)

    assert run.counts() == {"started": 1, "attempts": 1, "waiting": 1}


def test_group_that_should_be_refused_does_not_count_for_provisioning(tmp_path: Path) -> None:
    fleet = fleet_of('[groups.first.expect]\noutcome = "refused"')
    with running(tmp_path / "run.sqlite", fleet) as run:
        run.start(0)
        run.recording.attempt(tried(0), live=False)
        run.recording.finished(0, accepted=False)

        assert run.watching.told[-1] == ("finished", "first", False, None)


def test_dropped_start_is_on_record_and_counted(run: Run) -> None:
    drops = [Drop(device=7, group="second", due=EPOCH + 3), Drop(device=4, group="first", due=EPOCH + 1)]
    for drop in drops:
        run.recording.dropped(drop)

    assert run.counts() == {"dropped": 2}
    assert run.recording.first_due is None
    assert run.watching.told == [("dropped", "second", "a"), ("dropped", "first", "a")]
    assert run.recording.unfinished == frozenset()
    with run.read() as reader:
        assert list(reader.drops()) == drops[::-1]


def test_device_that_cannot_be_minted_is_noted_and_given_up(run: Run) -> None:
    run.recording.failed(3, "first", "no bundle 3")

    assert run.counts() == {"started": 1, "given_up": 1}
    assert run.recording.unfinished == frozenset()
    with run.read() as reader:
        (note,) = reader.notes()
        assert (note.kind, note.text, note.device, note.at) == ("error", "not started: no bundle 3", 3, NOW)
        assert list(reader.devices()) == []


def test_late_start_is_told_with_the_first_try_only(run: Run) -> None:
    run.start(0)
    run.recording.attempt(tried(0, start=EPOCH + 12.75), live=False)
    run.recording.attempt(tried(0, 2, start=EPOCH + 30), live=False)

    assert [each for each in run.watching.told if each[0] == "started"] == [("started", "first", "a", 3.0)]


def test_thresholds_that_end_a_run_are_fed(tmp_path: Path) -> None:
    fleet = fleet_of()
    live = LiveThresholds([Threshold.parse("provision_success", "rate>0.9", abort_on_fail=True)], late_after=1.0)
    with running(tmp_path / "run.sqlite", fleet) as run:
        recording = Recording(
            fleet, world_of(fleet), {}, writer=run.writer, progress=run.progress, live=live, now=lambda: NOW
        )
        run.recording = recording
        run.start(0)
        recording.attempt(tried(0, accepted=True), live=False)
        recording.finished(0, accepted=True)
        assert live.crossed(1.0) is None
        run.start(1)
        recording.attempt(tried(1), live=False)
        recording.finished(1, accepted=False)

        assert live.crossed(1.0) is not None


# --- whatever devices do, the numbers add up ---

STEPS = st.lists(
    st.tuples(st.integers(0, 8), st.sampled_from(["refused", "accepted", "live", "lost", "end"]), st.integers(0, 5)),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=60)
def test_progress_adds_up_and_agrees_with_the_record(steps: list[tuple[int, str, int]]) -> None:
    with TemporaryDirectory() as directory, running(Path(directory) / "run.sqlite") as run:
        numbers: Counter[int] = Counter()
        lives: dict[int, int] = {}
        over: dict[int, bool] = {}
        for device, step, messages in steps:
            if over.get(device):
                continue
            if device not in over:
                run.start(device, group="first" if device < 6 else "second", member=device % 6)
                over[device] = False
            published = lives.get(device, 0) + messages
            if step == "end":
                if device not in lives:  # no device ends with a connection that goes on
                    run.recording.finished(device, accepted=False)
                    over[device] = True
                continue
            if device not in lives:
                numbers[device] += 1
                published = messages
            if step == "refused" and device not in lives:
                run.recording.attempt(tried(device, numbers[device]), live=False)
            elif step == "live":
                lives[device] = published
                told = tried(device, numbers[device], accepted=True, published=published)
                run.recording.attempt(told, live=True)
            else:
                lives.pop(device, None)
                failure = LOST if step == "lost" else None
                told = tried(device, numbers[device], accepted=True, published=published, failure=failure)
                run.recording.attempt(told, live=False)
            progress = run.progress
            assert progress.connected == len(lives)
            assert 0 <= progress.accepted + progress.given_up <= progress.started == len(over)

        with run.read() as reader:
            attempts = list(reader.attempts())
        accepted = {each.device for each in attempts if each.connack_code == 0}
        assert run.recording.unfinished == {device for device, ended in over.items() if not ended} - accepted
        assert run.progress.attempts == len(attempts) == numbers.total()
        assert run.progress.published == sum(each.published or 0 for each in attempts)
        assert run.progress.accepted == len(accepted)
        assert run.progress.given_up == len({device for device, ended in over.items() if ended} - accepted)
        assert run.progress.waiting == len({device for device, ended in over.items() if not ended} - accepted)


def test_nothing_is_kept_of_a_device_that_has_come_to_its_end(run: Run) -> None:
    for number in range(6):
        run.start(number)
        run.recording.attempt(tried(number, accepted=True), live=True)
        run.recording.attempt(tried(number, accepted=True), live=False)
        run.recording.finished(number, accepted=True)

    assert run.recording._under_way == {}


def test_words_of_this_test_are_the_oracles() -> None:
    """Both groups are expected where the DEFAULT mode CA is, or by name."""
    world = world_of(fleet_of())

    assert {name: world.expectation(name).account for name in ("first", "second")} == {"first": "a", "second": "a"}
    assert world.expectation("first").outcome is DeviceOutcome.PROVISIONED
