"""JUnit XML of a check: suite = account, case = row."""

from xml.etree import ElementTree as ET

from devicesim.report.junit import junit
from tests.conformance_check_support import AGREEING, DISAGREEING, FAILED, ORACLE_WRONG, SKIPPED, check

DOCUMENT = junit(check(AGREEING, DISAGREEING, ORACLE_WRONG, SKIPPED, FAILED))


def suites() -> ET.Element:
    return ET.fromstring(DOCUMENT)


def case_named(name: str) -> ET.Element:
    (found,) = (each for each in suites().iter("testcase") if each.get("name") == name)
    return found


def test_counts_are_those_of_the_cases() -> None:
    root = suites()

    assert root.tag == "testsuites"
    counts = {"tests": 5, "failures": 2, "errors": 1, "skipped": 1}
    assert {name: sum(int(suite.get(name, 0)) for suite in root) for name in counts} == counts
    assert {name: root.get(name) for name in ("tests", "failures", "errors")} == {
        name: str(counts[name]) for name in ("tests", "failures", "errors")
    }


def test_nothing_is_said_that_the_schema_does_not_have() -> None:
    """Jenkins' xUnit plugin refuses a report that is not valid (junit-10.xsd)."""
    allowed = {
        "testsuites": {"name", "time", "tests", "failures", "errors"},
        "testsuite": {"name", "time", "tests", "failures", "errors", "skipped", "timestamp"},
        "testcase": {"name", "time", "classname"},
        "failure": {"type", "message"},
        "error": {"type", "message"},
        "skipped": {"message"},
        "system-out": set[str](),
    }

    for element in suites().iter():
        assert set(element.attrib) <= allowed[element.tag], element.tag
    for case in suites().iter("testcase"):
        assert len([each for each in case if each.tag != "system-out"]) <= 1


def test_a_suite_is_an_account_and_a_case_carries_its_row() -> None:
    assert [suite.get("name") for suite in suites()] == ["a", "x"]
    assert case_named(AGREEING.name).get("classname") == "10b.C3.sB"
    assert [each.tag for each in case_named(AGREEING.name)] == ["system-out"]
    told = case_named(AGREEING.name).findtext("system-out") or ""
    assert "expected: provisioned in b (SNI_ONLY, thing)" in told
    assert "certificate: b: ACTIVE (SNI_ONLY)" in told
    assert "row: 10b.C3.sB [D/I]" in told


def test_what_is_wrong_is_a_failure_of_the_device_or_of_the_oracle() -> None:
    device, oracle = (case_named(each.name).find("failure") for each in (DISAGREEING, ORACLE_WRONG))

    assert device is not None
    assert oracle is not None
    assert (device.get("type"), oracle.get("type")) == ("device", "oracle")
    assert str(oracle.get("message")).startswith("the oracle is wrong here: ")
    assert "expected provisioned in a" in str(device.get("message"))


def test_what_did_not_run_is_skipped_or_an_error() -> None:
    skipped, failed = case_named(SKIPPED.name).find("skipped"), case_named(FAILED.name).find("error")

    assert skipped is not None
    assert failed is not None
    assert skipped.get("message") == "needs a third account in us-east-1"
    assert failed.get("type") == "setup"


def test_words_that_xml_cannot_hold_are_replaced() -> None:
    assert "\x1b" not in DOCUMENT
    assert "\x00" not in DOCUMENT
    assert DOCUMENT.startswith('<?xml version="1.0" encoding="UTF-8"?>\n')
