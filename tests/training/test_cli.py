import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from hub import ImageClassifier
from hub.images import open_image, pixel_hash
from hub.record import read_predictions
from tests.hub_server import HubServer
from training.cli import app, main
from training.photos.preview import _in_turn

from .conftest import draw, encode, write

RECIPE = "cats_vs_dogs_mobilenetv2"
SMALL = ["backbone=MobileNet", "size=32", "epochs=1", "batch_size=64", "warmup_steps=1", "inverse_regularisation=[1.0]"]


def run(*arguments, code=0):
    """What the command prints; its refusals are raised."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """A run by the command, from a data folder to a bundle with its test split opened."""
    folder = tmp_path_factory.mktemp("cli")
    elsewhere = write(folder / "elsewhere", {"test": [(encode(draw(i % 2, 5000 + i)), i % 2) for i in range(24)]})
    sets = [part for assignment in SMALL for part in ("--set", assignment)]
    printed = run(
        "fit", RECIPE, "--data", shapes, "--backbone-weights", "random", *sets, "--run", folder / "run",
        "--cache", folder / "cache", "--open-test", "--data-name", "someone/shapes",
    )  # fmt: skip
    run(
        "evaluate", folder / "run" / "bundle", "--data", elsewhere, "--record-as", "elsewhere",
        "--cache", folder / "cache",
    )  # fmt: skip
    return folder, printed


def test_fit_leaves_a_bundle_that_answers_with_evidence(trained):
    folder, printed = trained
    assert "train 2" in printed  # the class shares
    classifier = ImageClassifier.from_pretrained(folder / "run" / "bundle")
    prediction = classifier.predict(draw(0, 1))
    assert prediction.evidence.shape == (1, 1, 2)
    np.testing.assert_allclose(prediction.evidence.mean((0, 1)), prediction.logits, atol=1e-6)
    assert classifier.labels == ["disc", "square"]


def test_the_bundle_accounts_for_itself(trained, shapes):
    folder, _ = trained
    bundle = folder / "run" / "bundle"
    names = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert names == {
        "model.keras", "onnx/model.onnx", "config.json", "metrics.json", "predictions.parquet", "README.md",
    }  # fmt: skip
    metrics = json.loads((bundle / "metrics.json").read_text())
    assert metrics["dataset"]["name"] == "someone/shapes"
    assert metrics["dataset"]["image_size"] == "48 × 48"
    assert metrics["training"]["command"] == f"python -m training fit {RECIPE} " + " ".join(
        f"--set '{s}'" if "[" in s else f"--set {s}" for s in SMALL
    )
    assert metrics["elsewhere"]["elsewhere"]["photos"] == 24
    assert metrics["agreement"]["probability"] <= 1e-4
    record = read_predictions(bundle)
    assert len(record.subset("test")) == metrics["test"]["photos"]
    assert str(shapes) not in (bundle / "README.md").read_text() + (bundle / "metrics.json").read_text()
    scale = json.loads((bundle / "config.json").read_text())["evidence"]["scale"]
    shown = np.abs(np.diff(record.subset("validation").evidence, axis=-1))
    assert scale == pytest.approx(np.percentile(shown, 99), rel=1e-5)


def test_every_figure_is_drawn(trained):
    folder, _ = trained
    kinds = ("roc", "precision_recall", "confusion_matrix", "reliability")
    names = {f"{split}_{kind}.png" for split in ("validation", "test") for kind in kinds} | {"learning_curves.png"}
    found = {path.name for path in (folder / "run" / "figures").glob("*.png")}
    assert names <= found
    for path in (folder / "run" / "figures").glob("*.png"):
        assert min(Image.open(path).size) > 300


def test_evaluate_repeats_the_bundles_numbers(trained, shapes):
    folder, _ = trained
    printed = run("evaluate", folder / "run" / "bundle", "--data", shapes, "--cache", folder / "cache")
    assert "The test numbers repeat to the printed digit." in printed
    assert "The validation numbers repeat to the printed digit." in printed


def test_evaluate_on_other_pictures_claims_no_test_score(trained):
    folder, _ = trained
    rows = [(encode(draw(i % 2, 7000 + i)), i % 2) for i in range(12)]
    other = write(folder / "other", {"train": rows})
    printed = run("evaluate", folder / "run" / "bundle", "--data", other, "--cache", folder / "cache")
    assert "not a test score" in printed


@pytest.mark.long
def test_push_to_publishes_what_every_runtime_agrees_on(trained, shapes, tmp_path):
    """The trained run again without its bundle, in a process of its own; its test split stays closed this time."""
    folder, _ = trained
    sets = [part for assignment in SMALL for part in ("--set", assignment)]
    again = folder / "again"
    again.mkdir()
    for file in ("settings.json", "head.npz", "checkpoint.npz", "history.csv"):  # so that nothing is trained
        (again / file).write_bytes((folder / "run" / file).read_bytes())
    with HubServer() as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        environment |= {"HF_TOKEN": "hf_writer", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}

        def fit(*options):
            command = [
                sys.executable, "-m", "training", "fit", RECIPE, "--data", shapes, "--backbone-weights", "random",
                *sets, "--run", again, "--cache", folder / "cache",
                "--push-to", "tester/shapes", *options,
            ]  # fmt: skip
            return subprocess.run(command, capture_output=True, text=True, env=environment)

        refused = fit("--using", "litert=no-such-python")
        assert refused.returncode == 2
        assert "no-such-python cannot be started" in refused.stderr
        assert not hub.repos  # before anything was made
        few = [part for name in ("transformers", "keras-folder", "litert") for part in ("--without", name)]  # for speed
        done = fit(*few)
        assert done.returncode == 0, done.stderr
        assert re.search(r"on \d+ validation photos:\n  Keras, `model.keras`: 0.0e\+00\n", done.stdout)
        assert "It is published: " in done.stdout
        files = hub.repos["tester/shapes"].at("main").files
    assert {"model.keras", "onnx/model.onnx", "agreement.json", "README.md"} <= set(files)
    assert not {"model.safetensors", "litert/model.tflite"} & set(files)

    assert "Test split" not in done.stdout
    assert "test" not in json.loads((again / "bundle" / "metrics.json").read_text())
    record = read_predictions(again / "bundle")
    assert set(record.splits) == {"validation"}
    test = {pixel_hash(open_image(encode(draw(i % 2, i)))) for i in range(320)} - set(record.hashes)
    assert len(test) > 250


def test_photos_are_written_by_the_shares_of_their_recipe(shapes, tmp_path):
    shares = ("--test-share", 0.25, "--validation-share", 0.3)
    run(
        "photos",
        shapes,
        tmp_path / "out",
        "--split",
        "validation",
        *shares,
        "--size",
        16,
        "--cache",
        tmp_path / "cache",
    )
    places = [int(path.stem[:16], 16) / 2**64 for path in (tmp_path / "out").rglob("*.png")]
    assert len(places) > 60 and 0.25 <= min(places) < max(places) < 0.55


TINY = ["size=32", "blocks=[[4],[8]]", "dense=[8]", "epochs=1", "warmup_steps=1", "batch_size=32"]


@pytest.fixture(scope="module")
def repeated(shapes, tmp_path_factory):
    """A classic head of a small network, trained from two seeds."""
    folder = tmp_path_factory.mktemp("seeds")
    sets = [part for assignment in (*TINY, "seed=3", "train_photos=96") for part in ("--set", assignment)]
    printed = run(
        "fit", "mnist_cnn", "--data", shapes, *sets, "--seeds", 2, "--run", folder / "run",
        "--cache", folder / "cache", "--open-test",
    )  # fmt: skip
    return folder, printed


@pytest.mark.long
def test_seeds_are_runs_of_their_own_with_a_mean_and_a_range(repeated):
    folder, printed = repeated
    metrics = [json.loads((folder / "run" / f"seed-{k}" / "bundle" / "metrics.json").read_text()) for k in (3, 4)]
    assert [m["training"]["settings"]["seed"] for m in metrics] == [3, 4]
    assert "--set seed=3 --set train_photos=96 --set seed=4" in metrics[1]["training"]["command"]
    losses = [m["test"]["log_loss"]["value"] for m in metrics]
    assert losses[0] != losses[1]
    mean = f"{np.mean(losses):.4f} ({min(losses):.4f}–{max(losses):.4f})"
    assert re.search(rf"Test split, mean and range of 2 runs.*Log loss +{re.escape(mean)}", printed, re.DOTALL)


@pytest.mark.long
def test_a_small_networks_bundle_tells_its_head_and_what_was_left_out(repeated):
    folder, _ = repeated
    bundle = folder / "run" / "seed-3" / "bundle"
    classifier = ImageClassifier.from_pretrained(bundle)
    assert classifier.config.head == "logits"
    assert classifier.predict(draw(0, 1)).evidence is None
    metrics = json.loads((bundle / "metrics.json").read_text())
    shown = metrics["dataset"]["splits"]
    assert shown["train"]["photos"] == 96
    assert metrics["training"]["left_out"] == 320 - sum(split["photos"] for split in shown.values())
    assert "momentum" not in metrics["training"]["settings"]  # at its default, and so not on the card
    card = (bundle / "README.md").read_text()
    assert "classic head" in card and "Grad-CAM" in card
    assert read_predictions(bundle).evidence is None


def test_preview_shows_every_label():
    assert _in_turn(np.array([1, 1, 1, 0, 0, 2])).tolist() == [3, 0, 5, 4, 1, 2]


def test_preview_draws_a_row_for_each_knob(shapes, tmp_path):
    out = tmp_path / "sheet.png"
    sets = [part for assignment in ("size=32", "rotation=0.0") for part in ("--set", assignment)]
    printed = run("preview", "mnist_cnn_augmented", "--data", shapes, *sets, "--out", out, "--cache", tmp_path)
    assert str(out) in printed
    small = Image.open(out).size
    run("preview", "mnist_cnn_augmented", "--data", shapes, "--set", "size=32", "--out", out, "--cache", tmp_path)
    assert Image.open(out).size[1] > small[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fit", "cats_vs_dogs_mobilenet"], "did you mean 'cats_vs_dogs_mobilenetv2'"),
        (["fit", RECIPE, "--set", "epoch=3"], "did you mean 'epochs'"),
        (["fit", RECIPE, "--set", "size=0"], "size must be from 16 to 1024, not 0"),
        (["fit", RECIPE, "--data", "no-such-folder/here/it/is"], "No data set could be loaded"),
        (["evaluate", "no-such-folder/here/it/is", "--data", "x"], "There is no folder"),
        (["photos", "no-such-folder/here/it/is", "out"], "No data set could be loaded"),
        (["fit", "mnist_cnn", "--set", "optimizer=adamm"], "optimizer must be one of adamw, adam, sgd, rmsprop"),
        (["fit", "mnist_cnn", "--backbone-weights", "imagenet"], "There is no setting 'backbone_weights'"),
        (["fit", "mnist_cnn", "--push-to", "me/x", "--seeds", "2"], "--push-to publishes one model"),
        (["preview", "mnist_cn"], "did you mean 'mnist_cnn'"),
        (["fit", RECIPE, "--push-to", "me/x", "--without", "onnx"], "onnx cannot be left out"),
        (["fit", RECIPE, "--push-to", "me/x", "--using", "transformers"], "is not RUNTIME=PATH"),
    ],
)
def test_a_refusal_is_one_sentence_and_exit_code_2(arguments, sentence, refused):
    assert sentence in refused(*arguments)


def test_the_pages_environment_lacks_training_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["training", "explore", "photos"])
    monkeypatch.setitem(sys.modules, "training.photos.explore", None)
    with pytest.raises(ModuleNotFoundError):  # a module of our own that is missing is a bug
        main()
    monkeypatch.delitem(sys.modules, "training.photos.explore")
    monkeypatch.setitem(sys.modules, "sklearn.neighbors", None)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert re.search("The package sklearn is not installed .* -r requirements-training.txt$", capsys.readouterr().err)


def test_help_teaches():
    assert "--open-test" in run("fit", "--help")
    assert "[default: runs/RECIPE]" in run("fit", "-h")
    assert "fit" in run("--help")
