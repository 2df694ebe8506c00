"""The one place that speaks to MLflow. Everything is found or created by tag, and written at fixed times.

Calls are never repeated inside the client: a request that may or may not have arrived is answered by looking again
(the exporter's retry), never by sending it twice.
"""

from collections.abc import Iterable, Mapping, Sequence
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.export.documents import MetricPoint

if TYPE_CHECKING:
    from mlflow.entities import Run

METRICS_PER_REQUEST = 900
RUNS_PER_PAGE = 1000
# Set before MLflow is imported; what the operator has set stays.
CLIENT_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def make_client(url: str) -> Any:
    """An MlflowClient of the tracking server at `url`. Importing MLflow takes seconds: once a process."""
    for name, value in CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=url)


def tracking_errors() -> tuple[type[Exception], ...]:
    """What an outage of the tracking server raises."""
    from mlflow.exceptions import MlflowException
    import requests

    return (MlflowException, requests.RequestException, OSError)


class Tracking:
    """Find-or-create over one MLflow server."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._client = make_client(url)
        self._experiments: dict[str, str] = {}

    def run_url(self, run: "Run") -> str:
        """Where a person looks at a run."""
        return f"{self.url}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"

    def experiment(self, name: str) -> str:
        """The id of the experiment called `name`, made or restored when necessary."""
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
            self._experiments[name] = found.experiment_id if found else self._client.create_experiment(name)
        return self._experiments[name]

    def find_runs(self, experiments: Sequence[str], tags: Mapping[str, str]) -> list["Run"]:
        """All living runs that carry `tags`, in the order of their ids."""
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        found: list[Run] = []
        token: str | None = None
        while token is None or token:
            page = self._client.search_runs(
                list(experiments), filter_string=query, max_results=RUNS_PER_PAGE, page_token=token
            )
            found.extend(page)
            token = page.token or ""
        return sorted(found, key=lambda run: str(run.info.run_id))

    def find_study_runs(self, tags: Mapping[str, str]) -> list["Run"]:
        """Runs in any experiment that carry `tags`."""
        experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
        return self.find_runs(experiments, tags)

    def ensure_run(
        self, experiment: str, *, find: Mapping[str, str], tags: Mapping[str, str], name: str, start_ms: int
    ) -> "Run":
        """The run that carries the tags `find`; made with `tags` when there is none.

        Should an answer once have been lost so late that two exist, the first stays and the others are removed.
        """
        found = self.find_runs([experiment], find)
        for extra in found[1:]:
            self._client.delete_run(extra.info.run_id)
        if found:
            return found[0]
        return self._client.create_run(experiment, start_time=start_ms, tags=dict(tags), run_name=name)

    def log(
        self, run: "Run", *, params: Mapping[str, str], metrics: Iterable[MetricPoint], tags: Mapping[str, str]
    ) -> None:
        """Write parameters, metrics and tags; the same values again change nothing."""
        from mlflow.entities import Metric, Param, RunTag

        points = [Metric(point.key, point.value, point.at_ms, point.step) for point in metrics]
        self._client.log_batch(
            run.info.run_id,
            metrics=points[:METRICS_PER_REQUEST],
            params=[Param(key, value) for key, value in params.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        for start in range(METRICS_PER_REQUEST, len(points), METRICS_PER_REQUEST):
            self._client.log_batch(run.info.run_id, metrics=points[start : start + METRICS_PER_REQUEST])

    def end(self, run: "Run", *, status: str, end_ms: int) -> None:
        """Mark a run as ended at a fixed time."""
        self._client.set_terminated(run.info.run_id, status=status, end_time=end_ms)

    def log_text(self, run: "Run", text: str, name: str) -> None:
        """Write a text artifact, over an older one."""
        self._client.log_text(run.info.run_id, text, name)

    def log_folder(self, run: "Run", folder: Path) -> None:
        """Write every file of a folder as an artifact, over older ones."""
        self._client.log_artifacts(run.info.run_id, str(folder))

    def read_text(self, run: "Run", name: str, scratch: Path) -> str:
        """The text of an artifact. `scratch`: an existing folder to download into."""
        return Path(self._client.download_artifacts(run.info.run_id, name, str(scratch))).read_text()
