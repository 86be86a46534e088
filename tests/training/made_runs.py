"""Run folders as a fit leaves them, made of given answers without training anything."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from hub.config import make_config
from hub.record import Predictions, predictions_table
from training.results.bootstrap import scores_of

HISTORY = {
    "train_loss": [0.6, 0.4, 0.3],
    "train_accuracy": [0.7, 0.85, 0.91],
    "validation_loss": [0.5, 0.35, 0.29],
    "validation_calibrated_loss": [0.48, 0.34, 0.28],
    "validation_accuracy": [0.75, 0.88, 0.92],
    "validation_roc_auc": [0.8, 0.9, 0.95],
    "seconds": [10.0, 20.0, 30.0],
}


def answers(
    labels: int | list[str],
    pictures: int = 60,
    *,
    seed: int = 0,
    split: str = "test",
    strength: float = 1.5,
    evidence: bool = True,
) -> Predictions:
    """Fair answers with mistakes; of one number of labels and pictures the truths are the same whatever the seed."""
    names = labels if isinstance(labels, list) else [f"label {k}" for k in range(labels)]
    truth = np.random.default_rng(len(names)).integers(0, len(names), pictures)
    maps = np.random.default_rng(seed).normal(0, 3, (pictures, 2, 2, len(names)))
    maps = (maps + strength * np.eye(len(names))[truth][:, None, None]).astype(np.float32)
    return Predictions(
        hashes=np.array([f"{split}{i:08d}" for i in range(pictures)]),
        splits=np.full(pictures, split),
        labels=truth,
        logits=maps.mean((1, 2)),
        evidence=maps if evidence else None,
        label_names=names,
    )


def make_run(
    folder: Path,
    *predictions: Predictions,
    settings: dict | None = None,
    history: dict | None = None,
    recipe: str = "drawn",
    places: dict | None = None,
    size: int = 32,
    scores: bool = False,
) -> Path:
    """Write settings.json, history.csv and a bundle without the model itself."""
    own = {"network": "cnn", "blocks": [[8]], "size": size, "seed": 0, "epochs": 3, "batch_size": 16}
    record = {
        "settings": {**own, **(settings or {})}, "pictures": "0123", "started": "2030-01-02T03:04:05+00:00",
        "machine": {"processor": "x86_64", "cores": 2}, **({"places": places} if places else {}),
    }  # fmt: skip
    (folder / "bundle").mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(record))
    write_history(folder / "history.csv", history or HISTORY)
    first = predictions[0]
    grid = None if first.evidence is None else first.evidence.shape[1:3]
    config = make_config(first.label_names, size, grid)
    metrics = {"training": {"recipe": recipe, "command": f"python -m training fit {recipe}", "temperature": 1.2}}
    metrics |= {part.splits[0]: scores_of(part, resamples=50) for part in predictions} if scores else {}
    (folder / "bundle" / "config.json").write_text(json.dumps(config.to_json()))
    (folder / "bundle" / "metrics.json").write_text(json.dumps(metrics))
    pq.write_table(predictions_table(predictions), folder / "bundle" / "predictions.parquet")
    return folder


def write_history(path: Path, columns: dict) -> None:
    """Write columns as a fit does, with the epochs' numbers and steps before them."""
    epochs = len(next(iter(columns.values())))
    table = {"epoch": range(1, epochs + 1), "step": range(100, 100 * epochs + 1, 100), **columns}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
