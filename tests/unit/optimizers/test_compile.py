"""A step under `torch.compile` is the step, with graph breaks where an optimizer looks at its data."""

import pytest
import torch

from tests.unit.optimizers.support import assert_close, descend
from tests.unit.optimizers.test_contract import CASES


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, in its optimizers' _init_group
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_compiled_step_is_the_eager_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    eager, compiled = case.parameters(), case.parameters()
    descend(case(eager), eager, range(3))
    torch.compiler.reset()
    optimizer = case(compiled)
    monkeypatch.setattr(optimizer, "step", torch.compile(optimizer.step, backend="eager"))
    descend(optimizer, compiled, range(3))
    assert_close(compiled, eager, tolerance=1e-6)
