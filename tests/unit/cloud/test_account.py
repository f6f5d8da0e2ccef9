"""A control plane that is none: told as the target's fault, never a traceback."""

import gc
import threading
import weakref
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import trio
import trio.testing

from devicesim.cloud.account import PARALLEL_CALLS, AccountAccess, AccountClient
from devicesim.errors import TargetError


def access(url: str) -> AccountAccess:
    return AccountAccess(name="a", account_id="111111111111", region="us-east-1", endpoint_url=url, emulated=True)


@pytest.fixture
def web_page() -> Iterator[str]:
    """The URL of a server that answers everything with HTML."""

    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server asks for
            body = b"<!DOCTYPE HTML><html><p>Hello</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's own signature
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_an_answer_that_is_not_awss_is_told_so(web_page: str) -> None:
    client = AccountClient(access(web_page))
    try:
        with (
            trio.fail_after(20),
            pytest.raises(TargetError, match="get_caller_identity failed: the answer is not AWS's"),
        ):
            await client.check_identity()
    finally:
        client.close()


@pytest.mark.parametrize("url", ["foo", "http://[::", "http://"])
def test_a_url_that_is_none_is_told_so(url: str) -> None:
    with pytest.raises(TargetError, match="account 'a': endpoint URL"):
        AccountClient(access(url))


class SlowIoT:
    """In place of boto3's client: a call that lasts until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()
        self.done: list[str] = []

    def register_certificate(self, name: str) -> None:
        self.begun.set()
        assert self.let_go.wait(10)
        self.done.append(name)

    def close(self) -> None:
        """Nothing is open."""


async def test_calls_that_were_cancelled_are_waited_for() -> None:
    """A thread is not stopped by cancelling its task: what it makes is made all the same."""
    client, slow = AccountClient(access("http://127.0.0.1:1")), SlowIoT()
    client._clients["iot"] = slow
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.call, "register_certificate", name="abandoned"))
            await trio.to_thread.run_sync(slow.begun.wait)
            nursery.cancel_scope.cancel()
        with trio.move_on_after(0.1) as too_soon:
            await client.idle()
        assert (too_soon.cancelled_caught, slow.done) == (True, [])
        slow.let_go.set()
        await client.idle()
    client.close()

    assert slow.done == ["abandoned"]


async def test_a_call_that_was_cancelled_before_it_began_never_begins() -> None:
    client, slow = AccountClient(access("http://127.0.0.1:1")), SlowIoT()
    client._clients["iot"] = slow
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(PARALLEL_CALLS + 3):
                nursery.start_soon(partial(client.call, "register_certificate", name=str(number)))
            await trio.to_thread.run_sync(slow.begun.wait)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        slow.let_go.set()
        await client.idle()
    client.close()

    assert len(slow.done) == PARALLEL_CALLS


async def test_calls_of_one_operation_take_turns(autojump_clock: trio.testing.MockClock) -> None:
    client, quick = AccountClient(access("http://127.0.0.1:1"), calls_per_second=2.0), SlowIoT()
    client._clients["iot"] = quick
    quick.let_go.set()

    for number in range(3):
        await client.call("register_certificate", name=str(number))
    client.close()

    assert (quick.done, trio.current_time()) == (["0", "1", "2"], 1.0)


class PagedIoT(SlowIoT):
    """Lists three certificates on two pages."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def get_paginator(self, operation: str) -> "PagedIoT":
        return self

    def paginate(self, **parameters: object) -> Iterator[Mapping[str, object]]:
        for page in ({"certificates": [1, 2], "nextMarker": "m"}, {"certificates": [3]}):
            self.asked += 1
            yield page


async def test_every_page_is_asked_for_once(autojump_clock: trio.testing.MockClock) -> None:
    client, paged = AccountClient(access("http://127.0.0.1:1"), calls_per_second=1.0), PagedIoT()
    client._clients["iot"] = paged

    items = [each async for each in client.pages("list_certificates", "certificates")]
    client.close()

    assert (items, paged.asked, trio.current_time()) == ([1, 2, 3], 2, 1.0)


async def test_a_client_that_rests_keeps_nothing_and_is_there_when_it_is_asked_again() -> None:
    """boto3's models of the services are 13 MiB, which a fleet of thousands has better use for."""
    client = AccountClient(access("http://127.0.0.1:1"))
    models = weakref.ref(client._clients["iot"].meta.service_model)
    client.rest()
    gc.collect()

    assert models() is None
    with trio.fail_after(20), pytest.raises(TargetError, match="get_caller_identity failed: Could not connect"):
        await client.check_identity()
    client.rest()
    with trio.fail_after(20), pytest.raises(TargetError, match="list_certificates failed: Could not connect"):
        async for _ in client.pages("list_certificates", "certificates"):
            pass
    client.close()
