"""The routes of channels and of the delivery log. Thin: parse, ask a repository, answer."""

from secrets import token_urlsafe
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy.orm import Session

from mutransfer.errors import ConflictError
from service import cursors
from service.auth.scopes import READ, SUBMIT
from service.conditional import ConditionalRoute
from service.context import ContextDep
from service.db import channels, schedules
from service.db.session import reading, transact
from service.db.states_schedules import ChannelKind, DeliveryState
from service.db.tables_schedules import ChannelRow
from service.ids import new_id
from service.notify.messages import test_message
from service.notify.targets import check_target
from service.schedules.openapi import BODY, COMMON, CONFLICT, NOT_FOUND, body_of
from service.schedules.routes import Document
from service.schedules.schemas import (
    ChannelCreate,
    ChannelList,
    ChannelRead,
    DeliveryPage,
    DeliveryRead,
    parse,
)

router = APIRouter(route_class=ConditionalRoute, responses=COMMON)

ChannelId = Annotated[str, Path(max_length=100, description="A channel's id, or its name where that is unique.")]
ProjectName = Annotated[str | None, Query(max_length=64, pattern=r"^[a-z0-9-]*$")]


@router.post(
    "/channels", dependencies=[SUBMIT], status_code=201, openapi_extra=body_of(ChannelCreate),
    responses=BODY | NOT_FOUND | CONFLICT,
)  # fmt: skip
def create_channel(document: Document, context: ContextDep) -> ChannelRead:
    """Make a channel. The answer alone holds the secret that signs its webhooks."""
    wanted: ChannelCreate = parse(ChannelCreate, document)
    check_target(wanted.kind, wanted.target, context.settings)
    secret = (wanted.secret or token_urlsafe(32)) if wanted.kind is ChannelKind.WEBHOOK else ""

    def work(session: Session) -> ChannelRow:
        schedule = None if wanted.schedule is None else schedules.get(session, wanted.schedule)
        if schedule is not None and schedule.project != wanted.project:
            raise ConflictError(f"the schedule is of the project {schedule.project}: make the channel in that one")
        values = {
            "name": wanted.name, "project": wanted.project, "kind": wanted.kind, "target": wanted.target,
            "secret": secret, "events": {"of": sorted(set(wanted.events))},
            "schedule_id": None if schedule is None else schedule.id,
        }  # fmt: skip
        return channels.create(session, values)

    return ChannelRead.of(transact(context.sessions, work), secret=secret or None)


@router.get("/channels", dependencies=[READ])
def list_channels(context: ContextDep, project: ProjectName = None) -> ChannelList:
    """All channels, by name. Secrets are not shown, nor is what may be one."""
    with reading(context.sessions) as session:
        return ChannelList(items=[ChannelRead.of(row) for row in channels.page(session, project=project)])


@router.delete("/channels/{channel}", dependencies=[SUBMIT], status_code=204, responses=NOT_FOUND | CONFLICT)
def delete_channel(channel: ChannelId, context: ContextDep) -> Response:
    """Delete a channel with its delivery log. What was not delivered will not be."""
    transact(context.sessions, lambda session: channels.remove(session, channels.get(session, channel)))
    return Response(status_code=204)


@router.post("/channels/{channel}/test", dependencies=[SUBMIT], status_code=201, responses=NOT_FOUND | CONFLICT)
def test_channel(channel: ChannelId, context: ContextDep) -> DeliveryRead:
    """Queue a test message; the delivery log says what became of it."""

    def work(session: Session) -> tuple[ChannelRow, str]:
        row = channels.get(session, channel)
        event = new_id("test/")
        channels.add_delivery(session, row, event, test_message(row.name, row.project))
        return row, event

    row, event = transact(context.sessions, work)
    with reading(context.sessions) as session:
        return DeliveryRead.of(channels.delivery(session, row.id, event), row)


@router.get("/deliveries", dependencies=[READ], responses=NOT_FOUND | CONFLICT)
def list_deliveries(
    context: ContextDep,
    channel: Annotated[str | None, Query(max_length=100, description="Only to this channel (id or name).")] = None,
    project: ProjectName = None,
    state: DeliveryState | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> DeliveryPage:
    """The delivery log, newest first: what was told to whom, every attempt with its answer."""
    before = cursors.decode(cursor, int)[0] if cursor else None
    with reading(context.sessions) as session:
        which = None if channel is None else channels.get(session, channel).id
        rows = channels.deliveries(
            session, channel_id=which, project=project, state=state, before=before, limit=limit + 1
        )  # fmt: skip
    following = cursors.encode([rows[limit - 1][0].id]) if len(rows) > limit else None
    return DeliveryPage(items=[DeliveryRead.of(row, to) for row, to in rows[:limit]], next_cursor=following)


@router.post("/deliveries/{delivery}/retry", dependencies=[SUBMIT], responses=NOT_FOUND)
def retry_delivery(delivery: Annotated[int, Path(ge=1, le=2**63 - 1)], context: ContextDep) -> DeliveryRead:
    """Put a delivery back into the queue: one that was given up, or one to be sent once more."""

    def work(session: Session) -> DeliveryRead:
        row = channels.send_again(session, delivery)
        return DeliveryRead.of(row, channels.get(session, row.channel_id))

    return transact(context.sessions, work)
