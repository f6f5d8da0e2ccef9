"""HTTP on the ALPN port."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicesim.emulator.httprefusal import MAX_HEAD, HTTPRefusal

GET = b"GET /things/robot/shadow HTTP/1.1\r\nHost: x\r\n\r\n"


def status(answer: bytes | None) -> bytes | None:
    return None if answer is None else answer.split(b" ")[1]


def test_a_request_is_forbidden() -> None:
    http = HTTPRefusal()

    answer = http.receive(GET)

    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"connection: close" in head
    assert f"content-length: {len(body)}".encode() in head
    assert http.request_line == "GET /things/robot/shadow HTTP/1.1"


def test_it_waits_for_the_whole_head() -> None:
    http = HTTPRefusal()

    answers = [http.receive(GET[i : i + 1]) for i in range(len(GET))]

    assert answers[:-1] == [None] * (len(GET) - 1)
    assert status(answers[-1]) == b"403"


@pytest.mark.parametrize(
    "data",
    [b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", b"get / HTTP/1.1\r\n\r\n", b"GET /\r\n\r\n", b"\n", b"A" * 30],
    ids=["CONNECT", "lower case", "HTTP/0.9", "empty line", "no space"],
)
def test_what_is_no_http_is_a_bad_request(data: bytes) -> None:
    assert status(HTTPRefusal().receive(data)) == b"400"


def test_a_head_without_end_is_not_waited_for() -> None:
    http = HTTPRefusal()
    assert http.receive(b"GET / HTTP/1.1\r\n") is None

    assert status(http.receive(b"x: " + b"y" * 10 * MAX_HEAD)) == b"403"


def test_a_line_without_end_is_not_waited_for() -> None:
    assert status(HTTPRefusal().receive(b"GET /" + b"y" * 10 * MAX_HEAD)) == b"400"


@given(st.lists(st.binary(max_size=64), max_size=20))
def test_anything_is_answered_or_waited_for(chunks: list[bytes]) -> None:
    http = HTTPRefusal()
    for chunk in chunks:
        if http.receive(chunk) is not None:
            return
