"""The plumbing of the client: discovery, authorization, pages, and answers read into types."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx2
from pydantic import BaseModel, ValidationError

from contracts.envelope import explain, new_id
from hallmark.errors import HallmarkError
from hallmark.http import Http, check, unreachable
from hallmark.results import Page, Services

DEFAULT_URL = "http://127.0.0.1:8801"
PAGE = 200
ARRIVAL_SECONDS = 10.0
R = TypeVar("R", bound=BaseModel)
Service = Literal["registry", "approval", "audit", "notifier"]


class Connection:
    """One caller's way to the services. `url` is the registry's; the others are found through it."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        workspace: str | None = None,
        timeout: float = 30.0,
        retry_for: float = 15.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.url = address(url or os.environ.get("HALLMARK_URL") or DEFAULT_URL)
        self.workspace = workspace or os.environ.get("HALLMARK_WORKSPACE") or "default"
        self._token = token if token is not None else os.environ.get("HALLMARK_TOKEN", "")
        self.http = Http(timeout=timeout, retry_for=retry_for, transport=transport, user_agent="hallmark-python/0.1")
        self._services: Services | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    def services(self) -> Services:
        """Where every service listens; asked once."""
        if self._services is None:
            url = f"{self.url}/.well-known/hallmark.json"
            response = check(self.http.send("GET", url))
            self._services = read(Services, response)
        return self._services

    # -- plumbing ------------------------------------------------------------------------------------------------

    def _get(self, service: Service, path: str, *, patience: float = 0.0, **params: Any) -> httpx2.Response:
        headers = params.pop("headers", {})
        return self._call(service, "GET", path, patience=patience, params=params, headers=headers)

    def _post(self, service: Service, path: str, body: dict[str, Any], *, key: str | None = None) -> httpx2.Response:
        return self._send("POST", service, path, body, key)

    def _post_about_version(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        """To approval, which hears of a new version a moment after the registry has recorded it: until then, "not
        found" is asked again for ARRIVAL_SECONDS, if the registry knows the version."""
        deadline, pause, known = time.monotonic() + ARRIVAL_SECONDS, 0.05, False
        while True:
            try:
                return self._post("approval", path, body)
            except HallmarkError as error:
                if error.code != "version-not-found" or time.monotonic() > deadline:
                    raise
                known = known or self._registered(body["model"], body["version"])
                if not known:
                    raise
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def _registered(self, model: str, version: int) -> bool:
        try:
            self._get("registry", f"/v1/models/{quote(model, safe='')}/versions/{version}")
        except HallmarkError:
            return False
        return True

    def _put(self, service: Service, path: str, body: dict[str, Any]) -> httpx2.Response:
        return self._send("PUT", service, path, body)

    def _patch(self, service: Service, path: str, body: dict[str, Any]) -> httpx2.Response:
        return self._send("PATCH", service, path, body)

    def _send(
        self, method: str, service: Service, path: str, body: dict[str, Any], key: str | None = None
    ) -> httpx2.Response:
        """Commands carry an Idempotency-Key and votes are the same vote when repeated, so all may be sent again."""
        sent = {name: value for name, value in body.items() if value is not None}
        headers = {"idempotency-key": key or str(new_id())}
        return self._call(service, method, path, json=sent, headers=headers)

    def _save(self, service: Service, path: str, target: Path) -> None:
        """Streams an answer into a file, which appears only when complete."""
        url = self._base(service) + path
        scratch = target.with_name(f".{target.name}.part")
        try:
            with self.http.stream(url, headers=self._authorization()) as response:
                if not response.is_success:
                    response.read()
                check(response)
                with scratch.open("wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
            scratch.replace(target)
        except httpx2.TransportError as error:
            raise unreachable(url, error) from error
        finally:
            scratch.unlink(missing_ok=True)

    def _base(self, service: Service) -> str:
        base = self.url if service == "registry" else getattr(self.services(), service)
        if not base:
            raise HallmarkError("no-such-service", f"{self.url} does not say where the {service} service listens")
        return str(base).rstrip("/")

    def _authorization(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"} if self._token else {}

    def _call(
        self,
        service: Service,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        patience: float = 0.0,
        **options: Any,
    ) -> httpx2.Response:
        query = {"workspace": self.workspace} | (params or {})
        return check(
            self.http.send(
                method,
                self._base(service) + path,
                patience=patience,
                params={name: value for name, value in query.items() if value is not None},
                headers=self._authorization() | (headers or {}),
                **options,
            )
        )

    def _pages(self, service: Service, path: str, kind: type[R], /, **params: Any) -> Iterator[R]:
        after: str | int | None = None
        while True:
            response = self._get(service, path, limit=PAGE, after=after, **params)
            page = read(Page[kind], response)  # type: ignore[valid-type]  # a generic model made at run time
            yield from page.items
            if page.next is None:
                return
            after = page.next


def address(url: str) -> str:
    """The URL as it is used.

    Raises:
        HallmarkError: code `invalid-url`.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise HallmarkError("invalid-url", f"{url!r} is not an address like {DEFAULT_URL} (HALLMARK_URL, --url)")
    return url.rstrip("/")


def read(kind: type[R], response: httpx2.Response) -> R:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        where = response.request.url.path
        raise HallmarkError(
            "unexpected-answer",
            f"{where} answered something else than this client understands ({explain(error)}); "
            "are client and server of the same release?",
            request_id=response.headers.get("x-request-id"),
        ) from error
