"""What a bundle says of itself is read whole, and whatever is odd about it is one sentence."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import hub.record
from hub import BundleError, ImageClassifier
from hub.bundle import DEFAULT
from hub.errors import DataError
from hub.metrics import SplitScores
from hub.record import NoRecord, Record, read_predictions
from space import record
from space.record import Photos
from tests.hub_server import HubServer, Repo
from tests.space.records import recorded, without_evidence, write


@pytest.fixture(scope="module")
def bundle(bundle_3, photos, tmp_path_factory):
    """Three labels and a record; copy it, but change nothing in it."""
    return recorded(bundle_3, tmp_path_factory.mktemp("recorded") / "tiny", photos)


def test_the_record_is_what_the_evaluation_wrote():
    """Of the released model: the same splits, answers and maps, the test split first, and its scores beside it."""
    read, written = Record(DEFAULT), read_predictions(DEFAULT)
    claimed = json.loads((DEFAULT / "metrics.json").read_text(encoding="utf-8"))
    assert list(read.splits) == ["test", "Oxford-IIIT Pet", "validation"]
    assert read.labels == written.label_names
    for name, split in read.splits.items():
        expected = written.subset(name)
        np.testing.assert_array_equal(split.hashes, expected.hashes)
        np.testing.assert_array_equal(split.truth, expected.labels)
        np.testing.assert_array_equal(split.logits, expected.logits)
        np.testing.assert_array_equal(read.evidence(split.rows), expected.evidence)
        block = claimed.get(name) or claimed["elsewhere"][name]
        assert split.score("roc_auc") == tuple(block["roc_auc"].values())
        assert split.level == 0.95


def test_a_split_without_scores_has_none(bundle):
    read = Record(bundle)
    assert read.splits["test"].score("roc_auc")
    assert read.splits["validation"].claimed == SplitScores()
    assert read.splits["validation"].score("roc_auc") is None


@pytest.mark.parametrize(
    "entry", [None, 1, "0.9", [], {"value": None}, {"value": True}, {"value": "0.9"}, {"value": float("nan")}]
)
def test_a_score_that_is_no_number_is_not_shown(bundle, tmp_path, entry):
    shutil.copytree(bundle, tmp_path / "odd")
    (tmp_path / "odd/metrics.json").write_text(json.dumps({"test": {"roc_auc": entry, "bootstrap": entry}}))
    split = Record(tmp_path / "odd").splits["test"]
    assert split.score("roc_auc") is None
    assert split.level is None


def test_a_model_without_maps_has_no_evidence(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "classic")
    write(tmp_path / "classic", without_evidence(read_predictions(bundle)))
    read = Record(tmp_path / "classic")
    assert len(read.splits["test"]) and read.evidence(read.splits["test"].rows) is None


def test_no_record_is_told_apart(bundle_3):
    with pytest.raises(NoRecord, match=r"There is no predictions\.parquet"):
        Record(bundle_3)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["logits"]),
        lambda table: table.replace_schema_metadata({}),
        lambda table: table.replace_schema_metadata({"labels": "[1, 2]", "grid": "null"}),
        lambda table: table.replace_schema_metadata({"labels": '["a", "b"]', "grid": "null"}),
        lambda table: table.replace_schema_metadata({"labels": "[" * 100_000, "grid": "null"}),
        lambda table: table.set_column(2, "label", pa.array([7] * len(table))),
        lambda table: table.set_column(2, "label", pa.array(["cat"] * len(table))),
        lambda table: table.set_column(3, "logits", pa.array([[float("nan")] * 3] * len(table))),
        lambda table: table.set_column(0, "hash", pa.array(["a" * 10**6] * len(table))),
        lambda table: table.slice(0, 0),
    ],
)
def test_a_strange_table_is_one_sentence_without_a_path(bundle, tmp_path, change):
    shutil.copytree(bundle, tmp_path / "odd")
    file = tmp_path / "odd/predictions.parquet"
    pq.write_table(change(pq.read_table(file)), file)
    with pytest.raises(BundleError, match=r"^predictions\.parquet is not a record of predictions") as refusal:
        Record(tmp_path / "odd")
    assert str(tmp_path) not in str(refusal.value)


def test_a_broken_file_is_one_sentence(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "odd")
    (tmp_path / "odd/predictions.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(BundleError, match=r"^predictions\.parquet is not a record"):
        Record(tmp_path / "odd")
    shutil.copy(bundle / "predictions.parquet", tmp_path / "odd/predictions.parquet")
    (tmp_path / "odd/metrics.json").write_text("[")
    with pytest.raises(BundleError, match=r"^metrics\.json cannot be read") as refusal:
        Record(tmp_path / "odd")
    assert str(tmp_path) not in str(refusal.value)


def test_a_record_that_is_too_large_is_refused_before_it_is_read(bundle, monkeypatch):
    monkeypatch.setattr(hub.record, "MOST_VALUES", 100)  # there are 40 x 3
    with pytest.raises(BundleError, match="more logits than can be shown"):
        Record(bundle)
    monkeypatch.setattr(hub.record, "MOST_VALUES", 200)  # enough for them, not for 40 x 4 x 4 x 3
    read = Record(bundle)
    with pytest.raises(BundleError, match="more evidence than can be shown"):
        read.evidence(np.arange(3))
    monkeypatch.setattr(hub.record, "MOST_BYTES", 1000)
    with pytest.raises(BundleError, match="larger than"):
        Record(bundle)


def test_what_cannot_be_fetched_is_said():
    """Nothing is fetched for a folder; a Hub model whose server is gone is a sentence."""
    classifier = ImageClassifier.from_pretrained()
    assert record.fetch(classifier) is None
    gone = ImageClassifier.from_pretrained()
    gone._download = {"repo_id": "nobody/nothing", "local_files_only": True, "cache_dir": "/nonexistent"}
    problem = record.fetch(gone)
    assert problem and "nobody/nothing" in problem and "\n" not in problem


def test_photos_are_found_by_their_pixels(photos, bundle, tmp_path):
    hashes = set(Record(bundle).splits["test"].hashes.tolist())
    for number, pixels in enumerate(photos[:3]):
        (tmp_path / str(number)).mkdir()
        Image.fromarray(pixels).save(tmp_path / str(number) / "any name.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (9, 9)).save(tmp_path / "stranger.png")
    found = Photos(tmp_path, hashes)
    assert (found.found, found.wanted) == (0, 20)
    found.start()
    found.start()
    assert found.done.wait(20)
    assert found.found == 3
    split = Record(bundle).splits["test"]
    assert [found.path(name) for name in split.hashes[:4]] == [
        *(tmp_path / str(number) / "any name.png" for number in range(3)),
        None,
    ]
    with pytest.raises(DataError, match="--photos"):
        Photos(tmp_path / "nowhere", hashes)


def test_the_record_of_a_hub_model_is_fetched_with_the_real_client(bundle, tmp_path, monkeypatch):
    """Only what answers is fetched when the model is loaded; its record comes when it is asked for, once."""
    from huggingface_hub import constants

    with HubServer() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        names = ["config.json", "onnx/model.onnx", "predictions.parquet", "metrics.json", "README.md"]
        hub.repos["somebody/tiny"] = Repo()
        files = {name: hub.store((bundle / name).read_bytes()) for name in names}
        hub.repos["somebody/tiny"].add("main", "all", files)
        classifier = ImageClassifier.from_pretrained("somebody/tiny", cache_dir=tmp_path)
        assert not (classifier.folder / "predictions.parquet").exists()
        assert record.fetch(classifier) is None
        assert list(Record(classifier.folder).splits) == ["test", "validation"]
        asked = len(hub.log)
        assert record.fetch(classifier) is None
        assert len(hub.log) == asked
