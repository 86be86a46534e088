import numpy as np
import pytest

from training.augment import Augmentation

rng = np.random.default_rng


def picture(size=32) -> np.ndarray:
    """Red grows to the right, green downwards."""
    ramp = np.linspace(0, 255, size).astype(np.uint8)
    return np.stack(
        [np.tile(ramp, (size, 1)), np.tile(ramp[:, None], (1, size)), np.full((size, size), 99, np.uint8)], -1
    )


def test_nothing_asked_nothing_done():
    assert np.array_equal(Augmentation()(picture(), rng(3)), picture())


def test_the_same_draw_gives_the_same_view_and_another_draw_another():
    augment = Augmentation(0.5, 1.33, True, 10, 0.3, 0.3, 0.3, 0.8, 50)
    a, b, c = (augment(picture(), rng([0, 1, k])) for k in (5, 5, 6))
    assert a.shape == (32, 32, 3)
    assert a.dtype == np.uint8
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_flip_mirrors_exactly_and_about_half_of_the_time():
    views = [Augmentation(flip=True)(picture(), rng(k)) for k in range(200)]
    mirrored = [np.array_equal(view, picture()[:, ::-1]) for view in views]
    same = [np.array_equal(view, picture()) for view in views]
    assert sum(mirrored) + sum(same) == 200
    assert 70 < sum(mirrored) < 130


def test_a_crop_shows_at_least_its_share_of_the_picture():
    for k in range(50):
        view = Augmentation(crop_area=0.5)(picture(), rng(k)).astype(float)
        width, height = np.ptp(view[..., 0]) / 255, np.ptp(view[..., 1]) / 255
        assert 0.45 < width * height <= 1


def test_rotation_stays_within_its_degrees_about_the_centre():
    angles = []
    for k in range(50):
        view = Augmentation(rotation=10)(picture(65), rng(k)).astype(float)
        assert abs(view[32, 32, 0] - picture(65)[32, 32, 0]) < 4
        right, down = view[32, 48, 0] - view[32, 16, 0], view[32, 48, 1] - view[32, 16, 1]
        angles.append(np.degrees(np.arctan2(down, right)))
    assert np.abs(angles).max() < 11.5
    assert min(angles) < -5
    assert max(angles) > 5


@pytest.mark.parametrize("knob", ["brightness", "contrast", "saturation", "sharpness"])
def test_each_colour_knob_changes_the_picture_both_ways(knob):
    base = rng(0).integers(60, 190, (32, 32, 3), np.uint8)
    measure = {"brightness": np.mean, "contrast": np.std, "saturation": lambda v: np.ptp(v, -1).mean(),
               "sharpness": lambda v: np.abs(np.diff(v, axis=0)).mean()}[knob]  # fmt: skip
    values = [measure(Augmentation(**{knob: 0.5})(base, rng(k)).astype(float)) for k in range(40)]
    assert min(values) < measure(base.astype(float)) < max(values)


def test_jpeg_touches_a_third_of_the_photos_slightly():
    base = rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    changed = [not np.array_equal(Augmentation(jpeg=50)(base, rng(k)), base) for k in range(300)]
    assert 70 < sum(changed) < 130


def test_one_knob_does_not_reshuffle_another():
    plain = Augmentation(crop_area=0.5)(picture(), rng(1))
    brighter = Augmentation(crop_area=0.5, brightness=0.2)(picture(), rng(1))
    ratio = brighter[8:24, 8:24, 2].astype(float) / plain[8:24, 8:24, 2]
    assert np.ptp(ratio) < 0.02
