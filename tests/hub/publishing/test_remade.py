"""A push from another machine: a converter writes other bytes there, and what it wrote is checked on the spot."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from hub import bundle
from hub.agreement import Agreement, read_agreement
from hub.config import read_config
from hub.drawn import drawn, kinds
from hub.errors import BundleError
from hub.formats import FORMATS, Answers, batched
from hub.formats.litert import FILE
from hub.publishing import remade, staging
from tests.hub_server import HubServer

ROOT = Path(__file__).parents[3]
OTHER = "5e" * 32  # a hash that no file here has
WITHOUT = ["keras-folder", "openvino"]


def fake(folder: Path, *names: str) -> dict[str, str]:
    """Let agreement.json speak of other files; return the hashes that it had."""
    found = bundle.read_json(folder, bundle.AGREEMENT)
    before = dict(found["files"])
    found["files"] |= dict.fromkeys(names, OTHER)
    bundle.write_json(folder, bundle.AGREEMENT, found)
    return before


@pytest.fixture
def folder(verified_2, tmp_path) -> Path:
    """A verified bundle that a test may change."""
    return shutil.copytree(verified_2, tmp_path / "bundle")


@pytest.mark.long
def test_a_fresh_copy_is_pushed_from_another_machine(folder, tmp_path):
    """The real client sends what this push made, with the record of the comparison; what lay in the bundle never."""
    true = fake(folder, FILE)
    (folder / FILE).parent.mkdir()
    (folder / FILE).write_bytes(b"somebody's own")
    with HubServer() as hub:
        kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if key in os.environ}
        given = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_writer", "CI": "true"}
        given |= {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        command = [sys.executable, "-m", "hub", "push", str(folder), "tester/again"]
        command += [part for name in WITHOUT for part in ("--without", name)]
        done = subprocess.run(command, cwd=ROOT, env=kept | given, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        files = hub.repos["tester/again"].at("main").files
        pushed = {name: hub.blobs[file.sha256 or file.oid] for name, file in files.items()}
    (tmp_path / "pushed").mkdir()
    (tmp_path / "pushed" / bundle.AGREEMENT).write_bytes(pushed[bundle.AGREEMENT])
    found = read_agreement(tmp_path / "pushed")
    assert found.files[FILE] == true[FILE]
    assert hashlib.sha256(pushed[FILE]).hexdigest() == true[FILE]
    assert found.remade.keys() == {"litert"}
    record = found.remade["litert"]
    assert record.verified == {FILE: OTHER}
    assert record.made_by.keys() == {"tensorflow", "keras"} and record.versions.keys() == {"ai_edge_litert"}
    assert record.processor == remade.processor()
    assert sum(record.pictures.values()) >= 64 and min(record.pictures.values()) > 0
    apart = record.same_tensor
    assert all(0 <= value <= 1e-4 for value in (apart.probability, apart.logits, apart.evidence))
    card = pushed[bundle.CARD].decode()
    assert "LiteRT †" in card and "† LiteRT: the figures in the tables were measured on another file" in card
    assert "ONNX Runtime †" not in card and OTHER in card


@pytest.mark.parametrize(
    ("name", "remedy"),
    [(bundle.KERAS, "python -m hub verify"), (bundle.ONNX, "verify"), ("metadata.json", "--without keras-folder")],
)
def test_what_no_converter_wrote_stays_compared_by_hash(name, remedy, folder, tmp_path):
    """The source, the file that the page answers from, and a copy of the source."""
    fake(folder, name)
    without = ["openvino", "litert", *([] if name == "metadata.json" else ["keras-folder"])]
    with pytest.raises(BundleError, match=f"{name} is not the file that was verified.*{remedy}"):
        staging.prepare(folder, tmp_path / "out", "tester/tiny", without=without)


def test_a_file_that_answers_otherwise_is_not_published(folder, tmp_path):
    """Beside model.keras, the LiteRT file of a network whose head has a little more weight."""
    chosen = [FORMATS["litert"]]
    out = staging.stage(folder, tmp_path / "out", chosen)
    model = keras.saving.load_model(out / bundle.KERAS)
    head = model.get_layer("evidence")
    head.set_weights([head.get_weights()[0] * 1.001])
    model.save(out / bundle.KERAS)
    config = read_config(out)

    def answer(name: str) -> Answers:
        return Answers(*batched(FORMATS[name].start(out, config), drawn(8, 32)), np.zeros((0, 2)), {})

    with pytest.raises(BundleError, match="LiteRT is another file here.* differs from Keras by .*--without litert"):
        remade._record(FORMATS["litert"], answer("keras"), answer("litert"))


def test_whatever_a_converter_writes_may_be_made_again():
    """Of the formats that run here; who wrote it is told."""
    assert {name for name, one in FORMATS.items() if one.converted} == {"transformers", "litert", "openvino"}
    for one in FORMATS.values():
        assert set(one.converted) <= set(one.files) and bool(one.makers) == bool(one.converted)


def test_without_the_runtime_nothing_is_compared(folder, tmp_path, monkeypatch):
    """The sentence says what to install, or what to leave out."""
    monkeypatch.setattr(type(FORMATS["litert"]), "modules", ("no_such_runtime",))
    with pytest.raises(BundleError, match="no no_such_runtime.*install ai-edge-litert, or push --without litert"):
        remade.prove(folder, [FORMATS["litert"]])


def test_a_record_is_kept_until_the_file_is_the_verified_one_again(folder, tmp_path, monkeypatch):
    """Pushed again, the published file is the same: nothing is compared anew. Made as it was verified, none is told."""
    true = fake(folder, FILE)
    record = {"verified": {FILE: OTHER}, "made_by": {"tensorflow": "2"}, "processor": "x", "pictures": {"noise": 64}}
    record |= {"versions": {}, "same_tensor": {"probability": 0.0, "logits": 0.0, "evidence": None}}
    monkeypatch.setattr(staging, "prove", None)  # it would fail if it were asked

    def prepared(files: dict[str, str], verified: str) -> Agreement:
        found = bundle.read_json(folder, bundle.AGREEMENT)
        told = {**found, "files": files, "remade": {"litert": {**record, "verified": {FILE: verified}}}}
        bundle.write_json(folder, bundle.AGREEMENT, told)
        return read_agreement(staging.prepare(folder, tmp_path / "out", "tester/tiny", without=WITHOUT))

    assert prepared(true, OTHER).remade["litert"].verified == {FILE: OTHER}
    again = prepared({**true, FILE: OTHER}, true[FILE])
    assert "remade" not in again.to_json() and again.files[FILE] == true[FILE]


@pytest.mark.parametrize("change", [{"verified": 5}, {"pictures": {"noise": "64"}}, {"processor": None}])
def test_a_record_of_another_form_is_refused(change, folder):
    """As the rest of agreement.json is."""
    record = {"verified": {}, "made_by": {}, "processor": "x", "pictures": {}, "versions": {}}
    record |= {"same_tensor": {"probability": 0.0, "logits": 0.0, "evidence": None}}
    found = bundle.read_json(folder, bundle.AGREEMENT)
    told = {**found, "remade": {"litert": record}}
    bundle.write_json(folder, bundle.AGREEMENT, told)
    assert read_agreement(folder).to_json() == told
    bundle.write_json(folder, bundle.AGREEMENT, {**found, "remade": {"litert": {**record, **change}}})
    with pytest.raises(BundleError, match="not what this version writes"):
        read_agreement(folder)


def test_pictures_are_drawn_alike_on_every_machine():
    """Black, white, colours, a chessboard, noise and scenes: so many of each as is told, and none twice."""
    pictures = drawn(96, 8)
    assert pictures.shape == (96, 8, 8, 3) and pictures.dtype == np.uint8
    assert (pictures[0] == 0).all() and (pictures[1] == 255).all()
    assert pictures[5, 0, :2].tolist() == [[0, 0, 0], [255, 255, 255]]
    assert sum(kinds(96).values()) == 96 and kinds(3) == {"extremes": 3, "noise": 0, "scenes": 0}
    assert len({picture.tobytes() for picture in pictures}) == 96
    np.testing.assert_array_equal(drawn(96, 8), pictures)
