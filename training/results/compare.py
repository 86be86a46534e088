"""`python -m training compare RUN…`: runs side by side, and whether a difference is more than luck."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hub.errors import DataError
from hub.record import Predictions
from hub.scores import duration, score
from training.files import write_json
from training.pages.drawing import write_png
from training.pages.html import figure_html, listed, write_page
from training.results import figures
from training.results.bootstrap import LEVEL, SEED, scores_of_run
from training.results.significance import Resampled, affordable, differences, holm, mcnemar
from training.runs import HELD_OUT, Run, read_run, run_folders

ALPHA = 0.05  # below it a difference counts as more than luck
TOLD = 10  # pairs that are spoken of; of more the rest stands in the table alone
TITLES = {"accuracy": "Accuracy", "roc_auc": "ROC AUC", "log_loss": "Log loss"}


@dataclass(frozen=True)
class Entry:
    """One run of a comparison."""

    run: Run
    name: str
    group: int  # the same for runs that differ in nothing but the seed
    found: Predictions  # of the split that is compared, its labels in the first run's order
    scores: dict
    own: dict[str, Any]  # settings in which runs of its recipe differ, beside the seed

    def row(self) -> dict[str, Any]:
        """What the table and the JSON say of it."""
        history, model = self.run.history, self.run.bundle / "model.keras"
        return {
            "name": self.name,
            "recipe": self.run.recipe,
            "seed": self.run.settings["seed"],
            "own_settings": self.own,
            "group": self.group,
            "bytes": model.stat().st_size if model.is_file() else None,
            "epochs": len(history["epoch"]),
            "kept_epoch": int(history["epoch"][self.run.kept]),
            "seconds": float(history["seconds"][-1]) if "seconds" in history else None,
            "pictures": len(self.found),
            **{name: self.scores[name] for name in TITLES},
        }


def compare(runs: list[str | Path], *, split: str | None = None) -> dict[str, Any]:
    """All numbers of a comparison of at least two runs, the best first.

    Args:
        runs: folders of finished runs (`training.runs.read_run`), or of several seeds of one.
        split: "test" or "validation"; default test where every run has a record of it.

    Returns:
        split, runs (rows of the table), groups (of runs that differ in the seed alone), pairs (of runs of two groups),
        same_pictures, bootstrap and alpha: ready for `json.dumps`.

    Raises:
        DataError: too few runs, one named twice, other labels, or no record of the split.
    """
    entries = _entries([read_run(folder) for folder in _distinct(runs)], split)
    rows = [entry.row() for entry in entries]
    return {
        "split": str(entries[0].found.splits[0]),
        "labels": entries[0].found.label_names,
        "same_pictures": len({_fingerprint(entry.found) for entry in entries}) == 1,
        "runs": rows,
        "groups": _groups(entries, rows),
        "pairs": _pairs(entries),
        "bootstrap": {"resamples": affordable(len(entries[0].found.label_names)), "level": LEVEL, "seed": SEED},
        "alpha": ALPHA,
    }


# Runs -------------------------------------------------------------------------------------------------------


def _distinct(runs: list[str | Path]) -> list[Path]:
    folders = run_folders(runs)
    for first, second in itertools.combinations(folders, 2):
        if first.resolve() == second.resolve():
            raise DataError(f"{second} is named twice; name each run once.")
    if len(folders) < 2:
        raise DataError("A comparison needs at least two runs; name another one.")
    return folders


def _entries(runs: list[Run], split: str | None) -> list[Entry]:
    """The runs with their answers for one split and one order of the labels, the most accurate first."""
    names = runs[0].predictions.label_names
    for run in runs[1:]:
        if set(run.predictions.label_names) != set(names):
            raise DataError(
                f"{runs[0].folder} has the labels {listed(names)}, {run.folder} has "
                f"{listed(run.predictions.label_names)}; compare runs of the same labels."
            )
    common = [name for name in HELD_OUT if all(name in run.splits for run in runs)]
    if split is None and not common:
        raise DataError("These runs have no record of the same split; fit those without --open-test again with it.")
    split = split or common[0]
    groups: dict[str, int] = {}
    entries = []
    for run, name in zip(runs, _names(runs), strict=True):
        found = _in_order(run.predictions.subset(run.split(split)), names)
        group = groups.setdefault(_all_but_the_seed(run), len(groups))
        entries.append(Entry(run, name, group, found, scores_of_run(run, split), _own_settings(run, runs)))
    return sorted(entries, key=lambda e: (-e.scores["accuracy"]["value"], e.scores["log_loss"]["value"]))


def _own_settings(run: Run, runs: list[Run]) -> dict[str, Any]:
    """The settings of a run that are others in another run of its recipe; the seed aside."""
    alike = [other.settings for other in runs if other.recipe == run.recipe]
    return {
        key: value
        for key, value in run.settings.items()
        if key != "seed" and any(other.get(key) != value for other in alike)
    }


def _names(runs: list[Run]) -> list[str]:
    """Folder names, or whole paths where two folders are called the same."""
    names = [run.name for run in runs]
    return names if len({*names}) == len(names) else [str(run.folder) for run in runs]


def _in_order(found: Predictions, names: list[str]) -> Predictions:
    """The same answers with the labels in another order; sorted by hash, and without the maps."""
    place = [found.label_names.index(name) for name in names]
    new = np.argsort(place)
    rows = np.argsort(found.hashes, kind="stable")
    return Predictions(
        hashes=found.hashes[rows],
        splits=found.splits[rows],
        labels=new[found.labels[rows]],
        logits=found.logits[rows][:, place],
        evidence=None,
        label_names=list(names),
    )


def _all_but_the_seed(run: Run) -> str:
    """What runs have in common that differ by the luck of training alone."""
    settings = {key: value for key, value in run.settings.items() if key != "seed"}
    same = [run.recipe, settings, run.record.get("pictures"), run.record.get("backbone_sha256")]
    return json.dumps(same, sort_keys=True, default=str)


def _fingerprint(found: Predictions) -> tuple:
    return tuple(found.hashes.tolist()), tuple(found.labels.tolist())


def _groups(entries: list[Entry], rows: list[dict]) -> list[dict]:
    """Each group's runs, and the mean, the least and the most of each score over them."""
    found = []
    for group in dict.fromkeys(entry.group for entry in entries):
        members = [row for row in rows if row["group"] == group]
        spread = {}
        for name in TITLES:
            values = [row[name]["value"] for row in members if row[name]["value"] is not None]
            mean = float(np.mean(values)) if values else None
            spread[name] = {"mean": mean, "low": min(values, default=None), "high": max(values, default=None)}
        title = members[0]["name"] if len(members) == 1 else _title(members[0], len(members))
        found.append({"group": group, "title": title, "runs": [row["name"] for row in members], **spread})
    return found


def _title(row: dict, number: int) -> str:
    """A group's title: what its runs have in common."""
    own = "".join(f", {key}={value}" for key, value in row["own_settings"].items())
    return f"{row['recipe']}{own} ({number} runs)"


# Pairs ------------------------------------------------------------------------------------------------------


def _pairs(entries: list[Entry]) -> list[dict]:
    """Every two runs of different groups, on the pictures that both recorded under the same label.

    `holm` corrects the p-values of all of them together.
    """
    resampled: dict[tuple, Resampled] = {}

    def scores(entry: Entry, rows: np.ndarray) -> Resampled:
        key = entry.name, rows.tobytes()
        if key not in resampled:
            resampled[key] = Resampled(entry.found.labels[rows], entry.found.logits[rows])
        return resampled[key]

    pairs = []
    for first, second in itertools.combinations(entries, 2):
        if first.group == second.group:
            continue
        (rows, others), relabelled = _shared(first.found, second.found)
        pair = {"first": first.name, "second": second.name, "pictures": len(rows), "relabelled": relabelled}
        if len(rows):
            right = [_right(e.found, part) for e, part in ((first, rows), (second, others))]
            pair["accuracies"] = [float(part.mean()) for part in right]
            pair["mcnemar"] = mcnemar(*right)
            pair["differences"] = differences(scores(first, rows), scores(second, others))
        pairs.append(pair)
    tested = [pair for pair in pairs if "mcnemar" in pair]
    for pair, p in zip(tested, holm([pair["mcnemar"]["p"] for pair in tested]), strict=True):
        pair["mcnemar"]["p_holm"] = p
    return pairs


def _shared(first: Predictions, second: Predictions) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """Rows of the pictures that both hold under one label, in the same order; and how many have two labels."""
    _, rows, others = np.intersect1d(first.hashes, second.hashes, return_indices=True)
    same = first.labels[rows] == second.labels[others]
    return (rows[same], others[same]), int((~same).sum())


def _right(found: Predictions, rows: np.ndarray) -> np.ndarray:
    return found.logits[rows].argmax(1) == found.labels[rows]


# Words ------------------------------------------------------------------------------------------------------


def how_often(p: float) -> str:
    """A p-value as a share of cases: "3 of 100", "2 of 10,000"."""
    if p >= 0.9995:
        return "every case"
    if p < 1e-4:
        return "fewer than 1 of 10,000 cases"
    for cases in (100, 1000, 10_000):
        if p * cases >= 1:
            break
    return f"about {round(p * cases):,} of {cases:,} cases"


def headline(pair: dict) -> str:
    """A pair's outcome in a few words."""
    first, second = pair["first"], pair["second"]
    if not pair["pictures"]:
        return f"{first} and {second}: no picture in common"
    value = pair["differences"]["accuracy"]["value"]
    if not value:
        return f"{first} and {second}: equally often correct"
    better, worse = (first, second) if value > 0 else (second, first)
    return f"{better} over {worse}: {'more than luck' if pair['mcnemar']['p_holm'] < ALPHA else 'may be luck'}"


def in_words(pair: dict) -> list[str]:
    """What a pair's numbers say, as sentences."""
    first, second, pictures = pair["first"], pair["second"], pair["pictures"]
    if not pictures:
        return ["They were measured on different pictures, none of which is in both records, so nothing can be tested."]
    test, accuracy = pair["mcnemar"], pair["differences"]["accuracy"]
    apart = test["only_first"] + test["only_second"]
    if not apart:
        said = [f"Of the {pictures:,} pictures that both answered, both classify the same ones correctly."]
    else:
        better = first if accuracy["value"] > 0 else second
        said = [
            f"On the {pictures:,} pictures that both answered, {better} is correct more often, by {_points(accuracy)}."
            if accuracy["value"]
            else f"On the {pictures:,} pictures that both answered, they are correct equally often.",
            f"{apart:,} {'is' if apart == 1 else 'are'} classified correctly by only one of the two: "
            f"{test['only_first']:,} by {first}, {test['only_second']:,} by {second}. If both were equally "
            f"good, luck alone would divide these at least this unevenly in {_twice(test)}.",
        ]
    if pair["relabelled"]:
        said.append(f"Skipped: {pair['relabelled']:,} pictures that have different labels in the two records.")
    if test["p_holm"] < ALPHA:
        said.append("So the difference in accuracy is more than luck.")
    else:
        said.append("So the difference in accuracy may be luck. This does not show that they are equally good.")
    said += [_other(pair, name) for name in ("log_loss", "roc_auc")]
    return [sentence for sentence in said if sentence]


def _twice(test: dict) -> str:
    """How often luck does it, and after Holm's correction, where that reads differently."""
    once, corrected = how_often(test["p"]), how_often(test["p_holm"])
    return once if once == corrected else f"{once} (after Holm's correction: {corrected})"


def _points(difference: dict) -> str:
    """A difference of shares in points without its sign, such as `1.20 points (95 % interval 0.50 to 1.90)`."""
    sign = -1 if difference["value"] < 0 else 1
    low, high = sorted(sign * difference[end] for end in ("low", "high"))
    between = f"{_signed(100 * low, 2)} to {_signed(100 * high, 2)}"
    return f"{sign * 100 * difference['value']:.2f} points (95 % interval {between})"


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−") if round(value, digits) else f"{0:.{digits}f}"


def _other(pair: dict, name: str) -> str:
    """One sentence on another score: which run has the better one, and whether its interval leaves out 0."""
    found, digits = pair["differences"][name], {"log_loss": 4, "roc_auc": 5}[name]
    if found["value"] is None:
        return ""
    interval = f"{_signed(found['low'], digits)} to {_signed(found['high'], digits)}"
    apart = found["low"] > 0 or found["high"] < 0
    less = name == "log_loss"
    better = pair["first"] if (found["value"] < 0) == less else pair["second"]
    text = f"{TITLES[name]}, {pair['first']} less {pair['second']}: {_signed(found['value'], digits)} ({interval}); "
    return text + (f"{better} is better." if apart else "the interval contains 0, so the difference may be luck.")


def spread_in_words(first: dict, second: dict) -> str:
    """Two groups of several seeds each: whether the ranges of their accuracies meet."""
    parts = [f"{group['title']} {_range(group['accuracy'])}" for group in (first, second)]
    one, other = first["accuracy"], second["accuracy"]
    end = (
        "the ranges overlap, so luck in training alone can reverse the order."
        if one["low"] <= other["high"] and other["low"] <= one["high"]
        else "each run of one is better than each run of the other, so luck in training does not explain it either."
    )
    return f"Accuracy over the seeds: {'; '.join(parts)}: {end}"


def _range(spread: dict) -> str:
    return f"{100 * spread['mean']:.2f} % ({100 * spread['low']:.2f}–{100 * spread['high']:.2f})"


def several_seeds(groups: list[dict]) -> list[str]:
    """A sentence for every two groups of at least two seeds."""
    able = [group for group in groups if len(group["runs"]) > 1]
    return [spread_in_words(*two) for two in itertools.combinations(able, 2)]


# The command ------------------------------------------------------------------------------------------------


def run_comparison(
    runs: list[str | Path],
    *,
    out: str | Path = Path("runs/compare"),
    split: str | None = None,
    echo: Callable[[str], None] = print,
) -> Path:
    """Write index.html, scores.png and compare.json into the folder `out`, print the table, return the page's path.

    Raises:
        DataError: as `compare`. StorageError: the folder cannot be written.
    """
    found, out = compare(runs, split=split), Path(out)
    words = [(headline(pair), " ".join(in_words(pair))) for pair in found["pairs"]]
    figure = chart(found, tuple(TITLES))
    bars = [figure_html(chart(found, (name,)), f"{title} of each run, as a bar") for name, title in TITLES.items()]
    page = out / "index.html"
    write_json(out / "compare.json", found)
    write_png(figure, out / "scores.png")
    write_page(
        page, "compare.html", title="Runs compared", found=found, words=words, titles=TITLES, score=score,
        bars=bars, chart=figure_html(figure, "The same bars side by side"), duration=_time, megabytes=_megabytes,
        seeds=several_seeds(found["groups"]), signed=_signed, rounded=_rounded, listed=listed, alpha=ALPHA, told=TOLD,
    )  # fmt: skip
    echo(text_table(found))
    for title, text in words[:TOLD]:
        echo(f"\n{title}. {text}")
    echo(f"\nThe comparison is {page}.")
    return page


def chart(found: dict, measures: tuple[str, ...]) -> figures.Figure:
    """The bar chart of a comparison, a panel for each measure; runs that differ in the seed alone share a colour."""
    rows = found["runs"]
    shared = [group["group"] for group in found["groups"] if len(group["runs"]) > 1]
    colours = [1 + shared.index(row["group"]) if row["group"] in shared else 0 for row in rows]
    title = f"{found['split'].capitalize()} split, 95 % intervals"
    return figures.score_bars([row["name"] for row in rows], rows, colours, title, measures)


def text_table(found: dict) -> str:
    """The comparison's table for the terminal."""
    columns = ["run", "recipe", "seed", "MB", "epochs", "time", *TITLES.values()]
    lines = [
        [
            row["name"], row["recipe"], str(row["seed"]), _megabytes(row["bytes"]), str(row["epochs"]),
            _time(row["seconds"]), *(score(name, row[name]) for name in TITLES),
        ]
        for row in found["runs"]
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in [columns, *lines]) for i in range(len(columns))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in [columns, *lines]]  # fmt: skip
    for group in found["groups"]:
        if len(group["runs"]) > 1:
            text.append(f"{group['title']}, the same except for the seed: accuracy {_range(group['accuracy'])}")
    return "\n".join([f"{found['split'].capitalize()} split", *text])


def _rounded(p: float) -> str:
    """A p-value in two digits."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.995 else "1"


def _megabytes(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e6:.1f}"


def _time(seconds: float | None) -> str:
    return "?" if seconds is None or not np.isfinite(seconds) else duration(seconds)
