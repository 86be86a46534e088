"""ImageClassifier: one forward pass gives the answer and the evidence it is the mean of."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from hub import bundle, other_tools, remote, safety
from hub.agreement import TOLERANCE, difference, read_agreement, too_far
from hub.config import Config, config_of, make_config, read_config
from hub.errors import BundleError, ImageError
from hub.files import sha256
from hub.formats import Runner, batched, find_format
from hub.formats.foreign import as_classifier, refuse_probabilities
from hub.formats.keras import KerasRunner, load, make_portable
from hub.formats.onnx import OnnxRunner, outputs_of, to_onnx
from hub.images import Picture, to_tensor
from hub.metrics import Metrics, SavedAgreement, metrics_of, read_metrics
from hub.publishing import staging
from hub.scores import softmax

if TYPE_CHECKING:
    import keras
    import pyarrow as pa

BATCH = 32


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one forward pass says about one picture; evidence.mean(axis=(0, 1)) equals logits."""

    label: str
    probabilities: np.ndarray  # (K,) float32, sums to 1
    logits: np.ndarray  # (K,) float32
    evidence: np.ndarray | None  # (h, w, K) float32 in logits; None for a model whose head keeps no map


class ImageClassifier:
    """A bundle, ready to answer.

    >>> classifier = ImageClassifier.from_pretrained()
    >>> classifier("photo.jpg")
    [{'label': 'cat', 'score': 0.99}, {'label': 'dog', 'score': 0.01}]
    """

    def __init__(self, runner: Runner, config: Config, *, name: str, folder: Path | None = None):
        """Answer by what a runtime has opened, under a config; use `from_pretrained` or `from_keras` instead."""
        self.config = config
        self.name, self.folder = name, folder
        self.labels = list(config.labels)
        self.image_size = config.image_size
        self._runner = runner
        self._keras: keras.Model | None = None  # the model itself after from_keras
        self._download: dict | None = None  # how further files are fetched for a model from the Hub

    # ---- coming from somewhere

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | os.PathLike | None = None,
        *,
        runtime: str = "onnx",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> ImageClassifier:
        """Load the embedded model (None), a folder that `save_pretrained` wrote, or a model of the Hub.

        Args:
            runtime: what answers: "onnx", or another name of `hub.formats.FORMATS` that runs here, such as "keras",
                "litert" or "openvino". Of a Hub model only the files that it needs are downloaded.

        The other arguments are those of `huggingface_hub.snapshot_download` and matter for a Hub name only.

        Raises:
            BundleError: no such model, or its files are missing, broken or of another kind; no such runtime.
        """
        chosen = find_format(runtime)
        name = os.fspath(bundle.DEFAULT if name_or_folder is None else name_or_folder)
        folder = Path(name).expanduser()
        download: dict[str, Any] | None = None
        if not name or not folder.is_dir():
            refuse_path(name, name_or_folder)
            download = {
                "repo_id": name, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only,
            }  # fmt: skip
            files = [bundle.CONFIG, *chosen.reads]
            folder = remote.download(revision=revision, files=files, force_download=force_download, **download)
        display = name if download else _shown_name(folder.resolve())
        config = read_config(folder, display)
        classifier = cls(chosen.start(folder, config), config, name=display, folder=folder)
        classifier._download = download
        return classifier

    @classmethod
    def from_keras(
        cls, model: keras.Model, labels: list[str], *, evidence_scale: float | None = None, **extra_config: Any
    ) -> ImageClassifier:
        """Convert a Keras classifier.

        Args:
            model: input (N, S, S, 3), pixels from 0 to 255; it answers {"logits": (N, K)}, with "evidence" (N, h, w, K)
                where its head makes that, or with one output. A softmax or a one-unit sigmoid at its end is taken
                away, see `hub.formats.foreign.as_classifier`.
            labels: K names, in the order of the outputs; for one unit first what 0 stands for, then what 1 stands for.
            evidence_scale: `hub.heatmaps.fixed_scale` of the validation photos, in logits.
            extra_config: further entries of config.json, such as backbone={...}.

        Raises:
            BundleError: the model has other inputs or outputs, or answers with probabilities whose logits cannot be
                had.
        """
        model = as_classifier(model, len(labels))
        grid = tuple(model.output["evidence"].shape[1:3]) if "evidence" in outputs_of(model) else None
        where = f"The config of {model.name}"
        config = make_config(labels, model.inputs[0].shape[1], grid, where, **extra_config)
        runner = OnnxRunner(to_onnx(model), config, f"The ONNX file of {model.name}")
        refuse_probabilities(model.name, runner, runner.image_size)
        classifier = cls(runner, config, name=model.name)
        classifier._keras = model
        if evidence_scale is not None:
            classifier.set_evidence_scale(evidence_scale)
        return classifier

    @property
    def revision(self) -> str | None:
        """The commit that a model of the Hub was loaded at; None for a folder and for a model just made."""
        return self.folder.name if self._download and self.folder else None

    @property
    def evidence_scale(self) -> float | None:
        """The value in logits at which a shown map has its full colour, the same for every photo."""
        return self.config.evidence.scale if self.config.evidence else None

    def set_evidence_scale(self, scale: float) -> None:
        """Write `hub.heatmaps.fixed_scale` of the validation photos down in the config, in logits."""
        if self.config.evidence is None:
            raise BundleError(f"{self.name} has no evidence to scale; give it an evidence head.")
        definition = "99th percentile of |shown map| over validation photos, cells and classes, in logits"
        evidence = replace(self.config.evidence, scale=float(scale), scale_definition=definition)
        self.config = config_of(replace(self.config, evidence=evidence).to_json(), f"The config of {self.name}")

    # ---- answering

    def __call__(self, images: Picture | list | tuple, top_k: int | None = 5) -> list[dict] | list[list[dict]]:
        """Answer like a transformers image-classification pipeline.

        Args:
            images: one picture (path, bytes, file object, PIL image or array) or a list of them.
            top_k: how many labels to name; None for all.

        Returns:
            [{"label", "score"}, ...], most probable first; a list of such lists for a list of pictures.
        """
        if isinstance(images, list | tuple):
            return [self._ranking(prediction, top_k) for prediction in self.predict(images)]
        return self._ranking(self.predict(images), top_k)

    @overload
    def predict(self, images: Picture) -> Prediction: ...
    @overload
    def predict(self, images: list | tuple) -> list[Prediction]: ...
    def predict(self, images: Picture | list | tuple) -> Prediction | list[Prediction]:
        """Return the Prediction of one picture, or of each in a list, from one forward pass (32 at a time).

        Raises:
            ImageError: a picture cannot be read; nothing is answered then.
        """
        if not isinstance(images, list | tuple):
            return self._answer([images])[0]
        batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        return [prediction for batch in batches for prediction in self._answer(batch)]

    def predict_tensors(self, photos: np.ndarray, batch_size: int = BATCH) -> tuple[np.ndarray, np.ndarray | None]:
        """Return logits (N, K) and evidence (N, h, w, K), both float32, of uint8 tensors (N, S, S, 3)."""
        size = self.image_size
        if photos.dtype != np.uint8 or photos.shape[1:] != (size, size, 3):
            raise ImageError(f"{self.name} takes uint8 (N, {size}, {size}, 3); make them with hub.images.")
        logits, evidence = batched(self._runner, photos, batch_size)
        if not np.isfinite(logits).all():
            raise BundleError(f"{self.name} answers NaN or infinity: its weights are broken; train it again.")
        return logits, evidence

    def _answer(self, images: list | tuple) -> list[Prediction]:
        photos = np.stack([to_tensor(image, self.image_size) for image in images])
        logits, evidence = self.predict_tensors(photos)
        maps = [None] * len(logits) if evidence is None else evidence
        return [
            Prediction(self.labels[int(row.argmax())], softmax(row).astype(np.float32), row, map_)
            for row, map_ in zip(logits, maps, strict=True)
        ]

    def _ranking(self, prediction: Prediction, top_k: int | None) -> list[dict]:
        order = np.argsort(-prediction.logits, kind="stable")[:top_k]
        return [{"label": self.labels[k], "score": float(prediction.probabilities[k])} for k in order]

    # ---- going somewhere

    def to_keras(self) -> keras.Model:
        """Return the Keras model (imports TensorFlow); a Hub model's model.keras is fetched now."""
        if self._keras is None:
            self._keras = load(self._file(bundle.KERAS))
        return self._keras

    def save_pretrained(
        self,
        folder: str | os.PathLike,
        *,
        photos: np.ndarray | None = None,
        metrics: Metrics | Mapping[str, Any] | None = None,
        predictions: Path | pa.Table | None = None,
        figures: Iterable[Path] | None = None,
    ) -> Path:
        """Write the bundle, all or nothing, after checking ONNX against Keras on `photos`.

        Args:
            folder: made, or replaced if it holds a bundle already.
            photos: uint8 (N, S, S, 3); may be left out for a model that was loaded, as it was checked before.
            metrics: for metrics.json, as its content or as `hub.metrics.Metrics`; None keeps those of a loaded model.
                `agreement` is added.
            predictions: predictions.parquet, a file or an Arrow table; None keeps those of a loaded model.
            figures: PNG files for figures/; None keeps those of a loaded model.

        Returns:
            The folder.

        Raises:
            BundleError: ONNX and Keras differ by more than 1e-4, or the folder holds something else.
            StorageError: the disk is full or the folder cannot be written.
            Nothing is written then, and an older bundle stays as it was.
        """
        self.fetch_record()
        if metrics is None and self.folder and (self.folder / bundle.METRICS).exists():
            metrics = read_metrics(self.folder)
        if not isinstance(metrics, Metrics):
            text = bundle.json_text(dict(metrics or {}), bundle.METRICS)  # which makes NumPy's numbers plain
            metrics = metrics_of(json.loads(text))
        if photos is not None:
            metrics = replace(metrics, agreement=self._agreement(photos))
        elif self.folder is None:
            raise BundleError(f"{self.name} was never checked; give save_pretrained photos to compare on.")
        with bundle.replacing(Path(folder)) as new:
            self._write_keras(new / bundle.KERAS)
            self._write_onnx(new / bundle.ONNX)
            bundle.write_json(new, bundle.CONFIG, self.config.to_json())
            bundle.write_json(new, bundle.METRICS, metrics.to_json())
            self._write_predictions(new / bundle.PREDICTIONS, predictions)
            if figures is None and self.folder:
                figures = sorted((self.folder / bundle.FIGURES).glob("*.png"))
            for figure in figures or ():
                bundle.copy(Path(figure), new / bundle.FIGURES / Path(figure).name)
            self._keep_agreement(new)
            (new / bundle.CARD).write_text(staging.card(new), encoding="utf-8")
        return Path(folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        without: Iterable[str] = (),
        private: bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
        token: str | bool | None = None,
    ) -> str:
        """Publish the bundle that this classifier was loaded from as a model of the Hub, in one commit.

        What is published is what `python -m hub verify` (`hub.publishing.verify`) compared: the standard formats of
        `hub.formats`, and optional ones that were verified, each derived from model.keras anew.
        An upload that breaks off leaves the repository as it was; pushed again, what has arrived is not sent twice.

        Args:
            repo_id: owner/name; made if it does not exist.
            without: names of formats to leave out.
            private: hide a repository that is made now; None is the owner's default.
            revision: branch to push to, made if it does not exist; None is main.
            create_pr: propose the commit as a pull request instead.
            commit_message: one line.
            token: None takes that of `hf auth login` or HF_TOKEN.

        Returns:
            The commit's URL, or the pull request's.

        Raises:
            BundleError: never saved to a folder or never verified, a runtime's answers differ from Keras's by more
                than 1e-4, or the name or the token is refused.
            StorageError: the upload did not finish.
        """
        if self.folder is None:
            raise BundleError(
                f"{self.name} is not saved in a folder yet; use save_pretrained, then from_pretrained on it."
            )
        folder = self.folder
        if self._download:
            folder = remote.download(revision=folder.name, files=remote.WHOLE, **self._download)
        options: dict[str, Any] = {"private": private, "revision": revision, "create_pr": create_pr}
        with tempfile.TemporaryDirectory() as aside:
            staged = staging.prepare(folder, Path(aside), repo_id, without=without)
            return remote.push(staged, repo_id, commit_message=commit_message, token=token, **options)

    def _agreement(self, photos: np.ndarray) -> SavedAgreement:
        """Compare ONNX with Keras on photos; return the largest differences or raise a BundleError."""
        if not len(photos):
            raise BundleError("There is no photo to compare ONNX and Keras on; give at least one.")
        expected = batched(KerasRunner(self.to_keras()), photos)
        found = difference(expected, self.predict_tensors(photos))
        problem = too_far(found, None if expected[1] is None else np.abs(expected[1]).max())
        if problem:
            raise BundleError(
                f"The ONNX file's {problem}: nothing was written; look for a layer that converts differently."
            )
        return SavedAgreement(len(photos), found.probability, found.evidence, TOLERANCE)

    def _write_keras(self, target: Path) -> None:
        if self.folder is not None:
            bundle.copy(self._file(bundle.KERAS), target)
        else:
            import keras

            model = self.to_keras()
            # Built anew from the same tensors, it was never compiled: the file has no optimizer state.
            keras.Model(model.input, model.output, name=model.name).save(target)
        make_portable(target)
        safety.check_keras(target)  # what would not be loaded is not saved

    def _write_onnx(self, target: Path) -> None:
        if self.folder is not None:
            bundle.copy(self._file(bundle.ONNX), target)
        else:
            target.parent.mkdir()
            runner = cast("OnnxRunner", self._runner)  # what `from_keras` answers from
            target.write_bytes(runner.content)

    def _keep_agreement(self, new: Path) -> None:
        """Take agreement.json along if what it was measured on is what was written."""
        found = None
        with suppress(BundleError):  # of another version
            found = read_agreement(self.folder) if self.folder else None
        if found and all(found.files.get(name) == sha256(new / name) for name in (bundle.KERAS, bundle.ONNX)):
            bundle.write_json(new, bundle.AGREEMENT, found.to_json())

    def _write_predictions(self, target: Path, predictions: Path | pa.Table | None) -> None:
        if predictions is None and self.folder and (self.folder / bundle.PREDICTIONS).exists():
            predictions = self.folder / bundle.PREDICTIONS
        if isinstance(predictions, str | os.PathLike):
            bundle.copy(Path(predictions), target)
        elif predictions is not None:
            import pyarrow.parquet

            pyarrow.parquet.write_table(predictions, target)

    def fetch_record(self) -> None:
        """Have what is known of a Hub model in its folder: metrics, predictions, agreement, card and figures."""
        if self._download and self.folder:
            remote.download(revision=self.folder.name, files=remote.RECORD, **self._download)

    def holds(self, name: str) -> bool:
        """Whether a file of the bundle is in its folder; what a model of the Hub has may not be there yet."""
        return self.folder is not None and (self.folder / name).exists()

    def _file(self, name: str) -> Path:
        """Return the path of a file of the bundle, fetched from the same revision for a model of the Hub."""
        if self.folder is None:
            raise BundleError(f"{self.name} is not saved in a folder yet; use save_pretrained.")
        path = self.folder / name
        if not path.exists() and self._download:
            return remote.download(revision=self.folder.name, files=[name], **self._download) / name
        if not path.exists():
            raise BundleError(f"{self.folder} has no {name}; get the whole bundle for this.")
        return path


def _shown_name(folder: Path) -> str:
    """Return what to call a folder's model; in every run that folder is called bundle, so the run gives the name."""
    return folder.parent.name if folder.name == "bundle" and folder.parent.name else folder.name


def refuse_path(name: str, given: object) -> None:
    """Raise if what is no folder is no Hub name either: a mistyped path is not looked up on the web."""
    if given is None:
        raise BundleError("This copy is without the embedded model; name a folder or a model of the Hub.")
    if not name:
        raise BundleError("The name of the model is empty; check what was given.")
    path = Path(name).expanduser()
    if path.exists():
        told = None if (path.parent / bundle.CONFIG).exists() else other_tools.sentence(path)
        raise BundleError(told or f"{name} is a file; name its folder.")
    if not isinstance(given, str) or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise BundleError(f"There is no folder {name}; check the path, or give a Hub name (owner/model).")
