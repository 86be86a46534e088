"""What a tab does when somebody opens it, so that nothing of it is made, or sent, before."""

from __future__ import annotations

import gradio as gr
from gradio.context import Context


def opening() -> gr.events.EventListener:
    """Return the event of opening the tab that is being laid out; without tabs, that of opening the page."""
    block = Context.block
    while block is not None and not isinstance(block, gr.Tab):
        block = block.parent
    return Context.root_block.load if block is None else block.select
