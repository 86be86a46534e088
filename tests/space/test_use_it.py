"""What stands in the tab "Use it from code", and the one event that gradio_client may call."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import gradio as gr
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from hub import ImageClassifier
from hub.bundle import DEFAULT
from hub.formats import FORMATS
from hub.publishing.card_runtimes import own_snippet
from space import use_it
from space.languages import LANGUAGES, Say
from tests.space.conftest import Visitor, file_data


@pytest.fixture(scope="module")
def client(address_2):
    """Gradio's own client; as the tab says, it reports to Hugging Face, but not from here."""
    client = Client(address_2, analytics_enabled=False, verbose=False)
    yield client
    client.close()


def test_gradio_client_gets_the_http_endpoints_answer(client, address_2, cat):
    with urllib.request.urlopen(f"{address_2}api/predict", cat.read_bytes()) as reply:
        expected = json.load(reply)
    assert expected["results"][0]["evidence"]["grid"] == [4, 4]
    assert client.predict(handle_file(cat), api_name="/predict") == expected


def test_gradio_client_finds_that_event_and_no_other(client):
    found = client.view_api(return_format="dict")
    assert list(found["named_endpoints"]) == ["/predict"]
    assert found["unnamed_endpoints"] == {}
    assert client.config["footer_links"] == []


def test_gradio_client_is_told_why_a_file_is_refused(client, tmp_path):
    (tmp_path / "notes.jpg").write_text("this is text\n" * 20)
    with pytest.raises(AppError, match=r"^notes.jpg is text, not a picture; save it as JPEG or PNG and try again.$"):
        client.predict(handle_file(tmp_path / "notes.jpg"), api_name="/predict")
    with pytest.raises(AppError, match="not fetched|upload it again") as caught:
        client.predict(handle_file("https://example.invalid/photo.png"), api_name="/predict")
    assert str(Path(gr.__file__).parent) not in str(caught.value)


def test_no_payload_reads_another_file(address_2, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    secret = str(tmp_path / "secret.png")
    visitor = Visitor(address_2)
    event = next(event["id"] for event in visitor.config["dependencies"] if event["api_name"] == "predict")
    visitor.event = lambda _target: event
    payloads = [
        file_data(secret),
        {"path": secret},
        file_data(secret, is_stream=True),
        file_data("http://127.0.0.1:1/photo.png"),
        file_data(visitor.upload("a.png", b"x") + "/../../secret.png"),
        {"url": f"file://{secret}", "meta": {"_type": "gradio.FileData"}},
        None,
        "photo.jpg",
        [secret],
    ]
    for payload in payloads:
        message = visitor.send("predict", payload)
        assert not message["success"], payload
        assert "secret" not in str(message) and "Traceback" not in str(message)


def test_the_routes_beside_the_queue_are_no_way_around(address_2, cat, tmp_path):
    visitor = Visitor(address_2)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")

    def ask(path: str, file: str) -> str:
        body = json.dumps({"data": [file_data(file)]}).encode()
        request = urllib.request.Request(f"{visitor.api}/{path}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            ticket = json.load(reply)["event_id"]
        with urllib.request.urlopen(f"{visitor.api}/{path}/{ticket}", timeout=10) as stream:
            return stream.read().decode()

    assert ask("call/predict", visitor.upload("photo.jpg", cat.read_bytes())).startswith("event: complete")
    refusal = ask("call/predict", str(tmp_path / "secret.png"))
    assert refusal.startswith("event: error\n") and "This picture is no longer here; upload it again." in refusal
    assert str(tmp_path) not in refusal
    for path in ("api/predict", "run/predict"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(path, visitor.upload("photo.jpg", cat.read_bytes()))


def test_a_model_of_the_hub_brings_the_cards_snippets(tmp_path):
    folder = shutil.copytree(DEFAULT, tmp_path / ("0" * 40))
    classifier = ImageClassifier.from_pretrained(folder)
    assert use_it.other_formats(classifier) == {}  # a folder that no visitor has
    classifier.name, classifier._download = "tester/model", {"repo_id": "tester/model"}  # as from the Hub
    found = use_it.other_formats(classifier)
    compared = json.loads((folder / "agreement.json").read_text())["runtimes"]
    assert found == {FORMATS[key].title: FORMATS[key].snippet(classifier.config, "tester/model") for key in compared}
    assert use_it.on_own_machine(classifier) == own_snippet(classifier.config, "tester/model")
    text = use_it.text(Say(), classifier)
    assert all(f"data-snippet='format-{number}'" in text for number in range(len(found)))
    (folder / "agreement.json").write_text("{}")  # of another version
    assert use_it.other_formats(classifier) == {}


def test_the_embedded_model_needs_no_name():
    classifier = ImageClassifier.from_pretrained()
    assert classifier.folder == DEFAULT
    assert "ImageClassifier.from_pretrained()\n" in use_it.on_own_machine(classifier)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_models_name_cannot_write_into_the_page(bundle_2, tmp_path, language):
    name = "<b>{{x}}'\"&amp;"
    shutil.copytree(bundle_2, tmp_path / name)
    text = use_it.text(Say(language), ImageClassifier.from_pretrained(tmp_path / name))
    assert "<b>" not in text and "{{" not in text and "&amp;amp;" in text
    assert json.loads(use_it.mcp_configuration(name))["mcpServers"].keys() == {"b-x-amp"}
    assert json.loads(use_it.mcp_configuration("猫"))["mcpServers"].keys() == {"classifier"}


def test_the_model_of_a_run_is_called_like_the_run(bundle_2, tmp_path):
    """Every run calls its model's folder bundle, so that name tells no two apart; the code needs it all the same."""
    classifier = ImageClassifier.from_pretrained(shutil.copytree(bundle_2, tmp_path / "roses" / "bundle"))
    assert classifier.name == "roses"
    assert 'from_pretrained("bundle")' in use_it.on_own_machine(classifier)
