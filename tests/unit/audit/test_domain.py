"""Reading records: good ones, and everything that can be wrong with one."""

from datetime import timedelta
from typing import Any

import pytest

from audit.domain import LOGGED, About, about, move_of, read
from audit.summary import summarise
from contracts import approval, audit, notifier, registry
from contracts.envelope import Envelope
from contracts.lifecycle import DEFAULT_LIFECYCLE, Stage
from contracts.model import Artifact, Dataset, Evaluation, Finding, Inspection, Severity, VersionContent
from contracts.notifier import Channel
from contracts.payload import Message
from contracts.topics import APPROVAL_EVENTS, AUDIT_EVENTS, NOTIFIER_EVENTS, REGISTRY_COMMANDS, REGISTRY_EVENTS

from .approvals import APPROVALS, APPROVED, AT, DIGEST, GATE, OF_NONE, OF_VERSION, PLACE, VOTE, key_of

CONTENT = VersionContent(artifact=Artifact(digest=DIGEST, size=1, filename="m.onnx"))
ATTEMPT: dict[str, Any] = {
    "delivery_id": "d",
    "subscription_id": "s",
    "event_id": "e",
    "event_type": "hallmark.stage.changed.v1",
    "attempt": 2,
    "latency_ms": 1.0,
    "detail": "410 Gone",
}
WITHOUT_A_VERSION = (
    registry.RegisterModel,
    registry.RegisterVersion,
    registry.RollBack,
    registry.ModelRegistered,
    registry.ModelUpdated,
    registry.ModelRenamed,
    registry.ModelDeleted,
    registry.ModelRestored,
    registry.ModelRecreated,
    registry.AliasRemoved,
)
OF_MODEL: dict[str, Any] = {"workspace": "default", "model": "fraud"}
FINDINGS = (
    Finding(severity=Severity.WARNING, code="old-protocol", detail="protocol 2"),
    Finding(severity=Severity.UNSAFE, code="os.system", detail="runs a program", file="model.pkl"),
)
EVALUATION = Evaluation(
    dataset=Dataset(name="holdout", version="2026-10"), metrics={"auc": 0.91, "f1": 0.8}, evaluated_at=AT
)
CHANGED = registry.StageChanged(
    **PLACE,
    requested_by="ana",
    reason="better recall",
    approved_by=(APPROVED,),
    criteria=(GATE,),
    policy="prod@3",
    decision_id="d1",
    replaces=1,
)
# Every message that the log may meet, and what its sentence must name.
SEARCH: dict[str, Any] = {"search_id": "s1", "owner": "lea", "name": "glass"}
FOUND: dict[str, Any] = {**SEARCH, "first": 7, "until": 40, "matches": 3, "indexes": (8, 9, 12)}
HUSHED: dict[str, Any] = {"workspace": "default", "author": "ana", "comment": "maintenance"}
TEMPLATE: dict[str, Any] = {"workspace": "default", "channel": "slack", "types": "hallmark.stage.*"}
QUIET: list[tuple[Message, list[str]]] = [
    (
        notifier.TemplatePublished(**TEMPLATE, revision=2, parts={"text": "x"}, published_by="ana"),
        ["ana published revision 2 of the slack template for hallmark.stage.* in default"],
    ),
    (notifier.TemplateWithdrawn(**TEMPLATE, withdrawn_by="ben"), ["ben withdrew the slack template"]),
    (
        notifier.GroupComposed(
            subscription_id="s", labels="model fraud", count=7, first_at=AT, last_at=AT, kinds={"x": 7}, newest=()
        ),
        ["about 7 events of model fraud", "subscription s"],
    ),
    (
        notifier.SilenceCreated(
            silence_id="x", types=("hallmark.vote.*",), model="fraud", owner="ana", starts_at=AT, ends_at=AT, **HUSHED
        ),
        ["ana silenced hallmark.vote.* about fraud for the subscriptions of ana", "maintenance"],
    ),
    (
        notifier.SilenceCreated(silence_id="x", types=("*",), model="*", starts_at=AT, ends_at=AT, **HUSHED),
        ["for everybody in default"],
    ),
    (notifier.SilenceExpired(silence_id="x", expired_by="ben"), ["ben ended the silence x"]),
    (
        notifier.InhibitionCreated(
            inhibition_id="i",
            source_types=("hallmark.glass.*",),
            seconds=60,
            target_types=("a",),
            equal=("model",),
            **HUSHED,
        ),
        ["hallmark.glass.* hushes a of the same model"],
    ),
    (notifier.InhibitionRemoved(inhibition_id="i", removed_by="ben"), ["ben removed the rule i"]),
]
MESSAGES: list[tuple[str, Message, list[str]]] = [
    (
        AUDIT_EVENTS.name,
        audit.SearchSaved(**SEARCH, query="type=a*", groups=("auditors",), start=7, every=60, alert_above=2),
        ["lea", "glass", "type=a*", "60 seconds", "more than 2"],
    ),
    (AUDIT_EVENTS.name, audit.SearchRemoved(**SEARCH, removed_by="root"), ["root", "lea", "glass"]),
    (AUDIT_EVENTS.name, audit.SearchRan(**FOUND, outcome="allowed"), ["lea", "glass", "found 3", "7", "40"]),
    (AUDIT_EVENTS.name, audit.SearchAlerted(**FOUND, above=2), ["lea", "glass", "3", "more than 2"]),
    (
        AUDIT_EVENTS.name,
        audit.CheckpointPublished(origin="example.org/log", size=12, root="cm9vdA==", note="note"),
        ["12 entries", "cm9vdA=="],
    ),
    (
        AUDIT_EVENTS.name,
        audit.AccessRecorded(principal="aud", query="GET /v1/log/entries", outcome="denied"),
        ["aud", "denied", "GET /v1/log/entries"],
    ),
    (
        AUDIT_EVENTS.name,
        audit.RecordSkipped(sink="splunk", index=41, status=400, detail="no field x"),
        ["splunk", "41", "400", "no field x"],
    ),
    (
        AUDIT_EVENTS.name,
        audit.RetentionPublished(
            rules=(audit.RetentionRule(topic="*", type="*", days=400),), published_by="root", reason="as the law says"
        ),
        ["root", "400 days", "as the law says"],
    ),
    (
        AUDIT_EVENTS.name,
        audit.HoldPlaced(hold_id="h1", workspace="default", model="fraud", placed_by="lea", reason="case 4711"),
        ["lea", "h1", "fraud", "case 4711"],
    ),
    (
        AUDIT_EVENTS.name,
        audit.HoldReleased(hold_id="h1", released_by="lea", reason="settled"),
        ["lea", "h1", "settled"],
    ),
    (
        AUDIT_EVENTS.name,
        audit.PersonKnown(pseudonym="p_" + "a" * 26, commitment="sha256:" + "0" * 64),
        ["p_aaaa", "sha256:0000"],
    ),
    (
        AUDIT_EVENTS.name,
        audit.SubjectErased(pseudonym="p_" + "a" * 26, also=("p_" + "b" * 26,), erased_by="lea", reason="article 17"),
        ["lea", "p_aaaa", "p_bbbb", "article 17"],
    ),
    (
        AUDIT_EVENTS.name,
        audit.LogPruned(
            origin="example.org/log",
            partition="entry_2020_01",
            first=0,
            until=300,
            minimum_index=300,
            size=900,
            root="cm9vdA==",
            pruned_by="root",
        ),
        ["root", "0 to 299"],
    ),
    (REGISTRY_COMMANDS.name, registry.RegisterModel(model="fraud"), ["command", "register", "fraud", "eve"]),
    (REGISTRY_COMMANDS.name, registry.RegisterVersion(model="fraud", content=CONTENT), ["version", "fraud", "sha256:"]),
    (
        REGISTRY_COMMANDS.name,
        registry.RequestTransition(model="fraud", version=2, to_stage=Stage.PRODUCTION, reason="better"),
        ["fraud v2", "Production", "better"],
    ),
    (
        REGISTRY_COMMANDS.name,
        registry.RollBack(model="fraud", to_version=1, reason="drift"),
        ["roll back", "v1", "drift"],
    ),
    (
        REGISTRY_COMMANDS.name,
        registry.EvaluateVersion(**OF_VERSION, evaluation=EVALUATION),
        ["fraud v2", "holdout 2026-10", "auc 0.91"],
    ),
    (
        REGISTRY_COMMANDS.name,
        registry.TagVersion(**OF_VERSION, tags=registry.Tags(set={"risk": "low"}, remove=("draft",))),
        ["fraud v2", "risk=low", "draft removed"],
    ),
    (
        REGISTRY_COMMANDS.name,
        registry.SetAlias(**OF_VERSION, alias="champion", reason="won"),
        ["@champion", "fraud v2", "won"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.WorkspaceConfigured(
            workspace="default", lifecycle=DEFAULT_LIFECYCLE, protected_aliases=("champion",), naming="[a-z]+"
        ),
        ["default", "stages Development, Staging", "gated: Staging, Production", "protected: @champion", "[a-z]+"],
    ),
    (REGISTRY_EVENTS.name, registry.ModelRegistered(workspace="default", model="fraud", owner="ana"), ["fraud", "ana"]),
    (
        REGISTRY_EVENTS.name,
        registry.ModelUpdated(**OF_MODEL, owner="ben", description="new", tags=registry.Tags(set={"team": "x"})),
        ["fraud", "owner ben", "description", "team=x"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.ModelRenamed(**OF_MODEL, former="scam", name="swindle"),
        ["scam was renamed to swindle", "registered as fraud"],
    ),
    (REGISTRY_EVENTS.name, registry.ModelDeleted(**OF_MODEL, reason="old"), ["fraud was deleted: old"]),
    (REGISTRY_EVENTS.name, registry.ModelRestored(**OF_MODEL, reason="needed"), ["fraud was restored: needed"]),
    (
        REGISTRY_EVENTS.name,
        registry.ModelRecreated(**OF_MODEL, name="card-fraud", versions=2),
        ["card-fraud (registered as fraud) began anew", "up to v2, stay deleted"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.VersionDescribed(**OF_VERSION, description="for\nspring"),
        ["fraud v2 was described: for spring"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.VersionDeleted(**OF_VERSION, digest=DIGEST, reason="wrong data"),
        ["fraud v2 was deleted: wrong data"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.VersionRestored(**OF_VERSION, digest=DIGEST, reason="mistake"),
        ["fraud v2 was restored: mistake"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.VersionVerified(
            **OF_VERSION,
            digest=DIGEST,
            artifact_digest=DIGEST,
            inspection=Inspection(format="pickle", findings=FINDINGS, scanner="s"),
        ),
        ["fraud v2", "verified (pickle)", "quarantined", "findings: 2, unsafe: 1: os.system in model.pkl"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.VersionRejected(**OF_VERSION, digest=DIGEST, code="digest-mismatch", detail="other", file="m.onnx"),
        ["fraud v2 was rejected at the file m.onnx: other (digest-mismatch)"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.VersionEvaluated(**OF_VERSION, evaluation=EVALUATION),
        ["fraud v2 was evaluated on holdout 2026-10: auc 0.91, f1 0.8"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.VersionTagged(**OF_VERSION, tags=registry.Tags(set={"risk": "low"})),
        ["fraud v2 was tagged: risk=low"],
    ),
    (REGISTRY_EVENTS.name, registry.VersionNoted(**OF_VERSION, text="seen\ntwice"), ["note on fraud v2: seen twice"]),
    (
        REGISTRY_EVENTS.name,
        registry.VersionScanned(**OF_VERSION, scanner="clamav", findings=FINDINGS),
        ["clamav scanned fraud v2", "unsafe: 1"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.VersionRevoked(
            **OF_VERSION, digest=DIGEST, revoked_by="olga", reason="poisoned", fallback=1, revocation="a.b.c"
        ),
        ["olga revoked fraud v2", "nobody", "poisoned", "v1"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.AliasChanged(
            **OF_VERSION,
            alias="champion",
            digest=DIGEST,
            artifact_digest=DIGEST,
            previous=1,
            requested_by="ana",
            reason="won",
            approved_by=(APPROVED,),
            criteria=(GATE,),
            policy="alias@1",
        ),
        ["ana moved @champion of fraud from v1 to v2: won", "approved by ben", "accuracy: passed", "alias@1"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.AliasRemoved(**OF_MODEL, alias="champion", previous=2, requested_by="ana", reason="over"),
        ["ana removed @champion of fraud", "v2", "over"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.ServingReported(**OF_VERSION, server="pod-1", target="@champion", state="failed", detail="no memory"),
        ["pod-1", "fraud v2", "@champion", "failed: no memory"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.VersionRegistered(
            workspace="default", model="fraud", version=2, digest=DIGEST, content=CONTENT, registered_by="ana"
        ),
        ["ana", "fraud v2"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.StageRequested(**PLACE, requested_by="ana", reason="better", expires_at=AT),
        ["ana", "fraud v2", "Staging", "Production", "better"],
    ),
    (
        REGISTRY_EVENTS.name,
        CHANGED,
        ["ana", "fraud v2", "better recall", "ben", "accuracy: passed", "prod@3", "replaces v1"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.StageRefused(**PLACE, requested_by="ana", reason="better", code="gates-failed", detail="too low"),
        ["ana", "may not", "too low", "gates-failed"],
    ),
    (
        REGISTRY_EVENTS.name,
        registry.CommandRejected(command_id="c", command_type="x.v1", code="bad", detail="no such version"),
        ["x.v1", "no such version"],
    ),
    *((APPROVAL_EVENTS.name, message, named) for message, named in APPROVALS),
    (
        NOTIFIER_EVENTS.name,
        notifier.SubscriptionCreated(
            subscription_id="s",
            owner="ana",
            channel=Channel.EMAIL,
            address="ana@example.com",
            types=("hallmark.stage.*",),
            workspace="default",
            model="*",
        ),
        ["ana", "ana@example.com"],
    ),
    (
        NOTIFIER_EVENTS.name,
        notifier.SubscriptionChanged(
            subscription_id="s", changed_by="ana", types=("hallmark.vote.*",), model="fraud", stages=("Staging",)
        ),
        ["ana", "changed", "hallmark.vote.*", "about fraud", "Staging"],
    ),
    *((NOTIFIER_EVENTS.name, message, named) for message, named in QUIET),
    (
        NOTIFIER_EVENTS.name,
        notifier.ConfirmationAsked(subscription_id="s", asked_by="ana", expires_at=AT),
        ["ana", "asked whether"],
    ),
    (NOTIFIER_EVENTS.name, notifier.SubscriptionConfirmed(subscription_id="s"), ["mailbox", "confirmed"]),
    (
        NOTIFIER_EVENTS.name,
        notifier.OwnerSeen(owner="ana", groups=("ml",), person=True, issued_at=AT),
        ["token of ana", "in ml"],
    ),
    (
        NOTIFIER_EVENTS.name,
        notifier.DeliveryDenied(
            delivery_id="d",
            subscription_id="s",
            event_id="e",
            event_type="t",
            attempt=1,
            latency_ms=0,
            detail="why not",
        ),
        ["kept from", "why not"],
    ),
    (NOTIFIER_EVENTS.name, notifier.SubscriptionPaused(subscription_id="s", paused_by="ana"), ["ana", "paused"]),
    (NOTIFIER_EVENTS.name, notifier.SubscriptionResumed(subscription_id="s", resumed_by="ana"), ["ana", "resumed"]),
    (NOTIFIER_EVENTS.name, notifier.SubscriptionRemoved(subscription_id="s", removed_by="ana"), ["ana", "removed"]),
    (NOTIFIER_EVENTS.name, notifier.SubscriptionDisabled(subscription_id="s", reason="410 Gone"), ["410 Gone"]),
    (
        NOTIFIER_EVENTS.name,
        notifier.SubscriptionReplayed(subscription_id="s", replayed_by="ana", which="failed", deliveries=7),
        ["ana", "7 deliveries", "failed"],
    ),
    (
        NOTIFIER_EVENTS.name,
        notifier.DeliveriesReconciled(events=5, checked=7, unaccounted=1),
        ["7 deliveries of 5 events", "1 are unaccounted"],
    ),
    (NOTIFIER_EVENTS.name, notifier.SubscriptionEnabled(subscription_id="s", enabled_by="ana"), ["ana", "enabled"]),
    (
        NOTIFIER_EVENTS.name,
        notifier.SubscriptionFaltered(subscription_id="s", percent=50, since=AT, disables_at=AT, detail="HTTP 500"),
        ["only failed since", "HTTP 500"],
    ),
    (NOTIFIER_EVENTS.name, notifier.SecretRotated(subscription_id="s", rotated_by="ana"), ["ana", "new secret"]),
    (NOTIFIER_EVENTS.name, notifier.DeliverySucceeded(**ATTEMPT), ["delivered", "try 2"]),
    (NOTIFIER_EVENTS.name, notifier.DeliveryFailed(**ATTEMPT, next_attempt_at=AT), ["410 Gone"]),
    (NOTIFIER_EVENTS.name, notifier.DeliveryDead(**ATTEMPT), ["given up", "410 Gone"]),
]


def envelope(message: Message, **attributes: Any) -> Envelope:
    key = "workspace:default" if isinstance(message, registry.WorkspaceConfigured) else key_of(message)
    subject = "default/fraud/2" if "/" in key else key
    given = {"source": "test", "subject": subject, "key": key, "sequence": 1, "actor": "eve"}
    return Envelope.of(message, **{**given, **attributes})


def read_envelope(topic: str, sent: Envelope, **changed: Any) -> Any:
    record = {"key": sent.key.encode(), "headers": tuple(sent.headers()), "value": sent.value, **changed}
    return read(topic, record["key"], record["headers"], record["value"])


@pytest.mark.parametrize(("topic", "message", "named"), MESSAGES, ids=lambda given: getattr(given, "TYPE", None))
def test_every_message_is_read_and_told(topic: str, message: Message, named: list[str]) -> None:
    sequence = None if topic == REGISTRY_COMMANDS.name else 4
    reading = read_envelope(topic, envelope(message, sequence=sequence))
    assert reading.flaw is None
    assert reading.message == message
    text = summarise(reading)
    assert message.TYPE not in text
    for part in named:
        assert part in text, text


def test_no_message_of_a_logged_topic_is_forgotten() -> None:
    known = {type(message) for _, message, _ in MESSAGES}
    assert known == {*registry.COMMANDS, *registry.EVENTS, *approval.EVENTS, *notifier.EVENTS, *audit.EVENTS}


@pytest.mark.parametrize(("topic", "message", "_"), MESSAGES, ids=lambda given: getattr(given, "TYPE", None))
def test_a_message_on_another_topic_is_flawed(topic: str, message: Message, _: list[str]) -> None:
    for other in LOGGED:
        if other.name != topic:
            assert read_envelope(other.name, envelope(message)).flaw.code == "unknown-type"


def without(sent: Envelope, name: str) -> tuple[tuple[str, bytes], ...]:
    return tuple(header for header in sent.headers() if header[0] != name)


SENT = envelope(CHANGED)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no headers": ({"headers": ()}, "bad-event"),
    "null header": ({"headers": (("ce_id", None),)}, "bad-event"),
    "header not UTF-8": ({"headers": (*SENT.headers(), ("ce_x", b"\xff"))}, "bad-event"),
    "no id": ({"headers": without(SENT, "ce_id")}, "bad-event"),
    "no type": ({"headers": without(SENT, "ce_type")}, "bad-event"),
    "no sequence": ({"headers": without(SENT, "ce_sequence")}, "sequence-missing"),
    "sequence zero": ({"headers": (*without(SENT, "ce_sequence"), ("ce_sequence", b"0"))}, "bad-event"),
    "huge sequence": ({"headers": (*without(SENT, "ce_sequence"), ("ce_sequence", b"9" * 30))}, "bad-event"),
    "NUL in the actor": ({"headers": (*without(SENT, "ce_actor"), ("ce_actor", b"a\x00b"))}, "bad-event"),
    "time beyond time": (
        {"headers": (*without(SENT, "ce_time"), ("ce_time", b"9999-12-31T23:59:59-14:00"))},
        "bad-event",
    ),
    "unknown type": ({"headers": (*without(SENT, "ce_type"), ("ce_type", b"other.v1"))}, "unknown-type"),
    "key not UTF-8": ({"key": b"\xff"}, "bad-event"),
    "not JSON": ({"value": b"not json"}, "bad-event"),
    "empty": ({"value": b""}, "bad-event"),
    "null": ({"value": None}, "bad-event"),
    "another shape": ({"value": b"[]"}, "bad-event"),
    "NaN": ({"value": SENT.value.replace(b'"version":2', b'"version":NaN')}, "bad-event"),
    "extra field": ({"value": SENT.value.replace(b'"version":2', b'"version":2,"more":1')}, "bad-event"),
    "extra field with NUL": ({"value": SENT.value.replace(b'"version":2', b'"version":2,"\\u0000":1')}, "bad-event"),
    "deep": ({"value": b"[" * 100_000}, "bad-event"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_flawed_and_never_raises(name: str) -> None:
    changed, code = BAD[name]
    reading = read_envelope(REGISTRY_EVENTS.name, SENT, **changed)
    assert reading.flaw.code == code
    assert reading.message is None
    text = summarise(reading)
    assert "\x00" not in text
    assert code in text
    assert move_of(reading.message, AT) is None


@pytest.mark.parametrize(
    ("message", "key"),
    [
        (CHANGED, "default/other"),
        (CHANGED, "workspace:default"),
        (registry.WorkspaceConfigured(workspace="a", lifecycle=DEFAULT_LIFECYCLE), "workspace:b"),
        (registry.ModelDeleted(**OF_MODEL, reason="old"), "other/fraud"),
        (CHANGED.model_copy(update={"to_stage": "@champion"}), "default/fraud"),
    ],
)
def test_an_event_out_of_its_place_is_flawed(message: Message, key: str) -> None:
    reading = read_envelope(REGISTRY_EVENTS.name, envelope(message, key=key))
    assert reading.flaw.code == "astray"
    assert reading.message is None


def test_whom_an_event_is_about() -> None:
    whole = About("default", "fraud", 2)
    for topic, message, _ in MESSAGES:
        found = about(read_envelope(topic, envelope(message)))
        if isinstance(message, WITHOUT_A_VERSION):
            assert found == About("default", "fraud", None)
        elif isinstance(message, registry.WorkspaceConfigured):
            assert found == About("default")
        elif topic in (NOTIFIER_EVENTS.name, AUDIT_EVENTS.name) or isinstance(
            message, (registry.CommandRejected, *OF_NONE)
        ):
            assert found == About()
        else:
            assert found == whole, message


@pytest.mark.parametrize("subject", ["policy:prod", "member:ben", "member:team/ben", "delegation:a/b/7", "x"])
def test_what_is_about_no_model_belongs_to_no_workspace(subject: str) -> None:
    about_a_policy = envelope(approval.VoteCast(request_id="q1", vote=VOTE), subject=subject, key=subject)
    assert about(read_envelope(APPROVAL_EVENTS.name, about_a_policy)) == About()


@pytest.mark.parametrize("message", [m for m, _ in APPROVALS if isinstance(m, OF_NONE)], ids=lambda m: m.TYPE)
def test_no_subject_shows_people_or_policies_to_the_readers_of_a_workspace(message: Message) -> None:
    assert about(read_envelope(APPROVAL_EVENTS.name, envelope(message, subject="default/fraud/2"))) == About()


def test_moves() -> None:
    move = move_of(CHANGED, AT)
    assert move is not None
    assert (move.stage, move.version, move.requested_by, move.reason) == (Stage.PRODUCTION, 2, "ana", "better recall")
    assert move.approved_by == (APPROVED,)
    assert move.criteria == (GATE,)
    later = AT + timedelta(hours=1)
    registered = next(m for _, m, _ in MESSAGES if isinstance(m, registry.VersionRegistered))
    first = move_of(registered, later)
    assert first is not None
    assert (first.stage, first.at, first.kind) == (Stage.DEVELOPMENT, later, "registration")
    assert [m.TYPE for _, m, _ in MESSAGES if move_of(m, AT)] == [
        registry.VersionRegistered.TYPE,
        registry.StageChanged.TYPE,
    ]
