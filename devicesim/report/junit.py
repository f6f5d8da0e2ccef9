"""A conformance check as JUnit XML, for whatever shows a CI job's tests: suite = account, case = row. Pure.

The dialect is the one that Jenkins, GitLab and GitHub's reporters read (the xUnit plugin's ``junit-10.xsd``): a test
case has at most one of ``failure`` (it does not agree), ``error`` (nothing is known) and ``skipped``.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from devicesim.conformance.result import CaseResult, CheckResult, Status

ORACLE_WRONG = "the oracle is wrong here"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write (§2.2): a peer's words may hold it."""
_WRONG = (Status.DISAGREES, Status.ORACLE_WRONG)


def junit(result: CheckResult) -> str:
    """The document, with its declaration."""
    suites = ET.Element("testsuites", {"name": "devicesim check", **_counts(result.cases)})
    del suites.attrib["skipped"]  # the schema has it in a suite alone
    when = datetime.fromtimestamp(result.started_at, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    for account in dict.fromkeys(case.account for case in result.cases):
        cases = [case for case in result.cases if case.account == account]
        suite = ET.SubElement(suites, "testsuite", {"name": _text(account), "timestamp": when, **_counts(cases)})
        for case in cases:
            _add(suite, case)
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def _counts(cases: Sequence[CaseResult]) -> dict[str, str]:
    return {
        "tests": str(len(cases)),
        "failures": str(sum(case.status in _WRONG for case in cases)),
        "errors": str(sum(case.status is Status.FAILED for case in cases)),
        "skipped": str(sum(case.status is Status.SKIPPED for case in cases)),
        "time": f"{sum(case.seconds or 0.0 for case in cases):.3f}",
    }


def _add(suite: ET.Element, case: CaseResult) -> None:
    names = {"classname": case.row.id, "name": case.name, "time": f"{case.seconds or 0.0:.3f}"}
    test = ET.SubElement(suite, "testcase", names)
    match case.status:
        case Status.DISAGREES:
            ET.SubElement(test, "failure", type="device", message=_text(case.reason)).text = _text(_details(case))
        case Status.ORACLE_WRONG:
            message = _text(f"{ORACLE_WRONG}: {case.reason}")
            ET.SubElement(test, "failure", type="oracle", message=message).text = _text(_details(case))
        case Status.FAILED:
            ET.SubElement(test, "error", type="setup", message=_text(case.reason)).text = _text(_details(case))
        case Status.SKIPPED:
            ET.SubElement(test, "skipped", message=_text(case.reason))
    if case.status not in (Status.SKIPPED, Status.FAILED):
        ET.SubElement(test, "system-out").text = _text(_details(case))


def _details(case: CaseResult) -> str:
    ended = ", ".join(f"{each.account}: {each.status}{f' ({each.mode})' if each.mode else ''}" for each in case.ended)
    lines = {
        "expected": case.expected,
        "observed": case.observed or "-",
        "certificate": ended or "on record nowhere",
        "server name": case.server_name or "none",
        "tries": ", ".join(case.tries) or "-",
        "row": f"{case.row.id} [{case.row.mark}] {case.row.says}",
        "source": case.row.source,
        "rests on": ", ".join(f"{row.id} [{row.mark}]" for row in case.rests_on) or "-",
    }
    return "\n".join(f"{name}: {text}" for name, text in lines.items())


def _text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
