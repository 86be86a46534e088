"""What was named at start, and so all that a visitor can ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hub import ImageClassifier
from space.samples import Sample


@dataclass(frozen=True)
class Offer:
    """The models, pictures and photos that the page works with."""

    classifier: ImageClassifier
    other: ImageClassifier | None = None  # compared with the first
    samples: list[Sample] = field(default_factory=list)
    photos: Path | None = None  # a folder of the photos that predictions.parquet is about
