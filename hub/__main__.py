"""python -m hub: predict, export, verify, push, pull, card, space push."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before anything imports TensorFlow

try:
    import typer  # noqa: F401
except ImportError:
    print("The commands need the package typer; pip install typer.", file=sys.stderr)
    raise SystemExit(2) from None

from hub.cli import main

main()
