import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hub.errors import DataError, StorageError
from training import fit as fitting
from training.data import load_photos

from .killed import SETTINGS

SCRIPT = Path(__file__).with_name("killed.py")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def photos(shapes, cache):
    return load_photos(shapes, SETTINGS["size"], cache=cache, progress=False)


@pytest.fixture(scope="module")
def finished(photos, cache, tmp_path_factory):
    """A run of one epoch, never disturbed."""
    run = tmp_path_factory.mktemp("run") / "run"
    settings = {**SETTINGS, "epochs": 1}
    return settings, run, fitting.fit(settings, photos, run, cache=cache, progress=False)


def state(run: Path) -> dict:
    """The counters of a run's checkpoint; {} before there is one."""
    try:
        with np.load(run / "checkpoint.npz") as arrays:
            return json.loads(str(arrays["state"]))
    except FileNotFoundError:
        return {}


@pytest.mark.timeout(900)  # four processes that each start TensorFlow
def test_a_run_killed_twice_ends_with_the_weights_of_one_never_killed(shapes, cache, tmp_path):
    def start(run):
        command = [sys.executable, SCRIPT, shapes, tmp_path / run, cache]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
        )

    undisturbed = start("whole")  # beside the others: they fill the cache that they share at the same time
    for epoch, step in ((0, 3), (1, 4)):  # in the middle of an epoch, the second time after a resume
        process = start("killed")
        while (found := state(tmp_path / "killed")).get("epoch", 0) * 1000 + found.get("step", 0) < epoch * 1000 + step:
            assert process.poll() is None, "ended before it could be killed"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not state(tmp_path / "killed")["finished"]
    output = start("killed").communicate()[0]
    whole = undisturbed.communicate()[0].split()[-1]
    assert len(whole) == 64
    assert "Resumed at epoch 2" in output
    assert output.split()[-1] == whole
    histories = [list(csv.DictReader((tmp_path / run / "history.csv").open())) for run in ("whole", "killed")]
    for row in (*histories[0], *histories[1]):
        row.pop("seconds")
    assert histories[0] == histories[1]
    assert [row["epoch"] for row in histories[0]] == ["1", "2", "3"]


def test_a_finished_run_is_not_trained_again(finished, photos, cache):
    settings, run, model = finished
    before = (run / "checkpoint.npz").stat().st_mtime_ns
    again = fitting.fit(settings, photos, run, cache=cache, progress=False)
    assert (run / "checkpoint.npz").stat().st_mtime_ns == before
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_history_lost_after_the_last_checkpoint_comes_back(finished, photos, cache):
    settings, run, _ = finished
    before = (run / "history.csv").read_bytes()
    (run / "history.csv").unlink()
    fitting.fit(settings, photos, run, cache=cache, progress=False)
    assert (run / "history.csv").read_bytes() == before


def test_a_folder_with_another_run_is_refused(finished, photos, cache):
    settings, run, _ = finished
    with pytest.raises(DataError, match="holds a run with other learning_rate"):
        fitting.fit({**settings, "learning_rate": 0.5}, photos, run, cache=cache)
    with pytest.raises(DataError, match="holds a run with other pictures"):
        fitting.fit(settings, photos.subset(np.arange(len(photos) - 1)), run, cache=cache)
    relabelled = replace(photos, labels=np.roll(photos.labels, 1))
    with pytest.raises(DataError, match="holds a run with other pictures"):
        fitting.fit(settings, relabelled, run, cache=cache)


def test_a_broken_checkpoint_is_one_sentence(finished, photos, cache, tmp_path):
    settings, run, _ = finished
    for name in ("settings.json", "head.npz"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "checkpoint.npz").write_bytes((run / "checkpoint.npz").read_bytes()[:5000])
    with pytest.raises(DataError, match="is not a checkpoint of this run; remove it"):
        fitting.fit(settings, photos, tmp_path, cache=cache, progress=False)


def test_a_full_disk_leaves_the_last_checkpoint_intact(finished, photos, cache, tmp_path, monkeypatch):
    settings, run, _ = finished
    for name in ("settings.json", "head.npz"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0)
    saves = []
    save = np.savez

    def full_after_three(file, **arrays):
        saves.append(1)
        if len(saves) > 3:
            file.write(b"half a file")
            raise OSError(28, "No space left on device")
        save(file, **arrays)

    monkeypatch.setattr(np, "savez", full_after_three)
    with pytest.raises(StorageError, match="no space left on device; free some space"):
        fitting.fit(settings, photos, tmp_path, cache=cache, progress=False)
    assert state(tmp_path)["step"] == 3
    assert not list(tmp_path.glob(".*.part"))


def test_a_split_that_lacks_a_label_is_refused(photos, cache, tmp_path):
    one_sided = replace(photos, labels=np.where(photos.splits == "validation", 0, photos.labels))
    with pytest.raises(DataError, match="validation split of .* has no picture of: square"):
        fitting.fit(SETTINGS, one_sided, tmp_path, cache=cache)


def test_the_head_starts_from_the_logistic_regression(finished, photos, cache):
    from sklearn.linear_model import LogisticRegression

    settings, run, _ = finished
    import keras

    from training.backbones import evidence_model

    keras.utils.set_random_seed(settings["seed"])
    model = evidence_model("MobileNetV2", "random", settings["size"], 2)
    train = photos.subset("train")
    x = fitting.frozen_features(model, train, cache, progress=False)
    regression = LogisticRegression(C=1.0, fit_intercept=False, max_iter=2000).fit(x, train.labels)
    model.get_layer("evidence").set_weights([np.load(run / "head.npz")["weights"][None, None]])
    logits = model.predict_on_batch(train.pixels[np.arange(20)].astype(np.float32))["logits"]
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], regression.decision_function(x[:20]), rtol=1e-3, atol=1e-4)


def test_early_stopping_keeps_the_best_epoch(photos, cache, tmp_path, monkeypatch):
    losses = iter([0.5, 0.4, 0.6, 0.7, 0.1])
    averages = []

    def validate(self):
        averages.append([a.copy() for a in self.averages])
        loss = next(losses)
        return {"log_loss": loss, "calibrated_log_loss": loss, "accuracy": 0.5, "roc_auc": 0.5}

    monkeypatch.setattr(fitting._Training, "_validate", validate)
    settings = {**SETTINGS, "epochs": 5, "patience": 2, "batch_size": 128}
    model = fitting.fit(settings, photos, tmp_path, cache=cache, progress=False)
    assert len(averages) == 4
    *body, head = zip(model.trainable_variables, averages[1], strict=True)
    for variable, best in body:
        np.testing.assert_array_equal(np.asarray(variable), best)
    temperature = json.loads((tmp_path / "temperature.json").read_text())["temperature"]
    np.testing.assert_allclose(np.asarray(head[0]) * temperature, head[1], rtol=1e-5)


def test_the_temperature_is_the_one_that_made_the_logits(photos, tmp_path):
    """Labels drawn from softmax(logits / 2): the head is to be divided by 2, within the luck of the draw."""
    import keras

    image = keras.Input((1, 1, 1))
    scaled = keras.layers.Rescaling(1 / 255)(image)
    evidence = keras.layers.Conv2D(2, 1, use_bias=False, name="evidence")(scaled)
    logits = keras.layers.GlobalAveragePooling2D()(evidence)
    model = keras.Model(image, {"logits": logits, "evidence": evidence})
    model.get_layer("evidence").set_weights([np.array([[[[0.0, 6.0]]]], np.float32)])
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4000, 1, 1, 1), np.uint8)
    odds = 6 * (pixels.ravel() / 255) / 2
    labels = (rng.uniform(size=4000) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    fitting._calibrate(model, replace(photos, pixels=pixels, labels=labels), tmp_path)
    found = json.loads((tmp_path / "temperature.json").read_text())
    assert 1.9 < found["temperature"] < 2.1
    assert found["validation_loss"] < found["validation_loss_before"]
    assert model.get_layer("evidence").get_weights()[0].ravel()[1] == pytest.approx(6 / found["temperature"], rel=1e-5)
