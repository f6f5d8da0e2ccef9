"""Temporary credentials: what a token says, and what one that was made up is worth."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.state.environment import ControlSettings
from tests.control_support import A, B, Clock, make_registry

ROLE = f"arn:aws:iam::{B}:role/path/Provisioner"


def test_role_is_assumed_in_its_own_account() -> None:
    clock = Clock()
    sessions = make_registry(clock).sessions

    session = sessions.assume_role(ROLE, "me@work")

    assert session.account_id == B
    assert session.arn == f"arn:aws:sts::{B}:assumed-role/Provisioner/me@work"
    assert session.user_id.startswith("AROA")
    assert session.user_id.endswith(":me@work")
    assert session.expiration == clock.now + 3600
    assert session.proven
    assert len(session.secret) == 40
    assert sessions.read(session.token) == session


def test_access_key_id_has_the_account_in_it_as_those_of_aws() -> None:
    key = make_registry().sessions.assume_role(ROLE, "me").access_key_id
    decoded = base64.b32decode(key[4:])

    assert key.startswith("ASIA")
    assert len(key) == 20
    assert (int.from_bytes(decoded[:6], "big") & 0x7FFFFFFFFF80) >> 7 == int(B)


def test_two_sessions_of_one_role_have_keys_of_their_own_and_one_role_id() -> None:
    sessions = make_registry().sessions
    first, second = sessions.assume_role(ROLE, "me"), sessions.assume_role(ROLE, "me")

    assert first.access_key_id != second.access_key_id
    assert first.secret != second.secret
    assert first.user_id == second.user_id


def test_token_of_another_emulator_is_read_and_proves_nothing() -> None:
    token = make_registry().sessions.assume_role(ROLE, "me").token
    other = make_registry()
    other.environment.randbytes(16)  # another place in the same sequence, so another key

    read = other.sessions.read(token)

    assert read is not None
    assert not read.proven
    assert read.account_id == B


def test_changed_token_proves_nothing() -> None:
    sessions = make_registry().sessions
    raw = base64.b64decode(sessions.assume_role(ROLE, "me").token)
    forged = base64.b64encode(raw.replace(B.encode(), A.encode())).decode()

    read = sessions.read(forged)

    assert read is not None
    assert (read.account_id, read.proven) == (A, False)


@pytest.mark.parametrize("arn", ["arn:aws:iam::1:role/a", f"arn:aws:iam::{A}:user/a", "x" * 30, f"{ROLE}\n"])
def test_what_is_no_role_is_refused(arn: str) -> None:
    with pytest.raises(APIError, match="is invalid") as caught:
        make_registry().sessions.assume_role(arn, "me")

    assert caught.value.code == "ValidationError"


def test_session_is_no_longer_than_the_role_allows() -> None:
    sessions = make_registry().sessions
    with pytest.raises(APIError, match="MaxSessionDuration"):
        sessions.assume_role(ROLE, "me", duration=3601)

    longer = make_registry(settings=ControlSettings(max_session_seconds=43200)).sessions
    first = longer.assume_role(ROLE, "me", duration=7200)
    assert first.expiration == Clock().now + 7200
    with pytest.raises(APIError, match="role chaining"):
        longer.assume_role(ROLE, "me", duration=7200, by=first)
    assert longer.assume_role(ROLE, "me", duration=3600, by=first).proven


@given(st.binary(max_size=120))
def test_garbage_is_no_token(raw: bytes) -> None:
    sessions = make_registry().sessions

    assert sessions.read(base64.b64encode(raw).decode()) is None
    assert sessions.read(base64.b64encode(b"devicesim1" + bytes(32) + raw).decode()) is None
    assert sessions.read(raw.decode("latin-1")) is None


def test_token_for_what_is_no_account_is_none() -> None:
    payload = json.dumps(["ASIA", "٣" * 12, "arn", "id", 1.0, True]).encode()

    assert make_registry().sessions.read(base64.b64encode(b"devicesim1" + bytes(32) + payload).decode()) is None


@pytest.mark.parametrize("until", ["NaN", "Infinity", "-1", "1" + "0" * 400, "null", '"1"'])
def test_token_for_an_impossible_time_is_none(until: str) -> None:
    payload = f'["ASIA", "{A}", "arn", "id", {until}, true]'.encode()

    assert make_registry().sessions.read(base64.b64encode(b"devicesim1" + bytes(32) + payload).decode()) is None
