"""The same model behind a stock gr.Interface, as most demos are written: python -m benchmarks.stock [--limit N].

`gr.Image(type="pil")` in, `gr.Label()` and `gr.Image()` out, everything else as Gradio sets it. The map is drawn by
the page's own rule on a picture of the page's own size, so what differs is the way in and out.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path

from hub import ImageClassifier
from hub.bundle import DEFAULT
from hub.heatmaps import overlay, shown_map

SIDE, OPACITY = 512, 0.65  # of the heatmap that POST /api/predict returns
FALLBACK_SCALE = 10.0  # logits, for a bundle that stores no scale


def interface(classifier: ImageClassifier, limit: int | None, form: str):
    """Return the app: a picture to its probabilities and its heatmap."""
    import gradio as gr

    def predict(picture):
        prediction = classifier.predict(picture)
        picture.thumbnail((SIDE, SIDE))
        values = shown_map(prediction.evidence, classifier.labels.index(prediction.label))
        shares = dict(zip(classifier.labels, map(float, prediction.probabilities), strict=True))
        return shares, overlay(picture, values, classifier.evidence_scale or FALLBACK_SCALE, OPACITY)

    return gr.Interface(
        predict, gr.Image(type="pil"), [gr.Label(), gr.Image(format=form)], concurrency_limit=limit or "default"
    )


def main() -> None:
    """Serve until stopped; prints the address."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="a bundle's folder (default: the embedded one)")
    parser.add_argument("--limit", type=int, help="concurrency_limit (default: Gradio's, which is 1)")
    parser.add_argument("--form", default="webp", help="how the heatmap is encoded (default: Gradio's, webp)")
    chosen = parser.parse_args()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app = interface(ImageClassifier.from_pretrained(chosen.model), chosen.limit, chosen.form)
    app.launch(server_name="127.0.0.1", share=False, quiet=True, prevent_thread_lock=True)
    print(f"The stock app is open at {app.local_url}", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        app.close(verbose=False)


if __name__ == "__main__":
    main()
