"""Initialisation from the numbers of `ModelScaling`, one independent stream a parameter."""

import hashlib

import torch
from torch import nn

from mutransfer.errors import ScalingError
from mutransfer.parametrize import ModelScaling, ParameterScaling
from mutransfer.roles import ParameterRole


def _stream(seed: int, name: str) -> torch.Generator:
    """A generator of its own for each (seed, parameter): adding a parameter moves no other's draw."""
    word = hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(word, "little") >> 1)


@torch.no_grad()
def initialise(module: nn.Module, scaling: ModelScaling, *, seed: int) -> None:
    """Draw every matrix from N(0, init_std²) on the CPU in fp32; gains become 1 and biases 0.

    The same seed gives the same unit draws whatever the parametrization or the device. Raises ScalingError when the
    module's parameters are not exactly those of `scaling`, by name and shape.
    """
    parameters = dict(module.named_parameters())
    expected = {p.info.name: p.info.shape for p in scaling.parameters}
    actual = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    if actual != expected:
        odd = sorted(set(actual.items()) ^ set(expected.items()))
        raise ScalingError(f"the model's parameters are not those its scaling describes: {odd}")
    for scaled in scaling.parameters:
        _initialise(parameters[scaled.info.name], scaled, seed)


def _initialise(parameter: nn.Parameter, scaled: ParameterScaling, seed: int) -> None:
    if scaled.info.role is ParameterRole.VECTOR:
        parameter.fill_(0.0 if scaled.info.name.endswith("bias") else 1.0)
        return
    draw = torch.randn(scaled.info.shape, generator=_stream(seed, scaled.info.name), device="cpu")
    parameter.copy_(draw * scaled.init_std)
