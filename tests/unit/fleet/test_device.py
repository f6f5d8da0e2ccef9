"""One device: its tries, its stay, its messages."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, repeat
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from devicesim.errors import KeyMaterialError
from devicesim.fleet import device as module
from devicesim.fleet.device import RECORD_SECONDS, Clock, Device, Wire, drive
from devicesim.fleet.telemetry import Telemetry
from devicesim.net.mqtt import MQTTSettings
from devicesim.net.tls import Deadlines, TLSContext, TLSSettings
from devicesim.outcome import Attempt, Failure, FailureKind, Stage
from tests.fleet_support import EPOCH, LOST, UNANSWERED, FakeNet, Session, authority, refused
from tests.net_support import device as identity_of

CONNACK_SECONDS = 0.5
"""Of the fake net."""
TELEMETRY = Telemetry(topic="device-3/telemetry", every=10.0, offset=4.0, qos=1, size=100)


@dataclass
class Seen:
    """A device's life."""

    net: FakeNet
    attempts: list[Attempt] = field(default_factory=list)
    lives: list[Attempt] = field(default_factory=list)
    accepted: bool | None = None
    """``None``: it did not come to its end."""
    ended: float = 0.0

    @property
    def published_at(self) -> list[list[float]]:
        """When messages were published, by connection."""
        return [[round(at, 6) for at, _, _ in client.messages] for client in self.net.clients]


def wire(hold: float, stable_after: float = 0.0) -> Wire:
    context = TLSContext(TLSSettings(roots=(authority().certificate,)))
    return Wire(context=context, mqtt=MQTTSettings(), deadlines=Deadlines(), hold=hold, stable_after=stable_after)


async def live(
    monkeypatch: pytest.MonkeyPatch,
    *script: Failure | Session,
    hold: float = 0.0,
    stable_after: float = 0.0,
    telemetry: Telemetry | None = None,
    delays: Sequence[float] = (2.0, 4.0),
    anew: Callable[[int, int], Iterator[float]] | None = None,
    due: float = 0.0,
    cancel_at: float | None = None,
) -> Seen:
    """Drive a device, from ``due`` on the trio clock, to its end or until it is cancelled."""
    net = FakeNet(lambda _: script, seconds=CONNACK_SECONDS)
    monkeypatch.setattr(module, "open_mqtt", net)
    device = Device(
        number=3,
        identity=identity_of(3),
        client_id="device-3",
        address=("127.0.0.1", 8883),
        server_name=None,
        verify_name="a.localhost",
        expected_account="prod",
        telemetry=telemetry,
        source="127.0.0.2",
    )
    seen = Seen(net)
    with trio.CancelScope() as scope:
        if cancel_at is not None:
            scope.deadline = cancel_at
        clock = Clock(epoch=EPOCH, zero=0.0)
        seen.accepted = await drive(
            *(device, wire(hold, stable_after), due, iter(delays), clock),
            *(seen.attempts.append, seen.lives.append, anew),
        )
    seen.ended = trio.current_time()
    return seen


def plain_device() -> Device:
    return Device(
        number=0,
        identity=identity_of(),
        client_id="d",
        address=("127.0.0.1", 1),
        server_name=None,
        verify_name="x",
        expected_account=None,
    )


def about(seconds: float) -> Any:
    """Approximately, as far as mypy need not know."""
    return pytest.approx(seconds, abs=1e-6)


def at(seconds: float) -> Any:
    """So many seconds after the clocks began, on the wall."""
    return about(EPOCH + seconds)


# --- tries ---


async def test_device_that_is_accepted_disconnects_at_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch)

    assert (seen.accepted, seen.lives) == (True, [])
    (attempt,) = seen.attempts
    assert (attempt.device, attempt.number, attempt.account, attempt.failure) == (3, 1, "prod", None)
    assert (attempt.intended_start, attempt.start, attempt.end) == (at(0), at(0), at(CONNACK_SECONDS))
    assert (attempt.connack_code, attempt.published, attempt.acknowledged) == (0, None, None)
    assert attempt.reached == {Stage.CONNACK: pytest.approx(CONNACK_SECONDS)}


async def test_latency_is_counted_from_the_intended_start(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    await trio.sleep(3)
    seen = await live(monkeypatch, due=1.0)

    assert (seen.attempts[0].intended_start, seen.attempts[0].start) == (at(1), at(3))


async def test_refused_device_waits_and_tries_again(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    seen = await live(monkeypatch, refused(), refused(FailureKind.TIMEOUT))

    assert seen.accepted is True
    assert [each.number for each in seen.attempts] == [1, 2, 3]
    assert [each.failure and each.failure.kind for each in seen.attempts] == [
        FailureKind.CLOSED_BEFORE_CONNACK,
        FailureKind.TIMEOUT,
        None,
    ]
    assert [each.intended_start for each in seen.attempts] == [at(0), at(2.5), at(7)]
    assert [each.start for each in seen.attempts] == [at(0), at(2.5), at(7)]


async def test_device_gives_up_when_its_tries_are_used_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, *[refused()] * 9)

    assert (seen.accepted, len(seen.attempts)) == (False, 3)
    assert seen.ended == pytest.approx(7.5)


async def test_what_is_sent_is_what_the_device_says(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    seen = await live(monkeypatch)

    (call,) = seen.net.calls
    assert (call["address"], call["client_id"]) == (("127.0.0.1", 8883), "device-3")
    assert (call["server_name"], call["verify_name"]) == (None, "a.localhost")
    assert call["source"] == "127.0.0.2"


async def test_cancelled_between_two_tries_there_is_nothing_to_tell(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, refused(), cancel_at=1.0)

    assert (seen.accepted, len(seen.attempts), seen.lives) == (None, 1, [])


async def test_cancelled_in_a_try_there_is_nothing_to_tell(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, hold=10, cancel_at=0.25)

    assert (seen.accepted, seen.attempts, seen.lives) == (None, [], [])


async def test_certificate_that_openssl_does_not_use_is_that_devices_failure(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """An imported RSA key of 1024 bits: nothing says so before the connection is made."""

    def refuse(_: str) -> Sequence[Failure]:
        raise KeyMaterialError("OpenSSL refuses the certificate and key of 'CN=d': ee key too small")

    monkeypatch.setattr(module, "open_mqtt", FakeNet(refuse))
    told: list[Attempt] = []
    accepted = await drive(plain_device(), wire(0), 0.0, iter([1.0]), Clock(epoch=EPOCH, zero=0.0), told.append)

    assert (accepted, [each.number for each in told]) == (False, [1, 2])
    assert {each.failure and each.failure.kind for each in told} == {FailureKind.TLS_PROTOCOL_ERROR}
    assert told[0].failure is not None
    assert (told[0].failure.stage, "ee key too small" in told[0].failure.detail) == (Stage.TLS, True)


async def test_mistake_of_ours_is_no_failure_of_the_device(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    def broken(_: str) -> Sequence[Failure]:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "open_mqtt", FakeNet(broken))
    told: list[Attempt] = []
    with pytest.raises(ZeroDivisionError):
        await drive(plain_device(), wire(0), 0.0, iter(()), Clock(epoch=EPOCH, zero=0.0), told.append)
    assert told == []


# --- the stay ---


async def test_device_stays_from_connack_on_and_is_told_of_while_it_does(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, hold=60)

    assert (seen.accepted, seen.ended) == (True, about(60.5))
    (told,), (attempt,) = seen.lives, seen.attempts
    assert (told.number, told.connack_code, told.failure, told.end) == (1, 0, None, at(0.5))
    assert (attempt.number, attempt.failure, attempt.end) == (1, None, at(60.5))
    assert (attempt.published, attempt.acknowledged) == (None, None)


async def test_lost_connection_is_a_failed_try_and_the_stay_goes_on_to_the_same_end(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, refused(), Session(lost_after=20), hold=60)

    first, lost, last = seen.attempts
    assert [each.number for each in seen.lives] == [2, 3]
    assert (first.connack_code, lost.connack_code, last.connack_code) == (None, 0, 0)
    assert (lost.failure, lost.end) == (LOST, at(3 + 20))
    assert (last.intended_start, last.failure) == (at(23 + 4), None)
    assert (seen.accepted, seen.ended) == (True, about(3 + 60))


async def test_connection_that_comes_back_after_the_end_of_the_stay_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, Session(lost_after=7.9), hold=10, telemetry=TELEMETRY)

    assert (seen.accepted, seen.ended) == (True, about(0.5 + 7.9 + 2 + 0.5))
    assert [(each.published, each.acknowledged) for each in seen.attempts] == [(1, 1), (0, 0)]


@pytest.mark.parametrize("lost_after", [8.0, 9.9])
async def test_try_that_would_begin_after_the_end_of_the_stay_is_not_made(
    lost_after: float, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, Session(lost_after=lost_after), hold=10, telemetry=TELEMETRY)

    assert (seen.accepted, seen.ended) == (False, about(0.5 + lost_after))
    assert [(each.failure, each.published, each.acknowledged) for each in seen.attempts] == [(LOST, 1, 1)]


async def test_device_that_was_never_accepted_is_not_bound_by_the_length_of_a_stay(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, refused(), refused(), hold=1)

    assert (seen.accepted, len(seen.attempts), seen.ended) == (True, 3, about(7.5 + 1))


async def test_stay_goes_on_however_often_it_loses_its_connection(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Six times, with five tries; as long as each comes back, its waits are those of a device at its first refusal."""
    script: list[Failure | Session] = [refused(), *[Session(lost_after=5)] * 6]
    seen = await live(
        monkeypatch, *script, hold=60, delays=(2.0, 4.0, 8.0, 16.0), anew=lambda *_: iter((3.0, 6.0, 12.0))
    )

    assert (seen.accepted, seen.ended) == (True, about(3 + 60))
    assert [each.failure for each in seen.attempts] == [refused(), *[LOST] * 6, None]
    waits = [each.start - before.end for before, each in pairwise(seen.attempts)]
    assert waits == pytest.approx([2, *[3] * 6], abs=1e-6)
    assert [each.intended_start for each in seen.attempts] == [each.start for each in seen.attempts]
    assert [each.number for each in seen.lives] == [2, 3, 4, 5, 6, 7, 8]


async def test_connection_that_was_not_stable_gives_no_new_tries_but_for_the_first(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Put out at once, whenever it comes: after its provisioning it has all its tries, and uses them up."""
    asked: list[int] = []

    def anew(_: int, tries: int) -> Iterator[float]:
        asked.append(tries)
        return iter((3.0, 6.0, 12.0))

    script: list[Failure | Session] = [refused(), *[Session(lost_after=5)] * 9]
    seen = await live(monkeypatch, *script, hold=600, stable_after=5.1, anew=anew)

    assert (seen.accepted, [each.failure for each in seen.attempts]) == (False, [refused(), *[LOST] * 4])
    waits = [each.start - before.end for before, each in pairwise(seen.attempts)]
    assert waits == pytest.approx([2, 3, 6, 12], abs=1e-6)
    assert set(asked) == {2}, "one row of delays, however often it is gone on with"


async def test_connection_that_was_stable_gives_all_tries_again(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    short, long = Session(lost_after=5), Session(lost_after=20)
    script: list[Failure | Session] = [short, short, refused(), long, short, *[refused()] * 9]
    seen = await live(monkeypatch, *script, hold=600, stable_after=20, anew=lambda *_: iter((3.0, 6.0, 12.0)))

    waits = [each.start - before.end for before, each in pairwise(seen.attempts)]
    assert waits == pytest.approx([3, 6, 12, 3, 6, 12], abs=1e-6)
    assert seen.accepted is False


async def test_device_that_lost_its_connection_and_is_refused_uses_its_tries_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    script: list[Failure | Session] = [refused(), Session(lost_after=5), *[refused()] * 9]
    seen = await live(monkeypatch, *script, hold=600, delays=(2.0, 4.0), anew=lambda *_: iter((3.0, 6.0)))

    assert (seen.accepted, len(seen.attempts)) == (False, 4)
    waits = [each.start - before.end for before, each in pairwise(seen.attempts)]
    assert waits == pytest.approx([2, 3, 6], abs=1e-6)


async def test_device_that_lost_its_connection_and_is_refused_tries_to_the_end_of_its_stay_only(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    script: list[Failure | Session] = [Session(lost_after=1), *[refused()] * 9]
    seen = await live(monkeypatch, *script, hold=10, anew=lambda *_: repeat(2.0))

    assert (seen.accepted, seen.ended) == (False, about(9.0))
    assert [each.start for each in seen.attempts] == [at(0), at(3.5), at(6), at(8.5)]


@pytest.mark.parametrize("kind", [FailureKind.CONNACK_REFUSED, FailureKind.CLOSED_BEFORE_CONNACK])
async def test_refusal_gives_no_new_tries(
    kind: FailureKind, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, *[refused(kind)] * 9, hold=10, anew=lambda *_: repeat(2.0))

    assert (seen.accepted, len(seen.attempts)) == (False, 3)
    assert {each.connack_code for each in seen.attempts} == {5 if kind is FailureKind.CONNACK_REFUSED else None}


async def test_tries_run_on_through_lost_connections_where_none_are_given_anew(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, *[Session(lost_after=5)] * 9, hold=600)

    assert (seen.accepted, [each.failure for each in seen.attempts]) == (False, [LOST] * 3)


async def test_device_that_was_accepted_and_cannot_come_back_is_not_accepted_in_the_end(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, Session(lost_after=1), refused(), refused(), hold=60)

    assert (seen.accepted, [each.connack_code for each in seen.attempts]) == (False, [0, None, None])


async def test_cancelled_while_it_stays_its_last_state_is_told(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, hold=60, cancel_at=12)

    assert (seen.accepted, seen.attempts) == (None, [])
    assert [each.end for each in seen.lives] == [at(0.5), at(12)]
    assert [each.number for each in seen.lives] == [1, 1]


# --- messages ---


async def test_messages_go_out_in_their_rhythm_from_connack_to_the_end_of_the_stay(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, hold=30, telemetry=TELEMETRY)

    assert seen.published_at == [[4.5, 14.5, 24.5]]
    (_, topic, first), (_, _, second), _ = seen.net.clients[0].messages
    assert topic == "device-3/telemetry"
    assert first == {"message": 1, "at": EPOCH + 4.5, "size": 100, "qos": 1}
    assert (second["message"], second["at"]) == (2, EPOCH + 14.5)
    (attempt,) = seen.attempts
    assert (attempt.published, attempt.acknowledged, attempt.end) == (3, 3, at(30.5))


async def test_message_that_is_due_at_the_end_of_the_stay_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, hold=14, telemetry=TELEMETRY)

    assert (seen.published_at, seen.ended) == ([[4.5]], about(14.5))


async def test_stay_that_is_shorter_than_the_wait_for_the_first_message_has_none(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, hold=3, telemetry=TELEMETRY)

    assert [(each.published, each.acknowledged) for each in seen.attempts] == [(0, 0)]


async def test_nothing_is_acknowledged_where_nothing_is_asked_to_be(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    quiet = Telemetry(topic="t", every=10.0, offset=4.0, qos=0, size=1)
    seen = await live(monkeypatch, hold=30, telemetry=quiet)

    assert [each.acknowledged for each in (*seen.lives, *seen.attempts)] == [None] * len(seen.lives) + [None]
    assert (seen.attempts[0].published, seen.net.clients[0].messages[0][2]["qos"]) == (3, 0)


@pytest.mark.parametrize("answer", [UNANSWERED, Failure(kind=FailureKind.REQUEST_REFUSED, stage=Stage.SESSION)])
async def test_message_that_is_not_acknowledged_counts_as_published_and_the_device_goes_on(
    answer: Failure, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, Session(answers=[0.1, answer]), hold=40, telemetry=TELEMETRY)

    (attempt,) = seen.attempts
    assert (attempt.published, attempt.acknowledged, attempt.failure) == (4, 3, None)


async def test_messages_that_a_slow_server_kept_from_being_sent_are_sent_as_soon_as_it_answers(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, Session(answers=[25.0]), hold=50, telemetry=TELEMETRY)

    assert seen.published_at == [[4.5, 29.5, 29.5, 34.5, 44.5]]
    told = [payload for _, _, payload in seen.net.clients[0].messages]
    assert [each["message"] for each in told] == [1, 2, 3, 4, 5]
    assert [each["at"] - EPOCH for each in told] == pytest.approx([4.5, 29.5, 29.5, 34.5, 44.5], abs=1e-3)
    assert [(each.published, each.acknowledged) for each in seen.attempts] == [(5, 5)]


async def test_messages_that_are_late_are_sent_one_after_another_until_the_device_has_caught_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, Session(answers=[25.0, 4.0, 4.0, UNANSWERED, 1.0]), hold=70, telemetry=TELEMETRY)

    assert seen.published_at == [[4.5, 29.5, 33.5, 37.5, 44.5, 54.5, 64.5]]
    assert [(each.published, each.acknowledged) for each in seen.attempts] == [(7, 6)]


async def test_server_that_is_slower_than_the_rhythm_is_sent_the_next_message_at_each_answer(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, Session(answers=[15.0] * 9), hold=60, telemetry=TELEMETRY)

    assert seen.published_at == [[4.5, 19.5, 34.5, 49.5]]


async def test_messages_that_are_still_late_at_the_end_of_the_stay_are_not_sent(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, Session(answers=[47.0]), hold=50, telemetry=TELEMETRY)

    assert (seen.published_at, seen.ended) == ([[4.5]], about(51.5))


async def test_messages_that_were_late_when_the_connection_was_lost_are_not_sent_over_the_next(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, Session(lost_after=29, answers=[99.0]), hold=50, telemetry=TELEMETRY)

    assert seen.published_at == [[4.5], [36.0, 46.0]]


async def test_connection_lost_with_a_message_under_way_counts_it_as_published_only(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    script = Session(lost_after=15, answers=[0.0, 8.0])
    seen = await live(monkeypatch, script, hold=40, telemetry=TELEMETRY)

    lost, last = seen.attempts
    assert (lost.failure, lost.published, lost.acknowledged) == (LOST, 2, 1)
    # the new connection counts anew, and its rhythm begins with its own CONNACK
    assert (last.published, last.acknowledged) == (2, 2)
    assert seen.published_at == [[4.5, 14.5], [22.0, 32.0]]
    assert seen.net.clients[1].messages[0][2]["message"] == 1


async def test_connection_lost_between_two_messages_is_noticed_then(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, Session(lost_after=6), hold=40, telemetry=TELEMETRY, delays=())

    assert (seen.accepted, seen.ended) == (False, about(6.5))
    assert [(each.failure, each.published) for each in seen.attempts] == [(LOST, 1)]


async def test_cancelled_while_it_waits_for_an_acknowledgement_its_last_counts_are_told(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    seen = await live(monkeypatch, Session(answers=[0.0, 9.0]), hold=60, telemetry=TELEMETRY, cancel_at=16)

    assert (seen.accepted, seen.attempts) == (None, [])
    last = seen.lives[-1]
    assert (last.published, last.acknowledged, last.end) == (2, 1, at(16))


async def test_record_is_told_now_and_then_and_not_of_every_message(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    often = Telemetry(topic="t", every=0.5, offset=0.0, qos=1, size=1)
    seen = await live(monkeypatch, hold=35, telemetry=often)

    assert [each.end for each in seen.lives] == [at(0.5 + RECORD_SECONDS * n) for n in range(4)]
    assert [each.published for each in seen.lives] == [0, 21, 41, 61]
    assert [each.acknowledged for each in seen.lives] == [0, 21, 41, 61]
    assert (seen.attempts[0].published, seen.attempts[0].acknowledged) == (70, 70)


async def test_device_that_nobody_is_told_of_while_it_stays(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(module, "open_mqtt", FakeNet(lambda _: ()))
    device = replace(plain_device(), telemetry=TELEMETRY)
    told: list[Attempt] = []

    await drive(device, wire(20), 0.0, iter(()), Clock(epoch=EPOCH, zero=0.0), told.append)

    assert [(each.published, each.acknowledged) for each in told] == [(2, 2)]
