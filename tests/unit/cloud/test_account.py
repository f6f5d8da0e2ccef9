"""A control plane that is none: told as the target's fault, never a traceback."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import trio

from devicesim.cloud.account import AccountAccess, AccountClient
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
