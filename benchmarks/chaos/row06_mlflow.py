"""Row 6: MLflow away for a minute while trials run; then it comes back, and the exporter is killed at its work."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
import time
from typing import Any

from benchmarks.chaos.figures import Figure, Row, at_least, at_most, exactly, told
from benchmarks.chaos.harness import Lab, Site, kill, stub_study, wait_until
from benchmarks.chaos.stub_optimizer import Step, Trial, read_steps
from service.export.documents import TAG_KIND, TAG_STUDY, TAG_TRIAL, MetricPoint, trial_metrics
from service.export.records import Records
from service.export.tracking import Tracking, make_client
from service.ports import free_port
from service.processes import Child
from tests.integration.ops.conftest import mlflow_server

WAITING = "SELECT count(*) FROM outbox WHERE done_at IS NULL"
STEPS = 20
ENOUGH_TRIALS = 30
WORK = 400  # side of the matrix that every step multiplies: some milliseconds of the processor
Points = set[tuple[str, float, int, int]]  # key, value, step, milliseconds since the epoch


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it: two studies of `rates` × 4 trials, one with MLflow there, one without."""

    rates: int
    seconds: float
    kills: int
    outage: float


def run(lab: Lab, size: Size) -> list[Figure]:
    """The same trials twice, the second time without MLflow; then it comes back and the exporter dies on."""
    port, folder = free_port(), lab.folder / "mlflow"
    with lab.site(MUTRANSFER_MLFLOW_URL=f"http://127.0.0.1:{port}") as site:
        site.spawn("dispatcher")
        with mlflow_server(folder, port):
            exporter = site.spawn("exporter")
            _train(site, size, studies=1)
            there = read_steps(site.steps)
        began = time.monotonic()
        _train(site, size, studies=2)
        away = read_steps(site.steps)[len(there) :]
        time.sleep(max(0.0, size.outage - (time.monotonic() - began)))
        lasted, waited = time.monotonic() - began, site.count(WAITING)
        with mlflow_server(folder, port) as url:
            at_work = _kill_exporters(lab, site, exporter, size.kills)
            wait_until(lambda: site.count(WAITING) == 0, what="an empty outbox")
            mirrored = _mirrored(site, url)
    steps = [*there, *away]
    ratios = _paired(_medians(away), _medians(there))
    return [
        at_least("outage of MLflow (s)", lasted, size.outage),
        at_least("messages that waited for its end", waited, 4 * size.rates),
        at_least("exporters killed with messages left", at_work, size.kills),
        *mirrored,
        at_least("steps of trials", len(steps), 2 * 4 * size.rates * STEPS),
        exactly("steps taken in a process that knows MLflow", sum(step.mlflow for step in steps), 0),
        _step_time(abs(median(ratios) - 1.0), trials=len(ratios)),
    ]


def _step_time(change: float, *, trials: int) -> Figure:
    """A handful of trials on a busy machine tell no 5 %: the long form is held to it."""
    name = "step time without MLflow against with it, paired by trial (|ratio - 1|)"
    return at_most(name, change, 0.05) if trials >= ENOUGH_TRIALS else told(name, change)


def _train(site: Site, size: Size, *, studies: int) -> None:
    """Run one more study, the `studies`-th: of another length, so that it reuses no trial of the one before."""
    steps = STEPS + studies - 1
    site.submit(stub_study(site, rates=size.rates, steps=steps, seconds=size.seconds, work=WORK))
    site.wait_ended(studies)


def _kill_exporters(lab: Lab, site: Site, exporter: Child, kills: int) -> int:
    """Kill one exporter after the other, each once it has delivered something; how many had more to do."""
    at_work = 0
    for number in range(kills):
        _wait_for_delivery(site)
        time.sleep(lab.rng.uniform(0.0, 0.05))
        kill([exporter.pid])
        exporter.sweep()
        left = site.count(WAITING)
        at_work += left > 0
        lab.say(f"kill {number + 1}: {left} messages left")
        exporter = site.spawn("exporter")
    return at_work


def _wait_for_delivery(site: Site) -> None:
    left = site.count(WAITING)
    wait_until(lambda: site.count(WAITING) < max(left, 1), what="a delivery", every=0.01)


def _medians(steps: list[Step]) -> Mapping[Trial, float]:
    """The median processor time of a step, by trial. The first step of each builds things: it is left out."""
    times: dict[Trial, list[float]] = {}
    last: dict[tuple[int, Trial], Step] = {}
    for step in steps:
        before = last.get((step.pid, step.trial))
        if before is not None and before.step > 1:
            times.setdefault(step.trial, []).append(step.thread_seconds - before.thread_seconds)
        last[step.pid, step.trial] = step
    return {trial: median(found) for trial, found in times.items()}


def _paired(a: Mapping[Trial, float], b: Mapping[Trial, float]) -> list[float]:
    return [a[trial] / b[trial] for trial in a.keys() & b.keys()]


def _mirrored(site: Site, url: str) -> list[Figure]:
    """Runs and metric points over there against the rows here."""
    client, records = make_client(url), Records(site.sessions)
    runs: dict[tuple[str, str], list[str]] = {}
    for run in Tracking(url).find_study_runs({TAG_KIND: "trial"}):
        runs.setdefault((run.data.tags[TAG_STUDY], run.data.tags[TAG_TRIAL]), []).append(run.info.run_id)
    rows = site.query("SELECT DISTINCT study_id, trial_key FROM study_trials ORDER BY 1, 2")
    differing = points = 0
    for study_id, key in rows:
        ours = _points(trial_metrics(records.trial(study_id, key)))
        theirs = [point for run_id in runs.get((study_id, key), ()) for point in _logged(client, run_id, ours)]
        points += len(theirs)
        differing += len(theirs) != len(ours) or set(theirs) != ours
    return [
        exactly(
            "trials in the database", len(rows), site.count("SELECT count(*) FROM trials WHERE result IS NOT NULL")
        ),
        exactly("trials with a run in MLflow", len(runs), len(rows)),
        exactly("runs beyond one a trial", sum(len(found) - 1 for found in runs.values()), 0),
        told("metric points", points),
        exactly("trials whose metric points differ from their row", differing, 0),
    ]


def _points(points: Iterable[MetricPoint]) -> Points:
    return {(point.key, point.value, point.step, point.at_ms) for point in points}


def _logged(client: Any, run_id: str, ours: Points) -> list[tuple[str, float, int, int]]:
    """Every point of a run, of every metric that it has or ought to have."""
    keys = {key for key, *_ in ours} | set(client.get_run(run_id).data.metrics)
    found = [point for key in sorted(keys) for point in client.get_metric_history(run_id, key)]
    return [(point.key, point.value, point.step, point.timestamp) for point in found]


ROW = Row(
    number=6,
    fault="MLflow away for 60 s while trials run; the exporter killed again and again (kill -9)",
    databases=("sqlite", "postgresql"),
    run=run,
    long=Size(rates=15, seconds=0.6, kills=10, outage=60.0),
    short=Size(rates=2, seconds=0.4, kills=1, outage=5.0),
)
