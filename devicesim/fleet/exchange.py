"""How what a share tells reaches the run once, however often it is asked for; and how far each share has come. Pure.

A worker is asked (pulled), it does not send: what it tells waits in its :class:`Outbox` as numbered batches, and a
batch is kept, and given again, until an asker says that it has it. So an answer that is lost or comes twice loses and
doubles nothing, a slow asker slows nothing down but itself, and a worker that is not asked any more knows that it is
alone. The other side is the :class:`Book`: it takes each batch once and in order, and moves the shares on::

    ASSIGNED -> ARMED -> RUNNING -> ENDED        the way of a share whose worker lives
       any that is not over     -> LOST          its worker is gone or silent: nothing it may still tell is taken

Orders are levels, not edges: each question repeats all that has been decided, so one that is lost is made good by the
next.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

BATCH_MOST = 2000
"""Events in a batch, some 400 KB."""


class State(StrEnum):
    """How far a share has come."""

    ASSIGNED = "assigned"
    """Not yet ready to start."""
    ARMED = "armed"
    """Its first devices are minted; it waits for the word."""
    RUNNING = "running"
    ENDED = "ended"
    """All its devices have come to their end, or it was told to stop. What it told may still be on its way."""
    FAILED = "failed"
    """It cannot be driven: ``Answer.why``, and nothing more comes."""
    UNKNOWN = "unknown"
    """The worker knows of no such share: it is not the process that was given it."""
    LOST = "lost"
    """Said by the book, never by a worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a worker is told with each question."""

    first: float | None
    """When the schedule begins, in seconds since the Unix epoch by the asker's clock; ``None``: wait."""
    stop: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a worker says to a question."""

    state: State
    number: int
    """Of the batch; 0: there is none."""
    events: str = ""
    """As :func:`devicesim.fleet.wireform.replay` reads them."""
    more: bool = False
    """More is waiting: ask again at once."""
    why: str = ""
    hint: str = ""
    """Of a share that failed."""


class Outbox:
    """Events that wait to be asked for."""

    def __init__(self, most: int = BATCH_MOST) -> None:
        self._most = most
        self._waiting: list[str] = []
        self._given = ""
        self._number = 0
        self._held = False
        """The batch of this number is not known to have arrived."""

    @property
    def empty(self) -> bool:
        """All that was told is known to have arrived."""
        return not self._waiting and not self._held

    def put(self, event: str) -> None:
        self._waiting.append(event)

    def ask(self, received: int) -> tuple[int, str, bool]:
        """Number and events of the batch that comes after ``received``, and whether more is waiting behind it.

        Raises ``ValueError`` for a number that was not given out, or whose batch is gone.
        """
        last = self._number - 1 if self._held else self._number
        if received not in (last, self._number):
            raise ValueError(f"batch {received} is said to have arrived; {last} to {self._number} can have")
        if received == self._number:
            self._held, self._given = False, ""
            if not self._waiting:
                return 0, "", False
            self._given = ",".join(self._waiting[: self._most])
            del self._waiting[: self._most]
            self._number += 1
            self._held = True
        return self._number, self._given, bool(self._waiting)


@dataclass(slots=True, eq=False)
class Share:
    """One share, as the run sees it."""

    worker: str
    """Address."""
    devices: int
    state: State = State.ASSIGNED
    received: int = 0
    """Number of the last batch that has arrived."""
    heard: float = 0.0
    """When its worker answered last."""
    told: int = 0
    """Positions of its schedule that are done with: started, failed or dropped. They come in the schedule's order."""
    under_way: int = 0
    """Devices that were started and have not come to their end."""
    why: str = ""
    """What became of a share that was lost or failed."""
    hint: str = ""

    pending: bool = False
    """Its worker does not know yet that the last batch has arrived, and keeps it."""

    @property
    def over(self) -> bool:
        return self.state in (State.ENDED, State.FAILED, State.LOST) and not self.pending


class Book:
    """All shares of a run. Times are readings of one monotonic clock, in seconds."""

    def __init__(self, shares: Iterable[Share], *, silence: float) -> None:
        """``silence``: seconds without an answer after which a share is lost."""
        self.shares = tuple(shares)
        self._silence = silence
        self._first: float | None = None
        self._stop = False

    @property
    def all_armed(self) -> bool:
        """All wait for the word, and it may be given."""
        return not self._stop and all(share.state is State.ARMED for share in self.shares)

    @property
    def over(self) -> bool:
        return all(share.over for share in self.shares)

    @property
    def order(self) -> Order:
        return Order(first=self._first, stop=self._stop)

    def begin(self, first: float) -> None:
        """Every share is told to start its schedule at ``first``."""
        self._first = first

    def stop(self) -> None:
        """Every share is told to stop; what it has told by then still comes."""
        self._stop = True

    def answered(self, share: Share, answer: Answer, now: float) -> str:
        """Take an answer: the events that are new. Nothing of a share that is over is."""
        if share.over:
            return ""
        share.heard = now
        if answer.state is State.UNKNOWN:
            self.lost(share, "it is another process now: it was started anew")
            return ""
        if answer.number > share.received + 1:
            self.lost(share, f"batch {answer.number} of what it told came after {share.received}")
            return ""
        fresh = answer.number == share.received + 1
        if fresh:
            share.received = answer.number
        share.state = answer.state
        share.pending = answer.number != 0  # an answer without a batch: the worker knows that the last has arrived
        share.why, share.hint = answer.why, answer.hint
        return answer.events if fresh else ""

    def lost(self, share: Share, why: str) -> None:
        """Its worker is gone."""
        if not share.over:
            share.state, share.why, share.pending = State.LOST, why, False

    def is_silent(self, share: Share, now: float) -> bool:
        """It has not answered for too long."""
        return not share.over and now - share.heard > self._silence
