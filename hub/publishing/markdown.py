"""Small pieces of Markdown."""

from collections.abc import Iterable


def paragraphs(*parts: str) -> str:
    """Return the parts that are not empty, with a blank line between them."""
    return "\n\n".join(part for part in parts if part)


def facts(entries: Iterable[tuple[str, object]]) -> str:
    """Return a list of `name: value`, without what is not known."""
    return "\n".join(f"- {name}: {value}" for name, value in entries if value not in (None, ""))


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table; a `|` or a line break in a cell cannot break it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def fence(language: str, content: str) -> str:
    """Return a block of code."""
    return f"```{language}\n{content.strip()}\n```"


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
