"""What happens around requests in a random walk: versions, people, policies and time change."""

from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any

from tests.support.approval_acts import BAD, GOOD_FIELDS, PASSERS, Acts
from tests.support.approval_facts import Asked, Doc, Member, Told
from tests.support.approval_policies import GROUPS, RETIRED, Writer, text
from tests.support.approval_walk import (
    COMMITTERS,
    EVERYBODY,
    METRICS,
    MODELS,
    NTH,
    PEOPLE,
    VERSIONS,
    VOTERS,
    groups_of,
    step_of,
)

from approval.evidence import Attachments, Piece, Version
from approval.files import Files, Place
from contracts.lifecycle import Stage, TransitionKind
from contracts.model import Dataset, Evaluation, Finding, Inspection, Severity
from contracts.registry import (
    AliasChanged,
    ModelUpdated,
    StageChanged,
    StageRefused,
    Tags,
    VersionEvaluated,
    VersionRevoked,
    VersionTagged,
    VersionVerified,
)
from kit.auth import Principal

SETS: list[set[str]] = [set(), set(), *({one} for one in GROUPS), {"reviewers", "risk"}, {"leads", "oncall"}]
BARRED = {"carl", "cem", "max", "bot"}
DIGEST = f"sha256:{'1' * 64}"
EDITORS = ["root", "root", "root", "lea", "rita"]


class Kept(Files):
    """No store: every file was uploaded."""

    def __init__(self) -> None:
        pass

    async def keep(self, place: Place, digest: str, size: int, owner: str) -> None:
        pass


class Events(Acts):
    def register(self) -> None:
        for model in MODELS:
            self.facts.models[model] = {"workspace": "default", "name": model, "tags": {}}
            for version in VERSIONS:
                metrics = METRICS[version]
                work = self.registry.register(model, version, by="carl", committers=COMMITTERS, **metrics)
                self.scene.run(work)
                self.facts.versions[model, version] = {
                    "author": "carl",
                    "committers": COMMITTERS,
                    "metrics": metrics,
                    "tags": {},
                    "evaluations": [],
                    "evidence": [],
                    "stages": [],
                    "unsafe": False,
                    "revoked": False,
                }
        for model in MODELS:
            self._evaluated(model, 1, "may", 0.9, 1, 0)
            if self.random.randrange(3):
                self._in_production(model, 1)

    def _in_production(self, model: str, version: int) -> None:
        """It has been there since before there were policies."""
        transition = self.registry.transition(model, version, Stage.STAGING, Stage.PRODUCTION, TransitionKind.PROMOTION)
        event = StageChanged(**transition.model_dump(), requested_by="ana", reason="test")
        self.scene.run(self.registry.publish(event, model, version))
        self.facts.moved(model, version, "Production")

    # -- what requests rest on ------------------------------------------------------------------------------------

    def _place(self, nth: int) -> tuple[str, int]:
        """A version, rather of an open request."""
        a = self.nth(nth) if nth else None
        if a is None or a.policy is not None:
            return self.random.choice(MODELS), self.random.choice(VERSIONS)
        return a.model, a.version

    @step_of(2, nth=NTH, dataset=["may", "june"], auc=[0.9, 0.9, 0.8], age=[0, 1, 60], offset=[0, 5, -7])
    def evaluate(self, nth: int, **given: Any) -> None:
        self._evaluated(*self._place(nth), **given)

    def _evaluated(self, model: str, version: int, dataset: str, auc: float, age: int, offset: int) -> None:
        at = (self.scene.now() - timedelta(hours=age)).astimezone(timezone(timedelta(hours=offset)))
        evaluation = Evaluation(dataset=Dataset(name=dataset), metrics={"auc": auc}, evaluated_at=at)
        event = VersionEvaluated(workspace="default", model=model, version=version, evaluation=evaluation)
        self.scene.run(self.registry.publish(event, model, version))
        self.facts.versions[model, version]["evaluations"].append({"dataset": dataset, "auc": auc, "at": at})

    @step_of(1, nth=NTH, team=["red", "blue", None])
    def tag_a_version(self, nth: int, team: str | None) -> None:
        model, version = self._place(nth)
        tags = Tags(set={"team": team}) if team else Tags(remove=("team",))
        event = VersionTagged(workspace="default", model=model, version=version, tags=tags)
        self.scene.run(self.registry.publish(event, model, version))
        self.facts.versions[model, version]["tags"] = {"team": team} if team else {}

    @step_of(1, model=MODELS, risk=["high", "low", None])
    def tag_a_model(self, model: str, risk: str | None) -> None:
        tags = Tags(set={"risk": risk}) if risk else Tags(remove=("risk",))
        self.scene.run(self.registry.publish(ModelUpdated(workspace="default", model=model, tags=tags), model))
        self.facts.models[model]["tags"] = {"risk": risk} if risk else {}

    @step_of(2, nth=NTH, unsafe=[True, False, False])
    def inspect(self, nth: int, unsafe: bool) -> None:
        model, version = self._place(nth)
        known = self.registry.versions[model, version]
        found = (Finding(severity=Severity.UNSAFE, code="pickle", detail="it runs code"),) if unsafe else ()
        event = VersionVerified(
            **known.model_dump(include={"workspace", "model", "version", "digest"}),
            artifact_digest=known.content.artifact.digest,
            inspection=Inspection(scanner="test", findings=found),
        )
        self.scene.run(self.registry.publish(event, model, version))
        self.facts.versions[model, version]["unsafe"] = unsafe

    @step_of(
        4,
        nth=NTH,
        kind=["model_card", "ci", "ci"],
        by=["ci", "ci", "ci", "ana"],
        result=["pass", "pass", "pass", "fail", "inconclusive"],
        what=["file", "file", "link"],
    )
    def attach(self, nth: int, **given: Any) -> None:
        self._attached(*self._place(nth), **given)

    def _attached(self, model: str, version: int, kind: str, by: str, result: Any, what: str) -> None:
        """Gates see the latest piece of each type and poster."""
        said, service = result if kind == "ci" else None, by == "ci"
        given: Doc = {"digest": DIGEST, "size": 1} if what == "file" else {"url": "https://example.org/1"}
        principal = Principal(by, frozenset({"ml-engineers"}), "service" if service else "person", 0, "token")
        attachments = Attachments(self.parts.desk, self.parts.commands, Kept())
        piece = Piece(kind, f"a {kind}", result=said, **given)
        attached = self.scene.run(attachments.attach(Version("default", model, version), piece, principal))
        if attached.new:
            facts = self.facts.versions[model, version]
            others = [one for one in facts["evidence"] if (one["type"], one["by"]) != (kind, by)]
            new = {"id": attached.evidence.evidence_id, "type": kind, "result": said, "by": by, "service": service}
            facts["evidence"] = [*others, {**new, "file": what == "file", "link": what == "link"}]

    @step_of(7, well=range(5))
    def carry_out(self, well: int) -> None:
        """What was approved last: mostly the registry does."""
        approved = [a for a in self.facts.asked.values() if a.holds_until is not None and not a.told]
        if not approved:
            return
        a, waiting = approved[-1], [a for a in self.facts.asked.values() if a.status == "open"]
        a.told, given = True, self._transition(a)
        self.touched |= {b.id for b in waiting if (b.model, b.target) == (a.model, a.target)}
        if not well:
            no = StageRefused(**given, code="stage-moved", detail="it is elsewhere")
            self.scene.run(self.registry.publish(no, a.model, a.version))
            return
        if a.kind == "alias":
            names = {"workspace", "model", "version", "digest", "artifact_digest", "requested_by", "reason"}
            names |= {"transition_id"}
            event = AliasChanged(alias=a.target[1:], **{name: given[name] for name in names})
            self.scene.run(self.registry.publish(event, a.model, a.version))
        else:
            self.scene.run(self.registry.publish(StageChanged(**given), a.model, a.version))
        self.facts.moved(a.model, a.version, a.target)
        self.counts["carried out"] += 1
        if self.random.randrange(2) and self._ways_back(a.target):
            self.ask(a.model, a.version, "rollback", a.target, "ana", 240, reason="it is worse", fields={})

    @step_of(4, model=MODELS, fields=[GOOD_FIELDS] * 3 + [{}])
    def promote(self, model: str, fields: dict[str, str]) -> None:
        """All the way, where another version is: so that there is a way back."""
        known = len(self.facts.asked)
        self.ask(model, 2, "promotion", "Production", "ana", 240, reason="better on every slice", fields=fields)
        if len(self.facts.asked) > known:
            self.bring_on(list(self.facts.asked.values())[-1])
            self.compare()
            self.carry_out(well=1)

    @step_of(1, nth=NTH)
    def cancel(self, nth: int) -> None:
        a = self.nth(nth)
        if a is not None and a.policy is None:
            event = StageRefused(**self._transition(a), code="cancelled", detail="not any more")
            self.scene.run(self.registry.publish(event, a.model, a.version))

    def _transition(self, a: Asked) -> Doc:
        transition = self.registry.transition(a.model, a.version, Stage.STAGING, Stage.STAGING, TransitionKind(a.kind))
        given = {**transition.model_dump(), "transition_id": a.id, "to_stage": a.target}
        return {**given, "requested_by": a.by, "reason": a.reason}

    @step_of(1, nth=NTH, sure=NTH)
    def revoke(self, nth: int, sure: int) -> None:
        model, version = self._place(nth)
        if sure or self.facts.versions[model, version]["revoked"]:
            return
        work = self.parts.revocations.revoke("default", model, version, by="otto", reason="it leaks")
        ordered = self.scene.run(work)
        names = {"workspace", "model", "version", "digest", "revoked_by", "reason"}
        event = VersionRevoked(**ordered.revocation.model_dump(include=names), revocation=ordered.jws)
        self.scene.run(self.registry.publish(event, model, version))
        self.facts.versions[model, version]["revoked"] = True

    # -- people ---------------------------------------------------------------------------------------------------

    @step_of(3, who=EVERYBODY, groups=SETS, odd=range(6))
    def the_directory_tells(self, who: str, groups: set[str], odd: int) -> None:
        now_in, person = frozenset(groups) or groups_of(who), who != "bot" and odd != 1
        self.scene.refused(self.parts.directory.tell(who, now_in, person=person, by="the directory"))
        told = Told(now_in, person, self.scene.result.told.at)
        self.facts.members[who] = replace(self.facts.members.get(who, Member()), directory=told)
        if odd > 2:
            self.tokens[who] = now_in

    @step_of(4, nth=NTH, groups=SETS, odd=range(6), then=[True, False])
    def somebody_leaves_who_has_acted(self, nth: int, groups: set[str], odd: int, then: bool) -> None:
        if a := self.aimed(nth, lambda a: a.votes or a.waivers or a.glass):
            acted = {name for vote in a.votes for name in (vote.who, vote.whose)} | {waiver.by for waiver in a.waivers}
            acted |= {a.glass.by} if a.glass else set()
            if acted:
                self.the_directory_tells(self.random.choice(sorted(acted)), groups or {"ml-engineers"}, odd)
                if then:
                    self.bring_on(a)

    @step_of(3, nth=NTH, who=VOTERS, groups=SETS)
    def vote_with_a_token_from_before(self, nth: int, who: str, groups: set[str]) -> None:
        self.the_directory_tells(who, groups, odd=0)
        if (a := self.nth(nth)) is not None:
            self.cast(a, self.actor(who, minutes=10))

    @step_of(2, who=EVERYBODY, groups=SETS)
    def a_new_token(self, who: str, groups: set[str]) -> None:
        self.tokens[who] = frozenset(groups) or groups_of(who)

    @step_of(
        2, delegator=[*VOTERS, "cem"], delegate=["dora"] * 5 + ["ben", "ana", "bot"], starts=[0, 0, 3], days=[1, 7, 30]
    )
    def delegate(self, delegator: str, delegate: str, starts: int, days: int) -> None:
        self.lend(delegator, delegate, timedelta(hours=starts), timedelta(days=days))

    @step_of(1, nth=NTH)
    def end_a_delegation(self, nth: int) -> None:
        if self.facts.delegations:
            found = sorted(self.facts.delegations)[-1 - nth % len(self.facts.delegations)]
            self.scene.run(self.parts.directory.end(found, "root", anybodys=True))
            del self.facts.delegations[found]

    # -- policies -------------------------------------------------------------------------------------------------

    @step_of(4, name=["one", "one", "two", "three"], leave=NTH, gentle=[True, True, False], by=EDITORS)
    def edit_a_policy(self, name: str, leave: int, gentle: bool, by: str) -> None:
        spec = Writer(self.random, gentle=gentle).spec(wide=name == "one")
        retired = name != "one" and self.random.randrange(2)
        self.publish(name, RETIRED if retired else spec, by=by, agreed=leave != 3)

    @step_of(1, count=[1, 2], wait=[None, "30m"], strict=[True, False], by=EDITORS)
    def edit_the_policy_about_policies(self, count: int, wait: str | None, strict: bool, by: str) -> None:
        rules = [{"id": "agree", "meaning": "I agree", "from": ["group:admins"], "count": count}]
        approvals: Doc = {"rules": rules}
        if strict:
            approvals["separation_of_duties"] = {"exclude": ["requester", "version.author", "policy.last_editor"]}
        spec = {"match": {"transition": {"kind": "policy"}}, "approvals": approvals}
        self.publish("policy-changes", {**spec, "schedule": {"min_wait": wait}} if wait else spec, by=by)

    def publish(self, name: str, spec: Doc, *, by: str = "root", agreed: bool = True) -> None:
        document = text(name, spec, self.scene.now())
        if self.scene.refused(self.parts.revisions.propose(document, by, "we learnt")) is not None:
            return
        request = self.scene.result.request
        if request is None or request.request_id in self.facts.asked:
            return
        to, origin = request.inputs["request"]["to"], request.inputs["request"]["from"]
        until = request.opened_at + timedelta(days=30)
        given = {"reason": "we learnt", "fields": {}, "policy": document}
        a = self.asked(request.request_id, "policy", name, 0, origin, to, by, until, **given)
        if agreed:
            self.cast(a, self.actor("vera"))
            self.compare()

    # -- time -----------------------------------------------------------------------------------------------------

    @step_of(7, minutes=[1, 10, 45, 200, 400, 1500, 4000])
    def jump(self, minutes: int) -> None:
        self.direct.clock.ahead += timedelta(minutes=minutes)
        self.sweep()

    @step_of(3)
    def sweep(self) -> None:
        """Time leaves nothing open that is to be decided."""
        self.scene.since = self.scene.now()
        self.scene.run(self.direct.sweep())
        self.touched |= {a.id for a in self.facts.asked.values() if a.status == "open"}
        self.compare()
        for a in self.facts.asked.values():
            if a.status == "approved":
                assert a.overdue or not self.review_is_overdue(a), self.shown(a, "nobody is told of the review")

    @step_of(12, nth=NTH, short=[0, 0, 1, 1, 2], then=[None] * 6 + [30, 400, 1500])
    def help(self, nth: int, short: int, then: int | None) -> None:
        if a := self.nth(nth):
            self.bring_on(a, short)
            if then is not None:
                self.jump(then)

    def bring_on(self, a: Asked, short: int = 0) -> None:
        """What a request waits for, or almost: random steps alone seldom go the whole way."""
        self._let_pass(a)
        self.compare()
        rules = [(key, groups, count) for key, (groups, count) in self.facts.rules(a).items()]
        rules[-1:] = [(key, groups, max(count - short, 0)) for key, groups, count in rules[-1:]]
        for key, groups, count in rules:
            heard = {name for vote in a.votes for name in (vote.who, vote.whose)}
            able = [
                who
                for who in PEOPLE
                if self.tokens[who] & groups and who not in {*heard, a.by, "carl", "cem", "max", "bot"}
            ]
            for who in able[:count]:
                if a.status == "open":
                    self.cast(a, self.actor(who), rule=key)
                    self.compare()

    def _let_pass(self, a: Asked) -> None:
        version = self.facts.inputs(a)["candidate"]
        if version is not None and any("evidence" in spec.get("request", {}) for _, spec in self.facts.docs(a)):
            self._attached(a.model, a.version, "model_card", "ci", None, "file")
        for gate in list(self.facts.gates(a, self.scene.now())):
            self.compare()
            able = [who for who in PASSERS if all(self.tokens[who] & one for one in gate.passers)]
            if gate.blocks and gate.result == "pending":
                self.answered(a, "pass")
                self.compare()
                self._attached(a.model, a.version, "ci", "ci", "pass", "file")
            elif gate.blocks and gate.result in BAD and gate.passers and able:
                self.let_pass(a, gate.id, self.actor(able[0]))
