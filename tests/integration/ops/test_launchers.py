"""One contract for all launchers: a subprocess here, and a job of a real Ray head."""

from collections.abc import Iterator
from contextlib import suppress
import os
from pathlib import Path
import shutil
import signal
import sys
from time import sleep

import httpx
import pytest

from mutransfer.errors import SpecError, TransientError
from mutransfer.spec import parse_study
from service.db.leases import Claim, Leases
from service.db.states import StudyState
from service.db.studies import Submission, submit
from service.dispatch.dispatcher import Dispatcher
from service.dispatch.launchers import DriverHandle, Launcher, LocalLauncher
from service.dispatch.ledger import Ledger
from service.dispatch.ray_jobs import RayJobsLauncher
from service.entrypoints import make_launcher
from service.ports import free_port
from service.processes import Child, end_all
from service.settings import Settings
from tests.integration.ops.conftest import REPOSITORY, Home, is_running, wait_until
from tests.integration.ops.test_ops_end_to_end import TINY

MODULE = "tests.integration.ops.launched"
#: What the service knows and drivers must not.
HIDDEN = {"MUTRANSFER_TOKEN": "secret", "MUTRANSFER_SMTP_URL": "smtps://me:secret@mail.example.org"}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray head of our own, ended with all that it started."""
    folder = Path(f"/tmp/mt-head-{os.getpid()}")
    url = f"http://127.0.0.1:{free_port()}"
    environment = {
        **os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(REPOSITORY),
        "RAY_gcs_server_port_wait_time_s": "120", "RAY_agent_register_timeout_ms": "300000",
        "RAY_worker_register_timeout_seconds": "600",
    }  # fmt: skip
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--node-ip-address=127.0.0.1",
        f"--port={free_port()}", f"--dashboard-port={url.rpartition(':')[2]}",
        f"--dashboard-agent-listen-port={free_port()}", "--num-cpus=1", "--num-gpus=0",
        "--object-store-memory=80000000", f"--temp-dir={folder}",
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("head") / "log"
    with log.open("wb") as stream:
        process = Child(command, env=environment, log=stream)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{url}/api/jobs/", timeout=5.0).is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, seconds=180.0, what="Ray's head")
        yield url
    finally:
        end_all([process], grace_seconds=10.0)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["local", pytest.param("ray-jobs", marks=pytest.mark.ray)])
def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Launcher]:
    """A launcher of `launched`; the service's secrets are in its environment, and must not be handed on."""
    env = {
        **os.environ, "MUTRANSFER_STORAGE": str(tmp_path), "MUTRANSFER_DATABASE_URL": "sqlite:///x", "PYTHONPATH":
        str(REPOSITORY), **HIDDEN,
    }  # fmt: skip
    if request.param == "local":
        yield LocalLauncher(logs=tmp_path, env=env, command=(sys.executable, "-m", MODULE))
        return
    made = RayJobsLauncher(
        request.getfixturevalue("head"), env=env,
        entrypoint=f"{sys.executable} -m {MODULE}", withhold=("MUTRANSFER_DATABASE_URL",),
        timeout_seconds=120.0,
    )  # fmt: skip
    yield made
    made.close()


def claim(study_id: str) -> Claim:
    return Claim(study_id=f"st_{study_id}-{os.urandom(3).hex()}", epoch=3, state=StudyState.QUEUED)


def launch(launcher: Launcher, claim: Claim) -> DriverHandle:
    """Launch as a dispatcher does: again while the machine is at fault, as a head is that has just started."""
    made: list[DriverHandle] = []

    def launched() -> bool:
        with suppress(TransientError):
            made.append(launcher.launch(claim))
        return bool(made)

    wait_until(launched, seconds=180.0, what="a head that takes jobs")
    return made[0]


def ended(driver: DriverHandle) -> int:
    found: list[int] = []

    def over() -> bool:
        status = driver.poll()
        found.extend([] if status is None else [status])
        return bool(found)

    wait_until(over, seconds=180.0, what="the driver's end")
    return found[0]


def test_exit_statuses_and_logs_come_back(launcher: Launcher) -> None:
    fine, broken = claim("ok"), claim("crash")
    one, other = launch(launcher, fine), launch(launcher, broken)
    assert ended(one) == 0
    assert ended(other) == 7
    assert one.poll() == 0
    assert f"{fine.study_id} at epoch 3" in one.log_tail(5)
    assert f"{broken.study_id} at epoch 3" in other.log_tail(5)
    assert "MUTRANSFER_STORAGE" in one.log_tail(5)
    for name in HIDDEN:
        assert name not in one.log_tail(5)
    if isinstance(launcher, RayJobsLauncher):
        said = one.log_tail(5)
        assert "MUTRANSFER_RAY_ADDRESS MUTRANSFER_STORAGE" in said
        assert "MUTRANSFER_DATABASE_URL" not in said
        again = launch(launcher, fine)  # as after an answer that was lost
        assert again.poll() == 0


def test_an_ended_driver_leaves_no_process(launcher: Launcher, tmp_path: Path) -> None:
    waiting = claim("wait")
    driver = launch(launcher, waiting)
    pids = tmp_path / waiting.study_id
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, seconds=180.0, what="the driver")
    assert driver.poll() is None
    driver.end(grace_seconds=5.0)
    sleep(0.2)
    assert not any(is_running(int(pid)) for pid in pids.read_text().split())
    assert ended(driver) in (0, -signal.SIGTERM)


@pytest.fixture
def on_cluster(head: str, sqlite_home: Home) -> Iterator[Dispatcher]:
    """A dispatcher whose drivers are real ones, and jobs of the head."""
    env = sqlite_home.environment(MUTRANSFER_STORAGE=str(sqlite_home.path / "storage"))
    launcher = RayJobsLauncher(head, env=env, entrypoint=f"{sys.executable} -m workers.driver", timeout_seconds=120.0)
    made = Dispatcher(
        leases=Leases(sqlite_home.sessions), ledger=Ledger(sqlite_home.sessions), launcher=launcher,
        finish=sqlite_home.finish, ttl_seconds=60.0, limit=1,
    )  # fmt: skip
    yield made
    made.shutdown()
    launcher.close()


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_real_study_is_driven_as_a_job_and_trains_on_its_cluster(
    head: str, sqlite_home: Home, on_cluster: Dispatcher
) -> None:
    study_id, _ = submit(sqlite_home.sessions, Submission(spec=parse_study(TINY), trials_expected=None))

    def ended() -> bool:
        on_cluster.tick()
        return StudyState(sqlite_home.row(study_id).state).is_final and not on_cluster.driving

    wait_until(ended, seconds=500.0, what="the end of the study and of its job")
    row = sqlite_home.row(study_id)
    assert (row.state, row.error) == (StudyState.COMPLETED, "")
    assert row.result is not None
    assert [curve["width"] for curve in row.result["arms"][0]["curves"]] == [16, 64]
    jobs = httpx.get(f"{head}/api/jobs/").json()
    (job,) = [job for job in jobs if job["submission_id"].startswith(study_id)]
    assert job["status"] == "SUCCEEDED"
    actors = httpx.get(f"{head}/api/v0/actors").json()["data"]["result"]["result"]
    assert job["job_id"] in {actor["job_id"] for actor in actors}


def test_a_head_that_is_away_is_the_machines_fault() -> None:
    away = RayJobsLauncher(f"http://127.0.0.1:{free_port()}", env={})
    with pytest.raises(TransientError, match="does not answer"):
        away.launch(claim("ok"))
    away.close()


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"launcher": "ray-jobs"}, "MUTRANSFER_RAY_JOBS_URL"), ({"launcher": "kuberay"}, "MUTRANSFER_LAUNCHER")],
)
def test_settings_that_name_no_launcher_say_what_is_missing(
    tmp_path: Path, changes: dict[str, str], field: str
) -> None:
    settings = Settings(home=tmp_path, **changes)  # type: ignore[arg-type]
    with pytest.raises(SpecError) as caught:
        make_launcher(settings)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert isinstance(make_launcher(Settings(home=tmp_path)), LocalLauncher)
