"""Look at the data first: what there is, what is odd, and which labels look wrong.

No trained network is needed: `training.photos.doubts` has a judge of its own, and
`training.photos.explore_report` makes the page.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.neighbors import NearestNeighbors
from tqdm import tqdm

from hub.classifier import ImageClassifier
from hub.errors import DataError
from hub.images import to_tensor
from training.files import write_json, write_rows
from training.photos import explore_report
from training.photos.data import Photos, Stored, first_by_hash, load_stored, write_problems
from training.photos.doubts import FIRST, SIDE, Judge, by_model, by_patches, confident_doubts, trust_in
from training.photos.explore_report import SHOWN, SPLITS, learned_from
from training.photos.sources import demand_outside, title_of

SIZE = 64  # pixels: enough for the numbers; pictures that are shown are decoded anew
MOST = 70_000  # pictures that are compared and judged: about two minutes on two cores
MOST_VALUES = 2_000_000_000  # pixel values behind the channels' means: some seconds
NEAR = 0.95  # correlation of two pictures that may be one; in CIFAR-10 nearly all such pairs are, and at 0.9 half
ALIKE_BY_NATURE = 0.05  # such pairs for each picture: digits have many, and CIFAR-10 one in two hundred
SHOWN_BY_WEAK, SHOWN_BY_NATURE = 18, 9  # where most of them are probably no find
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
    folder = Path(out) if out else Path("runs", f"explore-{_name(data)}")
    demand_outside(data, folder, "--out")
    classifier = _classifier(model, size) if model is not None else None
    size = classifier.image_size if classifier else size or SIZE
    photos, stored = load_stored(data, size, cache=cache, progress=progress)

    drawn = first_by_hash(photos.hashes, MOST)
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
            "shown": doubts[: FIRST if trust["trust"] == "good" else SHOWN_BY_WEAK],
        },
    }
    summary["findings"] = explore_report.findings(summary)

    write_problems(photos, folder / "problems.csv")
    write_rows(folder / "suspicious.csv", doubts, DOUBT_COLUMNS)
    write_rows(folder / "near_duplicates.csv", near, PAIR_COLUMNS)
    write_json(folder / "summary.json", summary)
    explore_report.write(folder, summary, photos, stored)
    echo("\n".join([f"{photos.name}", *(f"  {line}" for line in summary["findings"])]))
    echo(f"The page is {folder / 'index.html'}.")
    return summary


def _name(data: str | Path) -> str:
    """The last part of a data set's name, as a folder may be called."""
    last = Path(title_of(data)).name
    return re.sub(r"[^\w.-]", "_", last)


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
    rows = learned_from(photos)
    rows = rows[first_by_hash(photos.hashes[rows], max(1, MOST_VALUES // int(np.prod(photos.pixels.shape[1:]))))]
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
        "of": len(learned_from(photos)),
        "grey": grey,
        "mean_0_255": mean.tolist(),
        "spread_0_255": spread.tolist(),
        "mean_0_1": (mean / 255).tolist(),
        "spread_0_1": (spread / 255).tolist(),
        "histogram": counts.tolist(),
    }


# Pictures that are left out, and pictures that are there twice -----------------------------------------------


def left_out(photos: Photos, stored: Stored) -> dict:
    """Every row that `load_photos` leaves out, with what it is left out for, and the files that are no rows."""
    report = photos.report
    unreadable = [{**_row(stored, i), "why": str(stored.errors[i])} for i in np.flatnonzero(stored.errors != "")]
    groups = _same_pixels(photos, stored)
    return {
        "unreadable": unreadable,
        "skipped": [
            {"file": row["file"], "why": row["detail"]} for row in photos.problems if row["problem"] == "skipped"
        ],
        "told": report["told"],
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
    """Pairs that may be one picture, saved again or cut differently: (row, other row, correlation of their pixels).

    Each picture is compared with its two nearest at 8 × 8 grey pixels; pairs that correlate there are compared again
    at 32 × 32 in colour. Both times brightness and contrast are taken out first.
    """
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


def _classifier(model: str, size: int | None) -> ImageClassifier:
    classifier = ImageClassifier.from_pretrained(model)
    if size not in (None, classifier.image_size):
        raise DataError(
            f"{classifier.name} takes pictures of {classifier.image_size} px, not {size}; leave --size out."
        )
    return classifier


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
