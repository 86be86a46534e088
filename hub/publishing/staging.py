"""What is published: a bundle with every format beside it, in the one layout that five libraries load.

The folder that is pushed is staged here and compared with agreement.json, which names the SHA-256 of each file whose
answers were checked (`hub.publishing.verify`): a format is published as it was checked, or not at all. Only a file that
a converter has just written here, in a folder of the push's own, may be another; it is checked at once (`remade`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hub import bundle
from hub.agreement import Agreement, failures, read_agreement
from hub.config import merge, read_config
from hub.errors import BundleError
from hub.files import sha256
from hub.formats import FORMATS, Format, Source, find_format
from hub.formats.keras import load, make_portable
from hub.metrics import read_metrics
from hub.publishing.card import render
from hub.publishing.remade import prove

SOURCES = ("keras", "onnx")  # in every bundle: all else is derived from the one, the Space answers from the other
ON_REQUEST = "left out on request"


def choose(
    folder: Path, *, without: Iterable[str] = (), also: Iterable[str] = ()
) -> tuple[list[Format], dict[str, str]]:
    """Say what of `hub.formats` is published of a bundle.

    Args:
        folder: the bundle; what it already holds of the optional formats stays in.
        without: names of formats to leave out.
        also: names of optional formats to add.

    Returns:
        The formats, in the order of FORMATS, and why each other standard one is left out, by its name.

    Raises:
        BundleError: no such format, one that cannot be left out, or one that this model cannot be stored as.
    """
    without = [find_format(name).name for name in without]
    also = [find_format(name).name for name in also]
    fixed = next((name for name in without if name in SOURCES), None)
    if fixed:
        raise BundleError(f"{FORMATS[fixed].files[0]} is part of every bundle, so {fixed} cannot be left out.")
    chosen, left_out = [], {}
    for name, one in FORMATS.items():
        there = bool(one.files) and all((folder / file).is_file() for file in one.files)
        if not (one.standard or there or name in also or name in without):
            continue
        reason = one.lacks(folder) or (ON_REQUEST if name in without else None)
        if reason is None:
            chosen.append(one)
        elif name in also:
            raise BundleError(f"{one.title} was asked for, but: {reason}.")
        else:
            left_out[name] = reason
    held = {file for one in chosen for file in one.files}
    for one in list(chosen):
        lacking = next((file for file in one.reads if file not in held), None)
        if lacking is not None:  # transformers.js has no files of its own
            if one.name in also:
                raise BundleError(f"{one.title} reads {lacking}, which is left out; leave both out, or neither.")
            chosen.remove(one)
            left_out[one.name] = f"it reads {lacking}, which is left out"
    return chosen, left_out


def card(folder: Path, repo_id: str | None = None) -> str:
    """Return the model card of a bundle as its JSON files render it, with `repo_id` as its name on the Hub."""
    return render(read_config(folder), read_metrics(folder), read_agreement(folder), repo_id)


def stage(folder: Path, out: Path, formats: Iterable[Format]) -> Path:
    """Fill `out` with everything that is published but agreement.json and the card; see `export` and `prepare`.

    Each format is written anew from model.keras and onnx/model.onnx: what `folder` holds of one may come from anywhere.

    Args:
        folder: a bundle.
        out: made, or replaced if it holds a bundle already.
        formats: as `choose` returns them.

    Raises:
        BundleError, StorageError: see `bundle.replacing`, and a format that cannot be written.
    """
    config = read_config(folder)
    content = config.to_json()
    FORMATS["onnx"].start(folder, config)  # refused here where it is not what config.json says
    with bundle.replacing(out) as new:
        # Of the copy, whose hash is compared before it is published.
        source = Source(list(config.labels), config.image_size, lambda: load(new / bundle.KERAS))
        for name in (bundle.KERAS, bundle.ONNX, bundle.METRICS):
            bundle.copy(folder / name, new / name)
        make_portable(new / bundle.KERAS)
        for path in [folder / bundle.PREDICTIONS, *folder.glob(f"{bundle.FIGURES}/*.png")]:
            if path.is_file():
                bundle.copy(path, new / path.relative_to(folder))
        for one in formats:
            one.write(source, new)
            content = merge(content, one.config(new), one.title)
        (new / bundle.CONFIG).write_text(_key_by_key(content), encoding="utf-8")
        (new / bundle.LABELS).write_text("".join(f"{label}\n" for label in source.labels), encoding="utf-8")
    return out


def export(folder: Path, out: Path, *, without: Iterable[str] = (), also: Iterable[str] = ()) -> dict[str, str]:
    """Write a bundle in every format, laid out as it is published; agreement.json comes along if it holds for that.

    Args:
        folder: a bundle.
        out: made, or replaced if it holds a bundle already.
        without, also: as for `choose`.

    Returns:
        Why each standard format that is missing was left out, by its name.
    """
    formats, left_out = choose(folder, without=without, also=also)
    stage(folder, out, formats)
    with suppress(BundleError):
        found = read_agreement(folder)
        if found is not None:
            _take_agreement(found, folder, out, formats, left_out)
    (out / bundle.CARD).write_text(card(out), encoding="utf-8")
    return left_out


def prepare(folder: Path, out: Path, repo_id: str, *, without: Iterable[str] = ()) -> Path:
    """Stage what was verified of a bundle, ready to be pushed.

    Args:
        folder: a bundle with agreement.json.
        out: an empty folder.
        repo_id: the name that it will have on the Hub.
        without: names of formats to leave out although they were verified.

    Raises:
        BundleError: it was never verified, has changed since, or a runtime's answers differ from Keras's.
    """
    found = read_agreement(folder)
    if found is None:
        raise BundleError(f"{folder} was never verified, so it is not published; {_verify(folder)}.")
    wrong = failures(found)
    if wrong:
        raise BundleError(f"{wrong[0]} Nothing is published; look for a layer that converts differently.")
    left = {name for name, reason in found.left_out.items() if reason == ON_REQUEST}
    formats, left_out = choose(folder, without={*without, *left}, also=found.formats - {*without})
    stage(folder, out, formats)
    _take_agreement(found, folder, out, formats, left_out, remade=True)
    (out / bundle.CARD).write_text(card(out, repo_id), encoding="utf-8")
    return out


def _take_agreement(
    found: Agreement, folder: Path, out: Path, formats: list[Format], left_out: dict[str, str], *, remade: bool = False
) -> None:
    """Put what a bundle's agreement says of these formats into the staged folder, if it was said of these very files.

    Args:
        remade: whether a file that was made here, in `out`, may be another, if it is found to answer as Keras does.

    Raises:
        BundleError: a format was not verified, or one of its files is another now.
    """
    names = {one.name for one in formats}
    strangers = sorted(names - found.formats)
    if strangers:
        raise BundleError(f"{folder} was verified without {strangers[0]}; verify it again, or push it --without that.")
    hashes = {name: sha256(out / name) for one in formats for name in one.files}
    earlier = {name: record for name, record in found.remade.items() if name in names}
    verified = {**found.files, **{name: digest for one in earlier.values() for name, digest in one.verified.items()}}
    again = []
    for one in formats:
        changed = [name for name in one.files if verified.get(name) != hashes[name]]
        if not changed:
            earlier.pop(one.name, None)  # this machine makes the very file that was verified
        elif any(found.files.get(name) != hashes[name] for name in one.files):
            if not remade or not set(changed) <= set(one.converted):
                raise BundleError(_another_file(changed[0], one, folder))
            again.append(one)
    records = prove(out, again) if again else {}
    for name, record in records.items():
        its = {file: verified[file] for file in FORMATS[name].files if file in verified}
        earlier[name] = replace(record, verified=its)
    published = replace(
        found,
        runtimes={name: row for name, row in found.runtimes.items() if name in names},
        written_only={name: title for name, title in found.written_only.items() if name in names},
        files=hashes,
        left_out=left_out,
        remade=earlier,
    )
    bundle.write_json(out, bundle.AGREEMENT, published.to_json())


def _another_file(name: str, one: Format, folder: Path) -> str:
    without = "" if one.name in SOURCES else f", or push it --without {one.name}"
    return f"{name} is not the file that was verified; {_verify(folder)} again{without}."


def _verify(folder: Path) -> str:
    return f"run `python -m hub verify {folder} --photos FOLDER`"


def _key_by_key(content: dict) -> str:
    """A config.json that a person can read although one of its keys holds all of Keras's layers: a line for each."""
    lines = (f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"
