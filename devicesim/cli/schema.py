"""``devicesim schema fleet|rates|summary|plan|check|diagnosis``: the JSON Schema of what devicesim reads and writes."""

import json
from importlib import import_module

import click

_MODELS = {
    "fleet": ("devicesim.fleet.sections", "FleetFile"),
    "rates": ("devicesim.report.ratesearch", "RateSearch"),
    "summary": ("devicesim.report.document", "Summary"),
    "plan": ("devicesim.report.plan_document", "Plan"),
    "check": ("devicesim.report.conformance_document", "CheckDocument"),
    "diagnosis": ("devicesim.report.diagnosis_document", "Diagnoses"),
}


@click.command(name="schema")
@click.argument("what", type=click.Choice(list(_MODELS)))
def command(what: str) -> None:
    """Print the JSON Schema of fleet files, or of what run, check and diagnose print with --json."""
    module, name = _MODELS[what]
    schema = getattr(import_module(module), name).model_json_schema()
    click.echo(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2))
