"""Secrets of subscriptions: without a key none is taken, and what a former version kept in clear is sealed."""

from typing import Any

import httpx2
import sqlalchemy as sa

from contracts.notifier import OwnerSeen
from kit.keys import ensure_key, make_token
from notifier.app import build
from notifier.vault import CLEAR, SEALED, seal

from .asking import ACCESS, code, made_by
from .conftest import Rig


async def test_without_a_key_nothing_that_has_a_secret_is_taken(rig: Rig, tmp_path: Any) -> None:
    key = ensure_key(tmp_path, "auth")
    (tmp_path / "access.yaml").write_text(ACCESS)
    told = {"auth_jwks": str(tmp_path / "auth.jwks.json"), "access_file": tmp_path / "access.yaml"}
    service = build(rig.settings.model_copy(update={**told, "secret_key": None, "slack_bot_token": None}))
    headers = {"authorization": f"Bearer {make_token(key, 'ana', ['ml-engineers'])}"}
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(service), base_url="http://n", headers=headers
    ) as client:
        for body in (
            {"channel": "webhook", "address": "http://127.0.0.1:9/hook"},
            {"channel": "slack", "address": "http://127.0.0.1:9/services/pa55word"},
            {"channel": "email", "address": "ana@example.org"},
            {"channel": "pagerduty", "address": "k" * 32},
        ):
            refused = await client.post("/v1/subscriptions", json=body)
            assert (refused.status_code, code(refused)) == (503, "no-secret-key"), body
            assert "HALLMARK_SECRET_KEY" in refused.json()["detail"]
        assert (await client.get("/v1/subscriptions")).json()["items"] == []
    async with rig.db.snapshot() as tx:  # nothing but what her token said of her groups
        assert [event.type async for event in rig.log.read(tx)] == [OwnerSeen.TYPE]


async def test_what_was_kept_in_clear_is_sealed(rig: Rig, ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, channel="webhook", address="http://127.0.0.1:9/hook")
    of = {"id": made["subscription_id"]}
    clear = CLEAR + made["secret"].encode()
    async with rig.db.transaction() as tx:
        await tx.execute(
            sa.text("update notifier.secret set value = :value where subscription_id = :id and name = 'signing'"),
            {**of, "value": clear},
        )
        assert [await seal(tx, rig.vault), await seal(tx, rig.vault)] == [1, 0]
        stored = await tx.scalar(
            sa.text("select value from notifier.secret where subscription_id = :id and name = 'signing'"), of
        )
    assert stored[:1] == SEALED
    assert rig.vault.read(made["subscription_id"], "signing", stored) == made["secret"]
