import datasets
import pytest

from hub.errors import DataError
from training.photos.data import load_photos
from training.photos.folders import SPLITS, label_folders

from ..conftest import draw


def put(folder, *names):
    """A folder with a picture under each of these names, no two alike."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        draw(number % 2, number).save(folder / name)
    return folder


def load(folder, tmp_path):
    return load_photos(folder, 16, cache=tmp_path / "cache", progress=False)


def counted(photos, split):
    labels = photos.labels[photos.splits == split]
    return {name: int((labels == k).sum()) for k, name in enumerate(photos.label_names)}


def test_names_mean_nothing_but_the_label(tmp_path):
    names = ["crash test/test-1.png", "crash test/2.png", "dev/val 1.png", "Straße [alt] 100%/train.PNG", "dev/3.png"]
    photos = load(put(tmp_path / "photos", *names), tmp_path)
    assert photos.label_names == ["Straße [alt] 100%", "crash test", "dev"]
    assert len(photos) == photos.report["pictures"] == 5
    found = label_folders(tmp_path / "photos")
    assert [*found] == ["train"]
    assert [found["train"].features["label"].int2str(row["label"]) for row in found["train"]] == [
        "Straße [alt] 100%", "crash test", "crash test", "dev", "dev",
    ]  # fmt: skip


def test_folders_of_splits_are_kept(tmp_path):
    names = ["Train/cat/1.png", "Train/test dog/2.png", "val/cat/3.png", "eval/cat/4.png", "eval/test dog/5.png"]
    photos = load(put(tmp_path / "photos", *names), tmp_path)
    assert counted(photos, "train") == {"cat": 1, "test dog": 1}
    assert counted(photos, "validation") == {"cat": 1, "test dog": 0}
    assert counted(photos, "test") == {"cat": 1, "test dog": 1}


def test_the_words_for_splits_are_those_of_datasets():
    words = {str(split): sorted(words) for split, words in datasets.data_files.SPLIT_KEYWORDS.items()}
    assert {split: sorted(words) for split, words in SPLITS.items()} == words


def test_the_same_pictures_as_load_dataset_finds(tmp_path):
    folder = put(tmp_path / "photos", *(f"{'ab'[i % 2]}/{i}.png" for i in range(6)))
    ours, theirs = label_folders(folder)["train"], datasets.load_dataset(str(folder))["train"]
    assert ours.features == theirs.features

    def rows(table):
        table = table.cast_column("image", datasets.Image(decode=False))
        return sorted((row["image"]["path"], row["label"]) for row in table)

    assert rows(ours) == rows(theirs)


def test_files_beside_the_pictures_are_passed_over(tmp_path):
    folder = put(tmp_path / "photos", "a/1.png", "b/2.png", "a/.thumb.png")
    (folder / "a" / "1.png.json").write_text("{}")
    (folder / "notes.txt").write_text("from May")
    (folder / "README.md").write_text("# Mine\n")
    assert len(load(folder, tmp_path)) == 2


@pytest.mark.parametrize("names", [["a/1.png"], ["1.png", "2.png"], ["a/1.png", "b/c/2.png"]])
def test_what_has_no_two_labels_is_refused(tmp_path, names):
    folder = put(tmp_path / "photos", *names)
    assert label_folders(folder) is None
    with pytest.raises(DataError, match="label"):
        load(folder, tmp_path)


def test_splits_are_no_labels(tmp_path):
    with pytest.raises(DataError, match="no label folders, only test and train;"):
        load(put(tmp_path / "photos", "train/1.png", "test/2.png"), tmp_path)


def test_a_file_that_describes_the_pictures_goes_first(tmp_path):
    folder = put(tmp_path / "photos", "x/1.png", "y/2.png")
    (folder / "metadata.csv").write_text("file_name,label\nx/1.png,first\ny/2.png,second\n")
    assert label_folders(folder) is None
    assert load(folder, tmp_path).label_names == ["first", "second"]
    (folder / "metadata.csv").unlink()
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: x/*\n---\n")
    assert label_folders(folder) is None
    assert label_folders(tmp_path / "none") is None
