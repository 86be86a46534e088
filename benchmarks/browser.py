"""How long a visitor waits: from choosing a photo to the heatmap on the screen, in Chromium.

    python -m benchmarks.browser [--rounds 25] [--chromium /usr/bin/chromium] [--json]

Starts app.py, opens the page anew for each round, hands a photo of 0.3 megapixels (another one each time) to its file
input, and has the page's own clock measure from the input's `change` event to the `load` event of the map's image:
the upload, the answer, the drawing and what the browser does with them are all in it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks import pictures
from benchmarks.chromium import CHROMIUM, started
from benchmarks.processes import APP, running
from benchmarks.speed import quartiles
from hub.bundle import DEFAULT

WANTED = 0.3  # seconds
WARM_UP = 2
PAUSE = 500  # milliseconds from the page's readiness to the photo: what it still loads is not the photo's
INPUT, MAP = "#photo input[type=file]", "#figure img.map"

# Both events are caught on their way down, since `load` does not bubble and the parts are made anew by the page.
WATCH = """([input, map]) => {
    window.waited = new Promise((resolve) => {
        let chosen = null;
        document.addEventListener("change", (event) => {
            if (event.target.matches(input)) chosen ??= performance.now();
        }, true);
        document.addEventListener("load", (event) => {
            if (chosen !== null && event.target.matches?.(map)) resolve((performance.now() - chosen) / 1000);
        }, true);
    });
}"""


def waits(address: str, folder: Path, rounds: int, chromium: str = CHROMIUM, warm_up: int = WARM_UP) -> np.ndarray:
    """Return the seconds (rounds,) from a photo's choice to its map."""
    seconds = []
    with started(path=chromium) as browser:
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.set_default_timeout(30_000)
        for turn in range(-warm_up, rounds):
            photo = folder / f"{turn + warm_up}.jpg"
            photo.write_bytes(pictures.small(turn + warm_up))
            page.goto(address, wait_until="load")
            page.locator(INPUT).wait_for(state="attached")
            page.wait_for_timeout(PAUSE)
            page.evaluate(WATCH, [INPUT, MAP])
            page.set_input_files(INPUT, photo)
            waited = page.evaluate("Promise.race([waited, new Promise((late) => setTimeout(late, 20000, null))])")
            if waited is None:
                raise RuntimeError(f"No {MAP} was loaded within 20 seconds of the photo's choice.")
            if turn >= 0:
                seconds.append(waited)
    return np.array(seconds)


def measure(model: Path, rounds: int, chromium: str = CHROMIUM) -> dict:
    """Return the waits, in seconds."""
    with (
        tempfile.TemporaryDirectory() as temporary,
        tempfile.TemporaryDirectory() as photos,
        running(APP, "--model", model, folder=Path(temporary)) as server,
    ):
        seconds = waits(server.address, Path(photos), rounds, chromium)
    return {
        "rounds": rounds,
        "seconds": quartiles(seconds),
        "longest": float(seconds.max()),
        "versions": {name: version(name) for name in ("gradio", "playwright")},
    }


def table(result: dict) -> str:
    """Return the measurement as a Markdown table."""
    low, median, high = (f"{result['seconds'][key]:.3f} s" for key in ("low", "median", "high"))
    return "\n".join(
        [
            f"| {result['rounds']} photos | median | quartiles | longest | wanted |",
            "|---|---|---|---|---|",
            f"| photo chosen to heatmap on the screen | {median} | {low} - {high} | {result['longest']:.3f} s "
            f"| ≤ {WANTED:g} s |",
        ]
    )


def main() -> None:
    """Read the command line, measure, print the table or the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="a bundle's folder (default: the embedded one)")
    parser.add_argument("--rounds", type=int, default=25, help="photos (default: 25)")
    parser.add_argument("--chromium", default=CHROMIUM, help=f"the browser (default: {CHROMIUM})")
    parser.add_argument("--json", action="store_true", help="print the numbers too, as JSON")
    options = parser.parse_args()
    result = measure(options.model, max(options.rounds, 1), options.chromium)
    print(table(result))
    if options.json:
        print("", json.dumps(result, indent=2), sep="\n")


if __name__ == "__main__":
    main()
