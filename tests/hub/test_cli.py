"""The commands of `python -m hub`: what they print, what they exit with, and that a script can rely on both."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from onnx import numpy_helper
from PIL import Image
from typer.testing import CliRunner

from hub import ImageClassifier, bundle
from hub.agreement import read_agreement
from hub.cli import app
from hub.files import sha256
from hub.scores import percent
from tests.hub_server import HubServer
from tests.pictures import encode, scene

ROOT = Path(__file__).parents[2]
COMMANDS = ["import", "predict", "export", "verify", "push", "pull", "card"]
DERIVED = ["keras-folder", "transformers", "litert", "transformers.js"]  # slow to make, and tested elsewhere
WITHOUT = [part for name in DERIVED for part in ("--without", name)]
# The Hub's client reads its environment when it is imported, so its commands run in a process of their own.
WORKER = """
import json, sys
from typer.testing import CliRunner
from hub.cli import app
for arguments in json.load(sys.stdin):
    result = CliRunner().invoke(app, arguments)
    print(json.dumps([result.exit_code, result.stdout, result.stderr]), flush=True)
"""


def run(*arguments, code=0, given=None):
    """What a command prints on standard output and on standard error."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False, input=given)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


@pytest.fixture
def folder(tmp_path, photos) -> Path:
    """Four photos in two folders, and a file that is none."""
    folder = tmp_path / "photos"
    for index, name in enumerate(["1.png", "2.png", "more/3.png", "more/4.png"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photos[index]).save(folder / name)
    (folder / "notes.txt").write_text("Dear diary")
    return folder


@pytest.fixture
def copied(tmp_path, bundle_2) -> Path:
    """A bundle that a test may change."""
    folder = tmp_path / "bundle"
    for path in bundle_2.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(bundle_2)).parent.mkdir(parents=True, exist_ok=True)
            (folder / path.relative_to(bundle_2)).write_bytes(path.read_bytes())
    return folder


# ---------------------------------------------------------------- help and start-up


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_explains_every_option(command):
    printed, _ = run(command, "--help")
    assert f"python -m hub {command} " in printed
    params = typer.main.get_command(app).commands[command].params
    assert all(param.help for param in params if "--help" not in param.opts)
    assert "--json" in printed
    assert command in run("--help")[0]


def test_it_starts_at_once_and_without_tensorflow():
    code = "import sys, hub.cli; print([m for m in ('tensorflow', 'keras', 'torch', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "hub", "--help"], capture_output=True, text=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and "predict" in done.stdout and not done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1  # seconds, whatever else runs


def test_the_package_does_not_need_typer():
    code = "import sys; sys.modules['typer'] = None; import hub, hub.batch; from hub.__main__ import main"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (2, "The commands need the package typer; pip install typer.\n")


# ---------------------------------------------------------------- predict


def test_a_line_for_each_picture(bundle_2, folder):
    printed, complaints = run("predict", folder, folder / "1.png", "--model", bundle_2)
    expected = ImageClassifier.from_pretrained(bundle_2).predict([folder / n for n in ("1.png", "2.png", "more/3.png")])
    lines = printed.splitlines()
    assert len(lines) == 4 and not complaints
    for line, name, found in zip(lines, ["1.png", "2.png", "more/3.png"], expected, strict=False):
        label, *share, file = line.split()
        assert (label, file) == (found.label, str(folder / name))
        assert " ".join(share) == percent(found.probabilities.max())


def test_the_embedded_model_answers_without_being_named(folder):
    printed, _ = run("predict", folder / "1.png")
    assert printed.split()[0] in ("cat", "dog")


def test_unreadable_pictures_are_listed_at_the_end(bundle_2, folder):
    (folder / "0.png").write_bytes(b"")
    printed, complaints = run("predict", folder, folder / "no-such.png", "--model", bundle_2, code=1)
    assert len(printed.splitlines()) == 4
    assert complaints.splitlines() == [
        "2 pictures could not be read:",
        f"  {folder}/0.png: 0.png is empty (0 bytes); copy or download it again.",
        f"  {folder}/no-such.png: no-such.png does not exist; check the path.",
    ]


def test_json_lines_for_a_script(bundle_2, folder):
    (folder / "0.png").write_bytes(b"")
    pattern = folder / "**" / "*.png"
    printed, _ = run("predict", pattern, "--model", bundle_2, "--json", code=1)
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [Path(row["file"]).name for row in rows] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert rows[0]["error"].startswith("0.png is empty") and rows[0]["label"] is None
    found = ImageClassifier.from_pretrained(bundle_2).predict([row["file"] for row in rows[1:]])
    for row, expected in zip(rows[1:], found, strict=True):
        assert (row["probability_cat"], row["probability_dog"]) == tuple(expected.probabilities.tolist())
        assert np.shape(row["evidence"]) == (4, 4, 2) and row["evidence"] == expected.evidence.tolist()


def test_json_says_what_was_written(bundle_2, folder, tmp_path):
    (folder / "0.png").write_bytes(b"")
    out = tmp_path / "answers.csv"
    printed, _ = run("predict", folder, "--model", bundle_2, "--out", out, "--no-evidence", "--json", code=1)
    outcome = json.loads(printed)
    assert outcome == {
        "out": str(out), "model": bundle_2.name, "pictures": 5, "answered": 4,
        "unreadable": [
            {"file": f"{folder}/0.png", "error": "0.png is empty (0 bytes); copy or download it again."}
        ],
        "skipped": [],
    }  # fmt: skip
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] == "" for row in rows] == [True, False, False, False, False]
    assert "evidence" not in rows[0]
    printed, _ = run("predict", folder / "1.png", "--model", bundle_2, "--out", out)
    assert printed == f"1 answered by {bundle_2.name}, 0 not; written to {out}.\n"


def test_a_row_for_every_file_that_looks_meant(bundle_2, tmp_path):
    """Formats mixed as people have them: what is read is answered, what is not is told, and the numbers add up."""
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name, kind in (("a.jpg", "JPEG"), ("b.tif", "TIFF"), ("c.jp2", "JPEG2000"), ("e.HEIC", "HEIF"), ("f", "PNG")):
        (mixed / name).write_bytes(encode(scene(32, 32), kind))
    (mixed / "d.jxl").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(200))
    (mixed / "g.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    (mixed / "notes.txt").write_text("no picture")
    out = tmp_path / "answers.csv"
    printed, complaints = run("predict", mixed, "--model", bundle_2, "--out", out, code=1)
    assert printed.startswith("5 answered by") and ", 2 not;" in printed
    assert "2 files skipped:" in complaints and "d.jxl is a JPEG XL picture, which is not read; save it" in complaints
    with open(out, newline="") as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    assert list(rows) == ["a.jpg", "b.tif", "c.jp2", "e.HEIC", "f", "d.jxl", "g.mov"]
    assert [name for name, row in rows.items() if not row["label"]] == ["d.jxl", "g.mov"]
    assert "video" in rows["g.mov"]["error"]
    printed, _ = run("predict", mixed / "d.jxl", mixed / "a.jpg", "--model", bundle_2, "--json", code=1)
    named = [json.loads(line) for line in printed.splitlines()]
    assert [row["label"] is None for row in named] == [True, False] and "JPEG XL" in named[0]["error"]


def test_a_list_from_another_program(bundle_2, folder):
    printed, _ = run("predict", "-", "--model", bundle_2, given=f"{folder / '2.png'}\n{folder / '1.png'}\n")
    assert [line.split()[-1] for line in printed.splitlines()] == [str(folder / "2.png"), str(folder / "1.png")]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["empty"], "holds no picture"),
        (["*.gif"], "Nothing matches"),
        (["no-such.png"], "There is no file or folder"),
        (["1.png", "--model", "./no-such-model"], "There is no folder ./no-such-model"),
        (["1.png", "--runtime", "onxn"], "did you mean onnx"),
        (["1.png", "--out", "answers.xls"], "end it in .csv, .jsonl, .parquet"),
    ],
)
def test_a_refusal_is_one_sentence_and_exit_code_2(folder, arguments, sentence, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    printed, complaint = run("predict", *arguments, code=2)
    assert not printed
    assert sentence in complaint and complaint.count("\n") == 1


def test_ctrl_c_keeps_what_is_answered(bundle_2, tmp_path):
    """A real process and a real signal: whole rows in NAME.part.csv, nothing under the name itself."""
    noise = np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "0000.jpg")
    for index in range(1, 3000):
        os.link(tmp_path / "0000.jpg", tmp_path / f"{index:04}.jpg")
    out, part = tmp_path / "answers.csv", tmp_path / "answers.part.csv"
    command = [sys.executable, "-m", "hub", "predict", str(tmp_path), "--model", str(bundle_2), "--out", str(out)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not (part.exists() and part.read_bytes().count(b"\n") > 40):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        printed, complaint = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    with open(part, newline="") as file:
        rows = list(csv.DictReader(file))
    assert complaint == f"Interrupted: what was answered (pictures: {len(rows):,}) is kept in {part}.\n"
    assert not printed and not out.exists()
    assert len(rows) % 32 == 0 and 32 <= len(rows) < 3000
    assert [Path(row["file"]).name for row in rows] == [f"{index:04}.jpg" for index in range(len(rows))]
    assert np.shape(json.loads(rows[-1]["evidence"])) == (4, 4, 2)


# ---------------------------------------------------------------- export, card


def test_export_writes_the_published_layout(bundle_2, tmp_path):
    printed, _ = run("export", bundle_2, tmp_path / "out", *WITHOUT, "--json")
    outcome = json.loads(printed)
    there = {p.relative_to(tmp_path / "out").as_posix(): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert outcome["files"] == {name: path.stat().st_size for name, path in there.items()}
    assert {bundle.KERAS, bundle.ONNX, bundle.CONFIG, bundle.CARD, bundle.LABELS} <= there.keys()
    assert outcome["left_out"].keys() >= {"litert", "transformers"}
    ImageClassifier.from_pretrained(tmp_path / "out")
    printed, _ = run("export", bundle_2, tmp_path / "out", *WITHOUT)  # replaced; listed for a person
    assert f"{bundle.ONNX} " in printed and "kB" in printed and "Without litert: left out on request." in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--without", "lightrt"], "did you mean litert"),
        (["--without", "onnx"], "cannot be left out"),
    ],
)
def test_export_refuses(bundle_2, tmp_path, arguments, sentence):
    _, complaint = run("export", bundle_2, tmp_path / "out", *arguments, code=2)
    assert sentence in complaint and not (tmp_path / "out").exists()


def test_export_replaces_nobodys_other_files(bundle_2, folder):
    _, complaint = run("export", bundle_2, folder, *WITHOUT, code=2)
    assert "choose another folder" in complaint and (folder / "1.png").exists()


def test_card_prints_checks_and_writes(copied):
    printed, _ = run("card", copied)
    assert printed == (copied / bundle.CARD).read_text(encoding="utf-8")
    assert json.loads(run("card", copied, "--check", "--json")[0]) == {"same": True}
    lines = printed.splitlines(keepends=True)
    edited = "".join([*lines[:9], "The best model ever.\n", *lines[9:]])
    (copied / bundle.CARD).write_text(edited, encoding="utf-8")
    printed, complaint = run("card", copied, "--check", code=1)
    assert "first in line 10: it has “The best model ever.” for" in complaint and not printed
    found = json.loads(run("card", copied, "--check", "--json", code=1)[0])
    assert (found["same"], found["line"], found["has"]) == (False, 10, "The best model ever.")
    assert found["should"] == lines[9].rstrip("\n")
    run("card", copied, "--write")
    assert "is what its results render" in run("card", copied, "--check")[0]
    (copied / bundle.CARD).write_text("".join(lines[:-1]), encoding="utf-8")
    assert f"first in line {len(lines)}" in run("card", copied, "--check", code=1)[1]
    assert "two commands" in run("card", copied, "--check", "--write", code=2)[1]


def test_card_names_the_model_as_it_will_be_called(bundle_2):
    assert "someone/cats" in run("card", bundle_2, "--repo-id", "someone/cats")[0]
    assert "pull a model of the Hub first" in run("card", "someone/cats", "--write", code=2)[1]


# ---------------------------------------------------------------- verify, push, pull


@pytest.fixture(scope="module")
def verified(bundle_2, photos, tmp_path_factory):
    """A bundle whose ONNX file says something else than its Keras file, what verify said, and its mended copy."""
    place = tmp_path_factory.mktemp("verified")
    folders = [place / "broken", place / "mended"]
    for folder in folders:
        (folder / "onnx").mkdir(parents=True)
        for path in bundle_2.rglob("*"):
            if path.is_file():
                (folder / path.relative_to(bundle_2)).write_bytes(path.read_bytes())
    graph = onnx.load(folders[0] / bundle.ONNX)
    weight = max(graph.graph.initializer, key=lambda one: np.prod(one.dims))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
    onnx.save(graph, folders[0] / bundle.ONNX)
    (place / "photos").mkdir()
    for index in range(3):
        Image.fromarray(photos[index]).save(place / "photos" / f"{index}.png")
    (place / "photos" / "3.png").write_bytes(b"")
    arguments = ["--photos", place / "photos", "--title", "drawn photos", *WITHOUT]
    said = run("verify", folders[0], *arguments, code=1)
    found = read_agreement(folders[0]).to_json()
    row = found["runtimes"]["onnx"]
    row["same_tensor"] = dict.fromkeys(row["same_tensor"], 0.0)
    found["files"][bundle.ONNX] = sha256(folders[1] / bundle.ONNX)
    bundle.write_json(folders[1], bundle.AGREEMENT, found)
    return *folders, said


def test_verify_prints_both_tables_and_exits_with_1_where_a_runtime_disagrees(verified):
    broken, _, (printed, complaint) = verified
    row = read_agreement(broken).runtimes["onnx"]
    assert row.same_tensor.probability > 1e-4
    lines = [line for line in printed.splitlines() if line.startswith("ONNX Runtime")]
    assert len(lines) == 2
    assert f"{row.same_tensor.probability:.1e}" in lines[0] and "onnxruntime" in lines[0]
    assert f"{row.same_file.largest_photo:.1e}" in lines[1]
    assert "on 3 drawn photos (1 more could not be read)" in printed
    assert "Without litert: left out on request." in printed
    assert complaint.startswith("ONNX Runtime: ") and "differs from Keras by" in complaint
    assert "drawn photos" in (broken / bundle.CARD).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--photos", "no-such"], "There is no file or folder"),
        (["--photos", "1.png", "--using", "onnx"], "onnx is not RUNTIME=PATH"),
        (["--photos", "1.png", "--without", "tflite"], "did you mean litert"),
    ],
)
def test_verify_refuses(bundle_2, folder, monkeypatch, arguments, sentence):
    monkeypatch.chdir(folder)
    assert sentence in run("verify", bundle_2, *arguments, code=2)[1]
    assert not (bundle_2 / bundle.AGREEMENT).exists()


def test_verify_of_a_name_on_the_hub_says_to_pull_it():
    assert "pull a model of the Hub first" in run("verify", "someone/cats", "--photos", "x", code=2)[1]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_push_and_pull(verified, bundle_2, folder, tmp_path):
    broken, mended, _ = verified
    (tmp_path / "strangers").mkdir()
    (tmp_path / "strangers" / "thesis.tex").write_text("mine")
    small, whole = tmp_path / "small", tmp_path / "whole"
    commands = [
        ["push", bundle_2, "tester/model"],
        ["push", broken, "tester/model"],
        ["push", mended, "tester/model", "--private", "--message", "Three photos", "--json"],
        ["push", mended, "stranger/model"],
        ["pull", "tester/model", whole, "--json"],
        ["pull", "tester/model", small, "--runtime", "onnx"],
        ["pull", "tester/model", small, "--runtime", "litert"],
        ["pull", "tester/model", small, "--revision", "no-such"],
        ["pull", "tester/model", tmp_path / "strangers"],
        ["card", "tester/model", "--check"],
        ["predict", folder / "1.png", "--model", "tester/model", "--revision", "main"],
    ]
    with HubServer() as hub:
        kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if key in os.environ}
        given = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_writer"}
        given |= {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(
            [sys.executable, "-c", WORKER], cwd=ROOT, env=kept | given, text=True, capture_output=True,
            input=json.dumps([[str(part) for part in command] for command in commands]),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        repo = hub.repos["tester/model"]
        assert repo.private
        assert [commit.message for commit in repo.commits.values()] == ["initial commit", "Three photos"]
        (newest,) = [commit.oid for commit in repo.commits.values() if commit.message == "Three photos"]
        url = f"{hub.url}/tester/model/commit/{newest}"
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [code for code, _, _ in answers] == [2, 2, 0, 2, 0, 0, 2, 2, 2, 0, 0], answers
    said = [complaint for _, _, complaint in answers]
    assert "was never verified" in said[0] and "differs from Keras" in said[1]
    assert json.loads(answers[2][1]) == {"repo": "tester/model", "url": url}
    assert "belongs to tester" in said[3]
    pulled = contents(whole)
    assert json.loads(answers[4][1]) == {
        "folder": str(whole), "repo": "tester/model", "commit": newest, "files": sorted(pulled),
    }  # fmt: skip
    assert pulled[bundle.KERAS] == (mended / bundle.KERAS).read_bytes() and bundle.AGREEMENT in pulled
    assert contents(small) == {n: c for n, c in pulled.items() if n in [*bundle.RECORD, bundle.ONNX]}
    assert newest[:12] in answers[5][1]
    assert "has no litert/model.tflite" in said[6] and "has no revision no-such" in said[7]
    assert "thesis.tex" in said[8] and contents(tmp_path / "strangers") == {"thesis.tex": b"mine"}
    assert answers[10][1].split()[0] == ImageClassifier.from_pretrained(bundle_2).predict(folder / "1.png").label
