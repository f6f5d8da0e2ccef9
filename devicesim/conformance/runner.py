"""Running the cases: every world by itself and all of them side by side, each from setup to removal.

A world's cases are judged together, when the last of them is done: what an account holds is listed once a world.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby

import trio

from devicesim.cloud.account import AccountClient, ControlPlaneError
from devicesim.cloud.setup import data_endpoint, default_policy, ensure_policy
from devicesim.cloud.teardown import POLICY_SECONDS, Made, remove
from devicesim.cloud.turns import Turns
from devicesim.conformance.cases import (
    Case,
    Place,
    Provisioning,
    RecordStatus,
    Role,
    expectation,
    record_mode,
    server_name,
)
from devicesim.conformance.listener import Listener
from devicesim.conformance.matrix import STAND_INS
from devicesim.conformance.player import Door, Pace, Played, Player
from devicesim.conformance.result import CaseResult, Seen, Status, judged, sni_words, unjudged
from devicesim.conformance.stage import Actor, Cast, Stage
from devicesim.errors import TargetError, leaves
from devicesim.fleet.device import Clock
from devicesim.fleet.target import Target
from devicesim.net.tls import TLSContext, TLSSettings
from devicesim.outcome import Attempt
from devicesim.pki.authority import new_shared_authority
from devicesim.pki.profile import KeyType, Profile, Subject
from devicesim.rules import JITR, JITR_NOBODY, Expectation

CA_VALIDITY = timedelta(days=1)
"""Of a world's CA: what a killed check leaves behind is soon worth nothing."""
SUBJECT = "devicesim check"
"""Begins the common name of every CA that a check registers."""
NAME = "devicesim-check"
"""Begins the name of every certificate, client, thing and policy of a check."""
REMOVE_SECONDS = 1800.0
"""The most that the removal of what a check made may take: at 5 calls a second, and with AWS's five minutes until a
policy that was detached can be deleted."""
LISTENER_TRIES = 5
"""After which a check goes on without being told of registrations."""

_FAULTS = frozenset(
    {
        *("InternalFailureException", "InternalException", "ServiceUnavailableException", "ThrottlingException"),
        # credentials that have expired meanwhile, or are not known any more
        *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidClientTokenId"),
        *("InvalidSignatureException", "SignatureDoesNotMatch", "UnrecognizedClientException"),
    }
)
"""Answers of a control plane that say nothing of what it allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where a check runs."""

    target: Target
    roles: Mapping[Role, str]
    """Names of the accounts that play them."""
    absent: Mapping[Role, str]
    """Why the others are not played: ``needs a second account in us-east-1``."""
    role_arns: Mapping[str, str | None]
    """What JITP assumes, by account name."""
    door: Door
    existing: bool
    """The accounts outlast the check: what is made in them is removed."""
    real: bool
    """They are AWS's: what they do stands against an inferred row."""
    pace: Pace
    journal: Callable[[Sequence[Made]], None]
    """Told of everything before it is made, so that it can be removed also when this process is killed."""


@dataclass(slots=True)
class Progress:
    """What a check has come to, for whoever shows it."""

    total: int
    phase: str = "reaching the accounts"
    done: int = 0
    wrong: int = 0


class Check:
    """One check. :meth:`execute` does it all."""

    def __init__(self, cases: Sequence[Case], setting: Setting, *, run_id: str, epoch: Callable[[], float]) -> None:
        self.progress = Progress(total=len(cases))
        self.results: dict[str, CaseResult] = {}
        """By the case's name, as they are judged."""
        self.notes: list[str] = []
        """What happened beside the cases."""
        self.left_behind: list[str] = []
        """What could not be removed, a line each."""
        self._standing: set[str] = set()
        """Worlds that are not removed yet."""
        self._cases = cases
        self._setting = setting
        self._run_id = run_id
        self._clock = Clock(epoch=epoch(), zero=trio.current_time())
        self._limiter = trio.CapacityLimiter(setting.pace.side_by_side)
        self._turns = Turns(setting.pace.devices_per_second)
        self._draw = random.Random(run_id).random  # noqa: S311  # spreads load, guards nothing
        self._actors: dict[Role, Actor] = {}
        self._places: dict[Role, Place] = {}
        self._unreachable: dict[Role, TargetError] = {}
        self._expected: dict[str, Expectation] = {}
        self._listeners: dict[str, Listener] = {}
        """By account name."""
        self._made: list[Made] = []
        """Beside the worlds."""

    @property
    def left(self) -> bool:
        """Whether something of the check is, or may be, left in accounts that exist."""
        return bool(self.left_behind or self._standing)

    async def execute(self) -> tuple[CaseResult, ...]:
        """Run every case that the accounts allow; the results in the order of the cases.

        Raises :class:`~devicesim.errors.TargetError` when no account can be reached. Cancelled, it removes what it made
        before it ends.
        """
        try:
            await self._reach()
            self._about_to_make([Made(account=each.name, policy=each.policy_name) for each in self._actors.values()])
            await self._make_policies()
            allowed = [case for case in self._cases if self._allowed(case)]
            async with trio.open_nursery() as listeners:
                await self._listen(allowed, listeners)
                self.progress.phase = "running"
                async with trio.open_nursery() as nursery:
                    for _, cases in groupby(sorted(allowed, key=_world_name), key=_world_name):
                        nursery.start_soon(self._play, list(cases))
                listeners.cancel_scope.cancel()
        finally:
            await self._leave()
        return tuple(self.results[case.name] for case in self._cases)

    # --- the accounts ---

    async def _reach(self) -> None:
        async with trio.open_nursery() as nursery:
            for role, name in self._setting.roles.items():
                nursery.start_soon(self._reach_account, role, name)
        if not self._actors:
            raise next(self._unreachable[role] for role in self._setting.roles)

    async def _reach_account(self, role: Role, name: str) -> None:
        access = self._setting.target.accounts[name]
        with ExitStack() as stack:
            try:
                client = AccountClient(access, calls_per_second=self._setting.pace.calls_per_second)
                stack.callback(client.close)
                await client.check_identity()
                endpoint = await data_endpoint(client)
            except TargetError as exc:
                self._unreachable[role] = exc
                return
            stack.pop_all()
        self._places[role] = Place(name=name, account_id=access.account_id, region=access.region, endpoint=endpoint)
        self._actors[role] = Actor(
            client=client,
            role_arn=self._setting.role_arns.get(name),
            policy_name=f"{NAME}-{self._run_id}",
        )

    async def _make_policies(self) -> None:
        """What lets devices connect in each account, where no world's setup makes it either."""
        for role, actor in list(self._actors.items()):
            try:
                await ensure_policy(actor.client, actor.policy_name, default_policy(actor.client.access))
            except TargetError as exc:
                self._unreachable[role] = exc

    async def _listen(self, cases: Sequence[Case], nursery: trio.Nursery) -> None:
        """Have somebody listen for registrations wherever a case of JITR is to end."""
        accounts = {self._expected[case.name].account for case in cases if self._announced(case)}
        context = TLSContext(TLSSettings(roots=self._setting.target.own_roots))
        backoff = replace(self._setting.pace.backoff, attempts=LISTENER_TRIES)
        for role, actor in self._actors.items():
            if actor.name not in accounts:
                continue
            endpoint, address = self._places[role].endpoint, self._address(role, 8883)
            assert address is not None, f"no case of {actor.name} was to be allowed"
            name, now = f"{NAME}-{self._run_id}-events", datetime.fromtimestamp(self._now(), UTC)
            listener = Listener(actor, endpoint=endpoint, address=address, name=name, now=now)
            self._about_to_make([listener.made()])
            reason = await nursery.start(listener.serve, context, backoff)
            if reason:
                self.notes.append(
                    f"{actor.name}: nobody could listen for registrations, so events are not compared: {reason}"
                )
            self._listeners[actor.name] = listener

    def _announced(self, case: Case) -> bool:
        """Whether the account tells of every connection of a certificate that is pending: where a template runs, too,
        is not known (aws-iot-behaviour.md §11 no. 11)."""
        return bool({JITR, JITR_NOBODY} & set(self._expected[case.name].rests_on))

    def _about_to_make(self, made: Sequence[Made]) -> None:
        self._setting.journal(made)
        self._made.extend(made)

    async def _leave(self) -> None:
        self.progress.phase = "removing what the check made" if self._setting.existing else "done"
        with trio.CancelScope(shield=True, deadline=trio.current_time() + REMOVE_SECONDS) as scope:
            async with trio.open_nursery() as nursery:
                for actor in self._actors.values():
                    nursery.start_soon(self._leave_account, actor)
        if scope.cancelled_caught:
            self.left_behind.append(f"policies {NAME}-{self._run_id}*: not all could be removed in time")

    async def _leave_account(self, actor: Actor) -> None:
        try:
            if self._setting.existing:
                # attached to what is left a policy stays, however long one waits
                patience = 0.0 if self.left_behind else POLICY_SECONDS
                await remove(actor.client, self._made, self.left_behind.append, patience=patience)
        finally:
            actor.client.close()

    # --- what can run ---

    def _allowed(self, case: Case) -> bool:
        """Whether the accounts allow a case; one that they do not has its result at once."""
        why = next(self._obstacles(case), None)
        if why is None:
            self._expected[case.name] = expectation(case, self._places)
            return True
        self._judged(replace(self._blank(case), status=Status.SKIPPED, reason=why))
        return False

    def _obstacles(self, case: Case) -> Iterator[str]:
        for role in sorted(case.roles):
            if role in self._setting.absent:
                yield self._setting.absent[role]
            if role in self._unreachable:
                yield str(self._unreachable[role])
        for role, holder in case.world.holders.items():
            if holder.provisioning is not Provisioning.JITR and self._actors[role].role_arn is None:
                yield f"JITP needs a role: accounts.{self._actors[role].name}.role_arn"
        if self._address(case.link.dials, case.transport.port) is None:
            place = self._places[case.link.dials]
            yield f"no address is known of port {case.transport.port} in {place.region}"

    def _address(self, role: Role, port: int) -> tuple[str, int] | None:
        place = self._places[role]
        return self._setting.door(place.name, place.endpoint, port)

    def _blank(self, case: Case) -> CaseResult:
        """A case's result before it has one."""
        places = self._places
        if not case.roles <= places.keys():
            # nobody plays them: names that stand for them
            places = {role: self._places.get(role) or _stand_in(role) for role in case.roles}
        expected = self._expected.get(case.name) or expectation(case, places)
        names = [(role, place.name) for role, place in places.items()]
        sni = sni_words(case.link, names)
        return unjudged(case, expected, places[case.link.dials], sni, server_name(case.link, places))

    # --- a world ---

    async def _play(self, cases: Sequence[Case]) -> None:
        """Set a world up, run its cases, judge them, remove it."""
        stage = self._stage(cases)
        self._setting.journal(stage.made())
        if self._setting.existing:
            self._standing.add(stage.world.name)
        try:
            await self._play_on(stage)
        except* TargetError as group:
            for cast in stage.casts:
                if cast.case.name not in self.results:
                    self._refused(cast.case, next(leaves(group)))
        finally:
            if self._setting.existing:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + REMOVE_SECONDS) as scope:
                    await stage.tear_down(self.left_behind.append)
                    self._standing.discard(stage.world.name)
                if scope.cancelled_caught:
                    self.left_behind.append(f"world {stage.world.name}: not all could be removed in time")

    def _refused(self, case: Case, error: TargetError) -> None:
        """A case that cannot run: on accounts that exist because they do not allow it, on our own for a fault."""
        refused = isinstance(error, ControlPlaneError) and error.code not in _FAULTS and self._setting.existing
        status, words = (Status.SKIPPED, "the account refuses it") if refused else (Status.FAILED, "setup failed")
        self._judged(replace(self._blank(case), status=status, reason=f"{words}: {error}"))

    def _stage(self, cases: Sequence[Case]) -> Stage:
        world = cases[0].world
        now = datetime.fromtimestamp(self._now(), UTC)
        authority = new_shared_authority(
            f"{SUBJECT} {self._run_id} {world.name}", KeyType.EC_P256, now=now, validity=CA_VALIDITY
        )
        casts = []
        for number, case in enumerate(cases):
            name = f"{NAME}-{self._run_id}-{world.name}-{number}"
            identity = authority.mint_random(number, profile=Profile(subject=Subject(common_name=name)))
            casts.append(Cast(case=case, identity=identity, name=name, certificate_id=identity.certificate_id))
        needed = frozenset().union(*(case.roles for case in cases))
        actors = {role: actor for role, actor in self._actors.items() if role in needed}
        settle = self._setting.pace.settle
        return Stage(world=world, authority=authority, actors=actors, casts=casts, now=now, settle=settle)

    async def _play_on(self, stage: Stage) -> None:
        player = Player(
            stage=stage,
            target=self._setting.target,
            places=self._places,
            door=self._setting.door,
            pace=self._setting.pace,
            limiter=self._limiter,
            clock=self._clock,
            draw=self._draw,
            turns=self._turns,
            throttled=self._setting.existing,
        )
        await stage.set_up(player.prime)
        before = await stage.holdings(after=False)
        played = {cast.certificate_id: Played() for cast in stage.casts}
        async with trio.open_nursery() as nursery:
            for cast in stage.casts:
                if cast.case.name not in stage.refused:
                    nursery.start_soon(self._act, player, cast, played[cast.certificate_id])
        things_of = {cast.certificate_id for cast in stage.casts if self._expected[cast.case.name].thing is not None}
        after = await stage.holdings(after=True, things_of=things_of)
        deadline = trio.current_time() + self._setting.pace.told
        for cast in stage.casts:
            if cast.case.name in stage.refused:
                self._refused(cast.case, stage.refused[cast.case.name])
                continue
            attempts = tuple(played[cast.certificate_id].attempts)
            due, events = await self._events(cast, attempts, deadline)
            seen = Seen(
                certificate_id=cast.certificate_id,
                thing=cast.name,
                abroad=self._abroad(cast.case),
                attempts=attempts,
                events=events,
                events_due=due,
                before=before[cast.certificate_id],
                after=after[cast.certificate_id],
                disconnected_after=played[cast.certificate_id].disconnected_after,
            )
            self._judge(cast.case, seen)

    async def _events(self, cast: Cast, attempts: Sequence[Attempt], deadline: float) -> tuple[int, int | None]:
        """How often accounts should have told of the certificate, and how often they did (:class:`Seen`)."""
        case, expected = cast.case, self._expected[cast.case.name]
        if not self._announced(case):
            connected = expected.registered_in or any(each.status.by_connecting for each in case.state.records.values())
            listening = [each for each in self._listeners.values() if each.listening]
            return 0, None if connected or not listening else sum(
                each.so_far(cast.certificate_id) for each in listening
            )
        listener = self._listeners.get(expected.account or "")
        if listener is None:
            return 0, None
        # whether AWS saw it as pending still is not known of a connection after its activation, or of a throttled one
        once = case.activated or self._setting.existing
        dropped = 1 if once else sum(each.failure is not None for each in attempts)
        primed = any(
            record.status is RecordStatus.PENDING and self._places[role].name == expected.account
            for role, record in case.state.records.items()
        )
        return dropped + primed, await listener.told(cast.certificate_id, dropped + primed, deadline)

    async def _act(self, player: Player, cast: Cast, played: Played) -> None:
        """One case, which stops no other."""
        try:
            await player.act(cast, self._expected[cast.case.name], played)
        except* TargetError as group:
            player.stage.refused[cast.case.name] = next(leaves(group))

    def _judge(self, case: Case, seen: Seen) -> None:
        blank = self._blank(case)
        wrong = _not_as_set_up(case, seen, self._places)
        if wrong:
            self._judged(replace(blank, status=Status.FAILED, reason=wrong))
            return
        sent = server_name(case.link, self._places)
        addressed = None
        if sent is not None:
            named = (place for place in self._places.values() if place.endpoint.lower() == sent.lower())
            addressed = next((place.name for place in named), None)
        expected = self._expected[case.name]
        self._judged(judged(blank, case, expected, seen, addressed=addressed, real=self._setting.real))

    def _abroad(self, case: Case) -> frozenset[str]:
        here = self._places[case.link.dials].region
        return frozenset(place.name for place in self._places.values() if place.region != here)

    def _judged(self, result: CaseResult) -> None:
        self.results[result.name] = result
        self.progress.done += 1
        self.progress.wrong += result.status not in (Status.AGREES, Status.SKIPPED)

    def _now(self) -> float:
        return self._clock.wall(trio.current_time())


def _world_name(case: Case) -> str:
    return case.world.name


def _not_as_set_up(case: Case, seen: Seen, places: Mapping[Role, Place]) -> str:
    """Why the accounts did not hold what the case needs when its device connected; empty when they did."""
    held = {each.account: each for each in seen.before}
    for role, record in case.state.records.items():
        status, mode, found = record.status.as_held, record_mode(case, role), held.get(places[role].name)
        if status is None:
            continue
        if found is None or found.status != status or found.mode not in (None, mode):
            words = "no record" if found is None else f"{found.status} in mode {found.mode}"
            return f"could not be set up: {places[role].name} was to hold it {status} in mode {mode}, and has {words}"
    return ""


def _stand_in(role: Role) -> Place:
    """For the account that nobody plays, in the words of a case that cannot run."""
    return replace(STAND_INS[role], name=f"account {role}")
