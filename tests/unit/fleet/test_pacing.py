"""When devices start and try again."""

import math
import time
from bisect import bisect_right
from collections.abc import Callable
from itertools import islice, pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from devicesim.fleet.pacing import (
    WINDOW,
    Backoff,
    Bursts,
    Closed,
    ConstantRate,
    Ramp,
    Schedule,
    Shard,
    Stages,
    constant_rate,
    interleave,
    slots,
    split,
)

BACKOFF = Backoff(first_delay=(3.0, 5.0), factor=2.0, jitter=0.5, max_delay=20.0, attempts=5)

RATES = st.one_of(st.just(0.0), st.floats(0.1, 500))
RAMPS = st.lists(
    st.builds(Ramp, target=RATES, duration=st.one_of(st.just(0.0), st.floats(0.01, 20))), min_size=1, max_size=6
)
GROUPS = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 60), min_size=1, max_size=4)


def ramp(target: float, duration: float) -> Ramp:
    return Ramp(target=target, duration=duration)


# --- who is at which place ---


def test_groups_are_mixed_evenly() -> None:
    order = [slot.group for slot in interleave({"a": 6, "b": 3})]

    assert order == ["a", "b", "a", "a", "b", "a", "a", "b", "a"]


@settings(max_examples=100, deadline=None)
@given(GROUPS)
def test_every_device_has_one_slot_and_members_keep_their_order(counts: dict[str, int]) -> None:
    order = interleave(counts)

    assert [slot.device for slot in order] == list(range(sum(counts.values())))
    for group, count in counts.items():
        assert [slot.member for slot in order if slot.group == group] == list(range(count))
    half = len(order) // 2
    for group, count in counts.items():
        assert abs(sum(slot.group == group for slot in order[:half]) - count / 2) <= len(counts)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 4 * WINDOW), min_size=1, max_size=5),
    st.integers(0, 20 * WINDOW),
    st.integers(1, 3 * WINDOW),
    st.integers(0, 200),
)
def test_a_share_has_the_slots_that_the_whole_has_at_its_positions(
    sizes: list[int], first: int, step: int, count: int
) -> None:
    counts = {f"group-{n}": size for n, size in enumerate(sizes)}
    total = sum(sizes)
    first %= total
    count = min(count, (total - first + step - 1) // step)
    # in exact arithmetic, where the code has windows of floating-point numbers
    whole = math.lcm(*sizes)
    order = sorted(
        ((2 * member + 1) * whole // size, group, member) for group, size in enumerate(sizes) for member in range(size)
    )

    share = list(slots(counts, Shard(first=first, step=step, count=count)))

    assert [slot.device for slot in share] == list(range(first, first + count * step, step))
    assert [(slot.group, slot.member) for slot in share] == [
        (f"group-{order[slot.device][1]}", order[slot.device][2]) for slot in share
    ]


def test_the_end_of_ten_million_devices_is_found_without_those_before_it() -> None:
    counts = {"a": 3_333_333, "b": 6_666_667}
    began = time.process_time()

    last = list(slots(counts, Shard(first=9_999_990, step=1, count=10)))
    first = list(islice(slots(counts), 3))

    assert [slot.device for slot in last] == list(range(9_999_990, 10_000_000))
    assert {(slot.group, slot.member) for slot in last} >= {("a", 3_333_332), ("b", 6_666_666)}
    assert [(slot.group, slot.member) for slot in first] == [("b", 0), ("a", 0), ("b", 1)]
    assert time.process_time() - began < 1


def test_a_share_beyond_the_devices_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a share of 3 devices"):
        next(slots({"a": 3}, Shard(first=1, step=1, count=3)))


def test_no_position_is_in_no_share() -> None:
    assert list(slots({"a": 3}, Shard(first=3, step=1, count=0))) == []
    assert interleave({}) == []


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2000), st.integers(1, 64))
def test_shares_have_no_gap_no_overlap_and_differ_by_at_most_one(total: int, parts: int) -> None:
    shares = split(total, parts)

    assert sorted(position for share in shares for position in share.positions()) == list(range(total))
    sizes = {share.count for share in shares}
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert len(shares) == min(parts, total)
    assert 0 not in sizes


def test_at_least_one_part_is_needed() -> None:
    with pytest.raises(ValueError, match="0 parts"):
        split(10, 0)


# --- when it is due ---


def test_a_constant_rate_spaces_the_starts() -> None:
    start = constant_rate(4.0)

    assert [start(n) for n in range(4)] == [0.0, 0.25, 0.5, 0.75]
    assert ConstantRate(50.0).describe() == "50 starts/s"
    assert ConstantRate(50.0).duration(101) == 2.0
    assert ConstantRate(50.0).duration(0) == 0.0
    for wrong in (0, math.nan, math.inf):
        with pytest.raises(ValueError, match="not positive"):
            constant_rate(wrong)


def test_a_ramp_from_nothing_has_its_starts_at_the_roots() -> None:
    schedule = Stages(0.0, [ramp(100, 50)], 10_000)

    # the integral of 2 t is t^2: start n at its root, 2500 starts in the ramp, then 100 a second
    assert [schedule.start(n) for n in (0, 1, 4, 100, 2400)] == pytest.approx([0, 1, 2, 10, math.sqrt(2400)])
    assert schedule.start(2500) == pytest.approx(50)
    assert schedule.start(2600) == pytest.approx(51)
    assert schedule.duration(2601) == pytest.approx(51)
    assert (schedule.peak_rate, schedule.describe(), schedule.most) == (100, "1 stage to 100 starts/s", math.inf)


def test_nothing_is_due_in_a_pause_and_the_next_start_at_its_end() -> None:
    schedule = Stages(10.0, [ramp(10, 1), ramp(0, 0), ramp(0, 5), ramp(10, 0)], 100)

    assert [schedule.start(n) for n in (9, 10, 11)] == pytest.approx([0.9, 6.0, 6.1])
    assert Stages(0.0, [ramp(0, 3), ramp(10, 0)], 100).start(0) == pytest.approx(3)


def test_a_rate_that_ends_at_0_starts_what_is_under_it_and_no_more() -> None:
    schedule = Stages(10.0, [ramp(0, 10)], 50)

    assert schedule.most == 50
    assert schedule.start(49) == pytest.approx(10 - math.sqrt(0.2) * math.sqrt(10))
    with pytest.raises(ValueError, match="start 50 is never due: the rate ends at 0 after 50 starts"):
        schedule.start(50)


def test_the_peak_is_that_of_the_part_of_the_ramps_which_the_starts_reach() -> None:
    ramps = [ramp(100, 50), ramp(400, 50), ramp(20, 10)]

    assert Stages(0.0, ramps, 26).peak_rate == pytest.approx(10)
    assert Stages(0.0, ramps, 1_000_000).peak_rate == 400
    assert Stages(0.0, ramps, 1_000_000).describe() == "3 stages, at most 400 starts/s"
    assert Stages(50.0, [ramp(7, 0)], 10).peak_rate == 7  # 50 is never reached


def test_bursts_come_all_at_once_every_so_often() -> None:
    schedule = Bursts(size=500, every=60.0)

    assert [schedule.start(n) for n in (0, 499, 500, 1499)] == [0.0, 0.0, 60.0, 120.0]
    assert schedule.duration(1500) == 120.0
    assert (schedule.peak_rate, schedule.describe()) == (500, "bursts of 500 every 60 s")
    assert Bursts(size=10, every=0.3).peak_rate == 40  # at 0, 0.3, 0.6 and 0.9 s
    assert Bursts(size=9, every=0.0).describe() == "all 9 at once"
    for size, every in ((0, 1.0), (5, -1.0), (5, math.nan)):
        with pytest.raises(ValueError, match="bursts of"):
            Bursts(size=size, every=every)


def test_a_closed_model_has_everything_due_at_once_and_no_rate() -> None:
    schedule: Schedule = Closed(100)

    assert schedule.start(10**6) == 0.0
    assert schedule.duration(10**6) is None
    assert schedule.peak_rate is None
    assert schedule.describe() == "closed, 100 at a time"


def rate_at(start_rate: float, ramps: list[Ramp]) -> Callable[[float], float]:
    """The rate over time, from the words of k6's documentation."""

    def rate(t: float) -> float:
        level = start_rate
        for each in ramps:
            if t < each.duration:
                return level + (each.target - level) * t / each.duration
            t -= each.duration
            level = each.target
        return level

    return rate


def integrate(rate: Callable[[float], float], until: float, corners: list[float]) -> float:
    """By the trapezium rule, between corners, where the rate may jump."""
    total = 0.0
    for low, high in pairwise([0.0, *(each for each in corners if 0 < each < until), until]):
        width = (high - low) / 20
        for n in range(20):
            middle = low + (n + 0.5) * width
            total += rate(middle) * width
    return total


@settings(max_examples=300, deadline=None)
@given(RATES, RAMPS, st.integers(0, 3000))
def test_a_start_is_due_when_the_integral_of_the_rate_is_its_number(
    start_rate: float, ramps: list[Ramp], n: int
) -> None:
    schedule = Stages(start_rate, ramps, 1)
    assume(n < schedule.most)
    rate = rate_at(start_rate, ramps)
    corners = [sum(each.duration for each in ramps[:many]) for many in range(1, len(ramps) + 1)]

    due = schedule.start(n)

    assert integrate(rate, due, corners) == pytest.approx(n, rel=1e-6, abs=1e-4)
    # and not in a pause: right after it more are due
    assert integrate(rate, due + 1e-3, corners) > integrate(rate, due, corners) or rate(due + 1e-3) == 0


@settings(max_examples=200, deadline=None)
@given(RATES, RAMPS)
def test_no_start_is_due_before_the_one_before_it(start_rate: float, ramps: list[Ramp]) -> None:
    schedule = Stages(start_rate, ramps, 1)
    times = [schedule.start(n) for n in range(int(min(schedule.most, 2000)))]

    assert all(one <= two for one, two in pairwise(times))
    assert all(each >= 0 for each in times)


@settings(max_examples=200, deadline=None)
@given(RATES, RAMPS, st.integers(1, 1000), st.floats(0.01, 30))
@example(0.0, [ramp(113, 0.5), ramp(0, 4)], 128, 1.0)  # its most is near the end of a parabola
def test_the_most_within_a_window_is_what_a_look_at_every_start_finds(
    start_rate: float, ramps: list[Ramp], count: int, seconds: float
) -> None:
    schedule = Stages(start_rate, ramps, count)
    assume(schedule.most >= count)
    times = [schedule.start(n) for n in range(count)]

    seen = max(bisect_right(times, t + seconds) - n for n, t in enumerate(times))

    # the window may begin between two starts, and its ends may be just within it
    assert seen - 1 <= schedule.most_within(seconds, count) <= seen + 1


@pytest.mark.parametrize(
    ("schedule", "seconds", "most"),
    [
        (ConstantRate(50.0), 10.0, 501),
        (ConstantRate(50.0), 1e6, 1000),
        (Bursts(size=100, every=60.0), 59.0, 100),
        (Bursts(size=100, every=60.0), 60.0, 200),
        (Bursts(size=1000, every=0.0), 1.0, 1000),
        (Closed(10), 1.0, 1000),
    ],
)
def test_the_most_within_a_window_of_the_other_schedules(schedule: Schedule, seconds: float, most: int) -> None:
    assert schedule.most_within(seconds, 1000) == most


@settings(max_examples=100, deadline=None)
@given(RATES, RAMPS, st.integers(1, 500), st.integers(1, 9))
def test_shares_of_a_run_start_at_exactly_the_times_of_the_whole(
    start_rate: float, ramps: list[Ramp], count: int, parts: int
) -> None:
    whole = Stages(start_rate, ramps, count)
    assume(whole.most >= count)

    # each process makes the schedule for itself
    shares = [Stages(start_rate, ramps, count).start(n) for share in split(count, parts) for n in share.positions()]

    assert sorted(shares) == [whole.start(n) for n in range(count)]


# --- trying again ---


def test_the_first_delay_is_drawn_and_the_next_grow_up_to_the_limit() -> None:
    # a draw of 1/2 is the middle of the range and no jitter
    assert list(BACKOFF.delays(lambda: 0.5)) == [4.0, 8.0, 16.0, 20.0]


@pytest.mark.parametrize(("draw", "expected"), [(0.0, [3.0, 3.0, 6.0, 12.0]), (0.999999, [5.0, 15.0, 20.0, 20.0])])
def test_jitter_stretches_and_shortens(draw: float, expected: list[float]) -> None:
    assert list(BACKOFF.delays(lambda: draw)) == pytest.approx(expected, abs=1e-3)


def test_one_try_means_no_delay_at_all() -> None:
    once = Backoff(first_delay=(3.0, 5.0), factor=2.0, jitter=0.0, max_delay=20.0, attempts=1)

    assert list(once.delays(lambda: 0.5)) == []
