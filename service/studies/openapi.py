"""What FastAPI cannot derive: request bodies that we parse ourselves, and the problems that any request may meet."""

from typing import Any

from fastapi import FastAPI

from mutransfer.spec import StudySpec
from service.problems import MEDIA_TYPE, ProblemRead
from service.studies.documents import JSON_TYPES, YAML_TYPES
from service.studies.schemas import EXAMPLE_STUDY, StudyRead

STUDY_INPUT = "StudyInput"
REFERENCE = "#/components/schemas/{model}"

EXAMPLE_YAML = """\
version: 1
name: quickstart
model: {family: nanogpt, depth: 2, head_dim: 16, context: 32}
data: {source: stdlib, tokenizer: printable}
train: {batch: 32, steps: 300}
widths: {base: 32, proxy: [32, 64], targets: [128, 256]}
arms:
  - {optimizer: adamw, parametrization: sp}
  - {optimizer: muon, parametrization: mup}
"""

#: The body of POST /studies and POST /plan.
STUDY_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A study, at most 1 MiB; every field is described by GET /schema/study.",
        "content": {
            JSON_TYPES[0]: {
                "schema": {"$ref": REFERENCE.format(model=STUDY_INPUT)},
                "examples": {"quickstart": {"summary": "Three arms over widths 32 to 256", "value": EXAMPLE_STUDY}},
            },
            YAML_TYPES[0]: {
                "schema": {"type": "string"},
                "examples": {"quickstart": {"summary": "Two arms over widths 32 to 256", "value": EXAMPLE_YAML}},
            },
        },
    }
}

#: What a repeated submission is answered.
ACCEPTED_BEFORE: dict[int | str, dict[str, Any]] = {
    200: {"model": StudyRead, "description": "Submitted before with this key."}
}
#: The body of POST /studies/{id}/extend and /clone.
CHANGES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "description": "A merge patch of the study (RFC 7396): objects merge, lists and values replace, null restores "
        "the default.",
        "content": {
            JSON_TYPES[0]: {
                "schema": {"type": "object"},
                "examples": {"wider": {"summary": "Two more targets", "value": {"widths": {"targets": [128, 256]}}}},
            },
            YAML_TYPES[0]: {"schema": {"type": "string"}, "example": "search: {seeds: {max: 8}}\n"},
        },
    }
}


def problem(description: str) -> dict[str, Any]:
    """An answer that is a problem document."""
    schema = {"$ref": REFERENCE.format(model=ProblemRead.__name__)}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


#: Answers that any route may give.
COMMON: dict[int | str, dict[str, Any]] = {
    401: problem("No token, or a wrong one."),
    403: problem("The token may not do this, or the Host or Origin is not ours."),
    422: problem("The input is wrong: `errors` names each field."),
    429: problem("Too many requests; try again after `Retry-After` seconds."),
    503: problem("The database does not answer; try again."),
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: problem("There is no such study.")}
CONFLICT: dict[int | str, dict[str, Any]] = {409: problem("The request contradicts what is stored.")}
BODY: dict[int | str, dict[str, Any]] = {
    400: problem("The body is no JSON or YAML document."),
    408: problem("The body did not arrive in time."),
    413: problem("The body is too large."),
    415: problem("The body is neither JSON nor YAML by its Content-Type."),
}


def install(app: FastAPI) -> None:
    """Add the study format and the problem document to the components of the application's OpenAPI document."""
    derive = app.openapi

    def openapi() -> dict[str, Any]:
        document = derive()
        schemas = document["components"]["schemas"]
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}, {}]  # none is needed on a personal machine
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            for status, answer in (COMMON | (BODY if "requestBody" in operation else {})).items():
                operation["responses"].setdefault(str(status), answer)
        if STUDY_INPUT not in schemas:
            study = StudySpec.model_json_schema(ref_template=REFERENCE.format(model="Input{model}"))
            parts = study.pop("$defs")
            problem = ProblemRead.model_json_schema(ref_template=REFERENCE)
            schemas |= problem.pop("$defs") | {ProblemRead.__name__: problem}
            schemas |= {STUDY_INPUT: study} | {f"Input{name}": part for name, part in parts.items()}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
