"""``devicesim ca`` and ``devicesim mint``."""

import json
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from devicesim.pki.authority import Authority
from devicesim.pki.identity import load_identity
from tests.support import Devicesim

FLEET = """
version = 1
name = "minted"
[ca]
certificate = "ca/ca.pem"
key = "ca/ca.key"
secret = "ca/fleet.secret"
[accounts.a]
id = "111111111111"
ca_mode = "SNI_ONLY"
[groups.north]
count = 3
account = "a"
[groups.south]
count = 2
account = "a"
subject = { common_name = "south-{index}", serial_number = "{index:04d}" }
"""


@pytest.fixture
def fleet(tmp_path: Path, devicesim: Devicesim) -> Path:
    assert devicesim("ca", "create", "--out", tmp_path / "ca").code == 0
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET)
    return path


def test_ca_create_makes_a_ca_a_key_and_a_secret_that_only_the_owner_reads(
    tmp_path: Path, devicesim: Devicesim
) -> None:
    made = devicesim("ca", "create", "--out", tmp_path / "new", "--key-type", "ec-p384", "--common-name", "Our CA")

    modes = {each.name: each.stat().st_mode & 0o777 for each in (tmp_path / "new").iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "fleet.secret": 0o600}
    certificate, key = ((tmp_path / "new" / name).read_bytes() for name in ("ca.pem", "ca.key"))
    authority = Authority.load(certificate, key, "files")
    assert authority.certificate.subject.rfc4514_string() == "CN=Our CA"
    assert authority.certificate_id in made.out
    assert (tmp_path / "new" / "fleet.secret").read_text().strip() not in made.out


def test_ca_create_never_overwrites(fleet: Path, devicesim: Devicesim) -> None:
    before = (fleet.parent / "ca" / "ca.key").read_bytes()

    again = devicesim("ca", "create", "--out", fleet.parent / "ca")

    assert again.code == 2
    assert "is not overwritten" in again.err
    assert before == (fleet.parent / "ca" / "ca.key").read_bytes()


def test_ca_show_says_what_aws_will_see(fleet: Path, devicesim: Devicesim) -> None:
    shown = devicesim("ca", "show", fleet.parent / "ca" / "ca.pem")

    assert shown.code == 0
    assert "basic constraints  CA:TRUE" in shown.out
    assert "EC secp256r1" in shown.out


def test_ca_verify_cert_is_a_certificate_that_openssl_verifies(fleet: Path, devicesim: Devicesim) -> None:
    ca, code = fleet.parent / "ca", "ab" * 32
    made = devicesim("ca", "verify-cert", "--ca", ca / "ca.pem", "--ca-key", ca / "ca.key", "--registration-code", code)

    (fleet.parent / "verification.pem").write_text(made.out)
    checked = subprocess.run(
        ["openssl", "verify", "-CAfile", ca / "ca.pem", fleet.parent / "verification.pem"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert checked.stdout.endswith(": OK\n")
    subject = x509.load_pem_x509_certificate(made.out.encode()).subject
    assert subject.rfc4514_string() == f"CN={code}"


def test_mint_writes_the_same_bundles_on_every_run(fleet: Path, devicesim: Devicesim) -> None:
    for name in ("one", "two"):
        assert devicesim("mint", fleet, "--out", fleet.parent / name).code == 0

    one, two = ({each.name: each.read_bytes() for each in (fleet.parent / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert sorted(one) == [
        "north-000000.pem",
        "north-000001.pem",
        "north-000002.pem",
        "south-000003.pem",
        "south-000004.pem",
    ]
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in (fleet.parent / "one").iterdir())


def test_mint_streams_ndjson_whose_rows_are_the_bundles(fleet: Path, devicesim: Devicesim) -> None:
    streamed = devicesim("mint", fleet, "--out", "-", "--startnumber", "2", "--count", "2")
    rows = [json.loads(line) for line in streamed.out.splitlines()]

    assert [(row["group"], row["index"], row["client_id"]) for row in rows] == [
        ("north", 2, "minted-000002"),
        ("south", 3, "south-3"),
    ]
    for row in rows:
        text = row["certificate_pem"] + row["chain_pem"] + row["private_key_pem"]
        assert row["certificate_id"] == load_identity(text.encode(), "row").certificate_id


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "-", "--count", "6"), "the fleet has 5"),
        (("--out", "-", "--startnumber", "5"), "the fleet has 5"),
        ((), "--out"),
        (("--out", "-", "--ca-key", "x"), "without --ca"),
        (("--out", "-", "--seed", "/nowhere"), "/nowhere cannot be read"),
    ],
)
def test_mint_refuses_what_it_cannot_do(
    fleet: Path, devicesim: Devicesim, arguments: tuple[str, ...], message: str
) -> None:
    refused = devicesim("mint", fleet, *arguments)

    assert refused.code == 2
    assert message in refused.err
    assert refused.out == ""


def test_mint_without_a_ca_says_how_to_make_one(tmp_path: Path, devicesim: Devicesim) -> None:
    path = tmp_path / "bare.toml"
    path.write_text(FLEET.replace('certificate = "ca/ca.pem"\nkey = "ca/ca.key"\nsecret = "ca/fleet.secret"\n', ""))

    refused = devicesim("mint", path, "--out", "-")

    assert refused.code == 2
    assert "names no CA" in refused.err
    assert "devicesim ca create" in refused.err
