"""The photos that the server is measured with: scikit-image's cat, small, like a phone's, and as large as is read."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from skimage.data import chelsea

from hub.images import MAX_JPEG_PIXELS, MAX_PIXELS

SMALL, PHONE = (672, 447), (4032, 3024)  # pixels: 0.3 and 12 megapixels
NOISE = 4  # of 255, as a camera's sensor adds it: without it an enlarged photo is too easy to read


def encoded(picture: Image.Image, form: str, **options) -> bytes:
    """Return a picture's file."""
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def cat(width: int, height: int, seed: int = 0) -> Image.Image:
    """The cat, squashed to a size, with a sensor's noise, which `seed` makes another one."""
    picture = np.asarray(Image.fromarray(np.asarray(chelsea())).resize((width, height), Image.Resampling.BICUBIC))
    tile = np.rint(np.random.default_rng(seed).normal(0, NOISE, (min(height, 500), width, 1))).astype(np.int16)
    noisy = np.empty_like(picture)
    for top in range(0, height, len(tile)):  # in strips, since 64 megapixels of int16 are a lot
        strip = picture[top : top + len(tile)]
        noisy[top : top + len(tile)] = np.clip(strip + tile[: len(strip)], 0, 255)
    return Image.fromarray(noisy)


def small(seed: int = 0) -> bytes:
    """A JPEG of 0.3 megapixels."""
    return encoded(cat(*SMALL, seed), "JPEG", quality=90)


def phone() -> bytes:
    """A JPEG of 12 megapixels."""
    return encoded(cat(*PHONE), "JPEG", quality=90)


def largest() -> dict[str, bytes]:
    """The files that take most memory to decode, one of a kind, each as large as `hub.images` reads."""
    jpeg = cat(int(MAX_JPEG_PIXELS**0.5), int(MAX_JPEG_PIXELS**0.5))
    width = int(MAX_PIXELS**0.5)
    clear = Image.new("RGBA", (width, width), (200, 120, 60, 128))
    return {
        "JPEG": encoded(jpeg, "JPEG", quality=75),
        "progressive JPEG": encoded(jpeg, "JPEG", quality=75, progressive=True),
        "transparent PNG": encoded(clear, "PNG"),
        "GIF": encoded(clear.convert("RGB").quantize(4), "GIF"),
        "WebP": encoded(clear, "WEBP", lossless=True, quality=0, method=0),
        "AVIF": encoded(clear.convert("RGB"), "AVIF", speed=10),
    }
