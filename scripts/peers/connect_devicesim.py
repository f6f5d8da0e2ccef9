"""devicesim, as fleet/device.py has it: a trio task a device, one TLS context, the identity set on the connection.

A fleet mints its identities ahead of their time, with what OpenSSL needs of them, and forgets them while a device
stays. With ``UNPREPARED`` in the environment that is made within the connection, as all others do.
"""

import math
import os

import trio
from floor import OPENSSL
from peers.phases import client_id, connected, fail, hello, job, prepared

from devicesim.net.failures import ConnectionFailed
from devicesim.net.mqtt import MQTTSettings, open_mqtt
from devicesim.net.tls import Deadlines, TLSContext, TLSSettings
from devicesim.outcome import Trace
from devicesim.pki.identity import Identity, load_certificates, load_identity

PATIENT = 60.0
"""Seconds a stage: how long a connection takes is not judged here."""


async def main() -> None:
    task = job()
    hello("devicesim", "paho-mqtt", "pyOpenSSL", tls=OPENSSL)
    roots = load_certificates(task.roots.read_bytes(), str(task.roots))
    settings = MQTTSettings(keep_alive=task.keep_alive)
    deadlines = Deadlines(tcp=PATIENT, tls=PATIENT, connect=PATIENT, connack=PATIENT)
    limit = trio.Semaphore(task.concurrency)
    context: TLSContext | None = None

    async def device(number: int, identity: Identity, context: TLSContext) -> None:
        try:
            async with open_mqtt(
                context,
                (task.host, task.port),
                identity=identity,
                server_name=task.server_name,
                verify_name=task.server_name,
                client_id=client_id(number),
                settings=settings,
                deadlines=deadlines,
                trace=Trace(start=trio.current_time()),
                attended=True,
            ) as client:
                del identity
                limit.release()
                await client.wait_closed()
        except ConnectionFailed as exc:
            fail(f"device {number}: {exc}")

    async with trio.open_nursery() as nursery:
        for batch in task.batches:
            identities = [load_identity(task.bundle(each).read_bytes(), str(each)) for each in batch]
            if context is None:
                context = TLSContext(TLSSettings(roots=roots, chain=identities[0].chain))
            if "UNPREPARED" not in os.environ:
                for identity in identities:
                    identity.prepare()
            prepared()
            identities.reverse()
            for number in batch:
                await limit.acquire()
                nursery.start_soon(device, number, identities.pop(), context)
            for _ in range(task.concurrency):  # that all are free says that nobody connects any more
                await limit.acquire()
            connected(len(batch))
            for _ in range(task.concurrency):
                limit.release()
        await trio.sleep(math.inf)


if __name__ == "__main__":
    trio.run(main)
