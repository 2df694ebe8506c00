"""What the API says of trials."""

from datetime import datetime

from pydantic import BaseModel, Field

from mutransfer.spec import StudySpec
from mutransfer.trial import TrialResult, TrialSpec
from service.db.states import TrialState
from service.db.trial_pages import StudyTrial
from service.studies.schemas import utc


class TrialRead(BaseModel):
    """One trial at its place in a study. Losses are in nats per token."""

    key: str = Field(description="Content key: equal for equal work, in whatever study.")
    arm: str
    axis_value: int
    width: int
    depth: int
    lr_octaves: float
    seed: int
    phases: tuple[str, ...]
    status: TrialState
    loss_nats: float | None = Field(description="Held-out loss, None until finished and when diverged.")
    train_loss_nats: float | None
    step: int
    steps: int | None
    attempts: int = Field(description="Attempts that failed.")
    reused: bool = Field(description="The result was known before this study asked.")
    device_seconds: float
    updated_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, trial: StudyTrial, spec: StudySpec) -> "TrialRead":
        """The trial as `spec`'s study sees it."""
        return cls.model_validate(_fields(trial, spec))


class TrialDetail(TrialRead):
    """One trial with all that is known of it: its training curve is `result.history`."""

    spec: TrialSpec
    result: TrialResult | None
    traceback: str

    @classmethod
    def of(cls, trial: StudyTrial, spec: StudySpec) -> "TrialDetail":
        """The trial as `spec`'s study sees it, in full."""
        row = trial.row
        extra = {"spec": row.spec, "result": row.result, "traceback": row.traceback}
        return cls.model_validate({**_fields(trial, spec), **extra})


class TrialPage(BaseModel):
    """Trials by arm, axis value, LR and seed. `next_cursor` fetches the next page, None on the last."""

    items: list[TrialRead]
    next_cursor: str | None


class TrialEvent(BaseModel):
    """Something that happened to a trial."""

    study_id: str
    at: datetime
    kind: str
    attempt: int | None = Field(description="Which attempt, from 1.")
    final: bool = Field(description="The study gave the trial up with this failure.")
    text: str = Field(description="The last line of the traceback, or the outcome.")


class TrialLogRead(BaseModel):
    """A trial with what happened to it, oldest first, and the traceback of its last failure."""

    key: str
    status: TrialState
    attempts: int = Field(description="Attempts that failed.")
    step: int
    steps: int | None
    study_ids: list[str]
    events: list[TrialEvent]
    traceback: str


def _fields(trial: StudyTrial, spec: StudySpec) -> dict[str, object]:
    arm, axis_value, lr_octaves, seed = trial.place
    width, depth = spec.size_at(axis_value)
    row = trial.row
    given_up = trial.unavailable and not TrialState(row.status).has_result
    return {
        "key": row.key, "arm": arm, "axis_value": axis_value, "width": width, "depth": depth,
        "lr_octaves": lr_octaves, "seed": seed, "phases": trial.phases,
        "status": TrialState.FAILED if given_up else TrialState(row.status),
        "loss_nats": row.loss_nats, "train_loss_nats": row.train_loss_nats, "step": row.step, "steps": row.steps,
        "attempts": row.attempts, "reused": trial.reused, "device_seconds": row.device_seconds,
        "updated_at": utc(row.updated_at), "finished_at": utc(row.finished_at),
    }  # fmt: skip
