"""The local addresses that devices are dialled from, and which device has which. Pure.

One address has some 28,000 ports for each address that is dialled; a fleet of more connections needs several.
"""

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import islice

from devicesim.fleet.pacing import Slot

MAX_SOURCES = 65_536
"""More than any machine is likely to have: what is longer is a slip of the pen."""

_EXPECTED = "expected an address, a range such as 127.0.0.2-127.0.0.9 or a network such as 127.0.1.0/24"
Address = IPv4Address | IPv6Address


def parse_sources(text: str) -> tuple[str, ...]:
    """``127.0.0.2``, ``127.0.0.2-127.0.0.9``, ``127.0.1.0/24``, or a list of these with commas; IPv4 or IPv6.

    In order, each once. A network stands for its hosts: without its first and last address where it has those. Raises
    ``ValueError`` for what is no address, for both families together and for more than :data:`MAX_SOURCES`.
    """
    return merge_sources([text])


def merge_sources(texts: Iterable[str]) -> tuple[str, ...]:
    """The addresses of several texts, as :func:`parse_sources` reads each."""
    found: dict[Address, None] = {}
    for text in texts:
        for part in text.split(","):
            for address in _addresses(part.strip()):
                found[address] = None
                if len(found) > MAX_SOURCES:
                    raise ValueError(f"{part.strip()!r} makes it more than {MAX_SOURCES} addresses")
    if len({each.version for each in found}) > 1:
        raise ValueError("IPv4 and IPv6 addresses together: a target is dialled by one of them")
    return tuple(map(str, found))


def source_of(sources: Sequence[str], slot: Slot) -> str | None:
    """The address that a device dials from; ``None``: the system's choice.

    By its number in its group: by its number in the run, devices of two groups that alternate would have one address
    each, and with it only the ports of that one towards their account.
    """
    return sources[slot.member % len(sources)] if sources else None


def _addresses(text: str) -> Iterator[Address]:
    if "%" in text:
        raise ValueError(f"{text!r} has a scope, which is not supported; {_EXPECTED}")
    if "/" in text:
        yield from _network(text)
    elif "-" in text:
        yield from _range(text)
    else:
        yield _address(text, text)


def _network(text: str) -> Iterator[Address]:
    try:
        network = ip_network(text)
    except ValueError as exc:
        raise ValueError(f"{text!r} is not a network: {exc}; {_EXPECTED}") from exc
    _check(network.network_address, text)
    if network.num_addresses > MAX_SOURCES + 2:  # nothing is made of a network that is too large anyway
        raise ValueError(f"{text!r} has more than {MAX_SOURCES} addresses")
    yield from network.hosts()


def _range(text: str) -> Iterator[Address]:
    first, last = (_address(each.strip(), text) for each in text.split("-", 1))
    if first.version != last.version or int(last) < int(first):
        raise ValueError(f"{text!r} does not go from a lower to a higher address of one family")
    count = int(last) - int(first) + 1
    yield from islice((first + n for n in range(count)), MAX_SOURCES + 1)


def _address(text: str, where: str) -> Address:
    try:
        address = ip_address(text)
    except ValueError as exc:
        raise ValueError(f"{where!r} is not an address; {_EXPECTED}") from exc
    _check(address, where)
    return address


def _check(address: Address, where: str) -> None:
    """What can be bound, but is nobody's address."""
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"{where!r} is no address of a machine; {_EXPECTED}")
