"""How fast one photo is answered, next to Keras with a gradient-tape Grad-CAM on the same weights.

    python -m benchmarks.speed [--model BUNDLE] [--rounds N]

Both sides get the same JPEG bytes (scikit-image's cat) and give the probabilities and the map of the
likelier class, decoding included. The Keras side is what its users write: `model.predict` for the answer,
then a second model that also returns the last features, differentiated under a `tf.GradientTape` (the
procedure of https://arxiv.org/abs/1610.02391); that model is built once, before the clock runs. The answers
are compared before anything is timed, the two sides take turns, and each turn starts after a pause, so that
neither side's threads still spin while the other is measured.

A second table is what a user waits for: a new Python process from its first line to the first answer.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.data import chelsea

from hub import ImageClassifier
from hub.bundle import DEFAULT
from hub.images import to_tensor
from hub.scores import softmax

ROOT = Path(__file__).parent.parent
PAUSE = 0.05  # seconds between turns: thread pools go on spinning for some milliseconds after their work
WARM_UP = 5
STARTS = 5
TOLERANCE = 1e-3  # between the two sides' answers, in probability and in logits of the map

FIRST_ANSWER = """
import time
start = time.perf_counter()
import sys
from hub import ImageClassifier
imported = time.perf_counter()
ImageClassifier.from_pretrained(sys.argv[1]).predict(sys.argv[2])
answered = time.perf_counter()
import json
print(json.dumps({
    "import": imported - start,
    "answer": answered - start,
    "heavy": sorted({"tensorflow", "keras", "torch", "jax", "gradio", "pandas"} & sys.modules.keys()),
}))
"""


def photo() -> bytes:
    """The cat as the bytes of a JPEG file (451 x 300 pixels)."""
    file = io.BytesIO()
    Image.fromarray(chelsea()).save(file, "JPEG", quality=90)
    return file.getvalue()


def ours(classifier: ImageClassifier) -> Callable[[bytes], tuple[np.ndarray, np.ndarray]]:
    """Bytes to probabilities (K,) and Grad-CAM (h, w) of the likelier class, in logits, through `hub`."""

    def answer(jpeg: bytes) -> tuple[np.ndarray, np.ndarray]:
        prediction = classifier.predict(jpeg)
        chosen = prediction.probabilities.argmax()
        return prediction.probabilities, np.maximum(prediction.evidence[..., chosen], 0)

    return answer


def keras_grad_cam(classifier: ImageClassifier) -> Callable[[bytes], tuple[np.ndarray, np.ndarray]]:
    """The same answer from Keras: `predict`, then the gradient of the chosen logit on the last features.

    Grad-CAM weighs each feature map with the mean of its gradient. Under mean pooling that is 1/(h·w) of the
    head's weight, so the map is multiplied by h·w to be in logits, as the evidence is.
    """
    import keras
    import tensorflow as tf

    model = classifier.to_keras()
    features = model.get_layer("evidence").input
    both = keras.Model(model.input, [features, model.output["logits"]])

    def answer(jpeg: bytes) -> tuple[np.ndarray, np.ndarray]:
        pixels = to_tensor(jpeg, classifier.image_size)[np.newaxis].astype(np.float32)
        logits = model.predict(pixels, verbose=0)["logits"][0]
        with tf.GradientTape() as tape:
            activations, scores = both(pixels, training=False)
            score = scores[:, int(logits.argmax())]
        gradient = tape.gradient(score, activations)
        weights = tf.reduce_mean(gradient, axis=(0, 1, 2))
        grad_cam = tf.nn.relu(tf.linalg.matvec(activations[0], weights)).numpy()
        return softmax(logits), grad_cam * grad_cam.size

    return answer


def check_agreement(first: tuple, second: tuple) -> dict[str, float]:
    """Return how far two answers are apart; a comparison of different answers would mean nothing."""
    names = ("probability", "map")
    apart = {name: float(np.abs(a - b).max()) for name, a, b in zip(names, first, second, strict=True)}
    if not max(apart.values()) <= TOLERANCE:
        sys.exit(f"The two sides do not give the same answer (largest differences: {apart}); nothing was timed.")
    return apart


def side_by_side(sides: dict[str, Callable], jpeg: bytes, rounds: int) -> dict[str, np.ndarray]:
    """Return seconds (rounds,) for each side; they take turns, and who begins alternates."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-WARM_UP, rounds):
        for name in sorted(sides, reverse=bool(turn % 2)):
            time.sleep(PAUSE)
            start = time.perf_counter()
            sides[name](jpeg)
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def fresh_starts(folder: Path, jpeg: bytes, times: int = STARTS) -> list[dict]:
    """Return, for each of `times` new processes, the seconds to import and to the first answer."""
    runs = []
    with tempfile.TemporaryDirectory() as folder_of_photo:
        picture = Path(folder_of_photo, "cat.jpg")
        picture.write_bytes(jpeg)
        for _ in range(times):
            start = time.perf_counter()
            command = [sys.executable, "-c", FIRST_ANSWER, str(folder.resolve()), str(picture)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            runs.append({**json.loads(done.stdout), "process": time.perf_counter() - start})
    return runs


def quartiles(values: np.ndarray) -> dict[str, float]:
    """Return the median and the quartiles beside it."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def measure(folder: Path, rounds: int) -> dict:
    """Return everything this page promises, in seconds."""
    jpeg = photo()
    starts = fresh_starts(folder, jpeg)  # first, while this process has no thread pool of its own
    classifier = ImageClassifier.from_pretrained(folder)
    sides = {"hub": ours(classifier), "keras": keras_grad_cam(classifier)}
    apart = check_agreement(*(side(jpeg) for side in sides.values()))
    seconds = side_by_side(sides, jpeg, rounds)
    ratio = quartiles(seconds["keras"] / seconds["hub"])  # of neighbours in time: a slow moment hits both
    return {
        "model": classifier.name,
        "rounds": rounds,
        "difference": apart,
        "seconds": {name: quartiles(values) for name, values in seconds.items()},
        "times_as_fast": ratio,
        "fresh_process": {key: quartiles([run[key] for run in starts]) for key in ("import", "answer", "process")},
        "first_fresh_process": starts[0],
        "heavy_packages_imported": sorted({name for run in starts for name in run["heavy"]}),
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
        "versions": {name: version(name) for name in ("keras", "numpy", "onnxruntime", "pillow")},
    }


def table(result: dict) -> str:
    """Return the measurements as a small Markdown table."""

    def row(name: str, values: dict, factor: float, unit: str) -> str:
        low, median, high = (f"{values[key] * factor:.3g}" for key in ("low", "median", "high"))
        return f"| {name} | {median} {unit} | {low} - {high} {unit} |"

    fresh = result["fresh_process"]
    return "\n".join(
        [
            f"| {result['model']}, {result['rounds']} rounds | median | quartiles |",
            "|---|---|---|",
            row("hub: bytes to probabilities and evidence", result["seconds"]["hub"], 1000, "ms"),
            row("Keras: predict and Grad-CAM", result["seconds"]["keras"], 1000, "ms"),
            row("times as fast", result["times_as_fast"], 1, "×"),
            row("new process: import hub", fresh["import"], 1, "s"),
            row("new process: first answer", fresh["answer"], 1, "s"),
            row("the same with Python's own start and end", fresh["process"], 1, "s"),
        ]
    )


def main() -> None:
    """Read the command line, measure, print the table and the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="a bundle's folder (default: the embedded one)")
    parser.add_argument("--rounds", type=int, default=100, help="timed turns of each side (default: 100)")
    options = parser.parse_args()
    result = measure(options.model, max(options.rounds, 1))
    print(table(result), json.dumps(result, indent=2), sep="\n\n")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported
    main()
