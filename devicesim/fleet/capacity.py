"""What the machine needs that makes a fleet's load, and what of it a machine lacks. Pure.

The model is plain: constants for each thing, times how many there are. The constants were measured (see each); they are
medians of a quiet machine, and yours is another one. A run is therefore refused only where it cannot work: what is
foreseen does not fit. Memory alone has a margin, within which it is a warning, for a process that runs out of it is
killed, where one that runs out of the rest falls behind.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import Literal

from devicesim.fleet.demand import Demand
from devicesim.fleet.workers import DEVICES_PER_WORKER

MIB = 1024**2

CONNACK_CPU = 0.0011
"""Seconds of CPU of a connection from TCP to CONNACK: TLS 1.3, P-256, verified both ways (scripts/bench_connect.py)."""
CONNECTION_CPU = 0.0033
"""Seconds of CPU of a connection with all that goes with it: minting, the record, asking the accounts, judging.
Growth of a run from 100 to 10,000 devices, JITP and JITR (scripts/bench_run.py)."""
MESSAGE_CPU = 0.00034
"""Seconds of CPU of a message published with QoS 1, with its PUBACK: 10,000 devices with one in ten seconds each (400
with two a second: 0.00023). Taken for a keep-alive ping too, which costs less."""
BUSY = 0.7
"""Share of a core that a process may use before its starts come late."""
DEVICE_BYTES = 40 * 1024
"""Memory of a device under way: TLS, MQTT, its task, its telemetry. Growth of a run to 10,000 devices held: 39.3 KiB
(scripts/bench_soak.py). Not in it: some 4 KB for each further certificate that a server sends, by what one costs."""
PROCESS_BYTES = 100 * MIB
"""Memory of a process before its first device; a worker of Dask's has as much."""
ASKED_BYTES = 1024
"""Memory of a certificate while the accounts are asked what they hold, in the run's first process: 0.97 KB, of 200,000
holdings with a thing each."""
FILES_BESIDE_DEVICES = 128
"""Descriptors of a process that are not devices': control plane, record, event loop, Python."""
EMULATOR_CONNECTION_CPU = 0.0025
"""Seconds of the emulator's CPU of a connection under JITP, with the record that it makes: measured as ours, 2.4 ms."""
EMULATOR_DEVICE_BYTES = 42 * 1024
"""The emulator's memory of a device that is connected, with what it has on record: measured as :data:`DEVICE_BYTES`."""
EMULATOR_RECORD_BYTES = 7 * 1024
"""The emulator's memory of a device that is gone, certificate and thing: growth of a run to 2100 devices, not held."""
EMULATOR_PROCESS_BYTES = 105 * MIB
MEMORY_MARGIN = 0.2
"""Share by which a run may need more memory than is foreseen: other builds of Python and OpenSSL, longer chains, what
the allocator keeps. Chosen, not measured."""
TIME_WAIT_SECONDS = 60.0
"""For how long Linux keeps the port of a connection that was closed from here (TCP_TIMEWAIT_LEN)."""
REUSED_AFTER_SECONDS = 1.0
"""After which such a port is used again where net.ipv4.tcp_tw_reuse allows it: 2, the default, on loopback; 1, all.
Measured in a network namespace with 100 ports: so many connections for each (source, destination), none at once after
a close from here, all of them 1.2 s later; and at once where the other side closed first."""
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
    dialling: int
    """Devices that dial the address that has most connections."""
    staying: int
    """Connections at once towards it."""
    closing: float
    """Share of all devices whose connections to it are closed from here: those that are accepted."""
    device_memory: int
    """Bytes of all devices under way at once."""
    process_memory: int
    """Bytes of the processes before their first device; several have one more that leads them."""
    asking_memory: int
    """Bytes at the end, when the devices' memory is free again."""
    emulator_memory: int

    @property
    def memory(self) -> int:
        """Bytes at the most."""
        return max(self.device_memory, self.asking_memory) + self.process_memory + self.emulator_memory

    def ports(self, time_wait: float) -> int:
        """Ports at once towards the busiest address, where the port of a closed connection is kept so long."""
        demand = self.demand
        # what the schedule starts in that time, or, of a closed model, what the target is taken to let it start
        within = min(demand.schedule.most_within(time_wait, demand.devices), demand.starts_per_second * time_wait + 1)
        # a device has one connection at a time, and what the target has closed keeps no port
        return min(self.staying + ceil(within * self.closing), self.dialling)

    def sources(self, ports: int, time_wait: float) -> int:
        """Local addresses that have so many ports together; ``ports`` is what one has."""
        return max(1, ceil(self.ports(time_wait) / ports))


def needs_of(demand: Demand, where: Where, *, processes: int | None = None) -> Needs:
    """What a run of ``demand`` needs; ``processes`` is how many share its devices, left out: as many as it takes."""
    pings = demand.staying / demand.keep_alive
    cores = demand.connects_per_second * CONNECTION_CPU + (demand.messages + pings) * MESSAGE_CPU
    if processes is None:
        processes = max(1, ceil(cores / BUSY), ceil(demand.under_way / DEVICES_PER_WORKER))
    emulated = where == "emulator"
    parts = 1 if emulated else processes
    if emulated:  # all accounts behind one address
        busiest = demand.groups
    else:
        # an account's endpoint has several addresses; taken as one, for nothing says how a resolver deals them out
        busiest = max(
            (tuple(each for each in demand.groups if each.dials == name) for name in {g.dials for g in demand.groups}),
            key=lambda own: (sum(each.connected for each in own), sum(each.devices for each in own)),
        )
    return Needs(
        where=where,
        demand=demand,
        processes=processes,
        cores=cores,
        emulator_cores=demand.connects_per_second * EMULATOR_CONNECTION_CPU if emulated else 0.0,
        descriptors=ceil(demand.connected / parts) + FILES_BESIDE_DEVICES,
        descriptors_if_slow=ceil(demand.connected_if_slow / parts) + FILES_BESIDE_DEVICES,
        dialling=sum(each.devices for each in busiest),
        staying=sum(each.connected for each in busiest),
        closing=sum(each.devices for each in busiest if each.accepted) / demand.devices,
        device_memory=demand.under_way * DEVICE_BYTES,
        process_memory=(processes + (processes > 1)) * PROCESS_BYTES,
        asking_memory=demand.devices * ASKED_BYTES,
        emulator_memory=_emulator_memory(demand) if emulated else 0,
    )


def _emulator_memory(demand: Demand) -> int:
    recorded = sum(each.registrations for each in demand.accounts) - demand.connected
    return EMULATOR_PROCESS_BYTES + demand.connected * EMULATOR_DEVICE_BYTES + max(0, recorded) * EMULATOR_RECORD_BYTES


class Resource(StrEnum):
    """What a machine can lack."""

    OPEN_FILES = "open files"
    PORTS = "local ports"
    MEMORY = "memory"
    CPUS = "cores"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """What a machine has too little of."""

    kind: Resource
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
                kind=Resource.OPEN_FILES,
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
    example = "127.0.0.2-127.0.0.9" if needs.where == "emulator" else "ADDRESS,ADDRESS (this machine's)"
    yield Lack(
        kind=Resource.PORTS,
        certain=needs.staying > there,
        message=f"{needed} local ports are needed towards one address{why}; {have} {there}",
        hint=f"dial from {needs.sources(machine.ports, time_wait)} addresses: --source-address {example}",
    )


def _memory(needs: Needs, machine: Machine) -> Iterator[Lack]:
    most = int(needs.memory * (1 + MEMORY_MARGIN))
    if machine.memory is None or most <= machine.memory:
        return
    processes = "1 process" if needs.processes == 1 else f"{needs.processes} processes"
    parts = [f"{needs.demand.under_way} devices under way", processes]
    if needs.emulator_memory:
        parts.append("the emulator")
    yield Lack(
        kind=Resource.MEMORY,
        certain=needs.memory > machine.memory,
        message=f"{needs.memory // MIB} MiB of memory are foreseen, {most // MIB} MiB with a margin of "
        f"{MEMORY_MARGIN * 100:.0f} %, for {', '.join(parts)}; {machine.memory // MIB} MiB are available",
        hint="fewer --devices, a shorter session.hold, a limit on arrival.max_under_way, or more machines",
    )


def _cpus(needs: Needs, machine: Machine) -> Iterator[Lack]:
    cores = needs.cores + needs.emulator_cores
    if cores <= machine.cpus:
        return
    with_it = " with the emulator" if needs.emulator_cores else ""
    yield Lack(
        kind=Resource.CPUS,
        certain=False,
        message=f"{cores:.1f} cores are foreseen{with_it} at {needs.demand.connects_per_second:.0f} connections/s; "
        f"this machine has {machine.cpus}, so starts may be late",
        hint="a lower --rate, or more machines",
    )
