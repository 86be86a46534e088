"""The tab with snippets that ask the same model from a program, and the one event that gradio_client may call.

The page's address is filled in by the visitor's browser, which knows it behind every proxy.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import gradio as gr
from markupsafe import Markup

from hub import BundleError, ImageClassifier, Refusal
from hub.agreement import Agreement, read_agreement
from hub.bundle import DEFAULT
from hub.formats import FORMATS
from hub.publishing.card_runtimes import own_snippet
from space import api, guards, tools
from space.languages import Say, written
from space.offer import Offer
from space.work import WORK, is_large

SCRIPT = (Path(__file__).parent / "static" / "use_it.js").read_text(encoding="utf-8")
ADDRESS = "http://localhost:7860/"  # in the snippets; the browser puts the page's own in its place

CURL = f"curl --data-binary @photo.jpg {ADDRESS}api/predict"
PYTHON = f"""
import json
from pathlib import Path
from urllib.request import urlopen

photo = Path("photo.jpg").read_bytes()
with urlopen("{ADDRESS}api/predict", photo) as reply:
    answer = json.load(reply)["results"][0]
print(answer["label"])
print(answer["probabilities"])
"""
JAVASCRIPT = f"""
// In a <script type="module">, once a picture is chosen in an <input type="file">.
const [photo] = document.querySelector("input[type=file]").files;
const reply = await fetch("{ADDRESS}api/predict", {{ method: "POST", body: photo }});
const [answer] = (await reply.json()).results;
console.log(answer.label, answer.probabilities);
"""
GRADIO_CLIENT = f"""
from gradio_client import Client, handle_file

client = Client("{ADDRESS}")
answer = client.predict(handle_file("photo.jpg"), api_name="/predict")["results"][0]
print(answer["label"])
print(answer["probabilities"])
"""
MCP_CLIENT = f"""
import asyncio
import base64
from pathlib import Path

from mcp import Client


async def main():
    photo = base64.b64encode(Path("photo.jpg").read_bytes()).decode()
    async with Client("{ADDRESS}mcp") as client:
        result = await client.call_tool("classify_image", {{"image_base64": photo}})
    answer = result.structured_content
    print(answer["label"])
    print(answer["probabilities"])


asyncio.run(main())
"""


def mcp_configuration(name: str) -> str:
    """Return what an MCP client's configuration file takes."""
    server = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "classifier"
    return json.dumps({"mcpServers": {server: {"type": "http", "url": f"{ADDRESS}mcp"}}}, indent=2)


def on_own_machine(classifier: ImageClassifier) -> str:
    """Return the lines that load the same model with this package."""
    if classifier.folder == DEFAULT:
        return own_snippet(classifier.config, "").replace('""', "")  # without a name it is the embedded model
    return own_snippet(classifier.config, _named_in_code(classifier))


def _named_in_code(classifier: ImageClassifier) -> str:
    """Return what from_pretrained takes: a name on the Hub, or the folder as it is called where it lies."""
    local = classifier.folder if classifier.revision is None else None
    return local.resolve().name if local else classifier.name


def other_formats(classifier: ImageClassifier) -> dict[str, str]:
    """Return the card's snippets of a model of the Hub by title: each loads it without this package."""
    if classifier.revision is None or not (agreement := _agreement(classifier)):
        return {}
    published = [one for name, one in FORMATS.items() if name in agreement.runtimes]
    return {one.title: one.snippet(classifier.config, classifier.name) for one in published}


def _agreement(classifier: ImageClassifier) -> Agreement | None:
    try:
        return read_agreement(classifier.folder)
    except BundleError:  # of another version
        return None


def build(offer: Offer) -> None:
    """Lay out the tab and open the endpoint `/predict` to gradio_client; call it inside gr.Blocks."""
    gr.HTML(written(lambda say: text(say, offer.classifier)), js_on_load=SCRIPT, elem_id="use-it")
    _open_to_gradio_client(offer)


def text(say: Say, classifier: ImageClassifier) -> Markup:
    """Return what stands in the tab (HTML)."""
    reference = Markup("<a href='api/docs'>{}</a>").format(say("use_it.reference"))
    client = {"install": _code("pip install gradio_client"), "variable": _code("HF_HUB_DISABLE_TELEMETRY=1")}
    names = {"classify": _code(tools.CLASSIFY), "info": _code(tools.INFO)}
    return Markup("").join(
        [
            _paragraph(say("use_it.lead"), "lead"),
            _heading("HTTP"),
            _paragraph(say("use_it.http", reference=reference)),
            _block(say, "curl", "curl", CURL),
            _block(say, "python", "Python", PYTHON),
            _block(say, "javascript", say("use_it.in_browser"), JAVASCRIPT),
            _heading("gradio_client"),
            _paragraph(say("use_it.client", **client)),
            _block(say, "gradio-client", "Python", GRADIO_CLIENT),
            _heading(say("use_it.own")),
            _paragraph(say("use_it.own_about", install=_code("pip install ."))),
            _where_it_lies(say, classifier),
            _block(say, "own", "Python", on_own_machine(classifier)),
            _formats(say, classifier),
            _heading("MCP"),
            _paragraph(say("use_it.mcp", **names)),
            _block(say, "mcp", say("use_it.configuration"), mcp_configuration(classifier.name)),
            _paragraph(say("use_it.mcp_python", install=_code("pip install mcp"))),
            _block(say, "mcp-client", "Python", MCP_CLIENT),
        ]
    )


def _where_it_lies(say: Say, classifier: ImageClassifier) -> Markup:
    """Say which folder the snippet needs, where it needs one."""
    if classifier.folder == DEFAULT or classifier.revision is not None:
        return Markup("")
    return _paragraph(say("use_it.folder", name=_code(_named_in_code(classifier))))


def _formats(say: Say, classifier: ImageClassifier) -> Markup:
    """Show the other formats' snippets, where there are any."""
    if not (found := other_formats(classifier)):
        return Markup("")
    blocks = [_block(say, f"format-{number}", title, code) for number, (title, code) in enumerate(found.items())]
    return Markup("").join([_paragraph(say("use_it.formats")), *blocks])


def _block(say: Say, name: str, title: str, code: str) -> Markup:
    """Draw a snippet with its title and a button that copies it."""
    marked = Markup("<span class='address'>{}</span>").format(say.text(ADDRESS))
    title = title if isinstance(title, Markup) else say.text(title)
    return Markup(
        "<figure data-snippet='{name}'><figcaption><span>{title}</span><span role='status' class='sr-only'></span>"
        "<button type='button' aria-label='{spoken}' data-copy='{copy}' data-done='{done}' data-failed='{failed}'>"
        "{copy}</button></figcaption><pre tabindex='0'><code>{code}</code></pre></figure>"
    ).format(
        name=name,
        title=title,
        spoken=say("use_it.copy_what", what=title),
        copy=say("use_it.copy"),
        done=say("use_it.copied"),
        failed=say("use_it.not_copied"),
        code=Markup(marked.join(say.text(part) for part in code.strip().split(ADDRESS))),
    )


def _heading(title: str) -> Markup:
    return Markup("<h2>{}</h2>").format(title)


def _paragraph(content: Markup, kind: str = "") -> Markup:
    return Markup("<p class='{}'>{}</p>").format(kind, content)


def _code(content: str) -> Markup:
    return Markup("<code>{}</code>").format(Say.text(content))


def _open_to_gradio_client(offer: Offer) -> None:
    """Let gradio_client ask: the one event of the page that others may call, on components that nobody sees."""
    photo = guards.photo(label="photo", visible=False)
    answer = gr.JSON(label="answer", visible=False)

    def predict(photo: str | None) -> dict:
        """Answer an uploaded picture as POST /api/predict does."""
        if photo is None:
            raise gr.Error("There is no picture; send one.", print_exception=False)
        try:
            return WORK.run("page", api.answer, offer.classifier, photo, alone=is_large(Path(photo)))
        except Refusal as error:
            raise gr.Error(str(error), print_exception=False) from error

    gr.Button(visible=False).click(
        predict, photo, answer, api_name="predict", api_visibility="public", concurrency_limit=2
    )
