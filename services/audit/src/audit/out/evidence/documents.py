"""The files for machines: CycloneDX ML-BOM, in-toto Statement, tlog-proofs, checksums. Pure."""

import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalContact
from cyclonedx.output.json import JsonV1Dot6

from audit.out.evidence.dossier import Dossier
from audit.out.rows import plain
from contracts.model import Artifact, VersionContent

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://hallmark.example/attestation/model-version/v1"


def tlog_proof(index: int, path: Sequence[bytes], note: str) -> str:
    """C2SP tlog-proof: the index, the audit path and the checkpoint it leads to."""
    hashes = "".join(f"{b64encode(node).decode()}\n" for node in path)
    return f"c2sp.org/tlog-proof@v1\nindex {index}\n{hashes}\n{note}"


def consistency(first: int, path: Sequence[bytes], note: str) -> str:
    """C2SP tlog-witness, the body of add-checkpoint: the old size, the consistency proof, the checkpoint."""
    hashes = "".join(f"{b64encode(node).decode()}\n" for node in path)
    return f"old {first}\n{hashes}\n{note}"


def checksums(artifact: Artifact) -> str:
    """As `sha256sum --check` reads it. Paths hold neither backslash nor control characters."""
    return "".join(f"{_hex(part.digest)}  {part.path}\n" for part in artifact.parts())


def statement(of: Dossier) -> dict[str, Any] | None:
    """The in-toto Statement about the artifact's files, or None when none is registered."""
    if of.registered is None:
        return None
    artifact = of.registered.content.artifact
    subject: list[dict[str, Any]] = [
        {"name": part.path, "digest": {"sha256": _hex(part.digest)}} for part in artifact.parts()
    ]
    if artifact.external:  # nobody has seen its bytes: under a name of its own, so that no tool takes it for theirs
        subject = [{"name": artifact.filename, "digest": {"hallmark.address": _hex(artifact.digest)}}]
    return {
        "_type": STATEMENT,
        "subject": subject,
        "predicateType": PREDICATE,
        "predicate": {
            "workspace": of.workspace,
            "model": of.model,
            "version": of.version,
            "versionDigest": of.registered.digest,
            "artifactDigest": of.registered.content.artifact.digest,
            "registeredBy": of.registered.registered_by,
            "revoked": of.revoked is not None,
            "decisions": [_decision(one.record, ok=one.judgement.ok) for one in of.decisions],
            "entries": [row.stored.index for row in of.rows],
        },
    }


def _decision(record: Any, *, ok: bool) -> dict[str, Any]:
    said = record.get("decision") or {}
    names = ("decision_id", "verdict", "from_stage", "to_stage", "decided_at", "requested_by")
    return {"verified": ok, **{name: said.get(name) for name in names}}


def ml_bom(of: Dossier) -> bytes | None:
    """CycloneDX 1.6 JSON with a machine-learning-model component and its model card, or None without registration.

    The library has no model card: it is put in afterwards, and tests hold the whole against the library's schema.
    """
    if of.registered is None:
        return None
    content = of.registered.content
    model = Component(
        name=of.model,
        version=str(of.version),
        group=of.workspace,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        description=of.described.description if of.described and of.described.description else None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=_hex(content.artifact.digest))]
        if not content.artifact.external
        else [],
        authors=[OrganizationalContact(name=content.owner)] if content.owner else [],
        properties=_properties(of),
        components=[
            Component(
                name=part.path,
                type=ComponentType.FILE,
                bom_ref=f"file-{n}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=_hex(part.digest))],
            )
            for n, part in enumerate(content.artifact.parts())
        ],
    )
    packages = [
        Component(name=name, version=version, type=ComponentType.LIBRARY, bom_ref=f"package-{n}")
        for n, (name, version) in enumerate(sorted(content.environment.packages.items()))
    ]
    data = [
        Component(name=one.name, version=one.version, type=ComponentType.DATA, bom_ref=f"data-{n}")
        for n, one in enumerate(content.lineage.datasets)
    ]
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, f"{of.name}@{of.registered.digest}"), components=[*packages, *data])
    bom.metadata.component = model
    bom.register_dependency(model, [*packages, *data])
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    # The library stamps the time of the call: the bundle of one state has the same bytes whenever it is made.
    document["metadata"]["timestamp"] = plain(of.rows[-1].fields["recorded_at"])
    document["metadata"]["component"]["modelCard"] = _card(of, content)
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _properties(of: Dossier) -> list[Property]:
    assert of.registered is not None
    facts = {"hallmark:digest": of.registered.digest, "hallmark:registered_by": of.registered.registered_by}
    facts |= {f"hallmark:parameter:{k}": json.dumps(v) for k, v in of.registered.content.parameters.items()}
    facts |= {f"hallmark:tag:{k}": v for k, v in of.registered.content.tags.items()}
    facts["hallmark:media_type"] = of.registered.content.artifact.media_type
    lineage = of.registered.content.lineage
    facts |= {"hallmark:git_commit": lineage.git_commit} if lineage.git_commit else {}
    return [Property(name=name, value=value) for name, value in sorted(facts.items())]


def _card(of: Dossier, content: VersionContent) -> dict[str, Any]:
    metrics = [{"type": name, "value": repr(value)} for name, value in sorted(content.metrics.items())]
    for event in of.evaluations:
        slice_ = event.evaluation.dataset.name
        measured = sorted(event.evaluation.metrics.items())
        metrics += [{"type": name, "value": repr(value), "slice": slice_} for name, value in measured]
    schema = content.signature
    parameters: dict[str, Any] = {
        "datasets": [{"ref": f"data-{n}"} for n, _ in enumerate(content.lineage.datasets)],
        "inputs": [{"format": f"{c.name}: {c.dtype}"} for c in schema.inputs],
        "outputs": [{"format": f"{c.name}: {c.dtype}"} for c in schema.outputs],
    }
    card: dict[str, Any] = {
        "bom-ref": "model-card",
        "modelParameters": {name: value for name, value in parameters.items() if value},
        "quantitativeAnalysis": {"performanceMetrics": metrics} if metrics else {},
        "considerations": {"technicalLimitations": [content.notes]} if content.notes else {},
    }
    return {name: value for name, value in card.items() if value}


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
