"""The two algorithms taken from torch, as they are used here: AdamW fused, SGD with decay on the weights."""

import pytest
import torch

from optimizers.sgd import SGD
from tests.unit.optimizers.support import assert_close, descend, tensors


def test_fused_adamw_is_the_published_one() -> None:
    """Against the equations in fp64, with decay times the learning rate."""
    lr, (beta1, beta2), eps, decay = 0.05, (0.9, 0.95), 1e-3, 0.3
    (weight,) = tensors([(12, 9)], dtype=torch.float64)
    expected, m, v = weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight)
    optimizer = torch.optim.AdamW([weight], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay, fused=True)
    for step, gradient in enumerate(tensors([(12, 9)] * 20, seed=3, dtype=torch.float64), start=1):
        m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
        adam = (m / (1 - beta1**step)) / ((v / (1 - beta2**step)).sqrt() + eps)
        expected = (1 - lr * decay) * expected - lr * adam
        weight.grad = gradient
        optimizer.step()
    assert_close([weight], [expected], tolerance=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_without_decay_is_torchs_bit_for_bit(nesterov: bool) -> None:
    ours, theirs = tensors(), tensors()
    options = {"lr": 0.05, "momentum": 0.9, "nesterov": nesterov}
    descend(SGD(ours, **options, fused=True), ours, range(20))
    descend(torch.optim.SGD(theirs, **options, fused=True), theirs, range(20))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_sgd_with_decay_is_torchs_on_shrunk_weights() -> None:
    ours, theirs = tensors(), tensors()
    optimizer = torch.optim.SGD(theirs, lr=0.05, momentum=0.9)

    class Shrinking:
        def step(self) -> None:
            for parameter in theirs:
                parameter.mul_(1 - 0.05 * 0.4)
            optimizer.step()

    descend(SGD(ours, lr=0.05, momentum=0.9, weight_decay=0.4), ours, range(20))
    descend(Shrinking(), theirs, range(20))
    assert_close(ours, theirs, tolerance=1e-6)


def test_the_closure_sees_the_weights_before_they_shrink() -> None:
    weight = torch.full((2,), 3.0, requires_grad=True)
    optimizer = SGD([weight], lr=0.1, weight_decay=0.5)

    def closure() -> float:
        optimizer.zero_grad()
        loss = weight.sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 6.0
    torch.testing.assert_close(weight.detach(), torch.full((2,), 3.0 * 0.95 - 0.1))
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
