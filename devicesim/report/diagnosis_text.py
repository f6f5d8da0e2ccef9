"""Diagnoses for people, in the terminal: the causes ranked, what speaks for and against each, the fixes. Pure.

Returns rich renderables, as :mod:`devicesim.report.text` does. Devices of which the same is to be said are told of
once. A command that is longer than a line goes on behind a backslash, so that it can be typed, or copied, as it stands.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from devicesim.diagnosis.findings import Argument, Diagnosis, Finding
from devicesim.report.layout import BAD, DIM, GOOD, HEAD, clean

MOST_DEVICES = 5
"""Named of those of which the same is said."""
MOST_FINDINGS = 4
"""Causes shown; the document (``--json``) has all."""
_INDENT = 3
_WORD = re.compile(r"""(?:'[^']*'|"[^"]*"|[^\s'"])+""")


def render(diagnoses: Sequence[Diagnosis]) -> RenderableType:
    """All of them, those of which the same is to be said together, connected ones in one line."""
    parts: list[RenderableType] = []
    for alike in _alike([each for each in diagnoses if not each.connected]):
        parts += [*_one(alike), Text("")]
    parts.append(headline(diagnoses))
    return Group(*parts)


def as_text(diagnoses: Sequence[Diagnosis], *, width: int) -> str:
    """The same without colours, for a log or a file: no line is longer than ``width`` or ends in blanks."""
    console = Console(file=StringIO(), width=width, color_system=None, highlight=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(render(diagnoses))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def headline(diagnoses: Sequence[Diagnosis]) -> Text:
    """One line: how many are connected."""
    if not diagnoses:
        return Text("No device was looked at.", style=BAD)
    only, every = diagnoses[0], sum(each.devices for each in diagnoses)
    if every == 1:
        state = f"connected: {clean(_seen(diagnoses))}" if only.connected else "not connected"
        return Text(f"{clean(only.device)} is {state}.", style=GOOD if only.connected else BAD)
    connected = sum(each.devices for each in diagnoses if each.connected)
    return Text(f"{connected} of {every} devices are connected.", style=GOOD if connected == every else BAD)


def _alike(diagnoses: Iterable[Diagnosis]) -> list[list[Diagnosis]]:
    """Those that name the same causes for the same reasons and fixes but for the device's own names: the most
    frequent first."""
    groups: dict[tuple[object, ...], list[Diagnosis]] = {}
    for each in diagnoses:
        causes = tuple((finding.cause.id, finding.score) for finding in each.findings)
        groups.setdefault((each.seen, causes, len(each.would_need)), []).append(each)
    return sorted(groups.values(), key=lambda alike: -len(alike))


def _one(alike: Sequence[Diagnosis]) -> Iterator[RenderableType]:
    diagnosis = alike[0]
    yield Text.assemble((_names(alike), HEAD), ": not connected")
    yield Text(clean(_seen(alike)))
    if diagnosis.oracle:
        yield Text(clean(diagnosis.oracle), style=DIM)
    if len(alike) > 1:
        guessed = sum(bool(each.like) for each in alike)
        others = f"; {guessed} of them were not looked at themselves" if guessed else ""
        yield Text(f"Names and ids are those of {clean(diagnosis.device)}{others}.", style=DIM)
    if not diagnosis.findings:
        yield Text("")
        yield Text("No cause stands out.", style=HEAD)
    for place, finding in enumerate(diagnosis.findings[:MOST_FINDINGS], 1):
        yield Text("")
        yield from _finding(place, finding)
    if (hidden := len(diagnosis.findings) - MOST_FINDINGS) > 0:
        yield Text("")
        yield Text(
            f"and {hidden} less likely: " + ", ".join(each.cause.id for each in diagnosis.findings[MOST_FINDINGS:])
        )
    if diagnosis.would_need:
        yield Text("")
        yield Text("What would tell more", style=HEAD)
        for need in diagnosis.would_need:
            yield Padding(_item("-", clean(need)), (0, 0, 0, 1))


def _names(alike: Sequence[Diagnosis]) -> str:
    """``device 7 (robot-000007) of group robots``, ``5 devices of group robots: device 7 (robot-000007), ...``."""
    groups = list(dict.fromkeys(clean(each.group) for each in alike))
    of = f" of group{'s' if len(groups) > 1 else ''} {', '.join(groups)}"
    if len(alike) == 1:
        return clean(alike[0].device) + of
    names = ", ".join(clean(each.device) for each in alike[:MOST_DEVICES])
    more = f" and {len(alike) - MOST_DEVICES} more" if len(alike) > MOST_DEVICES else ""
    return f"{len(alike)} devices{of}: {names}{more}"


def _seen(alike: Sequence[Diagnosis]) -> str:
    """What they saw last, and on which try."""
    least, most = min(each.tries for each in alike), max(each.tries for each in alike)
    on = "" if most < 2 else f" (try {least})" if least == most else f" (try {least} to {most})"
    return alike[0].seen + on


def _finding(place: int, finding: Finding) -> Iterator[RenderableType]:
    cause = finding.cause
    yield _item(
        f"{place}.",
        Text.assemble((cause.title, HEAD), (f" ({cause.number} {cause.id}, score {finding.score})", DIM)),
    )
    for word, arguments in (("for", finding.supporting), ("against", finding.opposing)):
        if arguments:
            yield Padding(_arguments(word, arguments), (0, 0, 0, _INDENT))
    for fix in finding.fixes:
        yield Padding(_item("fix:", clean(fix.text)), (0, 0, 0, _INDENT))
        for command in fix.commands:
            yield _Command(clean(command), _INDENT + 5)


def _arguments(word: str, arguments: Sequence[Argument]) -> Table:
    """``for  9  dev holds the CA SNI_ONLY ...``, the weightiest first."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=7)
    table.add_column(justify="right")
    table.add_column(ratio=1, overflow="fold")
    for place, argument in enumerate(sorted(arguments, key=lambda each: -each.weight)):
        table.add_row(Text("" if place else word, style=DIM), Text(str(argument.weight)), Text(clean(argument.text)))
    return table


def _item(mark: str, text: str | Text) -> Table:
    """A text behind a mark, hanging."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    table.add_row(Text(mark), text if isinstance(text, Text) else Text(text))
    return table


class _Command:
    """A command, laid out for the width that there is."""

    def __init__(self, command: str, indent: int) -> None:
        self.command = command
        self.indent = indent

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in continued(self.command, options.max_width - self.indent):
            # not wider than it is: a blank behind the backslash would be what the shell goes on with
            yield Padding(Text(line, overflow="fold"), (0, 0, 0, self.indent), expand=False)


def continued(command: str, width: int) -> list[str]:
    """A command in lines of ``width``, as far as its words are not longer, each but the last ending in a backslash. An
    option stays with its value where there is room."""
    lines: list[str] = []
    line = ""
    for piece in _pieces(command, width - 4):
        longer = f"{line} {piece}" if line else piece
        if line and len(longer) > width - 2:
            lines.append(f"{line} \\")
            longer = f"  {piece}"
        line = longer
    return [*lines, line]


def _pieces(command: str, width: int) -> Iterator[str]:
    """What is not parted: the command's own words, then each option with its value; longer ones word by word."""
    words: list[str] = []
    for word in [*_WORD.findall(command), ""]:
        if words and (not word or word.startswith("-")):
            whole = " ".join(words)
            yield from [whole] if len(whole) <= width else words
            words = []
        words.append(word)
