"""The report on Keras versions: what counts as a failure, and which line of a complaint is shown."""

from __future__ import annotations

import numpy as np

from benchmarks import keras_versions
from benchmarks.keras_versions import Outcome


def test_only_a_small_difference_is_fine():
    """Neither a failure nor NaN nor another answer passes."""
    assert Outcome(2e-6).fine
    assert not any(one.fine for one in (Outcome(0.1), Outcome(float("nan")), Outcome(problem="ValueError: no")))


def test_table_says_what_failed_and_why():
    """A row a version, and a line below for each failure."""
    found = {
        "3.11.3": {"keras": Outcome(problem="TypeError: no"), "keras-folder": Outcome(0.2)},
        "3.15.1": {"keras": Outcome(0.0), "keras-folder": Outcome(2e-6)},
    }
    lines = keras_versions.table(found).splitlines()
    assert lines[2:4] == ["| 3.11.3 | fails | differs: 2.0e-01 |", "| 3.15.1 | 0.0e+00 | 2.0e-06 |"]
    assert lines[5:] == ["Keras 3.11.3, keras: TypeError: no"]


def test_the_innermost_error_is_shown():
    """Keras wraps errors in errors with pages of configuration between them."""
    said = (
        "Traceback (most recent call last):\n  File ...\nTypeError: <class 'Functional'> could not be\n\n"
        "config={'module': 'keras'}\n\nException encountered: Error when deserializing\n\n"
        "Exception encountered: GlorotUniform.__init__() got an unexpected keyword argument 'input_axes'\n"
    )
    assert keras_versions.complaint(said).startswith("GlorotUniform.__init__() got")
    assert keras_versions.complaint("Traceback:\nValueError: no file\n[notice] goodbye") == "ValueError: no file"
    assert keras_versions.complaint("Killed\n") == "Killed"


def test_photos_are_drawn_the_same_each_time():
    """Windows of one picture, all different."""
    photos = keras_versions.tensors(None, 32)
    assert photos.shape == (keras_versions.PHOTOS, 32, 32, 3)
    assert photos.dtype == np.uint8
    assert len({photo.tobytes() for photo in photos}) == len(photos)
    np.testing.assert_array_equal(photos, keras_versions.tensors(None, 32))
