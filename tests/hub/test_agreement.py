"""agreement.json: read with suspicion, written as it was; unknown entries survive."""

import copy
from pathlib import Path

import numpy as np
import pytest

from hub import BundleError, bundle
from hub.agreement import SameTensor, agreement_of, difference, read_agreement, too_far

HERE = Path("mine")
# What `verify` wrote before it knew anything else.
MINIMAL = {
    "tolerance": 1e-4,
    "photos": 3,
    "title": "photos",
    "unreadable": 0,
    "largest_photo": {"width": 40, "height": 30, "enlarged": True},
    "largest_evidence": None,
    "runtimes": {
        "onnx": {
            "title": "ONNX Runtime",
            "versions": {"onnxruntime": "1.2"},
            "same_tensor": {"probability": 1e-6, "logits": 2e-6, "evidence": None},
            "same_file": {
                "probability": 0.1, "other_label": 0, "unread": 0, "largest_photo": 0.2, "turned_photo": 0.3,
            },
        }
    },
    "files": {"model.keras": "0" * 64},
    "written_only": {},
    "left_out": {},
}  # fmt: skip


def test_the_released_agreement_is_written_byte_for_byte_as_it_was():
    text = (bundle.DEFAULT / bundle.AGREEMENT).read_text(encoding="utf-8")
    assert bundle.json_text(read_agreement(bundle.DEFAULT).to_json(), bundle.AGREEMENT) == text


def test_unknown_entries_survive_wherever_they_stand():
    assert agreement_of(MINIMAL, HERE).to_json() == MINIMAL
    content = copy.deepcopy(MINIMAL)
    row = content["runtimes"]["onnx"]
    places = (content, content["largest_photo"], row, row["same_tensor"], row["same_file"])
    for place in places:
        place["more"] = {"of": [1]}
    found = agreement_of(content, HERE)
    assert found.to_json() == content
    assert found.runtimes["onnx"].same_file.more == {"more": {"of": [1]}}


@pytest.mark.parametrize("key", sorted(MINIMAL.keys() - {"largest_evidence"}))
def test_what_lacks_an_entry_is_refused(key):
    """The sentence names the command that writes it anew."""
    with pytest.raises(BundleError, match="not what this version writes; run .*hub verify mine"):
        agreement_of({name: value for name, value in MINIMAL.items() if name != key}, HERE)


@pytest.mark.parametrize(
    "change",
    [
        {"title": "photos\n# Best of all"},
        {"left_out": {"litert": "none\x1b[31m"}},
        {"files": {"a\nb": "0"}},
        {"runtimes": {"onnx": {**MINIMAL["runtimes"]["onnx"], "title": "ONNX\r# Best"}}},
    ],
)
def test_a_text_of_a_stranger_begins_no_line_of_the_card(change):
    with pytest.raises(BundleError, match="not what this version writes"):
        agreement_of({**MINIMAL, **change}, HERE)


def test_answers_that_are_no_numbers_are_too_far():
    logits = np.array([[1.0, 2.0]])
    found = difference((logits, None), (logits * np.nan, None))
    assert np.isnan(found.probability) and found.evidence is None
    assert "probability differs" in too_far(found, None)
    assert too_far(SameTensor(0.0, 5.0), None) is None
