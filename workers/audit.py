"""Runs the audit: the study's own models and Trainer, step by step at a constant rate, measured by models.probes.

The setting is the study's in all but the schedule (constant, no warm-up): its batch, clipping, weight decay and data.
"""

from collections.abc import Callable, Iterator, Sequence

import torch

from models.probes import Measured, Probe
from mutransfer.audit import AuditResult, AuditRun, AuditSetting, Check, LayerTrace, judge_audit, suspects
from mutransfer.errors import SpecError
from mutransfer.spec import ArmSpec, Parametrization, StudySpec
from mutransfer.trial import TrialSpec, trial_spec
from workers.data import TokenData
from workers.divergence import DivergenceMonitor
from workers.train import Trainer

#: Steps to wait for a matrix to move at all: behind zero matrices and optimizers that skip steps a few pass by.
LATE_STEPS = 10
#: Sequences of the fixed batch on which outputs are compared.
PROBE_SEQUENCES = 8
#: Far beyond any audit, so that nothing that depends on the horizon acts on its first steps.
_HORIZON = 1_000_000

OnRun = Callable[[AuditRun], None]


def audit_setting(study: StudySpec, arm: ArmSpec, *, steps: int, lr_octaves: float | None = None) -> AuditSetting:
    """What `run_audit` needs to know of a study; the rate is a quarter up the study's grid unless given.

    That is near the rates in question and below those at which outputs stop answering in proportion.
    """
    grid = study.search.lr_octaves
    return AuditSetting(
        arm=arm, model=study.model.family, base_width=study.widths.base, steps=steps,
        lr_octaves=grid.low + 0.25 * (grid.high - grid.low) if lr_octaves is None else lr_octaves,
    )  # fmt: skip


def run_audit(
    study: StudySpec,
    setting: AuditSetting,
    data: TokenData,
    *,
    widths: Sequence[int],
    seeds: int,
    device: torch.device | str = "cpu",
    model_packages: Sequence[str] = (),
    on_run: OnRun = lambda _run: None,
) -> list[AuditRun]:
    """One run for each width and seed; `on_run` is told each. Raises what Trainer raises."""
    runs = []
    for width in widths:
        for seed in range(seeds):
            trial = audit_trial(study, setting, width=width, seed=seed)
            trainer = Trainer(trial, data, device=device, model_packages=model_packages)
            runs.append(audit_run(trainer, steps=setting.steps))
            on_run(runs[-1])
    return runs


def audit_trial(study: StudySpec, setting: AuditSetting, *, width: int, seed: int) -> TrialSpec:
    """The trial of the audit: the study's at another width and at a constant rate."""
    trial = trial_spec(study, setting.arm, study.axis.proxy[0], setting.lr_octaves, seed)
    train = trial.train.model_copy(
        update={
            "steps": _HORIZON, "tokens": None, "tokens_per_parameter": None,
            "schedule": "constant", "warmup": 0.0, "weight_decay_kappa": trial.train.kappa,
        }
    )  # fmt: skip
    return trial.model_copy(update={"width": width, "train": train})


def audit_run(trainer: Trainer, *, steps: int) -> AuditRun:
    """Train until every matrix has moved for `steps` steps, or LATE_STEPS longer than that, and measure each step."""
    trial = trainer.trial
    # A loss that rises is what an audit may have to see: only what is not finite ends it.
    trainer.monitor = DivergenceMonitor(vocab=trainer.data.vocab, warmup_steps=_HORIZON)
    infos = [scaled.info for scaled in trainer.scaling.parameters]
    probe = Probe(trainer.model, infos, _probe_batch(trainer))
    series = list(_series(trainer, probe, steps))
    algorithms = {scaled.info.name: scaled.algorithm.value for scaled in trainer.scaling.parameters}
    layers = tuple(
        LayerTrace(
            info=info, algorithm=algorithms[info.name], weight=probe.weights[info.name],
            update=tuple(step[info.name].update for step in series),
            output=_outputs([step[info.name].output for step in series]),
            output_change=_outputs([step[info.name].output_change for step in series]),
        )
        for info in probe.infos
    )  # fmt: skip
    return AuditRun(width=trial.width, seed=trial.seed, layers=layers)


def _series(trainer: Trainer, probe: Probe, steps: int) -> Iterator[dict[str, Measured]]:
    """Measurements after each step, the first after one."""
    counted = 0
    for _ in range(steps + LATE_STEPS):
        trainer.run(1)
        measured = probe.measure()
        yield measured
        counted += counted > 0 or all(m.update != 0.0 for m in measured.values())
        if counted == steps:
            return


def _outputs(values: Sequence[float | None]) -> tuple[float, ...] | None:
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def _probe_batch(trainer: Trainer) -> torch.Tensor:
    context = trainer.trial.model.context
    tokens = PROBE_SEQUENCES * context
    x_BT, _ = next(iter(trainer.data.heldout_batches(tokens=tokens, batch=PROBE_SEQUENCES, context=context)))
    return torch.from_numpy(x_BT).to(trainer.device)


def audit_study(
    study: StudySpec, data: TokenData, *, device: str, model_packages: Sequence[str], on_run: OnRun
) -> list[AuditResult]:
    """The audit phase of a study: every arm, as its `audit` section asks. Nothing when it has none."""
    if study.audit is None:
        return []
    results = []
    for arm in study.arms:
        setting = audit_setting(study, arm, steps=study.audit.steps)
        runs = run_audit(
            study, setting, data, widths=study.audit_widths, seeds=study.audit.seeds, device=device,
            model_packages=model_packages, on_run=on_run,
        )  # fmt: skip
        results.append(judge_audit(runs, setting))
    return results


def gate(results: Sequence[AuditResult]) -> None:
    """Raises SpecError when a μP arm fails its audit, naming the layers."""
    for result in results:
        if result.check is Check.FAIL and result.arm.parametrization is Parametrization.MUP:
            layers = ", ".join(suspects(result)) or "; ".join(result.problems)
            raise SpecError.at("audit", f"arm {result.arm.name} fails the audit and `gate` is on: {layers}")
