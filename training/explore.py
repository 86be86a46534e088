"""Look at the data first: what there is, what is odd, and which labels look wrong, on a page.

No trained network is needed. Wrong labels are looked for by confident learning (Northcutt, Jiang and Chuang 2021,
https://arxiv.org/abs/1911.00068) on the answers of a linear classifier that never saw the picture it answers for.
Its features are how strongly the quarters of a picture respond to small patches of the pictures themselves, whitened
(after Coates, Ng and Lee 2011, "An analysis of single-layer networks in unsupervised feature learning").
"""

import base64
import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from tqdm import tqdm

from hub.errors import DataError
from hub.files import write_aside
from hub.images import to_tensor
from training.data import Photos, Stored, load_stored, write_problems
from training.figures import COLOURS, FONT, cut, new_figure, short_name, wilson
from training.files import write_json, write_rows
from training.pages import DPI, figure_html, write_page

if TYPE_CHECKING:
    from hub.classifier import ImageClassifier

SIZE = 64  # pixels: enough for the numbers; pictures that are shown are decoded anew
SIDE = 32  # of the pictures that are compared and judged
SPLITS = ("train", "validation", "test")
MOST = 70_000  # pictures that are compared and judged: about two minutes on two cores
MOST_VALUES = 2_000_000_000  # pixel values behind the channels' means: some seconds
MOST_ANSWERS = 30_000_000  # the judge's, pictures × labels: 240 MB
MOST_BY_MODEL = 20_000  # pictures that a trained model answers: some minutes on two cores
NEAR = 0.95  # correlation of two pictures that may be one; in CIFAR-10 nearly all such pairs are, and at 0.9 half
ALIKE_BY_NATURE = 0.05  # such pairs for each picture: digits have many, and CIFAR-10 one in two hundred
PATCH, PATCHES = 6, 200  # pixels of a patch's side; how many patches
FOLDS = 5
FEWEST = 50  # pictures for the simple judge
USELESS = 0.1  # of the way from "always the most frequent label" to "always right"
SAMPLES, SAMPLES_OF_ONE = 240, 10  # pictures of the sample grid, and of one label
SHOWN = 36  # pictures, or pairs, of any other grid
SHOWN_BY_WEAK, SHOWN_BY_NATURE = 18, 9  # where most of them are probably no find
LISTED = 100  # rows of a table on the page; problems.csv holds all
LONG = 30  # labels: more are drawn as a curve
THUMB = 160  # pixels of a shown picture's longer side
ROW = ["split", "row", "file", "hash", "used_as"]
DOUBT_COLUMNS = [*ROW, "label", "label_probability", "supposed", "supposed_probability"]
PAIR_COLUMNS = ["correlation", *ROW, "label", *(f"other_{name}" for name in [*ROW, "label"])]


def explore(
    data: str | Path,
    out: Path | None = None,
    *,
    size: int | None = None,
    model: str | None = None,
    cache: Path | None = None,
    progress: bool = True,
    echo: Callable[[str], None] = print,
) -> dict:
    """Measure a data set, and write index.html with its figures, summary.json and three lists of pictures.

    Args:
        data: a data set's name on the Hub, or a folder that `load_dataset` understands.
        out: folder for them; default runs/explore-NAME.
        size: side in pixels that the pictures are squashed to; default 64, or the model's.
        model: a bundle, or its name on the Hub, that judges the labels in the simple judge's place.
        cache: folder for the decoded pictures.

    Returns:
        What summary.json holds.

    Raises:
        DataError: no such data set, nothing readable in it, or a size or labels that are not the model's.
        BundleError: no such model. StorageError: the folder cannot be written.
    """
    classifier = _classifier(model, size) if model is not None else None
    size = classifier.image_size if classifier else size or SIZE
    photos, stored = load_stored(data, size, cache=cache, progress=progress)
    folder = Path(out) if out else Path("runs", f"explore-{_name(data)}")

    drawn = draw(photos.hashes, MOST)
    small = shrink(photos, drawn, progress)
    near = [_pair(photos, stored, drawn[a], drawn[b], alike) for a, b, alike in near_duplicates(small)]
    so_many = len(near) > ALIKE_BY_NATURE * len(drawn)
    near.sort(key=lambda pair: (pair["label"] == pair["other_label"], not _across(pair), -pair["correlation"]))
    judge = by_model(classifier, photos, progress) if classifier else by_patches(photos, drawn, small, progress)
    trust = trust_in(judge)
    doubts = doubtful(judge, photos, stored) if trust["trust"] != "none" else []
    summary = {
        "data": photos.name,
        "size": size,
        "rows": len(stored.labels),
        "kept": len(photos),
        "labels": count_labels(photos, stored),
        "stored": measure_sizes(stored, size),
        "channels": measure_channels(photos),
        **left_out(photos, stored),
        "near_duplicates": {
            "compared": len(drawn),
            "pairs": len(near),
            "so_many": so_many,
            "across_splits": sum(map(_across, near)),
            "of_two_labels": sum(pair["label"] != pair["other_label"] for pair in near),
            "shown": near[: SHOWN_BY_NATURE if so_many else SHOWN],
        },
        "suspicious": {
            **trust,
            "flagged": len(doubts),
            "shown": doubts[: SHOWN if trust["trust"] == "good" else SHOWN_BY_WEAK],
        },
    }
    summary["findings"] = findings(summary)

    write_problems(photos, folder / "problems.csv")
    write_rows(folder / "suspicious.csv", doubts, DOUBT_COLUMNS)
    write_rows(folder / "near_duplicates.csv", near, PAIR_COLUMNS)
    write_json(folder / "summary.json", summary)
    _write_page(folder, summary, photos, stored)
    echo("\n".join([f"{photos.name}", *(f"  {line}" for line in summary["findings"])]))
    echo(f"The page is {folder / 'index.html'}.")
    return summary


def _name(data: str | Path) -> str:
    """The last part of a data set's name, as a folder may be called."""
    last = Path(data).name or Path(data).resolve().name
    return re.sub(r"[^\w.-]", "_", last)


def draw(hashes: np.ndarray, most: int) -> np.ndarray:
    """Indices of at most so many pictures, the first by their hashes: a draw by lot, the same each time."""
    return np.sort(np.argsort(hashes, kind="stable")[:most])


def shrink(photos: Photos, rows: np.ndarray, progress: bool = False) -> np.ndarray:
    """These pictures at 32 × 32 pixels, uint8 (n, 32, 32, 3)."""
    small = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
    for place, row in enumerate(tqdm(rows, "shrinking", disable=not progress, unit="photo")):
        pixels = photos.pixels[row]
        small[place] = pixels if len(pixels) == SIDE else to_tensor(pixels, SIDE)
    return small


# Counting and measuring -------------------------------------------------------------------------------------


def count_labels(photos: Photos, stored: Stored) -> dict:
    """How many pictures each label has in each split, and how many rows the data set's own splits have."""
    count = len(photos.label_names)
    counts = {split: np.bincount(photos.labels[photos.splits == split], minlength=count) for split in SPLITS}
    total = sum(counts.values())
    return {
        "names": list(photos.label_names),
        "balanced": bool(total.max() < 1.2 * total.min()),
        "counts": {split: found.tolist() for split, found in counts.items()},
        "pictures": {split: int(found.sum()) for split, found in counts.items()},
        "own_splits": {str(split): int((stored.splits == split).sum()) for split in dict.fromkeys(stored.splits)},
    }


def measure_sizes(stored: Stored, size: int) -> dict:
    """Widths, heights and aspect ratios of the kept pictures as they are stored."""
    sizes = stored.sizes[stored.kept]
    distinct, number = np.unique(sizes, axis=0, return_counts=True)
    frequent = np.argsort(-number, kind="stable")[:10]
    aspect = sizes[:, 0] / sizes[:, 1]
    return {
        "distinct": len(distinct),
        "width": _range(sizes[:, 0]),
        "height": _range(sizes[:, 1]),
        "aspect": _range(aspect),
        "most_frequent": [
            {"width": int(distinct[k, 0]), "height": int(distinct[k, 1]), "pictures": int(number[k])} for k in frequent
        ],
        "smaller": int((sizes < size).any(axis=1).sum()),  # a side is enlarged
        "stretched": int(((aspect > 2) | (aspect < 0.5)).sum()),  # twice as wide as high, or the other way round
    }


def _range(values: np.ndarray) -> dict:
    return {"least": values.min().item(), "median": float(np.median(values)), "most": values.max().item()}


def measure_channels(photos: Photos) -> dict:
    """Mean, spread (standard deviation) and histogram of red, green and blue over the training pictures.

    Each picture counts the same, since all are squashed to the same size first. Without a training split all are used.
    """
    rows = _learned_from(photos)
    rows = rows[draw(photos.hashes[rows], max(1, MOST_VALUES // int(np.prod(photos.pixels.shape[1:]))))]
    counts, grey = np.zeros((3, 256), np.int64), 0
    for start in range(0, len(rows), 500):
        pixels = photos.pixels[rows[start : start + 500]]
        counts += [np.bincount(pixels[..., channel].ravel(), minlength=256) for channel in range(3)]
        grey += int((pixels == pixels[..., :1]).all(axis=(1, 2, 3)).sum())
    values, total = np.arange(256), counts.sum(axis=1)
    mean = counts @ values / total
    spread = np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0))
    return {
        "pictures": len(rows),
        "of": len(_learned_from(photos)),
        "grey": grey,
        "mean_0_255": mean.tolist(),
        "spread_0_255": spread.tolist(),
        "mean_0_1": (mean / 255).tolist(),
        "spread_0_1": (spread / 255).tolist(),
        "histogram": counts.tolist(),
    }


def _learned_from(photos: Photos) -> np.ndarray:
    """Rows of the training pictures, or of all where the data set has no training split."""
    rows = np.flatnonzero(photos.splits == "train")
    return rows if len(rows) else np.arange(len(photos))


# Pictures that are left out, and pictures that are there twice -----------------------------------------------


def left_out(photos: Photos, stored: Stored) -> dict:
    """Every row that `load_photos` leaves out, with what it is left out for."""
    report = photos.report
    unreadable = [{**_row(stored, i), "why": str(stored.errors[i])} for i in np.flatnonzero(stored.errors != "")]
    groups = _same_pixels(photos, stored)
    return {
        "unreadable": unreadable,
        "unlabelled": report["unlabelled"],
        "duplicates": {
            "left_out": report["duplicate"],
            "across_own_splits": report["duplicates_across_splits"],
            "groups": [group for group in groups if len(group["labels"]) == 1],
        },
        "conflicts": {
            "left_out": report["conflict"],
            "groups": [group for group in groups if len(group["labels"]) > 1],
        },
    }


def _same_pixels(photos: Photos, stored: Stored) -> list[dict]:
    """Rows whose pictures are the same to the last pixel, those that cross the data set's own splits first."""
    readable = np.flatnonzero((stored.errors == "") & (stored.labels >= 0))
    order = readable[np.argsort(stored.hashes[readable], kind="stable")]
    starts = np.flatnonzero(stored.hashes[order][1:] != stored.hashes[order][:-1]) + 1
    groups = []
    for rows in np.split(order, starts):
        if len(rows) > 1:
            labels = [photos.label_names[k] for k in np.unique(stored.labels[rows])]
            facts = [{**_row(stored, i), "label": photos.label_names[stored.labels[i]]} for i in rows]
            groups.append({"labels": labels, "across_own_splits": len({*stored.splits[rows]}) > 1, "rows": facts})
    return sorted(groups, key=lambda group: (not group["across_own_splits"], -len(group["rows"])))


def _row(stored: Stored, i: int) -> dict:
    """Where a picture stands in the data set: as in problems.csv, and its file."""
    return {"split": str(stored.splits[i]), "row": int(stored.numbers[i]), "file": stored.file(i)}


def _facts(photos: Photos, stored: Stored, i: int) -> dict:
    """Where a kept picture stands, what it is used as, and its label."""
    own = {"hash": str(photos.hashes[i]), "used_as": str(photos.splits[i])}
    return {**_row(stored, stored.kept[i]), **own, "label": photos.label_names[photos.labels[i]]}


def near_duplicates(small: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs that may be one picture, saved anew or cut otherwise: (row, other row, correlation of their pixels).

    Each picture is compared with its two nearest at 8 × 8 grey pixels; pairs that correlate there are compared again
    at 32 × 32 in colour. Both times brightness and contrast are taken out first.
    """
    from sklearn.neighbors import NearestNeighbors

    if len(small) < 2:
        return []
    blocks = small.reshape(len(small), 8, SIDE // 8, 8, SIDE // 8, 3)
    coarse = _unit(blocks.mean(axis=(2, 4, 5), dtype=np.float32).reshape(len(small), -1))
    search = NearestNeighbors(n_neighbors=min(2, len(small) - 1), algorithm="brute").fit(coarse)
    distance, other = search.kneighbors()
    rows, place = np.nonzero(1 - distance**2 / 2 >= NEAR)
    pairs = np.unique(np.sort(np.column_stack([rows, other[rows, place]]), axis=1), axis=0)
    found = []
    for start in range(0, len(pairs), 1000):
        part = pairs[start : start + 1000]
        one, two = (_unit(small[part[:, side]].reshape(len(part), -1).astype(np.float32)) for side in (0, 1))
        alike = (one * two).sum(axis=1)
        found += [(int(part[k, 0]), int(part[k, 1]), float(alike[k])) for k in np.flatnonzero(alike >= NEAR)]
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Each row less its mean, and of length 1, so that products are correlations; 0 where a picture is one colour."""
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-3)


def _pair(photos: Photos, stored: Stored, one: int, two: int, alike: float) -> dict:
    other = {f"other_{key}": value for key, value in _facts(photos, stored, two).items()}
    return {"correlation": round(min(alike, 1.0), 4), **_facts(photos, stored, one), **other}


def _across(pair: dict) -> bool:
    return pair["used_as"] != pair["other_used_as"]


# Labels that look wrong -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judge:
    """What someone who never saw these pictures holds each label for.

    Attributes:
        name: who judges.
        rows: int64 (n,), the pictures judged, of the data set's N.
        labels: int64 (n,), indices into `names`.
        probabilities: float (n, K).
        names: K labels.
        notes: sentences that a reader must know.
    """

    name: str
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    probabilities: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    names: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def by_patches(photos: Photos, drawn: np.ndarray, small: np.ndarray, progress: bool = False) -> Judge:
    """The simple judge: ridge regression on patch responses, each picture answered by a fit without it.

    Args:
        drawn: int64 (n,), the pictures to judge.
        small: uint8 (n, 32, 32, 3), those pictures.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    name, notes = "a simple classifier", []
    chosen = draw(photos.hashes[drawn], MOST_ANSWERS // len(photos.label_names))
    if len(chosen) < len(photos):
        notes.append(f"Of the {len(photos):,} pictures it judges {len(chosen):,}, drawn by lot.")
    labels = photos.labels[drawn[chosen]]
    number = np.bincount(labels, minlength=len(photos.label_names))
    enough = number >= FOLDS
    if (short := int(((number > 0) & ~enough).sum())) > 0:
        notes.append(
            f"It leaves out {_many(short, 'label')} with fewer than {FOLDS} pictures, "
            f"{_many(int(number[~enough].sum()), 'picture')} in all."
        )
    chosen, labels = chosen[enough[labels]], labels[enough[labels]]
    if enough.sum() < 2 or len(chosen) < FEWEST:
        what = f"Labels are judged only where two labels have {FOLDS} pictures each, and all together {FEWEST}."
        return Judge(name, notes=[what])
    known, labels = np.unique(labels, return_inverse=True)
    features = patch_responses(small[chosen], progress)
    features -= features.mean(axis=0)
    features /= features.std(axis=0) + 1e-6
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    ridge = RidgeClassifier(alpha=0.05 * len(labels))
    if progress:
        tqdm.write(f"fitting the judge {FOLDS} times", file=sys.stderr)
    scores = cross_val_predict(ridge, features, labels, cv=folds, method="decision_function")
    if scores.ndim == 1:
        scores = np.column_stack([-scores, scores])
    names = [photos.label_names[k] for k in known]
    return Judge(name, drawn[chosen], labels, to_probabilities(scores, labels), names, notes)


def patch_responses(small: np.ndarray, progress: bool = False) -> np.ndarray:
    """How strongly each quarter of each picture responds to 200 patches of the pictures, and to their negatives.

    Patches are brought to one brightness and contrast and whitened; a response counts from 0.25 on.

    Args:
        small: uint8 (n, 32, 32, 3).

    Returns:
        float32 (n, 1600).
    """
    chance, last = np.random.default_rng(0), SIDE - PATCH + 1
    where = (chance.integers(0, most, 20_000) for most in (len(small), last, last))
    patches = np.stack([small[i, y : y + PATCH, x : x + PATCH].ravel() for i, y, x in zip(*where, strict=True)])
    patches = patches.astype(np.float32) / 255
    patches -= patches.mean(axis=1, keepdims=True)
    patches /= np.sqrt((patches**2).mean(axis=1, keepdims=True) + (10 / 255) ** 2)
    centre = patches.mean(axis=0)
    variance, axes = np.linalg.eigh(np.cov(patches, rowvar=False))
    whiten = (axes / np.sqrt(np.maximum(variance, 0) + 0.1)) @ axes.T
    filters = (patches[:PATCHES] - centre) @ whiten
    filters /= np.linalg.norm(filters, axis=1, keepdims=True) + 1e-9
    filters = (whiten @ filters.T).astype(np.float32)
    offset = (centre @ filters).astype(np.float32)
    filters -= filters.mean(axis=0)  # the same as taking each patch's mean out first
    with tqdm(total=len(small), desc="patches", disable=not progress, unit="photo") as bar:
        found = []
        for start in range(0, len(small), 128):
            found.append(_responses(small[start : start + 128], filters, offset))
            bar.update(len(found[-1]))
    return np.concatenate(found)


def _responses(pictures: np.ndarray, filters: np.ndarray, offset: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (PATCH, PATCH), axis=(1, 2))[:, ::2, ::2]
    count, side = windows.shape[:2]
    flat = windows.transpose(0, 1, 2, 4, 5, 3).reshape(count * side**2, -1).astype(np.float32) / 255
    variance = np.einsum("ij,ij->i", flat, flat) / flat.shape[1] - flat.mean(axis=1) ** 2
    answers = flat @ filters / np.sqrt(np.maximum(variance, 0) + (10 / 255) ** 2)[:, None] - offset
    answers = answers.reshape(count, side, side, -1)
    halves = [0, side // 2]
    parts = (np.maximum(sign * answers - 0.25, 0) for sign in (1, -1))
    quarters = [np.add.reduceat(np.add.reduceat(part, halves, axis=1), halves, axis=2) for part in parts]
    return np.concatenate(quarters, axis=-1).reshape(count, -1)


def to_probabilities(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Softmax of scores (n, K) times the one factor that makes the labels most probable."""
    some = np.linspace(0, len(labels) - 1, min(len(labels), 5000)).astype(int)

    def loss(power: float) -> float:
        return -log_softmax(np.exp(power) * scores[some], axis=1)[np.arange(len(some)), labels[some]].mean()

    return softmax(np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x) * scores, axis=1)


def _classifier(model: str, size: int | None) -> "ImageClassifier":
    from hub.classifier import ImageClassifier

    classifier = ImageClassifier.from_pretrained(model)
    if size not in (None, classifier.image_size):
        raise DataError(
            f"{classifier.name} takes pictures of {classifier.image_size} px, not {size}; leave --size out."
        )
    return classifier


def by_model(classifier: "ImageClassifier", photos: Photos, progress: bool = False) -> Judge:
    """A trained model as the judge, of the pictures that its record says were held out, or else of all."""
    from hub import bundle
    from training.evaluate import evaluate, read_predictions

    classifier.fetch_record()
    rows, notes = np.arange(len(photos)), []
    recorded = classifier.folder is not None and (Path(classifier.folder) / bundle.PREDICTIONS).is_file()
    held_out = (
        np.isin(photos.hashes, read_predictions(classifier.folder).hashes) if recorded else np.zeros(len(rows), bool)
    )
    if held_out.any():
        rows = np.flatnonzero(held_out)
        notes.append(f"It judges the {_many(len(rows), 'picture')} that it was not trained on, by its own record.")
    else:
        notes.append(
            "Warning: which of these pictures it was trained on cannot be told. Wrong labels that it learned "
            "look right to it, and its share of right answers is too good."
        )
    if len(rows) > MOST_BY_MODEL:
        rows = rows[draw(photos.hashes[rows], MOST_BY_MODEL)]
        notes.append(f"Of those, {MOST_BY_MODEL:,} were drawn by lot.")
    found = evaluate(classifier, photos.subset(rows), progress=progress)
    probabilities = softmax(found.logits.astype(np.float64), axis=1)
    return Judge(f"the model {classifier.name}", rows, found.labels, probabilities, found.label_names, notes)


def confident_doubts(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures whose label is less probable than usual for it, while another's is at least as probable as usual.

    What is usual for a label is its mean probability over the pictures that bear it (Northcutt et al., eq. 2).

    Args:
        labels: int (n,). probabilities: (n, K), from someone who did not learn from these pictures.

    Returns:
        Indices of those pictures, the widest gap between the two probabilities first, and the supposed label of each.
    """
    own = probabilities[np.arange(len(labels)), labels]
    number = np.bincount(labels, minlength=probabilities.shape[1])
    usual = np.bincount(labels, weights=own, minlength=probabilities.shape[1]) / np.maximum(number, 1)
    usual[number == 0] = np.inf  # nobody bears it, so nothing is usual
    candidates = np.where(probabilities >= usual, probabilities, -1)
    supposed = candidates.argmax(axis=1)
    rows = np.flatnonzero((own < usual[labels]) & (candidates.max(axis=1) > own))
    rows = rows[np.argsort(own[rows] - probabilities[rows, supposed[rows]], kind="stable")]
    return rows, supposed[rows]


def doubtful(judge: Judge, photos: Photos, stored: Stored) -> list[dict]:
    """The pictures whose labels look wrong to a judge, the most doubtful first."""
    rows, supposed = confident_doubts(judge.labels, judge.probabilities)
    return [
        {
            **_facts(photos, stored, judge.rows[row]),
            "label_probability": round(float(judge.probabilities[row, judge.labels[row]]), 4),
            "supposed": judge.names[other],
            "supposed_probability": round(float(judge.probabilities[row, other]), 4),
        }
        for row, other in zip(rows, supposed, strict=True)
    ]


def trust_in(judge: Judge) -> dict:
    """How good a judge is: its share of right answers, what guessing gives, and how many planted errors it finds.

    The trust is "none" where the answers are hardly better than always saying the most frequent label (by the lower
    end of the 95 % interval), "weak" where less than half of the first doubts are planted errors, else "good".
    """
    found = {"judge": judge.name, "judged": len(judge.rows), "notes": judge.notes, "trust": "none"}
    if len(judge.rows) == 0:
        return found
    number = np.bincount(judge.labels)
    right, guess = float((judge.probabilities.argmax(axis=1) == judge.labels).mean()), number.max() / number.sum()
    low = float(wilson(np.array(right), np.array(len(judge.labels)))[0])
    found |= {"accuracy": right, "guessing": float(guess), "most_frequent": judge.names[int(number.argmax())]}
    if (low - guess) / max(1 - guess, 1e-9) < USELESS:
        return {**found, "planted": None}
    planted = plant(judge)
    good = planted["first"] > 0 and planted["found_among_first"] >= planted["first"] / 2
    return {**found, "trust": "good" if good else "weak", "planted": planted}


def plant(judge: Judge) -> dict:
    """Give one label in a hundred, but at least 20, another by lot, on paper, and see whether the search finds them.

    The probabilities stay: a picture's own label never entered the fit that answers for it.
    """
    count = len(judge.labels)
    number = min(max(20, count // 100), count // 5)
    chance = np.random.default_rng(0)
    changed = chance.choice(count, number, replace=False)
    labels, present = judge.labels.copy(), np.unique(judge.labels)
    for row in changed:
        labels[row] = chance.choice(present[present != labels[row]])
    rows, _ = confident_doubts(labels, judge.probabilities)
    first = rows[: min(SHOWN, number)]
    return {
        "labels": number,
        "found": int(np.isin(changed, rows).sum()),
        "first": len(first),
        "found_among_first": int(np.isin(first, changed).sum()),
    }


# In words, in figures and on the page -----------------------------------------------------------------------


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def findings(summary: dict) -> list[str]:
    """What there is to know, in a few sentences, for the terminal and the top of the page."""
    labels, found = summary["labels"], []
    parts = ", ".join(f"{split} {number:,}" for split, number in labels["pictures"].items())
    found.append(f"{_many(summary['kept'], 'picture')} of {_many(len(labels['names']), 'label')} can be used: {parts}.")
    found.append(balance(labels))
    found.append(_sizes_in_words(summary["stored"]))
    unreadable, duplicates, conflicts = (summary[key] for key in ("unreadable", "duplicates", "conflicts"))
    left = [
        f"{_many(len(unreadable), 'file')} that cannot be read" if unreadable else "",
        f"{summary['unlabelled']:,} without a label" if summary["unlabelled"] else "",
        f"{_many(conflicts['left_out'], 'picture')} whose pixels occur under several labels"
        if conflicts["left_out"]
        else "",
        f"{_many(duplicates['left_out'], 'exact duplicate')}" if duplicates["left_out"] else "",
    ]
    left = [part for part in left if part]
    found.append(
        f"Left out: {', '.join(left)}." if left else "Nothing had to be left out: no broken file, no exact duplicate."
    )
    if across := duplicates["across_own_splits"]:
        found.append(
            f"Of those, {across:,} {'stands' if across == 1 else 'stand'} in another of the data set's own splits as "
            "well, which would make a test on them too easy."
        )
    near = summary["near_duplicates"]
    if near["so_many"]:
        found.append(f"{near['pairs']:,} pairs of pictures are nearly alike, too many to be copies.")
    elif near["pairs"]:
        found.append(
            f"{_many(near['pairs'], 'pair')} of pictures may be the same picture twice; {near['across_splits']:,} with "
            f"the two in different splits, {near['of_two_labels']:,} with different labels."
        )
    return [*found, _doubts_in_words(summary["suspicious"])]


def balance(labels: dict) -> str:
    """Whether the labels have about as many pictures each, in a sentence."""
    total = np.sum(list(labels["counts"].values()), axis=0)
    if len(total) == 1:
        return "There is only one label, so there is nothing to tell apart."
    if (empty := int((total == 0).sum())) > 0:
        return f"{_many(empty, 'label')} of {len(total):,} {'has' if empty == 1 else 'have'} no picture at all."
    ratio, most, least = total.max() / total.min(), labels["names"][total.argmax()], labels["names"][total.argmin()]
    if labels["balanced"]:
        return "The labels are balanced: all have about as many pictures."
    what = "nearly balanced" if ratio < 2 else "unbalanced"
    return (
        f"The labels are {what}: {cut(most)}, the most frequent, has {ratio:.1f} times as many pictures as "
        f"{cut(least)}, the rarest ({total.max():,} and {total.min():,})."
    )


def _sizes_in_words(stored: dict) -> str:
    width, height = stored["width"], stored["height"]
    if stored["distinct"] == 1:
        return f"All pictures are stored at {width['least']} × {height['least']} pixels."
    return (
        f"The pictures are stored in {stored['distinct']:,} sizes: {width['least']} to {width['most']} pixels wide, "
        f"{height['least']} to {height['most']} high."
    )


def _doubts_in_words(suspicious: dict) -> str:
    if not suspicious["judged"]:
        return "Too few pictures to look for wrong labels."
    right, guessing = _share(suspicious["accuracy"]), _share(suspicious["guessing"])
    sure = f"right on {right} of the pictures, where guessing gives {guessing}"
    if suspicious["trust"] == "none":
        return f"Wrong labels could not be looked for: the judge is {sure}."
    flagged = f"{suspicious['flagged']:,} of {_many(suspicious['judged'], 'label')}"
    weak = " Most of its doubts are its own mistakes." if suspicious["trust"] == "weak" else ""
    return f"{flagged} {'looks' if suspicious['flagged'] == 1 else 'look'} suspicious to a judge that is {sure}.{weak}"


def draw_labels(labels: dict) -> Figure:
    """How many pictures each label has: a bar in three parts for each, or for many labels a curve."""
    names, counts = labels["names"], np.array([labels["counts"][split] for split in SPLITS])
    if len(names) > LONG:
        return _label_curve(counts.sum(axis=0))
    figure = new_figure(6.8, 1.6 + 0.36 * len(names))
    axes, left = figure.subplots(), np.zeros(len(names))
    for split, number, colour in zip(SPLITS, counts, COLOURS, strict=False):
        axes.barh(range(len(names)), number, left=left, color=colour, label=f"{split} ({number.sum():,})", height=0.7)
        left += number
    for place, number in enumerate(left):
        axes.text(number, place, f" {number:,.0f}", va="center", fontsize=FONT - 1)
    axes.set_yticks(range(len(names)), [short_name(name, 28) for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="pictures", xlim=(0, 1.14 * max(left.max(), 1)))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def _label_curve(total: np.ndarray) -> Figure:
    figure = new_figure(6.8, 4)
    axes, ranked = figure.subplots(), np.sort(total)[::-1]
    axes.fill_between(np.arange(1, len(ranked) + 1), ranked, step="mid", color=COLOURS[0], alpha=0.6)
    axes.set(xlabel="label, from the most frequent to the rarest", ylabel="pictures", xlim=(1, len(ranked)))
    if ranked.max() > 20 * max(ranked.min(), 1):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    return figure


def draw_sizes(sizes: np.ndarray, size: int) -> Figure:
    """Width and height of each picture, (N, 2) in pixels; a dot is as large as its size is frequent."""
    distinct, number = np.unique(sizes, axis=0, return_counts=True)
    figure = new_figure(5.8, 4.6)
    axes = figure.subplots()
    axes.scatter(*distinct.T, s=8 + 120 * number / number.max(), color=COLOURS[0], alpha=0.4, linewidths=0)
    axes.plot([size, size, 0], [0, size, size], "--", color=COLOURS[1], label=f"{size} × {size}, as looked at here")
    axes.set(title="Stored sizes", xlabel="width in pixels", ylabel="height in pixels")
    axes.set(xlim=(0, 1.06 * sizes[:, 0].max()), ylim=(0, 1.15 * sizes[:, 1].max()))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.legend(frameon=False, loc="upper right")
    return figure


def draw_shapes(sizes: np.ndarray) -> Figure:
    """How wide the pictures are for their height; what lies beyond the axis is counted at its end."""
    figure = new_figure(5.8, 4.6)
    axes = figure.subplots()
    aspect = np.log2(sizes[:, 0] / sizes[:, 1])
    axes.hist(np.clip(aspect, -2.45, 2.45), bins=np.linspace(-2.5, 2.5, 51), color=COLOURS[0])
    axes.axvline(0, ls=":", color="grey")
    axes.set_xticks([-2, -1, 0, 1, 2], ["1 : 4", "1 : 2", "1 : 1", "2 : 1", "4 : 1"])
    axes.set(title="Shapes", xlabel="width : height", ylabel="pictures")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def draw_channels(channels: dict) -> Figure:
    """How often each value occurs in red, green and blue, with the means."""
    figure = new_figure(6.8, 3.8)
    axes = figure.subplots()
    counts = np.array(channels["histogram"])
    one = channels["grey"] == channels["pictures"]
    shown = [("grey", "#555555")] if one else [("red", COLOURS[1]), ("green", COLOURS[2]), ("blue", COLOURS[0])]
    for (name, colour), number, mean in zip(shown, counts, channels["mean_0_255"], strict=False):
        axes.plot(number / number.sum(), color=colour, lw=1.5, label=name)
        axes.axvline(mean, color=colour, ls="--", lw=1.2)
    axes.set(xlabel="value, 0 is black and 255 full light (dashed: the mean)", ylabel="share of the pixels")
    axes.set_xlim(0, 255)
    if counts.max() > 20 * np.median(counts[counts > 0]):  # one ground fills most of every picture
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xticks([0, 64, 128, 192, 255])
    above = axes.secondary_xaxis("top", functions=(lambda value: value / 255, lambda value: value * 255))
    above.set_xlabel("the same on the scale from 0 to 1")
    axes.legend(frameon=False)
    return figure


def _write_page(folder: Path, summary: dict, photos: Photos, stored: Stored) -> None:
    """index.html, and its figures once more as PNG files."""
    drawn = {"labels": draw_labels(summary["labels"]), "channels": draw_channels(summary["channels"])}
    if summary["stored"]["distinct"] > 1:
        sizes = stored.sizes[stored.kept]
        drawn |= {"sizes": draw_sizes(sizes, summary["size"]), "shapes": draw_shapes(sizes)}
    for name in TEXTS.keys() - drawn:
        (folder / f"{name}.png").unlink(missing_ok=True)  # of an earlier look at other pictures
    for name, figure in drawn.items():
        write_aside(folder / f"{name}.png", lambda file, figure=figure: figure.savefig(file, format="png", dpi=DPI))
    shown = _Shown(stored)
    suspicious, near = summary["suspicious"], summary["near_duplicates"]
    write_page(
        folder / "index.html",
        "explore.html",
        title=f"{photos.name}: a look at the data",
        found=summary,
        figures={name: figure_html(figure, TEXTS[name]) for name, figure in drawn.items()},
        tables=_tables(summary["labels"]),
        samples=_samples(photos, shown),
        duplicates=[shown.group(group) for group in summary["duplicates"]["groups"][:SHOWN]],
        conflicts=[shown.group(group) for group in summary["conflicts"]["groups"][:SHOWN]],
        near=[shown.pair(pair) for pair in near["shown"]],
        doubts=[shown.card(doubt) for doubt in suspicious["shown"]],
        own=len(summary["labels"]["own_splits"]), listed=LISTED, splits=SPLITS, many=_many, cut=cut,
    )  # fmt: skip


TEXTS = {
    "labels": "How many pictures each label has; the numbers are in the table.",
    "sizes": "Widths and heights of the stored pictures; the extremes are in the table.",
    "shapes": "How many pictures are how wide for their height; the extremes are in the table.",
    "channels": "How often each value of each channel occurs; the means are in the table.",
}


def _tables(labels: dict) -> list[dict]:
    """Rows of the table of labels: all, or of many the most frequent and the rarest."""
    counts = np.array([labels["counts"][split] for split in SPLITS])
    order = np.arange(len(labels["names"]))
    if len(order) > LONG:
        order = np.argsort(-counts.sum(axis=0), kind="stable")
        order = np.concatenate([order[:10], order[-10:]])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [
        {"name": labels["names"][k], "counts": counts[:, k].tolist(), "shares": shares[:, k].tolist()} for k in order
    ]


def _samples(photos: Photos, shown: "_Shown") -> list[dict]:
    """Training pictures of each label, drawn by lot; of very many labels some, from the most frequent to the rarest."""
    rows = _learned_from(photos)
    number = np.bincount(photos.labels[rows], minlength=len(photos.label_names))
    labels = np.flatnonzero(number)
    if len(labels) > SAMPLES:
        ranked = labels[np.argsort(-number[labels], kind="stable")]
        labels = ranked[np.linspace(0, len(ranked) - 1, SAMPLES).astype(int)]
    each = min(SAMPLES_OF_ONE, max(1, SAMPLES // len(labels)))
    found = []
    for label in labels:
        own = rows[photos.labels[rows] == label]
        name = photos.label_names[label]
        pictures = [shown.at(shown.stored.kept[i], name) for i in own[draw(photos.hashes[own], each)]]
        found.append({"name": name, "number": int(number[label]), "pictures": pictures})
    return found


class _Shown:
    """Pictures as the page shows them: small, in their own shape, inside the page."""

    def __init__(self, stored: Stored):
        self.stored = stored
        places = zip(stored.splits.tolist(), stored.numbers.tolist(), strict=True)
        self.places = {place: row for row, place in enumerate(places)}

    def at(self, row: int, text: str) -> dict:
        """The picture of a row of the data set; `text` is what someone hears who cannot see it."""
        picture = self.stored.picture(row, size=THUMB)
        picture.thumbnail((THUMB, THUMB))
        tiny, content = max(picture.size) <= THUMB // 2, io.BytesIO()
        form = "png" if tiny else "jpeg"
        picture.save(content, form, quality=88)
        address = f"data:image/{form};base64,{base64.b64encode(content.getvalue()).decode()}"
        return {"address": address, "text": text, "tiny": tiny}

    def card(self, facts: dict) -> dict:
        """A picture with what is known of it."""
        return {"picture": self.at(self.places[facts["split"], facts["row"]], facts["label"]), "facts": facts}

    def pair(self, pair: dict) -> dict:
        """Two pictures that may be one."""
        other = {key.removeprefix("other_"): value for key, value in pair.items() if key.startswith("other_")}
        return {"cards": [self.card(pair), self.card(other)], "correlation": pair["correlation"]}

    def group(self, group: dict) -> dict:
        """Rows with the same pixels: the picture once."""
        return {"picture": self.card(group["rows"][0])["picture"], "rows": group["rows"]}
