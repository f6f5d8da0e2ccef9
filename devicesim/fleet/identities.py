"""Where the devices' identities come from: derived, random or imported; the CA and the fleet secret behind them."""

import glob
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from devicesim.errors import KeyMaterialError
from devicesim.fleet.sections import SUBJECT_CLIENT_ID, TOPIC_CLIENT_ID
from devicesim.fleet.spec import Fleet
from devicesim.pki import keyfile
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity, load_identity
from devicesim.pki.profile import render

RUN_CA_VALIDITY = timedelta(days=365)
"""Of a CA that is made for one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The shared CA and the fleet secret."""

    authority: Authority
    secret: bytes | None
    """``None`` when no device key is derived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterialFiles:
    """Files that the command line names in place of the fleet file's ``[ca]``."""

    ca: Path | None = None
    ca_key: Path | None = None
    secret: Path | None = None


def load_material(fleet: Fleet, files: MaterialFiles, *, now: datetime, make: bool) -> Material:
    """The CA and secret that the fleet file or the command line names.

    What neither names is made and kept in memory only when ``make`` says so; else :class:`KeyMaterialError`.
    """
    section = fleet.file.ca
    certificate = files.ca or (fleet.resolve(section.certificate) if section.certificate else None)
    key = files.ca_key or (fleet.resolve(section.key) if section.key and not files.ca else None)
    secret = files.secret or (fleet.resolve(section.secret) if section.secret else None)
    if files.ca_key and not files.ca:
        raise KeyMaterialError(f"--ca-key {str(files.ca_key)!r} without --ca", hint="give the CA's certificate too")
    if certificate is not None:
        certificate_pem = keyfile.read(certificate)
        key_pem = None if key is None else keyfile.read(key)
        authority = Authority.load(certificate_pem, key_pem, str(certificate))
    elif make:
        authority = new_shared_authority(section.common_name, section.key_type, now=now, validity=RUN_CA_VALIDITY)
    else:
        raise _nothing_named(fleet, "CA", "--ca and --ca-key")
    if fleet.file.devices.keys != "derived":
        return Material(authority=authority, secret=None)
    if secret is not None:
        return Material(authority=authority, secret=keyfile.load_secret(secret))
    if not make:
        raise _nothing_named(fleet, "fleet secret", "--seed")
    return Material(authority=authority, secret=keyfile.new_secret())


Minter = Callable[[str, int], Identity]
"""From a group's name and the device's number in the group to its identity."""


def minter(fleet: Fleet, material: Material) -> Minter:
    """How this fleet's identities are had. Imported bundles are all found (not yet read) here."""
    keys = fleet.file.devices.keys
    profiles = {name: fleet.device_profile(name) for name in fleet.file.groups}
    first = {name: fleet.first_index(name) for name in fleet.file.groups}
    authority, secret = material.authority, material.secret
    if keys == "imported":
        bundles = _bundles(fleet)

        def imported(group: str, member: int) -> Identity:
            path = bundles[first[group] + member]
            identity = load_identity(keyfile.read(path), str(path), prove=False)  # in the event loop
            try:
                identity.certificate.verify_directly_issued_by(authority.certificate)
            except (ValueError, TypeError, InvalidSignature) as exc:  # by name, by kind of key, by signature
                issuer = identity.certificate.issuer.rfc4514_string()
                raise KeyMaterialError(
                    f"{path} was issued by {issuer!r}, which is not the CA, or not by its key"
                ) from exc
            return identity

        return imported
    assert secret is not None or keys == "random"
    derived_from = secret if keys == "derived" else None
    series = {name: authority.series(profile, secret=derived_from) for name, profile in profiles.items()}
    return lambda group, member: series[group].mint(first[group] + member)


def client_id(fleet: Fleet, group: str, member: int, identity: Identity) -> str:
    """The MQTT client id of a device: by default its certificate's CN."""
    template = fleet.file.groups[group].client_id
    if template == SUBJECT_CLIENT_ID:
        return common_name(identity)
    template = template.replace(SUBJECT_CLIENT_ID, _escaped(common_name(identity)))
    return render(template, fleet.first_index(group) + member, fleet.names(group), "client_id")


def topic(fleet: Fleet, group: str, member: int, client: str) -> str | None:
    """Where a device publishes; ``None``: it does not."""
    telemetry = fleet.file.groups[group].telemetry
    if telemetry is None:
        return None
    template = telemetry.topic.replace(TOPIC_CLIENT_ID, _escaped(client))
    return render(template, fleet.first_index(group) + member, fleet.names(group), "topic")


def common_name(identity: Identity) -> str:
    names = identity.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else identity.certificate_id


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _bundles(fleet: Fleet) -> list[Path]:
    pattern = fleet.file.devices.bundles
    assert pattern is not None
    found = sorted(Path(each) for each in glob.glob(str(fleet.resolve(pattern))))
    needed = max(fleet.first_index(name) + group.count for name, group in fleet.file.groups.items())
    if len(found) < needed:
        raise KeyMaterialError(
            f"devices.bundles {pattern!r} matches {len(found)} files; {needed} devices need one each"
        )
    return found


def _nothing_named(fleet: Fleet, what: str, flags: str) -> KeyMaterialError:
    return KeyMaterialError(
        f"{fleet.path} names no {what}",
        hint=f"devicesim ca create --out DIR makes one; name it in [ca] or with {flags}",
    )
