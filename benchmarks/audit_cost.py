"""`python -m benchmarks.audit_cost`: a step under the audit over a plain one, `mutransfer.plan.AUDIT_STEP_RATIO`.

Processor time of the arms of examples/quickstart.yaml on one thread, the better of two runs each, in turns.
"""

from pathlib import Path
import tempfile
import time

import torch
import yaml

from benchmarks.machine import machine
from mutransfer.spec import parse_study
from mutransfer.trial import TrialSpec
from workers.audit import audit_run, audit_setting, audit_trial
from workers.data import TokenData, prepare
from workers.train import Trainer

STUDY = Path(__file__).resolve().parent.parent / "examples" / "quickstart.yaml"
WIDTHS = (32, 128, 512)
STEPS = 10


def _plain(trial: TrialSpec, data: TokenData) -> float:
    trainer = Trainer(trial, data)
    started = time.process_time()
    trainer.run(STEPS)
    return time.process_time() - started


def _audited(trial: TrialSpec, data: TokenData) -> float:
    trainer = Trainer(trial, data)
    started = time.process_time()
    audit_run(trainer, steps=STEPS)
    return time.process_time() - started


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    study = parse_study(yaml.safe_load(STUDY.read_text()))
    print(machine())
    print(f"{'arm':<12}{'width':>6}{'plain (s)':>12}{'audited (s)':>13}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as cache:
        data = prepare(study.data, Path(cache))
        for arm in study.arms:
            setting = audit_setting(study, arm, steps=STEPS)
            for width in WIDTHS:
                trial = audit_trial(study, setting, width=width, seed=0)
                pairs = [(_plain(trial, data), _audited(trial, data)) for _ in range(2)]
                plain, audited = (min(times) for times in zip(*pairs, strict=True))
                print(f"{arm.name:<12}{width:>6}{plain:>12.3f}{audited:>13.3f}{audited / plain:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
