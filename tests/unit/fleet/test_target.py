"""Where a fleet runs."""

from pathlib import Path

from cryptography.x509.oid import NameOID

from devicesim.fleet.spec import parse_fleet
from devicesim.fleet.target import Target, accesses, amazon_roots

FLEET = parse_fleet(
    'version = 1\nname = "x"\n[accounts.a]\nid = "111111111111"\nca_mode = "none"\nprofile = "p"\n'
    '[groups.g]\ncount = 1\naccount = "a"\n',
    Path("x.toml"),
)


def test_amazons_roots_and_no_others_are_trusted() -> None:
    names = {each.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value for each in amazon_roots()}

    assert names == {f"Amazon Root CA {number}" for number in (1, 2, 3, 4)}


def test_the_emulator_is_given_made_up_credentials_and_aws_the_profile() -> None:
    emulated = accesses(FLEET, "emulator", "http://127.0.0.1:1")["a"]
    real = accesses(FLEET, "aws", None)["a"]

    assert (emulated.emulated, emulated.profile, emulated.endpoint_url) == (True, None, "http://127.0.0.1:1")
    assert (real.emulated, real.profile, real.endpoint_url) == (False, "p", None)


def test_an_account_is_dialled_at_its_endpoint_unless_the_target_says_otherwise() -> None:
    target = Target(kind="aws", accounts={}, addresses={"b": ("127.0.0.1", 1)}, port=8883, roots=(), own_roots=())

    assert target.address("a", "endpoint.example.com") == ("endpoint.example.com", 8883)
    assert target.address("b", "endpoint.example.com") == ("127.0.0.1", 1)
