"""What the fleet file makes of the accounts: what each holds, what each group sends, what the oracle says. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from devicesim.cloud.account import AccountAccess
from devicesim.cloud.setup import AccountPlan, default_policy, default_template, makes_thing
from devicesim.fleet.sections import Account, Group
from devicesim.fleet.spec import Fleet
from devicesim.outcome import DeviceOutcome, Holding
from devicesim.record.facts import AccountRecord, GroupRecord
from devicesim.record.verdict import UserExpectation
from devicesim.rules import AccountView, CARegistration, CertificateView, Expectation, expect


def account_plan(fleet: Fleet, name: str, access: AccountAccess) -> AccountPlan:
    """What one account is to hold."""
    account = fleet.file.accounts[name]
    policy_name = device_policy_name(fleet, name)
    role_arn = account.role_arn
    if role_arn is None and access.emulated:
        role_arn = f"arn:aws:iam::{account.id}:role/devicesim-jitp"
    return AccountPlan(
        ca_mode=None if account.ca_mode == "none" else account.ca_mode,
        auto_registration=account.provisioning != "none",
        template=_template(fleet, name) if account.provisioning == "JITP" else None,
        role_arn=role_arn,
        policy_name=policy_name,
        policy=fleet.policies.get(name, default_policy(access)),
    )


def device_policy_name(fleet: Fleet, name: str) -> str:
    return fleet.file.accounts[name].policy_name or f"devicesim-{fleet.name}"


def activates(account: Account) -> bool:
    """Whether devicesim is the one who activates in this account."""
    return account.provisioning == "JITR" and account.activator in (None, "devicesim")


def makes_things(fleet: Fleet, name: str) -> bool | None:
    """Whether provisioning attaches a thing; ``None``: somebody else's activator decides."""
    account = fleet.file.accounts[name]
    if account.provisioning == "JITR" and account.activator == "external":
        return None
    return account.provisioning == "JITP" and makes_thing(_template(fleet, name))


def things_asked(fleet: Fleet, name: str) -> int | None:
    """How many of an account's certificates are asked for their things after a run; ``None``: all."""
    if makes_things(fleet, name) is False:
        return 0
    wanted = fleet.file.verification.things
    return None if wanted == "all" else 0 if wanted == "none" else wanted


def server_name(group: Group, endpoints: Mapping[str, str]) -> str | None:
    """What a group's devices send as SNI; ``None``: no extension. ``endpoints`` by account name."""
    kind, _, rest = group.sni.partition(":")
    match kind:
        case "endpoint":
            return endpoints[group.account]
        case "none":
            return None
        case "other":
            return endpoints[rest]
        case _:
            return rest


def user_expectation(group: Group) -> UserExpectation | None:
    if group.expect is None:
        return None
    return UserExpectation(outcome=DeviceOutcome(group.expect.outcome), account=group.expect.account)


@dataclass(frozen=True, slots=True)
class World:
    """The accounts as they are after setup and before the first device."""

    fleet: Fleet
    endpoints: Mapping[str, str]
    """Data endpoint by account name."""
    _known: dict[tuple[str, tuple[Holding, ...]], Expectation] = field(default_factory=dict)

    def expectation(self, group_name: str, before: tuple[Holding, ...] = ()) -> Expectation:
        """What the oracle says of a group's device; ``before`` is what accounts held of its certificate already."""
        key = group_name, tuple(replace(each, certificate_id="", things=None) for each in before)
        if key not in self._known:
            self._known[key] = self._ask_oracle(group_name, before)
        return self._known[key]

    def _ask_oracle(self, group_name: str, before: Sequence[Holding]) -> Expectation:
        group = self.fleet.file.groups[group_name]
        held = {each.account: each for each in before}
        return expect(
            [self._view(name, held.get(name)) for name in self.fleet.file.accounts],
            region=self.fleet.file.accounts[group.account].region,
            sni=server_name(group, self.endpoints),
            chain_sent=self.fleet.file.tls.send_chain,
            mqtt_version=self.fleet.file.mqtt.version,
        )

    def account_record(self, name: str) -> AccountRecord:
        account = self.fleet.file.accounts[name]
        return AccountRecord(
            name=name,
            account_id=account.id,
            region=account.region,
            endpoint=self.endpoints[name],
            ca_mode=None if account.ca_mode == "none" else account.ca_mode,
            provisioning=account.provisioning,
        )

    def group_record(self, name: str) -> GroupRecord:
        group = self.fleet.file.groups[name]
        return GroupRecord(
            name=name,
            count=group.count,
            account=group.account,
            sni_setting=group.sni,
            sni=server_name(group, self.endpoints),
            chain_sent=self.fleet.file.tls.send_chain,
            expectation=self.expectation(name),
            user=user_expectation(group),
        )

    def addressed(self, group_name: str) -> str | None:
        """The account whose endpoint a group's devices send as SNI, if any."""
        sent = server_name(self.fleet.file.groups[group_name], self.endpoints)
        if sent is None:
            return None
        return next((name for name, endpoint in self.endpoints.items() if endpoint.lower() == sent.lower()), None)

    def abroad(self, group_name: str) -> frozenset[str]:
        """The accounts in other Regions than the one that a group's devices dial."""
        accounts = self.fleet.file.accounts
        here = accounts[self.fleet.file.groups[group_name].account].region
        return frozenset(name for name, account in accounts.items() if account.region != here)

    def _view(self, name: str, held: Holding | None) -> AccountView:
        account = self.fleet.file.accounts[name]
        provisioning = account.provisioning
        nobody = provisioning == "JITR" and account.activator == "none"
        certificate = None
        if held is not None:
            mode = "DEFAULT" if held.mode == "DEFAULT" else "SNI_ONLY"
            certificate = CertificateView(status=held.status, mode=mode)  # type: ignore[arg-type]  # narrowed above
        return AccountView(
            name=name,
            account_id=account.id,
            region=account.region,
            endpoint=self.endpoints[name],
            ca=None
            if account.ca_mode == "none"
            else CARegistration(mode=account.ca_mode, auto_registration=provisioning != "none"),
            provisioning="none" if nobody else provisioning,
            thing=makes_things(self.fleet, name),
            certificate=certificate,
        )


def _template(fleet: Fleet, name: str) -> str:
    return fleet.templates.get(name, default_template(device_policy_name(fleet, name)))
