"""The benchmark of the explanations measures each one that runs and says why another does not."""

from __future__ import annotations

import sys

from benchmarks import explanations, speed
from hub.explain import METHODS


def test_each_method_is_measured_beside_one_pass(bundle_2, monkeypatch):
    """One round on the tiny model, without pauses: the numbers mean nothing, the procedure is the real one."""
    monkeypatch.setattr(speed, "PAUSE", 0)
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as if it were not installed
    result = explanations.measure(bundle_2, speed.photo(), rounds=1)
    assert list(result["methods"]) == ["evidence", "grad-cam", "occlusion", "score-cam"]
    assert list(result["lacking"]) == ["grad-cam++", "layer-cam"]
    occlusion = result["methods"]["occlusion"]
    assert occlusion["passes"] == 226
    assert occlusion["times_a_pass"]["median"] == occlusion["seconds"]["median"] / result["pass"]["median"] > 2
    rows = explanations.table(result).splitlines()
    assert len(rows) == 3 + len(METHODS)
    assert rows[-1].endswith("LayerCAM needs tensorflow, which is not installed here; pip install keras tensorflow. |")
