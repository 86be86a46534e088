"""The record of the model that is served is fetched once, and its photos are found by their pixels."""

from __future__ import annotations

import pytest
from PIL import Image

from hub import ImageClassifier
from hub.errors import DataError
from hub.record import Record
from space import record
from space.record import Photos
from tests.hub_server import HubServer, Repo
from tests.records import recorded


@pytest.fixture(scope="module")
def bundle(bundle_3, photos, tmp_path_factory):
    """Three labels and a record; copy it, but change nothing in it."""
    return recorded(bundle_3, tmp_path_factory.mktemp("recorded") / "tiny", photos)


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
