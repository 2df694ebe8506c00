"""Take the picture of a page: `python -m scripts.screenshot URL FILE.png`, with the Chromium that the tests use."""

import argparse

from playwright.sync_api import sync_playwright

from tests.browser import find_chromium

QUIET = ("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run")


def main() -> None:
    """Parse the arguments and take one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("file")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1600)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=QUIET)
        size = {"width": options.width, "height": options.height}
        page = browser.new_page(viewport=size, color_scheme="dark" if options.dark else "light")
        page.goto(options.url)
        page.wait_for_selector(".js-plotly-plot .main-svg")
        page.wait_for_timeout(1000)  # fonts and the charts' own layout
        page.screenshot(path=options.file)
        browser.close()


if __name__ == "__main__":
    main()
