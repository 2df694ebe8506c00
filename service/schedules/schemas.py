"""What the API says and takes of schedules, nights, channels and deliveries. Times are UTC."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mutransfer.base import Value
from mutransfer.errors import Problem, SpecError
from mutransfer.nights import Judgement, Sensitivity
from service.db.states_schedules import (
    BaselinePolicy,
    ChannelKind,
    Concurrency,
    DeliveryState,
    NightEvent,
    NightState,
)
from service.db.tables_schedules import ChannelRow, DeliveryRow, NightRow, ScheduleRow
from service.schedules.slots import local_time
from service.schedules.stored import stored_template
from service.studies.schemas import API, EXAMPLE_STUDY, utc

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")]
Project = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9-]+$")]
Cron = Annotated[str, Field(max_length=100, description="Five fields: minute, hour, day of month, month, weekday.")]
TimeZone = Annotated[str, Field(max_length=64, description="An IANA name, such as Europe/Berlin.")]

EXAMPLE_SCHEDULE: dict[str, Any] = {
    "name": "nightly", "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "concurrency": "skip",
    "baseline": {"policy": "first"}, "study": EXAMPLE_STUDY,
}  # fmt: skip


class BaselineRule(Value):
    """How a schedule gets its baseline; one pinned by hand stays under each policy."""

    policy: BaselinePolicy = BaselinePolicy.FIRST
    promote_after: Annotated[int, Field(ge=1, le=1000, description="Clean nights in a row, for `promote`.")] = 7


class ScheduleCreate(Value):
    """A new schedule. `study` is the template that every night runs, with fresh trials."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_SCHEDULE]})

    name: Name
    cron: Cron
    time_zone: TimeZone = "UTC"
    study: dict[str, Any] = Field(description="A study, as POST /studies takes it. Its project is the schedule's.")
    concurrency: Concurrency = Concurrency.SKIP
    baseline: BaselineRule = BaselineRule()
    sensitivity: Sensitivity = Sensitivity()
    paused: bool = False


class ScheduleChange(Value):
    """What of a schedule shall change; fields that are left out stay."""

    name: Name | None = None
    cron: Cron | None = None
    time_zone: TimeZone | None = None
    study: dict[str, Any] | None = None
    concurrency: Concurrency | None = None
    baseline: BaselineRule | None = None
    sensitivity: Sensitivity | None = None


class PinBaseline(Value):
    """Which study shall be the baseline."""

    study: Annotated[str, Field(max_length=64, examples=["st_01KAMRQ4ZJ5T2V8Y6W3X7B9CDE"])]


class NightRead(BaseModel):
    """One night. `judgement` is left out of lists unless asked for."""

    id: int
    schedule_id: str
    fire_at: datetime = Field(description="The slot, or when somebody said run now.")
    local_time: str = Field(description="The slot in the schedule's time zone.")
    manual: bool
    missed: int = Field(description="Slots before this one that no scheduler was there for; they are not run.")
    state: NightState
    reason: str
    study_id: str | None
    baseline_study_id: str | None = Field(description="What it was compared with; None for a first night.")
    flagged: bool | None = Field(description="Whether any figure is flagged, once it is judged.")
    drifting: bool | None = Field(description="Whether some arm's verdict says drifts, once it is judged.")
    ended_at: datetime | None
    judgement: Judgement | None = None
    links: dict[str, str]

    @classmethod
    def of(cls, row: NightRow, time_zone: str, *, with_judgement: bool = False) -> Self:
        """The night in `row`, of a schedule in `time_zone`."""
        here = f"{API}/schedules/{row.schedule_id}/nights/{row.id}"
        links = {"self": here, "page": f"/schedules/{row.schedule_id}?night={row.id}"}
        if row.study_id:
            links |= {"study": f"{API}/studies/{row.study_id}", "study_page": f"/studies/{row.study_id}"}
        found = row.judgement if with_judgement else None
        return cls(
            id=row.id, schedule_id=row.schedule_id, fire_at=_utc(row.fire_at),
            local_time=local_time(row.fire_at, time_zone), manual=row.manual, missed=row.missed,
            state=NightState(row.state), reason=row.reason, study_id=row.study_id,
            baseline_study_id=row.baseline_study_id, flagged=row.flagged, drifting=row.drifting,
            ended_at=utc(row.ended_at), judgement=None if found is None else Judgement.model_validate(found),
            links=links,
        )  # fmt: skip


class ScheduleRead(BaseModel):
    """One schedule, when it comes next and how its newest night went."""

    id: str
    name: str
    project: str
    cron: str
    time_zone: str
    study: dict[str, Any] = Field(description="The template, every field spelled out.")
    refused: str = Field(description="Why this version takes the template no longer: nights fail. Else empty.")
    concurrency: Concurrency
    baseline: BaselineRule
    baseline_study_id: str | None
    baseline_at: datetime | None
    baseline_pinned: bool = Field(description="Pinned by hand: no policy replaces it.")
    sensitivity: Sensitivity
    paused: bool
    next_at: datetime | None = Field(description="The next slot; None while paused.")
    upcoming: list[datetime] = Field(description="The next slots, the first included.")
    created_at: datetime
    updated_at: datetime
    latest: NightRead | None
    links: dict[str, str]

    @classmethod
    def of(cls, row: ScheduleRow, latest: NightRow | None, upcoming: list[float]) -> Self:
        """The schedule in `row`."""
        here = f"{API}/schedules/{row.id}"
        rule = BaselineRule(policy=BaselinePolicy(row.baseline_policy), promote_after=row.promote_after)
        return cls(
            id=row.id, name=row.name, project=row.project, cron=row.cron, time_zone=row.time_zone,
            study=dict(row.spec), refused=stored_template(row.spec)[1],
            concurrency=Concurrency(row.concurrency), baseline=rule,
            baseline_study_id=row.baseline_study_id, baseline_at=utc(row.baseline_at),
            baseline_pinned=row.baseline_pinned, sensitivity=Sensitivity.model_validate(row.sensitivity),
            paused=row.next_at is None, next_at=utc(row.next_at), upcoming=[_utc(slot) for slot in upcoming],
            created_at=_utc(row.created_at), updated_at=_utc(row.updated_at),
            latest=None if latest is None else NightRead.of(latest, row.time_zone),
            links={"self": here, "nights": f"{here}/nights", "trend": f"{here}/trend", "page": f"/schedules/{row.id}"},
        )  # fmt: skip


class SchedulePage(BaseModel):
    """Schedules, newest first. `next_cursor` fetches the next page, None on the last."""

    items: list[ScheduleRead]
    next_cursor: str | None


class NightPage(BaseModel):
    """Nights, newest first. `next_cursor` fetches the next page, None on the last."""

    items: list[NightRead]
    next_cursor: str | None


class TrendPoint(BaseModel):
    """One figure of one night: what it measured, its change against the baseline of then, and whether it is flagged."""

    night: int
    fire_at: datetime
    study_id: str | None
    baseline_study_id: str | None
    value: float | None
    low: float | None
    high: float | None
    change: float | None
    change_low: float | None
    change_high: float | None
    flagged: bool
    reason: str


class TrendSeries(BaseModel):
    """One figure over the nights, oldest first. `key` names it: `optimum/adamw-mup/128`."""

    key: str
    kind: str
    arm: str | None
    axis_value: int | None
    unit: str
    tolerance: float | None
    points: list[TrendPoint]


class TrendRead(BaseModel):
    """All figures of a schedule over its last judged nights."""

    schedule_id: str
    axis: Literal["width", "depth"]
    series: list[TrendSeries]


class ChannelCreate(Value):
    """A new channel. `target`: an http(s) URL, or e-mail addresses with commas."""

    name: Name
    project: Project = "default"
    kind: ChannelKind
    target: Annotated[str, Field(min_length=3, max_length=2000)]
    schedule: Annotated[str | None, Field(max_length=100, description="Only of this schedule (id or name).")] = None
    events: Annotated[tuple[NightEvent, ...], Field(min_length=1, max_length=4)] = (
        NightEvent.FLAGGED, NightEvent.FAILED, NightEvent.RECOVERED,
    )  # fmt: skip
    secret: Annotated[
        str | None, Field(min_length=16, max_length=200, description="Signs webhooks; made here unless given.")
    ] = None

    @model_validator(mode="after")
    def _check_secret(self) -> Self:
        if self.secret is not None and self.kind is not ChannelKind.WEBHOOK:
            raise ValueError(f"secret: only webhooks are signed, this is {self.kind}")
        return self


class ChannelRead(BaseModel):
    """One channel. `secret` is told once, when the channel is made; a target that is an URL shows its host only."""

    id: str
    name: str
    project: str
    kind: ChannelKind
    target: str
    schedule_id: str | None
    events: list[NightEvent]
    created_at: datetime
    secret: str | None = None

    @classmethod
    def of(cls, row: ChannelRow, *, secret: str | None = None) -> Self:
        """The channel in `row`."""
        return cls(
            id=row.id, name=row.name, project=row.project, kind=ChannelKind(row.kind), target=shown_target(row),
            schedule_id=row.schedule_id, events=[NightEvent(event) for event in row.events["of"]],
            created_at=_utc(row.created_at), secret=secret,
        )  # fmt: skip


class ChannelList(BaseModel):
    """All channels."""

    items: list[ChannelRead]


class AttemptRead(BaseModel):
    """One attempt to deliver."""

    at: datetime
    said: str = Field(description="The answer, or what went wrong.")


class DeliveryRead(BaseModel):
    """One notification to one channel, with its last attempts."""

    id: int
    channel_id: str
    channel: str
    event: str
    title: str
    state: DeliveryState
    attempts: int
    error: str
    created_at: datetime
    next_at: datetime | None = Field(description="When it is tried next.")
    done_at: datetime | None
    log: list[AttemptRead]

    @classmethod
    def of(cls, row: DeliveryRow, channel: ChannelRow) -> Self:
        """The delivery in `row`."""
        waiting = row.state == DeliveryState.WAITING
        log = [AttemptRead(at=_utc(entry["at"]), said=entry["said"]) for entry in row.log.get("attempts", ())]
        return cls(
            id=row.id, channel_id=channel.id, channel=channel.name, event=row.event, title=row.payload["title"],
            state=DeliveryState(row.state), attempts=row.attempts, error=row.error, created_at=_utc(row.created_at),
            next_at=utc(row.next_at) if waiting else None, done_at=utc(row.done_at), log=log,
        )  # fmt: skip


class DeliveryPage(BaseModel):
    """Deliveries, newest first. `next_cursor` fetches the next page, None on the last."""

    items: list[DeliveryRead]
    next_cursor: str | None


def shown_target(row: ChannelRow) -> str:
    """Where a channel leads, without what may be a secret: the path of Slack's URLs is one."""
    if row.kind == ChannelKind.EMAIL:
        return row.target
    scheme, _, rest = row.target.partition("://")
    host, slash, _path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{'/…' if slash else ''}"


def parse(model: type[Value], document: Any) -> Any:
    """A value from a parsed document. Raises SpecError with one Problem a fault, each naming its field."""
    if not isinstance(document, Mapping):
        raise SpecError.at("", f"send a mapping of fields, this is {type(document).__name__}")
    try:
        return model.model_validate(dict(document))
    except ValidationError as error:
        raise SpecError([_problem(fault) for fault in error.errors()]) from None


def _problem(fault: Any) -> Problem:
    path, message = [str(part) for part in fault["loc"] if part != "[key]"], fault["msg"].removeprefix("Value error, ")
    field, colon, rest = message.partition(": ")
    if fault["type"] == "value_error" and colon and field.isidentifier():
        return Problem(field=".".join([*path, field]), message=rest)
    if fault["type"] == "extra_forbidden":
        message = "unknown field: check the spelling against docs/guide/nightly.md"
    return Problem(field=".".join(path), message=message)


def _utc(seconds: float) -> datetime:
    found = utc(seconds)
    assert found is not None  # noqa: S101 - of a number there is one
    return found
