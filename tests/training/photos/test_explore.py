import csv
import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.special import softmax
from typer.testing import CliRunner

from hub.bundle import DEFAULT
from hub.classifier import ImageClassifier
from hub.errors import DataError
from hub.record import predictions_table
from training.cli import app
from training.photos.answers import evaluate
from training.photos.data import first_by_hash, load_stored
from training.photos.doubts import (
    Judge,
    by_model,
    by_patches,
    confident_doubts,
    patch_responses,
    plant,
    to_probabilities,
    trust_in,
)
from training.photos.explore import explore, near_duplicates, shrink

from ..conftest import draw, encode, write

NAMES = ("disc", "<b>x</b>")
QUIET = {"progress": False, "echo": lambda line: None}


def plain(colour, width=40, height=20):
    return encode(Image.new("RGB", (width, height), colour))


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """Discs and squares with known faults, looked at: (summary, folder, what was printed)."""
    folder = tmp_path_factory.mktemp("explore")
    train = [(encode(draw(i % 2, i)), i % 2) for i in range(240)]
    train[30] = (train[30][0], 1)  # a disc that is called a square
    train.append((train[0][0], 0))  # an exact duplicate
    train += [(encode(draw(0, 900)), 0), (encode(draw(0, 900)), 1)]  # one picture, two labels
    train.append((train[5][0][:200], 1))  # cut short
    nearly = draw(1, 7)
    nearly.putpixel((0, 0), (0, 0, 0))
    train.append((encode(nearly), 1))  # row 7 but for one pixel
    test = [(encode(draw(i % 2, 5000 + i)), i % 2) for i in range(19)]
    test.append((train[2][0], 0))  # a training picture in the test
    test.append((encode(draw(1, 6000).resize((96, 40))), 1))
    data = write(folder / "shapes set", {"train": train, "test": test}, names=NAMES)
    printed = []
    summary = explore(data, folder / "page", size=24, cache=folder / "cache", progress=False, echo=printed.append)
    return summary, folder / "page", "\n".join(printed)


def test_every_picture_is_counted_once(looked):
    summary, _, printed = looked
    # 245 rows of train: less one duplicate, two of two labels, one broken, and the one that the test keeps.
    assert (summary["rows"], summary["kept"]) == (266, 261)
    assert summary["labels"]["own_splits"] == {"train": 245, "test": 21}
    assert summary["labels"]["pictures"]["test"] == 21
    assert sum(summary["labels"]["pictures"].values()) == 261
    assert summary["labels"]["counts"]["test"] == [11, 10]
    assert "261 pictures of 2 labels can be used: train " in printed
    assert (
        "Left out: 1 file that cannot be read, 2 pictures whose pixels occur under several labels, 2 exact duplicates."
        in printed
    )


def test_duplicates_are_found_and_those_across_splits_first(looked):
    duplicates = looked[0]["duplicates"]
    assert (duplicates["left_out"], duplicates["across_own_splits"]) == (2, 1)
    places = [[(row["split"], row["row"]) for row in group["rows"]] for group in duplicates["groups"]]
    assert [sorted(place) for place in places] == [[("test", 19), ("train", 2)], [("train", 0), ("train", 240)]]
    assert [group["across_own_splits"] for group in duplicates["groups"]] == [True, False]


def test_a_picture_of_two_labels_is_found(looked):
    conflicts = looked[0]["conflicts"]
    assert conflicts["left_out"] == 2
    (group,) = conflicts["groups"]
    assert group["labels"] == list(NAMES)
    assert [(row["row"], row["label"]) for row in group["rows"]] == [(241, "disc"), (242, "<b>x</b>")]


def test_a_broken_file_is_listed_with_the_reason(looked):
    summary, folder, _ = looked
    (broken,) = summary["unreadable"]
    assert (broken["split"], broken["row"]) == ("train", 243)
    assert "copy or download it again" in broken["why"]
    with (folder / "problems.csv").open(newline="") as file:
        problems = {(row["row"], row["problem"]) for row in csv.DictReader(file)}
    assert problems == {
        ("243", "unreadable"), ("240", "duplicate"), ("2", "duplicate"), ("241", "conflict"), ("242", "conflict"),
    }  # fmt: skip


def test_a_near_duplicate_is_a_candidate(looked):
    near = looked[0]["near_duplicates"]
    places = [{(pair["split"], pair["row"]), (pair["other_split"], pair["other_row"])} for pair in near["shown"]]
    assert {("train", 7), ("train", 244)} in places
    assert near["pairs"] == len(near["shown"])
    assert near["of_two_labels"] == 0


def test_a_wrong_label_is_found(looked):
    summary, folder, _ = looked
    suspicious = summary["suspicious"]
    assert suspicious["judged"] == 261
    assert suspicious["accuracy"] > 0.7
    assert (suspicious["guessing"], suspicious["most_frequent"]) == (pytest.approx(132 / 261), "<b>x</b>")
    worst = [(doubt["row"], doubt["label"], doubt["supposed"]) for doubt in suspicious["shown"][:10]]
    assert (30, "<b>x</b>", "disc") in worst
    with (folder / "suspicious.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == suspicious["flagged"]


def test_sizes(looked):
    stored = looked[0]["stored"]
    assert stored["distinct"] == 2
    assert stored["width"] == {"least": 48, "median": 48.0, "most": 96}
    assert stored["height"] == {"least": 40, "median": 48.0, "most": 48}
    assert stored["aspect"] == {"least": 1.0, "median": 1.0, "most": 2.4}
    assert stored["most_frequent"][0] == {"width": 48, "height": 48, "pictures": 260}
    assert (stored["smaller"], stored["stretched"]) == (0, 1)


def test_the_page_stands_alone(looked):
    _, folder, printed = looked
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert str(folder / "index.html") in printed
    near, shown = len(looked[0]["near_duplicates"]["shown"]), len(looked[0]["suspicious"]["shown"])
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)[^"'\s>]+""", page)
    assert "http" not in re.sub(r'"data:[^"]*"', "", page)
    assert "<b>" not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert page.count("<img") == 4 + 20 + 2 + 1 + 2 * near + shown  # figures, samples, …
    assert all(f'id="{name}"' in page for name in re.findall(r'href="#([^"]+)"', page))
    assert {path.name for path in folder.iterdir()} == {
        "index.html", "summary.json", "problems.csv", "suspicious.csv", "near_duplicates.csv",
        "labels.png", "sizes.png", "shapes.png", "channels.png",
    }  # fmt: skip


def test_the_summary_is_the_file(looked):
    summary, folder, _ = looked
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8")) == summary


def test_channel_means_to_the_digit(tmp_path):
    """One picture of one colour and one of another: mean and spread can be done in the head."""
    rows = [(plain((200, 0, 51)), 0), (plain((100, 0, 51)), 0), (plain((9, 9, 9)), 1)]
    data = write(tmp_path / "plain", {"train": rows[:2], "validation": rows[2:], "test": [(plain((7, 7, 8)), 1)]})
    summary = explore(data, tmp_path / "page", size=8, cache=tmp_path / "cache", **QUIET)
    channels = summary["channels"]
    assert (channels["pictures"], channels["grey"]) == (2, 0)  # of training alone
    assert channels["mean_0_255"] == [150, 0, 51]
    assert channels["spread_0_255"] == [50, 0, 0]
    assert channels["mean_0_1"] == pytest.approx([150 / 255, 0, 0.2])
    assert channels["spread_0_1"] == pytest.approx([50 / 255, 0, 0])
    assert summary["stored"]["distinct"] == 1
    assert not (tmp_path / "page" / "sizes.png").exists()
    assert summary["suspicious"]["judged"] == 0
    assert "fewer" not in summary["findings"][-1]
    assert summary["findings"][-1] == "Too few pictures to look for wrong labels."


def test_many_labels_and_few_pictures(tmp_path):
    """A label with too few pictures is not judged; 300 labels still make a page."""
    rows = [(plain((k % 256, k // 256 * 90, 40 * n)), k) for k in range(300) for n in range(2)]
    data = write(tmp_path / "many", {"train": rows}, names=[f"kind {k}" for k in range(300)])
    summary = explore(data, tmp_path / "page", size=8, cache=tmp_path / "cache", **QUIET)
    assert summary["suspicious"]["judged"] == 0
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "The 10 most frequent and the 10 rarest of 300 labels" in page
    assert len(re.findall("<h3>", page)) == 240


def test_one_label_alone_is_refused(tmp_path):
    data = write(tmp_path / "one", {"test": [(plain((10 * k, 0, 0)), 0) for k in range(20)]}, names=["only"])
    with pytest.raises(DataError, match="one label only"):
        explore(data, tmp_path / "page", size=8, cache=tmp_path / "cache", **QUIET)
    assert not (tmp_path / "page").exists()


# The search for wrong labels, by numbers


def test_confident_doubts_by_hand():
    """Usual probabilities are 0.7 for label 0 and 0.8 for label 1; only the fourth picture crosses both lines."""
    probabilities = np.array([[0.9, 0.1], [0.95, 0.05], [0.25, 0.75], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    labels = np.array([0, 0, 0, 0, 1, 1, 1])
    rows, supposed = confident_doubts(labels, probabilities)
    assert len(rows) == 0  # 0.75 is below the usual 0.8
    probabilities[2] = [0.15, 0.85]
    rows, supposed = confident_doubts(labels, probabilities)
    assert (rows.tolist(), supposed.tolist()) == ([2], [1])


def test_a_label_that_nobody_bears_is_never_supposed():
    probabilities = np.array([[0.1, 0.1, 0.8], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1]])
    _, supposed = confident_doubts(np.array([0, 0, 1, 1]), probabilities)
    assert 2 not in supposed


def test_planted_errors_show_a_good_judge_and_a_bad_one():
    labels = np.arange(400) % 4
    sure = np.full((400, 4), 0.02)
    sure[np.arange(400), labels] = 0.94
    good = Judge("good", np.arange(400), labels, sure, list("abcd"))
    assert plant(good) == {"labels": 20, "found": 20, "first": 20, "found_among_first": 20}
    assert trust_in(good)["trust"] == "good"
    guesses = np.random.default_rng(0).dirichlet(np.ones(4), 400)
    found = trust_in(Judge("bad", np.arange(400), labels, guesses, list("abcd")))
    assert (found["trust"], found["planted"]) == ("none", None)
    assert found["guessing"] == 0.25


def test_a_judge_that_guesses_shows_nothing(tmp_path):
    """Labels that have nothing to do with the pictures: the page says so and lists none."""
    chance = np.random.default_rng(3)
    rows = [(encode(draw(0, i, size=24)), int(chance.integers(0, 2))) for i in range(80)]
    data = write(tmp_path / "noise", {"train": rows})
    summary = explore(
        data, tmp_path / "page", size=16, cache=tmp_path / "cache", progress=False, echo=lambda line: None
    )
    assert summary["suspicious"]["trust"] == "none"
    assert (summary["suspicious"]["flagged"], summary["suspicious"]["shown"]) == (0, [])
    assert "hardly better than guessing" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")


def test_probabilities_are_as_sure_as_they_are_right():
    """Scores that are right three times in four become probabilities of three quarters."""
    labels = np.array([0, 0, 0, 1] * 50)
    probabilities = to_probabilities(np.tile([[1.0, -1.0]], (200, 1)), labels)
    np.testing.assert_allclose(probabilities[:, 0], 0.75, atol=1e-4)


def test_patch_responses_repeat_and_ignore_brightness():
    pictures = np.random.default_rng(0).integers(20, 120, (6, 32, 32, 3), np.uint8)
    found = patch_responses(pictures)
    assert found.shape == (6, 1600)
    np.testing.assert_array_equal(found, patch_responses(pictures))
    brighter = patch_responses(pictures + np.uint8(100))
    np.testing.assert_allclose(found, brighter, atol=0.05)
    assert found.std() > 0.5


def test_near_duplicates_ignore_brightness_and_plain_pictures():
    chance = np.random.default_rng(0)
    coarse = chance.integers(60, 200, (4, 4, 4, 3), np.uint8)
    pictures = np.stack([np.asarray(Image.fromarray(one).resize((32, 32))) for one in coarse])
    pictures[3] = pictures[1] // 2 + 40  # darker and flatter
    plain = np.full((3, 32, 32, 3), [[[[0]]], [[[90]]], [[[255]]]], np.uint8)
    ((one, other, alike),) = near_duplicates(np.concatenate([pictures, plain]))
    assert (one, other) == (1, 3)
    assert alike > 0.99
    assert near_duplicates(pictures[:1]) == []


def test_the_draw_is_by_hash():
    hashes = np.array(["c", "a", "d", "b"])
    assert first_by_hash(hashes, 2).tolist() == [1, 3]
    assert first_by_hash(hashes, 9).tolist() == [0, 1, 2, 3]


def test_the_judge_says_what_it_leaves_out(tmp_path):
    rows = [(encode(draw(i % 2, i)), i % 2) for i in range(60)] + [(plain((9, 99, 9)), 2)]
    data = write(tmp_path / "rare", {"train": rows}, names=["disc", "square", "rare"])
    photos, _ = load_stored(data, 16, cache=tmp_path / "cache", progress=False)
    everything = np.arange(len(photos))
    judge = by_patches(photos, everything, shrink(photos, everything))
    assert judge.notes == ["It leaves out 1 label with fewer than 5 pictures, 1 picture in all."]
    assert judge.names == ["disc", "square"]
    assert judge.probabilities.shape == (60, 2)
    np.testing.assert_allclose(judge.probabilities.sum(axis=1), 1)


# A trained model as the judge


@pytest.fixture
def pets(tmp_path):
    """Twelve drawings that are called cats and dogs."""
    rows = [(encode(draw(i % 2, i)), i % 2) for i in range(12)]
    return write(tmp_path / "pets", {"train": rows}, names=["dog", "cat"])


def test_a_model_without_a_record_of_these_pictures_warns(pets, tmp_path):
    summary = explore(pets, tmp_path / "page", model=str(DEFAULT), cache=tmp_path / "cache", **QUIET)
    suspicious = summary["suspicious"]
    assert summary["size"] == 224
    assert (suspicious["judge"], suspicious["judged"]) == ("the model cats-vs-dogs-mobilenetv2", 12)
    assert "which of these pictures it was trained on" in suspicious["notes"][0]
    with pytest.raises(DataError, match="takes pictures of 224 px, not 64; leave --size out"):
        explore(pets, tmp_path / "page", size=64, model=str(DEFAULT), cache=tmp_path / "cache", **QUIET)


def test_a_model_judges_only_what_it_was_not_trained_on(pets, tmp_path):
    """Five of the pictures are in its record of held-out ones; labels are told by name, whatever their order."""
    bundle = shutil.copytree(DEFAULT, tmp_path / "bundle")
    photos, _ = load_stored(pets, 224, cache=tmp_path / "cache", progress=False)
    classifier = ImageClassifier.from_pretrained(bundle)
    found = evaluate(classifier, photos.subset(np.arange(5)), progress=False)
    pq.write_table(predictions_table(found), bundle / "predictions.parquet")
    judge = by_model(classifier, photos)
    assert judge.rows.tolist() == [0, 1, 2, 3, 4]
    assert [judge.names[k] for k in judge.labels] == ["dog", "cat", "dog", "cat", "dog"]
    np.testing.assert_allclose(judge.probabilities, softmax(found.logits.astype(float), axis=1))
    assert judge.notes == ["It judges the 5 pictures that it was not trained on, by its own record."]


# The command


def test_the_command_line_and_what_it_says_of_skipped_files(tmp_path):
    data = tmp_path / "few"
    for name in ("disc", "square", "fox"):
        (data / name).mkdir(parents=True)
    for i in range(6):
        draw(i % 2, i).save(data / ("disc", "square")[i % 2] / f"{i}.png")
    (data / "fox" / "1.jxl").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n")
    arguments = ["explore", data, "--out", tmp_path / "page", "--size", 16, "--cache", tmp_path / "cache"]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "6 pictures of 2 labels can be used" in done.stdout
    assert "Left out: 1 skipped file" in done.stdout and "No picture in fox can be read" in done.stdout
    assert "fox/1.jxl" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert ",,fox/1.jxl,skipped," in (tmp_path / "page" / "problems.csv").read_text()


def test_a_missing_folder_is_refused_in_one_sentence(tmp_path, refused):
    assert "No data set could be loaded from" in refused("explore", tmp_path / "nowhere", "--out", tmp_path / "page")
    assert not (tmp_path / "page").exists()
