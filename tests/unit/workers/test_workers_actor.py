"""The trial actor without Ray: reuse, resumption bit for bit, divergence at the first report, full disks."""

import json
from pathlib import Path

import numpy as np
import pytest

from mutransfer.errors import SpecError, TransientError
from mutransfer.spec import DataSpec
from mutransfer.trial import TrialResult, TrialSpec, TrialStatus
from tests.trials import small_trial
from workers import actor as actor_module
from workers.actor import TrialActor, TrialJob
from workers.checkpoint import Checkpoints
from workers.data import prepare

pytestmark = pytest.mark.usefixtures("logging_restored")


@pytest.fixture
def data(tmp_path: Path) -> DataSpec:
    rng = np.random.default_rng(0)
    (tmp_path / "t.txt").write_text("".join(rng.choice(["the ", "cat ", "sat.\n"], size=5000)))
    return DataSpec(source=f"text:{tmp_path / 't.txt'}")


def job(tmp_path: Path, data: DataSpec, trial: TrialSpec, *, key: str = "k", epoch: int = 1, every: float = 1e9) -> str:
    return TrialJob(
        key=key, study="st_1", epoch=epoch, trial=trial.model_copy(update={"data": data}), checkpoints=tmp_path / "ck",
        data_fingerprint=prepare(data, tmp_path / "cache").fingerprint, cache=tmp_path / "cache",
        checkpoint_seconds=every,
    ).model_dump_json()  # fmt: skip


def new_actor(config: str) -> TrialActor:
    actor = object.__new__(TrialActor)  # Tune's constructor asks for a cluster
    actor.setup({"job": config})
    return actor


def finish(actor: TrialActor, *, at_most: int = 1000) -> TrialResult:
    for _ in range(at_most):
        report = actor.step()
        if report["done"]:
            return TrialResult.model_validate_json(report["result"])
    raise AssertionError("no end")


def timeless(found: TrialResult) -> dict[str, object]:
    return found.model_dump(exclude={"device_seconds", "resumed_from_step", "calibration_gflops"})


@pytest.fixture
def _one_step_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_module, "REPORT_SECONDS", 1e-9)


@pytest.mark.usefixtures("_one_step_a_report")
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_a_resumed_trial_is_bit_equal_to_one_never_interrupted(tmp_path: Path, data: DataSpec, optimizer: str) -> None:
    trial = small_trial(optimizer=optimizer, train={"steps": 23, "weight_decay": 0.01})
    whole = finish(new_actor(job(tmp_path, data, trial, key="whole")))

    config = job(tmp_path, data, trial, every=0.0)
    interrupted = new_actor(config)
    for _ in range(9):
        interrupted.step()
    resumed = finish(new_actor(job(tmp_path, data, trial, epoch=2)))
    assert resumed.resumed_from_step == 9
    assert timeless(resumed) == timeless(whole)


def test_a_checkpoint_does_not_wait_for_a_report(
    tmp_path: Path, data: DataSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole trial between two reports: a kill costs one interval at most all the same."""
    monkeypatch.setattr(actor_module, "REPORT_SECONDS", 3600.0)
    saved: list[int] = []
    monkeypatch.setattr(Checkpoints, "save", lambda _self, step, _state: saved.append(step))
    finish(new_actor(job(tmp_path, data, small_trial(train={"steps": 6}), every=0.0)), at_most=1)
    assert saved == [1, 2, 3, 4, 5]  # after the last step there is a result


@pytest.mark.usefixtures("_one_step_a_report")
def test_reports_rise_to_the_result(tmp_path: Path, data: DataSpec) -> None:
    actor = new_actor(job(tmp_path, data, small_trial(train={"steps": 3})))
    reports = [actor.step() for _ in range(3)]
    assert [(r["step"], r["steps"], r["done"], bool(r["result"])) for r in reports] == [
        (1, 3, False, False), (2, 3, False, False), (3, 3, True, True),
    ]  # fmt: skip
    assert all(r["train_loss_nats"] > 0 for r in reports)


def test_a_reused_actor_gives_what_a_fresh_one_gives(tmp_path: Path, data: DataSpec) -> None:
    first, second = (small_trial(train={"steps": 5}, width=width) for width in (16, 32))
    fresh = finish(new_actor(job(tmp_path, data, second)))
    reused = new_actor(job(tmp_path, data, first))
    finish(reused)
    assert reused.reset_config({"job": job(tmp_path, data, second)})
    assert timeless(finish(reused)) == timeless(fresh)


def test_a_reused_actor_forgets_an_unfinished_trial(
    tmp_path: Path, data: DataSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor_module, "REPORT_SECONDS", 1e-9)
    actor = new_actor(job(tmp_path, data, small_trial(train={"steps": 50})))
    actor.step()
    actor.reset_config({"job": job(tmp_path, data, small_trial(train={"steps": 2}, seed=1), key="other")})
    assert finish(actor).steps == 2


def test_what_a_trial_process_logs_tells_study_trial_and_epoch(
    tmp_path: Path, data: DataSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = small_trial(train={"steps": 2})
    actor = new_actor(job(tmp_path, data, trial, every=0.0))
    for key, epoch in (("first", 3), ("second", 4)):
        folder = tmp_path / "ck" / key / "1"
        folder.mkdir(parents=True)
        (folder / "step-1.pt").write_bytes(b"broken")
        (folder / "step-1.sha256").write_text("0")
        actor.reset_config({"job": job(tmp_path, data, trial, key=key, epoch=epoch)})
        finish(actor)
        said = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "checkpoint corrupt" in line]
        assert [(line["study"], line["trial"], line["epoch"]) for line in said] == [("st_1", key, epoch)]


def test_divergence_ends_a_trial_at_its_first_report(tmp_path: Path, data: DataSpec) -> None:
    actor = new_actor(job(tmp_path, data, small_trial(lr_octaves=8.0, train={"steps": 100_000, "warmup": 0.0})))
    report = actor.step()
    assert report["done"]
    found = TrialResult.model_validate_json(report["result"])
    assert found.status is TrialStatus.DIVERGED
    assert found.loss_nats is None


@pytest.mark.usefixtures("_one_step_a_report")
def test_a_full_disk_costs_the_checkpoint_and_not_the_trial(
    tmp_path: Path, data: DataSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise TransientError("No space left on device")

    monkeypatch.setattr(actor_module.Checkpoints, "save", full)
    actor = new_actor(job(tmp_path, data, small_trial(train={"steps": 3}), every=0.0))
    assert actor.step()["warning"] == "No space left on device"
    assert finish(actor).status is TrialStatus.FINISHED


@pytest.mark.usefixtures("_one_step_a_report")
def test_save_now_is_what_a_drain_asks_for(tmp_path: Path, data: DataSpec) -> None:
    trial = small_trial(train={"steps": 9})
    actor = new_actor(job(tmp_path, data, trial))
    assert actor.save_now() == 0
    for _ in range(4):
        actor.step()
    assert actor.save_now() == 4
    assert finish(new_actor(job(tmp_path, data, trial))).resumed_from_step == 4
    finish(actor)
    assert actor.save_now() == 0


def test_a_trial_that_raises_is_reported_and_the_process_goes_on(tmp_path: Path, data: DataSpec) -> None:
    actor = new_actor(job(tmp_path, data, small_trial()).replace('"data_fingerprint":"', '"data_fingerprint":"0'))
    report = actor.step()
    assert report["done"]
    assert not report["result"]
    assert report["error"].startswith("Traceback")
    assert "is not what it was when the study began" in report["error"]
    actor.reset_config({"job": job(tmp_path, data, small_trial(train={"steps": 2}))})
    assert finish(actor).steps == 2


def test_on_a_gpu_a_trial_that_raises_takes_its_process_along(tmp_path: Path, data: DataSpec) -> None:
    config = job(tmp_path, data, small_trial()).replace('"data_fingerprint":"', '"data_fingerprint":"0')
    actor = new_actor(config.replace('"device":"cpu"', '"device":"cuda"'))
    with pytest.raises(SpecError):
        actor.step()
