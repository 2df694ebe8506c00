"""Audits by formula: one exponent a matrix, given as wanted."""

from collections.abc import Mapping

from mutransfer.audit import AuditResult, AuditRun, AuditSetting, LayerTrace, judge_audit
from mutransfer.roles import ParameterRole, parameter_info
from mutransfer.spec import ArmSpec

WIDTHS = (32, 64, 128, 256)
STEPS = 10


def audit_of(exponents: Mapping[str, float], *, arm: str = "adamw", spread: float = 0.0) -> AuditResult:
    """Hidden matrices whose change of weight, and of output with it, grows as width to the power that is given.

    The two seeds and the steps differ by up to `spread` powers of width, which widens the intervals.
    """
    runs = [_run(exponents, width, seed, spread) for width in WIDTHS for seed in range(2)]
    setting = AuditSetting(arm=ArmSpec(optimizer=arm), model="mlp", lr_octaves=-6.0, base_width=WIDTHS[0], steps=STEPS)
    return judge_audit(runs, setting)


def _run(exponents: Mapping[str, float], width: int, seed: int, spread: float) -> AuditRun:
    layers = []
    for name, power in exponents.items():
        levels = [
            (width / WIDTHS[0]) ** (power + spread * (step / (STEPS - 1) - 0.5)) * (1.0 + 0.01 * seed)
            for step in range(STEPS)
        ]
        info = parameter_info(name, ParameterRole.HIDDEN, (width, width))
        series = tuple(levels)
        layers.append(
            LayerTrace(
                info=info, algorithm="adamw", weight=1.0, update=series, output=tuple(1.0 for _ in series),
                output_change=series,
            )
        )  # fmt: skip
    return AuditRun(width=width, seed=seed, layers=tuple(layers))
