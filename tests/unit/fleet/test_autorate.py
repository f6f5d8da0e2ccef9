"""The search for the highest rate."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicesim.fleet.autorate import (
    LEAST_DEVICES,
    MOST_TRIALS,
    PRECISION,
    End,
    Next,
    Outcome,
    Trial,
    devices_for,
    highest_taken,
    next_trial,
)

TAKEN, SLOW, REFUSED, NOT_GENERATED = Outcome
PLENTY = 10**12


def trial(rate: float, outcome: Outcome, devices: int = 100) -> Trial:
    return Trial(rate=rate, devices=devices, value=None, outcome=outcome)


def search(
    outcome: Callable[[float], Outcome],
    *,
    first: float = 100.0,
    lowest: float = 1.0,
    seconds: float = 10.0,
    devices: int = PLENTY,
) -> tuple[list[Trial], End]:
    """All the trials against a target, and why they ended."""
    trials: list[Trial] = []
    left = devices
    while True:
        step = next_trial(trials, first=first, lowest=lowest, seconds=seconds, left=left)
        if not isinstance(step, Next):
            return trials, step
        assert len(trials) < MOST_TRIALS
        assert LEAST_DEVICES <= step.devices <= left
        left -= step.devices
        trials.append(trial(step.rate, outcome(step.rate), step.devices))


def up_to(most: float, beyond: Outcome = SLOW) -> Callable[[float], Outcome]:
    return lambda rate: TAKEN if rate <= most else beyond


def rates(*expected: float) -> object:
    return pytest.approx(list(expected))


def test_search_doubles_until_a_trial_fails_then_halves_the_gap() -> None:
    trials, end = search(up_to(500))

    assert [each.rate for each in trials] == rates(100, 200, 400, 800, 565.685, 475.683, 518.736)
    assert highest_taken(trials) == pytest.approx(475.683)
    assert end is End.FOUND


def test_search_goes_down_when_the_first_rate_is_too_much() -> None:
    trials, end = search(up_to(30))

    assert [each.rate for each in trials][:3] == [100, 50, 25]
    assert end is End.FOUND
    assert 30 / PRECISION <= (highest_taken(trials) or 0) <= 30


def test_nothing_is_tried_below_the_lowest_rate() -> None:
    trials, end = search(up_to(0), lowest=10)

    assert [each.rate for each in trials] == [100, 50, 25, 12.5]
    assert (highest_taken(trials), end) == (None, End.NOTHING)


def test_machine_that_cannot_even_make_the_lowest_rate_is_not_a_verdict_on_the_target() -> None:
    assert search(up_to(0, NOT_GENERATED))[1] is End.GENERATOR


def test_limit_of_the_generator_is_told_from_that_of_the_target() -> None:
    assert search(up_to(500, NOT_GENERATED))[1] is End.GENERATOR
    assert search(up_to(500, REFUSED))[1] is End.FOUND


def test_lowest_rate_that_failed_says_why_the_search_ended() -> None:
    trials, end = search(lambda rate: TAKEN if rate <= 500 else SLOW if rate < 600 else NOT_GENERATED)

    assert (end, trials[3].outcome) == (End.FOUND, NOT_GENERATED)


def test_search_ends_when_the_devices_are_used_up() -> None:
    trials, end = search(up_to(1e9), devices=7000)

    assert [each.devices for each in trials] == [1000, 2000, 4000]
    assert (highest_taken(trials), end) == (400, End.DEVICES)


def test_search_ends_after_so_many_trials() -> None:
    trials, end = search(up_to(float("inf")))

    assert (len(trials), end) == (MOST_TRIALS, End.TRIALS)


@pytest.mark.parametrize(("rate", "seconds", "devices"), [(1, 10, 20), (2, 10, 20), (2.01, 10, 21), (0.3, 100, 30)])
def test_trial_takes_its_rates_devices_and_never_too_few_for_a_percentile(
    rate: float, seconds: float, devices: int
) -> None:
    assert devices_for(rate, seconds) == devices


def test_rate_that_was_taken_above_one_that_failed_does_not_count() -> None:
    trials = [trial(100, TAKEN), trial(200, SLOW), trial(400, TAKEN)]

    assert highest_taken(trials) == 100
    assert highest_taken([trial(200, SLOW), trial(400, TAKEN)]) is None
    assert highest_taken([]) is None


@given(
    first=st.floats(0.1, 1e5),
    octaves=st.floats(-14, 14),
    beyond=st.sampled_from([SLOW, REFUSED, NOT_GENERATED]),
)
def test_search_finds_what_any_steady_target_takes_within_the_trials(
    first: float, octaves: float, beyond: Outcome
) -> None:
    most = first * 2**octaves

    trials, end = search(up_to(most, beyond), first=first, lowest=first / 2**16)

    assert end is (End.GENERATOR if beyond is NOT_GENERATED else End.FOUND)
    found = highest_taken(trials)
    assert found is not None
    assert most / PRECISION <= found * (1 + 1e-12)
    assert found <= most


@given(
    outcomes=st.lists(st.sampled_from(list(Outcome)), min_size=MOST_TRIALS, max_size=MOST_TRIALS),
    first=st.floats(0.1, 1e5),
    devices=st.integers(0, 10**9),
)
def test_no_rate_is_tried_twice_however_fickle_the_target(outcomes: list[Outcome], first: float, devices: int) -> None:
    answers = iter(outcomes)

    trials, _ = search(lambda _: next(answers), first=first, lowest=first / 100, devices=devices)

    tried = [each.rate for each in trials]
    assert len(set(tried)) == len(tried)
    assert all(rate >= first / 100 for rate in tried)
    assert sum(each.devices for each in trials) <= devices
