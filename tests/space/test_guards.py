"""What a hostile visitor sends, and that nothing comes of it."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import pytest
from gradio import processing_utils
from gradio.data_classes import FileData, ImageData, ListFiles
from PIL import Image

from space import guards
from tests.space.conftest import file_data


@pytest.fixture
def folder():
    """A fresh upload folder."""
    with guards.upload_folder() as folder:
        yield folder


def encoded(image: Image.Image, form: str) -> bytes:
    """The bytes of a picture's file."""
    data = io.BytesIO()
    image.save(data, form)
    return data.getvalue()


@pytest.mark.parametrize(("mode", "form"), [("CMYK", "JPEG"), ("I;16", "PNG"), ("P", "GIF"), ("LA", "PNG")])
def test_an_upload_arrives_byte_for_byte(folder, mode, form):
    """Gradio's own component would convert these, so the model would see other pixels than in hub."""
    path = folder / "photo.bin"
    path.write_bytes(encoded(Image.new(mode, (8, 8)), form))
    before = path.read_bytes()
    given = guards.photo().preprocess(ImageData(path=str(path), orig_name="photo.bin"))
    assert Path(given) == path.resolve()
    assert path.read_bytes() == before


def test_text_named_jpg_is_left_to_the_decoder(folder):
    (folder / "notes.jpg").write_text("hello")
    assert guards.photo().preprocess(ImageData(path=str(folder / "notes.jpg")))


def test_only_uploads_may_be_read(folder, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    (folder / "link.png").symlink_to(secret)
    (folder / "folder").mkdir()
    attempts = [secret, folder / "link.png", folder / ".." / secret.name, folder / "folder", folder / "missing.png"]
    for path in [*map(str, attempts), "", None, "a\0b", "x" * 10_000, "https://example.invalid/photo.png"]:
        with pytest.raises(gr.Error, match="upload it again") as caught:
            guards.uploaded(path)
        assert str(folder) not in caught.value.message


def test_the_upload_folder_goes_with_the_process(monkeypatch):
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    with guards.upload_folder() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        (folder / "photo.jpg").write_bytes(b"")
    assert not folder.exists()
    assert "GRADIO_TEMP_DIR" not in os.environ


@pytest.fixture
def secret(tmp_path) -> Path:
    """A picture outside the upload folder that the server's user may read."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "secret.png")
    return tmp_path / "secret.png"


def attacks(secret: Path) -> dict[str, dict]:
    """Payloads for a file, by what they try."""
    data = "data:image/png;base64," + base64.b64encode(secret.read_bytes()).decode()
    uploads = os.environ.get("GRADIO_TEMP_DIR", "/")
    return {
        "a path": file_data(str(secret)),
        "a path without meta": {"path": str(secret)},
        "a path out of the folder": file_data(f"{uploads}/{os.path.relpath(secret, uploads)}"),
        "a path called a stream": file_data(str(secret), is_stream=True),
        "a link in the folder": file_data(f"{uploads}/link.png"),
        "the folder itself": file_data(uploads),
        "the process's own secrets": file_data("/proc/self/environ"),
        "a null byte": file_data("a\0b.png"),
        "a data: address as the path": file_data(data),
        "a data: address beside a path": file_data(str(secret), url=data),
        "a data: address without path": {"url": data, "meta": {"_type": "gradio.FileData"}},
        "a file: address": file_data(f"file://{secret}", url=f"file://{secret}"),
        "a web address": file_data("https://example.invalid/logo.svg"),
        "a web address beside a path": file_data(str(secret), url="https://example.invalid/logo.png"),
        "a local address": file_data("http://127.0.0.1:1/photo.png"),
        "an SVG by name": file_data(str(secret), orig_name="photo.svg"),
        "no file": {"label": "photo"},
        "a number": 5,
    }


def fields(config: dict) -> list[tuple[int, int, int, bool]]:
    """Every place of the page that takes a file: event, position among its inputs, their number, whether a list."""
    kinds = {part["id"]: part for part in config["components"]}
    return [
        (event["id"], place, len(event["inputs"]), kinds[part]["props"].get("file_count") == "multiple")
        for event in config["dependencies"]
        for place, part in enumerate(event["inputs"])
        if kinds[part]["type"] in ("image", "file")
    ]


@pytest.mark.parametrize("attack", list(attacks(Path(os.devnull))))
def test_no_payload_reads_another_file_or_fetches_one(visitor, secret, attack):
    """In no field of the page; and no copy of the file lies among the uploads afterwards."""
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    if not (uploads / "link.png").is_symlink():
        uploads.mkdir(exist_ok=True)
        (uploads / "link.png").symlink_to("/etc/hostname")
    payload = attacks(secret)[attack]
    places = fields(visitor.config)
    assert {many for *_, many in places} == {True, False}
    for event, place, count, many in places:
        data = [None] * count
        data[place] = [payload] if many else payload
        message = visitor.send(event, *data)
        assert not message["success"], event
        leaks = ("Traceback", str(secret), str(uploads), "%")
        assert not any(leak in str(message) for leak in leaks)
    kept = [path for path in uploads.rglob("*") if path.is_file() and not path.is_symlink()]
    assert secret.read_bytes() not in [path.read_bytes() for path in kept]


def test_an_uploaded_drawing_with_a_script_is_not_shown_as_a_page(visitor, address_2):
    """Gradio takes an SVG that an event has named as a part of the page, while it takes the page as not running."""
    path = visitor.upload("x.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    assert "SVG" in str(visitor.send("photo", file_data(path), None))
    with urllib.request.urlopen(f"{address_2}gradio_api/file={path}") as reply:
        assert reply.headers["Content-Disposition"].startswith("attachment")
        assert reply.headers["Content-Type"] == "application/octet-stream"


def test_no_other_control_fetches_a_file(visitor):
    for payload in (file_data("https://example.invalid/robots.txt"), file_data("/etc/passwd")):
        assert not visitor.send("label", None, "cat", payload)["success"]


def test_many_files_arrive_under_their_own_names(folder):
    (folder / "photo.bin").write_bytes(b"x")
    path = str(folder / "photo.bin")
    names = ["my photo.jpg", "C:\\Users\\me\\cat.jpg", "holiday/dog.jpg", None, "/"]
    given = guards.files().preprocess(ListFiles([FileData(path=path, orig_name=name) for name in names]))
    assert [name for _, name in given] == ["my photo.jpg", "cat.jpg", "dog.jpg", "photo.bin", "photo.bin"]
    assert {found for found, _ in given} == {Path(path).resolve()}
    assert guards.files().preprocess(None) is None


def test_gradio_has_no_way_to_fetch(address_2):
    # In a thread of its own, since Playwright may have an event loop running in this one.
    with ThreadPoolExecutor(1) as thread, pytest.raises(gr.Error, match="not fetched"):
        thread.submit(
            lambda: asyncio.run(processing_utils.async_ssrf_protected_get("https://example.invalid/robots.txt"))
        ).result()
    for path in ("file=https://example.invalid/robots.txt", "proxy=https://example.invalid/robots.txt"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{address_2}gradio_api/{path}")
        assert caught.value.code in (400, 403, 404)


def test_files_outside_the_upload_folder_are_not_served(address_2, secret):
    for path in (secret, "/etc/passwd", Path(guards.__file__)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{address_2}gradio_api/file={path}")
        assert caught.value.code == 403


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("notes.jpg", b"this is text\n" * 20, "notes.jpg is text, not a picture"),
        ("empty.png", b"", "empty.png is empty (0 bytes)"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "is an SVG drawing"),
        ("bomb.png", encoded(Image.new("1", (12000, 12000)), "PNG"), "megapixel"),
    ],
)
def test_what_is_no_picture_gets_one_sentence(visitor, name, content, sentence):
    message = visitor.ask(content, name)
    assert message["success"]  # an answer in the page, not an error
    verdict, views = message["output"]["data"][1:3]
    assert verdict.startswith("<p class='refusal' role='alert'>")
    assert sentence in verdict
    assert "/" not in verdict.replace("</p>", "")
    assert views["visible"] is False


def test_a_picture_that_is_too_large_is_refused(visitor):
    """A zip may be larger, so the upload itself is taken."""
    message = visitor.ask(bytes(33 * 2**20), "large.jpg")
    assert not message["success"]
    assert message["output"]["error"] == "The picture is larger than 32 MB; make it smaller and try again."


def test_a_good_picture_is_still_answered(visitor, cat):
    message = visitor.ask(cat.read_bytes())
    assert message["success"]
    assert "class='verdict'" in message["output"]["data"][1]
    assert "data:image/jpeg" in str(message["output"]["data"])


def test_nothing_is_reported_or_offered_beside_the_page(visitor):
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert visitor.config["analytics_enabled"] is False
    events = visitor.config["dependencies"]
    assert [event["api_name"] for event in events if event["api_visibility"] != "private"] == ["predict"]
