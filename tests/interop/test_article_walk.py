"""The article's own commands, typed with ``openssl`` and the ``aws`` CLI against the emulator in two accounts.

The article is "Simplify multi-account device provisioning and certificate authority registration when using AWS IoT
Core" (AWS IoT blog, 2022; key BLOG-MA of aws-iot-behaviour.md). Its commands stand here as they stand there; what it
says besides ("only one account can register a CA in DEFAULT mode in a Region", ...) is tried with the same tools.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from devicesim.pki.identity import certificate_id
from tests.support import emulator

AWS = Path(sys.executable).with_name("aws")
ACCOUNT_1, ACCOUNT_2, ACCOUNT_3 = "111111111111", "222222222222", "333333333333"
SUBJECT_LINES = ["US", "Washington", "Seattle", "Example Corp", "Robots"]
"""Answers to openssl's questions before the common name: country, state, locality, organisation, unit."""
SECONDS = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("openssl") is None, reason="openssl is not installed (Debian: apt install openssl)"
    ),
    pytest.mark.skipif(
        not AWS.exists(), reason=f"the aws CLI is not installed beside {sys.executable} (pip install awscli)"
    ),
]


class Terminal:
    """A shell of one account, as Cloud9 is in the article."""

    def __init__(self, directory: Path, url: str, account: str) -> None:
        self._directory = directory
        directory.mkdir()
        self._environment = {
            "PATH": f"{AWS.parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(directory),
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": account,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_MAX_ATTEMPTS": "1",
        }

    def path(self, name: str) -> Path:
        return self._directory / name

    def run(self, command: str, answers: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """``answers`` are typed when the program asks."""
        return subprocess.run(
            shlex.split(command),
            cwd=self._directory,
            env=self._environment,
            input="".join(f"{answer}\n" for answer in answers or []),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def type(self, command: str, answers: list[str] | None = None) -> Any:
        """Run a command that works; what it printed as JSON, if it did."""
        done = self.run(command, answers)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        return json.loads(done.stdout) if done.stdout.startswith("{") else None

    def refused(self, command: str) -> str:
        """Run an ``aws`` command that the service refuses: what the CLI says (version 1 exits with 255, 2 with 254)."""
        done = self.run(command)
        assert done.returncode in (254, 255), f"{command}\n{done.stdout}{done.stderr}"
        return done.stderr.strip()

    def make_verification_certificate(self, code: str) -> None:
        self.type("openssl genrsa -out verificationCert.key 2048")
        self.type(
            "openssl req -new -key verificationCert.key -out verificationCert.csr",
            answers=[*SUBJECT_LINES, code, "", "", ""],
        )
        self.type(
            "openssl x509 -req -in verificationCert.csr -CA rootCA.pem -CAkey rootCA.key -CAcreateserial "
            "-out verificationCert.pem -days 500 -sha256"
        )


def test_article_walk(tmp_path: Path) -> None:
    with emulator() as ready:
        one = Terminal(tmp_path / "account-1", ready["api"], ACCOUNT_1)
        two = Terminal(tmp_path / "account-2", ready["api"], ACCOUNT_2)
        three = Terminal(tmp_path / "account-3", ready["api"], ACCOUNT_3)

        # Create a CA certificate
        one.type("openssl genrsa -out rootCA.key 2048")
        one.path("rootCA_openssl.conf").write_text("[ v3_ca ]\nbasicConstraints = CA:TRUE\n")
        one.type(
            "openssl req -new -sha256 -key rootCA.key -nodes -out rootCA.csr",
            answers=[*SUBJECT_LINES, "Shared CA", "", "", ""],
        )
        one.type(
            "openssl x509 -req -days 1024 -extfile rootCA_openssl.conf -extensions v3_ca -in rootCA.csr "
            "-signkey rootCA.key -out rootCA.pem"
        )
        root_pem = one.path("rootCA.pem").read_text()
        root = x509.load_pem_x509_certificate(root_pem.encode())

        # Register it in account 1
        code = one.type("aws iot get-registration-code --region us-east-1")["registrationCode"]
        one.make_verification_certificate(code)
        registered = one.type(
            "aws iot register-ca-certificate --ca-certificate file://rootCA.pem "
            "--verification-cert file://verificationCert.pem --set-as-active --allow-auto-registration "
            "--region us-east-1"
        )
        ca_id = registered["certificateId"]
        first = one.type(f"aws iot describe-ca-certificate --region us-east-1 --certificate-id {ca_id}")

        # Set up the CA in account 2
        for terminal in (two, three):
            shutil.copy(one.path("rootCA.pem"), terminal.path("rootCA.pem"))
        register_sni_only = (
            "aws iot register-ca-certificate --ca-certificate file://rootCA.pem --certificate-mode SNI_ONLY "
            "--set-as-active --allow-auto-registration --region us-east-1"
        )

        # "Only one account can register a CA in DEFAULT mode in one Region": tried by account 2 with a valid proof
        shutil.copy(one.path("rootCA.key"), two.path("rootCA.key"))
        two.make_verification_certificate(
            two.type("aws iot get-registration-code --region us-east-1")["registrationCode"]
        )
        second_default = two.refused(
            "aws iot register-ca-certificate --ca-certificate file://rootCA.pem "
            "--verification-cert file://verificationCert.pem --set-as-active --allow-auto-registration "
            "--region us-east-1"
        )

        two.type(register_sni_only)
        second = two.type(f"aws iot describe-ca-certificate --region us-east-1 --certificate-id {ca_id}")

        # "There is no limit on the number of accounts": a second SNI_ONLY registration is not refused
        third = three.type(register_sni_only)

        # "To change the mode of the registered CA, delete the CA and register it again"
        in_another_mode = one.refused(register_sni_only)
        while_active = one.refused(f"aws iot delete-ca-certificate --region us-east-1 --certificate-id {ca_id}")
        one.type(f"aws iot update-ca-certificate --region us-east-1 --certificate-id {ca_id} --new-status INACTIVE")
        one.type(f"aws iot delete-ca-certificate --region us-east-1 --certificate-id {ca_id}")
        again = one.type(register_sni_only)

    def description(account: str, mode: str, answered: dict[str, Any]) -> dict[str, Any]:
        """The article's JSON, with what differs from call to call taken from the answer."""
        return {
            "certificateDescription": {
                "certificateArn": f"arn:aws:iot:us-east-1:{account}:cacert/{ca_id}",
                "certificateId": ca_id,
                "status": "ACTIVE",
                "certificatePem": root_pem,
                "ownedBy": account,
                "creationDate": answered["creationDate"],
                "autoRegistrationStatus": "ENABLE",
                "lastModifiedDate": answered["creationDate"],
                "customerVersion": 1,
                "generationId": answered["generationId"],
                "validity": {
                    "notBefore": root.not_valid_before_utc.timestamp(),
                    "notAfter": root.not_valid_after_utc.timestamp(),
                },
                "certificateMode": mode,
            }
        }

    assert len(code) == 64
    assert ca_id == certificate_id(root)
    assert registered["certificateArn"] == f"arn:aws:iot:us-east-1:{ACCOUNT_1}:cacert/{ca_id}"
    assert first == description(ACCOUNT_1, "DEFAULT", first["certificateDescription"])
    assert second == description(ACCOUNT_2, "SNI_ONLY", second["certificateDescription"])
    assert first["certificateDescription"]["generationId"] != second["certificateDescription"]["generationId"]
    for answered in (first, second):
        created = answered["certificateDescription"]["creationDate"]
        assert isinstance(created, float)
        assert abs(created - time.time()) < 600
        assert len(answered["certificateDescription"]["generationId"]) == 32
    assert "(ResourceAlreadyExistsException) when calling the RegisterCACertificate operation" in second_default
    assert third["certificateArn"] == f"arn:aws:iot:us-east-1:{ACCOUNT_3}:cacert/{ca_id}"
    assert "(ResourceAlreadyExistsException) when calling the RegisterCACertificate operation" in in_another_mode
    assert "(CertificateStateException) when calling the DeleteCACertificate operation" in while_active
    assert again["certificateId"] == ca_id
