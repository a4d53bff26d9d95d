"""What can go wrong, as one exception that says what to do."""

from typing import Any

TYPE_PREFIX = "urn:hallmark:problem:"
REVOKED = "version-revoked"


class HallmarkError(Exception):
    """A request that was not done.

    `code` is stable and meant for programs (`nothing-in-stage`, `forbidden`, `connection`, ...); `detail` is meant for
    people; `status` is the HTTP status, or None when no answer came; `request_id` finds the call in the service's log.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{detail} [{code}]" + (f" (request {request_id})" if request_id else ""))
        self.code = code
        self.detail = detail
        self.status = status
        self.request_id = request_id
        self.extra = extra or {}

    @property
    def type(self) -> str:
        """The problem's `type`, as RFC 9457 names it."""
        return TYPE_PREFIX + self.code

    @property
    def refused(self) -> bool:
        """True when the registry understood the request and said no: asking again will not help."""
        return self.status in (403, 409, 422)


class VersionRevoked(HallmarkError):
    """A version that nobody may use any more (code `version-revoked`).

    `model` is its identity; `at` is when, in ISO 8601; what the registry did not say is None.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(REVOKED, detail, status=status, request_id=request_id, extra=extra)
        self.model: str | None = self.extra.get("model")
        self.version: int | None = self.extra.get("version")
        self.reason: str | None = self.extra.get("reason")
        self.by: str | None = self.extra.get("by")
        self.at: str | None = self.extra.get("at")

    @classmethod
    def told(cls, told: dict[str, Any]) -> "VersionRevoked":
        """As a watch stream says it."""
        return cls(f"{told.get('by')} revoked version {told.get('version')}: {told.get('reason')}", extra=told)

    def again(self) -> "VersionRevoked":
        """The same, to be raised once more."""
        return VersionRevoked(self.detail, status=self.status, request_id=self.request_id, extra=self.extra)


def from_problem(status: int, body: Any, request_id: str | None, where: str) -> HallmarkError:
    """The error of an HTTP answer, also of one that is not problem+json (a proxy's page, say)."""
    if not isinstance(body, dict) or "type" not in body:
        return HallmarkError("http-error", f"{where} answered {status}", status=status, request_id=request_id)
    known = ("type", "title", "status", "detail", "instance", "request_id")
    code = str(body["type"]).removeprefix(TYPE_PREFIX)
    detail = str(body.get("detail") or body.get("title") or f"{where} answered {status}")
    asked = body.get("request_id") or request_id
    extra = {name: value for name, value in body.items() if name not in known}
    if code == REVOKED:
        return VersionRevoked(detail, status=status, request_id=asked, extra=extra)
    return HallmarkError(code, detail, status=status, request_id=asked, extra=extra)
