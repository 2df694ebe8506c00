from pathlib import Path

from pydantic import ValidationError
import pytest

from service.settings import Settings


def test_everything_lies_under_home_unless_said_otherwise(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "h")
    assert settings.database_url == f"sqlite:///{tmp_path}/h/mutransfer.db"
    assert settings.storage == tmp_path / "h" / "storage"
    assert settings.url == "http://127.0.0.1:8400"
    settings.prepare_home()
    assert settings.home.stat().st_mode & 0o777 == 0o700
    assert settings.storage.is_dir()


def test_settings_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HOME": str(tmp_path), "DATABASE_URL": "postgresql://db/mu", "STORAGE": "/shared", "PORT": "9000",
        "DATA_ROOTS": "/data/a:/data/b", "MODEL_PACKAGES": "nets:more.nets", "ALLOWED_HOSTS": "mu.example, 127.0.0.1",
        "TOKEN": "secret", "EMBEDDED": "false",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"MUTRANSFER_{name}", value)
    settings = Settings()
    assert (settings.home, settings.database_url, settings.port) == (tmp_path, "postgresql://db/mu", 9000)
    assert settings.storage == Path("/shared")
    assert settings.roots == (Path("/data/a"), Path("/data/b"))
    assert settings.model_packages == ("nets", "more.nets")
    assert settings.allowed_hosts == ("mu.example", "127.0.0.1")
    assert "secret" not in repr(settings)


def test_an_embedded_service_reads_home_and_working_directory(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, working_dir=tmp_path / "w", data_roots=(tmp_path / "d",))
    assert settings.roots == (Path.home(), tmp_path / "w", tmp_path / "d")


@pytest.mark.parametrize("wrong", [{"port": 70_000}, {"lease_ttl_seconds": 0}, {"launcher": "ssh"}])
def test_wrong_settings_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Settings(home=tmp_path, **wrong)  # type: ignore[arg-type]
