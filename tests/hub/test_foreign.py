"""Keras models from elsewhere: probabilities at the end, however they are made, go through softmax once, not twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers, ops

from hub import BundleError, ImageClassifier
from hub.drawn import drawn
from hub.formats.foreign import as_classifier
from hub.formats.onnx import to_onnx
from hub.publishing.verify import verify
from hub.scores import softmax

SIDE = 4
WEIGHTS = np.array([[2, 0, -1], [0, 3, 0], [-3, 1, 2]], np.float32)  # of the mean red, green and blue for each label
BIAS = np.array([0.5, -1, 0], np.float32)


def colours(image: keras.KerasTensor) -> keras.KerasTensor:
    """The mean of each colour, from 0 to 1."""
    return layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image))


def model_of(end: Callable, outputs: Callable = lambda tensor: tensor) -> keras.Model:
    """A model of an end that is put on the three colours; its dense and convolved layers get the weights above."""
    image = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(image, outputs(end(colours(image))), name="stranger")
    fill(model)
    return model


def fill(model: keras.Model) -> None:
    """Give every layer with weights, in nested models too, those above, cut to its shape."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, layers.Dense | layers.Conv2D):
            kernel, *bias = layer.get_weights()
            kernel = WEIGHTS[: kernel.shape[-2], : kernel.shape[-1]].reshape(kernel.shape)
            layer.set_weights([kernel, *(BIAS[: len(one)] for one in bias)])


def nested(*parts) -> keras.Sequential:
    """A Sequential model of its own input."""
    return keras.Sequential([keras.Input((3,)), *parts])


def used_twice(layer: keras.layers.Layer, tensor: keras.KerasTensor) -> keras.KerasTensor:
    """A layer's answer to its own answer."""
    return layer(layer(tensor))


ENDS = {
    "Dense": lambda x: layers.Dense(3, "softmax")(x),
    "TensorFlow's own": lambda x: layers.Dense(3, activation=tf.nn.softmax)(x),
    "used twice": lambda x: used_twice(layers.Dense(3, "softmax"), x),
    "a layer as activation": lambda x: layers.Dense(3, activation=layers.Softmax())(x),
    "Activation": lambda x: layers.Activation("softmax", dtype="float32")(layers.Dense(3)(x)),
    "Softmax": lambda x: layers.Softmax()(layers.Dense(3)(x)),
    "ops": lambda x: ops.softmax(layers.Dense(3)(x)),
    "dropped out": lambda x: layers.Identity()(layers.Dropout(0.5)(layers.Dense(3, "softmax")(x))),
    "convolved": lambda x: layers.Flatten()(layers.Conv2D(3, 1, activation="softmax")(layers.Reshape((1, 1, 3))(x))),
    "cast": lambda x: ops.cast(ops.reshape(layers.Dense(3, "softmax")(x), (-1, 3)), "float32"),
    "nested": lambda x: nested(layers.Dense(3, "softmax"))(x),
    "nested twice": lambda x: nested(layers.Identity(), nested(layers.Dense(3), layers.Softmax()))(x),
    "after a softmax": lambda x: layers.Dense(3, "softmax")(layers.Dense(3, "softmax")(x)),
}


@pytest.mark.parametrize("outputs", [lambda x: x, lambda x: [x], lambda x: {"logits": x}], ids=["one", "list", "named"])
@pytest.mark.parametrize("end", ENDS)
def test_the_logits_behind_a_softmax_are_taken(end, outputs):
    """Their softmax is what the model answered, and they are no probabilities themselves."""
    model = model_of(ENDS[end], outputs)
    pictures = drawn(6, SIDE).astype(np.float32)
    before = model(pictures)
    before = before["logits"] if isinstance(before, dict) else before[0] if isinstance(before, list) else before
    logits = np.asarray(as_classifier(model, 3)(pictures)["logits"])
    np.testing.assert_allclose(softmax(logits), before, atol=1e-6)
    assert abs(logits.sum(axis=1) - 1).max() > 0.1


def test_a_sure_answer_stays_sure():
    """Two labels of which one has 9.2103 more: 0.9999, not 0.7310; saved in model.keras and in the ONNX file alike."""
    image = keras.Input((SIDE, SIDE, 3))
    dense = layers.Dense(2, "softmax", use_bias=False)
    model = keras.Sequential([image, layers.Rescaling(1 / 255), layers.GlobalAveragePooling2D(), dense])
    dense.set_weights([np.array([[9.21024, 0], [0, 0], [0, 0]], np.float32)])
    classifier = ImageClassifier.from_keras(model, ["cat", "dog"])
    red = np.zeros((SIDE, SIDE, 3), np.uint8)
    red[..., 0] = 255
    assert classifier(red, top_k=1) == [{"label": "cat", "score": pytest.approx(0.9999, abs=1e-6)}]
    logits = classifier.to_keras()(red[None].astype(np.float32))["logits"]
    np.testing.assert_allclose(logits, [[9.21024, 0]], atol=1e-5)


UNITS = {
    "sigmoid": lambda x: layers.Dense(1, "sigmoid")(x),
    "nested": lambda x: nested(layers.Dense(1), layers.Activation("sigmoid"))(x),
    "ops": lambda x: ops.sigmoid(layers.Dense(1)(x)),
    "without activation": lambda x: layers.Dropout(0.5)(layers.Dense(1)(x)),
}


@pytest.mark.parametrize("end", UNITS)
def test_one_unit_becomes_two_logits(end):
    """(0, z): the second label is what 1 stood for."""
    pictures = drawn(6, SIDE).astype(np.float32)
    model = model_of(UNITS[end])
    logits = np.asarray(as_classifier(model, 2)(pictures)["logits"])
    answer = np.asarray(model(pictures))[:, 0]
    z = answer if end == "without activation" else np.log(answer / (1 - answer))
    np.testing.assert_allclose(logits, np.stack([np.zeros(6), z], axis=1), atol=1e-5)
    assert np.ptp(z) > 0.5


def test_the_map_of_one_unit_becomes_two_maps():
    """Their mean is the logits."""
    image = keras.Input((SIDE, SIDE, 3))
    evidence = layers.Conv2D(1, 1)(layers.Rescaling(1 / 255)(image))
    answer = layers.Activation("sigmoid")(layers.GlobalAveragePooling2D()(evidence))
    model = keras.Model(image, {"logits": answer, "evidence": evidence})
    fill(model)
    classifier = ImageClassifier.from_keras(model, ["no", "yes"])
    prediction = classifier.predict(drawn(3, SIDE)[2])
    assert prediction.evidence.shape == (SIDE, SIDE, 2)
    assert prediction.logits[0] == 0 and prediction.logits[1] != 0
    np.testing.assert_allclose(prediction.evidence.mean(axis=(0, 1)), prediction.logits, atol=1e-6)


def test_logits_stay_as_they_are():
    """A model that needs no change is taken itself, though probabilities weigh something inside it."""

    def gated(x):
        return layers.Multiply()([layers.Dense(3)(x), layers.Dense(3, "softmax")(x)])

    def logarithm(x):
        return ops.log(layers.Dense(3, "softmax")(x))

    for end in (layers.Dense(3), layers.Dense(3, "log_softmax"), nested(layers.Dense(3)), gated, logarithm):
        model = model_of(end, lambda x: {"logits": x})
        assert as_classifier(model, 3) is model


@keras.saving.register_keras_serializable("tests")
class Temperature(layers.Layer):
    """A layer of somebody's own."""

    def call(self, inputs):
        return inputs / 2


REFUSED = {
    "divided": (lambda x: layers.Dense(3, "softmax")(x) / 2, "computes more after"),
    "rescaled": (lambda x: layers.Rescaling(0.5)(layers.Dense(3, "softmax")(x)), "computes more after"),
    "a layer of somebody's own": (lambda x: Temperature()(layers.Dense(3, "softmax")(x)), "computes more after"),
    "the mean of two": (
        lambda x: layers.Average()([layers.Dense(3, "softmax")(x), nested(layers.Dense(3, "softmax"))(x)]),
        "computes more after",
    ),
    "several sigmoids": (lambda x: layers.Dense(3, "sigmoid")(x), "sigmoid for each of 3 outputs"),
    "sparsemax": (lambda x: layers.Dense(3, "sparsemax")(x), "ends in a sparsemax over 3 outputs"),
    "one softmax": (lambda x: layers.Dense(1, "softmax")(x), "ends in a softmax over 1 outputs"),
    "one unit of three": (lambda x: layers.Dense(1, "sigmoid")(x), "tells two labels apart, and there are 3"),
    "maps": (lambda x: layers.Reshape((1, 1, 3))(layers.Dense(3)(x)), "logits are [(]None, number of labels[)]"),
    "two outputs": (lambda x: [layers.Dense(3)(x), layers.Dense(3)(x)], "must return one output"),
}


@pytest.mark.parametrize("end", REFUSED)
def test_probabilities_whose_logits_cannot_be_had_are_refused(end):
    """One sentence."""
    make, words = REFUSED[end]
    with pytest.raises(BundleError, match=words) as refusal:
        as_classifier(model_of(make), 3)
    assert "stranger" in str(refusal.value) and "\n" not in str(refusal.value)


def test_one_unit_that_says_nothing_is_refused():
    """tanh goes from -1 to 1, and 1 - p is the other label's."""
    for end in (lambda x: layers.Dense(1, "tanh")(x), lambda x: 1 - layers.Dense(1, "relu")(x)):
        with pytest.raises(BundleError, match="does not say which label it means"):
            as_classifier(model_of(end), 2)
    with pytest.raises(BundleError, match="computes more after"):
        as_classifier(model_of(lambda x: 1 - layers.Dense(1, "sigmoid")(x)), 2)


def test_probabilities_that_the_graph_does_not_tell_are_found_by_asking():
    """A softmax written out."""

    def written_out(x):
        powers = ops.exp(layers.Dense(3)(x))
        return powers / ops.sum(powers, axis=-1, keepdims=True)

    with pytest.raises(BundleError, match="of each of 8 drawn pictures add up to 1"):
        ImageClassifier.from_keras(model_of(written_out), ["a", "b", "c"])


def test_a_bundle_of_probabilities_is_not_verified(bundle_2, photo_files, tmp_path):
    """Somebody's own, or one that was made before this was looked at."""
    folder = shutil.copytree(bundle_2, tmp_path / "bundle")
    model = onnx.load(folder / "onnx" / "model.onnx")
    for node in model.graph.node:
        node.output[:] = ["before" if name == "logits" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Softmax", ["before"], ["logits"]))
    onnx.save(model, folder / "onnx" / "model.onnx")
    with pytest.raises(BundleError, match="The logits of .*bundle are probabilities already"):
        verify(folder, list(photo_files.iterdir()), without=["keras-folder", "litert"], progress=False)


def test_to_onnx_converts_no_probabilities():
    """It changes no model, so it says who does."""
    with pytest.raises(BundleError, match="give it to ImageClassifier.from_keras"):
        to_onnx(model_of(lambda x: layers.Dense(3, "softmax")(x), lambda x: {"logits": x}))


class Subclassed(keras.Model):
    """A model without a graph."""

    def call(self, inputs):
        return inputs


def small(*shape: int | None) -> keras.Model:
    """A model that takes pictures of another shape."""
    return keras.Sequential([keras.Input(shape), layers.Flatten() if None not in shape else colours, layers.Dense(3)])


def two_inputs() -> keras.Model:
    """A model that takes a picture and numbers beside it."""
    image, numbers = keras.Input((SIDE, SIDE, 3)), keras.Input((2,))
    return keras.Model([image, numbers], layers.Dense(3)(layers.Concatenate()([colours(image), numbers])))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("cats.keras", "takes a Keras model, not str; load it with"),
        (Subclassed(), "has no graph"),
        (keras.Sequential([layers.Dense(3)]), "begin a Sequential model with keras.Input"),
        (small(28, 28, 1), r"takes \(None, 28, 28, 1\), and a bundle's model takes square colour pictures.*ops.mean"),
        (two_inputs(), "cannot be used here"),
        (small(20, 28, 3), r"takes \(None, 20, 28, 3\)"),
    ],
)
def test_other_models_are_one_sentence(model, words):
    """What is no model, has no graph, or takes no square colour pictures."""
    with pytest.raises(BundleError, match=words):
        as_classifier(model, 3)


def test_pictures_of_any_size_are_given_one():
    """The sentence's own remedy works."""
    image = keras.Input((None, None, 3))
    model = keras.Model(image, layers.Dense(3)(colours(image)))
    with pytest.raises(BundleError, match="takes pictures of any size"):
        as_classifier(model, 3)
    image = keras.Input((SIDE, SIDE, 3))
    assert as_classifier(keras.Model(image, model(image)), 3).output["logits"].shape == (None, 3)


def rounded(policy: str) -> keras.Model:
    """A model as it is trained on a graphics card: it computes in 16 bits, but for the softmax at its end."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return model_of(lambda x: layers.Activation("softmax", dtype="float32")(layers.Dense(3)(x)))
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_refused_with_a_remedy_that_works(policy):
    """Rounded logits would miss the tolerance; the same weights in a model of 32 bits are taken."""
    old = rounded(policy)
    with pytest.raises(BundleError, match=f"in {policy.removeprefix('mixed_')}, .*set_dtype_policy"):
        as_classifier(old, 3)
    new = rounded("float32")
    new.set_weights(old.get_weights())
    pictures = drawn(8, SIDE).astype(np.float32)
    logits = as_classifier(new, 3)(pictures)["logits"]
    np.testing.assert_allclose(softmax(np.asarray(logits)), np.asarray(new(pictures)), atol=1e-6)


def test_a_normalization_that_was_adapted_is_part_of_the_onnx_file():
    """EfficientNet begins with one too; what it has learned is no input."""
    scale = layers.Normalization()
    scale.adapt(drawn(8, SIDE).astype(np.float32))
    image = keras.Input((SIDE, SIDE, 3))
    end = layers.Dense(3)(layers.GlobalAveragePooling2D()(scale(image)))
    model = keras.Model(image, end, name="stranger")
    answers = ImageClassifier.from_keras(model, ["a", "b", "c"]).predict_tensors(drawn(8, SIDE))[0]
    np.testing.assert_allclose(answers, model(drawn(8, SIDE).astype(np.float32)), atol=1e-5)
