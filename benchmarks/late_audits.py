"""`python -m benchmarks.late_audits`: does a rule that is right in the first ten steps stay right over a training?

Audits the arms of the table's study `shampoo-256`, on its own models, over 100 steps, and judges two windows of the
same runs: the first ten steps and the last twenty. Documents in `docs/results/audits-late/`, one an arm; what exists is
not run again, and `docs/audits-late.md` is printed from them alone (`--render`).
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
import datetime
import json
from pathlib import Path
import tempfile

import torch

from benchmarks.audits import COLUMNS, REPOSITORY, cells
from benchmarks.machine import machine
from benchmarks.pages import table
from benchmarks.table import document
from mutransfer.audit import AuditResult, AuditRun, AuditSetting, LayerTrace, judge_audit
from mutransfer.spec import parse_study
from workers.audit import audit_setting, run_audit
from workers.data import prepare

RESULTS = REPOSITORY / "docs" / "results" / "audits-late"
PAGE = REPOSITORY / "docs" / "audits-late.md"
STUDY = "shampoo-256"
WIDTHS, SEEDS, STEPS = (32, 64, 128, 256), 4, 100
#: Each near its arm's optimum at the widest proxy (docs/results/table/shampoo-256.json), in octaves.
RATES = {"shampoo-mup": -4.0, "shampoo-mup-spectral": -3.25}
#: Steps that are judged together, counted from the first at which every matrix has moved.
WINDOWS = {"1 to 10": slice(0, 10), "81 to 100": slice(80, 100)}


def run() -> None:
    """Audit the arms that have no document yet."""
    torch.set_num_threads(1)
    study = parse_study(document(STUDY))
    with tempfile.TemporaryDirectory() as cache:
        data = prepare(study.data, Path(cache))
        for arm in study.arms:
            path = RESULTS / f"{arm.name}.json"
            if path.exists():
                continue
            print(arm.name, flush=True)
            setting = audit_setting(study, arm, steps=STEPS, lr_octaves=RATES[arm.name])
            runs = run_audit(study, setting, data, widths=WIDTHS, seeds=SEEDS, on_run=_say)
            windows = {name: _judge(runs, setting, window) for name, window in WINDOWS.items()}
            made = {"date": datetime.date.today().isoformat(), "machine": machine(), "windows": windows}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(made, indent=1) + "\n")


def _say(run: AuditRun) -> None:
    print(f"  width {run.width}, seed {run.seed}", flush=True)


def _judge(runs: Sequence[AuditRun], setting: AuditSetting, window: slice) -> dict[str, object]:
    """The audit of a part of the runs."""
    cut = [replace(run, layers=tuple(_cut(run, window))) for run in runs]
    judged = replace(setting, steps=window.stop - window.start)
    return judge_audit(cut, judged).model_dump(mode="json")


def _cut(run: AuditRun, window: slice) -> Iterator[LayerTrace]:
    late = max(next((t for t, x in enumerate(layer.update) if x != 0.0), 0) for layer in run.layers)
    steps = slice(window.start + late, window.stop + late)
    for layer in run.layers:
        output = None if layer.output is None else layer.output[steps]
        change = None if layer.output_change is None else layer.output_change[steps]
        yield replace(layer, update=layer.update[steps], output=output, output_change=change)


HEAD = f"""# Audits over a training

Exponents in width of how far each matrix, and its output, has moved from its start, in two windows of the same runs:
NanoGPT as in the study `{STUDY}` of the [transfer table](transfer-table.md), widths {WIDTHS[0]} to {WIDTHS[-1]},
{SEEDS} seeds, a constant rate near each arm's optimum; steps count from the first at which every matrix has moved, in
the documents from the window's first. 95 % intervals, predicted 0; the exponent furthest from it is shown. ✕ fails
(the interval lies outside ±0.2), ? is undecided. Printed by `python -m benchmarks.late_audits --render`
from the documents in [docs/results/audits-late](results/audits-late); without `--render` it runs what is missing.

"""


def render() -> str:
    """The page, from the documents alone."""
    kept = [RESULTS / f"{arm}.json" for arm in RATES if (RESULTS / f"{arm}.json").exists()]
    missing = [arm for arm in RATES if not (RESULTS / f"{arm}.json").exists()]
    rows = [row for path in kept for row in _rows(path)]
    return HEAD + table(("arm", "steps", *COLUMNS[1:]), rows, missing=missing)


def _rows(path: Path) -> Iterator[tuple[str, ...]]:
    kept = json.loads(path.read_text())
    for name, found in kept["windows"].items():
        arm, *others = cells(AuditResult.model_validate(found), kept["date"])
        yield arm, name, *others


def main() -> None:
    """Audit what is missing, then write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.late_audits", description=__doc__)
    parser.add_argument("--render", action="store_true", help="only write the page")
    if not parser.parse_args().render:
        run()
    PAGE.write_text(render())
    print(f"written {PAGE.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
