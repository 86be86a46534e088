"""A recipe's assignments as checked settings: what a recipe leaves out has a default, and every value has bounds."""

import ast
import difflib
import importlib
import pkgutil
import types
from dataclasses import dataclass
from typing import Any

from hub.errors import DataError, first_line

REQUIRED = ...  # in the place of a default: a recipe has to name it


@dataclass(frozen=True)
class Knob:
    """One setting: the value that holds where a recipe leaves it out, the values it may have, and what it does.

    Attributes:
        allowed: the least and the most, both included; or the words to choose from; or None, for what `check` tests.
        searched: whether `tune` may try values of it. Trials with other pictures or another size cannot be compared,
            and trials with another seed differ by luck alone.
    """

    default: Any
    allowed: tuple | None
    what: str
    searched: bool = True

    @property
    def is_range(self) -> bool:
        """Whether `allowed` is a least and a most."""
        return bool(self.allowed) and not isinstance(self.allowed[0], str)


# Every knob there is: its default, what it may be, and what it does. The tables below, the fields of `Augmentation`
# and docs/settings.md are made from this.
ALWAYS = {
    "data": Knob(REQUIRED, None, "the pictures: a folder, or a data set's name on the Hub", searched=False),
    "size": Knob(REQUIRED, (16, 1024), "side in pixels of the square that pictures are resized to", searched=False),
    "seed": Knob(0, (0, 2**32 - 1), "start value of all random numbers", searched=False),
    "validation_share": Knob(0.1, (0.01, 0.5), "share of the pictures that epochs are chosen on; "
                             "not used where the data set has its own validation split", searched=False),
    "test_share": Knob(0.1, (0.0, 0.5), "share of the pictures for the final score; "
                       "not used where the data set has its own test split", searched=False),
    "own_validation": Knob(True, None, "use the validation split that the data set has; False: put it together with "
                           "the training pictures, and draw another", searched=False),
    "train_photos": Knob(0, (0, 10**9), "at most this many training pictures; 0 means all", searched=False),
    "validation_photos": Knob(0, (0, 10**9), "at most this many validation pictures; 0 means all", searched=False),
    "test_photos": Knob(0, (0, 10**9), "at most this many test pictures; 0 means all", searched=False),
}  # fmt: skip
TRAINING = {
    "optimizer": Knob("adamw", ("adamw", "adam", "sgd", "rmsprop"), "the rule by which the weights move"),
    "momentum": Knob(0.9, (0.0, 0.9999), "momentum of sgd (Nesterov's) and rmsprop"),
    "learning_rate": Knob(1e-3, (0.0, 10.0), "size of the steps, at its highest"),
    "schedule": Knob("cosine", ("cosine", "triangle", "constant"), "how the rate falls after the warm-up: along half a "
                     "cosine to 0, in a straight line to 0, or not at all"),
    "warmup_steps": Knob(0, (0, 1_000_000), "batches over which the rate rises to its highest"),
    "epochs": Knob(10, (1, 10_000), "how many times all training pictures are seen"),
    "batch_size": Knob(32, (1, 4096), "pictures in a step"),
    "weight_decay": Knob(0.0, (0.0, 1.0), "share of each weight, times the rate, that is taken off at each step; "
                         "not of biases or batch normalisation"),
    "l2": Knob(0.0, (0.0, 1.0), "this times the sum of squares of the weights is added to the loss"),
    "label_smoothing": Knob(0.0, (0.0, 0.9), "share of the target that is spread evenly over all labels"),
    "class_weights": Knob("equal", ("equal", "balanced"), "balanced: all labels count the same in the loss, however "
                          "few pictures one has"),
    "average_decay": Knob(0.0, (0.0, 1.0), "average the weights over about the last 1 / (1 - this) steps; "
                           "0 means no average"),
    "plateau_patience": Knob(0, (0, 10_000), "epochs without a better validation log loss before the rate is lowered; "
                             "0 means never"),
    "plateau_factor": Knob(0.5, (0.01, 0.99), "the rate is then multiplied by this"),
    "patience": Knob(1000, (1, 10_000), "epochs without a better validation log loss before training stops"),
    "dropout": Knob(0.0, (0.0, 0.95), "share of the features that is left out at random: after each block of a small "
                    "network, before the head of a backbone"),
}  # fmt: skip
# What may happen to a training picture. Every amount is drawn evenly, and every default does nothing.
AUGMENTATION = {
    "crop_area": Knob(1.0, (0.05, 1.0), "smallest share of the picture's area that is kept"),
    "aspect": Knob(1.0, (1.0, 4.0), "the crop's sides may differ by up to this factor"),
    "flip": Knob(False, None, "mirror half of the pictures"),
    "rotation": Knob(0.0, (0.0, 180.0), "turn by up to this many degrees, either way"),
    "brightness": Knob(0.0, (0.0, 1.0), "multiply the brightness by 1 - this to 1 + this"),
    "contrast": Knob(0.0, (0.0, 1.0), "multiply the contrast by 1 - this to 1 + this"),
    "saturation": Knob(0.0, (0.0, 1.0), "multiply the strength of colours by 1 - this to 1 + this"),
    "sharpness": Knob(0.0, (0.0, 1.0), "blur or sharpen half of the pictures, by 1 - this to 1 + this"),
    "jpeg": Knob(0, (0, 95), "lowest JPEG quality, for a third of the pictures; 0 means none"),
    "zoom": Knob(0.0, (0.0, 0.9), "enlarge or shrink by a factor of 1 - this to 1 + this"),
    "shift": Knob(0.0, (0.0, 0.9), "move by up to this share of the side, along each axis"),
    "shear": Knob(0.0, (0.0, 60.0), "slant the columns by up to this many degrees, either way"),
    "erase": Knob(0.0, (0.0, 0.9), "side of a square that is painted over at a random place, as a share of the "
                  "picture's side; its centre may lie anywhere, so it may stick out (DeVries and Taylor 2017, "
                  "https://arxiv.org/abs/1708.04552)"),
    "fill": Knob("mean", ("mean", "black", "nearest", "reflect"), "what shows in the square and where the picture has "
                 "moved away: its mean colour or black; only where it has moved away also its nearest pixels or its "
                 "reflection"),
}  # fmt: skip
BACKBONE = {
    "backbone": Knob(REQUIRED, None, "a network of keras.applications, by its name there", searched=False),
    "backbone_weights": Knob("imagenet", None, "imagenet, random, or a weights file", searched=False),
    "inverse_regularisation": Knob([0.01, 0.1, 1.0], None, "strengths to try for the logistic regression of stage 1; "
                                   "smaller holds the weights back more"),
    "freeze": Knob(None, None, "layers that stage 2 leaves as they are, counted from the picture on: a share of them, "
                   "or the name of the last one; None means none"),
    "live_batch_norm": Knob(False, None, "train batch normalisation too, and let its statistics move"),
}  # fmt: skip
NETWORK = {
    "network": Knob(REQUIRED, ("cnn", "resnet"), "plain convolutions, or residual units", searched=False),
    "blocks": Knob([[32], [64]], None, "filters of each convolution, one list per block; each block halves the size"),
    "batch_norm": Knob(True, None, "batch normalisation after each convolution"),
    "whiten": Knob(False, None, "resnet only: a fixed first convolution that makes colours of neighbours uncorrelated"),
    "mirror": Knob(False, None, "once trained, answer by the mean over a picture and its mirror image"),
    "head": Knob("evidence", ("evidence", "dense"), "evidence: a linear map at every cell, then the mean; "
                 "dense: flatten and dense layers, which keep no map"),
    "dense": Knob([], None, "head=dense only: units of the layers before the last"),
    "head_dropout": Knob(0.0, (0.0, 0.95), "share of the features that is left out at random in the head"),
    "one_unit": Knob(False, None, "two labels only: one sigmoid unit in place of two logits"),
}  # fmt: skip
SECTIONS = {
    "Pictures": ALWAYS,
    "How the weights move": TRAINING,
    "What may happen to a training picture": AUGMENTATION,
    "A backbone that has seen other pictures": BACKBONE,
    "A small network, trained from nothing": NETWORK,
}
KNOBS: dict[str, Knob] = {name: knob for section in SECTIONS.values() for name, knob in section.items()}


def _defaults(*sections: dict[str, Knob]) -> dict[str, Any]:
    return {name: knob.default for part in sections for name, knob in part.items() if knob.default is not REQUIRED}


DEFAULTS = _defaults(ALWAYS, TRAINING, AUGMENTATION)
OF_BACKBONES, OF_NETWORKS = _defaults(BACKBONE), _defaults(NETWORK)  # beside DEFAULTS, of a recipe of that kind
PLACES = ("data", "backbone_weights")  # settings that say where things lie on one machine, not what they are


def load_recipe(name: str) -> dict[str, Any]:
    """The plain assignments of `training/recipes/<name>.py`, in their order, and then what it left at its default.

    Raises:
        DataError: no such recipe (the nearest name is suggested), or it assigns what is no setting.
    """
    if name not in recipes():
        raise DataError(f"There is no recipe {name!r}{_nearest(name, recipes())}")
    path = f"training/recipes/{name}.py"
    try:
        module = importlib.import_module(f"training.recipes.{name}")
    except (SyntaxError, NameError) as error:
        raise DataError(f"{path} is not plain Python assignments: {first_line(error)}.") from error
    own = {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and not isinstance(value, types.ModuleType) and not callable(value)
    }
    kind = BACKBONE if "backbone" in own else NETWORK
    known = {**ALWAYS, **TRAINING, **AUGMENTATION, **kind}
    for key in own.keys() - known.keys():
        raise DataError(f"{path} assigns {key!r}, which is not a setting{_nearest(key, list(known))}")
    for key in ("data", "size", next(iter(kind))):
        if key not in own:
            raise DataError(f"{path} does not assign {key!r}; add it: {known[key].what}.")
    return completed(own)


def completed(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings and, after them, the defaults of those left out: by a recipe, or by a run older than a knob."""
    defaults = {**DEFAULTS, **(OF_BACKBONES if "backbone" in settings else OF_NETWORKS)}
    return {**settings, **{key: value for key, value in defaults.items() if key not in settings}}


def listed() -> str:
    """Every setting in Markdown: what `python -m training settings` prints and docs/settings.md holds."""
    lines = [
        "# Settings",
        "",
        "A recipe in [training/recipes](../training/recipes) is a list of plain assignments to these names. What it",
        "leaves out has its default. `--set NAME=VALUE` changes one for a single run. This page is what",
        "`python -m training settings` prints; [training/settings.py](../training/settings.py) is where it comes from.",
    ]
    for title, knobs in SECTIONS.items():
        lines += ["", f"## {title}", ""]
        lines += [f"- `{name}` ({_in_words(knob)}): {knob.what}" for name, knob in knobs.items()]
    return "\n".join(lines)


def _in_words(knob: Knob) -> str:
    """The default of a knob and what else it may be."""
    default = "a recipe names it" if knob.default is REQUIRED else str(knob.default)
    if not knob.allowed:
        return default
    may = "{} to {}".format(*knob.allowed) if knob.is_range else f"one of {', '.join(knob.allowed)}"
    return f"{default}; {may}"


def card_settings(settings: dict[str, Any]) -> dict[str, Any]:
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
            raise DataError(f"There is no setting {key!r}{_nearest(key, list(settings))}")
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
    """The settings that say which of the pictures are held out for what."""
    return {name: settings[name] for name in ("validation_share", "test_share", "own_validation")}


def check(settings: dict[str, Any]) -> None:
    """Refuse values that no run can work with.

    Raises:
        DataError: names the setting and what it may be.
    """

    def demand(fine: bool, key: str, what: str) -> None:
        if not fine:
            raise DataError(f"{key} must be {what}, not {settings[key]!r}.")

    if not settings["data"]:
        raise DataError(
            "This recipe has no photos of its own; name some: --data FOLDER, or a data set's name on the Hub."
        )
    for key, knob in KNOBS.items():
        if key in settings:
            problem = _unfit(knob, settings[key])
            demand(not problem, key, problem)
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
        "blocks", "lists of numbers of filters, one list per block",
    )  # fmt: skip
    demand(_whole_numbers(settings["dense"]), "dense", "a list of numbers of units")
    demand(settings["size"] >= 2 ** len(blocks), "size", f"at least {2 ** len(blocks)}, as each block halves it")
    demand(settings["head"] == "evidence" or not settings["mirror"], "mirror", "False unless head=evidence")
    demand(settings["network"] == "resnet" or not settings["whiten"], "whiten", "False unless network=resnet")
    demand(settings["head"] == "dense" or not settings["dense"], "dense", "[] under head=evidence, which is linear")


def _unfit(knob: Knob, value: Any) -> str:
    """What a value would have to be by the table; empty where it is that."""
    if knob.is_range:
        low, high = knob.allowed
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            return f"from {low} to {high}"
        return "a whole number" if isinstance(low, int) and not isinstance(value, int) else ""
    if knob.allowed:
        return "" if value in knob.allowed else f"one of {', '.join(knob.allowed)}"
    return "True or False" if isinstance(knob.default, bool) and value not in (True, False) else ""


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
    return f"; did you mean {found[0]!r}?" if found else f" (there are: {', '.join(names)})."
