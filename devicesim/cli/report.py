"""``devicesim report``: the report again, from the record alone."""

from pathlib import Path

import click

from devicesim.cli.options import RECORD_NAME
from devicesim.cli.output import exit_code, show_summary
from devicesim.record.store import RunReader
from devicesim.report.summary import summarise


@click.command(name="report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON document.")
def command(run: Path, as_json: bool) -> int:
    """Redo the report of RUN, a run's directory or its record, also while the run goes on. Exits as the run did."""
    record = run / RECORD_NAME if run.is_dir() else run
    with RunReader(record) as reader:
        summary = summarise(reader)
    show_summary(summary, record, as_json=as_json, quiet=as_json)
    return exit_code(summary)
