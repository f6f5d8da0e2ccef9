"""Fleet provisioning by claim over MQTT, in a world without sockets."""

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devicesim.emulator import cbor
from devicesim.emulator.packets import Publish
from devicesim.emulator.quotas import Quotas
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import TemplateType
from tests.emulator_support import ALLOW_ALL, ROLE, B, Client, World

CREATE = "$aws/certificates/create/json"
FROM_CSR = "$aws/certificates/create-from-csr/json"
PROVISION = "$aws/provisioning-templates/fleet/provision/json"
HOUR = 3600.0
BODY = {
    "Parameters": {"SerialNumber": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {"ThingName": {"Fn::Join": ["", ["robot-", {"Ref": "SerialNumber"}]]}},
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"},
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": json.loads(ALLOW_ALL)}},
    },
    "DeviceConfiguration": {"Url": "https://example.com", "Serial": {"Ref": "SerialNumber"}},
}


@cache
def csr() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "new robot")])
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


class Fleet:
    """An account with a claim (device 0's certificate) and a template."""

    def __init__(self, world: World, body: object = BODY, **fields: Any) -> None:
        self.world = world
        self.account = world.ready_account(0, 1)
        self.make_template("fleet", body, **fields)

    def make_template(self, name: str, body: object = BODY, **fields: Any) -> None:
        arguments: dict[str, Any] = {"enabled": True, "role_arn": ROLE} | fields
        self.world.registry.templates.create(self.account, name, body=json.dumps(body), **arguments)

    def claim(self, index: int = 0, name: str = "new") -> Client:
        client = self.world.client(index, self.account.endpoint).connected(name)
        client.subscribe(*(f"{topic}/{end}" for topic in (CREATE, PROVISION) for end in ("accepted", "rejected")))
        return client.subscribe(FROM_CSR + "/accepted", FROM_CSR + "/rejected")

    def status(self, certificate_id: str) -> str | None:
        record = self.account.certificates.get(certificate_id)
        return None if record is None else record.status.value


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(World())


def ask(client: Client, topic: str, document: object = None) -> tuple[str, dict[str, Any]]:
    """The verdict, and the one document that came."""
    payload = b"" if document is None else json.dumps(document).encode()
    client.send(Publish(topic=topic, payload=payload))
    ((answered, body),) = client.messages()
    assert answered.startswith(topic + "/")
    return answered.removeprefix(topic + "/"), json.loads(body)


def accepted(client: Client, topic: str, document: object = None) -> dict[str, Any]:
    verdict, body = ask(client, topic, document)
    assert verdict == "accepted", body
    return body


def rejected(client: Client, topic: str, document: object = None) -> tuple[int, str]:
    verdict, body = ask(client, topic, document)
    assert verdict == "rejected"
    assert body.keys() == {"statusCode", "errorCode", "errorMessage"}
    return body["statusCode"], body["errorCode"]


def test_a_device_gets_a_key_a_certificate_and_its_thing(fleet: Fleet) -> None:
    claim = fleet.claim()

    made = accepted(claim, CREATE)
    assert made.keys() == {"certificateId", "certificatePem", "privateKey", "certificateOwnershipToken"}
    certificate = x509.load_pem_x509_certificate(made["certificatePem"].encode())
    key = serialization.load_pem_private_key(made["privateKey"].encode(), None)
    assert certificate.fingerprint(hashes.SHA256()).hex() == made["certificateId"]
    assert key.public_key() == certificate.public_key()
    assert fleet.status(made["certificateId"]) == "PENDING_ACTIVATION"

    provisioned = accepted(
        claim,
        PROVISION,
        {"certificateOwnershipToken": made["certificateOwnershipToken"], "parameters": {"SerialNumber": "7"}},
    )

    assert provisioned == {
        "deviceConfiguration": {"Url": "https://example.com", "Serial": "7"},
        "thingName": "robot-7",
    }
    assert fleet.status(made["certificateId"]) == "ACTIVE"
    assert list(fleet.account.things_of_certificate(made["certificateId"])) == ["robot-7"]
    entry = fleet.world.last()
    assert (entry.verdict, entry.thing, entry.certificate_id) == ("provisioned", "robot-7", made["certificateId"])
    assert entry.event is not None
    assert entry.event.to_json()["eventName"] == "RegisterThing"


def test_a_device_keeps_its_own_key(fleet: Fleet) -> None:
    claim = fleet.claim()

    made = accepted(claim, FROM_CSR, {"certificateSigningRequest": csr()})

    assert made.keys() == {"certificateId", "certificatePem", "certificateOwnershipToken"}
    certificate = x509.load_pem_x509_certificate(made["certificatePem"].encode())
    assert certificate.public_key() == x509.load_pem_x509_csr(csr().encode()).public_key()


def test_the_answer_is_for_the_asking_connection_alone(fleet: Fleet) -> None:
    one, other = fleet.claim(0, "one"), fleet.claim(1, "other")

    accepted(one, CREATE)

    assert other.messages() == []


def test_nobody_sees_a_request(fleet: Fleet) -> None:
    spy = fleet.world.client(1, fleet.account.endpoint).connected("spy").subscribe("$aws/certificates/#")
    heard: list[str] = []
    fleet.world.plane.published.append(lambda _partition, message, _now: heard.append(message.topic))

    accepted(fleet.claim(), FROM_CSR, {"certificateSigningRequest": csr()})

    assert spy.messages() == []
    assert not [topic for topic in heard if "certificates/create" in topic]


def test_who_has_not_subscribed_gets_no_answer(fleet: Fleet) -> None:
    claim = fleet.world.client(0, fleet.account.endpoint).connected("new")

    claim.send(Publish(topic=CREATE))

    assert claim.received() == []
    assert not claim.closed
    assert len(fleet.account.ownership_tokens) == 1


@pytest.mark.parametrize(
    ("topic", "document", "answer"),
    [
        (PROVISION, {}, (400, "InvalidCertificateOwnershipToken")),
        (PROVISION, {"certificateOwnershipToken": ""}, (400, "InvalidCertificateOwnershipToken")),
        (PROVISION, {"certificateOwnershipToken": "made up"}, (400, "InvalidCertificateOwnershipToken")),
        (PROVISION, {"certificateOwnershipToken": ["x"]}, (400, "InvalidCertificateOwnershipToken")),
        (PROVISION, {"certificateOwnershipToken": {"x": 1}}, (400, "InvalidCertificateOwnershipToken")),
        (PROVISION, [], (400, "InvalidPayload")),
        (FROM_CSR, {}, (400, "InvalidRequest")),
        (FROM_CSR, {"certificateSigningRequest": "none"}, (400, "InvalidRequest")),
    ],
)
def test_a_bad_request_is_rejected_and_makes_nothing(
    fleet: Fleet, topic: str, document: object, answer: tuple[int, str]
) -> None:
    claim = fleet.claim()
    before = dict(fleet.account.certificates)

    assert rejected(claim, topic, document) == answer

    assert fleet.account.certificates == before
    assert not claim.closed
    assert fleet.world.last().verdict == "provisioning_failed"


def test_what_is_not_json_is_rejected(fleet: Fleet) -> None:
    claim = fleet.claim()

    claim.send(Publish(topic=CREATE, payload=b"{"))

    ((topic, body),) = claim.messages()
    assert (topic, json.loads(body)["errorCode"]) == (CREATE + "/rejected", "InvalidPayload")


def token_of(client: Client) -> str:
    token = accepted(client, CREATE)["certificateOwnershipToken"]
    assert isinstance(token, str)
    return token


def request(token: str, serial: str = "7") -> dict[str, Any]:
    return {"certificateOwnershipToken": token, "parameters": {"SerialNumber": serial}}


def test_a_failure_leaves_the_certificate_pending_and_the_token_good(fleet: Fleet) -> None:
    claim = fleet.claim()
    made = accepted(claim, CREATE)
    token = made["certificateOwnershipToken"]

    assert rejected(claim, PROVISION, {"certificateOwnershipToken": token})[0] == 400
    assert fleet.status(made["certificateId"]) == "PENDING_ACTIVATION"
    assert fleet.account.things == {}
    assert fleet.world.last().event is not None

    accepted(claim, PROVISION, request(token))


def test_a_token_is_good_once_unless_the_settings_say_otherwise(fleet: Fleet) -> None:
    claim = fleet.claim()
    token = token_of(claim)
    accepted(claim, PROVISION, request(token))
    assert rejected(claim, PROVISION, request(token)) == (400, "InvalidCertificateOwnershipToken")

    again = Fleet(World(Settings(ownership_token_reusable=True)))
    claim = again.claim()
    token = token_of(claim)
    accepted(claim, PROVISION, request(token))
    accepted(claim, PROVISION, request(token))


def test_a_token_is_of_the_claim_that_asked_unless_the_settings_say_otherwise(fleet: Fleet) -> None:
    token = token_of(fleet.claim(0, "one"))
    assert rejected(fleet.claim(1, "other"), PROVISION, request(token))[0] == 400

    loose = Fleet(World(Settings(ownership_token_bound=False)))
    token = token_of(loose.claim(0, "one"))
    accepted(loose.claim(1, "other"), PROVISION, request(token))


def test_a_token_is_of_its_account_alone(fleet: Fleet) -> None:
    token = token_of(fleet.claim())
    world = fleet.world
    other = world.ready_account(0, account_id=B)
    stranger = world.client(0, other.endpoint).connected("x").subscribe(PROVISION + "/rejected")

    assert rejected(stranger, PROVISION, request(token)) == (400, "InvalidCertificateOwnershipToken")


def test_after_an_hour_token_and_unused_certificate_are_gone(fleet: Fleet) -> None:
    claim = fleet.claim()
    unused = accepted(claim, CREATE)
    used = accepted(claim, CREATE)
    accepted(claim, PROVISION, request(used["certificateOwnershipToken"]))
    attached = accepted(claim, CREATE)
    fleet.world.registry.things.create(fleet.account, "t")
    fleet.world.registry.things.attach_principal(
        fleet.account, "t", fleet.account.certificate_arn(attached["certificateId"])
    )
    claim.lose()

    fleet.world.advance(HOUR - 1)
    assert fleet.status(unused["certificateId"]) == "PENDING_ACTIVATION"
    fleet.world.advance(1)

    assert fleet.status(unused["certificateId"]) is None
    assert fleet.status(used["certificateId"]) == "ACTIVE"
    assert fleet.status(attached["certificateId"]) == "PENDING_ACTIVATION"
    assert fleet.account.ownership_tokens == {}
    again = fleet.claim()
    assert rejected(again, PROVISION, request(unused["certificateOwnershipToken"]))[0] == 400


def test_what_was_kept_goes_on_expiring(fleet: Fleet) -> None:
    claim = fleet.claim()
    made = accepted(claim, CREATE)
    claim.lose()
    fleet.world.advance(HOUR / 2)
    world = World()
    world.now = fleet.world.now

    world.registry.adopt(fleet.account)
    world.advance(HOUR / 2 - 1)
    assert made["certificateId"] in fleet.account.certificates
    world.advance(2)

    assert fleet.account.ownership_tokens == {}
    assert made["certificateId"] not in fleet.account.certificates


def test_the_template_must_be_there_be_enabled_and_be_for_fleets(fleet: Fleet) -> None:
    fleet.make_template("off", enabled=False)
    fleet.make_template("jitp", type=TemplateType.JITP)
    fleet.make_template("hooked", pre_provisioning_hook={"targetArn": "arn:aws:lambda:us-east-1:1:function:f"})
    claim = fleet.claim()
    token = token_of(claim)
    answers = {}
    for name in ("none", "off", "jitp", "hooked"):
        topic = f"$aws/provisioning-templates/{name}/provision/json"
        claim.subscribe(topic + "/rejected")
        answers[name] = rejected(claim, topic, request(token))

    assert answers == {
        "none": (404, "ResourceNotFound"),
        "off": (400, "InvalidRequest"),
        "jitp": (400, "InvalidRequest"),
        "hooked": (403, "AccessDenied"),
    }
    assert "function:f" in fleet.world.last().detail


def test_a_hook_can_be_taken_as_allowing() -> None:
    hook = {"targetArn": "arn:aws:lambda:us-east-1:1:function:f"}
    fleet = Fleet(World(Settings(provisioning_hook="allow")), pre_provisioning_hook=hook)
    claim = fleet.claim()

    assert accepted(claim, PROVISION, request(token_of(claim)))["thingName"] == "robot-7"


def test_a_template_without_thing_answers_none() -> None:
    body = json.loads(json.dumps(BODY))
    del body["Resources"]["thing"], body["DeviceConfiguration"]
    fleet = Fleet(World(), body)
    claim = fleet.claim()

    assert accepted(claim, PROVISION, request(token_of(claim))) == {"deviceConfiguration": {}}


def test_quotas_reject_without_making_anything() -> None:
    fleet = Fleet(World(quotas=replace(Quotas.lifted(), api={"CreateCertificateFromCsr": 1.0})))
    claim = fleet.claim()
    accepted(claim, FROM_CSR, {"certificateSigningRequest": csr()})

    assert rejected(claim, FROM_CSR, {"certificateSigningRequest": csr()}) == (429, "Throttling")

    assert len(fleet.account.ownership_tokens) == 1


def test_small_devices_speak_cbor(fleet: Fleet) -> None:
    claim = fleet.world.client(0, fleet.account.endpoint).connected("new")
    create, provision = (topic.replace("/json", "/cbor") for topic in (FROM_CSR, PROVISION))
    claim.subscribe(create + "/accepted", provision + "/accepted", provision + "/rejected")

    claim.send(Publish(topic=create, payload=cbor.encode({"certificateSigningRequest": csr()})))
    ((_, body),) = claim.messages()
    token = cbor.decode(body)["certificateOwnershipToken"]
    claim.send(Publish(topic=provision, payload=cbor.encode(request("wrong"))))
    as_bytes = {"certificateOwnershipToken": token.encode(), "parameters": {"SerialNumber": b"7"}}
    claim.send(Publish(topic=provision, payload=cbor.encode(as_bytes)))
    refused, done = claim.messages()

    assert cbor.decode(refused[1])["statusCode"] == 400
    assert cbor.decode(done[1])["thingName"] == "robot-7"


def test_a_topic_that_is_none_of_these_disconnects(fleet: Fleet) -> None:
    for topic in (
        "$aws/certificates/create/xml",
        CREATE + "/accepted",
        "$aws/provisioning-templates/a b/provision/json",
    ):
        claim = fleet.claim()

        claim.send(Publish(topic=topic, payload=b"{}"))

        assert claim.closed


@pytest.mark.parametrize("parameters", [["7"], "7", {"SerialNumber": 7}, {"SerialNumber": None}])
def test_parameters_must_be_strings(fleet: Fleet, parameters: object) -> None:
    claim = fleet.claim()
    document = {"certificateOwnershipToken": token_of(claim), "parameters": parameters}

    assert rejected(claim, PROVISION, document) == (400, "InvalidParameters")


def test_a_temporary_claim_is_for_its_own_template(fleet: Fleet) -> None:
    fleet.make_template("other")
    world = fleet.world
    made = world.registry.claims.create(fleet.account, "fleet").certificate
    leaf = x509.load_pem_x509_certificate(made.pem.encode())
    presented = replace(world.present(None, fleet.account.endpoint), leaf=leaf, certificate_id=made.certificate_id)
    claim = world.open(presented).connected("temporary")
    claim.subscribe(f"{CREATE}/accepted", f"{PROVISION}/accepted", f"{PROVISION}/rejected")
    token = token_of(claim)

    assert accepted(claim, PROVISION, request(token))["thingName"] == "robot-7"
    claim.send(Publish(topic=PROVISION.replace("fleet", "other"), payload=json.dumps(request(token)).encode()))

    assert claim.closed
