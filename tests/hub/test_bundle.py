"""A bundle is written whole or not at all, and a folder is believed only after it was looked at."""

from __future__ import annotations

import hashlib
import io
import json
import resource
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hub import BundleError, ImageClassifier, StorageError
from hub.config import PREPROCESSING

ROOT = Path(__file__).parents[2]
FILES = ["README.md", "config.json", "metrics.json", "model.keras", "onnx/model.onnx"]


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file under a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def sentence(error: BaseException) -> str:
    """The message, once it was seen to be one sentence with a remedy."""
    text = str(error)
    assert "\n" not in text
    assert text.endswith(".")
    assert ";" in text, f"no remedy in: {text}"
    return text


@pytest.fixture
def old(tmp_path, bundle_2) -> Path:
    """A bundle that may be broken or replaced, alone in its folder."""
    return shutil.copytree(bundle_2, tmp_path / "models" / "mine")


# ---- there and back


def test_what_is_saved_is_loaded(bundle_2, model_2, photos):
    """The same answers, labels and scale, from the files that the contract names."""
    loaded = ImageClassifier.from_pretrained(bundle_2)
    fresh = ImageClassifier.from_keras(model_2, ["cat", "dog"])
    assert sorted(contents(bundle_2)) == FILES
    assert loaded.labels == ["cat", "dog"]
    assert loaded.name == bundle_2.name
    assert loaded.evidence_scale > 1
    for ours, theirs in zip(loaded.predict_tensors(photos), fresh.predict_tensors(photos), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_agreement_is_measured_and_written_down(bundle_2):
    """On all photos that were given; something was compared, so the differences are not all zero."""
    agreement = json.loads((bundle_2 / "metrics.json").read_text())["agreement"]
    assert agreement["photos"] == 40
    assert agreement["tolerance"] == 1e-4
    assert 0 <= agreement["probability"] < 1e-4
    assert 0 < agreement["evidence"] < 1e-4


def test_plain_keras_loads_the_model(bundle_2, model_2, photos):
    """Nothing of this package is needed for it, nor is unsafe loading."""
    import keras

    outputs = keras.saving.load_model(bundle_2 / "model.keras")(photos.astype(np.float32))
    for name in ("logits", "evidence"):
        np.testing.assert_allclose(outputs[name], model_2(photos.astype(np.float32))[name], atol=1e-5)


def test_to_keras_gives_the_same_model(bundle_2, model_2):
    """Weight for weight."""
    loaded = ImageClassifier.from_pretrained(bundle_2).to_keras()
    for ours, theirs in zip(loaded.get_weights(), model_2.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_optimizer_state_is_left_behind(tmp_path, model_2, photos):
    """A model that was trained is saved without what only training needs."""
    import keras

    model = keras.models.clone_model(model_2)
    model.set_weights(model_2.get_weights())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss={"logits": loss, "evidence": None}, run_eagerly=True)
    model.train_on_batch(photos.astype(np.float32), {"logits": np.arange(40) % 2})
    folder = ImageClassifier.from_keras(model, ["cat", "dog"]).save_pretrained(tmp_path / "model", photos=photos)
    assert model.compiled
    assert not keras.saving.load_model(folder / "model.keras").compiled
    with zipfile.ZipFile(folder / "model.keras") as file:
        assert not json.loads(file.read("config.json"))["compile_config"]
        assert "optimizer" not in h5py.File(io.BytesIO(file.read("model.weights.h5")))


def test_onnx_file_keeps_its_contract(bundle_2):
    """Names, types, shapes; one batch axis, open, with a name."""
    model = onnx.load(bundle_2 / "onnx" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        node.name: [axis.dim_param or axis.dim_value for axis in node.type.tensor_type.shape.dim]
        for node in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {"pixel_values": ["batch", 3, 32, 32], "logits": ["batch", 2], "evidence": ["batch", 4, 4, 2]}


def test_a_loaded_model_is_saved_again(bundle_2, photos, tmp_path):
    """Every file comes along, and photos are not needed: it was checked before."""
    import pyarrow as pa
    import pyarrow.parquet

    figure = tmp_path / "roc.png"
    figure.write_bytes(b"a picture")
    table = pa.table({"hash": ["a"], "logits": [[0.5, 1.5]]})
    metrics = {"test": {"photos": np.int64(7), "accuracy": {"value": np.float32(0.5)}}}
    first = ImageClassifier.from_pretrained(bundle_2).save_pretrained(
        tmp_path / "first", photos=photos[:3], metrics=metrics, predictions=table, figures=[figure]
    )
    assert pa.parquet.read_table(first / "predictions.parquet").equals(table)
    written = json.loads((first / "metrics.json").read_text())
    assert written["test"] == {"photos": 7, "accuracy": {"value": 0.5}}
    assert written["agreement"]["photos"] == 3
    assert "agreement" not in metrics

    second = ImageClassifier.from_pretrained(first).save_pretrained(tmp_path / "second")
    assert contents(second) == contents(first)
    assert sorted(contents(second)) == sorted([*FILES, "figures/roc.png", "predictions.parquet"])
    third = ImageClassifier.from_pretrained(second).save_pretrained(
        tmp_path / "third", predictions=first / "predictions.parquet", figures=[]
    )
    assert sorted(contents(third)) == sorted([*FILES, "predictions.parquet"])


def test_a_model_is_saved_over_itself(old):
    """Its files are read before they are replaced."""
    before = contents(old)
    ImageClassifier.from_pretrained(old).save_pretrained(old)
    assert contents(old) == before
    assert [path.name for path in old.parent.iterdir()] == ["mine"]


# ---- reading with suspicion


@pytest.mark.parametrize("name", ["config.json", "onnx/model.onnx"])
def test_a_missing_file_is_named(old, name):
    """What answering needs must be there."""
    (old / name).unlink()
    with pytest.raises(BundleError) as refusal:
        ImageClassifier.from_pretrained(old)
    assert f"{old} has no {name}" in sentence(refusal.value)


def test_a_missing_or_broken_keras_file_is_named_when_asked_for(old, tmp_path):
    """Not before: answers come without it."""
    (old / "model.keras").write_bytes(b"no model")
    classifier = ImageClassifier.from_pretrained(old)
    with pytest.raises(BundleError, match="cannot be loaded") as refusal:
        classifier.to_keras()
    assert str(old / "model.keras") in sentence(refusal.value)
    (old / "model.keras").unlink()
    with pytest.raises(BundleError, match="has no model.keras") as refusal:
        classifier.save_pretrained(tmp_path / "copy")
    sentence(refusal.value)
    assert not (tmp_path / "copy").exists()


def test_code_in_a_keras_file_is_not_run(old, tmp_path):
    """A lambda layer is Python code; Keras's safe mode refuses it."""
    import keras

    image = keras.Input((32, 32, 3))
    logits = keras.layers.Lambda(lambda x: x[:, 0, 0, :2])(image)
    keras.Model(image, {"logits": logits}).save(old / "model.keras")
    with pytest.raises(BundleError, match="cannot be loaded") as refusal:
        ImageClassifier.from_pretrained(old).to_keras()
    sentence(refusal.value)


LONG = "1" + "0" * 400


@pytest.mark.parametrize(
    "text",
    ["", "{", "nonsense", "[" * 100_000, "\udc80", '{"name": "\\ud800"}', f'{{"new": {LONG}}}'],
    ids=["empty", "open", "word", "deep", "bytes", "half-sign", "long-number"],
)
def test_a_broken_config_is_named(old, text):
    """No JSON at all, half a sign, a number that no float holds."""
    (old / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match="is not valid JSON") as refusal:
        ImageClassifier.from_pretrained(old)
    assert str(old / "config.json") in sentence(refusal.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"id2label": None}, "at least two labels"),
        ({"id2label": {"0": "cat"}}, "at least two labels"),
        ({"id2label": {"0": "cat", "2": "dog"}}, "id2label that is not"),
        ({"id2label": {"0": "cat", "1": 7}}, "id2label that is not"),
        ({"id2label": {"0": "cat", "1": " "}}, "id2label that is not"),
        ({"id2label": {"0": "cat", "1": "cat"}}, "the same name"),
        ({"image_size": None}, "image_size"),
        ({"image_size": "32"}, "image_size"),
        ({"image_size": True}, "image_size"),
        ({"image_size": 10**9}, "image_size"),
        ({"preprocessing": None}, "another preprocessing"),
        ({"preprocessing": {**PREPROCESSING, "resize": "crop"}}, "another preprocessing"),
        ({"evidence": [7, 7]}, "not an object"),
        ({"evidence": {"scale": 0}}, "not a positive number"),
        ({"evidence": {"scale": "5"}}, "not a positive number"),
        ({"evidence": {"scale": float("nan")}}, "not a positive number"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(old, change, problem):
    """The sentence says which entry."""
    config = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(BundleError, match=problem) as refusal:
        ImageClassifier.from_pretrained(old)
    assert "config.json of mine" in sentence(refusal.value)


def test_a_config_that_is_no_object_is_refused(old):
    """Valid JSON is not enough."""
    (old / "config.json").write_text("[]")
    with pytest.raises(BundleError, match="not a JSON object") as refusal:
        ImageClassifier.from_pretrained(old)
    sentence(refusal.value)


def graph(inputs: dict, outputs: dict, kind: int = TensorProto.FLOAT, weights: TensorProto | None = None) -> bytes:
    """An ONNX model that answers everywhere with the mean of its first input; names and shapes as given."""
    nodes = [
        helper.make_node("Cast", [next(iter(inputs))], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[1]),
    ]
    sizes = []
    for name, shape in outputs.items():
        sizes.append(helper.make_tensor(f"{name}_ones", TensorProto.INT64, [len(shape)], [0] + [1] * len(shape[1:])))
        sizes.append(helper.make_tensor(f"{name}_size", TensorProto.INT64, [len(shape)], [1, *shape[1:]]))
        nodes.append(helper.make_node("Reshape", ["mean", f"{name}_ones"], [f"{name}_small"]))
        nodes.append(helper.make_node("Expand", [f"{name}_small", f"{name}_size"], [name]))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "mean",
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            [*sizes, *([weights] if weights else [])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    return model.SerializeToString()


PIXELS = {"pixel_values": ["batch", 3, 32, 32]}
ANSWER = {"logits": ["batch", 2], "evidence": ["batch", 4, 4, 2]}


def test_any_graph_that_keeps_the_contract_is_taken(old, photos):
    """So the next tests refuse for the reason they name. Sizes that are open are fine."""
    for pixels in (PIXELS, {"pixel_values": ["n", "c", "h", "w"]}):
        (old / "onnx" / "model.onnx").write_bytes(graph(pixels, ANSWER))
        logits = ImageClassifier.from_pretrained(old).predict(photos[0]).logits
        np.testing.assert_allclose(logits, [photos[0].mean() / 127.5 - 1] * 2, atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "outputs", "problem"),
    [
        ({"image": ["batch", 3, 32, 32]}, ANSWER, "should have pixel_values"),
        ({"pixel_values": ["batch", 32, 32, 3]}, ANSWER, "should have pixel_values"),
        ({"pixel_values": ["batch", 3, 64, 64]}, ANSWER, "should have pixel_values"),
        ({"pixel_values": [1, 3, 32, 32]}, ANSWER, "should have pixel_values"),
        ({"pixel_values": ["batch", 3072]}, ANSWER, "should have pixel_values"),
        ({**PIXELS, "mask": ["batch"]}, ANSWER, "other inputs than pixel_values"),
        (PIXELS, {"output": ["batch", 2]}, "should have logits"),
        (PIXELS, {**ANSWER, "logits": ["batch", 3]}, "should have logits"),
        (PIXELS, {**ANSWER, "evidence": ["batch", 2, 4, 4]}, "should have evidence"),
        (PIXELS, {**ANSWER, "evidence": ["batch", 2]}, "should have evidence"),
    ],
)
def test_a_graph_of_another_kind_is_refused(old, inputs, outputs, problem):
    """The sentence says what should be there and what is."""
    (old / "onnx" / "model.onnx").write_bytes(graph(inputs, outputs))
    with pytest.raises(BundleError, match=problem) as refusal:
        ImageClassifier.from_pretrained(old)
    assert f"The ONNX file of {old}" in sentence(refusal.value)


def test_a_graph_of_another_type_is_refused(old):
    """Whole numbers would mean another scaling."""
    (old / "onnx" / "model.onnx").write_bytes(graph(PIXELS, ANSWER, TensorProto.UINT8))
    with pytest.raises(BundleError, match="should have pixel_values"):
        ImageClassifier.from_pretrained(old)


def test_a_broken_graph_is_refused(old):
    """Cut short, empty, or no graph at all."""
    whole = (old / "onnx" / "model.onnx").read_bytes()
    for broken in (b"", b"nonsense", whole[: len(whole) // 2]):
        (old / "onnx" / "model.onnx").write_bytes(broken)
        with pytest.raises(BundleError, match="cannot be opened") as refusal:
            ImageClassifier.from_pretrained(old)
        sentence(refusal.value)


@pytest.mark.parametrize("location", ["../../secret.bin", "secret.bin", "/etc/hostname"])
def test_a_graph_cannot_read_other_files(old, location):
    """Weights "kept" elsewhere would be whatever lies there, on this machine."""
    for folder in (old, old / "onnx", old.parent):
        (folder / "secret.bin").write_bytes(bytes(4))
    weights = TensorProto(name="one_more", data_type=TensorProto.FLOAT, dims=[1])
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "4"}.items():
        weights.external_data.add(key=key, value=value)
    answer = graph(PIXELS, ANSWER, weights=weights)
    model = onnx.load_from_string(answer)
    model.graph.node.append(helper.make_node("Identity", ["one_more"], ["more"]))
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    (old / "onnx" / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="cannot be opened") as refusal:
        ImageClassifier.from_pretrained(old)
    sentence(refusal.value)


# ---- writing all or nothing


def test_formats_that_disagree_are_not_saved(old, model_2, photos):
    """Weights that change after the conversion: both files would be fine alone, and tell two stories."""
    import keras

    before = contents(old)
    model = keras.models.clone_model(model_2)
    model.set_weights(model_2.get_weights())
    classifier = ImageClassifier.from_keras(model, ["cat", "dog"])
    kernel = model.get_layer("evidence").get_weights()[0]
    model.get_layer("evidence").set_weights([kernel * 1.001])
    with pytest.raises(BundleError, match="differs from Keras by") as refusal:
        classifier.save_pretrained(old, photos=photos)
    sentence(refusal.value)
    model.get_layer("evidence").set_weights([kernel * np.nan])
    with pytest.raises(BundleError, match="differs from Keras by nan"):
        classifier.save_pretrained(old, photos=photos)
    assert contents(old) == before
    assert [path.name for path in old.parent.iterdir()] == ["mine"]


def test_evidence_alone_is_compared_too(tmp_path, model_2, photos):
    """A map shifted the same way for both labels changes no probability, and is found all the same."""
    import keras

    model = keras.models.clone_model(model_2)
    model.set_weights(model_2.get_weights())
    classifier = ImageClassifier.from_keras(model, ["cat", "dog"])
    model.get_layer("evidence").set_weights([model.get_layer("evidence").get_weights()[0] + 0.01])
    with pytest.raises(BundleError, match="evidence differs from Keras"):
        classifier.save_pretrained(tmp_path / "new", photos=photos)
    assert list(tmp_path.iterdir()) == []


def test_an_unchecked_model_is_not_saved(tmp_path, model_2, photos):
    """No photos, no bundle."""
    classifier = ImageClassifier.from_keras(model_2, ["cat", "dog"])
    for given in (None, photos[:0]):
        with pytest.raises(BundleError, match="photo") as refusal:
            classifier.save_pretrained(tmp_path / "new", photos=given)
        sentence(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_the_middle_leaves_the_old_one(old, tmp_path):
    """Metrics that are no numbers, a record that is not there: met when model.keras is written already."""
    before, classifier = contents(old), ImageClassifier.from_pretrained(old)
    for problem in (
        {"metrics": {"test": {"roc_auc": float("nan")}}},
        {"metrics": {"test": object()}},
        {"predictions": tmp_path / "nowhere.parquet"},
        {"figures": [tmp_path / "nowhere.png"]},
    ):
        with pytest.raises(BundleError) as refusal:
            classifier.save_pretrained(old, **problem)
        sentence(refusal.value)
        assert contents(old) == before
        assert [path.name for path in old.parent.iterdir()] == ["mine"]


def test_a_full_disk_is_one_sentence(old, model_2, photos):
    """A limit on the size of files stops every way of writing in the middle, as a full disk does."""
    before, classifier = contents(old), ImageClassifier.from_pretrained(old)
    fresh = ImageClassifier.from_keras(model_2, ["cat", "dog"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(StorageError, match="Cannot write to") as copying:
            classifier.save_pretrained(old)
        with pytest.raises(StorageError, match="Cannot write to") as writing:
            fresh.save_pretrained(old, photos=photos)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for refusal in (copying, writing):
        assert str(old) in sentence(refusal.value)
    assert contents(old) == before
    assert [path.name for path in old.parent.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_is_one_sentence(old):
    """A file stands where the folder, or the folder above it, should be."""
    classifier = ImageClassifier.from_pretrained(old)
    for folder in (old / "config.json", old / "config.json" / "model"):
        with pytest.raises(StorageError, match="Cannot write to") as refusal:
            classifier.save_pretrained(folder)
        sentence(refusal.value)


def test_other_peoples_files_are_not_replaced(old, tmp_path):
    """Saving into one's home must not take it away."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "diary.txt").write_text("dear diary")
    with pytest.raises(BundleError, match=r"diary\.txt") as refusal:
        ImageClassifier.from_pretrained(old).save_pretrained(home)
    sentence(refusal.value)
    assert (home / "diary.txt").read_text() == "dear diary"


def test_an_empty_folder_and_missing_parents_are_fine(old, tmp_path):
    """Through a link, too; the folder is as readable as any other."""
    classifier = ImageClassifier.from_pretrained(old)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for folder in (tmp_path / "empty", tmp_path / "a" / "b" / "c", tmp_path / "link"):
        assert classifier.save_pretrained(folder) == folder
        assert contents(folder) == contents(old)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "empty").stat().st_mode == tmp_path.joinpath("a").stat().st_mode
