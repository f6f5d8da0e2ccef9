"""Why a device is not connected: the checks in order, and where they stopped."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from devicesim.emulator.checks import Stop
from devicesim.emulator.explain import REMEMBERED, Question, UnknownCertificateError
from devicesim.emulator.faults import Fault, FaultKind
from devicesim.emulator.packets import ConnAck, Will
from devicesim.emulator.quotas import Quotas
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import AutoRegistrationStatus, CACertificateStatus, DomainStatus
from devicesim.pki.profile import Profile
from tests.emulator_support import ALLOW_ALL, A, B, World, device, shared_ca, template

DENY = '{"Version": "2012-10-17", "Statement": []}'.replace(
    "[]", '[{"Effect": "Deny", "Action": "iot:Connect", "Resource": "*"}]'
)
LEAF = device(1).certificate_id


def explain(world: World, **question: Any) -> Any:
    return world.core.explainer.explain(Question(**{"certificate_id": LEAF, **question}))


def results(explained: Any) -> dict[str, str]:
    return {step["check"]: step["result"] for step in explained["steps"]}


def detail(explained: Any, check: str) -> str:
    return next(str(step["detail"]) for step in explained["steps"] if step["check"] == check)


def connect(world: World, account: str = A, client_id: str = "c") -> None:
    world.client(1, world.account(account).endpoint).connect(client_id)


# What is wrong in each world, and where an explanation must stop with which of AWS's reasons.


def junk_name(world: World) -> None:
    world.ready_account(1)
    world.client(1, "junk.localhost").connect("c")


def unreadable_name(world: World) -> None:
    world.ready_account(1)
    world.client(1, b"\xff").connect("c")


def no_name(world: World) -> None:
    world.ready_account(1)
    world.client(1, None).connect("c")


def other_account(world: World) -> None:
    world.ready_account(1)
    world.account(B)
    connect(world, B)


def disabled_domain(world: World) -> None:
    account = world.ready_account(1)
    made = world.registry.domains.create(account, "mine", options={})
    world.client(1, made.domain_name).connect("c")
    world.registry.domains.update(account, "mine", status=DomainStatus.DISABLED, options={})
    world.client(1, made.domain_name).connect("c")


def expired(world: World) -> None:
    world.ready_account(1)
    world.plane.advance(20 * 366 * 86400)
    connect(world)


def revoked(world: World) -> None:
    world.ready_account(1)
    world.update(world.account(), device(1), "REVOKED")
    connect(world)


def inactive_ca(world: World) -> None:
    ca = world.register_ca(world.account(), mode="SNI_ONLY")
    world.registry.cas.update(world.account(), ca.certificate_id, status=CACertificateStatus.INACTIVE)
    connect(world)


def no_auto_registration(world: World) -> None:
    ca = world.register_ca(world.account(), mode="SNI_ONLY")
    world.registry.cas.update(world.account(), ca.certificate_id, auto_registration=AutoRegistrationStatus.DISABLE)
    connect(world)


def pending(world: World) -> None:
    world.register_ca(world.account(), mode="SNI_ONLY")
    connect(world)


def no_policy(world: World) -> None:
    world.register_ca(world.account(), mode="SNI_ONLY")
    world.register_leaf(world.account(), device(1), policy=None)
    connect(world)


def denied(world: World) -> None:
    world.ready_account(1)
    world.allow(world.account(), device(1), DENY)
    connect(world)


@pytest.mark.parametrize(
    ("spoil", "stopped_at", "reason", "logged", "why"),
    [
        (unreadable_name, "server_name", None, False, "is no account's endpoint"),
        (junk_name, "account", None, False, "'junk.localhost' is no account's endpoint in us-east-1"),
        (no_name, "account", None, False, "no server name was sent, and no account answers"),
        (other_account, "ca", "DEVICE_CERTIFICATE_NOT_REGISTERED", True, "nor is a CA that signed it"),
        (disabled_domain, "account", "DOMAIN_CONFIGURATION_DISABLED", True, "is DISABLED"),
        (expired, "validity", "NOT_AUTHENTICATED", True, "the certificate is not valid after"),
        (revoked, "status", "DEVICE_CERTIFICATE_REVOKED", True, "the certificate is REVOKED"),
        (inactive_ca, "ca", "DEVICE_CERTIFICATE_NOT_REGISTERED", True, "is INACTIVE"),
        (no_auto_registration, "auto_registration", "DEVICE_CERTIFICATE_NOT_REGISTERED", True, "DISABLE"),
        (pending, "status", None, False, "the certificate is PENDING_ACTIVATION"),
        (no_policy, "policy", "AUTHORIZATION_FAILURE", True, "no policy is attached to the certificate"),
        (denied, "policy", "AUTHORIZATION_FAILURE", True, "no policy allows iot:Connect"),
    ],
)
def test_where_it_stops_and_why(
    spoil: Callable[[World], None], stopped_at: str, reason: str | None, logged: bool, why: str
) -> None:
    world = World()
    spoil(world)

    explained = explain(world)

    assert (explained["stopped_at"], explained["reason"], explained["logged_by_aws"]) == (stopped_at, reason, logged)
    assert why in explained["detail"]
    assert why in detail(explained, stopped_at)
    assert results(explained)[stopped_at] == "stopped"
    checks = [step["check"] for step in explained["steps"]]
    assert checks == [each.value for each in Stop]
    before = checks[: checks.index(stopped_at)]
    assert {results(explained)[check] for check in before} <= {"passed", "not_needed"}
    # the same words as the history's, which the front door wrote
    entry = world.history.select(kind="connection")[-1]
    assert (entry.reason, entry.logged_by_aws) == (explained["reason"], explained["logged_by_aws"])
    assert explained["history"][-1]["certificate_id"] == LEAF


def test_a_device_that_may_connect_passes_every_check() -> None:
    world = World()
    world.ready_account(1)
    connect(world)

    explained = explain(world)

    assert (explained["verdict"], explained["stopped_at"]) == ("admitted", None)
    assert set(results(explained).values()) == {"passed", "not_needed"}
    assert explained["presented"]["from"] == {"server_name": "last CONNECT", "client_id": "last CONNECT"}


def test_an_unknown_leaf_under_a_ca_that_registers_is_told_what_will_happen() -> None:
    world = World()
    world.register_ca(world.account(), mode="SNI_ONLY", template_body=template())

    explained = explain(world, certificate_id=None, certificate=device(1).certificate, account_id=A)

    assert (explained["verdict"], explained["stopped_at"]) == ("registered", "auto_registration")
    assert "JITP: the certificate is registered, and the connection closed; connect again" in detail(
        explained, "auto_registration"
    )
    assert results(explained)["template"] == "passed"
    assert not world.account().certificates  # explaining registers nothing
    assert world.history.select() == []


def test_a_template_that_cannot_be_filled_in_for_the_certificate_is_told() -> None:
    world = World()
    plain = shared_ca().mint(1, secret=b"s" * 32, profile=Profile(names={"fleet": "robot"}))
    world.register_ca(
        world.account(),
        mode="SNI_ONLY",
        template_body=template(
            parameters=("CommonName", "Id", "Country"), thing={"ThingName": {"Ref": "AWS::IoT::Certificate::Country"}}
        ),
    )
    world.open(world.present(plain, world.account().endpoint)).connect("c")
    world.advance(5)

    explained = explain(world, certificate_id=plain.certificate_id)

    assert explained["stopped_at"] == "status"
    assert results(explained)["template"] == "stopped"
    assert "JITP fails: " in detail(explained, "template")
    failed = world.history.select(verdict="provisioning_failed")[-1]
    assert failed.detail in detail(explained, "template")


def test_the_question_says_what_is_sent_and_overrides_what_was_seen() -> None:
    world = World()
    world.ready_account(1)
    connect(world)
    endpoint = world.account().endpoint

    assert explain(world, server_name="")["stopped_at"] == "account"
    assert explain(world, server_name=endpoint.upper())["stopped_at"] is None
    assert explain(world, server_name=endpoint, region="eu-west-1")["stopped_at"] == "account"
    explained = explain(world, account_id=A, client_id="other")
    assert explained["presented"]["client_id"] == "other"
    assert explained["presented"]["from"] == {"server_name": "endpoint of the account", "client_id": "question"}


def test_without_a_connect_the_client_id_is_assumed_and_said_so() -> None:
    world = World()
    world.ready_account(1)
    assert explain(world)["presented"]["from"]["client_id"] == "assumed: the certificate id"

    world.registry.things.create(world.account(), "robot-1")
    world.registry.things.attach_principal(world.account(), "robot-1", world.account().certificate_arn(LEAF))

    explained = explain(world)
    assert explained["presented"]["client_id"] == "robot-1"
    assert explained["presented"]["from"]["server_name"] == "endpoint of the account that has the record"


def test_a_used_up_quota_is_told_and_not_used_further() -> None:
    world = World(quotas=replace(Quotas.lifted(), connects_per_client_id_per_second=1))
    world.ready_account(1)
    connect(world)

    explained = explain(world)
    assert (explained["stopped_at"], explained["verdict"]) == ("quotas", "admitted")
    assert "connects_per_client_id_per_second" in detail(explained, "quotas")

    world.advance(1.0)
    for _ in range(3):
        assert explain(world)["stopped_at"] is None
    assert world.client(1, world.account().endpoint).connect("c") == [ConnAck()]


def test_a_fault_that_may_fire_is_told_and_not_drawn() -> None:
    world = World()
    world.ready_account(1)
    world.core.faults.inject(Fault(kind=FaultKind.REFUSE_CONNECT, share=0.5, account_id=A), world.now)

    explained = explain(world)
    assert explained["stopped_at"] is None
    assert results(explained)["faults"] == "may_stop"
    assert "refuse_connect on 50%" in detail(explained, "faults")
    assert world.core.faults.list(world.now)[0].seen == 0

    world.core.faults.inject(Fault(kind=FaultKind.DROP_AFTER_HANDSHAKE, certificate_id=LEAF), world.now)
    assert explain(world)["stopped_at"] == "faults"


def test_nobodys_certificate_is_unknown() -> None:
    world = World()
    world.account()

    with pytest.raises(UnknownCertificateError, match="POST its PEM"):
        explain(world)
    with pytest.raises(UnknownCertificateError, match="account or server_name is needed"):
        explain(world, certificate=device(1).certificate)
    with pytest.raises(UnknownCertificateError, match="no account '999999999999'"):
        explain(world, certificate=device(1).certificate, account_id="999999999999")


def test_so_many_devices_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devicesim.emulator.explain.REMEMBERED", 2)
    world = World()
    account = world.account()
    for index in (1, 2, 3):
        world.client(index, account.endpoint).connect("c")

    assert REMEMBERED > 1000
    assert explain(world, certificate_id=device(3).certificate_id)["stopped_at"] == "ca"
    with pytest.raises(UnknownCertificateError):
        explain(world)
    world.core.reset()
    with pytest.raises(UnknownCertificateError):
        explain(world, certificate_id=device(3).certificate_id)


def test_the_settings_count_in_an_explanation_too() -> None:
    world = World(Settings(sni_ignores_case=False))
    world.ready_account(1)

    assert explain(world, server_name=world.account().endpoint.upper())["stopped_at"] == "account"


def test_what_the_last_connect_asked_for_counts_for_its_policies() -> None:
    world = World()
    world.register_ca(world.account(), mode="SNI_ONLY")
    only_with_a_will = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*",'
        ' "Condition": {"ForAnyValue:StringEquals": {"iot:ConnectAttributes": ["LastWill"]}}}]}'
    )
    world.register_leaf(world.account(), device(1), policy=only_with_a_will)
    assert explain(world)["stopped_at"] == "policy"

    sent = Will(topic="wills/c", payload=b"gone")
    world.client(1, world.account().endpoint).connected("c", will=sent)

    assert explain(world)["stopped_at"] is None


def test_a_will_that_policies_do_not_allow_is_where_it_stops() -> None:
    world = World()
    world.register_ca(world.account(), mode="SNI_ONLY")
    connect_only = ALLOW_ALL.replace("iot:*", "iot:Connect")
    world.register_leaf(world.account(), device(1), policy=connect_only)
    sent = Will(topic="wills/c", payload=b"gone")
    assert world.client(1, world.account().endpoint).connect("c", will=sent) == []

    stopped = explain(world)

    assert (stopped["verdict"], stopped["stopped_at"]) == ("admitted", "will")
    assert detail(stopped, "will") == "iot:Publish on 'wills/c' denied: the will cannot be published"
    world.allow(world.account(), device(1))
    assert explain(world)["stopped_at"] is None


def test_a_connect_beyond_aws_s_limits_is_where_it_stops_until_it_is_another() -> None:
    world = World()
    world.ready_account(1)
    assert world.client(1, world.account().endpoint).connect("c" * 129) == []

    stopped = explain(world)

    assert stopped["stopped_at"] == "limits"
    assert detail(stopped, "limits") == "its last CONNECT: client id has 129 bytes, must be at most 128"
    assert results(stopped)["will"] == "not_reached"
    assert explain(world, client_id="c")["stopped_at"] is None


def test_a_run_of_jitp_that_has_failed_is_told_at_its_template() -> None:
    world = World()
    thing = {"ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"}, "ThingGroups": ["nope"]}
    world.register_ca(world.account(), mode="SNI_ONLY", template_body=template(thing=thing))
    connect(world)
    assert "is looked up when JITP runs it" in detail(explain(world), "template")
    world.advance(10)

    failed = explain(world)

    assert (failed["verdict"], failed["stopped_at"]) == ("pending", "status")
    assert results(failed)["template"] == "stopped"
    assert "The thing group nope does not exist" in detail(failed, "template")
