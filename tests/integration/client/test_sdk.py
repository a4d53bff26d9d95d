"""The SDK against the whole system."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.waiting import until_now

from embedded.stack import Stack
from hallmark import Client, HallmarkError, Watcher
from hallmark.verify import verify_export

pytestmark = [pytest.mark.xdist_group("house"), pytest.mark.timeout(300)]
GOOD = {"accuracy": 0.95}


def promote(ana: Client, ben: Client, version: int) -> None:
    assert ana.request_stage("m", version, "Staging", "try", wait=30).applied
    asked = ana.request_stage("m", version, "Production", "good", wait=0)
    ben.request(asked.transition_id, wait=30)
    ben.approve(asked.transition_id, "fine")
    assert ana.wait_for(asked, 30).applied


def test_a_version_comes_back_as_it_was_registered(ana: Client, model_file: Path) -> None:
    data = model_file.with_name("rows.csv")
    data.write_text("a,b\n")
    made = ana.register(
        "m",
        model_file,
        metrics=GOOD,
        parameters={"depth": 3, "lr": 0.1, "bias": True},
        datasets=[data],
        signature={"inputs": [{"name": "x", "dtype": "float32", "shape": [None, 30]}]},
        run={"system": "mlflow", "id": "r-1"},
        tags={"team": "risk"},
        notes="first",
    )
    found = ana.version("m", 1)
    assert found == made
    assert (found.version, found.stage, found.registered_by) == (1, "Development", "ana")
    assert found.metrics == GOOD
    assert found.parameters == {"depth": 3, "lr": 0.1, "bias": True}
    assert found.content["lineage"]["datasets"][0]["name"] == "rows.csv"
    assert found.content["signature"]["inputs"][0]["shape"] == [None, 30]
    assert found.content["environment"]["packages"]["pytest"]


def test_one_key_makes_one_version_however_often_it_is_sent(ana: Client, model_file: Path) -> None:
    content = ana.content(model_file, metrics=GOOD)
    first = ana.register_content("m", content, idempotency_key="run-7")
    assert ana.register_content("m", content, idempotency_key="run-7") == first
    assert [v.version for v in ana.versions("m")] == [1]
    with pytest.raises(HallmarkError):
        ana.register_content("m", content.model_copy(update={"notes": "other"}), idempotency_key="run-7")


def test_bytes_that_are_there_are_not_sent_again(ana: Client, model_file: Path) -> None:
    sent: list[int] = []
    ana.register("m", model_file, progress=sent.append)
    assert sum(sent) == model_file.stat().st_size
    ana.register("n", model_file, progress=sent.append)
    assert sum(sent) == model_file.stat().st_size


def test_numbers_that_are_none_are_refused_before_anything_is_sent(ana: Client, model_file: Path) -> None:
    with pytest.raises(HallmarkError, match="accuracy") as caught:
        ana.register("m", model_file, metrics={"accuracy": float("nan")})
    assert caught.value.code == "invalid-content"


def test_what_is_served_is_resolved_downloaded_and_checked(ana: Client, ben: Client, model_file: Path) -> None:
    ana.register("m", model_file, metrics=GOOD)
    with pytest.raises(HallmarkError) as caught:
        ana.resolve("m")
    assert caught.value.code == "nothing-in-stage"
    promote(ana, ben, 1)
    pin, etag = ana.resolve_if_changed("m")
    assert pin is not None
    assert pin.version == 1
    assert ana.resolve_if_changed("m", etag=etag) == (None, etag)
    path = ana.download(pin)
    assert path.read_bytes() == model_file.read_bytes()
    path.write_bytes(b"rotten")
    assert ana.download(pin).read_bytes() == model_file.read_bytes()


def test_refusals_say_who_why_and_where_to_look(ana: Client, person: Callable[..., Client], model_file: Path) -> None:
    ana.register("m", model_file, metrics=GOOD)
    with pytest.raises(HallmarkError) as caught:
        person("eve", "nobody").register("m", model_file)
    assert (caught.value.code, caught.value.status) == ("forbidden", 403)
    assert caught.value.request_id
    with pytest.raises(HallmarkError) as caught:
        ana.request_stage("m", 1, "Production", "too soon")
    assert caught.value.code == "move-not-allowed"
    with pytest.raises(HallmarkError) as caught:
        ana.version("m", 9)
    assert caught.value.code == "version-not-found"


def test_the_requester_cannot_approve(ana: Client, person: Callable[..., Client], model_file: Path) -> None:
    carl = person("carl", "admins")
    carl.register("m", model_file, metrics=GOOD)
    assert carl.request_stage("m", 1, "Staging", "try", wait=30).applied
    asked = carl.request_stage("m", 1, "Production", "mine", wait=0)
    carl.request(asked.transition_id, wait=30)
    with pytest.raises(HallmarkError) as caught:
        carl.approve(asked.transition_id)
    assert caught.value.code == "own-request"
    assert ana.transition(asked.transition_id).open


def test_a_vote_binds_to_what_was_read(ana: Client, ben: Client, model_file: Path) -> None:
    ana.register("m", model_file, metrics=GOOD)
    ana.request_stage("m", 1, "Staging", "try", wait=30)
    asked = ana.request_stage("m", 1, "Production", "good", wait=0)
    ben.request(asked.transition_id, wait=30)
    with pytest.raises(HallmarkError) as caught:
        ben.vote(asked.transition_id, "approve", request_digest="sha256:" + "0" * 64)
    assert caught.value.code == "request-changed"
    assert ben.reject(asked.transition_id, "data leak").status == "rejected"
    refused = ana.wait_for(asked, 30)
    assert refused.status == "refused"
    assert "data leak" in (refused.detail or "")


def test_the_audit_log_answers_and_verifies(
    ana: Client, ben: Client, person: Callable[..., Client], model_file: Path, tmp_path: Path
) -> None:
    ana.register("m", model_file, metrics=GOOD)
    promote(ana, ben, 1)
    aud = person("aud", "auditors")
    until_now(lambda: aud.production("m").version == 1, 60)
    tenure = aud.production("m")
    assert (tenure.requested_by, tenure.approved_by[0]["name"]) == ("ana", "ben")
    assert tenure.criteria[0].result == "pass"
    assert "hallmark.version.registered.v1" in {item.type for item in aud.timeline("m")}
    proved = verify_export(aud.export_log(tmp_path / "log"), aud.verifier_key(), old_checkpoint=aud.checkpoint())
    assert proved.size > 0
    with pytest.raises(HallmarkError) as caught:
        ana.export_log(tmp_path / "other")
    assert caught.value.status == 403
    assert not (tmp_path / "other").exists()


def test_subscriptions_are_made_listed_and_removed(ana: Client) -> None:
    made = ana.subscribe("webhook", "http://127.0.0.1:9/hook", model="m*")
    assert (made.secret or "").startswith("whsec_")
    mine = {s.subscription_id for s in ana.subscriptions()}
    assert made.subscription_id in mine
    assert (made.types, made.audience) == (["hallmark.stage.*"], [])
    ana.unsubscribe(made.subscription_id)
    told = ana.subscribe("webhook", "http://127.0.0.1:9/hook", audience=["user:ana", "group:ml-engineers"])
    assert (told.types, told.audience) == (["hallmark.*"], ["user:ana", "group:ml-engineers"])
    ana.unsubscribe(told.subscription_id)
    with pytest.raises(HallmarkError, match="write group:NAME"):
        ana.subscribe("webhook", "http://127.0.0.1:9/hook", audience=["ana"])
    with pytest.raises(HallmarkError):
        ana.subscribe("webhook", "http://169.254.169.254/latest/meta-data")


def test_a_server_survives_the_registry_and_swaps_when_it_is_back(
    house: Stack, ana: Client, ben: Client, model_file: Path, tmp_path: Path
) -> None:
    ana.register("m", model_file, metrics=GOOD)
    promote(ana, ben, 1)
    second = model_file.with_name("second.bin")
    second.write_bytes(b"second")
    ana.register("m", second, metrics=GOOD)
    client = Client(ana.url, house.token("server", ["servers"]), workspace=ana.workspace, retry_for=0)
    with Watcher(client, "m", Path.read_bytes, every=0.1, directory=tmp_path / "pins") as watcher:
        assert watcher.current is not None
        assert watcher.current.model == model_file.read_bytes()
        house.child("registry").kill()
        until_now(lambda: watcher.status.trouble, 60)
        assert watcher.current.model == model_file.read_bytes()
        until_now(lambda: watcher.status.trouble is None, 60)
        promote(ana, ben, 2)
        until_now(lambda: watcher.current is not None and watcher.current.model == b"second", 60)
