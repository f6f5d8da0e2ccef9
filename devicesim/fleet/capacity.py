"""What the machine needs that makes a fleet's load, and what of it a machine lacks. Pure.

The model is plain: constants for each thing, times how many there are. The constants were measured (see each); they are
medians of a quiet machine, and yours is another one. What is foreseen is therefore held against the machine with no
margin, and a run is refused only where it cannot work.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import Literal

from devicesim.fleet.demand import Demand

CONNACK_CPU = 0.0011
"""Seconds of CPU of a connection from TCP to CONNACK: TLS 1.3, P-256, verified both ways (scripts/bench_connect.py)."""
CONNECTION_CPU = 0.003
"""Seconds of CPU of a connection with all that goes with it: minting, the record, asking the accounts, judging."""
MESSAGE_CPU = 0.00036
"""Seconds of CPU of a message published with QoS 1, with its PUBACK: 200 devices with 5 a second each; also taken for
a keep-alive ping."""
BUSY = 0.7
"""Share of a core that a process may use before its starts come late."""
DEVICE_BYTES = 55 * 1024
"""Memory of a device under way: identity, TLS, MQTT, its task. Growth of a run from 50 to 1050 devices held."""
PROCESS_BYTES = 105 * 1024**2
"""Memory of a process before its first device."""
ASKED_BYTES = 1024
"""Memory of a certificate while the accounts are asked what they hold, in the run's first process."""
FILES_BESIDE_DEVICES = 128
"""Descriptors of a process that are not devices': control plane, record, event loop, Python."""
EMULATOR_CONNECTION_CPU = 0.003
EMULATOR_DEVICE_BYTES = 42 * 1024
"""Memory of a device that is connected to the emulator, with its records: measured as :data:`DEVICE_BYTES`."""
EMULATOR_PROCESS_BYTES = 105 * 1024**2
TIME_WAIT_SECONDS = 60.0
"""For how long Linux keeps the port of a connection that was closed from here (TCP_TIMEWAIT_LEN)."""
REUSED_AFTER_SECONDS = 1.0
"""After which such a port is used again where net.ipv4.tcp_tw_reuse allows it: 2, the default, on loopback; 1, all."""
USUAL_PORTS = 28_232
"""Linux's net.ipv4.ip_local_port_range, 32768 to 60999, where it was not changed."""

Where = Literal["emulator", "aws"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a machine has. ``None``: not known, or without a limit."""

    open_files: int | None
    """Descriptors of a process: the hard limit, which it may raise its own to."""
    ports: int | None
    """Local ports of one address for connections that are made from here."""
    time_wait: float
    """Seconds for which the port of a closed connection is kept on loopback."""
    time_wait_abroad: float
    """The same of other connections."""
    memory: int | None
    """Bytes that are available, to this process group too."""
    cpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a run needs of the machine, or machines, that its devices are on."""

    where: Where
    """The target. The emulator is taken to be on the same machine."""
    demand: Demand
    processes: int
    cores: float
    """Cores that are busy at the schedule's peak, of the devices' processes."""
    emulator_cores: float
    descriptors: int
    """Of each process, if the target answers as it should. The emulator is one process, and has the same limit."""
    descriptors_if_slow: int
    """Of each process, if every try takes as long as its deadlines allow."""
    staying: int
    """Connections at once towards the address that has most of them."""
    closing_per_second: float
    """Connections a second that are closed from here, towards the same."""
    device_memory: int
    """Bytes of all devices under way at once."""
    process_memory: int
    """Bytes of the processes before their first device."""
    asking_memory: int
    """Bytes at the end, when the devices' memory is free again."""
    emulator_memory: int

    @property
    def memory(self) -> int:
        """Bytes at the most."""
        return max(self.device_memory, self.asking_memory) + self.process_memory + self.emulator_memory

    def ports(self, time_wait: float) -> int:
        """Ports at once towards the busiest address, where the port of a closed connection is kept so long."""
        closed = min(self.demand.devices, ceil(self.closing_per_second * time_wait))
        return min(self.staying + closed, self.demand.connections)

    def sources(self, ports: int, time_wait: float) -> int:
        """Local addresses that have so many ports together; ``ports`` is what one has."""
        return max(1, ceil(self.ports(time_wait) / ports))


def needs_of(demand: Demand, where: Where, *, processes: int | None = None) -> Needs:
    """What a run of ``demand`` needs; ``processes`` is how many share its devices, left out: as many as it takes."""
    pings = demand.staying / demand.keep_alive
    cores = demand.connects_per_second * CONNECTION_CPU + (demand.messages + pings) * MESSAGE_CPU
    shared = max(1, ceil(cores / BUSY)) if processes is None else processes
    emulated = where == "emulator"
    parts = 1 if emulated else shared
    if emulated:  # all accounts behind one address
        busiest, starts = demand.connected, demand.devices
    else:
        # an account's endpoint has several addresses; taken as one, for nothing says how a resolver deals them out
        dialled = {each.dials for each in demand.groups}
        by_account = [[each for each in demand.groups if each.dials == name] for name in dialled]
        busiest = max(sum(each.connected for each in own) for own in by_account)
        starts = max(sum(each.devices for each in own) for own in by_account)
    return Needs(
        where=where,
        demand=demand,
        processes=shared,
        cores=cores,
        emulator_cores=demand.connects_per_second * EMULATOR_CONNECTION_CPU if emulated else 0.0,
        descriptors=ceil(demand.connected / parts) + FILES_BESIDE_DEVICES,
        descriptors_if_slow=ceil(demand.connected_if_slow / parts) + FILES_BESIDE_DEVICES,
        staying=busiest,
        closing_per_second=demand.starts_per_second * starts / demand.devices,
        device_memory=demand.under_way * DEVICE_BYTES,
        process_memory=shared * PROCESS_BYTES,
        asking_memory=demand.devices * ASKED_BYTES,
        emulator_memory=EMULATOR_PROCESS_BYTES + demand.connected * EMULATOR_DEVICE_BYTES if emulated else 0,
    )


class Kind(StrEnum):
    """What a machine can lack."""

    OPEN_FILES = "open files"
    PORTS = "local ports"
    MEMORY = "memory"
    CPUS = "cores"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """What a machine has too little of."""

    kind: Kind
    certain: bool
    """The run cannot work. Otherwise it may, or may fall behind its schedule."""
    message: str
    hint: str


def lacks(needs: Needs, machine: Machine, *, sources: int = 1) -> list[Lack]:
    """What ``machine`` has too little of for a run; ``sources``: local addresses to dial from."""
    return [
        *_open_files(needs, machine),
        *_ports(needs, machine, sources),
        *_memory(needs, machine),
        *_cpus(needs, machine),
    ]


def _open_files(needs: Needs, machine: Machine) -> Iterator[Lack]:
    if machine.open_files is None:
        return
    limit, shared = machine.open_files, needs.where != "emulator" and machine.open_files > FILES_BESIDE_DEVICES
    for needed, connected, certain, when in (
        (needs.descriptors, needs.demand.connected, True, "are needed"),
        (needs.descriptors_if_slow, needs.demand.connected_if_slow, False, "may be needed if the target is slow"),
    ):
        if needed > limit:
            more = f"; or take {ceil(connected / (limit - FILES_BESIDE_DEVICES))} processes" if shared else ""
            yield Lack(
                kind=Kind.OPEN_FILES,
                certain=certain,
                message=f"{needed} open files {when}, the limit of a process is {limit}",
                hint=f"raise it: ulimit -Hn {needed}{more}",
            )
            return


def _ports(needs: Needs, machine: Machine, sources: int) -> Iterator[Lack]:
    if machine.ports is None:
        return
    time_wait = machine.time_wait if needs.where == "emulator" else machine.time_wait_abroad
    needed, there = needs.ports(time_wait), machine.ports * sources
    if needed <= there:
        return
    have = "1 source address has" if sources == 1 else f"{sources} source addresses have"
    kept = needed - needs.staying
    why = f", {kept} of them kept {time_wait:g} s after a close" if kept else ""
    whose = "such as 127.0.0.2-127.0.0.9" if needs.where == "emulator" else "those of this machine"
    yield Lack(
        kind=Kind.PORTS,
        certain=needs.staying > there,
        message=f"{needed} local ports are needed towards one address{why}; {have} {there}",
        hint=f"dial from {needs.sources(machine.ports, time_wait)} addresses: --source-address, {whose}",
    )


def _memory(needs: Needs, machine: Machine) -> Iterator[Lack]:
    if machine.memory is None or needs.memory <= machine.memory:
        return
    parts = [f"{needs.demand.under_way} devices under way", f"{needs.processes} processes"]
    if needs.emulator_memory:
        parts.append("the emulator")
    yield Lack(
        kind=Kind.MEMORY,
        certain=True,
        message=f"{size(needs.memory)} of memory are foreseen for {', '.join(parts)}; "
        f"{size(machine.memory)} are available",
        hint="fewer --devices, a shorter session.hold, a limit on arrival.max_under_way, or more machines",
    )


def _cpus(needs: Needs, machine: Machine) -> Iterator[Lack]:
    cores = needs.cores + needs.emulator_cores
    if cores <= machine.cpus:
        return
    with_it = " with the emulator" if needs.emulator_cores else ""
    yield Lack(
        kind=Kind.CPUS,
        certain=False,
        message=f"{cores:.1f} cores are foreseen{with_it} at {needs.demand.connects_per_second:.4g} connections/s; "
        f"this machine has {machine.cpus}, so starts may be late",
        hint="a lower --rate, or more machines",
    )


def size(count: float) -> str:
    """Bytes for people: ``55 KiB``, ``2.6 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
