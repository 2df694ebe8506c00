"""Trials and studies for tests: small, explicit, one keyword away from any variation."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mutransfer.spec import StudySpec, parse_study
from mutransfer.trial import TrialSpec, trial_spec
from workers.data import TokenData


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping by mapping."""
    out = dict(base)
    for key, value in changes.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


SMALL: dict[str, Any] = {
    "version": 1,
    "name": "small",
    "model": {"family": "nanogpt", "depth": 2, "head_dim": 8, "context": 16},
    "train": {"batch": 4, "steps": 12},
    "eval": {"tokens": 256},
    "widths": {"base": 16, "proxy": [16], "targets": [64]},
    "arms": [{"optimizer": "adamw", "parametrization": "mup"}],
}


def small_study(**changes: Any) -> StudySpec:
    """The small study with `changes` merged in."""
    return parse_study(merged(SMALL, changes))


def small_trial(
    *,
    optimizer: str = "adamw",
    parametrization: str = "mup",
    options: Mapping[str, Any] | None = None,
    rule: str = "published",
    law: tuple[float, float] | None = None,
    width: int = 16,
    lr_octaves: float = -6.0,
    seed: int = 0,
    **changes: Any,
) -> TrialSpec:
    """One trial of the small study; `changes` go to the study."""
    arm = {
        "optimizer": optimizer,
        "parametrization": parametrization,
        "options": dict(options or {}),
        "rule": rule,
        "law": law,
    }
    study = small_study(**{**changes, "arms": [arm]})
    return trial_spec(study, study.arms[0], width, lr_octaves, seed)


def token_data(*, vocab: int = 11, tokens: int = 4000) -> TokenData:
    """Learnable tokens: a noisy counter modulo `vocab`."""
    rng = np.random.default_rng(7)
    stream = (np.arange(tokens) + (rng.random(tokens) < 0.1)) % vocab
    ids = stream.astype(np.uint8)
    return TokenData(vocab=vocab, fingerprint="test", train=ids[: tokens * 3 // 4], heldout=ids[tokens * 3 // 4 :])
