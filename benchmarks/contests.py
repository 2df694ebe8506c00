"""Who is timed against whom in `benchmarks.optimizers`: ours and the packages anyone can install.

A contestant is built from parameters that carry gradients and returns a function that takes one step. Peers are
imported when they are built; one that is not installed is left out of the table.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from mutransfer.algorithms import Algorithm
from optimizers.adopt import ADOPT
from optimizers.lamb import LAMB
from optimizers.muon import Muon, compute_dtype
from optimizers.registry import _BUILDERS
from optimizers.shampoo import Shampoo
from optimizers.soap import SOAP
from optimizers.sophia import Sophia

Step = Callable[[], None]
#: Curvature and preconditioners are renewed every so many steps, everywhere.
EVERY = 10
#: Tokens behind Sophia's estimates.
TOKENS = 8192


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One row: `build` may raise ImportError. A peer that is not `judged` is shown but asks nothing of ours."""

    name: str
    build: Callable[[list[Tensor]], Step]
    ours: bool = False
    judged: bool = True


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Contestants that do the same, and what is asked of ours: its mean as a share of the best peer's mean.

    `worst_over_median` is the most that ours may need for its worst step, in medians of its own.
    """

    name: str
    contestants: Sequence[Contestant]
    share: float
    worst_over_median: float | None = None
    widths: Sequence[int] | None = None


def gpt_matrices(width: int, layers: int) -> list[tuple[int, int]]:
    """A GPT's matrices `(d_out, d_in)`, four a layer: query-key-value, attention out, MLP up, MLP down."""
    return [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)] * layers


def contests() -> list[Contest]:
    """All of them, in the order of the table."""
    return [_adamw(), _adopt(), _lamb(), _sophia_g(), _sophia_h(), _soap(), _shampoo(), _muon(), _muon_small()]


def _ours(name: str, build: Callable[[list[Tensor]], Step]) -> Contestant:
    return Contestant(name=f"ours: {name}", build=build, ours=True)


def _steps(optimizer: Callable[[list[Tensor]], Any]) -> Callable[[list[Tensor]], Step]:
    """For optimizers that need no more than `step()`."""
    return lambda parameters: optimizer(parameters).step


def _peer(package: str, optimizer: str, **options: Any) -> Callable[[list[Tensor]], Any]:
    return lambda parameters: getattr(import_module(package), optimizer)(parameters, **options)


def _by_shape(parameters: Iterable[Tensor]) -> list[dict[str, Any]]:
    """Groups as a scaled run has them: one for each kind of matrix, with a learning rate of its own."""
    shapes: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        shapes.setdefault(parameter.shape, []).append(parameter)
    return [{"params": members, "lr": 1e-3 / place} for place, members in enumerate(shapes.values(), start=1)]


def _adamw() -> Contest:
    """Ours is torch's own, fused; the last fused row shows what groups cost, whoever's they are."""
    torch_adamw = partial(partial, torch.optim.AdamW)
    return Contest(
        name="AdamW",
        share=1.05,
        contestants=[
            _ours("four groups", _steps(lambda p: _BUILDERS[Algorithm.ADAMW](_by_shape(p)))),
            Contestant(name="torch fused, same groups", build=_steps(lambda p: torch_adamw(fused=True)(_by_shape(p)))),
            Contestant(name="torch fused, one group", build=_steps(torch_adamw(fused=True)), judged=False),
            Contestant(name="torch foreach", build=_steps(torch_adamw(foreach=True))),
            Contestant(name="torch loop", build=_steps(torch_adamw(foreach=False))),
        ],
    )


def _adopt() -> Contest:
    return Contest(
        name="ADOPT",
        share=0.9,
        contestants=[
            _ours("ADOPT", _steps(ADOPT)),
            Contestant(name="torch-adopt", build=_steps(_peer("adopt", "ADOPT", decouple=True))),
            Contestant(name="pytorch-optimizer", build=_steps(_peer("pytorch_optimizer", "ADOPT"))),
        ],
    )


def _lamb() -> Contest:
    return Contest(
        name="LAMB",
        share=0.9,
        contestants=[
            _ours("LAMB", _steps(LAMB)),
            Contestant(name="torch-optimizer", build=_steps(_peer("torch_optimizer", "Lamb"))),
            Contestant(name="pytorch-optimizer", build=_steps(_peer("pytorch_optimizer", "Lamb"))),
        ],
    )


def _estimates(parameters: Iterable[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [0.1 * torch.randn(p.shape, generator=generator, device="cpu").to(p.device) for p in parameters]


def _our_sophia(parameters: list[Tensor], estimator: str) -> Step:
    optimizer = Sophia(parameters, estimator=estimator, every=EVERY)
    estimates = dict(zip(parameters, _estimates(parameters), strict=True))

    def step() -> None:
        if optimizer.curvature_due:
            optimizer.update_curvature(estimates, tokens=TOKENS)
        optimizer.step()

    return step


def _authors_sophia(parameters: list[Tensor]) -> Step:
    optimizer, estimates, count = (
        _peer("sophia_opt", "SophiaG", weight_decay=0.0)(parameters),
        _estimates(parameters),
        0,
    )

    def step() -> None:
        nonlocal count
        if count % EVERY == 0:
            gradients = [p.grad for p in parameters]
            for parameter, estimate in zip(parameters, estimates, strict=True):
                parameter.grad = estimate
            optimizer.update_hessian()
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
        optimizer.step(bs=TOKENS)
        count += 1

    return step


def _peer_sophia_h(parameters: list[Tensor]) -> Step:
    optimizer = _peer("pytorch_optimizer", "SophiaH", update_period=10**9)(parameters)
    estimates, count = _estimates(parameters), 0

    def step() -> None:
        nonlocal count
        optimizer.step(hessian=estimates if count % EVERY == 0 else None)
        count += 1

    return step


def _sophia_g() -> Contest:
    ours = _ours("Sophia, gnb", partial(_our_sophia, estimator="gnb"))
    return Contest(
        name="Sophia-G", share=0.9, contestants=[ours, Contestant(name="sophia-opt", build=_authors_sophia)]
    )  # fmt: skip


def _sophia_h() -> Contest:
    ours = _ours("Sophia, hutchinson", partial(_our_sophia, estimator="hutchinson"))
    return Contest(
        name="Sophia-H", share=0.9, contestants=[ours, Contestant(name="pytorch-optimizer", build=_peer_sophia_h)]
    )  # fmt: skip


def _heavyball_soap(parameters: list[Tensor]) -> Step:
    heavyball = import_module("heavyball")
    heavyball.utils.compile_mode = None  # eager, as everyone here
    optimizer = heavyball.SOAP(parameters, precondition_frequency=EVERY, merge_dims=False, max_precond_dim=10_000)
    step: Step = optimizer.step
    return step


def _soap() -> Contest:
    options = {"precondition_frequency": EVERY, "weight_decay": 0.0}
    return Contest(
        name="SOAP",
        share=0.9,
        worst_over_median=3.0,
        contestants=[
            _ours("SOAP", _steps(partial(SOAP, every=EVERY))),
            Contestant(name="pytorch-optimizer", build=_steps(_peer("pytorch_optimizer", "SOAP", **options))),
            Contestant(name="heavyball", build=_heavyball_soap),
        ],
    )


def _shampoo() -> Contest:
    peer = _peer(
        "pytorch_optimizer", "ScalableShampoo", betas=(0.9, 0.999), start_preconditioning_step=1,
        preconditioning_compute_steps=EVERY, block_size=256, graft_type=0, nesterov=False,
    )  # fmt: skip
    return Contest(
        name="Shampoo",
        share=0.9,
        worst_over_median=3.0,
        contestants=[
            _ours("Shampoo, block 256", _steps(partial(Shampoo, every=EVERY, block_size=256))),
            Contestant(name="pytorch-optimizer", build=_steps(peer)),
        ],
    )


def _products_alone(parameters: list[Tensor]) -> Step:
    """Muon's 15 products a matrix in Muon's precision, and nothing else."""
    matrices = [p.mT.contiguous() if p.shape[0] > p.shape[1] else p.clone() for p in parameters]
    matrices = [m.to(compute_dtype(m.device)) for m in matrices]
    matrices = [0.1 * m / m.norm() for m in matrices]

    def step() -> None:
        for X in matrices:
            for _ in range(5):
                A = X @ X.mT
                (A @ A) @ X

    return step


def _muon() -> Contest:
    return Contest(
        name="Muon",
        share=1.2,
        widths=(256, 512),
        contestants=[_ours("Muon", _steps(Muon)), Contestant(name="its products alone", build=_products_alone)],
    )


def _muon_small() -> Contest:
    """torch's runs in bf16: seconds a step at larger widths on most CPUs, half our fp32 on those with bf16 units.

    So it is shown and not judged: what is asked is little beyond the products, whatever their precision.
    """
    return Contest(
        name="Muon",
        share=1.2,
        widths=(128,),
        contestants=[
            _ours("Muon", _steps(Muon)),
            Contestant(name="its products alone", build=_products_alone),
            Contestant(name="torch (bf16)", build=_steps(torch.optim.Muon), judged=False),
        ],
    )
