"""Synthetic scenes, augmentation and the order of samples are pure functions of their arguments."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from danet import InputError
from danet.data import registry, sampler
from danet.data.augment import Augmentation, _shift_colors, distort, paste, scaled_crop
from danet.data.degrade import DEGRADATIONS, degrade
from danet.evaluate.corruptions import CORRUPTIONS


@pytest.mark.parametrize("name", ["toy", "toy-context"])
def test_synthetic_scenes_depend_only_on_split_and_index(name):
    samples, again = registry.load(name, None, "train"), registry.load(name, None, "train")
    assert np.array_equal(samples[5].image, again[5].image)
    assert np.array_equal(samples[5].labels, again[5].labels)
    assert not np.array_equal(samples[5].image, registry.load(name, None, "val")[5].image)
    seen = np.unique(np.concatenate([samples[i].labels.ravel() for i in range(30)]))
    assert seen.tolist() == list(range(len(samples.classes)))


def test_only_the_lamp_determines_the_class_of_the_cars():
    samples = registry.load("toy-context", None, "train")
    for i in range(20):
        _, image, labels = samples[i]
        cars = np.isin(labels, (4, 5))
        assert len(np.unique(labels[cars])) == 1
        assert (
            np.argwhere(cars)[:, 1].min() - np.argwhere(labels == 3)[:, 1].max() >= 130
        )  # px: beyond the convolutions
        red, green = image[labels == 3].astype(int)[:, :2].sum(0)
        assert (labels[cars][0] == 4) == (red > green)


def test_an_unknown_split_of_synthetic_scenes_is_refused():
    with pytest.raises(InputError, match="use train or val"):
        registry.load("toy", None, "test")


@given(st.integers(1, 50), st.integers(0, 5), st.integers(0, 3))
def test_every_sample_occurs_once_per_epoch(size, epoch, seed):
    indices = [sampler.sample_index(seed, epoch * size + i, size) for i in range(size)]
    assert sorted(indices) == list(range(size))


@given(st.integers(0, 100), st.integers(1, 8), st.integers(1, 4))
def test_processes_divide_the_positions_of_a_step(step, per_process, world):
    batch = per_process * world
    shares = [sampler.batch_positions(step, batch, rank, world) for rank in range(world)]
    assert {len(share) for share in shares} == {per_process}
    assert sorted(itertools.chain(*shares)) == list(range(step * batch, (step + 1) * batch))


def test_order_and_augmentation_never_change():
    """A change would break resuming runs that began before it."""
    indices = [sampler.sample_index(7, position, 10) for position in range(12)]
    numbers = sampler.generator(7, 3).random(3)
    assert indices == [8, 0, 7, 1, 3, 6, 2, 4, 5, 9, 8, 2]
    assert numbers.round(6).tolist() == [0.516786, 0.208411, 0.200141]


def random_image(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3), np.uint8), rng.integers(0, 5, (height, width), np.uint8)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
crops = st.tuples(st.integers(1, 30), st.integers(1, 30))
seeds = st.integers(0, 2**32 - 1)


@given(sizes, crops, st.floats(0.3, 3.0), seeds)
def test_a_crop_has_its_size_and_ignores_pixels_outside_the_image(size, crop, scale, seed):
    image, labels = random_image(*size)
    out, out_labels = scaled_crop(image, labels, scale, crop, np.random.default_rng(seed))
    assert out.shape == (*crop, 3)
    assert out_labels.shape == crop
    outside = out_labels == 255
    assert not out[outside].any()
    inside = min(crop[0], max(1, round(size[0] * scale))), min(crop[1], max(1, round(size[1] * scale)))
    assert (~outside).sum() == inside[0] * inside[1]
    assert set(np.unique(out_labels)) <= {*np.unique(labels).tolist(), 255}


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7, 2.0])
def test_cropping_before_resizing_gives_the_same_pixels(scale):
    image, labels = random_image(40, 60)
    rng = np.random.default_rng(1)
    out, out_labels = scaled_crop(image, labels, scale, (16, 20), np.random.default_rng(1))
    whole_size = round(40 * scale), round(60 * scale)
    top, left = (int(rng.integers(0, a - b + 1)) for a, b in zip(whole_size, (16, 20), strict=True))
    whole = Image.fromarray(image).resize(whole_size[::-1], Image.Resampling.BILINEAR)
    whole_labels = Image.fromarray(labels).resize(whole_size[::-1], Image.Resampling.NEAREST)
    # both round to 8 bits twice, between the two passes of the resizing
    assert np.abs(out.astype(int) - np.asarray(whole)[top : top + 16, left : left + 20]).max() <= 2
    assert np.array_equal(out_labels, np.asarray(whole_labels)[top : top + 16, left : left + 20])


def test_image_and_labels_are_flipped_together():
    image, labels = random_image(16, 16)
    image[..., 0] = labels
    flipped, flipped_labels = Augmentation((16, 16), flip=1.0)(image, labels, np.random.default_rng(0))
    assert np.array_equal(flipped[..., 0], flipped_labels)
    assert np.array_equal(flipped_labels, labels[:, ::-1])


def ramps(height: int, width: int) -> np.ndarray:
    """Return an image whose pixels contain their own row and column."""
    return np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=2).astype(np.float32)


@given(sizes, crops, st.floats(0.3, 3.0), st.sampled_from([0.0, 1.0]), st.sampled_from([0.6, 1.0]), seeds)
def test_pixels_and_labels_come_from_the_same_place(size, crop, scale, flip, largest_share, seed):
    """Within half a pixel, the difference of nearest and bilinear; at the border, within the width of the filter."""
    augment = Augmentation(crop, (scale, scale), flip, largest_share=largest_share)
    image = ramps(*size)
    for axis in (0, 1):  # the same numbers are drawn both times
        out, labels = augment(image, image[..., axis].astype(np.uint8), np.random.default_rng(seed))
        inside = labels != 255
        assert not out[~inside].any()
        place, label = out[inside, axis], labels[inside].astype(float)
        step = size[axis] / max(1, round(size[axis] * scale))
        within = (place > step + 1) & (place < size[axis] - step - 2)
        assert np.abs(label - place)[within].max(initial=0) <= 0.501
        assert np.abs(label - place).max() <= 0.501 + max(1, step)


@given(sizes, crops, st.floats(0.3, 3.0), seeds)
def test_flipping_mirrors_the_same_crop(size, crop, scale, seed):
    image, labels = random_image(*size)
    straight, mirrored = (
        Augmentation(crop, (scale, scale), flip)(image, labels, np.random.default_rng(seed)) for flip in (0.0, 1.0)
    )
    for one, other in zip(straight, mirrored, strict=True):
        assert np.array_equal(one[:, ::-1], other)


@given(sizes, st.sampled_from([1, 3, 4]), st.sampled_from([np.uint8, np.float32]), st.floats(0, 1), seeds)
def test_color_changes_keep_labels_shape_and_type(size, bands, dtype, jitter, seed):
    rng = np.random.default_rng(seed)
    image, labels = rng.integers(0, 256, (*size, bands)).astype(dtype), rng.integers(0, 5, size, np.uint8)
    augment = Augmentation(size, flip=0.0, jitter=jitter, photometric=True, gamma=(0.5, 2.0))
    out, same = augment(image, labels, rng)
    assert np.array_equal(same, labels)
    assert (out.shape, out.dtype) == (image.shape, image.dtype)
    assert np.isfinite(out).all()
    assert np.array_equal(Augmentation(size, flip=0.0)(image, labels, rng)[0], image)  # at scale 1: pixel for pixel


def test_jitter_changes_only_colors():
    image, labels = random_image(16, 16)
    changed, same = Augmentation((16, 16), flip=0.0, jitter=0.4)(image, labels, np.random.default_rng(0))
    assert np.array_equal(same, labels)
    assert not np.array_equal(changed, image)


def test_global_random_state_has_no_effect():
    image, labels = random_image(30, 30)
    augment = Augmentation((16, 16), (0.5, 2.0), 0.5, 0.4)
    digests = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002  the global state that must have no effect
        out = augment(image, labels, np.random.default_rng(3))
        digests.append(hashlib.sha256(out[0].tobytes() + out[1].tobytes()).hexdigest())
    assert digests[0] == digests[1]


# SSD's photometric distortion, and crops that one class does not fill


def smooth_image() -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(image).resize((64, 48)))


def test_distortion_depends_only_on_the_generator():
    first, again, other = (distort(smooth_image(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_each_distortion_has_probability_one_half_and_its_range():
    gray = np.full((4, 4, 3), 100, np.uint8)
    means = np.array([distort(gray, np.random.default_rng(seed)).mean() for seed in range(400)])
    assert 0.5 * (100 - 32) - 1 <= means.min() < 60
    assert 150 < means.max() <= 1.5 * (100 + 32)
    assert 60 < (means == 100).sum() < 140  # neither brightness nor contrast: a quarter


def test_hue_wraps_around_and_saturation_scales():
    red = np.full((2, 2, 3), (200, 20, 20), np.uint8)
    r, g, b = _shift_colors(red, 1.0, -36)[0, 0].astype(int)
    assert r > b > g
    assert b - g > 60
    spread = [np.ptp(_shift_colors(red, factor, 0.0)[0, 0].astype(int)) for factor in (0.5, 1.0)]
    assert abs(spread[0] - spread[1] / 2) <= 2


def test_a_crop_filled_by_one_class_is_drawn_again():
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


def test_the_photometric_option_distorts_the_image():
    labels = np.zeros((48, 64), np.uint8)
    plain = Augmentation((48, 64), flip=0.0)(smooth_image(), labels, np.random.default_rng(3))[0]
    distorted = Augmentation((48, 64), flip=0.0, photometric=True)(smooth_image(), labels, np.random.default_rng(3))[0]
    assert (plain == smooth_image()).all()
    assert (distorted != plain).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("gamma", [0.5, 1.0001, 2.0])
def test_gamma_correction_is_a_power_of_the_pixels_from_0_to_1(gamma, dtype):
    image, labels = np.arange(768).reshape(16, 16, 3).clip(0, 255).astype(dtype), np.zeros((16, 16), np.uint8)
    augment = Augmentation((16, 16), flip=0.0, gamma=(gamma, gamma))
    out, _ = augment(image, labels, np.random.default_rng(0))
    assert out.dtype == dtype
    assert np.abs(out - 255 * (image / 255.0) ** gamma).max() <= (0.5 if dtype == np.uint8 else 1e-3)


def test_gamma_is_drawn_log_uniformly_from_its_range():
    gray, labels = np.full((4, 4, 3), 64, np.uint8), np.zeros((4, 4), np.uint8)
    augment = Augmentation((4, 4), flip=0.0, gamma=(0.5, 2.0))
    means = np.array([augment(gray, labels, np.random.default_rng(seed))[0].mean() for seed in range(400)])
    assert means.min() == pytest.approx(64**2 / 255, abs=1)
    assert means.max() == pytest.approx((64 * 255) ** 0.5, abs=1)
    assert 160 < (means < 64).sum() < 240  # as many exponents above 1 as below


def test_gamma_keeps_negative_values_of_other_rasters_finite():
    image = np.array([-3.0, 0.0, 300.0, 255.0], np.float32).reshape(2, 2, 1)
    out, _ = Augmentation((2, 2), flip=0.0, gamma=(2.0, 2.0))(
        image, np.zeros((2, 2), np.uint8), np.random.default_rng(0)
    )
    assert out.ravel() == pytest.approx([0, 0, 300**2 / 255, 255], rel=1e-6)


@given(sizes, seeds)
def test_degradations_keep_the_size_and_depend_only_on_the_generator(size, seed):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    first, again = (degrade(image, np.random.default_rng(seed)) for _ in range(2))
    assert (first.shape, first.dtype) == (image.shape, np.uint8)
    assert np.array_equal(first, again)


def test_degraded_16_bit_images_keep_their_type_and_never_wrap_around():
    bright = np.full((8, 8, 3), 300, np.float32)
    found = [degrade(bright, np.random.default_rng(seed)) for seed in range(40)]
    assert {image.dtype.name for image in found} == {"float32"}
    assert max(image.max() for image in found) <= 255
    assert np.median([image.mean() for image in found]) > 150
    assert any((image % 1).any() for image in found)


def test_pasted_pixels_of_more_bits_are_clipped():
    labels = np.array([[0, 1]], np.uint8)
    bright = np.full((1, 2, 3), 300, np.float32), labels
    pasted, _ = paste(np.zeros((1, 2, 3), np.uint8), labels, bright, np.random.default_rng(0))
    assert sorted(np.unique(pasted)) == [0, 255]


@pytest.mark.parametrize("kind", DEGRADATIONS, ids=lambda kind: kind.__name__)
def test_each_degradation_is_visible_but_leaves_the_scene_in_place(kind):
    """A degraded image is nearer to its own image than to the same image moved by 8 pixels or mirrored."""
    y, x = np.mgrid[:48, :64].astype(np.float32)
    scene = np.stack([x / 63, np.where((x - 40) ** 2 + (y - 20) ** 2 < 150, 0.9, 0.2), np.where(y > 30, 0.8, 0.1)], 2)
    for seed in range(20):
        changed = kind(scene.astype(np.float32), np.random.default_rng(seed)).clip(0, 1)
        assert changed.shape == scene.shape
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()

        def likeness(other: np.ndarray, changed: np.ndarray = changed) -> float:
            return sum(np.corrcoef(changed[..., band].ravel(), other[..., band].ravel())[0, 1] for band in (1, 2))

        assert likeness(scene) > max(likeness(np.roll(scene, 8, 0)), likeness(scene[::-1]), likeness(scene[:, ::-1]))
    assert np.abs(changed - scene).mean() > 0.001


def test_the_degrade_option_is_a_probability():
    labels, image = np.zeros((48, 64), np.uint8), smooth_image()
    outs = [
        Augmentation((48, 64), flip=0.0, degrade=0.5)(image, labels, np.random.default_rng(i))[0] for i in range(60)
    ]
    assert 15 <= sum((out != image).any() for out in outs) <= 45


def test_no_degradation_is_a_corruption_of_the_evaluation():
    assert not {kind.__name__ for kind in DEGRADATIONS} & set(CORRUPTIONS)


@pytest.fixture
def numbered() -> tuple[np.ndarray, np.ndarray]:
    """An image whose pixels all differ, and labels of 2 x 2 squares of class 1 and one pixel of class 2 on class 0."""
    labels = np.zeros((40, 60), np.uint8)
    labels[10:12, 30:32] = 1
    labels[33, 7] = 2
    image = np.stack([np.repeat(np.arange(40)[:, None], 60, 1), np.repeat(np.arange(60)[None], 40, 0), labels], 2)
    return image.astype(np.uint8), labels


def test_flips_and_rotations_move_image_and_labels_together(numbered):
    image, labels = numbered
    augment = Augmentation((40, 60), flip=0.5, vertical_flip=0.5, rotate=0.5)
    square = Augmentation((60, 60), flip=0.5, vertical_flip=0.5, rotate=0.5)
    seen = set()
    for seed in range(60):
        crops = augment(image, labels, np.random.default_rng(seed))
        assert crops[0].shape == (40, 60, 3)
        made, own = square(image, labels, np.random.default_rng(seed))
        assert (made[..., 2][own != 255] == own[own != 255]).all()
        assert sorted(own[own != 255].tolist()) == sorted(labels.ravel().tolist())
        seen.add(made.tobytes())
    assert len(seen) == 8  # the symmetries of a square


@pytest.mark.parametrize(("option", "expected"), [("vertical_flip", lambda a: a[::-1]), ("flip", lambda a: a[:, ::-1])])
def test_a_flip_of_probability_one_is_the_exact_mirror(numbered, option, expected):
    augment = Augmentation((40, 60), **({"flip": 0.0} | {option: 1.0}))
    made = augment(*numbered, np.random.default_rng(0))
    assert all((new == expected(old)).all() for new, old in zip(made, numbered, strict=True))


def test_new_options_that_are_off_draw_no_random_numbers(numbered):
    plain, explicit = Augmentation((16, 16)), Augmentation((16, 16), vertical_flip=0.0, rotate=0.0, rare=0.0)
    generators = [np.random.default_rng(5) for _ in range(2)]
    made = [each(*numbered, rng)[0] for each, rng in zip((plain, explicit), generators, strict=True)]
    assert (made[0] == made[1]).all()
    twin = np.random.default_rng(5)
    twin.uniform(1, 1), twin.integers(0, 25), twin.integers(0, 45), twin.random()
    assert generators[0].random() == twin.random()


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_rare_crops_contain_a_rare_class_in_their_middle(numbered, scale):
    pixels = (10**6, 400, 100)
    augment = Augmentation((16, 16), scale=(scale, scale), flip=0.0, rare=1.0, class_pixels=pixels)
    image, labels = numbered
    chosen = []
    for seed in range(200):
        made, own = augment(image, labels, np.random.default_rng(seed))
        row, column = made[8, 8, :2].astype(float)  # where the middle comes from
        near = [k for k, (y, x) in ((1, (10.5, 30.5)), (2, (33, 7))) if abs(row - y) < 10 and abs(column - x) < 10]
        chosen += near[:1] if scale >= 1 or near else [0]
        if scale >= 1:
            assert near
            assert near[0] in own
    if scale == 1:
        assert 0.7 < chosen.count(2) / len(chosen) < 0.9  # 1/100 to 1/400


def test_rare_crops_of_images_without_labels_are_random(numbered):
    image, labels = numbered
    augment = Augmentation((16, 16), rare=1.0, class_pixels=(1, 1, 1))
    assert (augment(image, np.full_like(labels, 255), np.random.default_rng(0))[1] == 255).all()


def test_pasted_pixels_are_those_of_one_class_and_mostly_of_a_small_one():
    image, labels = np.zeros((10, 10, 3), np.uint8), np.full((10, 10), 4, np.uint8)
    other_labels = np.zeros((10, 10), np.uint8)
    other_labels[2:4, 2:7] = 1  # a tenth, against 80 % and 10 % ignored
    other_labels[9] = 255
    other = np.full((10, 10, 3), 9, np.uint8), other_labels
    rng, small = np.random.default_rng(0), 0
    for _ in range(200):
        pixels, pasted = paste(image, labels, other, rng)
        inside = pasted != 4
        chosen = int(pasted[inside][0])
        assert np.array_equal(inside, other_labels == chosen)
        assert np.array_equal(pixels[..., 0] == 9, inside)
        small += chosen == 1
    assert 160 < small < 195  # 80 of 90: inverse to 80 and 10 pixels


def test_crop_of_one_class_pastes_nothing():
    image, labels = np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 4, np.uint8)
    other = np.ones((4, 4, 3), np.uint8), np.array([[0, 0, 255, 255]] * 4, np.uint8)
    pixels, pasted = paste(image, labels, other, np.random.default_rng(0))
    assert pixels is image
    assert pasted is labels
