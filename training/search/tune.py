"""`python -m training tune RECIPE`: a search for better settings, in a folder that a killed search resumes from.

Each trial is a fit of its own (`training.fit`), in a folder of its own, so one that was stopped goes on where it was.
What is sought is the lowest validation log loss after calibration: the number by which a fit chooses its epoch too. The
test split is never scored. The first trial is the recipe as it stands, so the best is never worse than that.

New settings are drawn by the tree-structured Parzen estimator (Bergstra et al. 2011,
https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization.pdf), seeded by (seed, number of the
trial): whether a search was stopped in between makes no difference to what is tried.

Weak trials are given up by the median rule: Hyperband would have to fill several brackets first, which takes more
trials than an afternoon holds. Trials differ in their epochs, and the learning rate falls towards the end of each, so
they are compared at the same tenth of their own way, never at the same epoch.
"""

import contextlib
import functools
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    distribution_to_json,
)
from optuna.trial import TrialState

from hub.errors import DataError
from hub.files import storage
from hub.scores import many
from training.files import DamagedError, exclusive, read_json, write_json
from training.photos.data import Photos, photos_of, summary
from training.photos.sources import demand_outside
from training.runs import differences, identity
from training.search.search import Search, TimeUp
from training.search.search_space import Space, default_space, parse_space
from training.search.tune_report import conclude
from training.settings import settings_of

# The search -------------------------------------------------------------------------------------------------


# The folder -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep the folder for this search while it runs."""
    with storage(folder):
        if folder.exists() and not (folder / "search.json").exists() and any(_others(folder)):
            raise DataError(f"{folder} holds something other than a search; name a new folder with --run.")
        folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder, f"A search is running in {folder}; wait for its end, or name another folder with --run."):
        yield


def _others(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _claim(folder: Path, recipe: str, settings: dict[str, Any], space: Space, seed: int, photos: Photos) -> None:
    """Make `folder` this search's, or refuse if it holds another's."""
    content = {
        "recipe": recipe,
        **identity(settings, photos.fingerprint()),
        "space": {name: json.loads(distribution_to_json(knob)) for name, knob in space.items()},
        "seed": seed,
    }
    path = folder / "search.json"
    if not path.exists():
        return write_json(path, content)
    remedy = "name another folder with --run"
    there = read_json(path, remedy)
    if not all(isinstance(there.get(key), type(value)) for key, value in content.items() if value is not None):
        raise DamagedError(f"{path} is damaged (it describes no search); {remedy}.")
    changed = _differences(there, content)
    if changed:
        others = ", ".join(changed)
        raise DataError(
            f"{folder} holds a search with other {others}; give the same to continue, or choose another folder."
        )
    return None


def _differences(there: dict, here: dict) -> list[str]:
    """What another search is of; a recipe alone, as then all is another."""
    if there["recipe"] != here["recipe"]:
        return [f"recipe ({there['recipe']})"]
    changed = differences(there, here)
    changed += [f"space for {key}" for key in here["space"] | there["space"]
                if here["space"].get(key) != there["space"].get(key) and key not in changed]  # fmt: skip
    return changed + (["seed"] if there["seed"] != here["seed"] else [])


# The command ------------------------------------------------------------------------------------------------


def run_search(
    recipe: str,
    *,
    data: str | None = None,
    sets: list[str] = (),
    specs: list[str] = (),
    trials: int | None = None,
    limit: str | None = None,
    run: Path | None = None,
    cache: Path | None = None,
    seed: int = 0,
) -> int:
    """`python -m training tune`: search, and leave trials.csv, best.json, the figures and index.html in the folder.

    Args:
        trials: as many as the folder is to hold in the end, those of an earlier command included.
        limit: of this command's time: 90s, 30m or 2h.

    Returns:
        The exit code: 0, or 130 after Ctrl-C.

    Raises:
        DataError: settings, space or folder are refused. StorageError: the folder cannot be written.
    """
    started = time.monotonic()
    settings = settings_of(recipe, sets, data=data)
    space = default_space(settings) | parse_space(settings, list(specs))
    if trials is None and limit is None:
        raise DataError("Say when the search is to end: --trials 20, --time 2h, or both, whichever comes first.")
    until = started + (float("inf") if limit is None else seconds(limit))
    folder = run or Path("runs") / f"tune-{recipe}"
    demand_outside(settings["data"], folder, "--run")
    with _held(folder):
        photos = photos_of(settings, cache=cache)
        print(summary(photos), flush=True)
        _claim(folder, recipe, settings, space, seed, photos)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        search = Search(recipe, folder, settings, space, seed, functools.partial(_fit, photos=photos, cache=cache))
        command = ["python", "-m", "training", "fit", recipe, *(["--data", data] if data is not None else [])]
        named = [one.partition("=")[0].strip() for one in sets]
        return _search(search, trials, until, functools.partial(fit_command, command, settings, named))


def _search(search: Search, trials: int | None, until: float, command: Callable[[dict], str]) -> int:
    """Go on to an end of some kind, then say what was found."""
    if search.ended:
        print(f"{search.folder} holds {many(len(search.ended), 'trial')} already; the search continues.", flush=True)
    code = 0
    try:
        search.go_on(trials, until, functools.partial(print, flush=True))
    except TimeUp:
        print(_to_be_continued(search, "The time is up"), flush=True)
    except KeyboardInterrupt:
        search.reopen()  # what it knew may be half of a change; the journal has all of it or nothing
        print(_to_be_continued(search, "Stopped"), flush=True)
        code = 130
    conclude(search, command)
    return code


def _to_be_continued(search: Search, why: str) -> str:
    running = search.trials(TrialState.RUNNING)
    if not running:
        return f"{why}; run the same command with a later end to continue."
    trial = running[0]
    done, epochs = len(search.history(trial).get("epoch", ())), search.settings_of(trial)["epochs"]
    return f"{why}; run the same command to continue trial {trial.number} after {done} of {epochs} epochs."


def _fit(
    settings: dict[str, Any],
    folder: Path,
    after_epoch: Callable[[dict], None],
    *,
    photos: Photos,
    cache: Path | None,
) -> None:
    """A trial's fit; what it prints goes to log.txt in its folder."""
    # TensorFlow takes seconds, which a search that is refused should not wait for.
    import keras  # noqa: PLC0415

    from training.fit import fit  # noqa: PLC0415

    keras.utils.clear_session()  # or each trial's graphs would stay in memory
    with (folder / "log.txt").open("a", encoding="utf-8", buffering=1) as log, contextlib.redirect_stdout(log):
        fit(settings, photos, folder, cache=cache, progress=False, on_epoch=after_epoch)


def fit_command(command: list[str], settings: dict[str, Any], named: list[str], found: dict[str, Any]) -> str:
    """The command that trains `found`: what was set for the search, and what a trial changed."""
    changed = [key for key, value in found.items() if value != settings[key]]
    sets = [part for key in dict.fromkeys([*named, *changed]) for part in ("--set", f"{key}={found[key]}")]
    return shlex.join([*command, *sets])


def seconds(text: str) -> float:
    """90s, 30m or 2h in seconds.

    Raises:
        DataError: it is not of that form.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not found:
        raise DataError(f"A time is written as 90s, 30m or 2h, not {text!r}.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]
