"""Runs side by side: who is compared with whom, on which pictures, and what is said of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from hub.errors import DataError
from hub.record import Predictions
from training.cli import app
from training.results.compare import compare, headline, how_often, in_words, run_comparison, several_seeds
from training.runs import run_folders

from ..made_runs import answers, make_run
from .test_report import ODD, self_contained, words


def given(right: str, *, split: str = "test", names: tuple[str, ...] = ("cat", "dog"), start: int = 0) -> Predictions:
    """Answers to pictures whose truths alternate, rightly (r) or wrongly (w), each with a probability of 0.88."""
    labels = np.arange(len(right)) % 2
    guess = np.array([label if letter == "r" else 1 - label for label, letter in zip(labels, right, strict=True)])
    return Predictions(
        hashes=np.array([f"{start + i:08d}" for i in range(len(right))]),
        splits=np.full(len(right), split),
        labels=labels,
        logits=(2 * np.eye(2)[guess]).astype(np.float32),
        evidence=None,
        label_names=list(names),
    )


A = "r" * 10 + "r" * 20 + "w" * 10  # ten that B misses, twenty of both, ten of neither
B = "w" * 10 + "r" * 20 + "w" * 10


@pytest.fixture
def pair(tmp_path) -> list[Path]:
    return [make_run(tmp_path / name, given(x), recipe=name, scores=True) for name, x in (("a", A), ("b", B))]


def test_ten_pictures_that_one_alone_gets_right(pair):
    found = compare(pair[::-1])  # in whichever order they are named
    assert [row["name"] for row in found["runs"]] == ["a", "b"]
    (two,) = found["pairs"]
    assert (two["first"], two["second"], two["pictures"]) == ("a", "b", 40)
    assert two["mcnemar"] == {"only_first": 10, "only_second": 0, "p": 2 / 2**10, "p_holm": 2 / 2**10}
    assert two["differences"]["accuracy"]["value"] == pytest.approx(0.25)
    assert two["differences"]["accuracy"]["low"] > 0.1
    text = " ".join(in_words(two))
    assert "a is correct more often, by 25.00 points (95 % interval +" in text
    assert "10 are classified correctly by only one of the two: 10 by a, 0 by b." in text
    assert "luck alone would divide these at least this unevenly in about 2 of 1,000 cases." in text
    assert "in accuracy is more than luck" in text
    assert headline(two) == "a over b: more than luck"
    assert found["same_pictures"] and found["split"] == "test"


def test_the_same_answers_do_not_differ(tmp_path):
    runs = [make_run(tmp_path / name, given(A), recipe=name, scores=True) for name in ("a", "b")]
    (two,) = compare(runs)["pairs"]
    assert two["mcnemar"] == {"only_first": 0, "only_second": 0, "p": 1.0, "p_holm": 1.0}
    assert {part["value"] for part in two["differences"].values()} == {0.0}
    assert "both classify the same ones correctly" in " ".join(in_words(two))
    assert "may be luck" in " ".join(in_words(two))


def test_only_pictures_of_both_records_under_one_label_count(tmp_path):
    late = given(B + "r" * 5, start=10)  # 30 of these 45 pictures are in A's record
    late.labels[3] = 1 - late.labels[3]
    runs = [make_run(tmp_path / "a", given(A)), make_run(tmp_path / "b", late, recipe="other")]
    found = compare(runs)
    (two,) = found["pairs"]
    assert not found["same_pictures"]
    assert (two["pictures"], two["relabelled"]) == (29, 1)
    # From picture 10 on: A is right on 20, then wrong on 10; B wrong on 10 (one of them relabelled), right on 20.
    assert (two["mcnemar"]["only_first"], two["mcnemar"]["only_second"]) == (9, 10)
    assert "Skipped: 1 pictures" in " ".join(in_words(two))


def test_different_pictures_are_said_instead_of_a_p_value(tmp_path):
    runs = [make_run(tmp_path / "a", given(A)), make_run(tmp_path / "b", given(B, start=1000), recipe="other")]
    (two,) = compare(runs)["pairs"]
    assert "mcnemar" not in two and "differences" not in two
    assert "measured on different pictures" in in_words(two)[0]
    assert headline(two) == "a and b: no picture in common"
    page = run_comparison(runs, out=tmp_path / "out", echo=lambda _: None)
    assert "no picture in both: not tested" in words(page.read_text())
    assert "not all measured on the same pictures" in words(page.read_text())


def test_another_order_of_the_labels_changes_nothing(tmp_path):
    one, other = given(A), given(B)
    turned = replace(other, labels=1 - other.labels, logits=other.logits[:, ::-1], label_names=["dog", "cat"])
    expected = compare([make_run(tmp_path / "a", one), make_run(tmp_path / "b", other, recipe="b")])
    found = compare([make_run(tmp_path / "a", one), make_run(tmp_path / "b", turned, recipe="b")])
    assert found["pairs"] == expected["pairs"]


def test_holm_counts_all_pairs(tmp_path):
    patterns = {"a": A, "b": B, "c": "r" * 9 + "w" + "r" * 19 + "w" * 11}
    found = compare([make_run(tmp_path / name, given(x), recipe=name) for name, x in patterns.items()])
    by_p = sorted(found["pairs"], key=lambda pair: pair["mcnemar"]["p"])
    expected = 0.0
    for number, two in enumerate(by_p):
        expected = max(expected, min(1.0, two["mcnemar"]["p"] * (3 - number)))
        assert two["mcnemar"]["p_holm"] == pytest.approx(expected)
    assert len(by_p) == 3


def test_runs_that_differ_in_the_seed_are_grouped_and_not_tested(tmp_path):
    def run(name: str, seed: int, rate: float, strength: float) -> Path:
        settings = {"seed": seed, "learning_rate": rate}
        return make_run(tmp_path / name, answers(2, 200, seed=seed, strength=strength), settings=settings)

    runs = [run("p", 1, 0.1, 1), run("q", 2, 0.1, 1), run("r", 1, 0.2, 4), run("s", 2, 0.2, 4)]
    found = compare(runs)
    assert [sorted(group["runs"]) for group in found["groups"]] == [["r", "s"], ["p", "q"]]
    assert {(pair["first"], pair["second"]) for pair in found["pairs"]} == {(x, y) for x in "rs" for y in "pq"}
    for group in found["groups"]:
        values = [row["accuracy"]["value"] for row in found["runs"] if row["name"] in group["runs"]]
        assert group["accuracy"] == {
            "mean": pytest.approx(np.mean(values)), "low": min(values), "high": max(values),
        }  # fmt: skip
    assert found["groups"][0]["title"] == "drawn, learning_rate=0.2 (2 runs)"
    assert [row["own_settings"] for row in found["runs"] if row["name"] in "pq"] == [{"learning_rate": 0.1}] * 2
    (sentence,) = several_seeds(found["groups"])
    assert "each run of one is better than each run of the other" in sentence
    page = run_comparison(runs[:2], out=tmp_path / "out", echo=lambda _: None)
    assert "there is no difference to test" in words(page.read_text())


def test_the_command_writes_a_page_a_chart_and_numbers(pair, tmp_path):
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["compare", *map(str, pair), "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "a over b: more than luck." in result.output
    table = [line.split() for line in result.output.splitlines()]
    assert any(line[:2] == ["a", "a"] and "75.00" in line for line in table)
    text = (out / "index.html").read_text()
    assert self_contained(text)
    assert "75.00 %" in text and "Holm" in text and "Dietterich" in text
    assert "not luck in training" in words(text)
    assert json.loads((out / "compare.json").read_text()) == compare(pair)
    with Image.open(out / "scores.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000


def test_odd_names_are_safe(tmp_path):
    runs = []
    for number, name in enumerate(("<b>bold<", "$x_{")):
        one = answers(ODD[:2], 60, seed=number)
        runs.append(make_run(tmp_path / name, one, recipe=f"<i>{number}", scores=True))
    text = run_comparison(runs, out=tmp_path / "out", echo=lambda _: None).read_text()
    assert self_contained(text) and "<b>bold<" not in text and "&lt;b&gt;bold&lt;" in text and "<i>0" not in text


def test_a_folder_of_several_seeds_stands_for_its_runs(tmp_path):
    for seed in (2, 10):
        one = answers(2, 40, seed=seed)
        make_run(tmp_path / "cnn" / f"seed-{seed}", one, settings={"seed": seed}, scores=True)
    other = make_run(tmp_path / "other", answers(2, 40, strength=4), recipe="other", scores=True)
    found = compare([tmp_path / "cnn", other])
    assert found["runs"][0]["name"] == "other"
    assert {row["name"] for row in found["runs"]} == {"other", "cnn/seed-2", "cnn/seed-10"}
    assert len(found["groups"]) == 2 and len(found["pairs"]) == 2
    assert run_folders([tmp_path / "cnn", other]) == [tmp_path / "cnn/seed-2", tmp_path / "cnn/seed-10", other]


def test_folders_of_one_name_are_told_apart_by_their_paths(tmp_path):
    runs = [make_run(tmp_path / part / "run", given(x), recipe=part) for part, x in (("a", A), ("b", B))]
    assert [row["name"] for row in compare(runs)["runs"]] == [str(run) for run in runs]


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        (lambda folder: None, "at least two runs"),
        (lambda folder: folder / "a", "is named twice"),
        (lambda folder: make_run(folder / "b", given(B, names=("cat", "fox"))), "compare runs of the same labels"),
        (lambda folder: make_run(folder / "b", given(B, split="validation")), "no record of the same split"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(tmp_path, second, sentence):
    runs = [make_run(tmp_path / "a", given(A)), second(tmp_path)]
    with pytest.raises(DataError, match=sentence) as refusal:
        compare([run for run in runs if run is not None])
    assert "\n" not in str(refusal.value)


def test_split_is_test_only_where_all_have_it(tmp_path):
    both = make_run(tmp_path / "a", given(A, split="validation"), given(A, start=100))
    held = make_run(tmp_path / "b", given(B, split="validation"), recipe="b")
    assert compare([both, held])["split"] == "validation"
    with pytest.raises(DataError, match="has no record of test pictures"):
        compare([both, held], split="test")


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (1.0, "every case"),
        (0.5, "about 50 of 100 cases"),
        (0.034, "about 3 of 100 cases"),
        (0.002, "about 2 of 1,000 cases"),
        (0.0003, "about 3 of 10,000 cases"),
        (0.00002, "fewer than 1 of 10,000 cases"),
    ],
)
def test_p_values_are_said_as_cases(p, text):
    assert how_often(p) == text
