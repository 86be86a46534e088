"""Many pictures at once: what is answered, what is kept, what is not."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from hub import ImageClassifier
from hub.cli import app
from hub.heatmaps import layer, shown_map
from space import guards, many, visits
from space.languages import LANGUAGES, Say
from space.many import Run
from tests.space.conftest import Visitor, file_data, served

ENGLISH = Say("en")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, photos) -> Path:
    """A folder of 40 files: 37 photos, and three that cannot be read."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, pixels in enumerate(photos):
        Image.fromarray(pixels).resize((60 + number, 48)).save(folder / f"{number:02} photo.png")
    (folder / "03 photo.png").write_text("Dear diary")
    (folder / "20 photo.png").write_bytes((folder / "21 photo.png").read_bytes()[:500])
    (folder / "39 photo.png").write_bytes(b"")
    return folder


@pytest.fixture
def uploads():
    """A fresh upload folder."""
    with guards.upload_folder() as folder:
        yield folder


def uploaded(files: list[Path], uploads: Path) -> list[tuple[Path, str]]:
    """Copies of files as Gradio leaves them: in a folder named by the content, under another name."""
    pairs = []
    for number, file in enumerate(files):
        (uploads / f"{number}").mkdir()
        pairs.append((Path(shutil.copy(file, uploads / f"{number}" / "upload.bin")), file.name))
    return pairs


def left(uploads: Path) -> int:
    """How many files lie in the upload folder."""
    return sum(path.is_file() for path in uploads.rglob("*"))


def answered(run: Run, classifier: ImageClassifier, say: Say = ENGLISH) -> tuple[list[dict], str]:
    """All rows of a run and its CSV, as the browser collects them."""
    rows, csv = [], json.loads(run.start(classifier, say))["csv"]
    while len(rows) < len(run.items):
        message = json.loads(run.step(classifier, say, len(rows)))
        rows, csv = rows + message["rows"], csv + message["csv"]
    return rows, csv


def by_hub(bundle: Path, folder: Path, out: Path, *names: str) -> str:
    """What `python -m hub predict` writes for files of a folder that it is called in."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        CliRunner().invoke(app, ["predict", *names, "--model", str(bundle), "--out", str(out)])
    finally:
        os.chdir(before)
    return out.read_bytes().decode()


@pytest.mark.parametrize(
    ("probabilities", "margin", "verdict"),
    [
        ([0.953125, 0.046875], 0.90625, "sure"),
        ([0.0546875, 0.9453125], 0.890625, "likely"),
        ([0.25, 0.75], 0.5, "likely"),
        ([0.5, 0.5], 0, "doubt"),
        ([0.25, 0.5, 0.25], 0.25, "doubt"),
        ([0.0, 0.03125, 0.96875], 0.9375, "sure"),
    ],
)
def test_the_verdict_is_read_off_the_margin(probabilities, margin, verdict):
    found = many.margin_of(np.array(probabilities))
    assert found == pytest.approx(margin, abs=1e-15)
    assert many.verdict(found) == verdict


def test_40_files_with_broken_ones_are_rows_and_their_uploads_are_gone_batch_by_batch(
    uploads, pictures, bundle_2, classifier_2, tmp_path
):
    files = sorted(pictures.iterdir())
    run = Run(uploaded(files, uploads))
    assert left(uploads) == 40
    first = json.loads(run.step(classifier_2, ENGLISH, 0))
    assert (first["done"], len(first["rows"]), left(uploads)) == (32, 32, 8)
    second = json.loads(run.step(classifier_2, ENGLISH, 32))
    assert (second["done"], len(second["rows"]), left(uploads)) == (40, 8, 0)
    last = json.loads(run.step(classifier_2, ENGLISH, 40))
    assert last["rows"] == [] and not list(uploads.glob("many-*"))
    rows = first["rows"] + second["rows"]
    assert [row["file"] for row in rows] == [file.name for file in files]
    errors = {row["file"]: row["error"] for row in rows if "error" in row}
    assert errors == {
        "03 photo.png": "03 photo.png is text, not a picture; save it as JPEG or PNG and try again.",
        "20 photo.png": "20 photo.png is cut short; copy or download it again.",
        "39 photo.png": "39 photo.png is empty (0 bytes); copy or download it again.",
    }
    header = json.loads(run.start(classifier_2, ENGLISH))["csv"]
    by_hand = by_hub(bundle_2, pictures, tmp_path / "x.csv", *(file.name for file in files))
    assert header + first["csv"] + second["csv"] == by_hand
    assert len(by_hand.splitlines()) == 41


def test_a_row_is_what_the_model_says_and_small(uploads, pictures, classifier_2):
    file = pictures / "07 photo.png"
    [row], _ = answered(Run(uploaded([file], uploads)), classifier_2)
    prediction = classifier_2.predict(file)
    first, second = sorted(map(float, prediction.probabilities), reverse=True)
    assert row["label"] == prediction.label
    assert row["margin"] == pytest.approx(first - second)
    assert row["share"] == f"{100 * first:.1f}\N{NO-BREAK SPACE}%" and row["difference"] == f"{first - second:.3f}"
    assert [label for label, _ in row["shares"]] == sorted(classifier_2.labels, key=lambda label: label != row["label"])
    assert len(row["thumbnail"]) < 4096
    shown = layer(
        shown_map(prediction.evidence, classifier_2.labels.index(row["label"])),
        (many.MAP, many.MAP),
        classifier_2.evidence_scale,
    )
    with urllib.request.urlopen(row["map"]) as content:
        assert np.array_equal(np.asarray(Image.open(content)), np.asarray(shown))
    with urllib.request.urlopen(row["picture"]) as content:
        assert Image.open(content).size == (67, 48)


def test_a_zip_is_answered_as_its_unpacked_folder_is(uploads, pictures, bundle_3, classifier_3, tmp_path):
    names = [f"trip/{number:02} photo.png" for number in (2, 3, 20, 25)]
    with zipfile.ZipFile(tmp_path / "trip.zip", "w") as file:
        for name in names:
            file.write(pictures / Path(name).name, name)
        file.writestr("trip/notes.txt", "Dear diary")
        file.writestr("__MACOSX/trip/._02 photo.png", "x")
    run = Run(uploaded([tmp_path / "trip.zip"], uploads))
    start = json.loads(run.start(classifier_3, ENGLISH))
    assert start["notes"] == [ENGLISH.plain("many.skipped", zip="trip.zip", count=1, files="trip/notes.txt")]
    rows, csv = answered(run, classifier_3)
    (tmp_path / "here").mkdir()
    zipfile.ZipFile(tmp_path / "trip.zip").extractall(tmp_path / "here")
    assert csv == by_hub(bundle_3, tmp_path / "here", tmp_path / "x.csv", "trip")
    read = [row for row in rows if "error" not in row]
    assert [row["file"] for row in rows] == names and len(read) == 2
    assert {label for row in read for label, _ in row["shares"]} == {"cat", "dog", "fox"}
    assert read[0]["colours"] == ENGLISH.plain("many.colours_more", label=read[0]["label"])


def test_several_zips_are_told_apart_and_what_is_wrong_with_one_is_a_row(uploads, pictures, classifier_2, tmp_path):
    for name in ("a.zip", "B.ZIP"):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            file.write(pictures / "00 photo.png", "x.png")
            file.writestr("inner.zip", b"PK")
    (tmp_path / "c.zip").write_bytes(b"PK\3\4")
    files = [tmp_path / "a.zip", tmp_path / "B.ZIP", tmp_path / "c.zip", pictures / "01 photo.png"]
    rows, _ = answered(Run(uploaded(files, uploads)), classifier_2)
    assert [row["file"] for row in rows] == [
        "a.zip/x.png", "a.zip/inner.zip", "B.ZIP/x.png", "B.ZIP/inner.zip", "c.zip", "01 photo.png",
    ]  # fmt: skip
    assert [row.get("error", "")[:34] for row in rows[1::3]] == [
        "inner.zip is a zip inside a zip; s",
        "c.zip is broken or no zip and cann",
    ]


def test_a_drop_is_bounded(uploads, pictures, classifier_2, tmp_path):
    with zipfile.ZipFile(tmp_path / "much.zip", "w") as file:
        for number in range(600):
            file.writestr(f"{number}.png", b"")
    [path] = [path for path, _ in uploaded([tmp_path / "much.zip"], uploads)]
    run = Run([(pictures / "missing.png", "gone.png"), (path, "much.zip"), (path, "photo.png")])
    assert len(run.items) == many.MOST
    [note] = json.loads(run.start(classifier_2, ENGLISH))["notes"]
    assert note == ENGLISH.plain("many.too_many", found=602, most=500)
    assert (
        json.loads(run.step(classifier_2, ENGLISH, 0))["rows"][0]["error"]
        == "gone.png is no longer here; send it again."
    )
    run.close()
    (uploads / "again.zip").write_bytes((tmp_path / "much.zip").read_bytes())
    run = Run([(uploads / "again.zip", f"{number}.zip") for number in range(2000)])
    assert run.found > 12_000 and len(run._archives) == many.ZIPS
    run.close()
    (uploads / "large.jpg").write_bytes(bytes(many.ENTRY + 1))
    [row], _ = answered(Run([(uploads / "large.jpg", "large.jpg")]), classifier_2)
    assert row["error"] == "large.jpg is larger than 32 MB; make it smaller and try again."


def test_nothing_to_answer_is_said(uploads, classifier_2, tmp_path):
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    start = json.loads(Run(uploaded([tmp_path / "empty.zip"], uploads)).start(classifier_2, ENGLISH))
    assert (start["total"], start["notes"]) == (0, [ENGLISH.plain("many.nothing")])


def test_a_file_that_was_dropped_twice_is_answered_twice(uploads, pictures, classifier_2):
    [(path, _)] = uploaded([pictures / "00 photo.png"], uploads)
    rows, _ = answered(Run([(path, f"{number}.png") for number in range(40)]), classifier_2)
    assert {row["label"] for row in rows} == {classifier_2.predict(pictures / "00 photo.png").label}
    assert left(uploads) == 0


def test_an_answer_that_was_lost_is_sent_again_and_nothing_else_is(uploads, pictures, classifier_2):
    run = Run(uploaded(sorted(pictures.iterdir()), uploads))
    first = run.step(classifier_2, ENGLISH, 0)
    assert run.step(classifier_2, ENGLISH, 0) == first
    for wrong in (1, 33, -1, None, "32", [32], {}):
        assert run.step(classifier_2, ENGLISH, wrong) is None
    run.close()
    assert run.step(classifier_2, ENGLISH, 32) is None
    assert left(uploads) == 0


def test_a_head_without_evidence_has_no_map(uploads, pictures, classic):
    rows, csv = answered(Run(uploaded([pictures / "00 photo.png"], uploads)), classic)
    assert rows[0]["map"] is None and rows[0]["picture"].startswith("data:image/jpeg")
    assert csv.splitlines()[0] == "file,label,probability,probability_cat,probability_dog,logits,error"


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_its_numbers_and_all_that_the_script_names(uploads, pictures, classifier_2, language):
    run = Run(uploaded([pictures / "00 photo.png"], uploads))
    start = json.loads(run.start(classifier_2, Say(language)))
    script = (Path(many.__file__).parent / "static" / "many.js").read_text()
    named = set(re.findall(r"texts\.(\w+)", script)) | set(
        re.findall(r"COLUMNS = \[(.*?)\]", script)[0].replace('"', "").split(", ")
    )
    assert len(named) > 30 and named <= set(start["texts"])
    comma = "," if language in ("de", "es") else "."
    assert f"0{comma}90" in start["texts"]["meaning"] and f"0{comma}50" in start["texts"]["meaning"]
    [row] = json.loads(run.step(classifier_2, Say(language), 0))["rows"]
    assert re.fullmatch(rf"[<>]?\d+{comma}\d\N{{NO-BREAK SPACE}}%", row["share"])


def test_names_cannot_break_out_of_the_message(uploads, pictures, classifier_2):
    [(path, _)] = uploaded([pictures / "00 photo.png"], uploads)
    message = Run([(path, "<script>alert(1)</script>.png")]).step(classifier_2, ENGLISH, 0)
    assert "<" not in message and json.loads(message)["rows"][0]["file"] == "<script>alert(1)</script>.png"


# ---------------------------------------------------------------- through the page


@pytest.fixture(scope="module")
def address(classifier_2):
    with served(classifier_2) as address:
        yield address


def drop(visitor: Visitor, files: list[Path]) -> dict:
    """Drop files; return the message that opens the table."""
    data = [file_data(visitor.upload(file.name, file.read_bytes()), orig_name=file.name) for file in files]
    ended = visitor.send("many-files", data, None)
    assert ended["success"]
    return json.loads(ended["output"]["data"][1])


def ask(visitor: Visitor, **data) -> dict:
    """Ask for the next rows."""
    ended = visitor.send("many-table", None, event=data)
    assert ended["success"]
    [value] = ended["output"]["data"]
    return json.loads(value) if isinstance(value, str) else value


def test_a_visitor_gets_rows_and_nobody_else_does(address, pictures):
    visitor, other = Visitor(address), Visitor(address)
    start = drop(visitor, [pictures / "00 photo.png", pictures / "03 photo.png"])
    refused = ask(other, run=start["run"], done=0)
    assert refused["kind"] == "failed" and "no longer" in refused["error"]
    for odd in ({}, {"run": start["run"]}, {"run": start["run"], "done": "0"}):
        assert "rows" not in ask(visitor, **odd)
    rows = ask(visitor, run=start["run"], done=0)["rows"]
    assert [row["file"] for row in rows] == ["00 photo.png", "03 photo.png"]
    assert "error" in rows[1]
    other.send("many-files", [file_data("/etc/passwd", orig_name="x.zip")], None)
    assert "rows" not in ask(other, run="x", done=0)


def test_who_leaves_leaves_nothing(address, pictures, monkeypatch):
    monkeypatch.setattr(visits, "LEAVE_AFTER", 0.1)
    visitor = Visitor(address)
    heartbeat = urllib.request.urlopen(f"{visitor.api}/heartbeat/{visitor.session}")
    heartbeat.readline()
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    before = set(folder.glob("many-*"))
    drop(visitor, sorted(pictures.iterdir())[:3])
    assert len(set(folder.glob("many-*")) - before) == 1
    heartbeat.close()
    ends = time.monotonic() + 10
    while set(folder.glob("many-*")) - before:
        assert time.monotonic() < ends, "the uploads are still there"
        time.sleep(0.02)
