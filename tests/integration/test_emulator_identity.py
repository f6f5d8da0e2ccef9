"""Through boto3: who the caller is (roles, signatures, presigned calls), and what accounts make and exchange."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from devicesim.emulator.state.environment import ControlSettings
from tests.control_support import REGION, A, B, Clock, make_key, make_registry, name, running_api_in_a_thread

ROLE = f"arn:aws:iam::{B}:role/service/Provisioner"
ALLOW = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
SECRETS = {A: "secret of a", "AKIDEV": "secret of the table"}
ONCE = Config(retries={"total_max_attempts": 1}, read_timeout=10, connect_timeout=5)


@cache
def session() -> boto3.Session:
    """One for all: it reads the service models."""
    return boto3.Session()


@contextmanager
def served(clock: Callable[[], float] | None = None, *, drawn: int = 0, **settings: Any) -> Iterator[str]:
    """A control plane; ``drawn`` bytes of its randomness are gone, so that two have other keys."""
    registry = make_registry(clock or time.time, ControlSettings(**settings))
    registry.environment.randbytes(drawn)
    with running_api_in_a_thread(registry) as running:
        yield running.api


@pytest.fixture
def url() -> Iterator[str]:
    with served() as api:
        yield api


@pytest.fixture
def client_of(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def client(url: str, key: str = A, secret: str = "any", token: str | None = None, service: str = "iot") -> Any:
        made.append(
            session().client(
                service,
                endpoint_url=url,
                region_name=REGION,
                aws_access_key_id=key,
                aws_secret_access_key=secret,
                aws_session_token=token,
                config=ONCE,
            )
        )
        return made[-1]

    yield client
    for each in made:
        each.close()


def code_of(call: Callable[[], object]) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call()
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


class TestRoles:
    def test_profile_with_a_role_acts_in_the_roles_account(
        self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = tmp_path / "config"
        config.write_text(
            f"[profile base]\naws_access_key_id = {A}\naws_secret_access_key = x\nregion = {REGION}\n"
            f"[profile other]\nrole_arn = {ROLE}\nsource_profile = base\nregion = {REGION}\n"
            "role_session_name = me\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            monkeypatch.delenv(variable, raising=False)
        made = []
        for profile in ("base", "other"):
            session = boto3.Session(profile_name=profile)
            iot, sts = session.client("iot", config=ONCE), session.client("sts", config=ONCE)
            made.append((sts.get_caller_identity(), iot.create_thing(thingName="robot")["thingArn"]))
            iot.close()
            sts.close()

        (base, base_thing), (other, other_thing) = made
        assert (base["Account"], base["Arn"]) == (A, f"arn:aws:iam::{A}:root")
        assert (other["Account"], other["Arn"]) == (B, f"arn:aws:sts::{B}:assumed-role/Provisioner/me")
        assert other["UserId"].endswith(":me")
        assert base_thing == f"arn:aws:iot:{REGION}:{A}:thing/robot"
        assert other_thing == f"arn:aws:iot:{REGION}:{B}:thing/robot"

    def test_answer_of_assume_role(self, url: str, client_of: Callable[..., Any]) -> None:
        sts = client_of(url, service="sts")
        answer = sts.assume_role(
            RoleArn=ROLE,
            RoleSessionName="me",
            DurationSeconds=900,
            Tags=[{"Key": "team", "Value": "fleet"}],
            SourceIdentity="someone",
        )

        credentials = answer["Credentials"]
        assert 890 < (credentials["Expiration"] - datetime.now(UTC)).total_seconds() < 901
        assert answer["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{B}:assumed-role/Provisioner/me"
        assert answer["SourceIdentity"] == "someone"
        chained = client_of(
            url,
            credentials["AccessKeyId"],
            credentials["SecretAccessKey"],
            credentials["SessionToken"],
            "sts",
        )
        assert chained.get_caller_identity()["Account"] == B
        third = chained.assume_role(RoleArn=ROLE.replace(B, "3" * 12), RoleSessionName="on")
        assert third["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{'3' * 12}:assumed-role/Provisioner/on"
        assert code_of(chained.get_session_token) == ("AccessDenied", 403)

    def test_session_token_keeps_the_account(self, url: str, client_of: Callable[..., Any]) -> None:
        credentials = client_of(url, service="sts").get_session_token()["Credentials"]
        own = client_of(
            url, credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"], "sts"
        )

        assert own.get_caller_identity()["Arn"] == f"arn:aws:iam::{A}:root"

    def test_refused_roles(self, url: str, client_of: Callable[..., Any]) -> None:
        sts = client_of(url, service="sts")

        assert code_of(lambda: sts.assume_role(RoleArn="arn:aws:iam::1:role/abcdef", RoleSessionName="me")) == (
            "ValidationError",
            400,
        )
        assert code_of(lambda: sts.assume_role(RoleArn=ROLE, RoleSessionName="me", DurationSeconds=7200)) == (
            "ValidationError",
            400,
        )

    def test_expired_session_is_refused_by_both_services(self, client_of: Callable[..., Any]) -> None:
        clock = Clock()
        with served(clock) as url:
            credentials = client_of(url, service="sts").assume_role(RoleArn=ROLE, RoleSessionName="me")["Credentials"]
            given = (credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"])
            iot, sts = client_of(url, *given), client_of(url, *given, service="sts")
            iot.list_things()
            clock.advance(3600)

            assert code_of(iot.list_things) == ("ExpiredTokenException", 403)
            assert code_of(sts.get_caller_identity) == ("ExpiredToken", 403)

    def test_token_of_a_real_account_of_aws_is_passed_over_while_nothing_is_verified(
        self, url: str, client_of: Callable[..., Any]
    ) -> None:
        sts = client_of(url, A, "x", "IQoJb3JpZ2luX2VjEJ//////////wEaCXVzLWVhc3QtMSJHMEU=", "sts")

        assert sts.get_caller_identity()["Account"] == A


class TestSignatures:
    def test_right_secret_is_let_in_by_every_service(self, client_of: Callable[..., Any]) -> None:
        with served(secret_access_keys=SECRETS) as url:
            iot = client_of(url, A, SECRETS[A])
            iot.create_thing(thingName="robot:1", attributePayload={"attributes": {"a": "b"}})
            iot.list_things(attributeName="a", attributeValue="b", maxResults=10)
            iot.create_policy(policyName="p@1,x=y", policyDocument=ALLOW)
            iot.describe_thing(thingName="robot:1")

            assert client_of(url, A, SECRETS[A], service="sts").get_caller_identity()["Account"] == A
            assert client_of(url, "AKIDEV", SECRETS["AKIDEV"], service="sts").get_caller_identity()

    @pytest.mark.parametrize(
        ("key", "secret", "iot_code", "sts_code"),
        [
            (A, "wrong", "InvalidSignatureException", "SignatureDoesNotMatch"),
            (B, "any", "UnrecognizedClientException", "InvalidClientTokenId"),
        ],
    )
    def test_wrong_secret_and_unknown_key_are_403_under_the_names_of_aws(
        self, client_of: Callable[..., Any], key: str, secret: str, iot_code: str, sts_code: str
    ) -> None:
        with served(secret_access_keys=SECRETS) as url:
            assert code_of(client_of(url, key, secret).list_things) == (iot_code, 403)
            assert code_of(client_of(url, key, secret, service="sts").get_caller_identity) == (sts_code, 403)

    def test_data_calls_are_verified_as_well(self, client_of: Callable[..., Any]) -> None:
        with served(secret_access_keys=SECRETS) as url:
            wrong, right = (client_of(url, A, secret, service="iot-data") for secret in ("wrong", SECRETS[A]))

            assert code_of(lambda: wrong.publish(topic="a b/c:d", payload=b"x")) == ("InvalidSignatureException", 403)
            # this control plane stands alone: what is let in meets no data plane
            assert code_of(lambda: right.publish(topic="a b/c:d", payload=b"x")) == ("NotImplementedException", 501)
            assert code_of(lambda: right.get_thing_shadow(thingName="a:b", shadowName="c"))[1] == 501

    def test_sessions_sign_with_what_they_were_given(self, client_of: Callable[..., Any]) -> None:
        with served(secret_access_keys=SECRETS) as url:
            sts = client_of(url, A, SECRETS[A], service="sts")
            credentials = sts.assume_role(RoleArn=ROLE, RoleSessionName="me")["Credentials"]
            key, token = credentials["AccessKeyId"], credentials["SessionToken"]
            other = sts.assume_role(RoleArn=ROLE, RoleSessionName="me")["Credentials"]

            thing = client_of(url, key, credentials["SecretAccessKey"], token).create_thing(thingName="robot")
            assert thing["thingArn"] == f"arn:aws:iot:{REGION}:{B}:thing/robot"
            assert code_of(client_of(url, key, "wrong", token).list_things)[0] == "InvalidSignatureException"
            assert code_of(client_of(url, key, other["SecretAccessKey"], other["SessionToken"]).list_things) == (
                "UnrecognizedClientException",
                403,
            )
            assert code_of(client_of(url, key, credentials["SecretAccessKey"]).list_things) == (
                "UnrecognizedClientException",
                403,
            )

    def test_token_that_this_emulator_did_not_issue_is_refused(self, client_of: Callable[..., Any]) -> None:
        with served() as url:
            credentials = client_of(url, service="sts").assume_role(RoleArn=ROLE, RoleSessionName="me")["Credentials"]
        given = (credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"])
        with served(drawn=64, secret_access_keys=SECRETS) as url:
            assert code_of(client_of(url, *given).list_things) == ("UnrecognizedClientException", 403)
        with served(drawn=64) as url:
            assert client_of(url, *given, service="sts").get_caller_identity()["Account"] == B

    @pytest.mark.parametrize(("minutes", "words"), [(6, "Signature expired"), (-6, "Signature not yet current")])
    def test_clock_of_the_caller_matters(self, client_of: Callable[..., Any], minutes: int, words: str) -> None:
        with served(lambda: time.time() + 60 * minutes, secret_access_keys=SECRETS) as url:
            iot = client_of(url, A, SECRETS[A])

            with pytest.raises(ClientError, match=words) as caught:
                iot.list_things()
            assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"

    def test_presigned_identity_is_good_without_a_header(self, client_of: Callable[..., Any]) -> None:
        with served(secret_access_keys=SECRETS) as url:
            sts = client_of(url, A, SECRETS[A], service="sts")
            presigned = sts.generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")

            with urlopen(Request(presigned), timeout=10) as answer:
                body = answer.read()
            credentials = sts.assume_role(RoleArn=ROLE, RoleSessionName="me")["Credentials"]
            role = client_of(
                url, credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"], "sts"
            )
            presigned = role.generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")
            with urlopen(Request(presigned), timeout=10) as answer:
                of_role = answer.read()

        assert f"<Account>{B}</Account>".encode() in of_role
        assert f"<Account>{A}</Account>".encode() in body


class TestCertificates:
    def test_keys_and_requests(self, url: str, client_of: Callable[..., Any]) -> None:
        iot = client_of(url)
        made = iot.create_keys_and_certificate(setAsActive=True)
        key = serialization.load_pem_private_key(made["keyPair"]["PrivateKey"].encode(), None)
        certificate = x509.load_pem_x509_certificate(made["certificatePem"].encode())
        described = iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(name("robot"))
            .sign(make_key("csr"), hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
            .decode()
        )
        from_csr = iot.create_certificate_from_csr(certificateSigningRequest=request)

        assert key.public_key() == certificate.public_key()
        assert described["status"] == "ACTIVE"
        assert described["certificateMode"] == "DEFAULT"
        assert "caCertificateId" not in described
        assert described["certificateArn"] == made["certificateArn"]
        assert set(from_csr) == {"certificateArn", "certificateId", "certificatePem", "ResponseMetadata"}
        second = iot.describe_certificate(certificateId=from_csr["certificateId"])["certificateDescription"]
        assert second["status"] == "INACTIVE"
        assert code_of(lambda: iot.create_certificate_from_csr(certificateSigningRequest="x")) == (
            "InvalidRequestException",
            400,
        )

    def test_transfer_from_offer_to_acceptance(self, url: str, client_of: Callable[..., Any]) -> None:
        a, b = client_of(url), client_of(url, B)
        leaf = a.create_keys_and_certificate()["certificateId"]
        arn = a.transfer_certificate(certificateId=leaf, targetAwsAccount=B, transferMessage="hello")
        (outgoing,) = a.list_outgoing_certificates()["outgoingCertificates"]
        (incoming,) = b.list_certificates()["certificates"]
        pending = b.describe_certificate(certificateId=leaf)["certificateDescription"]
        b.accept_certificate_transfer(certificateId=leaf, setAsActive=True)
        accepted = b.describe_certificate(certificateId=leaf)["certificateDescription"]

        assert arn["transferredCertificateArn"] == f"arn:aws:iot:{REGION}:{B}:cert/{leaf}"
        assert (outgoing["certificateId"], outgoing["transferredTo"]) == (leaf, B)
        assert outgoing["transferMessage"] == "hello"
        assert (incoming["certificateId"], incoming["status"]) == (leaf, "PENDING_TRANSFER")
        assert (pending["ownedBy"], "previousOwnedBy" in pending) == (A, False)
        assert (accepted["ownedBy"], accepted["previousOwnedBy"], accepted["status"]) == (B, A, "ACTIVE")
        assert set(accepted["transferData"]) == {"transferMessage", "transferDate", "acceptDate"}
        assert a.list_certificates()["certificates"] == []
        assert a.list_outgoing_certificates()["outgoingCertificates"] == []
        assert code_of(lambda: a.cancel_certificate_transfer(certificateId=leaf)) == (
            "TransferAlreadyCompletedException",
            410,
        )
        assert code_of(lambda: a.transfer_certificate(certificateId=leaf, targetAwsAccount=B))[1] == 404

    def test_transfer_rejected_and_in_conflict(self, url: str, client_of: Callable[..., Any]) -> None:
        a, b = client_of(url), client_of(url, B)
        made = a.create_keys_and_certificate(setAsActive=True)
        leaf, arn = made["certificateId"], made["certificateArn"]
        state = code_of(lambda: a.transfer_certificate(certificateId=leaf, targetAwsAccount=B))
        a.update_certificate(certificateId=leaf, newStatus="INACTIVE")
        a.create_policy(
            policyName="p",
            policyDocument=ALLOW,
        )
        a.attach_policy(policyName="p", target=arn)
        conflict = code_of(lambda: a.transfer_certificate(certificateId=leaf, targetAwsAccount=B))
        a.detach_policy(policyName="p", target=arn)
        a.transfer_certificate(certificateId=leaf, targetAwsAccount=B)
        b.reject_certificate_transfer(certificateId=leaf, rejectReason="no")
        back = a.describe_certificate(certificateId=leaf)["certificateDescription"]

        assert state == ("CertificateStateException", 406)
        assert conflict == ("TransferConflictException", 409)
        assert (back["status"], back["transferData"]["rejectReason"]) == ("INACTIVE", "no")
        assert "rejectDate" in back["transferData"]

    def test_claim(self, url: str, client_of: Callable[..., Any]) -> None:
        iot = client_of(url)
        iot.create_provisioning_template(
            templateName="fleet",
            templateBody="{}",
            enabled=True,
            provisioningRoleArn=f"arn:aws:iam::{A}:role/provisioning",
        )
        claim = iot.create_provisioning_claim(templateName="fleet")
        certificate = x509.load_pem_x509_certificate(claim["certificatePem"].encode())
        key = serialization.load_pem_private_key(claim["keyPair"]["PrivateKey"].encode(), None)

        assert certificate.not_valid_after_utc == claim["expiration"]
        assert 290 < (claim["expiration"] - datetime.now(UTC)).total_seconds() <= 300
        assert key.public_key() == certificate.public_key()
        assert iot.list_certificates()["certificates"] == []
        assert code_of(lambda: iot.create_provisioning_claim(templateName="none")) == ("ResourceNotFoundException", 404)


class TestAccount:
    def test_domain_configuration_from_creation_to_deletion(self, url: str, client_of: Callable[..., Any]) -> None:
        iot = client_of(url)
        arn = f"arn:aws:acm:{REGION}:{A}:certificate/1"
        made = iot.create_domain_configuration(
            domainConfigurationName="own",
            domainName="iot.example.com",
            serverCertificateArns=[arn],
            authorizerConfig={"defaultAuthorizerName": "auth", "allowAuthorizerOverride": True},
            tlsConfig={"securityPolicy": "IoTSecurityPolicy_TLS13_1_3_2022_10"},
            tags=[{"Key": "k", "Value": "v"}],
        )
        described = iot.describe_domain_configuration(domainConfigurationName="own")
        listed = iot.get_paginator("list_domain_configurations").paginate(PaginationConfig={"PageSize": 2})
        names = [each["domainConfigurationName"] for page in listed for each in page["domainConfigurations"]]
        tags = iot.list_tags_for_resource(resourceArn=made["domainConfigurationArn"])["tags"]
        iot.update_domain_configuration(
            domainConfigurationName="own", domainConfigurationStatus="DISABLED", removeAuthorizerConfig=True
        )
        changed = iot.describe_domain_configuration(domainConfigurationName="own")
        iot.delete_domain_configuration(domainConfigurationName="own")

        del described["ResponseMetadata"], described["lastStatusChangeDate"]
        assert described == {
            "domainConfigurationName": "own",
            "domainConfigurationArn": made["domainConfigurationArn"],
            "domainName": "iot.example.com",
            "serverCertificates": [{"serverCertificateArn": arn, "serverCertificateStatus": "VALID"}],
            "authorizerConfig": {"defaultAuthorizerName": "auth", "allowAuthorizerOverride": True},
            "domainConfigurationStatus": "ENABLED",
            "serviceType": "DATA",
            "domainType": "CUSTOMER_MANAGED",
            "tlsConfig": {"securityPolicy": "IoTSecurityPolicy_TLS13_1_3_2022_10"},
            "authenticationType": "DEFAULT",
            "applicationProtocol": "DEFAULT",
        }
        assert names == ["iot:CredentialProvider", "iot:Data-ATS", "own"]
        assert tags == [{"Key": "k", "Value": "v"}]
        assert changed["domainConfigurationStatus"] == "DISABLED"
        assert "authorizerConfig" not in changed
        assert code_of(lambda: iot.describe_domain_configuration(domainConfigurationName="own"))[1] == 404

    def test_role_alias_from_creation_to_deletion(self, url: str, client_of: Callable[..., Any]) -> None:
        iot = client_of(url)
        role = f"arn:aws:iam::{A}:role/devices"
        made = iot.create_role_alias(roleAlias="alias", roleArn=role)
        iot.create_role_alias(roleAlias="another", roleArn=role, credentialDurationSeconds=900)
        again = code_of(lambda: iot.create_role_alias(roleAlias="alias", roleArn=role))
        iot.update_role_alias(roleAlias="alias", credentialDurationSeconds=1800)
        described = iot.describe_role_alias(roleAlias="alias")["roleAliasDescription"]
        ascending = iot.list_role_aliases(ascendingOrder=True)["roleAliases"]
        descending = iot.list_role_aliases()["roleAliases"]
        iot.delete_role_alias(roleAlias="alias")

        assert made["roleAliasArn"] == f"arn:aws:iot:{REGION}:{A}:rolealias/alias"
        assert again == ("ResourceAlreadyExistsException", 409)
        assert (described["roleArn"], described["owner"], described["credentialDurationSeconds"]) == (role, A, 1800)
        assert (ascending, descending) == (["alias", "another"], ["another", "alias"])
        assert code_of(lambda: iot.delete_role_alias(roleAlias="alias")) == ("ResourceNotFoundException", 404)
        assert code_of(lambda: iot.create_role_alias(roleAlias="x", roleArn="arn:aws:iam::1:role/abc"))[1] == 400

    def test_logging_options_are_kept(self, url: str, client_of: Callable[..., Any]) -> None:
        iot = client_of(url)
        role = f"arn:aws:iam::{A}:role/logs"
        group = {"targetType": "THING_GROUP", "targetName": "g"}
        missing = code_of(iot.get_v2_logging_options)
        level_first = code_of(lambda: iot.set_v2_logging_level(logTarget=group, logLevel="DEBUG"))
        no_role = code_of(lambda: iot.set_v2_logging_options(defaultLogLevel="INFO"))
        iot.set_v2_logging_options(
            roleArn=role,
            defaultLogLevel="INFO",
            eventConfigurations=[{"eventType": "Connection.AuthNError", "logLevel": "ERROR"}],
        )
        iot.set_v2_logging_options(defaultLogLevel="WARN")
        options = iot.get_v2_logging_options()
        iot.set_v2_logging_level(logTarget=group, logLevel="DEBUG")
        iot.set_v2_logging_level(logTarget={"targetType": "DEFAULT"}, logLevel="ERROR")
        levels = iot.list_v2_logging_levels(targetType="THING_GROUP")["logTargetConfigurations"]
        iot.delete_v2_logging_level(targetType="THING_GROUP", targetName="g")
        rest = iot.list_v2_logging_levels()["logTargetConfigurations"]
        iot.set_logging_options(loggingOptionsPayload={"roleArn": role, "logLevel": "ERROR"})
        old = iot.get_logging_options()

        assert missing == ("NotConfiguredException", 404)
        assert level_first == ("NotConfiguredException", 404)
        assert no_role == ("InvalidRequestException", 400)
        del options["ResponseMetadata"]
        assert options == {
            "roleArn": role,
            "defaultLogLevel": "WARN",
            "disableAllLogs": False,
            "eventConfigurations": [{"eventType": "Connection.AuthNError", "logLevel": "ERROR"}],
        }
        assert levels == [{"logTarget": group, "logLevel": "DEBUG"}]
        assert rest == [{"logTarget": {"targetType": "DEFAULT"}, "logLevel": "ERROR"}]
        assert (old["roleArn"], old["logLevel"]) == (role, "ERROR")
