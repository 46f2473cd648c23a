"""The pictures of the report in README and docs, from a run's page: needs Chromium.

Run: python docs/report_pictures.py RUN, after `fpo quickstart --output RUN`.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
PICTURES = {
    "report.png": ("light", "body"),
    "report-pairs.png": ("light", "#pairs"),
    "report-features.png": ("dark", "#features"),
}
"""Each picture's colours, and what stands at its top."""


def main() -> None:
    """Write every picture."""
    page_file = Path(sys.argv[1]).absolute() / "report.html"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, (scheme, place) in PICTURES.items():
            page = browser.new_page(viewport={"width": 1180, "height": 860}, color_scheme=scheme)
            page.goto(f"file://{page_file}")
            page.locator("#feature-table details").nth(1).evaluate("d => { d.open = true }")
            page.select_option("#pair-sort", "moved")
            page.locator("#pair-list summary").nth(0).click()
            page.locator(place).evaluate("element => element.scrollIntoView()")
            page.wait_for_timeout(300)
            page.screenshot(path=HERE / name)
        browser.close()


if __name__ == "__main__":
    main()
