"""Finding pictures, and writing the answers for them so that nothing is lost and every number comes back."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hub import ImageClassifier, batch
from hub.errors import BundleError, DataError, ImageError, StorageError
from tests.pictures import encode, scene


@pytest.fixture(scope="module")
def classifier(bundle_2) -> ImageClassifier:
    return ImageClassifier.from_pretrained(bundle_2)


@pytest.fixture
def folder(tmp_path, photos):
    """70 photos, one file cut short between them and one that is text; and what is no picture at all."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(70):
        Image.fromarray(photos[index % 40]).save(folder / f"{index:03}.png")
    (folder / "010.png").write_bytes((folder / "010.png").read_bytes()[:300])
    (folder / "040.png").write_text("Dear diary")
    (folder / "notes.txt").write_text("Dear diary")
    return folder


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(folder, *items):
    return [path.relative_to(folder).as_posix() for path in batch.find_pictures([str(folder / item) for item in items])]


# ---------------------------------------------------------------- finding


def test_a_folder_is_searched_sorted_without_what_is_hidden_or_no_picture(tmp_path):
    touch(tmp_path, "b.JPG", "a/2.webp", "a/1.png", ".hidden.png", ".git/x.png", "notes.txt", "a/table.csv", "c.heic")
    assert found(tmp_path, "") == ["a/1.png", "a/2.webp", "b.JPG", "c.heic"]


def test_a_named_file_is_tried_whatever_it_is_called_and_answered_once(tmp_path):
    touch(tmp_path, "photo.dat", ".hidden.png", "a[1].png", "x.png")
    named = ["photo.dat", ".hidden.png", "a[1].png", "./x.png", "x.png", "missing.png"]
    assert found(tmp_path, *named) == ["photo.dat", ".hidden.png", "a[1].png", "x.png", "missing.png"]
    assert found(tmp_path, "x.png", "") == ["x.png", "a[1].png"]


def test_the_same_file_by_another_way_is_the_same_but_a_link_to_it_is_its_own(tmp_path):
    touch(tmp_path, "real/x.png")
    (tmp_path / "way").symlink_to("real")
    (tmp_path / "y.png").symlink_to("real/x.png")
    assert found(tmp_path, "real/x.png", "way/x.png", "y.png") == ["real/x.png", "y.png"]


def test_linked_folders_are_entered_and_a_circle_ends(tmp_path):
    touch(tmp_path, "elsewhere/cat.png", "here/dog.png")
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "here" / "circle").symlink_to(tmp_path / "here")
    assert found(tmp_path, "here") == ["here/dog.png", "here/linked/cat.png"]


def test_a_folder_keeps_its_own_name_where_a_link_leads_to_it_too(tmp_path):
    touch(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "0").symlink_to("a")
    (tmp_path / "a" / "more").symlink_to("../b")
    assert found(tmp_path, ".") == ["a/1.png", "b/2.png"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["1.png", "a/2.png", "a/b/3.jpg"]),  # a folder that it matches is searched, as a shell's would be
        ("*.png", ["1.png"]),
        ("**/*.png", ["1.png", "a/2.png"]),
        ("**", ["1.png", "a/2.png", "a/b/3.jpg"]),
        ("a/**/*.jpg", ["a/b/3.jpg"]),
        ("*.da?", []),
        ("*.dat", ["4.dat"]),  # the ending is named, so it is meant
        ("?.p[mn]g", ["1.png"]),
    ],
)
def test_patterns(tmp_path, pattern, expected):
    touch(tmp_path, "1.png", "a/2.png", "a/b/3.jpg", "4.dat", "notes.txt", ".hidden.png")
    if expected:
        assert sorted(found(tmp_path, pattern)) == expected
    else:
        with pytest.raises(ImageError, match="Nothing matches"):
            found(tmp_path, pattern)


def test_a_list_on_standard_input(tmp_path, monkeypatch):
    touch(tmp_path, "1.png", "two words.png")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{tmp_path / 'two words.png'}\n\n{tmp_path / '1.png'}\n"))
    assert [path.name for path in batch.find_pictures(["-"])] == ["two words.png", "1.png"]


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        (["empty"], "holds no picture (.apng, .avif"),
        (["no-such-folder"], "There is no file or folder"),
        (["*.png", "no-such"], "Nothing matches"),
    ],
)
def test_nothing_found_is_refused(tmp_path, items, sentence):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError) as refusal:
        found(tmp_path, *items)
    assert sentence in str(refusal.value)


def put(folder, name, data=b"x"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def looked(folder, *items):
    found = batch.look_for_pictures([str(folder / item) for item in items])
    names = [path.relative_to(folder).as_posix() for path in found.pictures]
    return names, {path.relative_to(folder).as_posix(): reason for path, reason in found.skipped.items()}


def test_files_without_a_known_ending_are_told_by_their_first_bytes(tmp_path):
    jpeg, gif = encode(scene(8, 8), "JPEG"), encode(scene(8, 8), "GIF")
    put(tmp_path, "00af", jpeg)
    put(tmp_path, "a/b.jpg_large", jpeg)
    put(tmp_path, "a/c.jpeg!d", jpeg)
    put(tmp_path, "a/d.2023", gif)
    put(tmp_path, "a/e", b"BMW and other words")
    put(tmp_path, "a/f.dat", b"")
    put(tmp_path, "words/g", b"no picture lies beside it")
    put(tmp_path, "words/h", b"\0\0\0\x0cJXL \r\n\x87\n")
    put(tmp_path, "bare/g", b"no picture lies beside it")
    pictures, skipped = looked(tmp_path, "")
    assert pictures == ["00af", "a/b.jpg_large", "a/c.jpeg!d", "a/d.2023"]
    assert list(skipped) == ["a/e", "a/f.dat", "words/g", "words/h"]
    assert "text" in skipped["a/e"] and "empty" in skipped["a/f.dat"] and "JPEG XL" in skipped["words/h"]
    assert looked(tmp_path, "a/*")[0] == ["a/b.jpg_large", "a/c.jpeg!d", "a/d.2023"]


def test_pictures_that_are_not_read_are_skipped_by_their_ending_and_told(tmp_path):
    touch(tmp_path, "a.jpg", "b.JXL", "c.cr2", "d.svg", "e.MOV", "f.ppm", "g.psd")
    pictures, skipped = looked(tmp_path, "")
    assert pictures == ["a.jpg"]
    assert list(skipped) == ["b.JXL", "c.cr2", "d.svg", "e.MOV", "f.ppm", "g.psd"]
    assert "JPEG XL" in skipped["b.JXL"] and "raw" in skipped["c.cr2"] and "video" in skipped["e.MOV"]
    assert looked(tmp_path, "b.JXL", "")[0] == ["b.JXL", "a.jpg"]  # named, so it is tried
    (tmp_path / "a.jpg").unlink()
    assert looked(tmp_path, "")[0] == []
    with pytest.raises(ImageError, match="b.JXL is a JPEG XL picture, which is not read, and there is no other"):
        found(tmp_path, "")


def test_what_systems_and_people_leave_beside_pictures_is_no_matter(tmp_path):
    jpeg = encode(scene(8, 8), "JPEG")
    for name in ("@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", ".thumbnails/a.jpg", "__MACOSX/._a.jpg", "__MACOSX/a.jpg"):
        put(tmp_path, f"cat/{name}", jpeg)
    touch(tmp_path, "cat/Thumbs.db", "cat/desktop.ini", "cat/.DS_Store", "cat/Icon\r", "labels.csv", "LICENSE")
    touch(tmp_path, "cat/a.jpg", "cat/a.json", "cat/IMG_1.AAE", "cat/README.md", "cat/a.jpg~")
    for item in ("", "**", "**/*.jpg", "cat/*"):
        assert looked(tmp_path, item) == (["cat/a.jpg"], {})
    assert looked(tmp_path, "cat/@eaDir")[0] == ["cat/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg"]  # named itself


def test_what_cannot_be_opened_is_skipped_and_a_pipe_is_not_waited_for(tmp_path):
    touch(tmp_path, "a.jpg")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    name = os.fsdecode(b"caf\xe9")
    put(tmp_path, name, b"\x93 no text, no picture")
    pictures, skipped = looked(tmp_path, "")
    assert pictures == ["a.jpg"] and set(skipped) == {"gone", name}


def test_an_empty_path_is_not_the_working_folder():
    with pytest.raises(ImageError, match="is empty"):
        batch.find_pictures([""])


# ---------------------------------------------------------------- writing


def read(out):
    """The rows of a file of any kind, as a user reads them: JSON in CSV is parsed, "" is nothing."""
    if out.suffix == ".parquet":
        return pq.read_table(out).to_pylist()
    if out.suffix == ".jsonl":
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    with open(out, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    text = ("file", "label", "error")
    return [{k: (v if k in text else json.loads(v)) if v else None for k, v in row.items()} for row in rows]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_number_comes_back_exactly(classifier, folder, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(batch, "ROW_GROUP", 40)  # so that a Parquet file has two
    paths = batch.find_pictures([str(folder)])
    out = tmp_path / f"answers.{kind}"
    batch.write(classifier, batch.answers(classifier, paths), out)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [out.name]
    rows = read(out)
    assert [row["file"] for row in rows] == [str(path) for path in paths] and len(rows) == 70
    named = ["probability_cat", "probability_dog"]
    assert list(rows[0]) == ["file", "label", "probability", *named, "logits", "evidence", "error"]
    for begin in range(0, 70, 32):  # in the batches that were answered together, so that even the last bit is the same
        part = [row for row in rows[begin : begin + 32] if not row["error"]]
        for row, expected in zip(part, classifier.predict([row["file"] for row in part]), strict=True):
            assert row["label"] == expected.label and row["error"] is None
            assert np.float32(row["probability"]) == expected.probabilities.max()
            assert [np.float32(row[name]) for name in named] == expected.probabilities.tolist()
            np.testing.assert_array_equal(np.array(row["logits"], np.float32), expected.logits)
            np.testing.assert_array_equal(np.array(row["evidence"], np.float32), expected.evidence)
    broken = {os.path.basename(row["file"]): row for row in rows if row["error"]}
    assert broken.keys() == {"010.png", "040.png"}
    assert "is cut short" in broken["010.png"]["error"] and "is text" in broken["040.png"]["error"]
    assert all(value is None for name, value in broken["010.png"].items() if name not in ("file", "error"))


def test_a_label_called_file_collides_with_nothing(model_2, photos):
    named = ImageClassifier.from_keras(model_2, ["file", "error"])
    names = batch.columns(named)
    assert len(set(names)) == len(names)
    answer = next(batch.answers(named, []), None)
    assert answer is None
    prediction = named.predict(photos[0])
    row = batch.row(batch.Answer(batch.Path("a.png"), prediction, None), names, named.labels)
    assert row["file"] == "a.png" and row["error"] is None
    assert row["probability_file"] == prediction.probabilities[0]


def test_without_evidence(classifier, folder, tmp_path):
    paths = [folder / "000.png"]
    batch.write(classifier, batch.answers(classifier, paths), tmp_path / "a.parquet", evidence=False)
    assert "evidence" not in pq.read_schema(tmp_path / "a.parquet").names


def test_a_file_name_that_is_no_text_is_written_all_the_same(classifier, folder, tmp_path):
    name = os.fsdecode(b"caf\xe9, \n.png")
    (folder / "000.png").rename(folder / name)
    for kind in batch.KINDS:
        batch.write(classifier, batch.answers(classifier, [folder / name]), tmp_path / f"a{kind}")
        assert read(tmp_path / f"a{kind}")[0]["file"] == f"{folder}/caf\\xe9, \n.png"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_interrupted_keeps_whole_rows_aside_and_the_older_file(classifier, folder, tmp_path, kind):
    out, paths = tmp_path / f"answers.{kind}", batch.find_pictures([str(folder)])
    out.write_text("an older file")

    def stopped():
        for count, answers in enumerate(batch.answers(classifier, paths)):
            if count == 2:
                raise KeyboardInterrupt
            yield answers

    with pytest.raises(batch.Interrupted) as stop:
        batch.write(classifier, stopped(), out)
    part = tmp_path / f"answers.part.{kind}"
    assert str(stop.value) == f"Interrupted: what was answered (pictures: 64) is kept in {part}."
    assert [row["file"] for row in read(part)] == [str(path) for path in paths[:64]]
    assert out.read_text() == "an older file"


def test_an_error_half_way_says_what_is_kept(classifier, folder, tmp_path):
    def broken():
        yield next(batch.answers(classifier, [folder / "000.png"]))
        raise BundleError("The model answers NaN; train it anew.")

    with pytest.raises(BundleError) as refusal:
        batch.write(classifier, broken(), tmp_path / "a.csv")
    part = tmp_path / "a.part.csv"
    assert (
        str(refusal.value)
        == f"The model answers NaN; train it anew: what was answered (pictures: 1) is kept in {part}."
    )
    assert len(read(part)) == 1


def test_interrupted_before_the_first_answer_leaves_nothing(classifier, tmp_path):
    def stopped():
        raise KeyboardInterrupt
        yield

    with pytest.raises(batch.Interrupted, match="nothing was answered yet"):
        batch.write(classifier, stopped(), tmp_path / "answers.csv")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_waits_until_a_row_is_whole(classifier, folder, tmp_path, monkeypatch):
    """The signal comes in the middle of writing: all 32 rows are there all the same."""
    paths = batch.find_pictures([str(folder)])

    class Table(batch.KINDS[".csv"]):
        def lines(self, rows):
            os.kill(os.getpid(), signal.SIGINT)
            return super().lines(rows)

    monkeypatch.setitem(batch.KINDS, ".csv", Table)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run as a job that ignores it
    with pytest.raises(batch.Interrupted, match=r"\(pictures: 32\)"):
        batch.write(classifier, batch.answers(classifier, paths), tmp_path / "answers.csv")
    assert len(read(tmp_path / "answers.part.csv")) == 32


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_full_disk_is_one_sentence_and_leaves_whole_rows(classifier, folder, tmp_path, kind):
    paths = batch.find_pictures([str(folder)])
    out, part = tmp_path / f"answers.{kind}", tmp_path / f"answers.part.{kind}"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000 if kind == "parquet" else 50_000, limits[1]))
    try:
        with pytest.raises(StorageError) as refusal:
            batch.write(classifier, batch.answers(classifier, paths), out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(refusal.value).startswith(f"{out} cannot be written (")
    assert str(refusal.value).endswith("; free space or choose another folder.")
    assert not out.exists()
    if kind == "parquet":  # is read from its end, so half of it is nothing
        assert not part.exists()
    else:
        assert f": what was answered (pictures: 32) is kept in {part};" in str(refusal.value)
        assert len(read(part)) == 32


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("answers.xlsx", DataError, "end it in .csv, .jsonl, .parquet"),
        ("answers", DataError, "does not say what to write"),
        ("no-such/answers.csv", StorageError, "There is no folder"),
        ("there.csv", StorageError, "is a folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, name, kind, sentence):
    (tmp_path / "there.csv").mkdir()
    with pytest.raises(kind, match=sentence):
        batch.check_out(tmp_path / name)


def test_thousands_of_pictures_are_not_in_memory_at_once(classifier, folder):
    """Asked for one batch, no more than the next one is read."""
    missing = [folder / f"missing-{index}.png" for index in range(96)]
    batches = batch.answers(classifier, [folder / "000.png"] * 32 + missing)
    assert len(next(batches)) == 32
    for index in range(32, 96):
        (folder / f"missing-{index}.png").write_bytes((folder / "000.png").read_bytes())
    rest = [answer for answers in batches for answer in answers]
    assert [answer.error is None for answer in rest] == [False] * 32 + [True] * 64
