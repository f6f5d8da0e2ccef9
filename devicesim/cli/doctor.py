"""``devicesim doctor``: this machine, and a fleet's target."""

import platform
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from math import inf
from pathlib import Path

import click
import cryptography
import OpenSSL.SSL
import trio

from devicesim import __version__
from devicesim.cli.limits import read_machine
from devicesim.cli.options import material_files, material_options
from devicesim.cloud.account import AccountClient
from devicesim.cloud.clock import endpoint_and_clock
from devicesim.errors import DevicesimError, TargetError
from devicesim.fleet.capacity import MIB, Machine, Needs, Resource, lacks, needs_of
from devicesim.fleet.demand import demand_of
from devicesim.fleet.identities import MaterialFiles, load_material
from devicesim.fleet.spec import Fleet, load_fleet
from devicesim.fleet.target import Kind, accesses, amazon_roots, device_roots
from devicesim.net.failures import ConnectionFailed
from devicesim.net.tls import Deadlines, TLSContext, TLSSettings, open_tls
from devicesim.outcome import Trace
from devicesim.pki import keyfile
from devicesim.pki.identity import load_certificates

EXIT_TARGET = 3
CLOCK_WARNING_SECONDS = 5.0
CLOCK_LIMIT_SECONDS = 300.0
"""AWS refuses a signature that is more than five minutes off."""
CONNECTIONS_WITHOUT_FLEET = 1000
FIRST_PLAUSIBLE_YEAR = 2025


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    level: Level
    name: str
    detail: str


@click.command(name="doctor")
@click.argument("fleet_path", metavar="[FLEET]", required=False, type=click.Path(path_type=Path))
@click.option("--target", type=click.Choice(["emulator", "aws"]), default="emulator", show_default=True)
@click.option("--endpoint-url", metavar="URL", help="A control plane that runs already.")
@click.option("--cacert", type=click.Path(path_type=Path), metavar="FILE", help="PEM roots that the devices trust.")
@material_options
def command(
    fleet_path: Path | None,
    target: Kind,
    endpoint_url: str | None,
    cacert: Path | None,
    ca_path: Path | None,
    ca_key: Path | None,
    seed: Path | None,
) -> int:
    """Check this machine: file descriptors, ports, clock; with FLEET its files; on AWS credentials and endpoints.

    Exit code 3 when something would keep a run from starting.
    """
    fleet = None if fleet_path is None else load_fleet(fleet_path)
    failed = False

    def tell(check: Check) -> None:
        nonlocal failed
        failed = failed or check.level is Level.FAILED
        click.echo(f"{check.level:7}  {check.name:24} {check.detail}")

    needs = None if fleet is None else needs_of(demand_of(fleet), target)
    for check in machine_checks(read_machine(), needs):
        tell(check)
    if fleet is not None:
        tell(_material_check(fleet, material_files(ca_path, ca_key, seed), target))
        if target == "aws" or endpoint_url is not None:
            trio.run(_tell_all, fleet, target, endpoint_url, cacert, tell)
    return EXIT_TARGET if failed else 0


def machine_checks(machine: Machine, needs: Needs | None) -> Iterator[Check]:
    """What this machine has, held against what a run needs."""
    versions = f"devicesim {__version__}, Python {platform.python_version()}, cryptography {cryptography.__version__}"
    openssl = OpenSSL.SSL.OpenSSL_version(OpenSSL.SSL.OPENSSL_VERSION).decode()
    yield Check(Level.OK, "versions", f"{versions}, {openssl}")
    yield from _limit_checks(machine, needs)
    yield _loopback_check()
    yield _clock_of_this_machine()


def _limit_checks(machine: Machine, needs: Needs | None) -> Iterator[Check]:
    found = {} if needs is None else {each.kind: each for each in lacks(needs, machine)}
    has = {
        Resource.OPEN_FILES: _counted(machine.open_files, "for each process"),
        Resource.PORTS: _counted(machine.ports, "for each source address, towards one address"),
        Resource.MEMORY: "not known" if machine.memory is None else f"{machine.memory // MIB} MiB available",
        Resource.CPUS: str(machine.cpus),
    }
    for kind, detail in has.items():
        lack = found.get(kind)
        if lack is not None:
            level = Level.FAILED if lack.certain else Level.WARNING
            yield Check(level, kind, f"{detail}; {lack.message} ({lack.hint})")
        elif kind is Resource.OPEN_FILES and needs is None and (machine.open_files or inf) < CONNECTIONS_WITHOUT_FLEET:
            yield Check(Level.WARNING, kind, f"{detail}; more than so many connections take: ulimit -Hn 100000")
        else:
            yield Check(Level.OK, kind, detail)


def _counted(count: int | None, words: str) -> str:
    return "no limit known" if count is None else f"{count} {words}"


def _loopback_check() -> Check:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
        except OSError as exc:
            return Check(Level.FAILED, "loopback", f"127.0.0.1 cannot be listened on: {exc.strerror}")
    return Check(Level.OK, "loopback", "127.0.0.1 can be listened on")


def _clock_of_this_machine() -> Check:
    """Certificates are checked by time: a clock that was never set fails every handshake."""
    now = datetime.now(UTC)
    level = Level.OK if now.year >= FIRST_PLAUSIBLE_YEAR else Level.FAILED
    return Check(level, "clock", f"{now:%Y-%m-%d %H:%M:%S} UTC; compared with a target's when one is asked")


def _material_check(fleet: Fleet, files: MaterialFiles, target: Kind) -> Check:
    now = datetime.now(UTC)
    try:
        material = load_material(fleet, files, now=now, make=target == "emulator")
    except DevicesimError as exc:
        return Check(Level.FAILED, "CA and secret", f"{exc}{f' ({exc.hint})' if exc.hint else ''}")
    certificate = material.authority.certificate
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        until = f"{certificate.not_valid_before_utc} to {certificate.not_valid_after_utc}"
        return Check(Level.FAILED, "CA and secret", f"the CA is valid from {until}, which is not now")
    return Check(Level.OK, "CA and secret", f"CA {material.authority.certificate_id[:16]}")


async def _tell_all(
    fleet: Fleet, target: Kind, endpoint_url: str | None, cacert: Path | None, tell: Callable[[Check], None]
) -> None:
    async for check in target_checks(fleet, target, endpoint_url, cacert):
        tell(check)


async def target_checks(
    fleet: Fleet, target: Kind, endpoint_url: str | None, cacert: Path | None
) -> AsyncIterator[Check]:
    """Credentials, clock and endpoint of every account."""
    own = amazon_roots() if cacert is None else load_certificates(keyfile.read(cacert), str(cacert))
    context = TLSContext(TLSSettings(roots=device_roots(fleet, own)))
    for name, access in accesses(fleet, target, endpoint_url).items():
        try:
            with closing(AccountClient(access)) as client:
                await client.check_identity()
                yield Check(Level.OK, f"{name}: credentials", f"for account {access.account_id}")
                endpoint, ahead = await endpoint_and_clock(client, time.time)
                yield _clock_check(name, ahead)
        except TargetError as exc:
            yield Check(Level.FAILED, f"{name}: control plane", f"{exc}{f' ({exc.hint})' if exc.hint else ''}")
            continue
        yield Check(Level.OK, f"{name}: endpoint", endpoint)
        if target == "aws":
            yield await _endpoint_check(name, endpoint, fleet.file.mqtt.port, context)


def _clock_check(name: str, ahead: float | None) -> Check:
    if ahead is None:
        return Check(Level.WARNING, f"{name}: clock", "the control plane does not tell its time")
    level = Level.OK if abs(ahead) <= CLOCK_WARNING_SECONDS else Level.WARNING
    level = level if abs(ahead) <= CLOCK_LIMIT_SECONDS else Level.FAILED
    return Check(level, f"{name}: clock", f"{ahead:+.0f} s against the control plane's")


async def _endpoint_check(name: str, endpoint: str, port: int, context: TLSContext) -> Check:
    """TCP and TLS, without a device certificate: is the endpoint there, and is its certificate what devices trust?"""
    trace = Trace(start=trio.current_time())
    where = f"{endpoint}:{port}"
    try:
        connection = await open_tls(
            context,
            (endpoint, port),
            identity=None,
            server_name=endpoint,
            verify_name=endpoint,
            deadlines=Deadlines(),
            trace=trace,
        )
    except ConnectionFailed as exc:
        return Check(Level.FAILED, f"{name}: reachability", f"{where}: {exc}")
    await connection.aclose()
    return Check(Level.OK, f"{name}: reachability", f"{where}: {trace.tls_version}, certificate trusted")
