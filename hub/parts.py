"""The dataclasses that stand for the parts of a JSON file: unknown entries survive in their field `more`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

Part = TypeVar("Part")


def read(kind: Callable[..., Part], content: Mapping[str, Any], **readers: Callable[[Any], Any]) -> Part:
    """Return a dataclass of an object of the file.

    Args:
        kind: the dataclass; its fields have the names of the entries.
        content: the object.
        readers: by field, what makes its value of the entry, or None of what is not of its kind. Such an entry is
            kept in `more`, as those are that are no field.
    """
    found = {name: reader(content.get(name)) for name, reader in readers.items()}
    known = {name for name, value in found.items() if value is not None or _is_null(kind, content, name)}
    return kind(**found, more={name: value for name, value in content.items() if name not in known})


def _is_null(kind: object, content: Mapping[str, Any], name: str) -> bool:
    """Whether an entry is null where that is a value of its own."""
    return getattr(kind, "WRITES_NULL", False) and content.get(name) is None


def to_json(part: Any) -> Any:
    """Return what `json.dumps` takes: fields in their order, then `more`.

    A field that is None is left out, or null where the class says WRITES_NULL. What `more` has under its name stands
    in its place.
    """
    if isinstance(part, Mapping):
        return {name: to_json(value) for name, value in part.items()}
    if not is_dataclass(part):
        return part
    more: Mapping[str, Any] = getattr(part, "more", {})
    content = {}
    for name in (one.name for one in fields(part) if one.name != "more"):
        value = getattr(part, name)
        if value is not None:
            content[name] = to_json(value)
        elif name in more or getattr(part, "WRITES_NULL", False):
            content[name] = more.get(name)
    return {**content, **{name: value for name, value in more.items() if name not in content}}


def text(value: Any) -> str | None:
    """Return a text, None of anything else."""
    return value if isinstance(value, str) else None


def count(value: Any) -> int | None:
    """Return a whole number from 0 on, None of anything else."""
    return value if type(value) is int and value >= 0 else None
