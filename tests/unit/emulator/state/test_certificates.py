"""Device certificates: aws-iot-behaviour.md §1.4, the leaf rows of §10a, and auto-registration of §2."""

from collections.abc import Callable

import pytest

from devicesim.emulator.registry import APIError, Partition, Registry
from devicesim.emulator.state.environment import ControlSettings
from devicesim.emulator.state.records import (
    CACertificate,
    CACertificateStatus,
    CertificateChange,
    CertificateChangeKind,
    CertificateMode,
    CertificateStatus,
    DeviceCertificate,
)
from devicesim.pki.identity import certificate_id
from tests.control_support import (
    REGION,
    A,
    B,
    Clock,
    TestCA,
    make_certificate,
    make_key,
    make_registry,
    odd_certificate,
    pem,
)

ASKABLE = [CertificateStatus.ACTIVE, CertificateStatus.INACTIVE, CertificateStatus.REVOKED]
INTERNAL = [each for each in CertificateStatus if each not in ASKABLE]
ALLOW = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'


def refused(call: Callable[[], object]) -> APIError:
    with pytest.raises(APIError) as caught:
        call()
    return caught.value


def register_ca(
    registry: Registry, partition: Partition, mode: CertificateMode, ca: TestCA | None = None
) -> CACertificate:
    ca = ca or TestCA()
    verification = None
    if mode is CertificateMode.DEFAULT:
        verification = ca.verification(registry.cas.registration_code(partition))
    return registry.cas.register(
        partition, ca.pem, verification_pem=verification, mode=mode, active=True, auto_registration=True
    )


def register_leaf(
    registry: Registry, partition: Partition, status: CertificateStatus = CertificateStatus.ACTIVE
) -> DeviceCertificate:
    return registry.certificates.register(partition, pem(LEAF), status=status)


LEAF = TestCA().leaf()


class TestRegister:
    """RegisterCertificate."""

    @pytest.mark.parametrize("mode", list(CertificateMode))
    def test_leaf_inherits_the_mode_of_its_ca(
        self, registry: Registry, a: Partition, clock: Clock, mode: CertificateMode
    ) -> None:
        ca = register_ca(registry, a, mode)

        leaf = registry.certificates.register(a, pem(LEAF))

        assert leaf.mode is mode
        assert leaf.ca_certificate_id == ca.certificate_id
        assert leaf.certificate_id == certificate_id(LEAF)
        assert leaf.arn == f"arn:aws:iot:{REGION}:{A}:cert/{leaf.certificate_id}"
        assert leaf.status is CertificateStatus.INACTIVE
        assert (leaf.creation_date, leaf.last_modified_date, leaf.customer_version) == (clock.now, clock.now, 1)
        assert a.certificates_by_ca == {ca.certificate_id: {leaf.certificate_id: None}}
        assert registry.default_certificate_holder(REGION, leaf.certificate_id) is (
            a if mode is CertificateMode.DEFAULT else None
        )

    @pytest.mark.parametrize("status", ASKABLE)
    def test_status_may_be_asked_for(self, registry: Registry, a: Partition, status: CertificateStatus) -> None:
        register_ca(registry, a, CertificateMode.SNI_ONLY)

        assert register_leaf(registry, a, status).status is status

    @pytest.mark.parametrize("status", INTERNAL)
    def test_internal_status_is_refused(self, registry: Registry, a: Partition, status: CertificateStatus) -> None:
        register_ca(registry, a, CertificateMode.SNI_ONLY)

        error = refused(lambda: register_leaf(registry, a, status))

        assert error.code == "CertificateStateException"
        assert error.message == f"Not allowed to register certificate with {status} status"
        assert a.certificates == {}

    def test_ca_that_is_not_registered_here_is_refused(self, registry: Registry, a: Partition, b: Partition) -> None:
        register_ca(registry, b, CertificateMode.SNI_ONLY)

        by_name = refused(lambda: registry.certificates.register(a, pem(LEAF)))
        by_pem = refused(lambda: registry.certificates.register(a, pem(LEAF), ca_pem=TestCA().pem))

        assert (by_name.code, by_pem.code) == ("CertificateValidationException",) * 2

    def test_ca_given_must_have_signed_the_leaf(self, registry: Registry, a: Partition) -> None:
        register_ca(registry, a, CertificateMode.SNI_ONLY)
        other = TestCA(key=make_key("other"))
        register_ca(registry, a, CertificateMode.SNI_ONLY, other)

        error = refused(lambda: registry.certificates.register(a, pem(LEAF), ca_pem=other.pem))

        assert error.code == "CertificateValidationException"

    def test_inactive_ca_registers_nothing(self, registry: Registry, a: Partition) -> None:
        ca = register_ca(registry, a, CertificateMode.SNI_ONLY)
        registry.cas.update(a, ca.certificate_id, status=CACertificateStatus.INACTIVE)

        assert refused(lambda: registry.certificates.register(a, pem(LEAF))).code == "CertificateStateException"

    def test_two_cas_with_one_subject_and_key_conflict_unless_one_is_given(
        self, registry: Registry, a: Partition
    ) -> None:
        register_ca(registry, a, CertificateMode.SNI_ONLY, TestCA(serial=1))
        new = register_ca(registry, a, CertificateMode.SNI_ONLY, TestCA(serial=2))

        error = refused(lambda: registry.certificates.register(a, pem(LEAF)))
        leaf = registry.certificates.register(a, pem(LEAF), ca_pem=TestCA(serial=2).pem)

        assert error.code == "CertificateConflictException"
        assert leaf.ca_certificate_id == new.certificate_id

    def test_two_cas_with_one_subject_and_other_keys_do_not_conflict(self, registry: Registry, a: Partition) -> None:
        ca = register_ca(registry, a, CertificateMode.SNI_ONLY)
        register_ca(registry, a, CertificateMode.SNI_ONLY, TestCA(key=make_key("other")))

        assert registry.certificates.register(a, pem(LEAF)).ca_certificate_id == ca.certificate_id

    @pytest.mark.parametrize("kind", ["RSA-1024", "Ed25519"])
    def test_weak_or_unlisted_key_is_refused(self, registry: Registry, a: Partition, kind: str) -> None:
        register_ca(registry, a, CertificateMode.SNI_ONLY)
        weak = TestCA().leaf(key=make_key("weak", kind))

        assert refused(lambda: registry.certificates.register(a, pem(weak))).code == "CertificateValidationException"

    def test_no_pem_is_refused(self, registry: Registry, a: Partition) -> None:
        assert refused(lambda: registry.certificates.register(a, "no")).code == "CertificateValidationException"


class TestTruthTable:
    """§10a, the rows about leaves."""

    def test_without_ca_in_a_then_b_are_two_sni_only_records(
        self, registry: Registry, a: Partition, b: Partition
    ) -> None:
        first = registry.certificates.register_without_ca(a, pem(LEAF), status=CertificateStatus.ACTIVE)
        second = registry.certificates.register_without_ca(b, pem(LEAF))

        assert first.certificate_id == second.certificate_id
        assert (first.mode, second.mode) == (CertificateMode.SNI_ONLY, CertificateMode.SNI_ONLY)
        assert (first.status, second.status) == (CertificateStatus.ACTIVE, CertificateStatus.INACTIVE)
        assert first.ca_certificate_id is None

    def test_leaf_in_a_by_default_ca_then_b_without_ca_is_sni_only_in_b(
        self, registry: Registry, a: Partition, b: Partition
    ) -> None:
        register_ca(registry, a, CertificateMode.DEFAULT)
        first = register_leaf(registry, a)

        second = registry.certificates.register_without_ca(b, pem(LEAF))

        assert (first.mode, second.mode) == (CertificateMode.DEFAULT, CertificateMode.SNI_ONLY)
        assert registry.default_certificate_holder(REGION, first.certificate_id) is a

    @pytest.mark.parametrize("how", ["register", "without_ca", "auto"])
    def test_leaf_already_in_a_is_refused_by_any_operation(self, registry: Registry, a: Partition, how: str) -> None:
        ca = register_ca(registry, a, CertificateMode.SNI_ONLY)
        leaf = register_leaf(registry, a)
        again: dict[str, Callable[[], object]] = {
            "register": lambda: registry.certificates.register(a, pem(LEAF)),
            "without_ca": lambda: registry.certificates.register_without_ca(a, pem(LEAF)),
            "auto": lambda: registry.auto_register(a, LEAF, ca),
        }

        error = refused(again[how])

        assert error.code == "ResourceAlreadyExistsException"
        assert error.message == "The certificate is already provisioned or registered"
        assert error.fields == {"resourceId": leaf.certificate_id, "resourceArn": leaf.arn}

    def test_without_ca_takes_a_self_signed_leaf(self, registry: Registry, a: Partition) -> None:
        alone = make_certificate("alone", key=make_key("alone"))

        assert registry.certificates.register_without_ca(a, pem(alone)).mode is CertificateMode.SNI_ONLY

    @pytest.mark.parametrize("status", INTERNAL)
    def test_without_ca_refuses_internal_status(
        self, registry: Registry, a: Partition, status: CertificateStatus
    ) -> None:
        error = refused(lambda: registry.certificates.register_without_ca(a, pem(LEAF), status=status))

        assert error.code == "CertificateStateException"


class TestAutoRegister:
    """§2: a first connection."""

    @pytest.mark.parametrize("mode", list(CertificateMode))
    def test_record_waits_for_activation_in_the_mode_of_the_ca(
        self, registry: Registry, a: Partition, mode: CertificateMode
    ) -> None:
        ca = register_ca(registry, a, mode)

        leaf = registry.auto_register(a, LEAF, ca)

        assert (leaf.status, leaf.mode) == (CertificateStatus.PENDING_ACTIVATION, mode)
        assert leaf.ca_certificate_id == ca.certificate_id
        assert a.certificates == {leaf.certificate_id: leaf}

    def test_of_several_cas_with_one_key_the_one_given_is_recorded(self, registry: Registry, a: Partition) -> None:
        register_ca(registry, a, CertificateMode.SNI_ONLY, TestCA(serial=1))
        ca = register_ca(registry, a, CertificateMode.SNI_ONLY, TestCA(serial=2))

        assert registry.auto_register(a, LEAF, ca).ca_certificate_id == ca.certificate_id

    def test_independent_in_each_account(self, registry: Registry, a: Partition, b: Partition) -> None:
        """§10b, C4: sA, later sB."""
        first = registry.auto_register(a, LEAF, register_ca(registry, a, CertificateMode.SNI_ONLY))
        registry.certificates.update(a, first.certificate_id, CertificateStatus.ACTIVE)

        second = registry.auto_register(b, LEAF, register_ca(registry, b, CertificateMode.SNI_ONLY))

        assert second.certificate_id == first.certificate_id
        assert second.status is CertificateStatus.PENDING_ACTIVATION
        assert a.certificates[first.certificate_id].status is CertificateStatus.ACTIVE

    def test_weak_key_is_refused_all_the_same(self, registry: Registry, a: Partition) -> None:
        ca = register_ca(registry, a, CertificateMode.SNI_ONLY)
        weak = TestCA().leaf(key=make_key("weak", "RSA-1024"))

        assert refused(lambda: registry.auto_register(a, weak, ca)).code == "CertificateValidationException"


class TestDefaultHolder:
    """Whose record answers a connection without SNI: §4.1, §10d, decision procedure (3)."""

    def test_is_nobody_for_sni_only(self, registry: Registry, a: Partition) -> None:
        register_ca(registry, a, CertificateMode.SNI_ONLY)
        leaf = register_leaf(registry, a)

        assert registry.default_certificate_holder(REGION, leaf.certificate_id) is None

    def test_is_found_in_its_region_only(self, registry: Registry, a: Partition) -> None:
        register_ca(registry, a, CertificateMode.DEFAULT)
        leaf = register_leaf(registry, a)

        assert registry.default_certificate_holder(REGION, leaf.certificate_id) is a
        assert registry.default_certificate_holder("eu-west-1", leaf.certificate_id) is None

    def test_is_nobody_after_deletion(self, registry: Registry, a: Partition) -> None:
        register_ca(registry, a, CertificateMode.DEFAULT)
        leaf = register_leaf(registry, a, CertificateStatus.INACTIVE)

        registry.certificates.delete(a, leaf.certificate_id)

        assert registry.default_certificate_holder(REGION, leaf.certificate_id) is None
        assert not registry.certificates.has_default_holder(REGION, leaf.certificate_id)

    def test_of_two_the_one_that_holds_the_ca_now(self, registry: Registry, a: Partition, b: Partition) -> None:
        """The CA moved from A to B; A's record of the leaf stayed."""
        leaf_id = self.move_ca(registry, a, b)

        assert registry.default_certificate_holder(REGION, leaf_id) is b

    def test_of_two_without_the_ca_is_nobody(self, registry: Registry, a: Partition, b: Partition) -> None:
        leaf_id = self.move_ca(registry, a, b)
        ca_id = next(iter(b.cas))
        registry.cas.update(b, ca_id, status=CACertificateStatus.INACTIVE)
        registry.cas.delete(b, ca_id)

        assert registry.default_certificate_holder(REGION, leaf_id) is None
        assert registry.certificates.has_default_holder(REGION, leaf_id)

    def test_second_default_record_is_refused_where_the_setting_says_so(self) -> None:
        registry = make_registry(settings=ControlSettings(same_leaf_default_in_two_accounts=False))
        a, b = registry.partition(A, REGION), registry.partition(B, REGION)

        error = refused(lambda: self.move_ca(registry, a, b))

        assert error.code == "ResourceAlreadyExistsException"
        assert b.certificates == {}

    def move_ca(self, registry: Registry, a: Partition, b: Partition) -> str:
        ca = register_ca(registry, a, CertificateMode.DEFAULT)
        leaf = register_leaf(registry, a)
        registry.cas.update(a, ca.certificate_id, status=CACertificateStatus.INACTIVE)
        registry.cas.delete(a, ca.certificate_id)
        register_ca(registry, b, CertificateMode.DEFAULT)
        register_leaf(registry, b)
        return leaf.certificate_id


class TestUpdate:
    """UpdateCertificate."""

    @pytest.mark.parametrize("status", INTERNAL)
    def test_internal_target_is_refused(self, registry: Registry, a: Partition, status: CertificateStatus) -> None:
        leaf = registry.certificates.register_without_ca(a, pem(LEAF))

        error = refused(lambda: registry.certificates.update(a, leaf.certificate_id, status))

        assert error.code == "CertificateStateException"
        assert a.certificates[leaf.certificate_id] == leaf

    @pytest.mark.parametrize("status", ASKABLE)
    def test_pending_activation_can_become_anything_that_may_be_asked_for(
        self, registry: Registry, a: Partition, status: CertificateStatus
    ) -> None:
        leaf = registry.auto_register(a, LEAF, register_ca(registry, a, CertificateMode.SNI_ONLY))

        assert registry.certificates.update(a, leaf.certificate_id, status).status is status

    def test_change_is_counted_and_dated(self, registry: Registry, a: Partition, clock: Clock) -> None:
        leaf = registry.certificates.register_without_ca(a, pem(LEAF))
        clock.advance(3)

        changed = registry.certificates.update(a, leaf.certificate_id, CertificateStatus.ACTIVE)

        assert changed.customer_version == 2
        assert changed.last_modified_date == leaf.creation_date + 3
        assert (changed.creation_date, changed.generation_id) == (leaf.creation_date, leaf.generation_id)

    def test_same_status_changes_nothing(self, registry: Registry, a: Partition, clock: Clock) -> None:
        leaf = registry.certificates.register_without_ca(a, pem(LEAF), status=CertificateStatus.REVOKED)
        clock.advance(3)

        assert registry.certificates.update(a, leaf.certificate_id, CertificateStatus.REVOKED) is leaf

    @pytest.mark.parametrize("status", [CertificateStatus.ACTIVE, CertificateStatus.INACTIVE])
    def test_revoked_is_final(self, registry: Registry, a: Partition, status: CertificateStatus) -> None:
        leaf = registry.certificates.register_without_ca(a, pem(LEAF), status=CertificateStatus.REVOKED)

        error = refused(lambda: registry.certificates.update(a, leaf.certificate_id, status))

        assert error.code == "CertificateStateException"

    def test_revoked_is_not_final_where_the_setting_says_so(self) -> None:
        registry = make_registry(settings=ControlSettings(revoked_is_final=False))
        a = registry.partition(A, REGION)
        leaf = registry.certificates.register_without_ca(a, pem(LEAF), status=CertificateStatus.REVOKED)

        changed = registry.certificates.update(a, leaf.certificate_id, CertificateStatus.ACTIVE)

        assert changed.status is CertificateStatus.ACTIVE

    def test_deactivated_ca_leaves_its_certificates_alone(self, registry: Registry, a: Partition) -> None:
        """§1.3, last line; §10c, "CA deactivated after registration"."""
        ca = register_ca(registry, a, CertificateMode.SNI_ONLY)
        leaf = register_leaf(registry, a)

        registry.cas.update(a, ca.certificate_id, status=CACertificateStatus.INACTIVE)
        registry.cas.delete(a, ca.certificate_id)

        assert a.certificates == {leaf.certificate_id: leaf}

    def test_unknown_is_not_found(self, registry: Registry, a: Partition) -> None:
        error = refused(lambda: registry.certificates.update(a, "0" * 64, CertificateStatus.ACTIVE))

        assert error.code == "ResourceNotFoundException"


class TestDelete:
    """DeleteCertificate."""

    @pytest.mark.parametrize("force", [False, True])
    def test_active_is_refused_even_by_force(self, registry: Registry, a: Partition, force: bool) -> None:
        leaf = registry.certificates.register_without_ca(a, pem(LEAF), status=CertificateStatus.ACTIVE)

        error = refused(lambda: registry.certificates.delete(a, leaf.certificate_id, force=force))

        assert error.code == "CertificateStateException"

    def test_with_a_policy_is_refused_and_forced(self, registry: Registry, a: Partition) -> None:
        leaf = registry.certificates.register_without_ca(a, pem(LEAF))
        registry.policies.create(a, "allow", ALLOW)
        registry.policies.attach(a, "allow", leaf.arn)

        error = refused(lambda: registry.certificates.delete(a, leaf.certificate_id))
        registry.certificates.delete(a, leaf.certificate_id, force=True)

        assert error.code == "DeleteConflictException"
        assert a.certificates == {}
        assert (a.policies_of_target, a.targets_of_policy) == ({}, {})

    def test_with_a_thing_is_refused_even_by_force(self, registry: Registry, a: Partition) -> None:
        leaf = registry.certificates.register_without_ca(a, pem(LEAF))
        registry.things.create(a, "robot")
        registry.things.attach_principal(a, "robot", leaf.arn)

        error = refused(lambda: registry.certificates.delete(a, leaf.certificate_id, force=True))

        assert error.code == "DeleteConflictException"

    def test_leaves_no_trace_and_the_other_account_alone(self, registry: Registry, a: Partition, b: Partition) -> None:
        ca = register_ca(registry, a, CertificateMode.SNI_ONLY)
        leaf = register_leaf(registry, a, CertificateStatus.REVOKED)
        other = registry.certificates.register_without_ca(b, pem(LEAF))

        registry.certificates.delete(a, leaf.certificate_id)

        assert (a.certificates, a.certificates_by_ca) == ({}, {})
        assert b.certificates == {other.certificate_id: other}
        assert registry.auto_register(a, LEAF, ca).status is CertificateStatus.PENDING_ACTIVATION

    def test_pending_activation_can_be_deleted(self, registry: Registry, a: Partition) -> None:
        leaf = registry.auto_register(a, LEAF, register_ca(registry, a, CertificateMode.SNI_ONLY))

        registry.certificates.delete(a, leaf.certificate_id)

        assert a.certificates == {}

    def test_unknown_is_not_found(self, registry: Registry, a: Partition) -> None:
        assert refused(lambda: registry.certificates.delete(a, "0" * 64)).code == "ResourceNotFoundException"


def test_listeners_hear_every_change_of_a_certificate(registry: Registry, a: Partition) -> None:
    heard: list[CertificateChange] = []
    registry.on_certificate_changed.append(heard.append)
    registry.policies.create(a, "allow", ALLOW)
    registry.things.create(a, "robot")
    leaf = registry.certificates.register_without_ca(a, pem(LEAF))
    for _ in range(2):  # what changes nothing is not told
        registry.policies.attach(a, "allow", leaf.arn)
        registry.things.attach_principal(a, "robot", leaf.arn)
        active = registry.certificates.update(a, leaf.certificate_id, CertificateStatus.ACTIVE)
    registry.policies.detach(a, "allow", leaf.arn)
    registry.policies.detach(a, "allow", leaf.arn)
    registry.things.detach_principal(a, "robot", leaf.arn)
    inactive = registry.certificates.update(a, leaf.certificate_id, CertificateStatus.INACTIVE)
    registry.certificates.delete(a, leaf.certificate_id)

    assert [(change.kind, change.previous_status, change.certificate) for change in heard] == [
        (CertificateChangeKind.REGISTERED, None, leaf),
        (CertificateChangeKind.POLICIES, CertificateStatus.INACTIVE, leaf),
        (CertificateChangeKind.THINGS, CertificateStatus.INACTIVE, leaf),
        (CertificateChangeKind.STATUS, CertificateStatus.INACTIVE, active),
        (CertificateChangeKind.POLICIES, CertificateStatus.ACTIVE, active),
        (CertificateChangeKind.THINGS, CertificateStatus.ACTIVE, active),
        (CertificateChangeKind.STATUS, CertificateStatus.ACTIVE, inactive),
        (CertificateChangeKind.DELETED, CertificateStatus.INACTIVE, None),
    ]
    assert {(change.account_id, change.region, change.certificate_id) for change in heard} == {
        (A, REGION, leaf.certificate_id)
    }


@pytest.mark.parametrize("kind", ["x400Address", "ediPartyName", "version 2"])
def test_certificate_that_cryptography_cannot_look_into_is_refused_and_is_no_bug(kind: str) -> None:
    registry = make_registry()
    a = registry.partition(A, REGION)

    with pytest.raises(APIError) as caught:
        registry.certificates.register_without_ca(a, odd_certificate(kind))

    assert caught.value.code == "CertificateValidationException"
    assert a.certificates == {}
