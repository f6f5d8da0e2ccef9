"""When each device starts, and when it tries again. Pure: a schedule is arithmetic, randomness comes in as a number.

The workload is open unless the fleet file says otherwise: starts are due at their times whatever the target does, so a
slow target cannot slow its own load down (coordinated omission). Latency is counted from the intended start.

General theory: a schedule gives the rate of starts over time; start number ``n`` (from 0) is due at the first moment
after which more than ``n`` starts are due, that is at the inverse of the integrated rate. So a constant rate r spaces
starts by 1/r from 0 on, nothing is due while the rate is 0, and the due time of any start is found without those before
it: a process that has every k-th position makes exactly its share of the same schedule.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, inf, sqrt
from typing import Protocol

WINDOW = 4096
"""Slots that are put in order at a time: few enough to be cheap in memory, many enough to be cheap each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The place of one device in the run."""

    device: int
    """The device's number in the run: its place in the schedule, from 0."""
    group: str
    member: int
    """The device's number in its group, from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A share of a run: every ``step``-th position of the schedule from ``first`` on, ``count`` of them."""

    first: int
    step: int
    count: int

    def positions(self) -> range:
        return range(self.first, self.first + self.step * self.count, self.step)


def split(total: int, parts: int) -> list[Shard]:
    """``total`` positions dealt out in turn: no gap, no overlap, sizes differ by at most 1, none is empty.

    Every share spans the whole schedule, so that each process has its part of the load from the first second on. There
    are fewer than ``parts`` when there is not a position for each. Raises ``ValueError`` unless ``parts`` is positive.
    """
    if parts < 1:
        raise ValueError(f"{parts} parts: at least 1 is needed")
    return [
        Shard(first=part, step=parts, count=(total - part + parts - 1) // parts) for part in range(min(parts, total))
    ]


def interleave(counts: Mapping[str, int]) -> list[Slot]:
    """Every device of every group, the groups mixed evenly over the whole schedule: :func:`slots` of all of them."""
    return list(slots(counts))


def slots(counts: Mapping[str, int], shard: Shard | None = None) -> Iterator[Slot]:
    """The devices of all groups, or of a share of the run, in the schedule's order.

    Each group's members are spread over the unit interval and taken in that order, so that every account is under load
    from the first second to the last. Deterministic, and lazy: windows of the interval are put in order one at a time,
    and those before a share begins, or after it ends, not at all. Raises ``ValueError`` for a share beyond the devices.
    """
    names, sizes = list(counts), list(counts.values())
    total = sum(sizes)
    wanted = range(total) if shard is None else shard.positions()
    if not wanted:
        return
    if wanted[0] < 0 or wanted[-1] >= total:
        raise ValueError(f"{shard} is not a share of {total} devices")
    windows = max(1, total // WINDOW)
    # the devices before a point are its share of them all, give or take less than one of each group
    window = max(0, (wanted[0] - len(sizes)) * windows // total - 1)
    below = [_members_below(window / windows, size) for size in sizes]
    for n in range(window, windows):
        upto = [_members_below((n + 1) / windows, size) for size in sizes] if n + 1 < windows else sizes
        rank, end = sum(below), sum(upto)
        if end > wanted[0]:
            order = sorted(
                ((member + 0.5) / size, group, member)
                for group, size in enumerate(sizes)
                for member in range(below[group], upto[group])
            )
            first = max(wanted[0], rank + (wanted[0] - rank) % wanted.step)
            for position in range(first, min(end, wanted[-1] + 1), wanted.step):
                _, group, member = order[position - rank]
                yield Slot(device=position, group=names[group], member=member)
        if end > wanted[-1]:
            return
        below = upto


def _members_below(point: float, size: int) -> int:
    """How many of a group's members stand before a point of the unit interval."""
    count = min(size, max(0, ceil(size * point - 0.5)))
    # by the same division as the order itself, for the product may be rounded to the other side
    while count and (count - 0.5) / size >= point:
        count -= 1
    while count < size and (count + 0.5) / size < point:
        count += 1
    return count


# --- schedules ---


class Schedule(Protocol):
    """When starts are due. Seconds are counted from the beginning of the run, starts from 0."""

    @property
    def peak_rate(self) -> float | None:
        """The most starts that are due within a second; ``None`` where the target decides."""

    def start(self, n: int) -> float:
        """Seconds until start number ``n`` is due; never less than those of the start before it.

        Raises ``ValueError`` when it never is.
        """

    def duration(self, count: int) -> float | None:
        """Seconds until the last of ``count`` starts is due; ``None`` where the target decides."""

    def most_within(self, seconds: float, count: int) -> int:
        """The most of ``count`` starts that are due within any so many seconds; at most 1 too many."""

    def describe(self) -> str:
        """For people, as in ``50 starts/s``."""


@dataclass(frozen=True, slots=True)
class ConstantRate:
    """So many starts a second, evenly."""

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < inf:
            raise ValueError(f"rate {self.rate!r} is not positive")

    @property
    def peak_rate(self) -> float:
        return self.rate

    def start(self, n: int) -> float:
        return n / self.rate

    def duration(self, count: int) -> float:
        return self.start(max(0, count - 1))

    def most_within(self, seconds: float, count: int) -> int:
        return min(count, int(self.rate * seconds) + 1)

    def describe(self) -> str:
        return f"{self.rate:g} starts/s"


def constant_rate(rate: float) -> Callable[[int], float]:
    """``start(n)`` of a constant rate. Raises ``ValueError`` when it is not positive."""
    return ConstantRate(rate).start


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """The rate goes evenly from where it is to ``target`` starts a second, within ``duration`` seconds; 0 jumps."""

    target: float
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segment:
    """A time over which the rate is a straight line."""

    begin: float
    """Seconds."""
    end: float
    """Seconds; the last one has no end."""
    rate: float
    """Starts a second at its beginning."""
    slope: float
    """By how much the rate grows a second."""
    before: float
    """Starts before it: the integral of the rate."""

    def starts(self, seconds: float) -> float:
        """The integral of the rate over its first ``seconds``."""
        if self.slope:
            return seconds * (self.rate + self.slope * seconds / 2)
        return seconds * self.rate if self.rate else 0.0  # also of the last one, which has no end

    def when(self, starts: float) -> float:
        """Seconds from its beginning until so many starts, by the root of ``rate t + slope t^2 / 2 = starts`` in the
        form that does not cancel."""
        if starts <= 0:
            return 0.0
        return 2 * starts / (self.rate + sqrt(max(0.0, self.rate**2 + 2 * self.slope * starts)))


class Stages:
    """Ramps one after the other, as k6's ramping-arrival-rate; after the last the rate stays at its target."""

    def __init__(self, start_rate: float, ramps: Sequence[Ramp], count: int) -> None:
        """``count``: the starts of the run, for the part of the ramps that they reach."""
        self._ramps = tuple(ramps)
        self._segments = tuple(_segments(start_rate, ramps))
        self._ends = [each.before + each.starts(each.end - each.begin) for each in self._segments]
        self._begins = [each.begin for each in self._segments]
        last = self._ends[-1]
        self.most: float = inf if last == inf else ceil(last)
        """Starts that are ever due."""
        self._peak = max(self._rates(self.duration(count))) if count <= self.most else max(self._rates(inf))

    @property
    def peak_rate(self) -> float:
        return self._peak

    def start(self, n: int) -> float:
        # the first segment that ends with more than n starts: a pause goes to its end, where starts are due again
        place = bisect_right(self._ends, n)
        if place == len(self._ends):
            raise ValueError(f"start {n} is never due: the rate ends at 0 after {self.most:g} starts")
        segment = self._segments[place]
        return min(segment.begin + segment.when(n - segment.before), segment.end)

    def duration(self, count: int) -> float:
        return self.start(max(0, count - 1))

    def most_within(self, seconds: float, count: int) -> int:
        # while neither end of the window passes a corner, what is due in it is a parabola of when it begins; its most
        # is at such a moment, or where the rate is the same at both ends
        last = max(0.0, self.duration(count) - seconds)
        corners = {each.begin - shift for each in self._segments for shift in (0.0, seconds)}
        begins = sorted({0.0, last, *(each for each in corners if 0 < each < last)})
        level = []
        for low, high in pairwise(begins):
            one, two = low + (high - low) / 4, high - (high - low) / 4
            grows, later = (self._rate(t + seconds) - self._rate(t) for t in (one, two))
            if grows > later and low < (top := one + (two - one) * grows / (grows - later)) < high:
                level.append(top)
        most = max(self._due_by(t + seconds) - self._due_by(t) for t in (*begins, *level))
        return min(count, int(most) + 1)

    def describe(self) -> str:
        many = len(self._ramps)
        words = f"{many} stage{'s' if many != 1 else ''}"
        target = self._ramps[-1].target
        if self._peak > target:
            return f"{words}, at most {self._peak:g} starts/s"
        return f"{words} to {target:g} starts/s"

    def _at(self, t: float) -> _Segment:
        return self._segments[bisect_right(self._begins, t) - 1]

    def _rate(self, t: float) -> float:
        segment = self._at(t)
        return segment.rate + segment.slope * (t - segment.begin)

    def _due_by(self, t: float) -> float:
        segment = self._at(t)
        return segment.before + segment.starts(t - segment.begin)

    def _rates(self, until: float) -> Iterator[float]:
        """Rates at the corners of the segments, up to a time."""
        for each in self._segments:
            if each.begin <= until:
                yield each.rate
                yield each.rate + each.slope * (min(each.end, until) - each.begin) if each.slope else each.rate


def _segments(start_rate: float, ramps: Sequence[Ramp]) -> Iterator[_Segment]:
    begin, rate, before = 0.0, start_rate, 0.0
    for ramp in ramps:
        if ramp.duration > 0:
            slope = (ramp.target - rate) / ramp.duration
            segment = _Segment(begin=begin, end=begin + ramp.duration, rate=rate, slope=slope, before=before)
            yield segment
            begin, before = segment.end, before + segment.starts(ramp.duration)
        rate = ramp.target
    yield _Segment(begin=begin, end=inf, rate=rate, slope=0.0, before=before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """``size`` at once, every so many seconds: the lights go on again after a power cut."""

    size: int
    every: float
    """Seconds; 0 with a single burst."""

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.every < inf:
            raise ValueError(f"bursts of {self.size} every {self.every!r} s")

    @property
    def peak_rate(self) -> float:
        return self.size * ceil(1 / self.every) if self.every else self.size

    def start(self, n: int) -> float:
        return n // self.size * self.every

    def duration(self, count: int) -> float:
        return self.start(max(0, count - 1))

    def most_within(self, seconds: float, count: int) -> int:
        return min(count, self.size * (int(seconds / self.every) + 1) if self.every else self.size)

    def describe(self) -> str:
        return f"bursts of {self.size} every {self.every:g} s" if self.every else f"all {self.size} at once"


@dataclass(frozen=True, slots=True)
class Closed:
    """So many devices at a time: the next starts when one has come to its end, so the target sets the pace."""

    concurrency: int

    @property
    def peak_rate(self) -> None:
        return None

    def start(self, n: int) -> float:  # noqa: ARG002  # of any start: it is due at once, and waits for its place
        return 0.0

    def duration(self, count: int) -> None:  # noqa: ARG002
        return None

    def most_within(self, seconds: float, count: int) -> int:  # noqa: ARG002  # as fast as the target lets them
        return count

    def describe(self) -> str:
        return f"closed, {self.concurrency} at a time"


# --- trying again ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a refused device waits before its next try."""

    first_delay: tuple[float, float]
    """Seconds: shortest and longest delay before the second try."""
    factor: float
    jitter: float
    """Share by which each delay after the first is stretched or shortened, 0 to 1."""
    max_delay: float
    """Seconds; no delay is longer."""
    attempts: int
    """Tries in all."""

    def delays(self, draw: Callable[[], float]) -> Iterator[float]:
        """Seconds to wait before the second, third, ... try; it ends when the device gives up.

        ``draw`` yields numbers in [0, 1); one is taken for each delay.
        """
        shortest, longest = self.first_delay
        base = 0.0
        for retry in range(1, self.attempts):
            u = draw()
            base = shortest + u * (longest - shortest) if retry == 1 else base * self.factor
            stretched = base if retry == 1 else base * (1 + self.jitter * (2 * u - 1))
            yield min(self.max_delay, stretched)
