"""What a run needs of the machine, and what of it a machine lacks."""

from dataclasses import replace
from pathlib import Path

import pytest

from devicesim.fleet import capacity
from devicesim.fleet.capacity import FILES_BESIDE_DEVICES, MIB, Lack, Machine, Needs, Resource, Where, lacks, needs_of
from devicesim.fleet.demand import demand_of
from devicesim.fleet.spec import at_rate, parse_fleet

FLEET = """
version = 1
name = "walk"
[accounts.a]
id = "111111111111"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
[accounts.b]
id = "222222222222"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
[groups.a]
count = 30000
account = "a"
[groups.b]
count = 10000
account = "b"
[session]
hold = "24h"
"""
HELD = 40_000
PLENTY = Machine(open_files=None, ports=None, time_wait=1.0, time_wait_abroad=60.0, memory=None, cpus=1000)


def needs(where: Where = "aws", text: str = FLEET, *, rate: float = 50.0, processes: int | None = None) -> Needs:
    demand = demand_of(at_rate(parse_fleet(text, Path("fleet.toml")), rate))
    return needs_of(demand, where, processes=processes)


def lack(found: list[Lack], resource: Resource) -> Lack:
    (one,) = [each for each in found if each.kind is resource]
    return one


def test_cores_follow_from_connections_messages_and_pings() -> None:
    telemetry = FLEET.replace('account = "a"\n', 'account = "a"\ntelemetry = { every = 10 }\n')

    quiet, loud = needs(), needs(text=telemetry)

    assert quiet.cores == pytest.approx(100 * capacity.CONNECTION_CPU + HELD / 60 * capacity.MESSAGE_CPU)
    assert loud.cores == pytest.approx(quiet.cores + 3000 * capacity.MESSAGE_CPU)


def test_processes_are_as_many_as_keeps_each_within_its_core_and_its_devices() -> None:
    fast = needs(rate=1000.0, text=FLEET.replace("24h", "0s"))

    assert fast.processes == 10  # 2000 connections/s of 3.3 ms are 6.6 cores, each process takes 0.7
    assert needs().processes == 2  # 40,000 held, 20,000 in each
    assert needs(processes=5).processes == 5


def test_memory_is_that_of_devices_and_processes_or_of_asking_afterwards() -> None:
    held, short = needs(processes=1), needs(text=FLEET.replace("24h", "0s"), processes=1)

    assert held.memory == HELD * capacity.DEVICE_BYTES + capacity.PROCESS_BYTES
    # the processes that drive devices, and the one that leads them
    assert needs(processes=4).process_memory == 5 * capacity.PROCESS_BYTES
    assert short.device_memory < short.asking_memory
    assert short.memory == HELD * capacity.ASKED_BYTES + capacity.PROCESS_BYTES


def test_the_emulator_is_on_the_same_machine() -> None:
    aws, emulator = needs(processes=1), needs("emulator", processes=1)

    assert aws.emulator_memory == aws.emulator_cores == 0
    assert emulator.emulator_cores == pytest.approx(100 * capacity.EMULATOR_CONNECTION_CPU)
    assert emulator.memory - aws.memory == capacity.EMULATOR_PROCESS_BYTES + HELD * capacity.EMULATOR_DEVICE_BYTES


def test_descriptors_are_shared_by_processes_but_not_by_the_emulator() -> None:
    assert needs(processes=1).descriptors == HELD + FILES_BESIDE_DEVICES
    assert needs(processes=4).descriptors == HELD / 4 + FILES_BESIDE_DEVICES
    assert needs("emulator", processes=4).descriptors == HELD + FILES_BESIDE_DEVICES


def test_ports_are_those_towards_the_busiest_address_with_what_was_closed_lately() -> None:
    aws, emulator = needs(), needs("emulator")
    short = needs(text=FLEET.replace("24h", "0s"))

    assert aws.ports(0.0) == pytest.approx(30_000, abs=2)  # account a; b is dialled at another address
    assert emulator.ports(0.0) == pytest.approx(40_000, abs=2)
    # 50 starts/s, 3 of 4 to account a, for 60 s; what is connected besides
    assert short.ports(60.0) - short.staying == pytest.approx(50 * 60 * 0.75, abs=2)
    assert aws.sources(28_232, 60.0) == 2
    assert short.sources(28_232, 60.0) == 1


def test_a_connection_that_the_target_closes_keeps_no_port() -> None:
    refused = needs(text=FLEET.replace("24h", "0s").replace('account = "a"\n', 'account = "a"\nsni = "none"\n'))

    assert refused.ports(60.0) - refused.ports(0.0) <= 1


def test_a_machine_with_plenty_lacks_nothing() -> None:
    assert lacks(needs(), PLENTY) == []


def test_too_few_open_files_are_certain_and_told_with_the_number_needed() -> None:
    one = needs(processes=1)

    found = lack(lacks(one, replace(PLENTY, open_files=20_000)), Resource.OPEN_FILES)

    assert found.certain
    assert found.message == "40128 open files are needed, the limit of a process is 20000"
    assert found.hint == "raise it: ulimit -Hn 40128; or take 3 processes"
    assert lacks(needs(processes=3), replace(PLENTY, open_files=20_000)) == []
    alone = lack(lacks(needs("emulator", processes=3), replace(PLENTY, open_files=20_000)), Resource.OPEN_FILES)
    assert "processes" not in alone.hint


def test_a_limit_that_only_a_slow_target_would_meet_is_a_warning() -> None:
    short = needs(text=FLEET.replace("24h", "0s"), processes=1)

    found = lack(lacks(short, replace(PLENTY, open_files=1000)), Resource.OPEN_FILES)

    assert not found.certain
    assert "may be needed if the target is slow" in found.message


def test_too_few_ports_are_certain_when_what_is_connected_does_not_fit() -> None:
    machine = replace(PLENTY, ports=28_232)

    held = lack(lacks(needs(), machine), Resource.PORTS)
    churning = lack(lacks(needs(text=FLEET.replace("24h", "0s"), rate=1000.0), machine), Resource.PORTS)

    assert held.certain
    assert "1 source address has 28232" in held.message
    assert "--source-address ADDRESS,ADDRESS" in held.hint
    assert not churning.certain
    assert "kept 60 s after a close" in churning.message
    assert lacks(needs(), machine, sources=2) == []
    # loopback gives a port back after a second
    assert lacks(needs("emulator", text=FLEET.replace("24h", "0s"), rate=1000.0), machine) == []


def test_too_little_memory_is_certain_and_told_with_its_margin() -> None:
    found = lack(lacks(needs(processes=1), replace(PLENTY, memory=1000 * MIB)), Resource.MEMORY)

    assert found.certain
    foreseen = HELD * capacity.DEVICE_BYTES + capacity.PROCESS_BYTES
    assert found.message == (
        f"{foreseen // MIB} MiB of memory are foreseen, {int(foreseen * 1.2) // MIB} MiB with a margin of 20 %, "
        "for 40000 devices under way, 1 process; 1000 MiB are available"
    )


@pytest.mark.parametrize(("share", "told"), [(0.999, [True]), (1.0, [False]), (1.199, [False]), (1.201, [])])
def test_memory_that_only_the_margin_does_not_fit_into_is_a_warning(share: float, told: list[bool]) -> None:
    one = needs(processes=1)

    found = lacks(one, replace(PLENTY, memory=int(one.memory * share)))

    assert [each.certain for each in found] == told


def test_too_few_cores_are_a_warning() -> None:
    found = lack(lacks(needs("emulator", rate=1000.0), replace(PLENTY, cpus=2)), Resource.CPUS)

    assert not found.certain
    assert "this machine has 2, so starts may be late" in found.message
