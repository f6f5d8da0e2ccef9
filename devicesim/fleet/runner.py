"""One run of a fleet: set the accounts up, start the devices on schedule, ask who holds what, judge, record.

Data runs one way: fleet file, devices, attempts in the record, verdicts in the record. Nothing here prints or decides
what agrees; the report is made from the record alone.
"""

import functools
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio

from devicesim.cloud.account import AccountClient
from devicesim.cloud.activator import Activator, ActivatorPlan, activator_identity
from devicesim.cloud.asking import answered_in_time
from devicesim.cloud.setup import data_endpoint, set_up
from devicesim.cloud.verify import holdings
from devicesim.errors import DevicesimError, KeyMaterialError, TargetError, leaves
from devicesim.fleet.device import Clock, Device, Wire, drive
from devicesim.fleet.identities import Material, client_id, minter
from devicesim.fleet.pacing import Backoff, Slot, constant_rate, interleave
from devicesim.fleet.spec import Fleet
from devicesim.fleet.target import Target
from devicesim.fleet.world import (
    World,
    account_plan,
    activates,
    device_policy_name,
    makes_things,
    server_name,
    user_expectation,
)
from devicesim.net.mqtt import MQTTSettings
from devicesim.net.tls import Deadlines, TLSContext, TLSSettings
from devicesim.outcome import Attempt, Holding
from devicesim.record.facts import DeviceRecord, Note, Phase, RunStatus
from devicesim.record.store import RunWriter
from devicesim.record.verdict import DeviceFacts, judge
from devicesim.rules import Expectation

LEAD_SECONDS = 0.1
"""Between the end of setup and the first start, so that the first start is not late already."""
TICK_SECONDS = 0.5


@dataclass(slots=True)
class Progress:
    """What a run has come to, for whoever shows it. Counts of devices, but for ``attempts``."""

    total: int
    phase: str = "setting up"
    started: int = 0
    attempts: int = 0
    accepted: int = 0
    given_up: int = 0

    @property
    def waiting(self) -> int:
        """Started, and neither accepted nor given up."""
        return self.started - self.accepted - self.given_up


@dataclass(slots=True)
class _Started:
    """A device that was started, until it is judged."""

    group: str
    certificate_id: str
    expectation: Expectation
    before: tuple[Holding, ...]
    attempts: list[Attempt] = field(default_factory=list)
    finished: bool = False


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
        hold: float = 0.0,
    ) -> None:
        """``prepare``: set the accounts up, activate under JITR, ask them what they hold; without it they are asked
        for their endpoints and nothing is changed. ``only``: numbers of the devices that are started; ``None`` is all.
        ``hold``: seconds for which an accepted connection is kept and watched.
        """
        self.progress = Progress(total=fleet.size if only is None else len(only))
        self._fleet = fleet
        self._material = material
        self._target = target
        self._writer = writer
        self._run_id = run_id
        self._prepare = prepare
        self._only = None if only is None else frozenset(only)
        self._hold = hold
        self._clock = Clock(epoch=epoch(), zero=trio.current_time())
        self._clients = {name: AccountClient(access) for name, access in target.accounts.items()}
        self._devices: dict[int, _Started] = {}
        self._scope = trio.CancelScope()
        self._interrupted = False
        self._failed: DevicesimError | None = None

    async def execute(self) -> RunStatus:
        """Run the fleet and finish the record.

        Raises :class:`~devicesim.errors.TargetError` when setup fails or an account cannot be asked, and what
        :meth:`fail` was told; what the devices saw is judged before that, and the record is left open for the reason.
        """
        world: World | None = None
        after: dict[str, tuple[Holding, ...]] | None = None
        try:
            async with AsyncExitStack() as stack:
                with self._scope:
                    world = await self._set_up()
                    before = await self._ask(Phase.BEFORE, None) if self._prepare else {}
                    await self._run_devices(world, before, stack)
                    if self._prepare:
                        self._say("asking the accounts what they hold")
                        after = await self._ask(Phase.AFTER, {each.certificate_id for each in self._devices.values()})
                self._say("judging")
        except* TargetError as group:
            self._failed = self._failed or next(leaves(group))
        finally:
            for client in self._clients.values():
                client.close()
        if world is not None:
            self._judge(world, after)
        if self._failed is not None:
            raise self._failed
        status = RunStatus.INTERRUPTED if self._interrupted else RunStatus.FINISHED
        self._writer.finish(status, now=self._now())
        self._say("done")
        return status

    def interrupt(self) -> None:
        """End the run now: no further start, nothing more asked; what was seen is judged and kept."""
        self._interrupted = True
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
        for name in self._fleet.file.groups:
            self._writer.add_group(world.group_record(name), now=self._now())
        return world

    async def _ask(self, phase: Phase, wanted: Collection[str] | None) -> dict[str, tuple[Holding, ...]]:
        """What every account holds of these certificates (``None``: of all of the CA), by certificate id."""
        found: dict[str, list[Holding]] = defaultdict(list)
        for name, client in self._clients.items():
            things = phase is Phase.AFTER and makes_things(self._fleet, name) is not False
            held = await holdings(client, self._material.authority.certificate_id, wanted, with_things=things)
            for each in held:
                found[each.certificate_id].append(each)
            self._writer.add_holdings(phase, name, held, now=self._now())
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
        wire = self._wire()
        async with self._activators(world, wire, stack), trio.open_nursery() as helpers:
            helpers.start_soon(self._tick)
            self._say("running")
            async with trio.open_nursery() as nursery:
                await self._start_all(world, wire, before, nursery)
            helpers.cancel_scope.cancel()

    async def _start_all(
        self, world: World, wire: Wire, before: Mapping[str, tuple[Holding, ...]], nursery: trio.Nursery
    ) -> None:
        """Start every device when it is due, whatever became of those before it."""
        groups = self._fleet.file.groups
        mint = minter(self._fleet, self._material)
        start = constant_rate(self._fleet.file.arrival.rate)
        first = trio.current_time() + LEAD_SECONDS
        for position, slot in enumerate(self._slots()):
            due = first + start(position)
            await trio.sleep_until(due)
            try:
                identity = mint(slot.group, slot.member)
            except KeyMaterialError as exc:
                self._note("error", f"not started: {exc}", device=slot.device)
                self.progress.given_up += 1
                self.progress.started += 1
                continue
            held = before.get(identity.certificate_id, ())
            started = _Started(
                group=slot.group,
                certificate_id=identity.certificate_id,
                expectation=world.expectation(slot.group, held),
                before=held,
            )
            self._devices[slot.device] = started
            name = client_id(self._fleet, slot.group, slot.member, identity)
            self._writer.add_device(
                DeviceRecord(
                    number=slot.device,
                    index=self._fleet.first_index(slot.group) + slot.member,
                    group=slot.group,
                    client_id=name,
                    certificate_id=identity.certificate_id,
                    expectation=started.expectation if held else None,
                ),
                now=self._now(),
            )
            group = groups[slot.group]
            endpoint = world.endpoints[group.account]
            device = Device(
                number=slot.device,
                identity=identity,
                client_id=name,
                address=self._target.address(group.account, endpoint),
                server_name=server_name(group, world.endpoints),
                verify_name=group.verify_name or endpoint,
                expected_account=started.expectation.account,
            )
            self.progress.started += 1
            nursery.start_soon(self._drive, device, wire, due, started)

    def _slots(self) -> Iterator[Slot]:
        """The devices that are started, in the schedule's order."""
        counts = {name: group.count for name, group in self._fleet.file.groups.items()}
        return (slot for slot in interleave(counts) if self._only is None or slot.device in self._only)

    async def _drive(self, device: Device, wire: Wire, due: float, started: _Started) -> None:
        """One device to its end, in its own task."""

        def record(attempt: Attempt) -> None:
            started.attempts.append(attempt)
            self.progress.attempts += 1
            self._writer.add_attempt(attempt, now=self._now())

        # seeded by run and device, so that a device's delays do not hang on the order in which devices fail
        draw = random.Random(f"{self._run_id}/{device.number}").random  # noqa: S311  # spreads load, guards nothing
        accepted = await drive(device, wire, due, self._backoff().delays(draw), self._clock, record)
        started.finished = True
        if accepted:
            self.progress.accepted += 1
        else:
            self.progress.given_up += 1

    def _judge(self, world: World, after: Mapping[str, tuple[Holding, ...]] | None) -> None:
        """Where every device ended that came to an end. ``after`` is ``None`` when the accounts could not be asked."""
        expected_in: dict[str, Counter[str]] = defaultdict(Counter)
        for started in self._devices.values():
            if started.expectation.registered_in is not None:
                expected_in[started.certificate_id][started.expectation.registered_in] += 1
        for number, started in self._devices.items():
            if not started.finished:
                continue  # cut short by an interruption: it has attempts on record, and no verdict
            place = started.expectation.account
            own = started.expectation.registered_in
            others = expected_in[started.certificate_id] - Counter([own] if own is not None else [])
            facts = DeviceFacts(
                device=number,
                certificate_id=started.certificate_id,
                addressed=world.addressed(started.group),
                expected_elsewhere=frozenset(others),
                abroad=world.abroad(started.group),
            )
            verdict = judge(
                facts,
                started.attempts,
                None if after is None else after.get(started.certificate_id, ()),
                started.expectation,
                user_expectation(self._fleet.file.groups[started.group]),
                before=started.before,
                things_known=place is None or makes_things(self._fleet, place) is not None,
            )
            self._writer.add_verdict(verdict, now=self._now())

    # --- small things ---

    def _wire(self) -> Wire:
        file = self._fleet.file
        tls = TLSSettings(
            roots=self._target.roots,
            minimum_version=file.tls.minimum_version,
            maximum_version=file.tls.maximum_version,
            group=file.tls.group,
            ciphers=file.tls.ciphers,
            alpn=file.tls.alpn,
            send_chain=file.tls.send_chain,
            chain=self._material.authority.chain,
        )
        limits = file.deadlines
        return Wire(
            context=TLSContext(tls),
            mqtt=MQTTSettings(version=file.mqtt.version, keep_alive=file.mqtt.keep_alive),
            deadlines=Deadlines(tcp=limits.tcp, tls=limits.tls, connack=limits.connack),
            hold=self._hold,
        )

    def _backoff(self) -> Backoff:
        retry = self._fleet.file.retry
        return Backoff(
            first_delay=retry.first_delay,
            factor=retry.backoff,
            jitter=retry.jitter,
            max_delay=retry.max_delay,
            attempts=retry.attempts,
        )

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
