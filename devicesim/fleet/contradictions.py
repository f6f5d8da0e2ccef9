"""Contradictions between places of a fleet file, found on the raw TOML.

On the raw data, so that they are reported together with wrong values and unknown keys; every look-up therefore
tolerates values of the wrong kind, which the schema reports.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from devicesim.errors import Problem
from devicesim.fleet.thresholds import threshold_problems
from devicesim.net.names import check_server_name, check_verify_name

_CURVES = {"ec-p256": "P-256", "ec-p384": "P-384"}
"""The curve of a device key type."""


def find_contradictions(raw: Mapping[str, Any]) -> list[Problem]:
    """Every contradiction, in the order of the file's sections."""
    accounts, groups = _tables(raw.get("accounts")), _tables(raw.get("groups"))
    return [
        *_ca(raw, accounts),
        *_accounts(accounts),
        *_groups(groups, accounts),
        *_devices(raw),
        *_arrival(raw),
        *_telemetry(raw, groups),
        *threshold_problems(raw.get("thresholds"), accounts, groups),
        *_tls(raw),
    ]


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _tables(value: object) -> dict[str, Mapping[str, Any]]:
    return {name: _table(each) for name, each in _table(value).items()}


def _ca(raw: Mapping[str, Any], accounts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    ca, devices = _table(raw.get("ca")), _table(raw.get("devices"))
    if "key" in ca and "certificate" not in ca:
        yield Problem("ca.key", "a key without a certificate; give ca.certificate too")
    if "certificate" not in ca:
        return
    for key in ("key_type", "common_name"):
        if key in ca:
            yield Problem(f"ca.{key}", "is for a CA that is made for the run, but ca.certificate names one")
    if "key" in ca:
        return
    if devices.get("keys") != "imported":
        yield Problem("ca.key", "is missing: devices are minted with it; or import them: devices.keys = 'imported'")
    for name, account in accounts.items():
        if account.get("ca_mode") == "DEFAULT":
            yield Problem(
                f"accounts.{name}.ca_mode",
                "'DEFAULT' needs a verification certificate, and so ca.key; 'SNI_ONLY' does not",
            )


def _accounts(accounts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    for name, account in accounts.items():
        mode, provisioning = account.get("ca_mode"), account.get("provisioning", "none")
        if mode == "none" and provisioning in ("JITP", "JITR"):
            yield Problem(
                f"accounts.{name}.provisioning",
                f"{provisioning!r} needs the CA registered, but ca_mode is 'none'",
            )
        if "activator" in account and provisioning != "JITR":
            yield Problem(f"accounts.{name}.activator", f"is for JITR, but provisioning is {provisioning!r}")
        for key in ("template", "role_arn"):
            if key in account and provisioning != "JITP":
                yield Problem(f"accounts.{name}.{key}", f"is for JITP, but provisioning is {provisioning!r}")
    for (one, a), (two, b) in combinations(accounts.items(), 2):
        place = a.get("region", "us-east-1")
        if place != b.get("region", "us-east-1"):
            continue
        if a.get("id") == b.get("id"):
            yield Problem(f"accounts.{two}.id", f"{b.get('id')!r} in {place} is accounts.{one} already")
        elif a.get("ca_mode") == b.get("ca_mode") == "DEFAULT":
            # aws-iot-behaviour.md §1.1 [D]
            yield Problem(
                f"accounts.{two}.ca_mode",
                f"'DEFAULT' is taken in {place} by accounts.{one}: one account a Region; register it as 'SNI_ONLY'",
            )


def _groups(groups: Mapping[str, Mapping[str, Any]], accounts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    known = ", ".join(repr(name) for name in accounts) or "none"
    for name, group in groups.items():
        where = f"groups.{name}"
        dialled, sni, expect = group.get("account"), group.get("sni", "endpoint"), _table(group.get("expect"))
        if isinstance(dialled, str) and dialled not in accounts:
            yield Problem(f"{where}.account", f"{dialled!r} is not an account of this file; known: {known}")
        if isinstance(sni, str) and sni.startswith("other:"):
            other = sni.removeprefix("other:")
            if other not in accounts:
                yield Problem(f"{where}.sni", f"{other!r} is not an account of this file; known: {known}")
            elif other == dialled:
                yield Problem(f"{where}.sni", f"{other!r} is the account dialled; that is 'endpoint'")
        if isinstance(sni, str) and sni.startswith("literal:"):
            try:
                check_server_name(sni.removeprefix("literal:"))
            except ValueError as exc:
                yield Problem(f"{where}.sni", str(exc))
        if isinstance(group.get("verify_name"), str):
            try:
                check_verify_name(group["verify_name"])
            except ValueError as exc:
                yield Problem(f"{where}.verify_name", str(exc))
        place, outcome = expect.get("account"), expect.get("outcome")
        if isinstance(place, str) and place not in accounts:
            yield Problem(f"{where}.expect.account", f"{place!r} is not an account of this file; known: {known}")
        if outcome in ("provisioned", "pending") and place is None:
            yield Problem(f"{where}.expect.account", f"is missing: {outcome!r} is always in some account")
        if outcome in ("refused", "unreachable", "failed") and place is not None:
            yield Problem(f"{where}.expect.account", f"does not go with {outcome!r}, which is in no account")


def _devices(raw: Mapping[str, Any]) -> Iterator[Problem]:
    devices, ca = _table(raw.get("devices")), _table(raw.get("ca"))
    keys = devices.get("keys", "derived")
    if keys == "imported":
        if "bundles" not in devices:
            yield Problem("devices.bundles", "is missing: imported devices are read from PEM bundles")
        if "certificate" not in ca:
            yield Problem("ca.certificate", "is missing: imported devices were signed by a CA that exists")
    elif "bundles" in devices:
        yield Problem("devices.bundles", f"is for keys = 'imported', but keys is {keys!r}")
    if keys == "derived" and str(devices.get("key_type", "")).startswith("rsa-"):
        yield Problem("devices.key_type", "an RSA key cannot be derived from a secret; take keys = 'random'")
    if keys != "derived" and "secret" in ca:
        yield Problem("ca.secret", f"is for derived keys, but devices.keys is {keys!r}")


def _arrival(raw: Mapping[str, Any]) -> Iterator[Problem]:
    arrival = _table(raw.get("arrival"))
    closed = arrival.get("model") == "closed"
    paces = [key for key in ("rate", "stages", "burst") if key in arrival]
    for key in paces[1:]:
        yield Problem(f"arrival.{key}", f"does not go with arrival.{paces[0]}: one of them says when devices start")
    if arrival.get("stages") == []:
        yield Problem("arrival.stages", "has no stage; at least 1 is needed")
    if "start_rate" in arrival and "stages" not in arrival:
        yield Problem("arrival.start_rate", "is where the first of arrival.stages begins, but there are none")
    if closed:
        if paces:
            yield Problem("arrival.model", f"'closed' does not go with arrival.{paces[0]}: the target sets the pace")
        for key in ("max_under_way", "late_after", "tolerance"):
            if key in arrival:
                yield Problem(f"arrival.{key}", "is for model 'open': in a closed one no start is late or dropped")
        if "concurrency" not in arrival:
            yield Problem("arrival.concurrency", "is missing: the devices at a time of model 'closed'")
    elif "concurrency" in arrival:
        yield Problem("arrival.concurrency", "is for model 'closed'; with 'open', max_under_way drops starts")
    burst = _table(arrival.get("burst"))
    if "size" in burst and "every" not in burst:
        yield Problem("arrival.burst.every", "is missing: a size is of one burst of several; without both all start")
    if "every" in burst and "size" not in burst:
        yield Problem("arrival.burst.size", "is missing: without it all devices start at once, and there is no next")


def _telemetry(raw: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    for name, group in groups.items():
        if "telemetry" in group and not _table(raw.get("session")).get("hold"):
            yield Problem(f"groups.{name}.telemetry", "is published while connected, but session.hold is 0")


def _tls(raw: Mapping[str, Any]) -> Iterator[Problem]:
    tls = _table(raw.get("tls"))
    devices = _table(raw.get("devices"))
    key_type, group = str(devices.get("key_type", "ec-p256")), tls.get("group", "P-256")
    curve = _CURVES.get(key_type) if devices.get("keys") != "imported" else None
    if curve is not None and tls.get("maximum_version") == "TLSv1.2" and group not in (curve, "any"):
        # in TLS 1.2 the list of groups limits the curves of certificates too (RFC 8422, 5.1)
        yield Problem("tls.group", f"{group!r} alone rules devices.key_type {key_type!r} out in TLS 1.2; take 'any'")
    if (tls.get("minimum_version"), tls.get("maximum_version")) == ("TLSv1.3", "TLSv1.2"):
        yield Problem("tls.minimum_version", "'TLSv1.3' is above maximum_version 'TLSv1.2'")
