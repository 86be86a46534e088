"""hub/images.py: every kind of picture gives the right pixels, every other file one sentence."""

from __future__ import annotations

import hashlib
import io
import random
import re
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, ImageFile, ImageOps

from hub import images
from hub.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from hub.images import (
    LARGE_PIXELS,
    MAX_BOXES,
    MAX_BYTES,
    MAX_JPEG_PIXELS,
    MAX_JPEG_SCANS,
    MAX_JPEG_SEGMENTS,
    MAX_PIXELS,
    MAX_PNG_CHUNKS,
    MAX_SIDE,
    declared_pixels,
    open_image,
    pixel_hash,
    to_tensor,
    to_tensor_and_picture,
)
from tests.pictures import chunk, detailed, encode, exif, png, quarters, scene, without_segments

SCENE = scene()
PIXELS = np.asarray(SCENE)
ORIENTED = {  # what an upright picture looks like when it is stored for each orientation
    1: lambda image: image,
    2: ImageOps.mirror,
    3: lambda image: image.rotate(180),
    4: ImageOps.flip,
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.rotate(90, expand=True),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.rotate(-90, expand=True),
}


def difference(first, second) -> float:
    """Mean absolute difference of two pictures or arrays."""
    return float(np.abs(np.asarray(first).astype(int) - np.asarray(second).astype(int)).mean())


def refusal(source, **options) -> str:
    """The one sentence with which `source` is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError) as caught:
            open_image(source, **options)
    sentence = str(caught.value)
    assert re.fullmatch(r"[^\n]+; [^\n]+\.", sentence), sentence
    assert ". " not in sentence, sentence
    assert "/" not in sentence, sentence
    return sentence


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 6),
        ("JPEG", {"quality": 95, "progressive": True}, 6),
        ("JPEG", {"quality": 95, "restart_marker_blocks": 2}, 6),
        ("MPO", {"quality": 95}, 6),
        ("PNG", {}, 0),
        ("WEBP", {"quality": 95}, 6),
        ("WEBP", {"lossless": True}, 0),
        ("AVIF", {"quality": 95}, 6),
        ("BMP", {}, 0),
        ("HEIF", {"quality": 95}, 6),
        ("HEIF", {"quality": 95, "tile_size": 64}, 6),
        ("TIFF", {}, 0),
        ("TIFF", {"big_tiff": True}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
        ("TIFF", {"compression": "packbits"}, 0),
        ("TIFF", {"compression": "zstd"}, 0),
        ("TIFF", {"compression": "jpeg", "quality": 95}, 6),
        ("JPEG2000", {}, 0),
        ("JPEG2000", {"no_jp2": True}, 0),
        ("JPEG2000", {"tile_size": (64, 64)}, 0),
        ("JPEG2000", {"irreversible": True, "quality_layers": [5]}, 6),
    ],
)
def test_colour_files(kind, options, tolerance):
    image = open_image(encode(SCENE, kind, **options))
    assert (image.mode, image.size, image.info) == ("RGB", SCENE.size, {})
    assert difference(image, SCENE) <= tolerance


def test_interlaced_png():
    """Adam7 by hand: a 1 x 1 and a 2 x 1 picture have one and two passes."""
    body = struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 1)
    data = zlib.compress(b"\0\1\2\3" + b"\0\4\5\6")
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", body) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    assert np.asarray(open_image(file)).tolist() == [[[1, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "HEIF", "TIFF", "JPEG2000"])
def test_grey_files(kind):
    grey = SCENE.convert("L")
    image = open_image(encode(grey, kind))
    assert image.mode == "RGB"
    assert difference(image, grey.convert("RGB")) < 6


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_jpeg(adobe, progressive):
    """Inverted as Adobe writes it; practice treats files without Adobe's marker alike."""
    ink = Image.merge("CMYK", [Image.new("L", (32, 32), value) for value in (10, 200, 90, 40)])
    file = encode(ink, "JPEG", quality=100, progressive=progressive)
    assert b"Adobe" in file
    file = file if adobe else without_segments(file, 0xEE)
    expected = [(255 - value) * (255 - 40) / 255 for value in (10, 200, 90)]
    assert np.abs(np.asarray(open_image(file)) - expected).max() < 5


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind, orientation):
    upright = quarters()
    file = encode(ORIENTED[orientation](upright), kind, exif=exif(orientation), quality=95)
    for source in (file, Image.open(io.BytesIO(file)), _loaded(file)):
        image = open_image(source)
        assert image.size == upright.size
        assert difference(image, upright) < 6
        assert difference(open_image(image), upright) < 6  # not turned twice


def _loaded(file: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(file))
    image.load()
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_reduced_jpeg(orientation):
    """1001 x 795 at 1/4 is 250.25 x 198.75: the last column is not full and must not shift the picture."""
    upright = scene(1001, 795)
    file = encode(ORIENTED[orientation](upright), "JPEG", exif=exif(orientation), quality=95, subsampling=0)
    assert open_image(file, size=32).size in ((251, 199), (252, 200))
    assert difference(to_tensor(file, 32), to_tensor(open_image(file), 32)) < 0.5


def test_every_way_of_writing_the_orientation():
    def block(order: str, kind: int, value: int) -> bytes:
        magic = b"II*\0" if order == "<" else b"MM\0*"
        stored = struct.pack(order + ("I" if kind == 4 else "HH"), *([value] if kind == 4 else [value, 0]))
        return magic + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1) + stored + bytes(4)

    for order in "<>":
        for kind in (3, 4):
            file = encode(ORIENTED[6](quarters()), "JPEG", exif=b"Exif\0\0" + block(order, kind, 6), quality=95)
            assert difference(open_image(file), quarters()) < 6


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"II*\0",
        b"not a TIFF header",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff\x01\x12",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0",  # orientation 99
        b"II*\0\x08\0\0\0\x02\0\x1a\x01\x05\0\x01\0\0\0\xff\xff\xff\x7f\x28\x01\x03\0\x01\0\0\0\x02\0\0\0",
    ],
)
def test_broken_exif_does_not_break_the_picture(broken, prefix):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("JPEG", "PNG", "WEBP"):
            plain = encode(SCENE, kind)
            file = _with_exif(plain, kind, prefix + broken)
            assert open_image(file) == open_image(plain)
        loaded = _loaded(encode(SCENE, "PNG"))
        loaded.info["exif"] = prefix + broken
        assert open_image(loaded) == SCENE


def _with_exif(file: bytes, kind: str, block: bytes) -> bytes:
    """Put any bytes where the EXIF block belongs."""
    if kind == "JPEG":
        segment = b"Exif\0\0" + block.removeprefix(b"Exif\0\0")
        return file[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + file[2:]
    if kind == "PNG":
        return file[:33] + chunk(b"eXIf", block) + file[33:]
    chunks = file[12:] + b"EXIF" + struct.pack("<I", len(block)) + block + b"\0" * (len(block) % 2)
    size = struct.pack("<I", SCENE.width - 1)[:3] + struct.pack("<I", SCENE.height - 1)[:3]
    chunks = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + size + chunks
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def test_broken_exif_of_an_avif():
    file = bytearray(encode(ORIENTED[8](quarters()), "AVIF", exif=exif(8), quality=95))
    at = file.index(b"MM\0*") if b"MM\0*" in file else file.index(b"II*\0")
    file[at : at + 12] = b"\xff" * 12
    assert difference(open_image(bytes(file)), quarters()) < 6


@pytest.mark.parametrize("profile", [b"not a profile", b"\xff" * 400, b""])
def test_broken_colour_profile_does_not_break_the_picture(profile):
    for kind in ("JPEG", "PNG", "WEBP"):
        assert open_image(encode(SCENE, kind, icc_profile=profile)) == open_image(encode(SCENE, kind))
    plain = encode(SCENE, "PNG")  # nor one that is not even compressed, nor a text of 100 MB
    junk = chunk(b"iCCP", b"x\0\x09" + profile) + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**8)))
    assert open_image(plain[:33] + junk + plain[33:]) == SCENE


def test_checksum_of_metadata_does_not_matter():
    plain = encode(SCENE, "PNG")
    assert open_image(plain[:33] + chunk(b"tEXt", b"k\0v")[:-4] + b"\0\0\0\0" + plain[33:]) == SCENE


# ---------------------------------------------------------------- PNG's depths and transparencies

WIDE = np.array([[0, 1, 255, 256, 257], [32768, 30000, 65279, 65280, 65535]])


def test_16_bit_grey_is_scaled():
    image = open_image(png(WIDE, 0, 16))
    assert np.array_equal(np.asarray(image)[..., 0], WIDE >> 8)
    assert np.abs(np.asarray(image)[..., 0] - WIDE / 257).max() <= 1


@pytest.mark.parametrize("factor", [256, 257])
@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3)])
def test_16_bit_holds_8_bit_exactly(colour, channels, factor):
    eight = PIXELS[..., :channels]
    image = np.asarray(open_image(png(eight.astype(int) * factor, colour, 16)))
    assert np.array_equal(image, np.broadcast_to(eight, image.shape))


@pytest.mark.parametrize(("colour", "channels"), [(4, 2), (6, 4)])
@pytest.mark.parametrize("depth", [8, 16])
def test_alpha_is_composited_on_white(colour, channels, depth):
    samples = np.full((1, 5, channels), 60)
    samples[0, :, -1] = [0, 1, 128, 254, 255]
    image = np.asarray(open_image(png(samples * (257 if depth == 16 else 1), colour, depth)))
    expected = 255 - (255 - 60) * samples[0, :, -1] / 255
    assert np.abs(image - expected[None, :, None]).max() <= 1
    assert image[0, 0].tolist() == [255] * 3
    assert image[0, -1].tolist() == [60] * 3


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_transparent_grey(depth):
    """A row that holds the greys 0 and 1 of the depth; 1 is transparent."""
    key = chunk(b"tRNS", struct.pack(">H", 1))
    row = {1: 0b01000000, 2: 0b00010000, 4: 0b00000001}.get(depth)
    samples = np.array([[0, 1]]) if row is None else np.array([[row]])
    image = np.asarray(open_image(png(samples, 0, depth, key, size=(2, 1))))
    assert image.tolist() == [[[0] * 3, [255] * 3]]
    if depth > 1:  # the brightest stays, and without the key there is no white
        image = np.asarray(open_image(png(samples, 0, depth, size=(2, 1))))
        assert image.max() == 255 * 1 // ((1 << depth) - 1)


@pytest.mark.parametrize("depth", [8, 16])
def test_one_transparent_colour(depth):
    wide = 257 if depth == 16 else 1
    samples = np.array([[[10, 20, 30], [10, 20, 31], [0, 0, 0]]]) * wide
    key = chunk(b"tRNS", struct.pack(">3H", *samples[0, 0]))
    image = np.asarray(open_image(png(samples, 2, depth, key)))
    assert image.tolist() == [[[255] * 3, [10, 20, 31], [0, 0, 0]]]


def test_palette_and_its_transparency():
    palette = chunk(b"PLTE", bytes([200, 0, 0, 0, 100, 0, 0, 0, 50]))
    indices = np.array([[0, 1, 2]])
    assert np.asarray(open_image(png(indices, 3, 8, palette))).tolist() == [[[200, 0, 0], [0, 100, 0], [0, 0, 50]]]
    half = png(indices, 3, 8, palette, chunk(b"tRNS", bytes([255, 0, 128])))
    assert np.asarray(open_image(half)).tolist() == [[[200, 0, 0], [255] * 3, [127, 127, 152]]]
    one = png(indices, 3, 8, palette, chunk(b"tRNS", b"\0"))
    assert np.asarray(open_image(one)).tolist() == [[[255] * 3, [0, 100, 0], [0, 0, 50]]]
    packed = png(np.array([[0b00011000]]), 3, 2, palette, size=(3, 1))
    assert open_image(packed) == open_image(png(indices, 3, 8, palette))


def test_1_bit():
    bits = SCENE.convert("1")
    assert open_image(encode(bits, "PNG")) == bits.convert("RGB")
    assert open_image(bits) == bits.convert("RGB")


@pytest.mark.parametrize("size", [(1, 1), (5000, 3), (3, 5000)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
def test_extreme_shapes(kind, size):
    file = encode(Image.new("RGB", size, (200, 100, 50)), kind)
    assert open_image(file).size == size
    tensor = to_tensor(file, 224)
    assert tensor.shape == (224, 224, 3)
    assert np.abs(tensor - np.array([200, 100, 50])).max() <= 6


# ---------------------------------------------------------------- animations

FRAMES = [Image.new("RGB", (20, 10), colour) for colour in ((255, 0, 0), (0, 0, 255))]


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("AVIF", {})])
def test_first_frame(kind, options):
    file = encode(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:], duration=100, **options)
    assert Image.open(io.BytesIO(file)).n_frames == 2
    assert difference(open_image(file), FRAMES[0]) < 3
    later = Image.open(io.BytesIO(file))
    later.seek(1)  # who chose a frame gets it
    assert difference(open_image(later), FRAMES[1]) < 3


def _gif(canvas, frame, *, transparent: int | None = None) -> bytes:
    """A GIF of two colours (0 red, 1 black) with one frame of colour 0 somewhere on its canvas."""
    left, top, right, bottom = frame
    block = encode(Image.new("P", (right - left, bottom - top), 0), "GIF")
    data = block[block.index(b"\x2c") + 10 :]
    head = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, 0, 0) + bytes([255, 0, 0, 0, 0, 0])
    control = b"" if transparent is None else b"\x21\xf9\x04\x01\0\0" + bytes([transparent]) + b"\0"
    place = struct.pack("<HHHHB", left, top, right - left, bottom - top, 0)
    return head + control + b"\x2c" + place + data


def test_gif_with_an_endless_comment():
    """Four million parts of one byte: joined one by one they take the better part of an hour."""
    file = encode(SCENE.convert("P"), "GIF")
    end = 13 + (3 << ((file[10] & 7) + 1))
    bomb = file[:end] + b"\x21\xfe" + b"\x01a" * 2**22 + b"\x00" + file[end:]
    assert open_image(bomb).tobytes() == open_image(file).tobytes()


@pytest.mark.parametrize("transparent", [None, 1])
def test_gif_frame_smaller_than_its_canvas(transparent):
    """What the frame does not cover is transparent, not colour 0."""
    image = np.asarray(open_image(_gif((6, 4), (2, 1, 5, 3), transparent=transparent)))
    expected = np.full((4, 6, 3), 255)
    expected[1:3, 2:5] = [255, 0, 0]
    assert np.array_equal(image, expected)
    assert np.asarray(open_image(_gif((6, 4), (2, 1, 5, 3), transparent=0))).min() == 255


# ---------------------------------------------------------------- HEIC


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(orientation):
    """The container says how it is turned; whatever its EXIF block says as well is not obeyed again."""
    stored = ORIENTED[orientation](quarters())
    file = encode(stored, "HEIF", exif=exif(orientation).tobytes(), quality=95)
    assert open_image(file).size == quarters().size
    assert difference(open_image(file), quarters()) < 6
    block = exif(1).tobytes()
    at = encode(SCENE, "HEIF", exif=block).index(block)
    turned = bytearray(encode(SCENE, "HEIF", exif=block))
    turned[at : at + len(block)] = exif(6).tobytes()  # put there by a careless program
    assert difference(open_image(bytes(turned)), SCENE) < 6


def test_heic_takes_the_primary_picture_alpha_on_white_and_ten_bits():
    file = io.BytesIO()
    two = pillow_heif.from_pillow(FRAMES[0])
    two.add_from_pillow(FRAMES[1])
    two.save(file, primary_index=1, quality=95)
    assert difference(open_image(file.getvalue()), FRAMES[1]) < 3
    clear = SCENE.convert("RGBA")
    clear.putalpha(0)
    assert np.asarray(open_image(encode(clear, "HEIF", quality=95))).min() > 250
    deep = np.repeat(PIXELS[..., :1].astype(np.uint16), 3, -1) * 257
    pillow_heif.encode("RGB;16", SCENE.size, deep.tobytes(), ten := io.BytesIO(), quality=95)
    assert difference(open_image(ten.getvalue()), np.repeat(PIXELS[..., :1], 3, -1)) < 6


def test_heic_that_costs_more_than_it_shows_is_refused():
    small = bytearray(FILES["heic"])
    at = small.index(b"ispe") + 8
    for size, words in (((60, 40), "damaged"), ((240, 160), "damaged"), ((8001, 8000), "64 megapixels")):
        small[at : at + 8] = struct.pack(">II", *size)
        assert words in refusal(bytes(small))
    grid = bytearray(FILES["heic grid"])  # four tiles, each of which claims to be 40 megapixels
    for match in re.finditer(b"ispe\0\0\0\0" + struct.pack(">II", 64, 64), grid):
        grid[match.start() + 8 : match.end()] = struct.pack(">II", 8000, 5000)
    assert "put together from more than 128 megapixels" in refusal(bytes(grid))
    items = bytearray(FILES["heic"])
    at = items.index(b"iloc") + 8
    items[at : at + 4] = b"\0\0\xff\xff"  # 65,535 items that take no room themselves
    assert refusal(bytes(items))


# ---------------------------------------------------------------- TIFF


def tiff(order: str, *entries: tuple[int, int, list[int]], data: bytes = b"") -> bytes:
    """A TIFF whose data begin at byte 8, with entries (tag, type 3 or 4, values)."""
    start, body, behind = 8 + len(data), struct.pack(order + "H", len(entries)), b""
    for tag, kind, values in entries:
        content = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        place = start + 2 + 12 * len(entries) + 4 + len(behind)
        body += struct.pack(order + "HHI", tag, kind, len(values))
        body += content.ljust(4, b"\0") if len(content) <= 4 else struct.pack(order + "I", place)
        behind += content if len(content) > 4 else b""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return head + data + body + bytes(4) + behind


def plain_tiff(samples: np.ndarray, photometric: int, *, order: str = "<", planes: bool = False, **more) -> bytes:
    """An uncompressed TIFF from samples of shape (h, w, channels), uint8 or uint16."""
    height, width, channels = samples.shape
    stored = (samples.transpose(2, 0, 1) if planes else samples).astype(samples.dtype.newbyteorder(order)).tobytes()
    count = channels if planes else 1
    part = len(stored) // count
    return tiff(
        order,
        (256, 3, [width]),
        (257, 3, [height]),
        (258, 3, [8 * samples.dtype.itemsize] * channels),
        (259, 3, [1]),
        (262, 3, [photometric]),
        (273, 4, [8 + part * plane for plane in range(count)]),
        (277, 3, [channels]),
        (278, 3, [height]),
        (279, 4, [part] * count),
        (284, 3, [2 if planes else 1]),
        *[(int(tag[1:]), 3, values) for tag, values in more.items()],
        data=stored,
    )


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_of_every_depth_order_and_layout(order, planes, dtype):
    """Pillow by itself takes planes of 16 bits for bytes."""
    wide = PIXELS.astype(dtype) * (257 if dtype == np.uint16 else 1)
    assert np.array_equal(np.asarray(open_image(plain_tiff(wide, 2, order=order, planes=planes))), PIXELS)
    grey = np.asarray(open_image(plain_tiff(wide[..., :1], 1, order=order, planes=planes)))
    assert np.array_equal(grey[..., 0], PIXELS[..., 0])
    white_is_zero = np.asarray(open_image(plain_tiff(wide[..., :1], 0, order=order)))
    assert np.array_equal(white_is_zero[..., 0], 255 - PIXELS[..., 0])


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGBA", "CMYK", "YCbCr", "LAB"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_tiff_modes(mode, compression):
    """Uncompressed YCbCr is another thing that Pillow by itself reads wrongly."""
    image = SCENE.convert(mode) if mode != "LAB" else _lab()
    file = encode(image, "TIFF", compression=compression)
    assert difference(open_image(file), open_image(image)) < 1


def _lab() -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(SCENE, srgb, lab, outputMode="LAB")


def test_tiff_first_page_palette_of_bytes_and_alpha_that_is_multiplied_already():
    file = encode(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:])
    assert open_image(file) == FRAMES[0]
    colours = [value for band in ((200, 0), (0, 100), (0, 50)) for value in (*band, *[0] * 254)]
    indices = np.array([[[0], [1]]], np.uint8)
    assert np.asarray(open_image(plain_tiff(indices, 3, t320=colours))).tolist() == [[[200, 0, 0], [0, 100, 50]]]
    half = np.array([[[60, 60, 60, 128]]], np.uint8)
    assert np.abs(np.asarray(open_image(plain_tiff(half, 2, t338=[1]))).astype(int) - 187).max() <= 1


def test_camera_raw_that_looks_like_tiff_is_refused_by_name():
    thumbnail = np.zeros((8, 8, 3), np.uint8)
    for tags in ({"t50706": [1]}, {"t254": [1], "t330": [8]}):
        assert "camera's raw" in refusal(plain_tiff(thumbnail, 2, **tags))
    assert "not in a format" in refusal(b"II*\0\x10\0\0\0CR\2\0" + bytes(100))


def _tiff_of(*, size=(8, 8), compression=8, data=None, **tags) -> bytes:
    data = zlib.compress(bytes(64)) if data is None else data
    entries = {256: [size[0]], 257: [size[1]], 258: [8], 259: [compression], 262: [1], 277: [1]}
    entries |= {273: [8], 278: [size[1]], 279: [len(data)]} | {int(tag[1:]): values for tag, values in tags.items()}
    return tiff("<", *[(tag, 4, values) for tag, values in sorted(entries.items()) if values], data=data)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": (6400, 6400)}, "40 megapixels"),
        ({"size": (1, 70_000)}, "along one side"),
        ({"size": (0, 8)}, "pixels"),
        ({"t256": None}, "damaged"),
        ({"t279": [10**6]}, "cut short"),
        ({"t273": [10**6]}, "cut short"),
        ({"t278": [1]}, "damaged"),  # eight strips, of which one is there
        ({"t278": [0]}, "damaged"),
        ({"t322": [10**5], "t323": [10**5], "t324": [8], "t325": [10], "t273": None}, "tiles that are much larger"),
        ({"t322": [0], "t323": [16], "t324": [8], "t325": [10], "t273": None}, "damaged"),
        ({"size": (8000, 5000), "t322": [4], "t323": [4], "t324": [8], "t325": [9], "t273": None}, "strips or tiles"),
        ({"t277": [10**6]}, "kind that is not read"),
        ({"t258": [0]}, "kind that is not read"),
        ({"t259": [34925]}, "compression"),
        ({"t259": [7]}, "cut short"),  # no JPEG
        ({"t262": [9]}, "kind that is not read"),
        ({"data": zlib.compress(bytes(32))}, "damaged"),  # half of the strip
    ],
)
def test_refused_tiffs(options, words):
    assert words in refusal(_tiff_of(**options))


def test_a_tiff_unpacks_no_more_than_its_pixels():
    """A strip of 100 MB for 64 pixels costs nothing; 40,000 strips that name the same 20 kB are too much."""
    assert open_image(_tiff_of(data=zlib.compress(bytes(10**8), 9))).size == (8, 8)
    data, rows = bytes(20_000), 40_000
    file = _tiff_of(size=(8, rows), data=data, t278=[1], t273=[8] * rows, t279=[len(data)] * rows)
    assert "larger than 400 MB" in refusal(file)
    assert "damaged" in refusal(b"II+\0\x08\0\0\0\x10" + bytes(7) + b"\xff" * 8 + bytes(4000))  # 2⁶⁴ tags


def test_a_jpeg_in_a_tiff_of_another_size_is_refused():
    data = encode(scene(64, 64), "JPEG")
    file = _tiff_of(compression=7, data=data, t258=[8, 8, 8], t262=[6], t277=[3])
    assert "damaged" in refusal(file)
    assert "cut short" in refusal(_tiff_of(compression=7, data=data[:-40], t258=[8, 8, 8], t262=[6], t277=[3]))


# ---------------------------------------------------------------- JPEG 2000


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK"])
def test_jpeg_2000_modes(mode):
    image = SCENE.convert(mode)
    assert difference(open_image(encode(image, "JPEG2000")), open_image(image)) < 1


def test_jpeg_2000_of_16_bits():
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(open_image(encode(deep, "JPEG2000")))[..., 0], PIXELS[..., 0])


def test_jpeg_2000_at_reduced_scale():
    """501 x 397 at 1/4: both sides are rounded up, where Pillow would round down and fail."""
    file = encode(scene(501, 397), "JPEG2000")
    assert open_image(file, size=16).size == (126, 100)
    assert difference(to_tensor(file, 16), to_tensor(open_image(file), 16)) < 1
    assert to_tensor_and_picture(file, 16, 250)[1].size == (250, 198)


def _coded(offset: int, value: bytes) -> bytes:
    """A codestream with other bytes after the marker of its coding style (COD)."""
    file = bytearray(FILES["j2k"])
    at = file.index(b"\xff\x52") + offset
    file[at : at + len(value)] = value
    return bytes(file)


def test_refused_jpeg_2000s():
    file = FILES["j2k"]

    def sized(offset: int, *values: int) -> bytes:
        return file[:offset] + struct.pack(f">{len(values)}I", *values) + file[offset + 4 * len(values) :]

    assert "40 megapixels" in refusal(sized(8, 6400, 6400))
    whole = encode(SCENE, "JPEG2000", no_jp2=True)
    assert "16 megapixels" in refusal(whole[:8] + struct.pack(">6I", 4800, 4800, 0, 0, 4800, 4800) + whole[32:])
    assert "tiles" in refusal(sized(24, 1, 1))
    assert "damaged" in refusal(sized(24, 0, 0))
    assert "damaged" in refusal(sized(16, 5000, 5000))
    assert "components" in refusal(file[:40] + b"\x40\0" + file[42:])
    assert "small pieces" in refusal(_coded(6, b"\xff\xff"))  # layers
    assert "small pieces" in refusal(_coded(10, b"\0\0"))  # blocks of 4 x 4
    header = FILES["jp2"].index(b"ihdr") + 4
    lying = FILES["jp2"][:header] + struct.pack(">II", 8, 8) + FILES["jp2"][header + 8 :]
    assert "damaged" in refusal(lying)
    box = struct.pack(">I4s", 8, b"free")
    assert "boxes" in refusal(FILES["jp2"][:12] + box * MAX_BOXES + FILES["jp2"][12:])


# ---------------------------------------------------------------- arrays


def test_uint8_arrays():
    assert open_image(PIXELS) == SCENE
    assert open_image(PIXELS[::-1, ::2]) == Image.fromarray(np.ascontiguousarray(PIXELS[::-1, ::2]))
    grey = PIXELS[..., 0]
    assert open_image(grey) == open_image(grey[..., None]) == Image.fromarray(grey).convert("RGB")
    alpha = np.dstack([PIXELS, np.zeros_like(grey)])
    assert np.asarray(open_image(alpha)).min() == 255


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_float_arrays(dtype):
    assert open_image((PIXELS / 255).astype(dtype)) == SCENE
    assert open_image((PIXELS[..., :1] / 255).astype(dtype)) == Image.fromarray(PIXELS[..., 0]).convert("RGB")
    assert np.asarray(open_image(np.array([[0.0, 0.5, 1.0]], dtype)))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((4, 4, 3), np.nan), "nan"),
        (np.array([[0.5, np.nan]]), "nan"),
        (np.array([[0.5, np.inf]]), "inf"),
        (np.array([[0.0, 1.01]]), "0-1"),
        (np.array([[-0.01, 1.0]]), "0-1"),
        (np.array([[0.0, 255.0]]), "0-1"),
        *[(np.zeros((4, 4), dtype), "uint8") for dtype in (bool, np.int8, np.uint16, np.int64, complex, object, "S1")],
        (np.zeros((4, 4, 2), np.uint8), "channels"),
        (np.zeros((3, 9, 9), np.uint8), "channels"),
        (np.zeros((1, 9, 9, 3), np.uint8), "channels"),
        (np.zeros(9, np.uint8), "channels"),
        (np.uint8(3)[...], "channels"),
        (np.zeros((0, 9), np.uint8), "pixels"),
        (np.zeros((0, 9, 3), np.float32), "pixels"),
        (np.broadcast_to(np.uint8(0), (6400, 6400, 3)), "40 megapixels"),
    ],
)
def test_refused_arrays(array, words):
    assert refusal(array).startswith("The array ")
    assert words in refusal(array)


# ---------------------------------------------------------------- PIL pictures

MODES = ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LA", "RGBA", "RGBX", "RGBa", "La", "PA"]


@pytest.mark.parametrize("mode", MODES)
def test_pil_modes(mode):
    parent = {"RGBa": "RGBA", "La": "LA", "PA": "P"}.get(mode)
    image = (SCENE.convert(parent) if parent else SCENE).convert(mode)
    grey = mode in ("1", "L", "LA", "La")
    expected = SCENE.convert("1" if mode == "1" else "L").convert("RGB") if grey else SCENE
    before = image.tobytes()
    assert difference(open_image(image), expected) < (30 if mode in ("P", "PA") else 3)
    assert image.tobytes() == before
    assert image.mode == mode


@pytest.mark.parametrize("mode", ["LA", "RGBA", "RGBa", "La", "PA"])
def test_transparent_pil_modes(mode):
    base = {"RGBa": "RGBA", "La": "LA", "PA": "RGBA"}.get(mode, mode)
    image = Image.new(base, (4, 4), (0,) * len(base))
    if mode == "PA":
        image = Image.new("PA", (4, 4), (0, 0))
    assert np.asarray(open_image(image.convert(mode))).min() == 255


def test_transparent_colour_of_a_pil_picture():
    grey = Image.fromarray(np.array([[7, 9]], np.uint8))
    grey.info["transparency"] = 9
    assert np.asarray(open_image(grey))[0, :, 0].tolist() == [7, 255]
    for nonsense in ("red", (1, 2), b"\0", None, 1.5):
        grey.info["transparency"] = nonsense
        assert np.asarray(open_image(grey))[0, :, 0].tolist() == [7, 9]


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_16_bit_pil_modes(mode):
    order = ">u2" if mode == "I;16B" else "<u2"
    image = Image.frombytes(mode, WIDE.shape[::-1], WIDE.astype(order).tobytes())
    assert np.array_equal(np.asarray(open_image(image))[..., 0], WIDE >> 8)


def test_float_and_integer_pil_modes():
    grey = PIXELS[..., 0]
    assert open_image(Image.fromarray((grey / 255).astype(np.float32))) == open_image(grey)
    assert "0-1" in refusal(Image.fromarray(grey.astype(np.float32)))
    assert "32-bit" in refusal(Image.fromarray(grey.astype(np.int32)))


def test_lab():
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    image = ImageCms.profileToProfile(SCENE, srgb, lab, outputMode="LAB")
    assert difference(open_image(image), SCENE) < 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "JP2"])
def test_lazily_opened_pil_picture_equals_its_file(kind, tmp_path):
    """At reduced scale too, and the caller's picture stays as it was."""
    path = tmp_path / f"picture.{kind.lower()}"
    scene(600, 500).save(path)
    with Image.open(path) as image:
        assert np.array_equal(to_tensor(image, 32), to_tensor(path, 32))
        assert pixel_hash(image) == pixel_hash(open_image(path))
        assert image.size == (600, 500)
        assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(open_image(path)))
        assert open_image(image) == open_image(path)  # now that it is loaded


def test_pil_picture_of_a_closed_file(tmp_path):
    path = tmp_path / "closed.png"
    SCENE.save(path)
    with Image.open(path) as image:
        pass
    assert "closed.png was closed" in refusal(image)
    image = Image.open(file := io.BytesIO(path.read_bytes()))
    file.close()
    assert "was closed" in refusal(image)


def test_result_is_independent_of_the_source():
    image = open_image(SCENE)
    image.paste("red", (0, 0, 120, 80))
    assert np.array_equal(np.asarray(SCENE), PIXELS)
    array = PIXELS.copy()
    image = open_image(array)
    array[:] = 0
    assert image == SCENE


# ---------------------------------------------------------------- where it comes from


def test_every_kind_of_source(tmp_path):
    path = tmp_path / "scène 1.png"
    SCENE.save(path)
    data = path.read_bytes()
    used = io.BytesIO(data)
    used.seek(0, io.SEEK_END)
    with path.open("rb") as file, path.open("rb") as pipe:
        pipe.seekable = lambda: False
        for source in (str(path), path, data, bytearray(data), memoryview(data), used, file, Unseekable(data)):
            assert open_image(source) == SCENE


class Unseekable(io.RawIOBase):
    """A file object that can only be read on, like a pipe."""

    def __init__(self, data: bytes):
        self._stream = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)


def test_refused_sources(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "text mode.txt").write_text("hello")
    assert "folder.jpg is a folder" in refusal(tmp_path / "folder.jpg")
    assert "gone.jpg does not exist" in refusal(str(tmp_path / "gone.jpg"))
    assert "does not exist" in refusal(str(tmp_path / "gone" / "gone.jpg"))
    assert "does not exist" in refusal("")
    assert "does not exist" in refusal("nul\0.jpg")
    assert "a?b.jpg" in refusal("a\nb.jpg")
    assert len(refusal("long" * 1000 + ".jpg")) < 250
    assert "web address" in refusal("https://example.org/cat.jpg")
    assert "not a regular file" in refusal("/dev/zero")
    for source in (None, 3, [[0, 1]], {"path": "cat.jpg"}, object()):
        assert type(source).__name__ in refusal(source)
    with (tmp_path / "text mode.txt").open() as file:
        assert "text mode.txt" in refusal(file)
        assert "binary mode" in refusal(file)
    assert "file object" in refusal(file)  # closed
    assert "binary mode" in refusal(io.StringIO("hello"))
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "huge.png is larger than 400 MB" in refusal(tmp_path / "huge.png")


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_refused_pil_pictures(mode):
    assert "pixel" in refusal(Image.new(mode, (0, 7)))
    assert "40 megapixels" in refusal(Image.new(mode, (6400, 6400)))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"just some words, called a picture", "is text"),
        ("Käse, 猫, 🐈\r\n".encode() * 1000, "is text"),
        ("猫".encode("utf-16"), "is text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n", "is text"),
        (b"\n <!DOCTYPE HTML><html><body>404</body></html>", "web page"),
        (b"<HTML>", "web page"),
        (b"\xef\xbb\xbf<!-- made by hand --><html>", "web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- \xff -->\n<svg></svg>", "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (encode(SCENE.resize((32, 32)), "ICO"), "icon"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"8BPS\0\1", "Photoshop"),
        (b"PK\3\4\x14\0", "ZIP"),
        (b"\x1f\x8b\x08", "archive"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "no single picture"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(40), "video"),
        (encode(SCENE, "PPM"), "not in a format"),
        (bytes(1000), "not in a format"),
        (random.Random(0).randbytes(1000), "not in a format"),
    ],
)
def test_other_files(data, words, tmp_path):
    path = tmp_path / "cat.jpg"
    path.write_bytes(data)
    assert refusal(path).startswith("cat.jpg ")
    assert words in refusal(path)
    assert refusal(data).startswith("The picture ")


def _resized_header(kind: str, width: int, height: int) -> bytes:
    """A small file whose header claims another size."""
    if kind == "JPEG":
        file = encode(Image.new("RGB", (8, 8)), "JPEG")
        at = file.index(b"\xff\xc0") + 5
        return file[:at] + struct.pack(">HH", height, width) + file[at + 4 :]
    if kind == "PNG":
        return png(np.zeros((8, 8)), 0, 8, size=(width, height))
    if kind == "GIF":
        file = encode(Image.new("RGB", (8, 8)), "GIF")
        return file[:6] + struct.pack("<HH", width, height) + file[10:]
    if kind == "BMP":
        file = encode(Image.new("RGB", (8, 8)), "BMP")
        return file[:18] + struct.pack("<II", width, height) + file[26:]
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size + encode(Image.new("RGB", (8, 8)), "WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "BMP", "JPEG"])
def test_too_many_pixels_are_refused_before_decoding(kind):
    side = 8001 if kind == "JPEG" else 6400
    sentence = refusal(_resized_header(kind, side, side))
    assert f"{side} x {side}" in sentence
    assert ("64 megapixels" if kind == "JPEG" else "40 megapixels") in sentence
    assert "60000 x 60000" in refusal(_resized_header(kind, 60000, 60000))


def test_too_many_pixels_of_an_avif():
    file = bytearray(encode(Image.new("RGB", (8, 8)), "AVIF"))
    at = file.index(b"ispe") + 8
    file[at : at + 8] = struct.pack(">II", 6400, 6400)
    assert "40 megapixels" in refusal(bytes(file))


def test_hidden_sizes_are_refused():
    """A second header, or a frame outside its canvas, must not get past the limit."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0))
    assert "damaged" in refusal(png(np.zeros((8, 8)), 0, 8, header))
    assert "megapixels" in refusal(_gif((6, 4), (0, 0, 5, 3)).replace(b"\x2c\0\0\0\0", b"\x2c\xff\xff\xff\xff"))


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        (b"some words", UnsupportedImageError),
        (b"%PDF-1.7", UnsupportedImageError),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), UnsupportedImageError),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(40), UnsupportedImageError),
        (_resized_header("PNG", 6400, 6400), ImageTooLargeError),
        (_resized_header("PNG", 1, MAX_SIDE + 1), ImageTooLargeError),
        (_resized_header("PNG", 0, 8), ImageError),
        (encode(SCENE, "JPEG")[:500], ImageError),
        (b"", ImageError),
    ],
)
def test_the_kind_of_a_refusal(file, kind):
    with pytest.raises(ImageError) as caught:
        open_image(file)
    assert caught.type is kind


def test_a_side_has_its_limit_too():
    """Forty million rows of one pixel are within the megapixels, and cost 320 MB in addresses alone."""
    assert "65,535 along one side" in refusal(_resized_header("PNG", 1, 40_000_000))
    assert open_image(encode(Image.new("1", (1, MAX_SIDE)), "PNG")).size == (1, MAX_SIDE)


def test_limits_are_inclusive():
    """40 megapixels of PNG are read, 50 and 64 of JPEG too; one more column is not."""
    assert to_tensor(encode(Image.new("1", (8000, 5000), 1), "PNG"), 8).min() == 255
    jpeg = encode(Image.new("L", (8000, 8000), 200), "JPEG")
    assert MAX_JPEG_PIXELS == 8000 * 8000
    assert MAX_PIXELS == 8000 * 5000
    assert np.abs(to_tensor(jpeg, 224) - 200.0).max() <= 1
    assert "64 megapixels" in refusal(encode(Image.new("L", (8001, 8000)), "JPEG"))
    assert "40 megapixels" in refusal(encode(Image.new("1", (8001, 5000)), "PNG"))


def test_jpeg_of_thousands_of_scans():
    file = encode(SCENE, "JPEG", progressive=True)
    first, second = (match.start() for match in list(re.finditer(rb"\xff\xda", file))[:2])
    bomb = file[:first] + file[first:second] * (MAX_JPEG_SCANS + 1) + file[second:]
    assert f"{MAX_JPEG_SCANS} scans" in refusal(bomb)


def test_png_of_millions_of_empty_chunks():
    whole = encode(SCENE, "PNG")
    at = whole.index(b"IDAT") - 4
    bomb = whole[:at] + chunk(b"IDAT", b"") * MAX_PNG_CHUNKS + whole[at:]
    assert f"{MAX_PNG_CHUNKS:,} chunks" in refusal(bomb)


def test_jpeg_of_millions_of_empty_segments():
    file = encode(SCENE, "JPEG")
    for empty in (b"\xff\xe0\x00\x02", b"\xff\x01"):
        bomb = file[:2] + empty * 10**6 + file[2:]
        assert f"{MAX_JPEG_SEGMENTS:,} segments" in refusal(bomb)
        assert declared_pixels(bomb) == 0
    assert open_image(file[:2] + b"\xff" * 10**6 + file[2:]).size == SCENE.size  # padding, which is allowed


FILES = {
    "baseline": encode(SCENE, "JPEG"),
    "progressive": encode(SCENE, "JPEG", progressive=True),
    "restarts": encode(SCENE, "JPEG", restart_marker_rows=1),
    "cmyk": encode(SCENE.convert("CMYK"), "JPEG"),
    "png": encode(SCENE, "PNG"),
    "16 bit": png(PIXELS[..., 0].astype(int) * 257, 0, 16),
    "palette": encode(SCENE.convert("P"), "PNG"),
    "apng": encode(SCENE, "PNG", save_all=True, append_images=[SCENE.rotate(90)]),
    "gif": encode(SCENE, "GIF"),
    "webp": encode(SCENE, "WEBP"),
    "lossless": encode(SCENE.convert("RGBA"), "WEBP", lossless=True),
    "animated": encode(SCENE, "WEBP", save_all=True, append_images=[SCENE.rotate(90)]),
    "avif": encode(SCENE, "AVIF"),
    "avif alpha": encode(SCENE.convert("RGBA"), "AVIF"),
    "bmp": encode(SCENE, "BMP"),
    "heic": encode(SCENE, "HEIF"),
    "heic grid": encode(SCENE.convert("RGB"), "HEIF", tile_size=64),
    "heic alpha": encode(SCENE.convert("RGBA"), "HEIF"),
    "tiff": encode(SCENE, "TIFF"),
    "tiff lzw": encode(SCENE, "TIFF", compression="tiff_lzw"),
    "tiff jpeg": encode(SCENE, "TIFF", compression="jpeg"),
    "tiff fax": encode(SCENE.convert("1"), "TIFF", compression="group4"),
    "bigtiff": encode(SCENE.convert("RGBA"), "TIFF", big_tiff=True, compression="tiff_adobe_deflate"),
    "jp2": encode(SCENE, "JPEG2000"),
    "j2k": encode(SCENE, "JPEG2000", no_jp2=True, tile_size=(64, 64)),
}


@pytest.mark.parametrize("forgiving", [False, True])
@pytest.mark.parametrize("kind", FILES)
def test_cut_files_are_refused(kind, forgiving, monkeypatch):
    """At every 97th byte and at each of the last 40, even where Pillow is told to forgive it."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", forgiving)
    file = FILES[kind]
    # A GIF's last byte only says that no more frames follow.
    length = len(file) - 1 if kind == "gif" else len(file)
    for end in {*range(1, length, 97), *range(length - 40, length)}:
        sentence = refusal(file[:end])
        assert end < 40 or "cut short" in sentence


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_cut_jpeg_with_an_end_is_not_returned_grey(mode, options, size):
    file = encode(SCENE.convert(mode), "JPEG", quality=90, **options)
    start = file.index(b"\xff\xda") + 20
    end = file.index(b"\xff\xda", start) if "progressive" in options else len(file)
    for cut in (start + (end - start) // 3, start + (end - start) // 2):
        assert "cut short" in refusal(file[:cut].rstrip(b"\xff") + b"\xff\xd9", size=size)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}, {"subsampling": 0}])
def test_grey_pictures_are_not_taken_for_cut_ones(options):
    for mode in ("L", "RGB", "CMYK"):
        grey = Image.new("RGB", (50, 30), (128, 128, 128)).convert(mode)
        assert difference(open_image(encode(grey, "JPEG", **options)), grey.convert("RGB")) <= 1
    half = SCENE.copy()
    half.paste((128, 128, 128), (0, 40, 120, 80))
    assert difference(open_image(encode(half, "JPEG", quality=95, **options)), half) < 4


def test_damaged_png_is_refused():
    file = FILES["png"]
    for at in range(40, len(file) - 12, 61):
        damaged = bytearray(file)
        damaged[at] ^= 4
        assert "damaged" in refusal(bytes(damaged)) or "cut short" in refusal(bytes(damaged))


@pytest.mark.parametrize("kind", FILES)
def test_nothing_but_image_error_escapes(kind):
    """Flipped bits, overwritten, missing and strange bytes: a tensor or one sentence, and no warning."""
    rng = random.Random(kind)
    file = FILES[kind]
    refusals = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for turn in range(120 if kind in ("jp2", "j2k") else 250):  # these take longest
            damaged = bytearray(file)
            at = rng.randrange(len(file) if turn % 2 else min(len(file), 300))
            match turn % 5:
                case 0 | 1:
                    damaged[at] ^= 1 << rng.randrange(8)
                case 2:
                    damaged[at : at + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", rng.randbytes(4)])
                case 3:
                    del damaged[at : at + rng.randrange(1, 40)]
                case 4:
                    damaged[at:] = rng.randbytes(rng.randrange(300))
            try:
                tensor = to_tensor(bytes(damaged), 16)
                assert tensor.shape == (16, 16, 3)
            except ImageError as error:
                refusals.append(str(error))
    assert len(refusals) > 20
    assert all(re.fullmatch(r"[^\n]+; [^\n]+\.", sentence) for sentence in refusals)


def test_compressed_bmp_is_refused():
    header = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 40 + 1024)
    info = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, 0, 0, 0, 0, 0)
    assert "compressed BMP" in refusal(header + info + bytes(range(256)) * 4 + bytes(100))


def test_bmp_with_an_alpha_channel_that_nobody_filled_in():
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 56, 1, 1, 1, 32, 3, 4, 0, 0, 0, 0) + masks
    header = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(info))
    assert np.asarray(open_image(header + info + bytes([30, 20, 10, 0]))).tolist() == [[[10, 20, 30]]]
    assert np.asarray(open_image(header + info + bytes([30, 20, 10, 255]))).tolist() == [[[10, 20, 30]]]


# ---------------------------------------------------------------- the tensor


def test_tensor_is_squashed_antialiased_and_writable():
    tensor = to_tensor(SCENE, 32)
    assert tensor.dtype == np.uint8
    assert tensor.flags.writeable
    assert np.array_equal(tensor, np.asarray(SCENE.resize((32, 32), Image.Resampling.BILINEAR)))
    checks = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    assert np.abs(to_tensor(checks.astype(np.uint8), 16).astype(int) - 127).max() <= 1  # not aliased


def test_four_pixels():
    """Enlarging two pixels to four: half-pixel bilinear gives a quarter and three quarters between them."""
    two = np.array([[0, 200], [0, 200]], np.uint8)
    assert to_tensor(two, 4)[0, :, 0].tolist() == [0, 50, 150, 200]


def test_same_picture_same_tensor():
    lossless = [encode(SCENE, kind) for kind in ("PNG", "BMP")] + [encode(SCENE, "WEBP", lossless=True)]
    for source in (*lossless, SCENE, PIXELS, PIXELS / 255, SCENE.convert("RGBA"), PIXELS.astype(np.float32) / 255):
        assert np.array_equal(to_tensor(source, 48), to_tensor(SCENE, 48))


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """12 megapixels, as a phone makes them."""
    return detailed(4032, 3024)


@pytest.mark.parametrize("size", [160, 224, 320])
def test_12_megapixel_jpeg_at_reduced_scale(photo, size):
    file = encode(photo, "JPEG", quality=90)
    reduced = open_image(file, size=size)
    assert reduced.width < photo.width
    assert min(reduced.size) >= 4 * size
    full = np.asarray(open_image(file).resize((size, size), Image.Resampling.BILINEAR))
    assert difference(to_tensor(file, size), full) < 1  # the promise is 2


def test_reduced_scale_on_the_worst_pictures(photo):
    """Saturated blocks and stripes of few pixels, far from any photo, stay within 2 of 255."""
    y, x = np.mgrid[:3024, :4032]
    blocks = np.random.default_rng(0).integers(0, 2, (432, 576, 3), dtype=np.uint8) * 255
    stripes = np.stack([(x // 18) % 2, (y // 19) % 2, ((x + y) // 20) % 2], -1).astype(np.uint8) * 255
    for array in (blocks.repeat(7, 0).repeat(7, 1), stripes):
        file = encode(Image.fromarray(array), "JPEG", quality=90)
        full = np.asarray(open_image(file).resize((224, 224), Image.Resampling.BILINEAR))
        assert difference(to_tensor(file, 224), full) < 2


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("side", [64, 300, 2000])
def test_the_picture_comes_with_its_tensor(kind, orientation, side):
    """The same tensor bit for bit; the picture upright, no larger than asked, and of the whole photo."""
    file = encode(ORIENTED[orientation](scene(1001, 795)), kind, exif=exif(orientation), quality=95, subsampling=0)
    tensor, picture = to_tensor_and_picture(file, 32, side)
    assert np.array_equal(tensor, to_tensor(file, 32))
    width = min(side, 1001)  # although a JPEG is decoded at a quarter for so small a tensor
    assert (picture.mode, picture.size) == ("RGB", (width, round(width * 795 / 1001)))
    whole = open_image(file).resize(picture.size, Image.Resampling.BILINEAR)
    assert difference(picture, whole) < 1.5


def test_a_very_long_picture_keeps_a_pixel():
    tensor, picture = to_tensor_and_picture(encode(Image.new("RGB", (5000, 2), "red"), "PNG"), 16, 100)
    assert picture.size == (100, 1)
    assert (tensor == [255, 0, 0]).all()


# ---------------------------------------------------------------- large pictures, one at a time


@pytest.mark.parametrize("kind", FILES)
def test_a_file_says_how_many_pixels_it_has(kind):
    assert declared_pixels(FILES[kind]) == SCENE.width * SCENE.height
    assert declared_pixels(FILES[kind][:8]) == (MAX_PIXELS if "tiff" in kind else 0)
    if kind not in ("tiff lzw", "tiff fax", "tiff jpeg", "bigtiff"):  # whose tags may stand at the end
        assert declared_pixels(FILES[kind][: len(FILES[kind]) // 2]) == SCENE.width * SCENE.height


def test_large_pictures_wait_for_each_other_and_small_ones_for_none():
    large = encode(Image.new("1", (5000, 4000)), "PNG")
    assert LARGE_PIXELS < 5000 * 4000
    with ThreadPoolExecutor(2) as pool:
        with images._large:  # as if another one were being decoded
            waiting = [pool.submit(to_tensor, large, 8), pool.submit(to_tensor_and_picture, large, 8, 8)]
            assert to_tensor(FILES["png"], 8).any()
            assert not any(future.done() for future in waiting)
        tensors = [waiting[0].result(), waiting[1].result()[0]]
    assert not np.any(tensors)
    assert not images._large.locked()
    with pytest.raises(ImageError):
        open_image(large[:-100])
    assert not images._large.locked()  # a refused one lets the next in, too


# ---------------------------------------------------------------- the hash


def test_pixel_hash():
    expected = hashlib.sha256(b"120x80RGB:" + SCENE.tobytes()).hexdigest()
    sources = [SCENE, open_image(encode(SCENE, "PNG")), open_image(encode(SCENE, "WEBP", lossless=True))]
    assert [pixel_hash(image) for image in sources] == [expected] * 3
    assert pixel_hash(SCENE.transpose(Image.Transpose.TRANSPOSE)) != expected
    grey = Image.new("RGB", (6, 4), "red")
    assert pixel_hash(grey) != pixel_hash(grey.resize((4, 6)))


def test_pixel_hash_is_of_the_full_decode():
    file = encode(scene(640, 480), "JPEG")
    assert open_image(file, size=16).size == (160, 120)
    assert pixel_hash(Image.open(io.BytesIO(file))) == pixel_hash(open_image(file))
    for reduced in (open_image(file, size=16), open_image(open_image(file, size=16))):
        with pytest.raises(ImageError, match="reduced scale; open it without"):
            pixel_hash(reduced)
    assert pixel_hash(open_image(file, size=480)) == pixel_hash(open_image(file))


# ---------------------------------------------------------------- the process around it


@pytest.mark.parametrize("limit", [None, 1, 100])
def test_pillow_limits_are_neither_met_nor_changed(limit, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    before = (list(warnings.filters), ImageFile.LOAD_TRUNCATED_IMAGES, set(Image.OPEN))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for file in FILES.values():
            to_tensor(file, 16)
        assert "megapixels" in refusal(_resized_header("PNG", 30000, 30000))
    assert limit == Image.MAX_IMAGE_PIXELS
    assert before == (list(warnings.filters), ImageFile.LOAD_TRUNCATED_IMAGES, set(Image.OPEN))


def test_threads_share_nothing():
    expected = {kind: to_tensor(file, 24) for kind, file in FILES.items()}
    lazy = Image.open(io.BytesIO(FILES["png"]))
    work = [(kind, source) for kind, source in FILES.items() for _ in range(8)] + [("png", lazy)] * 40
    random.Random(0).shuffle(work)
    with ThreadPoolExecutor(8) as pool:
        for (kind, _), tensor in zip(work, pool.map(lambda item: to_tensor(item[1], 24), work), strict=True):
            assert np.array_equal(tensor, expected[kind])


def test_import_is_light():
    """Only numpy and Pillow, beside the standard library."""
    heavy = "tensorflow keras gradio datasets pandas matplotlib"
    code = f"import sys, hub.images; print([m for m in {heavy!r}.split() if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_a_pil_picture_of_another_format_is_read_whether_or_not_its_pixels_were_asked_for():
    """Its file is not read here, but Pillow reads it and the picture is the caller's own."""
    file = io.BytesIO()
    SCENE.save(file, "PPM")
    lazy = Image.open(io.BytesIO(file.getvalue()))
    loaded = Image.open(io.BytesIO(file.getvalue()))
    loaded.load()
    assert np.array_equal(to_tensor(lazy, 16), to_tensor(SCENE, 16))
    assert np.array_equal(to_tensor(loaded, 16), to_tensor(SCENE, 16))


@pytest.mark.parametrize("kind", ["path", "stream", "bytes"])
def test_a_small_tensor_leaves_the_picture_large(tmp_path, kind):
    """A JPEG may be decoded at an eighth of its scale for 28 pixels; nobody wants to look at that."""
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)).save(path)
    source = {"path": path, "stream": io.BytesIO(path.read_bytes()), "bytes": path.read_bytes()}[kind]
    tensor, picture = images.to_tensor_and_picture(source, 28, 512)
    np.testing.assert_array_equal(tensor, images.to_tensor(path, 28))
    assert picture.size == (512, 384)
    assert images.to_tensor_and_picture(path, 28, 2000)[1].size == (1200, 900)


def test_a_large_picture_does_not_wait_for_itself():
    """It is decoded twice for a small tensor, and each time only after others have had their turn."""
    strip = encode(Image.new("RGB", (60_000, 300), "red"), "JPEG")
    assert declared_pixels(strip) > images.LARGE_PIXELS
    with ThreadPoolExecutor(1) as thread:
        tensor, picture = thread.submit(images.to_tensor_and_picture, strip, 16, 1024).result(timeout=30)
    assert picture.size == (1024, 5)
    assert (np.abs(tensor - np.array([254, 0, 0])) <= 2).all()
