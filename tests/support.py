"""What several tests share that is no fixture."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command line came to."""

    code: int
    out: str
    err: str


Devicesim = Callable[..., Outcome]
"""Runs a command line of ours."""
