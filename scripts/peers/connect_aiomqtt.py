"""aiomqtt: asyncio around paho-mqtt; a task a device, ``async with Client(...)``, as its documentation has it."""

import asyncio

from peers.phases import client_id, connected, fail, hello, job, need, prepared
from peers.python_tls import OPENSSL, context


async def main() -> None:
    aiomqtt = need("aiomqtt")
    task = job()
    hello("aiomqtt", "paho-mqtt", tls=OPENSSL)
    limit = asyncio.Semaphore(task.concurrency)

    async def device(number: int) -> None:
        try:
            async with aiomqtt.Client(
                task.host,
                task.port,
                identifier=client_id(number),
                tls_context=context(task.roots, task.bundle(number)),
                keepalive=task.keep_alive,
                timeout=60,
            ):
                limit.release()
                await asyncio.Event().wait()
        except aiomqtt.MqttError as exc:
            fail(f"device {number}: {exc}")

    async with asyncio.TaskGroup() as group:
        for batch in task.batches:
            prepared()
            for number in batch:
                await limit.acquire()
                group.create_task(device(number))
            for _ in range(task.concurrency):
                await limit.acquire()
            connected(len(batch))
            for _ in range(task.concurrency):
                limit.release()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
