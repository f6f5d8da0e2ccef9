"""The parts of a run's report that are about the load: thresholds, how starts kept their schedule, messages, and what
making it cost. Pure.
"""

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.text import Text

from devicesim.record.metrics import MetricType
from devicesim.record.thresholds import parse_expression, parse_metric
from devicesim.report.document import Generator, ProcessSummary, Quantiles, Starts, Summary, ThresholdSummary
from devicesim.report.layout import BAD, DIM, GOOD, add_row, clean, new_table, seconds

MIB = 1024 * 1024


# --- thresholds ---


class Thresholds:
    """As k6 prints them: by metric, a tick or a cross, the expression, what was measured."""

    def __init__(self, summary: Summary) -> None:
        self.summary = summary

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        tick, cross = ("yes", "NO ") if options.ascii_only else ("✓", "✗")
        listed = self.summary.thresholds
        width = max(cell_len(clean(each.expression)) for each in listed)
        slow = self.summary.generator is not None and self.summary.generator.bottleneck
        metric = None
        for each in listed:
            if each.metric != metric:
                metric = each.metric
                yield Text(clean(metric))
            mark = (tick, GOOD) if each.ok else (cross, BAD)
            expression = clean(each.expression)
            blanks = " " * (width - cell_len(expression) + 2)
            line = Text.assemble(mark, f" {expression}{blanks}", _measured(each, upper_bound=slow))
            yield Padding(line, (0, 0, 0, 2), expand=False)


def thresholds(summary: Summary) -> RenderableType | None:
    return Thresholds(summary) if summary.thresholds else None


def _measured(threshold: ThresholdSummary, *, upper_bound: bool) -> str:
    words = []
    if threshold.value is None:
        words.append("no samples")
    else:
        words.append(f"{threshold.aggregation}={value_text(threshold)}")
        own = parse_metric(threshold.metric).metric.name == "late_seconds"  # of the generator, not of the target
        if upper_bound and threshold.type is MetricType.TREND and not own:
            words.append("an upper bound")
    if threshold.aborted:
        words.append("ended the run")
    return ", ".join(words)


def value_text(threshold: ThresholdSummary) -> str:
    """What was measured, in as many digits as tell it from the value that it is held against."""
    value = threshold.value
    if value is None:
        return "-"
    match threshold.type, threshold.aggregation:
        case MetricType.TREND, _:
            limit = parse_expression(threshold.expression).value
            same = value != limit and seconds(value) == seconds(limit)
            return f"{value:.6g} s" if same else seconds(value)
        case MetricType.RATE, _:
            return f"{100 * value:.2f} %" if round(value, 4) == value else f"{100 * value:.6g} %"
        case MetricType.COUNTER, "rate":
            return f"{value:.6g}/s"
    return f"{value:.0f}"


def thresholds_line(summary: Summary) -> Text | None:
    """One line: whether all were met."""
    listed = summary.thresholds
    if not listed:
        return None
    if summary.thresholds_met:
        return Text(f"{_counted(len(listed), 'threshold')} met.", style=GOOD)
    missed = sum(not each.ok for each in listed)
    return Text(f"{missed} of {_counted(len(listed), 'threshold')} not met.", style=BAD)


def aborting(summary: Summary) -> str:
    """The threshold that ended the run, in words."""
    for each in summary.thresholds:
        if each.aborted:
            return f"{clean(each.metric)} did not keep {clean(each.expression)}"
    return "a threshold was crossed"


# --- starts ---


def arrivals(summary: Summary) -> str:
    """How the load was made: ``open arrivals at 50 starts/s``, ``closed arrivals, 20 at a time``."""
    words = f"{summary.arrival} arrivals"
    if summary.rate is not None:
        words += f" at {summary.rate:g} starts/s"
    elif summary.schedule:
        words += f", {clean(summary.schedule).removeprefix(f'{summary.arrival}, ')}"
    return words


def off_schedule(summary: Summary) -> str:
    """Which starts did not keep the schedule; empty where all did."""
    starts = summary.totals.starts
    return ", ".join(_off(starts, summary.late_after_seconds))


def _off(starts: Starts, late_after: float) -> Iterator[str]:
    if starts.late:
        yield f"{starts.late} of {_counted(starts.made, 'start')} more than {seconds(late_after)} late"
    if starts.dropped:
        yield f"{_counted(starts.dropped, 'start')} dropped"


_DROPPED_HINT = "raise arrival.max_under_way, or start fewer devices while the target is slow"
_DROPPED_HINT_WORKERS = f"see Errors for a worker that was lost; else {_DROPPED_HINT}"


def _of_workers(summary: Summary) -> bool:
    """Whether starts may have been dropped because a worker was lost: then an error says so."""
    return bool(summary.errors) and summary.generator is not None and len(summary.generator.processes) > 1


def load_line(summary: Summary) -> Text | None:
    """One line when the load asked for was not made."""
    if summary.load_generated:
        return None
    hints = []
    if summary.totals.starts.late:
        hints.append("ask for a lower rate on this machine")
    if summary.totals.starts.dropped:
        hints.append(_DROPPED_HINT_WORKERS if _of_workers(summary) else _DROPPED_HINT)
    forgiven = f"{100 * summary.late_tolerance:g} % of a group's"
    told = f"The load asked for was not made: {off_schedule(summary)}; {forgiven} are forgiven."
    return Text(f"{told} {'; or '.join(hints).capitalize()}.", style=BAD)


# --- messages ---


def messages(summary: Summary) -> RenderableType | None:
    """Published, acknowledged, lost, per group."""
    listed = [(group.name, group.messages) for group in summary.groups if group.messages is not None]
    if not listed or summary.totals.messages is None:
        return None
    table = new_table("group", "published", "acknowledged", "lost", numbers=("published", "acknowledged", "lost"))
    if len(listed) > 1:
        listed.append(("all", summary.totals.messages))
    for name, each in listed:
        counts = ("-" if count is None else str(count) for count in (each.published, each.acknowledged, each.lost))
        add_row(table, clean(name), *counts)
    return table


# --- the load generator ---


def generator(summary: Summary) -> RenderableType | None:
    """What making the load cost, a line a process."""
    cost = summary.generator
    if cost is None:
        return None
    table = new_table("process", "starts", "CPU", "event loop late", "memory", numbers=("starts", "memory"))
    for process in cost.processes:
        memory = f"{process.rss_peak_bytes / MIB:.0f} MiB"
        add_row(table, clean(process.name), str(process.starts), _cpu(process), _lag(process.lag), memory)
    legend = "CPU of one core: mean, largest in a second, while devices were started; late: median / 99 % / largest"
    return Group(table, Text(legend, style=DIM))


def _cpu(process: ProcessSummary) -> str:
    shares = (process.cpu_mean, process.cpu_peak, process.cpu_starting)
    return " / ".join("-" if share is None else f"{100 * share:.0f}" for share in shares) + " %"


def _lag(lag: Quantiles | None) -> str:
    if lag is None:
        return "-"
    return " / ".join(f"{1000 * value:.3g}" for value in (lag.p50, lag.p99, lag.max)) + " ms"


def bottleneck_line(cost: Generator | None) -> Text | None:
    """One line when this machine set the pace."""
    if cost is None or not cost.bottleneck:
        return None
    told = f"The load generator was the bottleneck, not the target: {clean(cost.reason)}. Times are upper bounds."
    return Text(told, style=BAD)


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' if count != 1 else ''}"
