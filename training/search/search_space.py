"""What `python -m training tune` searches: a range or a list of choices for each knob."""

from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hub.errors import DataError
from training.settings import DEFAULTS, KNOBS, check, override

AUGMENTATION = ("rotation", "shift", "shear", "zoom", "brightness", "contrast", "flip", "crop_area")
MOST_DROPOUT = 0.6
DIGITS = 3  # of a value that is tried: more make no difference that could be measured

Space = dict[str, BaseDistribution]


def default_space(settings: dict[str, Any]) -> Space:
    """Learning rate, batch size, epochs, dropout and the augmentation that the recipe uses, around its own values."""
    rate, epochs = settings["learning_rate"], settings["epochs"]
    space: Space = {}
    if rate > 0:
        space["learning_rate"] = _floats("learning_rate", rate / 10, rate * 10, log=True)
    space["batch_size"] = CategoricalDistribution(_neighbours(settings["batch_size"]))
    space["epochs"] = IntDistribution(-(-epochs // 2), min(2 * epochs, KNOBS["epochs"].allowed[1]))
    space["dropout"] = _floats("dropout", 0, max(MOST_DROPOUT, settings["dropout"]))
    if settings.get("head_dropout"):
        space["head_dropout"] = _floats("head_dropout", 0, max(MOST_DROPOUT, settings["head_dropout"]))
    return space | {name: _augmentation(name, settings[name]) for name in AUGMENTATION if _used(name, settings)}


def _used(name: str, settings: dict[str, Any]) -> bool:
    return settings[name] != DEFAULTS[name]


def _augmentation(name: str, value: float) -> BaseDistribution:
    """From nothing to double, as far as it may go; a crop's size falls where the others rise."""
    if name == "flip":
        return CategoricalDistribution([False, True])
    return _floats(name, 1 - 2 * (1 - value), 1) if name == "crop_area" else _floats(name, 0, 2 * value)


def _floats(name: str, low: float, high: float, log: bool = False) -> FloatDistribution:
    """A range, rounded and kept to what the setting may be."""
    least, most = KNOBS[name].allowed
    return FloatDistribution(max(rounded(low), least), min(rounded(high), most), log=log)


def _neighbours(size: int) -> list[int]:
    """A batch size with the powers of two on either side."""
    below, above = 1 << (size - 1).bit_length() - 1 if size > 1 else 1, 1 << size.bit_length()
    low, high = KNOBS["batch_size"].allowed
    return sorted({one for one in (below, size, above) if low <= one <= high})


def parse_space(settings: dict[str, Any], specs: list[str]) -> Space:
    """What `--space` names: KEY=LOW..HIGH, KEY=LOW..HIGH:log, or KEY=VALUE,VALUE,…; one value alone is kept to.

    Raises:
        DataError: no such setting (the nearest is suggested), one that is not for searching, or a value is refused.
    """
    space: Space = {}
    for spec in specs:
        name, equals, text = (part.strip() for part in spec.partition("="))
        if not equals:
            raise DataError(f"{spec!r} is not of the form KEY=LOW..HIGH or KEY=VALUE,VALUE.")
        if name in KNOBS and not KNOBS[name].searched:
            raise DataError(f"{name} is not for searching, as trials that differ in it cannot be compared; use --set.")
        if isinstance(settings.get(name), list):
            raise DataError(f"{name} is a list, which is not for searching; use --set, in a search for each.")
        space[name] = _range(settings, name, text) if ".." in text else _choices(settings, name, text)
    return space


def _choices(settings: dict[str, Any], name: str, text: str) -> BaseDistribution:
    values = [_value(settings, name, part) for part in text.split(",")]
    if not all(isinstance(value, bool | int | float | str | None) for value in values):
        raise DataError(f"{name} takes numbers, words and None in a search, not {text!r}.")
    return CategoricalDistribution(list(dict.fromkeys(values)))


def _range(settings: dict[str, Any], name: str, text: str) -> BaseDistribution:
    ends, colon, scale = text.partition(":")
    low, high = (_value(settings, name, end) for end in ends.split("..", 1))
    if not all(type(end) in (int, float) for end in (low, high)):
        raise DataError(f"{name} has no range, as it is not a number; name its values, as in {name}=A,B.")
    if colon and scale != "log":
        raise DataError(f"{scale!r} is not a scale; write {name}={ends}:log, or {name}={ends}.")
    if low >= high:
        raise DataError(f"The range of {name} goes from {low} to {high}; name the lower end first.")
    if colon and low <= 0:
        raise DataError(f"The range of {name} is logarithmic and starts at {low}; start it above 0.")
    whole = isinstance(low, int) and isinstance(high, int)
    return (IntDistribution if whole else FloatDistribution)(low, high, log=bool(colon))


def _value(settings: dict[str, Any], name: str, text: str) -> Any:
    """A value as `--set` would take it, refused as that would."""
    changed = override(settings, [f"{name}={text}"])
    check(changed)
    return changed[name]


def rounded(value: float) -> float:
    """A value as it is tried and named in commands."""
    return float(f"{value:.{DIGITS}g}")


def inside(space: Space, settings: dict[str, Any]) -> dict[str, Any]:
    """The recipe's own values, of those knobs whose range or choices hold it."""
    return {name: settings[name] for name, knob in space.items() if _holds(knob, settings[name])}


def _holds(knob: BaseDistribution, value: Any) -> bool:
    if isinstance(knob, CategoricalDistribution):
        return value in knob.choices
    return isinstance(value, int | float) and knob.low <= value <= knob.high
