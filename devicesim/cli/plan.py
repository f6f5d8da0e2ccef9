"""``devicesim plan``: what a fleet needs, of the machine and of AWS, before anything is connected."""

import sys
from math import ceil
from pathlib import Path

import click
from rich.console import Console

from devicesim import __version__
from devicesim.cli.limits import read_machine
from devicesim.cli.options import Rate
from devicesim.fleet import capacity
from devicesim.fleet.capacity import Machine, Needs, lacks, needs_of
from devicesim.fleet.demand import CONNECT_SECONDS, AccountDemand, Demand, GroupDemand, demand_of
from devicesim.fleet.fields import MAX_DEVICES
from devicesim.fleet.quotas import AccountBounds, Bound, account_bounds
from devicesim.fleet.spec import at_rate, load_fleet
from devicesim.report.plan_document import (
    Plan,
    PlannedAccount,
    PlannedCosts,
    PlannedGroup,
    PlannedLack,
    PlannedLimit,
    PlannedLoad,
    PlannedMachine,
    PlannedSchedule,
)
from devicesim.report.plan_text import render


@click.command(name="plan")
@click.argument("fleet_path", metavar="FLEET", type=click.Path(path_type=Path))
@click.option(
    "--devices", type=click.IntRange(1, MAX_DEVICES), metavar="N", help="So many devices, in the file's proportions."
)
@click.option("--rate", type=Rate(), help="Starts a second, such as 50/s, in place of the file's.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as one JSON document.")
def command(fleet_path: Path, devices: int | None, rate: float | None, as_json: bool) -> int:
    """Compute what FLEET needs against AWS: time, cores, memory, ports, and AWS's limits. Connects to nothing."""
    fleet = load_fleet(fleet_path)
    if rate is not None:
        fleet = at_rate(fleet, rate)
    if devices is not None:
        fleet = fleet.resized(devices)
    plan = plan_of(fleet.name, demand_of(fleet), read_machine())
    if as_json:
        click.echo(plan.to_json())
    else:
        Console(file=sys.stdout, highlight=False).print(render(plan))
    return 0


def plan_of(fleet: str, demand: Demand, machine: Machine) -> Plan:
    """The plan as a document; ``machine`` is held against it."""
    needs = needs_of(demand, "aws")
    bounds = [account_bounds(each) for each in demand.accounts]
    slowed = max((each.slowed for each in bounds), default=1.0)
    within = None if slowed <= 1 or demand.estimated else demand.starts_per_second / slowed
    return Plan(
        fleet=fleet,
        devicesim_version=__version__,
        devices=demand.devices,
        connections=demand.connections,
        schedule=PlannedSchedule(
            description=demand.schedule.describe(),
            seconds=demand.seconds,
            estimated=demand.estimated,
            starts_per_second=demand.starts_per_second,
            connects_per_second=demand.connects_per_second,
            hold_seconds=demand.hold,
        ),
        groups=tuple(map(_group, demand.groups)),
        accounts=tuple(map(_account, demand.accounts, bounds)),
        rate_within_limits=within,
        load=_load(needs, machine),
        machine=PlannedMachine(
            cores=machine.cpus, open_files=machine.open_files, ports=machine.ports, memory=machine.memory
        ),
        lacks=tuple(
            PlannedLack(kind=each.kind, certain=each.certain, text=each.message, hint=each.hint)
            for each in lacks(needs, machine)
        ),
        costs=PlannedCosts(
            connack_cpu_seconds=capacity.CONNACK_CPU,
            connection_cpu_seconds=capacity.CONNECTION_CPU,
            message_cpu_seconds=capacity.MESSAGE_CPU,
            device_bytes=capacity.DEVICE_BYTES,
            process_bytes=capacity.PROCESS_BYTES,
            asked_bytes=capacity.ASKED_BYTES,
            busy=capacity.BUSY,
            connect_seconds=CONNECT_SECONDS,
            time_wait_seconds=machine.time_wait_abroad,
        ),
    )


def _group(group: GroupDemand) -> PlannedGroup:
    return PlannedGroup(
        name=group.name,
        devices=group.devices,
        dials=group.dials,
        counts_in=group.counts_in,
        outcome=group.outcome,
        tries=group.tries,
        connected=group.connected,
        messages_per_second=group.messages,
    )


def _account(demand: AccountDemand, bounds: AccountBounds) -> PlannedAccount:
    binding = bounds.binding
    return PlannedAccount(
        name=demand.name,
        account_id=demand.account.id,
        region=demand.account.region,
        devices=demand.devices,
        limits=tuple(map(_limit, bounds.bounds)),
        binding=None if binding is None else binding.quota.name,
        least_seconds=bounds.seconds,
        least_seconds_asking=bounds.seconds_asking,
    )


def _limit(bound: Bound) -> PlannedLimit:
    quota = bound.quota
    return PlannedLimit(
        name=quota.name,
        default=quota.limit,
        at_once=quota.at_once,
        per_connection=quota.per_connection,
        bytes=quota.unit == "B",
        afterwards=quota.afterwards,
        total=bound.total,
        needed=bound.needed,
        exceeded=bound.exceeded,
        ask_for=ceil(bound.needed) if bound.exceeded and bound.needed is not None else None,
        least_seconds=None if bound.total is None else bound.seconds,
        mark=quota.mark,
        source=quota.source,
    )


def _load(needs: Needs, machine: Machine) -> PlannedLoad:
    demand, time_wait = needs.demand, machine.time_wait_abroad
    return PlannedLoad(
        processes=needs.processes,
        cores=needs.cores,
        connected=demand.connected,
        connected_if_slow=demand.connected_if_slow,
        under_way=demand.under_way,
        open_files=needs.descriptors,
        open_files_if_slow=needs.descriptors_if_slow,
        ports=needs.ports(time_wait),
        sources=needs.sources(machine.ports or capacity.USUAL_PORTS, time_wait),
        memory=needs.memory,
        memory_devices=needs.device_memory,
        memory_processes=needs.process_memory,
        memory_asking=needs.asking_memory,
    )
