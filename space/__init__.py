"""The page: what a visitor sees, and what keeps it safe.

server.py      one process, one port: the page, and beside it api.py (HTTP) and tools.py (MCP)
page.py        the frame: title, tabs, theme
try_it.py      a tab: one picture; likewise many.py, quality.py, compare.py, model_card.py, use_it.py
offer.py       what was named at start
viewer.py      a picture with its maps; words.py: sentences and numbers about an answer
samples.py     pictures to click on; archives.py: zip files
record.py      the predictions that travel with a model; curves.py: what is counted of them; charts.py: drawn
guards.py      what a visitor may send; limits.py: what a request may be; visits.py: what a visit leaves
work.py        whose turn it is: one budget of decoding and answering for the page, HTTP and MCP
languages/     every text, in every language; static/: how it looks, and what the browser does
"""

import os
import sys

# Before anything imports gradio: nothing about a visit is reported to anyone.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

# Gradio loads the MCP package wherever it finds it, for a server of its own that is off here. Kept from it, its time at
# the start and its memory are spent only where tools.py needs them: once somebody asks over MCP.
if not {"gradio", "mcp"} & sys.modules.keys():
    sys.modules["mcp"] = None
    try:
        import gradio  # noqa: F401
    finally:
        del sys.modules["mcp"]
