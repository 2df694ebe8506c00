"""What orchestration costs a trial: ours against plain Ray Tune, in one run. `python -m benchmarks.overhead`.

Both sides do the same tiny trainings (the same Trainer, data and settings) one at a time on the same private Ray. Plain
Tune is what its documentation shows: a function trainable, a process a trial, default loggers. Ours is the real path:
the study engine, its database (SQLite), reused actors, checkpoints set up. Overhead a trial = (wall time - training
time) / trials, start of the first process included. Exits 1 when ours is more than a tenth of plain Tune's.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
import os
from pathlib import Path
import platform
import sys
import tempfile
import time
from typing import Any

from workers.ray_environment import prepare_environment

# Before ray is imported; Tune's own loggers stay on for the plain side.
prepare_environment("")
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "0"

from ray import tune  # noqa: E402
from ray.tune import RunConfig, TuneConfig, Tuner  # noqa: E402

from mutransfer.spec import StudySpec, parse_study  # noqa: E402
from mutransfer.trial import TrialSpec, trial_spec  # noqa: E402
from service.db.driver_store import DriverStore  # noqa: E402
from service.db.leases import Leases  # noqa: E402
from service.db.migrate import upgrade  # noqa: E402
from service.db.quotas import UNLIMITED  # noqa: E402
from service.db.session import make_engine, session_factory  # noqa: E402
from service.db.studies import Submission, submit  # noqa: E402
from workers.allowance import Allowance  # noqa: E402
from workers.control import Control  # noqa: E402
from workers.data import TokenData, load, prepare  # noqa: E402
from workers.engine import StudyEngine  # noqa: E402
from workers.environment import environment  # noqa: E402
from workers.ray_session import ray_session  # noqa: E402
from workers.recorder import Recorder, Spool  # noqa: E402
from workers.train import Trainer  # noqa: E402
from workers.tune_runner import RunPlan, run_trials  # noqa: E402

#: Ours may cost at most this share of plain Tune's overhead.
TARGET = 0.1


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One side: wall time of all trials and the training time within them, in seconds."""

    name: str
    trials: int
    wall_seconds: float
    training_seconds: float

    @property
    def overhead(self) -> float:
        """Seconds a trial that are not training."""
        return (self.wall_seconds - self.training_seconds) / self.trials

    def row(self) -> str:
        """A line of the table."""
        whole, training = self.wall_seconds / self.trials, self.training_seconds / self.trials
        return f"{self.name:28} {self.trials:7d} {whole:14.3f} {training:14.3f} {self.overhead:14.3f}"


def tiny_study(text: Path, seeds: int) -> StudySpec:
    """A grid of 33 rates, `seeds` times each: trainings of a fraction of a second."""
    return parse_study({
        "version": 1, "name": "overhead",
        "model": {"family": "nanogpt", "depth": 1, "head_dim": 8, "context": 16},
        "data": {"source": f"text:{text}"},
        "train": {"steps": 20, "batch": 8},
        "eval": {"tokens": 1024},
        "widths": {"base": 16, "proxy": [16]},
        "arms": [{"optimizer": "adamw"}],
        "search": {
            "algorithm": "grid", "seeds": {"min": seeds, "max": seeds},
            "lr_octaves": {"low": -8, "high": -4, "step": 0.125},
        },
    })  # fmt: skip


def measure_plain(spec: StudySpec, data: TokenData, folder: Path, trials: int) -> Measurement:
    """Function trainables, as in Tune's documentation."""
    cache, fingerprint = folder / "cache", data.fingerprint

    def train(config: dict[str, Any]) -> None:
        found = load(cache, fingerprint)
        assert found is not None
        trainer = Trainer(TrialSpec.model_validate_json(config["trial"]), found)
        trainer.run(trainer.steps)
        result = trainer.finish()
        tune.report({"loss": result.loss_nats, "training_seconds": result.device_seconds})

    rates = spec.search.lr_octaves.coarse()[:trials]
    wanted = [trial_spec(spec, spec.arms[0], 16, rate, 0).model_dump_json() for rate in rates]
    tuner = Tuner(
        train,
        param_space={"trial": tune.grid_search(wanted)},
        tune_config=TuneConfig(max_concurrent_trials=1),
        run_config=RunConfig(name="plain", storage_path=str(folder / "tune"), verbose=0),
    )
    results, wall = timed(tuner.fit)
    training = sum(result.metrics["training_seconds"] for result in results)
    return Measurement(name="plain Tune, functions", trials=len(results), wall_seconds=wall, training_seconds=training)


def measure_ours(spec: StudySpec, data: TokenData, folder: Path) -> Measurement:
    """The driver's own path from engine to database."""
    url = f"sqlite:///{folder / 'bench.db'}"
    upgrade(url)
    sessions = session_factory(make_engine(url))
    submit(sessions, Submission(spec=spec, trials_expected=None))
    claim = Leases(sessions).claim_next("bench", 3600.0)
    assert claim is not None
    store = DriverStore(sessions, claim.study_id, claim.epoch, ttl_seconds=3600.0)
    recorder = Recorder(store, spool=Spool(folder, claim.study_id), checkpoints=folder / "checkpoints", epoch=1)
    recorder.start()
    facts = environment(data_fingerprint=data.fingerprint, device="cpu")
    plan = RunPlan(
        study=claim.study_id, epoch=1, data_fingerprint=data.fingerprint, checkpoints=folder / "checkpoints",
        cache=folder / "cache",
        model_packages=(), cpus=1, gpus=0, max_concurrent=1, checkpoint_seconds=30.0, trial_timeout_seconds=600.0,
    )  # fmt: skip

    def run() -> None:
        run_trials(
            StudyEngine(spec=spec, environment=facts, store=store, recorder=recorder),
            plan,
            Control(),
            Allowance(lambda _wanted, _running: UNLIMITED),
        )
        if not recorder.close(timeout_seconds=60.0):
            raise RuntimeError("results were not written")

    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    _, wall = timed(run)
    cost = store.cost()
    return Measurement(name="mutransfer", trials=cost.trials, wall_seconds=wall, training_seconds=cost.device_seconds)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """(what `work` returns, seconds it took)."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def machine() -> str:
    """What the figures were measured on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC · {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, "
        f"load {load} · Python {platform.python_version()}, ray {version('ray')}, torch {version('torch')}"
    )


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="trials of ours: 33 times this")
    parser.add_argument("--plain-trials", type=int, default=8, help="trials of plain Tune: each starts a process")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="mt-bench-") as name, ray_session(address="", cpus=1):
        folder = Path(name)
        (folder / "text.txt").write_text("the cat sat on the mat and looked at the moon.\n" * 2000)
        spec = tiny_study(folder / "text.txt", options.seeds)
        data = prepare(spec.data, folder / "cache")
        plain = measure_plain(spec, data, folder, options.plain_trials)
        ours = measure_ours(spec, data, folder)
    print(f"{'':28} {'trials':>7} {'s a trial':>14} {'training':>14} {'overhead':>14}")
    print(plain.row())
    print(ours.row())
    ratio = ours.overhead / plain.overhead
    met = ratio <= TARGET
    print(f"overhead: ours / plain = {ratio:.3f} (target: at most {TARGET:g}) {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
