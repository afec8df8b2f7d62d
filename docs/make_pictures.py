"""Takes the picture of the front page: the first plot of a run's report, in a real browser.

python docs/make_pictures.py runs/sst2   # needs playwright and chromium; writes docs/front.png
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FRONT = Path(__file__).with_name("front.png")
DRAWN = ".js-plotly-plot .legend"
PATIENCE_MS = 180_000  # a busy machine takes long to draw


def take(run: Path, out: Path = FRONT) -> None:
    """Writes the plot of quality and latency, as wide as in a window of 1,000 pixels.

    Args:
        run: A run directory with a report.
        out: The picture.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = program.new_page(
            viewport={"width": 1000, "height": 900}, color_scheme="light", device_scale_factor=1.5
        )
        page.set_default_timeout(PATIENCE_MS)
        page.goto((run.resolve() / "report.html").as_uri())
        page.locator(DRAWN).first.wait_for()
        page.locator(".js-plotly-plot").first.screenshot(path=str(out))
        program.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]))
