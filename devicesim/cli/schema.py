"""``devicesim schema fleet|summary``: the JSON Schema of what devicesim reads and writes."""

import json

import click


@click.command(name="schema")
@click.argument("what", type=click.Choice(["fleet", "summary"]))
def command(what: str) -> None:
    """Print the JSON Schema of fleet files or of summaries (run --json)."""
    if what == "fleet":
        from devicesim.fleet.spec import FleetFile

        schema = FleetFile.model_json_schema()
    else:
        from devicesim.report.document import Summary

        schema = Summary.model_json_schema()
    click.echo(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2))
