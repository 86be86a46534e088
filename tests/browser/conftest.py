"""The real page in a real browser: app.py in a process of its own, and the system's Chromium."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import chelsea

from benchmarks import chromium
from tests.app_process import free_port, get, started

ROOT = Path(__file__).parents[2]
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@contextmanager
def app(*arguments: object, folder: Path) -> Iterator[str]:
    """Run app.py until the block ends; gives its address. `folder` takes its log and its uploads."""
    port = free_port()
    environment = {**os.environ, "TMPDIR": str(folder)}
    environment.pop("GRADIO_TEMP_DIR", None)
    where = {"port": port, "folder": folder, "log": folder / "app.log", "environment": environment}
    with started(sys.executable, ROOT / "app.py", "--port", port, *arguments, **where) as address:
        get(f"{address}/", wait=True)
        yield f"{address}/"
    # Whoever stops the app takes the visitors' pictures along.
    assert not list(folder.glob("uploads-*"))


@pytest.fixture(scope="session")
def browser():
    """The browser, once for all tests; where there is none, its tests are skipped with this reason."""
    if not shutil.which(chromium.CHROMIUM):
        pytest.skip(
            f"{chromium.CHROMIUM} is not installed (apt-get install chromium), so the page was not tried in a browser"
        )
    with chromium.started(*CAMERA) as browser:
        yield browser


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder for --samples: one cat, 451 x 300, called `my_cat`."""
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(np.asarray(chelsea())).save(folder / "my_cat.jpg", quality=95)
    return folder


@pytest.fixture(scope="session")
def address(browser, bundle_2, bundle_3, pictures, tmp_path_factory):
    """The address of app.py with the tiny cat-or-dog bundle, and the one for three labels beside it."""
    options = ["--model", bundle_2, "--compare", bundle_3, "--samples", pictures]
    with app(*options, folder=tmp_path_factory.mktemp("app")) as address:
        yield address


CONTRASTS = r"""(selector) => {
    const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = (colour) => {
        const [r, g, b] = numbers(colour).slice(0, 3)
            .map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const background = (element) => {
        for (; element; element = element.parentElement) {
            const colour = getComputedStyle(element).backgroundColor;
            if ((numbers(colour)[3] ?? 1) === 1) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const seen = [...document.querySelectorAll(selector)].filter((element) => element.checkVisibility());
    return seen.map((element) => {
        const pair = [light(getComputedStyle(element).color), light(background(element))].sort((a, b) => b - a);
        return [element.outerHTML.slice(0, 80), (pair[0] + 0.05) / (pair[1] + 0.05)];
    });
}"""


class Tab:
    """A browser tab on the page that notes what must not happen: errors, and requests to other hosts."""

    def __init__(self, context, address: str):
        self.page = context.new_page()
        self.page.set_default_timeout(15_000)
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        local = (address, "data:", "blob:", address.replace("http", "ws", 1))
        context.on(
            "request", lambda request: None if request.url.startswith(local) else self.elsewhere.append(request.url)
        )
        self.page.goto(address, wait_until="domcontentloaded")
        self.page.locator("#samples button").first.wait_for()

    def click_sample(self, index: int = 0) -> None:
        """Click a sample and wait until its answer and its map are there."""
        self.page.locator("#samples button").nth(index).click()
        self.wait_for_answer()

    def wait_for_answer(self) -> None:
        """Wait for the sentence, and for the map."""
        self.page.locator("#verdict .verdict").wait_for()
        self.page.wait_for_function("document.querySelector('#figure img.map')?.naturalWidth > 0")

    def open(self, name: str) -> None:
        """Open a tab of the page by its name; on a phone the last ones are in a menu."""
        tab = self.page.get_by_role("tab", name=name, exact=True)
        if not tab.first.is_visible():
            self.page.locator("#tabs .overflow-menu > button").click()
            self.page.locator("#tabs .overflow-dropdown").get_by_text(name, exact=True).click()
        else:
            tab.first.click()

    def picture(self) -> np.ndarray:
        """The photo with its map as the browser mixes them, (h, w, 3), signed so that differences can be taken."""
        numbers = self.page.evaluate(
            """async () => {
                const canvas = document.createElement("canvas");
                [canvas.width, canvas.height] = [160, 106];
                const context = canvas.getContext("2d");
                const photo = new Image();
                const panes = document.querySelector("#figure .panes");
                photo.src = panes.style.getPropertyValue("--photo").match(/url\\(["']?(.*?)["']?\\)/)[1];
                await photo.decode();
                context.drawImage(photo, 0, 0, 160, 106);
                const map = panes.querySelector("img.map");
                context.globalAlpha = Number(getComputedStyle(map).opacity);
                context.drawImage(map, 0, 0, 160, 106);
                return [...context.getImageData(0, 0, 160, 106).data];
            }"""
        )
        return np.array(numbers).reshape(106, 160, 4)[..., :3]

    def set_opacity(self, value: str) -> None:
        """Move the slider, and wait until the map follows."""
        self.page.locator("#opacity input[type=range]").fill(value)
        self.page.wait_for_function(
            "(value) => getComputedStyle(document.querySelector('#figure img.map')).opacity === value", arg=value
        )

    def contrasts(self, selector: str) -> list[tuple[str, float]]:
        """The contrast ratio (WCAG 2.2, 1.4.3) of each visible text that a selector finds, with its HTML."""
        return self.page.evaluate(CONTRASTS, selector)

    def map_after(self, action) -> str:
        """The address of the first map once `action` has changed it."""
        before = self.page.locator("#figure img.map").first.get_attribute("src")
        action()
        self.page.wait_for_function(
            "(before) => ![before, undefined].includes(document.querySelector('#figure img.map')?.getAttribute('src'))",
            arg=before,
        )
        return self.page.locator("#figure img.map").first.get_attribute("src")


DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def laid_out(request, browser, address):
    """A fresh tab at each width, for what is laid out differently; when the test is over, it must be unharmed."""
    yield from opened(browser, address, request.param)


@pytest.fixture(params=[DESKTOP, pytest.param(PHONE, marks=pytest.mark.long)], ids=["desktop", "phone"])
def viewport(request) -> dict[str, int]:
    """A desktop's window, and in the long tests a phone's."""
    return request.param


@pytest.fixture
def tab(browser, address, viewport):
    """The same, of a desktop's width; of a phone's too in the long tests."""
    yield from opened(browser, address, viewport)


@pytest.fixture
def desktop_tab(browser, address):
    """The same, at desktop size only, for what does not depend on the size."""
    yield from opened(browser, address, DESKTOP)


def opened(browser, address: str, viewport: dict[str, int], **options):
    """Open a tab, hand it over, and check it and its width at the end."""
    permissions = ["camera", "clipboard-read", "clipboard-write"]
    context = browser.new_context(viewport=viewport, permissions=permissions, **options)
    tab = Tab(context, address)
    yield tab
    assert tab.errors == []
    assert tab.elsewhere == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    context.close()
