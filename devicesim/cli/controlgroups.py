"""Memory that the control groups of this process leave it, as containers have it: version 2, version 1, or both.

Version 1 has a hierarchy for each controller, and inside a container a mount may begin below the group that
``/proc/self/cgroup`` names (cgroups(7), ``/proc/pid/mountinfo`` in proc(5)). Each group around a process may have a
limit of its own, and the least counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """What a version calls its files."""

    limit: str
    used: str
    cached: str
    """In ``memory.stat``: page cache that is given back when memory is needed, of the groups below too."""


_V1 = _Names(limit="memory.limit_in_bytes", used="memory.usage_in_bytes", cached="total_inactive_file")
_V2 = _Names(limit="memory.max", used="memory.current", cached="inactive_file")
_USUAL_V1, _USUAL_V2 = "memory", ""
"""Where a version is mounted below ``/sys/fs/cgroup`` when nothing says otherwise."""
_NO_LIMIT = 1 << 62
"""Bytes from which a limit of version 1 is none: it says the most that it can count, in whole pages."""


def memory_left(proc: Path, usual: Path) -> int | None:
    """Bytes that the groups of a process leave it; ``None``: there is no limit, or none is told.

    ``proc`` is its directory, ``/proc/self``; ``usual`` is where control groups usually are, ``/sys/fs/cgroup``.
    """
    mounts = read(proc / "mountinfo").splitlines()
    left = [
        _left(group, names)
        for names, path in _own(read(proc / "cgroup"))
        for group in _around(path, *_mounted(mounts, names, usual))
    ]
    return min((each for each in left if each is not None), default=None)


def read(path: Path) -> str:
    """What the kernel says there; empty where it says nothing."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _own(cgroup: str) -> Iterator[tuple[_Names, PurePosixPath]]:
    """The groups of the process that may limit its memory: ``0::/path`` is version 2, ``4:memory:/path`` version 1."""
    for line in cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/") or ".." in PurePosixPath(path).parts:
            continue
        if number == "0" and not controllers:
            yield _V2, PurePosixPath(path)
        elif "memory" in controllers.split(","):
            yield _V1, PurePosixPath(path)


def _mounted(mounts: list[str], names: _Names, usual: Path) -> tuple[Path, PurePosixPath]:
    """Where a version is mounted, and which of its groups is at the mount's root."""
    for line in mounts:
        # 36 35 98:0 /root /point rw,noatime master:1 - cgroup cgroup rw,memory
        own, separator, rest = line.partition(" - ")
        fields, kind = own.split(" "), rest.split(" ")
        if not separator or len(fields) < 5 or len(kind) < 3:
            continue
        memory = kind[0] == "cgroup" and "memory" in kind[2].split(",")
        if memory if names is _V1 else kind[0] == "cgroup2":
            return Path(fields[4]), PurePosixPath(fields[3])
    return usual / (_USUAL_V1 if names is _V1 else _USUAL_V2), PurePosixPath("/")


def _around(path: PurePosixPath, point: Path, root: PurePosixPath) -> Iterator[Path]:
    """A group's directory and those around it, as far out as they are mounted."""
    # a group that is not below the mount's root is seen from a container: what is mounted is the container's own
    inner = path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()
    for each in (inner, *inner.parents):
        yield point / each


def _left(group: Path, names: _Names) -> int | None:
    limit, used = read(group / names.limit).strip(), read(group / names.used).strip()
    if not limit.isdecimal() or not used.isdecimal():  # "max": none
        return None
    if int(limit) >= _NO_LIMIT:
        return None
    cached = 0
    for line in read(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == names.cached and value.isdecimal():
            cached = int(value)
    return max(0, int(limit) - int(used) + cached)
