"""Judge a study again from what MLflow holds, and nothing else, and compare with what the service says.

The study comes from the parent run's artifact, the points of its curves from the nested runs' tags and metrics, the
recorded learning rates from the parent's parameters: none of it from our database.
"""

from collections import defaultdict
from pathlib import Path
import tempfile
from typing import TYPE_CHECKING, Any

from mutransfer.errors import NotFoundError, SpecError
from mutransfer.judge import CurveData, judge_study
from mutransfer.result import Cost, StudyRef, StudyResult
from mutransfer.spec import StudySpec, parse_study
from mutransfer.trial import Observation, TrialStatus
from service.export import documents
from service.export.documents import TAG_KIND, TAG_STATUS, TAG_STUDY, TAG_USES
from service.export.tracking import Tracking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities import Run

MAX_DIFFERENCES = 20


def tracking_url(given: str | None, run_url: str) -> str:
    """The tracking server: as `given`, else the one that `run_url` (a study's MLflow link) points into."""
    found = given or run_url.partition("/#/")[0]
    if not found:
        raise SpecError.at("--mlflow-url", "the study has not been exported to MLflow: name a tracking server")
    return found.rstrip("/")


def judge_from_mlflow(url: str, study_id: str) -> StudyResult:
    """The result document of a study as MLflow's runs give it. Raises NotFoundError when the study is not there."""
    tracking = Tracking(url)
    parents = tracking.find_study_runs({TAG_STUDY: study_id, TAG_KIND: "study"})
    if len(parents) != 1:
        raise NotFoundError(f"{len(parents)} runs for study {study_id} at {url}: expected one")
    parent = parents[0]
    with tempfile.TemporaryDirectory(prefix="mutransfer-verify-") as scratch:
        spec = _spec(tracking.read_text(parent, documents.SPEC_ARTIFACT, Path(scratch)))
    runs = tracking.find_runs([parent.info.experiment_id], {TAG_STUDY: study_id, TAG_KIND: "trial"})
    return judge_study(
        spec,
        curves(runs),
        recorded=documents.parse_recorded(parent.data.params),
        tuned=documents.parse_tuned(parent.data.params),
        study=StudyRef(id=study_id, name=spec.name, state=parent.data.tags.get(TAG_STATUS, "running")),
        cost=cost(runs),
    )


def _spec(text: str) -> StudySpec:
    import json

    return parse_study(json.loads(text))


def curves(runs: "Sequence[Run]") -> list[CurveData]:
    """The points of every curve, out of the nested runs."""
    points: defaultdict[tuple[str, int], set[Observation]] = defaultdict(set)
    missing: defaultdict[tuple[str, int], set[tuple[float, int]]] = defaultdict(set)
    for run in runs:
        failed = run.data.tags[TAG_STATUS] == TrialStatus.FAILED
        loss = run.data.metrics.get("loss_nats")
        for use in documents.parse_uses(run.data.tags[TAG_USES]):
            place = (use.arm, use.axis_value)
            if failed:
                missing[place].add((use.lr_octaves, use.seed))
            else:
                points[place].add(Observation(lr_octaves=use.lr_octaves, seed=use.seed, loss_nats=loss))
    return [
        CurveData(
            arm=arm,
            axis_value=value,
            observations=tuple(sorted(points[arm, value], key=lambda o: (o.lr_octaves, o.seed))),
            unavailable=frozenset(missing[arm, value]),
        )
        for arm, value in sorted({*points, *missing})
    ]


def cost(runs: "Sequence[Run]") -> Cost:
    """What the runs took together; reused ones cost nothing."""
    finished = [run for run in runs if run.data.tags[TAG_STATUS] != TrialStatus.FAILED]
    own = [run for run in finished if run.data.params["reused"] != "True"]
    return Cost(
        device_seconds=sum(run.data.metrics["device_seconds"] for run in own),
        tokens=sum(int(run.data.metrics["tokens"]) for run in own),
        trials=len(finished),
        reused=len(finished) - len(own),
    )


def compare(ours: StudyResult, theirs: StudyResult) -> list[str]:
    """Every number of curves and verdicts in which two documents differ, as `path: ours, theirs`; none is agreement."""
    return list(_differences(ours.model_dump(mode="json")["arms"], theirs.model_dump(mode="json")["arms"], "arms"))[
        :MAX_DIFFERENCES
    ]


def _differences(ours: Any, theirs: Any, path: str) -> "Sequence[str]":
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = {*ours, *theirs}
        return [d for key in sorted(keys) for d in _differences(ours.get(key), theirs.get(key), f"{path}.{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [d for index, (a, b) in pairs for d in _differences(a, b, f"{path}.{index}")]
    return [] if ours == theirs else [f"{path}: the service says {ours}, MLflow {theirs}"]
