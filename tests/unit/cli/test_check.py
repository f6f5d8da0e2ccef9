"""``devicesim check``: who plays what, what is listed, what is no use, and the exit code."""

from pathlib import Path

import pytest

from devicesim.cli.check import cast_roles, exit_code
from devicesim.conformance.cases import Role
from devicesim.conformance.matrix import matrix
from devicesim.fleet.spec import parse_fleet
from tests.conformance_check_support import AGREEING, DISAGREEING, FAILED, ORACLE_WRONG, SKIPPED, check
from tests.support import ROOT, Devicesim


def roles(*regions: str) -> tuple[dict[Role, str], dict[Role, str]]:
    """Of accounts named by their numbers, in these Regions."""
    accounts = "".join(
        f'[accounts.n{number}]\nid = "{number:012}"\nregion = "{region}"\nca_mode = "none"\n'
        for number, region in enumerate(regions)
    )
    fleet = parse_fleet(
        f'version = 1\nname = "f"\n{accounts}[groups.g]\ncount = 1\naccount = "n0"\n', Path("fleet.toml")
    )
    return cast_roles(fleet)


def test_roles_are_played_in_the_order_of_the_file_and_by_region() -> None:
    played, absent = roles("eu-west-1", "us-east-1", "eu-west-1", "eu-west-1", "eu-west-1", "us-east-1")

    assert played == {"a": "n0", "b": "n2", "x": "n3", "o": "n1"}
    assert absent == {}


def test_roles_that_nobody_plays_say_what_they_need() -> None:
    played, absent = roles("eu-west-1")

    assert played == {"a": "n0"}
    assert absent == {
        "b": "needs a second account in eu-west-1",
        "x": "needs a third account in eu-west-1, which does not hold the CA",
        "o": "needs an account in another Region than eu-west-1",
    }


def test_list_names_every_case_with_its_row_and_expectation(devicesim: Devicesim) -> None:
    every, some = devicesim("check", "--list"), devicesim("check", "--list", "--only", "C3-jitp/new/a-other-b/*-8883")

    assert every.code == 0
    assert len(every.out.splitlines()) == len(matrix())
    assert some.out.splitlines()[0] == (
        "C3-jitp/new/a-other-b/tls1.3-mqtt3.1.1-8883  10b.C3.sB [D/I]  provisioned in b (SNI_ONLY, thing)"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "C9"), "no case matches 'C9'; devicesim check --list names them"),
        (("--target", "aws"), "accounts that exist are named by a FLEET file"),
        (("--endpoint-url", "http://127.0.0.1:1"), "accounts that exist are named by a FLEET file"),
        (("--connect-to", "nonsense"), "'nonsense' is not HOST:PORT"),
        (("--connect-to-alpn", "127.0.0.1:1"), "--connect-to-alpn goes with --connect-to"),
        ((str(ROOT / "fleets" / "walkthrough.toml"), "--endpoint-url", "http://127.0.0.1:1"), "--connect-to"),
    ],
)
def test_wrong_usage_exits_2(devicesim: Devicesim, arguments: tuple[str, ...], message: str) -> None:
    refused = devicesim("check", *arguments)

    assert refused.code == 2
    assert message in " ".join(refused.err.split())


def test_file_that_cannot_be_written_is_told_before_anything_is_made(devicesim: Devicesim, tmp_path: Path) -> None:
    refused = devicesim("check", "--junit", tmp_path / "no" / "such.xml")

    assert refused.code == 2
    assert "such.xml cannot be written: No such file or directory" in refused.err


def test_exit_codes() -> None:
    assert exit_code(check(AGREEING, SKIPPED)) == 0
    assert exit_code(check(AGREEING, DISAGREEING, FAILED)) == 99
    assert exit_code(check(AGREEING, ORACLE_WRONG)) == 99
    assert exit_code(check(AGREEING, FAILED)) == 3
    assert exit_code(check(SKIPPED)) == 3
