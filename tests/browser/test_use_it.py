"""The tab "Use it from code" in a real browser: each snippet as it stands on the page is run against that page."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hub import ImageClassifier
from tests.browser.conftest import PHONE, ROOT, opened

SHOWN = """() => Object.fromEntries([...document.querySelectorAll("#use-it figure")]
    .map((figure) => [figure.dataset.snippet, figure.querySelector("code").textContent]))"""


@pytest.fixture
def phone_in_german(browser, address):
    """A fresh tab at a phone's size whose browser asks for German."""
    yield from opened(browser, address, PHONE, locale="de-DE")


@pytest.fixture
def folder(tmp_path, pictures, bundle_2) -> Path:
    """What the tab tells a reader to have: a folder with photo.jpg, and the model that lies on the server."""
    shutil.copy(pictures / "my_cat.jpg", tmp_path / "photo.jpg")
    shutil.copytree(bundle_2, tmp_path / bundle_2.name)
    return tmp_path


def test_each_snippet_answers_as_it_stands(desktop_tab, address, folder, bundle_2):
    desktop_tab.open("Use it from code")
    desktop_tab.page.locator("#use-it figure").first.wait_for()
    shown = desktop_tab.page.evaluate(SHOWN)
    assert list(shown) == ["curl", "python", "javascript", "gradio-client", "own", "mcp", "mcp-client"]
    assert all(address in code for name, code in shown.items() if name != "own")

    with ThreadPoolExecutor(2) as pool:
        programs = ("python", "gradio-client", "own", "mcp-client")
        printed = {name: pool.submit(run, [sys.executable, "-c", shown[name]], folder, name) for name in programs}
        printed["curl"] = pool.submit(run, shlex.split(shown["curl"]), folder, "curl")
        configured = pool.submit(ask_over_mcp, json.loads(shown["mcp"]), folder)
        in_browser = run_in_browser(desktop_tab, shown["javascript"], folder)
    answers = {name: ast.literal_eval(printed[name].result().splitlines()[-1]) for name in programs}
    answers["curl"] = json.loads(printed["curl"].result())["results"][0]["probabilities"]
    answers |= {"mcp": configured.result(), "javascript": in_browser}

    prediction = ImageClassifier.from_pretrained(bundle_2).predict(folder / "photo.jpg")
    expected = dict(zip(["cat", "dog"], prediction.probabilities.tolist(), strict=True))
    assert answers == dict.fromkeys(shown, expected)


def run(command: list[str], folder: Path, name: str) -> str:
    """Run a snippet in the folder; return what it printed. Only that of the hub package finds it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", **({"PYTHONPATH": str(ROOT)} if name == "own" else {})}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask_over_mcp(configuration: dict, folder: Path) -> dict:
    """Do as an assistant with this configuration; return the probabilities."""
    from mcp import Client

    (server,) = configuration["mcpServers"].values()
    assert server["type"] == "http"
    picture = base64.b64encode((folder / "photo.jpg").read_bytes()).decode()

    async def ask():
        async with Client(server["url"]) as client:
            return await client.call_tool("classify_image", {"image_base64": picture})

    return asyncio.run(ask()).structured_content["probabilities"]


def run_in_browser(tab, code: str, folder: Path) -> dict:
    """Run the snippet in a page of another origin, in which the photo is chosen; return the probabilities."""
    page = tab.page.context.new_page()
    page.set_content("<input type=file>")
    page.set_input_files("input", folder / "photo.jpg")
    with page.expect_console_message() as message:
        page.add_script_tag(content=code, type="module")
    label, probabilities = (argument.json_value() for argument in message.value.args)
    assert label == max(probabilities, key=probabilities.get)
    return probabilities


def test_a_snippet_is_copied_by_keyboard(phone_in_german, address):
    tab, page = phone_in_german, phone_in_german.page
    tab.open("Im eigenen Code nutzen")

    def copied(title: str) -> str:
        figure = page.locator("#use-it figure", has=page.get_by_role("button", name=f"Kopieren: {title}"))
        figure.first.get_by_role("button").press("Enter")
        figure.first.get_by_role("status").get_by_text("Kopiert").wait_for(state="attached")
        assert figure.first.get_by_role("button").inner_text() == "Kopiert"
        return page.evaluate("(window.kept ?? navigator.clipboard).readText()")

    assert copied("Konfiguration") == page.locator("#use-it figure[data-snippet=mcp] code").inner_text()
    # A page without https has no such clipboard.
    page.evaluate("window.kept = navigator.clipboard")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined }) && null")
    assert copied("curl") == f"curl --data-binary @photo.jpg {address}api/predict"
    # A long line scrolls inside its box, also by keyboard.
    code = page.locator("#use-it figure[data-snippet=python] pre")
    code.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#use-it figure[data-snippet=python] pre').scrollLeft > 0")
    assert page.locator("#use-it a").get_attribute("href") == "api/docs"
    for _ in range(2):
        texts = "#use-it p, #use-it a, #use-it p code, #use-it pre code, #use-it button, #use-it figcaption span"
        ratios = tab.contrasts(texts)
        assert len(ratios) > 20
        assert min(ratios, key=lambda pair: pair[1])[1] >= 4.5, min(ratios, key=lambda pair: pair[1])
        page.evaluate("document.body.classList.add('dark')")
