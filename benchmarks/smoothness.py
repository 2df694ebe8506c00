"""What makes a loss curve smooth enough to find its minimum: `python -m benchmarks.smoothness`.

Trains AdamW-μP at one width over learning rates and seeds, once for the settings of examples/standard.yaml and once for
each change of a single setting, and prints the noise that the verdict has to live with: the standard deviation between
seeds once the offset that a seed shares over all rates is removed, the optimum and the half-width of its interval.
"""

import argparse
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
import datetime
import multiprocessing
import os
from pathlib import Path
import platform
import tempfile
from typing import Any

import torch
import yaml

from mutransfer.fit import fit_curve, half_width
from mutransfer.result import CurveRole
from mutransfer.spec import StudySpec, parse_study
from mutransfer.trial import Observation, trial_spec
from workers.data import prepare
from workers.train import Trainer

STANDARD = Path(__file__).resolve().parent.parent / "examples" / "standard.yaml"
RATES_OCTAVES = (-8.5, -8.0, -7.5, -7.0, -6.5, -6.0, -5.5, -5.0, -4.5)

VARIANTS: dict[str, Mapping[str, Mapping[str, Any]]] = {
    "standard": {},
    "QK-norm": {"model": {"qk_norm": True}},
    "twice the batch": {"train": {"batch": 32}},
    "half the steps": {"train": {"steps": 100}},
    "embedding std 0.1": {"model": {"init": {"embedding_std": 0.1, "readout": "zero"}}},
    "readout 1/width": {"model": {"init": {"embedding_std": 1.0, "readout": "inverse_width"}}},
}


@dataclass(frozen=True)
class Job:
    """One trial of one variant."""

    variant: str
    study: StudySpec
    width: int
    lr_octaves: float
    seed: int
    cache: Path


def variant_study(changes: Mapping[str, Mapping[str, Any]]) -> StudySpec:
    """The standard study's AdamW-μP arm with `changes` laid over its sections."""
    document = yaml.safe_load(STANDARD.read_text())
    document["arms"] = [{"optimizer": "adamw", "parametrization": "mup"}]
    for section, values in changes.items():
        document[section] = {**document[section], **values}
    return parse_study(document)


def train(job: Job) -> Observation:
    """Run one trial on one thread."""
    torch.set_num_threads(1)
    trial = trial_spec(job.study, job.study.arms[0], job.width, job.lr_octaves, job.seed)
    trainer = Trainer(trial, prepare(job.study.data, job.cache))
    trainer.run(trainer.steps)
    return Observation(lr_octaves=job.lr_octaves, seed=job.seed, loss_nats=trainer.finish().loss_nats)


def report(variant: str, width: int, observations: list[Observation]) -> str:
    """One row of the table."""
    curve = fit_curve(observations, width=width, depth=2, role=CurveRole.PROXY, rng_seed=0)
    optimum, noise = curve.optimum_octaves, curve.seed_stderr_nats
    best = min(point.loss_nats for point in curve.points if point.loss_nats is not None)
    shown = "no optimum" if optimum is None else f"{optimum.value:+.2f} ± {half_width(optimum):.2f}"
    return f"{variant:<20} {best:>9.3f} {noise or float('nan'):>12.4f} {shown:>18}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    print(
        f"{datetime.date.today().isoformat()}, {os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}"
    )
    print(f"AdamW-μP, width {options.width}, {options.seeds} seeds, {len(RATES_OCTAVES)} learning rates")
    print(f"{'variant':<20} {'best loss':>9} {'seed sd/nats':>12} {'optimum/octaves':>18}", flush=True)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        cache = Path(folder)
        for variant, changes in VARIANTS.items():
            study = variant_study(changes)
            prepare(study.data, cache)
            jobs = [
                Job(variant, study, options.width, lr, s, cache) for lr in RATES_OCTAVES for s in range(options.seeds)
            ]
            print(report(variant, options.width, list(pool.map(train, jobs))), flush=True)


if __name__ == "__main__":
    main()
