"""Which versions of Keras load a bundle: model.keras and the files by which Keras loads a repository by name.

    python -m benchmarks.keras_versions [BUNDLE] [--photos FOLDER] [--envs FOLDER]

Makes an environment for each of the last five minor releases (some minutes and 2 GB each, once), has its Keras load
both forms with nothing of this project, and compares the logits with those that this environment's Keras gives for
model.keras. Ends with exit code 1 if a version cannot load a form or answers differently.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from skimage.data import chelsea

from hub import bundle
from hub.batch import find_pictures
from hub.bundle import DEFAULT
from hub.errors import BundleError
from hub.formats import FORMATS
from hub.images import to_tensor
from hub.publishing import staging

ROOT = Path(__file__).parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")  # the last five minor releases, the oldest first
FORMS = ("keras", "keras-folder")
TOLERANCE = 1e-4  # in logits
PHOTOS = 32
ERROR = re.compile(r"[\w.]*(Error|Exception)\b")

# What a stranger's Keras does: load, answer, and nothing else.
LOAD = """
import sys
import keras, numpy as np
source, photos, out = sys.argv[1:]
model = keras.saving.load_model(source, compile=False)
answer = model.predict(np.load(photos).astype("float32"), verbose=0)
np.save(out, answer["logits"] if isinstance(answer, dict) else answer)
"""


@dataclass(frozen=True)
class Outcome:
    """What one version made of one form: the largest difference in logits, or why it failed."""

    difference: float | None = None
    problem: str | None = None

    @property
    def fine(self) -> bool:
        """Whether it loaded and answers the same; NaN does not."""
        return self.difference is not None and self.difference <= TOLERANCE

    def __str__(self) -> str:
        if self.difference is None:
            return "fails"
        return f"{self.difference:.1e}" if self.fine else f"differs: {self.difference:.1e}"


def interpreter(folder: Path) -> Path:
    """The Python of an environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def keras_of(python: Path) -> str | None:
    """The version of Keras that an interpreter has; None if there is no such interpreter or no Keras."""
    question = "from importlib.metadata import version; print(version('h5py') and version('keras'))"
    try:
        done = subprocess.run([str(python), "-c", question], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def environment(version: str, envs: Path) -> Path:
    """Return an interpreter with the newest Keras of a minor release; its environment is made if it is not there."""
    python = interpreter(envs / version)
    if not (keras_of(python) or "").startswith(f"{version}."):
        print(f"Making {envs / version} …", file=sys.stderr)
        installed = {distribution.name for distribution in metadata.distributions()}
        tensorflow = "tensorflow-cpu" if "tensorflow-cpu" in installed else "tensorflow"
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, envs / version], check=True)
        wanted = [f"keras=={version}.*", tensorflow, "h5py"]
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", python, *wanted], check=True)
    return python


def ask(python: str | Path, source: Path, photos: Path) -> np.ndarray:
    """Return the logits (N, K) that an interpreter's Keras gives.

    Raises:
        BundleError: it could not load the model; the sentence is the last line of its complaint.
    """
    with tempfile.TemporaryDirectory() as aside:
        out = Path(aside, "logits.npy")
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
        command = [str(python), "-c", LOAD, str(source), str(photos), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=aside, env=quiet)
        if done.returncode:
            raise BundleError(complaint(done.stderr))
        return np.load(out)


def complaint(said: str) -> str:
    """The line of a traceback that names the error; of Keras's nested ones, the innermost."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
    inner = [line.removeprefix("Exception encountered: ") for line in lines if line.startswith("Exception encountered")]
    return inner[-1] if inner else next((line for line in reversed(lines) if ERROR.match(line)), lines[-1])


def tensors(folder: Path | None, size: int) -> np.ndarray:
    """Return uint8 (N, size, size, 3): a folder's photos, or windows of scikit-image's cat."""
    if folder:
        return np.stack([to_tensor(path, size) for path in find_pictures([str(folder)])[:PHOTOS]])
    cat, rng = chelsea(), np.random.default_rng(0)
    sides = rng.integers(60, min(cat.shape[:2]), PHOTOS)
    corners = [[rng.integers(0, length - side + 1) for length in cat.shape[:2]] for side in sides]
    windows = [cat[y : y + side, x : x + side] for (y, x), side in zip(corners, sides, strict=True)]
    return np.stack([to_tensor(window, size) for window in windows])


def compare(folder: Path, pythons: dict[str, Path], photos: Path | None = None) -> dict[str, dict[str, Outcome]]:
    """Return for each version what it made of each form.

    Args:
        folder: a bundle.
        pythons: an interpreter by version of Keras.
        photos: a folder of pictures; None draws windows of one.
    """
    with tempfile.TemporaryDirectory() as place:
        staged = staging.stage(folder, Path(place, "model"), [FORMATS[name] for name in FORMS])
        size = bundle.read_json(staged, bundle.CONFIG)["image_size"]
        pixels = Path(place, "photos.npy")
        np.save(pixels, tensors(photos, size))
        sources = {"keras": staged / bundle.KERAS, "keras-folder": staged}
        expected = ask(sys.executable, sources["keras"], pixels)

        def outcome(python: Path, source: Path) -> Outcome:
            try:
                return Outcome(float(np.abs(ask(python, source, pixels) - expected).max()))
            except BundleError as error:
                return Outcome(problem=str(error))

        return {
            version: {form: outcome(python, source) for form, source in sources.items()}
            for version, python in pythons.items()
        }


def table(found: dict[str, dict[str, Outcome]]) -> str:
    """Return the outcomes as a Markdown table, and below it why a form failed."""
    lines = ["| Keras | model.keras | by name (`hf://`) |", "|---|---|---|"]
    lines += [f"| {version} | {' | '.join(str(row[form]) for form in FORMS)} |" for version, row in found.items()]
    problems = [
        f"Keras {version}, {form}: {outcome.problem}"
        for version, row in found.items()
        for form, outcome in row.items()
        if outcome.problem
    ]
    return "\n".join([*lines, *([""] if problems else []), *problems])


def main() -> int:
    """Read the command line, make what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, nargs="?", default=DEFAULT, help="default: the embedded one")
    parser.add_argument("--photos", type=Path, help=f"compare on a folder's first {PHOTOS} (default: windows of a cat)")
    parser.add_argument("--envs", type=Path, default=ROOT / ".venv-keras", help="where the environments are kept")
    options = parser.parse_args()
    pythons = {version: environment(version, options.envs.absolute()) for version in VERSIONS}
    named = {keras_of(python) or version: python for version, python in pythons.items()}
    found = compare(options.bundle, named, options.photos)
    print(table(found))
    print(f"\nLargest difference in logits to Keras {metadata.version('keras')} here.")
    return 0 if all(outcome.fine for row in found.values() for outcome in row.values()) else 1


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        sys.exit(str(error))
