import csv
import json
import math
import re

import pytest
from optuna.trial import TrialState

from training.search.search_space import parse_space
from training.search.tune_report import bars, conclude, counted, gain, importance, in_words, table

from ..made_search import SETTINGS, made

RATE = parse_space(SETTINGS, ["learning_rate=2e-4..2e-2:log"])  # one panel is drawn sooner than five


def of_rate(settings, number, done):
    """A loss that depends on the learning rate alone: e to the difference from 0.01 in decades."""
    return math.exp(abs(math.log10(settings["learning_rate"] / 0.01))) * (2 - done)


def searched(folder, trials: int, loss=of_rate, **more):
    search = made(folder, loss, **more)
    search.go_on(trials, math.inf, lambda _: None)
    return search


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A search of 16 trials over what the learning rate alone decides, and what it says at the end."""
    search, said = searched(tmp_path_factory.mktemp("found"), 16), []
    conclude(search, lambda settings: f"train --rate {settings['learning_rate']}", said.append)
    return search, said


def test_the_only_setting_that_matters_comes_first(found):
    shares = importance(found[0])
    assert next(iter(shares)) == "learning_rate" and shares["learning_rate"] > 0.8
    assert set(shares) == set(found[0].space)
    assert sum(shares.values()) == pytest.approx(1)


def test_a_trial_that_was_given_up_counts_in_what_mattered(tmp_path):
    """A high dropout does harm and is given up each time: by the completed trials alone it would hardly matter."""
    space = parse_space(SETTINGS, ["dropout=0.0..0.6", "head_dropout=0.0..0.6", "epochs=6"])
    search = searched(
        tmp_path, 20, lambda s, number, done: 3 - done + 2 * (s["dropout"] > 0.3 and number > 5), space=space
    )
    pruned = [trial for trial in search.trials(TrialState.PRUNED) if trial.params["dropout"] > 0.3]
    assert len(pruned) >= 3
    assert importance(search)["dropout"] > 0.6


def test_with_too_few_trials_or_no_difference_nothing_is_said_to_matter(tmp_path):
    few = searched(tmp_path / "few", 4, space=RATE)
    assert importance(few) == {} and bars({}, 4) is None
    conclude(few, str, lambda _: None)
    assert "There are too few trials to tell." in (tmp_path / "few" / "index.html").read_text()
    assert not (tmp_path / "few" / "importance.png").exists()
    same = searched(tmp_path / "same", 6, lambda *_: 1.0)
    assert importance(same) == {}
    assert same.best.number == 0


def test_the_files_say_what_the_trials_did(found):
    search, said = found
    rows = list(csv.DictReader((search.folder / "trials.csv").open()))
    assert len(rows) == 16 and [int(row["trial"]) for row in rows] == list(range(16))
    first = rows[0]
    assert first["state"] == "completed" and first["reason"] == ""
    assert float(first["validation_calibrated_loss"]) == pytest.approx(math.exp(math.log10(5)))  # at 0.002
    assert {name: float(first[name]) for name in search.space} == {name: SETTINGS[name] for name in search.space}
    best = json.loads((search.folder / "best.json").read_text())
    assert best["validation_calibrated_loss"] == min(
        float(row["validation_calibrated_loss"]) for row in rows if row["state"] == "completed"
    )
    assert best["settings"]["learning_rate"] == best["changed"]["learning_rate"] != SETTINGS["learning_rate"]
    assert "data" not in best["settings"]
    assert best["command"] == f"train --rate {best['settings']['learning_rate']}"
    assert f"To train it: {best['command']}" in said
    less = 100 * (1 - best["validation_calibrated_loss"] / math.exp(math.log10(5)))
    assert f"That is {less:.1f} % less than the unchanged recipe, 2.0117." in said[1]


def test_the_page_stands_alone_and_warns(found):
    search, _ = found
    page = (search.folder / "index.html").read_text()
    completed = len(search.trials(TrialState.COMPLETE))
    assert f"Only {completed} trials were completed. With fewer than about 20 these shares are unreliable" in page
    assert "The best score is optimistic." in page and "No test picture was scored" in page
    assert page.count("<img") == 2 + len(search.space)
    assert all(
        source.startswith("data:image/png;base64,") for source in re.findall(r'(?:src|srcset|url)=?\(?"([^"]*)', page)
    )
    assert all((search.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in ("history", "knobs"))


def test_the_warning_goes_when_there_are_enough(tmp_path):
    search = searched(tmp_path, 20, lambda s, number, done: 3 - done - number / 100, space=RATE)
    conclude(search, str, lambda _: None)
    assert len(search.trials(TrialState.COMPLETE)) == 20
    page = (tmp_path / "index.html").read_text()
    assert "unreliable" not in page and "fANOVA" in page


def test_a_recipe_that_nothing_beats_and_values_outside_of_the_space_are_shown(tmp_path):
    space = parse_space(
        SETTINGS, ["batch_size=8,16", "optimizer=sgd,rmsprop", "learning_rate=1e-4..1.2e-4", "dropout=0.2"]
    )
    search = searched(tmp_path, 6, lambda s, number, done: 1 + number, space=space)
    said = []
    conclude(search, str, said.append)
    assert said[0] == "6 trials: 5 completed, 1 given up."
    assert said[1] == (
        "Best: trial 0, validation log loss 1.0000. That is the unchanged recipe: no other trial was better."
    )
    assert table(search)[0]["optimizer"] == "adam" and table(search)[0]["learning_rate"] == SETTINGS["learning_rate"]


def test_a_page_without_a_completed_recipe_or_without_anything_searched(tmp_path):
    def first_fails(settings, number, done):
        if number == 0:
            raise ValueError("<b>Training diverged</b> in epoch 1.")
        return 2 - done

    failed = searched(tmp_path / "failed", 2, first_fails, space=RATE)
    said = []
    conclude(failed, str, said.append)
    assert "The unchanged recipe was not completed, so there is nothing to compare it with." in said[1]
    page = (tmp_path / "failed" / "index.html").read_text()
    assert "&lt;b&gt;Training diverged" in page and "<b>Training" not in page
    fixed = searched(tmp_path / "fixed", 2, space=parse_space(SETTINGS, ["epochs=6"]))
    conclude(fixed, str, lambda _: None)
    assert "Nothing was searched" in (tmp_path / "fixed" / "index.html").read_text()


def test_before_a_trial_has_been_completed_there_is_no_page(tmp_path):
    search, said = made(tmp_path, of_rate), []
    conclude(search, str, said.append)
    assert said == ["No trial has begun.", "No trial has been completed, so there is no best one yet."]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trials.csv", "trials.journal"]


def test_sentences():
    rows = [{"state": "completed"}, {"state": "failed"}, {"state": "completed"}]
    assert counted(rows) == "3 trials: 2 completed, 1 failed."
    best = {"trial": 4, "validation_calibrated_loss": 0.03, "recipe_validation_calibrated_loss": 0.04}
    assert gain(best) == "That is 25.0 % less than the unchanged recipe, 0.0400."
    knobs = parse_space(SETTINGS, ["learning_rate=1e-4..1e-2:log", "epochs=2..8", "optimizer=sgd,adam"])
    assert [in_words(knob) for knob in knobs.values()] == [
        "0.0001 to 0.01, on a logarithmic scale", "2 to 8", "sgd, adam",
    ]  # fmt: skip
