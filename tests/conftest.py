"""Fixtures that several tests share."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest

from tests.support import Devicesim, Outcome

# The same examples on every run, so that a failure is of the change at hand; HYPOTHESIS_PROFILE=explore draws new ones.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture
def devicesim(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Devicesim:
    """Run a command line of ours in this process: its exit code and what it printed."""
    from devicesim.cli.main import main

    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["devicesim", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        assert isinstance(caught.value.code, int)
        captured = capsys.readouterr()
        return Outcome(caught.value.code, captured.out, captured.err)

    return run
