from typing import Any

import pytest
import yaml

from mutransfer.spec import parse_study
from service.studies.schemas import EXAMPLE_READ, PlanRead, StudyRead
from tests.integration.api_fixtures import Api

METHODS = {"get", "post", "put", "delete", "patch"}


@pytest.fixture(scope="module")
def document(refusing: Api) -> dict[str, Any]:
    """The API's own description."""
    found: dict[str, Any] = refusing.get("/api/v1/openapi.json").json()
    return found


def test_every_route_of_the_interface_is_described(document: dict[str, Any]) -> None:
    study = "/api/v1/studies/{study_id}"
    assert set(document["paths"]) >= {
        "/api/v1/studies", "/api/v1/plan", study, f"{study}/cancel", f"{study}/trials", f"{study}/trials/{{key}}",
        f"{study}/curves", f"{study}/audit", f"{study}/verdict", f"{study}/result", f"{study}/recipe",
        f"{study}/events", f"{study}/report", f"{study}/export", f"{study}/figures/{{key}}",
        f"{study}/pause", f"{study}/resume", f"{study}/retry", f"{study}/extend", f"{study}/clone",
        f"{study}/trials/{{key}}/retry",
        "/api/v1/schema/study", "/api/v1/schema/result", "/healthz", "/readyz", "/metrics", "/api/v1/whoami",
        "/api/v1/tokens", "/api/v1/tokens/{token_id}", "/api/v1/projects", "/api/v1/projects/{name}",
        "/api/v1/audit-log",
    }  # fmt: skip
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert method in METHODS
            assert operation["description"], (method, path)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    names = list(_references(document))
    assert len(names) > 50
    for name in names:
        assert name.removeprefix("#/components/schemas/") in schemas


def _references(node: Any) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for inner in node.values():
            yield from _references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _references(inner)


@pytest.mark.parametrize("path", ["/api/v1/studies", "/api/v1/plan"])
def test_the_examples_of_bodies_are_studies(refusing: Api, document: dict[str, Any], path: str) -> None:
    content = document["paths"][path]["post"]["requestBody"]["content"]
    as_json = content["application/json"]["examples"]["quickstart"]["value"]
    as_yaml = content["application/yaml"]["examples"]["quickstart"]["value"]
    assert len(parse_study(as_json).arms) == 3
    assert len(parse_study(yaml.safe_load(as_yaml)).arms) == 2
    answer = refusing.post("/api/v1/plan", content=as_yaml, headers={"Content-Type": "application/yaml"})
    assert PlanRead.model_validate(answer.json()).trials_expected > 0


def test_the_example_of_a_study_is_one(document: dict[str, Any]) -> None:
    assert document["components"]["schemas"]["StudyRead"]["examples"] == [EXAMPLE_READ]
    assert StudyRead.model_validate(EXAMPLE_READ).spec.name == "quickstart"


def test_refusals_are_described_as_problem_documents(document: dict[str, Any]) -> None:
    answers = document["paths"]["/api/v1/studies"]["post"]["responses"]
    assert set(answers) >= {"200", "201", "400", "401", "403", "408", "409", "413", "415", "422", "429", "503"}
    for status in ("400", "401", "403", "408", "409", "413", "415", "422", "429", "503"):
        assert set(answers[status]["content"]) == {"application/problem+json"}
        assert answers[status]["content"]["application/problem+json"]["schema"]["$ref"].endswith("/ProblemRead")


def test_nothing_in_the_controller_needs_torch_ray_or_mlflow() -> None:
    import subprocess
    import sys

    code = "import sys, service.app; print([m for m in ('torch', 'ray', 'mlflow') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "[]"
