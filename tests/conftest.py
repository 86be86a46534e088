"""What many tests share: tiny evidence models of stock Keras layers, photos, and a bundle saved from each."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:  # a worker a core: more threads would only wait for one another
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np
import pytest

SIZE = 32
LONG = ("test_lessons.py", "test_fit.py", "test_backends.py", "test_backbones.py", "test_docs.py")
SHARED = {
    "the browser and its page": ("tests/browser/",),
    "verified_2": (
        "tests/hub/publishing/test_remade.py",
        "tests/hub/publishing/test_staging.py",
        "tests/hub/test_snippets.py",
    ),
}
LABELS = {2: ["cat", "dog"], 3: ["cat", "dog", "fox"]}


def pytest_collection_modifyitems(items) -> None:
    """Begin with the long files: of two workers, neither is then left with one of them at the end."""
    rooms = ("browser", "publishing", "training")
    items.sort(key=lambda item: (item.path.name not in LONG, *(room not in item.path.parts for room in rooms)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give a worker whole files; and one of them all files that share what takes long to make."""
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next(
                (what for what, files in SHARED.items() if nodeid.startswith(files)), super()._split_scope(nodeid)
            )

    return Together(config, log) if config.getvalue("dist") == "loadfile" else None


def draw_photos(count: int, seed: int) -> np.ndarray:
    """Pictures (count, 32, 32, 3) uint8: ramps from one random colour to another, with some noise."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, SIZE)[:, None, None]
    left, right = rng.uniform(0, 255, (2, count, 1, 1, 3))
    pictures = left * ramp + right * (1 - ramp) + rng.normal(0, 20, (count, SIZE, SIZE, 3))
    return np.clip(pictures, 0, 255).astype(np.uint8)


def build_model(labels: int):
    """An evidence model, 32 pixels to a (4, 4) grid, of the layers that real backbones are made of.

    Random, but for the head: that is fitted by ridge regression to name the strongest of the first K colours.
    """
    import keras
    from keras import layers

    keras.utils.set_random_seed(labels)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    y = layers.Conv2D(16, 1, activation="swish")(layers.Dropout(0.5)(x))
    x = layers.Add()([x, y])
    x = layers.SeparableConv2D(24, 3, strides=2, padding="same")(layers.ZeroPadding2D(((0, 1), (0, 1)))(x))
    x = layers.MaxPooling2D(2, strides=1)(x)
    features = layers.ReLU(name="features")(x)
    evidence = layers.Conv2D(labels, 1, use_bias=False, name="evidence")(features)
    logits = layers.GlobalAveragePooling2D(name="logits")(evidence)
    model = keras.Model(image, {"logits": logits, "evidence": evidence}, name=f"tiny_{labels}")
    for weight in model.weights:  # biases, means and scales away from 0 and 1, so that a lost one is seen
        if weight.path.endswith(("bias", "beta", "gamma", "moving_mean")):
            weight.assign(np.random.default_rng(0).uniform(0.3, 0.8, weight.shape))

    colours = draw_photos(500, seed=0).astype(np.float32)
    truth = np.eye(labels)[colours.mean(axis=(1, 2))[:, :labels].argmax(axis=1)]
    pooled = np.asarray(keras.Model(image, features)(colours)).mean(axis=(1, 2))
    kernel = np.linalg.solve(pooled.T @ pooled + 0.1 * np.eye(24), pooled.T @ (8 * truth - 4))
    model.get_layer("evidence").set_weights([kernel[None, None]])
    return model


@pytest.fixture(scope="session")
def model_2():
    """The tiny Keras model for two labels."""
    return build_model(2)


@pytest.fixture(scope="session")
def model_3():
    """The tiny Keras model for three labels."""
    return build_model(3)


@pytest.fixture(scope="session")
def photos() -> np.ndarray:
    """40 photos that no head was fitted on; more than one batch of 32."""
    return draw_photos(40, seed=1)


@pytest.fixture(scope="session")
def bundle_2(tmp_path_factory, model_2, photos) -> Path:
    """A saved bundle for two labels, cat and dog; read it, copy it, but change nothing in it."""
    return _saved(tmp_path_factory.mktemp("bundle") / "tiny-cats-vs-dogs", model_2, LABELS[2], photos)


@pytest.fixture(scope="session")
def bundle_3(tmp_path_factory, model_3, photos) -> Path:
    """A saved bundle for three labels; read it, copy it, but change nothing in it."""
    return _saved(tmp_path_factory.mktemp("bundle") / "tiny-three", model_3, LABELS[3], photos)


@pytest.fixture(scope="session")
def photo_files(tmp_path_factory, photos) -> Path:
    """A folder with eight of the photos as JPEG files, larger than the model's input, and one that is no picture."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    for number, pixels in enumerate(photos[:8]):
        Image.fromarray(pixels).resize((60 + number, 48)).save(folder / f"{number}.jpg")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="session")
def verified_2(tmp_path_factory, bundle_2, photo_files) -> Path:
    """bundle_2 with agreement.json: what may be published; read it, copy it, but change nothing in it."""
    from hub.publishing.verify import verify

    folder = tmp_path_factory.mktemp("verified") / "tiny-cats-vs-dogs"
    shutil.copytree(bundle_2, folder)
    verify(folder, sorted(photo_files.iterdir()), also=["openvino"], title="drawn pictures", progress=False)
    return folder


@pytest.fixture(scope="session")
def classic():
    """Cat or dog from a head that keeps no map."""
    import keras

    from hub import ImageClassifier

    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    features = keras.layers.Conv2D(4, 3, strides=4, activation="relu")(keras.layers.Rescaling(1 / 255)(image))
    logits = keras.layers.Dense(2, name="logits")(keras.layers.GlobalAveragePooling2D()(features))
    return ImageClassifier.from_keras(keras.Model(image, {"logits": logits}, name="classic"), ["cat", "dog"])


def _saved(folder: Path, model, labels: list[str], photos: np.ndarray) -> Path:
    from hub import ImageClassifier
    from hub.heatmaps import fixed_scale

    evidence = np.asarray(model(photos.astype(np.float32))["evidence"])
    classifier = ImageClassifier.from_keras(model, labels, evidence_scale=fixed_scale(evidence))
    return classifier.save_pretrained(folder, photos=photos)


@pytest.fixture(autouse=True, scope="session")
def _datasets_cache(tmp_path_factory):
    """Keep what `datasets` caches inside the test's own folder."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
