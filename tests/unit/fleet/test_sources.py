"""The local addresses that devices are dialled from."""

import ipaddress
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.fleet.pacing import interleave
from devicesim.fleet.sources import MAX_SOURCES, merge_sources, parse_sources, source_of


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("127.0.0.2", ("127.0.0.2",)),
        ("127.0.0.2, 127.0.0.4", ("127.0.0.2", "127.0.0.4")),
        ("127.0.0.254-127.0.1.1", ("127.0.0.254", "127.0.0.255", "127.0.1.0", "127.0.1.1")),
        ("127.0.1.0/30", ("127.0.1.1", "127.0.1.2")),
        ("127.0.1.4/32", ("127.0.1.4",)),
        ("127.0.1.4/31", ("127.0.1.4", "127.0.1.5")),
        ("127.0.0.3,127.0.0.2-127.0.0.4", ("127.0.0.3", "127.0.0.2", "127.0.0.4")),
        ("::1", ("::1",)),
        ("2001:db8::/126", ("2001:db8::1", "2001:db8::2", "2001:db8::3")),
        ("2001:db8::fe-2001:db8::101", ("2001:db8::fe", "2001:db8::ff", "2001:db8::100", "2001:db8::101")),
    ],
)
def test_addresses_ranges_and_networks_are_read(text: str, addresses: tuple[str, ...]) -> None:
    assert parse_sources(text) == addresses


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is not an address"),
        ("localhost", "'localhost' is not an address"),
        ("127.0.0.2,", "'' is not an address"),
        ("127.0.0.300", "is not an address"),
        ("127.0.0.9-127.0.0.2", "does not go from a lower to a higher"),
        ("127.0.0.9-::1", "does not go from a lower to a higher"),
        ("127.0.0.2-", "is not an address"),
        ("127.0.1.5/24", "host bits set"),
        ("127.0.0.2/x", "is not a network"),
        ("10.0.0.0/8", f"more than {MAX_SOURCES} addresses"),
        ("2001:db8::/64", f"more than {MAX_SOURCES} addresses"),
        ("10.0.0.0-10.255.255.255", f"more than {MAX_SOURCES} addresses"),
        ("10.0.0.0/16,10.1.0.0/16", f"more than {MAX_SOURCES} addresses"),
        ("127.0.0.2,::1", "IPv4 and IPv6"),
        ("0.0.0.0", "is no address of a machine"),
        ("224.0.0.0/24", "is no address of a machine"),
        ("fe80::1%eth0", "has a scope"),
    ],
)
def test_what_is_no_address_is_refused_with_its_text(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        parse_sources(text)

    assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=40), st.text("0123456789abcdef.:/-, %", max_size=40)))
def test_any_text_is_addresses_or_a_value_error(text: str) -> None:
    try:
        found = parse_sources(text)
    except ValueError:
        return
    assert 0 < len(found) <= MAX_SOURCES
    assert len(set(found)) == len(found)
    for each in found:
        ipaddress.ip_address(each)


def test_several_options_are_one_list_and_an_address_named_twice_is_taken_once() -> None:
    assert merge_sources(["127.0.0.2-127.0.0.3", "127.0.0.3,127.0.0.4"]) == ("127.0.0.2", "127.0.0.3", "127.0.0.4")
    assert merge_sources([]) == ()


def test_devices_of_groups_that_alternate_have_all_the_addresses() -> None:
    sources = ("127.0.0.2", "127.0.0.3")
    slots = interleave({"a": 50, "b": 50})

    for group in ("a", "b"):
        own = [source_of(sources, slot) for slot in slots if slot.group == group]
        assert (own.count("127.0.0.2"), own.count("127.0.0.3")) == (25, 25)
    assert source_of((), slots[0]) is None
