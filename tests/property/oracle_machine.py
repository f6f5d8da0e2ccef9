"""The state machine that holds the emulator against the oracle (``rules``), step by step.

Three accounts in two Regions do what they like with two CAs and three devices' certificates; devices connect, by the
data plane and in either Region's door. After every step the emulator must hold what the model
(:mod:`tests.property.oracle_model`) says, and decide on every device with every kind of server name as the oracle does,
which is told of the accounts by the model alone.

What is deliberately not drawn, because the two need an interpretation there or because neither has anything to say:

* a renewed CA certificate (same subject *and* key): the oracle knows one CA for each device; CertificateConflict and
  the choice by chain are ``tests/unit/emulator``'s. Two CAs of one subject with different keys are drawn.
* the eleventh CA of one subject, expired certificates, keys and signatures that AWS does not take: no place for them in
  the oracle's view of an account.
* certificates that the service issues itself (CreateKeysAndCertificate, claims), domain configurations, the ALPN port,
  quotas, injected faults: the oracle is not told of them.
* a template that leaves the certificate INACTIVE, and CAs that change while a device comes back: the oracle says what
  becomes of a device that nobody meddles with.
* an activator that acts on the event of a pending certificate whose CA is off (row ``10c.pending.ca-off``, I): the
  emulator repeats the event, as §10c has it of every pending certificate; the oracle takes it to be nobody's business.
* an empty server name, which RFC 6066 does not know: no device of ours can send it (``net.names``).
* status REGISTER_INACTIVE of a record: deprecated, and no call leads to it.

Choices of the emulator's settings are at their defaults, and the model and the oracle are of the same mind.
"""

from collections.abc import Sequence
from typing import Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from devicesim import rules
from devicesim.emulator import admission
from devicesim.emulator.packets import ProtocolVersion
from devicesim.emulator.state.records import CertificateStatus
from tests.emulator_support import V5, V311
from tests.property import oracle_model as model
from tests.property.oracle_model import Activator, Place, Spot
from tests.property.oracle_pair import Pair
from tests.property.oracle_support import (
    ACCOUNTS,
    CHAINS,
    CONFIGS,
    ENDPOINTS,
    LEAVES,
    ODD_NAMES,
    PLACES,
    POLICIES,
    REGIONS,
    SIGNERS,
    SPELLINGS,
    compare,
    endpoint,
    presented,
    same,
)

# the first Region and the first device more often than the others: what goes wrong takes two accounts of one Region
places = st.sampled_from((*PLACES[:3], *PLACES[:3], *PLACES))
leaves = st.sampled_from((0, 0, *LEAVES))
ca_numbers = st.sampled_from((0, 0, 1))
modes = st.sampled_from(("DEFAULT", "SNI_ONLY"))
statuses = st.sampled_from((model.ACTIVE, model.ACTIVE, model.INACTIVE, model.REVOKED))
any_status = statuses | st.sampled_from(tuple(CertificateStatus)).map(str)
mostly = st.sampled_from((True, True, True, False))
seldom = st.sampled_from((False, False, False, True))
switches = st.sampled_from((None, None, True, False))
policies = st.sampled_from((model.ALLOW, *POLICIES))
wheres = st.sampled_from(("related", "related", "off", "anywhere"))
given_cas = st.sampled_from((None, None, 0, 1))
which = st.integers(0, 17)
"""Chooses among what there is, modulo."""
templates = st.sampled_from((None, None, *CONFIGS))
proofs = st.sampled_from((*(model.RIGHT, model.FOREIGN_CODE) * 2, model.RIGHT, model.FOREIGN_KEY, None))
other_accounts = st.sampled_from((1, 1, 2, 2, 0))
"""How many accounts further; the same one seldom."""
preparations = st.sampled_from((None, None, None, model.GOOD, model.GOOD, model.BARRED, model.NAMED, model.BROKEN))
meddlings = st.sampled_from(
    (
        "new template",
        model.INACTIVE,
        model.ACTIVE,
        "CA off",
        "new template",
        "deleted",
        "registered alone",
        "registered again",
    )
)
leavings = st.sampled_from((None, None, None, "status", "policies", "thing"))
endings = st.sampled_from(("accept", "accept active", "reject", "cancel"))
"""Of a transfer."""
doors = st.sampled_from((REGIONS[0], *REGIONS))
OTHER_NAMES: Final = (*ODD_NAMES, *ENDPOINTS)
turns = st.integers(0, len(OTHER_NAMES) - 1)
names = st.sampled_from((None, *ENDPOINTS)) | st.sampled_from((None, *ODD_NAMES))
related_names = st.sampled_from(("", "", "", "none", *SPELLINGS))
chains = st.sampled_from(CHAINS)
versions = st.sampled_from((V311, V5))
activators = st.builds(Activator, st.sampled_from((model.ALLOW, model.ALLOW, model.OTHER)), st.booleans())


Station = tuple[int, str | None, str | None]
"""How many accounts further, in which Region if not the same, and how devices are registered there if they are."""
stations: st.SearchStrategy[Station] = st.tuples(
    other_accounts, st.sampled_from((*(None,) * 6, *REGIONS)), st.none() | statuses
)
Holding = tuple[rules.Mode | None, str | None, str | None, bool, bool]
"""How a place begins: in which mode it has the CA, what of that is off, the status of its record, whether that was made
without the CA, and whether it has a thing."""
holdings: st.SearchStrategy[Holding] = st.tuples(
    st.sampled_from((None, "DEFAULT", "DEFAULT", "SNI_ONLY", "SNI_ONLY")),
    st.sampled_from((None, None, None, None, "active", "auto")),
    st.sampled_from((None, None, model.ACTIVE, model.ACTIVE, model.INACTIVE, model.REVOKED)),
    seldom,
    st.booleans(),
)


class OracleAgainstEmulator(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.turn = 0
        """Counts the steps: what is not asked about at each is at some."""

    # --- CAs ---

    @initialize(
        one_subject=st.booleans(), both=st.booleans(), template=templates, held=st.tuples(*[holdings] * 3), turn=turns
    )
    def begin(self, one_subject: bool, both: bool, template: str | None, held: tuple[Holding, ...], turn: int) -> None:
        """In the first Region some hold the first CA, or both, and have the first device on record."""
        self.turn, pair = turn, self.pair
        pair.one_subject = one_subject
        for at, (mode, off, status, alone, thing) in zip(PLACES, held, strict=False):
            for ca in range(0 if mode is None else 2 if both else 1):
                proof = model.RIGHT if mode == "DEFAULT" else None
                pair.register_ca(at, ca, mode or "DEFAULT", proof, active=True, auto=True, template=template)
            if status is not None:
                pair.register(at, 0, status, alone=alone or (at, 0) not in pair.model.cas)
                pair.policy((at, 0), model.ALLOW, attach=True)
                if thing:
                    pair.thing((at, 0), attach=True)
            if off is not None and (at, 0) in pair.model.cas:
                pair.update_ca(
                    (at, 0), active=None if off == "auto" else False, auto=None if off == "active" else False
                )

    @rule(
        at=places,
        ca=ca_numbers,
        mode=modes,
        proof=proofs,
        fitting=mostly,
        active=mostly,
        auto=mostly,
        template=templates,
    )
    def registers_a_ca(
        self,
        at: Place,
        ca: int,
        mode: rules.Mode,
        proof: str | None,
        fitting: bool,
        active: bool,
        auto: bool,
        template: str | None,
    ) -> None:
        """``fitting``: with a verification certificate only where the mode asks for one."""
        proof = None if fitting and mode == "SNI_ONLY" else proof
        self.pair.register_ca(at, ca, mode, proof, active=active, auto=auto, template=template)

    @rule(number=which, active=switches, auto=switches, template=templates, remove=seldom)
    @precondition(lambda self: self.pair.model.cas)
    def changes_a_ca(
        self, number: int, active: bool | None, auto: bool | None, template: str | None, remove: bool
    ) -> None:
        """``remove``: the way from JITP back to JITR, for which everything else stays as it is."""
        spot = _one_of(list(self.pair.model.cas), number)
        if remove:
            self.pair.remove_auto_registration(spot)
        else:
            self.pair.update_ca(spot, active=active, auto=auto, template=template)

    @rule(number=which, deactivated=mostly)
    @precondition(lambda self: self.pair.model.cas)
    def deletes_a_ca(self, number: int, deactivated: bool) -> None:
        spot = _one_of(list(self.pair.model.cas), number)
        if deactivated:
            self.pair.update_ca(spot, active=False)
        self.pair.delete_ca(spot)

    @rule(number=which, route=st.lists(stations, min_size=1, max_size=3))
    @precondition(lambda self: any(each.mode == "DEFAULT" for each in self.pair.model.cas.values()))
    def hands_a_default_ca_over(self, number: int, route: list[Station]) -> None:
        """§10a: deleted by its DEFAULT holder, and registered so by another account (or the same, or elsewhere), which
        may register the first account's devices, too; and on from there."""
        held = [spot for spot, each in self.pair.model.cas.items() if each.mode == "DEFAULT"]
        used = [spot for spot in held if self.pair.has_default_records(spot)]
        at, ca = _one_of(used or held, number)
        for by, region, status in route:
            new = Place(_further(at.account, by), region or at.region)
            for spot in dict.fromkeys(((at, ca), (new, ca))):  # the other may hold it SNI_ONLY until then
                if spot in self.pair.model.cas:
                    self.pair.update_ca(spot, active=False)
                    self.pair.delete_ca(spot)
            self.pair.register_ca(new, ca, "DEFAULT", model.RIGHT, active=True, auto=True, template=None)
            if (new, ca) not in self.pair.model.cas:
                return  # there is one already in that Region
            for leaf in LEAVES:
                if status is not None and SIGNERS[leaf] == ca and (at, leaf) in self.pair.model.records:
                    self.pair.register(new, leaf, status, alone=False)
            at = new

    # --- certificates ---

    @rule(number=which, leaf=leaves, at=places, where=wheres, status=any_status, alone=seldom, given=given_cas)
    def registers_a_certificate(
        self, number: int, leaf: int, at: Place, where: str, status: str, alone: bool, given: int | None
    ) -> None:
        """Mostly where its CA is, or is and is off; if it is anywhere."""
        spots = [spot for spot in self.pair.related() if spot not in self.pair.model.records]
        if where == "off":
            spots = [spot for spot in spots if spot not in self.pair.unregistered()]
        at, leaf = _one_of(spots, number) if spots and where != "anywhere" else (at, leaf)
        self.pair.register(at, leaf, status, alone=alone, given=given)

    @rule(number=which, status=any_status)
    @precondition(lambda self: self.pair.model.records)
    def changes_a_status(self, number: int, status: str) -> None:
        self.pair.update(_one_of(list(self.pair.model.records), number), status)

    @rule(number=which, ready=mostly, but=leavings, force=mostly)
    @precondition(lambda self: self.pair.model.records)
    def deletes_a_certificate(self, number: int, ready: bool, but: str | None, force: bool) -> None:
        """``ready``: deactivated and detached from its thing first, as it must be, ``but`` for one thing."""
        spot = _one_of(list(self.pair.model.records), number)
        if ready:
            self.pair.make_ready(spot, but=but, policies=False)
        self.pair.delete(spot, force=force)

    @rule(number=which, policy=policies, attach=mostly)
    @precondition(lambda self: self.pair.model.records)
    def attaches_or_detaches(self, number: int, policy: str, attach: bool) -> None:
        self.pair.policy(_one_of(list(self.pair.model.records), number), policy, attach=attach)

    @rule(number=which, ready=mostly, but=leavings, to=other_accounts, how=st.none() | endings)
    @precondition(lambda self: self.pair.model.records)
    def transfers(self, number: int, ready: bool, but: str | None, to: int, how: str | None) -> None:
        """``ready``: deactivated and detached first, as it must be, ``but`` for one thing; ``how``: and what the one
        who can does about it."""
        free = [spot for spot, each in self.pair.model.records.items() if each.status not in model.HELD_FAST]
        at, leaf = spot = _one_of(free if ready and free else list(self.pair.model.records), number)
        if ready:
            self.pair.make_ready(spot, but=but, policies=True)
        target = _further(at.account, to)
        self.pair.transfer(spot, target)
        if how is not None:
            self.pair.end_transfer(spot if how == "cancel" else (Place(target, at.region), leaf), how)

    @rule(number=which, how=endings, pending=mostly)
    @precondition(lambda self: self.pair.model.records)
    def ends_a_transfer(self, number: int, how: str, pending: bool) -> None:
        spots = [spot for spot, each in self.pair.model.records.items() if each.transfer is not None]
        self.pair.end_transfer(_one_of(spots if pending and spots else list(self.pair.model.records), number), how)

    @rule(at=places, number=leaves, what=st.sampled_from(("CA", "certificate")))
    def refuses_what_is_not_there(self, at: Place, number: int, what: str) -> None:
        """Each call that takes the id of a CA, or of a certificate, of one that the account does not have."""
        if what == "CA" and (at, min(number, 1)) not in self.pair.model.cas:
            spot = (at, min(number, 1))
            self.pair.update_ca(spot, active=True)
            self.pair.remove_auto_registration(spot)
            self.pair.delete_ca(spot)
        elif what == "certificate" and (at, number) not in self.pair.model.records:
            spot = (at, number)
            self.pair.update(spot, model.ACTIVE)
            self.pair.delete(spot, force=True)
            self.pair.policy(spot, model.ALLOW, attach=True)
            self.pair.transfer(spot, _further(at.account, 1))
            for how in ("accept", "reject", "cancel"):
                self.pair.end_transfer(spot, how)

    # --- devices ---

    @rule(leaf=leaves, shown=st.tuples(names, chains, doors), version=versions)
    def connects(self, leaf: int, shown: tuple[str | None, str, str], version: ProtocolVersion) -> None:
        name, chain, door = shown
        self.pair.connect(leaf, name, chain, door, v5=version is V5, activator=None)

    @rule(number=which, name=related_names, chain=chains, version=versions)
    @precondition(lambda self: self.pair.related())
    def connects_where_it_is_known(self, number: int, name: str, chain: str, version: ProtocolVersion) -> None:
        """A device and an account that have to do with each other."""
        at, leaf = _one_of(self.pair.related(), number)
        sent = None if name == "none" else SPELLINGS[name](endpoint(at))
        self.pair.connect(leaf, sent, chain, at.region, v5=version is V5, activator=None)

    @rule(leaf=leaves, name=names, chain=chains, door=doors)
    def shakes_hands_only(self, leaf: int, name: str | None, chain: str, door: str) -> None:
        """Row 10b.handshake-only: nothing comes of it."""
        self.pair.world.open(presented(leaf, name, chain, door, one_subject=self.pair.one_subject)).lose()

    @rule(
        number=which,
        waits=mostly,
        prepared=preparations,
        shown=st.tuples(mostly, chains, versions),
        activator=st.none() | activators,
    )
    @precondition(lambda self: self.pair.related())
    def comes_back_until_it_is_in(
        self,
        number: int,
        waits: bool,
        prepared: str | None,
        shown: tuple[bool, str, ProtocolVersion],
        activator: Activator | None,
    ) -> None:
        """What the oracle says becomes of a device in the end, if nobody meddles from now on. ``waits``: of one that is
        not in yet; ``prepared`` is the template with which the account puts its CA in order before."""
        named, chain, version = shown
        spots = [*self.pair.pending(), *self.pair.unregistered()] if waits else []
        at, leaf = _one_of(spots or self.pair.related(), number)
        self.lets_time_pass(model.JITP_SECONDS)  # what runs may have another template than the CA has by now
        if prepared is not None and (at, SIGNERS[leaf]) in self.pair.model.cas:
            self.pair.update_ca((at, SIGNERS[leaf]), active=True, auto=True, template=prepared)
        v5, name, door = version is V5, endpoint(at) if named else None, at.region
        expected = self.pair.expect(leaf, self.pair.views(leaf, activator), name, chain, door, v5=v5)
        seen, decider = self.pair.connect(leaf, name, chain, door, v5=v5, activator=activator)
        for _ in range(2):
            if seen == "accepted":
                break
            self.lets_time_pass(model.JITP_SECONDS)
            seen, decider = self.pair.connect(leaf, name, chain, door, v5=v5, activator=activator)
        self.pair.ended(expected, leaf, accepted=seen == "accepted", decider=decider)

    @rule(number=which, activator=activators)
    @precondition(lambda self: self.pair.pending())
    def activates(self, number: int, activator: Activator) -> None:
        self.pair.activate(_one_of(self.pair.pending(), number), activator)

    @rule(number=which, template=st.sampled_from(tuple(CONFIGS)), what=meddlings)
    @precondition(lambda self: self.pair.unregistered())
    def is_meddled_with_while_it_is_provisioned(self, number: int, template: str, what: str) -> None:
        """What the template finds at its end is not what it was begun for."""
        at, leaf = spot = _one_of(self.pair.unregistered(), number)
        self.pair.update_ca((at, SIGNERS[leaf]), template=template)
        self.pair.connect(leaf, endpoint(at), "none", at.region, v5=False, activator=None)
        if what == "CA off":
            self.pair.update_ca((at, SIGNERS[leaf]), active=False, template=model.GOOD)
        elif what == "new template":
            self.pair.update_ca((at, SIGNERS[leaf]), template=model.GOOD)
            self.pair.connect(leaf, endpoint(at), "none", at.region, v5=False, activator=None)
        elif what in model.ASKABLE:
            self.pair.update(spot, what)
        else:
            self.pair.delete(spot, force=True)
            if what == "registered alone":
                self.pair.register(at, leaf, model.INACTIVE, alone=True)
            elif what == "registered again":
                self.pair.connect(leaf, endpoint(at), "none", at.region, v5=False, activator=None)
        self.lets_time_pass(model.JITP_SECONDS)

    @rule(seconds=st.sampled_from((1.0, model.JITP_SECONDS)))
    @precondition(lambda self: self.pair.model.runs)
    def lets_time_pass(self, seconds: float) -> None:
        self.pair.world.advance(seconds)
        self.pair.model.pass_time(seconds)

    # --- what holds after every step ---

    @invariant()
    def emulator_holds_what_the_model_holds(self) -> None:
        cas = {self.pair.ca(number).certificate_id: number for number in range(2)}
        known = {self.pair.leaf_id(leaf): leaf for leaf in LEAVES}
        same("CAs", self.pair.model.cas, dict(self.pair.held_cas(cas)))
        same("certificates", self.pair.model.records, dict(self.pair.held_records(known, cas)))

    @invariant()
    def emulator_decides_as_the_oracle(self) -> None:
        """On every device at both doors: with each endpoint there, none, and by turns another name."""
        self.turn += 1
        now = self.pair.world.epoch()
        for leaf in LEAVES:
            views = self.pair.views(leaf, None)
            for door in REGIONS:
                for name, chain in self.shown(leaf, door):
                    decision = admission.decide(
                        self.pair.registry,
                        presented(leaf, name, chain, door, one_subject=self.pair.one_subject),
                        client_id=f"c{leaf}",
                        settings=self.pair.world.settings,
                        now=now,
                    )
                    at = decision.partition
                    decider = None if at is None else str(Place(at.account_id, at.region))
                    compare(self.pair.expect(leaf, views, name, chain, door, v5=False), decision, decider)
                    same("logged in an account", self.pair.named(name, door) is not None, decision.logged)

    def shown(self, leaf: int, door: str) -> Sequence[tuple[str | None, str]]:
        """Server names and chains to ask about; where nobody has to do with the device, two by turns are enough."""
        turn = self.turn
        named = [*(endpoint(at) for at in PLACES if at.region == door), OTHER_NAMES[turn % len(OTHER_NAMES)]]
        every = [*((name, CHAINS[turn % 3]) for name in named), (None, "own"), (None, ("none", "other")[turn % 2])]
        if any(at.region == door and number == leaf for at, number in self.pair.related()):
            return every
        return [every[(turn + each * 4) % len(every)] for each in range(2)]

    @invariant()
    def connections_live_as_long_as_they_may(self) -> None:
        """Row 10c.active.deactivated, which the emulator does at once."""
        for spot, client in list(self.pair.live.items()):
            record = self.pair.model.records.get(spot)
            may = record is not None and record.status == model.ACTIVE and record.allowed
            same(f"{spot} still connected", may, not client.closed)
            if not may:
                del self.pair.live[spot]


def _further(account: str, by: int) -> str:
    """Another account, unless ``by`` is 0."""
    return ACCOUNTS[(ACCOUNTS.index(account) + by) % len(ACCOUNTS)]


def _one_of(spots: Sequence[Spot], number: int) -> Spot:
    return spots[number % len(spots)]


ROUNDS: Final = 12
"""With seeds 0 to 11."""
EXAMPLES: Final = 10
"""In each round. Hypothesis varies what it has drawn only after its tenth example, to five near copies of each; many
short rounds reach more states than one long one."""
STEPS: Final = 30


def hold_all() -> None:
    """Every round, until there is a :class:`Disagreement`, which is told as it was found."""
    for number in range(ROUNDS):
        hold(number, phases=[Phase.generate])


def hold(number: int | None, *, phases: Sequence[Phase] = tuple(Phase)) -> None:
    """One round, of seed ``number``, or with ``None`` of one that was never there; raises :class:`Disagreement`."""
    machine: type[RuleBasedStateMachine] = OracleAgainstEmulator
    if number is not None:
        machine = seed(number)(type(OracleAgainstEmulator.__name__, (OracleAgainstEmulator,), {}))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=phases,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
