"""The judgement of a case: what the device saw, what accounts hold, and who is wrong."""

from functools import partial

import pytest

from devicesim import rules
from devicesim.conformance.player import DEACTIVATED_TO
from devicesim.conformance.result import Ended, Status
from devicesim.outcome import FailureKind, Stage
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
    later = result(
        case("C1-jitr/new/a-own"),
        seen(tried(), tried(FailureKind.CONNACK_REFUSED, code=5), after=(held("a", "PENDING_ACTIVATION"),)),
    )
    alert = result(case("C0/new/a-own"), seen(tried(FailureKind.TLS_ALERT)))
    reset = result(case("C0/new/a-own"), seen(tried(FailureKind.CONNECTION_RESET)))
    in_handshake = result(case("C0/new/a-own"), seen(tried(FailureKind.CONNECTION_RESET, stage=Stage.TLS)))

    assert wrong.status is later.status is alert.status is in_handshake.status is Status.DISAGREES
    assert wrong.reason == "expected a close before CONNACK on try 1; CONNACK refused with code 0x05"
    assert later.reason == "expected a close before CONNACK on try 2; CONNACK refused with code 0x05"
    assert alert.reason == "expected a close before CONNACK on try 1; TLS alert"
    assert reset.status is Status.AGREES, "a server that closes with our bytes unread resets"


def test_what_mqtt_5_says_to_whom_no_policy_lets_in_is_looked_at() -> None:
    denied = case("C1-jitp/denied/a-own", transport="tls1.3-mqtt5-8883")
    records = (held("a"),)

    told = [
        result(denied, seen(tried(FailureKind.CONNACK_REFUSED, code=code), before=records, after=records))
        for code in (0x87, 0x80)
    ]
    closed = result(denied, seen(tried(), before=records, after=records))

    assert [each.status for each in (*told, closed)] == [Status.AGREES, Status.DISAGREES, Status.DISAGREES]
    assert closed.reason == "expected CONNACK 0x87 on try 1; closed before CONNACK"


def test_device_that_is_let_in_only_later_waits_for_aws_alone() -> None:
    """AWS may still be catching up with the setup (a policy takes minutes at worst); an emulator has no such excuse."""
    known, records = case("C1-jitp/active/a-own"), (held("a"),)
    late = seen(tried(), tried(None), before=records, after=records)
    no_answer = seen(tried(FailureKind.TCP_REFUSED), tried(None), before=records, after=records)

    assert result(known, late, real=True).status is Status.AGREES
    assert result(known, no_answer).status is Status.AGREES
    wrong = result(known, late)
    assert (wrong.status, wrong.reason) == (
        Status.DISAGREES,
        "expected to be accepted on try 1; closed before CONNACK",
    )


def test_alert_of_a_real_account_proves_an_inferred_stage_wrong() -> None:
    """No TLS version is known of a handshake that an alert ends, and the target has answered all the same."""
    unknown, own = case("C2-jitp/new/a-unknown"), case("C2-jitp/new/a-own")
    alert, mismatch = tried(FailureKind.TLS_ALERT), tried(FailureKind.SERVER_NAME_MISMATCH)

    assert result(unknown, seen(alert), real=True).status is Status.ORACLE_WRONG
    assert result(unknown, seen(mismatch), real=True).status is Status.ORACLE_WRONG
    assert result(own, seen(mismatch), real=True).status is Status.DISAGREES, "under its own name it is not AWS's door"


def test_what_nobody_tried_over_mqtt_5_is_the_oracle_s_fault_and_the_rest_is_not() -> None:
    """The close without CONNACK was measured over MQTT 3.1.1 (aws-iot-behaviour.md §11 no. 3); where a certificate is
    registered is documented for both."""
    new = case("C1-jitp/new/a-own", transport="tls1.3-mqtt5-8883")
    told = tried(FailureKind.CONNACK_REFUSED, code=0x87)

    looks = result(new, seen(told, tried(None), after=(held("a", "ACTIVE", "DEFAULT", "thing"),)), real=True)
    place = result(new, seen(told, told, after=()), real=True)

    assert (looks.status, place.status) == (Status.ORACLE_WRONG, Status.DISAGREES)
    assert rules.MQTT5_CLOSE in looks.rests_on


def test_registration_on_443_is_nobody_s_measurement() -> None:
    new = case("C1-jitp/new/a-own", transport="tls1.3-mqtt3.1.1-443")

    assert result(new, seen(tried()), real=True).status is Status.ORACLE_WRONG
    assert result(new, seen(tried())).status is Status.DISAGREES


def test_record_that_a_connection_elsewhere_changes_is_found_out() -> None:
    """ACTIVE in A, REVOKED in B: B refuses, and A is unaffected (§10d); a refusal changes nothing in B either."""
    beside = case("C4-jitp/active-revoked-in-b/b-own")
    before = (held("a", "ACTIVE", "SNI_ONLY"), held("b", "REVOKED", "SNI_ONLY"))

    same = result(beside, seen(tried(), before=before, after=before))
    in_a = result(beside, seen(tried(), before=before, after=(held("a", "INACTIVE", "SNI_ONLY"), before[1])))
    in_b = result(beside, seen(tried(), before=before, after=before[:1]))

    assert (same.status, in_a.status, in_b.status) == (Status.AGREES, Status.DISAGREES, Status.DISAGREES)
    assert in_a.reason == "its record in a was ACTIVE (SNI_ONLY), and is INACTIVE (SNI_ONLY) now"
    assert in_b.reason == "its record in b was REVOKED (SNI_ONLY), and is gone"


def test_another_thing_than_the_template_s_is_found_out() -> None:
    wrong = result(
        case("C1-jitp/new/a-own"), seen(tried(), tried(None), after=(held("a", "ACTIVE", "DEFAULT", "thing-x"),))
    )

    assert wrong.reason == "JITP attached the thing 'thing-x'; the template makes 'thing'"


def test_account_must_tell_of_each_connection_that_is_pending_and_of_no_other() -> None:
    """§10c "PENDING_ACTIVATION: event again, drop"; a CA whose template runs is not listened to (§11 no. 11)."""
    again, records = case("C1-jitr/pending/a-own"), (held("a", "PENDING_ACTIVATION"),)
    three_due = partial(seen, tried(), tried(), before=records, after=records, events_due=3)
    revoked, handshake = case("C1-jitp/revoked/a-own"), case("C2-jitp/new-handshake/a-own")
    none_due = partial(seen, tried(), before=(held("a", "REVOKED"),), after=(held("a", "REVOKED"),))

    assert [result(again, three_due(events=count)).status for count in (2, 3, 4, None)] == [
        Status.DISAGREES,
        *[Status.AGREES] * 3,
    ]
    assert result(again, three_due(events=1)).reason == (
        "the registered event was published 1 time, for 3 dropped connections"
    )
    assert result(revoked, none_due(events=0)).status is Status.AGREES
    assert "for a certificate that was not registered by connecting" in result(revoked, none_due(events=2)).reason
    assert "published 1 time" in result(handshake, seen(tried(None), events=1)).reason


def test_handshake_alone_must_succeed_and_register_nothing() -> None:
    name = "C2-jitp/new-handshake/a-own"

    assert result(case(name), seen(tried(None))).status is Status.AGREES
    registered = result(case(name), seen(tried(None), after=(held("a", "PENDING_ACTIVATION"),)))
    assert "a handshake without CONNECT was registered in a" in registered.reason
    refused = result(case(name), seen(tried(FailureKind.TLS_ALERT)))
    assert "the handshake was to succeed" in refused.reason
    changed = seen(tried(None), before=(held("a", "REVOKED"),), after=(held("a", "INACTIVE"),))
    assert "its record in a was REVOKED" in result(case(name), changed).reason


def test_live_connection_must_be_accepted_and_then_end() -> None:
    gone = tried(FailureKind.CLOSED_AFTER_CONNACK, code=0)

    for name in ("C1-jitp/active-live/a-own", "C1-jitp/active-live-revoked/a-own"):
        live = case(name)
        assert live.act in DEACTIVATED_TO
        assert result(live, seen(gone, disconnected_after=0.1)).status is Status.AGREES
        assert "stays connected" in result(live, seen(tried(None))).reason
        assert "expected to be accepted first" in result(live, seen(tried())).reason
        assert "ended before its certificate was deactivated" in result(live, seen(gone)).reason
        late = seen(tried(), gone, disconnected_after=0.1)
        assert result(live, late).reason == "accepted only after it had been refused"
        assert result(live, late, real=True).status is Status.AGREES


def test_whole_check_agrees_when_something_ran_and_all_of_it_agrees() -> None:
    assert check(AGREEING).agrees
    assert check(AGREEING, SKIPPED).agrees
    assert not check().agrees
    assert not check(SKIPPED).agrees
    for wrong in (DISAGREEING, ORACLE_WRONG, FAILED):
        assert not check(AGREEING, wrong).agrees
