"""The routes of access: who calls, tokens, projects, the audit log."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from service import cursors
from service.auth.doorkeeper import Doorkeeper
from service.auth.schemas import (
    PROJECT_PATTERN,
    AuditEntry,
    AuditPage,
    ProjectPage,
    ProjectRead,
    ProjectSet,
    TokenCreate,
    TokenMade,
    TokenPage,
    TokenRead,
    Whoami,
)
from service.auth.scopes import ADMIN, ADMIN_ALL, READ
from service.conditional import ConditionalRoute
from service.context import ContextDep
from service.db import audit, projects, tokens
from service.db.actors import current_actor
from service.db.audit import AuditFilter
from service.db.session import reading, transact
from service.studies.openapi import BODY, COMMON, CONFLICT, problem

NO_TOKEN: dict[int | str, dict[str, Any]] = {404: problem("There is no such token.")}
NO_PROJECT: dict[int | str, dict[str, Any]] = {404: problem("There is no such project.")}
MADE_PROJECT: dict[int | str, dict[str, Any]] = {201: {"model": ProjectRead, "description": "It is new."}}

router = APIRouter(route_class=ConditionalRoute, responses=COMMON)

Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=200)]
Name = Annotated[str, Path(pattern=PROJECT_PATTERN, description="A project's name.", examples=["default"])]
TokenId = Annotated[str, Path(description="A token's id.", examples=["tk_01KAMRQ4ZJ5T2V8Y6W3X7B9CDE"])]
_Exact = Annotated[str | None, Query(max_length=100)]


@router.get("/whoami", dependencies=[READ])
def whoami() -> Whoami:
    """Who the caller is, and what it may do."""
    return Whoami.of(current_actor())


@router.post("/tokens", status_code=201, dependencies=[ADMIN], responses=BODY | CONFLICT)
def create_token(body: TokenCreate, context: ContextDep, request: Request, response: Response) -> TokenMade:
    """Make a token. Its secret is in this answer and nowhere else. From the first one on, all callers need a token."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    row, secret = transact(
        context.sessions,
        lambda session: tokens.create(session, body.request(), other_admin=doorkeeper.has_home_token),
    )
    doorkeeper.changed()
    response.headers["Location"] = f"/api/v1/tokens/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return TokenMade.made(row, secret)


@router.get("/tokens", dependencies=[ADMIN])
def list_tokens(context: ContextDep, limit: Limit = 50, cursor: Cursor = None) -> TokenPage:
    """Tokens, newest first, those that have ended too."""
    after = cursors.decode(cursor, str)[0] if cursor else None
    with reading(context.sessions) as session:
        rows = tokens.page(session, after=after, limit=limit + 1)
    following = cursors.encode([rows[limit - 1].id]) if len(rows) > limit else None
    return TokenPage(items=[TokenRead.of(row) for row in rows[:limit]], next_cursor=following)


@router.get("/tokens/{token_id}", dependencies=[ADMIN], responses=NO_TOKEN)
def show_token(token_id: TokenId, context: ContextDep) -> TokenRead:
    """One token."""
    with reading(context.sessions) as session:
        return TokenRead.of(tokens.get(session, token_id))


@router.delete("/tokens/{token_id}", dependencies=[ADMIN], responses=NO_TOKEN)
def revoke_token(token_id: TokenId, context: ContextDep, request: Request) -> TokenRead:
    """Revoke a token, and the browser sessions that stand for it. Safe to repeat."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    row = transact(context.sessions, lambda session: tokens.revoke(session, token_id))
    doorkeeper.changed()
    return TokenRead.of(row)


@router.get("/projects", dependencies=[READ])
def list_projects(context: ContextDep, limit: Limit = 50, cursor: Cursor = None) -> ProjectPage:
    """Projects by name."""
    after = cursors.decode(cursor, str)[0] if cursor else None
    with reading(context.sessions) as session:
        rows = projects.page(session, after=after, limit=limit + 1)
    following = cursors.encode([rows[limit - 1].name]) if len(rows) > limit else None
    return ProjectPage(items=[ProjectRead.of(row) for row in rows[:limit]], next_cursor=following)


@router.get("/projects/{name}", dependencies=[READ], responses=NO_PROJECT)
def show_project(name: Name, context: ContextDep) -> ProjectRead:
    """One project."""
    with reading(context.sessions) as session:
        return ProjectRead.of(projects.get(session, name))


@router.put(
    "/projects/{name}", dependencies=[ADMIN_ALL],
    responses=MADE_PROJECT | BODY,
)  # fmt: skip
def set_project(name: Name, body: ProjectSet, context: ContextDep, response: Response) -> ProjectRead:
    """Make a project, or change its limits: fields left out stay."""
    limits = body.model_dump(exclude_unset=True)
    row, is_new = transact(context.sessions, lambda session: projects.put(session, name, limits))
    response.status_code = 201 if is_new else 200
    return ProjectRead.of(row)


@router.get("/audit-log", dependencies=[ADMIN])
def read_audit_log(
    context: ContextDep, project: _Exact = None, actor: _Exact = None, action: _Exact = None, target: _Exact = None,
    limit: Limit = 50, cursor: Cursor = None,
) -> AuditPage:  # fmt: skip
    """Who changed what and when, newest first."""
    before = cursors.decode(cursor, int)[0] if cursor else None
    wanted = AuditFilter(project=project, actor=actor, action=action, target=target, before=before)
    with reading(context.sessions) as session:
        rows = audit.page(session, wanted, limit=limit + 1)
    following = cursors.encode([rows[limit - 1].id]) if len(rows) > limit else None
    return AuditPage(items=[AuditEntry.of(row) for row in rows[:limit]], next_cursor=following)
