"""From what a run's devices tell to its record, its progress and its thresholds. The one place where they meet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from devicesim.fleet.shard import Started
from devicesim.fleet.spec import Fleet
from devicesim.fleet.world import World, user_expectation
from devicesim.outcome import Attempt, Holding, Stage
from devicesim.record.facts import DeviceRecord, Drop, GeneratorSample, Note
from devicesim.record.metrics import Tags, should_provision, tags_of
from devicesim.record.store import RunWriter
from devicesim.record.thresholds import LiveThresholds


@dataclass(slots=True)
class Progress:
    """What a run has come to, for whoever shows it. Counts of devices, but for attempts and messages."""

    total: int
    phase: str = "setting up"
    started: int = 0
    attempts: int = 0
    accepted: int = 0
    """At least once."""
    connected: int = 0
    """Now, of those that stay."""
    given_up: int = 0
    dropped: int = 0
    published: int = 0

    @property
    def waiting(self) -> int:
        """Started, and neither accepted nor given up."""
        return self.started - self.accepted - self.given_up


@dataclass(slots=True)
class _UnderWay:
    """A device between its start and its end."""

    tags: Tags
    account: str | None
    """Where the oracle expects it."""
    counts: bool
    """It should be provisioned."""
    seen: bool = False
    """Its first try is on record."""
    accepted: bool = False
    due: float = 0.0
    """Of its first try; seconds since the Unix epoch."""
    connected: bool = False
    """It has a connection that goes on."""
    published: int = 0
    """On that connection, as it was recorded last."""
    live: Attempt | None = None
    """That connection, as it was recorded last, where a threshold may end the run."""


class Recording:
    """Takes what the devices tell (:class:`~devicesim.fleet.shard.Sink`). Nothing is kept of a device that has come to
    its end: a run's size is not a matter of memory."""

    def __init__(
        self,
        fleet: Fleet,
        world: World,
        before: Mapping[str, tuple[Holding, ...]],
        *,
        writer: RunWriter,
        progress: Progress,
        live: LiveThresholds,
        now: Callable[[], float],
    ) -> None:
        """``before``: what the accounts held, by certificate id. ``now``: seconds since the Unix epoch."""
        self._fleet = fleet
        self._world = world
        self._before = before
        self._writer = writer
        self._progress = progress
        self._live = live
        self._now = now
        self._first_index = {name: fleet.first_index(name) for name in fleet.file.groups}
        self._user = {name: user_expectation(group) for name, group in fleet.file.groups.items()}
        self._under_way: dict[int, _UnderWay] = {}
        self._tags: dict[Tags, Tags] = {}
        """One for all devices that have the same."""
        self.first_due: float | None = None
        """When the first device was to start, as far as is known; seconds since the Unix epoch. Until a device has told
        of a try: when a start was told."""

    @property
    def unfinished(self) -> frozenset[int]:
        """Devices that were started, and neither accepted nor given up."""
        return frozenset(number for number, device in self._under_way.items() if not device.accepted)

    def started(self, device: Started) -> None:
        held = self._before.get(device.certificate_id, ())
        expectation = self._world.expectation(device.group, held)
        user = self._user[device.group]
        dials = self._fleet.file.groups[device.group].account
        tags = tags_of(device.group, dials, expectation, user)
        self._under_way[device.number] = _UnderWay(
            tags=self._tags.setdefault(tags, tags),
            account=expectation.account,
            counts=should_provision(expectation, user),
        )
        self._progress.started += 1
        if self.first_due is None:
            # its first try may take long to fail, and what is dropped meanwhile may end the run
            self.first_due = self._now()
        self._writer.add_device(
            DeviceRecord(
                number=device.number,
                index=self._first_index[device.group] + device.member,
                group=device.group,
                client_id=device.client_id,
                certificate_id=device.certificate_id,
                expectation=expectation if held else None,
            ),
            now=self._now(),
        )

    def attempt(self, attempt: Attempt, *, live: bool) -> None:
        device, progress = self._under_way[attempt.device], self._progress
        attempt = replace(attempt, account=device.account)
        progress.attempts += not device.connected
        progress.connected += live - device.connected
        progress.published += (attempt.published or 0) - device.published
        device.connected, device.published = live, (attempt.published or 0) if live else 0
        former, device.live = device.live, attempt if live and self._live.watches else None
        self._writer.add_attempt(attempt, now=self._now())
        if not device.seen:
            device.seen, device.due = True, attempt.intended_start
            self.first_due = device.due if self.first_due is None else min(device.due, self.first_due)
            self._live.started(device.tags, attempt.start - attempt.intended_start)
        self._live.attempt(device.tags, attempt, former)
        if attempt.connack_code == 0 and not device.accepted:
            device.accepted = True
            progress.accepted += 1
            accepted_at = attempt.start + attempt.reached[Stage.CONNACK]
            self._live.finished(device.tags, should_provision=device.counts, time_to_provision=accepted_at - device.due)

    def finished(self, device: int, *, accepted: bool) -> None:
        ended = self._under_way.pop(device)
        if not accepted and not ended.accepted:
            self._progress.given_up += 1
            self._live.finished(ended.tags, should_provision=ended.counts, time_to_provision=None)

    def dropped(self, drop: Drop) -> None:
        self._progress.dropped += 1
        self._writer.add_drop(drop, now=self._now())
        dials = self._fleet.file.groups[drop.group].account
        self._live.dropped(tags_of(drop.group, dials, self._world.expectation(drop.group), self._user[drop.group]))

    def failed(self, device: int, group: str, why: str) -> None:
        del group
        self._writer.add_note(Note(at=self._now(), kind="error", text=f"not started: {why}", device=device))
        self._progress.given_up += 1
        self._progress.started += 1

    def sampled(self, sample: GeneratorSample) -> None:
        self._writer.add_sample(sample)
