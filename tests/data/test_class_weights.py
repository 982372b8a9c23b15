"""Class weights from the pixels of a training set."""

import numpy as np
import pytest

from danet.data.class_weights import ClassCounts, check_labeled, class_weights, count_classes
from danet.data.classes import Classes
from danet.data.images.channels import RGB
from danet.data.samples import Sample
from danet.errors import InputError

METHODS = ("enet", "median-frequency", "effective-number", "auto")


class Labeled:
    """`Samples` with the given label maps."""

    classes = Classes.named(("road", "pole", "sky", "never"))
    bands = RGB

    def __init__(self, *maps: list[list[int]]):
        self.maps = [np.array(m, np.uint8) for m in maps]

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: int) -> Sample:
        raise AssertionError("the images need not be read")

    def labels(self, index: int) -> np.ndarray:
        return self.maps[index]


SCENES = Labeled([[0, 0, 0, 1], [0, 0, 255, 2]], [[0, 0, 0, 0], [0, 2, 2, 2]])


def test_pixels_images_and_pixels_in_images_are_counted():
    counted = count_classes(SCENES)
    assert counted.pixels.tolist() == [10, 1, 4, 0]
    assert counted.images.tolist() == [2, 1, 2, 0]
    assert counted.pixels_in_images.tolist() == [15, 7, 15, 0]
    assert counted.samples == 2


def test_a_limit_counts_evenly_spaced_label_maps():
    counted = count_classes(Labeled([[0]], [[1]], [[2]], [[1]], [[3]]), limit=3)
    assert counted.pixels.tolist() == [1, 0, 1, 1]
    assert counted.samples == 3


class OneBad(Labeled):
    """The second label map cannot be read."""

    def labels(self, index: int) -> np.ndarray:
        if index == 1:
            raise InputError("1.png", "truncated or damaged", "copy it again")
        return super().labels(index)


def test_unreadable_label_maps_are_skipped_if_errors_are_handled():
    scenes, errors = OneBad([[0, 1]], [[2, 2]], [[0, 0]]), []
    counted = count_classes(scenes, errors.append)
    assert [error.where for error in errors] == ["1.png"]
    assert counted.pixels.tolist() == [3, 1, 0, 0]
    assert counted.images.tolist() == [2, 1, 0, 0]
    assert counted.samples == 2
    with pytest.raises(InputError, match=r"1\.png: truncated"):
        count_classes(scenes)


@pytest.mark.parametrize("method", METHODS)
def test_weights_have_mean_one_and_grow_for_rare_classes(method):
    counted = count_classes(SCENES)
    weights = np.array(class_weights(method, counted))
    assert (weights * counted.pixels).sum() / counted.pixels.sum() == pytest.approx(1)
    assert weights[1] > weights[0]


def test_weights_follow_the_published_formulas():
    counted = count_classes(SCENES)

    def ratio(method):
        weights = class_weights(method, counted)
        return weights[1] / weights[0]

    assert ratio("enet") == pytest.approx(np.log(1.02 + 10 / 15) / np.log(1.02 + 1 / 15))
    assert ratio("median-frequency") == pytest.approx((10 / 15) / (1 / 7))
    assert ratio("effective-number") == pytest.approx((1 - 0.5**2) / (1 - 0.5))
    assert class_weights("auto", counted) == class_weights("enet", counted)


@pytest.mark.parametrize("method", METHODS)
def test_a_class_without_pixels_changes_no_other_weight(method):
    counted = count_classes(SCENES)
    without = ClassCounts(*(array[:3] for array in counted[:3]), counted.samples)
    assert class_weights(method, counted)[:3] == pytest.approx(class_weights(method, without))


def test_a_training_set_without_labeled_pixels_is_refused():
    check_labeled(Labeled([[255, 255]], [[255, 0]], [[1, 1]]))
    check_labeled(OneBad([[255, 255]], [[0, 0]]))  # training reports it
    with pytest.raises(InputError, match=r"every labeled pixel of its 2 images has the class '\w+'"):
        check_labeled(Labeled([[255, 255]], [[255, 0]]))
    with pytest.raises(InputError, match=r"data\.train_split: no pixel of its 2 images is labeled"):
        check_labeled(Labeled([[255, 255]], [[255, 255]]))


def test_class_weights_without_labeled_pixels_are_refused():
    with pytest.raises(InputError, match="no labeled pixels"):
        class_weights("enet", count_classes(Labeled([[255, 255]])))
