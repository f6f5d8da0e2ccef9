"""RSA keys made beforehand, in a thread: making one takes a twentieth of a second, which nobody else should wait.

CreateKeysAndCertificate and its sisters answer keys that the service makes. :class:`KeyPool` has a few ready; when it
has none, it makes one while its caller waits, so that it is always right and only sometimes slow.
"""

from collections import deque

import trio
from cryptography.hazmat.primitives.asymmetric import rsa


def make_key() -> rsa.RSAPrivateKey:
    """A key of the kind that AWS makes: RSA of 2048 bits."""
    return rsa.generate_private_key(65537, 2048)


class KeyPool:
    """Some keys in stock. Begins to stock up when the first one is asked for: most runs need none."""

    def __init__(self, size: int = 8) -> None:
        self._size = size
        self._ready: deque[rsa.RSAPrivateKey] = deque()
        self._asked = trio.Event()

    def __len__(self) -> int:
        return len(self._ready)

    def take(self) -> rsa.RSAPrivateKey:
        """A key that nobody else has or gets; from the thread that trio runs in."""
        self._asked.set()
        return self._ready.popleft() if self._ready else make_key()

    async def run(self) -> None:
        """Keep the stock full, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            while len(self._ready) < self._size:
                # a key takes milliseconds: a cancelled pool does not wait for it, and the thread ends by itself
                self._ready.append(await trio.to_thread.run_sync(make_key, abandon_on_cancel=True))
