"""What the tab says is what the files hold: to the digit for the released model, and whole for any other."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from hub import ImageClassifier
from hub.bundle import DEFAULT
from hub.record import Record, read_predictions
from hub.scores import calibration, log_odds, score
from space import charts, quality
from space.curves import Counts
from space.languages import LANGUAGES, Say, texts
from space.offer import Offer
from space.quality import ON_A_PAGE, Quality, about, area, mistakes, numbers, snippet
from space.record import Photos
from tests.records import recorded, without_evidence, write

SAY = Say("en")
HOSTILE = "<img src=x onerror=alert(1)> {{value}} '\""


@pytest.fixture(scope="module")
def released() -> Quality:
    """The model that comes with the repository."""
    return Quality(ImageClassifier.from_pretrained(), Record(DEFAULT))


@pytest.fixture(scope="module")
def claimed() -> dict:
    """What its metrics.json says."""
    return json.loads((DEFAULT / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def three(bundle_3, photos, tmp_path_factory) -> Quality:
    """Three labels, 20 photos in each of two splits."""
    folder = recorded(bundle_3, tmp_path_factory.mktemp("recorded") / "three", photos)
    return Quality(ImageClassifier.from_pretrained(folder), Record(folder))


def scores_of(split: str, claimed: dict) -> dict:
    return claimed.get(split) or claimed["elsewhere"][split]


@pytest.mark.parametrize("split", ["test", "Oxford-IIIT Pet", "validation"])
def test_the_released_numbers_are_those_of_metrics_json(released, claimed, split):
    """At 0.5, the answer of two labels: every score as the card prints it, recomputed here."""
    expected = scores_of(split, claimed)
    chosen = released.record.splits[split]
    shown = numbers(SAY, "dog", "cat", released.ranking(split, 1).at(0.5), 0.5).replace("\N{NO-BREAK SPACE}", " ")
    for name in ("recall", "precision", "f1", "accuracy"):
        assert f"<b>{score(name, expected[name]).split(' (')[0]}</b>" in shown
    (cats, taken), (missed, dogs) = expected["confusion_matrix"]
    cells = [int(cell.replace(",", "")) for cell in re.findall(r"<td class='(?:right|wrong)'>([\d,]+)</td>", shown)]
    assert cells == [dogs, missed, taken, cats]
    assert f"Of the {dogs + missed:,} photos of dog it finds {dogs:,}." in shown
    above = area(SAY, released, chosen, 1)
    values = [f"{expected['roc_auc'][end]:.5f}" for end in ("value", "low", "high")]
    assert f"95 % interval: {values[1]} to {values[2]}" in above
    assert above.count(f"<b>{values[0]}</b>") == 3  # large, from metrics.json, computed here
    assert SAY("quality.agree") in above
    error = calibration(chosen.truth, chosen.logits).error
    assert error == pytest.approx(expected["expected_calibration_error"]["value"], abs=1e-12)
    assert f"<b>{error:.4f}</b>" in released.drawn(split, 1, "en")[1]


def test_each_set_of_photos_is_explained(released):
    told = {name: about(SAY, split, released.labels) for name, split in released.record.splits.items()}
    assert "1,986 photos: 984 × cat, 1,002 × dog." in told["test"] and "Held out" in told["test"]
    assert SAY("quality.about_validation") in told["validation"]
    assert SAY("quality.about_elsewhere") in told["Oxford-IIIT Pet"]


def test_sources_that_differ_are_told(released, tmp_path):
    """An AUC that the answers do not give is not passed on as true."""
    shutil.copytree(DEFAULT, tmp_path / "odd", ignore=shutil.ignore_patterns("model.keras"))
    metrics = json.loads((DEFAULT / "metrics.json").read_text(encoding="utf-8"))
    metrics["test"]["roc_auc"]["value"] = 0.99999
    (tmp_path / "odd/metrics.json").write_text(json.dumps(metrics))
    odd = Quality(released.classifier, Record(tmp_path / "odd"))
    above = area(SAY, odd, odd.record.splits["test"], 1)
    assert "role='alert'" in above and SAY("quality.differ") in above and "0.99999" in above and "0.99949" in above


def test_more_labels_have_a_mean_and_their_own_area(three):
    split = three.record.splits["test"]
    odds = log_odds(split.logits)
    areas = [roc_auc_score(split.truth == k, odds[:, k]) for k in range(3)]
    above = area(SAY, three, split, 2)
    assert f"<b>{np.mean(areas):.5f}</b>" in above
    assert f"For fox alone, against all others: {areas[2]:.5f}" in above
    assert SAY("quality.agree") in above
    unclaimed = area(SAY, three, three.record.splits["validation"], 2)
    assert SAY("quality.no_metrics") in unclaimed and "interval:" not in unclaimed
    shown = numbers(SAY, "fox", three.other(SAY, 2), three.ranking("test", 2).at(0.3), 0.3)
    assert "every other one <strong>not fox</strong>" in shown


@pytest.mark.parametrize(("name", "split"), [("released", "test"), ("released", "Oxford-IIIT Pet"), ("three", "test")])
def test_a_reader_can_compute_the_area_again(request, name, split, tmp_path, monkeypatch):
    """The lines that the page shows, run beside the two files that it offers, print the same number twice."""
    shown = request.getfixturevalue(name)
    for file in ("predictions.parquet", "metrics.json"):
        shutil.copy(shown.classifier.folder / file, tmp_path)
    monkeypatch.chdir(tmp_path)
    code = snippet(shown.record.splits[split], len(shown.labels))
    assert len([line for line in code.splitlines() if line and "import" not in line]) == 3
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, {})
    value, stored = re.fullmatch(r"([\d.]+) (\{.*\})\n", said.getvalue()).groups()
    assert float(value) == pytest.approx(eval(stored)["value"], abs=1e-12)


def test_the_lines_do_without_scores_that_are_not_there(three):
    code = snippet(three.record.splits["validation"], 3)
    assert "metrics.json" not in code and "roc_auc_score" in code


def test_the_mistakes_are_all_there_worst_first(released, three):
    split = released.record.splits["test"]
    first, page, more = mistakes(SAY, released, split, 1, 0.5, -3)
    assert (page, more) == (0, True)
    assert "28 of 1,986 photos get the wrong answer" in first
    assert first.count("<li>") == ON_A_PAGE == first.count("image/png")
    shares = [float(share) / 100 for share in re.findall(r"Probability of dog: <b>([\d.]+)", first)]
    doubt = [abs(share - 0.5) for share in shares]
    assert doubt == sorted(doubt, reverse=True)
    last, page, more = mistakes(SAY, released, split, 1, 0.5, 99)
    assert (page, more, last.count("<li>")) == (2, False, 28 - 2 * ON_A_PAGE)
    assert "Mistakes 25 to 28 of 28" in last
    small = three.record.splits["test"]
    shown, _, _ = mistakes(SAY, three, small, 2, 0.0, 0)
    assert "Answer: <b>fox</b>" in shown and "compared with the mean of all labels" in shown
    worst = three.ranking("test", 2).mistakes(0.0)[0]
    values = three.record.evidence(small.rows[[worst]])[0]
    mean = float((values[..., 2] - values.mean(axis=-1)).mean())
    assert f"Evidence map for fox: {mean:+.2f}".replace("-", "−") in shown


def test_no_mistakes_and_no_maps_are_sentences(released, three, bundle_3, tmp_path):
    few = read_predictions(DEFAULT).take(np.arange(30))
    (tmp_path / "perfect").mkdir()
    write(tmp_path / "perfect", replace(few, labels=few.logits.argmax(axis=1)), metrics=False)
    perfect = Quality(released.classifier, Record(tmp_path / "perfect"))
    (split,) = perfect.record.splits.values()
    shown, page, more = mistakes(SAY, perfect, split, 1, 0.5, 5)
    assert "all 30 photos get the right answer" in shown and (page, more) == (0, False)
    shutil.copytree(bundle_3, tmp_path / "classic")
    write(tmp_path / "classic", without_evidence(read_predictions(three.classifier.folder)))
    classic = Quality(three.classifier, Record(tmp_path / "classic"))
    shown, _, _ = mistakes(SAY, classic, classic.record.splits["test"], 0, 0.0, 0)
    assert SAY("quality.map_none") in shown and "No map" in shown and "<img" not in shown


def test_a_photo_that_is_at_hand_is_shown_with_its_map(three, photos, tmp_path):
    wrong = three.ranking("test", 1).mistakes(0.5)
    Image.fromarray(photos[wrong[0]]).save(tmp_path / "a.png")
    split = three.record.splits["test"]
    found = Photos(tmp_path, set(split.hashes.tolist()))
    with_photos = Quality(three.classifier, three.record, found)
    assert SAY("quality.photos_looking", found=0, wanted=20) in mistakes(SAY, with_photos, split, 1, 0.5, 0)[0]
    found.start()
    assert found.done.wait(20)
    shown, _, _ = mistakes(SAY, with_photos, split, 1, 0.5, 0)
    assert shown.count("image/jpeg") == 2  # the photo, and its map over it
    assert shown.count("image/png") == min(len(wrong), ON_A_PAGE) - 1
    assert SAY("quality.photos_found", found=1, wanted=20) in shown
    (tmp_path / "a.png").unlink()
    with_photos = Quality(three.classifier, three.record, found)
    assert "image/jpeg" not in mistakes(SAY, with_photos, split, 1, 0.5, 0)[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_charts_are_text_and_theme_colours(released, three, language):
    """Well-formed, every text in the visitor's language, no colour of their own, no name twice; alternative text."""
    for shown, split, k in ((released, "test", 1), (three, "validation", 2)):
        curves, diagram = shown.drawn(split, k, language)
        found = re.findall(r"(?s)<div role='img' aria-label='([^']+)'>(<svg.*?</svg>)</div>", curves + diagram)
        assert len(found) == 3
        names = []
        for alt, svg in found:
            root = ET.fromstring(svg)
            written = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
            assert written & {
                texts()[f"quality.{name}"][language] for name in ("recall", "false_positive_rate", "photos")
            }
            assert not re.search(r"#[0-9a-f]{6}\b(?!\")", re.sub(r'(?:href="|url\()#\w+', "", svg))
            assert "font-family" not in svg and "<style" not in svg and "var(--curve)" in svg
            names += [element.get("id") for element in root.iter() if element.get("id")]
            assert re.search(r"\d", alt)
        assert len(names) == len(set(names))
    point = "." if language == "en" else ","
    assert f"0{point}99949" in released.drawn("test", 1, language)[0]
    assert f"0{point}5<" in released.drawn("test", 1, language)[1]


def test_charts_may_be_drawn_at_once(three):
    """matplotlib's settings are the process's: eight threads get what one gets."""
    ranking = three.ranking("test", 0)

    def drawn(_: int) -> str:
        return re.sub(r"[mp][0-9a-f]{10}", "", charts.roc(ranking, SAY))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(drawn, range(8)))) == 1


def test_the_points_go_where_the_counts_are():
    shown = numbers(SAY, "dog", "cat", Counts(tp=3, fn=1, fp=1, tn=4), 0.25)
    assert "#quality-charts{--false:0.20000;--true:0.75000;--recall:0.75000;--precision:0.75000}" in shown
    nothing = numbers(SAY, "dog", "cat", Counts(tp=0, fn=4, fp=0, tn=5), 1.0)
    assert "--precision:1.00000" in nothing and "Not defined here" in nothing
    assert "–" in nothing and "nan" not in nothing.lower()


def test_labels_from_strangers_are_only_text(three):
    """Tags, templates and quotes in a label are shown as they are written, everywhere."""
    odd = Quality(three.classifier, three.record)
    odd.labels = [HOSTILE, "b", HOSTILE + "c"]
    split = three.record.splits["test"]
    shown = [
        about(SAY, split, odd.labels),
        area(SAY, odd, split, 0),
        numbers(SAY, HOSTILE, odd.other(SAY, 0), odd.ranking("test", 0).at(0.5), 0.5),
        *mistakes(SAY, odd, split, 0, 0.2, 0)[:1],
        quality.curves(SAY, HOSTILE, odd.ranking("test", 0)),
    ]
    for part in shown:
        assert "&lt;img src=x" in part
        assert "<img src=x" not in part and "{{" not in part
        assert "alert(1)&gt; &#123;&#123;value}} &#x27;&quot;" in part


def test_a_model_without_a_record_says_so(visitor):
    parts = {part["props"].get("elem_id"): part["props"] for part in visitor.config["components"]}
    assert "quality.none" in str(parts["quality-none"]["value"])
    assert "quality-charts" not in parts
    assert "--record-as" in texts()["quality.none"]["en"]


def test_a_record_that_cannot_be_read_is_a_sentence_in_the_page(bundle_2, tmp_path):
    shutil.copytree(bundle_2, tmp_path / "odd")
    (tmp_path / "odd/predictions.parquet").write_bytes(b"PAR1")
    with gr.Blocks() as page:
        quality.build(Offer(ImageClassifier.from_pretrained(tmp_path / "odd")))
    value = next(block.value for block in page.blocks.values() if block.elem_id == "quality-none")
    sentence = texts()[json.loads(str(value).removeprefix("__i18n__"))["key"]]
    for language in LANGUAGES:
        assert "role='alert'" in sentence[language] and "is not a record of predictions" in sentence[language]
        assert str(tmp_path) not in sentence[language]


def test_every_text_has_its_values_in_every_language():
    """No language leaves a number out, or asks for one that the others do not."""
    for name, text in texts().items():
        if name.startswith(("quality.", "model_card.")):
            assert set(text) == set(LANGUAGES), name
            gaps = {language: sorted(set(re.findall(r"\{(\w+)\}", text[language]))) for language in LANGUAGES}
            assert gaps["en"] == gaps["de"] == gaps["es"], name


def test_very_many_labels_are_not_averaged_here(three, monkeypatch):
    monkeypatch.setattr(quality, "MEAN_UP_TO", 2)
    many = Quality(three.classifier, three.record)
    split = many.record.splits["test"]
    above = area(SAY, many, split, 0)
    assert f"{split.score('roc_auc')[0]:.5f}" in above and "is not computed again" in above
    assert "For cat alone" in above
    assert SAY("quality.auc_none") in area(SAY, many, many.record.splits["validation"], 0)


@pytest.mark.parametrize(
    ("share", "written"),
    [(1.0, "100 %"), (0.0, "0 %"), (0.99999, "99.999 %"), (1e-5, "0.001 %"), (0.5, "50.00 %"), (None, "–")],
)
def test_a_rate_is_never_rounded_to_all_or_nothing(share, written):
    assert quality.rate(SAY, share).replace("\N{NO-BREAK SPACE}", " ") == written
