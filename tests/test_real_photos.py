"""What only real photos can show. PHOTOS names a folder that holds cats_vs_dogs, pet_masks, mnist and cifar10 as
the Hub stores them; BACKBONE_WEIGHTS a file with MobileNetV2's ImageNet weights."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hub.bundle import DEFAULT
from training.photos.data import load_photos

PHOTOS, WEIGHTS = os.environ.get("PHOTOS"), os.environ.get("BACKBONE_WEIGHTS")


def needs_photos(test):
    """Mark a test that is long, and skipped where there are no photos."""
    return pytest.mark.long(pytest.mark.skipif(not PHOTOS, reason="PHOTOS names no folder of real photos")(test))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@needs_photos
def test_the_cards_numbers_repeat_to_the_printed_digit(cache, capsys):
    from training.results.evaluate import run_evaluation

    code = run_evaluation(DEFAULT, Path(PHOTOS) / "cats_vs_dogs", cache=cache, progress=False)
    said = capsys.readouterr().out
    assert code == 0, said
    assert "The test numbers repeat to the printed digit." in said
    assert "The validation numbers repeat to the printed digit." in said
    assert "the model may have been trained on them, so they are not scored" in said


def test_other_pictures_get_a_warning_and_no_test_score(cache, capsys, tmp_path):
    from training.results.evaluate import run_evaluation

    blank = tmp_path / "blank"
    for i, name in enumerate(("cat", "dog") * 4):
        (blank / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (i * 30, 90, 200)).save(blank / name / f"{i}.png")
    assert run_evaluation(DEFAULT, blank, cache=cache, progress=False) == 0
    said = capsys.readouterr().out
    assert "this is not a test score" in said
    assert "These 8 pictures" in said


@needs_photos
def test_the_numbers_of_photos_from_elsewhere_repeat_too(cache, capsys):
    from training.results.evaluate import run_evaluation

    assert run_evaluation(DEFAULT, Path(PHOTOS) / "pet_masks", cache=cache, progress=False) == 0
    assert "The Oxford-IIIT Pet numbers repeat to the printed digit." in capsys.readouterr().out


@needs_photos
@pytest.mark.parametrize(("name", "size", "labels", "test"), [("mnist", 28, 10, 10_000), ("cifar10", 32, 10, 10_000)])
def test_a_data_sets_own_test_split_is_kept(name, size, labels, test, cache):
    photos = load_photos(Path(PHOTOS) / name, size, cache=cache, progress=False)
    assert len(photos.label_names) == labels
    lost = sum(row["split"] == "test" for row in photos.problems)
    assert np.sum(photos.splits == "test") == test - lost
    share = np.mean(photos.splits == "validation") * len(photos) / np.sum(photos.splits != "test")
    assert 0.095 < share < 0.105


@needs_photos
@pytest.mark.skipif(not WEIGHTS, reason="BACKBONE_WEIGHTS names no file")
def test_frozen_imagenet_features_already_tell_cats_from_dogs(cache):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    from training.fit import frozen_features
    from training.networks.backbones import evidence_model

    photos = load_photos(Path(PHOTOS) / "cats_vs_dogs", 96, cache=cache, progress=False)
    model = evidence_model("MobileNetV2", WEIGHTS, 96, 2)
    train = photos.subset(np.flatnonzero(photos.splits == "train")[:512])
    held = photos.subset(np.flatnonzero(photos.splits == "validation")[:256])
    x, x_held = (frozen_features(model, part, cache, progress=False) for part in (train, held))
    regression = LogisticRegression(C=0.1, fit_intercept=False, max_iter=1000).fit(x, train.labels)
    assert roc_auc_score(held.labels, regression.decision_function(x_held)) > 0.95
