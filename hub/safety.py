"""What a Keras file may hold, looked at before Keras sees it: no code, no other files, no more bytes than there are.

Keras rebuilds a model from names of classes in its config.json, and those have let code through before: lambda layers
(CVE-2024-3660), any importable function by its module's name (CVE-2025-1550), functions of Keras itself that fetch
files (CVE-2025-8747), layers and links in the weights that read other files (CVE-2025-12058, CVE-2026-1669), sizes
that are not there (CVE-2026-0897). Keras's own checks stay on (`safe_mode`), but name what is forbidden; here only
what image models are made of is allowed, by name, and the same names for every version of Keras.
"""

from __future__ import annotations

import io
import json
import locale
import math
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hub.errors import BundleError, first_line

if TYPE_CHECKING:
    import h5py

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
LIMITS = {CONFIG: 16 * 2**20, "metadata.json": 2**20, WEIGHTS: 2**31}  # bytes of the members of a model.keras
PACKED = 4  # weights are numbers that hardly shrink; what unpacks to more than this many times its size is no such
ENTRIES = 100  # names in the zip file that are read so that a stranger can be named
OBJECTS = 100_000  # groups and arrays in the weights; EfficientNet-B7 has some 3,000
NUMBER = 1_000_000  # the largest whole number in a config that is no seed: nobody has as many channels
REMEDY = "use a model made of Keras's own layers only"
AGAIN = "save or download the model again"

# Layers that compute: none of them takes a function, a path or a file.
_LAYERS = """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention
    Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization CenterCrop Concatenate Conv1D
    Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose Cropping1D Cropping2D Cropping3D Dense
    DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU EinsumDense Embedding Flatten GaussianDropout GaussianNoise
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D
    GlobalMaxPooling3D GroupNormalization GroupQueryAttention Identity InputLayer LayerNormalization LeakyReLU
    Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum MultiHeadAttention Multiply Normalization PReLU
    Permute RMSNormalization RandomBrightness RandomContrast RandomCrop RandomFlip RandomRotation RandomTranslation
    RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv1D SeparableConv2D Softmax
    SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization Subtract TimeDistributed
    UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""
_ARITHMETIC = """
    Abs Absolute Add Amax Amin Average BroadcastTo Clip Concatenate Divide Einsum Exp ExpandDims Flip GetItem Log
    Matmul Max Maximum Mean Min Minimum Moveaxis Multiply Negative Pad Power Ravel Reciprocal Reshape Sqrt Square
    Squeeze Stack Std Subtract Sum Swapaxes Tanh Transpose TrueDivide Var
"""
_ACTIVATIONS = """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear
    log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus
    sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold
"""
_INITIALIZERS = """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal LecunUniform Ones
    Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros
"""
_MODELS = "Functional Sequential Model"
# The classes a config may name, by module, as Keras 3.11 to 3.15 write them.
STOCK = {
    module: frozenset(names.split())
    for module, names in {
        "keras": "DTypePolicy Functional Model Sequential",
        "keras.models": _MODELS,
        "keras.src.models.functional": _MODELS,
        "keras.src.models.sequential": _MODELS,
        "keras.layers": _LAYERS,
        "keras.initializers": _INITIALIZERS,
        "keras.regularizers": "L1 L1L2 L2 OrthogonalRegularizer",
        "keras.constraints": "MaxNorm MinMaxNorm NonNeg UnitNorm",
        "keras.dtype_policies": "DTypePolicy",
        "keras.src.ops.numpy": _ARITHMETIC,
        "keras.src.ops.nn": "Elu Gelu HardSigmoid HardSilu LogSoftmax Relu Relu6 Selu Sigmoid Silu Softmax Softplus",
        "keras.src.ops.core": "Cast StopGradient",
        "keras.src.ops.image": "Resize",
        "keras.src.applications.convnext": "LayerScale StochasticDepth",
        "keras.src.applications.inception_resnet_v2": "CustomScaleLayer",
    }.items()
}
# What Keras 2 names without a module.
LEGACY = frozenset().union(
    *(STOCK[f"keras.{kind}"] for kind in ("models", "layers", "initializers", "regularizers", "constraints"))
)
PLAIN = {"__keras_tensor__", "__slice__", "__ellipsis__", "__numpy__", "__tensor__"}  # values, not classes
NUMBERS = ["bool", "bfloat16", *(f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64))]
# Plain words that Keras looks up, by how their key ends: the classes' names, or their older ones.
WORDS = {
    "activation": frozenset(_ACTIVATIONS.split()),
    "initializer": STOCK["keras.initializers"],
    "regularizer": STOCK["keras.regularizers"],
    "constraint": STOCK["keras.constraints"],
}
FAULTS = {
    "Lambda": "can run code", "__lambda__": "can run code", "function": "can call any function",
    "TFSMLayer": "runs a graph from another file", "TorchModuleWrapper": "unpickles, which can run code",
    "JaxLayer": "can run code", "FlaxLayer": "can run code", "StringLookup": "can read other files",
    "IntegerLookup": "can read other files", "TextVectorization": "can read other files",
}  # fmt: skip


def check_keras(path: Path) -> None:
    """Look at a model.keras, or at the folder form of it, before Keras loads it with `compile=False`.

    Args:
        path: the file; or a folder with Keras's keys in config.json (other libraries' beside them) and
            model.weights.h5.

    Raises:
        BundleError: it could run code or read other files, is larger inside than outside, or is broken.
    """
    if path.is_dir():
        try:
            text, size = read_limited(path / CONFIG, LIMITS[CONFIG]), regular_size(path / WEIGHTS, LIMITS[WEIGHTS])
        except OSError as error:
            raise BundleError(f"{error.filename} cannot be loaded ({error.strerror}); {AGAIN}.") from error
        # Keras reads this file in the encoding of the system, so that is what has to be looked at.
        check_objects(_parsed(text.decode(locale.getpreferredencoding(False), "replace"), path), str(path))
        check_weights(path / WEIGHTS, size, str(path))
        return
    with _opened(path) as archive:
        check_objects(_parsed(archive.read(CONFIG), path), str(path))
        weights = archive.read(WEIGHTS)
    check_weights(io.BytesIO(weights), len(weights), str(path))


def keras_config(path: Path) -> dict:
    """Return the config.json inside a model.keras; BundleError where the file is not what it should be."""
    with _opened(path) as archive:
        return _parsed(archive.read(CONFIG), path)


def climbs(name: str) -> bool:
    """Whether the name of a file in an archive or a repository leads out of its folder, on any system.

    >>> climbs("figures/roc.png"), climbs("../roc.png"), climbs("C:roc.png")
    (False, True, True)
    """
    parts = name.split("/")
    return any(part in ("", ".", "..") for part in parts) or bool(re.search(r"^[A-Za-z]:|[\\\x00-\x1f]", name))


def regular_size(path: Path, limit: int) -> int:
    """Return a file's size in bytes.

    Raises:
        BundleError: it is larger than `limit`, or a folder, a pipe or a device, which would be read for ever.
        OSError: it is not there.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path} cannot be loaded (it is not a plain file); {AGAIN}.")
    if status.st_size > limit:
        raise BundleError(f"{path} has {status.st_size:,} bytes, more than the {limit:,} that are read; {AGAIN}.")
    return status.st_size


def read_limited(path: Path, limit: int) -> bytes:
    """Return a plain file's bytes, `limit` at the most; raises what `regular_size` does."""
    size = regular_size(path, limit)
    with path.open("rb") as file:
        return file.read(size)


# ---- the zip file


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yield a model.keras whose list of members was looked at; what is broken becomes one sentence."""
    try:
        size = regular_size(path, sum(LIMITS.values()))
        with path.open("rb") as file:
            _check_end(file, size, path)
            with zipfile.ZipFile(file) as archive:
                _check_members(archive, path)
                yield archive
    except BundleError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or f"broken zip file: {first_line(error)}"
        raise BundleError(f"{path} cannot be loaded ({reason}); {AGAIN}.") from error


def _check_end(file: BinaryIO, size: int, path: Path) -> None:
    """Read how long the list of members is before all of it is read: it could fill the memory by itself."""
    file.seek(max(0, size - 42))
    end = file.read()
    whole = end[-22:-18] == b"PK\5\6" and not end.startswith(b"PK\6\7")  # the second begins lists beyond 4 GB
    entries, length = struct.unpack("<HI", end[-12:-6]) if whole else (0, 0)
    if not whole or entries > ENTRIES or length > 1000 * ENTRIES:
        raise BundleError(f"{path} cannot be loaded (it is not a complete zip file of {len(LIMITS)} members); {AGAIN}.")


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    members = archive.infolist()
    names = [member.orig_filename for member in members]
    for name in names:
        if climbs(name.removesuffix("/")):
            raise BundleError(f"{path} holds the name {_shown(name)}, which leads out of it; {AGAIN}.")
        if name not in LIMITS:
            raise BundleError(f"{path} holds {_shown(name)}, which is not part of a Keras image model; {REMEDY}.")
        if names.count(name) > 1:
            raise BundleError(f"{path} holds {name} twice; {AGAIN}.")
    missing = [name for name in LIMITS if name not in names]
    if missing:
        raise BundleError(f"{path} holds no {missing[0]}; {AGAIN}.")
    for member in members:
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleError(f"{path} holds {member.filename} encrypted or packed in an unusual way; {AGAIN}.")
        limit = LIMITS[member.filename]
        if member.filename == WEIGHTS:
            limit = min(limit, PACKED * member.compress_size + 2**16)
        if member.file_size > limit:
            size = f"{member.file_size:,} bytes for {member.filename}, more than the {limit:,} that are read"
            raise BundleError(f"{path} declares {size}; {AGAIN}.")


def _parsed(text: str | bytes, path: Path) -> dict:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be loaded ({CONFIG}: {first_line(error)}); {AGAIN}.") from error
    if not isinstance(config, dict):
        raise BundleError(f"{path} cannot be loaded ({CONFIG} is not a JSON object); {AGAIN}.")
    return config


# ---- the config: which objects Keras would make


def check_objects(config: dict, where: str, *, legacy: bool = False) -> None:
    """Raise a BundleError for the first entry of a Keras config that is no stock object or no plain value.

    Args:
        config: config.json; only the keys that Keras reads at its top are looked at, except compile_config, which
            `compile=False` drops.
        where: how the sentence begins.
        legacy: whether entries may come without a module, as Keras 2 wrote them; Keras looks their names up among its
            own classes.
    """
    if config.get("class_name") not in _MODELS.split():
        raise BundleError(f"{where} cannot be loaded (its {CONFIG} describes no Keras model); {AGAIN}.")
    read = ("module", "class_name", "registered_name", "config", "build_config", "shared_object_id")
    todo: list[tuple[str, object]] = [("", {key: config[key] for key in read if key in config})]
    while todo:  # no recursion: the nesting is the file's choice
        key, value = todo.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                _check_object(value, where, legacy=legacy)
            todo += value.items()
        elif isinstance(value, list):
            todo += [(key, item) for item in value]
        else:
            _check_value(key, value, where)


def _check_object(entry: dict, where: str, *, legacy: bool) -> None:
    """Refuse a class that is not on the list; `registered_name` would win over it, so that may only repeat it."""
    name, module, registered = entry["class_name"], entry.get("module"), entry.get("registered_name")
    inner = entry.get("config")
    if isinstance(name, str) and name in PLAIN:
        if isinstance(inner, dict) and inner.get("dtype", "bool") not in NUMBERS:
            raise BundleError(f"{where} cannot be loaded: it holds an array that is not of numbers; {REMEDY}.")
        return
    fault = FAULTS.get(name) if isinstance(name, str) else None
    allowed = LEGACY if legacy and module is None else STOCK.get(module, ()) if isinstance(module, str) else ()
    stock = isinstance(name, str) and name in allowed
    if fault is None and stock and registered in (None, name):
        return
    called = entry.get("name") or (inner.get("name") if isinstance(inner, dict) else None)
    called = f" ({_shown(called)})" if called else ""
    if fault:
        kind = "layer" if name[0].isupper() else "entry"
        raise BundleError(f"{where} cannot be loaded: it holds a {name} {kind}{called}, which {fault}; {REMEDY}.")
    custom = registered if isinstance(registered, str) and registered != name else f"{module}.{name}"
    what = f"it holds the class {_shown(custom)}{called}, which is not one of Keras's own that image models need"
    raise BundleError(f"{where} cannot be loaded: {what}; {REMEDY}.")


def _check_value(key: str, value: object, where: str) -> None:
    """Refuse a word that Keras would look up elsewhere, and a number that no layer has."""
    if isinstance(value, str):
        kind = next((kind for kind in WORDS if key.endswith(kind)), None)
        if kind and value not in WORDS[kind] and value not in {_snake(word) for word in WORDS[kind]}:
            raise BundleError(f"{where} cannot be loaded: its {kind} {_shown(value)} is not Keras's own; {REMEDY}.")
    elif type(value) is int and abs(value) > NUMBER and key not in ("seed", "shared_object_id"):
        raise BundleError(f"{where} cannot be loaded: it has {_shown(key)} {value:.3g}, which is too large; {REMEDY}.")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _shown(text: object) -> str:
    """A text from the file, fit for one line of a sentence."""
    return json.dumps(str(text)[:80])


# ---- the weights


def check_weights(source: Path | BinaryIO, size: int, where: str) -> None:
    """Raise a BundleError for an HDF5 file that reads others or whose arrays are larger than itself.

    Args:
        source: the file, or its bytes opened for reading.
        size: of the file, in bytes.
        where: how the sentence begins.
    """
    try:
        import h5py
    except ImportError:  # then Keras is not here either, which needs it to read them
        return
    try:
        with h5py.File(source, "r") as file:
            _check_tree(file, size, where)
    except BundleError:
        raise
    except Exception as error:  # what h5py raises for a broken file has no common base class
        raise BundleError(f"{where} cannot be loaded (broken weights: {first_line(error)}); {AGAIN}.") from error


def _check_tree(file: h5py.File, size: int, where: str) -> None:
    import h5py

    def refuse(name: str, problem: str) -> None:
        raise BundleError(f"{where} cannot be loaded: its weights hold {_shown(name)}, {problem}; {AGAIN}.")

    seen, groups, declared, count = set(), [file], 0, 0
    while groups:
        group = groups.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            refuse(group.name, "which is there twice")
        seen.add(address)
        for name in group:
            count += 1
            path = f"{group.name.rstrip('/')}/{name}"
            if count > OBJECTS:
                refuse(path, f"and more than {OBJECTS:,} others")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                refuse(path, "a link to elsewhere")
            item = group[name]
            if isinstance(item, h5py.Group):
                groups.append(item)
                continue
            if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biufV" or item.dtype.names:
                refuse(path, "which is not an array of numbers")
            if item.external or item.is_virtual:
                refuse(path, "an array kept in another file")
            declared += math.prod(item.shape or ()) * item.dtype.itemsize
            if declared > size:  # Keras writes them unpacked; an array reached by two names counts twice
                refuse(path, f"which declares more than the {size:,} bytes of the file")
