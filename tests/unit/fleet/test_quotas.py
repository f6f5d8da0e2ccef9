"""AWS's limits of an account, held against what a fleet asks."""

from pathlib import Path

import pytest

from devicesim.fleet.demand import demand_of
from devicesim.fleet.quotas import AccountBounds, account_bounds
from devicesim.fleet.spec import at_rate, parse_fleet

FLEET = """
version = 1
name = "walk"
[accounts.a]
id = "111111111111"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
[groups.a]
count = 10000
account = "a"
"""


def bounds(text: str = FLEET, rate: float = 50.0) -> AccountBounds:
    demand = demand_of(at_rate(parse_fleet(text, Path("fleet.toml")), rate))
    return account_bounds(demand.accounts[0])


def by_name(found: AccountBounds) -> dict[str, float]:
    return {each.quota.name: each.seconds for each in found.bounds}


def test_jitp_takes_what_aws_behaviour_6_says() -> None:
    found = bounds()

    assert found.binding is not None
    assert found.binding.quota.name == "RegisterThing"
    # "10 000 devices are about 17 minutes at defaults"
    assert found.seconds == pytest.approx(1000)
    assert by_name(found)["certificate registrations"] == pytest.approx(10_000 / 15)
    assert by_name(found)["CONNECT"] == pytest.approx(2 * 10_000 / 500)


def test_jitr_is_bound_by_what_its_activator_calls_or_without_one_by_the_registrations() -> None:
    ours = bounds(FLEET.replace('"JITP"', '"JITR"'))
    nobody = bounds(FLEET.replace('"JITP"', '"JITR"\nactivator = "none"'))

    assert ours.binding is not None
    assert ours.binding.quota.name == "UpdateCertificate"
    assert ours.seconds == pytest.approx(1000)
    assert nobody.binding is not None
    assert nobody.binding.quota.name == "certificate registrations"
    assert nobody.seconds == pytest.approx(10_000 / 15)
    assert by_name(nobody)["CONNECT"] == pytest.approx(5 * 10_000 / 500)  # pending for ever: all of its tries
    assert "RegisterThing" not in by_name(ours)


def test_the_schedule_that_keeps_within_the_defaults_does_so() -> None:
    too_fast = bounds(rate=50.0)

    assert too_fast.slowed == pytest.approx(5)
    assert {each.quota.name for each in too_fast.bounds if each.exceeded} == {
        "certificate registrations",
        "RegisterThing",
        "CreateThing",
        "AttachThingPrincipal",
        "AttachPolicy",
        "UpdateCertificate",
    }
    slower = bounds(rate=50.0 / too_fast.slowed)
    assert slower.slowed == 1.0
    assert not any(each.exceeded for each in slower.bounds)


def test_a_template_without_a_thing_makes_no_thing() -> None:
    template = '{"Resources": {"policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "p"}}}}'
    text = FLEET.replace('"JITP"', f"\"JITP\"\ntemplate = '{template}'")

    assert {"CreateThing", "AttachThingPrincipal", "ListPrincipalThings"}.isdisjoint(by_name(bounds(text)))


def test_asking_afterwards_costs_a_call_for_each_thing_and_does_not_bind() -> None:
    found = bounds()

    assert by_name(found)["ListCertificatesByCA"] == pytest.approx(40 / 10)
    assert found.seconds_asking == pytest.approx(1000 + 4)
    assert found.binding is not None
    assert not found.binding.quota.afterwards


@pytest.mark.parametrize(("things", "seconds"), [('"all"', 1000), ('"none"', 0), ("500", 50), ("20000", 1000)])
def test_asking_a_sample_for_its_things_is_so_much_faster(things: str, seconds: float) -> None:
    assert bounds(FLEET + f"[verification]\nthings = {things}\n").seconds_asking == pytest.approx(seconds + 4)


def test_more_connections_at_once_than_allowed_are_exceeded_and_no_matter_of_the_pace() -> None:
    text = FLEET.replace("10000", "600000") + '[session]\nhold = "24h"\n'
    found = bounds(text, rate=8.0)

    (at_once,) = [each for each in found.bounds if each.quota.at_once]
    assert (at_once.needed, at_once.exceeded) == (600_000, True)
    assert found.slowed == 1.0


def test_a_device_that_publishes_too_much_is_found() -> None:
    telemetry = 'account = "a"\ntelemetry = { every = 0.01, bytes = 100000 }\n'
    found = bounds(FLEET.replace('account = "a"\n', telemetry) + '[session]\nhold = "1h"\n', rate=5.0)

    exceeded = {each.quota.name for each in found.bounds if each.exceeded}
    assert exceeded == {"inbound publishes", "throughput, one device"}


def test_an_account_that_nobody_asks_has_no_bound_that_binds() -> None:
    text = FLEET + '[accounts.b]\nid = "222222222222"\nca_mode = "none"\n'
    demand = demand_of(parse_fleet(text, Path("fleet.toml")))

    idle = account_bounds(demand.accounts[1])

    assert (idle.binding, idle.seconds, idle.seconds_asking, idle.slowed) == (None, 0.0, 0.0, 1.0)
