"""What a search has found: trials.csv, best.json, three figures, and a page that says how to read them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState, create_trial

from hub.scores import duration, many
from training.files import write_json, write_rows
from training.pages.drawing import COLOURS, FONT, new_figure, short_name, write_png
from training.pages.html import figure_html, write_page
from training.runs import kept_row
from training.search.search import Search, reason
from training.settings import PLACES

STATES = {
    TrialState.COMPLETE: "completed", TrialState.PRUNED: "given up", TrialState.FAIL: "failed",
    TrialState.RUNNING: "stopped",
}  # fmt: skip
FEWEST = 5  # trials: with fewer, what mattered is not even guessed
RELIABLE = 20  # completed trials: with fewer, what mattered is unreliable
ACROSS = 4  # panels of knobs.png side by side


def conclude(search: Search, command: Callable[[dict], str], say: Callable[[str], object] = print) -> None:
    """Write what was found so far into the search's folder, and say the main of it.

    Args:
        command: gives the command that trains some settings.

    Raises:
        StorageError: the folder cannot be written.
    """
    rows = table(search)
    write_rows(search.folder / "trials.csv", rows, list(rows[0]) if rows else ["trial"])
    say(counted(rows))
    best = search.best
    if best is None:
        say("No trial has been completed, so there is no best one yet.")
        return
    found = outcome(search, rows, command(search.settings_of(best)))
    write_json(search.folder / "best.json", found)
    _draw(search, rows, found)
    say(f"Best: trial {found['trial']}, validation log loss {found['validation_calibrated_loss']:.4f}. {gain(found)}")
    say(f"To train it: {found['command']}")
    say(f"Its weights exist already: with --run {found['folder']} added, that only makes its bundle.")
    say(f"What mattered: {search.folder / 'index.html'}")


def table(search: Search) -> list[dict[str, Any]]:
    """A row for each trial, in their order: how it ended, what it reached, and its values."""
    return [_row(search, trial) for trial in search.trials()]


def _row(search: Search, trial: FrozenTrial) -> dict[str, Any]:
    history = search.history(trial)
    reached = trial.value
    if history and reached is None:
        reached = float(history["validation_calibrated_loss"].min())
    return {
        "trial": trial.number,
        "state": STATES[trial.state],
        "validation_calibrated_loss": reached,
        "validation_accuracy": float(history["validation_accuracy"][kept_row(history)]) if history else None,
        "epochs_trained": len(history.get("epoch", ())),
        "seconds": float(history["seconds"][-1]) if history else 0.0,
        **search.values(trial),
        "reason": reason(trial),
    }


def outcome(search: Search, rows: list[dict], command: str) -> dict[str, Any]:
    """The best trial against the recipe as it stands, ready for JSON."""
    best, first = search.best, rows[0]
    settings = search.settings_of(best)
    return {
        "recipe": search.recipe,
        "trial": best.number,
        **{name: rows[best.number][name] for name in ("validation_calibrated_loss", "validation_accuracy")},
        "recipe_validation_calibrated_loss": first["validation_calibrated_loss"] if _counts(first) else None,
        "recipe_validation_accuracy": first["validation_accuracy"] if _counts(first) else None,
        "completed": sum(_counts(row) for row in rows),
        "command": command,
        "folder": str(search.folder_of(best)),
        "changed": {name: value for name, value in settings.items() if value != search.settings[name]},
        "settings": {name: value for name, value in settings.items() if name not in PLACES},
    }


def _counts(row: dict) -> bool:
    return row["state"] == STATES[TrialState.COMPLETE]


def counted(rows: list[dict]) -> str:
    """How many trials there are, and how they ended."""
    parts = [(sum(row["state"] == state for row in rows), state) for state in STATES.values()]
    found = ", ".join(f"{number} {state}" for number, state in parts if number)
    return f"{many(len(rows), 'trial')}: {found}." if rows else "No trial has begun."


def gain(found: dict[str, Any]) -> str:
    """What the search has gained over the recipe, in a sentence."""
    before, after = found["recipe_validation_calibrated_loss"], found["validation_calibrated_loss"]
    if before is None:
        return "The unchanged recipe was not completed, so there is nothing to compare it with."
    if found["trial"] == 0:
        return "That is the unchanged recipe: no other trial was better."
    return f"That is {100 * (1 - after / before):.1f} % less than the unchanged recipe, {before:.4f}."


# What mattered ----------------------------------------------------------------------------------------------


def importance(search: Search) -> dict[str, float]:
    """The share of each knob alone in how the trials differ, the largest first; {} with too few trials.

    fANOVA (Hutter et al. 2014, http://proceedings.mlr.press/v32/hutter14.html) on the logarithm of the loss, which one
    very bad trial does not rule, and on the logarithm of what is searched on such a scale. Trials that were given up
    count with the loss they had then: without them, the worst values of a knob would seem to do no harm.
    """
    knobs = {name: knob for name, knob in search.space.items() if not knob.single()}
    trials = [t for t in search.trials(TrialState.COMPLETE, TrialState.PRUNED) if knobs.keys() <= t.params.keys()]
    if not knobs or len(trials) < FEWEST or len({trial.value for trial in trials}) == 1:
        return {}
    study = optuna.create_study()
    scales = {name: _evenly(knob) for name, knob in knobs.items()}
    for trial in trials:
        params = {name: math.log(trial.params[name]) if _log(knob) else trial.params[name]
                  for name, knob in knobs.items()}  # fmt: skip
        study.add_trial(create_trial(value=math.log(max(trial.value, 1e-12)), params=params, distributions=scales))
    evaluator = FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(knobs))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _log(knob: BaseDistribution) -> bool:
    return getattr(knob, "log", False)


def _evenly(knob: BaseDistribution) -> BaseDistribution:
    """A knob on a scale on which its values are drawn evenly."""
    return FloatDistribution(math.log(knob.low), math.log(knob.high)) if _log(knob) else knob


# Figures ----------------------------------------------------------------------------------------------------


def _draw(search: Search, rows: list[dict], found: dict[str, Any]) -> None:
    """The figures as PNG, and the page with them."""
    shares = importance(search)
    knobs = [name for name in [*shares, *search.space] if not search.space[name].single()]
    knobs = list(dict.fromkeys(knobs))  # the most important first
    progress = history(rows)
    drawn = {"history": progress, "knobs": against(search, rows, knobs), "importance": bars(shares, found["completed"])}
    for name, figure in drawn.items():
        path = search.folder / f"{name}.png"
        if figure is None:
            path.unlink(missing_ok=True)  # of a search that had other trials
        else:
            write_png(figure, path)
    panels = [figure_html(against(search, rows, [name]), f"Loss of each trial over its {name}") for name in knobs]
    order = sorted(rows, key=lambda row: (list(STATES.values()).index(row["state"]),
                                          row["validation_calibrated_loss"] or math.inf))  # fmt: skip
    write_page(
        search.folder / "index.html", "tune.html", title=f"Search for {search.recipe}", found=found, rows=order,
        space={name: in_words(knob) for name, knob in search.space.items()}, gain=gain(found), counted=counted(rows),
        progress=figure_html(progress, "The loss of each trial, and the best so far, trial by trial"), panels=panels,
        bars=figure_html(drawn["importance"], "Each knob's share as a bar") if drawn["importance"] else None,
        shares=shares, reliable=RELIABLE, duration=duration, shown=shown, seed=search.seed,
        seconds=sum(row["seconds"] for row in rows), before=search.settings,
    )  # fmt: skip


def bars(shares: dict[str, float], completed: int) -> Figure | None:
    """Each knob's share as a bar; None where there is none."""
    if not shares:
        return None
    figure = new_figure(7, 1.6 + 0.42 * len(shares))
    axes = figure.subplots()
    drawn = axes.barh(range(len(shares)), [100 * share for share in shares.values()], color=COLOURS[0], alpha=0.8)
    axes.bar_label(drawn, [f" {100 * share:.0f} %" for share in shares.values()], fontsize=FONT - 1)
    axes.set_yticks(range(len(shares)), [short_name(name) for name in shares])
    axes.invert_yaxis()
    axes.set(xlabel="share in the differences, per cent", xlim=(0, 118 * max(shares.values()) or 1))
    doubt = f" (unreliable with fewer than {RELIABLE})" if completed < RELIABLE else ""
    figure.suptitle(f"What mattered, by {completed} completed trials{doubt}", fontsize=FONT)
    return figure


def against(search: Search, rows: list[dict], names: list[str]) -> Figure | None:
    """The loss of each trial over its value of each knob, a panel a knob; None where nothing is searched."""
    if not names:
        return None
    across = min(ACROSS, len(names))
    down = -(-len(names) // across)
    figure = new_figure(4.4 * across, 3.7 * down)
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axes, name in zip(panels, names, strict=False):
        _panel(axes, rows, name, search.space[name])
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes in panels[::across]:
        axes.set_ylabel("validation log loss")
    return figure


def _panel(axes: Axes, rows: list[dict], name: str, knob: BaseDistribution) -> None:
    choices = [*knob.choices] if isinstance(knob, CategoricalDistribution) else None
    if choices is not None:
        choices += [row[name] for row in rows if row[name] not in choices][:1]  # the recipe's own may be another

    def place(row: dict) -> float:
        return row[name] if choices is None else choices.index(row[name])

    _marks(axes, rows, place)
    if choices is not None:
        axes.set_xticks(range(len(choices)), [short_name(str(choice), 10) for choice in choices])
        axes.set_xlim(-0.5, len(choices) - 0.5)
    else:
        values = [knob.low, knob.high, rows[0][name]]  # the whole range, so that a best value at its edge shows
        if _log(knob):
            axes.set_xscale("log")
            _ticks(axes.xaxis, [value for value in values if value > 0])
        else:
            axes.update_datalim(
                [(value, rows[0]["validation_calibrated_loss"] or 1) for value in values], updatey=False
            )
            axes.autoscale_view()
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=isinstance(knob, IntDistribution)))
    axes.set_xlabel(short_name(name))
    axes.grid(color="0.92")
    axes.set_axisbelow(True)


def _marks(axes: Axes, rows: list[dict], place: Callable[[dict], float]) -> None:
    """A mark for each trial that has a loss: completed, given up, the recipe, the best."""
    known = [row for row in rows if row["validation_calibrated_loss"]]
    done = [row for row in known if _counts(row)]
    best = min(done, key=lambda row: row["validation_calibrated_loss"])
    for those, mark, colour, label, size in (
        ([row for row in known if not _counts(row)], "x", "0.55", "given up or stopped", 6),
        (done, "o", COLOURS[0], "completed", 7),
        ([row for row in known if row["trial"] == 0], "s", COLOURS[2], "the unchanged recipe", 8),
        ([best], "*", COLOURS[1], "the best", 15),
    ):
        if those:
            losses = [row["validation_calibrated_loss"] for row in those]
            axes.plot([place(row) for row in those], losses, mark, color=colour, ms=size, label=label, alpha=0.85)
    axes.set_yscale("log")
    _ticks(axes.yaxis, [row["validation_calibrated_loss"] for row in known])


def _ticks(axis: Axis, values: list[float]) -> None:
    """Ticks of a logarithmic axis that may span less than a decade: five, with their numbers."""
    axis.set_ticks(np.geomspace(min(values), max(values), 5) if min(values) < max(values) else values[:1])
    axis.set_major_formatter(lambda value, _: f"{value:.2g}" if max(values) > 1.2 * min(values) else f"{value:.4g}")
    axis.set_minor_locator(NullLocator())


def history(rows: list[dict]) -> Figure:
    """The loss of each trial and the best so far, in the order of the trials."""
    figure = new_figure(7.6, 4.8)
    axes = figure.subplots()
    done = [row for row in rows if _counts(row)]
    best = np.minimum.accumulate([row["validation_calibrated_loss"] for row in done])
    ends = [*(row["trial"] for row in done), rows[-1]["trial"]]
    axes.step(ends, [*best, best[-1]], where="post", color=COLOURS[1], lw=2, label="best so far")
    if done[0]["trial"] == 0:
        axes.axhline(best[0], color=COLOURS[2], ls="--", lw=1.5, zorder=0)
    _marks(axes, rows, lambda row: row["trial"])
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.set(xlabel="trial", ylabel="validation log loss, calibrated")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=FONT - 2)
    figure.suptitle("Loss of each trial, and the best so far", fontsize=FONT + 1)
    return figure


# Words ------------------------------------------------------------------------------------------------------


def in_words(knob: BaseDistribution) -> str:
    """What a knob was searched over."""
    if isinstance(knob, CategoricalDistribution):
        return ", ".join(str(choice) for choice in knob.choices)
    return f"{knob.low:g} to {knob.high:g}{', on a logarithmic scale' if knob.log else ''}"


def shown(value: Any) -> str:
    """A value of a trial in few digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
