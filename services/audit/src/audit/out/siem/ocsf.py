"""A log entry as an OCSF 1.9 event. Pure.

Source: schema.ocsf.io 1.9.0. Classes used: Entity Management 3004, User Access Management 3005,
Application Lifecycle 6002, API Activity 6003. `metadata.uid` is ours (log and index: the key to tell repetitions by),
`metadata.original_event_uid` the CloudEvent's id, `metadata.sequence` the index, `raw_data_hash` the leaf hash.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from audit.out.rows import Row
from contracts import approval, audit, notifier, registry
from contracts.payload import Message

VERSION = "1.9.0"
INFORMATIONAL, LOW, MEDIUM, HIGH = 1, 2, 3, 4
SUCCESS, FAILURE = 1, 2
UNKNOWN, CREATE, READ, UPDATE, DELETE, OTHER = 0, 1, 2, 3, 4, 99
ENTITY, ACCESS, LIFECYCLE, API = 3004, 3005, 6002, 6003
_MOVE, _ENABLE, _DISABLE = 5, 8, 9
_INSTALL, _START, _STOP = 1, 3, 4
_GRANT, _REVOKE = 1, 2


@dataclass(frozen=True)
class Said:
    """What class of event it is; `more` are the attributes that the class has beside the common ones."""

    class_uid: int
    activity_id: int
    severity_id: int = INFORMATIONAL
    status_id: int = SUCCESS
    more: dict[str, Any] = field(default_factory=dict)


# What is done to a model, a version, an alias, a workspace or a policy.
_ENTITIES: dict[type[Message], tuple[int, int]] = {
    registry.WorkspaceConfigured: (UPDATE, LOW),
    registry.ModelRegistered: (CREATE, INFORMATIONAL),
    registry.ModelUpdated: (UPDATE, INFORMATIONAL),
    registry.ModelRenamed: (UPDATE, LOW),
    registry.ModelDeleted: (DELETE, MEDIUM),
    registry.ModelRestored: (_ENABLE, LOW),
    registry.ModelRecreated: (CREATE, LOW),
    registry.VersionRegistered: (CREATE, INFORMATIONAL),
    registry.VersionVerified: (UPDATE, INFORMATIONAL),
    registry.VersionRejected: (_DISABLE, MEDIUM),
    registry.VersionEvaluated: (UPDATE, INFORMATIONAL),
    registry.VersionTagged: (UPDATE, INFORMATIONAL),
    registry.VersionNoted: (UPDATE, INFORMATIONAL),
    registry.VersionDescribed: (UPDATE, INFORMATIONAL),
    registry.VersionDeleted: (DELETE, MEDIUM),
    registry.VersionRestored: (_ENABLE, LOW),
    registry.VersionScanned: (UPDATE, LOW),
    registry.VersionRevoked: (_DISABLE, HIGH),
    registry.StageChanged: (_MOVE, LOW),
    registry.AliasChanged: (_MOVE, LOW),
    registry.AliasRemoved: (DELETE, LOW),
    approval.PolicyPublished: (UPDATE, MEDIUM),
    approval.EvidenceAttached: (UPDATE, INFORMATIONAL),
    notifier.SubscriptionCreated: (CREATE, INFORMATIONAL),
    notifier.SubscriptionConfirmed: (UPDATE, INFORMATIONAL),
    notifier.SubscriptionChanged: (UPDATE, INFORMATIONAL),
    notifier.SubscriptionPaused: (UPDATE, INFORMATIONAL),
    notifier.SubscriptionResumed: (UPDATE, INFORMATIONAL),
    notifier.SubscriptionRemoved: (DELETE, INFORMATIONAL),
    notifier.TemplatePublished: (UPDATE, LOW),
    notifier.TemplateWithdrawn: (DELETE, INFORMATIONAL),
    notifier.SilenceCreated: (CREATE, LOW),
    notifier.SilenceExpired: (DELETE, INFORMATIONAL),
    notifier.InhibitionCreated: (CREATE, LOW),
    notifier.InhibitionRemoved: (DELETE, INFORMATIONAL),
    notifier.SubscriptionDisabled: (_DISABLE, LOW),
    notifier.SubscriptionEnabled: (UPDATE, LOW),
}
# What is asked for, answered and decided: calls of an API. Everything that is not named is one too.
_CALLS: dict[type[Message], tuple[int, int, int]] = {
    registry.StageRefused: (UPDATE, LOW, FAILURE),
    registry.CommandRejected: (OTHER, LOW, FAILURE),
    approval.VoteRefused: (CREATE, MEDIUM, FAILURE),
    approval.GateWaived: (CREATE, MEDIUM, SUCCESS),
    approval.GlassBroken: (CREATE, HIGH, SUCCESS),
    approval.ReviewOverdue: (UPDATE, HIGH, FAILURE),
    approval.RevocationOrdered: (CREATE, HIGH, SUCCESS),
    approval.ApprovalLapsed: (UPDATE, MEDIUM, FAILURE),
    notifier.SubscriptionFaltered: (OTHER, LOW, FAILURE),
    notifier.SubscriptionReplayed: (OTHER, INFORMATIONAL, SUCCESS),
    notifier.DeliveriesReconciled: (OTHER, INFORMATIONAL, SUCCESS),
    notifier.DeliveryFailed: (OTHER, LOW, FAILURE),
    notifier.DeliveryDenied: (OTHER, LOW, FAILURE),
    notifier.OwnerSeen: (OTHER, INFORMATIONAL, SUCCESS),
    notifier.DeliveryDead: (OTHER, MEDIUM, FAILURE),
    audit.CheckpointPublished: (CREATE, INFORMATIONAL, SUCCESS),
    audit.RetentionPublished: (UPDATE, MEDIUM, SUCCESS),
    audit.HoldPlaced: (CREATE, MEDIUM, SUCCESS),
    audit.HoldReleased: (DELETE, MEDIUM, SUCCESS),
    audit.LogPruned: (DELETE, HIGH, SUCCESS),
    audit.RecordSkipped: (OTHER, MEDIUM, FAILURE),
    audit.SubjectErased: (DELETE, HIGH, SUCCESS),
    audit.SearchRemoved: (DELETE, INFORMATIONAL, SUCCESS),
    audit.SearchAlerted: (READ, MEDIUM, SUCCESS),
}
_CLASSES = {
    ENTITY: ("Entity Management", 3, "Identity & Access Management"),
    ACCESS: ("User Access Management", 3, "Identity & Access Management"),
    LIFECYCLE: ("Application Lifecycle", 6, "Application Activity"),
    API: ("API Activity", 6, "Application Activity"),
}


def ocsf(row: Row, origin: str) -> dict[str, Any]:
    """`origin`: the name of the log. Never raises: a record that cannot be read is an API Activity that failed."""
    said = _said(row)
    name, category, category_name = _CLASSES[said.class_uid]
    fields, envelope = row.fields, row.reading.envelope
    event: dict[str, Any] = {
        "class_uid": said.class_uid,
        "class_name": name,
        "category_uid": category,
        "category_name": category_name,
        "activity_id": said.activity_id,
        "type_uid": said.class_uid * 100 + said.activity_id,
        "severity_id": said.severity_id,
        "status_id": said.status_id,
        "time": _millis(fields["at"] or fields["recorded_at"]),
        "message": fields["summary"] or fields["problem"] or "a record that cannot be read",
        "metadata": {
            "version": VERSION,
            "uid": f"{origin}/{row.stored.index}",
            "sequence": row.stored.index,
            "original_event_uid": fields["event_id"],
            "correlation_uid": fields["correlationid"],
            "event_code": fields["type"],
            "log_name": origin,
            "log_provider": fields["topic"],
            "logged_time": _millis(fields["recorded_at"]),
            "product": {"name": "Hallmark", "vendor_name": "Hallmark", "feature": {"name": "audit"}},
            "tenant_uid": fields["workspace"],
        },
        "raw_data_hash": {
            "algorithm": "RFC 6962 leaf hash (SHA-256 of 0x00 and the leaf)",
            "algorithm_id": 99,
            "value": row.stored.leaf_hash.hex(),
        },
        "raw_data_size": len(row.stored.leaf),
        "unmapped": {"index": row.stored.index, **{name: fields[name] for name in ("subject", "problem", "copy_of")}},
    }
    if envelope is not None and envelope.actor:
        event["actor"] = {"user": {"name": envelope.actor}}
    event |= said.more
    if "ai_model" in event:
        event["metadata"]["profiles"] = ["ai_operation"]
    return {name: _dense(value) for name, value in event.items() if value is not None}


def _said(row: Row) -> Said:
    message, flawed = row.reading.message, row.fields["problem"] is not None
    if message is None or flawed:
        return Said(API, UNKNOWN, MEDIUM, FAILURE, _call(row))
    if type(message) in _ENTITIES:
        activity, severity = _ENTITIES[type(message)]
        return Said(ENTITY, activity, severity, SUCCESS, {"entity": _entity(row, message), **_because(row)})
    if type(message) in _CALLS:
        activity, severity, status = _CALLS[type(message)]
        return Said(API, activity, severity, status, _call(row))
    return _other(row, message)


def _other(row: Row, message: Message) -> Said:
    """What its type alone does not tell, and every other call."""
    more: dict[str, Any]
    match message:
        case registry.ServingReported():
            states = {"loaded": _INSTALL, "serving": _START, "stopped": _STOP}
            severity, status = (MEDIUM, FAILURE) if message.state == "failed" else (INFORMATIONAL, SUCCESS)
            # The class knows no actor: the server says of itself what it has loaded.
            feature = {"name": f"{message.model} at {message.target}", "version": str(message.version)}
            more = {"app": {"name": message.server, "feature": feature}, "actor": None}
            return Said(LIFECYCLE, states.get(message.state, OTHER), severity, status, more)
        case approval.MembershipChanged():
            more = {"user": {"name": message.subject}, "privileges": list(message.groups)}
            return Said(ACCESS, _GRANT, LOW, SUCCESS, more)
        case approval.DelegationGranted() | approval.DelegationEnded():
            granted = isinstance(message, approval.DelegationGranted)
            more = {"user": {"name": message.delegate}, "privileges": [f"vote for {message.delegator}"]}
            return Said(ACCESS, _GRANT if granted else _REVOKE, LOW if granted else INFORMATIONAL, SUCCESS, more)
        case audit.SearchRan():
            severity, status = (INFORMATIONAL, SUCCESS) if message.outcome == "allowed" else (MEDIUM, FAILURE)
            return Said(API, READ, severity, status, _call(row))
        case audit.AccessRecorded():
            severity, status = (INFORMATIONAL, SUCCESS) if message.outcome == "allowed" else (MEDIUM, FAILURE)
            return Said(API, READ, severity, status, {**_call(row), "status_detail": message.query})
    return Said(API, CREATE, INFORMATIONAL, SUCCESS, _call(row))


def _entity(row: Row, message: Message) -> dict[str, Any]:
    fields = row.fields
    kind = message.TYPE.split(".")[1]
    entity: dict[str, Any] = {"type": kind, "type_id": 99, "uid": fields["subject"]}
    if isinstance(message, approval.PolicyPublished):
        policy = {"name": message.policy.name, "version": str(message.policy.revision), "uid": message.policy.digest}
        return {**entity, "type": "Policy", "type_id": 5, "name": message.policy.name, "policy": policy}
    entity["name"] = fields["model"] or fields["workspace"] or fields["subject"]
    if fields["version"] is not None:
        entity["version"] = str(fields["version"])
    moved = {n: getattr(message, n) for n in ("from_stage", "to_stage", "alias", "digest") if hasattr(message, n)}
    return {**entity, "data": {n: str(value) for n, value in moved.items()}} if moved else entity


def _because(row: Row) -> dict[str, Any]:
    return {"comment": row.fields["reason"]} if row.fields["reason"] else {}


def _call(row: Row) -> dict[str, Any]:
    """What an API Activity must have, also of a record that does not tell."""
    fields, envelope = row.fields, row.reading.envelope
    source = envelope.source if envelope is not None else fields["topic"] or "unknown"
    more: dict[str, Any] = {
        "api": {"operation": fields["type"] or "unknown", "service": {"name": source}},
        "src_endpoint": {"svc_name": source},
        "actor": {"user": {"name": fields["actor"]}} if fields["actor"] else {"app_name": source},
    }
    if fields["reason"]:
        more["status_detail"] = fields["reason"]
    if fields["model"] is not None:
        version = None if fields["version"] is None else str(fields["version"])
        more["ai_model"] = {"name": fields["model"], "ai_provider": "Hallmark", "version": version}
    return more


def _millis(at: datetime | None) -> int:
    return 0 if at is None else int(at.timestamp() * 1000)


def _dense(value: Any) -> Any:
    """Without what is not said: OCSF has no null."""
    if isinstance(value, dict):
        return {name: _dense(one) for name, one in value.items() if one is not None}
    return value
