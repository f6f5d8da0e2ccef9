"""When to ping, and when the answer is late."""

from math import inf

from devicesim.net.keepalive import KeepAlive


def test_a_ping_is_due_an_interval_after_the_last_packet() -> None:
    keep_alive = KeepAlive(30, 5, now=100)
    assert (keep_alive.ping_at, keep_alive.deadline) == (130, 130)

    keep_alive.sent(120)

    assert (keep_alive.ping_at, keep_alive.deadline) == (150, 150)
    assert not keep_alive.is_late(1000)


def test_an_answer_is_late_after_the_patience() -> None:
    keep_alive = KeepAlive(30, 5, now=100)
    keep_alive.pinged(130)

    assert keep_alive.deadline == 135
    assert not keep_alive.is_late(134.9)
    assert keep_alive.is_late(135)


def test_traffic_does_not_excuse_a_missing_answer() -> None:
    keep_alive = KeepAlive(30, 5, now=100)
    keep_alive.pinged(130)
    keep_alive.sent(134)

    assert keep_alive.is_late(135)


def test_a_second_ping_does_not_put_the_first_answer_off() -> None:
    keep_alive = KeepAlive(2, 5, now=100)
    keep_alive.pinged(102)
    keep_alive.pinged(104)

    assert keep_alive.is_late(107)


def test_an_answer_in_time_is_the_end_of_it() -> None:
    keep_alive = KeepAlive(30, 5, now=100)
    keep_alive.pinged(130)
    keep_alive.ponged()

    assert not keep_alive.is_late(1000)
    assert keep_alive.deadline == 160


def test_what_was_not_read_is_not_late() -> None:
    keep_alive = KeepAlive(30, 5, now=100)
    keep_alive.excuse(120)
    assert not keep_alive.is_late(1000)

    keep_alive.pinged(130)
    keep_alive.excuse(134)

    assert not keep_alive.is_late(138)
    assert keep_alive.is_late(139)


def test_without_an_interval_nothing_is_ever_due() -> None:
    keep_alive = KeepAlive(0, 5, now=100)

    assert keep_alive.deadline == inf
