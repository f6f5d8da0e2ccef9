"""The fleet file."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.errors import FleetFileError
from devicesim.fleet.sections import FleetFile
from devicesim.fleet.spec import Fleet, load_fleet, parse_fleet
from devicesim.pki.profile import KeyType

PATH = Path("fleet.toml")

GOOD = """
version = 1
name = "walk"

[accounts.a]
id = "111111111111"
ca_mode = "DEFAULT"
provisioning = "JITR"

[accounts.b]
id = "222222222222"
ca_mode = "SNI_ONLY"
provisioning = "JITP"

[groups.first]
count = 30
account = "a"

[groups.second]
count = 10
account = "b"
sni = "other:a"
"""


def problems(text: str) -> dict[str, str]:
    with pytest.raises(FleetFileError) as caught:
        parse_fleet(text, PATH)
    assert caught.value.exit_code == 104
    return {each.path: each.message for each in caught.value.problems}


def edited(*changes: tuple[str, str]) -> str:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


@pytest.fixture
def fleet() -> Fleet:
    return parse_fleet(GOOD, PATH)


def test_defaults_are_those_that_aws_advises(fleet: Fleet) -> None:
    retry = fleet.file.retry

    assert (retry.first_delay, retry.attempts) == ((3.0, 5.0), 5)
    assert fleet.file.accounts["a"].region == "us-east-1"
    assert fleet.file.groups["first"].sni == "endpoint"
    assert fleet.file.devices.key_type is KeyType.EC_P256
    assert fleet.size == 40


def test_every_mistake_is_told_at_once_with_its_path() -> None:
    text = """
version = 2
name = "with space"
colour = "red"
[accounts.a]
id = "12"
ca_mode = "BOTH"
provisioning = "JITR"
template = "{}"
[groups.g]
count = 0
account = "nowhere"
sni = "other:nobody"
subject = { common_name = "{secret}", shoe_size = "1" }
[retry]
first_delay = [5, 3]
[arrival]
rate = "fast"
"""

    assert set(problems(text)) == {
        "version",
        "name",
        "colour",
        "accounts.a.id",
        "accounts.a.ca_mode",
        "accounts.a.template",
        "groups.g.count",
        "groups.g.account",
        "groups.g.sni",
        "groups.g.subject.common_name",
        "groups.g.subject.shoe_size",
        "retry.first_delay",
        "arrival.rate",
    }


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        ('ca_mode = "SNI_ONLY"', 'ca_mode = "DEFAULT"', "accounts.b.ca_mode", "taken in us-east-1 by accounts.a"),
        ('id = "222222222222"', 'id = "111111111111"', "accounts.b.id", "is accounts.a already"),
        ('ca_mode = "DEFAULT"', 'ca_mode = "none"', "accounts.a.provisioning", "needs the CA registered"),
        ('sni = "other:a"', 'sni = "other:b"', "groups.second.sni", "that is 'endpoint'"),
        ('sni = "other:a"', 'sni = "literal:"', "groups.second.sni", "does not match"),
        ('sni = "other:a"', 'sni = "literal:a\\u0007b"', "groups.second.sni", "printable ASCII"),
        ("count = 30", 'count = 30\nverify_name = "a b"', "groups.first.verify_name", "neither a DNS name"),
        ("[accounts.a]", "[devices]\nnot_after = 2030-01-01T00:00:00\n[accounts.a]", "devices.not_after", "timezone"),
        (
            "[accounts.a]",
            '[devices]\nkey_type = "ec-p384"\n[tls]\nmaximum_version = "TLSv1.2"\n[accounts.a]',
            "tls.group",
            "take 'any'",
        ),
        (
            "[accounts.a]",
            '[tls]\nmaximum_version = "TLSv1.2"\ngroup = "P-521"\n[accounts.a]',
            "tls.group",
            "'P-521' alone rules devices.key_type 'ec-p256' out",
        ),
        ("[accounts.a]", '[tls]\nciphers = "NOPE"\n[accounts.a]', "tls.ciphers", "no cipher that OpenSSL knows"),
        ("[accounts.a]", f'[tls]\nalpn = ["{"a" * 256}"]\n[accounts.a]', "tls.alpn.0", "does not match"),
        ('sni = "other:a"', 'sni = "sometimes"', "groups.second.sni", "does not match"),
        (
            'provisioning = "JITP"',
            'provisioning = "JITP"\nactivator = "external"',
            "accounts.b.activator",
            "is for JITR",
        ),
        (
            'account = "a"',
            'account = "a"\nexpect = {outcome="pending"}',
            "groups.first.expect.account",
            "is missing",
        ),
        (
            'account = "a"',
            'account = "a"\nexpect = {outcome="refused", account="a"}',
            "groups.first.expect.account",
            "does not go with",
        ),
        (
            'account = "a"',
            'account = "a"\nexpect = {outcome="pending", account="z"}',
            "groups.first.expect.account",
            "known: 'a', 'b'",
        ),
        ("[accounts.a]", '[ca]\nkey = "k"\n[accounts.a]', "ca.key", "without a certificate"),
        (
            "[accounts.a]",
            '[ca]\ncertificate = "c"\n[accounts.a]',
            "accounts.a.ca_mode",
            "verification certificate",
        ),
        ("[accounts.a]", '[devices]\nkeys = "imported"\n[accounts.a]', "devices.bundles", "is missing"),
        ("[accounts.a]", '[devices]\nbundles = "*.pem"\n[accounts.a]', "devices.bundles", "keys is 'derived'"),
        (
            "[accounts.a]",
            '[devices]\nkey_type = "rsa-2048"\n[accounts.a]',
            "devices.key_type",
            "cannot be derived",
        ),
        (
            "[accounts.a]",
            '[devices]\nkeys = "random"\n[ca]\nsecret = "s"\n[accounts.a]',
            "ca.secret",
            "keys is 'random'",
        ),
        (
            "[accounts.a]",
            '[tls]\nminimum_version = "TLSv1.3"\nmaximum_version = "TLSv1.2"\n[accounts.a]',
            "tls.minimum_version",
            "above maximum_version",
        ),
        ("count = 30", 'count = 30\nclient_id = "{nobody}"', "groups.first.client_id", "{common_name}"),
        ("count = 30", 'count = 30\nsubject = {country = "Germany"}', "groups.first.subject", "country 'Germany'"),
        (
            "count = 30",
            'count = 30\nsubject = {common_name = "{index:070d}"}',
            "groups.first.subject",
            "common_name",
        ),
        ('provisioning = "JITP"', 'provisioning = "JITP"\ntemplate = "no.json"', "accounts.b.template", "no.json"),
        ('provisioning = "JITP"', 'provisioning = "JITP"\ntemplate = "a\\u0000b"', "accounts.b.template", "null byte"),
        (
            "count = 30",
            'count = 30\nsubject = {common_name = "{index:999999999999}"}',
            "groups.first.subject.common_name",
            "is not a template",
        ),
        ('provisioning = "JITP"', 'provisioning = "JITP"\ntemplate = "{oops"', "accounts.b.template", "not JSON"),
        ("[groups.first]\ncount = 30", "[groups.first]", "groups.first.count", "is missing"),
        ("version = 1", "version = ", "file", "is not TOML"),
    ],
)
def test_contradictions_and_wrong_values_are_refused(old: str, new: str, path: str, message: str) -> None:
    found = problems(edited((old, new)))

    assert message in found[path]


@pytest.mark.parametrize("value", ['"some"', "0", "-3", "1.5", "true", '"5"', "[]", "nan"])
def test_a_sample_that_is_none_is_told_once_and_by_its_own_name(value: str) -> None:
    found = problems(GOOD + f"[verification]\nthings = {value}\n")

    assert list(found) == ["verification.things"]
    assert found["verification.things"].endswith(" is not allowed: expected 'all', 'none' or a number from 1 on")


@pytest.mark.parametrize(("value", "things"), [('"all"', "all"), ('"none"', "none"), ("1", 1), ("500", 500)])
def test_a_sample_is_all_none_or_a_number(value: str, things: str | int) -> None:
    fleet = parse_fleet(GOOD + f"[verification]\nthings = {value}\n", PATH)

    assert fleet.file.verification.things == things


def test_a_message_does_not_repeat_a_whole_file() -> None:
    found = problems(edited(('"JITP"', f'"{"x" * 5000}"')))

    assert len(found["accounts.b.provisioning"]) < 200


def test_a_path_below_nobodys_home_is_taken_as_it_stands() -> None:
    fleet = parse_fleet(GOOD, Path("/fleets/f.toml"))

    assert fleet.resolve("~nobody-of-that-name/ca.pem") == Path("/fleets/~nobody-of-that-name/ca.pem")
    assert fleet.resolve("/etc/ca.pem") == Path("/etc/ca.pem")


def test_mixed_modes_and_other_regions_are_allowed() -> None:
    text = edited(('ca_mode = "SNI_ONLY"', 'ca_mode = "DEFAULT"\nregion = "eu-west-1"'))

    assert parse_fleet(text, PATH).file.accounts["b"].region == "eu-west-1"


@pytest.mark.parametrize(
    ("rate", "expected"), [('"50/s"', 50), ('"3000/min"', 50), ('"180000/h"', 50), ("2.5", 2.5), ("7", 7)]
)
def test_a_rate_is_a_number_or_a_text_with_its_unit(rate: str, expected: float) -> None:
    assert expected == parse_fleet(GOOD + f"[arrival]\nrate = {rate}\n", PATH).file.arrival.rate


def test_identity_indexes_follow_one_another_unless_given() -> None:
    text = edited(("count = 10", "count = 10\nfirst_index = 0")) + '[groups.third]\ncount = 5\naccount = "a"\n'
    fleet = parse_fleet(text, PATH)

    assert [fleet.first_index(name) for name in fleet.file.groups] == [0, 0, 30]


def test_a_file_that_cannot_be_read_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name in ("missing.toml", "binary.toml"):
        with pytest.raises(FleetFileError, match=name) as caught:
            load_fleet(tmp_path / name)
        assert "cannot be read" in caught.value.problems[0].message


def test_templates_and_policies_are_read_beside_the_fleet_file(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"Resources": {}}')
    extra = 'provisioning = "JITP"\ntemplate = "t.json"\npolicy = \'{"Version": "2012-10-17"}\''
    (tmp_path / "fleet.toml").write_text(edited(('provisioning = "JITP"', extra)))

    fleet = load_fleet(tmp_path / "fleet.toml")

    assert fleet.templates == {"b": '{"Resources": {}}'}
    assert fleet.policies == {"b": '{"Version": "2012-10-17"}'}


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5000))
def test_resizing_keeps_the_proportions_and_every_group(total: int) -> None:
    resized = parse_fleet(GOOD, PATH).resized(total)
    counts = {name: group.count for name, group in resized.file.groups.items()}

    assert sum(counts.values()) == total
    assert min(counts.values()) >= 1
    assert abs(counts["first"] - total * 0.75) <= 1


def test_a_fleet_cannot_be_smaller_than_its_groups(fleet: Fleet) -> None:
    with pytest.raises(FleetFileError) as caught:
        fleet.resized(1)
    assert "2 groups" in str(caught.value.problems[0])


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(
    section=st.sampled_from(["ca", "accounts", "groups", "devices", "retry", "tls", "mqtt", "emulator", "arrival"]),
    key=st.sampled_from(["a", "count", "sni", "account", "ca_mode", "key", "certificate", "expect", "first_delay"]),
    value=_json,
)
def test_any_toml_is_a_fleet_or_a_list_of_problems(section: str, key: str, value: Any) -> None:
    """Never another exception, whatever stands in a file."""
    from devicesim.fleet.contradictions import find_contradictions

    raw = {"version": 1, "name": "x", section: {key: value}}
    for problem in find_contradictions(raw):
        assert re.fullmatch(r"[a-z_.A-Z0-9-]+", problem.path)
    for shape in ({section: value}, {section: {key: {key: value}}}):
        assert isinstance(find_contradictions(shape), list)


def test_every_key_of_the_schema_is_described() -> None:
    schema = FleetFile.model_json_schema()

    assert schema["additionalProperties"] is False
    assert {"accounts", "groups", "retry", "arrival"} <= set(schema["properties"])
    assert schema["$defs"]["Group"]["properties"]["sni"]["description"].startswith("The server name sent")
