"""What all formats share: how one is written into a bundle, opened, and asked in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL import Image, ImageOps

from hub import bundle
from hub.config import Config
from hub.errors import BundleError, StorageError, first_line
from hub.safety import regular_size
from hub.scores import softmax

if TYPE_CHECKING:
    import keras

HUB = Path(__file__).parents[1]  # the package
MISSING = "import importlib.util, sys; print(*(m for m in sys.argv[1:] if importlib.util.find_spec(m) is None))"
# Another interpreter is given `hub` and nothing that lies beside it, which may be made for this one.
WORKER = """
import importlib.util, sys
folder = sys.argv.pop(1)
found = importlib.util.spec_from_file_location("hub", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["hub"] = importlib.util.module_from_spec(found)
found.loader.exec_module(sys.modules["hub"])
from hub.formats.worker import main
main()
"""


@dataclass(frozen=True)
class Source:
    """The model that the formats are written from."""

    labels: list[str]
    image_size: int  # pixels
    load: Callable[[], keras.Model]  # of the bundle's model.keras, which takes seconds

    @cached_property
    def keras(self) -> keras.Model:
        """The Keras model, loaded when a format first asks for it."""
        return self.load()


class Runner:
    """A model opened by one runtime; a subclass answers for tensors, and for files where its library reads them."""

    image_size: int

    def __call__(self, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return logits (N, K) and evidence (N, h, w, K) or None, float32, of one batch, uint8 (N, S, S, 3)."""
        raise NotImplementedError

    def read(self, path: Path) -> np.ndarray:
        """Return the probabilities (K,) of a picture file, read as the library's users read it.

        Here: by the four lines of Pillow that the card shows for libraries that do not read pictures themselves.
        """
        logits, _ = self(pillow_pixels(path, self.image_size)[None])
        return softmax(logits[0]).astype(np.float32)


@dataclass(frozen=True)
class Answers:
    """What one runtime said of all photos."""

    logits: np.ndarray  # (N, K) float32, of the tensors
    evidence: np.ndarray | None  # (N, h, w, K) float32, of the tensors; None where the format carries none
    files: np.ndarray  # (F, K) float32: probabilities of the files, read by the library itself; NaN where it cannot
    versions: dict[str, str]


class Format:
    """One way to store a model, and the runtime that loads it. A subclass holds only what is its own."""

    name: ClassVar[str]  # as in runtime=, --without and --also
    title: ClassVar[str]  # as the card calls it
    loads: ClassVar[str]  # what it loads, for the card; {outputs} stands for the outputs that the model has
    reader: ClassVar[str] = "Pillow, as in the lines above"  # how its users read a picture file, for the card
    tag: ClassVar[str | None] = None  # by which models in this format are found on the Hub
    files: ClassVar[tuple[str, ...]] = ()  # what it adds to a bundle
    converted: ClassVar[tuple[str, ...]] = ()  # of its files those whose bytes may differ from machine to machine
    makers: ClassVar[tuple[str, ...]] = ()  # the modules that write those
    modules: ClassVar[tuple[str, ...]] = ()  # what must be importable to run it
    install: ClassVar[str] = ""  # how a user gets them
    standard: ClassVar[bool] = True  # part of every push; else only where it is asked for
    runs: ClassVar[bool] = True  # whether it can be run and compared; else its structure is checked, and …
    not_run: ClassVar[str] = ""  # … the card says this

    def lacks(self, folder: Path) -> str | None:
        """Say why the model in a bundle's folder cannot be stored so, as a sentence; None if it can."""
        return None

    @property
    def reads(self) -> tuple[str, ...]:
        """The files beside config.json that running it needs: its own, unless a subclass says otherwise."""
        return self.files

    def config(self, folder: Path) -> dict:
        """Return the keys of config.json that this format's library reads there."""
        return {}

    def write(self, source: Source, folder: Path) -> None:
        """Write this format's files into a folder that holds model.keras and onnx/model.onnx already."""

    def open(self, folder: Path, config: Config) -> Runner:
        """Load the files of a bundle into the runtime.

        Raises:
            BundleError: they are missing, broken or not what the config says.
            ImportError: the runtime is not installed.
        """
        raise BundleError(f"{self.title} cannot be run here; choose another runtime.")

    def start(self, folder: Path, config: Config) -> Runner:
        """Open the files of a bundle, and see that what they hold answers as the config says.

        Raises:
            BundleError: a file or a package is missing, a file is too large or broken, or the model has other labels or
                another size. Formats that Python cannot run are refused too.
        """
        if type(self).open is Format.open:
            raise BundleError(f"{self.title} does not answer in Python; choose another runtime.")
        for name in self.reads:
            if not (folder / name).exists():
                remedy = "check the name" if name in (bundle.KERAS, bundle.ONNX) else "export it"
                raise BundleError(f"{folder} has no {name}, which {self.title} reads; {remedy}.")
            regular_size(folder / name, bundle.LARGEST["model"])
        try:
            runner = self.open(folder, config)
            size, count = config.image_size, len(config.labels)
            logits, evidence = runner(np.zeros((1, size, size, 3), np.uint8))
        except BundleError:
            raise
        except ImportError as error:
            message = f"{self.title} is not installed here ({first_line(error)}); pip install {self.install}."
            raise BundleError(message) from error
        except Exception as error:  # each runtime raises its own
            raise BundleError(f"{self.title} cannot run the model of {folder} ({first_line(error)}).") from error
        grid = config.evidence and config.evidence.grid
        fits = evidence is None or (evidence.shape[3:] == (count,) and (not grid or evidence.shape[1:3] == grid))
        if logits.shape != (1, count) or not fits:
            raise BundleError(f"{self.title}: {folder} holds another model than its config.json says; export it again.")
        return runner

    def check(self, folder: Path, config: Config) -> None:
        """Look into the written files of a format that is not run here, and compare their structure with model.keras.

        Raises:
            BundleError: they hold something else.
        """

    def snippet(self, config: Config, repo_id: str) -> str:
        """Return Python that loads the model from the Hub without this package and answers for photo.jpg.

        It runs as it stands and ends by printing one probability a label, as {"cat": 0.99, "dog": 0.01}. A format
        that is not run here has none: nothing stands on the card that no test has run.
        """
        raise NotImplementedError

    def missing(self, where: str | None) -> list[str]:
        """Return the modules that an interpreter (None: this one) lacks."""
        command = [where or sys.executable, "-c", MISSING, *self.modules]
        return output_of(command, self.title).split()

    def answer(self, folder: Path, tensors: Path, files: list[Path], where: str | None = None) -> Answers:
        """Ask the runtime about all photos, in a process of its own.

        Args:
            folder: the staged bundle.
            tensors: .npy, uint8 (N, S, S, 3).
            files: F pictures.
            where: the Python interpreter to ask; None is this one.

        Raises:
            BundleError: the process failed; the sentence has its last line.
        """
        with tempfile.TemporaryDirectory() as aside:
            listed, out = Path(aside, "files.json"), Path(aside, "answers.npz")
            listed.write_text(json.dumps([str(path.resolve()) for path in files]), encoding="utf-8")
            worker = [where or sys.executable, "-c", WORKER, str(HUB), self.name]
            output_of([*worker, str(folder.resolve()), str(tensors), str(listed), str(out)], self.title)
            with np.load(out) as arrays:
                evidence = arrays.get("evidence")
                versions = json.loads(str(arrays["versions"]))
                return Answers(arrays["logits"], evidence, arrays["files"], versions)


def versions(modules: Iterable[str]) -> dict[str, str]:
    """Return the version of the package of each module."""
    import importlib.metadata

    distributions = importlib.metadata.packages_distributions()
    names = {module: distributions.get(module, [module])[0] for module in modules}
    return {module: importlib.metadata.version(name) for module, name in names.items()}


def batched(runner: Callable[[np.ndarray], tuple], photos: np.ndarray, size: int = 32) -> tuple:
    """Ask a runner about a batch at a time; return logits (N, K) and evidence (N, h, w, K) or None of them all."""
    parts = [runner(photos[start : start + size]) for start in range(0, max(len(photos), 1), size)]
    logits, evidence = zip(*parts, strict=True)
    return np.concatenate(logits), None if evidence[0] is None else np.concatenate(evidence)


def normalised(photos: np.ndarray) -> np.ndarray:
    """Return uint8 (N, S, S, 3) as pixel_values: float32 (N, 3, S, S) in [-1, 1]."""
    return photos.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1)


def pillow_pixels(path: Path, size: int) -> np.ndarray:
    """Return a picture as uint8 (S, S, 3) by Pillow alone, as the card's snippets do."""
    photo = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    return np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR))


def pillow_snippet(
    config: Config, *, imports: str, load: str, pixels: str | None, logits: str, download: str = "hf_hub_download"
) -> str:
    """Return the snippet of a library that reads no pictures: Pillow does, and numpy makes logits probabilities.

    Args:
        config: the bundle's.
        imports: lines that import what `load` and `logits` need, numpy among them.
        load: lines that fetch and open the model.
        pixels: an expression that makes the model's input of the picture `photo`; None where it takes that itself.
        logits: an expression for the logits (K,).
        download: the function of huggingface_hub that `load` calls.
    """
    size = config.image_size
    return f"""{imports}from huggingface_hub import {download}
from PIL import Image, ImageOps

{load}
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB").resize(({size}, {size}), Image.BILINEAR)
{f"pixels = {pixels}" if pixels else ""}
logits = {logits}
odds = np.exp(logits - logits.max())
print(dict(zip({list(config.labels)}, map(float, odds / odds.sum()))))
""".replace("\n\nlogits", "\nlogits")


@contextmanager
def converting(chosen: Format) -> Iterator[None]:
    """Silence the libraries that convert a model, and turn what they raise into one sentence (a BundleError)."""
    try:
        with _silence():
            yield
    except (BundleError, OSError):
        raise
    except ImportError as error:
        message = (
            f"{chosen.title} cannot be written here ({first_line(error)}); install it, or leave {chosen.name} out."
        )
        raise BundleError(message) from error
    except Exception as error:  # a converter raises whatever it is made of raises
        message = f"{chosen.title} cannot be written of this model ({first_line(error)}); leave it out."
        raise BundleError(message) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Send standard output and error nowhere: a converter's own and, below Python, those of its C++ libraries."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(number) for number in (1, 2)]
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            for number in (1, 2):
                os.dup2(nowhere.fileno(), number)
            yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def output_of(command: list[str], title: str, **environment: str) -> str:
    """Run a command and return what it printed; a failure is one sentence with the last line of its complaint.

    Args:
        environment: variables that it gets beside this process's own.
    """
    environment = {**os.environ, **environment}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise StorageError(f"{title}: {command[0]} cannot be started ({error.strerror}); check the path.") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        told = next((line for line in reversed(lines) if "Error" in line), lines[-1])  # Node ends with its version
        message = f"{title} failed ({told}, exit code {done.returncode}); try it on its own, or leave it out."
        raise BundleError(message)
    return done.stdout
