"""Errors as `application/problem+json`: what a caller may know of them, and nothing more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from pydantic import ValidationError
from starlette.exceptions import HTTPException

from ..errors import (
    AgentMapError,
    AmbiguousWorkflow,
    InputInvalid,
    UnknownWorkflow,
    WorkflowInvalid,
    nearest,
)
from ..execution.writing import encode
from ..services.inputs import plainly
from .replies import PROBLEM, Reply

MOST_ERRORS: Final = 20
LONGEST_NAME: Final = 100
RETRY_AFTER: Final = "1"

CODES: Final = {400: "invalid_request", 401: "unauthenticated", 403: "forbidden", 404: "not_found"} | {
    405: "method_not_allowed",
    408: "body_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "too_many_requests",
    500: "internal_error",
    503: "unavailable",
}
"""The `code` of a status when nothing more exact is known."""


class Refusal(Exception):
    """A request that is answered with a problem. `detail` is a plain sentence without the caller's values."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})


def not_found() -> Refusal:
    """No such path."""
    return Refusal(404, "not_found", "There is no operation under this path")


def unauthenticated() -> Refusal:
    """No credentials, or bad ones."""
    detail = "This operation needs credentials, and those sent are missing or not accepted"
    return Refusal(401, "unauthenticated", detail, headers={"WWW-Authenticate": "Bearer"})


def forbidden() -> Refusal:
    """Known, and not allowed."""
    return Refusal(403, "forbidden", "You are not allowed to do this")


def invalid(error: ValidationError, known: Iterable[str], base: str = "") -> Refusal:
    """The problem of a body that does not fit its model. `known` are the field names it may have."""
    names = list(known)
    errors = []
    found = error.errors(include_url=False, include_input=False)
    for one in found[:MOST_ERRORS]:
        at = pointer(one["loc"], base)
        if one["type"] == "extra_forbidden":
            name = str(one["loc"][-1])
            close = nearest(name, names) if len(one["loc"]) == 1 and len(name) <= LONGEST_NAME else None
            message = "This field is unknown" + (f"; did you mean {close!r}?" if close else "")
            errors.append({"pointer": at, "code": "unknown_field", "message": message})
        else:
            if one["type"] == "reserved_field":
                at += pointer([one["ctx"]["name"]])
            errors.append({"pointer": at, "code": one["type"], "message": plainly(one)})
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    where = errors[0]["pointer"] or "the body"
    return Refusal(422, "invalid_request", f"{where}: {errors[0]['message']}{more}", errors=errors)


def invalid_field(where: str, code: str, message: str) -> Refusal:
    """The problem of one field, or of one query parameter."""
    error = {"pointer": where, "code": code, "message": message}
    return Refusal(422, "invalid_request", f"{where}: {message}" if where else message, errors=[error])


def pointer(parts: Iterable[int | str], base: str = "") -> str:
    """A JSON pointer (RFC 6901); over-long names are cut."""
    return base + "".join("/" + str(part)[:LONGEST_NAME].replace("~", "~0").replace("/", "~1") for part in parts)


def refusal_of(error: AgentMapError, *, hints: bool) -> Refusal:
    """What a caller may know of one of our errors. `hints` may name other workflows than the one asked for."""
    headers = {"Retry-After": RETRY_AFTER} if error.status in (429, 503) else {}
    if isinstance(error, UnknownWorkflow):
        close = f"; did you mean {error.close[0]!r}?" if hints and error.close else ""
        return Refusal(error.status, error.code, f"There is no workflow of this name{close}")
    if isinstance(error, AmbiguousWorkflow):
        detail = "Several files have a workflow of this name; call it as file::Name"
        errors = [{"pointer": "", "code": "candidate", "message": n} for n in error.candidates[:MOST_ERRORS]]
        return Refusal(error.status, error.code, detail, errors=errors)
    if isinstance(error, WorkflowInvalid):
        errors = [
            {"pointer": "", "code": str(getattr(d, "code", error.code)), "message": str(d)}
            for d in error.diagnostics[:MOST_ERRORS]
        ]
        detail = "The workflow has errors in its file and cannot be started"
        return Refusal(error.status, error.code, detail, errors=errors)
    if isinstance(error, InputInvalid):
        return Refusal(error.status, error.code, error.message, errors=error.errors[:MOST_ERRORS])
    return Refusal(error.status, error.code, error.message, headers=headers)


def refusal_of_http(error: HTTPException) -> Refusal:
    """An HTTPException that a host's function raised; its detail was written for callers."""
    status = error.status_code
    code = CODES.get(status) or (CODES[400] if status < 500 else CODES[500])
    headers = dict(error.headers or {})
    if status == 401 and not any(name.lower() == "www-authenticate" for name in headers):
        headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503) and not any(name.lower() == "retry-after" for name in headers):
        headers["Retry-After"] = RETRY_AFTER
    return Refusal(status, code, error.detail if isinstance(error.detail, str) else phrase(status), headers=headers)


def phrase(status: int) -> str:
    """`Not Found` for 404."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def problem(refusal: Refusal, instance: str, request_id: str) -> dict[str, Any]:
    """The document of RFC 9457."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": phrase(refusal.status),
        "status": refusal.status,
        "detail": refusal.detail,
        "instance": instance,
        "code": refusal.code,
        "request_id": request_id,
    }
    if refusal.errors:
        document["errors"] = list(refusal.errors)
    return document


def problem_reply(refusal: Refusal, instance: str, request_id: str) -> Reply:
    """The response to a refused request."""
    body = encode(problem(refusal, instance, request_id))
    return Reply(body, refusal.status, PROBLEM, {"Cache-Control": "no-store", **refusal.headers})
