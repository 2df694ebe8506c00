"""What FastAPI cannot derive of these routes: bodies that we parse ourselves, and the problems they may meet."""

from typing import Any

from mutransfer.base import Value
from service.studies.documents import JSON_TYPES, YAML_TYPES
from service.studies.openapi import BODY as BODY
from service.studies.openapi import COMMON as COMMON
from service.studies.openapi import CONFLICT as CONFLICT
from service.studies.openapi import problem

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: problem("There is no such thing.")}


def body_of(model: type[Value]) -> dict[str, Any]:
    """A body of JSON or YAML that `model` describes."""
    schema = model.model_json_schema()
    return {
        "requestBody": {
            "required": True,
            "content": {
                JSON_TYPES[0]: {"schema": _inlined(schema, schema.pop("$defs", {}))},
                YAML_TYPES[0]: {"schema": {"type": "string"}},
            },
        }
    }


def _inlined(schema: Any, parts: dict[str, Any]) -> Any:
    """The schema without references: they would point into the component that they are no longer part of."""
    if isinstance(schema, list):
        return [_inlined(item, parts) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        rest = {name: value for name, value in schema.items() if name != "$ref"}
        return _inlined(parts[schema["$ref"].rpartition("/")[2]], parts) | rest
    return {name: _inlined(value, parts) for name, value in schema.items()}
