"""Each row of the oracle by name, in the worlds that the behaviour page describes, and the table as a whole."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from devicesim import rules
from devicesim.outcome import DeviceOutcome
from devicesim.rules import AccountView, CARegistration, CertificateView, Expectation, expect

HERE, AWAY = "eu-central-1", "us-east-1"
DEFAULT, SNI_ONLY = CARegistration(mode="DEFAULT"), CARegistration(mode="SNI_ONLY")
OFF = CARegistration(mode="DEFAULT", active=False)
DISABLED = CARegistration(mode="DEFAULT", auto_registration=False)


def account(
    name: str,
    ca: CARegistration | None = None,
    *,
    region: str = HERE,
    provisioning: rules.Provisioning = "JITP",
    thing: bool = True,
    policy_allows: bool = True,
    certificate: CertificateView | None = None,
) -> AccountView:
    return AccountView(
        name=name,
        account_id=f"{ord(name[0]):012}",
        region=region,
        endpoint=f"{name}-ats.iot.{region}.localhost",
        ca=ca,
        provisioning=provisioning,
        thing=thing,
        policy_allows=policy_allows,
        certificate=certificate,
    )


def known(status: str, mode: rules.Mode = "DEFAULT", *, policy_allows: bool = True) -> CertificateView:
    return CertificateView(status=status, mode=mode, policy_allows=policy_allows)


def sni_of(name: str, region: str = HERE) -> str:
    return account(name, region=region).endpoint


@dataclass(frozen=True, kw_only=True)
class Case:
    """A world, what the device sends, and what should come of it."""

    row: str
    world: Sequence[AccountView]
    sni: str | None
    chain: bool = True
    ends: str
    """As ``a SNI_ONLY`` (provisioned there), ``pending a DEFAULT``, ``refused``."""
    first_try: str = "closed_before_connack"


A, B, C = account("a"), account("b"), account("c")
A_DEFAULT, A_SNI_ONLY, B_SNI_ONLY = account("a", DEFAULT), account("a", SNI_ONLY), account("b", SNI_ONLY)
C1, C2, C3, C4 = (A_DEFAULT, B), (A_SNI_ONLY, B), (A_DEFAULT, B_SNI_ONLY, C), (A_SNI_ONLY, B_SNI_ONLY, C)
A_ACTIVE = replace(A_DEFAULT, certificate=known("ACTIVE"))
A_ACTIVE_SNI_ONLY = replace(A_SNI_ONLY, certificate=known("ACTIVE", "SNI_ONLY"))
JUNK = "somebody-else-ats.iot.eu-central-1.localhost"

CASES = [
    # §10b, the SNI names an account
    Case(row="10b.C0.any", world=(A, B), sni=sni_of("a"), ends="refused"),
    Case(row="10b.C0.any", world=(A, B), sni=None, ends="refused"),
    Case(row="10b.C1.sA", world=C1, sni=sni_of("a"), ends="a DEFAULT"),
    Case(row="10b.C1.sA", world=C1, sni=sni_of("a"), chain=False, ends="a DEFAULT"),
    Case(row="10b.C1.sB", world=C1, sni=sni_of("b"), ends="refused"),
    Case(row="10b.C2.sA", world=C2, sni=sni_of("a"), ends="a SNI_ONLY"),
    Case(row="10b.C2.sB", world=C2, sni=sni_of("b"), ends="refused"),
    Case(row="10b.C3.sA", world=C3, sni=sni_of("a"), ends="a DEFAULT"),
    Case(row="10b.C3.sB", world=C3, sni=sni_of("b"), ends="b SNI_ONLY"),
    Case(row="10b.C3.sX", world=C3, sni=sni_of("c"), ends="refused"),
    Case(row="10b.C4.sA", world=C4, sni=sni_of("a"), ends="a SNI_ONLY"),
    Case(row="10b.C4.sA", world=C4, sni=sni_of("b"), ends="b SNI_ONLY"),
    Case(row="10b.C4.sB", world=(A_ACTIVE_SNI_ONLY, B_SNI_ONLY), sni=sni_of("b"), ends="b SNI_ONLY"),
    Case(row="10b.C4.sX", world=C4, sni=sni_of("c"), ends="refused"),
    Case(row="10b.ca-off.sA", world=(account("a", OFF), B_SNI_ONLY), sni=sni_of("a"), ends="refused"),
    Case(row="10b.ca-off.sA", world=(account("a", DISABLED), B_SNI_ONLY), sni=sni_of("a"), ends="refused"),
    Case(row="10b.C3.sB", world=(account("a", OFF), B_SNI_ONLY), sni=sni_of("b"), ends="b SNI_ONLY"),
    # §10b, no SNI
    Case(row="10b.C1.none.chain", world=C1, sni=None, ends="a DEFAULT"),
    Case(row="10b.C1.none.leaf", world=C1, sni=None, chain=False, ends="refused"),
    Case(row="10b.C2.none", world=C2, sni=None, ends="refused"),
    Case(row="10b.C3.none.chain", world=C3, sni=None, ends="a DEFAULT"),
    Case(row="10b.C3.none.leaf", world=C3, sni=None, chain=False, ends="refused"),
    Case(row="10b.C4.none", world=C4, sni=None, ends="refused"),
    Case(row="10b.ca-off.none", world=(account("a", OFF), B_SNI_ONLY), sni=None, ends="refused"),
    Case(row="10b.junk", world=C1, sni=JUNK, ends="refused"),
    Case(row="10b.junk", world=C2, sni=JUNK, ends="refused"),
    # §10c, on record in the SNI's account
    Case(
        row="10c.pending",
        world=(replace(A_DEFAULT, certificate=known("PENDING_ACTIVATION")),),
        sni=sni_of("a"),
        ends="a DEFAULT",
    ),
    Case(
        row="10c.pending",
        world=(replace(A_SNI_ONLY, certificate=known("PENDING_ACTIVATION", "SNI_ONLY"), provisioning="none"),),
        sni=sni_of("a"),
        ends="pending a SNI_ONLY",
    ),
    Case(
        row="10c.pending.ca-off",
        world=(account("a", OFF, certificate=known("PENDING_ACTIVATION")),),
        sni=sni_of("a"),
        ends="pending a DEFAULT",
    ),
    Case(
        row="10c.pending.ca-off",
        world=(replace(A, certificate=known("PENDING_ACTIVATION")),),
        sni=sni_of("a"),
        ends="pending a DEFAULT",
    ),
    Case(row="10c.active.allowed", world=(A_ACTIVE,), sni=sni_of("a"), ends="a DEFAULT", first_try="accepted"),
    Case(
        row="10c.active.allowed",
        world=(replace(A, certificate=known("ACTIVE", "SNI_ONLY")),),
        sni=sni_of("a"),
        ends="a SNI_ONLY",
        first_try="accepted",
    ),
    Case(
        row="10c.active.ca-off",
        world=(account("a", OFF, certificate=known("ACTIVE")),),
        sni=sni_of("a"),
        ends="a DEFAULT",
        first_try="accepted",
    ),
    Case(
        row="10c.active.denied",
        world=(replace(A_DEFAULT, certificate=known("ACTIVE", policy_allows=False)),),
        sni=sni_of("a"),
        ends="refused",
    ),
    Case(
        row="10c.active.denied",
        world=(replace(A_DEFAULT, certificate=known("ACTIVE", policy_allows=False)),),
        sni=None,
        ends="refused",
    ),
    Case(
        row="10c.inactive", world=(replace(A_DEFAULT, certificate=known("INACTIVE")),), sni=sni_of("a"), ends="refused"
    ),
    Case(
        row="10c.inactive",
        world=(replace(A_DEFAULT, certificate=known("REGISTER_INACTIVE")),),
        sni=sni_of("a"),
        ends="refused",
    ),
    Case(
        row="10c.revoked",
        world=(replace(A_DEFAULT, certificate=known("REVOKED")), replace(B_SNI_ONLY, certificate=known("ACTIVE"))),
        sni=sni_of("a"),
        ends="refused",
    ),
    Case(
        row="10c.pending-transfer",
        world=(replace(A_DEFAULT, certificate=known("PENDING_TRANSFER")),),
        sni=sni_of("a"),
        ends="refused",
    ),
    # §10d, on record in one account, another SNI
    Case(row="10d.default.none", world=(A_ACTIVE, B), sni=None, ends="a DEFAULT", first_try="accepted"),
    Case(row="10d.default.none", world=(A_ACTIVE,), sni=None, chain=False, ends="a DEFAULT", first_try="accepted"),
    Case(
        row="10d.default.none.several",
        world=(replace(A, certificate=known("ACTIVE")), replace(B, certificate=known("ACTIVE"))),
        sni=None,
        ends="refused",
    ),
    Case(
        row="10d.default.none",
        world=(replace(A, certificate=known("ACTIVE")), account("b", DEFAULT, certificate=known("ACTIVE"))),
        sni=None,
        ends="b DEFAULT",
        first_try="accepted",
    ),
    Case(row="10d.default.junk", world=(A_ACTIVE, B), sni=JUNK, ends="refused"),
    Case(row="10d.default.sB.no-ca", world=(A_ACTIVE, B), sni=sni_of("b"), ends="refused"),
    Case(row="10d.default.sB.ca", world=(A_ACTIVE, B_SNI_ONLY), sni=sni_of("b"), ends="b SNI_ONLY"),
    Case(row="10d.sni-only.none", world=(A_ACTIVE_SNI_ONLY, B), sni=None, ends="refused"),
    Case(
        row="10d.sni-only.none",
        world=(replace(A_DEFAULT, certificate=known("ACTIVE", "SNI_ONLY")),),
        sni=None,
        ends="refused",
    ),
    Case(row="10d.sni-only.sB", world=(A_ACTIVE_SNI_ONLY, B), sni=sni_of("b"), ends="refused"),
    Case(
        row="10c.inactive",
        world=(A_ACTIVE, replace(B_SNI_ONLY, certificate=known("INACTIVE", "SNI_ONLY"))),
        sni=sni_of("b"),
        ends="refused",
    ),
    Case(
        row="10c.active.allowed",
        world=(
            replace(A_DEFAULT, certificate=known("PENDING_ACTIVATION")),
            replace(B_SNI_ONLY, certificate=known("ACTIVE", "SNI_ONLY")),
        ),
        sni=sni_of("b"),
        ends="b SNI_ONLY",
        first_try="accepted",
    ),
    Case(
        row="10d.other-region",
        world=(A_DEFAULT, account("d", SNI_ONLY, region=AWAY, certificate=known("ACTIVE", "SNI_ONLY"))),
        sni=sni_of("d", AWAY),
        ends="refused",
    ),
]


def ends(expectation: Expectation) -> str:
    if expectation.account is None:
        return expectation.outcome.value
    place = f"{expectation.account} {expectation.mode}"
    return place if expectation.outcome is DeviceOutcome.PROVISIONED else f"{expectation.outcome} {place}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row}-{case.ends}")
def test_row_holds_in_its_world(case: Case) -> None:
    expectation = expect(case.world, region=HERE, sni=case.sni, chain_sent=case.chain)

    assert (case.row, case.ends, case.first_try) == (expectation.row.id, ends(expectation), expectation.first_try)


def test_every_row_is_the_deciding_one_in_some_case_or_follows_from_another() -> None:
    followers = {row.id for row in (rules.JITP, rules.JITR, rules.JITR_NOBODY, rules.SNI_CASE, rules.SNI_NOT_A_NAME)}
    # no connection's first CONNECT, or a matter of the transport: `devicesim check` acts them out
    acted_out = (rules.HANDSHAKE_ONLY, rules.DEACTIVATED_LIVE, rules.MQTT5_CLOSE, rules.JIT_ON_443)
    followers |= {row.id for row in acted_out}

    assert {case.row for case in CASES} | followers == {row.id for row in rules.rows()}


def test_row_ids_are_unique_and_each_row_says_where_it_stands() -> None:
    table = rules.rows()

    assert len({row.id for row in table}) == len(table)
    for row in table:
        section = row.id.partition(".")[0]
        assert f"aws-iot-behaviour.md §{section}" in row.source
        assert set(row.mark) <= set("DMSI+/"), row.id
        assert row.says, row.id
        assert "\n" not in row.says, row.id


CERTIFICATES = (
    None,
    *(known(status, mode) for status in rules.STATUSES for mode in ("DEFAULT", "SNI_ONLY")),
    known("ACTIVE", "DEFAULT", policy_allows=False),
)


def worlds() -> Iterator[tuple[AccountView, ...]]:
    """Every way in which one account holds CA and certificate, beside representative ways of two others."""
    registrations = (None, DEFAULT, SNI_ONLY, OFF, DISABLED, replace(OFF, mode="SNI_ONLY"))
    others = [
        (ca, certificate)
        for ca in (None, DEFAULT, SNI_ONLY, OFF)
        for certificate in (None, known("ACTIVE", "DEFAULT"), known("REVOKED", "SNI_ONLY"))
    ]
    for ca, certificate in itertools.product(registrations, CERTIFICATES):
        for (ca_b, certificate_b), (ca_c, certificate_c) in itertools.combinations_with_replacement(others, 2):
            world = (
                account("a", ca, certificate=certificate),
                account("b", ca_b, certificate=certificate_b),
                account("c", ca_c, certificate=certificate_c),
            )
            if not rules.contradictions(world):
                yield world


def test_exactly_one_rule_matches_in_every_world() -> None:
    """So the order of the table means nothing, and no device is without an expectation."""
    situations: set[rules.Situation] = set()
    for world in worlds():
        for name, chain in itertools.product((None, sni_of("a"), sni_of("b"), JUNK), (True, False)):
            named, decider = rules._decide(world, world, name, chain)
            situations.add(
                rules.Situation(named, rules._ca_set(world), rules._here(decider), rules._leaf(decider, world))
            )

    matches = {situation: [r.row.id for r in rules.RULES if r.matches(situation)] for situation in situations}

    assert {situation: found for situation, found in matches.items() if len(found) != 1} == {}
    assert {found[0] for found in matches.values()} | {"10d.other-region"} == {rule.row.id for rule in rules.RULES}


# --- what follows from a registration ---


@pytest.mark.parametrize(
    ("provisioning", "outcome", "thing", "follows"),
    [
        ("JITP", DeviceOutcome.PROVISIONED, True, "3.jitp"),
        ("JITR", DeviceOutcome.PROVISIONED, True, "2.jitr"),
        ("none", DeviceOutcome.PENDING, None, "2.jitr.nobody"),
    ],
)
def test_what_becomes_of_a_registered_certificate(
    provisioning: rules.Provisioning, outcome: DeviceOutcome, thing: bool | None, follows: str
) -> None:
    world = [replace(A_DEFAULT, provisioning=provisioning)]

    expectation = expect(world, region=HERE, sni=sni_of("a"), chain_sent=True)

    assert (outcome, "a", thing, "a") == (
        expectation.outcome,
        expectation.account,
        expectation.thing,
        expectation.registered_in,
    )
    assert [follows] == [row.id for row in expectation.rests_on]


@pytest.mark.parametrize("thing", [False, None])
def test_things_are_expected_as_far_as_it_is_known_what_makes_them(thing: bool | None) -> None:
    expectation = expect([replace(A_DEFAULT, thing=thing)], region=HERE, sni=sni_of("a"), chain_sent=True)

    assert expectation.thing is thing


def test_things_of_records_older_than_the_run_are_not_foretold() -> None:
    expectation = expect([A_ACTIVE], region=HERE, sni=sni_of("a"), chain_sent=True)

    assert expectation.thing is None
    assert expectation.registered_in is None


def test_provisioned_with_a_policy_that_denies_is_refused_but_registered() -> None:
    world = [replace(A_DEFAULT, policy_allows=False)]

    expectation = expect(world, region=HERE, sni=sni_of("a"), chain_sent=True)

    assert (
        expectation.outcome,
        expectation.account,
        expectation.registered_in,
    ) == (DeviceOutcome.REFUSED, None, "a")
    assert [row.id for row in expectation.rests_on] == ["3.jitp", "10c.active.denied"]


def test_a_denied_device_sees_a_connack_in_mqtt_5_only() -> None:
    world = [replace(A_DEFAULT, certificate=known("ACTIVE", policy_allows=False))]

    old = expect(world, region=HERE, sni=sni_of("a"), chain_sent=True)
    new = expect(world, region=HERE, sni=sni_of("a"), chain_sent=True, mqtt_version="5")

    assert (old.first_try, new.first_try) == ("closed_before_connack", "connack_refused")


def test_the_first_drop_of_a_registration_is_without_connack_in_mqtt_5_too() -> None:
    expectation = expect([A_DEFAULT], region=HERE, sni=sni_of("a"), chain_sent=True, mqtt_version="5")

    assert expectation.first_try == "closed_before_connack"


# --- server names ---


def test_server_name_is_compared_without_case() -> None:
    expectation = expect(C3, region=HERE, sni=sni_of("b").upper(), chain_sent=True)

    assert expectation.account == "b"
    assert rules.SNI_CASE in expectation.rests_on


@pytest.mark.parametrize("sni", ["127.0.0.1", "::1", sni_of("b") + ".", sni_of("b") + ":8883", ""])
def test_server_name_that_no_client_may_send_counts_as_none(sni: str) -> None:
    expectation = expect(C3, region=HERE, sni=sni, chain_sent=True)

    assert (expectation.row.id, expectation.account) == ("10b.C3.none.chain", "a")
    assert rules.SNI_NOT_A_NAME in expectation.rests_on


# --- Regions ---


def test_default_holder_of_another_region_does_not_decide() -> None:
    world = [account("a", DEFAULT, region=AWAY), B_SNI_ONLY]

    expectation = expect(world, region=HERE, sni=None, chain_sent=True)

    assert expectation.row.id == "10b.C2.none"


def test_default_may_be_held_once_in_each_region() -> None:
    world = [A_DEFAULT, account("d", DEFAULT, region=AWAY)]

    here = expect(world, region=HERE, sni=None, chain_sent=True)
    away = expect(world, region=AWAY, sni=None, chain_sent=True)

    assert (here.account, away.account) == ("a", "d")


# --- worlds that AWS does not allow ---


@pytest.mark.parametrize(
    ("world", "message"),
    [
        ((A_DEFAULT, account("b", DEFAULT)), "the CA in DEFAULT mode in eu-central-1 belongs to 'a' and 'b'"),
        ((A_DEFAULT, account("b", OFF)), "the CA in DEFAULT mode in eu-central-1 belongs to 'a' and 'b'"),
        ((A, A), "the name 'a' belongs to 'a' and 'a'"),
        ((A, replace(B, account_id=A.account_id)), "account 000000000097 in eu-central-1 belongs to 'a' and 'b'"),
        ((A, replace(B, endpoint=A.endpoint.upper())), "belongs to 'a' and 'b'"),
    ],
)
def test_world_that_aws_does_not_allow_is_an_error(world: Sequence[AccountView], message: str) -> None:
    with pytest.raises(ValueError, match="contradict") as caught:
        expect(world, region=HERE, sni=None, chain_sent=True)

    assert message in str(caught.value)


def test_unknown_certificate_status_is_an_error() -> None:
    with pytest.raises(ValueError, match="'BROKEN' is not one of ACTIVE"):
        known("BROKEN")
