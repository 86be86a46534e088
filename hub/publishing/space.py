"""The page as a Space of the Hugging Face Hub: which files belong to it, what its front matter must say, its push.

A Space is a repository whose files run. It gets what `app.py` can reach and nothing else; the Dockerfile takes the
same files. Nothing of the page is imported here: its files are only read.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from hub import bundle, remote
from hub.bundle import DEFAULT
from hub.errors import BundleError, first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PROJECT = Path(__file__).parents[2]
README, REQUIREMENTS, VARIABLE = "README.md", "requirements.txt", "MODEL_ID"

ALONE = (README, "LICENSE", REQUIREMENTS, "app.py")
ROOMS = {"space": {".py", ".css", ".js", ".json"}, "hub": {".py"}}  # the endings of what is written there
# The commands, and what only they import.
LEFT_OUT = {"hub/__main__.py", "hub/cli.py", "hub/formats/worker.py", "hub/importing.py", "hub/publishing/space.py",
            "hub/publishing/verify.py"}  # fmt: skip
EMBEDDED = DEFAULT.relative_to(PROJECT).as_posix()
READ = (bundle.CONFIG, bundle.ONNX, bundle.METRICS, bundle.PREDICTIONS, bundle.AGREEMENT, bundle.CARD)
ANSWERS = READ[:2]  # a model without these cannot be served

# https://huggingface.co/docs/hub/spaces-config-reference
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
LONGEST = {"title": 100, "short_description": 60}
REPO_ID = r"[\w.-]+/[\w.-]+"
FILES = r"[^\s,]+(,[^\s,]+)*"
PRELOAD = rf"{REPO_ID}( {FILES}( [0-9a-f]{{40}})?)?"  # repository, perhaps files of it, perhaps of one commit


def files(root: Path = PROJECT, *, model: bool = True) -> dict[str, Path]:
    """Return what belongs to the Space of a clone, by its path there; hidden files and caches never do.

    Args:
        root: the project's folder.
        model: with the embedded model; False for a Space that serves another.

    Raises:
        BundleError: the folder is no whole clone, or has a link in a file's place.
    """
    if not (root / "app.py").is_file():
        raise BundleError(f"{root} holds no app.py to push; run this in a clone of the project's repository.")
    embedded = [f"{EMBEDDED}/{name}" for name in READ] if model else []
    names = [*ALONE, *embedded, *(name for room in ROOMS for name in _written(root, room) if name not in LEFT_OUT)]
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise BundleError(f"{root} has no {missing[0]}; restore the file or clone the repository again.")
    for name in names:
        aim = (root / name).resolve()
        if aim != root.resolve() / name:  # who made a clone must not choose which files of this machine are published
            raise BundleError(f"{root / name} is a link to {aim}; put the file itself there.")
    return {name: root / name for name in sorted(names)}


def _written(root: Path, room: str) -> list[str]:
    """The files of a room that a person wrote: its endings, and no hidden path or cache."""
    paths = [path for path in (root / room).rglob("*") if path.suffix in ROOMS[room] and path.is_file()]
    names = [path.relative_to(root).as_posix() for path in paths]
    return [name for name in names if not any(part.startswith((".", "__pycache__")) for part in name.split("/"))]


def is_ours(name: str) -> bool:
    """Whether a path of a Space is one that a push of ours may write, and delete when it is no longer part of it."""
    return name in ALONE or name.split("/")[0] in ROOMS


def front_matter(text: str) -> dict:
    """Return the YAML block at the top of a README.md.

    Raises:
        BundleError: there is none, or it is not YAML.
    """
    from huggingface_hub import RepoCard

    if not text.startswith("---\n"):
        raise BundleError("README.md does not begin with a Space's front matter; put it between two lines of ---.")
    try:
        return RepoCard(text, ignore_metadata_errors=True).data.to_dict()
    except Exception as error:  # YAML's own, which are no ValueErrors
        raise BundleError(
            f"README.md has a front matter that is not valid YAML ({first_line(error)}); correct it."
        ) from error


def check_front_matter(front: dict, root: Path = PROJECT) -> None:
    """Check that the Hub would take a front matter, and that it agrees with the project's files.

    Args:
        front: what `front_matter` returned.
        root: the project's folder.

    Raises:
        BundleError: it does not; the sentence names the entry.
    """

    def demand(name: str, fine: bool, rule: str) -> None:
        if not fine:
            shown = f"{front[name]!r}" if name in front else "missing"
            raise BundleError(f"README.md's front matter has {name} {shown[:120]}; it must be {rule}.")

    def text(name: str) -> str:
        return front[name] if isinstance(front.get(name), str) else ""

    for name, longest in LONGEST.items():
        fine = text(name).strip() and text(name).isprintable() and len(text(name)) <= longest
        demand(name, bool(fine), f"one line of at most {longest} characters")
    demand("emoji", _is_emoji(text("emoji")), "a single emoji")
    for name in ("colorFrom", "colorTo"):
        demand(name, text(name) in COLOURS, f"one of {', '.join(sorted(COLOURS))}")
    pinned = re.search(r"(?m)^gradio==(\S+)", (root / REQUIREMENTS).read_text(encoding="utf-8"))
    version = pinned[1] if pinned else "a version that requirements.txt pins"
    demand("sdk", front.get("sdk") == "gradio", "gradio")
    demand("sdk_version", front.get("sdk_version") == version, f"{version}, as in requirements.txt")
    quoted = 'Python\'s version in quotes, such as "3.11"'  # without quotes 3.10 is the number 3.1
    demand("python_version", bool(re.fullmatch(r"3\.\d+(\.\d+)?", text("python_version"))), quoted)
    demand("app_file", text("app_file") in files(root), "a file that is pushed")
    demand("license", bool(re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", text("license"))), "a name such as apache-2.0")
    for name, form, rule in (
        ("models", REPO_ID, "a list of OWNER/NAME"),
        ("preload_from_hub", PRELOAD, 'a list of "OWNER/NAME", "OWNER/NAME FILE,FILE" or these with a commit after'),
    ):
        entries = front.get(name, [])
        fine = isinstance(entries, list) and all(isinstance(one, str) and re.fullmatch(form, one) for one in entries)
        demand(name, fine, rule)


def _is_emoji(text: str) -> bool:
    """Whether a text is one symbol, or several joined into one, with their variation and skin tone; or a flag."""
    if re.fullmatch("[\U0001f1e6-\U0001f1ff]{2}", text):
        return True
    parts = [re.fullmatch("(.)\ufe0f?[\U0001f3fb-\U0001f3ff]?\ufe0f?", part) for part in text.split("\u200d")]
    return all(part and unicodedata.category(part[1]) == "So" for part in parts)


def serving(text: str, model: str, names: list[str]) -> str:
    """Return a README.md whose front matter names the model that the page serves, and has the Hub preload its files.

    Args:
        text: the project's README.md.
        model: OWNER/NAME.
        names: the files that the page will read; none for a model that the Hub does not preload.
    """
    from huggingface_hub import RepoCard

    front_matter(text)
    card = RepoCard(text)
    card.data["models"] = [model]
    card.data["preload_from_hub"] = [f"{model} {','.join(names)}"] if names else None
    return str(card)


def push(
    repo_id: str,
    *,
    model: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    root: Path = PROJECT,
) -> tuple[str, list[str], str | None]:
    """Make a Space of the Hub hold just the page, in one commit; what others put beside it stays.

    Args:
        repo_id: owner/name; made if it does not exist.
        model: a model of the Hub to serve; its name becomes the Space's variable MODEL_ID, and the embedded model is
            not uploaded. None serves the embedded one.
        private: hide a Space that is made now; None is the owner's default.
        revision: branch to push to, made if it does not exist; None is main, which is what runs.
        token: None takes that of `hf auth login` or HF_TOKEN.
        root: the clone.

    Returns:
        The commit's URL, the names of the files, and what the owner has still to do, if anything.

    Raises:
        BundleError: no clone, a front matter that the Hub would not take, no such model, or the name or the token is
            refused; nothing was sent.
        StorageError: the upload did not finish; the repository is as it was.
    """
    from huggingface_hub import HfApi

    if model and revision not in (None, "main"):
        raise BundleError("A Space has one MODEL_ID, for main, which runs; leave out either --model or --revision.")
    content: dict[str, Path | bytes] = dict(files(root, model=model is None))
    text, todo = (root / README).read_text(encoding="utf-8"), None
    check_front_matter(front_matter(text), root)
    remote.check_access(repo_id, token)
    if model:
        names, open_to_all = _served(model, token)
        text = serving(text, model, names if open_to_all else [])
        check_front_matter(front_matter(text), root)
        content[README] = text.encode()
        if not open_to_all:
            todo = f"{model} is not open to all, so the Space needs a secret HF_TOKEN that may read it."
    api = HfApi(token=token)
    with remote.pushing(repo_id, mend="correct the front matter of README.md"):
        made = api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        # A page without its model must never run: a new one is named before the commit, an old one forgotten after.
        if model:
            _set_model(api, made.repo_id, model)
        message = "Upload the page" + (f", which serves {model}" if model else " with its model")
        commit = remote.commit_files(api, made.repo_id, content, is_ours, message, repo_type="space", revision=revision)
        if not model and revision in (None, "main"):
            _set_model(api, made.repo_id, None)
    return commit.commit_url, list(content), todo


def _served(model: str, token: str | bool | None) -> tuple[list[str], bool]:
    """Return which files of a Hub model the page will read, and whether anybody may.

    Raises:
        BundleError: there is no such model, or it is none that the page can serve.
    """
    info = remote.listing(model, list(READ), token=token)
    there = {file.rfilename for file in info.siblings or []}
    absent = [name for name in ANSWERS if name not in there]
    if absent:
        raise BundleError(
            f"{model} has no {absent[0]}, so the page cannot serve it; push it with `python -m hub push`."
        )
    return [name for name in READ if name in there], not (info.private or info.gated)


def _set_model(api: HfApi, repo_id: str, model: str | None) -> None:
    """Set or remove the Space's variable, and leave it alone where it is right: a change restarts the Space."""
    there = api.get_space_variables(repo_id).get(VARIABLE)
    if model and (there is None or there.value != model):
        api.add_space_variable(repo_id, VARIABLE, model, description="The model of the Hub that the page serves")
    elif not model and there is not None:
        api.delete_space_variable(repo_id, VARIABLE)
