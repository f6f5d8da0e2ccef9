"""The control plane's ASGI application, without a socket: bodies that are long, slow or broken off, and bugs."""

import json
import logging
from collections.abc import MutableMapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from devicesim.emulator import httpd
from devicesim.emulator.api import ControlPlane
from devicesim.emulator.httpd import ControlPlaneApp
from devicesim.emulator.operations import table
from tests.control_support import REGION, A, make_registry

AUTHORIZATION = f"AWS4-HMAC-SHA256 Credential={A}/20260131/{REGION}/iot/aws4_request, SignedHeaders=host"


class Exchange:
    """One request, given message by message, and what was answered."""

    def __init__(self, *messages: MutableMapping[str, Any], path: str = "/things/robot", delay: float = 0) -> None:
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"Authorization", AUTHORIZATION.encode())],
        }
        self._messages = iter(messages)
        self._delay = delay
        self.sent: list[MutableMapping[str, Any]] = []

    async def receive(self) -> MutableMapping[str, Any]:
        await trio.sleep(self._delay)
        message = next(self._messages, None)
        if message is None:
            await trio.sleep_forever()
            raise AssertionError("unreachable")
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def answer(self) -> tuple[int, dict[str, Any]]:
        assert [message["type"] for message in self.sent] == ["http.response.start", "http.response.body"]
        body = self.sent[1]["body"]
        assert self.headers["content-length"] == str(len(body))
        return self.sent[0]["status"], json.loads(body)


def chunk(body: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.fixture
def app() -> ControlPlaneApp:
    return ControlPlaneApp(ControlPlane(make_registry()))


async def test_body_comes_in_pieces(app: ControlPlaneApp) -> None:
    exchange = Exchange(chunk(b'{"attribute', more=True), chunk(b'Payload": {}}', more=True), chunk())

    await app(exchange.scope, exchange.receive, exchange.send)

    status, answer = exchange.answer
    assert status == 200
    assert answer["thingName"] == "robot"
    assert exchange.headers["content-type"] == "application/json"
    assert len(exchange.headers["x-amzn-requestid"]) == 36


async def test_body_that_is_too_long_is_read_to_its_end_and_refused(app: ControlPlaneApp) -> None:
    piece = b" " * (1024 * 1024)
    exchange = Exchange(*[chunk(piece, more=True)] * 5, chunk())

    await app(exchange.scope, exchange.receive, exchange.send)

    status, answer = exchange.answer
    assert (status, exchange.headers["x-amzn-errortype"]) == (413, "RequestEntityTooLargeException")
    assert answer == {"message": "The request body is longer than 2097152 bytes"}


async def test_longest_body_is_read(app: ControlPlaneApp) -> None:
    exchange = Exchange(chunk(b"{" + b" " * (httpd.MAX_BODY - 2) + b"}"))

    await app(exchange.scope, exchange.receive, exchange.send)

    assert exchange.answer[0] == 200


async def test_body_that_does_not_arrive_is_given_up(app: ControlPlaneApp, autojump_clock: MockClock) -> None:
    exchange = Exchange(chunk(b"{", more=True))

    await app(exchange.scope, exchange.receive, exchange.send)

    assert trio.current_time() == pytest.approx(httpd.BODY_TIMEOUT)
    assert exchange.answer == (408, {"message": "The request body did not arrive within 30 s"})


async def test_client_that_goes_away_is_answered_nothing(app: ControlPlaneApp) -> None:
    exchange = Exchange(chunk(b"{", more=True), {"type": "http.disconnect"})

    await app(exchange.scope, exchange.receive, exchange.send)

    assert exchange.sent == []


async def test_bug_is_a_500_and_a_line_in_the_log(
    app: ControlPlaneApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_call: object) -> dict[str, object]:
        raise ZeroDivisionError("seven by nothing")

    monkeypatch.setitem(table.IOT, "CreateThing", broken)
    exchange = Exchange(chunk(b"{}"))

    with caplog.at_level(logging.ERROR):
        await app(exchange.scope, exchange.receive, exchange.send)

    request_id = exchange.headers["x-amzn-requestid"]
    status, answer = exchange.answer
    assert (status, exchange.headers["x-amzn-errortype"]) == (500, "InternalFailureException")
    assert request_id in answer["message"]
    assert "seven by nothing" not in answer["message"]
    assert [record.getMessage() for record in caplog.records] == [f"request {request_id} failed: POST /things/robot"]
    assert "ZeroDivisionError: seven by nothing" in caplog.text


async def test_answer_that_does_not_fit_the_model_is_a_500(
    app: ControlPlaneApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(table.IOT, "CreateThing", lambda _call: {"thing": "robot"})
    exchange = Exchange(chunk(b"{}"))

    await app(exchange.scope, exchange.receive, exchange.send)

    assert exchange.answer[0] == 500
    assert "KeyError" in caplog.text
