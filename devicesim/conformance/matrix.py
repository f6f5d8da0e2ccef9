"""Which cases there are: worlds × records × server names, over the transports. Pure.

Every combination that can be set up is there on the plain transport (TLS 1.3, MQTT 3.1.1, port 8883). On each of the
seven others stands one case for every row of the oracle, with what follows from it, and every kind of server name: what
the transport could change is how a row looks on the wire, not which row holds.
"""

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Literal

from devicesim.conformance.cases import (
    ROLES,
    SNI,
    Act,
    Case,
    Holder,
    Link,
    Place,
    Provisioning,
    Record,
    RecordStatus,
    Role,
    State,
    Then,
    Transport,
    World,
    expectation,
)

PLAIN = Transport()
TLS_VERSIONS: tuple[Literal["TLSv1.3", "TLSv1.2"], ...] = ("TLSv1.3", "TLSv1.2")
MQTT_VERSIONS: tuple[Literal["3.1.1", "5"], ...] = ("3.1.1", "5")
PORTS: tuple[Literal[8883, 443], ...] = (8883, 443)
TRANSPORTS: tuple[Transport, ...] = tuple(
    Transport(tls=tls, mqtt=mqtt, port=port) for tls, mqtt, port in product(TLS_VERSIONS, MQTT_VERSIONS, PORTS)
)
"""The plain one first."""

STAND_INS: Mapping[Role, Place] = {
    role: Place(
        name=role,
        account_id=str(number) * 12,
        region="eu-west-1" if role == "o" else "us-east-1",
        endpoint=f"{role}-ats.iot.{'eu-west-1' if role == 'o' else 'us-east-1'}.localhost",
    )
    for number, role in enumerate(ROLES, 1)
}
"""Made-up accounts: which row holds does not depend on whose they are."""


# --- worlds ---


def _default(provisioning: Provisioning = Provisioning.JITP, then: Then = Then.STAYS) -> Holder:
    return Holder(mode="DEFAULT", provisioning=provisioning, then=then)


def _sni_only(provisioning: Provisioning = Provisioning.JITP, then: Then = Then.STAYS) -> Holder:
    return Holder(mode="SNI_ONLY", provisioning=provisioning, then=then)


def _base(provisioning: Provisioning) -> Iterator[World]:
    """C1 to C4 of §10."""
    default, sni_only = _default(provisioning), _sni_only(provisioning)
    yield World(name=f"C1-{provisioning}", holders={"a": default})
    yield World(name=f"C2-{provisioning}", holders={"a": sni_only})
    yield World(name=f"C3-{provisioning}", holders={"a": default, "b": sni_only})
    yield World(name=f"C4-{provisioning}", holders={"a": sni_only, "b": sni_only})


C0 = World(name="C0")
BASE = {provisioning: tuple(_base(provisioning)) for provisioning in Provisioning}
REGIONS = (
    # each Region for itself (§1.1 [D])
    World(name="C0-other-region", holders={"o": _default()}),
    World(name="C1-two-regions", holders={"a": _default(), "o": _default()}),
    World(name="C2-two-regions", holders={"a": _sni_only(), "o": _default()}),
)
OFF_ALONE = (
    World(name="C1-inactive", holders={"a": _default(Provisioning.JITR, Then.INACTIVE)}),
    World(name="C1-disabled", holders={"a": _default(Provisioning.JITR, Then.DISABLED)}),
    World(name="C2-inactive", holders={"a": _sni_only(Provisioning.JITR, Then.INACTIVE)}),
    World(name="C2-disabled", holders={"a": _sni_only(Provisioning.JITR, Then.DISABLED)}),
)
OFF_BESIDE = (
    # although another account holds it ACTIVE
    World(
        name="C3-a-inactive",
        holders={"a": _default(Provisioning.JITR, Then.INACTIVE), "b": _sni_only(Provisioning.JITR)},
    ),
    World(
        name="C3-b-disabled",
        holders={"a": _default(Provisioning.JITR), "b": _sni_only(Provisioning.JITR, Then.DISABLED)},
    ),
    World(
        name="C4-a-inactive",
        holders={"a": _sni_only(Provisioning.JITR, Then.INACTIVE), "b": _sni_only(Provisioning.JITR)},
    ),
    World(
        name="C4-a-disabled",
        holders={"a": _sni_only(Provisioning.JITR, Then.DISABLED), "b": _sni_only(Provisioning.JITR)},
    ),
)
OFF = (*OFF_ALONE, *OFF_BESIDE)
GONE = (
    # the CA was here, records under it still are
    World(name="C0-after-C1", holders={"a": _default(Provisioning.JITR, Then.DELETED)}),
    World(name="C0-after-C2", holders={"a": _sni_only(Provisioning.JITR, Then.DELETED)}),
)
MOVED = (
    # the CA's DEFAULT registration went from account to account, records of the same certificate stay behind
    World(
        name="C0-moved",
        holders={
            "a": _default(Provisioning.JITR, Then.DELETED),
            "b": _default(Provisioning.JITR, Then.DELETED),
        },
    ),
    World(name="C1-moved", holders={"b": _default(Provisioning.JITR, Then.DELETED), "a": _default(Provisioning.JITR)}),
)


# --- records ---


def _on(role: Role, status: RecordStatus, *, alone: bool = False) -> dict[Role, Record]:
    return {role: Record(status=status, alone=alone)}


NEW = State(name="new")
PENDING = State(name="pending", records=_on("a", RecordStatus.PENDING))
TRANSFER = State(name="transfer", records=_on("a", RecordStatus.TRANSFER))
ACTIVE = State(name="active", records=_on("a", RecordStatus.ACTIVE))
BOTH_ACTIVE = State(name="active-both", records=_on("a", RecordStatus.ACTIVE) | _on("b", RecordStatus.ACTIVE))
ALONE = (
    State(name="active-alone", records=_on("a", RecordStatus.ACTIVE, alone=True)),
    State(name="denied-alone", records=_on("a", RecordStatus.DENIED, alone=True)),
    State(name="inactive-alone", records=_on("a", RecordStatus.INACTIVE, alone=True)),
    State(
        name="active-alone-both",
        records=_on("a", RecordStatus.ACTIVE, alone=True) | _on("b", RecordStatus.ACTIVE, alone=True),
    ),
)
UNDER_A = (
    ACTIVE,
    State(name="denied", records=_on("a", RecordStatus.DENIED)),
    State(name="inactive", records=_on("a", RecordStatus.INACTIVE)),
    State(name="revoked", records=_on("a", RecordStatus.REVOKED)),
    State(name="deleted", records=_on("a", RecordStatus.DELETED)),
)
UNDER_B = (
    State(name="active-in-b", records=_on("b", RecordStatus.ACTIVE)),
    BOTH_ACTIVE,
    State(name="active-inactive-in-b", records=_on("a", RecordStatus.ACTIVE) | _on("b", RecordStatus.INACTIVE)),
    State(name="active-revoked-in-b", records=_on("a", RecordStatus.ACTIVE) | _on("b", RecordStatus.REVOKED)),
)
BARRED = State(name="barred", records=_on("a", RecordStatus.BARRED))
VISITED = State(name="visited", records=_on("a", RecordStatus.VISITED))
VISITED_BOTH = State(name="visited-both", records=_on("a", RecordStatus.VISITED) | _on("b", RecordStatus.VISITED))
ABROAD = (
    State(name="active-in-o", records=_on("o", RecordStatus.ACTIVE)),
    State(name="visited-in-o", records=_on("o", RecordStatus.VISITED)),
)
HERE_AND_ABROAD = (
    State(name="active-o-too", records=_on("a", RecordStatus.ACTIVE) | _on("o", RecordStatus.ACTIVE)),
    State(name="visited-o-too", records=_on("a", RecordStatus.VISITED) | _on("o", RecordStatus.VISITED)),
)
PENDING_BESIDE = (
    State(name="pending-active-in-b", records=_on("a", RecordStatus.PENDING) | _on("b", RecordStatus.ACTIVE)),
    State(name="active-pending-in-b", records=_on("a", RecordStatus.ACTIVE) | _on("b", RecordStatus.PENDING)),
)

# --- what is dialled and sent ---

A_OWN, B_OWN = Link(dials="a", sni=SNI.OWN), Link(dials="b", sni=SNI.OWN)
A_MIXED, A_NONE, A_UNKNOWN = (Link(dials="a", sni=sni) for sni in (SNI.MIXED_CASE, SNI.NONE, SNI.UNKNOWN))
A_FOR_B = Link(dials="a", sni=SNI.OTHER, other="b")
A_FOR_O = Link(dials="a", sni=SNI.OTHER_REGION, other="o")
LINKS: tuple[Link, ...] = (
    A_OWN,
    Link(dials="a", sni=SNI.OWN, chain=False),
    A_MIXED,
    A_FOR_B,
    Link(dials="a", sni=SNI.OTHER, other="x"),
    A_NONE,
    Link(dials="a", sni=SNI.NONE, chain=False),
    A_UNKNOWN,
    A_FOR_O,
    Link(dials="a", sni=SNI.IP),
    Link(dials="a", sni=SNI.TRAILING_DOT),
    B_OWN,
    Link(dials="x", sni=SNI.OWN),
)
CROSSED = (Link(dials="b", sni=SNI.OTHER, other="a"), Link(dials="b", sni=SNI.NONE), Link(dials="x", sni=SNI.NONE))
"""Another account's address: the server name decides, or that there is none, not what is dialled (§10d)."""
OTHER_DOOR = (
    Link(dials="o", sni=SNI.OWN),
    Link(dials="o", sni=SNI.NONE),
    Link(dials="o", sni=SNI.OTHER_REGION, other="a"),
)
"""Another Region's front door."""


def _plain() -> Iterator[Case]:
    """Everything, on the plain transport."""
    yield from _cases((C0,), (NEW, *ALONE), (*LINKS, *CROSSED))
    for world in BASE[Provisioning.JITP]:
        yield from _cases((world,), (NEW, *UNDER_A, *ALONE), LINKS)
        yield from _cases((world,), (NEW, ACTIVE), CROSSED)
        # the client id is not what decides the account, so only where one decides
        yield from _cases((world,), (BARRED,), (A_OWN, A_MIXED, A_NONE))
        yield from _cases((world,), (VISITED,), (A_OWN, A_NONE, A_FOR_B, B_OWN))
        if "b" in world.holders:
            yield from _cases((world,), UNDER_B, LINKS)
            yield from _cases((world,), (VISITED_BOTH,), (A_OWN, A_NONE, A_FOR_B, B_OWN))
        yield from _cases((world,), (TRANSFER,), (A_OWN,))
        # a handshake is nothing, and a live connection ends with its certificate
        for link in (A_OWN, A_NONE, A_UNKNOWN, A_FOR_B):
            yield Case(world=world, state=NEW, link=link, act=Act.HANDSHAKE)
        for act in (Act.LIVE, Act.LIVE_REVOKED):
            yield Case(world=world, state=ACTIVE, link=A_OWN, act=act)
    for world in BASE[Provisioning.JITR]:
        yield from _cases((world,), (NEW, PENDING), LINKS)
        for link in LINKS:
            yield Case(world=world, state=NEW, link=link, activated=True)
        yield Case(world=world, state=PENDING, link=A_OWN, activated=True)
        if "b" in world.holders:
            yield from _cases((world,), PENDING_BESIDE, LINKS)
    for world in BASE[Provisioning.LATE_JITP]:
        yield from _cases((world,), (PENDING,), LINKS)
    yield from _cases(REGIONS, (NEW,), (*LINKS, *OTHER_DOOR))
    yield from _cases(REGIONS, ABROAD, (A_OWN, A_NONE, A_FOR_O, *OTHER_DOOR))
    yield from _cases(REGIONS[1:], (VISITED, *HERE_AND_ABROAD), (A_OWN, A_NONE, A_FOR_O, *OTHER_DOOR))
    yield from _cases(OFF, (NEW, ACTIVE, PENDING), LINKS)
    yield from _cases(OFF_BESIDE, UNDER_B[:1], LINKS)
    yield from _cases(GONE, (NEW, ACTIVE, PENDING), LINKS)
    yield from _cases(MOVED, (NEW, ACTIVE, BOTH_ACTIVE), LINKS)


def _cases(worlds: Iterable[World], states: Iterable[State], links: Iterable[Link]) -> Iterator[Case]:
    for world, state, link in product(worlds, states, links):
        yield Case(world=world, state=state, link=link)


def _over_transports(plain: Sequence[Case]) -> Iterator[Case]:
    """One case for each row with what follows from it, kind of server name and act, on each other transport."""
    first: dict[tuple[object, ...], Case] = {}
    for case in plain:
        expected = expectation(case, STAND_INS)
        rows = (expected.row, *expected.rests_on)
        first.setdefault((rows, case.link.sni, case.link.dials == "o", case.act, case.activated), case)
    for case, transport in product(first.values(), TRANSPORTS[1:]):
        yield replace(case, transport=transport)


def matrix() -> tuple[Case, ...]:
    """Every case, in the order of §10."""
    plain = tuple(_plain())
    return (*plain, *_over_transports(plain))


def select(cases: Iterable[Case], patterns: Sequence[str]) -> tuple[Case, ...]:
    """Those whose name, or whose row's id, matches one of the patterns (``fnmatch``); all without a pattern.

    A pattern without ``/`` matches a row, a world, a state, a link or a transport.
    """
    if not patterns:
        return tuple(cases)
    return tuple(case for case in cases if any(_matches(case, pattern) for pattern in patterns))


def _matches(case: Case, pattern: str) -> bool:
    if "/" in pattern:
        return fnmatch.fnmatchcase(case.name, pattern)
    words = (expectation(case, STAND_INS).row.id, *case.name.split("/"))
    return any(fnmatch.fnmatchcase(word, pattern) for word in words)
