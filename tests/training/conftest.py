"""Small labelled picture data sets, drawn by code and written as the Hub stores them."""

import io
import sys

import datasets
import huggingface_hub
import numpy as np
import pytest
from PIL import Image, ImageDraw

from training import cli


def draw(label: int, seed: int, size: int = 48) -> Image.Image:
    """A disc (0) or a square (1) of a random colour at a random place on a noisy ground."""
    rng = np.random.default_rng([label, seed])
    image = Image.fromarray(rng.integers(90, 160, (size, size, 3), np.uint8))
    x, y = (int(v) for v in rng.integers(2, size // 2, 2))
    shape = ImageDraw.Draw(image).ellipse if label == 0 else ImageDraw.Draw(image).rectangle
    shape((x, y, x + size // 3, y + size // 3), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image


def encode(image: Image.Image, form: str = "PNG") -> bytes:
    """The picture as a file's bytes."""
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def write(folder, splits: dict[str, list[tuple[bytes, int]]], names=("disc", "square"), column: str = "labels"):
    """Write parquet files of (encoded picture, label) rows in the Hub's layout and return the folder."""
    features = datasets.Features({"image": datasets.Image(), column: datasets.ClassLabel(names=list(names))})
    (folder / "data").mkdir(parents=True)
    for split, rows in splits.items():
        content = {"image": [{"bytes": b, "path": None} for b, _ in rows], column: [label for _, label in rows]}
        table = datasets.Dataset.from_dict(content, features=features)
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """320 discs and squares in one split, nothing wrong with any."""
    rows = [(encode(draw(i % 2, i)), i % 2) for i in range(320)]
    return write(tmp_path_factory.mktemp("shapes") / "shapes", {"train": rows})


@pytest.fixture
def refused(monkeypatch, capsys):
    """Give `python -m training` a command that it refuses, with no Hub to ask; returns the one sentence."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def ask(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        (sentence,) = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2
        return sentence

    return ask
