"""Certificates between accounts: who has which record when, and what stands in the way (botocore, D)."""

from collections.abc import Callable

import pytest

from devicesim.emulator.registry import APIError, Partition, Registry
from devicesim.emulator.state.environment import ControlSettings
from devicesim.emulator.state.records import CertificateChange, CertificateChangeKind, CertificateStatus
from tests.control_support import REGION, A, B, C, Clock, TestCA, make_registry, pem

ALLOW = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
PENDING, INACTIVE, ACTIVE = CertificateStatus.PENDING_TRANSFER, CertificateStatus.INACTIVE, CertificateStatus.ACTIVE


@pytest.fixture
def leaf(registry: Registry, a: Partition) -> str:
    return registry.certificates.create_keys(a)[0].certificate_id


def refused(call: Callable[[], object]) -> APIError:
    with pytest.raises(APIError) as caught:
        call()
    return caught.value


def test_offer_is_a_record_in_both_accounts_and_answers_for_the_source(
    registry: Registry, a: Partition, b: Partition, leaf: str, clock: Clock
) -> None:
    offered = registry.transfers.start(a, leaf, B, "yours now")

    assert offered.arn == f"arn:aws:iot:{REGION}:{B}:cert/{leaf}"  # the target's (CLI reference, D)
    assert (a.certificates[leaf].status, b.certificates[leaf].status) == (PENDING, PENDING)
    assert a.certificates[leaf].transfer == b.certificates[leaf].transfer
    assert offered.transfer is not None
    assert (offered.transfer.message, offered.transfer.transfer_date) == ("yours now", clock.now)
    assert registry.transfers.outgoing(a) == [a.certificates[leaf]]
    assert registry.transfers.outgoing(b) == []
    assert registry.default_certificate_holder(REGION, leaf) is a


@pytest.mark.parametrize("active", [False, True])
def test_accepted_certificate_leaves_the_source(
    registry: Registry, a: Partition, b: Partition, leaf: str, clock: Clock, active: bool
) -> None:
    registry.transfers.start(a, leaf, B)
    clock.advance(5)
    told: list[CertificateChange] = []
    registry.on_certificate_changed.append(told.append)

    accepted = registry.transfers.accept(b, leaf, active=active)

    assert accepted is b.certificates[leaf]
    assert accepted.status is (ACTIVE if active else INACTIVE)
    assert accepted.previous_owner == A
    assert accepted.transfer is not None
    assert accepted.transfer.accept_date == clock.now
    assert leaf not in a.certificates
    assert registry.default_certificate_holder(REGION, leaf) is b
    assert [(change.account_id, change.kind) for change in told] == [
        (A, CertificateChangeKind.DELETED),
        (B, CertificateChangeKind.STATUS),
    ]


def test_rejected_certificate_is_back_with_the_reason(
    registry: Registry, a: Partition, b: Partition, leaf: str, clock: Clock
) -> None:
    registry.transfers.start(a, leaf, B, "please")
    clock.advance(5)

    registry.transfers.reject(b, leaf, "no thanks")

    back = a.certificates[leaf]
    assert back.status is INACTIVE
    assert back.transfer is not None
    assert (back.transfer.message, back.transfer.reject_reason) == ("please", "no thanks")
    assert back.transfer.reject_date == clock.now
    assert b.certificates == {}
    assert registry.default_certificate_holder(REGION, leaf) is a


def test_cancelled_certificate_is_back_and_can_be_transferred_again(
    registry: Registry, a: Partition, b: Partition, leaf: str
) -> None:
    registry.transfers.start(a, leaf, B)
    registry.transfers.cancel(a, leaf)

    assert a.certificates[leaf].status is INACTIVE
    assert b.certificates == {}
    registry.transfers.start(a, leaf, C)
    assert leaf in registry.partition(C, REGION).certificates


def test_certificate_can_go_on_and_come_back(registry: Registry, a: Partition, b: Partition, leaf: str) -> None:
    registry.transfers.start(a, leaf, B)
    registry.transfers.accept(b, leaf)
    registry.transfers.start(b, leaf, A)
    registry.transfers.accept(a, leaf, active=True)

    assert a.certificates[leaf].previous_owner == B
    assert b.certificates == {}
    assert refused(lambda: registry.transfers.cancel(b, leaf)).code == "TransferAlreadyCompletedException"
    assert refused(lambda: registry.transfers.cancel(a, leaf)).code == "TransferAlreadyCompletedException"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (ACTIVE, "CertificateStateException"),
        (CertificateStatus.REVOKED, "CertificateStateException"),
    ],
)
def test_status_stands_in_the_way(
    registry: Registry, a: Partition, leaf: str, status: CertificateStatus, code: str
) -> None:
    registry.certificates.update(a, leaf, status)

    assert refused(lambda: registry.transfers.start(a, leaf, B)).code == code
    assert registry.partition(B, REGION).certificates == {}


def test_attached_policy_is_a_conflict(registry: Registry, a: Partition, leaf: str) -> None:
    registry.policies.create(a, "p", ALLOW)
    registry.policies.attach(a, "p", a.certificate_arn(leaf))

    error = refused(lambda: registry.transfers.start(a, leaf, B))

    assert error.code == "TransferConflictException"
    assert a.certificates[leaf].status is INACTIVE


@pytest.mark.parametrize("allowed", [False, True])
def test_attached_thing_is_a_conflict_unless_the_setting_says_otherwise(clock: Clock, allowed: bool) -> None:
    registry = make_registry(clock, ControlSettings(transfer_with_things=allowed))
    a, b = registry.partition(A, REGION), registry.partition(B, REGION)
    leaf = registry.certificates.create_keys(a)[0].certificate_id
    registry.things.create(a, "robot")
    registry.things.attach_principal(a, "robot", a.certificate_arn(leaf))
    if not allowed:
        assert refused(lambda: registry.transfers.start(a, leaf, B)).code == "TransferConflictException"
        return
    registry.transfers.start(a, leaf, B)
    registry.transfers.accept(b, leaf)

    assert a.things_of_principal == {}
    assert a.principals_of_thing == {}


def test_target_that_has_the_certificate_already_is_a_conflict(registry: Registry, a: Partition, b: Partition) -> None:
    own = pem(TestCA().leaf())
    leaf = registry.certificates.register_without_ca(a, own).certificate_id
    before = registry.certificates.register_without_ca(b, own)

    assert refused(lambda: registry.transfers.start(a, leaf, B)).code == "TransferConflictException"
    assert b.certificates[leaf] == before


def test_transfer_to_oneself_and_of_what_is_not_there_is_refused(registry: Registry, a: Partition, leaf: str) -> None:
    assert refused(lambda: registry.transfers.start(a, leaf, A)).code == "InvalidRequestException"
    assert refused(lambda: registry.transfers.start(a, "0" * 64, B)).code == "ResourceNotFoundException"


def test_only_the_target_accepts_and_rejects_and_only_the_source_cancels(
    registry: Registry, a: Partition, b: Partition, leaf: str
) -> None:
    registry.transfers.start(a, leaf, B)
    before = (a.certificates[leaf], b.certificates[leaf])

    assert refused(lambda: registry.transfers.accept(a, leaf)).code == "ResourceNotFoundException"
    assert refused(lambda: registry.transfers.reject(a, leaf)).code == "ResourceNotFoundException"
    assert refused(lambda: registry.transfers.cancel(b, leaf)).code == "InvalidRequestException"
    third = registry.partition(C, REGION)
    assert refused(lambda: registry.transfers.accept(third, leaf)).code == "ResourceNotFoundException"
    assert (a.certificates[leaf], b.certificates[leaf]) == before


def test_completed_transfer_can_not_be_taken_back(registry: Registry, a: Partition, b: Partition, leaf: str) -> None:
    registry.transfers.start(a, leaf, B)
    registry.transfers.accept(b, leaf)

    for call in (registry.transfers.accept, registry.transfers.reject):
        assert refused(lambda call=call: call(b, leaf)).code == "TransferAlreadyCompletedException"  # type: ignore[misc]
    assert refused(lambda: registry.transfers.cancel(a, leaf)).code == "TransferAlreadyCompletedException"


def test_certificate_that_was_never_in_transfer_is_named_as_the_setting_says(clock: Clock) -> None:
    registry = make_registry(clock, ControlSettings(transfer_not_pending_error="ResourceNotFoundException"))
    a = registry.partition(A, REGION)
    leaf = registry.certificates.create_keys(a)[0].certificate_id

    assert refused(lambda: registry.transfers.accept(a, leaf)).code == "ResourceNotFoundException"
    assert refused(make_and_cancel).code == "InvalidRequestException"


def make_and_cancel() -> None:
    registry = make_registry()
    a = registry.partition(A, REGION)
    registry.transfers.cancel(a, registry.certificates.create_keys(a)[0].certificate_id)


def test_certificate_in_transfer_can_neither_be_updated_nor_deleted_on_either_side(
    registry: Registry, a: Partition, b: Partition, leaf: str
) -> None:
    registry.transfers.start(a, leaf, B)

    for partition in (a, b):
        update = refused(lambda partition=partition: registry.certificates.update(partition, leaf, ACTIVE))  # type: ignore[misc]
        delete = refused(lambda partition=partition: registry.certificates.delete(partition, leaf))  # type: ignore[misc]
        assert (update.code, delete.code) == ("CertificateStateException",) * 2
