"""The HTTP endpoint, asked over HTTP: what it answers, and that each refusal is a status and one sentence."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urljoin

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from hub import images
from hub.heatmaps import overlay, shown_map
from space import api, work
from space.api_schema import Answers, Info, Query
from space.offer import Offer
from tests.pictures import encode, png, scene
from tests.space.conftest import served

EDGE = "edge-of-a-part"


def ask(address: str, path: str, body: bytes | None = None, kind: str = "image/jpeg", method: str | None = None):
    """Send a request; return status, headers and what the JSON says."""
    headers = {} if body is None else {"Content-Type": kind}
    request = urllib.request.Request(f"{address}{path}", body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.headers, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.load(error)


def form(*files: tuple[str, bytes], end: str = "--\r\n") -> bytes:
    """The body of a form with files under names of its own."""
    parts = b""
    for number, (name, content) in enumerate(files):
        head = f'--{EDGE}\r\nContent-Disposition: form-data; name="f{number}"; filename="{name}"\r\n\r\n'
        parts += head.encode() + content + b"\r\n"
    return parts + f"--{EDGE}{end}".encode()


FORM = f"multipart/form-data; boundary={EDGE}"


def picture_of(address: str) -> Image.Image:
    """The picture in a data: address."""
    assert address.startswith("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


@pytest.fixture(scope="module")
def address_3(classifier_3):
    """The address of a page for three labels."""
    with served(classifier_3) as address:
        yield address


@pytest.mark.parametrize("count", [2, 3])
def test_one_picture_is_answered_as_the_model_answers(request, cat, count):
    address, classifier = (request.getfixturevalue(f"{name}_{count}") for name in ("address", "classifier"))
    expected = classifier.predict(cat)
    status, _, said = ask(address, "api/predict", cat.read_bytes())
    assert (status, said["model"], said["revision"]) == (200, classifier.name, None)
    assert said["labels"] == classifier.labels
    [row] = said["results"]
    assert (row["file"], row["label"]) == (None, expected.label)
    assert "heatmap" not in row
    np.testing.assert_array_equal([row["logits"][label] for label in said["labels"]], expected.logits)
    for k, label in enumerate(said["labels"]):
        assert row["probabilities"][label] == pytest.approx(1 / (1 + np.exp(-row["log_odds"][label])), abs=1e-6)
        np.testing.assert_array_equal(row["evidence"]["maps"][label], expected.evidence[..., k])
        assert np.mean(row["evidence"]["maps"][label]) == pytest.approx(row["logits"][label], abs=1e-4)
    assert row["evidence"]["grid"] == [4, 4]
    assert row["evidence"]["scale"] == classifier.evidence_scale


def test_log_odds_do_not_end_where_a_probability_rounds_to_one(address_2, cat, classifier_2):
    row = api.row(classifier_2, classifier_2.predict(cat))
    odds = row["logits"]["cat"] - row["logits"]["dog"]
    assert (row["log_odds"]["cat"], row["log_odds"]["dog"]) == pytest.approx((odds, -odds), abs=1e-6)


def test_many_files_are_rows_and_a_refused_one_has_its_reason(address_2, cat):
    body = form(("a.jpg", cat.read_bytes()), ("notes.txt", b"hello"), ("päris.png", encode(scene(), "PNG")))
    status, _, said = ask(address_2, "api/predict?evidence=false", body, FORM)
    first, second, third = said["results"]
    assert status == 200
    assert [row["file"] for row in said["results"]] == ["a.jpg", "notes.txt", "päris.png"]
    assert second == {
        "file": "notes.txt",
        "error": "notes.txt is text, not a picture; save it as JPEG or PNG and try again.",
    }
    assert "evidence" not in first and first["probabilities"] != third["probabilities"]


def test_the_heatmap_is_the_overlay(address_3, classifier_3):
    photo = encode(scene(1200, 800), "PNG")
    _, picture = images.to_tensor_and_picture(photo, classifier_3.image_size, api.SIDE)
    values = shown_map(classifier_3.predict(photo).evidence, 2)
    shown = {}
    for opacity in (0, 1):
        _, _, said = ask(address_3, f"api/predict?heatmap=true&label=fox&opacity={opacity}", photo)
        shown[opacity] = picture_of(said["results"][0]["heatmap"])
        assert shown[opacity].size == (512, 341)
        expected = overlay(picture, values, classifier_3.evidence_scale, opacity)
        assert np.abs(np.asarray(shown[opacity], float) - np.asarray(expected, float)).mean() < 4  # it is a JPEG
    assert np.abs(np.asarray(shown[0], float) - np.asarray(shown[1], float)).mean() > 10


def test_a_classic_head_answers_without_a_map(classic, cat):
    said = api.answer(classic, cat.read_bytes(), Query(heatmap=True))
    assert said["results"][0]["evidence"] is said["results"][0]["heatmap"] is None
    assert api.info(Offer(classic))["evidence"] is None


TALL = png(np.zeros((8, 8)), 0, 8, size=(1, 40_000_000))
REFUSED = [
    (b"", "image/jpeg", "", 400, "no picture in the request"),
    (b"hello " * 99, "image/jpeg", "", 415, "is text"),
    (b"%PDF-1.7", "image/jpeg", "", 415, "PDF"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", "", 415, "SVG"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl", "", 415, "JPEG XL"),
    (b"PK\3\4\x14\0", "application/zip", "", 415, "ZIP"),
    (encode(scene(), "JPEG")[:900], "image/jpeg", "", 400, "cut short"),
    (encode(Image.new("1", (12000, 12000)), "PNG"), "image/png", "", 413, "12000 x 12000"),
    (TALL, "image/png", "", 413, "65,535"),
    (encode(scene(), "JPEG"), "image/jpeg", "?heatmap=perhaps", 400, "neither true nor false"),
    (encode(scene(), "JPEG"), "image/jpeg", "?opacity=nan", 400, "from 0 to 1"),
    (encode(scene(), "JPEG"), "image/jpeg", "?label=unicorn", 400, "cat, dog"),
    (encode(scene(), "JPEG"), "image/jpeg", "?heatmaps=1", 400, "no option 'heatmaps'"),
    (form(), FORM, "", 400, "no file"),
    (b"junk", FORM, "", 400, "cannot be read"),
    (b"junk", "multipart/form-data", "", 400, "cannot be read"),
    (form(("a.jpg", b"x"), end=""), FORM, "", 400, "cut short"),
    (form(*(("a.jpg", b"x") for _ in range(33))), FORM, "", 413, "32 files"),
    (form(("large.bmp", bytes(32 * 2**20 + 1))), FORM, "", 413, "large.bmp is larger than 32 MB"),
]


@pytest.mark.parametrize(("body", "kind", "query", "status", "words"), REFUSED)
def test_a_refusal_is_a_status_and_one_sentence(address_2, body, kind, query, status, words):
    got, _, said = ask(address_2, f"api/predict{query}", body, kind)
    assert (got, list(said)) == (status, ["error"])
    assert words in said["error"]
    assert re.fullmatch(r"[^\n]+\.", said["error"])
    assert "/tmp" not in said["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "predict", 405), ("GET", "x", 404), ("PUT", "info", 405)]
)
def test_other_addresses_and_methods_are_json_too(address_2, method, path, status):
    got, _, said = ask(address_2, f"api/{path}", method=method)
    assert (got, list(said)) == (status, ["error"])


def test_any_page_may_ask_without_credentials(address_2, cat):
    headers = {"Origin": "https://example.invalid", "Content-Type": "image/jpeg"}
    request = urllib.request.Request(f"{address_2}api/predict", cat.read_bytes(), headers)
    with urllib.request.urlopen(request) as reply:
        assert reply.headers["Access-Control-Allow-Origin"] == "*"
        assert reply.headers["Access-Control-Allow-Credentials"] is None
    asked = {**headers, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    request = urllib.request.Request(f"{address_2}api/predict", headers=asked, method="OPTIONS")
    with urllib.request.urlopen(request) as reply:
        assert "content-type" in reply.headers["Access-Control-Allow-Headers"]


def test_info_and_health(address_2, classifier_2):
    assert ask(address_2, "healthz")[2] == {"status": "ok"}
    said = ask(address_2, "api/info")[2]
    assert said == api.info(Offer(classifier_2))
    assert (said["labels"], said["image_size"], said["limits"]["files"]) == (["cat", "dog"], 32, 32)
    assert said["evidence"] == {"grid": [4, 4], "scale": classifier_2.evidence_scale}
    assert said["versions"]["pillow"] == Image.__version__


def test_the_schema_is_complete_and_its_page_comes_from_here(address_2):
    schema = ask(address_2, "api/openapi.json")[2]
    predict = schema["paths"]["/predict"]["post"]
    assert set(predict["responses"]) == {"200", "400", "408", "413", "415", "429", "503"}
    assert {"multipart/form-data", "application/octet-stream"} <= set(predict["requestBody"]["content"])
    assert {option["name"] for option in predict["parameters"]} == {"evidence", "heatmap", "label", "opacity"}
    assert all(schema["components"]["schemas"][name] for name in ("Answer", "Refused", "Error", "Info"))
    assert not re.search("422|HTTPValidationError", json.dumps(schema))


def test_the_schema_says_what_is_answered(address_2, cat):
    """Which is written without it."""
    for asked in ("", "?evidence=false", "?heatmap=true"):
        said = ask(address_2, f"api/predict{asked}", form(("a.jpg", cat.read_bytes()), ("b.jpg", b"x")), FORM)[2]
        assert Answers.model_validate(said).model_dump(exclude_unset=True) == said
    said = ask(address_2, "api/info")[2]
    assert Info.model_validate(said).model_dump() == said


def sources_of(page: str) -> list[str]:
    """Every address that the page at /api/docs asks for."""
    assert not re.search(r"https?://", page)
    return re.findall(r"""(?:(?:src|href)=|url: )["']([^"']+)""", page)


def test_the_page_of_the_schema_comes_from_here_also_below_a_path(address_2, classifier_2):
    """Behind a proxy that takes the path off, told of it or not, and where the server itself adds it."""
    with urllib.request.urlopen(f"{address_2}api/docs") as reply:
        page = reply.read().decode()
    sources = [urljoin("https://example.invalid/pets/api/docs", source) for source in sources_of(page)]
    assert {source.rpartition("/")[2] for source in sources} >= {
        "swagger-ui-bundle.js",
        "swagger-ui.css",
        "openapi.json",
    }
    for source in sources:
        head, _, rest = source.partition("/pets/")
        assert head == "https://example.invalid"
        with urllib.request.urlopen(f"{address_2}{rest}") as reply:
            assert len(reply.read()) > 1000
    app = FastAPI()
    app.mount("/api", api.api(Offer(classifier_2)))
    below = TestClient(app, root_path="/pets")
    sources = [urljoin("/pets/api/docs", source) for source in sources_of(below.get("/pets/api/docs").text)]
    assert len(sources) >= 4
    for source in sources:
        assert len(below.get(source).content) > 1000
    assert below.get("/pets/api/openapi.json").json()["servers"] == [{"url": "."}]


def test_one_too_many_is_told_when_to_come_back(address_2, cat, monkeypatch):
    monkeypatch.setattr(api, "MAX_WAITING", 0)
    status, headers, said = ask(address_2, "api/predict", cat.read_bytes())
    assert (status, headers["Retry-After"]) == (429, "5")
    assert "try again in 5 seconds" in said["error"]


def test_a_request_has_its_time(address_2, cat, monkeypatch):
    monkeypatch.setattr(api, "SECONDS", 0)
    status, _, said = ask(address_2, "api/predict", cat.read_bytes())
    assert status == 503 and "try again later" in said["error"]


def test_thirty_two_clients_are_answered(address_2, cat):
    with ThreadPoolExecutor(32) as clients:
        replies = list(clients.map(lambda _: ask(address_2, "api/predict", cat.read_bytes()), range(64)))
    assert {status for status, _, _ in replies} == {200}
    assert len({json.dumps(said) for _, _, said in replies}) == 1


def test_a_small_picture_need_not_wait_for_large_ones(address_2, cat):
    """While large ones wait for their turn, more of them than there are places."""
    large = encode(Image.new("1", (5000, 4000)), "PNG")
    done = threading.Event()

    def send() -> int:
        status = ask(address_2, "api/predict", large)[0]
        done.set()
        return status

    with ThreadPoolExecutor(work.PLACES + 1) as clients:
        with images._large:  # as if one were being decoded
            waiting = [clients.submit(send) for _ in range(work.PLACES + 1)]
            assert ask(address_2, "api/predict", cat.read_bytes())[0] == 200
            assert not done.wait(0.5)
        assert [future.result() for future in waiting] == [200] * len(waiting)
