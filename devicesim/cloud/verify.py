"""Verification: which account now holds which certificate, in which status and mode, with which things."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import trio

from devicesim.cloud.account import PARALLEL_CALLS, AccountClient, ControlPlaneError
from devicesim.outcome import Holding

PAGE_SIZE = 250
"""The largest that ListCertificatesByCA takes (aws-iot-behaviour.md §1.3)."""


async def holdings(
    client: AccountClient, ca_id: str, certificate_ids: Collection[str] | None, *, things: int | None
) -> list[Holding]:
    """The account's records of these certificates under one CA (``None``: of all), in the order of their ids.

    Certificates of the CA that are not asked about (another run's) are left out. Things cost a call each: ``things``
    certificates are asked for theirs (``None``: all), the first by their ids, which are hashes, so that they are as
    good as drawn. A CA that is not registered here holds nothing.
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
    await _add_things(client, found, sorted(found)[:things])
    return [found[each] for each in sorted(found)]


async def _add_things(client: AccountClient, found: dict[str, Holding], wanted: Sequence[str]) -> None:
    async def work(queue: trio.MemoryReceiveChannel[str]) -> None:
        async for certificate in queue:
            principal = client.access.arn(f"cert/{certificate}")
            things = [str(each) async for each in client.pages("list_principal_things", "things", principal=principal)]
            found[certificate] = replace(found[certificate], things=tuple(things))

    sender, receiver = trio.open_memory_channel[str](0)
    async with trio.open_nursery() as nursery, sender:
        for _ in range(PARALLEL_CALLS):
            nursery.start_soon(work, receiver)
        for certificate in wanted:
            await sender.send(certificate)
