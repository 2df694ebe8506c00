"""From what a person sends to the columns of a schedule: the template checked as a submission would be."""

from collections.abc import Mapping
from typing import Any

from mutransfer.errors import Problem, SpecError
from mutransfer.spec import StudySpec, parse_study
from service.schedules.schemas import ScheduleChange, ScheduleCreate
from service.schedules.slots import Slots
from service.settings import Settings
from service.studies.checks import check_study, estimate_study


def checked_study(document: Mapping[str, Any], settings: Settings) -> StudySpec:
    """The template of a schedule. Raises SpecError with each field under `study`."""
    try:
        spec = parse_study(document)
        check_study(spec, settings)
        estimate_study(spec)
    except SpecError as error:
        raise SpecError([_below(problem) for problem in error.problems]) from None
    return spec


def _below(problem: Problem) -> Problem:
    return Problem(field=f"study.{problem.field}" if problem.field else "study", message=problem.message)


def columns_of(wanted: ScheduleCreate, settings: Settings, now: float) -> dict[str, Any]:
    """The columns of a new schedule. Raises SpecError."""
    spec = checked_study(wanted.study, settings)
    slots = Slots(cron=wanted.cron, time_zone=wanted.time_zone)
    return {
        "name": wanted.name, "project": spec.project, "cron": wanted.cron, "time_zone": wanted.time_zone,
        "spec": spec.model_dump(mode="json"), "concurrency": wanted.concurrency,
        "baseline_policy": wanted.baseline.policy, "promote_after": wanted.baseline.promote_after,
        "sensitivity": wanted.sensitivity.model_dump(mode="json"),
        "next_at": None if wanted.paused else slots.after(now),
    }  # fmt: skip


def changes_of(wanted: ScheduleChange, settings: Settings, project: str) -> dict[str, Any]:
    """The columns that shall change, the next slot left to the caller. Raises SpecError."""
    simple = {
        "name": wanted.name,
        "cron": wanted.cron,
        "time_zone": wanted.time_zone,
        "concurrency": wanted.concurrency,
    }
    found: dict[str, Any] = {name: value for name, value in simple.items() if value is not None}
    if wanted.baseline is not None:
        found |= {"baseline_policy": wanted.baseline.policy, "promote_after": wanted.baseline.promote_after}
    if wanted.sensitivity is not None:
        found["sensitivity"] = wanted.sensitivity.model_dump(mode="json")
    if wanted.study is not None:
        spec = checked_study(wanted.study, settings)
        if spec.project != project:
            raise SpecError.at("study.project", f"a schedule stays in its project, which is {project!r}")
        found["spec"] = spec.model_dump(mode="json")
    return found
