"""Bodies in the formats of other registries, against the samples and the checks that these document."""

import base64
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from contracts.approval import RequestDecided
from contracts.catalog import MESSAGES
from contracts.envelope import Envelope
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
    VersionTagged,
)
from notifier.channels import Parcel
from notifier.channels.formats import TYPES, body_in
from notifier.channels.webhook import WebhookSender
from notifier.retrying import Verdict

AT = datetime(2020, 5, 19, 3, 30, 29, 343000, tzinfo=UTC)  # 1589859029343, of the sample
DIGEST = "sha256:" + "a" * 64
SUBSCRIPTION = "c5596721-253c-4b42-9368-cf6f4341b88a"
MODEL: dict[str, Any] = {"workspace": "default", "model": "Airline_Delay_SparkML"}
VERSION: dict[str, Any] = {**MODEL, "version": 8}
DIGESTS = {"digest": DIGEST, "artifact_digest": DIGEST}
MOVE: dict[str, Any] = {
    **VERSION,
    "transition_id": "t1",
    "kind": "promotion",
    "digest": DIGEST,
    "artifact_digest": DIGEST,
    "from_stage": "Development",
    "to_stage": "Production",
    "requested_by": "ana",
    "reason": "better recall",
}
CONTENT: dict[str, Any] = {
    "artifact": {"digest": DIGEST, "size": 3, "filename": "m.onnx"},
    "lineage": {"run": {"system": "mlflow", "id": "abcd1234abcd5678"}},
    "tags": {"example_key": "example_value"},
    "notes": "An example model version",
}
REGISTERED = VersionRegistered.model_validate({**VERSION, "digest": DIGEST, "content": CONTENT, "registered_by": "ana"})
CHANGED = StageChanged.model_validate({**MOVE, "decision_id": "d1"})
MADE = ModelRegistered(**MODEL, description="An example registered model", tags={"example_key": "example_value"})


def said(message: Message) -> Envelope:
    given: dict[str, Any] = {"source": "hallmark/registry", "subject": "default/Airline_Delay_SparkML/8"}
    return Envelope.of(message, key="default/Airline_Delay_SparkML", sequence=4, time=AT, actor="ana", **given)


def told(format_: Format, message: Message) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(body_in(format_, said(message), SUBSCRIPTION))
    return body


async def sent(format_: Format, message: Message, secret: str) -> httpx2.Request:
    got: list[httpx2.Request] = []

    def receive(request: httpx2.Request) -> httpx2.Response:
        got.append(request)
        return httpx2.Response(200, stream=httpx2.ByteStream(b""))

    parcel = Parcel(
        delivery_id="d1",
        subscription_id=SUBSCRIPTION,
        envelope=said(message),
        address="https://x.example/hook",
        secret=secret,
        format=format_,
    )
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(receive)) as client:
        await WebhookSender(client, clock=lambda: 1_700_000_000).send(parcel)
    return got[0]


# -- Databricks ---------------------------------------------------------------------------------------------------

STAGE_SAMPLE = {
    "event": "MODEL_VERSION_TRANSITIONED_STAGE",
    "webhook_id": "c5596721253c4b429368cf6f4341b88a",
    "event_timestamp": 1589859029343,
    "model_name": "Airline_Delay_SparkML",
    "version": "8",
    "to_stage": "Production",
    "from_stage": "None",
    "text": "Registered model 'Airline_Delay_SparkML' version 8 transitioned from None to Production.",
}
TAG_SAMPLE = {
    "event": "MODEL_VERSION_TAG_SET",
    "webhook_id": "c5596721253c4b429368cf6f4341b88a",
    "event_timestamp": 1589859029343,
    "model_name": "Airline_Delay_SparkML",
    "version": "8",
    "tags": [{"key": "key1", "value": "value1"}, {"key": "key2", "value": "value2"}],
    "text": "ana set version tag(s) 'key1' => 'value1', 'key2' => 'value2' for "
    "registered model 'Airline_Delay_SparkML' version 8.",
}
COMMENT_SAMPLE = {
    "event": "COMMENT_CREATED",
    "webhook_id": "c5596721253c4b429368cf6f4341b88a",
    "event_timestamp": 1589859029343,
    "model_name": "Airline_Delay_SparkML",
    "version": "8",
    "comment": "Raw text content of the comment",
    "text": "ana commented on registered model 'Airline_Delay_SparkML' version 8.",
}


@pytest.mark.parametrize(
    ("message", "sample"),
    [
        (CHANGED, STAGE_SAMPLE),
        (VersionTagged.model_validate({**VERSION, "tags": {"set": {"key2": "value2", "key1": "value1"}}}), TAG_SAMPLE),
        (VersionNoted(**VERSION, text="Raw text content of the comment"), COMMENT_SAMPLE),
    ],
)
def test_databricks_bodies_are_their_documented_samples(message: Message, sample: dict[str, Any]) -> None:
    assert told(Format.DATABRICKS, message) == sample


def test_the_other_databricks_events_have_the_fields_that_all_share() -> None:
    requested = StageRequested.model_validate({**MOVE, "expires_at": AT})
    names = {"event", "webhook_id", "event_timestamp", "model_name", "text"}
    for message, event, more in (
        (MADE, "REGISTERED_MODEL_CREATED", set[str]()),
        (REGISTERED, "MODEL_VERSION_CREATED", {"version"}),
        (requested, "TRANSITION_REQUEST_CREATED", {"version", "to_stage", "from_stage"}),
    ):
        body = told(Format.DATABRICKS, message)
        assert body["event"] == event
        assert set(body) == names | more


@pytest.mark.parametrize("secret", ["anyRandomString!", "whsec_" + "aaaa" * 8])
async def test_the_check_that_databricks_documents_takes_the_signature(secret: str) -> None:
    """Hex HMAC-SHA256 of the body, with the text of the secret as the key."""
    request = await sent(Format.DATABRICKS, CHANGED, secret)
    expected = hmac.new(secret.encode("utf-8"), request.content, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(expected, request.headers["X-Databricks-Signature"])
    assert request.headers["webhook-id"] == "msg_d1"  # receivers can drop repetitions here too


# -- MLflow -------------------------------------------------------------------------------------------------------

MLFLOW = [
    (
        MADE,
        ("registered_model", "created"),
        {
            "name": "Airline_Delay_SparkML",
            "tags": {"example_key": "example_value"},
            "description": "An example registered model",
        },
    ),
    (
        REGISTERED,
        ("model_version", "created"),
        {
            "name": "Airline_Delay_SparkML",
            "version": "8",
            "source": "models:/Airline_Delay_SparkML/8",
            "run_id": "abcd1234abcd5678",
            "tags": {"example_key": "example_value"},
            "description": "An example model version",
        },
    ),
    (
        AliasChanged.model_validate(
            {
                **VERSION,
                "digest": DIGEST,
                "artifact_digest": DIGEST,
                "alias": "champion",
                "requested_by": "a",
                "reason": "r",
            }
        ),
        ("model_version_alias", "created"),
        {"name": "Airline_Delay_SparkML", "alias": "champion", "version": "8"},
    ),
    (
        AliasRemoved(**MODEL, alias="champion", previous=8, requested_by="ana", reason="over"),
        ("model_version_alias", "deleted"),
        {"name": "Airline_Delay_SparkML", "alias": "champion"},
    ),
]


@pytest.mark.parametrize(("message", "event", "data"), MLFLOW)
def test_mlflow_bodies_have_the_fields_of_its_types(
    message: Message, event: tuple[str, str], data: dict[str, Any]
) -> None:
    """The samples of `mlflow/webhooks/types.py`, with our names."""
    body = told(Format.MLFLOW, message)
    assert (body["entity"], body["action"], body["workspace"]) == (*event, "default")
    assert datetime.fromisoformat(body["timestamp"]) == AT
    assert body["data"] == data


async def test_the_check_that_mlflow_documents_takes_the_signature() -> None:
    """`_generate_hmac_signature` of `mlflow/webhooks/delivery.py`, as it is published."""
    secret = "a-shared-secret-of-theirs"
    request = await sent(Format.MLFLOW, REGISTERED, secret)
    delivery, stamp = request.headers["X-MLflow-Delivery-Id"], request.headers["X-MLflow-Timestamp"]
    content = f"{delivery}.{stamp}.{request.content.decode('utf-8')}"
    digest = hmac.new(secret.encode("utf-8"), content.encode("utf-8"), hashlib.sha256).digest()
    assert request.headers["X-MLflow-Signature"] == "v1," + base64.b64encode(digest).decode("utf-8")
    assert stamp == "1700000000"
    assert request.headers["content-type"].startswith("application/json")


# -- SageMaker ----------------------------------------------------------------------------------------------------

ENVELOPE = {"version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"}
# What the documented sample has, or the API reference names for a model package.
DETAIL = {
    "ModelPackageGroupName",
    "ModelPackageVersion",
    "ModelPackageArn",
    "ModelPackageStatus",
    "ModelApprovalStatus",
    "ApprovalDescription",
    "LastModifiedTime",
    "CustomerMetadataProperties",
    "ModelLifeCycle",
}
ARN = re.compile(r"arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]{9,16}:[0-9]{12}:model-package/[\S]{1,2048}")
DECISION = {
    **{name: value for name, value in MOVE.items() if name != "reason"},
    "decision_id": "d1",
    "verdict": "rejected",
    "reason": "Approval criteria not met",
    "policies": [],
    "gates": [],
    "votes": [],
    "inputs_digest": DIGEST,
    "request_digest": DIGEST,
    "decided_at": AT,
    "expires_at": AT,
}


@pytest.mark.parametrize(
    ("message", "status", "stage"),
    [
        (REGISTERED, "PendingManualApproval", None),
        (StageRequested.model_validate({**MOVE, "expires_at": AT}), "PendingManualApproval", "PendingApproval"),
        (CHANGED, "Approved", "Approved"),
        (StageChanged.model_validate(MOVE | {"to_stage": "Archived", "kind": "superseded"}), "Approved", "Approved"),
        (StageChanged.model_validate(MOVE | {"to_stage": "Staging"}), "PendingManualApproval", "Approved"),
        (StageRefused.model_validate({**MOVE, "code": "gate-failed", "detail": "too low"}), "Rejected", "Rejected"),
        (RequestDecided.model_validate({"decision": DECISION, "jws": "x"}), "Rejected", "Rejected"),
    ],
)
def test_sagemaker_events_look_like_their_documented_sample(message: Message, status: str, stage: str | None) -> None:
    body = told(Format.SAGEMAKER, message)
    assert set(body) == ENVELOPE
    assert (body["source"], body["detail-type"]) == ("aws.sagemaker", "SageMaker Model Package State Change")
    detail = body["detail"]
    assert set(detail) <= DETAIL
    assert (detail["ModelPackageGroupName"], detail["ModelPackageVersion"]) == ("Airline-Delay-SparkML", 8)
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", detail["ModelPackageGroupName"])
    assert detail["ModelApprovalStatus"] == status
    assert body["resources"] == [detail["ModelPackageArn"]]
    assert ARN.fullmatch(detail["ModelPackageArn"])
    assert body["time"] == "2020-05-19T03:30:29Z"
    assert detail.get("ModelLifeCycle", {}).get("StageStatus") == stage


# -- Slack, and all of them ---------------------------------------------------------------------------------------


def test_slacks_text_is_escaped() -> None:
    message = StageChanged.model_validate(MOVE | {"reason": "<!channel> & <https://evil|click>"})
    assert told(Format.SLACK, message) == {
        "text": "Airline_Delay_SparkML: v8 is now in Production (was Development). Asked by ana: "
        "'&lt;!channel&gt; &amp; &lt;https://evil|click&gt;'."
    }


@pytest.mark.parametrize("format_", list(TYPES))
def test_a_format_has_a_message_for_the_types_it_says_and_for_no_others(format_: Format) -> None:
    shown = {message.TYPE for message in (MADE, REGISTERED, CHANGED)}
    assert TYPES[format_] <= set(MESSAGES)
    for message in (MADE, REGISTERED, CHANGED):
        if message.TYPE in TYPES[format_]:
            assert told(format_, message)
    assert TYPES[format_] & shown


async def test_a_secret_of_ours_signs_as_ours_too_and_another_does_not() -> None:
    ours = await sent(Format.MLFLOW, REGISTERED, "whsec_" + "aaaa" * 8)
    assert ours.headers["webhook-signature"].startswith("v1,")
    theirs = await sent(Format.MLFLOW, REGISTERED, "a-shared-secret-of-theirs")
    assert theirs.headers["webhook-signature"] == ""


async def test_what_a_format_has_no_message_for_is_given_up_at_once() -> None:
    """However it got there: no repetition would mend it."""
    parcel = Parcel(
        delivery_id="d1",
        subscription_id=SUBSCRIPTION,
        envelope=said(CHANGED),
        address="https://x.example/hook",
        secret="a-shared-secret-of-theirs",
        format=Format.MLFLOW,
    )
    async with httpx2.AsyncClient() as client:
        outcome = await WebhookSender(client).send(parcel)
    assert (outcome.verdict, outcome.detail) == (
        Verdict.REFUSED,
        "mlflow has no message for hallmark.stage.changed.v1",
    )
