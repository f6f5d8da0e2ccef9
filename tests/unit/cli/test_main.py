"""The command line as a whole: verbs, exit codes, errors without a traceback."""

import json
import socket
from pathlib import Path

import pytest

from devicesim import __version__
from tests.support import Devicesim

VERBS = ["run", "plan", "diagnose", "check", "probe", "emulate", "mint", "ca", "report", "schema", "doctor"]


def test_help_lists_every_verb_and_each_has_help(devicesim: Devicesim) -> None:
    top = devicesim("--help")

    assert top.code == 0
    for verb in VERBS:
        assert f"  {verb} " in top.out
        own = devicesim(verb, "--help")
        assert own.code == 0
        assert own.out.startswith(f"Usage: devicesim {verb} ")


def test_version(devicesim: Devicesim) -> None:
    assert devicesim("--version").out == f"devicesim, version {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("run",),
        ("run", "f.toml", "--rate", "fast"),
        ("run", "f.toml", "--devices", "0"),
        ("schema", "x"),
        ("emulate", "f.toml", "--accounts", "2"),
        ("emulate", "--accounts", "0"),
    ],
)
def test_wrong_usage_exits_2(devicesim: Devicesim, arguments: tuple[str, ...]) -> None:
    refused = devicesim(*arguments)

    assert refused.code == 2
    assert "Error" in refused.err


@pytest.mark.parametrize("verb", [("run",), ("plan",), ("mint", "--out", "-"), ("emulate",), ("doctor",)])
def test_a_wrong_fleet_file_exits_104_with_every_problem(
    devicesim: Devicesim, tmp_path: Path, verb: tuple[str]
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('version = 1\nname = "x"\ncolour = 1\n[accounts.a]\nid = "1"\nca_mode = "none"\n')

    refused = devicesim(verb[0], path, *verb[1:])

    assert refused.code == 104
    assert refused.err.splitlines()[0] == f"devicesim: error: {path}: 3 problems"
    assert {line.split(":")[0].strip() for line in refused.err.splitlines()[1:]} == {
        "accounts.a.id",
        "groups",
        "colour",
    }


@pytest.mark.parametrize("what", ["fleet", "summary", "plan"])
def test_schema_is_json_schema(devicesim: Devicesim, what: str) -> None:
    schema = json.loads(devicesim("schema", what).out)

    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["type"] == "object"


@pytest.mark.parametrize(("option", "value"), [("--rate", "inf"), ("--rate", "1e9/s"), ("--devices", "10000001")])
def test_a_load_beyond_the_fleet_files_own_limits_exits_2(
    devicesim: Devicesim, tmp_path: Path, option: str, value: str
) -> None:
    refused = devicesim("run", tmp_path / "f.toml", option, value)

    assert refused.code == 2
    assert option in refused.err


def test_report_of_what_is_no_record_exits_2(devicesim: Devicesim, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no database")
    for path in (tmp_path / "x", tmp_path / "missing", tmp_path):
        refused = devicesim("report", path)
        assert refused.code == 2
        assert "is not a record" in refused.err


def test_doctor_looks_at_this_machine(devicesim: Devicesim) -> None:
    told = devicesim("doctor")

    assert told.code == 0
    for name in ("versions", "open files", "local ports", "loopback", "clock"):
        assert name in told.out


def test_doctor_finds_a_ca_that_is_not_there(devicesim: Devicesim, tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text(
        'version = 1\nname = "x"\n[ca]\ncertificate = "no.pem"\nkey = "no.key"\n'
        '[accounts.a]\nid = "111111111111"\nca_mode = "SNI_ONLY"\n[groups.g]\ncount = 1\naccount = "a"\n'
    )

    told = devicesim("doctor", path)

    assert told.code == 3
    assert "no.pem cannot be read" in told.out


def test_emulate_on_a_port_that_is_taken_exits_3(devicesim: Devicesim) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option in ("--api-port", "--mqtt-port", "--mqtt-alpn-port", "--admin-port"):
            refused = devicesim("emulate", option, str(port))
            assert refused.code == 3
            assert "cannot listen on '127.0.0.1'" in refused.err
            assert "Traceback" not in refused.err
