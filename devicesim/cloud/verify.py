"""Verification: which account now holds which certificate, in which status and mode, with which things."""

from collections.abc import Collection
from dataclasses import replace

import trio

from devicesim.cloud.account import PARALLEL_CALLS, AccountClient, ControlPlaneError
from devicesim.outcome import Holding

PAGE_SIZE = 250
"""The largest that ListCertificatesByCA takes (aws-iot-behaviour.md §1.3)."""


async def holdings(
    client: AccountClient, ca_id: str, certificate_ids: Collection[str] | None, *, with_things: bool
) -> list[Holding]:
    """The account's records of these certificates under one CA (``None``: of all), in the order of their ids.

    Certificates of the CA that are not asked about (another run's) are left out. Things cost a call each, and are asked
    for only when ``with_things`` says so. A CA that is not registered here holds nothing.
    """
    wanted = None if certificate_ids is None else frozenset(certificate_ids)
    found: dict[str, Holding] = {}
    try:
        async for record in client.pages(
            "list_certificates_by_ca", "certificates", caCertificateId=ca_id, PaginationConfig={"PageSize": PAGE_SIZE}
        ):
            if wanted is None or record["certificateId"] in wanted:
                holding = Holding(
                    account=client.access.name,
                    certificate_id=record["certificateId"],
                    status=record["status"],
                    mode=record.get("certificateMode"),
                )
                found[holding.certificate_id] = holding
    except ControlPlaneError as exc:
        if exc.code != "ResourceNotFoundException":
            raise
    if with_things:
        await _add_things(client, found)
    return [found[each] for each in sorted(found)]


async def _add_things(client: AccountClient, found: dict[str, Holding]) -> None:
    async def work(queue: trio.MemoryReceiveChannel[Holding]) -> None:
        async for holding in queue:
            principal = client.access.arn(f"cert/{holding.certificate_id}")
            things = [str(each) async for each in client.pages("list_principal_things", "things", principal=principal)]
            found[holding.certificate_id] = replace(holding, things=tuple(things))

    sender, receiver = trio.open_memory_channel[Holding](0)
    async with trio.open_nursery() as nursery, sender:
        for _ in range(PARALLEL_CALLS):
            nursery.start_soon(work, receiver)
        for holding in list(found.values()):
            await sender.send(holding)
