"""What learning curves say, in words: each verdict is a rule that is written down, with the numbers it rests on.

The rules speak of the kept epoch (the lowest validation log loss) and of the last one. Training is measured while it
happens: on augmented pictures, with dropout, and averaged over an epoch in which the weights still move.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from training.photos.augment import Augmentation
from training.runs import kept_row

GAP = 0.03  # of accuracy, between training and validation
RATIO, FLOOR = 1.5, 0.05  # of log loss, between validation and training: so many times, and at least so much, more
RISE = 0.05  # of the lowest validation log loss, at the end
FALL = 0.01  # of validation log loss, in the last epoch
LEARNED = 0.95  # of the log loss of guessing
SOLVED = 0.9  # accuracy
FEW = 3  # epochs

RULES = {
    "not_learning": f"At the end the training loss is at least {100 * LEARNED:.0f} % of the loss of guessing, which is "
    "the entropy of the labels' shares.",
    "overfitting": f"At the kept epoch, training accuracy is at least {100 * GAP:.0f} points above validation accuracy "
    f"(and more than twice that one's standard error), or validation loss is at least {RATIO:g} times the training "
    f"loss and {FLOOR:g} above it.",
    "rising": f"At the end the validation loss is at least {100 * RISE:.0f} % above its lowest value, which came "
    "earlier.",
    "underfitting": f"At the kept epoch, training and validation accuracy are both below {100 * SOLVED:.0f} % and less "
    f"than {100 * GAP:.0f} points apart.",
    "still_falling": "The kept epoch is the last one, and it brought the validation loss down by at least "
    f"{100 * FALL:.0f} %.",
    "training_worse": "At the kept epoch the training loss is above the validation loss.",
    "stopped": "There are fewer epochs than `epochs` allows.",
    "few_epochs": f"There are fewer than {FEW} epochs. That is too few to judge over- or underfitting: averages "
    "of weights and of batch normalisation need some time before they are useful.",
    "balanced": "It has learned, and no rule of over- or underfitting holds (of a rising loss: once calibrated).",
}


@dataclass(frozen=True)
class Verdict:
    """One thing that the curves say."""

    name: str  # a key of RULES
    kind: str  # "good", "note" or "warn"
    title: str
    text: str
    advice: list[tuple[str, str]]  # (KEY=VALUE or "", what it does)
    numbers: dict[str, float]


@dataclass(frozen=True)
class _Curves:
    """A history at its kept and its last epoch; NaN where a column or a value is missing."""

    history: dict[str, np.ndarray]
    settings: dict[str, Any]
    chance: float
    photos: int | None

    @property
    def row(self) -> int:
        """The kept epoch's."""
        return kept_row(self.history)

    @property
    def epochs(self) -> int:
        return len(self.history["epoch"])

    @property
    def epoch(self) -> int:
        """The kept epoch's number."""
        return int(self.history["epoch"][self.row])

    def at(self, column: str, row: int) -> float:
        values = self.history.get(column)
        return float(values[row]) if values is not None else float("nan")

    def kept(self, column: str) -> float:
        return self.at(column, self.row)

    @property
    def chosen_by(self) -> str:
        """The column by whose lowest value the epoch was kept."""
        column = "validation_calibrated_loss"
        values = self.history.get(column)
        return column if values is not None and np.isfinite(values).any() else "validation_loss"


def judge(
    history: dict[str, np.ndarray],
    settings: dict[str, Any],
    *,
    chance: float,
    photos: int | None = None,
) -> list[Verdict]:
    """All verdicts on a run's curves, the gravest first.

    Args:
        history: columns of history.csv (`training.runs.read_history`); any but epoch may be missing.
        settings: all of a recipe's settings (`training.runs.Run.settings`).
        chance: the log loss of guessing by the labels' shares (`guessing`).
        photos: the number of validation pictures, where it is known.
    """
    curves = _Curves(history, settings, chance, photos)
    found = [rule(curves) for rule in (_not_learning, _overfitting, _rising, _underfitting, _still_falling)]
    fired = {verdict.name for verdict in found if verdict}
    found += [rule(curves) for rule in (_training_worse, _stopped, _few_epochs)]
    if "not_learning" in fired:  # then there is nothing to fit too little or too much
        found = [verdict for verdict in found if verdict and verdict.name != "underfitting"]
    found.append(_balanced(curves, fired))
    if curves.epochs < FEW:
        silent = {"overfitting", "underfitting", "balanced"}
        found = [verdict for verdict in found if verdict and verdict.name not in silent]
    return [verdict for verdict in found if verdict]


def guessing(shares: np.ndarray) -> float:
    """The log loss of always giving each label its share as probability, which is the shares' entropy in nats."""
    shares = np.asarray(shares, np.float64)
    shares = shares[shares > 0] / shares.sum()
    return float(-(shares * np.log(shares)).sum())


# Rules ------------------------------------------------------------------------------------------------------


def _not_learning(curves: _Curves) -> Verdict | None:
    loss = curves.at("train_loss", -1)
    if not loss >= LEARNED * curves.chance:
        return None
    rate = curves.settings["learning_rate"]
    return Verdict(
        "not_learning", "warn", "It has not learned",
        f"The training loss at the end is {loss:.4f}; guessing by the labels' shares alone costs {curves.chance:.4f}. "
        "So the network has found nothing in the pictures that tells the labels apart.",
        [
            (f"learning_rate={rate / 10:g}", "where the loss jumps about or grows, the steps are too large"),
            (f"learning_rate={min(rate * 10, 10):g}", "where it hardly moves, they are too small"),
            ("", "Look at some training pictures and their labels: do they fit, and are they visible at this `size`?"),
        ],
        {"train_loss": loss, "chance_loss": curves.chance},
    )  # fmt: skip


def _overfitting(curves: _Curves) -> Verdict | None:
    gap = curves.kept("train_accuracy") - curves.kept("validation_accuracy")
    by_accuracy = gap >= GAP - 1e-9 and gap > 2 * _standard_error(curves)
    loss, held = curves.kept("train_loss"), curves.kept("validation_loss")
    by_loss = held >= RATIO * loss and held - loss >= FLOOR
    if not (by_accuracy or by_loss):
        return None
    said = [
        f"training accuracy is {_percent(curves.kept('train_accuracy'))} and validation accuracy "
        f"{_percent(curves.kept('validation_accuracy'))}, {100 * gap:.1f} points apart" if np.isfinite(gap) else "",
        f"the training loss is {loss:.4f} and the validation loss {held:.4f}" if np.isfinite(held - loss) else "",
    ]  # fmt: skip
    harder = " and ".join(training_handicaps(curves.settings))
    also = f" Training was measured {harder}: on unchanged pictures the difference is even larger." if harder else ""
    return Verdict(
        "overfitting", "warn", "Overfitting",
        f"At the kept epoch {curves.epoch}, {'; '.join(part for part in said if part)}. Part of what was learned holds "
        f"for the training pictures only.{also}",
        _against_overfitting(curves.settings),
        {
            "train_accuracy": curves.kept("train_accuracy"), "validation_accuracy": curves.kept("validation_accuracy"),
            "accuracy_gap": gap, "train_loss": loss, "validation_loss": held,
        },
    )  # fmt: skip


def _standard_error(curves: _Curves) -> float:
    """Of the validation accuracy at the kept epoch; 0 where the number of pictures is not known."""
    share = curves.kept("validation_accuracy")
    return float(np.sqrt(share * (1 - share) / curves.photos)) if curves.photos else 0.0


def _rising(curves: _Curves) -> Verdict | None:
    values = curves.history.get("validation_loss")
    if values is None or not np.isfinite(values).any():
        return None
    lowest, last = int(np.nanargmin(values)), values[-1]
    if not last >= (1 + RISE) * values[lowest]:
        return None
    numbers = {"lowest_validation_loss": values[lowest], "last_validation_loss": last}
    text = (
        f"The validation loss was lowest in epoch {curves.history['epoch'][lowest]:.0f} ({values[lowest]:.4f}) and "
        f"{last:.4f} in the last. "
    )
    if not _rises_calibrated(curves):
        calibrated = curves.history["validation_calibrated_loss"]
        numbers |= {"lowest_calibrated_loss": np.nanmin(calibrated), "last_calibrated_loss": calibrated[-1]}
        text += (
            f"Once calibrated it has hardly risen ({np.nanmin(calibrated):.4f}, then {calibrated[-1]:.4f}): the "
            "network tells the labels apart as well as before, but becomes too sure. The temperature corrects that."
        )
        advice = [("label_smoothing=0.1", "keeps it from becoming too sure")]
        return Verdict(
            "rising", "note", "The validation loss rises, but the answers do not get worse", text, advice, numbers
        )
    then, end = curves.at("train_loss", lowest), curves.at("train_loss", -1)
    if end >= then:
        text += f"The training loss did not fall meanwhile ({then:.4f}, then {end:.4f}): the steps may be too large. "
        advice = [(f"learning_rate={curves.settings['learning_rate'] / 3:g}", "smaller steps")]
    else:
        if end < then:
            text += f"Meanwhile the training loss fell from {then:.4f} to {end:.4f}. "
        text += "So it learns its training pictures by heart. "
        advice = _against_overfitting(curves.settings)
    text += f"The weights of epoch {curves.epoch} were kept, so this does not harm the model."
    return Verdict("rising", "warn", "The validation loss rises again", text, advice, numbers)


def _rises_calibrated(curves: _Curves) -> bool:
    """Whether what epochs are chosen by rises too; the plain loss where no other is known."""
    values = curves.history[curves.chosen_by]
    return bool(values[-1] >= (1 + RISE) * np.nanmin(values))


def _underfitting(curves: _Curves) -> Verdict | None:
    train, held = curves.kept("train_accuracy"), curves.kept("validation_accuracy")
    if not (train < SOLVED and held < SOLVED and train - held < GAP - 1e-9):
        return None
    return Verdict(
        "underfitting", "warn", "Underfitting, it seems",
        f"At the kept epoch {curves.epoch} only {_percent(train)} of the training pictures are classified correctly "
        f"(validation: {_percent(held)}). It could learn more before it begins to learn by heart. If nothing helps, "
        "these pictures may be impossible to tell apart any better. The curves alone cannot show that.",
        _against_underfitting(curves.settings),
        {"train_accuracy": train, "validation_accuracy": held},
    )  # fmt: skip


def _still_falling(curves: _Curves) -> Verdict | None:
    if curves.epochs < 2 or curves.row != curves.epochs - 1:
        return None
    before, last = curves.at(curves.chosen_by, -2), curves.at(curves.chosen_by, -1)
    if not last <= (1 - FALL) * before:
        return None
    return Verdict(
        "still_falling", "note", "Still getting better at the end",
        f"The last epoch brought the validation loss from {before:.4f} down to {last:.4f}, and it was the one that was "
        "kept. More epochs may bring more; the learning rate's schedule stretches with them, so this is a new run.",
        [(f"epochs={2 * curves.settings['epochs']}", "twice the epochs, with `patience` to stop early")],
        {"validation_loss_before": before, "last_validation_loss": last},
    )  # fmt: skip


def _training_worse(curves: _Curves) -> Verdict | None:
    loss, held = curves.kept("train_loss"), curves.kept("validation_loss")
    if not loss > held:
        return None
    why = [*training_handicaps(curves.settings), "averaged over an epoch in which it still improves"]
    if curves.settings["average_decay"]:
        why.append(f"without the averaged weights (average_decay={curves.settings['average_decay']:g}) of validation")
    return Verdict(
        "training_worse", "note", "Training looks worse than validation; that is normal",
        f"At the kept epoch {curves.epoch} the training loss is {loss:.4f} and the validation loss {held:.4f}. "
        f"Training is measured {', '.join(why)}; validation on unchanged pictures, after the epoch. So the two "
        "are not the same measure, and their order says nothing about over- or underfitting.",
        [],
        {"train_loss": loss, "validation_loss": held},
    )  # fmt: skip


def _stopped(curves: _Curves) -> Verdict | None:
    wanted, patience = curves.settings["epochs"], curves.settings["patience"]
    if curves.epochs >= wanted:
        return None
    return Verdict(
        "stopped", "note", "Stopped early",
        f"After {curves.epochs} of {wanted} epochs: since epoch {curves.epoch}, whose weights were kept, {patience} "
        "epochs (`patience`) brought no better validation loss.",
        [],
        {"epochs": curves.epochs, "epochs_allowed": wanted, "kept_epoch": curves.epoch},
    )  # fmt: skip


def _few_epochs(curves: _Curves) -> Verdict | None:
    if curves.epochs >= FEW:
        return None
    return Verdict(
        "few_epochs", "note", "Too few epochs to judge the curves",
        f"There {'is one epoch' if curves.epochs == 1 else f'are {curves.epochs} epochs'}, so it is too early "
        "to say whether it learns too much or too little.",
        [(f"epochs={max(10, 2 * curves.settings['epochs'])}", "a longer run")],
        {"epochs": curves.epochs},
    )  # fmt: skip


def _balanced(curves: _Curves, fired: set[str]) -> Verdict | None:
    train, held = curves.kept("train_accuracy"), curves.kept("validation_accuracy")
    loss = curves.kept("validation_loss")
    known = np.isfinite([train, held, loss, curves.at("train_loss", -1)]).all()
    if not known or fired & {"not_learning", "overfitting", "underfitting"} or _rises_calibrated(curves):
        return None
    return Verdict(
        "balanced", "good", "Neither over- nor underfitting shows",
        f"At the kept epoch {curves.epoch} training accuracy is {_percent(train)} and validation accuracy "
        f"{_percent(held)}; the validation loss is {loss:.4f} and not rising.",
        [],
        {"train_accuracy": train, "validation_accuracy": held, "validation_loss": loss},
    )  # fmt: skip


# Reasons and advice -----------------------------------------------------------------------------------------


def augmentation(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings by which training pictures are changed, without those that do nothing."""
    given = {field.name: settings.get(field.name, field.default) for field in fields(Augmentation)}
    found = {field.name: given[field.name] for field in fields(Augmentation) if given[field.name] != field.default}
    return found if set(found) - {"fill"} else {}


def training_handicaps(settings: dict[str, Any]) -> list[str]:
    """What makes training harder than validation: "on augmented pictures (flip)", "with dropout on (dropout=0.1)"."""
    dropped = [f"{key}={settings[key]:g}" for key in ("dropout", "head_dropout") if settings.get(key)]
    found = [f"on augmented pictures ({', '.join(augmentation(settings))})"] if augmentation(settings) else []
    return found + ([f"with dropout on ({', '.join(dropped)})"] if dropped else [])


def _against_overfitting(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """What to try, in this order, as settings that this run's recipe has."""
    found = []
    if settings["shift"] == 0 and settings["crop_area"] == 1:
        found.append(("shift=0.1", "moves each training picture a little, so that it is never the same twice"))
    if settings["rotation"] == 0:
        found.append(("rotation=10", "turns it by up to 10 degrees"))
    if not settings["flip"]:
        found.append(("flip=True", "mirrors half of them; not letters or digits, whose mirror images are others"))
    if settings["erase"] == 0:
        found.append(("erase=0.25", "paints over a square of it"))
    found = found[:2]
    dropout = "head_dropout" if settings.get("dense") else "dropout"
    if settings[dropout] < 0.5:
        more = settings[dropout] + 0.1 if settings[dropout] else 0.3
        found.append((f"{dropout}={more:g}", "leaves out features at random"))
    decoupled = settings["optimizer"] == "adamw" or settings["weight_decay"]
    decay, least = ("weight_decay", 1e-3) if decoupled else ("l2", 1e-4)
    found.append((f"{decay}={3 * settings[decay] or least:g}", "keeps the weights small"))
    if settings["train_photos"]:
        found.append(("train_photos=0", "learns from all the pictures that there are"))
    return [*found, ("", "More training pictures help most.")]


def _against_underfitting(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """What to try, in this order, as settings that this run's recipe has."""
    found = [(f"epochs={2 * settings['epochs']}", "learns for longer")]
    if "blocks" in settings:
        wider = str([[2 * filters for filters in block] for block in settings["blocks"]]).replace(" ", "")
        found.append((f"blocks={wider}", "a wider network"))
    if settings.get("freeze") is not None:
        found.append(("freeze=None", "lets the whole backbone learn"))
    for key in ("dropout", "head_dropout", "l2", "label_smoothing"):
        if settings.get(key):
            found.append((f"{key}={settings[key] / 2:g}", "holds it back less"))
    if augmentation(settings):
        found.append(("", f"Weaker augmentation: {', '.join(augmentation(settings))}."))
    return [*found, (f"learning_rate={3 * settings['learning_rate']:g}", "larger steps")]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
