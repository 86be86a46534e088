"""What a classifier answers for labelled photos, under the classifier's own labels."""

import re
import unicodedata
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from hub.classifier import ImageClassifier
from hub.errors import DataError
from hub.record import Predictions
from training.photos.data import Photos


def evaluate(
    classifier: ImageClassifier,
    photos: Photos,
    *,
    batch_size: int = 32,
    progress: bool = True,
    echo: Callable[[str], None] = print,
) -> Predictions:
    """Answers of the classifier for labelled photos, by the same ONNX graph that a user runs.

    Args:
        photos: pixels at the classifier's `image_size`.
        echo: is told which labels are matched although they are spelt differently.

    Raises:
        DataError: a label the classifier does not know, or pixels of another size.
    """
    if len(photos) == 0:
        raise DataError(f"{photos.name} holds no pictures to evaluate; name a data set that does.")
    if photos.pixels.shape[1] != classifier.image_size:
        raise DataError(
            f"The pictures are {photos.pixels.shape[1]} px and the model takes {classifier.image_size}; "
            "load them at the model's size."
        )
    labels = map_labels(photos.labels, photos.label_names, classifier.labels, echo=echo)
    logits, evidence = [], []
    with tqdm(total=len(photos), unit="photo", desc="predict", disable=not progress) as bar:
        for start in range(0, len(photos), 8 * batch_size):
            part = np.asarray(photos.pixels[start : start + 8 * batch_size])
            answer = classifier.predict_tensors(part, batch_size=batch_size)
            logits.append(answer[0])
            evidence.append(answer[1])
            bar.update(len(part))
    return Predictions(
        hashes=np.asarray(photos.hashes, str),
        splits=np.asarray(photos.splits, str),
        labels=labels,
        logits=np.concatenate(logits).astype(np.float32),
        evidence=None if evidence[0] is None else np.concatenate(evidence).astype(np.float32),
        label_names=list(classifier.labels),
    )


def map_labels(
    labels: np.ndarray, names: list[str], bundle_names: list[str], *, echo: Callable[[str], None] = print
) -> np.ndarray:
    """A data set's label numbers (N,) as the bundle's, matched by name.

    Names are equal only where they are equal as Unicode (NFC). A name that has no equal is taken for the bundle's that
    differs by case, outer blanks or an English plural alone, if it is the only one on both sides; `echo` is told so.

    Raises:
        DataError: a picture has a label that the bundle does not know.
    """
    used = [int(k) for k in np.unique(labels)]
    place = {unicodedata.normalize("NFC", name): k for k, name in enumerate(bundle_names)}
    table = np.array([place.get(unicodedata.normalize("NFC", name), -1) for name in names], np.int64)
    similar = _similar([names[k] for k in used if table[k] < 0], [
        name for k, name in enumerate(bundle_names) if k not in table[used]
    ])  # fmt: skip
    for k in used:
        if table[k] < 0 and names[k] in similar:
            table[k] = bundle_names.index(similar[names[k]])
    strange = [names[k] for k in used if table[k] < 0]
    if strange:
        raise DataError(
            f"The data has the label {strange[0]!r}, which the model does not know; it knows "
            f"{', '.join(bundle_names)}: rename the label or leave those pictures out."
        )
    if similar:
        pairs = ", ".join(f"{name} as {other}" for name, other in similar.items())
        echo(f"Labels of the data that the model spells differently are read as the model's: {pairs}.")
    return table[labels]


def _similar(names: list[str], others: list[str]) -> dict[str, str]:
    """The names that have one similar name among the others, which is similar to no other name of theirs."""
    forms = {name: _forms(name) for name in (*names, *others)}
    near = {name: [other for other in others if forms[name] & forms[other]] for name in names}
    back = [other for found in near.values() for other in found]
    return {name: found[0] for name, found in near.items() if len(found) == 1 and back.count(found[0]) == 1}


def _forms(name: str) -> set[str]:
    """A name without case and outer blanks, and what it may be the plural of."""
    name = unicodedata.normalize("NFC", name).strip().casefold()
    singulars = {name.removesuffix("s"), name.removesuffix("es"), re.sub("ies$", "y", name)}
    return {name} | {form for form in singulars if len(form) > 2}
