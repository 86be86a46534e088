"""Other tools' models: what is named as a model is recognised, and what can be made a bundle is made one."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from typer.testing import CliRunner

from hub import BundleError, ImageClassifier
from hub.cli import app
from hub.drawn import drawn
from hub.formats import h5

SIDE = 8


def teachable(folder: Path) -> keras.Model:
    """Write a folder as Teachable Machine exports it, with a smaller network in it, and return the model."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(image)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Add()([x, layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)])
    features = keras.Sequential([keras.Model(image, x, name="mobilenet"), layers.GlobalAveragePooling2D()])
    head = keras.Sequential([keras.Input((4,)), layers.Dense(5, "relu"), layers.Dense(2, "softmax", use_bias=False)])
    model = keras.Sequential([features, head])
    model(np.zeros((1, SIDE, SIDE, 3)))
    folder.mkdir()
    model.save(folder / "keras_model.h5")
    with h5py.File(folder / "keras_model.h5", "r+") as file:
        config = as_keras_2(json.loads(file.attrs["model_config"]))
        for nested in (config, config["config"]["layers"][1]):  # Keras 2 begins these with their first layer
            del nested["config"]["layers"][0]
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.4.0"
    (folder / "labels.txt").write_text("0 Cat\n1 Big dog\n", encoding="utf-8")
    return model


def as_keras_2(config):
    """Rewrite a config of Keras 3 in the form of Keras 2."""
    if isinstance(config, list):
        return [as_keras_2(value) for value in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return "float32"
    dropped = ("module", "registered_name", "build_config")
    config = {key: as_keras_2(value) for key, value in config.items() if key not in dropped}
    if "batch_shape" in config:
        config["batch_input_shape"] = config.pop("batch_shape")
    if config.get("class_name") == "DepthwiseConv2D":
        config["config"]["groups"] = 1
    if isinstance(config.get("inbound_nodes"), list):
        config["inbound_nodes"] = [
            [[*each, {}] for each in histories(node["args"])] for node in config["inbound_nodes"]
        ]
    return config


def histories(value) -> list:
    """The tensors that a call of Keras 3 was given."""
    if isinstance(value, dict):
        return [value["keras_history"]] if "keras_history" in value else histories(list(value.values()))
    return [found for each in value for found in histories(each)] if isinstance(value, list) else []


def run(*arguments, code: int = 0) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_the_command_that_the_sentence_names_takes_teachable_machine_s_folder(tmp_path):
    """Named as a model it is refused; the sentence's own command makes a bundle of the same answers."""
    model = teachable(tmp_path / "my model")
    pictures = drawn(5, SIDE)
    with pytest.raises(BundleError, match="is a model of Teachable Machine") as refusal:
        ImageClassifier.from_pretrained(tmp_path / "my model")
    told = shlex.split(str(refusal.value).split("`")[1])
    assert told[:4] == ["python", "-m", "hub", "import"]
    out = tmp_path / "bundle"
    said = run(*[str(out) if each == "NEW_FOLDER" else each for each in told[3:]])
    assert "Cat, Big dog, 8 pixels" in said
    classifier = ImageClassifier.from_pretrained(out)
    expected = np.asarray(model(pictures / np.float32(127.5) - 1))
    found = [prediction.probabilities for prediction in classifier.predict(list(pictures))]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert "On 64 pictures" in (out / "README.md").read_text(encoding="utf-8")


def test_a_keras_file_wants_labels_and_pixels(tmp_path):
    """Both are asked for in one sentence each; then the file is taken, and so is Keras 3's own .h5."""
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.GlobalAveragePooling2D()(image)
    model = keras.Model(image, layers.Dense(1, "sigmoid", bias_initializer="ones")(x))
    model.save(tmp_path / "cats.keras")
    model.save(tmp_path / "cats.h5")
    (tmp_path / "labels.txt").write_text("cat\ndog\n", encoding="utf-8")
    with pytest.raises(
        BundleError, match=r"cats.keras is a Keras model, not a bundle yet; make one with `python -m hub"
    ):
        ImageClassifier.from_pretrained(tmp_path / "cats.keras")
    labels = ["--labels", tmp_path / "labels.txt"]
    assert "does not name its labels" in run("import", tmp_path / "cats.keras", tmp_path / "out", code=2)
    assert "give --pixels" in run("import", tmp_path / "cats.keras", tmp_path / "out", *labels, code=2)
    assert not (tmp_path / "out").exists()
    expected = np.asarray(model(drawn(3, SIDE) / np.float32(255)))[:, 0]
    run("import", tmp_path / "cats.h5", tmp_path / "out", *labels, "--pixels", "0..1")
    found = [
        prediction.probabilities[1]
        for prediction in ImageClassifier.from_pretrained(tmp_path / "out").predict(list(drawn(3, SIDE)))
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_code_in_an_h5_file_does_not_run(tmp_path):
    """A lambda layer of Keras 2, a class that is no layer, weights alone, and a link to another file."""
    teachable(tmp_path / "model")
    path = tmp_path / "model" / "keras_model.h5"
    content = path.read_bytes()

    def changed(change) -> Path:
        path.write_bytes(content)
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    def with_layer(entry: dict):
        def change(file):
            config = json.loads(file.attrs["model_config"])
            config["config"]["layers"].insert(0, entry)
            file.attrs["model_config"] = json.dumps(config)

        return change

    for entry, words in (
        ({"class_name": "Lambda", "config": {"name": "x", "function": ["4wE", None, None]}}, "Lambda layer"),
        ({"class_name": "os>system", "config": {}}, "not one of Keras's own"),
        ({"class_name": "Dense", "module": "builtins", "config": {}}, "not one of Keras's own"),
        ({"class_name": "Dense", "registered_name": "mine>Dense", "config": {}}, "not one of Keras's own"),
        ({"class_name": "Dense", "config": {"units": 2, "activation": "mine>f"}}, "activation .* is not Keras's own"),
    ):
        with pytest.raises(BundleError, match=words):
            h5.load(changed(with_layer(entry)))
    with pytest.raises(BundleError, match="holds weights without a model"):
        h5.load(changed(lambda file: file.attrs.pop("model_config")))
    with pytest.raises(BundleError, match="a link to elsewhere"):
        h5.load(changed(lambda file: file.__setitem__("elsewhere", h5py.ExternalLink("other.h5", "/"))))
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 2000)
    assert "cannot be loaded" in run("import", path.parent, tmp_path / "out", code=2)


OTHERS = {
    "saved": (["saved_model.pb", "variables/variables.index"], "is a SavedModel.* cannot be used here"),
    "teachable savedmodel": (
        ["model.savedmodel/saved_model.pb", "labels.txt"],
        "is a SavedModel.* cannot be used here",
    ),
    "tfjs": (["model.json", "metadata.json", "weights.bin"], "for TensorFlow.js, which cannot be used here"),
    "litert": (
        ["model_unquant.tflite", "labels.txt"],
        "holds model_unquant.tflite, a LiteRT file, which cannot be used",
    ),
    "torch": (["model.pt"], "weights for PyTorch, which cannot be used here"),
    "safetensors": (["model.safetensors"], "weights for PyTorch, which cannot be used here"),
    "fastai": (["export.pkl"], "a pickle, which can run code"),
    "keras": (
        ["flowers.keras"],
        "holds the Keras model flowers.keras, not a bundle; make one with `python -m hub import",
    ),
    "photos": (["1.jpg"], "has no config.json, so it is not a model"),
    "bundle": (["model.keras", "onnx/model.onnx"], "has no config.json, so it is not a model"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_tools_folders_are_known(kind, tmp_path):
    """One sentence each, and the file alone gets one too."""
    names, words = OTHERS[kind]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"0")
    with pytest.raises(BundleError, match=words) as refusal:
        ImageClassifier.from_pretrained(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.tflite", "LiteRT file"), ("a.pth", "PyTorch"), ("a.onnx", "ONNX file alone"), ("a.jpg", "is a file")],
)
def test_other_tools_files_are_known(name, words, tmp_path):
    """By their ending."""
    (tmp_path / name).write_bytes(b"0")
    with pytest.raises(BundleError, match=words):
        ImageClassifier.from_pretrained(tmp_path / name)


def test_a_transformers_folder_is_known(tmp_path):
    """By the words of its config.json; a published bundle, which has some of them too, is none."""
    config = {"architectures": ["ViTForImageClassification"], "model_type": "vit", "id2label": {"0": "a", "1": "b"}}
    (tmp_path / "config.json").write_text(json.dumps({**config, "image_size": 224}), encoding="utf-8")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"0")
    with pytest.raises(
        BundleError, match=r"a Transformers model \(ViTForImageClassification\), which cannot be used here"
    ):
        ImageClassifier.from_pretrained(tmp_path)
