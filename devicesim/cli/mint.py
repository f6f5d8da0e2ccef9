"""``devicesim mint``: device certificates as PEM bundles or one NDJSON stream."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import click

from devicesim.cli.options import material_files, material_options
from devicesim.errors import KeyMaterialError
from devicesim.fleet.identities import client_id, load_material, minter
from devicesim.fleet.spec import Fleet, load_fleet
from devicesim.pki import keyfile
from devicesim.pki.identity import Identity, certificate_pem, private_key_pem


@click.command(name="mint")
@click.argument("fleet_path", metavar="FLEET", type=click.Path(path_type=Path))
@click.option("--count", "-c", type=click.IntRange(min=1), help="How many devices; left out: all of the file.")
@click.option("--startnumber", "-n", type=click.IntRange(min=0), default=0, show_default=True, help="Skip so many.")
@click.option("--out", required=True, metavar="DIR|-", help="Directory for PEM bundles, or - for NDJSON on stdout.")
@material_options
def command(
    fleet_path: Path,
    count: int | None,
    startnumber: int,
    out: str,
    ca_path: Path | None,
    ca_key: Path | None,
    seed: Path | None,
) -> None:
    """Mint the devices of FLEET, group after group: the same bytes on every run and machine."""
    fleet = load_fleet(fleet_path)
    available = fleet.size - startnumber
    if available < (count or 1):
        raise click.UsageError(
            f"{count or 1} devices from number {startnumber} on are asked for; the fleet has {fleet.size}"
        )
    material = load_material(fleet, material_files(ca_path, ca_key, seed), now=datetime.now(UTC), make=False)
    if fleet.file.devices.keys == "random":
        click.echo("devicesim: keys are random: another run mints other certificates", err=True)
    mint = minter(fleet, material)
    wanted = list(islice(_members(fleet), startnumber, startnumber + (count or available)))
    if out == "-":
        for group, member in wanted:
            identity = mint(group, member)
            sys.stdout.write(json.dumps(_row(fleet, group, member, identity)) + "\n")
        return
    directory = Path(out)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise KeyMaterialError(f"{directory} cannot be made: {exc.strerror}") from exc
    for group, member in wanted:
        identity = mint(group, member)
        keyfile.write_private(directory / f"{group}-{fleet.first_index(group) + member:06d}.pem", identity.pem())
    click.echo(f"wrote {len(wanted)} bundles (certificate, CA, key) to {directory}")


def _members(fleet: Fleet) -> Iterator[tuple[str, int]]:
    for name, group in fleet.file.groups.items():
        for member in range(group.count):
            yield name, member


def _row(fleet: Fleet, group: str, member: int, identity: Identity) -> dict[str, object]:
    return {
        "index": fleet.first_index(group) + member,
        "group": group,
        "client_id": client_id(fleet, group, member, identity),
        "certificate_id": identity.certificate_id,
        "certificate_pem": certificate_pem(identity.certificate),
        "chain_pem": "".join(certificate_pem(each) for each in identity.chain),
        "private_key_pem": private_key_pem(identity.key),
    }
