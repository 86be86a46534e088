"""The card's sections on the runtimes: how each loads the model, and how far each agrees with Keras."""

from collections.abc import Iterable

from hub.agreement import Agreement, Remade, Row, failures
from hub.config import Config
from hub.formats import FORMATS, Format
from hub.publishing.markdown import fence, paragraphs, table

PLACEHOLDER = "OWNER/NAME"
NONE = "–"  # in a table: this format carries none
OTHER_FILE = "†"
REFERENCE = "Keras's `model.keras`"


def tags(agreement: Agreement | None) -> list[str]:
    """Return the Hub's tags of the formats that are published; before any was compared, ONNX is the one there is."""
    if not agreement:
        return ["onnx"]
    return [one.tag for name, one in FORMATS.items() if name in agreement.formats and one.tag]


# How to load it ---------------------------------------------------------------------------------------------


def loading(config: Config, agreement: Agreement | None, repo_id: str | None) -> str:
    """Return the section with a snippet a runtime; before any was compared, only that of this package."""
    runtimes = _known(agreement)
    name = repo_id or (PLACEHOLDER if runtimes else "this folder, or a name on the Hub")
    return paragraphs(
        "## How to load it",
        f"Replace `{PLACEHOLDER}` with the name under which this folder is published."
        if runtimes and not repo_id
        else "",
        "With the `hub` package of this project (`pip install .` in its folder; ONNX Runtime, no TensorFlow):",
        fence("python", own_snippet(config, name)),
        _other_runtimes(runtimes, name)
        or "`model.keras` holds the same network for Keras 3 (standard layers only), and `onnx/model.onnx` for any "
        "ONNX runtime.",
        *(_runtime(key, config, name) for key in runtimes),
    )


def own_snippet(config: Config, name: str) -> str:
    """Return the lines that load a model with this package; they print one probability a label at the end."""
    lines = [
        "from hub import ImageClassifier",
        "",
        f'classifier = ImageClassifier.from_pretrained("{name}")',
        'print(classifier("photo.jpg"))  # [{"label": …, "score": …}, …], most probable first',
        "",
        'answer = classifier.predict("photo.jpg")  # .label, .probabilities, .logits, .evidence',
    ]
    if config.evidence:
        shape = ", ".join(str(part) for part in (*config.evidence.grid, len(config.labels)))
        lines.append(f"print(answer.evidence.shape)  # ({shape}), in logits; its mean over the cells is the logits")
    return "\n".join([*lines, "print(dict(zip(classifier.labels, answer.probabilities.tolist())))"])


def _other_runtimes(runtimes: Iterable[str], name: str) -> str:
    """Say what else `from_pretrained` can answer from."""
    others = [key for key in runtimes if key not in ("onnx", "transformers.js")]
    if not others:
        return ""
    listed = ", ".join(f'`"{key}"`' for key in others)
    return (
        f'This uses the ONNX file. `ImageClassifier.from_pretrained("{name}", runtime="{others[0]}")` uses another '
        f"runtime, if its package is installed: {listed}. Only the files that the runtime needs are downloaded. "
        "`labels.txt` lists the labels, one per line, in the order of the logits. Without this package:"
    )


def _runtime(key: str, config: Config, name: str) -> str:
    chosen, script = FORMATS[key], key == "transformers.js"
    outputs = "`logits` and `evidence`" if config.evidence else "`logits`"
    install = f"npm install {chosen.install}" if script else f"pip install {chosen.install} huggingface_hub pillow"
    return paragraphs(
        f"### {chosen.title}",
        f"{chosen.loads.format(outputs=outputs)} `{install}`",
        fence("js" if script else "python", chosen.snippet(config, name)),
    )


# Agreement between the runtimes -----------------------------------------------------------------------------


def agreement_section(agreement: Agreement) -> str:
    """Return the section with both tables of agreement.json, and what was not run or not published."""
    return paragraphs(
        "## Agreement between the runtimes",
        _what_was_compared(agreement),
        "**Same tensor.** Largest difference over all photos, in the probability of a label and in a cell of "
        f"evidence ({NONE}: the format has no evidence):",
        _same_tensor(agreement),
        _refusal(agreement),
        *_remade(agreement),
        "**Same file**, with each library's own preprocessing. Largest difference in a probability. It shows how "
        "differently the libraries decode and resize a photo. It does not prevent a push:",
        _same_file(agreement),
        _extra_photos(agreement),
        _not_run(agreement),
    )


def _what_was_compared(agreement: Agreement) -> str:
    title = agreement.title or "photos"
    photos = title if "photo" in title.lower() else f"photos ({title})"
    unreadable = agreement.unreadable
    left_out = f" Files skipped because they could not be read: {unreadable:,}." if unreadable else ""
    return (
        f"Each runtime answered the same {agreement.photos:,} {photos} in a process of its own. Its answers are "
        f"compared with {REFERENCE}, for the tensor that `hub.images` makes from a photo.{left_out}"
    )


def _same_tensor(agreement: Agreement) -> str:
    rows = []
    for key, found in _known(agreement).items():
        differences = (_difference(part) for part in (found.same_tensor.probability, found.same_tensor.evidence))
        versions = ", ".join(f"{package} {version}" for package, version in found.versions.items())
        rows.append([found.title + _mark(key, agreement), *differences, versions])
    return table(["Runtime", "Probability", "Cell of evidence", "Versions"], rows)


def _mark(key: str, agreement: Agreement) -> str:
    """Mark the figures that were measured on another file than the published one."""
    return f" {OTHER_FILE}" if key in agreement.remade else ""


def _remade(agreement: Agreement) -> list[str]:
    """Say a paragraph on each format whose files were made anew when the model was published."""
    return [_of_remade(FORMATS[key], found) for key, found in agreement.remade.items() if key in FORMATS]


def _of_remade(one: Format, found: Remade) -> str:
    hashes = ", ".join(f"`{name}` with SHA-256 `{digest}`" for name, digest in found.verified.items())
    makers = ", ".join(f"{package} {version}" for package, version in found.made_by.items())
    total, kinds = sum(found.pictures.values()), found.pictures.items()
    apart = found.same_tensor
    cell = "" if apart.evidence is None else f", and {_difference(apart.evidence)} in a cell of evidence"
    return (
        f"{OTHER_FILE} {one.title}: the figures in the tables were measured on another file of the same model "
        f"({hashes}). The file here was made from `model.keras` when the model was published, by {makers} on "
        f"{found.processor}, since a converter may write other bytes there. It was compared with Keras at once, on "
        f"{total:,} drawn pictures ({', '.join(f'{many:,} {kind}' for kind, many in kinds)}). Largest difference: "
        f"{_difference(apart.probability)} in a probability, {_difference(apart.logits)} in a logit{cell}."
    )


def _refusal(agreement: Agreement) -> str:
    """State the rule, and who breaks it: a card of a folder that cannot be pushed must not look as if it could."""
    tolerance, largest = agreement.tolerance, agreement.largest_evidence
    rule = f"A model is not pushed if a probability differs by more than {tolerance:g}"
    if largest is not None:
        rule += f", or a cell of evidence by more than {tolerance * max(1, largest):.2g}"
    if largest is not None and largest > 1:
        rule += f" ({tolerance:g} of the largest cell, which is {largest:.1f} logits)"
    beyond = " ".join(failures(agreement))
    return f"{rule}. **Beyond that: {beyond}**" if beyond else f"{rule}."


def _same_file(agreement: Agreement) -> str:
    extra = [f"The {_megapixels(agreement)} photo", "The turned photo"]
    rows = []
    for key, found in _known(agreement).items():
        apart = found.same_file
        differences = [_difference(part) for part in (apart.probability, apart.largest_photo, apart.turned_photo)]
        unread = f" ({apart.unread:,} photos not at all)" if apart.unread else ""
        reader, other = f"{FORMATS[key].reader}{unread}", f"{apart.other_label:,}"
        rows.append([found.title + _mark(key, agreement), reader, differences[0], other, *differences[1:]])
    return table(["Runtime", "How it reads a file", "All photos", "Photos answered with another label", *extra], rows)


def _megapixels(agreement: Agreement) -> str:
    size = agreement.largest_photo
    return f"{size.width * size.height / 1e6:.0f}-megapixel"


def _extra_photos(agreement: Agreement) -> str:
    size = agreement.largest_photo
    doubtful = "the photo that the model is least sure of, because a difference is largest there"
    made = f"was made of {doubtful}: enlarged, with noise added" if size.enlarged else "is one of the photos"
    turned = "The turned photo is that one" if size.enlarged else f"The turned photo is {doubtful},"
    return (
        f"The {_megapixels(agreement)} photo ({size.width} × {size.height}) {made}. {turned} stored on its side, "
        "with an EXIF entry that says how to turn it back. A library that ignores the entry sees the photo on its "
        "side. (`hub.images` decodes a large JPEG at a reduced size; every row includes the effect of that.)"
    )


def _not_run(agreement: Agreement) -> str:
    """List the formats that were written but not run, and those that were left out with the reason."""
    written = {
        FORMATS[key].title: f"written, not compared: {FORMATS[key].not_run}"
        for key in agreement.written_only
        if key in FORMATS
    }
    left_out = {
        FORMATS[key].title if key in FORMATS else key: f"not published: {reason.rstrip('.')}"
        for key, reason in agreement.left_out.items()
    }
    return "\n".join(f"- {title}: {text}." for title, text in (written | left_out).items())


def _known(agreement: Agreement | None) -> dict[str, Row]:
    """Return the runtimes that were compared, in the order of FORMATS."""
    runtimes = agreement.runtimes if agreement else {}
    return {key: runtimes[key] for key in FORMATS if key in runtimes}


def _difference(value: float | None) -> str:
    """Return 3.1e-06, 0 or, where there is nothing to compare, a dash."""
    if value is None:
        return NONE
    return f"{value:.1e}" if value else "0"
