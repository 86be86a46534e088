"""Every figure is drawn for two labels and for more, says what it shows, and bears sets that lack things."""

import csv
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn import metrics as sk

from hub.errors import DataError, StorageError
from hub.record import Predictions
from hub.scores import log_odds
from training.results import figures
from training.results.bootstrap import scores_of
from training.runs import read_history

HISTORY = ["epoch", "step", "learning_rate", "train_loss", "train_accuracy"]
HISTORY += ["validation_loss", "validation_accuracy", "validation_roc_auc", "seconds"]
CURVES = {"roc", "precision_recall", "confusion_matrix", "reliability"}


def drawn(labels: int, pictures: int = 60, seed: int = 0) -> Predictions:
    """Fair answers with mistakes, and evidence (4, 4) whose mean they are."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, labels, pictures)
    evidence = rng.normal(0, 3, (pictures, 4, 4, labels)) + 1.5 * np.eye(labels)[truth][:, None, None]
    return Predictions(
        hashes=np.array([f"{i:08d}" for i in range(pictures)]),
        splits=np.full(pictures, "test"),
        labels=truth,
        logits=evidence.mean((1, 2)).astype(np.float32),
        evidence=evidence.astype(np.float32),
        label_names=[f"label {k}" for k in range(labels)],
    )


def history(path: Path, epochs: int = 3, **blank: str) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, HISTORY)
        writer.writeheader()
        for epoch in range(1, epochs + 1):
            row = dict.fromkeys(HISTORY, epoch / 10) | {"epoch": epoch, "step": 100 * epoch}
            writer.writerow(row | blank)
    return path


def texts(figure: Figure) -> str:
    """All words of a figure."""
    found = [figure.get_suptitle()]
    for axes in figure.axes:
        found += [
            axes.get_title(),
            axes.get_xlabel(),
            axes.get_ylabel(),
            *(text.get_text() for text in axes.texts),
        ]
        legend = axes.get_legend()
        found += [text.get_text() for text in legend.get_texts()] if legend else []
    return "\n".join(found)


@pytest.mark.parametrize("labels", [2, 14])
def test_all_figures_are_saved_and_open_as_pictures(tmp_path, labels):
    predictions = drawn(labels)
    pixels = np.random.default_rng(0).integers(0, 255, (60, 16, 16, 3), np.uint8)
    log = history(tmp_path / "history.csv")
    paths = figures.save(
        tmp_path / "made",
        predictions,
        title="test split",
        pixels=pixels,
        scale=4.0,
        history=log,
        prefix="test_",
    )
    assert set(paths) == CURVES | {"learning_curves", "worst_mistakes"}
    for name, path in paths.items():
        assert path.name == ("learning_curves.png" if name == "learning_curves" else f"test_{name}.png")
        with Image.open(path) as picture:
            assert picture.format == "PNG" and min(picture.size) > 400
            assert np.asarray(picture.convert("L")).std() > 5
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(p.name for p in paths.values())


def test_titles_say_the_split_and_the_number_of_photos():
    p = drawn(2)
    arguments = p.labels, p.logits, p.label_names, "validation split"
    for figure in (
        figures.roc(*arguments),
        figures.precision_recall(*arguments),
        figures.confusion(*arguments),
    ):
        assert "validation split, 60 photos" in texts(figure)
    assert "validation split, 60 photos" in texts(figures.reliability(p.labels, p.logits, "validation split"))
    assert "these 60 pictures" in texts(figures.reliability(p.labels, p.logits, "these 60 pictures"))
    assert "60 photos" not in texts(figures.reliability(p.labels, p.logits, "these 60 pictures"))


def test_roc_shows_the_area_that_the_metrics_give():
    p = drawn(2)
    value = scores_of(p, resamples=2)["roc_auc"]["value"]
    figure = figures.roc(p.labels, p.logits, p.label_names, "test")
    assert f"AUC {value:.5f}" in texts(figure)
    x, y = figure.axes[0].lines[1].get_data()
    assert np.trapezoid(y, x) == pytest.approx(value)


def test_confusion_matrix_writes_the_counts():
    labels, logits = np.array([0, 0, 0, 1]), np.array([[1, 0], [1, 0], [0, 1], [0, 1.0]])
    words = texts(figures.confusion(labels, logits, ["cat", "dog"], "test"))
    assert "2\n66.7 %" in words and "1\n33.3 %" in words and "1\n100.0 %" in words and "0\n0.0 %" in words


def test_reliability_places_each_bin_at_its_means():
    # Ten answers of one certainty, seven of them right.
    logits = np.tile([[0.0, 2.0]], (10, 1))
    figure = figures.reliability(np.array([1] * 7 + [0] * 3), logits, "test")
    (x,), (y,) = figure.axes[0].containers[0].lines[0].get_data()
    assert (x, y) == (pytest.approx(1 / (1 + np.exp(-2))), 0.7)


def test_worst_mistakes_are_the_most_certain_wrong_answers_worst_first():
    logits = np.array([[5, 0], [0, 4], [0, 6], [1, 0.0]], np.float32)
    predictions = Predictions(
        hashes=np.array(["a" * 64, "b" * 64, "c" * 64, "d" * 64]),
        splits=np.full(4, "test"),
        labels=np.array([0, 0, 0, 1]),
        logits=logits,
        evidence=np.broadcast_to(logits[:, None, None], (4, 2, 2, 2)),
        label_names=["cat", "dog"],
    )
    read = []

    class Pixels:
        def __getitem__(self, row: int) -> np.ndarray:
            read.append(int(row))
            return np.full((8, 8, 3), 40 * row, np.uint8)

    figure = figures.worst_mistakes(predictions, Pixels(), 5.0, "test split")
    assert read == [2, 1, 3]
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles[0] == "truth cat, answer dog 99.8 %\ncccccccc…"
    assert titles[2].startswith("truth dog, answer cat 73.1 %")
    assert "The 3 most certain of 3 wrong answers" in texts(figure)
    # Left half is the photo as it is; the right half is coloured by evidence for the answer (+6 of 5: full).
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert (shown[:, :8] == 80).all()
    assert shown[4, -1, 0] > shown[4, -1, 2] + 50


def test_a_certainty_is_never_written_as_100_per_cent():
    p = drawn(2)
    sure = np.where(np.arange(2) == (1 - p.labels)[:, None], 40.0, 0.0).astype(np.float32)
    figure = figures.worst_mistakes(replace(p, logits=sure), np.zeros((60, 4, 4, 3), np.uint8), 4.0, "test", most=3)
    assert "> 99.9 %" in texts(figure) and "100" not in texts(figure)


def test_what_cannot_be_drawn_is_left_out(tmp_path):
    p = drawn(3)
    alone = p.take(np.flatnonzero(p.labels == 0)[:1])
    paths = figures.save(tmp_path, alone, title="one", pixels=np.zeros((1, 8, 8, 3), np.uint8), scale=None)
    assert {"confusion_matrix", "reliability"} <= set(paths) <= {"confusion_matrix", "reliability", "worst_mistakes"}
    right = p.take(np.flatnonzero(p.logits.argmax(1) == p.labels))
    assert figures.worst_mistakes(right, np.zeros((60, 8, 8, 3), np.uint8), 4.0, "test") is None


def test_learning_curves_skip_blank_cells_and_refuse_what_is_no_history(tmp_path):
    figure = figures.learning_curves(history(tmp_path / "h.csv", validation_roc_auc=""))
    assert "3 epochs, 300 steps" in texts(figure) and "ROC AUC" in texts(figure)
    assert "validation ROC AUC" not in texts(figure)
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), [0.1, 0.2, 0.3])
    (tmp_path / "empty.csv").write_text(",".join(HISTORY) + "\n")
    (tmp_path / "words.csv").write_text("epoch,step\none,two\n")
    for path in ("empty.csv", "words.csv", "missing.csv"):
        with pytest.raises(DataError, match=path):
            figures.learning_curves(tmp_path / path)


def test_a_learning_curve_marks_the_kept_epoch(tmp_path):
    columns = read_history(history(tmp_path / "h.csv", validation_loss=""))
    figure = figures.learning_curve(columns, "loss", kept=1)
    assert "kept: epoch 2" in texts(figure) and "training" in texts(figure) and "validation" not in texts(figure)
    train, mark = figure.axes[0].lines
    np.testing.assert_allclose(train.get_xydata(), [[1, 0.1], [2, 0.2], [3, 0.3]])
    assert list(mark.get_xdata()) == [2, 2]
    assert "validation" in texts(figures.learning_curve(columns, "accuracy"))
    assert "kept" not in texts(figures.learning_curve(columns, "accuracy"))


def test_roc_marks_thresholds_where_they_fall():
    # Of two cats one has a probability of 0.7; of three dogs 0.9, 0.6 and 0.2.
    p = np.array([0.1, 0.7, 0.9, 0.6, 0.2])
    logits = np.log(np.stack([1 - p, p], axis=1))
    figure = figures.roc(np.array([0, 0, 1, 1, 1]), logits, ["cat", "dog"], "test", thresholds=(0.5, 0.8))
    marks = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert marks["threshold 0.5"] == [[0.5, pytest.approx(2 / 3)]]
    assert marks["threshold 0.8"] == [[0, pytest.approx(1 / 3)]]
    (inset,) = figure.axes[0].child_axes
    assert not [line for line in inset.lines if line.get_label().startswith("threshold")]  # both lie outside of it


def test_mean_roc_is_the_mean_of_the_curves_and_of_their_areas():
    p = drawn(4, 400)
    areas = [sk.roc_auc_score(p.labels == k, log_odds(p.logits)[:, k]) for k in range(4)]
    false, true, area = figures.mean_roc(p.labels, p.logits)
    assert area == pytest.approx(np.mean(areas))
    assert np.trapezoid(true, false) == pytest.approx(area, abs=2e-3)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1) and (np.diff(true) >= 0).all()
    figure = figures.roc(p.labels, p.logits, p.label_names, "test", mean=True)
    assert f"mean of all: AUC {area:.5f}" in texts(figure)
    assert "mean of all" not in texts(figures.roc(p.labels, p.logits, p.label_names, "test"))


def test_bars_are_the_errors_from_0_with_their_intervals():
    def score(value, low, high):
        return {"value": value, "low": low, "high": high}

    scores = [
        {"accuracy": score(0.98, 0.97, 0.99), "roc_auc": score(None, None, None), "log_loss": score(0.1, 0.05, 0.2)},
        {"accuracy": score(0.9, 0.88, 0.92), "roc_auc": score(0.95, 0.9, 0.99), "log_loss": score(0.4, 0.3, 0.5)},
    ]
    figure = figures.score_bars(["best $_{", "_second"], scores, [0, 1], "test")
    accuracy, auc, loss = figure.axes
    assert [bar.get_width() for bar in accuracy.patches] == pytest.approx([2, 10])
    assert [bar.get_x() for bar in accuracy.patches] == [0, 0]
    assert [bar.get_width() for bar in loss.patches] == [0.1, 0.4]
    ends = accuracy.containers[1].lines[2][0].get_segments()[0][:, 0]
    assert ends.tolist() == pytest.approx([1, 3])
    assert "not measured" in texts(figure) and len(auc.patches) == 1
    assert accuracy.get_ylim()[0] > accuracy.get_ylim()[1]  # the first is on top
    alone = figures.score_bars(["one", "two"], scores, [0, 0], "test", ("log_loss",))
    assert len(alone.axes) == 1


@pytest.mark.parametrize("labels", [2, 4])
def test_odd_labels_are_no_formulas_and_none_is_left_out(labels, tmp_path):
    names = ["$x_{", "_under", "a$b$c", "$"][:labels]
    p = replace(drawn(labels), label_names=names)
    assert len(figures.save(tmp_path, p, title="test")) == 4
    legend = texts(figures.roc(p.labels, p.logits, names, "test"))
    assert all(name.replace("$", r"\$") in legend for name in names[1:2])


def test_a_folder_that_is_a_file_is_one_clear_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as refusal:
        figures.save(tmp_path / "file", drawn(2), title="test")
    assert "\n" not in str(refusal.value)


def test_figures_can_be_drawn_in_threads_and_leave_pyplot_alone(tmp_path):
    from matplotlib import _pylab_helpers

    def draw(number: int) -> None:
        figures.save(tmp_path / str(number), drawn(2, seed=number), title="test")

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(list((tmp_path / str(number)).iterdir())) for number in range(2)] == [4, 4]
    assert not _pylab_helpers.Gcf.figs
