"""A check for people and for machines."""

import json
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from devicesim.conformance.result import CheckResult
from devicesim.report.conformance_document import CheckDocument, document
from devicesim.report.conformance_text import render
from tests.conformance_check_support import (
    AGREEING,
    DISAGREEING,
    FAILED,
    ORACLE_WRONG,
    SKIPPED,
    case,
    check,
    result,
    seen,
    tried,
)
from tests.schema_support import faults

EVERYTHING = check(AGREEING, DISAGREEING, ORACLE_WRONG, SKIPPED, FAILED, notes=("a: policy 'p' is left: \x1b[2J",))


def text(result: CheckResult, width: int) -> str:
    console = Console(file=StringIO(), width=width, color_system=None, highlight=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(render(result))
    return capture.get()


def flat(result: CheckResult, width: int) -> str:
    """Without line breaks, which differ with the width."""
    return " ".join(text(result, width).split())


@pytest.mark.parametrize("width", [80, 140])
def test_everything_is_told_at_every_width(width: int) -> None:
    printed = flat(EVERYTHING, width)

    assert "check: 5 cases, dialling 2 accounts of the emulator" in printed
    assert (
        "1 of 3 cases agree with the oracle, 1 disagree, 1 where the oracle is wrong here, 1 not known, 1 skipped."
        in (printed)
    )
    assert "Disagreements C1-jitp/new/a-own" in printed
    assert "the oracle is wrong here C1-jitp/new/a-none" in printed
    assert "10b.C1.none.chain [D/I]" in printed
    assert "1 case: needs a third account in us-east-1" in printed
    assert "policy 'p' is left: \\x1b[2J" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("width", [80, 140])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(len(line) for line in text(EVERYTHING, width).splitlines()) <= width


def test_what_agrees_is_said_once() -> None:
    printed = flat(check(AGREEING), 140)

    assert "endpoint of b 1 provisioned in b the same yes" in printed
    assert printed.endswith("1 of 1 cases agree with the oracle.")
    assert "Disagreements" not in printed


def test_account_s_lines_stand_together_and_say_how_many_of_its_cases_ran() -> None:
    skipped = replace(SKIPPED, account="a", sni=DISAGREEING.sni)
    printed = text(check(AGREEING, SKIPPED, DISAGREEING, skipped), 140).splitlines()

    (of_a,) = (number for number, line in enumerate(printed) if line.startswith("a "))
    (of_x,) = (number for number, line in enumerate(printed) if line.startswith("x "))
    (own,) = (number for number, line in enumerate(printed) if "1 of 2" in line and "own endpoint" in line)
    assert of_a < own < of_x


def test_cases_that_got_each_other_s_outcome_are_not_the_same() -> None:
    swapped = [
        replace(DISAGREEING, expected=expected, observed=observed)
        for expected, observed in (("refused", "provisioned in a"), ("provisioned in a", "refused"))
    ]

    assert "the same" not in flat(check(*swapped), 140)


def test_notes_that_differ_by_an_id_alone_are_told_once() -> None:
    left = [f"certificate {number:064x} is left: no" for number in range(30)]
    printed = flat(check(AGREEING, notes=(*left, f"CA {5:064x} is left")), 140)

    assert "certificate ... is left: no (30 times)" in printed
    assert f"CA {5:064x} is left" in printed


def test_inferred_rows_that_a_contradicted_one_rests_on_are_named() -> None:
    over_443 = result(case("C1-jitp/new/a-own", transport="tls1.3-mqtt3.1.1-443"), seen(tried()), real=True)

    assert "10b.C1.sA [D+M], resting on 4.3.jit-443 [I]: expected" in flat(check(over_443), 140)


def test_check_in_which_nothing_ran_says_so() -> None:
    assert flat(check(SKIPPED), 80).endswith("No case could run, 1 skipped.")


def test_document_has_every_case_and_counts_them() -> None:
    made = document(EVERYTHING)

    assert CheckDocument.model_validate_json(made.to_json()) == made
    assert faults("check", json.loads(made.to_json())) == []
    assert made.totals.model_dump() == {
        "cases": 5,
        "agree": 1,
        "disagree": 1,
        "oracle_wrong": 1,
        "skipped": 1,
        "failed": 1,
    }
    parsed = json.loads(made.to_json())["cases"][0]
    assert parsed["name"] == "C3-jitp/new/a-other-b/tls1.3-mqtt3.1.1-8883"
    assert parsed["ended"] == [{"account": "b", "status": "ACTIVE", "mode": "SNI_ONLY", "things": ["thing"]}]
    assert parsed["row"]["mark"] == "D/I"
    assert not made.agrees
