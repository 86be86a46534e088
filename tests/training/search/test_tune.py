import csv
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner

from hub.errors import DataError, StorageError
from training.cli import app
from training.files import DamagedError
from training.fit import fit
from training.photos.data import photos_of
from training.search.search import TimeUp, stages
from training.search.search_space import parse_space
from training.search.tune import _claim, _held, _search, fit_command, seconds
from training.search.tune_report import table
from training.settings import load_recipe, override

from ..made_search import SETTINGS, made

RECIPE = "mnist_cnn_augmented"
TINY = ["size=16", "blocks=[[4]]", "epochs=2", "warmup_steps=2", "batch_size=64"]
ONLY = ["epochs=2", "batch_size=64", "learning_rate=1e-3..1e-1:log", "dropout=0", "head_dropout=0..0.5",
        "rotation=12.0", "shift=0.08", "zoom=0.12", "shear=8.0"]  # fmt: skip
NEVER = math.inf  # when the time of a search is over


def arguments(shapes, run, cache, *more: str) -> list[str]:
    sets = [part for one in TINY for part in ("--set", one)] + [part for one in ONLY for part in ("--space", one)]
    return ["tune", RECIPE, "--data", shapes, *sets, "--run", run, "--cache", cache, *more]


def command(*arguments, code: int = 0) -> str:
    """What a command prints; its refusals are raised."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def rows(run) -> list[dict]:
    return list(csv.DictReader((run / "trials.csv").open()))


def line(_settings, number: int, done: float) -> float:
    """A loss that falls in proportion to the part done, and a little lower with each trial."""
    return 2 - done - 0.01 * number


# What is compared, and when -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "epochs", "through", "known"),
    [
        ([], 3, False, {}),
        ([0.7], 1, False, {10: 0.7}),
        ([4.0, 2.0], 4, False, {3: 3.6, 4: 2.8, 5: 2.0}),
        ([1.0, 3.0], 2, False, {5: 1.0, 6: 1.0, 7: 1.0, 8: 1.0, 9: 1.0, 10: 1.0}),
        ([2.0, 1.0], 20, False, {1: 1.0}),
        ([2.0, 1.0], 10, True, {1: 2.0, **dict.fromkeys(range(2, 11), 1.0)}),  # stopped early: nothing changes any more
    ],
)
def test_trials_are_compared_by_the_lowest_loss_at_each_tenth(losses, epochs, through, known):
    assert stages(losses, epochs, through) == pytest.approx(known)


def test_a_weak_trial_is_given_up_and_a_longer_one_is_not(tmp_path):
    """All do alike for the part that they have done, but for trial 6, which is worse by 0.5 all the way."""
    search = made(tmp_path, lambda *at: line(*at) + 0.5 * (at[1] == 6))
    search.go_on(9, NEVER, print)
    states = [trial.state for trial in search.trials()]
    assert states == [TrialState.PRUNED if number == 6 else TrialState.COMPLETE for number in range(9)]
    weak = search.trials()[6]
    epochs = search.settings_of(weak)["epochs"]
    assert len(search.history(weak)["epoch"]) == math.ceil(0.3 * epochs)  # the first epoch after three tenths
    before = search.trials()[:5]
    assert len({search.settings_of(trial)["epochs"] for trial in before}) > 2
    # By the median at the same epoch, trials that went through would have been given up: those that are longer.
    for_longer = []
    for trial in search.trials()[7:]:
        third = search.history(trial)["validation_calibrated_loss"][2]
        others = [search.history(t)["validation_calibrated_loss"] for t in search.trials(TrialState.COMPLETE)]
        for_longer.append(third > np.median([losses[2] for losses in others if len(losses) > 2]))
    assert any(for_longer)


def test_nobody_is_given_up_before_five_have_been_completed(tmp_path):
    search = made(tmp_path, lambda _, number, done: number + 1 - done / 2)  # each is worse than all before
    search.go_on(7, NEVER, print)
    states = [trial.state for trial in search.trials()]
    assert states[:5] == [TrialState.COMPLETE] * 5
    assert states[5:] == [TrialState.PRUNED] * 2


# What is tried ------------------------------------------------------------------------------------------------


def test_the_first_trial_is_the_recipe_and_all_others_lie_in_the_space(tmp_path):
    space = parse_space(SETTINGS, ["learning_rate=1e-6..1e-5:log", "batch_size=8,16", "epochs=2..9", "dropout=0..0.2"])
    search = made(tmp_path, line, space=space)
    search.go_on(14, NEVER, print)
    assert search.settings_of(search.trials()[0]) == SETTINGS
    for trial in search.trials()[1:]:
        found = search.settings_of(trial)
        assert 1e-6 <= found["learning_rate"] <= 1e-5 and 0 <= found["dropout"] <= 0.2
        assert found["learning_rate"] == float(f"{found['learning_rate']:.3g}")
        assert found["batch_size"] in (8, 16) and found["epochs"] in range(2, 10)
        assert {key for key in found if found[key] != SETTINGS[key]} <= set(space)


def test_a_search_seeks_what_lowers_the_loss(tmp_path):
    """The loss is lowest at a rate of 0.01, five times the recipe's."""
    search = made(tmp_path, lambda s, *_: 0.1 + math.log10(s["learning_rate"] / 0.01) ** 2)
    search.go_on(22, NEVER, print)
    assert 0.007 < search.settings_of(search.best)["learning_rate"] < 0.014
    late = [search.settings_of(trial)["learning_rate"] for trial in search.trials()[14:]]
    assert np.median(np.abs(np.log10(np.array(late) / 0.01))) < 0.2


def test_the_same_seed_tries_the_same_and_another_does_not(tmp_path):
    found = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        search = made(tmp_path / name, line, seed=seed)
        search.go_on(5, NEVER, print)
        found.append([search.values(trial) for trial in search.trials()])
    assert found[0] == found[1]
    assert found[0][0] == found[2][0] and found[0][1:] != found[2][1:]


# Stopped, failed, full ----------------------------------------------------------------------------------------


class Stopped(BaseException):
    """What a test stops a search with."""


def test_a_search_that_is_stopped_again_and_again_finds_what_one_does_that_is_not(tmp_path):
    def weak(settings, number, done):
        return line(settings, number, done) + 0.4 * (number in (6, 8, 11))

    whole = made(tmp_path / "whole", weak)
    whole.go_on(13, NEVER, print)
    calls = []

    def stopping(*at):
        calls.append(at[1:])
        if len(calls) % 5 == 0:
            raise Stopped
        return weak(*at)

    stops = 0
    while True:
        search = made(tmp_path / "stopped", stopping)
        try:
            search.go_on(13, NEVER, print)
            break
        except Stopped:
            stops += 1
    assert stops > 8
    for one, other in zip(whole.trials(), search.trials(), strict=True):
        assert one.params == other.params and one.state == other.state and one.value == other.value
        assert one.intermediate_values == other.intermediate_values
        assert whole.history(one)["epoch"].tolist() == search.history(other)["epoch"].tolist()


def test_a_decision_lost_in_a_kill_is_taken_again_before_another_epoch(tmp_path, monkeypatch):
    search = made(tmp_path, lambda *at: line(*at) + 0.5 * (at[1] == 6))
    tell = optuna.Study.tell

    def killed(self, trial, *rest, **more):
        if trial == 6:
            raise Stopped
        return tell(self, trial, *rest, **more)

    monkeypatch.setattr(optuna.Study, "tell", killed)
    with pytest.raises(Stopped):
        search.go_on(7, NEVER, print)
    epochs = len(search.history(search.trials()[6])["epoch"])
    monkeypatch.undo()
    again = made(tmp_path, lambda *_: pytest.fail("trained on"))
    again.go_on(7, NEVER, print)
    assert again.trials()[6].state == TrialState.PRUNED
    assert len(again.history(again.trials()[6])["epoch"]) == epochs


def test_the_time_ends_a_search_at_the_end_of_an_epoch(tmp_path):
    def slow(*at):
        time.sleep(0.15)
        return line(*at)

    search = made(tmp_path, slow)
    with pytest.raises(TimeUp):
        search.go_on(None, time.monotonic() + 0.25, print)
    trial = search.trials()[0]
    assert trial.state == TrialState.RUNNING
    assert search.history(trial)["epoch"].tolist() == [1, 2]  # of 6
    with pytest.raises(TimeUp):
        search.go_on(None, time.monotonic() - 1, print)
    assert len(search.history(trial)["epoch"]) == 2
    search.go_on(1, NEVER, print)
    assert search.history(trial)["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert search.best.value == pytest.approx(1.0)


def test_ctrl_c_is_one_sentence_and_what_was_found_is_written(tmp_path, capsys):
    def interrupted(settings, number, done):
        if number == 2 and done > 0.5:
            raise KeyboardInterrupt
        return line(settings, number, done)

    search = made(tmp_path, interrupted, space=parse_space(SETTINGS, ["epochs=4..8"]))
    assert _search(search, 5, NEVER, lambda found: f"train {found['epochs']}") == 130
    printed = capsys.readouterr().out
    done, epochs = len(search.history(search.trials()[2])["epoch"]), search.settings_of(search.trials()[2])["epochs"]
    sentence = f"Stopped; run the same command to continue trial 2 after {done} of {epochs} epochs."
    assert sentence in printed.splitlines()
    assert [row["state"] for row in rows(tmp_path)] == ["completed", "completed", "stopped"]
    assert json.loads((tmp_path / "best.json").read_text())["trial"] == 1


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(tmp_path):
    def failing(settings, number, done):
        if number == 1:
            raise DataError("Training diverged in epoch 1; start anew.")
        if number == 2:
            raise MemoryError
        return line(settings, number, done)

    said = []
    search = made(tmp_path, failing, space=parse_space(SETTINGS, ["epochs=4..8"]))
    assert _search(search, 4, NEVER, str) == 0
    search.go_on(5, NEVER, said.append)
    assert [trial.state.name for trial in search.trials()] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    found = rows(tmp_path)
    assert found[1]["state"] == "failed" and found[1]["reason"] == "Training diverged in epoch 1; start anew"
    assert found[2]["reason"] == "MemoryError"
    assert said[0].startswith("Trial 4 (5 of 5): validation log loss 0.9600 (the best so far) after ")


def test_where_every_trial_fails_the_search_ends_with_the_reason(tmp_path):
    def refused(*_):
        raise DataError("The train split of x has no picture of: dog; add some.")

    search = made(tmp_path, refused)
    sentence = "All of 3 trials failed, the last so: The train split of x has no picture of: dog; add some."
    with pytest.raises(DataError) as refusal:
        search.go_on(20, NEVER, print)
    assert str(refusal.value) == sentence


def test_an_error_of_the_program_is_not_taken_for_a_weak_trial(tmp_path):
    def broken(settings, number, done):
        raise RuntimeError("a bug")

    search = made(tmp_path, broken)
    with pytest.raises(RuntimeError, match="a bug"):
        search.go_on(3, NEVER, print)
    assert search.trials()[0].state == TrialState.RUNNING


def test_only_the_best_keeps_its_weights_and_whoever_has_a_bundle(tmp_path):
    search = made(tmp_path, lambda s, number, done: [3, 2, 1, 4, 5][number] - done / 2)
    search.go_on(2, NEVER, print)
    (search.folder_of(search.trials()[1]) / "bundle").mkdir()
    search.go_on(5, NEVER, print)
    kept = [number for number in range(5) if (tmp_path / "trials" / f"{number:03d}" / "checkpoint.npz").exists()]
    assert kept == [1, 2]
    assert all((search.folder_of(trial) / "history.csv").exists() for trial in search.trials())


def test_half_a_line_of_the_journal_is_cut_off_and_nonsense_is_refused(tmp_path):
    search = made(tmp_path, line)
    search.go_on(2, NEVER, print)
    journal = tmp_path / "trials.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"worker_id":"x","stu')
    again = made(tmp_path, line)
    assert journal.read_bytes() == whole
    again.go_on(3, NEVER, print)
    assert [trial.value for trial in made(tmp_path, line).trials()] == pytest.approx([1.0, 0.99, 0.98])
    for content in (b"nonsense\n" + whole, b"\xff\n" + whole, b"[]\n" + whole, b'{"op_code": 4}\n' + whole):
        journal.write_bytes(content)
        with pytest.raises(DamagedError, match="trials.journal cannot be read .*; name another folder with --run"):
            made(tmp_path, line)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"recipe": 3}'])
def test_a_damaged_description_of_a_search_is_one_sentence(content, tmp_path):
    space = made(tmp_path, line).space
    photos = SimpleNamespace(fingerprint=lambda: "0123")
    _claim(tmp_path, "mnist_cnn", SETTINGS, space, 0, photos)
    _claim(tmp_path, "mnist_cnn", SETTINGS, space, 0, photos)  # once more is the same search
    (tmp_path / "search.json").write_bytes(content)
    with pytest.raises(DamagedError, match="search.json is damaged .*; name another folder with --run"):
        _claim(tmp_path, "mnist_cnn", SETTINGS, space, 0, photos)


def test_a_damaged_history_of_a_trial_is_one_sentence_whose_remedy_works(tmp_path):
    search = made(tmp_path, line)
    search.go_on(3, NEVER, print)
    history = search.folder_of(search.best) / "history.csv"
    history.write_bytes(history.read_bytes()[:-9])
    with pytest.raises(DamagedError, match="history.csv is damaged .*; delete it: the trial's curve is lost"):
        table(made(tmp_path, line))
    history.unlink()
    again = made(tmp_path, line)
    again.go_on(4, NEVER, print)
    assert [row["validation_calibrated_loss"] for row in table(again)] == pytest.approx([1.0, 0.99, 0.98, 0.97])


def test_a_damaged_checkpoint_stops_the_search_and_fails_no_trial(tmp_path):
    search = made(tmp_path, line)

    def refuse(settings, folder, after_epoch):
        raise DamagedError("checkpoint.npz is damaged; delete it.")

    search.train = refuse
    with pytest.raises(DamagedError):
        search.go_on(1, NEVER, print)
    assert [trial.state for trial in search.trials()] == [TrialState.RUNNING]


def test_a_full_disk_is_one_sentence_and_the_search_goes_on_later(tmp_path, monkeypatch):
    search = made(tmp_path, line)
    search.go_on(1, NEVER, print)
    sync = os.fsync

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left on device; free some space"):
        search.go_on(2, NEVER, print)
    monkeypatch.setattr(os, "fsync", sync)
    again = made(tmp_path, line)
    again.go_on(2, NEVER, print)
    assert [trial.state for trial in again.trials()] == [TrialState.COMPLETE] * 2


# The command --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "known"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400)])
def test_times(text, known):
    assert seconds(text) == known


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "30 min", "1h30m"])
def test_other_times_are_refused(text):
    with pytest.raises(DataError, match="A time is written as 90s, 30m or 2h, not"):
        seconds(text)


def test_the_command_says_what_was_set_and_what_was_found():
    settings = override(SETTINGS, ["blocks=[[4], [8]]", "epochs=2"])
    found = {**settings, "learning_rate": 0.00123, "epochs": 3}
    text = fit_command(["fit", "mnist_cnn", "--data", "my photos"], settings, ["blocks", "epochs"], found)
    assert (
        text == "fit mnist_cnn --data 'my photos' --set 'blocks=[[4], [8]]' --set epochs=3 --set learning_rate=0.00123"
    )
    assert override(load_recipe("mnist_cnn"), shlex.split(text)[5::2]) == found


@pytest.fixture(scope="module")
def searched(shapes, tmp_path_factory):
    """A search by the command, never disturbed: two trials of two epochs."""
    folder = tmp_path_factory.mktemp("tune")
    return (
        folder / "whole",
        folder / "cache",
        command(*arguments(shapes, folder / "whole", folder / "cache"), "--trials", 2),
    )


def test_a_search_leaves_its_trials_the_best_settings_and_how_to_train_them(searched, shapes):
    run, _, printed = searched
    found = rows(run)
    assert [(row["trial"], row["state"], row["epochs_trained"]) for row in found] == [
        (number, "completed", "2") for number in "01"
    ]
    losses = [float(row["validation_calibrated_loss"]) for row in found]
    best = json.loads((run / "best.json").read_text())
    assert best["trial"] == int(np.argmin(losses)) and best["validation_calibrated_loss"] == min(losses)
    assert best["recipe_validation_calibrated_loss"] == losses[0] >= min(losses)
    for number, loss in enumerate(losses):
        history = list(csv.DictReader((run / "trials" / f"00{number}" / "history.csv").open()))
        assert loss == min(float(row["validation_calibrated_loss"]) for row in history)
    parts = shlex.split(best["command"])
    assert (
        parts[:7] == ["python", "-m", "training", "fit", RECIPE, "--data", str(shapes)] and best["command"] in printed
    )
    own = json.loads((run / "trials" / f"00{best['trial']}" / "settings.json").read_text())["settings"]
    trained = override(load_recipe(RECIPE), parts[8::2])
    assert {**own, "data": trained["data"]} == trained
    assert {path.name for path in run.iterdir()} >= {"history.png", "knobs.png", "index.html", "search.json"}
    assert [number for number in range(2) if (run / "trials" / f"00{number}" / "checkpoint.npz").exists()] == [
        best["trial"]
    ]
    assert "Epoch 2: validation log loss" in (run / "trials" / "000" / "log.txt").read_text()
    assert len([line for line in printed.splitlines() if line.startswith("Trial ")]) == 2


def test_the_command_that_is_named_finds_the_best_trained_already_in_its_folder(searched, capsys):
    run, cache, _ = searched
    best = json.loads((run / "best.json").read_text())
    settings = override(load_recipe(RECIPE), [f"data={shlex.split(best['command'])[6]}"])
    settings = override(settings, shlex.split(best["command"])[8::2])
    fit(settings, photos_of(settings, cache=cache, progress=False), Path(best["folder"]), progress=False)
    assert "Already trained." in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.timeout(600)  # a process that starts TensorFlow
def test_a_search_that_is_killed_goes_on_to_what_it_would_have_found(searched, shapes, tmp_path):
    whole, cache, _ = searched
    run = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "training", *map(str, arguments(shapes, run, cache)), "--trials", "2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (run / "trials" / "001" / "checkpoint.npz").exists():  # its first epoch has ended
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = (run / "trials" / "000" / "history.csv").stat().st_mtime_ns
    printed = command(*arguments(shapes, run, cache), "--trials", "2")
    assert "holds 1 trial already" in printed
    assert "Resumed at epoch" in (run / "trials" / "001" / "log.txt").read_text()
    assert (run / "trials" / "000" / "history.csv").stat().st_mtime_ns == first
    killed, undisturbed = rows(run), rows(whole)
    for row in (*killed, *undisturbed):
        row.pop("seconds")
    assert killed == undisturbed


def test_a_search_that_has_its_trials_trains_none(searched, shapes):
    run, cache, _ = searched
    before = (run / "trials.journal").read_bytes()
    printed = command(*arguments(shapes, run, cache), "--trials", 1)
    assert "2 trials: 2 completed." in printed
    assert (run / "trials.journal").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--set", "epochs=3"], "holds a search with other epochs; give the same"),
        (["--space", "head_dropout=0..0.4"], "holds a search with other space for head_dropout"),
        (["--seed", "1"], "holds a search with other seed"),
        (["--set", "train_photos=100"], "holds a search with other train_photos, pictures"),
    ],
)
def test_a_folder_of_another_search_is_refused(searched, shapes, more, sentence):
    run, cache, _ = searched
    with pytest.raises(DataError, match=sentence):
        command(*arguments(shapes, run, cache), "--trials", 3, *more)


def test_a_folder_of_another_recipe_or_of_something_else_is_refused(searched, shapes, tmp_path):
    run, cache, _ = searched
    with pytest.raises(DataError, match=rf"holds a search with other recipe \({RECIPE}\)"):
        command("tune", "mnist_cnn", "--data", shapes, "--run", run, "--cache", cache, "--trials", 3)
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(DataError, match="holds something other than a search; name a new folder"):
        command(*arguments(shapes, tmp_path, cache), "--trials", 3)


def test_a_folder_in_which_a_search_is_running_is_refused(tmp_path):
    with (
        _held(tmp_path / "run"),
        pytest.raises(DataError, match="A search is running in .*; wait for its end, or name another folder"),
        _held(tmp_path / "run"),
    ):
        pass
    with _held(tmp_path / "run"):
        pass


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([], "Say when the search is to end: --trials 20, --time 2h, or both"),
        (["--time", "soon"], "A time is written as 90s, 30m or 2h, not 'soon'"),
        (["--trials", "3", "--set", "epochs=0"], "epochs must be from 1 to 10000, not 0"),
        (["--trials", "3", "--space", "epoch=2..3"], "There is no setting 'epoch'; did you mean 'epochs'"),
        (["--trials", "3", "--space", "dropout=0..2"], "dropout must be from 0.0 to 0.95, not 2.0"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_read(tmp_path, more, sentence):
    with pytest.raises(DataError, match=sentence):
        command("tune", RECIPE, "--data", tmp_path / "none", "--run", tmp_path / "run", *more)
    assert not (tmp_path / "run").exists()
