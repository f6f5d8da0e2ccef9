"""Limits of this machine that a run meets first: read here, weighed in :mod:`devicesim.fleet.capacity`."""

import ipaddress
import resource
import socket
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from devicesim.cli.controlgroups import memory_left, read
from devicesim.errors import InputError
from devicesim.fleet.capacity import REUSED_AFTER_SECONDS, TIME_WAIT_SECONDS, Machine, Needs, lacks
from devicesim.fleet.meter import processors
from devicesim.fleet.openfiles import allow_open_files
from devicesim.fleet.sources import merge_sources

_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TW_REUSE = Path("/proc/sys/net/ipv4/tcp_tw_reuse")
_MEMINFO = Path("/proc/meminfo")
_PROC = Path("/proc/self")
_CGROUPS = Path("/sys/fs/cgroup")


def read_machine() -> Machine:
    """What this machine has. What it does not tell (macOS tells little) is not known, and limits nothing."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reuse = read(_TW_REUSE).strip()
    return Machine(
        open_files=None if hard == resource.RLIM_INFINITY else hard,
        ports=_ports(read(_PORT_RANGE)),
        time_wait=REUSED_AFTER_SECONDS if reuse in ("1", "2") else TIME_WAIT_SECONDS,
        time_wait_abroad=REUSED_AFTER_SECONDS if reuse == "1" else TIME_WAIT_SECONDS,
        memory=_memory(),
        cpus=processors(),
    )


def ready_for(needs: Needs, machine: Machine, sources: tuple[str, ...] = ()) -> list[str]:
    """Raise this process's limit of open files to what is needed, and say what else may fall short, a line each.

    Raises :class:`~devicesim.errors.InputError` for what cannot work, with the numbers and what to do.
    """
    found = lacks(needs, machine, sources=max(1, len(sources)))
    certain = [each for each in found if each.certain]
    if certain:
        raise InputError(
            f"this machine cannot make the load: {'; '.join(each.message for each in certain)}",
            hint="; ".join(each.hint for each in certain),
        )
    allow_open_files(needs.descriptors_if_slow)
    return [f"{each.message}; {each.hint}" for each in found]


def raise_open_files(needed: int) -> str | None:
    """Raise the limit of open files to what is needed, if the system allows; else say what is missing, in one line."""
    allowed = allow_open_files(needed)
    if allowed < needed:
        return f"{needed} open files may be needed, the limit is {allowed}; raise it: ulimit -Hn {needed}"
    return None


def source_addresses(texts: Iterable[str]) -> tuple[str, ...]:
    """The addresses of ``--source-address``, each of this machine.

    Raises :class:`~devicesim.errors.InputError` for what is no address, or another machine's.
    """
    try:
        addresses = merge_sources(texts)
    except ValueError as exc:
        raise InputError(f"--source-address: {exc}") from exc
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            try:
                probe.bind((address, 0))
            except OSError as exc:
                raise InputError(
                    f"--source-address: {address} cannot be dialled from: {exc.strerror}",
                    hint="add it to an interface of this machine (ip address add), or leave it out",
                ) from exc
    return addresses


def check_reach(sources: tuple[str, ...], dialled: str | None) -> None:
    """Raise :class:`~devicesim.errors.InputError` for source addresses from which a host cannot be reached: of the
    other family, or this machine's loopback where the host is not. ``dialled``: ``None`` is AWS; of a host that is not
    an address nothing is known.
    """
    try:
        target = None if dialled is None else ipaddress.ip_address(dialled.strip("[]"))
    except ValueError:
        return
    for text in sources:
        source = ipaddress.ip_address(text)
        if target is not None and source.version != target.version:
            raise InputError(
                f"--source-address: {text} is IPv{source.version}, and {dialled}, which is dialled, is not",
                hint=f"name IPv{target.version} addresses of this machine",
            )
        if source.is_loopback and (target is None or not target.is_loopback):
            raise InputError(
                f"--source-address: from {text} nothing but this machine can be dialled, and {dialled or 'AWS'} is "
                "elsewhere",
                hint="name addresses of this machine's network interfaces (ip address)",
            )


def _ports(text: str) -> int | None:
    try:
        low, high = map(int, text.split())
    except ValueError:
        return None
    return high - low + 1


def _memory() -> int | None:
    """Bytes available to new processes: of the machine, and of the control groups that this process is in."""
    known = (_available(read(_MEMINFO)), memory_left(_PROC, _CGROUPS))
    return min((each for each in known if each is not None), default=None)


def _available(meminfo: str) -> int | None:
    fields = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    value = fields.get("MemAvailable", "").split()
    return int(value[0]) * 1024 if value and value[0].isdecimal() else None
