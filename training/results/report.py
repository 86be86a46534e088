"""`python -m training report RUN`: one page on a run for those who want to understand it, and its numbers as JSON."""

import base64
import datetime
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image
from sklearn import metrics as sk

from hub.classifier import ImageClassifier
from hub.errors import BundleError, DataError, ImageError, StorageError
from hub.explain import METHODS, Method, best_for
from hub.heatmaps import colour, fixed_scale, overlay, shown_map
from hub.metrics import Dataset
from hub.record import Predictions
from hub.scores import BINS, SCORES, calibration, duration, log_odds, percent, score, softmax
from training.files import write_json
from training.pages.drawing import cut
from training.pages.html import figure_html, listed, write_page
from training.photos.data import load_photos
from training.results import figures
from training.results.bootstrap import scores_of_run
from training.results.verdicts import RULES, augmentation, guessing, judge, training_handicaps
from training.runs import Run, read_run, run_folders

SHOWN = 9  # pictures of each kind
LOT = 0  # by which right answers are drawn
BOXES = 12  # labels that get a 2×2 table of their own
LONG = 20  # labels in the order of the model; of more the weakest come first
FEW = 20  # pictures of a label, below which its own scores are rough
OTHER_THRESHOLDS = (0.9, 0.1, 0.99, 0.01, 0.999, 0.001)  # beside 0.5; the first that changes most is shown
WORST = 10  # pictures whose share of the log loss is told
SIDE = 224  # pixels of a shown picture: smaller ones are enlarged
HELD_BACK = ("l2", "weight_decay", "dropout", "head_dropout", "label_smoothing", "average_decay", "freeze")


def write_report(
    folder: str | Path,
    *,
    out: str | Path | None = None,
    data: str | None = None,
    split: str | None = None,
    cache: Path | None = None,
    progress: bool = True,
    echo: Callable[[str], None] = print,
) -> Path:
    """Write a run's report.html, and report.json beside it; return the page's path.

    Args:
        folder: a run (`training.runs.read_run`).
        out: the page, or an existing folder for it; default `folder`/report.html.
        data: where the pictures are; default where the run had them.
        split: "test" or "validation"; default test where there is a record of it.
        cache: as for `training.photos.data.load_photos`.

    Raises:
        DataError: it is no finished run, or has no such split. StorageError: the page cannot be written.
    """
    run = read_run(folder)
    split = run.split(split)
    found = run.predictions.subset(split)
    page = run.folder / "report.html" if out is None else Path(out)
    page = page / "report.html" if page.is_dir() else page
    numbers = measure(run, split, found)
    samples = choose_samples(found)
    shown = show_samples(run, found, samples, data or place_of(run), cache, progress)
    if shown["missing"]:
        echo(f"{shown['missing']} {shown['reason']}")
    write_json(page.with_suffix(".json"), plain({**numbers, "samples": shown["facts"], "heatmaps": shown["method"]}))
    write_page(
        page, "report.html", title=f"Report on {run.name}", run=run, split=split, names=found.label_names,
        numbers=numbers, shown=shown, figures=draw(run, split, found, numbers), head=head(run), rules=RULES,
        scores=SCORES, score=score, not_known=not_known(run, split, numbers, shown), cut=cut, marked=marked,
        boxes=box_rows(numbers["one_vs_rest"]), weakest_first=len(found.label_names) > LONG, worst=WORST, few=FEW,
        training_handicaps=training_handicaps(run.settings),
    )  # fmt: skip
    return page


def place_of(run: Run) -> str | None:
    """Where a run had its pictures, if it says so."""
    places = run.record.get("places")
    place = places.get("data") if isinstance(places, dict) else None
    return place if isinstance(place, str) else None


# Numbers ----------------------------------------------------------------------------------------------------


def measure(run: Run, split: str, found: Predictions) -> dict[str, Any]:
    """All numbers of the page that need no pictures."""
    labels, logits, names = found.labels, found.logits, found.label_names
    chance = guessing(_training_shares(run, names))
    held = int((run.predictions.splits == "validation").sum())
    rows = one_vs_rest(labels, logits, names)
    return {
        "run": run.name,
        "recipe": run.recipe,
        "split": split,
        "pictures": len(found),
        "labels": names,
        "settings": run.record["settings"],
        "epochs": len(run.history["epoch"]),
        "kept_epoch": int(run.history["epoch"][run.kept]),
        "temperature": run.training.temperature,
        "history": run.history,
        "verdicts": [vars(v) for v in judge(run.history, run.settings, chance=chance, photos=held or None)],
        "scores": {name: scores_of_run(run, name) for name in sorted(run.splits, key=lambda name: name != split)},
        "classification_report": classification_report(labels, logits, names),
        "confusion_matrix": sk.confusion_matrix(labels, logits.argmax(1), labels=range(len(names))),
        "confusions": commonest_confusions(labels, logits, names),
        "one_vs_rest": rows,
        "thresholds": threshold_example(labels, logits, rows),
        "cross_entropy": cross_entropy(labels, logits, chance),
        "reliability": reliability(labels, logits),
    }


def classification_report(labels: np.ndarray, logits: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Precision, recall, F1 and support of each label and their means, as scikit-learn's report has them."""
    guess, every = logits.argmax(1), range(len(names))
    each = sk.precision_recall_fscore_support(labels, guess, labels=every, zero_division=0)
    rows = [
        {"label": name, "precision": p, "recall": r, "f1": f, "support": int(n)}
        for name, p, r, f, n in zip(names, *each, strict=True)
    ]
    means = {}
    for average in ("macro", "weighted"):
        p, r, f, _ = sk.precision_recall_fscore_support(labels, guess, labels=every, average=average, zero_division=0)
        means[average] = {"precision": p, "recall": r, "f1": f, "support": len(labels)}
    if len(names) > LONG:
        rows.sort(key=lambda row: row["f1"])
    return {"labels": rows, **means, "accuracy": float((guess == labels).mean())}


def commonest_confusions(labels: np.ndarray, logits: np.ndarray, names: list[str], most: int = 10) -> list[dict]:
    """The pairs of a true and a wrongly answered label that occur most often."""
    matrix = sk.confusion_matrix(labels, logits.argmax(1), labels=range(len(names)))
    wrong = matrix * (1 - np.eye(len(names), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [np.unravel_index(place, wrong.shape) for place in order]
    return [
        {"truth": names[i], "answer": names[j], "pictures": int(wrong[i, j]), "share": wrong[i, j] / matrix[i].sum()}
        for i, j in pairs
        if wrong[i, j]
    ]


def one_vs_rest(labels: np.ndarray, logits: np.ndarray, names: list[str]) -> list[dict]:
    """Each label against all others: the four counts of the answers, and the areas of its curves.

    A rate whose pictures do not occur is None.
    """
    guess, odds = logits.argmax(1), log_odds(logits)
    rows = []
    for k, matrix in enumerate(sk.multilabel_confusion_matrix(labels, guess, labels=range(len(names)))):
        (tn, fp), (fn, tp) = matrix.tolist()
        both = tp + fn and fp + tn
        rows.append(
            {
                "label": names[k], "tp": tp, "fn": fn, "fp": fp, "tn": tn,
                "tpr": tp / (tp + fn) if tp + fn else None, "fpr": fp / (fp + tn) if fp + tn else None,
                "roc_auc": float(sk.roc_auc_score(labels == k, odds[:, k])) if both else None,
                "average_precision": float(sk.average_precision_score(labels == k, odds[:, k])) if both else None,
            }
        )  # fmt: skip
    return rows


def box_rows(rows: list[dict]) -> list[dict]:
    """The labels that get a 2×2 table of their own: all, or those that are found the worst."""
    if len(rows) == 2:
        return rows[1:]
    if len(rows) <= BOXES:
        return rows
    return sorted(rows, key=lambda row: 2 if row["tpr"] is None else row["tpr"])[:BOXES]


def threshold_example(labels: np.ndarray, logits: np.ndarray, rows: list[dict]) -> dict[str, Any] | None:
    """How one label is told at 0.5 and at another threshold; None where no label has both kinds of picture.

    The label is the second of two, else the one that is found the worst; `rows` are those of `one_vs_rest`.
    """
    able = [k for k, row in enumerate(rows) if row["roc_auc"] is not None]
    if not able:
        return None
    k = 1 if len(rows) == 2 else min(able, key=lambda k: rows[k]["tpr"])
    truth, odds = labels == k, log_odds(logits)[:, k]
    at = {threshold: _counts_at(truth, odds, threshold) for threshold in (0.5, *OTHER_THRESHOLDS)}
    moved = {t: (at[t]["tp"] != at[0.5]["tp"]) + (at[t]["fp"] != at[0.5]["fp"]) for t in OTHER_THRESHOLDS}
    second = max(moved, key=moved.get)  # the first of the largest
    area, changes = rows[k]["roc_auc"], moved[second] > 0
    return {"label": rows[k]["label"], "roc_auc": area, "rows": [at[0.5], at[second]], "changes": changes}


def _counts_at(truth: np.ndarray, odds: np.ndarray, threshold: float) -> dict[str, float]:
    positive = odds >= math.log(threshold / (1 - threshold))
    tp, fp = int((positive & truth).sum()), int((positive & ~truth).sum())
    fn, tn = int(truth.sum()) - tp, int((~truth).sum()) - fp
    return {"threshold": threshold, "tp": tp, "fn": fn, "fp": fp, "tn": tn,
            "tpr": tp / (tp + fn), "fpr": fp / (fp + tn)}  # fmt: skip


def cross_entropy(labels: np.ndarray, logits: np.ndarray, chance: float) -> dict[str, float]:
    """What the log loss is made of: each picture's −ln of the probability that its true label got."""
    own = softmax(logits)[np.arange(len(labels)), labels]
    tiny = np.finfo(np.float64).eps  # scikit-learn's clipping
    losses = -np.log(np.clip(own, tiny, 1 - tiny))
    worst = np.sort(losses)[::-1][:WORST]
    return {
        "mean": losses.mean(), "typical_probability": math.exp(-losses.mean()), "guessing": chance,
        "even": math.log(logits.shape[1]), "median": float(np.median(losses)), "largest": losses.max(),
        "smallest_probability": own.min(), "share_of_worst": worst.sum() / losses.sum() if losses.sum() else 0.0,
    }  # fmt: skip


def reliability(labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """The bins of the reliability diagram that hold pictures, and the expected calibration error."""
    found = calibration(labels, logits)
    photos, confidence, right = found.photos, found.confidence, found.right
    rows = [
        {
            "from": b / BINS, "to": (b + 1) / BINS, "pictures": int(photos[b]),
            "mean_probability": confidence[b], "share_right": right[b],
        }
        for b in np.flatnonzero(photos)
    ]  # fmt: skip
    return {"expected_calibration_error": found.error, "bins": rows}


def _training_shares(run: Run, names: list[str]) -> np.ndarray:
    """Each label's share of the training pictures; all alike where they are not recorded."""
    splits = (run.metrics.dataset.splits if run.metrics.dataset else None) or {}
    shares = (splits["train"].share if "train" in splits else None) or {}
    found = np.array([shares.get(name, 0.0) for name in names])
    return found if shares.keys() >= set(names) and found.sum() > 0 else np.ones(len(names))


def plain(value: Any) -> Any:
    """The same as JSON can hold it: lists for arrays, None for what is no number."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Words ------------------------------------------------------------------------------------------------------


def head(run: Run) -> list[tuple[str, str]]:
    """What the run is, as rows of a table; what is not recorded is left out."""
    settings, training, data = run.settings, run.training, run.metrics.dataset or Dataset()
    kind = settings.get("backbone") or settings.get("network")
    last = "a map of evidence, then its mean" if run.config.evidence else "classic, without a map"
    model = run.bundle / "model.keras"
    started = training.started or run.record.get("started")
    machine = next((one for one in (training.machine, run.record.get("machine")) if one and isinstance(one, dict)), {})
    seconds = run.history.get("seconds", np.array([np.nan]))[-1]
    kept = int(run.history["epoch"][run.kept])
    held_back = [f"{key}={settings[key]}" for key in HELD_BACK if settings.get(key)]
    rows = [
        ("Recipe", run.recipe),
        ("Data", _data_words(data)),
        ("Labels", listed(run.predictions.label_names)),
        ("Model", f"{kind}, for pictures of {run.config.image_size} × {run.config.image_size}; head: {last}"),
        ("Its file", f"{model.stat().st_size / 1e6:.1f} MB (model.keras)" if model.is_file() else ""),
        ("Steps", f"{settings['optimizer']}, learning_rate={settings['learning_rate']:g} ({settings['schedule']}), "
                  f"batch_size={settings['batch_size']}"),
        ("Epochs", f"{len(run.history['epoch'])} of {settings['epochs']}; the weights after epoch {kept} were kept "
                   f"(patience={settings['patience']})"),
        ("Held back by", ", ".join(held_back) or "nothing"),
        ("Augmentation", ", ".join(f"{key}={value}" for key, value in augmentation(settings).items()) or "none"),
        ("Seed", str(settings["seed"])),
        ("Started", _date(started)),
        ("Time", duration(seconds) if math.isfinite(seconds) else ""),
        ("Machine", ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None)),
        ("Command", training.command or ""),
    ]  # fmt: skip
    return [(name, text) for name, text in rows if text]


def _data_words(data: Dataset) -> str:
    splits = data.splits or {}
    sizes = [f"{name} {part.photos:,}" for name, part in splits.items() if part.photos]
    return f"{data.name or 'not recorded'}{': ' + ', '.join(sizes) if sizes else ''}"


def marked(text: str) -> Markup:
    """Escaped text in which what stands between backticks is code."""
    pieces = enumerate(text.split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in pieces)


def _date(text: Any) -> str:
    try:
        return datetime.datetime.fromisoformat(text).strftime("%d %B %Y, %H:%M %Z").strip()
    except (TypeError, ValueError):
        return ""


def not_known(run: Run, split: str, numbers: dict, shown: dict) -> list[str]:
    """Sentences on what these numbers do not say."""
    rare = [row["label"] for row in numbers["classification_report"]["labels"] if row["support"] < FEW]
    found = [
        "How much of this is luck in training: another `seed` gives another model. Train it again with other seeds, "
        "and `python -m training compare` shows the spread. The intervals only count the luck of which pictures were "
        "drawn.",
    ]
    if split == "validation":
        found.append(
            "How good it is on pictures that were not used to choose anything: the kept epoch and the temperature were "
            "chosen on these validation pictures, so their scores are optimistic."
        )
    else:
        found.append(
            "How often somebody has looked at the test split and then changed something. Its scores are fair only if "
            "it was scored once, after everything was chosen."
        )
    found.append(
        "How it does on pictures from elsewhere: these have the same source as the training pictures. "
        "`python -m training evaluate` measures others."
    )
    found.append(
        "Whether the labels are right. A wrong label counts as a mistake of the model; the worst mistakes are where "
        "to look for some."
    )
    found.append("Whether near copies are in two splits: only pictures with exactly the same pixels are kept in one.")
    if rare:
        found.append(
            f"Much about {listed(rare, 5)}: there are fewer than {FEW} pictures of "
            f"{'it' if len(rare) == 1 else 'each'}, so {'its' if len(rare) == 1 else 'their'} own scores are rough."
        )
    if shown["method"]:
        found.append(
            "Why, in terms of pixels: the evidence adds up to the score exactly, but one cell has seen far more of the "
            "picture than its own square."
            if shown["method"] == "Evidence"
            else f"Why, exactly: {shown['method']} is computed afterwards and does not add up to the score."
        )
    return found


# Figures ----------------------------------------------------------------------------------------------------


def draw(run: Run, split: str, found: Predictions, numbers: dict) -> dict[str, Any]:
    """The figures as HTML by name; what cannot be drawn is left out."""
    labels, logits, names, title = found.labels, found.logits, found.label_names, f"{split} split"
    example = numbers["thresholds"]
    thresholds = tuple(row["threshold"] for row in example["rows"]) if example and len(names) == 2 else ()
    made = {
        "loss": (figures.learning_curve(run.history, "loss", run.kept), "Loss over the epochs"),
        "accuracy": (figures.learning_curve(run.history, "accuracy", run.kept), "Accuracy over the epochs"),
        "confusion": (figures.confusion(labels, logits, names, title), "Confusion matrix"),
        "roc": (figures.roc(labels, logits, names, title, mean=True, thresholds=thresholds), "ROC curve"),
        "precision_recall": (figures.precision_recall(labels, logits, names, title), "Precision over recall"),
        "reliability": (figures.reliability(labels, logits, title), "Reliability diagram"),
    }
    return {name: figure_html(figure, text) for name, (figure, text) in made.items() if figure is not None}


# Pictures ---------------------------------------------------------------------------------------------------


def choose_samples(found: Predictions) -> dict[str, np.ndarray]:
    """Rows to look at: the surest wrong answers, the least sure of the others, right ones drawn at random."""
    probabilities = softmax(found.logits)
    guess = found.logits.argmax(1)
    ranked = np.sort(probabilities, axis=1)
    right, wrong = np.flatnonzero(guess == found.labels), np.flatnonzero(guess != found.labels)
    worst = wrong[np.argsort(-ranked[wrong, -1], kind="stable")][:SHOWN]
    others = np.setdiff1d(np.arange(len(found)), worst)
    unsure = others[np.argsort((ranked[:, -1] - ranked[:, -2])[others], kind="stable")][:SHOWN]
    right = np.setdiff1d(right, unsure)
    drawn = np.random.default_rng(LOT).permutation(right)[:SHOWN]
    return {"right": np.sort(drawn), "wrong": worst, "unsure": unsure}


def show_samples(
    run: Run,
    found: Predictions,
    samples: dict[str, np.ndarray],
    data: str | None,
    cache: Path | None,
    progress: bool,
) -> dict[str, Any]:
    """The samples with what was said of them, with their pictures and maps where they are to be had.

    Returns:
        groups: name -> cards for the page. facts: the same for JSON. missing: a sentence where there are pictures
        missing, else None, and reason: the one for the terminal. method: what the maps are, None without any; then
        no_maps says why, where there are pictures. scale: of the colours; bar: the address of a picture of them.
    """
    rows = np.unique(np.concatenate([*samples.values()])).astype(int)
    pixels, missing, reason = find_pixels(run, found, rows, data, cache, progress)
    maps, method, scale, refusal = explain(run, found, pixels)
    cards = {row: _card(found, row, pixels.get(row), maps.get(row, []), scale) for row in rows.tolist()}
    return {
        "groups": {name: [cards[row] for row in chosen.tolist()] for name, chosen in samples.items()},
        "facts": {name: [cards[row]["facts"] for row in chosen.tolist()] for name, chosen in samples.items()},
        "missing": missing,
        "reason": reason,
        "method": method.title if method else None,
        "no_maps": refusal,
        "signed": bool(method and method.signed),
        "scale": scale,
        "bar": _bar(method.signed) if method else None,
    }


def find_pixels(
    run: Run, found: Predictions, rows: np.ndarray, data: str | None, cache: Path | None, progress: bool
) -> tuple[dict[int, np.ndarray], str | None, str]:
    """The pictures of some rows, told by their hash: row -> uint8 (S, S, 3).

    And a sentence for the page if any is missing, which names no place on this machine, and the reason for the
    terminal, which does.
    """
    if data is None:
        return {}, "The run does not say where its pictures are, so none are shown.", "Name their place with --data."
    try:
        photos = load_photos(data, run.config.image_size, cache=cache, progress=progress)
    except (DataError, StorageError) as refusal:
        return {}, "The pictures could not be loaded, so none are shown.", str(refusal)
    place = {name: number for number, name in enumerate(photos.hashes.tolist())}
    here = {int(row): place[found.hashes[row]] for row in rows if found.hashes[row] in place}
    pixels = {row: np.asarray(photos.pixels[number]) for row, number in here.items()}
    lost = len(rows) - len(pixels)
    if not lost:
        return pixels, None, ""
    reason = f"{data} does not hold {'them' if not pixels else 'all of them'}, by the hash of their pixels."
    if not pixels:
        return {}, "The pictures that were given are not the recorded ones, so none are shown.", reason
    return pixels, f"{lost} of these {len(rows)} pictures are not among those that were given.", reason


def explain(
    run: Run, found: Predictions, pixels: dict[int, np.ndarray]
) -> tuple[dict[int, list], Method | None, float, str | None]:
    """What speaks for the answer (and, of more than two labels, for the truth where that is another), as maps.

    Returns:
        row -> [(label, (h, w))], the method, the scale of all maps, and why there are none.
    """
    if not pixels:
        return {}, None, 1.0, None
    asked = {row: _asked(found, row) for row in pixels}
    if found.evidence is not None:
        maps = {row: [(k, shown_map(found.evidence[row], k)) for k in labels] for row, labels in asked.items()}
        scale = run.config.evidence and run.config.evidence.scale
        return maps, METHODS["evidence"], scale or fixed_scale(found.evidence), None
    try:
        classifier = ImageClassifier.from_pretrained(run.bundle)
        method = best_for(classifier)
        maps = {row: [(k, method(classifier, pixels[row], k).values) for k in asked[row]] for row in pixels}
    except (BundleError, ImageError) as error:  # the page is worth having without maps
        return {}, None, 1.0, f"No heatmaps could be drawn. {error}"
    values = np.abs([part for row in maps.values() for _, part in row])
    return maps, method, float(values.max()) or 1.0, None


def _asked(found: Predictions, row: int) -> list[int]:
    guess, truth = int(found.logits[row].argmax()), int(found.labels[row])
    return [guess] if guess == truth or len(found.label_names) == 2 else [guess, truth]


def _card(found: Predictions, row: int, pixels: np.ndarray | None, maps: list, scale: float) -> dict[str, Any]:
    probabilities = softmax(found.logits[row])
    guess, truth, names = int(probabilities.argmax()), int(found.labels[row]), found.label_names
    facts = {
        "hash": str(found.hashes[row]), "truth": names[truth], "answer": names[guess],
        "probability": probabilities[guess], "probability_of_truth": probabilities[truth],
    }  # fmt: skip
    views = []
    if pixels is not None:
        picture = _enlarged(pixels)
        views.append({"address": _jpeg(picture), "says": "the picture"})
        for k, values in maps:
            drawn = overlay(picture, values, scale, figures.OPACITY)
            nothing = "" if values.any() else ": nothing"
            views.append({"address": _jpeg(drawn), "says": f"for {cut(names[k], 20)}{nothing}"})
    return {
        "facts": facts, "views": views, "right": guess == truth,
        "sure": percent(probabilities[guess]), "truth_sure": percent(probabilities[truth]),
    }  # fmt: skip


def _enlarged(pixels: np.ndarray) -> Image.Image:
    """The picture as the model sees it; a small one enlarged by a whole factor, so that its pixels stay sharp."""
    factor = max(1, round(SIDE / len(pixels)))
    return Image.fromarray(np.ascontiguousarray(pixels.repeat(factor, 0).repeat(factor, 1)))


def _jpeg(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _bar(signed: bool) -> str:
    """The colours of all maps from one end of the scale to the other."""
    values = np.linspace(-1 if signed else 0, 1, 256, dtype=np.float32)
    return _jpeg(Image.fromarray(colour(values[None].repeat(14, 0), 1.0)))


def run_reports(
    runs: list[Path],
    *,
    out: Path | None = None,
    data: str | None = None,
    split: str | None = None,
    cache: Path | None = None,
    echo: Callable[[str], None] = print,
) -> None:
    """`python -m training report RUN…`: a page for each run, and of a folder of several seeds for each of these.

    Raises:
        DataError: `out` with several runs, or a folder that is no finished run.
    """
    runs = run_folders(runs)
    if out is not None and len(runs) > 1:
        raise DataError("--out names one page; leave it out for several runs, or give one run at a time.")
    for folder in runs:
        page = write_report(folder, out=out, data=data, split=split, cache=cache, echo=echo)
        echo(f"The report on {folder} is {page}.")
