"""Numbers and sentences about an answer, in the visitor's language. Whatever comes from a bundle is escaped."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from hub import Prediction
from hub.heatmaps import colour, shown_map
from hub.scores import NEARLY_0, NEARLY_1
from space.languages import Say

NAMED_UP_TO = 6  # labels that are named one by one
PLACES = (
    ("upper_left", "top", "upper_right"),
    ("left", "middle", "right"),
    ("lower_left", "bottom", "lower_right"),
)


def one_of(say: Say, labels: list[str]) -> str:
    """Name the labels as a choice: 'cat, dog or fox'; beyond six only their number."""
    if len(labels) > NAMED_UP_TO:
        return say.plain("words.one_of", count=len(labels))
    return say.plain("words.or", first=", ".join(labels[:-1]), last=labels[-1])


def title(say: Say, labels: list[str]) -> str:
    """Return the question that the page answers: 'Cat or dog?'."""
    return say.plain("words.question", choice=capital(one_of(say, labels)))


def all_of(say: Say, labels: list[str]) -> str:
    """Name the labels together: 'cat, dog and fox'; beyond six only their number."""
    if len(labels) > NAMED_UP_TO:
        return say.plain("words.all_of", count=len(labels))
    return say.plain("words.and", first=", ".join(labels[:-1]), last=labels[-1])


def capital(text: str) -> str:
    """Return a text with its first letter in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


def percent(say: Say, share: float) -> str:
    """Write a probability with one decimal; never as a certainty that it is not."""
    if share >= NEARLY_1:
        return say.number(say.plain("words.more_than", number="99.9"))
    if share < NEARLY_0:
        return say.number(say.plain("words.less_than", number="0.1"))
    return say.number(f"{100 * share:.1f}\N{NO-BREAK SPACE}%")


def signed(say: Say, value: float) -> str:
    """Write a number of logits with two decimals, its sign and a true minus."""
    return say.number(f"{value:+.2f}".replace("-", "−").replace("−0.00", "+0.00"))


def place(values: np.ndarray) -> str | None:
    """Say where the largest cell of a map (h, w) lies, as one of PLACES, ninths of the picture.

    None if no cell stands out, or if none speaks for the label.
    """
    if values.max() <= 0 or values.max() == values.min():
        return None
    row, column = np.unravel_index(values.argmax(), values.shape)
    down, across = (int(3 * (index + 0.5) / n) for index, n in zip((row, column), values.shape, strict=True))
    return PLACES[down][across]


def strongest(say: Say, prediction: Prediction, k: int) -> str | None:
    """Say where the strongest evidence for label `k` lies; None where there is none to tell."""
    where = None if prediction.evidence is None else place(shown_map(prediction.evidence, k))
    return where and say.plain(f"words.{where}")


def verdict(say: Say, prediction: Prediction, labels: list[str]) -> Markup:
    """Say what is known and no more: the label, its probability, where the strongest evidence lies."""
    first, second = (int(index) for index in np.argsort(-prediction.probabilities, kind="stable")[:2])
    share, runner_up = (percent(say, float(prediction.probabilities[index])) for index in (first, second))
    if share == runner_up:
        return say("words.undecided", first=capital(labels[first]), second=labels[second], share=share)
    answer = say("words.answer", label=capital(labels[first]), share=share)
    where = strongest(say, prediction, first)
    return answer + " " + say("words.where", place=where) if where else answer


def shares(say: Say, prediction: Prediction, labels: list[str], most: int = 10) -> Markup:
    """List the most probable labels with a bar each."""
    row = Markup("<li><span>{}</span><b>{}</b><div class='track'><div style='width: {:.2f}%'></div></div></li>")
    rows = []
    for index in np.argsort(-prediction.probabilities, kind="stable")[:most]:
        share = float(prediction.probabilities[index])
        rows.append(row.format(say.text(labels[index]), percent(say, share), 100 * share))
    return Markup("<ol class='shares' aria-label='{}'>{}</ol>").format(
        say.plain("words.probabilities"), Markup("").join(rows)
    )


def account(say: Say, prediction: Prediction, labels: list[str], k: int) -> Markup:
    """Show that the map of label `k` adds up: its mean over the cells, and what that number is."""
    values = shown_map(prediction.evidence, k)
    mean = float(values.mean(dtype=np.float64))
    terms = [_term(signed(say, mean), say("words.mean_of_cells", count=values.size))]
    if len(labels) == 2:
        share = percent(say, float(prediction.probabilities[k]))
        odds = say("words.log_odds_of", label=labels[k], other=labels[1 - k])
        sigmoid = say("words.sigmoid", label=labels[k], mean=signed(say, -mean))
        terms += [_term(say("words.log_odds"), odds), _term(share, sigmoid)]
    else:
        logits = prediction.logits.astype(np.float64)
        terms.append(_term(signed(say, logits[k]), say("words.logit_of", label=labels[k])))
        terms.append(_term(signed(say, logits.mean()), say("words.mean_of_logits")))
    second = Markup("<i>→</i>" if len(labels) == 2 else "<i>−</i>")
    return Markup("<div class='account'>{}<i>=</i>{}{}{}</div>").format(terms[0], terms[1], second, terms[2])


def _term(number: str, meaning: Markup) -> Markup:
    return Markup("<div><b>{}</b><span>{}</span></div>").format(number, meaning)


def bar(say: Say, labels: list[str], k: int, scale: float | None, *, signed_map: bool) -> Markup:
    """Draw the colour bar of a map, in logits; with no scale the map is relative to its own maximum."""
    span = scale or 1.0
    low = -span if signed_map else 0.0
    stops = colour(np.array([low, (low + span) / 2, span]), span)
    gradient = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in stops)
    against = say("words.speaks_for", label=labels[1 - k]) if len(labels) == 2 else None
    against = against or say("words.speaks_against", label=labels[k])
    ends = (against if signed_map else say("words.nothing"), say("words.speaks_for", label=labels[k]))
    if scale is None:
        ticks = ["0", "", say("words.own_maximum")]
    else:
        ticks = [_tick(say, low), _tick(say, (low + span) / 2), say("words.logits", number=_tick(say, span))]
    spoken = say("words.bar", low=ticks[0], low_end=ends[0], high=ticks[2], high_end=ends[1])
    marks = Markup("").join(Markup("<span>{}</span>").format(tick) for tick in ticks)
    return Markup(
        "<div class='bar' role='img' aria-label=\"{}\"><div class='ends'><span>{}</span><span>{}</span></div>"
        "<div class='strip'><div style='background: linear-gradient(to right, {})'></div></div>"
        "<div class='ticks'>{}</div></div>"
    ).format(say.text(spoken.striptags()), *ends, gradient, marks)


def _tick(say: Say, value: float) -> str:
    return say.number(f"{value:+.1f}".replace("-", "−")) if value else "0"


def about_evidence(say: Say, labels: list[str], k: int, grid: tuple[int, int]) -> Markup:
    """Say what the evidence map of label `k` is, and what it is not."""
    other = labels[1 - k] if len(labels) == 2 else ""
    kind = "two" if len(labels) == 2 else "more"
    colours = say(f"words.colours_{kind}", label=labels[k], other=other, count=len(labels))
    return say("words.about_evidence", rows=grid[0], columns=grid[1], colours=colours)
