"""The Space's door: read the options, open the page.

python app.py                          the model that comes with the repository
python app.py --model FOLDER_OR_NAME   another one: a folder, or a model on the Hugging Face Hub
python app.py --samples FOLDER         with your own pictures to click on
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from hub import ImageClassifier
from space import guards
from space.page import build, serve
from space.samples import samples_for


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Open the page that answers a picture with evidence.")
    parser.add_argument(
        "--model",
        default=os.environ.get("MODEL_ID") or None,
        help="a bundle's folder or a model on the Hub (default: $MODEL_ID, or else the embedded model)",
    )
    parser.add_argument("--samples", type=Path, metavar="FOLDER", help="more pictures to click on")
    parser.add_argument("--host", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, help="port to listen on (default: 7860, or the next free one)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Serve until interrupted; what cannot work is said in one sentence."""
    chosen = options(arguments)
    # A container is stopped with SIGTERM: leave as with Ctrl-C, so that visitors' pictures are deleted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        classifier = ImageClassifier.from_pretrained(chosen.model)
        pictures = samples_for(chosen.samples)
        with guards.upload_folder():
            serve(build(classifier, pictures), host=chosen.host, port=chosen.port)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
