import keras
import numpy as np
import pytest

from hub import ImageClassifier
from hub.safety import check_keras
from hub.scores import softmax
from training.networks.networks import last_layer, mirrored, network, whiten
from training.settings import DEFAULTS, OF_NETWORKS, load_recipe, recipes

SMALL = {**DEFAULTS, **OF_NETWORKS, "network": "cnn", "size": 32, "blocks": [[4], [6, 6]]}
PIXELS = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)


def answer(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in model(PIXELS, training=False).items()}


@pytest.mark.parametrize(
    ("changes", "grid"),
    [
        ({}, (8, 8)),
        ({"dropout": 0.3, "head_dropout": 0.3, "batch_norm": False}, (8, 8)),
        ({"network": "resnet", "blocks": [[4, 4], [6, 6, 6], [8]], "whiten": True}, (4, 4)),
        ({"one_unit": True}, (8, 8)),
    ],
)
def test_the_mean_of_the_evidence_is_the_logit(changes, grid):
    labels = 2 if changes.get("one_unit") else 5
    out = answer(network({**SMALL, **changes}, labels))
    assert out["evidence"].shape == (3, *grid, labels)
    np.testing.assert_allclose(out["evidence"].mean((1, 2)), out["logits"], atol=1e-6)


def test_a_classic_head_gives_logits_alone_and_has_the_layers_it_was_asked_for():
    model = network({**SMALL, "head": "dense", "dense": [7], "head_dropout": 0.5}, 5)
    assert {name: value.shape for name, value in answer(model).items()} == {"logits": (3, 5)}
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds[-5:] == ["Flatten", "Dropout", "Dense", "Dropout", "Dense"]
    assert model.layers[-3].units == 7


@pytest.mark.parametrize("head", ["evidence", "dense"])
def test_one_unit_is_a_sigmoid_with_binary_cross_entropy(head):
    model = network({**SMALL, "head": head, "one_unit": True}, 2)
    logits = answer(model)["logits"]
    z = logits[:, 1]
    np.testing.assert_array_equal(logits[:, 0], 0)
    np.testing.assert_allclose(softmax(logits)[:, 1], 1 / (1 + np.exp(-z)), rtol=1e-5)
    truth = np.array([0, 1, 1])
    binary = keras.losses.BinaryCrossentropy(from_logits=True)(truth[:, None].astype(np.float32), z[:, None])
    ours = keras.losses.CategoricalCrossentropy(from_logits=True)(np.eye(2, dtype=np.float32)[truth], logits)
    assert float(ours) == pytest.approx(float(binary), rel=1e-5)
    assert model.get_layer("evidence" if head == "evidence" else "logits").trainable is False


@pytest.mark.parametrize("changes", [{}, {"one_unit": True}])
def test_a_mirrored_network_answers_a_picture_and_its_mirror_image_alike(changes, tmp_path):
    plain = network({**SMALL, **changes}, 2)
    seen, turned = (plain(pixels, training=False)["evidence"] for pixels in (PIXELS, PIXELS[:, :, ::-1]))
    both = mirrored(plain)
    out = answer(both)
    np.testing.assert_allclose(out["evidence"], (seen + turned[:, :, ::-1]) / 2, atol=1e-5)
    np.testing.assert_allclose(out["evidence"].mean((1, 2)), out["logits"], atol=1e-6)
    mirror_image = both(PIXELS[:, :, ::-1], training=False)
    np.testing.assert_allclose(mirror_image["evidence"], out["evidence"][:, :, ::-1], atol=1e-5)
    assert np.ptp(out["logits"]) > 1e-3

    classifier = ImageClassifier.from_keras(both, ["a", "b"])
    classifier.save_pretrained(tmp_path, photos=PIXELS.astype(np.uint8))
    check_keras(tmp_path / "model.keras")
    onnx, tensors = ImageClassifier.from_pretrained(tmp_path), PIXELS.astype(np.uint8)
    np.testing.assert_allclose(onnx.predict_tensors(tensors)[1], both(tensors, training=False)["evidence"], atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"one_unit": True}, {"head": "dense", "dense": [7]}])
def test_scaling_the_last_layer_scales_the_logits(changes):
    model = network({**SMALL, **changes}, 2)
    before = answer(model)["logits"]
    layer = last_layer(model)
    layer.set_weights([weights / 4 for weights in layer.get_weights()])
    np.testing.assert_allclose(answer(model)["logits"], before / 4, rtol=1e-5)


def test_whitened_patches_are_uncorrelated_and_of_one_size():
    model = network({**SMALL, "network": "resnet", "blocks": [[4, 4]], "whiten": True}, 2)
    rng = np.random.default_rng(1)
    base = rng.normal(0, 30, (400, 32, 32, 1))  # channels that almost agree, neighbours that do
    smooth = base + np.roll(base, 1, 1) + np.roll(base, 1, 2)
    pixels = np.clip(smooth + rng.normal(0, 10, (400, 32, 32, 3)) + 128, 0, 255).astype(np.uint8)
    whiten(model, pixels)
    cut = keras.Model(model.input, model.get_layer("whitening").output)
    found = np.asarray(cut(pixels.astype(np.float32)))[:, :-1, :-1].reshape(-1, 24)
    np.testing.assert_allclose(found[:, :12], -found[:, 12:], atol=1e-5)
    covariance = np.cov(found[:, :12], rowvar=False)
    variances = np.diag(covariance)
    assert np.abs(covariance - np.diag(variances)).max() < 0.02
    assert variances.min() > 0.5 and variances.max() < 1.01
    assert not model.get_layer("whitening").trainable


def test_each_residual_unit_begins_as_the_identity():
    model = network({**SMALL, "network": "resnet", "blocks": [[4, 4, 4]]}, 3)
    adds = [layer for layer in model.layers if isinstance(layer, keras.layers.Add)]
    assert len(adds) == 2
    for add in adds:
        into, branch = add.input
        maps = keras.Model(model.input, [into, branch, add.output])(PIXELS)
        np.testing.assert_array_equal(np.asarray(maps[1]), 0)
        np.testing.assert_array_equal(np.asarray(maps[0]), np.asarray(maps[2]))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("mnist_cnn", "cats_vs_dogs_cnn") else pytest.mark.long)
        for name in recipes()
        if "network" in load_recipe(name)
    ],
)
def test_every_small_recipe_is_of_stock_layers_and_becomes_a_classifier(name, tmp_path):
    settings = load_recipe(name)
    labels = ["cat", "dog"] if settings["one_unit"] else [str(k) for k in range(10)]
    model = network(settings, len(labels))
    model.save(tmp_path / "model.keras")
    check_keras(tmp_path / "model.keras")
    if name == "mnist_cnn":
        assert (tmp_path / "model.keras").stat().st_size < 2e6
    classifier = ImageClassifier.from_keras(model, labels)
    assert classifier.config.head == ("evidence" if settings["head"] == "evidence" else "logits")
    photos = np.random.default_rng(2).integers(0, 256, (4, settings["size"], settings["size"], 3), np.uint8)
    expected = np.asarray(model(photos.astype(np.float32), training=False)["logits"])
    np.testing.assert_allclose(classifier.predict_tensors(photos)[0], expected, atol=1e-4)
