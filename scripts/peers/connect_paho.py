"""paho-mqtt alone, as its documentation has it: ``connect_async`` and ``loop_start``, that is a thread a client.

Its loop calls ``select()``, which takes file descriptors below 1024, and it holds three a client: 340 clients at most.
"""

import threading

from peers.phases import client_id, connected, fail, hello, job, need, prepared
from peers.python_tls import OPENSSL, context


def main() -> None:
    paho = need("paho.mqtt.client")
    task = job()
    hello("paho-mqtt", tls=OPENSSL)
    limit = threading.Semaphore(task.concurrency)
    held = []

    def on_connect(_client: object, number: int, _flags: object, reason: object, _properties: object) -> None:
        if reason != 0:
            fail(f"device {number}: {reason}")
        limit.release()

    def on_connect_fail(_client: object, number: int) -> None:
        fail(f"device {number} could not connect")

    for batch in task.batches:
        prepared()
        for number in batch:
            limit.acquire()
            client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id(number), userdata=number)
            client.tls_set_context(context(task.roots, task.bundle(number)))
            client.on_connect = on_connect
            client.on_connect_fail = on_connect_fail
            client.connect_async(task.host, task.port, keepalive=task.keep_alive)
            client.loop_start()
            held.append(client)
        for _ in range(task.concurrency):
            limit.acquire()
        connected(len(batch))
        limit.release(task.concurrency)


if __name__ == "__main__":
    main()
