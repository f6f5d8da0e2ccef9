"""awscrt, what AWS's device SDK for Python stands on: its MQTT 5 client, which AWS recommends for new devices.

One event loop, host resolver and bootstrap for all, and a TLS context a device, because the certificate belongs to it.
Each context reads the system's CAs before it is told that others are trusted in their place (s2n-tls #5351), which is
most of its cost. Its library finds them by SSL_CERT_FILE and SSL_CERT_DIR, and bench_connect.py also measures it with
these pointing at nothing.
"""

import threading
from functools import partial

from peers.phases import client_id, connected, fail, hello, job, need, prepared


def split(bundle: bytes) -> tuple[bytes, bytes]:
    """Certificates and key of a PEM bundle, the key last."""
    certificates, begin, key = bundle.partition(b"-----BEGIN PRIVATE KEY-----")
    return certificates, begin + key


def main() -> None:
    io, mqtt5 = need("awscrt.io"), need("awscrt.mqtt5")
    task = job()
    hello("awscrt")
    group = io.EventLoopGroup(1)
    bootstrap = io.ClientBootstrap(group, io.DefaultHostResolver(group))
    roots = task.roots.read_bytes()
    limit = threading.Semaphore(task.concurrency)
    held = []

    def on_success(_told: object) -> None:
        limit.release()

    def on_failure(number: int, told: object) -> None:
        fail(f"device {number}: {getattr(told, 'exception', told)}")

    for batch in task.batches:
        material = [split(task.bundle(each).read_bytes()) for each in batch]
        prepared()
        for number, (certificates, key) in zip(batch, material, strict=True):
            limit.acquire()
            options = io.TlsContextOptions.create_client_with_mtls(certificates, key)
            options.override_default_trust_store(roots)
            client = mqtt5.Client(
                mqtt5.ClientOptions(
                    host_name=task.host,
                    port=task.port,
                    bootstrap=bootstrap,
                    tls_ctx=io.ClientTlsContext(options),
                    connect_options=mqtt5.ConnectPacket(
                        client_id=client_id(number), keep_alive_interval_sec=task.keep_alive
                    ),
                    on_lifecycle_event_connection_success_fn=on_success,
                    on_lifecycle_event_connection_failure_fn=partial(on_failure, number),
                )
            )
            client.start()
            held.append(client)
        for _ in range(task.concurrency):
            limit.acquire()
        connected(len(batch))
        limit.release(task.concurrency)


if __name__ == "__main__":
    main()
