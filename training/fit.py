"""Fitting in two stages, in a run folder that a killed run resumes from to the same weights, bit for bit.

Stage 1 fits the head on the frozen backbone's pooled features, computed once and cached. Because the head is
linear and without bias, that is logistic regression. Stage 2 trains the whole network from there. Last, one
number, the temperature, is fitted on validation and folded into the head.

Every random choice is drawn from (seed, epoch, photo), never from a generator's running state, so a
checkpoint needs no more than weights, optimizer state, averages and two counters.
"""

import datetime
import hashlib
import importlib
import itertools
import json
import os
import platform
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from tqdm import tqdm

from hub.errors import DataError
from hub.files import sha256, storage
from training.augment import Augmentation
from training.data import Photos, default_cache, map_ahead, write_problems
from training.evaluate import point_scores
from training.files import alone, write_arrays, write_json, write_rows
from training.models import evidence_model, features_model, freeze_batch_norm
from training.settings import check

CHECKPOINT_SECONDS = 240
PLACES = ("data", "backbone_weights")  # settings that say where things lie on one machine, not what they are
HISTORY_COLUMNS = [
    "epoch", "step", "learning_rate", "train_loss", "train_accuracy",
    "validation_loss", "validation_calibrated_loss", "validation_accuracy", "validation_roc_auc", "seconds",
]  # fmt: skip


def fit(settings: dict, photos: Photos, run: Path, *, cache: Path | None = None, progress: bool = True) -> keras.Model:
    """Train (or go on training) in the folder `run` and return the model with the best averaged weights.

    Args:
        settings: a recipe's settings (`training.settings`).
        photos: pictures decoded at `settings["size"]`; trained on "train", chosen on "validation".
        run: the run's folder: settings.json, head.npz, checkpoint.npz, history.csv.
        cache: where features are kept between runs.

    Raises:
        DataError: the folder holds a run with other settings or pictures, or a split is empty.
        StorageError: the folder cannot be written; the last checkpoint is intact.
    """
    check(settings)
    _claim(run, settings, photos)
    write_problems(photos, run / "problems.csv")
    keras.utils.set_random_seed(settings["seed"])
    model = evidence_model(
        settings["backbone"], settings["backbone_weights"], settings["size"], len(photos.label_names)
    )
    freeze_batch_norm(model)
    _fit_head(model, settings, photos, run, cache or default_cache(), progress)
    _FineTuning(model, settings, photos, run, progress).run_all()
    _calibrate(model, photos.subset("validation"), run)
    return model


def _claim(run: Path, settings: dict, photos: Photos) -> None:
    """Make `run` this run's folder, or refuse if it holds another's."""
    for split in ("train", "validation"):
        found = np.unique(photos.labels[photos.splits == split])
        if len(found) < len(photos.label_names):
            missing = [name for k, name in enumerate(photos.label_names) if k not in found]
            raise DataError(f"The {split} split of {photos.name} has no picture of: {', '.join(missing)}.")
    content = {
        "settings": {key: value for key, value in settings.items() if key not in PLACES},
        "backbone_sha256": weights_sha256(settings["backbone_weights"]),
        "pictures": hashlib.sha256(f"{photos.hashes.tolist()} {photos.labels.tolist()}".encode()).hexdigest(),
    }
    content = json.loads(json.dumps(content))
    path = run / "settings.json"
    if not path.exists():
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return write_json(path, {**content, "started": started, **_surroundings()})
    there = json.loads(path.read_text())
    changed = [key for key, value in content["settings"].items() if there["settings"].get(key) != value]
    changed += [name for name in ("backbone_sha256", "pictures") if there.get(name) != content[name]]
    if changed:
        raise DataError(
            f"{run} holds a run with other {', '.join(changed)}; give the same to resume it, or another folder."
        )
    return None


def _surroundings() -> dict:
    """The machine and the packages that a run was started on."""
    backend = keras.backend.backend()
    packages = ("keras", "numpy", "pillow", "scikit-learn", "datasets")
    return {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            backend: importlib.import_module(backend).__version__,
            **{name: version(name) for name in packages},
        },
    }


def weights_sha256(weights: str) -> str | None:
    """SHA-256 of a weights file; None for weights that have a name ("imagenet", "random") instead."""
    return sha256(Path(weights)) if Path(weights).is_file() else None


# Stage 1


def _fit_head(model: keras.Model, settings: dict, photos: Photos, run: Path, cache: Path, progress: bool) -> None:
    """Set the head to the logistic regression on frozen features whose validation log loss is the lowest."""
    path = run / "head.npz"
    if not path.exists():
        train, held = photos.subset("train"), photos.subset("validation")
        x, x_held = (frozen_features(model, part, cache, progress) for part in (train, held))
        best = None
        for c in settings["inverse_regularisation"]:
            regression = LogisticRegression(C=c, fit_intercept=False, max_iter=2000).fit(x, train.labels)
            loss = log_loss(held.labels, regression.predict_proba(x_held), labels=regression.classes_)
            if best is None or loss < best[0]:
                best = loss, c, regression.coef_
        loss, c, coefficients = best
        if len(photos.label_names) == 2:  # one column of log-odds, shared between the two labels
            coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        write_arrays(path, {"weights": coefficients.T.astype(np.float32), "validation_loss": loss, "C": c})
    head = np.load(path)
    model.get_layer("evidence").set_weights([head["weights"][None, None]])
    print(f"Stage 1: validation log loss {float(head['validation_loss']):.4f} with C = {float(head['C'])}", flush=True)


def frozen_features(model: keras.Model, photos: Photos, cache: Path, progress: bool) -> np.ndarray:
    """Pooled features (N, C) of every picture, float32, cached in `cache` in chunks as they are computed."""
    extractor = features_model(model)
    body = hashlib.sha256()
    for layer in model.layers:
        if layer.name != "evidence":
            for array in layer.get_weights():
                body.update(np.ascontiguousarray(array))
    size = photos.pixels.shape[1]
    chunks = []
    bar = tqdm(total=len(photos), desc="features", disable=not progress, unit="photo")
    for start in range(0, len(photos), 1024):
        digest = hashlib.sha256(f"{body.hexdigest()} {size}".encode())
        digest.update("".join(photos.hashes[start : start + 1024]).encode())
        path = cache / "features" / f"{digest.hexdigest()[:24]}.npz"
        if not path.exists():
            with alone(path):
                if not path.exists():
                    part = photos.subset(np.arange(start, min(start + 1024, len(photos))))
                    write_arrays(path, {"features": _predict(extractor, part)})
        chunks.append(np.load(path)["features"])
        bar.update(len(chunks[-1]))
    bar.close()
    return np.concatenate(chunks)


# Stage 2


@dataclass
class _Progress:
    """The counters and sums of a run, all that a checkpoint holds beside arrays."""

    epoch: int = 0
    step: int = 0  # within the epoch
    loss_sum: float = 0.0
    correct_sum: float = 0.0
    best_loss: float = float("inf")
    best_epoch: int = -1
    seconds: float = 0.0
    finished: bool = False


class _FineTuning:
    """The whole network on augmented photos, its weights averaged, stopped early, checkpointed."""

    def __init__(self, model: keras.Model, settings: dict, photos: Photos, run: Path, progress: bool):
        self.settings, self.run, self.show = settings, run, progress
        self.train, self.held = photos.subset("train"), photos.subset("validation")
        self.steps = len(self.train) // settings["batch_size"]
        if not self.steps:
            raise DataError(f"{photos.name} has fewer training pictures than one batch of {settings['batch_size']}.")
        self.augment = Augmentation(**{f.name: settings[f.name] for f in fields(Augmentation)})
        total = self.steps * settings["epochs"]
        warmup = min(settings["warmup_steps"], total // 2)
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, total - warmup, warmup_target=settings["learning_rate"], warmup_steps=warmup
        )
        self.network = keras.Model(model.input, model.output["logits"])
        self.optimizer = keras.optimizers.AdamW(schedule, weight_decay=settings["weight_decay"])
        self.optimizer.build(self.network.trainable_variables)
        self.network.compile(
            self.optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",  # XLA is slow on CPUs
        )
        self.averages = [keras.ops.convert_to_numpy(v) for v in self.network.trainable_variables]
        self.best = [a.copy() for a in self.averages]
        self.state, self.history = _Progress(), []

    def run_all(self) -> None:
        """Train to the end, from the last checkpoint if there is one; leave the best averages in the model."""
        self._restore()
        while not self.state.finished:
            self._epoch()
        self._assign(self.best)

    def _epoch(self) -> None:
        state, settings = self.state, self.settings
        since = saved = time.monotonic()
        bar = tqdm(
            total=self.steps, initial=state.step, desc=f"epoch {state.epoch + 1}/{settings['epochs']}",
            disable=not self.show, unit="batch", mininterval=5,
        )  # fmt: skip
        for x, y in self._batches(state.epoch, state.step):
            self.network.reset_metrics()
            result = self.network.train_on_batch(x, y, return_dict=True)
            self._average()
            state.step += 1
            state.loss_sum += float(result["loss"])
            state.correct_sum += float(result["accuracy"])
            bar.set_postfix(loss=f"{state.loss_sum / state.step:.4f}", refresh=False)
            bar.update()
            now = time.monotonic()
            if now - saved > CHECKPOINT_SECONDS:
                state.seconds, since, saved = state.seconds + now - since, now, now
                self._save()
        bar.close()
        state.seconds += time.monotonic() - since
        self._end_epoch()

    def _end_epoch(self) -> None:
        state = self.state
        start = time.monotonic()
        scores = self._validate()
        loss = scores["calibrated_log_loss"]
        state.seconds += time.monotonic() - start
        self.history.append(
            {
                "epoch": state.epoch + 1,
                "step": (state.epoch + 1) * self.steps,
                "learning_rate": float(keras.ops.convert_to_numpy(self.optimizer.learning_rate)),
                "train_loss": state.loss_sum / self.steps,
                "train_accuracy": state.correct_sum / self.steps,
                "validation_loss": scores["log_loss"],
                "validation_calibrated_loss": loss,
                "validation_accuracy": scores["accuracy"],
                "validation_roc_auc": scores["roc_auc"],
                "seconds": round(state.seconds, 1),
            }
        )
        if loss < state.best_loss:
            state.best_loss, state.best_epoch = loss, state.epoch
            self.best = [a.copy() for a in self.averages]
        state.epoch, state.step, state.loss_sum, state.correct_sum = state.epoch + 1, 0, 0.0, 0.0
        stalled = state.epoch - 1 - state.best_epoch >= self.settings["patience"]
        state.finished = stalled or state.epoch >= self.settings["epochs"]
        self._save()
        print(
            f"Epoch {state.epoch}: validation log loss {scores['log_loss']:.4f} ({loss:.4f} calibrated), "
            f"accuracy {scores['accuracy']:.2%}, ROC AUC {scores['roc_auc']:.5f}",
            flush=True,
        )

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of one epoch from step `first` on, the next two being drawn while one is trained on."""
        seed, size = self.settings["seed"], self.settings["batch_size"]
        order = np.random.default_rng([seed, epoch]).permutation(len(self.train))

        def draw(i: int) -> np.ndarray:
            return self.augment(self.train.pixels[i], np.random.default_rng([seed, epoch, i]))

        with ThreadPoolExecutor(2) as pool:
            views = map_ahead(pool, draw, order[first * size : self.steps * size].tolist(), ahead=3 * size)
            for step in range(first, self.steps):
                batch = np.stack(list(itertools.islice(views, size)))
                yield batch.astype(np.float32), self.train.labels[order[step * size : (step + 1) * size]]

    def _average(self) -> None:
        """Exponential moving average of the weights, quicker at first so that the start is soon forgotten."""
        done = self.state.epoch * self.steps + self.state.step + 1
        decay = np.float32(min(self.settings["average_decay"], (1 + done) / (10 + done)))
        for average, variable in zip(self.averages, self.network.trainable_variables, strict=True):
            average *= decay
            average += (1 - decay) * keras.ops.convert_to_numpy(variable)

    def _validate(self) -> dict[str, float]:
        """The scores of the averaged weights (`training.evaluate.point_scores`), and log loss once calibrated.

        Epochs are compared by the latter, because the temperature is fitted in the end whichever is kept.
        """
        current = [keras.ops.convert_to_numpy(v) for v in self.network.trainable_variables]
        self._assign(self.averages)
        logits = _predict(self.network, self.held)
        self._assign(current)
        _, calibrated = fit_temperature(self.held.labels, logits)
        return {**point_scores(self.held.labels, logits), "calibrated_log_loss": calibrated}

    def _assign(self, arrays: list[np.ndarray]) -> None:
        for variable, array in zip(self.network.trainable_variables, arrays, strict=True):
            variable.assign(array)

    def _save(self) -> None:
        arrays = {"state": np.array(json.dumps({**vars(self.state), "history": self.history}))}
        groups = {
            "weights": self.network.variables,
            "optimizer": self.optimizer.variables,
            "average": self.averages,
            "best": self.best,
        }
        for name, variables in groups.items():
            for i, variable in enumerate(variables):
                arrays[f"{name}_{i}"] = keras.ops.convert_to_numpy(variable)
        write_arrays(self.run / "checkpoint.npz", arrays)
        if self.history:
            write_rows(self.run / "history.csv", self.history, HISTORY_COLUMNS)

    def _restore(self) -> None:
        path = self.run / "checkpoint.npz"
        if not path.exists():
            return
        try:
            with storage(self.run), np.load(path) as arrays:
                state = json.loads(str(arrays["state"]))
                self.history = state.pop("history")
                self.state = _Progress(**state)
                for name, variables in (("weights", self.network.variables), ("optimizer", self.optimizer.variables)):
                    for i, variable in enumerate(variables):
                        variable.assign(arrays[f"{name}_{i}"])
                self.averages = [arrays[f"average_{i}"] for i in range(len(self.averages))]
                self.best = [arrays[f"best_{i}"] for i in range(len(self.best))]
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is not a checkpoint of this run; remove it to start anew.") from error
        if self.history:  # a kill may have come between the checkpoint and this file
            write_rows(self.run / "history.csv", self.history, HISTORY_COLUMNS)
        where = f"Resumed at epoch {self.state.epoch + 1}, step {self.state.step}."
        print("Already trained." if self.state.finished else where, flush=True)


# After both


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> tuple[float, float]:
    """The temperature between 1/4 and 4 that gives logits / temperature the lowest log loss, and that loss.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 4.2. It changes no answer's label and, for two
    labels, no ranking.
    """
    classes = range(logits.shape[1])

    def loss(log_temperature: float) -> float:
        p = softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1)
        return log_loss(labels, p, labels=classes)

    found = minimize_scalar(loss, bounds=(-np.log(4), np.log(4)), method="bounded")
    return float(np.exp(found.x)), float(found.fun)


def _calibrate(model: keras.Model, held: Photos, run: Path) -> None:
    """Divide the head by the temperature fitted on validation, and note it in temperature.json."""
    logits = _predict(keras.Model(model.input, model.output["logits"]), held)
    temperature, loss = fit_temperature(held.labels, logits)
    head = model.get_layer("evidence")
    head.set_weights([weights / np.float32(temperature) for weights in head.get_weights()])
    before = point_scores(held.labels, logits)["log_loss"]
    content = {"temperature": temperature, "validation_loss_before": before, "validation_loss": loss}
    write_json(run / "temperature.json", content)
    bound = "" if 0.26 < temperature < 3.9 else " (the bound: the photos cannot tell it)"
    print(f"Temperature {temperature:.3f}{bound}: validation log loss {before:.4f}, then {loss:.4f}", flush=True)


def _predict(network: keras.Model, photos: Photos) -> np.ndarray:
    """What a network of one output gives for all photos, (N, …), in batches of 64."""
    chunks = (photos.pixels[np.arange(i, min(i + 64, len(photos)))] for i in range(0, len(photos), 64))
    return np.concatenate([network.predict_on_batch(chunk.astype(np.float32)) for chunk in chunks])
