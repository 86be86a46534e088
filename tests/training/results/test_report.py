"""The report's numbers against scikit-learn and by hand, and its page: whole, safe, and honest about what it lacks."""

import base64
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn import metrics as sk
from typer.testing import CliRunner

from hub import ImageClassifier
from hub.errors import DataError
from hub.images import open_image, pixel_hash
from hub.record import Predictions, predictions_table
from training.cli import app
from training.results import report
from training.results.bootstrap import scores_of, scores_of_run
from training.runs import read_run

from ..conftest import encode, write
from ..made_runs import HISTORY, answers, make_run, write_history

ODD = ["<script>alert(1)</script>", "$x_{", "_under", "long " * 60, "{{ 7 * 7 }}", "a & b", '" onerror="x']


def self_contained(text: str) -> bool:
    """Whether a page asks for nothing: every source is data, and nothing is run or styled from elsewhere."""
    sources = re.findall(r"<[^>]*\bsrc\s*=\s*[\"']?([^\"'\s>]{0,30})", text)
    links = re.findall(r"<a [^>]*href=\"([^\"]*)\"", text)
    return (
        all(source.startswith("data:image/") for source in sources)
        and not re.search(r"<(script|link|iframe|object|embed|base)\b|url\(|@import|srcset", text, re.IGNORECASE)
        and all(link.startswith(("#", "https://doi.org/")) for link in links)
    )


def words(text: str) -> str:
    """A page's words, without its style and its tags."""
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL))


def shown_pictures(text: str) -> list[np.ndarray]:
    """The pictures of the samples, in their order; figures are PNG and not among them."""
    codes = re.findall(r"data:image/jpeg;base64,([^\"]+)\" alt=\"the picture\"", text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))) for code in codes]


@pytest.fixture(scope="module")
def drawn_data(tmp_path_factory, photos) -> tuple[Path, list[str]]:
    """The drawn photos as a data set, and the hash of each."""
    files = [encode(Image.fromarray(pixels)) for pixels in photos]
    rows = [(file, i % 2) for i, file in enumerate(files)]
    folder = write(tmp_path_factory.mktemp("drawn") / "data", {"train": rows}, names=("cat", "dog"))
    return folder, [pixel_hash(open_image(file)) for file in files]


def answered(classifier: ImageClassifier, photos: np.ndarray, hashes: list[str]) -> Predictions:
    logits, evidence = classifier.predict_tensors(photos)
    labels = logits.argmax(1)
    labels[::5] = 1 - labels[::5]  # every fifth is wrong
    return Predictions(np.array(hashes), np.full(len(photos), "test"), labels, logits, evidence, classifier.labels)


# Numbers


@pytest.mark.parametrize("labels", [2, 5, 25])
def test_classification_report_is_scikit_learns(labels):
    one = answers(labels, 120)
    expected = sk.classification_report(
        one.labels, one.logits.argmax(1), labels=range(labels), target_names=one.label_names,
        output_dict=True, zero_division=0,
    )  # fmt: skip
    found = report.classification_report(one.labels, one.logits, one.label_names)
    rows = {row["label"]: row for row in found["labels"]} | {f"{a} avg": found[a] for a in ("macro", "weighted")}
    assert set(rows) == set(one.label_names) | {"macro avg", "weighted avg"}
    for name, row in rows.items():
        for ours, theirs in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score"), ("support",) * 2):
            assert row[ours] == pytest.approx(expected[name][theirs], abs=1e-12)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(one.labels, one.logits.argmax(1)))
    if labels > report.LONG:
        scores = [row["f1"] for row in found["labels"]]
        assert scores == sorted(scores)


# Truth 0, 0, 1, 1, 2; answers 0, 1, 1, 1, 0.
LABELS = np.array([0, 0, 1, 1, 2])
LOGITS = np.log(np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.05, 0.9, 0.05], [0.5, 0.3, 0.2]]))


def test_one_vs_rest_counts_are_those_counted_by_hand():
    first, second, third = report.one_vs_rest(LABELS, LOGITS, ["a", "b", "c"])
    assert [first[key] for key in ("tp", "fn", "fp", "tn")] == [1, 1, 1, 2]
    assert [second[key] for key in ("tp", "fn", "fp", "tn")] == [2, 0, 1, 2]
    assert [third[key] for key in ("tp", "fn", "fp", "tn")] == [0, 1, 0, 4]
    assert second["tpr"] == 1 and second["fpr"] == pytest.approx(1 / 3)
    assert second["roc_auc"] == 1 and third["roc_auc"] == 1  # 0.7 and 0.9 stand above 0.6; 0.2 above all others
    assert first["roc_auc"] == pytest.approx(5 / 6)  # of six pairs only 0.3 against 0.5 is in the wrong order
    absent = report.one_vs_rest(LABELS[:2], LOGITS[:2], ["a", "b", "c"])
    assert absent[0]["fpr"] is None and absent[1]["tpr"] is None and absent[1]["roc_auc"] is None


def thresholds(labels: np.ndarray, logits: np.ndarray, names: list[str]) -> dict | None:
    return report.threshold_example(labels, logits, report.one_vs_rest(labels, logits, names))


def test_thresholds_are_worked_out_by_hand():
    logits = np.log([[0.95, 0.05], [0.3, 0.7], [0.45, 0.55], [0.01, 0.99], [0.8, 0.2]])
    found = thresholds(np.array([0, 0, 1, 1, 1]), logits, ["cat", "dog"])
    half, other = found["rows"]
    assert found["label"] == "dog" and found["changes"]
    assert [half[key] for key in ("tp", "fn", "fp", "tn")] == [2, 1, 1, 1]
    assert half["tpr"] == pytest.approx(2 / 3) and half["fpr"] == 0.5
    assert other["threshold"] == 0.9
    assert [other[key] for key in ("tp", "fn", "fp", "tn")] == [1, 2, 0, 2]
    sure = thresholds(np.array([0, 1]), np.array([[40.0, 0], [0, 40]]), ["cat", "dog"])
    assert not sure["changes"]
    assert thresholds(LABELS, LOGITS, ["a", "b", "c"])["label"] == "c"  # no picture of it is found
    assert thresholds(np.array([1, 1]), LOGITS[:2], ["a", "b", "c"]) is None


def test_cross_entropy_is_worked_out_by_hand():
    found = report.cross_entropy(LABELS, LOGITS, 1.0)
    losses = [-math.log(p) for p in (0.8, 0.3, 0.7, 0.9, 0.2)]
    assert found["mean"] == pytest.approx(sum(losses) / 5)
    assert found["mean"] == pytest.approx(sk.log_loss(LABELS, np.exp(LOGITS)))
    assert found["typical_probability"] == pytest.approx((0.8 * 0.3 * 0.7 * 0.9 * 0.2) ** (1 / 5))
    assert found["median"] == pytest.approx(-math.log(0.7)) and found["largest"] == pytest.approx(-math.log(0.2))
    assert found["even"] == pytest.approx(math.log(3)) and found["share_of_worst"] == pytest.approx(1)


def test_commonest_confusions_are_counted():
    truth, guess = np.array([0, 0, 0, 1, 2, 2]), np.array([1, 1, 0, 0, 2, 0])
    found = report.commonest_confusions(truth, np.eye(3)[guess], ["a", "b", "c"])
    assert [(row["truth"], row["answer"], row["pictures"]) for row in found] == [
        ("a", "b", 2), ("b", "a", 1), ("c", "a", 1),
    ]  # fmt: skip
    assert found[0]["share"] == pytest.approx(2 / 3)


def test_samples_are_the_surest_mistakes_the_least_sure_and_a_lot():
    margins = np.array([9, 5, 0.1, -8, -0.2, 3] + [4 + i / 10 for i in range(30)])
    logits = np.stack([margins, np.zeros(36)], axis=1)
    labels = np.zeros(36, int)
    one = Predictions(np.array([f"{i}" for i in range(36)]), np.full(36, "test"), labels, logits, None, ["a", "b"])
    found = report.choose_samples(one)
    assert found["wrong"].tolist() == [3, 4]
    assert found["unsure"].tolist()[:3] == [2, 5, 6]
    assert len(found["right"]) == report.SHOWN
    assert not set(found["right"]) & {*found["wrong"], *found["unsure"]}
    assert report.choose_samples(one)["right"].tolist() == found["right"].tolist()


# The page


@pytest.fixture(scope="module")
def two(tmp_path_factory, bundle_2, photos, drawn_data) -> tuple[Path, Predictions]:
    """The report on a run of two labels whose pictures are there."""
    data, hashes = drawn_data
    one = answered(ImageClassifier.from_pretrained(bundle_2), photos, hashes)
    folder = tmp_path_factory.mktemp("two")
    run = make_run(folder / "run", one, settings={"flip": True}, places={"data": str(data)}, scores=True)
    config = json.loads((bundle_2 / "config.json").read_text())
    (run / "bundle" / "config.json").write_text(json.dumps(config))
    report.write_report(run, cache=folder / "cache", progress=False)
    return run, one


def test_page_of_two_labels_stands_alone_and_says_the_scores(two):
    run, one = two
    text = (run / "report.html").read_text()
    assert self_contained(text)
    found = json.loads((run / "report.json").read_text())
    assert found["scores"]["test"] == scores_of(one, resamples=50)  # the bundle's own
    assert "80.00 % of the 40 test pictures are classified correctly" in words(text)
    assert "drawn" in text and "python -m training fit drawn" in text
    assert "02 January 2030, 03:04 UTC" in text
    for title in ("Learning curves", "Label by label", "Cross-entropy", "What is not known", "Four kinds of answers"):
        assert title in text
    assert {verdict["name"] for verdict in found["verdicts"]} >= {"training_worse", "still_falling", "balanced"}
    assert "--set epochs=6" in words(text)
    assert found["confusion_matrix"] == sk.confusion_matrix(one.labels, one.logits.argmax(1)).tolist()
    assert found["history"]["train_loss"] == HISTORY["train_loss"] and found["kept_epoch"] == 3


def test_pictures_are_the_recorded_ones_with_the_evidence_on_the_models_scale(two, photos, bundle_2):
    run, one = two
    text, found = (run / "report.html").read_text(), json.loads((run / "report.json").read_text())
    shown = shown_pictures(text)
    hashes = [row["hash"] for group in ("wrong", "unsure", "right") for row in found["samples"][group]]
    assert len(shown) == len(hashes) == 8 + 2 * report.SHOWN
    for pixels, digest in zip(shown, hashes, strict=True):
        truth = photos[one.hashes.tolist().index(digest)]
        assert pixels.shape == (224, 224, 3)  # 32 pixels, each 7 wide
        assert np.abs(pixels[3::7, 3::7].astype(int) - truth).mean() < 12  # as near as JPEG comes to noise
    assert found["heatmaps"] == "Evidence"
    scale = json.loads((bundle_2 / "config.json").read_text())["evidence"]["scale"]
    assert f"≥ {scale:.1f}" in text and "has no evidence" not in text
    wrong = found["samples"]["wrong"]
    assert all(row["truth"] != row["answer"] for row in wrong)
    assert [row["probability"] for row in wrong] == sorted((row["probability"] for row in wrong), reverse=True)


def test_page_of_twelve_odd_labels_is_safe_and_says_that_pictures_lack(tmp_path):
    names = ODD + [f"label {k}" for k in range(12 - len(ODD))]
    run = make_run(tmp_path / "run", answers(names, 90), scores=True)
    said = []
    page = report.write_report(run, out=tmp_path / "elsewhere.html", echo=said.append)
    text = page.read_text()
    assert self_contained(text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "{{ 7 * 7 }}" in text
    assert '" onerror="x' not in text
    assert "The run does not say where its pictures are, so none are shown." in words(text)
    assert said == ["The run does not say where its pictures are, so none are shown. Name their place with --data."]
    found = json.loads((tmp_path / "elsewhere.json").read_text())
    assert [row["label"] for row in found["one_vs_rest"]] == names and found["heatmaps"] is None
    assert text.count('class="box"') == 12
    assert "macro mean" in words(text) and "commonest mistakes" in words(text)
    assert not (run / "report.html").exists()


def test_page_of_a_classic_head_shows_grad_cam(tmp_path, classic, photos, drawn_data):
    data, hashes = drawn_data
    one = answered(classic, photos, hashes)
    run = make_run(tmp_path / "run", one, scores=True)
    metrics = json.loads((run / "bundle" / "metrics.json").read_text())
    classic.save_pretrained(run / "bundle", photos=photos, metrics=metrics, predictions=predictions_table(one))
    said = []
    page = report.write_report(run, data=str(data), cache=tmp_path / "cache", progress=False, echo=said.append)
    text = page.read_text()
    assert "This model has no evidence" in words(text) and "Grad-CAM" in text and not said
    assert json.loads((run / "report.json").read_text())["heatmaps"] == "Grad-CAM"
    assert shown_pictures(text) and self_contained(text)


def test_other_pictures_and_lost_ones_are_said_in_a_sentence(tmp_path, two, drawn_data, shapes):
    run, one = read_run(two[0]), two[1]
    data, _ = drawn_data
    rows = np.arange(3)
    load = {"cache": tmp_path / "cache", "progress": False}
    pixels, missing, reason = report.find_pixels(run, one, rows, str(shapes), **load)
    assert not pixels and missing == "The pictures that were given are not the recorded ones, so none are shown."
    assert str(shapes) in reason and str(shapes) not in missing
    pixels, missing, _ = report.find_pixels(run, one, rows, str(tmp_path / "nowhere"), **load)
    assert not pixels and missing == "The pictures could not be loaded, so none are shown."
    strange = replace(one, hashes=np.array(["0" * 64, *one.hashes[1:]]))
    pixels, missing, _ = report.find_pixels(run, strange, rows, str(data), **load)
    assert set(pixels) == {1, 2} and missing == "1 of these 3 pictures are not among those that were given."


def test_one_picture_and_an_old_history_are_enough(tmp_path):
    run = make_run(tmp_path / "run", answers(3, 1, split="validation"), scores=True)
    write_history(run / "history.csv", {"train_loss": [0.5, 0.4], "validation_loss": [0.6, 0.7]})
    text = words(report.write_report(run).read_text())
    assert "1 validation picture is answered" in re.sub(r"\s+", " ", text) or "of the 1 validation picture" in text
    assert "These pictures have only one label, so there is no curve" in text
    assert "No test pictures are recorded" in text
    assert "nan" not in text.lower().replace("finance", "")


def test_split_is_test_where_there_is_one(tmp_path):
    held, test = answers(2, 30, split="validation"), answers(2, 40)
    both = read_run(make_run(tmp_path / "both", held, test))
    assert both.split(None) == "test" and both.split("validation") == "validation"
    alone = read_run(make_run(tmp_path / "alone", held))
    assert alone.split(None) == "validation"
    with pytest.raises(DataError, match="it has validation.*--open-test") as refusal:
        alone.split("test")
    assert "\n" not in str(refusal.value)


def test_scores_that_are_not_of_the_record_are_computed_anew(tmp_path):
    one = answers(2, 40)
    run = make_run(tmp_path / "run", one, scores=True)
    assert scores_of_run(read_run(run), "test") == scores_of(one, resamples=50)
    better = replace(one, logits=one.logits + 3 * np.eye(2)[one.labels].astype(np.float32))
    pq.write_table(predictions_table(better), run / "bundle" / "predictions.parquet")
    assert scores_of_run(read_run(run), "test") == scores_of(better)


# The command


def change_settings(run: Path, **more) -> None:
    record = json.loads((run / "settings.json").read_text())
    record["settings"] |= more
    (run / "settings.json").write_text(json.dumps(record))


def test_a_record_whose_places_and_machine_are_odd_says_nothing_of_them(tmp_path):
    run = make_run(tmp_path / "run", answers(2, 6))
    record = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps({**record, "places": "x", "machine": "x"}))
    assert report.place_of(read_run(run)) is None
    assert "Machine" not in dict(report.head(read_run(run)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda run: (run / "settings.json").unlink(), "is not a run: it has no settings.json"),
        (lambda run: (run / "settings.json").write_text("[]"), "settings.json is damaged .it is not a JSON object"),
        (lambda run: (run / "settings.json").write_text("{"), "settings.json is damaged"),
        (lambda run: change_settings(run, epochs="x"), "settings.json is damaged .epochs must be from 1"),
        (lambda run: change_settings(run, network=None), "settings.json is damaged .network must be one of"),
        (lambda run: (run / "history.csv").write_text("epoch,step\nnan,nan\n"), "not the history of a run"),
        (lambda run: (run / "bundle").rename(run / "gone"), "has no bundle yet"),
        (lambda run: (run / "history.csv").unlink(), "cannot be read as a run's history"),
    ],
)
def test_what_is_no_finished_run_is_refused_in_one_sentence(tmp_path, change, sentence):
    run = make_run(tmp_path / "run", answers(2, 10))
    change(run)
    with pytest.raises(DataError, match=sentence) as refusal:
        read_run(run)
    assert "\n" not in str(refusal.value)


def test_the_command_makes_a_page_for_each_run(tmp_path):
    runs = [str(make_run(tmp_path / name, answers(2, 20), scores=True)) for name in ("one", "two")]
    result = CliRunner().invoke(app, ["report", *runs, "--split", "test"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for run in runs:
        assert f"The report on {run} is {run}/report.html." in result.output
        assert Path(run, "report.html").exists() and Path(run, "report.json").exists()
    with pytest.raises(DataError, match="--out names one page"):
        CliRunner().invoke(app, ["report", *runs, "--out", str(tmp_path / "x.html")], catch_exceptions=False)
