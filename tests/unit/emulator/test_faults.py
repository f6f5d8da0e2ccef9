"""The board: what fits, what is drawn, what is over."""

from typing import Any

import pytest

from devicesim.emulator.faults import Fault, FaultBoard, FaultKind

A, B = "111111111111", "222222222222"
REFUSE = FaultKind.REFUSE_CONNECT


def fired(board: FaultBoard, times: int, now: float = 0.0, **facts: Any) -> list[bool]:
    return [board.fires(REFUSE, now, **facts) is not None for _ in range(times)]


class TestDraws:
    def test_without_share_it_always_fires(self) -> None:
        board = FaultBoard()
        board.inject(Fault(kind=REFUSE), 0.0)

        assert all(fired(board, 100))

    def test_a_share_is_a_share_of_what_fits(self) -> None:
        board = FaultBoard(seed=1)
        board.inject(Fault(kind=REFUSE, share=0.2), 0.0)

        assert 1800 < sum(fired(board, 10_000)) < 2200

    def test_the_same_seed_draws_the_same(self) -> None:
        runs = []
        for seed in (1, 1, 2):
            board = FaultBoard(seed=seed)
            board.inject(Fault(kind=REFUSE, share=0.5), 0.0)
            runs.append(fired(board, 100))

        assert runs[0] == runs[1] != runs[2]

    def test_a_fault_s_own_seed_counts_before_the_board_s(self) -> None:
        runs = []
        for seed in (1, 2):
            board = FaultBoard(seed=seed)
            board.inject(Fault(kind=REFUSE, share=0.5, seed=7), 0.0)
            runs.append(fired(board, 100))

        assert runs[0] == runs[1]

    def test_two_faults_of_one_seed_draw_apart(self) -> None:
        runs = []
        for name in ("one", "two"):
            board = FaultBoard(seed=1)
            board.inject(Fault(kind=REFUSE, name=name, share=0.5), 0.0)
            runs.append(fired(board, 100))

        assert runs[0] != runs[1]

    def test_count_is_how_often_it_fires(self) -> None:
        board = FaultBoard()
        board.inject(Fault(kind=REFUSE, count=3), 0.0)

        assert fired(board, 5) == [True, True, True, False, False]
        assert board.list(0.0)[0].over

    def test_looking_draws_nothing(self) -> None:
        board = FaultBoard()
        board.inject(Fault(kind=REFUSE, count=1), 0.0)

        assert [each.name for each in board.would_fire(REFUSE, 0.0, account_id=A)] == ["refuse_connect"]
        assert board.list(0.0)[0].fired == 0
        assert fired(board, 1) == [True]
        assert board.would_fire(REFUSE, 0.0, account_id=A) == []


class TestWindow:
    def test_it_begins_after_and_ends_with_its_duration(self) -> None:
        board = FaultBoard()
        board.inject(Fault(kind=REFUSE, after=10, duration=5), 100.0)

        assert [fired(board, 1, now)[0] for now in (100.0, 109.9, 110.0, 114.9, 115.0)] == [
            False,
            False,
            True,
            True,
            False,
        ]
        assert board.list(115.0)[0].over
        assert not board.list(105.0)[0].over


class TestFilters:
    @pytest.mark.parametrize(
        ("filters", "facts", "fires"),
        [
            ({}, {}, True),
            ({"account_id": A}, {"account_id": A}, True),
            ({"account_id": A}, {"account_id": B}, False),
            ({"account_id": A}, {}, False),
            ({"region": "eu-west-1"}, {"region": "us-east-1"}, False),
            ({"client_id": "c"}, {"client_id": "c", "account_id": A}, True),
            ({"client_id": "c"}, {"client_id": "d"}, False),
            ({"certificate_id": "00"}, {"certificate_id": "00"}, True),
            ({"account_id": A, "client_id": "c"}, {"account_id": A, "client_id": "d"}, False),
        ],
    )
    def test_it_fits_what_has_all_that_it_names(
        self, filters: dict[str, Any], facts: dict[str, Any], fires: bool
    ) -> None:
        board = FaultBoard()
        board.inject(Fault(kind=REFUSE, **filters), 0.0)

        assert (board.fires(REFUSE, 0.0, **facts) is not None) == fires

    def test_other_kinds_do_not_fire(self) -> None:
        board = FaultBoard()
        board.inject(Fault(kind=FaultKind.THROTTLE), 0.0)

        assert fired(board, 1) == [False]
        assert not board.has(REFUSE)
        assert board.has(FaultKind.THROTTLE)

    def test_the_first_that_fires_is_the_one_that_happens(self) -> None:
        board = FaultBoard()
        board.inject(Fault(kind=REFUSE, name="once", count=1), 0.0)
        board.inject(Fault(kind=REFUSE, name="always"), 0.0)

        names = [fault.name for _ in range(3) if (fault := board.fires(REFUSE, 0.0)) is not None]

        assert names == ["once", "always", "always"]


class TestBoard:
    def test_a_fault_is_named_after_its_kind(self) -> None:
        board = FaultBoard()

        assert board.inject(Fault(kind=REFUSE), 0.0).name == "refuse_connect"

    def test_a_name_is_taken_once(self) -> None:
        board = FaultBoard()
        board.inject(Fault(kind=REFUSE, name="x"), 0.0)

        with pytest.raises(ValueError, match="'x' already"):
            board.inject(Fault(kind=FaultKind.THROTTLE, name="x"), 0.0)

    def test_removed_ones_fire_no_more_and_their_name_is_free(self) -> None:
        board = FaultBoard()
        board.inject(Fault(kind=REFUSE, name="x"), 0.0)

        assert board.remove("x")
        assert not board.remove("x")
        assert fired(board, 1) == [False]
        assert not board.has(REFUSE)
        board.inject(Fault(kind=REFUSE, name="x"), 0.0)

    def test_clearing_takes_all_off(self) -> None:
        board = FaultBoard()
        board.inject(Fault(kind=REFUSE), 0.0)

        board.clear()

        assert board.list(0.0) == []
        assert not board.has(REFUSE)

    def test_the_list_says_what_became_of_each(self) -> None:
        board = FaultBoard()
        board.inject(Fault(kind=REFUSE, share=0.5, account_id=A), 0.0)
        hits = sum(fired(board, 100, account_id=A))
        fired(board, 50, account_id=B)

        (status,) = board.list(0.0)

        assert (status.seen, status.fired, status.over) == (100, hits, False)
        document = status.to_json()
        assert document["kind"] == "refuse_connect"
        assert document["fired"] == hits


class TestSpecification:
    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({"share": 0}, "share"),
            ({"share": 1.5}, "share"),
            ({"share": float("nan")}, "share"),
            ({"count": 0}, "count"),
            ({"after": -1}, "after"),
            ({"duration": 0}, "duration"),
            ({"seconds": 1}, "takes no seconds"),
            ({"kind": FaultKind.DELAY_CONNACK, "seconds": -1}, "seconds"),
            ({"kind": FaultKind.CLOCK_SKEW, "seconds": float("inf")}, "seconds"),
            ({"kind": FaultKind.CLOCK_SKEW, "seconds": -1e12}, "seconds is -1000000000000.0, must be a number from -3"),
            ({"kind": FaultKind.SERVER_CERTIFICATE_EXPIRING, "seconds": 1e12}, "seconds"),
            ({"after": 10**400}, "after"),
            ({"duration": 10**400}, "duration"),
            ({"account_id": "dev"}, "account_id is 'dev', must be twelve digits"),
            ({"operation": "CreateThing"}, "takes no operation"),
            (
                {"kind": FaultKind.THROTTLE_API, "client_id": "c"},
                "client_id, only account_id, operation, region",
            ),
            ({"kind": FaultKind.SERVER_CERTIFICATE_EXPIRED, "certificate_id": "00"}, "takes no certificate_id"),
            ({"kind": FaultKind.DROP_AFTER_HANDSHAKE, "client_id": "c"}, "takes no client_id"),
        ],
    )
    def test_what_is_not_allowed_is_said(self, fields: dict[str, float], text: str) -> None:
        with pytest.raises(ValueError, match=text):
            Fault(**{"kind": REFUSE, **fields})  # type: ignore[arg-type]

    def test_a_clock_may_be_slow(self) -> None:
        assert Fault(kind=FaultKind.CLOCK_SKEW, seconds=-60).time == -60

    def test_kinds_with_a_time_have_one_of_their_own(self) -> None:
        assert Fault(kind=FaultKind.DELAY_CONNACK).time == 5
        assert Fault(kind=REFUSE).time == 0
