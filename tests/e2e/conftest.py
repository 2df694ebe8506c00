"""A real service with seeded studies, and a real browser that records everything that goes wrong."""

from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
import pytest

from tests.e2e.browsing import Visitor
from tests.e2e.driving import Driven, drive_one
from tests.e2e.seeding import Seeded, seed
from tests.e2e.serving import serving

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    """The service on a free port, over a database that holds one study of every kind."""
    home = tmp_path_factory.mktemp("home")
    seeded = seed(home)
    with serving(seeded.settings) as url:
        seeded.url = url
        yield seeded


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """One Chromium a module, no longer: while it lives, this thread has a running event loop."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="session")
def pictures(repository: Path) -> Path:
    """Where screenshots are kept for a person to look at (ignored by git)."""
    folder = repository / "out" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def visitor(browser: Browser, site: Seeded) -> Iterator[Visitor]:
    """Opens pages; at the end of the test none of them may have shown an error or asked for anything elsewhere."""
    found = Visitor(browser, site.url)
    yield found
    found.close()


@pytest.fixture
def running(site: Seeded) -> Driven:
    """A fresh running study with one trial done."""
    return drive_one(site)
