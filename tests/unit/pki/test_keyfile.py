"""Files that hold secrets."""

from pathlib import Path

import pytest

from devicesim.errors import KeyMaterialError
from devicesim.pki import keyfile


def test_a_private_file_is_the_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    keyfile.write_private(path, "one\n")

    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyMaterialError, match="not overwritten"):
        keyfile.write_private(path, "two\n")
    assert path.read_text() == "one\n"


def test_a_secret_reads_back(tmp_path: Path) -> None:
    secret = keyfile.new_secret()
    keyfile.write_private(tmp_path / "s", keyfile.format_secret(secret))

    assert secret == keyfile.load_secret(tmp_path / "s")


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    keyfile.write_private(path, keyfile.format_secret(keyfile.new_secret()))
    path.chmod(0o640)

    with pytest.raises(KeyMaterialError, match="mode 0640") as caught:
        keyfile.load_secret(path)
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31, "ab" * 33])
def test_what_is_no_secret_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    keyfile.write_private(tmp_path / "s", text)

    with pytest.raises(KeyMaterialError, match="64 hex digits") as caught:
        keyfile.load_secret(tmp_path / "s")
    assert not text or text not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyMaterialError, match="nowhere cannot be read: No such file"):
        keyfile.read(tmp_path / "nowhere")
    with pytest.raises(KeyMaterialError, match="cannot be written"):
        keyfile.write_public(tmp_path / "no" / "dir", "x")
