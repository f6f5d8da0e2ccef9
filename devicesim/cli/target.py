"""Which target a verb works on: its options, and the target that they name, with an emulator of its own where none is.

``--endpoint-url`` and ``--connect-to`` are the addresses of a target that runs already; without them ``--target
emulator`` starts one for the fleet.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from devicesim.cli.child import Child, emulator
from devicesim.cli.options import host_and_port
from devicesim.fleet.spec import Fleet
from devicesim.fleet.target import Kind, Target, accesses, amazon_roots, device_roots
from devicesim.pki import keyfile
from devicesim.pki.identity import load_certificates

ALPN_PORT = 443
"""Devices that dial it on AWS say by ALPN what they speak; the emulator has a port that plays it."""

Command = Callable[..., Any]


def target_options(function: Command) -> Command:
    """``--target``, ``--endpoint-url``, ``--connect-to`` and ``--cacert``."""
    url = "A control plane that runs already; then no emulator is started."
    for option in (
        click.option(
            "--cacert", type=click.Path(path_type=Path), metavar="FILE", help="PEM roots that the devices trust."
        ),
        click.option("--connect-to", metavar="HOST:PORT", help="Dial this in place of the endpoints; the names stay."),
        click.option("--endpoint-url", metavar="URL", help=url),
        click.option("--target", type=click.Choice(["emulator", "aws"]), default="emulator", show_default=True),
    ):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOptions:
    """What those options say."""

    kind: Kind
    endpoint_url: str | None
    connect_to: tuple[str, int] | None
    cacert: Path | None

    @classmethod
    def of(cls, target: Kind, endpoint_url: str | None, connect_to: str | None, cacert: Path | None) -> "TargetOptions":
        """From the options' texts."""
        address = None if connect_to is None else host_and_port(connect_to, "--connect-to")
        return cls(kind=target, endpoint_url=endpoint_url, connect_to=address, cacert=cacert)

    @property
    def starts_emulator(self) -> bool:
        return self.kind == "emulator" and self.endpoint_url is None

    def check(self, fleet: Fleet) -> None:
        """Raise for options that do not go together, and for what an emulator of ours would refuse of the fleet file:
        told here, not by the child's failing to start."""
        if self.kind == "emulator" and self.endpoint_url is not None and not (self.connect_to and self.cacert):
            raise click.UsageError(
                "--endpoint-url of an emulator needs --connect-to and --cacert too: mqtt and ca_file of its ready line"
            )
        if self.starts_emulator:
            # the emulator's modules are 1 MiB for which a run against another target has no use
            from devicesim.cli.emulated import emulator_faults, emulator_settings

            section, accounts = fleet.file.emulator, fleet.file.accounts
            emulator_settings(section, fleet.path)
            emulator_faults(section, {name: each.id for name, each in accounts.items()}, fleet.path)

    async def open(
        self, fleet: Fleet, log_path: Path, stack: AsyncExitStack, *options: str
    ) -> tuple[Target, Child | None]:
        """The target, and the emulator that was started for it when it is to be ours; it ends with ``stack``.

        ``options`` are further ones of that emulator.
        """
        given = child = None
        if self.cacert is not None:
            given = load_certificates(keyfile.read(self.cacert), str(self.cacert))
        url, addresses = self.endpoint_url, {}
        if self.starts_emulator:
            child = await stack.enter_async_context(emulator(fleet.path, log_path, *options))
            ready = child.ready
            url = ready["api"]
            door = "mqtt_alpn" if fleet.file.mqtt.port == ALPN_PORT else "mqtt"
            addresses = {each["name"]: (each[door]["host"], each[door]["port"]) for each in ready["accounts"]}
            ca_file = Path(ready["ca_file"])
            given = load_certificates(keyfile.read(ca_file), str(ca_file)) if given is None else given
        if self.connect_to is not None:
            addresses = dict.fromkeys(fleet.file.accounts, self.connect_to)
        own_roots = amazon_roots() if given is None else given
        target = Target(
            kind=self.kind,
            accounts=accesses(fleet, self.kind, url),
            addresses=addresses,
            port=fleet.file.mqtt.port,
            roots=device_roots(fleet, own_roots),
            own_roots=own_roots,
        )
        return target, child
