from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

import pytest

from tests import study_builders as build
from tests.integration.api_fixtures import STUDIES, Api

JSON = {"Content-Type": "application/json"}
YAML = {"Content-Type": "application/yaml"}
ENDPOINTS = (STUDIES, "/api/v1/plan")

# Changes to a valid study, and the field that the refusal names.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"arms__0__optimizer": "adam"}, "arms.0.optimizer"),
    ({"arms__0__optimizer": 7}, "arms.0.optimizer"),
    ({"widths__proxy": [17]}, "widths"),
    ({"widths__targets": [12]}, "widths.targets"),
    ({"widths__targets": [64, 64]}, "widths.targets"),
    ({"widths__proxy": []}, "widths.proxy"),
    ({"search__lr_octaves": {"low": -3, "high": -8}}, "search.lr_octaves.low"),
    ({"search__lr_octaves__low": float("nan")}, "search.lr_octaves.low"),
    ({"train__clip": float("inf")}, "train.clip"),
    ({"arms__1__options": {"betas": [0.9, float("nan")]}}, "arms.1.options.betas.1"),
    ({"arms__1__options": {"beta": 0.9}}, "arms.1.options.beta"),
    ({"model__options": {"x": float("inf")}}, "model.options.x"),
    ({"train__steps": 10**30}, "train.steps"),
    ({"train__steps": 0}, "train.steps"),
    ({"train__steps": None}, "train.steps"),
    ({"name": ""}, "name"),
    ({"name": "a\0b"}, "name"),
    ({"data__source": "text:/tmp/\ud800"}, "data.source"),
    ({"data__source": "gopher:/x"}, "data.source"),
    ({"data__source": "text:relative.txt"}, "data.source"),
    ({"data__tokenizer": "words"}, "data.tokenizer"),
    ({"data__tokenizer": "relative.json"}, "data.tokenizer"),
    ({"model__family": "gpt5"}, "model.family"),
    ({"model__family": "os.path:join"}, "model.family"),
    ({"version": 2}, "version"),
    ({"surprise": 1}, "surprise"),
    ({"arms": []}, "arms"),
    ({"arms": [{"optimizer": "os.path:join", "rule": "derived", "law": [0.5, 0.5]}]}, "arms.0.optimizer"),
    ({"arms": [{"optimizer": "soap", "options": {"max_preconditioner_dim": 100}}]}, "arms.0.options"),
    ({"arms": [{"optimizer": "adamw", "overrides": {"weight_decay": 5}}]}, "arms.0.overrides.weight_decay"),
    ({"arms": [{"optimizer": "adamw"}, {"optimizer": "adamw"}]}, "arms.1.name"),
]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(("changes", "field"), WRONG, ids=[f"{field}-{n}" for n, (_, field) in enumerate(WRONG)])
def test_a_wrong_study_is_refused_by_field(refusing: Api, endpoint: str, changes: dict[str, Any], field: str) -> None:
    response = refusing.post(endpoint, content=json.dumps(build.document(**changes)), headers=JSON)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert field in [error["field"] for error in problem["errors"]], problem
    assert (problem["status"], problem["title"]) == (422, "Unprocessable Entity")
    assert all(error["message"] for error in problem["errors"])
    assert refusing.rows() == 0


def test_every_fault_is_named_at_once(refusing: Api) -> None:
    wrong = build.document(arms__0__optimizer="adam", train__batch=0, widths__targets=[2])
    fields = {error["field"] for error in refusing.post(STUDIES, json=wrong).json()["errors"]}
    assert {"arms.0.optimizer", "train.batch", "widths.targets"} <= fields


def _deep(opening: str, closing: str) -> bytes:
    return (opening * 100_000 + closing * 100_000).encode()


BILLION_LAUGHS = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))])

MALFORMED: list[tuple[bytes, dict[str, str], int]] = [
    (b'{"name": ', JSON, 400),
    (b"", JSON, 400),
    (b"name: [unclosed", YAML, 400),
    (b"a: *nowhere", YAML, 400),
    (b"a: &a [*a]", YAML, 400),
    (b"a: !!python/object/apply:os.system ['true']", YAML, 400),
    (b"a: 2026-13-45", YAML, 400),
    (b"? [1, 2]\n: 3", YAML, 400),
    (b"\xff\xfe{}", JSON, 400),
    (b"name: \xff", YAML, 400),
    (b"name: \x07", YAML, 400),
    (_deep("[", "]"), JSON, 400),
    (_deep('{"a":', "}"), JSON, 400),
    (_deep("[", "]"), YAML, 400),
    (b"- " * 100_000, YAML, 400),
    (b'{"a": ' + b"9" * 10_000 + b"}", JSON, 400),
    (b"a: " + b"9" * 10_000, YAML, 400),
    (BILLION_LAUGHS.encode(), YAML, 400),
    (b"[" + b"1," * 30_000 + b"1]", YAML, 400),
    (b"[]", JSON, 422),
    (b"null", JSON, 422),
    (b"NaN", JSON, 422),
    (b"just words", YAML, 422),
    (b"", YAML, 422),
    (b'{"1": 1e999}', JSON, 422),
    (b"1: 2\nnull: 3\ntrue: 4", YAML, 422),
    (b"a: 2026-11-22\nb: !!binary aGk=\nc: !!set {x, y}", YAML, 422),
    (b"{}", {"Content-Type": "text/html"}, 415),
    (b"{}", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(("body", "headers", "status"), MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_study_at_all_is_refused(
    refusing: Api, endpoint: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    response = refusing.post(endpoint, content=body, headers=headers)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"]
    assert len(response.content) < 10_000
    assert refusing.rows() == 0


def test_aliases_are_welcome_in_reason(refusing: Api) -> None:
    text = json.dumps(build.document())
    shared = text.replace('"widths":', '"train": &t {"batch": 4, "steps": 10}, "widths":', 1).replace(
        '"train": {"batch": 4, "steps": 10},', "", 1
    )
    assert "&t" in shared
    assert refusing.post("/api/v1/plan", content=shared, headers=YAML).status_code == 200


def fill(folder: Path) -> Path:
    """Words and links in the folder that studies may read: `up`'s working directory."""
    (folder.parent / "secret.txt").write_text("secret")
    (folder / "words.txt").write_text("words")
    (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
    (folder / "loop").symlink_to(folder / "loop")
    return folder


@pytest.fixture(scope="module")
def roots(refusing: Api) -> Path:
    return fill(refusing.settings.working_dir)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("data__source", "text:{}/missing.txt", "does not exist"),
        ("data__source", "text:{}/../secret.txt", "outside"),
        ("data__source", "text:{}/link.txt", "outside"),
        ("data__source", "text:/etc/passwd", "outside"),
        ("data__source", "text:/no/such/file", "outside"),
        ("data__source", "text:{}/loop", ""),
        ("data__source", "text:{}/" + "x" * 3000, ""),
        ("data__source", "parquet:{}/missing.parquet#text", "does not exist"),
        ("data__tokenizer", "{}/missing.json", "does not exist"),
        ("data__tokenizer", "/etc/tokenizer.json", "outside"),
    ],
)
def test_data_outside_the_roots_or_missing_is_refused(
    refusing: Api, roots: Path, field: str, value: str, expected: str
) -> None:
    response = refusing.post(STUDIES, json=build.document(**{field: value.format(roots)}))
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"] == field.replace("__", ".")
    assert expected in error["message"]
    assert refusing.rows() == 0


def test_data_under_the_roots_is_accepted(api: Api) -> None:
    roots = fill(api.settings.working_dir)
    assert api.post(STUDIES, json=build.document(data__source=f"text:{roots}/words.txt")).status_code == 201
    assert api.post(STUDIES, json=build.document(data__source=f"text:{roots}")).status_code == 201


def test_own_models_come_from_allowed_packages_only(
    make_api: Callable[..., Api],
) -> None:
    api = make_api(model_packages=("mymodels", "others.nets"))
    for family, status in [
        ("mymodels:build", 201), ("mymodels.deep.net:build", 201), ("others.nets:build", 201),
        ("mymodelsx:build", 422), ("others:build", 422), ("others.nets2:build", 422),
    ]:  # fmt: skip
        response = api.post(STUDIES, json=build.document(model={"family": family}))
        assert response.status_code == status, family
        if status == 422:
            assert response.json()["errors"][0]["field"] == "model.family"


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        (f"{STUDIES}?limit=0", 422, "limit"),
        (f"{STUDIES}?limit=many", 422, "limit"),
        (f"{STUDIES}?state=asleep", 422, "state"),
        (f"{STUDIES}?cursor=nonsense", 422, "cursor"),
        (f"{STUDIES}?cursor=WzFd", 422, "cursor"),
        (f"{STUDIES}?cursor=%00", 422, "cursor"),
        (f"{STUDIES}?project=%00", 422, "project"),
        (f"{STUDIES}?name=a%00b", 422, "name"),
        ("/api/v1/audit-log?action=Z%00%09&limit=26", 422, "action"),
        ("/api/v1/deliveries?channel=%00", 422, "channel"),
        ("/api/v1/schedules/a%00b", 404, None),
        ("/schedules/a%00b", 404, None),
        ("/?q=a%00b", 422, "q"),
        (f"{STUDIES}/nope", 404, None),
        (f"{STUDIES}/st_%00", 404, None),
        (f"{STUDIES}/st_01KAMRQ4ZJ5T2V8Y6W3X7B9CDE", 404, None),
        (f"{STUDIES}/nope/result", 404, None),
        (f"{STUDIES}/nope/curves", 404, None),
        (f"{STUDIES}/nope/verdict", 404, None),
        (f"{STUDIES}/nope/trials", 404, None),
        (f"{STUDIES}/nope/trials/00", 404, None),
        (f"{STUDIES}/nope/events", 404, None),
        (f"{STUDIES}/nope/events?after=99999999999999999999", 422, "after"),
        (f"{STUDIES}/nope/recipe", 422, "width"),
        (f"{STUDIES}/nope/recipe?width=64", 404, None),
        (f"{STUDIES}/nope/recipe?width=1e3", 422, "width"),
        (f"{STUDIES}/nope/recipe?width=64&format=pickle", 422, "format"),
        ("/api/v1/nothing", 404, None),
    ],
)
def test_wrong_requests_get_problem_documents(refusing: Api, path: str, status: int, field: str | None) -> None:
    response = refusing.get(path)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert (field is None) or field in [error["field"] for error in response.json()["errors"]]


def test_wrong_methods_and_keys_get_problem_documents(refusing: Api) -> None:
    assert refusing.delete(STUDIES).status_code == 405
    assert refusing.post(f"{STUDIES}/nope/cancel").status_code == 404
    for key in ("", "x" * 256, "with space"):
        response = refusing.post(STUDIES, json=build.document(), headers={"Idempotency-Key": key})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "idempotency-key")
    assert refusing.rows() == 0


def test_an_outage_of_the_database_is_503(api: Api) -> None:
    database = api.settings.home / "mutransfer.db"
    api.sessions.kw["bind"].dispose()
    for leftover in database.parent.glob("mutransfer.db*"):
        leftover.unlink()
    database.mkdir()
    assert api.get("/healthz").status_code == 200  # restarting this process would not mend the database
    for path in ("/readyz", STUDIES):
        response = api.get(path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "2")
        assert response.headers["content-type"] == "application/problem+json"
