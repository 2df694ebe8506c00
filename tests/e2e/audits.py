"""Audits as a driver would leave them: runs whose layers grow as a chosen power of width, judged by the kernel."""

from mutransfer.architecture import architecture
from mutransfer.audit import AuditResult, AuditRun, AuditSetting, LayerTrace, judge_audit
from mutransfer.roles import ParameterRole
from mutransfer.spec import ArmSpec, Parametrization, StudySpec

STEPS = 8


def audits_of(spec: StudySpec) -> list[AuditResult]:
    """One audit an arm: μP follows its predictions, SP's hidden matrices move like their width."""
    return [_audit(spec, arm) for arm in spec.arms]


def _audit(spec: StudySpec, arm: ArmSpec) -> AuditResult:
    setting = AuditSetting(
        arm=arm, model=spec.model.family, lr_octaves=-6.0, base_width=spec.widths.base, steps=STEPS
    )  # fmt: skip
    return judge_audit([_run(spec, arm, width, seed) for width in spec.audit_widths for seed in range(2)], setting)


def _run(spec: StudySpec, arm: ArmSpec, width: int, seed: int) -> AuditRun:
    infos = architecture(spec.model, width=width, depth=spec.model.depth, vocab=97)
    layers = []
    for info in infos:
        drifts = arm.parametrization is Parametrization.SP and info.role is not ParameterRole.EMBEDDING
        level = (1.0 + 0.01 * seed) * float(width) ** (1.0 if drifts else 0.02)
        series = tuple(level * (1 + 0.01 * step) for step in range(1, STEPS + 1))
        weight = 0.0 if info.role is ParameterRole.READOUT else 1.0
        layers.append(
            LayerTrace(
                info=info,
                algorithm=str(arm.optimizer),
                weight=weight,
                update=series,
                output=tuple(1.0 for _ in series),
                output_change=series,
            )
        )
    return AuditRun(width=width, seed=seed, layers=tuple(layers))
