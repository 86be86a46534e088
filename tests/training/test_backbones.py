import keras
import numpy as np
import pytest

from hub.errors import DataError
from training.backbones import evidence_model, features_model, freeze_batch_norm


@pytest.fixture(scope="module")
def model():
    return evidence_model("MobileNetV2", "random", 64, 3)


def test_the_mean_of_the_evidence_is_the_logit(model):
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    out = model.predict_on_batch(pixels)
    assert out["logits"].shape == (2, 3)
    assert out["evidence"].shape == (2, 2, 2, 3)
    np.testing.assert_allclose(out["evidence"].mean((1, 2)), out["logits"], rtol=1e-5, atol=1e-6)


def test_the_head_is_the_usual_pooling_and_dense_layer(model):
    pixels = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    kernel = model.get_layer("evidence").get_weights()[0][0, 0]
    pooled = features_model(model).predict_on_batch(pixels)
    np.testing.assert_allclose(pooled @ kernel, model.predict_on_batch(pixels)["logits"], rtol=1e-4, atol=1e-5)


def test_only_stock_layers_and_the_file_loads_anywhere(model, tmp_path):
    assert all(type(layer).__module__.startswith("keras.src.layers") for layer in model.layers)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True, compile=False)
    pixels = np.full((1, 64, 64, 3), 128, np.float32)
    np.testing.assert_array_equal(again.predict_on_batch(pixels)["logits"], model.predict_on_batch(pixels)["logits"])


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
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    network.train_on_batch(np.random.default_rng(0).uniform(0, 255, (4, 64, 64, 3)), np.array([0, 1, 2, 0]))
    after = [w for layer in norms for w in layer.get_weights()]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_what_does_not_fit_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="'MobileNetV9' is no backbone that takes"):
        evidence_model("MobileNetV9", None, 64, 2)
    with pytest.raises(DataError, match="MobileNetV2 cannot take the weights"):
        evidence_model("MobileNetV2", str(tmp_path / "missing.weights.h5"), 64, 2)
    (tmp_path / "text.weights.h5").write_text("not weights")
    with pytest.raises(DataError, match="MobileNetV2 cannot take the weights"):
        evidence_model("MobileNetV2", str(tmp_path / "text.weights.h5"), 64, 2)
