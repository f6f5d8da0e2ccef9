"""From a fleet file to the emulator's settings: the one place where the two meet."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Final

import botocore.session
from pydantic import TypeAdapter, ValidationError

from devicesim.emulator.faults import Fault
from devicesim.emulator.quotas import API_RATES, Quotas
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.environment import ControlSettings
from devicesim.errors import FleetFileError, Problem
from devicesim.fleet.sections import Emulator

_CONTROL: Final = {each.name for each in fields(ControlSettings)}
_OWN: Final = {each.name for each in fields(Settings)} - {"control", "quotas", "jitp_delay"}
_QUOTAS: Final = {each.name for each in fields(Quotas)}
_FAULT: Final = {each.name for each in fields(Fault)} - {"account_id"} | {"account"}
_NO_OPERATION: Final = "no operation of the API"
_TOLD: Final = {"LookupEvents", "FilterLogEvents"}
"""Operations of other services than AWS IoT that have a rate."""
_LIFTED: Final = "none"
"""How a fleet file spells that there is no limit: TOML has no null."""


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
    values["quotas"] = _quotas(section.quotas, problems)
    try:
        settings = TypeAdapter(Settings).validate_python(values)
    except ValidationError as exc:
        problems += [_problem("emulator.settings", error, skip={"control"}) for error in exc.errors(include_url=False)]
    if problems:
        raise FleetFileError(str(path), problems)
    return settings


def _quotas(given: Mapping[str, Any], problems: list[Problem]) -> Quotas:
    where = "emulator.quotas"
    problems += [
        Problem(f"{where}.{name}", f"unknown quota, must be one of {', '.join(sorted(_QUOTAS))}, lifted")
        for name in given
        if name not in _QUOTAS | {"lifted"}
    ]
    lifted = given.get("lifted", False)
    if not isinstance(lifted, bool):
        problems.append(Problem(f"{where}.lifted", f"{lifted!r}: must be true or false"))
    base = Quotas.lifted() if lifted is True else Quotas()
    values: dict[str, Any] = {each.name: getattr(base, each.name) for each in fields(base)}
    values |= {name: _limit(value) for name, value in given.items() if name in _QUOTAS}
    api = given.get("api", {})
    if isinstance(api, Mapping):
        table = {} if lifted is True else API_RATES
        values["api"] = {**table, **{name: _limit(value) for name, value in api.items()}}
        known = _operations() | _TOLD
        problems += [Problem(f"{where}.api.{name}", _NO_OPERATION) for name in api if name not in known]
    try:
        return TypeAdapter(Quotas).validate_python(values, strict=False)
    except ValidationError as exc:
        problems += [_problem(where, error) for error in exc.errors(include_url=False)]
        return base


def _limit(value: object) -> object:
    return None if value == _LIFTED else value


def emulator_faults(section: Emulator, accounts: Mapping[str, str], path: Path) -> tuple[Fault, ...]:
    """The faults that a fleet file's ``[[emulator.faults]]`` asks for; ``accounts`` maps its account names to ids.

    Raises :class:`FleetFileError` for a name that does not exist or a value that is not allowed.
    """
    problems: list[Problem] = []
    faults: list[Fault] = []
    for number, given in enumerate(section.faults):
        where = f"emulator.faults.{number}"
        unknown = [name for name in given if name not in _FAULT]
        problems += [Problem(f"{where}.{name}", f"unknown key, must be one of {_listed(_FAULT)}") for name in unknown]
        values = {name: value for name, value in given.items() if name in _FAULT and name != "account"}
        if "account" in given:
            account = given["account"]
            values["account_id"] = accounts.get(account) if isinstance(account, str) else None
            if values["account_id"] is None:
                problems.append(Problem(f"{where}.account", f"{account!r}: must be one of {_listed(accounts)}"))
        if "operation" in given and given["operation"] not in _operations() | _operations("iot-data") | _TOLD:
            problems.append(Problem(f"{where}.operation", f"{given['operation']!r}: {_NO_OPERATION}"))
        try:
            faults.append(TypeAdapter(Fault).validate_python(values))
        except ValidationError as exc:
            problems += [_problem(where, error) for error in exc.errors(include_url=False)]
    names = [fault.name or fault.kind.value for fault in faults]
    problems += [
        Problem("emulator.faults", f"name {name!r} comes twice, each fault must have its own")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    if problems:
        raise FleetFileError(str(path), problems)
    return tuple(faults)


@cache
def _operations(service: str = "iot") -> frozenset[str]:
    return frozenset(botocore.session.get_session().get_service_model(service).operation_names)


def _listed(names: Sequence[str] | set[str] | Mapping[str, str]) -> str:
    return ", ".join(sorted(names))


def _problem(where: str, error: Any, *, skip: frozenset[str] | set[str] = frozenset()) -> Problem:
    location = [str(each) for each in error["loc"] if each not in skip and isinstance(each, str)]
    path = ".".join([where, *location[: 2 if where.endswith("quotas") else 1]])
    if error["type"] == "value_error":  # ours, of the record as a whole: it names the field itself
        return Problem(path, str(error["ctx"]["error"]))
    if error["type"] == "missing":
        return Problem(path, "is missing")
    return Problem(path, f"{error['input']!r}: {error['msg'].lower()}")
