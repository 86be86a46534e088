from types import SimpleNamespace

import keras
import numpy as np
import pytest

from training.networks.networks import network
from training.networks.optimise import decay_kernels, learning_rate, live_statistics, make_optimizer
from training.photos.batches import class_weights
from training.settings import DEFAULTS, KNOBS, OF_NETWORKS

SETTINGS = {**DEFAULTS, **OF_NETWORKS, "network": "cnn", "size": 16, "blocks": [[3]], "learning_rate": 0.5}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.25, 0.5, 0.5, 0.5, 0.5]),
        ("triangle", [0.25, 0.5, 0.5, 0.25, 0.125]),
        ("cosine", [0.25, 0.5, 0.5, 0.25, 0.5 * (1 + np.cos(0.75 * np.pi)) / 2]),
    ],
)
def test_the_rate_warms_up_and_falls_as_the_schedule_says(schedule, expected):
    settings = {**SETTINGS, "schedule": schedule, "warmup_steps": 2}
    rates = [learning_rate(settings, step, total=10) for step in (0, 1, 2, 6, 8)]
    assert rates == pytest.approx(expected)


def test_a_warm_up_longer_than_the_run_takes_half_of_it():
    assert learning_rate({**SETTINGS, "warmup_steps": 99}, 4, total=10) == 0.5


@pytest.mark.parametrize("name", KNOBS["optimizer"].allowed)
def test_each_optimizer_decays_kernels_and_nothing_else(name):
    """With no gradient, a step is the decay alone: weights shrink by rate times decay."""
    keras.utils.set_random_seed(0)
    model = network(SETTINGS, 3)
    optimizer = make_optimizer({**SETTINGS, "optimizer": name, "weight_decay": 0.1})
    before = [np.asarray(v) for v in model.trainable_variables]
    optimizer.apply([keras.ops.zeros_like(v) for v in model.trainable_variables], model.trainable_variables)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        share = 1 - 0.5 * 0.1 if variable.path.endswith("kernel") else 1
        np.testing.assert_allclose(np.asarray(variable), share * old, rtol=1e-5)


def test_l2_is_added_for_kernels_only():
    model = network(SETTINGS, 3)
    decay_kernels(model, 0.01)
    kernels = [np.asarray(v) for v in model.trainable_variables if v.path.endswith("kernel")]
    assert len(kernels) == 2
    assert float(sum(model.losses)) == pytest.approx(0.01 * sum((k**2).sum() for k in kernels), rel=1e-5)
    assert network(SETTINGS, 3).losses == []


def test_balanced_weights_give_every_label_the_same_sum():
    photos = SimpleNamespace(labels=np.array([0] * 6 + [1] * 3 + [2]), label_names=["a", "b", "c"])
    weights = class_weights(photos, "balanced")
    np.testing.assert_allclose(weights * [6, 3, 1], 10 / 3, rtol=1e-6)
    assert class_weights(photos, "equal") is None


def test_only_batch_normalisation_in_training_has_live_statistics():
    model = network(SETTINGS, 3)
    assert [v.name for v in live_statistics(model)] == ["moving_mean", "moving_variance"]
    for layer in model.layers:
        layer.trainable = False
    assert live_statistics(model) == []
