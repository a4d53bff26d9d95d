"""Secrets at rest."""

from pathlib import Path

import pytest

from kit.problems import Problem
from notifier.vault import Vault, VaultError


def test_sealed_secrets_open_with_their_key_and_in_their_row_only() -> None:
    vault = Vault(b"k" * 32)
    sealed = vault.store("s1", "signing", "whsec_x")
    assert b"whsec_x" not in sealed
    assert vault.read("s1", "signing", sealed) == "whsec_x"
    assert vault.store("s1", "signing", "whsec_x") != sealed
    for other, row in ((Vault(b"j" * 32), "s1"), (vault, "s2"), (Vault(None), "s1")):
        with pytest.raises(VaultError):
            other.read(row, "signing", sealed)


def test_without_a_key_no_secret_is_taken_and_what_was_in_clear_is_read() -> None:
    with pytest.raises(Problem) as refused:
        Vault(None).store("s1", "signing", "whsec_x")
    assert refused.value.status == 503
    assert "HALLMARK_SECRET_KEY" in refused.value.detail
    assert "whsec_x" not in refused.value.detail
    for vault in (Vault(None), Vault(b"k" * 32)):
        assert vault.read("s1", "signing", b"\x00whsec_x") == "whsec_x"


def test_a_key_file_is_read_or_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 40 + "\n")
    assert Vault.load(key).sealing
    assert not Vault.load(None).sealing
    key.write_text("short")
    for path in (key, tmp_path / "absent"):
        with pytest.raises(ValueError, match="HALLMARK_SECRET_KEY"):
            Vault.load(path)
