"""Where a fleet runs: each account's control plane, the front door that its devices dial, the roots that they trust."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from cryptography import x509

from devicesim.cloud.account import AccountAccess
from devicesim.fleet.spec import Fleet
from devicesim.pki import keyfile
from devicesim.pki.identity import load_certificates

Kind = Literal["emulator", "aws"]

_AMAZON = re.compile(
    rb"^# Subject: CN=Amazon Root CA[^\n]*\n(?:#[^\n]*\n)*"
    rb"(-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----)",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A target, resolved for one fleet."""

    kind: Kind
    accounts: Mapping[str, AccountAccess]
    """By account name."""
    addresses: Mapping[str, tuple[str, int]]
    """What is dialled for an account, by its name; an account that is absent is dialled at its endpoint."""
    port: int
    """Of the accounts that are dialled at their endpoint."""
    roots: tuple[x509.Certificate, ...]
    """What the devices trust."""
    own_roots: tuple[x509.Certificate, ...]
    """What the target's server certificates chain to: what an activator trusts, whatever the devices do."""

    def address(self, account: str, endpoint: str) -> tuple[str, int]:
        return self.addresses.get(account, (endpoint, self.port))


def accesses(fleet: Fleet, kind: Kind, endpoint_url: str | None) -> dict[str, AccountAccess]:
    """How each account's control plane is reached."""
    return {
        name: AccountAccess(
            name=name,
            account_id=account.id,
            region=account.region,
            endpoint_url=endpoint_url,
            profile=None if kind == "emulator" else account.profile,
            emulated=kind == "emulator",
        )
        for name, account in fleet.file.accounts.items()
    }


def device_roots(fleet: Fleet, own: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, ...]:
    """The roots that devices trust: the fleet file's, else the target's own."""
    if fleet.file.tls.roots is None:
        return own
    path = fleet.resolve(fleet.file.tls.roots)
    return load_certificates(keyfile.read(path), str(path))


def amazon_roots() -> tuple[x509.Certificate, ...]:
    """Amazon Root CA 1 to 4, out of the bundle that botocore ships.

    Devices are told to trust these and no others (aws-iot-behaviour.md §4.3), so the system's trust store is left out.
    They are picked by the bundle's comments before anything is parsed: it has certificates of others that cryptography
    objects to.
    """
    bundle = files("botocore").joinpath("cacert.pem").read_bytes()
    return load_certificates(b"\n".join(_AMAZON.findall(bundle)), "botocore's cacert.pem")
