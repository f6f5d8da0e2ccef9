"""The matrix: every row that a device can act out is in it, on every transport, each case by its name."""

from collections import Counter

import pytest

from devicesim import rules
from devicesim.conformance.cases import (
    ROLES,
    SNI,
    Act,
    Case,
    Link,
    Place,
    RecordStatus,
    State,
    Then,
    World,
    expectation,
    mixed_case,
    server_name,
)
from devicesim.conformance.matrix import PLAIN, STAND_INS, TRANSPORTS, matrix, select
from devicesim.outcome import DeviceOutcome

CASES = matrix()


def test_every_row_that_decides_a_connection_is_acted_out_on_every_transport() -> None:
    decided: dict[str, set[str]] = {}
    for case in CASES:
        decided.setdefault(expectation(case, STAND_INS).row.id, set()).add(case.transport.name)

    deciding = {rule.row.id for rule in rules.RULES} | {rules.HANDSHAKE_ONLY.id, rules.DEACTIVATED_LIVE.id}
    assert set(decided) == deciding
    for row, transports in decided.items():
        assert transports == {each.name for each in TRANSPORTS}, row


def test_rows_that_follow_from_others_are_acted_out_too() -> None:
    followed: dict[str, set[str]] = {}
    for case in CASES:
        for row in expectation(case, STAND_INS).rests_on:
            followed.setdefault(row.id, set()).add(case.transport.name)

    everywhere = {each.name for each in TRANSPORTS}
    for row in (rules.JITP, rules.JITR, rules.JITR_NOBODY, rules.SNI_CASE, rules.SNI_NOT_A_NAME):
        assert followed[row.id] == everywhere, row.id
    assert followed[rules.MQTT5_CLOSE.id] == {each.name for each in TRANSPORTS if each.mqtt == "5"}
    assert followed[rules.JIT_ON_443.id] == {each.name for each in TRANSPORTS if each.port == 443}


def test_transports_are_the_product_of_tls_mqtt_and_port() -> None:
    assert len(TRANSPORTS) == len(set(TRANSPORTS)) == 8
    assert TRANSPORTS[0] == PLAIN
    assert PLAIN.name == "tls1.3-mqtt3.1.1-8883"


def test_every_kind_of_server_name_meets_every_base_world() -> None:
    met = {(case.world.name[:2], case.link.sni) for case in CASES}

    assert met >= {(world, sni) for world in ("C0", "C1", "C2", "C3", "C4") for sni in SNI}


def test_every_status_of_a_record_and_every_end_of_a_ca_is_there() -> None:
    statuses = {record.status for case in CASES for record in case.state.records.values()}
    ends = {holder.then for case in CASES for holder in case.world.holders.values()}

    assert statuses == set(RecordStatus)
    assert ends == set(Then)


def test_names_are_unique_and_have_four_parts() -> None:
    names = Counter(case.name for case in CASES)

    assert set(names.values()) == {1}
    assert all(name.count("/") == 3 for name in names)


def test_every_case_can_be_set_up() -> None:
    """AWS allows its world, and a record without CA is made alone or elsewhere."""
    for case in CASES:
        expectation(case, STAND_INS)  # raises where a world contradicts itself
        assert set(case.world.holders) <= case.roles <= set(ROLES)
        for role, record in case.state.records.items():
            assert record.alone or role in case.world.holders, case.name
            if record.status is RecordStatus.PENDING:
                assert case.world.holders[role].provisioning != "jitp", case.name
            if record.status is RecordStatus.VISITED:
                assert case.world.holders[role].provisioning == "jitp", case.name
            if record.status is RecordStatus.TRANSFER:
                assert "b" not in case.state.records, case.name


def test_the_expectations_are_of_every_kind() -> None:
    outcomes = Counter(expectation(case, STAND_INS).outcome for case in CASES)

    assert set(outcomes) == {DeviceOutcome.PROVISIONED, DeviceOutcome.PENDING, DeviceOutcome.REFUSED}


@pytest.mark.parametrize(
    ("patterns", "matches"),
    [
        (["C3-jitp"], lambda case: case.world.name == "C3-jitp"),
        (["C3-*"], lambda case: case.world.name.startswith("C3-")),
        (["10b.C3.sB"], lambda case: expectation(case, STAND_INS).row.id == "10b.C3.sB"),
        (["a-none"], lambda case: case.link.name == "a-none"),
        (["*-443"], lambda case: case.transport.port == 443),
        (
            ["C2-jitp/new/*/tls1.3-mqtt3.1.1-8883"],
            lambda case: (
                case.world.name == "C2-jitp"
                and case.state.name == "new"
                and case.act is Act.CONNECT
                and case.transport == PLAIN
            ),
        ),
        (["C0", "C1-jitp"], lambda case: case.world.name in ("C0", "C1-jitp")),
    ],
)
def test_patterns_select_by_name_by_part_or_by_row(patterns: list[str], matches: object) -> None:
    chosen = select(CASES, patterns)

    assert callable(matches)
    wanted = {case.name for case in CASES if matches(case)}
    if "/" in patterns[0]:
        wanted = {name for name in wanted if "handshake" not in name}
    assert {case.name for case in chosen} == wanted
    assert wanted


@pytest.mark.parametrize(
    ("name", "row", "ends"),
    [
        # §10b "sA, later sB: independent JIT in each; same certificateId, two records", by two real first connections
        ("C4-jitp/visited/b-own", "10b.C4.sB", "provisioned b"),
        ("C3-jitp/visited/b-own", "10d.default.sB.ca", "provisioned b"),
        ("C4-jitp/visited-both/a-own", "10c.active.allowed", "provisioned a"),
        # §10c "ACTIVE, no policy / denied"
        ("C1-jitp/denied/a-own", "10c.active.denied", "refused"),
        ("C1-jitp/barred/a-own", "10c.active.denied", "refused"),
        ("C1-jitp/barred/a-none", "10c.active.denied", "refused"),
        # §10c "CA deactivated after registration, leaf ACTIVE", with and without SNI
        ("C1-inactive/active/a-own", "10c.active.ca-off", "provisioned a"),
        ("C1-inactive/active/a-none", "10d.default.none", "provisioned a"),
        # §10d "right SNI, but TCP to a different account's address: SNI decides"
        ("C1-jitp/new/b-other-a", "10b.C1.sA", "provisioned a"),
        ("C1-jitp/new/b-none", "10b.C1.none.chain", "provisioned a"),
        # §1.1 "different Regions are fully independent": the same leaf in two of them
        ("C1-two-regions/active-in-o/a-own", "10b.C1.sA", "provisioned a"),
        ("C1-two-regions/visited-o-too/o-none", "10d.default.none", "provisioned o"),
        ("C1-two-regions/visited-o-too/a-other-region-o", "10d.other-region", "refused"),
        # §10c "live ACTIVE connection, then set non-ACTIVE"
        ("C2-jitp/active-live-revoked/a-own", "10c.active.deactivated", "provisioned a"),
        # §10b "handshake only, any SNI"
        ("C3-jitp/new-handshake/a-other-b", "10b.handshake-only", "refused"),
    ],
)
def test_what_the_truth_table_says_of_it_is_acted_out(name: str, row: str, ends: str) -> None:
    (case,) = select(CASES, [f"{name}/{PLAIN.name}"])
    expected = expectation(case, STAND_INS)

    assert (expected.row.id, " ".join(filter(None, (expected.outcome, expected.account)))) == (row, ends)


def test_no_pattern_is_every_case_and_a_pattern_may_match_none() -> None:
    assert select(CASES, []) == CASES
    assert select(CASES, ["C9"]) == ()


@pytest.mark.parametrize(
    ("link", "sent"),
    [
        (Link(dials="a", sni=SNI.OWN), "a-ats.iot.us-east-1.localhost"),
        (Link(dials="a", sni=SNI.OTHER, other="b"), "b-ats.iot.us-east-1.localhost"),
        (Link(dials="a", sni=SNI.NONE), None),
        (Link(dials="a", sni=SNI.UNKNOWN), "nobody-ats.iot.us-east-1.localhost"),
        (Link(dials="a", sni=SNI.MIXED_CASE), "a-aTs.iOt.uS-EaSt-1.lOcAlHoSt"),
        (Link(dials="a", sni=SNI.OTHER_REGION, other="o"), "o-ats.iot.eu-west-1.localhost"),
        (Link(dials="a", sni=SNI.IP), "192.0.2.1"),
        (Link(dials="a", sni=SNI.TRAILING_DOT), "a-ats.iot.us-east-1.localhost."),
    ],
)
def test_server_names(link: Link, sent: str | None) -> None:
    assert server_name(link, STAND_INS) == sent


def test_mixed_case_differs_from_the_name_and_names_the_same() -> None:
    name = STAND_INS["a"].endpoint

    assert mixed_case(name) != name
    assert mixed_case(name).lower() == name


def test_the_row_does_not_depend_on_who_plays() -> None:
    places = {
        role: Place(name=f"my-{role}", account_id=f"{number:012}", region=STAND_INS[role].region, endpoint=f"{role}.x")
        for number, role in enumerate(ROLES)
    }
    case = Case(world=World(name="C0"), state=State(name="new"), link=Link(dials="x", sni=SNI.OWN))

    assert expectation(case, places).row == expectation(case, STAND_INS).row
