"""The ``devicesim`` command: its verbs, and the one place where errors become exit codes.

Exit codes (design.md §4): 0 all met, 2 usage, 3 target could not be reached or set up, 98 the load asked for could not
be generated, 99 an expectation or threshold failed, 104 the fleet file is wrong, 105 interrupted.
"""

import errno
import os
import sys
from importlib import import_module

import click

from devicesim import __version__
from devicesim.errors import DevicesimError, FleetFileError, leaves

EXIT_USAGE = 2
EXIT_INTERRUPTED = 105
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
"""What a disk does to whoever writes to it: no bug of ours."""

_VERBS = {
    "run": "Run a fleet and hold what happened against what IoT Core should do.",
    "plan": "What a fleet needs, of machines and of AWS, computed without connecting.",
    "diagnose": "Why a device is not connected, ranked, with the evidence and the fix.",
    "check": "Run the truth table of SNI_ONLY against the emulator, or against accounts that exist.",
    "probe": "Open one connection and tell it step by step, through CONNACK.",
    "emulate": "Start the emulator: an IoT Core for several accounts on this machine.",
    "mint": "Mint device certificates as PEM bundles or one NDJSON stream.",
    "ca": "Make and show the shared CA; sign verification certificates.",
    "report": "Redo the report from a run's record.",
    "schema": "Print the JSON Schema of what is read and written: fleet files, summaries, ...",
    "doctor": "Check this machine, and a fleet's target.",
}


class _Verbs(click.Group):
    """Loads a verb's module when it is named: ``mint`` need not import boto3, nor ``report`` OpenSSL."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = import_module(f"devicesim.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="devicesim")
def cli() -> None:
    """Prove that IoT devices sharing one CA are provisioned in the right AWS account."""


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        code = cli.main(prog_name="devicesim", standalone_mode=False)
        if sys.stdout is not None:  # closed before we were started
            sys.stdout.flush()
    except click.exceptions.Exit as exc:
        code = exc.exit_code
    except click.ClickException as exc:
        exc.show()
        code = EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("devicesim: interrupted", err=True)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # the reader of our output (head, less) has gone: nothing more can be written, at exit either
        _drop_output()
        code = 1  # as click has it
    except OSError as exc:
        if exc.errno not in _FULL:
            raise
        _drop_output()
        click.echo(f"devicesim: error: {exc.strerror}", err=True)
        code = 1
    except DevicesimError as exc:
        code = _tell(exc)
    except BaseExceptionGroup as group:
        # a nursery wraps what its tasks raise; errors that are meant for the user are told, anything else is a bug
        told, rest = group.split(DevicesimError)
        if told is None or rest is not None:
            raise
        code = _tell(next(leaves(told)))
    sys.exit(code if isinstance(code, int) else 0)


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(error: DevicesimError) -> int:
    click.echo(f"devicesim: error: {error}", err=True)
    if isinstance(error, FleetFileError):
        for problem in error.problems:
            click.echo(f"  {problem}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)
    return error.exit_code
