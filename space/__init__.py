"""The page: what a visitor sees, and what keeps it safe.

page.py      the frame: title, tabs, theme, limits of the server
try_it.py    the tab that answers one picture
words.py     its sentences and numbers
samples.py   pictures to click on
guards.py    what a visitor may send
style.css    how it looks
"""

import os

# Before anything imports gradio: nothing about a visit is reported to anyone.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
