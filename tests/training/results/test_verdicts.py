"""Each rule on learning curves speaks where it should, and only there."""

import math

import numpy as np
import pytest

from training.photos.augment import Augmentation
from training.results.verdicts import RULES, augmentation, guessing, judge, training_handicaps
from training.settings import DEFAULTS, OF_BACKBONES, OF_NETWORKS, override

CHANCE = math.log(2)
NETWORK = {**DEFAULTS, **OF_NETWORKS, "size": 32, "network": "cnn"}
BACKBONE = {**DEFAULTS, **OF_BACKBONES, "size": 32, "backbone": "MobileNetV2"}


def curves(**columns: list[float]) -> dict[str, np.ndarray]:
    """A history that nothing can be said against, with some columns changed; its best epoch is the last but one."""
    plain = {
        "train_loss": [0.40, 0.20, 0.15, 0.12, 0.11],
        "train_accuracy": [0.85, 0.92, 0.94, 0.95, 0.955],
        "validation_loss": [0.38, 0.25, 0.18, 0.16, 0.161],
        "validation_accuracy": [0.86, 0.91, 0.93, 0.94, 0.94],
    }
    found = {name: np.array(values, float) for name, values in {**plain, **columns}.items() if values}
    number = len(next(iter(found.values())))
    return {"epoch": np.arange(1.0, number + 1), **{name: values[:number] for name, values in found.items()}}


def fired(history: dict, settings: dict = NETWORK, photos: int | None = 1000, chance: float = CHANCE) -> set[str]:
    return {verdict.name for verdict in judge(history, {**settings, "epochs": 5}, chance=chance, photos=photos)}


FLAT = {"validation_calibrated_loss": [0.37, 0.24, 0.17, 0.15, 0.151]}
CASES = {
    "plain": ({}, {"balanced"}),
    "accuracy_gap": ({"train_accuracy": [0.85, 0.92, 0.95, 0.98, 0.99]}, {"overfitting"}),
    "just_no_gap": ({"train_accuracy": [0.85, 0.92, 0.95, 0.969, 0.97]}, {"balanced"}),
    "loss_ratio": ({"train_loss": [0.4, 0.2, 0.12, 0.10, 0.09]}, {"overfitting"}),
    "small_losses": (
        {"train_loss": [0.1, 0.05, 0.02, 0.01, 0.01], "validation_loss": [0.09, 0.07, 0.06, 0.055, 0.0551]},
        {"balanced"},  # five times the training loss, but 0.045 is little
    ),
    "rising": ({"validation_loss": [0.38, 0.16, 0.17, 0.19, 0.22]}, {"rising", "training_worse"}),
    "rising_a_little": ({"validation_loss": [0.38, 0.25, 0.18, 0.16, 0.167]}, {"balanced"}),
    "only_too_sure": ({"validation_loss": [0.38, 0.25, 0.15, 0.16, 0.17], **FLAT}, {"rising", "balanced"}),
    "underfitting": (
        {"train_accuracy": [0.6, 0.65, 0.7, 0.74, 0.75], "validation_accuracy": [0.6, 0.65, 0.7, 0.73, 0.73]},
        {"underfitting"},
    ),
    "chance": (
        {
            "train_loss": [0.70, 0.694, 0.693, 0.693, 0.692], "validation_loss": [0.695, 0.694, 0.694, 0.693, 0.6935],
            "train_accuracy": [0.5, 0.5, 0.51, 0.5, 0.51], "validation_accuracy": [0.5, 0.5, 0.5, 0.5, 0.5],
        },
        {"not_learning"},
    ),
    "still_falling": ({"validation_loss": [0.38, 0.25, 0.18, 0.16, 0.14]}, {"still_falling", "balanced"}),
    "hardly_falling": ({"validation_loss": [0.38, 0.25, 0.18, 0.16, 0.159]}, {"balanced"}),
    "training_worse": (
        {"train_loss": [0.6, 0.4, 0.3, 0.25, 0.24], "train_accuracy": [0.7, 0.8, 0.88, 0.9, 0.9]},
        {"training_worse", "balanced"},
    ),
    "two_epochs": (
        {"train_loss": [0.4, 0.1], "train_accuracy": [0.85, 0.99], "validation_loss": [0.9, 0.899],
         "validation_accuracy": [0.7, 0.7]},  # it looks like overfitting, but the averages have hardly begun
        {"few_epochs", "stopped"},
    ),
    "stopped": (
        {"train_loss": [0.2, 0.15, 0.12, 0.11], "train_accuracy": [0.92, 0.94, 0.95, 0.955],
         "validation_loss": [0.25, 0.16, 0.161, 0.162], "validation_accuracy": [0.91, 0.94, 0.94, 0.94]},
        {"stopped", "balanced"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_rule_speaks_on_its_case_alone(case):
    columns, expected = CASES[case]
    assert fired(curves(**columns)) == expected


def test_every_rule_has_a_case_and_is_written_down():
    assert set().union(*(expected for _, expected in CASES.values())) == set(RULES)
    for verdict in judge(curves(), NETWORK, chance=CHANCE):
        assert verdict.name in RULES


def test_a_gap_within_the_noise_of_few_pictures_is_none():
    columns = {"train_accuracy": [0.85, 0.92, 0.95, 0.98, 0.99]}  # 4 points; the standard error of 50 is 3.4
    assert "overfitting" in fired(curves(**columns), photos=1000)
    assert "overfitting" not in fired(curves(**columns), photos=50)


def test_the_numbers_are_those_of_the_kept_epoch():
    history = curves(train_accuracy=[0.85, 0.92, 0.95, 0.98, 0.99])
    (verdict,) = [v for v in judge(history, NETWORK, chance=CHANCE, photos=1000) if v.name == "overfitting"]
    assert verdict.numbers["accuracy_gap"] == pytest.approx(0.04)
    assert verdict.numbers["train_loss"] == 0.12 and verdict.numbers["validation_loss"] == 0.16
    assert "epoch 4" in verdict.text and "98.00 %" in verdict.text and "4.0 points" in verdict.text


def test_the_calibrated_loss_chooses_the_epoch_where_it_is_known():
    history = curves(validation_calibrated_loss=[0.3, 0.1, 0.2, 0.2, 0.2])
    (verdict,) = [v for v in judge(history, NETWORK, chance=CHANCE) if v.name == "training_worse"] or [None]
    assert verdict is None
    assert fired(history) == set()  # rising once calibrated, so not balanced; the plain loss does not rise


@pytest.mark.parametrize("missing", ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"])
def test_what_is_missing_makes_no_verdict(missing):
    history = curves(train_accuracy=[0.85, 0.92, 0.95, 0.98, 0.99], train_loss=[0.5, 0.3, 0.12, 0.1, 0.09])
    history.pop(missing)
    assert fired(history) <= {"overfitting"}  # by the other measure
    assert "balanced" not in fired(history)
    nothing = {"epoch": np.array([1.0, 2, 3, 4, 5])}
    assert fired(nothing) == set()


@pytest.mark.parametrize("settings", [NETWORK, BACKBONE, NETWORK | {"dense": [16], "head": "dense"}])
@pytest.mark.parametrize("case", CASES)
def test_advice_names_settings_that_the_recipe_takes(settings, case):
    for verdict in judge(curves(**CASES[case][0]), settings, chance=CHANCE, photos=1000):
        for assignment, why in verdict.advice:
            assert why
            if assignment:
                changed = override(settings, [assignment])
                assert changed != settings
        if verdict.kind == "warn":
            assert verdict.advice


def test_advice_against_overfitting_goes_on_from_what_is_there():
    history = curves(train_accuracy=[0.85, 0.92, 0.95, 0.98, 0.99])

    def advice(settings: dict) -> list[str]:
        (verdict,) = [v for v in judge(history, settings, chance=CHANCE) if v.name == "overfitting"]
        return [assignment for assignment, _ in verdict.advice]

    assert "dropout=0.3" in advice(NETWORK) and "shift=0.1" in advice(NETWORK)
    assert "weight_decay=0.001" in advice(NETWORK)
    assert "l2=0.0001" in advice(NETWORK | {"optimizer": "adam"})
    assert "weight_decay=0.0015" in advice(NETWORK | {"optimizer": "sgd", "weight_decay": 0.0005})
    more = advice(NETWORK | {"dropout": 0.2, "shift": 0.1, "weight_decay": 0.01, "train_photos": 500})
    assert {"dropout=0.3", "weight_decay=0.03", "train_photos=0"} <= set(more) and "shift=0.1" not in more


def test_training_is_said_to_be_harder_only_by_what_is_on():
    assert training_handicaps(NETWORK) == [] and augmentation(NETWORK) == {}
    assert augmentation(NETWORK | {"fill": "black"}) == {}  # of something that is never moved away
    on = NETWORK | {"flip": True, "rotation": 10.0, "fill": "black", "dropout": 0.2}
    assert augmentation(on) == {"flip": True, "rotation": 10.0, "fill": "black"}
    assert training_handicaps(on) == ["on augmented pictures (flip, rotation, fill)", "with dropout on (dropout=0.2)"]
    assert not Augmentation(**augmentation(on)).does_nothing()


def test_guessing_costs_the_entropy_of_the_shares():
    assert guessing(np.array([1, 1])) == pytest.approx(math.log(2))
    assert guessing(np.array([0.9, 0.1])) == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert guessing(np.array([3, 0])) == 0
