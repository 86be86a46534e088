"""Odd, broken and hostile files, drawn by chance from a seed: what strangers send, by mistake and on purpose."""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from benchmarks.pictures import cat, encoded

SIZE = (320, 213)  # of the pictures that are spoilt
FORMS = ("JPEG", "progressive JPEG", "PNG", "GIF", "WebP", "AVIF", "BMP", "TIFF", "JPEG2000")
NAMES = {
    "JPEG": "jpg", "progressive JPEG": "jpg", "PNG": "png", "GIF": "gif", "WebP": "webp", "AVIF": "avif", "TIFF": "tif",
    "JPEG2000": "jp2",
}  # fmt: skip
ODD_NAMES = (
    "../../../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "<img src=x onerror=alert(1)>.jpg",
    "{{constructor.constructor('alert(1)')()}}.png",
    "фото 🐈.jpg",
    "a" * 300 + ".jpg",
    ".jpg",
    "",
    "photo.jpg\0.html",
    "CON.png",
    "-rf.gif",
    "photo.tar.gz",
)
MAGICS = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\0\0\0\0WEBPVP8X",
    b"BM",
    b"\0\0\0\x20ftypavif",
    b"\0\0\0\x18ftypheic",
    b"\0\0\0\x18ftypmp42",
    b"II*\0",
    b"MM\0*",
    b"8BPS",
    b"\0\0\0\x0cJXL ",
    b"\0\0\0\x0cjP  ",
    b"\0\0\1\0",
    b"\x1aE\xdf\xa3",
    b"%!PS",
    b"",
)


@dataclass(frozen=True)
class File:
    """A file to send: what is odd about it, its name and its bytes."""

    kind: str
    name: str
    content: bytes


@cache
def good(form: str) -> bytes:
    """A sound picture in a form that is read."""
    picture = cat(*SIZE)
    if form == "progressive JPEG":
        return encoded(picture, "JPEG", progressive=True)
    return encoded(picture, form, **({"speed": 10} if form == "AVIF" else {}))


def draw(chance: random.Random) -> File:
    """Return one file."""
    kind = chance.choice(list(KINDS))
    content, name = KINDS[kind](chance)
    if chance.random() < 0.15:
        name = chance.choice(ODD_NAMES)
    return File(kind, name, content)


# ---------------------------------------------------------------- pictures that are spoilt


def _truncated(chance: random.Random) -> tuple[bytes, str]:
    form = chance.choice(FORMS)
    whole = good(form)
    return whole[: chance.randrange(1, len(whole))], f"photo.{NAMES.get(form, 'bmp')}"


def _flipped(chance: random.Random) -> tuple[bytes, str]:
    form = chance.choice(FORMS)
    spoilt = bytearray(good(form))
    # Half of the time in the first part, where a picture's size and tables stand.
    reach = len(spoilt) if chance.random() < 0.5 else min(600, len(spoilt))
    for _ in range(chance.randint(1, 20)):
        spoilt[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    return bytes(spoilt), f"photo.{NAMES.get(form, 'bmp')}"


def _wrong_extension(chance: random.Random) -> tuple[bytes, str]:
    return good(chance.choice(FORMS)), f"photo.{chance.choice(['jpg', 'png', 'txt', 'exe', 'svg', 'html', 'mp4'])}"


def _magic_and_noise(chance: random.Random) -> tuple[bytes, str]:
    return chance.choice(MAGICS) + chance.randbytes(chance.randrange(5000)), "photo.jpg"


def _broken_exif(chance: random.Random) -> tuple[bytes, str]:
    block = b"Exif\0\0" + chance.choice([b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\x08\0\0\0\1\0"])
    block += b"\x12\1" + chance.randbytes(chance.randrange(60))
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    return good("JPEG")[:2] + segment + good("JPEG")[2:], "turned.jpg"


def _broken_profile(chance: random.Random) -> tuple[bytes, str]:
    return encoded(cat(*SIZE), chance.choice(["JPEG", "PNG", "WEBP"]), icc_profile=chance.randbytes(5000)), "icc.jpg"


def _bad_checksum(_: random.Random) -> tuple[bytes, str]:
    whole = good("PNG")
    return whole[:29] + bytes([whole[29] ^ 1]) + whole[30:], "crc.png"


# ---------------------------------------------------------------- pictures that say, or are, more than can be read


def _declares_much(chance: random.Random) -> tuple[bytes, str]:
    width, height = chance.choice([(65000, 65000), (50000, 2000), (2, 65000), (16000, 16000)])
    form = chance.choice(["PNG", "JPEG", "GIF", "WebP", "BMP", "AVIF"])
    spoilt = bytearray(good(form))
    if form == "PNG":
        spoilt[16:24] = struct.pack(">II", width, height)
        spoilt[29:33] = struct.pack(">I", zlib.crc32(spoilt[12:29]))
    elif form == "JPEG":
        at = spoilt.index(b"\xff\xc0")
        spoilt[at + 5 : at + 9] = struct.pack(">HH", height, width)
    elif form == "GIF":
        spoilt[6:10] = struct.pack("<HH", width, height)
    elif form == "WebP":
        chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + struct.pack("<I", width - 1)[:3]
        chunk += struct.pack("<I", height - 1)[:3]
        spoilt[12:12] = chunk
        spoilt[4:8] = struct.pack("<I", len(spoilt) - 8)
    elif form == "BMP":
        spoilt[18:26] = struct.pack("<ii", width, height)
    else:
        at = spoilt.index(b"ispe")
        spoilt[at + 8 : at + 16] = struct.pack(">II", width, height)
    return bytes(spoilt), f"large.{NAMES.get(form, 'bmp')}"


@cache
def _bombs() -> tuple[bytes, ...]:
    return (
        encoded(Image.new("1", (12000, 12000)), "PNG"),  # 144 megapixels in 20 KB
        encoded(Image.new("L", (40_000_000, 1)), "PNG"),  # as many pixels as may be, in one row
        encoded(Image.new("RGBA", (6000, 6000), (9, 9, 9, 9)), "PNG"),
        encoded(Image.new("P", (16000, 2400)), "GIF"),
        encoded(Image.new("RGB", (16000, 2400)), "WEBP", lossless=True, quality=0, method=0),
        encoded(Image.new("L", (8000, 8000), 99), "JPEG", quality=50, progressive=True),
    )


def _bomb(chance: random.Random) -> tuple[bytes, str]:
    return chance.choice(_bombs()), "bomb.png"


def _strip(chance: random.Random) -> tuple[bytes, str]:
    size = chance.choice([(1, 20000), (20000, 1), (1, 1), (2, 40000)])
    return encoded(Image.new("RGB", size, (200, 100, 50)), chance.choice(["PNG", "JPEG", "BMP"])), "strip.png"


def _many_scans(chance: random.Random) -> tuple[bytes, str]:
    whole = good("progressive JPEG")
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + scan * chance.choice([20, 60, 3000]) + b"\xff\xd9", "scans.jpg"


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@cache
def _zeros() -> bytes:
    return zlib.compress(bytes(50_000_000))


def _many_chunks(chance: random.Random) -> tuple[bytes, str]:
    kind = chance.choice([b"tEXt", b"zTXt", b"iCCP"])
    more = _chunk(kind, b"a\0b") * 50_000 if kind == b"tEXt" else _chunk(kind, b"a\0\0" + _zeros())
    return good("PNG")[:33] + more + good("PNG")[33:], "chunks.png"


def _idat_bomb(_: random.Random) -> tuple[bytes, str]:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", _zeros()) + _chunk(b"IEND", b""), "idat.png"


# ---------------------------------------------------------------- pictures that are odd, but sound


def _animated(chance: random.Random) -> tuple[bytes, str]:
    frames = [Image.new("P", (200, 150), number) for number in range(40)]
    form = chance.choice(["GIF", "WEBP", "PNG"])
    frames = frames if form == "GIF" else [frame.convert("RGB") for frame in frames]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:]), "moves.gif"


def _odd_mode(chance: random.Random) -> tuple[bytes, str]:
    mode, form = chance.choice(
        [("CMYK", "JPEG"), ("L", "JPEG"), ("LA", "PNG"), ("1", "PNG"), ("P", "PNG"), ("RGBA", "WEBP"), ("RGBA", "AVIF")]
    )
    return encoded(cat(*SIZE).convert(mode), form), "odd.png"


def _deep(_: random.Random) -> tuple[bytes, str]:
    return encoded(Image.fromarray(np.arange(2**16, dtype=np.uint16).reshape(256, 256)), "PNG"), "deep.png"


# ---------------------------------------------------------------- what is no picture at all


def _text(chance: random.Random) -> tuple[bytes, str]:
    return chance.choice(
        [
            (b"", "empty.jpg"),
            (b"\0", "zero.jpg"),
            (b"hello\n" * 500, "notes.jpg"),
            ("日本語".encode("utf-16"), "notes.png"),
            (b'{"image": "data:image/png;base64,AAAA"}', "photo.json"),
            (b"<!doctype html><script>alert(1)</script>", "page.jpg"),
            (b"https://example.invalid/cat.jpg", "address.jpg"),
        ]
    )


def _svg(chance: random.Random) -> tuple[bytes, str]:
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "ha"}">' for n in range(9))
    bodies = [
        '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        f"<?xml version='1.0'?><!DOCTYPE svg [{entities}]><svg>&a8;</svg>",
        '<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg><text>&x;</text></svg>',
        '<svg><image href="http://127.0.0.1:1/"/></svg>',
    ]
    return chance.choice(bodies).encode(), chance.choice(["drawing.svg", "drawing.png"])


@cache
def _archives() -> tuple[bytes, ...]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as written:
        for number in range(5):
            written.writestr(f"../../{number}.jpg", bytes(20_000_000))
    return archive.getvalue(), gzip.compress(bytes(20_000_000)), b"PK\3\4" + bytes(100)


def _archive(chance: random.Random) -> tuple[bytes, str]:
    return chance.choice(_archives()), chance.choice(["photos.zip", "photos.jpg"])


def _document(_: random.Random) -> tuple[bytes, str]:
    return b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n" + good("JPEG") + b"%%EOF", "scan.pdf"


def _other_picture(chance: random.Random) -> tuple[bytes, str]:
    form = chance.choice(["ICO", "PPM", "TGA", "PCX"])
    return encoded(cat(64, 64), form), f"photo.{form.lower()}"


def _polyglot(chance: random.Random) -> tuple[bytes, str]:
    script = b"<script>alert(1)</script>"
    comment = b"\xff\xfe" + struct.pack(">H", len(script) + 2) + script
    return chance.choice(
        [
            (good("JPEG") + _archives()[0], "both.jpg"),
            (good("JPEG")[:2] + comment + good("JPEG")[2:], "both.html"),
            (good("PNG")[:33] + _chunk(b"tEXt", b"a\0" + script) + good("PNG")[33:] + script, "both.png"),
            (b"GIF89a/*" + bytes(100) + b"*/=1;alert(1)", "both.js"),
            (b"#!/bin/sh\n" + good("JPEG"), "both.sh"),
            (good("GIF") + good("PNG") + b"%PDF-1.7", "both.gif"),
        ]
    )


KINDS: dict[str, Callable[[random.Random], tuple[bytes, str]]] = {
    "truncated": _truncated,
    "bits flipped": _flipped,
    "wrong extension": _wrong_extension,
    "magic and noise": _magic_and_noise,
    "broken EXIF": _broken_exif,
    "broken colour profile": _broken_profile,
    "bad checksum": _bad_checksum,
    "declares much": _declares_much,
    "decompression bomb": _bomb,
    "strip": _strip,
    "many scans": _many_scans,
    "many chunks": _many_chunks,
    "more data than pixels": _idat_bomb,
    "animated": _animated,
    "odd mode": _odd_mode,
    "16 bits": _deep,
    "text": _text,
    "SVG": _svg,
    "archive": _archive,
    "document": _document,
    "other picture": _other_picture,
    "polyglot": _polyglot,
}
