"""How the weights move: optimizer, learning rate, regularisation, class weights."""

import math

import keras


def make_optimizer(settings: dict) -> keras.optimizers.Optimizer:
    """The recipe's optimizer; its learning rate is set before each step, to that of `learning_rate`.

    Weight decay is decoupled (Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101) whichever optimizer it is,
    and leaves out what only shifts or scales: biases and batch normalisation.
    """
    rate, decay, momentum = settings["learning_rate"], settings["weight_decay"] or None, settings["momentum"]
    optimizer = {
        "adamw": lambda: keras.optimizers.AdamW(rate, weight_decay=settings["weight_decay"]),
        "adam": lambda: keras.optimizers.Adam(rate, weight_decay=decay),
        "sgd": lambda: keras.optimizers.SGD(rate, momentum, nesterov=momentum > 0, weight_decay=decay),
        "rmsprop": lambda: keras.optimizers.RMSprop(rate, momentum=momentum, weight_decay=decay),
    }[settings["optimizer"]]()
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def learning_rate(settings: dict, step: int, total: int) -> float:
    """The rate of one step of `total`: up in a straight line over the warm-up, then as the schedule says.

    "cosine" falls to 0 along half a cosine, "triangle" in a straight line, "constant" stays.
    """
    warmup = min(settings["warmup_steps"], total // 2)
    if step < warmup:
        return settings["learning_rate"] * (step + 1) / warmup
    done = (step - warmup) / (total - warmup)
    left = {"cosine": (1 + math.cos(math.pi * done)) / 2, "triangle": 1 - done, "constant": 1.0}
    return settings["learning_rate"] * left[settings["schedule"]]


def decay_kernels(model: keras.Model, l2: float) -> None:
    """Add l2 times the sum of squares of every trainable kernel to the loss (not of biases or normalisation)."""
    for variable in model.trainable_variables:
        if l2 and variable.path.endswith("kernel"):
            variable.regularizer = keras.regularizers.L2(l2)


def live_statistics(model: keras.Model) -> list[keras.Variable]:
    """The means and variances of the batch normalisation that is being trained."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    return [variable for layer in norms for variable in layer.non_trainable_variables]
