"""The judgement of a case: what the device saw, what accounts hold, and who is wrong."""

import pytest

from devicesim.conformance.result import Ended, Status
from devicesim.outcome import FailureKind
from tests.conformance_check_support import (
    AGREEING,
    DISAGREEING,
    FAILED,
    ORACLE_WRONG,
    SKIPPED,
    case,
    check,
    held,
    result,
    seen,
    tried,
)


def test_a_case_that_agrees_says_where_the_certificate_ended_up() -> None:
    assert AGREEING.status is Status.AGREES
    assert AGREEING.reason == ""
    assert (AGREEING.expected, AGREEING.observed) == ("provisioned in b (SNI_ONLY, thing)",) * 2
    assert AGREEING.ended == (Ended(account="b", status="ACTIVE", mode="SNI_ONLY", things=("thing",)),)
    assert (AGREEING.row.id, AGREEING.row.mark) == ("10b.C3.sB", "D/I")
    assert AGREEING.tries == ("closed before CONNACK", "accepted")
    assert AGREEING.seconds == 0.5


def test_documented_row_that_is_not_kept_is_a_disagreement_also_on_a_real_account() -> None:
    for real in (False, True):
        wrong = result(case("C1-jitp/new/a-own"), seen(tried()), real=real)

        assert wrong.status is Status.DISAGREES
        assert wrong.row.mark == "D+M"
        assert "expected provisioned in a" in wrong.reason


def test_inferred_row_that_a_real_account_contradicts_is_the_oracle_s_fault() -> None:
    assert ORACLE_WRONG.status is Status.ORACLE_WRONG
    assert "I" in ORACLE_WRONG.row.mark


def test_inferred_row_that_an_emulator_contradicts_is_a_disagreement() -> None:
    wrong = result(case("C1-jitp/new/a-none"), seen(tried()), real=False)

    assert wrong.status is Status.DISAGREES


@pytest.mark.parametrize("kind", [FailureKind.TCP_REFUSED, FailureKind.TIMEOUT])
def test_target_that_is_not_there_proves_no_row_wrong(kind: FailureKind) -> None:
    wrong = result(case("C1-jitp/new/a-none"), seen(tried(kind), tried(kind)), real=True)

    assert wrong.status is Status.DISAGREES


def test_record_in_an_account_that_should_have_none_is_a_disagreement() -> None:
    wrong = result(case("C0/new/a-own"), seen(tried(), after=(held("a", "PENDING_ACTIVATION"),)))

    assert wrong.status is Status.DISAGREES
    assert wrong.observed == "pending in a (DEFAULT)"


def test_account_that_is_kinder_than_aws_is_found_out() -> None:
    wrong = result(case("C1-jitp/new/a-own"), seen(tried(None), after=(held("a", "ACTIVE", "DEFAULT", "t"),)))

    assert wrong.status is Status.DISAGREES
    assert "accepted on the first try" in wrong.reason


def test_record_in_the_wrong_mode_or_without_its_thing_is_found_out() -> None:
    in_mode = result(
        case("C1-jitp/new/a-own"), seen(tried(), tried(None), after=(held("a", "ACTIVE", "SNI_ONLY", "t"),))
    )
    thingless = result(case("C1-jitp/new/a-own"), seen(tried(), tried(None), after=(held("a"),)))

    assert "SNI_ONLY mode" in in_mode.reason
    assert "without a thing" in thingless.reason


def test_refusal_that_looks_otherwise_is_a_disagreement() -> None:
    """CONNACK 5 in place of a close: what MiniStack and Floci do, and AWS does not."""
    wrong = result(case("C0/new/a-own"), seen(tried(FailureKind.CONNACK_REFUSED, code=5)))
    alert = result(case("C0/new/a-own"), seen(tried(FailureKind.TLS_ALERT)))
    reset = result(case("C0/new/a-own"), seen(tried(FailureKind.CONNECTION_RESET)))

    assert wrong.status is alert.status is Status.DISAGREES
    assert "expected closed before connack on the first try" in wrong.reason
    assert reset.status is Status.AGREES, "a server that closes with our bytes unread resets"


def test_handshake_alone_must_succeed_and_register_nothing() -> None:
    name = "C2-jitp/new-handshake/a-own"

    assert result(case(name), seen(tried(None))).status is Status.AGREES
    registered = result(case(name), seen(tried(None), after=(held("a", "PENDING_ACTIVATION"),)))
    assert "a handshake without CONNECT was registered in a" in registered.reason
    refused = result(case(name), seen(tried(FailureKind.TLS_ALERT)))
    assert "the handshake was to succeed" in refused.reason


def test_live_connection_must_be_accepted_and_then_end() -> None:
    name = "C1-jitp/active-live/a-own"
    gone = tried(FailureKind.CLOSED_AFTER_CONNACK, code=0)

    assert result(case(name), seen(gone, disconnected_after=0.1)).status is Status.AGREES
    assert "stays connected" in result(case(name), seen(tried(None))).reason
    assert "expected to be accepted first" in result(case(name), seen(tried())).reason


def test_whole_check_agrees_when_something_ran_and_all_of_it_agrees() -> None:
    assert check(AGREEING).agrees
    assert check(AGREEING, SKIPPED).agrees
    assert not check().agrees
    assert not check(SKIPPED).agrees
    for wrong in (DISAGREEING, ORACLE_WRONG, FAILED):
        assert not check(AGREEING, wrong).agrees
