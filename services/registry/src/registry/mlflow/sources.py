"""Where a version's artifact lies and what made it, as MLflow's clients say it, under MLflow's rules.

The registry knows no runs: they are on a tracking server. So of a run or a logged model that an address belongs to, it
checks that it is named, and the same one where the address has its id. It reads none of the addresses itself.
"""

import re
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from contracts.model import Pointer
from registry.mlflow.asks import Ask, check_length
from registry.mlflow.errors import INVALID, Refusal

MLFLOW = "mlflow"
IS_PROMPT = "mlflow.prompt.is_prompt"
PROMPT_SOURCES = ("dummy-source", "prompt-template")
MAX_LENGTH = 500
VERSION = re.compile(r"models:/([^/@]+)/(\d{1,10})")
LOGGED = re.compile(r"models:/(m-[^/]+)(?:/.*)?")
RUN = re.compile(r"runs:/([^/]+)/.+")
LOCAL = ("", "file")


@dataclass(frozen=True)
class Given:
    """`pointer` has the run's id, or else what there is; its version is the logged model's id, its url the run's."""

    source: str
    pointer: Pointer | None


def read(ask: Ask) -> Given:
    """Raises Refusal for an address that MLflow would not take, or one without the run it belongs to."""
    source, run_id, model_id = ask.text("source"), ask.maybe("run_id"), ask.maybe("model_id")
    run_link = ask.maybe("run_link")
    for what, text in (("source", source), ("run_id", run_id), ("model_id", model_id), ("run_link", run_link)):
        check_length(what, text or "", MAX_LENGTH)
    if ask.tags().get(IS_PROMPT, "").lower() == "true":
        # Its text is in a tag: there is no artifact, and the source says no more than that.
        if source not in PROMPT_SOURCES:
            raise Refusal(INVALID, f"Invalid prompt source: '{source}'. Prompt sources must use an MLflow placeholder.")
        return Given(source, None)
    logged = LOGGED.fullmatch(source)
    _check(source, run_id, model_id, logged[1] if logged else None)
    identity = run_id or model_id or run_link
    if not identity:
        return Given(source, None)
    pointer = Pointer(system=MLFLOW, id=identity, version=model_id or None, url=run_link or None)
    return Given(source, pointer)


def copied(source: str) -> tuple[str, int] | None:
    """The version that `models:/name/number` names."""
    match = VERSION.fullmatch(source)
    return (match[1], int(match[2])) if match else None


def _check(source: str, run_id: str | None, model_id: str | None, logged: str | None) -> None:
    place = urlsplit(source)
    if place.scheme in LOCAL and not run_id and not model_id:
        _refuse(
            source,
            "To use a local path as a model version source, the run_id request parameter has to be specified and the "
            "local path has to be contained within the artifact directory of the run specified by the run_id.",
        )
    path = _unquoted(source)
    if "\0" in path or ".." in re.split(r"[/\\?#&=;]", path):
        _refuse(source, "Relative paths are not allowed.")
    if place.scheme == "runs":
        match = RUN.fullmatch(source)
        if model_id or match is None or match[1] != run_id:
            _refuse(source, "The run_id request parameter has to be that of the run in the source.")
    if logged is not None and logged != model_id:
        _refuse(source, "The model_id request parameter has to be that of the model in the source.")
    if place.scheme == "models" and logged is None and copied(source) is None:
        _refuse(source, "It has to be models:/name/version or models:/m-id.")
    if place.scheme == "mlflow-artifacts" and not run_id and not model_id:
        _refuse(source, "The run_id request parameter has to be specified.")


def _refuse(source: str, detail: str) -> NoReturn:
    raise Refusal(INVALID, f"Invalid model version source: '{source}'. {detail}")


def _unquoted(text: str) -> str:
    while (once := unquote(text)) != text:
        text = once
    return text
