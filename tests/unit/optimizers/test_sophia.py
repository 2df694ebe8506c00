"""Sophia against its authors' package and pytorch-optimizer, its plain reference, and by hand; its clock."""

from typing import Any

import pytest
from pytorch_optimizer import SophiaH
from sophia_opt import SophiaG
import torch
from torch import Tensor

from optimizers.sophia import Sophia, sophia_reference
from tests.unit.optimizers.support import SHAPES, assert_close, descend, tensors

LR, RHO, DECAY, TOKENS, EVERY, STEPS = 0.02, 0.05, 0.3, 64, 5, 25


def _estimates(step: int, *, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Of the size that leaves some entries clipped and others not."""
    return tensors(SHAPES, seed=5000 + step, scale=0.5, dtype=dtype)


def _run(parameters: list[Tensor], **options: Any) -> None:
    optimizer = Sophia(parameters, lr=LR, rho=RHO, every=EVERY, weight_decay=DECAY, **options)

    def estimate(step: int) -> None:
        assert optimizer.curvature_due == (step % EVERY == 0)
        if optimizer.curvature_due:
            optimizer.update_curvature(dict(zip(parameters, _estimates(step), strict=True)), tokens=TOKENS)

    descend(optimizer, parameters, range(STEPS), before=estimate)


def test_gnb_parity_with_the_authors() -> None:
    ours, theirs = tensors(), tensors()
    _run(ours, estimator="gnb")
    peer = SophiaG(theirs, lr=LR, betas=(0.965, 0.99), rho=RHO, weight_decay=DECAY)

    def estimate(step: int) -> None:
        if step % EVERY == 0:
            for parameter, given in zip(theirs, _estimates(step), strict=True):
                parameter.grad = given
            peer.update_hessian()

    descend(_WithTokens(peer), theirs, range(STEPS), before=estimate)
    assert_close(ours, theirs, tolerance=1e-6)


class _WithTokens:
    """The authors' optimizer takes the tokens at each step."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer

    def step(self) -> None:
        self.peer.step(bs=TOKENS)


class _WithEstimates:
    """pytorch-optimizer's takes the estimates at the step itself."""

    def __init__(self, peer: Any) -> None:
        self.peer, self.count = peer, 0

    def step(self) -> None:
        self.peer.step(hessian=_estimates(self.count) if self.count % EVERY == 0 else None)
        self.count += 1


def test_hutchinson_parity_with_pytorch_optimizer() -> None:
    """Its step is `lr clip(m / h, ±p)`: ours at `lr / rho`, `p = rho`."""
    ours, theirs = tensors(), tensors()
    _run(ours, estimator="hutchinson", betas=(0.96, 0.99), eps=1e-12 * RHO)
    peer = SophiaH(theirs, lr=LR / RHO, betas=(0.96, 0.99), p=RHO, weight_decay=DECAY * RHO, update_period=10**9)
    descend(_WithEstimates(peer), theirs, range(STEPS))
    assert_close(ours, theirs, tolerance=1e-6)


@pytest.mark.parametrize("estimator", ["gnb", "hutchinson"])
def test_it_equals_its_reference(estimator: str) -> None:
    options: dict[str, Any] = {
        "lr": LR, "betas": (0.9, 0.8), "rho": RHO, "eps": 1e-3,
        "estimator": estimator, "every": EVERY, "weight_decay": DECAY,
    }  # fmt: skip
    (start,) = tensors([(12, 9)], dtype=torch.float64)
    given = tensors([(12, 9)] * STEPS, seed=3, dtype=torch.float64)
    estimates = tensors([(12, 9)] * (STEPS // EVERY), seed=4, dtype=torch.float64)
    weight = start.clone()
    optimizer = Sophia([weight], **options)
    for step, gradient in enumerate(given):
        if optimizer.curvature_due:
            optimizer.update_curvature({weight: estimates[step // EVERY]}, tokens=TOKENS)
        weight.grad = gradient
        optimizer.step()
    expected = sophia_reference(start, given, estimates, tokens=TOKENS, **options)
    assert_close([weight], [expected], tolerance=1e-12)


def test_one_step_by_hand() -> None:
    """h = 0.5 * (4, 1, 0); d = 0.1 * 10 h; m = 0.5 g; the last entry has no curvature and moves by the full LR."""
    weight = torch.zeros(3, dtype=torch.float64)
    optimizer = Sophia([weight], lr=0.2, betas=(0.5, 0.5), rho=0.1)
    optimizer.update_curvature({weight: torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)}, tokens=10)
    weight.grad = torch.tensor([1.0, -8.0, 1e-6], dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(weight, torch.tensor([-0.2 * 0.25, 0.2, -0.2], dtype=torch.float64))


def test_negative_hutchinson_curvature_is_clipped_to_a_sign_step() -> None:
    weight = torch.zeros(2)
    optimizer = Sophia([weight], lr=0.2, estimator="hutchinson")
    optimizer.update_curvature({weight: torch.tensor([-1.0, -1.0])}, tokens=1)
    weight.grad = torch.tensor([1e-3, -1e-3])
    optimizer.step()
    torch.testing.assert_close(weight, torch.tensor([-0.2, 0.2]))


def test_the_clock_survives_saving_and_groups_share_it() -> None:
    weight, late = torch.zeros(2), torch.zeros(2)
    optimizer = Sophia([weight], every=3)
    seen = []
    for step in range(7):
        seen.append(optimizer.curvature_due)
        if optimizer.curvature_due:
            optimizer.update_curvature({weight: torch.ones(2)}, tokens=4)
            assert not optimizer.curvature_due
        if step == 1:
            optimizer.add_param_group({"params": [late], "every": 3})
        weight.grad = torch.ones(2)
        optimizer.step()
        saved = optimizer.state_dict()
        optimizer = Sophia([{"params": g["params"]} for g in optimizer.param_groups], every=9)
        optimizer.load_state_dict(saved)
    assert seen == [True, False, False, True, False, False, True]
    assert optimizer.param_groups[0]["tokens"] == 4


def test_estimates_beyond_the_due_ones_change_nothing() -> None:
    weight = torch.zeros(2)
    optimizer = Sophia([weight], betas=(0.9, 0.5))
    for _ in range(3):
        optimizer.update_curvature({weight: torch.ones(2)}, tokens=4)
    torch.testing.assert_close(optimizer.state[weight]["hessian"], torch.full((2,), 0.5))


@pytest.mark.parametrize(
    "bad", [{"rho": 0.0}, {"every": 0}, {"estimator": "exact"}, {"eps": 0.0}, {"betas": (-0.1, 0.9)}]
)
def test_bad_options_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Sophia(tensors(), **bad)  # type: ignore[arg-type]


def test_mixed_estimators_and_no_tokens_are_refused() -> None:
    one, two = tensors([(2, 2)] * 2)
    with pytest.raises(ValueError, match="one estimator for all groups"):
        Sophia([{"params": [one]}, {"params": [two], "estimator": "hutchinson"}])
    with pytest.raises(ValueError, match="tokens must be"):
        Sophia([one]).update_curvature({}, tokens=0)
