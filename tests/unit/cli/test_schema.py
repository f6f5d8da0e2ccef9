"""``devicesim schema``: what it prints is a JSON Schema, and tells a document of ours from another."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devicesim.cli import schema
from tests.schema_support import faults, published
from tests.support import ROOT, Devicesim

FLEETS = sorted((ROOT / "fleets").glob("*.toml"))


@pytest.mark.parametrize("what", schema._MODELS)
def test_what_is_printed_is_a_schema_and_says_which(what: str, devicesim: Devicesim) -> None:
    told = devicesim("schema", what)

    assert (told.code, told.err) == (0, "")
    assert json.loads(told.out) == published(what).schema
    assert json.loads(told.out)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("path", FLEETS, ids=lambda path: path.stem)
def test_fleet_files_that_ship_with_us_are_as_the_schema_says(path: Path) -> None:
    assert faults("fleet", tomllib.loads(path.read_text())) == []


@pytest.mark.parametrize(
    ("key", "value", "valid"),
    [
        ("arrival.rate", "50/s", True),
        ("arrival.rate", 50, True),
        ("arrival.rate", 0, False),
        ("arrival.rate", [50], False),
        ("arrival.late_after", "500ms", True),
        ("arrival.late_after", -1, False),
        ("deadlines.tcp", "5s", True),
        ("deadlines.tcp", 0, False),
        ("session.hold", "10m", True),
        ("session.hold", 86_401, False),
        ("retry.first_delay", [1, "2s"], True),
        ("retry.first_delay", ["1s"], False),
        ("session.stay", "10m", False),
    ],
)
def test_schema_of_fleet_files_takes_numbers_within_bounds_and_the_texts_for_them(
    key: str, value: object, valid: bool
) -> None:
    file = tomllib.loads((ROOT / "fleets" / "walkthrough.toml").read_text())
    section, _, name = key.partition(".")
    file.setdefault(section, {})[name] = value

    assert (faults("fleet", file) == []) is valid


@pytest.fixture
def plan(devicesim: Devicesim) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(devicesim("plan", ROOT / "fleets" / "walkthrough.toml", "--json").out)
    return document


@pytest.mark.parametrize("path", FLEETS, ids=lambda path: path.stem)
def test_plan_of_every_fleet_is_as_the_schema_says(path: Path, devicesim: Devicesim) -> None:
    assert faults("plan", json.loads(devicesim("plan", path, "--json").out)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda plan: plan.update(surprise=1), "$: Additional properties are not allowed ('surprise' was unexpected)"),
        (lambda plan: plan.pop("devices"), "$: 'devices' is a required property"),
        (lambda plan: plan["load"].update(cores="many"), "$.load.cores: 'many' is not of type 'number'"),
        (lambda plan: plan.update(format=2), "$.format: 1 was expected"),
    ],
)
def test_document_that_is_otherwise_is_told_from_ours(
    plan: dict[str, Any], change: Callable[[dict[str, Any]], object], told: str
) -> None:
    change(plan)

    assert faults("plan", plan) == [told]
