"""Delivers the outbox to MLflow: one experiment a project, one run a study, one nested run a trial.

A message is marked as delivered only after MLflow has everything of it; each delivery may be repeated at will, since it
finds what is there already. So an outage, or a kill at any moment, delays the mirror and neither loses nor doubles.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
import tempfile
import threading
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError
import structlog

from mutransfer.errors import NotFoundError, TransientError
from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec
from service.db.outbox import LONGEST_DELAY_SECONDS, Message, Outbox, OutboxKind
from service.export import documents
from service.export.documents import PARENT_TAG, TAG_KIND, TAG_STUDY, TAG_TRIAL, TAG_URL, milliseconds
from service.export.records import Records, StudyRecord
from service.export.tracking import Tracking, tracking_errors
from service.loops import repeat

if TYPE_CHECKING:
    from mlflow.entities import Run

POLL_SECONDS = 1.0
ReportWriter = Callable[[StudyResult, StudySpec, Path], None]

log = structlog.get_logger(__name__)


class Exporter:
    """Mirrors studies. Run one of these for a database."""

    def __init__(
        self, *, outbox: Outbox, records: Records, tracking: Tracking, service_url: str, write_artifacts: ReportWriter
    ) -> None:
        self._outbox = outbox
        self._records = records
        self._tracking = tracking
        self._service_url = service_url.rstrip("/")
        self._write_artifacts = write_artifacts  # fills a folder with the report and plots of a finished study
        self._parents: dict[str, Run] = {}

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set; what is under way then is finished or given up, and loses nothing."""
        moved = self._records.rebase_mlflow_urls(self._tracking.url)
        log.info("exporter started", mlflow=self._tracking.url, links_moved=moved)
        repeat(lambda: self._drain_unless(stop), stop=stop, every_seconds=POLL_SECONDS)
        log.info("exporter stopped")

    def drain(self) -> int:
        """Deliver everything that is due; returns how many messages. Ends early at the first failure."""
        return self._drain_unless(threading.Event())

    def _drain_unless(self, stop: threading.Event) -> int:
        delivered = 0
        while messages := self._outbox.due():
            for message in messages:
                if stop.is_set() or not self._try(message):
                    return delivered
                delivered += 1
        return delivered

    def _try(self, message: Message) -> bool:
        try:
            self.deliver(message)
        except (TransientError, DBAPIError):
            raise  # our own database is away: nothing can be noted either
        except tracking_errors() as error:
            self._postpone(message, error)
            return False
        except Exception as error:  # the edge of this process: a fault of one message must not stop all others
            log.exception("cannot be exported", study=message.study_id, kind=message.kind, key=message.key)
            self._postpone(message, error)
            return False
        self._outbox.done(message.id)
        return True

    def _postpone(self, message: Message, error: Exception) -> None:
        self._parents.pop(message.study_id, None)  # it may have been deleted over there
        delay = min(LONGEST_DELAY_SECONDS, 0.5 * 2.0 ** min(message.attempts, 10))
        log.warning("MLflow export delayed", study=message.study_id, seconds=delay, error=str(error)[:300])
        self._outbox.retry(message.id, error=str(error)[:2000], delay_seconds=delay)

    def deliver(self, message: Message) -> None:
        """Bring MLflow up to one message. Raises what `tracking_errors` names during an outage."""
        study = self._records.study(message.study_id)
        if message.kind is OutboxKind.TRIAL_RESULT:
            self._trial(study, message.key)
        elif message.kind is OutboxKind.STUDY_FINISHED:
            self._finish(study)
        else:
            self._parent(study)

    def _page(self, study_id: str) -> str:
        return f"{self._service_url}/studies/{study_id}"

    def _parent(self, study: StudyRecord) -> "Run":
        if study.id in self._parents:
            return self._parents[study.id]
        find = {TAG_STUDY: study.id, TAG_KIND: "study"}
        page = self._page(study.id)
        run = self._tracking.ensure_run(
            self._tracking.experiment(study.spec.project), find=find, tags={**find, TAG_URL: page},
            name=study.spec.name, start_ms=milliseconds(study.created_at),
        )  # fmt: skip
        tags = {TAG_URL: page, documents.NOTE_TAG: f"Study [{study.spec.name}]({page}) of mutransfer, `{study.id}`."}
        self._tracking.log(run, params=documents.study_params(study.spec, study.digest), metrics=(), tags=tags)
        self._tracking.log_text(run, study.spec.model_dump_json(indent=2), documents.SPEC_ARTIFACT)
        self._records.set_mlflow_url(study.id, self._tracking.run_url(run))
        self._parents[study.id] = run
        return run

    def _trial(self, study: StudyRecord, key: str) -> None:
        trial = self._records.trial(study.id, key)
        parent = self._parent(study)
        tags = documents.trial_tags(study.id, trial, self._page(study.id))
        run = self._tracking.ensure_run(
            parent.info.experiment_id, find={TAG_STUDY: study.id, TAG_TRIAL: key},
            tags={**tags, PARENT_TAG: parent.info.run_id}, name=documents.trial_name(trial),
            start_ms=milliseconds(trial.created_at),
        )  # fmt: skip
        self._tracking.log(
            run, params=documents.trial_params(trial), metrics=documents.trial_metrics(trial), tags=tags
        )  # fmt: skip
        status = "FAILED" if trial.result is None else "FINISHED"
        self._tracking.end(run, status=status, end_ms=milliseconds(trial.finished_at))

    def _finish(self, study: StudyRecord) -> None:
        parent = self._parent(study)
        self._complete_trials(study, parent)
        at_ms = milliseconds(study.finished_at or study.created_at)
        metrics = documents.result_metrics(study.result, at_ms) if study.result else ()
        params = documents.recorded_params(study.recorded) | documents.tuned_params(study.tuned)
        self._tracking.log(parent, params=params, metrics=metrics, tags=documents.end_tags(study))
        if study.result is not None:
            self._tracking.log_text(parent, study.result.model_dump_json(indent=2), "result.json")
            with tempfile.TemporaryDirectory(prefix="mutransfer-export-") as folder:
                self._write_artifacts(study.result, study.spec, Path(folder))
                self._tracking.log_folder(parent, Path(folder))
        self._tracking.end(parent, status=documents.RUN_STATUS[study.state], end_ms=at_ms)
        self._parents.pop(study.id, None)
        log.info("study exported", study=study.id, url=self._tracking.run_url(parent))

    def _complete_trials(self, study: StudyRecord, parent: "Run") -> None:
        """Export the trials that MLflow lacks, or knows with fewer places on the curves than they have by now."""
        find = {TAG_STUDY: study.id, TAG_KIND: "trial"}
        known = {
            run.data.tags[TAG_TRIAL]: run for run in self._tracking.find_runs([parent.info.experiment_id], find)
        }  # fmt: skip
        for key in self._records.trial_keys(study.id):
            with suppress(NotFoundError):
                wanted = documents.trial_tags(study.id, self._records.trial(study.id, key), self._page(study.id))
                told = known[key].data.tags if key in known else {}
                if any(told.get(tag) != wanted[tag] for tag in (documents.TAG_USES, documents.TAG_STATUS)):
                    self._trial(study, key)
