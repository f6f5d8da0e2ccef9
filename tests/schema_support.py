"""Documents held against the JSON Schema that is published for them, by a validator that is not pydantic."""

import json
from functools import cache
from typing import Any

from click.testing import CliRunner
from jsonschema import Draft202012Validator

from devicesim.cli import schema


@cache
def published(what: str) -> Draft202012Validator:
    """What ``devicesim schema`` prints, once it is a schema itself."""
    told = CliRunner().invoke(schema.command, [what])
    assert told.exit_code == 0, told.output
    document = json.loads(told.output)
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def faults(what: str, document: Any) -> list[str]:
    """Where a document, as ``json.loads`` gives it, is not as its schema says; empty: nowhere."""
    return [f"{error.json_path}: {error.message}" for error in published(what).iter_errors(document)]
