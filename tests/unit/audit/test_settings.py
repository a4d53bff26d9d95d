"""Settings of the audit service: what is absent is off, what contradicts itself is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError
from tests.support.foreign import scales_vkey
from tlog_scales.signing import Vkey

from audit.note import Signer
from audit.settings import AuditSettings, SignerSettings, read_token
from audit.tlog.signing import LocalSigner, RemoteSigner, signer_of
from audit.tlog.stamps import stamper_of
from audit.tlog.witness import witnesses_of
from kit.keys import ensure_key, ensure_mldsa44

REQUIRED = {
    "HALLMARK_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    "HALLMARK_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    "HALLMARK_AUTH_JWKS": "none.json",
    "HALLMARK_ACCESS_FILE": "access.yaml",
    "HALLMARK_S3_ENDPOINT": "http://127.0.0.1:1",
    "HALLMARK_S3_ACCESS_KEY": "key",
    "HALLMARK_S3_SECRET_KEY": "secret",
    "HALLMARK_CHECKPOINT_KEY": "checkpoint.jwk",
}
PUBLIC = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
WITNESS = {"url": "https://witness.example/", "vkey": scales_vkey(Vkey("witness.example/w1", None, 4, PUBLIC))}
SIGNER = {
    "checkpoint_origin": "hallmark.example/log",
    "checkpoint_key": "checkpoint.jwk",
    "checkpoint_signer": "unix:/run/signer.sock",
    "checkpoint_signer_state": "state.json",
}


def settings(monkeypatch: pytest.MonkeyPatch, **more: str | None) -> AuditSettings:
    given = REQUIRED | {f"HALLMARK_{name.upper()}": value for name, value in more.items()}
    for name, value in given.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    return AuditSettings()


async def test_what_is_absent_is_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ensure_key(tmp_path, "checkpoint")
    given = settings(monkeypatch, checkpoint_key=str(tmp_path / "checkpoint.jwk"))
    signer = signer_of(given)
    assert isinstance(signer, LocalSigner)
    assert len(signer.vkeys) == 1

    async def unasked(_: int) -> list[bytes]:
        raise AssertionError

    witnesses, stamper = witnesses_of(given), stamper_of(given)
    assert await witnesses.cosign("a note\n\n", unasked) == "a note\n\n"
    assert await stamper.stamp("a note") is None
    await witnesses.close()
    await stamper.close()


async def test_what_is_set_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ensure_key(tmp_path, "checkpoint")
    mldsa = ensure_mldsa44(tmp_path, "checkpoint")
    key = str(tmp_path / "checkpoint.jwk")
    assert len(signer_of(settings(monkeypatch, checkpoint_key=key, checkpoint_mldsa_key=str(mldsa))).vkeys) == 2
    remote = settings(monkeypatch, checkpoint_key=None, checkpoint_signer="unix:/run/signer.sock")
    assert isinstance(signer_of(remote), RemoteSigner)
    many = settings(
        monkeypatch, witnesses=json.dumps([WITNESS]), witness_quorum="1", attestation_allow="10.0.0.0/8, tsa.example"
    )
    assert [w.model_dump() for w in many.witnesses] == [WITNESS]
    assert many.attestation_allow == ("10.0.0.0/8", "tsa.example")


@pytest.mark.parametrize(
    "more",
    [
        {"checkpoint_key": None},
        {"checkpoint_signer": "signer.sock"},
        {"checkpoint_signer": "ftp://signer"},
        {"checkpoint_origin": "ä" * 150},
        {"checkpoint_origin": "two words"},
        {"witnesses": "https://witness.example"},
        {"witnesses": json.dumps([WITNESS | {"vkey": "nonsense"}])},
        {"witnesses": json.dumps([WITNESS | {"vkey": Signer("w", Ed25519PrivateKey.generate()).vkey}])},
        {"witness_quorum": "1"},
        {"witnesses": json.dumps([WITNESS, WITNESS]), "witness_quorum": "2"},
        {"tsa_url": "https://tsa.example"},
        {"tsa_every": "0"},
    ],
)
def test_what_contradicts_itself_is_refused(monkeypatch: pytest.MonkeyPatch, more: dict[str, str | None]) -> None:
    with pytest.raises(ValidationError):
        settings(monkeypatch, **more)


@pytest.mark.parametrize("more", [{"checkpoint_signer": "http://127.0.0.1:1"}, {"checkpoint_signer": "https://signer"}])
def test_the_signer_is_not_open_to_anybody(more: dict[str, Any]) -> None:
    assert SignerSettings.model_validate(SIGNER)
    with pytest.raises(ValidationError):
        SignerSettings.model_validate(SIGNER | more)


@pytest.mark.parametrize("text", [None, "", "short", "two words of a token", "täglich-grüßt-das-token"])
def test_a_bad_token_file_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match="token"):
        read_token(path)


@pytest.mark.parametrize("pem", [None, "nonsense"])
def test_bad_certificates_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pem: str | None) -> None:
    path = tmp_path / "tsa.pem"
    if pem is not None:
        path.write_text(pem)
    given = settings(monkeypatch, tsa_url="https://tsa.example", tsa_certificates=str(path))
    with pytest.raises(ValueError, match="tsa\\.pem"):
        stamper_of(given)
