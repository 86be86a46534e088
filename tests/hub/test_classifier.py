"""Answers worked out by hand, one pass for pictures and lists, and no TensorFlow where nobody asks for it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hub import BundleError, ImageClassifier, ImageError
from hub.scores import softmax
from tests.hub_server import HubServer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def classifier(bundle_3) -> ImageClassifier:
    """Three labels: cat, dog and fox."""
    return ImageClassifier.from_pretrained(bundle_3)


@pytest.fixture(scope="module")
def four_pixels() -> ImageClassifier:
    """A model to calculate with: cat's evidence is the red channel in [-1, 1], dog's twice the blue one."""
    import keras
    from keras import layers

    image = keras.Input((2, 2, 3))
    evidence = layers.Conv2D(2, 1, use_bias=False)(layers.Rescaling(1 / 127.5, offset=-1)(image))
    logits = layers.GlobalAveragePooling2D()(evidence)
    model = keras.Model(image, {"logits": logits, "evidence": evidence})
    model.layers[2].set_weights([np.array([[1, 0], [0, 0], [0, 2]], np.float32)[None, None]])
    return ImageClassifier.from_keras(model, ["cat", "dog"])


def test_four_pixels_by_hand(four_pixels):
    """Red, blue, white and yellow: cat 1 - 1 + 1 + 1, dog 2 * (-1 + 1 + 1 - 1), each over four cells."""
    pixels = np.array([[[255, 0, 0], [0, 0, 255]], [[255, 255, 255], [255, 255, 0]]], np.uint8)
    prediction = four_pixels.predict(pixels)
    np.testing.assert_allclose(prediction.evidence[..., 0], [[1, -1], [1, 1]], atol=1e-6)
    np.testing.assert_allclose(prediction.evidence[..., 1], [[-2, 2], [2, -2]], atol=1e-6)
    np.testing.assert_allclose(prediction.logits, [0.5, 0], atol=1e-6)
    np.testing.assert_allclose(prediction.probabilities, [0.62246, 0.37754], atol=1e-5)  # 1 / (1 + e^-0.5)
    assert prediction.label == "cat"
    assert four_pixels(pixels, top_k=1) == [{"label": "cat", "score": pytest.approx(0.62246, abs=1e-5)}]


def test_softmax_by_hand():
    """log 3 against 0 is three to one; large logits do not overflow."""
    np.testing.assert_allclose(softmax(np.array([0, np.log(3)])), [0.25, 0.75], rtol=1e-7)
    np.testing.assert_array_equal(softmax(np.array([[1e4, 0], [-1e4, 0]], np.float32)), [[1, 0], [0, 1]])


def test_prediction_adds_up(classifier, photos):
    """Evidence averages to the logits, probabilities sum to one, the label is the most probable one."""
    for prediction in classifier.predict(list(photos)):
        assert prediction.evidence.shape == (4, 4, 3)
        assert {array.dtype for array in (prediction.evidence, prediction.logits, prediction.probabilities)} == {
            np.dtype("float32")
        }
        np.testing.assert_allclose(prediction.evidence.mean(axis=(0, 1)), prediction.logits, atol=1e-5)
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-6)
        assert prediction.label == ["cat", "dog", "fox"][prediction.probabilities.argmax()]


def test_same_answer_as_keras(classifier, model_3, photos):
    """The derived format says what the source of truth says."""
    logits, evidence = classifier.predict_tensors(photos)
    expected = model_3(photos.astype(np.float32), training=False)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4)
    np.testing.assert_allclose(evidence, expected["evidence"], atol=1e-4)


def test_a_list_answers_as_its_pictures_do(classifier, photos):
    """40 pictures (more than a batch) of mixed kinds, in their order."""
    png = io.BytesIO()
    Image.fromarray(photos[1]).save(png, "PNG")
    mixed = [Image.fromarray(photos[0]), png.getvalue(), photos[2] / 255, *photos[3:]]
    together = classifier.predict(mixed)
    assert len(together) == 40
    logits, evidence = classifier.predict_tensors(photos)
    np.testing.assert_allclose([prediction.logits for prediction in together], logits, atol=1e-5)
    np.testing.assert_allclose([prediction.evidence for prediction in together], evidence, atol=1e-5)
    for index in (0, 1, 2, 39):
        np.testing.assert_allclose(classifier.predict(mixed[index]).logits, logits[index], atol=1e-5)


def test_answers_like_a_transformers_pipeline(classifier, photos):
    """A list of label and score, best first; a list of such for a list, however short."""
    one = classifier(photos[0])
    assert [sorted(row) for row in one] == [["label", "score"]] * 3
    assert sorted(row["label"] for row in one) == ["cat", "dog", "fox"]
    scores = [row["score"] for row in one]
    assert scores == sorted(scores, reverse=True)
    assert all(type(score) is float for score in scores)
    assert one[0]["label"] == classifier.predict(photos[0]).label
    assert classifier([photos[0]]) == [one]
    assert classifier((photos[0],), top_k=2) == [one[:2]]
    assert classifier(photos[0], top_k=None) == classifier(photos[0], top_k=99) == one
    json.dumps(one)


def test_nothing_in_nothing_out(classifier, photos):
    """An empty list is a list."""
    assert classifier([]) == classifier.predict([]) == []
    logits, evidence = classifier.predict_tensors(photos[:0])
    assert logits.shape == (0, 3)
    assert evidence.shape == (0, 4, 4, 3)


def test_batch_size_changes_nothing(classifier, photos):
    """Nor does what else is in the batch."""
    np.testing.assert_allclose(
        classifier.predict_tensors(photos, batch_size=7)[0], classifier.predict_tensors(photos)[0], atol=1e-5
    )


def test_an_unreadable_picture_is_one_sentence(classifier, photos):
    """Alone and in a list."""
    for images in (b"no picture", [photos[0], b"no picture"]):
        with pytest.raises(ImageError) as refusal:
            classifier.predict(images)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "change", [lambda p: p.astype(np.float32), lambda p: p[:, :16], lambda p: p[0], lambda p: p[..., :1]]
)
def test_tensors_of_another_kind_are_refused(classifier, photos, change):
    """Never silently scaled or broadcast."""
    with pytest.raises(ImageError, match=r"takes uint8 \(N, 32, 32, 3\)"):
        classifier.predict_tensors(change(photos))


def test_broken_weights_give_no_answer(model_2, photos):
    """NaN is no probability."""
    import keras

    broken = keras.models.clone_model(model_2)
    broken.get_layer("evidence").set_weights([np.full((1, 1, 24, 2), np.nan)])
    with pytest.raises(BundleError, match="NaN"):
        ImageClassifier.from_keras(broken, ["cat", "dog"]).predict(photos[0])


def test_a_classic_head_has_no_map(tmp_path, model_2, photos):
    """Logits alone: the answer is the same, the evidence None; saved and loaded too."""
    import keras

    classic = keras.Model(model_2.input, {"logits": model_2.output["logits"]})
    classifier = ImageClassifier.from_keras(classic, ["cat", "dog"])
    classifier.save_pretrained(tmp_path / "classic", photos=photos)
    loaded = ImageClassifier.from_pretrained(tmp_path / "classic")
    with_map = ImageClassifier.from_keras(model_2, ["cat", "dog"]).predict(photos[0])
    for prediction in (classifier.predict(photos[0]), loaded.predict(photos[0])):
        assert prediction.evidence is None
        np.testing.assert_allclose(prediction.logits, with_map.logits, atol=1e-5)
    assert "evidence" not in json.loads((tmp_path / "classic" / "metrics.json").read_text())["agreement"]
    assert loaded.evidence_scale is None


def test_from_keras_writes_the_config_down(model_2):
    """Labels, size, grid, scale and what the caller adds."""
    classifier = ImageClassifier.from_keras(
        model_2, ["cat", "dog"], evidence_scale=2.5, model_type="tiny", backbone={"name": "none"}
    )
    assert classifier.labels == ["cat", "dog"]
    assert classifier.image_size == 32
    assert classifier.evidence_scale == 2.5
    assert classifier.folder is None
    assert classifier.config.evidence.grid == (4, 4)
    assert classifier.config.model_type == "tiny"
    assert classifier.config.backbone.name == "none"
    content = classifier.config.to_json()
    assert content["id2label"] == {"0": "cat", "1": "dog"}
    assert content["label2id"] == {"cat": 0, "dog": 1}
    assert classifier.to_keras() is model_2


def test_the_scale_can_be_set_when_it_is_known(model_2, tmp_path, photos):
    """Training converts first and measures the scale on the answers; it is saved, and must be a number."""
    classifier = ImageClassifier.from_keras(model_2, ["cat", "dog"])
    assert classifier.evidence_scale is None
    classifier.set_evidence_scale(np.float32(2.5))
    assert classifier.evidence_scale == 2.5
    folder = classifier.save_pretrained(tmp_path / "model", photos=photos[:1])
    assert ImageClassifier.from_pretrained(folder).evidence_scale == 2.5
    with pytest.raises(BundleError, match="not a positive number"):
        classifier.set_evidence_scale(0)
    assert classifier.evidence_scale == 2.5


def test_from_keras_refuses_what_it_cannot_carry(model_2):
    """Outputs of other names, labels that are too many or the same, keys that Keras would trip over."""
    import keras

    other = keras.Model(model_2.input, {"scores": model_2.output["logits"]})
    with pytest.raises(BundleError, match="must return"):
        ImageClassifier.from_keras(other, ["cat", "dog"])
    with pytest.raises(BundleError, match="logits"):
        ImageClassifier.from_keras(model_2, ["cat", "dog", "fox"])
    with pytest.raises(BundleError, match="same name"):
        ImageClassifier.from_keras(model_2, ["cat", "cat"])
    with pytest.raises(BundleError, match="belongs to Keras"):
        ImageClassifier.from_keras(model_2, ["cat", "dog"], class_name="Functional")


FRESH = """
import sys
import hub
assert not {"onnxruntime", "huggingface_hub"} & sys.modules.keys(), "import hub is not light"
classifier = hub.ImageClassifier.from_pretrained(sys.argv[1])
prediction = classifier.predict(sys.argv[2])
classifier.save_pretrained(sys.argv[3])
heavy = {"tensorflow", "keras", "tf2onnx", "onnx", "torch", "gradio", "datasets", "pandas", "matplotlib", "sklearn"}
print(prediction.label, sorted(heavy & sys.modules.keys()))
"""


def test_answering_and_saving_again_never_import_tensorflow(bundle_2, photos, tmp_path):
    """A downloader's process: import, load, predict, save a copy."""
    Image.fromarray(photos[0]).save(tmp_path / "photo.png")
    command = [sys.executable, "-c", FRESH, bundle_2, tmp_path / "photo.png", tmp_path / "copy"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "dog []\n", done.stderr


# ---- names


@pytest.mark.parametrize("name", ["./models/foo", "/nowhere/foo", "../foo", "~/foo/bar", "a/b/c", "a\\b", Path("foo")])
def test_a_mistyped_path_is_not_looked_up_on_the_hub(name):
    """One sentence that names it."""
    with pytest.raises(BundleError, match="There is no folder") as refusal:
        ImageClassifier.from_pretrained(name)
    assert str(name) in str(refusal.value)


def test_a_file_is_not_a_folder(bundle_2):
    """The remedy is the folder it lies in."""
    with pytest.raises(BundleError, match="is a file; name its folder"):
        ImageClassifier.from_pretrained(bundle_2 / "config.json")


@pytest.mark.parametrize("name", ["models/foo", "foo", "no one/foo", "a--b/c", ""])
def test_an_unknown_name_is_one_sentence(name, tmp_path):
    """With no network: what is not in the cache is not there."""
    with pytest.raises(BundleError) as refusal:
        ImageClassifier.from_pretrained(name, cache_dir=tmp_path, local_files_only=True)
    assert "\n" not in str(refusal.value)
    assert "check" in str(refusal.value)


DOWNLOAD = """
import sys
from pathlib import Path
import numpy as np
import hub
from hub import remote
bundle, cache, copy = sys.argv[1:]
remote.push(Path(bundle), "tester/tiny")
classifier = hub.ImageClassifier.from_pretrained("tester/tiny", cache_dir=cache)
print(classifier.name, classifier.predict(np.zeros((2, 2), np.uint8)).label, sorted(
    path.relative_to(classifier.folder).as_posix() for path in classifier.folder.rglob("*.*")))
for name in ("tester/else", "tester/tiny"):
    try:
        hub.ImageClassifier.from_pretrained(name, cache_dir=cache, local_files_only=name.endswith("tiny"))
        print("from the cache")
    except hub.BundleError as error:
        print(error)
classifier.save_pretrained(copy)
"""


def test_a_hub_name_fetches_only_what_answers_need(bundle_2, tmp_path):
    """What else there is stays there until the model is saved; a second time all comes from the cache."""
    with HubServer() as hub:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path),
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": "hf_writer",
            "NO_PROXY": "127.0.0.1",
            "PATH": "",
        }
        command = [sys.executable, "-c", DOWNLOAD, str(bundle_2), str(tmp_path / "cache"), str(tmp_path / "copy")]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded, refusal, again = done.stdout.splitlines()
    assert loaded == "tester/tiny cat ['config.json', 'onnx/model.onnx']"
    assert refusal.startswith("There is no folder tester/else, and no such model was found on the Hub")
    assert again == "from the cache"
    served = [line.split("/", 5)[5] for line in hub.log if line.startswith("GET /tester/tiny/resolve/")]
    assert sorted(served) == ["README.md", "config.json", "metrics.json", "model.keras", "onnx/model.onnx"]
    assert (tmp_path / "copy" / "model.keras").read_bytes() == (bundle_2 / "model.keras").read_bytes()
