"""The card says what config and metrics hold, no more; the released one is what its numbers render."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id

from hub.agreement import agreement_of
from hub.config import PREPROCESSING, config_of
from hub.formats import FORMATS
from hub.metrics import metrics_of
from hub.publishing import card, staging
from hub.publishing.card import NOT_TOLD_APART
from hub.scores import NOT_MEASURED, SCORES, score
from training.results.bootstrap import scores_of

ROOT = Path(__file__).parents[3]
RELEASED = ROOT / "hub" / "pretrained" / "cats-vs-dogs-mobilenetv2"


def a_score(value: float, half: float) -> dict:
    return {"value": value, "low": value - half, "high": value + half}


def some_scores(matrix: list[list[int]], accuracy: dict | None = None) -> dict:
    return {
        "photos": sum(map(sum, matrix)),
        "roc_auc": a_score(0.991234, 0.002),
        "average_precision": a_score(0.98, 0.003),
        "accuracy": accuracy or a_score(0.9512, 0.01),
        "balanced_accuracy": a_score(0.95, 0.01),
        "precision": a_score(0.94, 0.01),
        "recall": a_score(0.93, 0.01),
        "f1": a_score(0.935, 0.01),
        "log_loss": a_score(0.12343, 0.02),
        "expected_calibration_error": a_score(0.0123, 0.004),
        "confusion_matrix": matrix,
        "bootstrap": {"resamples": 700, "level": 0.9, "seed": 5},
    }


CONFIG = {
    "model_type": "mobilenet_v2",
    "id2label": {"0": "cat", "1": "dog"},
    "image_size": 96,
    "evidence": {"grid": [3, 4], "scale": 7.625, "scale_definition": "99th percentile of something"},
    "backbone": {"name": "MobileNetV2", "weights": "imagenet", "license": "apache-2.0", "sha256": "ab" * 32},
}
METRICS = {
    "dataset": {
        "name": "someone/pets",
        "hub_id": "someone/pets",
        "photos": 12345,
        "image_size": [180, 170],
        "splits": {
            "train": {"photos": 10000, "share": {"cat": 0.511, "dog": 0.489}},
            "test": {"photos": 1234, "share": {"cat": 0.5, "dog": 0.5}},
        },
        "unreadable": 11,
        "duplicates": 22,
        "conflicts": 33,
    },
    "training": {
        "recipe": "my_recipe",
        "command": "python -m training fit my_recipe",
        "settings": {"epochs": 4, "learning_rate": 1e-4},
        "seconds": 5640,
        "epochs": 4,
        "machine": {"processor": "two cores"},
        "versions": {"keras": "3.0"},
        "left_out": 44,
    },
    "validation": some_scores([[40, 2], [3, 55]]),
    "test": some_scores([[400, 13], [17, 804]]),
    "elsewhere": {"garden": some_scores([[5, 4], [3, 8]], accuracy=a_score(0.65, 0.1))},
    "agreement": {"photos": 64, "probability": 2e-7, "evidence": 3.5e-6, "tolerance": 1e-4},
}
RUNNING = [name for name, one in FORMATS.items() if one.runs]


def a_row(name: str, k: int) -> dict:
    """What agreement.json has of the k-th runtime; only the first three carry evidence."""
    return {
        "title": FORMATS[name].title,
        "versions": {f"package-{k}": f"{k}.2.3"},
        "same_tensor": {"probability": k * 1e-6, "evidence": k * 1e-5 if k < 3 else None, "logits": k * 1e-5},
        "same_file": {
            "probability": k * 1e-3,
            "other_label": k,
            "unread": 0,
            "largest_photo": k * 1.5e-2,
            "turned_photo": k * 1e-4,
        },
    }


AGREEMENT = {
    "tolerance": 1e-4,
    "photos": 2345,
    "title": "validation photos",
    "unreadable": 6,
    "largest_photo": {"width": 4032, "height": 3024, "enlarged": True},
    "largest_evidence": 42.17,
    "runtimes": {name: a_row(name, k) for k, name in enumerate(RUNNING)},
    "files": {"model.keras": "cd" * 32},
    "written_only": {"coreml": FORMATS["coreml"].title, "h5": FORMATS["h5"].title},
    "left_out": {},
}


def render(config: dict, metrics: dict | None, agreement: dict | None = None, repo_id: str | None = None) -> str:
    """The card of a config.json in which nothing stands that the card does not say."""
    found = None if agreement is None else agreement_of(agreement, Path("mine"))
    return card.render(
        config_of({"preprocessing": PREPROCESSING, **config}, "The config"), metrics_of(metrics or {}), found, repo_id
    )


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_front_matter_is_what_the_hub_reads():
    text = render(CONFIG, METRICS)
    found = front_matter(text)
    assert found["license"] == "apache-2.0"
    assert found["library_name"] == "keras"
    assert found["pipeline_tag"] == "image-classification"
    assert found["datasets"] == ["someone/pets"]
    assert found["metrics"] == ["roc_auc", "accuracy"]
    assert "image-classification" in found["tags"] and "base_model" not in found
    data = ModelCard(text).data  # raises if the model index is not valid
    results = {result.metric_type: result for result in data.eval_results}
    assert results["roc_auc"].metric_value == 0.99123 and results["accuracy"].metric_value == 0.9512
    assert {result.dataset_split for result in data.eval_results} == {"test"}
    assert str(ModelCard(text)) == text


def test_the_split_of_the_model_index_is_named_truly():
    no_test = {**METRICS, "test": None}
    assert {result.dataset_split for result in ModelCard(render(CONFIG, no_test)).data.eval_results} == {"validation"}


def test_a_base_model_is_named_where_it_is_one_on_the_hub():
    config = copy.deepcopy(CONFIG)
    config["backbone"]["hub_id"] = "google/mobilenet_v2"
    assert front_matter(render(config, METRICS))["base_model"] == "google/mobilenet_v2"


@pytest.mark.parametrize(
    "words",
    [
        "12,345 photos of the data set `someone/pets`, stored at 180 × 170 pixels",
        "11 unreadable (skipped); 22 exact duplicates (kept once); 33 with pixels",
        "The licence of the photos is unknown.",
        "- SHA-256 of the weights: `" + "ab" * 32 + "`",
        "- Licence: apache-2.0",
        "- Time: 1 h 34 min",
        "settings: 44",
        "| `learning_rate` | `0.0001` |",
        "| train | 10,000 | 51.1 % | 48.9 % |",
        "|  | Validation, 100 photos | Test, 1,234 photos | Elsewhere: garden, 20 photos |",
        "0.99123 (0.98923–0.99323)",
        "95.12 % (94.12–96.12)",
        "0.1234 (0.1034–0.1434)",
        "90 % percentile bootstrap interval over the photos, 700 resamples, seed 5",
        "| **cat** | 400 | 13 |",
        "Test: 1.23 percentage points",
        "On 64 pictures, the largest difference between the two files was 2.0e-07 in a probability and 3.5e-06",
        "difference above 0.0001",
        "one of 12 cells (3 × 4)",
        "±7.62 logits (99th percentile of something)",
        "the evidence for `dog` minus that for `cat`",
        "one cell sees far more of the photo than its own square",
        "30 of 1,234 photos were classified wrongly.",
        "lower, and the intervals do not overlap",
        "pip install .",
        "ImageClassifier.from_pretrained",
    ],
)
def test_the_card_says(words):
    assert words in " ".join(render(CONFIG, METRICS).split()).replace("\n", " ") or words in render(CONFIG, METRICS)


def test_every_number_comes_from_the_metrics():
    """Shift each measured number: the card changes each time, so none is written into the template."""
    text = render(CONFIG, METRICS)

    def shifted(content, path=()):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            if isinstance(value, dict | list):
                yield from shifted(value, (*path, key))
            elif isinstance(value, int | float):
                yield (*path, key), value

    for source in ("metrics", "config"):
        for path, value in shifted({"metrics": METRICS, "config": CONFIG}[source]):
            given = {"metrics": copy.deepcopy(METRICS), "config": copy.deepcopy(CONFIG)}
            place = given[source]
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value * 2 if value else 1
            if path[-1] not in ("resamples", "level", "seed"):  # printed once for all splits
                assert render(given["config"], given["metrics"]) != text, path

    text = render(CONFIG, METRICS, AGREEMENT)
    for path, value in shifted(AGREEMENT):
        agreement = copy.deepcopy(AGREEMENT)
        place = agreement
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = (not value) if isinstance(value, bool) else value * 2 if value else 1
        if path[-1] != "logits":  # the same difference as in evidence, before it is averaged
            assert render(CONFIG, METRICS, agreement) != text, path


def test_the_front_matter_survives_the_hubs_own_class():
    config = {**CONFIG, "backbone": {**CONFIG["backbone"], "hub_id": "google/mobilenet_v2"}}
    text = render(config, METRICS, AGREEMENT, "someone/pets")
    found = front_matter(text)
    assert ModelCardData(**found).to_dict() == found
    assert str(ModelCard(text)) == text
    tags = ["transformers", "onnx", "tflite", "transformers.js", "openvino", "coreml"]
    assert found["tags"] == ["image-classification", *tags, "class-activation-map"]
    fewer = {"runtimes": {name: AGREEMENT["runtimes"][name] for name in ("keras", "onnx")}, "written_only": {}}
    found = front_matter(render(config, METRICS, {**AGREEMENT, **fewer}))
    assert found["tags"] == ["image-classification", "onnx", "class-activation-map"]


def test_both_tables_hold_what_was_compared():
    text = render(CONFIG, METRICS, AGREEMENT)
    for k, name in enumerate(RUNNING):
        title = FORMATS[name].title
        probability, evidence = (f"{k}.0e-06", f"{k}.0e-05") if k else ("0", "0")
        evidence = evidence if k < 3 else "–"
        assert f"| {title} | {probability} | {evidence} | package-{k} {k}.2.3 |" in text
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {title} |") and "package" not in line]
        assert row.endswith(
            f"| {k * 1e-3:.1e} | {k} | {k * 1.5e-2:.1e} | {k * 1e-4:.1e} |" if k else "| 0 | 0 | 0 | 0 |"
        )
    assert "the same 2,345 validation photos" in text
    assert "could not be read: 6." in text
    assert "The 12-megapixel photo (4032 × 3024) was made of the photo that the model is least sure of" in text
    assert "by more than 0.0001, or a cell of evidence by more than 0.0042" in text
    assert "Beyond that" not in text and "not published" not in text
    assert "- Core ML: written, not compared" in text
    assert "this project never loads it" in text
    assert "ONNX and Keras" not in text, "the older section says less than these tables"


@pytest.mark.parametrize(("part", "value"), [("probability", 1.01e-4), ("evidence", 4.3e-3)])
def test_a_runtime_beyond_the_tolerance_is_named(part, value):
    agreement = copy.deepcopy(AGREEMENT)
    agreement["runtimes"]["onnx"]["same_tensor"][part] = value
    assert f"**Beyond that: ONNX Runtime: {part} differs" in render(CONFIG, METRICS, agreement)


def test_what_is_left_out_is_said_with_its_reason():
    """Neither a snippet nor a row promises what is not there."""
    agreement = copy.deepcopy(AGREEMENT)
    del agreement["runtimes"]["transformers"]
    agreement["left_out"] = {"transformers": "the library has no such network"}
    agreement["title"], agreement["largest_photo"]["enlarged"] = "my garden", False
    text = render(CONFIG, METRICS, agreement)
    assert "- Transformers: not published: the library has no such network." in text
    assert "### Transformers\n" not in text and "| Transformers |" not in text
    assert 'runtime="transformers"' not in text and '`"transformers"`' not in text
    assert (
        "photos (my garden)" in text
        and "(4032 × 3024) is one of the photos. The turned photo is the photo that" in text
    )


def test_each_runtime_has_its_snippet():
    text = render(CONFIG, METRICS, AGREEMENT, "someone/pets")
    config = config_of({"preprocessing": PREPROCESSING, **CONFIG}, "The config")
    for name in RUNNING:
        language = "js" if name == "transformers.js" else "python"
        section = text.split(f"### {FORMATS[name].title}\n")[1].split("\n## ")[0].split("\n### ")[0]
        assert f"```{language}\n{FORMATS[name].snippet(config, 'someone/pets').strip()}\n```" in section
        assert FORMATS[name].install in section and FORMATS[name].install
    assert 'ImageClassifier.from_pretrained("someone/pets")' in text
    assert 'runtime="keras"' in text and "`labels.txt`" in text
    assert "OWNER/NAME" not in text
    nameless = render(CONFIG, METRICS, AGREEMENT)
    assert "Replace `OWNER/NAME`" in nameless
    assert nameless.replace("OWNER/NAME", "someone/pets").count("someone/pets") > text.count("someone/pets")


def test_each_format_has_its_words():
    """A new format needs a sentence on what it loads, or on why it was not run."""
    assert all(one.loads if one.runs else one.not_run for one in FORMATS.values())


def test_the_weaker_label_is_named():
    """Recall by label with Wilson's interval; whether two labels can be told apart follows from it."""
    text = render(CONFIG, {**METRICS, "test": some_scores([[60, 40], [0, 100]])})
    # Wilson 1927: 60 of 100 gives 0.5020 to 0.6906, 100 of 100 gives 0.9630 to 1.
    assert "60.00 % (50.20–69.06), 60 of 100 |" in text and "100.00 % (96.30–100.00), 100 of 100 |" in text
    weaker = "`cat` (40.00 %, 40 of 100) than of `dog` (0.00 %, 0 of 100)"
    assert f"{weaker}: the intervals of the two recalls do not overlap." in text
    text = render(CONFIG, {**METRICS, "test": some_scores([[98, 2], [3, 97]])})
    assert f"`dog` (3.00 %, 3 of 100) than of `cat` (2.00 %, 2 of 100): {NOT_TOLD_APART}" in text
    text = render(CONFIG, {**METRICS, "test": some_scores([[98, 2], [2, 98]]), "validation": None, "elsewhere": {}})
    assert "Test: 4 of 200 photos were classified wrongly.\n" in text


@pytest.mark.parametrize("metrics", [None, {}, {"test": None, "elsewhere": {}}])
def test_what_was_not_measured_is_not_claimed(metrics):
    text = render(CONFIG, metrics)
    assert "Nothing was measured." in text
    assert "Nothing is recorded about the training data." in text
    assert "Nothing is recorded about how the model was trained." in text
    found = front_matter(text)
    assert not {"model-index", "metrics", "datasets"} & found.keys()
    for word in ("None", "nan", "Calibration", "ONNX and Keras", "someone", "photos answered"):
        assert word not in text.replace("None of", ""), word


@pytest.mark.parametrize("part", sorted(METRICS))
def test_each_part_may_be_missing(part):
    text = render(CONFIG, {key: value for key, value in METRICS.items() if key != part})
    ModelCard(text)
    assert "None" not in text.replace("None of them", "")
    if part == "elsewhere":
        assert "No photos from elsewhere were scored" in text
    for key in METRICS[part] if part in ("dataset", "training") else ():
        thinner = {**METRICS, part: {name: value for name, value in METRICS[part].items() if name != key}}
        assert "None" not in render(CONFIG, thinner).replace("None of them", ""), key


def test_a_score_that_does_not_exist_is_said_to_be_missing():
    one_label = some_scores([[0, 0], [2, 8]])
    for name in ("roc_auc", "average_precision"):
        one_label[name] = {"value": None, "low": None, "high": None}
    text = render(CONFIG, {**METRICS, "elsewhere": {"dogs only": one_label}})
    assert f"| {NOT_MEASURED} |" in text
    assert "1 of the 2 labels does not occur" in text
    only_test = render(CONFIG, {**METRICS, "test": one_label})
    assert {result.metric_type for result in ModelCard(only_test).data.eval_results} == {"accuracy"}


def test_many_labels_are_shown_readably():
    names = [f"kind {k}" for k in range(30)]
    config = {**CONFIG, "id2label": {str(k): name for k, name in enumerate(names)}}
    matrix = np.diag(np.full(30, 9))
    matrix[4, 7] = 5
    metrics = {**METRICS, "test": some_scores(matrix.tolist()), "validation": None, "elsewhere": {}}
    text = render(config, metrics)
    assert "# One of 30 labels: a photo classifier that shows its evidence" in text
    assert "| kind 4 | kind 7 | 5 |" in text
    assert "minus the mean over all labels" in text and "mean over the labels of each label against the rest" in text
    assert "### Recall of the 10 weakest labels" in text and "| kind 4 | 64.29 % (38.76–83.66), 9 of 14 |" in text
    assert "| kind 9 | 100.00 %" in text and "| kind 10 | 100.00 %" not in text
    assert "most frequent for `kind 4` (35.71 %, 5 of 14)" in text
    assert "`kind 19` and 10 more" in text and "kind 20`" not in text
    three = {**CONFIG, "id2label": {"0": "cat", "1": "dog", "2": "fox|y"}}
    metrics["test"] = some_scores([[1, 0, 0], [0, 2, 0], [1, 0, 3]])
    text = render(three, metrics)
    assert "# Cat, dog or fox|y" in text and "| **fox\\|y** | 1 | 0 | 3 |" in text


def test_a_model_without_evidence_promises_none():
    text = render({key: value for key, value in CONFIG.items() if key != "evidence"}, METRICS)
    assert "heatmap" not in text and "answer.evidence" not in text
    assert "classic head" in text and "no map" in text
    assert text.count("Grad-CAM") == 1 and "where Keras is installed" in text


def test_the_place_of_a_folder_stays_private():
    metrics = copy.deepcopy(METRICS)
    metrics["dataset"] = {**metrics["dataset"], "name": "/home/me/secret/pets", "hub_id": None}
    config = copy.deepcopy(CONFIG)
    config["backbone"]["weights"] = "/home/me/secret/weights.h5"
    text = render(config, metrics)
    assert "secret" not in text and "`pets`" in text and "weights.h5" in text
    assert "datasets" not in front_matter(text)


@pytest.mark.parametrize(
    ("name", "entry", "expected"),
    [
        ("roc_auc", {"value": 0.999256, "low": 0.9985, "high": 1.0}, "0.99926 (0.99850–1.00000)"),
        ("accuracy", {"value": 0.989, "low": 0.984, "high": 0.9925}, "98.90 % (98.40–99.25)"),
        ("log_loss", {"value": 0.0327, "low": 0.02, "high": 0.05}, "0.0327 (0.0200–0.0500)"),
        ("accuracy", {"value": 0.5, "low": None, "high": None}, "50.00 %"),
        ("roc_auc", {"value": None, "low": None, "high": None}, NOT_MEASURED),
        ("roc_auc", None, NOT_MEASURED),
    ],
)
def test_printed_digits(name, entry, expected):
    assert score(name, entry) == expected


def test_rendering_needs_no_template_engine():
    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from hub.config import make_config\n"
        "from hub.publishing.card import render\n"
        "print(render(make_config(['a', 'b'], 32, None), None))\n"
        "assert not {'tensorflow', 'keras', 'matplotlib', 'pandas', 'sklearn'} & sys.modules.keys()"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "# A or b" in found.stdout


# The released model


def test_the_released_card_is_what_its_numbers_render():
    metrics = json.loads((RELEASED / "metrics.json").read_text(encoding="utf-8"))
    text = staging.card(RELEASED)  # of config.json, metrics.json and agreement.json
    assert (ROOT / "model_card.md").read_text(encoding="utf-8") == text, "render model_card.md anew"
    assert (RELEASED / "README.md").read_text(encoding="utf-8") == text
    for name in front_matter(text).get("datasets") or []:
        validate_repo_id(name)
    assert metrics["test"]["photos"] and metrics["validation"]["photos"] and metrics["elsewhere"]


def test_the_released_numbers_follow_from_the_released_record():
    from hub.record import read_predictions

    record = read_predictions(RELEASED)
    metrics = json.loads((RELEASED / "metrics.json").read_text(encoding="utf-8"))
    claimed = {"validation": metrics["validation"], "test": metrics["test"], **metrics["elsewhere"]}
    assert set(record.splits) == set(claimed)
    for split, scores in claimed.items():
        found = scores_of(record.subset(split))
        for name in SCORES:
            assert score(name, found[name]) == score(name, scores[name])
        assert found["confusion_matrix"] == scores["confusion_matrix"]
