"""Which devices are meant by a number, a client id or the beginning of a certificate id. Pure."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from devicesim.errors import InputError
from devicesim.fleet.identities import Minter, client_id
from devicesim.fleet.pacing import interleave
from devicesim.fleet.spec import Fleet
from devicesim.record.facts import DeviceRecord

_PREFIX = re.compile(r"[0-9a-fA-F]{8,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A device by all that it is called."""

    number: int
    group: str
    client_id: str
    certificate_id: str


def of_record(devices: Iterable[DeviceRecord]) -> Iterator[Named]:
    for each in devices:
        yield Named(number=each.number, group=each.group, client_id=each.client_id, certificate_id=each.certificate_id)


def of_fleet(fleet: Fleet, mint: Minter) -> Iterator[Named]:
    """Every device of a fleet; each is minted when it is asked for, for its certificate has its names."""
    for slot in interleave({name: group.count for name, group in fleet.file.groups.items()}):
        identity = mint(slot.group, slot.member)
        name = client_id(fleet, slot.group, slot.member, identity)
        yield Named(number=slot.device, group=slot.group, client_id=name, certificate_id=identity.certificate_id)


def select(wanted: Sequence[str], devices: Iterable[Named], *, count: int, where: str) -> list[int]:
    """The numbers of the devices that are meant, in order, each once. ``count``: devices are numbered below it.

    A number that there is wins over a client id that looks like one, a client id over a certificate id; several
    devices with one name are all meant. Raises :class:`InputError` for what nobody is called, and for the beginning of
    several certificate ids.
    """
    found: list[int] = []
    known: list[Named] | None = None
    for name in wanted:
        if name.isdecimal() and int(name) < count:
            found.append(int(name))
            continue
        known = list(devices) if known is None else known
        found += _called(name, known, where)
    return list(dict.fromkeys(found))


def _called(name: str, known: Sequence[Named], where: str) -> list[int]:
    by_client = [each.number for each in known if each.client_id == name]
    if by_client:
        return by_client
    if _PREFIX.fullmatch(name):
        by_certificate = [each for each in known if each.certificate_id.startswith(name.lower())]
        certificates = dict.fromkeys(each.certificate_id for each in by_certificate)
        if len(certificates) > 1:
            raise InputError(
                f"{where} has {len(certificates)} certificates whose id begins with {name!r}",
                hint=f"more digits, such as {next(iter(certificates))[: len(name) + 8]}",
            )
        if by_certificate:
            return [each.number for each in by_certificate]
    raise InputError(
        f"{where} has no device {name!r}",
        hint=f"a number from 0 to {len(known) - 1}, a client id, or 8 digits or more of a certificate id",
    )


def check_group(groups: Iterable[str], name: str, where: str) -> str:
    """The name, if it is that of a group. Raises :class:`InputError` when there is no such group."""
    known = list(groups)
    if name not in known:
        raise InputError(f"{where} has no group {name!r}", hint=f"its groups: {', '.join(known)}")
    return name
