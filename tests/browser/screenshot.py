"""Take the README's picture of the page: python -m tests.browser.screenshot [OUT.png] [--model FOLDER_OR_NAME]."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import chromium
from tests.browser.conftest import CAMERA, ROOT, Tab, app


def screenshot(out: Path, model: str | None = None) -> None:
    """Open the page, click scikit-image's cat, and save what is seen at twice a desktop's resolution."""
    arguments = ["--model", model] if model else []
    with (
        tempfile.TemporaryDirectory() as folder,
        app(*arguments, folder=Path(folder)) as address,
        chromium.started(*CAMERA) as browser,
    ):
        context = browser.new_context(viewport={"width": 1280, "height": 1000}, device_scale_factor=1.5)
        tab = Tab(context, address)
        tab.page.get_by_role("button", name="Cat", exact=True).click()
        tab.wait_for_answer()
        tab.page.mouse.move(0, 0)
        tab.page.wait_for_timeout(1000)  # the last transitions
        out.parent.mkdir(parents=True, exist_ok=True)
        tab.page.screenshot(path=out, full_page=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "docs" / "screenshot.png")
    parser.add_argument("--model", help="another model than the embedded one")
    chosen = parser.parse_args()
    screenshot(chosen.out, chosen.model)
    print(chosen.out)


if __name__ == "__main__":
    main()
