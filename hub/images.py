"""One way from whatever a user hands in to the uint8 tensor that training, evaluation and the app share.

Containers are walked here, with a few lines for each format, before Pillow decodes them: the walk reads the
size, refuses what is cut short, takes the orientation out of the EXIF block and drops all other metadata, so
that a broken EXIF block or colour profile cannot spoil a good picture.  Colour profiles are not applied.
Pillow's plug-ins are called directly, so its process-wide limits and warnings are neither met nor changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import stat
import struct
import threading
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageChops,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from hub.errors import ImageError, ImageTooLargeError, UnsupportedImageError, printable

try:
    import pillow_heif
except ImportError:  # in an interpreter that only runs a format for `hub verify`, and has nothing else installed
    pillow_heif = None  # type: ignore[assignment]

# What a picture may be given as: a path, a file's bytes, a binary file object, a PIL picture, an array (h, w[, c]).
Picture: TypeAlias = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray
Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom

MAX_PIXELS = 40_000_000
# Phones make 50 megapixels, and only JPEG can be decoded at reduced scale.
MAX_JPEG_PIXELS = 64_000_000
# Phones make 48 megapixels of these, in tiles, so that there is not much beside the picture itself.
MAX_HEIC_PIXELS = 64_000_000
# JPEG's own longest side. Pillow keeps an address for each row: 40 million rows of one pixel are 320 MB of them.
MAX_SIDE = 65_535
# From here on pictures are decoded one at a time, whoever asks: up to 0.6 GB each (HEIC of 64 megapixels with
# transparency; 0.4 GB an uncompressed TIFF, 0.3 GB a JPEG 2000). A phone's 12 megapixels are not.
LARGE_PIXELS = 16_000_000
# 40 megapixels of 16-bit RGBA are 320 MB even when nothing is compressed.
MAX_BYTES = 400_000_000
# It takes ten times as long as any other format: half a minute for so many pixels. At reduced scale there may be more.
MAX_JP2_PIXELS = 16_000_000
MAX_JP2_TILES = 4_096
MAX_JP2_SEGMENTS = 100_000
MAX_JP2_PACKETS = 1_000_000  # of a precinct in a layer; writers make thousands
# Encoders write about ten scans; thousands of them in a small file keep a decoder busy for minutes.
MAX_JPEG_SCANS = 50
# Metadata comes in segments of 64 kB; millions of empty ones in a file keep Python busy for many seconds.
MAX_JPEG_SEGMENTS = 10_000
# Encoders write pixels in chunks of some kB; millions of empty ones keep Python and Pillow as busy.
MAX_PNG_CHUNKS = 100_000
# Likewise boxes, of which writers make some dozens.
MAX_BOXES = 10_000
# A strip for each row of each colour is the most that writers make; each costs some microseconds.
MAX_TIFF_PIECES = 200_000
MAX_TIFF_TAGS = 4_096
# A JPEG is decoded at 1/2, 1/4 or 1/8 while its sides keep at least this many times the tensor's.  Mean
# absolute difference (of 255) from the full decode, 12 megapixels to 224 px: photos 0.1 with 4, up to 0.4
# with 3 and 1.7 with 2; saturated stripes and random blocks, the worst pictures found, 1.6, 1.9 and 6.3.
DRAFT_MARGIN = 4

_SAVE_AGAIN = "save it as JPEG or PNG and try again"
_COPY_AGAIN = "copy or download it again"

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pictures that are not read, told by their first bytes.
_OTHER_PICTURES = (
    (b"%!PS", "a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\1\0", "an icon"),
)
# What people upload by mistake.
_OTHER_FILES = (
    (b"%PDF", "a PDF document"),
    (b"PK\3\4", "a ZIP archive or Office document"),
    (b"\x1f\x8b", "a compressed archive"),
    (b"\x1aE\xdf\xa3", "a video"),
)
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}

_FORMATS = {
    "JPEG",
    "MPO",
    "PNG",
    "GIF",
    "WEBP",
    "BMP",
    "AVIF",
    "HEIF",
    "TIFF",
    "JPEG2000",
}  # Pillow's names of what is read

# Two threads may hold the same lazily opened PIL picture: its file has one position.
_lazy_file = threading.Lock()
# Held from before a large picture is decoded until its pixels are where they are wanted.
_large = threading.Lock()


class _Refusal(Exception):
    """What is wrong with a picture and what to do about it; the caller adds the name."""

    def __init__(self, problem: str, remedy: str = _SAVE_AGAIN, error: type[ImageError] = ImageError):
        super().__init__(problem, remedy)
        self.sentence, self.error = f"{problem}; {remedy}.", error


def open_image(source: Picture, *, size: int | None = None) -> Image.Image:
    """Return a picture upright, in RGB, transparency composited on white, animations as their first frame.

    Args:
        source: a path, the bytes of a file, a binary file object, a PIL picture, or an array of shape (h, w),
            (h, w, 1), (h, w, 3) or (h, w, 4), either uint8 or float between 0 and 1.
        size: the side in pixels that the picture will be squashed to.  It allows a big JPEG to be decoded at
            reduced scale, so the result can be smaller than the file says.

    Raises:
        ImageError: one sentence that names the file and the remedy; as UnsupportedImageError where the file is no
            picture of these kinds, as ImageTooLargeError where it is too large.
    """
    with contextlib.ExitStack() as turn:
        return _open(source, size, turn)[0]


def to_tensor(source: Picture, size: int) -> np.ndarray:
    """Return `source` (see `open_image`) as a uint8 tensor of shape (size, size, 3).

    The picture is squashed, not cropped, with Pillow's antialiased bilinear filter.

    Raises:
        ImageError: one sentence that names the file and the remedy.
    """
    with contextlib.ExitStack() as turn:
        return _squashed(*_open(source, size, turn), size)


def to_tensor_and_picture(source: Picture, size: int, side: int) -> tuple[np.ndarray, Image.Image]:
    """Return the tensor of `to_tensor`, and the picture itself to look at: from one decode, but for small tensors.

    Args:
        source: see `open_image`.
        size: the tensor's side in pixels.
        side: the picture's longer side is at most so many pixels; it is smaller only where the picture is.

    Returns:
        uint8 (size, size, 3), and the picture upright in RGB.

    Raises:
        ImageError: as `open_image`.
    """
    stream: Any = source if hasattr(source, "seek") and not isinstance(source, Image.Image) else None
    start = stream.tell() if stream is not None else None
    with contextlib.ExitStack() as turn:
        picture, box = _open(source, size, turn)
        tensor = _squashed(picture, box, size)
        if box is None or max(picture.size) >= side:
            return tensor, _shrunk(picture, box, side)
    # It was reduced as far as a small tensor allows: once more for the eye, when the turn of a large picture is over.
    if stream is not None:
        stream.seek(start)
    with contextlib.ExitStack() as turn:
        return tensor, _shrunk(*_open(source, -(-side // DRAFT_MARGIN), turn), side)


def _shrunk(picture: Image.Image, box: Box | None, side: int) -> Image.Image:
    """Return a picture, or the box of it, with a longer side of at most `side` pixels."""
    width, height = (picture.width, picture.height) if box is None else (box[2] - box[0], box[3] - box[1])
    scale = min(1, side / max(width, height))
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    if shown == picture.size:  # neither to be made smaller nor to be cut
        return picture
    # The gap: first by a whole number, fast, and then by the rest; no eye sees a difference from 2 on.
    return picture.resize(shown, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)


def _squashed(picture: Image.Image, box: Box | None, size: int) -> np.ndarray:
    return np.array(picture.resize((size, size), Image.Resampling.BILINEAR, box=box))


def declared_pixels(data: bytes) -> int:
    """Return how many pixels a file says it has, without decoding any; 0 where it does not say.

    The beginning of a file is enough, but of a TIFF whose tags stand further back: it may be as large as is allowed.
    It tells large pictures from small ones before there is time for them; whether it is true, decoding shows.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            frames = (data[start + 5 : start + 9] for marker, start, _ in _jpeg_segments(data) if _is_frame(marker))
            width, height = struct.unpack(">HH", next(frames))
        elif data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", data, 16)
        elif data.startswith((b"GIF87a", b"GIF89a")):
            width, height = struct.unpack_from("<HH", data, 6)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            width, height = _webp_size(data)
        elif data.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", data, 18)
        elif _format(data) == "TIFF":
            width, height = _tiff_size(data)
        elif _format(data) == "JPEG2000":
            right, bottom, left, top = struct.unpack_from(">4I", data, data.index(b"\xff\x4f\xff\x51") + 8)
            width, height = right - left, bottom - top
        else:  # the largest of an AVIF's or HEIC's items
            sizes = (struct.unpack_from(">II", data, found.end()) for found in re.finditer(b"ispe\0\0\0\0", data))
            width, height = max(sizes, key=lambda size: size[0] * size[1])
    except (_Refusal, struct.error, ValueError, IndexError, StopIteration):
        return 0
    return abs(width * height)


def pixel_hash(image: Image.Image) -> str:
    """Return the SHA-256, in hex, of a picture's size and upright RGB pixels at full size.

    The same pixels in another container have the same hash.  A JPEG that was opened at reduced scale has
    other pixels, so it is refused.

    Raises:
        ImageError: `image` cannot be read, or is not at full size.
    """
    if isinstance(image, Image.Image) and "reduced" in image.info:
        raise ImageError(f"{name_of(image)} was opened at reduced scale; open it without `size` to hash it.")
    picture = open_image(image)
    digest = hashlib.sha256(f"{picture.width}x{picture.height}RGB:".encode())
    digest.update(picture.tobytes())
    return digest.hexdigest()


def _open(source: Picture, size: int | None, turn: contextlib.ExitStack) -> tuple[Image.Image, Box | None]:
    """Return the upright RGB picture and, where it was decoded at reduced scale, the box it fills.

    A large picture waits for its turn, which lasts until `turn` is closed.
    """
    try:
        picture, orientation, box = _decode(source, size, turn)
        return _upright(_to_rgb(picture), orientation, box)
    except _Refusal as refusal:
        raise refusal.error(f"{name_of(source)} {refusal.sentence}") from refusal.__cause__
    except MemoryError as error:
        message = f"{name_of(source)} does not fit into memory; make it smaller and try again."
        raise ImageTooLargeError(message) from error
    except Exception as error:  # Pillow's plug-ins raise almost anything on damaged data.
        problem = "is cut short" if "truncated" in str(error).lower() else "is damaged and cannot be read"
        raise ImageError(f"{name_of(source)} {problem}; {_COPY_AGAIN}.") from error


def name_of(source: object) -> str:
    """Return what to call a source (see `open_image`) in a sentence: a base name, never a folder."""
    if isinstance(source, np.ndarray):
        return "The array"
    name: Any
    if isinstance(source, str | os.PathLike):
        name = source
    else:
        name = getattr(source, "filename", None) or getattr(source, "name", None)
    try:
        name = os.path.basename(os.fsdecode(name).rstrip("/\\"))
    except (TypeError, ValueError):
        name = ""
    return printable(name, most=80) or "The picture"


def _decode(source: Picture, size: int | None, turn: contextlib.ExitStack) -> tuple[Image.Image, int, Box | None]:
    """Return the decoded picture in any mode, its EXIF orientation (1-8) and its box as `_open` does."""
    if isinstance(source, np.ndarray):
        return _from_array(source), 1, None
    if isinstance(source, Image.Image):
        data = _lazy_bytes(source)
        if data is None:
            return _from_pil(source), _exif_orientation(source.info.get("exif")), None
    else:
        data = _bytes(source)
    if declared_pixels(data) > LARGE_PIXELS:
        turn.enter_context(_large)
    return _from_bytes(data, size)


# ---------------------------------------------------------------- what a user may hand in


def _from_array(array: np.ndarray) -> Image.Image:
    """Return an array of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) as a PIL picture."""
    array = np.asarray(array)
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))):
        raise _Refusal(
            f"has the shape {array.shape}, which is not one picture",
            "pass (height, width), or (height, width, channels) with 1, 3 or 4 channels",
        )
    _check_size(array.shape[1], array.shape[0])
    if array.dtype.kind == "f":
        array = _from_unit_floats(array)
    elif array.dtype != np.uint8:
        raise _Refusal(f"holds {array.dtype} values", "convert them to uint8, or to float between 0 and 1")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(array))


def _from_unit_floats(array: np.ndarray) -> np.ndarray:
    """Return floats between 0 and 1 as uint8; whether others mean 0-255 or -1-1 is not guessed."""
    low, high = float(array.min()), float(array.max())  # NaN wins both
    if not (low >= 0 and high <= 1):
        raise _Refusal(
            f"holds float values from {low:.4g} to {high:.4g}", "scale them to 0-1, or convert them to uint8"
        )
    return np.rint(array * 255).astype(np.uint8)


def _lazy_bytes(image: Image.Image) -> bytes | None:
    """Return the file behind a PIL picture whose pixels nobody has asked for yet, or None.

    Decoding the file gives the tensor that its path would give, and leaves the caller's picture untouched.
    """
    with _lazy_file:
        stream = getattr(image, "fp", None) if image.format in _FORMATS else None
        if stream is None or image.tell() != 0 or getattr(image, "decoderconfig", None):
            return None
        try:
            position = stream.tell()
            stream.seek(0)
            data = stream.read(MAX_BYTES + 1)
            stream.seek(position)
        except ValueError as error:
            raise _closed() from error
    return data


def _from_pil(image: Image.Image) -> Image.Image:
    """Return a PIL picture with its pixels loaded, after checking its size."""
    _check_size(*image.size, MAX_JPEG_PIXELS if image.format in ("JPEG", "MPO") else MAX_PIXELS)
    try:
        with _lazy_file:
            image.load()
    except Exception as error:
        if getattr(image, "fp", image) is None:
            raise _closed() from error
        raise
    return image


def _bytes(source: Any) -> bytes:
    """Return the content of a path, a file object or something like bytes."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return _file_bytes(source)
    if not callable(getattr(source, "read", None)):
        raise _Refusal(
            f"is of the type {type(source).__name__}, which is not read",
            "pass a path, bytes, a binary file, a PIL picture or a numpy array",
        )
    return _stream_bytes(source)


def _file_bytes(path: str | os.PathLike) -> bytes:
    """Return the content of a regular file."""
    if re.match(r"(https?|ftp|data):", os.fsdecode(path)):
        raise _Refusal("is a web address", "download it and pass the file")
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise _Refusal("is a folder", "pass the path of one picture in it")
        if not stat.S_ISREG(status.st_mode):
            raise _Refusal("is not a regular file", "pass the path of a picture")
        if status.st_size > MAX_BYTES:
            raise _too_big()
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise _Refusal("does not exist", "check the path") from error
    except PermissionError as error:
        raise _Refusal("may not be read by this user", "change its permissions") from error
    except OSError as error:
        raise _Refusal(f"cannot be read ({error.strerror})", "check the path and the disk") from error


def _stream_bytes(stream: BinaryIO) -> bytes:
    """Return the content of a binary file object from its start (from where it stands if it cannot seek)."""
    try:
        if callable(getattr(stream, "seek", None)):
            with contextlib.suppress(io.UnsupportedOperation):
                stream.seek(0)
        data = stream.read(MAX_BYTES + 1)
    except Exception as error:
        raise _Refusal("cannot be read from its file object", "open it again in binary mode") from error
    if not isinstance(data, bytes | bytearray | memoryview):
        raise _Refusal("comes from a file object that gives no bytes", "open it in binary mode")
    return bytes(data)


# ---------------------------------------------------------------- what the bytes are


def _from_bytes(data: bytes, size: int | None) -> tuple[Image.Image, int, Box | None]:
    """Decode the content of a file; returns what `_decode` does."""
    if not data:
        raise _Refusal("is empty (0 bytes)", _COPY_AGAIN)
    if len(data) > MAX_BYTES:
        raise _too_big()
    match _format(data):
        case "JPEG":
            return _from_jpeg(data, size)
        case "PNG":
            return *_from_png(data), None
        case "GIF":
            return _from_gif(data), 1, None
        case "WEBP":
            return *_from_webp(data), None
        case "BMP":
            return _from_bmp(data), 1, None
        case "AVIF":
            return *_from_avif(data), None
        case "HEIF":
            return _from_heic(data), 1, None
        case "TIFF":
            return *_from_tiff(data), None
        case "JPEG2000":
            image, box = _from_jp2(data, size)
            return image, 1, box
    raise _unsupported(f"is {recognise(data)[1]}")


def _format(head: bytes) -> str | None:
    """Return Pillow's name of the format, told by a file's first bytes; None where it is not read."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM") and head[15:18] in (b"", b"\0\0\0"):  # the length of its second header is one byte
        return "BMP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0")) and head[8:10] != b"CR":
        return "TIFF"
    if head.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")):
        return "JPEG2000"
    if head[4:8] == b"ftyp":
        length = int.from_bytes(head[:4], "big")
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(length, 512), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & _HEIC_BRANDS:
            return "HEIF"
    return None


def recognise(head: bytes) -> tuple[Literal["read", "picture", "other"], str]:
    """Say what a file is by its first bytes (4096 are enough), whatever its name.

    Returns:
        "read" for a picture of a kind that is read, "picture" for one that is not, and "other"; and in words, after
        which an "is" can stand, what it is and why it is not read ("a PDF document, which is not read").
    """
    if found := _format(head):
        return "read", found
    kinds: dict[Literal["picture", "other"], tuple] = {"picture": _OTHER_PICTURES, "other": _OTHER_FILES}
    for sort, of_sort in kinds.items():
        for magic, kind in of_sort:
            if head.startswith(magic):
                return sort, f"{kind}, which is not read"
    if head[4:8] == b"ftyp":
        return "picture", "a video or another container that is not a picture"
    text = head[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text):
        return "picture", "an SVG drawing, which is not read"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in text:
        return "other", "a web page, not a picture"
    if _is_text(head[:4096]):
        return "other", "text, not a picture"
    return "other", "not in a format that can be read (JPEG, PNG, GIF, WebP, AVIF, HEIC, TIFF, JPEG 2000, BMP)"


def _is_text(head: bytes) -> bool:
    """Tell whether the first bytes of a file are UTF-8 or UTF-16 text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    # A character may be cut at the end; anywhere else what is not UTF-8 is replaced by U+FFFD.
    decoded = head.decode("utf-8", "replace").rstrip("\ufffd")
    return bool(decoded) and all(
        (letter.isprintable() and letter != "\ufffd") or letter in "\t\n\r\f" for letter in decoded
    )


def _check_size(width: int, height: int, limit: int = MAX_PIXELS) -> None:
    """Refuse pictures with no pixels or too many."""
    if width < 1 or height < 1:
        raise _Refusal(f"measures {width} x {height} pixels", "pass a picture of at least one pixel")
    if width * height > limit:
        raise _too_large(f"measures {width} x {height} pixels, more than {limit // 10**6} megapixels")
    if max(width, height) > MAX_SIDE:
        raise _too_large(f"measures {width} x {height} pixels, more than {MAX_SIDE:,} along one side")


def _loaded(image: ImageFile.ImageFile, limit: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """Decode a picture that a plug-in has opened, after checking the size that the plug-in found."""
    _check_size(*image.size, limit)
    image.load()
    return image


def _too_big() -> _Refusal:
    return _too_large(f"is larger than {MAX_BYTES // 10**6} MB")


def _too_large(problem: str) -> _Refusal:
    return _Refusal(problem, "make it smaller and try again", ImageTooLargeError)


def _unsupported(problem: str, remedy: str = _SAVE_AGAIN) -> _Refusal:
    return _Refusal(problem, remedy, UnsupportedImageError)


def _closed() -> _Refusal:
    return _Refusal("was closed before its pixels were read", "open it again")


def _cut_short() -> _Refusal:
    return _Refusal("is cut short", _COPY_AGAIN)


def _damaged() -> _Refusal:
    return _Refusal("is damaged and cannot be read", _COPY_AGAIN)


def _exif_orientation(exif: bytes | None) -> int:
    """Return the orientation (1-8) of an EXIF block; 1 where it is missing or makes no sense.

    Source: CIPA DC-008 (EXIF 3.0), section 4.5.2 and tag 0x0112.
    """
    if not isinstance(exif, bytes):
        return 1
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, short = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == 0x0112:
                # SHORT by the standard; some writers use LONG
                value = struct.unpack_from(order + "I", tiff, entry + 8)[0] if kind == 4 else short
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


# ---------------------------------------------------------------- JPEG (ITU-T T.81)


def _from_jpeg(data: bytes, size: int | None) -> tuple[Image.Image, int, Box | None]:
    """Decode a JPEG, at reduced scale where `size` allows it; returns what `_decode` does."""
    kept, exif, scan = [b"\xff\xd8"], None, None
    for marker, start, end in _jpeg_segments(data):
        segment = data[start + 4 : end]
        if marker == 0xDA:
            scan = start
            break
        if _is_frame(marker) and len(segment) >= 6:
            height, width = struct.unpack_from(">HH", segment, 1)
            _check_size(width, height, MAX_JPEG_PIXELS)
        if marker == 0xE1 and segment.startswith(b"Exif\0\0") and exif is None:
            exif = segment
        # Of the metadata only these two say how the colours are stored.
        is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not is_metadata or segment.startswith((b"JFIF\0", b"Adobe")):
            kept.append(data[start:end])
    if scan is None:
        raise _cut_short()
    end = _end_of_scans(data, scan)
    head = b"".join(kept)
    image, box = _load_jpeg(head + data[scan:end] + b"\xff\xd9", size)
    if all(120 <= value <= 136 for value in _last_pixel(image)):
        # The decoder fills what is missing with mid-grey, smoothed in a progressive file, and keeps silent.
        # More data before the end marker change the picture then, and only then.
        longer, _ = _load_jpeg(head + data[scan:end] + _ANY_SCAN_DATA + b"\xff\xd9", size)
        if longer.tobytes() != image.tobytes():
            raise _cut_short()
    return image, _exif_orientation(exif), box


def _is_frame(marker: int) -> bool:
    """Tell whether a segment is a frame header, which says the size."""
    return marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC)


# With restart markers, so that some of it is taken up wherever a decoder stands.
_ANY_SCAN_DATA = b"".join(
    bytes(value * 89 % 251 for value in range(500)) + bytes([0xFF, 0xD0 + restart % 8]) for restart in range(16)
)


def _load_jpeg(data: bytes, size: int | None) -> tuple[Image.Image, Box | None]:
    """Decode a JPEG without metadata at the smallest scale that suits `size`; returns it and its box."""
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    full_size = image.size
    _check_size(*full_size, MAX_JPEG_PIXELS)
    draft = image.draft(None, (DRAFT_MARGIN * size, DRAFT_MARGIN * size)) if size else None
    reduced = image.size != full_size
    image.load()
    image.info = {"reduced": True} if reduced else {}
    return image, draft[1] if draft and reduced else None


def _last_pixel(image: Image.Image) -> tuple[int, ...]:
    """Return the bands of the pixel at the bottom right."""
    pixel: Any = image.getpixel((image.width - 1, image.height - 1))
    return pixel if isinstance(pixel, tuple) else (pixel,)


_MARKER = re.compile(rb"\xff[^\xff]")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of the segments before the first scan's data, the scan's header last."""
    position = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        found = _MARKER.search(data, position)
        if found is None or found.start() + 4 > len(data):
            raise _cut_short()
        position = found.start()
        marker = data[position + 1]
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # no length follows
            position += 2
            continue
        if marker == 0xD9:
            raise _cut_short()
        (length,) = struct.unpack_from(">H", data, position + 2)
        end = position + 2 + length
        if length < 2:
            raise _damaged()
        if end > len(data):
            raise _cut_short()
        yield marker, position, end
        position = end
    raise _Refusal(f"is a JPEG of more than {MAX_JPEG_SEGMENTS:,} segments")


_AFTER_SCAN_DATA = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _end_of_scans(data: bytes, position: int) -> int:
    """Return where a JPEG's end marker stands; refuses it where none comes or where there are too many scans.

    In a scan's data 0xFF is always followed by 0x00 or a restart marker, so the search is exact.
    """
    scans = 0
    while True:
        scans += data[position + 1] == 0xDA
        if scans > MAX_JPEG_SCANS:
            raise _Refusal(f"is a JPEG of more than {MAX_JPEG_SCANS} scans")
        if position + 4 > len(data):
            raise _cut_short()
        (length,) = struct.unpack_from(">H", data, position + 2)
        found = _AFTER_SCAN_DATA.search(data, position + 2 + length)
        if found is None:
            raise _cut_short()
        position = found.start()
        if data[position + 1] == 0xD9:
            return position


# ---------------------------------------------------------------- PNG (W3C PNG, third edition)


def _from_png(data: bytes) -> tuple[Image.Image, int]:
    """Decode a PNG; returns it and its orientation.

    Of an animation it takes the picture that readers without animations show, as a rule its first frame.
    """
    kept, exif, key = [data[:8]], None, None
    header: Any = None
    for kind, start, end in _png_chunks(data):
        body = data[start + 8 : end - 4]
        if (header is None) != (kind == b"IHDR"):  # it comes first, and once
            raise _damaged()
        if header is None:
            header = struct.unpack(">IIBBBBB", body[:13])
            _check_size(*header[:2])
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND") or (kind == b"tRNS" and header[3] == 3):
            if zlib.crc32(data[start + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
                raise _damaged()
            kept.append(data[start:end])
        elif kind == b"tRNS":
            key = body
        elif kind == b"eXIf":
            exif = body
        if kind == b"IEND":
            break
    image = _loaded(PngImagePlugin.PngImageFile(io.BytesIO(b"".join(kept))))
    if key is not None:
        _set_transparent_colour(image, key, depth=header[2])
    return image, _exif_orientation(exif)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, end) of the chunks up to IEND; refuses a file that ends before it."""
    position = 8
    for _ in range(MAX_PNG_CHUNKS):
        if position + 12 > len(data):
            raise _cut_short()
        (length,) = struct.unpack_from(">I", data, position)
        kind, end = data[position + 4 : position + 8], position + 12 + length
        if not kind.isalpha():
            raise _damaged()
        if end > len(data):
            raise _cut_short()
        yield kind, position, end
        position = end
        if kind == b"IEND":
            return
    raise _Refusal(f"is a PNG of more than {MAX_PNG_CHUNKS:,} chunks")


def _set_transparent_colour(image: Image.Image, key: bytes, depth: int) -> None:
    """Tell Pillow which grey or colour is transparent, in the units of the pixels that it decoded.

    Args:
        key: one (grey) or three (RGB) big-endian samples of `depth` bits.
    """
    samples = [value & ((1 << depth) - 1) for (value,) in struct.iter_unpack(">H", key[: len(key) // 2 * 2])]
    if image.mode == "I;16" and len(samples) == 1:
        image.info["transparency"] = samples[0]
    elif image.mode in ("1", "L") and len(samples) == 1:
        image.info["transparency"] = samples[0] * 255 // ((1 << depth) - 1)
    elif image.mode == "RGB" and len(samples) == 3:
        image.info["transparency"] = tuple(value >> (depth - 8) for value in samples)


# ---------------------------------------------------------------- GIF, WebP, BMP, AVIF, HEIC


def _from_gif(data: bytes) -> Image.Image:
    """Decode the first frame of a GIF on its canvas; what the frame does not cover is transparent."""
    (left, top, right, bottom), data = _gif_frame(data)
    image: Image.Image = _loaded(GifImagePlugin.GifImageFile(io.BytesIO(data)))
    if (left, top, right, bottom) == (0, 0, *image.size):
        return image
    image = image.convert("RGBA")
    covered = Image.new("L", image.size, 0)
    covered.paste(255, (left, top, right, bottom))
    image.putalpha(ImageChops.darker(image.getchannel("A"), covered))
    return image


def _gif_frame(data: bytes) -> tuple[tuple[int, int, int, int], bytes]:
    """Return the box of a GIF's first frame, after checking its canvas and that its data are all there, and the file
    without what is no picture before it: Pillow joins a comment's parts in a time that grows with their square.

    Source: GIF89a specification, sections 17-26.
    """

    def skip_blocks(position: int) -> int:
        while data[position]:
            position += data[position] + 1
        return position + 1

    def skip_palette(position: int, flags: int) -> int:
        return position + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)

    try:
        width, height, flags = struct.unpack_from("<HHB", data, 6)
        _check_size(width, height)
        position = skip_palette(13, flags)
        kept = [data[:position]]
        while data[position] != 0x2C:
            if data[position] == 0x21:
                start, position = position, skip_blocks(position + 2)
                if data[start + 1] == 0xF9:  # the extension that says which colour is transparent
                    kept.append(data[start:position])
            elif data[position] == 0x3B:
                raise _damaged()
            else:
                position += 1
        kept.append(data[position:])
        left, top, columns, rows, flags = struct.unpack_from("<HHHHB", data, position + 1)
        # Pillow widens the canvas for a frame that does not fit.
        _check_size(max(width, left + columns), max(height, top + rows))
        skip_blocks(skip_palette(position + 10, flags) + 1)
    except (IndexError, struct.error) as error:
        raise _cut_short() from error
    return (left, top, left + columns, top + rows), b"".join(kept)


def _from_webp(data: bytes) -> tuple[Image.Image, int]:
    """Decode the first frame of a WebP; returns it and its orientation."""
    if len(data) < 30 or len(data) < struct.unpack_from("<I", data, 4)[0] + 8:
        raise _cut_short()
    _check_size(*_webp_size(data))
    image = _loaded(WebPImagePlugin.WebPImageFile(io.BytesIO(data)))
    # The plug-in's picture keeps its decoder, which keeps two more of the same size; a copy lets them go.
    return image.copy(), _exif_orientation(image.info.get("exif"))


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) from a WebP's first chunk (RFC 9649), since opening it allocates the canvas."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise _damaged()


def _from_bmp(data: bytes) -> Image.Image:
    """Decode an uncompressed BMP."""
    image: Any = BmpImagePlugin.BmpImageFile(io.BytesIO(data))
    _check_size(*image.size)
    decoder, _, offset, arguments = image.tile[0]
    if decoder != "raw":  # Pillow unpacks run lengths in Python: minutes for a big picture
        raise _unsupported("is a compressed BMP")
    if offset + arguments[1] * image.height > len(data):
        raise _cut_short()
    _loaded(image)
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")  # an alpha channel that nobody filled in
    return image


# An item entry of the kind "Exif" (ISO/IEC 23008-12), up to that word.
_EXIF_ITEM = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))Exif", re.DOTALL)


def _from_avif(data: bytes) -> tuple[Image.Image, int]:
    """Decode the first frame of an AVIF; returns it and its orientation."""
    _check_boxes(data)
    # Turning is told by the container itself; a broken EXIF block must not get in its way.
    image = AvifImagePlugin.AvifImageFile(io.BytesIO(_EXIF_ITEM.sub(rb"\1none", data)))
    return _loaded(image), _exif_orientation(image.info.get("exif"))


def _from_heic(data: bytes) -> Image.Image:
    """Decode the primary picture of a HEIC, upright by what the container says, whatever its EXIF block says."""
    if pillow_heif is None:
        raise _unsupported("is a HEIC picture", "pip install pillow-heif, or save it as JPEG")
    _check_boxes(data)
    heic = pillow_heif.open_heif(_plain_heic(data))
    width, height = heic.size
    _check_size(width, height, MAX_HEIC_PIXELS)
    return heic.to_pillow()


def _check_boxes(data: bytes) -> None:
    """Refuse a file whose last box reaches beyond its end."""
    for _ in _boxes(data, 0, len(data)):
        pass


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, where its content starts, where it ends) of the boxes from start to end (ISO/IEC 14496-12, 4.2)."""
    for _ in range(MAX_BOXES):
        if start >= end:
            return
        if start + 8 > end:
            raise _cut_short()
        (length,), kind, header = struct.unpack_from(">I", data, start), data[start + 4 : start + 8], 8
        if length == 1:
            if start + 16 > end:
                raise _cut_short()
            (length,), header = struct.unpack_from(">Q", data, start + 8), 16
        elif length == 0:  # up to the end
            length = end - start
        if length < header:
            raise _damaged()
        if start + length > end:
            raise _cut_short()
        yield kind, start + header, start + length
        start += length
    raise _Refusal(f"has more than {MAX_BOXES:,} boxes")


def _plain_heic(data: bytes) -> bytes:
    """Return a HEIC without its metadata, colour profiles and groups, which would be copied for each of its pictures.

    Raises:
        _Refusal: it would cost too much: a grid of a few bytes can name a large tile a thousand times, and a thousand
            items the same bytes.  (ISO/IEC 14496-12, 8.11; ISO/IEC 23008-12, 6.6 and 9.3)
    """
    plain = bytearray(data)
    sizes: list[tuple[int, int] | None] = []  # of each property
    properties: dict[int, list[int]] = {}  # of each item, as places in `sizes`
    parts: dict[int, list[int]] = {}  # items that are decoded to get an item
    primary = None
    try:
        meta = next(((start, end) for kind, start, end in _boxes(data, 0, len(data)) if kind == b"meta"), None)
        if meta is not None:
            for kind, start, end in _boxes(data, meta[0] + 4, meta[1]):
                if kind == b"pitm":
                    primary = int.from_bytes(data[start + 4 : start + (8 if data[start] else 6)], "big")
                elif kind == b"iloc":
                    if _bytes_of_items(data, start) > 2 * len(data):
                        raise _too_large("names the same bytes again and again")
                elif kind == b"grpl":
                    plain[start - 4 : start] = b"free"
                elif kind == b"iref":
                    _read_references(data, start, end, plain, parts)
                elif kind == b"iprp":
                    _read_properties(data, start, end, plain, sizes, properties)
    except (struct.error, IndexError) as error:
        raise _damaged() from error
    if primary is None:
        raise _unsupported("holds no single picture")
    pixels: dict[int, int] = {}

    def cost(item: int, depth: int) -> int:
        """The pixels of all that is decoded for an item."""
        if item not in pixels:
            size = next((sizes[place] for place in properties.get(item, []) if sizes[place]), None)
            if size is None or depth > 8:
                raise _damaged()
            _check_size(*size, MAX_HEIC_PIXELS)
            pixels[item] = max(size[0] * size[1], sum(cost(part, depth + 1) for part in parts.get(item, [])))
        return pixels[item]

    if cost(primary, 0) > 2 * MAX_HEIC_PIXELS:  # its pixels, and as many of transparency or beyond its edges
        raise _too_large(f"is put together from more than {2 * MAX_HEIC_PIXELS // 10**6} megapixels")
    return bytes(plain)


def _few(count: int) -> int:
    """Return a number of items; refuses one that would keep Python busy."""
    if count > MAX_BOXES:
        raise _damaged()
    return count


def _bytes_of_items(data: bytes, start: int) -> int:
    """Return how many bytes the items of an iloc box have, all together."""
    version, sizes = data[start], int.from_bytes(data[start + 4 : start + 6], "big")
    offset, length, base, index = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15, sizes & 15 if version else 0
    wide = 4 if version == 2 else 2
    items, position, total = int.from_bytes(data[start + 6 : start + 6 + wide], "big"), start + 6 + wide, 0
    pieces = 0
    for _ in range(_few(items)):
        position += wide + (2 if version else 0) + 2 + base
        (extents,) = struct.unpack_from(">H", data, position)
        position += 2
        pieces = _few(pieces + extents)
        for _ in range(extents):
            position += index + offset
            total += int.from_bytes(data[position : position + length], "big") or (0 if length else len(data))
            position += length
    return total


def _read_references(data: bytes, start: int, end: int, plain: bytearray, parts: dict[int, list[int]]) -> None:
    """Note which items an item is made of, and cut the tie between metadata and pictures."""
    wide = 4 if data[start] else 2
    for kind, at, stop in _boxes(data, start + 4, end):
        _few((stop - at) // wide)
        numbers = [int.from_bytes(data[place : place + wide], "big") for place in range(at + wide + 2, stop, wide)]
        item = int.from_bytes(data[at : at + wide], "big")
        if kind == b"cdsc":
            plain[at - 4 : at] = b"none"
        elif kind == b"dimg":
            parts.setdefault(item, []).extend(numbers)
        elif kind == b"auxl":  # transparency
            for master in numbers:
                parts.setdefault(master, []).append(item)


def _read_properties(
    data: bytes,
    start: int,
    end: int,
    plain: bytearray,
    sizes: list[tuple[int, int] | None],
    properties: dict[int, list[int]],
) -> None:
    """Note the size among each item's properties, and blank out colour profiles."""
    for part, at, stop in _boxes(data, start, end):
        if part == b"ipco":
            for kind, inside, _ in _boxes(data, at, stop):
                sizes.append(struct.unpack_from(">II", data, inside + 4) if kind == b"ispe" else None)
                if kind == b"colr" and data[inside : inside + 4] != b"nclx":
                    plain[inside - 4 : inside] = b"free"
        elif part == b"ipma":
            wide, long = 4 if data[at] else 2, data[at + 3] & 1
            (items,), position = struct.unpack_from(">I", data, at + 4), at + 8
            for _ in range(_few(items)):
                item, count = int.from_bytes(data[position : position + wide], "big"), data[position + wide]
                position += wide + 1
                for _ in range(count):
                    place = struct.unpack_from(">H", data, position)[0] & 0x7FFF if long else data[position] & 0x7F
                    position += 2 if long else 1
                    if 0 < place <= len(sizes):
                        properties.setdefault(item, []).append(place - 1)


# ---------------------------------------------------------------- TIFF (TIFF 6.0)

# The tags that say where the pixels are and what they mean; the rest is not handed on.
_TIFF_TAGS = {
    256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 338, 339, 347, 529,
    530, 531, 532,
}  # fmt: skip
_TIFF_ONCE = {256, 257, 259, 262, 266, 277, 292, 293, 317, 531}  # a second value makes Pillow warn
_TIFF_SIZES = {1: 1, 3: 2, 4: 4, 5: 8, 7: 1, 13: 4, 16: 8}  # bytes of a value of each type
_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
_TIFF_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946, 50000}  # none, CCITT, LZW, JPEG, Deflate, PackBits, Zstandard


class _Directory:
    """The first directory of a TIFF or BigTIFF: a picture's tags."""

    def __init__(self, data: bytes):
        self.data, self.order = data, "<" if data[0] == 0x49 else ">"
        self._found: dict[int, tuple[int, int, int]] = {}  # tag: type, count, where its values are
        big = data[2:4] in (b"+\0", b"\0+")
        number, entry, inside = ("Q", "HHQ", 8) if big else ("I", "HHI", 4)
        try:
            (start,) = struct.unpack_from(self.order + number, data, 8 if big else 4)
            (count,) = struct.unpack_from(self.order + ("Q" if big else "H"), data, start)
            if count > MAX_TIFF_TAGS:
                raise _damaged()
            start, length = start + (8 if big else 2), 4 + 2 * inside
            struct.unpack_from(self.order + number, data, start + count * length)  # where the next one is
            for at in range(start, start + count * length, length):
                tag, kind, many = struct.unpack_from(self.order + entry, data, at)
                place = at + 4 + inside
                if _TIFF_SIZES.get(kind, 1) * many > inside:
                    (place,) = struct.unpack_from(self.order + number, data, place)
                self._found.setdefault(tag, (kind, many, place))
        except (struct.error, OverflowError) as error:
            raise _cut_short() from error

    def __contains__(self, tag: int) -> bool:
        return tag in self._found

    def raw(self, tag: int, most: int) -> tuple[int, int, bytes]:
        """Return the type, the count and the bytes of a tag with at most so many values."""
        kind, count, place = self._found[tag]
        if kind not in _TIFF_SIZES or count > most:
            raise _damaged()
        content = self.data[place : place + count * _TIFF_SIZES[kind]]
        if len(content) < count * _TIFF_SIZES[kind]:
            raise _cut_short()
        return kind, count, content

    def numbers(self, tag: int, default: tuple[int, ...] = (), most: int = 16) -> tuple[int, ...]:
        """Return the whole numbers of a tag."""
        if tag not in self._found:
            return default
        kind, count, content = self.raw(tag, most)
        if kind not in _TIFF_NUMBERS or not count:
            raise _damaged()
        return struct.unpack(f"{self.order}{count}{_TIFF_NUMBERS[kind]}", content)

    def number(self, tag: int, default: int = 0) -> int:
        """Return the first of a tag's whole numbers."""
        return self.numbers(tag, (default,))[0]


def _from_tiff(data: bytes) -> tuple[Image.Image, int]:
    """Decode the first page of a TIFF or BigTIFF; returns it and its orientation.

    Pillow and libtiff see a directory that is made anew from what was checked.
    """
    tags = _Directory(data)
    if not (256 in tags and 257 in tags):
        raise _damaged()
    width, height = tags.number(256), tags.number(257)
    photometric, compression = tags.number(262), tags.number(259, 1)
    if 50706 in tags or (330 in tags and tags.number(254) & 1) or photometric in (32803, 34892):
        raise _unsupported("is a camera's raw picture, which is not read")
    _check_size(width, height)
    if compression not in _TIFF_COMPRESSIONS:
        raise _unsupported(f"is a TIFF of a compression that is not read (number {compression})")
    bits, samples = tags.numbers(258, (1,)), tags.number(277, 1)
    if not (1 <= samples <= 8 and min(bits) >= 1 and max(bits) <= 64):
        raise _unsupported("is a TIFF of a kind that is not read")
    planes = samples if tags.number(284, 1) == 2 else 1
    # What Pillow itself reads wrongly: planes of more than a byte, and colours that are stored at half the size.
    by_libtiff = compression != 1 or planes > 1 or photometric == 6
    changed = _tiff_pieces(tags, width, height, planes, by_libtiff)
    changed |= {tag: (tags.number(tag),) for tag in _TIFF_ONCE if tag in tags}
    changed[284] = (2 if planes > 1 else 1,)
    inverted = photometric == 0 and bits[0] > 8  # Pillow forgets to
    if inverted:
        changed[262] = (1,)
    if photometric == 3 and max(colours := tags.numbers(320, (256,), most=3 << 16)) < 256:  # bytes, against the rule
        changed[320] = tuple(257 * value for value in colours)
    directory, head = _tiff_directory(tags, changed, len(data) + len(data) % 2)
    plain = b"".join([head, data[8:], b"\0" * (len(data) % 2), directory])
    try:
        image: Any = TiffImagePlugin.TiffImageFile(io.BytesIO(plain))
    except SyntaxError as error:
        raise _unsupported("is a TIFF of a kind that is not read") from error
    _check_size(*image.size)
    if by_libtiff and compression == 1:
        rawmode = "RGBX" if photometric == 6 else image.mode + (";16N" if bits[0] == 16 else "")
        image.tile = [("libtiff", (0, 0, width, height), 0, (rawmode, "raw", False, image.tag_v2.offset))]
        image.use_load_libtiff = True
    image.im = Image.core.new(image.mode, image.size)  # before Pillow asks its own limit
    image.load()
    orientation = tags.number(274, 1)
    return _plain_tiff(image, bits[0], inverted), orientation if 1 <= orientation <= 8 else 1


def _tiff_size(data: bytes) -> tuple[int, int]:
    """Return (width, height), or the largest that is read where the tags are not among these bytes."""
    try:
        tags = _Directory(data)
    except _Refusal:
        return MAX_PIXELS, 1
    return tags.number(256), tags.number(257)


def _tiff_pieces(
    tags: _Directory, width: int, height: int, planes: int, by_libtiff: bool
) -> dict[int, tuple[int, ...]]:
    """Return the tags of strips or tiles, as many as the picture needs; refuses those that lie outside the file, that
    are cut short or that unpack to much more than the picture."""
    tiled = 324 in tags
    across, down = (tags.number(322), tags.number(323)) if tiled else (width, min(tags.number(278, height), height))
    if across < 1 or down < 1:
        raise _damaged()
    columns, rows = -(-width // across), -(-height // down)
    if tiled and columns * across * rows * down > 2 * MAX_PIXELS:
        raise _too_large("has tiles that are much larger than the picture")
    pieces = columns * rows * planes
    if pieces > MAX_TIFF_PIECES:
        raise _Refusal(f"is a TIFF of more than {MAX_TIFF_PIECES:,} strips or tiles")
    offset_tag, length_tag = (324, 325) if tiled else (273, 279)
    offsets = tags.numbers(offset_tag, most=MAX_TIFF_PIECES)[:pieces]
    if not by_libtiff:  # what is said of their lengths does not matter
        row = -(-across * tags.number(258, 1) * tags.number(277, 1) // 8)
        needed = [row * (down if tiled else min(down, height - down * (piece % rows))) for piece in range(pieces)]
    else:
        needed = list(tags.numbers(length_tag, most=MAX_TIFF_PIECES)[:pieces])
    if len(offsets) < pieces or len(needed) < pieces:
        raise _damaged()
    if any(offset + length > len(tags.data) for offset, length in zip(offsets, needed, strict=True)):
        raise _cut_short()
    if sum(needed) > MAX_BYTES:
        raise _too_big()
    if tags.number(259) == 7:
        for offset, length in zip(offsets, needed, strict=True):
            _check_jpeg_piece(tags.data[offset : offset + length])
    shape = {322: (across,), 323: (down,)} if tiled else {278: (down,)}
    return {offset_tag: offsets, length_tag: tuple(needed), **shape}


def _check_jpeg_piece(data: bytes) -> None:
    """Refuse a strip or tile that is a JPEG cut short or of too many scans."""
    for marker, start, _ in _jpeg_segments(data):
        if marker == 0xDA:
            _end_of_scans(data, start)
            return


def _tiff_directory(tags: _Directory, changed: dict[int, tuple[int, ...]], start: int) -> tuple[bytes, bytes]:
    """Return a directory that begins at `start` with the needed tags, and the header that points to it."""
    order, entries = tags.order, []
    for tag in sorted(_TIFF_TAGS):
        if tag in changed:
            values = changed[tag]
            kind, count, content = 4, len(values), struct.pack(f"{order}{len(values)}I", *values)
            if max(values) < 1 << 16:  # a colour map has to be of these
                kind, content = 3, struct.pack(f"{order}{len(values)}H", *values)
        elif tag in tags and not {273, 279, 324, 325, 278, 322, 323} & {tag}:
            kind, count, content = tags.raw(tag, 1 << 18)
            if kind == 16:
                values = tags.numbers(tag)
                kind, content = 4, struct.pack(f"{order}{count}I", *values)
        else:
            continue
        entries.append((tag, kind, count, content))
    place = start + 2 + 12 * len(entries) + 4
    body, behind = [struct.pack(order + "H", len(entries))], []
    for tag, kind, count, content in entries:
        body.append(struct.pack(order + "HHI", tag, kind, count))
        if len(content) <= 4:
            body.append(content.ljust(4, b"\0"))
        else:
            body.append(struct.pack(order + "I", place))
            behind.append(content + b"\0" * (len(content) % 2))
            place += len(behind[-1])
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return b"".join([*body, bytes(4), *behind]), head


def _plain_tiff(image: Image.Image, bits: int, inverted: bool) -> Image.Image:
    """Return a decoded TIFF with the greys of 12 and 16 bits spread over the same range, none of them inverted."""
    if image.mode.startswith("I;16") and (bits == 12 or inverted):
        values = np.asarray(image).astype(np.uint16) << (16 - bits)
        return Image.fromarray(65535 - values if inverted else values)
    if inverted:
        raise _unsupported("is a TIFF of a kind that is not read")
    return image


# ---------------------------------------------------------------- JPEG 2000 (ITU-T T.800)

_JP2_START = b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x14ftypjp2 \0\0\0\0jp2 "
_JP2_HEADER = {b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef"}  # what says how colours are stored


def _from_jp2(data: bytes, size: int | None) -> tuple[Image.Image, Box | None]:
    """Decode a JPEG 2000 at the smallest scale that suits `size`; returns it and its box."""
    header, stream = _jp2_parts(data)
    code = _Codestream(data, *stream)
    width, height = code.size
    if header is not None:
        kinds = {kind: data[start:end] for kind, start, end in _boxes(data, *header) if kind in _JP2_HEADER}
        if kinds.get(b"ihdr", b"")[:10] != struct.pack(">IIH", height, width, code.components):
            raise _damaged()
        if kinds.get(b"colr", b"\1")[:1] != b"\1":  # a colour profile
            del kinds[b"colr"]
        body = b"".join(struct.pack(">I4s", 8 + len(kinds[kind]), kind) + kinds[kind] for kind in _ordered(kinds))
        plain = _JP2_START + struct.pack(">I4s", 8 + len(body), b"jp2h") + body
        plain += struct.pack(">I4s", 8 + stream[1] - stream[0], b"jp2c")
    else:
        plain = b""
    image: Any = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(plain + data[slice(*stream)]))
    halvings = 0
    if size and not code.shifted:
        while halvings < code.levels and min(width, height) >> (halvings + 1) >= DRAFT_MARGIN * size:
            halvings += 1
    _check_size(-(-width >> halvings), -(-height >> halvings), MAX_JP2_PIXELS)
    if not halvings:
        image.load()
        return image, None
    codec, _, offset, (kind, _, *rest) = image.tile[0]
    # By hand, since Pillow rounds the size where the standard takes the next whole number.
    image._size = (-(-width >> halvings), -(-height >> halvings))
    image.tile = [(codec, (0, 0, *image.size), offset, (kind, halvings, *rest))]
    image.load()
    image.info = {"reduced": True}
    # The pixels that are kept stand at the left and top of those that they are for, not in their middle.
    start = 0.5 - 0.5 / 2**halvings
    return image, (
        start,
        start,
        min(image.width, width / 2**halvings + start),
        min(image.height, height / 2**halvings + start),
    )


def _ordered(kinds: dict[bytes, bytes]) -> list[bytes]:
    return sorted(kinds, key=[b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef"].index)


def _jp2_parts(data: bytes) -> tuple[tuple[int, int] | None, tuple[int, int]]:
    """Return where the header's boxes are, if there are any, and where the codestream is."""
    if data.startswith(b"\xff\x4f"):
        return None, (0, len(data))
    header = None
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"jp2h" and header is None:
            header = (start, end)
        elif kind == b"jp2c":
            if header is None:
                raise _damaged()
            return header, (start, end)
    raise _cut_short()


class _Codestream:
    """What a codestream says of itself, checked to its end without decoding anything.

    size        width and height
    levels      how often it can be halved
    shifted     whether the picture does not start where the grid does
    """

    def __init__(self, data: bytes, start: int, end: int):
        self._data, self._end, self._segments = data, end, 0
        self.levels, self._layers = 32, 1
        try:
            self._read(start)
        except (struct.error, IndexError) as error:
            raise _cut_short() from error

    def _read(self, position: int) -> None:
        if self._data[position + 2 : position + 4] != b"\xff\x51":
            raise _damaged()
        self._read_size(position + 6)
        position = self._read_header(position + 2, 0x90)
        tiles = set()
        while self._data[position : position + 2] == b"\xff\x90":
            tile, length = struct.unpack_from(">HI", self._data, position + 4)
            tiles.add(tile)
            stop = position + length if length else self._end - 2
            if stop > self._end:
                raise _cut_short()
            if self._read_header(position + 12, 0x93) > stop:
                raise _damaged()
            position = stop
        if self._data[position : min(position + 2, self._end)] != b"\xff\xd9" or len(tiles) < self._tiles:
            raise _cut_short()

    def _read_size(self, at: int) -> None:
        _, right, bottom, left, top, *tile, self.components = struct.unpack_from(">HIIIIIIIIH", self._data, at)
        width, height, first, second = tile
        if right <= left or bottom <= top:
            raise _damaged()
        self.size, self.shifted = (right - left, bottom - top), (left, top, first, second) != (0, 0, 0, 0)
        _check_size(*self.size)
        if self.components > 4:
            raise _unsupported(f"is a JPEG 2000 of {self.components} components")
        for depth, across, down in struct.iter_unpack("BBB", self._data[at + 36 : at + 36 + 3 * self.components]):
            if depth & 127 > 15 or not (1 <= across <= 4 and 1 <= down <= 4):
                raise _unsupported("is a JPEG 2000 of a kind that is not read")
        if not (width > 0 and height > 0 and first <= left < first + width and second <= top < second + height):
            raise _damaged()
        self._tiles = -(-(right - first) // width) * -(-(bottom - second) // height)
        self._tile = min(width, self.size[0]), min(height, self.size[1])
        if self._tiles > MAX_JP2_TILES:
            raise _Refusal(f"is a JPEG 2000 of more than {MAX_JP2_TILES:,} tiles")

    def _read_header(self, position: int, last: int) -> int:
        """Check the segments up to the marker `last`; returns where that stands."""
        while True:
            self._segments += 1
            if self._segments > MAX_JP2_SEGMENTS:
                raise _Refusal(f"is a JPEG 2000 of more than {MAX_JP2_SEGMENTS:,} segments")
            mark, marker = self._data[position], self._data[position + 1]
            if mark != 0xFF or position > self._end:
                raise _damaged()
            if marker == last:
                return position
            (length,) = struct.unpack_from(">H", self._data, position + 2)
            if length < 2:
                raise _damaged()
            content = self._data[position + 4 : position + 2 + length]
            if marker == 0x52:  # COD
                (self._layers,) = struct.unpack_from(">H", content, 2)
                self._check_coding(content[0], content[5:])
            elif marker == 0x53:  # COC
                self._check_coding(content[1], content[2:])
            position += 2 + length

    def _check_coding(self, style: int, content: bytes) -> None:
        """Refuse a way of coding that costs much more than there are pixels: tiny blocks, millions of packets."""
        levels, wide, high = content[0], content[1] & 15, content[2] & 15
        if levels > 32:
            raise _damaged()
        self.levels = min(self.levels, levels)
        packets = 0
        for level in range(levels + 1):
            precinct = content[5 + level] if style & 1 else 0xFF
            across, down = (-(-side >> (levels - level)) for side in self._tile)
            packets += ((across >> (precinct & 15)) + 2) * ((down >> (precinct >> 4)) + 2)
        packets *= self._tiles * self.components * self._layers
        if wide + high + 4 < 8 or packets > MAX_JP2_PACKETS:
            raise _Refusal("is a JPEG 2000 in too many small pieces")


# ---------------------------------------------------------------- RGB, upright


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return a picture of any mode in RGB, on white where it is transparent, without metadata."""
    if image.mode.startswith("I;16"):
        image = _from_16_bits(image)
    elif image.mode == "F":
        image = Image.fromarray(_from_unit_floats(np.asarray(image)))
    elif image.mode == "I":
        raise _Refusal("holds 32-bit integers, whose range is unknown", "convert it to 8 bits first")
    elif image.mode == "LAB":
        image = _from_lab(image)
    reduced: dict[str | tuple[int, int], Any] = {"reduced": True} if "reduced" in image.info else {}
    if _is_transparent(image):
        image = _on_white(image)
    else:
        if "transparency" in image.info:  # of a kind that Pillow stumbles over
            image = image.copy()
            del image.info["transparency"]
        image = image.convert("RGB")
    image.info = reduced
    return image


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8-bit grey by its upper byte, as Pillow does for 16-bit RGB.

    The upper byte undoes both ways of widening 8 bits, times 256 and times 257, exactly.
    """
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def _from_lab(image: Image.Image) -> Image.Image:
    """Return a CIELAB picture (D50) as sRGB."""
    from PIL import ImageCms  # needs Pillow built with Little CMS

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # only in place it returns nothing
    return converted


def _is_transparent(image: Image.Image) -> bool:
    """Tell whether a picture has an alpha channel or one transparent colour that Pillow can apply."""
    key = image.info.get("transparency")
    if image.mode in ("P", "1", "L") and isinstance(key, int):
        return True
    if image.mode == "P" and isinstance(key, bytes):
        return True
    if image.mode == "RGB" and isinstance(key, tuple) and len(key) == 3:
        return True
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La")


def _on_white(image: Image.Image) -> Image.Image:
    """Composite a picture on white and return it in RGB."""
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode != "RGBA":
        image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _upright(image: Image.Image, orientation: int, box: Box | None) -> tuple[Image.Image, Box | None]:
    """Turn a picture as its EXIF orientation says, and the box (left, top, right, bottom) with it."""
    if orientation == 1:
        return image, box
    info = image.info
    image = image.transpose(_TRANSPOSE[orientation])
    image.info = info
    if box is None:
        return image, None
    # The box starts at the top left; what lies beyond it moves with the right and the bottom edge.
    width, height = (box[3], box[2]) if orientation >= 5 else box[2:]
    left = image.width - width if orientation in (2, 3, 6, 7) else 0
    top = image.height - height if orientation in (3, 4, 7, 8) else 0
    return image, (left, top, left + width, top + height)
