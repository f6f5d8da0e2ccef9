"""The summary for people, in the terminal: what should have happened, what did, whether they agree. Pure.

Everything here returns rich renderables or strings; only ``cli`` prints. The layout follows the width that it is given:
from :data:`WIDE` columns on a row has its columns side by side, below that a group's settings stand under its name.
Words carry the meaning and colour only repeats it, so that the same report reads well in a log, where rich drops it.
"""

from collections.abc import Iterable, Iterator
from io import StringIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from devicesim.record.facts import RunStatus
from devicesim.report import load_text
from devicesim.report.document import (
    AccountSummary,
    Expected,
    FailureSummary,
    GroupSummary,
    Held,
    OracleRow,
    Quantiles,
    Summary,
)
from devicesim.report.layout import (
    BAD,
    BETWEEN,
    DIM,
    GOOD,
    HEAD,
    WIDE,
    add_row,
    clean,
    new_table,
    seconds,
    section,
)

MOST_REASONS = 5
"""Reasons of disagreement shown for a group; the document (``--json``) has more."""
MOST_FAILURES = 12
MOST_GROUPS = 3
"""Further groups named for one cause."""


def render(summary: Summary, *, record: str | None = None) -> RenderableType:
    """The whole report. ``record`` is where the run's file is, if that is to be said."""
    parts = [header(summary), GroupTable(summary)]
    parts += section("Thresholds", load_text.thresholds(summary))
    parts += section("Did not end as expected", disagreements(summary))
    parts += section("Failed tries, by what was seen", failures(summary))
    slow = load_text.bottleneck_line(summary.generator)
    parts += section("Timings" if slow is None else "Timings, as upper bounds", timings(summary))
    parts += section("Messages", load_text.messages(summary))
    parts += section("Making the load", load_text.generator(summary))
    parts += section("Accounts", accounts(summary))
    parts += section("Why IoT Core should do so", reasons(summary))
    parts += section("Errors", errors(summary))
    parts.append(Text(""))
    parts.append(headline(summary))
    parts += [line for line in (load_text.thresholds_line(summary), load_text.load_line(summary), slow) if line]
    if record is not None:
        parts.append(Text(f"Record: {clean(record)}", overflow="fold"))
    return Group(*parts)


def as_text(summary: Summary, *, width: int, record: str | None = None) -> str:
    """The whole report without colours, for a log or a file: no line is longer than ``width`` or ends in blanks."""
    console = Console(file=StringIO(), width=width, color_system=None, highlight=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(render(summary, record=record))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def headline(summary: Summary) -> Text:
    """One line: whether all is as expected."""
    totals = summary.totals
    if not totals.devices:
        return Text("No device is on record.", style=BAD)
    if summary.agrees:
        return Text(f"{_devices(totals.devices, 'All ')} ended as expected.", style=GOOD)
    wrong = [
        f"{count} {words}"
        for count, words in (
            (totals.disagree, "ended otherwise"),
            (totals.undecided, "without a verdict"),
            (totals.not_started, "not started"),
        )
        if count
    ]
    return Text(f"{totals.agree} of {_devices(totals.devices)} ended as expected: {', '.join(wrong)}.", style=BAD)


def header(summary: Summary) -> RenderableType:
    """What ran, against what, how it ended, and how the load was made."""
    groups = len(summary.groups)
    what = f"{_devices(summary.totals.devices)} in {groups} group{'s' if groups != 1 else ''}"
    first = Text.assemble((clean(summary.fleet), HEAD), f": {what}, against {clean(_target(summary.target))}")
    second = Text(f"{_status(summary)}; {load_text.arrivals(summary)}; devicesim {summary.devicesim_version}")
    off = load_text.off_schedule(summary)
    return Group(first, second, *([Text(off, style=BAD)] if off else []))


def _target(target: str) -> str:
    return {"emulator": "the emulator", "aws": "AWS"}.get(target, target)


def _status(summary: Summary) -> str:
    took = None if summary.duration_seconds is None else seconds(summary.duration_seconds)
    if summary.status is RunStatus.FINISHED:
        return f"finished in {took}"
    if summary.status is RunStatus.RUNNING:
        return "running, or killed" + (f"; last try {took} after the start" if took else "; nothing tried yet")
    if summary.status is RunStatus.ABORTED:
        return "aborted" + (f" after {took}" if took else "") + f": {load_text.aborting(summary)}"
    return "interrupted" + (f" after {took}" if took else " before the first try")


# --- the table ---


class GroupTable:
    """``group | dials | SNI | IoT Core should | what happened | agree``, laid out for the width that there is."""

    def __init__(self, summary: Summary) -> None:
        self.summary = summary

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._wide() if options.max_width >= WIDE else self._narrow()

    def _wide(self) -> Table:
        table = new_table("group", "dials", "SNI", "IoT Core should", "what happened", "agree")
        table.leading = 1
        table.columns[3].ratio = table.columns[4].ratio = 1
        table.expand = True
        for group in self.summary.groups:
            name = Text.assemble((clean(group.name), HEAD), f"\n{_devices(group.devices)}")
            add_row(table, name, clean(group.dials), _sni(group), _should(group), _happened(group), _agree(group))
        return table

    def _narrow(self) -> Table:
        table = new_table("group", "IoT Core should", "what happened", "agree")
        table.leading = 1
        table.columns[0].ratio, table.columns[1].ratio, table.columns[2].ratio = 5, 6, 6
        table.expand = True
        for group in self.summary.groups:
            settings = f"{_devices(group.devices)}, dial {clean(group.dials)}\nSNI {_sni(group)}"
            name = Text.assemble((clean(group.name), HEAD), f"\n{settings}")
            add_row(table, name, _should(group), _happened(group), _agree(group))
        return table


def _sni(group: GroupSummary) -> str:
    chain = "" if group.chain_sent else ", chain not sent"
    kind, _, value = group.sni_setting.partition(":")
    words = {"other": f"endpoint of {value}", "literal": value}.get(kind, kind)
    return clean(words) + chain


def _should(group: GroupSummary) -> Text:
    lines = [Text(_counted(each.devices, group, each.text)) for each in group.expected]
    rows = ", ".join(dict.fromkeys(f"{each.row.id} [{each.row.mark}]" for each in group.expected))
    lines.append(Text(rows, style=DIM))
    if group.file_expects is not None:
        lines.append(Text(f"the file expects: {clean(group.file_expects.text)}"))
    return Text("\n").join(lines)


def _happened(group: GroupSummary) -> Text:
    lines = [f"{each.devices} {clean(each.text)}" for each in group.observed]
    return Text("\n".join(lines))


def _agree(group: GroupSummary) -> Text:
    if group.agrees:
        return Text("yes", style=GOOD)
    if not group.devices:
        return Text("-", style=DIM)
    word = "NO" if group.disagree else "not yet"
    return Text(f"{word}\n{group.agree} of {group.devices}", style=BAD)


def _counted(count: int, group: GroupSummary, text: str) -> str:
    """A text that holds for some devices says for how many."""
    return text if count == group.devices else f"{count} {text}"


# --- below the table ---


def disagreements(summary: Summary) -> RenderableType | None:
    """Reasons, most frequent first, each with the first devices that it holds for."""
    lines: list[RenderableType] = []
    for group in summary.groups:
        for each in group.disagreements[:MOST_REASONS]:
            lines.append(Text.assemble((clean(group.name), HEAD), f", {_devices(each.devices)}: {clean(each.reason)}"))
            named = ", ".join(f"{example.device} ({clean(example.client_id)})" for example in each.examples)
            more = ", ..." if each.devices > len(each.examples) else ""
            lines.append(Padding(Text(f"device {named}{more}", style=DIM), (0, 0, 0, 2)))
        if (hidden := len(group.disagreements) - MOST_REASONS) > 0:
            lines.append(Text(f"{clean(group.name)}: and {hidden} more reasons"))
    return Group(*lines) if lines else None


def failures(summary: Summary) -> RenderableType | None:
    """What failed tries saw, each with the likeliest causes. First drops are part of JITR and JITP, so they are counted
    apart."""
    return FailureTable(summary) if summary.failures else None


class FailureTable:
    """``what was seen | tries | first tries | devices``, and the causes of each row below it. What was seen may be
    long: it is folded into what the numbers leave of the width."""

    HEAD = ("what was seen", "tries", "first tries", "devices")
    LEAST = 10
    """Columns of a text, however narrow the terminal is."""

    def __init__(self, summary: Summary) -> None:
        self.shown = summary.failures[:MOST_FAILURES]
        self.hidden = len(summary.failures) - len(self.shown) + summary.failures_omitted
        # in a run that came to its end it was a worker that did not
        self.cut_short_by = "their process" if summary.status is RunStatus.FINISHED else "the run"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = [self._row(each) for each in self.shown]
        text, *numbers = (max(map(cell_len, lines)) for lines in _lines_of_columns([map(Text, self.HEAD), *rows]))
        left = options.max_width - sum(numbers) - BETWEEN * len(numbers)
        widths = (max(self.LEAST, min(text, left)), *numbers)
        for place, (failure, row) in enumerate(zip(self.shown, rows, strict=True)):
            # a table for each row, all with the same columns: between them stand lines of the whole width
            table = new_table(*self.HEAD, numbers=self.HEAD[1:])
            table.show_header = not place
            for column, width in zip(table.columns, widths, strict=True):
                column.width = width
            add_row(table, *row)
            yield table
            yield from _causes(failure, self.cut_short_by)
        if self.hidden:
            yield Text(f"and {self.hidden} more")

    @staticmethod
    def _row(failure: FailureSummary) -> tuple[Text, ...]:
        seen = Text.assemble(failure.text, (f"\n{clean(failure.detail)}" if failure.detail else "", DIM))
        return seen, *(Text(str(count)) for count in (failure.tries, failure.first_tries, failure.devices))


def _lines_of_columns(rows: Iterable[Iterable[Text]]) -> Iterator[list[str]]:
    for cells in zip(*rows, strict=True):
        yield [line for cell in cells for line in cell.plain.splitlines()]


def _causes(failure: FailureSummary, cut_short_by: str) -> Iterator[RenderableType]:
    """The likeliest causes of what was seen, a line each with what speaks for it below; of how many devices where it is
    not that of all."""
    for cause in failure.causes:
        share = "" if cause.devices == failure.devices else f", {cause.devices} of {_devices(failure.devices)}"
        word = "" if cause.number is None else f"likeliest cause ({cause.number} {cause.id}): "
        yield Padding(Text(f"{word}{clean(cause.text)}{share}"), (0, 0, 0, 2))
        if cause.evidence:
            first, *others = (clean(each) for each in cause.groups)
            more = ", ..." if others[MOST_GROUPS:] else ""
            also = f"; also: {', '.join(others[:MOST_GROUPS])}{more}" if others else ""
            yield Padding(Text(f"{first}: {clean(cause.evidence)}{also}", style=DIM), (0, 0, 0, 4))
    of_them = f"of {_devices(failure.devices)}"
    explained = sum(cause.devices for cause in failure.causes)
    if failure.causes and (without := failure.devices - failure.cut_short - explained) > 0:
        yield Padding(Text(f"no cause stands out, {without} {of_them}"), (0, 0, 0, 2))
    if failure.cut_short:
        yield Padding(Text(f"cut short by the end of {cut_short_by}, {failure.cut_short} {of_them}"), (0, 0, 0, 2))


def timings(summary: Summary) -> RenderableType | None:
    """Time to provision, TLS and CONNACK, per group; and how far starts fell behind their schedule."""
    table = new_table("group", "time to provision", "TLS handshake", "CONNECT to CONNACK")
    for group in summary.groups:
        whole = _quantiles(group.time_to_provision, "p50", "p95", "max")
        stages = [_quantiles(each, "p50", "p95") for each in (group.stages.tls, group.stages.connack)]
        if any((whole, *stages)):
            add_row(table, clean(group.name), whole or "-", *(each or "-" for each in stages))
    late = max((group.late_starts.max for group in summary.groups if group.late_starts is not None), default=None)
    if late is None:
        return None
    schedule = Text(f"Starts were at most {seconds(late)} behind their schedule.")
    if not table.row_count:
        return schedule
    legend = Text("median / 95 % / largest of the time to provision; median / 95 % of the others", style=DIM)
    return Group(table, legend, schedule)


def _quantiles(quantiles: Quantiles | None, *names: str) -> str:
    """In one unit, so that they compare at a glance: ``3.51 / 3.6 / 4.02 s``."""
    if quantiles is None:
        return ""
    values = [float(getattr(quantiles, name)) for name in names]
    factor, unit = (1, "s") if max(values) >= 1 else (1000, "ms")
    return " / ".join(f"{value * factor:.3g}" for value in values) + f" {unit}"


def accounts(summary: Summary) -> RenderableType | None:
    """Which account holds what now, as its control plane says."""
    if not summary.accounts:
        return None
    table = new_table("account", "Region", "CA", "provisioning", "holds now")
    for account in summary.accounts:
        name = Text(f"{clean(account.name)}\n{account.account_id}")
        ca = account.ca_mode or "not registered"
        add_row(table, name, account.region, ca, account.provisioning, _holds(account))
    return table


def _holds(account: AccountSummary) -> str:
    if account.after is None:
        return "not asked"
    template = account.provisioning == "JITP"
    return "\n".join(_held(each, template=template) for each in account.after) or "none of these devices"


def _held(held: Held, *, template: bool) -> str:
    """``template``: the account has one, which may make things."""
    mode = f" ({held.mode})" if held.mode else ""
    things = f", {'all' if held.with_thing == held.certificates else held.with_thing} with a thing"
    if 0 < held.asked_for_things < held.certificates:
        things = f", {held.with_thing} of {held.asked_for_things} asked with a thing"
    elif not held.with_thing:
        things = ", not asked for things" if template and not held.asked_for_things else ""
    return f"{held.certificates} {held.status}{mode}{things}"


def reasons(summary: Summary) -> RenderableType | None:
    """The oracle's rows that the expectations rest on, each with its evidence."""
    rows: dict[str, OracleRow] = {}
    for expected in _all_expected(summary):
        for row in (expected.row, *expected.rests_on):
            rows.setdefault(row.id, row)
    if not rows:
        return None
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for row in rows.values():
        _, _, evidence = row.source.partition(": ")
        add_row(
            table, Text(f"{row.id} [{row.mark}]"), Text.assemble(row.says, (f" ({evidence})" if evidence else "", DIM))
        )
    marks = "[D] documented, [M] measured, [S] works in practice, [I] inferred; keys: README, Evidence"
    return Group(table, Text(marks, style=DIM))


def _all_expected(summary: Summary) -> Iterator[Expected]:
    for group in summary.groups:
        yield from group.expected


def errors(summary: Summary) -> RenderableType | None:
    if not summary.errors:
        return None
    lines = [Text(clean(each), style=BAD) for each in summary.errors]
    if (hidden := summary.notes.get("error", 0) - len(lines)) > 0:
        lines.append(Text(f"and {hidden} more"))
    return Group(*lines)


# --- small things ---


def _devices(count: int, before: str = "") -> str:
    return f"{before}{count} device{'s' if count != 1 else ''}"
