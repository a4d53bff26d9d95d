"""Lists of approval: followed to their end, and in the words of other registries."""

import json

import pytest
from tests.support.fake_approval import AT, POLICY, REQUEST, Run, Service

from approval.api.common import STATUSES

DELEGATION = {"delegation_id": "d-1", "delegator": "ben", "delegate": "carla", "starts": AT, "ends": AT}


@pytest.mark.parametrize(
    ("path", "words", "one", "places"),
    [
        ("/v1/delegations", ("delegation", "list"), DELEGATION, ["d-1", "d-2"]),
        ("/v1/policies", ("policy", "list"), POLICY, ["production", "staging"]),
        ("/v1/policies", ("policy", "list", "--name", "production"), POLICY, ["3", "2"]),
        ("/v1/requests", ("request", "list", "--limit", "0"), REQUEST, ["1", "2"]),
    ],
)
def test_a_list_is_followed_to_its_end(
    run: Run, service: Service, path: str, words: tuple[str, ...], one: dict[str, object], places: list[str]
) -> None:
    """A page may be empty though there is a next one."""
    first, second = places
    pages = [([one, one], first), ([], second), ([one], None)]
    service.answers[f"GET {path}"] = [(200, {"items": items, "next": following}) for items, following in pages]
    code, out, _ = run(*words, "--json")
    assert (code, len(json.loads(out))) == (0, 3)
    assert [asked.url.params.get("after") for asked in service.asked[-3:]] == [None, first, second]


@pytest.mark.parametrize("word", [*STATUSES, "Pending", "PendingManualApproval", "Approved", "Rejected"])
def test_a_status_goes_by_the_words_of_other_registries(run: Run, service: Service, word: str) -> None:
    service.answers["GET /v1/requests"] = (200, {"items": [REQUEST], "next": None})
    assert run("request", "list", "--status", word)[0] == 0
    assert service.asked[-1].url.params["status"] == word


@pytest.mark.parametrize(
    "words",
    [("request", "approve"), ("request", "reject"), ("request", "comment"), ("stage", "cancel")],
)
def test_the_acts_of_other_registries_go_by_the_same_words(run: Run, words: tuple[str, ...]) -> None:
    """Approve, reject and cancel a transition request, and comment on it (Databricks)."""
    code, out, _ = run(*words, "--help")
    assert (code, " ".join(words) in out) == (0, True)
