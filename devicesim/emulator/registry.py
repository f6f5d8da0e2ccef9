"""The single truth of the emulator: what every account holds in every Region, and the rules for changing it.

The rules stand by family in ``emulator.state``; this module joins them. The API's handlers (``operations``) and JITP
(``provisioning``) call the same methods, so that a template obeys the rules that CreateThing and CreatePolicy obey.
Every method is synchronous and atomic: it raises :class:`APIError` and changes nothing, or it is done.

    registry = Registry(clock=time.time, randbytes=random.Random(seed).randbytes, template_validator=validate_template)
    partition = registry.partition("111111111111", "us-east-1")
    registry.things.create(partition, "robot-1")

State is volatile. Accounts and Regions come into being when they are first asked for: any 12 digits are an account.
"""

from collections.abc import Callable, Sequence

from cryptography import x509

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.state.billinggroups import BillingGroups
from devicesim.emulator.state.cacertificates import CACertificates
from devicesim.emulator.state.certificates import Certificates
from devicesim.emulator.state.claims import Claims
from devicesim.emulator.state.destinations import RuleDestinations
from devicesim.emulator.state.domains import Domains
from devicesim.emulator.state.environment import ControlSettings, Environment
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.policies import Policies
from devicesim.emulator.state.records import CACertificate, CertificateChange, DeviceCertificate
from devicesim.emulator.state.rolealiases import RoleAliases
from devicesim.emulator.state.sessions import Sessions
from devicesim.emulator.state.shadows import Shadows
from devicesim.emulator.state.tags import Tags
from devicesim.emulator.state.templates import Templates
from devicesim.emulator.state.thinggroups import ThingGroups, ThingTypes
from devicesim.emulator.state.things import Things
from devicesim.emulator.state.topicrules import TopicRules
from devicesim.emulator.state.transfers import Transfers

__all__ = ["APIError", "Partition", "Registry"]


class Registry:
    """All accounts and Regions."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        randbytes: Callable[[int], bytes],
        template_validator: Callable[[str], None],
        settings: ControlSettings | None = None,
    ) -> None:
        environment = Environment(
            clock=clock,
            randbytes=randbytes,
            validate_template=template_validator,
            settings=settings or ControlSettings(),
        )
        self.environment = environment
        self.tags = Tags(environment)
        self.cas = CACertificates(environment, self.tags)
        self.certificates = Certificates(environment, self.cas)
        self.templates = Templates(environment, self.tags)
        self.policies = Policies(environment, self.tags)
        self.things = Things(environment)
        self.billing_groups = BillingGroups(environment, self.tags, self.things)
        self.shadows = Shadows(environment)
        self.transfers = Transfers(environment, self.certificates, self.partition)
        self.domains = Domains(environment, self.tags)
        self.role_aliases = RoleAliases(environment, self.tags)
        self.sessions = Sessions(environment)
        self.claims = Claims(environment, self.certificates, self.templates)
        self.rule_destinations = RuleDestinations(environment)
        self.topic_rules = TopicRules(environment, self.tags, self.rule_destinations)
        self.thing_types = ThingTypes(environment, self.tags)
        self.thing_groups = ThingGroups(environment, self.tags)
        self.on_certificate_changed: list[Callable[[CertificateChange], None]] = environment.certificate_listeners
        """Called in order, synchronously, after each change of a device certificate: append to it."""
        self.new_partition: Callable[[str, str], Partition] = _plain_partition
        """Makes an account's partition; the store puts in its own, which note what changes."""
        self.on_adopt: list[Callable[[Partition], None]] = []
        """Called by :meth:`adopt` with an account that has been read from disk: append."""
        self.on_clear: list[Callable[[], None]] = []
        """Called by :meth:`clear` once everything is forgotten: append."""
        self._partitions: dict[tuple[str, str], Partition] = {}
        self._by_server_name: dict[str, Partition] = {}

    def partition(self, account_id: str, region: str) -> Partition:
        """The account in that Region, made on first use. ``account_id`` is twelve digits."""
        partition = self._partitions.get((account_id, region))
        if partition is None:
            if not (len(account_id) == 12 and account_id.isascii() and account_id.isdigit()):
                raise ValueError(f"account id {account_id!r} is not twelve digits")
            partition = self.new_partition(account_id, region)
            self._put(partition)
        return partition

    def _put(self, partition: Partition) -> None:
        self._partitions[partition.account_id, partition.region] = partition
        self._by_server_name[partition.endpoint] = partition
        if self.environment.settings.plain_data_endpoint:
            self._by_server_name[partition.plain_endpoint] = partition

    def adopt(self, partition: Partition) -> None:
        """Take in an account with all that it holds, as it was kept: nobody is told of it."""
        self._put(partition)
        self.cas.adopt(partition)
        self.certificates.adopt(partition)
        self.domains.adopt(partition)
        for listener in self.on_adopt:
            listener(partition)

    def clear(self) -> None:
        """Forget every account. Whoever still holds a partition holds one of nobody's."""
        self._partitions.clear()
        self._by_server_name.clear()
        self.cas.clear()
        self.certificates.clear()
        self.domains.clear()
        for listener in self.on_clear:
            listener()

    def holds(self, partition: Partition) -> bool:
        """Whether this is an account of ours: not one that was forgotten by :meth:`clear`."""
        return self._partitions.get((partition.account_id, partition.region)) is partition

    def partitions(self) -> Sequence[Partition]:
        """Every account and Region in use, in the order of first use."""
        return tuple(self._partitions.values())

    def resolve_server_name(
        self, server_name: str, serves: Callable[[str], bool] = lambda _region: True
    ) -> Partition | None:
        """The account and Region whose endpoint has this name (lower-case); ``None`` for nobody's (§4.1).

        A customer may have one domain in several Regions: ``serves`` says which of them are meant.
        """
        return self._by_server_name.get(server_name) or self.domains.resolve(server_name, serves)

    def default_ca_holders(self, region: str, ca_certificate_id: str) -> Partition | None:
        """The one account that holds this CA in DEFAULT mode in ``region``."""
        return self.cas.default_holder(region, ca_certificate_id)

    def default_certificate_holder(self, region: str, certificate_id: str) -> Partition | None:
        """The account whose DEFAULT record of this leaf answers a connection without SNI in ``region``."""
        return self.certificates.default_holder(region, certificate_id)

    def issuer_of(
        self, partition: Partition, leaf: x509.Certificate, presented: Sequence[x509.Certificate] = ()
    ) -> CACertificate | None:
        """The CA of the account that directly signed ``leaf``, whatever its status; ``presented`` is the rest of the
        device's chain, which decides between CAs with the same subject and key."""
        return self.cas.issuer_of(partition, leaf, presented)

    def auto_register(
        self, partition: Partition, certificate: x509.Certificate, ca: CACertificate
    ) -> DeviceCertificate:
        """Register a leaf on its first connection (JITR, JITP), PENDING_ACTIVATION and in the CA's mode."""
        return self.certificates.auto_register(partition, certificate, ca)


def _plain_partition(account_id: str, region: str) -> Partition:
    return Partition(account_id=account_id, region=region)
