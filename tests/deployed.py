"""What the files of deployment name: every command, probe and environment, read from the files themselves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
import json
from pathlib import Path
import re
from typing import Any

import yaml

TOP = Path(__file__).resolve().parent.parent
DOCKERFILES = sorted((TOP / "deploy").glob("*.Dockerfile"))
MANIFESTS = sorted((TOP / "deploy/kubernetes").glob("*.yaml"))


@dataclass(frozen=True, kw_only=True)
class Role:
    """One container. `probes` are commands that say whether it is well."""

    where: str
    image: str
    command: tuple[str, ...]
    probes: tuple[tuple[str, ...], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def compose() -> dict[str, Role]:
    """The services of the compose file, by name."""
    document = yaml.safe_load((TOP / "docker-compose.yml").read_text())
    return {name: _service(name, service) for name, service in document["services"].items()}


def _service(name: str, service: Mapping[str, Any]) -> Role:
    image = service["image"]
    entrypoint = service.get("entrypoint", ["mutransfer"] if image.startswith("mutransfer") else [])
    test = service.get("healthcheck", {}).get("test")
    probes: tuple[tuple[str, ...], ...] = ()
    if test is not None:
        assert test[0] == "CMD", f"{name}: the form without a shell"
        probes = (tuple(test[1:]),)
    return Role(
        where=f"docker-compose.yml {name}", image=image, command=(*entrypoint, *service.get("command", ())),
        probes=probes, environment=service.get("environment", {}),
    )  # fmt: skip


def kubernetes() -> Iterator[Role]:
    """The containers of the manifests that say what they run; KubeRay says it for its own."""
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            for pod in _pods(document):
                for container in [*pod.get("initContainers", ()), *pod["containers"]]:
                    yield _container(path.name, container)


def _pods(document: Any) -> Iterator[Mapping[str, Any]]:
    """Every pod specification within a resource, whatever its kind."""
    if isinstance(document, list):
        for inner in document:
            yield from _pods(inner)
    elif isinstance(document, dict):
        if "containers" in document:
            yield document
        else:
            for inner in document.values():
                yield from _pods(inner)


def _container(file: str, container: Mapping[str, Any]) -> Role:
    probes = [container.get(name, {}).get("exec") for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    environment = {entry["name"]: entry.get("value", "") for entry in container.get("env", ())}
    return Role(
        where=f"{file} {container['name']}", image=container["image"], command=tuple(container.get("command", ())),
        probes=tuple(tuple(probe["command"]) for probe in probes if probe), environment=environment,
    )  # fmt: skip


def dockerfile(path: Path) -> dict[str, Sequence[str]]:
    """ENTRYPOINT, CMD and HEALTHCHECK of an image as lists, and its USER."""
    text = path.read_text()
    found: dict[str, Sequence[str]] = {
        name: json.loads(value) for name, value in re.findall(r"^(ENTRYPOINT|CMD) (\[.*\])$", text, flags=re.MULTILINE)
    }
    health = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", text, flags=re.MULTILINE)
    user = re.search(r"^USER (\w+)$", text, flags=re.MULTILINE)
    assert health is not None
    assert user is not None
    return found | {"HEALTHCHECK": json.loads(health[1]), "USER": [user[1]]}


def commands() -> dict[tuple[str, ...], str]:
    """Every command and probe that any file names → one place that does."""
    found: dict[tuple[str, ...], str] = {}
    for role in [*compose().values(), *kubernetes()]:
        for command in (role.command, *role.probes):
            if command:
                found.setdefault(command, role.where)
    for path in DOCKERFILES:
        image = dockerfile(path)
        found.setdefault((*image["ENTRYPOINT"], *image["CMD"]), path.name)
        found.setdefault(tuple(image["HEALTHCHECK"]), path.name)
    return found


def substituted(value: str, given: Mapping[str, str]) -> str:
    """Compose's `${NAME}`, `${NAME:-default}` and `${NAME:?message}`."""

    def fill(match: re.Match[str]) -> str:
        name, kind, default = match[1], match[2], match[3]
        if kind == ":?":
            return given[name]
        return given.get(name) or (default or "")

    return re.sub(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}", fill, value)
