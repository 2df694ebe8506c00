"""Where a Chromium is that browser tests may drive."""

import os
from pathlib import Path
import shutil

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """A Chromium: $CHROMIUM, the system's, or one that `playwright install chromium` fetched."""
    named = [os.environ["CHROMIUM"]] if os.environ.get("CHROMIUM") else []
    for name in (*named, *BROWSERS):
        if found := shutil.which(name):
            return found
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache/ms-playwright")
    fetched = sorted(cache.glob("chromium-*/chrome-linux*/chrome"))
    return str(fetched[-1]) if fetched else None
