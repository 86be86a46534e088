"""A recipe's assignments as checked settings: what a recipe leaves out has a default, and every value has bounds."""

import ast
import difflib
import importlib
import types
from typing import Any

from hub.errors import DataError

# Every knob that a recipe may leave out, with the value that then holds. A recipe names `data` and `size`, and either
# a `backbone` of keras.applications or a `network` of training/networks.py.
DEFAULTS: dict[str, Any] = {
    "seed": 0,
    # which pictures; shares are taken out of what the data set does not bring as splits of its own
    "validation_share": 0.1, "test_share": 0.1,
    "train_photos": 0, "validation_photos": 0, "test_photos": 0,  # at most so many, drawn by lot; 0 is all
    # how the weights move
    "optimizer": "adamw", "momentum": 0.9, "learning_rate": 1e-3, "schedule": "cosine", "warmup_steps": 0,
    "epochs": 10, "batch_size": 32, "weight_decay": 0.0, "l2": 0.0, "label_smoothing": 0.0, "class_weights": "equal",
    "average_decay": 0.0,
    # when the rate falls, and when it is enough: epochs without a better validation log loss; 0 is never
    "plateau_patience": 0, "plateau_factor": 0.5, "patience": 1000,
    # what may happen to a training photo: training/augment.py
    "crop_area": 1.0, "aspect": 1.0, "zoom": 0.0, "shift": 0.0, "shear": 0.0, "flip": False, "rotation": 0.0,
    "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "sharpness": 0.0, "jpeg": 0, "erase": 0.0, "fill": "mean",
    "dropout": 0.0,
}  # fmt: skip
OF_BACKBONES = {
    "backbone_weights": "imagenet",
    "inverse_regularisation": [0.01, 0.1, 1.0],
    "freeze": None,  # in stage 2: a share of the layers, or the name of the last one; from the photo on
    "live_batch_norm": False,
}
OF_NETWORKS = {
    "blocks": [[32], [64]], "batch_norm": True, "whiten": False,
    "mirror": False,  # once trained, answer by the mean over a picture and its mirror image
    "head": "evidence", "dense": [], "head_dropout": 0.0, "one_unit": False,
}  # fmt: skip

PLACES = ("data", "backbone_weights")  # settings that say where things lie on one machine, not what they are

# The least and the most that a setting may be, both included.
RANGES = {
    "size": (16, 1024), "epochs": (1, 10_000), "batch_size": (1, 4096), "learning_rate": (0.0, 10.0),
    "warmup_steps": (0, 1_000_000), "weight_decay": (0.0, 1.0), "average_decay": (0.0, 1.0), "patience": (1, 10_000),
    "crop_area": (0.05, 1.0), "aspect": (1.0, 4.0), "rotation": (0.0, 180.0), "brightness": (0.0, 1.0),
    "contrast": (0.0, 1.0), "saturation": (0.0, 1.0), "sharpness": (0.0, 1.0), "jpeg": (0, 95),
    "seed": (0, 2**32 - 1), "validation_share": (0.01, 0.5), "test_share": (0.0, 0.5),
    "train_photos": (0, 10**9), "validation_photos": (0, 10**9), "test_photos": (0, 10**9),
    "momentum": (0.0, 0.9999), "l2": (0.0, 1.0), "label_smoothing": (0.0, 0.9), "plateau_patience": (0, 10_000),
    "plateau_factor": (0.01, 0.99), "zoom": (0.0, 0.9), "shift": (0.0, 0.9), "shear": (0.0, 60.0), "erase": (0.0, 0.9),
    "dropout": (0.0, 0.95), "head_dropout": (0.0, 0.95),
}  # fmt: skip
CHOICES = {
    "optimizer": ("adamw", "adam", "sgd", "rmsprop"),
    "schedule": ("cosine", "triangle", "constant"),
    "class_weights": ("equal", "balanced"),
    "fill": ("mean", "black", "nearest", "reflect"),
    "network": ("cnn", "resnet"),
    "head": ("evidence", "dense"),
}


def load_recipe(name: str) -> dict[str, Any]:
    """The plain assignments of `training/recipes/<name>.py`, in their order, and then what it left at its default.

    Raises:
        DataError: no such recipe; the nearest name is suggested.
    """
    try:
        module = importlib.import_module(f"training.recipes.{name}")
    except ModuleNotFoundError as error:
        raise DataError(f"There is no recipe {name!r}{_nearest(name, recipes())}.") from error
    own = {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and not isinstance(value, types.ModuleType) and not callable(value)
    }
    defaults = {**DEFAULTS, **(OF_BACKBONES if "backbone" in own else OF_NETWORKS)}
    return {**own, **{key: value for key, value in defaults.items() if key not in own}}


def told(settings: dict[str, Any]) -> dict[str, Any]:
    """What a card lists: the settings of every run, and those others that are not at their defaults."""
    defaults = {**DEFAULTS, **OF_BACKBONES, **OF_NETWORKS}
    always = {"seed", "optimizer", "learning_rate", "schedule", "epochs", "batch_size"}
    return {
        key: value
        for key, value in settings.items()
        if key not in PLACES and (key in always or key not in defaults or value != defaults[key])
    }


def recipes() -> list[str]:
    """The names of all recipes."""
    import pkgutil

    package = importlib.import_module("training.recipes")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def override(settings: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """`settings` with `key=value` strings applied, each checked by name and type.

    A value takes the type of the recipe's own; where that is None, any Python literal or text is taken.

    Raises:
        DataError: not of the form key=value, no such setting (the nearest is suggested), or another type.
    """
    changed = dict(settings)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals:
            raise DataError(f"{assignment!r} is not of the form key=value.")
        if key not in settings:
            raise DataError(f"There is no setting {key!r}{_nearest(key, list(settings))}.")
        changed[key] = _parse(key, text.strip(), settings[key])
    return changed


def settings_of(recipe: str, assignments: list[str], **named: str | None) -> dict[str, Any]:
    """A recipe's settings as `key=value` strings and then those named change them, checked; None changes nothing.

    Raises:
        DataError: as `load_recipe`, `override` and `check` have it.
    """
    given = [f"{key}={value}" for key, value in named.items() if value is not None]
    settings = override(load_recipe(recipe), [*assignments, *given])
    check(settings)
    return settings


def shares_of(settings: dict[str, Any]) -> dict[str, float]:
    """The settings that say which share of the pictures is held out for what."""
    return {name: settings[name] for name in ("validation_share", "test_share")}


def check(settings: dict[str, Any]) -> None:
    """Refuse values that no run can work with.

    Raises:
        DataError: names the setting and what it may be.
    """

    def demand(fine: bool, key: str, what: str) -> None:
        if not fine:
            raise DataError(f"{key} must be {what}, not {settings[key]!r}.")

    if not settings["data"]:
        raise DataError("This recipe brings no photos; name them: --data FOLDER, or a data set's name on the Hub.")
    for key, (low, high) in RANGES.items():
        demand(key not in settings or low <= settings[key] <= high, key, f"from {low} to {high}")
    for key, names in CHOICES.items():
        demand(key not in settings or settings[key] in names, key, f"one of {', '.join(names)}")
    if "backbone" in settings:
        demand(_numbers_above_0(settings["inverse_regularisation"]), "inverse_regularisation",
               "a list of numbers above 0")  # fmt: skip
        freeze = settings["freeze"]
        share = isinstance(freeze, int | float) and not isinstance(freeze, bool) and 0 <= freeze <= 1
        demand(freeze is None or share or isinstance(freeze, str), "freeze", "a share from 0 to 1 or a layer's name")
        return
    blocks = settings["blocks"]
    demand(
        isinstance(blocks, list) and bool(blocks) and all(_whole_numbers(block) and block for block in blocks),
        "blocks", "lists of numbers of filters, one list a block",
    )  # fmt: skip
    demand(_whole_numbers(settings["dense"]), "dense", "a list of numbers of units")
    demand(settings["size"] >= 2 ** len(blocks), "size", f"at least {2 ** len(blocks)}, as each block halves it")
    demand(settings["head"] == "evidence" or not settings["mirror"], "mirror", "False but for head=evidence")
    demand(settings["network"] == "resnet" or not settings["whiten"], "whiten", "False but for network=resnet")
    demand(settings["head"] == "dense" or not settings["dense"], "dense", "[] under head=evidence, which is linear")


def _numbers_above_0(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(v, int | float) and v > 0 for v in values)


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 < value <= 8192 for value in values)


def _parse(key: str, text: str, current: Any) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(current, str):
        return text
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if current is None or type(value) is type(current):
        return value
    raise DataError(f"{key} must be of type {type(current).__name__} (the recipe has {current!r}), not {text!r}.")


def _nearest(name: str, names: list[str]) -> str:
    found = difflib.get_close_matches(name, names, 1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else f" (there are: {', '.join(names)})"
