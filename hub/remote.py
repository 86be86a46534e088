"""The Hugging Face Hub: a bundle comes down checked against its hashes, and goes up in one commit.

Everything is asked through huggingface_hub's own functions, so HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE
mean here what they mean there. What it raises becomes one sentence.
"""

from __future__ import annotations

import errno
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub import bundle
from hub.errors import BundleError, StorageError, first_line
from hub.files import sha256
from hub.formats import FORMATS
from hub.safety import climbs

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi, ModelInfo

FILES = {*bundle.RECORD, bundle.LABELS, *(name for chosen in FORMATS.values() for name in chosen.files)}
RECORD = [*bundle.RECORD, f"{bundle.FIGURES}/*"]
WHOLE = [*sorted(FILES), f"{bundle.FIGURES}/*"]
NEEDED = [bundle.KERAS, bundle.ONNX, bundle.CONFIG, bundle.CARD]
LOGIN = "log in with `hf auth login`, set HF_TOKEN or give a token"
LARGEST = 4 * 10**9  # bytes of one download: the formats of one model, none beyond 2 GB
LOCAL_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


def download(repo_id: str, *, files: list[str], revision: str | None = None, **options: Any) -> Path:
    """Fetch some files of a Hub model, or find them in the cache.

    Args:
        repo_id: owner/name.
        files: patterns of what to fetch.
        revision: branch, tag or commit; None is the newest of main.
        options: token, cache_dir, local_files_only, force_download of `huggingface_hub.snapshot_download`.

    Returns:
        The folder they lie in; its name is the commit.

    Raises:
        BundleError: no such model or revision, no access, no connection, names that lead out of the folder, more
            bytes than a model has, or bytes that do not match their hash.
        StorageError: the cache cannot be written.
    """
    from huggingface_hub import errors, snapshot_download

    commit, unlisted = None, None
    if not options.get("local_files_only"):
        try:
            commit = _look_at_list(repo_id, files, revision, options.get("token")).sha
        except errors.RevisionNotFoundError as error:
            raise _download_refusal(error, repo_id, revision) from error
        except BundleError:
            raise
        except Exception as error:  # network, access, name and disk errors have no common base class
            unlisted, options = error, {**options, "local_files_only": True}  # as the client does: perhaps it is cached
    try:
        folder = Path(snapshot_download(repo_id, allow_patterns=files, revision=revision, **options))
    except Exception as error:
        told = unlisted if isinstance(unlisted, errors.HfHubHTTPError | errors.LocalTokenNotFoundError) else error
        raise _download_refusal(told, repo_id, revision) from error
    if commit not in (None, folder.name):
        raise BundleError(f"{repo_id} was changed while it was loaded; load it again.")
    _verify(folder, repo_id)
    return folder


def listing(
    repo_id: str, files: list[str], *, revision: str | None = None, token: str | bool | None = None
) -> ModelInfo:
    """Return what the Hub says of a model, its list of files among it, without fetching any.

    Raises:
        BundleError: as for `download`.
    """
    try:
        return _look_at_list(repo_id, files, revision, token)
    except BundleError:
        raise
    except Exception as error:  # as for the download
        raise _download_refusal(error, repo_id, revision) from error


def _look_at_list(repo_id: str, files: list[str], revision: str | None, token: str | bool | None) -> ModelInfo:
    """Return what the Hub says of a model whose list of files was looked at; nothing is fetched before that.

    Raises:
        BundleError: a name leads out of the folder, or the files that are wanted are too large together.
        Exception: what the client raises where the Hub does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    info = HfApi(token=token).model_info(repo_id, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    for name in sizes:
        if climbs(name):
            raise BundleError(f"{repo_id} has a file {name[:80]!r}, which leads out of its folder; do not use it.")
    size = sum(sizes[name] for name in filter_repo_objects(sizes, allow_patterns=files))
    if size > LARGEST:
        raise BundleError(
            f"{repo_id} would be {size / 1e9:.1f} GB to download, more than the {LARGEST / 1e9:.0f} GB that an image "
            "classifier may have; check the name."
        )
    return info


def _verify(folder: Path, repo_id: str) -> None:
    """Compare each file with the hash that the Hub gave for it, and drop from the cache what differs.

    The client compares sizes only. In its cache a file is a link to blobs/HASH: SHA-256 for a large file, git's SHA-1
    for a small one. (Where a system has no links the hash is not kept, and nothing can be compared.)
    """
    for path in folder.rglob("*"):
        if not path.is_symlink():
            continue
        blob = path.parent / os.readlink(path)
        if len(blob.name) not in (40, 64):
            continue  # another server's tag, which says nothing of the content
        if _hash(path, len(blob.name)) != blob.name:
            for wrong in (path.resolve(), blob, path):  # the first is elsewhere if repositories share their blobs
                with suppress(OSError):  # a cache that is only read
                    wrong.unlink()
            name = path.relative_to(folder).as_posix()
            raise BundleError(f"{name} of {repo_id} does not match its hash, so it was not loaded; load it again.")


def _hash(path: Path, digits: int) -> str:
    """Git's SHA-1 of a file (40 digits) or its SHA-256 (64); of nothing, if the link leads nowhere."""
    if not path.exists():
        return ""
    if digits == 64:
        return sha256(path)
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def push(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Make a Hub model hold just this bundle, in one commit; see `ImageClassifier.push_to_hub`.

    Files beside the bundle's stay in the repository. `upload_folder` would do, but may split a commit that fails.

    Returns:
        The commit's URL, or the pull request's.

    Raises:
        BundleError: the folder is no whole bundle, or the name, the card or the token is refused.
        StorageError: the upload did not finish; the repository is as it was.
    """
    from huggingface_hub import HfApi

    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise BundleError(f"{folder} has no {missing[0]}; push a folder that save_pretrained wrote.")
    if create_pr and revision is not None:
        raise BundleError("A pull request goes to main; leave out either create_pr or revision.")
    api = HfApi(token=token)
    with pushing(repo_id):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        files = {path.relative_to(folder).as_posix(): path for path in _members(folder)}
        message = commit_message or "Upload an image classifier with its evidence"
        commit = commit_files(api, repo_id, files, _is_ours, message, revision=revision, create_pr=create_pr)
    return commit.pr_url or commit.commit_url


@contextmanager
def pushing(repo_id: str, *, mend: str = "render it again") -> Iterator[None]:
    """Turn what the client raises in the block into the refusal of a push; `mend` is the remedy for a refused card."""
    try:
        yield
    except (BundleError, StorageError):
        raise
    except Exception as error:  # as for the download
        raise _push_refusal(error, repo_id, mend) from error


def commit_files(
    api: HfApi,
    repo_id: str,
    files: Mapping[str, Path | bytes],
    is_ours: Callable[[str], bool],
    message: str,
    *,
    repo_type: str = "model",
    revision: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    """Make a repository hold just these files of ours, in one commit; others beside them stay.

    Args:
        api: with the token.
        repo_id: of a repository that exists.
        files: what to upload, by the path it has there.
        is_ours: whether a path of the repository is one that we write; such a file is deleted if it is not in `files`.
        message: the commit's, one line.
        repo_type: model or space.
        revision: branch, made if need be, or refs/pr/N; None is main.
        create_pr: propose the commit as a pull request.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if revision is not None and not revision.startswith("refs/"):  # refs/pr/N is there already
        api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
    there = api.list_repo_files(repo_id, repo_type=repo_type, revision=revision)
    stale = [name for name in there if is_ours(name) and name not in files]
    operations: list[Any] = [CommitOperationDelete(name, is_folder=False) for name in stale]
    operations += [CommitOperationAdd(name, content) for name, content in files.items()]
    with warnings.catch_warnings():  # predictions.parquet belongs to the model
        warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
        return api.create_commit(
            repo_id, operations, commit_message=message, repo_type=repo_type, revision=revision, create_pr=create_pr
        )


def check_access(repo_id: str, token: str | bool | None = None) -> None:
    """Raise a BundleError now for what would stop a push later: the name, no token, or one that may not write."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    with pushing(repo_id):
        validate_repo_id(repo_id)
        me = HfApi().whoami(token)
    if me.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise BundleError(f"The token may only read, so {repo_id} cannot be pushed; make one that may write.")
    owners = [me["name"], *(group["name"] for group in me.get("orgs", []))]
    if "/" in repo_id and repo_id.split("/")[0] not in owners:
        raise BundleError(f"The token belongs to {me['name']}, which cannot push {repo_id}; use {me['name']}/NAME.")


def _members(folder: Path) -> list[Path]:
    """The bundle's files in a folder, and nothing that lies beside them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in paths if _is_ours(path.relative_to(folder).as_posix())]


def _is_ours(name: str) -> bool:
    figure = name.startswith(f"{bundle.FIGURES}/") and not Path(name).name.startswith(".")
    return figure or name in FILES


def _download_refusal(error: Exception, repo_id: str, revision: str | None) -> BundleError | StorageError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return BundleError(
            f"{repo_id} is open only to people whom its owner admits; ask for access on its page, then {LOGIN}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return BundleError(f"{repo_id} has no revision {revision}; name a branch, a tag or a commit that it has.")
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return BundleError(
            f"There is no folder {repo_id}, and no such model was found on the Hub; check the name, and for a private "
            f"model {LOGIN}."
        )
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code == 401:
        return BundleError(f"The Hub does not know the token that was sent for {repo_id}; {LOGIN} that is valid.")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return BundleError(
            f"There is no folder {repo_id}, the cache has no complete copy of this model, and the Hub cannot be "
            "reached; check the name and the connection."
        )
    if isinstance(error, OSError) and error.errno in LOCAL_FAULTS:
        return StorageError(f"{repo_id} cannot be kept in the cache ({error.strerror}); free space or set HF_HOME.")
    return BundleError(f"{repo_id} did not arrive complete from the Hub ({_reason(error)}); load it again.")


def _push_refusal(error: Exception, repo_id: str, mend: str) -> BundleError | StorageError:
    from huggingface_hub import errors

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, errors.HFValidationError):
        return BundleError(f"{repo_id!r} is not a valid name on the Hub ({first_line(error)}); give OWNER/NAME.")
    if isinstance(error, errors.LocalTokenNotFoundError) or status == 401:
        return BundleError(f"{repo_id} cannot be pushed without a valid token; {LOGIN} that may write.")
    if status == 402:
        return BundleError(
            f"The Hub requires payment for {repo_id} ({_reason(error)}); subscribe, or make the Space on its page with "
            "hardware that you pay for and push again."
        )
    if status in (403, 404):
        return BundleError(
            f"The token may not write to {repo_id} ({_reason(error)}); use the owner's, with write role."
        )
    if type(error) is ValueError and "README.md" in str(error):
        return BundleError(f"The Hub refuses the card of {repo_id} ({' '.join(str(error).split())}); {mend}.")
    return StorageError(
        f"The push to {repo_id} failed ({_reason(error)}); try again: what has arrived is not sent twice."
    )


def _reason(error: BaseException) -> str:
    """The Hub's own words, or the kind of the innermost error and its first line."""
    while isinstance(error, RuntimeError) and error.__cause__:
        error = error.__cause__
    return getattr(error, "server_message", None) or f"{type(error).__name__}: {first_line(error)}"
