"""Whatever three accounts do with a few certificates, a transfer has two ends and a certificate one owner."""

from collections.abc import Callable
from functools import cache

from cryptography import x509
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from devicesim.emulator.registry import APIError, Partition
from devicesim.emulator.state.records import CertificateMode, CertificateStatus
from devicesim.pki.identity import certificate_id
from tests.control_support import REGION, A, B, C, TestCA, make_key, make_registry, pem

ACCOUNTS = (A, B, C)
ALLOW = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
PENDING = CertificateStatus.PENDING_TRANSFER
accounts = st.sampled_from(ACCOUNTS)
leaves = st.integers(0, 1)


@cache
def leaf(number: int) -> x509.Certificate:
    return TestCA().leaf(f"robot-{number}", key=make_key(f"robot-{number}"))


@cache
def leaf_id(number: int) -> str:
    return certificate_id(leaf(number))


class Accounts(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.registry = make_registry()
        for account in ACCOUNTS:
            partition = self.at(account)
            self.registry.policies.create(partition, "p", ALLOW)
            self.registry.things.create(partition, "robot")
            if account == A:  # one account has the CA in DEFAULT mode
                code = self.registry.cas.registration_code(partition)
                self.registry.cas.register(
                    partition, TestCA().pem, verification_pem=TestCA().verification(code), active=True
                )
            else:
                self.registry.cas.register(partition, TestCA().pem, mode=CertificateMode.SNI_ONLY, active=True)
        for number in range(2):
            self.registry.certificates.register(self.at(A), pem(leaf(number)))

    def at(self, account: str) -> Partition:
        return self.registry.partition(account, REGION)

    def attempt(self, call: Callable[[], object]) -> None:
        """A refusal changes nothing; anything but a refusal is a bug and leaves the test."""
        before = [dict(self.at(account).certificates) for account in ACCOUNTS]
        try:
            call()
        except APIError:
            assert before == [dict(self.at(account).certificates) for account in ACCOUNTS]

    @rule(account=accounts, number=leaves, alone=st.booleans())
    def register(self, account: str, number: int, alone: bool) -> None:
        certificates = self.registry.certificates
        how = certificates.register_without_ca if alone else certificates.register
        self.attempt(lambda: how(self.at(account), pem(leaf(number))))

    @rule(account=accounts, number=leaves, status=st.sampled_from(list(CertificateStatus)))
    def update(self, account: str, number: int, status: CertificateStatus) -> None:
        self.attempt(lambda: self.registry.certificates.update(self.at(account), leaf_id(number), status))

    @rule(account=accounts, number=leaves, force=st.booleans())
    def delete(self, account: str, number: int, force: bool) -> None:
        self.attempt(lambda: self.registry.certificates.delete(self.at(account), leaf_id(number), force=force))

    @rule(account=accounts, number=leaves, attach=st.booleans())
    def policy(self, account: str, number: int, attach: bool) -> None:
        partition = self.at(account)
        change = self.registry.policies.attach if attach else self.registry.policies.detach
        self.attempt(lambda: change(partition, "p", partition.certificate_arn(leaf_id(number))))

    def start(self, account: str, to: str, number: int) -> None:
        self.attempt(lambda: self.registry.transfers.start(self.at(account), leaf_id(number), to))

    @rule(account=accounts, number=leaves, active=st.booleans())
    def accept(self, account: str, number: int, active: bool) -> None:
        self.attempt(lambda: self.registry.transfers.accept(self.at(account), leaf_id(number), active=active))

    @rule(number=leaves, to=accounts, accepted=st.booleans())
    def hand_over(self, number: int, to: str, accepted: bool) -> None:
        """By whoever has it in a state to be transferred: chance alone seldom gets that far."""
        for account in ACCOUNTS:
            self.start(account, to, number)
        if accepted:
            self.accept(to, number, False)

    @rule(account=accounts, number=leaves)
    def reject(self, account: str, number: int) -> None:
        self.attempt(lambda: self.registry.transfers.reject(self.at(account), leaf_id(number)))

    @rule(account=accounts, number=leaves)
    def cancel(self, account: str, number: int) -> None:
        self.attempt(lambda: self.registry.transfers.cancel(self.at(account), leaf_id(number)))

    @invariant()
    def every_pending_transfer_has_two_ends(self) -> None:
        for account in ACCOUNTS:
            for record in self.at(account).certificates.values():
                if record.status is not PENDING:
                    continue
                assert record.transfer is not None
                ends = {record.transfer.source, record.transfer.target}
                assert account in ends
                assert len(ends) == 2
                for end in ends:
                    other = self.at(end).certificates[record.certificate_id]
                    assert (other.status, other.transfer) == (PENDING, record.transfer)
                    assert other.arn == self.at(end).certificate_arn(record.certificate_id)

    @invariant()
    def attachments_are_of_certificates_that_are_there(self) -> None:
        for account in ACCOUNTS:
            partition = self.at(account)
            arns = {record.arn for record in partition.certificates.values()}
            assert set(partition.policies_of_target) <= arns

    @invariant()
    def who_answers_without_server_name_is_what_the_records_say(self) -> None:
        for number in range(2):
            holders = [
                account
                for account in ACCOUNTS
                if (record := self.at(account).certificates.get(leaf_id(number))) is not None
                and record.mode is CertificateMode.DEFAULT
                and not (record.status is PENDING and record.transfer and record.transfer.target == account)
            ]
            assert self.registry.certificates.has_default_holder(REGION, leaf_id(number)) is bool(holders)
            if len(holders) == 1:
                found = self.registry.default_certificate_holder(REGION, leaf_id(number))
                assert found is self.at(holders[0])

    @invariant()
    def certificates_are_found_by_their_ca(self) -> None:
        for account in ACCOUNTS:
            partition = self.at(account)
            by_ca = {each for ids in partition.certificates_by_ca.values() for each in ids}
            assert by_ca == {
                record.certificate_id
                for record in partition.certificates.values()
                if record.ca_certificate_id is not None
            }


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
