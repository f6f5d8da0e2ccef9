"""The documents of the admin port: what the emulator saw and holds, and what may be done to it from beside. Pure.

======  ==================  ====================================================================================
GET     /health             counts
GET     /history            ``account certificate_id client_id verdict kind reason after before limit``: the latest
GET     /state              every account: counts, and the first ``limit`` of its CAs, certificates and names
GET     /state/COLLECTION   ``account region after limit``: the records themselves, page by page
GET     /explain            ``certificate_id account region server_name client_id``: why a device is not connected
POST    /explain            the same as JSON, with ``certificate_pem`` for a certificate that nobody has
GET     /faults             what is on the board, and how often it fired
POST    /faults             inject one: JSON, the fields of :class:`~devicesim.emulator.faults.Fault`; ``account`` is
                            ``account_id``, as in the filters
DELETE  /faults             take all off; ``/faults?name=N`` one
GET     /clock              the emulator's time
POST    /clock              ``{"advance": seconds}``
POST    /reset              back to the beginning: accounts empty, everybody disconnected, history and faults gone
GET     /metrics            Prometheus (:mod:`~devicesim.emulator.metrics`; not here)
======  ==================  ====================================================================================
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from enum import Enum
from itertools import islice
from typing import Any, Final, get_args, get_type_hints
from urllib.parse import parse_qsl, unquote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from devicesim.emulator import admission
from devicesim.emulator.codec import codec_of
from devicesim.emulator.core import Core
from devicesim.emulator.explain import Question, UnknownCertificateError
from devicesim.emulator.faults import Fault, FaultKind
from devicesim.emulator.registry import Partition
from devicesim.emulator.state.journal import Shape, shapes
from devicesim.emulator.state.x509rules import UNREADABLE

DEFAULT_LIMIT: Final = 1000
"""Entries, records or names that one answer holds unless asked for more."""
MAX_LIMIT: Final = 10_000
"""At most: while an answer is made, devices wait."""
_HISTORY_FILTERS: Final = frozenset(
    {"account", "certificate_id", "client_id", "verdict", "kind", "reason", "after", "before", "limit"}
)
_EXPLAIN: Final = frozenset({"certificate_id", "account", "region", "server_name", "client_id"})
_MAX_ADVANCE: Final = 10 * 366 * 86400.0
"""Ten years: AWS's own certificates end in 2049, and everything must still be issued before that."""

Query = Mapping[str, str]
Document = Mapping[str, object]


class AdminError(Exception):
    """The request is answered with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class AdminRoutes:
    """Method and path to document."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._routes: Mapping[str, Mapping[str, Callable[[Query, Document], Document]]] = {
            "/health": {"GET": self._health},
            "/history": {"GET": self._history},
            "/state": {"GET": self._state},
            "/explain": {"GET": self._explain, "POST": self._explain_posted},
            "/faults": {"GET": self._faults, "POST": self._inject, "DELETE": self._remove_faults},
            "/clock": {"GET": self._clock, "POST": self._advance},
            "/reset": {"POST": self._reset},
        }

    def answer(self, method: str, path: str, query: str, body: bytes = b"") -> Document:
        """The document at ``path``; :class:`AdminError` when there is none, or it is asked for wrongly."""
        methods = self._routes.get(path)
        collection = ""
        if methods is None and path.startswith("/state/"):
            collection = unquote(path.removeprefix("/state/"))
            methods = {"GET": lambda asked, _body: self._collection(collection, asked)}
        if methods is None:
            raise AdminError(404, f"no such path {path!r}, must be one of {', '.join((*self._routes, '/metrics'))}")
        handler = methods.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise AdminError(405, f"method {method!r} is not allowed, must be {' or '.join(map(repr, methods))}")
        document = _document(body) if method == "POST" else {}
        return handler(dict(parse_qsl(query, keep_blank_values=True)), document)

    # --- what it saw ---

    def _health(self, query: Query, _body: Document) -> Document:
        _check(query, frozenset())
        plane = self._core.plane
        return {
            "status": "ok",
            "connections": sum(plane.load(partition).connections for partition in self._core.registry.partitions()),
            "provisioning_runs": plane.provisioning_runs,
            "throttled": dict(self._core.quotas.throttled),
            "verdicts": dict(self._core.history.counts),
        }

    def _history(self, query: Query, _body: Document) -> Document:
        _check(query, _HISTORY_FILTERS)
        history = self._core.history
        entries = history.select(
            account_id=query.get("account"),
            certificate_id=query.get("certificate_id"),
            client_id=query.get("client_id"),
            verdict=query.get("verdict"),
            kind=query.get("kind"),
            reason=query.get("reason"),
            after=_number(query, "after", 0),
            before=_number(query, "before", 0) if "before" in query else None,
            limit=_limit(query),
        )
        return {"entries": [entry.to_json() for entry in entries], "kept": len(history)}

    def _explain(self, query: Query, _body: Document) -> Document:
        _check(query, _EXPLAIN)
        return self._explained(query, None)

    def _explain_posted(self, query: Query, body: Document) -> Document:
        _check(query, frozenset())
        _check(body, _EXPLAIN | {"certificate_pem"})
        for name, value in body.items():
            if not isinstance(value, str):
                raise AdminError(400, f"{name} is {value!r}, must be a string")
        asked = {name: str(value) for name, value in body.items()}
        pem = asked.pop("certificate_pem", None)
        certificate = None
        if pem is not None:
            try:
                der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
            except UNREADABLE as exc:
                raise AdminError(400, f"certificate_pem is not a certificate: {exc}") from exc
            certificate, problem = admission.read_leaf(der)
            if certificate is None:
                raise AdminError(400, f"certificate_pem: {problem}")
        return self._explained(asked, certificate)

    def _explained(self, asked: Query, certificate: x509.Certificate | None) -> Document:
        if "certificate_id" not in asked and certificate is None:
            raise AdminError(400, "parameter certificate_id is missing, must be the id of the device's certificate")
        question = Question(
            certificate_id=asked.get("certificate_id"),
            certificate=certificate,
            account_id=asked.get("account"),
            region=asked.get("region"),
            server_name=asked.get("server_name"),
            client_id=asked.get("client_id"),
        )
        try:
            return self._core.explainer.explain(question)
        except UnknownCertificateError as exc:
            raise AdminError(404, str(exc)) from exc

    # --- what it holds ---

    def _state(self, query: Query, _body: Document) -> Document:
        _check(query, frozenset({"account", "region", "limit"}))
        limit = _limit(query)
        return {"accounts": [self._account(each, limit) for each in self._asked_for(query)]}

    def _asked_for(self, query: Query) -> list[Partition]:
        account, region = query.get("account"), query.get("region")
        partitions = self._core.registry.partitions()
        return [each for each in partitions if account in (None, each.account_id) and region in (None, each.region)]

    def _account(self, partition: Partition, limit: int) -> Document:
        plane = self._core.plane
        load = plane.load(partition)
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
                    "jitp": self._core.registry.cas.template_of(partition, ca) is not None,
                }
                for ca in islice(partition.cas.values(), limit)
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
                for record in islice(partition.certificates.values(), limit)
            ],
            "things": list(islice(partition.things, limit)),
            "policies": list(islice(partition.policies, limit)),
            "provisioning_templates": list(islice(partition.templates, limit)),
            "counts": {
                "certificates": len(partition.certificates),
                "certificates_by_status": statuses,
                "things": len(partition.things),
                "policies": len(partition.policies),
                "connections": load.connections,
                "sessions": load.sessions,
                "subscriptions": load.subscriptions,
                "retained_messages": load.retained,
            },
            "collections": {name: len(getattr(partition, name)) for name in _collections()},
        }

    def _collection(self, name: str, query: Query) -> Document:
        """One page of a dict of the account, in its order; ``next`` is what ``after`` is to be for the following."""
        _check(query, frozenset({"account", "region", "after", "limit"}))
        shape = _collections().get(name)
        if shape is None:
            raise AdminError(404, f"no such collection {name!r}, must be one of {', '.join(_collections())}")
        partitions = self._asked_for(query)
        if len(partitions) != 1:
            raise AdminError(
                400, f"account and region name {len(partitions)} accounts, must name one: see GET /state for all"
            )
        after, limit = query.get("after"), max(1, _limit(query))
        held: Mapping[Any, Any] = getattr(partitions[0], name)
        key = codec_of(shape.keys[0])
        names = ((_name(key.encode(each)), each) for each in held)
        if after is not None and not any(text == after for text, _ in names):  # goes on behind it
            raise AdminError(400, f"parameter after is {after!r}, must be what the page before said as next")
        page = list(islice(names, limit + 1))
        items = [{"key": text, "value": _encoded(shape, held[each])} for text, each in page[:limit]]
        following = page[limit - 1][0] if len(page) > limit else None
        return {"collection": name, "items": items, "count": len(held), "next": following}

    # --- what is done to it ---

    def _faults(self, query: Query, _body: Document) -> Document:
        _check(query, frozenset())
        statuses = self._core.faults.list(self._core.clock.now())
        return {"faults": [each.to_json() for each in statuses], "kinds": [each.value for each in FaultKind]}

    def _inject(self, query: Query, body: Document) -> Document:
        _check(query, frozenset())
        try:
            fault = _fault(body)
            if fault.operation is not None and fault.operation not in self._core.operations:
                raise AdminError(400, f"operation is {fault.operation!r}, which is none that is emulated")
            fault = self._core.faults.inject(fault, self._core.clock.now())
        except ValueError as exc:
            raise AdminError(400, str(exc)) from exc
        return {"name": fault.name, "kind": fault.kind.value}

    def _remove_faults(self, query: Query, _body: Document) -> Document:
        _check(query, frozenset({"name"}))
        board, name = self._core.faults, query.get("name")
        present = [each.fault.name for each in board.list(self._core.clock.now())]
        if name is None:
            board.clear()
            return {"removed": present}
        if not board.remove(name):
            raise AdminError(404, f"no such fault {name!r}, there are {present!r}")
        return {"removed": [name]}

    def _clock(self, query: Query, _body: Document) -> Document:
        _check(query, frozenset())
        return {"time": self._core.clock.wall(), "advanced": self._core.clock.advanced}

    def _advance(self, query: Query, body: Document) -> Document:
        _check(query, frozenset())
        _check(body, frozenset({"advance"}))
        seconds = body.get("advance")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _MAX_ADVANCE:
            raise AdminError(400, f"advance is {seconds!r}, must be a number of seconds from 0 to {_MAX_ADVANCE:g}")
        if self._core.clock.advanced + seconds > _MAX_ADVANCE:
            raise AdminError(
                400, f"the clock is {self._core.clock.advanced:g} s ahead already, at most {_MAX_ADVANCE:g}"
            )
        self._core.plane.advance(float(seconds))
        return self._clock({}, {})

    def _reset(self, query: Query, body: Document) -> Document:
        _check(query, frozenset())
        _check(body, frozenset())
        self._core.reset()
        return {"status": "ok"}


def _collections() -> dict[str, Shape]:
    return {name: shape for name, shape in shapes().items() if shape.depth}


def _encoded(shape: Shape, value: Any) -> object:
    codec = codec_of(shape.value)
    if shape.depth == 1:
        return codec.encode(value)
    inner = codec_of(shape.keys[1])
    return {_name(inner.encode(key)): codec.encode(each) for key, each in value.items()}


def _name(encoded: object) -> str:
    return encoded if isinstance(encoded, str) else json.dumps(encoded)


def _document(body: bytes) -> Document:
    if not body.strip():
        return {}
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise AdminError(400, f"the request's body is not JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise AdminError(400, f"the request's body is {type(document).__name__}, must be a JSON object")
    return document


def _fault(body: Document) -> Fault:
    """The fault that a body describes; ``ValueError`` says what is wrong with it."""
    if "account" in body and "account_id" not in body:
        body = {("account_id" if name == "account" else name): value for name, value in body.items()}
    _check(body, frozenset(each.name for each in fields(Fault)))
    if body.get("kind") not in set(FaultKind):
        raise ValueError(f"kind is {body.get('kind')!r}, must be one of {', '.join(FaultKind)}")
    hints = get_type_hints(Fault)
    for name, value in body.items():
        allowed = tuple(_kinds_of(hints[name]))
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise AdminError(400, f"{name} is {value!r}, must be a {allowed[0].__name__}")
    return Fault(**{**body, "kind": FaultKind(str(body["kind"]))})  # type: ignore[arg-type]  # checked above


def _kinds_of(hint: Any) -> Iterator[type]:
    for each in get_args(hint) or (hint,):
        if each is float:
            yield from (float, int)
        elif isinstance(each, type):
            yield str if issubclass(each, Enum) else each


def _check(given: Mapping[str, object], allowed: frozenset[str]) -> None:
    unknown = given.keys() - allowed
    if unknown:
        raise AdminError(400, f"unknown parameter {min(unknown)!r}, must be one of {sorted(allowed)!r}")


def _limit(query: Query) -> int:
    return min(_number(query, "limit", DEFAULT_LIMIT), MAX_LIMIT)


def _number(query: Query, name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise AdminError(400, f"parameter {name} is {text!r}, must be a number of at least 0")
    return int(text)
