"""Pushing to and loading from a Hub, with the unmodified client in processes of their own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hub import bundle
from hub.config import make_config
from hub.errors import BundleError
from tests.hub_server import Fault, HubServer, Refusal

ROOT = Path(__file__).parents[2]
SIZE = 32
# The client reads its environment when it is imported, so each environment is a process that answers line by line.
WORKER = """
import json, sys
from pathlib import Path
from hub import ImageClassifier, remote

def push(folder, repo, **options):
    return remote.push(Path(folder), repo, **options)

def pull(repo, **options):
    classifier = ImageClassifier.from_pretrained(repo, **options)
    return str(classifier.folder), classifier.labels

def whole(repo, **options):
    return str(remote.download(repo, files=remote.WHOLE, **options))

def one(repo, name, **options):
    from huggingface_hub import hf_hub_download
    return hf_hub_download(repo, name, **options)

def access(repo, **options):
    return remote.check_access(repo, **options)

print("ready", flush=True)
for line in sys.stdin:
    call, arguments, options = json.loads(line)
    try:
        answer = {"value": globals()[call](*arguments, **options)}
    except (OSError, ValueError) as error:
        answer = {"kind": type(error).__name__, "error": str(error)}
    print(json.dumps(answer), flush=True)
"""


class Refused(Exception):
    """What the other process raised: the class and its message."""


class Client:
    """Another process that pushes and pulls; its cache is its own."""

    def __init__(self, hub: HubServer, home: Path, **environment: str):
        kept = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH") if key in os.environ}
        given = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "HF_TOKEN": "hf_writer"}
        given |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], cwd=ROOT, env=kept | given | environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def start(self, call: str, *arguments, **options) -> None:
        """Ask, without waiting for the answer."""
        self.process.stdin.write(json.dumps([call, [str(item) for item in arguments], options]) + "\n")
        self.process.stdin.flush()

    def __call__(self, call: str, *arguments, **options):
        """Ask, and return or raise what came of it."""
        self.start(call, *arguments, **options)
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise Refused(f"{answer['kind']}: {answer['error']}")
        return answer["value"]

    def stop(self) -> None:
        """End the process at once, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub that offers both ways of storing large files."""
    with HubServer(xet=tmp_path_factory.mktemp("content")) as server:
        yield server


@pytest.fixture(scope="module")
def lfs(hub, tmp_path_factory):
    """A client that moves large files by LFS."""
    client = Client(hub, tmp_path_factory.mktemp("lfs"), HF_HUB_DISABLE_XET="1")
    yield client
    client.stop()


@pytest.fixture(scope="module")
def xet(hub, tmp_path_factory):
    """A client as it comes, which moves large files by Xet."""
    client = Client(hub, tmp_path_factory.mktemp("xet"))
    yield client
    client.stop()


@pytest.fixture
def client(request):
    """The client that a test's parameter names."""
    return request.getfixturevalue(request.param)


BOTH_WAYS = pytest.mark.parametrize("client", ["lfs", "xet"], indirect=True)


@pytest.fixture
def repo(request, hub):
    """A name that no other test uses; the Hub's log is empty and nothing is to fail."""
    hub.log.clear()
    hub.faults.clear()
    hub.half_way.clear()
    return "tester/" + re.sub(r"\W+", "-", request.node.name).strip("-").removeprefix("test_")[:60]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A whole bundle, made without TensorFlow: its ONNX answers, and its model.keras is only carried."""
    folder = tmp_path / "bundle"
    (folder / "onnx").mkdir(parents=True)
    (folder / "figures").mkdir()
    (folder / bundle.ONNX).write_bytes(evidence_model())
    seed = int.from_bytes(hashlib.sha256(str(tmp_path).encode()).digest()[:4])  # other bytes in every test
    (folder / bundle.KERAS).write_bytes(np.random.default_rng(seed).bytes(400_000))
    bundle.write_json(folder, bundle.CONFIG, make_config(["cat", "dog"], SIZE, (4, 4)).to_json())
    bundle.write_json(folder, bundle.METRICS, {"test": {"photos": 7}})
    bundle.write_json(folder, bundle.AGREEMENT, {"photos": 7})
    (folder / bundle.PREDICTIONS).write_bytes(b"PAR1" + bytes(100))
    (folder / bundle.FIGURES / "roc.png").write_bytes(b"\x89PNG" + bytes(50))
    (folder / bundle.CARD).write_text("---\nlicense: apache-2.0\n---\n# Cats or dogs\n", encoding="utf-8")
    (folder / "figures" / ".hidden").write_text("no part of a bundle")
    (folder / "notes.txt").write_text("no part of a bundle")
    return folder


def evidence_model() -> bytes:
    """An ONNX graph of the bundle's contract: 8 x 8 means of the colours, a 1 x 1 convolution, a mean."""
    kernel = np.random.default_rng(0).normal(size=(2, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["pixel_values"], ["colours"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["colours", "kernel"], ["channels"]),
        helper.make_node("Transpose", ["channels"], ["evidence"], perm=[0, 2, 3, 1]),
        helper.make_node("ReduceMean", ["evidence", "axes"], ["logits"], keepdims=0),
    ]
    shapes = {"pixel_values": ["batch", 3, SIZE, SIZE], "logits": ["batch", 2], "evidence": ["batch", 4, 4, 2]}
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    constants = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(np.array([1, 2]), "axes")]
    outputs = [infos["logits"], infos["evidence"]]
    graph = helper.make_graph(nodes, "evidence", [infos["pixel_values"]], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def contents(folder: Path | str) -> dict[str, bytes]:
    """What a folder holds, by path."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def published(folder: Path) -> dict[str, bytes]:
    """What of a folder belongs in a repository."""
    strangers = {"notes.txt", "figures/.hidden"}
    return {name: content for name, content in contents(folder).items() if name not in strangers}


@BOTH_WAYS
def test_what_is_pulled_is_what_was_pushed(client, hub, folder, repo, tmp_path):
    """Every byte, in one commit; loading takes only what answering needs."""
    url = client("push", folder, repo, commit_message="Seven photos")
    commits = list(hub.repos[repo].commits.values())
    assert [commit.message for commit in commits] == ["initial commit", "Seven photos"]
    assert url == f"{hub.url}/{repo}/commit/{commits[-1].oid}"
    assert commits[-1].files.keys() == published(folder).keys() | {".gitattributes"}

    loaded, labels = client("pull", repo, cache_dir=str(tmp_path / "cache"))
    assert labels == ["cat", "dog"]
    assert contents(loaded) == {name: published(folder)[name] for name in (bundle.CONFIG, bundle.ONNX)}
    assert contents(client("whole", repo, cache_dir=str(tmp_path / "cache"))) == published(folder)


def test_each_client_took_its_own_way(lfs, xet, hub, folder, repo):
    """With HF_HUB_DISABLE_XET large files are PUT; without, the server sees none of their bytes."""
    lfs("push", folder, f"{repo}-lfs")
    assert sum(line.startswith("PUT /lfs/") for line in hub.log) >= 1
    assert not any("xet" in line for line in hub.log)
    (folder / bundle.KERAS).write_bytes(os.urandom(300_000))
    hub.log.clear()
    xet("push", folder, repo)
    xet("whole", repo)
    assert not any(line.startswith("PUT") for line in hub.log)
    assert any("xet-write-token" in line for line in hub.log)
    assert any("xet-read-token" in line for line in hub.log)


@BOTH_WAYS
def test_a_single_file_is_to_be_had_without_this_package(client, folder, repo):
    """As the card's programs for other libraries fetch it."""
    client("push", folder, repo)
    assert Path(client("one", repo, bundle.KERAS)).read_bytes() == (folder / bundle.KERAS).read_bytes()


@BOTH_WAYS
def test_a_second_push_sends_only_what_changed(client, hub, folder, repo):
    """Nothing new: no bytes and no commit. One file changed: one more commit, with one file gone that went away."""
    first = client("push", folder, repo)
    hub.log.clear()
    stored = contents(hub.xet / "xet" / "xorbs" / "xorbs") if hub.xet.exists() else {}
    assert client("push", folder, repo) == first
    assert not any(line.startswith("PUT") or "/commit/" in line for line in hub.log)

    bundle.write_json(folder, bundle.METRICS, {"test": {"photos": 8}})
    (folder / "figures" / "roc.png").unlink()
    assert client("push", folder, repo) != first
    assert not any(line.startswith("PUT") for line in hub.log)
    sent = [line for line in hub.log if not line.split()[1].startswith("/")]
    assert sent == ["deletedFile figures/roc.png", "file metrics.json"]
    assert len(hub.repos[repo].commits) == 3
    assert stored == contents(hub.xet / "xet" / "xorbs" / "xorbs")
    assert contents(client("whole", repo)) == published(folder)


def test_branches_tags_commits_and_pull_requests(lfs, hub, folder, repo):
    """revision names where to push and what to load; a pull request leaves main alone."""
    main = lfs("push", folder, repo).rsplit("/")[-1]
    bundle.write_json(folder, bundle.CONFIG, make_config(["hen", "pig"], SIZE, (4, 4)).to_json())
    branch = lfs("push", folder, repo, revision="farm").rsplit("/")[-1]
    assert hub.repos[repo].refs == {"main": main, "farm": branch}
    hub.new_ref(hub.repos[repo], "v1", main)
    for revision, labels in {None: ["cat", "dog"], "farm": ["hen", "pig"], "v1": ["cat", "dog"]}.items():
        assert lfs("pull", repo, revision=revision)[1] == labels
    assert lfs("pull", repo, revision=branch)[1] == ["hen", "pig"]

    assert lfs("push", folder, repo, create_pr=True) == f"{hub.url}/{repo}/discussions/1"
    assert hub.repos[repo].refs["main"] == main
    assert lfs("pull", repo, revision="refs/pr/1")[1] == ["hen", "pig"]
    lfs("push", folder, repo, revision="refs/pr/1")
    assert len(hub.repos[repo].commits) == 4
    with pytest.raises(Refused, match="BundleError: A pull request goes to main"):
        lfs("push", folder, repo, create_pr=True, revision="farm")


def test_private_is_private(lfs, hub, folder, repo, tmp_path):
    """Without a token it is not there, and the sentence says how to log in; with one it loads."""
    lfs("push", folder, repo, private=True)
    assert hub.repos[repo].private
    for token, words in {False: "HF_TOKEN", "hf_of_nobody": "does not know the token"}.items():
        with pytest.raises(Refused) as refusal:
            lfs("pull", repo, token=token, cache_dir=str(tmp_path))
        one_sentence(refusal, "BundleError", repo, words, "hf auth login")
    assert lfs("pull", repo, token="hf_reader", cache_dir=str(tmp_path))


def test_what_does_not_exist_is_one_sentence(lfs, folder, repo):
    """An unknown repository, revision or file."""
    with pytest.raises(Refused) as refusal:
        lfs("pull", repo)
    one_sentence(refusal, "BundleError", repo, "no such model")
    lfs("push", folder, repo)
    for revision in ("v9", "0123456789" * 4):
        with pytest.raises(Refused) as refusal:
            lfs("pull", repo, revision=revision)
        one_sentence(refusal, "BundleError", repo, f"no revision {revision}")


def test_pushing_where_one_may_not_is_one_sentence(lfs, hub, folder, repo):
    """No token, a token that only reads, another owner, a name or a card that the Hub does not take."""
    refusals = [
        ("push", (folder, repo), {"token": False}, "without a valid token"),
        ("push", (folder, repo), {"token": "hf_of_nobody"}, "without a valid token"),
        ("push", (folder, repo), {"token": "hf_reader"}, "may not write"),
        ("push", (folder, "someone/else"), {}, "someone/else"),
        ("push", (folder, "no one/a b"), {}, "not a valid name on the Hub"),
        ("access", (repo,), {"token": "hf_of_nobody"}, "without a valid token"),
        ("access", (repo,), {"token": "hf_reader"}, "only read"),
        ("access", ("someone/else",), {}, "tester/NAME"),
        ("access", ("a/b/c",), {}, "not a valid name on the Hub"),
    ]
    for call, arguments, options, words in refusals:
        with pytest.raises(Refused) as refusal:
            lfs(call, *arguments, **options)
        one_sentence(refusal, "BundleError", words)
    assert not hub.repos.keys() & {repo, "someone/else"}
    assert lfs("access", repo) is None

    (folder / bundle.CARD).write_text("---\nlicense: [\n---\n")
    with pytest.raises(Refused) as refusal:
        lfs("push", folder, repo)
    one_sentence(refusal, "BundleError", "refuses the card")
    (folder / bundle.CARD).unlink()
    with pytest.raises(Refused) as refusal:
        lfs("push", folder, repo)
    one_sentence(refusal, "BundleError", "has no README.md")
    assert len(hub.repos[repo].commits) == 1


def one_sentence(refusal, kind: str, *words: str) -> None:
    """Check what a user reads."""
    text = str(refusal.value)
    assert text.startswith(f"{kind}: ") and text.endswith(".") and "\n" not in text, text
    assert all(word in text for word in words), text


def test_an_upload_cut_half_way_is_resumed(lfs, hub, folder, repo):
    """The client asks again by itself, and the file arrives whole."""
    hub.faults.append(Fault("PUT", "/lfs/", "cut"))
    lfs("push", folder, repo)
    assert hub.half_way.is_set()
    assert contents(lfs("whole", repo)) == published(folder)


@pytest.mark.parametrize(("where", "without_xet"), [("/lfs/", "1"), ("/commit/", "1"), ("/commit/", "0")])
def test_a_push_that_dies_leaves_the_repository_as_it_was(where, without_xet, hub, lfs, folder, repo, tmp_path):
    """Killed in the middle of a file or of the commit; the next push finishes it."""
    lfs("push", folder, repo)
    before = hub.repos[repo].at("main")
    (folder / bundle.KERAS).write_bytes(os.urandom(400_000))
    bundle.write_json(folder, bundle.METRICS, {"test": {"photos": 9}})
    hub.faults.append(Fault("PUT" if where == "/lfs/" else "POST", where, "hang"))
    dying = Client(hub, tmp_path / "home", HF_HUB_DISABLE_XET=without_xet)
    dying.start("push", folder, repo)
    assert hub.half_way.wait(30)
    dying.stop()
    assert hub.repos[repo].at("main") == before
    lfs("push", folder, repo)
    assert len(hub.repos[repo].commits) == 3
    assert contents(lfs("whole", repo)) == published(folder)


def test_a_push_that_is_refused_half_way_is_one_sentence(lfs, hub, folder, repo):
    """Storage that says no to one file: no commit, and a StorageError that says to try again."""
    hub.faults.append(Fault("PUT", "/lfs/", 410))
    with pytest.raises(Refused) as refusal:
        lfs("push", folder, repo)
    one_sentence(refusal, "StorageError", repo, "try again", "asked to fail")
    assert len(hub.repos[repo].commits) == 1
    lfs("push", folder, repo)
    assert len(hub.repos[repo].commits) == 2


def test_the_hub_keeps_nothing_that_does_not_match_its_hash(hub):
    """The server's own rule, which the tests above lean on."""
    with pytest.raises(Refusal, match="SHA-256"):
        hub.lfs_put(hashlib.sha256(b"sent").hexdigest(), b"arrived")
    with pytest.raises(Refusal, match="not uploaded"):
        hub.large(hashlib.sha256(b"sent").hexdigest(), 4)


def test_a_download_cut_half_way_leaves_nothing_half_written(lfs, hub, folder, repo, tmp_path):
    """Cut once, the client goes on where it stopped; cut for good, nothing of the file stays, and a retry loads it."""
    lfs("push", folder, repo)
    cache = tmp_path / "cache"
    hub.faults += [Fault("GET", bundle.ONNX, "cut"), Fault("GET", bundle.ONNX, 410)]
    with pytest.raises(Refused) as refusal:
        lfs("pull", repo, cache_dir=str(cache))
    one_sentence(refusal, "BundleError", repo, "did not arrive complete", "load it again")
    assert not list(cache.rglob("*.onnx")) and not list(cache.rglob("*.incomplete"))

    hub.faults.append(Fault("GET", bundle.ONNX, "cut"))
    loaded, _ = lfs("pull", repo, cache_dir=str(cache))
    assert not any(fault.times for fault in hub.faults)
    assert (Path(loaded) / bundle.ONNX).read_bytes() == (folder / bundle.ONNX).read_bytes()


@pytest.mark.parametrize("name", [bundle.ONNX, bundle.CONFIG])
def test_bytes_that_do_not_match_their_hash_are_refused(name, lfs, hub, folder, repo, tmp_path):
    """A large and a small file, changed on the way: not loaded, not kept, and right the next time."""
    lfs("push", folder, repo)
    hub.faults.append(Fault("GET", name, "spoil"))
    with pytest.raises(Refused) as refusal:
        lfs("pull", repo, cache_dir=str(tmp_path / "cache"))
    one_sentence(refusal, "BundleError", f"{name} of {repo} does not match its hash")
    loaded, _ = lfs("pull", repo, cache_dir=str(tmp_path / "cache"))
    assert contents(loaded) == {name: published(folder)[name] for name in (bundle.CONFIG, bundle.ONNX)}


def test_a_spoilt_content_store_is_refused(folder, repo, tmp_path):
    """Xet's way as well: nothing changed in the store is loaded or kept, and once mended it loads."""
    with HubServer(xet=tmp_path / "content") as hub:
        pushing, pulling = (Client(hub, tmp_path / name) for name in ("pushing", "pulling"))  # two caches
        try:
            pushing("push", folder, repo)
            pushing.stop()
            (pieces,) = (path for path in hub.xet.rglob("default.*") if path.suffix != ".tagset")
            right = pieces.read_bytes()
            place = right.index((folder / bundle.KERAS).read_bytes()[5000:5100])
            pieces.chmod(0o644)
            pieces.write_bytes(right[:place] + bytes([right[place] ^ 1]) + right[place + 1 :])
            with pytest.raises(Refused) as refusal:
                pulling("whole", repo)
            one_sentence(refusal, "BundleError", f"{bundle.KERAS} of {repo} does not match its hash")
            assert not list((tmp_path / "pulling").rglob("*.keras"))
            pieces.write_bytes(right)
            assert contents(pulling("whole", repo)) == published(folder)
        finally:
            pushing.stop()
            pulling.stop()


def test_offline_loads_what_was_loaded_before(lfs, hub, folder, repo, tmp_path):
    """local_files_only and HF_HUB_OFFLINE ask the Hub nothing; what is not there is one sentence."""
    lfs("push", folder, repo)
    home = tmp_path / "home"
    online, _ = lfs("pull", repo, cache_dir=str(home / "hub"))
    hub.log.clear()
    assert lfs("pull", repo, cache_dir=str(home / "hub"), local_files_only=True)[0] == online
    offline = Client(hub, home, HF_HUB_OFFLINE="1")
    try:
        assert offline("pull", repo)[0] == online
        for missing in ("pull", "whole"):
            with pytest.raises(Refused) as refusal:
                offline(missing, f"{repo}-other" if missing == "pull" else repo)
            one_sentence(refusal, "BundleError", repo, "the Hub cannot be reached")
    finally:
        offline.stop()
    assert hub.log == []


def test_a_classifier_without_a_folder_is_not_pushed():
    """One that was just converted must be saved, and so checked, first."""
    from hub import ImageClassifier
    from hub.formats.onnx import OnnxRunner

    config = make_config(["cat", "dog"], SIZE, (4, 4))
    fresh = ImageClassifier(OnnxRunner(evidence_model(), config, "The graph"), config, name="fresh")
    with pytest.raises(BundleError, match="use save_pretrained"):
        fresh.push_to_hub("tester/fresh")


@pytest.mark.parametrize(
    ("name", "token", "words"),
    [("a/b/c", "hf_writer", "not a valid name on the Hub"), ("tester/new", "", "without a valid token")],
)
def test_training_refuses_a_push_before_it_begins(name, token, words, hub, tmp_path):
    """`fit --push-to` ends with one sentence, before any picture is read."""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-m", "training", "fit", "cats_vs_dogs_mobilenetv2", "--data", str(tmp_path / "none")]
    done = subprocess.run(
        [*command, "--run", str(tmp_path / "run"), "--push-to", name],
        cwd=ROOT, env={**environment, "HF_TOKEN": token}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
