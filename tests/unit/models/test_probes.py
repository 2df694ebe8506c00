"""What a probe measures, against the same numbers taken by hand, and that it leaves nothing behind."""

import math
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models import build
from models.mlp import MLPModel
from models.probes import Probe, rms, spectral_norm, subspace_norm
from mutransfer.roles import ParameterInfo, ParameterRole, parameter_info
from tests.trials import small_trial
from tests.unit.optimizers.support import normal

IDS_BT = torch.arange(32).remainder(11).view(2, 16)


def _mlp(**init: str) -> tuple[MLPModel, list[ParameterInfo]]:
    model = {"family": "mlp", "head_dim": None, "init": init}
    built = build(small_trial(width=64, model=model), vocab=11)
    return cast(MLPModel, built.module), [p.info for p in built.scaling.parameters]


@pytest.mark.parametrize("shape", [(7, 40), (40, 7), (64, 64)])
def test_spectral_norm_is_the_largest_singular_value(shape: tuple[int, int]) -> None:
    matrix_RC = normal(shape, generator=torch.Generator().manual_seed(1))
    largest = torch.linalg.svdvals(matrix_RC)[0].item()
    assert spectral_norm(matrix_RC) == pytest.approx(largest, rel=1e-5)
    assert subspace_norm(matrix_RC) == pytest.approx(largest, rel=1e-3)
    assert spectral_norm(torch.zeros(shape)) == 0.0
    assert math.isnan(spectral_norm(torch.full(shape, math.inf)))


def test_a_flat_spectrum_is_found_from_below_to_a_percent() -> None:
    matrix_RC = normal(400, 300, generator=torch.Generator().manual_seed(1))
    found, largest = subspace_norm(matrix_RC), torch.linalg.svdvals(matrix_RC)[0].item()
    assert 0.99 * largest < found <= 1.00001 * largest


def test_changes_are_measured_against_the_start() -> None:
    module, infos = _mlp(readout="multiplier")
    probe = Probe(module, infos, IDS_BT)
    assert all((m.update, m.output_change) == (0.0, 0.0) for m in probe.measure().values())
    layer = module.layers[0].weight
    assert isinstance(layer, Tensor)
    with torch.no_grad():
        layer[3, 5] += 2.0
        module.embedding.weight[15 * 11 + 4] += 0.5  # token 4 in the window's last place
    found = probe.measure()
    assert found["layers.0.weight"].update == pytest.approx(2.0, rel=1e-4)
    assert found["layers.1.weight"].update == 0.0
    assert found["embedding.weight"].update == pytest.approx(0.5 / math.sqrt(16 * 11))  # one row of 176
    assert all(m.output_change is not None and m.output_change > 0.0 for m in found.values())


def test_outputs_are_those_of_each_matrix_and_the_readouts_carry_their_multiplier() -> None:
    module, infos = _mlp(readout="multiplier")  # forward multiplier 16/64
    probe = Probe(module, infos, IDS_BT)
    found, seen = probe.measure(), dict[str, Tensor]()
    for name in ("embedding", "layers.0", "readout"):
        module.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.__setitem__(f"{name}.weight", output)
        )
    logits_BTV = module(IDS_BT)
    assert found["embedding.weight"].output == pytest.approx(rms(seen["embedding.weight"]))
    assert found["layers.0.weight"].output == pytest.approx(rms(seen["layers.0.weight"]))
    assert found["readout.weight"].output == pytest.approx(rms(logits_BTV))
    assert rms(logits_BTV) == pytest.approx(rms(seen["readout.weight"]) / 4)
    readout = module.readout.weight
    assert probe.weights["readout.weight"] == pytest.approx(spectral_norm(readout) / 4)
    assert probe.weights["embedding.weight"] == pytest.approx(rms(module.embedding.weight))


def test_it_leaves_no_hooks_and_the_mode_as_it_was() -> None:
    module, infos = _mlp()
    recorded = list[bool]()
    module.embedding.register_forward_pre_hook(lambda _module, _inputs: recorded.append(torch.is_grad_enabled()))
    for training in (True, False):
        module.train(training)
        Probe(module, infos, IDS_BT).measure()
        assert module.training is training
    assert recorded == [False] * 4  # no graph is kept
    assert not any(child._forward_hooks for child in module.modules())


class _Checkpointed(nn.Module):
    """A lookup, a layer under activation checkpointing, and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(11, 8), nn.Linear(8, 8, bias=False)
        self.readout = nn.Linear(8, 11, bias=False)
        self.calls = 0

    def _counted(self, x_BTD: Tensor) -> Tensor:
        self.calls += 1
        return torch.tanh(self.layer(x_BTD))

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTD = checkpoint(self._counted, self.embedding(ids_BT), use_reentrant=False)
        return cast(Tensor, self.readout(x_BTD))


def test_checkpointing_is_not_counted_twice() -> None:
    module = _Checkpointed()
    roles = {"embedding": ParameterRole.EMBEDDING, "layer": ParameterRole.HIDDEN, "readout": ParameterRole.READOUT}
    infos = [
        parameter_info(f"{n}.weight", role, module.get_parameter(f"{n}.weight").shape) for n, role in roles.items()
    ]
    probe = Probe(module, infos, IDS_BT)
    module(IDS_BT).sum().backward()
    assert module.calls == 3  # probe, forward, and once more in the backward pass
    own = rms(module.layer(module.embedding(IDS_BT)))
    assert probe.measure()["layer.weight"].output == pytest.approx(own)
    assert probe._forward().of["layer.weight"][0].shape == (2, 16, 8)
    assert len(probe._forward().of["layer.weight"]) == 1


class _TwoInOne(nn.Module):
    """Two matrices in one module: what it puts out is neither's `W x`."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.eye(11)), nn.Parameter(torch.eye(11))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.a @ self.b


def test_a_module_with_two_matrices_has_no_output_of_one() -> None:
    module = nn.Sequential(nn.Embedding(11, 11), _TwoInOne())
    infos = [
        parameter_info("0.weight", ParameterRole.EMBEDDING, (11, 11)),
        *(parameter_info(f"1.{side}", ParameterRole.HIDDEN, (11, 11)) for side in "ab"),
    ]
    found = Probe(module, infos, IDS_BT).measure()
    assert found["1.a"].output is None
    assert found["0.weight"].output is not None
