"""The MCP server, asked by the MCP package's own client over HTTP, and by those who mean no good."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import os
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.space.conftest import served

ROOT = Path(__file__).parents[2]
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
BOTH = "application/json, text/event-stream"  # what a client of every version accepts


def with_client(address: str, ask, mode: str = "auto"):
    """Let `ask` use a connected client; in a thread of its own, since Playwright may have an event loop in this one."""
    from mcp import Client

    async def asked():
        async with Client(f"{address}mcp", mode=mode) as client:
            return await ask(client)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(asked())).result()


def classify(address: str, picture: object, mode: str = "auto", **more):
    """Call classify_image, with bytes in base64 and all else as it is; return the result."""
    given = base64.b64encode(picture).decode() if isinstance(picture, bytes) else picture
    arguments = {"image_base64": given, **more}
    return with_client(address, lambda client: client.call_tool("classify_image", arguments), mode)


def post(address: str, body: bytes, **headers: str) -> tuple[int, dict, str]:
    """POST to /mcp by hand; return the status, the headers and the text of the answer."""
    kind = {"Content-Type": "application/json", "Accept": BOTH}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{address}mcp", body, {**kind, **headers})) as reply:
            return reply.status, dict(reply.headers), reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def http_answer(address: str, picture: bytes, query: str = "") -> dict:
    """Ask the HTTP endpoint the same; return its JSON, a refusal's too."""
    try:
        with urllib.request.urlopen(f"{address}api/predict{query}", picture) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        return json.load(error)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_answer_is_the_http_endpoints(address_2, classifier_2, cat, mode):
    """In today's version of the protocol, and in the ones that begin with a handshake."""
    result = classify(address_2, cat.read_bytes(), mode, with_heatmap=True)
    assert not result.is_error
    said, prediction = result.structured_content, classifier_2.predict(cat)
    assert said["label"] == prediction.label
    assert said["probabilities"] == dict(zip(["cat", "dog"], prediction.probabilities.tolist(), strict=True))
    row = http_answer(address_2, cat.read_bytes(), "?heatmap=true")["results"][0]
    assert said["log_odds"] == row["log_odds"]
    k = ["cat", "dog"].index(prediction.label)
    shown = prediction.evidence[..., k] - prediction.evidence[..., 1 - k]
    down, across = (int(3 * (i + 0.5) / 4) for i in np.unravel_index(shown.argmax(), shown.shape))
    assert ("upper", "", "lower")[down] in said["strongest_evidence"]
    assert ("left", "", "right")[across] in said["strongest_evidence"]

    text, picture = result.content
    assert json.loads(text.text) == said
    assert picture.mime_type == "image/jpeg"
    assert f"data:image/jpeg;base64,{picture.data}" == row["heatmap"]
    assert Image.open(io.BytesIO(base64.b64decode(picture.data))).format == "JPEG"


def test_an_assistant_is_told_what_there_is(address_2):
    async def look(client):
        return await client.list_tools(), await client.call_tool("model_info"), client.instructions

    listed, info, instructions = with_client(address_2, look)
    about = {tool.name: tool for tool in listed.tools}
    assert list(about) == ["classify_image", "model_info"]
    assert about["classify_image"].input_schema["required"] == ["image_base64"]
    assert all("cat or dog" in text for text in (about["classify_image"].description, instructions))
    with urllib.request.urlopen(f"{address_2}api/info") as reply:
        assert info.structured_content == json.load(reply)


def test_three_labels_and_a_model_without_a_map(classifier_3, classic, cat):
    with served(classifier_3) as address:
        said = classify(address, cat.read_bytes()).structured_content
        assert said["label"] == classifier_3.predict(cat).label
        assert list(said["probabilities"]) == ["cat", "dog", "fox"]
    with served(classic) as address:
        result = classify(address, cat.read_bytes(), with_heatmap=True)
        assert result.structured_content["label"] == classic.predict(cat).label
        assert result.structured_content["strongest_evidence"] is None
        assert len(result.content) == 1  # no picture


def test_a_picture_as_a_browser_writes_it(address_2, cat):
    plain = base64.encodebytes(cat.read_bytes()).decode()  # in lines of 76
    expected = classify(address_2, cat.read_bytes()).structured_content
    assert classify(address_2, plain).structured_content == expected
    assert classify(address_2, "data:image/jpeg;base64," + plain).structured_content == expected


NOT_BYTES = {
    "image_base64 is not base64": [
        "this is text",
        "photo.jpg",
        "../../../../etc/passwd",
        "/etc/passwd\0",
        "https://example.invalid/photo.png",
        "file:///etc/passwd",
        "data:image/png,%89PNG",
        "Grüße",
    ],
    "There is no picture": ["", None, ["aGk="], {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}],
}


def test_only_bytes_in_base64_are_taken(address_2):
    async def all_of_them(client):
        for sentence, attempts in NOT_BYTES.items():
            for given in attempts:
                result = await client.call_tool("classify_image", {"image_base64": given})
                assert result.is_error and result.structured_content is None
                assert result.content[0].text.startswith(sentence)

    with_client(address_2, all_of_them)


def test_a_file_is_refused_in_the_http_endpoints_words(address_2):
    bomb = io.BytesIO()
    Image.new("1", (12000, 12000)).save(bomb, "PNG")
    for content in (b"this is text\n" * 20, b"%PDF-1.7", bomb.getvalue(), bomb.getvalue()[:100]):
        result = classify(address_2, content)
        assert result.is_error
        assert result.content[0].text == http_answer(address_2, content)["error"]
    arguments = b'{"image_base64": "%s"}' % base64.b64encode(bytes(33_600_000))
    call = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "classify_image", "arguments": %s}}'
    _, _, text = post(address_2, call % arguments)
    assert "The picture is larger than 32 MB" in text


def test_a_tool_or_an_option_that_does_not_exist(address_2, cat):
    async def call(client):
        return await client.call_tool("read_file", {"path": "/etc/passwd"})

    assert with_client(address_2, call).content[0].text.startswith("There is no such tool")
    result = classify(address_2, cat.read_bytes(), with_heatmap="yes")
    assert result.is_error and result.content[0].text.startswith("with_heatmap is neither true nor false")


def test_a_request_of_100_mb_is_refused_before_it_arrives(address_2):
    connection = http.client.HTTPConnection(urlsplit(address_2).netloc)
    connection.putrequest("POST", "/mcp")
    for name, value in {"Content-Type": "application/json", "Accept": BOTH, "Content-Length": "100000000"}.items():
        connection.putheader(name, value)
    connection.endheaders(b'{"jsonrpc": "2.0", ')
    reply = connection.getresponse()
    assert reply.status == 413
    assert json.load(reply)["error"].startswith("The request is larger than 44 MB")
    connection.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"[" * 100_000,
        b"null",
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": [1]}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "file:///etc/passwd"}}',
        json.dumps({**CALL, "params": {"name": "classify_image", "arguments": "x"}}).encode(),
        json.dumps({**CALL, "params": {"name": ["classify_image"]}}).encode(),
    ],
)
@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28", "9999-99-99"])
def test_junk_is_refused_and_tells_nothing(address_2, body, version):
    status, headers, text = post(address_2, body, **{"MCP-Protocol-Version": version})
    assert status < 500
    assert "error" in json.loads(text)
    assert not any(leak in text for leak in ("Traceback", "site-packages", str(ROOT), os.environ["GRADIO_TEMP_DIR"]))
    assert "mcp-session-id" not in headers


def test_nothing_is_kept_between_requests(address_2, cat):
    before = sorted(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*"))
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    first = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}).encode()
    status, headers, text = post(address_2, first)
    assert status == 200 and json.loads(text)["result"]["serverInfo"]["name"] == "tiny-cats-vs-dogs"
    assert "mcp-session-id" not in headers
    # No handshake went before this one: each request stands for itself.
    arguments = {"image_base64": base64.b64encode(cat.read_bytes()).decode()}
    asked = json.dumps({**CALL, "params": {"name": "classify_image", "arguments": arguments}}).encode()
    status, headers, text = post(address_2, asked, Origin="https://example.invalid")
    assert status == 200 and not json.loads(text)["result"].get("isError")
    assert headers["access-control-allow-origin"] == "*"  # any page may ask, as at /api
    assert sorted(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*")) == before


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_there_is_no_stream_to_hold_open(address_2, method):
    request = urllib.request.Request(f"{address_2}mcp", method=method, headers={"Accept": BOTH})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code == 405
    assert "POST" in json.load(caught.value)["error"]
