"""Turns: evenly spaced, a queue for each key."""

import trio
import trio.testing

from devicesim.cloud.turns import Turns


async def test_turns_are_evenly_spaced_and_each_key_has_its_own(autojump_clock: trio.testing.MockClock) -> None:
    turns = Turns(4.0)
    taken: list[tuple[str, float]] = []

    async def take(key: str) -> None:
        await turns.take(key)
        taken.append((key, trio.current_time()))

    async with trio.open_nursery() as nursery:
        for key in ("a", "a", "a", "b"):
            nursery.start_soon(take, key)

    assert sorted(taken) == [("a", 0.0), ("a", 0.25), ("a", 0.5), ("b", 0.0)]


async def test_time_in_which_nobody_came_is_not_made_up_for(autojump_clock: trio.testing.MockClock) -> None:
    turns = Turns(4.0)
    await turns.take()
    await trio.sleep(10)

    for _ in range(3):
        await turns.take()

    assert trio.current_time() == 10.5


async def test_without_a_limit_nobody_waits(autojump_clock: trio.testing.MockClock) -> None:
    turns = Turns(None)

    for _ in range(1000):
        await turns.take()

    assert trio.current_time() == 0
