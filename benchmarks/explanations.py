"""What each explanation costs, next to one forward pass of the same model in the same run.

    python -m benchmarks.explanations [PHOTO] [--model BUNDLE] [--rounds N]

The photo is scikit-image's cat where none is named, the label the likeliest one. A turn of a method goes from the
decoded photo to the finished map; the pass beside it gives the answer that is explained. All take turns, with a pause
before each (`benchmarks.speed.side_by_side`), and a ratio is of the two turns of one round. What a method does once
a classifier (opening a second session, compiling a gradient) falls into the warm-up and is not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

from benchmarks.speed import photo, quartiles, side_by_side
from hub import ImageClassifier
from hub.bundle import DEFAULT
from hub.explain import METHODS
from hub.images import to_tensor

PASS = "one forward pass"


def measure(folder: Path, picture: bytes | Path, rounds: int) -> dict:
    """Return the seconds of a pass and of each method that runs here, and why the others do not."""
    classifier = ImageClassifier.from_pretrained(folder)
    tensor = to_tensor(picture, classifier.image_size)
    k = int(classifier.predict_tensors(tensor[None])[0].argmax())
    lacking = {name: method.lacks(classifier) for name, method in METHODS.items()}
    sides = {PASS: lambda tensor: classifier.predict_tensors(tensor[None])}
    for name, method in METHODS.items():
        if lacking[name] is None:
            sides[name] = lambda tensor, method=method: method(classifier, tensor, k)
    seconds = side_by_side(sides, tensor, rounds)
    return {
        "model": classifier.name,
        "label": classifier.labels[k],
        "rounds": rounds,
        "pass": quartiles(seconds[PASS]),
        "methods": {
            name: {
                "passes": METHODS[name].passes(classifier),
                "seconds": quartiles(seconds[name]),
                "times_a_pass": quartiles(seconds[name] / seconds[PASS]),
            }
            for name in METHODS
            if name in sides
        },
        "lacking": {name: sentence for name, sentence in lacking.items() if sentence},
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
        "versions": {name: version(name) for name in ("numpy", "onnxruntime")},
    }


def table(result: dict) -> str:
    """Return the measurements as a small Markdown table."""
    what = f"{result['model']}, {result['label']}, {result['rounds']} rounds"
    rows = [
        f"| {what} | passes | median | times a pass | quartiles |",
        "|---|---|---|---|---|",
        f"| {PASS} | 1 | {result['pass']['median'] * 1000:.4g} ms | 1 | |",
    ]
    for name, found in result["methods"].items():
        low, median, high = (f"{found['times_a_pass'][key]:.3g}" for key in ("low", "median", "high"))
        milliseconds = f"{found['seconds']['median'] * 1000:.4g} ms"
        rows.append(f"| {METHODS[name].title} | {found['passes']} | {milliseconds} | {median} | {low} - {high} |")
    rows += [f"| {METHODS[name].title} | | | | {sentence} |" for name, sentence in result["lacking"].items()]
    return "\n".join(rows)


def main() -> None:
    """Read the command line, measure, print the table and the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", nargs="?", type=Path, help="a picture (default: scikit-image's cat)")
    parser.add_argument("--model", type=Path, default=DEFAULT, help="a bundle's folder (default: the embedded one)")
    parser.add_argument("--rounds", type=int, default=20, help="timed turns of each (default: 20)")
    options = parser.parse_args()
    result = measure(options.model, options.photo or photo(), max(options.rounds, 1))
    print(table(result), json.dumps(result, indent=2), sep="\n\n")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported
    main()
