"""danet.data.photometric: SSD's distortion; and crops that one class does not fill."""

import numpy as np
from PIL import Image

from danet.data.augment import Augmentation, scaled_crop
from danet.data.photometric import _recolored, distort


def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.asarray(Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((64, 48)))


def test_the_generator_alone_decides():
    first, again, other = (distort(image(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_each_change_happens_half_of_the_time_and_stays_within_its_range():
    gray = np.full((4, 4, 3), 100, np.uint8)
    means = np.array([distort(gray, np.random.default_rng(seed)).mean() for seed in range(400)])
    assert 0.5 * (100 - 32) - 1 <= means.min() < 60
    assert 150 < means.max() <= 1.5 * (100 + 32)
    assert 60 < (means == 100).sum() < 140  # neither brightness nor contrast: a quarter


def test_hue_turns_around_the_circle_and_saturation_scales():
    red = np.full((2, 2, 3), (200, 20, 20), np.uint8)
    r, g, b = _recolored(red, 1.0, -36)[0, 0].astype(int)
    assert r > b > g
    assert b - g > 60
    spread = [np.ptp(_recolored(red, factor, 0.0)[0, 0].astype(int)) for factor in (0.5, 1.0)]
    assert abs(spread[0] - spread[1] / 2) <= 2


def test_a_crop_that_one_class_fills_is_drawn_again():
    labels = np.zeros((100, 100), np.uint8)
    labels[:, 50:] = 1
    image = np.zeros((100, 100, 3), np.uint8)

    def largest(share: float, seed: int) -> float:
        _, cut = scaled_crop(image, labels, 1.0, (20, 20), np.random.default_rng(seed), share)
        return np.bincount(cut.ravel()).max() / cut.size

    any_crop = [largest(1.0, seed) for seed in range(100)]
    mixed = [largest(0.75, seed) for seed in range(100)]
    assert np.mean([share == 1 for share in any_crop]) > 0.5
    assert np.mean([share < 0.75 for share in mixed]) > 0.5  # one crop in eight is so mixed; ten are tried
    assert np.mean([share < 0.75 for share in any_crop]) < 0.3


def test_the_recipes_options_reach_the_image():
    labels = np.zeros((48, 64), np.uint8)
    plain = Augmentation((48, 64), flip=0.0)(image(), labels, np.random.default_rng(3))[0]
    distorted = Augmentation((48, 64), flip=0.0, photometric=True)(image(), labels, np.random.default_rng(3))[0]
    assert (plain == image()).all()
    assert (distorted != plain).any()
