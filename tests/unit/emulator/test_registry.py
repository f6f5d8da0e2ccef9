"""The registry as a whole: partitions, and the names that select them."""

import pytest

from devicesim.emulator.state.environment import ControlSettings
from devicesim.emulator.state.partition import endpoint_prefix
from tests.control_support import REGION, A, B, make_registry


def test_partition_is_made_once() -> None:
    registry = make_registry()

    assert registry.partition(A, REGION) is registry.partition(A, REGION)
    assert registry.partition(A, REGION) is not registry.partition(A, "eu-west-1")
    assert registry.partitions() == (registry.partition(A, REGION), registry.partition(A, "eu-west-1"))


@pytest.mark.parametrize("account_id", ["", "1", "1" * 13, "11111111111a", "１１１１１１１１１１１１"])
def test_account_is_twelve_ascii_digits(account_id: str) -> None:
    with pytest.raises(ValueError, match="not twelve digits"):
        make_registry().partition(account_id, REGION)


def test_endpoint_is_a_function_of_account_and_region() -> None:
    """Devices keep their configuration from one start of the emulator to the next."""
    assert make_registry().partition(A, REGION).endpoint == "an3wlb2ite113n-ats.iot.us-east-1.localhost"
    assert make_registry().partition(A, "eu-west-1").endpoint == "an3wlb2ite113n-ats.iot.eu-west-1.localhost"
    assert endpoint_prefix(B) != endpoint_prefix(A)


def test_server_name_selects_the_account_in_its_region_only() -> None:
    registry = make_registry()
    a, b = registry.partition(A, REGION), registry.partition(B, REGION)

    assert registry.resolve_server_name(a.endpoint) is a
    assert registry.resolve_server_name(b.endpoint) is b


def test_other_names_select_nobody() -> None:
    registry = make_registry()
    a = registry.partition(A, REGION)
    names = ["", "localhost", a.endpoint.upper(), a.endpoint + ".", a.credentials_endpoint, a.plain_endpoint]

    assert [registry.resolve_server_name(name) for name in names] == [None] * len(names)


def test_plain_endpoint_selects_the_account_where_the_setting_says_so() -> None:
    registry = make_registry(settings=ControlSettings(plain_data_endpoint=True))
    a = registry.partition(A, REGION)

    assert registry.resolve_server_name(a.plain_endpoint) is a
    assert registry.resolve_server_name(a.endpoint) is a


@pytest.mark.parametrize(
    ("region", "start"),
    [("us-east-1", "arn:aws:"), ("cn-north-1", "arn:aws-cn:"), ("us-gov-west-1", "arn:aws-us-gov:")],
)
def test_arns_carry_the_regions_partition(region: str, start: str) -> None:
    assert make_registry().partition(A, region).arn("thing", "x") == f"{start}iot:{region}:{A}:thing/x"
