"""Timers: order, cancelling, and that cancelled ones do not pile up."""

from functools import partial

from devicesim.emulator.timers import Timers


def test_calls_are_made_in_order_of_time_and_equal_times_in_order_of_scheduling() -> None:
    timers = Timers()
    made: list[str] = []

    def note(name: str, now: float) -> None:
        made.append(f"{name}@{now:g}")

    for at, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (9.0, "late")):
        timers.schedule(at, partial(note, name))
    timers.run(5.0)

    assert made == ["a@5", "b@5", "c@5"]
    assert timers.next() == 9.0
    assert len(timers) == 1


def test_a_call_may_schedule_another_that_is_due() -> None:
    timers = Timers()
    made: list[float] = []

    def again(now: float) -> None:
        timers.schedule(now, made.append)

    timers.schedule(1.0, again)
    timers.run(1.0)

    assert made == [1.0]


def test_cancelled_calls_are_not_made_and_not_waited_for() -> None:
    timers = Timers()
    made: list[float] = []
    timer = timers.schedule(1.0, made.append)
    timers.schedule(2.0, made.append)
    timer.cancel()
    timer.cancel()

    assert timers.next() == 2.0
    assert len(timers) == 1

    timers.run(3.0)
    timer.cancel()

    assert made == [3.0]
    assert timers.next() == float("inf")
    assert len(timers) == 0


def test_cancelled_timers_do_not_pile_up() -> None:
    """Every connection sets one that it cancels soon; kept until due, they would outlive thousands of connections."""
    timers = Timers()
    kept = timers.schedule(1e9, lambda _now: None)
    for number in range(10_000):
        timers.schedule(1e6 + number, lambda _now: None).cancel()

    assert len(timers) == 1
    assert len(timers._heap) < 200
    assert timers.next() <= kept.at


def test_what_leaps_with_the_clock_is_due_sooner_and_the_rest_as_before() -> None:
    timers = Timers()
    made: list[str] = []
    timers.schedule(10.0, lambda _now: made.append("network"), leaps=False)
    timers.schedule(20.0, lambda _now: made.append("service"))

    timers.advanced(100.0)
    timers.run(100.0)

    assert made == ["service"]
    assert timers.next() == 110.0
    timers.run(110.0)
    assert made == ["service", "network"]
