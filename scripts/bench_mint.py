"""What minting a device identity costs, against the floor: making its key and one signature of the CA's.

Floor and minting are measured in turn, in CPU time of this process; of the rounds, the median. "derived" has its own
floor, for deriving a key from a scalar is another operation of OpenSSL's than drawing one. "prepare" is what a
connection needs beside (Identity.prepare: OpenSSL's own objects), which may be done ahead too.

    .venv/bin/python scripts/bench_mint.py [--count 200] [--rounds 9] [--json FILE]
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.profile import KeyType, Profile, generate_key

SECRET = b"0" * 32
TO_BE_SIGNED = bytes(500)
"""As long as a device certificate's body."""
SLOW = {KeyType.RSA_2048: 40, KeyType.RSA_4096: 400}
"""How many times fewer are made of these: their keys are searched for, which takes now less, now several times as long:
of a few, the ratio says little."""


def microseconds(count: int, make: Callable[[int], object]) -> float:
    """CPU of one, in a row of ``count``."""
    started = time.process_time()
    for number in range(count):
        make(number)
    return (time.process_time() - started) / count * 1e6


def measure(ca: Authority, key_type: KeyType, count: int, rounds: int) -> dict[str, Any]:
    """Medians in microseconds, and the ratios of minting to its floor, each of a round with itself."""
    profile = Profile(names={"fleet": "bench"}, key_type=key_type)
    assert isinstance(ca.key, ec.EllipticCurvePrivateKey)
    signing_key = ca.key
    derived = key_type.curve is not None

    def sign() -> None:
        signing_key.sign(TO_BE_SIGNED, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))

    def floor_random(_number: int) -> None:
        generate_key(key_type)
        sign()

    def floor_derived(number: int) -> None:
        assert key_type.curve is not None
        ec.derive_private_key((number + 1) << 200 | 1, key_type.curve)
        sign()

    tasks: dict[str, Callable[[int], object]] = {
        "floor": floor_random,
        "mint_random": lambda number: ca.mint_random(number, profile=profile),
    }
    if derived:
        tasks["floor_derived"] = floor_derived
        tasks["mint_derived"] = lambda number: ca.mint(number, secret=SECRET, profile=profile)
    identities = [ca.mint_random(number, profile=profile) for number in range(count)]
    tasks["prepare"] = lambda number: identities[number].prepare()
    rows: list[dict[str, float]] = []
    for _ in range(rounds):
        for identity in identities:
            identity.unprepare()
        row = {name: microseconds(count, make) for name, make in tasks.items()}
        row["ratio_random"] = row["mint_random"] / row["floor"]
        if derived:
            row["ratio_derived"] = row["mint_derived"] / row["floor_derived"]
        rows.append(row)
    return {"key_type": key_type.value, **{name: statistics.median(row[name] for row in rows) for name in rows[0]}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="identities of each kind a round; fewer with RSA keys")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    ca = new_shared_authority("bench", KeyType.EC_P256, now=datetime.now(UTC), validity=timedelta(days=1))
    results = []
    columns = ("floor", "mint_random", "ratio_random", "floor_derived", "mint_derived", "ratio_derived", "prepare")
    print("microseconds".ljust(12), *(name.rjust(14) for name in columns))
    for key_type in KeyType:
        slow = SLOW.get(key_type)
        count = max(1, arguments.count // slow) if slow else arguments.count
        result = measure(ca, key_type, count, arguments.rounds if slow is None else min(arguments.rounds, 3))
        results.append(result)
        cells = (
            f"{result[name]:.2f}" if "ratio" in name else f"{result[name]:.0f}" for name in columns if name in result
        )
        shown = dict(zip((name for name in columns if name in result), cells, strict=True))
        print(key_type.value.ljust(12), *(shown.get(name, "-").rjust(14) for name in columns), flush=True)
    if arguments.json:
        document = {
            "results": results,
            "unit": "microseconds of CPU",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
