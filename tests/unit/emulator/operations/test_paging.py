"""Pages: everything is seen once, whatever comes and goes in between, and a token is good for its listing only."""

import base64
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.credentials import Caller
from devicesim.emulator.operations.call import Call, marker_page, token_page
from tests.control_support import REGION, A, B, make_registry


def identity(item: int) -> int:
    return item


def make_call(operation: str = "ListThings", account: str = A, **parameters: object) -> Call:
    registry = make_registry()
    return Call(
        operation=operation,
        registry=registry,
        partition=registry.partition(account, REGION),
        caller=Caller(access_key_id=account, account_id=account, region=REGION, service="iot"),
        parameters=parameters,
    )


@given(st.sets(st.integers(0, 200)), st.integers(1, 250), st.booleans())
@settings(max_examples=100)
def test_pages_put_together_are_the_listing(held: set[int], size: int, ascending: bool) -> None:
    items = sorted(held)
    page, marker = marker_page(make_call(pageSize=size), items, identity, ascending=ascending)
    seen = list(page)
    while marker is not None:
        assert len(page) == size
        page, marker = marker_page(make_call(pageSize=size, marker=marker), items, identity, ascending=ascending)
        seen += page

    assert seen == (items if ascending else items[::-1])


@given(st.sets(st.integers(0, 50), min_size=8), st.sets(st.integers(0, 50)), st.sets(st.integers(0, 50)))
@settings(max_examples=100)
def test_what_stays_is_seen_once_while_others_come_and_go(held: set[int], gone: set[int], new: set[int]) -> None:
    first, token = token_page(make_call(maxResults=5), sorted(held), identity)
    after = (held - gone) | new
    rest, _ = token_page(make_call(maxResults=250, nextToken=token), sorted(after), identity)

    assert set(first) & set(rest) == set()
    assert (held - gone) <= set(first) | set(rest)


def test_page_is_25_unless_asked() -> None:
    page, token = token_page(make_call(), list(range(26)), identity)

    assert list(page) == list(range(25))
    assert token is not None


def test_marker_fits_the_pattern_of_the_model() -> None:
    _, marker = marker_page(make_call(pageSize=1), ["ä?>~", "b"], str)

    assert marker is not None
    assert re.fullmatch("[A-Za-z0-9+/]+={0,2}", marker)


@pytest.mark.parametrize(
    "call",
    [
        {"operation": "ListPolicies"},
        {"account": B},
        {"thingTypeName": "arm"},
    ],
)
def test_token_of_another_listing_is_refused(call: dict[str, str]) -> None:
    _, token = token_page(make_call(maxResults=1), [1, 2], identity)

    with pytest.raises(APIError) as caught:
        token_page(make_call(nextToken=token, **call), [1, 2], identity)

    assert caught.value.code == "InvalidRequestException"


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "AAAA",
        "é",
        base64.b64encode(b"[]").decode(),
        base64.b64encode(b'["a", null]').decode(),
        base64.b64encode(b"[" * 9000).decode(),
    ],
)
def test_garbled_token_is_refused(token: str) -> None:
    with pytest.raises(APIError) as caught:
        token_page(make_call(nextToken=token), [1, 2], identity)

    assert caught.value.code == "InvalidRequestException"


def test_page_size_may_change_between_pages() -> None:
    _, token = token_page(make_call(maxResults=1), [1, 2, 3], identity)
    page, token = token_page(make_call(maxResults=2, nextToken=token), [1, 2, 3], identity)

    assert (list(page), token) == ([2, 3], None)


@pytest.mark.parametrize("key", ['"x"', "true", "1.5"])
def test_token_whose_key_was_changed_into_another_kind_is_refused(key: str) -> None:
    _, token = token_page(make_call(maxResults=1), [1, 2], identity)
    assert token is not None
    changed = base64.b64decode(token).replace(b" 1]", f" {key}]".encode())
    assert changed != base64.b64decode(token)

    with pytest.raises(APIError) as caught:
        token_page(make_call(nextToken=base64.b64encode(changed).decode()), [1, 2], identity)

    assert caught.value.code == "InvalidRequestException"
