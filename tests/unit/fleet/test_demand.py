"""What a fleet asks for, worked out from its file."""

import time
from pathlib import Path

import pytest

from devicesim.fleet.demand import Demand, GroupDemand, demand_of
from devicesim.fleet.spec import Fleet, parse_fleet
from devicesim.outcome import DeviceOutcome

FLEET = """
version = 1
name = "walk"
[accounts.jitp]
id = "111111111111"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
[accounts.jitr]
id = "222222222222"
ca_mode = "DEFAULT"
provisioning = "JITR"
[groups.a]
count = 600
account = "jitp"
[groups.b]
count = 400
account = "jitr"
"""


def fleet_of(more: str = "", text: str = FLEET) -> Fleet:
    return parse_fleet(text + more, Path("fleet.toml"))


def demand(more: str = "", text: str = FLEET) -> Demand:
    return demand_of(fleet_of(more, text))


def group(of: Demand, name: str) -> GroupDemand:
    return next(each for each in of.groups if each.name == name)


def test_a_device_that_is_provisioned_just_in_time_connects_twice() -> None:
    asked = demand()

    assert [(each.outcome, each.tries, each.registers) for each in asked.groups] == [
        (DeviceOutcome.PROVISIONED, 2, True)
    ] * 2
    assert (asked.devices, asked.connections) == (1000, 2000)
    assert (asked.starts_per_second, asked.connects_per_second) == (50, 100)
    assert asked.seconds == pytest.approx(19.98)
    assert not asked.estimated


def test_a_device_that_should_be_refused_makes_every_try() -> None:
    asked = demand(text=FLEET + '[groups.lost]\ncount = 10\naccount = "jitp"\nsni = "literal:nobody.example"\n')

    lost = group(asked, "lost")
    assert (lost.outcome, lost.tries, lost.registers) == (DeviceOutcome.REFUSED, 5, False)
    assert asked.connections == 2 * 1000 + 5 * 10


def test_connections_count_in_the_account_that_answers() -> None:
    asked = demand(text=FLEET + '[groups.none]\ncount = 100\naccount = "jitp"\nsni = "none"\n')

    # without SNI the holder in DEFAULT mode answers, whoever was dialled
    assert (group(asked, "none").dials, group(asked, "none").counts_in) == ("jitp", "jitr")
    accounts = {each.name: each for each in asked.accounts}
    assert (accounts["jitp"].devices, accounts["jitr"].devices) == (600, 500)
    assert accounts["jitr"].registrations == 500
    assert accounts["jitr"].connects_per_second == pytest.approx(100 * 500 / 1100)
    assert accounts["jitr"].registrations_per_second == pytest.approx(50 * 500 / 1100)


def test_with_one_try_allowed_nobody_is_provisioned_just_in_time_and_nobody_stays() -> None:
    asked = demand("[retry]\nattempts = 1\n[session]\nhold = 60\n")

    assert [(each.tries, each.stays) for each in asked.groups] == [(1, False)] * 2


def test_without_a_hold_few_are_connected_at_once() -> None:
    asked = demand()

    # 50 starts in the second that a try takes, and one at the window's edge; two tries each
    assert 100 <= asked.connected <= 104
    # a second for each of two tries, 4 between them
    assert 300 <= asked.under_way <= 303
    # 5 tries of 40 s and the waits between them: all of them, had they been started by then
    assert asked.connected_if_slow == 1000


@pytest.mark.parametrize(
    ("more", "connected"),
    [
        ('[session]\nhold = "1h"\n', 1000),
        ('[session]\nhold = "9s"\n', 500 + 50),
        ('[session]\nhold = "9s"\n[arrival]\nburst = { size = 100, every = "5s" }\n', 300 + 100),
        ('[session]\nhold = "1h"\n[arrival]\nmodel = "closed"\nconcurrency = 30\n', 30),
        ('[session]\nhold = "1h"\n[arrival]\nmax_under_way = 200\n', 200),
        ("[arrival]\nburst = {}\n", 1000),
    ],
)
def test_what_is_connected_at_once_follows_from_schedule_and_hold(more: str, connected: int) -> None:
    assert demand(more).connected == pytest.approx(connected, abs=6)


def test_devices_that_stay_send_telemetry() -> None:
    text = FLEET.replace('account = "jitp"\n', 'account = "jitp"\ntelemetry = { every = "2s", bytes = 300 }\n')
    asked = demand('[session]\nhold = "1h"\n', text)

    assert asked.messages == 300
    jitp = asked.accounts[0]
    assert (jitp.messages, jitp.messages_per_connection, jitp.message_bytes_per_connection) == (300, 0.5, 150)


def test_the_pace_of_a_closed_model_is_estimated() -> None:
    asked = demand('[arrival]\nmodel = "closed"\nconcurrency = 60\n')

    # two tries of a second, 4 s between them
    assert asked.estimated
    assert asked.starts_per_second == pytest.approx(10)
    assert asked.seconds == pytest.approx(100)
    assert asked.under_way == pytest.approx(60, abs=1)


def test_tries_of_a_burst_that_is_over_do_not_add_up() -> None:
    asked = demand("[arrival]\nburst = { size = 500, every = 60 }\n")
    crowded = demand("[arrival]\nburst = { size = 500, every = 2 }\n")

    assert (asked.starts_per_second, asked.connects_per_second) == (500, 500)
    assert crowded.connects_per_second == 1000


def test_a_hold_may_be_given_in_place_of_the_files() -> None:
    assert demand_of(fleet_of('[session]\nhold = "1h"\n'), hold=0.0).connected < 110


def test_ten_million_devices_are_looked_at_as_fast_as_ten() -> None:
    fleet = fleet_of('[session]\nhold = "1h"\n').resized(10_000_000)
    began = time.process_time()

    asked = demand_of(fleet)

    assert time.process_time() - began < 0.5
    assert asked.devices == sum(each.devices for each in asked.accounts) == 10_000_000
    assert asked.connected == pytest.approx(50 * 3601 + 50, abs=4)
