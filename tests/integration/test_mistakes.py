"""``fleets/mistakes.toml``: mistakes that look the same from the device are told apart."""

import json

from tests.support import ROOT, start

CAUSES = {
    "healthy": None,
    "no-sni": 3,
    "hand-made-name": 14,
    "name-of-another": 3,
    "policy-for-others": 7,
    "no-country": 5,
}
"""The number of the likeliest cause, by group."""


def test_each_mistake_has_its_own_cause() -> None:
    process = start("diagnose", ROOT / "fleets" / "mistakes.toml", "--json", "--hold", "0.2")
    out, err = process.communicate(timeout=90)

    assert process.returncode == 99, err
    told = [[finding["number"] for finding in device["findings"]][:1] for device in json.loads(out)["devices"]]
    assert told == [[] if number is None else [number] for number in CAUSES.values()]
