"""Options that several verbs take, under the names that users know from openssl, curl and k6."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from devicesim.fleet.fields import MAX_RATE, parse_rate
from devicesim.fleet.identities import MaterialFiles
from devicesim.net.names import is_ip_literal

Command = Callable[..., Any]

RECORD_NAME = "run.sqlite"
"""Of a run's record, in its directory."""


class Seconds(click.FloatRange):
    """A finite number of seconds: ``nan`` is in every range, and ``inf`` in every one without an end."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


class Rate(click.ParamType[float]):
    """Starts a second, as a fleet file has them."""

    name = "R/s"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            rate = parse_rate(str(value))
        except ValueError as exc:
            self.fail(f"{value!r}: {exc}", param, ctx)
        if not 0 < rate <= MAX_RATE:
            self.fail(f"{value!r} is not more than 0 and at most {MAX_RATE}/s", param, ctx)
        return rate


def material_options(function: Command) -> Command:
    """``--ca``, ``--ca-key`` and ``--seed``: in place of the fleet file's ``[ca]``."""
    path = click.Path(path_type=Path)
    for option in (
        click.option("--seed", type=path, metavar="FILE", help="The fleet secret, in place of the file's [ca]."),
        click.option("--ca-key", type=path, metavar="FILE", help="PEM private key of the CA."),
        click.option("--ca", "ca_path", type=path, metavar="FILE", help="PEM certificate of the shared CA."),
    ):
        function = option(function)
    return function


def material_files(ca_path: Path | None, ca_key: Path | None, seed: Path | None) -> MaterialFiles:
    return MaterialFiles(ca=ca_path, ca_key=ca_key, secret=seed)


def host_and_port(text: str, option: str, default: int | None = None) -> tuple[str, int]:
    """``HOST:PORT``, or ``HOST`` where there is a default port; an IPv6 address stands in brackets before a port."""
    if default is not None and (":" not in text or is_ip_literal(text.strip("[]"))):
        host, port = text, str(default)
    else:
        host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{text!r} is not {'HOST or ' if default else ''}HOST:PORT", param_hint=option)
    return host.strip("[]"), int(port)
