"""The exception tree, on one page.

Two branches: what the user can mend (:class:`InputError`) and what the target did (:class:`TargetError`). Programming
errors are neither: they stay ``ValueError``, ``TypeError`` and friends and are allowed to crash.

The failure of one device's connection is not an exception of this page: it is data, a
:class:`devicesim.outcome.Failure` in an attempt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

E = TypeVar("E", bound=BaseException)


class DevicesimError(Exception):
    """Base of every error that devicesim raises on purpose.

    ``str(error)`` is one line: lower case, the offending value, where it stands, what would be allowed.
    ``hint`` says what to do, or is empty.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InputError(DevicesimError):
    """The user's file, flag or key material is wrong; nothing was started."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file: where it stands (``groups.robots.sni``) and what is wrong with it."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class FleetFileError(InputError):
    """The fleet file is wrong. All its problems are reported at once, each with its path in the file."""

    exit_code = 104

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(f"{source}: {count} problem{'s' if count != 1 else ''}")


class KeyMaterialError(InputError):
    """A certificate, key or secret cannot be used: unreadable, of the wrong kind, or missing its other half."""


class RecordError(InputError):
    """A run's record cannot be read: not a record, of another version, or damaged."""


class StateError(InputError):
    """A directory of an emulator's state cannot be used: another's, in use, of another version, or damaged."""


class TargetError(DevicesimError):
    """The target (AWS, or the emulator) could not be reached or set up; its own words are in the message."""

    exit_code = 3


class ClusterError(DevicesimError):
    """The processes that are to drive a run cannot be had, or were gone before anything was started."""

    exit_code = 3


def leaves(group: BaseExceptionGroup[E]) -> Iterator[E]:
    """The errors in a group, however deep: every nursery on the way up wraps what its tasks raise once more."""
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from leaves(each)
        else:
            yield each
