"""The lessons and the page for a stranger's own photos: what they show is copied out and run, top to bottom.

The pages are read as they stand, on pictures that they draw themselves. Where PHOTOS and BACKBONE_WEIGHTS name real
ones (tests/test_real_photos.py), the lessons are read again with a small part of those in their place.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

import hub.cli
import training.cli
from hub import ImageClassifier, Refusal
from hub.images import open_image
from tests.app_process import free_port, get, predict, started
from tests.hub_server import HubServer
from tests.pictures import encode
from training.photos.data import load_photos
from training.settings import load_recipe, override

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
OWN = DOCS / "your_own_photos.md"
LESSONS = {int(path.name[0]): path for path in sorted((DOCS / "lessons").glob("[1-9]_*.md"))}
NEEDS = {2: [1], 3: [1], 5: [1, 2]}  # whose folders a lesson uses
PHOTOS, WEIGHTS = os.environ.get("PHOTOS"), os.environ.get("BACKBONE_WEIGHTS")
FEW = ("--without", "litert", "--without", "keras-folder")  # for speed; tests/test_docs.py goes with all


@dataclass
class Reader:
    """Somebody who copies a page's blocks, in a folder of their own.

    Attributes:
        folder: where everything is written.
        swaps: what is written instead of some of a page's text, such as another data set's name.
        extra: what is added to a command that begins so.
    """

    folder: Path
    swaps: dict[str, str] = field(default_factory=dict)
    extra: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)

    def read(self, page: Path) -> Read:
        """Run every block of a page, Python in one namespace, and keep what it prints."""
        found = Read()
        with contextlib.chdir(self.folder), pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(self.folder / "cache"))
            for language, code in blocks(page):
                for old, new in self.swaps.items():
                    code = code.replace(old, new)
                if language == "python":
                    found.printed.append(python(code, found.names))
                else:
                    found.printed += [self.command(line) for line in code.replace("\\\n", "").splitlines()]
        return found

    def command(self, line: str) -> str:
        """What one line of a terminal prints; it must succeed."""
        program, *rest = shlex.split(line)
        assert program == "python", line
        if rest[0] == "app.py":
            return self.page(rest)
        assert rest[0] == "-m" and rest[1] in ("hub", "training"), line
        arguments = [*rest[2:], *self.extra.get(tuple(rest[1:3]), ())]
        if rest[1:3] == ["hub", "push"]:
            return self.push(arguments)
        done = CliRunner().invoke({"hub": hub.cli, "training": training.cli}[rest[1]].app, arguments)
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
        return done.stdout  # without progress bars

    def push(self, arguments: list[str]) -> str:
        """Push to a Hub of our own, in a process of its own: the client reads its environment when it is imported."""
        with HubServer() as server:
            environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(self.folder / "home")}
            environment |= {"HF_TOKEN": "hf_writer", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
            command = [sys.executable, "-m", "hub", *(part.replace("OWNER", "tester") for part in arguments)]
            environment |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0"}  # this Hub is on this machine
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            (repo,) = server.repos.values()
            return done.stdout + "\n".join(repo.at("main").files)

    def page(self, arguments: list[str]) -> str:
        """Open the page, show it a picture of the folder, and return what it answers."""
        picture = min(Path("my photos").rglob("*.png")).read_bytes()
        port, environment = free_port(), {**os.environ, "PYTHONPATH": str(ROOT), "GRADIO_ANALYTICS_ENABLED": "False"}
        command = [sys.executable, ROOT / arguments[0], *arguments[1:], "--port", port]
        with started(*command, port=port, folder=self.folder, log=self.folder / "log", environment=environment) as at:
            get(f"{at}/healthz", wait=True)
            return json.dumps(predict(at, picture, "image/png"))


@dataclass
class Read:
    """What came of a page: the names its Python made, and what each block and command printed, in order."""

    names: dict = field(default_factory=dict)
    printed: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(part.strip("\n") for part in self.printed)

    def numbers(self, pattern: str) -> list[float]:
        """The groups of the one place where the page printed this."""
        (match,) = re.finditer(pattern, self.text, re.MULTILINE)
        return [float(group) for group in match.groups()]


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the content of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def python(code: str, names: dict) -> str:
    """What a block of Python prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "<a page>", "exec"), names)
    return printed.getvalue()


# The lessons ------------------------------------------------------------------------------------------------


class Course:
    """The lessons as one reader reads them, each once and after those that it needs."""

    def __init__(self, reader: Reader, *, real: bool):
        self.reader, self.real, self.done = reader, real, {}
        self.runs = reader.folder / "runs"

    def __getitem__(self, day: int) -> Read:
        for needed in NEEDS.get(day, []):
            self[needed]
        if day not in self.done:
            self.done[day] = self.reader.read(LESSONS[day])
        return self.done[day]

    def scores(self, run: str, split: str = "validation") -> dict:
        """What a run's metrics.json says of a split."""
        return json.loads((self.runs / run / "bundle" / "metrics.json").read_text())[split]


def part_of(name: str, rows: int, folder: Path) -> Path:
    """Some rows of a real data set, in a folder of their own."""
    table = datasets.load_dataset(str(Path(PHOTOS, name)), split="train").shuffle(seed=0).select(range(rows))
    (folder / name / "data").mkdir(parents=True)
    table.to_parquet(folder / name / "data" / "train-00000-of-00001.parquet")
    return folder / name


def instead(digits: str, pets: str, weights: str) -> dict[str, str]:
    """What the lessons say of drawn pictures, and what is read in its place where there are real ones."""
    return {
        'DATA = "runs/digits"': f"DATA = {digits!r}",
        " runs/digits ": f" {shlex.quote(digits)} ",
        'DATA, SIZE = "runs/shapes", 32': f"DATA, SIZE = {pets!r}, 96",
        " runs/shapes ": f" {shlex.quote(pets)} ",
        'WEIGHTS = "runs/cats_and_dogs.weights.h5"': f"WEIGHTS = {weights!r}",
        "--backbone-weights runs/cats_and_dogs.weights.h5": f"--backbone-weights {shlex.quote(weights)}",
        "--set size=32 --set epochs=2": "--set size=96 --set epochs=1",
    }


def real_photos(folder: Path) -> dict[str, str]:
    """The same, of a small part of the real ones."""
    digits, pets = part_of("mnist", 1800, folder), part_of("cats_vs_dogs", 400, folder)
    return instead(str(digits), str(pets), WEIGHTS or "random")


def test_what_real_photos_replace_stands_in_the_lessons():
    """Else the lessons would be read with drawn pictures where real ones are meant."""
    code = "".join(block for page in LESSONS.values() for _, block in blocks(page))
    assert [text for text in instead("digits", "pets", "weights") if text not in code] == []


def test_the_lessons_import_and_set_what_exists():
    """Looked up without running them, so that a rename is seen at once; the long tests run them."""
    pages = [*LESSONS.values(), OWN]
    for page in pages:
        for language, code in blocks(page):
            if language == "python":
                for node in ast.walk(ast.parse(code)):
                    if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("hub", "training"):
                        module = importlib.import_module(node.module)
                        assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == [], page
            for line in code.replace("\\\n", "").splitlines() if language == "sh" else []:
                words = shlex.split(line)
                if words[1:4] == ["-m", "training", "fit"]:
                    assignments = [value for name, value in itertools.pairwise(words) if name == "--set"]
                    override(load_recipe(words[4]), assignments)


@pytest.fixture(
    scope="module",
    params=[
        "drawn",
        pytest.param("real", marks=[pytest.mark.long, pytest.mark.skipif(not PHOTOS, reason="PHOTOS names no folder")]),
    ],
)
def course(request, tmp_path_factory) -> Course:
    """The lessons, on what they draw and on real photos."""
    folder, real = tmp_path_factory.mktemp("course"), request.param == "real"
    swaps = real_photos(tmp_path_factory.mktemp("real")) if real else {}
    return Course(Reader(folder, swaps, {("hub", "verify"): FEW, ("hub", "push"): FEW}), real=real)


def test_there_are_five_lessons_and_the_list_names_them():
    assert sorted(LESSONS) == [1, 2, 3, 4, 5]
    listed = re.findall(r"\]\((\d_\w+\.md)\)", (DOCS / "lessons" / "README.md").read_text(encoding="utf-8"))
    assert listed == [path.name for path in LESSONS.values()]
    for path in LESSONS.values():
        text = path.read_text(encoding="utf-8")
        title = text.splitlines()[0].removeprefix("# ")
        assert f"[{title}]({path.name})" in (DOCS / "lessons" / "README.md").read_text(encoding="utf-8")
        assert re.search(r"\n## Exercises\n\n1\. (.+\n)+2\. (.+\n)+(3\. (.+\n)+)?$", text), path


def test_data(course):
    read = course[1]
    assert read.names["digits"].target[0] == 0 and "[[ 0  0  5 13  9  1  0  0]" in read.printed[0]
    places = {split: read.numbers(rf"^{split} (.*) (.*)$") for split in ("test", "validation", "train")}
    assert 0 <= places["test"][0] < places["test"][1] < 0.1 <= places["validation"][0]
    assert places["validation"][1] < 0.2 <= places["train"][0] < places["train"][1] < 1
    read.numbers(r"^True\nFalse$")
    right, loss = read.numbers(r"^DummyClassifier: (.*)% right .* log loss (.*)$")
    assert right < 20 and loss == pytest.approx(np.log(10), abs=0.05)
    right, loss = read.numbers(r"^LogisticRegression: (.*)% right .* log loss (.*)$")
    assert right > (75 if course.real else 90) and loss < 1
    assert (course.runs / "look" / "index.html").is_file()


@pytest.mark.long
def test_the_parts_of_a_network(course):
    read = course[2]
    assert read.printed[0].split() == ["[[0.", "1.", "0.]", "[0.", "1.", "0.]", "[0.", "1.", "0.]]"]
    assert re.findall(r"\d+", read.printed[1]) == ["5", "7", "13", "15"]
    dropped, kept = (re.findall(r"\d", part) for part in read.printed[2].split("]] [["))
    assert {*dropped} == {"0", "2"} and kept == ["1"] * 8
    # of the logits 2, 1, 0: e² / (e² + e + 1) = 0.66524, …; and -log of it
    assert read.printed[3].startswith("[0.665 0.245 0.09 ] 0.408\n0.4076")


@pytest.mark.long
def test_the_evidence_is_the_score_and_grad_cam(course):
    read = course[2]
    prediction, k = read.names["prediction"], read.names["k"]
    assert prediction.evidence.shape == (4, 4, 10) and prediction.evidence.std() > 0.1
    np.testing.assert_allclose(prediction.evidence.mean((0, 1)), prediction.logits, atol=1e-4)
    np.testing.assert_allclose(read.names["by_gradients"], np.maximum(prediction.evidence[..., k], 0), atol=1e-3)
    assert prediction.label == read.names["classifier"].labels[k] == str(k)
    assert "None\n[[" in read.printed[-1]
    assert Image.open(course.runs / "evidence.png").size == (320, 320)


@pytest.mark.long
def test_both_heads_learn(course):
    read = course[2]
    losses = [float(loss) for loss in re.findall(r"log loss (\S+) on training", read.text)]
    assert len(losses) == 8 and losses[-1] < losses[0] / 2
    for run in ("classic", "evidence"):
        assert course.scores(run)["accuracy"]["value"] > (0.7 if course.real else 0.9)
    assert "Report on evidence" in (course.runs / "evidence" / "report.html").read_text(encoding="utf-8")


@pytest.mark.long
def test_an_experiment(course):
    read = course[3]
    found = json.loads((course.runs / "augmentation" / "compare.json").read_text())
    assert {row["name"] for row in found["runs"]} == {"plain", "moved"} and found["same_pictures"]
    plain, plain_held = read.numbers(r"^plain: at the end log loss (.*) on training, (.*) on validation$")
    moved, moved_held = read.numbers(r"^moved: at the end log loss (.*) on training, (.*) on validation$")
    assert plain < moved  # by heart
    assert moved_held < plain_held or course.real
    assert read.numbers(r"^\[(0\.667) (2)\. +\] \[(20)\. (20)\.\]$") == [0.667, 2, 20, 20]
    assert Image.open(course.runs / "preview.png").size[1] > 400


@pytest.mark.long
def test_transfer_learning(course):
    read = course[4]
    free, fewer = read.numbers(r"^(.*) weights may move\n(.*) with the first 70 % of the layers frozen$")
    assert 0 < fewer < free
    assert read.numbers(r"^mean, learned 0: (.*)$") == pytest.approx([0.5], abs=0.1)  # a tenth of the way to 5
    assert "frozen, it stays: True" in read.text
    assert "EfficientNetV2B0" in read.printed[-1].split()  # which the page takes for an example
    (frozen,) = read.numbers(r"^Stage 1: validation log loss (.*) with C = ")
    if WEIGHTS or not course.real:  # else random ones stand for both
        taught = re.escape(read.names["WEIGHTS"])
        lines = (rf"^{weights}: 1280 features, (.*)% right .* log loss (.*)$" for weights in ("random", taught))
        (_, guessed), (right, loss) = map(read.numbers, lines)
        assert right > (85 if course.real else 65) and loss < 0.65 < guessed
        assert course.scores("transfer")["log_loss"]["value"] < frozen or course.real


@pytest.mark.long
def test_scores(course):
    read = course[5]
    scores = course.scores("evidence", "test")
    assert str(np.array(scores["confusion_matrix"])) in read.text
    rates = np.array([read.numbers(rf"^from {t}: true positive rate (.*), false (.*)$") for t in (0.1, 0.5, 0.9)])
    assert (np.diff(rates, axis=0) <= 0).all() and rates[0, 0] > rates[0, 1]
    area, pairs = read.numbers(r"^ROC AUC (.*)\n(.*)$")
    assert area == pytest.approx(pairs, abs=1e-9)
    low, high = read.numbers(r"^\[(0\.\d+) +(\d\.\d*) *\]$")
    assert [low, high] == pytest.approx([scores["accuracy"]["low"], scores["accuracy"]["high"]], abs=0.02)
    assert re.search(r"'only_first': \d+, 'only_second': \d+, 'p': ", read.text)
    np.testing.assert_allclose(read.names["sigmoid"], read.names["two"][:, 1], atol=1e-12)  # one unit and two


@pytest.mark.long
def test_out(course):
    read = course[5]
    assert np.abs(read.names["onnx"].predict_tensors(read.names["pixels"])[0]).max() > 1
    assert len([*(course.runs / "held-out").rglob("*.png")]) == 20
    assert "agreement.json" in read.text and "Published: " in read.text and "onnx/model.onnx" in read.text
    assert "## Results" in read.printed[-1]


# A stranger's photos ----------------------------------------------------------------------------------------

LABELS = ["Wild rose", "Gänseblümchen", "it's a weed", "no. 5 & co", "[unknown] 100%"]


def draw(label: int, number: int) -> Image.Image:
    """One of five kinds, told by shape and colour, at a random place on a noisy ground."""
    random = np.random.default_rng([label, number])
    image = Image.fromarray(random.integers(90, 160, (48, 64, 3), np.uint8))
    x, y = (int(v) for v in random.integers(2, 20, 2))
    pen = ImageDraw.Draw(image)
    shape = [pen.ellipse, pen.rectangle][label % 2]
    colour = [(250, 40, 40), (250, 250, 60), (40, 200, 40), (60, 60, 250), (20, 20, 20)][label]
    shape((x, y, x + 24, y + 24), fill=colour)
    return image


def put(folder: Path, names: list[str], pictures: int) -> Path:
    """A folder a label, with so many pictures in each."""
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(pictures):
            draw(label, number).save(folder / name / f"IMG {number}.png")
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> tuple[Reader, Read]:
    """The page, read by somebody with five labels of odd names; their backbone comes from the released model."""
    folder = tmp_path_factory.mktemp("own")
    put(folder / "my photos", LABELS, 20)
    with contextlib.chdir(folder):
        python(blocks(LESSONS[4])[0][1], {})
    small = ("--backbone-weights", "runs/cats_and_dogs.weights.h5", "--set", "size=64", "--set", "epochs=1")
    reader = Reader(folder, {}, {("training", "fit"): small})
    return reader, reader.read(OWN)


@pytest.mark.long
def test_a_strangers_photos(own):
    reader, read = own
    assert read.numbers(r"^20 held out: 90 % ± (.*) points$") == [13]  # 1.96 √(0.9 · 0.1 / 20)
    assert re.search(r"^my photos: 100 pictures: ", read.text, re.MULTILINE)
    classifier = ImageClassifier.from_pretrained(reader.folder / "runs" / "mine" / "bundle")
    assert classifier.labels == sorted(LABELS)
    answers = classifier.predict([draw(label, 1000 + number) for label in range(5) for number in range(4)])
    right = [answer.label == LABELS[i // 4] for i, answer in enumerate(answers)]
    assert np.mean(right) > 0.6
    for page in ("runs/look/index.html", "runs/mine/report.html"):
        text = (reader.folder / page).read_text(encoding="utf-8")
        assert "Gänseblümchen" in text and "no. 5 &amp; co" in text and "no. 5 & co" not in text
    answer = json.loads(next(line for line in read.printed if line.startswith("{")))
    assert answer["labels"] == sorted(LABELS) and answer["results"][0]["label"] in LABELS


@pytest.mark.long
def test_what_the_terminal_says_is_explained(own):
    _, read = own
    rows = re.findall(r"^\| `([^`]+)` \|", section("4. Train"), re.MULTILINE)
    assert len(rows) == 5
    for row in rows:
        assert re.search(re.escape(row).replace("…", ".*"), read.text), row


def section(title: str) -> str:
    """A section of the page."""
    return re.split(r"^## ", OWN.read_text(encoding="utf-8").partition(f"## {title}\n")[2], flags=re.MULTILINE)[0]


def refusal(folder: Path, *arguments: str) -> str:
    """The sentence by which a command is refused in a folder."""
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        done = CliRunner().invoke(training.cli.app, arguments)
    assert isinstance(done.exception, Refusal), done.output
    return str(done.exception)


@pytest.mark.long
def test_every_refusal_that_the_page_explains(own, tmp_path):
    fit = ["fit", "your_own", "--data", "my photos"]

    def with_photos(name: str, fill) -> Path:
        fill(tmp_path / name / "my photos")
        return tmp_path / name

    def broken(photos: Path) -> None:
        for path in put(photos, ["a", "b"], 2).rglob("*.png"):
            path.write_bytes(b"no picture")

    def table(photos: Path) -> None:
        photos.mkdir(parents=True)
        cells = [{"bytes": encode(draw(k, k), "PNG"), "path": None} for k in range(2)]
        pq.write_table(pa.table({"image": cells, "title": ["a", "b"]}), photos / "train.parquet")

    reader, _ = own
    more = with_photos("more", lambda photos: shutil.copytree(reader.folder / "my photos", photos))
    shutil.copytree(reader.folder / "runs", more / "runs")
    draw(0, 99).save(more / "my photos" / LABELS[0] / "new.png")
    few = with_photos("few", lambda photos: put(photos, ["a", "b"], 2))
    said = [
        refusal(tmp_path, *fit[:2]),
        refusal(tmp_path, *fit[:2], "--data", "./my fotos"),
        refusal(with_photos("empty", lambda photos: photos.mkdir(parents=True)), *fit),
        refusal(with_photos("flat", lambda photos: put(photos, ["."], 2)), *fit),
        refusal(with_photos("nested", lambda photos: put(photos, ["cat/siamese", "dog/poodle"], 2)), *fit),
        refusal(with_photos("extra", lambda photos: put(photos, ["train/a", "train/b", "extra/a"], 2)), *fit),
        refusal(with_photos("table", table), *fit),
        refusal(with_photos("broken", broken), *fit),
        refusal(few, *fit, "--set", "validation_share=0.01"),
        refusal(more, *fit, "--run", "runs/mine", *reader.extra["training", "fit"]),
        "Training diverged",  # provoked in tests/training/test_fit.py
        refusal(reader.folder, *fit, "--backbone-weights", "none.h5", "--run", "runs/other"),
    ]
    explained = re.findall(r"^\| `([^`]+)` \|", section("When it refuses"), re.MULTILINE)
    assert [next((row for row in explained if sentence.startswith(row)), sentence) for sentence in said] == [*explained]


def test_what_the_page_says_of_files(tmp_path):
    page = section("1. One folder per label")
    kinds = re.search(r"JPEG.* or BMP", page, re.DOTALL)[0].replace(" or ", ", ").split(", ")
    assert len(kinds) == 9
    for kind in kinds:
        pillow = {"HEIC": "HEIF", "JPEG 2000": "JPEG2000"}.get(kind, kind)
        assert open_image(encode(draw(0, 1), pillow)).size == (64, 48)
    photos = put(tmp_path / "my photos", ["crash test", "other"], 3)
    (photos / "other" / "IMG_1.HEIC").write_bytes(encode(draw(0, 1), "HEIF"))
    (photos / "other" / "IMG_2.CR2").write_bytes(b"II*\0\x10\0\0\0CR\2\0")
    found = load_photos(photos, 32, cache=tmp_path, progress=False)
    assert len(found) == 7 and any("raw" in problem["detail"] for problem in found.problems)
