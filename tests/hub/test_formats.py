"""Every format written of tiny models, run against Keras, and refused where it is not what it claims to be."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hub import BundleError, ImageClassifier, UsageError, bundle, safety
from hub.config import make_config, merge, read_config, without_foreign_keys
from hub.formats import FORMATS, Source, find_format
from hub.formats.transformers import MobileNet, find_mobilenet
from hub.scores import softmax

RUN_HERE = ["keras", "keras-folder", "onnx", "litert", "openvino"]
WRITTEN = [*RUN_HERE, "coreml", "h5"]
TOLERANCE = 1e-4  # in probability and in evidence, which reaches 20 here
KINDS = [pytest.param("two", marks=pytest.mark.long), "three", "without evidence"]


def stage(classifier: ImageClassifier, source: Path, out: Path, names: list[str]) -> Path:
    """What a push would stage of some formats."""
    shutil.copytree(source / "onnx", out / "onnx")
    shutil.copy(source / bundle.KERAS, out)
    config = classifier.config.to_json()
    written = Source(classifier.labels, classifier.image_size, classifier.to_keras)
    for name in names:
        FORMATS[name].write(written, out)
        config = merge(config, FORMATS[name].config(out), FORMATS[name].title)
    bundle.write_json(out, bundle.CONFIG, config)
    return out


class Staged(dict):
    """For each kind of model: it, its classifier, and a folder with every format that suits it; made when asked for."""

    def __init__(self, make):
        self._make = make

    def __missing__(self, kind: str):
        self[kind] = self._make(kind)
        return self[kind]


@pytest.fixture(scope="module")
def staged(tmp_path_factory, model_2, model_3, photos):
    """The tiny models, staged."""

    def make(kind: str):
        import keras

        model = model_3 if kind == "three" else model_2
        if kind == "without evidence":
            model = keras.Model(model.input, {"logits": model.output["logits"]}, name="plain")
        labels = ["cat", "dog", "fox"][: model.output["logits"].shape[1]]
        classifier = ImageClassifier.from_keras(model, labels)
        source = classifier.save_pretrained(tmp_path_factory.mktemp("saved") / "model", photos=photos)
        names = [name for name in WRITTEN if name != "coreml" or kind != "two"]  # it takes longest
        return model, classifier, stage(classifier, source, tmp_path_factory.mktemp("staged"), names)

    return Staged(make)


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory, photos):
    """A narrow MobileNetV2 for 32 pixels under our head, no weight of it at 0 or 1, staged for Transformers."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3), name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1, name="rescaling")(image)
    body = keras.applications.MobileNetV2(alpha=0.35, include_top=False, weights=None, input_tensor=scaled)
    evidence = keras.layers.Conv2D(3, 1, name="evidence")(keras.layers.Dropout(0.2)(body.output))
    logits = keras.layers.GlobalAveragePooling2D(name="logits")(evidence)
    model = keras.Model(image, {"logits": logits, "evidence": evidence}, name="narrow")
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0  # takes over the statistics of one batch whole, or answers would hardly depend on photos
    model(photos.astype(np.float32), training=True)
    rng = np.random.default_rng(0)
    for layer in norms:  # scales below 1, since what one layer rounds, 52 random ones enlarge
        layer.momentum = 0.999
        layer.gamma.assign(rng.uniform(0.8, 1.1, layer.gamma.shape))
        layer.beta.assign(rng.uniform(-0.5, 0.5, layer.beta.shape))
    model.get_layer("evidence").bias.assign([0.3, -0.2, 0.1])
    classifier = ImageClassifier.from_keras(model, ["cat", "dog", "fox"])
    source = classifier.save_pretrained(tmp_path_factory.mktemp("saved") / "model", photos=photos)
    folder = stage(classifier, source, tmp_path_factory.mktemp("staged"), ["keras-folder", "transformers"])
    assert np.ptp(softmax(classifier.predict_tensors(photos)[0])[:, 0]) > 100 * TOLERANCE  # else agreeing is no feat
    return model, classifier, folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory, photos) -> Path:
    path = tmp_path_factory.mktemp("picture") / "photo.jpg"
    Image.fromarray(photos[0]).resize((100, 80)).save(path)
    return path


def differences(model, logits, evidence, photos) -> list[float]:
    """Largest difference to Keras, in probability and in evidence."""
    expected = {name: np.asarray(value) for name, value in model(photos.astype(np.float32)).items()}
    pairs = [(softmax(logits), softmax(expected["logits"]))]
    if "evidence" in expected:
        pairs.append((evidence, expected["evidence"]))
    return [float(np.abs(ours - theirs).max()) for ours, theirs in pairs]


# ---------------------------------------------------------------- what is written


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RUN_HERE)
def test_a_runtime_computes_what_keras_does(staged, photos, name, kind):
    model, classifier, folder = staged[kind]
    logits, evidence = FORMATS[name].start(folder, classifier.config)(photos)
    assert logits.shape == (40, len(classifier.labels)) and logits.dtype == np.float32
    assert (evidence is None) == (kind == "without evidence")
    assert max(differences(model, logits, evidence, photos)) < TOLERANCE


@pytest.mark.parametrize("name", WRITTEN)
def test_a_second_write_gives_the_same_bytes(staged, tmp_path, name):
    # Loaded from its folder, the model is another object than the one that was written first.
    _, _, folder = staged["three"]
    again = stage(ImageClassifier.from_pretrained(folder), folder, tmp_path / "again", [name])
    for file in FORMATS[name].files:
        assert (again / file).read_bytes() == (folder / file).read_bytes(), file


@pytest.mark.parametrize("name", RUN_HERE)
def test_a_picture_is_read_as_the_libraries_users_read_it(staged, picture, name):
    _, classifier, folder = staged["three"]
    runner = FORMATS[name].start(folder, classifier.config)
    photo = np.asarray(Image.open(picture).resize((32, 32), Image.Resampling.BILINEAR))
    assert runner.read(picture) == pytest.approx(softmax(runner(photo[None])[0][0]), abs=1e-5)


@pytest.mark.parametrize("name", [name for name, one in FORMATS.items() if one.runs and name != "transformers.js"])
def test_a_snippet_is_python_and_names_the_repository(bundle_3, name):
    code = FORMATS[name].snippet(read_config(bundle_3), "me/model")
    ast.parse(code)
    assert "me/model" in code and "photo.jpg" in code and "\n\n\n" not in code


@pytest.mark.parametrize("name", ["litert", "openvino", "onnx"])
def test_a_broken_file_is_refused_in_one_sentence(staged, tmp_path, name):
    _, classifier, folder = staged["three"]
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / FORMATS[name].files[0]).write_bytes(b"nothing of the kind")
    with pytest.raises(BundleError, match="cannot be opened .*; export (it|them) again"):
        FORMATS[name].start(broken, classifier.config)
    (broken / FORMATS[name].files[0]).unlink()
    with pytest.raises(BundleError, match="has no "):
        FORMATS[name].start(broken, classifier.config)


def test_litert_for_another_size_is_refused(staged):
    _, classifier, folder = staged["three"]
    with pytest.raises(BundleError, match=r"should turn image \[-1, 64, 64, 3\] into logits"):
        FORMATS["litert"].start(folder, replace(classifier.config, image_size=64))


def test_litert_takes_a_model_whose_input_has_another_name(model_2, photos):
    import keras

    from hub.formats.litert import LiteRTRunner, to_litert

    pixels = keras.Input((32, 32, 3), name="pixels")
    content = to_litert(keras.Model(pixels, model_2(pixels)))
    answer = LiteRTRunner(content, make_config(["cat", "dog"], 32, None), "It")(photos)
    assert max(differences(model_2, *answer, photos)) < TOLERANCE


def test_openvino_leaves_no_trace_in_the_home_folder(tmp_path):
    code = "from hub.formats.openvino import _openvino; _openvino().Core()"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- what is written and not run here


@pytest.mark.parametrize("kind", ["three", "without evidence"])
@pytest.mark.parametrize("name", ["coreml", "h5"])
def test_the_structure_is_that_of_the_model(staged, name, kind):
    _, classifier, folder = staged[kind]
    FORMATS[name].check(folder, classifier.config)
    with pytest.raises(BundleError, match="does not answer in Python"):
        FORMATS[name].start(folder, classifier.config)


@pytest.mark.parametrize("name", ["coreml", "h5"])
def test_another_models_file_is_refused(staged, tmp_path, name):
    _, classifier, folder = staged["without evidence"]
    _, _, other = staged["three"]
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    for file in FORMATS[name].files:
        shutil.copy(other / file, mixed / file)
    with pytest.raises(BundleError, match="export it again"):
        FORMATS[name].check(mixed, classifier.config)
    (mixed / FORMATS[name].files[1 if name == "coreml" else 0]).write_bytes(b"nothing of the kind")
    with pytest.raises(BundleError, match="is not what .* writes"):
        FORMATS[name].check(mixed, classifier.config)


def test_core_ml_without_all_its_weights_is_refused(staged, tmp_path):
    from hub.formats.coreml import WEIGHTS

    _, classifier, folder = staged["without evidence"]
    cut = shutil.copytree(folder, tmp_path / "cut")
    (cut / WEIGHTS).write_bytes((cut / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(BundleError, match="holds 1000 bytes of weights instead of"):
        FORMATS["coreml"].check(cut, classifier.config)


def test_core_ml_takes_a_photo_and_names_its_outputs_and_labels(staged):
    import coremltools

    _, _, folder = staged["three"]
    model = coremltools.models.MLModel(str(folder / "coreml/model.mlpackage"), skip_model_load=True)
    described = model.get_spec().description
    assert [(port.name, port.type.WhichOneof("Type")) for port in described.input] == [("image", "imageType")]
    assert {port.name for port in described.output} == {"logits", "evidence"}
    assert json.loads(model.user_defined_metadata["labels"]) == ["cat", "dog", "fox"]


@pytest.mark.parametrize("kind", ["three", "without evidence"])
def test_keras_itself_loads_the_legacy_file(staged, photos, kind):
    import keras

    model, _, folder = staged[kind]
    answer = keras.saving.load_model(folder / "model.h5", compile=False)(photos.astype(np.float32))
    assert max(differences(model, np.asarray(answer["logits"]), answer.get("evidence"), photos)) == 0


# ---------------------------------------------------------------- Transformers


@pytest.mark.long
def test_transformers_takes_over_every_weight(mobilenet):
    from safetensors.numpy import load_file

    model, _, folder = mobilenet
    state = load_file(folder / "model.safetensors")
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert len(counters) == 52 and all(state.pop(name).shape == () for name in counters)
    assert sum(value.size for value in state.values()) == model.count_params()
    assert state["mobilenet_v2.conv_stem.first_conv.convolution.weight"].shape == (16, 3, 3, 3)
    assert state["mobilenet_v2.layer.0.conv_3x3.convolution.weight"].shape == (48, 1, 3, 3)
    assert state["mobilenet_v2.conv_1x1.convolution.weight"].shape == (1280, 112, 1, 1)
    kernel, bias = model.get_layer("evidence").get_weights()
    assert (state["classifier.weight"] == kernel[0, 0].T).all() and (state["classifier.bias"] == bias).all()
    gamma, *_, variance = model.get_layer("block_16_depthwise_BN").get_weights()
    assert (state["mobilenet_v2.layer.15.conv_3x3.normalization.weight"] == gamma).all()
    assert (state["mobilenet_v2.layer.15.conv_3x3.normalization.running_var"] == variance).all()


@pytest.mark.long
def test_one_config_serves_three_libraries(mobilenet):
    _, classifier, folder = mobilenet
    config = bundle.read_json(folder, bundle.CONFIG)
    assert without_foreign_keys(config) == {**classifier.config.to_json(), "model_type": "mobilenet_v2"}
    assert config["class_name"] == "Functional" and config["depth_multiplier"] == 0.35
    read = bundle.read_json(folder, "preprocessor_config.json")
    assert read["size"] == {"height": 32, "width": 32} and not read["do_center_crop"]
    with pytest.raises(BundleError, match="config.json has a hidden_act that Transformers would misread"):
        merge({"hidden_act": "swish"}, FORMATS["transformers"].config(folder), "Transformers")


@pytest.mark.long
def test_transformers_files_are_the_same_bytes_again(mobilenet, tmp_path):
    _, _, folder = mobilenet
    again = stage(ImageClassifier.from_pretrained(folder), folder, tmp_path / "again", ["transformers"])
    for file in FORMATS["transformers"].files:
        assert (again / file).read_bytes() == (folder / file).read_bytes(), file


def test_an_architecture_that_transformers_lacks_is_said_to_be_one(bundle_2):
    assert FORMATS["transformers"].lacks(bundle_2) == "Transformers has no model of this architecture"
    assert FORMATS["transformers.js"].lacks(bundle_2) == "transformers.js has no model of this architecture"


CHANGES = {
    "another activation": ("block_3_expand_relu", {"max_value": 4.0}),
    "another epsilon": ("bn_Conv1", {"epsilon": 1e-5}),
    "another stride": ("block_6_depthwise", {"strides": [1, 1]}),
    "another padding": ("block_6_pad", {"padding": [[1, 1], [1, 1]]}),
    "another width": ("block_4_project", {"filters": 24}),
    "another scaling": ("rescaling", {"scale": 1 / 255}),
    "a nonlinear head": ("evidence", {"activation": "relu"}),
    "another layer": ("block_8_add", {"name": "block_8_sum"}),
}


@pytest.mark.long
@pytest.mark.parametrize("change", CHANGES)
def test_a_mobilenet_with_one_layer_set_otherwise_is_none(mobilenet, change):
    _, _, folder = mobilenet
    config = safety.keras_config(folder / bundle.KERAS)
    assert find_mobilenet(config) == MobileNet(0.35, "evidence")
    name, settings = CHANGES[change]
    layers = {layer["config"]["name"]: layer for layer in config["config"]["layers"]}
    layers[name]["config"].update(settings)
    assert find_mobilenet(config) is None


@pytest.mark.long
def test_a_mobilenet_connected_otherwise_is_none(mobilenet):
    _, _, folder = mobilenet
    text = json.dumps(safety.keras_config(folder / bundle.KERAS))
    assert find_mobilenet(json.loads(text.replace('["block_7_add", 0, 0]', '["block_7_project_BN", 0, 0]'))) is None
    for nothing in ({}, {"config": {}}, {"config": {"layers": []}}, {"config": {"layers": [{"config": {}}]}}):
        assert find_mobilenet(nothing) is None


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(("alpha", "size"), [(0.35, 96), (1.0, 75)])
def test_widths_sizes_and_heads_are_recognised(alpha, size, dense):
    import keras

    image = keras.Input((size, size, 3))
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    body = keras.applications.MobileNetV2(alpha=alpha, include_top=False, weights=None, input_tensor=scaled)
    pooled = keras.layers.GlobalAveragePooling2D()
    if dense:
        logits = keras.layers.Dense(2, name="head")(pooled(body.output))
    else:
        logits = pooled(keras.layers.Conv2D(2, 1, name="head")(body.output))
    model = keras.Model(image, {"logits": logits})
    config = keras.saving.serialize_keras_object(model)
    assert find_mobilenet(json.loads(json.dumps(config))) == MobileNet(alpha, "head")


# ---------------------------------------------------------------- a process of its own


def ask(folder: Path, name: str, photos, picture: Path, aside: Path, where: str | None = None):
    np.save(aside / "tensors.npy", photos)
    return FORMATS[name].answer(folder, aside / "tensors.npy", [picture, picture], where)


def test_a_worker_answers_for_tensors_and_files(staged, photos, picture, tmp_path):
    import onnxruntime

    model, classifier, folder = staged["three"]
    answers = ask(folder, "onnx", photos, picture, tmp_path)
    assert max(differences(model, answers.logits, answers.evidence, photos)) < TOLERANCE
    assert answers.versions == {"onnxruntime": onnxruntime.__version__}
    runner = FORMATS["onnx"].start(folder, classifier.config)
    assert answers.files == pytest.approx(np.stack([runner.read(picture)] * 2))


def test_a_failing_worker_gives_its_last_line(staged, photos, picture, tmp_path):
    _, _, folder = staged["three"]
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / bundle.ONNX).write_bytes(b"nothing of the kind")
    with pytest.raises(BundleError, match="ONNX Runtime failed .*cannot be opened"):
        ask(broken, "onnx", photos, picture, tmp_path)


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    assert FORMATS["onnx"].missing(None) == []
    monkeypatch.setattr(type(FORMATS["onnx"]), "modules", ("onnxruntime", "no_such_module"))
    assert FORMATS["onnx"].missing(sys.executable) == ["no_such_module"]
    with pytest.raises(OSError, match="ONNX Runtime: .*python cannot be started .*; check the path"):
        FORMATS["onnx"].missing(str(tmp_path / "python"))
    assert "@huggingface/transformers" in FORMATS["transformers.js"].missing(str(tmp_path))


def test_an_unknown_runtime_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="no runtime tensorflow-lite; did you mean"):
        find_format("tensorflow-lite")


@pytest.mark.long
def test_transformers_computes_what_keras_does(mobilenet, photos, picture, tmp_path):
    where = os.environ.get("TRANSFORMERS_PYTHON")
    if not where:
        pytest.skip("TRANSFORMERS_PYTHON names no Python that has Transformers and PyTorch")
    model, classifier, folder = mobilenet
    assert FORMATS["transformers"].missing(where) == []
    answers = ask(folder, "transformers", photos, picture, tmp_path, where)
    assert answers.evidence is None and set(answers.versions) == {"transformers", "torch"}
    expected = softmax(np.asarray(model(photos.astype(np.float32))["logits"]))
    assert softmax(answers.logits) == pytest.approx(expected, abs=TOLERANCE)
    # The pipeline reads a picture as this package does, which is the point of preprocessor_config.json.
    assert answers.files[0] == pytest.approx(classifier.predict(picture).probabilities, abs=TOLERANCE)


@pytest.mark.long
def test_transformers_js_computes_what_keras_does(mobilenet, photos, tmp_path):
    where = os.environ.get("TRANSFORMERS_JS")
    if not where:
        pytest.skip("TRANSFORMERS_JS names no folder that has node_modules/@huggingface/transformers")
    model, classifier, folder = mobilenet
    assert FORMATS["transformers.js"].missing(where) == []
    ready = tmp_path / "ready.png"
    Image.fromarray(photos[0]).save(ready)  # of the model's size: in Node transformers.js shrinks without antialiasing
    answers = ask(folder, "transformers.js", photos, ready, tmp_path, where)
    assert max(differences(model, answers.logits, answers.evidence, photos)) < TOLERANCE
    assert answers.files[0] == pytest.approx(classifier.predict(ready).probabilities, abs=TOLERANCE)


def test_files_are_listed_to_the_last(staged):
    """What a format writes is what it says it adds."""
    _, _, folder = staged["three"]
    listed = {file for name in WRITTEN for file in FORMATS[name].files} | {bundle.CONFIG}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == listed
    assert len({hashlib.sha256((folder / file).read_bytes()).digest() for file in listed}) == len(listed)
