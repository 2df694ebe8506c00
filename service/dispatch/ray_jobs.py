"""Drivers as jobs of a Ray cluster, through the REST API of its head: the controller's side needs no ray.

A job outlives the dispatcher that started it; its lease, which it renews itself, says whose the study is. A head that
does not answer is the machine's fault: nothing is concluded from silence but by the lease.
"""

from collections.abc import Mapping
from http import HTTPStatus
import time
from typing import Any

import httpx
import structlog

from mutransfer.errors import TransientError
from service.db.leases import Claim
from service.dispatch.attempts import EX_TEMPFAIL
from service.dispatch.launchers import SECRETS

ENTRYPOINT = "python -m workers.driver"
LOOK_SECONDS = 1.0  # between two looks at one job
TIMEOUT_SECONDS = 10.0
STOP_SECONDS = 10  # a job's driver checkpoints its trials within 7 s of SIGTERM; Ray's own patience is 3 s
KILLED = -9  # what a driver counts as that left no exit status
#: Never handed to jobs: the service's own secrets, and where this process itself lives.
WITHHELD = (*SECRETS, "MUTRANSFER_HOME", "MUTRANSFER_HOST", "MUTRANSFER_PORT", "MUTRANSFER_LAUNCHER")

log = structlog.get_logger(__name__)


class RayJobDriver:
    """A driver that is a job. See launchers.DriverHandle."""

    def __init__(self, jobs: httpx.Client, submission_id: str) -> None:
        self._jobs = jobs
        self._path = f"/api/jobs/{submission_id}"
        self._status: int | None = None
        self._looked_at = float("-inf")

    def poll(self) -> int | None:
        """The exit status; None while it runs, and while the head does not answer."""
        now = time.monotonic()
        if self._status is None and now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            try:
                self._status = self._look()
            except TransientError as error:
                log.warning("ray's head does not answer", reason=str(error))
        return self._status

    def end(self, *, grace_seconds: float) -> None:
        """SIGTERM, and SIGKILL after STOP_SECONDS, by Ray; waits at most that long, or `grace_seconds` if longer."""
        deadline = time.monotonic() + max(grace_seconds, float(STOP_SECONDS)) + LOOK_SECONDS
        try:
            _send(self._jobs, "POST", f"{self._path}/stop")
            while self._look() is None and time.monotonic() < deadline:
                time.sleep(0.2)
        except TransientError as error:
            log.warning("a driver could not be stopped: its lease runs out", job=self._path, reason=str(error))

    def log_tail(self, lines: int) -> str:
        """The last lines that it wrote, empty where they cannot be had."""
        try:
            response = _send(self._jobs, "GET", f"{self._path}/logs")
        except TransientError:
            return ""
        text = str(response.json().get("logs", "")) if response.is_success else ""
        return "\n".join(text.splitlines()[-lines:])

    def _look(self) -> int | None:
        response = _send(self._jobs, "GET", self._path)
        if response.status_code == HTTPStatus.NOT_FOUND:
            return EX_TEMPFAIL  # the head has forgotten it: it was started anew
        document = response.json()
        match document["status"]:
            case "SUCCEEDED" | "STOPPED":
                return 0
            case "FAILED":
                code = document.get("driver_exit_code")
                return KILLED if code is None else int(code)
            case _:
                return None


class RayJobsLauncher:
    """Submits `python -m workers.driver --study ID --epoch N` to the head at `url`."""

    def __init__(
        self, url: str, *, env: Mapping[str, str], withhold: tuple[str, ...] = (), token: str = "",
        entrypoint: str = ENTRYPOINT, timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:  # fmt: skip
        """`env`: the dispatcher's; jobs get its MUTRANSFER_* settings but `withhold`, which the cluster has itself."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._jobs = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout_seconds)
        barred = {*WITHHELD, *withhold}
        self._env = {
            name: value for name, value in env.items() if name.startswith("MUTRANSFER_") and name not in barred
        } | {"MUTRANSFER_RAY_ADDRESS": "auto", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}  # fmt: skip
        self._entrypoint = entrypoint

    def launch(self, claim: Claim) -> RayJobDriver:
        """See Launcher. Submitting one claim twice makes one job. Raises TransientError when the head is away.

        A job whose submission was not answered in time may start all the same: by then its epoch is over, and it ends.
        """
        submission_id = f"{claim.study_id}-{claim.epoch}"
        job: dict[str, Any] = {
            "submission_id": submission_id,
            "entrypoint": f"{self._entrypoint} --study {claim.study_id} --epoch {claim.epoch}",
            "runtime_env": {"env_vars": self._env},
            "metadata": {"study": claim.study_id, "epoch": str(claim.epoch)},
        }
        response = _send(self._jobs, "POST", "/api/jobs/", json=job)
        driver = RayJobDriver(self._jobs, submission_id)
        if response.is_success or _exists(self._jobs, submission_id):
            return driver
        reason = f"ray refused the job ({response.status_code}): {response.text.strip()[-500:]}"
        if response.is_server_error:  # "No available agent to submit job, please try again later"
            raise TransientError(reason)
        raise OSError(reason)

    def close(self) -> None:
        """Close all connections: its drivers cannot be looked at any more."""
        self._jobs.close()


def _exists(jobs: httpx.Client, submission_id: str) -> bool:
    """Whether an earlier request, whose answer was lost, made the job."""
    return _send(jobs, "GET", f"/api/jobs/{submission_id}").is_success


def _send(jobs: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    """Raises TransientError when the head is away or overloaded, and for a token that it refuses."""
    try:
        response = jobs.request(method, path, **options)
    except httpx.TransportError as error:
        raise TransientError(f"{jobs.base_url} does not answer: {error}") from error
    if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise TransientError(f"{jobs.base_url} refuses the token: set RAY_AUTH_TOKEN to the cluster's")
    if response.status_code in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT):
        raise TransientError(f"{jobs.base_url} is busy: {response.status_code}")
    return response
