"""From a fleet file to the emulator's settings: the one place where the two meet."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from devicesim.emulator.settings import Settings
from devicesim.emulator.state.environment import ControlSettings
from devicesim.errors import FleetFileError, Problem
from devicesim.fleet.spec import Emulator

_CONTROL = {each.name for each in fields(ControlSettings)}
_OWN = {each.name for each in fields(Settings)} - {"control", "jitp_delay"}


def emulator_settings(section: Emulator, path: Path) -> Settings:
    """The settings that a fleet file's ``[emulator]`` asks for.

    Those of the control plane are named like the others. Raises :class:`FleetFileError` for a name that does not exist
    or a value of the wrong kind.
    """
    given = section.settings
    problems = [
        Problem(f"emulator.settings.{name}", "unknown setting; README lists them")
        for name in given
        if name not in _OWN | _CONTROL
    ]
    values: dict[str, Any] = {name: value for name, value in given.items() if name in _OWN}
    values["jitp_delay"] = section.jitp_delay
    values["control"] = {name: value for name, value in given.items() if name in _CONTROL}
    try:
        settings = TypeAdapter(Settings).validate_python(values)
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            name = next(str(each) for each in error["loc"] if each != "control")
            problems.append(Problem(f"emulator.settings.{name}", f"{error['input']!r}: {error['msg'].lower()}"))
    if problems:
        raise FleetFileError(str(path), problems)
    return settings
