import keras
import numpy as np
import pytest

from hub.errors import DataError
from hub.safety import check_keras
from training.fit import build
from training.networks.backbones import BACKBONES, _scaled, evidence_model, features_model, freeze, freeze_batch_norm
from training.settings import load_recipe, override

# One of each family, and the module that says how its pictures are prepared.
FAMILIES = {
    "MobileNet": "mobilenet", "MobileNetV2": "mobilenet_v2", "MobileNetV3Small": "mobilenet_v3", "VGG16": "vgg16",
    "ResNet50": "resnet", "ResNet50V2": "resnet_v2", "DenseNet121": "densenet", "EfficientNetB0": "efficientnet",
    "EfficientNetV2B0": "efficientnet_v2", "Xception": "xception", "InceptionV3": "inception_v3",
}  # fmt: skip
QUICK = ("MobileNetV2", "MobileNetV3Small")


@pytest.fixture(scope="module")
def model():
    return evidence_model("MobileNetV2", "random", 64, 3)


def test_the_mean_of_the_evidence_is_the_logit(model):
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    out = {name: np.asarray(value) for name, value in model(pixels).items()}
    assert out["logits"].shape == (2, 3)
    assert out["evidence"].shape == (2, 2, 2, 3)
    np.testing.assert_allclose(out["evidence"].mean((1, 2)), out["logits"], rtol=1e-5, atol=1e-6)


def test_the_head_is_the_usual_pooling_and_dense_layer(model):
    pixels = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    kernel = model.get_layer("evidence").get_weights()[0][0, 0]
    pooled = np.asarray(features_model(model)(pixels))
    np.testing.assert_allclose(pooled @ kernel, model(pixels)["logits"], rtol=1e-4, atol=1e-5)


def test_only_stock_layers_and_the_file_loads_anywhere(model, tmp_path):
    assert all(type(layer).__module__.startswith("keras.src.layers") for layer in model.layers)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True, compile=False)
    pixels = np.full((1, 64, 64, 3), 128, np.float32)
    np.testing.assert_array_equal(again(pixels)["logits"], model(pixels)["logits"])


def test_pixels_are_scaled_inside(model):
    scaling = model.layers[1]
    values = np.asarray(scaling(np.array([[[[0.0, 127.5, 255.0]]]], np.float32)))
    assert values.ravel().tolist() == [-1.0, 0.0, 1.0]


def test_frozen_batch_normalisation_does_not_move_in_training(model):
    freeze_batch_norm(model)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 52
    assert not any(layer.trainable_weights for layer in norms)
    before = [w.copy() for layer in norms for w in layer.get_weights()]
    network = keras.Model(model.input, model.output["logits"])
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    network.train_on_batch(np.random.default_rng(0).uniform(0, 255, (4, 64, 64, 3)), np.array([0, 1, 2, 0]))
    after = [w for layer in norms for w in layer.get_weights()]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_what_does_not_fit_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="'MobileNetV9' is not a known backbone"):
        evidence_model("MobileNetV9", None, 64, 2)
    with pytest.raises(DataError, match="MobileNetV2 cannot take the weights"):
        evidence_model("MobileNetV2", str(tmp_path / "missing.weights.h5"), 64, 2)
    (tmp_path / "text.weights.h5").write_text("not weights")
    with pytest.raises(DataError, match="MobileNetV2 cannot take the weights"):
        evidence_model("MobileNetV2", str(tmp_path / "text.weights.h5"), 64, 2)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in FAMILIES]
)
def test_another_backbone_is_one_changed_line_and_learns(name, tmp_path):
    changes = [f"backbone={name}", "backbone_weights=random", "size=75", "live_batch_norm=True", "dropout=0.1"]
    model = build(override(load_recipe("cats_vs_dogs_mobilenetv2"), changes), 3)
    network = keras.Model(model.input, model.output["logits"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("sgd", loss, run_eagerly=True)  # compiling would take longer than the step
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 75, 75, 3)).astype(np.float32)
    before = [np.array(weights) for weights in network.get_weights()]
    assert np.isfinite(network.train_on_batch(pixels, np.array([0, 2])))
    moved = [not np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True)]
    assert moved[-1] and sum(moved) > len(moved) / 2
    model.save(tmp_path / "model.keras")
    check_keras(tmp_path / "model.keras")


@pytest.mark.parametrize(("name", "module"), FAMILIES.items())
def test_each_backbone_gets_pixels_as_its_weights_want_them(name, module):
    pixels = np.random.default_rng(3).integers(0, 256, (1, 75, 75, 3)).astype(np.float32)
    expected = getattr(keras.applications, module).preprocess_input(pixels.copy())
    image = keras.Input((75, 75, 3))
    found = np.asarray(keras.Model(image, _scaled(image, name))(pixels))
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_every_backbone_that_is_offered_is_one_of_keras():
    assert len(set(BACKBONES)) == len(BACKBONES)
    assert all(callable(getattr(keras.applications, name)) for name in BACKBONES)


def test_freezing_by_share_and_by_name():
    model = evidence_model("MobileNetV2", "random", 64, 2)
    whole = [layer.name for layer in model.layers]

    def frozen(up_to):
        for layer in model.layers:
            layer.trainable = True
        freeze(model, up_to)
        return [layer.name for layer in model.layers if not layer.trainable]

    assert frozen(None) == [] == frozen(0.0)
    assert frozen(1.0) == whole[:-2]
    assert frozen(0.5) == whole[: round((len(whole) - 2) / 2)]
    assert frozen("block_4_add") == whole[: whole.index("block_4_add") + 1]
    with pytest.raises(DataError, match=r"no layer 'block_99' to freeze up to; among its layers are image, "):
        frozen("block_99")
