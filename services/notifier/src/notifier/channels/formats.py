"""Events as the webhooks of other registries tell them, for software that was written for these. Pure.

Sources: Databricks, "Workspace Model Registry webhooks", example payloads; MLflow 3.17, `mlflow/webhooks/types.py` and
`delivery.py`; AWS, "Events that Amazon SageMaker AI sends to Amazon EventBridge", model package state change; Slack,
incoming webhooks. What they have no message for is not sent in their format.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from contracts.approval import Decision, RequestDecided, Verdict
from contracts.catalog import MESSAGES
from contracts.envelope import Envelope
from contracts.lifecycle import Stage, TransitionKind
from contracts.notifier import Format
from contracts.payload import Message
from contracts.registry import (
    AliasChanged,
    AliasRemoved,
    ModelRegistered,
    StageChanged,
    StageRefused,
    StageRequested,
    VersionNoted,
    VersionRegistered,
    VersionRevoked,
    VersionTagged,
)
from notifier.channels.render import Renderer, clipped
from notifier.wording import notice

Body = dict[str, Any]
# Events that a format has a message for; a format that is not here has one for all.
TYPES: dict[Format, frozenset[str]] = {
    Format.DATABRICKS: frozenset(
        kind.TYPE
        for kind in (ModelRegistered, VersionRegistered, StageChanged, StageRequested, VersionTagged, VersionNoted)
    ),
    # MLflow has a message per tag, and an event of ours may change several: tags are left out.
    Format.MLFLOW: frozenset(kind.TYPE for kind in (ModelRegistered, VersionRegistered, AliasChanged, AliasRemoved)),
    Format.SAGEMAKER: frozenset(
        kind.TYPE
        for kind in (VersionRegistered, StageRequested, StageChanged, StageRefused, RequestDecided, VersionRevoked)
    ),
}
# The formats whose signature is made with the text of the secret as it is.
PLAIN_SECRETS = frozenset({Format.DATABRICKS, Format.MLFLOW})
SLACK_TEXT = 3_000
REGION, ACCOUNT = "hallmark-1", "0" * 12  # what an ARN needs, and what no account of AWS has


def body_in(format_: Format, envelope: Envelope, subscription_id: str, text: str | None = None) -> bytes:
    """The body, the same for every try. `text` is what a template has made of the event, for Slack's format.

    Raises:
        ValueError: the format has no message for the event.
    """
    if format_ is Format.SLACK:
        return _json({"text": clipped(text or Renderer.escape(notice(envelope).summary), SLACK_TEXT)})
    event = envelope.payload(MESSAGES[envelope.type])
    match format_:
        case Format.DATABRICKS:
            return _json(_databricks(event, envelope, subscription_id))
        case Format.MLFLOW:
            return _json(_mlflow(event, envelope))
        case Format.SAGEMAKER:
            return _json(_sagemaker(event, envelope))
    raise ValueError(f"{format_} is no format of another registry")


def headers_in(format_: Format, secret: str, message_id: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """What receivers of the format look at beside the body. `timestamp` is in Unix seconds."""
    key = secret.encode()
    match format_:
        case Format.DATABRICKS:
            return {"x-databricks-signature": hmac.new(key, body, hashlib.sha256).hexdigest()}
        case Format.MLFLOW:
            content = f"{message_id}.{timestamp}.".encode() + body
            signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
            return {
                "x-mlflow-delivery-id": message_id,
                "x-mlflow-timestamp": str(timestamp),
                "x-mlflow-signature": f"v1,{signature}",
            }
    return {}


def _json(document: Body) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


def _stage(name: str) -> str:
    """As other registries call it."""
    return "None" if name == Stage.DEVELOPMENT else name


# -- Databricks ---------------------------------------------------------------------------------------------------


def _databricks(event: Message, envelope: Envelope, subscription_id: str) -> Body:
    name, more = _databricks_event(event, envelope)
    return {
        "event": name,
        "webhook_id": UUID(subscription_id).hex,
        "event_timestamp": int(envelope.time.timestamp() * 1000),
        "model_name": getattr(event, "model"),  # noqa: B009  # of every one of TYPES
        **more,
    }


def _databricks_event(event: Message, envelope: Envelope) -> tuple[str, Body]:
    if isinstance(event, ModelRegistered):
        return "REGISTERED_MODEL_CREATED", {"text": f"{envelope.actor} created the registered model '{event.model}'."}
    assert isinstance(event, VersionRegistered | StageChanged | StageRequested | VersionTagged | VersionNoted), (
        f"no message for {envelope.type}"
    )
    about = f"registered model '{event.model}' version {event.version}"
    version: Body = {"version": str(event.version)}
    match event:
        case VersionRegistered():
            return "MODEL_VERSION_CREATED", {**version, "text": f"{event.registered_by} created {about}."}
        case StageChanged():
            stages = {"to_stage": _stage(event.to_stage), "from_stage": _stage(event.from_stage)}
            text = f"Registered model '{event.model}' version {event.version} transitioned from "
            text += f"{stages['from_stage']} to {stages['to_stage']}."
            return "MODEL_VERSION_TRANSITIONED_STAGE", {**version, **stages, "text": text}
        case StageRequested():
            stages = {"to_stage": _stage(event.to_stage), "from_stage": _stage(event.from_stage)}
            text = f"{event.requested_by} requested that {about} transition to {stages['to_stage']}."
            return "TRANSITION_REQUEST_CREATED", {**version, **stages, "text": text}
        case VersionTagged():
            tags = [{"key": key, "value": value} for key, value in sorted(event.tags.set.items())]
            told = ", ".join(f"'{tag['key']}' => '{tag['value']}'" for tag in tags)
            text = f"{envelope.actor} set version tag(s) {told or 'none'} for {about}."
            return "MODEL_VERSION_TAG_SET", {**version, "tags": tags, "text": text}
        case VersionNoted():
            return "COMMENT_CREATED", {
                **version,
                "comment": event.text,
                "text": f"{envelope.actor} commented on {about}.",
            }


# -- MLflow -------------------------------------------------------------------------------------------------------


def _mlflow(event: Message, envelope: Envelope) -> Body:
    entity, action, data = _mlflow_event(event)
    return {
        "entity": entity,
        "action": action,
        "timestamp": envelope.time.isoformat(),
        "data": data,
        "workspace": envelope.subject.partition("/")[0],
    }


def _mlflow_event(event: Message) -> tuple[str, str, Body]:
    match event:
        case ModelRegistered():
            return (
                "registered_model",
                "created",
                {"name": event.model, "tags": event.tags, "description": event.description or None},
            )
        case VersionRegistered():
            content = event.content
            run = content.lineage.run
            data = {
                "name": event.model,
                "version": str(event.version),
                "source": f"models:/{event.model}/{event.version}",
                "run_id": run.id if run and run.system == "mlflow" else None,
                "tags": content.tags,
                "description": content.notes or None,
            }
            return "model_version", "created", data
        case AliasChanged():
            data = {"name": event.model, "alias": event.alias, "version": str(event.version)}
            return "model_version_alias", "created", data
        case AliasRemoved():
            return "model_version_alias", "deleted", {"name": event.model, "alias": event.alias}
    raise ValueError(f"MLflow has no message for {event.TYPE}")


# -- SageMaker ----------------------------------------------------------------------------------------------------


def _sagemaker(event: Message, envelope: Envelope) -> Body:
    of: Any = event.decision if isinstance(event, RequestDecided) else event
    status, why = _approval(event)
    # What a name of a group may have: letters, digits and hyphens, 63 at most.
    group = re.sub(r"[^A-Za-z0-9]+", "-", of.model).strip("-")[:63].strip("-") or "model"
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/{group}/{of.version}"
    at = envelope.time.strftime("%Y-%m-%dT%H:%M:%SZ")
    detail: Body = {
        "ModelPackageGroupName": group,
        "ModelPackageVersion": of.version,
        "ModelPackageArn": arn,
        "ModelPackageStatus": "Completed",
        "ModelApprovalStatus": status,
        "LastModifiedTime": at,
        "CustomerMetadataProperties": {"hallmark.model": f"{of.workspace}/{of.model}", "hallmark.digest": of.digest},
    }
    if why:
        detail["ApprovalDescription"] = why[:1024]
    if not isinstance(event, VersionRegistered | VersionRevoked):
        stage = of.to_stage
        detail["ModelLifeCycle"] = {"Stage": stage, "StageStatus": _stage_status(event), "StageDescription": why[:1024]}
    return {
        "version": "0",
        "id": envelope.id,
        "detail-type": "SageMaker Model Package State Change",
        "source": "aws.sagemaker",
        "account": ACCOUNT,
        "time": at,
        "region": REGION,
        "resources": [arn],
        "detail": detail,
    }


def _approval(event: Message) -> tuple[str, str]:
    """The `ModelApprovalStatus`, and why. What is in a stage that no decision guards waits for approval still."""
    match event:
        case StageChanged():
            kept = event.decision_id or event.kind in (TransitionKind.SUPERSEDED, TransitionKind.ROLLBACK)
            return ("Approved" if kept else "PendingManualApproval"), event.reason
        case StageRequested():
            return "PendingManualApproval", event.reason
        case StageRefused():
            return "Rejected", event.detail
        case RequestDecided():
            return ("Approved" if _approved(event.decision) else "Rejected"), event.decision.reason
        case VersionRevoked():
            return "Rejected", event.reason
    return "PendingManualApproval", ""


def _approved(decision: Decision) -> bool:
    return decision.verdict is Verdict.APPROVED


def _stage_status(event: Message) -> str:
    match event:
        case StageChanged():
            return "Approved"
        case StageRefused():
            return "Rejected"
        case RequestDecided():
            return "Approved" if _approved(event.decision) else "Rejected"
    return "PendingApproval"
