"""One run of a fleet: set the accounts up, start the devices on schedule, ask who holds what, judge, record.

Data runs one way: fleet file, devices, attempts in the record, verdicts in the record. Nothing here prints or decides
what agrees; the report is made from the record alone.
"""

import functools
import gc
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

import trio

from devicesim.cloud.account import AccountClient
from devicesim.cloud.activator import Activator, ActivatorPlan, activator_identity
from devicesim.cloud.asking import answered_in_time
from devicesim.cloud.setup import data_endpoint, set_up
from devicesim.cloud.verify import holdings
from devicesim.errors import DevicesimError, TargetError, leaves
from devicesim.fleet.arrival import schedule_of
from devicesim.fleet.device import Clock, Wire
from devicesim.fleet.identities import Material
from devicesim.fleet.judging import verdicts
from devicesim.fleet.meter import this_machine
from devicesim.fleet.pacing import ConstantRate, Shard
from devicesim.fleet.recording import Progress, Recording
from devicesim.fleet.shard import Door, ShardPlan, ShardRun, Sink, wire
from devicesim.fleet.shard import schedule as shard_schedule
from devicesim.fleet.spec import Fleet
from devicesim.fleet.target import Target
from devicesim.fleet.thresholds import thresholds_of
from devicesim.fleet.world import World, account_plan, activates, device_policy_name, things_asked
from devicesim.net.tls import TLSContext, TLSSettings
from devicesim.outcome import Holding
from devicesim.record.facts import Note, Phase, RunFacts, RunStatus, ThresholdRecord
from devicesim.record.store import RunReader, RunWriter
from devicesim.record.thresholds import LiveThresholds, Threshold

LEAD_SECONDS = 0.1
"""Between the end of setup and the first start, so that the first start is not late already."""
TICK_SECONDS = 0.5
VERDICTS_AT_ONCE = 100
"""Made without a look at whether the run was ended: 0.1 ms each, and a second Ctrl-C is not to wait for a million."""
WATCH_SECONDS = 0.5
"""How often the thresholds that may end a run are looked at."""


class Driver(Protocol):
    """What drives the devices of a run: this process, or several."""

    async def drive(self, plan: ShardPlan, sink: Sink, clock: Clock) -> None:
        """Start all devices of ``plan`` on its schedule, see them to their end, tell ``sink``. Cancelled, it tells what
        is still to be told. Raises :class:`~devicesim.errors.DevicesimError` when devices cannot be driven at all."""


class InProcess:
    """Drives the devices in this process."""

    async def drive(self, plan: ShardPlan, sink: Sink, clock: Clock) -> None:
        shard = ShardRun(plan, sink, clock, this_machine())
        gc.collect()  # what setting up has left behind makes room for devices
        await shard.arm()
        await shard.run(trio.current_time() + LEAD_SECONDS)


def run_facts(fleet: Fleet, *, target: str, version: str, started_at: float) -> RunFacts:
    """The run as a whole, before it begins."""
    arrival = fleet.file.arrival
    schedule = schedule_of(arrival, fleet.size)
    return RunFacts(
        fleet=fleet.name,
        fleet_file=fleet.text,
        version=version,
        target=target,
        started_at=started_at,
        rate=schedule.rate if isinstance(schedule, ConstantRate) else None,
        arrival=arrival.model,
        schedule=schedule.describe(),
        late_after=arrival.late_after,
        late_tolerance=arrival.tolerance,
    )


class Run:
    """One run. :meth:`execute` does it all; :meth:`interrupt` and :meth:`fail` end it early, with a whole record."""

    def __init__(
        self,
        fleet: Fleet,
        material: Material,
        target: Target,
        writer: RunWriter,
        *,
        run_id: str,
        epoch: Callable[[], float],
        prepare: bool = True,
        only: Collection[int] | None = None,
        hold: float | None = None,
        sources: tuple[str, ...] = (),
        driver: Driver | None = None,
    ) -> None:
        """``prepare``: set the accounts up, activate under JITR, ask them what they hold; without it they are asked
        for their endpoints and nothing is changed. ``only``: numbers of the devices that are started; ``None`` is all.
        ``hold``: seconds for which an accepted connection is kept, in place of the fleet file's. ``sources``: local
        addresses to dial from. ``driver``: what drives the devices, in place of this process.
        """
        self.progress = Progress(total=fleet.size if only is None else len(only))
        self._fleet = fleet
        self._material = material
        self._target = target
        self._writer = writer
        self._run_id = run_id
        self._prepare = prepare
        self._only = None if only is None else frozenset(only)
        self._hold = fleet.file.session.hold if hold is None else hold
        self._sources = sources
        self._driver = driver or InProcess()
        self._thresholds = thresholds_of(fleet.file.thresholds)
        self._clock = Clock(epoch=epoch(), zero=trio.current_time())
        self._clients = {name: AccountClient(access) for name, access in target.accounts.items()}
        self._recording: Recording | None = None
        self._scope = trio.CancelScope()
        self._devices_scope = trio.CancelScope()
        self._status = RunStatus.FINISHED
        self._failed: DevicesimError | None = None

    async def execute(self) -> RunStatus:
        """Run the fleet and finish the record.

        Raises :class:`~devicesim.errors.TargetError` when setup fails or an account cannot be asked, what the driver
        raises when devices cannot be driven, and what :meth:`fail` was told; what the devices saw is judged before
        that, and the record is left open for the reason.
        """
        world: World | None = None
        asked = False
        try:
            async with AsyncExitStack() as stack:
                with self._scope:
                    world = await self._set_up()
                    before = await self._ask(Phase.BEFORE, None) if self._prepare else {}
                    await self._run_devices(world, before, stack)
                    if self._prepare:
                        self._say("asking the accounts what they hold")
                        await self._ask(Phase.AFTER, self._certificates())
                        asked = True
                self._say("judging")
        except* DevicesimError as group:
            self._failed = self._failed or next(leaves(group))
        finally:
            for client in self._clients.values():
                client.close()
        if world is not None and self._recording is not None:
            await self._judge(world, self._recording.unfinished, asked=asked)
        if self._failed is not None:
            raise self._failed
        self._writer.finish(self._status, now=self._now())
        self._say("done")
        return self._status

    def interrupt(self) -> None:
        """End the run now: no further start, nothing more asked; what was seen is judged and kept."""
        self._status = RunStatus.INTERRUPTED
        self._scope.cancel()

    def fail(self, reason: DevicesimError) -> None:
        """End the run as :meth:`interrupt` does, because of something that :meth:`execute` then raises."""
        self._failed = reason
        self._scope.cancel()

    # --- setup ---

    async def _set_up(self) -> World:
        endpoints: dict[str, str] = {}
        for name, client in self._clients.items():
            self._say(f"setting up {name}")
            with answered_in_time("get_caller_identity", client):
                await client.check_identity()
            endpoints[name] = await data_endpoint(client)
            if not self._prepare:
                continue
            plan = account_plan(self._fleet, name, client.access)
            now = datetime.fromtimestamp(self._now(), UTC)
            for line in await set_up(client, plan, self._material.authority, now):
                self._note("setup", line, account=name)
        world = World(self._fleet, endpoints)
        for name in self._fleet.file.accounts:
            self._writer.add_account(world.account_record(name), now=self._now())
        counts = self._counts(world)
        for name in self._fleet.file.groups:
            if counts[name]:  # a group of which no device is to start is no part of this run
                self._writer.add_group(replace(world.group_record(name), count=counts[name]), now=self._now())
        for position, threshold in enumerate(self._thresholds):
            self._writer.add_threshold(_threshold_record(threshold), position, now=self._now())
        return world

    def _counts(self, world: World) -> Counter[str]:
        """How many devices of each group are to start."""
        if self._only is None:
            return Counter({name: group.count for name, group in self._fleet.file.groups.items()})
        return Counter(slot.group for _, slot in shard_schedule(self._plan(world)))

    async def _ask(self, phase: Phase, wanted: Collection[str] | None) -> dict[str, tuple[Holding, ...]]:
        """What every account holds of these certificates (``None``: of all of the CA), by certificate id.

        Side by side, for each account has limits of its own. What those that answer hold is on record, whoever does
        not.
        """
        held: dict[str, list[Holding]] = {}
        silent: dict[str, TargetError] = {}

        async def ask(name: str, client: AccountClient) -> None:
            things = things_asked(self._fleet, name) if phase is Phase.AFTER else 0
            try:
                held[name] = await holdings(client, self._material.authority.certificate_id, wanted, things=things)
            except TargetError as exc:
                silent[name] = exc
            else:
                self._writer.add_holdings(phase, name, held[name], now=self._now())

        async with trio.open_nursery() as nursery:
            for name, client in self._clients.items():
                nursery.start_soon(ask, name, client)
        if silent:
            first, *others = (name for name in self._clients if name in silent)
            for name in others:  # the first is told by whoever catches it
                self._note("error", str(silent[name]), account=name)
            raise silent[first]
        found: dict[str, list[Holding]] = defaultdict(list)
        for name in self._clients:
            for each in held[name]:
                found[each.certificate_id].append(each)
        return {certificate: tuple(each) for certificate, each in found.items()}

    @asynccontextmanager
    async def _activators(self, world: World, wire: Wire, stack: AsyncExitStack) -> AsyncIterator[None]:
        """Whoever activates under JITR, for as long as devices run."""
        now = datetime.fromtimestamp(self._now(), UTC)
        ca_id = self._material.authority.certificate_id
        # no device: what limits their TLS (roots, a cipher, a curve) does not bind it; but its port may need the ALPN
        context = TLSContext(TLSSettings(roots=self._target.own_roots, group="any", alpn=self._fleet.file.tls.alpn))
        async with trio.open_nursery() as nursery:
            for name, account in self._fleet.file.accounts.items():
                if not self._prepare or not activates(account):
                    continue
                self._say(f"starting the activator of {name}")
                plan = ActivatorPlan(
                    ca_id=ca_id,
                    endpoint=world.endpoints[name],
                    address=self._target.address(name, world.endpoints[name]),
                    device_policy=device_policy_name(self._fleet, name),
                    name=f"devicesim-activator-{self._run_id}",
                )
                client = self._clients[name]
                note = functools.partial(self._note, "activator", account=name)
                identity = await stack.enter_async_context(activator_identity(client, plan.name, ca_id, now, note))
                activator = Activator(client, plan, note)
                await nursery.start(activator.serve, identity, context, wire.deadlines)
            yield
            nursery.cancel_scope.cancel()

    # --- devices ---

    async def _run_devices(
        self, world: World, before: Mapping[str, tuple[Holding, ...]], stack: AsyncExitStack
    ) -> None:
        plan = self._plan(world)
        thresholds = LiveThresholds(self._thresholds, late_after=self._fleet.file.arrival.late_after)
        self._recording = Recording(
            self._fleet,
            world,
            before,
            writer=self._writer,
            progress=self.progress,
            live=thresholds,
            now=self._now,
        )
        async with self._activators(world, wire(plan), stack), trio.open_nursery() as helpers:
            helpers.start_soon(self._tick)
            helpers.start_soon(self._watch, thresholds, self._recording)
            self._rest_clients()
            self._say("running")
            with self._devices_scope:
                await self._driver.drive(plan, self._recording, self._clock)
            helpers.cancel_scope.cancel()

    def _rest_clients(self) -> None:
        """Nothing is asked while devices run, but by activators: what boto3 needs makes room for devices."""
        for name, client in self._clients.items():
            if not self._prepare or not activates(self._fleet.file.accounts[name]):
                client.rest()

    def _plan(self, world: World) -> ShardPlan:
        """The whole run as one share."""
        arrival = self._fleet.file.arrival
        return ShardPlan(
            fleet=self._fleet,
            material=self._material,
            doors={
                name: Door(endpoint=endpoint, address=self._target.address(name, endpoint))
                for name, endpoint in world.endpoints.items()
            },
            roots=self._target.roots,
            run_id=self._run_id,
            shard=Shard(first=0, step=1, count=self.progress.total),
            only=self._only,
            hold=self._hold,
            under_way=arrival.concurrency if arrival.model == "closed" else arrival.max_under_way,
            sources=self._sources,
        )

    async def _watch(self, thresholds: LiveThresholds, recording: Recording) -> None:
        """End the devices, not the run, when a threshold says so: what they came to is asked and judged."""
        while True:
            await trio.sleep(WATCH_SECONDS)
            if recording.first_due is None:
                continue
            crossed = thresholds.crossed(self._now() - recording.first_due)
            if crossed is not None:
                self._status = RunStatus.ABORTED
                record = _threshold_record(crossed)
                self._writer.add_threshold(
                    replace(record, aborted_at=self._now()), self._thresholds.index(crossed), now=self._now()
                )
                self._devices_scope.cancel()
                return

    def _certificates(self) -> set[str]:
        """Ids of the certificates of all devices that were started."""
        self._writer.flush()
        with RunReader(self._writer.path) as reader:
            return {device.certificate_id for device in reader.devices()}

    async def _judge(self, world: World, unfinished: Collection[int], *, asked: bool) -> None:
        self._writer.flush()
        with RunReader(self._writer.path) as reader, reader.snapshot():
            for number, verdict in enumerate(verdicts(reader, world, unfinished=unfinished, asked=asked)):
                self._writer.add_verdict(verdict, now=self._now())
                if number % VERDICTS_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()

    # --- small things ---

    async def _tick(self) -> None:
        """Commit what has gathered also when nothing new comes."""
        while True:
            await trio.sleep(TICK_SECONDS)
            self._writer.tick(self._now())

    def _now(self) -> float:
        return self._clock.wall(trio.current_time())

    def _say(self, phase: str) -> None:
        self.progress.phase = phase

    def _note(self, kind: str, text: str, *, account: str | None = None, device: int | None = None) -> None:
        self._writer.add_note(Note(at=self._now(), kind=kind, text=text, account=account, device=device))


def _threshold_record(threshold: Threshold) -> ThresholdRecord:
    return ThresholdRecord(
        metric=threshold.selector.text,
        expression=threshold.expression.text,
        abort_on_fail=threshold.abort_on_fail,
        delay=threshold.delay,
    )
