"""From the bytes of a request to a StudySpec, whatever the bytes are.

YAML is looked at event by event before anything is built from it: depth and the number of nodes, aliases expanded, are
bounded, so that neither recursion nor a "billion laughs" costs anything.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
import json
from math import isfinite
from typing import Any

import yaml

from mutransfer.errors import Problem, SpecError
from mutransfer.spec import StudySpec, parse_study
from service.problems import BadRequestError
from service.request_text import is_storable

JSON_TYPES = ("application/json",)
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/vnd.yaml")
MAX_DEPTH = 32
MAX_NODES = 20_000
MAX_INTEGER = 2**53 - 1  # every JSON reader agrees up to here
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_study(body: bytes, content_type: str) -> StudySpec:
    """The study in a request's body. Raises BadRequestError where there is no document, SpecError where it is wrong."""
    return parse_study(read_document(body, content_type))


def read_changes(body: bytes, content_type: str) -> Mapping[str, Any]:
    """A merge patch of a study (RFC 7396) in a request's body; none when the body is empty. Raises as `read_study`."""
    document = read_document(body, content_type) if body.strip() else {}
    if not isinstance(document, Mapping):
        raise SpecError.at("", f"changes are a mapping of fields, this is {type(document).__name__}")
    return document


def read_document(body: bytes, content_type: str) -> Any:
    """The JSON or YAML in a request's body, bounded, of storable values. Raises BadRequestError, SpecError."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type and media_type not in JSON_TYPES + YAML_TYPES:
        allowed = f"{JSON_TYPES[0]} or {YAML_TYPES[0]}"
        raise BadRequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send the study as {allowed}, not {media_type}")
    document = _parse(_text(body), is_json=media_type in JSON_TYPES)
    problems = list(_unsafe(document, ""))
    if problems:
        raise SpecError(problems)
    return document


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _malformed(f"not UTF-8 at byte {error.start}") from None


def _malformed(reason: str) -> BadRequestError:
    return BadRequestError(HTTPStatus.BAD_REQUEST, f"the body is malformed: {reason}")


def _parse(text: str, *, is_json: bool) -> Any:
    try:
        if is_json:
            return json.loads(text)
        _check_yaml(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    except RecursionError:
        raise _malformed("nested too deeply") from None
    except yaml.YAMLError as error:
        raise _malformed(_where(error)) from None
    except ValueError as error:  # JSON's own, numbers of too many digits, dates that do not exist
        raise _malformed(str(error)) from None


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {what}" if mark else what


def _check_yaml(text: str) -> None:
    """Refuse YAML too deep or, aliases expanded, too large to build. Raises BadRequestError."""
    sizes: dict[str, int] = {}  # nodes below each finished anchor
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and nodes seen before it
    count = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise _malformed(f"the alias *{event.anchor} has no finished anchor")
            count += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = count - before
        if len(open_nodes) > MAX_DEPTH:
            raise _malformed("nested too deeply")
        if count > MAX_NODES:
            raise _malformed("too many values")


def _unsafe(value: Any, path: str) -> Iterator[Problem]:
    """Values that no study may hold anywhere, even where its fields are free: they could not be stored or compared."""
    match value:
        case dict():
            for key, inner in value.items():
                yield from _unsafe(key, path)
                yield from _unsafe(inner, f"{path}.{key}" if path else str(key))
        case list():
            for index, inner in enumerate(value):
                yield from _unsafe(inner, f"{path}.{index}" if path else str(index))
        case float() if not isfinite(value):
            yield Problem(field=path, message=f"{value} is not a finite number")
        case int() if abs(value) > MAX_INTEGER:
            yield Problem(field=path, message=f"the number is too large: {MAX_INTEGER} at most")
        case str() if not is_storable(value):
            yield Problem(field=path, message="the text holds characters that cannot be stored")
