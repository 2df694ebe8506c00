"""`python -m benchmarks.audits`: the audit of every optimizer under SP and μP, variants of disputed rules included.

Each arm's result document is kept in `docs/results/audits/`, and an arm that has one is not run again;
`docs/audits.md` is printed from those documents alone (`--render`). `--device cuda` audits wider models, kept in
`docs/results/audits-wide/`.
"""

import argparse
from collections.abc import Iterator, Sequence
import datetime
import json
from pathlib import Path
import tempfile
from typing import Any

import torch

from benchmarks.machine import machine_with
from benchmarks.pages import table
from mutransfer.audit import AuditResult, Exponent, LayerAudit, Quantity, judge_audit, suspects
from mutransfer.spec import StudySpec, parse_study
from workers.audit import audit_setting, run_audit
from workers.data import prepare

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = {
    "cpu": REPOSITORY / "docs" / "results" / "audits",
    "cuda": REPOSITORY / "docs" / "results" / "audits-wide",
}
PAGE = REPOSITORY / "docs" / "audits.md"
WIDTHS = {"cpu": (128, 256, 512, 1024), "cuda": (512, 1024, 2048, 4096)}
SEEDS, STEPS = 4, 10

PLAIN = {"spectral_norm": False}
#: Optimizer: the rate of its audit in octaves, well below its optimum, options, and arms besides SP and μP.
OPTIMIZERS: dict[str, tuple[float, dict[str, Any], tuple[dict[str, Any], ...]]] = {
    "adamw": (-7.0, {}, ()),
    "adopt": (-7.0, {}, ()),
    "lamb": (-7.0, {}, ({"name": "lamb-mup-derived", "rule": "derived"},)),
    "sophia": (-9.0, {}, ()),
    "shampoo": (-6.0, {}, ({"name": "shampoo-mup-blocks", "options": {"block_size": 64}},)),
    "soap": (
        -7.0,
        PLAIN,
        (
            {"name": "soap-mup-unscaled-eps", "options": {**PLAIN, "scale_eps": False}},
            {"name": "soap-mup-quarter", "rule": "derived", "law": [0.25, 0.25], "options": PLAIN},
            {"name": "soap-mup-derived", "rule": "derived", "options": PLAIN},
            {"name": "soap-sp-spectral", "parametrization": "sp", "options": {"spectral_norm": True}},
            {"name": "soap-mup-spectral", "options": {"spectral_norm": True}},
        ),
    ),
    "muon": (-6.0, {}, ()),
    "sgd": (-4.0, {}, ()),
}


def study(device: str) -> tuple[StudySpec, dict[str, float]]:
    """All arms as one study of the MLP family over the device's widths, and each arm's rate."""
    arms, rates = [], {}
    for optimizer, (rate, options, more) in OPTIMIZERS.items():
        plain = ({"parametrization": "sp", "options": options}, {"parametrization": "mup", "options": options})
        for settings in (*plain, *more):
            arm = {
                "rule": "published",
                "optimizer": optimizer,
                "name": f"{optimizer}-{settings.get('parametrization', '')}",
                **settings,
            }
            arms.append(arm)
            rates[arm["name"]] = rate
    document = {
        "version": 1, "name": "audits", "model": {"family": "mlp", "depth": 2, "context": 8},
        "train": {"batch": 16, "steps": 100}, "arms": arms,
        "widths": {"base": WIDTHS[device][0], "proxy": list(WIDTHS[device])},
    }  # fmt: skip
    return parse_study(document), rates


def run(device: str, names: Sequence[str] = ()) -> None:
    """Audit the arms that have no document yet, or those of them that are named."""
    torch.set_num_threads(1)
    spec, rates = study(device)
    with tempfile.TemporaryDirectory() as cache:
        data = prepare(spec.data, Path(cache))
        for arm in spec.arms:
            path = RESULTS[device] / f"{arm.name}.json"
            if path.exists() or (names and arm.name not in names):
                continue
            print(arm.name, flush=True)
            setting = audit_setting(spec, arm, steps=STEPS, lr_octaves=rates[arm.name])
            runs = run_audit(spec, setting, data, widths=WIDTHS[device], seeds=SEEDS, device=device)
            result = judge_audit(runs, setting).model_dump(mode="json")
            path.parent.mkdir(parents=True, exist_ok=True)
            made = {"date": datetime.date.today().isoformat(), "machine": machine_with(device), "audit": result}
            path.write_text(json.dumps(made, indent=1) + "\n")


HEAD = """# Audits

What `mutransfer audit` finds for every optimizer: exponents in width of the change of weights and of outputs, 95 %
intervals, predicted 0. Printed by `python -m benchmarks.audits --render` from the documents in
[docs/results/audits](results/audits); `python -m benchmarks.audits` runs what is missing. MLP of two hidden layers,
10 counted steps, four seeds. ✕ fails (the interval lies outside ±0.2), ? is undecided.
"""
TITLES = {"cpu": "On a CPU", "cuda": "Wider, on a GPU (`--device cuda`, [documents](results/audits-wide))"}
COLUMNS = (
    "arm",
    "audit",
    "change of hidden weights",
    "change of hidden outputs",
    "change of logits",
    "embedding",
    "at",
)


def render() -> str:
    """The page, from the documents alone."""
    return HEAD + "".join(_section(device) for device in RESULTS if RESULTS[device].exists())


def _section(device: str) -> str:
    spec, _ = study(device)
    paths = [RESULTS[device] / f"{arm.name}.json" for arm in spec.arms]
    kept = [json.loads(path.read_text()) for path in paths if path.exists()]
    rows = [cells(AuditResult.model_validate(found["audit"]), found["date"]) for found in kept]
    missing = [path.stem for path in paths if not path.exists()]
    title = f"\n## {TITLES[device]}: widths {WIDTHS[device][0]} to {WIDTHS[device][-1]}\n\n"
    return title + table(COLUMNS, rows, missing=missing)


def cells(result: AuditResult, date: str) -> tuple[str, ...]:
    """A row of the page, one cell a column."""
    at_fault = ", ".join(name.removesuffix(".weight") for name in suspects(result))
    check = result.check.value + (f": {at_fault}" if result.check == "fail" else "")
    hidden = [layer for layer in result.layers if layer.role.is_hidden]
    return (
        result.arm.name, check, _worst(hidden, Quantity.UPDATE), _worst(hidden, Quantity.OUTPUT_CHANGE),
        _worst([result.layers[-1]], Quantity.OUTPUT_CHANGE), _worst([result.layers[0]], Quantity.UPDATE),
        f"2^{result.lr_octaves:g}, {date}",
    )  # fmt: skip


def _worst(layers: Sequence[LayerAudit], quantity: Quantity) -> str:
    """The exponent furthest from its prediction."""
    found = list(_measured(layers, quantity))
    if not found:
        return "not finite"
    exponent = max(found, key=lambda e: abs(e.measured.value - e.predicted) if e.measured else 0.0)
    interval = exponent.measured
    if interval is None or interval.low is None or interval.high is None:
        return "not finite"
    mark = {"fail": " ✕", "undecided": " ?"}.get(exponent.check.value, "")
    return f"{interval.value:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]{mark}"


def _measured(layers: Sequence[LayerAudit], quantity: Quantity) -> Iterator[Exponent]:
    for layer in layers:
        yield from (e for e in layer.exponents if e.quantity is quantity and e.measured is not None)


def main() -> None:
    """Audit what is missing, then write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audits", description=__doc__)
    parser.add_argument("--render", action="store_true", help="only write the page")
    parser.add_argument("names", nargs="*", metavar="ARM", help="such as soap-mup-derived (default: all)")
    parser.add_argument("--device", default="cpu", choices=list(RESULTS), help="where to audit (default cpu)")
    options = parser.parse_args()
    if not options.render:
        run(options.device, options.names)
    PAGE.write_text(render())
    print(f"written {PAGE.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
