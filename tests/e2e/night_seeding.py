"""A schedule with its nights, as a scheduler would have left them: clean ones, one that is flagged, one that failed."""

from mutransfer.nights import Figure, FigureKind, Judgement, Method, Sensitivity
from mutransfer.result import Interval
from service.db import nights, schedules
from service.db.states_schedules import NightState
from service.schedules import templates
from service.schedules.schemas import ScheduleCreate
from tests.e2e.seeding import Seeded

DAY = 86_400.0
FIRST = 1_795_000_000.0 - 1_795_000_000.0 % DAY + 2.5 * 3600
FLAGGED = "adamw-mup's optimum at width 128 moved by +0.52 octaves [+0.41, +0.63]: beyond chance, and more than 0.1"


def _figure(kind: FigureKind, unit: str, value: float, base: float, *, size: int | None, flag: str = "") -> Figure:
    def around(middle: float, half: float) -> Interval:
        return Interval(value=middle, low=middle - half, high=middle + half)

    return Figure(
        kind=kind, arm="adamw-mup", axis_value=size, unit=unit, night=around(value, 0.08), baseline=around(base, 0.08),
        change=around(value - base, 0.11), tolerance=0.1, method=Method.PAIRED, flagged=bool(flag), reason=flag,
    )  # fmt: skip


def judgement(place: int, *, flagged: bool, baseline: str | None) -> Judgement:
    """A night's figures; they move a little from night to night."""
    shift, moved = 0.01 * (place % 3 - 1), 0.52 if flagged else 0.0
    figures = (
        _figure(FigureKind.OPTIMUM, "octaves", -4.6 + shift, -4.6, size=64),
        _figure(FigureKind.OPTIMUM, "octaves", -4.55 + shift + moved, -4.55, size=128, flag=FLAGGED if flagged else ""),
        _figure(FigureKind.LOSS, "nats", 2.1 + shift / 10, 2.1, size=128),
        _figure(FigureKind.THROUGHPUT, "share", 1.0 + shift, 1.0, size=None),
    )
    return Judgement(baseline_study=baseline, sensitivity=Sensitivity(), figures=figures)


def add_nights(site: Seeded, name: str = "every-night") -> str:
    """The schedule's id. Its nights point to studies that are there."""
    study = site.ids["quickstart"]
    document = site.simulations["quickstart"].spec.model_dump(mode="json")
    wanted = ScheduleCreate(name=name, cron="30 2 * * *", time_zone="Europe/Berlin", study=document)
    with site.sessions.begin() as session:
        row = schedules.create(session, templates.columns_of(wanted, site.settings, FIRST))
        schedules.set_baseline(session, row, study, pinned=False)
        for place in range(12):
            night = nights.add(session, row, FIRST + place * DAY, missed=2 if place == 4 else 0)
            nights.move(night, NightState.RUNNING)
            night.study_id, night.baseline_study_id = study, study if place else None
            if place == 5:
                nights.move(night, NightState.FAILED, reason="its study failed: the data was moved")
                continue
            found = judgement(place, flagged=place == 10, baseline=night.baseline_study_id)
            night.judgement, night.flagged, night.drifting = found.model_dump(mode="json"), found.flagged, False
            nights.move(night, NightState.JUDGED)
        return row.id
