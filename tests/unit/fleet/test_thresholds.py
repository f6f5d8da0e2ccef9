"""The ``[thresholds]`` section: read as k6 has it, and every mistake told at once with its path."""

from pathlib import Path

import pytest

from devicesim.errors import FleetFileError
from devicesim.fleet.sections import FleetFile
from devicesim.fleet.spec import Fleet, parse_fleet
from devicesim.fleet.thresholds import thresholds_of

FILE = """
version = 1
name = "robots"
[accounts.prod]
id = "333333333333"
ca_mode = "SNI_ONLY"
[groups.robots]
count = 20
account = "prod"
[thresholds]
"""


def read(section: str) -> Fleet:
    return parse_fleet(FILE + section, Path("robots.toml"))


def problems(section: str) -> list[str]:
    with pytest.raises(FleetFileError) as caught:
        read(section)
    assert caught.value.exit_code == 104
    return [str(each) for each in caught.value.problems]


def test_thresholds_are_read_in_the_order_of_the_file() -> None:
    fleet = read("""
        provision_success = ["rate>0.999"]
        "provision_success{account:prod}" = ["rate>0.99"]
        time_to_provision = [
            "p(95)<5s", { threshold = "p(99)<30s", abort_on_fail = true, delay_abort_eval = "10s" }
        ]
        "connect_seconds{group:robots, account:prod}" = ["med<0.2", "max<1.5"]
        dropped_starts = ["count==0"]
    """)

    thresholds = thresholds_of(fleet.file.thresholds)

    assert [(each.selector.text, each.expression.text) for each in thresholds] == [
        ("provision_success", "rate>0.999"),
        ("provision_success{account:prod}", "rate>0.99"),
        ("time_to_provision", "p(95)<5s"),
        ("time_to_provision", "p(99)<30s"),
        ("connect_seconds{group:robots, account:prod}", "med<0.2"),
        ("connect_seconds{group:robots, account:prod}", "max<1.5"),
        ("dropped_starts", "count==0"),
    ]
    assert [(each.abort_on_fail, each.delay) for each in thresholds if each.abort_on_fail or each.delay] == [
        (True, 10.0)
    ]


def test_file_without_thresholds_has_none() -> None:
    assert thresholds_of(read("").file.thresholds) == ()


@pytest.mark.parametrize(
    ("section", "says"),
    [
        (
            'attempts = "count<5"',
            "thresholds.attempts: 'count<5' is not allowed: a list is expected, such as ['rate>0.99']",
        ),
        ("attempts = [5]", "thresholds.attempts.0: 5 is not allowed: expected an expression, or a table"),
        ("attempts = ['count<5', 'count 5']", "thresholds.attempts.1: 'count 5' is not allowed: expected an aggre"),
        ("attempts = [{ threshold = 'count 5' }]", "thresholds.attempts.0.threshold: 'count 5' is not allowed"),
        ("attempts = [{ abort_on_fail = true }]", "thresholds.attempts.0.threshold: is missing"),
        (
            "attempts = [{ threshold = 'count<5', abortOnFail = true, delayAbortEval = '5s' }]",
            (
                "thresholds.attempts.0.abortOnFail: unknown key; here it is spelled 'abort_on_fail'\n"
                "thresholds.attempts.0.delayAbortEval: unknown key; here it is spelled 'delay_abort_eval'"
            ),
        ),
        ("attempts = [{ threshold = 'count<5', on_fail = 1 }]", "thresholds.attempts.0.on_fail: unknown key"),
        (
            "attempts = [{ threshold = 'count<5', delay_abort_eval = '5s' }]",
            "thresholds.attempts.0.delay_abort_eval: is for a threshold with abort_on_fail = true",
        ),
        (
            "attempts = [{ threshold = 'count<5', abort_on_fail = true, delay_abort_eval = 'soon' }]",
            "thresholds.attempts.0.delay_abort_eval: 'soon' is not allowed: a duration is",
        ),
        ("nothing = ['count<5']", "thresholds.nothing: 'nothing' is not allowed: no metric is called 'nothing'"),
        (
            "attempts = ['p(95)<5']",
            "thresholds.attempts.0: 'p(95)<5' does not fit: attempts is a counter, which has no p(95); it has count,",
        ),
        (
            "attempts = [{ threshold = 'max<5' }]",
            "thresholds.attempts.0: 'max<5' does not fit: attempts is a counter, which has no max",
        ),
        (
            "'attempts{group:cars}' = ['count<5']",
            "thresholds.attempts{group:cars}: 'cars' is not a group of this file; known: 'robots'",
        ),
        (
            "'attempts{account:dev,group:robots}' = ['count<5']",
            "thresholds.attempts{account:dev,group:robots}: 'dev' is not an account of this file; known: 'prod'",
        ),
        ("'attempts{group:robots' = ['count<5']", "is not allowed: a metric is a name, or a name with tags such as"),
        (
            "agreement = [{ threshold = 'rate==1', abort_on_fail = true }]",
            "thresholds.agreement.0.abort_on_fail: agreement is known at the end of the run only",
        ),
    ],
)
def test_mistake_is_told_with_its_place(section: str, says: str) -> None:
    found = "\n".join(problems(section))

    assert says in found
    assert len(found.splitlines()) == len(says.splitlines())


def test_all_mistakes_are_told_at_once() -> None:
    found = problems("""
        nothing = ["count<5"]
        "attempts{group:cars,account:dev}" = ["p(95)<5"]
        tls_seconds = ["rate>0.9", { threshold = "p(95)<5s", abortOnFail = true }]
    """)

    assert sorted(each.partition(": ")[0] for each in found) == [
        "thresholds.attempts{group:cars,account:dev}",
        "thresholds.attempts{group:cars,account:dev}",
        "thresholds.attempts{group:cars,account:dev}.0",
        "thresholds.nothing",
        "thresholds.tls_seconds.0",
        "thresholds.tls_seconds.1.abortOnFail",
    ]


@pytest.mark.parametrize("value", ["3", "'x'", "[1]"])
def test_section_of_the_wrong_kind_is_told(value: str) -> None:
    with pytest.raises(FleetFileError) as caught:
        parse_fleet(FILE.replace("[thresholds]", "").replace("version", f"thresholds = {value}\nversion"), Path("f"))

    assert [each.path for each in caught.value.problems] == ["thresholds"]


def test_schema_allows_both_forms() -> None:
    schema = FleetFile.model_json_schema()

    assert schema["properties"]["thresholds"]["additionalProperties"]["items"] == {
        "anyOf": [{"type": "string"}, {"$ref": "#/$defs/ThresholdTable"}]
    }
