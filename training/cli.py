"""The commands of `python -m training`."""

import shlex
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hub.errors import DataError, Refusal
from training.settings import DEFAULTS, PLACES, listed, settings_of, shares_of

if TYPE_CHECKING:
    from hub import ImageClassifier
    from training.photos.data import Photos

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it takes "[default: …]" for a style, and drops it
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train a recipe on photos, and measure how good a model is.",
)  # fmt: skip
COMPARED = 2000  # validation photos that every runtime answers before a bundle is published

Recipe = Annotated[str, typer.Argument(help="A file in training/recipes, without .py.")]
Data = Annotated[
    str | None, typer.Option(help="Data set: a name on the Hub, a folder or a zip. [default: the recipe's]")
]
Sets = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting (`settings` lists them); may be repeated."),
]
Cache = Annotated[Path | None, typer.Option(help="Where decoded photos and features are kept between runs.")]
Share = Annotated[float, typer.Option(min=0, max=0.5, help="The recipe's share, if the data set has no such split.")]


class Split(StrEnum):
    """A split's name, as a choice on the command line."""

    train = "train"
    validation = "validation"
    test = "test"


class HeldOut(StrEnum):
    """The name of a split that a run's record may have, as a choice on the command line."""

    validation = "validation"
    test = "test"


@app.command()
def explore(
    data: Annotated[str, typer.Argument(help="Data set: a name on the Hub, a folder or a zip.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page, its figures and the numbers. [default: runs/explore-NAME]")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=8, help="Side in pixels to measure at. [default: 64, or the model's]")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A bundle, or its name on the Hub, to judge the labels by.", metavar="BUNDLE")
    ] = None,
    cache: Cache = None,
) -> None:
    """Look at a data set before training: labels, sizes, samples, duplicates, broken files, labels that look wrong."""
    from training.photos.explore import explore as look

    look(data, out, size=size, model=model, cache=cache)


@app.command()
def fit(
    recipe: Recipe,
    data: Data = None,
    backbone_weights: Annotated[str | None, typer.Option(help="'imagenet', or a weights file.")] = None,
    set_: Sets = [],  # noqa: B006
    run: Annotated[
        Path | None, typer.Option(help="The run's folder; one that holds a run resumes it. [default: runs/RECIPE]")
    ] = None,
    cache: Cache = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1, help="Train this many times, with seeds from the recipe's up, and say how much they differ."
        ),
    ] = 1,
    open_test: Annotated[
        bool, typer.Option("--open-test", help="Also score the test split: once, when everything is chosen.")
    ] = False,
    data_title: Annotated[str | None, typer.Option(help="What the card calls the pictures.")] = None,
    data_name: Annotated[
        str | None, typer.Option(help="The data set on the Hub that the pictures of a folder come from.")
    ] = None,
    data_note: Annotated[
        str | None, typer.Option(help="Sentences for the card: what a reader must know about these pictures.")
    ] = None,
    backbone_origin: Annotated[
        str | None, typer.Option(help="One sentence for the card: where the weights came from.")
    ] = None,
    backbone_license: Annotated[str | None, typer.Option(help="The licence of those weights.")] = None,
    push_to: Annotated[
        str | None,
        typer.Option(
            metavar="REPO",
            help="At the end, compare every runtime on validation photos and publish the bundle as OWNER/NAME.",
        ),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who can see what --push-to creates. [default: the owner's setting]"),
    ] = None,
    without: Annotated[
        list[str], typer.Option(metavar="RUNTIME", help="Publish without a runtime's files; may be repeated.")
    ] = [],  # noqa: B006
    using: Annotated[
        list[str],
        typer.Option(metavar="RUNTIME=PATH", help="Compare a runtime in another Python interpreter; may be repeated."),
    ] = [],  # noqa: B006
) -> None:
    """Train a recipe and write a bundle, RUN/bundle. If it is interrupted, run the same command to resume."""
    from training.photos.data import photos_of, summary
    from training.photos.sources import demand_outside

    settings = settings_of(recipe, set_, data=data, backbone_weights=backbone_weights)
    if push_to is not None:
        if seeds > 1:
            raise DataError(
                "--push-to publishes one model; leave out --seeds, and push the best with python -m hub push."
            )
        places = _check_push(push_to, settings, without, using)  # now, not after hours of training
    folder = run or Path("runs") / recipe
    demand_outside(settings["data"], folder, "--run")
    photos = photos_of(settings, cache=cache)
    print(summary(photos))

    shown = [part for s in set_ if s.partition("=")[0].strip() not in PLACES for part in ("--set", s)]
    card = {
        "data_title": data_title, "data_name": data_name, "data_note": data_note,
        "backbone_origin": backbone_origin, "backbone_license": backbone_license, "open_test": open_test,
    }  # fmt: skip
    found = []
    for seed in range(settings["seed"], settings["seed"] + seeds):
        of_seed = ["--set", f"seed={seed}"] if seeds > 1 else []
        command = shlex.join(["python", "-m", "training", "fit", recipe, *shown, *of_seed])
        place = folder / f"seed-{seed}" if seeds > 1 else folder
        one = {**settings, "seed": seed}
        classifier = _fit_one(one, photos, place, cache, {**card, "recipe": recipe, "command": command})
        found.append(place / "bundle")
    if seeds > 1:
        from training.results.evaluate import repeats

        print(repeats(found))
    if push_to is not None:
        _verify(folder / "bundle", settings, cache, without, places)
        print(f"It is published: {classifier.push_to_hub(push_to, without=without, private=private)}")


def _fit_one(
    settings: dict, photos: "Photos", folder: Path, cache: Path | None, card: dict[str, str | bool | None]
) -> "ImageClassifier":
    """Train in a folder, save the bundle and the figures there, and print the scores."""
    from training.files import exclusive

    with exclusive(folder, f"A fit is running in {folder}; wait for its end, or name another folder with --run."):
        return _fit_here(settings, photos, folder, cache, card)


def _fit_here(
    settings: dict, photos: "Photos", folder: Path, cache: Path | None, card: dict[str, str | bool | None]
) -> "ImageClassifier":
    """As `_fit_one`, in a folder that no other process is at."""
    from training.finish import make_bundle
    from training.fit import fit as train
    from training.results import figures
    from training.results.bootstrap import scores_of
    from training.results.evaluate import score_lines

    model = train(settings, photos, folder, cache=cache)
    classifier, predictions = make_bundle(model, settings, photos, folder, **card)
    for split, found in predictions.items():
        figures.save(
            folder / "figures", found, title=f"{split} split", pixels=photos.subset(split).pixels,
            scale=classifier.evidence_scale, prefix=f"{split}_",
            history=folder / "history.csv" if split == "validation" else None,
        )  # fmt: skip
        print(score_lines(f"{split.capitalize()} split, {len(found):,} pictures", scores_of(found)))
    print(f"The bundle is in {folder / 'bundle'}.")
    return classifier


def _check_push(repo: str, settings: dict, without: list[str], using: list[str]) -> dict[str, str]:
    """Refuse what would stop a push: no token, or a runtime that is not installed; return where each is run."""
    from hub import remote
    from hub.bundle import DEFAULT
    from hub.publishing import staging, verify

    places = verify.places(using)
    # The embedded model stands for the one to come; of its formats only Transformers' depends on the backbone.
    formats, _ = staging.choose(DEFAULT, without=without)
    if settings.get("backbone") != "MobileNetV2":
        formats = [one for one in formats if one.name != "transformers"]
    remote.check_access(repo)
    verify.check_runtimes(formats, places)
    return places


def _verify(bundle: Path, settings: dict, cache: Path | None, without: list[str], places: dict[str, str]) -> None:
    """Compare every runtime with Keras on validation photos, as the data set stores them."""
    from hub.publishing import verify
    from training.photos.data import write_pictures

    with tempfile.TemporaryDirectory() as aside:
        photos = write_pictures(
            settings["data"], "validation", Path(aside, "photos"),
            limit=COMPARED, size=settings["size"], cache=cache, **shares_of(settings),
        )  # fmt: skip
        found = verify.verify(bundle, photos, without=without, using=places, title="validation photos")
    rows = found.runtimes.values()
    print(f"Largest difference in probability from Keras, on {found.photos:,} validation photos:")
    print(*(f"  {row.title}: {row.same_tensor.probability:.1e}" for row in rows), sep="\n")


@app.command()
def preview(
    recipe: Recipe,
    data: Data = None,
    set_: Sets = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="A PNG file. [default: runs/preview-RECIPE.png]")] = None,
    cache: Cache = None,
) -> None:
    """Draw a sheet of what the recipe's augmentation does: each setting alone, and all together."""
    from training.pages.drawing import write_png
    from training.photos.data import photos_of
    from training.photos.preview import preview as draw
    from training.photos.sources import demand_outside

    settings = settings_of(recipe, set_, data=data)
    path = out or Path("runs") / f"preview-{recipe}.png"
    demand_outside(settings["data"], path, "--out")
    figure = draw(settings, photos_of(settings, cache=cache))
    write_png(figure, path)
    print(f"The sheet is {path}.")


@app.command()
def tune(
    recipe: Recipe,
    trials: Annotated[
        int | None, typer.Option(min=1, help="This many trials in all, including those of earlier commands.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="90s|30m|2h", help="Stop at the end of the epoch in which this time is over.")
    ] = None,
    data: Data = None,
    set_: Sets = [],  # noqa: B006
    space: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=SPEC",
            help="What to try of a setting: LOW..HIGH, LOW..HIGH:log, or VALUE,VALUE,…; may be repeated.",
        ),
    ] = [],  # noqa: B006
    run: Annotated[
        Path | None,
        typer.Option(help="The search's folder; one that holds a search resumes it. [default: runs/tune-RECIPE]"),
    ] = None,
    cache: Cache = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search; each training keeps the recipe's own.")] = 0,
) -> None:
    """Search for better settings on validation. If it is interrupted, run the same command to resume."""
    from training.search.tune import run_search

    raise typer.Exit(
        run_search(
            recipe, data=data, sets=set_, specs=space, trials=trials, limit=time, run=run, cache=cache, seed=seed
        )
    )


@app.command()
def settings() -> None:
    """List every setting that a recipe may have: its default, the values it may have, and what it does."""
    print(listed())


@app.command()
def photos(
    data: Annotated[str, typer.Argument(help="Data set: a name on the Hub, a folder or a zip.")],
    folder: Annotated[Path, typer.Argument(help="A new folder for them, one below it for each label.")],
    split: Annotated[Split, typer.Option(help="Which pictures.")] = Split.validation,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many, chosen by their pixels: the same ones each time.")
    ] = None,
    size: Annotated[
        int, typer.Option(min=1, help="The recipe's: photos that a fit has decoded are not decoded again.")
    ] = 224,
    validation_share: Share = DEFAULTS["validation_share"],
    test_share: Share = DEFAULTS["test_share"],
    own_validation: Annotated[
        bool, typer.Option(help="The recipe's: whether a validation split that the data set has is used.")
    ] = DEFAULTS["own_validation"],
    cache: Cache = None,
) -> None:
    """Write the pictures that were held out (or trained on) as files, to look at or for `python -m hub verify`.

    They are written as the data set stores them. Their names are the hashes that predictions.parquet has for them.
    """
    from training.photos.data import write_pictures

    written = write_pictures(
        data, str(split), folder, limit=limit, size=size, cache=cache,
        validation_share=validation_share, test_share=test_share, own_validation=own_validation,
    )  # fmt: skip
    print(f"{len(written):,} pictures of the {split} split are in {folder}.")


@app.command()
def evaluate(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or its name on the Hub.")],
    data: Annotated[str, typer.Option(help="Data set: a name on the Hub, a folder or a zip.")],
    out: Annotated[Path | None, typer.Option(help="Folder for scores, predictions and figures.")] = None,
    record_as: Annotated[
        str | None, typer.Option(help="Write the scores into the bundle as 'elsewhere' under this name.")
    ] = None,
    cache: Cache = None,
) -> None:
    """Repeat a bundle's numbers on the photos they came from, or score it on other photos."""
    from training.results.evaluate import run_evaluation

    raise typer.Exit(run_evaluation(bundle, data, out=out, cache=cache, record_as=record_as))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders that a fit has made.")],
    out: Annotated[Path | None, typer.Option(help="The page of one run. [default: RUN/report.html]")] = None,
    data: Annotated[str | None, typer.Option(help="Where its pictures are. [default: where the run had them]")] = None,
    split: Annotated[HeldOut | None, typer.Option(help="[default: test where it is recorded]")] = None,
    cache: Cache = None,
) -> None:
    """Explain each run on a page: curves, over- and underfitting, every score, pictures with heatmaps."""
    from training.results.report import run_reports

    run_reports(runs, out=out, data=data, split=split, cache=cache)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders that a fit has made.")],
    out: Annotated[Path, typer.Option(help="Folder for the page, the chart and the numbers.")] = Path("runs/compare"),
    split: Annotated[HeldOut | None, typer.Option(help="[default: test where all have recorded it]")] = None,
) -> None:
    """Set runs side by side, and test whether a difference is more than luck."""
    from training.results.compare import run_comparison

    run_comparison(runs, out=out, split=split)


def main() -> None:
    """Run a command; a refusal is one sentence on standard error and exit code 2."""
    try:
        app()
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:  # the page's environment has fewer packages
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "hub", "training"):
            raise
        needed = missing if missing == "jax" else "-r requirements-training.txt"
        print(
            f"The package {missing} is not installed here ({sys.prefix}); {sys.executable} -m pip install {needed}",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
