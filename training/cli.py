"""The commands of `python -m training`."""

import shlex
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hub.errors import BundleError, DataError, ImageError, StorageError
from training.settings import check, load_recipe, override

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Fit a recipe on photos, and measure what a model is worth.",
)  # fmt: skip
REFUSALS = (DataError, BundleError, ImageError, StorageError)
COMPARED = 2000  # validation photos that every runtime answers before a bundle is published

Cache = Annotated[Path | None, typer.Option(help="Where decoded photos and features are kept between runs.")]


class Split(StrEnum):
    """A split's name, as a choice on the command line."""

    train = "train"
    validation = "validation"
    test = "test"


@app.command()
def fit(
    recipe: Annotated[str, typer.Argument(help="A file in training/recipes, without .py.")],
    data: Annotated[
        str | None, typer.Option(help="Data set: a name on the Hub or a folder. [default: the recipe's]")
    ] = None,
    backbone_weights: Annotated[str | None, typer.Option(help="'imagenet', or a weights file.")] = None,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.")
    ] = [],  # noqa: B006
    run: Annotated[
        Path | None, typer.Option(help="The run's folder; one that holds a run resumes it. [default: runs/RECIPE]")
    ] = None,
    cache: Cache = None,
    open_test: Annotated[
        bool, typer.Option("--open-test", help="Score the test split too: once, when all is chosen.")
    ] = False,
    data_title: Annotated[str | None, typer.Option(help="What the card calls the pictures.")] = None,
    data_name: Annotated[
        str | None, typer.Option(help="The data set on the Hub that the pictures of a folder come from.")
    ] = None,
    data_note: Annotated[
        str | None, typer.Option(help="Sentences for the card: what a reader must know of these pictures.")
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
        typer.Option("--private/--public", help="Who sees what --push-to makes. [default: the owner's setting]"),
    ] = None,
    without: Annotated[
        list[str], typer.Option(metavar="RUNTIME", help="Publish without a runtime's files; may be repeated.")
    ] = [],  # noqa: B006
    using: Annotated[
        list[str],
        typer.Option(metavar="RUNTIME=PATH", help="Compare a runtime in another Python interpreter; may be repeated."),
    ] = [],  # noqa: B006
) -> None:
    """Train a recipe and write a bundle, RUN/bundle. Killed at any moment, the same command resumes it."""
    from training.data import photos_of, summary

    settings = load_recipe(recipe)
    changed = [*set_]
    if data is not None:
        changed.append(f"data={data}")
    if backbone_weights is not None:  # refused by `override` where the recipe has no backbone
        changed.append(f"backbone_weights={backbone_weights}")
    settings = override(settings, changed)
    check(settings)
    if push_to is not None:
        places = _check_push(push_to, settings, without, using)  # now, not after hours of training
    folder = run or Path("runs") / recipe
    photos = photos_of(settings, cache=cache)
    print(summary(photos))

    from training import figures
    from training.evaluate import score_lines
    from training.finish import make_bundle
    from training.fit import PLACES
    from training.fit import fit as train

    model = train(settings, photos, folder, cache=cache)
    shown = [part for s in set_ if s.partition("=")[0].strip() not in PLACES for part in ("--set", s)]
    command = shlex.join(["python", "-m", "training", "fit", recipe, *shown])
    classifier, predictions = make_bundle(
        model, settings, photos, folder, recipe=recipe, command=command,
        data_title=data_title, data_name=data_name, data_note=data_note,
        backbone_origin=backbone_origin, backbone_license=backbone_license, open_test=open_test,
    )  # fmt: skip
    for split, found in predictions.items():
        figures.save(
            folder / "figures", found, title=f"{split} split", pixels=photos.subset(split).pixels,
            scale=classifier.evidence_scale, prefix=f"{split}_",
            history=folder / "history.csv" if split == "validation" else None,
        )  # fmt: skip
        print(score_lines(f"{split.capitalize()} split, {len(found):,} pictures", found.metrics()))
    print(f"The bundle is in {folder / 'bundle'}.")
    if push_to is not None:
        _verify(folder / "bundle", settings, cache, without, places)
        print(f"It is published: {classifier.push_to_hub(push_to, without=without, private=private)}")


def _check_push(repo: str, settings: dict, without: list[str], using: list[str]) -> dict[str, str]:
    """Refuse what would stop a push: no token, or a runtime that is not installed; return where each is run."""
    from hub import agreement, publish, remote
    from hub.classifier import DEFAULT

    places = agreement.places(using)
    # The embedded model stands for the one to come; of its formats only Transformers' depends on the backbone.
    formats, _ = publish.choose(DEFAULT, without=without)
    if settings.get("backbone") != "MobileNetV2":
        formats = [one for one in formats if one.name != "transformers"]
    remote.check_access(repo)
    agreement.check_runtimes(formats, places)
    return places


def _verify(bundle: Path, settings: dict, cache: Path | None, without: list[str], places: dict[str, str]) -> None:
    """Compare every runtime with Keras on validation photos, as the data set stores them."""
    from hub import agreement
    from training.data import write_pictures

    shares = {name: settings[name] for name in ("validation_share", "test_share")}
    with tempfile.TemporaryDirectory() as aside:
        photos = write_pictures(
            settings["data"], "validation", Path(aside, "photos"),
            limit=COMPARED, size=settings["size"], cache=cache, **shares,
        )  # fmt: skip
        found = agreement.verify(bundle, photos, without=without, using=places, title="validation photos")
    rows = found["runtimes"].values()
    print(f"Largest difference in probability from Keras, on {found['photos']:,} validation photos:")
    print(*(f"  {row['title']}: {row['same_tensor']['probability']:.1e}" for row in rows), sep="\n")


@app.command()
def photos(
    data: Annotated[str, typer.Argument(help="Data set: a name on the Hub or a folder.")],
    folder: Annotated[Path, typer.Argument(help="A new folder for them, one below it for each label.")],
    split: Annotated[Split, typer.Option(help="Which pictures.")] = Split.validation,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many, drawn by their pixels: the same ones each time.")
    ] = None,
    size: Annotated[
        int, typer.Option(min=1, help="The recipe's: photos that a fit has decoded are not decoded again.")
    ] = 224,
    cache: Cache = None,
) -> None:
    """Write the pictures that were held out (or trained on) as files, to look at or for `python -m hub verify`.

    They are as the data set stores them, and named by the hash that predictions.parquet tells them by.
    """
    from training.data import write_pictures

    written = write_pictures(data, str(split), folder, limit=limit, size=size, cache=cache)
    print(f"{len(written):,} pictures of the {split} split are in {folder}.")


@app.command()
def evaluate(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or its name on the Hub.")],
    data: Annotated[str, typer.Option(help="Data set: a name on the Hub or a folder.")],
    out: Annotated[Path | None, typer.Option(help="Folder for scores, predictions and figures.")] = None,
    record_as: Annotated[
        str | None, typer.Option(help="Write the scores into the bundle as 'elsewhere' under this name.")
    ] = None,
    cache: Cache = None,
) -> None:
    """Repeat a bundle's numbers on the photos they came from, or score it on other photos."""
    from training.evaluate import run_evaluation

    raise typer.Exit(run_evaluation(bundle, data, out=out, cache=cache, record_as=record_as))


def main() -> None:
    """Run a command; a refusal is one sentence on standard error and exit code 2."""
    try:
        app()
    except REFUSALS as refusal:
        print(refusal, file=sys.stderr)
        raise SystemExit(2) from None
