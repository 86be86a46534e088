"""Labels that look wrong: confident learning on the answers of somebody who never saw the picture.

The search is that of Northcutt, Jiang and Chuang 2021, https://arxiv.org/abs/1911.00068. Where no trained network is at
hand, the judge is a linear classifier; its features are how strongly the quarters of a picture respond to small patches
of the pictures themselves, whitened (after Coates, Ng and Lee 2011, "An analysis of single-layer networks in
unsupervised feature learning").
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from tqdm import tqdm

from hub import bundle
from hub.classifier import ImageClassifier
from hub.record import read_predictions
from hub.scores import many, softmax, wilson
from training.photos.answers import evaluate
from training.photos.data import Photos, first_by_hash

SIDE = 32  # of the pictures that are compared and judged
MOST_ANSWERS = 30_000_000  # the judge's, pictures × labels: 240 MB
MOST_BY_MODEL = 20_000  # pictures that a trained model answers: some minutes on two cores
PATCH, PATCHES = 6, 200  # pixels of a patch's side; how many patches
FOLDS = 5
FEWEST = 50  # pictures for the simple judge
USELESS = 0.1  # of the way from "always the most frequent label" to "always right"
FIRST = 36  # of the doubts: so many are shown, and asked how many of them are planted errors


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
    name, notes = "a simple classifier", []
    chosen = first_by_hash(photos.hashes[drawn], MOST_ANSWERS // len(photos.label_names))
    if len(chosen) < len(photos):
        notes.append(f"Of the {len(photos):,} pictures it judges {len(chosen):,}, drawn at random.")
    labels = photos.labels[drawn[chosen]]
    number = np.bincount(labels, minlength=len(photos.label_names))
    enough = number >= FOLDS
    if (short := int(((number > 0) & ~enough).sum())) > 0:
        notes.append(
            f"It leaves out {many(short, 'label')} with fewer than {FOLDS} pictures, "
            f"{many(int(number[~enough].sum()), 'picture')} in all."
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

    return softmax(np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x) * scores)


def by_model(classifier: ImageClassifier, photos: Photos, progress: bool = False) -> Judge:
    """A trained model as the judge, of the pictures that its record says were held out, or else of all."""
    classifier.fetch_record()
    rows, notes = np.arange(len(photos)), []
    recorded = classifier.folder is not None and (Path(classifier.folder) / bundle.PREDICTIONS).is_file()
    held_out = (
        np.isin(photos.hashes, read_predictions(classifier.folder).hashes) if recorded else np.zeros(len(rows), bool)
    )
    if held_out.any():
        rows = np.flatnonzero(held_out)
        notes.append(f"It judges the {many(len(rows), 'picture')} that it was not trained on, by its own record.")
    else:
        notes.append(
            "Warning: it is unknown which of these pictures it was trained on. Wrong labels that it learned "
            "look right to it, and its share of correct answers is too high."
        )
    if len(rows) > MOST_BY_MODEL:
        rows = rows[first_by_hash(photos.hashes[rows], MOST_BY_MODEL)]
        notes.append(f"Of those, {MOST_BY_MODEL:,} were drawn at random.")
    found = evaluate(classifier, photos.subset(rows), progress=progress, echo=notes.append)
    probabilities = softmax(found.logits)
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
    first = rows[: min(FIRST, number)]
    return {
        "labels": number,
        "found": int(np.isin(changed, rows).sum()),
        "first": len(first),
        "found_among_first": int(np.isin(first, changed).sum()),
    }
