"""What holds of the oracle in every world: who is not addressed has no say, and SNI_ONLY never works without SNI."""

from dataclasses import replace
from random import Random

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from devicesim import rules
from devicesim.outcome import DeviceOutcome
from devicesim.rules import AccountView, CARegistration, CertificateView, Expectation, expect

REGIONS = ("eu-central-1", "us-east-1")
HERE = REGIONS[0]

modes = st.sampled_from(["DEFAULT", "SNI_ONLY"])
registrations = st.builds(CARegistration, mode=modes, active=st.booleans(), auto_registration=st.booleans())
certificates = st.builds(
    CertificateView, status=st.sampled_from(rules.STATUSES), mode=modes, policy_allows=st.booleans()
)


@st.composite
def accounts(draw: st.DrawFn, number: int) -> AccountView:
    region = draw(st.sampled_from(REGIONS))
    return AccountView(
        name=f"account-{number}",
        account_id=f"{number:012}",
        region=region,
        endpoint=f"p{number}-ats.iot.{region}.localhost",
        ca=draw(st.none() | registrations),
        provisioning=draw(st.sampled_from(["JITP", "JITR", "none"])),
        thing=draw(st.booleans()),
        policy_allows=draw(st.booleans()),
        certificate=draw(st.none() | certificates),
    )


@st.composite
def worlds(draw: st.DrawFn) -> list[AccountView]:
    """One to five accounts; where two would hold the CA in DEFAULT mode in a Region, the second holds it SNI_ONLY."""
    world: list[AccountView] = []
    taken: set[str] = set()
    for number in range(draw(st.integers(1, 5))):
        account = draw(accounts(number))
        if account.ca is not None and account.ca.mode == "DEFAULT":
            if account.region in taken:
                account = replace(account, ca=replace(account.ca, mode="SNI_ONLY"))
            taken.add(account.region)
        world.append(account)
    return world


@st.composite
def worlds_and_names(draw: st.DrawFn) -> tuple[list[AccountView], str | None]:
    world = draw(worlds())
    endpoints = [account.endpoint for account in world]
    return world, draw(st.sampled_from([None, "nobody-ats.iot.eu-central-1.localhost", *endpoints]))


def says(expectation: Expectation) -> tuple[object, ...]:
    """All but the row: which row it is depends on who else holds the CA, what happens must not."""
    e = expectation
    return e.outcome, e.account, e.mode, e.thing, e.first_try, e.registered_in


@given(worlds_and_names(), st.booleans())
def test_every_device_has_an_expectation_that_makes_sense(
    world_and_name: tuple[list[AccountView], str | None], chain: bool
) -> None:
    world, sni = world_and_name

    expectation = expect(world, region=HERE, sni=sni, chain_sent=chain)

    assert expectation.row in rules.rows()
    somewhere = expectation.outcome in (DeviceOutcome.PROVISIONED, DeviceOutcome.PENDING)
    assert somewhere == (expectation.account is not None) == (expectation.mode is not None)
    assert expectation.first_try == "closed_before_connack" or expectation.outcome is DeviceOutcome.PROVISIONED
    if expectation.account is not None:
        assert next(account.region for account in world if account.name == expectation.account) == HERE
    if expectation.account is not None and sni is not None:
        assert sni == next(account.endpoint for account in world if account.name == expectation.account)


@given(worlds_and_names(), accounts(9), st.booleans())
def test_account_that_is_not_addressed_changes_nothing(
    world_and_name: tuple[list[AccountView], str | None], newcomer: AccountView, chain: bool
) -> None:
    world, sni = world_and_name
    assume(not rules.contradictions([*world, newcomer]))
    if sni is None:  # without SNI, a DEFAULT record in the Region is what addresses an account
        default = [newcomer.ca is not None and newcomer.ca.mode, newcomer.certificate and newcomer.certificate.mode]
        assume(newcomer.region != HERE or "DEFAULT" not in default)

    before = expect(world, region=HERE, sni=sni, chain_sent=chain)
    after = expect([*world, newcomer], region=HERE, sni=sni, chain_sent=chain)

    assert says(before) == says(after)


@given(worlds(), st.booleans())
def test_without_sni_a_world_of_sni_only_never_provisions(world: list[AccountView], chain: bool) -> None:
    sni_only = [
        replace(
            account,
            ca=account.ca and replace(account.ca, mode="SNI_ONLY"),
            certificate=account.certificate and replace(account.certificate, mode="SNI_ONLY"),
        )
        for account in world
    ]

    expectation = expect(sni_only, region=HERE, sni=None, chain_sent=chain)

    assert (expectation.outcome, expectation.registered_in) == (DeviceOutcome.REFUSED, None)


@given(worlds_and_names(), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_order_of_the_accounts_does_not_matter(
    world_and_name: tuple[list[AccountView], str | None], chain: bool, random: Random
) -> None:
    world, sni = world_and_name
    shuffled = list(world)
    random.shuffle(shuffled)

    one = expect(world, region=HERE, sni=sni, chain_sent=chain)
    other = expect(shuffled, region=HERE, sni=sni, chain_sent=chain)

    assert one == other


@given(worlds_and_names(), st.booleans())
def test_sni_makes_the_chain_irrelevant(world_and_name: tuple[list[AccountView], str | None], chain: bool) -> None:
    """Since 2021 the CA need not be sent where SNI is (aws-iot-behaviour.md §3)."""
    world, sni = world_and_name
    assume(sni is not None)

    with_it = expect(world, region=HERE, sni=sni, chain_sent=chain)
    without = expect(world, region=HERE, sni=sni, chain_sent=not chain)

    assert with_it == without


@given(worlds(), st.sampled_from(REGIONS), accounts(9))
def test_second_default_holder_in_a_region_is_a_contradiction(
    world: list[AccountView], region: str, newcomer: AccountView
) -> None:
    second = replace(newcomer, region=region, ca=CARegistration(mode="DEFAULT"))
    taken = any(a.region == region and a.ca is not None and a.ca.mode == "DEFAULT" for a in world)

    assert taken == bool(rules.contradictions([*world, second]))
