"""What a run must keep: the ``[thresholds]`` section of a fleet file. Pure; the grammar is k6's
(:mod:`devicesim.record.thresholds`).
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from devicesim.errors import Problem
from devicesim.fleet.fields import Model, Seconds
from devicesim.record.thresholds import Threshold, mismatch, parse_expression, parse_metric

SPELLINGS = {"abortOnFail": "abort_on_fail", "delayAbortEval": "delay_abort_eval"}
"""k6's keys, and ours."""


def _expression(text: str) -> str:
    parse_expression(text)
    return text


def _metric(text: str) -> str:
    parse_metric(text)
    return text


def _whole(value: object) -> object:
    """The long form of an expression that stands alone."""
    if isinstance(value, str):
        return {"threshold": _expression(value)}
    if not isinstance(value, Mapping | ThresholdTable):
        raise ValueError("expected an expression, or a table with 'threshold'")  # noqa: TRY004  # pydantic's protocol
    return value


def _listed(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError("a list is expected, such as ['rate>0.99']")  # noqa: TRY004  # pydantic's protocol
    return value


class ThresholdTable(Model):
    """A threshold in its long form."""

    threshold: Annotated[str, AfterValidator(_expression)]
    """Such as `p(95)<5s`, `rate>0.99`, `count==0`."""
    abort_on_fail: bool = False
    """End the run as soon as it does not hold."""
    delay_abort_eval: Seconds = 0.0
    """Seconds from the first start before it may end the run, such as `"10s"`."""


Thresholds = dict[
    Annotated[str, AfterValidator(_metric)],
    Annotated[
        tuple[Annotated[ThresholdTable, BeforeValidator(_whole, json_schema_input_type=str | ThresholdTable)], ...],
        BeforeValidator(_listed, json_schema_input_type=list[str | ThresholdTable]),
    ],
]
"""By metric, with or without tags: ``connect_seconds{group:robots}``."""


def thresholds_of(section: Thresholds) -> tuple[Threshold, ...]:
    """In the order of the file."""
    return tuple(
        Threshold.parse(metric, each.threshold, abort_on_fail=each.abort_on_fail, delay=each.delay_abort_eval)
        for metric, listed in section.items()
        for each in listed
    )


def threshold_problems(raw: object, accounts: Mapping[str, Any], groups: Mapping[str, Any]) -> Iterator[Problem]:
    """What does not fit together in the section as TOML has it: metrics and expressions, tags and names. What is wrong
    by itself the schema reports."""
    for text, listed in raw.items() if isinstance(raw, Mapping) else ():
        try:
            selector = parse_metric(text)
        except ValueError:
            continue
        for tag, name, known in (("account", selector.account, accounts), ("group", selector.group, groups)):
            if name is not None and name not in known:
                names = ", ".join(repr(each) for each in known) or "none"
                yield Problem(f"thresholds.{text}", f"{name!r} is not {_an(tag)} of this file; known: {names}")
        for place, each in enumerate(listed if isinstance(listed, list) else ()):
            where, table = f"thresholds.{text}.{place}", {"threshold": each} if isinstance(each, str) else each
            if not isinstance(table, Mapping):
                continue
            try:
                wrong = mismatch(selector.metric, parse_expression(str(table.get("threshold"))))
            except ValueError:
                wrong = ""
            if wrong:
                yield Problem(where, f"{table['threshold']!r} does not fit: {wrong}")
            aborts = table.get("abort_on_fail") is True
            if aborts and selector.metric.at_end:
                yield Problem(f"{where}.abort_on_fail", f"{selector.metric.name} is known at the end of the run only")
            if "delay_abort_eval" in table and not aborts and "abortOnFail" not in table:
                yield Problem(f"{where}.delay_abort_eval", "is for a threshold with abort_on_fail = true")


def _an(tag: str) -> str:
    return f"an {tag}" if tag == "account" else f"a {tag}"
