"""Initial standard deviations, streams a parameter, and activations that keep their size."""

import math

import pytest
import torch

from models import build
from mutransfer.roles import ParameterRole
from tests.trials import small_trial


@pytest.mark.parametrize("parametrization", ["sp", "mup"])
@pytest.mark.parametrize("readout", ["zero", "inverse_width", "multiplier"])
def test_drawn_deviations_are_the_scalings(parametrization: str, readout: str) -> None:
    trial = small_trial(parametrization=parametrization, width=128, model={"init": {"readout": readout}})
    built = build(trial, vocab=97)
    parameters = dict(built.module.named_parameters())
    for scaled in built.scaling.parameters:
        drawn = parameters[scaled.info.name].detach()
        error = 5.0 * scaled.init_std / math.sqrt(2 * drawn.numel())  # five standard errors of a deviation
        assert drawn.std().item() == pytest.approx(scaled.init_std, abs=error)


def test_readout_at_four_times_the_base_by_hand() -> None:
    def std(parametrization: str, readout: str) -> float:
        trial = small_trial(parametrization=parametrization, width=64, model={"init": {"readout": readout}})
        scaling = build(trial, vocab=11).scaling
        return next(p.init_std for p in scaling.parameters if p.info.role is ParameterRole.READOUT)

    assert std("mup", "zero") == std("sp", "zero") == 0.0
    assert std("mup", "inverse_width") == 4.0 / 64.0  # sqrt(16) / 64
    assert std("mup", "multiplier") == 1.0 / 4.0  # 1 / sqrt(16)
    assert std("sp", "inverse_width") == std("sp", "multiplier") == 1.0 / 8.0  # 1 / sqrt(64)


def test_gains_start_at_one() -> None:
    module = build(small_trial(model={"norm_gain": True}), vocab=11).module
    gains = [p for name, p in module.named_parameters() if name.endswith("gain")]
    assert len(gains) == 5
    assert all(torch.equal(gain, torch.ones_like(gain)) for gain in gains)


def test_a_parameters_draw_depends_on_seed_and_name_alone() -> None:
    def weights(**changes: object) -> dict[str, torch.Tensor]:
        module = build(small_trial(**changes), vocab=11).module  # type: ignore[arg-type]
        return {name: p.detach() for name, p in module.named_parameters()}

    shallow, deep = weights(), weights(model={"depth": 4})
    assert all(torch.equal(shallow[name], deep[name]) for name in shallow)
    assert not torch.equal(shallow["embedding.weight"], weights(seed=1)["embedding.weight"])
    assert not torch.equal(shallow["blocks.0.attention.query.weight"], shallow["blocks.0.attention.key.weight"])


def test_logits_shrink_with_width_as_each_form_says() -> None:
    """With (b) and (c) the logits of a fresh μP model shrink like 1/sqrt(width); SP's keep their size."""

    def logit_rms(parametrization: str, readout: str, width: int) -> float:
        trial = small_trial(parametrization=parametrization, width=width, model={"init": {"readout": readout}})
        with torch.no_grad():
            logits = build(trial, vocab=97).module(torch.arange(16)[None])
        return logits.square().mean().sqrt().item()

    for readout in ("inverse_width", "multiplier"):
        ratio = logit_rms("mup", readout, 256) / logit_rms("mup", readout, 16)
        assert ratio == pytest.approx(1 / 4, rel=0.15)
        assert logit_rms("sp", readout, 256) / logit_rms("sp", readout, 16) == pytest.approx(1.0, rel=0.15)
