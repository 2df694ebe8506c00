"""Curvature estimates for Sophia, from the model and the batch at hand (Liu et al. 2023, arXiv 2305.14342).

Each costs a forward and a backward pass (Hutchinson: two backward passes) every `every` steps; other optimizers pay
nothing. Random numbers come from a CPU generator seeded by trial seed and step, so that a resumed trial draws what an
uninterrupted one draws. The training loss's gradients in `p.grad` are never touched.

Legend of shape suffixes: B batch, T tokens of context, N = B T, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
import torch.nn.functional as F
from torch.optim import Optimizer

from mutransfer.errors import SpecError
from optimizers.sophia import GNB, Sophia


@dataclass(frozen=True, kw_only=True)
class CurvatureBatch:
    """What an estimate is made of: the forward pass, a batch and where its random numbers come from.

    `logits` maps token ids `(B, T)` to logits `(B, T, V)`.
    """

    logits: Callable[[Tensor], Tensor]
    x_BT: Tensor
    y_BT: Tensor
    seed: int
    step: int

    def generator(self) -> torch.Generator:
        """A CPU generator that depends on seed and step alone, on its own stream beside the data's."""
        (state,) = np.random.SeedSequence([self.seed, self.step, 0x50F1A]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state))

    def flat_logits(self) -> Tensor:
        """The forward pass, in fp32, with gradients."""
        return self.logits(self.x_BT).flatten(0, 1).float()


def sophias(optimizer: Optimizer) -> tuple[Sophia, ...]:
    """The optimizers within `optimizer` that want curvature, through composites (`children`) and wrappers (`child`)."""
    if isinstance(optimizer, Sophia):
        return (optimizer,)
    within = [*getattr(optimizer, "children", ()), getattr(optimizer, "child", None)]
    return tuple(found for member in within if isinstance(member, Optimizer) for found in sophias(member))


def update_curvature(optimizers: Sequence[Sophia], batch: CurvatureBatch) -> None:
    """Give the optimizers that are due their estimates from `batch`: one computation serves all of one estimator."""
    due = [optimizer for optimizer in optimizers if optimizer.curvature_due]
    for estimator in sorted({optimizer.estimator for optimizer in due}):
        members = [optimizer for optimizer in due if optimizer.estimator == estimator]
        parameters = [p for member in members for group in member.param_groups for p in group["params"]]
        estimate = gnb_gradients if estimator == GNB else hutchinson_products
        estimates = dict(zip(parameters, estimate(parameters, batch), strict=True))
        for member in members:
            member.update_curvature(estimates, tokens=batch.y_BT.numel())


@torch.enable_grad()
def gnb_gradients(parameters: Sequence[Tensor], batch: CurvatureBatch) -> tuple[Tensor, ...]:
    """Gauss-Newton-Bartlett: the gradient of the mean loss on labels drawn from the model's own distribution.

    N times its square estimates the diagonal of the Gauss-Newton matrix without bias (the labels of different tokens
    are independent, so their cross terms vanish in the mean).
    """
    logits_NV = batch.flat_logits()
    labels_N = sample_labels(logits_NV.detach(), batch.generator())
    return torch.autograd.grad(F.cross_entropy(logits_NV, labels_N), parameters, materialize_grads=True)


def sample_labels(logits_NV: Tensor, generator: torch.Generator) -> Tensor:
    """One label `(N,)` a row from softmax(logits), by inverting the distribution function.

    So the CPU draws N numbers, whatever the device, and not the whole table.
    """
    uniform_N1 = torch.rand(len(logits_NV), 1, generator=generator, device="cpu").to(logits_NV.device)
    cumulative_NV = logits_NV.softmax(-1).cumsum(-1)
    labels_N1 = torch.searchsorted(cumulative_NV, uniform_N1 * cumulative_NV[:, -1:], right=True)
    return labels_N1.squeeze(1).clamp(max=logits_NV.shape[1] - 1)


@torch.enable_grad()
def hutchinson_products(parameters: Sequence[Tensor], batch: CurvatureBatch) -> tuple[Tensor, ...]:
    """Hutchinson: `z * (H z)` for random signs z and the Hessian H of the training loss; its mean is H's diagonal.

    Raises SpecError when torch knows no second derivative of one of the model's operations.
    """
    generator = batch.generator()
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no second derivative
        loss = F.cross_entropy(batch.flat_logits(), batch.y_BT.flatten())
        gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    signs = [_signs(p, generator) for p in parameters]
    along = torch.stack([(g * z).sum() for g, z in zip(gradients, signs, strict=True)]).sum()
    try:
        products = torch.autograd.grad(along, parameters, materialize_grads=True)
    except NotImplementedError as error:  # torch's answer for an operation whose backward has none of its own
        advice = "the model has no second derivative, which hutchinson needs: use the estimator gnb"
        raise SpecError.at("arms.options.estimator", f"{advice} ({error})") from error
    return tuple(z * product for z, product in zip(signs, products, strict=True))


def _signs(parameter: Tensor, generator: torch.Generator) -> Tensor:
    bits = torch.randint(0, 2, parameter.shape, generator=generator, device="cpu")
    return (2 * bits - 1).to(parameter.device, parameter.dtype)
