import csv
import json
import os
import re
import shutil
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
from training.files import DamagedError, exclusive
from training.photos.data import load_photos, photos_of
from training.runs import read_record
from training.settings import load_recipe, override

from .conftest import draw, encode, write
from .killed import SETTINGS

SCRIPT = Path(__file__).with_name("killed.py")
LIGHT = {**SETTINGS, "backbone": "MobileNet"}  # half of MobileNetV2's layers, and so half of the time


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
    settings = {**LIGHT, "epochs": 1}
    return settings, run, fitting.fit(settings, photos, run, cache=cache, progress=False)


def state(run: Path) -> dict:
    """The counters of a run's checkpoint; {} before there is one."""
    try:
        with np.load(run / "checkpoint.npz") as arrays:
            return json.loads(str(arrays["state"]))
    except FileNotFoundError:
        return {}


@pytest.mark.long
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


def test_a_folder_with_another_run_is_refused(finished, photos, cache):
    settings, run, _ = finished
    with pytest.raises(DataError, match="holds a run with other learning_rate"):
        fitting.fit({**settings, "learning_rate": 0.5}, photos, run, cache=cache)
    with pytest.raises(DataError, match="holds a run with other pictures"):
        fitting.fit(settings, photos.subset(np.arange(len(photos) - 1)), run, cache=cache)
    relabelled = replace(photos, labels=np.roll(photos.labels, 1))
    with pytest.raises(DataError, match="holds a run with other pictures"):
        fitting.fit(settings, relabelled, run, cache=cache)


def test_a_finished_run_is_not_trained_again_and_a_damaged_head_and_features_are_computed_again(
    finished, photos, cache, capsys
):
    settings, run, model = finished
    head, checkpoint = (run / "head.npz").read_bytes(), (run / "checkpoint.npz").stat().st_mtime_ns
    (run / "head.npz").write_bytes(head[:100])
    features = next((cache / "features").glob("*.npz"))
    features.write_bytes(b"")
    again = fitting.fit(settings, photos, run, cache=cache, progress=False)
    said = capsys.readouterr().out
    for path in (run / "head.npz", features):
        assert f"{path} was damaged, so it is computed again." in said
    assert (run / "head.npz").read_bytes() == head
    assert (run / "checkpoint.npz").stat().st_mtime_ns == checkpoint
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_settings_that_a_refusal_names_give_validation_every_label(cache, tmp_path):
    train = [(encode(draw(k % 2, k)), k % 3) for k in range(48)]
    held = [(encode(draw(k % 2, 100 + k)), k % 2) for k in range(8)]
    data = write(tmp_path / "own", {"train": train, "validation": held}, names=("disc", "square", "wolf"))
    settings = {**SETTINGS, "data": str(data)}
    with pytest.raises(DataError, match="validation split of .* has no picture of: wolf; add some, or") as refused:
        fitting.fit(settings, photos_of(settings, cache=cache), tmp_path / "run", cache=cache)
    told = re.findall(r"--set (\S+?)\.?(?= |$)", str(refused.value))
    assert told[0] == "own_validation=False"
    again = photos_of(override(settings, told), cache=cache)
    assert {*again.labels[again.splits == "validation"].tolist()} == {0, 1, 2}


def test_a_split_that_lacks_a_label_is_refused(photos, cache, tmp_path):
    one_sided = replace(photos, labels=np.where(photos.splits == "validation", 0, photos.labels))
    with pytest.raises(DataError, match="validation split of .* has no picture of: square"):
        fitting.fit(SETTINGS, one_sided, tmp_path, cache=cache)


def test_the_head_starts_from_the_logistic_regression(finished, photos, cache):
    from sklearn.linear_model import LogisticRegression

    settings, run, _ = finished
    import keras

    from training.networks.backbones import evidence_model

    keras.utils.set_random_seed(settings["seed"])
    model = evidence_model(settings["backbone"], "random", settings["size"], 2)
    train = photos.subset("train")
    x = fitting.frozen_features(model, train, cache, progress=False)
    regression = LogisticRegression(C=1.0, fit_intercept=False, max_iter=2000).fit(x, train.labels)
    model.get_layer("evidence").set_weights([np.load(run / "head.npz")["weights"][None, None]])
    logits = model.predict_on_batch(train.pixels[np.arange(20)].astype(np.float32))["logits"]
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], regression.decision_function(x[:20]), rtol=1e-3, atol=1e-4)


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


# Small networks, whose batch normalisation and dropout are alive


TINY = {
    **load_recipe("mnist_cnn_augmented"),
    "size": 32, "blocks": [[4], [8]], "epochs": 3, "batch_size": 64, "warmup_steps": 2, "class_weights": "balanced",
}  # fmt: skip


class Stopped(BaseException):
    """What a test stops a run with."""


def test_a_killed_and_interrupted_small_network_ends_with_the_weights_of_an_undisturbed_one(
    shapes, photos, cache, tmp_path, monkeypatch
):
    """Killed in its first epoch in a process of its own, resumed here, stopped in a later epoch, resumed again."""
    run = tmp_path / "disturbed"
    command = [sys.executable, SCRIPT, shapes, run, cache, json.dumps(TINY), "3"]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    assert (state(run)["epoch"], state(run)["step"]) == (0, 2)
    whole = fitting.fit(TINY, photos, tmp_path / "whole", progress=False)
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0)
    average, calls = fitting._Training._average, []

    def stopping(self):
        average(self)
        calls.append(1)
        if len(calls) == 6:
            raise Stopped

    monkeypatch.setattr(fitting._Training, "_average", stopping)
    with pytest.raises(Stopped):
        fitting.fit(TINY, photos, run, progress=False)
    assert state(run)["epoch"] == 1
    again = fitting.fit(TINY, photos, run, progress=False)
    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_full_disk_leaves_the_last_checkpoint_intact(photos, tmp_path, monkeypatch):
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
        fitting.fit({**TINY, "batch_size": 32}, photos, tmp_path, progress=False)
    assert state(tmp_path)["step"] == 3
    assert not list(tmp_path.glob(".*.part"))


def test_early_stopping_keeps_the_best_epoch(photos, tmp_path, monkeypatch):
    losses = iter([0.5, 0.4, 0.6, 0.7, 0.1])
    averages = []

    def validate(self):
        averages.append([a.copy() for a in self.averages])
        loss = next(losses)
        return {"log_loss": loss, "calibrated_log_loss": loss, "accuracy": 0.5, "roc_auc": 0.5}

    monkeypatch.setattr(fitting._Training, "_validate", validate)
    settings = {**TINY, "head": "evidence", "dense": [], "epochs": 5, "patience": 2, "batch_size": 128}
    model = fitting.fit(settings, photos, tmp_path, progress=False)
    assert len(averages) == 4
    learned = averages[1][: len(model.trainable_variables)]  # the statistics of batch normalisation follow
    *body, head = zip(model.trainable_variables, learned, strict=True)
    for variable, best in body:
        np.testing.assert_array_equal(np.asarray(variable), best)
    temperature = json.loads((tmp_path / "temperature.json").read_text())["temperature"]
    np.testing.assert_allclose(np.asarray(head[0]) * temperature, head[1], rtol=1e-5)


@pytest.fixture(scope="module")
def tiny(photos, tmp_path_factory):
    """A finished run of one epoch of a small network."""
    run = tmp_path_factory.mktemp("tiny") / "run"
    fitting.fit({**TINY, "epochs": 1}, photos, run, progress=False)
    return run


def fit_again(run: Path, photos, **changed) -> None:
    """Give the command of the `tiny` run once more."""
    fitting.fit({**TINY, "epochs": 1, **changed}, photos, run, progress=False)


@pytest.mark.parametrize("name", ["settings.json", "checkpoint.npz"])
def test_a_damaged_file_of_a_run_is_one_sentence_whose_remedy_works(name, tiny, photos, tmp_path):
    run = shutil.copytree(tiny, tmp_path / "run")
    whole = (run / name).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"{}"):
        (run / name).write_bytes(content)
        with pytest.raises(DamagedError, match=rf"{name} is damaged .*; .*delete (it|the file)\b") as refusal:
            fit_again(run, photos)
        assert "\n" not in str(refusal.value)
    (run / name).unlink()
    fit_again(run, photos)
    assert state(run)["finished"]
    assert read_record(run)["settings"] == read_record(tiny)["settings"]


def test_a_history_that_is_damaged_or_lost_comes_back_from_the_checkpoint(tiny, photos):
    whole = (tiny / "history.csv").read_bytes()
    (tiny / "history.csv").write_bytes(whole[:20])
    fit_again(tiny, photos)
    assert (tiny / "history.csv").read_bytes() == whole


def test_a_checkpoint_knows_its_run_where_settings_json_is_lost(tiny, photos, tmp_path):
    run = shutil.copytree(tiny, tmp_path / "run")
    (run / "settings.json").unlink()
    with pytest.raises(DataError, match="holds a run with other learning_rate"):
        fit_again(run, photos, learning_rate=0.5)


def test_a_checkpoint_of_another_network_is_one_sentence(tiny, photos, tmp_path):
    run = shutil.copytree(tiny, tmp_path / "run")
    arrays = dict(np.load(run / "checkpoint.npz"))
    np.savez(run / "checkpoint.npz", **{**arrays, "weights_0": np.zeros((1, 2, 3))})
    with pytest.raises(DamagedError, match="is not a checkpoint of this run; delete it, and the same command"):
        fit_again(run, photos)


@pytest.mark.long
def test_the_averages_hold_the_statistics_of_live_batch_normalisation(photos, tmp_path):
    """Weights averaged over the whole run, with statistics of its last step alone, would be another network."""
    settings = {**TINY, "epochs": 1}
    last = fitting.fit({**settings, "average_decay": 0.0}, photos, tmp_path / "last", progress=False)
    averaged = fitting.fit({**settings, "average_decay": 0.9}, photos, tmp_path / "averaged", progress=False)
    for one, other in zip(last.variables, averaged.variables, strict=True):
        if one.name in ("moving_mean", "moving_variance", "gamma"):
            assert not np.array_equal(np.asarray(one), np.asarray(other)), one.path


def test_each_epoch_is_told_when_it_is_safe_and_a_refusal_leaves_a_run_to_go_on_with(photos, tmp_path):
    told = []

    def stop_after_two(row):
        told.append(row)
        assert state(tmp_path)["epoch"] == row["epoch"]
        if row["epoch"] == 2:
            raise Stopped

    with pytest.raises(Stopped):
        fitting.fit(TINY, photos, tmp_path, progress=False, on_epoch=stop_after_two)
    assert [row["epoch"] for row in told] == [1, 2]
    assert set(told[0]) == set(fitting.HISTORY_COLUMNS)
    fitting.fit(TINY, photos, tmp_path, progress=False)
    assert len(list(csv.DictReader((tmp_path / "history.csv").open()))) == 3


@pytest.mark.long
def test_the_rate_falls_after_so_many_epochs_without_a_better_loss(photos, tmp_path, monkeypatch):
    losses = iter([0.5, 0.6, 0.7, 0.4, 0.45, 0.46, 0.47])

    def validate(self):
        loss = next(losses)
        return {"log_loss": loss, "calibrated_log_loss": loss, "accuracy": 0.5, "roc_auc": 0.5}

    monkeypatch.setattr(fitting._Training, "_validate", validate)
    settings = {
        **TINY, "epochs": 7, "schedule": "constant", "warmup_steps": 0, "learning_rate": 1.0, "optimizer": "sgd",
        "momentum": 0.0, "plateau_patience": 2, "plateau_factor": 0.25, "batch_size": 256,
    }  # fmt: skip
    fitting.fit(settings, photos, tmp_path, progress=False)
    rates = [float(row["learning_rate"]) for row in csv.DictReader((tmp_path / "history.csv").open())]
    assert rates == [1.0, 1.0, 1.0, 0.25, 0.25, 0.25, 0.0625]


def test_training_that_diverges_is_one_sentence(photos, tmp_path):
    settings = {**TINY, "optimizer": "sgd", "learning_rate": 10.0, "l2": 1.0, "epochs": 10}  # a step × -19
    with pytest.raises(DataError, match="Training diverged in epoch .* smaller learning_rate"):
        fitting.fit(settings, photos, tmp_path, progress=False)


@pytest.mark.long
def test_weights_that_diverge_in_the_last_step_are_the_same_sentence(photos, tmp_path, monkeypatch):
    settings = {**TINY, "epochs": 1}

    def broken(network, held):
        return np.full((len(held), 2), np.nan, np.float32)

    monkeypatch.setattr(fitting, "_predict", broken)
    with pytest.raises(DataError, match="Training diverged in epoch 1 .* smaller learning_rate"):
        fitting.fit(settings, photos, tmp_path, progress=False)


@pytest.mark.long
def test_a_mirrored_run_answers_a_mirror_image_alike_and_resumes_as_such(photos, tmp_path):
    settings = {**TINY, "mirror": True, "head": "evidence", "dense": [], "epochs": 1}
    pixels = np.asarray(photos.pixels[:4]).astype(np.float32)
    for _ in range(2):
        model = fitting.fit(settings, photos, tmp_path, progress=False)
        seen, turned = (np.asarray(model(x, training=False)["logits"]) for x in (pixels, pixels[:, :, ::-1]))
        np.testing.assert_allclose(seen, turned, atol=1e-4)
    with pytest.raises(DataError, match="other mirror"):
        fitting.fit({**settings, "mirror": False}, photos, tmp_path, progress=False)


@pytest.mark.long
def test_a_frozen_layer_keeps_its_weights_through_stage_2(photos, cache, tmp_path):
    settings = {**LIGHT, "epochs": 1, "freeze": "conv_pw_12_relu", "batch_size": 128}
    model = fitting.fit(settings, photos, tmp_path, cache=cache, progress=False)
    import keras

    keras.utils.set_random_seed(settings["seed"])
    untouched = fitting.build(settings, 2)
    for name, same in (("conv1", True), ("conv_pw_12", True), ("conv_pw_13", False)):
        pairs = zip(model.get_layer(name).get_weights(), untouched.get_layer(name).get_weights(), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs) is same, name


def test_what_the_network_refuses_leaves_the_folder_for_the_settings_that_it_asks_for(photos, cache, tmp_path):
    three = replace(photos, labels=np.arange(len(photos)) % 3, label_names=["a", "b", "c"])
    with pytest.raises(DataError, match="there are 3; give --set one_unit=False"):
        fitting.fit({**TINY, "one_unit": True}, three, tmp_path / "run", cache=cache, progress=False)
    assert not (tmp_path / "run").exists()


def test_a_folder_in_which_a_fit_is_running_is_refused(tmp_path):
    with (
        exclusive(tmp_path / "run", "A fit is running in run."),
        pytest.raises(DataError, match="A fit is running"),
        exclusive(tmp_path / "run", "A fit is running in run."),
    ):
        pass


def test_one_unit_is_refused_for_more_than_two_labels():
    with pytest.raises(DataError, match="One unit tells two labels apart, and there are 3"):
        fitting.build({**TINY, "one_unit": True}, 3)
