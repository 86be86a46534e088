"""config.json: read with suspicion, written as it was; unknown entries survive."""

from dataclasses import replace

import pytest

from hub import BundleError, bundle
from hub.config import INPUTS, PREPROCESSING, Backbone, Config, Evidence, config_of, make_config, read_config

# What a bundle of an earlier version must have at least.
MINIMAL = {"id2label": {"0": "cat", "1": "dog"}, "image_size": 32, "preprocessing": PREPROCESSING}


def test_the_released_config_is_written_byte_for_byte_as_it_was():
    text = (bundle.DEFAULT / bundle.CONFIG).read_text(encoding="utf-8")
    config = read_config(bundle.DEFAULT)
    assert bundle.json_text(config.to_json(), bundle.CONFIG) == text
    assert config.labels == ("cat", "dog") and config.image_size == 224 and config.evidence.grid == (7, 7)
    assert config.backbone.name == "MobileNetV2" and not config.more and not config.backbone.more


def test_a_config_without_optional_entries_opens():
    config = config_of(MINIMAL, "The config")
    assert config == Config(("cat", "dog"), 32, model_type=None)
    written = {**MINIMAL, "label2id": {"cat": 0, "dog": 1}, "head": "logits", "inputs": INPUTS}
    assert config.to_json() == written
    assert config_of(written, "The config") == config


def test_what_is_not_known_survives_and_what_is_foreign_does_not():
    """Also within evidence and backbone; null and what is no text are written as they were read."""
    content = {
        **make_config(["cat", "dog"], 32, (4, 2)).to_json(),
        "evidence": {"grid": [4, 2], "scale": None, "scale_definition": "as ever", "unit": "logits"},
        "backbone": {"name": "mine", "license": None, "epochs": 3},
        "license": "mit",
        "made_by": {"a": [1]},
        "name": None,
    }
    config = config_of({**content, "class_name": "Functional", "hidden_act": "relu6"}, "The config")
    assert config.to_json() == content
    assert config.evidence == Evidence((4, 2), None, "as ever", {"unit": "logits"})
    assert config.backbone == Backbone("mine", more={"license": None, "epochs": 3})
    assert config.more == {"made_by": {"a": [1]}, "name": None}
    assert replace(config, name="cats").to_json() == {**content, "name": "cats"}


def test_what_is_derived_is_written_anew():
    """An entry that says otherwise than the labels and the evidence do is not carried on."""
    odd = {**MINIMAL, "label2id": {"cat": 1, "dog": 0}, "head": "evidence", "evidence": {}}
    written = config_of(odd, "The config").to_json()
    assert written["label2id"] == {"cat": 0, "dog": 1} and written["head"] == "logits" and "evidence" not in written


def test_a_refusal_begins_as_the_caller_says():
    with pytest.raises(BundleError, match=r"^The config of mine has no image_size"):
        make_config(["cat", "dog"], 0, None, "The config of mine")
