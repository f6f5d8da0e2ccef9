"""A conformance check for people, in the terminal: by account and server name, then by row of the oracle. Pure."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from devicesim.conformance.result import CaseResult, CheckResult, Status
from devicesim.report.junit import ORACLE_WRONG
from devicesim.report.layout import BAD, DIM, GOOD, HEAD, WIDE, add_row, clean, new_table, seconds, section

MOST_SHOWN = 20
"""Cases listed that do not agree; ``--json`` and ``--junit`` have them all."""
_ID = re.compile("[0-9a-f]{64}")
MOST_OUTCOMES = 4
"""Different outcomes that a line of the table tells apart."""


def render(result: CheckResult) -> RenderableType:
    parts: list[RenderableType] = [header(result), Places(result)]
    parts += section("By row of the truth table", rows(result))
    parts += section("Disagreements", wrong(result, Status.DISAGREES))
    parts += section(
        f"Inferred rows that these accounts contradict: {ORACLE_WRONG}", wrong(result, Status.ORACLE_WRONG)
    )
    parts += section("Could not be set up or asked", reasons(result, Status.FAILED))
    parts += section("Skipped", reasons(result, Status.SKIPPED))
    parts += section("Notes", notes(result))
    parts += [Text(""), headline(result)]
    return Group(*parts)


def header(result: CheckResult) -> RenderableType:
    count = len({case.account for case in result.cases})
    accounts = f"{count} account{'s' if count != 1 else ''}"
    target = {"emulator": "the emulator", "aws": "AWS"}.get(result.target, result.target)
    first = Text.assemble(("check", HEAD), f": {_cases(len(result.cases))}, dialling {accounts} of {clean(target)}")
    return Group(first, Text(f"finished in {seconds(result.seconds)}; devicesim {result.version}"))


def headline(result: CheckResult) -> Text:
    """One line: whether all that ran agrees."""
    counts = {status: result.count(status) for status in Status}
    ran = len(result.cases) - counts[Status.SKIPPED] - counts[Status.FAILED]
    words = [f"{counts[Status.AGREES]} of {ran} cases agree with the oracle"]
    words += [f"{counts[Status.DISAGREES]} disagree"] * bool(counts[Status.DISAGREES])
    words += [f"{counts[Status.ORACLE_WRONG]} where {ORACLE_WRONG}"] * bool(counts[Status.ORACLE_WRONG])
    words += [f"{counts[Status.FAILED]} not known"] * bool(counts[Status.FAILED])
    words += [f"{counts[Status.SKIPPED]} skipped"] * bool(counts[Status.SKIPPED])
    if not ran:
        words[0] = "No case could run"
    return Text(", ".join(words) + ".", style=GOOD if result.agrees else BAD)


class Places:
    """``account | SNI | cases | IoT Core should | what happened | agree``, laid out for the width that there is."""

    def __init__(self, result: CheckResult) -> None:
        by_account = _grouped(result.cases, lambda case: (case.account,))
        together = [case for cases in by_account.values() for case in cases]
        self.lines = _grouped(together, lambda case: (case.account, case.sni))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= WIDE
        names = ("account", "SNI") if wide else ("account, SNI",)
        made = new_table(*names, "cases", "IoT Core should", "what happened", "agree", numbers=("cases",))
        made.columns[len(names) + 1].ratio, made.columns[len(names) + 2].ratio = (1, 1) if wide else (7, 5)
        made.columns[0].ratio = None if wide else 6
        made.expand = True
        made.leading = 1
        before = ""
        for (account, sni), cases in self.lines.items():
            named = Text(clean(account) if account != before else "", style=HEAD)
            cells = (named, clean(sni)) if wide else (Text.assemble((clean(account), HEAD), f"\n{clean(sni)}"),)
            add_row(made, *cells, _ran(cases), *_both(cases), _agree(cases))
            before = account
        yield made


def _ran(cases: Sequence[CaseResult]) -> str:
    """How many there are, and how many of them ran when not all did."""
    ran = sum(case.observed is not None for case in cases)
    return str(len(cases)) if ran in (0, len(cases)) else f"{ran} of {len(cases)}"


def _both(cases: Sequence[CaseResult]) -> tuple[str, str]:
    """What should have happened, and what did: of the cases that ran, if any did."""
    ran = [case for case in cases if case.observed is not None]
    if not ran:
        return _outcomes(case.expected for case in cases), "-"
    should, happened = _outcomes(case.expected for case in ran), _outcomes(case.observed or "" for case in ran)
    same = should == happened and all(case.status is Status.AGREES for case in ran)
    return should, "the same" if same else happened


def rows(result: CheckResult) -> RenderableType:
    """Each row of the oracle that decides a case, with its evidence mark and how its cases came out."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(justify="right", no_wrap=True)
    made.add_column(ratio=1)
    for _, cases in sorted(_grouped(result.cases, lambda case: (case.row.id,)).items()):
        row = cases[0].row
        add_row(made, Text(f"{row.id} [{row.mark}]"), _agree(cases, short=True), Text(row.says, style=DIM))
    marks = "[D] documented, [M] measured, [S] works in practice, [I] inferred; keys: README, Evidence"
    return Group(made, Text(marks, style=DIM))


def wrong(result: CheckResult, status: Status) -> RenderableType | None:
    """Cases that do not agree, those of a row together, the first of each row in full."""
    cases = [case for case in result.cases if case.status is status]
    lines: list[RenderableType] = []
    for _, alike in sorted(_grouped(cases, lambda case: (case.row.id, case.reason)).items()):
        if len(lines) >= MOST_SHOWN:
            break
        lines.append(_one(alike[0], len(alike) - 1))
    hidden = len(_grouped(cases, lambda case: (case.row.id, case.reason))) - len(lines)
    if hidden > 0:
        lines.append(Text(f"and {hidden} more kinds; --json and --junit have every case"))
    return Group(*lines) if lines else None


def _one(case: CaseResult, more: int) -> RenderableType:
    ended = ", ".join(f"{each.account} {each.status}" for each in case.ended) or "nowhere"
    also = f" and {more} more like it" if more else ""
    inferred = [f"{row.id} [{row.mark}]" for row in case.rests_on if row.inferred]
    rests = f", resting on {', '.join(inferred)}" if inferred and case.status is Status.ORACLE_WRONG else ""
    lines = (
        f"{case.row.id} [{case.row.mark}]{rests}: {clean(case.reason)}",
        f"sent {clean(case.server_name or 'no SNI')}; {_tries(case)}; certificate on record: {clean(ended)}",
    )
    return Group(Text.assemble((clean(case.name), HEAD), also), Padding(Text("\n".join(lines)), (0, 0, 0, 2)))


def _tries(case: CaseResult) -> str:
    """What the tries saw, those alike in a row together: ``10 tries: closed before CONNACK``."""
    runs = [(words, len(list(alike))) for words, alike in groupby(case.tries)]
    return ", ".join(f"{count} {'try' if count == 1 else 'tries'}: {words}" for words, count in runs) or "no try"


def reasons(result: CheckResult, status: Status) -> RenderableType | None:
    """Why cases did not run, the most frequent reason first."""
    told = _alike(case.reason for case in result.cases if case.status is status)
    lines = [Text(f"{_cases(count)}: {clean(reason)}") for reason, count in told[:MOST_SHOWN]]
    if len(told) > MOST_SHOWN:
        lines.append(Text(f"and {len(told) - MOST_SHOWN} more reasons"))
    return Group(*lines) if lines else None


def notes(result: CheckResult) -> RenderableType | None:
    told = _alike(result.notes)
    lines = [
        Text(clean(each) + (f" ({count} times)" if count > 1 else ""), style=BAD) for each, count in told[:MOST_SHOWN]
    ]
    if len(told) > MOST_SHOWN:
        lines.append(Text(f"and {len(told) - MOST_SHOWN} more"))
    return Group(*lines) if lines else None


def _alike(texts: Iterable[str]) -> list[tuple[str, int]]:
    """Each text with how often it is told, the most frequent first; certificates' ids, by which they differ, left out
    of those that are told more than once."""
    found: dict[str, list[str]] = {}
    for text in texts:
        found.setdefault(_ID.sub("...", text), []).append(text)
    counted = [(same[0] if len(same) == 1 else short, len(same)) for short, same in found.items()]
    return sorted(counted, key=lambda each: -each[1])


def _cases(count: int) -> str:
    return f"{count} case{'s' if count != 1 else ''}"


def _grouped(
    cases: Iterable[CaseResult], key: Callable[[CaseResult], tuple[str, ...]]
) -> dict[tuple[str, ...], list[CaseResult]]:
    groups: dict[tuple[str, ...], list[CaseResult]] = {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)
    return groups


def _outcomes(texts: Iterable[str]) -> str:
    """``210 provisioned in a, 102 refused``: without the modes, which the rows tell."""
    counts = Counter(text.partition(" (")[0] for text in texts)
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(common) == 1:
        return clean(common[0][0])
    lines = [f"{count} {clean(text)}" for text, count in common[:MOST_OUTCOMES]]
    rest = sum(count for _, count in common[MOST_OUTCOMES:])
    return "\n".join(lines + [f"{rest} otherwise"] * bool(rest))


def _agree(cases: Sequence[CaseResult], *, short: bool = False) -> Text:
    ran = [case for case in cases if case.status not in (Status.SKIPPED, Status.FAILED)]
    agree = sum(case.status is Status.AGREES for case in ran)
    if not ran:
        return Text("not known" if any(case.status is Status.FAILED for case in cases) else "skipped", style=DIM)
    if agree == len(ran):
        return Text(f"{agree} of {agree}" if short else "yes", style=GOOD)
    return Text(f"{agree} of {len(ran)}" if short else f"NO\n{agree} of {len(ran)}", style=BAD)
