"""Every method against maps worked out by hand, against another road to the same map, and where it cannot run."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from skimage.data import chelsea

from hub import BundleError, ImageClassifier, ImageError, UsageError, heatmaps
from hub.explain import METHODS, best_for, find_method
from hub.explain.gradients import feature_gradient
from hub.explain.masks import features_of
from hub.images import to_tensor

ROOT = Path(__file__).parents[2]
SIDE = 28  # two pixels to each of the 14 cells
# Pixel, colour, its value, how much of it goes into the three logits: all that the model by hand looks at (P and R are
# one pixel, Q lies in the same cell).
SEEN = {
    "P": ((4, 6), 0, 255, (4, -2, -2)),
    "Q": ((5, 7), 0, 102, (1, 4, 1)),
    "R": ((4, 6), 2, 51, (0, 0, 9)),
    "T": ((0, 0), 1, 255, (0, 0, 3)),
    "U": ((12, 20), 2, 153, (3, 0, 0)),
}
# So label 0's score, z0 less the mean of z0, z1 and z2, is 4 P - 1 Q - 3 R - 1 T + 2 U, with values from 0 to 1.
P, Q, R, T, U = (place for place, *_ in SEEN.values())
RED, BLUE = {P: 1, Q: 0.4}, {R: 0.2, U: 0.6}


def classifier_of(head, size: int = SIDE, labels: int = 3) -> ImageClassifier:
    """A classifier of one 1x1 convolution that gives the colours, from 0 to 1, under a head."""
    import keras
    from keras import layers

    image = keras.Input((size, size, 3))
    colours = layers.Conv2D(3, 1, use_bias=False, activation="relu")(layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, head(colours))
    model.layers[2].set_weights([np.eye(3, dtype=np.float32)[None, None]])
    return ImageClassifier.from_keras(model, ["a", "b", "c"][:labels])


@pytest.fixture(scope="module")
def by_hand() -> ImageClassifier:
    """A classic head, dense on every pixel."""
    from keras import layers

    kernel = np.zeros((SIDE, SIDE, 3, 3), np.float32)
    for place, colour, _, logits in SEEN.values():
        kernel[(*place, colour)] = logits
    dense = layers.Dense(3)
    dense.build((None, kernel.size // 3))
    dense.set_weights([kernel.reshape(-1, 3), np.array([7, -2, 0.5], np.float32)])
    return classifier_of(lambda colours: {"logits": dense(layers.Flatten()(colours))})


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Black, but for what the model by hand sees; so its mean colour is black too."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    for place, colour, value, _ in SEEN.values():
        pixels[(*place, colour)] = value
    return pixels


@pytest.fixture(scope="module")
def classifier_3(bundle_3) -> ImageClassifier:
    """An evidence head of three labels, from its files."""
    return ImageClassifier.from_pretrained(bundle_3)


def pixels(values: dict) -> np.ndarray:
    """A map that is 0 but for some pixels."""
    expected = np.zeros((SIDE, SIDE), np.float32)
    for place, value in values.items():
        expected[place] = value
    return expected


# ---- occlusion


def test_occlusion_by_hand(by_hand, photo):
    """A full square is 1/49 of the photo; what matters lies under four squares, its neighbours under two or one."""
    found = find_method("occlusion")(by_hand, photo, 0)
    under = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    expected = np.zeros((14, 14))
    expected[1:4, 2:5] = 49 * (4 - 0.4 - 3 * 0.2) * under
    expected[5:8, 9:12] = 49 * 1.2 * under
    expected[:2, :2] = [[-196 * 2.25 / 4, -147 / 4], [-147 / 4, -49 / 4]]  # squares of 1, 2, 2 and 4 cells
    np.testing.assert_allclose(found.values, expected, atol=1e-3)
    assert (found.signed, found.in_logits, found.passes) == (True, True, 226)
    assert found.passes == find_method("occlusion").passes(by_hand)


def test_occlusion_adds_up_where_the_score_is_a_sum_over_pixels(by_hand, photo):
    """Its mean is what is lost when everything is hidden, for every label."""
    logits, _ = by_hand.predict_tensors(np.stack([photo, np.zeros_like(photo)]))
    for k in range(3):
        whole, nothing = heatmaps.shown_logit(logits, k)
        values = find_method("occlusion")(by_hand, photo, k).values
        assert values.mean(dtype=np.float64) == pytest.approx(whole - nothing, abs=1e-4)


def test_a_plain_photo_has_nothing_to_occlude(by_hand):
    """Its mean colour is its colour."""
    plain = np.full((SIDE, SIDE, 3), (200, 30, 77), np.uint8)
    assert not find_method("occlusion")(by_hand, plain, 0).values.any()


# ---- class activation maps


def test_grad_cam_by_hand(by_hand, photo):
    """z0 has 4 of P's red, 1 of Q's and 3 of U's blue, so red counts 5 and blue 3 everywhere; z2 has red against it."""
    found = find_method("grad-cam")(by_hand, photo, 0)
    np.testing.assert_allclose(found.values, pixels({P: 1, Q: 2 / 5.6, U: 1.8 / 5.6}), atol=1e-6)
    assert (found.signed, found.in_logits, found.passes) == (False, False, 3)
    found = find_method("grad-cam")(by_hand, photo, 2)  # -1, 3 and 9 of red, green and blue
    np.testing.assert_allclose(found.values, pixels({P: 0.8 / 5.4, T: 3 / 5.4, U: 1}), atol=1e-6)


def test_grad_cam_plus_plus_by_hand(by_hand, photo):
    """Red: 4 * 4² / (2 * 4² + 4³ * 1.4); blue: 2 * 2² / (2 * 2² + 2³ * 0.8); what speaks against label 0 counts 0."""
    red, blue = 64 / (32 + 64 * 1.4), 8 / (8 + 8 * 0.8)
    expected = pixels({place: red * value for place, value in RED.items()})
    expected += pixels({place: blue * value for place, value in BLUE.items()})
    found = find_method("grad-cam++")(by_hand, photo, 0)
    np.testing.assert_allclose(found.values, expected / expected[P], atol=1e-6)
    assert found.passes == find_method("grad-cam++").passes(by_hand) == 3


def test_layer_cam_by_hand(by_hand, photo):
    """Only where the gradient is positive: 4 * 1 at P, less nothing for R, and 2 * 0.6 at U."""
    np.testing.assert_allclose(find_method("layer-cam")(by_hand, photo, 0).values, pixels({P: 1, U: 0.3}), atol=1e-6)


def test_score_cam_by_hand(by_hand, photo):
    """Each colour's map as a mask; hidden pixels are grey, 128, and each masked photo's score weighs its map."""

    def score(p: float, q: float, r: float, t: float, u: float) -> float:
        return (4 * p - q - 3 * r - t + 2 * u) / 255

    red = score(255, 117, 51, 128, 128)  # Q's 102 is seen by 0.4: 127.5 - 0.4 * 25.5 = 117.3
    green = score(128, 128, 128, 255, 128)
    blue = score(170, 128, 102, 128, 153)  # P and R by a third: 127.5 + 127.5 / 3 and 127.5 - 76.5 / 3
    weights = np.exp([red, green, blue]) / np.exp([red, green, blue]).sum()
    expected = pixels({place: weights[0] * value for place, value in RED.items()})
    expected += pixels({T: weights[1]}) + pixels({place: weights[2] * value for place, value in BLUE.items()})
    found = find_method("score-cam")(by_hand, photo, 0)
    np.testing.assert_allclose(found.values, expected / expected.max(), atol=1e-5)
    assert found.passes == find_method("score-cam").passes(by_hand) == 4


def test_score_cam_leaves_flat_maps_out(by_hand):
    """Red varies, green and blue do not; where nothing does, nothing is shown."""
    photo = np.full((SIDE, SIDE, 3), 90, np.uint8)
    photo[P][0] = 255
    assert find_method("score-cam")(by_hand, photo, 0).passes == 2
    photo[P][0] = 90
    found = find_method("score-cam")(by_hand, photo, 0)
    assert found.passes == 1 and not found.values.any()


@pytest.fixture(scope="module")
def nested(by_hand) -> ImageClassifier:
    """The same function, its convolution two models deep, and beside it a way from the photo that adds nothing."""
    import keras
    from keras import layers

    inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Conv2D(3, 1, use_bias=False, activation="relu")])
    outer = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Dropout(0.5), inner, layers.Flatten()])
    image = keras.Input((SIDE, SIDE, 3))
    mean = layers.GlobalAveragePooling2D()(image)
    joined = layers.Concatenate()([outer(layers.Rescaling(1 / 255)(image)), mean])
    model = keras.Model(image, {"logits": layers.Dense(3)(joined)})
    inner.layers[0].set_weights([np.eye(3, dtype=np.float32)[None, None]])
    kernel, bias = by_hand.to_keras().layers[-1].get_weights()
    model.layers[-1].set_weights([np.concatenate([kernel, np.zeros((3, 3))]), bias])
    return ImageClassifier.from_keras(model, ["a", "b", "c"])


@pytest.mark.parametrize("name", ["grad-cam", "grad-cam++", "layer-cam", "score-cam"])
def test_feature_maps_inside_nested_models_are_found(name, nested, by_hand, photo):
    """The maps are those of the model by hand, to the digit, and not the rescaled photo's."""
    for k in range(3):
        found, expected = (find_method(name)(classifier, photo, k) for classifier in (nested, by_hand))
        np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
        assert found.passes == expected.passes


@pytest.mark.parametrize("k", [0, 1, 2])
def test_grad_cam_of_the_evidence_head_is_the_same_by_gradients(classifier_3, photos, k):
    """The gradient's road, before it is divided by its maximum, times h * w."""
    method = find_method("grad-cam")
    free = method(classifier_3, photos[0], k)
    features, weights, _ = method._weigh(classifier_3, photos[0], k)
    assert free.values.max() > 0.01
    np.testing.assert_allclose(16 * np.maximum((features * weights).sum(axis=-1), 0), free.values, atol=1e-4)
    assert (free.passes, free.in_logits, free.signed) == (1, True, False)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_the_evidence_is_the_shown_map_and_its_mean_the_score(classifier_3, photos, k):
    """The definition of the score is one for the maps and for the logits."""
    prediction = classifier_3.predict(photos[0])
    found = find_method("evidence")(classifier_3, photos[0], k)
    np.testing.assert_array_equal(found.values, heatmaps.shown_map(prediction.evidence, k))
    assert found.values.mean() == pytest.approx(heatmaps.shown_logit(prediction.logits, k), abs=1e-4)
    assert (found.passes, found.in_logits, found.signed) == (1, True, True)


# ---- the feature maps


@pytest.mark.parametrize("head", ["pooled", "flat", "convolved", "evidence", "evidence by a dense layer"])
def test_the_onnx_file_has_the_feature_maps_of_keras(head):
    """Whatever head stands on them, and whichever way ONNX turns them."""
    from keras import layers

    pool, mean = layers.AveragePooling2D(2), layers.GlobalAveragePooling2D()

    def evidence(layer) -> dict:
        return {"logits": mean(layer), "evidence": layer}

    heads = {
        "pooled": lambda x: {"logits": layers.Dense(3)(layers.Dropout(0.2)(mean(x)))},
        "flat": lambda x: {"logits": layers.Dense(3)(layers.Flatten()(pool(x)))},
        "convolved": lambda x: {"logits": layers.Flatten()(layers.Conv2D(3, 8)(x))},
        "evidence": lambda x: evidence(layers.Conv2D(3, 1, use_bias=False)(x)),
        "evidence by a dense layer": lambda x: evidence(layers.Dense(3, use_bias=False)(x)),
    }
    classifier = classifier_of(heads[head], size=8)
    photo = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    onnx = features_of(classifier)(photo)
    keras, _ = feature_gradient(classifier)(photo[None].astype(np.float32), np.zeros(3, np.float32))
    expected = photo / 255 if head != "flat" else (photo / 255).reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(onnx, expected, atol=1e-6)
    np.testing.assert_allclose(keras[0], expected, atol=1e-6)


def test_score_cam_of_the_released_model():
    """64 of its 1,280 feature maps; a cat that fills the photo is found where its evidence is."""
    classifier = ImageClassifier.from_pretrained()
    photo = to_tensor(chelsea(), classifier.image_size)
    assert features_of(classifier)(photo).shape == (7, 7, 1280)
    found = find_method("score-cam")(classifier, photo, 0)
    assert found.passes == 65 and found.values.max() == 1
    evidence = find_method("evidence")(classifier, photo, 0).values
    assert np.corrcoef(found.values.ravel(), evidence.ravel())[0, 1] > 0.9


def test_what_is_kept_of_a_classifier_goes_with_it(bundle_2):
    """Made once for all threads, and forgotten with the classifier."""
    classifier = ImageClassifier.from_pretrained(bundle_2)
    with ThreadPoolExecutor(8) as pool:
        opened = {id(features) for features in pool.map(features_of, [classifier] * 8)}
    assert len(opened) == 1
    forgotten = weakref.ref(features_of(classifier))
    del classifier
    gc.collect()
    assert forgotten() is None


def test_threads_do_not_mix_their_answers(bundle_3, photos):
    """All methods, photos and labels at once on a classifier that nobody has asked before."""
    work = [(name, number, k) for name in METHODS for number in (0, 1) for k in range(3)]

    def explain(classifier: ImageClassifier, name: str, number: int, k: int) -> np.ndarray:
        return METHODS[name](classifier, photos[number], k).values

    alone = ImageClassifier.from_pretrained(bundle_3)
    expected = [explain(alone, *item) for item in work]
    shared = ImageClassifier.from_pretrained(bundle_3)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda item: explain(shared, *item), work))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


# ---- what cannot be


def test_an_unknown_method_is_named_with_the_nearest():
    """All that there are stand behind it."""
    with pytest.raises(UsageError, match="no method gradcam; did you mean grad-cam[?] There are evidence, grad-cam, "):
        find_method("gradcam")


def test_other_arrays_and_labels_are_refused(by_hand, photo):
    """One sentence, whichever the method."""
    with pytest.raises(ImageError, match=r"explains uint8 \(28, 28, 3\); make it with hub.images.to_tensor"):
        find_method("occlusion")(by_hand, photo[:20], 0)
    with pytest.raises(ImageError, match="explains uint8"):
        find_method("layer-cam")(by_hand, photo / 255, 0)
    for k in (-1, 3):
        with pytest.raises(BundleError, match=f"has no label {k}; choose from 0 to 2"):
            find_method("score-cam")(by_hand, photo, k)


def test_a_classic_head_has_no_evidence(by_hand, photo):
    """The sentence comes back when it is asked for, and is raised when nobody asked."""
    sentence = find_method("evidence").lacks(by_hand)
    assert sentence.endswith("has a classic head, which has no evidence; choose occlusion.")
    with pytest.raises(BundleError, match="has no evidence"):
        find_method("evidence")(by_hand, photo, 0)
    assert [name for name, method in METHODS.items() if method.lacks(by_hand)] == ["evidence"]


def test_the_best_method_is_the_cheapest_there_is(by_hand, classifier_3, monkeypatch):
    """Evidence; Grad-CAM where Keras is; occlusion everywhere."""
    assert best_for(classifier_3).name == "evidence"
    assert best_for(by_hand).name == "grad-cam"
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as if it were not installed
    assert best_for(by_hand).name == "occlusion"
    assert best_for(classifier_3).name == "evidence"


@pytest.mark.parametrize("package", ["keras", "tensorflow"])
def test_gradients_need_keras_and_tensorflow(classifier_3, photos, package, monkeypatch):
    """The free Grad-CAM of an evidence head does not."""
    monkeypatch.setitem(sys.modules, package, None)
    for name, title in (("grad-cam++", "Grad-CAM[+][+]"), ("layer-cam", "LayerCAM")):
        with pytest.raises(BundleError, match=f"{title} needs {package}, which is not installed here; pip install "):
            find_method(name)(classifier_3, photos[0], 0)
    assert find_method("grad-cam").lacks(classifier_3) is None


def test_gradients_need_the_keras_file(bundle_2, tmp_path):
    """A folder with the ONNX file alone answers, and says what else it takes."""
    folder = tmp_path / "no-keras"
    shutil.copytree(bundle_2, folder)
    (folder / "model.keras").unlink()
    classifier = ImageClassifier.from_pretrained(folder)
    assert find_method("layer-cam").lacks(classifier) == (
        "LayerCAM needs model.keras, which no-keras lacks; get it too."
    )
    assert find_method("score-cam").lacks(classifier) is None


def test_score_cam_needs_the_onnx_file(bundle_2):
    """Another runtime answers the same, but nobody can look inside."""
    classifier = ImageClassifier.from_pretrained(bundle_2, runtime="keras")
    sentence = find_method("score-cam").lacks(classifier)
    assert sentence.startswith("Score-CAM reads inner values of the ONNX file, and tiny-cats-vs-dogs answers from")
    assert [name for name, method in METHODS.items() if method.lacks(classifier)] == ["score-cam"]


def test_maps_that_cannot_be_told_are_refused():
    """Three channels of three rows and three columns: ONNX does not say which is which."""
    from keras import layers

    classifier = classifier_of(lambda x: {"logits": layers.Dense(2)(layers.Flatten()(x))}, size=3, labels=2)
    sentence = find_method("score-cam").lacks(classifier)
    assert sentence.endswith("has no feature maps that Score-CAM can find; choose occlusion.")
    assert find_method("score-cam").passes(classifier) == 1


def test_a_file_that_only_protobuf_can_read_is_refused(bundle_2, tmp_path):
    """A group, which ONNX never has, and in it what would be a number without end to who does not know groups."""
    folder = tmp_path / "odd"
    shutil.copytree(bundle_2, folder)
    endless = b"\x80" * 10**6
    group = b"\xa3\x06" + b"\xaa\x06" + b"\xc0\x84\x3d" + endless + b"\xa4\x06"  # of field 100, with a field 101
    with (folder / "onnx/model.onnx").open("ab") as file:
        file.write(group)
    classifier = ImageClassifier.from_pretrained(folder)
    assert find_method("score-cam").lacks(classifier).endswith("Score-CAM can find; choose occlusion.")
    assert classifier.predict(np.zeros((32, 32, 3), np.uint8)).evidence is not None


def test_a_photo_is_no_feature_map(tmp_path):
    """Rescaled and normalised pixels into dense layers: no class activation map, and the sentence says so at once."""
    import keras
    from keras import layers

    image = keras.Input((4, 4, 3))
    pixels = layers.BatchNormalization()(layers.Rescaling(1 / 255)(image))
    hidden = layers.Dense(5, activation="relu")(layers.Flatten()(pixels))
    made = ImageClassifier.from_keras(keras.Model(image, layers.Dense(2)(hidden)), ["a", "b"])
    black = np.zeros((4, 4, 3), np.uint8)
    loaded = ImageClassifier.from_pretrained(made.save_pretrained(tmp_path / "model", photos=black[None]))
    for classifier in (made, loaded):
        assert best_for(classifier).name == "occlusion"
        for name in ("grad-cam", "grad-cam++", "layer-cam"):
            with pytest.raises(BundleError, match="has no feature maps before its head; choose occlusion"):
                find_method(name)(classifier, black, 0)
        with pytest.raises(BundleError, match="no feature maps that Score-CAM can find; choose occlusion"):
            find_method("score-cam")(classifier, black, 0)


def test_maps_of_one_cell_are_no_feature_maps():
    """The convolution comes after the pooling."""
    import keras
    from keras import layers

    image = keras.Input((4, 4, 3))
    pooled = layers.Conv2D(2, 1)(layers.GlobalAveragePooling2D(keepdims=True)(image))
    classifier = ImageClassifier.from_keras(keras.Model(image, layers.Flatten()(pooled)), ["a", "b"])
    with pytest.raises(BundleError, match="has no feature maps before its head; choose occlusion"):
        find_method("grad-cam")(classifier, np.zeros((4, 4, 3), np.uint8), 0)
    assert find_method("score-cam").lacks(classifier).endswith("Score-CAM can find; choose occlusion.")


ASKED = """
import sys
import numpy as np
from hub import ImageClassifier
from hub.explain import METHODS, best_for
classifier, photo = ImageClassifier.from_pretrained(sys.argv[1]), np.eye(32, dtype=np.uint8)[..., None].repeat(3, 2)
for name in ("evidence", "grad-cam", "occlusion", "score-cam"):
    METHODS[name](classifier, photo, 1)
print(best_for(classifier).name, METHODS["layer-cam"].lacks(classifier))
print(*{"keras", "tensorflow", "onnx"} & sys.modules.keys())
"""


@pytest.mark.parametrize("told_by", ["environment", "file"])
def test_keras_on_another_backend_is_seen_without_importing_it(bundle_2, tmp_path, told_by):
    """Four methods run and all six are asked about, and neither Keras nor TensorFlow nor onnx is imported."""
    (tmp_path / "keras.json").write_text('{"backend": "torch"}', encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KERAS")}
    environment |= {"KERAS_BACKEND": "jax"} if told_by == "environment" else {"KERAS_HOME": str(tmp_path)}
    command = [sys.executable, "-c", ASKED, str(bundle_2)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    backend = "jax" if told_by == "environment" else "torch"
    sentence = f"LayerCAM needs TensorFlow, and Keras runs on {backend} here; set KERAS_BACKEND=tensorflow."
    assert done.stdout == f"evidence {sentence}\n\n"
