"""What Slack and e-mail say of models, versions, aliases and workspaces, as they are rendered."""

from typing import Any

import pytest

from contracts.approval import RequestOpened
from contracts.audit import SearchAlerted
from contracts.lifecycle import DEFAULT_LIFECYCLE
from contracts.payload import Message
from contracts.registry import (
    AliasChanged,
    AliasRemoved,
    ModelDeleted,
    ModelRecreated,
    ModelRenamed,
    ModelRestored,
    ModelUpdated,
    ServingReported,
    StageRefused,
    StageRequested,
    VersionDeleted,
    VersionDescribed,
    VersionEvaluated,
    VersionNoted,
    VersionRejected,
    VersionRestored,
    VersionScanned,
    VersionTagged,
    VersionVerified,
    WorkspaceConfigured,
)

from .rendering import AT, mail, slack

DIGEST = "sha256:" + "a" * 64
MODEL: dict[str, Any] = {"workspace": "default", "model": "churn"}
VERSION: dict[str, Any] = {**MODEL, "version": 2}
DIGESTS = {"digest": DIGEST, "artifact_digest": DIGEST}
FINDINGS = [
    {"severity": "warning", "code": "old-protocol", "detail": "protocol 2"},
    {"severity": "unsafe", "code": "os.system", "detail": "runs\na <program>", "file": "model.pkl"},
]
GATE = {"gate": "auc", "expression": "metrics.auc >= 0.9", "result": "passed", "message": "auc 0.95 >= 0.9"}
PEOPLE = [{"name": name, "at": AT, "meaning": "reviewed"} for name in ("ben", "eve")]
TO_ALIAS: dict[str, Any] = {
    **VERSION,
    **DIGESTS,
    "transition_id": "t1",
    "kind": "alias",
    "from_stage": "Staging",
    "to_stage": "@champion",
    "requested_by": "ana",
    "reason": "won",
}
EVALUATION = {
    "dataset": {"name": "holdout", "version": "2026-10"},
    "metrics": {"auc": 0.91},
    "evaluated_at": AT,
    "notes": "on the new data",
}
REJECTED = VersionRejected.model_validate(
    {**VERSION, "digest": DIGEST, "code": "digest-mismatch", "detail": "other bytes", "file": "m.onnx"}
)
QUARANTINED = VersionVerified.model_validate(
    {**VERSION, **DIGESTS, "inspection": {"format": "pickle", "findings": FINDINGS, "scanner": "picklescan"}}
)
POINTED = AliasChanged.model_validate(
    {
        **VERSION,
        **DIGESTS,
        "alias": "champion",
        "previous": 1,
        "requested_by": "ana",
        "reason": "won",
        "approved_by": PEOPLE,
        "criteria": [GATE],
        "policy": "alias@3",
    }
)


def test_a_rejected_version_names_the_file() -> None:
    text, blocks = slack(REJECTED)
    assert text == "churn: v2 was rejected (m.onnx): other bytes."
    assert blocks.startswith(
        f"*{text[:-1]}*\n*Model*\ndefault/churn\n*Version*\n2\n*File*\nm.onnx\n*Rejected because*\n"
    )
    subject, plain, html = mail(REJECTED)
    assert subject == "churn: v2 was rejected (m.onnx): other bytes"
    assert "File: m.onnx\nRejected because: digest-mismatch\n" in plain.replace("\r\n", "\n")
    assert "<td>m.onnx</td>" in html
    assert "Criteria" not in plain + html + blocks


def test_a_quarantined_version_shows_its_findings_the_worst_first() -> None:
    text, blocks = slack(QUARANTINED)
    assert text.startswith("churn: v2 is quarantined: os.system in model.pkl. unsafe: os.system in model.pkl: runs a")
    assert (
        "*Findings*\n"
        "• unsafe: os.system in model.pkl: runs a &lt;program&gt;\n"
        "• warning: old-protocol: protocol 2\n" in blocks
    )
    assert "*Format*\npickle" in blocks
    subject, plain, html = mail(QUARANTINED)
    assert subject == "churn: v2 is quarantined: os.system in model.pkl"
    assert (
        "Findings\n  - unsafe: os.system in model.pkl: runs a <program>\n  - warning: old-protocol: protocol 2\n"
        in plain.replace("\r\n", "\n")
    )
    assert '<h2 style="font-size: 1em">Findings</h2>' in html
    assert "runs a &lt;program&gt;" in html
    assert "Criteria" not in plain + html + blocks


def test_an_alias_change_names_its_approvers_and_criteria() -> None:
    text, blocks = slack(POINTED)
    assert text == (
        "churn: @champion is now v2 (was v1). Asked by ana, approved by ben and eve: 'won'. auc 0.95 &gt;= 0.9 passed."
    )
    for part in ("*Before*\nv1", "*Asked by*\nana", "*Approved by*\nben and eve", "*Policy*\nalias@3", "> won"):
        assert part in blocks
    assert "*Criteria*\n• auc 0.95 &gt;= 0.9 passed" in blocks
    subject, plain, html = mail(POINTED)
    assert subject == "churn: @champion is now v2 (was v1)"
    assert "Asked by ana, approved by ben and eve:" in plain
    assert "Approved by: ben and eve" in plain
    assert "Criteria\n  - auc 0.95 >= 0.9 passed" in plain.replace("\r\n", "\n")
    assert "<td>ben and eve</td>" in html


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            AliasChanged.model_validate(
                {**VERSION, **DIGESTS, "alias": "shadow", "requested_by": "ana", "reason": "try"}
            ),
            "churn: @shadow is now v2. Asked by ana: 'try'.",
        ),
        (
            AliasRemoved(**MODEL, alias="shadow", previous=2, requested_by="ana", reason="over"),
            "churn: @shadow is gone (was v2). Removed by ana: 'over'.",
        ),
        (
            StageRequested.model_validate({**TO_ALIAS, "expires_at": AT}),
            "churn: v2 asks to become @champion. Asked by ana: 'won'.",
        ),
        (
            StageRefused.model_validate({**TO_ALIAS, "code": "rejected", "detail": "not yet"}),
            "churn: v2 was not made @champion: not yet. Asked by ana: 'won'.",
        ),
        (
            RequestOpened.model_validate(
                {
                    **TO_ALIAS,
                    "policies": [],
                    "inputs": {},
                    "inputs_digest": DIGEST,
                    "request_digest": DIGEST,
                    "expires_at": AT,
                }
            ),
            "churn: v2 waits for approval to become @champion. Asked by ana: 'won'.",
        ),
        (
            VersionVerified.model_validate({**VERSION, **DIGESTS, "inspection": {"format": "onnx", "scanner": "s"}}),
            "churn: v2 is ready.",
        ),
        (
            VersionEvaluated.model_validate({**VERSION, "evaluation": EVALUATION}),
            "churn: v2 was evaluated on holdout 2026-10. Evaluated by olga: 'on the new data'.",
        ),
        (
            VersionTagged.model_validate({**VERSION, "tags": {"set": {"risk": "low"}, "remove": ["draft"]}}),
            "churn: v2 was tagged. Tagged by olga.",
        ),
        (
            VersionNoted(**VERSION, text="odd on\nMondays"),
            "churn: v2 has a new note. Written by olga: 'odd on Mondays'.",
        ),
        (
            VersionScanned.model_validate({**VERSION, "scanner": "clamav", "findings": FINDINGS[:1]}),
            "churn: v2 was scanned by clamav: nothing unsafe. warning: old-protocol: protocol 2.",
        ),
        (
            ServingReported(**VERSION, server="pod-1", target="@champion", state="failed", detail="no memory"),
            "churn: pod-1 reports v2 as failed. Reported by pod-1: 'no memory'.",
        ),
        (
            ModelUpdated.model_validate({**MODEL, "owner": "ben", "tags": {"set": {"team": "x"}}}),
            "churn: the model was updated. Updated by olga.",
        ),
        (ModelRenamed(**MODEL, former="churn", name="leavers"), "churn: is named leavers now. Renamed by olga."),
        (ModelDeleted(**MODEL, reason="old"), "churn: was deleted. Deleted by olga: 'old'."),
        (ModelRestored(**MODEL, reason="needed"), "churn: is back. Restored by olga: 'needed'."),
        (ModelRecreated(**MODEL, name="churn", versions=2), "churn: began anew. Registered by olga."),
        (
            VersionDescribed(**VERSION, description="for spring"),
            "churn: v2 has a new description. Described by olga: 'for spring'.",
        ),
        (
            VersionDeleted(**VERSION, digest=DIGEST, reason="wrong data"),
            "churn: v2 was deleted. Deleted by olga: 'wrong data'.",
        ),
        (
            VersionRestored(**VERSION, digest=DIGEST, reason="mistake"),
            "churn: v2 is back. Restored by olga: 'mistake'.",
        ),
        (
            WorkspaceConfigured(workspace="default", lifecycle=DEFAULT_LIFECYCLE, protected_aliases=("champion",)),
            "Workspace default: new rules. Configured by olga.",
        ),
    ],
    ids=lambda given: getattr(given, "TYPE", None),
)
def test_every_event_is_told_in_one_line_and_rendered(message: Message, text: str) -> None:
    assert slack(message)[0] == text
    subject, plain, html = mail(message)
    assert text.startswith(subject)
    assert plain.startswith(subject)
    assert subject in html


def test_facts_are_told_beside_the_line() -> None:
    rules = WorkspaceConfigured(workspace="default", lifecycle=DEFAULT_LIFECYCLE, protected_aliases=("champion",))
    plain = mail(rules)[1]
    assert "Stages: Development, Staging, Production, Archived" in plain
    assert "Entered by decision: Staging, Production" in plain
    assert "Protected aliases: @champion" in plain
    tagged = VersionTagged.model_validate({**VERSION, "tags": {"set": {"risk": "low"}, "remove": ["draft"]}})
    assert "*risk*\nlow\n*draft*\nremoved" in slack(tagged)[1]
    assert "auc: 0.91" in mail(VersionEvaluated.model_validate({**VERSION, "evaluation": EVALUATION}))[1]


def test_an_alert_of_a_saved_search() -> None:
    alerted = SearchAlerted(
        search_id="s", owner="aud", name="glass", first=4, until=9, matches=3, indexes=(5, 6, 8), above=0
    )
    text, blocks = slack(alerted, "search:s")
    assert text == "Saved search glass: 3 new entries match, more than 0. Saved by aud."
    assert "glass" in blocks
    _, body, _ = mail(alerted, "search:s")
    assert "entries 4 to 8 of the audit log" in body
    assert "5, 6, 8" in body
