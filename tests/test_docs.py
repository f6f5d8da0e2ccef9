"""What README claims holds: commands and options, exit codes, fleets, the file shown, what the demo prints."""

import ast
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import tomllib
from contextlib import closing
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import botocore.session
import click
import pytest

from devicesim import rules
from devicesim.cli import main as main_module
from devicesim.cli import output, schema
from devicesim.cli.emulated import emulator_faults, emulator_settings
from devicesim.conformance.matrix import matrix
from devicesim.emulator.faults import FaultKind
from devicesim.emulator.operations import table
from devicesim.errors import DevicesimError, FleetFileError, InputError, TargetError
from devicesim.fleet.contradictions import find_contradictions
from devicesim.fleet.sections import FleetFile
from devicesim.fleet.spec import load_fleet, parse_fleet
from devicesim.record.metrics import AGGREGATIONS, METRICS
from tests.support import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text under a heading, up to the next of the same depth."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def options_of(command: click.Command) -> set[str]:
    """Long options that a person sees."""
    return {
        max(each.opts, key=len) for each in command.params if isinstance(each, click.Option) and not each.hidden
    } - {"--help"}


def documented() -> dict[str, set[str]]:
    """Options by verb, as README's list of commands has them."""
    found: dict[str, set[str]] = {}
    verb = ""
    for line in section("Commands").splitlines():
        if not line.startswith("    "):
            continue
        named = re.match(r"    devicesim (\w+)", line)
        verb = named[1] if named else verb
        found.setdefault(verb, set()).update(re.findall(r"--[a-z-]+", line))
    return found


def test_every_verb_is_documented() -> None:
    assert list(documented()) == list(main_module._VERBS)


@pytest.mark.parametrize("verb", ["run", "diagnose", "check", "probe", "emulate"])
def test_the_options_of_the_main_verbs_are_all_documented(verb: str) -> None:
    assert documented()[verb] == options_of(import_module(f"devicesim.cli.{verb}").command)


@pytest.mark.parametrize("verb", list(main_module._VERBS))
def test_no_option_is_documented_that_does_not_exist(verb: str) -> None:
    assert documented()[verb] <= options_of(import_module(f"devicesim.cli.{verb}").command)


def test_exit_codes_are_those_of_the_program() -> None:
    listed = {int(each) for each in re.findall(r"^\| (\d+) \|", section("Commands"), re.MULTILINE)}
    errors = {each.exit_code for each in (InputError, TargetError, FleetFileError)}

    assert listed == errors | {
        output.EXIT_OK,
        output.EXIT_LOAD,
        output.EXIT_EXPECTATION,
        output.EXIT_INTERRUPTED,
        main_module.EXIT_USAGE,
    }
    assert issubclass(InputError, DevicesimError)


def test_the_table_of_fleets_is_the_directory_with_the_codes_that_the_files_give() -> None:
    listed = dict(re.findall(r"^\| `([\w-]+\.toml)` \|.*\| (\d+) \|$", README, re.MULTILINE))

    assert set(listed) == {each.name for each in (ROOT / "fleets").glob("*.toml")}
    for name, code in listed.items():
        assert f"exit code {code}" in (ROOT / "fleets" / name).read_text()
        assert load_fleet(ROOT / "fleets" / name).name == name.removesuffix(".toml")


def test_the_fleet_file_shown_is_one() -> None:
    (text,) = code_blocks(section("Your own fleet"), "toml")

    fleet = parse_fleet(text, ROOT / "fleet.toml")
    assert fleet.size == 220


def merged(below: dict[str, object], above: dict[str, object]) -> dict[str, object]:
    """Two fleet files as one: what stands in the second as well replaces it."""
    both = {**below, **above}
    for key in below.keys() & above.keys():
        one, other = below[key], above[key]
        if isinstance(one, dict) and isinstance(other, dict) and key != "arrival":
            both[key] = merged(one, other)
    return both


def test_what_is_shown_of_load_belongs_into_the_fleet_file_shown() -> None:
    (whole,) = code_blocks(section("Your own fleet"), "toml")
    base = tomllib.loads(whole)
    for block in code_blocks(section("Load"), "toml"):
        raw = merged(base, tomllib.loads(block))
        assert find_contradictions(raw) == [
            each for each in find_contradictions(raw) if each.path.endswith(".telemetry") and "session" not in raw
        ]
        FleetFile.model_validate(raw)


def test_the_metrics_listed_are_those_there_are() -> None:
    table = section("Load").partition("| metric |")[2].partition("\n\n")[0]
    listed = re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[2:]))

    assert sorted(listed) == sorted(METRICS)
    for line in table.splitlines()[2:]:
        methods = re.findall(r"`(\w+)(?:\(N\))?`", line.split("|")[2])
        if methods:  # else "the same"
            kind = METRICS[re.findall(r"`(\w+)`", line.split("|")[1])[0]].type
            assert tuple(methods) == AGGREGATIONS[kind]


def test_the_plan_ends_as_readme_shows(tmp_path: Path) -> None:
    (fleet,) = code_blocks(section("Your own fleet"), "toml")
    (tmp_path / "robots.toml").write_text(fleet)
    (shown,) = [each for each in code_blocks(section("Load"), "text") if "binds" in each]
    (command,) = re.findall(r"^    devicesim (plan .*)$", section("Load"), re.MULTILINE)

    below = normal(shown.split("...\n")[1])
    assert normal(printed_by(*shlex.split(command), cwd=tmp_path))[-len(below) :] == below


def printed_by(*arguments: str | Path, cwd: Path) -> str:
    """What a command that goes well prints in a terminal of 80 columns."""
    run = subprocess.run(
        [sys.executable, "-m", "devicesim", *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def normal(text: str) -> list[str]:
    """The demo's words without what differs from run to run."""
    text = re.sub(r"finished in [0-9.]+ (?:s|ms)", "finished in TIME", text)
    text = re.sub(r"Record: .*", "Record: PATH", text)
    return [line.rstrip() for line in text.strip().splitlines()]


def test_the_demo_prints_what_readme_shows(tmp_path: Path) -> None:
    (shown,) = code_blocks(section("Two commands"), "text")
    above, below = shown.split("...\n")
    assert (ROOT / "scripts" / "demo").read_text().rstrip().endswith('devicesim run fleets/walkthrough.toml "$@"')

    printed = normal(printed_by("run", ROOT / "fleets" / "walkthrough.toml", "--out", "run", cwd=tmp_path))
    assert printed[: len(normal(above))] == normal(above)
    assert printed[-len(normal(below)) :] == normal(below)
    (query,) = re.findall(r'"(SELECT [^"]+)"', section("The record"))
    with closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as record:
        assert dict(record.execute(query).fetchall()) == {None: 35, "closed_before_connack": 35}


def indented_blocks(text: str) -> list[str]:
    """What is typed into a shell; fenced blocks are something else."""
    unfenced = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(each) for each in re.findall(r"(?:^    .*\n)+", unfenced, re.MULTILINE)]


@pytest.mark.parametrize(("title", "code"), [("The truth table, run", 0), ("Why is it not connected?", 99)])
def test_an_example_prints_what_readme_shows(title: str, code: int, tmp_path: Path) -> None:
    (shown,) = code_blocks(section(title), "text")
    above, below = shown.split("...\n")
    typed = [line for block in indented_blocks(section(title)) for line in block.splitlines()]
    # the last line before what is shown
    command = next(line for line in reversed(typed) if ("--only" in line or "--group" in line) and "aws" not in line)

    run = subprocess.run(
        [sys.executable, "-m", *shlex.split(command, comments=True)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert run.returncode == code, run.stderr
    printed = normal(run.stdout)
    assert printed[: len(normal(above))] == normal(above)
    assert printed[-len(normal(below)) :] == normal(below)


def test_the_number_of_cases_is_the_one_given() -> None:
    assert f"{len(matrix())} cases, side by side" in README


def test_every_schema_is_named() -> None:
    (named,) = re.findall(r"devicesim schema ([\w|]+)", section("Commands"))

    assert named.split("|") == list(schema._MODELS)


def test_the_environment_is_activated_before_devicesim_is_typed() -> None:
    install = (ROOT / "scripts" / "install").read_text()
    assert "-m venv .venv" in install
    assert README.index("\n    . .venv/bin/activate\n") < README.index("\n    devicesim ")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_emulator_can_be_used_as_shown(tmp_path: Path) -> None:
    """The section's own lines, typed one after the other into a shell."""
    typed = "\n".join(
        [
            "set -eu",
            "trap 'kill %1; wait' EXIT",
            "devicesim ca create --out ca > /dev/null",
            *indented_blocks(section("The emulator")),
        ]
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shell = subprocess.run(
        ["bash", "-c", typed],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert shell.returncode == 0, shell.stderr
    assert '"registrationCode": "' in shell.stdout
    assert '"certificateArn": "arn:aws:iot:us-east-1:111111111111:cacert/' in shell.stdout
    lines = shell.stdout.splitlines()
    answers = [json.loads(line) for line in lines if line.startswith('{"')]
    assert [sorted(answer) for answer in answers] == [
        ["entries", "kept"],
        ["kind", "name"],
        ["removed"],
        ["advanced", "time"],
        ["status"],
    ]
    assert any(line.startswith("devicesim_connections") for line in lines)


PRELUDE = '''

from datetime import UTC, datetime, timedelta



from devicesim.pki.authority import new_shared_authority
from devicesim.pki.identity import certificate_pem
from devicesim.pki.profile import KeyType, Profile

CA = new_shared_authority("readme", KeyType.EC_P256, now=datetime.now(UTC), validity=timedelta(days=1))
CA_PEM = certificate_pem(CA.certificate)


class my_robot:
    @staticmethod
    def connect(host, port, *, server_name, trust):
        """One first connection, which is dropped."""
        from OpenSSL import SSL
        import socket

        robot = CA.mint(0, secret=b"0" * 32, profile=Profile(names={"fleet": "readme"}))
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate(robot.certificate)
        context.use_privatekey(robot.key)
        context.load_verify_locations(str(trust))
        context.set_verify(SSL.VERIFY_PEER)
        tls = SSL.Connection(context, socket.create_connection((host, port)))
        tls.set_tlsext_host_name(server_name.encode())
        tls.set_connect_state()
        tls.do_handshake()
        tls.sendall(bytes.fromhex("100f00044d5154540402003c000372656d"))
        try:
            while tls.recv(100):
                pass
        except SSL.ZeroReturnError:
            pass
'''


def test_the_fixture_can_be_used_as_shown(tmp_path: Path) -> None:
    fixture, _embedded = code_blocks(section("The emulator"), "python")
    (tmp_path / "test_readme.py").write_text(PRELUDE + fixture)

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_readme.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert run.returncode == 0, run.stdout
    assert "1 passed" in run.stdout


def test_the_emulator_can_be_embedded_as_shown(tmp_path: Path) -> None:
    _fixture, embedded = code_blocks(section("The emulator"), "python")
    imported, _, body = embedded.partition("\n\n")
    body = textwrap.indent(f"{body}\nprint(dev.endpoint)", "    ")
    program = f"import trio\n{imported}\n\nasync def main():\n{body}\ntrio.run(main)"

    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith(".iot.us-east-1.localhost\n")


def test_the_emulator_s_sections_of_a_fleet_file_are_right() -> None:
    (shown,) = code_blocks(section("The emulator"), "toml")
    (fleet,) = code_blocks(section("Your own fleet"), "toml")

    parsed = parse_fleet(fleet + shown, ROOT / "fleet.toml")

    settings = emulator_settings(parsed.file.emulator, ROOT / "fleet.toml")
    assert settings.quotas.connects_per_second is None
    assert settings.quotas.certificate_registrations_per_second == 15
    (fault,) = emulator_faults(parsed.file.emulator, {"staging": "222222222222"}, ROOT / "fleet.toml")
    assert fault.account_id == "222222222222"


def test_every_fault_is_listed() -> None:
    listed = re.findall(r"`(\w+)`", section("The emulator").partition("\nFaults: ")[2].partition("; each takes")[0])

    assert listed == [each.value for each in FaultKind]


def test_scripts_and_files_that_readme_names_exist() -> None:
    for name in re.findall(r"\bscripts/[\w.]+", README):
        path = ROOT / name
        assert path.is_file(), name
        assert name.endswith(".py") or os.access(path, os.X_OK), name
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def settings_by_evidence() -> tuple[set[str], set[str]]:
    """All settings of the emulator, and those whose documentation says that some of it is inferred."""
    every, inferred = set(), set()
    for name in ("settings.py", "state/environment.py"):
        tree = ast.parse((ROOT / "devicesim" / "emulator" / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not (isinstance(node, ast.ClassDef) and node.name.endswith("Settings")):
                continue
            for field, words in pairwise(node.body):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    every.add(field.target.id)
                    if re.search(r"\bI\b(?=[);.,])", ast.unparse(words)):
                        inferred.add(field.target.id)
    return every, inferred


def test_every_inferred_choice_is_listed_among_the_differences() -> None:
    every, inferred = settings_by_evidence()
    first_cells = re.findall(r"^\| (`.*?) \|", section("The emulator"), re.MULTILINE)
    listed = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}

    assert len(inferred) > 15
    assert inferred <= listed
    assert listed <= every


def test_the_number_of_operations_is_the_one_given() -> None:
    found = re.search(r"About (\d+) of AWS IoT's (\d+) operations", README)
    assert found
    every = botocore.session.get_session().get_service_model("iot").operation_names

    assert abs(len(table.IOT) - int(found[1])) < 5
    assert abs(len(every) - int(found[2])) < 30
    missing = README[found.end() : README.index("\n- ", found.end())]
    named = re.findall(r"`([A-Z]\w+)`", missing)
    assert named
    for name in named:
        assert name in every
        assert name not in table.IOT


def test_evidence_keys_of_the_oracle_are_explained() -> None:
    explained = set(re.findall(r"\b[A-Z][A-Z0-9-]+\b", section("Evidence")))
    used = {
        key for row in rules.rows() for key in re.findall(r"\b(?:MS1755|BC|DG22|BLOG-MA|ATLAS|WS|DEEP)\b", row.source)
    }

    assert used
    assert used <= explained
    assert {letter for row in rules.rows() for letter in row.mark if letter.isalpha()} == set("DMSI")


def test_ci_calls_the_one_script() -> None:
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec scripts/test")
