"""What rules are for: who may change them, who answers for a check that cannot tell, and how a version is revoked."""

import json
import time
from pathlib import Path

from embedded.demo.server import Server
from embedded.demo.story import MODEL, WAIT, Story, details
from embedded.demo.tell import Unexpected
from hallmark import HallmarkError, VersionRevoked
from hallmark.approval_results import PolicyChange
from hallmark.decisions import verify_record

CHECK = "bias-check"
POLICY = """\
kind: PromotionPolicy
metadata: {{name: {name}}}
spec:
  match: {{transition: {{to: Production}}, workspaces: [{name}]}}
  gates:
    - id: fair
      attestation: {{type: bias-check, from: ['user:ci']}}
      asks: ['group:risk']  # who may let it pass when the check cannot tell
"""


def rules(story: Story) -> None:
    """A policy more, asked for by one administrator and agreed to by another."""
    tell, cast = story.tell, story.cast
    tell.chapter("Change the rules, under the rules in force")
    document = POLICY.format(name=story.workspace)
    change = cast.root.publish_policy(document, "the clinic wants every model checked for bias")
    for line in document.strip().splitlines():
        tell.say(f"| {line}", "dim")
    tell.expect(
        not change.published and change.status == "open",
        "root, an administrator, asks for this policy: it is not in force, somebody else must agree",
        change.status,
    )
    _own_change_refused(story, change)
    assert change.request_id is not None
    done = cast.ada.approve(change.request_id, "agreed with the clinic")
    found = cast.ana.policies(story.workspace)
    tell.expect(
        done.status == "approved" and [one.revision for one in found] == [1],
        "ada, another administrator, agrees: revision 1 is in force, and applies beside the one for Production",
        done.status,
    )


def waive(story: Story, server: Server, work: Path) -> None:
    """A check that cannot tell asks a person, who signs for it."""
    tell, cast, careful = story.tell, story.cast, story.trained["careful"]
    tell.chapter("A check that cannot tell: a person answers for it")
    version = cast.ana.register(MODEL, careful.file, **details(careful)).version
    tell.say(f"v{version} is {careful.about}")
    report = work / "bias-check.json"
    report.write_text(json.dumps({"version": version, "groups": {"under 30": {"patients": 12}}}))
    found = cast.ci.attach_evidence(
        MODEL, version, CHECK, "12 patients under 30 are too few to tell", file=report, result="inconclusive"
    )
    digest = (found.digest or "").removeprefix("sha256:")
    tell.say(f"ci attaches its report, kept by its SHA-256 {digest[:10]}...: “{found.title}” [{found.result}]")
    cast.ana.request_stage(MODEL, version, "Staging", "no false alarm on held-out rows", wait=WAIT)
    asked = cast.ana.request_stage(
        MODEL, version, "Production", "no false alarm on held-out rows", fields={"rollback_to": "1"}
    )
    request = cast.ben.request(asked.transition_id, wait=WAIT)
    story.show_gates(request.gates)
    gate = f"{story.workspace}/fair"
    tell.expect(
        request.phase == "gates" and (gate, "inconclusive") in [(g.gate, g.result) for g in request.gates],
        "the request waits at that gate; reviewers are not asked before it passes",
        (request.phase, request.waits_for),
    )
    reason = "the clinic treats nobody under 30"
    waived = cast.rita.waive(asked.transition_id, gate, reason)
    tell.expect(
        waived.phase == "people" and (gate, "waived") in [(g.gate, g.result) for g in waived.gates],
        f"rita, a risk officer, lets it pass and signs for it (“{reason}”): now a reviewer is asked",
        (waived.phase, waived.waits_for),
    )
    story.approve(asked, "no false alarms, the risk is understood")
    story.moments.append(story.now(version))
    judged = verify_record(cast.aud.decision_record(asked.transition_id), cast.aud.decision_keys())
    tell.expect(
        judged.verified,
        f"the decision, judged again from its record alone ({len(judged.checks)} checks), comes out the same",
        judged.checks,
    )
    story.served(server, 4, version)


def revoke(story: Story, server: Server) -> None:
    """A version that nobody may use any more leaves at once."""
    tell, cast = story.tell, story.cast
    tell.chapter("Revoke a version: nobody may use it any more")
    version = cast.ana.resolve(MODEL).version
    reason = "14 of the biopsies it was trained on were labelled wrongly"
    began = time.monotonic()
    order = cast.olga.revoke_version(MODEL, version, reason).revocation
    tell.say(f"olga, operator: “{reason}”")
    tell.expect(
        (order.version, order.fallback) == (version, 1),
        f"the order is signed; its stage returns to v{order.fallback}, which was approved with v{version} for that",
        (order.version, order.fallback),
    )
    tell.expect(server.stopped(version), f"the serving process was told, and stopped using v{version}", server.heard)
    story.served(server, 5, 1)
    tell.say(f"from the order to the first prediction with v1: {time.monotonic() - began:.1f} s", "dim")
    story.moments.append(story.now(1))
    try:
        cast.ana.resolve(MODEL, version=version)
    except VersionRevoked as error:
        tell.expect(error.reason == reason, f"whoever asks for it is told: “{error.detail}”", error.reason)
    else:
        raise Unexpected(f"v{version} was revoked and is still handed out")
    last = server.end()
    tell.expect(
        last.get("failures") == 0 and last["predictions"] > 0,
        f"the serving process made {last['predictions']} predictions through four swaps, none failed",
        last,
    )


def _own_change_refused(story: Story, change: PolicyChange) -> None:
    assert change.request_id is not None
    try:
        story.cast.root.approve(change.request_id, "I know what I am doing")
    except HallmarkError as error:
        story.tell.expect(error.refused, f"root's own vote is refused: “{error.detail}” [{error.code}]", error)
    else:
        raise Unexpected("root could vote for a change of the rules that root asked for")
