"""A recipe's assignments as checked settings."""

import ast
import difflib
import importlib
import types
from typing import Any

from hub.errors import DataError


def load_recipe(name: str) -> dict[str, Any]:
    """The plain assignments of `training/recipes/<name>.py`, in their order.

    Raises:
        DataError: no such recipe; the nearest name is suggested.
    """
    try:
        module = importlib.import_module(f"training.recipes.{name}")
    except ModuleNotFoundError as error:
        raise DataError(f"There is no recipe {name!r}{_nearest(name, recipes())}.") from error
    return {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and not isinstance(value, types.ModuleType) and not callable(value)
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


# The least and the most that a setting may be, both included.
RANGES = {
    "size": (32, 1024), "epochs": (1, 10_000), "batch_size": (1, 4096), "learning_rate": (0.0, 10.0),
    "warmup_steps": (0, 1_000_000), "weight_decay": (0.0, 1.0), "average_decay": (0.0, 1.0), "patience": (1, 10_000),
    "crop_area": (0.05, 1.0), "aspect": (1.0, 4.0), "rotation": (0.0, 180.0), "brightness": (0.0, 1.0),
    "contrast": (0.0, 1.0), "saturation": (0.0, 1.0), "sharpness": (0.0, 1.0), "jpeg": (0, 95),
}  # fmt: skip


def check(settings: dict[str, Any]) -> None:
    """Refuse values that no run can work with.

    Raises:
        DataError: names the setting and what it may be.
    """
    for key, (low, high) in RANGES.items():
        if key in settings and not low <= settings[key] <= high:
            raise DataError(f"{key} must be from {low} to {high}, not {settings[key]!r}.")
    strengths = settings["inverse_regularisation"]
    if not strengths or not all(isinstance(c, int | float) and c > 0 for c in strengths):
        raise DataError(f"inverse_regularisation must be a list of numbers above 0, not {strengths!r}.")


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
