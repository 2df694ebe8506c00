"""All configuration of the service: read once from `MUTRANSFER_*` environment variables, frozen, passed down.

`home` holds everything the embedded service writes. `MUTRANSFER_DATA_ROOTS` and `MUTRANSFER_MODEL_PACKAGES` are lists
separated like PATH (`:`), `MUTRANSFER_ALLOWED_HOSTS` by commas.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SMTP_SCHEMES = ("smtp", "smtp+starttls", "smtps")
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")


def _split(value: object, separator: str) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(separator) if part.strip())
    return value


class Settings(BaseSettings):
    """Settings of every process of the service. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="MUTRANSFER_", frozen=True, extra="ignore", validate_default=True)

    home: Path = Field(default_factory=lambda: Path.home() / ".mutransfer")
    database_url: str = ""  # SQLite under `home` unless given; postgresql://… for more than one machine
    storage: Path = Path()  # checkpoints and spools, seen by all workers; `home`/storage unless given
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8400
    mlflow_url: str = ""  # empty: no tracking server
    token: SecretStr | None = None  # an administrator's token besides those of the database; callers need one then
    auth: Literal["auto", "required"] = "auto"  # auto: no token is needed on one person's machine (auth.doorkeeper)
    rate_limit: Annotated[float, Field(gt=0.0)] = 100.0  # requests a second of one token; five times as many at once
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = LOOPBACK_HOSTS  # names clients may call this service by
    embedded: bool = True  # one person's machine: home and working directory count as data roots
    working_dir: Path = Field(default_factory=Path.cwd)
    data_roots: Annotated[tuple[Path, ...], NoDecode] = ()
    model_packages: Annotated[tuple[str, ...], NoDecode] = ()  # packages that `family: package.module:build` may name
    ray_address: str = ""  # of a Ray cluster; empty: every driver starts a private one on its own machine
    ray_cpus: Annotated[int, Field(ge=1)] | None = None  # CPUs of a private Ray; all of the machine unless given
    checkpoint_seconds: Annotated[float, Field(ge=0.0)] = 30.0  # work that a lost worker costs at most
    trial_timeout_seconds: Annotated[float, Field(gt=0.0)] = 900.0  # a trial that reports nothing for so long is killed
    trial_limit_seconds: Annotated[float, Field(gt=0.0)] | None = None  # a trial that trains for longer is killed
    study_limit_hours: Annotated[float, Field(gt=0.0)] | None = None  # a study that runs for longer fails
    lease_ttl_seconds: Annotated[float, Field(gt=0.0)] = 30.0
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1 << 20
    ray_jobs_url: str = ""  # of a Ray head's dashboard, for the launcher ray-jobs: http://head:8265
    #: Settings that jobs find in the cluster's own environment: whoever sees Ray's dashboard sees those they are given.
    ray_jobs_withhold: Annotated[tuple[str, ...], NoDecode] = ()
    launcher: Literal["local", "ray-jobs", "kuberay"] = "local"
    log_format: Literal["json", "console"] = "json"
    public_url: str = ""  # what links in notifications begin with; the service's own address unless given
    notify_private: bool = False  # let webhooks reach private and loopback addresses
    smtp_url: SecretStr | None = None  # of the mail server: smtp[s|+starttls]://[USER:PASSWORD@]HOST[:PORT]
    smtp_from: str = "mutransfer@localhost"

    @field_validator("smtp_url")
    @classmethod
    def _mail_server(cls, value: SecretStr | None) -> SecretStr | None:
        parts = urlsplit(value.get_secret_value()) if value else None
        if parts and (parts.scheme not in SMTP_SCHEMES or not parts.hostname):
            schemes = ", ".join(SMTP_SCHEMES)
            raise ValueError(f"give a URL such as smtp+starttls://user:password@mail.example.org, of {schemes}")
        return value

    @field_validator("data_roots", "model_packages", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return _split(value, os.pathsep)

    @field_validator("allowed_hosts", "ray_jobs_withhold", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        return _split(value, ",")

    @field_validator("home", "working_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("database_url")
    @classmethod
    def _default_database(cls, value: str, info: ValidationInfo) -> str:
        return value or f"sqlite:///{info.data['home'] / 'mutransfer.db'}"

    @field_validator("storage")
    @classmethod
    def _default_storage(cls, value: Path, info: ValidationInfo) -> Path:
        home: Path = info.data["home"]
        return value.expanduser().absolute() if value != Path() else home / "storage"

    @property
    def roots(self) -> tuple[Path, ...]:
        """Directories under which studies may name local data."""
        own = (Path.home(), self.working_dir) if self.embedded else ()
        return own + tuple(root.expanduser().absolute() for root in self.data_roots)

    @property
    def url(self) -> str:
        """Where this service answers."""
        return f"http://{self.host}:{self.port}"

    def prepare_home(self) -> Self:
        """Create `home` and `storage`, readable by their owner only."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.storage.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self
