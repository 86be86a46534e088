"""Whether training waits for its photos: the input pipeline beside the step that it feeds.

    python -m benchmarks.pipeline RECIPE --data DATA [--backbone-weights FILE] [--set KEY=VALUE …] [--steps N]

Three numbers of one recipe, in turns in one process: photos a second that the pipeline gives when nothing is done with
them; the time of a training step on one batch that is already there; the time of a step on batches as training gets
them. Each of the rounds measures all three, so that what else the machine does meets all alike; told are medians.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.settings import check, load_recipe, override

if TYPE_CHECKING:
    from training.photos.batches import Batches

ROUNDS = 5


def main(
    recipe: Annotated[str, typer.Argument(help="A file in training/recipes, without .py.")],
    data: Annotated[str, typer.Option(help="Data set: a name on the Hub or a folder.")],
    backbone_weights: Annotated[str, typer.Option(help="'random' will do: the steps take as long.")] = "random",
    set_: Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")] = [],  # noqa: B006
    steps: Annotated[int, typer.Option(min=2, help="Training steps of each kind in a round.")] = 20,
    cache: Annotated[Path | None, typer.Option(help="Where decoded photos are kept between runs.")] = None,
) -> None:
    """Measure a recipe's input pipeline and print the two ratios."""
    from training.fit import build, compiled
    from training.photos.batches import Batches
    from training.photos.data import photos_of

    settings = load_recipe(recipe)
    changes = [f"data={data}", *set_, *([f"backbone_weights={backbone_weights}"] if "backbone" in settings else [])]
    settings = override(settings, changes)
    check(settings)
    photos = photos_of(settings, cache=cache).subset("train")
    batches = Batches(photos, settings)
    network = compiled(build(settings, len(photos.label_names)), settings)
    cached = list(itertools.islice(batches.epoch(0), 1))
    network.train_on_batch(*cached[0])  # compiles

    found: dict[str, list[float]] = {"pipeline alone": [], "cached batch": [], "real batches": []}
    for round_ in range(ROUNDS):
        found["pipeline alone"].append(_seconds(_nothing, _epochs(batches, round_), steps))
        found["cached batch"].append(_seconds(network.train_on_batch, itertools.repeat(cached[0]), steps))
        found["real batches"].append(_seconds(network.train_on_batch, _epochs(batches, round_), steps))
    medians = {name: statistics.median(values) for name, values in found.items()}
    for name, seconds in medians.items():
        low, high = (batches.size / of(found[name]) for of in (max, min))
        rate = f"{batches.size / seconds:.0f} photos a second ({low:.0f}–{high:.0f})"
        print(f"{name}: {1000 * seconds:.1f} ms a batch of {batches.size}, {rate}")
    print(f"The pipeline gives {medians['cached batch'] / medians['pipeline alone']:.1f} times the photos that a step "
          f"uses; a step on real batches takes {medians['real batches'] / medians['cached batch']:.2f} times as long "
          "as on a cached one.")  # fmt: skip


def _epochs(batches: Batches, start: int) -> Iterator[tuple]:
    """Batches without end, as an epoch gives them."""
    for epoch in itertools.count(start):
        yield from batches.epoch(epoch)


def _nothing(*batch: object) -> None:
    """A model that costs nothing."""


def _seconds(use: Callable[..., object], source: Iterable[tuple], steps: int) -> float:
    """Seconds a batch, the first of them left out: it starts the look-ahead."""
    source = iter(source)
    use(*next(source))
    start = time.perf_counter()
    for batch in itertools.islice(source, steps):
        use(*batch)
    return (time.perf_counter() - start) / steps


if __name__ == "__main__":
    typer.run(main)
