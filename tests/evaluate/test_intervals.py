"""Differences in mIoU, and their bootstrap intervals over images."""

import numpy as np
import pytest

from danet.evaluate import intervals
from danet.evaluate.confusion import Confusion


def test_mean_iou_equals_the_confusion_matrix():
    confusion = Confusion(4)
    confusion.matrix = np.array([[5, 1, 0, 0], [2, 7, 0, 0], [0, 0, 0, 0], [1, 0, 0, 3]])
    assert intervals.mean_iou(confusion.matrix) == pytest.approx(confusion.scores().miou)
    both = np.stack([confusion.matrix, 2 * confusion.matrix])
    assert intervals.mean_iou(both) == pytest.approx([confusion.scores().miou] * 2)


def test_interval_over_images_is_paired():
    rng = np.random.default_rng(0)
    easy = rng.integers(1, 9, (40, 3, 3))
    better = easy + 2 * np.eye(3, dtype=int)
    assert intervals.by_images([easy], [easy]) == (0, 0)
    low, high = intervals.by_images([better, better], [easy, easy])
    gain = intervals.mean_iou(better.sum(0)) - intervals.mean_iou(easy.sum(0))
    assert 0 < low < gain < high < low + 0.05
    assert intervals.by_images([easy], [better]) == pytest.approx((-high, -low))


def test_images_without_labels_leave_the_interval_defined():
    rng = np.random.default_rng(0)
    easy = rng.integers(1, 9, (3, 3, 3))
    better = easy + 2 * np.eye(3, dtype=int)
    easy[2:] = better[2:] = 0
    low, high = intervals.by_images([better], [easy])
    assert low <= intervals.paired_difference(better, easy)["difference"] <= high
    assert low > 0


@pytest.mark.parametrize("labeled", [0, 1])
def test_one_labeled_image_has_no_interval(labeled):
    matrices = np.zeros((3, 3, 3), int)
    matrices[:labeled] = 4
    assert np.isnan(intervals.by_images([matrices], [matrices])).all()


def test_a_stray_pixel_of_a_class_of_one_image_hardly_moves_the_interval():
    matrices = np.tile(np.diag([1000, 1000, 1000, 1000, 0]), (70, 1, 1))
    matrices[0, 4, 4] = 1000
    stray = matrices.copy()
    stray[1, 0, 0] -= 1
    stray[1, 0, 4] += 1  # resamples without the first image would count this as an IoU of 0
    low, high = intervals.by_images([matrices], [stray])
    assert 0 <= low <= intervals.paired_difference(matrices, stray)["difference"] <= high < 0.001
