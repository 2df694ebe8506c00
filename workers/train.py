"""One training run, from a TrialSpec to a TrialResult: resumable to the bit on a CPU.

Knows neither Ray nor the database nor MLflow. Losses are means in nats per token.
"""

from collections.abc import Iterator, Sequence
import math
import time
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
import torch.nn.functional as F

from models import build
from mutransfer.parametrize import ModelScaling
from mutransfer.trial import HistoryPoint, TrialResult, TrialSpec, TrialStatus
from optimizers import build_optimizer
from optimizers.curvature import CurvatureBatch, sophias, update_curvature
from workers.calibration import Calibration
from workers.data import TokenData
from workers.divergence import DivergenceMonitor
from workers.schedule import schedule_factor

#: Sequences a forward pass of the evaluation; part of the fixed evaluation, so that sums are taken in one order.
EVAL_BATCH = 64
#: Points of a full history. They sit at fixed steps, however a run was sliced or interrupted.
HISTORY_POINTS = 50


class Trainer:
    """Trains one trial in slices: `run(n)` until `done`, then `finish()`.

    Raises SpecError or ScalingError when the model cannot be built; divergence is not an error but the result.
    """

    def __init__(
        self,
        trial: TrialSpec,
        data: TokenData,
        *,
        device: torch.device | str = "cpu",
        model_packages: Sequence[str] = (),
    ) -> None:
        self.trial, self.data, self.device = trial, data, torch.device(device)
        built = build(trial, vocab=data.vocab, packages=model_packages)
        self.model: nn.Module = built.module.to(self.device)
        self.scaling: ModelScaling = built.scaling
        self.parameters = built.scaling.parameter_count
        self.optimizer = build_optimizer(self.model.named_parameters(), built.scaling, trial, packages=model_packages)
        self._sophias = sophias(self.optimizer)
        # Peak rates are kept apart from the groups' `lr`, which the schedule writes at every step.
        self._peak_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self._clip_weights = self._weights_by_parameter()
        self.steps = trial.train.horizon_steps(context=trial.model.context, parameters=self.parameters)
        self.step_index = 0
        self.device_seconds = 0.0
        self.calibration = Calibration(self.device)
        self.resumed_from_step = 0
        self.reason = ""
        self.history: list[HistoryPoint] = []
        self._history_stride = -(-self.steps // HISTORY_POINTS)
        self._since_point: list[float] = []
        warmup_steps = round(trial.train.warmup * self.steps)
        self.monitor = DivergenceMonitor(vocab=data.vocab, warmup_steps=warmup_steps)
        self.model.train()

    @property
    def done(self) -> bool:
        """Whether the last step is taken or the run has diverged."""
        return bool(self.reason) or self.step_index >= self.steps

    def run(self, steps: int) -> HistoryPoint:
        """Take up to `steps` updates; returns the mean training loss over them (None when it is not finite)."""
        self.calibration.measure_when_due()
        started, losses = time.perf_counter(), list[float]()
        with self.calibration.watching():
            for _ in range(steps):
                if self.done:
                    break
                losses.append(self._step())
                self._record(losses[-1])
        self.device_seconds += time.perf_counter() - started
        return _point(self.step_index, losses)

    def finish(self) -> TrialResult:
        """Evaluate on the held-out set and report. Call once, when `done`."""
        started = time.perf_counter()
        with self.calibration.watching():
            loss_nats = None if self.reason else self.evaluate()
        self.device_seconds += time.perf_counter() - started
        if loss_nats is not None and (reason := self.monitor.check_final(loss_nats)):
            self.reason, loss_nats = reason, None
        train = self.trial.train
        return TrialResult(
            status=TrialStatus.DIVERGED if self.reason else TrialStatus.FINISHED,
            loss_nats=loss_nats,
            initial_loss_nats=self.monitor.initial_loss_nats,
            train_loss_nats=self.history[-1].train_loss_nats if self.history else None,
            history=tuple(self.history),
            diverged_at_step=self.step_index if self.reason else None,
            reason=self.reason,
            steps=self.step_index,
            tokens=self.step_index * train.batch * self.trial.model.context,
            parameters=self.parameters,
            device_seconds=self.device_seconds,
            device=_device_name(self.device),
            resumed_from_step=self.resumed_from_step,
            calibration_gflops=self.calibration.gflops,
        )

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean held-out loss over the study's one fixed token set, in nats per token."""
        self.model.eval()
        total, count = 0.0, 0
        for x_BT, y_BT in self._heldout():
            total += float(self._loss(x_BT, y_BT, reduction="sum").item())
            count += y_BT.numel()
        self.model.train()
        return total / count

    def state_dict(self) -> dict[str, Any]:
        """Everything a fresh Trainer of the same trial needs to go on as if never stopped; safe for weights_only."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step_index": self.step_index,
            "device_seconds": self.device_seconds,
            "reason": self.reason,
            "history": [point.model_dump() for point in self.history],
            "since_point": list(self._since_point),
            "initial_loss_nats": self.monitor.initial_loss_nats,
            "recent": list(self.monitor.recent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`. Raises RuntimeError or ValueError when it belongs to another model."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step_index = self.resumed_from_step = state["step_index"]
        self.device_seconds = state["device_seconds"]
        self.reason = state["reason"]
        self.history = [HistoryPoint.model_validate(point) for point in state["history"]]
        self._since_point = list(state["since_point"])
        self.monitor.initial_loss_nats = state["initial_loss_nats"]
        self.monitor.recent = list(state["recent"])

    def _record(self, loss_nats: float) -> None:
        self._since_point.append(loss_nats)
        if self.done or self.step_index % self._history_stride == 0:
            self.history.append(_point(self.step_index, self._since_point))
            self._since_point = []

    def _step(self) -> float:
        train = self.trial.train
        factor = schedule_factor(train, step=self.step_index, steps=self.steps)
        for group, peak in zip(self.optimizer.param_groups, self._peak_lrs, strict=True):
            group["lr"] = peak * factor
        arrays = self.data.batch(self.step_index, self.trial.seed, batch=train.batch, context=self.trial.model.context)
        x_BT, y_BT = (self._to_device(array) for array in arrays)
        loss = self._loss(x_BT, y_BT)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if train.clip is not None:
            self._clip(train.clip)
        loss_nats = loss.item()
        self.reason = self.monitor.check(self.step_index, loss_nats)
        if not self.reason:
            if self._sophias:
                self._update_curvature(x_BT, y_BT)
            self.optimizer.step()
        self.step_index += 1
        return loss_nats

    def _update_curvature(self, x_BT: Tensor, y_BT: Tensor) -> None:
        seed, step = self.trial.seed, self.step_index
        update_curvature(self._sophias, CurvatureBatch(logits=self._logits, x_BT=x_BT, y_BT=y_BT, seed=seed, step=step))

    def _loss(self, x_BT: Tensor, y_BT: Tensor, *, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(self._logits(x_BT).flatten(0, 1).float(), y_BT.flatten(), reduction=reduction)

    def _logits(self, x_BT: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bf16):
            return cast(Tensor, self.model(x_BT))

    @property
    def _bf16(self) -> bool:
        """`auto` is bf16 on CUDA and fp32 elsewhere: bf16 products are slow on most CPUs."""
        precision = self.trial.train.precision
        return precision == "bf16" or (precision == "auto" and self.device.type == "cuda")

    def _clip(self, limit: float) -> None:
        """Scale all gradients so that their global norm, each weighed by its clip weight, is at most `limit`."""
        pairs = [(p.grad, weight) for p, weight in self._clip_weights if p.grad is not None]
        norms = torch.stack(torch._foreach_norm([gradient for gradient, _ in pairs]))
        weights = torch.tensor([weight for _, weight in pairs], device=norms.device)
        scale = (limit / (norms * weights).norm().clamp(min=limit)).item()
        if scale < 1.0:
            torch._foreach_mul_([gradient for gradient, _ in pairs], scale)

    def _weights_by_parameter(self) -> list[tuple[nn.Parameter, float]]:
        weights = {p.info.name: p.clip_weight for p in self.scaling.parameters}
        return [(parameter, weights[name]) for name, parameter in self.model.named_parameters()]

    def _heldout(self) -> Iterator[tuple[Tensor, Tensor]]:
        context = self.trial.model.context
        for x, y in self.data.heldout_batches(tokens=self.trial.eval.tokens, batch=EVAL_BATCH, context=context):
            yield self._to_device(x), self._to_device(y)

    def _to_device(self, array: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)


def _point(step: int, losses_nats: Sequence[float]) -> HistoryPoint:
    mean = sum(losses_nats) / len(losses_nats) if losses_nats else math.nan
    return HistoryPoint(step=step, train_loss_nats=mean if math.isfinite(mean) else None)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
