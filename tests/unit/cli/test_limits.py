"""What this machine has, and what becomes of a run that needs more."""

import resource
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from devicesim.cli import limits
from devicesim.cli.limits import check_reach, raise_open_files, read_machine, ready_for, source_addresses
from devicesim.errors import InputError
from devicesim.fleet.capacity import MIB, Machine, Needs, needs_of
from devicesim.fleet.demand import demand_of
from devicesim.fleet.spec import parse_fleet

FLEET = """
version = 1
name = "walk"
[accounts.a]
id = "111111111111"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
[groups.a]
count = 30000
account = "a"
[session]
hold = "1h"
"""
PLENTY = Machine(open_files=None, ports=None, time_wait=1.0, time_wait_abroad=60.0, memory=None, cpus=1000)


@pytest.fixture
def needs() -> Needs:
    return needs_of(demand_of(parse_fleet(FLEET, Path("fleet.toml"))), "aws", processes=1)


@pytest.fixture
def open_files(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The limit of a process that has 1024 and may have 50,000: what it is set to is at the end."""
    values = [(1024, 50_000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: values[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: values.append(pair))
    return values


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What the kernel tells, to be written by a test; at first nothing."""
    for name in ("_PORT_RANGE", "_TW_REUSE", "_MEMINFO", "_PROC", "_CGROUPS"):
        monkeypatch.setattr(limits, name, tmp_path / name)
    return tmp_path


def test_the_limit_of_open_files_is_raised_as_far_as_is_needed_and_allowed(open_files: list[tuple[int, int]]) -> None:
    assert raise_open_files(1000) is None
    assert len(open_files) == 1
    assert raise_open_files(2000) is None
    assert open_files[-1] == (2000, 50_000)
    assert raise_open_files(60_000) == "60000 open files may be needed, the limit is 50000; raise it: ulimit -Hn 60000"
    assert open_files[-1] == (50_000, 50_000)


def test_a_run_that_fits_has_its_descriptors_raised_to_what_a_slow_target_would_take(
    needs: Needs, open_files: list[tuple[int, int]]
) -> None:
    assert ready_for(needs, PLENTY) == []
    assert open_files[-1] == (needs.descriptors_if_slow, 50_000)


def test_a_run_that_cannot_fit_is_refused_with_all_that_is_lacking(
    needs: Needs, open_files: list[tuple[int, int]]
) -> None:
    small = replace(PLENTY, open_files=20_000, ports=28_232, memory=500 * MIB)

    with pytest.raises(InputError) as caught:
        ready_for(needs, small)

    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert message.startswith("this machine cannot make the load: 30128 open files are needed, the limit")
    assert "local ports are needed towards one address" in message
    assert "MiB with a margin of 20 %, for 30000 devices under way, 1 process; 500 MiB are available" in message
    for advice in ("ulimit -Hn 30128", "--source-address", "fewer --devices"):
        assert advice in caught.value.hint
    assert len(open_files) == 1


def test_source_addresses_make_up_for_ports(needs: Needs, open_files: list[tuple[int, int]]) -> None:
    ports = replace(PLENTY, ports=28_232)

    with pytest.raises(InputError):
        ready_for(needs, ports)
    assert ready_for(needs, ports, ("127.0.0.2", "127.0.0.3")) == []


def test_what_may_fall_short_is_a_line(needs: Needs, open_files: list[tuple[int, int]]) -> None:
    (line,) = ready_for(needs, replace(PLENTY, cpus=0))

    assert line.startswith("0.5 cores are foreseen at 100 connections/s; this machine has 0, so starts may be late; ")


def test_a_machine_that_tells_nothing_has_no_limits(kernel: Path, open_files: list[tuple[int, int]]) -> None:
    machine = read_machine()

    assert (machine.ports, machine.memory, machine.open_files) == (None, None, 50_000)
    assert (machine.time_wait, machine.time_wait_abroad) == (60.0, 60.0)
    assert machine.cpus >= 1


@pytest.mark.parametrize(("reuse", "waits"), [("0\n", (60.0, 60.0)), ("1\n", (1.0, 1.0)), ("2\n", (1.0, 60.0))])
def test_ports_and_how_long_they_are_kept_are_read(kernel: Path, reuse: str, waits: tuple[float, float]) -> None:
    (kernel / "_PORT_RANGE").write_text("32768\t60999\n")
    (kernel / "_TW_REUSE").write_text(reuse)

    machine = read_machine()

    assert machine.ports == 28_232
    assert (machine.time_wait, machine.time_wait_abroad) == waits


def test_memory_is_the_least_of_the_machines_and_of_the_control_groups(kernel: Path) -> None:
    (kernel / "_MEMINFO").write_text("MemTotal:  8388608 kB\nMemAvailable:    4194304 kB\n")
    assert read_machine().memory == 4096 * MIB

    (kernel / "_PROC").mkdir()
    (kernel / "_PROC" / "cgroup").write_text("0::/mine\n")
    group = kernel / "_CGROUPS" / "mine"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{1000 * MIB}\n")
    (group / "memory.current").write_text(f"{700 * MIB}\n")
    assert read_machine().memory == 300 * MIB

    (kernel / "_MEMINFO").write_text("MemAvailable:    204800 kB\n")
    assert read_machine().memory == 200 * MIB


@pytest.mark.parametrize("text", ["", "what?", "1 2 3", "MemAvailable: lots", "0::/"])
def test_what_the_kernel_is_not_expected_to_say_is_not_known(kernel: Path, text: str) -> None:
    (kernel / "_PROC").mkdir()
    for name in ("_PORT_RANGE", "_TW_REUSE", "_MEMINFO", "_PROC/cgroup", "_PROC/mountinfo"):
        (kernel / name).write_text(text)

    machine = read_machine()

    assert (machine.ports, machine.memory) == (None, None)


def test_this_machine_is_read() -> None:
    machine = read_machine()

    assert machine.cpus >= 1
    assert machine.memory is None or machine.memory > 0
    assert machine.ports is None or machine.ports > 0


def test_source_addresses_are_those_of_this_machine() -> None:
    assert source_addresses([]) == ()
    assert source_addresses(["127.0.0.1"]) == ("127.0.0.1",)
    with pytest.raises(InputError, match=r"--source-address: 192\.0\.2\.1 cannot be dialled from: ") as caught:
        source_addresses(["127.0.0.1,192.0.2.1"])  # TEST-NET-1: nobody's
    assert "add it to an interface" in caught.value.hint
    with pytest.raises(InputError, match="'robot' is not an address"):
        source_addresses(["robot"])


@pytest.mark.parametrize(
    ("source", "dialled"),
    [
        ("127.0.0.2", "127.0.0.1"),
        ("10.0.0.5", "127.0.0.1"),
        ("::1", "::1"),
        ("10.0.0.5", "192.0.2.1"),
        ("10.0.0.5", None),
        ("2001:db8::5", None),
        ("127.0.0.2", "localhost"),
    ],
)
def test_a_source_address_may_be_one_from_which_the_target_can_be_reached(source: str, dialled: str | None) -> None:
    check_reach((source,), dialled)


@pytest.mark.parametrize(
    ("source", "dialled", "told"),
    [
        ("::1", "127.0.0.1", "::1 is IPv6, and 127.0.0.1, which is dialled, is not"),
        ("127.0.0.2", "::1", "127.0.0.2 is IPv4, and ::1, which is dialled, is not"),
        ("127.0.0.2", "192.0.2.1", "192.0.2.1 is elsewhere"),
        ("127.0.0.2", None, "AWS is elsewhere"),
    ],
)
def test_a_source_address_from_which_nothing_can_arrive_is_refused(source: str, dialled: str | None, told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_reach((source,), dialled)


def test_no_socket_is_left_of_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[socket.socket] = []
    real = socket.socket

    def counted(*arguments: int) -> socket.socket:
        opened.append(real(*arguments))
        return opened[-1]

    monkeypatch.setattr(socket, "socket", counted)
    source_addresses(["127.0.0.1"])

    assert [each.fileno() for each in opened] == [-1]
