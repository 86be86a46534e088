import numpy as np
import pytest

from training.photos.augment import Augmentation

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


def moves(view: np.ndarray) -> np.ndarray:
    """By how many pixels the ramps of `picture()` have moved right and down, read off the centre."""
    centre = picture()[16, 16, :2].astype(float) - view[16, 16, :2].astype(float)
    return centre / (255 / 31)


def test_shift_moves_by_whole_pixels_in_every_direction_and_no_further():
    views = [Augmentation(shift=0.125, fill="nearest")(picture(), rng(k)) for k in range(100)]
    found = np.array([moves(view) for view in views])
    np.testing.assert_allclose(found, np.round(found), atol=0.15)  # ramps of 255/31 a pixel, rounded to uint8
    assert np.round(found).min() == -4 and np.round(found).max() == 4
    assert all(np.isin(view[..., 0], picture()[..., 0]).all() for view in views)  # nothing was blurred


def test_zoom_enlarges_and_shrinks_about_the_centre():
    factors = []
    for k in range(60):
        view = Augmentation(zoom=0.2, fill="nearest")(picture(64), rng(k)).astype(float)
        factors.append((view[32, 44, 0] - view[32, 20, 0]) / (24 * 255 / 63))
    enlarged = 1 / np.array(factors)  # read off ramps of whole numbers, to about 2 %
    assert 0.78 < enlarged.min() < 0.87
    assert 1.13 < enlarged.max() < 1.22


def test_shear_slants_columns_and_leaves_rows():
    slants = []
    for k in range(60):
        view = Augmentation(shear=20, fill="nearest")(picture(65), rng(k)).astype(float)
        np.testing.assert_allclose(view[32, :, 1], view[32, 32, 1], atol=1.5)
        slants.append((view[48, 32, 0] - view[16, 32, 0]) / (32 * 255 / 64))
    angles = np.degrees(np.arctan(slants))
    assert np.abs(angles).max() < 21
    assert angles.min() < -15 and angles.max() > 15


@pytest.mark.parametrize(
    ("fill", "left"), [("black", [0, 0]), ("mean", [99, 99]), ("nearest", [10, 10]), ("reflect", [30, 20])]
)
def test_what_shows_where_the_photo_has_moved_away(fill, left):
    """A picture moved two pixels to the right: what fills the first two columns."""
    row = np.array([10, 20, 30, 40, 50, 60, 226, 226] + [109] * 8, np.uint8)
    pixels = np.repeat(np.tile(row, (16, 1))[..., None], 3, -1)
    mean = int(pixels.mean())
    quarter = np.array([0.25, 0, 0, 0, 0, 0])  # of the largest shift to the right, 8 pixels
    moved = Augmentation(shift=0.5, fill=fill)._moved(pixels, np.zeros(9), 1.0, quarter)
    found = np.asarray(moved)[8, :, 0].tolist()
    assert found[2:] == row[:14].tolist()
    assert found[:2] == ([mean, mean] if fill == "mean" else left)


def test_an_erased_square_has_its_size_and_one_colour():
    whole = np.full((32, 32, 3), 200, np.uint8) - np.arange(32, dtype=np.uint8)[:, None]
    views = [Augmentation(erase=0.25)(whole, rng(k)) for k in range(60)]
    areas = [np.any(view != whole, -1).sum() for view in views]
    assert max(areas) <= 64 and max(areas) > 48
    assert min(areas) < 40  # its centre may lie at the edge


def test_an_augmentation_knows_whether_it_does_anything():
    assert Augmentation(fill="reflect").does_nothing()
    assert not Augmentation(flip=True).does_nothing()
