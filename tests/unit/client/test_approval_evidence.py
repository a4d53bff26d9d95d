"""Evidence: files go straight to the store, and come back only as what they were."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hallmark import Client, HallmarkError, cli, output

AT = "2026-03-04T05:06:07+00:00"


class Service:
    """Approval and its store in one handler."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.pieces: list[dict[str, Any]] = []
        self.offers: list[dict[str, Any]] = []
        self.lie: bytes | None = None
        self.present = False

    def __call__(self, asked: httpx2.Request) -> httpx2.Response:
        path = asked.url.path
        if asked.url.host == "store":
            assert "authorization" not in asked.headers
            if asked.method == "PUT":
                assert asked.headers["x-checksum"] == "c"
                self.blobs[path[1:]] = asked.read()
                return httpx2.Response(200)
            return httpx2.Response(200, content=self.blobs[path[1:]] if self.lie is None else self.lie)
        if path == "/.well-known/hallmark.json":
            return httpx2.Response(200, json={"registry": "http://a", "approval": "http://a"})
        assert asked.headers["authorization"] == "Bearer t"
        if path == "/v1/evidence/uploads":
            body = json.loads(asked.content)
            self.offers.append(body)
            offer = {"digest": body["digest"], "size": body["size"]}
            if self.present or body["digest"] in self.blobs:
                return httpx2.Response(200, json={**offer, "state": "present"})
            url = f"http://store/{body['digest']}"
            return httpx2.Response(200, json={**offer, "state": "single", "url": url, "headers": {"x-checksum": "c"}})
        if path.endswith("/file"):
            return httpx2.Response(307, headers={"location": f"http://store/{self._piece(path)['digest']}"})
        if asked.method == "POST":
            self.pieces.append({**json.loads(asked.content), "evidence_id": f"e-{len(self.pieces) + 1}"})
            self.pieces[-1] |= {"posted_by": "ci", "at": AT}
            return httpx2.Response(201, json=self.pieces[-1])
        if path == "/v1/evidence":
            return httpx2.Response(200, json={"items": self.pieces, "next": None})
        return httpx2.Response(200, json=self._piece(path))

    def _piece(self, path: str) -> dict[str, Any]:
        return next(one for one in self.pieces if one["evidence_id"] == path.split("/")[3])


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def client(service: Service) -> Client:
    return Client("http://r", "t", retry_for=0, transport=httpx2.MockTransport(service))


@pytest.fixture
def card(tmp_path: Path) -> Path:
    file = tmp_path / "card.pdf"
    file.write_bytes(b"model card" * 1_000)
    return file


def test_a_file_goes_to_the_store_and_is_recorded_by_its_digest(client: Client, service: Service, card: Path) -> None:
    told: list[int] = []
    made = client.attach_evidence("fraud", 3, "model_card", "Model card", file=card, progress=told.append)
    digest = f"sha256:{hashlib.sha256(card.read_bytes()).hexdigest()}"
    assert (made.digest, made.size, made.media_type) == (digest, 10_000, "application/pdf")
    assert service.offers[0] == {
        "digest": digest,
        "size": 10_000,
        "media_type": "application/pdf",
        "workspace": "default",
    }
    assert service.blobs == {digest: card.read_bytes()}
    assert sum(told) == 10_000


def test_what_the_store_has_is_not_sent_again(client: Client, service: Service, card: Path) -> None:
    service.present = True
    client.attach_evidence("fraud", 3, "model_card", "Model card", file=card)
    assert service.blobs == {}


def test_a_finding_needs_no_file(client: Client, service: Service) -> None:
    client.attach_evidence("fraud", 3, "fairness", "CI run 812", url="https://ci/812", result="pass", detail="all fine")
    assert service.offers == []
    assert {name: service.pieces[0][name] for name in ("type", "result", "url", "detail")} == {
        "type": "fairness",
        "result": "pass",
        "url": "https://ci/812",
        "detail": "all fine",
    }
    [found] = client.evidence("fraud", 3)
    with pytest.raises(HallmarkError) as caught:
        client.save_evidence(found, "x")
    assert caught.value.code == "no-file"
    assert "https://ci/812" in caught.value.detail


def test_a_directory_is_no_evidence(client: Client, tmp_path: Path) -> None:
    with pytest.raises(HallmarkError) as caught:
        client.attach_evidence("fraud", 3, "model_card", "Model card", file=tmp_path)
    assert "pack it" in caught.value.detail


def test_what_is_saved_is_what_was_attached(client: Client, service: Service, card: Path, tmp_path: Path) -> None:
    made = client.attach_evidence("fraud", 3, "model_card", "Model card", file=card)
    target = tmp_path / "copy.pdf"
    client.save_evidence(client.piece_of_evidence(made.evidence_id), target)
    assert target.read_bytes() == card.read_bytes()
    target.unlink()
    service.lie = b"another card"
    with pytest.raises(HallmarkError) as caught:
        client.save_evidence(made, target)
    assert caught.value.code == "digest-mismatch"
    assert not target.exists()


def test_the_commands_attach_list_and_save(
    service: Service, client: Client, card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(
        output.Caller, "client", lambda _: Client("http://r", "t", transport=httpx2.MockTransport(service))
    )

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hallmark", "evidence", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        told = capsys.readouterr()
        return int(exit_.value.code or 0), told.out, told.err

    attach = ("attach", "fraud", "3", "--type", "model_card", "--title", "Model [card]")
    code, out, _ = run(*attach, "--file", str(card))
    assert code == 0
    assert "attached model_card e-1: sha256:" in out
    assert run(*attach, "--result", "fail", "--url", "https://ci/1")[0] == 0
    code, _, err = run(*attach)
    assert code == 2
    assert "--file, --url or --result" in err
    assert run(*attach, "--result", "perhaps")[0] == 2
    out = run("list", "fraud", "3")[1]
    assert "Model [card]" in out
    assert "https://ci/1" in out
    code, out, _ = run("save", "e-1", str(tmp_path / "copy.pdf"))
    assert code == 0
    assert (tmp_path / "copy.pdf").read_bytes() == card.read_bytes()
    assert run("save", "e-2", str(tmp_path / "copy.pdf"))[0] == 1
