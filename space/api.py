"""The plain HTTP endpoint: pictures in, JSON out, without the page. Same model, same limits, same sentences.

POST /api/predict   one picture as the body, or several as multipart/form-data
GET  /api/info      the model, its labels, its limits
GET  /api/docs      what can be sent and what comes back, to try out; openapi.json beside it
GET  /healthz       whether the server answers (server.py puts it at the root)
"""

# Without `from __future__ import annotations`: FastAPI reads those of `predict`, one of which depends on the model.

import asyncio
import io
import platform
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Annotated, BinaryIO

import fastapi
import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from hub import BundleError, ImageClassifier, ImageError, Prediction
from hub.errors import ImageTooLargeError, UnsupportedImageError
from hub.heatmaps import overlay, shown_map
from hub.images import MAX_JPEG_PIXELS, MAX_PIXELS, MAX_SIDE, to_tensor_and_picture
from hub.scores import log_odds
from space import guards, limits
from space.api_schema import BODY, ERRORS, Answers, Error, Info, Query, query_of
from space.html import data_url
from space.offer import Offer
from space.viewer import jpeg, scale_of
from space.work import HEAD, WORK, is_large

MAX_WAITING = 64  # requests; twice as many as 32 clients send at once. The next is told to come back
MAX_FILES = 32  # in one request
SECONDS = 120  # for a request, from its last byte to its answer: 32 clients with the largest files take turns
IN_MEMORY = 2**20  # bytes of a body; what is longer waits on the disk for its turn
SIDE = 512  # pixels of a heatmap's longer side
QUALITY = 85  # of a heatmap's JPEG


class RequestError(Exception):
    """A request that is refused: a status and one sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


def api(offer: Offer) -> FastAPI:
    """Return the endpoint, to be mounted at /api."""
    classifier = offer.classifier
    desk = Desk(classifier)
    app = FastAPIOffline(
        docs_url=None,
        redoc_url=None,
        title=f"{classifier.name}: an image classifier with evidence",
        version=classifier.revision or "local",
        description=__doc__.partition("\n")[0],
        # Where it is served from, behind whatever proxy: beside openapi.json.
        servers=[{"url": "."}],
        root_path_in_servers=False,
    )
    # Any page may ask, as any program may; nothing here depends on who the visitor is.
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])

    @app.post(
        "/predict",
        tags=["pictures"],
        summary="Answer one picture, or several",
        description="One picture that is refused is an error; among several it is a row with its error.",
        operation_id="predict",
        response_model=Answers,
        response_description="An answer for each picture, in their order",
        responses={status: {"model": Error, "description": why} for status, why in ERRORS.items()},
        openapi_extra={"requestBody": BODY},
    )
    async def predict(request: Request, query: Annotated[query_of(classifier.labels), fastapi.Query()]) -> Response:
        try:
            return reply(await desk.predict(request, query))
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it

    @app.get(
        "/info",
        tags=["model"],
        summary="Say which model this is",
        operation_id="info",
        response_model=Info,
        response_description="The model, its labels, its limits",
    )
    async def about() -> Response:
        return reply(info(offer))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        # Addresses beside this page's own: whatever path it is shown below, they are too.
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="static-offline-docs/swagger-ui-bundle.js",
            swagger_css_url="static-offline-docs/swagger-ui.css",
            swagger_favicon_url="static-offline-docs/favicon.png",
            swagger_ui_parameters={"tryItOutEnabled": True, "defaultModelsExpandDepth": -1, "validatorUrl": None},
        )

    @app.exception_handler(RequestError)
    async def refused(_request: Request, error: RequestError) -> Response:
        again = {"Retry-After": str(limits.RETRY_AFTER)} if error.status in (429, 503) else None
        return reply({"error": error.sentence}, error.status, again)

    @app.exception_handler(RequestValidationError)
    async def misread(_request: Request, error: RequestValidationError) -> Response:
        return reply({"error": _no_such_query(error.errors()[0], classifier.labels)}, 400)

    @app.exception_handler(HTTPException)
    async def not_here(_request: Request, error: HTTPException) -> Response:
        sentences = {404: "There is nothing here; see /api/docs.", 405: "This address takes another method."}
        return reply({"error": sentences.get(error.status_code, str(error.detail))}, error.status_code, error.headers)

    _without_422(app.openapi())
    return app


def _without_422(schema: dict) -> None:
    """Take FastAPI's own answer to a query that cannot be read out of the schema: here it is a 400."""
    del schema["paths"]["/predict"]["post"]["responses"]["422"]
    del schema["components"]["schemas"]["HTTPValidationError"], schema["components"]["schemas"]["ValidationError"]


def _no_such_query(error: dict, labels: list[str]) -> str:
    """Say in one sentence what pydantic found wrong with a query."""
    name, said = str(error["loc"][-1])[:80], str(error["input"])[:80]
    match error["type"]:
        case "extra_forbidden":
            return f"There is no option {name!r}; see /api/docs."
        case "bool_parsing":
            return f"{name}={said!r} is neither true nor false."
        case "literal_error":
            return f"There is no label {said!r}; the model knows {', '.join(labels)[:500]}."
    return f"{name}={said!r} is not a number from 0 to 1."


def reply(content: dict, status: int = 200, headers: dict | None = None) -> Response:
    """Return JSON."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def info(offer: Offer) -> dict:
    """Return what GET /api/info tells."""
    from importlib.metadata import version

    classifier = offer.classifier
    evidence = classifier.config.evidence
    packages = ("onnxruntime", "pillow", "numpy", "gradio")
    return {
        "model": classifier.name,
        "revision": classifier.revision,
        "labels": classifier.labels,
        "image_size": classifier.image_size,
        "evidence": evidence and {"grid": list(evidence.grid), "scale": evidence.scale},
        "limits": {
            "files": MAX_FILES,
            "file_bytes": guards.MAX_FILE_SIZE,
            "request_bytes": limits.BODIES[limits.PREDICT].size,
            "pixels": MAX_PIXELS,
            "jpeg_pixels": MAX_JPEG_PIXELS,
            "side": MAX_SIDE,
            "seconds": SECONDS,
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


# ---------------------------------------------------------------- what is asked


@dataclass(frozen=True)
class Sent:
    """A file of a request, on the disk where it is long."""

    name: str | None
    file: BinaryIO

    def read(self) -> io.BytesIO:
        """Return the content under its name, as `hub.images` reads it.

        Raises:
            ImageTooLargeError: it has too many bytes.
        """
        self.file.seek(0)
        content = io.BytesIO(self.file.read(guards.MAX_FILE_SIZE + 1))
        content.name = self.name or ""
        if content.getbuffer().nbytes > guards.MAX_FILE_SIZE:
            megabytes = guards.MAX_FILE_SIZE // limits.MB
            name = (self.name or "The picture")[-80:]
            raise ImageTooLargeError(f"{name} is larger than {megabytes} MB; make it smaller and try again.")
        return content


async def sent(request: Request) -> list[Sent]:
    """Read a request's body: one picture, or the files of a form.

    Raises:
        RequestError: it holds none, too many, or is cut short.
    """
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        async for chunk in request.stream():
            file.write(chunk)
        if not file.tell():
            raise RequestError(400, "There is no picture in the request; send one as its body or in a form.")
        return [Sent(None, file)]
    tail = bytearray()

    async def stream():
        async for chunk in request.stream():
            tail.extend(chunk)
            del tail[:-200]
            yield chunk

    try:
        form = await MultiPartParser(request.headers, stream(), max_files=MAX_FILES, max_fields=MAX_FILES).parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise RequestError(413, f"There are more than {MAX_FILES} files; send fewer at once.") from None
        raise RequestError(400, "The form cannot be read; send it as multipart/form-data with a boundary.") from None
    files = [Sent(value.filename, value.file) for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not bytes(tail).rstrip().endswith(b"--"):
        raise RequestError(400, "The form is cut short; send it again.")
    if not files:
        raise RequestError(400, "There is no file in the form; add one, with its filename.")
    return files


# ---------------------------------------------------------------- what is answered


class Desk:
    """Takes requests, and has their pictures answered in turn."""

    def __init__(self, classifier: ImageClassifier):
        self.classifier = classifier
        self.waiting = 0

    async def predict(self, request: Request, query: Query) -> dict:
        """Answer a request.

        Raises:
            RequestError: it is refused.
        """
        if self.waiting >= MAX_WAITING:
            raise RequestError(429, f"Too many requests are waiting; try again in {limits.RETRY_AFTER} seconds.")
        self.waiting += 1
        files: list[Sent] = []
        try:
            files = await sent(request)
            async with asyncio.timeout(SECONDS):
                results = await self._results(files, query)
        except TimeoutError:
            raise RequestError(503, f"The server did not get to it in {SECONDS} seconds; try again later.") from None
        finally:
            self.waiting -= 1
            for one in files:
                one.file.close()
        return _whole(self.classifier, results)

    async def _results(self, files: list[Sent], query: Query) -> list[dict]:
        """Answer one file after the other, so that a request of many leaves a place to the others."""
        results = []
        for one in files:
            try:
                results.append({"file": one.name, **await self._result(one, query)})
            except ImageError as error:
                if len(files) == 1:
                    raise RequestError(status_of(error), str(error)) from None
                results.append({"file": one.name, "error": str(error)})
            except BundleError as error:
                raise RequestError(503, str(error)) from None
        return results

    async def _result(self, one: Sent, query: Query) -> dict:
        one.file.seek(0)
        large = is_large(one.file.read(HEAD))
        return await WORK.wait("http", self._answer, one, query, alone=large)

    def _answer(self, one: Sent, query: Query) -> dict:
        return result(self.classifier, one.read(), query)


def status_of(error: ImageError) -> int:
    """Return the HTTP status of a refused picture."""
    if isinstance(error, ImageTooLargeError):
        return 413
    return 415 if isinstance(error, UnsupportedImageError) else 400


def answer(classifier: ImageClassifier, source, query: Query | None = None) -> dict:
    """Return what POST /api/predict says of one picture, for who asks by another way.

    Raises:
        ImageError: it is refused.
    """
    return _whole(classifier, [{"file": None, **result(classifier, source, query or Query())}])


def _whole(classifier: ImageClassifier, results: list[dict]) -> dict:
    return {
        "model": classifier.name,
        "revision": classifier.revision,
        "labels": classifier.labels,
        "results": results,
    }


def result(classifier: ImageClassifier, source, query: Query) -> dict:
    """Answer one picture: decode it once, run the model once, and draw what is asked for.

    Args:
        classifier: the model.
        source: whatever `hub.images.open_image` takes.
        query: what is wanted.

    Raises:
        ImageError: it is refused.
    """
    tensor, picture = to_tensor_and_picture(source, classifier.image_size, SIDE)
    prediction = classifier.predict(tensor)
    found = row(classifier, prediction)
    if not query.evidence:
        del found["evidence"]
    if query.heatmap:
        found["heatmap"] = None if prediction.evidence is None else heatmap(classifier, prediction, picture, query)
    return found


def row(classifier: ImageClassifier, prediction: Prediction) -> dict:
    """Return a prediction as the endpoint tells it."""
    labels, logits, evidence = classifier.labels, prediction.logits, prediction.evidence
    found = {
        "label": prediction.label,
        "probabilities": dict(zip(labels, prediction.probabilities.tolist(), strict=True)),
        "logits": dict(zip(labels, logits.tolist(), strict=True)),
        "log_odds": dict(zip(labels, log_odds(logits[None])[0].tolist(), strict=True)),
        "evidence": None,
    }
    if evidence is not None:
        maps = {label: evidence[..., k].tolist() for k, label in enumerate(labels)}
        found["evidence"] = {"grid": list(evidence.shape[:2]), "scale": classifier.evidence_scale, "maps": maps}
    return found


def heatmap(classifier: ImageClassifier, prediction: Prediction, picture, query: Query) -> str:
    """Return the picture with its evidence over it, JPEG, as an address that holds it."""
    values = shown_map(prediction.evidence, classifier.labels.index(query.label or prediction.label))
    drawn = overlay(picture, values, scale_of(classifier), query.opacity)
    return data_url(jpeg(drawn, QUALITY), "image/jpeg")
