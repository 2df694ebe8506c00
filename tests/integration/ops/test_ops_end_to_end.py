"""The main job for real: `up`, `run` with Ray and torch, the verdict, MLflow, `verify`; then an end without orphans."""

import os
from pathlib import Path
import subprocess

import pytest
from typer.testing import CliRunner
import yaml

from mutransfer.result import CurveStatus, StudyResult
from service.cli import app
from service.client import Client
from service.processes import descendants
from tests.integration.ops.conftest import REPOSITORY, is_running, spawned, wait_until

TINY = {
    "name": "tiny",
    "model": {"family": "nanogpt", "depth": 1, "head_dim": 8, "context": 8},
    "train": {"batch": 8, "steps": 8, "schedule": "constant", "warmup": 0.0},
    "widths": {"base": 16, "proxy": [16], "targets": [64]},
    "eval": {"tokens": 512},
    "arms": [{"optimizer": "adamw", "parametrization": "mup"}],
    "search": {"lr_octaves": {"low": -8, "high": -4, "limit": [-10, 0]}, "seeds": {"min": 1, "max": 1}},
}


def write(folder: Path, **changes: object) -> str:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(TINY | changes))
    return str(path)


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_real_study_from_submission_to_a_verified_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUTRANSFER_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    arguments = ("up", "--home", str(tmp_path), "--port", "0")
    with spawned(*arguments, env=dict(os.environ), stdout=subprocess.PIPE) as up:
        assert up.stdout is not None
        url = up.stdout.readline().removeprefix("ready ").strip()

        done = CliRunner().invoke(app, ["run", write(tmp_path), "--json", "--url", url])
        assert done.exit_code == 0, done.stderr
        result = StudyResult.model_validate_json(done.stdout)
        (arm,) = result.arms
        assert [curve.width for curve in arm.curves] == [16, 64]
        assert all(curve.status is not CurveStatus.INCOMPLETE for curve in arm.curves)
        assert arm.verdict.recorded_lr_octaves is not None
        assert result.cost.trials == sum(point.seeds + point.diverged for c in arm.curves for point in c.points)

        with Client(url) as client:
            wait_until(lambda: verified(result.study.id, url), seconds=240, what="the export to MLflow")
            agreed = CliRunner().invoke(app, ["verify", "--from-mlflow", result.study.id, "--url", url])
            assert agreed.exit_code == 0, agreed.stdout
            assert "number by number" in agreed.stdout

            again = CliRunner().invoke(app, ["run", write(tmp_path, name="again"), "--json", "--url", url])
            repeated = StudyResult.model_validate_json(again.stdout)
            assert repeated.arms == result.arms
            assert repeated.cost.reused == repeated.cost.trials == result.cost.trials

            submitted = client.submit(TINY | {"name": "long", "train": {"batch": 8, "steps": 200_000}})
            wait_until(
                lambda: any(t.status == "running" and t.step > 0 for t in client.trials(submitted.id)), seconds=240
            )
        family = descendants(up.pid)
        assert any(b"raylet" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family)
        up.terminate()
        assert up.wait(timeout=40) == 0
        assert [pid for pid in family if is_running(pid)] == []


def verified(study_id: str, url: str) -> bool:
    """Whether the study's run in MLflow is marked as ended."""
    with Client(url) as client:
        link = client.get(study_id).mlflow_url
    if not link:
        return False
    from service.export.tracking import Tracking

    tracking = Tracking(link.partition("/#/")[0])
    (parent,) = tracking.find_study_runs({"mutransfer.study": study_id, "mutransfer.kind": "study"})
    return bool(parent.info.status == "FINISHED")
