"""How devices arrive: the ``[arrival]`` section of a fleet file, and the schedule that it asks for."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from devicesim.errors import Problem
from devicesim.fleet.fields import MAX_DEVICES, Deadline, Model, Rate, RateFromZero, Seconds
from devicesim.fleet.pacing import Bursts, Closed, ConstantRate, Ramp, Schedule, Stages

MAX_STAGES = 1000


class Stage(Model):
    """A ramp, as in k6's ramping-arrival-rate."""

    target: RateFromZero
    """Starts a second at its end: the rate goes there evenly."""
    duration: Seconds
    """A number of seconds or a text such as `"1m"`; 0 jumps to the target."""


class Burst(Model):
    """A power cut: many devices at once."""

    size: Annotated[int, Field(ge=1, le=MAX_DEVICES)] | None = None
    """Devices that start at once. Left out: all of them, and then `every` too."""
    every: Deadline | None = None
    """Seconds from one burst to the next."""


class Arrival(Model):
    """When devices start: one schedule for the whole fleet, groups interleaved. One of `rate`, `stages`, `burst` and
    `model = "closed"`."""

    rate: Rate = 50.0
    """Starts a second: a number or a text such as `"50/s"` or `"3000/min"`."""
    start_rate: RateFromZero = 0.0
    """With `stages`: the rate from which the first goes."""
    # that there is one is seen to by contradictions.py: pydantic counts a wrong stage as none, and would tell both
    stages: Annotated[tuple[Stage, ...], Field(max_length=MAX_STAGES, json_schema_extra={"minItems": 1})] | None = None
    """Ramps one after the other; after the last the rate stays at its target."""
    burst: Burst | None = None
    model: Literal["open", "closed"] = "open"
    """`open`: starts are due at their times whatever the target does. `closed`: `concurrency` devices at a time, the
    next starts when one has come to its end; a slow target then slows its own load down."""
    concurrency: Annotated[int, Field(ge=1, le=MAX_DEVICES)] | None = None
    """Devices at a time, with `closed`."""
    max_under_way: Annotated[int, Field(ge=1, le=MAX_DEVICES)] | None = None
    """With `open`: a start that is due while so many devices are under way is dropped, and counted."""
    late_after: Seconds = 1.0
    """A start that is further behind its schedule than this counts as late."""
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the starts that may be late or dropped; with more the load counts as not generated (exit code 98)."""


def schedule_of(arrival: Arrival, count: int) -> Schedule:
    """When the ``count`` devices of a run start."""
    if arrival.model == "closed":
        return Closed(arrival.concurrency or 1)
    if arrival.stages:
        ramps = [Ramp(target=each.target, duration=each.duration) for each in arrival.stages]
        return Stages(arrival.start_rate, ramps, count)
    if arrival.burst is not None:
        size = min(arrival.burst.size or count, max(1, count))
        return Bursts(size=size, every=0.0 if size >= count else arrival.burst.every or 0.0)
    return ConstantRate(arrival.rate)


def schedule_problems(arrival: Arrival, count: int) -> Iterator[Problem]:
    """What keeps a schedule from starting ``count`` devices."""
    schedule = schedule_of(arrival, count)
    if isinstance(schedule, Stages) and schedule.most < count:
        yield Problem(
            "arrival.stages",
            f"the rate ends at 0 after {schedule.most:g} starts, but there are {count} devices; "
            "let the last target be more than 0, or the stages longer",
        )
