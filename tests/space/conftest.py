"""Pages on tiny bundles, served in this process, and a visitor who speaks to them without a browser."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import chelsea

from hub import ImageClassifier
from space import guards
from space.offer import Offer
from space.page import build
from space.samples import samples_for
from space.server import application, serving


@pytest.fixture(scope="session")
def classifier_2(bundle_2) -> ImageClassifier:
    """Cat or dog, with evidence."""
    return ImageClassifier.from_pretrained(bundle_2)


@pytest.fixture(scope="session")
def classifier_3(bundle_3) -> ImageClassifier:
    """Three labels, with evidence."""
    return ImageClassifier.from_pretrained(bundle_3)


@pytest.fixture(scope="session")
def cat(tmp_path_factory) -> Path:
    """scikit-image's cat as a JPEG file, 451 x 300."""
    path = tmp_path_factory.mktemp("cat") / "cat.jpg"
    Image.fromarray(np.asarray(chelsea())).save(path, quality=95)
    return path


class Visitor:
    """One browser session's requests, by hand."""

    def __init__(self, address: str):
        self.api = f"{address.rstrip('/')}/gradio_api"
        self.session = uuid.uuid4().hex
        with urllib.request.urlopen(f"{address}config") as reply:
            self.config = json.load(reply)

    def event(self, target: str) -> int:
        """Return the number of the first event that something on the page triggers, such as 'photo'."""
        ids = {part["props"].get("elem_id"): part["id"] for part in self.config["components"]}
        return next(
            event["id"] for event in self.config["dependencies"] if any(t[0] == ids[target] for t in event["targets"])
        )

    def upload(self, name: str, content: bytes) -> str:
        """Upload a file; return its path on the server."""
        edge = uuid.uuid4().hex
        head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{edge}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.api}/upload", body, kind)) as reply:
            return json.load(reply)[0]

    def join(self, target: str | int, *data, event: dict | None = None) -> str:
        """Trigger an event, by its number or by what triggers it first; return its id."""
        number = target if isinstance(target, int) else self.event(target)
        body = {"data": data, "fn_index": number, "session_hash": self.session, "event_data": event}
        kind = {"Content-Type": "application/json"}
        join = urllib.request.Request(f"{self.api}/queue/join", json.dumps(body).encode(), kind)
        with urllib.request.urlopen(join) as reply:
            return json.load(reply)["event_id"]

    def ends(self) -> Iterator[dict]:
        """Yield the messages that end events, as they come."""
        with urllib.request.urlopen(f"{self.api}/queue/data?session_hash={self.session}", timeout=30) as stream:
            for line in stream:
                message = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
                if message.get("msg") == "process_completed":
                    yield message
        raise AssertionError("the server closed the stream before an answer")

    def send(self, target: str | int, *data, event: dict | None = None) -> dict:
        """Trigger an event; return the message that ends it."""
        self.join(target, *data, event=event)
        return next(self.ends())

    def ask(self, content: bytes, name: str = "photo.jpg") -> dict:
        """Upload a picture and ask for its answer."""
        return self.send("photo", file_data(self.upload(name, content)), None)


def file_data(path: str, **more) -> dict:
    """Return a file as the page's own JavaScript would name it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


@contextmanager
def served(classifier: ImageClassifier, samples: Path | None = None, **more):
    """Serve a page in this process while the block runs; gives its address. `more` goes into the Offer."""
    offer = Offer(classifier, samples=samples_for(samples), **more)
    with guards.upload_folder(), serving(application(build(offer), offer)) as address:
        yield address


@pytest.fixture(scope="session")
def address_2(classifier_2):
    """The address of a page for cat or dog."""
    with served(classifier_2) as address:
        yield address


@pytest.fixture
def visitor(address_2) -> Visitor:
    """Somebody who has just opened the page for cat or dog."""
    return Visitor(address_2)
