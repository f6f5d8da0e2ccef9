"""The oracle (``rules``) held against the emulator's admission: two readings of one page, written apart.

hypothesis draws worlds (accounts in two Regions, how each holds the CA, what each has on record of the device's
certificate) and a connection (Region dialled, SNI, chain sent or not); the two must agree on who decides and what
becomes of the device. A world is built through the emulator's own API rules, so it is one that AWS would allow.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim import rules
from devicesim.emulator import admission
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import (
    AutoRegistrationStatus,
    CACertificateStatus,
    CertificateMode,
    CertificateStatus,
)
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity, certificate_pem
from devicesim.pki.profile import KeyType, Profile
from tests.property.oracle_support import SPELLINGS, compare

NOW = datetime(2026, 6, 1, tzinfo=UTC)
REGIONS = ("us-east-1", "eu-west-1")
POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}'


@dataclass(frozen=True)
class Account:
    """How one account of a drawn world stands."""

    account_id: str
    region: str
    mode: str | None
    active: bool
    auto_registration: bool
    record: str | None
    alone: bool
    """Whether the record was made without the CA, and so in SNI_ONLY mode whatever the CA's."""
    policy: bool

    @property
    def record_mode(self) -> str:
        return "SNI_ONLY" if self.alone or self.mode is None else self.mode


@dataclass(frozen=True)
class World:
    accounts: tuple[Account, ...]
    region: str
    """Dialled."""
    sni: str
    """``none``, ``junk``, or the place of an account in the list; ``upper:`` before it sends it in capitals, ``dot:``
    with a dot and ``port:`` with a port after it."""
    chain: bool


@pytest.fixture(scope="module")
def ca() -> Authority:
    return new_shared_authority("CA", KeyType.EC_P256, now=NOW, validity=timedelta(days=100))


@pytest.fixture(scope="module")
def leaf(ca: Authority) -> Identity:
    return ca.mint(0, secret=b"s" * 32, profile=Profile(names={"fleet": "f"}))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    accounts: list[Account] = []
    taken: set[str] = set()
    for number in range(draw(st.integers(1, 4))):
        region = draw(st.sampled_from(REGIONS))
        modes = [None, "SNI_ONLY"] + (["DEFAULT"] if region not in taken else [])
        mode = draw(st.sampled_from(modes))
        if mode == "DEFAULT":
            taken.add(region)
        # a record comes about under the CA; without one RegisterCertificateWithoutCA makes it
        record = draw(st.sampled_from([None, None, "ACTIVE", "INACTIVE", "REVOKED", "PENDING_ACTIVATION"]))
        if mode is None and record == "PENDING_ACTIVATION":
            record = None
        accounts.append(
            Account(
                account_id=str(number + 1) * 12,
                region=region,
                mode=mode,
                active=draw(st.booleans()),
                auto_registration=draw(st.booleans()),
                record=record,
                alone=record is not None and record != "PENDING_ACTIVATION" and draw(st.booleans()),
                policy=draw(st.booleans()),
            )
        )
    places = [str(number) for number in range(len(accounts))]
    sni = draw(st.sampled_from(["none", "junk", *places, *(f"{how}:{each}" for how in SPELLINGS for each in places)]))
    return World(tuple(accounts), draw(st.sampled_from(REGIONS)), sni, draw(st.booleans()))


def build(registry: Registry, account: Account, ca: Authority, leaf: Identity) -> Partition:
    partition = registry.partition(account.account_id, account.region)
    pem = certificate_pem(leaf.certificate)
    if account.mode is not None:
        verification = None
        if account.mode == "DEFAULT":
            code = registry.cas.registration_code(partition)
            made = ca.verification_certificate(code, not_before=NOW, not_after=NOW + timedelta(days=1))
            verification = certificate_pem(made.certificate)
        record = registry.cas.register(
            partition,
            certificate_pem(ca.certificate),
            verification_pem=verification,
            mode=CertificateMode(account.mode),
            active=True,
            auto_registration=True,
        )
        if account.record == "PENDING_ACTIVATION":
            registry.auto_register(partition, leaf.certificate, record)
        elif account.record is not None and not account.alone:
            registry.certificates.register(partition, pem, status=CertificateStatus(account.record))
        registry.cas.update(
            partition,
            ca.certificate_id,
            status=CACertificateStatus.ACTIVE if account.active else CACertificateStatus.INACTIVE,
            auto_registration=AutoRegistrationStatus("ENABLE" if account.auto_registration else "DISABLE"),
        )
    if account.record is not None and (account.alone or account.mode is None):
        registry.certificates.register_without_ca(partition, pem, status=CertificateStatus(account.record))
    if account.policy and account.record is not None:
        registry.policies.create(partition, "p", POLICY)
        registry.policies.attach(partition, "p", partition.certificate_arn(leaf.certificate_id))
    return partition


def view(number: int, account: Account, partition: Partition) -> rules.AccountView:
    return rules.AccountView(
        name=str(number),
        account_id=account.account_id,
        region=account.region,
        endpoint=partition.endpoint,
        ca=None
        if account.mode is None
        else rules.CARegistration(
            mode=account.mode,  # type: ignore[arg-type]  # drawn from the two
            active=account.active,
            auto_registration=account.auto_registration,
        ),
        provisioning="JITR",
        thing=False,
        certificate=None
        if account.record is None
        else rules.CertificateView(
            status=account.record,
            mode=account.record_mode,  # type: ignore[arg-type]  # one of the two
            policy_allows=account.policy,
        ),
    )


@settings(max_examples=1000, deadline=None)
@given(world=worlds())
def test_the_emulator_does_what_the_oracle_says(world: World, ca: Authority, leaf: Identity) -> None:
    registry = Registry(
        clock=NOW.timestamp, randbytes=lambda size: bytes(range(size)), template_validator=lambda body: None
    )
    partitions = [build(registry, account, ca, leaf) for account in world.accounts]
    kind, _, place = world.sni.rpartition(":")
    sni = {"none": None, "junk": f"nobody-ats.iot.{world.region}.localhost"}.get(
        world.sni, partitions[int(place)].endpoint if place.isdecimal() else None
    )
    sni = SPELLINGS[kind](sni) if sni else sni

    expected = rules.expect(
        [view(number, *pair) for number, pair in enumerate(zip(world.accounts, partitions, strict=True))],
        region=world.region,
        sni=sni,
        chain_sent=world.chain,
    )
    decision = admission.decide(
        registry,
        admission.Presented(
            door=admission.Door(region=world.region),
            server_name=None if sni is None else sni.encode(),
            leaf=leaf.certificate,
            chain=(ca.certificate.public_bytes(serialization.Encoding.DER),) if world.chain else (),
            certificate_id=leaf.certificate_id,
        ),
        client_id="c",
        settings=Settings(),
        now=NOW.timestamp(),
    )

    decider = None if decision.partition is None else str(partitions.index(decision.partition))
    compare(expected, decision, decider)
