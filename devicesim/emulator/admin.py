"""The second door (design.md §6): what the emulator saw and holds, as JSON over HTTP. Read-only, never on AWS's ports.

``GET /health``, ``GET /history?account=&certificate_id=&verdict=&kind=&after=&limit=``, ``GET /state?account=``.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl

from devicesim.emulator.dataplane import DataPlane
from devicesim.emulator.httpd import Receive, Scope, Send
from devicesim.emulator.registry import Partition

DEFAULT_LIMIT: Final = 1000
"""Entries that /history answers unless asked for more."""
_HISTORY_FILTERS: Final = frozenset({"account", "certificate_id", "verdict", "kind", "after", "limit"})
_STATE_FILTERS: Final = frozenset({"account"})


class AdminError(Exception):
    """The request is answered with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class AdminApp:
    """The ASGI application of the admin port."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._routes: Mapping[str, Callable[[Mapping[str, str]], Mapping[str, object]]] = {
            "/health": self._health,
            "/history": self._history,
            "/state": self._state,
        }

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            status, body = 200, self.answer(scope["method"], scope["path"], scope["query_string"].decode("latin-1"))
        except AdminError as error:
            status, body = error.status, {"error": str(error)}
        payload = json.dumps(body).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(payload)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else payload})

    def answer(self, method: str, path: str, query: str) -> Mapping[str, object]:
        """The document at ``path``; :class:`AdminError` when there is none."""
        handler = self._routes.get(path)
        if handler is None:
            raise AdminError(404, f"no such path {path!r}, must be one of {', '.join(self._routes)}")
        if method not in ("GET", "HEAD"):
            raise AdminError(405, f"method {method!r} is not allowed, must be 'GET'")
        return handler(dict(parse_qsl(query, keep_blank_values=True)))

    def _health(self, query: Mapping[str, str]) -> Mapping[str, object]:
        _check(query, frozenset())
        partitions = self._plane.registry.partitions()
        return {
            "status": "ok",
            "connections": sum(self._plane.load(partition).connections for partition in partitions),
            "provisioning_runs": self._plane.provisioning_runs,
            "verdicts": dict(self._plane.history.counts),
        }

    def _history(self, query: Mapping[str, str]) -> Mapping[str, object]:
        _check(query, _HISTORY_FILTERS)
        entries = self._plane.history.select(
            account_id=query.get("account"),
            certificate_id=query.get("certificate_id"),
            verdict=query.get("verdict"),
            kind=query.get("kind"),
            after=_number(query, "after", 0),
            limit=_number(query, "limit", DEFAULT_LIMIT),
        )
        return {"entries": [entry.to_json() for entry in entries], "kept": len(self._plane.history)}

    def _state(self, query: Mapping[str, str]) -> Mapping[str, object]:
        _check(query, _STATE_FILTERS)
        wanted = query.get("account")
        partitions = self._plane.registry.partitions()
        return {
            "accounts": [self._account(each) for each in partitions if wanted in (None, each.account_id)],
        }

    def _account(self, partition: Partition) -> Mapping[str, object]:
        load = self._plane.load(partition)
        statuses: dict[str, int] = {}
        for record in partition.certificates.values():
            statuses[record.status.value] = statuses.get(record.status.value, 0) + 1
        return {
            "account_id": partition.account_id,
            "region": partition.region,
            "endpoint": partition.endpoint,
            "ca_certificates": [
                {
                    "certificate_id": ca.certificate_id,
                    "mode": ca.mode.value,
                    "status": ca.status.value,
                    "auto_registration": ca.auto_registration.value,
                    "jitp": self._plane.registry.cas.template_of(partition, ca) is not None,
                }
                for ca in partition.cas.values()
            ],
            "certificates": [
                {
                    "certificate_id": record.certificate_id,
                    "mode": record.mode.value,
                    "status": record.status.value,
                    "ca_certificate_id": record.ca_certificate_id,
                    "things": list(partition.things_of_certificate(record.certificate_id)),
                    "policies": list(partition.policies_of_target.get(record.arn, {})),
                }
                for record in partition.certificates.values()
            ],
            "things": list(partition.things),
            "policies": list(partition.policies),
            "provisioning_templates": list(partition.templates),
            "counts": {
                "certificates": len(partition.certificates),
                "certificates_by_status": statuses,
                "things": len(partition.things),
                "connections": load.connections,
                "sessions": load.sessions,
                "subscriptions": load.subscriptions,
                "retained_messages": load.retained,
            },
        }


def _check(query: Mapping[str, str], allowed: frozenset[str]) -> None:
    unknown = query.keys() - allowed
    if unknown:
        raise AdminError(400, f"unknown parameter {min(unknown)!r}, must be one of {sorted(allowed)!r}")


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise AdminError(400, f"parameter {name} is {text!r}, must be a number of at least 0")
    return int(text)
