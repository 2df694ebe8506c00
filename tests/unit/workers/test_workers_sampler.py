"""Optuna's samplers replayed from our rows: pure, inside their ranges, and better than chance."""

from math import log2
from typing import Any

import optuna
import pytest

from mutransfer.spec import Hyperparameter, SearchSpec
from mutransfer.tuning import Sample, best
from tests.trials import small_study
from workers.sampler import propose

DECAY, FACTOR = Hyperparameter.WEIGHT_DECAY, Hyperparameter.READOUT_LR_FACTOR


def _search(algorithm: str, **changes: Any) -> SearchSpec:
    parameters = {"weight_decay": {"low": 1e-4, "high": 0.5}, "readout_lr_factor": {"low": 0.05, "high": 20}}
    search = {"lr_octaves": {"low": -10, "high": 0}, "algorithm": algorithm, "parameters": parameters, **changes}
    return small_study(search=search).search


def _loss(sample: Sample) -> float:
    """A bowl with its minimum at lr 2^-4, decay 2^-6, factor 2."""
    away = (sample.lr_octaves + 4.0, log2(sample.values[DECAY]) + 6.0, log2(sample.values[FACTOR]) - 1.0)
    return 2.0 + 0.02 * sum(x * x for x in away)


def _run(search: SearchSpec, count: int, *, arm: str = "adamw-mup") -> list[Sample]:
    history: list[Sample] = []
    while len(history) < count:
        new = propose(search, history, arm=arm, count=4)
        history += [Sample(index=s.index, lr_octaves=s.lr_octaves, values=s.values, loss_nats=_loss(s)) for s in new]
    return history


@pytest.mark.parametrize("algorithm", ["tpe", "gp", "cmaes"])
def test_samples_stay_inside_and_learn(algorithm: str) -> None:
    search = _search(algorithm)
    history = _run(search, 40)
    assert [s.index for s in history] == list(range(40))
    for sample in history:
        assert -10 <= sample.lr_octaves <= 0
        assert 1e-4 <= sample.values[DECAY] <= 0.5
        assert 0.05 <= sample.values[FACTOR] <= 20

    def mean(samples: list[Sample]) -> float:
        return sum(_loss(s) for s in samples) / len(samples)

    assert mean(history[20:]) < mean(history[:12]) - 0.15
    found = best(history)
    assert found is not None
    assert _loss(found) < 2.15


@pytest.mark.parametrize("algorithm", ["tpe", "gp", "cmaes"])
def test_the_same_history_proposes_the_same_and_arms_differ(algorithm: str) -> None:
    search = _search(algorithm)
    history = _run(search, 16)
    assert history == _run(search, 16)
    assert propose(search, history, arm="adamw-mup", count=4) == propose(search, history, arm="adamw-mup", count=4)
    assert propose(search, history, arm="adamw-mup", count=4) != propose(search, history, arm="muon-mup", count=4)
    assert len({s.lr_octaves for s in propose(search, history, arm="adamw-mup", count=4)}) == 4


def test_failed_samples_do_not_enter_the_model() -> None:
    search = _search("tpe")
    history = _run(search, 12)
    failed = [*history[:11], Sample(index=11, lr_octaves=history[11].lr_octaves, values=history[11].values)]
    assert [s.index for s in propose(search, failed, arm="a", count=2)] == [12, 13]


@pytest.mark.parametrize("edge", ["low", "high"])
def test_a_sample_at_the_very_edge_stays_inside(edge: str, monkeypatch: pytest.MonkeyPatch) -> None:
    search = _search("tpe", lr_octaves={"low": -8.66667, "high": -2.33333})
    span = search.parameters[DECAY]
    params = {"lr_octaves": getattr(search.lr_octaves, edge), DECAY.value: getattr(span, edge), FACTOR.value: 1.0}
    monkeypatch.setattr(optuna.Trial, "params", property(lambda _: params))
    [sample] = propose(search, [], arm="a", count=1)
    monkeypatch.undo()
    assert search.lr_octaves.low <= sample.lr_octaves <= search.lr_octaves.high
    answered = Sample(index=0, lr_octaves=sample.lr_octaves, values=sample.values, loss_nats=2.0)
    assert propose(search, [answered], arm="a", count=1)  # replayed without complaint
