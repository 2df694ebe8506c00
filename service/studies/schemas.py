"""What the API says of studies. Times are UTC; costs are device-seconds. The typed client reads the same classes."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mutransfer.audit import AuditResult
from mutransfer.plan import PlanEstimate
from mutransfer.result import Curve, Verdict
from mutransfer.reuse import Reuse
from mutransfer.spec import Parametrization, StudySpec
from service.db.states import StudyState
from service.db.studies import Tally
from service.db.tables import StudyRow
from service.db.waiting import Waiting, WaitReason

API = "/api/v1"

EXAMPLE_STUDY: dict[str, Any] = {
    "version": 1,
    "name": "quickstart",
    "model": {"family": "nanogpt", "depth": 2, "head_dim": 16, "context": 32},
    "data": {"source": "stdlib", "tokenizer": "printable"},
    "train": {"batch": 32, "steps": 300},
    "widths": {"base": 32, "proxy": [32, 64], "targets": [128, 256]},
    "arms": [
        {"optimizer": "adamw", "parametrization": "sp"},
        {"optimizer": "adamw", "parametrization": "mup"},
        {"optimizer": "muon", "parametrization": "mup"},
    ],
    "search": {"lr_octaves": {"low": -8, "high": -3}, "seeds": {"min": 2, "max": 4}},
}
EXAMPLE_ID = "st_01KAMRQ4ZJ5T2V8Y6W3X7B9CDE"
EXAMPLE_READ: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "name": "quickstart",
    "project": "default",
    "state": "completed",
    "priority": 0,
    "revision": 1,
    "spec": EXAMPLE_STUDY,
    "digest": "5f0c6f2f4f7d5d0f3f3a4b1f0d2e9c7a",
    "created_at": "2026-11-22T04:00:00Z",
    "updated_at": "2026-11-22T04:09:31Z",
    "started_at": "2026-11-22T04:00:02Z",
    "finished_at": "2026-11-22T04:09:31Z",
    "phase": "verify",
    "trials_planned": 144,
    "trials_done": 144,
    "trials_failed": 0,
    "trials_expected": 138,
    "device_seconds": 212.5,
    "error": "",
    "mlflow_url": "http://127.0.0.1:5000/#/experiments/1/runs/0f2c",
    "links": {"self": f"{API}/studies/{EXAMPLE_ID}", "page": f"/studies/{EXAMPLE_ID}"},
}

EXAMPLE_STREAM = """\
event: trial_result
data: {"at": 1795320000.0, "key": "9f2c…", "status": "finished", "loss_nats": 2.104, "reused": false}
id: 41

event: progress
data: {"state": "running", "phase": "search", "trials_planned": 36, "trials_done": 20}
"""


def utc(seconds: float | None) -> datetime | None:
    """Seconds since the epoch as a time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


class WaitingRead(BaseModel):
    """Why a study is not getting on."""

    reason: WaitReason
    message: str = Field(description="In words, with its figures.")
    until_seconds: float | None = Field(description="When it is over by itself, where that is known.")


class StudyRead(BaseModel):
    """One study: what was asked, and how far it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_READ]})

    id: str
    name: str
    project: str
    state: StudyState
    priority: int = Field(description="Studies of higher priority are driven first.")
    revision: int = Field(description="Rises when the study is retried or extended.")
    spec: StudySpec
    digest: str = Field(description="Identity of the question: equal specs have equal digests.")
    created_at: datetime
    updated_at: datetime = Field(description="When its state or its result last changed.")
    started_at: datetime | None
    finished_at: datetime | None
    phase: str | None = Field(description="The phase begun last.")
    trials_planned: int = Field(description="Distinct trials asked for so far.")
    trials_done: int = Field(description="Those with a result, diverged ones included.")
    trials_failed: int = Field(description="Those given up after their last attempt.")
    trials_expected: int | None = Field(description="Estimate for the whole study, made when it was submitted.")
    device_seconds: float = Field(description="Spent so far; reused results cost nothing.")
    error: str = Field(description="Why the study failed.")
    mlflow_url: str
    waiting: WaitingRead | None = Field(
        default=None,
        description="What has to change before it gets on; null in lists, and for one that runs or has ended.",
    )
    links: dict[str, str]

    @classmethod
    def of(cls, row: StudyRow, tally: Tally, waiting: Waiting | None = None) -> "StudyRead":
        """The study in `row` with its `tally`."""
        return cls(spec=StudySpec.model_validate(row.spec), **_fields(row, tally, waiting))

    @classmethod
    def without_spec(cls, row: StudyRow, tally: Tally, waiting: Waiting | None = None) -> str:
        """Everything but the spec, as the text of a JSON object."""
        return cls.model_construct(**_fields(row, tally, waiting)).model_dump_json(exclude={"spec"})


def _fields(row: StudyRow, tally: Tally, waiting: Waiting | None) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "project": row.project,
        "state": StudyState(row.state),
        "priority": row.priority,
        "revision": row.revision,
        "digest": row.digest,
        "created_at": utc(row.created_at),
        "updated_at": utc(row.updated_at),
        "started_at": utc(row.started_at),
        "finished_at": utc(row.finished_at),
        "phase": tally.phase,
        "trials_planned": tally.trials_planned,
        "trials_done": tally.trials_done,
        "trials_failed": tally.trials_failed,
        "trials_expected": row.trials_expected,
        "device_seconds": tally.device_seconds,
        "error": row.error,
        "mlflow_url": row.mlflow_url,
        "waiting": None if waiting is None else WaitingRead(**asdict(waiting)),
        "links": _links(row),
    }


def _links(row: StudyRow) -> dict[str, str]:
    here = f"{API}/studies/{row.id}"
    parts = ("trials", "curves", "verdict", "result", "recipe", "events")
    links = {"self": here, "page": f"/studies/{row.id}", **{part: f"{here}/{part}" for part in parts}}
    return links | ({"mlflow": row.mlflow_url} if row.mlflow_url else {})


class PlanRead(PlanEstimate):
    """What a study would take, and what of it is known already."""

    reuse: Reuse


class StudyPage(BaseModel):
    """Studies, newest first. `next_cursor` fetches the next page, None on the last."""

    items: list[StudyRead]
    next_cursor: str | None


class ArmCurves(BaseModel):
    """Loss against LR of one arm, a curve an axis value."""

    name: str
    optimizer: str
    parametrization: Parametrization
    curves: tuple[Curve, ...]


class CurvesRead(BaseModel):
    """All curves of a study, as far as its trials have finished."""

    axis: str
    arms: list[ArmCurves]


class ArmVerdict(BaseModel):
    """Does this arm's learning rate transfer?"""

    name: str
    optimizer: str
    parametrization: Parametrization
    verdict: Verdict


class VerdictRead(BaseModel):
    """The verdict of each arm; until the study has completed, only what the finished trials allow to say."""

    state: StudyState
    final: bool
    arms: list[ArmVerdict]


class AuditRead(BaseModel):
    """The audit of each arm, as `mutransfer audit` prints it."""

    audits: tuple[AuditResult, ...]


class EventRead(BaseModel):
    """One message of a study's event stream. `id` is None for `progress`, which is not kept."""

    id: int | None = None
    kind: str
    at: datetime | None = None
    payload: dict[str, Any] = {}


class Health(BaseModel):
    """That the service answers and reaches its database."""

    status: str = "ok"
    version: str
