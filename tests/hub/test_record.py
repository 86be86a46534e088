"""What a bundle says of itself is read whole, and whatever is odd about it is one sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hub.record
from hub import BundleError
from hub.bundle import DEFAULT
from hub.metrics import SplitScores
from hub.record import NoRecord, Record, predictions_table, read_predictions
from tests.records import drawn_predictions, recorded, without_evidence, write
from training.results.bootstrap import scores_of


@pytest.fixture(scope="module")
def bundle(bundle_3, photos, tmp_path_factory):
    """Three labels and a record; copy it, but change nothing in it."""
    return recorded(bundle_3, tmp_path_factory.mktemp("recorded") / "tiny", photos)


@pytest.mark.parametrize("labels", [2, 3])
def test_record_reads_back_to_the_bit(tmp_path, labels):
    held, test = drawn_predictions(labels, 4, "validation", 1), drawn_predictions(labels, 9)
    table = predictions_table([held, test])
    assert table.column_names == ["hash", "split", "label", "logits", "evidence"]
    assert json.loads(table.schema.metadata[b"grid"]) == [2, 3]
    pq.write_table(table, tmp_path / "predictions.parquet")
    found = read_predictions(tmp_path)
    assert found.label_names == test.label_names and len(found) == 13
    for split, expected in (("validation", held), ("test", test)):
        part = found.subset(split)
        for name in ("hashes", "splits", "labels", "logits", "evidence"):
            np.testing.assert_array_equal(getattr(part, name), getattr(expected, name))
        assert scores_of(part, resamples=20) == scores_of(expected, resamples=20)


def test_record_of_a_model_without_a_map_reads_back(tmp_path):
    plain = replace(drawn_predictions(), evidence=None)
    pq.write_table(predictions_table(plain), tmp_path / "predictions.parquet")
    found = read_predictions(tmp_path / "predictions.parquet")
    assert found.evidence is None and found.take(np.array([2, 0])).evidence is None
    np.testing.assert_array_equal(found.logits, plain.logits)


def test_missing_and_damaged_records_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(BundleError, match="predictions.parquet"):
        read_predictions(tmp_path)
    (tmp_path / "predictions.parquet").write_bytes(b"no table")
    with pytest.raises(BundleError, match="not a record"):
        read_predictions(tmp_path)


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
