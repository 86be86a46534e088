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
from tests.hub_server import HubServer
from training.cli import app
from training.evaluate import read_predictions

from .conftest import draw, encode, write

RECIPE = "cats_vs_dogs_mobilenetv2"
SMALL = ["size=32", "epochs=1", "batch_size=64", "warmup_steps=1", "inverse_regularisation=[1.0]"]


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

        refused = fit("--using", "transformers=no-such-python")
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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fit", "cats_vs_dogs_mobilenet"], "did you mean 'cats_vs_dogs_mobilenetv2'"),
        (["fit", RECIPE, "--set", "epoch=3"], "did you mean 'epochs'"),
        (["fit", RECIPE, "--set", "size=0"], "size must be from 16 to 1024, not 0"),
        (["fit", RECIPE, "--data", "no-such-folder/here/it/is"], "No data set could be loaded"),
        (["evaluate", "no-such-folder/here/it/is", "--data", "x"], "There is no folder"),
        (["photos", "no-such-folder/here/it/is", "out"], "No data set could be loaded"),
        (["fit", RECIPE, "--push-to", "me/x", "--without", "onnx"], "onnx cannot be left out"),
        (["fit", RECIPE, "--push-to", "me/x", "--using", "transformers"], "is not RUNTIME=PATH"),
    ],
)
def test_a_refusal_is_one_sentence_and_exit_code_2(arguments, sentence, tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "training", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=os.getcwd())
    assert result.returncode == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert len([line for line in result.stderr.splitlines() if sentence in line]) == 1


def test_help_teaches():
    assert "--open-test" in run("fit", "--help")
    assert "fit" in run("--help")
