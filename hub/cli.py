"""The commands of `python -m hub`."""

from __future__ import annotations

import functools
import io
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from hub import batch, bundle, remote
from hub.agreement import Agreement, failures
from hub.classifier import ImageClassifier, refuse_path
from hub.config import read_config
from hub.errors import BundleError, Refusal, UsageError, printable
from hub.files import write_aside
from hub.formats import find_format
from hub.importing import import_model
from hub.publishing import space, staging
from hub.publishing import verify as verification
from hub.scores import many, percent

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
space_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Run the page of this project as a Space of the Hub."
)
app.add_typer(space_app, name="space")

Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or its name on the Hub.")]
Local = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder; agreement.json is written into it.")]
Revision = Annotated[
    str | None, typer.Option(metavar="NAME", help="Branch, tag or commit on the Hub. [default: the newest of main]")
]
Without = Annotated[
    list[str], typer.Option(metavar="FORMAT", help="Leave out a format's files; may be repeated. The card says so.")
]
Also = Annotated[
    list[str], typer.Option(metavar="FORMAT", help="Add a format that is written only on request, such as openvino.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON on standard output, and no progress.")]


@app.callback()
def commands() -> None:
    """Use a model, check that it gives the same answers in every runtime, and share it on the Hub.

    A bundle is a folder that save_pretrained or `python -m training fit` wrote, or that pull downloaded. Most commands
    also accept the name of a model on the Hub. For a private model, log in with `hf auth login` or set HF_TOKEN. No
    command accepts a token, because command lines are kept in histories and shown to other users.

    \b
    Exit codes: 0  all is well
                1  done, but something is not as it should be (a picture cannot be read, a runtime disagrees)
                2  refused, with one sentence that says why
                130  interrupted
    """


def command(function: Callable, name: str | None = None, group: typer.Typer = app) -> Callable:
    """Make a function a command: a refusal is one sentence on standard error and exit code 2, Ctrl-C is 130."""

    @group.command(name)
    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except Refusal as refusal:
            print(refusal, file=sys.stderr)
            raise typer.Exit(2) from None
        except KeyboardInterrupt as interrupt:
            print(str(interrupt) or "Interrupted.", file=sys.stderr)
            raise typer.Exit(130) from None

    return run


@command
def predict(
    pictures: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURES",
            help="Files, folders (with their subfolders; hidden files are skipped), patterns in "
            "quotes ('photos/**/*.jpg'), or - for a list on standard input, one per line.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(metavar="NAME_OR_FOLDER", help="The model to use. [default: the embedded model]")
    ] = None,
    runtime: Annotated[
        str, typer.Option(metavar="NAME", help="The runtime: onnx, keras, litert, openvino, …")
    ] = "onnx",
    revision: Revision = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a row for each picture into FILE.csv, FILE.jsonl or FILE.parquet."),
    ] = None,
    evidence: Annotated[
        bool, typer.Option("--evidence/--no-evidence", help="Write the evidence, h × w × K numbers per picture.")
    ] = True,
    json_: Json = False,
) -> None:
    """Answer for pictures, line by line or into a file.

    \b
    python -m hub predict photo.jpg
    python -m hub predict photos --out answers.csv
    python -m hub predict 'photos/**/*.png' --model OWNER/NAME --out answers.parquet
    find . -name '*.jpg' | python -m hub predict - --json

    A picture that cannot be read does not stop the command: the column error of its row says why, all such pictures
    are listed at the end, and the exit code is 1. The same holds for other files that seem to be meant as pictures,
    such as a video or a camera's raw picture; their rows come last. A picture that is named twice is answered once.

    The columns are file, label, probability, probability_LABEL for each label, logits, evidence[row][column][label]
    (its mean over rows and columns is the logits) and error; lists are JSON text in CSV. If the command
    is interrupted, the answers so far stay in FILE.part.csv (.jsonl, .parquet), and an older FILE is not changed. With
    --json, one object says what was written; without --out, each picture is an object on its own line, with the same
    keys.
    """
    if out is not None:
        batch.check_out(out)
    found = batch.look_for_pictures(pictures)
    skipped = batch.unanswered(found)
    classifier = ImageClassifier.from_pretrained(model, runtime=runtime, revision=revision)
    unreadable: list[batch.Answer] = []
    bar = not json_ and (out is not None or not sys.stdout.isatty())  # lines on a terminal are progress enough

    def listened() -> Iterable[list[batch.Answer]]:
        for answers in batch.answers(classifier, found.pictures, progress=bar):
            unreadable.extend(answer for answer in answers if answer.error)
            yield answers
        if skipped:
            yield skipped

    if out is not None:
        batch.write(classifier, listened(), out, evidence=evidence)
        count = len(found.pictures)
        answered = count - len(unreadable)
        if json_:
            outcome = {"out": str(out), "model": classifier.name, "pictures": count, "answered": answered}
            left = {"unreadable": _failures(unreadable), "skipped": _failures(skipped)}
            print(json.dumps({**outcome, **left}, ensure_ascii=False))
        else:
            without = len(unreadable) + len(skipped)
            print(f"{answered:,} answered by {classifier.name}, {without:,} not; written to {out}.")
    else:
        _print_answers(classifier, listened(), evidence=evidence, as_json=json_)
    titles = f"{many(len(unreadable), 'picture')} could not be read:", f"{many(len(skipped), 'file')} skipped:"
    for failed, title in zip((unreadable, skipped), titles, strict=True):
        if failed:
            print(title, file=sys.stderr)
            for one in failed:
                print(f"  {printable(batch.text_of(one.file))}: {printable(one.error or '')}", file=sys.stderr)
    if unreadable or skipped:
        raise typer.Exit(1)


def _failures(answers: list[batch.Answer]) -> list[dict]:
    return [{"file": batch.text_of(one.file), "error": one.error} for one in answers]


def _print_answers(
    classifier: ImageClassifier, batches: Iterable[list[batch.Answer]], *, evidence: bool, as_json: bool
) -> None:
    """Print a line for each picture as soon as its batch is answered."""
    names, width = batch.columns(classifier, evidence=evidence), max(map(len, classifier.labels))
    for answers in batches:
        for one in answers:
            if as_json:
                sys.stdout.write(batch.json_line(batch.row(one, names, classifier.labels)))
            elif one.prediction is not None:
                found, file = one.prediction, printable(batch.text_of(one.file))
                print(f"{found.label:<{width}}  {percent(found.probabilities.max()):>8}  {file}")
        sys.stdout.flush()


@functools.partial(command, name="import")
def import_(
    source: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A .keras or .h5 file, or Teachable Machine's folder for Keras.")
    ],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Created, or replaced if it already holds a bundle.")],
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="One label per line, in the order of the model's outputs.")
    ] = None,
    pixels: Annotated[
        str | None, typer.Option(metavar="RANGE", help="What the model was trained on: 0..255, 0..1 or -1..1.")
    ] = None,
    photos: Annotated[
        list[str],
        typer.Option(metavar="PATH", help="Photos to compare ONNX and Keras on. [default: drawn pictures]"),
    ] = [],  # noqa: B006
    json_: Json = False,
) -> None:
    """Make a bundle of a Keras model from elsewhere.

    \b
    python -m hub import converted_keras cats
    python -m hub import cats.keras cats --labels labels.txt --pixels 0..1

    A softmax or a one-unit sigmoid at the model's end is taken away: a bundle carries logits, and the probabilities
    stay the same. Code in the file is never run. This requires TensorFlow.
    """
    paths = batch.find_pictures(photos) if photos else []
    made = import_model(source.expanduser(), out, labels=labels, pixels=pixels, photos=paths)
    if json_:
        _print_json({"folder": str(out), "labels": made.labels, "image_size": made.image_size})
    else:
        print(f"The model is in {out}: {', '.join(map(printable, made.labels))}, {made.image_size} pixels a side.")


@command
def export(
    source: Bundle,
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Created, or replaced if it already holds a bundle.")],
    without: Without = [],  # noqa: B006
    also: Also = [],  # noqa: B006
    revision: Revision = None,
    json_: Json = False,
) -> None:
    """Write a model in every format into a folder.

    \b
    python -m hub export runs/flowers/bundle exported
    python -m hub export runs/flowers/bundle exported --also openvino --also h5 --without transformers

    The folder is laid out as it is published on the Hub. Formats other than ONNX are converted from model.keras,
    which requires TensorFlow. Nothing is compared here: verify
    does that, and push publishes what it compared.
    """
    folder = _folder(source, remote.WHOLE, revision)
    left_out = staging.export(folder, out, without=without, also=also)
    files = {path.relative_to(out).as_posix(): path.stat().st_size for path in sorted(out.rglob("*")) if path.is_file()}
    if json_:
        _print_json({"folder": str(out), "files": files, "left_out": left_out})
        return
    print(_table(["file", "size"], [[name, _size(size)] for name, size in files.items()]))
    for name, reason in left_out.items():
        print(f"Without {name}: {reason}.")
    print(f"The model is in {out}.")


@command
def verify(
    folder: Local,
    photos: Annotated[
        list[str],
        typer.Option(metavar="PATH", help="Photos to compare on: files, folders or patterns; may be repeated."),
    ],
    without: Without = [],  # noqa: B006
    also: Also = [],  # noqa: B006
    using: Annotated[
        list[str],
        typer.Option(
            metavar="RUNTIME=PATH",
            help="Run a format elsewhere: in another Python interpreter, or for transformers.js with the folder that "
            "holds its node_modules; may be repeated.",
        ),
    ] = [],  # noqa: B006
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the card calls the photos. [default: photos]")
    ] = None,
    json_: Json = False,
) -> None:
    """Compare every runtime with Keras on your photos.

    \b
    python -m hub verify runs/flowers/bundle --photos flowers/validation --title "validation photos"
    python -m hub verify runs/flowers/bundle --photos 'flowers/**/*.jpg' --without transformers
    python -m hub verify runs/flowers/bundle --photos flowers --using transformers=torch-env/bin/python

    Writes agreement.json, and the card that shows it. Each runtime answers in a process of its own. Given the same
    tensor, it may differ by 0.0001 at most. If it differs more, the exit code is 1 and push refuses. Given the same
    file, each library prepares the picture in its own way; that difference is only reported. If a runtime is not
    installed, the command refuses and names it.
    """
    _refuse_name(folder, "verify")
    paths = batch.find_pictures(photos)
    places = verification.places(using)
    found = verification.verify(
        folder, paths, without=without, also=also, using=places, title=title, progress=not json_
    )
    wrong = failures(found)
    if json_:
        _print_json(found.to_json())
    else:
        print(_agreement(found))
        print(f"Written to {folder}: {bundle.AGREEMENT} and {bundle.CARD}.")
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
        raise typer.Exit(1)


def _agreement(found: Agreement) -> str:
    """The two tables of agreement.json."""
    same_tensor, same_file = [], []
    for row in found.runtimes.values():
        tensor, file = row.same_tensor, row.same_file
        differences = [_difference(value) for value in (tensor.probability, tensor.logits, tensor.evidence)]
        versions = ", ".join(f"{package} {version}" for package, version in row.versions.items())
        same_tensor.append([row.title, *differences, versions])
        differences = [_difference(value) for value in (file.probability, file.largest_photo, file.turned_photo)]
        same_file.append([row.title, *differences, str(file.other_label)])
    unreadable = f" ({found.unreadable:,} more could not be read)" if found.unreadable else ""
    parts = [
        f"Largest difference from Keras on {found.photos:,} {found.title}{unreadable}",
        f"Same tensor in (at most {found.tolerance:g} in probability):",
        _table(["runtime", "probability", "logits", "evidence", "versions"], same_tensor),
        "Same file in, read by each library in its own way (probability):",
        _table(["runtime", "photos", "12 megapixels", "stored turned", "photos with another label"], same_file),
    ]
    notes = [f"Written and checked, but not run here: {title}." for title in found.written_only.values()]
    notes += [f"Without {name}: {reason}." for name, reason in found.left_out.items()]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


@command
def push(
    source: Bundle,
    repo: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="The model on the Hub; created if it does not exist.")
    ],
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public", help="Who can see a model that is created now. [default: the owner's setting]"
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(metavar="BRANCH", help="Push to this branch; created if it does not exist. [default: main]"),
    ] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose a pull request instead of a commit.")] = False,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="The commit's message, one line.")] = None,
    without: Without = [],  # noqa: B006
    json_: Json = False,
) -> None:
    """Publish a verified bundle on the Hub.

    \b
    python -m hub push runs/flowers/bundle OWNER/flowers --private
    python -m hub push runs/flowers/bundle OWNER/flowers --create-pr --message "Trained on more photos"

    Log in with `hf auth login` or set HF_TOKEN first; the token must be allowed to write. The bundle goes up with
    all its formats in one commit. If the push is interrupted, the repository stays as it was, and a second push sends
    only what had not arrived. A bundle is refused if it was not verified, has changed since, or differs between
    runtimes. Where a converter writes other bytes on this machine than those that were verified, the new file is
    compared with Keras during the push, on drawn pictures.
    """
    _quiet_hub(json_)
    if not create_pr:  # anybody may propose
        remote.check_access(repo)  # now, not after all formats are written
    url = ImageClassifier.from_pretrained(source).push_to_hub(
        repo,
        without=without,
        private=private,
        revision=revision,
        create_pr=create_pr,
        commit_message=message,
    )
    if json_:
        _print_json({"repo": repo, "url": url})
    else:
        print(f"{'Proposed' if create_pr else 'Published'}: {url}")


@functools.partial(command, name="push", group=space_app)
def space_push(
    repo: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="The Space on the Hub; created if it does not exist.")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="OWNER/MODEL", help="A model of the Hub to serve. [default: the embedded one]")
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public", help="Who can see a Space that is created now. [default: the owner's setting]"
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(metavar="BRANCH", help="Push to this branch; created if it does not exist. [default: main]"),
    ] = None,
    json_: Json = False,
) -> None:
    """Publish the page of this clone as a Space.

    \b
    python -m hub space push OWNER/cats-or-dogs
    python -m hub space push OWNER/flowers-page --model OWNER/flowers --private

    Log in with `hf auth login` or set HF_TOKEN first; the token must be allowed to write. What the page needs goes
    up in one commit: its code, requirements.txt, README.md and the embedded model. With --model that stays here: the
    Space's variable MODEL_ID names the other one, and README.md has the Hub fetch it when the Space is built.
    Files of an earlier push that are no longer part of the page are deleted; files that others added stay.
    """
    _quiet_hub(json_)
    url, files, todo = space.push(repo, model=model, private=private, revision=revision)
    if json_:
        _print_json({"repo": repo, "url": url, "files": files, "todo": todo})
        return
    print(f"Published: {url}, {len(files)} files.")
    if todo:
        print(todo)


@command
def pull(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A model on the Hub.")],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Created, or replaced if it already holds a bundle.")
    ],
    revision: Revision = None,
    runtime: Annotated[
        str, typer.Option(metavar="NAME", help="Only what this runtime needs, such as onnx, and the record; or all.")
    ] = "all",
    json_: Json = False,
) -> None:
    """Copy a model from the Hub into a folder.

    \b
    python -m hub pull OWNER/flowers flowers
    python -m hub pull OWNER/flowers flowers --revision v1.0 --runtime onnx

    Every file is checked against its hash, and the folder appears complete or not at all. A folder that holds anything
    but a bundle is refused.
    """
    needed = [bundle.CONFIG] if runtime == "all" else [bundle.CONFIG, *find_format(runtime).reads]
    wanted = remote.WHOLE if runtime == "all" else [*bundle.RECORD, *needed]
    _quiet_hub(json_)
    there = remote.download(repo, files=wanted, revision=revision)
    absent = [name for name in needed if not (there / name).is_file()]
    if absent:
        raise BundleError(f"{repo} has no {absent[0]}; check the name, or pull another --runtime.")
    read_config(there, repo)
    # The cache may hold more of this commit than was asked for now.
    names = sorted({path.relative_to(there).as_posix() for pattern in wanted for path in there.glob(pattern)})
    with bundle.replacing(folder) as new:
        for name in names:
            bundle.copy(there / name, new / name)
    if json_:
        _print_json({"folder": str(folder), "repo": repo, "commit": there.name, "files": names})
    else:
        print(f"{repo} at {there.name[:12]} is in {folder}, {len(names)} files.")


@command
def card(
    source: Bundle,
    repo_id: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="The name that the card's snippets load the model by.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether README.md is the card of these results.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Write README.md of the bundle again.")] = False,
    revision: Revision = None,
    json_: Json = False,
) -> None:
    """Print, check or write the model card.

    \b
    python -m hub card runs/flowers/bundle
    python -m hub card runs/flowers/bundle --check || python -m hub card runs/flowers/bundle --write

    The card is rendered from config.json, metrics.json and agreement.json.
    --check exits with 1 when README.md differs, and names the first line that does: a card is never edited by hand.
    """
    if check and write:
        raise UsageError("--check and --write are two commands; give one of them.")
    if write:
        _refuse_name(Path(source), "card --write")
    folder = _folder(source, bundle.RECORD, revision)
    if repo_id is None and not Path(source).expanduser().is_dir():
        repo_id = source
    text = staging.card(folder, repo_id)
    if check:
        _check_card(bundle.read_bytes(folder, bundle.CARD), text, source, as_json=json_)
    elif write:
        write_aside(folder / bundle.CARD, lambda file: file.write(text.encode()))
        _print_json({"written": str(folder / bundle.CARD)}) if json_ else print(f"Written: {folder / bundle.CARD}")
    else:
        _print_json({"card": text}) if json_ else sys.stdout.write(text)


def _check_card(there: bytes, text: str, source: str, *, as_json: bool) -> None:
    """Compare a README.md with the rendered card; exit with 1 where they differ."""
    has, should = there.decode("utf-8", "replace").split("\n"), text.split("\n")
    pairs = enumerate(zip(has, should, strict=False), start=1)
    line = next((number for number, (one, other) in pairs if one != other), min(len(has), len(should)) + 1)
    same = there == text.encode()
    found = {"has": has[line - 1 : line], "should": should[line - 1 : line]}
    if as_json:
        lines = {} if same else {"line": line, **{name: text[0] if text else None for name, text in found.items()}}
        _print_json({"same": same, **lines})
    if same:
        if not as_json:
            print(f"{bundle.CARD} of {source} is what its results render.")
        return
    shown = {name: f"“{printable(text[0])}”" if text else "nothing" for name, text in found.items()}
    print(
        f"{bundle.CARD} of {source} differs from what its results render, first in line {line}: it has {shown['has']} "
        f"for {shown['should']}; render it again with --write.",
        file=sys.stderr,
    )  # fmt: skip
    raise typer.Exit(1)


# ---------------------------------------------------------------- what they share


def _folder(source: str, files: list[str], revision: str | None) -> Path:
    """Return the folder of a bundle; of a Hub model these files are fetched."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    refuse_path(source, source)
    return remote.download(source, files=files, revision=revision)


def _refuse_name(folder: Path, what: str) -> None:
    if not folder.is_dir():
        raise BundleError(f"There is no folder {folder}; {what} writes into it, so pull a model of the Hub first.")


def _quiet_hub(as_json: bool) -> None:
    """Show the Hub client's progress bars to people only."""
    if as_json or not sys.stderr.isatty():
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()


def _difference(value: float | None) -> str:
    return "–" if value is None else "0" if value == 0 else f"{value:.1e}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB" if count >= 1e3 else f"{count} B"


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Text in columns."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in (head, *rows))
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _print_json(content: dict) -> None:
    print(json.dumps(content, ensure_ascii=False))


def main() -> None:
    """Run a command and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack letters that a file's name has
    app(prog_name="python -m hub")
