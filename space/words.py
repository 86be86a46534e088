"""The page's sentences and numbers. Whatever comes from a bundle or a visitor is escaped here."""

from __future__ import annotations

import html

import numpy as np

from hub import Prediction
from hub.heatmaps import colour, shown_map

PLACES = (
    ("in the upper left", "at the top", "in the upper right"),
    ("on the left", "in the middle", "on the right"),
    ("in the lower left", "at the bottom", "in the lower right"),
)


def escape(text: str) -> str:
    """Escape a text for gr.HTML, which reads HTML and, after that, {{templates}}."""
    return html.escape(text).replace("{", "&#123;")


def one_of(labels: list[str]) -> str:
    """Name the labels as a choice: 'cat, dog or fox'; beyond six only their number."""
    if len(labels) > 6:
        return f"one of {len(labels)} labels"
    return f"{', '.join(labels[:-1])} or {labels[-1]}"


def all_of(labels: list[str]) -> str:
    """Name the labels together: 'cat, dog and fox'; beyond six only their number."""
    return f"{len(labels)} labels" if len(labels) > 6 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def capital(text: str) -> str:
    """Return a text with its first letter in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


def percent(share: float) -> str:
    """Write a probability with one decimal; never as a certainty that it is not."""
    if share >= 0.9995:
        return "more than 99.9 %"
    if share < 0.0005:
        return "less than 0.1 %"
    return f"{100 * share:.1f} %"


def signed(value: float) -> str:
    """Write a number of logits with two decimals, its sign and a true minus."""
    return f"{value:+.2f}".replace("-", "−").replace("−0.00", "+0.00")


def place(values: np.ndarray) -> str | None:
    """Say where the largest cell of a map (h, w) lies, in ninths of the picture; None if it does not stand out."""
    if values.max() <= 0 or values.max() == values.min():
        return None
    row, column = np.unravel_index(values.argmax(), values.shape)
    down, across = (int(3 * (index + 0.5) / n) for index, n in zip((row, column), values.shape, strict=True))
    return PLACES[down][across]


def verdict(prediction: Prediction, labels: list[str]) -> str:
    """Say what is known and no more: the label, its probability, where the strongest evidence lies (HTML)."""
    first, second = np.argsort(-prediction.probabilities, kind="stable")[:2]
    share, runner_up = (percent(float(prediction.probabilities[index])) for index in (first, second))
    if share == runner_up:
        names = f"{escape(labels[first])} and {escape(labels[second])}"
        return f"<strong>Undecided.</strong> <span>{capital(names)} get {share} each.</span>"
    where = None if prediction.evidence is None else place(shown_map(prediction.evidence, int(first)))
    rest = f" <span>The strongest evidence for it lies {where}.</span>" if where else ""
    return f"<strong>{escape(capital(labels[first]))}, {share}.</strong>{rest}"


def shares(prediction: Prediction, labels: list[str], most: int = 10) -> str:
    """List the most probable labels with a bar each (HTML)."""
    rows = []
    for index in np.argsort(-prediction.probabilities, kind="stable")[:most]:
        share = float(prediction.probabilities[index])
        rows.append(
            f"<li><span>{escape(labels[index])}</span><b>{percent(share)}</b>"
            f"<div class='track'><div style='width: {100 * share:.2f}%'></div></div></li>"
        )
    return f"<ol class='shares' aria-label='Probabilities'>{''.join(rows)}</ol>"


def account(prediction: Prediction, labels: list[str], k: int) -> str:
    """Show that the map of label `k` adds up: its mean over the cells, and what that number is (HTML)."""
    values = shown_map(prediction.evidence, k)
    mean = float(values.mean(dtype=np.float64))
    terms = [_term(signed(mean), f"mean of the {values.size} cells, in logits")]
    name = escape(labels[k])
    if len(labels) == 2:
        terms.append(_term("log-odds", f"of {name} against {escape(labels[1 - k])}"))
        terms.append(
            _term(percent(float(prediction.probabilities[k])), f"{name}: 1 / (1 + e<sup>{signed(-mean)}</sup>)")
        )
        return f"<div class='account'>{terms[0]}<i>=</i>{terms[1]}<i>→</i>{terms[2]}</div>"
    logits = prediction.logits.astype(np.float64)
    terms += [_term(signed(logits[k]), f"logit of {name}"), _term(signed(logits.mean()), "mean of all logits")]
    return f"<div class='account'>{terms[0]}<i>=</i>{terms[1]}<i>−</i>{terms[2]}</div>"


def _term(number: str, meaning: str) -> str:
    number = number.replace(" %", "&nbsp;%")
    return f"<div><b>{number}</b><span>{meaning}</span></div>"


def bar(labels: list[str], k: int, scale: float, opacity: float, *, signed_map: bool) -> str:
    """Draw the colour bar of a map as `opacity` leaves it over white (HTML)."""
    low = -scale if signed_map else 0.0
    stops = colour(np.array([low, (low + scale) / 2, scale]), scale)
    gradient = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in stops)
    name = escape(labels[k])
    against = f"speaks for {escape(labels[1 - k])}" if len(labels) == 2 else f"speaks against {name}"
    ends = (against if signed_map else "no evidence", f"speaks for {name}")
    ticks = (_tick(low), _tick((low + scale) / 2), f"{_tick(scale)} logits")
    spoken = f"Colour scale from {ticks[0]}, {ends[0]}, to {ticks[2]}, {ends[1]}."
    return (
        f"<div class='bar' role='img' aria-label='{spoken}'>"
        f"<div class='ends'><span>{ends[0]}</span><span>{ends[1]}</span></div>"
        f"<div class='strip'><div style='background: linear-gradient(to right, {gradient}); opacity: {opacity:.2f}'>"
        f"</div></div><div class='ticks'>{''.join(f'<span>{tick}</span>' for tick in ticks)}</div></div>"
    )


def _tick(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−") if value else "0"


def about_evidence(labels: list[str], k: int, grid: tuple[int, int]) -> str:
    """Say what the evidence map of label `k` is, and what it is not (HTML)."""
    name = escape(labels[k])
    if len(labels) == 2:
        colours = f"red speaks for {name}, blue for {escape(labels[1 - k])}, and their mean is the log-odds"
    else:
        colours = f"red speaks for {name}, blue against it, compared with the mean of all {len(labels)} labels"
    return (
        f"<p>Each of the {grid[0]} × {grid[1]} cells is one term of the score: {colours}. "
        "This account is <strong>exact for the network’s last layer, not for pixels</strong>: one cell sees much "
        "more of the picture than its own square. The scale is the same for every picture, so strengths can be "
        "compared. The answer is the sum: strong red and strong blue that cancel are a guess too.</p>"
    )


def about_grad_cam(labels: list[str], k: int) -> str:
    """Say what the Grad-CAM view of label `k` shows (HTML)."""
    name = escape(labels[k])
    return (
        f"<p>What the method Grad-CAM gives for {name}, from the same pass: for this network it is the positive "
        f"part of {name}’s own evidence, max(evidence, 0). What speaks against {name} is left out, and what speaks "
        "for every label alike stays in, so it can light up where the labels do not differ.</p>"
    )


NO_EVIDENCE = (
    "<p>This model keeps no map: its head averages the picture away before it scores the labels, so it gives "
    "probabilities and nothing that says where they come from. A model trained here with the evidence head does.</p>"
)
