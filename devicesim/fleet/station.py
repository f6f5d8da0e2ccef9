"""A share of a run in the process of a worker: given, driven, asked, all by functions that are named in calls.

Nothing here knows by what engine it is called. :func:`give` and :func:`ask` answer at once, from whatever thread;
:func:`work` is the share's whole run and keeps its thread for as long. A share that is no longer asked for stops by
itself (:data:`LEASE_SECONDS`): whoever asked is gone, and load that nobody watches is an attack.
"""

import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from devicesim.errors import DevicesimError, leaves
from devicesim.fleet.device import Clock
from devicesim.fleet.exchange import Answer, Order, Outbox, State
from devicesim.fleet.meter import this_machine
from devicesim.fleet.openfiles import allow_open_files
from devicesim.fleet.shard import ShardPlan, ShardRun
from devicesim.fleet.wireform import Teller, read_plan

LEASE_SECONDS = 10.0
"""Without a question for so long a share stops. Less than the silence after which the asker gives a worker up
(:data:`devicesim.fleet.workers.SILENCE_SECONDS`): what is given up has stopped."""
WATCH_SECONDS = 0.5
OPEN_FILES = 1 << 20
"""More than anybody needs: a worker takes what its machine allows."""


class Station:
    """One share. All but :meth:`run` may be called from any thread."""

    def __init__(self, plan: ShardPlan, *, ahead: float, wall: Callable[[], float], lease: float) -> None:
        """``ahead``: seconds by which this machine's clock, ``wall``, is ahead of the asker's."""
        self._plan = plan
        self._ahead = ahead
        self._wall = wall
        self._lease = lease
        self._lock = threading.Lock()
        self._outbox = Outbox()
        self._state = State.ASSIGNED
        self._why = self._hint = ""
        self._order = Order(first=None)
        self._asked = time.monotonic()
        self._begun = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._changed: trio.Event | None = None

    @property
    def over(self) -> bool:
        """Nothing is driven, and all that was told is known to have arrived."""
        return self._state in (State.ENDED, State.FAILED) and self._outbox.empty

    def begin(self) -> None:
        """Say that it is about to run. Raises ``LookupError`` the second time."""
        with self._lock:
            if self._begun:
                raise LookupError("the share is being driven, or was, by another task")
            self._begun = True

    def ask(self, received: int, order: Order) -> Answer:
        """Take the order, give the batch after ``received``."""
        with self._lock:
            self._asked = time.monotonic()
            self._order = order
            state, why, hint = self._state, self._why, self._hint  # read before the batch: what ended has told all
            number, events, more = self._outbox.ask(received)
        if self._token is not None and self._changed is not None:
            with suppress(trio.RunFinishedError):  # it has ended in between
                self._token.run_sync_soon(self._wake)
        return Answer(state=state, number=number, events=events, more=more, why=why, hint=hint)

    async def run(self) -> None:
        """Drive the share: to its end, until it is told to stop, or until it is not asked for any more."""
        self._changed = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        try:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._stop_when_told, scope)
                    await self._drive()
                    nursery.cancel_scope.cancel()
            self._enter(State.ENDED)
        except* DevicesimError as group:
            error = next(leaves(group))
            self._enter(State.FAILED, str(error), error.hint)
        except* Exception as group:  # a bug of ours: it is told where somebody reads it, not in a worker's log
            bug = next(leaves(group))
            place = traceback.extract_tb(bug.__traceback__)[-1]
            self._enter(State.FAILED, f"{bug!r} at {place.filename}:{place.lineno}")
        with trio.move_on_after(self._lease):
            while not self._outbox.empty:
                await self._next_change()

    async def _drive(self) -> None:
        clock = Clock(epoch=self._wall() - self._ahead, zero=trio.current_time())
        share = ShardRun(self._plan, Teller(self._put), clock, this_machine())
        await share.arm()
        self._enter(State.ARMED)
        while (first := self._order.first) is None or self._order.stop:
            await self._next_change()
        self._enter(State.RUNNING)
        await share.run(clock.zero + first - clock.epoch)

    async def _stop_when_told(self, scope: trio.CancelScope) -> None:
        while not self._order.stop and time.monotonic() - self._asked < self._lease:
            await self._next_change()
        scope.cancel()

    async def _next_change(self) -> None:
        """Until it is asked again, or a moment."""
        self._changed = trio.Event() if self._changed is None or self._changed.is_set() else self._changed
        with trio.move_on_after(WATCH_SECONDS):
            await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def _put(self, event: str) -> None:
        with self._lock:
            self._outbox.put(event)

    def _enter(self, state: State, why: str = "", hint: str = "") -> None:
        with self._lock:
            self._state, self._why, self._hint = state, why, hint


_STATIONS: Final[dict[str, Station]] = {}
"""By key. It is the memory of this process: one that is started anew, be it at the same address, has no share."""


def give(key: str, plan: bytes, ahead: float) -> None:
    """Hand a share over; ``ahead`` as in :class:`Station`. Shares of old runs that are over are forgotten."""
    for old in [key for key, station in list(_STATIONS.items()) if station.over]:
        _STATIONS.pop(old, None)
    _STATIONS[key] = Station(read_plan(plan), ahead=ahead, wall=time.time, lease=LEASE_SECONDS)


def work(key: str) -> None:
    """Drive the share from beginning to end. Raises ``LookupError`` in a process that was not given it."""
    station = _STATIONS.get(key)
    if station is None:
        raise LookupError(f"no share {key!r} in this process")
    station.begin()
    allow_open_files(OPEN_FILES)
    trio.run(station.run)


def ask(key: str, received: int, order: Order) -> Answer:
    """What the share has told after batch ``received``, and how far it is; ``order`` as decided so far."""
    station = _STATIONS.get(key)
    if station is None:
        return Answer(state=State.UNKNOWN, number=0)
    return station.ask(received, order)


def forget(key: str) -> None:
    """Drop a share, whatever became of it: its keys with it."""
    _STATIONS.pop(key, None)
