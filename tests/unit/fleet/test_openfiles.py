"""The limit of open files: raised where it may be, never lowered."""

import resource

import pytest

from devicesim.fleet.openfiles import allow_open_files

NONE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "allowed", "now"),
    [
        (1024, 4096, 2000, 2000, 2000),
        (1024, 4096, 4096, 4096, 4096),
        (1024, 4096, 9000, 4096, 4096),
        (1024, NONE, 9000, 9000, 9000),
        (1024, 4096, 1000, 1000, 1024),
        (1024, 1024, 1025, 1024, 1024),
        (NONE, NONE, 9000, 9000, NONE),
    ],
)
def test_limit_is_raised_as_far_as_is_wanted_and_allowed(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, allowed: int, now: int
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))

    assert allow_open_files(wanted) == allowed
    assert limits[-1] == (now, hard)


@pytest.mark.parametrize("error", [ValueError("not allowed"), OSError("not allowed")])
def test_limit_that_the_system_does_not_tell_of_is_kept(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(_: int, pair: tuple[int, int]) -> None:
        raise error

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, NONE))
    monkeypatch.setattr(resource, "setrlimit", refuse)

    assert allow_open_files(1 << 20) == 256


def test_limit_of_this_process_is_raised_for_real() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = min(256, soft)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
    try:
        assert allow_open_files(lower + 1) == lower + 1
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == lower + 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
