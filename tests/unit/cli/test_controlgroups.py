"""What control groups leave a process, of a file tree as the kernel has it."""

from pathlib import Path

import pytest

from devicesim.cli.controlgroups import memory_left
from devicesim.fleet.capacity import MIB

NO_LIMIT = 9_223_372_036_854_771_712
"""What version 1 says where there is none."""


class Kernel:
    """``/proc/self`` and ``/sys/fs/cgroup``, to be written by a test."""

    def __init__(self, root: Path) -> None:
        self.proc, self.usual = root / "proc", root / "cgroup"
        self.proc.mkdir()

    def says(self, cgroup: str, mountinfo: str = "") -> None:
        (self.proc / "cgroup").write_text(cgroup)
        (self.proc / "mountinfo").write_text(mountinfo)

    def v1(self, path: str, limit: int, used: int, stat: str = "") -> None:
        self._write(path, {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": stat})

    def v2(self, path: str, limit: int | str, used: int, stat: str = "") -> None:
        self._write(path, {"memory.max": limit, "memory.current": used, "memory.stat": stat})

    def _write(self, path: str, files: dict[str, int | str]) -> None:
        group = self.usual / path
        group.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (group / name).write_text(f"{value}\n")

    @property
    def left(self) -> int | None:
        return memory_left(self.proc, self.usual)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_process_in_no_group_has_no_limit(kernel: Kernel) -> None:
    assert kernel.left is None


def test_a_group_around_may_have_the_limit(kernel: Kernel) -> None:
    kernel.says("0::/outer/inner\n")
    kernel.v2("outer/inner", "max", 100)
    kernel.v2("outer", 1000 * MIB, 700 * MIB)

    assert kernel.left == 300 * MIB


def test_the_least_that_a_group_leaves_counts(kernel: Kernel) -> None:
    kernel.says("0::/outer/inner\n")
    kernel.v2("outer/inner", 500 * MIB, 400 * MIB)
    kernel.v2("outer", 1000 * MIB, 700 * MIB)

    assert kernel.left == 100 * MIB


def test_page_cache_is_given_back(kernel: Kernel) -> None:
    kernel.says("0::/mine\n")
    kernel.v2("mine", 1000 * MIB, 700 * MIB, f"anon 5\ninactive_file {200 * MIB}\nactive_file 7")

    assert kernel.left == 500 * MIB


def test_group_that_has_used_more_than_its_limit_has_nothing_left(kernel: Kernel) -> None:
    kernel.says("0::/mine\n")
    kernel.v2("mine", 100, 200)

    assert kernel.left == 0


@pytest.mark.parametrize("controllers", ["memory", "cpuset,memory"])
def test_version_1_has_its_limit_in_the_hierarchy_of_memory(kernel: Kernel, controllers: str) -> None:
    kernel.says(f"5:cpu,cpuacct:/elsewhere\n4:{controllers}:/outer/inner\n1:name=systemd:/\n")
    kernel.v1("memory/outer/inner", NO_LIMIT, 100)
    # the cache of the groups below counts, and the group's own is part of it
    kernel.v1("memory/outer", 1000 * MIB, 700 * MIB, f"inactive_file 1\ntotal_inactive_file {50 * MIB}")

    assert kernel.left == 350 * MIB


def test_version_1_that_counts_to_its_end_has_no_limit(kernel: Kernel) -> None:
    kernel.says("4:memory:/\n")
    kernel.v1("memory", NO_LIMIT, 100)

    assert kernel.left is None


def test_both_versions_at_once_are_looked_at(kernel: Kernel) -> None:
    kernel.says(
        "4:memory:/job\n0::/job\n",
        f"35 31 0:32 / {kernel.usual}/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
        f"41 31 0:38 / {kernel.usual}/unified rw,relatime - cgroup2 cgroup2 rw\n",
    )
    kernel.v1("memory/job", 300 * MIB, 100 * MIB)
    kernel.v2("unified/job", 150 * MIB, 50 * MIB)

    assert kernel.left == 100 * MIB


def test_mount_says_where_a_version_is(kernel: Kernel) -> None:
    kernel.says(
        "4:memory:/job\n",
        f"34 31 0:31 / {kernel.usual}/cpu rw - cgroup cgroup rw,cpu\n"
        f"35 31 0:32 / {kernel.usual}/mem,hugetlb rw,relatime - cgroup cgroup rw,hugetlb,memory\n",
    )
    kernel.v1("mem,hugetlb/job", 300 * MIB, 100 * MIB)

    assert kernel.left == 200 * MIB


@pytest.mark.parametrize("path", ["/docker/abc", "/docker/abc/below"])
def test_in_a_container_a_mount_begins_at_the_containers_group(kernel: Kernel, path: str) -> None:
    kernel.says(f"4:memory:{path}\n", f"35 31 0:32 /docker/abc {kernel.usual}/memory ro - cgroup cgroup rw,memory\n")
    kernel.v1("memory", 300 * MIB, 100 * MIB)
    kernel.v1("memory/below", NO_LIMIT, 100 * MIB)

    assert kernel.left == 200 * MIB


def test_group_that_is_not_below_the_mounts_root_is_the_containers_own(kernel: Kernel) -> None:
    kernel.says("0::/\n", f"35 31 0:32 /../.. {kernel.usual} ro - cgroup2 cgroup rw\n")
    kernel.v2("", 300 * MIB, 100 * MIB)

    assert kernel.left == 200 * MIB


@pytest.mark.parametrize(
    ("cgroup", "mountinfo"),
    [
        ("what?", ""),
        ("0::", "1 2 3"),
        ("0::/../../etc", ""),
        ("4:memory", "35 31 0:32 / - cgroup cgroup rw,memory"),
        ("4:memory:/", "35 31 0:32 / /nowhere rw - cgroup"),
        (":memory:/", " - "),
        ("\xe4:\xf6:/\n\n", "\n\n"),
    ],
)
def test_what_the_kernel_is_not_expected_to_say_limits_nothing(kernel: Kernel, cgroup: str, mountinfo: str) -> None:
    kernel.says(cgroup, mountinfo)

    assert kernel.left is None


@pytest.mark.parametrize(("limit", "used"), [("", "1"), ("lots", "1"), ("-1", "1"), ("1", "")])
def test_limits_that_are_no_numbers_are_none(kernel: Kernel, limit: str, used: str) -> None:
    kernel.says("4:memory:/\n0::/\n")
    for group, names in (("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")), ("", ("memory.max",) * 2)):
        (kernel.usual / group).mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, (limit, used), strict=True):
            (kernel.usual / group / name).write_text(value)

    assert kernel.left is None
