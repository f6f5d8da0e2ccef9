"""A run that many processes drive: its schedule dealt out, started in all at one moment, told back as if by one.

The other end is :mod:`devicesim.fleet.station`; what is decided is decided in :mod:`devicesim.fleet.exchange`. A worker
that dies is not replaced and its share is not run again: which of its devices were on their way nobody knows, and a
device that starts twice is another load than the one asked for. Its devices that were started stay as they were last
told; those that were not are dropped starts, which count against the load asked for.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from itertools import islice
from math import ceil, inf

import trio

from devicesim.errors import ClusterError, InputError
from devicesim.fleet import station
from devicesim.fleet.cluster import Cluster, WorkerError
from devicesim.fleet.device import Clock
from devicesim.fleet.exchange import Answer, Book, Share, State
from devicesim.fleet.meter import Meter, this_machine
from devicesim.fleet.pacing import split
from devicesim.fleet.shard import ShardPlan, Sink, Started, schedule
from devicesim.fleet.wireform import replay, write_plan
from devicesim.outcome import Attempt
from devicesim.record.facts import Drop, GeneratorSample

ASK_SECONDS = 0.25
"""From an answer to the next question."""
ANSWER_SECONDS = 5.0
"""For which an answer is awaited before the question is put again."""
SILENCE_SECONDS = 15.0
"""Without an answer for so long a worker is given up. Longer than :data:`devicesim.fleet.station.LEASE_SECONDS`."""
ROLL_SECONDS = 1.0
"""How often the engine is asked who is alive."""
LEAD_SECONDS = 0.75
"""Between the word to start and the first start: every worker has heard it by then."""
STOP_SECONDS = 5.0
"""For which what workers still tell is waited for when the run is ended early."""
PINGS = 5
"""By which a worker's clock is compared with ours; the fastest counts."""
STARTS_PER_WORKER = 100.0
"""Starts a second that one process is trusted with by default: half of what a slow core does, at 2 tries a device."""
DEVICES_PER_WORKER = 20_000
"""Devices that one process is trusted with by default."""

PACKAGE = "devicesim"

Note = Callable[[str], None]


def default_workers(*, cores: int, emulated: bool, devices: int, rate: float | None) -> int:
    """Processes for a run that does not say how many: no more than it needs, nor than cores are left beside an
    emulator of ours. ``rate``: the most starts a second; ``None`` where the target decides."""
    left = max(1, cores - 1 if emulated else cores)
    wanted = max(devices / DEVICES_PER_WORKER, (rate or 0.0) / STARTS_PER_WORKER)
    return max(1, min(left, ceil(wanted)))


async def muster(cluster: Cluster, count: int | None) -> tuple[str, ...]:
    """``count`` workers that can take a share, or all that there are.

    Raises :class:`ClusterError` when there are fewer, :class:`~devicesim.errors.InputError` for one that does not have
    this version of devicesim.
    """
    try:
        there = sorted(await cluster.alive())
    except WorkerError as exc:
        raise ClusterError(f"the scheduler does not say who is there: {exc}") from exc
    if not there or (count is not None and len(there) < count):
        wanted = "at least 1 is needed" if count is None else f"--workers {count} needs as many"
        raise ClusterError(f"the cluster has {len(there)} workers; {wanted}", hint="start more, or ask for fewer")
    chosen, own = tuple(there[:count]), metadata.version(PACKAGE)
    hint = f"pip install 'devicesim[distributed]=={own}' there"
    for worker in chosen:
        try:
            with trio.fail_after(SILENCE_SECONDS):
                version = await cluster.call(worker, metadata.version, PACKAGE)
                if version == own:
                    await cluster.call(worker, station.forget, "")  # loads what it takes, not when devices are due
        except (WorkerError, trio.TooSlowError) as exc:
            raise InputError(f"worker {worker} cannot run devicesim: {str(exc) or 'no answer'}", hint=hint) from exc
        if version != own:
            raise InputError(f"worker {worker} has devicesim {version}, this is {own}", hint=hint)
    return chosen


def deal(plan: ShardPlan, parts: int) -> list[ShardPlan]:
    """A whole run as shares for so many workers, or fewer where there is not a device, or a place, for each."""
    if plan.under_way is not None:
        parts = min(parts, plan.under_way)
    shards = split(plan.total, parts)
    parts = len(shards)
    limits = [None if plan.under_way is None else (plan.under_way + parts - 1 - n) // parts for n in range(parts)]
    return [
        replace(plan, shard=shard, under_way=limit, process=f"worker {n + 1}")
        for n, (shard, limit) in enumerate(zip(shards, limits, strict=True))
    ]


class _Counting:
    """A sink that keeps its share's book on the way."""

    def __init__(self, sink: Sink, share: Share) -> None:
        self._sink = sink
        self._share = share

    def started(self, device: Started) -> None:
        self._share.told += 1
        self._share.under_way += 1
        self._sink.started(device)

    def attempt(self, attempt: Attempt, *, live: bool) -> None:
        self._sink.attempt(attempt, live=live)

    def finished(self, device: int, *, accepted: bool) -> None:
        self._share.under_way -= 1
        self._sink.finished(device, accepted=accepted)

    def dropped(self, drop: Drop) -> None:
        self._share.told += 1
        self._sink.dropped(drop)

    def failed(self, device: int, group: str, why: str) -> None:
        self._share.told += 1
        self._sink.failed(device, group, why)

    def sampled(self, sample: GeneratorSample) -> None:
        self._sink.sampled(sample)


class Workers:
    """Drives the devices of a run in worker processes (:class:`~devicesim.fleet.runner.Driver`)."""

    def __init__(self, cluster: Cluster, workers: tuple[str, ...], note: Note) -> None:
        """``workers``: as :func:`muster` found them. ``note`` is told, in one line, what became of a lost one."""
        self._cluster = cluster
        self._workers = workers
        self._note = note

    async def drive(self, plan: ShardPlan, sink: Sink, clock: Clock) -> None:
        """All devices of ``plan``, a whole run, to their end; cancelled, what workers have told by then is told on.

        Raises :class:`~devicesim.errors.DevicesimError` when a share cannot be driven, or its worker is gone before
        anything was started.
        """
        drive = _Drive(self._cluster, self._workers, self._note, plan, sink, clock)
        meter = Meter(process="coordinator", machine=this_machine(), wall=clock.wall, record=sink.sampled)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(meter.run)
            await drive.run()
            nursery.cancel_scope.cancel()


class _Drive:
    """One run."""

    def __init__(
        self, cluster: Cluster, workers: tuple[str, ...], note: Note, plan: ShardPlan, sink: Sink, clock: Clock
    ) -> None:
        self._cluster = cluster
        self._note = note
        self._clock = clock
        self._sink = sink
        self._run_id = plan.run_id
        plans = deal(plan, len(workers))
        now = trio.current_time()
        self._plans = {
            Share(worker=worker, devices=each.shard.count, heard=now): each
            for worker, each in zip(workers, plans, strict=False)
        }
        self._book = Book(self._plans, silence=SILENCE_SECONDS)
        self._scopes = {share: trio.CancelScope() for share in self._plans}
        self._first: float | None = None
        self._changed = trio.Event()
        self._ending = False

    async def run(self) -> None:
        try:
            await self._give()
            async with trio.open_nursery() as tasks:
                for share in self._plans:
                    tasks.start_soon(self._work, share)
                await self._conduct()
                tasks.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._end()

    # --- giving out ---

    async def _give(self) -> None:
        async with trio.open_nursery() as nursery:
            for share, plan in self._plans.items():
                nursery.start_soon(self._give_one, share, plan)

    async def _give_one(self, share: Share, plan: ShardPlan) -> None:
        try:
            with trio.fail_after(SILENCE_SECONDS):
                ahead = await self._ahead(share.worker)
                await self._cluster.call(share.worker, station.give, self._key(share), write_plan(plan), ahead)
        except (WorkerError, trio.TooSlowError) as exc:
            raise ClusterError(f"worker {share.worker} takes no devices: {str(exc) or 'no answer'}") from exc
        share.heard = trio.current_time()

    async def _ahead(self, worker: str) -> float:
        """Seconds by which a worker's clock is ahead of the run's, wrong by half of the fastest question at most."""
        found = []
        for _ in range(PINGS):
            asked = self._now()
            theirs = await self._cluster.call(worker, time.time)
            answered = self._now()
            found.append((answered - asked, theirs - (asked + answered) / 2))
        return min(found)[1]

    def _key(self, share: Share) -> str:
        return f"{self._run_id}/{self._plans[share].process}"

    # --- while it goes ---

    async def _work(self, share: Share) -> None:
        """The share's task: that it ends is told by the share itself, that it fails by Dask, and sooner."""
        try:
            await self._cluster.work(share.worker, station.work, self._key(share))
        except WorkerError as exc:
            self._lose(share, str(exc))

    async def _conduct(self) -> None:
        """Ask every share until all are over."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._call_the_roll)
            async with trio.open_nursery() as questions:
                for share in self._plans:
                    questions.start_soon(self._ask, share)
            nursery.cancel_scope.cancel()

    async def _ask(self, share: Share) -> None:
        sink = _Counting(self._sink, share)
        with self._scopes[share]:
            while not share.over:
                answer: Answer | None = None
                with suppress(WorkerError), trio.move_on_after(ANSWER_SECONDS):
                    answer = await self._cluster.call(
                        share.worker, station.ask, self._key(share), share.received, self._book.order
                    )
                if answer is not None:
                    self._take(share, answer, sink)
                else:
                    self._give_up_the_silent()
                if answer is None or not answer.more:
                    with trio.move_on_after(ASK_SECONDS):
                        await self._changed.wait()

    def _take(self, share: Share, answer: Answer, sink: Sink) -> None:
        was_over = share.over
        events = self._book.answered(share, answer, trio.current_time())
        if events:
            replay(events, sink)
        if share.state in (State.FAILED, State.LOST):
            if share.over and not was_over:
                self._gone(share)
        elif self._first is None and self._book.all_armed:
            self._first = self._now() + LEAD_SECONDS
            self._book.begin(self._first)
            self._wake_all()

    def _lose(self, share: Share, why: str) -> None:
        if share.over:
            return
        self._book.lost(share, why)
        self._scopes[share].cancel()
        self._gone(share)

    def _gone(self, share: Share) -> None:
        """A run that has not begun is given up; one that goes on does so without this share."""
        if self._first is None:
            if self._ending:
                return
            if share.state is State.FAILED:
                raise InputError(f"worker {share.worker} cannot drive its devices: {share.why}", hint=share.hint)
            raise ClusterError(f"worker {share.worker} is gone before anything was started: {share.why}")
        never = share.devices - share.told
        self._note(
            f"worker {share.worker} is gone ({share.why}): {share.told} of its {share.devices} devices had had their "
            f"turn, {share.under_way} of them were under way and stay undecided, {never} were never started"
        )

    async def _call_the_roll(self) -> None:
        """A worker that the engine does not know any more is gone, though nobody hung up on us."""
        while True:
            await trio.sleep(ROLL_SECONDS)
            with trio.move_on_after(ANSWER_SECONDS):
                try:
                    alive = await self._cluster.alive()
                except WorkerError:
                    continue  # it is the engine that is gone: then the silence tells
                for share in self._plans:
                    if share.worker not in alive:
                        self._lose(share, "it has left the cluster")
            self._give_up_the_silent()

    def _give_up_the_silent(self) -> None:
        now = trio.current_time()
        for share in self._plans:
            if self._book.is_silent(share, now):
                self._lose(share, f"no answer for {now - share.heard:.0f} s")

    def _wake_all(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- the end ---

    async def _end(self) -> None:
        """Stop what still goes, and account for what was never started."""
        cut_short = not self._book.over
        if cut_short:
            self._ending = True
            self._book.stop()
            self._scopes = {share: trio.CancelScope() for share in self._plans}
            with trio.move_on_after(STOP_SECONDS):
                await self._conduct()
        for share, plan in self._plans.items():
            if share.state in (State.FAILED, State.LOST) and self._first is not None:
                await self._drop(plan, share.told, self._now() if cut_short else inf)
        with trio.move_on_after(ANSWER_SECONDS):
            async with trio.open_nursery() as nursery:
                for share in self._plans:
                    if share.state is not State.LOST:
                        nursery.start_soon(self._forget, share)

    async def _drop(self, plan: ShardPlan, told: int, until: float) -> None:
        """The starts that a lost worker did not make, as far as they were due."""
        assert self._first is not None
        for due, slot in islice(schedule(plan), told, None):
            at = self._first + due
            if at > until:
                return
            self._sink.dropped(Drop(device=slot.device, group=slot.group, due=at))
            await trio.lowlevel.checkpoint()

    async def _forget(self, share: Share) -> None:
        with suppress(WorkerError):
            await self._cluster.call(share.worker, station.forget, self._key(share))

    def _now(self) -> float:
        return self._clock.wall(trio.current_time())
