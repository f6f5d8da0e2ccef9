"""Which devices are meant by what a person types."""

from collections.abc import Iterator

import pytest

from devicesim.errors import InputError
from devicesim.fleet.selection import Named, check_group, select

DEVICES = [
    Named(number=0, group="g", client_id="robot-0", certificate_id="0123456789" + "a" * 54),
    Named(number=1, group="g", client_id="2", certificate_id="0123456789" + "b" * 54),
    Named(number=2, group="h", client_id="12345678", certificate_id="f" * 64),
    Named(number=3, group="h", client_id="same", certificate_id="1234567800" + "c" * 54),
    Named(number=4, group="h", client_id="same", certificate_id="e" * 64),
    Named(number=5, group="h", client_id="moved", certificate_id="e" * 64),
]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (["3", "0"], [3, 0]),
        (["robot-0"], [0]),
        (["2"], [2]),  # a number there is wins over a client id
        (["12345678"], [2]),  # and a client id over a certificate id
        (["1234567800"], [3]),
        (["eeeeeeee"], [4, 5]),  # one certificate of two devices
        (["0123456789B"], [1]),
        (["F" * 64], [2]),
        (["same"], [3, 4]),
        (["4", "same", "4"], [4, 3]),
        ([], []),
    ],
)
def test_a_device_is_meant_by_number_client_id_or_certificate_in_that_order(
    wanted: list[str], numbers: list[int]
) -> None:
    assert select(wanted, DEVICES, count=6, where="the run") == numbers


@pytest.mark.parametrize("name", ["6", "nobody", "0123456", "", "-1", "eeeeeeef"])
def test_what_nobody_is_called_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"the run has no device '{name}'") as refused:
        select(["0", name], DEVICES, count=6, where="the run")

    assert refused.value.hint == "a number from 0 to 5, a client id, or 8 digits or more of a certificate id"


def test_devices_are_looked_through_only_where_a_name_asks_for_it() -> None:
    """Each is minted for it."""
    looked_at = []

    def devices() -> Iterator[Named]:
        for each in DEVICES:
            looked_at.append(each)
            yield each

    assert select(["1", "3"], devices(), count=6, where="f") == [1, 3]
    assert looked_at == []


def test_a_beginning_of_several_certificate_ids_is_refused() -> None:
    with pytest.raises(InputError, match="the run has 2 certificates whose id begins with '0123456789'") as refused:
        select(["0123456789"], DEVICES, count=6, where="the run")

    assert refused.value.hint == "more digits, such as 0123456789aaaaaaaa"


def test_a_group_is_one_that_there_is() -> None:
    assert check_group(["g", "h"], "h", "f") == "h"
    with pytest.raises(InputError, match="f has no group 'x'") as refused:
        check_group(["g", "h"], "x", "f")
    assert refused.value.hint == "its groups: g, h"
