"""A search in its folder: trials, what each is given, and which are given up."""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from tqdm import tqdm

from hub.errors import DataError, first_line
from hub.files import storage
from training.files import DamagedError
from training.runs import read_history
from training.search.search_space import Space, inside, rounded

if TYPE_CHECKING:
    pass

STAGES = 10  # parts of a run, at the ends of which trials are compared
WARM_UP = 3  # of them nobody is given up in: the rate is still rising, or has hardly begun to fall
BEFORE_PRUNING = 5  # completed trials, each of which must have come past the same stage
HOPELESS = 3  # failed trials, none other: then it is not for their settings
CHECKPOINTS = ("checkpoint.npz", "head.npz")
NAME = "tune"  # of the one study that the folder's journal holds
Train = Callable[[dict[str, Any], Path, Callable[[dict], None]], object]


class TimeUp(Exception):
    """Raised at the end of an epoch when a search has had its time."""


class _HeldAlready(JournalFileOpenLock):
    """Optuna's own lock outlives a kill and then holds up the next search; the folder's lock keeps others out."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


@dataclass
class Search:
    """A search in its folder.

    Attributes:
        recipe: its name.
        folder: search.json, trials.journal, and a run's folder for each trial in trials/.
        settings: the recipe as it stands.
        space: what is searched.
        seed: of the draws; the fits keep the recipe's own.
        train: fits some settings in a folder: leaves history.csv there, goes on where it was, calls back each epoch.
    """

    recipe: str
    folder: Path
    settings: dict[str, Any]
    space: Space
    seed: int
    train: Train

    def __post_init__(self) -> None:
        self.reopen()

    def reopen(self) -> None:
        """Read the trials from the folder, and queue the recipe as it stands as the first."""
        with storage(self.folder):
            self._storage = _journal(self.folder / "trials.journal")
            pruner = optuna.pruners.MedianPruner(BEFORE_PRUNING, WARM_UP, n_min_trials=BEFORE_PRUNING)
            there = NAME in optuna.get_all_study_names(self._storage)
            find = optuna.load_study if there else optuna.create_study
            self.study = find(study_name=NAME, storage=self._storage, pruner=pruner)
            if not self.study.trials:
                self.study.enqueue_trial(inside(self.space, self.settings))

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials that are in one of these states; all that have begun if none is named."""
        begun = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)
        return self.study.get_trials(deepcopy=False, states=states or begun)

    @property
    def ended(self) -> list[FrozenTrial]:
        """The trials that are over, however they ended."""
        return [trial for trial in self.trials() if trial.state.is_finished()]

    @property
    def best(self) -> FrozenTrial | None:
        """The first of the completed trials with the lowest loss; None before there is one."""
        return min(self.trials(TrialState.COMPLETE), key=lambda trial: trial.value, default=None)

    def settings_of(self, trial: FrozenTrial | Trial) -> dict[str, Any]:
        """All settings of a trial; its values are rounded, so that a command can name them exactly."""
        if trial.number == 0:
            return dict(self.settings)
        return {**self.settings, **{name: self._tried(name, value) for name, value in trial.params.items()}}

    def _tried(self, name: str, value: Any) -> Any:
        knob = self.space[name]
        return min(max(rounded(value), knob.low), knob.high) if isinstance(knob, FloatDistribution) else value

    def folder_of(self, trial: FrozenTrial | Trial) -> Path:
        """The run folder of a trial."""
        return self.folder / "trials" / f"{trial.number:03d}"

    def history(self, trial: FrozenTrial | Trial) -> dict[str, np.ndarray]:
        """The columns of a trial's history.csv; {} before its first epoch has ended."""
        path = self.folder_of(trial) / "history.csv"
        return read_history(path, "delete it: the trial's curve is lost, and nothing else") if path.exists() else {}

    def go_on(self, trials: int | None, until: float, say: Callable[[str], object]) -> None:
        """Train trials, a stopped one first, until the folder holds so many or the clock (monotonic) says so.

        Raises:
            TimeUp: the time was over first. DataError: trial after trial fails. StorageError: the disk is full.
        """
        while trials is None or len(self.ended) < trials:
            if time.monotonic() >= until:
                raise TimeUp
            with storage(self.folder):
                trial = self._next()
            self._run(trial, until)
            with storage(self.folder):
                self._trim()
            say(self.line(self.study.get_trials(deepcopy=False)[trial.number], trials))
            self._refuse_to_fail_on()

    def _next(self) -> Trial:
        """The trial that was stopped, or a new one, with its values."""
        stopped = self.trials(TrialState.RUNNING)
        number = stopped[0].number if stopped else len(self.trials())
        # A seed for each trial: one seed for all would repeat its draws whenever a search goes on.
        self.study.sampler = optuna.samplers.TPESampler(seed=_seed(self.seed, number))
        if stopped:
            study = self._storage.get_study_id_from_name(NAME)
            trial = Trial(self.study, self._storage.get_trial_id_from_study_id_trial_number(study, number))
        else:
            trial = self.study.ask()
        named = self.space if number else inside(self.space, self.settings)
        for name in named:
            _suggest(trial, name, self.space[name])
        return trial

    def _run(self, trial: Trial, until: float) -> None:
        """Train one trial to its end, whatever that is, and record it."""
        try:
            self._train(trial, until)
        except optuna.TrialPruned:
            self._tell(trial, state=TrialState.PRUNED)
        except Exception as error:
            if not _is_for_its_settings(error):
                raise
            with storage(self.folder):
                trial.set_user_attr("reason", first_line(error))
            self._tell(trial, state=TrialState.FAIL)
        else:
            self._tell(trial, float(self.history(trial)["validation_calibrated_loss"].min()))

    def _tell(self, trial: Trial, value: float | None = None, state: TrialState | None = None) -> None:
        with storage(self.folder):
            self.study.tell(trial.number, value, state)

    def _train(self, trial: Trial, until: float) -> None:
        folder, settings = self.folder_of(trial), self.settings_of(trial)
        with storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
        done = len(self.history(trial).get("epoch", ()))
        name, epochs = f"trial {trial.number}", settings["epochs"]
        bar = tqdm(total=epochs, initial=done, desc=name, unit="epoch", leave=False, disable=None)

        def after_epoch(row: dict) -> None:
            bar.update()
            self._report(trial, epochs)
            if row["epoch"] < epochs:  # one that is through may as well be counted
                self._give_up_if_weak(trial)
                if time.monotonic() >= until:
                    raise TimeUp

        with contextlib.closing(bar):
            self._report(trial, epochs)
            if done < epochs:
                self._give_up_if_weak(trial)  # a kill may have come between that and its record
            self.train(settings, folder, after_epoch)
        self._report(trial, epochs, through=True)

    def _give_up_if_weak(self, trial: Trial) -> None:
        if trial.should_prune():
            raise optuna.TrialPruned

    def _report(self, trial: Trial, epochs: int, through: bool = False) -> None:
        """Record the stages that a trial has passed, as far as they are not yet."""
        losses = self.history(trial).get("validation_calibrated_loss", ())
        known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        with storage(self.folder):
            for stage, loss in stages(losses, epochs, through).items():
                if stage not in known:
                    trial.report(loss, stage)

    def _trim(self) -> None:
        """Take the checkpoints of all that are over but the best, and of none that a bundle was made from."""
        for trial in self.ended:
            folder = self.folder_of(trial)
            if trial != self.best and not (folder / "bundle").exists():
                for name in CHECKPOINTS:
                    (folder / name).unlink(missing_ok=True)

    def _refuse_to_fail_on(self) -> None:
        ended = self.ended
        if len(ended) >= HOPELESS and all(trial.state == TrialState.FAIL for trial in ended):
            raise DataError(f"All of {len(ended)} trials failed, the last so: {reason(ended[-1])}.")

    def line(self, trial: FrozenTrial, trials: int | None) -> str:
        """What the terminal says of a trial that has ended."""
        of = f"Trial {trial.number}" + ("" if trials is None else f" ({len(self.ended)} of {trials})")
        epochs = f"{len(self.history(trial).get('epoch', ()))} of {self.settings_of(trial)['epochs']} epochs"
        values = " ".join(f"{name}={value}" for name, value in self.values(trial).items())
        if trial.state == TrialState.FAIL:
            return f"{of} failed: {reason(trial)}. {values}"
        if trial.state == TrialState.PRUNED:
            return f"{of} given up after {epochs}, at {trial.value:.4f}. {values}"
        best = "the best so far" if trial == self.best else f"best {self.best.value:.4f}, trial {self.best.number}"
        return f"{of}: validation log loss {trial.value:.4f} ({best}) after {epochs}. {values}"

    def values(self, trial: FrozenTrial) -> dict[str, Any]:
        """A trial's values of what is searched."""
        settings = self.settings_of(trial)
        return {name: settings[name] for name in self.space}


def reason(trial: FrozenTrial) -> str:
    """Why a trial failed; empty for another."""
    return trial.user_attrs.get("reason", "").rstrip(".")


def stages(losses: Any, epochs: int, through: bool = False) -> dict[int, float]:
    """The lowest loss so far at each tenth of a run that has been passed, between two epochs in proportion.

    Args:
        losses: of the epochs that have ended, of `epochs` that the run may have.
        through: the run is over, perhaps before its last epoch; nothing changes after that.
    """
    if not len(losses):
        return {}
    done = np.arange(1, len(losses) + 1) * STAGES  # in parts of 1 / (STAGES * epochs), which are whole numbers
    passed = [s for s in range(1, STAGES + 1) if done[0] <= s * epochs and (through or s * epochs <= done[-1])]
    lowest = np.minimum.accumulate(np.asarray(losses, np.float64))
    return {s: float(np.interp(s * epochs, done, lowest)) for s in passed}


def _suggest(trial: Trial, name: str, knob: BaseDistribution) -> None:
    if isinstance(knob, CategoricalDistribution):
        trial.suggest_categorical(name, knob.choices)
    elif isinstance(knob, IntDistribution):
        trial.suggest_int(name, knob.low, knob.high, log=knob.log)
    else:
        trial.suggest_float(name, knob.low, knob.high, log=knob.log)


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _is_for_its_settings(error: Exception) -> bool:
    """Whether a trial failed as another may not: it diverged, was refused, or took more memory than there is."""
    if isinstance(error, DamagedError):
        return False
    return isinstance(error, ValueError | ArithmeticError | MemoryError) or (
        type(error).__name__ == "ResourceExhaustedError"  # TensorFlow's, when a graphics card is full
    )


def _journal(path: Path) -> JournalStorage:
    """The trials as Optuna writes them, one change a line; a last one of a full disk or a power cut is cut off."""
    refusal = f"{path} cannot be read as the trials of a search; name another folder with --run."
    content = path.read_bytes() if path.exists() else b""
    lines = content.split(b"\n")[:-1]
    if lines and not _is_change(lines[-1]):
        lines.pop()
    if not all(map(_is_change, lines)):
        raise DamagedError(refusal)
    whole = sum(len(line) + 1 for line in lines)
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_HeldAlready(str(path))))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(refusal) from error


def _is_change(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode()), dict)
    except ValueError:
        return False
