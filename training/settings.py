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
