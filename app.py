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
import threading
import time
from pathlib import Path

from hub import ImageClassifier, Refusal
from space import guards
from space.offer import Offer
from space.page import build
from space.samples import samples_for
from space.server import application, serving


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; a Space sets the environment variables named here."""
    parser = argparse.ArgumentParser(description="Open the page, which answers pictures and shows the evidence.")
    parser.add_argument(
        "--model",
        default=os.environ.get("MODEL_ID") or None,
        help="a bundle's folder or a model on the Hub (default: $MODEL_ID, or else the embedded model)",
    )
    parser.add_argument(
        "--compare",
        metavar="MODEL",
        default=os.environ.get("COMPARE_ID") or None,
        help="a second model, folder or Hub name, to see beside the first (default: $COMPARE_ID)",
    )
    parser.add_argument("--samples", type=folder, metavar="FOLDER", help="more pictures to click on")
    parser.add_argument("--photos", type=folder, metavar="FOLDER", help="the photos that the model was measured on")
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME") or None,
        help="address to listen on (default: $GRADIO_SERVER_NAME, or else this machine only)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get("GRADIO_SERVER_PORT") or None,
        help="port to listen on (default: $GRADIO_SERVER_PORT, or else 7860 or the next free one)",
    )
    return parser.parse_args(arguments)


def folder(name: str) -> Path:
    """Return a folder as it was named; a shell leaves the ~ of --samples=~/pictures to us."""
    return Path(os.path.expanduser(name))


def opened(name: str | None) -> ImageClassifier:
    """Load a model; one of the Hub is fetched, or found in the cache, with its progress on standard error."""
    if name and not Path(name).expanduser().is_dir():
        print(f"Fetching {name} from the Hub …", file=sys.stderr, flush=True)
    return ImageClassifier.from_pretrained(name)


def wait_until_stopped() -> None:
    """Return at Ctrl-C or SIGTERM. A second one changes nothing: visitors' pictures are being deleted."""
    asked: list[int] = []
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background job ignores Ctrl-C
                signal.signal(number, lambda which, _: asked.append(which))
    while not asked:
        time.sleep(0.2)  # not an Event: setting one in a handler can lock up


def main(arguments: list[str] | None = None) -> None:
    """Serve until interrupted; what cannot work is said in one sentence."""
    chosen = options(arguments)
    if threading.current_thread() is threading.main_thread():  # the only one that may say what a signal does
        # A container is stopped with SIGTERM: leave as with Ctrl-C, so that visitors' pictures are deleted.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        offer = Offer(
            opened(chosen.model),
            other=opened(chosen.compare) if chosen.compare else None,
            samples=samples_for(chosen.samples),
            photos=chosen.photos,
        )
        with (
            guards.upload_folder(),
            serving(application(build(offer), offer), host=chosen.host, port=chosen.port) as address,
        ):
            print(f"The page is open at {address}", flush=True)
            wait_until_stopped()
    except Refusal as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
