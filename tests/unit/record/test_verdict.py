"""Where a device ended, from its attempts and what the accounts hold, and whether that is what was expected."""

from dataclasses import replace

import pytest

from devicesim.outcome import Attempt, DeviceOutcome, Failure, FailureKind, Holding, Stage, Verdict
from devicesim.record import verdict
from devicesim.record.verdict import DeviceFacts, Expected, UserExpectation, expected, judge
from devicesim.rules import Expectation, Row

CERTIFICATE = "ab" * 32
ROW = Row(id="10b.C3.sA", says="registered there", mark="D/I", source="aws-iot-behaviour.md §10b")
IN_PROD = Expectation(
    outcome=DeviceOutcome.PROVISIONED,
    account="prod",
    mode="DEFAULT",
    thing=True,
    first_try="closed_before_connack",
    row=ROW,
    registered_in="prod",
)
KNOWN_IN_PROD = replace(IN_PROD, thing=None, first_try="accepted", registered_in=None)
PENDING_IN_PROD = replace(IN_PROD, outcome=DeviceOutcome.PENDING, thing=None)
NOWHERE = Expectation(
    outcome=DeviceOutcome.REFUSED, account=None, mode=None, thing=None, first_try="closed_before_connack", row=ROW
)
FACTS = DeviceFacts(device=7, certificate_id=CERTIFICATE, addressed="prod")
NO_SNI = replace(FACTS, addressed=None)


def attempt(number: int = 1, failure: Failure | None = None, *, sni: str | None = "prod.example") -> Attempt:
    """Attempts are 4 s apart, each 0.25 s late; without a failure CONNACK 0 comes after 0.5 s."""
    intended = 1000.0 + 4 * (number - 1)
    return Attempt(
        device=7,
        number=number,
        account="prod",
        sni=sni,
        intended_start=intended,
        start=intended + 0.25,
        end=intended + 1,
        reached={} if failure else {Stage.TCP: 0.1, Stage.TLS: 0.3, Stage.CONNECT: 0.3, Stage.CONNACK: 0.5},
        failure=failure,
        tls_version=None,
        cipher=None,
        alert=None,
        connack_code=None if failure else 0,
    )


def seen(kind: FailureKind, stage: Stage = Stage.CONNACK) -> Failure:
    return Failure(kind=kind, stage=stage)


DROP = seen(FailureKind.CLOSED_BEFORE_CONNACK)
DROPPED = [attempt(1, DROP), attempt(2, DROP)]
ACCEPTED = [attempt(1, DROP), attempt(2)]


def held(account: str, status: str = "ACTIVE", mode: str | None = "DEFAULT", *things: str) -> Holding:
    return Holding(account=account, certificate_id=CERTIFICATE, status=status, mode=mode, things=things)


THING = held("prod", "ACTIVE", "DEFAULT", "robot-7")


def ended(result: Verdict) -> tuple[DeviceOutcome, str | None, str | None, str | None]:
    return result.outcome, result.account, result.mode, result.thing


# --- where it ended ---


def test_provisioned_is_connack_0_that_the_control_plane_confirms() -> None:
    result = judge(FACTS, ACCEPTED, [THING], IN_PROD, before=[])

    assert result == Verdict(
        device=7,
        outcome=DeviceOutcome.PROVISIONED,
        account="prod",
        mode="DEFAULT",
        thing="robot-7",
        expected_outcome=DeviceOutcome.PROVISIONED,
        expected_account="prod",
        agrees=True,
        reason="",
        attempts=2,
        time_to_provision=4.75,
    )


def test_time_to_provision_counts_from_the_intended_start_of_the_first_try() -> None:
    result = judge(FACTS, [attempt(1)], [THING], KNOWN_IN_PROD)

    assert result.time_to_provision == 0.75


def test_provisioned_without_a_control_plane_to_ask_names_no_account() -> None:
    result = judge(FACTS, ACCEPTED, None, IN_PROD)

    assert ended(result) == (DeviceOutcome.PROVISIONED, None, None, None)
    assert result.agrees
    assert result.time_to_provision == 4.75


@pytest.mark.parametrize("holdings", [[], [held("prod", "INACTIVE")], [held("prod", "PENDING_ACTIVATION")]])
def test_connack_0_that_no_account_confirms_is_a_failure(holdings: list[Holding]) -> None:
    result = judge(FACTS, ACCEPTED, holdings, IN_PROD)

    assert ended(result) == (DeviceOutcome.FAILED, None, None, None)
    assert result.time_to_provision is None
    assert result.reason == (
        "expected provisioned in prod (DEFAULT, thing); accepted with CONNACK 0, but no account holds its certificate"
        " ACTIVE"
    )


def test_success_counts_even_when_the_connection_then_ended() -> None:
    lost = replace(attempt(2), failure=seen(FailureKind.CLOSED_AFTER_CONNACK, Stage.SESSION))

    result = judge(FACTS, [attempt(1, DROP), lost], [THING], IN_PROD, before=[])

    assert (result.outcome, result.agrees) == (DeviceOutcome.PROVISIONED, True)


def test_of_several_active_records_the_addressed_account_is_where_it_connected() -> None:
    holdings = [held("dev"), THING]

    assert judge(FACTS, ACCEPTED, holdings, IN_PROD).account == "prod"


def test_without_sni_the_default_record_is_where_it_connected() -> None:
    holdings = [held("dev", "ACTIVE", "SNI_ONLY"), THING]

    assert judge(NO_SNI, [attempt(1, sni=None)], holdings, KNOWN_IN_PROD).account == "prod"


def test_refused_while_an_account_holds_it_pending_is_pending() -> None:
    result = judge(FACTS, DROPPED, [held("prod", "PENDING_ACTIVATION")], PENDING_IN_PROD, before=[])

    assert ended(result) == (DeviceOutcome.PENDING, "prod", "DEFAULT", None)
    assert result.agrees


def test_record_that_was_pending_elsewhere_before_the_run_is_not_where_it_ended() -> None:
    old = held("dev", "PENDING_ACTIVATION")

    result = judge(FACTS, DROPPED, [old], NOWHERE, before=[old])

    assert (result.outcome, result.agrees) == (DeviceOutcome.REFUSED, True)


def test_record_that_became_pending_elsewhere_is_where_it_ended() -> None:
    result = judge(FACTS, DROPPED, [held("dev", "PENDING_ACTIVATION")], NOWHERE, before=[])

    assert (result.outcome, result.account) == (DeviceOutcome.PENDING, "dev")
    assert result.reason == "expected refused; pending in dev"


def test_account_of_another_region_is_not_where_a_device_without_sni_ended() -> None:
    """Each Region has a DEFAULT record of its own, and only the Region that is dialled answers."""
    records = [held("abroad"), held("prod")]
    facts = replace(NO_SNI, abroad={"abroad"})

    provisioned = judge(facts, [attempt(1, sni=None)], records, KNOWN_IN_PROD, before=records)
    pending = judge(
        facts,
        [attempt(1, DROP, sni=None)],
        [held("abroad", "PENDING_ACTIVATION"), held("prod", "PENDING_ACTIVATION")],
        PENDING_IN_PROD,
        before=[held("abroad", "PENDING_ACTIVATION")],
    )

    assert (provisioned.account, provisioned.agrees) == ("prod", True)
    assert (pending.account, pending.agrees) == ("prod", True)


def test_pending_default_record_is_where_a_device_without_sni_ended() -> None:
    old = held("prod", "PENDING_ACTIVATION")

    result = judge(NO_SNI, [attempt(1, DROP, sni=None)], [old], PENDING_IN_PROD, before=[old])

    assert (result.outcome, result.account) == (DeviceOutcome.PENDING, "prod")


def test_pending_record_of_the_same_certificate_in_another_group_is_not_its_own() -> None:
    facts = replace(FACTS, expected_elsewhere=frozenset({"dev"}))

    result = judge(facts, DROPPED, [held("dev", "PENDING_ACTIVATION")], NOWHERE, before=[])

    assert (result.outcome, result.agrees) == (DeviceOutcome.REFUSED, True)


def test_other_certificates_say_nothing() -> None:
    other = replace(THING, certificate_id="cd" * 32)

    assert judge(FACTS, ACCEPTED, [other], IN_PROD).outcome is DeviceOutcome.FAILED


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (DROP, DeviceOutcome.REFUSED),
        (seen(FailureKind.TLS_ALERT, Stage.TLS), DeviceOutcome.REFUSED),
        (seen(FailureKind.CONNACK_REFUSED), DeviceOutcome.REFUSED),
        (seen(FailureKind.CLOSED_IN_HANDSHAKE, Stage.TLS), DeviceOutcome.REFUSED),
        (seen(FailureKind.CONNECTION_RESET), DeviceOutcome.REFUSED),
        (seen(FailureKind.CONNECTION_RESET, Stage.TCP), DeviceOutcome.UNREACHABLE),
        (seen(FailureKind.NAME_NOT_RESOLVED, Stage.TCP), DeviceOutcome.UNREACHABLE),
        (seen(FailureKind.TCP_REFUSED, Stage.TCP), DeviceOutcome.UNREACHABLE),
        (seen(FailureKind.TCP_UNREACHABLE, Stage.TCP), DeviceOutcome.UNREACHABLE),
        (seen(FailureKind.TIMEOUT, Stage.TCP), DeviceOutcome.UNREACHABLE),
        (seen(FailureKind.SERVER_NAME_MISMATCH, Stage.TLS), DeviceOutcome.UNREACHABLE),
        (seen(FailureKind.SERVER_CERTIFICATE_UNTRUSTED, Stage.TLS), DeviceOutcome.UNREACHABLE),
        (seen(FailureKind.SERVER_CERTIFICATE_EXPIRED, Stage.TLS), DeviceOutcome.UNREACHABLE),
        (seen(FailureKind.TIMEOUT, Stage.TLS), DeviceOutcome.FAILED),
        (seen(FailureKind.TIMEOUT), DeviceOutcome.FAILED),
        (seen(FailureKind.LOCAL_RESOURCES, Stage.TCP), DeviceOutcome.FAILED),
        (seen(FailureKind.TLS_PROTOCOL_ERROR, Stage.TLS), DeviceOutcome.FAILED),
        (seen(FailureKind.MQTT_PROTOCOL_ERROR), DeviceOutcome.FAILED),
    ],
    ids=lambda each: f"{each.kind}-{each.stage}" if isinstance(each, Failure) else str(each),
)
def test_last_failure_says_where_a_device_ended_that_was_never_accepted(
    failure: Failure, outcome: DeviceOutcome
) -> None:
    attempts = [attempt(1, DROP), attempt(2, failure)]

    assert judge(FACTS, attempts, [], IN_PROD).outcome is outcome


def test_unreachable_device_is_not_pending_even_when_its_certificate_is() -> None:
    attempts = [attempt(1, DROP), attempt(2, seen(FailureKind.TCP_REFUSED, Stage.TCP))]

    result = judge(FACTS, attempts, [held("prod", "PENDING_ACTIVATION")], PENDING_IN_PROD)

    assert result.outcome is DeviceOutcome.UNREACHABLE
    assert result.reason == "expected pending in prod (DEFAULT); unreachable: TCP connection refused"


def test_no_attempt_is_not_started_and_never_agrees() -> None:
    result = judge(FACTS, [], [], NOWHERE)

    assert (result.outcome, result.agrees, result.attempts) == (DeviceOutcome.NOT_STARTED, False, 0)
    assert result.reason == "expected refused; not started"


def test_attempt_cut_short_without_a_failure_is_a_failed_device() -> None:
    cut = replace(attempt(1), reached={Stage.TCP: 0.1}, connack_code=None)

    result = judge(FACTS, [cut], [], IN_PROD)

    assert (result.outcome, result.reason) == (
        DeviceOutcome.FAILED,
        "expected provisioned in prod (DEFAULT, thing); failed",
    )


# --- whether it agrees ---


@pytest.mark.parametrize(
    ("holding", "reason"),
    [
        (held("dev", "ACTIVE", "SNI_ONLY", "x"), "expected provisioned in prod (DEFAULT, thing); provisioned in dev"),
        (held("prod", "ACTIVE", "SNI_ONLY", "x"), "provisioned in prod, but in SNI_ONLY mode; expected DEFAULT"),
        (held("prod"), "provisioned in prod, but without a thing"),
        (held("prod", "ACTIVE", None, "x"), ""),
    ],
)
def test_account_mode_and_thing_must_be_as_expected(holding: Holding, reason: str) -> None:
    result = judge(FACTS, ACCEPTED, [holding], IN_PROD)

    assert (result.reason, result.agrees) == (reason, not reason)


def test_thing_where_none_is_expected_disagrees() -> None:
    result = judge(FACTS, ACCEPTED, [THING], replace(IN_PROD, thing=False))

    assert result.reason == "provisioned in prod, but with a thing; expected none"


def test_things_are_not_compared_when_nobody_asked_for_them() -> None:
    assert judge(FACTS, ACCEPTED, [held("prod")], IN_PROD, things_known=False).agrees
    assert judge(FACTS, ACCEPTED, [replace(THING, things=None)], IN_PROD).agrees
    assert judge(FACTS, ACCEPTED, [replace(THING, things=None)], replace(IN_PROD, thing=False)).agrees
    assert not judge(FACTS, ACCEPTED, [replace(THING, things=())], IN_PROD).agrees


def test_refused_and_pending_are_the_same_to_one_who_cannot_ask_the_control_plane() -> None:
    assert judge(FACTS, DROPPED, None, PENDING_IN_PROD).agrees
    assert judge(FACTS, DROPPED, None, NOWHERE).agrees
    assert not judge(FACTS, DROPPED, [], PENDING_IN_PROD).agrees


def test_record_where_none_should_have_come_into_being_disagrees() -> None:
    result = judge(FACTS, ACCEPTED, [THING, held("dev", "PENDING_ACTIVATION")], IN_PROD, before=[])

    assert result.account == "prod"
    assert result.reason == (
        "its certificate was also registered in dev (PENDING_ACTIVATION), where nothing should have been"
    )


def test_records_elsewhere_that_are_older_or_another_groups_are_well() -> None:
    both = [THING, held("dev")]

    assert judge(FACTS, ACCEPTED, both, IN_PROD, before=[held("dev")]).agrees
    assert judge(replace(FACTS, expected_elsewhere={"dev"}), ACCEPTED, both, IN_PROD, before=[]).agrees
    assert judge(FACTS, ACCEPTED, both, IN_PROD).agrees, "nobody knows what was there before"


def test_registered_and_then_denied_is_not_a_stray_record() -> None:
    denied = replace(NOWHERE, registered_in="prod")

    assert judge(FACTS, DROPPED, [held("prod")], denied, before=[]).agrees


def test_accepted_on_the_first_try_disagrees_where_aws_drops_it() -> None:
    """The emulator must never be kinder than AWS."""
    result = judge(FACTS, [attempt(1)], [THING], IN_PROD, before=[])

    assert result.reason == "accepted on the first try, which IoT Core drops (10b.C3.sA)"
    assert judge(FACTS, [attempt(1)], [THING], IN_PROD).agrees, "it may have been registered before the run"
    assert judge(FACTS, [attempt(1)], [THING], KNOWN_IN_PROD, before=[held("prod")]).agrees
    twin = replace(FACTS, expected_elsewhere={"prod"})
    assert judge(twin, [attempt(1)], [THING], IN_PROD, before=[]).agrees, "another group's device came first"


# --- the user's own expectation ---


@pytest.mark.parametrize(
    ("user", "wanted"),
    [
        (None, ("provisioned", "prod", "DEFAULT", True, False)),
        (UserExpectation(), ("provisioned", "prod", "DEFAULT", True, False)),
        (
            UserExpectation(outcome=DeviceOutcome.PROVISIONED, account="prod"),
            ("provisioned", "prod", "DEFAULT", True, False),
        ),
        (UserExpectation(outcome=DeviceOutcome.REFUSED), ("refused", None, None, None, True)),
        (UserExpectation(account="dev"), ("provisioned", "dev", None, None, True)),
        (UserExpectation(mode="SNI_ONLY"), ("provisioned", "prod", "SNI_ONLY", True, True)),
        (UserExpectation(thing=False), ("provisioned", "prod", "DEFAULT", False, True)),
        (UserExpectation(outcome=DeviceOutcome.PENDING, account="dev"), ("pending", "dev", None, None, True)),
    ],
)
def test_users_words_come_before_the_oracles(
    user: UserExpectation | None, wanted: tuple[str, str | None, str | None, bool | None, bool]
) -> None:
    outcome, account, mode, thing, by_user = wanted

    assert expected(IN_PROD, user) == Expected(
        outcome=DeviceOutcome(outcome), account=account, mode=mode, thing=thing, by_user=by_user
    )


def test_wrong_expectation_of_the_user_disagrees_with_a_target_that_is_right() -> None:
    result = judge(FACTS, ACCEPTED, [THING], IN_PROD, UserExpectation(outcome=DeviceOutcome.REFUSED), before=[])

    assert (result.expected_outcome, result.expected_account) == (DeviceOutcome.REFUSED, None)
    assert result.reason == "expected refused; provisioned in prod"


def test_user_who_knows_better_than_the_oracle_is_believed() -> None:
    """A measurement on a real account: first connections are accepted at once, in dev."""
    user = UserExpectation(outcome=DeviceOutcome.PROVISIONED, account="dev")

    assert judge(FACTS, [attempt(1)], [held("dev")], IN_PROD, user, before=[]).agrees


# --- in words ---


def test_every_kind_and_stage_has_its_words() -> None:
    words = {verdict.describe_failure(kind, stage) for kind in FailureKind for stage in Stage}

    assert "timeout in the TLS handshake" in words
    assert "closed before CONNACK" in words
    assert not [each for each in words if "_" in each]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((DeviceOutcome.PROVISIONED, "prod", "SNI_ONLY", True), "provisioned in prod (SNI_ONLY, thing)"),
        ((DeviceOutcome.PROVISIONED, "prod", "SNI_ONLY", False), "provisioned in prod (SNI_ONLY, no thing)"),
        ((DeviceOutcome.PENDING, "dev", None, None), "pending in dev"),
        ((DeviceOutcome.NOT_STARTED, None, None, None), "not started"),
    ],
)
def test_outcome_in_words(words: tuple[DeviceOutcome, str | None, str | None, bool | None], text: str) -> None:
    assert verdict.describe(*words) == text


def test_refusal_in_words_says_what_was_seen() -> None:
    assert verdict.describe(DeviceOutcome.REFUSED, failure=DROP) == "refused: closed before CONNACK"
