"""Options that several verbs take, under the names that users know from openssl, curl and k6."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from devicesim.fleet.identities import MaterialFiles

Command = Callable[..., Any]


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
