"""The registry's catalogue: models and their names, what is appended to versions, aliases, search, rules."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

from pydantic import ValidationError

from contracts.envelope import explain
from contracts.model import Dataset, Evaluation
from hallmark.connection import Connection, read
from hallmark.errors import HallmarkError
from hallmark.results import Alias, AliasMove, FoundModel, FoundVersion, Model, Remark, Transition, Version, Workspace


class Catalogue(Connection):
    """Every method raises `HallmarkError`."""

    # -- models --------------------------------------------------------------------------------------------------

    def create_model(
        self, model: str, *, description: str = "", owner: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Model:
        """Makes an empty model. `register` does so by itself; this adds a description, an owner and tags."""
        body = {"name": model, "description": description, "owner": owner, "tags": dict(tags or {})}
        return read(Model, self._post("registry", "/v1/models", body))

    def models(self, *, deleted: bool = False) -> Iterator[Model]:
        """Every model of the workspace; with `deleted` those that were deleted instead."""
        return self._pages("registry", "/v1/models", Model, deleted=deleted)

    def model(self, model: str) -> Model:
        """By its present name or any former one."""
        return read(Model, self._get("registry", of(model)))

    def update_model(
        self,
        model: str,
        *,
        description: str | None = None,
        owner: str | None = None,
        set_tags: Mapping[str, str] | None = None,
        remove_tags: Sequence[str] = (),
    ) -> Model:
        """Changes what is given, and nothing else."""
        body = {"description": description, "owner": owner, "tags": _tags(set_tags, remove_tags)}
        return read(Model, self._patch("registry", of(model), body))

    def rename_model(self, model: str, name: str) -> Model:
        """Gives it another name. Every former name still leads to it, and nobody else can take one."""
        return read(Model, self._post("registry", f"{of(model)}/rename", {"name": name}))

    def delete_model(self, model: str, reason: str) -> Model:
        """Puts it out of sight; nothing is erased. Refused while a version is in Production."""
        return read(Model, self._post("registry", f"{of(model)}/delete", {"reason": reason}))

    def restore_model(self, model: str, reason: str) -> Model:
        return read(Model, self._post("registry", f"{of(model)}/restore", {"reason": reason}))

    # -- versions ------------------------------------------------------------------------------------------------

    def describe_version(self, model: str, version: int, description: str) -> Version:
        """Changes what is said of it; the notes of its registration stay."""
        return read(Version, self._patch("registry", f"{of(model)}/versions/{version}", {"description": description}))

    def delete_version(self, model: str, version: int, reason: str) -> Version:
        """Puts it out of sight; nothing is erased. It leaves stage and aliases; refused while it is in Production."""
        return read(Version, self._post("registry", f"{of(model)}/versions/{version}/delete", {"reason": reason}))

    def restore_version(self, model: str, version: int, reason: str) -> Version:
        """Brings it back, without its aliases."""
        return read(Version, self._post("registry", f"{of(model)}/versions/{version}/restore", {"reason": reason}))

    # -- what is appended to a version ---------------------------------------------------------------------------

    def evaluate(
        self,
        model: str,
        version: int,
        dataset: str | Dataset,
        metrics: Mapping[str, float],
        *,
        at: datetime | None = None,
        notes: str = "",
    ) -> Version:
        """Appends metrics measured on a data set (its name, or a `Dataset` with version and digest)."""
        try:
            evaluation = Evaluation(
                dataset=dataset if isinstance(dataset, Dataset) else Dataset(name=dataset),
                metrics=dict(metrics),
                evaluated_at=at or datetime.now(UTC),
                notes=notes,
            )
        except ValidationError as error:
            raise HallmarkError("invalid-content", explain(error)) from error
        path = f"{of(model)}/versions/{version}/evaluations"
        return read(Version, self._post("registry", path, evaluation.model_dump(mode="json")))

    def tag(
        self, model: str, version: int, set_tags: Mapping[str, str] | None = None, *, remove: Sequence[str] = ()
    ) -> Version:
        body = _tags(set_tags, remove) or {"set": {}}
        return read(Version, self._patch("registry", f"{of(model)}/versions/{version}/tags", body))

    def note(self, model: str, version: int, text: str) -> Version:
        return read(Version, self._post("registry", f"{of(model)}/versions/{version}/notes", {"text": text}))

    def remarks(
        self, model: str, version: int, kind: Literal["evaluation", "note", "scan"] | None = None
    ) -> Iterator[Remark]:
        """Evaluations, notes and scans, oldest first."""
        return self._pages("registry", f"{of(model)}/versions/{version}/remarks", Remark, kind=kind)

    # -- transitions ---------------------------------------------------------------------------------------------

    def transitions(self, model: str, *, status: str | None = None) -> Iterator[Transition]:
        """Oldest first; `status` open, applied, refused, expired or cancelled."""
        return self._pages("registry", f"{of(model)}/transitions", Transition, status=status)

    def cancel(self, transition_id: str, reason: str) -> Transition:
        """Takes an open transition back: its requester may, and operators."""
        path = f"/v1/transitions/{quote(transition_id, safe='')}/cancel"
        return read(Transition, self._post("registry", path, {"reason": reason}))

    # -- aliases -------------------------------------------------------------------------------------------------

    def set_alias(
        self,
        model: str,
        alias: str,
        version: int,
        *,
        reason: str = "set",
        expected: int | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Alias | Transition:
        """Points an alias at a version. A protected one waits for a decision: the answer is then its transition.

        `expected`: only if it points at that version now (0: only if it does not exist). `fields`: what the policies
        of a protected one ask for beside the reason.
        """
        body = {"version": version, "reason": reason, "expected": expected, **given(fields)}
        response = self._put("registry", f"{of(model)}/aliases/{quote(alias, safe='')}", body)
        return read(Transition, response) if response.status_code == 202 else read(Alias, response)

    def remove_alias(self, model: str, alias: str, reason: str) -> Model:
        path = f"{of(model)}/aliases/{quote(alias, safe='')}"
        return read(Model, self._call("registry", "DELETE", path, params={"reason": reason}))

    def aliases(self, model: str) -> list[Alias]:
        return list(self._pages("registry", f"{of(model)}/aliases", Alias))

    def alias_history(self, model: str, alias: str) -> Iterator[AliasMove]:
        """Where it has pointed, oldest first."""
        return self._pages("registry", f"{of(model)}/aliases/{quote(alias, safe='')}/history", AliasMove)

    # -- search --------------------------------------------------------------------------------------------------

    def search_versions(
        self,
        filter_string: str = "",
        *,
        order_by: Sequence[str] = (),
        model: str | None = None,
        limit: int | None = None,
    ) -> Iterator[FoundVersion]:
        """Versions that match, in MLflow's filter language with OR, NOT, parentheses, stage, alias and metrics.

        `search_versions("metrics.auc > 0.9 AND stage = 'Staging'", order_by=["metrics.auc DESC"])`
        """
        found = self._pages(
            "registry",
            "/v1/search/versions",
            FoundVersion,
            filter=filter_string or None,
            order_by=list(order_by),
            model=model,
        )
        return _first(found, limit)

    def search_models(
        self, filter_string: str = "", *, order_by: Sequence[str] = (), limit: int | None = None
    ) -> Iterator[FoundModel]:
        found = self._pages(
            "registry", "/v1/search/models", FoundModel, filter=filter_string or None, order_by=list(order_by)
        )
        return _first(found, limit)

    def best(self, model: str, metric: str, *, filter_string: str = "", lower: bool = False) -> FoundVersion | None:
        """The ready version with the best value of a metric: the highest, or with `lower` the lowest."""
        ready = (
            "status = 'ready'"
            + (f" AND ({filter_string})" if filter_string else "")
            + f" AND metrics.`{metric}` IS NOT NULL"
        )
        order = f"metrics.`{metric}` {'ASC' if lower else 'DESC'}"
        return next(self.search_versions(ready, order_by=[order], model=model, limit=1), None)

    # -- the workspace -------------------------------------------------------------------------------------------

    def rules(self) -> Workspace:
        """Lifecycle, naming rule and protected aliases of the workspace."""
        return read(Workspace, self._get("registry", f"/v1/workspaces/{quote(self.workspace, safe='')}"))

    def configure(self, rules: Mapping[str, Any]) -> Workspace:
        """Sets them all at once: `lifecycle`, `naming`, `naming_message`, `protected_aliases`."""
        return read(Workspace, self._put("registry", f"/v1/workspaces/{quote(self.workspace, safe='')}", dict(rules)))


def of(model: str) -> str:
    """The path of a model."""
    return f"/v1/models/{quote(model, safe='')}"


def given(fields: Mapping[str, str] | None) -> dict[str, Any]:
    """The part of a body; nothing where nothing was given, so that an older registry understands it too."""
    return {"fields": dict(fields)} if fields else {}


def _tags(to_set: Mapping[str, str] | None, remove: Sequence[str]) -> dict[str, Any] | None:
    return {"set": dict(to_set or {}), "remove": list(remove)} if to_set or remove else None


def _first(found: Iterator[Any], limit: int | None) -> Iterator[Any]:
    for place, one in enumerate(found):
        if limit is not None and place >= limit:
            return
        yield one
