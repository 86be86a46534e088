"""Figures of a run: learning curves, ROC, precision-recall, confusion matrix, reliability, worst mistakes; and of runs
side by side: their scores.

Each function returns a matplotlib Figure, drawn by the pieces of `training.pages.drawing`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve
from sklearn.metrics import confusion_matrix as count_confusions

from hub.heatmaps import overlay, shown_map
from hub.scores import BINS, calibration, log_odds, many, percent, softmax, wilson
from training.pages.drawing import COLOURS, FONT, STYLES, new_figure, short_name, write_png
from training.runs import read_history

if TYPE_CHECKING:
    from hub.record import Predictions

LABELLED_CELLS = 25  # a larger confusion matrix is shown by colour alone
MOST_LINES = 12  # of one-vs-rest curves that a reader can follow
OPACITY = 0.7  # of the evidence over a photo


def save(
    folder: str | Path,
    predictions: "Predictions",
    *,
    title: str,
    pixels: np.ndarray | None = None,
    scale: float | None = None,
    history: str | Path | None = None,
    prefix: str = "",
) -> dict[str, Path]:
    """Write all figures that the arguments allow as PNG and return their paths by name.

    "worst_mistakes" shows photos: it belongs in a run's folder, never in a bundle.

    Args:
        title: which pictures these are, such as "test split"; their number is added.
        pixels: (N, S, S, 3) uint8 in the order of the predictions, for the worst mistakes.
        scale: the model's fixed evidence scale in logits, for the worst mistakes.
        history: history.csv of a run, for the learning curves.
        prefix: put before each file's name, such as "test_".

    Raises:
        StorageError: the folder cannot be written.
    """
    folder = Path(folder)
    labels, logits, names = predictions.labels, predictions.logits, predictions.label_names
    drawn = {
        "roc": roc(labels, logits, names, title),
        "precision_recall": precision_recall(labels, logits, names, title),
        "confusion_matrix": confusion(labels, logits, names, title),
        "reliability": reliability(labels, logits, title),
    }
    if history is not None:
        drawn["learning_curves"] = learning_curves(history)
    if pixels is not None:
        drawn["worst_mistakes"] = worst_mistakes(predictions, pixels, scale, title)
    paths = {}
    for name, figure in drawn.items():
        if figure is not None:
            own = "" if name == "learning_curves" else prefix  # they show train and validation
            paths[name] = folder / f"{own}{name}.png"
            write_png(figure, paths[name])
    return paths


# Curves -----------------------------------------------------------------------------------------------------


def learning_curves(history: str | Path) -> Figure:
    """Loss, accuracy and learning rate over the steps of a run, from its history.csv.

    Raises:
        DamagedError: the history is missing or holds no steps.
    """
    columns = read_history(history)
    step, epochs = columns["step"], int(np.nanmax(columns["epoch"]))
    figure = new_figure(13, 4.4)
    loss, accuracy, rate = figure.subplots(1, 3)
    for axes, measure in ((loss, "loss"), (accuracy, "accuracy")):
        for number, part in enumerate(("train", "validation")):
            _line(axes, step, columns.get(f"{part}_{measure}"), part, number)
    _line(accuracy, step, columns.get("validation_roc_auc"), "validation ROC AUC", 2)
    _line(rate, step, columns.get("learning_rate"), "learning rate", 0)
    titles = ("Log loss", "Accuracy and ROC AUC", "Learning rate")
    for axes, title, name in zip((loss, accuracy, rate), titles, ("log loss", "share", "rate"), strict=True):
        axes.set(title=title, xlabel="step (batches)", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    loss.legend(frameon=False)
    accuracy.legend(frameon=False, loc="lower right")
    loss.set_ylim(bottom=0)
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    figure.suptitle(
        f"Learning curves, train and validation split: {epochs} epoch{'s' if epochs != 1 else ''}, "
        f"{int(np.nanmax(step)):,} steps. Training is measured on augmented photos."
    )
    return figure


def learning_curve(columns: dict[str, np.ndarray], measure: str, kept: int | None = None) -> Figure:
    """One measure over the epochs, of training and of validation.

    Args:
        columns: of a run's history (`read_history`).
        measure: "loss" or "accuracy".
        kept: the row of the epoch whose weights were kept; a line marks it.
    """
    epoch = columns["epoch"]
    figure = new_figure(6.4, 4.8)
    axes = figure.subplots()
    _line(axes, epoch, columns.get(f"train_{measure}"), "training", 0)
    _line(axes, epoch, columns.get(f"validation_{measure}"), "validation", 1)
    if measure == "loss":
        _line(axes, epoch, columns.get("validation_calibrated_loss"), "validation, calibrated", 2)
        axes.set_ylim(bottom=0)
    if kept is not None:
        axes.axvline(epoch[kept], color="grey", lw=1.5, ls=(0, (1, 1)), label=f"kept: epoch {epoch[kept]:.0f}")
    axes.set(xlabel="epoch", ylabel={"loss": "log loss", "accuracy": "share of right answers"}[measure])
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if len(epoch) == 1:
        axes.set_xlim(epoch[0] - 1, epoch[0] + 1)
    axes.legend(frameon=True, framealpha=0.9, fontsize=FONT - 1)
    figure.suptitle({"loss": "Loss", "accuracy": "Accuracy"}[measure], fontsize=FONT + 2)
    return figure


def _line(axes: Axes, x: np.ndarray, y: np.ndarray | None, label: str, number: int) -> None:
    if y is None or not np.isfinite(y).any():
        return
    known = np.isfinite(y)
    marker = "o" if known.sum() <= 30 else None
    axes.plot(
        x[known],
        y[known],
        STYLES[number],
        marker=marker,
        markersize=5,
        color=COLOURS[number],
        label=label,
        lw=2,
    )


def roc(
    labels: np.ndarray,
    logits: np.ndarray,
    names: list[str],
    title: str,
    *,
    mean: bool = False,
    thresholds: tuple[float, ...] = (),
) -> Figure | None:
    """ROC curve of label 1 of two, or of each label against the rest; None where only one label occurs.

    Args:
        mean: of more than two labels, also the mean of all their curves.
        thresholds: of two labels, probabilities of label 1 whose points are marked.
    """
    curves = _ranked(labels, logits)
    if not curves:
        return None
    figure = new_figure(6.4, 6.6)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="grey", lw=1.5, label="chance")
    for number, (k, truth, odds) in enumerate(curves):
        false, true, _ = roc_curve(truth, odds)
        _curve(axes, false, true, names[k], f"AUC {auc(false, true):.5f}", number)
    if mean and len(names) > 2:
        false, true, area = mean_roc(labels, logits)
        axes.plot(false, true, color="black", lw=3, label=f"mean of all: AUC {area:.5f}")
        side = 5 * float(np.maximum(false, 1 - true).min())  # as much of the corner as lets the curve be seen
        if side <= 0.1:
            side = max(side, 0.002)
            _corner(axes, lambda inset: inset.plot(false, true, "k", lw=3), (0, side), (1 - side, 1), (0.15, 0.43))
    marked = _marked(curves[0][1], curves[0][2], thresholds) if len(curves) == 1 else []
    axes.set(xlim=(0, 1), ylim=(0, 1))
    _mark(axes, marked)
    axes.set(xlabel=_rate("False positive rate", names), ylabel=_rate("True positive rate", names))
    _square(axes, "lower right", len(curves), len(_with_curve(labels, logits.shape[1])))
    if len(curves) == 1:
        false, true, _ = roc_curve(*curves[0][1:])
        _corner(
            axes,
            lambda inset: inset.plot(false, true, color=COLOURS[0], lw=2),
            (0, 0.1),
            (0.9, 1),
            (0.42, 0.3 if len(marked) < 2 else 0.36),
            marked,
        )
    return _titled(figure, "ROC", title, len(labels))


def mean_roc(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The one-vs-rest ROC curves' mean true positive rate at each false positive rate, and the mean of their areas."""
    odds = log_odds(logits)
    curves = [roc_curve(labels == k, odds[:, k])[:2] for k in _with_curve(labels, logits.shape[1])]
    false = np.unique(np.concatenate([np.linspace(0, 1, 1001), *(curve[0] for curve in curves)]))
    true = np.mean([np.interp(false, *curve) for curve in curves], axis=0)
    return np.r_[0, false], np.r_[0, true], float(np.mean([auc(*curve) for curve in curves]))


def _marked(truth: np.ndarray, odds: np.ndarray, thresholds: tuple[float, ...]) -> list[tuple[float, float, float]]:
    """(threshold, false positive rate, true positive rate) of thresholds on the probability."""
    found = []
    for threshold in thresholds:
        positive = odds >= np.log(threshold / (1 - threshold))
        found.append((threshold, float(positive[~truth].mean()), float(positive[truth].mean())))
    return found


def _mark(axes: Axes, marked: Sequence[tuple[float, float, float]]) -> None:
    """Mark those within the axes; one outside would take the layout's room, since marks stick out of the frame."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for number, (threshold, false, true) in enumerate(marked, start=1):
        if not (left <= false <= right and bottom <= true <= top):
            continue
        axes.plot(
            [false], [true], "os^D"[(number - 1) % 4], ms=9, color=COLOURS[number], clip_on=False, zorder=3,
            label=f"threshold {threshold:g}",
        )  # fmt: skip


def precision_recall(labels: np.ndarray, logits: np.ndarray, names: list[str], title: str) -> Figure | None:
    """Precision over recall of label 1 of two, or of each label; None where only one label occurs."""
    curves = _ranked(labels, logits)
    if not curves:
        return None
    figure = new_figure(6.4, 6.6)
    axes = figure.subplots()
    for number, (k, truth, odds) in enumerate(curves):
        precision, recall, _ = precision_recall_curve(truth, odds)
        _curve(axes, recall, precision, names[k], f"AP {average_precision_score(truth, odds):.5f}", number)
    axes.set(xlabel=_rate("Recall", names), ylabel=_rate("Precision", names))
    if len(curves) == 1:
        share = curves[0][1].mean()
        axes.axhline(share, color="grey", ls=":", lw=1.5, label=f"share of {short_name(names[1])}")
        precision, recall, _ = precision_recall_curve(*curves[0][1:])
        _corner(
            axes,
            lambda inset: inset.plot(recall, precision, color=COLOURS[0], lw=2),
            (0.9, 1),
            (0.9, 1),
            (0.2, 0.28),
        )
    _square(axes, "lower left", len(curves), len(_with_curve(labels, logits.shape[1])))
    return _titled(figure, "Precision and recall", title, len(labels))


def _ranked(labels: np.ndarray, logits: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(label, truth, log-odds) of each label that has a curve, at most as many as can be read."""
    odds = log_odds(logits)
    found = [(k, labels == k, odds[:, k]) for k in _with_curve(labels, logits.shape[1])]
    return sorted(sorted(found, key=lambda curve: -curve[1].sum())[:MOST_LINES], key=lambda curve: curve[0])


def _with_curve(labels: np.ndarray, count: int) -> list[int]:
    """Labels that some photos have and others have not: without both there is no curve."""
    wanted = [1] if count == 2 else range(count)
    return [k for k in wanted if 0 < (labels == k).sum() < len(labels)]


def _curve(axes: Axes, x: np.ndarray, y: np.ndarray, name: str, value: str, number: int) -> None:
    colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
    axes.plot(x, y, style, color=colour, lw=2, label=f"{short_name(name)}: {value}", clip_on=False)


def _corner(
    axes: Axes,
    draw: Callable[[Axes], object],
    x: tuple[float, float],
    y: tuple[float, float],
    at: tuple[float, float],
    marked: Sequence[tuple[float, float, float]] = (),
) -> None:
    """The corner where a good curve lives, enlarged: at full size it hides in the frame."""
    inset = axes.inset_axes((*at, 0.5, 0.5))
    draw(inset)
    inset.set(xlim=x, ylim=y)
    _mark(inset, marked)
    inset.xaxis.set_major_locator(MaxNLocator(4))
    inset.yaxis.set_major_locator(MaxNLocator(4))
    inset.tick_params(labelsize=FONT - 2)
    inset.set_title("corner, enlarged", fontsize=FONT - 1)
    axes.indicate_inset_zoom(inset, edgecolor="grey")


def _rate(text: str, names: list[str]) -> str:
    return f"{text} ({short_name(names[1])} is positive)" if len(names) == 2 else f"{text} (one label against the rest)"


def _square(axes: Axes, legend: str, lines: int, labels: int) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_aspect("equal")
    title = None if lines == labels else f"the {lines} most frequent of {labels} labels"
    axes.legend(loc=legend, title=title, frameon=True, framealpha=0.9, fontsize=FONT - 1 if lines < 8 else FONT - 3)


# Answers ----------------------------------------------------------------------------------------------------


def confusion(labels: np.ndarray, logits: np.ndarray, names: list[str], title: str) -> Figure:
    """Photos by true and answered label; colour is the share of the true label, so rare labels show too."""
    count = len(names)
    matrix = count_confusions(labels, np.argmax(logits, axis=1), labels=range(count))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.45 * count + 2.4, 5.4, 10.5))
    figure = new_figure(side + 0.9, side + 0.5)
    axes = figure.subplots()
    blues = LinearSegmentedColormap.from_list("blues", ["#FFFFFF", COLOURS[0], "#00324F"])
    shown = axes.imshow(shares, cmap=blues, vmin=0, vmax=1)
    figure.colorbar(shown, ax=axes, fraction=0.045, pad=0.03, label="share of the true label")
    if count <= LABELLED_CELLS:
        for i, j in np.ndindex(count, count):
            ink = "white" if shares[i, j] > 0.4 else "black"
            text = f"{matrix[i, j]:,}" + (f"\n{100 * shares[i, j]:.1f} %" if count <= 4 else "")
            if matrix[i, j] or count <= 4:
                axes.text(
                    j,
                    i,
                    text,
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=FONT if count <= 10 else FONT - 4,
                )
    every = max(1, count // LABELLED_CELLS)
    ticks = range(0, count, every)
    shortened = [short_name(names[k]) for k in ticks]
    axes.set_xticks(ticks, shortened, rotation=0 if sum(map(len, shortened)) <= 5 * side else 90)
    axes.set_yticks(ticks, shortened)
    axes.set(xlabel="Answer", ylabel="Truth")
    return _titled(figure, "Confusion matrix", title, len(labels))


def reliability(labels: np.ndarray, logits: np.ndarray, title: str) -> Figure:
    """Share of right answers over the top probability, in 15 bins, and how many photos each bin holds."""
    found = calibration(labels, logits)
    photos = found.photos
    used = photos > 0
    mean, share = found.confidence[used], found.right[used]
    low, high = wilson(share, photos[used])
    figure = new_figure(6.4, 7.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], ":", color="grey", lw=1.5, label="perfectly calibrated")
    upper.errorbar(
        mean, share, yerr=[share - low, high - share], fmt="o", ms=7, capsize=3, color=COLOURS[0],
        label="photos of one bin, 95 % interval",
    )  # fmt: skip
    start = 1 / logits.shape[1]
    edge = min(start, found.certainty.min()) - 0.02
    upper.set(ylabel="Share of right answers", ylim=(-0.02, 1.03), xlim=(edge, 1.02))
    upper.legend(loc="upper left", frameon=False)
    upper.text(0.98, 0.05, f"expected calibration error {found.error:.4f}", transform=upper.transAxes, ha="right")
    centres = (np.arange(BINS) + 0.5) / BINS
    lower.bar(centres, photos, width=0.9 / BINS, color=COLOURS[5], edgecolor=COLOURS[0])
    lower.set_yscale("log")
    lower.set(
        xlabel=f"Top probability (from 1/{logits.shape[1]} up)",
        ylabel="Photos (log)",
        ylim=(0.7, 2 * photos.max()),
    )
    return _titled(figure, "Reliability", title, len(labels))


# Runs side by side ------------------------------------------------------------------------------------------

SHORTER_IS_BETTER = {
    "accuracy": ("Wrong answers", lambda value: 100 * (1 - value), "per cent", "{:.2f} %"),
    "roc_auc": ("ROC AUC short of 1", lambda value: 1 - value, "1 − AUC", "{:.5f}"),
    "log_loss": ("Log loss", lambda value: value, "log loss", "{:.4f}"),
}


def score_bars(
    names: list[str],
    scores: list[dict],
    colours: list[int],
    title: str,
    measures: tuple[str, ...] = tuple(SHORTER_IS_BETTER),
) -> Figure:
    """Runs by their errors: a panel for each measure, in it a bar for each run from 0 on, with its interval.

    Errors, because bars of accuracies near 1 look alike, and bars that do not start at 0 exaggerate.

    Args:
        names: of the runs, from the top down.
        scores: of each run, as `training.results.bootstrap.metrics` gives them.
        colours: a number for each run; runs of one number are the same except for the seed.
        measures: keys of SHORTER_IS_BETTER.
    """
    figure = new_figure(6.4 if len(measures) == 1 else 4.5 * len(measures), 1.9 + 0.5 * len(names))
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        what, error, unit, form = SHORTER_IS_BETTER[measure]
        ends = [_bar(axes, place, found[measure], error, colour, form)
                for place, (found, colour) in enumerate(zip(scores, colours, strict=True))]  # fmt: skip
        axes.set(title=f"{what} (shorter is better)", xlabel=unit, xlim=(0, 1.35 * max(ends) or 1))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(names)), [short_name(name, 28) for name in names])
    panels[0].invert_yaxis()
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def _bar(axes: Axes, place: int, score: dict, error: Callable[[float], float], colour: int, form: str) -> float:
    """One bar with its interval and its number; return where it ends."""
    if score["value"] is None:
        axes.text(0, place, " not measured", va="center", color="grey", fontsize=FONT - 1)
        return 0.0
    value = error(score["value"])
    low, high = sorted(error(score[end]) for end in ("low", "high"))
    axes.barh(place, value, height=0.62, color=COLOURS[colour % 6], alpha=0.55)
    off = [[max(value - low, 0)], [max(high - value, 0)]]
    axes.errorbar(value, place, xerr=off, fmt="none", ecolor="black", capsize=4, lw=1.5)
    end = max(high, value)
    axes.annotate(form.format(value), (end, place), (6, 0), textcoords="offset points", va="center", fontsize=FONT - 1)
    return end


# Photos -----------------------------------------------------------------------------------------------------


def worst_mistakes(
    predictions: "Predictions", pixels: np.ndarray, scale: float | None, title: str, *, most: int = 20
) -> Figure | None:
    """The wrong answers of the highest probability, each photo beside the evidence for the answer it got.

    Args:
        pixels: (N, S, S, 3) uint8 in the order of the predictions; only the rows shown are read.
        scale: the model's fixed scale in logits; without it or without evidence, photos are shown alone.

    Returns:
        The sheet; None where there is no mistake.
    """
    probabilities = softmax(predictions.logits)
    guess = np.argmax(predictions.logits, axis=1)
    wrong = np.flatnonzero(guess != predictions.labels)
    if len(wrong) == 0:
        return None
    shown = wrong[np.argsort(-probabilities[wrong, guess[wrong]], kind="stable")][:most]
    mapped = predictions.evidence is not None and scale is not None
    across = min(4, len(shown))
    down = -(-len(shown) // across)
    figure = new_figure(max((3.9 if mapped else 2.5) * across, 6.5), 2.4 * down + 1.4 + 0.3 * mapped)
    grid = figure.add_gridspec(down + mapped, across, height_ratios=[1] * down + [0.12] * mapped)
    for place, row in enumerate(shown):
        axes = figure.add_subplot(grid[place // across, place % across])
        picture = Image.fromarray(np.asarray(pixels[row]))
        if mapped:
            values = shown_map(predictions.evidence[row], guess[row])
            picture = _side_by_side(picture, overlay(picture, values, scale, OPACITY))
        axes.imshow(picture)
        axes.set_axis_off()
        names = predictions.label_names
        truth, answer = short_name(names[predictions.labels[row]]), short_name(names[guess[row]])
        probability = percent(probabilities[row, guess[row]])
        axes.set_title(
            f"truth {truth}, answer {answer} {probability}\n{predictions.hashes[row][:8]}…",
            fontsize=FONT - 2,
        )
    if mapped:
        _colour_bar(figure.add_subplot(grid[down, :]), scale, across)
    figure.suptitle(
        f"Worst mistakes: {_about(title, len(predictions))}.\nThe {len(shown)} most certain of "
        f"{len(wrong):,} wrong answers",
        fontsize=FONT + 2,
    )
    return figure


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    gap = max(2, left.width // 60)
    sheet = Image.new("RGB", (left.width + gap + right.width, left.height), "white")
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + gap, 0))
    return sheet


def _colour_bar(axes: Axes, scale: float, across: int) -> None:
    """The scale of all maps on the sheet, drawn by the rule that drew them."""
    white = Image.new("RGB", (256, 8), "white")
    strip = overlay(white, np.linspace(-scale, scale, 256, dtype=np.float32)[None], scale, OPACITY)
    axes.imshow(strip, extent=(-scale, scale, 0, 1), aspect="auto")
    axes.set_yticks([])
    axes.set_xticks([-scale, 0, scale], [f"≤ −{scale:.1f}", "0", f"≥ {scale:.1f}"])
    axes.set_box_aspect(0.1 / across)
    axes.set_xlabel("evidence in logits: against the answer on the left, for it on the right")


# Small pieces -----------------------------------------------------------------------------------------------


def _titled(figure: Figure, what: str, title: str, photos: int) -> Figure:
    figure.suptitle(f"{what}: {_about(title, photos)}", fontsize=FONT + 2)
    return figure


def _about(title: str, photos: int) -> str:
    """The title with the number of photos, unless it says that already."""
    return title if f"{photos:,} " in title else f"{title}, {many(photos, 'photo')}"
