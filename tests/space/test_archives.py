"""Zips as people make them, and as attackers do."""

from __future__ import annotations

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hub.errors import ImageError
from space import archives
from space.archives import Allowance, Archive, printable

MB = 10**6


def packed(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Archive:
    """A zip of these files, opened."""
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return Archive(path, path.name)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "holiday.zip"


def names(archive: Archive) -> list[str]:
    return [name for name, _ in archive.pictures]


def reason(archive: Archive, index: int = 0, allowance: Allowance | None = None) -> str:
    """Why a picture is not read."""
    with pytest.raises(ImageError) as caught:
        archive.read(archive.pictures[index][1], allowance or Allowance())
    return str(caught.value)


def test_pictures_are_offered_litter_is_not_and_other_files_are_counted(path):
    pictures = ["b.JPG", "trip/a.png", "trip/scan.tiff", "trip/inner.zip", ".../c.gif"]
    litter = ["__MACOSX/trip/._a.png", "trip/.DS_Store", ".hidden/x.jpg", "trip/Thumbs.db", "trip/"]
    archive = packed(path, dict.fromkeys([*pictures, *litter, "trip/notes.txt", "labels.csv"], b"x"))
    assert names(archive) == pictures
    assert archive.skipped == ["trip/notes.txt", "labels.csv"]
    assert archive.read(archive.pictures[0][1], Allowance()) == b"x"
    assert reason(archive, 3) == "inner.zip is a zip inside a zip; send it by itself."


def test_names_are_shown_safely_and_lead_nowhere(path, tmp_path):
    hostile = ["../../evil.jpg", "/etc/evil.jpg", "C:\\evil.jpg", "line\nbreak\x1b[31m.jpg", "\u202egpj.exe.jpg"]
    archive = packed(path, {**dict.fromkeys(hostile, b"x"), "n" * 3000 + ".jpg": b"x"})
    shown = names(archive)
    assert shown[:3] == hostile[:3]
    assert shown[3:5] == ["line?break?[31m.jpg", "?gpj.exe.jpg"]
    assert len(shown[5]) == archives.NAME and shown[5].endswith(".jpg")
    for _, entry in archive.pictures:
        assert archive.read(entry, Allowance()) == b"x"
    assert list(tmp_path.iterdir()) == [path]
    assert printable("a\ud800b\0") == "a?b?"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_twins_are_each_their_own_whichever_thread_reads_them(path):
    with zipfile.ZipFile(path, "w") as file:
        for number in range(40):
            file.writestr("twin.png", bytes([number]) * 5000)
    archive = Archive(path, "holiday.zip")
    with ThreadPoolExecutor(8) as threads:
        contents = threads.map(lambda picture: archive.read(picture[1], Allowance()), archive.pictures)
        assert [content[:1] + content[-1:] for content in contents] == [bytes([n, n]) for n in range(40)]


def test_zip64_and_a_large_stored_picture_are_read(path):
    large = b"x" * (archives.LISTED + 10)  # larger than what may be read of the list at once
    with zipfile.ZipFile(path, "w") as file, file.open("large.jpg", "w", force_zip64=True) as entry:
        entry.write(large)
    archive = Archive(path, "holiday.zip")
    assert archive.read(archive.pictures[0][1], Allowance()) == large


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bound_are_not_read(path, method):
    assert "packed in a way that is not read" in reason(packed(path, {"a.jpg": bytes(1000)}, method))


def test_an_encrypted_picture_says_so(path):
    packed(path, {"a.jpg": b"x"}).close()
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    assert reason(Archive(path, "holiday.zip")) == "a.jpg is encrypted; make the zip without a password."


def test_a_picture_that_unpacks_to_more_than_its_share_is_refused(path):
    archive = packed(path, {"bomb.jpg": bytes(archives.ENTRY + 1), "just.jpg": bytes(archives.ENTRY)})
    assert path.stat().st_size < 0.1 * MB
    assert reason(archive) == "bomb.jpg is larger than 32 MB; make it smaller and try again."
    assert len(archive.read(archive.pictures[1][1], Allowance())) == archives.ENTRY


def test_a_bomb_of_overlapping_pictures_stops_at_what_the_visit_may_unpack(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.jpg", bytes(30 * MB))
        file.filelist *= 400  # 12 GB: all of them point at the same 30 kB
    archive = Archive(path, "holiday.zip")
    assert len(archive.pictures) == 400
    allowance = Allowance(70 * MB)
    for index in range(2):
        assert len(archive.read(archive.pictures[index][1], allowance)) == 30 * MB
    for index in range(2, 400):
        assert "is beyond the 600 MB that are unpacked" in reason(archive, index, allowance)
    assert allowance.left > -archives.CHUNK  # so much was unpacked in vain


def test_what_a_zip_says_of_its_sizes_is_not_believed(path):
    packed(path, {"a.jpg": bytes(3 * MB)}).close()
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\1\2") + 24  # the unpacked size in the list
    content[place : place + 4] = (10 * MB).to_bytes(4, "little")
    path.write_bytes(content)
    allowance = Allowance()
    archive = Archive(path, "holiday.zip")
    archive.read(archive.pictures[0][1], allowance)
    assert allowance.left == archives.UNPACKED - 3 * MB


def test_a_broken_picture_counts_and_says_so(path):
    packed(path, {"a.jpg": bytes(range(256)) * 12_000}, zipfile.ZIP_STORED).close()
    content = bytearray(path.read_bytes())
    content[2 * MB] ^= 1  # the checksum is compared at the end
    path.write_bytes(content)
    allowance = Allowance()
    assert reason(Archive(path, "x.zip"), 0, allowance) == "a.jpg is damaged inside the zip; make the zip again."
    assert allowance.left < archives.UNPACKED - MB


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"hello" * 1000, b"PK\5\6" + b"\xff" * 18, b"PK\1\2PK\5\6" * 50])
def test_what_is_no_zip_is_one_sentence(path, content):
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"^h\?.zip is broken or no zip and cannot be opened; .*\.$"):
        Archive(path, "h\n.zip")


def test_a_zip_that_is_cut_short_is_one_sentence(path):
    packed(path, {"a.jpg": bytes(1000), "b.jpg": bytes(1000)}).close()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ImageError, match="is broken or no zip"):
        Archive(path, "holiday.zip")


def test_an_endless_list_is_not_read(path):
    with zipfile.ZipFile(path, "w") as file:
        for number in range(40):
            entry = zipfile.ZipInfo(f"{number}.jpg")
            entry.comment = bytes(60_000)
            file.writestr(entry, b"")
    assert path.stat().st_size > archives.LISTED
    with pytest.raises(ImageError, match="^holiday.zip lists too many files; send its pictures in smaller zips.$"):
        Archive(path, "holiday.zip")
