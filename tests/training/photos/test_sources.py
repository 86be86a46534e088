import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from hub.errors import DataError, ImageError
from training.photos.data import load_photos, summary, write_problems
from training.photos.sources import Row, demand_outside, read_source, title_of

from ..conftest import draw, encode, write


def pictures(number, start=0):
    return [(encode(draw(i % 2, i)), i % 2) for i in range(start, start + number)]


def load(folder, tmp_path, **more):
    return load_photos(folder, 16, cache=tmp_path / "cache", progress=False, **more)


def as_parquet(folder, columns, name="train"):
    """A parquet file as other libraries write it, without what `datasets` notes in it."""
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def test_a_split_called_valid_is_for_validation(tmp_path):
    folder = write(tmp_path / "set", {"train": pictures(20), "valid": pictures(6, 100)})
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
        "  - split: valid\n    path: data/valid-*\n---\n"
    )
    photos = load(folder, tmp_path)
    assert int((photos.splits == "validation").sum()) == 6
    assert photos.report["own_splits"] == ["validation"]
    pooled = load(folder, tmp_path, own_validation=False)
    assert len(pooled) == 26
    assert {*pooled.hashes[pooled.splits == "validation"]} != {*photos.hashes[photos.splits == "validation"]}


@pytest.mark.parametrize(
    ("splits", "uses", "said"),
    [
        (["training_set", "test_set"], {"train", "test"}, ""),
        (["train", "dev", "holdout"], {"train", "validation", "test"}, ""),
        (["train", "extra"], {"train"}, "The split extra means neither training, validation nor test: its 4 rows are"),
        (["colour"], {"train"}, ""),
        (["colour", "grey"], {"train"}, "put together and split anew"),
    ],
)
def test_the_names_of_its_own_splits_say_what_they_are_for(tmp_path, splits, uses, said):
    folder = write(tmp_path / "set", {name: pictures(4, 10 * k) for k, name in enumerate(splits)})
    lines = "".join(f"  - split: {name}\n    path: data/{name}-*\n" for name in splits)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{lines}---\n")
    found = read_source(folder, tmp_path)
    assert {row.use for row in found.rows} == uses
    assert bool(found.told) == bool(said) and said in " ".join(found.told)


@pytest.mark.parametrize(
    ("names", "uses", "said"),
    [
        (["trainset", "testset"], ["train"] * 2 + ["test"] * 2, ""),
        (["train-0", "holdout-0"], ["train"] * 2 + ["test"] * 2, ""),
        (["train", "extra"], ["train"] * 2, "extra.parquet means neither"),
        (["a", "b"], ["train"] * 4, ""),
    ],
)
def test_files_of_tables_are_split_by_the_same_rule(tmp_path, names, uses, said):
    for k, name in enumerate(names):
        cells = [{"bytes": picture, "path": None} for picture, _ in pictures(2, 10 * k)]
        as_parquet(tmp_path / "set", {"image": cells, "label": ["a", "b"]}, name)
    found = read_source(tmp_path / "set", tmp_path)
    assert [row.use for row in found.rows] == uses
    assert bool(found.told) == bool(said) and said in " ".join(found.told)


def test_a_test_split_without_labels_is_left_out_and_another_is_drawn(tmp_path):
    hidden = [(picture, -1) for picture, _ in pictures(5, 500)]
    photos = load(write(tmp_path / "set", {"train": pictures(60), "test": hidden}), tmp_path)
    assert photos.report["unlabelled"] == 5
    assert 0 < (photos.splits == "test").sum() < 20
    assert "own test split has no labels and is left out" in summary(photos)


@pytest.mark.parametrize("column", ["class", "Category", "species", "target"])
def test_a_column_that_is_called_as_labels_are_is_read_and_told(tmp_path, column):
    cells = [{"bytes": picture, "path": None} for picture, _ in pictures(4)]
    folder = as_parquet(tmp_path / "set", {"image": cells, "id": [1, 2, 3, 4], column: ["x", "y", "x", "e\u0301"]})
    photos = load(folder, tmp_path)  # without features, as pandas writes it
    assert photos.label_names == ["x", "y", "\xe9"]
    assert f"The labels are read from the column {column}." in summary(photos)


def test_a_folder_may_be_called_as_a_format_is(tmp_path, monkeypatch):
    cells = [{"bytes": picture, "path": None} for picture, _ in pictures(2)]
    as_parquet(tmp_path / "pandas", {"image": cells, "label": ["a", "b"]})
    monkeypatch.chdir(tmp_path)
    assert len(read_source("pandas", tmp_path).rows) == 2


def test_a_column_of_bytes_is_read_as_pictures(tmp_path):
    folder = as_parquet(tmp_path / "set", {"jpg": [picture for picture, _ in pictures(4)], "label": [3, 5, 3, 5]})
    assert load(folder, tmp_path).label_names == ["3", "5"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": ["a", "b"], "text": [b"abc", b"def"]}, "no picture column .its columns: label, text.*the bytes"),
        ({"image": "pictures", "title": ["a", "b"]}, "no label column .its columns: image, title.*rename .*label"),
        ({"image": "pictures", "label": ["a", "a"]}, "has one label only .a."),
    ],
)  # fmt: skip
def test_a_table_without_the_columns_is_refused_with_what_to_do(tmp_path, columns, said):
    cells = [{"bytes": picture, "path": None} for picture, _ in pictures(2)]
    columns = {name: cells if values == "pictures" else values for name, values in columns.items()}
    with pytest.raises(DataError, match=said):
        load(as_parquet(tmp_path / "set", columns), tmp_path)


def test_cells_without_a_label_and_whole_numbers_in_a_column_with_gaps(tmp_path):
    cells = [{"bytes": picture, "path": None} for picture, _ in pictures(4)]
    for column, names in (
        (["", "b", "c", "b"], ["b", "c"]),
        ([None, 1.0, 2.0, 1.0], ["1", "2"]),
        ([b"b", b"c"] * 2, ["b", "c"]),
    ):
        photos = load(as_parquet(tmp_path / "set", {"image": cells, "label": column}), tmp_path)
        assert photos.label_names == names
        assert photos.report["unlabelled"] == sum(not value for value in column)


def test_a_data_set_as_save_to_disk_leaves_it_is_read(tmp_path):
    cells = [{"bytes": picture, "path": None} for picture, _ in pictures(4)]
    Dataset.from_dict({"image": cells, "label": ["a", "b"] * 2}).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved", tmp_path).label_names == ["a", "b"]


def test_of_several_data_sets_in_a_folder_the_names_are_said(tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("one", "two"):
        as_parquet(tmp_path / "set" / name, {"a": [1]})
    parts = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("one", "two"))
    (tmp_path / "set" / "README.md").write_text(f"---\nconfigs:\n{parts}---\n")
    with pytest.raises(DataError, match="several data sets .one and two."):
        load(tmp_path / "set", tmp_path)


@pytest.mark.parametrize(
    ("files", "said"),
    [(["notes.txt"], "neither pictures nor tables"), (["part.zip"], "unpack what is packed in it")],
)
def test_a_folder_without_pictures_is_refused(tmp_path, files, said):
    (tmp_path / "set").mkdir()
    for name in files:
        (tmp_path / "set" / name).write_bytes(b"x")
    with pytest.raises(DataError, match=said):
        load(tmp_path / "set", tmp_path)


def test_an_empty_name_is_not_the_working_folder(tmp_path):
    with pytest.raises(DataError, match="is empty"):
        load("", tmp_path)


def test_results_are_not_written_among_the_pictures(tmp_path):
    (tmp_path / "set").mkdir()
    demand_outside(tmp_path / "set", tmp_path / "settings", "--run")
    demand_outside("someone/pictures", Path("runs"), "--run")
    for inside in ("set", "set/runs/mine", "other/../set/runs"):
        with pytest.raises(DataError, match="name a place elsewhere with --run"):
            demand_outside(tmp_path / "set", tmp_path / inside, "--run")


def test_a_pipe_among_the_pictures_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="is not a file"):
        Row("train", "train", 0, 0, str(tmp_path / "pipe.jpg"), None).bytes()


def test_a_label_number_out_of_range_is_one_sentence_with_the_row(tmp_path):
    folder = write(tmp_path / "set", {"train": pictures(3)})
    file = next(folder.rglob("*.parquet"))
    table = pq.read_table(file)
    pq.write_table(table.set_column(1, table.schema.field(1), pa.array([0, 7, 1])), file)
    with pytest.raises(DataError, match="Row 1 of train in .* has the label 7, but labels knows only 0 to 1"):
        load(folder, tmp_path)


def test_names_that_are_equal_as_unicode_are_one_label(tmp_path):
    folder = write(tmp_path / "set", {"train": [(p, k % 3) for k, (p, _) in enumerate(pictures(6))]},
                   names=("caf\xe9", "tea", "cafe\u0301"))  # fmt: skip
    photos = load(folder, tmp_path)
    assert photos.label_names == ["caf\xe9", "tea"]
    assert photos.labels.tolist() == [0, 1, 0, 0, 1, 0]


def test_every_file_that_is_left_out_is_listed_by_name(tmp_path):
    folder = tmp_path / "pets"
    for name in ("cat/1.png", "dog/2.png", "stray.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        draw(0, len(name) + ord(name[0])).save(folder / name)
    (folder / "dog" / "broken.jpg").write_bytes(b"no picture")
    (folder / "dog" / "other.jxl").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n")
    photos = load(folder, tmp_path)
    write_problems(photos, tmp_path / "problems.csv")
    text = (tmp_path / "problems.csv").read_text()
    for line in (
        "dog/broken.jpg,unreadable",
        "stray.png,skipped,it is a picture without a label",
        "dog/other.jxl,skip",
    ):
        assert line in text
    assert "1 unreadable, 0 unlabelled, 0 duplicate, 0 conflict, 2 skipped" in summary(photos)


def zipped(path, names, **more):
    with zipfile.ZipFile(path, "w", **more) as archive:
        for k, name in enumerate(names):
            archive.writestr(name, encode(draw(k % 2, k)))
    return path


def test_a_zip_of_label_folders_is_read_and_unpacked_once(tmp_path):
    archive = zipped(tmp_path / "pets.zip", ["pets/cat/1.png", "pets/dog/2.png", "__MACOSX/pets/cat/._1.png"])
    photos = load(archive, tmp_path)
    assert (photos.label_names, len(photos), photos.name) == (["cat", "dog"], 2, str(archive))
    assert title_of(archive) == "pets"
    (there,) = [path for path in (tmp_path / "cache" / "zips").iterdir() if path.is_dir()]
    before = there.stat().st_mtime_ns
    assert len(load(archive, tmp_path)) == 2
    assert there.stat().st_mtime_ns == before
    next(there.rglob("2.png")).unlink()
    assert len(load(archive, tmp_path)) == 2


def test_names_in_a_zip_are_read_as_utf_8_where_they_can_be_that(tmp_path):
    archive = zipped(tmp_path / "mac.zip", ["café/1.png", "dog/2.png"])
    marked = archive.read_bytes()
    unmarked = marked.replace(b"\x00\x08\x00\x00", b"\x00\x00\x00\x00")  # the mark that macOS leaves out
    assert unmarked != marked
    archive.write_bytes(unmarked)
    assert load(archive, tmp_path).label_names == ["café", "dog"]
    archive.write_bytes(unmarked.replace("café".encode(), b"caf\x82x"))  # an older system's é
    assert load(archive, tmp_path).label_names == ["caféx", "dog"]


def test_a_zip_that_can_be_read_in_two_ways_is_called_by_its_own_name(tmp_path):
    archive = zipped(tmp_path / "my pets.zip", ["cat/siamese/1.png", "dog/poodle/2.png"])
    with pytest.raises(DataError) as refused:
        load(archive, tmp_path)
    assert f"'{archive}/LABEL'" in str(refused.value)
    assert load(f"{archive}/LABEL", tmp_path).label_names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: zipped(path, ["cat/1.png", "../../dog/2.png"]), "leads out of it"),
        (lambda path: zipped(path, ["cat/1.png", "/dog/2.png"]), "leads out of it"),
        (lambda path: zipped(path, ["cat", "cat/1.png"]), "is damaged and cannot be unpacked"),
        (lambda path: zipped(path, ["cat/1.png", f"{'x' * 300}/2.png"]), "too long for this disk"),
        (lambda path: path.write_bytes(b"PK\3\4" + bytes(99)), "cut short; make or download it again"),
        (lambda path: path.write_bytes(b"Rar!"), "not a zip; unpack it, or give its folder"),
        (lambda path: path.write_bytes(cut()), "is damaged and cannot be unpacked"),
    ],
)
def test_a_zip_that_is_not_to_be_trusted_is_refused_and_leaves_nothing(tmp_path, make, said):
    make(tmp_path / "pets.zip")
    with pytest.raises(DataError, match=said):
        load(tmp_path / "pets.zip", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".png"]


def cut():
    """A zip whose one picture is damaged inside."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("cat/1.png", b"x" * 500)
    return buffer.getvalue().replace(b"xxxx", b"xxyx", 1)


def test_a_zip_that_is_far_larger_inside_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("training.photos.zips.SOME", 10)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.png", bytes(10**6))
    with pytest.raises(DataError, match="far larger inside"):
        load(tmp_path / "bomb.zip", tmp_path)
    assert not list((tmp_path / "cache" / "zips").glob("*/*"))


@pytest.mark.parametrize("damage", ["missing", "short", "empty", "of another size"])
@pytest.mark.parametrize("name", ["pixels.npy", "index.npz"])
def test_a_damaged_cache_is_made_anew(tmp_path, name, damage):
    folder = write(tmp_path / "set", {"train": pictures(6)})
    first = load(folder, tmp_path)
    expected = np.array(first.pixels[:])
    file = next((tmp_path / "cache" / "pixels").rglob(name))
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "of another size":
        np.save(file, np.zeros((2, 3), np.uint8)) if name == "pixels.npy" else np.savez(file, hashes=[], errors=[])
    else:
        file.write_bytes(whole[: len(whole) // 2] if damage == "short" else b"")
    assert np.array_equal(load(folder, tmp_path).pixels[:], expected)
    assert file.read_bytes() == whole or name == "index.npz"


def test_a_row_without_a_picture_is_unreadable(tmp_path):
    cells = [{"bytes": picture, "path": None} for picture, _ in pictures(2)] + [None]
    folder = as_parquet(tmp_path / "set", {"image": cells, "label": ["a", "b", "a"]})
    photos = load(folder, tmp_path)
    assert [row["detail"] for row in photos.problems] == ["Row 2 of train holds no picture."]
    assert Row("train", "train", 0, 0, "/a/b/c.png", None).file == os.path.join("b", "c.png")
