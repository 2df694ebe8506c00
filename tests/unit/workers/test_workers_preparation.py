"""Facts and identity: what a driver learns before the first trial, and what makes a result another one."""

from pathlib import Path

import pytest

from mutransfer.errors import SpecError
from mutransfer.spec import ModelSpec
from tests.trials import small_study
from workers.environment import code_digest, environment
from workers.preparation import gather_facts

OWN = r"""
from torch import nn
from mutransfer.roles import describe


def build(width, depth, vocab):
    inner = nn.Linear(width, width, bias=False)
    model = nn.Sequential(nn.Embedding(vocab, width), inner, nn.Linear(width, vocab, bias=False))
    roles = {r"0\..*": "embedding", r"1\..*": "hidden", r"2\..*": "readout"}
    return model, describe({n: p.shape for n, p in model.named_parameters()}, roles)
"""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "t.txt").write_text("the cat sat on the mat.\n" * 500)
    return tmp_path / "t.txt"


def test_facts_of_a_study(tmp_path: Path, text: Path) -> None:
    spec = small_study(data={"source": f"text:{text}"})
    facts = gather_facts(spec, cache=tmp_path / "cache", nonce="n", packages=())
    assert facts.vocab == 98
    assert facts.train_tokens + facts.heldout_tokens == 12_000
    assert facts.environment.nonce == "n"
    assert facts.environment.device_type == "cpu"
    assert facts.own_models == ()
    assert gather_facts(spec, cache=tmp_path / "cache", nonce="n", packages=()) == facts


def test_a_study_that_cannot_run_fails_here(tmp_path: Path, text: Path) -> None:
    too_long = small_study(data={"source": f"text:{text}"}, model={"context": 4096})
    with pytest.raises(SpecError, match="too short for one window"):
        gather_facts(too_long, cache=tmp_path / "cache", nonce="", packages=())
    foreign = small_study(data={"source": f"text:{text}"}, model={"family": "somewhere:build"})
    with pytest.raises(SpecError, match="not in an allowed package"):
        gather_facts(foreign, cache=tmp_path / "cache", nonce="", packages=("elsewhere",))


def test_a_model_of_ones_own_is_described_at_every_size(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "facts_own_model.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    spec = small_study(
        data={"source": f"text:{text}"}, model={"family": "facts_own_model:build"},
        widths={"base": 8, "proxy": [16], "targets": [64]},
    )  # fmt: skip
    facts = gather_facts(spec, cache=tmp_path / "cache", nonce="", packages=("facts_own_model",))
    assert [(record.width, record.depth) for record in facts.own_models] == [(8, 2), (16, 2), (64, 2)]
    assert [info.shape for info in facts.own_model(64, 2).infos()] == [(98, 64), (64, 64), (98, 64)]


def test_the_source_of_ones_own_model_is_part_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "digest_own_model.py"
    module.write_text("VERSION = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = ModelSpec(family="digest_own_model:build")
    before = code_digest([model.family])
    assert before == code_digest([model.family]) != code_digest()
    module.write_text("VERSION = 2\n")
    assert code_digest([model.family]) != before
    package = tmp_path / "digest_own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("A = 1\n")
    model = ModelSpec(family="digest_own_package.inner:build")
    before = code_digest([model.family])
    (package / "inner.py").write_text("A = 2\n")
    assert code_digest([model.family]) != before


def test_the_code_of_training_is_part_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    found = environment(data_fingerprint="d", device="cpu")
    real = Path.read_bytes

    def edited(path: Path) -> bytes:
        return real(path) + (b"#" if path.name == "train.py" and path.parent.name == "workers" else b"")

    monkeypatch.setattr(Path, "read_bytes", edited)
    assert environment(data_fingerprint="d", device="cpu").code_digest != found.code_digest
