"""A look at the data in words, in figures and on a page."""

import base64
import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hub.scores import many
from training.pages.drawing import COLOURS, FONT, cut, new_figure, short_name, write_png
from training.pages.html import figure_html, write_page
from training.photos.data import Photos, Stored, first_by_hash

SPLITS = ("train", "validation", "test")
SHOWN = 36  # groups of copies
SAMPLES, SAMPLES_OF_ONE = 240, 10  # pictures of the sample grid, and of one label
LISTED = 100  # rows of a table on the page; problems.csv holds all
LONG = 30  # labels: more are drawn as a curve
THUMB = 160  # pixels of a shown picture's longer side


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def findings(summary: dict) -> list[str]:
    """What there is to know, in a few sentences, for the terminal and the top of the page."""
    labels, found = summary["labels"], []
    parts = ", ".join(f"{split} {number:,}" for split, number in labels["pictures"].items())
    found.append(f"{many(summary['kept'], 'picture')} of {many(len(labels['names']), 'label')} can be used: {parts}.")
    found.append(balance(labels))
    found.append(_sizes_in_words(summary["stored"]))
    unreadable, duplicates, conflicts = (summary[key] for key in ("unreadable", "duplicates", "conflicts"))
    left = [
        f"{many(len(unreadable), 'file')} that cannot be read" if unreadable else "",
        f"{summary['unlabelled']:,} without a label" if summary["unlabelled"] else "",
        f"{many(conflicts['left_out'], 'picture')} whose pixels occur under several labels"
        if conflicts["left_out"]
        else "",
        f"{many(duplicates['left_out'], 'exact duplicate')}" if duplicates["left_out"] else "",
        f"{many(len(summary['skipped']), 'skipped file')}" if summary["skipped"] else "",
    ]
    left = [part for part in left if part]
    found.append(
        f"Left out: {', '.join(left)}." if left else "Nothing had to be left out: no broken file, no exact duplicate."
    )
    found += summary["told"]
    if across := duplicates["across_own_splits"]:
        found.append(
            f"Of those, {across:,} {'is' if across == 1 else 'are'} also in another of the data set's own splits, "
            "which would make a test on them too easy."
        )
    near = summary["near_duplicates"]
    if near["so_many"]:
        found.append(f"{near['pairs']:,} pairs of pictures are nearly alike, too many to be copies.")
    elif near["pairs"]:
        found.append(
            f"{many(near['pairs'], 'pair')} of pictures may be the same picture twice; {near['across_splits']:,} with "
            f"the two in different splits, {near['of_two_labels']:,} with different labels."
        )
    return [*found, _doubts_in_words(summary["suspicious"])]


def balance(labels: dict) -> str:
    """Whether the labels have about as many pictures each, in a sentence."""
    total = np.sum(list(labels["counts"].values()), axis=0)
    if (empty := int((total == 0).sum())) > 0:
        return f"{many(empty, 'label')} of {len(total):,} {'has' if empty == 1 else 'have'} no picture at all."
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
        f"The pictures are stored in {stored['distinct']:,} sizes: {_range(width)} pixels wide, {_range(height)} high."
    )


def _range(side: dict) -> str:
    return f"{side['least']}" if side["least"] == side["most"] else f"{side['least']} to {side['most']}"


def _doubts_in_words(suspicious: dict) -> str:
    if not suspicious["judged"]:
        return "Too few pictures to look for wrong labels."
    right, guessing = _share(suspicious["accuracy"]), _share(suspicious["guessing"])
    sure = f"right on {right} of the pictures, where guessing gives {guessing}"
    if suspicious["trust"] == "none":
        return f"Wrong labels could not be looked for: the judge is {sure}."
    flagged = f"{suspicious['flagged']:,} of {many(suspicious['judged'], 'label')}"
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


def write(folder: Path, summary: dict, photos: Photos, stored: Stored) -> None:
    """index.html, and its figures once more as PNG files."""
    drawn = {"labels": draw_labels(summary["labels"]), "channels": draw_channels(summary["channels"])}
    if summary["stored"]["distinct"] > 1:
        sizes = stored.sizes[stored.kept]
        drawn |= {"sizes": draw_sizes(sizes, summary["size"]), "shapes": draw_shapes(sizes)}
    for name in TEXTS.keys() - drawn:
        (folder / f"{name}.png").unlink(missing_ok=True)  # of an earlier look at other pictures
    for name, figure in drawn.items():
        write_png(figure, folder / f"{name}.png")
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
        own=len(summary["labels"]["own_splits"]), listed=LISTED, splits=SPLITS, many=many, cut=cut,
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


def learned_from(photos: Photos) -> np.ndarray:
    """Rows of the training pictures, or of all where the data set has no training split."""
    rows = np.flatnonzero(photos.splits == "train")
    return rows if len(rows) else np.arange(len(photos))


def _samples(photos: Photos, shown: "_Shown") -> list[dict]:
    """Training pictures of each label, drawn at random; of very many labels some, from most to least frequent."""
    rows = learned_from(photos)
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
        pictures = [shown.at(shown.stored.kept[i], name) for i in own[first_by_hash(photos.hashes[own], each)]]
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
