"""Fitting, in a run folder that a killed run resumes from to the same weights, bit for bit.

A backbone is fitted in two stages. Stage 1 fits the head on the frozen backbone's pooled features, computed once and
cached. Because the head is linear and without bias, that is logistic regression. Stage 2 trains the whole network
from there. A small network has only that second stage, from random weights. Last, one number, the temperature, is
fitted on validation and folded into the head.

Every random choice is drawn from (seed, epoch, photo), never from a generator's running state, so a
checkpoint needs no more than weights, optimizer state, averages and two counters.
"""

import datetime
import hashlib
import importlib
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from tqdm import tqdm

from hub.errors import DataError
from hub.scores import softmax
from training.files import DamagedError, exclusive, read_arrays, write_arrays, write_json, write_rows
from training.networks.backbones import evidence_model, features_model, freeze, freeze_batch_norm
from training.networks.networks import last_layer, mirrored, network, whiten
from training.networks.optimise import decay_kernels, learning_rate, live_statistics, make_optimizer
from training.photos.batches import Batches
from training.photos.data import Photos, default_cache, share_for_all, write_problems
from training.photos.folders import listed
from training.results.bootstrap import point_scores
from training.runs import RECORD, differences, identity, read_record
from training.settings import check

CHECKPOINT_SECONDS = 240
WHITENED = 5000  # pictures that a whitening convolution is computed from
HISTORY_COLUMNS = [
    "epoch", "step", "learning_rate", "train_loss", "train_accuracy",
    "validation_loss", "validation_calibrated_loss", "validation_accuracy", "validation_roc_auc", "seconds",
]  # fmt: skip


def fit(
    settings: dict,
    photos: Photos,
    run: Path,
    *,
    cache: Path | None = None,
    progress: bool = True,
    on_epoch: Callable[[dict], None] | None = None,
) -> keras.Model:
    """Train (or go on training) in the folder `run` and return the model with the best averaged weights.

    Args:
        settings: a recipe's settings (`training.settings`).
        photos: pictures decoded at `settings["size"]`; trained on "train", chosen on "validation".
        run: the run's folder: settings.json, head.npz, checkpoint.npz, history.csv.
        cache: where features are kept between runs.
        on_epoch: called with the row of history.csv after each epoch, when that is safe in the run's folder; what it
            raises ends the run, which can be resumed.

    Raises:
        DataError: the folder holds a run with other settings or pictures, a split lacks a label, or training diverged.
        StorageError: the folder cannot be written; the last checkpoint is intact.
    """
    check(settings)
    _demand_every_label(settings, photos)
    found = identity(settings, photos.fingerprint())
    if (run / RECORD).exists():
        _refuse_another(run, read_record(run), found)
    keras.utils.set_random_seed(settings["seed"])
    model = build(settings, len(photos.label_names))  # what it refuses, other settings for the same folder may mend
    _claim(run, found, photos)
    write_problems(photos, run / "problems.csv")
    if "backbone" in settings:
        _fit_head(model, settings, photos, run, cache or default_cache(), progress)
        freeze(model, settings["freeze"])
    elif settings["whiten"]:
        whiten(model, np.asarray(photos.subset("train").pixels[:WHITENED]))
    _Training(model, settings, photos, run, found, progress, on_epoch).run_all()
    if settings.get("mirror"):
        model = mirrored(model)
    _calibrate(model, photos.subset("validation"), run)
    return model


def build(settings: dict, labels: int) -> keras.Model:
    """The untrained network of a recipe, for this many labels; see `evidence_model` and `network` for what it takes.

    Raises:
        DataError: one unit cannot tell so many labels apart, or the backbone cannot be had.
    """
    if settings.get("one_unit") and labels != 2:
        raise DataError(f"One unit tells two labels apart, and there are {labels}; give --set one_unit=False.")
    if "backbone" not in settings:
        return network(settings, labels)
    model = evidence_model(
        settings["backbone"], settings["backbone_weights"], settings["size"], labels, settings["dropout"]
    )
    if not settings["live_batch_norm"]:
        freeze_batch_norm(model)
    return model


def compiled(model: keras.Model, settings: dict) -> keras.Model:
    """The part of a model that gives logits, with the recipe's loss and optimizer."""
    network = keras.Model(model.input, model.output["logits"])
    decay_kernels(network, settings["l2"])
    optimizer = make_optimizer(settings)
    optimizer.build(network.trainable_variables)
    network.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=settings["label_smoothing"]),
        metrics=[
            keras.metrics.CategoricalCrossentropy(name="log_loss", from_logits=True),
            keras.metrics.CategoricalAccuracy(name="accuracy"),
        ],
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",  # XLA is slow on CPUs
    )
    return network


def _demand_every_label(settings: dict, photos: Photos) -> None:
    """Refuse pictures that leave a label without any to train on or to choose by."""
    for split in ("train", "validation"):
        found = np.unique(photos.labels[photos.splits == split])
        if len(found) < len(photos.label_names):
            missing = [name for k, name in enumerate(photos.label_names) if k not in found]
            remedy = "add some" + (_or_draw_another(settings, photos) if split == "validation" else "")
            raise DataError(f"The {split} split of {photos.name} has no picture of: {listed(missing)}; {remedy}.")


def _claim(run: Path, found: dict, photos: Photos) -> None:
    """Make `run` the folder of the run of this identity, unless it is that already."""
    path = run / RECORD
    if not path.exists():
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        places = {"data": photos.name}
        write_json(path, {**found, "started": started, "places": places, **_surroundings()})


def _refuse_another(run: Path, there: dict, here: dict) -> None:
    changed = differences(there, here)
    if changed:
        raise DataError(
            f"{run} holds a run with other {', '.join(changed)}; give the same to resume it, or choose another folder."
        )


def _or_draw_another(settings: dict, photos: Photos) -> str:
    """The settings with which the validation split has every label, as they are typed; "" where there are none."""
    share = share_for_all(photos, settings["test_share"], settings["validation_share"])
    if share is None:
        return ""
    give = "" if share == settings["validation_share"] else f" --set validation_share={share:g}"
    if "validation" in photos.report["own_splits"]:
        return f", or draw another in place of the data set's own: --set own_validation=False{give}"
    return f", or give it more:{give}"


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


# Stage 1


def _fit_head(model: keras.Model, settings: dict, photos: Photos, run: Path, cache: Path, progress: bool) -> None:
    """Set the head to the logistic regression on frozen features whose validation log loss is the lowest."""
    path = run / "head.npz"
    head = _again_if_damaged(path, ("weights", "validation_loss", "C"))
    if head is None:
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
        head = {"weights": coefficients.T.astype(np.float32), "validation_loss": loss, "C": c}
        write_arrays(path, head)
    model.get_layer("evidence").set_weights([head["weights"][None, None]])
    print(f"Stage 1: validation log loss {float(head['validation_loss']):.4f} with C = {float(head['C'])}", flush=True)


def _again_if_damaged(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray] | None:
    """As `_intact`; a damaged file is told, as it costs time."""
    arrays = _intact(path, names)
    if arrays is None and path.exists():
        print(f"{path} was damaged, so it is computed again.", flush=True)
    return arrays


def _intact(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray] | None:
    """The arrays of a file that can be made again; None where it is missing or damaged."""
    if not path.exists():
        return None
    try:
        arrays = read_arrays(path, "it is computed again")
    except DamagedError:
        return None
    return arrays if arrays.keys() >= set(names) else None


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
        found = _again_if_damaged(path, ("features",))
        if found is None:
            with exclusive(path):
                found = _intact(path, ("features",))
                if found is None:
                    part = photos.subset(np.arange(start, min(start + 1024, len(photos))))
                    found = {"features": _predict(extractor, part)}
                    write_arrays(path, found)
        chunks.append(found["features"])
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
    rate_factor: float = 1.0  # by which reductions on a plateau have lowered the rate
    reduced_epoch: int = -1
    seconds: float = 0.0
    finished: bool = False


class _Training:
    """All weights that are not frozen, on augmented photos: averaged, stopped early, checkpointed."""

    def __init__(
        self,
        model: keras.Model,
        settings: dict,
        photos: Photos,
        run: Path,
        identity: dict,
        progress: bool,
        on_epoch: Callable[[dict], None] | None,
    ):
        self.settings, self.run, self.show, self.on_epoch = settings, run, progress, on_epoch
        self.train, self.held = photos.subset("train"), photos.subset("validation")
        self.batches = Batches(self.train, settings)
        self.steps = self.batches.steps
        self.network = compiled(model, settings)
        self.optimizer = self.network.optimizer
        self.averaged = [*self.network.trainable_variables, *live_statistics(self.network)]
        self.averages = [keras.ops.convert_to_numpy(v) for v in self.averaged]
        self.best = [a.copy() for a in self.averages]
        self.state, self.history, self.identity = _Progress(), [], identity

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
        total = self.steps * self.settings["epochs"]
        for x, y, weights in self.batches.epoch(state.epoch, state.step):
            now_done = state.epoch * self.steps + state.step
            self.optimizer.learning_rate = learning_rate(self.settings, now_done, total) * state.rate_factor
            self.network.reset_metrics()
            result = self.network.train_on_batch(x, y, weights, return_dict=True)
            if not math.isfinite(result["loss"]):
                raise self._diverged()
            self._average()
            state.step += 1
            state.loss_sum += float(result["log_loss"])
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
        self._reduce_on_plateau()
        state.epoch, state.step, state.loss_sum, state.correct_sum = state.epoch + 1, 0, 0.0, 0.0
        stalled = state.epoch - 1 - state.best_epoch >= self.settings["patience"]
        state.finished = stalled or state.epoch >= self.settings["epochs"]
        self._save()
        print(
            f"Epoch {state.epoch}: validation log loss {scores['log_loss']:.4f} ({loss:.4f} calibrated), "
            f"accuracy {scores['accuracy']:.2%}, ROC AUC {scores['roc_auc']:.5f}",
            flush=True,
        )
        if self.on_epoch:
            self.on_epoch(self.history[-1])

    def _reduce_on_plateau(self) -> None:
        """Lower the rate after so many epochs in a row without a better validation loss, and count anew."""
        state, patience = self.state, self.settings["plateau_patience"]
        if patience and state.epoch - max(state.best_epoch, state.reduced_epoch) >= patience:
            state.rate_factor *= self.settings["plateau_factor"]
            state.reduced_epoch = state.epoch

    def _average(self) -> None:
        """Exponential moving average of the weights, quicker at first so that the start is soon forgotten."""
        if not self.settings["average_decay"] and self.state.step + 1 < self.steps:
            return  # without averaging only an epoch's last weights matter
        done = self.state.epoch * self.steps + self.state.step + 1
        decay = np.float32(min(self.settings["average_decay"], (1 + done) / (10 + done)))
        for average, variable in zip(self.averages, self.averaged, strict=True):
            average *= decay
            average += (1 - decay) * keras.ops.convert_to_numpy(variable)

    def _validate(self) -> dict[str, float]:
        """The scores of the averaged weights (`training.results.evaluate.point_scores`), and log loss once calibrated.

        Epochs are compared by the latter, because the temperature is fitted in the end whichever is kept.
        """
        current = [keras.ops.convert_to_numpy(v) for v in self.averaged]
        self._assign(self.averages)
        logits = _predict(self.network, self.held)
        self._assign(current)
        if not np.isfinite(logits).all():
            raise self._diverged()
        _, calibrated = fit_temperature(self.held.labels, logits)
        return {**point_scores(self.held.labels, logits), "calibrated_log_loss": calibrated}

    def _diverged(self) -> DataError:
        where = f"epoch {self.state.epoch + 1}"
        return DataError(
            f"Training diverged in {where} (the loss is no longer a number); start again with a smaller "
            "learning_rate in another folder (--run)."
        )

    def _assign(self, arrays: list[np.ndarray]) -> None:
        for variable, array in zip(self.averaged, arrays, strict=True):
            variable.assign(array)

    def _save(self) -> None:
        arrays = {"state": np.array(json.dumps({**vars(self.state), "history": self.history, "of": self.identity}))}
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
        remedy = "delete it, and the same command trains this run again from the start; nothing else is lost"
        arrays = read_arrays(path, remedy)
        try:
            state = json.loads(str(arrays["state"]))
            self.history, found = state.pop("history"), state.pop("of", self.identity)  # older ones do not say
            self.state = _Progress(**state)
            _refuse_another(self.run, found, self.identity)
            for name, variables in (("weights", self.network.variables), ("optimizer", self.optimizer.variables)):
                for i, variable in enumerate(variables):
                    variable.assign(arrays[f"{name}_{i}"])
            self.averages = [arrays[f"average_{i}"] for i in range(len(self.averages))]
            self.best = [arrays[f"best_{i}"] for i in range(len(self.best))]
        except DataError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DamagedError(f"{path} is not a checkpoint of this run; {remedy}.") from error
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
        p = softmax(logits.astype(np.float64) / np.exp(log_temperature))
        return log_loss(labels, p, labels=classes)

    found = minimize_scalar(loss, bounds=(-np.log(4), np.log(4)), method="bounded")
    return float(np.exp(found.x)), float(found.fun)


def _calibrate(model: keras.Model, held: Photos, run: Path) -> None:
    """Divide the head by the temperature fitted on validation, and note it in temperature.json."""
    logits = _predict(keras.Model(model.input, model.output["logits"]), held)
    temperature, loss = fit_temperature(held.labels, logits)
    head = last_layer(model)
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
