"""Temporary credentials (STS): roles of any account can be assumed by everybody; users and trust are not emulated.

A session is kept nowhere: its token says whose it is and until when, and carries a proof that this emulator issued it.
"""

import base64
import binascii
import hmac
import json
import re
from dataclasses import dataclass, field
from hashlib import sha256

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.state.environment import Environment

_ROLE_ARN = re.compile(r"arn:(?P<partition>aws[a-z-]*):iam::(?P<account>\d{12}):role/(?P<path>[\w+=,.@/-]+)")
_MARK = b"devicesim1"
_PROOF_SIZE = 32
_LATEST = 1 << 40
"""No expiry lies beyond this, in seconds since the Unix epoch."""
_CHAINED_SECONDS = 3600
"""Longest session of a role that another role's session assumed (botocore, AssumeRole, D)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Whose temporary credentials these are."""

    access_key_id: str
    account_id: str
    arn: str
    """Of the caller: ``arn:aws:sts::<account>:assumed-role/<role>/<session>``, or the account's root."""
    user_id: str
    expiration: float
    """Seconds since the Unix epoch."""
    assumed_role: bool
    proven: bool
    """Whether the token's proof is right: not after a restart of the emulator, nor for one that was made up."""
    secret: str = field(repr=False)
    """The secret access key; worthless unless ``proven``."""
    token: str = field(repr=False)


class Sessions:
    """Issues temporary credentials and reads their tokens."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._key: bytes | None = None

    def assume_role(
        self, role_arn: str, session_name: str, *, duration: int | None = None, by: Session | None = None
    ) -> Session:
        """Credentials in the account of ``role_arn`` (AssumeRole); ``by`` is the caller's own session, if it has one.

        ``duration`` is in seconds. Raises ``ValidationError`` for what is no role's ARN and for too long a time.
        """
        found = _ROLE_ARN.fullmatch(role_arn)
        if found is None:
            raise APIError("ValidationError", f"{role_arn} is invalid")
        settings = self._environment.settings
        seconds = duration or settings.session_seconds
        if by is not None and by.assumed_role and seconds > _CHAINED_SECONDS:
            raise APIError(
                "ValidationError",
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
            )
        if seconds > settings.max_session_seconds:
            raise APIError(
                "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
            )
        role = found["path"].rpartition("/")[2]
        role_id = "AROA" + _base32(sha256(role_arn.encode()).digest())[:17]
        return self._issue(
            found["account"],
            arn=f"arn:{found['partition']}:sts::{found['account']}:assumed-role/{role}/{session_name}",
            user_id=f"{role_id}:{session_name}",
            seconds=seconds,
            assumed_role=True,
        )

    def session_of_account(self, account_id: str, *, duration: int) -> Session:
        """Temporary credentials of the account itself (GetSessionToken)."""
        arn = f"arn:aws:iam::{account_id}:root"
        return self._issue(account_id, arn=arn, user_id=account_id, seconds=duration, assumed_role=False)

    def read(self, token: str) -> Session | None:
        """The session of a token that an emulator issued; ``None`` for any other text, as AWS's own tokens."""
        try:
            raw = base64.b64decode(token, validate=True)
            if not raw.startswith(_MARK):
                return None
            payload = json.loads(raw[len(_MARK) + _PROOF_SIZE :])
        except (ValueError, binascii.Error, RecursionError):
            return None
        match payload:
            case [str(key_id), str(account), str(arn), str(user_id), int(until) | float(until), bool(role)]:
                if not (len(account) == 12 and account.isascii() and account.isdigit() and 0 <= until < _LATEST):
                    return None
            case _:
                return None
        proof = raw[len(_MARK) : len(_MARK) + _PROOF_SIZE]
        return Session(
            access_key_id=key_id,
            account_id=account,
            arn=arn,
            user_id=user_id,
            expiration=float(until),
            assumed_role=role,
            proven=hmac.compare_digest(proof, self._proof(raw[len(_MARK) + _PROOF_SIZE :])),
            secret=self._secret(token),
            token=token,
        )

    def _issue(self, account_id: str, *, arn: str, user_id: str, seconds: int, assumed_role: bool) -> Session:
        expiration = float(int(self._environment.now()) + seconds)
        key_id = self._access_key_id(account_id)
        payload = json.dumps([key_id, account_id, arn, user_id, expiration, assumed_role]).encode()
        token = base64.b64encode(_MARK + self._proof(payload) + payload).decode("ascii")
        session = self.read(token)
        assert session is not None
        return session

    def _access_key_id(self, account_id: str) -> str:
        """As AWS's: the account is in it, in the bits from the second to the 41st (known from many write-ups, S)."""
        noise = self._environment.randbytes(5)
        head = 1 << 47 | int(account_id) << 7 | noise[0] >> 1
        return "ASIA" + _base32(head.to_bytes(6, "big") + noise[1:])

    def _proof(self, payload: bytes) -> bytes:
        return hmac.digest(self._own_key(), b"proof" + payload, sha256)

    def _secret(self, token: str) -> str:
        return base64.b64encode(hmac.digest(self._own_key(), b"secret" + token.encode(), sha256)).decode("ascii")[:40]

    def _own_key(self) -> bytes:
        if self._key is None:
            self._key = self._environment.randbytes(32)
        return self._key


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode("ascii").rstrip("=")
