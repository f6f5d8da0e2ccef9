"""Keys made beforehand."""

import trio

from devicesim.emulator.keypool import KeyPool


async def test_pool_stocks_up_once_it_was_asked_and_never_gives_a_key_twice() -> None:
    pool = KeyPool(size=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run)
        await trio.testing.wait_all_tasks_blocked()
        assert len(pool) == 0

        taken = [pool.take()]
        with trio.fail_after(30):
            while len(pool) < 3:  # noqa: ASYNC110 - the pool tells nobody
                await trio.sleep(0.005)
        taken += [pool.take() for _ in range(4)]  # one more than are in stock
        nursery.cancel_scope.cancel()

    numbers = {key.private_numbers().p for key in taken}
    assert len(numbers) == 5
    assert {key.key_size for key in taken} == {2048}
