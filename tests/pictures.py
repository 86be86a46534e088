"""Drawn pictures, and files of them in every shape that the tests need."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pillow_heif
from PIL import Image


def scene(width: int = 120, height: int = 80) -> Image.Image:
    """An RGB picture whose four corners differ: ramps, a disc and stripes."""
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    disc = (x - 0.3) ** 2 + (y - 0.35) ** 2 < 0.04
    stripes = np.sin(40 * x * y) > 0.6
    bands = [255 * x, 255 * y, 200 * (1 - x * y)]
    bands = [np.where(disc, value, band) for band, value in zip(bands, (250, 200, 10), strict=True)]
    return Image.fromarray(np.stack([np.where(stripes, 0.4 * band, band) for band in bands], -1).astype(np.uint8))


def quarters(width: int = 64, height: int = 32) -> Image.Image:
    """Red, green / blue, white: whichever way it is turned, it looks different."""
    image = Image.new("RGB", (width, height), "white")
    image.paste("red", (0, 0, width // 2, height // 2))
    image.paste("lime", (width // 2, 0, width, height // 2))
    image.paste("blue", (0, height // 2, width // 2, height))
    return image


def detailed(width: int, height: int) -> Image.Image:
    """A big RGB picture with detail at every scale: smoothed noise of six octaves, edges and sensor noise."""
    rng = np.random.default_rng(0)
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(2, 8):
        cells = rng.integers(0, 256, (2**octave * 3 // 4, 2**octave, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)) * np.float32(
            1.4**-octave
        )
    total *= 255 / total.max()
    total[:: height // 90, :, :] = 0
    total[:, :: width // 70, 1:] = 255
    total += 8 * rng.standard_normal((height, width, 1), np.float32)
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options) -> bytes:
    """The bytes of a file."""
    stream = io.BytesIO()
    if kind == "HEIF":  # without making it known to Pillow
        pillow_heif.from_pillow(image).save(stream, **options)
    else:
        image.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> Image.Exif:
    """An EXIF block with an orientation and some more."""
    block = Image.Exif()
    block[0x010E] = "drawn"
    block[0x0112] = orientation
    return block


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: np.ndarray, colour: int, depth: int, *extra: bytes, size: tuple[int, int] | None = None) -> bytes:
    """A PNG from its samples, shape (h, w, channels), depth 8 or 16, or packed bytes (h, w) below; `extra`
    are chunks that stand before the data."""
    height, width = samples.shape[:2] if size is None else size[::-1]
    rows = samples.astype(">u2" if depth == 16 else "u1")
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def without_segments(jpeg: bytes, marker: int) -> bytes:
    """A JPEG less the header segments of one marker."""
    kept, position = [jpeg[:2]], 2
    while jpeg[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        if jpeg[position + 1] != marker:
            kept.append(jpeg[position:end])
        position = end
    return b"".join(kept) + jpeg[position:]
