"""A step under `torch.compile` is the step, and one graph once an optimizer has begun (a graph for each step number).

The backend `aot_eager` traces as the default one does, without a C++ compiler.
"""

import pytest
import torch

from optimizers.roots import finite_eigh, inverse_root_by_newton
from tests.unit.optimizers.support import assert_close, descend
from tests.unit.optimizers.test_contract import CASES
from tests.unit.optimizers.trajectories import matrix

#: Their first step breaks the graph (it asks gradients whether they are all zeros), after which torch compiles piece by
#: piece, and fails where it takes sizes of gradients for dynamic.
STATIC = {"shampoo", "soap"}
#: torch's own step breaks the graph wherever it runs within another one.
STEP_BY_TORCH = {"adamw", "sgd", "spectral"}
BEGUN = 2
STEPS = 5  # with two refreshes of what is refreshed every second step

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's, in its _init_group


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_compiled_run_is_the_eager_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _compare(name, monkeypatch, begun=0, fullgraph=False, dynamic=False if name in STATIC else None)


@pytest.mark.parametrize("name", sorted(CASES.keys() - STEP_BY_TORCH))
def test_later_steps_are_one_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _compare(name, monkeypatch, begun=BEGUN, fullgraph=True, dynamic=None)


def _compare(name: str, monkeypatch: pytest.MonkeyPatch, *, begun: int, fullgraph: bool, dynamic: bool | None) -> None:
    case = CASES[name]
    eager, compiled = case.parameters(), case.parameters()
    descend(case(eager), eager, range(STEPS))
    torch.compiler.reset()
    optimizer = case(compiled)
    descend(optimizer, compiled, range(begun))
    step = torch.compile(optimizer.step, backend="aot_eager", fullgraph=fullgraph, dynamic=dynamic)
    monkeypatch.setattr(optimizer, "step", step)
    descend(optimizer, compiled, range(begun, STEPS))
    assert_close(compiled, eager, tolerance=1e-5)


@pytest.mark.parametrize("shape", [(5, 5), (3, 5, 5)])
def test_what_looks_at_its_data_is_an_operator(shape: tuple[int, ...]) -> None:
    """torch's own checks: what the compiler is told of shapes and strides is what the operators return."""
    A = torch.stack([matrix((5, 5), seed=seed) for seed in range(3)])
    A = (A @ A.mT)[: shape[0] if len(shape) == 3 else 1].view(shape)
    torch.library.opcheck(finite_eigh, (A,))
    torch.library.opcheck(inverse_root_by_newton, (A,), {"power": 4, "relative": 1e-6})
