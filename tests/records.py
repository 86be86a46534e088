"""Bundles with a record of predictions, written by the project's own writers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from hub import ImageClassifier
from hub.images import pixel_hash
from hub.record import Predictions, predictions_table
from training.files import write_json
from training.results.bootstrap import scores_of


def random_answers(labels: int, pictures: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and fair logits (N, K); rounded, so that scores tie."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, labels, pictures)
    logits = rng.normal(0, 1.5, (pictures, labels)) + 2 * np.eye(labels)[truth]
    return truth, np.round(logits, 1).astype(np.float32)


def recorded(bundle: Path, target: Path, pixels: np.ndarray, *, seed: int = 0, metrics: bool = True) -> Path:
    """Copy a bundle and give it a record: its answers for some pictures, a fifth of them labelled otherwise.

    The first half is the test split, the rest validation, which metrics.json says nothing of.
    """
    from PIL import Image

    shutil.copytree(bundle, target)
    classifier = ImageClassifier.from_pretrained(target)
    logits, evidence = classifier.predict_tensors(pixels)
    rng = np.random.default_rng(seed)
    truth = logits.argmax(axis=1)
    truth = np.where(rng.random(len(truth)) < 0.2, rng.integers(0, logits.shape[1], len(truth)), truth)
    splits = np.where(np.arange(len(truth)) < len(truth) // 2, "test", "validation")
    hashes = np.array([pixel_hash(Image.fromarray(picture)) for picture in pixels])
    predictions = Predictions(hashes, splits, truth.astype(np.int64), logits, evidence, classifier.labels)
    write(target, predictions, metrics=metrics)
    return target


def write(folder: Path, predictions: Predictions, *, metrics: bool = True) -> None:
    """Put predictions.parquet into a bundle, and the test split's scores into its metrics.json."""
    pq.write_table(predictions_table(predictions), folder / "predictions.parquet")
    write_json(
        folder / "metrics.json", {"test": scores_of(predictions.subset("test"), resamples=50)} if metrics else {}
    )


def drawn_predictions(labels: int = 2, pictures: int = 9, split: str = "test", seed: int = 0) -> Predictions:
    """A record of drawn answers of one split."""
    rng = np.random.default_rng(seed)
    evidence = rng.normal(size=(pictures, 2, 3, labels)).astype(np.float32)
    return Predictions(
        hashes=np.array([f"{split}{seed}{i}" for i in range(pictures)]),
        splits=np.full(pictures, split),
        labels=rng.integers(0, labels, pictures),
        logits=evidence.mean((1, 2)),
        evidence=evidence,
        label_names=["cat", "dog", "fox"][:labels],
    )


def without_evidence(predictions: Predictions) -> Predictions:
    """The same answers of a model whose head keeps no map."""
    return replace(predictions, evidence=None)
