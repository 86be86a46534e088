"""What the endpoint takes and gives: the page at /api/docs is made of it, and clients can be.

What is asked is read by it. What is answered is written without it, in the same shape: a model of pydantic would take
longer than the network does.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic.json_schema import SkipJsonSchema

from space.viewer import OPACITY

ERRORS = {
    400: "The picture is damaged or cut short, there is none, or the request cannot be read.",
    408: "The request took too long to arrive.",
    413: "Too many bytes, pixels or files.",
    415: "The file is not a picture in a readable format: JPEG, PNG, GIF, WebP, AVIF, HEIC, TIFF, JPEG 2000 or BMP.",
    429: "Too many requests are waiting; Retry-After says when to come back.",
    503: "The server did not get to it in its time.",
}
BYTES = {"type": "string", "format": "binary"}
# FastAPI has no words for a body that is either a file or a form.
BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {"files": {"type": "array", "items": BYTES}}}
        },
        **{kind: {"schema": BYTES} for kind in ("application/octet-stream", "image/*")},
    },
}


class Query(BaseModel):
    """What a request wants beside the probabilities."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    evidence: bool = Field(True, description="the map that the answer is the mean of")
    heatmap: bool = Field(False, description="the picture under its evidence")
    label: str | None = Field(None, description="whose evidence the heatmap shows; default: the answer's")
    opacity: float = Field(OPACITY, ge=0, le=1, description="of the heatmap")


def query_of(labels: list[str]) -> type[Query]:
    """Return the Query of a model, which names one of its labels."""
    one = Annotated[Literal[tuple(labels)] | SkipJsonSchema[None], BeforeValidator(lambda said: said or None)]
    return create_model("Query", __base__=Query, label=(one, Query.model_fields["label"]))


class Error(BaseModel):
    """A refusal."""

    error: str = Field(description="why, in one sentence")


class Evidence(BaseModel):
    """Where in the picture each label's score comes from."""

    grid: list[int] = Field(description="rows, columns")
    scale: float | None = Field(description="the largest value that the page's colours show")
    maps: dict[str, list[list[float]]] = Field(description="of each label, in logits; the mean of a map is the logit")


class Answer(BaseModel):
    """What the model says of a picture."""

    file: str | None = Field(description="its name in the form")
    label: str
    probabilities: dict[str, float]
    logits: dict[str, float]
    log_odds: dict[str, float] = Field(description="ln p/(1-p)")
    evidence: Evidence | None = Field(None, description="null where the model keeps none")
    heatmap: str | None = Field(None, description="data:image/jpeg;base64,…")


class Refused(Error):
    """One picture of several that is refused."""

    file: str | None = Field(description="its name in the form")


class About(BaseModel):
    """Which model it is."""

    model: str
    revision: str | None = Field(description="the commit on the Hub; null for a folder")
    labels: list[str]


class Answers(About):
    """An answer for each picture, in their order."""

    results: list[Answer | Refused]


class Grid(BaseModel):
    """How the model keeps its evidence."""

    grid: list[int] = Field(description="rows, columns")
    scale: float | None


class Info(About):
    """The model, its labels, its limits."""

    image_size: int
    evidence: Grid | None
    limits: dict[str, int]
    versions: dict[str, str]
