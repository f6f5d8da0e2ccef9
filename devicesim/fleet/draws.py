"""Random numbers of one device, from a seed. Pure."""

from hashlib import blake2b

_BYTES = 8


class Draws:
    """Numbers in [0, 1), the same for the same seed, whoever else draws in between.

    ``random.Random`` keeps 2.5 KB of state, which is a lot for the three numbers of a device that stays for hours.
    """

    __slots__ = ("_drawn", "_seed")

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._drawn = 0

    def __call__(self) -> float:
        self._drawn += 1
        digest = blake2b(f"{self._seed}/{self._drawn}".encode(), digest_size=_BYTES).digest()
        # 53 bits, which a float holds exactly: rounding up to 1.0 cannot happen
        return (int.from_bytes(digest, "big") >> 11) / 2**53
