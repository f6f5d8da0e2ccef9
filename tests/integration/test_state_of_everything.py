"""Every collection of an account, filled by boto3, is the same after a crash; whoever adds one fills it here."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from devicesim.emulator.embedded import Emulator, emulator_in_a_thread, quick
from devicesim.emulator.session import Message
from devicesim.emulator.state.journal import shapes
from devicesim.pki.authority import new_shared_authority
from devicesim.pki.identity import certificate_pem
from devicesim.pki.profile import KeyType, Profile
from tests.emulator_support import ALLOW_ALL, ROLE, template

FLEET_TEMPLATE = json.dumps(
    {
        "Parameters": {"SerialNumber": {"Type": "String"}},
        "Resources": {
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"},
            }
        },
    }
)


def collections() -> list[str]:
    return [name for name, shape in shapes().items() if shape.depth]


def snapshot(emulator: Emulator) -> dict[str, Any]:
    """Everything that the accounts hold, as the admin port shows it."""
    from devicesim.emulator.adminroutes import AdminRoutes

    def read() -> dict[str, Any]:
        routes = AdminRoutes(emulator.core)
        return {
            f"{each.account_id} {name}": json.loads(json.dumps(routes.answer("GET", f"/state/{name}", query)))
            for each in emulator.accounts
            for name in collections()
            for query in [f"account={each.account_id}&region={each.region}"]
        }

    return emulator.call(read)


def fill(emulator: Emulator) -> None:
    first, second = emulator.accounts
    iot = first.client("iot")
    ca = new_shared_authority("Shared CA", KeyType.EC_P256, now=datetime.now(UTC), validity=timedelta(days=9))
    now = datetime.now(UTC)
    code = iot.get_registration_code()["registrationCode"]
    proof = ca.verification_certificate(code, not_before=now - timedelta(hours=1), not_after=now + timedelta(1))
    iot.register_ca_certificate(
        caCertificate=certificate_pem(ca.certificate),
        verificationCertificate=certificate_pem(proof.certificate),
        setAsActive=True,
        allowAutoRegistration=True,
        registrationConfig={"templateBody": template(), "roleArn": ROLE},
        tags=[{"Key": "team", "Value": "robots"}],
    )
    leaf = ca.mint(1, secret=b"s" * 32, profile=Profile(names={"fleet": "robot"}))
    assert leaf.certificate.public_bytes(Encoding.DER)
    made = iot.register_certificate(certificatePem=certificate_pem(leaf.certificate), status="ACTIVE")
    iot.create_policy(policyName="p", policyDocument=ALLOW_ALL)
    iot.create_policy_version(policyName="p", policyDocument=ALLOW_ALL, setAsDefault=True)
    iot.attach_policy(policyName="p", target=made["certificateArn"])
    iot.create_thing_type(thingTypeName="robot")
    iot.create_billing_group(billingGroupName="cost")
    iot.create_thing(thingName="r", thingTypeName="robot", attributePayload={"attributes": {"wheel": "4"}})
    iot.attach_thing_principal(thingName="r", principal=made["certificateArn"])
    iot.create_thing_group(thingGroupName="fleet")
    iot.create_thing_group(thingGroupName="part", parentGroupName="fleet")
    iot.add_thing_to_thing_group(thingName="r", thingGroupName="part")
    iot.add_thing_to_billing_group(thingName="r", billingGroupName="cost")
    iot.create_provisioning_template(
        templateName="t", templateBody=FLEET_TEMPLATE, provisioningRoleArn=ROLE, enabled=True
    )
    iot.create_provisioning_claim(templateName="t")
    offered, moved = iot.create_keys_and_certificate(), iot.create_keys_and_certificate()
    for each in (offered, moved):
        iot.transfer_certificate(certificateId=each["certificateId"], targetAwsAccount=second.account_id)
    second.client("iot").accept_certificate_transfer(certificateId=moved["certificateId"])
    iot.create_domain_configuration(domainConfigurationName="mine")
    iot.create_role_alias(roleAlias="alias", roleArn=ROLE)
    iot.set_v2_logging_options(roleArn=ROLE, defaultLogLevel="INFO")
    iot.set_v2_logging_level(logTarget={"targetType": "THING_GROUP", "targetName": "fleet"}, logLevel="DEBUG")
    iot.update_event_configurations(eventConfigurations={"THING": {"Enabled": True}})
    iot.create_topic_rule(
        ruleName="rule",
        topicRulePayload={
            "sql": "SELECT * FROM 'a'",
            "actions": [{"republish": {"topic": "b", "roleArn": ROLE}}],
        },
    )
    iot.create_topic_rule_destination(
        destinationConfiguration={"httpUrlConfiguration": {"confirmationUrl": "http://127.0.0.1:9/confirm"}}
    )
    data = first.client("iot-data")
    data.update_thing_shadow(thingName="r", payload=b'{"state": {"desired": {"on": true}}}')
    data.update_thing_shadow(thingName="r", shadowName="arm", payload=b'{"state": {"reported": {"on": 1.5}}}')
    data.delete_thing_shadow(thingName="r", shadowName="arm")
    data.publish(topic="weather", payload=b"sun", qos=1, retain=True)

    def publish_what_expires() -> None:
        core = emulator.core
        partition, now = core.registry.partition(first.account_id, first.region), core.clock.now()
        core.plane.publish(partition, Message(topic="late", payload=b"x", qos=1, retain=True, expires_at=now + 60), now)
        core.plane.commit()

    emulator.call(publish_what_expires)


def test_every_collection_is_the_same_after_a_crash(tmp_path: Path) -> None:
    with emulator_in_a_thread(settings=quick(), state=tmp_path / "state") as emulator:
        fill(emulator)
        before = snapshot(emulator)
        shutil.copytree(tmp_path / "state", tmp_path / "crashed")  # as the disk would be if we were killed now

    filled = {name.split()[1] for name, page in before.items() if page["count"]}
    assert set(collections()) - filled <= {"ownership_tokens"}, "fill these, too"
    with emulator_in_a_thread(settings=quick(), state=tmp_path / "crashed") as emulator:
        assert snapshot(emulator) == before
        first, second = emulator.accounts
        assert first.client("iot-data").get_retained_message(topic="weather")["payload"] == b"sun"
        listed = {each["status"] for each in second.client("iot").list_certificates()["certificates"]}
        assert listed == {"INACTIVE", "PENDING_TRANSFER"}
        domain = first.client("iot").describe_domain_configuration(domainConfigurationName="mine")["domainName"]
        resolved = emulator.call(lambda: emulator.core.registry.resolve_server_name(domain))
        assert resolved is not None
        assert resolved.account_id == first.account_id
        topics: list[str] = []
        emulator.core.plane.published.append(lambda _partition, message, _now: topics.append(message.topic))
        first.client("iot-data").publish(topic="a", payload=b'{"wind": 3}')
        assert sorted(topics) == ["a", "b"]  # the rule is there, too
