"""The submit page: a form and a text, checked by the API while one writes. `?study=ID` starts from a study's text."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from fastapi import Query, Request, Response
from sqlalchemy.orm import Session
import yaml

from mutransfer.algorithms import Algorithm
from mutransfer.arms import Parametrization
from mutransfer.model_spec import DECODERS
from mutransfer.spec import StudySpec
from service.dashboard.frame import MAX_TEXT, Frame, Route
from service.db import studies
from service.settings import Settings

_Text = Annotated[str | None, Query(max_length=MAX_TEXT)]

#: What the form starts with: the question of the demo. One level of mappings stands on one line each.
START: Mapping[str, Any] = {
    "version": 1,
    "name": "my-question",
    "model": {"family": "nanogpt", "depth": 2, "head_dim": 16, "context": 32},
    "data": {"source": "stdlib", "tokenizer": "printable"},
    "train": {"batch": 16, "steps": 150},
    "widths": {"base": 32, "proxy": [16, 32], "targets": [64, 128]},
    "arms": [
        {"optimizer": "adamw", "parametrization": "sp"},
        {"optimizer": "adamw", "parametrization": "mup"},
        {"optimizer": "muon", "parametrization": "mup"},
    ],
    "search": {"lr_octaves": {"low": -7, "high": -3}, "seeds": {"min": 2, "max": 4}},
}

OPTIMIZERS = tuple(algorithm.value for algorithm in Algorithm if algorithm is not Algorithm.EXTERNAL)


class _Dumper(yaml.SafeDumper):
    """Leaves out anchors, which a reader would have to resolve."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the name is the base class's
        """Always."""
        return True


def as_text(document: Mapping[str, Any]) -> str:
    """A study as YAML, in the order of its fields; short mappings stay on one line."""
    return yaml.dump(
        dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )


def text_of(spec: StudySpec) -> str:
    """A study's text without what it leaves at its defaults."""
    given = spec.model_dump(mode="json", exclude_defaults=True)
    for arm, plain in zip(given["arms"], spec.arms, strict=True):
        if plain.name == type(plain)(optimizer=plain.optimizer, parametrization=plain.parametrization).name:
            del arm["name"]
    return as_text({"version": spec.version, "name": spec.name} | given)


class Submit:
    """The handlers."""

    def __init__(self, frame: Frame, settings: Settings) -> None:
        self._frame = frame
        self._settings = settings

    def page(self, request: Request, study: _Text = None) -> Response:
        """The page; everything on it happens through the API."""

        def answer(session: Session) -> Response:
            row = studies.get(session, study) if study else None
            text = as_text(START) if row is None else text_of(StudySpec.model_validate(row.spec))
            return self._frame.html(
                request, "submit.html", here="submit", draft=text, source=row, start=START, families=DECODERS,
                optimizers=OPTIMIZERS, schemes=tuple(scheme.value for scheme in Parametrization),
                chosen={(arm["optimizer"], arm["parametrization"]) for arm in START["arms"]},
                url=self._settings.url,
            )  # fmt: skip

        return self._frame.read(request, answer)


def routes(frame: Frame, settings: Settings) -> Iterable[Route]:
    """The page."""
    return [("/submit", Submit(frame, settings).page)]
