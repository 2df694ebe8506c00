"""Measuring an optimizer's update law: the raw update of one matrix whose sides vary independently.

The matrix `W` of shape `(d_out, d_in)` sits inside a network that satisfies the spectral condition at every size:
features of order 1 on both of its sides, a loss of order 1, so that its gradient is what it would be in a real model
(entries of order 1/d_out). Only `W` is trained, at a learning rate so small that nothing else changes; every step sees
fresh samples, so that momentum and second moments have the noise they are made for. Sophia gets its curvature from the
same samples, as in training.

Shapes: N samples, F features of the data, I = d_in, O = d_out, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
import hashlib

import torch
from torch import Tensor, nn
import torch.nn.functional as F
from torch.optim import Optimizer

from mutransfer.update_law import ShapeNorm
from optimizers.curvature import CurvatureBatch, sophias, update_curvature

FEATURES, CLASSES = 16, 8
#: Updates are differences of weights at a tiny rate: single precision would round them away.
DTYPE = torch.float64

#: From the matrix's parameter list to its optimizer, at learning rate `lr`.
Factory = Callable[[list[nn.Parameter], float], Optimizer]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How an update law is measured. Updates are averaged (root mean square) over steps `first` to `last`."""

    sides: tuple[int, ...] = (32, 64, 128, 256)
    seeds: int = 4
    lr: float = 1e-5
    samples: int = 64
    first: int = 4
    last: int = 12


class Layer(nn.Module):
    """One matrix between a fixed input map and a fixed readout, both at the sizes that the spectral condition asks."""

    def __init__(self, d_out: int, d_in: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d_out, d_in, generator=generator, dtype=DTYPE) / d_in**0.5)
        self.inputs_IF = torch.randn(d_in, FEATURES, generator=generator, dtype=DTYPE) / FEATURES**0.5
        self.readout_CO = torch.randn(CLASSES, d_out, generator=generator, dtype=DTYPE) / d_out

    def forward(self, data_NF: Tensor) -> Tensor:
        """Logits `(N, C)` of data `(N, F)`."""
        features_NI = torch.tanh(data_NF @ self.inputs_IF.T)
        return F.relu(features_NI @ self.weight.T) @ self.readout_CO.T


def measure(
    factory: Factory, probe: Probe = Probe(), *, progress: Callable[[], None] = lambda: None
) -> list[ShapeNorm]:
    """Raw update norms `||dW||_2 / lr` over the grid of shapes and the seeds; `progress` is called after each.

    On a CPU, whatever the default device: the law is the same, and its small matrices are faster there. Raises whatever
    the optimizer raises.
    """
    norms = []
    for seed in range(probe.seeds):
        for d_out in probe.sides:
            for d_in in probe.sides:
                with torch.device("cpu"):
                    norm = _norm(factory, probe, d_out, d_in, seed)
                norms.append(ShapeNorm(d_out=d_out, d_in=d_in, seed=seed, norm=norm))
                progress()
    return norms


def _norm(factory: Factory, probe: Probe, d_out: int, d_in: int, seed: int) -> float:
    generator = _generator(seed, d_out, d_in)
    teacher_FC = torch.randn(FEATURES, CLASSES, generator=_generator(seed), dtype=DTYPE)
    layer = Layer(d_out, d_in, generator)
    optimizer = factory([layer.weight], probe.lr)
    norms: list[Tensor] = []
    for step in range(probe.last):
        before = layer.weight.detach().clone()
        data_NF = torch.randn(probe.samples, FEATURES, generator=generator, dtype=DTYPE)
        labels_N = (data_NF @ teacher_FC).argmax(dim=1)
        batch = CurvatureBatch(logits=layer, x_BT=data_NF[:, None], y_BT=labels_N[:, None], seed=seed, step=step)
        update_curvature(sophias(optimizer), batch)
        _step(layer, optimizer, data_NF, labels_N)
        if step + 1 >= probe.first:
            norms.append(torch.linalg.matrix_norm(layer.weight.detach() - before, ord=2) / probe.lr)
    return float(torch.stack(norms).square().mean().sqrt())


def _step(layer: Layer, optimizer: Optimizer, data_NF: Tensor, labels_N: Tensor) -> None:
    def closure() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss = F.cross_entropy(layer(data_NF), labels_N)
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    optimizer.step(closure)


def _generator(*parts: int) -> torch.Generator:
    """A stream for each seed and shape: two shapes share no draw, so that their norms are independent."""
    word = hashlib.sha256(repr(parts).encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(word, "little") >> 1)
