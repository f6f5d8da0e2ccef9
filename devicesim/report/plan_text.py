"""A plan for people, in the terminal: what the fleet asks for, of AWS and of the machine. Pure."""

from collections.abc import Callable, Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from devicesim.report.layout import BAD, DIM, GOOD, HEAD, add_row, clean, new_table, section
from devicesim.report.plan_document import Plan, PlannedAccount, PlannedLimit


def render(plan: Plan) -> RenderableType:
    """The whole plan."""
    parts: list[RenderableType] = [header(plan), Text(""), groups(plan)]
    parts += section("What AWS allows an account by default", limits(plan))
    parts += section("What the devices need, and what this machine has", load(plan))
    parts += section("This machine alone", lacks(plan))
    parts += [Text(""), *conclusions(plan)]
    return Group(*parts)


def header(plan: Plan) -> RenderableType:
    schedule = plan.schedule
    many = len(plan.groups)
    first = Text.assemble((clean(plan.fleet), HEAD), f": {plan.devices:,} devices in {many} group{_s(many)}, a plan")
    about = "about " if schedule.estimated else ""
    second = f"{schedule.description}; the last device starts after {about}{span(schedule.seconds)}"
    third = f"{plan.connections:,} connections, {about}{_number(schedule.connects_per_second)}/s at most"
    if schedule.hold_seconds:
        third += f"; held {span(schedule.hold_seconds)}"
    return Group(first, Text(second), Text(third))


def groups(plan: Plan) -> RenderableType:
    table = new_table("group", "account", "should end", "devices", "tries", "at once", numbers=_NUMBERS)
    for each in plan.groups:
        row = (each.outcome, f"{each.devices:,}", str(each.tries), f"{each.connected:,}")
        add_row(table, clean(each.name), clean(each.counts_in), *row)
    return table


_NUMBERS = ("devices", "tries", "at once", "asked", "default", "ask for", "takes", "needed", "has")


def limits(plan: Plan) -> RenderableType:
    """Each account's, as far as the fleet uses them."""
    table = new_table("account, limit", "asked", "default", "ask for", "takes", numbers=_NUMBERS)
    for account in plan.accounts:
        add_row(table, Text(clean(account.name), style=HEAD))
        for each in account.limits:
            takes = "" if each.least_seconds is None else span(each.least_seconds)
            binds = HEAD if each.name == account.binding else ""
            style = BAD if each.exceeded else ""
            add_row(
                table,
                Text(f"  {each.name}", style=binds),
                Text(_amount(each, each.needed), style=style),
                _amount(each, each.default),
                Text(_amount(each, each.ask_for), style=style),
                Text(takes, style=binds),
            )
    legend = (
        "asked: at the schedule's peak, at most; takes: all requests at the default rate. List operations are used "
        "when a run asks the account afterwards. These are AWS's defaults of 2019: Service Quotas knows your account's."
    )
    return Group(table, Text(legend, style=DIM))


def load(plan: Plan) -> RenderableType:
    """Of the machine, or machines, with the devices."""
    need, here, costs = plan.load, plan.machine, plan.costs
    table = new_table("", "needed", "has", "", numbers=_NUMBERS)
    connection = f"{costs.connection_cpu_seconds * 1000:.3g} ms a connection"
    parts = f"{_bytes(need.memory_processes)} processes, {_bytes(need.memory_devices)} devices under way"
    asking = f"; {_bytes(need.memory_asking)} asking afterwards" if need.memory_asking > need.memory_devices else ""
    slow = f"a process; {need.open_files_if_slow:,} if the target is slow"
    ports = f"to one address; kept {costs.time_wait_seconds:.0f} s after a close"
    for what, needed, has, why in (
        ("cores", _number(need.cores), str(here.cores), connection),
        ("processes", f"{need.processes:,}", "", f"each to {costs.busy * 100:.0f} % of a core at most"),
        ("memory", _bytes(need.memory), _known(here.memory, _bytes), parts + asking),
        ("open files", f"{need.open_files:,}", _known(here.open_files), slow),
        ("local ports", f"{need.ports:,}", _known(here.ports), ports),
        ("source addresses", f"{need.sources:,}", "", "of so many ports each"),
    ):
        add_row(table, what, needed, has, Text(why, style=DIM))
    return table


def lacks(plan: Plan) -> RenderableType | None:
    lines: list[RenderableType] = []
    for each in plan.lacks:
        lines.append(Text.assemble((f"{each.kind}: ", HEAD), clean(each.text)))
        lines.append(Padding(Text(clean(each.hint), style=DIM), (0, 0, 0, 2)))
    return Group(*lines) if lines else None


def conclusions(plan: Plan) -> Iterator[RenderableType]:
    """What to do about it, in a few lines."""
    for account in plan.accounts:
        if account.binding is not None:
            yield Text(_binds(account))
    if plan.rate_within_limits is not None:
        yield Text(
            f"At this pace AWS throttles by its defaults: ask for more, or take --rate {floor_rate(plan)}/s.", style=BAD
        )
    elif any(each.exceeded for account in plan.accounts for each in account.limits):
        yield Text("More is asked than AWS allows by default: ask for more.", style=BAD)
    else:
        yield Text("AWS's default limits keep the schedule.", style=GOOD)
    refused = any(each.certain for each in plan.lacks)
    if refused:
        yield Text("This machine alone cannot make the load.", style=BAD)
    elif plan.lacks:
        yield Text("This machine alone may fall behind.", style=BAD)
    else:
        yield Text("This machine can make the load.", style=GOOD)


def _binds(account: PlannedAccount) -> str:
    text = f"{clean(account.name)}: {account.binding} binds, {span(account.least_seconds)} at the least"
    if account.least_seconds_asking:
        text += f"; then {span(account.least_seconds_asking)} to ask what it holds"
    return text + "."


def floor_rate(plan: Plan) -> str:
    """The rate that keeps within the limits, in three digits, rounded down."""
    rate = plan.rate_within_limits or 0.0
    digits = 0
    while rate * 10**digits < 100 and digits < 6:
        digits += 1
    return f"{int(rate * 10**digits + 1e-6) / 10**digits:.10g}"


def span(seconds: float) -> str:
    """A time for people who plan: ``12 s``, ``16 min 40 s``, ``27 h 46 min``, ``5 d 18 h``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for size, unit, smaller, small in ((60, "min", 1, "s"), (3600, "h", 60, "min"), (86_400, "d", 3600, "h")):
        if whole < size * {60: 60, 3600: 48}.get(size, 10**9):
            count, rest = divmod(whole, size)
            return f"{count:,} {unit} {rest // smaller} {small}" if rest // smaller else f"{count:,} {unit}"
    raise AssertionError(seconds)


def _amount(limit: PlannedLimit, value: float | None) -> str:
    if value is None:
        return ""
    text = _bytes(value) if limit.bytes else _number(value)
    return text if limit.at_once else f"{text}/s"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(count: float) -> str:
    """``55 KiB``, ``2.6 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def _known(value: int | None, show: Callable[[int], str] = "{:,}".format) -> str:
    return "not known" if value is None else show(value)


def _s(count: int) -> str:
    return "" if count == 1 else "s"
