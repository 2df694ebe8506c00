"""The routes of schedules and their nights. Thin: parse, ask a repository, answer."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy.orm import Session

from service import cursors
from service.auth.scopes import READ, SUBMIT
from service.conditional import ConditionalRoute
from service.context import Context, ContextDep
from service.db import nights, schedules
from service.db.session import reading, transact
from service.db.tables_schedules import ScheduleRow
from service.schedules import firing, templates
from service.schedules.openapi import BODY, COMMON, CONFLICT, NOT_FOUND, body_of
from service.schedules.scheduler import database_clock
from service.schedules.schemas import (
    NightPage,
    NightRead,
    PinBaseline,
    ScheduleChange,
    ScheduleCreate,
    SchedulePage,
    ScheduleRead,
    TrendRead,
    parse,
)
from service.schedules.slots import Slots
from service.schedules.trend import trend
from service.studies.documents import read_document

router = APIRouter(route_class=ConditionalRoute, responses=COMMON)

UPCOMING = 5
ScheduleId = Annotated[str, Path(max_length=100, description="A schedule's id, or its name where that is unique.")]
NightId = Annotated[int, Path(ge=1, le=2**63 - 1)]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=200)]


async def _body(request: Request) -> bytes:
    """The whole body; `bodies.BodyLimit` has bounded it."""
    return await request.body()


def _document(body: Annotated[bytes, Depends(_body)], request: Request) -> Any:
    """The JSON or YAML in the body. Off the event loop: it parses."""
    return read_document(body, request.headers.get("content-type", ""))


Document = Annotated[Any, Depends(_document)]


@router.post(
    "/schedules",
    dependencies=[SUBMIT],
    status_code=201,
    openapi_extra=body_of(ScheduleCreate),
    responses=BODY | CONFLICT,
)
def create_schedule(document: Document, context: ContextDep, response: Response) -> ScheduleRead:
    """Make a schedule. Its first night comes at the next slot; what it finds is the baseline unless one is pinned."""
    wanted: ScheduleCreate = parse(ScheduleCreate, document)
    with reading(context.sessions) as session:
        now = database_clock(session)
    columns = templates.columns_of(wanted, context.settings, now)
    made = transact(context.sessions, lambda session: schedules.create(session, columns).id)
    response.headers["Location"] = f"/api/v1/schedules/{made}"
    return _read(context, made)


@router.get("/schedules", dependencies=[READ])
def list_schedules(
    context: ContextDep,
    project: Annotated[str | None, Query(max_length=64, pattern=r"^[a-z0-9-]*$")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> SchedulePage:
    """Schedules, newest first."""
    before = cursors.decode(cursor, str)[0] if cursor else None
    with reading(context.sessions) as session:
        rows = schedules.page(session, project=project, before=before, limit=limit + 1)
        following = cursors.encode([rows[limit - 1].id]) if len(rows) > limit else None
        return SchedulePage(items=_reads(session, rows[:limit]), next_cursor=following)


@router.get("/schedules/{schedule}", dependencies=[READ], responses=NOT_FOUND | CONFLICT)
def show_schedule(schedule: ScheduleId, context: ContextDep) -> ScheduleRead:
    """One schedule, when it comes next and how its newest night went."""
    return _read(context, schedule)


@router.patch(
    "/schedules/{schedule}", dependencies=[SUBMIT], openapi_extra=body_of(ScheduleChange),
    responses=BODY | NOT_FOUND | CONFLICT,
)  # fmt: skip
def change_schedule(schedule: ScheduleId, document: Document, context: ContextDep) -> ScheduleRead:
    """Change a schedule. A template that asks another question lets its baseline go."""
    wanted: ScheduleChange = parse(ScheduleChange, document)

    def work(session: Session) -> str:
        row = schedules.get(session, schedule, lock=True)
        changes = templates.changes_of(wanted, context.settings, row.project)
        cron, zone = changes.get("cron", row.cron), changes.get("time_zone", row.time_zone)
        if (cron, zone) != (row.cron, row.time_zone):
            slot = Slots(cron=cron, time_zone=zone).after(database_clock(session))
            changes |= {"next_at": None if row.next_at is None else slot}
        schedules.rename_check(session, row, changes.get("name", row.name))
        schedules.change(session, row, changes)
        return row.id

    return _read(context, transact(context.sessions, work))


@router.delete("/schedules/{schedule}", dependencies=[SUBMIT], status_code=204, responses=NOT_FOUND | CONFLICT)
def delete_schedule(schedule: ScheduleId, context: ContextDep) -> None:
    """Delete a schedule with the history of its nights. Their studies stay; one that runs goes on."""
    transact(context.sessions, lambda s: schedules.remove(s, schedules.get(s, schedule, lock=True)))


@router.post("/schedules/{schedule}/pause", dependencies=[SUBMIT], responses=NOT_FOUND | CONFLICT)
def pause_schedule(schedule: ScheduleId, context: ContextDep) -> ScheduleRead:
    """No more nights until it is resumed: slots that come meanwhile pass. A night that runs goes on."""

    def work(session: Session) -> str:
        row = schedules.get(session, schedule, lock=True)
        nights.skip_waiting(session, row.id, "the schedule was paused")
        schedules.change(session, row, {"next_at": None})
        return row.id

    return _read(context, transact(context.sessions, work))


@router.post("/schedules/{schedule}/resume", dependencies=[SUBMIT], responses=NOT_FOUND | CONFLICT)
def resume_schedule(schedule: ScheduleId, context: ContextDep) -> ScheduleRead:
    """Go on with the next slot from now."""

    def work(session: Session) -> str:
        row = schedules.get(session, schedule, lock=True)
        if row.next_at is None:
            schedules.change(session, row, {"next_at": firing.slots_of(row).after(database_clock(session))})
        return row.id

    return _read(context, transact(context.sessions, work))


@router.post("/schedules/{schedule}/run", dependencies=[SUBMIT], status_code=201, responses=NOT_FOUND | CONFLICT)
def run_schedule(schedule: ScheduleId, context: ContextDep) -> NightRead:
    """Run a night now, between the slots. 409 where the night before still runs and the policy is `skip`."""

    def work(session: Session) -> tuple[ScheduleRow, int]:
        row = schedules.get(session, schedule, lock=True)
        return row, firing.run_now(session, row, database_clock(session)).id

    row, night_id = transact(context.sessions, work)
    with reading(context.sessions) as session:
        return NightRead.of(nights.get(session, row.id, night_id), row.time_zone)


@router.put(
    "/schedules/{schedule}/baseline",
    dependencies=[SUBMIT],
    openapi_extra=body_of(PinBaseline),
    responses=BODY | NOT_FOUND | CONFLICT,
)
def pin_baseline(schedule: ScheduleId, document: Document, context: ContextDep) -> ScheduleRead:
    """Compare the nights from now on with this completed run of the same study, until it is unpinned."""
    wanted: PinBaseline = parse(PinBaseline, document)

    def work(session: Session) -> str:
        row = schedules.get(session, schedule, lock=True)
        schedules.pin(session, row, wanted.study)
        return row.id

    return _read(context, transact(context.sessions, work))


@router.delete("/schedules/{schedule}/baseline", dependencies=[SUBMIT], responses=NOT_FOUND | CONFLICT)
def unpin_baseline(schedule: ScheduleId, context: ContextDep) -> ScheduleRead:
    """Let the baseline go: the next completed night takes its place, unless the policy is `pinned`."""

    def work(session: Session) -> str:
        row = schedules.get(session, schedule, lock=True)
        schedules.unpin(session, row)
        return row.id

    return _read(context, transact(context.sessions, work))


@router.get("/schedules/{schedule}/nights", dependencies=[READ], responses=NOT_FOUND | CONFLICT)
def list_nights(
    schedule: ScheduleId,
    context: ContextDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    judgements: Annotated[bool, Query(description="With the figures of each night.")] = False,
) -> NightPage:
    """The history of a schedule: what became of each slot, newest first."""
    before = cursors.decode(cursor, int)[0] if cursor else None
    with reading(context.sessions) as session:
        row = schedules.get(session, schedule)
        found = nights.page(session, row.id, before=before, limit=limit + 1, with_judgement=judgements)
        following = cursors.encode([found[limit - 1].id]) if len(found) > limit else None
        items = [NightRead.of(night, row.time_zone, with_judgement=judgements) for night in found[:limit]]
    return NightPage(items=items, next_cursor=following)


@router.get("/schedules/{schedule}/nights/{night}", dependencies=[READ], responses=NOT_FOUND | CONFLICT)
def show_night(schedule: ScheduleId, night: NightId, context: ContextDep) -> NightRead:
    """One night with its judgement: every figure beside the baseline's, and why it is flagged."""
    with reading(context.sessions) as session:
        row = schedules.get(session, schedule)
        return NightRead.of(nights.get(session, row.id, night), row.time_zone, with_judgement=True)


@router.get("/schedules/{schedule}/trend", dependencies=[READ], responses=NOT_FOUND | CONFLICT)
def show_trend(
    schedule: ScheduleId, context: ContextDep, limit: Annotated[int, Query(ge=1, le=400)] = 90
) -> TrendRead:  # fmt: skip
    """Every figure over the last judged nights, oldest first, for plots."""
    with reading(context.sessions) as session:
        row = schedules.get(session, schedule)
        return trend(row, reversed(nights.judged(session, row.id, limit=limit)))


def _read(context: Context, which: str) -> ScheduleRead:
    with reading(context.sessions) as session:
        return _reads(session, [schedules.get(session, which)])[0]


def _reads(session: Session, rows: list[ScheduleRow]) -> list[ScheduleRead]:
    latest = nights.latest(session, [row.id for row in rows])
    return [ScheduleRead.of(row, latest.get(row.id), _upcoming(row)) for row in rows]


def _upcoming(row: ScheduleRow) -> list[float]:
    if row.next_at is None:
        return []
    slots, found = firing.slots_of(row), [row.next_at]
    while len(found) < UPCOMING:
        found.append(slots.after(found[-1]))
    return found
