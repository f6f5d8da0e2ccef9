"""The floor in memory: the client's half of handshakes without a socket, told by its own thread's CPU clock, for the
server's half runs in the same thread."""

from floor import OPENSSL, VERSIONS, handshake_seconds
from peers.phases import connected, hello, job, prepared


def main() -> None:
    task = job()
    hello("pyOpenSSL", tls=OPENSSL)
    (version,) = (each for each in VERSIONS if each == task.tls)
    for batch in task.batches:
        prepared()
        connected(len(batch), cpu_seconds=handshake_seconds(version, len(batch)) * len(batch))


if __name__ == "__main__":
    main()
