"""``devicesim emulate``: the emulator as a process of its own."""

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import click
import trio

from devicesim.cli.emulated import emulator_faults, emulator_settings
from devicesim.emulator.embedded import made_up_accounts
from devicesim.emulator.quotas import Quotas
from devicesim.emulator.service import AccountConfig, EmulatorConfig, serve
from devicesim.errors import TargetError
from devicesim.fleet.sections import Emulator
from devicesim.fleet.spec import load_fleet

MAX_ACCOUNTS = 99


@click.command(name="emulate")
@click.argument("fleet_path", metavar="[FLEET]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--accounts",
    type=click.IntRange(1, MAX_ACCOUNTS),
    help="Without FLEET: so many accounts, 111111111111 and on, in us-east-1; left out: 2.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--api-port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Control plane; 0: any.")
@click.option("--mqtt-port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Gateway; 0: any.")
@click.option(
    "--mqtt-alpn-port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Gateway as on port 443, with ALPN x-amzn-mqtt-ca; 0: any.",
)
@click.option("--admin-port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Admin; 0: any.")
@click.option(
    "--quotas",
    type=click.Choice(["aws", "none"]),
    help="AWS's default quotas, or none at all; left out: those of FLEET, without FLEET AWS's.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Keep accounts and the root's key in DIR, from start to start, however the emulator ends.",
)
@click.option("--until-stdin-closes", is_flag=True, hidden=True, help="Stop when standard input ends.")
def command(
    fleet_path: Path | None,
    accounts: int | None,
    host: str,
    api_port: int,
    mqtt_port: int,
    mqtt_alpn_port: int,
    admin_port: int,
    quotas: str | None,
    state: Path | None,
    until_stdin_closes: bool,
) -> None:
    """Start an IoT Core for several accounts on this machine, with the accounts of FLEET or made-up ones.

    Prints one JSON line when it is ready; stops on SIGTERM or Ctrl-C. Any other 12-digit access key id is an account
    too. State and keys are gone on exit, unless --state says where to keep them. Not for production: it accepts every
    credential, unless FLEET's settings give secret access keys.
    """
    if fleet_path is not None and accounts is not None:
        raise click.UsageError("--accounts goes without FLEET, whose accounts are those of the file")
    section = Emulator()
    if fleet_path is not None:
        fleet = load_fleet(fleet_path)
        section = fleet.file.emulator
        configured = tuple(
            AccountConfig(name=name, account_id=each.id, region=each.region)
            for name, each in fleet.file.accounts.items()
        )
    else:
        configured = made_up_accounts(accounts or 2)
    settings = emulator_settings(section, fleet_path or Path("-"))
    if quotas is not None:
        settings = replace(settings, quotas=Quotas() if quotas == "aws" else Quotas.lifted())
    config = EmulatorConfig(
        accounts=configured,
        host=host,
        api_port=api_port,
        mqtt_port=mqtt_port,
        mqtt_alpn_port=mqtt_alpn_port,
        admin_port=admin_port,
        settings=settings,
        faults=emulator_faults(section, {each.name: each.account_id for each in configured}, fleet_path or Path("-")),
        seed=section.seed,
        state=state,
    )
    trio.run(_serve, config, until_stdin_closes)


async def _serve(config: EmulatorConfig, until_stdin_closes: bool) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            try:
                ready = await nursery.start(lambda *, task_status: serve(config, task_status=task_status))
            except OSError as exc:
                ports = (
                    f"API {config.api_port}, MQTT {config.mqtt_port} and {config.mqtt_alpn_port},"
                    f" admin {config.admin_port}"
                )
                raise TargetError(
                    f"the emulator cannot listen on {config.host!r} ({ports}): {exc.strerror or exc}",
                    hint="name another address or port; port 0 is any that is free",
                ) from exc
            sys.stdout.write(json.dumps(ready.to_json()) + "\n")
            sys.stdout.flush()
            if until_stdin_closes:
                nursery.start_soon(_cancel_at_end_of_input, nursery.cancel_scope)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break


async def _cancel_at_end_of_input(scope: trio.CancelScope) -> None:
    """The parent holds the other end of our standard input: when it is gone, however it went, so are we."""
    async with trio.lowlevel.FdStream(0) as stream:
        while await stream.receive_some(1024):
            pass
    scope.cancel()
