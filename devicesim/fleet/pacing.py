"""When each device starts, and when it tries again. Pure: a schedule is arithmetic, randomness comes in as a number.

The workload is open: starts are due at their times whatever the target does, so a slow target cannot slow its own load
down (coordinated omission). Latency is counted from the intended start.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The place of one device in the run."""

    device: int
    """The device's number in the run: its place in the schedule, from 0."""
    group: str
    member: int
    """The device's number in its group, from 0."""


def interleave(counts: Mapping[str, int]) -> list[Slot]:
    """Every device of every group, the groups mixed evenly over the whole schedule.

    Each group's members are spread over the unit interval and taken in that order, so that every account is under load
    from the first second to the last. Deterministic.
    """
    order = sorted(
        ((member + 0.5) / count, position, member)
        for position, count in enumerate(counts.values())
        for member in range(count)
    )
    names = list(counts)
    return [Slot(device=n, group=names[position], member=member) for n, (_, position, member) in enumerate(order)]


def constant_rate(rate: float) -> Callable[[int], float]:
    """``start(n)``: seconds from the beginning of the run until start number ``n`` is due."""
    if rate <= 0:
        raise ValueError(f"rate {rate!r} is not positive")
    return lambda n: n / rate


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
