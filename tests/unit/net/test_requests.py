"""Requests that wait for their answer: by packet id, asleep or awake."""

import trio
import trio.testing

from devicesim.net.engine import Answer
from devicesim.net.requests import Requests

YES = Answer(packet_id=1, reason=0, words="0x00 Success")


async def test_an_answer_wakes_who_waits_for_it_and_nobody_else() -> None:
    requests, woken = Requests(), []
    requests.add(1)
    requests.add(2)

    async def wait(packet_id: int) -> None:
        await requests.wait(packet_id)
        woken.append((packet_id, requests.answer(packet_id)))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for packet_id in (1, 2):
                nursery.start_soon(wait, packet_id)
            await trio.testing.wait_all_tasks_blocked()
            requests.answered(YES)
            await trio.testing.wait_all_tasks_blocked()
            assert woken == [(1, YES)]
            requests.end()

    assert woken == [(1, YES), (2, None)]


def test_an_answer_that_comes_first_is_kept_and_one_to_nothing_is_not() -> None:
    requests = Requests()
    requests.answered(YES)
    assert len(requests) == 0

    requests.add(1)
    assert requests.answer(1) is None
    requests.answered(YES)
    assert requests.answer(1) == YES

    requests.forget(1)
    assert len(requests) == 0
    requests.answered(YES)
    requests.end()
