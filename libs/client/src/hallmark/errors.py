"""What can go wrong, as one exception that says what to do."""

from typing import Any

TYPE_PREFIX = "urn:hallmark:problem:"


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


def from_problem(status: int, body: Any, request_id: str | None, where: str) -> HallmarkError:
    """The error of an HTTP answer, also of one that is not problem+json (a proxy's page, say)."""
    if not isinstance(body, dict) or "type" not in body:
        return HallmarkError("http-error", f"{where} answered {status}", status=status, request_id=request_id)
    known = ("type", "title", "status", "detail", "instance", "request_id")
    return HallmarkError(
        str(body["type"]).removeprefix(TYPE_PREFIX),
        str(body.get("detail") or body.get("title") or f"{where} answered {status}"),
        status=status,
        request_id=body.get("request_id") or request_id,
        extra={name: value for name, value in body.items() if name not in known},
    )
