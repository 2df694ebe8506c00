"""What the audit measures of a module: norms of its matrices and the size of what they put out on one fixed batch.

Legend of shape suffixes: B batch, T tokens, R rows and C columns of a matrix, K vectors of a subspace.
Hooks stand only during the probe's own forward passes, which take no gradients, so neither training nor activation
checkpointing (which runs a forward pass twice in the backward one) is ever counted. Passes are in fp32 and in
evaluation mode.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
import math

import torch
from torch import Tensor, nn

from mutransfer.roles import ParameterInfo, ParameterRole

#: Up to this smaller side the spectral norm is exact; beyond, a singular value decomposition a step takes too long.
EXACT_SIDE = 1024
_SUBSPACE = 8
_ROUNDS = 60


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One matrix now: the norm of its change, the RMS of its output and of that output's change since the start.

    The norm is spectral, for a lookup the RMS over its rows. Outputs are None where no module puts out `W x`.
    """

    update: float
    output: float | None
    output_change: float | None


@dataclass
class _Outputs:
    """What the modules put out in one forward pass, by parameter name, and what the whole model returned."""

    of: dict[str, list[Tensor]] = field(default_factory=dict)
    logits_BTV: Tensor | None = None


class Probe:
    """Remembers a module's start (weights, and outputs on `ids_BT`); `measure` compares the present with it.

    The output of the one matrix with role READOUT is what the model returns, so that forward multipliers count.
    `weights` holds each matrix's norm at the start as it acts: with that multiplier.
    """

    def __init__(self, module: nn.Module, infos: Sequence[ParameterInfo], ids_BT: Tensor) -> None:
        self.module, self.ids_BT = module, ids_BT
        self.infos = tuple(info for info in infos if info.role is not ParameterRole.VECTOR)
        self._owners = _owners(module, self.infos)
        readouts = [info.name for info in self.infos if info.role is ParameterRole.READOUT]
        self._readout = readouts[0] if len(readouts) == 1 else None
        self._start = {info.name: module.get_parameter(info.name).detach().clone() for info in self.infos}
        first = self._forward()
        self._multiplier = _multiplier(first, self._readout)
        self._outputs = self._by_name(first)
        self.weights = {info.name: self._norm(info, self._start[info.name]) for info in self.infos}

    def measure(self) -> dict[str, Measured]:
        """Every matrix, by name, in module order."""
        outputs = self._by_name(self._forward())
        return {info.name: self._measured(info, outputs.get(info.name)) for info in self.infos}

    def _measured(self, info: ParameterInfo, output: Tensor | None) -> Measured:
        start = self._outputs.get(info.name)
        change = self.module.get_parameter(info.name).detach() - self._start[info.name]
        return Measured(
            update=self._norm(info, change),
            output=None if output is None else rms(output),
            output_change=None if output is None or start is None else rms(output - start),
        )

    def _norm(self, info: ParameterInfo, matrix_RC: Tensor) -> float:
        if info.role.is_lookup:
            return rms(matrix_RC)
        multiplier = self._multiplier if info.name == self._readout else 1.0
        return multiplier * spectral_norm(matrix_RC)

    def _by_name(self, outputs: _Outputs) -> dict[str, Tensor]:
        found = {name: torch.cat([x.flatten() for x in pieces]) for name, pieces in outputs.of.items()}
        if self._readout is not None and outputs.logits_BTV is not None:
            found[self._readout] = outputs.logits_BTV.flatten()
        return found

    @torch.no_grad()
    def _forward(self) -> _Outputs:
        outputs, training = _Outputs(), self.module.training
        with _hooked(self._owners, outputs):
            outputs.logits_BTV = self.module.eval()(self.ids_BT).detach().float()
        self.module.train(training)
        return outputs


def _owners(module: nn.Module, infos: Sequence[ParameterInfo]) -> dict[str, nn.Module]:
    """The module that applies each matrix: the one that owns it, unless that owns several."""
    owners: dict[str, list[str]] = {}
    for info in infos:
        owners.setdefault(info.name.rpartition(".")[0], []).append(info.name)
    return {names[0]: module.get_submodule(path) for path, names in owners.items() if path and len(names) == 1}


@contextmanager
def _hooked(owners: dict[str, nn.Module], outputs: _Outputs) -> Iterator[None]:
    """Collect the outputs of `owners` (by parameter name) while the context lasts."""

    def hook(name: str) -> torch.utils.hooks.RemovableHandle:
        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                outputs.of.setdefault(name, []).append(output.detach().float())

        return owners[name].register_forward_hook(keep)

    handles = [hook(name) for name in owners]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _multiplier(outputs: _Outputs, readout: str | None) -> float:
    """What the model's logits are times the readout's own output; 1 where that cannot be told (a zero readout)."""
    pieces = outputs.of.get(readout or "", [])
    if len(pieces) != 1 or outputs.logits_BTV is None or pieces[0].shape != outputs.logits_BTV.shape:
        return 1.0
    own = pieces[0].flatten().double()
    square = float(own.square().sum())
    return float(own @ outputs.logits_BTV.flatten().double()) / square if square else 1.0


def rms(x: Tensor) -> float:
    """Root of the mean square of all entries."""
    return float(x.detach().double().square().mean().sqrt())


def spectral_norm(matrix_RC: Tensor) -> float:
    """Largest singular value: exact up to a smaller side of EXACT_SIDE, beyond from below to about 1 %.

    NaN when an entry is not finite.
    """
    matrix_RC = matrix_RC.detach()
    if not bool(torch.isfinite(matrix_RC).all()):
        return math.nan
    if min(matrix_RC.shape) > EXACT_SIDE:
        return subspace_norm(matrix_RC)
    wide = matrix_RC.double() if matrix_RC.shape[0] <= matrix_RC.shape[1] else matrix_RC.double().T
    # The largest eigenvalue of the Gram matrix is exact to rounding, and several times cheaper than all of an SVD.
    return math.sqrt(max(float(torch.linalg.eigvalsh(wide @ wide.T)[-1]), 0.0))


def subspace_norm(matrix_RC: Tensor) -> float:
    """Largest singular value by subspace iteration: never above it, equal to it as far as _ROUNDS have converged."""
    matrix_RC = matrix_RC.detach().float()
    generator = torch.Generator().manual_seed(0)
    q_CK = torch.randn(matrix_RC.shape[1], _SUBSPACE, generator=generator, device="cpu").to(matrix_RC.device)
    for _ in range(_ROUNDS):
        q_CK = torch.linalg.qr(matrix_RC.T @ (matrix_RC @ q_CK)).Q
    return float(torch.linalg.matrix_norm(matrix_RC @ q_CK, 2))
