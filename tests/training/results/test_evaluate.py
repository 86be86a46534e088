"""Scores whose right answer is known, intervals that are those of scikit-learn's scores, and the command."""

import json
import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.special import softmax
from sklearn import metrics as sk

from hub.config import read_config
from hub.errors import BundleError, DataError
from hub.images import open_image, pixel_hash, to_tensor
from hub.metrics import read_metrics
from hub.publishing import card
from hub.record import predictions_table, read_predictions
from hub.scores import SCORES, log_odds, score
from tests.records import drawn_predictions, random_answers
from training.photos.answers import evaluate, map_labels
from training.photos.data import Photos
from training.results.bootstrap import RESAMPLES, ResampledScores, metrics, point_scores, resample_counts, scores_of
from training.results.evaluate import overlaps, record_elsewhere, run_evaluation

# Scores


def test_scores_of_four_pictures_are_those_worked_out_by_hand():
    # Log-odds of label 1: -2, 1, -1, 3 for the truths 0, 0, 1, 1. Of the four pairs of a 1 and a 0 three are
    # in order (-1 stands below 1), and the two answers in the middle are wrong.
    labels = np.array([0, 0, 1, 1])
    logits = np.array([[1, -1], [0, 1], [0.5, -0.5], [-1, 2]], np.float32)
    found = metrics(labels, logits, resamples=50)
    value = {name: found[name]["value"] for name in SCORES}
    assert value["roc_auc"] == pytest.approx(3 / 4)
    assert value["average_precision"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert [value[name] for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1")] == [0.5] * 5
    loss = [math.log(1 + math.exp(-margin)) for margin in (2, -1, -1, 3)]
    assert value["log_loss"] == pytest.approx(sum(loss) / 4)
    # Top probabilities: s(2) right, s(1) wrong twice (one bin), s(3) right.
    s2, s1, s3 = (1 / (1 + math.exp(-x)) for x in (2, 1, 3))
    assert value["expected_calibration_error"] == pytest.approx(((1 - s2) + 2 * s1 + (1 - s3)) / 4)
    assert found["confusion_matrix"] == [[1, 1], [1, 1]]
    assert found["photos"] == 4
    assert found["bootstrap"] == {"resamples": 50, "level": 0.95, "seed": 0}


@pytest.mark.parametrize("labels", [2, 3, 7])
def test_resampled_scores_equal_scikit_learns_on_the_same_resample(labels):
    truth, logits = random_answers(labels, 90)
    fast = ResampledScores(truth, logits)
    counts = next(resample_counts(90, 25, seed=3))
    found = fast(counts)
    for row, drawn in enumerate(counts):
        rows = np.repeat(np.arange(90), drawn)
        expected = point_scores(truth[rows], logits[rows])
        for name in SCORES:
            assert found[name][row] == pytest.approx(expected[name], abs=1e-10), name


@pytest.mark.parametrize("labels", [2, 5])
def test_resampled_scores_agree_where_labels_fall_out_of_the_resample(labels):
    truth, logits = random_answers(labels, 6, seed=2)
    fast = ResampledScores(truth, logits)
    for drawn in next(resample_counts(6, 60, seed=1)):
        rows = np.repeat(np.arange(6), drawn)
        expected = point_scores(truth[rows], logits[rows])
        found = fast(drawn[None])
        for name in SCORES:
            assert found[name][0] == pytest.approx(expected[name], abs=1e-10, nan_ok=True), name


def test_two_label_scores_are_scikit_learns_binary_ones():
    truth, logits = random_answers(2, 300)
    value, guess, p = point_scores(truth, logits), logits.argmax(1), softmax(logits.astype(float), axis=1)
    assert value["roc_auc"] == pytest.approx(sk.roc_auc_score(truth, logits[:, 1].astype(float) - logits[:, 0]))
    assert value["precision"] == sk.precision_score(truth, guess)
    assert value["recall"] == sk.recall_score(truth, guess)
    assert value["f1"] == sk.f1_score(truth, guess)
    assert value["balanced_accuracy"] == sk.balanced_accuracy_score(truth, guess)
    assert value["log_loss"] == sk.log_loss(truth, p)


def test_many_label_scores_are_scikit_learns_macro_ones():
    truth, logits = random_answers(4, 300)
    value, p = point_scores(truth, logits), softmax(logits.astype(float), axis=1)
    assert value["roc_auc"] == pytest.approx(sk.roc_auc_score(truth, p, multi_class="ovr"), abs=1e-12)
    assert value["f1"] == sk.f1_score(truth, logits.argmax(1), average="macro")
    expected = sk.average_precision_score(np.eye(4)[truth], p, average="macro")
    assert value["average_precision"] == pytest.approx(expected, abs=1e-12)


def test_interval_is_the_percentiles_of_a_plain_bootstrap():
    truth, logits = random_answers(2, 60)
    found = metrics(truth, logits, resamples=200)
    rng = np.random.default_rng(0)
    aucs = []
    for _ in range(200):
        rows = rng.integers(0, 60, 60)
        aucs.append(sk.roc_auc_score(truth[rows], logits[rows, 1].astype(float) - logits[rows, 0]))
    expected = np.quantile(aucs, [0.025, 0.975])
    np.testing.assert_allclose([found["roc_auc"]["low"], found["roc_auc"]["high"]], expected)
    assert found["roc_auc"]["low"] < found["roc_auc"]["value"] < found["roc_auc"]["high"]


def test_metrics_are_the_same_every_time_and_take_2000_resamples():
    truth, logits = random_answers(2, 500)
    first, second = metrics(truth, logits), metrics(truth, logits)
    assert first == second
    assert first["bootstrap"]["resamples"] == RESAMPLES == 2000


@pytest.mark.parametrize(
    ("labels", "count"), [([1, 1, 1], 2), ([0, 0, 0], 2), ([0], 2), ([1], 2), ([0, 2, 2], 3), ([1], 4)]
)
def test_missing_labels_give_valid_json_and_no_warning(labels, count):
    logits = np.random.default_rng(0).normal(size=(len(labels), count))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics(np.array(labels), logits, resamples=40)
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    if len(set(labels)) == 1:
        assert found["roc_auc"] == {"value": None, "low": None, "high": None}
        assert found["accuracy"]["value"] is not None
    assert np.shape(found["confusion_matrix"]) == (count, count)


def test_one_vs_rest_mean_leaves_out_the_label_that_does_not_occur():
    truth, logits = random_answers(3, 80)
    truth, logits = truth[truth < 2], logits[truth < 2]
    expected = np.mean([sk.roc_auc_score(truth == k, log_odds(logits)[:, k]) for k in (0, 1)])
    assert point_scores(truth, logits)["roc_auc"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "logits"),
    [
        (np.array([], int), np.zeros((0, 2))),
        (np.array([0, 1]), np.zeros((3, 2))),
        (np.array([0, 2]), np.zeros((2, 2))),
        (np.array([0.0, 1.0]), np.zeros((2, 2))),
        (np.array([0, 1]), np.array([[0, np.nan], [0, 1]])),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_sentence(labels, logits):
    with pytest.raises(DataError) as refusal:
        metrics(labels, logits)
    assert "\n" not in str(refusal.value)


# Pictures of the record


def test_overlap_counts_pictures_by_hash_in_the_records_order():
    record = drawn_predictions(pictures=3)
    half, none = overlaps(np.array(["x", "test02", "test00"]), record), overlaps(np.array(["x"]), record)
    assert half[0].rows.tolist() == [2, 1] and not half[0].complete
    assert len(none[0].rows) == 0 and none[0].recorded == 3


@pytest.mark.parametrize(
    ("names", "bundle", "expected", "said"),
    [
        (["dog", "cat"], ["cat", "dog"], [1, 0], ""),
        (["a", "A", "g", "G"], ["A", "G", "a", "g"], [2, 0, 3, 1], ""),
        (["cafe\u0301", "tea"], ["caf\xe9", "tea"], [0, 1], ""),
        (["Cats", " dog"], ["cat", "dog"], [0, 1], "Cats as cat,  dog as dog"),
        (["berries", "fox"], ["foxes", "Berry"], [1, 0], "berries as Berry, fox as foxes"),
        (["Cat", "cat"], ["cat", "dog"], "Cat", ""),  # cat is the model's cat, so Cat is another
        (["CAT", "dog"], ["Cat", "cat", "dog"], "CAT", ""),  # which of the two?
        (["cats", "CAT"], ["cat", "dog"], "cats", ""),
        (["as", "b"], ["a", "b"], "as", ""),
        (["horse", "dog"], ["cat", "dog"], "horse", ""),
    ],
)
def test_labels_are_matched_by_name_and_by_a_unique_similar_name_only(names, bundle, expected, said):
    printed = []
    labels = np.arange(len(names))
    if isinstance(expected, str):
        with pytest.raises(DataError, match=f"the label '{expected}', which the model does not know"):
            map_labels(labels, names, bundle, echo=printed.append)
    else:
        assert map_labels(labels, names, bundle, echo=printed.append).tolist() == expected
    assert [said in line for line in printed] == [True] * bool(said)


def test_a_label_without_pictures_need_not_be_known():
    assert map_labels(np.array([0]), ["cat", "horse"], ["cat", "dog"]).tolist() == [0]


# The command, on a folder of drawn pictures and a random network


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, photos) -> Path:
    """A folder of 40 drawn pictures, half of them in cat/, half in dog/."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), photos, ["cat", "dog"])


def write_pictures(folder: Path, pixels: np.ndarray, names: list[str]) -> Path:
    for row, picture in enumerate(pixels):
        place = folder / names[row % len(names)] / f"{row:03d}.png"
        place.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(picture).save(place)
    return folder


def photos_of(folder: Path, split: str, names: list[str], size: int = 32) -> Photos:
    """All pictures of a folder of folders, as one split."""
    paths = sorted(folder.glob("*/*.png"))
    return Photos(
        pixels=np.stack([to_tensor(path, size) for path in paths]),
        labels=np.array([names.index(path.parent.name) for path in paths]),
        hashes=np.array([pixel_hash(open_image(path)) for path in paths]),
        splits=np.full(len(paths), split),
        label_names=names,
        name=folder.name,
        report={},
        problems=[],
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, bundle_2, pictures) -> Path:
    """The tiny bundle with the first 30 pictures as its test split: predictions and metrics of them."""
    from hub import ImageClassifier

    folder = tmp_path_factory.mktemp("recorded") / "bundle"
    shutil.copytree(bundle_2, folder)
    classifier = ImageClassifier.from_pretrained(folder)
    found = evaluate(classifier, photos_of(pictures, "test", ["cat", "dog"]).subset(np.arange(30)), progress=False)
    pq.write_table(predictions_table(found), folder / "predictions.parquet")
    content = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**content, "test": scores_of(found)}))
    return folder


def run(bundle: Path, data: Path, tmp_path: Path, **options) -> tuple[int, str]:
    lines: list[str] = []
    code = run_evaluation(bundle, data, cache=tmp_path / "cache", progress=False, echo=lines.append, **options)
    return code, "\n".join(lines)


def test_evaluate_answers_as_predict_does_and_maps_labels(bundle_2, pictures):
    from hub import ImageClassifier

    classifier = ImageClassifier.from_pretrained(bundle_2)
    photos = photos_of(pictures, "test", ["dog", "cat"])
    found = evaluate(classifier, photos, progress=False, batch_size=3)
    paths = sorted(pictures.glob("*/*.png"))
    np.testing.assert_allclose(found.logits, [p.logits for p in classifier.predict(paths)], atol=1e-5)
    np.testing.assert_allclose(found.evidence.mean((1, 2)), found.logits, atol=1e-5)
    assert [found.label_names[k] for k in found.labels] == [path.parent.name for path in paths]
    with pytest.raises(DataError, match="16 px"):
        evaluate(classifier, photos_of(pictures, "test", ["cat", "dog"], size=16), progress=False)


def test_the_cards_numbers_repeat_on_the_recorded_pictures(recorded, pictures, tmp_path):
    code, said = run(recorded, pictures, tmp_path, out=tmp_path / "out")
    assert code == 0
    assert "Test, 30 pictures" in said and "repeat to the printed digit" in said
    assert "The other 10 pictures" in said and "not scored" in said
    auc = json.loads((recorded / "metrics.json").read_text())["test"]["roc_auc"]
    assert score("roc_auc", auc) in said
    written = json.loads((tmp_path / "out" / "test" / "metrics.json").read_text())
    assert written["scores"]["photos"] == 30
    assert read_predictions(tmp_path / "out" / "test").hashes.shape == (30,)
    assert (tmp_path / "out" / "test" / "roc.png").is_file()


def test_a_changed_number_is_told_and_fails(recorded, pictures, tmp_path):
    false = tmp_path / "false"
    shutil.copytree(recorded, false)
    content = json.loads((false / "metrics.json").read_text())
    content["test"]["log_loss"]["value"] += 0.0002
    (false / "metrics.json").write_text(json.dumps(content))
    code, said = run(false, pictures, tmp_path)
    assert code == 1
    assert "NOT repeat: log loss differ" in said
    del content["test"]
    (false / "metrics.json").write_text(json.dumps(content))
    code, said = run(false, pictures, tmp_path)
    assert code == 1 and "nothing to repeat" in said


def test_other_pictures_get_a_warning_and_no_test_score(recorded, photos, tmp_path):
    other = write_pictures(tmp_path / "other", 255 - photos[:8], ["Cats", "dog"])
    Image.new("RGB", (20, 20), "teal").save(other / "stray.png")
    code, said = run(recorded, other, tmp_path)
    assert code == 0
    assert "Skipped 1 file (stray.png)" in said and "Cats as cat" in said
    assert "Warning: 8 of these 8 pictures" in said and "not a test score" in said
    assert "These 8 pictures" in said and "Test, " not in said


def test_a_part_of_the_recorded_pictures_is_said_plainly(recorded, pictures, tmp_path):
    part = tmp_path / "part"
    for path in sorted(pictures.glob("*/*.png"))[:5]:
        (part / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, part / path.parent.name)
    strange = Image.new("RGB", (20, 20), "teal")
    (part / "dog").mkdir(exist_ok=True)
    strange.save(part / "dog" / "strange.png")
    code, said = run(recorded, part, tmp_path)
    assert code == 0
    assert "holds 5 of the 30 recorded test pictures, not all of them" in said
    assert "Warning: 1 of these 6 pictures" in said
    (part / "dog" / "strange.png").unlink()
    Image.open(sorted(pictures.glob("*/*.png"))[29]).save(part / "dog" / "recorded.png")
    _, said = run(recorded, part, tmp_path)
    assert "only a part of it" in said and "Warning" not in said


def test_pictures_from_elsewhere_are_recorded_in_metrics_and_card(recorded, photos, tmp_path, pictures):
    mine = tmp_path / "mine"
    shutil.copytree(recorded, mine)
    other = write_pictures(tmp_path / "other", 255 - photos[:8], ["dog", "cat"])
    code, said = run(mine, other, tmp_path, record_as="my garden")
    assert code == 0 and "my garden" in said
    content = json.loads((mine / "metrics.json").read_text())
    assert content["elsewhere"]["my garden"]["photos"] == 8
    assert content["test"] == json.loads((recorded / "metrics.json").read_text())["test"]
    assert (mine / "README.md").read_text() == card.render(read_config(mine), read_metrics(mine))
    assert "my garden" in (mine / "README.md").read_text()
    assert not list(mine.glob(".*"))
    record = read_predictions(mine)
    assert len(record) == len(read_predictions(recorded)) + 8
    assert scores_of(record.subset("my garden")) == content["elsewhere"]["my garden"]
    code, said = run(mine, other, tmp_path)  # now these pictures' numbers can be repeated too
    assert code == 0 and "The my garden numbers repeat to the printed digit." in said
    before = (mine / "metrics.json").read_bytes()
    run(mine, other, tmp_path, record_as="my garden")  # again: replaced, not doubled
    assert len(read_predictions(mine)) == len(record)
    assert (mine / "metrics.json").read_bytes() == before
    with pytest.raises(DataError, match="record-as"):
        run(mine, pictures, tmp_path, record_as="cheat")
    assert "cheat" not in (mine / "metrics.json").read_text()


def test_recording_in_what_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError):
        record_elsewhere(tmp_path, "x", None)
    with pytest.raises(DataError, match="name of a split"):
        record_elsewhere(tmp_path, "test", None)
    with pytest.raises(DataError, match="not a folder"):
        run_evaluation("someone/model", tmp_path, record_as="x")


def test_a_bundle_without_record_claims_nothing(bundle_2, pictures, tmp_path):
    code, said = run(bundle_2, pictures, tmp_path)
    assert code == 0
    assert "no record of held-out pictures" in said and "not a test score" in said
