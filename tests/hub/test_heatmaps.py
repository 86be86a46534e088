"""Maps, colours and sums against answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hub import ImageClassifier, heatmaps

CAT = [[1, -2], [3, 0]]
DOG = [[4, 1], [-1, 2]]
FOX = [[1, 1], [1, 1]]
TWO = np.stack([CAT, DOG], axis=-1).astype(np.float32)
THREE = np.stack([CAT, DOG, FOX], axis=-1).astype(np.float32)
RED, BLUE = [202, 0, 32], [5, 113, 176]


def test_two_classes_show_one_against_the_other():
    """Dog minus cat, cell by cell; cat's picture is the same with the signs turned."""
    np.testing.assert_array_equal(heatmaps.shown_map(TWO, 1), [[3, 3], [-4, 2]])
    np.testing.assert_array_equal(heatmaps.shown_map(TWO, 0), [[-3, -3], [4, -2]])


def test_more_classes_show_one_against_the_mean():
    """The mean over the three classes is [[2, 0], [1, 1]]."""
    np.testing.assert_array_equal(heatmaps.shown_map(THREE, 0), [[-1, -2], [2, -1]])
    np.testing.assert_array_equal(sum(heatmaps.shown_map(THREE, k) for k in range(3)), np.zeros((2, 2)))


def test_shown_map_takes_many_photos_at_once():
    """Leading axes are kept."""
    many = heatmaps.shown_map(np.stack([TWO, 2 * TWO]), 1)
    np.testing.assert_array_equal(many, [[[3, 3], [-4, 2]], [[6, 6], [-8, 4]]])
    assert many.dtype == np.float32


def test_map_adds_up_to_the_log_odds(bundle_2, photos):
    """The mean of dog against cat is log(p(dog) / p(cat)), to the rounding of float32."""
    for prediction in ImageClassifier.from_pretrained(bundle_2).predict(list(photos)):
        cat, dog = prediction.probabilities.astype(np.float64)
        assert heatmaps.shown_map(prediction.evidence, 1).mean() == pytest.approx(np.log(dog / cat), abs=1e-4)


def test_grad_cam_is_the_positive_part():
    """Grad-CAM ends in a ReLU."""
    np.testing.assert_array_equal(heatmaps.grad_cam(TWO, 1), [[4, 1], [0, 2]])


@pytest.mark.parametrize("k", [0, 1, 2])
def test_grad_cam_equals_the_gradient_of_tensorflow(model_3, photos, k):
    """The method as published: gradients of the logit at the features, averaged, weighing the features."""
    import keras
    import tensorflow as tf

    both = keras.Model(model_3.input, [model_3.get_layer("features").output, model_3.output])
    pixels = tf.constant(photos[:1].astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        features, outputs = both(pixels, training=False)
        logit = outputs["logits"][0, k]
    weights = tape.gradient(logit, features).numpy().mean(axis=(1, 2))  # (1, C)
    published = np.maximum((features.numpy() * weights[:, None, None]).sum(axis=-1), 0)[0]
    evidence = outputs["evidence"][0].numpy()
    assert published.max() > 0.01
    np.testing.assert_allclose(heatmaps.grad_cam(evidence, k) / 16, published, atol=1e-5)


def test_fixed_scale_is_the_99th_percentile():
    """Dog minus cat runs through 0, 1, ..., 100: one photo in a hundred lies above 99."""
    evidence = np.zeros((101, 1, 1, 2), np.float32)
    evidence[:, 0, 0, 1] = np.arange(101)
    assert heatmaps.fixed_scale(evidence) == 99
    assert heatmaps.fixed_scale(np.zeros((3, 2, 2, 2), np.float32)) == 1


def test_upsample_by_hand():
    """Half-pixel bilinear: the centres of 0 and 4 lie at 1/4 and 3/4 of the width."""
    np.testing.assert_array_equal(heatmaps.upsample(np.array([[0, 4]]), (1, 4)), [[0, 1, 3, 4]])
    np.testing.assert_array_equal(heatmaps.upsample(np.array([[0], [4]]), (4, 1)), [[0], [1], [3], [4]])


@pytest.mark.parametrize("factor", [2, 3, 32])
def test_upsample_keeps_the_mean(factor):
    """At integer factors the picture's mean is the cells' mean, so the picture tells no other story."""
    cells = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    enlarged = heatmaps.upsample(cells, (7 * factor, 7 * factor))
    assert enlarged.mean(dtype=np.float64) == pytest.approx(cells.mean(dtype=np.float64), abs=1e-6)


def test_colours_by_hand():
    """Full colour at the scale and beyond, white at nothing, a fifth of the way at a fifth."""
    colours = heatmaps.colour(np.array([[5, 500, 0], [-5, -500, 1]]), scale=5)
    np.testing.assert_array_equal(colours[0], [RED, RED, [255, 255, 255]])
    np.testing.assert_array_equal(colours[1], [BLUE, BLUE, [244, 204, 210]])


def test_overlay_by_hand():
    """On a grey photo of four pixels: all covered, all covered, untouched, half covered."""
    photo = Image.new("RGB", (2, 2), (100, 100, 100))
    values = np.array([[5, -5], [0, 2.5]])
    shown = np.asarray(heatmaps.overlay(photo, values, scale=5, opacity=1))
    np.testing.assert_array_equal(shown, [[RED, BLUE], [[100, 100, 100], [151, 50, 66]]])
    shown = np.asarray(heatmaps.overlay(photo, values, scale=5, opacity=0.5))
    np.testing.assert_array_equal(shown[0, 0], [151, 50, 66])
    np.testing.assert_array_equal(heatmaps.overlay(photo, values, scale=5, opacity=0), photo)


def test_unsigned_overlay_hides_what_is_negative():
    """As Grad-CAM does."""
    photo = Image.new("RGB", (2, 1), (100, 100, 100))
    shown = np.asarray(heatmaps.overlay(photo, np.array([[5, -5]]), scale=5, opacity=1, signed=False))
    np.testing.assert_array_equal(shown, [[RED, [100, 100, 100]]])


def test_scale_is_never_the_photos_own():
    """A weak map stays weak: half the evidence, half the cover."""
    photo = Image.new("RGB", (2, 2), (100, 100, 100))
    strong, weak = (
        np.asarray(heatmaps.overlay(photo, values, 8, 1)) for values in (np.full((2, 2), 8), np.full((2, 2), 4))
    )
    np.testing.assert_array_equal(strong[0, 0], RED)
    np.testing.assert_array_equal(weak[0, 0], [151, 50, 66])


@pytest.mark.parametrize("scale", [0, -1, float("nan")])
def test_a_scale_that_is_none_is_refused(scale):
    """Never a picture in made-up colours."""
    with pytest.raises(ValueError, match="not positive"):
        heatmaps.colour(np.ones((2, 2)), scale)
