"""What was read on this machine is what is signed on it."""

import os
from pathlib import Path

import pytest
from tests.support.fake_approval import ONE, REQUEST, TWO

from hallmark import HallmarkError, Request, seen

SHOWN = Request.model_validate(REQUEST)
CHANGED = SHOWN.model_copy(update={"request_digest": TWO})


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HALLMARK_CACHE_DIR", str(tmp_path))
    return tmp_path / "seen"


def test_what_was_never_shown_is_signed_as_it_is() -> None:
    assert seen.digest_to_sign(SHOWN) == ONE


def test_the_digest_that_was_shown_last_is_signed() -> None:
    seen.remember(SHOWN)
    assert seen.digest_to_sign(SHOWN) == ONE
    with pytest.raises(HallmarkError) as caught:
        seen.digest_to_sign(CHANGED)
    assert (caught.value.code, caught.value.refused) == ("request-changed", True)
    seen.remember(CHANGED)
    assert seen.digest_to_sign(CHANGED) == TWO


def test_the_server_says_what_is_wrong_with_a_request_that_ended() -> None:
    seen.remember(SHOWN)
    assert seen.digest_to_sign(CHANGED.model_copy(update={"status": "rejected"})) == TWO


def test_what_nobody_will_sign_any_more_is_forgotten(cache: Path) -> None:
    seen.remember(SHOWN.model_copy(update={"request_id": "old"}))
    [old] = cache.iterdir()
    os.utime(old, (0, 0))
    seen.remember(SHOWN)
    assert [file.name for file in cache.iterdir()] == [f"{SHOWN.request_id}.digest"]


def test_a_disk_that_takes_nothing_does_not_keep_anybody_from_reading(cache: Path) -> None:
    cache.write_text("not a directory")
    seen.remember(SHOWN)
    assert seen.digest_to_sign(SHOWN) == ONE


@pytest.mark.parametrize("request_id", ["..", "a/b", "."])
def test_no_id_leads_out_of_the_cache(cache: Path, request_id: str) -> None:
    seen.remember(SHOWN.model_copy(update={"request_id": request_id}))
    assert [file.parent for file in cache.iterdir()] == [cache]
