"""Many devices of one profile: each is what the builder would have made of it, to the byte."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.errors import KeyMaterialError
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity, private_key_pem
from devicesim.pki.profile import KeyType, Profile, Subject
from devicesim.pki.series import Series

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SECRET = b"s" * 32
NAMES = {"fleet": "flotte-\N{LATIN SMALL LETTER U WITH DIAERESIS}", "group": "g7"}
DER = serialization.Encoding.DER


def make_ca(key_type: KeyType = KeyType.EC_P256) -> Authority:
    return new_shared_authority("CA", key_type, now=NOW, validity=timedelta(days=30))


CA = make_ca()


def built(ca: Authority, profile: Profile, index: int, minted: Identity) -> bytes:
    """The device's certificate as the builder makes it, field by field."""
    subject = profile.subject.name(index, profile.names)
    serial = minted.certificate.serial_number
    return ca._build_device(subject, minted.key, serial, *ca._validity).public_bytes(DER)


@pytest.mark.parametrize("ca_type", [KeyType.EC_P256, KeyType.EC_P384, KeyType.RSA_2048])
@pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.EC_P384, KeyType.RSA_2048])
def test_each_device_is_what_the_builder_builds(ca_type: KeyType, key_type: KeyType) -> None:
    ca = make_ca(ca_type)
    profile = Profile(names={"fleet": "f"}, key_type=key_type)
    ways = [ca.series(profile, secret=None)]
    if key_type.curve is not None:
        ways.append(ca.series(profile, secret=SECRET))
    for series in ways:
        for index in (0, 1, 2):
            minted = series.mint(index)

            assert minted.der == built(ca, profile, index, minted)
            assert minted.certificate.public_key() == minted.key.public_key()


TEMPLATES = st.lists(
    st.sampled_from(
        [
            *("{index}", "{index:06d}", "{index:x}", "{index:b}", "{index:c}", "{index:+}", "{index:,}", "{index:>12}"),
            *("{index:\N{GREEK SMALL LETTER OMEGA}<9}", "{index:.1f}", "{index:%}", "{fleet}", "{group}", "{group:>9}"),
            *("robot", "-", "{{", "\N{GREEK SMALL LETTER OMEGA}", "%b", " "),
        ]
    ),
    min_size=1,
    max_size=3,
).map("".join)
ATTRIBUTES = ("common_name", "serial_number", "organization", "organizational_unit", "state", "dn_qualifier")
SUBJECTS = st.dictionaries(st.sampled_from(ATTRIBUTES), TEMPLATES, min_size=1)


@settings(max_examples=150, deadline=None)
@given(SUBJECTS, st.lists(st.integers(0, 2**20) | st.sampled_from([9, 10, 99, 100]), min_size=3, max_size=9))
def test_subjects_are_what_cryptography_makes_of_them_or_refused_as_there(
    templates: dict[str, str], indexes: list[int]
) -> None:
    values: dict[str, Any] = {"common_name": None, **templates}
    profile = Profile(subject=Subject(**values), names=NAMES)
    subjects = CA.series(profile, secret=SECRET)._subjects
    for index in indexes:
        made, says = made_by(lambda index: profile.subject.name(index, profile.names).public_bytes(), index)

        assert made_by(subjects.der, index) == (made, says)


def made_by(make: Callable[[int], bytes], index: int) -> tuple[bytes | None, str]:
    try:
        return make(index), ""
    except KeyMaterialError as exc:
        return None, str(exc)


def test_subjects_without_a_number_and_with_many_are_built_once_for_each_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    name = Subject.name

    def counted(subject: Subject, index: int, names: Any) -> Any:
        asked.append(index)
        return name(subject, index, names)

    monkeypatch.setattr(Subject, "name", counted)
    plain = CA.series(Profile(subject=Subject(common_name="one")), secret=SECRET)._subjects
    many = Subject(common_name="{index}-{index:04x}", serial_number="{index}")
    numbered = CA.series(Profile(subject=many), secret=SECRET)._subjects

    for index in range(200):
        plain.der(index)
        numbered.der(index)

    assert asked == [0, 0, 10, 100]


@pytest.mark.parametrize("template", ["{index", "{index:q}", "{nothing}", "{index!r}", "{index:{fleet}}", "x" * 65, ""])
def test_a_wrong_template_is_refused_for_each_device_with_the_same_words(template: str) -> None:
    series = CA.series(Profile(subject=Subject(common_name=template), names=NAMES), secret=SECRET)
    said = set()
    for index in range(3):
        with pytest.raises(KeyMaterialError) as caught:
            series.mint(index)
        said.add(str(caught.value))

    assert len(said) == 1
    assert "common_name" in said.pop()


def test_series_of_the_same_secret_mint_the_same_whatever_was_minted_before() -> None:
    profile = Profile(names={"fleet": "f"})
    one, other = CA.series(profile, secret=SECRET), make_same(CA).series(profile, secret=SECRET)

    forth = [one.mint(index).pem() for index in (8, 9, 10, 11)]
    back = [other.mint(index).pem() for index in (11, 10, 9, 8)]

    assert forth == back[::-1]
    assert forth[0] == CA.mint(8, secret=SECRET, profile=profile).pem()


def make_same(ca: Authority) -> Authority:
    return Authority(certificate=ca.certificate, key=ca.key)


def test_what_a_ca_cannot_mint_is_said_when_a_device_is_minted() -> None:
    without_key = Authority(certificate=CA.certificate, key=None)
    for series, why in (
        (without_key.series(Profile(names={"fleet": "f"}), secret=SECRET), "not at hand"),
        (CA.series(Profile(names={"fleet": "f"}, not_after=NOW - timedelta(days=99)), secret=None), "never be valid"),
        (CA.series(Profile(names={"fleet": "f"}, key_type=KeyType.RSA_2048), secret=SECRET), "cannot be derived"),
    ):
        for index in range(2):
            with pytest.raises(KeyMaterialError, match=why):
                series.mint(index)
    with pytest.raises(ValueError, match="-1 is negative"):
        CA.series(Profile(names={"fleet": "f"}), secret=SECRET).mint(-1)


def test_the_private_key_at_hand_is_the_keys() -> None:
    for key_type in (KeyType.EC_P256, KeyType.EC_P384, KeyType.RSA_2048):
        series: Series = CA.series(Profile(names={"fleet": "f"}, key_type=key_type), secret=None)
        series.mint(0)
        minted = series.mint(1)
        used = minted.prepare().key.to_cryptography_key()

        assert isinstance(used, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
        assert private_key_pem(used) == private_key_pem(minted.key)
        assert (minted._private is None) == (key_type is KeyType.RSA_2048)
