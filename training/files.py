"""What runs write: JSON, arrays and tables, each whole or not at all."""

import csv
import json
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hub.files import write_aside


def write_json(path: Path, content: dict) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    write_aside(
        path,
        lambda file: file.write((json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()),
    )


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as one uncompressed .npz, whole or not at all."""
    write_aside(path, lambda file: np.savez(file, **arrays))


def write_rows(path: Path, rows: list[dict], columns: list[str]) -> None:
    """Write `rows` as CSV with a header, whole or not at all."""

    def write(file: BinaryIO) -> None:
        lines: list[str] = []
        writer = csv.DictWriter(type("Lines", (), {"write": staticmethod(lines.append)}), columns)
        writer.writeheader()
        writer.writerows(rows)
        file.write("".join(lines).encode())

    write_aside(path, write)
