"""What torch-adopt needs of torch."""

import pytest
from torch.optim import Optimizer


@pytest.fixture(autouse=True)
def _name_that_torch_adopt_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch 2.11 has the method under its new name alone, 2.13 under both."""
    old, new = "_cuda_graph_capture_health_check", "_accelerator_graph_capture_health_check"
    if not hasattr(Optimizer, old):
        monkeypatch.setattr(Optimizer, old, getattr(Optimizer, new), raising=False)
