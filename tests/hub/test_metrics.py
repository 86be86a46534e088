"""metrics.json: read with suspicion, written as it was; what is odd in one entry hides no other."""

import copy
import json

from hub import bundle
from hub.config import make_config
from hub.metrics import Metrics, metrics_of, read_metrics
from hub.publishing.card import render
from hub.scores import Interval


def released() -> dict:
    return json.loads((bundle.DEFAULT / bundle.METRICS).read_text(encoding="utf-8"))


def test_the_released_metrics_are_written_byte_for_byte_as_they_were():
    text = (bundle.DEFAULT / bundle.METRICS).read_text(encoding="utf-8")
    found = read_metrics(bundle.DEFAULT)
    assert bundle.json_text(found.to_json(), bundle.METRICS) == text
    assert found.test.photos == 1986 and found.test.score("accuracy").ends[0] < found.test.score("accuracy").value
    assert found.split("Oxford-IIIT Pet").photos == 293 and found.split("train") is None
    assert metrics_of({}) == Metrics() and Metrics().to_json() == {}


def test_what_is_unknown_null_or_odd_is_written_as_it_was_read():
    content = released()
    content["more"] = content["dataset"]["unit"] = content["test"]["hours"] = [1]
    content["dataset"]["note"] = None
    content["training"]["seconds"] = "long"
    content["test"]["accuracy"] = {"value": "high", "low": None, "high": 1.0, "sd": 2}
    content["test"]["f1"] = 0.5
    content["test"]["bootstrap"] = [2000]
    content["agreement"] = "fine"
    found = metrics_of(content)
    assert json.dumps(found.to_json(), sort_keys=True) == json.dumps(content, sort_keys=True)
    assert list(found.to_json()["dataset"])[:3] == ["name", "hub_id", "note"]
    assert found.test.score("accuracy").value is None and found.test.score("f1") == Interval()


def test_one_odd_entry_hides_no_other():
    """Whatever stands in one place, the card is rendered, and what is elsewhere is on it."""
    whole = released()
    config = make_config(["cat", "dog"], 224, (7, 7))

    def places(content, path=()):
        for key, value in content.items():
            yield (*path, key)
            if isinstance(value, dict) and len(path) < 2:
                yield from places(value, (*path, key))

    for path in places(whole):
        for odd in (None, {}, "x", [[1, 2, 3]]):
            content = copy.deepcopy(whole)
            place = content
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = odd
            text = render(config, metrics_of(content))
            assert "### Confusion matrix: validation" in text or path[0] == "validation", (path, odd)
