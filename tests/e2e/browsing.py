"""Pages opened the way a person opens them, and everything that goes wrong on them."""

from typing import Literal

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", (e) => violations.push(`${e.violatedDirective} ${e.blockedURI}`));
"""
PATIENCE_MS = 60_000


class Visitor:
    """Opens pages in contexts of their own and keeps what they complained about."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._pages: list[Page] = []
        self.url = url
        self.faults: list[str] = []
        self._expected: tuple[str, ...] = ()

    def expects(self, *parts: str) -> None:
        """What the console may say in this test, such as that the API refused a request: texts it contains."""
        self._expected += parts

    def open(
        self, path: str = "/", *, theme: Literal["light", "dark"] = "light", width: int = 1280, charts: bool = False
    ) -> Page:
        """A page at `path`; with `charts`, once they are drawn."""
        context = self._browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, accept_downloads=True,
            timezone_id="Europe/Berlin", locale="en-GB", reduced_motion="reduce",
        )  # fmt: skip
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(VIOLATIONS)
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"page error: {error}"))
        page.on("request", lambda request: self._request(request.url))
        self._pages.append(page)
        page.goto(path if "://" in path else self.url + path)
        if charts:
            drawn(page)
        return page

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(part in message.text for part in self._expected):
            self.faults.append(f"console {message.type}: {message.text}")

    def _request(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:", "file:")):
            self.faults.append(f"request elsewhere: {url}")

    def close(self) -> None:
        """Close everything. Raises AssertionError with all faults."""
        for page in self._pages:
            self.faults += [f"CSP: {fault}" for fault in page.evaluate("window.violations ?? []")]
        for context in self._contexts:
            context.close()
        assert self.faults == []


def drawn(page: Page) -> None:
    """Wait until the charts of a page are drawn."""
    page.wait_for_selector("html[data-charts]")


def overflow(page: Page) -> int:
    """By how many pixels a page is wider than its window."""
    found: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return found
