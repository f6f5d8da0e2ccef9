"""When devices start and try again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.fleet.pacing import Backoff, constant_rate, interleave

BACKOFF = Backoff(first_delay=(3.0, 5.0), factor=2.0, jitter=0.5, max_delay=20.0, attempts=5)


def test_groups_are_mixed_evenly() -> None:
    order = [slot.group for slot in interleave({"a": 6, "b": 3})]

    assert order == ["a", "b", "a", "a", "b", "a", "a", "b", "a"]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 60), min_size=1, max_size=4))
def test_every_device_has_one_slot_and_members_keep_their_order(counts: dict[str, int]) -> None:
    slots = interleave(counts)

    assert [slot.device for slot in slots] == list(range(sum(counts.values())))
    for group, count in counts.items():
        assert [slot.member for slot in slots if slot.group == group] == list(range(count))
    half = len(slots) // 2
    for group, count in counts.items():
        assert abs(sum(slot.group == group for slot in slots[:half]) - count / 2) <= len(counts)


def test_a_constant_rate_spaces_the_starts() -> None:
    start = constant_rate(4.0)

    assert [start(n) for n in range(4)] == [0.0, 0.25, 0.5, 0.75]
    with pytest.raises(ValueError, match="not positive"):
        constant_rate(0)


def test_the_first_delay_is_drawn_and_the_next_grow_up_to_the_limit() -> None:
    # a draw of 1/2 is the middle of the range and no jitter
    assert list(BACKOFF.delays(lambda: 0.5)) == [4.0, 8.0, 16.0, 20.0]


@pytest.mark.parametrize(("draw", "expected"), [(0.0, [3.0, 3.0, 6.0, 12.0]), (0.999999, [5.0, 15.0, 20.0, 20.0])])
def test_jitter_stretches_and_shortens(draw: float, expected: list[float]) -> None:
    assert list(BACKOFF.delays(lambda: draw)) == pytest.approx(expected, abs=1e-3)


def test_one_try_means_no_delay_at_all() -> None:
    once = Backoff(first_delay=(3.0, 5.0), factor=2.0, jitter=0.0, max_delay=20.0, attempts=1)

    assert list(once.delays(lambda: 0.5)) == []
