"""Made-up records: a walk-through that agrees, one that does not, one that was cut short."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report_support import CUT_SHORT, ERRORS, GOOD, WRONG, MadeUp, Robots, write


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """Writes a finished run of these groups, hands back where."""
    return lambda groups, **more: write(tmp_path / "run.sqlite", MadeUp(groups=groups, **more))


@pytest.fixture
def robots() -> Robots:
    """A group that agrees, to be changed."""
    return replace(GOOD[0], count=3)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "good.sqlite", MadeUp(groups=GOOD))


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    return write(tmp_path / "wrong.sqlite", MadeUp(groups=WRONG, notes=ERRORS))


@pytest.fixture
def cut_short(tmp_path: Path) -> Path:
    return write(tmp_path / "cut-short.sqlite", MadeUp(groups=CUT_SHORT, status=None, asked=False))


@pytest.fixture
def unasked(tmp_path: Path) -> Path:
    """No control plane could be asked."""
    return write(tmp_path / "unasked.sqlite", MadeUp(groups=GOOD, asked=False))
