"""Attacks: files that would run code, read other files or fill the memory, and repositories that write elsewhere."""

from __future__ import annotations

import copy
import io
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hub import BundleError, bundle, safety
from hub.bundle import DEFAULT
from hub.config import config_of, make_config
from hub.formats.keras import NEWER, load, make_portable, portable
from tests.hub_server import File, HubServer, Refusal, Repo

ROOT = Path(__file__).parents[2]
STOCK = safety.keras_config(DEFAULT / bundle.KERAS)  # of a real model, which passes
pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


def weights(fill: Callable[[h5py.File], object] | None = None) -> bytes:
    """An HDF5 file as Keras lays it out, with one kernel; `fill` may add to it."""
    with h5py.File(io.BytesIO(), "w") as file:
        file["layers/dense/vars/0"] = np.ones((3, 2), np.float32)
        if fill:
            fill(file)
        file.flush()
        return file.id.get_file_image()


def members(config: dict = STOCK, **more: bytes) -> dict[str, bytes]:
    """What a model.keras is made of; `more` adds or replaces members."""
    plain = {"metadata.json": b"{}", "config.json": json.dumps(config).encode(), "model.weights.h5": weights()}
    return plain | {name.replace("__", "."): content for name, content in more.items()}


def keras_file(path: Path, content: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> Path:
    """Write members into a zip file, under whatever names they have."""
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def refused(path: Path, *words: str) -> None:
    """Check that a file is refused before Keras sees it, in one sentence with a remedy."""
    with pytest.raises(BundleError) as refusal:
        safety.check_keras(path)
    text = str(refusal.value)
    assert str(path) in text and text.endswith(".") and "; " in text and "\n" not in text, text
    assert all(word in text for word in words), text


def with_layer(entry: dict) -> dict:
    """The real model's config, one layer replaced."""
    config = copy.deepcopy(STOCK)
    config["config"]["layers"][1] = {"name": "rescaling", "inbound_nodes": [], **entry}
    return config


def with_setting(key: str, value: object) -> dict:
    """The real model's config, one setting of its first convolution changed."""
    config = copy.deepcopy(STOCK)
    config["config"]["layers"][2]["config"][key] = value
    return config


# ---- the config


def test_real_models_pass(tmp_path, bundle_2):
    """The embedded one and a new one, as a file and as a folder among other libraries' keys and files."""
    for source in (DEFAULT, bundle_2):
        safety.check_keras(source / bundle.KERAS)
        folder = tmp_path / source.name
        (folder / "onnx").mkdir(parents=True)
        with zipfile.ZipFile(source / bundle.KERAS) as archive:
            archive.extractall(folder)
        ours = json.loads((source / bundle.CONFIG).read_text(encoding="utf-8"))
        theirs = json.loads((folder / bundle.CONFIG).read_text(encoding="utf-8"))
        (folder / bundle.CONFIG).write_text(json.dumps({**ours, "architectures": ["Some"], **theirs}))
        (folder / "README.md").write_text("# A model")
        safety.check_keras(folder)
    safety.check_keras(keras_file(tmp_path / "model.keras", members()))  # and what the attacks below start from


def test_a_lambda_layer_does_not_run(tmp_path):
    """Loaded without the guards it would have written a file."""
    import keras

    sentinel, path = tmp_path / "written", tmp_path / "model.keras"
    image = keras.Input((2,))
    code = f"lambda x: (open({str(sentinel)!r}, 'w').close(), x)[1]"
    keras.Model(image, keras.layers.Lambda(eval(code), name="innocent")(image)).save(path)
    sentinel.unlink()
    keras.saving.load_model(path, safe_mode=False)
    assert sentinel.exists()

    sentinel.unlink()
    refused(path, 'holds a Lambda layer ("innocent"), which can run code')
    with pytest.raises(BundleError, match="Lambda"):
        load(path)
    assert not sentinel.exists()


def test_a_class_registered_here_does_not_run(tmp_path):
    """Keras's safe mode builds any class that this process has registered; here only stock ones are built."""
    import keras

    built = []

    @keras.saving.register_keras_serializable("attack", "Mine")
    class Mine(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            built.append(self)

        def call(self, x):
            return x

    path = tmp_path / "model.keras"
    image = keras.Input((2,))
    keras.Model(image, Mine(name="innocent")(image)).save(path)
    keras.saving.load_model(path, safe_mode=True)
    assert len(built) == 2
    refused(path, 'the class "attack>Mine" ("innocent")')
    with pytest.raises(BundleError):
        load(path)
    assert len(built) == 2


DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 2}, "registered_name": None}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({**DENSE, "class_name": "Lambda", "name": "fun"}, 'a Lambda layer ("fun"), which can run code'),
        (
            {"class_name": "Lambda", "config": {}},
            'a Lambda layer ("rescaling"), which can run code',
        ),  # as older files name it
        ({**DENSE, "class_name": "TFSMLayer", "config": {"filepath": "/x"}}, "a TFSMLayer layer"),
        ({**DENSE, "class_name": "TorchModuleWrapper"}, "unpickles"),
        ({**DENSE, "class_name": "JaxLayer"}, "a JaxLayer layer"),
        ({**DENSE, "class_name": "FlaxLayer"}, "a FlaxLayer layer"),
        ({**DENSE, "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}, "can read other files"),
        ({**DENSE, "class_name": "TextVectorization"}, "can read other files"),
        ({**DENSE, "class_name": "deserialize"}, "keras.layers.deserialize"),
        ({**DENSE, "class_name": "Pipeline"}, "keras.layers.Pipeline"),
        ({**DENSE, "module": "keras.src.layers.core.lambda_layer", "class_name": "Lambda"}, "a Lambda layer"),
        ({**DENSE, "module": "keras.utils", "class_name": "get_file"}, "keras.utils.get_file"),
        ({**DENSE, "module": "keras.src.ops.core", "class_name": "Map"}, "keras.src.ops.core.Map"),
        ({**DENSE, "module": "os", "class_name": "system", "config": "id"}, "os.system"),
        ({**DENSE, "module": "my_package"}, "my_package.Dense"),
        ({**DENSE, "module": None}, "None.Dense"),
        ({**DENSE, "module": ["keras.layers"]}, "Dense"),
        ({**DENSE, "class_name": ["Dense"]}, "Dense"),
        ({**DENSE, "class_name": "Mine\nBREAK"}, "Mine\\nBREAK"),
        ({**DENSE, "registered_name": "attack>Dense"}, "attack>Dense"),
        ({**DENSE, "registered_name": {"attack": 1}}, "keras.layers.Dense"),
        (
            {"class_name": "__lambda__", "config": {"value": "4wEA"}},
            'a __lambda__ entry ("rescaling"), which can run code',
        ),
        ({"class_name": "__typespec__", "config": [], "spec_name": "x"}, "__typespec__"),
        ({**DENSE, "module": "builtins", "class_name": "function", "config": "eval"}, "can call any function"),
        ({**DENSE, "compile_config": {"optimizer": {**DENSE, "module": "attack"}}}, "attack.Dense"),
        ({**DENSE, "build_config": {"shape": {"class_name": "Lambda", "config": {}}}}, "Lambda"),
        ({**DENSE, "inbound_nodes": [{"kwargs": {"mask": {**DENSE, "module": "attack"}}}]}, "attack.Dense"),
    ],
)
def test_only_stock_objects_are_built(entry, words, tmp_path):
    """Whatever runs code, reads files or is somebody's own is named, wherever in the config it stands."""
    refused(keras_file(tmp_path / "model.keras", members(with_layer(entry))), words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("activation", "attack>mine", 'its activation "attack>mine"'),
        ("activation", {"class_name": "function", "module": "builtins", "config": "relu"}, "can call any function"),
        ("activation", {**DENSE, "module": "attack"}, "attack.Dense"),
        ("kernel_initializer", "attack>mine", "its initializer"),
        ("kernel_regularizer", "mine", "its regularizer"),
        ("bias_constraint", "mine", "its constraint"),
        ("quantization_config", {**DENSE, "module": "keras.quantizers", "class_name": "X"}, "keras.quantizers.X"),
        ("filters", 10**12, '"filters" 1e+12'),
        ("kernel_size", [3, 10**9], '"kernel_size" 1e+09'),
        ("bias", {"class_name": "__numpy__", "config": {"value": [1], "dtype": "object"}}, "not of numbers"),
        ("bias", {"class_name": "__tensor__", "config": {"value": [1], "dtype": ["f"]}}, "not of numbers"),
    ],
)
def test_settings_are_stock_and_of_human_size(key, value, words, tmp_path):
    """A word that Keras would look up among registered functions, an array of objects, a layer of 4 TB."""
    refused(keras_file(tmp_path / "model.keras", members(with_setting(key, value))), words)


def test_words_of_older_files_pass(tmp_path):
    """Keras writes plain names for its own activations, and people write them for initializers."""
    for key, value in {"activation": "relu6", "kernel_initializer": "he_normal", "kernel_regularizer": "l1_l2"}.items():
        safety.check_keras(keras_file(tmp_path / "model.keras", members(with_setting(key, value))))


def test_the_same_is_refused_in_a_folder(tmp_path):
    """Keras loads a folder too; there the weights may not be a pickled array file."""
    (tmp_path / "config.json").write_text(json.dumps(with_layer({**DENSE, "class_name": "Lambda"})))
    (tmp_path / "model.weights.npz").write_bytes(b"pickle")
    refused(tmp_path, "model.weights.h5")
    (tmp_path / "model.weights.h5").write_bytes(weights())
    refused(tmp_path, "Lambda")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {}}))
    refused(tmp_path, "no Keras model")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe{", b'{"a":' * 50_000])
def test_a_config_that_is_no_object_is_refused(text, tmp_path):
    """Broken, of another kind, or nested until the parser gives up."""
    refused(keras_file(tmp_path / "model.keras", members(config__json=text)), "config.json")


# ---- the zip file


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("assets/vocabulary.txt", "assets/vocabulary.txt"),
        ("model.weights.npz", "model.weights.npz"),
        ("__init__.py", "__init__.py"),
        ("../config.json", "leads out"),
        ("/etc/passwd", "leads out"),
        ("C:\\windows.ini", "leads out"),
        ("assets/../../escape", "leads out"),
    ],
)
def test_only_the_three_members_are_taken(name, words, tmp_path):
    """Keras unpacks the others, and reads arrays of objects from .npz."""
    refused(keras_file(tmp_path / "model.keras", members() | {name: b"x"}), words)


def test_members_that_are_missing_or_there_twice_are_named(tmp_path):
    """Twice could mean one for us and one for Keras."""
    for name in members():
        rest = {other: content for other, content in members().items() if other != name}
        refused(keras_file(tmp_path / "model.keras", rest), f"holds no {name}")
    path = keras_file(tmp_path / "model.keras", members())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", "{}")
    refused(path, "holds config.json twice")


@pytest.mark.parametrize(("name", "size"), [("config.json", 17 * 2**20), ("model.weights.h5", 8 * 2**20)])
def test_what_unpacks_to_far_more_is_refused(name, size, tmp_path):
    """A small file with much in it, by what it declares; nothing of it is unpacked."""
    path = keras_file(tmp_path / "model.keras", members() | {name: bytes(size)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 400_000
    refused(path, f"declares {size:,} bytes for {name}")


def test_odd_zip_files_are_refused(tmp_path):
    """Encrypted, packed by a rare method, cut short, changed, with a list of members as long as memory."""
    whole = keras_file(tmp_path / "model.keras", members()).read_bytes()
    path = tmp_path / "odd.keras"
    refused(keras_file(path, members(), zipfile.ZIP_BZIP2), "unusual")
    listed = whole.index(b"PK\1\2")
    path.write_bytes(whole[: listed + 8] + b"\1" + whole[listed + 9 :])
    refused(path, "encrypted")
    for broken in (b"", b"no zip file", whole[:-1], whole[: len(whole) // 2], whole + bytes(100)):
        path.write_bytes(broken)
        refused(path, "zip file")
    path.write_bytes(whole.replace(b"metadata.json", b"metadata\0json"))
    refused(path, "leads out")
    place = whole.index(b'"Functional"')
    path.write_bytes(whole[:place] + b'"functional"' + whole[place + 12 :])
    refused(path, "broken zip file")
    for entries, length in ((60_000, 1000), (3, 2**31)):
        path.write_bytes(whole[:-12] + struct.pack("<HI", entries, length) + whole[-6:])
        refused(path, "not a complete zip file")
    path.write_bytes(whole[:-22] + b"PK\6\7" + bytes(16) + whole[-22:])
    refused(path, "not a complete zip file")


# ---- the weights


def secret(folder: Path) -> Path:
    """A file that is none of the model's business: an array outside of it."""
    with h5py.File(folder / "secret.h5", "w") as file:
        file["key"] = np.array([7.0])
    return folder / "secret.h5"


def test_weights_do_not_read_other_files(tmp_path):
    """Four ways in which HDF5 hands out what lies elsewhere; each works until it is refused."""
    path, elsewhere = tmp_path / "model.keras", secret(tmp_path)
    raw = tmp_path / "secret.bin"
    raw.write_bytes(np.array([7.0]).tobytes())

    def external_link(file: h5py.File) -> None:
        file["attack"] = h5py.ExternalLink(str(elsewhere), "/key")

    def external_array(file: h5py.File) -> None:
        file.create_dataset("attack", (1,), "f8", external=[(str(raw), 0, 8)])

    def virtual_array(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((1,), "f8")
        layout[:] = h5py.VirtualSource(str(elsewhere), "key", (1,))
        file.create_virtual_dataset("attack", layout)

    def group_link(file: h5py.File) -> None:
        file["layers/more"] = h5py.ExternalLink(str(elsewhere), "/")
        file["attack"] = h5py.SoftLink("/layers/more/key")

    for fill in (external_link, external_array, virtual_array, group_link):
        content = weights(fill)
        (tmp_path / "live.h5").write_bytes(content)
        with h5py.File(tmp_path / "live.h5") as file:
            assert file["attack"][0] == 7.0  # so it is a real attack
        keras_file(path, members(model__weights__h5=content))
        refused(path, "elsewhere" if "link" in fill.__name__ else "another file")


def test_weights_are_no_larger_than_their_file(tmp_path):
    """100 GB declared in a few kilobytes, the same array under many names, groups in a ring."""
    path = tmp_path / "model.keras"
    huge = weights(lambda file: file.create_dataset("attack", (25_000_000_000,), "f4", chunks=True))
    with h5py.File(io.BytesIO(huge)) as file:
        assert file["attack"].nbytes == 10**11 and len(huge) < 20_000
    refused(keras_file(path, members(model__weights__h5=huge)), '"/attack"', "declares more")

    def names(file: h5py.File) -> None:
        file["one"] = np.ones(1000)
        for number in range(10):
            file[f"again{number}"] = file["one"]

    refused(keras_file(path, members(model__weights__h5=weights(names))), "declares more")

    def ring(file: h5py.File) -> None:
        file["layers/dense/round"] = file["layers"]

    refused(keras_file(path, members(model__weights__h5=weights(ring))), "there twice")


def test_weights_are_numbers(tmp_path):
    """Texts, references and records are no weights; a cut file is no file."""
    pair = np.zeros(2, [("a", "f4"), ("b", "f4")])
    for value in (["text"] * 3, h5py.Empty(h5py.ref_dtype), pair, np.dtype("f8")):
        content = weights(lambda file, value=value: file.__setitem__("attack", value))
        refused(keras_file(tmp_path / "model.keras", members(model__weights__h5=content)), "not an array of numbers")
    for broken in (b"", b"no HDF5", weights()[:900]):
        refused(keras_file(tmp_path / "model.keras", members(model__weights__h5=broken)), "broken weights")


# ---- plain files


def test_files_are_not_read_beyond_their_size(tmp_path):
    """Sparse files, so the test takes no disk; a config that large would take gigabytes as Python objects."""
    for name, size in {"config.json": 16 * 2**20, "metrics.json": 16 * 2**20, "model.onnx": 2**31}.items():
        with open(tmp_path / name, "wb") as file:
            file.truncate(size + 1)
        with pytest.raises(BundleError, match=f"{size + 1:,} bytes, more than the {size:,}"):
            bundle.read_bytes(tmp_path, name)
    (tmp_path / "config.json").write_text("{}")
    assert bundle.read_json(tmp_path, "config.json") == {}


@pipes
def test_pipes_devices_and_folders_are_no_files(tmp_path):
    """Reading a pipe would wait for ever, reading a device never end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("pipe", "folder.keras", "device"):
        with pytest.raises(BundleError, match="not a plain file"):
            bundle.read_bytes(tmp_path, name)
    refused(tmp_path / "pipe", "not a plain file")
    (tmp_path / "config.json").write_text(json.dumps(STOCK))
    os.mkfifo(tmp_path / "model.weights.h5")
    with pytest.raises(BundleError, match=r"model\.weights\.h5 .*not a plain file"):
        safety.check_keras(tmp_path)


def test_a_config_that_names_code_is_refused():
    """Transformers would load a repository's own Python by auto_map, if it were told to."""
    config = make_config(["cat", "dog"], 32, (4, 4)).to_json()
    assert config_of(config, "The config").to_json() == config
    with pytest.raises(BundleError, match="auto_map, which names code"):
        config_of({**config, "auto_map": {"AutoModel": "evil.Model"}}, "The config")


def test_nothing_here_asks_for_unsafe_loading():
    """The switches that would undo the guards stand nowhere in the package."""
    unsafe = r"trust_remote_code\s*=\s*True|allow_pickle\s*=\s*True|safe_mode\s*=\s*False|import pickle|weights_only"
    found = [path.name for path in (ROOT / "hub").rglob("*.py") if re.search(unsafe, path.read_text(encoding="utf-8"))]
    assert found == []


# ---- a repository of the Hub


@pytest.mark.parametrize("name", ["../x", "figures/../../x", "/x", "a\\..\\x", "C:x", "a//b", "./x", "a/", "a\nb"])
def test_names_that_lead_out_are_known(name):
    """On Linux and on Windows."""
    assert safety.climbs(name)
    assert not safety.climbs("figures/roc curve.png") and not safety.climbs("onnx/model.onnx")


DOWNLOADS = """
import json, sys
from huggingface_hub import snapshot_download
from hub import remote

def unguarded(repo, files, **options):
    return snapshot_download(repo, allow_patterns=files, **options)

cache, *repos = sys.argv[1:]
for repo in repos:
    for ask in (remote.download, unguarded, remote.download):
        try:
            answer = str(ask(repo, files=remote.WHOLE, cache_dir=cache))
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)
"""


class OddHub(HubServer):
    """A Hub where one model changes right after its list was looked at, and some lists are not given."""

    def info(self, name, repo, revision, sizes=False):
        """See `HubServer.info`."""
        asked = sum(line == f"GET /api/models/{name}" for line in self.log)
        if sizes and (name.endswith("listless") or (name.endswith("flaky") and asked > 1)):
            raise Refusal(500, "", "This was asked to fail")
        answer = super().info(name, repo, revision, sizes)
        if sizes and name.endswith("changing"):
            repo.add("main", "other files", {"config.json": self.store(b'{"other": 1}')})
        return answer


def test_repositories_are_looked_at_before_anything_is_fetched(tmp_path):
    """Names that lead out, 5 GB, a change in between, no list: one sentence, and no file outside the cache."""
    outside = tmp_path / "deep" / "er"
    with OddHub() as hub:
        attacks = {
            "climbing": {"figures/../../../../../../escape.png": hub.store(b"escaped")},
            "windows": {"figures\\..\\..\\escape.png": hub.store(b"escaped")},
            "huge": {"model.keras": File(5 * 10**9, "0" * 40, "1" * 64)},
            "changing": {},
            "listless": {},
            "flaky": {},
        }
        for name, files in attacks.items():
            hub.repos[f"tester/{name}"] = Repo()
            hub.repos[f"tester/{name}"].add("main", "files", {"config.json": hub.store(b"{}"), **files})
        environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(outside / "home"), "NO_PROXY": "127.0.0.1"}
        environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", DOWNLOADS, str(outside / "cache"), *hub.repos],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    ours, unguarded, again = (dict(zip(attacks, lines[start::3], strict=True)) for start in range(3))
    assert "BundleError: tester/climbing has a file 'figures/../" in ours["climbing"]
    assert "leads out of its folder" in ours["windows"]
    assert "5.0 GB to download, more than the 4 GB" in ours["huge"]
    assert "tester/changing was changed while it was loaded; load it again." in ours["changing"]
    assert ours["listless"].startswith("BundleError: tester/listless did not arrive")
    assert Path(unguarded["listless"], "config.json").read_text() == "{}"  # it would have been taken unseen
    assert Path(ours["flaky"], "config.json").read_text() == "{}"
    assert again["flaky"] == ours["flaky"]  # from the cache, as the client does when the Hub has trouble
    assert not Path(unguarded["climbing"]).is_dir()  # the client refuses this one itself, later and in other words
    fetched = [hub.log.index(line) for line in hub.log if line.startswith("GET /tester/huge/resolve/")]
    unseen = hub.log.index("GET /api/models/tester/huge/revision/main")  # which is how the unguarded client begins
    assert fetched and hub.log.index("GET /api/models/tester/huge") < unseen < min(fetched)
    assert not list(tmp_path.rglob("escape*"))
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in outside.iterdir()} <= {"home", "cache"}


# ---- files that older versions of Keras load


def test_portable_configs_keep_what_says_something():
    """Only entries at the value that older versions imply are dropped, only in Keras's own objects."""
    import keras

    layers = [keras.layers.BatchNormalization(renorm=renorm, name="bn") for renorm in (False, True)]
    initializers = [keras.initializers.GlorotUniform(seed=1), keras.initializers.HeNormal(output_axes=[1])]
    saved = json.loads(json.dumps([keras.saving.serialize_keras_object(item) for item in [*layers, *initializers]]))
    assert all(NEWER.keys() & item["config"].keys() for item in saved)
    plain = [portable(item) for item in saved]
    kept = [NEWER.keys() & item["config"].keys() for item in plain]
    assert kept == [set(), {"renorm", "renorm_clipping"}, set(), {"output_axes"}]
    for before, after in zip(saved, plain, strict=True):
        again = keras.saving.deserialize_keras_object(after)
        assert json.loads(json.dumps(keras.saving.serialize_keras_object(again)))["config"] == before["config"]
    foreign = {"quantization_config": None, "renorm": False, "config": {"renorm": False}}
    assert portable(foreign) == foreign


def test_a_file_is_made_portable_once_and_always_alike(tmp_path, model_2, photos):
    """Its config loses what older versions do not know; the rest stays byte for byte, and so do the answers."""
    import keras

    model_2.save(tmp_path / "old.keras")
    with zipfile.ZipFile(tmp_path / "old.keras") as archive:
        before = {name: archive.read(name) for name in archive.namelist()}
    assert b"input_axes" in before["config.json"] and b"renorm" in before["config.json"]
    path, again = keras_file(tmp_path / "model.keras", before), keras_file(tmp_path / "again.keras", before)
    make_portable(path)
    with zipfile.ZipFile(path) as archive:
        after = {name: archive.read(name) for name in archive.namelist()}
    assert list(after) == list(before)
    assert {name for name in after if after[name] != before[name]} == {"config.json"}
    assert not any(f'"{key}"'.encode() in after["config.json"] for key in NEWER)

    os.utime(again, (0, 0))
    make_portable(again)
    assert again.read_bytes() == path.read_bytes()
    made = again.stat()
    make_portable(again)
    assert (again.stat().st_ino, again.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["again.keras", "model.keras", "old.keras"]
    answer = keras.saving.load_model(path)(photos[:4].astype(np.float32))["logits"]
    np.testing.assert_array_equal(answer, model_2(photos[:4].astype(np.float32))["logits"])


@pytest.mark.parametrize(
    ("label", "fault"),
    [
        ("گربه\u200cها", None), ("chien\xa0!", None), ("👩\u200d👧", None), ("❤\ufe0f", None), ("\u200fa", None),
        ("a\nb", "line break"), ("a\x85b", "line break"), ("a\u2028b", "line break"), ("\ud800a", "not text"),
        ("a\u202eb", "direction"), ("a\u2067b", "direction"), ("\u200d\u200d", "no visible sign"),
    ],
)  # fmt: skip
def test_labels_may_hold_signs_of_languages_and_none_that_break_or_turn_a_line(label, fault):
    config = {**make_config(["one", "other"], 32, None).to_json(), "id2label": {"0": label, "1": "other"}}
    if fault is None:
        assert config_of(config, "The config").labels == (label, "other")
    else:
        with pytest.raises(BundleError, match=f"has a label with .*{fault}"):
            config_of(config, "The config")


def test_two_labels_that_differ_by_how_an_accent_is_stored_are_the_same_name():
    with pytest.raises(BundleError, match="gives two labels the same name"):
        make_config(["caf\xe9", "cafe\u0301"], 32, None)
