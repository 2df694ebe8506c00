"""Real drivers on real Ray and a real database: a study to its verdict, and every way of being interrupted."""

from collections.abc import Iterator, Mapping
from pathlib import Path
import signal
import time

import numpy as np
import pytest

from mutransfer.audit import Check
from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec, parse_study
from service.db import actions, projects
from service.db.leases import Claim
from service.db.states import StudyState
from service.db.tables import StudyRow
from service.studies.read import audits
from tests.driver_support import Bench, ray_cluster
from tests.trials import small_study

pytestmark = [pytest.mark.ray, pytest.mark.timeout(2000)]

DONE = "SELECT count(*) FROM trials WHERE result IS NOT NULL"
RESULTS = "SELECT key, result, finished_at FROM trials WHERE result IS NOT NULL"
RUNNING = "SELECT count(*) FROM trials WHERE status = 'running'"


def words(path: Path) -> Path:
    rng = np.random.default_rng(0)
    path.write_text("".join(rng.choice(["the ", "cat ", "sat ", "on ", "a ", "mat.\n"], size=20_000)))
    return path


def study(text: Path, *, steps: int = 30) -> StudySpec:
    return small_study(
        data={"source": f"text:{text}"},
        model={"depth": 1},
        train={"steps": steps, "batch": 8},
        widths={"base": 8, "proxy": [8], "targets": [32]},
        search={"lr_octaves": {"low": -7, "high": -1, "step": 2, "limit": [-12, 4]}, "seeds": {"min": 1, "max": 1}},
    )


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return words(tmp_path / "text.txt")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Drivers that start a private Ray each."""
    return Bench(tmp_path / "home")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Mapping[str, str]]:
    """One Ray for all drivers that need no private one: the settings that lead there."""
    with ray_cluster() as environment:
        yield environment


@pytest.fixture
def shared(tmp_path: Path, cluster: Mapping[str, str]) -> Bench:
    """Drivers that share one Ray."""
    return Bench(tmp_path / "shared", **cluster)


def test_a_study_runs_to_its_verdict_through_kill_9_of_its_driver(bench: Bench, shared: Bench, text: Path) -> None:
    study_id = shared.submit(study(text, steps=150))
    assert shared.run(shared.claim()) == 0, shared.logs()
    assert_completed(shared, study_id)

    bench.environment["MUTRANSFER_CHECKPOINT_SECONDS"] = "0"
    study_id = bench.submit(study(text, steps=150))
    with bench.driver(bench.claim()) as first:
        bench.wait_for(DONE, 3)
        first.popen.send_signal(signal.SIGKILL)
        first.wait(5)
        finished = bench.query(RESULTS)
        # Nothing trains on. Ray's two agents look for their cluster a while longer; a dispatcher ends them at once.
        first.wait_gone(30, but=("ray::DashboardAgent", "ray::RuntimeEnvAgent"))
    assert bench.run(bench.claim()) == 0, bench.logs()

    assert set(finished) <= set(bench.query(RESULTS)), "a finished result changed"
    assert_completed(bench, study_id)
    assert bench.losses() == shared.losses(), "trials differ from those of an undisturbed driver"


def assert_completed(bench: Bench, study_id: str) -> None:
    [(state, error, phases)] = bench.query(
        "SELECT state, error, (SELECT count(*) FROM phases WHERE state = 'finished') FROM studies"
    )
    assert (state, error, phases) == ("completed", "", 4), bench.logs()
    [(trials,)] = bench.query("SELECT count(*) FROM trials")
    assert bench.query("SELECT count(*) FROM trials WHERE result IS NULL") == [(0,)]
    told = bench.query("SELECT count(*), count(DISTINCT key) FROM outbox WHERE kind = 'trial_result'")
    assert told == [(trials, trials)], "a result was not told once"
    with bench.sessions() as session:
        result = StudyResult.model_validate(session.get_one(StudyRow, study_id).result)
    [arm] = result.arms
    assert [curve.width for curve in arm.curves] == [8, 32]
    assert result.cost.trials == trials
    assert not list((bench.home / "storage").glob("*/*/step-*")), "checkpoints of finished trials stay behind"
    # A driver that comes late finds the study ended and changes nothing.
    [(epoch,)] = bench.query("SELECT epoch FROM leases")
    assert bench.run(Claim(study_id=study_id, epoch=epoch, state=StudyState.RUNNING)) == 0
    assert bench.query("SELECT state FROM studies") == [("completed",)]


def test_the_audit_comes_first_and_as_a_gate_ends_a_study_with_a_wrong_rule(shared: Bench, text: Path) -> None:
    # Adam's update has norm sqrt(d_out d_in): this law leaves the multiplier of hidden matrices at 1.
    wrong = {"optimizer": "torch.optim:Adam", "rule": "derived", "law": [-0.5, 0.5]}
    spec = small_study(
        data={"source": f"text:{text}"},
        model={"family": "mlp", "head_dim": None, "depth": 1, "context": 8},
        widths={"base": 32, "proxy": [32], "targets": [128]},
        audit={"widths": [32, 64, 128, 256], "steps": 8, "gate": True},
        arms=[{"optimizer": "adamw", "parametrization": "mup"}, wrong],
    )
    study_id = shared.submit(spec)
    assert shared.run(shared.claim()) == 0, shared.logs()
    [(state, error)] = shared.query("SELECT state, error FROM studies")
    assert state == "failed"
    assert error.startswith("audit: arm Adam-mup fails the audit"), error
    assert "layers.0.weight" in error
    assert shared.query("SELECT name, state FROM phases") == [("audit", "finished")]
    assert shared.query("SELECT count(*) FROM trials") == [(0,)]
    with shared.sessions() as session:
        right, found = audits(session, study_id)
    assert right.check is not Check.FAIL
    assert found.check is Check.FAIL


def test_sigterm_drains_and_cancellation_ends_all_processes(bench: Bench, text: Path) -> None:
    study_id = bench.submit(study(text, steps=200_000))
    with bench.driver(bench.claim()) as first:
        bench.wait_for("SELECT count(*) FROM trials WHERE status = 'running' AND step > 0", 1)
        first.popen.send_signal(signal.SIGTERM)
        assert first.wait(15) == 0, bench.logs()
        assert first.wait_gone(5) < 5
    saved = list((bench.home / "storage").glob("*/1/step-*.pt"))
    assert saved, "SIGTERM left no checkpoint"
    assert bench.query("SELECT owner FROM leases") == [("",)]
    assert bench.query("SELECT attempts FROM trials WHERE attempts > 0") == []

    with bench.driver(bench.claim()) as second:
        bench.wait_for("SELECT max(step) FROM trials", int(saved[0].stem.removeprefix("step-")) + 1)
        asked = time.monotonic()
        bench.cancel(study_id)
        assert second.wait(15) == 0, bench.logs()
        second.wait_gone(5)
        took = time.monotonic() - asked
    assert bench.query("SELECT state FROM studies") == [("cancelled",)]
    assert took < 10.0, f"{took:.1f} s from cancellation to the end of the last process"


def test_a_pause_checkpoints_and_a_resumed_study_goes_on_within_its_quota(shared: Bench, text: Path) -> None:
    study_id = shared.submit(study(text, steps=200_000))
    with shared.sessions.begin() as session:
        projects.put(session, "default", {"max_concurrent_trials": 1})
    with shared.driver(shared.claim()) as first:
        shared.wait_for("SELECT count(*) FROM trials WHERE status = 'running' AND step > 0", 1)
        with shared.sessions.begin() as session:
            actions.pause(session, study_id)
        assert first.wait(20) == 0, shared.logs()
    assert shared.query("SELECT state FROM studies") == [("paused",)]
    assert shared.query("SELECT count(*) FROM events WHERE kind = 'trial_started'") == [(1,)], (
        "the quota is one at once"
    )
    assert shared.query(RUNNING) == [(0,)], "a paused study trains nothing"
    assert shared.query("SELECT slots FROM leases") == [(0,)]
    [saved] = (shared.home / "storage").glob("*/1/step-*.pt")
    with shared.sessions.begin() as session:
        actions.resume(session, study_id)
    with shared.driver(shared.claim()) as second:
        shared.wait_for("SELECT max(step) FROM trials", int(saved.stem.removeprefix("step-")) + 1)
        shared.cancel(study_id)
        assert second.wait(20) == 0, shared.logs()
    assert shared.query("SELECT state FROM studies") == [("cancelled",)]


def test_a_driver_whose_lease_is_taken_stops_and_writes_nothing(shared: Bench, text: Path) -> None:
    shared.environment["MUTRANSFER_LEASE_TTL_SECONDS"] = "3"
    shared.submit(study(text, steps=200_000))
    with shared.driver(shared.claim()) as first:
        shared.wait_for(RUNNING, 1)
        shared.claim()
        before = shared.query("SELECT key, step FROM trials")
        assert first.wait(15) == 75, shared.logs()
    assert shared.query("SELECT key, step FROM trials") == before
    assert shared.query("SELECT state FROM studies") == [("running",)]


def test_a_study_that_no_trial_could_run_fails_with_the_reason(bench: Bench, tmp_path: Path) -> None:
    bench.submit(study(tmp_path / "absent.txt"))
    assert bench.run(bench.claim()) == 0
    [(state, error)] = bench.query("SELECT state, error FROM studies")
    assert state == "failed"
    assert error.startswith("data.source: cannot read")
    assert "absent.txt" in error


POISON = '''
"""A model of one's own whose training goes wrong on demand."""
import os
import pathlib
import time

import torch
from torch import nn

from mutransfer.roles import describe

FLAGS = pathlib.Path(FLAG_FOLDER)


def once(name):
    try:
        (FLAGS / name).unlink()
    except FileNotFoundError:
        return False
    return True


class Poison(nn.Module):
    def __init__(self, width, vocab):
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(vocab, width)
        self.hidden = nn.Linear(width, width, bias=False)
        self.readout = nn.Linear(width, vocab, bias=False)

    def forward(self, x):
        if self.width == 64:
            raise RuntimeError("poisoned at width 64")
        if once("crash"):
            os._exit(9)
        if once("hang"):
            time.sleep(600)
        return self.readout(torch.relu(self.hidden(self.embedding(x))))


def build(width, depth, vocab):
    model = Poison(width, vocab)
    roles = {r"embedding\\..*": "embedding", r"hidden\\..*": "hidden", r"readout\\..*": "readout"}
    return model, describe({n: p.shape for n, p in model.named_parameters()}, roles)
'''


def test_poison_crash_and_hang_spoil_only_their_own_trials(shared: Bench, text: Path) -> None:
    bench = shared
    flags = bench.home / "flags"
    flags.mkdir()
    for name in ("crash", "hang"):
        (flags / name).touch()
    # Drivers run in the home folder here: models of one's own are found in the working directory.
    (bench.home / "poison_model.py").write_text(POISON.replace("FLAG_FOLDER", repr(str(flags))))
    bench.environment |= {"MUTRANSFER_MODEL_PACKAGES": "poison_model", "MUTRANSFER_TRIAL_TIMEOUT_SECONDS": "15"}
    spec = study(text).model_dump(mode="json")
    spec["model"] |= {"family": "poison_model:build", "head_dim": None}
    spec["widths"] = {"base": 8, "proxy": [8], "targets": [64]}
    bench.submit(parse_study(spec))
    assert bench.run(bench.claim()) == 0, bench.logs()
    assert not list(flags.iterdir())
    assert bench.query("SELECT state FROM studies") == [("completed",)], bench.logs()
    counts = dict(bench.query("SELECT status, count(*) FROM trials GROUP BY status"))
    assert counts["failed"] >= 1
    assert bench.query("SELECT DISTINCT attempts FROM trials WHERE status = 'failed'") == [(3,)]
    poisoned = bench.query("SELECT DISTINCT axis_value FROM study_trials WHERE unavailable")
    assert poisoned == [(64,)]
    reasons = [row[0] for row in bench.query("SELECT traceback FROM trials WHERE traceback != ''")]
    assert any("poisoned at width 64" in reason for reason in reasons)
    assert any("reported nothing for 15 s" in reason for reason in reasons)
    assert bench.query("SELECT count(*) FROM trials WHERE status = 'finished' AND attempts = 1") == [(2,)]
