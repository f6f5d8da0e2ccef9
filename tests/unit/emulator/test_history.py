"""The history: bounded, numbered, and found again by what was asked for."""

import json
from functools import partial

import pytest

from devicesim.emulator.history import Entry, History, Kind


def fill(history: History, count: int) -> None:
    for index in range(count):
        history.add(partial(entry_of, index))


def entry_of(index: int, number: int) -> Entry:
    return Entry(
        number=number,
        time=float(index),
        kind=Kind.CONNECTION if index % 2 else Kind.EVENT,
        verdict="admitted" if index % 3 else "refused",
        account_id=f"account-{index % 2}",
        certificate_id=f"certificate-{index % 5}",
    )


def test_the_oldest_go_first_and_numbers_and_counts_go_on() -> None:
    history = History(4)
    fill(history, 10)

    assert [entry.number for entry in history.select()] == [7, 8, 9, 10]
    assert len(history) == 4
    assert history.counts == {"refused": 4, "admitted": 6}


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ({"limit": 3}, [8, 9, 10]),
        ({"limit": 0}, []),
        ({"after": 8}, [9, 10]),
        ({"account_id": "account-0"}, [1, 3, 5, 7, 9]),
        ({"account_id": "account-0", "limit": 2}, [7, 9]),
        ({"certificate_id": "certificate-3"}, [4, 9]),
        ({"verdict": "refused"}, [1, 4, 7, 10]),
        ({"kind": "event", "verdict": "refused"}, [1, 7]),
        ({"account_id": "nobody"}, []),
    ],
)
def test_select(filters: dict[str, int | str], numbers: list[int]) -> None:
    history = History(100)
    fill(history, 10)

    assert [entry.number for entry in history.select(**filters)] == numbers  # type: ignore[arg-type]


def test_entries_are_json() -> None:
    history = History(1)
    fill(history, 1)
    (entry,) = history.select()
    document = json.loads(json.dumps(entry.to_json()))

    assert document["verdict"] == "refused"
    assert document["kind"] == "event"
    assert document["server_name"] is None
