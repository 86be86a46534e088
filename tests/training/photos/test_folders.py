import datasets
import pytest

from hub.errors import DataError
from training.photos.data import load_photos
from training.photos.folders import read_folder, with_pattern
from training.photos.sources import read_source
from training.photos.split_words import WORDS, split_of

from ..conftest import draw, encode


def put(folder, *names):
    """A folder with a picture under each of these names, no two alike."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        draw(number % 2, number).save(folder / name)
    return folder


def read(folder, names):
    """What `read_folder` makes of files of these names, as "split label" for each that has a label; and the rest."""
    picture = encode(draw(0, 0))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
    found = read_folder(folder)
    read = {path.relative_to(folder).as_posix(): f"{split} {label}" for path, split, label in found.pictures}
    return read, {path.relative_to(folder).as_posix() for path in found.skipped}, " ".join(found.told)


def load(folder, tmp_path):
    return load_photos(folder, 16, cache=tmp_path / "cache", progress=False)


# Each name, and what it is read as; "-" is left out and listed.
CLEAR = {
    "names that mean nothing but the label": {
        "crash test/test-1.png": "train crash test",
        "dev/val 1.png": "train dev",
        "Straße [alt] 100%/train.PNG": "train Straße [alt] 100%",
    },
    "labels that differ by case alone": {f"{name}/1.png": f"train {name}" for name in "AaGg"},
    "splits": {
        "Train/cat/1.png": "train cat",
        "Train/test dog/2.png": "train test dog",
        "val/cat/3.png": "validation cat",
        "eval/test dog/5.png": "test test dog",
    },
    "splits in splits": {
        "archive/training_set/training_set/cats/1.jpg": "train cats",
        "archive/training_set/training_set/dogs/1.jpg": "train dogs",
        "archive/test_set/test_set/cats/1.jpg": "test cats",
    },
    "Intel's scenes": {
        "seg_train/seg_train/sea/1.jpg": "train sea",
        "seg_train/seg_train/street/2.jpg": "train street",
        "seg_test/seg_test/sea/3.jpg": "test sea",
        "seg_pred/seg_pred/4.jpg": "-",
    },
    "a split without labels": {
        "train/cats/1.jpg": "train cats",
        "train/dogs/2.jpg": "train dogs",
        "validation/cats/3.jpg": "validation cats",
        "test/1.jpg": "-",
    },
    "labels outside, splits inside": {
        "cat/training/1.jpg": "train cat",
        "dog/training/2.jpg": "train dog",
        "dog/Hold-out/3.jpg": "test dog",
    },
    "Tiny ImageNet": {
        "train/n01/images/1.jpg": "train n01",
        "train/n02/images/2.jpg": "train n02",
        "val/images/3.jpg": "-",
        "test/images/4.jpg": "-",
    },
    "digits": {"train/0/1.png": "train 0", "train/1/2.png": "train 1", "test/1/3.png": "test 1"},
    "years": {
        "cat/2023/1.jpg": "train cat",
        "cat/2024/1.jpg": "train cat",
        "dog/2023/1.jpg": "train dog",
        "dog/2024-05/1.jpg": "train dog",
    },
    "years outside, months below": {
        "2023/01/cat/1.jpg": "train cat",
        "2023/02/dog/2.jpg": "train dog",
        "2024/01/cat/3.jpg": "train cat",
    },
    "a folder inside each label": {"cat/images/1.jpg": "train cat", "dog/images/1.jpg": "train dog"},
    "labels with and without folders inside": {
        "cat/1.jpg": "train cat",
        "cat/kittens/2.jpg": "train cat",
        "dog/3.jpg": "train dog",
    },
    "a stray picture": {"try_me.jpg": "-", "cat/1.jpg": "train cat", "dog/1.jpg": "train dog"},
    "a label of TIFF pictures": {"cat/1.jpg": "train cat", "dog/1.jpg": "train dog", "fox/1.tif": "train fox"},
    "a network disk's thumbnails": {"cat/1.jpg": "train cat", "dog/1.jpg": "train dog"},
    "Kaggle's Dogs vs. Cats": {
        **{f"train/{name}.{k}.jpg": f"train {name}" for name in ("cat", "dog") for k in range(2)},
        "test1/1.jpg": "-",
    },
    "names numbered by Windows": {f"{name} ({k}).jpg": f"train {name}" for name in ("cat", "dog") for k in range(2)},
}


@pytest.mark.parametrize("case", CLEAR)
def test_what_is_clear_is_read(tmp_path, case):
    expected = CLEAR[case]
    if "thumbnails" in case:
        put(tmp_path, "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg")
    found, skipped, told = read(tmp_path, expected)
    assert found == {name: said for name, said in expected.items() if said != "-"}
    assert skipped == {name for name, said in expected.items() if said == "-"}
    assert ("has no labels" in told) == any(said == "-" and name != "try_me.jpg" for name, said in expected.items())


UNCLEAR = {
    ("cat/siamese/1.jpg", "dog/poodle/2.jpg"): "cat and dog: {}/LABEL, or siamese and poodle: '{}/*/LAB",
    ("a/1.png", "b/c/2.png", "b/d/3.png"): "a and b: {}/LABEL, or c and d",
    ("train/cat/a/1.jpg", "train/dog/b/2.jpg", "test/cat/a/3.jpg"): "{}/SPLIT/LABEL, or a and b",
    ("train/cat/1.jpg", "train/dog/2.jpg", "test/cat/3.jpg", "extra/cat/4.jpg"): "{}/SPLIT/LABEL",
    ("cat/1.jpg", "dog/1.jpg", "dog/test/2.jpg"): "may be a split",
    ("train_cats/1.jpg", "train_dogs/1.jpg", "test_cats/1.jpg"): "rename them to test/cats and the like",
    ("train/test/cat/1.jpg", "train/test/dog/1.jpg", "val/val/dog/1.jpg"): "move it out of one of them",
    ("train/1.png", "test/2.png"): "no label folders, only test and train; sort",
    ("1.png", "2.png"): "they lie in no folders; sort the photos",
    ("IMG_1.jpg", "IMG_2.jpg", "DSC_1.jpg", "DSC_2.jpg"): "they lie in no folders; sort the photos",
    ("images/1.png", "masks/1.png"): "look like pictures and what was drawn for them",
    ("jpg/image_01.jpg", "jpg/image_02.jpg"): "they lie all in jpg; sort the photos",
    ("cat/1.png",): "has one label only .cat.; a classifier needs two",
}  # fmt: skip


@pytest.mark.parametrize("names", UNCLEAR, ids=lambda names: names[-1])
def test_what_is_not_clear_is_refused_with_what_to_do(tmp_path, names):
    with pytest.raises(DataError) as refused:
        read(tmp_path, names)
    assert UNCLEAR[names].replace("{}", str(tmp_path)).replace(".cat.", "(cat)") in str(refused.value)


@pytest.mark.parametrize(
    ("names", "pattern", "expected"),
    [
        (["cat/siamese/1.png", "dog/poodle/2.png"], "LABEL", {"train cat", "train dog"}),
        (["cat/siamese/1.png", "dog/poodle/2.png"], "*/LABEL", {"train siamese", "train poodle"}),
        (["train/1.png", "test/2.png"], "LABEL", {"train train", "train test"}),
        (["train/cat/1.png", "train/dog/2.png", "extra/cat/3.png"], "SPLIT/LABEL", {"train cat", "train dog"}),
    ],
)
def test_a_pattern_says_which_reading_is_meant(tmp_path, names, pattern, expected):
    place, levels = with_pattern(f"{put(tmp_path, *names)}/{pattern}")
    found = read_folder(tmp_path, levels)
    assert place == str(tmp_path)
    assert {f"{split} {label}" for _, split, label in found.pictures} == expected
    assert any("extra means neither" in line for line in found.told) == any("extra" in name for name in names)


def test_a_home_folder_is_expanded_and_a_name_on_the_hub_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "photos", "a/1.png", "b/2.png")
    assert with_pattern("~/photos") == (str(tmp_path / "photos"), ())
    assert with_pattern("~/photos/*/LABEL") == (str(tmp_path / "photos"), ("*", "LABEL"))
    assert with_pattern("~nobody-of-that-name/photos") == ("~nobody-of-that-name/photos", ())
    assert with_pattern("microsoft/cats_vs_dogs") == ("microsoft/cats_vs_dogs", ())
    assert load("~/photos", tmp_path).name == str(tmp_path / "photos")


def test_the_words_for_splits_have_those_of_datasets():
    for split, words in datasets.data_files.SPLIT_KEYWORDS.items():
        assert set(words) <= set(WORDS[str(split)])


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("training_set", "train"), ("TrainImages", "train"), ("train2017", "train"), ("Trainingsdaten", "train"),
        ("train_val", "train"), ("valid", "validation"), ("dev-set", "validation"), ("test1", "test"),
        ("HELD OUT", "test"), ("imagestest", "test"), ("crash test", None), ("latest", None), ("extra", None),
    ],
)  # fmt: skip
def test_one_rule_for_the_words_of_splits(name, split):
    assert split_of(name) == split


def test_words_for_splits_in_other_languages():
    names = (
        ["训练集", "学習用データ", "treino", "Apprentissage"],
        ["验证集", "validação"],
        ["测试集", "テスト", "teste"],
    )
    assert [{split_of(name) for name in group} for group in names] == [{"train"}, {"validation"}, {"test"}]
    assert split_of("データ") is None


def test_a_split_on_the_hub_needs_one_word_only():
    assert split_of("validation_matched", any_word=True) == "validation"
    assert split_of("train_test_split", any_word=True) is None


def test_files_beside_the_pictures_are_passed_over(tmp_path):
    folder = put(tmp_path / "photos", "a/1.png", "b/2.png", "a/.thumb.png")
    (folder / "a" / "1.png.json").write_text("{}")
    (folder / "notes.txt").write_text("from May")
    (folder / "README.md").write_text("# Mine\n")
    photos = load(folder, tmp_path)
    assert len(photos) == 2
    assert photos.report["told"] == []


def test_a_label_whose_files_cannot_be_read_is_told(tmp_path):
    folder = put(tmp_path / "photos", "a/1.png", "b/2.png")
    (folder / "fox").mkdir()
    (folder / "fox" / "1.jxl").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n")
    found = read_folder(folder)
    assert [path.name for path in found.skipped] == ["1.jxl"]
    assert found.told == ["No picture in fox can be read (1 file), so it is not a label."]
    (folder / "a" / "1.png").unlink()
    (folder / "b" / "2.png").unlink()
    with pytest.raises(DataError, match="holds no picture that can be read: fox/1.jxl is a JPEG XL picture"):
        read_folder(folder)


def test_names_that_would_steer_a_terminal_are_told_without_what_steers_it(tmp_path):
    folder = put(tmp_path / "photos", "a/1.png", "b/2.png", "\x1b[2J\u202e.png")
    assert read_source(folder, tmp_path).told == ["Skipped 1 file (?[2J?.png): a picture without a label."]


def test_composed_and_decomposed_signs_are_one_label(tmp_path):
    names = ["caf\xe9/1.png", "cafe\u0301/2.png", "gu\u0301n/3.png"]
    assert load(put(tmp_path / "photos", *names), tmp_path).label_names == ["caf\xe9", "g\xfan"]


@pytest.mark.parametrize("name", ["گربه\u200cها", "chien\xa0!", "👩\u200d👩\u200d👧", "❤\ufe0f", "हिन्दी", "\u200ffoo"])
def test_signs_of_languages_and_emoji_may_be_in_labels(tmp_path, name):
    assert name in load(put(tmp_path / "photos", f"{name}/1.png", "b/2.png"), tmp_path).label_names


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", "\u202eabc", "a\u2066b", "\u200b"])
def test_signs_that_break_or_turn_a_line_are_refused_with_the_folders_name(tmp_path, name):
    with pytest.raises(DataError) as refused:
        load(put(tmp_path / "photos", f"{name}/1.png", "b/2.png"), tmp_path)
    assert repr(name) in str(refused.value) and "rename it" in str(refused.value)


def test_a_file_that_describes_the_pictures_goes_first(tmp_path):
    folder = put(tmp_path / "photos", "x/1.png", "y/2.png")
    (folder / "metadata.csv").write_text("file_name,label\nx/1.png,first\ny/2.png,second\n")
    assert read_folder(folder) is None
    assert load(folder, tmp_path).label_names == ["first", "second"]
    (folder / "metadata.csv").unlink()
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: x/*\n---\n")
    assert read_folder(folder) is None


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("metadata.csv", "id,label\n1,first\n2,second\n3,first\n"),
        ("metadata.csv", "file_name,flower\n1.png,first\n2.png,second\n3.png,first\n4.png,second\n"),
        ("labels.csv", "\ufefffile;breed;species\n1.png;x;first\n2.png;y;second\n3.png;z;first\n"),
        ("train.tsv", "path\tlabel\n./1.png\tfirst\n2.png\tsecond\n3.png\tfirst\nmissing.png\tfirst\n"),
    ],
)
def test_a_table_beside_the_pictures_gives_their_labels(tmp_path, table, text):
    folder = put(tmp_path / "photos", "1.png", "2.png", "3.png")
    (folder / table).write_text(text, encoding="utf-8")
    found = read_folder(folder)
    assert [label for _, _, label in found.pictures] == ["first", "second", "first"]
    assert found.told == [f"The labels of 3 pictures are read from {table}."]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_table_as_spreadsheets_write_it(tmp_path, encoding):
    folder = put(tmp_path / "photos", "1.png", "2.png")
    (folder / "labels.csv").write_text("file,label,note\n1,caf\xe9\n2,tea,\n", encoding=encoding)
    assert {label for _, _, label in read_folder(folder).pictures} == {"caf\xe9", "tea"}


def test_a_table_of_a_split_speaks_of_its_pictures(tmp_path):
    folder = put(tmp_path / "photos", "train/1.png", "train/2.png", "test/1.png", "test/2.png")
    (folder / "train_labels.csv").write_text("id,label\n1,a\n2,b\n")
    (folder / "sample_submission.csv").write_text("id,label\n1,a\n2,a\n")
    found = read_folder(folder)
    assert [(path.parent.name, split, label) for path, split, label in found.pictures] == [
        ("train", "train", "a"), ("train", "train", "b"),
    ]  # fmt: skip
    assert any("test has no labels" in line for line in found.told)


def test_a_table_without_a_header_loses_no_picture(tmp_path):
    put(tmp_path, *(f"img/{k}.png" for k in range(4)))
    (tmp_path / "labels.csv").write_text("0.png,a\n1.png,b\n2.png,a\n3.png,b\n")
    assert [label for _, _, label in read_folder(tmp_path).pictures] == ["a", "b"] * 2


@pytest.mark.parametrize(
    ("splits", "expected", "said"),
    [
        (["train", "train", "extra", "test"], ["test", "train", "train"], "of some (extra) means neither"),
        (["fold1", "fold2", "fold1", "fold2"], ["train"] * 4, "(fold1, fold2) means neither"),
    ],
)
def test_what_a_column_of_splits_says_and_means_none_is_told(tmp_path, splits, expected, said):
    put(tmp_path, *(f"img/{k}.png" for k in range(4)))
    rows = "".join(f"{k}.png,{'ab'[k % 2]},{split}\n" for k, split in enumerate(splits))
    (tmp_path / "labels.csv").write_text("file,label,split\n" + rows)
    found = read_folder(tmp_path)
    assert sorted(split for _, split, _ in found.pictures) == expected
    assert said in " ".join(found.told)


def test_captions_do_not_take_the_place_of_label_folders(tmp_path):
    folder = put(tmp_path / "photos", "a/1.png", "b/2.png")
    (folder / "metadata.csv").write_text("file_name,caption\na/1.png,x\nb/2.png,y\n")
    assert {label for _, _, label in read_folder(folder).pictures} == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "a,b\n7,x\n8,y\n",
            "No column of .* names the pictures beside it .its columns: a, b.*it needs two: .*file_name.*label",
        ),
        ("id,height,width\n1,3,4\n2,3,4\n", "no column that is clearly the label .its columns: id, height, width"),
        ("file_name,text\n1.png,a cat\n2.png,a dog\n", "no column that is clearly the label"),
        ("id,label\n1,cat\n1,dog\n2,dog\n", "gives 1.png two labels or splits .cat and dog."),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused_with_the_columns_that_are_needed(tmp_path, text, said):
    folder = put(tmp_path / "photos", "1.png", "2.png")
    (folder / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_folder(folder)
