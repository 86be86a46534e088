"""What the endpoint takes and gives, as OpenAPI: the page at /api/docs is made of it, and clients can be."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from hub import ImageClassifier
from space.viewer import OPACITY

NUMBERS = {"type": "object", "additionalProperties": {"type": "number"}}
TEXT, BYTES = {"type": "string"}, {"type": "string", "format": "binary"}
ERRORS = {
    400: "The picture is damaged or cut short, there is none, or the request cannot be read.",
    408: "The request took too long to arrive.",
    413: "Too many bytes, pixels or files.",
    415: "The file is no picture of a kind that is read: JPEG, PNG, GIF, WebP, AVIF or BMP.",
    429: "Too many requests are waiting; Retry-After says when to come back.",
    503: "The server did not get to it in its time.",
}
INFO = {
    "model": TEXT,
    "revision": {"type": ["string", "null"], "description": "the commit on the Hub; null for a folder"},
    "labels": {"type": "array", "items": TEXT},
}


def describe(app: FastAPI, classifier: ImageClassifier) -> None:
    """Give the application its schema; it is written by hand, since FastAPI knows no body that is a file or a form."""

    def openapi() -> dict:
        if not app.openapi_schema:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=[])
            # Where it is served from, behind whatever proxy: beside this file.
            schema["servers"] = [{"url": "."}]
            schema["paths"] = {"/predict": {"post": _predict(classifier)}, "/info": {"get": _info()}}
            schema["components"] = {"schemas": {"Error": _object({"error": TEXT}), "Result": _result()}}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi


def _predict(classifier: ImageClassifier) -> dict:
    label = {"type": "string", "enum": classifier.labels}
    return {
        "tags": ["pictures"],
        "summary": "Answer one picture, or several",
        "description": "One picture that is refused is an error; among several it is a row with its error.",
        "operationId": "predict",
        "parameters": [
            _option("evidence", {"type": "boolean", "default": True}, "the map that the answer is the mean of"),
            _option("heatmap", {"type": "boolean", "default": False}, "the picture under its evidence"),
            _option("label", label, "whose evidence the heatmap shows; default: the answer's"),
            _option("opacity", {"type": "number", "minimum": 0, "maximum": 1, "default": OPACITY}, "of the heatmap"),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": _object({"files": {"type": "array", "items": BYTES}})},
                **{kind: {"schema": BYTES} for kind in ("application/octet-stream", "image/*")},
            },
        },
        "responses": {
            "200": _json(
                "An answer for each picture, in their order",
                _object({**INFO, "results": {"type": "array", "items": {"$ref": "#/components/schemas/Result"}}}),
            ),
            **{str(status): _json(why, {"$ref": "#/components/schemas/Error"}) for status, why in ERRORS.items()},
        },
    }


def _result() -> dict:
    maps = {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "array"}}}
    grid = {"type": "array", "items": {"type": "integer"}, "description": "rows, columns"}
    evidence = _object({"grid": grid, "scale": {"type": ["number", "null"]}, "maps": maps})
    return {
        **_object(
            {
                "file": {"type": ["string", "null"], "description": "its name in the form"},
                "error": {**TEXT, "description": "why it is refused; then nothing below is there"},
                "label": TEXT,
                "probabilities": NUMBERS,
                "logits": NUMBERS,
                "log_odds": {**NUMBERS, "description": "ln p/(1-p)"},
                "evidence": {
                    **evidence,
                    "type": ["object", "null"],
                    "description": "in logits; the mean of a label's map is its logit. Null where the model keeps none",
                },
                "heatmap": {"type": ["string", "null"], "description": "data:image/jpeg;base64,…"},
            }
        ),
        "required": ["file"],
    }


def _info() -> dict:
    more = {
        "image_size": {"type": "integer"},
        "evidence": {"type": ["object", "null"]},
        "limits": {"type": "object", "additionalProperties": {"type": "integer"}},
        "versions": {"type": "object", "additionalProperties": TEXT},
    }
    described = _json("The model, its labels, its limits", _object({**INFO, **more}))
    return {
        "tags": ["model"],
        "summary": "Say which model this is",
        "operationId": "info",
        "responses": {"200": described},
    }


def _option(name: str, schema: dict, description: str) -> dict:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _object(properties: dict) -> dict:
    return {"type": "object", "properties": properties}


def _json(description: str, schema: dict) -> dict:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
