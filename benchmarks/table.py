"""`python -m benchmarks.table`: the transfer table, every optimizer under SP and μP, and variants of disputed rules.

Runs one study after another on an embedded service of its own (home `.table/`) and keeps each result document in
`docs/results/table/`, one file a study; a study whose document exists is not run again, and one that was interrupted
goes on with the trials it has. `docs/transfer-table.md` is printed from those documents alone (`--render`).
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
import datetime
import json
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

import yaml

from benchmarks.machine import machine
from benchmarks.pages import table
from mutransfer.result import ArmResult, Interval, StudyResult
from scripts.demo import CLI, STOP_SECONDS, start, wait_ready
from service.processes import end_all

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "docs" / "results" / "table"
STANDARD = REPOSITORY / "docs" / "results" / "standard" / "result.json"
PAGE = REPOSITORY / "docs" / "transfer-table.md"

Arm = Mapping[str, Any]
#: For the studies that two seeds left open by a hair.
FOUR_SEEDS = {"search": {"seeds": {"min": 2, "max": 4}}}


def _arm(optimizer: str, parametrization: str = "mup", name: str = "", **settings: Any) -> Arm:
    label = f"{optimizer}-{parametrization}" + (f"-{name}" if name else "")
    # The rule is spelled out: a default may change, an arm's name must go on meaning the same.
    return {
        "optimizer": optimizer, "parametrization": parametrization, "name": label, "rule": "published", **settings
    }  # fmt: skip


def _pair(optimizer: str, **settings: Any) -> tuple[Arm, Arm]:
    return _arm(optimizer, "sp", **settings), _arm(optimizer, **settings)


NORMALISED = {"spectral_norm": True, "adamw_lr_factor": 1.0}
#: SOAP as it is shipped (ADR 0027 and 0031).
SHIPPED = {"spectral_norm": True, "adamw_lr_factor": 0.3}
#: SOAP as published, before its update was normalised by default.
PLAIN = {"spectral_norm": False, "adamw_lr_factor": 1.0}
PLAIN_UNSCALED_EPS = {**PLAIN, "scale_eps": False}
GRAFT = {"graft": "adam", "adamw_lr_factor": 1.0}

#: Study name: (arms, lowest and highest rate to begin with in octaves, changes to the study).
STUDIES: dict[str, tuple[Sequence[Arm], tuple[int, int], Mapping[str, Any]]] = {
    "adamw": (_pair("adamw"), (-7, -3), {}),
    "lamb": (
        (_arm("lamb", "sp"), _arm("lamb"), _arm("lamb", name="derived", rule="derived")),
        (-7, -3),
        {},
    ),
    "soap": (
        (
            *_pair("soap", options=PLAIN),
            _arm("soap", name="unscaled-eps", options=PLAIN_UNSCALED_EPS),
            _arm("soap", name="derived", rule="derived", options=PLAIN),
            _arm("soap", name="derived-unscaled-eps", rule="derived", options=PLAIN_UNSCALED_EPS),
        ),
        (-8, -4),
        {},
    ),
    "muon": (_pair("muon"), (-6, -2), FOUR_SEEDS),
    "shampoo": (_pair("shampoo"), (-6, -2), {}),
    "adopt": (_pair("adopt"), (-8, -4), {}),
    "sophia": (_pair("sophia"), (-9, -5), FOUR_SEEDS),
    "sgd": (_pair("sgd"), (-4, 0), FOUR_SEEDS),
    "llama-adamw": (_pair("adamw"), (-7, -3), {"model": {"family": "llama"}, **FOUR_SEEDS}),
    "llama-muon": (_pair("muon"), (-6, -2), {"model": {"family": "llama"}}),
    "llama-soap": (
        (*_pair("soap", options=PLAIN), _arm("soap", name="derived", rule="derived", options=PLAIN)),
        (-8, -4),
        {"model": {"family": "llama"}},
    ),
    "shampoo-mended": (
        (
            _arm("shampoo", name="blocks", options={"block_size": 32}),
            _arm("shampoo", name="adam-graft", options=GRAFT),
            _arm("shampoo", name="spectral", options={"spectral_norm": True}),
        ),
        (-6, -2),
        {},
    ),
    "soap-mended": (
        (
            _arm("soap", name="blocks", options={**PLAIN, "block_size": 32}),
            _arm("soap", name="spectral", options={**NORMALISED, "adamw_lr_factor": 0.1}),
        ),
        (-7, -3),
        {},
    ),
    "muon-256": (_pair("muon"), (-6, -2), {"widths": {"base": 64, "proxy": [32, 64], "targets": [128, 256]}}),
    "soap-256": (
        (_arm("soap", name="derived", rule="derived", options=PLAIN),),
        (-8, -4),
        {"widths": {"base": 64, "proxy": [32, 64], "targets": [128, 256]}},
    ),
    # What AdamW beside a normalised SOAP should have: its own rate, or three tenths of it.
    "soap-spectral": (
        tuple(_arm("soap", scaling, "spectral-full", options=NORMALISED) for scaling in ("sp", "mup")),
        (-7, -3),
        {},
    ),
    "soap-spectral-third": (
        tuple(
            _arm("soap", scaling, "spectral-third", options={**NORMALISED, "adamw_lr_factor": 0.3})
            for scaling in ("sp", "mup")
        ),
        (-7, -3),
        {},
    ),
    "soap-shipped-256": (
        tuple(_arm("soap", scaling, "shipped", options=SHIPPED) for scaling in ("sp", "mup")),
        (-7, -3),
        {"widths": {"base": 64, "proxy": [32, 64], "targets": [128, 256]}},
    ),
    "llama-soap-shipped": (
        tuple(_arm("soap", scaling, "shipped", options=SHIPPED) for scaling in ("sp", "mup")),
        (-7, -3),
        {"model": {"family": "llama"}, **FOUR_SEEDS},
    ),
    # Decay that stays with width, as at a constant horizon, against decay that falls as 1/width.
    "decay-constant": (
        (_arm("adamw", name="decay"),),
        (-7, -3),
        {"train": {"weight_decay": 0.015, "weight_decay_kappa": 0.0}, **FOUR_SEEDS},
    ),
    "decay-falling": (
        (_arm("adamw", name="decay-kappa-1"),),
        (-7, -3),
        {"train": {"weight_decay": 0.015, "weight_decay_kappa": 1.0}, **FOUR_SEEDS},
    ),
    "shampoo-256": (
        (_arm("shampoo"), _arm("shampoo", name="spectral", options={"spectral_norm": True})),
        (-6, -2),
        {"widths": {"base": 64, "proxy": [32, 64], "targets": [128, 256]}, **FOUR_SEEDS},
    ),
    # What `derive` measures for the grafted update, (1/3, 1/3), against the published (1/2, 1/2).
    "shampoo-graft": (
        (
            _arm("shampoo", name="adam-graft", options=GRAFT),
            _arm("shampoo", name="adam-graft-derived", options=GRAFT, rule="derived", law=[0.3333, 0.3333]),
        ),
        (-6, -2),
        {},
    ),
    # Embedding and readout at Muon's own rate instead of a tenth of it.
    "muon-readout": (
        tuple(_arm("muon", scaling, "full-readout", options={"adamw_lr_factor": 1.0}) for scaling in ("sp", "mup")),
        (-6, -2),
        {},
    ),
    "depth": (
        (*_pair("adamw"), _arm("muon")),
        (-7, -3),
        {
            "widths": {"proxy": [32], "targets": []},
            "depth": {"base": 2, "proxy": [1, 2], "targets": [4, 8]},
            "search": {"seeds": {"min": 3, "max": 6}},
        },
    ),
    "compute-optimal": (
        _pair("adamw"),
        (-7, -3),
        {
            "train": {"steps": None, "tokens_per_parameter": 20, "batch": 64, "weight_decay": 0.001},
            "model": {"head_dim": 8},
            "widths": {"base": 16, "proxy": [8, 16], "targets": [32, 64]},
        },
    ),
    "tuned": (
        (_arm("adamw"),),
        (-7, -3),
        {
            "search": {
                "algorithm": "tpe",
                "samples": 40,
                "parameters": {
                    "weight_decay": {"low": 1e-4, "high": 1e-1},
                    "embedding_lr_factor": {"low": 0.1, "high": 10.0},
                    "readout_lr_factor": {"low": 0.1, "high": 10.0},
                },
            },
        },
    ),
}


def document(name: str) -> dict[str, Any]:
    """The study document of one row of STUDIES."""
    arms, (low, high), changes = STUDIES[name]
    study: dict[str, Any] = {
        "version": 1,
        "name": f"table-{name}",
        "model": {"family": "nanogpt", "depth": 2, "head_dim": 16, "context": 32},
        "train": {"batch": 16, "steps": 150, "schedule": "linear", "warmup": 0.2, "clip": 1.0},
        "widths": {"base": 32, "proxy": [16, 32], "targets": [64, 128]},
        "eval": {"tokens": 16384},
        "arms": [dict(arm) for arm in arms],
        "search": {"lr_octaves": {"low": low, "high": high, "limit": [-18, 6]}, "seeds": {"min": 2, "max": 2}},
    }
    for section, values in changes.items():
        study[section] = {**study.get(section, {}), **values}
    return study


def run(names: Sequence[str], home: Path) -> None:
    """Run the studies that have no document yet. Raises SystemExit when one fails."""
    missing = [name for name in names if not (RESULTS / f"{name}.json").exists()]
    if not missing:
        return
    service, log = start(home.resolve(), 0)
    try:
        url = wait_ready(service, log)
        for place, name in enumerate(missing, start=1):
            print(f"{place} of {len(missing)}: {name}, {url}", flush=True)
            _run_one(name, url, home)
    finally:
        end_all([service], grace_seconds=STOP_SECONDS)


def _run_one(name: str, url: str, home: Path) -> None:
    study = home / f"{name}.yaml"
    study.write_text(yaml.safe_dump(document(name), sort_keys=False, allow_unicode=True))
    done = subprocess.run([*CLI, "run", str(study), "--url", url, "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name} ended with status {done.returncode}: see {home}/logs")
    made = {"date": datetime.date.today().isoformat(), "machine": machine(), "study": document(name)}
    RESULTS.mkdir(parents=True, exist_ok=True)
    partial = RESULTS / f"{name}.json.part"
    partial.write_text(json.dumps({**made, "result": json.loads(done.stdout)}, indent=1) + "\n")
    partial.rename(RESULTS / f"{name}.json")


HEAD = """# Transfer table

Every optimizer under SP and μP: how far the optimal learning rate moves from the largest proxy to the largest target,
and what the rate recorded at the proxy costs there. Printed by `python -m benchmarks.table --render` from the documents
in [docs/results/table](results/table), which took {hours:.1f} device-hours; `python -m benchmarks.table` runs what is
missing, and may be stopped. Unless a document says otherwise two blocks, 150 steps of 512 tokens and two seeds, or up
to four where two left it open; 95 % intervals; tolerances 1 octave and 0.01 nats. `standard` is the study in
examples/standard.yaml.

"""
COLUMNS = (
    "study", "arm", "widths", "verdict", "drift (octaves)", "slope (octaves a doubling)", "regret at most (nats)",
    "best loss (nats)", "run",
)  # fmt: skip


def render() -> str:
    """The page, from the documents alone."""
    kept = [name for name in STUDIES if (RESULTS / f"{name}.json").exists()]
    rows = [*_standard(), *(row for name in kept for row in _rows(name))]
    missing = [name for name in STUDIES if not (RESULTS / f"{name}.json").exists()]
    return HEAD.format(hours=sum(_device_hours(name) for name in kept)) + table(COLUMNS, rows, missing=missing)


def _rows(name: str) -> Iterator[tuple[str, ...]]:
    kept = json.loads((RESULTS / f"{name}.json").read_text())
    return _rows_of(name, StudyResult.model_validate(kept["result"]), kept["date"])


def _device_hours(name: str) -> float:
    kept = json.loads((RESULTS / f"{name}.json").read_text())
    return StudyResult.model_validate(kept["result"]).cost.device_seconds / 3600.0


def _standard() -> Iterator[tuple[str, ...]]:
    """AdamW and Muon at width 256 are the arms of the shipped standard study."""
    result = StudyResult.model_validate_json(STANDARD.read_text())
    return _rows_of("standard", result, "[report](results/standard/report.md)")


def _rows_of(name: str, result: StudyResult, run: str) -> Iterator[tuple[str, ...]]:
    for arm in result.arms:
        sizes = [curve.depth if result.axis == "depth" else curve.width for curve in arm.curves]
        proxy = [size for size, curve in zip(sizes, arm.curves, strict=True) if curve.role == "proxy"][-1]
        span = f"{'depth ' if result.axis == 'depth' else ''}{proxy} → {sizes[-1]}"
        yield name, arm.name, span, *_numbers(arm), run


def _numbers(arm: ArmResult) -> tuple[str, ...]:
    verdict = arm.verdict
    highs = [r.high for r in verdict.regret_nats]
    regret = "" if not highs or None in highs else f"{max(h for h in highs if h is not None):.4f}"
    loss = arm.curves[-1].loss_nats
    best = "" if loss is None else f"{loss.value:.3f}"
    slope = _interval(verdict.slope_octaves_per_doubling)
    return verdict.outcome.value, _interval(verdict.total_drift_octaves), slope, regret, best


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    low, high = ("?" if bound is None else f"{bound:+.2f}" for bound in (interval.low, interval.high))
    return f"{interval.value:+.2f} [{low}, {high}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)} (default: all)")
    parser.add_argument("--render", action="store_true", help="only write the page")
    parser.add_argument("--home", type=Path, default=REPOSITORY / ".table")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in STUDIES]:
        parser.error(f"unknown studies: {', '.join(unknown)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not options.render:
        run(options.names or list(STUDIES), options.home)
    PAGE.write_text(render())
    print(f"written {PAGE.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
