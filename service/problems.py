"""Errors as RFC 9457 problem documents: what was wrong, where, and what to change.

{"type": "urn:mutransfer:problem:invalid", "title": "Unprocessable Content", "status": 422, "detail": "…",
 "errors": [{"field": "arms.0.optimizer", "message": "unknown optimizer 'adam': use one of …"}]}
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.responses import Response
import structlog

from mutransfer.errors import (
    AccessError,
    ConflictError,
    MutransferError,
    NotFoundError,
    Problem,
    ScalingError,
    SpecError,
    TransientError,
)
from service.auth.headers import SECURITY_HEADERS
from service.db.session import is_transient
from service.logging import REQUEST_ID_HEADER

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
MAX_PROBLEMS = 100
MAX_MESSAGE_CHARACTERS = 500  # a message may quote the input, and the input may be large

log = structlog.get_logger(__name__)

# The first class that an error is an instance of decides: status and the last part of `type`.
KINDS: tuple[tuple[type[MutransferError], HTTPStatus, str], ...] = (
    (SpecError, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid"),
    (ScalingError, HTTPStatus.UNPROCESSABLE_ENTITY, "scaling"),
    (NotFoundError, HTTPStatus.NOT_FOUND, "not-found"),
    (ConflictError, HTTPStatus.CONFLICT, "conflict"),
    (AccessError, HTTPStatus.FORBIDDEN, "access"),
    (TransientError, HTTPStatus.SERVICE_UNAVAILABLE, "unavailable"),
)


class FieldProblem(BaseModel):
    """One thing wrong with the input: a dotted path into it, and what to change."""

    field: str
    message: str


class ProblemRead(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:mutransfer:problem:invalid",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "detail": "arms.0.optimizer: unknown optimizer 'adam': use one of sgd, adamw, …",
                    "errors": [
                        {
                            "field": "arms.0.optimizer",
                            "message": "unknown optimizer 'adam': use one of sgd, adamw, …",
                        }
                    ],
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    errors: list[FieldProblem] = []


class BadRequestError(MutransferError):
    """A request that cannot even be read as a study: `status` says why (400, 408, 413, 415)."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status = status
        super().__init__(message)


def problem_response(
    status: int,
    detail: str = "",
    *,
    kind: str = "",
    problems: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document as a response. Messages are cut where they would quote too much of the input."""
    document = ProblemRead(
        type=f"urn:mutransfer:problem:{kind}" if kind else "about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=_cut(detail),
        errors=[FieldProblem(field=_cut(p.field), message=_cut(p.message)) for p in problems[:MAX_PROBLEMS]],
    )
    # ASCII only: a message may quote characters that have no UTF-8 encoding.
    content = json.dumps(document.model_dump())
    return Response(content, status_code=int(status), media_type=MEDIA_TYPE, headers=dict(headers or {}))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else text[: MAX_MESSAGE_CHARACTERS - 1] + "…"


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""
    app.add_exception_handler(MutransferError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(DBAPIError, _database)
    app.add_exception_handler(Exception, _bug)


def _ours(_request: Request, error: Exception) -> Response:
    if isinstance(error, BadRequestError):
        return problem_response(error.status, str(error), kind="bad-request")
    problems = error.problems if isinstance(error, SpecError) else ()
    for cls, status, kind in KINDS:
        if isinstance(error, cls):
            return problem_response(status, str(error), kind=kind, problems=problems, headers=_retry(status))
    raise error


def _retry(status: int) -> dict[str, str]:
    return {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}


def _invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    problems = [_parameter_problem(fault) for fault in error.errors()]
    detail = "; ".join(str(problem) for problem in problems)
    return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, detail, kind="invalid", problems=problems)


def _parameter_problem(fault: Mapping[str, Any]) -> Problem:
    _where, *path = fault["loc"]  # ("query", "limit"): the name alone is clear enough
    return Problem(field=".".join(str(part) for part in path), message=str(fault["msg"]))


def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    return problem_response(error.status_code, str(error.detail), headers=error.headers)


def _database(request: Request, error: Exception) -> Response:
    assert isinstance(error, DBAPIError)  # noqa: S101 - registered for it
    if not is_transient(error):
        return _bug(request, error)
    log.warning("the database does not answer", error=str(error.orig))
    status = HTTPStatus.SERVICE_UNAVAILABLE
    return problem_response(status, "the database does not answer", kind="unavailable", headers=_retry(status))


def _bug(request: Request, error: Exception) -> Response:
    log.error("unhandled error", path=request.url.path, exc_info=error)
    # This one handler runs outside all middleware, so that it brings the headers itself.
    headers = SECURITY_HEADERS | {REQUEST_ID_HEADER: request.scope.get("state", {}).get("request_id", "")}
    detail = "a fault of the service: its log has the details"
    return problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, detail, kind="bug", headers=headers)
