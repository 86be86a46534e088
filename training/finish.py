"""From a trained network to a bundle: predictions, scores, the heatmap's scale, provenance."""

import json
from pathlib import Path

import keras
import numpy as np

from hub.classifier import ImageClassifier
from hub.heatmaps import fixed_scale
from hub.record import Predictions, predictions_table
from training.files import read_arrays, read_json
from training.photos.answers import evaluate
from training.photos.data import Photos
from training.photos.sources import local_path, title_of
from training.results.bootstrap import scores_of
from training.runs import read_record, weights_sha256
from training.settings import card_settings

ONCE_MORE = "give the command once more"
MODEL_TYPES = {"MobileNetV2": "mobilenet_v2"}  # as Transformers spells them


def make_bundle(
    model: keras.Model,
    settings: dict,
    photos: Photos,
    run: Path,
    *,
    recipe: str,
    command: str,
    data_title: str | None = None,
    data_name: str | None = None,
    data_note: str | None = None,
    backbone_origin: str | None = None,
    backbone_license: str | None = None,
    open_test: bool = False,
    progress: bool = True,
) -> tuple[ImageClassifier, dict[str, Predictions]]:
    """Write `run/bundle` from the trained model; every number in it comes from the ONNX file's own answers.

    Args:
        model: as `training.fit.fit` returns it.
        data_title: what the card calls the pictures, where a folder's or the data set's name would not do.
        data_name: the data set on the Hub that the pictures of a folder come from.
        data_note: what a reader must know of these pictures, for the card.
        backbone_origin: a sentence on where the backbone's weights came from.
        backbone_license: the licence of those weights; None is unknown.
        open_test: score the test split too. Once, when all choices are made.

    Returns:
        The classifier as loaded from the bundle, and its predictions by split.
    """
    kind = settings.get("backbone") or settings["network"]
    built = {"model_type": MODEL_TYPES.get(kind, kind.lower())}
    if "backbone" in settings:
        built["backbone"] = _backbone(settings, backbone_origin, backbone_license)
    classifier = ImageClassifier.from_keras(model, photos.label_names, **built)
    names = ["validation", "test"] if open_test else ["validation"]
    predictions = {name: evaluate(classifier, photos.subset(name), progress=progress) for name in names}
    if predictions["validation"].evidence is not None:
        classifier.set_evidence_scale(fixed_scale(predictions["validation"].evidence))
    metrics = {
        "dataset": _dataset(photos, data_title, data_name, data_note),
        "training": _training(settings, run, recipe, command, photos),
        **{name: scores_of(found) for name, found in predictions.items()},
    }
    held = photos.subset("validation")
    classifier.save_pretrained(
        run / "bundle",
        photos=np.asarray(held.pixels),
        metrics=metrics,
        predictions=predictions_table(predictions.values()),
    )
    return ImageClassifier.from_pretrained(run / "bundle"), predictions


def _backbone(settings: dict, origin: str | None, license: str | None) -> dict:
    weights = settings["backbone_weights"]
    found = "imagenet, as keras.applications publishes them" if weights == "imagenet" else Path(weights).name
    return {
        "name": settings["backbone"],
        "weights": origin or found,
        "license": license,
        "sha256": weights_sha256(weights),
    }


def _dataset(photos: Photos, title: str | None, hub_id: str | None, note: str | None) -> dict:
    if hub_id is None and local_path(photos.name) is None:
        hub_id = photos.name
    return {
        "name": title or hub_id or title_of(photos.name),
        "hub_id": hub_id,
        "note": note,
        "photos": photos.report["pictures"],
        "image_size": photos.report["stored_size"],
        "splits": photos.shares(),
        "unreadable": photos.report["unreadable"],
        "unlabelled": photos.report["unlabelled"],
        "duplicates": photos.report["duplicate"],
        "duplicates_across_splits": photos.report["duplicates_across_splits"],
        "conflicts": photos.report["conflict"],
    }


def _training(settings: dict, run: Path, recipe: str, command: str, photos: Photos) -> dict:
    state = json.loads(str(read_arrays(run / "checkpoint.npz", ONCE_MORE)["state"]))
    history, best, started = state["history"], state["best_epoch"] + 1, read_record(run)
    kept = "averaged weights" if settings["average_decay"] else "weights"
    return {
        "recipe": recipe,
        "command": command,
        "settings": card_settings(settings),
        "seconds": history[-1]["seconds"],
        "epochs": f"{len(history)} (kept: the {kept} after epoch {best})",
        "temperature": read_json(run / "temperature.json", ONCE_MORE)["temperature"],
        "left_out": photos.report["kept"] - len(photos),
        **{key: started[key] for key in ("started", "machine", "versions") if key in started},
    }
