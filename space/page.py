"""The frame around the tabs: title, theme, footer, and the limits the server runs under."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from hub import ImageClassifier
from space import guards, try_it, words
from space.samples import Sample

STYLE = Path(__file__).parent / "style.css"


def build(classifier: ImageClassifier, samples: list[Sample]) -> gr.Blocks:
    """Return the page for one classifier."""
    title = f"{words.capital(words.one_of(classifier.labels))}?"
    with gr.Blocks(
        title=title,
        analytics_enabled=False,
        delete_cache=(guards.DELETE_EVERY, guards.DELETE_AFTER),
    ) as page:
        gr.HTML(
            f"<h1>{words.escape(title)}</h1><p>Show it a picture: it answers with probabilities and with the evidence, "
            "a map of what each cell of its last layer added to the score.</p>",
            elem_id="title",
        )
        try_it.build(classifier, samples)
        gr.HTML(
            f"<p>It knows only {words.escape(words.all_of(classifier.labels))} and has to choose, whatever the picture "
            "shows. "
            f"Model: {words.escape(classifier.name)}. Pictures go nowhere else and are deleted within an hour.</p>",
            elem_id="footer",
        )
    page.queue(max_size=guards.MAX_WAITING, api_open=False)
    return page


def serve(page: gr.Blocks, *, host: str | None = None, port: int | None = None, wait: bool = True) -> str:
    """Open the page and return its address; with `wait`, only after Ctrl-C.

    Everything Gradio could send elsewhere or keep is off: its share link, run history, monitoring, MCP.

    Raises:
        OSError: the port is taken.
    """
    guards.stay_home()
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            theme=_theme(),
            css_paths=STYLE,
            footer_links=[],
            max_file_size=guards.MAX_FILE_SIZE,
            state_session_capacity=guards.SESSIONS,
            show_error=False,  # what a visitor can cause is answered in the page; the rest would reveal paths
            quiet=True,
            share=False,
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            pwa=False,
        )
    except OSError as error:
        if "empty port" not in str(error):
            raise
        taken = f"Port {port} is" if port else "The ports from 7860 on are"
        raise OSError(f"{taken} taken; name another with --port.") from error
    if wait:
        print(f"The page is open at {address}", flush=True)
        page.block_thread()
    return address


def _theme() -> gr.themes.Base:
    """Gradio's own look with fonts that come with it: no font is fetched from the web."""
    return gr.themes.Default(
        primary_hue=gr.themes.colors.indigo,
        secondary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=(gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "ui-sans-serif", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    )
