"""What every report in the terminal is laid out with: columns, colours, durations, other people's words. Pure."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

WIDE = 120
"""Columns from which a table has one for each thing that is said."""

BETWEEN = 3
"""Columns of the terminal between two of a table."""

GOOD, BAD, DIM, HEAD = "green", "bold red", "dim", "bold"
"""Colour only repeats what the words say: a report reads well in a log, where rich drops it."""


def seconds(value: float) -> str:
    """A duration for people, in three digits: ``0.41 ms``, ``12.3 ms``, ``1.24 s``, ``3 min 5 s``."""
    if value >= 119.5:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest} s"
    if value >= 0.9995:
        return f"{value:.3g} s" if value < 99.95 else f"{value:.0f} s"
    return "0 ms" if not value else f"{value * 1000:.3g} ms" if value >= 1e-5 else "under 0.01 ms"


def clean(text: str) -> str:
    """Other people's words: a peer's, a file's. What is not printable is shown, not sent to the terminal."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def new_table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """``numbers`` are the columns that stand to the right and are never folded: half a number is another one."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, header_style=HEAD, show_edge=False)
    for column in columns:
        number = column in numbers
        table.add_column(column, justify="right" if number else "left", overflow="fold", no_wrap=number)
    return table


def add_row(table: Table, *cells: str | Text) -> None:
    """A row of plain text: rich would read a cell that is a ``str`` as markup."""
    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


def section(title: str, body: RenderableType | None) -> Iterable[RenderableType]:
    return () if body is None else (Text(""), Text(title, style=HEAD), body)
