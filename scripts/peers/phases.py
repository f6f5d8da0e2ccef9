"""What the programs of this directory share: their job, and how they take turns with bench_connect.py.

Each is started in the directory ``scripts`` as ``python -m peers.connect_x JOB``, says hello, and for each batch of
devices says when it is prepared and when all are connected. After each of these lines it stands still until it is
answered, while it is measured from outside. It keeps every connection open, and ends when it is killed or when its
standard input does.

Only the standard library is imported here, for most of these programs run in the interpreter of the peers.
"""

import importlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import NoReturn


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Devices to connect; ``batches`` are ranges of their numbers."""

    host: str
    port: int
    server_name: str
    """On the server's certificate, as ``host`` is: for who can verify a name that is not dialled."""
    roots: Path
    """What the server's chain is verified against, PEM."""
    devices: Path
    """The directory of the devices' PEM bundles: certificate, its issuer, key."""
    batches: tuple[range, ...]
    concurrency: int
    """Connections under way at once."""
    keep_alive: int
    """Seconds; longer than a measurement, so that no ping is in it."""
    tls: str
    """``1.2`` or ``1.3``: what the broker holds everybody to. Clients leave both open, as they do by default."""

    def bundle(self, number: int) -> Path:
        return self.devices / f"{number:06d}.pem"


def job() -> Job:
    told = json.loads(sys.argv[1])
    return Job(
        **{
            **told,
            "roots": Path(told["roots"]),
            "devices": Path(told["devices"]),
            "batches": tuple(range(first, end) for first, end in told["batches"]),
        }
    )


def client_id(number: int) -> str:
    return f"device-{number:06d}"


def hello(*distributions: str, tls: str = "") -> None:
    """Say who connects: the versions of these distributions, and their TLS where it is not one of them."""
    hello_from(", ".join([*(f"{each} {version(each)}" for each in distributions), *([tls] if tls else [])]))


def hello_from(program: str) -> None:
    _say({"version": program})


def need(name: str) -> ModuleType:
    """The module; without it this says so, and ends the program."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        missing(str(exc))


def need_program(name: str) -> str:
    """The path of a program, as :func:`need` gives a module."""
    return shutil.which(name) or missing(f"no program {name} on PATH")


def fail(what: object) -> NoReturn:
    """End the program at once, whatever threads and event loops still do, because a device could not connect."""
    print(" ".join(str(what).split()), file=sys.stderr, flush=True)
    os._exit(1)


def missing(what: str) -> NoReturn:
    """End the program, because this is not installed."""
    _say({"missing": what})
    sys.exit(0)


def prepared() -> None:
    """Say that the next batch can start: what is not part of connecting is done."""
    _turn({"phase": "prepared"})


def connected(count: int, **measured: float) -> None:
    """Say that all of the batch are connected; ``measured`` where it cannot be told from outside."""
    _turn({"phase": "connected", "connections": count, **measured})


def _turn(line: dict[str, object]) -> None:
    _say(line)
    if not sys.stdin.readline():
        os._exit(0)


def _say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)
