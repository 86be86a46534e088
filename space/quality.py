"""The tab that says how good the model is, from its own predictions.parquet and metrics.json; no model runs.

The charts are drawn once for each set of photos, label and language. The threshold only counts anew and moves the
points on them, which takes less than a millisecond; the mistakes are drawn a page at a time.
"""

from __future__ import annotations

import functools
import io
import math
from pathlib import Path

import gradio as gr
import numpy as np
from markupsafe import Markup
from PIL import Image

from hub import BundleError, ImageClassifier, ImageError
from hub.bundle import METRICS, PREDICTIONS
from hub.heatmaps import colour, fixed_scale, overlay, shown_map
from hub.images import open_image
from hub.record import SPLITS, NoRecord, Record, Split
from hub.scores import BINS, Calibration, calibration, log_odds
from space import charts, words
from space.charts import number
from space.curves import Counts, Ranking
from space.html import data_url, refusal
from space.languages import Say, fixed, voice_for, written
from space.offer import Offer
from space.opening import opening
from space.record import Photos, fetch
from space.viewer import OPACITY, jpeg
from space.work import WORK, is_large

THRESHOLD = 0.5
ON_A_PAGE = 12
SIDE, QUALITY = 256, 80  # pixels of a photo's longer side in the gallery, and its JPEG's
MEAN_UP_TO = 100  # labels; with more, the mean of their areas would take many seconds
COUNTS = ("positives", "negatives", "tp", "fn", "fp", "called", "total", "right")
SCORES = ("recall", "false_positive_rate", "precision", "f1", "accuracy")

# Three lines, after what they need. With two labels the log-odds are a difference; with more they need the others.
SNIPPET = """\
import json, numpy as np, pandas as pd
from sklearn.metrics import roc_auc_score

rows = pd.read_parquet("predictions.parquet", filters=[("split", "==", {split})])
z = np.stack(rows.logits).astype(float)
print({score}, json.load(open("metrics.json")){path}["roc_auc"])
"""
TWO_LABELS = "roc_auc_score(rows.label == 1, z[:, 1] - z[:, 0])"
MORE_LABELS = (
    "np.mean([roc_auc_score(rows.label == k, z[:, k] - np.logaddexp.reduce(np.delete(z, k, 1), 1))"
    " for k in set(rows.label)])"
)


class Quality:
    """What the tab knows, whoever asks: the record, and what was made of it so far.

    Args:
        photos: where the record's photos may be found; None where no folder was named.
    """

    def __init__(self, classifier: ImageClassifier, record: Record, photos: Photos | None = None):
        """Compute nothing yet."""
        self.classifier, self.record, self.photos = classifier, record, photos
        self.labels = record.labels
        self.ranking = functools.lru_cache(maxsize=64)(self._ranking)
        self.calibration = functools.lru_cache(maxsize=16)(self._calibration)
        self.mean_area = functools.lru_cache(maxsize=16)(self._mean_area)
        self.drawn = functools.lru_cache(maxsize=64)(self._drawn)
        self._thumbnail = functools.lru_cache(maxsize=64)(_thumbnail)

    def _ranking(self, name: str, k: int) -> Ranking:
        """Return the photos of a split in the order of label `k`."""
        split = self.record.splits[name]
        return Ranking(split.truth == k, log_odds(split.logits)[:, k])

    def _calibration(self, name: str) -> Calibration:
        """Return the calibration of a split."""
        split = self.record.splits[name]
        return calibration(split.truth, split.logits)

    def _mean_area(self, name: str) -> float | None:
        """Return the ROC AUC as metrics.json has it: of label 1 of two, or the mean of those that occur of more.

        None where there is none, or where so many labels would take too long.
        """
        count = len(self.labels)
        wanted = [1] if count == 2 else range(count if count <= MEAN_UP_TO else 0)
        areas = [ranking.roc_auc for k in wanted if (ranking := self.ranking(name, k)).has_curves]
        return float(np.mean(areas)) if areas else None

    def _drawn(self, name: str, k: int, language: str) -> tuple[Markup, Markup]:
        """Return the curves of a split and label, and the reliability diagram of the split (HTML)."""
        say = Say(language)
        shown = curves(say, self.labels[k], self.ranking(name, k))
        return shown, reliability(say, len(self.labels), self.calibration(name))

    def photo(self, name: str) -> Image.Image | None:
        """Return a recorded photo, small, if it is at hand."""
        path = self.photos.path(name) if self.photos else None
        return self._thumbnail(path) if path else None

    @functools.cached_property
    def scale(self) -> float:
        """The one scale of all maps in logits: the model's own, or else what it is by the record."""
        return self.classifier.evidence_scale or fixed_scale(self.record.evidence(slice(None)))

    def other(self, say: Say, k: int) -> str:
        """Name what label `k` is told from: the other of two labels, or whatever else there is."""
        return self.labels[1 - k] if len(self.labels) == 2 else say.plain("quality.not", label=self.labels[k])


def _thumbnail(path: Path) -> Image.Image | None:
    try:
        return WORK.run("page", _small, path, alone=is_large(path))
    except ImageError:
        return None  # gone since it was found


def _small(path: Path) -> Image.Image:
    photo = open_image(path, size=SIDE)
    photo.thumbnail((SIDE, SIDE))
    return photo


# ---------------------------------------------------------------- sentences and tables


def rate(say: Say, share: float | None) -> str:
    """Write a share with two decimals; 100 % and 0 % only where nothing is missing."""
    if share is None:
        return "–"
    digits = 0 if share in (0, 1) else 2
    while digits and float(f"{100 * share:.{digits}f}") in (0, 100):
        digits += 1
    return say.number(f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%")


def about(say: Say, split: Split, labels: list[str]) -> Markup:
    """Say what a set of photos is (HTML)."""
    name = split.name if split.name in SPLITS else "elsewhere"
    counts = np.bincount(split.truth, minlength=len(labels))
    if len(labels) <= words.NAMED_UP_TO:
        each = ", ".join(f"{number(say, n)} × {label}" for n, label in zip(counts, labels, strict=True))
        counted = say("quality.count", photos=number(say, len(split)), each=each)
    else:
        counted = say("quality.count_many", photos=number(say, len(split)), labels=int((counts > 0).sum()))
    return Markup("<p>{} {}</p>").format(counted, say(f"quality.about_{name}"))


def area(say: Say, quality: Quality, split: Split, k: int) -> Markup:
    """Show the ROC AUC with its interval, where it comes from, and whether both sources agree (HTML)."""
    claimed, computed = split.score("roc_auc"), quality.mean_area(split.name)
    best = claimed[0] if computed is None and claimed else computed
    if best is None:
        return Markup("<p>{}</p>").format(say("quality.auc_none"))
    name = "quality.auc" if len(quality.labels) == 2 else "quality.auc_mean"
    parts = [Markup("<p class='auc'><span>{}</span> <b>{}</b>").format(say(name), _score(say, best))]
    if claimed and claimed[1] is not None:
        level = {} if split.level is None else {"level": say.number(f"{100 * split.level:g}")}
        ends = {"low": _score(say, claimed[1]), "high": _score(say, claimed[2])}
        name = "quality.interval" if level else "quality.interval_plain"
        parts.append(Markup(" <span>{}</span>").format(say(name, **level, **ends)))
    parts += [Markup("</p>"), _meaning_of_area(say, quality, split, k)]
    parts.append(
        _sources(say, claimed and _score(say, claimed[0]), None if computed is None else _score(say, computed))
    )
    return Markup("").join(parts)


def _meaning_of_area(say: Say, quality: Quality, split: Split, k: int) -> Markup:
    ranking, label = quality.ranking(split.name, k), quality.labels[k]
    if not ranking.has_curves:
        return Markup("<p>{}</p>").format(say("quality.auc_none"))
    means = Markup("<p>{}</p>").format(say("quality.auc_means", label=label))
    if len(quality.labels) == 2:
        return means
    own = say("quality.auc_label", label=label, auc=_score(say, ranking.roc_auc))
    return means + Markup("<p>{}</p>").format(own)


def _sources(say: Say, claimed: str | None, computed: str | None) -> Markup:
    """List what each file says, and whether they agree."""
    row = Markup("<li><b>{}</b> {}</li>")
    rows = [row.format(claimed, say("quality.source_metrics"))] if claimed else []
    rows += [row.format(computed, say("quality.source_here"))] if computed else []
    verdict = "agree" if claimed == computed else "differ"
    if not claimed or not computed:
        verdict = "no_metrics" if computed else "too_many"
    tail = Markup("<p role='alert' class='refusal'>{}</p>" if verdict == "differ" else "<p>{}</p>")
    sentence = say(f"quality.{verdict}", **({"most": MEAN_UP_TO} if verdict == "too_many" else {}))
    return Markup("<ul class='sources'>{}</ul>{}").format(Markup("").join(rows), tail.format(sentence))


def _score(say: Say, value: float) -> str:
    return say.number(f"{value:.5f}")


def curves(say: Say, label: str, ranking: Ranking) -> Markup:
    """Return both curves with their captions (HTML); nothing where there is none."""
    if not ranking.has_curves:
        return Markup("")
    false, true = ranking.roc
    precision, recall = ranking.precision_recall
    roc_alt = say(
        "quality.roc_alt",
        label=label,
        auc=_score(say, ranking.roc_auc),
        at1=rate(say, float(true[false <= 0.01].max())),
        at5=rate(say, float(true[false <= 0.05].max())),
    )
    precision_alt = say(
        "quality.pr_alt",
        label=label,
        ap=_score(say, ranking.average_precision),
        at90=rate(say, float(precision[recall >= 0.9].max())),
        at99=rate(say, float(precision[recall >= 0.99].max())),
    )
    return Markup("<div class='charts'>{}{}</div>").format(
        _figure(say, "roc", charts.roc(ranking, say), roc_alt),
        _figure(say, "pr", charts.precision_recall(ranking, say), precision_alt),
    )


def _figure(say: Say, name: str, svg: str, alt: str) -> Markup:
    return Markup(
        "<figure class='chart'><h3>{}</h3><div role='img' aria-label='{}'>{}</div><figcaption>{}</figcaption></figure>"
    ).format(say(f"quality.{name}_title"), alt, Markup(svg), say(f"quality.{name}_caption"))


def reliability(say: Say, labels: int, found: Calibration) -> Markup:
    """Return the reliability diagram, what it says, and its numbers as a table (HTML)."""
    top = int(np.flatnonzero(found.photos)[-1])
    error = say.number(f"{found.error:.4f}")
    alt = say(
        "quality.reliability_alt",
        photos=number(say, found.photos.sum()),
        ece=error,
        surest=number(say, found.photos[top]),
        from_=say.number(f"{100 * top / BINS:.1f}"),
        right=rate(say, float(found.right[top])),
    )
    svg = charts.reliability(found, labels, say)
    means = say("quality.ece_means", points=say.number(f"{100 * found.error:.2f}"))
    return Markup(
        "<div class='calibration'><figure class='chart'><h3>{}</h3><div role='img' aria-label='{}'>{}</div></figure>"
        "<div><p class='auc'><span>{}</span> <b>{}</b></p><p>{}</p>{}</div></div>"
    ).format(
        say("quality.reliability_title"), alt, Markup(svg), say("quality.ece"), error, means, _bins(say, found)
    )  # fmt: skip


def _bins(say: Say, found: Calibration) -> Markup:
    row = Markup("<tr><th scope='row'>{}</th><td>{}</td><td>{}</td><td>{}</td></tr>")
    rows = [
        row.format(
            say.number(f"{100 * index / BINS:.1f}–{100 * (index + 1) / BINS:.1f}\N{NO-BREAK SPACE}%"),
            number(say, found.photos[index]),
            rate(say, float(found.confidence[index])),
            rate(say, float(found.right[index])),
        )
        for index in np.flatnonzero(found.photos)[::-1]
    ]
    heads = ("bin", "photos", "bin_mean", "bin_right")
    head = Markup("").join(Markup("<th scope='col'>{}</th>").format(say(f"quality.{name}")) for name in heads)
    return Markup(
        "<details><summary>{}</summary><div class='scroll'><table><caption>{}</caption><thead><tr>{}</tr></thead>"
        "<tbody>{}</tbody></table></div></details>"
    ).format(say("quality.bins"), say("quality.bins_caption"), head, Markup("").join(rows))


def numbers(say: Say, label: str, other: str, counts: Counts, threshold: float) -> Markup:
    """Return all that the threshold decides, and where its point stands on the curves (HTML)."""
    written_threshold = say.number(f"{threshold:.3f}")
    parts = [_spots(counts)]
    parts.append(
        Markup("<p role='status'>{}</p>").format(
            say("quality.rule", threshold=written_threshold, label=label, other=other)
        )
    )
    parts.append(_confusion(say, label, other, counts))
    cards = [
        Markup("<div><dt>{}</dt><dd><b>{}</b> <span>{}</span></dd></div>").format(
            say("quality.recall_long" if name == "recall" else f"quality.{name}"),
            rate(say, getattr(counts, name)),
            _meaning(say, name, label, counts),
        )
        for name in SCORES
    ]
    parts.append(Markup("<dl class='scores'>{}</dl>").format(Markup("").join(cards)))
    return Markup("").join(parts)


def _meaning(say: Say, name: str, label: str, counts: Counts) -> Markup:
    """Say what a score means, with the counts it is made of (HTML)."""
    if getattr(counts, name) is None:
        return say("quality.undefined")
    return say(f"quality.says_{name}", label=label, **{part: number(say, getattr(counts, part)) for part in COUNTS})


def _spots(counts: Counts) -> Markup:
    """Move the points on both curves; that of the second goes where nothing is called the label."""
    values = {
        "--false": counts.false_positive_rate or 0,
        "--true": counts.recall or 0,
        "--recall": counts.recall or 0,
        "--precision": 1 if counts.precision is None else counts.precision,  # where the curve begins
    }
    style = ";".join(f"{name}:{value:.5f}" for name, value in values.items())
    return Markup(f"<style>#quality-charts{{{style}}}</style>")  # numbers alone


def _confusion(say: Say, label: str, other: str, counts: Counts) -> Markup:
    row = Markup("<tr><th scope='row'>{}</th><td class='{}'>{}</td><td class='{}'>{}</td></tr>")
    label, other = say.text(label), say.text(other)
    found, missed, alarms, spared = (number(say, count) for count in (counts.tp, counts.fn, counts.fp, counts.tn))
    rows = [row.format(label, "right", found, "wrong", missed), row.format(other, "wrong", alarms, "right", spared)]
    return Markup(
        "<div class='scroll'><table class='confusion'><caption>{}</caption><thead><tr><th scope='col'>{} ↓ {} →</th>"
        "<th scope='col'>{}</th><th scope='col'>{}</th></tr></thead><tbody>{}</tbody></table></div>"
    ).format(
        say("quality.confusion"), say("quality.truth"), say("quality.answer"), label, other, Markup("").join(rows)
    )  # fmt: skip


# ---------------------------------------------------------------- mistakes


def mistakes(say: Say, quality: Quality, split: Split, k: int, threshold: float, page: int) -> tuple[Markup, int, bool]:
    """Return a page of the mistakes (HTML), its number, and whether another follows."""
    ranking = quality.ranking(split.name, k)
    wrong = ranking.mistakes(threshold)
    total = number(say, len(split))
    if not len(wrong):
        return Markup("<p role='status'>{}</p>").format(say("quality.mistakes_none", total=total)), 0, False
    page = min(max(page, 0), (len(wrong) - 1) // ON_A_PAGE)
    chosen = wrong[page * ON_A_PAGE : (page + 1) * ON_A_PAGE]
    try:
        maps = quality.record.evidence(split.rows[chosen])
        note = _about_maps(say, quality, k) if maps is not None else say("quality.map_none")
    except BundleError:
        maps, note = None, say("quality.map_broken")
    items = [
        _mistake(say, quality, split, k, threshold, int(index), None if maps is None else maps[place])
        for place, index in enumerate(chosen)
    ]
    first = page * ON_A_PAGE + 1
    span = {"first": number(say, first), "last": number(say, first + len(chosen) - 1), "all": number(say, len(wrong))}
    counted = say("quality.mistakes_count", wrong=number(say, len(wrong)), total=total)
    shown = Markup(
        "<p>{}</p><p class='note'>{} {}</p><ol class='mistakes' start='{}'>{}</ol><p role='status' class='page'>{}</p>"
    ).format(
        counted, note, _about_photos(say, quality.photos), first, Markup("").join(items), say("quality.page", **span)
    )  # fmt: skip
    return shown, page, (page + 1) * ON_A_PAGE < len(wrong)


def _about_maps(say: Say, quality: Quality, k: int) -> Markup:
    name = "quality.map_two" if len(quality.labels) == 2 else "quality.map_more"
    scale = say.number(f"{quality.scale:.1f}")
    return say(name, label=quality.labels[k], other=quality.other(say, k), scale=scale)


def _about_photos(say: Say, photos: Photos | None) -> Markup:
    if photos is None:
        return say("quality.photos_none")
    name = "quality.photos_found" if photos.done.is_set() else "quality.photos_looking"
    return say(name, found=number(say, photos.found), wanted=number(say, photos.wanted))


def _mistake(
    say: Say, quality: Quality, split: Split, k: int, threshold: float, index: int, evidence: np.ndarray | None
) -> Markup:
    """One photo that gets the wrong answer: the photo where it is at hand, its map, truth and answer."""
    label, other = quality.labels[k], quality.other(say, k)
    share = float(quality.ranking(split.name, k).probability[index])
    answer = label if share >= threshold else other
    pictures = []
    photo = quality.photo(str(split.hashes[index]))
    if photo:
        pictures.append(_picture(jpeg(photo, QUALITY), "image/jpeg", say("quality.photo_alt")))
    if evidence is not None:
        pictures.append(_map(say, label, shown_map(evidence, k), quality.scale, photo))
    if not pictures:
        pictures.append(Markup("<span class='absent'>{}</span>").format(say("quality.map_absent")))
    line = Markup("<span>{}: <b>{}</b></span>")
    caption = [
        line.format(say("quality.truth"), say.text(quality.labels[split.truth[index]])),
        line.format(say("quality.answer"), say.text(answer)),
        line.format(say("quality.probability_of", label=label), words.percent(say, share)),
    ]
    return Markup("<li><figure><div>{}</div><figcaption>{}</figcaption></figure></li>").format(
        Markup("").join(pictures), Markup("").join(caption)
    )


def _map(say: Say, label: str, values: np.ndarray, scale: float, photo: Image.Image | None) -> Markup:
    """A map over its photo, or its cells alone: the browser enlarges them, each as the square that it is."""
    mean, low, high = (words.signed(say, float(value)) for value in (values.mean(), values.min(), values.max()))
    alt = say("quality.map_alt", label=label, mean=mean, low=low, high=high)
    if photo:
        return _picture(jpeg(overlay(photo, values, scale, OPACITY), QUALITY), "image/jpeg", alt)
    file = io.BytesIO()
    Image.fromarray(colour(values, scale)).save(file, "PNG")
    return _picture(file.getvalue(), "image/png", alt, "cells")


def _picture(content: bytes, kind: str, alt: str, name: str = "photo") -> Markup:
    return Markup("<img class='{}' src='{}' alt='{}'>").format(name, data_url(content, kind), alt)


# ---------------------------------------------------------------- computing it again


def snippet(split: Split, labels: int) -> str:
    """Return the lines of Python that compute the split's ROC AUC from the two files and print both."""
    path = f"[{split.name!r}]" if split.name in SPLITS else f"['elsewhere'][{split.name!r}]"
    code = SNIPPET.format(split=repr(split.name), score=TWO_LABELS if labels == 2 else MORE_LABELS, path=path)
    return code if split.score("roc_auc") else code.replace(f', json.load(open("metrics.json")){path}["roc_auc"]', "")


# ---------------------------------------------------------------- the tab


def build(offer: Offer) -> None:
    """Lay out the tab and connect it; call it inside gr.Blocks."""
    with gr.Column(elem_id="quality-tab"):
        try:
            record = _record(offer.classifier)
        except NoRecord:
            gr.HTML(fixed("quality.none"), elem_id="quality-none")
        except BundleError as error:
            reason = str(error)
            gr.HTML(written(lambda say: refusal(say("quality.problem", reason=reason))), elem_id="quality-none")
        else:
            hashes = {str(name) for split in record.splits.values() for name in split.hashes}
            photos = Photos(offer.photos, hashes) if offer.photos else None
            _build(Quality(offer.classifier, record, photos))


def _record(classifier: ImageClassifier) -> Record:
    """Return the record of a model.

    Raises:
        NoRecord: it brings none.
        BundleError: it could not be fetched or read.
    """
    problem = fetch(classifier)
    if problem:
        raise BundleError(problem)
    if classifier.folder is None:
        raise NoRecord(f"{classifier.name} is not in a folder, so it has no record.")
    return Record(classifier.folder)


def _build(quality: Quality) -> None:
    record, labels = quality.record, quality.labels
    names = list(record.splits)
    gr.HTML(fixed("quality.intro"), elem_id="quality-intro")
    with gr.Row(elem_id="quality-choices"):
        titles = [fixed(f"quality.split_{name}") if name in SPLITS else name for name in names]
        split = gr.Radio(
            list(zip(titles, names, strict=True)),
            value=names[0],
            label=fixed("quality.split"),
            min_width=240,
            elem_id="quality-split",
        )
        label: gr.State | gr.Radio | gr.Dropdown = gr.State(1)
        if len(labels) > 2:
            choose = gr.Radio if len(labels) <= words.NAMED_UP_TO else gr.Dropdown
            label = choose(
                labels,
                value=labels[0],
                type="index",
                label=fixed("quality.label"),
                min_width=240,
                elem_id="quality-label",
            )
    summary = gr.HTML(fixed("quality.loading"), elem_id="quality-summary")
    gr.HTML(fixed("quality.curves"))
    gr.HTML(fixed("quality.threshold_info"))
    threshold = gr.Slider(
        0,
        1,
        THRESHOLD,
        step=0.001,
        label=fixed("quality.threshold"),
        buttons=[],
        elem_id="quality-threshold",
    )
    chart = gr.HTML(elem_id="quality-charts")
    scores = gr.HTML(elem_id="quality-numbers")
    gr.HTML(fixed("quality.reliability"))
    trust = gr.HTML(elem_id="quality-reliability")
    gr.HTML(fixed("quality.mistakes"), elem_id="quality-mistakes-title")
    gallery = gr.HTML(elem_id="quality-mistakes")
    with gr.Row(elem_id="quality-pages"):
        back = gr.Button(fixed("quality.previous"), interactive=False, size="sm", elem_id="quality-previous")
        forth = gr.Button(fixed("quality.next"), interactive=False, size="sm", elem_id="quality-next")
    gr.HTML(fixed("quality.again"))
    gr.HTML(fixed("quality.again_how"))
    with gr.Row(elem_id="quality-files"):
        for name in (PREDICTIONS, METRICS):
            if (quality.classifier.folder / name).is_file():
                gr.DownloadButton(name, value=quality.classifier.folder / name, size="sm", min_width=160)
    code = gr.Code(language="python", interactive=False, label=fixed("quality.code"), elem_id="quality-code")
    opened, page = gr.State(False), gr.State(0)

    def asked(name: str | None, k: int | None, least: float | None) -> tuple[Split, int, float]:
        """What the controls say, within what there is: a request can be made by hand."""
        k = k if isinstance(k, int) and 0 <= k < len(labels) else int(len(labels) == 2)
        least = least if isinstance(least, int | float) and math.isfinite(least) else THRESHOLD
        return record.splits.get(name) or record.splits[names[0]], k, min(max(float(least), 0.0), 1.0)

    def turned(say: Say, chosen: Split, k: int, least: float, wanted: int) -> dict:
        shown, now, more = mistakes(say, quality, chosen, k, least, wanted)
        return {
            gallery: shown,
            page: now,
            back: gr.update(interactive=now > 0),
            forth: gr.update(interactive=more),
        }

    def counted(say: Say, chosen: Split, k: int, least: float) -> Markup:
        counts = quality.ranking(chosen.name, k).at(least)
        return numbers(say, labels[k], quality.other(say, k), counts, least)

    def on_choice(name: str | None, k: int | None, least: float | None, request: gr.Request) -> dict:
        """Show another set of photos or another label."""
        say, (chosen, k, least) = voice_for(request), asked(name, k, least)
        curve, diagram = quality.drawn(chosen.name, k, say.language)
        return {
            opened: True,
            summary: about(say, chosen, labels) + area(say, quality, chosen, k),
            chart: curve,
            scores: counted(say, chosen, k, least),
            trust: diagram,
            code: snippet(chosen, len(labels)),
            **turned(say, chosen, k, least, 0),
        }

    def on_open(seen: bool, name: str | None, k: int | None, least: float | None, request: gr.Request) -> dict:
        """Fill the tab the first time it is opened."""
        if quality.photos:
            quality.photos.start()
        return {opened: True} if seen else on_choice(name, k, least, request)

    def on_threshold(name: str | None, k: int | None, least: float | None, request: gr.Request) -> Markup:
        """Count anew."""
        return counted(voice_for(request), *asked(name, k, least))

    def on_rest(name: str | None, k: int | None, least: float | None, request: gr.Request) -> dict:
        """Show the mistakes at another threshold, from the first page on."""
        return turned(voice_for(request), *asked(name, k, least), 0)

    def on_page(step: int):
        def on_click(now: int, name: str | None, k: int | None, least: float | None, request: gr.Request) -> dict:
            return turned(voice_for(request), *asked(name, k, least), (now or 0) + step)

        return on_click

    controls = [split, label, threshold]
    pages = [gallery, page, back, forth]
    everything = [opened, summary, chart, scores, trust, code, *pages]
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    opening()(on_open, [opened, *controls], everything, **quiet)
    changes = [split.input] + ([label.input] if len(labels) > 2 else [])
    gr.on(changes, on_choice, controls, everything, trigger_mode="always_last", **quiet)
    # The numbers follow at once and pass by the queue of those who wait for a model.
    threshold.change(on_threshold, controls, scores, trigger_mode="always_last", queue=False, **quiet)
    threshold.change(on_rest, controls, pages, trigger_mode="always_last", **quiet)
    back.click(on_page(-1), [page, *controls], pages, **quiet)
    forth.click(on_page(1), [page, *controls], pages, **quiet)
