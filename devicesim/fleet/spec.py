"""The fleet file: accounts, groups of devices, how they arrive and retry. TOML, checked by pydantic.

Every mistake is reported at once, each with its path in the file: unknown keys, wrong values, and contradictions
between places (:mod:`devicesim.fleet.contradictions`). The models are the published JSON Schema
(``devicesim schema fleet``).
"""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from devicesim.errors import FleetFileError, KeyMaterialError, Problem
from devicesim.fleet.arrival import Arrival, schedule_problems
from devicesim.fleet.contradictions import find_contradictions
from devicesim.fleet.sections import SUBJECT_CLIENT_ID, TOPIC_CLIENT_ID, FleetFile, SubjectFields
from devicesim.fleet.thresholds import SPELLINGS
from devicesim.pki.profile import Profile, Subject, render

MOST_SHOWN = 80
"""Characters of a wrong value that a message repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A fleet file that has been read and checked, with what it refers to."""

    file: FleetFile
    path: Path
    text: str
    """The file as read; it holds no secret."""
    templates: Mapping[str, str]
    """JITP template text by account name, for the accounts whose file gives one."""
    policies: Mapping[str, str]
    """Policy text by account name, likewise."""

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def size(self) -> int:
        """Devices in all groups."""
        return sum(group.count for group in self.file.groups.values())

    def resolve(self, reference: str) -> Path:
        """A path of the file: relative ones are relative to the fleet file."""
        return self.path.parent / os.path.expanduser(reference)  # which leaves ~nobody as it is, where Path raises

    def first_index(self, group_name: str) -> int:
        """Identity index of a group's first device."""
        position = 0
        for name, group in self.file.groups.items():
            first = position if group.first_index is None else group.first_index
            if name == group_name:
                return first
            position = max(position, first + group.count)
        raise KeyError(group_name)

    def device_profile(self, group_name: str) -> Profile:
        """What the certificates of a group's devices say."""
        devices = self.file.devices
        return Profile(
            subject=_subject(self.file.groups[group_name].subject),
            names=self.names(group_name),
            key_type=devices.key_type,
            not_before=devices.not_before,
            not_after=devices.not_after,
        )

    def names(self, group_name: str) -> dict[str, str]:
        return {"fleet": self.file.name, "group": group_name}

    def resized(self, total: int) -> "Fleet":
        """The same fleet with ``total`` devices, split over the groups in the file's proportions, at least 1 each.

        Largest remainders; raises :class:`FleetFileError` when ``total`` is smaller than the number of groups.
        """
        groups = self.file.groups
        if total < len(groups):
            message = f"{total} devices cannot be split over {len(groups)} groups; at least 1 each is needed"
            raise FleetFileError(str(self.path), [Problem("groups", message)])
        spare = total - len(groups)
        shares = {name: group.count * spare / self.size for name, group in groups.items()}
        counts = {name: 1 + int(share) for name, share in shares.items()}
        by_remainder = sorted(shares, key=lambda name: int(shares[name]) - shares[name])
        for name in by_remainder[: total - sum(counts.values())]:
            counts[name] += 1
        resized = {name: group.model_copy(update={"count": counts[name]}) for name, group in groups.items()}
        fleet = replace(self, file=self.file.model_copy(update={"groups": resized}))
        if problems := list(schedule_problems(self.file.arrival, total)):
            raise FleetFileError(str(self.path), problems)
        return fleet


def at_rate(fleet: Fleet, rate: float) -> Fleet:
    """The same fleet with so many starts a second, in place of the file's rate, stages, bursts or closed model.

    What the file says of late and dropped starts stays.
    """
    old = fleet.file.arrival
    arrival = Arrival(rate=rate, max_under_way=old.max_under_way, late_after=old.late_after, tolerance=old.tolerance)
    return replace(fleet, file=fleet.file.model_copy(update={"arrival": arrival}))


def load_fleet(path: Path) -> Fleet:
    """Read and check a fleet file. Raises :class:`FleetFileError` with all its problems."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise FleetFileError(str(path), [Problem("file", f"cannot be read: {reason}")]) from exc
    return parse_fleet(text, path)


def parse_fleet(text: str, path: Path) -> Fleet:
    """Check the text of a fleet file; ``path`` is where it stands, for what it refers to."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise FleetFileError(str(path), [Problem("file", f"is not TOML: {exc}")]) from exc
    problems: list[Problem] = []
    file: FleetFile | None = None
    try:
        file = FleetFile.model_validate(raw)
    except ValidationError as exc:
        problems += [_problem(error) for error in exc.errors(include_url=False)]
    seen = {problem.path for problem in problems}
    problems += [problem for problem in find_contradictions(raw) if problem.path not in seen]
    documents: dict[str, dict[str, str]] = {"template": {}, "policy": {}}
    if file is not None:
        problems += _subject_problems(file)
        problems += schedule_problems(file.arrival, sum(group.count for group in file.groups.values()))
        for kind, found in documents.items():
            problems += _read_documents(file, path, kind, found)
    if problems or file is None:
        raise FleetFileError(str(path), problems)
    return Fleet(file=file, path=path, text=text, templates=documents["template"], policies=documents["policy"])


def _problem(error: Mapping[str, Any]) -> Problem:
    """One pydantic error in the house style."""
    where = ".".join(str(each) for each in error["loc"] if each != "[key]") or "file"
    context, value, shown = error.get("ctx", {}), error.get("input"), _shown(error.get("input"))
    match error["type"]:
        case "extra_forbidden":
            ours = SPELLINGS.get(str(error["loc"][-1]))
            message = "unknown key" if ours is None else f"unknown key; here it is spelled {ours!r}"
        case "missing":
            message = "is missing"
        case "value_error":
            message = f"{shown} is not allowed: {context['error']}"
        case "literal_error" | "enum":
            message = f"{shown} is not allowed; expected {context['expected']}"
        case "string_pattern_mismatch":
            message = f"{shown} does not match {context['pattern']}"
        case _:
            text = str(error["msg"])
            message = f"{shown}: {text[:1].lower()}{text[1:]}" if not isinstance(value, dict) else text.lower()
    return Problem(where, message)


def _shown(value: object) -> str:
    """A value for a message of one line, however much was put there."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _subject(fields: SubjectFields) -> Subject:
    """Unset attributes stay out of the subject; the CN alone has a default."""
    return Subject(**fields.model_dump(exclude_none=True))


def _subject_problems(file: FleetFile) -> list[Problem]:
    """Templates are tried on a group's first and last device, so that a bad one is found before anything starts."""
    problems = []
    for name, group in file.groups.items():
        first = group.first_index or 0
        names = {"fleet": file.name, "group": name}
        for index in (first, first + group.count - 1):
            try:
                _subject(group.subject).name(index, names)
            except KeyMaterialError as exc:
                problems.append(Problem(f"groups.{name}.subject", str(exc)))
                break
            try:
                render(group.client_id.replace(SUBJECT_CLIENT_ID, "x"), index, names, "client_id")
            except KeyMaterialError as exc:
                problems.append(Problem(f"groups.{name}.client_id", f"{exc}, {SUBJECT_CLIENT_ID}"))
                break
            if group.telemetry is None:
                continue
            try:
                topic = render(group.telemetry.topic.replace(TOPIC_CLIENT_ID, "x"), index, names, "topic")
            except KeyMaterialError as exc:
                problems.append(Problem(f"groups.{name}.telemetry.topic", f"{exc}, {TOPIC_CLIENT_ID}"))
                break
            if any(sign in topic for sign in "+#\0"):
                problems.append(Problem(f"groups.{name}.telemetry.topic", f"{topic!r} cannot be published to"))
                break
    return problems


def _read_documents(file: FleetFile, path: Path, kind: str, found: dict[str, str]) -> list[Problem]:
    """JITP templates and policies: inline JSON starts with a brace, anything else names a file."""
    problems = []
    for name, account in file.accounts.items():
        value: str | None = getattr(account, kind)
        if value is None:
            continue
        where = f"accounts.{name}.{kind}"
        text = value
        if not value.lstrip().startswith("{"):
            try:
                text = (path.parent / value).read_text(encoding="utf-8")
            except (OSError, ValueError) as exc:  # not UTF-8, or a NUL in the name
                problems.append(Problem(where, f"{_shown(value)} cannot be read: {getattr(exc, 'strerror', exc)}"))
                continue
        try:
            document = json.loads(text)
        except ValueError as exc:
            problems.append(Problem(where, f"is not JSON: {exc}"))
            continue
        if not isinstance(document, dict):
            problems.append(Problem(where, f"is a JSON {type(document).__name__}; an object is expected"))
            continue
        found[name] = text
    return problems
