import csv
import resource
import shutil

import numpy as np
import pytest
from PIL import Image

from hub.errors import DataError, StorageError
from hub.images import open_image, pixel_hash, to_tensor
from training.photos.data import Rows, _folder_names, load_photos, summary, write_pictures, write_problems

from ..conftest import draw, encode, write


def load(folder, tmp_path, size=16):
    return load_photos(folder, size, cache=tmp_path / "cache", progress=False)


def place(image) -> float:
    """Where a picture's hash falls in [0, 1)."""
    return int(pixel_hash(open_image(image))[:16], 16) / 2**64


def test_splits_follow_the_hash_of_the_pixels(shapes, tmp_path):
    photos = load(shapes, tmp_path)
    assert len(photos) == 320
    expected = {}
    for i in range(320):
        picture = encode(draw(i % 2, i))
        p = place(picture)
        expected[pixel_hash(open_image(picture))] = "test" if p < 0.1 else "validation" if p < 0.2 else "train"
    assert dict(zip(photos.hashes, photos.splits, strict=True)) == expected
    assert set(photos.splits) == {"train", "validation", "test"}


def test_the_same_picture_in_another_file_format_or_set_lands_in_the_same_split(shapes, tmp_path):
    rows = [(encode(draw(i % 2, i), "BMP"), i % 2) for i in range(319, 199, -1)]
    other = load(write(tmp_path / "other", {"train": rows}), tmp_path)
    first = load(shapes, tmp_path)
    split = dict(zip(first.hashes, first.splits, strict=True))
    assert len(other) == 120
    assert all(split[digest] == s for digest, s in zip(other.hashes, other.splits, strict=True))


def test_pixels_are_what_prediction_sees_and_rows_keep_their_order(shapes, tmp_path):
    photos = load(shapes, tmp_path)
    for i in (0, 7, 319):
        assert np.array_equal(photos.pixels[i], to_tensor(encode(draw(i % 2, i)), 16))
        assert photos.labels[i] == i % 2
    picked = photos.subset(np.array([5, 3])).subset(np.array([1]))
    assert np.array_equal(picked.pixels[0], photos.pixels[3])
    assert picked.hashes[0] == photos.hashes[3]
    assert np.asarray(photos.subset("test").pixels).shape == (np.sum(photos.splits == "test"), 16, 16, 3)


def test_faults_are_counted_listed_and_left_out(tmp_path):
    good = [(encode(draw(i % 2, i)), i % 2) for i in range(40)]
    twin = good[4]
    both = encode(draw(0, 99))
    rows = [*good, twin, twin, (both, 0), (both, 1), (b"", 0), (b"<html>not found</html>", 1), (good[1][0][:300], 1)]
    photos = load(write(tmp_path / "faulty", {"train": rows}), tmp_path)
    assert len(photos) == 40
    counts = {key: photos.report[key] for key in ("pictures", "unreadable", "duplicate", "conflict", "unlabelled")}
    assert counts == {"pictures": 47, "unreadable": 3, "duplicate": 2, "conflict": 2, "unlabelled": 0}
    assert photos.report["stored_size"] == "48 × 48"
    write_problems(photos, tmp_path / "problems.csv")
    listed = list(csv.DictReader((tmp_path / "problems.csv").open()))
    assert [(row["row"], row["problem"]) for row in listed] == [
        ("40", "duplicate"), ("41", "duplicate"), ("42", "conflict"), ("43", "conflict"),
        ("44", "unreadable"), ("45", "unreadable"), ("46", "unreadable"),
    ]  # fmt: skip
    assert "row 4 of train" in listed[0]["detail"]
    assert "disc and square" in listed[2]["detail"]
    assert "Left out: 3 unreadable, 0 unlabelled, 2 duplicate, 2 conflict" in summary(photos)


def test_a_test_split_is_kept_and_validation_comes_out_of_train(tmp_path):
    train = [(encode(draw(i % 2, i)), i % 2) for i in range(200)]
    test = [(encode(draw(i % 2, 1000 + i)), i % 2) for i in range(30)] + [train[0], train[1]]
    photos = load(write(tmp_path / "own", {"train": train, "test": test}, column="label"), tmp_path)
    assert np.sum(photos.splits == "test") == 32
    assert photos.report["duplicates_across_splits"] == 2  # kept in test, taken out of train
    assert np.sum(photos.splits != "test") == 198
    for picture, _ in train[2:]:
        split = photos.splits[photos.hashes == pixel_hash(open_image(picture))][0]
        assert split == ("validation" if place(picture) < 0.1 else "train")


def test_a_folder_of_picture_files_loads_with_its_folders_as_labels(tmp_path):
    for i in range(12):
        path = tmp_path / "pets" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(i % 2, i).save(path)
    (tmp_path / "pets" / "dog" / "broken.jpg").write_bytes(b"no picture at all")
    photos = load(tmp_path / "pets", tmp_path)
    assert photos.label_names == ["cat", "dog"]
    assert len(photos) == 12
    assert photos.report["unreadable"] == 1


@pytest.fixture
def album(tmp_path):
    """A folder of 60 pictures: files of four formats, one label that no folder may be called, and a duplicate."""
    for i in range(60):
        ending, form = (("png", "PNG"), ("jpeg", "JPEG"), ("jp2", "JPEG2000"), ("tif", "TIFF"))[i // 2 % 4]
        path = tmp_path / "album" / ("disc", "a square. Or so?")[i % 2] / f"{i}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(draw(i % 2, i), form))
    shutil.copy(path, path.with_name(f"again{path.suffix}"))
    return tmp_path / "album"


def test_a_splits_pictures_are_written_as_they_are_stored(album, tmp_path):
    given = {pixel_hash(open_image(path)): path for path in album.rglob("*.*[0-9fg]")}
    photos = load(album, tmp_path)
    held = set(photos.hashes[photos.splits == "validation"])
    assert len(held) > 3
    options = {"size": 16, "cache": tmp_path / "cache", "progress": False}
    written = write_pictures(album, "validation", tmp_path / "held", **options)
    assert {path.stem for path in written} == held
    assert sorted(path for path in (tmp_path / "held").rglob("*.*[0-9fg]")) == sorted(written)
    for path in written:
        assert path.read_bytes() == given[path.stem].read_bytes()
        assert path.parent.name == given[path.stem].parent.name.replace(".", "_").replace("?", "_")
        assert path.suffix == given[path.stem].suffix.replace("jpeg", "jpg")
    few = write_pictures(album, "validation", tmp_path / "few", limit=3, **options)
    assert [path.name for path in few] == sorted(path.name for path in written)[:3]


def test_no_two_splits_are_written_into_one_folder(album, tmp_path):
    options = {"size": 16, "cache": tmp_path / "cache", "progress": False}
    (tmp_path / "held").mkdir()
    written = write_pictures(album, "test", tmp_path / "held", **options)
    with pytest.raises(DataError, match="held is not empty; name a new folder"):
        write_pictures(album, "validation", tmp_path / "held", **options)
    assert sorted(path for path in (tmp_path / "held").rglob("*.*[0-9fg]")) == sorted(written)


@pytest.mark.parametrize("labels", [["a/b", "a:b"], ["..", "x"], ["Cat", "cat"], ["", "x"], ["ß", "SS"], ["गि", "गी"]])
def test_no_label_leads_out_of_the_folder_or_into_anothers(labels, tmp_path):
    names = _folder_names(labels)
    assert len({name.casefold() for name in names}) == len(labels)
    assert all((tmp_path / name).parent == tmp_path and name.strip(". ") == name for name in names)


def test_a_second_load_decodes_nothing_and_a_changed_picture_is_decoded(shapes, tmp_path, monkeypatch):
    first = load(shapes, tmp_path)
    monkeypatch.setattr("training.photos.data._decode", lambda *a: pytest.fail("decoded again"))
    again = load(shapes, tmp_path)
    assert np.array_equal(first.hashes, again.hashes)
    monkeypatch.undo()
    rows = [(encode(draw(i % 2, i + (i == 5) * 7000)), i % 2) for i in range(320)]
    changed = load(write(tmp_path / "changed", {"train": rows}), tmp_path)
    assert (changed.hashes != first.hashes).sum() == 1


@pytest.mark.parametrize("form", ["text labels", "integer labels"])
def test_labels_that_are_no_class_label_are_named_from_the_data(tmp_path, form):
    import datasets

    values = ["cat", "dog", "fox"] if form == "text labels" else [3, 5, 8]
    kind = datasets.Value("string" if form == "text labels" else "int64")
    content = {
        "img": [{"bytes": encode(draw(0, i)), "path": None} for i in range(9)],
        "label": [values[i % 3] for i in range(9)],
    }
    table = datasets.Dataset.from_dict(content, datasets.Features({"img": datasets.Image(), "label": kind}))
    (tmp_path / "set").mkdir()
    table.to_parquet(tmp_path / "set" / "train.parquet")
    photos = load(tmp_path / "set", tmp_path)
    assert photos.label_names == [str(v) for v in values]
    assert photos.labels.tolist() == [i % 3 for i in range(9)]


def test_what_cannot_be_loaded_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="No data set could be loaded from"):
        load(tmp_path / "nothing-here", tmp_path)
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"has no picture column \(its columns: a, b\)"):
        load(tmp_path / "table", tmp_path)
    broken = write(tmp_path / "broken", {"train": [(b"x", 0), (b"y", 1)]})
    with pytest.raises(DataError, match="holds no readable picture"):
        load(broken, tmp_path)


def labelled(folder, labels, kind):
    """Nine pictures in a parquet file with this label column."""
    import datasets

    content = {"img": [{"bytes": encode(draw(0, i)), "path": None} for i in range(len(labels))], "label": labels}
    features = datasets.Features({"img": datasets.Image(), "label": kind})
    folder.mkdir()
    datasets.Dataset.from_dict(content, features).to_parquet(folder / "train.parquet")
    return folder


def test_pictures_without_a_label_are_left_out_and_do_not_take_their_twins_along(tmp_path):
    import datasets

    text = labelled(tmp_path / "text", ["cat", None, "dog", "cat"], datasets.Value("string"))
    photos = load(text, tmp_path)
    assert photos.labels.tolist() == [0, 1, 0]
    assert photos.report["unlabelled"] == 1
    twin = encode(draw(0, 5))
    twins = load(write(tmp_path / "twins", {"train": [(twin, 0), (twin, -1), (encode(draw(1, 1)), 1)]}), tmp_path)
    assert twins.labels.tolist() == [0, 1]
    assert twins.report["conflict"] == 0


def test_pictures_that_are_all_under_two_labels_are_said_to_be(tmp_path):
    picture = encode(draw(0, 0))
    with pytest.raises(DataError, match="occur under two labels; keep each under one"):
        load(write(tmp_path / "set", {"train": [(picture, 0), (picture, 1)]}), tmp_path)


def test_a_label_column_of_lists_is_no_label_column(tmp_path):
    import datasets

    folder = labelled(tmp_path / "lists", [[0], [1]], datasets.List(datasets.Value("int64")))
    with pytest.raises(DataError, match="several values in a row"):
        load(folder, tmp_path)


def test_a_full_disk_while_decoding_is_one_sentence(shapes, tmp_path):
    """A limit on the size of a file stands for the full disk; writing through a memory map would be a bus error."""
    load_photos(shapes, 8, cache=tmp_path / "other", progress=False)  # what `datasets` keeps is there
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StorageError, match="Cannot write to .*; free some space or choose another folder"):
            load_photos(shapes, 64, cache=tmp_path / "cache", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_an_unwritable_cache_is_one_sentence(shapes, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="Cannot write to .*; free some space or choose another folder"):
        load(shapes, tmp_path)


def test_an_interrupted_decode_leaves_nothing_that_looks_whole(shapes, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(shapes, tmp_path)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    monkeypatch.undo()
    assert len(load(shapes, tmp_path)) == 320
    shutil.rmtree(tmp_path / "cache")


def test_rows_index_like_the_array_they_stand_for():
    array = np.arange(24).reshape(6, 4)
    rows = Rows(Rows(array, np.array([5, 0, 2])), np.array([2, 1]))
    assert rows.shape == (2, 4)
    assert rows[0].tolist() == array[2].tolist()
    assert rows[0:2].tolist() == array[[2, 0]].tolist()
    assert np.asarray(rows).tolist() == array[[2, 0]].tolist()


def test_sizes_that_differ_are_told_as_a_range(tmp_path):
    rows = [(encode(Image.new("RGB", (20 + i, 30), (i * 9, 0, 0))), i % 2) for i in range(4)]
    assert load(write(tmp_path / "sizes", {"train": rows}), tmp_path).report["stored_size"] == "20–23 × 30"


def test_limits_draw_the_first_by_hash_and_adding_pictures_keeps_most(shapes, tmp_path):
    photos = load_photos(shapes, 16, cache=tmp_path, progress=False)
    few = photos.limited({"train": 50, "validation": 0, "test": 9})
    assert [int((few.splits == split).sum()) for split in ("train", "test")] == [50, 9]
    assert (few.splits == "validation").sum() == (photos.splits == "validation").sum()
    train = np.sort(photos.hashes[photos.splits == "train"])
    assert sorted(few.hashes[few.splits == "train"]) == train[:50].tolist()
    row = int(np.flatnonzero(photos.hashes == few.hashes[7])[0])
    np.testing.assert_array_equal(np.asarray(few.pixels[7]), np.asarray(photos.pixels[row]))
    assert few.labels[7] == photos.labels[row]


def test_shares_can_be_chosen(shapes, tmp_path):
    wide = load_photos(shapes, 16, validation_share=0.3, test_share=0.25, cache=tmp_path, progress=False)
    usual = load_photos(shapes, 16, cache=tmp_path, progress=False)
    places = np.array([int(digest[:16], 16) / 2**64 for digest in wide.hashes])
    expected = np.where(places < 0.25, "test", np.where(places < 0.55, "validation", "train"))
    np.testing.assert_array_equal(wide.splits, expected)
    assert {*usual.hashes[usual.splits == "test"]} <= {*wide.hashes[wide.splits == "test"]}
