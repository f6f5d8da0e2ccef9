"""What minting a device identity costs, against the floor: making a key and one signature of the CA's.

Floor and minting are measured in turn, in CPU time of this process; each ratio is a round's with itself, and of the
rounds the median is shown. The floor is that of a random key throughout, also for "derived": deriving a key from a
scalar costs OpenSSL more than drawing one, which stands beside as "derive+sign". "ready" is minted and prepared
(Identity.prepare: OpenSSL's own objects for the connection), which is done ahead of a device's start too. "openssl" is
what no way of ours can save of a derived identity that is ready: deriving the key, the signature, and OpenSSL's own
reading of certificate and key.

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

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.pair import read_pair
from devicesim.pki.profile import KeyType, Profile, generate_key

SECRET = b"0" * 32
TO_BE_SIGNED = bytes(500)
"""As long as a device certificate's body."""
SLOW = {KeyType.RSA_2048: 40, KeyType.RSA_4096: 400}
"""How many times fewer are made of these: their keys are searched for, which takes now less, now several times as long:
of a few, the ratio says little."""
FLOOR = "keygen+sign"
COLUMNS = (
    FLOOR,
    *("random", "derived", "random ready", "derived ready"),
    *("derive+sign", "openssl"),
)


def microseconds(count: int, make: Callable[[int], object]) -> float:
    """CPU of one, in a row of ``count``."""
    started = time.process_time()
    for number in range(count):
        make(number)
    return (time.process_time() - started) / count * 1e6


def tasks_of(ca: Authority, key_type: KeyType) -> dict[str, Callable[[int], object]]:
    """What is measured, by its column."""
    profile = Profile(names={"fleet": "bench"}, key_type=key_type)
    signing_key, curve = ca.key, key_type.curve
    assert isinstance(signing_key, ec.EllipticCurvePrivateKey)
    ecdsa = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)

    def floor(_number: int) -> None:
        generate_key(key_type)
        signing_key.sign(TO_BE_SIGNED, ecdsa)

    random = ca.series(profile, secret=None)
    tasks: dict[str, Callable[[int], object]] = {
        FLOOR: floor,
        "random": random.mint,
        "random ready": lambda number: random.mint(number).prepare(),
    }
    if curve is None:
        return tasks
    derived = ca.series(profile, secret=SECRET)
    identity = derived.mint(0)
    private = identity.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

    def derive_and_sign(number: int) -> None:
        ec.derive_private_key((number + 1) << 200 | 1, curve)
        signing_key.sign(TO_BE_SIGNED, ecdsa)

    def openssl(number: int) -> None:
        derive_and_sign(number)
        read_pair(identity.der, private)

    return tasks | {
        "derived": derived.mint,
        "derived ready": lambda number: derived.mint(number).prepare(),
        "derive+sign": derive_and_sign,
        "openssl": openssl,
    }


def measure(ca: Authority, key_type: KeyType, count: int, rounds: int) -> dict[str, Any]:
    """Medians in microseconds, and of the ratios to the floor."""
    tasks = tasks_of(ca, key_type)
    rows = [{name: microseconds(count, make) for name, make in tasks.items()} for _ in range(rounds)]
    return {
        "key_type": key_type.value,
        "microseconds": {name: statistics.median(row[name] for row in rows) for name in tasks},
        "ratio": {name: statistics.median(row[name] / row[FLOOR] for row in rows) for name in tasks},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="identities of each kind a round; fewer with RSA keys")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    ca = new_shared_authority("bench", KeyType.EC_P256, now=datetime.now(UTC), validity=timedelta(days=1))
    results = []
    print("us, x floor ".ljust(12), *(name.rjust(15) for name in COLUMNS))
    for key_type in KeyType:
        slow = SLOW.get(key_type)
        count = max(1, arguments.count // slow) if slow else arguments.count
        result = measure(ca, key_type, count, arguments.rounds if slow is None else min(arguments.rounds, 3))
        results.append(result)
        taken, ratio = result["microseconds"], result["ratio"]
        cells = (f"{taken[name]:.0f}  {ratio[name]:.2f}x" if name in taken else "-" for name in COLUMNS)
        print(key_type.value.ljust(12), *(cell.rjust(15) for cell in cells), flush=True)
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
