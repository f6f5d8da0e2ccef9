"""Files that hold secrets: written for the owner alone, never over another file; the fleet secret."""

import os
from pathlib import Path

from devicesim.errors import KeyMaterialError

SECRET_BYTES = 32
_OTHERS = 0o077


def write_private(path: Path, text: str) -> None:
    """Write a new file of mode 0600. An existing file is never overwritten: it may be the only copy of a key."""
    _write_new(path, text, 0o600)


def write_public(path: Path, text: str) -> None:
    """Write a new file that anybody may read, never over an existing one."""
    _write_new(path, text, 0o644)


def read(path: Path) -> bytes:
    """The bytes of a certificate or key file; :class:`KeyMaterialError` in place of ``OSError``."""
    try:
        return path.read_bytes()
    except OSError as exc:
        raise KeyMaterialError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except ValueError as exc:  # a NUL in the name
        raise KeyMaterialError(f"{str(path)!r} cannot be read: {exc}") from exc


def new_secret() -> bytes:
    """A fresh fleet secret from the system's randomness."""
    return os.urandom(SECRET_BYTES)


def format_secret(secret: bytes) -> str:
    return secret.hex() + "\n"


def load_secret(path: Path) -> bytes:
    """The fleet secret: 32 bytes as 64 hex digits, in a file that only its owner can read.

    Whoever has it (and the CA's key) is every device of the fleet, so a file that others can read is refused.
    """
    data = read(path)
    if os.name == "posix" and path.stat().st_mode & _OTHERS:
        raise KeyMaterialError(
            f"{path} can be read by others (mode {path.stat().st_mode & 0o777:04o}); a fleet secret is 0600",
            hint=f"chmod 600 {path}",
        )
    try:
        secret = bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise KeyMaterialError(
            f"{path} holds no fleet secret: {SECRET_BYTES * 2} hex digits are expected",
            hint="devicesim ca create --out DIR makes one",
        )
    return secret


def _write_new(path: Path, text: str, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as exc:
        raise KeyMaterialError(
            f"{path} exists and is not overwritten", hint="choose another directory, or move it away"
        ) from exc
    except OSError as exc:
        raise KeyMaterialError(f"{path} cannot be written: {exc.strerror or exc}") from exc
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
