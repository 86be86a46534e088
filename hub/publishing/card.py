"""The model card: one text rendered from a bundle's config and its measured results, never edited by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING

from hub.agreement import Agreement
from hub.config import Backbone, Config
from hub.metrics import Dataset, Metrics, SplitScores, Training
from hub.publishing import card_runtimes
from hub.publishing.markdown import facts, paragraphs, table
from hub.scores import NOT_MEASURED, SCORES, Interval, duration, number, score, wilson

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

NOT_TOLD_APART = "the intervals overlap, so this may be chance"
LARGEST_MATRIX = 20  # labels; beyond, a table of the commonest confusions is read more easily
WEAKEST = 10  # labels whose recall is shown then


def render(
    config: Config, metrics: Metrics | None, agreement: Agreement | None = None, repo_id: str | None = None
) -> str:
    """Return the card (YAML front matter and Markdown) of a bundle.

    Every number comes from the three; what they do not hold is left out or said to be unknown.

    Args:
        config: what config.json says.
        metrics: what metrics.json says.
        agreement: agreement.json's; with it the card shows how each runtime loads the model and how far it agrees.
        repo_id: owner/name, for the snippets.
    """
    from huggingface_hub import ModelCard  # half a second, which no answer should wait for

    metrics = (metrics or Metrics()).fitting(len(config.labels))
    sections = [
        _introduction(config),
        _use(config),
        card_runtimes.loading(config, agreement, repo_id),
        _data(metrics),
        _backbone(config),
        _training(metrics),
        _results(config, metrics),
        _calibration(metrics),
        card_runtimes.agreement_section(agreement) if agreement else _onnx_and_keras(metrics),
        _heatmap(config),
        _limits(config, metrics),
    ]
    body = "\n\n".join(section for section in sections if section)
    return str(ModelCard(f"---\n{_front_matter(config, metrics, agreement).to_yaml()}\n---\n\n{body}\n"))


# Front matter -----------------------------------------------------------------------------------------------


def _front_matter(config: Config, metrics: Metrics, agreement: Agreement | None) -> ModelCardData:
    from huggingface_hub import ModelCardData

    results = _evaluation_results(metrics)
    hub_id = metrics.dataset.hub_id if metrics.dataset else None
    return ModelCardData(
        license=config.license or "apache-2.0",
        library_name="keras",
        pipeline_tag="image-classification",
        tags=[
            "image-classification",
            *card_runtimes.tags(agreement),
            *(["class-activation-map"] if config.evidence else []),
        ],
        datasets=[hub_id] if hub_id else None,
        metrics=["roc_auc", "accuracy"] if results else None,
        base_model=config.backbone.hub_id if config.backbone else None,
        model_name=_model_name(config) if results else None,
        eval_results=results or None,
    )


def _evaluation_results(metrics: Metrics) -> list[EvalResult]:
    """ROC AUC and accuracy on the test split; on validation, named so, where no test split was scored."""
    from huggingface_hub import EvalResult

    split = next((name for name in ("test", "validation") if metrics.split(name)), None)
    scores, dataset = metrics.split(split or ""), metrics.dataset
    if split is None or scores is None or not dataset or not dataset.name:
        return []
    results = []
    for name, digits in (("roc_auc", 5), ("accuracy", 4)):
        value = scores.score(name).value
        if value is not None:
            results.append(
                EvalResult(
                    task_type="image-classification",
                    task_name="Image Classification",
                    dataset_type=_data_name(dataset),
                    dataset_name=_data_name(dataset),
                    dataset_split=split,
                    metric_type=name,
                    metric_name=SCORES[name],
                    metric_value=round(value, digits),
                )
            )
    return results


def _model_name(config: Config) -> str:
    """The name given in the config, else the labels and the backbone."""
    if config.name:
        return config.name
    names = _labels(config)
    subject = "-".join(names) if len(names) <= 4 else f"{len(names)}-labels"
    return re.sub(r"[^a-z0-9-]+", "-", f"{subject}-{config.model_type or 'classifier'}".lower()).strip("-")


# Sections ---------------------------------------------------------------------------------------------------


def _introduction(config: Config) -> str:
    names = _labels(config)
    side = config.image_size
    backbone = (config.backbone and config.backbone.name) or config.model_type
    takes = f", resized to {side} × {side} pixels without keeping its shape"
    purpose = f"This model says which of {len(names)} labels a photo shows: {_listed(names)}."
    if not config.evidence:
        return paragraphs(
            f"# {_title(config)}",
            f"{purpose} Its input is an RGB photo{takes}.",
            "It has a classic head, which has no map of the evidence for an answer. Instead, `hub.explain` shows "
            "Grad-CAM of the last feature maps where Keras is installed, and occlusion elsewhere.",
        )
    built = f"It is {_an(backbone)} with" if backbone else "It has"
    return paragraphs(
        f"# {_title(config)}",
        f"{purpose} With each answer it returns a map of the evidence for it, from the same forward pass.",
        f"{built} a linear head that is applied at every place of the last feature map "
        f"({_times(config.evidence.grid)} cells) and then averaged. The average of a label's evidence is exactly "
        f"its logit. The softmax of the logits gives the probabilities. Its input is an RGB photo{takes}.",
    )


def _title(config: Config) -> str:
    names = _labels(config)
    subject = f"{', '.join(names[:-1])} or {names[-1]}" if len(names) <= 4 else f"One of {len(names)} labels"
    kind = "a photo classifier that shows its evidence" if config.evidence else "a photo classifier"
    return f"{subject[0].upper()}{subject[1:]}: {kind}"


def _use(config: Config) -> str:
    names = _labels(config)
    return paragraphs(
        "## Use, and what not to use it for",
        f"Use it for photos that show {_listed(names, 'or')}, and to learn how a network's answer can be explained.",
        "Do not use it for photos that show none of these, or several at once. The model knows no other label and "
        "cannot answer that it is none of them: its probabilities always sum to one over the labels above. "
        "Do not use it for drawings, renderings or other pictures unlike the training photos. Do not use it where a "
        "wrong answer does harm: only the results below are known about it.",
    )


def _data(metrics: Metrics) -> str:
    data = metrics.dataset
    if not data:
        return paragraphs("## Data", "Nothing is recorded about the training data.")
    return paragraphs(
        "## Data and its known problems", _pictures(data), _splits_table(data), _faults(data), _licence(data)
    )


def _pictures(data: Dataset) -> str:
    count = data.photos
    photos = f"{count:,} photos" if count is not None else "Photos"
    stored = _stored_size(data.image_size)
    stored = f", stored at {stored} pixels" if stored else ""
    note = f" {data.note}" if data.note else ""
    return f"{photos} of the data set `{_data_name(data)}`{stored}.{note}"


def _splits_table(data: Dataset) -> str:
    splits = data.splits
    if not splits:
        return ""
    names = list(dict.fromkeys(name for split in splits.values() for name in split.share or {}))
    shown = names if len(names) <= LARGEST_MATRIX else []
    rows = [
        [name, f"{split.photos:,}", *(_share((split.share or {}).get(label)) for label in shown)]
        for name, split in splits.items()
    ]
    return paragraphs(
        table(["Split", "Photos", *shown], rows),
        "If the data set has its own test or validation split, that split is kept. For all other photos, a hash of "
        "the pixels decides, so exact duplicates are never in two splits. Nobody looked for near-duplicates.",
    )


def _faults(data: Dataset) -> str:
    kinds = {
        "unreadable": "unreadable (skipped)",
        "unlabelled": "without a label (skipped)",
        "duplicates": "exact duplicates (kept once)",
        "duplicates_across_splits": "of these in two of the data set's own splits",
        "conflicts": "with pixels that occur under more than one label (skipped)",
    }
    found = [f"{number:,} {text}" for key, text in kinds.items() if (number := getattr(data, key)) is not None]
    counted = f"Found while loading: {'; '.join(found)}. " if found else ""
    return f"{counted}Other labels were not checked. If one is wrong, the model was trained on it or scored against it."


def _licence(data: Dataset) -> str:
    if data.license:
        return f"Licence of the photos: {data.license}. None of them is in this bundle."
    return "The licence of the photos is unknown. None of them is in this bundle."


def _backbone(config: Config) -> str:
    backbone = config.backbone
    if not backbone or backbone == Backbone():
        return ""
    known = [
        ("Network", backbone.name),
        ("On the Hub", f"`{backbone.hub_id}`" if backbone.hub_id else None),
        ("Weights before training", _without_folder(backbone.weights)),
        ("Licence", backbone.license or "unknown"),
        ("SHA-256 of the weights", f"`{backbone.sha256}`" if backbone.sha256 else None),
    ]
    return paragraphs("## Backbone", facts(known))


def _training(metrics: Metrics) -> str:
    training = metrics.training
    if not training:
        return paragraphs("## Training", "Nothing is recorded about how the model was trained.")
    seconds, left_out = training.seconds, training.left_out
    known = [
        ("Recipe", f"`{training.recipe}`" if training.recipe else None),
        ("Epochs", training.epochs),
        ("Time", duration(seconds) if seconds is not None else None),
        ("Temperature", _temperature(training)),
        ("Started", training.started),
        ("Photos not used because of the settings", f"{left_out:,}" if left_out else None),
        ("Machine", _pairs(training.machine)),
        ("Versions", _pairs(training.versions)),
    ]
    settings = training.settings or {}
    return paragraphs(
        "## Training",
        facts(known),
        f"```sh\n{training.command}\n```" if training.command else "",
        table(["Setting", "Value"], [[f"`{key}`", f"`{value}`"] for key, value in settings.items()])
        if settings
        else "",
    )


def _temperature(training: Training) -> str | None:
    return None if training.temperature is None else f"{training.temperature:.3f}, fitted on validation"


def _photos(scores: SplitScores) -> str:
    return "?" if scores.photos is None else f"{scores.photos:,}"


def _results(config: Config, metrics: Metrics) -> str:
    scored = _scored(metrics)
    if not scored:
        return paragraphs("## Results", "Nothing was measured.")
    names = _labels(config)
    head = ["", *(f"{title}, {_photos(scores)} photos" for title, scores in scored.items())]
    rows = [[text, *(score(key, scores.score(key)) for scores in scored.values())] for key, text in SCORES.items()]
    matrices = [
        paragraphs(
            f"### Confusion matrix: {title.lower() if title in _SPLITS else title}",
            _confusion(names, scores.confusion_matrix),
        )
        for title, scores in scored.items()
        if scores.confusion_matrix
    ]
    return paragraphs(
        "## Results",
        table(head, rows),
        _what_the_scores_are(names, scored),
        _record(metrics),
        _recalls(names, scored),
        *matrices,
    )


def _record(metrics: Metrics) -> str:
    if not _scored(metrics):
        return ""
    return (
        "`predictions.parquet` holds the hash, label and answer of every photo scored here, so these numbers can "
        "be computed again. `python -m training evaluate` computes them again from the photos."
    )


_SPLITS = {"Validation": "validation", "Test": "test"}


def _scored(metrics: Metrics) -> dict[str, SplitScores]:
    """The blocks of scores that were measured, by the title of their column."""
    blocks = {title: metrics.split(key) for title, key in _SPLITS.items()}
    blocks |= {f"Elsewhere: {name}": scores for name, scores in (metrics.elsewhere or {}).items()}
    return {title: scores for title, scores in blocks.items() if scores}


def _what_the_scores_are(names: list[str], scored: dict[str, SplitScores]) -> str:
    if len(names) == 2:
        positive = f"Precision, recall, F1, average precision and ROC AUC are for the label `{names[1]}`."
    else:
        positive = (
            "Precision, recall, F1, average precision and ROC AUC are the mean over the labels of each "
            "label against the rest."
        )
    used = [scores.bootstrap for scores in scored.values() if scores.bootstrap and scores.bootstrap.is_whole]
    if not used:
        return positive
    way = used[0]
    same = all(other == way for other in used)
    text = (
        f"In brackets: {100 * (way.level or 0):g} % percentile bootstrap interval over the photos, "
        f"{way.resamples:,} resamples, seed {way.seed}. "
        if same
        else "In brackets: percentile bootstrap interval over the photos. "
    )
    return (
        f"{text}{positive} The interval shows how much the score depends on which photos were drawn. It does not "
        "show how much another training run would differ. The epoch and the temperature were chosen on the "
        "validation photos, so the validation scores are optimistic. The interval of the calibration error tends "
        "to be too high, because resampling adds noise that counts as error."
    )


def _confusion(names: list[str], matrix: list[list[int]]) -> str:
    if len(matrix) <= LARGEST_MATRIX:
        rows = [[f"**{name}**", *(f"{cell:,}" for cell in row)] for name, row in zip(names, matrix, strict=True)]
        return table(["Truth ↓ Answer →", *names], rows)
    wrong = [(n, i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j and n]
    commonest = sorted(wrong, key=lambda cell: (-cell[0], cell[1], cell[2]))[:10]
    if not commonest:
        return "No photo was confused."
    return table(["Truth", "Answer", "Photos"], [[names[i], names[j], f"{n:,}"] for n, i, j in commonest])


def _recalls(names: list[str], scored: dict[str, SplitScores]) -> str:
    """Recall label by label, so that a weak one does not hide in the average; of many labels the ten weakest."""
    columns = {title: scores.confusion_matrix for title, scores in scored.items() if scores.confusion_matrix}
    if not columns:
        return ""
    leading = columns.get("Test") or next(iter(columns.values()))
    order, heading = list(range(len(leading))), "Recall by label"
    if len(leading) > LARGEST_MATRIX:
        order = sorted(order, key=lambda k: (_recall(leading, k)[0], k))[:WEAKEST]
        heading = f"Recall of the {WEAKEST} weakest labels"
    rows = [[names[k], *(_recall_text(matrix, k) for matrix in columns.values())] for k in order]
    return paragraphs(
        f"### {heading}",
        table(["Label", *columns], rows),
        "The share of a label's photos that are classified correctly. In brackets: 95 % Wilson interval.",
    )


def _recall(matrix: list[list[int]], k: int) -> tuple[float, float, float]:
    """Return the recall of label k and its 95 % Wilson interval; 1, 0 and 1 if it has no photo."""
    total = sum(matrix[k])
    if not total:
        return 1.0, 0.0, 1.0
    share = matrix[k][k] / total
    low, high = wilson(share, total)
    return share, float(low), float(high)


def _recall_text(matrix: list[list[int]], k: int) -> str:
    if not sum(matrix[k]):
        return NOT_MEASURED
    value, low, high = _recall(matrix, k)
    return f"{score('recall', Interval(value, low, high))}, {matrix[k][k]:,} of {sum(matrix[k]):,}"


def _calibration(metrics: Metrics) -> str:
    lines = []
    for title, scores in _scored(metrics).items():
        error = scores.score("expected_calibration_error").value
        if error is not None:
            lines.append(f"- {title}: {100 * error:.2f} percentage points.")
    if not lines:
        return ""
    return paragraphs(
        "## Calibration",
        "The difference between the top probability and the share of correct answers, averaged over 15 equal-width "
        "bins of that probability and weighted by the photos in them (Guo et al. 2017):",
        "\n".join(lines),
    )


def _onnx_and_keras(metrics: Metrics) -> str:
    found = metrics.agreement
    if not found or found.probability is None:
        return ""
    photos = found.photos
    on = f"On {photos:,} pictures" if photos is not None else "On the pictures compared"
    tolerance = found.tolerance
    limit = "" if tolerance is None else f" A bundle with a difference above {tolerance:g} is not written."
    cell = f" and {found.evidence:.1e} in a cell of evidence" if found.evidence is not None else ""
    return paragraphs(
        "## ONNX and Keras",
        f"{on}, the largest difference between the two files was {found.probability:.1e} in a "
        f"probability{cell}.{limit}",
    )


def _heatmap(config: Config) -> str:
    names = _labels(config)
    evidence = config.evidence
    if not evidence:
        return ""
    grid = evidence.grid
    if len(names) == 2:
        shown = (
            f"The heatmap shows a difference: for `{names[1]}`, the evidence for `{names[1]}` minus that for "
            f"`{names[0]}`. Its mean over the cells is the log-odds of `{names[1]}` against `{names[0]}`."
        )
    else:
        shown = (
            "The heatmap of a label shows its evidence minus the mean over all labels, because adding the same "
            "amount to all labels changes no probability."
        )
    scale = evidence.scale
    if scale is not None:
        meaning = f" ({evidence.scale_definition})" if evidence.scale_definition else ""
        scale_text = (
            f"The colour scale is fixed: full colour stands for ±{scale:.2f} logits{meaning} on every photo, so "
            "strengths can be compared. The answer is the sum. If strong colours cancel, the answer is a guess too."
        )
    else:
        scale_text = "This bundle stores no colour scale, so strengths cannot be compared between photos."
    return paragraphs(
        "## How to read the heatmap",
        f"Each square is one of {grid[0] * grid[1]} cells ({_times(grid)}) of the network's last layer: evidence for "
        f"or against a label, in logits. {shown}",
        scale_text,
        "The map is exact for the head: the mean of its cells is exactly the score. It is not exact for pixels: "
        "one cell sees far more of the photo than its own square. So strong colour shows where the last layer has "
        "evidence, but other pixels may have caused it. For this head, Grad-CAM of a logit is the positive part of "
        "the same evidence, up to a constant factor.",
    )


def _limits(config: Config, metrics: Metrics) -> str:
    points = [*_mistakes(_labels(config), metrics), *_gap(metrics), *_undefined(metrics)]
    stored = _stored_size(metrics.dataset.image_size if metrics.dataset else None)
    side = config.image_size
    if stored and "–" in stored:
        points.append(f"The training photos were stored at {stored} pixels and are resized to {side} × {side}.")
    elif stored:
        points.append(
            f"All training photos were stored at {stored} pixels and are resized to {side} × {side}. The network "
            "saw few sharper or wider photos in training."
        )
    if not metrics.elsewhere:
        points.append(
            "No photos from elsewhere were scored, so it is unknown whether the results hold for other photos."
        )
    points.append("Nobody measured how it answers pictures that show none of its labels.")
    return paragraphs("## Limits", "\n".join(f"- {point}" for point in points))


def _mistakes(names: list[str], metrics: Metrics) -> Iterable[str]:
    """How many photos were answered wrongly, which bounds what may be claimed, and of which label more."""
    for title, scores in _scored(metrics).items():
        matrix = scores.confusion_matrix
        if matrix:
            total = sum(map(sum, matrix))
            wrong = total - sum(matrix[k][k] for k in range(len(matrix)))
            yield f"{title}: {wrong:,} of {total:,} photos were classified wrongly. {_leaning(names, matrix)}".strip()


def _leaning(names: list[str], matrix: list[list[int]]) -> str:
    """Say which label's photos are answered wrongly most often, and of two labels whether that can be told."""
    present = sorted((k for k, row in enumerate(matrix) if sum(row)), key=lambda k: _recall(matrix, k)[0])
    if len(present) < 2 or _recall(matrix, present[0])[0] == _recall(matrix, present[-1])[0]:
        return ""
    worst, best = (f"`{names[k]}`" for k in (present[0], present[-1]))
    worst_missed, best_missed = (_missed(matrix, k) for k in (present[0], present[-1]))
    if len(matrix) > 2:
        return f"Mistakes are most frequent for {worst} ({worst_missed}) and least frequent for {best} ({best_missed})."
    apart = _recall(matrix, present[0])[2] < _recall(matrix, present[1])[1]
    verdict = "the intervals of the two recalls do not overlap" if apart else NOT_TOLD_APART
    return f"More of {worst} ({worst_missed}) than of {best} ({best_missed}): {verdict}."


def _missed(matrix: list[list[int]], k: int) -> str:
    missed, total = sum(matrix[k]) - matrix[k][k], sum(matrix[k])
    return f"{number('recall', missed / total)}, {missed:,} of {total:,}"


def _gap(metrics: Metrics) -> Iterable[str]:
    """What photos from elsewhere say beside the data set's own."""
    own = (metrics.test or SplitScores()).score("accuracy")
    for name, scores in (metrics.elsewhere or {}).items():
        other = scores.score("accuracy")
        if own.value is None or own.ends is None or other.value is None or other.ends is None:
            continue
        (own_low, own_high), (other_low, other_high) = own.ends, other.ends
        if other_high < own_low:
            verdict = "lower, and the intervals do not overlap"
        elif own_high < other_low:
            verdict = "higher, and the intervals do not overlap"
        else:
            verdict = NOT_TOLD_APART
        yield (
            f"Accuracy on {name} ({number('accuracy', other.value)}) compared with the test split "
            f"({number('accuracy', own.value)}): {verdict}."
        )


def _undefined(metrics: Metrics) -> Iterable[str]:
    for title, scores in _scored(metrics).items():
        matrix = scores.confusion_matrix or []
        absent = sum(1 for row in matrix if not sum(row))
        if absent:
            occur = "does not occur" if absent == 1 else "do not occur"
            yield f"{title}: {absent} of the {len(matrix)} labels {occur}, so nothing is known about them."


# Small pieces -----------------------------------------------------------------------------------------------


def _labels(config: Config) -> list[str]:
    # In a card a label is text: it can neither end the code it stands in nor begin an HTML element.
    return [label.translate(str.maketrans("`<>", "'‹›")) for label in config.labels]


def _listed(names: list[str], word: str = "and") -> str:
    shown = [f"`{name}`" for name in names[:LARGEST_MATRIX]]
    if len(names) > len(shown):
        return f"{', '.join(shown)} {word} {len(names) - len(shown)} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} {word} {shown[-1]}"


def _an(word: str) -> str:
    return f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"


def _times(size: Iterable[int] | None) -> str:
    return " × ".join(str(part) for part in size) if size else ""


def _stored_size(size: object) -> str:
    """180 × 180 from a pair, from one side, or from text."""
    if isinstance(size, list | tuple):
        return _times(size)
    if isinstance(size, int):
        return _times((size, size))
    return str(size) if size else ""


def _data_name(data: Dataset) -> str:
    """The data set's name; of a folder only its own name, since its place says nothing to others."""
    return _without_folder(data.name) or "unnamed"


def _without_folder(text: str | None) -> str | None:
    if text and (text.startswith((".", "~")) or PurePath(text).is_absolute()):
        return PurePath(text).name
    return text


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _pairs(content: object) -> str | None:
    if isinstance(content, dict):
        return ", ".join(f"{key} {value}" for key, value in content.items()) or None
    return str(content) if content else None
