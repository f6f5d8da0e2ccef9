"""What a share tells arrives once and in order, whatever is lost on the way; and how far shares come."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.fleet.exchange import Answer, Book, Outbox, Share, State

SILENCE = 15.0


def share(name: str = "tcp://one", **fields: object) -> Share:
    return Share(worker=name, devices=10, **fields)  # type: ignore[arg-type]  # the fields' own types


def answer(state: State, number: int = 0, events: str = "", **fields: object) -> Answer:
    return Answer(state=state, number=number, events=events, **fields)  # type: ignore[arg-type]  # likewise


# --- the outbox ---


def test_an_empty_outbox_gives_no_batch() -> None:
    outbox = Outbox()

    assert outbox.ask(0) == (0, "", False)
    assert outbox.empty


def test_a_batch_is_given_again_until_it_is_known_to_have_arrived() -> None:
    outbox = Outbox()
    outbox.put("1")

    assert outbox.ask(0) == (1, "1", False)
    outbox.put("2")
    assert outbox.ask(0) == (1, "1", True)
    assert outbox.ask(1) == (2, "2", False)
    assert not outbox.empty
    assert outbox.ask(2) == (0, "", False)
    assert outbox.empty


def test_a_batch_has_so_many_events_at_most() -> None:
    outbox = Outbox(most=2)
    for each in "12345":
        outbox.put(each)

    assert [outbox.ask(received) for received in range(4)] == [
        (1, "1,2", True),
        (2, "3,4", True),
        (3, "5", False),
        (0, "", False),
    ]


@pytest.mark.parametrize("received", [-1, 2, 7])
def test_a_batch_that_was_never_given_cannot_have_arrived(received: int) -> None:
    outbox = Outbox()
    outbox.put("1")
    outbox.ask(0)

    with pytest.raises(ValueError, match=rf"batch {received} is said to have arrived; 0 to 1 can have"):
        outbox.ask(received)


def test_a_batch_that_has_arrived_cannot_be_had_again() -> None:
    outbox = Outbox()
    for number, each in enumerate("12"):
        outbox.put(each)
        outbox.ask(number)

    with pytest.raises(ValueError, match="batch 0 is said to have arrived; 1 to 2 can have"):
        outbox.ask(0)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=40), st.integers(1, 3))
def test_each_event_arrives_once_and_in_order_whatever_answers_are_lost(
    rounds: Sequence[tuple[int, bool]], most: int
) -> None:
    """Each round some events come up, then one question is put, whose answer is lost or not."""
    outbox, book = Outbox(most), Book([share()], silence=SILENCE)
    there, told, arrived = book.shares[0], 0, []

    def ask(*, lost: bool, state: State) -> bool:
        number, events, more = outbox.ask(there.received)
        if not lost:
            fresh = book.answered(there, answer(state, number, events, more=more), 0.0)
            arrived.extend(fresh.split(",") if fresh else [])
        return number == 0

    for count, lost in rounds:
        for _ in range(count):
            outbox.put(str(told))
            told += 1
        ask(lost=lost, state=State.RUNNING)
        assert arrived == [str(n) for n in range(len(arrived))]
        assert not there.over
    for _ in range(told + 2):
        ask(lost=False, state=State.ENDED)

    assert arrived == [str(n) for n in range(told)]
    assert outbox.empty
    assert there.over


# --- the book ---


def test_the_word_is_given_when_every_share_is_armed() -> None:
    book = Book([share(), share()], silence=SILENCE)
    assert book.order.first is None

    book.answered(book.shares[0], answer(State.ARMED), 1.0)
    assert not book.all_armed
    book.answered(book.shares[1], answer(State.ARMED), 1.0)
    assert book.all_armed
    book.begin(12.5)

    assert (book.order.first, book.order.stop) == (12.5, False)


def test_the_word_is_not_given_any_more_once_all_is_to_stop() -> None:
    book = Book([share(state=State.ARMED)], silence=SILENCE)

    book.stop()

    assert not book.all_armed
    assert book.order.stop


def test_a_batch_that_comes_twice_counts_once() -> None:
    book = Book([share()], silence=SILENCE)

    assert book.answered(book.shares[0], answer(State.RUNNING, 1, "a"), 0.0) == "a"
    assert book.answered(book.shares[0], answer(State.RUNNING, 1, "a"), 0.0) == ""


def test_a_share_is_over_when_its_worker_knows_that_all_has_arrived() -> None:
    book = Book([share()], silence=SILENCE)

    book.answered(book.shares[0], answer(State.ENDED, 1, "a"), 0.0)
    assert not book.over
    book.answered(book.shares[0], answer(State.ENDED), 0.0)

    assert book.over
    assert book.shares[0].state is State.ENDED


def test_a_batch_behind_a_gap_ends_the_share() -> None:
    book = Book([share()], silence=SILENCE)

    assert book.answered(book.shares[0], answer(State.RUNNING, 2, "b"), 0.0) == ""
    assert book.shares[0].state is State.LOST
    assert book.shares[0].why == "batch 2 of what it told came after 0"


def test_nothing_of_a_lost_share_is_taken_any_more() -> None:
    book = Book([share(), share()], silence=SILENCE)
    lost, other = book.shares

    book.lost(lost, "it is gone")
    book.lost(lost, "again")

    assert book.answered(lost, answer(State.RUNNING, 1, "a"), 0.0) == ""
    assert (lost.state, lost.why, lost.received) == (State.LOST, "it is gone", 0)
    assert book.answered(other, answer(State.RUNNING, 1, "b"), 0.0) == "b"
    assert not book.over


def test_a_share_that_is_over_cannot_be_lost() -> None:
    book = Book([share()], silence=SILENCE)
    book.answered(book.shares[0], answer(State.ENDED), 0.0)

    book.lost(book.shares[0], "it is gone")

    assert book.shares[0].state is State.ENDED


def test_a_process_at_the_same_address_that_was_started_anew_is_not_the_share_s() -> None:
    book = Book([share()], silence=SILENCE)

    book.answered(book.shares[0], answer(State.UNKNOWN), 0.0)

    assert book.shares[0].state is State.LOST
    assert "started anew" in book.shares[0].why


def test_a_share_that_fails_says_why() -> None:
    book = Book([share()], silence=SILENCE)

    book.answered(book.shares[0], answer(State.FAILED, why="no key", hint="give it"), 0.0)

    assert book.over
    assert (book.shares[0].why, book.shares[0].hint) == ("no key", "give it")


def test_silence_is_counted_from_the_last_answer() -> None:
    book = Book([share()], silence=SILENCE)
    only = book.shares[0]
    book.answered(only, answer(State.RUNNING), 100.0)

    assert not book.is_silent(only, 115.0)
    assert book.is_silent(only, 115.1)
    book.answered(only, answer(State.ENDED), 115.2)
    assert not book.is_silent(only, 1000.0)
